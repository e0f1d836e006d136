//! What clients in the field do, and the broker puts up with.

use midge::codec::Version;

use crate::harness::{World, log_count};
use crate::hello::{BOTH, EVERY, v5, v31, v311};

#[test]
fn the_reserved_connect_flag_is_ignored_for_level_3() {
    let mut w = World::new();
    let c = w.dial(Version::V31);
    w.send_packet(c, 0x10, "00 06 \"MQIsdp\" 03 03 00 3c 00 01 \"c\"");
    assert_eq!(w.heard(c), "CONNACK 00");
}

#[test]
fn ids_of_any_length_up_to_65535_are_accepted() {
    for hello in EVERY {
        for len in [24, 40, 1000, 65_535] {
            let mut w = World::new();
            let c = w.connect(hello(&"i".repeat(len)));
            assert_eq!(w.heard(c), "CONNACK 00");
        }
    }
}

#[test]
fn an_empty_user_name_is_no_user_name() {
    for hello in EVERY {
        let mut w = World::new();
        let c = w.connect(hello("c").username("").password(""));
        assert_eq!(w.heard(c), "CONNACK 00");
        assert_eq!(log_count(", u'"), 0);
    }
}

#[test]
fn level_3_may_set_the_flags_of_user_name_and_password_and_send_neither() {
    for flags in ["c2", "82", "42"] {
        let mut w = World::new();
        let c = w.dial(Version::V31);
        w.send_packet(c, 0x10, &format!("00 06 \"MQIsdp\" 03 {flags} 00 3c 00 01 \"c\""));
        assert_eq!(w.heard(c), "CONNACK 00", "{flags}");
    }
    let mut w = World::new();
    let c = w.dial(Version::V31);
    w.send_packet(c, 0x10, "00 06 \"MQIsdp\" 03 c2 00 3c 00 01 \"c\" 00 01 \"u\"");
    assert_eq!(w.heard(c), "CONNACK 00");
}

#[test]
fn level_3_without_id_is_refused_with_code_2() {
    let mut w = World::new();
    let c = w.connect(v31(""));
    assert_eq!(w.heard(c), "CONNACK 02, closed");
}

#[test]
fn level_3_knows_no_session_present() {
    let mut w = World::new();
    let c = w.join(v31("c").stored());
    w.hang_up(c);
    let c = w.connect(v31("c").stored());
    assert_eq!(w.heard_bytes(c), [[0x20, 2, 0, 0]]);
}

#[test]
fn level_3_may_subscribe_to_nothing_and_knows_no_failure() {
    let mut w = World::new();
    let c = w.join(v31("c"));
    w.send_hex(c, "82 02 00 07");
    assert_eq!(w.heard_bytes(c), [[0x90, 2, 0, 7]]);
    w.tell(c, &format!("SUBSCRIBE #1 {} 1", "a/".repeat(201)));
    assert_eq!(w.heard(c), "SUBACK #1 00");
}

#[test]
fn level_3_may_set_dup_in_subscribe_unsubscribe_and_pubrel() {
    let mut w = World::new();
    let c = w.join(v31("c"));
    w.send_packet(c, 0x8A, "00 01 00 01 \"a\" 01");
    w.send_packet(c, 0xAA, "00 02 00 01 \"a\"");
    w.send_packet(c, 0x6A, "00 03");
    assert_eq!(w.heard(c), "SUBACK #1 01, UNSUBACK #2, PUBCOMP #3");
}

#[test]
fn a_receive_maximum_that_is_overshot_a_little_is_logged_once() {
    // MQTT-3.3.4-7 (5.0)
    let mut w = World::new();
    let c = w.join(v5("c"));
    (1..=20).for_each(|id| w.tell(c, &format!("PUBLISH q2 #{id} t x")));
    assert_eq!(log_count("has exceeded its receive-maximum quota"), 0);
    (21..=40).for_each(|id| w.tell(c, &format!("PUBLISH q2 #{id} t x")));
    assert_eq!((w.heard(c).matches("PUBREC").count(), w.is_open(c)), (40, true));
    assert_eq!(log_count("has exceeded its receive-maximum quota"), 1);
}

