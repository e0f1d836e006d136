//! What happened, as facts with the span of time in which they took effect. The broker may let packets of a paused link
//! wait, so some facts are known to lie between two moments only; then the model demands less, never more, than is true.

use std::collections::{BTreeMap, HashMap, VecDeque};

use midge::codec::{Properties, PropertiesBuf, Property, PublishHeader, QoS, RetainHandling, Version};

/// Moments are numbered: one for each packet that arrives and each call of the broker that ends.
pub type Moment = u64;

pub const UNKNOWN: Moment = u64::MAX;

/// Took effect not before `from` and not after `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Moment,
    pub to: Moment,
}

impl Span {
    pub fn at(moment: Moment) -> Span {
        Span { from: moment, to: moment }
    }

    pub fn is_surely_before(self, other: Span) -> bool {
        self.to < other.from
    }

    pub fn may_be_before(self, other: Span) -> bool {
        self.from <= other.to
    }
}

/// An application message, made once by a client.
pub struct Message {
    /// Index of the publishing client.
    pub publisher: usize,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub len: usize,
    pub expiry_s: Option<u32>,
    pub has_user_property: bool,
    pub is_will: bool,
}

pub const MARK: u8 = 0xA5;
const HEAD: usize = 5;

/// The payload of message `id`: the id, a mark, and a filling that few others have.
pub fn payload(id: u32, len: usize) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    let mut payload = id.to_be_bytes().to_vec();
    payload.push(MARK);
    payload.resize(len.max(HEAD), (id.wrapping_mul(31) >> 3) as u8);
    payload
}

pub fn payload_len(len: usize) -> usize {
    if len == 0 { 0 } else { len.max(HEAD) }
}

/// The id in a payload; nothing if it is not one of ours.
pub fn id_of(payload: &[u8]) -> Option<u32> {
    let head = payload.get(..HEAD)?;
    (head[4] == MARK).then(|| u32::from_be_bytes([head[0], head[1], head[2], head[3]]))
}

/// One handling of a message by the broker. A QoS 1 message that its publisher sent again has several.
pub struct Instance {
    pub message: u32,
    pub span: Span,
    /// Milliseconds, as `span`.
    pub from_ms: u64,
    pub to_ms: u64,
    /// The broker handled it for certain.
    pub is_sure: bool,
    /// The session that published it; nothing for a will.
    pub session: Option<usize>,
    /// The broker may not forward it: too large, or not allowed.
    pub is_refused: bool,
    /// What a 5.0 publisher was told: somebody gets it, or nobody.
    pub has_recipients: Option<bool>,
}

/// What identifies a message at a subscriber: payloads of no bytes have nothing that tells them apart but their topic.
pub type Key = Option<u32>;

/// A subscription, from a SUBSCRIBE to its replacement or end.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub full: String,
    pub share: Option<String>,
    pub filter: String,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
    /// 0 = none.
    pub id: u32,
    pub on: Span,
    pub off: Option<Span>,
    /// The request that began or ended it may have been lost with its link.
    pub is_vague: bool,
}

impl Subscription {
    /// Whether it may have been there when the instance was handled.
    pub fn may_see(&self, span: Span) -> bool {
        self.on.may_be_before(span) && self.off.is_none_or(|off| span.may_be_before(off))
    }

    /// Whether it was there for certain.
    pub fn must_see(&self, span: Span) -> bool {
        self.on.is_surely_before(span) && self.off.is_none_or(|off| span.is_surely_before(off))
    }
}

/// A time in which a message for a session may be lost to a full queue.
pub struct Gap {
    pub from: Moment,
    pub to: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Sent,
    /// PUBREC arrived.
    Received,
    Done,
}

/// A QoS 1 or 2 PUBLISH of the broker, by packet id.
pub struct Exchange {
    pub key: Key,
    pub qos: u8,
    pub retain: bool,
    pub stage: Stage,
    /// The connection it was last sent on.
    pub conn: usize,
    pub sent_ms: u64,
    /// PUBRECs that are not answered yet.
    pub releases_due: usize,
    /// An acknowledgement arrived that the broker may not have handled.
    pub is_unsure: bool,
}

/// A first delivery, as the client saw it.
#[derive(Debug)]
pub struct Seen {
    pub key: Key,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub subscription_ids: Vec<u32>,
    pub expiry_s: Option<u32>,
    pub dup: bool,
    /// When the broker wrote it.
    pub moment: Moment,
    pub ms: u64,
}

pub struct Will {
    pub message: u32,
    pub delay_s: u32,
}

/// A session of the broker, from the CONNECT that made it to its end.
pub struct Session {
    pub client: usize,
    pub version: Version,
    pub ended: Option<Span>,
    pub conn: Option<usize>,
    pub expiry_s: u32,
    pub expires_ms: u64,
    pub will: Option<Will>,
    pub will_ms: u64,
    pub packet_size_max: Option<u32>,
    pub subscriptions: Vec<Subscription>,
    pub gaps: Vec<Gap>,
    /// Moments from which the session had its present link; older links before.
    pub links: Vec<(usize, Moment)>,
    /// QoS 2 packet ids of the client that are not released, with their instance.
    pub received: HashMap<u16, usize>,
    pub exchanges: BTreeMap<u16, Exchange>,
    pub seen: Vec<Seen>,
}

