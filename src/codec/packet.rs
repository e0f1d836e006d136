//! The packets of all versions, as structures that borrow from the bytes they were decoded from.

use super::{Properties, ReasonCode, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
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
pub fn split_frame(_bytes: &[u8], _max_packet_size: u32) -> Result<Split, DecodeError> {
    todo!()
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
pub fn decode(
    _first_byte: u8,
    _body: &[u8],
    _version: Version,
    _direction: Direction,
) -> Result<Packet<'_>, DecodeError> {
    todo!()
}

impl Packet<'_> {
    /// Appends the packet as `version` writes it (CONNECT as its own version).
    pub fn encode(&self, _version: Version, _out: &mut Vec<u8>) {
        todo!()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    pub version: Version,
    /// Bit 7 of the protocol level was set: a Mosquitto bridge (3.1 and 3.1.1 only).
    pub bridge: bool,
    /// Clean Session of 3.x, Clean Start of 5.0.
    pub clean_start: bool,
    /// Seconds the session outlives its connection; u32::MAX = for ever. 3.x: 0 with Clean Session, else u32::MAX.
    pub session_expiry_s: u32,
    pub keep_alive_s: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: Properties<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: Properties<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    pub session_present: bool,
    /// `encode` maps it for 3.x with `Version::connack_code`.
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Valid UTF-8 without U+0000; wildcards and emptiness are judged by the broker.
    pub topic: &'a str,
    /// 0 for QoS 0.
    pub packet_id: u16,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

/// Everything of an outgoing PUBLISH but its payload, for the message path.
#[derive(Clone, Copy, Debug)]
pub struct PublishHeader<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a str,
    pub packet_id: u16,
    /// Raw properties of this hop (alias, expiry, subscription ids). Nothing in 3.x.
    pub hop_properties: &'a [u8],
    /// Raw properties forwarded unchanged. Not written in 3.x.
    pub properties: &'a [u8],
    pub payload_len: usize,
}

impl PublishHeader<'_> {
    /// Bytes of the whole packet, payload included.
    pub fn packet_len(&self, _version: Version) -> usize {
        todo!()
    }

    /// Appends everything up to the payload.
    pub fn encode(&self, _version: Version, _out: &mut Vec<u8>) {
        todo!()
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    pub packet_id: u16,
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    pub packet_id: u16,
    pub properties: Properties<'a>,
    /// The payload: filters with options, checked when decoded (UTF-8, option bits; not the filter's grammar).
    pub payload: &'a [u8],
}

impl<'a> Subscribe<'a> {
    pub fn filters(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> {
        std::iter::empty()
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    pub packet_id: u16,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    pub fn filters(&self) -> impl Iterator<Item = &'a str> {
        std::iter::empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}
