//! The store's files: what makes bytes that were committed come back after the process or the power went away.
//!
//! Owns file names, frames, checksums, generations, and the order of writes and syncs. Knows nothing of MQTT: a
//! *batch* is opaque bytes that come back whole, in order, or not at all.
//!
//! ```text
//! frame.rs   bytes of a frame and of a file's first sector, pure
//! scan.rs    from a file to its frames, past any damage, in bounded memory
//! survey.rs  what one file holds; whether a hole is a torn tail or damage
//! open.rs    starting: which files count, replay, what is to be repaired
//! log.rs     Journal: turns a batch into a Task (a list of steps) for one of the three modes; pure
//! task.rs    Step, Task, Done, Wear: what passes between the journal and whoever performs tasks
//! disk.rs    the real directory: its lock, reading it, performing steps on it
//! worker.rs  the one helper thread, which performs tasks and owns nothing but open files
//! ```
//!
//! Files are called `midge-00000001.journal` and so on: *generations*. A snapshot begins in a new one; when its last
//! part is synced the generation is complete and all older ones go. Invariants, in this order of steps:
//!
//! * A generation has its name only when its first sector is synced, and holds frames only when its name is, too.
//! * All generations but the newest are synced to their end: a hole in them is damage, never a torn tail.
//! * A frame is valid only in the file of the generation it was written for, since its checksum covers that number,
//!   and a generation number that has had frames is never given again. That is why a removed file's blocks may be
//!   used again with its old frames still in them.
//! * One task at a time; a failed one is performed again from its beginning until it succeeds. Steps have absolute
//!   offsets, so that repeating them changes nothing.
//! * Reading never writes. What must be repaired is done by the first task, which the caller asks for.

mod disk;
mod frame;
mod log;
mod open;
mod scan;
mod survey;
mod task;
mod worker;

pub use disk::{Directory, DirectoryError};
pub use frame::{FrameHeader, SnapshotPart};
pub use log::{Journal, Mode};
pub use open::{Frame, OpenError, Opened, open};
pub use scan::{ReadDirectory, ReadFile};
pub use task::{Done, Name, Step, Task, Wear};
pub use worker::Worker;