#[test]
fn hundreds_of_qos_1_messages_at_once_are_no_overshoot() {
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c"));
        let packets: Vec<String> = (1..=500).map(|id| format!("PUBLISH q1 #{id} t x")).collect();
        w.tell(c, &packets.join(", "));
        assert_eq!((w.heard(c).matches("PUBACK").count(), w.is_open(c)), (500, true));
    }
}

#[test]
fn a_packet_id_used_again_while_in_flight_is_answered_and_does_not_close() {
    for hello in BOTH {
        let mut w = World::new();
        let (c, s) = (w.join(hello("c")), w.client("s"));
        w.subscribe(s, "# 0");
        w.tell(c, "PUBLISH q2 #1 a one, PUBLISH q2 #1 b two, SUBSCRIBE #1 x 0, PUBLISH q1 #1 c three, PUBREL #1");
        let heard = w.heard(c);
        assert!(heard.starts_with("PUBREC #1, PUBREC #1, SUBACK #1 00, PUBACK #1"), "{heard}");
        assert!(heard.ends_with("PUBCOMP #1") && w.is_open(c), "{heard}");
        assert_eq!(w.heard(s), "PUBLISH a one, PUBLISH c three");
    }
}

#[test]
fn acknowledgements_for_unknown_ids_are_answered_and_do_not_close() {
    for hello in EVERY {
        let mut w = World::new();
        let c = w.join(hello("c"));
        w.tell(c, "PUBACK #1, PUBREC #2, PUBREL #3, PUBCOMP #4, PINGREQ");
        let heard = w.heard(c);
        let is_5 = hello("c").version == Version::V5;
        let expected = if is_5 { "PUBREL #2 92, PUBCOMP #3 92, PINGRESP" } else { "PUBREL #2, PUBCOMP #3, PINGRESP" };
        assert_eq!((&*heard, w.is_open(c)), (expected, true));
    }
}

#[test]
fn acknowledgements_of_the_wrong_kind_change_nothing() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v311("s").stored()));
    w.subscribe(s, "t 2");
    w.publish(p, "q1 t one");
    w.publish(p, "q2 t two");
    w.heard(s);
    w.tell(s, "PUBACK #2, PUBCOMP #1, PUBCOMP #2, PUBREC #1");
    assert!(w.is_open(s));
    w.hang_up(s);
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t one, PUBLISH dup q2 #2 t two");
}

#[test]
fn dup_with_qos_0_is_accepted_and_logged_once() {
    for hello in BOTH {
        let mut w = World::new();
        let (c, s) = (w.join(hello("c")), w.client("s"));
        w.subscribe(s, "# 0");
        let is_5 = hello("c").version == Version::V5;
        for _ in 0..3 {
            w.send_packet(c, 0x38, if is_5 { "00 01 \"t\" 00 \"x\"" } else { "00 01 \"t\" \"x\"" });
        }
        assert_eq!(w.heard(s), "PUBLISH t x, PUBLISH t x, PUBLISH t x");
        assert_eq!((w.is_open(c), log_count("DUP on QoS 0")), (true, 1));
    }
}

#[test]
fn publishing_below_sys_is_denied_quietly() {
    let mut w = World::with(|config| config.sys_interval_s = 0);
    let (c, s) = (w.client("c"), w.client("s"));
    w.subscribe(s, "$SYS/# 0");
    w.tell(c, "PUBLISH q1 #1 retain $SYS/broker/x y, PUBLISH q1 #2 $SYS z");
    assert_eq!((w.heard(c), w.heard(s)), ("PUBACK #1, PUBACK #2".into(), "".into()));
    assert_eq!((w.is_open(c), w.broker.retained_count()), (true, 0));
}

