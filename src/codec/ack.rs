//! PUBACK, PUBREC, PUBREL and PUBCOMP, which look alike, and the reason code with properties that other packets end
//! with in the same way.

use super::kind::{Kind, protocol_error};
use super::reader::Reader;
use super::writer::{put_frame, put_properties, put_u16};
use super::{DecodeError, Direction, Packet, Properties, ReasonCode, Version};

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    pub packet_id: u16,
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    #[inline]
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        kind: Kind,
        version: Version,
        direction: Direction,
    ) -> Result<Ack<'a>, DecodeError> {
        let packet_id = reader.packet_id(kind)?;
        let (reason, properties) = decode_reason(reader, kind, version, direction)?;
        reader.end(kind)?;
        Ok(Ack { packet_id, reason, properties })
    }

    #[inline]
    pub(super) fn encode(&self, kind: Kind, version: Version, out: &mut Vec<u8>) {
        if self.reason == ReasonCode::Success && self.properties.is_empty() {
            // At once: most say no more.
            let [high, low] = self.packet_id.to_be_bytes();
            out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
            return;
        }
        put_frame(out, kind, |out| {
            put_u16(out, self.packet_id);
            put_reason(out, version, self.reason, self.properties);
        });
    }
}

/// Bytes of an acknowledgement that says no more than what every version can. Most are of that kind.
pub const SHORT_ACK_LEN: usize = 4;

/// The acknowledgement of `SHORT_ACK_LEN` that `bytes` begin with, if they do.
#[inline]
pub fn short_ack(bytes: &[u8]) -> Option<Packet<'static>> {
    let &[first_byte, 2, high, low] = bytes.first_chunk()? else { return None };
    let packet_id = u16::from_be_bytes([high, low]);
    if packet_id == 0 {
        return None;
    }
    let ack = Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
    match Kind::of(first_byte).filter(|kind| kind.first_byte() == first_byte)? {
        Kind::PubAck => Some(Packet::PubAck(ack)),
        Kind::PubRec => Some(Packet::PubRec(ack)),
        Kind::PubRel => Some(Packet::PubRel(ack)),
        Kind::PubComp => Some(Packet::PubComp(ack)),
        _ => None,
    }
}

/// A reason code and properties, of which either may be missing in 5.0; 3.x has none.
pub(super) fn decode_reason<'a>(
    reader: &mut Reader<'a>,
    kind: Kind,
    version: Version,
    direction: Direction,
) -> Result<(ReasonCode, Properties<'a>), DecodeError> {
    if !version.has_properties() || reader.is_empty() {
        return Ok((ReasonCode::Success, Properties::EMPTY));
    }
    let reason = ReasonCode::from_u8(reader.u8(kind.texts().reason_cut)?)
        .filter(|reason| reason.may_stand_in(kind, direction))
        .ok_or(protocol_error(kind.texts().reason_unknown))?;
    if reader.is_empty() {
        return Ok((reason, Properties::EMPTY));
    }
    Ok((reason, Properties::decode(reader, kind, version, direction)?))
}

/// The shortest form of `decode_reason`'s bytes.
pub(super) fn put_reason(out: &mut Vec<u8>, version: Version, reason: ReasonCode, properties: Properties) {
    if !version.has_properties() || reason == ReasonCode::Success && properties.is_empty() {
        return;
    }
    out.push(reason as u8);
    if !properties.is_empty() {
        put_properties(out, version, properties);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, PropertiesBuf, Property, Split, decode, split_frame};
    use super::*;

    #[test]
    fn a_short_acknowledgement_is_what_it_is_in_every_version() {
        let is_ack = |packet: &Packet| {
            matches!(packet, Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_))
        };
        let ids = [[0, 0], [0, 0x34], [0x12, 0], [0x12, 0x34]];
        let every = (0..=u8::MAX).flat_map(|first| [1, 2, 3].map(|remaining| (first, remaining)));
        for ((first_byte, remaining), [high, low]) in every.flat_map(|head| ids.map(|id| (head, id))) {
            let bytes = [first_byte, remaining, high, low, 0];
            let short = short_ack(&bytes);
            for version in [Version::V31, Version::V311, Version::V5] {
                let Ok(Split::Frame { body, len }) = split_frame(&bytes, 0) else { unreachable!() };
                let decoded = decode(first_byte, &bytes[body..len], version, Direction::ToServer);
                match short {
                    Some(packet) => assert_eq!((decoded, len), (Ok(packet), SHORT_ACK_LEN), "{bytes:x?}"),
                    // 3.1 does not mind flags.
                    None if version == Version::V31 => {}
                    None => assert!(!(len == SHORT_ACK_LEN && decoded.as_ref().is_ok_and(is_ack)), "{bytes:x?}"),
                }
            }
        }
        assert!((0..SHORT_ACK_LEN).all(|len| short_ack(&[0x40, 2, 0, 1][..len]).is_none()));
    }

    fn encoded(reason: ReasonCode, properties: Properties, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        Packet::PubRel(Ack { packet_id: 0x0102, reason, properties }).encode(version, &mut out);
        out
    }

    #[test]
    fn acknowledgements_are_as_short_as_can_be() {
        let mut properties = PropertiesBuf::default();
        properties.push(Property::ReasonString("no"));
        let properties = properties.as_properties();
        let (good, bad) = (ReasonCode::Success, ReasonCode::PacketIdentifierNotFound);
        assert_eq!(encoded(good, Properties::EMPTY, Version::V5), [0x62, 2, 1, 2]);
        assert_eq!(encoded(bad, Properties::EMPTY, Version::V5), [0x62, 3, 1, 2, 0x92]);
        assert_eq!(encoded(bad, properties, Version::V5), *b"\x62\x09\x01\x02\x92\x05\x1F\x00\x02no");
        assert_eq!(encoded(good, properties, Version::V5), *b"\x62\x09\x01\x02\x00\x05\x1F\x00\x02no");
        assert_eq!(encoded(bad, properties, Version::V311), [0x62, 2, 1, 2]);
        assert_eq!(encoded(bad, properties, Version::V31), [0x62, 2, 1, 2]);
    }
}
