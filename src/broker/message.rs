//! One application message, kept for later: queued, in flight or retained. Whoever keeps it shares it; it never changes.
//! It is one allocation: a header, the topic, the forwarded properties, the payload. It does not know who gets it.

use std::rc::Rc;

use crate::codec::QoS;
use crate::time::Millis;

/// A shared, immutable message. Cloning counts references.
#[derive(Clone)]
pub struct Message(Rc<[u8]>);

/// What a message is made of.
#[derive(Clone, Copy, Debug)]
pub struct MessageParts<'a> {
    pub qos: QoS,
    /// As published, for Retain As Published.
    pub retain: bool,
    /// `Millis::NEVER` without Message Expiry Interval.
    pub expires_at: Millis,
    pub topic: &'a str,
    /// Raw properties that are forwarded unchanged.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

/// flags, expires_at, length of the topic, length of the properties; little-endian, read bytewise.
const HEADER: usize = 1 + 8 + 2 + 4;
const RETAIN: u8 = 0x80;

impl Message {
    /// Copies the parts, once: `scratch` is where they are put together.
    pub fn new(parts: &MessageParts, scratch: &mut Vec<u8>) -> Message {
        scratch.clear();
        scratch.push(parts.qos as u8 | if parts.retain { RETAIN } else { 0 });
        scratch.extend_from_slice(&parts.expires_at.0.to_le_bytes());
        scratch.extend_from_slice(&(parts.topic.len() as u16).to_le_bytes());
        scratch.extend_from_slice(&(parts.properties.len() as u32).to_le_bytes());
        scratch.extend_from_slice(parts.topic.as_bytes());
        scratch.extend_from_slice(parts.properties);
        scratch.extend_from_slice(parts.payload);
        let message = Message(Rc::from(&scratch[..]));
        if scratch.capacity() > 64 << 10 {
            *scratch = Vec::new();
        }
        message
    }

    pub fn qos(&self) -> QoS {
        match self.0[0] & 3 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    pub fn retain(&self) -> bool {
        self.0[0] & RETAIN != 0
    }

    pub fn expires_at(&self) -> Millis {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[1..9]);
        Millis(u64::from_le_bytes(bytes))
    }

    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    pub fn topic_bytes(&self) -> &[u8] {
        &self.0[HEADER..self.properties_at()]
    }

    pub fn properties(&self) -> &[u8] {
        &self.0[self.properties_at()..self.payload_at()]
    }

    pub fn payload(&self) -> &[u8] {
        &self.0[self.payload_at()..]
    }

    /// The bytes that hold the payload from `payload_at` on, for output without a copy.
    pub fn bytes(&self) -> &Rc<[u8]> {
        &self.0
    }

    pub fn payload_at(&self) -> usize {
        self.properties_at() + u32::from_le_bytes([self.0[11], self.0[12], self.0[13], self.0[14]]) as usize
    }

    fn properties_at(&self) -> usize {
        HEADER + u16::from_le_bytes([self.0[9], self.0[10]]) as usize
    }

    /// Bytes that limits count: topic, properties and payload.
    pub fn content_len(&self) -> usize {
        self.0.len() - HEADER
    }

    pub fn parts(&self) -> MessageParts<'_> {
        MessageParts {
            qos: self.qos(),
            retain: self.retain(),
            expires_at: self.expires_at(),
            topic: self.topic(),
            properties: self.properties(),
            payload: self.payload(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_they_went_in() {
        let mut scratch = Vec::new();
        for (qos, retain, expires_at) in
            [(QoS::AtMostOnce, true, Millis::NEVER), (QoS::ExactlyOnce, false, Millis(0x0102_0304_0506_0708))]
        {
            let parts =
                MessageParts { qos, retain, expires_at, topic: "ä/b", properties: &[1, 2, 3], payload: b"payload" };
            let message = Message::new(&parts, &mut scratch);
            let back = message.parts();
            assert_eq!((back.qos, back.retain, back.expires_at), (qos, retain, expires_at));
            assert_eq!((back.topic, back.properties, back.payload), ("ä/b", &[1u8, 2, 3][..], &b"payload"[..]));
            assert_eq!(message.content_len(), 4 + 3 + 7);
            assert_eq!(&message.bytes()[message.payload_at()..], b"payload");
        }
    }

    #[test]
    fn the_scratch_space_of_a_large_message_is_given_back() {
        let (qos, expires_at) = (QoS::AtMostOnce, Millis::NEVER);
        for (len, is_kept) in [(60_000, true), (100_000, false)] {
            let payload = &vec![0; len][..];
            let parts = MessageParts { qos, retain: false, expires_at, topic: "t", properties: &[], payload };
            let mut scratch = Vec::with_capacity(len + 100);
            Message::new(&parts, &mut scratch);
            assert_eq!(scratch.capacity() > 0, is_kept);
        }
    }
}
