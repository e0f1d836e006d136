//! What the log says of connections that begin and end: one line each, in Mosquitto's words, and the explanation behind.

use crate::harness::{Client, World, log_count};
use crate::hello::{v5, v31, v311};

/// Client `c`, and how it ends; the line the log has then.
fn ended(end: impl FnOnce(&mut World, Client), line: &str) {
    let mut w = World::new();
    let c = w.join(v5("c").keep_alive(10));
    end(&mut w, c);
    assert!(!w.is_open(c));
    assert_eq!(log_count(&format!("Notice: Client c [192.0.2.7:40000] disconnected{line}")), 1, "{line}");
    assert_eq!((log_count("isconnected"), log_count("Protocol error from")), (1, 0), "{line}");
}

#[test]
fn the_log_has_one_line_for_each_end_and_says_why() {
    ended(|w, c| w.tell(c, "DISCONNECT"), ".");
    ended(|w, c| w.hang_up(c), ": connection closed by client.");
    let fails = |w: &mut World, c: Client| {
        w.breaks(c);
        w.tell(c, "PINGREQ");
    };
    ended(fails, ": bad socket read/write: Connection reset by peer.");
    let silence = ": exceeded timeout. Nothing came for one and a half times the keep alive.";
    ended(|w, _| w.advance_s(16), silence);
    ended(|w, c| w.send_hex(c, "00 00"), ": malformed packet. A packet has the reserved type 0.");
    let second = ": protocol error. A second CONNECT came on one connection.";
    ended(|w, c| w.send(c, &v5("c").bytes()), second);
    let alias = ": topic alias invalid. Topic alias 11 is not between 1 and 10, the Topic Alias Maximum of CONNACK.";
    ended(|w, c| w.tell(c, "PUBLISH t x alias=11"), alias);
    let topic = ": protocol error. A PUBLISH has the topic 'a/+'; '+' and '#' are for filters.";
    ended(|w, c| w.tell(c, "PUBLISH a/+ x"), topic);
}

#[test]
fn a_client_that_is_not_let_in_is_named_by_its_address() {
    let mut w = World::with(|config| config.clientid_prefixes = Some("house-".into()));
    w.connect(v311("garden"));
    let line = "Notice: Client 192.0.2.7 [192.0.2.7:40000] disconnected: not authorised. \
                The client id does not begin with 'house-' (clientid_prefixes).";
    assert_eq!((log_count(line), log_count("connected")), (1, 1));
}

#[test]
fn a_connection_that_never_said_who_it_is_is_named_by_its_address() {
    let mut w = World::new();
    w.dial(v311("").version);
    w.advance_s(31);
    let line = "Notice: Client 192.0.2.7 [192.0.2.7:40000] disconnected: exceeded timeout. \
                No complete CONNECT came within connect_timeout.";
    assert_eq!((log_count(line), log_count("")), (1, 1));
    let c = w.dial(v311("").version);
    w.hang_up(c);
    let line = "Notice: Client 192.0.2.7 [192.0.2.7:40001] disconnected: connection closed by client.";
    assert_eq!((log_count(line), log_count("")), (1, 2));
}

#[test]
fn what_is_no_mqtt_is_told_with_its_address_whatever_connection_messages_says() {
    for (bytes, line) in [
        ("47 45 54", "Information: Protocol error from 192.0.2.7:40000: First packet not CONNECT (47)."),
        ("16 03 01", "Notice: Client from 192.0.2.7:40000 appears to be using TLS to connect to a non-TLS listener."),
    ] {
        let mut w = World::with(|config| config.connection_messages = false);
        let c = w.dial(v311("").version);
        w.send_hex(c, bytes);
        assert!(!w.is_open(c));
        assert_eq!((log_count(line), log_count("")), (1, 1), "{line}");
    }
}

#[test]
fn subscriptions_are_lines_of_a_kind_of_their_own() {
    let mut w = World::with(|config| config.connection_messages = false);
    let c = w.client("c");
    w.subscribe(c, "house/+/temperature 1");
    w.tell(c, "UNSUBSCRIBE #2 house/+/temperature");
    assert_eq!(log_count("Subscribe: c 1 house/+/temperature"), 1);
    assert_eq!((log_count("Unsubscribe: c house/+/temperature"), log_count("")), (1, 2));
}

#[test]
fn without_connection_messages_comers_and_goers_are_not_logged() {
    let mut w = World::with(|config| config.connection_messages = false);
    let (one, two) = (w.client("one"), w.client("two"));
    w.tell(one, "DISCONNECT");
    w.hang_up(two);
    assert_eq!(log_count(""), 0);
}

#[test]
fn the_log_shows_version_clean_session_and_keep_alive_of_a_new_client() {
    let mut w = World::new();
    w.client("one");
    w.join(v31("two").stored().keep_alive(60).username("me"));
    w.join(v5("three").bridge());
    assert_eq!(log_count("Notice: New client connected from 192.0.2.7:40000 as one (p4, c1, k0)."), 1);
    assert_eq!(log_count("Notice: New client connected from 192.0.2.7:40001 as two (p3, c0, k60, u'me')."), 1);
    assert_eq!(log_count("Notice: New client connected from 192.0.2.7:40002 as three (p5, c1, k0)."), 1);
}

#[test]
fn what_a_peer_made_up_is_shown_without_control_characters_and_cut_after_60() {
    for (name, shown) in [
        ("a+\u{1b}b".to_string(), "a+b…".to_string()),
        (format!("+{}", "x".repeat(59)), format!("+{}", "x".repeat(59))),
        (format!("+{}", "x".repeat(60)), format!("+{}…", "x".repeat(59))),
    ] {
        let mut w = World::new();
        let c = w.client("c");
        w.tell(c, &format!("PUBLISH {name} x"));
        assert_eq!(log_count(&format!("A PUBLISH has the topic '{shown}'; ")), 1, "{shown}");
    }
}

#[test]
fn messages_are_shown_for_debugging_in_mosquittos_form() {
    let mut w = World::new();
    let c = w.client("c");
    w.tell(c, "PUBLISH retain q1 #5 house/light on");
    w.tell(c, "PUBLISH $SYS/x off");
    assert_eq!(log_count("Debug: Received PUBLISH from c (d0, q1, r1, m5, 'house/light', ... (2 bytes))"), 1);
    let line = "Debug: Denied PUBLISH from c (d0, q0, r0, m0, '$SYS/x', ... (3 bytes)): topics below $SYS belong to";
    assert_eq!(log_count(line), 1);
}
