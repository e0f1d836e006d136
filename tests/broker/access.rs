//! Who is let in, by password file and `allow_anonymous`, and who may read and write what, by the access control file; both as
//! Mosquitto has it. What their files may hold is tested where they are read.

use std::rc::Rc;

use midge::config::Rules;

use crate::harness::{Client, World, log_count, rights, rules, users};
use crate::hello::{EVERY, Hello, v5, v311};

const USERS: &str = "u:secret\nv:other\n";

fn with_users(allow_anonymous: bool) -> Rc<Rules> {
    rules(|rules| {
        rules.allow_anonymous = allow_anonymous;
        rules.passwords = users(USERS);
    })
}

fn with_acl(file: &str) -> Rc<Rules> {
    rules(|rules| rules.acl = rights(file))
}

/// A client that may do everything, beside those that may not.
fn free() -> Rc<Rules> {
    rules(|_| ())
}

fn answer(w: &mut World, rules: &Rc<Rules>, hello: Hello) -> String {
    let c = w.connect_by(rules, hello);
    w.heard(c)
}

// Who is let in.

/// Without a user name, with an empty one, with one and no password, and with one that is right or wrong.
#[test]
fn who_is_let_in_depends_on_allow_anonymous_and_password_file() {
    let nobody = rules(|rules| rules.allow_anonymous = false);
    let anybody = rules(|_| ());
    for (rules, expected) in [
        (nobody, [false, false, false, false, false, false]),
        (anybody, [true, true, true, true, true, true]),
        (with_users(true), [true, true, false, true, false, false]),
        (with_users(false), [false, false, false, true, false, false]),
    ] {
        for (number, hello) in EVERY.into_iter().enumerate() {
            let mut w = World::new();
            let callers = [
                hello("c"),
                hello("c").username(""),
                hello("c").username("u"),
                hello("c").username("u").password("secret"),
                hello("c").username("u").password("secreT"),
                hello("c").username("nobody").password("secret"),
            ];
            for (caller, is_in) in callers.into_iter().zip(expected) {
                let refusal = if number == 2 { "CONNACK 87, closed" } else { "CONNACK 05, closed" };
                let expected = if is_in { "CONNACK 00" } else { refusal };
                assert_eq!(answer(&mut w, &rules, caller), expected);
            }
        }
    }
}

#[test]
fn a_refusal_says_why_but_not_whether_it_was_the_name() {
    let mut w = World::new();
    let rules = with_users(false);
    for name in ["u", "nobody"] {
        let c = w.connect_by(&rules, v5("c").username(name).password("guess"));
        assert_eq!(w.heard_in_full(c), "CONNACK 87 reason='unknown user or wrong password', closed");
    }
    assert_eq!(log_count("disconnected: not authorised. Unknown user or wrong password."), 2);
    assert_eq!(log_count("guess"), 0);
    assert_eq!(w.broker.session_count(), 0);
}

#[test]
fn while_a_password_is_looked_at_others_are_served_and_what_its_client_sends_waits() {
    for hello in EVERY {
        let mut w = World::new();
        w.is_login_slow = true;
        let s = w.client("s");
        w.subscribe(s, "t 0");
        let c = w.connect_by(&with_users(false), hello("c").username("u").password("secret"));
        w.tell(c, "PUBLISH t early, PINGREQ");
        assert_eq!(w.heard(c), "");
        w.publish(s, "t between");
        assert_eq!(w.heard(s), "PUBLISH t between");
        assert!(w.check_password());
        assert_eq!((w.heard(c), w.heard(s)), ("CONNACK 00, PINGRESP".to_string(), "PUBLISH t early".to_string()));
    }
}

#[test]
fn nothing_is_taken_over_before_the_password_is_right() {
    let mut w = World::new();
    let rules = with_users(false);
    let old = w.join_by(&rules, v311("c").username("u").password("secret"));
    w.is_login_slow = true;
    let c = w.connect_by(&rules, v311("c").username("u").password("wrong"));
    assert!(w.check_password() && w.is_open(old));
    assert_eq!(w.heard(c), "CONNACK 05, closed");
}

