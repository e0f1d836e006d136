//! Retained messages (3.3.1.3).

use crate::harness::World;
use crate::hello::{BOTH, v5, v311};

#[test]
fn v311_mqtt_3_3_1_5_a_retained_message_is_kept_with_its_qos() {
    // MQTT-3.3.1-6 (3.1.1) MQTT-3.3.1-8 (3.1.1) MQTT-3.3.1-5 (5.0) MQTT-3.3.1-9 (5.0)
    for hello in BOTH {
        for qos in 0..3 {
            let mut w = World::new();
            let p = w.join(hello("p"));
            w.publish(p, &format!("q{qos} retain t old"));
            w.publish(p, &format!("q{qos} retain t new"));
            let s = w.join(hello("s"));
            w.subscribe(s, "t 2");
            let expected = ["PUBLISH retain t new", "PUBLISH retain q1 #1 t new", "PUBLISH retain q2 #1 t new"];
            assert_eq!(w.heard(s), expected[qos]);
        }
    }
}

#[test]
fn v311_mqtt_3_3_1_6_a_new_subscription_gets_the_retained_message_of_every_matching_topic() {
    // MQTT-3.3.1-9 (5.0)
    let topics = ["a", "a/b", "a/b/c", "b", "/a", "$x", "$x/y", "c/b"];
    for hello in BOTH {
        for filter in ["#", "a/#", "+/b", "a/b", "+", "/+", "$x/#", "+/+/c", "none", "$x"] {
            let mut w = World::new();
            let (p, s) = (w.join(hello("p")), w.join(hello("s")));
            topics.iter().for_each(|topic| w.publish(p, &format!("retain {topic} {topic}!")));
            w.subscribe(s, &format!("{filter} 0"));
            let mut heard: Vec<String> = std::iter::from_fn(|| w.hear_one(s)).collect();
            heard.sort();
            let matching = topics.iter().filter(|topic| midge::topic::matches(filter, topic));
            let mut expected: Vec<String> = matching.map(|topic| format!("PUBLISH retain {topic} {topic}!")).collect();
            expected.sort();
            assert_eq!(heard, expected, "{filter}");
        }
    }
}

#[test]
fn v311_mqtt_3_3_1_9_an_existing_subscription_gets_it_without_the_flag() {
    // MQTT-3.3.1-12 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 1");
        w.publish(p, "q1 retain t x");
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t x");
        w.tell(s, "PUBACK #1");
        w.hang_up(s);
        w.publish(p, "q1 retain t y");
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "PUBLISH q1 #2 t y");
    }
}

#[test]
fn v311_mqtt_3_3_1_7_a_retained_qos_0_message_takes_the_place_of_the_earlier_one() {
    let mut w = World::new();
    let p = w.client("p");
    w.publish(p, "q2 retain t old");
    w.publish(p, "retain t new");
    let s = w.client("s");
    w.subscribe(s, "t 2");
    assert_eq!(w.heard(s), "PUBLISH retain t new");
}

#[test]
fn v311_mqtt_3_3_1_10_an_empty_payload_is_delivered_and_deletes() {
    // MQTT-3.3.1-11 (3.1.1) MQTT-3.3.1-6 (5.0) MQTT-3.3.1-7 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        w.publish(p, "q1 retain t x");
        w.subscribe(s, "t 1");
        assert_eq!(w.heard(s), "PUBLISH retain q1 #1 t x");
        w.publish(p, "q1 retain t");
        assert_eq!(w.heard(s), "PUBLISH q1 #2 t");
        assert_eq!((w.broker.retained_count(), w.broker.retained_bytes()), (0, 0));
        let late = w.join(hello("late"));
        w.subscribe(late, "t 1");
        assert_eq!(w.heard(late), "");
        w.publish(p, "retain never-there");
        assert_eq!(w.broker.retained_count(), 0);
    }
}

#[test]
fn v311_mqtt_3_3_1_12_a_publish_without_retain_leaves_the_retained_message() {
    // MQTT-3.3.1-8 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let p = w.join(hello("p"));
        w.publish(p, "t nothing");
        assert_eq!(w.broker.retained_count(), 0);
        w.publish(p, "retain t kept");
        w.publish(p, "t other");
        w.publish(p, "t");
        let s = w.join(hello("s"));
        w.subscribe(s, "t 0");
        assert_eq!(w.heard(s), "PUBLISH retain t kept");
    }
}

#[test]
fn v311_mqtt_3_1_2_7_retained_messages_are_not_part_of_a_session() {
    for hello in BOTH {
        let mut w = World::new();
        let p = w.join(hello("p"));
        w.publish(p, "retain t x");
        w.tell(p, "DISCONNECT");
        let p = w.join(hello("p").stored());
        w.publish(p, "retain u y");
        w.hang_up(p);
        w.join(hello("p"));
        assert_eq!(w.broker.retained_count(), 2);
        let s = w.join(hello("s"));
        w.subscribe(s, "# 0");
        assert_eq!(w.heard(s), "PUBLISH retain t x, PUBLISH retain u y");
    }
}

