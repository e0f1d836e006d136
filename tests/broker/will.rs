//! The Will (3.1.2.5, 3.1.3.2): when it is published, how, and how often.

use crate::harness::{Client, World};
use crate::hello::{BOTH, v5, v311};

/// A world with somebody who gets every will at QoS 2.
fn world() -> (World, Client) {
    let mut w = World::new();
    let watcher = w.client("watcher");
    w.subscribe(watcher, "# 2");
    (w, watcher)
}

#[test]
fn v311_mqtt_3_1_2_8_every_end_but_disconnect_publishes_the_will() {
    // MQTT-3.1.2-7 (5.0) MQTT-3.1.2-8 (5.0)
    type End = fn(&mut World, Client);
    let ends: [End; 5] = [
        |w, c| w.hang_up(c),
        |w, _| w.advance_s(16),
        |w, c| w.send_hex(c, "36 00"),
        |w, c| w.send_hex(c, "00 00"),
        |w, _| {
            w.join(v311("c"));
        },
    ];
    for hello in BOTH {
        for end in ends {
            for c in [hello("c"), hello("c").stored()] {
                let (mut w, watcher) = world();
                let c = w.join(c.keep_alive(10).will("t gone"));
                assert_eq!(w.heard(watcher), "");
                end(&mut w, c);
                assert!(!w.is_open(c));
                assert_eq!(w.heard(watcher), "PUBLISH t gone");
            }
        }
    }
}

#[test]
fn v311_mqtt_3_1_2_9_the_will_has_its_qos_and_payload() {
    // MQTT-3.1.2-9 (5.0)
    for hello in BOTH {
        for (qos, expected) in ["PUBLISH t gone", "PUBLISH q1 #1 t gone", "PUBLISH q2 #1 t gone"].iter().enumerate() {
            let (mut w, watcher) = world();
            let c = w.join(hello("c").will(&format!("q{qos} t gone")));
            w.hang_up(c);
            assert_eq!(w.heard(watcher), *expected);
        }
    }
}

#[test]
fn v311_mqtt_3_1_2_10_the_will_is_published_at_most_once() {
    // MQTT-3.1.2-10 (5.0)
    for hello in BOTH {
        let (mut w, watcher) = world();
        let c = w.join(hello("c").stored().will("t gone"));
        w.hang_up(c);
        assert_eq!(w.heard(watcher), "PUBLISH t gone");
        let c = w.join(hello("c").stored());
        w.hang_up(c);
        w.advance_s(8000);
        w.join(hello("c"));
        w.broker.shut_down(w.now);
        w.turn();
        assert_eq!(w.heard(watcher), "closed");
    }
}

#[test]
fn v311_mqtt_3_1_2_12_without_will_flag_nothing_is_published() {
    for hello in BOTH {
        let (mut w, watcher) = world();
        let c = w.join(hello("c").stored().will("t old"));
        w.tell(c, "DISCONNECT");
        let c = w.join(hello("c").stored());
        w.hang_up(c);
        let c = w.join(hello("c").keep_alive(10));
        w.advance_s(20);
        assert!(!w.is_open(c));
        assert_eq!(w.heard(watcher), "");
    }
}

#[test]
fn v311_mqtt_3_1_2_16_a_will_without_retain_is_not_retained() {
    // MQTT-3.1.2-14 (5.0)
    for hello in BOTH {
        let (mut w, _) = world();
        let c = w.join(hello("c").will("t gone"));
        w.hang_up(c);
        assert_eq!(w.broker.retained_count(), 0);
        let late = w.client("late");
        w.subscribe(late, "t 0");
        assert_eq!(w.heard(late), "");
    }
}

#[test]
fn v311_mqtt_3_1_2_17_a_will_with_retain_is_retained() {
    // MQTT-3.1.2-15 (5.0)
    for hello in BOTH {
        let (mut w, watcher) = world();
        let c = w.join(hello("c").will("q1 retain t gone"));
        assert_eq!(w.broker.retained_count(), 0);
        w.hang_up(c);
        assert_eq!(w.heard(watcher), "PUBLISH q1 #1 t gone");
        let late = w.client("late");
        w.subscribe(late, "t 1");
        assert_eq!(w.heard(late), "PUBLISH retain q1 #1 t gone");
    }
}

#[test]
fn v311_mqtt_4_7_1_1_a_will_topic_with_wildcards_is_refused() {
    // MQTT-4.7.3-1 (3.1.1)
    for topic in ["''", "a/+", "#"] {
        let mut w = World::new();
        let c = w.connect(v311("c").will(&format!("{topic} x")));
        assert_eq!(w.heard(c), "closed");
    }
}

#[test]
fn v5_mqtt_4_7_0_1_a_will_topic_with_wildcards_is_refused() {
    // MQTT-4.7.3-1 (5.0)
    for topic in ["''", "a/+", "#"] {
        let mut w = World::new();
        let c = w.connect(v5("c").will(&format!("{topic} x")));
        assert_eq!(w.heard(c), "CONNACK 90, closed");
    }
}

