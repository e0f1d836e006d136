//! The properties of 5.0: one table of ids, types and packets; a borrowed, validated set; a builder. Properties are
//! checked once, when they are decoded; from then on they are bytes that can be copied, and read without errors.
//! Knows nothing of the packets around them but their kind.

use std::fmt;

use super::kind::*;
use super::reader::{Field, Reader, field};
use super::writer::{put_binary, put_string, put_u16, put_u32, put_variable};
use super::{DecodeError, Direction, ReasonCode, Version};

/// The properties of one packet: raw bytes that were checked when they were decoded, so that forwarding is a copy.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    raw: &'a [u8],
}

impl<'a> Properties<'a> {
    pub const EMPTY: Properties<'static> = Properties { raw: &[] };

    /// Properties kept as the bytes `as_bytes` gave. They are not checked again: reading ends at the first
    /// impossible byte.
    pub fn from_bytes(raw: &'a [u8]) -> Properties<'a> {
        Properties { raw }
    }

    /// The encoded properties without their length.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.raw
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The properties in their order.
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> {
        let mut reader = Reader::new(self.raw);
        std::iter::from_fn(move || Property::read(&mut reader))
    }

    /// What `wanted` says of the first property for which it says anything.
    pub fn find<T>(self, wanted: impl FnMut(Property<'a>) -> Option<T>) -> Option<T> {
        self.iter().find_map(wanted)
    }

    /// Appends those of a PUBLISH or Will that go with the message to its subscribers, byte for byte and in their
    /// order: all but Topic Alias, Message Expiry Interval, Subscription Identifier and Will Delay Interval, which
    /// each hop writes anew. [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
    pub fn forwarded_into(self, out: &mut Vec<u8>) {
        let mut rest = self.raw;
        while let Some((id, property, behind)) = split_first(rest) {
            if !matches!(id, 0x02 | 0x0B | 0x18 | 0x23) {
                out.extend_from_slice(property);
            }
            rest = behind;
        }
    }

    /// Reads and checks the properties of a packet; none in 3.x.
    #[inline]
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        kind: Kind,
        version: Version,
        direction: Direction,
    ) -> Result<Properties<'a>, DecodeError> {
        if !version.has_properties() {
            return Ok(Properties::EMPTY);
        }
        let len = reader.variable(kind.texts().property_length)? as usize;
        let raw = reader.take(len, kind.texts().properties_cut)?;
        if !raw.is_empty() {
            check(raw, kind, direction)?;
        }
        Ok(Properties { raw })
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Every rule that one property, or the set of a packet, can break.
fn check(raw: &[u8], kind: Kind, direction: Direction) -> Result<(), DecodeError> {
    let texts = kind.texts();
    let mut reader = Reader::new(raw);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let id = reader.variable(texts.property_unknown)?;
        let row = row(id).filter(|row| kind.is_in(row.packets)).ok_or(malformed(texts.property_unknown))?;
        let bit = 1u64 << row.id;
        if seen & bit != 0 && !kind.is_in(row.repeats_in) {
            return Err(protocol_error(row.twice));
        }
        seen |= bit;
        row.check_value(&mut reader)?;
        check_sender(row.id, kind, direction)?;
    }
    if kind == Kind::Connect && seen & (1 << 0x16) != 0 && seen & (1 << 0x15) == 0 {
        return Err(protocol_error("the CONNECT has Authentication Data without an Authentication Method"));
    }
    Ok(())
}

/// Properties that only one side may send.
fn check_sender(id: u8, kind: Kind, direction: Direction) -> Result<(), DecodeError> {
    match (id, kind, direction) {
        // [MQTT-3.3.4-6]
        (0x0B, Kind::Publish, Direction::ToServer) => {
            Err(protocol_error("a PUBLISH of a client has a Subscription Identifier"))
        }
        // [MQTT-3.14.2-2]
        (0x11, Kind::Disconnect, Direction::ToClient) => {
            Err(protocol_error("a DISCONNECT of a server has a Session Expiry Interval"))
        }
        _ => Ok(()),
    }
}

/// The types of the standard, and the constraint on the value where there is one.
#[derive(Clone, Copy)]
enum Type {
    /// A byte that is 0 or 1.
    Flag,
    TwoByte,
    TwoByteNotZero,
    FourByte,
    FourByteNotZero,
    VariableNotZero,
    Text,
    /// A string without wildcards.
    TopicName,
    Binary,
    TextPair,
}

struct Row {
    id: u8,
    /// Sets of packet kinds.
    packets: u16,
    repeats_in: u16,
    value: Type,
    field: Field,
    twice: &'static str,
    bad: &'static str,
}

macro_rules! row {
    ($id:literal, $name:literal, $value:ident, $packets:expr, $repeats_in:expr) => {
        Row {
            id: $id,
            packets: $packets,
            repeats_in: $repeats_in,
            value: Type::$value,
            field: field!(concat!($name, " property")),
            twice: concat!("the ", $name, " property is there twice"),
            bad: concat!("the ", $name, " property ", bad!($value)),
        }
    };
}

macro_rules! bad {
    (Flag) => {
        "is neither 0 nor 1"
    };
    (TopicName) => {
        "has a wildcard"
    };
    ($not_zero:ident) => {
        "is 0"
    };
}

const NEVER: u16 = 0;
const EVERYWHERE: u16 = !(PINGREQ | PINGRESP);
const ANSWERS: u16 = CONNACK | PUBACK | PUBREC | PUBREL | PUBCOMP | SUBACK | UNSUBACK | DISCONNECT | AUTH;

/// The one table: id, name, type, packets that may have the property, packets that may have it more than once.
#[rustfmt::skip]
static ROWS: [Row; 27] = [
    row!(0x01, "Payload Format Indicator", Flag, PUBLISH | WILL, NEVER),
    row!(0x02, "Message Expiry Interval", FourByte, PUBLISH | WILL, NEVER),
    row!(0x03, "Content Type", Text, PUBLISH | WILL, NEVER),
    row!(0x08, "Response Topic", TopicName, PUBLISH | WILL, NEVER), // [MQTT-3.3.2-14]
    row!(0x09, "Correlation Data", Binary, PUBLISH | WILL, NEVER),
    row!(0x0B, "Subscription Identifier", VariableNotZero, PUBLISH | SUBSCRIBE, PUBLISH),
    row!(0x11, "Session Expiry Interval", FourByte, CONNECT | CONNACK | DISCONNECT, NEVER),
    row!(0x12, "Assigned Client Identifier", Text, CONNACK, NEVER),
    row!(0x13, "Server Keep Alive", TwoByte, CONNACK, NEVER),
    row!(0x15, "Authentication Method", Text, CONNECT | CONNACK | AUTH, NEVER),
    row!(0x16, "Authentication Data", Binary, CONNECT | CONNACK | AUTH, NEVER),
    row!(0x17, "Request Problem Information", Flag, CONNECT, NEVER),
    row!(0x18, "Will Delay Interval", FourByte, WILL, NEVER),
    row!(0x19, "Request Response Information", Flag, CONNECT, NEVER),
    row!(0x1A, "Response Information", Text, CONNACK, NEVER),
    row!(0x1C, "Server Reference", Text, CONNACK | DISCONNECT, NEVER),
    row!(0x1F, "Reason String", Text, ANSWERS, NEVER),
    row!(0x21, "Receive Maximum", TwoByteNotZero, CONNECT | CONNACK, NEVER),
    row!(0x22, "Topic Alias Maximum", TwoByte, CONNECT | CONNACK, NEVER),
    row!(0x23, "Topic Alias", TwoByteNotZero, PUBLISH, NEVER), // [MQTT-3.3.2-8]
    row!(0x24, "Maximum QoS", Flag, CONNACK, NEVER),
    row!(0x25, "Retain Available", Flag, CONNACK, NEVER),
    row!(0x26, "User Property", TextPair, EVERYWHERE, EVERYWHERE),
    row!(0x27, "Maximum Packet Size", FourByteNotZero, CONNECT | CONNACK, NEVER),
    row!(0x28, "Wildcard Subscription Available", Flag, CONNACK, NEVER),
    row!(0x29, "Subscription Identifier Available", Flag, CONNACK, NEVER),
    row!(0x2A, "Shared Subscription Available", Flag, CONNACK, NEVER),
];

fn row(id: u32) -> Option<&'static Row> {
    ROWS.iter().find(|row| u32::from(row.id) == id)
}

