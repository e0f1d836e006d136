//! What the owner bounds: topics, subscriptions, retained messages, how fast a client publishes, and how often an
//! address comes. Whatever is refused for it is told by the name of the option,
//! to 5.0 clients in the reason string and to the owner in the log; the harness checks that for each of these refusals.

use midge::broker::Peer;

use crate::harness::{Client, World, log_count, rules};
use crate::hello::{BOTH, EVERY, v5, v31, v311};
use crate::script;

/// A topic or filter of so many levels.
fn deep(levels: usize) -> String {
    vec!["a"; levels].join("/")
}

#[test]
fn a_topic_that_is_too_deep_is_refused_by_5_0_and_ends_a_link_of_3_x() {
    let why = "the topic has 202 levels, and max_topic_levels is 201";
    for qos in 0..3 {
        let mut w = World::new();
        let s = w.client("s");
        w.subscribe(s, "# 0");
        let c = w.join(v5("c"));
        w.tell(c, &format!("PUBLISH q{qos} #1 {} x", deep(202)));
        let answer = ["", "PUBACK #1 90", "PUBREC #1 90"][qos];
        let told = if qos == 0 { String::new() } else { format!("{answer} reason='{why}'") };
        assert_eq!((w.heard_in_full(c), w.heard(s)), (told, "".into()));
        assert_eq!(log_count("Notice: A message of client c [192.0.2.7:40001] to 'a/a/a/"), 1);
        w.tell(c, &format!("PUBLISH q{qos} #2 {} x", deep(201)));
        assert_eq!(w.heard(s), format!("PUBLISH {} x", deep(201)));
        assert_eq!(w.broker.stats().publishes_refused, 1);
        for hello in [v31, v311] {
            let c = w.join(hello("old"));
            w.tell(c, &format!("PUBLISH q{qos} #1 {} x", deep(202)));
            assert_eq!((w.heard(c), w.heard(s)), ("closed".into(), "".into()));
        }
        let line = "disconnected: protocol error. The topic has 202 levels, and max_topic_levels is 201.";
        assert_eq!(log_count(line), 2);
    }
}

#[test]
fn a_topic_may_be_as_long_and_as_deep_as_the_owner_says() {
    let mut w = World::with(|config| (config.max_topic_length, config.max_topic_levels) = (10, 3));
    let (c, s) = (w.join(v5("c")), w.client("s"));
    w.subscribe(s, "# 0");
    for (topic, fault) in [
        ("a/b/c", ""),
        ("a//", ""),
        ("0123456789", ""),
        ("01234/6/89", ""),
        ("a/b/c/d", "the topic has 4 levels, and max_topic_levels is 3"),
        ("///", "the topic has 4 levels, and max_topic_levels is 3"),
        ("0123456789a", "the topic is 11 bytes long, and max_topic_length is 10"),
        ("ääääää", "the topic is 12 bytes long, and max_topic_length is 10"),
    ] {
        w.tell(c, &format!("PUBLISH q1 #1 {topic} x"));
        let (answer, delivered) = match fault {
            "" => ("PUBACK #1".to_string(), format!("PUBLISH {topic} x")),
            _ => (format!("PUBACK #1 90 reason='{fault}'"), String::new()),
        };
        assert_eq!((w.heard_in_full(c), w.heard(s)), (answer, delivered), "{topic}");
    }
    // By its alias it is no shorter.
    w.tell(c, "PUBLISH q1 #1 a/b/c/d x alias=1, PUBLISH q1 #2 '' x alias=1");
    assert_eq!(w.heard(c), "PUBACK #1 90, PUBACK #2 90");
}

#[test]
fn filters_are_bounded_like_topics_and_the_others_of_the_packet_are_granted() {
    for hello in EVERY {
        let mut w = World::with(|config| (config.max_topic_length, config.max_topic_levels) = (10, 3));
        let c = w.join(hello("c"));
        w.tell(c, "SUBSCRIBE #1 +/+/# 1 a/b/c/# 0 01234567890 0 $share/g/a/b/c 2 $share/01234567890/a 0");
        let (is_5, is_31) = (w.heard_in_full(c), hello("").version.level() == 3);
        let why = "the filter has 4 levels, and max_topic_levels is 3";
        assert_eq!(
            is_5,
            match hello("").version.level() {
                5 => format!("SUBACK #1 01 8f 8f 02 8f reason='{why}'"),
                4 => "SUBACK #1 01 80 80 02 80".into(),
                _ => is_5.clone(),
            }
        );
        assert!(!is_31 || w.is_open(c));
        let line = format!("Notice: Client c [192.0.2.7:40000] may not subscribe to 'a/b/c/#': {why}. Nor to 2 more.");
        assert_eq!((log_count(&line), w.broker.stats().subscriptions_refused), (1, 3));
        assert_eq!(w.broker.subscription_count(), 2);
    }
}