#[test]
fn an_empty_retained_will_clears() {
    let (mut w, watcher) = world();
    let c = w.join(v311("c").will("retain state"));
    w.publish(c, "retain state online");
    assert_eq!(w.heard(watcher), "PUBLISH state online");
    w.hang_up(c);
    assert_eq!((w.heard(watcher), w.broker.retained_count()), ("PUBLISH state".into(), 0));
}

#[test]
fn v5_mqtt_3_1_2_8_the_will_waits_for_its_delay() {
    let (mut w, watcher) = world();
    let c = w.join(v5("c").stored().will("t gone will-delay=10"));
    w.hang_up(c);
    w.advance_s(9);
    assert_eq!(w.heard(watcher), "");
    w.advance_s(2);
    assert_eq!(w.heard(watcher), "PUBLISH t gone");
    w.advance_s(8000);
    assert_eq!(w.heard(watcher), "");
}

#[test]
fn v5_mqtt_3_1_2_8_the_will_does_not_outwait_the_session() {
    let (mut w, watcher) = world();
    let c = w.join(v5("c").with("session-expiry=5").will("t gone will-delay=10"));
    w.hang_up(c);
    w.advance_s(4);
    assert_eq!(w.heard(watcher), "");
    w.advance_s(2);
    assert_eq!(w.heard(watcher), "PUBLISH t gone");
    // No session expiry: the session ends with the connection.
    let c = w.join(v5("c").will("t gone will-delay=10"));
    w.hang_up(c);
    assert_eq!(w.heard(watcher), "PUBLISH t gone");
    // A new session in its place ends it, too.
    let c = w.join(v5("c").stored().will("t gone will-delay=10"));
    w.hang_up(c);
    w.join(v5("c"));
    assert_eq!(w.heard(watcher), "PUBLISH t gone");
}

#[test]
fn v5_mqtt_3_1_3_9_coming_back_in_time_keeps_the_will_from_being_sent() {
    // MQTT-3.1.2-8 (5.0)
    let (mut w, watcher) = world();
    let c = w.join(v5("c").stored().will("t gone will-delay=10"));
    w.hang_up(c);
    w.advance_s(9);
    let c = w.join(v5("c").stored());
    w.advance_s(100);
    assert_eq!(w.heard(watcher), "");
    w.hang_up(c);
    w.advance_s(100);
    assert_eq!(w.heard(watcher), "");
}

#[test]
fn v5_mqtt_3_1_3_9_a_take_over_keeps_a_delayed_will_from_being_sent() {
    let (mut w, watcher) = world();
    w.join(v5("c").stored().will("t gone will-delay=10"));
    w.join(v5("c").stored());
    w.advance_s(100);
    assert_eq!(w.heard(watcher), "");
    w.join(v5("c").stored().will("t now"));
    w.join(v5("c").stored());
    assert_eq!(w.heard(watcher), "PUBLISH t now");
}

#[test]
fn v5_mqtt_3_1_3_10_the_will_has_its_properties_in_their_order() {
    let mut w = World::new();
    let watcher = w.join(v5("watcher"));
    w.subscribe(watcher, "# 0");
    let properties = "format=1 type=x response=r correlation=c user=b:1 user=a:2 user=b:1";
    let c = w.join(v5("c").stored().will(&format!("t gone will-delay=5 expiry=60 {properties}")));
    w.hang_up(c);
    w.advance_s(10);
    assert_eq!(w.heard(watcher), format!("PUBLISH t gone expiry=60 {properties}"));
}

#[test]
fn a_retained_will_expires_counted_from_its_publication() {
    let mut w = World::new();
    let c = w.join(v5("c").stored().will("retain t gone will-delay=50 expiry=10"));
    w.hang_up(c);
    w.advance_s(55);
    assert_eq!(w.broker.retained_count(), 1);
    w.advance_s(10);
    assert_eq!(w.broker.retained_count(), 0);
}

#[test]
fn a_will_below_sys_is_not_published() {
    let (mut w, watcher) = world();
    w.subscribe(watcher, "$SYS/# 0");
    let retained_count = w.broker.retained_count();
    w.heard(watcher);
    let c = w.join(v311("c").will("retain $SYS/x gone"));
    w.hang_up(c);
    assert_eq!((w.heard(watcher), w.broker.retained_count()), ("".into(), retained_count));
}

#[test]
fn a_client_that_takes_itself_over_gets_its_old_will() {
    let mut w = World::new();
    let c = w.join(v311("c").stored().will("q1 t gone"));
    w.subscribe(c, "t 1");
    let c = w.connect(v311("c").stored());
    assert_eq!(w.heard(c), "CONNACK 00 present, PUBLISH q1 #1 t gone");
}
