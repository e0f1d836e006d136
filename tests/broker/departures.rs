//! Connections that end while somebody waits: the publisher, the subscriber, or both.

use crate::harness::{Client, World};
use crate::hello::{BOTH, v5, v311};
use crate::script;

fn burst(w: &mut World, client: Client, topic: &str, count: u32, filler: usize) {
    let payload = "x".repeat(filler);
    for number in 0..count {
        w.post(client, &script::encode(&format!("PUBLISH {topic} {number}-{payload}"), v311("").version));
    }
}

fn count(w: &mut World, client: Client) -> usize {
    w.heard_bytes(client).iter().filter(|frame| frame[0] & 0xF0 == 0x30).count()
}

#[test]
fn a_publisher_whose_socket_fails_in_the_turn_it_may_go_on_is_forgotten() {
    let mut w = World::new();
    let (slow, p) = (w.client("slow"), w.client("p"));
    w.subscribe(slow, "t 0");
    w.takes(slow, 0);
    w.takes(p, 0);
    w.tell(p, "PINGREQ");
    burst(&mut w, p, "t", 2000, 200);
    w.turn();
    assert!(w.broker.stats().pauses > 0);
    w.breaks(p);
    w.takes(slow, usize::MAX);
    w.turn();
    assert!(!w.is_open(p));
    w.tell(slow, "PINGREQ");
    assert!(w.heard(slow).ends_with("PINGRESP"));
}

#[test]
fn a_client_that_leaves_with_a_large_message_unsent_is_forgotten() {
    for last in ["DISCONNECT", "PUBLISH # x"] {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.client("s"));
        w.subscribe(s, "t 0");
        w.takes(s, 0);
        w.publish(p, "t x*1000000");
        w.tell(s, last);
        assert_eq!(w.heard(s), "closed");
        assert_eq!(w.broker.link_count(), 1);
    }
}

#[test]
fn large_messages_to_a_slow_client_that_reads_and_acknowledges_are_not_lost() {
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.join(hello("s")));
        w.subscribe(s, "t 1");
        w.acknowledges(s);
        w.takes(s, 100_000);
        for id in 1..=60 {
            w.post(p, &script::encode(&format!("PUBLISH q1 #{id} t x*300000"), v311("").version));
        }
        for _ in 0..400 {
            w.advance(10);
        }
        assert_eq!((count(&mut w, s), w.broker.stats().messages_dropped), (60, 0));
    }
}

#[test]
fn a_client_that_pings_while_it_reads_a_large_message_loses_nothing() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 0");
    w.takes(s, 100_000);
    w.publish(p, "t x*600000");
    w.tell(s, "PINGREQ");
    for _ in 0..30 {
        w.post(p, &script::encode("PUBLISH t x*600000", v311("").version));
    }
    for _ in 0..400 {
        w.advance(10);
    }
    assert_eq!((count(&mut w, s), w.broker.stats().messages_dropped), (31, 0));
}

#[test]
fn what_a_waiting_publisher_sent_before_it_left_is_not_lost() {
    let mut w = World::new();
    let (p, slow) = (w.client("p"), w.client("slow"));
    w.subscribe(slow, "t 0");
    w.takes(slow, 10_000);
    burst(&mut w, p, "t", 1200, 200);
    w.turn();
    assert!(w.broker.stats().pauses > 0);
    assert_eq!(w.unread(p), 0, "all of it was read");
    w.hang_up(p);
    for _ in 0..100 {
        w.advance(100);
    }
    assert_eq!(count(&mut w, slow), 1200);
}

#[test]
fn v311_mqtt_3_14_4_3_a_disconnect_behind_messages_that_had_to_wait_takes_the_will_back() {
    // MQTT-3.14.4-3 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, slow, watcher) = (w.join(hello("p").will("gone x")), w.client("slow"), w.client("watcher"));
        w.subscribe(slow, "t 0");
        w.subscribe(watcher, "gone 0");
        w.takes(slow, 10_000);
        for number in 0..1200 {
            w.post(p, &script::encode(&format!("PUBLISH t {number}-{}", "x".repeat(200)), hello("").version));
        }
        w.post(p, &script::encode("DISCONNECT", hello("").version));
        w.turn();
        assert_eq!(w.unread(p), 0, "all of it was read");
        w.hang_up(p);
        for _ in 0..100 {
            w.advance(100);
        }
        assert_eq!((count(&mut w, watcher), count(&mut w, slow)), (0, 1200));
    }
}

#[test]
fn publisher_and_subscriber_that_end_in_one_turn_leave_nothing_behind() {
    for first in 0..2 {
        let mut w = World::new();
        let (p, slow) = (w.join(v311("p").will("t gone")), w.client("slow"));
        w.subscribe(slow, "t 0");
        w.takes(slow, 0);
        burst(&mut w, p, "t", 3000, 200);
        w.turn();
        let links = [w.link(p), w.link(slow)];
        for at in [first, 1 - first] {
            w.broker.hang_up(links[at], midge::broker::HangUp::Closed, w.now);
        }
        w.turn();
        assert_eq!((w.broker.link_count(), w.broker.session_count(), w.broker.subscription_count()), (0, 0, 0));
        assert_eq!(w.broker.next_deadline(), None);
    }
}

#[test]
fn a_take_over_of_a_waiting_publisher_ends_its_waiting() {
    let mut w = World::new();
    let (p, slow) = (w.client("p"), w.client("slow"));
    w.subscribe(slow, "t 0");
    w.takes(slow, 0);
    burst(&mut w, p, "t", 3000, 200);
    w.turn();
    let new = w.client("p");
    assert_eq!(w.heard(p), "closed");
    w.tell(new, "PINGREQ");
    assert_eq!(w.heard(new), "PINGRESP");
    w.takes(slow, usize::MAX);
    w.turn();
    w.advance(5000);
    assert!(w.is_open(slow));
}

#[test]
fn a_subscriber_that_waits_itself_and_leaves_lets_its_publishers_go_on() {
    let mut w = World::new();
    let (a, b, c) = (w.client("a"), w.client("b"), w.client("c"));
    w.subscribe(b, "to/b 0");
    w.subscribe(c, "to/c 0");
    w.takes(b, 0);
    w.takes(c, 0);
    burst(&mut w, b, "to/c", 1200, 200);
    w.turn();
    burst(&mut w, a, "to/b", 3000, 200);
    w.turn();
    assert!(w.unread(a) > 0 && w.broker.stats().pauses == 2);
    w.hang_up(b);
    assert_eq!(w.unread(a), 0);
    w.takes(c, usize::MAX);
    w.turn();
    w.tell(a, "PINGREQ");
    assert_eq!(w.heard(a), "PINGRESP");
}

#[test]
fn v5_mqtt_3_4_2_1_a_message_a_full_queue_turned_away_is_not_told_to_have_no_subscribers() {
    let mut w = World::with(|config| config.max_queued_messages = 1);
    let (p, s) = (w.join(v5("p")), w.join(v5("s").stored()));
    w.subscribe(s, "t 1");
    w.hang_up(s);
    w.tell(p, "PUBLISH q1 #1 t x, PUBLISH q1 #2 t y");
    assert_eq!(w.heard(p), "PUBACK #1, PUBACK #2");
    let zero = w.join(v5("zero").stored());
    w.subscribe(zero, "u 0");
    w.hang_up(zero);
    w.tell(p, "PUBLISH q1 #1 u x");
    assert_eq!(w.heard(p), "PUBACK #1");
}
