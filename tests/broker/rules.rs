//! What a listener's rules ask of its clients (Mosquitto's options by the same names): who is let in, under which id, and the
//! limits that are told in CONNACK. The mount point is in `mount_point`, what changes meanwhile in `reconfigure`.

use midge::codec::QoS;

use crate::harness::{World, log_count, rules};
use crate::hello::{EVERY, v5, v31, v311};

#[test]
fn a_version_that_is_not_served_is_refused_with_1_or_0x84() {
    for (refused, name) in ["3.1", "3.1.1", "5.0"].into_iter().enumerate() {
        let mut w = World::ruled(|rules| rules.accept_protocol_versions[refused] = false);
        for (number, hello) in EVERY.into_iter().enumerate() {
            let c = w.connect(hello("c"));
            let refusal = if number == 2 { "CONNACK 84, closed" } else { "CONNACK 01, closed" };
            assert_eq!(w.heard(c), if number == refused { refusal } else { "CONNACK 00" }, "{name} {number}");
        }
        assert_eq!(log_count(&format!("This listener does not serve MQTT {name} (accept_protocol_versions).")), 1);
    }
}

#[test]
fn a_refused_version_is_told_why_and_takes_nothing_over() {
    let mut w = World::new();
    let old = w.client("c");
    let c = w.connect_by(&rules(|rules| rules.accept_protocol_versions = [true, true, false]), v5("c"));
    assert_eq!(
        w.heard_in_full(c),
        "CONNACK 84 reason='this listener does not serve MQTT 5.0 (accept_protocol_versions)', closed"
    );
    assert!(w.is_open(old));
}

#[test]
fn a_bridges_version_is_judged_like_a_clients() {
    let mut w = World::ruled(|rules| rules.accept_protocol_versions = [true, false, true]);
    let c = w.connect(v311("c").bridge());
    assert_eq!(w.heard(c), "CONNACK 01, closed");
}

#[test]
fn the_user_name_takes_the_place_of_the_client_id() {
    for hello in EVERY {
        let mut w = World::ruled(|rules| rules.use_username_as_clientid = true);
        let one = w.join(hello("one").username("u"));
        assert_eq!(log_count("as u (p"), 1);
        // Another id, and the same client all the same.
        let two = w.join(hello("two").username("u"));
        assert!(!w.is_open(one) && w.is_open(two));
        w.join(hello("one").username("v"));
        assert_eq!(w.broker.session_count(), 2);
    }
}

#[test]
fn a_session_is_found_again_by_the_user_name() {
    let mut w = World::ruled(|rules| rules.use_username_as_clientid = true);
    let c = w.join(v311("one").username("u").stored());
    w.hang_up(c);
    let c = w.connect(v311("two").username("u").stored());
    assert_eq!(w.heard(c), "CONNACK 00 present");
}

#[test]
fn without_a_user_name_there_is_no_client_id() {
    let mut w = World::ruled(|rules| rules.use_username_as_clientid = true);
    for (hello, answer) in [
        (v31("c"), "CONNACK 05, closed"),
        (v311("c"), "CONNACK 05, closed"),
        (v5("c"), "CONNACK 87, closed"),
        (v311("c").username(""), "CONNACK 05, closed"),
        (v5("").username(""), "CONNACK 87, closed"),
    ] {
        let c = w.connect(hello);
        assert_eq!(w.heard(c), answer);
    }
    assert_eq!(log_count("disconnected: not authorised. There is no user name"), 5);
    assert_eq!(w.broker.session_count(), 0);
}

#[test]
fn a_user_name_in_place_of_an_empty_id_is_told_as_the_assigned_one() {
    // MQTT-3.2.2-16 (5.0)
    let mut w = World::ruled(|rules| rules.use_username_as_clientid = true);
    let c = w.connect(v5("").username("u"));
    assert_eq!(w.heard_in_full(c), "CONNACK 00 receive-max=20 assigned=u alias-max=10");
    let c = w.connect(v5("x").username("u"));
    assert!(!w.heard_in_full(c).contains("assigned="));
    // An empty id is as good or bad as ever.
    let c = w.connect(v31("").username("u"));
    assert_eq!(w.heard(c), "CONNACK 02, closed");
}

#[test]
fn limits_of_sessions_and_prefixes_judge_the_user_name() {
    let change = |rules: &mut midge::config::Rules| rules.use_username_as_clientid = true;
    let mut w = World::with_rules(|config| config.clientid_prefixes = Some("u-".into()), change);
    let c = w.connect(v311("u-1").username("x"));
    assert_eq!(w.heard(c), "CONNACK 05, closed");
    w.join(v311("x").username("u-1"));
    let mut w = World::with_rules(|config| config.global_max_clients = 1, change);
    w.join(v311("x").username("u"));
    w.join(v311("y").username("u"));
    let c = w.connect(v311("u").username("v"));
    assert_eq!(w.heard(c), "CONNACK 03, closed");
}

#[test]
fn made_up_ids_begin_as_the_listener_says() {
    let mut w = World::ruled(|rules| rules.auto_id_prefix = "tmp/".to_string());
    let c = w.connect(v5(""));
    assert!(w.heard_in_full(c).contains(" assigned=tmp/"));
}