#[test]
fn a_client_that_is_gone_before_its_password_was_looked_at_leaves_nothing() {
    for is_taken in [false, true] {
        let mut w = World::new();
        w.is_login_slow = true;
        let rules = with_users(false);
        // The first one is under way, others wait.
        let first = w.connect_by(&rules, v311("first").username("u").password("secret"));
        let second = w.connect_by(&rules, v311("second").username("v").password("other"));
        w.hang_up(if is_taken { first } else { second });
        // Another connection may get its place.
        let third = w.connect_by(&rules, v311("third").username("u").password("wrong"));
        while w.check_password() {}
        assert_eq!(w.heard(third), "CONNACK 05, closed");
        let stays = if is_taken { second } else { first };
        assert_eq!(w.heard(stays), "CONNACK 00");
        assert_eq!(w.broker.session_count(), 1);
    }
}

#[test]
fn what_a_client_said_before_it_hung_up_counts_if_its_password_is_right() {
    let mut w = World::new();
    w.is_login_slow = true;
    let s = w.client("s");
    w.subscribe(s, "t 0");
    let c = w.dial_by(midge::codec::Version::V311, &with_users(false));
    w.post(c, &v311("c").username("u").password("secret").bytes());
    w.post(c, b"\x30\x03\x00\x01t");
    w.deliver_and_hang_up(c);
    assert!(w.check_password());
    assert_eq!(w.heard(s), "PUBLISH t");
    assert!(!w.is_open(c));
}

#[test]
fn who_waits_for_longer_than_connect_timeout_is_told_to_come_later() {
    let mut w = World::new();
    w.is_login_slow = true;
    let rules = with_users(false);
    let old = w.connect_by(&rules, v311("a").username("u").password("secret"));
    let new = w.connect_by(&rules, v5("b").username("u").password("secret"));
    w.advance_s(31);
    assert_eq!((w.heard(old), w.heard(new)), ("CONNACK 03, closed".to_string(), "CONNACK 97, closed".to_string()));
    // The answer to the first comes all the same, and helps it when it is back.
    w.check_password();
    assert_eq!(answer(&mut w, &rules, v311("a").username("u").password("secret")), "CONNACK 00");
}

#[test]
fn a_login_that_was_right_is_not_looked_at_again() {
    let mut w = World::new();
    let rules = with_users(false);
    w.join_by(&rules, v311("a").username("u").password("secret"));
    w.is_login_slow = true;
    w.join_by(&rules, v311("b").username("u").password("secret"));
    let other = w.connect_by(&rules, v311("c").username("v").password("other"));
    assert_eq!(w.heard(other), "");
}

#[test]
fn only_so_many_logins_wait() {
    let mut w = World::new();
    w.is_login_slow = true;
    let rules = with_users(false);
    // All are of one address here, which gets half of the places. One more is under way.
    let waiting: Vec<Client> = (0..513)
        .map(|number| w.connect_by(&rules, v311(&format!("c{number}")).username("u").password("secret")))
        .collect();
    assert_eq!(answer(&mut w, &rules, v311("more").username("u").password("secret")), "CONNACK 03, closed");
    assert_eq!(answer(&mut w, &rules, v5("more").username("u").password("secret")), "CONNACK 97, closed");
    assert_eq!(answer(&mut w, &free(), v311("free")), "CONNACK 00");
    w.is_login_slow = false;
    w.check_password();
    assert!(waiting.iter().all(|&c| w.heard(c) == "CONNACK 00"));
}

