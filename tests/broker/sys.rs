//! The broker's own topics below `$SYS`: their values, when they are published, and what they cost those who do not ask.

use std::collections::BTreeMap;

use crate::harness::{Client, IS_STORED, World, log_count};
use crate::hello::{v5, v311};

/// The values a client heard of, by topic below `$SYS/broker/`; a later one in place of an earlier one.
fn values(w: &mut World, client: Client) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    while let Some(text) = w.hear_one(client) {
        let (_, text) = text.split_once("$SYS/broker/").unwrap_or_else(|| panic!("{text}"));
        // One name has a blank in it.
        let at = text.find("/count ").map_or_else(|| text.find(' ').unwrap(), |at| at + "/count".len());
        values.insert(text[..at].to_string(), text[at + 1..].to_string());
    }
    values
}

#[test]
fn the_first_subscription_below_sys_brings_all_values() {
    let mut w = World::new();
    let (c, away) = (w.client("c"), w.join(v311("away").stored()));
    w.hang_up(away);
    w.subscribe(c, "plain 0 $share/g/plain 1 $SYS/# 0");
    let values = values(&mut w, c);
    for (topic, value) in [
        ("version", concat!("midge version ", env!("CARGO_PKG_VERSION"))),
        ("uptime", "1000 seconds"),
        ("clients/total", "2"),
        ("clients/maximum", "2"),
        ("clients/connected", "1"),
        ("clients/active", "1"),
        ("clients/disconnected", "1"),
        ("clients/inactive", "1"),
        ("clients/expired", "0"),
        ("subscriptions/count", "1"),
        ("shared_subscriptions/count", "1"),
        ("messages/received", "3"),
        ("publish/messages/received", "0"),
        ("publish/messages/dropped", "0"),
        ("publish/messages/dropped/clients", "0"),
        ("connections/socket/count", "2"),
        ("load/publish/dropped/15min", "0.00"),
    ] {
        assert_eq!(values.get(topic).map(String::as_str), Some(value), "{topic}");
    }
    // They count themselves.
    assert_eq!(values["retained messages/count"], values.len().to_string());
    assert_eq!(values["store/messages/bytes"], w.broker.retained_bytes().to_string());
}

/// Mosquitto's names, and what their values look like.
const INTEGERS: [&str; 27] = [
    "clients/total",
    "clients/maximum",
    "clients/connected",
    "clients/active",
    "clients/disconnected",
    "clients/inactive",
    "clients/expired",
    "messages/stored",
    "store/messages/count",
    "store/messages/bytes",
    "subscriptions/count",
    "shared_subscriptions/count",
    "retained messages/count",
    "heap/current",
    "heap/maximum",
    "messages/received",
    "messages/sent",
    "bytes/received",
    "bytes/sent",
    "publish/bytes/received",
    "publish/bytes/sent",
    "publish/messages/received",
    "publish/messages/sent",
    "publish/messages/dropped",
    "packet/out/count",
    "packet/out/bytes",
    "connections/socket/count",
];
const LOADS: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];
/// The broker's own.
const OWN_INTEGERS: [&str; 10] = [
    "connections/refused",
    "logged/bytes",
    "publish/messages/expired",
    "publish/messages/refused",
    "publish/stalls",
    "publish/pauses",
    "publish/slowed",
    "subscriptions/refused",
    "memory/limit",
    "memory/clients",
];
const OWN_STORE_INTEGERS: [&str; 6] =
    ["files/bytes", "changes/bytes", "written/bytes", "written/bytes/year", "syncs", "compactions"];

fn is_integer(value: &str) -> bool {
    value.parse::<u64>().is_ok_and(|number| number.to_string() == value)
}

