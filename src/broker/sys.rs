//! The broker's own topics below `$SYS/broker`: counters, gauges and averages under Mosquitto's names and in its formats, each a
//! retained message that is published when its value changed. Nobody who does not subscribe below `$SYS` pays for them:
//! without such a subscription there is no timer and no value, and the first one brings all values up to date. A stored
//! session that subscribes there counts, as everywhere.
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
#[derive(Default)]
pub struct Sys {
    pub timer: TimerId,
    updated_at: Millis,
    loads: [Load; LOADS.len()],
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

/// A name, and what is counted under it.
type Row<T> = (&'static str, fn(&T) -> u64);

const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

/// Topics below `$SYS/broker/` whose values are whole numbers.
const NUMBERS: [Row<Broker>; 23] = [
    ("clients/total", |broker| broker.session_count() as u64),
    ("clients/maximum", |broker| broker.clients.sessions_max as u64),
    ("clients/connected", |broker| broker.clients.connected_count as u64),
    ("clients/active", |broker| broker.clients.connected_count as u64),
    ("clients/disconnected", |broker| (broker.session_count() - broker.clients.connected_count) as u64),
    ("clients/inactive", |broker| (broker.session_count() - broker.clients.connected_count) as u64),
    ("clients/expired", |broker| broker.stats().sessions_expired),
    ("subscriptions/count", |broker| broker.index.plain_count() as u64),
    ("shared_subscriptions/count", |broker| (broker.subscription_count() - broker.index.plain_count()) as u64),
    ("messages/received", |broker| broker.stats().packets_received),
    ("messages/sent", |broker| broker.stats().packets_sent),
    ("bytes/received", |broker| broker.stats().bytes_received),
    ("bytes/sent", |broker| broker.stats().bytes_sent),
    ("publish/bytes/received", |broker| broker.stats().publish_bytes_received),
    ("publish/bytes/sent", |broker| broker.stats().publish_bytes_sent),
    ("publish/messages/received", |broker| broker.stats().publishes_received),
    ("publish/messages/sent", |broker| broker.stats().publishes_sent),
    ("publish/messages/dropped", |broker| broker.stats().messages_dropped),
    // Not Mosquitto's.
    ("publish/messages/expired", |broker| broker.stats().messages_expired),
    ("connections/socket/count", |broker| broker.stats().connections_accepted),
    ("publish/stalls", |broker| broker.stats().stalls),
    ("publish/pauses", |broker| broker.stats().pauses),
    // The last, which counts all the others and itself.
    ("retained messages/count", |broker| {
        let is_counted = broker.retained.find("$SYS/broker/retained messages/count").is_some();
        broker.retained_count() as u64 + !is_counted as u64
    }),
];

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

impl Load {
    /// Mosquitto's exponential moving average: `average` moves towards the growth per minute of `elapsed_s` seconds.
    fn update(&mut self, counter: u64, elapsed_s: f64) {
        let per_minute = (counter - self.counter) as f64 * 60.0 / elapsed_s;
        self.counter = counter;
        for (average, (_, span_s)) in self.averages.iter_mut().zip(SPANS) {
            *average = per_minute + decay(elapsed_s / span_s) * (*average - per_minute);
        }
    }
}

impl Sys {
    /// Gives back scratch space.
    pub fn shrink(&mut self) {
        self.text = String::new();
    }
}

impl Broker {
    /// Somebody is about to subscribe below `$SYS`: the values must be there.
    pub(super) fn begin_sys(&mut self, now: Millis) {
        if self.clients.config.sys_interval_s != 0 && self.sys.timer == TimerId::NONE {
            self.publish_sys(now);
            self.arm_sys(now);
        }
    }

    /// There is another interval: the next one begins now.
    pub(super) fn sys_interval_changed(&mut self, now: Millis) {
        let was_kept = self.sys.timer != TimerId::NONE;
        self.clients.wheel.cancel(std::mem::replace(&mut self.sys.timer, TimerId::NONE));
        match self.clients.config.sys_interval_s {
            0 if was_kept => self.forget_sys(),
            0 => {}
            _ if was_kept => self.arm_sys(now),
            _ if self.index.has_sys_filters() => self.begin_sys(now),
            _ => {}
        }
    }

    /// The interval is over: new values, or the end of them if nobody wants any.
    pub(super) fn sys_due(&mut self, now: Millis) {
        self.sys.timer = TimerId::NONE;
        if self.index.has_sys_filters() {
            self.publish_sys(now);
            self.arm_sys(now);
        } else {
            self.forget_sys();
        }
    }

    fn arm_sys(&mut self, now: Millis) {
        let deadline = now + Millis::from_secs(self.clients.config.sys_interval_s.into());
        self.sys.timer = self.clients.wheel.arm(timers::round(deadline), timers::SYS_OWNER);
    }

    fn publish_sys(&mut self, now: Millis) {
        let mut text = std::mem::take(&mut self.sys.text);
        self.publish_value(VERSION, concat!("midge version ", env!("CARGO_PKG_VERSION")), now);
        set(&mut text, format_args!("{} seconds", (now - self.started_at).0 / 1000));
        self.publish_value(UPTIME, &text, now);
        self.publish_losers(&mut text, now);
        self.publish_loads(&mut text, now);
        let mut topic = String::new();
        for (name, value) in NUMBERS {
            set(&mut topic, format_args!("$SYS/broker/{name}"));
            set(&mut text, format_args!("{}", value(self)));
            self.publish_value(&topic, &text, now);
        }
        if self.clients.store.is_on() {
            for (name, value) in STORE {
                set(&mut topic, format_args!("$SYS/broker/store/{name}"));
                set(&mut text, format_args!("{}", value(&self.clients.store.stats)));
                self.publish_value(&topic, &text, now);
            }
            let hundredths = self.clients.store.stats.amplification_hundredths();
            set(&mut text, format_args!("{}.{:02}", hundredths / 100, hundredths % 100));
            self.publish_value(AMPLIFICATION, &text, now);
        }
        self.sys.text = text;
    }

    fn publish_loads(&mut self, text: &mut String, now: Millis) {
        let elapsed_s = (now - self.sys.updated_at).0 as f64 / 1000.0;
        let is_later = now > self.sys.updated_at;
        self.sys.updated_at = now;
        let mut topic = String::new();
        for (number, (name, counter)) in LOADS.into_iter().enumerate() {
            if is_later {
                let counter = counter(&self.clients.stats);
                self.sys.loads[number].update(counter, elapsed_s);
            }
            for (at, (span, _)) in SPANS.into_iter().enumerate() {
                set(&mut topic, format_args!("$SYS/broker/load/{name}/{span}"));
                // Two places, without the 30 kB of code that write any floating-point number.
                let hundredths = (self.sys.loads[number].averages[at] * 100.0 + 0.5) as u64;
                set(text, format_args!("{}.{:02}", hundredths / 100, hundredths % 100));
                self.publish_value(&topic, text, now);
            }
        }
    }

    /// Who lost messages to full queues, most first. Sessions are looked through only if any of them has.
    fn publish_losers(&mut self, text: &mut String, now: Millis) {
        let before = std::mem::replace(&mut self.sys.dropped, self.clients.stats.messages_dropped);
        let is_empty = self.retained.find(LOSERS).is_some_and(|message| message.payload() == b"0");
        if before == self.sys.dropped && is_empty {
            return;
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
        self.publish_value(LOSERS, text.trim_end(), now);
    }

    /// Publishes and retains a value that differs from the one retained.
    fn publish_value(&mut self, topic: &str, value: &str, now: Millis) {
        if self.retained.find(topic).is_some_and(|message| message.payload() == value.as_bytes()) {
            return;
        }
        let parts = MessageParts {
            // A subscriber gets what it asked for.
            qos: QoS::ExactlyOnce,
            retain: true,
            expires_at: Millis::NEVER,
            topic,
            properties: &[],
            payload: value.as_bytes(),
        };
        self.retain(&parts, NONE, now);
        self.route(parts, NONE, now);
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
        load.update(100, 10.0);
        // 600 a minute: 600 + e^(-10/60) * (0 - 600)
        let expected = [92.11, 19.67, 6.63];
        let shown = load.averages.map(|average| (average * 100.0).round() / 100.0);
        assert_eq!(shown, expected);
        for _ in 0..1000 {
            load.update(load.counter + 100, 10.0);
        }
        assert!(load.averages.iter().all(|average| (average - 600.0).abs() < 0.01));
        load.update(load.counter, 3600.0);
        assert!(load.averages[0] < 0.01 && load.averages[2] > 1.0);
    }
}