#[test]
fn an_address_that_guesses_has_to_wait_longer_and_longer_but_not_for_what_was_right_before() {
    let mut w = World::new();
    let rules = with_users(false);
    w.join_by(&rules, v311("old").username("v").password("other"));
    for _ in 0..6 {
        assert_eq!(answer(&mut w, &rules, v311("c").username("u").password("guess")), "CONNACK 05, closed");
    }
    // Not even the right one is looked at now.
    assert_eq!(answer(&mut w, &rules, v311("c").username("u").password("secret")), "CONNACK 03, closed");
    assert_eq!(answer(&mut w, &rules, v5("c").username("u").password("secret")), "CONNACK 9f, closed");
    assert_eq!(log_count("disconnected: connection rate exceeded. Too many logins from this address were wrong"), 2);
    assert_eq!(answer(&mut w, &rules, v311("again").username("v").password("other")), "CONNACK 00");
    assert_eq!(answer(&mut w, &free(), v311("free")), "CONNACK 00");
    w.advance_s(1);
    assert_eq!(answer(&mut w, &rules, v311("c").username("u").password("secret")), "CONNACK 00");
    // That made good for all before.
    assert_eq!(answer(&mut w, &rules, v311("c").username("u").password("guess")), "CONNACK 05, closed");
    assert_eq!(answer(&mut w, &rules, v311("c").username("u").password("secret")), "CONNACK 00");
}

#[test]
fn guesses_that_were_all_sent_at_once_are_not_all_looked_at() {
    let mut w = World::new();
    w.is_login_slow = true;
    let rules = with_users(false);
    let guesses: Vec<Client> = (0..20)
        .map(|number| w.connect_by(&rules, v311(&format!("c{number}")).username("u").password("guess")))
        .collect();
    let mut count = 0;
    while w.check_password() {
        count += 1;
    }
    assert_eq!(count, 6);
    let answers: Vec<String> = guesses.iter().map(|&c| w.heard(c)).collect();
    assert!(answers[..6].iter().all(|it| it == "CONNACK 05, closed"));
    assert!(answers[6..].iter().all(|it| it == "CONNACK 03, closed"));
}

#[test]
fn on_a_reload_who_would_not_be_let_in_any_more_is_disconnected() {
    let older = with_users(true);
    let file = |file: &str, allow_anonymous: bool| {
        rules(|rules| {
            rules.allow_anonymous = allow_anonymous;
            rules.passwords = users(file);
        })
    };
    for (newer, u_stays, anonymous_stays) in [
        (file(USERS, true), true, true),
        (file("u:secret", true), true, true),
        (file("u:another", true), false, true),
        (file("v:other", false), false, false),
        (file("", false), false, false),
        (rules(|_| ()), true, true),
        (rules(|rules| rules.allow_anonymous = false), false, false),
    ] {
        let mut w = World::new();
        let u = w.join_by(&older, v5("u").username("u").password("secret"));
        let anonymous = w.join_by(&older, v5("a"));
        w.set_rules(u, &newer);
        w.set_rules(anonymous, &newer);
        assert_eq!((w.is_open(u), w.is_open(anonymous)), (u_stays, anonymous_stays), "{newer:?}");
        if !u_stays {
            assert_eq!(w.heard(u), "DISCONNECT 87, closed");
            assert!(log_count("Client u [192.0.2.7:40000] disconnected: not authorised.") > 0);
        }
    }
    // Who was not asked for a password has to show one.
    let mut w = World::new();
    let u = w.join(v5("u").username("u").password("secret"));
    w.set_rules(u, &older);
    assert_eq!(w.heard(u), "DISCONNECT 87, closed");
}

#[test]
fn a_password_that_was_changed_while_it_was_looked_at_is_looked_at_again() {
    let mut w = World::new();
    w.is_login_slow = true;
    let c = w.connect_by(&with_users(false), v311("c").username("u").password("secret"));
    let newer = rules(|rules| {
        rules.allow_anonymous = false;
        rules.passwords = users("u:changed");
    });
    w.set_rules(c, &newer);
    assert!(w.check_password() && w.heard(c).is_empty());
    assert!(w.check_password());
    assert_eq!(w.heard(c), "CONNACK 05, closed");
}

// Who may do what.

/// Whether a message of this topic, published by a client of this name, gets to somebody who may read everything.
fn is_forwarded(file: &str, hello: Hello, topic: &str) -> bool {
    let mut w = World::new();
    let s = w.client("free");
    w.subscribe(s, "# 0 $x/# 0 $SYS/x 0");
    let c = w.join_by(&with_acl(file), hello);
    w.publish(c, &format!("q1 {topic} x"));
    w.heard(s) == format!("PUBLISH {topic} x")
}

