//! A correct MQTT client, written from the standard: its session state, packet ids, acknowledgements, retransmission on
//! reconnect, QoS 2 without repeats. It appends bytes to `out` and reports what it received.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use midge::codec::{
    Ack, Connect, Direction, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish, QoS, ReasonCode,
    RetainHandling, Split, Subscribe, SubscribeOptions, Unsubscribe, Version, Will, decode, split_frame,
};

use super::held::Held;
use super::ledger::{Key, Message, Seen, id_of, payload, payload_len};
use super::model::Model;
use super::plan::Profile;
use super::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Down,
    /// CONNECT is on its way.
    Connecting,
    Up,
    /// DISCONNECT was sent.
    Leaving,
}

/// A message on its way to the broker.
struct Outgoing {
    packet_id: u16,
    message: u32,
    qos: u8,
    is_released: bool,
}

pub struct Client {
    pub index: usize,
    pub profile: Profile,
    pub state: State,
    pub conn: Option<usize>,
    /// Bytes the socket did not take yet.
    pub out: Vec<u8>,
    input: Vec<u8>,
    /// Acknowledgements that are held back.
    held: Held,
    pub stalled_until_ms: u64,
    pub is_silent: bool,
    pub last_sent_ms: u64,
    // The session.
    session: Option<usize>,
    inflight: VecDeque<Outgoing>,
    received: BTreeSet<u16>,
    /// The last QoS 1 message of each packet id.
    last_qos1: HashMap<u16, (Key, String)>,
    next_packet_id: u16,
    /// Packet ids of SUBSCRIBE and UNSUBSCRIBE without answer.
    requests: BTreeSet<u16>,
    pub filters: BTreeMap<String, ()>,
    // The connection.
    receive_maximum: usize,
    alias_maximum: u16,
    aliases: HashMap<String, u16>,
    broker_aliases: HashMap<u16, String>,
    is_expiry_zero: bool,
}

/// What a new message is to be.
pub struct Draft {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub len: usize,
    pub expiry_s: Option<u32>,
}

impl Client {
    pub fn new(index: usize, profile: Profile) -> Client {
        Client {
            index,
            profile,
            state: State::Down,
            conn: None,
            out: Vec::new(),
            input: Vec::new(),
            held: Held::default(),
            stalled_until_ms: 0,
            is_silent: false,
            last_sent_ms: 0,
            session: None,
            inflight: VecDeque::new(),
            received: BTreeSet::new(),
            last_qos1: HashMap::new(),
            next_packet_id: 1,
            requests: BTreeSet::new(),
            filters: BTreeMap::new(),
            receive_maximum: 0,
            alias_maximum: 0,
            aliases: HashMap::new(),
            broker_aliases: HashMap::new(),
            is_expiry_zero: true,
        }
    }

    fn is_5(&self) -> bool {
        self.profile.version == Version::V5
    }

    /// Nothing of its own is under way.
    pub fn is_settled(&self) -> bool {
        self.out.is_empty() && self.held.is_empty() && self.inflight.is_empty() && self.requests.is_empty()
    }

    fn send(&mut self, packet: &Packet) {
        packet.encode(self.profile.version, &mut self.out);
    }

