//! PINGREQ, DISCONNECT and AUTH (3.12 to 3.15).

use midge::codec::Version;

use crate::harness::World;
use crate::hello::{BOTH, EVERY, v5, v311};

#[test]
fn v311_mqtt_3_12_4_1_a_ping_is_answered() {
    // MQTT-3.12.4-1 (5.0)
    for hello in EVERY {
        let mut w = World::new();
        let c = w.join(hello("c"));
        w.tell(c, "PINGREQ, PINGREQ");
        assert_eq!(w.heard_bytes(c), [[0xD0, 0], [0xD0, 0]]);
    }
}

#[test]
fn v311_mqtt_3_14_4_3_disconnect_takes_the_will_back() {
    // MQTT-3.14.4-3 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let watcher = w.client("watcher");
        w.subscribe(watcher, "# 0");
        let c = w.join(hello("c").stored().will("retain t gone"));
        w.tell(c, "DISCONNECT");
        assert_eq!(w.heard(c), "closed");
        w.advance_s(7200);
        assert_eq!((w.heard(watcher), w.broker.retained_count()), ("".into(), 0));
    }
}

#[test]
fn v5_mqtt_3_14_4_3_disconnect_with_another_reason_leaves_the_will() {
    let mut w = World::new();
    let watcher = w.client("watcher");
    w.subscribe(watcher, "# 0");
    for reason in ["04", "80", "97"] {
        let c = w.join(v5("c").will("t gone"));
        w.tell(c, &format!("DISCONNECT {reason}"));
        assert_eq!((w.heard(c), w.heard(watcher)), ("closed".into(), "PUBLISH t gone".into()));
    }
}

#[test]
fn v311_mqtt_3_14_1_1_disconnect_with_header_flags_is_a_fault() {
    for flags in 1..16u8 {
        let mut w = World::new();
        let watcher = w.client("watcher");
        w.subscribe(watcher, "# 0");
        let c = w.join(v311("c").will("t gone"));
        w.send(c, &[0xE0 | flags, 0]);
        assert_eq!((w.heard(c), w.heard(watcher)), ("closed".into(), "PUBLISH t gone".into()));
    }
}

#[test]
fn v5_mqtt_3_14_1_1_disconnect_with_header_flags_is_malformed() {
    for flags in 1..16u8 {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send(c, &[0xE0 | flags, 0]);
        assert_eq!(w.heard(c), "DISCONNECT 81, closed");
    }
}

#[test]
fn v5_mqtt_3_14_2_1_a_reason_only_servers_have_is_refused() {
    for reason in [0x01, 0x87, 0x8B, 0x8D, 0x8E, 0x9A, 0xA2, 0xFF] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send(c, &[0xE0, 1, reason]);
        assert_eq!(w.heard(c), "DISCONNECT 82, closed", "{reason:02x}");
    }
}

#[test]
fn what_follows_disconnect_has_no_effect() {
    for hello in BOTH {
        let mut w = World::new();
        let watcher = w.client("watcher");
        w.subscribe(watcher, "# 0");
        let c = w.join(hello("c"));
        w.tell(c, "PUBLISH t one, DISCONNECT, PUBLISH t two, PINGREQ");
        assert_eq!((w.heard(c), w.heard(watcher)), ("closed".into(), "PUBLISH t one".into()));
    }
}

#[test]
fn a_session_expiry_in_disconnect_replaces_that_of_connect() {
    let mut w = World::new();
    let c = w.join(v5("c").with("session-expiry=10"));
    w.tell(c, "DISCONNECT session-expiry=100");
    w.advance_s(50);
    let c = w.connect(v5("c").clean(false).with("session-expiry=10"));
    assert_eq!(w.heard(c), "CONNACK 00 present");
    w.tell(c, "DISCONNECT session-expiry=0");
    assert_eq!(w.broker.session_count(), 0);
}