/// Whether a message of this topic gets to a client of this name.
fn is_delivered(file: &str, hello: Hello, topic: &str) -> bool {
    let mut w = World::new();
    let p = w.client("free");
    let c = w.join_by(&with_acl(file), hello);
    w.subscribe(c, "# 0 $x/# 0");
    w.publish(p, &format!("{topic} x"));
    w.heard(c) == format!("PUBLISH {topic} x")
}

#[test]
fn rules_are_evaluated_in_mosquittos_order() {
    let file = "user u\ntopic write a/#\npattern deny a/%u\npattern write p/%c\n";
    for (user, topic, is_allowed) in
        [("u", "a/u", true), ("u", "p/A", true), ("u", "p/B", false), ("z", "p/A", true), ("z", "a/x", false)]
    {
        assert_eq!(is_forwarded(file, v311("A").username(user), topic), is_allowed, "{user} {topic}");
    }
    let all = "user u\ntopic readwrite #\n";
    assert!(!is_forwarded(all, v311("A").username("u"), "$x/1"));
    assert!(!is_delivered(all, v311("A").username("u"), "$x/1"));
    assert!(is_delivered(all, v311("A").username("u"), "x/1"));
    let deny = "topic readwrite home/#\ntopic deny home/secret/#\ntopic home/secret/open\n";
    assert!(!is_forwarded(deny, v311("A"), "home/secret/open") && is_forwarded(deny, v311("A"), "home/x"));
    assert!(!is_delivered("topic write only/w\n", v311("A"), "only/w"));
    assert!(is_forwarded("topic write only/w\n", v311("A"), "only/w"));
    // An empty user name is none; an empty file allows nothing.
    assert!(is_forwarded("topic a\n", v311("A").username(""), "a"));
    assert!(!is_forwarded("", v311("A"), "a") && !is_delivered("", v311("A"), "a"));
}

#[test]
fn no_file_allows_to_write_below_sys_or_to_share() {
    for file in ["topic $SYS/#\ntopic $share/#\n", "topic #\n"] {
        for topic in ["$SYS/x", "$share/g/x"] {
            assert!(!is_forwarded(file, v311("A"), topic), "{file} {topic}");
        }
    }
    let mut w = World::new();
    let c = w.join_by(&with_acl("topic write $SYS/broker/connection/#"), v5("c"));
    w.tell(c, "PUBLISH q1 #1 $SYS/broker/connection/b/state 1, PUBLISH q1 #2 $SYS/broker/connection/b 1");
    assert_eq!(w.heard(c), "PUBACK #1 10, PUBACK #2 87");
}

#[test]
fn a_publish_that_is_denied_is_acknowledged_and_5_0_is_told_why() {
    let acl = with_acl("topic deny t\ntopic x\n");
    for hello in EVERY {
        let mut w = World::new();
        let s = w.client("s");
        w.subscribe(s, "# 0");
        let c = w.join_by(&acl, hello("c"));
        w.tell(c, "PUBLISH t x, PUBLISH q1 #1 t x, PUBLISH q2 #2 t x");
        let is_5 = w.heard_in_full(c);
        if is_5.contains("87") {
            let why = "87 reason='denied by the topic rule of line 1 of /acl'";
            assert_eq!(is_5, format!("PUBACK #1 {why}, PUBREC #2 {why}"));
        } else {
            assert_eq!(is_5, "PUBACK #1, PUBREC #2");
            w.tell(c, "PUBREL #2");
            assert_eq!(w.heard(c), "PUBCOMP #2");
        }
        assert_eq!(w.heard(s), "");
        assert_eq!(log_count("Debug: Denied PUBLISH from c (d0, q1, r0, m1, 't', ... (1 bytes)): denied by"), 1);
        let line = "Notice: A message of client c [192.0.2.7:40001] to 't' is refused: denied by the topic rule of line 1 of /acl. \
                    Further ones are logged for debugging.";
        assert_eq!((log_count(line), log_count("enied")), (1, 1), "the first one of the connection");
    }
}

