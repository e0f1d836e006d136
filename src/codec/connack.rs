//! CONNACK: the server's answer to CONNECT.

use super::kind::{Kind, malformed, protocol_error};
use super::reader::Reader;
use super::writer::{put_frame, put_properties};
use super::{DecodeError, Direction, Properties, ReasonCode, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    pub session_present: bool,
    /// `encode` maps it for 3.x with `Version::connack_code`.
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, version: Version) -> Result<ConnAck<'a>, DecodeError> {
        const CUT: &str = "the CONNACK ends before its Reason Code";
        let flags = reader.u8(CUT)?;
        let code = reader.u8(CUT)?;
        // [MQTT-3.2.2-1] (5.0)
        if version.is_strict() && flags > 1 {
            return Err(malformed("a reserved flag bit of the CONNACK is set"));
        }
        let reason = version
            .connack_reason(code)
            .filter(|reason| !version.has_properties() || reason.may_stand_in(Kind::ConnAck, Direction::ToClient))
            .ok_or(protocol_error(Kind::ConnAck.texts().reason_unknown))?;
        let session_present = version.tells_session_present() && flags == 1;
        // [MQTT-3.2.2-4] (3.1.1) [MQTT-3.2.2-6] (5.0)
        if session_present && reason != ReasonCode::Success {
            return Err(protocol_error("the CONNACK refuses the connection with Session Present"));
        }
        let properties = Properties::decode(reader, Kind::ConnAck, version, Direction::ToClient)?;
        Ok(ConnAck { session_present, reason, properties })
    }

    /// Session Present is written as 0 with a refusal, and in 3.1. [MQTT-3.2.2-4] (3.1.1) [MQTT-3.2.2-6] (5.0)
    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let Some(code) = version.connack_code(self.reason) else { return };
        let session_present = self.session_present && code == 0 && version.tells_session_present();
        put_frame(out, Kind::ConnAck, |out| {
            out.push(u8::from(session_present));
            out.push(code);
            put_properties(out, version, self.properties);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::*;

    fn encoded(session_present: bool, reason: ReasonCode, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        Packet::ConnAck(ConnAck { session_present, reason, properties: Properties::EMPTY }).encode(version, &mut out);
        out
    }

    #[test]
    fn v311_mqtt_3_2_2_4_v5_mqtt_3_2_2_6_a_refusal_has_no_session_present() {
        assert_eq!(encoded(true, ReasonCode::Success, Version::V311), [0x20, 2, 1, 0]);
        assert_eq!(encoded(true, ReasonCode::NotAuthorized, Version::V311), [0x20, 2, 0, 5]);
        assert_eq!(encoded(true, ReasonCode::Success, Version::V5), [0x20, 3, 1, 0, 0]);
        assert_eq!(encoded(true, ReasonCode::NotAuthorized, Version::V5), [0x20, 3, 0, 0x87, 0]);
        assert_eq!(encoded(true, ReasonCode::Success, Version::V31), [0x20, 2, 0, 0]);
    }

    #[test]
    fn v311_mqtt_3_2_2_6_a_reason_without_a_code_is_not_written() {
        assert_eq!(encoded(false, ReasonCode::MalformedPacket, Version::V311), []);
    }
}
