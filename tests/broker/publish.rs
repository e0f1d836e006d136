//! PUBLISH and its acknowledgements' formats (3.3 to 3.7): what is forwarded, and what closes the connection.

use midge::codec::QoS;

use crate::harness::{World, log_count, packet};
use crate::hello::{BOTH, EVERY, v5, v311};

#[test]
fn v311_mqtt_3_3_4_1_a_publish_is_answered_by_its_qos() {
    let mut w = World::new();
    let c = w.client("c");
    w.tell(c, "PUBLISH t x");
    assert_eq!(w.heard(c), "");
    w.tell(c, "PUBLISH q1 #7 t x");
    assert_eq!(w.heard(c), "PUBACK #7");
    w.tell(c, "PUBLISH q2 #8 t x");
    assert_eq!(w.heard(c), "PUBREC #8");
}

#[test]
fn v5_mqtt_3_3_4_1_a_publish_is_answered_by_its_qos() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.tell(c, "PUBLISH t x");
    assert_eq!(w.heard(c), "");
    w.tell(c, "PUBLISH q1 #7 t x");
    assert_eq!(w.heard(c), "PUBACK #7 10");
    w.tell(c, "PUBLISH q2 #8 t x");
    assert_eq!(w.heard(c), "PUBREC #8 10");
    w.subscribe(c, "t 0");
    w.tell(c, "PUBLISH q1 #9 t x");
    assert_eq!(w.heard(c), "PUBLISH t x, PUBACK #9");
}

#[test]
fn v311_mqtt_2_3_1_6_acknowledgements_repeat_the_packet_identifier() {
    // MQTT-2.2.1-5 (5.0) MQTT-4.3.2-4 (5.0) MQTT-4.3.3-8 (5.0)
    for hello in EVERY {
        let mut w = World::new();
        let c = w.join(hello("c"));
        w.subscribe(c, "t 0");
        for id in [1, 255, 256, 65_535] {
            w.tell(c, &format!("PUBLISH q1 #{id} t x"));
            assert_eq!(w.heard(c), format!("PUBLISH t x, PUBACK #{id}"));
            w.tell(c, &format!("PUBLISH q2 #{id} t x"));
            assert_eq!(w.heard(c), format!("PUBLISH t x, PUBREC #{id}"));
            w.tell(c, &format!("PUBREL #{id}"));
            assert_eq!(w.heard(c), format!("PUBCOMP #{id}"));
        }
    }
}

#[test]
fn v311_mqtt_2_3_1_1_packet_identifier_0_closes() {
    for (first, body) in [
        (0x32, "00 01 \"t\" 00 00"),
        (0x34, "00 01 \"t\" 00 00"),
        (0x82, "00 00 00 01 \"t\" 00"),
        (0xA2, "00 00 00 01 \"t\""),
    ] {
        let mut w = World::new();
        let c = w.client("c");
        w.send_packet(c, first, body);
        assert_eq!(w.heard(c), "closed", "{first:02x}");
    }
}

#[test]
fn v311_mqtt_2_3_1_5_a_qos_0_publish_has_no_packet_identifier() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 2");
    w.send_packet(p, 0x30, "00 01 \"t\" \"xy\"");
    assert_eq!(w.heard_bytes(s), [packet(0x30, b"\0\x01txy")]);
}

#[test]
fn v5_mqtt_2_2_1_2_a_qos_0_publish_has_no_packet_identifier() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s")));
    w.subscribe(s, "t 2");
    w.send_packet(p, 0x30, "00 01 \"t\" \"xy\"");
    assert_eq!(w.heard_bytes(s), [packet(0x30, b"\0\x01t\0xy")]);
}

#[test]
fn v311_mqtt_3_3_1_3_dup_of_the_publisher_is_not_passed_on() {
    // MQTT-3.3.1-3 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        w.subscribe(s, "t 2");
        w.tell(p, "PUBLISH dup q1 #1 t one");
        w.tell(p, "PUBLISH dup q2 #2 t two");
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t one, PUBLISH q2 #2 t two");
    }
}

