//! What is written down of the broker's state, as bytes: a batch is a run of records, each an upsert or a delete. Applied in
//! order, on top of an older state or of nothing, they lead to the same state; a record about something unknown says nothing.
//! Numbers are LEB128, texts and payloads have their length in front. Knows neither files nor the broker.
//!
//! Whatever the bytes, reading them ends in records or in `None`, and never allocates.

use crate::codec::QoS;
use crate::time::Millis;

/// One change of what must survive a restart.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A session begins, or its attributes are these from now on.
    Session(SessionRecord<'a>),
    /// The session is over, with all that belonged to it.
    SessionEnd {
        session: u32,
    },
    /// The session subscribes, or its subscription is this from now on.
    Subscription(SubscriptionRecord<'a>),
    Unsubscription {
        session: u32,
        filter: &'a str,
    },
    /// A QoS 2 packet id of the client is in use. [MQTT-4.3.3-2]
    Received {
        session: u32,
        packet_id: u16,
    },
    /// The client has released it.
    Released {
        session: u32,
        packet_id: u16,
    },
    /// A message that entries and acceptances refer to. It is there as long as one of them is.
    Message {
        number: u64,
        content: Stored<'a>,
    },
    /// A message is on its way to the session's client, or its state is this from now on.
    Entry(EntryRecord<'a>),
    /// An entry is settled.
    Done {
        session: u32,
        key: u64,
    },
    /// The retained message of its topic.
    Retained(Stored<'a>),
    Cleared {
        topic: &'a str,
    },
    /// A QoS 2 message that was received and is not yet handed to its subscribers.
    Accepted {
        session: u32,
        message: u64,
    },
    /// It was handed to them.
    Routed {
        message: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRecord<'a> {
    /// Stands for the session in all other records.
    pub session: u32,
    pub client_id: &'a str,
    pub expiry_s: u32,
    /// `NEVER` while there is a link.
    pub expires_at: Millis,
    pub will: Option<WillRecord<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillRecord<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub delay_s: u32,
    /// `NEVER` while there is a link.
    pub due_at: Millis,
    pub expiry_s: Option<u32>,
    pub topic: &'a str,
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord<'a> {
    pub session: u32,
    /// With `$share/NAME/` in front for a shared one.
    pub filter: &'a str,
    pub subscription_id: u32,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// Retained messages were not sent to the end yet.
    pub owes_retained: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRecord<'a> {
    pub session: u32,
    /// Names the entry, and gives its place: a client's entries are sent in the order of their keys.
    pub key: u64,
    /// 0 once PUBREC came.
    pub message: u64,
    /// 0 while it was not sent.
    pub packet_id: u16,
    pub qos: QoS,
    pub retain: bool,
    pub subscription_id: u32,
    /// The shared filter it came by; empty if none.
    pub share: &'a str,
}

/// A message as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub expires_at: Millis,
    /// The hash of the client id that published it, under the store's key.
    pub publisher: Option<u64>,
    pub topic: &'a str,
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

const SESSION: u8 = 1;
const SESSION_END: u8 = 2;
const SUBSCRIPTION: u8 = 3;
const UNSUBSCRIPTION: u8 = 4;
const RECEIVED: u8 = 5;
const RELEASED: u8 = 6;
const MESSAGE: u8 = 7;
const ENTRY: u8 = 8;
const DONE: u8 = 9;
const RETAINED: u8 = 10;
const CLEARED: u8 = 11;
const ACCEPTED: u8 = 12;
const ROUTED: u8 = 13;

/// No broker ever counts so far; one that read such a number could not count on.
const SESSION_NUMBER_END: u32 = u32::MAX - 0xFFFF;
const ID_END: u64 = 1 << 62;
/// The hash of a publisher has no more.
const PUBLISHER_LEN: usize = 7;

/// Bits next to the QoS, which has the two lowest.
const RETAIN: u8 = 0x04;
const HAS_EXPIRY: u8 = 0x08;
const HAS_PROPERTIES: u8 = 0x10;
const HAS_PUBLISHER: u8 = 0x20;
const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const OWES_RETAINED: u8 = 0x10;

impl Record<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Record::Session(record) => {
                out.push(SESSION);
                put_number(record.session.into(), out);
                put_bytes(record.client_id.as_bytes(), out);
                put_number(record.expiry_s.into(), out);
                put_time(record.expires_at, out);
                out.push(record.will.is_some() as u8);
                if let Some(will) = record.will {
                    will.encode(out);
                }
            }
            Record::SessionEnd { session } => put_numbers(SESSION_END, [session.into()], out),
            Record::Subscription(record) => {
                put_numbers(SUBSCRIPTION, [record.session.into(), record.subscription_id.into()], out);
                let flag = |is_set, flag| if is_set { flag } else { 0 };
                out.push(
                    record.qos as u8
                        | flag(record.no_local, NO_LOCAL)
                        | flag(record.retain_as_published, RETAIN_AS_PUBLISHED)
                        | flag(record.owes_retained, OWES_RETAINED),
                );
                put_bytes(record.filter.as_bytes(), out);
            }
            Record::Unsubscription { session, filter } => {
                put_numbers(UNSUBSCRIPTION, [session.into()], out);
                put_bytes(filter.as_bytes(), out);
            }
            Record::Received { session, packet_id } => {
                put_numbers(RECEIVED, [session.into(), packet_id.into()], out);
            }
            Record::Released { session, packet_id } => {
                put_numbers(RELEASED, [session.into(), packet_id.into()], out);
            }
            Record::Message { number, content } => {
                put_numbers(MESSAGE, [number], out);
                content.encode(out);
            }
            Record::Entry(record) => {
                let numbers = [record.session.into(), record.key, record.message, record.packet_id.into()];
                put_numbers(ENTRY, numbers, out);
                out.push(record.qos as u8 | if record.retain { RETAIN } else { 0 });
                put_number(record.subscription_id.into(), out);
                put_bytes(record.share.as_bytes(), out);
            }
            Record::Done { session, key } => put_numbers(DONE, [session.into(), key], out),
            Record::Retained(content) => {
                out.push(RETAINED);
                content.encode(out);
            }
            Record::Cleared { topic } => {
                out.push(CLEARED);
                put_bytes(topic.as_bytes(), out);
            }
            Record::Accepted { session, message } => put_numbers(ACCEPTED, [session.into(), message], out),
            Record::Routed { message } => put_numbers(ROUTED, [message], out),
        }
    }

    /// Takes the next record off the front of `bytes`; nothing if there is none or it makes no sense.
    pub fn decode<'a>(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
        let tag = take_byte(bytes)?;
        Some(match tag {
            SESSION => Record::Session(SessionRecord {
                session: take_session(bytes)?,
                client_id: take_text(bytes)?,
                expiry_s: take_u32(bytes)?,
                expires_at: take_time(bytes)?,
                will: match take_byte(bytes)? {
                    0 => None,
                    1 => Some(WillRecord::decode(bytes)?),
                    _ => return None,
                },
            }),
            SESSION_END => Record::SessionEnd { session: take_session(bytes)? },
            SUBSCRIPTION => {
                let (session, subscription_id, flags) = (take_session(bytes)?, take_u32(bytes)?, take_byte(bytes)?);
                Record::Subscription(SubscriptionRecord {
                    session,
                    filter: take_text(bytes)?,
                    subscription_id,
                    qos: qos(flags)?,
                    no_local: flags & NO_LOCAL != 0,
                    retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
                    owes_retained: flags & OWES_RETAINED != 0,
                })
            }
            UNSUBSCRIPTION => Record::Unsubscription { session: take_session(bytes)?, filter: take_text(bytes)? },
            RECEIVED => Record::Received { session: take_session(bytes)?, packet_id: take_u16(bytes)? },
            RELEASED => Record::Released { session: take_session(bytes)?, packet_id: take_u16(bytes)? },
            MESSAGE => Record::Message { number: take_id(bytes)?, content: Stored::decode(bytes)? },
            ENTRY => {
                let (session, key, message) = (take_session(bytes)?, take_id(bytes)?, take_id(bytes)?);
                let (packet_id, flags) = (take_u16(bytes)?, take_byte(bytes)?);
                Record::Entry(EntryRecord {
                    session,
                    key,
                    message,
                    packet_id,
                    qos: qos(flags)?,
                    retain: flags & RETAIN != 0,
                    subscription_id: take_u32(bytes)?,
                    share: take_text(bytes)?,
                })
            }
            DONE => Record::Done { session: take_session(bytes)?, key: take_id(bytes)? },
            RETAINED => Record::Retained(Stored::decode(bytes)?),
            CLEARED => Record::Cleared { topic: take_text(bytes)? },
            ACCEPTED => Record::Accepted { session: take_session(bytes)?, message: take_id(bytes)? },
            ROUTED => Record::Routed { message: take_id(bytes)? },
            _ => return None,
        })
    }
}

