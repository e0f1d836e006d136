//! Keep Alive (3.1.2.10).

use crate::harness::{World, log_count};
use crate::hello::{BOTH, EVERY, v5, v31, v311};

#[test]
fn v311_mqtt_3_1_2_24_silence_of_one_and_a_half_keep_alives_ends_the_link() {
    for hello in [v31, v311] {
        for keep_alive in [1, 10, 60, 65_535] {
            let mut w = World::new();
            let watcher = w.client("watcher");
            w.subscribe(watcher, "# 0");
            let c = w.join(hello("c").keep_alive(keep_alive).will("t gone"));
            w.advance(u64::from(keep_alive) * 1500 - 1);
            assert!(w.is_open(c));
            w.advance(251);
            assert_eq!((w.heard(c), w.heard(watcher)), ("closed".into(), "PUBLISH t gone".into()));
            assert_eq!(log_count("disconnected: exceeded timeout"), 1);
        }
    }
}

#[test]
fn v5_mqtt_3_1_2_22_silence_of_one_and_a_half_keep_alives_ends_the_link() {
    // MQTT-3.2.2-22 (5.0)
    let mut w = World::new();
    let watcher = w.client("watcher");
    w.subscribe(watcher, "# 0");
    let c = w.join(v5("c").keep_alive(10).will("t gone"));
    w.advance(14_999);
    assert!(w.is_open(c));
    w.advance(251);
    assert_eq!((w.heard(c), w.heard(watcher)), ("DISCONNECT 8d, closed".into(), "PUBLISH t gone".into()));
}

#[test]
fn v311_mqtt_3_1_2_24_keep_alive_0_switches_the_check_off() {
    // MQTT-3.1.2-22 (5.0)
    for hello in EVERY {
        let mut w = World::new();
        let c = w.join(hello("c"));
        w.advance_s(1_000_000_000);
        assert!(w.is_open(c));
    }
}

#[test]
fn v311_mqtt_3_1_2_24_every_packet_counts() {
    // MQTT-3.1.2-22 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c").keep_alive(10));
        for packet in ["PINGREQ", "PUBLISH t x", "SUBSCRIBE #1 t 0", "PUBACK #9", "PUBREL #9", "PINGREQ"] {
            w.advance(14_900);
            assert!(w.is_open(c), "{packet}");
            w.tell(c, packet);
        }
        w.advance(15_250);
        assert!(!w.is_open(c));
    }
}

#[test]
fn late_pings_up_to_one_and_a_half_keep_alives_are_fine() {
    let mut w = World::new();
    let c = w.client("c");
    w.hang_up(c);
    let c = w.join(v311("c").keep_alive(15));
    for _ in 0..1000 {
        w.advance(22_400);
        w.tell(c, "PINGREQ");
        assert_eq!(w.heard(c), "PINGRESP");
    }
}

#[test]
fn what_the_broker_sends_does_not_count() {
    for hello in BOTH {
        let mut w = World::new();
        let (p, c) = (w.client("p"), w.join(hello("c").keep_alive(10)));
        w.subscribe(c, "t 0");
        for _ in 0..15 {
            w.advance_s(1);
            w.publish(p, "t x");
        }
        w.advance(250);
        assert!(!w.is_open(c));
    }
}

#[test]
fn v5_mqtt_3_1_2_22_server_keep_alive_is_the_one_that_holds() {
    for asked in [0, 100] {
        let mut w = World::with(|config| config.max_keepalive_s = 10);
        let c = w.connect(v5("c").keep_alive(asked));
        assert!(w.heard_in_full(c).contains("keep-alive=10"));
        w.advance(14_999);
        assert!(w.is_open(c));
        w.advance(251);
        assert_eq!(w.heard(c), "DISCONNECT 8d, closed");
    }
}

#[test]
fn a_keep_alive_above_the_limit_is_refused_in_3_1_1() {
    for asked in [0, 11] {
        let mut w = World::with(|config| config.max_keepalive_s = 10);
        let c = w.connect(v311("c").keep_alive(asked));
        assert_eq!(w.heard(c), "CONNACK 02, closed");
        w.join(v311("c").keep_alive(10));
    }
}

