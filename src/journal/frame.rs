//! The bytes of a frame and of a file's first sector. Pure: no file, no order of things; what is valid where is
//! decided by `scan` and `survey`.
//!
//! All numbers are little-endian. A file begins with one sector:
//!
//! ```text
//!   0  "midge journal\n"      14 bytes
//!  14  format version         u16
//!  16  generation             u32
//!  20  checksum               u32, CRC-32 over the sector with zeros in this place
//!  24  store key              u64, the same in all files of a store
//!  32  first sequence         u64, of the first frame in this file
//!  40  old bytes end          u64, up to which the file may hold frames of a former generation; 0 = a new file
//!  48  zeros to 512
//! ```
//!
//! Frames follow, each a header and one batch:
//!
//! ```text
//!   0  magic                  "mjf1"
//!   4  checksum               u32, CRC-32 over the generation number (u32), the header from 8 on, and the batch
//!   8  length of the batch    u32
//!  12  tag                    u32, the lower half of the store key
//!  16  sequence               u64, one more than the frame before, across files
//!  24  store time             u64, milliseconds
//!  32  wall clock             u64, milliseconds since 1970, 0 = unknown
//!  40  unsynced               u32, how many frames just before this one were not known to be synced
//!  44  snapshot part          u8: 0 none, 1 begin, 2 end, 3 both, 4 a part between
//!  45  zeros
//!  48  the batch
//! ```
//!
//! The tag is what keeps a payload that imitates a frame from being taken for one when the frame around it is torn:
//! whoever publishes does not know it.

use crc32fast::Hasher;

/// What a device writes in one piece, or not at all.
pub const SECTOR: u64 = 512;
pub const FRAME_HEADER_BYTES: usize = 48;
pub const FILE_HEADER_BYTES: usize = SECTOR as usize;
pub const FORMAT_VERSION: u16 = 1;

pub const FRAME_MAGIC: [u8; 4] = *b"mjf1";
pub const FILE_MAGIC: [u8; 14] = *b"midge journal\n";

/// What a frame is to the snapshot of its generation. Changes may stand in any frame, whatever its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPart {
    /// Nothing: changes only.
    None,
    /// The first part: begins a new generation.
    Begin,
    /// A part between.
    Part,
    /// The last part: the generation is complete and older ones are not needed any more.
    End,
    /// First and last in one.
    Whole,
}

impl SnapshotPart {
    pub fn begins(self) -> bool {
        matches!(self, SnapshotPart::Begin | SnapshotPart::Whole)
    }

    pub fn ends(self) -> bool {
        matches!(self, SnapshotPart::End | SnapshotPart::Whole)
    }

    fn code(self) -> u8 {
        match self {
            SnapshotPart::None => 0,
            SnapshotPart::Begin => 1,
            SnapshotPart::End => 2,
            SnapshotPart::Whole => 3,
            SnapshotPart::Part => 4,
        }
    }

    fn from_code(code: u8) -> Option<SnapshotPart> {
        Some(match code {
            0 => SnapshotPart::None,
            1 => SnapshotPart::Begin,
            2 => SnapshotPart::End,
            3 => SnapshotPart::Whole,
            4 => SnapshotPart::Part,
            _ => return None,
        })
    }
}

/// A frame without its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the batch.
    pub length: u32,
    pub tag: u32,
    pub sequence: u64,
    /// The caller's clock, milliseconds; given back at the next start.
    pub store_ms: u64,
    /// Milliseconds since 1970; 0 = unknown.
    pub wall_ms: u64,
    pub unsynced: u32,
    pub part: SnapshotPart,
}

