//! CONNECT and CONNACK (3.1, 3.2): who is let in, and what a client is answered. What is wrong with the bytes of a CONNECT is
//! in `connect_format`.

use midge::codec::{QoS, Version};
use midge::config::Config;

use crate::harness::{World, log_count, rules};
use crate::hello::{BOTH, EVERY, v5, v31, v311};

#[test]
fn v311_mqtt_3_1_4_4_a_valid_connect_is_answered_with_code_0() {
    // MQTT-3.1.4-5 (5.0)
    for hello in EVERY {
        let mut w = World::new();
        let c = w.connect(hello("c"));
        assert_eq!(w.heard(c), "CONNACK 00");
        assert!(w.is_open(c));
    }
}

#[test]
fn v311_mqtt_3_1_0_1_any_other_first_packet_closes_without_an_answer() {
    // MQTT-3.1.0-1 (5.0) MQTT-3.14.0-1 (5.0)
    for first in (0..=255).filter(|first| first >> 4 != 1) {
        // Alone, and as if the body of a good CONNECT could make up for it.
        for mut bytes in [vec![first, 0], v5("c").bytes(), v311("c").bytes()] {
            bytes[0] = first;
            let mut w = World::new();
            let c = w.dial(Version::V5);
            w.send(c, &bytes);
            assert_eq!(w.heard(c), "closed", "{first:02x}");
        }
    }
}

#[test]
fn v311_mqtt_3_1_0_2_a_second_connect_ends_the_connection() {
    let mut w = World::new();
    let watcher = w.client("watcher");
    w.subscribe(watcher, "# 0");
    let c = w.join(v311("c").will("t gone"));
    w.send(c, &v311("c").bytes());
    assert_eq!(w.heard(c), "closed");
    assert_eq!(w.heard(watcher), "PUBLISH t gone");
}

#[test]
fn v5_mqtt_3_1_0_2_a_second_connect_is_a_protocol_error() {
    // MQTT-3.2.0-2 (5.0)
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.send(c, &v5("c").bytes());
    assert_eq!(w.heard(c), "DISCONNECT 82, closed");
}

#[test]
fn v311_mqtt_3_1_2_2_an_unknown_protocol_level_is_answered_with_code_1() {
    // MQTT-3.1.2-2 (5.0)
    for level in [0, 1, 2, 3, 6, 7, 0x7F, 0x85, 0xFF] {
        let mut w = World::new();
        let c = w.dial(Version::V311);
        w.send_hex(c, &format!("10 0d 00 04 \"MQTT\" {level:02x} 02 00 00 00 01 \"c\""));
        assert_eq!(w.heard(c), "CONNACK 01, closed", "level {level}");
    }
}

#[test]
fn v311_mqtt_3_1_2_1_a_protocol_of_another_name_is_not_served() {
    // MQTT-3.1.2-1 (5.0)
    for (name, level) in [("mqtt", 4), ("MQTU", 4), ("MQTT ", 4), ("", 4), ("MQIsdp", 4), ("MQTT", 3), ("mqtt", 5)] {
        let mut w = World::new();
        let c = w.dial(Version::V311);
        let len = name.len();
        w.send_hex(c, &format!("10 {:02x} 00 {len:02x} \"{name}\" {level:02x} 02 00 00 00 01 \"c\"", len + 9));
        assert_eq!(w.heard(c), "CONNACK 01, closed", "{name:?}");
        assert_eq!(w.broker.session_count(), 0);
    }
}

#[test]
fn v311_mqtt_3_1_3_5_ids_of_1_to_23_letters_and_digits_are_accepted() {
    // MQTT-3.1.3-5 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        for id in ["a", "Z", "0", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
            w.join(hello(id));
        }
        assert_eq!(w.broker.session_count(), 6);
    }
}

#[test]
fn v311_mqtt_3_1_3_6_a_client_without_id_gets_one_of_its_own() {
    let mut w = World::new();
    let (a, b) = (w.join(v311("")), w.join(v311("")));
    assert_eq!(w.broker.session_count(), 2);
    w.subscribe(a, "t 0");
    w.subscribe(b, "t 0");
    w.publish(a, "t x");
    assert_eq!((w.heard(a), w.heard(b)), ("PUBLISH t x".into(), "PUBLISH t x".into()));
}