#[test]
fn a_will_is_bounded_like_any_message() {
    let mut w = World::with(|config| config.max_topic_levels = 3);
    for hello in BOTH {
        w.join(hello("c").will("a/b/c x"));
    }
    let c = w.connect(v5("c").will("a/b/c/d x"));
    let why = "the will topic has 4 levels, and max_topic_levels is 3";
    assert_eq!(w.heard_in_full(c), format!("CONNACK 90 reason='{why}', closed"));
    let c = w.connect(v311("c").will("a/b/c/d x"));
    assert!(w.heard(c).ends_with("closed"));
    assert_eq!(log_count("disconnected: protocol error. The will topic has 4 levels"), 2);
    // The mount point counts.
    let below = rules(|rules| rules.mount_point = "m/".into());
    let c = w.connect_by(&below, v5("c").will("a/b/c x"));
    assert!(w.heard(c).starts_with("CONNACK 90"));
}

#[test]
fn topics_below_a_mount_point_are_as_deep_as_with_it() {
    let mut w = World::with(|config| config.max_topic_levels = 3);
    let below = rules(|rules| rules.mount_point = "m/".into());
    let c = w.join_by(&below, v5("c"));
    w.tell(c, "SUBSCRIBE #1 a/b 0 a/b/c 0, PUBLISH q1 #2 a/b/c x, PUBLISH q1 #3 a/b x");
    assert_eq!(w.heard(c), "SUBACK #1 00 8f, PUBACK #2 90, PUBLISH a/b x, PUBACK #3");
}

#[test]
fn a_client_has_no_more_subscriptions_than_it_may() {
    for hello in BOTH {
        let mut w = World::with(|config| config.max_subscriptions = 3);
        let (c, d) = (w.join(hello("c").stored()), w.join(hello("d")));
        w.subscribe(d, "a 0 b 0 c 0");
        w.subscribe(c, "a 0 b 0");
        w.tell(c, "SUBSCRIBE #1 c 1 d 1 e 1");
        let (code, is_5) = if hello("").version.has_properties() { ("97", true) } else { ("80", false) };
        let why = "the client has 3 subscriptions, and max_subscriptions is 3";
        let told = if is_5 { format!(" reason='{why}'") } else { String::new() };
        assert_eq!(w.heard_in_full(c), format!("SUBACK #1 01 {code} {code}{told}"));
        let line = format!("Notice: Client c [192.0.2.7:40000] may not subscribe to 'd': {why}. Nor to 1 more.");
        assert_eq!(log_count(&line), 1);
        // One that it has may always be replaced, and one that is given up makes room.
        w.subscribe(c, "a 2 b 1");
        w.tell(c, "UNSUBSCRIBE #2 a, SUBSCRIBE #3 d 0 a 0");
        let unsuback = if is_5 { "UNSUBACK #2 00" } else { "UNSUBACK #2" };
        assert_eq!(w.heard(c), format!("{unsuback}, SUBACK #3 00 {code}"));
        // They count as long as the session lasts.
        w.hang_up(c);
        let c = w.join(hello("c").stored());
        w.tell(c, "SUBSCRIBE #1 x 0");
        assert_eq!(w.heard(c), format!("SUBACK #1 {code}"));
        w.reconfigure(|config| config.max_subscriptions = 0);
        w.subscribe(c, "x 0 y 0 z 0");
        // A lower limit takes none away.
        w.reconfigure(|config| config.max_subscriptions = 1);
        assert_eq!(w.broker.subscription_count(), 9);
        w.subscribe(c, "x 1");
        w.tell(c, "SUBSCRIBE #1 u 0");
        assert_eq!((w.heard(c), w.broker.stats().subscriptions_refused), (format!("SUBACK #1 {code}"), 5));
    }
}