#[test]
fn subscriptions_are_granted_whatever_the_file_says() {
    let mut w = World::new();
    let c = w.join_by(&with_acl(""), v5("c"));
    w.tell(c, "SUBSCRIBE #1 a 2 $SYS/# 1, UNSUBSCRIBE #2 a");
    assert_eq!(w.heard(c), "SUBACK #1 02 01, UNSUBACK #2 00");
}

#[test]
fn nothing_below_sys_is_read_without_a_rule() {
    for (file, is_read) in [("topic #\n", false), ("topic read $SYS/#\n", true)] {
        let mut w = World::new();
        let c = w.join_by(&with_acl(file), v311("c"));
        w.subscribe(c, "$SYS/broker/version 0");
        assert_eq!(w.heard(c).contains("PUBLISH"), is_read);
    }
}

#[test]
fn retained_messages_come_if_they_may_be_read() {
    let mut w = World::new();
    let p = w.client("p");
    w.publish(p, "retain a/1 x");
    w.publish(p, "retain a/2 y");
    w.publish(p, "retain a/3 z");
    let c = w.join_by(&with_acl("topic read a/+\ntopic deny a/2\n"), v311("c"));
    w.subscribe(c, "# 0");
    assert_eq!(w.heard(c), "PUBLISH retain a/1 x, PUBLISH retain a/3 z");
}

#[test]
fn of_a_share_those_get_a_message_who_may_read_it() {
    let mut w = World::new();
    let p = w.client("p");
    let acl = with_acl("user u\ntopic read a\n");
    let u = w.join_by(&acl, v5("u").username("u"));
    let v = w.join_by(&acl, v5("v").username("v"));
    w.subscribe(u, "$share/g/+ 1");
    w.subscribe(v, "$share/g/+ 1");
    w.publish_all(p, &["a 1", "a 2", "b 3", "a 4"]);
    assert_eq!((w.heard(u), w.heard(v)), ("PUBLISH a 1, PUBLISH a 2, PUBLISH a 4".to_string(), String::new()));
}

#[test]
fn what_waits_for_a_client_and_it_may_no_longer_read_is_removed_when_it_is_back() {
    for hello in EVERY {
        let mut w = World::new();
        let p = w.client("p");
        let c = w.join_by(&free(), hello("c").stored());
        w.subscribe(c, "# 2");
        w.tell(p, "PUBLISH q1 #1 in/flight x, PUBLISH q2 #2 in/flight/2 y");
        w.heard(c);
        w.hang_up(c);
        w.publish_all(p, &["q1 a/1 x", "q1 b/1 y", "q2 a/2 z"]);
        let c = w.connect_by(&with_acl("topic read a/#\n"), hello("c").stored());
        let heard = w.heard(c);
        assert_eq!(heard.matches("PUBLISH").count(), 2, "{heard}");
        assert!(heard.contains("a/1 x") && heard.contains("a/2 z"), "{heard}");
        assert_eq!(w.broker.session_count(), 2);
    }
}

#[test]
fn a_session_without_a_client_is_judged_by_the_listener_it_came_through() {
    let mut w = World::new();
    let p = w.client("p");
    let acl = with_acl("topic read a\n");
    let c = w.join_by(&acl, v311("c").stored());
    w.subscribe(c, "+ 1");
    w.hang_up(c);
    w.publish_all(p, &["q1 a 1", "q1 b 2"]);
    // The file changes meanwhile.
    let newer = with_acl("topic read b\n");
    w.broker.replace_rules(&[(acl, newer)]);
    w.publish_all(p, &["q1 a 3", "q1 b 4"]);
    let c = w.connect_by(&free(), v311("c").stored());
    assert_eq!(w.heard(c), "CONNACK 00 present, PUBLISH q1 #1 a 1, PUBLISH q1 #2 b 4");
}

