//! The bytes of CONNECT (3.1.2, 3.1.3): what is wrong with them closes the connection, in 3.1.1 without CONNACK.

use midge::codec::Version;

use crate::harness::World;
use crate::hello::v311;

/// What the broker does with a CONNECT of 3.1.1: flags, and the fields behind Keep Alive in hex.
fn answer_311(flags: u8, payload: &str) -> String {
    answer(Version::V311, &format!("04 {flags:02x} 00 0a {payload}"))
}

/// The same in 5.0, without properties.
fn answer_5(flags: u8, payload: &str) -> String {
    answer(Version::V5, &format!("05 {flags:02x} 00 0a 00 {payload}"))
}

fn answer(version: Version, rest: &str) -> String {
    let mut w = World::new();
    let c = w.dial(version);
    w.send_packet(c, 0x10, &format!("00 04 \"MQTT\" {rest}"));
    assert_eq!(w.broker.session_count(), w.is_open(c) as usize);
    w.heard(c)
}

const CLOSED: &str = "closed";
const MALFORMED_5: &str = "CONNACK 81, closed";
const IN: &str = "CONNACK 00";
const ID: &str = "00 01 \"c\"";

#[test]
fn v311_mqtt_3_1_4_1_every_format_fault_closes_without_connack() {
    let whole = "00 01 \"c\" 00 01 \"t\" 00 01 \"m\" 00 01 \"u\" 00 01 \"p\"";
    assert_eq!(answer_311(0xC6, whole), IN);
    let bytes = crate::harness::unhex(whole);
    for len in 0..bytes.len() {
        let cut: String = bytes[..len].iter().map(|byte| format!("{byte:02x} ")).collect();
        assert_eq!(answer_311(0xC6, &cut), CLOSED, "{len} bytes of payload");
    }
    assert_eq!(answer_311(0xC6, &format!("{whole} 00")), CLOSED);
}

#[test]
fn v5_mqtt_3_1_4_1_every_format_fault_is_answered_as_malformed_and_closes() {
    // MQTT-4.13.1-1 (5.0)
    let whole = "00 01 \"c\" 00 00 01 \"t\" 00 01 \"m\" 00 01 \"u\" 00 01 \"p\"";
    assert_eq!(answer_5(0xC6, whole), IN);
    let bytes = crate::harness::unhex(whole);
    for len in 0..bytes.len() {
        let cut: String = bytes[..len].iter().map(|byte| format!("{byte:02x} ")).collect();
        assert_eq!(answer_5(0xC6, &cut), MALFORMED_5, "{len} bytes of payload");
    }
    assert_eq!(answer_5(0xC6, &format!("{whole} 00")), MALFORMED_5);
}

#[test]
fn v311_mqtt_3_1_2_3_the_reserved_connect_flag_closes() {
    assert_eq!(answer_311(0x03, ID), CLOSED);
    assert_eq!(answer_311(0x02, ID), IN);
}

#[test]
fn v5_mqtt_3_1_2_3_the_reserved_connect_flag_closes() {
    assert_eq!(answer_5(0x03, ID), MALFORMED_5);
}

#[test]
fn v311_mqtt_3_1_2_13_will_qos_without_will_closes() {
    assert_eq!(answer_311(0x0A, ID), CLOSED);
    assert_eq!(answer_311(0x12, ID), CLOSED);
}

#[test]
fn v5_mqtt_3_1_2_11_will_qos_without_will_closes() {
    assert_eq!(answer_5(0x0A, ID), MALFORMED_5);
    assert_eq!(answer_5(0x12, ID), MALFORMED_5);
}

#[test]
fn v311_mqtt_3_1_2_14_will_qos_3_closes_and_0_to_2_are_fine() {
    let will = "00 01 \"c\" 00 01 \"t\" 00 01 \"m\"";
    assert_eq!(answer_311(0x1E, will), CLOSED);
    for flags in [0x06, 0x0E, 0x16] {
        assert_eq!(answer_311(flags, will), IN);
    }
}

