//! Queues of sessions that are away: their limits in messages and bytes, and what gives way when they are full.

use midge::config::{Config, QueuePolicy};

use crate::harness::{World, log_count};
use crate::hello::{v5, v311};

/// What a stored session gets of `count` messages that came while it was away, with `filler` bytes each, and the answers
/// the publisher got.
fn kept(change: impl FnOnce(&mut Config), count: u32, filler: usize) -> (Vec<u32>, Vec<String>) {
    let mut w = World::with(|config| {
        config.max_inflight_messages = 1000;
        change(config);
    });
    let (p, s) = (w.join(v5("p")), w.join(v311("s").stored()));
    w.subscribe(s, "t 1");
    w.hang_up(s);
    for number in 0..count {
        w.tell(p, &format!("PUBLISH q1 #{} t {number}-{}", number + 1, "x".repeat(filler)));
    }
    let answers: Vec<String> = std::iter::from_fn(|| w.hear_one(p)).collect();
    assert_eq!(answers.len(), count as usize);
    let s = w.join(v311("s").stored());
    let mut numbers = Vec::new();
    while let Some(text) = w.hear_one(s) {
        numbers.push(text.rsplit_once(' ').unwrap().1.split_once('-').unwrap().0.parse().unwrap());
    }
    let dropped = w.broker.stats().messages_dropped;
    assert_eq!(dropped as usize, count as usize - numbers.len());
    assert_eq!(log_count("Outgoing messages are being dropped for client s"), (dropped > 0) as usize);
    (numbers, answers)
}

#[test]
fn by_default_the_oldest_messages_of_a_full_queue_are_kept() {
    assert_eq!(kept(|config| config.max_queued_messages = 10, 15, 0).0, (0..10).collect::<Vec<_>>());
    assert_eq!(kept(|_| (), 1005, 0).0, (0..1000).collect::<Vec<_>>());
}

#[test]
fn drop_oldest_keeps_the_newest() {
    let change = |config: &mut Config| {
        config.max_queued_messages = 10;
        config.queue_policy = QueuePolicy::DropOldest;
    };
    assert_eq!(kept(change, 15, 0).0, (5..15).collect::<Vec<_>>());
}

#[test]
fn reject_tells_a_5_0_publisher_0x97() {
    let change = |config: &mut Config| {
        config.max_queued_messages = 2;
        config.queue_policy = QueuePolicy::Reject;
    };
    let (numbers, answers) = kept(change, 4, 0);
    assert_eq!(numbers, [0, 1]);
    assert_eq!(answers, ["PUBACK #1", "PUBACK #2", "PUBACK #3 97", "PUBACK #4 97"]);
}

#[test]
fn reject_tells_a_3_1_1_publisher_nothing_and_refuses_qos_2_so_that_it_may_come_again() {
    let mut w = World::with(|config| {
        config.max_queued_messages = 1;
        config.queue_policy = QueuePolicy::Reject;
    });
    let (p, p5, s) = (w.client("p"), w.join(v5("p5")), w.join(v311("s").stored()));
    w.subscribe(s, "t 2");
    w.hang_up(s);
    w.tell(p, "PUBLISH q1 #1 t x, PUBLISH q1 #2 t y, PUBLISH q2 #3 t z, PUBREL #3");
    assert_eq!(w.heard(p), "PUBACK #1, PUBACK #2, PUBREC #3, PUBCOMP #3");
    w.tell(p5, "PUBLISH q2 #3 t z");
    assert_eq!(w.heard(p5), "PUBREC #3 97");
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t x");
    w.tell(s, "PUBACK #1");
    w.tell(p5, "PUBLISH q2 #3 t z, PUBREL #3");
    assert_eq!((w.heard(p5), w.heard(s)), ("PUBREC #3, PUBCOMP #3".into(), "PUBLISH q2 #2 t z".into()));
}