impl Row {
    /// Takes the value off `reader`.
    fn check_value(&'static self, reader: &mut Reader) -> Result<(), DecodeError> {
        let field = &self.field;
        let cut = field.cut;
        let good = match self.value {
            Type::Flag => reader.u8(cut)? <= 1,
            Type::TwoByte => reader.u16(cut).map(|_| true)?,
            Type::TwoByteNotZero => reader.u16(cut)? != 0,
            Type::FourByte => reader.u32(cut).map(|_| true)?,
            Type::FourByteNotZero => reader.u32(cut)? != 0,
            Type::VariableNotZero => reader.variable(cut)? != 0,
            Type::Text => reader.string(field).map(|_| true)?,
            Type::TopicName => !crate::topic::has_wildcard(reader.string(field)?),
            Type::Binary => reader.binary(field).map(|_| true)?,
            // [MQTT-1.5.7-1]
            Type::TextPair => reader.string(field).and_then(|_| reader.string(field)).map(|_| true)?,
        };
        if good {
            return Ok(());
        }
        let reason = if self.id == 0x23 { ReasonCode::TopicAliasInvalid } else { ReasonCode::ProtocolError };
        Err(DecodeError { reason, what: self.bad })
    }
}

/// The first property of `raw`: its id, its bytes, and what follows.
fn split_first(raw: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let row = row(u32::from(*raw.first()?))?;
    let mut reader = Reader::new(raw.get(1..)?);
    let cut = row.field.cut;
    match row.value {
        Type::Flag => reader.u8(cut).map(drop),
        Type::TwoByte | Type::TwoByteNotZero => reader.u16(cut).map(drop),
        Type::FourByte | Type::FourByteNotZero => reader.u32(cut).map(drop),
        Type::VariableNotZero => reader.variable(cut).map(drop),
        Type::Text | Type::TopicName | Type::Binary => reader.binary(&row.field).map(drop),
        Type::TextPair => reader.binary(&row.field).and_then(|_| reader.binary(&row.field)).map(drop),
    }
    .ok()?;
    let (property, behind) = raw.split_at_checked(raw.len() - reader.rest().len())?;
    Some((row.id, property, behind))
}

