//! A store on the simulated disk together with the list of what was committed, which says what must come back.

use midge::journal::{Journal, Mode, Name, Opened, SnapshotPart, Step, Task, open};

use crate::sim_disk::{Rng, SimDisk};

pub const ENOSPC: i32 = 28;
pub const EIO: i32 = 5;

/// A commit as the model remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub batch: Vec<u8>,
    pub part: SnapshotPart,
    /// File, offset and length of its frame, padding excluded by the caller's choice of range.
    pub place: Option<(Name, u64, u64)>,
}

#[derive(Clone, Default)]
pub struct History {
    pub disk: SimDisk,
    /// All commits that may still come back, in order.
    pub commits: Vec<Commit>,
    /// How many of them must.
    pub synced: usize,
    count: u64,
}

pub const MODES: [Mode; 3] = [Mode::Always, Mode::Interval, Mode::Never];
const KEY: u64 = 0x0123_4567_89ab_cdef;

impl History {
    pub fn new() -> History {
        History::default()
    }

    /// Opens the store and checks that what comes back is what may. Nothing else is done.
    pub fn open(&mut self, mode: Mode) -> Opened {
        let (opened, replayed) = replay(&self.disk, mode);
        self.check(&replayed);
        assert!(!opened.is_damaged, "{:?}", opened.lines);
        assert_eq!(opened.is_new, replayed.is_empty());
        opened
    }

    fn check(&mut self, replayed: &[(SnapshotPart, Vec<u8>)]) {
        let same = |at: &usize| {
            let commits = self.commits[..*at].iter().rev();
            let mut pairs = commits.zip(replayed.iter().rev());
            replayed.len() <= *at && pairs.all(|(commit, (part, batch))| commit.part == *part && commit.batch == *batch)
        };
        let end = (self.synced..=self.commits.len()).find(same);
        let Some(end) = end else {
            let parts: Vec<_> = replayed.iter().map(|(part, batch)| (part, batch.len())).collect();
            panic!("{} of {} are synced, but these came back: {parts:?}", self.synced, self.commits.len());
        };
        assert!(replayed.is_empty() && self.synced == 0 || is_whole(replayed), "no complete snapshot came back");
        self.commits.truncate(end);
    }

    /// Opens the store and performs the first task. `None`: the disk was cut.
    pub fn start(&mut self, mode: Mode) -> Option<Journal> {
        let opened = self.open(mode);
        let mut journal = opened.journal;
        let task = journal.first_task();
        if opened.is_new {
            self.commits.clear();
            self.commits.push(Commit { batch: Vec::new(), part: SnapshotPart::Whole, place: place(&task) });
        }
        self.run(&mut journal, task)?;
        self.synced = self.commits.len();
        Some(journal)
    }

    /// A commit of about `bytes` bytes of its own kind. `None`: the disk was cut.
    pub fn commit(&mut self, journal: &mut Journal, mode: Mode, part: SnapshotPart, bytes: usize) -> Option<()> {
        self.count += 1;
        let mut batch = format!("commit {} ", self.count).into_bytes();
        let mut rng = Rng(self.count);
        // Now and then what looks like the start of a frame.
        batch.extend((0..bytes).map(|at| if at % 97 < 4 { b"mjf1"[at % 97] } else { rng.next() as u8 }));
        let task = journal.commit(&batch, part, self.count * 10, self.count * 100);
        if part.begins() {
            let before = self.commits.len();
            self.commits.push(Commit { batch, part, place: place(&task) });
            self.run(journal, task)?;
            self.synced = self.synced.max(before);
        } else {
            self.commits.push(Commit { batch, part, place: place(&task) });
            self.run(journal, task)?;
        }
        if mode != Mode::Never || part.ends() {
            self.synced = self.commits.len();
        }
        Some(())
    }

    fn run(&mut self, journal: &mut Journal, mut task: Task) -> Option<()> {
        // The disk fails once for each time it is told to: more attempts than this and the task can never succeed.
        for _ in 0..3 {
            match journal.finish(self.disk.run(task)?) {
                Ok(()) => return Some(()),
                Err((failed, _)) => task = failed,
            }
        }
        panic!("this task fails for ever: {task:?}")
    }

    /// A commit of a random part that may come next.
    pub fn commit_random(&mut self, journal: &mut Journal, mode: Mode, rng: &mut Rng) -> Option<()> {
        let part = match (journal.snapshot_under_way(), rng.below(12)) {
            (false, 0) => SnapshotPart::Begin,
            (false, 1) => SnapshotPart::Whole,
            (true, 0) => SnapshotPart::Begin,
            (true, 1..4) => SnapshotPart::End,
            (true, 4..8) => SnapshotPart::Part,
            _ => SnapshotPart::None,
        };
        let bytes = match rng.below(40) {
            0 => 70_000,
            1..4 => 0,
            4..14 => rng.below(3000),
            _ => rng.below(400),
        };
        self.commit(journal, mode, part, bytes as usize)
    }
}

/// Where the frame of a task is written.
fn place(task: &Task) -> Option<(Name, u64, u64)> {
    task.steps.iter().find_map(|step| match step {
        Step::Write { file, offset, bytes } => Some((*file, *offset, bytes.len() as u64)),
        _ => None,
    })
}

/// Whether the first of these begins a snapshot that comes to its end.
fn is_whole(replayed: &[(SnapshotPart, Vec<u8>)]) -> bool {
    let Some(((first, _), rest)) = replayed.split_first() else { return false };
    let mut rest = rest.iter().map(|(part, _)| *part).take_while(|part| !part.begins());
    first.begins() && (first.ends() || rest.any(SnapshotPart::ends))
}

/// Reads a store: what opening says, and the batches.
pub fn replay(disk: &SimDisk, mode: Mode) -> (Opened, Vec<(SnapshotPart, Vec<u8>)>) {
    let mut replayed = Vec::new();
    let before = disk.file_names();
    let opened = open(disk, mode, KEY, &mut |frame| replayed.push((frame.header.part, frame.batch.to_vec())));
    let opened = opened.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(opened.frames, replayed.len() as u64);
    assert_eq!(disk.file_names(), before);
    (opened, replayed)
}
