//! Every behavioural difference between 3.1, 3.1.1 and 5.0 as one named method. Outside `codec` nobody compares
//! versions.

use super::ReasonCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1, protocol name `MQIsdp`, level 3.
    V31,
    /// 3.1.1, level 4.
    V311,
    /// 5.0, level 5.
    V5,
}

impl Version {
    /// Protocol Level of CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Version::V31 => 3,
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        }
    }

    /// Protocol Name of CONNECT.
    pub fn protocol_name(self) -> &'static str {
        match self {
            Version::V31 => "MQIsdp",
            Version::V311 | Version::V5 => "MQTT",
        }
    }

    /// Packets carry properties and reason codes.
    #[inline]
    pub fn has_properties(self) -> bool {
        self == Version::V5
    }

    /// A server may say why it closes. [MQTT-3.14.0-1] (5.0)
    pub fn server_may_send_disconnect(self) -> bool {
        self == Version::V5
    }

    /// Unacknowledged messages are sent again on a live connection; 5.0 forbids it. [MQTT-4.4.0-1] (5.0)
    pub fn retransmits_while_connected(self) -> bool {
        self != Version::V5
    }

    /// Session Present exists in CONNACK.
    pub fn tells_session_present(self) -> bool {
        self != Version::V31
    }

    /// A malformed CONNECT may be answered before the link is closed. [MQTT-3.1.4-1] (3.1.1 forbids it)
    pub fn answers_malformed_connect(self) -> bool {
        self == Version::V5
    }

    /// The server may set another keep-alive than the client asked for. [MQTT-3.1.2-21] (5.0)
    pub fn has_server_keep_alive(self) -> bool {
        self == Version::V5
    }

    /// CONNACK limits the QoS 1 and 2 messages a client may have open. [MQTT-3.3.4-7] (5.0)
    pub fn has_receive_maximum(self) -> bool {
        self == Version::V5
    }

    /// A client may leave its id to the server: not in 3.1, in 3.1.1 with Clean Session only. [MQTT-3.1.3-8] (3.1.1)
    pub fn may_omit_client_id(self, clean_start: bool) -> bool {
        match self {
            Version::V31 => false,
            Version::V311 => clean_start,
            Version::V5 => true,
        }
    }

    /// Flags and lists are judged as 3.1.1 and 5.0 demand. 3.1 left them open: reserved bits are ignored, a DUP bit
    /// may stand in SUBSCRIBE, UNSUBSCRIBE and PUBREL, lists may be empty, credentials may be missing.
    pub(super) fn is_strict(self) -> bool {
        self != Version::V31
    }

    /// CONNECT may have a password without a user name. [MQTT-3.1.2-19] (5.0)
    pub(super) fn allows_password_alone(self) -> bool {
        self == Version::V5
    }

    /// The return code of CONNACK for `reason`, or nothing where the version has none and the connection is just
    /// closed. [MQTT-3.2.2-6] (3.1.1)
    pub fn connack_code(self, reason: ReasonCode) -> Option<u8> {
        if self == Version::V5 {
            return Some(reason as u8);
        }
        Some(match reason {
            ReasonCode::Success => 0,
            ReasonCode::UnsupportedProtocolVersion => 1,
            ReasonCode::ClientIdentifierNotValid => 2,
            ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::QuotaExceeded
            | ReasonCode::ConnectionRateExceeded => 3,
            ReasonCode::BadUserNameOrPassword => 4,
            ReasonCode::NotAuthorized | ReasonCode::Banned | ReasonCode::BadAuthenticationMethod => 5,
            _ => return None,
        })
    }

    /// The reason a return code of CONNACK stands for; nothing for a code the version does not have.
    pub fn connack_reason(self, code: u8) -> Option<ReasonCode> {
        if self == Version::V5 {
            return ReasonCode::from_u8(code);
        }
        Some(match code {
            0 => ReasonCode::Success,
            1 => ReasonCode::UnsupportedProtocolVersion,
            2 => ReasonCode::ClientIdentifierNotValid,
            3 => ReasonCode::ServerUnavailable,
            4 => ReasonCode::BadUserNameOrPassword,
            5 => ReasonCode::NotAuthorized,
            _ => return None,
        })
    }

    /// The return code of SUBACK for `reason`. 3.1 clients do not know the failure code 0x80.
    pub fn suback_code(self, reason: ReasonCode) -> u8 {
        match self {
            Version::V31 if reason.is_error() => 0x00,
            Version::V311 if reason.is_error() => 0x80,
            _ => reason as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v311_mqtt_3_2_2_6_codes_1_to_5_or_none() {
        for (reason, code) in [
            (ReasonCode::Success, Some(0)),
            (ReasonCode::UnsupportedProtocolVersion, Some(1)),
            (ReasonCode::ClientIdentifierNotValid, Some(2)),
            (ReasonCode::ServerUnavailable, Some(3)),
            (ReasonCode::ServerBusy, Some(3)),
            (ReasonCode::QuotaExceeded, Some(3)),
            (ReasonCode::ConnectionRateExceeded, Some(3)),
            (ReasonCode::BadUserNameOrPassword, Some(4)),
            (ReasonCode::NotAuthorized, Some(5)),
            (ReasonCode::Banned, Some(5)),
            (ReasonCode::BadAuthenticationMethod, Some(5)),
            (ReasonCode::MalformedPacket, None),
            (ReasonCode::ProtocolError, None),
            (ReasonCode::PacketTooLarge, None),
        ] {
            assert_eq!(Version::V31.connack_code(reason), code, "{reason:?}");
            assert_eq!(Version::V311.connack_code(reason), code, "{reason:?}");
            assert_eq!(Version::V5.connack_code(reason), Some(reason as u8));
        }
        for code in 0..=5 {
            let reason = Version::V311.connack_reason(code).unwrap();
            assert_eq!(Version::V311.connack_code(reason), Some(code));
        }
        assert_eq!(Version::V311.connack_reason(6), None);
        assert_eq!(Version::V5.connack_reason(0x8A), Some(ReasonCode::Banned));
        assert_eq!(Version::V5.connack_reason(5), None);
    }

    #[test]
    fn v311_mqtt_3_9_3_2_failures_are_0x80_and_unknown_to_3_1() {
        for version in [Version::V31, Version::V311, Version::V5] {
            assert_eq!(version.suback_code(ReasonCode::GrantedQoS2), 2);
        }
        assert_eq!(Version::V31.suback_code(ReasonCode::NotAuthorized), 0);
        assert_eq!(Version::V311.suback_code(ReasonCode::NotAuthorized), 0x80);
        assert_eq!(Version::V5.suback_code(ReasonCode::NotAuthorized), 0x87);
    }
}