impl<'a> WillRecord<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        out.push(self.qos as u8 | flag(self.retain, RETAIN) | flag(self.expiry_s.is_some(), HAS_EXPIRY));
        put_number(self.delay_s.into(), out);
        put_time(self.due_at, out);
        if let Some(seconds) = self.expiry_s {
            put_number(seconds.into(), out);
        }
        [self.topic.as_bytes(), self.properties, self.payload].into_iter().for_each(|bytes| put_bytes(bytes, out));
    }

    fn decode(bytes: &mut &'a [u8]) -> Option<WillRecord<'a>> {
        let (flags, delay_s, due_at) = (take_byte(bytes)?, take_u32(bytes)?, take_time(bytes)?);
        Some(WillRecord {
            qos: qos(flags)?,
            retain: flags & RETAIN != 0,
            delay_s,
            due_at,
            expiry_s: if flags & HAS_EXPIRY != 0 { Some(take_u32(bytes)?) } else { None },
            topic: take_text(bytes)?,
            properties: take_bytes(bytes)?,
            payload: take_bytes(bytes)?,
        })
    }
}

impl<'a> Stored<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        out.push(
            self.qos as u8
                | flag(self.retain, RETAIN)
                | flag(self.expires_at != Millis::NEVER, HAS_EXPIRY)
                | flag(!self.properties.is_empty(), HAS_PROPERTIES)
                | flag(self.publisher.is_some(), HAS_PUBLISHER),
        );
        if self.expires_at != Millis::NEVER {
            put_time(self.expires_at, out);
        }
        if let Some(publisher) = self.publisher {
            out.extend_from_slice(&publisher.to_le_bytes()[..PUBLISHER_LEN]);
        }
        put_bytes(self.topic.as_bytes(), out);
        if !self.properties.is_empty() {
            put_bytes(self.properties, out);
        }
        put_bytes(self.payload, out);
    }

    fn decode(bytes: &mut &'a [u8]) -> Option<Stored<'a>> {
        let flags = take_byte(bytes)?;
        let expires_at = if flags & HAS_EXPIRY != 0 { take_time(bytes)? } else { Millis::NEVER };
        let publisher = match flags & HAS_PUBLISHER {
            0 => None,
            _ => {
                let mut publisher = [0; 8];
                publisher[..PUBLISHER_LEN].copy_from_slice(take(bytes, PUBLISHER_LEN)?);
                Some(u64::from_le_bytes(publisher))
            }
        };
        Some(Stored {
            qos: qos(flags)?,
            retain: flags & RETAIN != 0,
            expires_at,
            publisher,
            topic: take_text(bytes)?,
            properties: if flags & HAS_PROPERTIES != 0 { take_bytes(bytes)? } else { &[] },
            payload: take_bytes(bytes)?,
        })
    }
}

