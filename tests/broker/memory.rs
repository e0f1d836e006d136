//! Memory that traffic left behind goes when the traffic is over, and nothing that is still owed goes with it.

use crate::harness::World;
use crate::hello::{v5, v311};

#[test]
fn spare_memory_goes_in_two_steps_and_comes_back_with_traffic() {
    let mut w = World::new();
    let p = w.client("p");
    let subscribers: Vec<_> = (0..50).map(|number| w.client(&format!("s{number}"))).collect();
    for &s in &subscribers {
        w.subscribe(s, "t 1");
        w.acknowledges(s);
    }
    assert!(w.broker.has_spare_memory());
    for round in 0..2 {
        w.publish(p, "q1 t x");
        assert!(w.broker.has_spare_memory());
        // Needed until now, so not given up yet.
        w.broker.trim();
        assert!(w.broker.has_spare_memory());
        w.broker.trim();
        assert!(!w.broker.has_spare_memory());
        w.broker.check_invariants();
        for &s in &subscribers {
            // Packet ids go on where they were.
            assert_eq!(w.heard(s), format!("PUBLISH q1 #{} t x", round + 1));
        }
    }
}

#[test]
fn it_is_not_quiet_while_something_comes_that_nobody_hears() {
    let mut w = World::new();
    let p = w.client("p");
    for _ in 0..5 {
        w.publish(p, "sensor x");
        assert!(!w.broker.trim());
    }
    assert!(w.broker.trim());
}

#[test]
fn a_trickle_does_not_keep_the_memory_of_what_was_drained() {
    let mut w = World::new();
    let (p, one) = (w.client("p"), w.client("one"));
    w.subscribe(one, "trickle 0");
    let mut went_deep = |used: usize| {
        w.broker.set_memory_used(used);
        w.publish(p, "trickle x");
        w.broker.trim()
    };
    // As told from outside: there is a load, and then it is gone.
    let used = [300_000, 16_000_000, 16_000_000, 9_000_000, 1_400_000, 1_400_000, 1_300_000, 300_000, 200_000];
    assert_eq!(used.map(&mut went_deep), [false, false, false, false, true, false, false, true, false]);
}

#[test]
fn what_is_owed_stays() {
    let mut w = World::with(|config| config.max_queued_messages = 3);
    let p = w.client("p");
    let (open, lost, away) = (w.join(v5("open")), w.join(v311("lost").stored()), w.join(v5("away").stored()));
    w.subscribe(open, "t 2");
    w.subscribe(lost, "t 1");
    w.subscribe(away, "t 1");
    w.hang_up(lost);
    w.hang_up(away);
    (0..4).for_each(|number| w.publish(p, &format!("q2 t {number}")));
    w.tell(p, "PUBLISH q2 #77 t 4");
    assert_eq!(w.heard(open).matches("PUBLISH q2").count(), 5);
    for _ in 0..3 {
        w.broker.trim();
    }
    w.broker.check_invariants();
    w.tell(open, "PUBREC #1, PUBREC #5, PUBCOMP #1");
    assert_eq!(w.heard(open), "PUBREL #1, PUBREL #5");
    w.tell(p, "PUBLISH dup q2 #77 t 4, PUBREL #77");
    assert_eq!(w.heard(p), "PUBREC #77, PUBREC #77, PUBCOMP #77");
    assert_eq!(w.heard(open), "");
    let lost = w.join(v311("lost").stored());
    assert_eq!(w.heard(lost), "PUBLISH q1 #1 t 0, PUBLISH q1 #2 t 1, PUBLISH q1 #3 t 2");
    assert_eq!(w.broker.stats().messages_dropped, 4);
}

#[test]
fn numbers_of_links_and_sessions_are_used_again_after_a_crowd_is_gone() {
    let mut w = World::new();
    let stays = w.client("stays");
    w.subscribe(stays, "a/+ 0 $share/g/b 0");
    let crowd: Vec<_> = (0..200).map(|number| w.join(v311(&format!("c{number}")).keep_alive(60))).collect();
    for (number, &c) in crowd.iter().enumerate() {
        w.subscribe(c, &format!("a/{number} 0 b/+/{number} 1 $share/g/{number} 0"));
    }
    crowd.into_iter().for_each(|c| w.hang_up(c));
    // That they are gone is enough: it does not take traffic.
    assert!(w.broker.has_spare_memory() && w.broker.trim());
    w.broker.check_invariants();
    let late = w.client("late");
    w.subscribe(late, "b/+/7 0");
    w.publish(stays, "b/x/7 y");
    w.publish(late, "a/x y");
    w.publish(late, "b y");
    assert_eq!((w.heard(late).as_str(), w.heard(stays).as_str()), ("PUBLISH b/x/7 y", "PUBLISH a/x y, PUBLISH b y"));
}

#[test]
fn a_trickle_does_not_keep_what_a_storm_left() {
    let mut w = World::new();
    let (p, one) = (w.client("p"), w.client("one"));
    w.subscribe(one, "trickle 0");
    let crowd: Vec<_> = (0..100).map(|number| w.client(&format!("c{number}"))).collect();
    for &c in &crowd {
        w.subscribe(c, "storm 1");
        w.acknowledges(c);
    }
    w.publish(p, "q1 storm x");
    let went_deep: Vec<bool> = (0..4)
        .map(|_| {
            w.publish(p, "trickle x");
            w.broker.trim()
        })
        .collect();
    assert_eq!(went_deep, [false, true, false, false]);
    // The trickle has a buffer of its own, and when it ends that goes, too.
    assert!(w.broker.has_spare_memory() && w.broker.trim() && !w.broker.has_spare_memory());
}
