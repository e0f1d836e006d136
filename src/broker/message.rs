//! One application message, kept for later: queued, in flight or retained. Whoever keeps it shares it; it never changes.
//! It is one allocation: a header, the topic, the forwarded properties, the payload. A large payload is not copied: it stays in the packet
//! it came in. It does not know who gets it.

use std::iter;
use std::rc::Rc;

use crate::buffer::Shared;
use crate::codec::QoS;
use crate::time::Millis;

/// A shared, immutable message. Cloning counts references.
#[derive(Clone)]
pub struct Message(Form);

#[derive(Clone)]
enum Form {
    Small(Rc<[u8]>),
    Large(Rc<Large>),
}

struct Large {
    /// All that stands in front of the payload.
    head: Box<[u8]>,
    /// Ends with the payload.
    packet: Rc<Vec<u8>>,
    payload_at: usize,
}

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
    /// The packet that ends with the payload, if it may be kept as it is.
    pub packet: Option<&'a Rc<Vec<u8>>>,
}

/// What of a message goes to every subscriber alike.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    pub topic: &'a [u8],
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub expires_at: Millis,
}

impl<'a> MessageParts<'a> {
    #[inline]
    pub fn content(&self) -> Content<'a> {
        let MessageParts { topic, properties, payload, expires_at, .. } = *self;
        Content { topic: topic.as_bytes(), properties, payload, expires_at }
    }
}

/// The bytes begin with flags and the length of the topic; what is not always there follows only if a flag says so: the
/// time of expiry, the length of the properties, who published it. Numbers are little-endian and read bytewise.
const HEADER: usize = 1 + 2;
const HEADER_MAX: usize = HEADER + 8 + 4 + 8;
const QOS: u8 = 0x03;
const EXPIRES: u8 = 0x04;
const HAS_PROPERTIES: u8 = 0x08;
const HAS_PUBLISHER: u8 = 0x10;
const RETAIN: u8 = 0x80;

/// Messages that nobody has any more, for the next ones of the same length: to allocate and free one is a tenth of the way of a
/// message that is acknowledged.
#[derive(Default)]
pub struct Spares(Vec<Rc<[u8]>>);

impl Spares {
    /// Some windows full of what sensors send: 32 kB.
    const COUNT_MAX: usize = 128;
    const LEN_MAX: usize = 256;

    /// Takes a message that its holder is done with, if that was the last.
    #[inline]
    pub fn keep(&mut self, message: Message) {
        if let Form::Small(bytes) = message.0
            && bytes.len() <= Spares::LEN_MAX
            && self.0.len() < Spares::COUNT_MAX
            && Rc::strong_count(&bytes) == 1
        {
            self.0.push(bytes);
        }
    }

    /// Bytes of this length that nobody else has, whatever they are.
    #[inline]
    fn take(&mut self, len: usize) -> Rc<[u8]> {
        match self.0.pop() {
            Some(bytes) if bytes.len() == len => bytes,
            _ => iter::repeat_n(0, len).collect(),
        }
    }
}

impl Message {
    /// Copies the parts, once, but for a payload whose packet may be kept.
    pub fn new(parts: &MessageParts) -> Message {
        Message::put_together(parts, None, &mut Spares::default())
    }

    /// The same, of what another message left behind if there is such.
    #[inline]
    pub fn from_spares(parts: &MessageParts, spares: &mut Spares) -> Message {
        Message::put_together(parts, None, spares)
    }

    /// A message that knows who published it: the hash of a client id, for No Local of those who get it much later.
    pub fn of_publisher(parts: &MessageParts, publisher: u64) -> Message {
        Message::put_together(parts, Some(publisher), &mut Spares::default())
    }

    fn put_together(parts: &MessageParts, publisher: Option<u64>, spares: &mut Spares) -> Message {
        let mut flags = parts.qos as u8;
        if parts.retain {
            flags |= RETAIN;
        }
        let (mut header, mut header_len) = ([0; HEADER_MAX], 1);
        let mut push = |number: &[u8]| {
            header[header_len..header_len + number.len()].copy_from_slice(number);
            header_len += number.len();
        };
        push(&(parts.topic.len() as u16).to_le_bytes());
        if parts.expires_at != Millis::NEVER {
            flags |= EXPIRES;
            push(&parts.expires_at.0.to_le_bytes());
        }
        if !parts.properties.is_empty() {
            flags |= HAS_PROPERTIES;
            push(&(parts.properties.len() as u32).to_le_bytes());
        }
        if let Some(publisher) = publisher {
            flags |= HAS_PUBLISHER;
            push(&publisher.to_le_bytes());
        }
        header[0] = flags;
        let header = &header[..header_len];
        match parts.packet {
            Some(packet) => Message::large(header, parts, packet),
            None => {
                let parts = [header, parts.topic.as_bytes(), parts.properties, parts.payload];
                let bytes = spares.take(parts.iter().map(|part| part.len()).sum());
                Message(Form::Small(joined(parts, bytes)))
            }
        }
    }

