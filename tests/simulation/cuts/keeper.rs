//! The store's place in these worlds: what `keeper.rs` and the helper thread do, one step of a task after the other on the
//! simulated disk, where syncs take time and may fail. A planted bug is done here: this is where a broken store would be.

use std::io;

use midge::broker::{Batch, Broker, Part, Replay};
use midge::config::Config;
use midge::journal::{Done, Journal, Mode, SnapshotPart, Step, Task, Wear, open};
use midge::keeper::downtime_ms;
use midge::time::Millis;

use crate::rng::Rng;
use crate::sim_disk::{self, SimDisk, Stop};

const RETRY_MIN_MS: u64 = 1000;
const RETRY_MAX_MS: u64 = 30_000;
const CLOCK_INTERVAL_MS: u64 = 3_600_000;
/// ENOSPC and EIO.
const ERRORS: [i32; 2] = [28, 5];

/// What a broken store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// None: what the model then finds is its own fault.
    Nothing,
    /// Says that a batch is safe when it is handed over.
    Hasty,
    /// A batch is written without its records.
    DropBatch,
    /// A delivery is ended that is not over.
    WrongDone,
    /// A sync is left out.
    ForgetSync,
    /// The last batch is passed over at start.
    ForgetLast,
    /// What a snapshot replaces is removed when the snapshot begins.
    RemoveEarly,
    /// Acknowledgements wait for the disk, messages of QoS 2 and packet ids do not.
    NoGate,
}

pub const BUGS: [Bug; 7] =
    [Bug::Hasty, Bug::DropBatch, Bug::WrongDone, Bug::ForgetSync, Bug::ForgetLast, Bug::RemoveEarly, Bug::NoGate];

/// The disk and what befalls it. It outlives brokers.
#[derive(Clone)]
pub struct Site {
    pub disk: SimDisk,
    /// The longest a sync takes.
    pub sync_ms_max: usize,
    /// Writes and syncs may fail until then.
    pub fails_until_ms: u64,
    pub wall_ms: u64,
    pub bug: Bug,
    pub strikes: usize,
}

enum UnderWay {
    Nothing,
    Other,
    Batch(Batch),
}

pub struct Keeper {
    journal: Journal,
    under_way: UnderWay,
    task: Option<Task>,
    /// The step of it that is next.
    step: usize,
    /// The sync that is next has begun, and ends then.
    syncs_until_ms: Option<u64>,
    failed: Option<(Task, u64)>,
    retry_ms: u64,
    written_ms: u64,
    /// Batches handed over, and safe.
    pub taken: u64,
    pub safe: u64,
    pub compactions: usize,
}

/// What became of a start.
pub struct Start {
    pub broker: Broker,
    pub keeper: Keeper,
    pub now_ms: u64,
}

impl Keeper {
    /// What the program does at start: reads everything into a new broker. An error is what must never be.
    pub fn start(config: &Config, mode: Mode, site: &mut Site, seed: u64) -> Result<Start, String> {
        let mut batches = Vec::new();
        let opened = open(&site.disk, mode, seed, &mut |frame| batches.push((frame.batch.to_vec(), frame.header.part)));
        let opened = opened.map_err(|error| format!("the start fails: {error}"))?;
        if opened.is_damaged {
            return Err(format!("the store is said to be damaged: {:?}", opened.lines));
        }
        if site.bug == Bug::ForgetLast && batches.len() > 1 {
            site.strikes +=
                batches.pop().is_some_and(|(batch, part)| !batch.is_empty() && part == SnapshotPart::None) as usize;
        }
        let (mut broker, mut replay) = (Broker::new(config.clone(), seed), Replay::default());
        for (batch, part) in &batches {
            let applied = replay.apply(&mut broker, batch, (*part).into());
            applied.map_err(|_| "a batch cannot be understood to its end".to_string())?;
        }
        let now_ms = opened.store_ms + downtime_ms(opened.wall_ms, Some(site.wall_ms));
        broker.set_store_key(opened.journal.store_key());
        broker.set_started(Millis(now_ms));
        replay.finish(&mut broker, Millis(now_ms));
        broker.check_invariants();
        let mut keeper = Keeper {
            journal: opened.journal,
            under_way: UnderWay::Other,
            task: None,
            step: 0,
            syncs_until_ms: None,
            failed: None,
            retry_ms: RETRY_MIN_MS,
            written_ms: now_ms,
            taken: 0,
            safe: 0,
            compactions: 0,
        };
        let first = keeper.journal.first_task();
        keeper.submit(first);
        Ok(Start { broker, keeper, now_ms })
    }

