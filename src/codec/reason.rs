//! The reason codes of 5.0, which serve all versions inside the broker: their names, and who may say which in what
//! packet. Knows nothing of the packets' bytes.

use super::Direction;
use super::kind::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReasonCode {
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWillMessage = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// 0x80 and above say that something was refused or went wrong.
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The standard's name, such as `Packet too large`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    pub fn from_u8(code: u8) -> Option<ReasonCode> {
        ALL.into_iter().find(|&reason| reason as u8 == code)
    }

    /// Whether a packet of `kind` may carry it, sent that way.
    pub(super) fn may_stand_in(self, kind: Kind, direction: Direction) -> bool {
        let facts = self.facts();
        kind.is_in(match direction {
            Direction::ToServer => facts.to_server,
            Direction::ToClient => facts.to_client,
        })
    }

    /// The one table: name, packets of the server, packets of the client.
    fn facts(self) -> Facts {
        match self {
            ReasonCode::Success => {
                facts("Success", CONNACK | ACKS | UNSUBACK | AUTH | DISCONNECT | SUBACK, ACKS | DISCONNECT)
            }
            ReasonCode::GrantedQoS1 => facts("Granted QoS 1", SUBACK, NONE),
            ReasonCode::GrantedQoS2 => facts("Granted QoS 2", SUBACK, NONE),
            ReasonCode::DisconnectWithWillMessage => facts("Disconnect with Will Message", NONE, DISCONNECT),
            // A broker that bridges in is a client, and says this.
            ReasonCode::NoMatchingSubscribers => facts("No matching subscribers", PUBACK | PUBREC, PUBACK | PUBREC),
            ReasonCode::NoSubscriptionExisted => facts("No subscription existed", UNSUBACK, NONE),
            ReasonCode::ContinueAuthentication => facts("Continue authentication", AUTH, AUTH),
            ReasonCode::ReAuthenticate => facts("Re-authenticate", NONE, AUTH),
            ReasonCode::UnspecifiedError => facts(
                "Unspecified error",
                CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT,
                PUBACK | PUBREC | DISCONNECT,
            ),
            ReasonCode::MalformedPacket => facts("Malformed Packet", CONNACK | DISCONNECT, DISCONNECT),
            ReasonCode::ProtocolError => facts("Protocol Error", CONNACK | DISCONNECT, DISCONNECT),
            ReasonCode::ImplementationSpecificError => facts(
                "Implementation specific error",
                CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT,
                PUBACK | PUBREC | DISCONNECT,
            ),
            ReasonCode::UnsupportedProtocolVersion => facts("Unsupported Protocol Version", CONNACK, NONE),
            ReasonCode::ClientIdentifierNotValid => facts("Client Identifier not valid", CONNACK, NONE),
            ReasonCode::BadUserNameOrPassword => facts("Bad User Name or Password", CONNACK, NONE),
            ReasonCode::NotAuthorized => {
                facts("Not authorized", CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT, PUBACK | PUBREC)
            }
            ReasonCode::ServerUnavailable => facts("Server unavailable", CONNACK, NONE),
            ReasonCode::ServerBusy => facts("Server busy", CONNACK | DISCONNECT, NONE),
            ReasonCode::Banned => facts("Banned", CONNACK, NONE),
            ReasonCode::ServerShuttingDown => facts("Server shutting down", DISCONNECT, NONE),
            // Table 2-6 names DISCONNECT, Table 3-10 does not.
            ReasonCode::BadAuthenticationMethod => facts("Bad authentication method", CONNACK | DISCONNECT, DISCONNECT),
            ReasonCode::KeepAliveTimeout => facts("Keep Alive timeout", DISCONNECT, NONE),
            ReasonCode::SessionTakenOver => facts("Session taken over", DISCONNECT, NONE),
            ReasonCode::TopicFilterInvalid => facts("Topic Filter invalid", SUBACK | UNSUBACK | DISCONNECT, NONE),
            ReasonCode::TopicNameInvalid => {
                facts("Topic Name invalid", CONNACK | PUBACK | PUBREC | DISCONNECT, PUBACK | PUBREC | DISCONNECT)
            }
            ReasonCode::PacketIdentifierInUse => {
                facts("Packet Identifier in use", PUBACK | PUBREC | SUBACK | UNSUBACK, PUBACK | PUBREC)
            }
            ReasonCode::PacketIdentifierNotFound => {
                facts("Packet Identifier not found", PUBREL | PUBCOMP, PUBREL | PUBCOMP)
            }
            ReasonCode::ReceiveMaximumExceeded => facts("Receive Maximum exceeded", DISCONNECT, DISCONNECT),
            ReasonCode::TopicAliasInvalid => facts("Topic Alias invalid", DISCONNECT, DISCONNECT),
            ReasonCode::PacketTooLarge => facts("Packet too large", CONNACK | DISCONNECT, DISCONNECT),
            ReasonCode::MessageRateTooHigh => facts("Message rate too high", DISCONNECT, DISCONNECT),
            ReasonCode::QuotaExceeded => {
                facts("Quota exceeded", CONNACK | PUBACK | PUBREC | SUBACK | DISCONNECT, PUBACK | PUBREC | DISCONNECT)
            }
            ReasonCode::AdministrativeAction => facts("Administrative action", DISCONNECT, DISCONNECT),
            ReasonCode::PayloadFormatInvalid => {
                facts("Payload format invalid", CONNACK | PUBACK | PUBREC | DISCONNECT, PUBACK | PUBREC | DISCONNECT)
            }
            ReasonCode::RetainNotSupported => facts("Retain not supported", CONNACK | DISCONNECT, NONE),
            // 3.3.4 lets a client say this of a message it did not ask for.
            ReasonCode::QoSNotSupported => facts("QoS not supported", CONNACK | DISCONNECT, DISCONNECT),
            ReasonCode::UseAnotherServer => facts("Use another server", CONNACK | DISCONNECT, NONE),
            ReasonCode::ServerMoved => facts("Server moved", CONNACK | DISCONNECT, NONE),
            ReasonCode::SharedSubscriptionsNotSupported => {
                facts("Shared Subscriptions not supported", SUBACK | DISCONNECT, NONE)
            }
            ReasonCode::ConnectionRateExceeded => facts("Connection rate exceeded", CONNACK | DISCONNECT, NONE),
            ReasonCode::MaximumConnectTime => facts("Maximum connect time", DISCONNECT, NONE),
            ReasonCode::SubscriptionIdentifiersNotSupported => {
                facts("Subscription Identifiers not supported", SUBACK | DISCONNECT, NONE)
            }
            ReasonCode::WildcardSubscriptionsNotSupported => {
                facts("Wildcard Subscriptions not supported", SUBACK | DISCONNECT, NONE)
            }
        }
    }
}