#[test]
fn a_will_is_published_if_its_client_may_do_so_when_it_dies() {
    for hello in EVERY {
        let mut w = World::new();
        let s = w.client("s");
        w.subscribe(s, "# 0");
        let acl = with_acl("user u\ntopic write w/u\n");
        let newer = with_acl("");
        let dying = |w: &mut World, topic: &str, rules: Option<&Rc<Rules>>| {
            let c = w.join_by(&acl, hello("c").username("u").will(&format!("{topic} gone")));
            rules.into_iter().for_each(|rules| w.set_rules(c, rules));
            w.hang_up(c);
            w.heard(s)
        };
        assert_eq!(dying(&mut w, "w/u", None), "PUBLISH w/u gone");
        assert_eq!(dying(&mut w, "w/v", None), "");
        assert_eq!(dying(&mut w, "w/u", Some(&newer)), "");
    }
}

#[test]
fn other_rights_hold_from_the_next_message_on_and_subscriptions_stay() {
    let mut w = World::new();
    let p = w.client("p");
    let c = w.join_by(&with_acl("topic a\n"), v5("c"));
    w.subscribe(c, "+ 0");
    w.publish_all(p, &["a 1", "b 2"]);
    w.set_rules(c, &with_acl("topic b\n"));
    w.publish_all(p, &["a 3", "b 4"]);
    assert_eq!(w.heard(c), "PUBLISH a 1, PUBLISH b 4");
    w.tell(c, "PUBLISH q1 #1 a x, PUBLISH q1 #2 b x");
    assert_eq!(w.heard(c), "PUBACK #1 87, PUBLISH b x, PUBACK #2");
    w.set_rules(c, &free());
    w.publish_all(p, &["a 5"]);
    assert_eq!(w.heard(c), "PUBLISH a 5");
}

#[test]
fn rules_are_about_whole_topics_with_the_mount_point_in_front() {
    let mut w = World::new();
    let s = w.client("s");
    w.subscribe(s, "# 0");
    let acl = rules(|rules| {
        rules.mount_point = "m/".to_string();
        rules.acl = rights("topic m/a\n");
    });
    let c = w.join_by(&acl, v311("c"));
    w.subscribe(c, "# 0");
    w.publish_all(c, &["a 1", "b 2"]);
    assert_eq!(w.heard(s), "PUBLISH m/a 1");
    w.publish_all(s, &["m/b 1"]);
    assert_eq!(w.heard(c), "");
}

#[test]
fn a_retained_message_is_withheld_whose_publisher_lost_the_right_to_it() {
    for is_on in [false, true] {
        let mut w = World::with(|config| config.check_retain_source = is_on);
        let acl = with_acl("user u\ntopic t\ntopic t2\n");
        let u = w.join_by(&acl, v311("u").username("u"));
        let f = w.join(v311("f"));
        w.publish(u, "retain t x");
        w.publish(u, "retain t2 y");
        w.publish(f, "retain free z");
        w.broker.replace_rules(&[(acl, with_acl("user u\ntopic t2\n"))]);
        let c = w.client("c");
        w.subscribe(c, "# 0");
        let rest = "PUBLISH retain t2 y";
        let all = if is_on { rest.to_string() } else { format!("PUBLISH retain t x, {rest}") };
        assert_eq!(w.heard(c), format!("PUBLISH retain free z, {all}"));
        // Another publisher's message is another matter; and so is everything when nobody looks any more.
        w.publish(f, "retain t new");
        w.reconfigure(|config| config.check_retain_source = false);
        let c = w.client("c");
        w.subscribe(c, "t 0");
        assert_eq!(w.heard(c), "PUBLISH retain t new");
    }
}

#[test]
fn after_a_restart_a_session_is_judged_when_its_client_is_back() {
    let mut w = World::stored();
    let acl = with_acl("topic a\n");
    let c = w.join_by(&acl, v311("c").stored().will("b gone"));
    w.subscribe(c, "+ 1");
    w.cut_power();
    let s = w.client("s");
    w.subscribe(s, "# 0");
    // The will was not stored, for it might not be published.
    w.publish_all(s, &["q1 a 1", "q1 b 2"]);
    assert!(!w.heard(s).contains("gone"));
    let c = w.connect_by(&acl, v311("c").stored());
    let heard = w.heard(c);
    assert!(heard.starts_with("CONNACK 00 present, PUBLISH q1 #") && heard.ends_with(" a 1"), "{heard}");
}