#[test]
fn v311_mqtt_3_3_1_2_a_qos_0_publish_never_has_dup() {
    // MQTT-3.3.1-2 (5.0) MQTT-4.3.1-1 (3.1.1) MQTT-4.3.1-1 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.join(hello("s").stored()));
        w.subscribe(s, "t 0");
        w.send_hex(p, "38 04 00 01 \"t\" \"x\"");
        w.tell(p, "PUBLISH dup q1 #1 t y");
        assert_eq!(w.heard(s), "PUBLISH t x, PUBLISH t y");
        w.advance_s(100);
        assert_eq!(w.heard(s), "");
        w.hang_up(s);
        let s = w.connect(hello("s").stored());
        assert_eq!(w.heard(s), "CONNACK 00 present");
    }
}

#[test]
fn v311_mqtt_3_3_1_4_qos_3_closes() {
    let mut w = World::new();
    let c = w.client("c");
    w.send_packet(c, 0x36, "00 01 \"t\" 00 01 \"x\"");
    assert_eq!(w.heard(c), "closed");
}

#[test]
fn v5_mqtt_3_3_1_4_qos_3_is_malformed() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.send_packet(c, 0x36, "00 01 \"t\" 00 01 00 \"x\"");
    assert_eq!(w.heard(c), "DISCONNECT 81, closed");
}

#[test]
fn v311_mqtt_3_3_2_2_wildcards_in_a_topic_name_close() {
    // MQTT-4.7.1-1 (3.1.1)
    for topic in ["#", "+", "a/+", "a/#", "a+", "a#b"] {
        let mut w = World::new();
        let (c, watcher) = (w.client("c"), w.client("watcher"));
        w.subscribe(watcher, "# 0");
        w.tell(c, &format!("PUBLISH {topic} x"));
        assert_eq!((w.heard(c), w.heard(watcher)), ("closed".into(), "".into()), "{topic}");
    }
}

#[test]
fn v5_mqtt_3_3_2_2_wildcards_in_a_topic_name_close() {
    // MQTT-4.7.0-1 (5.0)
    for topic in ["#", "+", "a/+", "a/#", "a+", "a#b"] {
        let mut w = World::new();
        let (c, watcher) = (w.join(v5("c")), w.client("watcher"));
        w.subscribe(watcher, "# 0");
        w.tell(c, &format!("PUBLISH {topic} x"));
        assert_eq!((w.heard(c), w.heard(watcher)), ("DISCONNECT 90, closed".into(), "".into()), "{topic}");
    }
}

#[test]
fn v311_mqtt_3_3_2_1_a_topic_name_that_is_not_utf8_closes() {
    // MQTT-1.5.3-1 (3.1.1) MQTT-1.5.3-2 (3.1.1) MQTT-4.7.3-2 (3.1.1)
    for bad in ["00 02 c0 80", "00 03 ed a0 80", "00 03 ed bf bf", "00 01 ff", "00 03 \"a\" 00 \"b\"", "00 05 \"a\""] {
        let mut w = World::new();
        let c = w.client("c");
        w.send_packet(c, 0x30, bad);
        assert_eq!(w.heard(c), "closed", "{bad}");
    }
}

#[test]
fn v5_mqtt_3_3_2_1_a_topic_name_that_is_not_utf8_is_malformed() {
    // MQTT-1.5.4-1 (5.0) MQTT-1.5.4-2 (5.0) MQTT-4.7.3-2 (5.0)
    for bad in ["00 02 c0 80", "00 03 ed a0 80", "00 03 ed bf bf", "00 01 ff", "00 03 \"a\" 00 \"b\"", "00 05 \"a\""] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, 0x30, &format!("{bad} 00"));
        assert_eq!(w.heard(c), "DISCONNECT 81, closed", "{bad}");
    }
}