/// What is retained below `r`.
fn retained(w: &mut World) -> String {
    let s = w.client("s");
    w.subscribe(s, "r/# 0");
    let heard = w.heard(s);
    w.hang_up(s);
    heard.replace("PUBLISH retain ", "")
}

fn answer(w: &mut World, client: Client, packet: &str) -> String {
    w.tell(client, packet);
    w.heard_in_full(client)
}

#[test]
fn no_more_messages_are_retained_than_the_owner_says() {
    let mut w = World::with(|config| config.max_retained_messages = 2);
    let (c, old, s) = (w.join(v5("c")), w.client("old"), w.client("live"));
    w.subscribe(s, "r/# 0 $SYS/broker/version 0");
    w.heard(s);
    w.publish(c, "q1 retain r/1 a");
    w.publish(c, "q1 retain r/2 b");
    let why = "2 messages are retained, and max_retained_messages is 2";
    assert_eq!(answer(&mut w, c, "PUBLISH q1 #1 retain r/3 x"), format!("PUBACK #1 97 reason='{why}'"));
    assert_eq!(answer(&mut w, c, "PUBLISH q2 #1 retain r/3 x"), format!("PUBREC #1 97 reason='{why}'"));
    assert_eq!(answer(&mut w, old, "PUBLISH q1 #1 retain r/3 x"), "PUBACK #1");
    let name = "to 'r/3' is refused: 2 messages are retained, and max_retained_messages is 2.";
    assert_eq!((log_count(&format!("A message of client c [192.0.2.7:40000] {name}")), log_count(name)), (1, 2));
    // As where memory is short: what is refused is refused as a whole.
    assert_eq!(w.heard(s), "PUBLISH r/1 a, PUBLISH r/2 b");
    // To replace, to remove and to publish without retaining is always possible.
    for packet in ["retain r/1 aa", "r/3 x", "retain r/3"] {
        assert!(!answer(&mut w, c, &format!("PUBLISH q1 #1 {packet}")).contains("97"), "{packet}");
    }
    assert_eq!(retained(&mut w), "r/1 aa, r/2 b");
    w.publish(c, "q1 retain r/1");
    w.publish(c, "q1 retain r/3 c");
    assert_eq!((retained(&mut w), w.broker.stats().publishes_refused), ("r/2 b, r/3 c".into(), 3));
}

#[test]
fn no_more_bytes_are_retained_than_the_owner_says() {
    let mut w = World::with(|config| config.max_retained_bytes = 20);
    let c = w.join(v5("c"));
    // Topics count.
    w.publish(c, "q1 retain r/1 aaaaaaa");
    w.publish(c, "q1 retain r/2 bbbbbbb");
    let why =
        |sum| format!("PUBACK #1 97 reason='with it {sum} bytes would be retained, and max_retained_bytes is 20'");
    assert_eq!(answer(&mut w, c, "PUBLISH q1 #1 retain r/3 x"), why(24));
    assert_eq!(answer(&mut w, c, "PUBLISH q1 #1 retain r/1 aaaaaaaa"), why(21));
    w.publish(c, "q1 retain r/2 bb");
    w.publish(c, "q1 retain r/3 cc");
    assert_eq!(retained(&mut w), "r/1 aaaaaaa, r/2 bb, r/3 cc");
    // What takes no more room than before may stay, also when there is less than there was.
    w.reconfigure(|config| config.max_retained_bytes = 10);
    w.publish(c, "q1 retain r/1 AAAAAAA");
    w.publish(c, "q1 retain r/1 AAA");
    let lower = why(17).replace("20'", "10'");
    assert_eq!(answer(&mut w, c, "PUBLISH q1 #1 retain r/1 AAAA"), lower);
    assert_eq!(retained(&mut w), "r/1 AAA, r/2 bb, r/3 cc");
}

#[test]
fn the_brokers_own_values_do_not_count_as_retained_messages_of_clients() {
    let mut w = World::with(|config| (config.max_retained_messages, config.max_retained_bytes) = (1, 10));
    let (c, s) = (w.join(v5("c")), w.client("s"));
    w.subscribe(s, "$SYS/# 0");
    assert!(w.broker.retained_count() > 50);
    w.publish(c, "q1 retain r/1 x");
    // A bridge's state is a client's.
    let state = "PUBLISH q1 #1 retain $SYS/broker/connection/c/state 1";
    assert!(answer(&mut w, c, state).starts_with("PUBACK #1 97"));
    let heard = w.heard(s);
    assert!(heard.contains("$SYS/broker/version midge") && !heard.contains("connection/c"), "{heard}");
}

