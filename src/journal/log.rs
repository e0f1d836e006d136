//! The journal while it is written: pure. Owns where the next frame goes, which generations there are and what may be
//! removed when; makes tasks and performs none. Knows neither clock nor disk nor what is in a batch.
//!
//! Invariant: one task at a time. State moves on when a task is made, since a task is performed until it succeeds.
//!
//! | mode     | frames                | writes   | zeros ahead | sync        |
//! |----------|-----------------------|----------|-------------|-------------|
//! | Always   | at sector boundaries  | direct   | yes         | each commit |
//! | Interval | at sector boundaries  | direct   | yes         | each commit |
//! | Never    | one behind the other  | buffered | no          | snapshots   |
//!
//! Direct writes of whole sectors make the device write what was committed and nothing else, where a buffered write
//! makes it write 4096 bytes for each page touched. Measured on ext4, per synced commit of 170 bytes: buffered 8.4 kB
//! on the device, direct at the end of the file 6.4 kB (the file's size changes each time), direct into zeros written
//! before 0.6 kB. The zeros are written once more for it, which a file that is used again spares; what a change of
//! size costs, some 10 kB in the file system's own journal, is more than most commits at an interval are.

use std::io;

use super::frame::{FILE_HEADER_BYTES, FORMAT_VERSION, FileHeader, FrameHeader, SECTOR, SnapshotPart};
use super::task::{Done, Name, Step, Task, Wear};

/// When commits are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each at once, often and small.
    Always,
    /// Each, but the caller gathers changes for some time.
    Interval,
    /// Only snapshots.
    Never,
}

/// Unless the files have grown by this much since the last snapshot no compaction is worth its syncs, however small the
/// caller thinks it would be.
const COMPACTION_BYTES_MIN: u64 = 64 * 1024;
/// Zeros written ahead: half of what the file holds, since at about twice its size it is compacted, within bounds.
/// At least 128 small commits, so that the change of size costs each next to nothing; at most what a small flash can spare.
const AHEAD_BYTES_MIN: u64 = 64 * 1024;
const AHEAD_BYTES_MAX: u64 = 1024 * 1024;
/// A file is used again only if it is not larger than twice what is needed now and this.
const SPARE_BYTES_SLACK: u64 = 1024 * 1024;
const BLOCK: u64 = 4096;

/// A generation's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub generation: u32,
    /// Where its last frame ends.
    pub end: u64,
    /// Up to where it is known to have been written before: its size, or less.
    pub size: u64,
    /// To be set aside, not removed, and never to be written.
    pub is_damaged: bool,
}

/// What was found at start.
pub(super) struct Beginning {
    pub mode: Mode,
    pub key: u64,
    /// Ascending. Empty: the store is new.
    pub files: Vec<Held>,
    /// The highest generation number ever seen.
    pub highest: u32,
    pub spare_bytes: Option<u64>,
    pub sequence: u64,
    pub repairs: Vec<Step>,
}

pub struct Journal {
    mode: Mode,
    key: u64,
    files: Vec<Held>,
    highest: u32,
    spare_bytes: Option<u64>,
    /// Of the last frame made.
    sequence: u64,
    /// Of the last frame known to be synced once the task under way is done.
    synced: u64,
    repairs: Vec<Step>,
    is_started: bool,
    is_busy: bool,
    snapshot_under_way: bool,
    /// What the files held just after the last snapshot of this run.
    snapshot_bytes: u64,
    wear: Wear,
}

impl Journal {
    pub(super) fn new(beginning: Beginning) -> Journal {
        Journal {
            mode: beginning.mode,
            key: beginning.key,
            files: beginning.files,
            highest: beginning.highest,
            spare_bytes: beginning.spare_bytes,
            sequence: beginning.sequence,
            synced: beginning.sequence,
            repairs: beginning.repairs,
            is_started: false,
            is_busy: false,
            snapshot_under_way: false,
            snapshot_bytes: 0,
            wear: Wear::default(),
        }
    }

    /// The first task, before any commit: repairs what opening found, and creates what a new store needs. Nothing was
    /// written before.
    pub fn first_task(&mut self) -> Task {
        debug_assert!(!self.is_started);
        self.is_started = true;
        self.is_busy = true;
        let mut steps = std::mem::take(&mut self.repairs);
        if let Some(newest) = self.files.last() {
            // What was replayed may never have been synced, and what comes next depends on it.
            steps.push(Step::Sync { file: Name::Generation(newest.generation) });
        }
        steps.push(Step::SyncDirectory);
        if self.files.is_empty() {
            self.start_generation(&mut steps);
            self.write_frame(&mut steps, &[], SnapshotPart::Whole, 0, 0);
            self.sync(&mut steps);
        } else if self.files.iter().any(|file| file.is_damaged) {
            self.start_generation(&mut steps);
        }
        Task { steps }
    }

    /// Makes the task that stores `batch` behind all others. `store_ms` and `wall_ms` (0 = unknown) come back at the
    /// next start. A snapshot is `Begin`, any number of `Part` with `None` between them, and `End`, or `Whole`; what it
    /// says must hold even if it is applied on top of what it replaces.
    pub fn commit(&mut self, batch: &[u8], part: SnapshotPart, store_ms: u64, wall_ms: u64) -> Task {
        debug_assert!(self.is_started && !self.is_busy);
        debug_assert!(part.begins() || part == SnapshotPart::None || self.snapshot_under_way);
        self.is_busy = true;
        let mut steps = Vec::new();
        if part.begins() {
            self.start_generation(&mut steps);
            self.snapshot_under_way = true;
        }
        self.write_frame(&mut steps, batch, part, store_ms, wall_ms);
        self.wear.batch_bytes += batch.len() as u64;
        if part.ends() {
            self.snapshot_under_way = false;
        }
        if self.mode != Mode::Never && !self.snapshot_under_way {
            self.extend(&mut steps);
        }
        if self.mode != Mode::Never || part.ends() {
            self.sync(&mut steps);
        }
        if part.ends() {
            self.retire_older(&mut steps);
            self.snapshot_bytes = self.held_bytes();
            self.wear.snapshots += 1;
        }
        Task { steps }
    }

