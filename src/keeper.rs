//! The store's place in the loop: takes batches from the broker when they are due, has them written by the journal's helper
//! thread, and tells the broker when they are safe. One batch is under way at a time; what happens meanwhile is in the next.
//! It holds no state that must survive: files are the journal's, records the broker's.
//!
//! The clock of the core goes on where the last run's stopped: times that are stored need no conversion, and a jump of the
//! wall clock while the broker runs changes nothing. The time the broker was down is added if the wall clock is sane.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{error, info, log, warn};

use crate::broker::{Batch, Broker, Part, Replay, StoreStats};
use crate::config::Persistence;
use crate::journal::{Directory, DirectoryError, Journal, Mode, OpenError, SnapshotPart, Task, Worker, open};
use crate::time::Millis;

/// A failed task is tried again after so long, twice as long each time, up to the second.
const RETRY_MIN: Millis = Millis(1000);
const RETRY_MAX: Millis = Millis(30_000);
/// How often the time is written down when nothing else is, as long as something is stored that expires: a box without
/// a clock that is sane loses no more of it by a power cut.
const CLOCK_INTERVAL: Millis = Millis::from_secs(3600);
/// 2024: a wall clock that says less was never set.
const WALL_MIN_MS: u64 = 1_704_067_200_000;
/// A box that seems to have been down for longer has a clock that is wrong, or nothing that matters any more.
const DOWNTIME_MAX_MS: u64 = 366 * 86_400_000;
const YEAR_MS: u64 = 365 * 86_400_000;

/// What is under way at the helper thread.
enum UnderWay {
    Nothing,
    /// Repairs of what was found at start.
    First,
    Batch(Batch),
    /// Nothing but the time.
    Clock,
}

pub struct Keeper {
    journal: Journal,
    directory: Option<Directory>,
    mode: Mode,
    worker: Option<Worker>,
    under_way: UnderWay,
    /// The task that failed, and when it is tried again.
    failed: Option<(Task, Millis)>,
    retry: Millis,
    written_at: Millis,
    started_at: Millis,
    scratch: Vec<u8>,
}

/// Why the broker does not start.
#[derive(Debug)]
pub enum KeeperError {
    Directory(DirectoryError),
    Open(PathBuf, OpenError),
}

impl fmt::Display for KeeperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeeperError::Directory(error) => write!(f, "persistence_location: {error}."),
            KeeperError::Open(path, error) => write!(f, "persistence_location {}: {error}.", path.display()),
        }
    }
}

impl Keeper {
    /// Reads the store in `path` into the broker, which is told what time it is. Nothing is written; that begins with `start`.
    ///
    /// # Errors
    /// When another broker has the directory, it cannot be used or read, or what is in it is not to be touched.
    pub fn open(path: &Path, broker: &mut Broker, random: u64) -> Result<Keeper, KeeperError> {
        let mode = Mode::from(broker.config().persistence);
        let directory = Directory::open(path).map_err(KeeperError::Directory)?;
        let (mut replay, mut bad_batches) = (Replay::default(), 0);
        let opened = open(&directory, mode, random, &mut |frame| {
            bad_batches += replay.apply(broker, frame.batch, frame.header.part.into()).is_err() as u64;
        })
        .map_err(|error| KeeperError::Open(path.to_path_buf(), error))?;
        for (level, line) in &opened.lines {
            log!(*level, "{line}");
        }
        if bad_batches > 0 {
            warn!("Warning: {bad_batches} batches of the store could not be understood to their end.");
        }
        let now = Millis(opened.store_ms.saturating_add(downtime_ms(opened.wall_ms, wall_ms())));
        broker.set_started(now);
        broker.set_store_key(opened.journal.store_key());
        replay.finish(broker, now);
        if !opened.is_new {
            info!(
                "Store in {}: {} retained messages and {} sessions with {} subscriptions.",
                path.display(),
                broker.retained_count(),
                broker.session_count(),
                broker.subscription_count()
            );
        }
        Ok(Keeper {
            journal: opened.journal,
            directory: Some(directory),
            mode,
            worker: None,
            under_way: UnderWay::Nothing,
            failed: None,
            retry: RETRY_MIN,
            written_at: now,
            started_at: now,
            scratch: Vec::new(),
        })
    }

    /// What time it was for the broker when the store was opened.
    pub fn started_at(&self) -> Millis {
        self.started_at
    }

