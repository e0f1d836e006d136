//! The log: which lines are written, in Mosquitto's form and to Mosquitto's destinations, and how often (`fold`). Everything
//! is logged with the macros of the `log` crate and `notice!`; what a line is about, if it may repeat, goes along as `client`,
//! `address` or `about`, and distinguishes lines of one place in the code as `what`: texts, or the number of an address. RUST_LOG,
//! read by env_logger, takes the place of the log types.
//!
//! Beside the server this is the only place that reads a clock: the wall's for timestamps, and the monotonic one for what
//! repeats. It never calls the core: lines for `$SYS/broker/log` wait here, within `PUBLISHED_BYTES_MAX`, for the server to fetch
//! them.

mod fold;
mod kind;
mod line;
mod output;
mod syslog;

use std::collections::VecDeque;
use std::env;
use std::ffi::CString;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};

use crate::config::{LogConfig, LogDestination, LogTypes};

use fold::{Fold, Subject};
use line::{LINE_BYTES_MAX, Line, Timestamp, beginning};
use output::{LogFile, Output, say};
use syslog::Syslog;

pub(crate) use kind::notice;
pub use kind::{Kind, SUBSCRIBE, UNSUBSCRIBE};

/// Bytes of lines that wait to be published: more than a turn brings.
const PUBLISHED_BYTES_MAX: usize = 16 << 10;

struct Logger {
    state: Mutex<Option<State>>,
    /// Lines are published.
    has_topic: AtomicBool,
    /// Something is held, and will have to be written.
    holds: AtomicBool,
    bytes: AtomicUsize,
}

static LOGGER: Logger = Logger {
    state: Mutex::new(None),
    has_topic: AtomicBool::new(false),
    holds: AtomicBool::new(false),
    bytes: AtomicUsize::new(0),
};

/// What to log, where to, and what is under way.
struct State {
    types: LogTypes,
    /// RUST_LOG, in place of the types.
    filter: Option<env_logger::Logger>,
    writer: Writer,
    fold: Fold,
    hashes: RandomState,
    started: Instant,
    text: String,
}

/// Puts lines together and hands them out.
struct Writer {
    outputs: Vec<Output>,
    timestamp: Timestamp,
    published: Published,
    line: String,
}