impl Session {
    pub fn new(client: usize, version: Version) -> Session {
        Session {
            client,
            version,
            ended: None,
            conn: None,
            expiry_s: 0,
            expires_ms: u64::MAX,
            will: None,
            will_ms: u64::MAX,
            packet_size_max: None,
            subscriptions: Vec::new(),
            gaps: Vec::new(),
            links: Vec::new(),
            received: HashMap::new(),
            exchanges: BTreeMap::new(),
            seen: Vec::new(),
        }
    }

    pub fn open_gap(&mut self, from: Moment) {
        if self.gaps.last().is_none_or(|gap| gap.to != UNKNOWN) {
            self.gaps.push(Gap { from, to: UNKNOWN });
        }
    }

    pub fn close_gap(&mut self, to: Moment) {
        if let Some(gap) = self.gaps.last_mut().filter(|gap| gap.to == UNKNOWN) {
            gap.to = to;
        }
    }

    /// Whether the session was offline, stalled or deaf at some time in the span.
    pub fn has_gap(&self, span: Span) -> bool {
        self.gaps.iter().any(|gap| gap.from <= span.to && span.from <= gap.to)
    }
}

/// What a packet that arrived does once it is handled.
pub enum Effect {
    Publish(usize),
    /// Subscriptions that begin, and those they replace: indices in the session.
    Subscribe(Vec<usize>, Vec<usize>),
    Unsubscribe(Vec<usize>),
    Acknowledge(u16),
    Other,
}

/// A packet the broker has, but may not have handled yet.
pub struct Pending {
    pub moment: Moment,
    pub packet_id: u16,
    pub effect: Effect,
}

/// A connection as the model sees it, at the broker's edge.
pub struct Link {
    pub client: Option<usize>,
    pub version: Version,
    pub session: Option<usize>,
    pub is_open: bool,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    pub pending: Vec<Pending>,
    /// Packets arrived and not handled; `is_exact` says whether the number can be trusted.
    pub unhandled: i64,
    pub is_exact: bool,
    pub opened_ms: u64,
    pub received_ms: u64,
    /// Bytes the link took since it may be stalled.
    pub taken: usize,
    pub keep_alive_s: u16,
    pub packet_size_max: Option<u32>,
    pub window: usize,
    pub alias_maximum: u16,
    /// Aliases of the client.
    pub aliases_in: HashMap<u16, String>,
    /// Aliases of the broker.
    pub aliases_out: HashMap<u16, String>,
    /// When each packet the client has not read yet was written.
    pub written: VecDeque<(Moment, u64)>,
    /// DISCONNECT arrived: whether it keeps the will, and its Session Expiry Interval.
    pub disconnect: Option<(bool, Option<u32>)>,
    pub is_connack_due: Option<bool>,
    /// SUBACK and UNSUBACK codes that are due.
    pub codes_due: HashMap<u16, Vec<u8>>,
    /// QoS 1 and 2 packet ids of the client whose PUBACK or PUBREC is due.
    pub acks_due: Vec<(u16, usize)>,
    pub is_seen_closing: bool,
    /// What it sends is not read now.
    pub is_deaf: bool,
    pub may_be_stalled: bool,
}

impl Link {
    pub fn new(client: Option<usize>, now_ms: u64) -> Link {
        Link {
            client,
            version: Version::V311,
            session: None,
            is_open: true,
            input: Vec::new(),
            output: Vec::new(),
            pending: Vec::new(),
            unhandled: 0,
            is_exact: true,
            opened_ms: now_ms,
            received_ms: now_ms,
            taken: 0,
            keep_alive_s: 0,
            packet_size_max: None,
            window: usize::MAX,
            alias_maximum: 0,
            aliases_in: HashMap::new(),
            aliases_out: HashMap::new(),
            written: VecDeque::new(),
            disconnect: None,
            is_connack_due: None,
            codes_due: HashMap::new(),
            acks_due: Vec::new(),
            is_seen_closing: false,
            is_deaf: false,
            may_be_stalled: false,
        }
    }
}

/// Bytes of the PUBLISH packet that brings the message to a 5.0 client, before any topic alias.
pub fn packet_len(message: &Message, qos: u8, ids: &[u32], client_name: &str) -> usize {
    let mut hop = PropertiesBuf::default();
    if message.expiry_s.is_some() {
        hop.push(Property::MessageExpiryInterval(1));
    }
    ids.iter().for_each(|&id| hop.push(Property::SubscriptionIdentifier(id)));
    let mut own = PropertiesBuf::default();
    if message.has_user_property {
        own.push(Property::UserProperty("from", client_name));
    }
    let own: Properties = own.as_properties();
    let header = PublishHeader {
        dup: false,
        qos: QoS::from_u8(qos).unwrap_or(QoS::AtMostOnce),
        retain: false,
        topic: message.topic.as_bytes(),
        packet_id: 1,
        hop_properties: hop.as_properties().as_bytes(),
        properties: own.as_bytes(),
        payload_len: message.len,
    };
    header.packet_len(Version::V5)
}

/// Topic matching of the standard, written a second time: level by level, and wildcards first never match '$'. [MQTT-4.7.2-1]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('#') || filter.starts_with('+')) {
        return false;
    }
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([one, filter @ ..], [other, topic @ ..]) => one == other && levels(filter, topic),
            _ => false,
        }
    }
    let (filter, topic): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    levels(&filter, &topic)
}
