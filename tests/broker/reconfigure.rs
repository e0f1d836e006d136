//! Another configuration and other rules while clients are connected.

use midge::broker::HangUp;
use midge::codec::{QoS, Version};
use midge::config::{Persistence, Rules};

use crate::harness::{World, log_count, rules};
use crate::hello::{EVERY, v5, v311};

#[test]
fn what_is_queued_stays_and_the_next_message_feels_the_new_limit() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.join(v311("s").stored()));
    w.subscribe(s, "t 1");
    w.hang_up(s);
    (0..5).for_each(|number| w.publish(p, &format!("q1 t {number}")));
    w.reconfigure(|config| config.max_queued_messages = 3);
    w.publish(p, "q1 t lost");
    w.reconfigure(|config| config.max_queued_messages = 6);
    w.publish(p, "q1 t kept");
    w.publish(p, "q1 t lost");
    let s = w.join(v311("s").stored());
    let heard = w.heard(s);
    assert!(heard.contains(" 4") && heard.contains("kept") && !heard.contains("lost"), "{heard}");
}

#[test]
fn a_larger_window_is_used_at_once_and_a_smaller_one_cuts_nothing() {
    for hello in EVERY {
        let mut w = World::with(|config| config.max_inflight_messages = 1);
        let (p, s) = (w.client("p"), w.join(hello("s")));
        w.subscribe(s, "t 1");
        (0..6).for_each(|_| w.publish(p, "q1 t x"));
        assert_eq!(w.heard(s).matches("PUBLISH").count(), 1);
        w.reconfigure(|config| config.max_inflight_messages = 4);
        assert_eq!(w.heard(s).matches("PUBLISH").count(), 3);
        w.reconfigure(|config| config.max_inflight_messages = 2);
        w.tell(s, "PUBACK #1, PUBACK #2");
        assert_eq!(w.heard(s), "");
        w.tell(s, "PUBACK #3");
        assert_eq!(w.heard(s), "PUBLISH q1 #5 t x");
        w.reconfigure(|config| config.max_inflight_messages = 0);
        assert_eq!(w.heard(s), "PUBLISH q1 #6 t x");
    }
}

#[test]
fn a_window_the_client_asked_for_stays() {
    let mut w = World::with(|config| config.max_inflight_messages = 1);
    let (p, s) = (w.client("p"), w.join(v5("s").with("receive-max=2")));
    w.subscribe(s, "t 1");
    w.reconfigure(|config| config.max_inflight_messages = 5);
    (0..6).for_each(|_| w.publish(p, "q1 t x"));
    assert_eq!(w.heard(s).matches("PUBLISH").count(), 2);
}

#[test]
fn the_receive_maximum_is_the_one_that_was_told() {
    let mut w = World::with(|config| config.max_inflight_messages = 2000);
    let c = w.join(v5("c"));
    w.reconfigure(|config| config.max_inflight_messages = 1);
    for id in 1..=1500 {
        w.tell(c, &format!("PUBLISH q2 #{id} t x"));
    }
    assert!(w.is_open(c));
    assert_eq!(log_count("receive-maximum"), 0);
    let c = w.connect(v5("late"));
    assert!(w.heard_in_full(c).contains("receive-max=1 "));
}

#[test]
fn bytes_in_flight_have_the_new_limit() {
    let mut w = World::with(|config| config.max_inflight_bytes = 10);
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 1");
    (0..3).for_each(|_| w.publish(p, "q1 t x*8"));
    assert_eq!(w.heard(s).matches("PUBLISH").count(), 1);
    w.reconfigure(|config| config.max_inflight_bytes = 16);
    assert_eq!(w.heard(s).matches("PUBLISH").count(), 1);
    w.reconfigure(|config| config.max_inflight_bytes = 0);
    assert_eq!(w.heard(s).matches("PUBLISH").count(), 1);
}

#[test]
fn a_keep_alive_stays_what_it_was_and_the_next_client_gets_the_new_one() {
    let mut w = World::new();
    let c = w.join(v5("c").keep_alive(100));
    w.reconfigure(|config| config.max_keepalive_s = 10);
    w.advance_s(140);
    assert!(w.is_open(c));
    w.advance_s(11);
    assert_eq!(w.heard(c), "DISCONNECT 8d, closed");
    let c = w.connect(v5("c").keep_alive(100));
    assert!(w.heard_in_full(c).contains("keep-alive=10"));
    let c = w.connect(v311("old").keep_alive(100));
    assert_eq!(w.heard(c), "CONNACK 02, closed");
}