#[test]
fn a_bridge_may_publish_its_state_below_sys() {
    let mut w = World::with(|config| config.sys_interval_s = 0);
    let (c, s) = (w.client("c"), w.client("s"));
    w.subscribe(s, "$SYS/# 0");
    w.publish(c, "q1 retain $SYS/broker/connection/house.attic/state 1");
    assert_eq!(w.heard(s), "PUBLISH $SYS/broker/connection/house.attic/state 1");
    assert_eq!(w.broker.retained_count(), 1);
}

#[test]
fn unsubscribing_unknown_filters_is_answered() {
    for hello in EVERY {
        let mut w = World::new();
        let c = w.join(hello("c"));
        w.tell(c, "UNSUBSCRIBE #1 a/# b");
        assert!(w.heard(c).starts_with("UNSUBACK #1") && w.is_open(c));
    }
}

#[test]
fn a_client_that_closed_its_sending_side_still_gets_its_answers() {
    for hello in BOTH {
        let mut w = World::new();
        let (c, s) = (w.join(hello("c")), w.client("s"));
        w.subscribe(s, "t 0");
        w.post(c, &crate::script::encode("PUBLISH q1 #1 t x, PUBLISH q2 #2 t y", hello("c").version));
        w.deliver_and_hang_up(c);
        assert_eq!(w.heard(c), "PUBACK #1, PUBREC #2, closed");
        assert_eq!(w.heard(s), "PUBLISH t x, PUBLISH t y");
    }
}

#[test]
fn bridges_are_known_by_the_high_bit_of_their_level() {
    for hello in [v31, v311] {
        let mut w = World::new();
        let (b, other) = (w.join(hello("b").bridge()), w.client("other"));
        assert_eq!(log_count("New bridge connected"), 1);
        w.subscribe(b, "# 1");
        w.subscribe(other, "# 0");
        w.publish(b, "q1 t own");
        assert_eq!((w.heard(b), w.heard(other)), ("".into(), "PUBLISH t own".into()));
        w.publish(other, "retain t theirs");
        assert_eq!(w.heard(b), "PUBLISH retain t theirs");
    }
}

#[test]
fn two_clients_that_fight_for_one_id_are_both_named_in_the_log() {
    let mut w = World::new();
    w.join(v311("c"));
    w.join(v311("c"));
    assert_eq!(log_count("Client c [192.0.2.7:40000] disconnected: session taken over"), 1);
    assert_eq!(log_count("the other is at 192.0.2.7:40001"), 1);
}

#[test]
fn overlapping_subscriptions_get_one_copy_each_as_from_mosquitto() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "a/b 1 a/+ 0 # 2");
    w.publish(p, "q2 a/b x");
    let mut heard: Vec<String> = std::iter::from_fn(|| w.hear_one(s)).collect();
    heard.sort_by_key(|text| text.len());
    assert_eq!(heard[0], "PUBLISH a/b x");
    assert!(heard[1..].iter().any(|text| text.starts_with("PUBLISH q1")) && heard.len() == 3);
}

#[test]
fn connack_never_tells_more_than_the_protocols_own_maximum_packet_size() {
    for (limit, told) in [(0, false), (268_435_455, true), (268_435_456, false), (u32::MAX, false)] {
        let mut w = World::with(|config| config.max_packet_size = limit);
        let c = w.connect(v5("c"));
        assert_eq!(w.heard_in_full(c).contains("max-packet="), told, "{limit}");
    }
}

#[test]
fn somebody_who_speaks_tls_or_http_is_named_in_the_log() {
    let mut w = World::new();
    let c = w.dial(Version::V311);
    w.send_hex(c, "16 03 01 02 00 01 00");
    assert_eq!(w.heard(c), "closed");
    assert_eq!(log_count("appears to be using TLS to connect to a non-TLS listener"), 1);
    let c = w.dial(Version::V311);
    w.send(c, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(w.heard(c), "closed");
    assert_eq!(log_count("First packet not CONNECT (47)"), 1);
}
