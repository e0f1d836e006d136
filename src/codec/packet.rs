//! The packets of all versions, as structures that borrow from the bytes they were decoded from: where a packet ends
//! in a byte stream, and which decoder and encoder is whose. The packets themselves are in the files beside this one.

use std::fmt;

use super::kind::{Kind, malformed, protocol_error};
use super::reader::{Reader, Variable, variable_prefix};
use super::writer::put_frame;
use super::*;

/// The largest packet the fixed header can describe.
pub const PACKET_SIZE_MAX: u32 = 1 + 4 + 268_435_455;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    /// Nothing for 3 and above.
    #[inline]
    pub fn from_u8(qos: u8) -> Option<QoS> {
        match qos {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// Who reads the packet: some properties and reason codes are allowed one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// MalformedPacket, ProtocolError, PacketTooLarge, UnsupportedProtocolVersion, TopicAliasInvalid ...
    pub reason: ReasonCode,
    /// A sentence part that names the packet and the byte or field: "the Will QoS of the CONNECT is 3; only 0, 1 and 2 exist".
    pub what: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for DecodeError {}

/// The first packet of a byte stream, or how far it is from being whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    NeedMore,
    /// The packet takes the first `len` bytes; its body (what follows the fixed header) begins at `body`.
    Frame {
        body: usize,
        len: usize,
    },
}

/// Finds the end of the first packet in `bytes`; looks at the fixed header alone. `max_packet_size` counts the whole
/// packet; a larger one is refused as soon as its length is known (PacketTooLarge). 0 = the protocol's limit.
#[inline]
pub fn split_frame(bytes: &[u8], max_packet_size: u32) -> Result<Split, DecodeError> {
    let Some((_, behind)) = bytes.split_first() else { return Ok(Split::NeedMore) };
    let (remaining, length_len) = match variable_prefix(behind) {
        Variable::Whole { value, len } => (value as usize, len),
        Variable::NeedMore => return Ok(Split::NeedMore),
        Variable::Invalid => {
            return Err(malformed("the Remaining Length of a packet is padded or longer than four bytes"));
        }
    };
    let body = 1 + length_len;
    let len = body + remaining;
    if max_packet_size != 0 && len > max_packet_size as usize {
        return Err(DecodeError { reason: ReasonCode::PacketTooLarge, what: "a packet is larger than the limit" });
    }
    Ok(if bytes.len() < len { Split::NeedMore } else { Split::Frame { body, len } })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(SubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// Decodes one whole packet. CONNECT names its own version, and `version` is not looked at for it.
pub fn decode(first_byte: u8, body: &[u8], version: Version, direction: Direction) -> Result<Packet<'_>, DecodeError> {
    decode_about(first_byte, body, version, direction, None)
}

/// Decodes one whole packet; a PUBLISH that is known to be about `topic` gets that for its own, which is not looked at.
#[inline]
pub fn decode_about<'a>(
    first_byte: u8,
    body: &'a [u8],
    version: Version,
    direction: Direction,
    topic: Option<&'a str>,
) -> Result<Packet<'a>, DecodeError> {
    let kind = Kind::of(first_byte).ok_or(malformed("a packet has the reserved type 0"))?;
    if kind.goes_against(direction) {
        return Err(protocol_error(kind.texts().wrong_way));
    }
    if kind != Kind::Publish {
        check_flags(first_byte, body, kind, version)?;
    }
    let mut reader = Reader::new(body);
    let from = &mut reader;
    let packet = match kind {
        // Those of the message path look for their end themselves, and are not moved any more.
        Kind::Publish => return Publish::decode(from, first_byte, version, direction, topic).map(Packet::Publish),
        Kind::PubAck => return Ack::decode(from, kind, version, direction).map(Packet::PubAck),
        Kind::PubRec => return Ack::decode(from, kind, version, direction).map(Packet::PubRec),
        Kind::PubRel => return Ack::decode(from, kind, version, direction).map(Packet::PubRel),
        Kind::PubComp => return Ack::decode(from, kind, version, direction).map(Packet::PubComp),
        Kind::PingReq => Packet::PingReq,
        Kind::PingResp => Packet::PingResp,
        Kind::Connect => Packet::Connect(Connect::decode(from)?),
        Kind::ConnAck => Packet::ConnAck(ConnAck::decode(from, version)?),
        Kind::Subscribe => Packet::Subscribe(Subscribe::decode(from, version)?),
        Kind::SubAck => Packet::SubAck(SubAck::decode(from, kind, version)?),
        Kind::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(from, version)?),
        Kind::UnsubAck => Packet::UnsubAck(SubAck::decode(from, kind, version)?),
        Kind::Disconnect => Packet::Disconnect(Disconnect::decode(from, version, direction)?),
        Kind::Auth => Packet::Auth(Auth::decode(from, version, direction)?),
        Kind::Will => return Err(malformed("a packet has the reserved type 0")),
    };
    reader.end(kind)?;
    Ok(packet)
}

