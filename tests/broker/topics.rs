//! Topic names and filters (4.7), and shared subscriptions (4.8).

use crate::harness::{Client, World};
use crate::hello::{BOTH, v5, v311};

const GOOD_FILTERS: [&str; 12] = ["#", "a/#", "/#", "+", "a/+/b", "+/#", "/+", "+/", "a//b", "/", "$SYS/#", "a/+/+/#"];

#[test]
fn v311_mqtt_4_7_1_2_the_number_sign_stands_alone_and_last() {
    for bad in ["a#", "a/#/b", "#/a", "##", "a/b#", "/#a"] {
        let mut w = World::new();
        let c = w.client("c");
        w.tell(c, &format!("SUBSCRIBE #1 {bad} 0"));
        assert_eq!((w.heard(c), w.broker.subscription_count()), ("closed".into(), 0), "{bad}");
    }
    let mut w = World::new();
    let c = w.client("c");
    GOOD_FILTERS.iter().for_each(|good| w.subscribe(c, &format!("{good} 0")));
}

#[test]
fn v311_mqtt_4_7_1_3_the_plus_fills_its_level() {
    for bad in ["a+", "+a", "a/+b", "++", "a/b+/c", "+#"] {
        let mut w = World::new();
        let c = w.client("c");
        w.tell(c, &format!("SUBSCRIBE #1 {bad} 0"));
        assert_eq!((w.heard(c), w.broker.subscription_count()), ("closed".into(), 0), "{bad}");
    }
}

#[test]
fn v5_mqtt_4_7_1_1_wildcards_in_wrong_places_are_told_0x8f() {
    // MQTT-4.7.1-2 (5.0)
    for bad in ["a#", "a/#/b", "#/a", "##", "a+", "+a", "a/+b", "++", "+#"] {
        let mut w = World::new();
        let c = w.join(v5("c"));
        w.tell(c, &format!("SUBSCRIBE #1 good 0 {bad} 0"));
        assert_eq!((w.heard(c), w.broker.subscription_count()), ("DISCONNECT 8f, closed".into(), 0), "{bad}");
    }
    let mut w = World::new();
    let c = w.join(v5("c"));
    GOOD_FILTERS.iter().for_each(|good| w.subscribe(c, &format!("{good} 0")));
}

#[test]
fn v311_mqtt_4_7_2_1_wildcards_do_not_match_topics_that_begin_with_dollar() {
    // MQTT-4.7.2-1 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, all, sys) = (w.join(hello("p")), w.join(hello("all")), w.join(hello("sys")));
        w.publish(p, "retain $data/x kept");
        w.subscribe(all, "# 0 +/x 0 +/# 0");
        w.subscribe(sys, "$data/# 0");
        assert_eq!((w.heard(all), w.heard(sys)), ("".into(), "PUBLISH retain $data/x kept".into()));
        w.publish(p, "$data/x live");
        assert_eq!((w.heard(all), w.heard(sys)), ("".into(), "PUBLISH $data/x live".into()));
    }
}

#[test]
fn v311_mqtt_4_7_3_1_names_and_filters_are_not_empty() {
    for packet in ["PUBLISH '' x"] {
        let mut w = World::new();
        let c = w.client("c");
        w.tell(c, packet);
        assert_eq!(w.heard(c), "closed");
    }
    let mut w = World::new();
    let c = w.client("c");
    w.send_packet(c, 0x82, "00 01 00 00 00");
    assert_eq!(w.heard(c), "closed");
}

#[test]
fn v5_mqtt_4_7_3_1_names_and_filters_are_not_empty() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.tell(c, "PUBLISH '' x");
    let heard = w.heard(c);
    assert!(heard.starts_with("DISCONNECT") && heard.ends_with("closed"), "{heard}");
    let c = w.join(v5("c"));
    w.send_packet(c, 0x82, "00 01 00 00 00 00");
    assert_eq!(w.heard(c), "DISCONNECT 8f, closed");
}

#[test]
fn v311_mqtt_4_7_3_3_names_and_filters_have_up_to_65535_bytes() {
    // MQTT-4.7.3-3 (5.0)
    for hello in BOTH {
        let longest = "\u{20ac}".repeat(65_535 / 3);
        assert_eq!(longest.len(), 65_535);
        let mut w = World::new();
        let (p, s) = (w.join(hello("p")), w.join(hello("s").stored()));
        w.subscribe(s, &format!("{longest} 1"));
        w.publish(p, &format!("q1 retain {longest} x"));
        assert_eq!(w.heard(s), format!("PUBLISH q1 #1 {longest} x"));
        w.tell(s, &format!("UNSUBSCRIBE #9 {longest}"));
        assert!(w.heard(s).starts_with("UNSUBACK #9"));
        assert_eq!(w.broker.subscription_count(), 0);
    }
}

#[test]
fn v311_mqtt_4_7_3_4_topics_are_compared_byte_for_byte() {
    // MQTT-4.7.3-4 (5.0)
    let topics = ["ACCOUNTS", "Accounts", "\u{e9}", "e\u{301}", "a b", "a  b", "\u{fb01}", "fi", "\u{212b}", "\u{c5}"];
    for hello in BOTH {
        for filter in topics.iter().filter(|topic| !topic.contains(' ')) {
            let mut w = World::new();
            let (p, s) = (w.join(hello("p")), w.join(hello("s")));
            w.subscribe(s, &format!("{filter} 0"));
            for topic in topics.iter().filter(|topic| !topic.contains(' ')) {
                w.publish(p, &format!("{topic} x"));
                let expected = if filter == topic { format!("PUBLISH {topic} x") } else { String::new() };
                assert_eq!(w.heard(s), expected, "{filter} {topic}");
            }
        }
    }
}

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
