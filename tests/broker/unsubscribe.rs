//! UNSUBSCRIBE and UNSUBACK (3.10, 3.11).

use crate::harness::World;
use crate::hello::{BOTH, v5, v311};

#[test]
fn v311_mqtt_3_10_4_4_an_unsubscribe_is_answered_with_its_packet_identifier() {
    // MQTT-2.3.1-7 (3.1.1)
    let mut w = World::new();
    let c = w.client("c");
    w.subscribe(c, "a 0");
    w.tell(c, "UNSUBSCRIBE #65535 a");
    assert_eq!(w.heard_bytes(c), [[0xB0, 2, 0xFF, 0xFF]]);
}

#[test]
fn v311_mqtt_3_10_4_5_an_unsubscribe_of_nothing_is_answered_too() {
    let mut w = World::new();
    let c = w.client("c");
    w.tell(c, "UNSUBSCRIBE #3 nothing");
    assert_eq!(w.heard(c), "UNSUBACK #3");
}

#[test]
fn v5_mqtt_3_10_4_5_unsuback_has_a_code_for_each_filter_in_their_order() {
    // MQTT-3.10.4-4 (5.0) MQTT-3.11.3-1 (5.0) MQTT-3.11.3-2 (5.0) MQTT-2.2.1-6 (5.0)
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.subscribe(c, "a 0 b 0");
    w.tell(c, "UNSUBSCRIBE #9 x b a/# a a");
    assert_eq!(w.heard(c), "UNSUBACK #9 11 00 11 00 11");
    w.tell(c, "UNSUBSCRIBE #10 nothing");
    assert_eq!(w.heard(c), "UNSUBACK #10 11");
}

#[test]
fn v311_mqtt_3_10_4_1_filters_are_compared_literally() {
    // MQTT-3.10.4-1 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        w.subscribe(s, "a/b 0 c/+ 0");
        w.tell(s, "UNSUBSCRIBE #1 a/+ # A/b a/b/ c/x c/#");
        w.hear_one(s);
        assert_eq!(w.broker.subscription_count(), 2);
        w.publish(p, "a/b 1");
        w.publish(p, "c/x 2");
        assert_eq!(w.heard(s), "PUBLISH a/b 1, PUBLISH c/x 2");
        w.tell(s, "UNSUBSCRIBE #2 c/+");
        w.hear_one(s);
        w.publish(p, "a/b 3");
        w.publish(p, "c/x 4");
        assert_eq!(w.heard(s), "PUBLISH a/b 3");
    }
}

#[test]
fn v311_mqtt_3_10_4_2_after_an_unsubscribe_nothing_new_comes() {
    // MQTT-3.10.4-2 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 1");
        w.tell(s, "UNSUBSCRIBE #1 t");
        w.heard(s);
        w.publish(p, "q1 t x");
        w.publish(p, "t x");
        assert_eq!(w.heard(s), "");
        w.hang_up(s);
        w.publish(p, "q1 t x");
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn v311_mqtt_3_10_4_3_deliveries_already_begun_are_carried_through() {
    // MQTT-3.10.4-3 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 2");
        w.publish(p, "q1 t one");
        w.publish(p, "q2 t two");
        w.heard(s);
        w.tell(s, "UNSUBSCRIBE #9 t");
        w.heard(s);
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t one, PUBLISH dup q2 #2 t two");
        w.tell(s, "PUBACK #1, PUBREC #2, PUBCOMP #2");
        assert_eq!(w.heard(s), "PUBREL #2");
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn v311_mqtt_3_10_4_6_many_filters_act_like_many_unsubscribes_with_one_answer() {
    let mut w = World::new();
    let c = w.client("c");
    w.subscribe(c, "a 0 b/# 0 c 0 $share/g/c 0");
    w.tell(c, "UNSUBSCRIBE #1 a b/# x $share/g/c");
    assert_eq!((w.heard(c), w.broker.subscription_count()), ("UNSUBACK #1".into(), 1));
}

#[test]
fn v5_mqtt_3_10_4_6_many_filters_act_like_many_unsubscribes_with_one_answer() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.subscribe(c, "a 0 b/# 0 c 0 $share/g/c 0");
    w.tell(c, "UNSUBSCRIBE #1 a b/# x $share/g/c");
    assert_eq!((w.heard(c), w.broker.subscription_count()), ("UNSUBACK #1 00 00 11 00".into(), 1));
}

#[test]
fn v311_mqtt_3_10_3_2_an_unsubscribe_without_filter_closes() {
    let mut w = World::new();
    let c = w.client("c");
    w.send_hex(c, "a2 02 00 01");
    assert_eq!(w.heard(c), "closed");
}

#[test]
fn v5_mqtt_3_10_3_2_an_unsubscribe_without_filter_is_a_protocol_error() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.send_hex(c, "a2 03 00 01 00");
    assert_eq!(w.heard(c), "DISCONNECT 82, closed");
}

#[test]
fn v311_mqtt_3_10_3_1_filters_stand_one_after_another_and_are_utf8() {
    let mut w = World::new();
    let c = w.client("c");
    w.subscribe(c, "a 0 b 0 c 0");
    w.send_packet(c, 0xA2, "00 01 00 01 \"a\" 00 01 \"c\"");
    assert_eq!((w.heard(c), w.broker.subscription_count()), ("UNSUBACK #1".into(), 1));
    for bad in ["00 02 c0 80", "00 03 ed a0 80", "00 01 00", "00 01 \"b\" 00", "00 02 \"b\""] {
        let c = w.client("c");
        w.send_packet(c, 0xA2, &format!("00 01 {bad}"));
        assert_eq!(w.heard(c), "closed", "{bad}");
    }
}

#[test]
fn v5_mqtt_3_10_3_1_filters_are_utf8() {
    for bad in ["00 02 c0 80", "00 03 ed a0 80", "00 01 00", "00 01 \"b\" 00", "00 02 \"b\""] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, 0xA2, &format!("00 01 00 {bad}"));
        assert_eq!(w.heard(c), "DISCONNECT 81, closed", "{bad}");
    }
}

#[test]
fn v311_mqtt_3_10_1_1_header_flags_other_than_0010_close() {
    for flags in (0..16u8).filter(|&flags| flags != 2) {
        let mut w = World::new();
        let c = w.client("c");
        w.send_packet(c, 0xA0 | flags, "00 01 00 01 \"a\"");
        assert_eq!(w.heard(c), "closed");
    }
}

#[test]
fn v5_mqtt_3_10_1_1_header_flags_other_than_0010_are_malformed() {
    for flags in (0..16u8).filter(|&flags| flags != 2) {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, 0xA0 | flags, "00 01 00 00 01 \"a\"");
        assert_eq!(w.heard(c), "DISCONNECT 81, closed");
    }
}

#[test]
fn an_unsubscribe_ends_the_retained_messages_still_owed() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v311("s")));
    (0..100).for_each(|number| w.publish(p, &format!("retain r/{number:03} x*4000")));
    w.takes(s, 0);
    w.tell(s, "SUBSCRIBE #1 r/# 0, UNSUBSCRIBE #2 r/#");
    w.takes(s, usize::MAX);
    w.turn();
    let heard = w.heard(s);
    assert!(heard.starts_with("SUBACK #1 00, PUBLISH retain r/000") && heard.ends_with("UNSUBACK #2"), "{heard}");
    assert!(heard.matches("PUBLISH").count() < 60);
}