#[test]
fn bytes_are_limited_too() {
    // A topic of 1 byte, a number of 1 or 2 digits and a hyphen.
    let bytes = |max: u32, policy: QueuePolicy| {
        let change = move |config: &mut Config| {
            config.max_queued_bytes = max;
            config.queue_policy = policy;
        };
        kept(change, 10, 97).0
    };
    assert_eq!(bytes(500, QueuePolicy::DropNewest), [0, 1, 2, 3, 4]);
    assert_eq!(bytes(499, QueuePolicy::DropNewest), [0, 1, 2, 3]);
    assert_eq!(bytes(500, QueuePolicy::DropOldest), [5, 6, 7, 8, 9]);
    assert_eq!(bytes(500, QueuePolicy::Reject), [0, 1, 2, 3, 4]);
    assert_eq!(bytes(0, QueuePolicy::DropNewest).len(), 10);
}

#[test]
fn the_default_byte_limit_is_4_mib() {
    let (numbers, _) = kept(|_| (), 10, 1_000_000);
    assert_eq!(numbers, [0, 1, 2, 3]);
}

#[test]
fn a_message_larger_than_the_limit_is_kept_alone() {
    for policy in [QueuePolicy::DropNewest, QueuePolicy::Reject] {
        let change = move |config: &mut Config| {
            config.max_queued_bytes = 100;
            config.queue_policy = policy;
        };
        assert_eq!(kept(change, 3, 5000).0, [0]);
    }
    let change = |config: &mut Config| {
        config.max_queued_bytes = 100;
        config.queue_policy = QueuePolicy::DropOldest;
    };
    assert_eq!(kept(change, 3, 5000).0, [2]);
}

#[test]
fn without_limits_everything_is_kept() {
    let change = |config: &mut Config| {
        config.max_queued_messages = 0;
        config.max_queued_bytes = 0;
        config.max_inflight_messages = 0;
    };
    assert_eq!(kept(change, 5000, 10).0.len(), 5000);
}

#[test]
fn expired_messages_make_room_before_others_are_dropped() {
    let mut w = World::with(|config| config.max_queued_messages = 3);
    let (p, s) = (w.join(v5("p")), w.join(v5("s").stored()));
    w.subscribe(s, "t 1");
    w.hang_up(s);
    for words in ["q1 t a", "q1 t b expiry=5", "q1 t c"] {
        w.publish(p, words);
    }
    // To the millisecond.
    w.advance_s(5);
    w.publish(p, "q1 t d");
    assert_eq!((w.broker.stats().messages_expired, w.broker.stats().messages_dropped), (1, 0));
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t a, PUBLISH q1 #2 t c, PUBLISH q1 #3 t d");
}

#[test]
fn a_full_queue_of_one_session_takes_nothing_from_others() {
    let mut w = World::with(|config| config.max_queued_messages = 2);
    let (p, away, there) = (w.client("p"), w.join(v311("away").stored()), w.client("there"));
    w.subscribe(away, "t 1");
    w.subscribe(there, "t 1");
    w.acknowledges(there);
    w.hang_up(away);
    (0..50).for_each(|number| w.publish(p, &format!("q1 t {number}")));
    assert_eq!(w.heard(there).matches("PUBLISH").count(), 50);
}

#[test]
fn what_is_in_flight_does_not_count_as_queued() {
    let mut w = World::with(|config| {
        config.max_queued_messages = 3;
        config.max_inflight_messages = 5;
    });
    let (p, s) = (w.client("p"), w.join(v311("s").stored()));
    w.subscribe(s, "t 1");
    (0..5).for_each(|number| w.publish(p, &format!("q1 t {number}")));
    w.hang_up(s);
    (5..10).for_each(|number| w.publish(p, &format!("q1 t {number}")));
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s).matches("PUBLISH dup").count(), 5);
    (1..=5).for_each(|id| w.tell(s, &format!("PUBACK #{id}")));
    assert_eq!(w.heard(s), "PUBLISH q1 #6 t 5, PUBLISH q1 #7 t 6, PUBLISH q1 #8 t 7");
}
