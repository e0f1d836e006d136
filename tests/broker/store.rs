//! What is stored, when it is acknowledged, and what is there again after a power cut. The disk of these worlds is safe at once,
//! or slow: then a batch is safe when the test says so.

use midge::broker::Part;
use midge::codec::Version;
use midge::config::{Autosave, Persistence};

use crate::harness::{Client, World};
use crate::hello::{BOTH, EVERY, v5, v311};

fn slow() -> World {
    let mut w = World::stored();
    w.disk.is_slow = true;
    w
}

/// A stored client that subscribed, on a disk that is slow from here on.
fn with_subscriber(version_is_5: bool, filters: &str) -> (World, Client) {
    let mut w = World::stored();
    let s = w.join(if version_is_5 { v5("s").stored() } else { v311("s").stored() });
    w.subscribe(s, filters);
    w.disk.is_slow = true;
    (w, s)
}

#[test]
fn puback_of_a_retained_message_waits_until_it_is_safe() {
    for hello in EVERY {
        let mut w = slow();
        let p = w.join(hello("p"));
        w.tell(p, "PUBLISH q1 retain #1 t x, PINGREQ");
        assert_eq!(w.heard(p), "PINGRESP");
        assert!(w.sync());
        assert!(w.heard(p).starts_with("PUBACK #1"));
        w.cut_power();
        assert_eq!(w.broker.retained_count(), 1);
    }
}

#[test]
fn what_nothing_is_stored_of_is_acknowledged_at_once() {
    for hello in EVERY {
        let mut w = slow();
        let (p, s) = (w.join(hello("p")), w.join(hello("s")));
        w.tell(s, "SUBSCRIBE #1 t 2");
        assert!(w.heard(s).starts_with("SUBACK #1"));
        w.tell(p, "PUBLISH q1 #1 t x, PUBLISH q2 #2 t y, PUBLISH q1 #3 nobody z");
        let heard = w.heard(p);
        assert!(heard.contains("PUBACK #1, PUBREC #2, PUBACK #3"), "{heard}");
        w.advance_s(60);
        assert!(!w.sync() && w.disk.bytes() == 0);
    }
}

#[test]
fn a_message_that_is_delivered_and_acknowledged_in_time_is_never_written() {
    for is_5 in [false, true] {
        let (mut w, s) = with_subscriber(is_5, "t 1");
        let written = w.disk.bytes();
        let p = w.client("p");
        w.tell(p, "PUBLISH q1 #1 t x");
        assert_eq!((w.heard(s), w.heard(p)), ("PUBLISH q1 #1 t x".into(), "".into()));
        w.advance(19);
        w.tell(s, "PUBACK #1");
        assert_eq!(w.heard(p), "PUBACK #1");
        w.advance_s(60);
        w.sync();
        assert_eq!(w.disk.bytes(), written);
    }
}

#[test]
fn a_message_that_is_not_acknowledged_in_time_is_written_and_its_end_later() {
    let (mut w, s) = with_subscriber(false, "t 1");
    let p = w.client("p");
    w.tell(p, "PUBLISH q1 #1 t x");
    w.advance(20);
    assert_eq!(w.heard(p), "");
    assert!(w.sync());
    assert_eq!(w.heard(p), "PUBACK #1");
    w.heard(s);
    w.tell(s, "PUBACK #1");
    // Nobody waits for that.
    w.advance(4000);
    assert!(!w.sync());
    w.advance(2000);
    assert!(w.sync());
    w.cut_power();
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s), "");
}

#[test]
fn one_acknowledged_message_does_not_wait_for_another_ones_subscriber_but_for_its_turn() {
    // MQTT-4.6.0-2 (3.1.1) MQTT-4.6.0-2 (5.0)
    let (mut w, s) = with_subscriber(false, "t 1");
    let (p, q) = (w.client("p"), w.client("q"));
    w.tell(p, "PUBLISH q1 #1 t one, PUBLISH q1 #2 nobody x");
    w.tell(q, "PUBLISH q1 #1 t two");
    assert_eq!((w.heard(p), w.heard(q)), ("".into(), "".into()));
    w.tell(s, "PUBACK #2");
    assert_eq!((w.heard(p), w.heard(q)), ("".into(), "PUBACK #1".into()));
    w.tell(s, "PUBACK #1");
    assert_eq!(w.heard(p), "PUBACK #1, PUBACK #2");
}

#[test]
fn a_message_for_somebody_who_is_away_is_written_once_for_all() {
    let mut w = World::stored();
    for id in ["a", "b", "c"] {
        let s = w.join(v311(id).stored());
        w.subscribe(s, "t 1");
        w.tell(s, "DISCONNECT");
    }
    let written = w.disk.bytes();
    let p = w.client("p");
    w.publish(p, "q1 t x*5000");
    let added = w.disk.bytes() - written;
    assert!((5000..5100).contains(&added), "{added}");
    w.cut_power();
    for id in ["a", "b", "c"] {
        let s = w.join(v311(id).stored());
        assert!(w.heard(s).starts_with("PUBLISH q1 #"));
    }
}

