//! What the broker shows of itself to whoever administers it.

use midge::broker::Inspection;
use midge::config::Persistence;

use crate::harness::World;
use crate::hello::{v5, v311};

#[test]
fn a_client_is_shown_with_what_it_does_and_what_waits_for_it() {
    let mut w = World::new();
    let s = w.join(v5("s\\1").stored().keep_alive(60).username("eve").with("receive-max=1"));
    let p = w.client("p");
    w.subscribe(s, "a/# 1 b 0");
    w.advance_s(75);
    w.tell(s, "PINGREQ");
    w.tell(p, "PUBLISH #1 q1 a/1 12345");
    w.tell(p, "PUBLISH #2 q1 a/2 12345");
    w.tell(p, "PUBLISH b x");
    let rows = w.rows(Inspection::clients());
    // The second waits for an acknowledgement of the first.
    let expected = [
        "s\\\\1|192.0.2.7:40000|eve|5.0|75|60|2|1|8|0|1|0|2|0|".to_string(),
        "p|192.0.2.7:40001||3.1.1|75|0|0|0|0|0|0|3|0|0|".to_string(),
    ];
    assert_eq!(rows, expected);
    // Who did not say yet who it is is no client.
    w.dial(v311("x").version);
    assert_eq!(w.rows(Inspection::clients()).len(), 2);
    w.hang_up(s);
    assert_eq!(w.rows(Inspection::clients()).len(), 1);
}

#[test]
fn sessions_tell_who_is_away_since_when_and_until_when() {
    let mut w = World::with(|config| config.persistent_client_expiration_s = 0);
    let a = w.join(v5("a").stored());
    w.subscribe(a, "t 1");
    let b = w.join(v311("b").stored());
    let p = w.client("p");
    w.advance_s(10);
    w.hang_up(a);
    w.hang_up(b);
    w.advance_s(100);
    w.publish(p, "q1 t 123");
    let rows = w.rows(Inspection::sessions());
    let expected = ["a|away||3600|100|3500|1|1|4|0", "b|away|||100||0|0|0|0", "p|connected||0|||0|0|0|0"];
    assert_eq!(rows, expected);
}

#[test]
fn after_a_restart_it_is_told_how_long_a_client_is_away_if_that_is_known() {
    let mut w = World::with(|config| {
        config.persistence = Persistence::Always;
        config.persistent_client_expiration_s = 0;
    });
    let (a, b) = (w.join(v5("a").stored()), w.join(v311("b").stored()));
    w.hang_up(a);
    w.hang_up(b);
    w.advance_s(120);
    w.cut_power();
    w.advance_s(5);
    let rows = w.rows(Inspection::sessions());
    assert_eq!(rows, ["a|away||3600|125|3475|0|0|0|0", "b|away|||||0|0|0|0"]);
}

#[test]
fn subscriptions_are_shown_with_their_options_and_shares() {
    let mut w = World::new();
    let a = w.join(v5("a"));
    w.subscribe(a, "house/+ 2 nl");
    w.subscribe(a, "$share/g/house/+ 1");
    let b = w.client("b");
    w.subscribe(b, "house/+ 0 alone 0");
    let mut all = w.rows(Inspection::subscriptions());
    all.sort();
    let expected = ["a|house/+|1|||g", "a|house/+|2|no-local||", "b|alone|0|||", "b|house/+|0|||"];
    assert_eq!(all, expected);
    assert_eq!(w.rows(Inspection::subscriptions_of("a")), ["a|house/+|2|no-local||", "a|house/+|1|||g"]);
    assert_eq!(w.rows(Inspection::subscriptions_of("nobody")), [""; 0]);
}

#[test]
fn retained_messages_are_shown_by_filter_and_with_payloads_if_asked() {
    let mut w = World::new();
    let p = w.join(v5("p"));
    w.publish(p, "retain a/1 12345");
    w.publish(p, "q1 retain a/2 x expiry=60");
    w.publish(p, "q2 retain b payload");
    w.advance_s(20);
    assert_eq!(w.rows(Inspection::retained("#", false)), ["a/1|5|0|", "a/2|1|1|40", "b|7|2|"]);
    assert_eq!(w.rows(Inspection::retained("+/1", true)), ["a/1|5|0||12345"]);
    assert_eq!(w.rows(Inspection::retained("c/#", true)), [""; 0]);
}

