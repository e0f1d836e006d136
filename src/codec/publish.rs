//! PUBLISH, the message path: a decoder that borrows, and a header encoder that writes into the caller's buffer what
//! goes in front of the payload, with one reservation and no second look at the properties.

use super::kind::{Kind, malformed};
use super::reader::{Field, Reader, field};
use super::writer::{variable_bytes, variable_len};
use super::{DecodeError, Direction, Properties, QoS, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Valid UTF-8 without U+0000; wildcards and emptiness are judged by the broker.
    pub topic: &'a str,
    /// 0 for QoS 0.
    pub packet_id: u16,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

static TOPIC: Field = field!("Topic Name of the PUBLISH");

impl<'a> Publish<'a> {
    #[inline]
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        first_byte: u8,
        version: Version,
        direction: Direction,
        known_topic: Option<&'a str>,
    ) -> Result<Publish<'a>, DecodeError> {
        // [MQTT-3.3.1-4]
        let qos =
            QoS::from_u8(first_byte >> 1 & 3).ok_or(malformed("the QoS of the PUBLISH is 3; only 0, 1 and 2 exist"))?;
        let topic = match known_topic {
            Some(topic) => {
                let bytes = reader.binary(&TOPIC)?;
                debug_assert_eq!(bytes, topic.as_bytes());
                topic
            }
            None => reader.string(&TOPIC)?,
        };
        // [MQTT-2.3.1-5] (3.1.1) [MQTT-2.2.1-2] (5.0)
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { reader.packet_id(Kind::Publish)? };
        let properties = Properties::decode(reader, Kind::Publish, version, direction)?;
        Ok(Publish {
            // A DUP with QoS 0 is a client's fault that harms nobody.
            dup: first_byte & 0b1000 != 0,
            qos,
            retain: first_byte & 0b0001 != 0,
            topic,
            packet_id,
            properties,
            payload: reader.take_rest(),
        })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let header = PublishHeader {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.as_bytes(),
            packet_id: self.packet_id,
            hop_properties: &[],
            properties: self.properties.as_bytes(),
            payload_len: self.payload.len(),
        };
        header.encode(version, out);
        out.extend_from_slice(self.payload);
    }
}

/// Whether a packet that begins with `first_byte` is a PUBLISH.
#[inline]
pub fn is_publish(first_byte: u8) -> bool {
    first_byte >> 4 == Kind::Publish.first_byte() >> 4
}

/// The topic in the body of a PUBLISH, unchecked; empty if there is none.
#[inline]
pub fn publish_topic(body: &[u8]) -> &[u8] {
    let Some((len, rest)) = body.split_first_chunk() else { return &[] };
    rest.get(..usize::from(u16::from_be_bytes(*len))).unwrap_or_default()
}

/// Everything of an outgoing PUBLISH but its payload, for the message path.
#[derive(Clone, Copy, Debug)]
pub struct PublishHeader<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// A topic that was checked when it came in.
    pub topic: &'a [u8],
    pub packet_id: u16,
    /// Raw properties of this hop (alias, expiry, subscription ids). Nothing in 3.x.
    pub hop_properties: &'a [u8],
    /// Raw properties forwarded unchanged. Not written in 3.x.
    pub properties: &'a [u8],
    pub payload_len: usize,
}

