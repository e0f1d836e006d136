//! A disk in memory that loses what was not synced. Self-contained: it needs the library and nothing of these tests,
//! so that other tests include it by its path.
//!
//! It performs tasks step by step and can be stopped at any *point*: each byte written is one, and so is each sync,
//! rename and the like. `cut_after` stops it for good, as a power cut or a kill does; `fail_after` makes that point
//! an error, after which the task is to be performed again. After a cut one of three things happens to what was not
//! synced: `lose_nothing` (the process was killed), `lose_all`, or `lose_some`, where each sector of each write and
//! each rename or removal is kept, dropped or torn by itself.
//!
//! A sync that fails takes what it should have synced with it, as Linux does: a later sync succeeds, and the data is
//! still missing. `forgives_failed_syncs` turns that off.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use midge::journal::{Done, Name, ReadDirectory, ReadFile, Step, Task, Wear};

const SECTOR: usize = 512;
/// Points of a step that writes zeros, whatever their number.
const EXTEND_POINTS: u64 = 3;

#[derive(Clone, Default)]
pub struct SimDisk {
    /// As a process sees them.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    inodes: Vec<Inode>,
    cut_after: Option<u64>,
    fail_after: Option<(u64, i32)>,
    pub forgives_failed_syncs: bool,
    points: u64,
    wear: Wear,
}

#[derive(Clone)]
enum NameChange {
    Make(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
struct Inode {
    /// Shared until written: disks are copied for every way a cut may end.
    seen: Rc<Vec<u8>>,
    durable: Rc<Vec<u8>>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

/// Why a task was not performed to its end.
#[derive(Debug)]
pub enum Stop {
    /// The power went, or the process. Only one of the `lose_` functions makes sense now.
    Cut,
    Failed(io::Error),
}

impl SimDisk {
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// Stops at the point `points` from now. The counter starts anew.
    pub fn cut_after(&mut self, points: u64) {
        self.cut_after = Some(points);
    }

    /// Fails once at the point `points` from now, with this error number.
    pub fn fail_after(&mut self, points: u64, errno: i32) {
        self.fail_after = Some((points, errno));
    }

    /// Points passed since the disk was made.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// Performs a task. `None`: cut.
    pub fn run(&mut self, task: Task) -> Option<Done> {
        let result = match self.perform(&task) {
            Ok(()) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Cut) => return None,
        };
        Some(Done { task, result, wear: std::mem::take(&mut self.wear) })
    }

    pub fn perform(&mut self, task: &Task) -> Result<(), Stop> {
        task.steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Create { file, header, from_spare } => self.create(*file, header, *from_spare),
            Step::Truncate { file, size } => {
                self.point()?;
                let inode = self.inode(*file)?;
                inode.change(Change::Size(*size as usize));
                Ok(())
            }
            Step::Write { file, offset, bytes } => self.write(*file, *offset as usize, bytes),
            Step::Extend { file, from, to } => self.extend(*file, *from as usize, *to as usize),
            Step::Sync { file } => self.sync(*file),
            Step::Rename { from, to } => self.rename(&from.to_string(), to.to_string()),
            Step::Remove { file } => {
                self.point()?;
                if self.names.remove(&file.to_string()).is_some() {
                    self.unsynced_names.push(NameChange::Remove(file.to_string()));
                }
                Ok(())
            }
            Step::SetAside { file } => {
                let to = (1..).map(|attempt| file.set_aside(attempt)).find(|to| !self.names.contains_key(to));
                self.rename(&file.to_string(), to.expect("there is always another number"))
            }
            Step::SyncDirectory => {
                self.point()?;
                self.wear.syncs += 1;
                self.durable_names = self.names.clone();
                self.unsynced_names.clear();
                Ok(())
            }
        }
    }

    fn create(&mut self, name: Name, header: &[u8], from_spare: bool) -> Result<(), Stop> {
        if self.names.contains_key(&name.to_string()) {
            return Ok(());
        }
        if !self.names.contains_key(&Name::Spare.to_string()) {
            self.point()?;
            self.inodes.push(Inode::default());
            let inode = self.inodes.len() - 1;
            self.names.insert(Name::Spare.to_string(), inode);
            self.unsynced_names.push(NameChange::Make(Name::Spare.to_string(), inode));
        }
        if !from_spare {
            self.step(&Step::Truncate { file: Name::Spare, size: 0 })?;
        }
        self.write(Name::Spare, 0, header)?;
        self.sync(Name::Spare)?;
        self.rename(&Name::Spare.to_string(), name.to_string())
    }

    fn write(&mut self, name: Name, offset: usize, bytes: &[u8]) -> Result<(), Stop> {
        self.inode(name)?;
        let (kept, stop) = self.pass(bytes.len() as u64);
        self.inode(name)?.change(Change::Write(offset, bytes[..kept as usize].to_vec()));
        self.wear.written_bytes += kept;
        stop.map_or(Ok(()), Err)
    }

    fn extend(&mut self, name: Name, from: usize, to: usize) -> Result<(), Stop> {
        let (passed, stop) = self.pass(EXTEND_POINTS);
        let kept = (to - from) * passed as usize / EXTEND_POINTS as usize;
        self.inode(name)?.change(Change::Write(from, vec![0; kept]));
        self.wear.written_bytes += kept as u64;
        match stop {
            Some(Stop::Cut) => Err(Stop::Cut),
            _ => Ok(()),
        }
    }

    fn sync(&mut self, name: Name) -> Result<(), Stop> {
        let passed = self.point();
        self.wear.syncs += 1;
        let forgives = self.forgives_failed_syncs;
        let Ok(inode) = self.inode(name) else { return passed };
        match passed {
            Ok(()) => inode.sync(),
            Err(Stop::Failed(_)) if !forgives => inode.unsynced.clear(),
            Err(_) => {}
        }
        passed
    }

    fn rename(&mut self, from: &str, to: String) -> Result<(), Stop> {
        self.point()?;
        if let Some(inode) = self.names.remove(from) {
            self.names.insert(to.clone(), inode);
            self.unsynced_names.push(NameChange::Rename(from.to_string(), to));
        }
        Ok(())
    }

    fn inode(&mut self, name: Name) -> Result<&mut Inode, Stop> {
        match self.names.get(&name.to_string()) {
            Some(inode) => Ok(&mut self.inodes[*inode]),
            None => Err(Stop::Failed(io::ErrorKind::NotFound.into())),
        }
    }

    fn point(&mut self) -> Result<(), Stop> {
        match self.pass(1) {
            (_, Some(stop)) => Err(stop),
            _ => Ok(()),
        }
    }

    /// How many of `wanted` points are passed, and what stops the disk there.
    fn pass(&mut self, wanted: u64) -> (u64, Option<Stop>) {
        let until_cut = self.cut_after.unwrap_or(u64::MAX);
        let (until_failure, errno) = self.fail_after.unwrap_or((u64::MAX, 0));
        let passed = wanted.min(until_cut).min(until_failure);
        self.points += passed;
        self.cut_after = self.cut_after.map(|left| left - passed);
        self.fail_after = self.fail_after.map(|(left, errno)| (left - passed, errno));
        if passed == wanted {
            return (passed, None);
        }
        if passed == until_cut {
            return (passed, Some(Stop::Cut));
        }
        self.fail_after = None;
        (passed, Some(Stop::Failed(io::Error::from_raw_os_error(errno))))
    }

    /// The process is gone, what it wrote is there.
    pub fn lose_nothing(&mut self) {
        self.durable_names = self.names.clone();
        for inode in &mut self.inodes {
            inode.durable = inode.seen.clone();
        }
        self.restart();
    }

    /// Nothing is there but what was synced.
    pub fn lose_all(&mut self) {
        self.restart();
    }

    /// What was not synced is kept, dropped or torn piece by piece.
    pub fn lose_some(&mut self, rng: &mut Rng) {
        for change in std::mem::take(&mut self.unsynced_names) {
            if rng.below(2) == 0 {
                continue;
            }
            match change {
                NameChange::Make(name, inode) => {
                    self.durable_names.insert(name, inode);
                }
                NameChange::Rename(from, to) => {
                    if let Some(inode) = self.durable_names.remove(&from) {
                        self.durable_names.insert(to, inode);
                    }
                }
                NameChange::Remove(name) => {
                    self.durable_names.remove(&name);
                }
            }
        }
        for inode in &mut self.inodes {
            inode.lose_some(rng);
        }
        self.restart();
    }

    fn restart(&mut self) {
        self.names = self.durable_names.clone();
        self.unsynced_names.clear();
        for inode in &mut self.inodes {
            inode.seen = inode.durable.clone();
            inode.unsynced.clear();
        }
        self.cut_after = None;
        self.fail_after = None;
    }

    pub fn file_names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub fn content(&self, name: &str) -> Option<&[u8]> {
        Some(&self.inodes[*self.names.get(name)?].seen)
    }

    /// Puts a file there, durably.
    pub fn put(&mut self, name: &str, content: Vec<u8>) {
        self.inodes.push(Inode { seen: Rc::new(content.clone()), durable: Rc::new(content), unsynced: Vec::new() });
        let inode = self.inodes.len() - 1;
        self.names.insert(name.to_string(), inode);
        self.durable_names.insert(name.to_string(), inode);
    }

    pub fn delete(&mut self, name: &str) {
        self.names.remove(name);
        self.durable_names.remove(name);
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(Rc::make_mut(&mut self.seen));
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(Rc::make_mut(&mut self.durable));
        }
    }

