//! Bytes that are cut, damaged or lies: the same session in any pieces gives the same answers, and nothing a client sends
//! can do more than end its connection.

use midge::codec::Version;

use crate::harness::{IS_STORED, World, unhex};
use crate::hello::{BOTH, EVERY, Hello, v5, v31, v311};
use crate::script;

/// A session that uses every packet a client may send.
fn session(hello: fn(&str) -> Hello) -> Vec<u8> {
    let connect = hello("c").stored().keep_alive(60).username("u").password("p").will("q1 retain will gone");
    let mut bytes = connect.bytes();
    let is_5 = connect.version == Version::V5;
    let properties = if is_5 { " user=a:1 format=1 response=r expiry=60" } else { "" };
    let (options, id) = if is_5 { (" nl rap rh1", " sid=7") } else { ("", "") };
    let packets = format!(
        "SUBSCRIBE #1 a/+ 1{options} b/# 2{id}, PUBLISH a/x zero{properties}, PUBLISH q1 #2 retain a/y one{properties}, \
         PUBLISH q2 #3 b two, PUBLISH dup q2 #3 b two, PUBREL #3, PINGREQ, PUBACK #1, PUBREC #2, PUBCOMP #2, \
         SUBSCRIBE #4 a/# 0, PUBLISH large z*300, UNSUBSCRIBE #5 a/+ nothing, DISCONNECT"
    );
    bytes.extend(script::encode(&packets, connect.version));
    bytes
}

/// What a client and a watcher hear when `pieces` arrive one after another, and what is left in the broker.
fn outcome(version: Version, pieces: &[&[u8]]) -> (String, String, [usize; 3]) {
    let mut w = World::new();
    let watcher = w.client("watcher");
    w.subscribe(watcher, "# 0");
    let c = w.dial(version);
    for piece in pieces {
        if w.is_open(c) {
            w.send(c, piece);
        }
    }
    let left = [w.broker.session_count(), w.broker.subscription_count(), w.broker.retained_count()];
    (w.heard(c), w.heard(watcher), left)
}

#[test]
fn every_split_of_a_session_gives_what_it_gives_in_one_piece() {
    if IS_STORED {
        return; // When an answer may be sent then depends on the turn.
    }
    for hello in EVERY {
        let (bytes, version) = (session(hello), hello("").version);
        let whole = outcome(version, &[&bytes]);
        assert!(whole.0.starts_with("CONNACK 00, SUBACK #1 01 02,") && whole.0.ends_with("closed"), "{}", whole.0);
        for at in 0..bytes.len() {
            let (one, other) = bytes.split_at(at);
            assert_eq!(outcome(version, &[one, other]), whole, "cut at {at}");
        }
    }
}

#[test]
fn a_session_byte_by_byte_gives_what_it_gives_in_one_piece() {
    if IS_STORED {
        return; // When an answer may be sent then depends on the turn.
    }
    for hello in EVERY {
        let (bytes, version) = (session(hello), hello("").version);
        let whole = outcome(version, &[&bytes]);
        for len in 1..=40 {
            assert_eq!(outcome(version, &bytes.chunks(len).collect::<Vec<_>>()), whole, "pieces of {len}");
        }
    }
}

#[test]
fn every_prefix_of_a_session_is_answered_by_a_prefix_of_its_answers() {
    if IS_STORED {
        return; // When an answer may be sent then depends on the turn.
    }
    for hello in BOTH {
        let (bytes, version) = (session(hello), hello("").version);
        let whole = outcome(version, &[&bytes]).0;
        for len in 0..bytes.len() {
            let (heard, ..) = outcome(version, &[&bytes[..len]]);
            assert!(whole.starts_with(&heard), "{len}: {heard}");
        }
    }
}

#[test]
fn every_prefix_of_a_session_may_be_followed_by_a_hang_up() {
    for hello in BOTH {
        let (bytes, version) = (session(hello), hello("").version);
        for len in 0..bytes.len() {
            let mut w = World::new();
            let watcher = w.client("watcher");
            w.subscribe(watcher, "will 0");
            let c = w.dial(version);
            w.send(c, &bytes[..len]);
            let is_in = w.heard(c).starts_with("CONNACK");
            w.hang_up(c);
            assert_eq!(
                (w.heard(watcher), w.broker.link_count()),
                (["", "PUBLISH will gone"][is_in as usize].into(), 1)
            );
        }
    }
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn damaged_sessions_end_at_most_their_own_connection() {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    for hello in EVERY {
        let (bytes, version) = (session(hello), hello("").version);
        for _ in 0..40 {
            let mut w = World::new();
            // Ids that no damage makes of the session's.
            let (p, s) = (w.client("publisher"), w.client("subscriber"));
            w.subscribe(s, "live 1");
            for _ in 0..100 {
                let damaged = damaged(&bytes, &mut numbers);
                let c = w.dial(version);
                w.send_unheard(c, &damaged);
                if w.is_open(c) {
                    w.hang_up(c);
                }
            }
            w.publish(p, "q1 live x");
            assert_eq!(w.heard(s), "PUBLISH q1 #1 live x");
        }
    }
}

/// `bytes` with one to three bytes changed, lost or added.
fn damaged(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(damaged.len());
        match numbers.below(4) {
            0 => damaged[at] = numbers.below(256) as u8,
            1 => damaged[at] ^= 1 << numbers.below(8),
            2 => drop(damaged.remove(at)),
            _ => damaged.insert(at, numbers.below(256) as u8),
        }
    }
    damaged
}