#[test]
fn v5_mqtt_3_1_2_12_will_qos_3_closes_and_0_to_2_are_fine() {
    let will = "00 01 \"c\" 00 00 01 \"t\" 00 01 \"m\"";
    assert_eq!(answer_5(0x1E, will), MALFORMED_5);
    for flags in [0x06, 0x0E, 0x16] {
        assert_eq!(answer_5(flags, will), IN);
    }
}

#[test]
fn v311_mqtt_3_1_2_15_will_retain_without_will_closes() {
    assert_eq!(answer_311(0x22, ID), CLOSED);
}

#[test]
fn v5_mqtt_3_1_2_13_will_retain_without_will_closes() {
    assert_eq!(answer_5(0x22, ID), MALFORMED_5);
}

#[test]
fn v311_mqtt_3_1_2_9_a_will_flag_without_topic_or_message_closes() {
    assert_eq!(answer_311(0x06, ID), CLOSED);
    assert_eq!(answer_311(0x06, "00 01 \"c\" 00 01 \"t\""), CLOSED);
    assert_eq!(answer_311(0x06, "00 01 \"c\" 00 01 \"t\" 00 00"), IN);
}

#[test]
fn v5_mqtt_3_1_2_9_a_will_flag_without_properties_topic_or_payload_closes() {
    for payload in [ID, "00 01 \"c\" 00", "00 01 \"c\" 00 00 01 \"t\"", "00 01 \"c\" 00 01 \"t\" 00 00"] {
        assert_eq!(answer_5(0x06, payload), MALFORMED_5, "{payload}");
    }
    assert_eq!(answer_5(0x06, "00 01 \"c\" 00 00 01 \"t\" 00 00"), IN);
}

#[test]
fn v311_mqtt_3_1_2_11_will_fields_without_will_flag_close() {
    assert_eq!(answer_311(0x02, "00 01 \"c\" 00 01 \"t\" 00 01 \"m\""), CLOSED);
}

#[test]
fn v311_mqtt_3_1_2_18_a_user_name_without_its_flag_closes() {
    // MQTT-3.1.2-20 (3.1.1)
    assert_eq!(answer_311(0x02, "00 01 \"c\" 00 01 \"u\""), CLOSED);
    assert_eq!(answer_311(0x82, "00 01 \"c\" 00 01 \"u\" 00 01 \"p\""), CLOSED);
    assert_eq!(answer_311(0x82, "00 01 \"c\" 00 01 \"u\""), IN);
}

#[test]
fn v5_mqtt_3_1_2_16_a_user_name_without_its_flag_closes() {
    // MQTT-3.1.2-18 (5.0)
    assert_eq!(answer_5(0x02, "00 01 \"c\" 00 01 \"u\""), MALFORMED_5);
    assert_eq!(answer_5(0x82, "00 01 \"c\" 00 01 \"u\" 00 01 \"p\""), MALFORMED_5);
    assert_eq!(answer_5(0x82, "00 01 \"c\" 00 01 \"u\""), IN);
}

#[test]
fn v311_mqtt_3_1_2_19_a_user_name_flag_without_user_name_closes() {
    assert_eq!(answer_311(0x82, ID), CLOSED);
}

#[test]
fn v5_mqtt_3_1_2_17_a_user_name_flag_without_user_name_closes() {
    assert_eq!(answer_5(0x82, ID), MALFORMED_5);
}

#[test]
fn v311_mqtt_3_1_2_21_a_password_flag_without_password_closes() {
    assert_eq!(answer_311(0xC2, "00 01 \"c\" 00 01 \"u\""), CLOSED);
    assert_eq!(answer_311(0xC2, "00 01 \"c\" 00 01 \"u\" 00 01 \"p\""), IN);
}

#[test]
fn v5_mqtt_3_1_2_19_a_password_may_come_alone_but_not_be_missing() {
    assert_eq!(answer_5(0x42, ID), MALFORMED_5);
    assert_eq!(answer_5(0x42, "00 01 \"c\" 00 01 \"p\""), IN);
}

#[test]
fn v311_mqtt_3_1_2_22_a_password_without_user_name_closes() {
    assert_eq!(answer_311(0x42, "00 01 \"c\" 00 01 \"p\""), CLOSED);
}