fn qos(flags: u8) -> Option<QoS> {
    match flags & 3 {
        0 => Some(QoS::AtMostOnce),
        1 => Some(QoS::AtLeastOnce),
        2 => Some(QoS::ExactlyOnce),
        _ => None,
    }
}

fn put_numbers<const N: usize>(tag: u8, numbers: [u64; N], out: &mut Vec<u8>) {
    out.push(tag);
    numbers.into_iter().for_each(|number| put_number(number, out));
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// `NEVER` is 0; everything else is one more than it is.
fn put_time(time: Millis, out: &mut Vec<u8>) {
    put_number(time.0.wrapping_add(1), out);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    take(bytes, 1).map(|taken| taken[0])
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        number |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A session's number: the next ones are counted from the highest.
fn take_session(bytes: &mut &[u8]) -> Option<u32> {
    take_u32(bytes).filter(|&number| number < SESSION_NUMBER_END)
}

/// The number of a message or the key of an entry.
fn take_id(bytes: &mut &[u8]) -> Option<u64> {
    take_number(bytes).filter(|&id| id < ID_END)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take_number(bytes)?.try_into().ok()
}

fn take_u16(bytes: &mut &[u8]) -> Option<u16> {
    take_number(bytes)?.try_into().ok()
}

fn take_time(bytes: &mut &[u8]) -> Option<Millis> {
    Some(Millis(take_number(bytes)?.wrapping_sub(1)))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_number(bytes)?;
    take(bytes, len.try_into().ok()?)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Record<'static>> {
        let will = WillRecord {
            qos: QoS::ExactlyOnce,
            retain: true,
            delay_s: 7,
            due_at: Millis(123_456_789),
            expiry_s: Some(9),
            topic: "w",
            properties: &[1, 0],
            payload: b"gone",
        };
        let session = SessionRecord {
            session: 3,
            client_id: "ä",
            expiry_s: u32::MAX,
            expires_at: Millis::NEVER,
            will: Some(will),
        };
        let content = Stored {
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: Millis(0),
            publisher: Some((1 << 56) - 2),
            topic: "a/b",
            properties: &[3, 0, 1, b'x'],
            payload: &[0; 300],
        };
        let plain = Stored { expires_at: Millis::NEVER, publisher: None, properties: &[], payload: &[], ..content };
        let entry = EntryRecord {
            session: 3,
            key: ID_END - 1,
            message: 1 << 40,
            packet_id: u16::MAX,
            qos: QoS::ExactlyOnce,
            retain: true,
            subscription_id: 268_435_455,
            share: "$share/s/a/#",
        };
        let subscription = SubscriptionRecord {
            session: 3,
            filter: "a/#",
            subscription_id: 5,
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: false,
            owes_retained: true,
        };
        vec![
            Record::Session(session),
            Record::Session(SessionRecord { will: None, expires_at: Millis(5), ..session }),
            Record::SessionEnd { session: 3 },
            Record::Subscription(subscription),
            Record::Unsubscription { session: 3, filter: "a/#" },
            Record::Received { session: 3, packet_id: 65_535 },
            Record::Released { session: 3, packet_id: 1 },
            Record::Message { number: 1, content },
            Record::Entry(entry),
            Record::Done { session: 3, key: 0 },
            Record::Retained(plain),
            Record::Cleared { topic: "a/b" },
            Record::Accepted { session: 0, message: 1 },
            Record::Routed { message: 1 },
        ]
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        all().iter().for_each(|record| record.encode(&mut bytes));
        let mut rest = &bytes[..];
        for record in all() {
            let back = Record::decode(&mut rest).unwrap();
            assert_eq!(format!("{back:?}"), format!("{record:?}"));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn half_a_record_is_none() {
        for record in all() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            for len in 0..bytes.len() {
                assert!(Record::decode(&mut &bytes[..len]).is_none(), "{record:?} cut to {len}");
            }
        }
    }

    #[test]
    fn nonsense_is_none() {
        // An unknown record, a QoS of 3, a text that is no UTF-8, a number of more than 64 bits, one that is too large for its place.
        for bytes in [
            &[14u8][..],
            &[3, 1, 0, 3, 1, b'a'],
            &[11, 1, 0xFF],
            &[13, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
            &[2, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F],
            // Sessions and entries after which none could be counted.
            &[2, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
            &[9, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
        ] {
            assert!(Record::decode(&mut &bytes[..]).is_none(), "{bytes:?}");
        }
    }
}