#[test]
fn sessions_are_kept_no_longer_than_the_new_bound_says() {
    let mut w = World::with(|config| config.persistent_client_expiration_s = 0);
    for hello in [v311("for-ever").stored(), v5("hour").stored()] {
        let c = w.join(hello);
        w.hang_up(c);
    }
    let here = w.join(v311("here").stored());
    w.advance_s(100);
    w.reconfigure(|config| config.persistent_client_expiration_s = 300);
    // An hour from when it left is now 300 s from then; for ever is 300 s from now.
    w.advance_s(199);
    assert_eq!(w.broker.session_count(), 3);
    w.advance_s(2);
    assert_eq!(w.broker.session_count(), 2);
    w.advance_s(97);
    assert_eq!(w.broker.session_count(), 2);
    w.advance_s(4);
    assert_eq!(w.broker.session_count(), 1);
    w.hang_up(here);
    w.advance_s(298);
    assert_eq!(w.broker.session_count(), 1);
    w.advance_s(4);
    assert_eq!(w.broker.session_count(), 0);
}

#[test]
fn a_session_that_is_already_too_old_ends_now_and_a_longer_bound_changes_nothing() {
    let mut w = World::with(|config| config.persistent_client_expiration_s = 1000);
    let c = w.join(v311("c").stored());
    w.hang_up(c);
    w.advance_s(100);
    w.reconfigure(|config| config.persistent_client_expiration_s = 5000);
    w.advance_s(1);
    assert_eq!(w.broker.session_count(), 1);
    w.reconfigure(|config| config.persistent_client_expiration_s = 50);
    w.advance_s(1);
    assert_eq!(w.broker.session_count(), 0);
}

#[test]
fn retransmission_follows_the_new_interval() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 1");
    w.publish(p, "q1 t x");
    assert_eq!(w.heard(s), "PUBLISH q1 #1 t x");
    w.reconfigure(|config| config.retry_interval_s = 0);
    w.advance_s(100);
    assert_eq!(w.heard(s), "");
    w.reconfigure(|config| config.retry_interval_s = 5);
    w.advance_s(4);
    assert_eq!(w.heard(s), "");
    w.advance_s(2);
    assert_eq!(w.heard(s), "PUBLISH dup q1 #1 t x");
    w.tell(s, "PUBACK #1");
    // Nothing is left to send again.
    w.reconfigure(|config| config.retry_interval_s = 3);
    w.advance_s(100);
    assert_eq!(w.heard(s), "");
}

#[test]
fn a_shorter_stall_timeout_ends_a_wait_that_is_under_way() {
    let mut w = World::with(|config| config.stall_timeout_ms = 60_000);
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 0");
    w.takes(s, 0);
    for _ in 0..3000 {
        w.post(p, &publish_of("t", 1000));
    }
    w.turn();
    assert!(w.unread(p) > 0);
    w.advance_s(10);
    assert!(w.unread(p) > 0);
    w.reconfigure(|config| config.stall_timeout_ms = 20_000);
    w.advance_s(9);
    assert!(w.unread(p) > 0);
    w.advance_s(2);
    assert_eq!(w.unread(p), 0);
    assert_eq!(log_count("publishers no longer wait for it"), 1);
}

/// A QoS 0 message with a payload of so many bytes.
fn publish_of(topic: &str, len: usize) -> Vec<u8> {
    let body = [&(topic.len() as u16).to_be_bytes()[..], topic.as_bytes(), &vec![b'x'; len]].concat();
    crate::harness::packet(0x30, &body)
}

