//! DISCONNECT and AUTH: a reason code with properties, each with a form that has neither.

use super::ack::{decode_reason, put_reason};
use super::kind::{Kind, malformed, protocol_error};
use super::reader::Reader;
use super::writer::{put_frame, put_properties};
use super::{DecodeError, Direction, Properties, Property, ReasonCode, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        version: Version,
        direction: Direction,
    ) -> Result<Disconnect<'a>, DecodeError> {
        if direction == Direction::ToClient && !version.server_may_send_disconnect() {
            return Err(protocol_error(Kind::Disconnect.texts().wrong_way));
        }
        let (reason, properties) = decode_reason(reader, Kind::Disconnect, version, direction)?;
        Ok(Disconnect { reason, properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_frame(out, Kind::Disconnect, |out| put_reason(out, version, self.reason, self.properties));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        version: Version,
        direction: Direction,
    ) -> Result<Auth<'a>, DecodeError> {
        if !version.has_properties() {
            return Err(malformed("a packet has type 15, which is reserved before 5.0"));
        }
        let short = reader.is_empty();
        let (reason, properties) = decode_reason(reader, Kind::Auth, version, direction)?;
        if !reason.may_stand_in(Kind::Auth, direction) {
            return Err(protocol_error(Kind::Auth.texts().reason_unknown));
        }
        let has_method = properties.iter().any(|property| matches!(property, Property::AuthenticationMethod(_)));
        if !short && !has_method {
            return Err(protocol_error("the AUTH has no Authentication Method"));
        }
        Ok(Auth { reason, properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if !version.has_properties() {
            return;
        }
        put_frame(out, Kind::Auth, |out| {
            if self.reason != ReasonCode::Success || !self.properties.is_empty() {
                out.push(self.reason as u8);
                put_properties(out, version, self.properties);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::*;

    #[test]
    fn without_reason_and_properties_nothing_is_written() {
        let mut out = Vec::new();
        let (reason, properties) = (ReasonCode::Success, Properties::EMPTY);
        Packet::Disconnect(Disconnect { reason, properties }).encode(Version::V5, &mut out);
        Packet::Auth(Auth { reason, properties }).encode(Version::V5, &mut out);
        let reason = ReasonCode::ServerShuttingDown;
        Packet::Disconnect(Disconnect { reason, properties }).encode(Version::V5, &mut out);
        Packet::Disconnect(Disconnect { reason, properties }).encode(Version::V311, &mut out);
        Packet::Auth(Auth { reason, properties }).encode(Version::V311, &mut out);
        assert_eq!(out, [0xE0, 0, 0xF0, 0, 0xE0, 1, 0x8B, 0xE0, 0]);
    }
}
