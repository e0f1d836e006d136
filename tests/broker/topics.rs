//! Topic names and filters (4.7).

use crate::harness::World;
use crate::hello::{BOTH, v5};

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

/// The broker remembers the filter of the last message; that is not to make a topic of it.
#[test]
fn v5_mqtt_3_3_2_2_a_filter_that_just_matched_is_no_topic() {
    for filter in ["a/+", "a/#", "+/b", "#"] {
        let mut w = World::new();
        let (p, s) = (w.join(v5("p")), w.join(v5("s")));
        w.subscribe(s, &format!("{filter} 0"));
        w.publish(p, "a/b x");
        assert_eq!(w.heard(s), "PUBLISH a/b x");
        w.tell(p, &format!("PUBLISH {filter} x"));
        assert_eq!((w.heard(p), w.heard(s)), ("DISCONNECT 90, closed".into(), "".into()), "{filter}");
    }
}

/// What the broker remembers of the last message is not older than the subscriptions.
#[test]
fn v311_4_7_each_message_finds_the_subscriptions_of_its_time() {
    let mut w = World::new();
    let (p, s, other) = (w.client("p"), w.client("s"), w.client("other"));
    for _ in 0..3 {
        w.subscribe(s, "a/b 0");
        w.publish(p, "a/b 1");
        w.publish(p, "a/b 2");
        w.publish(p, "a/c 3");
        assert_eq!(w.heard(s), "PUBLISH a/b 1, PUBLISH a/b 2");
        w.tell(s, "UNSUBSCRIBE #9 a/b");
        w.heard(s);
        w.publish(p, "a/b 4");
        // It has the place of the filter that is gone.
        w.subscribe(other, "a/c 0");
        w.publish(p, "a/b 5");
        w.publish(p, "a/c 6");
        assert_eq!((w.heard(s), w.heard(other)), ("".into(), "PUBLISH a/c 6".into()));
        w.tell(other, "UNSUBSCRIBE #9 a/c");
        w.heard(other);
    }
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
    let mut w = World::new();
    let c = w.client("c");
    w.tell(c, "PUBLISH '' x");
    assert_eq!(w.heard(c), "closed");
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