#[test]
fn the_same_value_again_writes_nothing() {
    let mut w = World::stored();
    let p = w.client("p");
    w.publish(p, "q1 retain t x");
    let written = w.disk.bytes();
    w.publish(p, "q1 retain t x");
    assert_eq!(w.disk.bytes(), written);
    w.publish(p, "q1 retain t y");
    w.publish(p, "q1 retain t");
    assert!(w.disk.bytes() > written);
}

#[test]
fn the_same_value_waits_for_the_first_to_be_safe() {
    let mut w = slow();
    let (p, q) = (w.client("p"), w.client("q"));
    w.tell(p, "PUBLISH retain t x");
    w.tell(q, "PUBLISH q1 retain #1 t x");
    assert_eq!(w.heard(q), "");
    w.sync();
    assert_eq!(w.heard(q), "PUBACK #1");
}

#[test]
fn many_changes_of_one_retained_value_are_written_once() {
    let mut w = slow();
    let p = w.client("p");
    for number in 0..100 {
        w.publish(p, &format!("retain t number-{number}"));
    }
    w.advance_s(6);
    assert!(w.sync() && w.disk.bytes() < 40, "{}", w.disk.bytes());
    w.cut_power();
    let s = w.client("s");
    w.subscribe(s, "t 0");
    assert_eq!(w.heard(s), "PUBLISH retain t number-99");
}

#[test]
fn retained_messages_come_back_with_all_they_had() {
    let mut w = World::stored();
    let p = w.join(v5("p"));
    w.publish(p, "q2 retain a/b one type=text user=k:v");
    w.publish(p, "q1 retain expires soon expiry=100");
    w.publish(p, "q1 retain cleared x");
    w.publish(p, "q1 retain cleared");
    w.publish(p, "q1 retain $SYS/broker/connection/b/state 1");
    w.advance_s(10);
    w.cut_power();
    w.advance_s(30);
    let s = w.join(v5("s"));
    w.subscribe(s, "# 2 $SYS/broker/connection/# 2");
    let heard = w.heard_in_full(s);
    assert!(heard.contains("a/b one") && heard.contains("type=text") && heard.contains("user=k:v"), "{heard}");
    assert!(heard.contains("expires soon expiry=60") && !heard.contains("cleared"), "{heard}");
    assert!(!heard.contains("/state"), "the broker's own topics are made anew: {heard}");
    w.advance_s(61);
    let s = w.join(v5("later"));
    w.subscribe(s, "# 0");
    assert_eq!(w.heard(s), "PUBLISH retain a/b one type=text user=k:v");
}

#[test]
fn no_local_holds_for_retained_messages_from_before() {
    let mut w = World::stored();
    let p = w.join(v5("p"));
    w.publish(p, "q1 retain t x");
    w.cut_power();
    let p = w.join(v5("p"));
    w.subscribe(p, "t 1 nl");
    assert_eq!(w.heard(p), "");
    let other = w.join(v5("other"));
    w.subscribe(other, "t 1 nl");
    assert_eq!(w.heard(other), "PUBLISH retain q1 #1 t x");
}

#[test]
fn sessions_come_back_with_their_subscriptions() {
    // MQTT-4.1.0-1 (3.1.1) MQTT-4.1.0-1 (5.0)
    for hello in BOTH {
        let mut w = World::stored();
        let s = w.join(hello("s").stored());
        w.subscribe(s, "a/+ 1 b 0 c/# 2 gone 1");
        w.tell(s, "UNSUBSCRIBE #9 gone");
        w.cut_power();
        let p = w.join(hello("p"));
        let s = w.connect(hello("s").stored());
        assert_eq!(w.heard(s), "CONNACK 00 present");
        for words in ["q1 a/x 1", "b 2", "q2 c 3", "q1 gone 4"] {
            w.publish(p, words);
        }
        let heard = w.heard(s);
        assert!(heard.contains("a/x 1") && heard.contains("PUBLISH b 2") && heard.contains("c 3"), "{heard}");
        assert!(!heard.contains("gone"));
    }
}

#[test]
fn options_of_subscriptions_come_back() {
    let mut w = World::stored();
    let s = w.join(v5("s").stored());
    w.tell(s, "SUBSCRIBE #1 rap 1 rap sid=7, SUBSCRIBE #2 own 1 nl, SUBSCRIBE #3 $share/x/shared 1 sid=9");
    w.cut_power();
    let (p, s) = (w.join(v5("p")), w.join(v5("s").stored()));
    w.publish(p, "q1 retain rap x");
    w.publish(p, "q1 shared y");
    w.publish(s, "q1 own z");
    let heard = w.heard_in_full(s);
    assert!(heard.contains("retain") && heard.contains("sid=7") && heard.contains("sid=9"), "{heard}");
    assert!(!heard.contains("own z"));
}