#[test]
fn v311_mqtt_1_5_3_3_the_byte_order_mark_is_a_character_of_the_topic() {
    // MQTT-1.5.4-3 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        w.subscribe(s, "\u{FEFF}a 0");
        w.tell(p, "PUBLISH a x");
        assert_eq!(w.heard(s), "");
        w.tell(p, "PUBLISH \u{FEFF}a x");
        let heard = w.heard_bytes(s);
        assert_eq!(heard[0][2..8], *b"\0\x04\xEF\xBB\xBFa");
    }
}

#[test]
fn v311_mqtt_3_3_2_3_a_subscriber_gets_only_what_its_filters_match() {
    // MQTT-3.3.2-3 (5.0)
    let topics = ["a", "a/b", "a/b/c", "/a", "b", "a/", "A", "$a", "$a/b"];
    let filters = ["a", "a/b", "a/+", "a/#", "+/b", "+", "#", "/+", "+/", "a/+/c", "$a", "$a/#", "+/+"];
    for hello in BOTH {
        for filter in filters {
            let mut w = World::new();
            let (p, s) = (w.join(hello("p")), w.join(hello("s")));
            w.subscribe(s, &format!("{filter} 0"));
            for topic in topics {
                w.publish(p, &format!("{topic} x"));
                let expected =
                    if midge::topic::matches(filter, topic) { format!("PUBLISH {topic} x") } else { "".into() };
                assert_eq!(w.heard(s), expected, "{filter} {topic}");
            }
        }
    }
}

#[test]
fn v311_mqtt_3_3_5_1_overlapping_filters_deliver_at_the_highest_qos() {
    // MQTT-3.3.4-2 (5.0)
    for hello in BOTH {
        for duplicates in [true, false] {
            let mut w = World::with(|config| config.allow_duplicate_messages = duplicates);
            let (p, s) = (w.join(hello("p")), w.join(hello("s")));
            w.subscribe(s, "a/b 0 a/+ 2 # 1");
            w.publish(p, "q2 a/b x");
            let heard = w.heard(s);
            assert!(heard.contains("PUBLISH q2"), "{heard}");
            assert_eq!(heard.matches("PUBLISH").count(), if duplicates { 3 } else { 1 }, "{heard}");
        }
    }
}

#[test]
fn v311_mqtt_3_3_5_2_a_publish_that_is_not_allowed_is_acknowledged_as_usual_and_dropped() {
    let mut w = World::with(|config| config.sys_interval_s = 0);
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "# 0 $SYS/# 0");
    w.tell(p, "PUBLISH $SYS/x y, PUBLISH q1 #1 $SYS/x y, PUBLISH q2 #2 retain $SYS/x y, PUBREL #2, PINGREQ");
    assert_eq!(w.heard(p), "PUBACK #1, PUBREC #2, PUBCOMP #2, PINGRESP");
    assert_eq!((w.heard(s), w.broker.retained_count()), ("".into(), 0));
}

#[test]
fn a_publish_that_is_not_allowed_is_refused_in_5_0() {
    let mut w = World::new();
    let p = w.join(v5("p"));
    w.tell(p, "PUBLISH $SYS/x y, PUBLISH q1 #1 $SYS/x y, PUBLISH q2 #2 $SYS/x y, PINGREQ");
    assert_eq!(w.heard(p), "PUBACK #1 87, PUBREC #2 87, PINGRESP");
}

#[test]
fn v311_mqtt_4_3_2_2_after_puback_the_identifier_means_a_new_message() {
    // MQTT-4.3.2-5 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.client("s"));
        w.subscribe(s, "t 0");
        w.tell(p, "PUBLISH q1 #1 t one");
        w.tell(p, "PUBLISH q1 #1 t two");
        w.tell(p, "PUBLISH dup q1 #1 t three");
        assert_eq!(w.heard(p), "PUBACK #1, PUBACK #1, PUBACK #1");
        assert_eq!(w.heard(s), "PUBLISH t one, PUBLISH t two, PUBLISH t three");
    }
}