    fn packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = if id == u16::MAX { 1 } else { id + 1 };
            if !self.requests.contains(&id) && self.inflight.iter().all(|it| it.packet_id != id) {
                return id;
            }
        }
    }

    /// Begins a connection, giving up the present one.
    pub fn connect(&mut self, conn: usize, is_clean: bool, will: Option<Draft>, delay_s: u32, model: &mut Model) {
        self.conn = Some(conn);
        self.state = State::Connecting;
        (self.stalled_until_ms, self.is_silent, self.last_sent_ms) = (0, false, model.now_ms);
        self.out.clear();
        self.input.clear();
        self.held.clear();
        self.requests.clear();
        self.aliases.clear();
        self.broker_aliases.clear();
        // 3.x cannot end a stored session in any other way.
        let clean_start = is_clean || !self.profile.is_durable;
        let mut properties = PropertiesBuf::default();
        let profile = self.profile.clone();
        if self.is_5() {
            let expiry_s = if is_clean { 0 } else { profile.expiry_s };
            self.is_expiry_zero = expiry_s == 0;
            if expiry_s > 0 {
                properties.push(Property::SessionExpiryInterval(expiry_s));
            }
            if let Some(maximum) = profile.receive_maximum {
                properties.push(Property::ReceiveMaximum(maximum));
            }
            if let Some(maximum) = profile.packet_size_max {
                properties.push(Property::MaximumPacketSize(maximum));
            }
            if profile.alias_maximum > 0 {
                properties.push(Property::TopicAliasMaximum(profile.alias_maximum));
            }
        }
        let (mut will_properties, mut will_payload) = (PropertiesBuf::default(), Vec::new());
        if let Some(draft) = &will {
            let id = self.new_message(draft, true, model);
            will_payload = payload(id, draft.len.max(1));
            if self.is_5() && delay_s > 0 {
                will_properties.push(Property::WillDelayInterval(delay_s));
            }
            if let Some(expiry_s) = draft.expiry_s {
                will_properties.push(Property::MessageExpiryInterval(expiry_s));
            }
        }
        let will = will.as_ref().map(|draft| Will {
            qos: Model::qos(draft.qos),
            retain: draft.retain,
            topic: &draft.topic,
            payload: &will_payload,
            properties: will_properties.as_properties(),
        });
        let connect = Connect {
            version: profile.version,
            bridge: false,
            clean_start,
            session_expiry_s: 0,
            keep_alive_s: profile.keep_alive_s,
            client_id: &profile.id,
            will,
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        model.note(|| format!("{} > CONNECT on conn {conn}, clean {clean_start}, will {}", profile.id, will.is_some()));
        self.send(&Packet::Connect(connect));
    }

    /// A session that CONNECT did not want to last cannot be made to. [MQTT-3.14.2-2]
    pub fn may_change_expiry(&self) -> bool {
        self.profile.expiry_s > 0 && !self.is_expiry_zero
    }

    fn forget_session(&mut self) {
        self.inflight.clear();
        self.received.clear();
        self.last_qos1.clear();
        self.filters.clear();
    }

    fn new_message(&self, draft: &Draft, is_will: bool, model: &mut Model) -> u32 {
        let has_user_property = !is_will && self.is_5() && model.messages.len().is_multiple_of(3);
        model.message(Message {
            publisher: self.index,
            topic: draft.topic.clone(),
            qos: draft.qos,
            retain: draft.retain,
            len: payload_len(if is_will { draft.len.max(1) } else { draft.len }),
            expiry_s: draft.expiry_s,
            has_user_property,
            is_will,
        })
    }

    /// Room for one more QoS 1 or 2 message. [MQTT-3.3.4-7]
    pub fn has_quota(&self) -> bool {
        self.inflight.len() < self.receive_maximum
    }

    pub fn publish(&mut self, draft: &Draft, model: &mut Model) {
        let message = self.new_message(draft, false, model);
        let mut packet_id = 0;
        if draft.qos > 0 {
            packet_id = self.packet_id();
            self.inflight.push_back(Outgoing { packet_id, message, qos: draft.qos, is_released: false });
        }
        self.send_publish(message, packet_id, false, model);
    }

    fn send_publish(&mut self, id: u32, packet_id: u16, dup: bool, model: &mut Model) {
        let message = &model.messages[id as usize];
        let (topic, qos, retain, len) = (message.topic.clone(), message.qos, message.retain, message.len);
        let mut properties = PropertiesBuf::default();
        let mut shown: &str = &topic;
        if self.is_5() {
            if let Some(expiry_s) = message.expiry_s {
                properties.push(Property::MessageExpiryInterval(expiry_s));
            }
            if message.has_user_property {
                properties.push(Property::UserProperty("from", &self.profile.id));
            }
            if self.profile.uses_aliases {
                let next = self.aliases.len() as u16 + 1;
                match self.aliases.get(&topic) {
                    Some(&alias) => {
                        properties.push(Property::TopicAlias(alias));
                        shown = "";
                    }
                    None if next <= self.alias_maximum => {
                        properties.push(Property::TopicAlias(next));
                        self.aliases.insert(topic.clone(), next);
                    }
                    None => {}
                }
            }
        }
        if len == 0
            && let Some(conn) = self.conn
        {
            model.empties.entry(conn).or_default().push(id);
        }
        model
            .note(|| format!("{} > PUBLISH id {packet_id} dup {dup} {}", self.profile.id, model_text(&topic, id, qos)));
        let payload = payload(id, len);
        let qos = Model::qos(qos);
        let properties = properties.as_properties();
        let publish = Publish { dup, qos, retain, topic: shown, packet_id, properties, payload: &payload };
        self.send(&Packet::Publish(publish));
    }

    pub fn subscribe(&mut self, filters: &[(String, SubscribeOptions)], id: u32, model: &mut Model) {
        let packet_id = self.packet_id();
        self.requests.insert(packet_id);
        let mut payload = Vec::new();
        for (filter, options) in filters {
            let mut options = *options;
            if !self.is_5() {
                (options.no_local, options.retain_as_published) = (false, false);
                options.retain_handling = RetainHandling::Send;
            }
            Subscribe::push_filter(&mut payload, filter, options);
            self.filters.insert(filter.clone(), ());
            model.note(|| format!("{} > SUBSCRIBE {packet_id} {filter} {options:?} #{id}", self.profile.id));
        }
        let mut properties = PropertiesBuf::default();
        if id != 0 && self.is_5() {
            properties.push(Property::SubscriptionIdentifier(id));
        }
        let properties = properties.as_properties();
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, payload: &payload }));
    }

    pub fn unsubscribe(&mut self, filter: &str, model: &mut Model) {
        let packet_id = self.packet_id();
        self.requests.insert(packet_id);
        self.filters.remove(filter);
        let mut payload = Vec::new();
        Unsubscribe::push_filter(&mut payload, filter);
        model.note(|| format!("{} > UNSUBSCRIBE {packet_id} {filter}", self.profile.id));
        let unsubscribe = Unsubscribe { packet_id, properties: Properties::EMPTY, payload: &payload };
        self.send(&Packet::Unsubscribe(unsubscribe));
    }

    pub fn disconnect(&mut self, reason: ReasonCode, expiry_s: Option<u32>, model: &mut Model) {
        let mut properties = PropertiesBuf::default();
        if let Some(expiry_s) = expiry_s {
            properties.push(Property::SessionExpiryInterval(expiry_s));
        }
        model.note(|| format!("{} > DISCONNECT {reason:?} {expiry_s:?}", self.profile.id));
        self.send(&Packet::Disconnect(Disconnect { reason, properties: properties.as_properties() }));
        self.state = State::Leaving;
        self.held.clear();
    }

    /// PINGREQ when nothing was sent for too long.
    pub fn keep_alive(&mut self, now_ms: u64) {
        let interval_ms = u64::from(self.profile.keep_alive_s) * 700;
        let is_due = interval_ms > 0 && now_ms >= self.last_sent_ms + interval_ms;
        if self.state == State::Up && is_due && !self.is_silent && self.out.is_empty() {
            self.send(&Packet::PingReq);
            self.last_sent_ms = now_ms;
        }
    }

    /// When `keep_alive` has to be asked again.
    pub fn next_ping_ms(&self) -> Option<u64> {
        let interval_ms = u64::from(self.profile.keep_alive_s) * 700;
        (self.state == State::Up && !self.is_silent && interval_ms > 0).then_some(self.last_sent_ms + interval_ms)
    }

    /// Sends some of the acknowledgements that were held back.
    pub fn flush_held(&mut self, count: usize) {
        self.held.flush(count, &mut self.out);
    }

    fn answer(&mut self, packet: &Packet, rng: &mut Rng) {
        let (version, percent) = (self.profile.version, self.profile.hold_percent);
        self.held.answer(packet, version, percent, rng, &mut self.out);
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.conn = None;
        self.state = State::Down;
        self.out.clear();
        self.held.clear();
        self.requests.clear();
    }

    /// Bytes from the broker.
    pub fn receive(&mut self, bytes: &[u8], model: &mut Model, rng: &mut Rng) {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while let Ok(Split::Frame { body, len }) = split_frame(&input[at..], 0) {
            let frame = &input[at..at + len];
            match decode(frame[0], &frame[body..], self.profile.version, Direction::ToClient) {
                Ok(packet) => self.handle(packet, model, rng),
                Err(error) => model.fail(format!("{} got nonsense: {error}", self.profile.id)),
            }
            at += len;
        }
        input.drain(..at);
        self.input = input;
    }

    fn handle(&mut self, packet: Packet, model: &mut Model, rng: &mut Rng) {
        let name = &self.profile.id;
        let Some(conn) = self.conn else { return };
        let written = model.links[conn].written.pop_front().unwrap_or_default();
        let success = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
        match packet {
            Packet::ConnAck(connack) if self.state == State::Connecting => {
                self.state = State::Up;
                let find = |wanted: fn(Property) -> Option<u16>| connack.properties.find(wanted);
                let receive_maximum = find(|property| match property {
                    Property::ReceiveMaximum(maximum) => Some(maximum),
                    _ => None,
                });
                let alias_maximum = find(|property| match property {
                    Property::TopicAliasMaximum(maximum) => Some(maximum),
                    _ => None,
                });
                self.receive_maximum = receive_maximum.map_or(30, usize::from);
                self.alias_maximum = alias_maximum.unwrap_or(0);
                // 3.1 cannot say that the session is a new one, and after a lost CONNACK nobody can: the test tells.
                let session = model.links[conn].session;
                if session != self.session {
                    self.forget_session();
                    self.session = session;
                }
                self.resend(model);
            }
            _ if self.state == State::Connecting => {
                model.fail(format!("{name} got something else before CONNACK"));
            }
            Packet::Publish(publish) => self.received(publish, written, model, rng),
            Packet::PubAck(ack) => match self.position(ack.packet_id, 1, false) {
                Some(at) => drop(self.inflight.remove(at)),
                None => model.fail(format!("{name} got PUBACK {} for nothing", ack.packet_id)),
            },
            Packet::PubRec(ack) => {
                match self.inflight.iter().position(|it| (it.packet_id, it.qos) == (ack.packet_id, 2)) {
                    Some(at) if ack.reason.is_error() => drop(self.inflight.remove(at)),
                    Some(at) => {
                        self.inflight[at].is_released = true;
                        self.send(&Packet::PubRel(success(ack.packet_id)));
                    }
                    None => model.fail(format!("{name} got PUBREC {} for nothing", ack.packet_id)),
                }
            }
            Packet::PubComp(ack) => match self.position(ack.packet_id, 2, true) {
                Some(at) => drop(self.inflight.remove(at)),
                None => model.fail(format!("{name} got PUBCOMP {} for nothing", ack.packet_id)),
            },
            Packet::PubRel(ack) => {
                let is_known = self.received.remove(&ack.packet_id);
                let mut answer = success(ack.packet_id);
                if !is_known {
                    answer.reason = ReasonCode::PacketIdentifierNotFound;
                }
                self.answer(&Packet::PubComp(answer), rng);
            }
            Packet::SubAck(ack) | Packet::UnsubAck(ack) => {
                if !self.requests.remove(&ack.packet_id) {
                    model.fail(format!("{name} got SUBACK or UNSUBACK {} for nothing", ack.packet_id));
                }
            }
            Packet::Disconnect(_) | Packet::PingResp => {}
            _ => model.fail(format!("{name} got {packet:?}")),
        }
    }

    fn position(&self, packet_id: u16, qos: u8, is_released: bool) -> Option<usize> {
        let wanted = (packet_id, qos, is_released);
        self.inflight.iter().position(|it| (it.packet_id, it.qos, it.is_released) == wanted)
    }

    /// Everything unacknowledged goes again, in its order. [MQTT-4.4.0-1] [MQTT-4.6.0-1]
    fn resend(&mut self, model: &mut Model) {
        let all: Vec<(u16, u32, bool)> =
            self.inflight.iter().map(|it| (it.packet_id, it.message, it.is_released)).collect();
        for (packet_id, message, is_released) in all {
            if is_released {
                let ack = Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
                self.send(&Packet::PubRel(ack));
            } else {
                self.send_publish(message, packet_id, true, model);
            }
        }
    }

    fn received(&mut self, publish: Publish, (moment, ms): (u64, u64), model: &mut Model, rng: &mut Rng) {
        let (mut subscription_ids, mut expiry_s, mut alias, mut from) = (Vec::new(), None, None, None);
        for property in publish.properties.iter() {
            match property {
                Property::SubscriptionIdentifier(id) => subscription_ids.push(id),
                Property::MessageExpiryInterval(seconds) => expiry_s = Some(seconds),
                Property::TopicAlias(number) => alias = Some(number),
                Property::UserProperty("from", name) => from = Some(name.to_string()),
                _ => {}
            }
        }
        if let (Some(alias), false) = (alias, publish.topic.is_empty()) {
            self.broker_aliases.insert(alias, publish.topic.to_string());
        }
        let topic = match alias.and_then(|alias| self.broker_aliases.get(&alias)) {
            Some(topic) => topic.clone(),
            None => publish.topic.to_string(),
        };
        // Their order means nothing. [MQTT-3.3.4-4]
        subscription_ids.sort();
        let key = id_of(publish.payload);
        let packet_id = publish.packet_id;
        let is_first = match publish.qos {
            QoS::AtMostOnce => true,
            QoS::AtLeastOnce => {
                let is_repeat = publish.dup && self.last_qos1.get(&packet_id) == Some(&(key, topic.clone()));
                self.last_qos1.insert(packet_id, (key, topic.clone()));
                !is_repeat
            }
            QoS::ExactlyOnce => self.received.insert(packet_id),
        };
        let ack = Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.answer(&Packet::PubAck(ack), rng),
            QoS::ExactlyOnce => self.answer(&Packet::PubRec(ack), rng),
        }
        if is_first && let Some(session) = self.session {
            let (qos, retain, dup) = (publish.qos as u8, publish.retain, publish.dup);
            let seen = Seen { key, topic, qos, retain, subscription_ids, expiry_s, dup, moment, ms };
            model.delivered(session, seen, publish.payload, from);
        }
    }
}

fn model_text(topic: &str, id: u32, qos: u8) -> String {
    format!("{topic} message {id} QoS {qos}")
}
