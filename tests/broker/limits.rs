//! What 5.0 lets the two sides limit: topic aliases, Receive Maximum, Maximum Packet Size.

use crate::harness::{World, log_count};
use crate::hello::{v5, v311};

#[test]
fn v5_mqtt_3_3_2_12_every_alias_up_to_the_maximum_of_connack_is_taken() {
    let mut w = World::new();
    let (p, s) = (w.join(v5("p")), w.client("s"));
    w.subscribe(s, "# 0");
    for alias in 1..=10 {
        w.tell(p, &format!("PUBLISH t/{alias} x alias={alias}"));
        assert_eq!(w.heard(s), format!("PUBLISH t/{alias} x"));
    }
    for alias in (1..=10).rev() {
        w.tell(p, &format!("PUBLISH '' y alias={alias}"));
        assert_eq!(w.heard(s), format!("PUBLISH t/{alias} y"));
    }
    w.tell(p, "PUBLISH q1 #1 moved z alias=3, PUBLISH q2 #2 '' z alias=3");
    assert_eq!(w.heard(s), "PUBLISH moved z, PUBLISH moved z");
}

#[test]
fn v5_mqtt_3_3_2_9_an_alias_above_the_maximum_is_told_0x94() {
    // MQTT-3.2.2-17 (5.0)
    let mut w = World::new();
    for alias in [11, 65_535] {
        let c = w.join(v5("c"));
        w.tell(c, &format!("PUBLISH t x alias={alias}"));
        assert_eq!(w.heard(c), "DISCONNECT 94, closed");
    }
}

#[test]
fn v5_mqtt_3_2_2_18_without_a_maximum_every_alias_is_told_0x94() {
    let mut w = World::ruled(|rules| rules.max_topic_alias = 0);
    let c = w.connect(v5("c"));
    assert_eq!(w.heard_in_full(c), "CONNACK 00 receive-max=20");
    w.tell(c, "PUBLISH t x alias=1");
    assert_eq!(w.heard(c), "DISCONNECT 94, closed");
}

#[test]
fn v5_mqtt_3_3_2_8_alias_0_is_told_0x94() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.tell(c, "PUBLISH t x alias=0");
    assert_eq!(w.heard(c), "DISCONNECT 94, closed");
}

#[test]
fn v5_mqtt_3_3_2_7_aliases_end_with_the_connection() {
    let mut w = World::new();
    let (p, s) = (w.join(v5("p").stored()), w.client("s"));
    w.subscribe(s, "# 0");
    w.tell(p, "PUBLISH t x alias=1");
    w.hang_up(p);
    let p = w.join(v5("p").stored());
    w.tell(p, "PUBLISH '' y alias=1");
    assert_eq!(w.heard(p), "DISCONNECT 82, closed");
    assert_eq!(w.heard(s), "PUBLISH t x");
}

#[test]
fn v5_mqtt_3_3_2_7_the_brokers_aliases_end_with_the_connection() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").stored().with("alias-max=5")));
    w.subscribe(s, "t 1");
    (0..3).for_each(|_| w.publish(p, "q1 t x"));
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t x, PUBLISH q1 #2 t x alias=1, PUBLISH q1 #3 '' x alias=1");
    w.tell(s, "PUBACK #1, PUBACK #2");
    w.hang_up(s);
    let s = w.join(v5("s").stored().with("alias-max=5"));
    assert_eq!(w.heard(s), "PUBLISH dup q1 #3 t x");
}

#[test]
fn v5_mqtt_3_1_2_26_the_broker_uses_aliases_up_to_the_clients_maximum() {
    // MQTT-3.3.2-11 (5.0)
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").with("alias-max=2")));
    w.subscribe(s, "# 0");
    for round in 0..10 {
        (1..=5).for_each(|topic| w.publish(p, &format!("t/{topic} {round}")));
    }
    let heard = w.heard(s);
    assert!(heard.contains("'' 9 alias=1") && heard.contains("'' 9 alias=2"), "{heard}");
    assert!((3..12).all(|alias| !heard.contains(&format!("alias={alias}"))));
    for topic in 3..=5 {
        assert_eq!(heard.matches(&format!("PUBLISH t/{topic} ")).count(), 10);
    }
}