    #[cold]
    fn large(header: &[u8], parts: &MessageParts, packet: &Rc<Vec<u8>>) -> Message {
        let head = [header, parts.topic.as_bytes(), parts.properties].concat().into();
        let payload_at = packet.len() - parts.payload.len();
        Message(Form::Large(Rc::new(Large { head, packet: packet.clone(), payload_at })))
    }

    /// What begins with the header; of a small message, all of it.
    #[inline]
    fn head(&self) -> &[u8] {
        match &self.0 {
            Form::Small(bytes) => bytes,
            Form::Large(large) => &large.head,
        }
    }

    pub fn qos(&self) -> QoS {
        match self.head()[0] & QOS {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    pub fn retain(&self) -> bool {
        self.head()[0] & RETAIN != 0
    }

    pub fn expires_at(&self) -> Millis {
        if self.head()[0] & EXPIRES == 0 {
            return Millis::NEVER;
        }
        Millis(u64::from_le_bytes(self.array(HEADER)))
    }

    /// Whether the client with this hash of its id published the message.
    pub fn is_of_publisher(&self, publisher: u64) -> bool {
        self.publisher() == Some(publisher)
    }

    /// Whether it would be told like this; of one that expires, it is not sure.
    pub fn says(&self, parts: &MessageParts) -> bool {
        let own = self.content();
        own.expires_at == Millis::NEVER
            && parts.expires_at == Millis::NEVER
            && self.qos() == parts.qos
            && own.properties == parts.properties
            && own.payload == parts.payload
    }

    /// The hash of the client id that published it, if it is known.
    pub fn publisher(&self) -> Option<u64> {
        (self.head()[0] & HAS_PUBLISHER != 0).then(|| u64::from_le_bytes(self.array(self.topic_at() - 8)))
    }

    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    pub fn topic_bytes(&self) -> &[u8] {
        let at = self.topic_at();
        &self.head()[at..at + self.topic_len()]
    }

    pub fn payload(&self) -> &[u8] {
        match &self.0 {
            Form::Small(bytes) => &bytes[self.head_len()..],
            Form::Large(large) => &large.packet[large.payload_at..],
        }
    }

    /// The bytes that end with the payload, for output without a copy, and where it begins.
    pub fn shared_payload(&self) -> (Shared, usize) {
        match &self.0 {
            Form::Small(bytes) => (Shared::Copied(bytes.clone()), self.head_len()),
            Form::Large(large) => (Shared::Arrived(large.packet.clone()), large.payload_at),
        }
    }

    /// Bytes it takes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Small(bytes) => bytes.len(),
            Form::Large(large) => large.head.len() + large.packet.len(),
        }
    }

    /// Where it lies: no other message has the same as long as it is there.
    pub fn address(&self) -> usize {
        self.head().as_ptr().addr()
    }

    /// Bytes in front of the payload.
    fn head_len(&self) -> usize {
        self.topic_at() + self.topic_len() + self.properties_len()
    }

    fn topic_at(&self) -> usize {
        let flags = self.head()[0];
        let len_of = |flag, len: usize| if flags & flag != 0 { len } else { 0 };
        HEADER + len_of(EXPIRES, 8) + len_of(HAS_PROPERTIES, 4) + len_of(HAS_PUBLISHER, 8)
    }

    fn topic_len(&self) -> usize {
        u16::from_le_bytes(self.array(1)).into()
    }

    fn properties_len(&self) -> usize {
        if self.head()[0] & HAS_PROPERTIES == 0 {
            return 0;
        }
        let at = HEADER + if self.head()[0] & EXPIRES != 0 { 8 } else { 0 };
        u32::from_le_bytes(self.array(at)) as usize
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.head()[at..at + N]);
        bytes
    }

    /// Bytes that limits count: topic, properties and payload.
    pub fn content_len(&self) -> usize {
        match &self.0 {
            Form::Small(bytes) => bytes.len() - self.topic_at(),
            Form::Large(large) => large.head.len() - self.topic_at() + large.packet.len() - large.payload_at,
        }
    }

    pub fn content(&self) -> Content<'_> {
        let head = self.head();
        let (topic, properties_len) = (self.topic_at(), self.properties_len());
        let properties = topic + self.topic_len();
        let payload = properties + properties_len;
        Content {
            topic: &head[topic..properties],
            properties: &head[properties..payload],
            payload: match &self.0 {
                Form::Small(_) => &head[payload..],
                Form::Large(large) => &large.packet[large.payload_at..],
            },
            expires_at: self.expires_at(),
        }
    }

    pub fn parts(&self) -> MessageParts<'_> {
        let content = self.content();
        MessageParts {
            qos: self.qos(),
            retain: self.retain(),
            expires_at: content.expires_at,
            topic: self.topic(),
            properties: content.properties,
            payload: content.payload,
            packet: match &self.0 {
                Form::Small(_) => None,
                Form::Large(large) => Some(&large.packet),
            },
        }
    }
}