#[test]
fn a_session_expiry_in_disconnect_after_none_in_connect_is_a_protocol_error() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.tell(c, "DISCONNECT session-expiry=10");
    assert_eq!(w.heard(c), "DISCONNECT 82, closed");
    let c = w.join(v5("c"));
    w.tell(c, "DISCONNECT session-expiry=0");
    assert_eq!(w.heard(c), "closed");
}

#[test]
fn v5_mqtt_3_14_2_2_the_brokers_disconnect_has_no_session_expiry() {
    // MQTT-3.14.4-1 (5.0) MQTT-3.14.4-2 (5.0)
    let mut w = World::new();
    let c = w.join(v5("c").with("session-expiry=60"));
    w.tell(c, "PUBLISH a/# x, PINGREQ, PUBLISH q1 #1 t x");
    let heard = w.heard_in_full(c);
    assert!(heard.starts_with("DISCONNECT 90") && heard.ends_with(", closed"), "{heard}");
    assert!(!heard.contains("session-expiry") && heard.matches(", ").count() == 1, "{heard}");
}

#[test]
fn a_stopping_broker_says_so_and_publishes_all_wills() {
    let mut w = World::new();
    let (a, b) = (w.join(v5("a").will("wills a")), w.join(v311("b").stored().will("wills b")));
    w.subscribe(a, "wills 0");
    let undecided = w.dial(Version::V5);
    w.broker.shut_down(w.now);
    w.turn();
    assert_eq!(w.heard(a), "PUBLISH wills a, PUBLISH wills b, DISCONNECT 8b, closed");
    assert_eq!((w.heard(b), w.heard(undecided)), ("closed".into(), "closed".into()));
    assert_eq!((w.broker.link_count(), w.broker.session_count()), (0, 1));
}

#[test]
fn v5_mqtt_4_12_0_7_auth_without_authentication_method_is_a_protocol_error() {
    for auth in ["AUTH 18 method=x", "AUTH 19 method=x"] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.tell(c, auth);
        assert_eq!(w.heard(c), "DISCONNECT 82, closed");
    }
}

#[test]
fn v5_mqtt_3_15_1_1_auth_with_header_flags_is_malformed() {
    for flags in 1..16u8 {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send(c, &[0xF0 | flags, 2, 0x18, 0]);
        assert_eq!(w.heard(c), "DISCONNECT 81, closed");
    }
}

#[test]
fn v5_mqtt_3_15_2_1_auth_of_a_client_has_reason_0x18_or_0x19() {
    for reason in [0x00, 0x01, 0x87] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, 0xF0, &format!("{reason:02x} 04 15 00 01 \"x\""));
        assert_eq!(w.heard(c), "DISCONNECT 82, closed");
    }
}

#[test]
fn auth_does_not_exist_before_5_0() {
    let mut w = World::new();
    let c = w.client("c");
    w.send_hex(c, "f0 00");
    assert_eq!(w.heard(c), "closed");
}

#[test]
fn v5_mqtt_3_1_0_2_a_second_connect_is_told_0x82_whatever_is_wrong_with_it() {
    // What is wrong would be told with codes that only CONNACK has.
    for body in ["00 04 \"MQTX\" 05 02 00 00 00 00 01 \"c\"", "00 04 \"MQTT\" 09 02 00 00 00 00 01 \"c\"", ""] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.send_packet(c, 0x10, body);
        assert_eq!(w.heard(c), "DISCONNECT 82, closed", "{body}");
    }
}

#[test]
fn so_many_packets_of_one_client_are_handled_in_a_turn_and_the_rest_in_later_ones() {
    let mut w = World::new();
    let c = w.client("c");
    let link = w.link(c);
    let now = w.now;
    w.broker.receive(link, &[0xC0, 0].repeat(20_000), now);
    let mut answered = vec![w.broker.output(link).len() / 2];
    for _ in 0..3 {
        assert!(!w.broker.wants_input(link) || answered.last() == Some(&20_000));
        w.broker.resume(&mut Vec::new(), now);
        answered.push(w.broker.output(link).len() / 2);
    }
    assert_eq!(answered, [8192, 16_384, 20_000, 20_000]);
}
