//! The broker's own topics below `$SYS/broker`: counters, gauges and averages under Mosquitto's names and in its formats, each a
//! retained message that is published when its value changed. Nobody who does not subscribe below `$SYS` pays for them:
//! without such a subscription there is no timer and no value, and the first one brings all values up to date. A stored
//! session that subscribes there counts, as everywhere.
//!
//! The averages below `load` are Mosquitto's, who brings them up to date every interval. Here that is done when the first thing
//! happens after an interval is over, before it is counted: everything that was counted since belongs to that one interval,
//! and nothing happened in those that are over as well. So they are right whenever somebody comes to ask, to the digit
//! what they would be had a timer run all the time, and an idle broker does not wake up for them.
//!
//! Invariant: the timer is armed, and the values are retained, exactly while values are kept up to date.

use std::fmt::Write;

use super::message::MessageParts;
use super::stats::Stats;
use super::store::StoreStats;
use super::{Broker, NONE, timers};
use crate::codec::QoS;
use crate::time::Millis;
use crate::wheel::TimerId;

/// Clients named in the list of those that lost messages.
const LOSERS_MAX: usize = 10;

/// What the topics need to remember between two updates.
pub struct Sys {
    pub timer: TimerId,
    /// When the interval is over to which belongs what is counted now; never if there are no topics.
    loads_due: Millis,
    loads: [Load; LOADS.len()],
    sums: Sums,
    /// Losses counted when those who lost messages were last looked for.
    dropped: u64,
    /// Reused for each value.
    text: String,
}

/// The growth of one counter, per minute, averaged over spans.
#[derive(Clone, Copy, Default)]
struct Load {
    counter: u64,
    averages: [f64; SPANS.len()],
}

/// What is kept for clients, added up when it is asked for.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// On their way to clients: queued, or not acknowledged.
    messages: u64,
    /// Their topics, properties and payloads.
    message_bytes: u64,
    packets: u64,
    /// Encoded, and not written yet.
    output_bytes: u64,
    /// Unfinished packets, and those of publishers that wait.
    input_bytes: u64,
}