    /// Starts the helper thread, which calls `wake` when it is done with something, and repairs what was found.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(&mut self, wake: impl Fn() + Send + 'static) -> io::Result<()> {
        if let Some(directory) = self.directory.take() {
            let worker = Worker::start(directory, self.mode, wake)?;
            worker.submit(self.journal.first_task());
            self.worker = Some(worker);
            self.under_way = UnderWay::First;
        }
        Ok(())
    }

    /// Takes note of what is done, and hands over what is due.
    pub fn turn(&mut self, broker: &mut Broker, now: Millis) {
        self.take_done(broker, now);
        self.retry(now);
        if matches!(self.under_way, UnderWay::Nothing) && broker.batch_due().is_some_and(|due| due <= now) {
            self.write_batch(broker, false, now);
        }
        if matches!(self.under_way, UnderWay::Nothing)
            && self.journal.wants_compaction(broker.live_bytes())
            && !broker.is_making_snapshot()
        {
            broker.begin_snapshot(now);
            self.write_batch(broker, false, now);
        }
        if matches!(self.under_way, UnderWay::Nothing) && now >= self.written_at + CLOCK_INTERVAL {
            self.write_clock(broker, now);
        }
    }

    /// When `turn` is to be called without being woken.
    pub fn deadline(&self, broker: &Broker) -> Option<Millis> {
        match (&self.under_way, &self.failed) {
            (UnderWay::Nothing, _) => Some(broker.batch_due().unwrap_or(self.written_at + CLOCK_INTERVAL)),
            (_, Some((_, at))) => Some(*at),
            _ => None,
        }
    }

    /// Writes what is left, and waits until it is safe: once, whatever comes of it.
    pub fn finish(&mut self, broker: &mut Broker, now: Millis) {
        self.wait(broker, now);
        if matches!(self.under_way, UnderWay::Nothing) && broker.batch_due().is_some() {
            self.write_batch(broker, true, now);
            self.wait(broker, now);
        }
        if !matches!(self.under_way, UnderWay::Nothing) {
            error!("Error: what was to be stored last could not be.");
        }
        // Joins the helper thread.
        self.worker = None;
    }

    /// What the store did to the flash, as text for a person.
    pub fn log_wear(&self, now: Millis) {
        let stats = self.stats(now);
        let amplification = stats.amplification_hundredths();
        info!(
            "Store: {} bytes in files; since start {} bytes of changes, {} bytes written ({}.{:02} times as many), {} syncs, \
             {} compactions; at this rate {} MB a year.",
            stats.held_bytes,
            stats.batch_bytes,
            stats.written_bytes,
            amplification / 100,
            amplification % 100,
            stats.syncs,
            stats.snapshots,
            stats.yearly_bytes / 1_000_000
        );
    }

    /// Bytes a year at the rate since start; of less than a minute, as if it had been one.
    fn yearly_bytes(&self, now: Millis) -> u64 {
        let elapsed_ms = u128::from((now - self.started_at).0.max(60_000));
        (u128::from(self.journal.wear().written_bytes) * u128::from(YEAR_MS) / elapsed_ms) as u64
    }

    fn take_done(&mut self, broker: &mut Broker, now: Millis) {
        if matches!(self.under_way, UnderWay::Nothing) {
            return;
        }
        let Some(done) = self.worker.as_ref().and_then(Worker::take_done) else { return };
        match self.journal.finish(done) {
            Ok(()) => {
                if self.retry != RETRY_MIN {
                    info!(about = "store"; "The store works again.");
                    broker.store_failing(false);
                    self.retry = RETRY_MIN;
                }
                if let UnderWay::Batch(batch) = std::mem::replace(&mut self.under_way, UnderWay::Nothing) {
                    broker.durable(batch.position, now);
                }
            }
            Err((task, error)) => {
                if self.retry == RETRY_MIN {
                    error!(
                        about = "store";
                        "Error: the store cannot be written: {error}. Serving goes on; what would have to be stored is \
                         refused or not acknowledged until it works again."
                    );
                    broker.store_failing(true);
                }
                self.failed = Some((task, now + self.retry));
                self.retry = Millis(self.retry.0 * 2).min(RETRY_MAX);
            }
        }
        broker.set_store_stats(self.stats(now));
    }

    fn stats(&self, now: Millis) -> StoreStats {
        let wear = self.journal.wear();
        StoreStats {
            held_bytes: self.journal.held_bytes(),
            batch_bytes: wear.batch_bytes,
            written_bytes: wear.written_bytes,
            syncs: wear.syncs,
            snapshots: wear.snapshots,
            yearly_bytes: self.yearly_bytes(now),
        }
    }

    fn retry(&mut self, now: Millis) {
        if self.failed.as_ref().is_some_and(|(_, at)| *at <= now)
            && let (Some((task, _)), Some(worker)) = (self.failed.take(), &self.worker)
        {
            worker.submit(task);
        }
    }

    fn write_batch(&mut self, broker: &mut Broker, is_last: bool, now: Millis) {
        let mut records = std::mem::take(&mut self.scratch);
        records.clear();
        if let Some(batch) = broker.take_batch(&mut records, is_last, now) {
            self.submit(&records, batch.part.into(), UnderWay::Batch(batch), now);
        }
        records.shrink_to(4096);
        self.scratch = records;
    }

    fn write_clock(&mut self, broker: &Broker, now: Millis) {
        self.written_at = now;
        if broker.has_expiring() {
            self.submit(&[], SnapshotPart::None, UnderWay::Clock, now);
        }
    }

    fn submit(&mut self, records: &[u8], part: SnapshotPart, under_way: UnderWay, now: Millis) {
        let Some(worker) = &self.worker else { return };
        let wall_ms = wall_ms().filter(|wall_ms| *wall_ms >= WALL_MIN_MS).unwrap_or(0);
        worker.submit(self.journal.commit(records, part, now.0, wall_ms));
        self.under_way = under_way;
        self.written_at = now;
    }

    /// Waits until the helper thread is done with what it has, once.
    fn wait(&mut self, broker: &mut Broker, now: Millis) {
        if let Some((task, _)) = self.failed.take()
            && let Some(worker) = &self.worker
        {
            worker.submit(task);
        }
        if !matches!(self.under_way, UnderWay::Nothing)
            && let Some(worker) = &self.worker
        {
            worker.wait();
            self.take_done(broker, now);
        }
    }
}