#[test]
fn system_topics_come_and_go_with_their_interval() {
    let mut w = World::new();
    let c = w.client("c");
    w.subscribe(c, "$SYS/broker/uptime 0");
    assert_eq!(w.heard(c), "PUBLISH retain $SYS/broker/uptime 1000 seconds");
    w.reconfigure(|config| config.sys_interval_s = 30);
    w.advance_s(29);
    assert_eq!(w.heard(c), "");
    w.advance_s(2);
    assert_eq!(w.heard(c), "PUBLISH $SYS/broker/uptime 1030 seconds");
    w.reconfigure(|config| config.sys_interval_s = 0);
    assert_eq!(w.broker.retained_count(), 0);
    w.advance_s(100);
    assert_eq!(w.heard(c), "");
    w.reconfigure(|config| config.sys_interval_s = 10);
    assert_eq!(w.heard(c), "PUBLISH $SYS/broker/uptime 1131 seconds");
    w.reconfigure(|config| config.connect_timeout_s = 7);
    w.advance_s(11);
    assert_eq!(w.heard(c), "PUBLISH $SYS/broker/uptime 1141 seconds");
}

#[test]
fn without_a_subscriber_a_new_system_interval_wakes_nobody() {
    let mut w = World::with(|config| config.sys_interval_s = 0);
    w.client("c");
    w.reconfigure(|config| config.sys_interval_s = 10);
    w.reconfigure(|config| config.sys_interval_s = 0);
    assert_eq!((w.broker.retained_count(), w.broker.next_deadline()), (0, None));
}

#[test]
fn the_memory_limit_can_be_lowered_raised_and_lifted() {
    let mut w = World::with(|config| config.memory_limit = 1 << 30);
    w.client("known");
    let is_refused = |w: &mut World| {
        w.broker.set_memory_used(1 << 20);
        let c = w.connect(v5("new"));
        let heard = w.heard(c);
        if w.is_open(c) {
            w.tell(c, "DISCONNECT");
        }
        heard.starts_with("CONNACK 97")
    };
    assert!(!is_refused(&mut w));
    w.reconfigure(|config| config.memory_limit = 1 << 20);
    assert!(is_refused(&mut w));
    w.reconfigure(|config| config.memory_limit = 0);
    assert!(!is_refused(&mut w));
    w.reconfigure(|config| config.memory_limit = 1 << 20);
    assert!(is_refused(&mut w));
    w.reconfigure(|config| config.memory_limit = 1 << 30);
    assert!(!is_refused(&mut w));
}

#[test]
fn sizes_and_retain_hold_from_the_next_packet_on() {
    let mut w = World::new();
    let (c, d) = (w.join(v5("c")), w.join(v5("d")));
    w.reconfigure(|config| config.max_packet_size = 100);
    w.publish(c, "t x*10");
    w.tell(c, "PUBLISH t x*200");
    assert_eq!(w.heard(c), "DISCONNECT 95, closed");
    w.reconfigure(|config| config.retain_available = false);
    w.tell(d, "PUBLISH retain t x");
    assert_eq!(w.heard(d), "DISCONNECT 9a, closed");
    let e = w.join(v5("e"));
    w.reconfigure(|config| config.message_size_limit = 5);
    w.tell(e, "PUBLISH q1 #1 t x*6");
    assert_eq!(w.heard(e), "PUBACK #1 83");
}

#[test]
fn persistence_stays_what_it_was() {
    let mut w = World::stored();
    w.reconfigure(|config| config.persistence = Persistence::Off);
    assert_eq!(w.broker.config().persistence, Persistence::Always);
}

#[test]
fn the_limit_of_sessions_and_log_lines_are_those_of_the_new_configuration() {
    let mut w = World::new();
    w.client("a");
    w.reconfigure(|config| {
        config.global_max_clients = 1;
        config.connection_messages = false;
    });
    let c = w.connect(v311("b"));
    assert_eq!(w.heard(c), "CONNACK 03, closed");
    let a = w.client("a");
    assert!(w.is_open(a));
    assert_eq!(log_count("New client connected"), 1);
}

#[test]
fn clients_that_would_not_be_let_in_any_more_are_told_so() {
    for change in
        [(|rules| rules.allow_anonymous = false) as fn(&mut Rules), |rules| rules.accept_protocol_versions = [false; 3]]
    {
        for hello in EVERY {
            let mut w = World::new();
            let (watcher, c) = (w.client("watcher"), w.join(hello("c").will("wills/c gone")));
            w.subscribe(watcher, "wills/# 0");
            w.set_rules(c, &rules(change));
            assert_eq!(w.heard(c), if hello("").version == Version::V5 { "DISCONNECT 87, closed" } else { "closed" });
            assert_eq!(w.heard(watcher), "PUBLISH wills/c gone");
            assert_eq!(log_count("Client c [192.0.2.7:40001] disconnected: not authorised. This listener "), 1);
        }
    }
}