#[test]
fn suback_and_unsuback_wait_until_they_are_true() {
    for hello in BOTH {
        let mut w = slow();
        let s = w.join(hello("s").stored());
        w.tell(s, "SUBSCRIBE #1 t 1");
        assert_eq!(w.heard(s), "");
        w.cut_power();
        assert_eq!((w.broker.session_count(), w.broker.subscription_count()), (0, 0));
        let s = w.join(hello("s").stored());
        w.tell(s, "SUBSCRIBE #1 t 1");
        w.sync();
        assert_eq!(w.heard(s), "SUBACK #1 01");
        // What it has already depends on nothing.
        w.tell(s, "SUBSCRIBE #2 t 1");
        assert_eq!(w.heard(s), "SUBACK #2 01");
        w.tell(s, "UNSUBSCRIBE #3 t");
        assert_eq!(w.heard(s), "");
        w.sync();
        assert!(w.heard(s).starts_with("UNSUBACK #3"));
        w.cut_power();
        assert_eq!((w.broker.session_count(), w.broker.subscription_count()), (1, 0));
    }
}

#[test]
fn messages_on_their_way_come_back_with_their_packet_ids() {
    // MQTT-4.4.0-1 (3.1.1) MQTT-4.4.0-1 (5.0)
    for hello in BOTH {
        let mut w = World::with(|config| {
            config.persistence = midge::config::Persistence::Always;
            config.max_inflight_messages = 3;
        });
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 2");
        for words in ["q1 t one", "q2 t two", "q1 t three", "q2 t four", "q1 t five"] {
            w.publish(p, words);
        }
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t one, PUBLISH q2 #2 t two, PUBLISH q1 #3 t three");
        w.tell(s, "PUBREC #2");
        assert_eq!(w.heard(s), "PUBREL #2");
        w.cut_power();
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t one, PUBREL #2, PUBLISH dup q1 #3 t three");
        w.acknowledges(s);
        w.tell(s, "PUBACK #1, PUBCOMP #2, PUBACK #3");
        assert_eq!(w.heard(s), "PUBLISH q2 #4 t four, PUBLISH q1 #5 t five, PUBREL #4");
        w.cut_power();
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn what_was_sent_is_written_no_later_than_what_waits_behind_it() {
    // MQTT-4.6.0-6 (3.1.1) MQTT-4.6.0-6 (5.0)
    for hello in BOTH {
        let mut w = World::with(|config| {
            config.persistence = midge::config::Persistence::Always;
            config.max_inflight_messages = 2;
        });
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 1");
        w.disk.is_slow = true;
        w.tell(p, "PUBLISH q1 #1 t one, PUBLISH q1 #2 t two, PUBLISH q1 #3 t three");
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t one, PUBLISH q1 #2 t two");
        assert!(w.sync());
        w.cut_power();
        let s = w.join(hello("s").stored());
        assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t one, PUBLISH dup q1 #2 t two");
    }
}

#[test]
fn a_qos_2_message_of_a_stored_client_reaches_nobody_before_it_is_safe() {
    // MQTT-4.3.3-2 (3.1.1) MQTT-4.3.3-10 (5.0)
    for hello in BOTH {
        let mut w = slow();
        let (p, s) = (w.join(hello("p").stored()), w.join(hello("s")));
        w.subscribe(s, "t 2 u 0");
        w.tell(p, "PUBLISH q2 #1 t x, PUBLISH q2 #2 u y, PUBLISH q2 dup #1 t x");
        assert_eq!((w.heard(p), w.heard(s)), ("".into(), "".into()));
        w.cut_power();
        let (p, s) = (w.join(hello("p").stored()), w.join(hello("s")));
        w.subscribe(s, "t 2 u 0");
        w.tell(p, "PUBLISH q2 dup #1 t x, PUBLISH q2 dup #2 u y");
        w.sync();
        assert_eq!(w.heard(p), "PUBREC #1, PUBREC #2");
        assert_eq!(w.heard(s), "PUBLISH q2 #1 t x, PUBLISH u y");
        // The broker knows them again, and nobody else gets to.
        w.sync();
        w.cut_power();
        let (p, s) = (w.join(hello("p").stored()), w.join(hello("s")));
        w.subscribe(s, "t 2 u 0");
        w.tell(p, "PUBLISH q2 dup #1 t x, PUBREL #2");
        w.sync();
        assert_eq!(w.heard(p), "PUBREC #1, PUBCOMP #2");
        assert_eq!(w.heard(s), "");
    }
}

#[test]
fn a_qos_2_message_that_is_safe_is_routed_after_a_power_cut() {
    let (mut w, _) = with_subscriber(false, "t 2");
    let p = w.join(v311("p").stored());
    w.tell(p, "PUBLISH q2 retain #1 t x");
    // Its acceptance is safe, and before its routing is, the power goes.
    assert!(w.sync());
    w.cut_power();
    let p = w.join(v311("p").stored());
    w.tell(p, "PUBLISH q2 dup retain #1 t x, PUBREL #1");
    w.sync();
    w.sync();
    assert_eq!(w.heard(p), "PUBREC #1, PUBCOMP #1");
    let s = w.join(v311("s").stored());
    w.sync();
    w.sync();
    assert_eq!(w.heard(s), "PUBLISH q2 #1 t x");
    assert_eq!(w.broker.retained_count(), 1);
}

#[test]
fn a_stored_client_gets_a_qos_2_message_once_its_packet_id_is_safe() {
    // MQTT-4.3.3-1 (3.1.1) MQTT-4.3.3-3 (5.0)
    for is_5 in [false, true] {
        let (mut w, s) = with_subscriber(is_5, "t 2");
        let p = w.client("p");
        w.tell(p, "PUBLISH q2 #1 t x");
        assert_eq!((w.heard(p), w.heard(s)), ("".into(), "".into()));
        w.sync();
        assert_eq!((w.heard(p), w.heard(s)), ("PUBREC #1".into(), "PUBLISH q2 #1 t x".into()));
        w.tell(s, "PUBREC #1");
        assert_eq!(w.heard(s), "");
        w.sync();
        assert_eq!(w.heard(s), "PUBREL #1");
        w.cut_power();
        let s = w.join(if is_5 { v5("s").stored() } else { v311("s").stored() });
        w.tell(s, "PUBCOMP #1");
        assert_eq!(w.heard(s), "PUBREL #1");
    }
}

#[test]
fn pubrel_of_a_message_that_may_come_again_is_not_sent_on_a_new_link_either() {
    let (mut w, s) = with_subscriber(false, "t 2");
    let p = w.client("p");
    w.tell(p, "PUBLISH q2 #1 t x");
    w.sync();
    w.tell(s, "PUBREC #1");
    w.heard(s);
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s), "");
    w.sync();
    assert_eq!(w.heard(s), "PUBREL #1");
}

