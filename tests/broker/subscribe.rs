//! SUBSCRIBE and SUBACK (3.8, 3.9).

use crate::harness::World;
use crate::hello::{BOTH, v5, v311};

#[test]
fn v311_mqtt_3_8_4_1_a_subscribe_is_answered_with_its_packet_identifier() {
    // MQTT-3.8.4-2 (3.1.1) MQTT-2.3.1-7 (3.1.1) MQTT-3.8.4-1 (5.0) MQTT-3.8.4-2 (5.0) MQTT-2.2.1-6 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c"));
        for id in [1, 256, 65_535] {
            w.tell(c, &format!("SUBSCRIBE #{id} a 0"));
            assert_eq!(w.heard(c), format!("SUBACK #{id} 00"));
        }
    }
}

#[test]
fn v311_mqtt_3_8_4_5_suback_has_a_code_for_each_filter_in_their_order() {
    // MQTT-3.9.3-1 (3.1.1) MQTT-3.9.3-2 (3.1.1) MQTT-3.8.4-6 (5.0) MQTT-3.8.4-7 (5.0) MQTT-3.9.3-1 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c"));
        w.tell(c, "SUBSCRIBE #1 a 2 b 0 c 1 d/# 2 a 0");
        assert_eq!(w.heard(c), "SUBACK #1 02 00 01 02 00");
    }
}

#[test]
fn v311_mqtt_3_9_3_2_a_failure_is_0x80() {
    let too_deep = "a/".repeat(201);
    let mut w = World::new();
    let c = w.client("c");
    w.tell(c, &format!("SUBSCRIBE #1 a 2 {too_deep} 1 b 0"));
    assert_eq!(w.heard(c), "SUBACK #1 02 80 00");
    assert_eq!(w.broker.subscription_count(), 2);
}

#[test]
fn filters_have_up_to_201_levels() {
    let mut w = World::new();
    let c = w.client("c");
    w.tell(c, &format!("SUBSCRIBE #1 {0}a 0 {0}a/a 0", "a/".repeat(200)));
    assert_eq!(w.heard(c), "SUBACK #1 00 80");
}

#[test]
fn v5_mqtt_3_9_3_2_a_failure_has_a_reason() {
    let too_deep = "a/".repeat(201);
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.tell(c, &format!("SUBSCRIBE #1 a 2 {too_deep} 1 b 0"));
    assert_eq!(w.heard(c), "SUBACK #1 02 8f 00");
}

#[test]
fn v311_mqtt_3_8_4_6_the_granted_qos_may_be_below_the_requested_one() {
    // MQTT-3.2.2-10 (5.0)
    for hello in BOTH {
        let mut w = World::ruled(|rules| rules.max_qos = midge::codec::QoS::AtLeastOnce);
        let c = w.join(hello("c"));
        w.tell(c, "SUBSCRIBE #1 a 0 b 1 c 2");
        assert_eq!(w.heard(c), "SUBACK #1 00 01 01");
    }
}

#[test]
fn v311_mqtt_3_8_3_2_wildcards_are_supported() {
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        w.tell(s, "SUBSCRIBE #1 a/+/c 0 x/# 0");
        assert_eq!(w.heard(s), "SUBACK #1 00 00");
        w.publish(p, "a/b/c 1");
        w.publish(p, "x/y/z 2");
        w.publish(p, "x 3");
        assert_eq!(w.heard(s), "PUBLISH a/b/c 1, PUBLISH x/y/z 2, PUBLISH x 3");
    }
}

#[test]
fn v311_mqtt_3_8_4_4_many_filters_act_like_many_subscribes_with_one_answer() {
    // MQTT-3.8.4-5 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        w.publish(p, "retain a 1");
        w.publish(p, "retain b 2");
        // The second filter equal to the first replaces it, as two packets would.
        w.tell(s, "SUBSCRIBE #1 a 1 b 0 a 0");
        assert_eq!(w.hear_one(s).unwrap(), "SUBACK #1 01 00 00");
        let heard = w.heard(s);
        assert!(heard.contains("PUBLISH retain a 1") && heard.contains("PUBLISH retain b 2"), "{heard}");
        assert_eq!(w.broker.subscription_count(), 2);
        w.publish(p, "q1 a live");
        assert_eq!(w.heard(s), "PUBLISH a live");
    }
}