#[test]
fn v5_mqtt_3_3_1_10_retain_handling_1_sends_to_new_subscriptions_only() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").stored()));
    w.publish(p, "retain t x");
    w.subscribe(s, "t 0 rh1");
    assert_eq!(w.heard(s), "PUBLISH retain t x");
    w.subscribe(s, "t 1 rh1");
    assert_eq!(w.heard(s), "");
    w.hang_up(s);
    let s = w.join(v5("s").stored());
    w.subscribe(s, "t 0 rh1");
    assert_eq!(w.heard(s), "");
    w.tell(s, "UNSUBSCRIBE #9 t");
    w.heard(s);
    w.subscribe(s, "t 0 rh1");
    assert_eq!(w.heard(s), "PUBLISH retain t x");
}

#[test]
fn v5_mqtt_3_3_1_11_retain_handling_2_sends_nothing() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s")));
    w.publish(p, "retain t x");
    w.subscribe(s, "t 0 rh2");
    w.subscribe(s, "t 0 rh2");
    assert_eq!(w.heard(s), "");
    w.publish(p, "t y");
    assert_eq!(w.heard(s), "PUBLISH t y");
}

#[test]
fn v5_mqtt_3_3_1_9_retain_handling_0_sends_at_every_subscribe_but_not_to_shares() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s")));
    w.publish(p, "retain t x");
    w.subscribe(s, "t 0");
    w.subscribe(s, "t 0");
    assert_eq!(w.heard(s), "PUBLISH retain t x, PUBLISH retain t x");
    w.subscribe(s, "$share/g/t 0");
    assert_eq!(w.heard(s), "");
}

#[test]
fn suback_comes_before_the_retained_messages() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    (0..100).for_each(|number| w.publish(p, &format!("retain r/{number} x")));
    w.tell(s, "SUBSCRIBE #1 r/# 0");
    let heard = w.heard(s);
    assert!(heard.starts_with("SUBACK #1 00, PUBLISH retain r/"), "{heard}");
    assert_eq!(heard.matches("PUBLISH").count(), 100);
}

#[test]
fn retained_messages_that_do_not_fit_the_window_follow_the_acknowledgements() {
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.join(hello("s")));
        (0..100).for_each(|number| w.publish(p, &format!("q1 retain r/{number:03} x")));
        w.subscribe(s, "r/# 1");
        assert_eq!(w.heard(s).matches("PUBLISH").count(), 20);
        w.acknowledges(s);
        (1..=20).for_each(|id| w.tell(s, &format!("PUBACK #{id}")));
        assert_eq!(w.heard(s).matches("PUBLISH retain q1").count(), 80);
    }
}

#[test]
fn v5_mqtt_3_3_2_5_a_retained_message_is_gone_when_it_expires() {
    // MQTT-3.3.2-6 (5.0)
    let mut w = World::new();
    let (p, s, old) = (w.join(v5("p")), w.join(v5("s")), w.client("old"));
    w.publish(p, "retain t x expiry=10");
    w.advance_s(4);
    w.subscribe(s, "t 0");
    w.subscribe(old, "t 0");
    assert_eq!((w.heard(s), w.heard(old)), ("PUBLISH retain t x expiry=6".into(), "PUBLISH retain t x".into()));
    w.advance_s(5);
    assert_eq!(w.broker.retained_count(), 1);
    w.advance_s(2);
    assert_eq!(w.broker.retained_count(), 0);
    w.subscribe(s, "t 0");
    assert_eq!(w.heard(s), "");
}

#[test]
fn retained_messages_of_0_1_and_5_000_000_bytes_come_back() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.publish(p, "retain small x");
    w.publish(p, "retain large y*5000000");
    w.subscribe(s, "# 0");
    assert_eq!(w.heard(s), "PUBLISH retain large y*5000000, PUBLISH retain small x");
}

#[test]
fn v311_mqtt_3_3_1_8_the_same_message_is_retained_for_one_and_live_for_another() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 0");
    w.publish(p, "retain t x");
    assert_eq!(w.heard(s), "PUBLISH t x");
    w.subscribe(s, "+ 0");
    assert_eq!(w.heard(s), "PUBLISH retain t x");
    let other = w.join(v311("other"));
    w.subscribe(other, "t 0");
    assert_eq!(w.heard(other), "PUBLISH retain t x");
}

#[test]
fn an_expired_retained_message_goes_though_nobody_touches_it() {
    // What Mosquitto sweeps for every retain_expiry_interval.
    let mut w = World::new();
    let p = w.join(v5("p"));
    w.publish(p, "retain a x expiry=10");
    w.publish(p, "retain b x expiry=20");
    w.advance_s(11);
    assert_eq!(w.broker.retained_count(), 1);
    w.advance_s(10);
    assert_eq!((w.broker.retained_count(), w.broker.retained_bytes()), (0, 0));
}
