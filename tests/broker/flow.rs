//! Who waits for whom: slow subscribers lose nothing while they read, stalled ones hold up nobody for long, and nothing
//! grows without bounds.

use crate::harness::{Client, World, log_count};
use crate::hello::{BOTH, v5, v31, v311};
use crate::script;

/// 1000 packets in one go.
fn burst(w: &mut World, client: Client, qos: u8, topic: &str, numbers: std::ops::Range<u32>, filler: usize) {
    let mut bytes = Vec::new();
    for number in numbers {
        let id = if qos == 0 { String::new() } else { format!("#{}", number % 65_535 + 1) };
        let payload = format!("{number}-{}", "x".repeat(filler));
        bytes.extend(script::encode(&format!("PUBLISH q{qos} {id} {topic} {payload}"), v311("").version));
    }
    w.post(client, &bytes);
}

/// The numbers in the payloads the client got.
fn numbers(w: &mut World, client: Client) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(text) = w.hear_one(client) {
        if text.starts_with("PUBLISH") {
            numbers.push(text.rsplit_once(' ').unwrap().1.split_once('-').unwrap().0.parse().unwrap());
        }
    }
    numbers
}

#[test]
fn a_slow_subscriber_that_reads_loses_nothing_of_a_qos_0_flood() {
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.join(hello("s")));
        w.subscribe(s, "t 0");
        w.takes(s, 3000);
        burst(&mut w, p, 0, "t", 0..20_000, 100);
        w.turn();
        assert!(w.unread(p) > 0, "the publisher does not wait");
        w.advance_while_busy(100, p, s);
        assert_eq!(numbers(&mut w, s), (0..20_000).collect::<Vec<_>>());
        assert_eq!((w.broker.stats().messages_dropped, w.broker.stats().stalls), (0, 0));
        assert!(w.output_max(s) < 200_000, "{}", w.output_max(s));
    }
}

#[test]
fn a_subscriber_that_takes_nothing_is_given_up_after_the_stall_timeout() {
    let mut w = World::new();
    let (p, dead, alive) = (w.client("p"), w.client("dead"), w.client("alive"));
    w.subscribe(dead, "t 0");
    w.subscribe(alive, "t 0");
    w.takes(dead, 0);
    burst(&mut w, p, 0, "t", 0..20_000, 100);
    w.turn();
    assert!(w.unread(p) > 0);
    w.advance(900);
    assert_eq!((w.broker.stats().stalls, w.broker.stats().messages_dropped), (0, 0));
    w.advance(200);
    assert_eq!(w.broker.stats().stalls, 1);
    w.turn();
    assert_eq!(w.unread(p), 0);
    assert_eq!(numbers(&mut w, alive), (0..20_000).collect::<Vec<_>>());
    assert!(w.broker.stats().messages_dropped > 10_000);
    assert_eq!(log_count("Client dead [192.0.2.7:40001] has taken next to nothing for 1000 ms"), 1);
    assert_eq!(log_count("Outgoing messages are being dropped for client dead"), 1);
    // What it did get is complete from the beginning, and it is heard again.
    w.takes(dead, usize::MAX);
    w.turn();
    let got = numbers(&mut w, dead);
    assert!(got.len() > 1000 && got.iter().enumerate().all(|(at, &number)| at as u32 == number));
    w.publish(p, "t 7-x");
    assert_eq!(numbers(&mut w, dead), [7]);
    assert!(w.is_open(dead));
}

#[test]
fn a_subscriber_that_reads_but_never_acknowledges_stalls_too() {
    for hello in [v31, v311, v5] {
        let mut w = World::new();
        let (p, dead, alive) = (w.client("p"), w.join(hello("dead")), w.client("alive"));
        w.subscribe(dead, "t 1");
        w.subscribe(alive, "t 1");
        w.acknowledges(alive);
        burst(&mut w, p, 1, "t", 0..5000, 10);
        w.turn();
        w.advance(1200);
        assert_eq!((w.unread(p), w.broker.stats().stalls), (0, 1));
        assert_eq!(numbers(&mut w, alive), (0..5000).collect::<Vec<_>>());
        assert_eq!(numbers(&mut w, dead).len(), 20);
    }
}