#[test]
fn v5_mqtt_3_1_3_7_a_made_up_id_is_told_and_can_be_used_again() {
    // MQTT-3.1.3-6 (5.0) MQTT-3.2.2-16 (5.0)
    let mut w = World::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let c = w.connect(v5("").with("session-expiry=60"));
        let connack = w.heard_in_full(c);
        let id = connack.split_whitespace().find_map(|word| word.strip_prefix("assigned=")).expect(&connack);
        assert!(id.starts_with("auto-") && !ids.contains(&id.to_string()), "{id}");
        ids.push(id.to_string());
        w.hang_up(c);
    }
    let c = w.connect(v5(&ids[1]).clean(false));
    assert_eq!(w.heard(c), "CONNACK 00 present");
    let c = w.connect(v5("mine"));
    assert!(!w.heard_in_full(c).contains("assigned="));
}

#[test]
fn v311_mqtt_3_1_3_8_no_id_without_clean_session_is_refused_with_code_2() {
    let mut w = World::new();
    let c = w.connect(v311("").clean(false));
    assert_eq!(w.heard(c), "CONNACK 02, closed");
    assert_eq!(w.broker.session_count(), 0);
}

#[test]
fn v311_mqtt_3_1_3_9_an_id_that_is_not_accepted_is_refused_with_code_2() {
    let mut w = World::ruled(|rules| rules.allow_zero_length_clientid = false);
    let c = w.connect(v311(""));
    assert_eq!(w.heard(c), "CONNACK 02, closed");
    let c = w.connect(v31(""));
    assert_eq!(w.heard(c), "CONNACK 02, closed");
}

#[test]
fn v5_mqtt_3_1_3_8_an_id_that_is_not_accepted_is_refused_with_0x85() {
    let mut w = World::ruled(|rules| rules.allow_zero_length_clientid = false);
    let c = w.connect(v5(""));
    assert_eq!(w.heard(c), "CONNACK 85, closed");
}

#[test]
fn v311_mqtt_3_2_2_1_clean_session_is_answered_without_session_present() {
    // MQTT-3.2.2-2 (5.0) MQTT-3.1.2-4 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c").stored());
        w.hang_up(c);
        let c = w.connect(hello("c"));
        assert_eq!(w.heard(c), "CONNACK 00");
    }
}

#[test]
fn v311_mqtt_3_2_2_2_a_stored_session_is_told_by_session_present() {
    // MQTT-3.2.2-3 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c").stored());
        w.hang_up(c);
        let c = w.connect(hello("c").stored());
        assert_eq!(w.heard(c), "CONNACK 00 present");
        let raw = w.connect(hello("c").stored());
        let connack = &w.heard_bytes(raw)[0];
        // MQTT-3.2.2-1 (5.0)
        assert_eq!(connack[2], 0x01);
    }
}

#[test]
fn v311_mqtt_3_2_2_3_without_a_stored_session_there_is_none_present() {
    // MQTT-3.2.2-3 (5.0) MQTT-3.1.2-6 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let other = w.join(hello("other").stored());
        w.hang_up(other);
        let c = w.connect(hello("c").stored());
        assert_eq!(w.heard(c), "CONNACK 00");
    }
}

#[test]
fn v311_mqtt_3_2_2_4_a_refusal_has_no_session_present() {
    // MQTT-3.2.2-6 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c").stored());
        w.hang_up(c);
        let c = w.dial_by(hello("c").version, &rules(|rules| rules.allow_anonymous = false));
        w.send(c, &hello("c").stored().bytes());
        let heard = w.heard_bytes(c);
        assert_eq!((heard.len(), heard[0][2]), (1, 0));
        assert!(heard[0][3] != 0);
    }
}

#[test]
fn v311_mqtt_3_2_2_5_a_refusal_is_followed_by_the_end() {
    let mut w = World::new();
    let c = w.dial_by(Version::V311, &rules(|rules| rules.allow_anonymous = false));
    w.send(c, &v311("c").bytes());
    assert_eq!(w.heard(c), "CONNACK 05, closed");
}