/// One property. Variants carry the standard's names, in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(u8),
    WillDelayInterval(u32),
    RequestResponseInformation(u8),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(u8),
    RetainAvailable(u8),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(u8),
    SubscriptionIdentifierAvailable(u8),
    SharedSubscriptionAvailable(u8),
}

impl<'a> Property<'a> {
    /// The standard's identifier.
    pub fn id(&self) -> u8 {
        match self {
            Property::PayloadFormatIndicator(_) => 0x01,
            Property::MessageExpiryInterval(_) => 0x02,
            Property::ContentType(_) => 0x03,
            Property::ResponseTopic(_) => 0x08,
            Property::CorrelationData(_) => 0x09,
            Property::SubscriptionIdentifier(_) => 0x0B,
            Property::SessionExpiryInterval(_) => 0x11,
            Property::AssignedClientIdentifier(_) => 0x12,
            Property::ServerKeepAlive(_) => 0x13,
            Property::AuthenticationMethod(_) => 0x15,
            Property::AuthenticationData(_) => 0x16,
            Property::RequestProblemInformation(_) => 0x17,
            Property::WillDelayInterval(_) => 0x18,
            Property::RequestResponseInformation(_) => 0x19,
            Property::ResponseInformation(_) => 0x1A,
            Property::ServerReference(_) => 0x1C,
            Property::ReasonString(_) => 0x1F,
            Property::ReceiveMaximum(_) => 0x21,
            Property::TopicAliasMaximum(_) => 0x22,
            Property::TopicAlias(_) => 0x23,
            Property::MaximumQoS(_) => 0x24,
            Property::RetainAvailable(_) => 0x25,
            Property::UserProperty(..) => 0x26,
            Property::MaximumPacketSize(_) => 0x27,
            Property::WildcardSubscriptionAvailable(_) => 0x28,
            Property::SubscriptionIdentifierAvailable(_) => 0x29,
            Property::SharedSubscriptionAvailable(_) => 0x2A,
        }
    }