#[test]
fn noise_ends_the_connection_or_waits_for_more() {
    let mut numbers = Numbers(42);
    for _ in 0..20_000 {
        let mut w = World::new();
        let (c, raw) = (w.join(EVERY[numbers.below(3)]("c")), w.dial(Version::V5));
        let noise: Vec<u8> = (0..numbers.below(40)).map(|_| numbers.below(256) as u8).collect();
        w.send_unheard(c, &noise);
        w.send_unheard(raw, &noise);
        assert_eq!(w.broker.session_count(), w.is_open(c) as usize);
    }
}

#[test]
fn every_packet_type_with_every_flag_and_short_body_is_survived() {
    for hello in EVERY {
        for first in 0..=255u8 {
            for body in ["", "00", "00 00", "00 01", "00 01 00", "00 01 00 00", "ff ff", "ff ff ff ff ff"] {
                let mut w = World::new();
                let c = w.join(hello("c"));
                let body = unhex(body);
                let mut bytes = vec![first, body.len() as u8];
                bytes.extend(body);
                w.send_unheard(c, &bytes);
            }
        }
    }
}

#[test]
fn a_claimed_length_of_256_mb_waits_without_an_answer() {
    for hello in EVERY {
        let mut w = World::new();
        let c = w.join(hello("c").keep_alive(10));
        w.send_hex(c, "30 ff ff ff 7f 00 01 \"t\"");
        assert_eq!(w.heard(c), "");
        assert!(w.is_open(c));
        w.advance_s(16);
        assert!(!w.is_open(c));
    }
}

#[test]
fn a_connect_of_more_than_100_000_bytes_is_refused_once_its_length_is_known() {
    let mut w = World::new();
    for hex in ["10 ff ff ff 7f", "10 a0 8d 06"] {
        let c = w.dial(Version::V311);
        w.send_hex(c, hex);
        assert_eq!(w.heard(c), "closed");
    }
}

#[test]
fn v311_mqtt_7_0_0_2_a_whole_exchange_byte_for_byte_as_the_standard_prints_it() {
    let mut w = World::new();
    let (p, s) = (w.dial(Version::V311), w.dial(Version::V311));
    let exchange = |w: &mut World, client, sent: &str, expected: &str| {
        w.send_hex(client, sent);
        assert_eq!(w.heard_bytes(client).concat(), unhex(expected), "{sent}");
    };
    exchange(&mut w, s, "10 0d 00 04 \"MQTT\" 04 02 00 0a 00 01 \"s\"", "20 02 00 00");
    exchange(&mut w, s, "82 0e 00 0a 00 03 \"a/b\" 01 00 03 \"c/d\" 02", "90 04 00 0a 01 02");
    exchange(&mut w, p, "10 0d 00 04 \"MQTT\" 04 02 00 0a 00 01 \"p\"", "20 02 00 00");
    exchange(&mut w, p, "30 07 00 03 \"a/b\" \"hi\"", "");
    exchange(&mut w, p, "32 09 00 03 \"a/b\" 00 0a \"hi\"", "40 02 00 0a");
    exchange(&mut w, p, "34 09 00 03 \"c/d\" 00 0b \"ho\"", "50 02 00 0b");
    exchange(&mut w, p, "62 02 00 0b", "70 02 00 0b");
    let delivered = w.heard_bytes(s).concat();
    let expected = "30 07 00 03 \"a/b\" \"hi\" 32 09 00 03 \"a/b\" 00 01 \"hi\" 34 09 00 03 \"c/d\" 00 02 \"ho\"";
    assert_eq!(delivered, unhex(expected));
    exchange(&mut w, s, "40 02 00 01", "");
    exchange(&mut w, s, "50 02 00 02", "62 02 00 02");
    exchange(&mut w, s, "70 02 00 02", "");
    exchange(&mut w, s, "a2 0c 00 0c 00 03 \"a/b\" 00 03 \"c/d\"", "b0 02 00 0c");
    exchange(&mut w, s, "c0 00", "d0 00");
    exchange(&mut w, s, "e0 00", "");
    assert_eq!((w.heard(s), w.is_open(p)), ("closed".into(), true));
}

#[test]
fn the_versions_talk_to_each_other() {
    let mut w = World::new();
    let clients: Vec<_> = EVERY.iter().enumerate().map(|(number, hello)| w.join(hello(&number.to_string()))).collect();
    clients.iter().for_each(|&client| w.subscribe(client, "t 2"));
    for (number, &p) in clients.iter().enumerate() {
        w.publish(p, "t zero");
        w.publish(p, "q1 t one");
        w.publish(p, "q2 t two");
        let (one, two) = (2 * number + 1, 2 * number + 2);
        for &client in &clients {
            assert_eq!(w.heard(client), format!("PUBLISH t zero, PUBLISH q1 #{one} t one, PUBLISH q2 #{two} t two"));
        }
    }
}

#[test]
fn properties_stay_among_clients_of_5_0() {
    let mut w = World::new();
    let (p, s311, s31, s5) = (w.join(v5("p")), w.join(v311("a")), w.join(v31("b")), w.join(v5("d")));
    for s in [s311, s31, s5] {
        w.subscribe(s, "t 1");
    }
    w.publish(p, "q1 t x user=a:1 expiry=9");
    assert_eq!((w.heard(s311), w.heard(s31)), ("PUBLISH q1 #1 t x".into(), "PUBLISH q1 #1 t x".into()));
    assert_eq!(w.heard(s5), "PUBLISH q1 #1 t x expiry=9 user=a:1");
}