#[test]
fn pubcomp_waits_until_the_packet_id_is_free_for_good() {
    let mut w = World::stored();
    let p = w.join(v311("p").stored());
    w.tell(p, "PUBLISH q2 #1 t x");
    assert_eq!(w.heard(p), "PUBREC #1");
    w.disk.is_slow = true;
    w.tell(p, "PUBREL #1");
    assert_eq!(w.heard(p), "");
    w.sync();
    assert_eq!(w.heard(p), "PUBCOMP #1");
    w.cut_power();
    // Another message, not a repeat.
    let (s, p) = (w.client("s"), w.join(v311("p").stored()));
    w.subscribe(s, "t 0");
    w.tell(p, "PUBLISH q2 #1 t y");
    w.sync();
    assert_eq!(w.heard(s), "PUBLISH t y");
}

#[test]
fn a_retained_message_does_not_overtake_one_that_waits_to_be_safe() {
    let mut w = slow();
    let p = w.join(v311("p").stored());
    w.tell(p, "PUBLISH q2 retain #1 t older, PUBLISH q1 retain #2 t newer, PUBLISH retain t newest");
    w.sync();
    w.sync();
    assert_eq!(w.heard(p), "PUBREC #1, PUBACK #2");
    let s = w.client("s");
    w.subscribe(s, "t 0");
    assert_eq!(w.heard(s), "PUBLISH retain t newest");
}

#[test]
fn wills_and_ends_of_sessions_come_in_time_after_a_power_cut() {
    // MQTT-3.1.2-8 (5.0)
    let mut w = World::stored();
    let waits = w.join(v5("waits").stored().will("q1 retain gone waits will-delay=100"));
    w.join(v5("here").stored().will("q1 retain gone2 here will-delay=10"));
    let leaves = w.join(v5("leaves").stored().will("q1 retain gone3 leaves"));
    w.tell(leaves, "DISCONNECT");
    w.hang_up(waits);
    w.advance_s(60);
    w.cut_power();
    assert_eq!(w.broker.retained_count(), 0);
    w.advance_s(11);
    assert_eq!(w.broker.retained_count(), 1, "the will of the one that was connected is due from the cut on");
    w.advance_s(30);
    assert_eq!(w.broker.retained_count(), 2, "and the one that waited has waited before");
    w.advance_s(3600);
    assert_eq!((w.broker.session_count(), w.broker.retained_count()), (0, 2));
    w.cut_power();
    assert_eq!((w.broker.session_count(), w.broker.retained_count()), (0, 2));
}

#[test]
fn retained_messages_owed_to_a_subscription_are_owed_after_a_power_cut() {
    let mut w = World::stored();
    let p = w.client("p");
    for number in 0..40 {
        w.publish(p, &format!("q1 retain t/{number} x"));
    }
    let s = w.join(v311("s").stored());
    w.subscribe(s, "t/# 1");
    assert_eq!(w.heard(s).matches("PUBLISH").count(), 20);
    w.cut_power();
    let s = w.client_that_acknowledges(v311("s").stored());
    let heard = w.heard(s);
    assert!((0..40).all(|number| heard.contains(&format!(" t/{number} x"))), "{heard}");
    w.cut_power();
    let s = w.join(v311("s").stored());
    assert_eq!(w.heard(s), "");
}

#[test]
fn a_clean_session_leaves_nothing_in_the_store() {
    for hello in BOTH {
        let mut w = World::stored();
        let s = w.join(hello("s").stored());
        w.subscribe(s, "t 1");
        w.hang_up(s);
        let p = w.client("p");
        w.publish(p, "q1 t x");
        w.join(hello("s"));
        w.cut_power();
        assert_eq!((w.broker.session_count(), w.broker.subscription_count()), (0, 0));
        // The store of the dead has no message either: nothing refers to it.
        assert_eq!(w.broker.live_bytes(), 0);
    }
}