#[test]
fn v5_mqtt_3_1_2_27_without_a_maximum_the_broker_uses_no_alias() {
    let mut w = World::new();
    for with in ["", "alias-max=0"] {
        let (p, s) = (w.client("p"), w.join(v5("s").with(with)));
        w.subscribe(s, "# 0");
        (0..10).for_each(|_| w.publish(p, "t x"));
        assert_eq!(w.heard(s), ["PUBLISH t x"; 10].join(", "));
    }
}

#[test]
fn v5_mqtt_3_3_2_2_wildcards_in_a_topic_name_close_also_with_a_known_alias() {
    let mut w = World::new();
    let (p, s) = (w.join(v5("p")), w.client("s"));
    w.subscribe(s, "# 0");
    w.tell(p, "PUBLISH t x alias=1");
    assert_eq!(w.heard(s), "PUBLISH t x");
    w.tell(p, "PUBLISH a/+ y alias=1");
    assert_eq!((w.heard(p), w.heard(s)), ("DISCONNECT 90, closed".into(), "".into()));
}

#[test]
fn v5_mqtt_3_3_4_9_no_more_than_the_clients_receive_maximum_is_open() {
    // MQTT-4.9.0-1 (5.0) MQTT-4.9.0-2 (5.0)
    for maximum in [1, 3, 50] {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.join(v5("s").with(&format!("receive-max={maximum}"))));
        w.subscribe(s, "t 2");
        (0..120).for_each(|number| w.publish(p, &format!("q{} t {number}", 1 + number % 2)));
        let mut open: Vec<String> = Vec::new();
        let mut delivered = 0;
        loop {
            while let Some(text) = w.hear_one(s) {
                let words: Vec<&str> = text.split_whitespace().collect();
                match words[0] {
                    "PUBLISH" => open.push(format!("{} {}", words[1], words[2])),
                    _ => w.tell(s, &format!("PUBCOMP {}", words[1])),
                }
                assert!(open.len() <= maximum, "{open:?}");
            }
            if open.is_empty() {
                break;
            }
            assert_eq!(open.len(), maximum.min(120 - delivered));
            delivered += 1;
            match open.remove(0).split_once(' ').unwrap() {
                ("q1", id) => w.tell(s, &format!("PUBACK {id}")),
                // The quota comes back with PUBCOMP, not with PUBREC.
                (_, id) => {
                    w.tell(s, &format!("PUBREC {id}"));
                    assert_eq!(w.hear_one(s), Some(format!("PUBREL {id}")));
                    assert_eq!(w.hear_one(s), None);
                    w.tell(s, &format!("PUBCOMP {id}"));
                }
            }
        }
        assert_eq!(delivered, 120);
    }
}

#[test]
fn v5_mqtt_4_9_0_2_a_refusal_gives_the_quota_back_and_no_answer_lifts_it_above_its_start() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").with("receive-max=2")));
    w.subscribe(s, "t 2");
    w.tell(s, "PUBACK #1, PUBACK #2, PUBCOMP #3, PUBREC #4 80");
    (0..5).for_each(|number| w.publish(p, &format!("q2 t {number}")));
    assert_eq!(w.heard(s), "PUBLISH q2 #1 t 0, PUBLISH q2 #2 t 1");
    w.tell(s, "PUBREC #1 97");
    assert_eq!(w.heard(s), "PUBLISH q2 #3 t 2");
    w.tell(s, "PUBREC #1 97");
    assert_eq!(w.heard(s), "");
}

#[test]
fn v5_mqtt_3_3_4_10_at_receive_maximum_everything_but_publish_goes_on() {
    // MQTT-4.9.0-3 (5.0)
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").with("receive-max=1")));
    w.subscribe(s, "t 2 zero 0");
    (0..3).for_each(|_| w.publish(p, "q2 t x"));
    assert_eq!(w.heard(s), "PUBLISH q2 #1 t x");
    w.tell(s, "PINGREQ, SUBSCRIBE #9 u 0, UNSUBSCRIBE #10 u, PUBLISH q1 #11 v x, PUBLISH q2 #12 v x, PUBREL #12");
    assert_eq!(w.heard(s), "PINGRESP, SUBACK #9 00, UNSUBACK #10 00, PUBACK #11 10, PUBREC #12 10, PUBCOMP #12");
    w.publish(p, "zero x");
    assert_eq!(w.heard(s), "PUBLISH zero x");
    w.tell(s, "PUBREC #1");
    assert_eq!(w.heard(s), "PUBREL #1");
}

