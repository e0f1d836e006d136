//! Sending again on a live connection: for 3.1 and 3.1.1 after an interval that doubles, never for 5.0.

use crate::harness::{Client, World};
use crate::hello::{BOTH, Hello, v5, v31, v311};

/// A subscriber that got `count` messages of QoS 1 or 2 and is silent.
fn world(hello: fn(&str) -> Hello, words: &[&str]) -> (World, Client) {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(hello("s").stored()));
    w.subscribe(s, "t 2");
    words.iter().for_each(|words| w.publish(p, words));
    w.heard(s);
    (w, s)
}

#[test]
fn an_unacknowledged_message_is_sent_again_after_the_interval_with_dup() {
    // MQTT-3.3.1-1 (3.1.1) MQTT-2.3.1-4 (3.1.1)
    for hello in [v31, v311] {
        let (mut w, s) = world(hello, &["q1 t x"]);
        w.advance_s(19);
        assert_eq!(w.heard(s), "");
        w.advance_s(2);
        assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t x");
        assert_eq!(w.broker.stats().retransmissions, 1);
        w.tell(s, "PUBACK #1");
        w.advance_s(10_000);
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn the_oldest_is_sent_again_first() {
    let (mut w, s) = world(v311, &["q1 t one", "q2 t two", "q1 t three", "q2 t four"]);
    w.tell(s, "PUBREC #2");
    assert_eq!(w.heard(s), "PUBREL #2");
    w.advance_s(21);
    assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t one, PUBREL #2, PUBLISH dup q1 #3 t three, PUBLISH dup q2 #4 t four");
}

#[test]
fn the_interval_doubles_up_to_64_times_and_begins_anew_after_an_acknowledgement() {
    let (mut w, s) = world(v311, &["q1 t one", "q1 t two"]);
    // Seconds until something comes.
    let waited = |w: &mut World| {
        let came = |w: &mut World| {
            w.advance_s(1);
            !w.heard(s).is_empty()
        };
        (1..2000).find(|_| came(w)).expect("nothing is sent again")
    };
    for expected in [20, 40, 80, 160, 320, 640, 1280, 1280, 1280] {
        let waited = waited(&mut w);
        assert!((expected..=expected + 21).contains(&waited), "{waited} s instead of {expected} s");
    }
    w.tell(s, "PUBACK #1");
    let waited = waited(&mut w);
    assert!(waited <= 41, "{waited} s");
}

#[test]
fn v5_mqtt_4_4_0_1_nothing_is_sent_again_on_a_live_connection() {
    let (mut w, s) = world(v5, &["q1 t one", "q2 t two"]);
    w.tell(s, "PUBREC #2");
    assert_eq!(w.heard(s), "PUBREL #2");
    w.advance_s(1_000_000);
    assert_eq!((w.heard(s), w.broker.stats().retransmissions), ("".into(), 0));
}

#[test]
fn interval_0_switches_it_off() {
    let mut w = World::with(|config| config.retry_interval_s = 0);
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 1");
    w.publish(p, "q1 t x");
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t x");
    w.advance_s(1_000_000);
    assert_eq!(w.heard(s), "");
}

#[test]
fn nothing_is_sent_again_while_output_is_unsent() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 1");
    w.takes(s, 5);
    w.publish(p, "q1 t one");
    w.takes(s, 0);
    for _ in 0..100 {
        w.advance_s(60);
    }
    let unsent = w.broker.output(w.link(s)).len();
    assert_eq!((unsent, w.broker.stats().retransmissions), (5, 0));
    w.takes(s, usize::MAX);
    w.turn();
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t one");
    w.advance_s(21);
    assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t one");
}

#[test]
fn only_what_is_due_is_sent_again() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 1");
    w.publish(p, "q1 t old");
    w.advance_s(15);
    w.publish(p, "q1 t young");
    w.heard(s);
    w.advance_s(6);
    assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t old");
}

#[test]
fn a_repeat_is_not_delivered_twice_by_the_exactly_once_exchange() {
    let (mut w, s) = world(v311, &["q2 t x"]);
    w.advance_s(21);
    assert_eq!(w.heard(s), "PUBLISH dup q2 #1 t x");
    // Both PUBRECs arrive, the first one late.
    w.tell(s, "PUBREC #1, PUBREC #1");
    assert_eq!(w.heard(s), "PUBREL #1, PUBREL #1");
    w.advance_s(45);
    assert_eq!(w.heard(s), "PUBREL #1");
    w.tell(s, "PUBCOMP #1, PUBCOMP #1");
    w.advance_s(1000);
    assert_eq!(w.heard(s), "");
}

#[test]
fn offline_sessions_are_not_sent_to() {
    for hello in BOTH {
        let (mut w, s) = world(hello, &["q1 t x"]);
        w.hang_up(s);
        w.advance_s(1000);
        assert_eq!(w.broker.stats().retransmissions, 0);
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t x");
    }
}

#[test]
fn a_reconnected_client_gets_its_repeats_on_a_fresh_schedule() {
    let (mut w, s) = world(v311, &["q1 t x"]);
    w.advance_s(200);
    w.heard(s);
    w.hang_up(s);
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t x");
    w.advance_s(19);
    assert_eq!(w.heard(s), "");
    w.advance_s(2);
    assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t x");
}
