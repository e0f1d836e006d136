//! Delivery protocols (4.3): who acknowledges what, and how often a message arrives.

use crate::harness::{Client, World};
use crate::hello::{BOTH, Hello, v5, v311};

/// A world with a publisher and one stored subscriber to `t` at QoS 2.
fn world(hello: fn(&str) -> Hello) -> (World, Client, Client) {
    let mut w = World::new();
    let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
    w.subscribe(s, "t 2");
    (w, p, s)
}

#[test]
fn v311_mqtt_4_3_1_1_qos_0_goes_out_once_and_is_not_answered() {
    // MQTT-4.3.1-1 (5.0)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        w.publish(p, "t x");
        w.advance_s(3600);
        assert_eq!(w.heard(s), "PUBLISH t x");
        assert_eq!(w.heard(p), "");
    }
}

#[test]
fn v311_mqtt_4_3_2_1_a_qos_1_message_is_open_until_its_puback() {
    // MQTT-4.3.2-1 (5.0) MQTT-4.3.2-2 (5.0) MQTT-4.3.2-3 (5.0)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        w.publish(p, "q1 t one");
        w.publish(p, "q1 t two");
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t one, PUBLISH q1 #2 t two");
        w.tell(s, "PUBACK #1");
        w.hang_up(s);
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "PUBLISH dup q1 #2 t two");
        w.tell(s, "PUBACK #2");
        w.hang_up(s);
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn v311_mqtt_4_3_3_1_a_qos_2_message_goes_through_pubrec_pubrel_pubcomp() {
    // MQTT-4.3.3-1 (5.0) MQTT-4.3.3-2 (5.0) MQTT-4.3.3-4 (5.0)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        w.publish(p, "q2 t one");
        w.publish(p, "q2 t two");
        assert_eq!(w.heard(s), "PUBLISH q2 #1 t one, PUBLISH q2 #2 t two");
        w.tell(s, "PUBREC #1");
        assert_eq!(w.heard(s), "PUBREL #1");
        w.tell(s, "PUBREC #2");
        assert_eq!(w.heard(s), "PUBREL #2");
        w.tell(s, "PUBCOMP #1, PUBCOMP #2");
        w.hang_up(s);
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn v311_mqtt_4_3_3_1_after_pubrel_the_publish_is_never_sent_again() {
    // MQTT-4.3.3-3 (5.0) MQTT-4.3.3-5 (5.0) MQTT-4.3.3-6 (5.0)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        w.publish(p, "q2 t one");
        w.publish(p, "q2 t two");
        w.heard(s);
        w.tell(s, "PUBREC #1");
        assert_eq!(w.heard(s), "PUBREL #1");
        for _ in 0..3 {
            let s = w.join(hello("s").stored());
            assert_eq!(w.heard(s), "PUBREL #1, PUBLISH dup q2 #2 t two");
        }
        let s = w.join(hello("s").stored());
        w.heard(s);
        w.tell(s, "PUBCOMP #1, PUBREC #2, PUBCOMP #2");
        assert_eq!(w.heard(s), "PUBREL #2");
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn v311_mqtt_4_3_3_2_a_repeated_qos_2_publish_is_acknowledged_and_not_delivered_again() {
    // MQTT-4.3.3-10 (5.0)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        w.tell(p, "PUBLISH q2 #5 t x");
        w.tell(p, "PUBLISH dup q2 #5 t x, PUBLISH q2 #5 t x");
        assert_eq!(w.heard(p), "PUBREC #5, PUBREC #5, PUBREC #5");
        assert_eq!(w.heard(s), "PUBLISH q2 #1 t x");
    }
}

#[test]
fn v311_mqtt_4_3_3_2_a_qos_2_publish_is_known_again_after_a_reconnect() {
    // MQTT-4.3.3-10 (5.0)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        w.hang_up(p);
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBLISH q2 #5 t x");
        w.hang_up(p);
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBLISH dup q2 #5 t x, PUBREL #5");
        assert_eq!(w.heard(p), "PUBREC #5, PUBCOMP #5");
        assert_eq!(w.heard(s), "PUBLISH q2 #1 t x");
    }
}