#[test]
fn what_a_member_of_a_share_leaves_is_safe_with_the_next() {
    // MQTT-4.8.2-4 (5.0)
    let mut w = World::stored();
    let (a, b) = (w.join(v5("a").stored()), w.join(v5("b").stored()));
    w.subscribe(a, "$share/g/t 1");
    let p = w.join(v5("p"));
    w.publish(p, "q1 t x");
    assert_eq!(w.heard(a), "PUBLISH q1 #1 t x");
    w.subscribe(b, "$share/g/t 1");
    w.hang_up(a);
    assert_eq!(w.heard(b), "PUBLISH q1 #1 t x");
    w.cut_power();
    let (a, b) = (w.join(v5("a").stored()), w.join(v5("b").stored()));
    assert_eq!((w.heard(a), w.heard(b)), ("".into(), "PUBLISH dup q1 #1 t x".into()));
}

/// Everything a world holds, told by its clients.
fn told(w: &mut World) -> Vec<String> {
    let mut told = Vec::new();
    for id in ["a", "b", "c"] {
        let s = w.connect(v5(id).stored());
        told.push(w.heard_in_full(s));
        w.hang_up(s);
    }
    let s = w.join(v5("watcher"));
    w.acknowledges(s);
    w.subscribe(s, "# 1");
    told.push(w.heard(s));
    w.hang_up(s);
    told
}

/// A world with a bit of everything, on a slow disk.
fn full() -> World {
    let mut w = World::stored();
    let (a, b) = (w.join(v5("a").stored()), w.join(v5("b").stored()));
    w.join(v5("c").stored().will("q1 w gone will-delay=1000"));
    w.subscribe(a, "t/+ 1 $share/g/x 2 u 2");
    w.subscribe(b, "t/# 2 v 1");
    w.tell(b, "PUBREC #77");
    let p = w.join(v5("p"));
    for number in 0..30 {
        w.publish(p, &format!("q1 t/{number} {}", "x*3000"));
        w.publish(p, &format!("q2 retain r/{number} {}", "y*3000"));
    }
    w.tell(a, "PUBACK #1, PUBACK #2");
    w.tell(b, "PUBACK #2");
    w.hang_up(a);
    w.disk.is_slow = true;
    w
}

#[test]
fn a_snapshot_holds_everything() {
    let mut w = full();
    w.broker.begin_snapshot(w.now);
    let mut parts = 0;
    w.turn();
    while w.sync() {
        parts += 1;
        assert!(parts < 100);
    }
    assert!(parts > 2, "{parts}");
    assert_eq!((w.disk.batches.first().unwrap().1, w.disk.batches.last().unwrap().1), (Part::Begin, Part::End));
    let mut without = full();
    w.cut_power();
    without.cut_power();
    (w.disk.is_slow, without.disk.is_slow) = (false, false);
    assert_eq!(told(&mut w), told(&mut without));
}

#[test]
fn a_snapshot_may_be_cut_short_and_things_may_happen_meanwhile() {
    for cut_after in 0.. {
        let mut w = full();
        w.broker.begin_snapshot(w.now);
        w.turn();
        let p = w.join(v5("p"));
        let b = w.join(v5("b").stored());
        w.heard(b);
        let mut is_complete = false;
        for step in 0..cut_after {
            w.tell(p, &format!("PUBLISH q1 retain #{} r/{step} new", step + 1));
            w.tell(p, &format!("PUBLISH q1 #{} t/new new-{step}", step + 100));
            w.tell(b, &format!("PUBACK #{}, SUBSCRIBE #9 s/{step} 1, UNSUBSCRIBE #10 s/{}", step + 3, step - 1));
            w.sync();
            is_complete = w.disk.batches.first().is_some_and(|(_, part)| *part == Part::Begin);
        }
        let acknowledged = w.heard(p);
        w.cut_power();
        w.disk.is_slow = false;
        let told = told(&mut w);
        let expected = if cut_after > 2 { cut_after - 2 } else { 0 };
        for step in 0..expected {
            assert!(acknowledged.contains(&format!("PUBACK #{}", step + 1)), "{cut_after}: {acknowledged}");
            assert!(told[3].contains(&format!("r/{step} new")), "{cut_after} {step}: {}", told[3]);
        }
        assert_eq!(told[3].matches(" r/").count(), 30, "{cut_after}");
        // The window of b, and what a has not been sent or not acknowledged.
        assert!(told[0].starts_with("CONNACK 00 present") && told[1].starts_with("CONNACK 00 present"));
        if is_complete {
            assert!(cut_after >= 3);
            return;
        }
    }
}

