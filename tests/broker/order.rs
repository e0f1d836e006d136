//! What whoever administers the broker orders: it goes the ways of the protocol.

use midge::admin::{Answer, Progress};
use midge::broker::{Deletion, Inspection};
use midge::net::Caller;

use crate::harness::{World, log_count};
use crate::hello::{v5, v311};

#[test]
fn who_is_kicked_is_told_why_and_its_will_is_sent() {
    let mut w = World::new();
    let s = w.client("s");
    w.subscribe(s, "gone/# 0");
    let (five, three) = (w.join(v5("five").will("gone/five 5")), w.join(v311("three").stored().will("gone/three 3")));
    for id in ["five", "three"] {
        w.broker.kick(id, w.now).unwrap();
        w.turn();
    }
    let told = w.heard_in_full(five);
    let why = "the administrator of the broker ended this connection";
    assert!(told.starts_with("DISCONNECT 98 ") && told.contains(why) && told.ends_with("closed"), "{told}");
    // [MQTT-3.14.0-1]: 3.1.1 has no such packet.
    assert_eq!(w.heard(three), "closed");
    assert_eq!(w.heard(s), "PUBLISH gone/five 5, PUBLISH gone/three 3");
    let line = "Notice: Client five [192.0.2.7:40001] disconnected: administrative action. \
                The administrator of the broker ended this connection.";
    assert_eq!(log_count(line), 1);
    // Its session is what it would be after any other loss.
    assert_eq!(w.rows(Inspection::sessions()).len(), 2);
    let error = w.broker.kick("three", w.now).unwrap_err();
    assert_eq!(error, "Client 'three' is not connected; 'session delete' ends the session that waits for it.");
    let error = w.broker.kick("five", w.now).unwrap_err();
    assert_eq!(error, "There is no client 'five', connected or away.");
}

#[test]
fn a_deleted_session_is_gone_with_all_it_held_connected_or_not() {
    for is_connected in [false, true] {
        let mut w = World::stored();
        let (c, p) = (w.join(v5("c").stored()), w.client("p"));
        w.subscribe(c, "t 1 $share/g/t 1");
        if !is_connected {
            w.hang_up(c);
            w.publish(p, "q1 t x");
        }
        w.broker.delete_session("c", w.now).unwrap();
        w.turn();
        assert_eq!((w.broker.session_count(), w.broker.subscription_count()), (1, 0));
        if is_connected {
            let told = w.heard_in_full(c);
            assert!(told.contains("DISCONNECT 98 ") && told.contains("ended this session"), "{told}");
        }
        // The store heard of it.
        w.cut_power();
        assert_eq!(w.broker.session_count(), 0);
        let c = w.connect(v5("c").stored());
        assert!(w.heard(c).starts_with("CONNACK 00"), "there is no session any more");
        let error = w.broker.delete_session("nobody\x1b", w.now).unwrap_err();
        assert_eq!(error, "There is no client 'nobody…', connected or away.");
    }
}

/// To the end, turn by turn.
fn delete(w: &mut World, filter: &str) -> (u64, u64) {
    let mut deletion = Deletion::new(filter);
    while !w.broker.delete_retained(&mut deletion, w.now) {
        w.turn();
    }
    w.turn();
    (deletion.removed, deletion.left)
}

#[test]
fn retained_messages_are_deleted_by_filter_without_a_word_to_subscribers() {
    let mut w = World::stored();
    let (s, p) = (w.client("s"), w.join(v5("p")));
    for topic in ["a/1", "a/2", "a/b/3", "b"] {
        w.publish(p, &format!("retain {topic} x"));
    }
    w.publish(p, "retain a/4 x expiry=100");
    w.subscribe(s, "# 0");
    w.heard(s);
    assert_eq!(delete(&mut w, "a/+"), (3, 0));
    assert_eq!(w.rows(Inspection::retained("#", false)), ["a/b/3|1|0|", "b|1|0|"]);
    assert_eq!(w.heard(s), "");
    assert_eq!(delete(&mut w, "a/+"), (0, 0));
    w.cut_power();
    assert_eq!(w.rows(Inspection::retained("#", false)), ["a/b/3|1|0|", "b|1|0|"]);
}

#[test]
fn many_retained_messages_go_in_many_turns() {
    let mut w = World::new();
    let p = w.client("p");
    for number in 0..3000 {
        w.publish(p, &format!("retain t/{number} x"));
    }
    let mut deletion = Deletion::new("#");
    let mut turns = 1;
    while !w.broker.delete_retained(&mut deletion, w.now) {
        assert!(deletion.removed <= 256 * turns);
        turns += 1;
    }
    assert_eq!((deletion.removed, w.broker.retained_count()), (3000, 0));
}

#[test]
fn the_brokers_own_topics_are_not_deleted() {
    let mut w = World::new();
    let s = w.client("s");
    w.subscribe(s, "$SYS/# 0");
    w.publish(s, "retain $SYS/broker/connection/x/state 1");
    let count = w.broker.retained_count() as u64;
    let (removed, left) = delete(&mut w, "$SYS/#");
    assert_eq!((removed, left), (1, count - 1));
}

/// What is said of an order so far, and whether that is all.
fn hear(w: &mut World, answer: &mut Answer) -> (Progress, String) {
    let mut out = Vec::new();
    let mut progress = Progress::More;
    while progress == Progress::More {
        progress = answer.go_on(&mut w.broker, &mut out, w.now);
    }
    (progress, String::from_utf8(out).unwrap())
}

#[test]
fn an_order_is_called_done_when_it_is_stored() {
    let mut w = World::stored();
    let c = w.join(v5("c").stored());
    w.publish(c, "retain t x");
    w.hang_up(c);
    w.disk.is_slow = true;
    let ordered = |line: &[u8], w: &mut World| {
        let caller = Caller::Unix { pid: 1, uid: 0 };
        Answer::to(line, caller, &mut w.broker, w.now).unwrap()
    };
    for (line, done) in [
        (&b"session\tdelete\tc"[..], "The session of client 'c' was deleted."),
        (b"retained\tdelete\t#", "1 retained message was deleted."),
    ] {
        let mut answer = ordered(line, &mut w);
        assert_eq!(hear(&mut w, &mut answer), (Progress::Waits, String::new()));
        w.turn();
        assert!(!answer.has_news(&w.broker));
        assert_eq!(hear(&mut w, &mut answer), (Progress::Waits, String::new()));
        assert!(w.sync() && answer.has_news(&w.broker));
        assert_eq!(hear(&mut w, &mut answer), (Progress::Over, format!("ok\t{done}\n")));
    }
    w.cut_power();
    assert_eq!((w.broker.session_count(), w.broker.retained_count()), (0, 0));
}

#[test]
fn an_order_that_cannot_be_stored_is_told_to_be_so() {
    let mut w = World::stored();
    let c = w.join(v5("c").stored());
    w.hang_up(c);
    w.disk.is_slow = true;
    let mut answer = Answer::to(b"session\tdelete\tc", Caller::Unix { pid: 1, uid: 0 }, &mut w.broker, w.now).unwrap();
    assert_eq!(hear(&mut w, &mut answer).0, Progress::Waits);
    w.broker.store_failing(true);
    assert!(answer.has_news(&w.broker));
    let (progress, said) = hear(&mut w, &mut answer);
    assert_eq!(progress, Progress::Over);
    let expected = "error\tThe session of client 'c' was deleted. \
                    It cannot be stored at the moment, as the log says: a restart may undo it.\n";
    assert_eq!(said, expected);
}