#[test]
fn v311_mqtt_4_3_3_2_after_pubcomp_the_identifier_means_a_new_message() {
    // MQTT-4.3.3-11 (5.0) MQTT-4.3.3-12 (5.0)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        for payload in ["one", "two"] {
            w.tell(p, &format!("PUBLISH q2 #5 t {payload}"));
            w.tell(p, "PUBREL #5");
            assert_eq!(w.heard(p), "PUBREC #5, PUBCOMP #5");
        }
        assert_eq!(w.heard(s), "PUBLISH q2 #1 t one, PUBLISH q2 #2 t two");
    }
}

#[test]
fn v311_mqtt_4_3_3_2_an_unknown_pubrel_is_completed_too() {
    let (mut w, p, _) = world(v311);
    w.tell(p, "PUBREL #9");
    assert_eq!(w.heard(p), "PUBCOMP #9");
}

#[test]
fn v5_mqtt_4_3_3_11_an_unknown_pubrel_is_completed_with_0x92() {
    // MQTT-3.7.2-1 (5.0)
    let (mut w, p, _) = world(v5);
    w.tell(p, "PUBREL #9");
    assert_eq!(w.heard(p), "PUBCOMP #9 92");
}

#[test]
fn v5_mqtt_4_3_3_9_after_a_refusing_pubrec_the_identifier_means_a_new_message() {
    let (mut w, p, s) = world(v5);
    w.tell(p, "PUBLISH q2 #5 $SYS/x no");
    assert_eq!(w.heard(p), "PUBREC #5 87");
    w.tell(p, "PUBLISH q2 #5 t yes");
    assert_eq!((w.heard(p), w.heard(s)), ("PUBREC #5".into(), "PUBLISH q2 #1 t yes".into()));
}

#[test]
fn v5_mqtt_4_4_0_2_a_refusal_settles_the_message() {
    // MQTT-4.3.3-4 (5.0)
    let (mut w, p, s) = world(v5);
    w.publish(p, "q1 t one");
    w.publish(p, "q2 t two");
    w.heard(s);
    w.tell(s, "PUBACK #1 80, PUBREC #2 97");
    assert_eq!(w.heard(s), "");
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s), "");
}

#[test]
fn v311_mqtt_2_3_1_4_an_identifier_is_free_only_after_its_acknowledgement() {
    // MQTT-2.2.1-4 (5.0)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        w.publish(p, "q2 t held");
        assert_eq!(w.heard(s), "PUBLISH q2 #1 t held");
        let mut expected = 2;
        // 19 at a time are what the window leaves; 65,534 = 19 * 3449 + 3.
        for round in 0..3450 {
            let count = if round < 3449 { 19 } else { 3 };
            w.tell(p, &vec!["PUBLISH q1 #1 t x"; count].join(", "));
            let ids = w.heard_bytes(s).into_iter().map(|frame| u32::from_be_bytes([0, 0, frame[5], frame[6]]));
            let ids: Vec<u32> = ids.collect();
            assert_eq!(ids, (expected..expected + count as u32).collect::<Vec<_>>());
            expected += count as u32;
            w.tell(s, &ids.iter().map(|id| format!("PUBACK #{id}")).collect::<Vec<_>>().join(", "));
        }
        assert_eq!(expected, 65_536);
        w.heard_bytes(p);
        w.publish(p, "q1 t next");
        assert_eq!(w.heard(s), "", "no identifier is free");
        w.tell(s, "PUBREC #1");
        assert_eq!(w.heard(s), "PUBREL #1");
        w.tell(s, "PUBCOMP #1");
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t next");
    }
}