#[test]
fn while_storage_fails_5_0_is_told_and_3_x_gets_no_answer() {
    let (mut w, _) = with_subscriber(false, "t 1");
    let (p3, p5) = (w.client("p3"), w.join(v5("p5").stored()));
    w.advance_s(6);
    w.sync();
    w.broker.store_failing(true);
    w.tell(
        p5,
        "PUBLISH q1 retain #1 r x, PUBLISH q1 #2 t x, PUBLISH q2 #3 t x, PUBLISH q1 #4 nobody x, SUBSCRIBE #5 t 1",
    );
    assert_eq!(w.heard(p5), "PUBACK #1 97, PUBACK #2 97, PUBREC #3 97, PUBACK #4 10, SUBACK #5 97");
    assert_eq!((w.broker.retained_count(), w.broker.subscription_count()), (0, 1));
    w.tell(p3, "PUBLISH q1 retain #1 r x, PINGREQ");
    w.advance_s(10);
    assert_eq!(w.heard(p3), "PINGRESP");
    w.broker.store_failing(false);
    while w.sync() {}
    assert_eq!(w.heard(p3), "PUBACK #1");
    w.tell(p5, "PUBLISH q1 retain #1 r y");
    while w.sync() {}
    assert_eq!(w.heard(p5), "PUBACK #1 10");
}

#[test]
fn a_client_that_does_not_wait_for_its_answers_is_not_listened_to() {
    let mut w = slow();
    let p = w.client("p");
    let mut sent = 0;
    while w.unread(p) == 0 {
        for _ in 0..1000 {
            sent += 1;
            w.post(
                p,
                &crate::script::encode(&format!("PUBLISH q1 retain #{} t x{sent}", sent % 60_000 + 1), Version::V311),
            );
        }
        w.turn();
        assert!(sent < 50_000, "without end");
    }
    while w.sync() {}
    assert_eq!(w.heard(p).matches("PUBACK").count(), sent);
}

#[test]
fn without_waiting_for_storage_everything_is_answered_at_once() {
    for mode in [midge::config::Persistence::Never, midge::config::Persistence::Interval(5)] {
        let mut w = World::with(|config| config.persistence = mode);
        w.disk.is_slow = true;
        let (p, s) = (w.join(v311("p").stored()), w.join(v311("s").stored()));
        w.tell(s, "SUBSCRIBE #1 t 2");
        assert_eq!(w.heard(s), "SUBACK #1 02");
        w.tell(p, "PUBLISH q1 retain #1 t x, PUBLISH q2 #2 t y, PUBREL #2");
        assert_eq!(w.heard(p), "PUBACK #1, PUBREC #2, PUBCOMP #2");
        assert_eq!(w.heard(s), "PUBLISH q1 #1 t x, PUBLISH q2 #2 t y");
        w.advance_s(6);
        w.sync();
        w.cut_power();
        let s = w.join(v311("s").stored());
        assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t x, PUBLISH dup q2 #2 t y");
    }
}

#[test]
fn a_window_of_qos_2_messages_takes_one_sync_and_nothing_overtakes_it() {
    let (mut w, s) = with_subscriber(false, "t 2");
    let p = w.client("p");
    w.hang_up(s);
    w.publish_all(p, &["q1 retain r one", "q2 retain q two"]);
    w.publish_all(p, &["q2 t 1", "q2 t 2", "q2 t 3", "q1 t 4", "q2 t 5"]);
    while w.sync() {}
    let s = w.join(v311("s").stored());
    w.tell(s, "SUBSCRIBE #1 r 1 q 2");
    assert_eq!(w.heard(s), "");
    assert!(w.sync());
    assert_eq!(w.heard(s), "PUBLISH q2 #1 t 1, PUBLISH q2 #2 t 2, PUBLISH q2 #3 t 3, PUBLISH q1 #4 t 4");
    while w.sync() {}
    assert_eq!(
        w.heard(s),
        "PUBLISH q2 #5 t 5, PUBLISH retain q1 #6 r one, SUBACK #1 01 02, PUBLISH retain q2 #7 q two"
    );
}

#[test]
fn qos_0_does_not_wait_for_what_waits_to_be_safe() {
    let (mut w, s) = with_subscriber(false, "t 2 u 0");
    let p = w.client("p");
    w.tell(p, "PUBLISH q2 #1 t x, PUBLISH u y");
    assert_eq!(w.heard(s), "PUBLISH u y");
    w.sync();
    assert_eq!(w.heard(s), "PUBLISH q2 #1 t x");
}

#[test]
fn a_will_does_not_overtake_what_its_client_published() {
    for (ends, hello) in [(false, v311("p").stored()), (false, v5("p").stored()), (true, v5("p").stored())] {
        let mut w = slow();
        let p = w.join(hello.will("q1 retain status offline"));
        w.tell(p, "PUBLISH q2 retain #1 status online");
        if ends {
            w.tell(p, "DISCONNECT 04 session-expiry=0");
        } else {
            w.hang_up(p);
        }
        // Both are safe together.
        w.sync();
        w.cut_power();
        while w.sync() {}
        let s = w.client("s");
        w.subscribe(s, "status 0");
        assert_eq!(w.heard(s), "PUBLISH retain status offline");
    }
}

#[test]
fn a_client_that_came_back_just_in_time_is_not_forgotten() {
    let mut w = World::stored();
    let s = w.join(v5("s").stored());
    w.subscribe(s, "t 1");
    w.hang_up(s);
    let p = w.client("p");
    w.publish(p, "q1 t x");
    w.advance_s(3500);
    w.disk.is_slow = true;
    w.join(v5("s").stored());
    w.sync();
    w.cut_power();
    w.advance_s(3000);
    assert_eq!(w.broker.session_count(), 1);
}