#[test]
fn v311_mqtt_3_8_4_3_an_equal_filter_replaces_the_subscription() {
    // MQTT-3.8.4-3 (5.0) MQTT-3.8.4-4 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        w.publish(p, "q2 retain a/b kept");
        w.subscribe(s, "a/+ 2");
        assert_eq!(w.heard(s), "PUBLISH retain q2 #1 a/b kept");
        w.tell(s, "PUBREC #1, PUBCOMP #1");
        w.heard(s);
        w.subscribe(s, "a/+ 0");
        assert_eq!(w.heard(s), "PUBLISH retain a/b kept");
        w.publish(p, "q2 a/b once");
        assert_eq!(w.heard(s), "PUBLISH a/b once");
        w.subscribe(s, "a/+ 1");
        assert_eq!(w.heard(s), "PUBLISH retain q1 #2 a/b kept");
        w.publish(p, "q2 a/b again");
        assert_eq!(w.heard(s), "PUBLISH q1 #3 a/b again");
        assert_eq!(w.broker.subscription_count(), 1);
    }
}

#[test]
fn v311_mqtt_3_8_4_3_no_message_is_lost_while_a_subscription_is_replaced() {
    // MQTT-3.8.4-4 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 1");
        // More than the window, so that some wait in the queue while the subscription is replaced.
        let window = 20;
        for number in 0..50 {
            w.publish(p, &format!("q1 t {number}"));
            if number % 10 == 0 {
                w.subscribe(s, "t 1");
            }
        }
        let mut got = Vec::new();
        while let Some(text) = w.hear_one(s) {
            let (head, payload) = text.rsplit_once(' ').unwrap();
            let id = head.split('#').nth(1).unwrap().split(' ').next().unwrap();
            got.push(payload.parse::<u32>().unwrap());
            w.tell(s, &format!("PUBACK #{id}"));
        }
        assert!(got.len() > window && got == (0..50).collect::<Vec<_>>(), "{got:?}");
    }
}

#[test]
fn v311_mqtt_3_8_3_3_a_subscribe_without_filter_closes() {
    let mut w = World::new();
    let c = w.client("c");
    w.send_hex(c, "82 02 00 01");
    assert_eq!(w.heard(c), "closed");
}

#[test]
fn v5_mqtt_3_8_3_2_a_subscribe_without_filter_is_a_protocol_error() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.send_hex(c, "82 03 00 01 00");
    assert_eq!(w.heard(c), "DISCONNECT 82, closed");
}

#[test]
fn v311_mqtt_3_8_3_4_options_other_than_qos_0_to_2_close() {
    for options in 3..=255u8 {
        let mut w = World::new();
        let c = w.client("c");
        w.send_packet(c, 0x82, &format!("00 01 00 01 \"a\" {options:02x}"));
        assert_eq!((w.heard(c), w.broker.subscription_count()), ("closed".into(), 0), "{options:02x}");
    }
}

#[test]
fn v5_mqtt_3_8_3_5_reserved_options_are_malformed_and_bad_values_a_protocol_error() {
    for options in 0..=255u8 {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, 0x82, &format!("00 01 00 00 01 \"a\" {options:02x}"));
        let expected = match options {
            _ if options & 0xC0 != 0 => "DISCONNECT 81, closed".to_string(),
            _ if options & 3 == 3 || options & 0x30 == 0x30 => "DISCONNECT 82, closed".to_string(),
            _ => format!("SUBACK #1 {:02x}", options & 3),
        };
        assert_eq!(w.heard(c), expected, "{options:02x}");
    }
}

#[test]
fn v311_mqtt_3_8_1_1_header_flags_other_than_0010_close() {
    // MQTT-2.2.2-1 (3.1.1) MQTT-2.2.2-2 (3.1.1)
    for flags in (0..16u8).filter(|&flags| flags != 2) {
        let mut w = World::new();
        let c = w.client("c");
        w.send_packet(c, 0x80 | flags, "00 01 00 01 \"a\" 00");
        assert_eq!(w.heard(c), "closed");
    }
}

#[test]
fn v5_mqtt_3_8_1_1_header_flags_other_than_0010_are_malformed() {
    // MQTT-2.1.3-1 (5.0)
    for flags in (0..16u8).filter(|&flags| flags != 2) {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, 0x80 | flags, "00 01 00 00 01 \"a\" 00");
        assert_eq!(w.heard(c), "DISCONNECT 81, closed");
    }
}

#[test]
fn v311_mqtt_3_8_3_1_a_filter_that_is_not_utf8_closes() {
    // MQTT-4.7.3-2 (3.1.1)
    for bad in ["00 02 c0 80", "00 03 ed a0 80", "00 01 ff", "00 01 00"] {
        let mut w = World::new();
        let c = w.client("c");
        w.send_packet(c, 0x82, &format!("00 01 {bad} 00"));
        assert_eq!(w.heard(c), "closed", "{bad}");
    }
}

#[test]
fn v5_mqtt_3_8_3_1_a_filter_that_is_not_utf8_is_malformed() {
    // MQTT-4.7.3-2 (5.0)
    for bad in ["00 02 c0 80", "00 03 ed a0 80", "00 01 ff", "00 01 00"] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, 0x82, &format!("00 01 00 {bad} 00"));
        assert_eq!(w.heard(c), "DISCONNECT 81, closed", "{bad}");
    }
}

