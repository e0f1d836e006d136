//! SUBSCRIBE and UNSUBSCRIBE with their answers: packets that are lists. The lists stay bytes, checked once.

use super::kind::{Kind, malformed, protocol_error};
use super::reader::{Field, Reader, field};
use super::writer::{put_frame, put_properties, put_string, put_u16};
use super::{DecodeError, Direction, Properties, QoS, ReasonCode, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    Send = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// The options byte. In 3.x all but the QoS are zero.
    pub fn to_u8(self) -> u8 {
        let retain_handling = (self.retain_handling as u8) << 4;
        self.qos as u8 | u8::from(self.no_local) << 2 | u8::from(self.retain_as_published) << 3 | retain_handling
    }

    /// [MQTT-3.8.3-5] (5.0)
    fn from_u8(options: u8) -> Result<SubscribeOptions, DecodeError> {
        if options & 0xC0 != 0 {
            return Err(malformed("a reserved option bit of the SUBSCRIBE is set"));
        }
        let retain_handling = match options >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(protocol_error("the Retain Handling of the SUBSCRIBE is 3; only 0, 1 and 2 exist")),
        };
        let qos = QoS::from_u8(options & 3).ok_or(protocol_error(QOS_3))?;
        let (no_local, retain_as_published) = (options & 4 != 0, options & 8 != 0);
        Ok(SubscribeOptions { qos, no_local, retain_as_published, retain_handling })
    }

    /// 3.x has a QoS there and nothing else. [MQTT-3.8.3-4] (3.1.1)
    fn check_v3(options: u8) -> Result<(), DecodeError> {
        match options {
            0..=2 => Ok(()),
            3 => Err(malformed(QOS_3)),
            _ => Err(malformed("a reserved option bit of the SUBSCRIBE is set")),
        }
    }
}

const QOS_3: &str = "the QoS of the SUBSCRIBE is 3; only 0, 1 and 2 exist";
const OPTIONS_CUT: &str = "the SUBSCRIBE ends before the options of a filter";
static SUBSCRIBE_FILTER: Field = field!("Topic Filter of the SUBSCRIBE");
static UNSUBSCRIBE_FILTER: Field = field!("Topic Filter of the UNSUBSCRIBE");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    pub packet_id: u16,
    pub properties: Properties<'a>,
    /// The payload: filters with options, checked when decoded (UTF-8, option bits; not the filter's grammar).
    pub payload: &'a [u8],
}

impl<'a> Subscribe<'a> {
    pub fn filters(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> + use<'a> {
        let mut reader = Reader::new(self.payload);
        std::iter::from_fn(move || {
            let filter = reader.string(&SUBSCRIBE_FILTER).ok()?;
            let options = SubscribeOptions::from_u8(reader.u8(OPTIONS_CUT).ok()?).ok()?;
            Some((filter, options))
        })
    }

    /// Appends one filter to a `payload`. For 3.x the options are a QoS alone.
    pub fn push_filter(payload: &mut Vec<u8>, filter: &str, options: SubscribeOptions) {
        put_string(payload, filter);
        payload.push(options.to_u8());
    }

    pub(super) fn decode(reader: &mut Reader<'a>, version: Version) -> Result<Subscribe<'a>, DecodeError> {
        let packet_id = reader.packet_id(Kind::Subscribe)?;
        let properties = Properties::decode(reader, Kind::Subscribe, version, Direction::ToServer)?;
        let payload = reader.take_rest();
        check_not_empty(payload, Kind::Subscribe, version)?;
        let mut entries = Reader::new(payload);
        while !entries.is_empty() {
            let filter = entries.string(&SUBSCRIBE_FILTER)?;
            let options = entries.u8(OPTIONS_CUT)?;
            if !version.has_properties() {
                SubscribeOptions::check_v3(options)?;
            } else if SubscribeOptions::from_u8(options)?.no_local && filter.starts_with("$share/") {
                // [MQTT-3.8.3-4] (5.0)
                return Err(protocol_error("a shared subscription of the SUBSCRIBE has No Local"));
            }
        }
        Ok(Subscribe { packet_id, properties, payload })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_list(out, Kind::Subscribe, version, self.packet_id, self.properties, self.payload);
    }
}

/// SUBACK and UNSUBACK. In 3.x UNSUBACK has no codes. The codes are written as they are: the caller maps them
/// with `Version::suback_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    pub packet_id: u16,
    pub properties: Properties<'a>,
    pub codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, kind: Kind, version: Version) -> Result<SubAck<'a>, DecodeError> {
        let packet_id = reader.packet_id(kind)?;
        let properties = Properties::decode(reader, kind, version, Direction::ToClient)?;
        if kind == Kind::UnsubAck && !version.has_properties() {
            return Ok(SubAck { packet_id, properties, codes: &[] });
        }
        let codes = reader.take_rest();
        check_not_empty(codes, kind, version)?;
        if !codes.iter().all(|&code| is_code(code, kind, version)) {
            return Err(protocol_error(kind.texts().reason_unknown));
        }
        Ok(SubAck { packet_id, properties, codes })
    }

    pub(super) fn encode(&self, kind: Kind, version: Version, out: &mut Vec<u8>) {
        let codes = if kind == Kind::UnsubAck && !version.has_properties() { &[] } else { self.codes };
        put_list(out, kind, version, self.packet_id, self.properties, codes);
    }
}