/// Lines that wait to be published.
#[derive(Default)]
struct Published {
    lines: VecDeque<(&'static str, String)>,
    bytes: usize,
    /// Nobody subscribes to them.
    is_unheard: bool,
    /// Lines are being published, and what is logged meanwhile is not.
    is_publishing: bool,
}

/// Starts logging. A destination that cannot be opened is told on standard error, once; errors go there until a file can be
/// opened, or a syslog daemon be reached. With `holds_files`, files are not opened before `open_files`, and their lines are kept in
/// memory, within bounds; if it is never called, `finish` writes them to standard error. To be called once.
pub fn start(config: &LogConfig, holds_files: bool) {
    let filters = env::var("RUST_LOG").ok().filter(|filters| !filters.is_empty());
    let mut outputs = Vec::new();
    for destination in &config.destinations {
        if let (LogDestination::File(path), true) = (destination, holds_files) {
            outputs.push(Output::File(LogFile::held(path)));
            continue;
        }
        match (Output::open(destination, config), destination) {
            (Ok(output), _) => outputs.push(output),
            (Err(error), LogDestination::File(path)) => {
                say(&error);
                outputs.push(Output::File(LogFile::unopened(path)));
            }
            (Err(error), LogDestination::Syslog) => {
                say(&error);
                outputs.push(Output::Syslog(Syslog::unconnected(config.facility)));
            }
            (Err(error), _) => say(&error),
        }
    }
    *lock() = Some(State {
        types: config.types,
        filter: filters.map(|filters| env_logger::Builder::new().parse_filters(&filters).build()),
        writer: Writer { outputs, timestamp: timestamp(config), published: Published::default(), line: String::new() },
        fold: Fold::default(),
        hashes: RandomState::new(),
        started: Instant::now(),
        text: String::new(),
    });
    take_effect();
    // It fails only if there is a logger, and then that one is as good.
    let _ = log::set_logger(&LOGGER);
}

/// Opens the log files that `start` left for later, and writes what was logged meanwhile. To be called without the privileges
/// that a link in a directory of the service's user could abuse.
pub fn open_files() {
    each_file(LogFile::open_held);
}

fn each_file(mut act: impl FnMut(&mut LogFile, bool)) {
    if let Some(state) = lock().as_mut() {
        let outputs = &mut state.writer.outputs;
        let is_shown = outputs.iter().any(|output| matches!(output, Output::Stderr));
        for output in outputs {
            if let Output::File(file) = output {
                act(file, is_shown);
            }
        }
    }
}

/// Takes over another configuration: opens the destinations that are new in it first, and changes nothing if that fails. Those
/// it shares with the old one stay as they are, also what could not be opened: `reopen` tries again.
///
/// # Errors
/// Which destination could not be opened, and why.
pub fn reconfigure(config: &LogConfig) -> Result<(), String> {
    if let Some(state) = lock().as_mut() {
        replace(&mut state.writer.outputs, config)?;
        state.types = config.types;
        state.writer.timestamp = timestamp(config);
    }
    take_effect();
    Ok(())
}

/// Other types of lines are written from now on, until the next configuration.
///
/// # Errors
/// A sentence if they would change nothing, because RUST_LOG decides.
pub fn set_types(types: &LogTypes) -> Result<(), String> {
    if let Some(state) = lock().as_mut() {
        if state.filter.is_some() {
            return Err("RUST_LOG is set where the broker was started, and decides what is logged.".to_string());
        }
        state.types = *types;
    }
    take_effect();
    Ok(())
}

/// Makes the outputs those of a configuration, or leaves them all.
fn replace(outputs: &mut Vec<Output>, config: &LogConfig) -> Result<(), String> {
    let is_old = |destination: &LogDestination| outputs.iter().any(|output| output.is(destination));
    let mut new = Vec::new();
    for destination in &config.destinations {
        new.push(if is_old(destination) { None } else { Some(Output::open(destination, config)?) });
    }
    let mut old = std::mem::take(outputs);
    for (output, destination) in new.into_iter().zip(&config.destinations) {
        let kept = || old.iter().position(|old| old.is(destination)).map(|at| old.swap_remove(at));
        // A destination that is named once more than before is there already.
        let Some(mut output) = output.or_else(kept) else { continue };
        if let Output::Syslog(syslog) = &mut output {
            syslog.set_facility(config.facility);
        }
        outputs.push(output);
    }
    Ok(())
}

/// Opens the log file again: it may have been moved away.
pub fn reopen() {
    let mut errors = Vec::new();
    if let Some(state) = lock().as_mut() {
        for output in &mut state.writer.outputs {
            if let Output::File(file) = output
                && let Err(error) = file.reopen()
            {
                errors.push(error);
            }
        }
    }
    // Not before the lock is given back.
    errors.iter().for_each(|error| log::error!("Error: {error}."));
}

/// When lines that were held have to be written by `turn`; nothing if none are.
pub fn deadline() -> Option<Instant> {
    if !LOGGER.holds.load(Ordering::Relaxed) {
        return None;
    }
    let state = lock();
    let state = state.as_ref()?;
    Some(state.started + Duration::from_millis(state.fold.due()?))
}

/// Writes lines that were held for long enough.
pub fn turn() {
    if LOGGER.holds.load(Ordering::Relaxed) {
        flush(false);
    }
}

/// Writes all lines that are held: the program ends.
pub fn finish() {
    flush(true);
    each_file(LogFile::give_up);
}

/// Hands the lines for `$SYS/broker/log`, each with its topic, to `publish`. What that logs is not published itself.
/// `is_heard` says whether anybody subscribes to them; if not, they are dropped, here and from now on where they are made.
pub fn publish(is_heard: bool, mut publish: impl FnMut(&str, &str)) {
    if !LOGGER.has_topic.load(Ordering::Relaxed) {
        return;
    }
    let lines = match lock().as_mut() {
        Some(state) => {
            let published = &mut state.writer.published;
            published.is_unheard = !is_heard;
            published.is_publishing = true;
            published.bytes = 0;
            std::mem::take(&mut published.lines)
        }
        None => return,
    };
    if is_heard {
        // Not while the state is locked: publishing may log.
        lines.iter().for_each(|(topic, line)| publish(topic, line));
    }
    if let Some(state) = lock().as_mut() {
        state.writer.published.is_publishing = false;
    }
}

/// Bytes of lines written since the start, topics aside. Where addresses have 32 bits it begins anew after 4 GB.
pub fn bytes() -> usize {
    LOGGER.bytes.load(Ordering::Relaxed)
}

/// A panic while logging spoils nothing: the next line begins anew.
fn lock() -> MutexGuard<'static, Option<State>> {
    LOGGER.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn timestamp(config: &LogConfig) -> Timestamp {
    match &config.timestamp_format {
        _ if !config.timestamp => Timestamp::None,
        None => Timestamp::Seconds,
        // One with a NUL in it comes to nothing, and is told so in each line.
        Some(format) => Timestamp::Local(CString::new(format.as_str()).unwrap_or_default().into()),
    }
}

/// Lines that nobody wants end at the macro that makes them.
fn take_effect() {
    let (mut level, mut has_topic) = (LevelFilter::Off, false);
    if let Some(state) = lock().as_ref() {
        if !state.writer.outputs.is_empty() {
            level = state.filter.as_ref().map_or(level_of(&state.types), env_logger::Logger::filter);
        }
        has_topic = state.writer.outputs.iter().any(|output| matches!(output, Output::Topic));
    }
    LOGGER.has_topic.store(has_topic, Ordering::Relaxed);
    log::set_max_level(level);
}

fn level_of(types: &LogTypes) -> LevelFilter {
    let wanted = [
        (types.debug || types.subscribe || types.unsubscribe, LevelFilter::Debug),
        (types.information || types.notice, LevelFilter::Info),
        (types.warning, LevelFilter::Warn),
        (types.error, LevelFilter::Error),
    ];
    wanted.into_iter().find(|(is_wanted, _)| *is_wanted).map_or(LevelFilter::Off, |(_, level)| level)
}

fn flush(is_end: bool) {
    if let Some(State { writer, fold, started, .. }) = lock().as_mut() {
        fold.flush(millis_since(*started), is_end, &mut |kind, text| writer.write(kind, text));
        LOGGER.holds.store(fold.due().is_some(), Ordering::Relaxed);
    }
}

fn millis_since(started: Instant) -> u64 {
    started.elapsed().as_millis() as u64
}

impl Log for Logger {
    /// Whether a line would be written anywhere; being published does not count, because that may be heard by nobody.
    fn enabled(&self, metadata: &Metadata) -> bool {
        let state = lock();
        state.as_ref().is_some_and(|state| {
            let is_wanted = match &state.filter {
                Some(filter) => filter.enabled(metadata),
                None => Kind::of(metadata).is_among(&state.types),
            };
            is_wanted && state.writer.outputs.iter().any(|output| !matches!(output, Output::Topic))
        })
    }