#[test]
fn v5_mqtt_3_2_2_7_a_refusal_is_followed_by_the_end() {
    // MQTT-3.1.4-2 (5.0) MQTT-4.13.2-1 (5.0) MQTT-3.14.0-1 (5.0)
    let mut w = World::new();
    let c = w.dial_by(Version::V5, &rules(|rules| rules.allow_anonymous = false));
    w.send(c, &v5("c").bytes());
    assert_eq!(w.heard(c), "CONNACK 87, closed");
}

#[test]
fn v311_mqtt_3_1_4_5_what_follows_a_refused_connect_has_no_effect() {
    // MQTT-3.1.4-6 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let watcher = w.client("watcher");
        w.subscribe(watcher, "# 0");
        let c = w.dial_by(hello("c").version, &rules(|rules| rules.allow_anonymous = false));
        let mut bytes = hello("c").bytes();
        bytes.extend(crate::script::encode("SUBSCRIBE #1 t 0, PUBLISH retain t x, PINGREQ", hello("c").version));
        w.send(c, &bytes);
        let heard = w.heard(c);
        assert!(heard.starts_with("CONNACK") && heard.ends_with(", closed") && heard.matches(',').count() == 1);
        assert_eq!(w.heard(watcher), "");
        assert_eq!((w.broker.retained_count(), w.broker.subscription_count()), (0, 1));
    }
}

#[test]
fn v311_mqtt_3_2_0_1_connack_comes_before_everything_a_stored_session_waits_for() {
    // MQTT-3.2.0-1 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c").stored());
        w.subscribe(c, "t 1");
        w.hang_up(c);
        let p = w.client("p");
        w.publish(p, "q1 t one");
        let c = w.connect(hello("c").stored());
        assert_eq!(w.heard(c), "CONNACK 00 present, PUBLISH q1 #1 t one");
    }
}

#[test]
fn v311_mqtt_3_1_4_2_the_older_connection_of_an_id_is_closed() {
    let mut w = World::new();
    let old = w.client("c");
    let new = w.connect(v311("c"));
    assert_eq!((w.heard(old), w.heard(new)), ("closed".into(), "CONNACK 00".into()));
    assert!(w.is_open(new));
    assert_eq!(w.broker.session_count(), 1);
    assert_eq!(log_count("session taken over. Two clients use this id: the other is at 192.0.2.7:40001"), 1);
}

#[test]
fn v5_mqtt_3_1_4_3_the_older_connection_of_an_id_is_told_why() {
    let mut w = World::new();
    let old = w.join(v5("c"));
    let new = w.connect(v5("c"));
    assert_eq!((w.heard(old), w.heard(new)), ("DISCONNECT 8e, closed".into(), "CONNACK 00".into()));
}

#[test]
fn v311_mqtt_3_1_4_3_clean_session_is_carried_out_at_take_over_too() {
    // MQTT-3.1.4-4 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let old = w.join(hello("c").stored());
        w.subscribe(old, "t 1");
        let kept = w.connect(hello("c").stored());
        assert_eq!(w.heard(kept), "CONNACK 00 present");
        assert_eq!(w.broker.subscription_count(), 1);
        let fresh = w.connect(hello("c"));
        assert_eq!(w.heard(fresh), "CONNACK 00");
        assert_eq!(w.broker.subscription_count(), 0);
    }
}

#[test]
fn taking_over_a_clean_session_finds_nothing() {
    for hello in BOTH {
        let mut w = World::new();
        let old = w.join(hello("c"));
        w.subscribe(old, "t 1");
        let new = w.connect(hello("c").stored());
        assert_eq!(w.heard(new), "CONNACK 00");
        assert_eq!(w.broker.subscription_count(), 0);
    }
}

#[test]
fn a_connection_that_says_nothing_is_closed_after_the_connect_timeout() {
    let mut w = World::new();
    let c = w.dial(Version::V5);
    let slow = w.dial(Version::V311);
    w.send_hex(slow, "10 0d 00 04 \"MQ\"");
    w.advance_s(29);
    assert!(w.is_open(c) && w.is_open(slow));
    w.advance_s(2);
    assert_eq!((w.heard(c), w.heard(slow)), ("closed".into(), "closed".into()));
    assert_eq!(w.broker.link_count(), 0);
}