/// [MQTT-3.9.3-2]
fn is_code(code: u8, kind: Kind, version: Version) -> bool {
    if !version.has_properties() {
        return matches!(code, 0 | 1 | 2 | 0x80);
    }
    ReasonCode::from_u8(code).is_some_and(|reason| reason.may_stand_in(kind, Direction::ToClient))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    pub packet_id: u16,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    pub fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.payload);
        std::iter::from_fn(move || reader.string(&UNSUBSCRIBE_FILTER).ok())
    }

    /// Appends one filter to a `payload`.
    pub fn push_filter(payload: &mut Vec<u8>, filter: &str) {
        put_string(payload, filter);
    }

    pub(super) fn decode(reader: &mut Reader<'a>, version: Version) -> Result<Unsubscribe<'a>, DecodeError> {
        let packet_id = reader.packet_id(Kind::Unsubscribe)?;
        let properties = Properties::decode(reader, Kind::Unsubscribe, version, Direction::ToServer)?;
        let payload = reader.take_rest();
        check_not_empty(payload, Kind::Unsubscribe, version)?;
        let mut entries = Reader::new(payload);
        while !entries.is_empty() {
            entries.string(&UNSUBSCRIBE_FILTER)?;
        }
        Ok(Unsubscribe { packet_id, properties, payload })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_list(out, Kind::Unsubscribe, version, self.packet_id, self.properties, self.payload);
    }
}

/// 3.1 clients send SUBSCRIBE without filters. [MQTT-3.8.3-3] (3.1.1) [MQTT-3.8.3-2] (5.0) [MQTT-3.10.3-2]
fn check_not_empty(payload: &[u8], kind: Kind, version: Version) -> Result<(), DecodeError> {
    if payload.is_empty() && version.is_strict() { Err(protocol_error(kind.texts().empty)) } else { Ok(()) }
}

fn put_list(out: &mut Vec<u8>, kind: Kind, version: Version, packet_id: u16, properties: Properties, payload: &[u8]) {
    put_frame(out, kind, |out| {
        put_u16(out, packet_id);
        put_properties(out, version, properties);
        out.extend_from_slice(payload);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_options_byte_is_read_back_or_refused() {
        let mut good = 0;
        for byte in 0..=255 {
            match SubscribeOptions::from_u8(byte) {
                Ok(options) => {
                    assert_eq!(options.to_u8(), byte);
                    good += 1;
                }
                Err(error) if byte & 0xC0 != 0 => assert_eq!(error.reason, ReasonCode::MalformedPacket),
                Err(error) => assert_eq!(error.reason, ReasonCode::ProtocolError),
            }
        }
        assert_eq!(good, 3 * 2 * 2 * 3);
    }

    #[test]
    fn filters_are_written_and_read_in_order() {
        let (qos, retain_handling) = (QoS::AtLeastOnce, RetainHandling::SendIfNew);
        let options = SubscribeOptions { qos, no_local: true, retain_as_published: false, retain_handling };
        let mut payload = Vec::new();
        Subscribe::push_filter(&mut payload, "a/#", options);
        Subscribe::push_filter(&mut payload, "", options);
        assert_eq!(payload, *b"\x00\x03a/#\x15\x00\x00\x15");
        let subscribe = Subscribe { packet_id: 1, properties: Properties::EMPTY, payload: &payload };
        assert_eq!(subscribe.filters().collect::<Vec<_>>(), [("a/#", options), ("", options)]);
        let mut payload = Vec::new();
        Unsubscribe::push_filter(&mut payload, "a/#");
        Unsubscribe::push_filter(&mut payload, "b");
        let unsubscribe = Unsubscribe { packet_id: 1, properties: Properties::EMPTY, payload: &payload };
        assert_eq!(unsubscribe.filters().collect::<Vec<_>>(), ["a/#", "b"]);
    }

    #[test]
    fn a_list_that_was_never_checked_ends_at_the_first_impossible_byte() {
        let subscribe = Subscribe { packet_id: 1, properties: Properties::EMPTY, payload: b"\x00\x01a\x00\x00\x09b" };
        assert_eq!(subscribe.filters().count(), 1);
        let unsubscribe = Unsubscribe { packet_id: 1, properties: Properties::EMPTY, payload: b"\x00\x01a\x00" };
        assert_eq!(unsubscribe.filters().count(), 1);
    }
}