impl PublishHeader<'_> {
    /// Bytes of the whole packet, payload included. `encode` may be called if it is at most `PACKET_SIZE_MAX`.
    #[inline]
    pub fn packet_len(&self, version: Version) -> usize {
        let remaining = self.remaining_len(version);
        1 + variable_len(remaining) + remaining
    }

    /// Where in the packet the two bytes of the packet identifier are, if the QoS is not 0.
    #[inline]
    pub fn packet_id_at(&self, version: Version) -> usize {
        1 + variable_len(self.remaining_len(version)) + 2 + self.topic.len()
    }

    /// Appends everything up to the payload.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        debug_assert!(self.topic.len() <= usize::from(u16::MAX));
        let remaining = self.remaining_len(version);
        out.reserve(5 + remaining - self.payload_len);
        let (length, length_len) = variable_bytes(remaining as u32);
        let topic_len = (self.topic.len() as u16).to_be_bytes();
        if length_len == 1 {
            // At once: most are as short.
            out.extend_from_slice(&[self.first_byte(), length[0], topic_len[0], topic_len[1]]);
        } else {
            out.push(self.first_byte());
            out.extend_from_slice(&length[..length_len]);
            out.extend_from_slice(&topic_len);
        }
        out.extend_from_slice(self.topic);
        if self.qos != QoS::AtMostOnce {
            out.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if version.has_properties() {
            let (length, length_len) = variable_bytes(self.properties_len() as u32);
            out.extend_from_slice(&length[..length_len]);
            out.extend_from_slice(self.hop_properties);
            out.extend_from_slice(self.properties);
        }
    }

    /// DUP is never written with QoS 0. [MQTT-3.3.1-2]
    #[inline]
    fn first_byte(&self) -> u8 {
        let dup = self.dup && self.qos != QoS::AtMostOnce;
        Kind::Publish.first_byte() | u8::from(dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain)
    }

    #[inline]
    fn properties_len(&self) -> usize {
        self.hop_properties.len() + self.properties.len()
    }

    #[inline]
    fn remaining_len(&self, version: Version) -> usize {
        let packet_id_len = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties_len = match self.properties_len() {
            len if version.has_properties() => variable_len(len) + len,
            _ => 0,
        };
        2 + self.topic.len() + packet_id_len + properties_len + self.payload_len
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, Split, decode, split_frame};
    use super::*;

    fn header(qos: QoS) -> PublishHeader<'static> {
        PublishHeader {
            dup: false,
            qos,
            retain: false,
            topic: b"a/b",
            packet_id: 0x0A0B,
            hop_properties: &[0x02, 0, 0, 0, 9],
            properties: &[0x01, 1],
            payload_len: 4,
        }
    }

    fn encoded(header: PublishHeader, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        header.encode(version, &mut out);
        assert_eq!(out.len() + header.payload_len, header.packet_len(version));
        out
    }

    #[test]
    fn a_header_is_written_per_layout() {
        assert_eq!(encoded(header(QoS::AtMostOnce), Version::V311), *b"\x30\x09\x00\x03a/b");
        assert_eq!(encoded(header(QoS::ExactlyOnce), Version::V31), *b"\x34\x0B\x00\x03a/b\x0A\x0B");
        let expected = *b"\x32\x13\x00\x03a/b\x0A\x0B\x07\x02\0\0\0\x09\x01\x01";
        assert_eq!(encoded(header(QoS::AtLeastOnce), Version::V5), expected);
        let bare = PublishHeader { hop_properties: &[], properties: &[], ..header(QoS::AtMostOnce) };
        assert_eq!(encoded(bare, Version::V5), *b"\x30\x0A\x00\x03a/b\x00");
    }

    #[test]
    fn v311_mqtt_3_3_1_2_v5_mqtt_3_3_1_2_dup_is_never_written_with_qos_0() {
        for version in [Version::V31, Version::V311, Version::V5] {
            let dup = |qos| encoded(PublishHeader { dup: true, retain: true, ..header(qos) }, version)[0];
            assert_eq!(dup(QoS::AtMostOnce), 0x31);
            assert_eq!(dup(QoS::AtLeastOnce), 0x3B);
        }
    }

    #[test]
    fn room_is_made_once_for_the_header_and_never_for_the_payload() {
        let topic = &"t".repeat(1000)[..];
        let header = PublishHeader { topic: topic.as_bytes(), payload_len: 1 << 20, ..header(QoS::AtLeastOnce) };
        let mut out = Vec::new();
        header.encode(Version::V5, &mut out);
        assert!(out.len() == 1016 && out.capacity() < 1100);
    }

    #[test]
    fn lengths_hold_across_every_size_of_the_length_field() {
        for payload_len in [0, 100, 117, 118, 119, 120, 121, 122, 16_375, 16_376, 16_377, 16_378, 2_097_150, 2_097_151]
        {
            for version in [Version::V311, Version::V5] {
                let header = PublishHeader { payload_len, ..header(QoS::AtLeastOnce) };
                let mut packet = encoded(header, version);
                packet.resize(packet.len() + payload_len, b'x');
                let Split::Frame { body, len } = split_frame(&packet, 0).unwrap() else { panic!("{payload_len}") };
                assert_eq!(len, packet.len());
                let at = header.packet_id_at(version);
                assert_eq!(packet[at..at + 2], [0x0A, 0x0B]);
                let decoded = decode(packet[0], &packet[body..], version, Direction::ToClient);
                let Ok(Packet::Publish(publish)) = decoded else { panic!("{decoded:?}") };
                assert_eq!(publish.payload.len(), payload_len);
            }
        }
    }
}
