//! The ceiling over all memory: what is given up, in which order, and that it comes back.

use crate::harness::{World, log_count};
use crate::hello::{v5, v311};
use midge::config::QueuePolicy;

fn world(policy: QueuePolicy) -> World {
    World::with(|config| {
        config.memory_limit = 100_000;
        config.queue_policy = policy;
        config.queue_qos0_messages = true;
    })
}

#[test]
fn first_publishers_wait_for_those_who_cannot_take_their_messages() {
    for (used, answered) in [(74_000, 30), (75_000, 21)] {
        let mut w = world(QueuePolicy::DropNewest);
        let (p, s) = (w.client("p"), w.client("s"));
        w.subscribe(s, "t 1");
        w.broker.set_memory_used(used);
        for id in 1..=30 {
            w.tell(p, &format!("PUBLISH q1 #{id} t x"));
        }
        // The window takes 20; the publisher of the one that had to be queued is not listened to.
        assert_eq!((w.heard(s).matches("PUBLISH").count(), w.heard(p).matches("PUBACK").count()), (20, answered));
        w.acknowledges(s);
        for id in 1..=20 {
            w.tell(s, &format!("PUBACK #{id}"));
        }
        assert_eq!((w.heard(s).matches("PUBLISH").count(), w.heard(p).matches("PUBACK").count()), (10, 30 - answered));
    }
}

#[test]
fn then_qos_0_is_not_queued_and_what_was_goes() {
    let mut w = world(QueuePolicy::DropNewest);
    let (p, s) = (w.client("p"), w.join(v311("s").stored()));
    w.subscribe(s, "t 1");
    w.hang_up(s);
    w.publish(p, "t zero");
    w.publish(p, "q1 t one");
    w.broker.set_memory_used(85_000);
    w.publish(p, "t later");
    w.publish(p, "q1 t two");
    w.broker.set_memory_used(0);
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t one, PUBLISH q1 #2 t two");
    assert_eq!(w.broker.stats().messages_dropped, 2);
    assert_eq!((log_count("QoS 0 messages are not queued"), log_count("there is plenty again")), (1, 1));
}

#[test]
fn then_every_queue_counts_as_full() {
    for (policy, kept) in [
        (QueuePolicy::DropNewest, "PUBLISH q1 #1 t one"),
        (QueuePolicy::Reject, "PUBLISH q1 #1 t one"),
        (QueuePolicy::DropOldest, "PUBLISH q1 #1 t two"),
    ] {
        let mut w = world(policy);
        let (p, s) = (w.join(v5("p")), w.join(v311("s").stored()));
        w.subscribe(s, "t 1");
        w.hang_up(s);
        w.publish(p, "q1 t one");
        w.publish(p, "q1 retain known x");
        w.broker.set_memory_used(95_000);
        w.tell(
            p,
            "PUBLISH q1 #7 t two, PUBLISH q1 retain #8 new x, PUBLISH q1 retain #9 known y, PUBLISH retain new x",
        );
        let code = if policy == QueuePolicy::Reject { " 97" } else { "" };
        assert_eq!(w.heard(p), format!("PUBACK #7{code}, PUBACK #8 97, PUBACK #9 10"));
        assert_eq!(w.broker.retained_count(), 1);
        let s = w.join(v311("s").stored());
        assert_eq!(w.heard(s), kept);
    }
}

#[test]
fn last_new_sessions_and_subscriptions_are_refused_and_old_ones_go_on() {
    let mut w = world(QueuePolicy::DropNewest);
    let (p, s) = (w.client("p"), w.join(v5("s").stored()));
    w.subscribe(s, "t 1");
    w.broker.set_memory_used(100_000);
    let new = w.connect(v5("new"));
    assert!(w.heard(new).starts_with("CONNACK 97"));
    let new = w.connect(v311("new"));
    assert!(w.heard(new).starts_with("CONNACK 03"));
    let s = w.join(v5("s").stored());
    w.tell(s, "SUBSCRIBE #1 t 1, SUBSCRIBE #2 other 1");
    assert_eq!(w.heard(s), "SUBACK #1 01, SUBACK #2 97");
    w.publish(p, "q1 t x");
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t x");
    w.broker.set_memory_used(94_000);
    w.join(v5("new"));
}

#[test]
fn without_a_limit_nothing_is_given_up() {
    let mut w = World::new();
    w.broker.set_memory_used(usize::MAX);
    w.client("c");
}

#[test]
fn a_packet_may_be_half_of_the_limit_unless_something_else_is_said() {
    for (limit, size, told) in [(1 << 19, 0, 256 << 10), (1 << 20, 500_000, 500_000), (1 << 20, 100_000, 100_000)] {
        let mut w = World::with(|config| (config.memory_limit, config.max_packet_size) = (limit, size));
        let c = w.connect(v5("c"));
        assert!(w.heard_in_full(c).contains(&format!("max-packet={told}")));
        w.tell(c, &format!("PUBLISH t x*{}", told - 9));
        assert_eq!((w.heard(c), w.is_open(c)), (String::new(), true));
        w.tell(c, &format!("PUBLISH t x*{}", told - 7));
        let rule = if size == 0 { "half of memory_limit" } else { "(max_packet_size)" };
        let heard = w.heard_in_full(c);
        assert!(heard.starts_with("DISCONNECT 95") && heard.contains(rule), "{heard}");
    }
    // More than fits into MQTT is no limit.
    let mut w = World::with(|config| config.memory_limit = 1 << 40);
    let c = w.connect(v5("c"));
    assert!(!w.heard_in_full(c).contains("max-packet"));
}