#[test]
fn each_listener_has_rules_of_its_own() {
    let mut w = World::new();
    let (low, high) = (rules(|rules| rules.max_qos = QoS::AtMostOnce), rules(|rules| rules.max_topic_alias = 3));
    let c = w.connect_by(&low, v5("low"));
    assert_eq!(w.heard_in_full(c), "CONNACK 00 receive-max=20 max-qos=0 alias-max=10");
    w.tell(c, "SUBSCRIBE #1 t 2");
    assert_eq!(w.heard(c), "SUBACK #1 00");
    let d = w.connect_by(&high, v5("high"));
    assert_eq!(w.heard_in_full(d), "CONNACK 00 receive-max=20 alias-max=3");
    w.tell(d, "SUBSCRIBE #1 t 2, PUBLISH q1 #2 t x alias=3");
    assert_eq!((w.heard(d), w.heard(c)), ("SUBACK #1 02, PUBLISH q1 #1 t x, PUBACK #2".into(), "PUBLISH t x".into()));
    w.tell(c, "PUBLISH q1 #3 t x");
    assert_eq!(w.heard(c), "DISCONNECT 9b, closed");
}

#[test]
fn aliases_towards_a_client_are_as_many_as_its_listener_gives() {
    let mut w = World::new();
    let none = rules(|rules| rules.max_topic_alias_broker = 0);
    let (a, b) = (w.join_by(&none, v5("a").with("alias-max=5")), w.join(v5("b").with("alias-max=5")));
    w.subscribe(a, "t 0");
    w.subscribe(b, "t 0");
    let p = w.client("p");
    (0..2).for_each(|_| w.publish(p, "t x"));
    assert_eq!(w.heard(a), "PUBLISH t x, PUBLISH t x");
    assert_eq!(w.heard(b), "PUBLISH t x, PUBLISH t x alias=1");
}

#[test]
fn payloads_in_flight_stay_within_max_inflight_bytes() {
    for qos in ["q1", "q2"] {
        let mut w = World::with(|config| config.max_inflight_bytes = 100);
        let (p, s) = (w.client("p"), w.client("s"));
        w.subscribe(s, "t 2");
        for payload in ["a*60", "b*40", "c*1", "d*250", "e*250", "f*10"] {
            w.publish(p, &format!("{qos} t {payload}"));
        }
        let settle = |w: &mut World, ids: &[u16]| {
            for id in ids {
                match qos {
                    "q1" => w.tell(s, &format!("PUBACK #{id}")),
                    _ => w.tell(s, &format!("PUBREC #{id}, PUBCOMP #{id}")),
                }
            }
        };
        // 100 bytes fit, and topics do not count; the next one does not.
        assert_eq!(heard_letters(&mut w, s), "ab", "{qos}");
        settle(&mut w, &[2]);
        assert_eq!(heard_letters(&mut w, s), "c", "{qos}");
        settle(&mut w, &[1]);
        // Too large while another one is there.
        assert_eq!(heard_letters(&mut w, s), "", "{qos}");
        settle(&mut w, &[3]);
        assert_eq!(heard_letters(&mut w, s), "d", "{qos}");
        settle(&mut w, &[4]);
        assert_eq!(heard_letters(&mut w, s), "e", "{qos}");
        settle(&mut w, &[5]);
        assert_eq!(heard_letters(&mut w, s), "f", "{qos}");
    }
}

#[test]
fn max_inflight_bytes_holds_for_retained_messages_and_qos_0_passes_by() {
    let mut w = World::with(|config| config.max_inflight_bytes = 10);
    let (p, s) = (w.client("p"), w.join(v5("s")));
    for topic in ["a", "b", "c"] {
        w.publish(p, &format!("q1 retain {topic} {topic}*6"));
    }
    w.subscribe(s, "# 1");
    assert_eq!(heard_letters(&mut w, s), "a");
    w.subscribe(s, "zero 0 rh2");
    w.tell(s, "PUBACK #1");
    assert_eq!(heard_letters(&mut w, s), "b");
    w.tell(s, "PUBACK #2, PUBACK #3");
    assert_eq!(heard_letters(&mut w, s), "c");
    w.tell(s, "PUBACK #3");
    w.publish(p, "zero d*50");
    w.publish(p, "zero e*50");
    assert!(w.heard(s).contains("e*50"));
}

#[test]
fn a_share_hands_its_messages_to_members_with_room_in_bytes() {
    let mut w = World::with(|config| config.max_inflight_bytes = 10);
    let (p, one, two) = (w.client("p"), w.join(v5("one")), w.join(v5("two")));
    w.subscribe(one, "$share/g/t 1");
    w.publish(p, "q1 t a*8");
    w.subscribe(two, "$share/g/t 1");
    // It would be `one`'s turn first, which has no room.
    w.publish(p, "q1 t b*8");
    assert_eq!((heard_letters(&mut w, one), heard_letters(&mut w, two)), ("a".into(), "b".into()));
}

/// First letters of the payloads of the messages the client got.
fn heard_letters(w: &mut World, client: usize) -> String {
    let heard = w.heard(client);
    let publishes = heard.split(", ").filter(|packet| packet.starts_with("PUBLISH"));
    publishes.filter_map(|packet| packet.split(' ').next_back()?.chars().next()).collect()
}
