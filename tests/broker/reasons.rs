//! Reason strings of 5.0: who gets them, and when they are left out.

use midge::codec::Version;

use crate::harness::{World, decode};
use crate::hello::v5;
use crate::script::{self, Detail};

/// Packets that are answered with an error, and the beginning of the answer.
fn refused() -> Vec<(String, &'static str)> {
    vec![
        ("PUBLISH q1 #1 $SYS/x y".to_string(), "PUBACK #1 87"),
        ("PUBLISH q2 #2 $SYS/x y".to_string(), "PUBREC #2 87"),
        ("PUBREC #3".to_string(), "PUBREL #3 92"),
        ("PUBREL #4".to_string(), "PUBCOMP #4 92"),
        (format!("SUBSCRIBE #5 {}x 0", "a/".repeat(201)), "SUBACK #5 8f"),
        ("UNSUBSCRIBE #6 a#".to_string(), "UNSUBACK #6 8f"),
    ]
}

#[test]
fn v5_mqtt_3_1_2_29_reason_strings_are_sent_only_to_those_who_want_them() {
    for (packet, answer) in refused() {
        for (with, is_told) in [("", true), ("problem=1", true), ("problem=0", false)] {
            let mut w = World::new();
            let c = w.join(v5("c").with(with));
            w.tell(c, &packet);
            let heard = w.heard_in_full(c);
            assert!(heard.starts_with(answer) && heard.contains("reason=") == is_told, "{heard}");
        }
    }
    // DISCONNECT may always say why.
    let mut w = World::new();
    let c = w.join(v5("c").with("problem=0"));
    w.send_packet(c, 0x36, "");
    assert!(w.heard_in_full(c).starts_with("DISCONNECT 81 reason="));
}

#[test]
fn v5_mqtt_3_4_2_2_reason_strings_give_way_to_maximum_packet_size() {
    // MQTT-3.5.2-2 (5.0) MQTT-3.6.2-2 (5.0) MQTT-3.7.2-2 (5.0) MQTT-3.9.2-1 (5.0) MQTT-3.11.2-1 (5.0)
    for (packet, answer) in refused() {
        let mut told = Vec::new();
        for maximum in 15..200usize {
            let mut w = World::new();
            let c = w.join(v5("c").with(&format!("max-packet={maximum}")));
            w.tell(c, &packet);
            let frames = w.heard_bytes(c);
            assert!(frames.len() == 1 && frames[0].len() <= maximum && w.is_open(c), "{answer} {maximum}");
            told.push(frames[0].len() > 15);
        }
        assert!(!told[0] && told.is_sorted() && told[184], "{answer}");
    }
}

/// The least Maximum Packet Size with which the answer to `send` has a reason string, without the string.
fn room(with: &str, send: impl Fn(&mut World, crate::harness::Client)) -> usize {
    for maximum in 16..300usize {
        let mut w = World::new();
        let c = w.connect(v5("c").with(&format!("max-packet={maximum} {with}")));
        send(&mut w, c);
        if let Some((_, text)) = w.heard_in_full(c).split_once("reason='") {
            return maximum - text.split_once('\'').unwrap().0.len();
        }
    }
    panic!("no reason string at all");
}

#[test]
fn reason_strings_are_sent_where_they_and_little_else_fit() {
    assert_eq!(room("", |w, c| w.tell(c, "PUBLISH q1 #1 $SYS/x y")), 24);
    assert_eq!(room("", |w, c| w.tell(c, "PUBREL #4")), 24);
    assert_eq!(room("", |w, c| w.tell(c, &format!("SUBSCRIBE #5 {}x 0 b 0", "a/".repeat(201)))), 24 + 2);
    assert_eq!(room("", |w, c| w.send_packet(c, 0x36, "")), 16);
    assert_eq!(room("method=x", |_, _| ()), 16);
}

#[test]
fn v5_mqtt_3_14_2_3_the_reason_string_of_disconnect_gives_way_to_maximum_packet_size() {
    let mut told = Vec::new();
    for maximum in 15..200usize {
        let mut w = World::new();
        let c = w.join(v5("c").with(&format!("max-packet={maximum}")));
        w.send_packet(c, 0x36, "");
        let frames = w.heard_bytes(c);
        assert!(frames.len() == 1 && frames[0].len() <= maximum && frames[0][2] == 0x81, "{maximum}");
        told.push(frames[0].len() > 15);
    }
    assert!(!told[0] && told.is_sorted() && told[184]);
}

#[test]
fn v5_mqtt_3_2_2_19_the_reason_string_of_a_refusal_gives_way_to_maximum_packet_size() {
    let mut w = World::new();
    let c = w.connect(v5("c").with("max-packet=20 method=x"));
    assert_eq!(w.heard_in_full(c), "CONNACK 8c, closed");
    let c = w.connect(v5("c").with("max-packet=200 method=x"));
    assert!(w.heard_in_full(c).starts_with("CONNACK 8c reason="));
}

#[test]
fn v5_mqtt_3_4_2_3_no_answer_has_a_user_property_however_large_it_may_be() {
    // The broker has none of its own to add, and does not send back a client's: MQTT-3.5.2-3 (5.0) MQTT-3.6.2-3 (5.0)
    // MQTT-3.7.2-3 (5.0) MQTT-3.9.2-2 (5.0) MQTT-3.11.2-2 (5.0) MQTT-3.2.2-20 (5.0) MQTT-3.14.2-4 (5.0)
    for maximum in [20, 60, 100_000] {
        for (packet, answer) in refused() {
            let mut w = World::new();
            let c = w.connect(v5("c").with(&format!("max-packet={maximum} user=k:v")));
            // Topics and filters are text up to the end of the word, so properties stand behind the words.
            w.tell(c, &format!("{packet} user=k:v"));
            w.send_packet(c, 0x36, "");
            let frames = w.heard_bytes(c);
            assert!(frames.len() == 3 && frames.iter().all(|frame| frame.len() <= maximum), "{answer} {maximum}");
            assert_eq!([frames[0][0], frames[2][0]], [0x20, 0xE0]);
            for frame in &frames {
                assert!(!script::show(&decode(frame, Version::V5), Version::V5, Detail::Full).contains("user="));
            }
        }
        let mut w = World::new();
        let c = w.connect(v5("c").with(&format!("max-packet={maximum} user=k:v method=x")));
        let frames = w.heard_bytes(c);
        assert!(frames.len() == 1 && frames[0].len() <= maximum && frames[0][3] == 0x8C);
        assert!(!script::show(&decode(&frames[0], Version::V5), Version::V5, Detail::Full).contains("user="));
    }
}
