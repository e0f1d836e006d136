//! The mount point of a listener: in front of every topic and filter its clients use, and cut off what they are sent.

use std::rc::Rc;

use midge::config::{Persistence, Rules};

use crate::harness::{World, log_count, rules};
use crate::hello::{BOTH, EVERY, v5, v311};

fn below(mount_point: &str) -> Rc<Rules> {
    rules(|rules| rules.mount_point = mount_point.to_string())
}

#[test]
fn topics_and_filters_stand_below_the_mount_point() {
    for hello in EVERY {
        let mut w = World::new();
        let m = below("m/");
        let (inside, outside) = (w.join_by(&m, hello("inside")), w.client("outside"));
        w.subscribe(inside, "# 1");
        w.subscribe(outside, "# 1");
        w.publish(inside, "q1 a/b x");
        assert_eq!((w.heard(inside), w.heard(outside)), ("PUBLISH q1 #1 a/b x".into(), "PUBLISH q1 #1 m/a/b x".into()));
        w.publish(outside, "q1 a/b y");
        w.publish(outside, "q1 m/c z");
        assert_eq!(
            (w.heard(inside), w.heard(outside)),
            ("PUBLISH q1 #2 c z".into(), "PUBLISH q1 #2 a/b y, PUBLISH q1 #3 m/c z".into())
        );
        w.tell(inside, "UNSUBSCRIBE #9 #");
        w.publish(outside, "q1 m/c z");
        assert!(!w.heard(inside).contains("PUBLISH"));
    }
}

#[test]
fn two_mount_points_do_not_see_each_other() {
    let mut w = World::new();
    let (a, b) = (w.join_by(&below("a/"), v311("one")), w.join_by(&below("b/"), v311("two")));
    w.subscribe(a, "t 0");
    w.subscribe(b, "t 0");
    w.publish(a, "t x");
    assert_eq!((w.heard(a), w.heard(b)), ("PUBLISH t x".into(), "".into()));
}

#[test]
fn the_same_message_goes_to_clients_with_and_without_mount_point_in_any_order() {
    for hello in BOTH {
        for qos in ["", "q1 ", "q2 "] {
            let mut w = World::new();
            let (m, n) = (below("m/"), below("m/n/"));
            let listeners = [w.rules.clone(), m.clone(), n, w.rules.clone(), m];
            let mut clients = Vec::new();
            for (number, rules) in listeners.iter().enumerate() {
                clients.push(w.join_by(rules, hello(&format!("c{number}"))));
                w.subscribe(clients[number], "# 2");
            }
            for payload in ["x", "x*5000"] {
                w.publish(clients[0], &format!("{qos}m/n/t {payload}"));
                let topic = |heard: String| heard.split(' ').rev().nth(1).unwrap_or_default().to_string();
                let topics: Vec<_> = clients.iter().map(|&client| topic(w.heard(client))).collect();
                assert_eq!(topics, ["m/n/t", "n/t", "t", "m/n/t", "n/t"], "{qos}{payload}");
            }
        }
    }
}

#[test]
fn shared_filters_keep_their_group_in_front() {
    let mut w = World::new();
    let (inside, outside) = (w.join_by(&below("m/"), v5("inside")), w.client("outside"));
    w.subscribe(inside, "$share/g/t/# 1");
    w.subscribe(outside, "$share/g/m/t/# 1");
    // One group: each message goes to one of them.
    (0..2).for_each(|_| w.publish(outside, "q1 m/t/1 x"));
    assert_eq!((w.heard(inside), w.heard(outside)), ("PUBLISH q1 #1 t/1 x".into(), "PUBLISH q1 #1 m/t/1 x".into()));
    w.tell(inside, "UNSUBSCRIBE #9 $share/g/t/#");
    assert_eq!(w.heard(inside), "UNSUBACK #9 00");
}

#[test]
fn wills_and_retained_messages_stand_below_it() {
    for hello in EVERY {
        let mut w = World::new();
        let m = below("m/");
        let (c, outside) = (w.join_by(&m, hello("c").will("retain wills/c gone")), w.client("outside"));
        w.subscribe(outside, "# 0");
        w.hang_up(c);
        assert_eq!(w.heard(outside), "PUBLISH m/wills/c gone");
        let late = w.join_by(&m, hello("late"));
        w.subscribe(late, "wills/+ 0");
        assert_eq!(w.heard(late), "PUBLISH retain wills/c gone");
        w.publish(late, "retain wills/c");
        assert_eq!(w.broker.retained_count(), 0);
    }
}