#[test]
fn a_will_for_which_there_is_no_room_is_sent_and_not_retained() {
    for memory in [false, true] {
        let mut w = World::with(|config| {
            config.memory_limit = 100_000;
            config.max_retained_messages = u32::from(!memory);
        });
        let (c, s) = (w.join(v311("c").will("retain r/2 gone")), w.client("live"));
        w.publish(c, "q1 retain r/1 x");
        w.subscribe(s, "r/# 0");
        w.heard(s);
        if memory {
            w.broker.set_memory_used(96_000);
        }
        w.hang_up(c);
        assert_eq!((w.heard(s), retained(&mut w)), ("PUBLISH r/2 gone".into(), "r/1 x".into()));
        assert_eq!(log_count("Notice: A message of c, which is gone, for 'r/2' is sent and not retained: "), 1);
    }
}

#[test]
fn a_will_that_waits_for_the_store_is_bounded_like_others() {
    let mut w = World::with(|config| {
        config.persistence = midge::config::Persistence::Always;
        config.max_retained_messages = 1;
    });
    let (c, s) = (w.join(v311("c").stored().will("retain r/2 gone")), w.client("live"));
    w.publish(c, "q1 retain r/1 x");
    w.subscribe(s, "r/# 0");
    w.heard(s);
    w.disk.is_slow = true;
    w.tell(c, "PUBLISH q2 #9 r/3 first");
    w.hang_up(c);
    assert_eq!(w.heard(s), "");
    w.disk.is_slow = false;
    while w.sync() {}
    w.advance(1000);
    assert_eq!(w.heard(s), "PUBLISH r/3 first, PUBLISH r/2 gone");
    assert_eq!(retained(&mut w), "r/1 x");
}

#[test]
fn messages_that_wait_for_the_store_are_bounded_when_they_get_through() {
    for hello in BOTH {
        let mut w = World::with(|config| {
            config.persistence = midge::config::Persistence::Always;
            config.max_retained_messages = 2;
        });
        let (c, s) = (w.join(hello("c").stored()), w.client("live"));
        w.subscribe(s, "r/# 0");
        w.disk.is_slow = true;
        w.tell(
            c,
            "PUBLISH q2 #1 retain r/1 a, PUBLISH q2 #2 retain r/2 b, PUBLISH q2 #3 retain r/3 c, PUBLISH retain r/4 d",
        );
        // One that is removed makes room for the next.
        w.tell(c, "PUBLISH q2 #5 retain r/1, PUBLISH q2 #6 retain r/5 e, PUBLISH q2 #7 retain r/6 f");
        assert_eq!((w.heard(c), w.heard(s)), (String::new(), String::new()));
        w.disk.is_slow = false;
        while w.sync() {}
        w.advance(1000);
        let why = "2 messages are retained, and max_retained_messages is 2";
        let is_5 = hello("").version.has_properties();
        let refusal = if is_5 { format!(" 97 reason='{why}'") } else { String::new() };
        let answers = format!("PUBREC #1, PUBREC #2, PUBREC #3{refusal}, PUBREC #5, PUBREC #6, PUBREC #7{refusal}");
        assert_eq!(w.heard_in_full(c), answers);
        assert_eq!(w.heard(s), "PUBLISH r/1 a, PUBLISH r/2 b, PUBLISH r/1, PUBLISH r/5 e");
        assert_eq!((w.broker.stats().publishes_refused, w.broker.retained_count()), (3, 2));
        assert_eq!(log_count(&format!("A message of client c [192.0.2.7:40000] to 'r/3' is refused: {why}.")), 1);
        // After a restart there are no more.
        w.cut_power();
        assert_eq!(retained(&mut w), "r/2 b, r/5 e");
    }
}

/// So many messages of `t` with numbers for payloads, in one go.
fn flood(count: u32, filler: usize) -> Vec<u8> {
    let filler = "x".repeat(filler);
    let packet = |number| script::encode(&format!("PUBLISH t {number}-{filler}"), v311("").version);
    (0..count).flat_map(packet).collect()
}