#[test]
fn drops_are_logged_once_until_the_queue_was_empty() {
    let mut w = World::with(|config| config.max_queued_messages = 5);
    let (p, s) = (w.client("p"), w.join(v311("s").stored()));
    w.subscribe(s, "t 1");
    w.hang_up(s);
    for round in 1..=2 {
        let away = w.join(v311("s").stored());
        w.hang_up(away);
        (0..30).for_each(|_| w.publish(p, "q1 t x"));
        assert_eq!(log_count("Outgoing messages are being dropped for client s"), round);
        assert_eq!(w.broker.stats().messages_dropped, 25 * round as u64);
        let back = w.join(v311("s").stored());
        let ids: Vec<String> = std::iter::from_fn(|| w.hear_one(back)).collect();
        assert_eq!(ids.len(), 5);
        (5 * round - 4..=5 * round).for_each(|id| w.tell(back, &format!("PUBACK #{id}")));
    }
}

#[test]
fn two_clients_that_publish_to_each_other_do_not_wait_for_ever() {
    for hello in BOTH {
        for (count, filler) in [(2000, 10), (8000, 10), (1500, 1000)] {
            let mut w = World::new();
            let (a, b) = (w.join(hello("a")), w.join(hello("b")));
            w.subscribe(a, "to/a 1");
            w.subscribe(b, "to/b 1");
            for client in [a, b] {
                w.acknowledges(client);
            }
            let version = hello("").version;
            let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
            for number in 0..count {
                let (id, filler) = (number % 65_535 + 1, "x".repeat(filler));
                to_b.extend(script::encode(&format!("PUBLISH q1 #{id} to/b {number}-{filler}"), version));
                to_a.extend(script::encode(&format!("PUBLISH q1 #{id} to/a {number}-{filler}"), version));
            }
            w.post(a, &to_b);
            w.post(b, &to_a);
            w.turn();
            for _ in 0..100 {
                w.advance(100);
            }
            assert_eq!((w.unread(a), w.unread(b)), (0, 0));
            let acks = [a, b].map(|client| w.heard_bytes(client).iter().filter(|frame| frame[0] == 0x40).count());
            assert_eq!(acks, [count as usize; 2]);
        }
    }
}

#[test]
fn two_clients_that_publish_to_each_other_lose_nothing_while_their_acknowledgements_can_be_found() {
    let mut w = World::new();
    let (a, b) = (w.client("a"), w.client("b"));
    w.subscribe(a, "to/a 1");
    w.subscribe(b, "to/b 1");
    w.acknowledges(a);
    w.acknowledges(b);
    burst(&mut w, a, 1, "to/b", 0..3000, 10);
    burst(&mut w, b, 1, "to/a", 0..3000, 10);
    w.turn();
    for _ in 0..20 {
        w.advance(100);
    }
    assert_eq!(numbers(&mut w, a), (0..3000).collect::<Vec<_>>());
    assert_eq!(numbers(&mut w, b), (0..3000).collect::<Vec<_>>());
}

#[test]
fn a_client_may_subscribe_to_its_own_flood() {
    for qos in 0..3 {
        let mut w = World::new();
        let c = w.client("c");
        w.subscribe(c, "t 2");
        w.acknowledges(c);
        burst(&mut w, c, qos, "t", 0..5000, 50);
        if qos == 2 {
            let releases: Vec<String> = (1..=5000).map(|id| format!("PUBREL #{id}")).collect();
            w.post(c, &script::encode(&releases.join(", "), v311("").version));
        }
        w.turn();
        for _ in 0..30 {
            w.advance(100);
        }
        assert_eq!(w.unread(c), 0);
        let got = numbers(&mut w, c);
        let lost = w.broker.stats().messages_dropped as usize;
        assert!(got.is_sorted_by(|one, other| one < other), "QoS {qos}");
        assert_eq!(got.len() + lost, 5000, "QoS {qos}");
        assert_eq!(lost, 0, "QoS {qos}");
    }
}