#[test]
fn system_topics_are_below_it_too_and_so_are_not_there() {
    let mut w = World::new();
    let m = below("m/");
    let (inside, outside) = (w.join_by(&m, v311("inside")), w.client("outside"));
    w.subscribe(inside, "$SYS/# 0");
    w.advance_s(20);
    assert_eq!(w.heard(inside), "");
    // Nobody's topics but its own.
    w.subscribe(outside, "m/# 0");
    w.publish(inside, "$SYS/broker/version x");
    assert_eq!(w.heard(inside), "PUBLISH $SYS/broker/version x");
    assert_eq!(w.heard(outside), "PUBLISH m/$SYS/broker/version x");
}

#[test]
fn aliases_stand_for_the_topics_the_client_knows() {
    let mut w = World::new();
    let m = below("m/");
    let (p, s) = (w.join_by(&m, v5("p")), w.join_by(&m, v5("s").with("alias-max=5")));
    let outside = w.join(v5("outside").with("alias-max=5"));
    w.subscribe(s, "# 0");
    w.subscribe(outside, "# 0");
    w.tell(p, "PUBLISH t a alias=1, PUBLISH '' b alias=1, PUBLISH u c alias=1, PUBLISH '' d alias=1, PUBLISH t e");
    assert_eq!(w.heard(s), "PUBLISH t a, PUBLISH t b alias=1, PUBLISH u c, PUBLISH u d alias=2, PUBLISH '' e alias=1");
    assert_eq!(
        w.heard(outside),
        "PUBLISH m/t a, PUBLISH m/t b alias=1, PUBLISH m/u c, PUBLISH m/u d alias=2, PUBLISH '' e alias=1"
    );
}

#[test]
fn it_is_used_literally() {
    let mut w = World::new();
    let (inside, outside) = (w.join_by(&below("m"), v311("inside")), w.client("outside"));
    w.subscribe(outside, "# 0");
    w.subscribe(inside, "/# 0");
    w.publish(inside, "t x");
    w.publish(inside, "/t y");
    assert_eq!((w.heard(inside), w.heard(outside)), ("PUBLISH /t y".into(), "PUBLISH mt x, PUBLISH m/t y".into()));
    // A wildcard that would no longer fill a level.
    w.tell(inside, "SUBSCRIBE #1 # 0 +/t 1 t/+ 1");
    assert_eq!(w.heard(inside), "SUBACK #1 80 80 01");
    assert_eq!(
        log_count("may not subscribe to '#': the filter is not valid with the listener's mount_point in front of it."),
        1
    );
    w.tell(inside, "UNSUBSCRIBE #2 #");
    assert_eq!(w.heard(inside), "UNSUBACK #2");
}

#[test]
fn a_filter_that_is_not_valid_by_itself_ends_the_link_as_ever() {
    let mut w = World::new();
    let c = w.join_by(&below("m/"), v5("c"));
    w.tell(c, "SUBSCRIBE #1 a# 0");
    assert_eq!(w.heard(c), "DISCONNECT 8f, closed");
}

#[test]
fn the_topic_above_is_not_sent_though_a_filter_matches_it() {
    // 'm/#' matches 'm', and with its mount point cut off nothing would be left of 'm/'.
    for qos in ["", "q1 ", "q2 "] {
        let mut w = World::new();
        let (inside, p) = (w.join_by(&below("m/"), v5("inside")), w.client("p"));
        w.publish(p, &format!("{qos}retain m kept"));
        w.subscribe(inside, "# 2");
        w.publish(p, &format!("{qos}m live"));
        w.publish(p, &format!("{qos}m/ live"));
        assert_eq!(w.heard(inside), "");
        w.publish(p, &format!("{qos}m/t x"));
        assert!(w.heard(inside).ends_with("t x"));
    }
}