#[test]
fn v311_mqtt_3_1_3_1_the_payload_is_id_will_topic_will_message_user_password() {
    // MQTT-3.1.3-3 (3.1.1)
    let mut w = World::new();
    let watcher = w.client("watcher");
    w.subscribe(watcher, "# 0");
    let c = w.dial(Version::V311);
    w.send_packet(
        c,
        0x10,
        "00 04 \"MQTT\" 04 c6 00 0a 00 04 \"ciid\" 00 03 \"wil\" 00 03 \"msg\" 00 03 \"usr\" 00 03 \"pwd\"",
    );
    assert_eq!(w.heard(c), IN);
    assert_eq!(crate::harness::log_count("as ciid (p4, c1, k10, u'usr')"), 1);
    w.hang_up(c);
    assert_eq!(w.heard(watcher), "PUBLISH wil msg");
}

#[test]
fn v5_mqtt_3_1_3_1_the_payload_is_id_will_properties_topic_payload_user_password() {
    // MQTT-3.1.3-3 (5.0) MQTT-3.1.3-12 (5.0)
    let mut w = World::new();
    let watcher = w.client("watcher");
    w.subscribe(watcher, "# 0");
    let c = w.dial(Version::V5);
    w.send_packet(
        c,
        0x10,
        "00 04 \"MQTT\" 05 c6 00 0a 00 00 04 \"ciid\" 02 01 00 00 03 \"wil\" 00 03 \"msg\" 00 03 \"usr\" 00 03 \"pwd\"",
    );
    assert_eq!(w.heard(c), IN);
    assert_eq!(crate::harness::log_count("as ciid (p5, c1, k10, u'usr')"), 1);
    w.hang_up(c);
    assert_eq!(w.heard(watcher), "PUBLISH wil msg");
}

#[test]
fn v311_mqtt_3_1_3_4_strings_that_are_not_utf8_close() {
    // MQTT-3.1.3-10 (3.1.1) MQTT-3.1.3-11 (3.1.1)
    for bad in ["00 02 c0 80", "00 03 ed a0 80", "00 01 ff", "00 02 \"a\" 00"] {
        assert_eq!(answer_311(0x02, bad), CLOSED, "client id {bad}");
        assert_eq!(answer_311(0x06, &format!("{ID} {bad} 00 00")), CLOSED, "will topic {bad}");
        assert_eq!(answer_311(0x82, &format!("{ID} {bad}")), CLOSED, "user name {bad}");
    }
}

#[test]
fn v5_mqtt_3_1_3_4_strings_that_are_not_utf8_close() {
    // MQTT-3.1.3-11 (5.0) MQTT-3.1.3-12 (5.0)
    for bad in ["00 02 c0 80", "00 03 ed a0 80", "00 01 ff", "00 02 \"a\" 00"] {
        assert_eq!(answer_5(0x02, bad), MALFORMED_5, "client id {bad}");
        assert_eq!(answer_5(0x06, &format!("{ID} 00 {bad} 00 00")), MALFORMED_5, "will topic {bad}");
        assert_eq!(answer_5(0x82, &format!("{ID} {bad}")), MALFORMED_5, "user name {bad}");
    }
}

#[test]
fn v311_mqtt_3_2_2_6_a_reason_without_a_code_closes_without_connack() {
    assert_eq!(answer_311(0x06, "00 01 \"c\" 00 01 \"#\" 00 00"), CLOSED);
    let mut w = World::with(|config| config.retain_available = false);
    let c = w.connect(v311("c").will("retain t x"));
    assert_eq!(w.heard(c), CLOSED);
}

#[test]
fn v5_mqtt_2_2_2_1_the_property_length_is_never_left_out() {
    let mut w = World::new();
    let c = w.dial(Version::V5);
    w.send_hex(c, "10 0d 00 04 \"MQTT\" 05 02 00 0a 00 01 \"c\"");
    assert_eq!(w.heard(c), MALFORMED_5);
}

#[test]
fn flags_in_the_fixed_header_of_connect_close() {
    for flags in 1..16u8 {
        let mut w = World::new();
        let c = w.dial(Version::V311);
        w.send_hex(c, &format!("{:02x} 0d 00 04 \"MQTT\" 04 02 00 0a 00 01 \"c\"", 0x10 | flags));
        assert_eq!(w.heard(c), CLOSED);
    }
}