#[test]
fn a_client_that_floods_itself_and_does_not_read_costs_bounded_memory() {
    let mut w = World::new();
    let c = w.client("c");
    w.subscribe(c, "t 0");
    w.takes(c, 0);
    burst(&mut w, c, 0, "t", 0..20_000, 200);
    w.turn();
    for _ in 0..100 {
        w.advance(100);
    }
    assert!(w.output_max(c) < 400_000);
    let sent = 20_000 * 200;
    assert!(w.broker.stats().messages_dropped > 0 || w.unread(c) > sent / 2);
}

#[test]
fn a_client_that_sends_without_reading_its_answers_is_not_listened_to() {
    for packet in ["PINGREQ", "SUBSCRIBE #1 a 0", "PUBLISH q1 #1 t x", "PUBREL #9", "PUBREC #9"] {
        let mut w = World::new();
        let c = w.client("c");
        w.takes(c, 0);
        let bytes = script::encode(packet, v311("").version).repeat(200_000);
        w.post(c, &bytes);
        w.turn();
        assert!(w.unread(c) > 0, "{packet}");
        assert!(w.broker.output(w.link(c)).len() < 300_000, "{packet}");
        w.takes(c, usize::MAX);
        w.turn();
        assert_eq!(w.unread(c), 0);
        assert_eq!(w.heard_bytes(c).len(), 200_000);
    }
}

#[test]
fn acknowledgements_and_pings_of_a_waiting_publisher_are_heard() {
    let mut w = World::new();
    let (p, slow, other) = (w.join(v311("p").keep_alive(10)), w.client("slow"), w.client("other"));
    w.subscribe(slow, "t 0");
    w.subscribe(p, "back 1");
    w.takes(slow, 0);
    burst(&mut w, p, 0, "t", 0..1200, 200);
    w.turn();
    assert!(w.broker.stats().pauses > 0);
    w.publish(other, "q1 back one");
    assert_eq!(w.heard(p), "PUBLISH q1 #1 back one");
    let handled = w.broker.stats().packets_received;
    w.tell(p, "PINGREQ, PUBACK #1");
    assert_eq!(w.heard(p), "PINGRESP");
    assert_eq!(w.broker.stats().packets_received, handled + 2);
}

/// What the broker holds for all of `clients`.
fn held(w: &World, clients: &[Client]) -> usize {
    clients.iter().map(|&client| w.broker.output(w.link(client)).len()).sum()
}

#[test]
fn one_read_is_handled_in_one_turn_unless_it_makes_4_mib_of_output() {
    for (subscribers, is_whole) in [(10, true), (300, false)] {
        let mut w = World::new();
        let p = w.client("p");
        let all: Vec<Client> = (0..subscribers).map(|number| w.client(&format!("s{number}"))).collect();
        all.iter().for_each(|&client| w.subscribe(client, "t 0"));
        let payload = "x".repeat(95);
        let bytes = script::encode(&vec![format!("PUBLISH t {payload}"); 500].join(", "), v311("").version);
        let (link, now) = (w.link(p), w.now);
        w.broker.receive(link, &bytes, now);
        let (handled, held) = (w.broker.stats().publishes_received, held(&w, &all));
        assert_eq!(handled == 500, is_whole, "{handled} of 500 messages");
        // A message is 100 bytes, and goes to all 300.
        assert!(is_whole || (4 << 20..(4 << 20) + 30_001).contains(&held), "{held}");
        w.turn();
        assert!(all.iter().all(|&client| w.heard_bytes(client).len() == 500));
    }
}

