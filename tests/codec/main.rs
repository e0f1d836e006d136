//! The codec from outside: every vector of `tests/vectors`, every packet that can be made up, and every small damage
//! to them. What a single function does is tested at the foot of its file.

mod allocations;
mod made_up;
mod vectors;

use midge::codec::{Direction, Packet, Publish, QoS, ReasonCode, Split, Version, decode, split_frame};
use proptest::prelude::*;
use vectors::{Outcome, Vector};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const DIRECTIONS: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

/// The packet `bytes` are, whole and alone.
fn decode_whole(bytes: &[u8], version: Version, direction: Direction) -> Result<Packet<'_>, (ReasonCode, &str)> {
    match split_frame(bytes, 0) {
        Ok(Split::Frame { body, len }) => {
            assert_eq!(len, bytes.len(), "the Remaining Length is not that of the packet");
            decode(bytes[0], &bytes[body..], version, direction).map_err(|error| (error.reason, error.what))
        }
        Ok(Split::NeedMore) => panic!("the packet is not whole"),
        Err(error) => Err((error.reason, error.what)),
    }
}

fn encoded(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

/// The packet as it is written: DUP is accepted with QoS 0, but never sent. [MQTT-3.3.1-2]
fn as_sent(packet: Packet) -> Packet {
    match packet {
        Packet::Publish(publish) if publish.qos == QoS::AtMostOnce => {
            Packet::Publish(Publish { dup: false, ..publish })
        }
        packet => packet,
    }
}

#[test]
fn every_vector_comes_out_as_it_says() {
    let mut failures = Vec::new();
    for vector in vectors::all() {
        if let Err(failure) = run(&vector) {
            failures.push(format!("{}: {failure}", vector.name));
        }
    }
    assert!(failures.is_empty(), "{} vectors failed\n{}", failures.len(), failures.join("\n"));
}

fn run(vector: &Vector) -> Result<(), String> {
    let bytes = &vector.bytes[..];
    let split = split_frame(bytes, 0);
    let (body, len) = match (&vector.outcome, split) {
        (Outcome::More, Ok(Split::NeedMore)) => return Ok(()),
        (Outcome::SplitError(reason, words), Err(error)) => {
            return same_error((error.reason, error.what), *reason, words);
        }
        (Outcome::More | Outcome::SplitError(..), _) => return Err(format!("the frame is {split:?}")),
        (_, Ok(Split::Frame { body, len })) => (body, len),
        _ => return Err(format!("the frame is {split:?}")),
    };
    if len != bytes.len() {
        return Err(format!("the Remaining Length makes {len} bytes, the vector has {}", bytes.len()));
    }
    let (decoded, allocations) =
        allocations::count(|| decode(bytes[0], &bytes[body..], vector.version, vector.direction));
    if allocations != 0 {
        return Err(format!("{allocations} allocations while decoding"));
    }
    match (&vector.outcome, decoded) {
        (Outcome::Error(reason, words), Err(error)) => same_error((error.reason, error.what), *reason, words),
        (Outcome::Same | Outcome::Ok, Ok(packet)) => as_shown(vector, packet),
        (_, decoded) => Err(format!("decoded as {decoded:?}")),
    }
}

fn same_error(error: (ReasonCode, &str), reason: u8, words: &str) -> Result<(), String> {
    if error.0 as u8 == reason && error.1.contains(words) { Ok(()) } else { Err(format!("refused as {error:?}")) }
}

fn as_shown(vector: &Vector, packet: Packet) -> Result<(), String> {
    let shown = format!("{packet:?}");
    if let Some(missing) = vector.shows.iter().find(|text| !shown.contains(*text)) {
        return Err(format!("shows no `{missing}`: {shown}"));
    }
    if let Packet::Connect(connect) = packet
        && connect.version != vector.version
    {
        return Err(format!("a CONNECT of {:?}", connect.version));
    }
    let again = encoded(&packet, vector.version);
    if (again == vector.bytes) != (vector.outcome == Outcome::Same) {
        return Err(format!("encoded as {again:02x?}"));
    }
    match decode_whole(&again, vector.version, vector.direction) {
        Ok(packet_again) if packet_again == as_sent(packet) => Ok(()),
        other => Err(format!("encoded and decoded as {other:?}")),
    }
}

/// A vector that is never read proves nothing.
#[test]
fn there_are_vectors_of_every_packet_type_and_version() {
    let vectors = vectors::all();
    for packet_type in 1..=15u8 {
        for version in VERSIONS {
            let good = vectors.iter().any(|vector| {
                let decodes = matches!(vector.outcome, Outcome::Same | Outcome::Ok);
                decodes && vector.version == version && vector.bytes[0] >> 4 == packet_type
            });
            assert_eq!(good, packet_type != 15 || version == Version::V5, "type {packet_type} of {version:?}");
        }
    }
}

#[test]
fn every_prefix_of_a_packet_needs_more() {
    for vector in vectors::all() {
        if !matches!(vector.outcome, Outcome::Same | Outcome::Ok | Outcome::Error(..)) {
            continue;
        }
        for len in 0..vector.bytes.len() {
            assert_eq!(split_frame(&vector.bytes[..len], 0), Ok(Split::NeedMore), "{} cut to {len}", vector.name);
        }
        let followed = [&vector.bytes[..], &[0xFF; 3]].concat();
        let Ok(Split::Frame { len, .. }) = split_frame(&followed, 0) else { panic!("{}", vector.name) };
        assert_eq!(len, vector.bytes.len(), "{}", vector.name);
    }
}

/// A body shorter or longer than its fields is refused, or is a shorter packet in its own right; it is never read
/// past its end.
#[test]
fn every_cut_body_is_decoded_without_a_panic() {
    for vector in vectors::all() {
        let Ok(Split::Frame { body, .. }) = split_frame(&vector.bytes, 0) else { continue };
        let body = &vector.bytes[body..];
        for len in (0..body.len()).take(200) {
            if let Ok(packet) = decode(vector.bytes[0], &body[..len], vector.version, vector.direction) {
                stands(&packet, vector.version, vector.direction);
            }
        }
    }
}

#[test]
fn every_change_of_one_byte_is_refused_or_is_a_packet() {
    for vector in vectors::all() {
        let mut bytes = vector.bytes.clone();
        let len = bytes.len();
        // The middle of a 64 kB string is like its beginning.
        for position in (0..len).filter(|&position| position < 200 || position + 20 > len) {
            let original = bytes[position];
            for change in 1..=255u8 {
                if len > 1000 && !change.is_power_of_two() {
                    continue;
                }
                bytes[position] = original ^ change;
                if let Ok(Split::Frame { body, len }) = split_frame(&bytes, 0) {
                    assert!(body <= len && len <= bytes.len(), "{}: claims {len} bytes", vector.name);
                    let packet = decode(bytes[0], &bytes[body..len], vector.version, vector.direction);
                    if let Ok(packet) = packet {
                        stands(&packet, vector.version, vector.direction);
                    }
                }
            }
            bytes[position] = original;
        }
    }
}

/// What was decoded can be encoded, and is then the same packet.
fn stands(packet: &Packet, version: Version, direction: Direction) {
    // CONNECT is written as its own version.
    let again = encoded(packet, version);
    assert_eq!(decode_whole(&again, version, direction), Ok(as_sent(*packet)), "{again:02x?}");
}

#[test]
fn a_claim_of_256_mb_needs_more_and_allocates_nothing() {
    for first_byte in 0..=255 {
        let (split, allocations) = allocations::count(|| split_frame(&[first_byte, 0xFF, 0xFF, 0xFF, 0x7F, 0, 0], 0));
        assert_eq!((split, allocations), (Ok(Split::NeedMore), 0));
    }
    // Lengths inside a packet that claim far more than there is.
    for body in [&b"\xFF\xFFa"[..], b"\x00\x01a\xFF\xFF\xFF\x7Fa", b"\x00\x01a\x05\x03\xFF\xFFaa"] {
        let (decoded, allocations) =
            allocations::count(|| decode(0x30, body, Version::V5, Direction::ToServer).is_err());
        assert_eq!((decoded, allocations), (true, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_encoded_is_decoded_as_it_was(seed in prop::collection::vec(any::<u8>(), 0..400)) {
        for version in VERSIONS {
            for direction in DIRECTIONS {
                for packet_type in 1..=15 {
                    made_up::packet(&seed, packet_type, version, direction, |packet| {
                        let bytes = encoded(packet, version);
                        assert_eq!(bytes[0] >> 4, packet_type);
                        assert_eq!(decode_whole(&bytes, version, direction), Ok(*packet), "{bytes:02x?}");
                        for len in 0..bytes.len() {
                            assert_eq!(split_frame(&bytes[..len], 0), Ok(Split::NeedMore));
                        }
                    });
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_are_a_packet(
        first_byte: u8,
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        for version in VERSIONS {
            for direction in DIRECTIONS {
                if let Ok(packet) = decode(first_byte, &body, version, direction) {
                    stands(&packet, version, direction);
                }
            }
        }
    }
}