/// The numbers the client got.
fn numbers(w: &mut World, client: Client) -> Vec<u32> {
    let heard = w.heard(client);
    let payloads = heard.split(", ").filter_map(|text| text.strip_prefix("PUBLISH t "));
    payloads.map(|payload| payload.split('-').next().unwrap().parse().unwrap()).collect()
}

fn limited(messages: u32) -> World {
    World::with(|config| config.max_publish_rate = messages)
}

#[test]
fn a_client_publishes_a_second_of_messages_at_once_and_then_at_its_rate() {
    let mut w = limited(10);
    let (p, other, s) = (w.client("p"), w.client("other"), w.client("s"));
    w.subscribe(s, "t 0");
    w.post(p, &flood(25, 0));
    w.turn();
    assert_eq!(numbers(&mut w, s), (0..10).collect::<Vec<_>>());
    for number in 10..25 {
        w.advance(99);
        assert_eq!(numbers(&mut w, s), []);
        w.advance(1);
        assert_eq!(numbers(&mut w, s), [number]);
        // Others have rates of their own.
        w.publish(other, "t 100-");
        assert_eq!(numbers(&mut w, s), [100]);
        w.advance(0);
    }
    let line = "Notice: Client p [192.0.2.7:40000] publishes more than max_publish_rate allows; it is listened to more slowly.";
    assert_eq!((log_count(line), log_count("publishes more")), (1, 1));
    assert_eq!(w.broker.stats().rate_pauses, 15);
    // A full bucket needs no timer.
    assert_eq!(w.broker.next_deadline(), None);
    w.advance_s(5);
    w.post(p, &flood(20, 0));
    w.turn();
    assert_eq!(numbers(&mut w, s).len(), 10);
}

#[test]
fn whole_packets_count_for_the_rate_of_bytes_whatever_their_qos_and_however_they_arrive() {
    let mut w = World::with(|config| config.max_publish_bytes_rate = 1000);
    let (p, s) = (w.join(v5("p")), w.client("s"));
    w.subscribe(s, "t 0");
    let packets: Vec<u8> =
        (1..=30).flat_map(|id| script::encode(&format!("PUBLISH q1 #{id} t x*92"), v5("").version)).collect();
    assert_eq!(packets.len(), 3000);
    for byte in packets {
        w.send(p, &[byte]);
    }
    let mut counts = Vec::new();
    for _ in 0..21 {
        counts.push((w.heard(p).matches("PUBACK").count(), w.heard(s).matches("PUBLISH").count()));
        w.advance(101);
    }
    // The eleventh finds a byte's room a millisecond later, and is paid for afterwards.
    assert_eq!((counts[0], counts[1], counts[20]), ((10, 10), (2, 2), (0, 0)));
    assert_eq!(counts[2..20], [(1, 1); 18]);
    assert_eq!(log_count("Client p [192.0.2.7:40000] publishes more than max_publish_bytes_rate allows"), 1);
}

#[test]
fn nothing_of_a_flood_is_lost_and_the_socket_is_not_read() {
    for hello in BOTH {
        let mut w = limited(1000);
        let (p, s) = (w.join(hello("p")), w.client("s"));
        w.subscribe(s, "t 0");
        let bytes: Vec<u8> = (0..5000)
            .flat_map(|number| script::encode(&format!("PUBLISH t {number}-{}", "x".repeat(90)), hello("").version))
            .collect();
        w.post(p, &bytes);
        w.turn();
        assert!(w.unread(p) > bytes.len() - (1000 * 105) - (80 << 10), "{} of {}", w.unread(p), bytes.len());
        let mut got = numbers(&mut w, s);
        for second in 1..=4 {
            assert_eq!(got.len(), 1000 * second);
            w.advance_s(1);
            got.extend(numbers(&mut w, s));
        }
        assert_eq!((got, w.unread(p)), ((0..5000).collect(), 0));
        assert_eq!(w.broker.stats().messages_dropped, 0);
    }
}