#[test]
fn a_session_that_comes_back_elsewhere_gets_what_it_may_see_there() {
    let mut w = World::new();
    let c = w.join_by(&below("m/"), v311("c").stored());
    w.subscribe(c, "t 1");
    w.hang_up(c);
    let p = w.client("p");
    w.publish(p, "q1 m/t one");
    // Without a mount point it sees the whole topic, below another one nothing.
    let c = w.join(v311("c").stored());
    assert_eq!(w.heard(c), "PUBLISH q1 #1 m/t one");
    w.tell(c, "PUBACK #1");
    w.hang_up(c);
    w.publish(p, "q1 m/t two");
    let c = w.join_by(&below("n/"), v311("c").stored());
    w.publish(p, "q1 m/t three");
    assert_eq!(w.heard(c), "");
    w.hang_up(c);
    w.publish(p, "q1 m/t four");
    let c = w.join_by(&below("m/"), v311("c").stored());
    assert!(w.heard(c).ends_with(" t four"));
}

#[test]
fn whole_topics_are_what_is_stored() {
    let mut w = World::with(|config| config.persistence = Persistence::Always);
    let m = below("m/");
    let c = w.join_by(&m, v311("c").stored());
    w.subscribe(c, "t 1");
    w.hang_up(c);
    let p = w.join_by(&m, v311("p"));
    w.publish(p, "q1 retain t x");
    w.cut_power();
    let c = w.join_by(&m, v311("c").stored());
    assert!(w.heard(c).ends_with(" t x"));
    let late = w.client("late");
    w.subscribe(late, "# 0");
    assert_eq!(w.heard(late), "PUBLISH retain m/t x");
}

#[test]
fn a_topic_that_is_too_long_behind_it_is_refused() {
    let mut w = World::new();
    let m = below("m/");
    let (longest, too_long) = ("t".repeat(65_533), "t".repeat(65_534));
    let (c, old) = (w.join_by(&m, v5("c")), w.join_by(&m, v311("old")));
    w.subscribe(c, "# 0");
    w.publish(c, &format!("{longest} x"));
    assert_eq!(w.heard(c), format!("PUBLISH {longest} x"));
    w.tell(c, &format!("PUBLISH q1 #1 {too_long} x, PUBLISH q2 #2 {too_long} x, PUBLISH {too_long} x"));
    let reason = "reason='the topic is longer than 65535 bytes with the listener's mount_point in front of it'";
    assert_eq!(w.heard_in_full(c), format!("PUBACK #1 90 {reason}, PUBREC #2 90 {reason}"));
    w.publish(old, &format!("q1 {too_long} x"));
    w.publish(old, &format!("q2 {too_long} x"));
    assert_eq!((w.heard(c), w.heard(old)), (String::new(), String::new()));
    w.tell(c, &format!("SUBSCRIBE #1 {too_long} 0 {longest} 0"));
    assert_eq!(w.heard(c), "SUBACK #1 8f 00");
    let c = w.connect_by(&m, v5("w").will(&format!("{too_long} x")));
    assert_eq!(
        w.heard_in_full(c),
        "CONNACK 90 reason='the will topic is longer than 65535 bytes with mount_point in front of it', closed"
    );
    w.join_by(&m, v5("w").will(&format!("{longest} x")));
}

#[test]
fn a_packet_is_as_long_as_the_topic_the_client_knows() {
    let mut w = World::new();
    let s = w.join_by(&below("a-long-mount-point/"), v5("s").with("max-packet=20"));
    w.subscribe(s, "# 0");
    // 2 bytes of header, 2 + 1 of topic, 1 of properties.
    w.publish(s, "t x*14");
    w.publish(s, "t x*15");
    assert_eq!(w.heard(s), "PUBLISH t xxxxxxxxxxxxxx");
}

#[test]
fn the_topic_of_the_message_before_is_the_whole_one() {
    let mut w = World::new();
    let mounted = rules(|rules| rules.mount_point = "m/".to_string());
    let (a, b, s) = (w.client("a"), w.join_by(&mounted, v311("b")), w.client("s"));
    w.subscribe(s, "# 1");
    for _ in 0..2 {
        w.publish(a, "x 1");
        w.publish(b, "x 2");
        w.publish(b, "x 3");
        w.publish(a, "m/x 4");
        w.publish(b, "m/x 5");
        let heard = "PUBLISH x 1, PUBLISH m/x 2, PUBLISH m/x 3, PUBLISH m/x 4, PUBLISH m/m/x 5";
        assert_eq!(w.heard(s), heard);
    }
    // One that is too long to be remembered.
    let long = "l".repeat(300);
    for topic in [&long, &long, "x"] {
        w.publish(a, &format!("{topic} 1"));
        assert_eq!(w.heard(s), format!("PUBLISH {topic} 1"));
    }
}
