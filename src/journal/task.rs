//! What passes between the journal, which decides, and whoever performs its tasks: the worker on the real disk, the
//! simulated disk in tests. Plain data; knows no file system.
//!
//! A task may fail at any step and is then performed again from its first one: each step leaves the same state when
//! it is repeated, with those after it undone or not.

use std::fmt::{self, Display, Formatter};
use std::io;

/// A file of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Generation(u32),
    /// The file that will become the next generation: a new one, or a former one whose blocks are used again.
    /// Its content counts for nothing.
    Spare,
}

impl Name {
    /// The generation whose file `name` is; `None` for other files, the spare among them.
    pub fn generation_of(name: &str) -> Option<u32> {
        let digits = name.strip_prefix("midge-")?.strip_suffix(".journal")?;
        let generation = digits.parse().ok()?;
        (Name::Generation(generation).to_string() == name).then_some(generation)
    }

    /// Where the `attempt`-th (from 1) try to set this file aside puts it.
    pub fn set_aside(self, attempt: u32) -> String {
        match attempt {
            1 => format!("{self}.damaged"),
            _ => format!("{self}.damaged-{attempt}"),
        }
    }
}

impl Display for Name {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Name::Generation(generation) => write!(out, "midge-{generation:08}.journal"),
            Name::Spare => out.write_str("midge-spare.journal"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do if there is such a file: an earlier attempt made it. Otherwise `header` is written to the start of
    /// the spare file, with what else it holds kept if `from_spare` and cut off if not (and one made if there is none);
    /// that is synced, and then the spare file renamed. So a generation's file never lacks its header.
    Create { file: Name, header: Vec<u8>, from_spare: bool },
    /// Cuts the file to `size` bytes.
    Truncate { file: Name, size: u64 },
    /// Writes all of `bytes` at `offset`.
    Write { file: Name, offset: u64, bytes: Vec<u8> },
    /// Writes zeros from `from` to `to`, which are behind everything written. Only spares later syncs a change of
    /// the file's size: it may be left out, and its failure is none.
    Extend { file: Name, from: u64, to: u64 },
    /// Returns when what was written to the file is on the device. Nothing to do if there is none: an attempt that got
    /// further has removed it.
    Sync { file: Name },
    /// Gives a file another name, in place of the file that had it. Nothing to do if there is no `from`.
    Rename { from: Name, to: Name },
    /// Nothing to do if there is none.
    Remove { file: Name },
    /// Renames the file to the first of its names for damaged files that is free. Nothing to do if there is none.
    SetAside { file: Name },
    /// Returns when created, renamed and removed names are on the device.
    SyncDirectory,
}

/// Steps to be performed in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub steps: Vec<Step>,
}

/// What became of a task.
#[derive(Debug)]
pub struct Done {
    pub task: Task,
    pub result: io::Result<()>,
    /// What this attempt cost; only bytes written and syncs are filled in.
    pub wear: Wear,
}

/// What the store did to the flash since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wear {
    /// Bytes of batches handed in.
    pub batch_bytes: u64,
    /// Bytes the device was given: sectors of direct writes; for buffered ones 4096 for each page that a write made
    /// dirty, counted once between two syncs. The file system's own journal is not in it.
    pub written_bytes: u64,
    /// Syncs of files and of the directory.
    pub syncs: u64,
    /// Snapshots completed.
    pub snapshots: u64,
}

impl Wear {
    pub fn add(&mut self, other: &Wear) {
        self.batch_bytes += other.batch_bytes;
        self.written_bytes += other.written_bytes;
        self.syncs += other.syncs;
        self.snapshots += other.snapshots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!(Name::Generation(7).to_string(), "midge-00000007.journal");
        for generation in [1, 99_999_999, u32::MAX] {
            assert_eq!(Name::generation_of(&Name::Generation(generation).to_string()), Some(generation));
        }
        let others =
            ["midge-7.journal", "midge-00000007.journal.damaged", "midge-spare.journal", "midge-+0000007.journal"];
        for other in others {
            assert_eq!(Name::generation_of(other), None, "{other}");
        }
    }

    #[test]
    fn set_aside_names_are_numbered_from_the_second() {
        assert_eq!(Name::Generation(7).set_aside(1), "midge-00000007.journal.damaged");
        assert_eq!(Name::Generation(7).set_aside(2), "midge-00000007.journal.damaged-2");
    }
}