#[test]
fn a_client_that_is_slowed_down_is_not_ended_by_its_keep_alive() {
    let mut w = limited(1);
    let (p, s) = (w.join(v311("p").keep_alive(1)), w.client("s"));
    w.subscribe(s, "t 0");
    // More than is looked through for its pings, with a ping behind it.
    w.post(p, &flood(300, 100));
    w.post(p, &[0xC0, 0]);
    w.turn();
    w.advance_s(299);
    assert_eq!((numbers(&mut w, s).len(), w.heard(p)), (300, "PINGRESP".into()));
    w.advance(1750);
    assert_eq!(w.heard(p), "closed");
}

#[test]
fn pings_and_acknowledgements_of_a_client_that_is_slowed_down_are_heard_while_little_is_held_of_it() {
    let mut w = limited(1);
    let (p, other) = (w.join(v311("p").keep_alive(10)), w.client("other"));
    w.subscribe(p, "back 1");
    w.post(p, &flood(100, 50));
    w.turn();
    for number in 1..40 {
        w.publish(other, &format!("q1 back {number}"));
        assert_eq!(w.heard(p), format!("PUBLISH q1 #{number} back {number}"));
        w.tell(p, &format!("PINGREQ, PUBACK #{number}"));
        assert_eq!(w.heard(p), "PINGRESP");
        w.advance_s(1);
    }
    // What it sent before it fell silent goes on.
    w.advance_s(60);
    assert!(w.is_open(p));
    w.advance_s(16);
    assert!(!w.is_open(p));
}

#[test]
fn nobody_waits_for_a_client_that_does_not_hear_because_it_is_too_fast() {
    let mut w = World::with(|config| (config.max_publish_rate, config.max_queued_messages) = (1000, 100));
    let (mad, p, s) = (w.client("mad"), w.client("p"), w.client("s"));
    w.subscribe(mad, "u 1");
    w.subscribe(s, "u 1");
    w.acknowledges(mad);
    w.acknowledges(s);
    w.post(mad, &flood(20_000, 100));
    w.turn();
    // Its acknowledgements are behind that.
    for number in 0..1000 {
        w.post(p, &script::encode(&format!("PUBLISH q1 #{} u {number}", number + 1), v311("").version));
    }
    w.turn();
    assert_eq!((w.unread(p), w.heard(s).matches("PUBLISH").count()), (0, 1000));
    assert!(w.unread(mad) > 1_000_000 && w.is_open(mad));
}

#[test]
fn what_a_client_sent_before_it_left_goes_on_at_its_pace() {
    let will = |hello: crate::hello::Hello| hello.will("t 99-will");
    // A DISCONNECT takes back the will, in its turn.
    let mut w = limited(2);
    let (p, s) = (w.join(will(v311("p"))), w.client("s"));
    w.subscribe(s, "t 0");
    w.post(p, &[flood(5, 0), vec![0xE0, 0]].concat());
    w.turn();
    w.advance(1499);
    assert!(w.is_open(p));
    w.advance(1);
    assert_eq!((numbers(&mut w, s), w.heard(p)), (vec![0, 1, 2, 3, 4], "closed".into()));
    // Without one the will comes behind what was sent before.
    let p = w.join(will(v311("p")));
    w.post(p, &flood(5, 0));
    w.deliver_and_hang_up(p);
    w.advance(1499);
    assert_eq!(numbers(&mut w, s), [0, 1, 2, 3]);
    w.advance(1);
    assert_eq!(numbers(&mut w, s), [4, 99]);
    // A socket that fails ends at once.
    let p = w.join(will(v311("p")));
    w.subscribe(p, "u 0");
    w.post(p, &flood(5, 0));
    w.turn();
    w.breaks(p);
    w.publish(s, "u x");
    assert_eq!((numbers(&mut w, s), w.is_open(p)), (vec![0, 1, 99], false));
}

#[test]
fn a_client_that_comes_back_does_not_wait_for_what_it_sent_before() {
    let mut w = limited(1);
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 0");
    w.post(p, &flood(50, 0));
    w.deliver_and_hang_up(p);
    assert!(w.is_open(p));
    let p2 = w.join(v311("p"));
    assert!(!w.is_open(p) && w.is_open(p2));
    assert_eq!(w.broker.next_deadline(), None);
    w.publish(p2, "t 7-");
    assert_eq!(numbers(&mut w, s), [0, 7]);
}