    /// The next property of checked bytes; nothing at their end, or where they are not properties.
    fn read(reader: &mut Reader<'a>) -> Option<Property<'a>> {
        let id = reader.u8("").ok()?;
        let field = &row(u32::from(id))?.field;
        let cut = field.cut;
        Some(match id {
            0x01 => Property::PayloadFormatIndicator(reader.u8(cut).ok()?),
            0x02 => Property::MessageExpiryInterval(reader.u32(cut).ok()?),
            0x03 => Property::ContentType(reader.string(field).ok()?),
            0x08 => Property::ResponseTopic(reader.string(field).ok()?),
            0x09 => Property::CorrelationData(reader.binary(field).ok()?),
            0x0B => Property::SubscriptionIdentifier(reader.variable(cut).ok()?),
            0x11 => Property::SessionExpiryInterval(reader.u32(cut).ok()?),
            0x12 => Property::AssignedClientIdentifier(reader.string(field).ok()?),
            0x13 => Property::ServerKeepAlive(reader.u16(cut).ok()?),
            0x15 => Property::AuthenticationMethod(reader.string(field).ok()?),
            0x16 => Property::AuthenticationData(reader.binary(field).ok()?),
            0x17 => Property::RequestProblemInformation(reader.u8(cut).ok()?),
            0x18 => Property::WillDelayInterval(reader.u32(cut).ok()?),
            0x19 => Property::RequestResponseInformation(reader.u8(cut).ok()?),
            0x1A => Property::ResponseInformation(reader.string(field).ok()?),
            0x1C => Property::ServerReference(reader.string(field).ok()?),
            0x1F => Property::ReasonString(reader.string(field).ok()?),
            0x21 => Property::ReceiveMaximum(reader.u16(cut).ok()?),
            0x22 => Property::TopicAliasMaximum(reader.u16(cut).ok()?),
            0x23 => Property::TopicAlias(reader.u16(cut).ok()?),
            0x24 => Property::MaximumQoS(reader.u8(cut).ok()?),
            0x25 => Property::RetainAvailable(reader.u8(cut).ok()?),
            0x26 => Property::UserProperty(reader.string(field).ok()?, reader.string(field).ok()?),
            0x27 => Property::MaximumPacketSize(reader.u32(cut).ok()?),
            0x28 => Property::WildcardSubscriptionAvailable(reader.u8(cut).ok()?),
            0x29 => Property::SubscriptionIdentifierAvailable(reader.u8(cut).ok()?),
            0x2A => Property::SharedSubscriptionAvailable(reader.u8(cut).ok()?),
            _ => return None,
        })
    }

    /// Appends id and value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.id());
        match *self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::MaximumQoS(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value) => out.push(value),
            Property::ServerKeepAlive(value)
            | Property::ReceiveMaximum(value)
            | Property::TopicAliasMaximum(value)
            | Property::TopicAlias(value) => put_u16(out, value),
            Property::MessageExpiryInterval(value)
            | Property::SessionExpiryInterval(value)
            | Property::WillDelayInterval(value)
            | Property::MaximumPacketSize(value) => put_u32(out, value),
            Property::SubscriptionIdentifier(value) => put_variable(out, value),
            Property::ContentType(text)
            | Property::ResponseTopic(text)
            | Property::AssignedClientIdentifier(text)
            | Property::AuthenticationMethod(text)
            | Property::ResponseInformation(text)
            | Property::ServerReference(text)
            | Property::ReasonString(text) => put_string(out, text),
            Property::CorrelationData(bytes) | Property::AuthenticationData(bytes) => put_binary(out, bytes),
            Property::UserProperty(name, value) => {
                put_string(out, name);
                put_string(out, value);
            }
        }
    }
}

/// Builds the raw bytes of a property set.
#[derive(Clone, Debug, Default)]
pub struct PropertiesBuf {
    raw: Vec<u8>,
}

impl PropertiesBuf {
    /// Appends `property`.
    pub fn push(&mut self, property: Property) {
        property.encode(&mut self.raw);
    }

    pub fn clear(&mut self) {
        self.raw.clear();
    }