impl FrameHeader {
    /// Header and batch as they stand in the file of `generation`.
    pub fn encode(&self, generation: u32, batch: &[u8]) -> Vec<u8> {
        debug_assert_eq!(self.length as usize, batch.len());
        let padded = (FRAME_HEADER_BYTES + batch.len()).next_multiple_of(SECTOR as usize);
        let mut bytes = Vec::with_capacity(padded);
        bytes.extend_from_slice(&FRAME_MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.tag.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.store_ms.to_le_bytes());
        bytes.extend_from_slice(&self.wall_ms.to_le_bytes());
        bytes.extend_from_slice(&self.unsynced.to_le_bytes());
        bytes.extend_from_slice(&[self.part.code(), 0, 0, 0]);
        bytes.extend_from_slice(batch);
        let mut hasher = frame_hasher(generation);
        hasher.update(&bytes[8..]);
        bytes[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes` and the checksum it claims, if it looks like one. Nothing is verified.
    pub fn parse(bytes: &[u8]) -> Option<(FrameHeader, u32)> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        if bytes[..4] != FRAME_MAGIC || bytes[45..] != [0; 3] {
            return None;
        }
        let header = FrameHeader {
            length: u32_at(bytes, 8),
            tag: u32_at(bytes, 12),
            sequence: u64_at(bytes, 16),
            store_ms: u64_at(bytes, 24),
            wall_ms: u64_at(bytes, 32),
            unsynced: u32_at(bytes, 40),
            part: SnapshotPart::from_code(bytes[44])?,
        };
        Some((header, u32_at(bytes, 4)))
    }

    /// The last sequence that was known to be synced when this frame was made.
    pub fn synced_sequence(&self) -> u64 {
        self.sequence.saturating_sub(1).saturating_sub(self.unsynced.into())
    }
}

/// A checksum that has seen the generation number; header (from 8 on) and batch are to follow.
pub fn frame_hasher(generation: u32) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher
}

/// A file's first sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    pub version: u16,
    pub generation: u32,
    pub key: u64,
    pub first_sequence: u64,
    pub old_bytes_end: u64,
}

impl FileHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
        bytes.extend_from_slice(&FILE_MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.key.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.old_bytes_end.to_le_bytes());
        bytes.resize(FILE_HEADER_BYTES, 0);
        let checksum = crc32fast::hash(&bytes);
        bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header if text and checksum are right, whatever the version: both stay where they are in all versions.
    pub fn parse(bytes: &[u8]) -> Option<FileHeader> {
        let mut bytes: [u8; FILE_HEADER_BYTES] = *bytes.first_chunk()?;
        let checksum = u32_at(&bytes, 20);
        bytes[20..24].fill(0);
        if bytes[..14] != FILE_MAGIC || crc32fast::hash(&bytes) != checksum {
            return None;
        }
        Some(FileHeader {
            version: u16::from_le_bytes([bytes[14], bytes[15]]),
            generation: u32_at(&bytes, 16),
            key: u64_at(&bytes, 24),
            first_sequence: u64_at(&bytes, 32),
            old_bytes_end: u64_at(&bytes, 40),
        })
    }
}

/// Whether a file that begins with `bytes` was never a journal. One of ours that was damaged still has most of its
/// text, or zeros in its place.
pub fn is_foreign(bytes: &[u8]) -> bool {
    const DAMAGED_MAX: usize = 3;
    let strange = bytes.iter().zip(&FILE_MAGIC).filter(|(byte, ours)| byte != ours && **byte != 0).count();
    strange > DAMAGED_MAX
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u32) -> FrameHeader {
        FrameHeader {
            length,
            tag: 0x1122_3344,
            sequence: 5,
            store_ms: 6,
            wall_ms: 7,
            unsynced: 2,
            part: SnapshotPart::Begin,
        }
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let bytes = header(3).encode(9, b"abc");
        let expected = b"mjf1\0\0\0\0\x03\0\0\0\x44\x33\x22\x11\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\
            \x07\0\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0abc";
        assert_eq!(bytes[..4], expected[..4]);
        assert_eq!(bytes[8..], expected[8..]);
        let mut covered = vec![9, 0, 0, 0];
        covered.extend_from_slice(&expected[8..]);
        assert_eq!(bytes[4..8], crc32fast::hash(&covered).to_le_bytes());
    }

    #[test]
    fn what_was_encoded_is_parsed() {
        let header = header(3);
        let (parsed, _) = FrameHeader::parse(&header.encode(9, b"abc")).unwrap();
        assert_eq!(parsed, header);
        assert_eq!(parsed.synced_sequence(), 2);
        assert_eq!(FrameHeader::parse(&header.encode(9, b"abc")[..47]), None);
    }

    /// Old frames in a file that is used again must never be valid: a checksum of 32 bits sees every change within
    /// 32 bits, and the generation is one number of 32.
    #[test]
    fn the_generation_always_changes_the_checksum() {
        for other in [0, 1, 8, 10, 0x0900_0000, u32::MAX] {
            assert_ne!(header(3).encode(9, b"abc")[4..8], header(3).encode(other, b"abc")[4..8]);
        }
    }

    #[test]
    fn a_file_header_survives_and_any_changed_byte_is_seen() {
        let header = FileHeader { version: 1, generation: 7, key: 1 << 40, first_sequence: 3, old_bytes_end: 4096 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), 512);
        assert_eq!(FileHeader::parse(&bytes), Some(header));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(FileHeader::parse(&damaged), None, "byte {at}");
            assert!(!is_foreign(&damaged));
        }
    }

    #[test]
    fn foreign_is_what_looks_like_nothing_of_ours() {
        assert!(is_foreign(b"SQLite format 3\0"));
        assert!(is_foreign(b"\x7fELF"));
        assert!(!is_foreign(&[0; 512]));
        assert!(!is_foreign(b""));
        assert!(!is_foreign(b"mid\0\0\0\0\0\0\0"));
    }
}
