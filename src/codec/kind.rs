//! The packet types, and what is said about each when it is wrong. Knows no version and no bytes but the type's own.

use super::{DecodeError, Direction, ReasonCode};

/// A packet type with its number in the fixed header. Number 0, which no packet has, stands for the Will inside a
/// CONNECT: it has properties of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Will = 0,
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// Sets of packet types, one bit each, for the tables of properties and reason codes.
pub(super) const WILL: u16 = Kind::Will.bit();
pub(super) const CONNECT: u16 = Kind::Connect.bit();
pub(super) const CONNACK: u16 = Kind::ConnAck.bit();
pub(super) const PUBLISH: u16 = Kind::Publish.bit();
pub(super) const PUBACK: u16 = Kind::PubAck.bit();
pub(super) const PUBREC: u16 = Kind::PubRec.bit();
pub(super) const PUBREL: u16 = Kind::PubRel.bit();
pub(super) const PUBCOMP: u16 = Kind::PubComp.bit();
pub(super) const SUBSCRIBE: u16 = Kind::Subscribe.bit();
pub(super) const SUBACK: u16 = Kind::SubAck.bit();
pub(super) const UNSUBSCRIBE: u16 = Kind::Unsubscribe.bit();
pub(super) const UNSUBACK: u16 = Kind::UnsubAck.bit();
pub(super) const PINGREQ: u16 = Kind::PingReq.bit();
pub(super) const PINGRESP: u16 = Kind::PingResp.bit();
pub(super) const DISCONNECT: u16 = Kind::Disconnect.bit();
pub(super) const AUTH: u16 = Kind::Auth.bit();

const FROM_CLIENT: u16 = CONNECT | SUBSCRIBE | UNSUBSCRIBE | PINGREQ;
const FROM_SERVER: u16 = CONNACK | SUBACK | UNSUBACK | PINGRESP;

impl Kind {
    /// Nothing for the reserved type 0.
    #[inline]
    pub(super) fn of(first_byte: u8) -> Option<Kind> {
        Some(match first_byte >> 4 {
            1 => Kind::Connect,
            2 => Kind::ConnAck,
            3 => Kind::Publish,
            4 => Kind::PubAck,
            5 => Kind::PubRec,
            6 => Kind::PubRel,
            7 => Kind::PubComp,
            8 => Kind::Subscribe,
            9 => Kind::SubAck,
            10 => Kind::Unsubscribe,
            11 => Kind::UnsubAck,
            12 => Kind::PingReq,
            13 => Kind::PingResp,
            14 => Kind::Disconnect,
            15 => Kind::Auth,
            _ => return None,
        })
    }

    pub(super) const fn bit(self) -> u16 {
        1 << self as u8
    }

    pub(super) fn is_in(self, kinds: u16) -> bool {
        kinds & self.bit() != 0
    }

    /// The first byte of the fixed header with the flags the standard reserves. [MQTT-2.2.2-1] (3.1.1) [MQTT-2.1.3-1]
    pub(super) fn first_byte(self) -> u8 {
        let flags = if self.is_in(PUBREL | SUBSCRIBE | UNSUBSCRIBE) { 0b0010 } else { 0 };
        (self as u8) << 4 | flags
    }

    /// Whether only the other side may send this packet type.
    pub(super) fn goes_against(self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.is_in(FROM_SERVER),
            Direction::ToClient => self.is_in(FROM_CLIENT),
        }
    }

    pub(super) fn texts(self) -> &'static Texts {
        &TEXTS[self as usize]
    }
}

pub(super) const fn malformed(what: &'static str) -> DecodeError {
    DecodeError { reason: ReasonCode::MalformedPacket, what }
}

pub(super) const fn protocol_error(what: &'static str) -> DecodeError {
    DecodeError { reason: ReasonCode::ProtocolError, what }
}

/// What may be wrong with any packet of a type.
pub(super) struct Texts {
    pub flags: &'static str,
    pub wrong_way: &'static str,
    pub packet_id_cut: &'static str,
    pub packet_id_zero: &'static str,
    pub reason_cut: &'static str,
    pub reason_unknown: &'static str,
    pub property_length: &'static str,
    pub properties_cut: &'static str,
    pub property_unknown: &'static str,
    pub leftover: &'static str,
    pub empty: &'static str,
}

macro_rules! texts {
    ($name:literal) => {
        Texts {
            flags: concat!("the fixed header flags of the ", $name, " are not the reserved ones"),
            wrong_way: concat!("a ", $name, " is not for this side of the connection"),
            packet_id_cut: concat!("the ", $name, " ends before its Packet Identifier"),
            packet_id_zero: concat!("the Packet Identifier of the ", $name, " is 0"),
            reason_cut: concat!("the ", $name, " ends before its Reason Code"),
            reason_unknown: concat!("a Reason Code of the ", $name, " is not one that may stand there"),
            property_length: concat!("the Property Length of the ", $name, " is missing, padded or too long"),
            properties_cut: concat!("the properties of the ", $name, " are longer than the packet"),
            property_unknown: concat!("a property of the ", $name, " is unknown or not allowed there"),
            leftover: concat!("the ", $name, " goes on after its last field"),
            empty: concat!("the ", $name, " has an empty list as payload"),
        }
    };
}

/// By `Kind`.
static TEXTS: [Texts; 16] = [
    texts!("Will"),
    texts!("CONNECT"),
    texts!("CONNACK"),
    texts!("PUBLISH"),
    texts!("PUBACK"),
    texts!("PUBREC"),
    texts!("PUBREL"),
    texts!("PUBCOMP"),
    texts!("SUBSCRIBE"),
    texts!("SUBACK"),
    texts!("UNSUBSCRIBE"),
    texts!("UNSUBACK"),
    texts!("PINGREQ"),
    texts!("PINGRESP"),
    texts!("DISCONNECT"),
    texts!("AUTH"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_number_but_0_is_a_kind_and_has_its_own_texts() {
        assert_eq!(Kind::of(0x0F), None);
        for number in 1..16u8 {
            let kind = Kind::of(number << 4 | 0x0F).unwrap();
            assert_eq!(kind as u8, number);
            let name = format!("{kind:?}").to_uppercase();
            assert!(kind.texts().flags.contains(&name), "{name}");
        }
        assert!(Kind::Will.texts().property_unknown.contains("Will"));
    }

    #[test]
    fn v311_mqtt_2_2_2_1_v5_mqtt_2_1_3_1_reserved_flags() {
        for number in 1..16u8 {
            let expected = if [6, 8, 10].contains(&number) { 2 } else { 0 };
            assert_eq!(Kind::of(number << 4).unwrap().first_byte(), number << 4 | expected);
        }
    }
}