#[test]
fn what_waits_for_the_order_of_retained_messages_is_not_overtaken_on_its_topic() {
    // MQTT-4.6.0-6 (3.1.1) MQTT-4.6.0-6 (5.0)
    for hello in BOTH {
        let mut w = World::stored();
        let (p, s) = (w.join(hello("p").stored()), w.join(hello("s")));
        w.subscribe(s, "# 1");
        w.disk.is_slow = true;
        w.tell(p, "PUBLISH q2 #1 a x");
        w.tell(p, "PUBLISH q1 retain #2 t 1, PUBLISH q1 #3 t 2, PUBLISH retain u 3, PUBLISH u 4, PUBLISH q1 #4 v free");
        assert_eq!(w.heard(s), "PUBLISH q1 #1 v free");
        while w.sync() {}
        let heard = "PUBLISH q1 #2 a x, PUBLISH q1 #3 t 1, PUBLISH q1 #4 t 2, PUBLISH u 3, PUBLISH u 4";
        assert_eq!(w.heard(s), heard);
    }
}

#[test]
fn what_waits_to_be_routed_is_answered_once_and_on_the_link_that_asked() {
    // MQTT-4.3.3-2 (3.1.1) MQTT-4.3.3-8 (5.0)
    for hello in BOTH {
        let mut w = World::stored();
        let p = w.join(hello("p").stored());
        w.disk.is_slow = true;
        w.tell(p, "PUBLISH q2 #1 t x, PUBLISH q1 retain #2 t y");
        // The first link's number may be given to the second one, or to a third.
        w.hang_up(p);
        let (other, p) = (w.client("other"), w.join(hello("p").stored()));
        w.tell(p, "PUBLISH q2 dup #1 t x, PUBLISH q1 dup retain #2 t y");
        while w.sync() {}
        assert_eq!(w.heard(p).matches("PUBREC #1").count(), 1);
        assert_eq!(w.heard(other), "");
        w.hang_up(p);
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBLISH q2 #3 t z, PUBLISH q1 retain #4 t v");
        w.hang_up(p);
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBLISH q1 dup retain #4 t v");
        while w.sync() {}
        assert_eq!(w.heard(p).matches("PUBACK #4").count(), 1);
    }
}

#[test]
fn pubcomp_for_a_repeated_pubrel_waits_for_the_first_to_be_safe() {
    // MQTT-4.3.3-2 (3.1.1) MQTT-4.3.3-11 (5.0)
    for hello in BOTH {
        let mut w = World::stored();
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBLISH q2 #1 t x");
        w.disk.is_slow = true;
        w.tell(p, "PUBREL #1");
        w.hang_up(p);
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBREL #1");
        assert_eq!(w.heard(p), "");
        // Had it been answered, the next message with this packet id would be taken for a repeat.
        w.cut_power();
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBREL #1");
        while w.sync() {}
        assert_eq!(w.heard(p), "PUBCOMP #1");
    }
}

#[test]
fn a_session_that_was_given_up_does_not_come_back_with_its_packet_ids() {
    // MQTT-3.1.2-6 (3.1.1) MQTT-3.1.2-4 (5.0)
    for hello in BOTH {
        let mut w = World::stored();
        let p = w.join(hello("p").stored());
        w.tell(p, "PUBLISH q2 #1 t x");
        w.disk.is_slow = true;
        // Not even for one that was told so on an earlier link.
        for _ in 0..2 {
            let p = w.connect(hello("p"));
            w.tell(p, "PINGREQ");
            assert_eq!(w.heard(p), "");
        }
        let p = w.connect(hello("p"));
        w.tell(p, "SUBSCRIBE #1 t 0, PINGREQ");
        while w.sync() {}
        assert_eq!(w.heard(p), "CONNACK 00, SUBACK #1 00, PINGRESP");
        // Who gave up nothing waits for nothing.
        let q = w.join(hello("q"));
        w.hang_up(q);
        w.cut_power();
        assert_eq!(w.broker.session_count(), 0);
        let s = w.join(hello("s"));
        w.subscribe(s, "t 0");
        let p = w.connect(hello("p").stored());
        w.tell(p, "PUBLISH q2 #1 t y");
        while w.sync() {}
        assert_eq!((w.heard(s), w.heard(p)), ("PUBLISH t y".into(), "CONNACK 00, PUBREC #1".into()));
    }
}

#[test]
fn a_session_that_expired_does_not_come_back_once_its_client_was_told() {
    let mut w = World::stored();
    let s = w.join(v5("s").stored());
    w.tell(s, "PUBLISH q2 #1 t x, DISCONNECT session-expiry=5");
    w.disk.is_slow = true;
    w.advance_s(6);
    let s = w.connect(v5("s").stored());
    assert_eq!(w.heard(s), "");
    assert!(w.sync());
    assert_eq!(w.heard(s), "CONNACK 00");
}