/// A name, and what is counted under it.
type Row<T> = (&'static str, fn(&T) -> u64);

const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

/// Topics below `$SYS/broker/` whose values are whole numbers.
const NUMBERS: [Row<Broker>; 37] = [
    ("clients/total", |broker| broker.session_count() as u64),
    ("clients/maximum", |broker| broker.clients.sessions_max as u64),
    ("clients/connected", |broker| broker.clients.connected_count as u64),
    ("clients/active", |broker| broker.clients.connected_count as u64),
    ("clients/disconnected", |broker| (broker.session_count() - broker.clients.connected_count) as u64),
    ("clients/inactive", |broker| (broker.session_count() - broker.clients.connected_count) as u64),
    ("clients/expired", |broker| broker.stats().sessions_expired),
    ("subscriptions/count", |broker| broker.index.plain_count() as u64),
    ("shared_subscriptions/count", |broker| (broker.subscription_count() - broker.index.plain_count()) as u64),
    ("heap/current", |broker| broker.clients.memory.used() as u64),
    ("heap/maximum", |broker| broker.clients.memory.used_max() as u64),
    ("messages/received", |broker| broker.stats().packets_received),
    ("messages/sent", |broker| broker.stats().packets_sent),
    ("bytes/received", |broker| broker.stats().bytes_received),
    ("bytes/sent", |broker| broker.stats().bytes_sent),
    ("publish/bytes/received", |broker| broker.stats().publish_bytes_received),
    ("publish/bytes/sent", |broker| broker.stats().publish_bytes_sent),
    ("publish/messages/received", |broker| broker.stats().publishes_received),
    ("publish/messages/sent", |broker| broker.stats().publishes_sent),
    ("publish/messages/dropped", |broker| broker.stats().messages_dropped),
    ("packet/out/count", |broker| broker.sys.sums.packets),
    ("packet/out/bytes", |broker| broker.sys.sums.output_bytes),
    ("connections/socket/count", |broker| broker.stats().connections_accepted),
    // Not Mosquitto's.
    ("connections/refused", |broker| broker.stats().connections_refused),
    ("publish/messages/expired", |broker| broker.stats().messages_expired),
    ("logged/bytes", |broker| broker.log_bytes),
    ("publish/stalls", |broker| broker.stats().stalls),
    ("publish/pauses", |broker| broker.stats().pauses),
    ("publish/slowed", |broker| broker.stats().rate_pauses),
    ("publish/messages/refused", |broker| broker.stats().publishes_refused),
    ("subscriptions/refused", |broker| broker.stats().subscriptions_refused),
    ("memory/limit", |broker| broker.clients.memory.limit()),
    ("memory/clients", |broker| {
        let Sums { message_bytes, output_bytes, input_bytes, .. } = broker.sys.sums;
        message_bytes + output_bytes + input_bytes
    }),
    // The last, which count all the others and themselves.
    ("messages/stored", stored_count),
    ("store/messages/count", stored_count),
    ("store/messages/bytes", |broker| broker.retained_bytes() as u64 + broker.sys.sums.message_bytes),
    ("retained messages/count", |broker| broker.retained_count() as u64),
];

/// A message that waits for several clients counts for each.
fn stored_count(broker: &Broker) -> u64 {
    broker.retained_count() as u64 + broker.sys.sums.messages
}

/// Rounds in which values that count each other's texts settle: one to be there, one to be counted, one for a digit more.
const ROUNDS_MAX: usize = 4;

/// Topics below `$SYS/broker/store/`, with persistence: what it does to the flash.
const STORE: [Row<StoreStats>; 6] = [
    ("files/bytes", |stats| stats.held_bytes),
    ("changes/bytes", |stats| stats.batch_bytes),
    ("written/bytes", |stats| stats.written_bytes),
    ("written/bytes/year", |stats| stats.yearly_bytes),
    ("syncs", |stats| stats.syncs),
    ("compactions", |stats| stats.snapshots),
];

/// Topics below `$SYS/broker/load/`, and the counters whose growth they average.
const LOADS: [Row<Stats>; 9] = [
    ("messages/received", |stats| stats.packets_received),
    ("messages/sent", |stats| stats.packets_sent),
    ("publish/dropped", |stats| stats.messages_dropped),
    ("publish/received", |stats| stats.publishes_received),
    ("publish/sent", |stats| stats.publishes_sent),
    ("bytes/received", |stats| stats.bytes_received),
    ("bytes/sent", |stats| stats.bytes_sent),
    ("sockets", |stats| stats.connections_accepted),
    ("connections", |stats| stats.connects_received),
];

/// `COUNT CLIENT_ID` a line for those that lost most.
const LOSERS: &str = "$SYS/broker/publish/messages/dropped/clients";
const VERSION: &str = "$SYS/broker/version";
/// Bytes written for each byte that changed.
const AMPLIFICATION: &str = "$SYS/broker/store/amplification";
const UPTIME: &str = "$SYS/broker/uptime";

/// What an average keeps of itself over a span of time, for each of `SPANS`.
type Decays = [f64; SPANS.len()];

fn decays(elapsed_s: f64) -> Decays {
    SPANS.map(|(_, span_s)| decay(elapsed_s / span_s))
}

impl Load {
    /// Mosquitto's exponential moving average: `average` moves towards the growth per minute in an interval that is over, and
    /// towards 0 in those after it, in which nothing happened.
    fn update(&mut self, counter: u64, interval_s: f64, active: &Decays, idle: &Decays) {
        let per_minute = (counter - self.counter) as f64 * 60.0 / interval_s;
        self.counter = counter;
        for ((average, active), idle) in self.averages.iter_mut().zip(active).zip(idle) {
            *average = (per_minute + active * (*average - per_minute)) * idle;
        }
    }
}

impl Sys {
    /// `interval` is 0 if there are to be no topics.
    pub fn new(interval: Millis) -> Sys {
        let mut sys = Sys {
            timer: TimerId::NONE,
            loads_due: Millis::NEVER,
            loads: Default::default(),
            sums: Sums::default(),
            dropped: 0,
            text: String::new(),
        };
        sys.set_started(Millis(0), interval);
        sys
    }

    /// Intervals count from here.
    pub fn set_started(&mut self, now: Millis, interval: Millis) {
        if interval != Millis(0) {
            self.loads_due = now + interval;
        }
    }

    /// Gives back scratch space.
    pub fn shrink(&mut self) {
        self.text = String::new();
    }
}

/// Seconds for which a log line is worth reading, as in Mosquitto.
const LOG_EXPIRY: Millis = Millis::from_secs(20);

impl Broker {
    /// Whether anybody may want log lines: somebody subscribes below `$SYS`.
    pub fn hears_log(&self) -> bool {
        self.index.has_sys_filters()
    }

    /// Publishes a line of the log to those who subscribe to `topic`, below `$SYS/broker/log`. Nobody waits for them.
    pub fn publish_log(&mut self, topic: &str, line: &str, now: Millis) {
        let parts = MessageParts {
            qos: QoS::ExactlyOnce,
            retain: false,
            expires_at: now + LOG_EXPIRY,
            topic,
            properties: &[],
            payload: line.as_bytes(),
            packet: None,
        };
        self.route(parts, NONE, now);
    }

    /// How many bytes of log lines were written since the start, for `$SYS`.
    pub fn set_log_bytes(&mut self, bytes: u64) {
        self.log_bytes = bytes;
    }

    /// To be called with the time before anything is counted that happens then.
    #[inline]
    pub(super) fn note_time(&mut self, now: Millis) {
        if now >= self.sys.loads_due {
            self.catch_up_loads(now);
        }
    }

    /// The interval is over to which belongs all that was counted since the one before; and so may others be in which nothing
    /// happened.
    #[cold]
    fn catch_up_loads(&mut self, now: Millis) {
        let interval = self.sys_interval();
        let idle_intervals = (now - self.sys.loads_due).0 / interval.0;
        self.sys.loads_due = self.sys.loads_due + Millis((idle_intervals + 1).saturating_mul(interval.0));
        let interval_s = interval.0 as f64 / 1000.0;
        let (active, idle) = (decays(interval_s), decays(idle_intervals as f64 * interval_s));
        for (load, (_, counter)) in self.sys.loads.iter_mut().zip(LOADS) {
            load.update(counter(&self.clients.stats), interval_s, &active, &idle);
        }
    }

    pub(super) fn sys_interval(&self) -> Millis {
        Millis::from_secs(self.clients.config.sys_interval_s.into())
    }

    /// Somebody is about to subscribe below `$SYS`: the values must be there.
    pub(super) fn begin_sys(&mut self, now: Millis) {
        if self.clients.config.sys_interval_s != 0 && self.sys.timer == TimerId::NONE {
            // Nobody sees how they settle.
            for _ in 0..ROUNDS_MAX {
                if !self.publish_sys(now) {
                    break;
                }
            }
            self.arm_sys();
        }
    }

    /// There is another interval: the next one begins now.
    pub(super) fn sys_interval_changed(&mut self, now: Millis) {
        let was_kept = self.sys.timer != TimerId::NONE;
        self.clients.wheel.cancel(std::mem::replace(&mut self.sys.timer, TimerId::NONE));
        self.sys.loads_due = Millis::NEVER;
        self.sys.set_started(now, self.sys_interval());
        match self.clients.config.sys_interval_s {
            0 if was_kept => self.forget_sys(),
            0 => {}
            _ if was_kept => self.arm_sys(),
            _ if self.index.has_sys_filters() => self.begin_sys(now),
            _ => {}
        }
    }

    /// The interval is over: new values, or the end of them if nobody wants any.
    pub(super) fn sys_due(&mut self, now: Millis) {
        self.sys.timer = TimerId::NONE;
        if self.index.has_sys_filters() {
            self.publish_sys(now);
            self.arm_sys();
        } else {
            self.forget_sys();
        }
    }

    /// Values come when averages do.
    fn arm_sys(&mut self) {
        self.sys.timer = self.clients.wheel.arm(timers::round(self.sys.loads_due), timers::SYS_OWNER);
    }

    /// Says whether a value changed.
    fn publish_sys(&mut self, now: Millis) -> bool {
        let (mut topic, mut text) = (String::new(), std::mem::take(&mut self.sys.text));
        self.sys.sums = self.add_up();
        let mut has_changed = self.publish_value(VERSION, concat!("midge version ", env!("CARGO_PKG_VERSION")), now);
        set(&mut text, format_args!("{} seconds", (now - self.started_at).0 / 1000));
        has_changed |= self.publish_value(UPTIME, &text, now);
        has_changed |= self.publish_losers(&mut text, now);
        has_changed |= self.publish_loads(&mut text, now);
        if self.clients.store.is_on() {
            for (name, value) in STORE {
                set(&mut topic, format_args!("$SYS/broker/store/{name}"));
                set(&mut text, format_args!("{}", value(&self.clients.store.stats)));
                has_changed |= self.publish_value(&topic, &text, now);
            }
            set_hundredths(&mut text, self.clients.store.stats.amplification_hundredths());
            has_changed |= self.publish_value(AMPLIFICATION, &text, now);
        }
        for (name, value) in NUMBERS {
            set(&mut topic, format_args!("$SYS/broker/{name}"));
            set(&mut text, format_args!("{}", value(self)));
            has_changed |= self.publish_value(&topic, &text, now);
        }
        self.sys.text = text;
        has_changed
    }

    /// What stands below `$SYS/broker`, also if nobody subscribes there: `row` is given each name and value.
    pub(super) fn tell_stats(&mut self, now: Millis, row: &mut dyn FnMut(&str, &str)) {
        self.note_time(now);
        let (mut name, mut text) = (String::new(), std::mem::take(&mut self.sys.text));
        self.sys.sums = self.add_up();
        set(&mut text, format_args!("{}", (now - self.started_at).0 / 1000));
        row("uptime", &text);
        for (name, value) in NUMBERS {
            set(&mut text, format_args!("{}", value(self)));
            row(name, &text);
        }
        if self.clients.config.sys_interval_s != 0 {
            for (load, (counter, _)) in self.sys.loads.iter().zip(LOADS) {
                for (average, (span, _)) in load.averages.iter().zip(SPANS) {
                    set(&mut name, format_args!("load/{counter}/{span}"));
                    set_hundredths(&mut text, (average * 100.0 + 0.5) as u64);
                    row(&name, &text);
                }
            }
        }
        if self.clients.store.is_on() {
            for (own, value) in STORE {
                set(&mut name, format_args!("store/{own}"));
                set(&mut text, format_args!("{}", value(&self.clients.store.stats)));
                row(&name, &text);
            }
            set_hundredths(&mut text, self.clients.store.stats.amplification_hundredths());
            row("store/amplification", &text);
        }
        self.sys.text = text;
    }

    /// One look at each session and link: what they hold is not worth counting while nobody asks.
    fn add_up(&self) -> Sums {
        let mut sums = Sums::default();
        for delivery in self.clients.sessions.iter().filter_map(|(_, session)| session.delivery.as_deref()) {
            sums.messages += (delivery.queue.len() + delivery.inflight.len()) as u64;
            sums.message_bytes += delivery.queue_bytes + delivery.inflight_bytes;
        }
        for (_, link) in &self.clients.links {
            sums.packets += u64::from(link.unwritten_packets);
            sums.output_bytes += link.output.len() as u64;
            sums.input_bytes += link.input.len() as u64;
        }
        sums
    }

    fn publish_loads(&mut self, text: &mut String, now: Millis) -> bool {
        let (mut topic, mut has_changed) = (String::new(), false);
        for (number, (name, _)) in LOADS.into_iter().enumerate() {
            for (at, (span, _)) in SPANS.into_iter().enumerate() {
                set(&mut topic, format_args!("$SYS/broker/load/{name}/{span}"));
                set_hundredths(text, (self.sys.loads[number].averages[at] * 100.0 + 0.5) as u64);
                has_changed |= self.publish_value(&topic, text, now);
            }
        }
        has_changed
    }

    /// Who lost messages to full queues, most first. Sessions are looked through only if any of them has.
    fn publish_losers(&mut self, text: &mut String, now: Millis) -> bool {
        let before = std::mem::replace(&mut self.sys.dropped, self.clients.stats.messages_dropped);
        let is_empty = self.retained.find(LOSERS).is_some_and(|message| message.payload() == b"0");
        if before == self.sys.dropped && is_empty {
            return false;
        }
        let sessions = self.clients.sessions.iter().map(|(_, session)| session);
        let mut losers: Vec<_> = sessions.filter(|session| session.dropped() > 0).collect();
        losers.sort_by(|one, other| {
            other.dropped().cmp(&one.dropped()).then_with(|| one.client_id.cmp(&other.client_id))
        });
        text.clear();
        for session in losers.iter().take(LOSERS_MAX) {
            let _ = writeln!(text, "{} {}", session.dropped(), session.client_id.escape_debug());
        }
        if text.is_empty() {
            // An empty payload would not be kept.
            text.push('0');
        }
        self.publish_value(LOSERS, text.trim_end(), now)
    }

    /// Publishes and retains a value that differs from the one retained, and says whether it does.
    fn publish_value(&mut self, topic: &str, value: &str, now: Millis) -> bool {
        if self.retained.find(topic).is_some_and(|message| message.payload() == value.as_bytes()) {
            return false;
        }
        let parts = MessageParts {
            // A subscriber gets what it asked for.
            qos: QoS::ExactlyOnce,
            retain: true,
            expires_at: Millis::NEVER,
            topic,
            properties: &[],
            payload: value.as_bytes(),
            packet: None,
        };
        self.retain(&parts, NONE, now);
        self.route(parts, NONE, now);
        true
    }

    /// Nobody subscribes below `$SYS` any more: the values would only grow old.
    fn forget_sys(&mut self) {
        let numbers = NUMBERS.into_iter().map(|(name, _)| format!("$SYS/broker/{name}"));
        let loads = LOADS
            .into_iter()
            .flat_map(|(name, _)| SPANS.into_iter().map(move |(span, _)| format!("$SYS/broker/load/{name}/{span}")));
        let store = STORE.into_iter().map(|(name, _)| format!("$SYS/broker/store/{name}"));
        for topic in
            numbers.chain(loads).chain(store).chain([LOSERS, VERSION, UPTIME, AMPLIFICATION].map(str::to_string))
        {
            self.retained.remove(&topic);
        }
    }
}

/// e to the power of `-x`, for `x` from 0 on. The system's function would bring a library of its own into memory, and here a
/// millionth is exact enough: the power series on a short way, squared back to the whole one.
fn decay(x: f64) -> f64 {
    if x > 700.0 {
        return 0.0;
    }
    let short = x / 1024.0;
    let mut power = 1.0 - short * (1.0 - short / 2.0 * (1.0 - short / 3.0 * (1.0 - short / 4.0)));
    for _ in 0..10 {
        power *= power;
    }
    power
}

/// Writes `value` into `text` in place of what is there.
fn set(text: &mut String, value: std::fmt::Arguments) {
    text.clear();
    // Writing to a String does not fail.
    let _ = text.write_fmt(value);
}

/// Two places, without the 30 kB of code that write any floating-point number.
fn set_hundredths(text: &mut String, hundredths: u64) {
    set(text, format_args!("{}.{:02}", hundredths / 100, hundredths % 100));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decay_is_the_exponential_function() {
        for x in [0.0, 1e-9, 0.011, 1.0 / 6.0, 1.0, 10.0, 60.0, 600.0] {
            let (exact, own) = (f64::exp(-x), decay(x));
            assert!((own - exact).abs() <= 1e-7, "{x}: {own} {exact}");
        }
        assert_eq!(decay(1e9), 0.0);
    }

    #[test]
    fn averages_move_towards_the_growth_per_minute_as_mosquittos_do() {
        let mut load = Load::default();
        let (active, idle) = (decays(10.0), decays(0.0));
        load.update(100, 10.0, &active, &idle);
        // 600 a minute: 600 + e^(-10/60) * (0 - 600)
        let expected = [92.11, 19.67, 6.63];
        let shown = load.averages.map(|average| (average * 100.0).round() / 100.0);
        assert_eq!(shown, expected);
        for _ in 0..1000 {
            load.update(load.counter + 100, 10.0, &active, &idle);
        }
        assert!(load.averages.iter().all(|average| (average - 600.0).abs() < 0.01));
        load.update(load.counter, 10.0, &active, &decays(3590.0));
        assert!(load.averages[0] < 0.01 && load.averages[2] > 1.0);
    }

    #[test]
    fn intervals_in_which_nothing_happened_may_be_made_up_for_at_once() {
        let (mut early, mut late) = (Load::default(), Load::default());
        let (active, idle) = (decays(10.0), decays(0.0));
        for _ in 0..7 {
            early.update(5000, 10.0, &active, &idle);
        }
        late.update(5000, 10.0, &active, &decays(60.0));
        assert!(early.averages.iter().zip(late.averages).all(|(one, other)| (one - other).abs() < 0.001));
    }
}
