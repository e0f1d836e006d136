//! The bytes of the clients: packets encoded once and patched per message, and the stamp that each payload begins with.

use midge::codec::{Connect, Packet, Properties, Publish, QoS, Subscribe, Version, Will};

pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;
pub const PINGREQ: [u8; 2] = [0xC0, 0];
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// What stands for the number in a numbered topic, and the number's digits.
const NUMBER: &str = "{n}";
const DIGITS: usize = 7;
/// Packets in which filters are sent hold no more of them: some brokers read no large SUBSCRIBE.
pub const FILTERS_PER_PACKET: u32 = 100;

/// Who sent a message, which of its stream it is, and when it should have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub stream: u32,
    pub number: u32,
    pub time_ns: u64,
}

impl Stamp {
    pub const LEN: usize = 16;

    #[inline]
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let bytes = payload.first_chunk::<{ Stamp::LEN }>()?;
        let stream = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let number = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let time_ns = u64::from_le_bytes(*bytes.last_chunk()?);
        Some(Stamp { stream, number, time_ns })
    }

    fn to_bytes(self) -> [u8; Stamp::LEN] {
        let mut bytes = [0; Stamp::LEN];
        bytes[..4].copy_from_slice(&self.stream.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.time_ns.to_le_bytes());
        bytes
    }
}

/// A PUBLISH that needs nothing but its number, time and packet id to go out.
pub struct Template {
    packet: Vec<u8>,
    packet_id_at: Option<usize>,
    stamp_at: usize,
    /// Where the topic's number is, if it has one, each time it stands there.
    digits_at: Vec<usize>,
}

impl Template {
    /// The payload is `payload_len` bytes, but at least a stamp. Each `{n}` in the topic is the number the message is given.
    pub fn new(pattern: &str, qos: u8, retain: bool, payload_len: usize) -> Template {
        let topic = numbered(pattern, 0);
        let payload = vec![b'x'; payload_len.max(Stamp::LEN)];
        let mut packet = Vec::new();
        let qos = QoS::from_u8(qos).unwrap_or(QoS::AtMostOnce);
        let properties = Properties::EMPTY;
        let (dup, packet_id) = (false, 1);
        Packet::Publish(Publish { dup, qos, retain, topic: &topic, packet_id, properties, payload: &payload })
            .encode(Version::V311, &mut packet);
        let stamp_at = packet.len() - payload.len();
        let packet_id_at = (qos != QoS::AtMostOnce).then(|| stamp_at - 2);
        let topic_at = packet_id_at.unwrap_or(stamp_at) - topic.len();
        let longer = DIGITS - NUMBER.len();
        let places = pattern.match_indices(NUMBER).enumerate();
        let digits_at = places.map(|(before, (at, _))| topic_at + at + before * longer).collect();
        Template { packet_id_at, stamp_at, digits_at, packet }
    }

    pub fn packet_len(&self) -> usize {
        self.packet.len()
    }

    /// Appends the message to `out`.
    #[inline]
    pub fn push(&self, out: &mut Vec<u8>, stamp: Stamp, packet_id: u16, topic_number: u32) {
        let at = out.len();
        out.extend_from_slice(&self.packet);
        let packet = &mut out[at..];
        packet[self.stamp_at..self.stamp_at + Stamp::LEN].copy_from_slice(&stamp.to_bytes());
        if let Some(id_at) = self.packet_id_at {
            packet[id_at..id_at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        for &digits_at in &self.digits_at {
            let mut rest = topic_number;
            for digit in packet[digits_at..digits_at + DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }
}

/// The topic with this number.
pub fn numbered(pattern: &str, number: u32) -> String {
    pattern.replace(NUMBER, &format!("{number:0DIGITS$}"))
}

pub fn put_connect(out: &mut Vec<u8>, client_id: &str, clean_start: bool, keep_alive_s: u16, will_topic: Option<&str>) {
    let will = will_topic.map(|topic| Will {
        qos: QoS::AtMostOnce,
        retain: true,
        topic,
        payload: b"offline",
        properties: Properties::EMPTY,
    });
    Packet::Connect(Connect {
        version: Version::V311,
        bridge: false,
        clean_start,
        session_expiry_s: 0,
        keep_alive_s,
        client_id,
        will,
        username: None,
        password: None,
        properties: Properties::EMPTY,
    })
    .encode(Version::V311, out);
}

/// Appends the message that makes the broker forget what it retains for the topic.
pub fn put_forget(out: &mut Vec<u8>, topic: &str) {
    let (dup, qos, retain, packet_id) = (false, QoS::AtMostOnce, true, 0);
    let (properties, payload) = (Properties::EMPTY, &[]);
    Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }).encode(Version::V311, out);
}

pub fn put_subscribe(out: &mut Vec<u8>, packet_id: u16, qos: u8, filters: impl Iterator<Item = String>) {
    let mut payload = Vec::new();
    for filter in filters {
        payload.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        payload.extend_from_slice(filter.as_bytes());
        payload.push(qos);
    }
    Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, payload: &payload })
        .encode(Version::V311, out);
}

#[inline]
pub fn put_ack(out: &mut Vec<u8>, first_byte: u8, packet_id: [u8; 2]) {
    out.extend_from_slice(&[first_byte, 2, packet_id[0], packet_id[1]]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use midge::codec::{Direction, Split, decode, split_frame};

    fn published(template: &Template, stamp: Stamp, packet_id: u16, topic_number: u32) -> (String, u16, Vec<u8>) {
        let mut out = Vec::new();
        template.push(&mut out, stamp, packet_id, topic_number);
        assert_eq!(out.len(), template.packet_len());
        let Ok(Split::Frame { body, len }) = split_frame(&out, 0) else { panic!() };
        assert_eq!(len, out.len());
        let packet = decode(out[0], &out[body..], Version::V311, Direction::ToServer).unwrap();
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        (publish.topic.to_string(), publish.packet_id, publish.payload.to_vec())
    }

    #[test]
    fn a_patched_template_is_the_packet_it_should_be() {
        let stamp = Stamp { stream: 7, number: 0x0102_0304, time_ns: u64::MAX - 5 };
        for (qos, id) in [(0, 0), (1, 513), (2, 65535)] {
            let template = Template::new("a/b", qos, true, 64);
            let (topic, packet_id, payload) = published(&template, stamp, id, 99);
            assert_eq!((topic.as_str(), packet_id, payload.len()), ("a/b", id, 64));
            assert_eq!(Stamp::read(&payload), Some(stamp));
            let template = Template::new("a{n}/b/{n}", qos, false, 3);
            let (topic, packet_id, payload) = published(&template, stamp, id, 123_456);
            assert_eq!((topic.as_str(), packet_id, payload.len()), ("a0123456/b/0123456", id, Stamp::LEN));
        }
    }

    #[test]
    fn a_payload_of_somebody_else_may_have_no_stamp() {
        assert_eq!(Stamp::read(b"21.5"), None);
    }
}
