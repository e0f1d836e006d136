//! Shared subscriptions (4.8.2).

use crate::harness::{Client, World};
use crate::hello::{v5, v311};

/// Members of `$share/g/t` at the QoS of each, 5.0 and stored.
fn members(w: &mut World, qos: &[u8]) -> Vec<Client> {
    let join = |(number, qos)| {
        let member = w.join(v5(&format!("m{number}")).stored());
        w.subscribe(member, &format!("$share/g/t {qos}"));
        member
    };
    qos.iter().enumerate().map(join).collect()
}

#[test]
fn v5_mqtt_4_8_2_1_shared_filters_have_a_name_and_a_filter() {
    // MQTT-4.8.2-2 (5.0)
    for bad in ["$share//a", "$share/g", "$share/g/", "$share/g+/a", "$share/#/a", "$share/g/a#", "$share/"] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.tell(c, &format!("SUBSCRIBE #1 {bad} 0"));
        assert_eq!((w.heard(c), w.broker.subscription_count()), ("DISCONNECT 8f, closed".into(), 0), "{bad}");
    }
    let mut w = World::new();
    let (p, c) = (w.client("p"), w.join(v5("c")));
    w.subscribe(c, "$share/g/a/+ 0");
    w.publish(p, "a/b x");
    assert_eq!(w.heard(c), "PUBLISH a/b x");
}

#[test]
fn a_message_goes_to_one_member_of_each_share_in_turn() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[0, 0, 0]);
    let (alone, plain) = (w.join(v5("alone")), w.join(v5("plain")));
    w.subscribe(alone, "$share/other/t 0");
    w.subscribe(plain, "t 0");
    (0..9).for_each(|number| w.publish(p, &format!("t {number}")));
    for member in all {
        assert_eq!(w.heard(member).matches("PUBLISH").count(), 3);
    }
    assert_eq!((w.heard(alone).matches("PUBLISH").count(), w.heard(plain).matches("PUBLISH").count()), (9, 9));
}

#[test]
fn v5_mqtt_4_8_2_3_a_member_gets_no_more_than_the_qos_it_was_granted() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[0, 1, 2]);
    (0..3).for_each(|_| w.publish(p, "q2 t x"));
    let mut heard: Vec<String> = all.iter().map(|&member| w.heard(member)).collect();
    heard.sort();
    assert_eq!(heard, ["PUBLISH q1 #1 t x", "PUBLISH q2 #1 t x", "PUBLISH t x"]);
}

#[test]
fn v5_mqtt_4_8_2_4_a_qos_2_delivery_is_completed_to_the_member_it_began_with() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[2, 2]);
    w.publish(p, "q2 t x");
    assert_eq!(w.heard(all[0]), "PUBLISH q2 #1 t x");
    w.hang_up(all[0]);
    assert_eq!(w.heard(all[1]), "");
    let back = w.join(v5("m0").stored());
    assert_eq!((w.heard(back), w.heard(all[1])), ("PUBLISH dup q2 #1 t x".into(), "".into()));
}

#[test]
fn v5_mqtt_4_8_2_5_a_qos_2_delivery_that_cannot_be_completed_goes_to_nobody_else() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[2, 2]);
    w.publish(p, "q2 t x");
    w.tell(all[0], "PUBREC #1, DISCONNECT session-expiry=0");
    assert_eq!(w.broker.session_count(), 2);
    w.advance_s(3600);
    assert_eq!(w.heard(all[1]), "");
}

#[test]
fn v5_mqtt_4_8_2_6_a_message_a_member_refuses_goes_to_nobody_else() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[2, 2]);
    w.publish(p, "q1 t x");
    w.tell(all[0], "PUBACK #1 80");
    w.publish(p, "q2 t y");
    w.tell(all[1], "PUBREC #1 97");
    assert_eq!((w.heard(all[0]), w.heard(all[1])), ("PUBLISH q1 #1 t x".into(), "PUBLISH q2 #1 t y".into()));
}

#[test]
fn members_that_are_away_are_passed_over_while_others_are_there() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[1, 1, 1]);
    w.hang_up(all[1]);
    (0..10).for_each(|number| w.publish(p, &format!("q1 t {number}")));
    assert_eq!(w.heard(all[0]).matches("PUBLISH").count() + w.heard(all[2]).matches("PUBLISH").count(), 10);
    w.hang_up(all[0]);
    w.hang_up(all[2]);
    w.publish(p, "q1 t kept");
    let mut kept = 0;
    for id in ["m0", "m1", "m2"] {
        let back = w.join(v5(id).stored());
        kept += w.heard(back).matches("t kept").count();
    }
    assert_eq!(kept, 1);
}

