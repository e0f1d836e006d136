//! Session state (3.1.2.4, 4.1): what is kept between connections, and for how long.

use crate::harness::{World, log_count};
use crate::hello::{BOTH, v5, v31, v311};

#[test]
fn v311_mqtt_3_1_2_4_a_stored_session_is_picked_up() {
    // MQTT-3.1.2-5 (5.0) MQTT-3.1.2-6 (5.0) MQTT-3.1.2-23 (5.0) MQTT-4.1.0-1 (3.1.1)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 1 u/+ 0");
        for end in 0..3 {
            match end {
                0 => w.hang_up(s),
                1 => w.tell(s, "DISCONNECT"),
                _ => w.send_hex(s, "00"),
            }
            let s = w.connect(hello("s").stored());
            assert_eq!(w.heard(s), "CONNACK 00 present");
            w.publish(p, "q1 t x");
            w.publish(p, "u/v y");
            let heard = w.heard(s);
            assert!(heard.starts_with("PUBLISH q1 #") && heard.ends_with(" t x, PUBLISH u/v y"), "{heard}");
            let id = heard.split(['#', ' ']).nth(3).unwrap();
            w.tell(s, &format!("PUBACK #{id}"));
        }
    }
}

#[test]
fn v311_mqtt_3_1_2_5_qos_1_and_2_messages_wait_for_an_offline_session() {
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 2");
        w.hang_up(s);
        w.publish(p, "q1 t one");
        w.publish(p, "t zero");
        w.publish(p, "q2 t two");
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t one, PUBLISH q2 #2 t two");
    }
}

#[test]
fn qos_0_messages_wait_for_an_offline_session_if_configured() {
    let mut w = World::with(|config| config.queue_qos0_messages = true);
    let (p, s) = (w.client("p"), w.join(v311("s").stored()));
    w.subscribe(s, "t 1");
    w.hang_up(s);
    w.publish(p, "q1 t one");
    w.publish(p, "t zero");
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t one, PUBLISH t zero");
}

#[test]
fn v311_mqtt_3_1_2_6_clean_session_leaves_nothing_of_earlier_and_to_later_ones() {
    // MQTT-3.1.2-4 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 2");
        w.publish(p, "q2 t inflight");
        w.tell(s, "PUBLISH q2 #9 x y");
        w.hang_up(s);
        w.publish(p, "q1 t queued");
        // A clean one sees nothing of the stored one ...
        let s = w.connect(hello("s"));
        assert_eq!(w.heard(s), "CONNACK 00");
        assert_eq!(w.broker.subscription_count(), 0);
        w.tell(s, "PUBREL #9");
        assert!(w.heard(s).starts_with("PUBCOMP #9"));
        w.subscribe(s, "t 1");
        w.publish(p, "q1 t open");
        w.hang_up(s);
        assert_eq!((w.broker.session_count(), w.broker.subscription_count()), (1, 0));
        w.publish(p, "q1 t missed");
        // ... and leaves nothing to the next.
        let s = w.connect(hello("s").stored());
        assert_eq!(w.heard(s), "CONNACK 00");
        w.publish(p, "q1 t nobody");
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn v311_mqtt_3_1_3_2_sessions_are_told_apart_by_their_client_id() {
    // MQTT-3.1.3-2 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let p = w.join(hello("p"));
        for id in ["s", "S", "s ", "ss", "\u{e9}", "e\u{301}"] {
            let s = w.join(hello(id).stored());
            w.subscribe(s, "t 1");
            w.hang_up(s);
        }
        w.publish(p, "q1 t x");
        assert_eq!(w.broker.session_count(), 7);
        for id in ["s", "S", "s ", "ss", "\u{e9}", "e\u{301}"] {
            let s = w.connect(hello(id).stored());
            assert_eq!(w.heard(s), "CONNACK 00 present, PUBLISH q1 #1 t x");
        }
    }
}

#[test]
fn v311_mqtt_4_1_0_2_a_session_lasts_at_least_as_long_as_its_connection() {
    // MQTT-4.1.0-1 (5.0)
    for hello in BOTH {
        let mut w = World::with(|config| config.persistent_client_expiration_s = 5);
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        let stored = w.join(hello("stored").stored());
        w.subscribe(s, "t 0");
        w.subscribe(stored, "t 0");
        w.advance_s(1_000_000);
        w.publish(p, "t x");
        assert_eq!((w.heard(s), w.heard(stored)), ("PUBLISH t x".into(), "PUBLISH t x".into()));
    }
}

#[test]
fn v5_mqtt_4_1_0_2_the_session_ends_when_its_expiry_interval_is_over() {
    let mut w = World::with(|config| config.persistent_client_expiration_s = 0);
    for (expiry, after, is_there) in [(10, 9, true), (10, 11, false), (u32::MAX, 5_000_000_000, true), (0, 0, false)] {
        let c = w.join(v5("c").with(&format!("session-expiry={expiry}")));
        w.subscribe(c, "t 0");
        w.hang_up(c);
        w.advance_s(after);
        assert_eq!(w.broker.session_count(), is_there as usize, "{expiry} {after}");
        assert_eq!(w.broker.subscription_count(), is_there as usize);
        w.join(v5("c"));
        let c = w.join(v5("c"));
        w.tell(c, "DISCONNECT");
    }
}

