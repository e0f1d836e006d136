//! What one file holds, and what its holes mean. Reads; decides nothing about other files.
//!
//! The newest file may have lost what was never synced, in any order: each frame says how many frames before it were
//! not known to be synced, so a hole that only such frames can have filled is a torn tail, and the store goes back
//! to the state before it: all that follows is cut. Any other hole is damage, and what follows it is kept.

use std::io;

use super::frame::{FILE_HEADER_BYTES, FileHeader, FrameHeader, SECTOR};
use super::scan::{Found, ReadFile, Scanner};

/// Frames without a hole or a missing sequence between them.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub from: u64,
    pub to: u64,
    pub first: u64,
    pub last: u64,
    /// The highest sequence that one of these frames knew to be synced.
    pub synced: u64,
    pub frames: u64,
}

pub struct Survey {
    pub generation: u32,
    /// `None` if it is damaged.
    pub header: Option<FileHeader>,
    pub size: u64,
    pub runs: Vec<Run>,
    pub tag: Option<u32>,
    /// The whole snapshot is there.
    pub is_complete: bool,
    pub is_damaged: bool,
    /// Bytes that are to be cut off behind `end`.
    pub torn_bytes: u64,
    /// Bytes behind the last valid frame up to the last that is not zero.
    pub tail_bytes: u64,
    tail_is_torn: bool,
}

impl Survey {
    pub fn read<F: ReadFile>(
        file: &F,
        size: u64,
        generation: u32,
        header: Option<FileHeader>,
        tag: Option<u32>,
    ) -> io::Result<Survey> {
        let first_sequence = header.map_or(0, |header| header.first_sequence);
        let mut scanner = Scanner::new(file, size, generation, tag, first_sequence);
        let mut survey = Survey {
            generation,
            header,
            size,
            runs: Vec::new(),
            tag: None,
            is_complete: false,
            is_damaged: header.is_none(),
            torn_bytes: 0,
            tail_bytes: 0,
            tail_is_torn: false,
        };
        let mut begun = false;
        while let Some(found) = scanner.next()? {
            let Found::Frame(frame, offset) = found else { continue };
            survey.add(&frame, offset, scanner.valid_end());
            begun |= survey.is_at_the_start() && frame.part.begins();
            survey.is_complete |= begun && survey.runs.len() == 1 && frame.part.ends();
        }
        survey.tag = scanner.tag();
        survey.tail_bytes = scanner.tail_bytes();
        let old_bytes_end = header.map_or(0, |header| header.old_bytes_end);
        let tail_end = scanner.valid_end() + survey.tail_bytes;
        survey.tail_is_torn = scanner.is_torn() || survey.tail_bytes > 0 && tail_end > old_bytes_end;
        Ok(survey)
    }

    fn add(&mut self, frame: &FrameHeader, from: u64, to: u64) {
        let synced = frame.synced_sequence();
        match self.runs.last_mut() {
            // Behind a run without a hole: at its end, or at the next sector.
            Some(run) if frame.sequence == run.last + 1 && from - run.to < SECTOR => {
                run.to = to;
                run.last = frame.sequence;
                run.synced = run.synced.max(synced);
                run.frames += 1;
            }
            _ => self.runs.push(Run { from, to, first: frame.sequence, last: frame.sequence, synced, frames: 1 }),
        }
    }

    /// Whether only one frame was seen, and it is the first of the file.
    fn is_at_the_start(&self) -> bool {
        let [run] = self.runs[..] else { return false };
        run.frames == 1 && self.first_sequence() == Some(run.first)
    }

    /// The sequence of the first frame the file has or had; `None` if nobody knows.
    pub fn first_sequence(&self) -> Option<u64> {
        match (self.header, self.runs.first()) {
            (Some(header), _) => Some(header.first_sequence),
            (None, Some(run)) if run.from == FILE_HEADER_BYTES as u64 => Some(run.first),
            _ => None,
        }
    }

    pub fn last_sequence(&self) -> Option<u64> {
        self.runs.last().map(|run| run.last)
    }

    /// Where the last frame that counts ends.
    pub fn end(&self) -> u64 {
        self.runs.last().map_or(FILE_HEADER_BYTES as u64, |run| run.to)
    }

    pub fn frame_count(&self) -> u64 {
        self.runs.iter().map(|run| run.frames).sum()
    }

    /// Explains the holes of the newest file: cuts a torn tail, or marks the file as damaged.
    pub fn settle_newest(&mut self) {
        let found_end = self.end();
        let mut last = self.first_sequence().map(|first| first.saturating_sub(1));
        for index in 0..self.runs.len() {
            if last.is_none_or(|last| self.runs[index].first != last + 1) {
                let synced = self.runs[index..].iter().map(|run| run.synced).max();
                // In a damaged file, which will not be cut, everything readable counts, now and at the next start.
                if !self.is_damaged && last.is_some() && synced <= last {
                    self.runs.truncate(index);
                    break;
                }
                self.is_damaged = true;
            }
            last = Some(self.runs[index].last);
        }
        if self.end() < found_end || self.tail_is_torn {
            self.torn_bytes = found_end + self.tail_bytes - self.end();
        }
    }

    /// Explains the holes of an older file, all of which was synced before the next one began with `next_sequence`.
    pub fn settle_older(&mut self, next_sequence: Option<u64>) {
        let starts_whole = self.runs.first().is_some_and(|run| self.first_sequence() == Some(run.first));
        let ends_whole = next_sequence.is_none() || self.last_sequence().map(|last| last + 1) == next_sequence;
        self.is_damaged |= self.runs.len() != 1 || !starts_whole || !ends_whole;
    }

    /// Bytes within the file that should be frames and are none: how many places, how many bytes, the first offset.
    pub fn holes(&self) -> (u64, u64, u64) {
        let (mut places, mut bytes, mut first) = (0, 0, 0);
        let mut from = FILE_HEADER_BYTES as u64;
        for (index, run) in self.runs.iter().enumerate() {
            if index > 0 || run.from > from {
                first = if places == 0 { from } else { first };
                places += 1;
                bytes += run.from - from;
            }
            from = run.to;
        }
        (places, bytes, first)
    }
}