    fn lose_some(&mut self, rng: &mut Rng) {
        // Often all or nothing of a file, so that whole frames are lost with those behind them kept.
        let mood = rng.below(4);
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Size(_) => {
                    if rng.below(2) == 0 {
                        change.apply(Rc::make_mut(&mut self.durable));
                    }
                }
                Change::Write(offset, bytes) => match rng.below(if mood == 0 { 2 } else { 4 }) {
                    0 => {}
                    1 => Change::Write(offset, bytes).apply(Rc::make_mut(&mut self.durable)),
                    2 => {
                        let kept = rng.below(bytes.len() as u64 + 1) as usize;
                        Change::Write(offset, bytes[..kept].to_vec()).apply(Rc::make_mut(&mut self.durable));
                    }
                    _ => self.keep_some_sectors(offset, &bytes, rng),
                },
            }
        }
    }

    fn keep_some_sectors(&mut self, offset: usize, bytes: &[u8], rng: &mut Rng) {
        let mut at = 0;
        while at < bytes.len() {
            let end = ((offset + at + 1).next_multiple_of(SECTOR) - offset).min(bytes.len());
            if rng.below(2) == 0 {
                Change::Write(offset + at, bytes[at..end].to_vec()).apply(Rc::make_mut(&mut self.durable));
            }
            at = end;
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Size(size) => content.resize(*size, 0),
            Change::Write(_, bytes) if bytes.is_empty() => {}
            Change::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl ReadDirectory for SimDisk {
    type File = SimFile;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.file_names())
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { content: Rc::clone(&self.inodes[*inode].seen) })
    }
}

pub struct SimFile {
    content: Rc<Vec<u8>>,
}

impl ReadFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = self.content.get(offset as usize..).unwrap_or(&[]);
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }
}

/// SplitMix64.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