#[test]
fn payload_limits_drop_the_message_and_keep_the_connection() {
    let mut w = World::with(|config| config.message_size_limit = 10);
    let (p, p5, s) = (w.client("p"), w.join(v5("p5")), w.client("s"));
    w.subscribe(s, "# 0");
    for (client, answers) in [(p, "PUBACK #1, PUBREC #2"), (p5, "PUBACK #1 83, PUBREC #2 83")] {
        w.tell(client, "PUBLISH t x*11, PUBLISH q1 #1 t x*11, PUBLISH q2 #2 retain t x*11");
        assert_eq!(w.heard(client), answers);
        assert_eq!(w.heard(s), "");
    }
    w.tell(p, "PUBLISH t x*10");
    assert_eq!(w.heard(s), "PUBLISH t xxxxxxxxxx");
    assert_eq!(w.broker.retained_count(), 0);
}

#[test]
fn v5_mqtt_3_2_2_11_a_publish_above_maximum_qos_is_told_0x9b() {
    let mut w = World::ruled(|rules| rules.max_qos = QoS::AtLeastOnce);
    let c = w.join(v5("c"));
    w.tell(c, "PUBLISH q1 #1 t x");
    assert_eq!(w.heard(c), "PUBACK #1 10");
    w.tell(c, "PUBLISH q2 #1 t x");
    assert_eq!(w.heard(c), "DISCONNECT 9b, closed");
    let c = w.client("c");
    w.tell(c, "PUBLISH q2 #1 t x");
    assert_eq!(w.heard(c), "closed");
    assert_eq!(log_count("used disallowed feature"), 2);
}

#[test]
fn v5_mqtt_3_2_2_14_a_retained_publish_is_told_0x9a_where_nothing_is_retained() {
    let mut w = World::with(|config| config.retain_available = false);
    let c = w.join(v5("c"));
    w.tell(c, "PUBLISH retain t x");
    assert_eq!(w.heard(c), "DISCONNECT 9a, closed");
    let c = w.client("c");
    w.tell(c, "PUBLISH retain t x");
    assert_eq!((w.heard(c), w.broker.retained_count()), ("closed".into(), 0));
}

#[test]
fn v5_mqtt_3_2_2_15_a_packet_above_maximum_packet_size_is_told_0x95() {
    let mut w = World::with(|config| config.max_packet_size = 100);
    let (c, old) = (w.join(v5("c")), w.client("old"));
    w.tell(c, "PUBLISH t x*94");
    w.tell(old, "PUBLISH t x*95");
    assert!(w.is_open(c) && w.is_open(old));
    w.tell(c, "PUBLISH t x*95");
    assert_eq!(w.heard(c), "DISCONNECT 95, closed");
    // Known from the first bytes alone.
    w.send_hex(old, "30 63");
    assert_eq!(w.heard(old), "closed");
    assert_eq!(log_count("oversize packet"), 2);
}

#[test]
fn v311_mqtt_4_8_0_2_a_packet_that_is_too_much_ends_its_own_connection_alone() {
    let mut w = World::with(|config| config.max_packet_size = 100);
    let (bad, p, s) = (w.client("bad"), w.client("p"), w.client("s"));
    w.subscribe(s, "# 1");
    w.tell(bad, "PUBLISH t x*200");
    w.publish(p, "q1 t y");
    assert_eq!(w.heard(bad), "closed");
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t y");
    assert!(w.is_open(p));
}

