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
    /// Packets carry properties and reason codes.
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

    /// The return code of CONNACK for `reason`, or nothing where the version has none and the connection is just
    /// closed. [MQTT-3.2.2-6] (3.1.1)
    pub fn connack_code(self, reason: ReasonCode) -> Option<u8> {
        todo!("{reason:?}")
    }

    /// The return code of SUBACK for `reason`. 3.1 clients do not know the failure code 0x80.
    pub fn suback_code(self, reason: ReasonCode) -> u8 {
        todo!("{reason:?}")
    }
}