#[test]
fn the_expiry_interval_counts_from_the_end_of_the_connection() {
    let mut w = World::new();
    let c = w.join(v5("c").with("session-expiry=10"));
    w.advance_s(60);
    w.hang_up(c);
    w.advance_s(8);
    let c = w.connect(v5("c").clean(false).with("session-expiry=10"));
    assert_eq!(w.heard(c), "CONNACK 00 present");
    w.advance_s(60);
    w.hang_up(c);
    w.advance_s(8);
    let c = w.connect(v5("c").clean(false));
    assert_eq!(w.heard(c), "CONNACK 00 present");
    w.hang_up(c);
    assert_eq!(w.broker.session_count(), 0);
}

#[test]
fn stored_sessions_of_3_x_are_dropped_after_30_days() {
    let day = 86_400;
    for hello in [v31, v311] {
        let mut w = World::new();
        let c = w.join(hello("c").clean(false));
        w.subscribe(c, "t 1");
        w.hang_up(c);
        w.advance_s(30 * day - 1);
        assert_eq!(w.broker.session_count(), 1);
        w.advance_s(2);
        assert_eq!((w.broker.session_count(), w.broker.subscription_count()), (0, 0));
        assert_eq!((w.broker.stats().sessions_expired, log_count("Expiring client c due to timeout.")), (1, 1));
    }
}

#[test]
fn a_session_is_handed_from_one_version_to_another() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v5("s").stored()));
    w.subscribe(s, "t 2");
    w.publish(p, "q2 t x");
    w.heard(s);
    w.hang_up(s);
    let s = w.connect(v311("s").clean(false));
    assert_eq!(w.heard(s), "CONNACK 00 present, PUBLISH dup q2 #1 t x");
    let s = w.connect(v31("s").clean(false));
    assert_eq!(w.heard(s), "CONNACK 00, PUBLISH dup q2 #1 t x");
    let s = w.connect(v5("s").stored());
    assert_eq!(w.heard(s), "CONNACK 00 present, PUBLISH dup q2 #1 t x");
}

#[test]
fn v5_mqtt_3_3_2_5_a_queued_message_is_dropped_when_it_expires() {
    // MQTT-3.3.2-6 (5.0)
    let mut w = World::new();
    let (p, s) = (w.join(v5("p")), w.join(v5("s").stored()));
    w.subscribe(s, "t 2");
    w.hang_up(s);
    w.publish(p, "q1 t short expiry=10");
    w.publish(p, "q2 t long expiry=100");
    w.publish(p, "q1 t ever");
    w.advance_s(20);
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s), "PUBLISH q2 #1 t long expiry=80, PUBLISH q1 #2 t ever");
    assert_eq!(w.broker.stats().messages_expired, 1);
}

#[test]
fn v5_mqtt_4_3_3_7_a_message_on_its_way_does_not_expire() {
    // MQTT-4.3.3-13 (5.0)
    let mut w = World::new();
    let (p, s) = (w.join(v5("p")), w.join(v5("s").stored()));
    w.subscribe(s, "t 2");
    w.tell(p, "PUBLISH q2 #5 t x expiry=10");
    assert_eq!(w.heard(p), "PUBREC #5");
    assert_eq!(w.heard(s), "PUBLISH q2 #1 t x expiry=10");
    w.hang_up(s);
    w.advance_s(60);
    w.tell(p, "PUBREL #5");
    assert_eq!(w.heard(p), "PUBCOMP #5");
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s), "PUBLISH dup q2 #1 t x expiry=0");
    w.tell(s, "PUBREC #1");
    assert_eq!(w.heard(s), "PUBREL #1");
    w.tell(s, "PUBCOMP #1");
    w.hang_up(s);
    let s = w.join(v5("s").stored());
    assert_eq!(w.heard(s), "");
}

#[test]
fn thousands_of_take_overs_leave_one_session_and_one_link() {
    let mut w = World::new();
    let mut c = w.join(v311("c").stored());
    w.subscribe(c, "t 1");
    for _ in 0..2000 {
        let new = w.connect(v311("c").stored());
        assert_eq!((w.heard(c), w.heard(new)), ("closed".into(), "CONNACK 00 present".into()));
        c = new;
    }
    assert_eq!((w.broker.link_count(), w.broker.session_count(), w.broker.subscription_count()), (1, 1, 1));
}

#[test]
fn a_take_over_goes_on_with_what_the_older_connection_had_not_acknowledged() {
    for hello in BOTH {
        let mut w = World::new();
        let (p, old) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(old, "t 1");
        (0..25).for_each(|number| w.publish(p, &format!("q1 t {number}")));
        assert_eq!(w.heard(old).matches("PUBLISH").count(), 20);
        let new = w.join(hello("s").stored());
        w.acknowledges(new);
        let heard = w.heard(new);
        assert!(heard.starts_with("PUBLISH dup q1 #1 t 0, PUBLISH dup q1 #2 t 1"), "{heard}");
        (1..=20).for_each(|id| w.tell(new, &format!("PUBACK #{id}")));
        assert_eq!(w.heard(new).matches("PUBLISH q1").count(), 5);
    }
}