impl From<SnapshotPart> for Part {
    fn from(part: SnapshotPart) -> Part {
        match part {
            SnapshotPart::None => Part::None,
            SnapshotPart::Begin => Part::Begin,
            SnapshotPart::Part => Part::Middle,
            SnapshotPart::End => Part::End,
            SnapshotPart::Whole => Part::Whole,
        }
    }
}

impl From<Part> for SnapshotPart {
    fn from(part: Part) -> SnapshotPart {
        match part {
            Part::None => SnapshotPart::None,
            Part::Begin => SnapshotPart::Begin,
            Part::Middle => SnapshotPart::Part,
            Part::End => SnapshotPart::End,
            Part::Whole => SnapshotPart::Whole,
        }
    }
}

impl From<Persistence> for Mode {
    fn from(persistence: Persistence) -> Mode {
        match persistence {
            Persistence::Never => Mode::Never,
            Persistence::Interval(_) => Mode::Interval,
            Persistence::Always | Persistence::Off => Mode::Always,
        }
    }
}

/// Milliseconds since 1970, if the wall clock is not before that.
fn wall_ms() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|elapsed: Duration| elapsed.as_millis() as u64)
}

/// How long the broker was down, as far as two looks at the wall clock can be trusted.
pub fn downtime_ms(before_ms: u64, now_ms: Option<u64>) -> u64 {
    match now_ms {
        Some(now_ms) if before_ms >= WALL_MIN_MS && now_ms >= before_ms && now_ms - before_ms <= DOWNTIME_MAX_MS => {
            now_ms - before_ms
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downtime_counts_only_between_two_sane_clocks() {
        let sane = WALL_MIN_MS + 5_000_000;
        assert_eq!(downtime_ms(sane, Some(sane + 1234)), 1234);
        for (before_ms, now_ms) in [
            (0, Some(sane)),
            (sane, None),
            (sane, Some(sane - 1)),
            (sane, Some(1000)),
            (5000, Some(6000)),
            (sane, Some(sane + DOWNTIME_MAX_MS + 1)),
            (sane, Some(u64::MAX)),
        ] {
            assert_eq!(downtime_ms(before_ms, now_ms), 0, "{before_ms} {now_ms:?}");
        }
    }
}