#[test]
fn v311_mqtt_3_1_2_24_a_byte_of_a_packet_now_and_then_is_no_sign_of_life() {
    // MQTT-3.1.2-22 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let c = w.join(hello("c").keep_alive(10));
        w.send_hex(c, "c0 00 30 64 00 01 \"t\"");
        for _ in 0..14 {
            w.advance_s(1);
            w.send_hex(c, "61");
            assert!(w.is_open(c));
        }
        w.advance(1250);
        assert!(!w.is_open(c));
        assert_eq!(log_count("disconnected: exceeded timeout"), 1);
    }
}

#[test]
fn a_large_packet_on_a_slow_line_is_a_sign_of_life() {
    let mut w = World::new();
    let (c, s) = (w.join(v311("c").keep_alive(10)), w.client("s"));
    w.subscribe(s, "t 0");
    let packet = crate::harness::packet(0x30, &[&[0, 1, b't'][..], &[b'x'; 50_000]].concat());
    for part in packet.chunks(1024) {
        w.advance_s(14);
        w.send(c, part);
    }
    assert_eq!(w.heard(s), "PUBLISH t x*50000");
    w.advance(15_250);
    assert!(!w.is_open(c));
}

#[test]
fn without_keep_alive_a_packet_may_take_for_ever() {
    // Who may be silent for ever may be slow; it costs the bytes it sent.
    let mut w = World::new();
    let (c, s) = (w.client("c"), w.client("s"));
    w.subscribe(s, "t 0");
    w.send_hex(c, "30 0a 00 01 \"t\"");
    for _ in 0..7 {
        w.advance_s(86_400);
        w.send_hex(c, "61");
    }
    assert_eq!(w.heard(s), "PUBLISH t aaaaaaa");
}

#[test]
fn a_client_that_waits_for_its_turn_to_be_read_is_not_silent() {
    let mut w = World::new();
    let c = w.join(v311("c").keep_alive(2));
    for _ in 0..10 {
        w.advance(2900);
        w.broker.waits_unread(w.link(c), w.now);
    }
    assert!(w.is_open(c));
    w.advance(3250);
    assert_eq!(w.heard(c), "closed");
}

#[test]
fn connect_must_be_complete_in_time_however_it_trickles_in() {
    for hello in EVERY {
        let mut w = World::new();
        let c = w.dial(hello("").version);
        for byte in hello("a-client-with-a-long-name").bytes().into_iter().take(29) {
            w.send(c, &[byte]);
            w.advance_s(1);
            assert!(w.is_open(c));
        }
        w.advance(1250);
        assert!(!w.is_open(c));
        assert_eq!(log_count("disconnected: exceeded timeout. No complete CONNECT came within connect_timeout."), 1);
    }
}

#[test]
fn the_broker_says_when_it_must_be_woken_next() {
    let mut w = World::new();
    let after = |w: &World| w.broker.next_deadline().map(|deadline| deadline.0 - w.now.0);
    assert_eq!(after(&w), None);
    let stranger = w.dial(v311("").version);
    assert_eq!(after(&w), Some(30_000));
    let slow = w.join(v311("slow").keep_alive(10));
    assert_eq!(after(&w), Some(15_000));
    let fast = w.join(v311("fast").keep_alive(4));
    assert_eq!(after(&w), Some(6_000));
    w.advance_s(5);
    assert_eq!(after(&w), Some(1_000));
    for (client, left) in [(fast, Some(10_000)), (slow, Some(25_000)), (stranger, None)] {
        w.hang_up(client);
        assert_eq!(after(&w), left);
    }
}

#[test]
fn an_idle_broker_has_nothing_to_wake_up_for() {
    let mut w = World::new();
    let c = w.join(v311("c").stored());
    w.subscribe(c, "t 2");
    w.publish(c, "retain t x");
    w.tell(c, "PUBACK #1");
    assert_eq!(w.broker.next_deadline(), None);
    assert!(!w.broker.has_work());
}