#[test]
fn a_slow_subscriber_holds_up_only_those_who_publish_to_it() {
    let mut w = World::new();
    let (p, slow, other, reader) = (w.client("p"), w.client("slow"), w.client("other"), w.client("reader"));
    w.subscribe(slow, "t 0");
    w.subscribe(reader, "u 0");
    w.takes(slow, 0);
    burst(&mut w, p, 0, "t", 0..5000, 200);
    w.turn();
    assert!(w.unread(p) > 0);
    burst(&mut w, other, 0, "u", 0..5000, 200);
    w.turn();
    assert_eq!((w.unread(other), numbers(&mut w, reader).len()), (0, 5000));
    assert!(w.unread(p) > 0);
}

#[test]
fn a_waiting_publisher_goes_on_when_the_slow_subscriber_leaves() {
    type End = fn(&mut World, Client);
    let ends: [End; 3] = [
        |w, slow| w.hang_up(slow),
        |w, slow| w.tell(slow, "DISCONNECT"),
        |w, _| {
            w.join(v311("slow"));
        },
    ];
    for end in ends {
        let mut w = World::new();
        let (p, slow) = (w.client("p"), w.client("slow"));
        w.subscribe(slow, "t 0");
        w.takes(slow, 0);
        burst(&mut w, p, 0, "t", 0..5000, 200);
        w.turn();
        assert!(w.unread(p) > 0);
        end(&mut w, slow);
        assert_eq!(w.unread(p), 0);
        w.tell(p, "PINGREQ");
        assert_eq!(w.heard(p), "PINGRESP");
    }
}

#[test]
fn a_waiting_publisher_is_not_ended_by_its_keep_alive() {
    let mut w = World::with(|config| config.stall_timeout_ms = 100_000);
    let (p, slow) = (w.join(v311("p").keep_alive(1)), w.client("slow"));
    w.subscribe(slow, "t 0");
    w.takes(slow, 0);
    burst(&mut w, p, 0, "t", 0..5000, 200);
    w.advance_s(60);
    assert!(w.is_open(p) && w.unread(p) > 0);
}

#[test]
fn fifty_thousand_retained_messages_reach_a_slow_reader_within_bounds() {
    for hello in BOTH {
        for qos in [0, 1] {
            let mut w = World::new();
            let p = w.client("p");
            for number in 0..50_000 {
                let packet =
                    format!("PUBLISH q{qos} #1 retain r/{}/{number} {number}-{}", number % 100, "x".repeat(40));
                w.post(p, &script::encode(&packet, v311("").version));
            }
            w.turn();
            assert_eq!(w.broker.retained_count(), 50_000);
            w.heard_bytes(p);
            let s = w.join(hello("s"));
            w.takes(s, 20_000);
            w.acknowledges(s);
            w.tell(s, &format!("SUBSCRIBE #1 r/# {qos}"));
            let mut turns = 0;
            while w.pending(s) || turns < 3 {
                w.advance(10);
                turns += 1;
                assert!(turns < 100_000);
            }
            let mut got = numbers(&mut w, s);
            got.sort();
            assert_eq!(got, (0..50_000).collect::<Vec<_>>());
            assert!(w.output_max(s) < 200_000, "{}", w.output_max(s));
            assert_eq!(w.broker.stats().messages_dropped, 0);
        }
    }
}

#[test]
fn live_messages_are_not_held_up_or_lost_by_a_large_retained_set() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    for number in 0..5000 {
        w.post(p, &script::encode(&format!("PUBLISH retain r/{number} {number}-{}", "x".repeat(50)), v311("").version));
    }
    w.turn();
    w.takes(s, 5000);
    w.tell(s, "SUBSCRIBE #1 # 0");
    burst(&mut w, p, 0, "live", 100_000..110_000, 50);
    w.turn();
    w.advance_while_busy(10, p, s);
    let (live, retained): (Vec<u32>, Vec<u32>) = numbers(&mut w, s).into_iter().partition(|&number| number >= 100_000);
    assert_eq!(live, (100_000..110_000).collect::<Vec<_>>());
    assert_eq!(retained.len(), 5000);
}