    /// What `Keeper::turn` does, and the helper thread meanwhile.
    pub fn turn(&mut self, broker: &mut Broker, site: &mut Site, rng: &mut Rng, now_ms: u64) {
        self.turn_task(broker, site, rng, now_ms);
        let is_due = broker.batch_due().is_some_and(|due| due.0 <= now_ms);
        if self.is_free() && is_due {
            self.write_batch(broker, site, rng, false, now_ms);
        }
        if self.is_free() && self.journal.wants_compaction(broker.live_bytes()) && !broker.is_making_snapshot() {
            broker.begin_snapshot(Millis(now_ms));
            self.compactions += 1;
            self.write_batch(broker, site, rng, false, now_ms);
        }
        if self.is_free() && now_ms >= self.written_ms + CLOCK_INTERVAL_MS {
            self.written_ms = now_ms;
            if broker.has_expiring() {
                let task = self.journal.commit(&[], SnapshotPart::None, now_ms, site.wall_ms);
                self.submit(task);
                self.under_way = UnderWay::Other;
            }
        }
    }

    /// What is under way goes on.
    pub fn turn_task(&mut self, broker: &mut Broker, site: &mut Site, rng: &mut Rng, now_ms: u64) {
        self.work(broker, site, rng, now_ms);
        if let Some((task, _)) = self.failed.take_if(|(_, at_ms)| *at_ms <= now_ms) {
            self.submit(task);
        }
    }

    pub fn is_free(&self) -> bool {
        matches!(self.under_way, UnderWay::Nothing)
    }

    /// When there is something to do without being asked.
    pub fn next_event_ms(&self, broker: &Broker) -> u64 {
        match (&self.under_way, &self.failed) {
            (UnderWay::Nothing, _) => broker.batch_due().map_or(u64::MAX, |due| due.0),
            (_, Some((_, at_ms))) => *at_ms,
            _ => self.syncs_until_ms.unwrap_or(0),
        }
    }

    fn submit(&mut self, task: Task) {
        (self.task, self.step, self.syncs_until_ms) = (Some(task), 0, None);
    }

    /// Hands over a batch, if there is something to write.
    pub fn write_batch(&mut self, broker: &mut Broker, site: &mut Site, rng: &mut Rng, is_last: bool, now_ms: u64) {
        let mut records = Vec::new();
        self.taken += 1;
        let Some(batch) = broker.take_batch(&mut records, is_last, Millis(now_ms)) else {
            self.safe = self.taken;
            return;
        };
        match site.bug {
            Bug::DropBatch if batch.part == Part::None && rng.chance(20) => {
                records.clear();
                site.strikes += 1;
            }
            Bug::WrongDone => {
                // DONE, a session and a key, as the record has them.
                for _ in 0..100 {
                    let key = rng.below(500);
                    records.extend([9, 1 + rng.below(6) as u8, key as u8 | 0x80, (key >> 7) as u8]);
                }
                site.strikes += 1;
            }
            _ => {}
        }
        let mut task = self.journal.commit(&records, batch.part.into(), now_ms, site.wall_ms);
        if site.bug == Bug::RemoveEarly && matches!(batch.part, Part::Begin | Part::Whole) {
            let older =
                site.disk.file_names().into_iter().filter_map(|name| midge::journal::Name::generation_of(&name));
            older.for_each(|number| {
                task.steps.insert(0, Step::Remove { file: midge::journal::Name::Generation(number) })
            });
            site.strikes += 1;
        }
        self.submit(task);
        self.under_way = UnderWay::Batch(batch);
        self.written_ms = now_ms;
        if site.bug == Bug::Hasty {
            site.strikes += 1;
            broker.durable(batch.position, Millis(now_ms));
            self.under_way = UnderWay::Other;
        }
    }