    /// Takes note of what became of the task under way. One that failed is given back with the reason: it is still
    /// under way, and is to be submitted again, as it is, when that may help.
    pub fn finish(&mut self, done: Done) -> Result<(), (Task, io::Error)> {
        debug_assert!(self.is_busy);
        self.wear.add(&done.wear);
        match done.result {
            Ok(()) => {
                self.is_busy = false;
                Ok(())
            }
            Err(error) => Err((done.task, error)),
        }
    }

    /// Whether a snapshot should be made: because at least half of what the files hold is garbage (padding is), when all
    /// that must survive would be `live_bytes` of batches; or because a damaged file waits for it.
    pub fn wants_compaction(&self, live_bytes: u64) -> bool {
        if self.snapshot_under_way || self.is_busy {
            return false;
        }
        let held = self.held_bytes();
        let grown = held.saturating_sub(self.snapshot_bytes);
        self.has_damage() || grown >= COMPACTION_BYTES_MIN && held.saturating_sub(live_bytes) * 2 >= held
    }

    /// Whether a damaged file waits to be set aside, for which a complete snapshot is needed.
    pub fn has_damage(&self) -> bool {
        self.files.iter().any(|file| file.is_damaged)
    }

    /// Whether a task is under way, so that no other may be made.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether a snapshot was begun and its end not yet committed.
    pub fn snapshot_under_way(&self) -> bool {
        self.snapshot_under_way
    }

    /// Bytes of frames in all files, padding among them.
    pub fn held_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.end).sum()
    }

    /// A number drawn at random when the store was created.
    pub fn store_key(&self) -> u64 {
        self.key
    }

    pub fn wear(&self) -> Wear {
        self.wear
    }

    /// Gives the next generation its file, after everything older is synced and before it has frames.
    fn start_generation(&mut self, steps: &mut Vec<Step>) {
        if self.synced != self.sequence {
            self.sync(steps);
        }
        let spare = self.spare_bytes.take();
        self.highest += 1;
        let header = FileHeader {
            version: FORMAT_VERSION,
            generation: self.highest,
            key: self.key,
            first_sequence: self.sequence + 1,
            old_bytes_end: spare.unwrap_or(0),
        };
        let file = Name::Generation(self.highest);
        steps.push(Step::Create { file, header: header.encode(), from_spare: spare.is_some() });
        steps.push(Step::SyncDirectory);
        let end = FILE_HEADER_BYTES as u64;
        let size = spare.unwrap_or(0).max(end);
        self.files.push(Held { generation: self.highest, end, size, is_damaged: false });
    }

    fn write_frame(&mut self, steps: &mut Vec<Step>, batch: &[u8], part: SnapshotPart, store_ms: u64, wall_ms: u64) {
        let unsynced = self.sequence - self.synced;
        self.sequence += 1;
        let frame = FrameHeader {
            length: u32::try_from(batch.len()).expect("a batch is smaller than 4 GiB"),
            tag: self.key as u32,
            sequence: self.sequence,
            store_ms,
            wall_ms,
            unsynced: unsynced.try_into().unwrap_or(u32::MAX),
            part,
        };
        let is_aligned = self.mode != Mode::Never;
        let file = self.newest();
        let mut bytes = frame.encode(file.generation, batch);
        let mut offset = file.end;
        let length = bytes.len() as u64;
        if is_aligned {
            offset = offset.next_multiple_of(SECTOR);
            bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        }
        file.end = offset + length;
        steps.push(Step::Write { file: Name::Generation(file.generation), offset, bytes });
    }

    /// Zeros behind the last frame if it made the file longer. Never before it: what is written anyway needs none.
    fn extend(&mut self, steps: &mut Vec<Step>) {
        let file = self.newest();
        if file.end <= file.size {
            return;
        }
        let from = file.end.next_multiple_of(SECTOR);
        let ahead = (from / 2).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
        file.size = (from + ahead).next_multiple_of(BLOCK);
        steps.push(Step::Extend { file: Name::Generation(file.generation), from, to: file.size });
    }

    fn sync(&mut self, steps: &mut Vec<Step>) {
        let file = Name::Generation(self.newest().generation);
        steps.push(Step::Sync { file });
        self.synced = self.sequence;
    }

    /// All files but the newest go. One of them may become the next generation's.
    fn retire_older(&mut self, steps: &mut Vec<Step>) {
        let Some(newest) = self.files.pop() else { return };
        let spare_bytes_max = 2 * newest.end + SPARE_BYTES_SLACK;
        for held in std::mem::replace(&mut self.files, vec![newest]) {
            let file = Name::Generation(held.generation);
            let size = held.size.max(held.end.next_multiple_of(SECTOR));
            if held.is_damaged {
                steps.push(Step::SetAside { file });
            } else if self.mode != Mode::Never && self.spare_bytes.is_none() && size <= spare_bytes_max {
                self.spare_bytes = Some(size);
                steps.push(Step::Rename { from: file, to: Name::Spare });
            } else {
                steps.push(Step::Remove { file });
            }
        }
        steps.push(Step::SyncDirectory);
    }

    fn newest(&mut self) -> &mut Held {
        self.files.last_mut().expect("the first task makes a file if there is none")
    }
}