/// [MQTT-2.2.2-2] (3.1.1) [MQTT-2.1.3-1] (5.0)
fn check_flags(first_byte: u8, body: &[u8], kind: Kind, version: Version) -> Result<(), DecodeError> {
    if first_byte == kind.first_byte() {
        return Ok(());
    }
    let version = if kind == Kind::Connect { connect_version(body).unwrap_or(Version::V311) } else { version };
    if version.is_strict() { Err(malformed(kind.texts().flags)) } else { Ok(()) }
}

impl Packet<'_> {
    /// Appends the packet as `version` writes it (CONNECT as its own version). What the version does not have is not
    /// written: an AUTH in 3.x, a CONNACK for whose reason 3.x has no code.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Packet::Connect(connect) => connect.encode(out),
            Packet::ConnAck(connack) => connack.encode(version, out),
            Packet::Publish(publish) => publish.encode(version, out),
            Packet::PubAck(ack) => ack.encode(Kind::PubAck, version, out),
            Packet::PubRec(ack) => ack.encode(Kind::PubRec, version, out),
            Packet::PubRel(ack) => ack.encode(Kind::PubRel, version, out),
            Packet::PubComp(ack) => ack.encode(Kind::PubComp, version, out),
            Packet::Subscribe(subscribe) => subscribe.encode(version, out),
            Packet::SubAck(suback) => suback.encode(Kind::SubAck, version, out),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Packet::UnsubAck(unsuback) => unsuback.encode(Kind::UnsubAck, version, out),
            Packet::PingReq => put_frame(out, Kind::PingReq, |_| ()),
            Packet::PingResp => put_frame(out, Kind::PingResp, |_| ()),
            Packet::Disconnect(disconnect) => disconnect.encode(version, out),
            Packet::Auth(auth) => auth.encode(version, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_split_off_as_soon_as_it_is_whole() {
        assert_eq!(split_frame(&[], 0), Ok(Split::NeedMore));
        assert_eq!(split_frame(&[0xC0], 0), Ok(Split::NeedMore));
        assert_eq!(split_frame(&[0xC0, 0x00], 0), Ok(Split::Frame { body: 2, len: 2 }));
        assert_eq!(split_frame(&[0xC0, 0x00, 0xC0], 0), Ok(Split::Frame { body: 2, len: 2 }));
        let mut long = vec![0x30, 0x80, 0x01];
        long.resize(130, 0);
        assert_eq!(split_frame(&long, 0), Ok(Split::NeedMore));
        long.push(0);
        assert_eq!(split_frame(&long, 0), Ok(Split::Frame { body: 3, len: 131 }));
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_once_its_length_is_known() {
        assert_eq!(split_frame(&[0x30, 0x80], 100), Ok(Split::NeedMore));
        let error = split_frame(&[0x30, 0x80, 0x01], 130).unwrap_err();
        assert_eq!(
            (error.reason, &*error.to_string()),
            (ReasonCode::PacketTooLarge, "a packet is larger than the limit")
        );
        assert_eq!(split_frame(&[0x30, 0x80, 0x01], 131), Ok(Split::NeedMore));
        assert_eq!(split_frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], 0), Ok(Split::NeedMore));
        assert_eq!(split_frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], PACKET_SIZE_MAX), Ok(Split::NeedMore));
    }

    #[test]
    fn v5_mqtt_1_5_5_1_remaining_length_is_not_padded_in_any_version() {
        for bad in [&[0xC0, 0x80, 0x00][..], &[0xC0, 0x80, 0x80, 0x80, 0x80], &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]] {
            assert_eq!(split_frame(bad, 0).unwrap_err().reason, ReasonCode::MalformedPacket, "{bad:x?}");
        }
    }
}