    /// The helper thread goes on until it has to wait.
    fn work(&mut self, broker: &mut Broker, site: &mut Site, rng: &mut Rng, now_ms: u64) {
        while let Some(task) = &self.task {
            let Some(step) = task.steps.get(self.step).cloned() else {
                self.finish(broker, Ok(()), now_ms);
                return;
            };
            if matches!(step, Step::Sync { .. } | Step::SyncDirectory) {
                let takes_ms = rng.below(site.sync_ms_max + 1) as u64;
                let until_ms = *self.syncs_until_ms.get_or_insert(now_ms + takes_ms);
                if until_ms > now_ms {
                    return;
                }
            }
            if site.fails_until_ms > now_ms && rng.chance(30) {
                site.disk.fail_after(rng.below(size_of(&step)) as u64, *rng.pick(&ERRORS));
            }
            match self.perform(step, site, rng) {
                Ok(()) => (self.step, self.syncs_until_ms) = (self.step + 1, None),
                Err(Stop::Cut) => return,
                Err(Stop::Failed(error)) => {
                    self.finish(broker, Err(error), now_ms);
                    return;
                }
            }
            // Where the thread is when the loop looks nobody knows.
            if rng.chance(20) {
                return;
            }
        }
    }

    fn perform(&self, step: Step, site: &mut Site, rng: &mut Rng) -> Result<(), Stop> {
        if site.bug == Bug::ForgetSync && matches!(step, Step::Sync { .. }) && rng.chance(30) {
            site.strikes += 1;
            return Ok(());
        }
        site.disk.perform(&Task { steps: vec![step] })
    }

    fn finish(&mut self, broker: &mut Broker, result: io::Result<()>, now_ms: u64) {
        let Some(task) = self.task.take() else { return };
        match self.journal.finish(Done { task, result, wear: Wear::default() }) {
            Ok(()) => {
                if self.retry_ms != RETRY_MIN_MS {
                    broker.store_failing(false);
                    self.retry_ms = RETRY_MIN_MS;
                }
                if let UnderWay::Batch(batch) = std::mem::replace(&mut self.under_way, UnderWay::Nothing) {
                    self.safe = self.taken;
                    broker.durable(batch.position, Millis(now_ms));
                }
            }
            Err((task, _)) => {
                if self.retry_ms == RETRY_MIN_MS {
                    broker.store_failing(true);
                }
                self.failed = Some((task, now_ms + self.retry_ms));
                self.retry_ms = (self.retry_ms * 2).min(RETRY_MAX_MS);
            }
        }
    }

    /// The power goes in the middle of what the disk was doing: this is what is on it then.
    pub fn cut_now(&mut self, site: &mut Site, rng: &mut Rng) -> SimDisk {
        let steps = self.task.take().map_or(Vec::new(), |task| task.steps);
        let mut steps = steps.into_iter().skip(self.step);
        let goes_on = rng.below(3);
        let is_cut = steps.by_ref().take(goes_on).any(|step| self.perform(step, site, rng).is_err());
        if let Some(step) = steps.next().filter(|_| !is_cut) {
            site.disk.cut_after(rng.below(size_of(&step)) as u64);
            let _ = self.perform(step, site, rng);
        }
        std::mem::take(&mut site.disk)
    }

    /// The next write of the task under way and its size, if the disk is about to perform one, with all steps before done.
    pub fn next_write(&self) -> Option<(&[Step], &Step, usize)> {
        let task = self.task.as_ref()?;
        let is_write = |step: &Step| matches!(step, Step::Write { .. } | Step::Create { .. });
        let at = self.step + task.steps[self.step..].iter().position(is_write)?;
        Some((&task.steps[self.step..at], &task.steps[at], size_of(&task.steps[at])))
    }
}

/// Points of the disk in a step, about.
fn size_of(step: &Step) -> usize {
    match step {
        Step::Write { bytes, .. } => bytes.len(),
        Step::Create { header, .. } => header.len() + 4,
        Step::Extend { .. } => 3,
        _ => 1,
    }
}

/// What was not synced is lost, in one of the ways there are.
pub fn lose(disk: &mut SimDisk, rng: &mut Rng) {
    match rng.below(6) {
        0 => disk.lose_nothing(),
        1 => disk.lose_all(),
        _ => disk.lose_some(&mut sim_disk::Rng(rng.next())),
    }
}