#[test]
fn v311_mqtt_4_4_0_1_open_exchanges_are_sent_again_on_reconnect_with_their_identifiers() {
    // MQTT-4.4.0-1 (5.0) MQTT-3.3.1-1 (3.1.1) MQTT-3.3.1-1 (5.0) MQTT-4.6.0-1 (3.1.1)
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        for words in ["q1 t one", "q2 t two", "q1 t three", "q2 t four"] {
            w.publish(p, words);
        }
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t one, PUBLISH q2 #2 t two, PUBLISH q1 #3 t three, PUBLISH q2 #4 t four");
        w.tell(s, "PUBREC #2");
        w.hang_up(s);
        w.publish(p, "q1 t five");
        let s = w.join(hello("s").stored());
        assert_eq!(
            w.heard(s),
            "PUBLISH dup q1 #1 t one, PUBREL #2, PUBLISH dup q1 #3 t three, PUBLISH dup q2 #4 t four, PUBLISH q1 #5 t five"
        );
    }
}

#[test]
fn v311_mqtt_4_4_0_1_the_clients_own_repeats_are_taken_up_after_a_reconnect() {
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        w.hang_up(p);
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBLISH q2 #5 t x");
        w.hang_up(p);
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBREL #5");
        assert_eq!(w.heard(p), "PUBCOMP #5");
        assert_eq!(w.heard(s), "PUBLISH q2 #1 t x");
    }
}

#[test]
fn v311_mqtt_4_6_0_4_pubrels_go_out_in_the_order_of_the_pubrecs() {
    for hello in BOTH {
        let (mut w, p, s) = world(hello);
        (0..4).for_each(|number| w.publish(p, &format!("q2 t {number}")));
        w.heard(s);
        w.tell(s, "PUBREC #1, PUBREC #2, PUBREC #3, PUBREC #4");
        assert_eq!(w.heard(s), "PUBREL #1, PUBREL #2, PUBREL #3, PUBREL #4");
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "PUBREL #1, PUBREL #2, PUBREL #3, PUBREL #4");
    }
}

#[test]
fn v311_mqtt_4_5_0_1_an_accepted_message_reaches_every_matching_session() {
    // MQTT-4.5.0-1 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let p = w.join(hello("p"));
        let (online, offline, other) =
            (w.join(hello("on")), w.join(hello("off").stored()), w.join(hello("other").stored()));
        w.subscribe(online, "a/# 1");
        w.subscribe(offline, "+/b 2");
        w.subscribe(other, "c 2");
        w.subscribe(p, "a/b 0");
        w.hang_up(offline);
        w.publish(p, "q2 a/b x");
        assert_eq!(w.heard(online), "PUBLISH q1 #1 a/b x");
        assert_eq!(w.heard(p), "PUBLISH a/b x");
        assert_eq!(w.heard(other), "");
        let offline = w.join(hello("off").stored());
        assert_eq!(w.heard(offline), "PUBLISH q2 #1 a/b x");
    }
}

#[test]
fn v311_mqtt_3_8_4_6_delivery_is_at_the_lower_of_published_and_granted_qos() {
    // MQTT-3.8.4-8 (5.0)
    for hello in BOTH {
        for granted in 0..3 {
            for published in 0..3 {
                let mut w = World::new();
                let (p, s) = (w.join(hello("p")), w.join(hello("s")));
                w.subscribe(s, &format!("t {granted}"));
                w.publish(p, &format!("q{published} t x"));
                let expected = ["PUBLISH t x", "PUBLISH q1 #1 t x", "PUBLISH q2 #1 t x"];
                assert_eq!(w.heard(s), expected[granted.min(published)]);
            }
        }
    }
}

#[test]
fn upgraded_qos_is_the_subscriptions() {
    let mut w = World::with(|config| config.upgrade_outgoing_qos = true);
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 1");
    w.publish(p, "t x");
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t x");
}