#[test]
fn the_reason_is_told_in_words() {
    let mut w = World::new();
    let c = w.join(v5("c"));
    w.set_rules(c, &rules(|rules| rules.accept_protocol_versions = [true, true, false]));
    assert_eq!(
        w.heard_in_full(c),
        "DISCONNECT 87 reason='this listener does not serve MQTT 5.0 (accept_protocol_versions)', closed"
    );
}

#[test]
fn an_id_without_the_new_prefix_may_stay_and_may_not_come() {
    let mut w = World::new();
    let bad = w.join(v5("x"));
    w.reconfigure(|config| config.clientid_prefixes = Some("dev-".into()));
    let rules = w.rules.clone();
    w.set_rules(bad, &rules);
    assert!(w.is_open(bad));
    w.hang_up(bad);
    let again = w.connect(v5("x"));
    assert!(w.heard(again).starts_with("CONNACK 87"));
}

#[test]
fn the_same_rules_and_those_that_let_in_disconnect_nobody() {
    let mut w = World::new();
    let c = w.client("c");
    let other = rules(|rules| {
        rules.accept_protocol_versions = [false, true, false];
        rules.allow_zero_length_clientid = false;
        rules.use_username_as_clientid = true;
    });
    w.set_rules(c, &other);
    assert!(w.is_open(c));
    w.tell(c, "PINGREQ");
    assert_eq!(w.heard(c), "PINGRESP");
}

#[test]
fn a_link_without_connect_obeys_the_new_rules() {
    let mut w = World::new();
    let c = w.dial(Version::V5);
    let new = rules(|rules| {
        rules.mount_point = "m/".to_string();
        rules.max_topic_alias = 2;
        rules.max_qos = QoS::AtLeastOnce;
    });
    w.set_rules(c, &new);
    w.send(c, &v5("c").bytes());
    assert_eq!(w.heard_in_full(c), "CONNACK 00 receive-max=20 max-qos=1 alias-max=2");
    let watcher = w.client("watcher");
    w.subscribe(watcher, "# 0");
    w.publish(c, "t x");
    assert_eq!(w.heard(watcher), "PUBLISH m/t x");
    let d = w.dial(Version::V311);
    w.set_rules(d, &rules(|rules| rules.allow_anonymous = false));
    assert!(w.is_open(d));
    w.send(d, &v311("d").bytes());
    assert_eq!(w.heard(d), "CONNACK 05, closed");
}

#[test]
fn what_connack_told_stays_and_subscriptions_are_granted_the_new_qos() {
    let mut w = World::new();
    let c = w.join(v5("c").with("alias-max=5"));
    let lower = rules(|rules| {
        rules.mount_point = "m/".to_string();
        rules.max_topic_alias = 0;
        rules.max_topic_alias_broker = 0;
        rules.max_qos = QoS::AtMostOnce;
    });
    w.set_rules(c, &lower);
    w.tell(c, "SUBSCRIBE #1 t 2");
    assert_eq!(w.heard(c), "SUBACK #1 00");
    w.tell(c, "PUBLISH q2 #2 t x alias=10, PUBLISH q1 #3 '' y alias=10");
    let heard = w.heard(c);
    assert!(heard.contains("PUBLISH t x") && heard.contains("PUBLISH t y alias=1"), "{heard}");
    // A higher QoS than was told may be used at once.
    let d = w.join_by(&lower, v311("d"));
    w.set_rules(d, &rules(|_| ()));
    w.publish(d, "q2 t x");
    assert!(w.is_open(d));
}

#[test]
fn rules_for_a_link_that_is_being_closed_change_nothing() {
    let mut w = World::new();
    let c = w.client("c");
    let link = w.link(c);
    w.broker.hang_up(link, HangUp::Closed, w.now);
    w.broker.set_rules(link, &rules(|rules| rules.allow_anonymous = false), w.now);
    w.turn();
    assert_eq!((w.heard(c).as_str(), log_count("not authorised")), ("closed", 0));
}