#[test]
fn a_session_that_was_to_end_with_its_link_is_not_there_after_a_power_cut() {
    let mut w = World::stored();
    w.join(v5("s").stored());
    // It takes its session up once more, to end with the link.
    let s = w.join(v5("s").clean(false).will("q1 retain gone s"));
    w.subscribe(s, "t 1");
    w.advance_s(10);
    w.cut_power();
    assert_eq!((w.broker.session_count(), w.broker.subscription_count(), w.broker.retained_count()), (0, 0, 1));
}

#[test]
fn a_lost_record_of_a_message_that_was_sent_puts_it_behind_others_and_loses_nothing() {
    for hello in BOTH {
        let mut w = World::with(|config| {
            config.persistence = midge::config::Persistence::Always;
            config.max_inflight_messages = 2;
        });
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, "t 1");
        ["1", "2", "3", "4"].iter().for_each(|text| w.publish(p, &format!("q1 t {text}")));
        // That 3 is sent is lost to damage, that 4 is sent is not.
        w.tell(s, "PUBACK #1");
        w.disk.batches.pop();
        w.tell(s, "PUBACK #2");
        w.cut_power();
        let s = w.client_that_acknowledges(hello("s").stored());
        let heard = w.heard(s);
        assert!([" t 3", " t 4"].iter().all(|text| heard.contains(text)), "{heard}");
        w.cut_power();
        let s = w.connect(hello("s").stored());
        assert_eq!(w.heard(s), "CONNACK 00 present");
    }
}

#[test]
fn retained_messages_that_are_neither_written_nor_acknowledged_are_still_owed() {
    for hello in BOTH {
        let mut w = World::stored();
        let p = w.join(hello("p"));
        w.publish(p, "q1 retain t x");
        for has_snapshot in [false, true] {
            let s = w.join(hello("s").stored());
            w.disk.is_slow = true;
            w.tell(s, "SUBSCRIBE #1 t 1");
            if has_snapshot {
                w.broker.begin_snapshot(w.now);
                w.turn();
            }
            assert!(w.sync());
            assert!(w.heard(s).contains("SUBACK #1 01"));
            w.cut_power();
            w.disk.is_slow = false;
            let s = w.join(hello("s").stored());
            assert!(w.heard(s).starts_with("PUBLISH retain q1 #"), "snapshot {has_snapshot}");
            w.hang_up(s);
            let s = w.join(hello("s"));
            w.hang_up(s);
            // Acknowledged, they are not owed any more.
            let s = w.client_that_acknowledges(hello("s").stored());
            w.subscribe(s, "t 1");
            w.advance_s(6);
            w.cut_power();
            let s = w.join(hello("s").stored());
            assert_eq!(w.heard(s), "");
            let s = w.join(hello("s"));
            w.hang_up(s);
        }
    }
}

/// A retained message of QoS 0 is acknowledged by nobody.
fn retain_without_acknowledgement(autosave: Option<Autosave>) -> World {
    let mut w = World::with(|config| (config.persistence, config.autosave) = (Persistence::Always, autosave));
    let p = w.client("p");
    w.disk.is_slow = true;
    w.tell(p, "PUBLISH q0 retain t x");
    w
}

#[test]
fn what_nobody_waits_for_is_written_when_autosave_says_so() {
    for (autosave, not_after_s, after_s) in
        [(None, 4, 2), (Some(Autosave::Seconds(300)), 299, 2), (Some(Autosave::Seconds(0)), 86_400, 400 * 86_400)]
    {
        let mut w = retain_without_acknowledgement(autosave);
        w.advance_s(not_after_s);
        assert!(!w.sync(), "{autosave:?}");
        w.advance_s(after_s);
        assert!(w.sync(), "{autosave:?}");
    }
}

#[test]
fn autosave_may_count_changes() {
    let mut w = retain_without_acknowledgement(Some(Autosave::Changes(4)));
    let p = w.client("q");
    w.tell(p, "PUBLISH q0 retain u x");
    w.advance_s(3600);
    assert!(!w.sync());
    w.tell(p, "PUBLISH q0 retain v x, PUBLISH q0 retain w x");
    assert!(w.sync());
    w.cut_power();
    assert_eq!(w.broker.retained_count(), 4);
}

#[test]
fn what_waits_is_written_when_the_broker_is_told_to_or_ends() {
    let mut w = retain_without_acknowledgement(Some(Autosave::Seconds(0)));
    w.broker.save_now(w.now);
    w.turn();
    assert!(w.sync());
    // Nothing is left, and so nothing is written.
    w.broker.save_now(w.now);
    w.turn();
    assert!(!w.sync());
}

#[test]
fn what_is_acknowledged_does_not_wait_for_autosave() {
    let mut w =
        World::with(|config| (config.persistence, config.autosave) = (Persistence::Always, Some(Autosave::Seconds(0))));
    let p = w.client("p");
    w.disk.is_slow = true;
    w.tell(p, "PUBLISH q0 retain t x, PUBLISH q1 retain #1 u x");
    assert!(w.sync());
    assert!(w.heard(p).contains("PUBACK #1"));
    w.cut_power();
    assert_eq!(w.broker.retained_count(), 2);
}