#[test]
fn counters_are_told_though_nobody_subscribes_to_them() {
    let mut w = World::new();
    let p = w.client("p");
    w.publish(p, "retain t 1");
    w.advance_s(15);
    let rows = w.rows(Inspection::stats());
    for row in ["uptime|1015", "clients/connected|1", "retained messages/count|1", "publish/messages/received|1"] {
        assert!(rows.iter().any(|it| it == row), "{row}: {rows:#?}");
    }
    assert!(rows.iter().any(|row| row.starts_with("load/messages/received/1min|") && row.contains('.')));
    let has_store = rows.iter().any(|row| row == "store/amplification|0.00");
    assert_eq!(has_store, crate::harness::IS_STORED);
}

/// Whatever comes and goes meanwhile, what was there all the time is in the list once, and a slice is small.
#[test]
fn lists_are_told_in_slices_while_things_come_and_go() {
    let mut w = World::new();
    let stays: Vec<String> = (0..600).map(|number| format!("stays-{number}")).collect();
    for id in &stays {
        let client = w.client(id);
        w.subscribe(client, &format!("own/{id} 0 all/# 0"));
        w.publish(client, &format!("retain kept/{id} x"));
    }
    for (inspect, count) in [
        (Inspection::clients as fn() -> Inspection, 1),
        (Inspection::sessions, 1),
        (Inspection::subscriptions, 2),
        (|| Inspection::retained("#", true), 1),
    ] {
        let (mut inspection, mut text, mut slices, mut number) = (inspect(), Vec::new(), 0, 0);
        loop {
            let before = text.len();
            let is_over = w.broker.inspect(&mut inspection, &mut text, w.now);
            let slice = &text[before..];
            assert!(slice.len() <= 40 << 10 && slice.iter().filter(|&&byte| byte == b'\n').count() <= 257);
            slices += 1;
            if is_over {
                break;
            }
            // Somebody comes, subscribes, retains something, and goes.
            for _ in 0..3 {
                number += 1;
                let client = w.client(&format!("passes-{number}"));
                w.subscribe(client, &format!("passing/{number} 0 all/# 0"));
                w.publish(client, &format!("retain passing/{number} x"));
                if number % 3 != 0 {
                    w.hang_up(client);
                }
            }
        }
        assert!(slices >= 600 * count / 256, "{slices}");
        let text = String::from_utf8(text).unwrap();
        for id in &stays {
            let (own, topic) = (format!("row\t{id}\t"), format!("row\tkept/{id}\t"));
            let seen = text.lines().filter(|line| line.starts_with(&own) || line.starts_with(&topic)).count();
            assert_eq!(seen, count, "{id}");
        }
    }
}

/// Who leaves after it was told of makes others move up; they are told of all the same.
#[test]
fn nobody_is_passed_over_when_others_go() {
    let mut w = World::new();
    let mut going = Vec::new();
    for number in 0..600 {
        let goes = number % 2 == 0;
        let client = w.join(v5(&format!("{}-{number}", if goes { "goes" } else { "stays" })));
        w.subscribe(client, "all/# 0 $share/g/all/# 0");
        if goes {
            going.push(client);
        }
    }
    let (mut inspection, mut text) = (Inspection::subscriptions(), Vec::new());
    assert!(!w.broker.inspect(&mut inspection, &mut text, w.now));
    going.into_iter().for_each(|client| w.hang_up(client));
    while !w.broker.inspect(&mut inspection, &mut text, w.now) {}
    let text = String::from_utf8(text).unwrap();
    for number in (1..600).step_by(2) {
        let row = format!("row\tstays-{number}\tall/#\t0\t\t\t");
        for row in [format!("{row}\n"), format!("{row}g\n")] {
            assert_eq!(text.matches(&row).count(), 1, "{row}");
        }
    }
}

#[test]
fn no_subscription_of_a_client_is_passed_over_when_others_end() {
    let mut w = World::new();
    let client = w.client("c");
    for number in 0..600 {
        w.subscribe(client, &format!("t/{number} 0"));
    }
    let (mut inspection, mut text) = (Inspection::subscriptions_of("c"), Vec::new());
    assert!(!w.broker.inspect(&mut inspection, &mut text, w.now));
    for number in 0..100 {
        w.tell(client, &format!("UNSUBSCRIBE #{} t/{number}", number + 1));
    }
    while !w.broker.inspect(&mut inspection, &mut text, w.now) {}
    let text = String::from_utf8(text).unwrap();
    for number in 100..600 {
        assert_eq!(text.matches(&format!("row\tc\tt/{number}\t")).count(), 1, "{number}");
    }
}
