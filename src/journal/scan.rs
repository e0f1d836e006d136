//! From the bytes of a file to its frames, in order, past any damage. Knows one file at a time and judges nothing: a
//! hole is reported, not explained.
//!
//! Memory: one window of 64 kB, whatever lengths the file claims; a batch is loaded only on request and only after its
//! checksum was right. The search after damage is linear: a place is tried only if magic and tag are there, and the
//! tag is a secret of the store.

use std::io;

use super::frame::{FILE_HEADER_BYTES, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, SECTOR, frame_hasher};

/// A directory as opening a store sees it.
pub trait ReadDirectory {
    type File: ReadFile;

    /// Names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens for reading.
    fn open(&self, name: &str) -> io::Result<Self::File>;
}

pub trait ReadFile {
    fn size(&self) -> io::Result<u64>;
    /// Reads some bytes at `offset`; 0 only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

const WINDOW_BYTES: usize = 64 * 1024;
const ZEROS: [u8; 512] = [0; 512];

/// The part of a file that is in memory.
pub struct Window<'a, F> {
    file: &'a F,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, F: ReadFile> Window<'a, F> {
    pub fn new(file: &'a F, size: u64) -> Window<'a, F> {
        Window { file, size, start: 0, bytes: Vec::new() }
    }

    /// The bytes from `offset` on: at least a frame header's worth unless the file ends before.
    pub fn look(&mut self, offset: u64) -> io::Result<&[u8]> {
        let wanted = self.size.saturating_sub(offset).min(FRAME_HEADER_BYTES as u64);
        if offset < self.start || offset + wanted > self.start + self.bytes.len() as u64 {
            self.fill(offset)?;
        }
        let skip = (offset - self.start).min(self.bytes.len() as u64) as usize;
        Ok(&self.bytes[skip..])
    }

    fn fill(&mut self, offset: u64) -> io::Result<()> {
        let wanted = self.size.saturating_sub(offset).min(WINDOW_BYTES as u64) as usize;
        self.bytes.resize(wanted, 0);
        self.start = offset;
        let mut filled = 0;
        while filled < wanted {
            match self.file.read_at(offset + filled as u64, &mut self.bytes[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What a scanner came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A valid frame and the offset of its header.
    Frame(FrameHeader, u64),
    /// Bytes between two valid frames, or before the first, that are none: from, to.
    Hole(u64, u64),
}

pub struct Scanner<'a, F> {
    window: Window<'a, F>,
    generation: u32,
    /// Taken from the first valid frame if it is not known.
    tag: Option<u32>,
    /// Frames with a lower sequence are left over from a former use of the file.
    next_sequence: u64,
    at: u64,
    torn: bool,
    /// Behind the last byte that is not zero, of what the search has seen.
    nonzero_end: u64,
}

impl<'a, F: ReadFile> Scanner<'a, F> {
    /// Scans the first `size` bytes of `file` for frames of `generation` from `first_sequence` on.
    pub fn new(file: &'a F, size: u64, generation: u32, tag: Option<u32>, first_sequence: u64) -> Scanner<'a, F> {
        let window = Window::new(file, size);
        let at = FILE_HEADER_BYTES as u64;
        Scanner { window, generation, tag, next_sequence: first_sequence, at, torn: false, nonzero_end: at }
    }

    /// The next frame or hole; `None` when no valid frame follows.
    pub fn next(&mut self) -> io::Result<Option<Found>> {
        for offset in [self.at, self.at.next_multiple_of(SECTOR)] {
            if let Some(header) = self.check(offset)? {
                return Ok(Some(self.accept(header, offset)));
            }
        }
        let from = self.at;
        Ok(self.search()?.map(|offset| {
            self.at = offset;
            Found::Hole(from, offset)
        }))
    }

    /// Where the last valid frame ends; after `next` returned `None`, what follows has no valid frame.
    pub fn valid_end(&self) -> u64 {
        self.at
    }

    pub fn tag(&self) -> Option<u32> {
        self.tag
    }

    /// After `next` returned `None`: bytes behind the valid end up to the last that is not zero.
    pub fn tail_bytes(&self) -> u64 {
        self.nonzero_end.saturating_sub(self.at)
    }

    /// After `next` returned `None`: whether there is, behind the valid end, the header of a frame that never was whole.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Puts the batch of a frame that `next` returned into `batch`.
    pub fn load(&mut self, header: &FrameHeader, offset: u64, batch: &mut Vec<u8>) -> io::Result<()> {
        batch.clear();
        let end = offset + (FRAME_HEADER_BYTES as u64) + u64::from(header.length);
        let mut at = offset + FRAME_HEADER_BYTES as u64;
        while at < end {
            let bytes = self.window.look(at)?;
            let taken = bytes.len().min((end - at).try_into().unwrap_or(usize::MAX));
            batch.extend_from_slice(&bytes[..taken]);
            at += taken as u64;
        }
        Ok(())
    }

    fn accept(&mut self, header: FrameHeader, offset: u64) -> Found {
        self.tag = Some(header.tag);
        self.next_sequence = header.sequence.saturating_add(1);
        self.at = offset + FRAME_HEADER_BYTES as u64 + u64::from(header.length);
        self.torn = false;
        Found::Frame(header, offset)
    }

    /// The header of a frame at `offset` if it is valid there.
    fn check(&mut self, offset: u64) -> io::Result<Option<FrameHeader>> {
        if offset >= self.window.size {
            return Ok(None);
        }
        let Some((header, checksum)) = FrameHeader::parse(self.window.look(offset)?) else { return Ok(None) };
        if self.tag.is_some_and(|tag| tag != header.tag) || header.sequence < self.next_sequence {
            return Ok(None);
        }
        let valid = self.checksum(&header, offset)? == Some(checksum);
        self.torn |= !valid;
        Ok(valid.then_some(header))
    }

    /// `None` if the frame would be longer than the file.
    fn checksum(&mut self, header: &FrameHeader, offset: u64) -> io::Result<Option<u32>> {
        let end = offset + FRAME_HEADER_BYTES as u64 + u64::from(header.length);
        if end > self.window.size {
            return Ok(None);
        }
        let mut hasher = frame_hasher(self.generation);
        let mut at = offset + 8;
        while at < end {
            let bytes = self.window.look(at)?;
            let taken = bytes.len().min((end - at).try_into().unwrap_or(usize::MAX));
            hasher.update(&bytes[..taken]);
            at += taken as u64;
        }
        Ok(Some(hasher.finalize()))
    }

    /// The first valid frame behind the valid end.
    fn search(&mut self) -> io::Result<Option<u64>> {
        let mut at = self.at;
        while at < self.window.size {
            let bytes = self.window.look(at)?;
            // Zeros written ahead are passed quickly; none of them can be in a magic.
            let zeros = bytes.chunks_exact(ZEROS.len()).take_while(|chunk| **chunk == ZEROS).count() * ZEROS.len();
            if zeros > 0 {
                at += zeros as u64;
                continue;
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                self.nonzero_end = self.nonzero_end.max(at + last as u64 + 1);
            }
            let magic = bytes.windows(FRAME_MAGIC.len()).position(|four| four == FRAME_MAGIC);
            // What is too short for a magic is looked at again together with what follows, unless nothing does.
            let passed = bytes.len().saturating_sub(FRAME_MAGIC.len() - 1).max(1);
            match magic {
                Some(index) => {
                    at += index as u64;
                    if self.check(at)?.is_some() {
                        return Ok(Some(at));
                    }
                    at += 1;
                }
                None => at += passed as u64,
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::SnapshotPart;
    use super::*;

    struct Bytes(Vec<u8>);

    impl ReadFile for Bytes {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        /// Seven bytes at most, so that every read is a short one.
        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
            let from = &self.0[offset as usize..];
            let count = from.len().min(into.len()).min(7);
            into[..count].copy_from_slice(&from[..count]);
            Ok(count)
        }
    }

    fn frame(sequence: u64, generation: u32, batch: &[u8]) -> Vec<u8> {
        let length = batch.len() as u32;
        let part = SnapshotPart::None;
        let header = FrameHeader { length, tag: 77, sequence, store_ms: 0, wall_ms: 0, unsynced: 0, part };
        header.encode(generation, batch)
    }

    fn scan(bytes: &Bytes, tag: Option<u32>) -> (Vec<String>, u64, u64) {
        let mut scanner = Scanner::new(bytes, bytes.0.len() as u64, 3, tag, 1);
        let mut seen = Vec::new();
        let mut batch = Vec::new();
        while let Some(found) = scanner.next().unwrap() {
            match found {
                Found::Frame(header, offset) => {
                    scanner.load(&header, offset, &mut batch).unwrap();
                    seen.push(String::from_utf8(batch.clone()).unwrap());
                }
                Found::Hole(from, to) => seen.push(format!("hole of {}", to - from)),
            }
        }
        (seen, scanner.valid_end(), scanner.tail_bytes())
    }

    #[test]
    fn frames_follow_directly_or_at_the_next_sector() {
        let mut file = vec![0; 512];
        file.extend(frame(1, 3, b"one"));
        file.extend(frame(2, 3, b"two"));
        let end = file.len();
        file.resize(1024, 0);
        file.extend(frame(3, 3, b""));
        file.resize(4096, 0);
        assert!(end < 1024);
        assert_eq!(scan(&Bytes(file), None), (vec!["one".into(), "two".into(), String::new()], 1024 + 48, 0));
    }

    #[test]
    fn after_damage_the_next_valid_frame_is_found() {
        let mut file = vec![0; 512];
        file.extend(frame(1, 3, b"one"));
        let second = frame(2, 3, &[b'x'; 1000]);
        let damaged_at = file.len() + 500;
        file.extend(&second);
        file.extend(frame(3, 3, b"three"));
        file[damaged_at] ^= 1;
        let expected = vec!["one".into(), format!("hole of {}", second.len()), "three".into()];
        let end = file.len() as u64;
        assert_eq!(scan(&Bytes(file), Some(77)), (expected, end, 0));
    }

    #[test]
    fn frames_of_another_generation_or_store_or_with_a_former_sequence_are_none() {
        let mut file = vec![0; 512];
        file.extend(frame(5, 3, b"five"));
        let end = file.len() as u64;
        file.extend(frame(4, 3, b"former"));
        file.extend(frame(6, 2, b"other generation"));
        let tail = file.len() as u64 - end;
        assert_eq!(scan(&Bytes(file.clone()), Some(77)), (vec!["five".into()], end, tail));
        assert_eq!(scan(&Bytes(file), Some(78)), (Vec::new(), 512, end + tail - 512));
    }

    #[test]
    fn a_claimed_length_beyond_the_file_allocates_nothing() {
        let mut file = vec![0; 512];
        let mut lie = frame(1, 3, b"lie");
        lie[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        file.extend(&lie);
        file.extend(frame(2, 3, b"two"));
        assert_eq!(scan(&Bytes(file), None).0, [format!("hole of {}", lie.len()), "two".into()]);
    }

    #[test]
    fn a_magic_across_the_edge_of_a_window_is_found() {
        for hole in WINDOW_BYTES - 5..WINDOW_BYTES + 5 {
            let mut file = vec![0; 512];
            file.resize(512 + hole, b'-');
            file.extend(frame(1, 3, b"far"));
            assert_eq!(scan(&Bytes(file), None).0, [format!("hole of {hole}"), "far".into()]);
        }
    }
}