#[test]
fn v5_mqtt_4_9_0_1_the_quota_is_set_anew_on_each_connection() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").stored().with("receive-max=5")));
    w.subscribe(s, "t 1");
    (0..9).for_each(|number| w.publish(p, &format!("q1 t {number}")));
    assert_eq!(w.heard(s).matches("PUBLISH").count(), 5);
    w.hang_up(s);
    let s = w.join(v5("s").stored().with("receive-max=2"));
    assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t 0, PUBLISH dup q1 #2 t 1");
    w.tell(s, "PUBACK #1");
    assert_eq!(w.heard(s), "PUBLISH dup q1 #3 t 2");
    w.hang_up(s);
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s).matches("PUBLISH").count(), 8);
}

#[test]
fn v5_mqtt_3_3_4_7_far_more_than_receive_maximum_is_told_0x93() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    (1..=1000).for_each(|id| w.tell(c, &format!("PUBLISH q2 #{id} t x")));
    assert_eq!(w.heard(c).matches("PUBREC").count(), 1000);
    w.tell(c, "PUBLISH q2 #1001 t x");
    assert_eq!(w.heard(c), "DISCONNECT 93, closed");
    assert_eq!(log_count("receive maximum exceeded"), 1);
}

#[test]
fn v5_mqtt_3_1_2_24_nothing_larger_than_the_clients_maximum_packet_size_is_sent() {
    // MQTT-3.1.2-25 (5.0)
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").stored().with("max-packet=40 receive-max=2")));
    w.subscribe(s, "t 2");
    // 2 bytes of header, 3 of topic, 2 of packet id, 1 of properties.
    for number in 0..50 {
        w.publish(p, "q1 t x*33");
        w.publish(p, "q2 t x*5000");
        w.publish(p, "t x*1000000");
        w.publish(p, &format!("q1 t {number}"));
        assert_eq!(w.heard(s), format!("PUBLISH q1 #{} t {number}", 3 * number + 3), "no window was used up");
        w.tell(s, &format!("PUBACK #{}", 3 * number + 3));
    }
    w.publish(p, "q1 t x*32");
    assert_eq!(w.heard(s), "PUBLISH q1 #151 t x*32");
    w.tell(s, "PUBACK #151");
    w.hang_up(s);
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s), "");
}

#[test]
fn v5_mqtt_3_1_2_25_a_message_that_became_too_large_on_reconnect_counts_as_delivered() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").stored()));
    w.subscribe(s, "t 2");
    w.publish(p, "q1 t x*100");
    w.publish(p, "q2 t x*100");
    w.publish(p, "q1 t small");
    w.heard(s);
    w.hang_up(s);
    w.publish(p, "q1 t x*200");
    w.publish(p, "q1 retain t last");
    let s = w.join(v5("s").stored().with("max-packet=30"));
    let heard = w.heard(s);
    assert!(heard.starts_with("PUBLISH dup q1 #3 t small, PUBLISH q1 #") && heard.ends_with(" t last"), "{heard}");
    w.hang_up(s);
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s).matches("PUBLISH dup q1").count(), 2);
}

#[test]
fn v5_mqtt_3_1_2_24_an_alias_does_not_lift_a_packet_over_the_maximum() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").with("max-packet=30 alias-max=9")));
    w.subscribe(s, "t 0");
    for len in 15..30 {
        for _ in 0..4 {
            w.publish(p, &format!("t {}", "y".repeat(len)));
        }
    }
    let frames = w.heard_bytes(s);
    assert!(frames.len() >= 40 && frames.iter().all(|frame| frame.len() <= 30));
    // An alias takes 5 bytes at most: with the 6 of the header, 19 bytes leave room for it, and 20 do not.
    for (len, is_used) in [(19, true), (20, false)] {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.join(v5("s").with("max-packet=30 alias-max=9")));
        w.subscribe(s, "t 0");
        (0..3).for_each(|_| w.publish(p, &format!("t {}", "y".repeat(len))));
        assert_eq!(w.heard(s).contains("alias=1"), is_used, "{len}");
    }
}