struct Facts {
    name: &'static str,
    to_client: u16,
    to_server: u16,
}

const fn facts(name: &'static str, to_client: u16, to_server: u16) -> Facts {
    Facts { name, to_client, to_server }
}

const NONE: u16 = 0;
const ACKS: u16 = PUBACK | PUBREC | PUBREL | PUBCOMP;

const ALL: [ReasonCode; 43] = [
    ReasonCode::Success,
    ReasonCode::GrantedQoS1,
    ReasonCode::GrantedQoS2,
    ReasonCode::DisconnectWithWillMessage,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::NoSubscriptionExisted,
    ReasonCode::ContinueAuthentication,
    ReasonCode::ReAuthenticate,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerUnavailable,
    ReasonCode::ServerBusy,
    ReasonCode::Banned,
    ReasonCode::ServerShuttingDown,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::KeepAliveTimeout,
    ReasonCode::SessionTakenOver,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::PacketIdentifierNotFound,
    ReasonCode::ReceiveMaximumExceeded,
    ReasonCode::TopicAliasInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::MessageRateTooHigh,
    ReasonCode::QuotaExceeded,
    ReasonCode::AdministrativeAction,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QoSNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::ConnectionRateExceeded,
    ReasonCode::MaximumConnectTime,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(kind: Kind, direction: Direction) -> Vec<u8> {
        ALL.into_iter().filter(|reason| reason.may_stand_in(kind, direction)).map(|reason| reason as u8).collect()
    }

    #[test]
    fn codes_and_reasons_are_one_to_one() {
        assert_eq!((0..=255).filter_map(ReasonCode::from_u8).count(), ALL.len());
        for reason in ALL {
            assert_eq!(ReasonCode::from_u8(reason as u8), Some(reason));
            assert_eq!(reason.is_error(), reason as u8 >= 0x80);
        }
        assert_eq!(ReasonCode::PacketTooLarge.name(), "Packet too large");
    }

    #[test]
    fn v5_mqtt_3_2_2_8_connack() {
        let expected = [
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A,
            0x9B, 0x9C, 0x9D, 0x9F,
        ];
        assert_eq!(codes(Kind::ConnAck, Direction::ToClient), expected);
    }

    #[test]
    fn v5_mqtt_3_4_2_1_v5_mqtt_3_5_2_1_puback_and_pubrec() {
        let expected = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        for direction in [Direction::ToServer, Direction::ToClient] {
            assert_eq!(codes(Kind::PubAck, direction), expected);
            assert_eq!(codes(Kind::PubRec, direction), expected);
        }
    }

    #[test]
    fn v5_mqtt_3_6_2_1_v5_mqtt_3_7_2_1_pubrel_and_pubcomp() {
        for direction in [Direction::ToServer, Direction::ToClient] {
            assert_eq!(codes(Kind::PubRel, direction), [0x00, 0x92]);
            assert_eq!(codes(Kind::PubComp, direction), [0x00, 0x92]);
        }
    }

    #[test]
    fn v5_mqtt_3_9_3_2_v5_mqtt_3_11_3_2_suback_and_unsuback() {
        let suback = [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
        assert_eq!(codes(Kind::SubAck, Direction::ToClient), suback);
        assert_eq!(codes(Kind::UnsubAck, Direction::ToClient), [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]);
    }

    #[test]
    fn v5_mqtt_3_14_2_1_disconnect() {
        let from_client =
            [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x8C, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9B];
        assert_eq!(codes(Kind::Disconnect, Direction::ToServer), from_client);
        let from_server = [
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
            0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ];
        assert_eq!(codes(Kind::Disconnect, Direction::ToClient), from_server);
    }

    #[test]
    fn v5_mqtt_3_15_2_1_auth() {
        assert_eq!(codes(Kind::Auth, Direction::ToClient), [0x00, 0x18]);
        assert_eq!(codes(Kind::Auth, Direction::ToServer), [0x18, 0x19]);
    }
}