#[test]
fn v5_mqtt_3_8_3_3_no_local_keeps_a_clients_own_messages_from_it() {
    let mut w = World::new();
    let (a, b) = (w.join(v5("a")), w.join(v5("b")));
    w.subscribe(a, "t 1 nl");
    w.subscribe(b, "t 1 nl");
    w.publish(a, "q1 t x");
    assert_eq!((w.heard(a), w.heard(b)), ("".into(), "PUBLISH q1 #1 t x".into()));
    w.publish(a, "retain u y");
    w.subscribe(a, "u 0 nl");
    w.subscribe(b, "u 0 nl");
    assert_eq!((w.heard(a), w.heard(b)), ("".into(), "PUBLISH retain u y".into()));
}

#[test]
fn v5_mqtt_3_8_3_4_no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.tell(c, "SUBSCRIBE #1 $share/g/a 0 nl");
    assert_eq!(w.heard(c), "DISCONNECT 82, closed");
}

#[test]
fn v5_mqtt_3_3_4_3_messages_carry_the_subscription_identifiers_of_their_subscriptions() {
    // MQTT-3.3.4-5 (5.0)
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s")));
    w.tell(s, "SUBSCRIBE #1 a/+ 1 sid=5, SUBSCRIBE #2 a/b 0 sid=268435455, SUBSCRIBE #3 # 0");
    w.heard(s);
    w.publish(p, "q1 a/b x");
    let mut heard: Vec<String> = std::iter::from_fn(|| w.hear_one(s)).collect();
    heard.sort();
    assert_eq!(heard, ["PUBLISH a/b x", "PUBLISH a/b x sid=268435455", "PUBLISH q1 #1 a/b x sid=5"]);
}

#[test]
fn v5_mqtt_3_3_4_4_one_copy_carries_the_subscription_identifiers_of_all_its_subscriptions() {
    let mut w = World::with(|config| config.allow_duplicate_messages = false);
    let (p, s) = (w.client("p"), w.join(v5("s")));
    w.tell(s, "SUBSCRIBE #1 a/+ 1 sid=5, SUBSCRIBE #2 a/b 0 sid=9, SUBSCRIBE #3 # 0, SUBSCRIBE #4 +/b 0 sid=9");
    w.heard(s);
    w.publish(p, "q2 a/b x");
    let heard = w.heard(s);
    assert!(heard.starts_with("PUBLISH q1 #1 a/b x"), "{heard}");
    assert_eq!((heard.matches("sid=5").count(), heard.contains("sid=9"), heard.matches("PUB").count()), (1, true, 1));
}

#[test]
fn a_new_subscription_identifier_replaces_the_old_one() {
    // MQTT-3.8.4-3 (5.0)
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").stored()));
    w.tell(s, "SUBSCRIBE #1 t 1 sid=5, SUBSCRIBE #2 t 1 sid=6");
    w.heard(s);
    w.hang_up(s);
    w.publish(p, "q1 t x");
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t x sid=6");
    w.tell(s, "SUBSCRIBE #3 t 1");
    w.heard(s);
    w.publish(p, "q1 t y");
    assert_eq!(w.heard(s), "PUBLISH q1 #2 t y");
}

#[test]
fn v5_mqtt_3_3_1_12_retain_as_published_decides_on_the_retain_flag() {
    // MQTT-3.3.1-13 (5.0)
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s")));
    w.subscribe(s, "a 0 b 0 rap");
    for words in ["retain a 1", "a 2", "retain b 3", "b 4"] {
        w.publish(p, words);
    }
    assert_eq!(w.heard(s), "PUBLISH a 1, PUBLISH a 2, PUBLISH retain b 3, PUBLISH b 4");
}

#[test]
fn packets_only_servers_send_close() {
    for (first, body) in [(0x20, "00 00"), (0x90, "00 01 00"), (0xB0, "00 01"), (0xD0, ""), (0x00, "")] {
        for hello in BOTH {
            let mut w = World::new();
            let c = w.join(hello("c"));
            w.send_packet(c, first, body);
            assert!(w.heard(c).ends_with("closed") && !w.is_open(c), "{first:02x}");
        }
    }
}

#[test]
fn v311_mqtt_4_8_0_1_a_protocol_violation_ends_only_the_connection_it_came_on() {
    // MQTT-4.13.1-1 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (bad, p, s) = (w.join(hello("bad")), w.join(hello("p")), w.join(v311("s")));
        w.subscribe(s, "t 1");
        w.send_hex(bad, "90 03 00 01 00");
        assert!(!w.is_open(bad));
        w.publish(p, "q1 t x");
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t x");
    }
}