#[test]
fn at_the_limit_the_largest_unfinished_packet_goes() {
    let mut w = World::with(|config| config.memory_limit = 1 << 20);
    let (large, small, few) = (w.join(v5("large")), w.join(v5("small")), w.join(v5("few")));
    // A PUBLISH of 200,003 bytes that is not finished.
    let beginning = [b"\x30\xc0\x9a\x0c\0\x01t\0".as_slice(), &[b'x'; 40_000]].concat();
    w.send(large, &beginning);
    w.send(large, &[b'x'; 10_000]);
    w.send(small, &beginning);
    w.send(few, &beginning[..10_000]);
    w.broker.set_memory_used(1 << 20);
    w.send(few, b"x");
    let heard = w.heard_in_full(large);
    assert!(heard.starts_with("DISCONNECT 97 reason='the limit of memory is reached (memory_limit)"), "{heard}");
    assert!(heard.contains(&format!("{} bytes", beginning.len() + 10_000)), "{heard}");
    assert!(w.is_open(small) && w.is_open(few));
    w.send(few, b"x");
    assert!(w.heard(small).starts_with("DISCONNECT 97"));
    // What is left is not worth it.
    w.send(few, b"x");
    assert!(w.is_open(few));
    assert_eq!(log_count("disconnected: out of memory. The limit of memory is reached"), 2);
}

#[test]
fn at_the_limit_an_unfinished_packet_that_comes_in_one_piece_goes_like_any_other() {
    let mut w = World::with(|config| config.memory_limit = 1 << 20);
    let (first, second, small) = (w.join(v5("first")), w.join(v311("second")), w.client("small"));
    let beginning = [b"\x30\xc0\x9a\x0c\0\x01t\0".as_slice(), &[b'x'; 40_000]].concat();
    w.broker.set_memory_used(1 << 20);
    w.send(first, &beginning);
    let heard = w.heard_in_full(first);
    assert!(heard.starts_with("DISCONNECT 97 reason='the limit of memory is reached (memory_limit)"), "{heard}");
    w.send(second, &beginning);
    assert_eq!(w.heard(second), "closed");
    // Nor does one need a session for it.
    let stranger = w.dial(v311("").version);
    w.send(stranger, &[b"\x10\xf0\xd5\x05\0\x04MQTT\x04\x02\0\0\xff\xff".as_slice(), &[b'x'; 40_000]].concat());
    assert!(!w.is_open(stranger));
    // Whole packets are handled as ever.
    w.tell(small, "PINGREQ");
    assert_eq!(w.heard(small), "PINGRESP");
}

#[test]
fn at_the_limit_no_large_topic_gets_an_alias() {
    let mut w = World::with(|config| config.memory_limit = 1 << 20);
    let c = w.join(v5("c"));
    let (short, long) = ("s".repeat(1024), "l".repeat(1025));
    w.tell(c, &format!("PUBLISH {long} x alias=1"));
    w.broker.set_memory_used(1 << 20);
    w.tell(c, &format!("PUBLISH q1 #1 {short} x alias=2, PUBLISH q1 #2 '' x alias=1, PUBLISH q1 #3 {long} x"));
    assert_eq!(w.heard(c), "PUBACK #1 10, PUBACK #2 10, PUBACK #3 10");
    w.tell(c, &format!("PUBLISH {long} x alias=3"));
    let heard = w.heard_in_full(c);
    assert!(heard.starts_with("DISCONNECT 97 reason='the limit of memory is reached (memory_limit)"), "{heard}");
}

#[test]
fn far_beyond_the_limit_short_unfinished_packets_go_too() {
    let mut w = World::with(|config| config.memory_limit = 1 << 20);
    let (c, short) = (w.client("c"), w.client("short"));
    let beginning = [b"\x30\xc0\x9a\x0c\0\x01t\0".as_slice(), &[b'x'; 10_000]].concat();
    w.broker.set_memory_used((1 << 20) + (100 << 10));
    w.send(c, &beginning);
    assert!(w.is_open(c));
    w.broker.set_memory_used((1 << 20) + (105 << 10));
    w.send(short, &beginning[..1000]);
    assert_eq!((w.heard(c), w.is_open(short)), ("closed".into(), true));
    w.send(short, &[b'x'; 10]);
    assert!(w.is_open(short));
    w.send(short, &[b'x'; 14]);
    assert_eq!(w.heard(short), "closed");
}

#[test]
fn while_memory_is_short_few_answers_are_kept_for_who_does_not_read_them() {
    for (used, most) in [(0, 256 << 10), (75_000, 32 << 10)] {
        let mut w = world(QueuePolicy::DropNewest);
        let c = w.client("c");
        w.takes(c, 0);
        w.broker.set_memory_used(used);
        w.post(c, &b"\xc0\0".repeat(300_000));
        w.turn();
        assert!((most..most + 100).contains(&w.output_max(c)), "{}", w.output_max(c));
        // When it reads it gets them all.
        w.takes(c, usize::MAX);
        w.turn();
        assert_eq!(w.heard(c).matches("PINGRESP").count(), 300_000);
    }
}