#[test]
fn v5_mqtt_3_3_2_4_the_properties_of_a_message_reach_every_subscriber_as_they_were() {
    // MQTT-3.3.2-15 (5.0) MQTT-3.3.2-16 (5.0) MQTT-3.3.2-17 (5.0) MQTT-3.3.2-18 (5.0) MQTT-3.3.2-20 (5.0)
    let mut w = World::new();
    let (p, online, offline) = (w.join(v5("p")), w.join(v5("online")), w.join(v5("offline").stored()));
    w.subscribe(online, "t 1");
    w.subscribe(offline, "t 1");
    w.hang_up(offline);
    let properties = "format=1 type=text/x response=a/b correlation=1234 user=b:2 user=a:1 user=b:2 user=b:1";
    w.publish(p, &format!("q1 retain t x {properties}"));
    assert_eq!(w.heard(online), format!("PUBLISH q1 #1 t x {properties}"));
    let offline = w.connect(v5("offline").stored());
    assert_eq!(w.heard(offline), format!("CONNACK 00 present, PUBLISH q1 #1 t x {properties}"));
    w.subscribe(online, "+ 0");
    assert_eq!(w.heard(online), format!("PUBLISH retain t x {properties}"));
    let old = w.client("old");
    w.subscribe(old, "t 1");
    assert_eq!(w.heard(old), "PUBLISH retain q1 #1 t x");
}

#[test]
fn v5_mqtt_3_3_2_14_a_response_topic_with_wildcards_is_a_protocol_error() {
    // MQTT-4.7.0-1 (5.0)
    for topic in ["a/+", "#"] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.tell(c, &format!("PUBLISH t x response={topic}"));
        assert_eq!(w.heard(c), "DISCONNECT 82, closed");
    }
}

#[test]
fn v5_mqtt_3_3_2_13_texts_of_properties_are_utf8() {
    // MQTT-3.3.2-19 (5.0) MQTT-1.5.7-1 (5.0)
    for bad in ["08 00 01 ff", "03 00 01 ff", "26 00 01 ff 00 00", "26 00 00 00 01 ff", "08 00 01 00"] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        let len = crate::harness::unhex(bad).len();
        w.send_packet(c, 0x30, &format!("00 01 \"t\" {len:02x} {bad} \"x\""));
        assert_eq!(w.heard(c), "DISCONNECT 81, closed", "{bad}");
    }
}

#[test]
fn v5_mqtt_3_3_4_6_a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.tell(c, "PUBLISH t x sid=1");
    assert_eq!(w.heard(c), "DISCONNECT 82, closed");
}

/// A PUBLISH of QoS 1 with so many bytes of payload.
fn large_publish(topic: &str, packet_id: u16, len: usize, retain: bool) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(&packet_id.to_be_bytes());
    body.extend((0..len).map(|at| (at % 251) as u8));
    packet(if retain { 0x33 } else { 0x32 }, &body)
}

#[test]
fn large_messages_arrive_as_they_were_however_they_come() {
    for (len, piece) in [(300_000, 65_536), (262_144, 65_536), (700_000, 700_100), (300_000, 1000)] {
        let mut w = World::new();
        let (p, s, away) = (w.client("p"), w.client("s"), w.join(v311("away").stored()));
        w.subscribe(s, "# 1");
        w.subscribe(away, "# 1");
        w.hang_up(away);
        let large = large_publish("large", 1, len, true);
        let mut bytes = large.clone();
        bytes.extend(large_publish("small", 2, 10, false));
        bytes.extend(&large_publish("again", 3, len, false)[..100]);
        bytes.chunks(piece).for_each(|piece| w.send(p, piece));
        w.send(p, &large_publish("again", 3, len, false)[100..]);
        assert_eq!(w.heard(p), "PUBACK #1, PUBACK #2, PUBACK #3");
        let of = |topic, packet_id, len| large_publish(topic, packet_id, len, false);
        let expected = [of("large", 1, len), of("small", 2, 10), of("again", 3, len)];
        assert!(w.heard_bytes(s) == expected, "{len} {piece}");
        let away = w.join(v311("away").stored());
        assert!(w.heard_bytes(away) == expected, "{len} {piece}: waited for");
        let late = w.client("late");
        w.tell(late, "SUBSCRIBE #1 large 1");
        let heard = w.heard_bytes(late);
        assert!(heard.len() == 2 && heard[1] == large, "{len} {piece}: retained");
    }
}