    pub fn as_properties(&self) -> Properties<'_> {
        Properties { raw: &self.raw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One good value of every property, in the order of the ids.
    const SAMPLES: [Property; 27] = [
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(0x0102_0304),
        Property::ContentType("text"),
        Property::ResponseTopic("r/é"),
        Property::CorrelationData(&[0, 0xFF]),
        Property::SubscriptionIdentifier(300),
        Property::SessionExpiryInterval(u32::MAX),
        Property::AssignedClientIdentifier("id"),
        Property::ServerKeepAlive(0),
        Property::AuthenticationMethod("m"),
        Property::AuthenticationData(&[]),
        Property::RequestProblemInformation(0),
        Property::WillDelayInterval(0),
        Property::RequestResponseInformation(1),
        Property::ResponseInformation(""),
        Property::ServerReference("s"),
        Property::ReasonString("why"),
        Property::ReceiveMaximum(0x0A0B),
        Property::TopicAliasMaximum(0),
        Property::TopicAlias(1),
        Property::MaximumQoS(0),
        Property::RetainAvailable(1),
        Property::UserProperty("k", "v"),
        Property::MaximumPacketSize(1),
        Property::WildcardSubscriptionAvailable(0),
        Property::SubscriptionIdentifierAvailable(1),
        Property::SharedSubscriptionAvailable(0),
    ];

    /// The standard's Table 2-4, by packet.
    const ALLOWED: [(Kind, &[u8]); 14] = [
        (Kind::Will, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]),
        (Kind::Connect, &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]),
        (
            Kind::ConnAck,
            &[0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A],
        ),
        (Kind::Publish, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26]),
        (Kind::PubAck, &[0x1F, 0x26]),
        (Kind::PubRec, &[0x1F, 0x26]),
        (Kind::PubRel, &[0x1F, 0x26]),
        (Kind::PubComp, &[0x1F, 0x26]),
        (Kind::Subscribe, &[0x0B, 0x26]),
        (Kind::SubAck, &[0x1F, 0x26]),
        (Kind::Unsubscribe, &[0x26]),
        (Kind::UnsubAck, &[0x1F, 0x26]),
        (Kind::Disconnect, &[0x11, 0x1C, 0x1F, 0x26]),
        (Kind::Auth, &[0x15, 0x16, 0x1F, 0x26]),
    ];

    fn raw(properties: &[Property]) -> Vec<u8> {
        let mut buf = PropertiesBuf::default();
        properties.iter().for_each(|&property| buf.push(property));
        buf.as_properties().as_bytes().to_vec()
    }

    fn check_one(raw: &[u8], kind: Kind, direction: Direction) -> Result<(), ReasonCode> {
        check(raw, kind, direction).map_err(|error| error.reason)
    }

    #[test]
    fn a_property_is_read_as_it_was_written() {
        for (row, sample) in ROWS.iter().zip(SAMPLES) {
            assert_eq!(row.id, sample.id());
            let raw = raw(&[sample]);
            assert_eq!(Properties { raw: &raw }.iter().collect::<Vec<_>>(), [sample]);
            assert_eq!(split_first(&raw), Some((row.id, &raw[..], &[][..])));
        }
        let raw = raw(&SAMPLES);
        assert!(Properties { raw: &raw }.iter().eq(SAMPLES));
    }

    #[test]
    fn each_packet_allows_its_own_properties() {
        for (kind, allowed) in ALLOWED {
            let directions: &[Direction] = match kind {
                Kind::Publish | Kind::Disconnect => &[Direction::ToServer, Direction::ToClient],
                _ => &[Direction::ToClient],
            };
            for id in 0..=255u8 {
                let sample = SAMPLES.iter().find(|sample| sample.id() == id);
                let mut raw = sample.map_or(vec![id, 0, 0, 0, 0], |&sample| raw(&[sample]));
                if (kind, id) == (Kind::Connect, 0x16) {
                    raw.splice(0..0, [0x15, 0, 0]);
                }
                for &direction in directions {
                    let expected = match (kind, id, direction) {
                        (Kind::Publish, 0x0B, Direction::ToServer) => Err(ReasonCode::ProtocolError),
                        (Kind::Disconnect, 0x11, Direction::ToClient) => Err(ReasonCode::ProtocolError),
                        _ if allowed.contains(&id) => Ok(()),
                        _ => Err(ReasonCode::MalformedPacket),
                    };
                    assert_eq!(check_one(&raw, kind, direction), expected, "{kind:?} {id:#x} {direction:?}");
                }
            }
        }
    }

    #[test]
    fn only_user_properties_and_the_subscription_identifiers_of_a_publish_repeat() {
        for (kind, allowed) in ALLOWED {
            for sample in SAMPLES.iter().filter(|sample| allowed.contains(&sample.id())) {
                let mut raw = raw(&[*sample, Property::UserProperty("", ""), *sample]);
                if (kind, sample.id()) == (Kind::Connect, 0x16) {
                    raw.splice(0..0, [0x15, 0, 0]);
                }
                let direction = if kind == Kind::Disconnect { Direction::ToServer } else { Direction::ToClient };
                let repeats = sample.id() == 0x26 || (kind, sample.id()) == (Kind::Publish, 0x0B);
                let expected = if repeats { Ok(()) } else { Err(ReasonCode::ProtocolError) };
                assert_eq!(check_one(&raw, kind, direction), expected, "{kind:?} {sample:?}");
            }
        }
    }

    #[test]
    fn a_property_cut_anywhere_is_malformed_and_ends_the_reading() {
        for sample in SAMPLES {
            let whole = raw(&[sample]);
            let (kind, _) = ALLOWED.iter().find(|(_, allowed)| allowed.contains(&sample.id())).unwrap();
            for len in 1..whole.len() {
                let cut = &whole[..len];
                assert_eq!(check_one(cut, *kind, Direction::ToServer), Err(ReasonCode::MalformedPacket), "{cut:x?}");
                assert_eq!(Properties { raw: cut }.iter().count(), 0);
                let mut out = Vec::new();
                Properties { raw: cut }.forwarded_into(&mut out);
                assert!(out.is_empty());
            }
        }
        let raw = [0x01, 1, 0x7E, 0x01, 1];
        assert_eq!(Properties { raw: &raw }.iter().count(), 1);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (property, kind, reason) in [
            (Property::PayloadFormatIndicator(2), Kind::Publish, ReasonCode::ProtocolError),
            (Property::SubscriptionIdentifier(0), Kind::Subscribe, ReasonCode::ProtocolError),
            (Property::RequestProblemInformation(2), Kind::Connect, ReasonCode::ProtocolError),
            (Property::RequestResponseInformation(255), Kind::Connect, ReasonCode::ProtocolError),
            (Property::ReceiveMaximum(0), Kind::Connect, ReasonCode::ProtocolError),
            (Property::TopicAlias(0), Kind::Publish, ReasonCode::TopicAliasInvalid),
            (Property::MaximumQoS(2), Kind::ConnAck, ReasonCode::ProtocolError),
            (Property::RetainAvailable(2), Kind::ConnAck, ReasonCode::ProtocolError),
            (Property::MaximumPacketSize(0), Kind::Connect, ReasonCode::ProtocolError),
            (Property::WildcardSubscriptionAvailable(2), Kind::ConnAck, ReasonCode::ProtocolError),
            (Property::SubscriptionIdentifierAvailable(2), Kind::ConnAck, ReasonCode::ProtocolError),
            (Property::SharedSubscriptionAvailable(2), Kind::ConnAck, ReasonCode::ProtocolError),
            (Property::ResponseTopic("#"), Kind::Publish, ReasonCode::ProtocolError),
        ] {
            assert_eq!(check_one(&raw(&[property]), kind, Direction::ToServer), Err(reason), "{property:?}");
        }
    }

    #[test]
    fn forwarding_keeps_order_and_bytes_and_leaves_out_what_each_hop_writes_anew() {
        let kept = [
            Property::UserProperty("b", "1"),
            Property::PayloadFormatIndicator(1),
            Property::UserProperty("a", "2"),
            Property::ResponseTopic("r"),
            Property::CorrelationData(&[0, 1]),
            Property::ContentType("text"),
            Property::UserProperty("b", "1"),
        ];
        let hop = [
            Property::TopicAlias(3),
            Property::MessageExpiryInterval(9),
            Property::SubscriptionIdentifier(200),
            Property::WillDelayInterval(1),
        ];
        let mut all = Vec::new();
        for (position, property) in kept.into_iter().enumerate() {
            all.push(property);
            all.extend(hop.get(position));
        }
        let all = raw(&all);
        let mut out = vec![0xAA];
        Properties { raw: &all }.forwarded_into(&mut out);
        assert_eq!(out, [&[0xAA][..], &raw(&kept)].concat());
    }

    #[test]
    fn a_search_ends_with_the_first_answer() {
        let raw = raw(&[Property::UserProperty("k", "1"), Property::UserProperty("k", "2")]);
        let value = |property| match property {
            Property::UserProperty("k", value) => Some(value),
            _ => None,
        };
        assert_eq!(Properties { raw: &raw }.find(value), Some("1"));
        assert_eq!(Properties::EMPTY.find(value), None);
        assert_eq!(format!("{:?}", Properties { raw: &raw }), r#"[UserProperty("k", "1"), UserProperty("k", "2")]"#);
    }
}