#[test]
fn a_member_that_leaves_or_unsubscribes_gets_nothing_more() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[0, 0, 0]);
    w.tell(all[0], "UNSUBSCRIBE #9 $share/g/t");
    assert_eq!(w.heard(all[0]), "UNSUBACK #9 00");
    w.tell(all[1], "DISCONNECT session-expiry=0");
    (0..6).for_each(|_| w.publish(p, "t x"));
    assert_eq!((w.heard(all[0]), w.heard(all[2]).matches("PUBLISH").count()), ("".into(), 6));
}

#[test]
fn shared_subscriptions_work_for_3_1_1_too() {
    let mut w = World::new();
    let (p, a, b) = (w.client("p"), w.client("a"), w.client("b"));
    w.subscribe(a, "$share/g/# 0");
    w.subscribe(b, "$share/g/# 0");
    (0..6).for_each(|_| w.publish(p, "t x"));
    assert_eq!((w.heard(a).matches("PUBLISH").count(), w.heard(b).matches("PUBLISH").count()), (3, 3));
    let c = w.connect(v311("c"));
    w.tell(c, "SUBSCRIBE #1 $share/g 0");
    assert_eq!(w.heard(c), "CONNACK 00, closed");
}

#[test]
fn what_a_leaving_member_was_sent_at_qos_1_or_only_waited_for_goes_to_another() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[1, 1]);
    w.publish(p, "q1 t x");
    assert_eq!(w.heard(all[0]), "PUBLISH q1 #1 t x");
    w.hang_up(all[0]);
    assert_eq!(w.heard(all[1]), "PUBLISH q1 #1 t x");
    let back = w.join(v5("m0").stored());
    assert_eq!(w.heard(back), "");
}

#[test]
fn what_a_leaving_member_leaves_goes_to_the_others_in_turn() {
    let mut w = World::new();
    let p = w.client("p");
    let m0 = members(&mut w, &[1])[0];
    (0..6).for_each(|number| w.publish(p, &format!("q1 t {number}")));
    assert_eq!(w.heard(m0).matches("PUBLISH").count(), 6);
    let others: Vec<Client> = (1..4).map(|number| w.join(v5(&format!("m{number}")))).collect();
    others.iter().for_each(|&member| w.subscribe(member, "$share/g/t 1"));
    w.hang_up(m0);
    let heard: Vec<String> = others.iter().map(|&member| w.heard(member)).collect();
    let of = |one, two| format!("PUBLISH q1 #1 t {one}, PUBLISH q1 #2 t {two}");
    assert_eq!(heard, [of(0, 3), of(1, 4), of(2, 5)]);
}

#[test]
fn what_a_member_that_will_not_come_back_had_waiting_goes_to_one_that_may() {
    let mut w = World::new();
    let p = w.client("p");
    let all = members(&mut w, &[1, 1]);
    w.hang_up(all[1]);
    w.publish(p, "q1 t x");
    w.heard(all[0]);
    w.tell(all[0], "DISCONNECT session-expiry=0");
    let back = w.join(v5("m1").stored());
    assert_eq!(w.heard(back), "PUBLISH q1 #1 t x");
}

#[test]
fn v5_mqtt_3_3_2_5_a_message_that_expired_is_not_handed_on() {
    let mut w = World::new();
    let (p, m0, m1) = (w.join(v5("p")), w.join(v5("m0").stored().with("receive-max=1")), w.join(v5("m1").stored()));
    w.subscribe(m0, "$share/g/t 1");
    (0..3).for_each(|number| w.publish(p, &format!("q1 t {number} expiry=5")));
    assert_eq!(w.heard(m0), "PUBLISH q1 #1 t 0 expiry=5");
    w.subscribe(m1, "$share/g/t 1");
    w.advance_s(10);
    w.hang_up(m0);
    // The first was on its way already.
    assert!(["", "PUBLISH q1 #1 t 0 expiry=0"].contains(&&*w.heard(m1)));
}

#[test]
fn what_a_member_of_two_shares_leaves_goes_to_each_of_them() {
    let mut w = World::new();
    let (p, both, g, h) = (w.client("p"), w.join(v5("both")), w.join(v5("g")), w.join(v5("h")));
    w.subscribe(both, "$share/g/t 1 $share/h/t 1");
    w.publish(p, "q1 t x");
    assert_eq!(w.heard(both), "PUBLISH q1 #1 t x, PUBLISH q1 #2 t x");
    w.subscribe(g, "$share/g/t 1");
    w.subscribe(h, "$share/h/t 1");
    w.hang_up(both);
    assert_eq!((w.heard(g), w.heard(h)), ("PUBLISH q1 #1 t x".into(), "PUBLISH q1 #1 t x".into()));
}
