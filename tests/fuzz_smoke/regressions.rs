//! Bugs that fuzzing, or reading for it, found. Each test is named for what went wrong.

use std::io::IoSlice;
use std::rc::Rc;

use midge::broker::{Broker, HangUp, LinkId, Peer};
use midge::buffer::OutBuf;
use midge::codec::{Direction, Packet, QoS, ReasonCode, Split, Version, decode, split_frame};
use midge::config::{Config, Rules};
use midge::time::Millis;

const NOW: Millis = Millis(0);

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn frame(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    let mut rest = body.len();
    loop {
        let more = if rest > 127 { 0x80 } else { 0 };
        bytes.push(rest as u8 & 0x7F | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// CONNECT of 5.0 with Clean Start, Keep Alive 0, a session of 100 seconds.
fn connect(client_id: &str) -> Vec<u8> {
    let head = b"\x00\x04MQTT\x05\x02\x00\x00\x05\x11\x00\x00\x00\x64";
    frame(0x10, &[&head[..], &text(client_id)].concat())
}

fn subscribe(filters: &[(&str, QoS)]) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    for (filter, qos) in filters {
        body.extend(text(filter));
        body.push(*qos as u8);
    }
    frame(0x82, &body)
}

/// PUBLISH of 5.0; `properties` without their length.
fn publish(topic: &str, qos: QoS, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > QoS::AtMostOnce {
        body.extend([0, 7]);
    }
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    frame(0x30 | (qos as u8) << 1, &body)
}

/// Everybody is let in.
fn rules() -> Rc<Rules> {
    Rc::new(Rules { allow_anonymous: true, ..Rules::default() })
}

fn open(broker: &mut Broker, client_id: &str) -> LinkId {
    let id = broker.open(Peer::Unknown, &rules(), NOW);
    broker.receive(id, &connect(client_id), NOW);
    id
}

/// Everything the link has to write, written.
fn take_output(broker: &mut Broker, id: LinkId) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !broker.output(id).is_empty() {
        let before = bytes.len();
        let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
        let count = broker.output(id).slices(&mut slices);
        slices[..count].iter().for_each(|slice| bytes.extend_from_slice(slice));
        broker.wrote(id, bytes.len() - before, NOW);
    }
    bytes
}

fn reap_closing(broker: &mut Broker) -> Vec<LinkId> {
    let mut closing = Vec::new();
    broker.take_closing(&mut closing);
    closing.iter().for_each(|&id| broker.reap(id));
    closing
}

/// The last packet of `bytes`, if it is a DISCONNECT.
fn disconnect_reason(mut bytes: &[u8]) -> Option<ReasonCode> {
    let mut reason = None;
    while let Ok(Split::Frame { body, len }) = split_frame(bytes, 0) {
        reason = match decode(bytes[0], &bytes[body..len], Version::V5, Direction::ToClient) {
            Ok(Packet::Disconnect(disconnect)) => Some(disconnect.reason),
            _ => None,
        };
        bytes = &bytes[len..];
    }
    reason
}

/// `topic::matches` cut the first byte off a filter that begins with a longer character.
#[test]
fn a_share_of_a_filter_beyond_ascii_and_a_topic_with_a_dollar_end_no_broker() {
    let mut broker = Broker::new(Config::default(), 1);
    let member = open(&mut broker, "member");
    broker.receive(member, &subscribe(&[("$share/g/é", QoS::AtLeastOnce), ("$share/g/$x", QoS::AtLeastOnce)]), NOW);
    let publisher = open(&mut broker, "publisher");
    broker.receive(publisher, &publish("$x", QoS::AtLeastOnce, &[], b"m"), NOW);
    broker.hang_up(member, HangUp::Closed, NOW);
    broker.check_invariants();
}

/// A publisher that was let go on and lost its socket in the same turn was looked up after it had been freed.
#[test]
fn a_link_freed_between_being_let_go_on_and_resumed_is_passed_over() {
    let mut broker = Broker::new(Config { max_queued_messages: 4, ..Config::default() }, 1);
    let slow = open(&mut broker, "slow");
    broker.receive(slow, &subscribe(&[("t", QoS::AtMostOnce)]), NOW);
    let publisher = open(&mut broker, "publisher");
    let message = publish("t", QoS::AtMostOnce, &[], &[b'x'; 60_000]);
    while broker.wants_input(publisher) && broker.stats().pauses == 0 {
        broker.receive(publisher, &message, NOW);
    }
    // One turn: the slow client's socket takes everything, the publisher's fails.
    take_output(&mut broker, slow);
    broker.hang_up(publisher, HangUp::Failed("reset".into()), NOW);
    assert_eq!(reap_closing(&mut broker), [publisher]);
    broker.resume(&mut Vec::new(), NOW);
    broker.check_invariants();
}

/// While a publisher waited for a slow subscriber its pings were answered without end.
#[test]
fn a_paused_client_that_pings_and_does_not_read_is_not_answered_without_bound() {
    let mut broker = Broker::new(Config { max_queued_messages: 4, ..Config::default() }, 1);
    let slow = open(&mut broker, "slow");
    broker.receive(slow, &subscribe(&[("t", QoS::AtMostOnce)]), NOW);
    let publisher = open(&mut broker, "publisher");
    let message = publish("t", QoS::AtMostOnce, &[], &[b'x'; 60_000]);
    while broker.stats().pauses == 0 {
        broker.receive(publisher, &message, NOW);
    }
    let pings = [0xC0, 0x00].repeat(32 << 10);
    for _ in 0..100 {
        if broker.wants_input(publisher) {
            broker.receive(publisher, &pings, NOW);
        }
        broker.check_invariants();
    }
    let unread = broker.output(publisher).len();
    assert!(unread <= (256 << 10) + pings.len(), "{unread} bytes are kept for a client that does not read");
}

/// An invalid topic next to an alias that was known already was taken for the alias's topic.
#[test]
fn v5_mqtt_3_3_2_2_an_invalid_topic_is_refused_though_it_comes_with_a_known_alias() {
    let mut broker = Broker::new(Config::default(), 1);
    let subscriber = open(&mut broker, "subscriber");
    broker.receive(subscriber, &subscribe(&[("#", QoS::AtMostOnce)]), NOW);
    let publisher = open(&mut broker, "publisher");
    broker.receive(publisher, &publish("a", QoS::AtMostOnce, &[0x23, 0, 1], b"first"), NOW);
    take_output(&mut broker, subscriber);
    broker.receive(publisher, &publish("a/#", QoS::AtMostOnce, &[0x23, 0, 1], b"second"), NOW);
    assert_eq!(take_output(&mut broker, subscriber), b"");
    assert_eq!(disconnect_reason(&take_output(&mut broker, publisher)), Some(ReasonCode::TopicNameInvalid));
}

/// A message that is the largest possible packet without its topic is larger than any packet with it; the length was cut
/// and the end of the payload read as packets by the subscriber.
#[test]
#[ignore = "needs 1 GB of memory"]
fn a_message_that_outgrows_the_largest_packet_on_its_way_is_not_sent() {
    let longest = "t".repeat(65_535);
    let payload = vec![0; 268_435_455 - 6];
    for version in [Version::V311, Version::V5] {
        let mut broker = Broker::new(Config::default(), 1);
        let subscriber = match version {
            Version::V5 => open(&mut broker, "subscriber"),
            _ => broker.open(Peer::Unknown, &rules(), NOW),
        };
        if version != Version::V5 {
            broker.receive(subscriber, &frame(0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01s"), NOW);
            broker.receive(subscriber, &frame(0x82, b"\x00\x01\x00\x01#\x00"), NOW);
        } else {
            broker.receive(subscriber, &subscribe(&[("#", QoS::AtMostOnce)]), NOW);
        }
        let publisher = open(&mut broker, "publisher");
        broker.receive(publisher, &publish(&longest, QoS::AtMostOnce, &[0x23, 0, 1], b""), NOW);
        take_output(&mut broker, subscriber);
        broker.receive(publisher, &publish("", QoS::AtMostOnce, &[0x23, 0, 1], &payload), NOW);
        assert_eq!(broker.output(subscriber).len(), 0, "{version:?}");
        assert_eq!(broker.stats().publishes_received, 2);
    }
}

#[test]
fn a_retained_message_without_a_packet_id_to_send_it_with_is_noted() {
    crate::store::records(
        b"\x27\x27\x27\xb4\x03\xa3\xf0\xf0\xf0\xa3\xa3\x01\x00\x00\xa3\x03\xa3\xa3\xa3\xa3\xa3\xa3\x03\x7e\xa3\xef\x00\x85CCC\
          \xa3\xa3\xa3#\xa3Z\xa3",
    );
}