fn has_two_places(value: &str) -> bool {
    value.split_once('.').is_some_and(|(whole, places)| is_integer(whole) && places.len() == 2 && is_digits(places))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn every_topic_has_its_name_and_format_and_there_are_no_others() {
    let mut w = World::new();
    let c = w.client("c");
    w.subscribe(c, "$SYS/# 0");
    let mut values = values(&mut w, c);
    let mut take = |topic: &str| values.remove(topic).unwrap_or_else(|| panic!("{topic} is missing"));
    let version = take("version");
    assert!(version.strip_prefix("midge version ").is_some_and(|number| number.split('.').count() == 3), "{version}");
    let uptime = take("uptime");
    assert!(uptime.strip_suffix(" seconds").is_some_and(is_integer), "{uptime}");
    for topic in INTEGERS.into_iter().chain(OWN_INTEGERS) {
        let value = take(topic);
        assert!(is_integer(&value), "{topic} {value}");
    }
    for topic in LOADS {
        for span in ["1min", "5min", "15min"] {
            let value = take(&format!("load/{topic}/{span}"));
            assert!(has_two_places(&value), "{topic} {value}");
        }
    }
    assert_eq!(take("publish/messages/dropped/clients"), "0");
    if IS_STORED {
        for topic in OWN_STORE_INTEGERS {
            let value = take(&format!("store/{topic}"));
            assert!(is_integer(&value), "{topic} {value}");
        }
        assert!(has_two_places(&take("store/amplification")));
    }
    assert!(values.is_empty(), "{values:?}");
}

#[test]
fn what_is_kept_for_clients_is_added_up() {
    let mut w = World::with(|config| config.memory_limit = 1 << 20);
    let (p, c) = (w.client("p"), w.client("c"));
    let (away, slow) = (w.join(v311("away").stored()), w.client("slow"));
    w.subscribe(away, "t 1");
    w.hang_up(away);
    w.publish(p, "q1 t abc");
    w.publish(p, "q1 t de");
    w.subscribe(slow, "u 0");
    w.takes(slow, 0);
    (0..3).for_each(|_| w.publish(p, "u x"));
    w.broker.set_memory_used(5000);
    w.broker.set_memory_used(3000);
    w.subscribe(c, "$SYS/# 0");
    let first = values(&mut w, c);
    let retained: usize = first["retained messages/count"].parse().unwrap();
    let bytes = w.broker.retained_bytes();
    for (topic, value) in [
        ("messages/stored", retained + 2),
        ("store/messages/count", retained + 2),
        ("store/messages/bytes", bytes + 4 + 3),
        ("packet/out/count", 3),
        ("packet/out/bytes", 18),
        ("memory/clients", 4 + 3 + 18),
        ("memory/limit", 1 << 20),
        ("heap/current", 3000),
        ("heap/maximum", 5000),
    ] {
        assert_eq!(first[topic], value.to_string(), "{topic}");
    }
    w.takes(slow, 7);
    w.turn();
    w.takes(slow, 0);
    w.advance_s(10);
    let then = values(&mut w, c);
    assert_eq!((then["packet/out/count"].as_str(), then["packet/out/bytes"].as_str()), ("2", "11"));
    w.takes(slow, usize::MAX);
    w.turn();
    w.advance_s(10);
    let then = values(&mut w, c);
    assert_eq!((then["packet/out/count"].as_str(), then["packet/out/bytes"].as_str()), ("0", "0"));
}

/// Bursts with idle intervals between them.
fn bursts(w: &mut World, publisher: Client) {
    for (seconds, count) in [(3, 10), (4, 1), (5, 7), (104, 200), (1, 2), (60, 3), (31, 0)] {
        w.advance_s(seconds);
        (0..count).for_each(|_| w.publish(publisher, "t x"));
    }
}

#[test]
fn averages_are_the_same_for_whoever_comes_late() {
    let loads = "$SYS/broker/load/publish/received/+ 0 $SYS/broker/load/sockets/+ 0";
    let heard = [false, true].map(|is_late| {
        let mut w = World::new();
        let (p, c) = (w.client("p"), w.client("c"));
        let mut heard = BTreeMap::new();
        if !is_late {
            w.subscribe(c, loads);
            heard.extend(values(&mut w, c));
        } else {
            assert_eq!(w.broker.next_deadline(), None, "it would wake up");
        }
        bursts(&mut w, p);
        if is_late {
            w.subscribe(c, loads);
        }
        heard.extend(values(&mut w, c));
        heard
    });
    assert_eq!(heard[0].len(), 6);
    assert_eq!(heard[0], heard[1]);
    assert_ne!(heard[0]["load/publish/received/1min"], "0.00");
}

#[test]
fn a_burst_after_an_idle_day_is_not_spread_over_the_day() {
    let mut w = World::new();
    let (p, c) = (w.client("p"), w.client("c"));
    w.advance_s(86_400);
    (0..100).for_each(|_| w.publish(p, "t x"));
    w.advance_s(10);
    w.subscribe(c, "$SYS/broker/load/publish/received/# 0");
    assert_eq!(
        w.heard(c),
        "PUBLISH retain $SYS/broker/load/publish/received/15min 6.63, \
         PUBLISH retain $SYS/broker/load/publish/received/1min 92.11, \
         PUBLISH retain $SYS/broker/load/publish/received/5min 19.67"
    );
    w.advance_s(3600);
    assert_eq!(values(&mut w, c)["load/publish/received/1min"], "0.00");
}

#[test]
fn values_come_again_only_when_they_change_and_live_without_the_retain_flag() {
    let mut w = World::new();
    let (c, p) = (w.client("c"), w.client("p"));
    w.subscribe(c, "$SYS/broker/publish/messages/received 2 $SYS/broker/clients/total 0");
    assert_eq!(
        w.heard(c),
        "PUBLISH retain q2 #1 $SYS/broker/publish/messages/received 0, PUBLISH retain $SYS/broker/clients/total 2"
    );
    w.tell(c, "PUBREC #1, PUBCOMP #1");
    w.heard(c);
    w.advance_s(60);
    assert_eq!(w.heard(c), "");
    w.tell(p, "PUBLISH t x, PUBLISH t y");
    w.advance_s(9);
    assert_eq!(w.heard(c), "");
    w.advance_s(1);
    assert_eq!(w.heard(c), "PUBLISH q2 #2 $SYS/broker/publish/messages/received 2");
}

#[test]
fn nobody_below_sys_means_no_timer_and_no_values() {
    let mut w = World::new();
    let c = w.client("c");
    w.subscribe(c, "# 0 +/# 0 +/broker/uptime 0 $share/g/# 0");
    assert_eq!((w.broker.next_deadline(), w.broker.retained_count()), (None, 0));
    w.subscribe(c, "$share/g/$SYS/broker/uptime 0");
    assert!(w.broker.next_deadline().is_some() && w.broker.retained_count() > 50);
    w.tell(c, "UNSUBSCRIBE #9 $share/g/$SYS/broker/uptime");
    w.advance_s(10);
    assert_eq!((w.broker.next_deadline(), w.broker.retained_count()), (None, 0));
    w.heard(c);
    // And again from the beginning.
    w.subscribe(c, "$SYS/broker/uptime 0");
    assert_eq!(w.heard(c), "PUBLISH retain $SYS/broker/uptime 1010 seconds");
    w.hang_up(c);
    w.advance_s(20);
    assert_eq!((w.broker.next_deadline(), w.broker.retained_count()), (None, 0));
}

#[test]
fn the_values_of_a_bridge_outlive_the_brokers_own() {
    let mut w = World::new();
    let c = w.client("c");
    w.publish(c, "retain $SYS/broker/connection/attic/state 1");
    w.subscribe(c, "$SYS/broker/connection/# 0");
    assert_eq!(w.heard(c), "PUBLISH retain $SYS/broker/connection/attic/state 1");
    w.tell(c, "UNSUBSCRIBE #9 $SYS/broker/connection/#");
    w.advance_s(10);
    assert_eq!(w.broker.retained_count(), 1);
}

#[test]
fn an_interval_of_0_means_no_topics() {
    let mut w = World::with(|config| config.sys_interval_s = 0);
    let c = w.client("c");
    w.subscribe(c, "$SYS/# 0");
    assert_eq!((w.heard(c).as_str(), w.broker.next_deadline()), ("", None));
}

#[test]
fn losses_are_counted_with_the_names_of_those_who_lost() {
    let mut w = World::with(|config| config.max_queued_messages = 5);
    let (p, c) = (w.client("p"), w.client("c"));
    for (id, lost) in [("a b", 2), ("ä\n#", 4)] {
        let s = w.join(v311(id).stored());
        w.subscribe(s, "t 1");
        w.hang_up(s);
        for _ in 0..lost {
            w.publish(p, "q1 t x");
        }
    }
    w.subscribe(c, "$SYS/broker/publish/messages/dropped/# 0 $SYS/broker/load/publish/dropped/1min 0");
    let first = values(&mut w, c);
    assert_eq!(first["publish/messages/dropped"], "1");
    assert_eq!(first["publish/messages/dropped/clients"], "1 a b");
    (0..3).for_each(|_| w.publish(p, "q1 t x"));
    w.advance_s(10);
    let then = values(&mut w, c);
    assert_eq!(then["publish/messages/dropped"], "6");
    // 36 a minute in ten seconds: 36 - 36 / e^(1/6).
    assert_eq!(then["load/publish/dropped/1min"], "5.53");
    assert_eq!(then["publish/messages/dropped/clients"], "4 a b\n2 ä\\n#");
    // A session that ends is no loser any more, though nobody loses anything.
    w.join(v311("a b"));
    w.advance_s(10);
    assert_eq!(values(&mut w, c)["publish/messages/dropped/clients"], "2 ä\\n#");
    w.join(v311("ä\n#"));
    w.advance_s(10);
    assert_eq!(values(&mut w, c)["publish/messages/dropped/clients"], "0");
}

#[test]
fn a_client_that_caught_up_is_logged_with_the_number_it_lost() {
    let mut w = World::with(|config| config.max_queued_messages = 5);
    let (p, s) = (w.client("p"), w.join(v5("s").stored()));
    w.subscribe(s, "t 0 u 1");
    w.hang_up(s);
    (0..12).for_each(|_| w.publish(p, "q1 u x"));
    assert_eq!(log_count("Outgoing messages are being dropped for client s."), 1);
    assert_eq!(log_count("were dropped for client s"), 0);
    w.join(v5("s").stored());
    assert_eq!(log_count("7 outgoing messages were dropped for client s before it caught up."), 1);
    let s = w.join(v5("s").stored());
    w.hang_up(s);
    (0..7).for_each(|_| w.publish(p, "q1 u x"));
    w.join(v5("s"));
    // Five of the twelve were still unacknowledged, and two of these seven found no room.
    assert_eq!(log_count("2 outgoing messages were dropped for client s before its session ended."), 1);
}

#[test]
fn log_lines_reach_those_who_subscribe_to_them_and_are_not_retained() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    assert!(!w.broker.hears_log());
    w.subscribe(c, "$SYS/broker/log/N 2 $SYS/broker/log/M/# 0");
    assert!(w.broker.hears_log());
    w.heard(c);
    w.broker.publish_log("$SYS/broker/log/N", "1600000000: New client connected", w.now);
    w.broker.publish_log("$SYS/broker/log/I", "nobody asked for these", w.now);
    w.broker.publish_log("$SYS/broker/log/M/subscribe", "c 0 house", w.now);
    w.turn();
    let retained = w.broker.retained_count();
    assert_eq!(
        w.heard(c),
        "PUBLISH q2 #1 $SYS/broker/log/N 1600000000: New client connected expiry=20, \
         PUBLISH $SYS/broker/log/M/subscribe c 0 house expiry=20"
    );
    assert_eq!(w.broker.retained_count(), retained);
}