#[test]
fn the_connect_timeout_does_not_end_those_who_connected() {
    let mut w = World::new();
    let c = w.client("c");
    w.advance_s(3600);
    assert!(w.is_open(c));
}

#[test]
fn connack_of_5_0_says_what_differs_from_the_standards_defaults() {
    let mut w = World::new();
    let c = w.connect(v5("c"));
    assert_eq!(w.heard_in_full(c), "CONNACK 00 receive-max=20 alias-max=10");
    let change = |config: &mut Config| {
        config.max_inflight_messages = 0;
        config.max_packet_size = 5000;
        config.max_keepalive_s = 60;
        config.persistent_client_expiration_s = 100;
    };
    let mut w = World::with_rules(change, |rules| rules.max_topic_alias = 0);
    let c = w.connect(v5("c").keep_alive(120).with("session-expiry=1000"));
    assert_eq!(w.heard_in_full(c), "CONNACK 00 session-expiry=100 max-packet=5000 keep-alive=60");
    let c = w.connect(v5("c").keep_alive(60).with("session-expiry=100"));
    assert_eq!(w.heard_in_full(c), "CONNACK 00 max-packet=5000");
}

#[test]
fn v5_mqtt_3_2_2_9_a_limited_qos_is_told_and_a_full_one_is_not() {
    for (qos, told) in [(QoS::AtMostOnce, " max-qos=0"), (QoS::AtLeastOnce, " max-qos=1"), (QoS::ExactlyOnce, "")] {
        let mut w = World::ruled(|rules| rules.max_qos = qos);
        let c = w.connect(v5("c"));
        assert_eq!(w.heard_in_full(c), format!("CONNACK 00 receive-max=20{told} alias-max=10"));
    }
}

#[test]
fn v5_mqtt_3_2_2_12_a_will_of_unsupported_qos_is_refused_with_0x9b() {
    let mut w = World::ruled(|rules| rules.max_qos = QoS::AtLeastOnce);
    let c = w.connect(v5("c").will("q2 t x"));
    assert_eq!(w.heard(c), "CONNACK 9b, closed");
    let c = w.connect(v5("c").will("q1 t x"));
    assert_eq!(w.heard(c), "CONNACK 00");
}

#[test]
fn v5_mqtt_3_2_2_13_a_retained_will_is_refused_with_0x9a_where_nothing_is_retained() {
    let mut w = World::with(|config| config.retain_available = false);
    let c = w.connect(v5("c").will("retain t x"));
    assert_eq!(w.heard(c), "CONNACK 9a, closed");
    let c = w.connect(v5("c").will("t x"));
    assert!(w.heard_in_full(c).contains("retain-available=0"));
}

#[test]
fn a_will_that_could_not_be_published_is_refused_at_once() {
    let mut w = World::with(|config| config.message_size_limit = 10);
    for (will, answer) in [
        ("t x*11", "CONNACK 95, closed"),
        ("t x*10", "CONNACK 00"),
        ("t x format=1", "CONNACK 00"),
        ("t x format=0", "CONNACK 00"),
    ] {
        let c = w.connect(v5("c").will(will));
        assert_eq!(w.heard(c), answer, "{will}");
    }
    // 3.1.1 has no code for it.
    let c = w.connect(v311("c").will("t x*11"));
    assert_eq!(w.heard(c), "closed");
    // A payload that is said to be text and is not: format 1, topic "t", payload ff.
    let c = w.dial(v5("").version);
    w.send_packet(c, 0x10, "00 04 \"MQTT\" 05 06 00 00 00 00 01 \"c\" 02 01 01 00 01 \"t\" 00 01 ff");
    assert_eq!(w.heard(c), "CONNACK 99, closed");
    let c = w.dial(v5("").version);
    w.send_packet(c, 0x10, "00 04 \"MQTT\" 05 06 00 00 00 00 01 \"c\" 02 01 00 00 01 \"t\" 00 01 ff");
    assert_eq!(w.heard(c), "CONNACK 00");
}