#[test]
fn another_rate_holds_at_once_also_for_those_who_wait() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 0");
    w.post(p, &flood(10, 0));
    w.turn();
    assert_eq!(numbers(&mut w, s).len(), 10);
    w.reconfigure(|config| config.max_publish_rate = 1);
    w.post(p, &flood(100, 0));
    w.turn();
    assert_eq!(numbers(&mut w, s), [0]);
    w.reconfigure(|config| config.max_publish_rate = 10);
    w.advance_s(1);
    assert!(matches!(numbers(&mut w, s).len(), 9..=19));
    w.reconfigure(|config| config.max_publish_rate = 0);
    assert_eq!((w.unread(p), numbers(&mut w, s).last(), w.broker.next_deadline()), (0, Some(&99), None));
}

#[test]
fn what_is_owed_by_an_older_rate_is_not_paid_by_the_new_one() {
    let mut w = World::with(|config| config.max_publish_bytes_rate = 100);
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 0");
    // A picture that takes hours to pay for; the owner allows more.
    w.tell(p, "PUBLISH t x*1000000");
    w.post(p, &flood(3, 10));
    w.turn();
    w.advance_s(60);
    assert_eq!(w.heard(s).matches("PUBLISH").count(), 1);
    w.reconfigure(|config| config.max_publish_bytes_rate = 1_000_000);
    w.advance(5);
    assert_eq!(numbers(&mut w, s), [0, 1, 2]);
    assert_eq!(log_count("publishes more than max_publish_bytes_rate allows"), 1);
}

fn peer(address: &str, port: u16) -> Peer {
    Peer::from(std::net::SocketAddr::new(address.parse().unwrap(), port))
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let mut w = World::with(|config| config.max_connections_per_address = 2);
    let denied = Some("max_connections_per_address");
    assert_eq!([1, 2, 3, 4].map(|port| w.knock(peer("192.0.2.1", port))), [None, None, denied, denied]);
    // One that came as IPv6 is the same; a /64 of IPv6 counts as one.
    assert_eq!(w.knock(peer("::ffff:192.0.2.1", 5)), denied);
    assert_eq!(["::1", "::2", "::3"].map(|host| w.knock(peer(&format!("2001:db8{host}"), 6))), [None, None, denied]);
    assert_eq!((w.knock(peer("192.0.2.2", 7)), w.knock(peer("2001:db8:0:1::1", 8))), (None, None));
    // Whoever comes through a Unix socket has no address.
    assert_eq!([1, 2, 3, 4].map(|pid| w.knock(Peer::Unix { pid, uid: 1000 })), [None; 4]);
    assert_eq!((w.broker.stats().connections_refused, w.broker.stats().connections_accepted), (4, 14));
    // Those that are gone do not count.
    w.advance_s(31);
    assert_eq!((w.broker.link_count(), w.knock(peer("192.0.2.1", 9))), (0, None));
    w.reconfigure(|config| config.max_connections_per_address = 0);
    assert_eq!([1, 2, 3, 4].map(|port| w.knock(peer("192.0.2.1", port))), [None; 4]);
}

#[test]
fn an_address_connects_no_more_often_than_it_may() {
    let mut w = World::with(|config| config.max_connect_rate = 3);
    let denied = Some("max_connect_rate");
    let knock = |w: &mut World| w.knock(peer("192.0.2.1", 1));
    assert_eq!([(); 5].map(|()| knock(&mut w)), [None, None, None, denied, denied]);
    assert_eq!([1, 2, 3, 4].map(|pid| w.knock(Peer::Unix { pid, uid: 0 })), [None; 4]);
    assert_eq!(w.knock(peer("192.0.2.2", 1)), None);
    w.advance(19_999);
    assert_eq!(knock(&mut w), denied);
    w.advance(1);
    assert_eq!([(); 2].map(|()| knock(&mut w)), [None, denied]);
    w.reconfigure(|config| config.max_connect_rate = 60);
    w.advance(1000);
    assert_eq!(knock(&mut w), None);
}

#[test]
fn there_are_no_more_connections_than_there_may_be() {
    let mut w = World::with(|config| config.global_max_connections = 2);
    let knocks = [1, 2, 3].map(|number| w.knock(peer(&format!("192.0.2.{number}"), 1)));
    assert_eq!(knocks, [None, None, Some("global_max_connections")]);
    assert_eq!(w.knock(Peer::Unix { pid: 1, uid: 0 }), Some("global_max_connections"));
}