    fn log(&self, record: &Record) {
        let mut state = lock();
        let Some(State { types, filter, writer, fold, hashes, started, text }) = state.as_mut() else { return };
        let kind = Kind::of(record.metadata());
        let is_wanted = match filter {
            Some(filter) => filter.matches(record),
            None => kind.is_among(types),
        };
        if !is_wanted {
            return;
        }
        text.clear();
        // What does not fit is cut off.
        let _ = Line(text).write_fmt(*record.args());
        match subject(record, hashes) {
            None => writer.write(kind, text),
            Some(subject) => {
                let now = millis_since(*started);
                fold.note(&subject, kind, text, now, &mut |kind, text| writer.write(kind, text));
                LOGGER.holds.store(fold.due().is_some(), Ordering::Relaxed);
            }
        }
    }

    fn flush(&self) {}
}

/// Whom a line is about, if it may repeat.
fn subject(record: &Record, hashes: &RandomState) -> Option<Subject> {
    let source = record.key_values();
    if source.count() == 0 {
        return None;
    }
    // Not as they would be displayed: that brings the code that writes floating-point numbers, 30 kB.
    let hash = |key: &str| {
        let value = source.get(key.into())?;
        let mut hash = hashes.build_hasher();
        match (value.to_borrowed_str(), value.to_u128()) {
            (Some(text), _) => hash.write(text.as_bytes()),
            (None, number) => hash.write(&number?.to_ne_bytes()),
        }
        Some(hash.finish())
    };
    let mut site = hashes.build_hasher();
    site.write(record.module_path().unwrap_or_default().as_bytes());
    site.write_u32(record.line().unwrap_or_default());
    site.write_u64(hash("what").unwrap_or_default());
    let (client, address) = (hash("client").or(hash("about")), hash("address"));
    Some(Subject { site: site.finish(), client, address, is_stranger: client.is_none() })
}

impl Writer {
    fn write(&mut self, kind: Kind, text: &str) {
        let Writer { outputs, timestamp, published, line } = self;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        line.clear();
        timestamp.append(seconds, line);
        line.push_str(beginning(text, LINE_BYTES_MAX - line.len()));
        line.push('\n');
        let (mut is_kept, mut is_lost, mut is_shown) = (false, false, false);
        for output in outputs {
            match output {
                Output::Topic => published.push(kind, line.trim_end_matches('\n')),
                _ => {
                    is_shown |= matches!(output, Output::Stderr);
                    let is_written = output.write(kind, seconds, line);
                    is_kept |= is_written;
                    is_lost |= !is_written;
                }
            }
        }
        if is_lost && !is_shown && kind == Kind::Error {
            Output::Stderr.write(kind, seconds, line);
        }
        if is_kept {
            LOGGER.bytes.fetch_add(line.len(), Ordering::Relaxed);
        }
    }
}

impl Published {
    fn push(&mut self, kind: Kind, line: &str) {
        let Some(topic) = kind.topic() else { return };
        if !self.is_unheard && !self.is_publishing && self.bytes + line.len() <= PUBLISHED_BYTES_MAX {
            self.bytes += line.len();
            self.lines.push_back((topic, line.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_to_publish_are_bounded_and_dropped_while_nobody_listens() {
        let mut published = Published::default();
        published.push(Kind::Debug, "never");
        assert!(published.lines.is_empty());
        for _ in 0..100 {
            published.push(Kind::Notice, &"x".repeat(1000));
        }
        assert_eq!((published.lines.len(), published.bytes), (16, 16_000));
        for (is_unheard, is_publishing) in [(true, false), (false, true)] {
            let mut published = Published { is_unheard, is_publishing, ..Published::default() };
            published.push(Kind::Notice, "line");
            assert!(published.lines.is_empty());
        }
    }

    #[test]
    fn lines_end_at_the_macro_unless_a_type_wants_them() {
        assert_eq!(level_of(&LogTypes::NONE), LevelFilter::Off);
        assert_eq!(level_of(&LogTypes::default()), LevelFilter::Info);
        assert_eq!(level_of(&LogTypes { error: true, ..LogTypes::NONE }), LevelFilter::Error);
        assert_eq!(level_of(&LogTypes { notice: true, ..LogTypes::NONE }), LevelFilter::Info);
        assert_eq!(level_of(&LogTypes { subscribe: true, ..LogTypes::NONE }), LevelFilter::Debug);
        assert_eq!(level_of(&LogTypes::ALL), LevelFilter::Debug);
    }

    #[test]
    fn a_configuration_is_refused_only_for_what_is_new_in_it() {
        let config = |destinations: &[LogDestination]| LogConfig {
            destinations: destinations.to_vec(),
            facility: Some(3),
            ..LogConfig::default()
        };
        let file = |path: &str| LogDestination::File(path.into());
        let mut outputs = vec![
            Output::Stderr,
            Output::File(LogFile::unopened("/nowhere/old".as_ref())),
            Output::Syslog(Syslog::unconnected(None)),
        ];
        let refused = replace(&mut outputs, &config(&[LogDestination::Stdout, file("/nowhere/new")]));
        assert!(refused.unwrap_err().contains("/nowhere/new"));
        assert!(outputs.len() == 3 && matches!(outputs[0], Output::Stderr), "nothing has changed");
        // Neither can be opened, and both were there before.
        let wanted = [LogDestination::Syslog, file("/nowhere/old"), file("/nowhere/old"), LogDestination::Topic];
        replace(&mut outputs, &config(&wanted)).unwrap();
        assert!(outputs.len() == 3 && outputs[0].is(&wanted[0]) && outputs[1].is(&wanted[1]));
        assert!(matches!(outputs[2], Output::Topic));
    }
}