#[test]
fn v5_mqtt_4_12_0_1_authentication_methods_are_refused_with_0x8c() {
    // MQTT-4.12.0-4 (5.0)
    let mut w = World::new();
    let c = w.connect(v5("c").with("method=SCRAM-SHA-1 data=x"));
    assert_eq!(w.heard(c), "CONNACK 8c, closed");
}

#[test]
fn v5_mqtt_4_12_0_6_without_an_authentication_method_there_is_none_in_the_answer() {
    let mut w = World::new();
    let c = w.connect(v5("c").username("u").password("p"));
    let heard = w.heard_in_full(c);
    assert!(heard.starts_with("CONNACK 00") && !heard.contains("Auth") && !heard.contains("method"));
}

#[test]
fn v5_mqtt_4_12_0_2_the_broker_sends_no_auth_whatever_a_client_tries() {
    // A server without methods asks for nothing and confirms nothing, so no AUTH of its can lack a method, or be too long:
    // MQTT-4.12.0-5 (5.0) MQTT-3.15.2-2 (5.0) MQTT-3.15.2-3 (5.0)
    for method in ["SCRAM-SHA-1", "PLAIN", "", "GS2-KRB5"] {
        for maximum in [20, 100_000] {
            let mut w = World::new();
            let c = w.connect(v5("c").with(&format!("max-packet={maximum} method={method} data=x")));
            w.tell(c, &format!("AUTH 18 method={method} data=y"));
            let frames = w.heard_bytes(c);
            assert!(frames.len() == 1 && frames[0].len() <= maximum && !w.is_open(c));
            // CONNACK, no session, 0x8C; never success, with which the method would have to stand.
            assert_eq!((frames[0][0], &frames[0][2..4]), (0x20, &[0, 0x8C][..]));
        }
    }
}

#[test]
fn v5_mqtt_4_12_1_1_re_authentication_ends_the_connection_and_only_that_one() {
    // Every method is another one than that of CONNECT, which had none, and no re-authentication succeeds: MQTT-4.12.1-2 (5.0)
    let mut w = World::new();
    let other = w.join(v5("other"));
    for auth in ["AUTH 19 method=SCRAM-SHA-1 data=x", "AUTH 19 method=x", "AUTH 18 method=x data=y"] {
        let c = w.join(v5("c").will("wills gone"));
        w.subscribe(other, "wills 0");
        w.tell(c, auth);
        assert_eq!((w.heard(c).as_str(), w.heard(other).as_str()), ("DISCONNECT 82, closed", "PUBLISH wills gone"));
        w.tell(other, "PINGREQ");
        assert_eq!(w.heard(other), "PINGRESP");
    }
}

#[test]
fn v5_mqtt_3_1_2_28_response_information_is_not_told_unasked() {
    let mut w = World::new();
    for with in ["", "want-response=0"] {
        let c = w.connect(v5("c").with(with));
        assert!(!w.heard_in_full(c).contains("ResponseInformation"));
    }
}

#[test]
fn sessions_over_global_max_clients_are_refused_and_known_ones_are_not() {
    let mut w = World::with(|config| config.global_max_clients = 2);
    let a = w.join(v311("a").stored());
    w.join(v311("b"));
    w.hang_up(a);
    let c = w.connect(v311("c"));
    assert_eq!(w.heard(c), "CONNACK 03, closed");
    let c = w.connect(v5("c"));
    assert_eq!(w.heard(c), "CONNACK 89, closed");
    let a = w.connect(v311("a").stored());
    assert_eq!(w.heard(a), "CONNACK 00 present");
}

#[test]
fn ids_without_the_configured_prefix_are_not_authorised() {
    let mut w = World::with(|config| config.clientid_prefixes = Some("dev-".into()));
    for (hello, answer) in [(v311("x"), "CONNACK 05, closed"), (v5("x"), "CONNACK 87, closed")] {
        let c = w.connect(hello);
        assert_eq!(w.heard(c), answer);
    }
    w.join(v311("dev-1"));
}