/// In one allocation, where it stays: `bytes`, which is as long and nobody else's.
fn joined(parts: [&[u8]; 4], mut bytes: Rc<[u8]>) -> Rc<[u8]> {
    let mut room = Rc::get_mut(&mut bytes).unwrap_or_default();
    for part in parts {
        let (here, behind) = room.split_at_mut(part.len());
        here.copy_from_slice(part);
        room = behind;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_made_of_one_that_nobody_has_any_more() {
        let parts = |topic, payload| MessageParts {
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: Millis::NEVER,
            topic,
            properties: &[],
            payload,
            packet: None,
        };
        let mut spares = Spares::default();
        let first = Message::new(&parts("a/b", b"payload"));
        let (address, holder) = (first.address(), first.clone());
        spares.keep(first);
        assert!(spares.0.is_empty(), "somebody has it");
        spares.keep(holder);
        let second = Message::from_spares(&parts("c", b"another p"), &mut spares);
        assert_eq!((second.topic(), second.payload(), second.address()), ("c", &b"another p"[..], address));
        spares.keep(second);
        let third = Message::from_spares(&parts("c", b"longer than it"), &mut spares);
        assert_eq!((third.topic(), third.payload()), ("c", &b"longer than it"[..]));
        assert!(spares.0.is_empty(), "what does not fit goes");
    }

    #[test]
    fn spare_messages_are_few_and_small() {
        let payload = &[0; 300][..];
        let parts = MessageParts {
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: Millis::NEVER,
            topic: "a",
            properties: &[],
            payload,
            packet: None,
        };
        let mut spares = Spares::default();
        spares.keep(Message::new(&parts));
        assert!(spares.0.is_empty());
        for _ in 0..1000 {
            spares.keep(Message::new(&MessageParts { payload: &payload[..100], ..parts }));
        }
        assert_eq!(spares.0.len(), Spares::COUNT_MAX);
    }

    /// Each queue holds many.
    #[test]
    fn a_message_is_as_small_as_what_it_points_with() {
        assert_eq!(size_of::<Message>(), size_of::<Rc<[u8]>>());
    }

    #[test]
    fn parts_come_back_as_they_went_in() {
        let packet = Rc::new(b"0.payload".to_vec());
        for number in 0..32 {
            let parts = MessageParts {
                qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][number % 3],
                retain: number & 1 != 0,
                expires_at: if number & 2 != 0 { Millis::NEVER } else { Millis(0x0102_0304_0506_0708) },
                topic: "ä/b",
                properties: if number & 4 != 0 { &[1, 2, 3] } else { &[] },
                payload: b"payload",
                packet: (number & 16 != 0).then_some(&packet),
            };
            let message = match number & 8 {
                0 => Message::new(&parts),
                _ => Message::of_publisher(&parts, 0x1122_3344_5566_7788),
            };
            let back = message.parts();
            assert_eq!((back.qos, back.retain, back.expires_at), (parts.qos, parts.retain, parts.expires_at));
            assert_eq!((back.topic, back.properties, back.payload), ("ä/b", parts.properties, &b"payload"[..]));
            assert_eq!(message.content_len(), 4 + parts.properties.len() + 7);
            let (shared, payload_at) = message.shared_payload();
            assert_eq!((&shared[payload_at..], message.payload()), (&b"payload"[..], &b"payload"[..]));
            assert_eq!((message.parts().packet.is_some(), back.packet.is_some()), (number & 16 != 0, number & 16 != 0));
            assert_eq!(message.topic_bytes(), "ä/b".as_bytes());
            assert_eq!(format!("{:?}", message.content()), format!("{:?}", parts.content()));
            assert_eq!(message.is_of_publisher(0x1122_3344_5566_7788), number & 8 != 0);
            assert!(!message.is_of_publisher(0));
        }
    }
}