#[test]
fn v5_mqtt_3_1_2_24_no_answer_is_larger_than_the_clients_maximum_packet_size() {
    // MQTT-3.14.0-1 (5.0)
    let filters: String = (0..40).map(|number| format!(" f/{number}")).collect();
    let with_qos: String = (0..40).map(|number| format!(" f/{number} 0")).collect();
    for packet in [format!("SUBSCRIBE #1{with_qos}"), format!("UNSUBSCRIBE #1{filters}")] {
        let mut w = World::new();
        let c = w.join(v5("c").with("max-packet=20"));
        w.tell(c, &packet);
        assert!(w.heard_bytes(c).iter().all(|frame| frame.len() <= 20));
    }
    for maximum in 1..12 {
        let mut w = World::new();
        let c = w.connect(v5("c").with(&format!("max-packet={maximum}")));
        // Too small for CONNACK: there is no DISCONNECT in its place.
        assert_eq!(w.heard(c), if maximum < 11 { "closed" } else { "CONNACK 00" }, "{maximum}");
    }
}

#[test]
fn v5_mqtt_1_5_5_1_padded_and_overlong_lengths_are_malformed() {
    for bad in ["c0 80 00", "30 80 80 80 80 01", "30 ff ff ff ff 7f"] {
        let mut w = World::new();
        let (c, old) = (w.join(v5("c")), w.join(v311("old")));
        w.send_hex(c, bad);
        w.send_hex(old, bad);
        assert_eq!((w.heard(c), w.heard(old)), ("DISCONNECT 81, closed".into(), "closed".into()));
    }
    // A padded Property Length, and a padded Subscription Identifier.
    for (first, body) in [(0x30, "00 01 \"t\" 80 00 \"x\""), (0x82, "00 01 03 0b 81 00 00 01 \"t\" 00")] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, first, body);
        assert_eq!(w.heard(c), "DISCONNECT 81, closed");
    }
}

#[test]
fn what_a_packet_may_not_carry_is_malformed_and_what_it_may_carry_once_a_protocol_error() {
    for (properties, answer) in [
        ("11 00 00 00 05", "DISCONNECT 81, closed"),
        ("7f 00", "DISCONNECT 81, closed"),
        ("01 00 01 00", "DISCONNECT 82, closed"),
        ("01 02", "DISCONNECT 82, closed"),
        ("03 00 05", "DISCONNECT 81, closed"),
    ] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        let len = crate::harness::unhex(properties).len();
        w.send_packet(c, 0x30, &format!("00 01 \"t\" {len:02x} {properties}"));
        assert_eq!(w.heard(c), answer, "{properties}");
    }
}

#[test]
fn v5_mqtt_3_4_2_1_acknowledgements_with_reasons_that_do_not_exist_close() {
    // MQTT-3.5.2-1 (5.0) MQTT-3.6.2-1 (5.0) MQTT-3.7.2-1 (5.0)
    for first in [0x40, 0x50, 0x62, 0x70] {
        for reason in 0..=255u8 {
            let mut w = World::new();
            let c = w.join(v5("c"));
            w.send(c, &[first, 3, 0, 1, reason]);
            let good = match first {
                0x40 | 0x50 => matches!(reason, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
                _ => matches!(reason, 0 | 0x92),
            };
            assert_eq!(w.is_open(c), good, "{first:02x} {reason:02x}");
        }
    }
}

#[test]
fn v311_mqtt_3_6_1_1_pubrel_with_header_flags_other_than_0010_closes() {
    for flags in (0..16u8).filter(|&flags| flags != 2) {
        let mut w = World::new();
        let c = w.client("c");
        w.send(c, &[0x60 | flags, 2, 0, 1]);
        assert_eq!(w.heard(c), "closed");
    }
}

#[test]
fn v5_mqtt_3_6_1_1_pubrel_with_header_flags_other_than_0010_is_malformed() {
    for flags in (0..16u8).filter(|&flags| flags != 2) {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send(c, &[0x60 | flags, 2, 0, 1]);
        assert_eq!(w.heard(c), "DISCONNECT 81, closed");
    }
}

#[test]
fn v311_mqtt_2_2_2_2_reserved_header_flags_close_for_every_packet_type() {
    // MQTT-2.1.3-1 (5.0)
    for (first, body) in [(0x40, "00 01"), (0x50, "00 01"), (0x70, "00 01"), (0xC0, ""), (0xE0, "")] {
        for flags in 1..16u8 {
            let mut w = World::new();
            let (c, c5) = (w.client("c"), w.join(v5("c5")));
            w.send_packet(c, first | flags, body);
            w.send_packet(c5, first | flags, body);
            assert_eq!((w.heard(c), w.heard(c5)), ("closed".into(), "DISCONNECT 81, closed".into()));
        }
    }
}
