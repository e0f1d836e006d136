//! A client that keeps its part of the protocol over power cuts: its session state, repeats, QoS 2 without repeats. What it
//! learns goes into the ledger.

use std::collections::{BTreeSet, HashMap, VecDeque};

use midge::codec::{
    Ack, Connect, Direction, Packet, Properties, PropertiesBuf, Property, Publish, QoS, ReasonCode, RetainHandling,
    Split, Subscribe, SubscribeOptions, Unsubscribe, Version, Will, decode, split_frame,
};

use super::ledger::{Delivery, Ledger, Message, Moment, NEVER};
use crate::held::Held;
use crate::ledger::{id_of, payload, payload_len};
use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Down,
    Connecting,
    Up,
}

#[derive(Clone)]
pub struct Profile {
    pub version: Version,
    pub is_durable: bool,
    /// Seconds a durable 5.0 session lasts.
    pub expiry_s: u32,
    pub receive_maximum: Option<u16>,
    pub publishes: bool,
    pub qos_max: u8,
    /// Percent of acknowledgements that are held back for a while.
    pub hold_percent: usize,
}

#[derive(Clone)]
struct Outgoing {
    packet_id: u16,
    message: u32,
    qos: u8,
    is_released: bool,
}

#[derive(Clone)]
pub struct Client {
    pub number: usize,
    pub profile: Profile,
    pub state: State,
    /// Its end of the connection: bytes for the broker.
    pub out: Vec<u8>,
    input: Vec<u8>,
    held: Held,
    is_clean: bool,
    /// The session of this connection is to outlive it.
    is_lasting: bool,
    /// The broker may have a session of it.
    pub may_have_session: bool,
    /// The next session is to be a new one, of 3.1.1 one that ends with its connection.
    pub wants_reset: bool,
    pub session: Option<usize>,
    inflight: VecDeque<Outgoing>,
    received: BTreeSet<u16>,
    last_qos1: HashMap<u16, Option<u32>>,
    next_packet_id: u16,
    requests: HashMap<u16, Vec<(&'static str, Moment)>>,
    connected_at: Moment,
}

/// What a new message is to be.
pub struct Draft {
    pub topic: &'static str,
    pub qos: u8,
    pub retain: bool,
    pub len: usize,
    pub expires: bool,
}

fn success(packet_id: u16) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
}

fn qos_of(qos: u8) -> QoS {
    QoS::from_u8(qos).unwrap_or(QoS::AtMostOnce)
}

impl Client {
    pub fn new(number: usize, profile: Profile) -> Client {
        Client {
            number,
            state: State::Down,
            out: Vec::new(),
            input: Vec::new(),
            held: Held::default(),
            is_clean: false,
            is_lasting: profile.is_durable,
            may_have_session: false,
            wants_reset: false,
            session: None,
            inflight: VecDeque::new(),
            received: BTreeSet::new(),
            last_qos1: HashMap::new(),
            next_packet_id: 1,
            requests: HashMap::new(),
            connected_at: 0,
            profile,
        }
    }

    pub fn is_settled(&self) -> bool {
        self.state == State::Up && self.is_quiet()
    }

    pub fn is_quiet(&self) -> bool {
        self.out.is_empty() && self.held.is_empty() && self.inflight.is_empty() && self.requests.is_empty()
    }

    pub fn inflight_count(&self) -> usize {
        self.inflight.len()
    }

    fn is_5(&self) -> bool {
        self.profile.version == Version::V5
    }

    fn send(&mut self, packet: &Packet) {
        packet.encode(self.profile.version, &mut self.out);
    }

    fn packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = if id == 200 { 1 } else { id + 1 };
            if !self.requests.contains_key(&id) && self.inflight.iter().all(|it| it.packet_id != id) {
                return id;
            }
        }
    }

    /// Begins a connection.
    pub fn connect(&mut self, will: Option<Draft>, ledger: &mut Ledger) {
        self.lost(ledger);
        self.state = State::Connecting;
        self.connected_at = ledger.next();
        self.is_clean = !self.profile.is_durable || self.wants_reset;
        self.is_lasting = self.profile.is_durable && (!self.is_clean || self.is_5());
        self.may_have_session |= self.is_lasting;
        let is_5 = self.is_5();
        let mut properties = PropertiesBuf::default();
        if is_5 && self.profile.is_durable {
            properties.push(Property::SessionExpiryInterval(self.profile.expiry_s));
        }
        if let (true, Some(maximum)) = (is_5, self.profile.receive_maximum) {
            properties.push(Property::ReceiveMaximum(maximum));
        }
        let will = will.map(|draft| {
            let id = self.new_message(&draft, true, ledger);
            ledger.sent(id);
            (draft, payload(id, ledger.messages[id as usize].len))
        });
        let will = will.as_ref().map(|(draft, payload)| Will {
            qos: qos_of(draft.qos),
            retain: draft.retain,
            topic: draft.topic,
            payload,
            properties: Properties::EMPTY,
        });
        let client_id = format!("c{}", self.number);
        let connect = Connect {
            version: self.profile.version,
            bridge: false,
            clean_start: self.is_clean,
            session_expiry_s: 0,
            keep_alive_s: 0,
            client_id: &client_id,
            will,
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        ledger.note(|| format!("{client_id} > CONNECT clean {} will {}", self.is_clean, will.is_some()));
        self.send(&Packet::Connect(connect));
    }

    fn new_message(&self, draft: &Draft, is_will: bool, ledger: &mut Ledger) -> u32 {
        ledger.messages.push(Message {
            publisher: self.number,
            topic: draft.topic,
            qos: draft.qos,
            retain: draft.retain,
            len: payload_len(if is_will { draft.len.max(1) } else { draft.len }),
            expires: draft.expires,
            is_will,
            sent: NEVER,
            count: 0,
            acked: NEVER,
            over: NEVER,
        });
        ledger.messages.len() as u32 - 1
    }

    pub fn publish(&mut self, draft: &Draft, ledger: &mut Ledger) {
        let message = self.new_message(draft, false, ledger);
        let mut packet_id = 0;
        if draft.qos > 0 {
            packet_id = self.packet_id();
            self.inflight.push_back(Outgoing { packet_id, message, qos: draft.qos, is_released: false });
        }
        self.send_publish(message, packet_id, false, ledger);
    }

    fn send_publish(&mut self, id: u32, packet_id: u16, dup: bool, ledger: &mut Ledger) {
        ledger.sent(id);
        let message = &ledger.messages[id as usize];
        let mut properties = PropertiesBuf::default();
        if self.is_5() && message.expires {
            properties.push(Property::MessageExpiryInterval(20));
        }
        let payload = payload(id, message.len);
        let publish = Publish {
            dup,
            qos: qos_of(message.qos),
            retain: message.retain,
            topic: message.topic,
            packet_id,
            properties: properties.as_properties(),
            payload: &payload,
        };
        Packet::Publish(publish).encode(self.profile.version, &mut self.out);
        if ledger.trace.is_some() {
            let text = ledger.describe(id);
            ledger.note(|| format!("c{} > PUBLISH #{packet_id} dup {dup} {text}", self.number));
        }
    }

    /// Subscribes to each filter, or with no QoS unsubscribes.
    pub fn request(&mut self, filters: &[&'static str], qos: Option<u8>, ledger: &mut Ledger) {
        let Some(session) = self.session else { return };
        let packet_id = self.packet_id();
        let mut payload = Vec::new();
        let mut asked = Vec::new();
        for filter in filters {
            ledger.asked(session, filter, qos);
            asked.push((*filter, ledger.moment));
            match qos {
                Some(qos) => Subscribe::push_filter(&mut payload, filter, options(qos)),
                None => Unsubscribe::push_filter(&mut payload, filter),
            }
        }
        self.requests.insert(packet_id, asked);
        ledger.note(|| format!("c{} > (UN)SUBSCRIBE #{packet_id} {filters:?} {qos:?}", self.number));
        let properties = Properties::EMPTY;
        match qos {
            Some(_) => self.send(&Packet::Subscribe(Subscribe { packet_id, properties, payload: &payload })),
            None => self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, payload: &payload })),
        }
    }

    pub fn flush_held(&mut self, count: usize) {
        self.held.flush(count, &mut self.out);
    }

    fn answer(&mut self, packet: &Packet, rng: &mut Rng) {
        let (version, percent) = (self.profile.version, self.profile.hold_percent);
        self.held.answer(packet, version, percent, rng, &mut self.out);
    }

    /// The connection is gone.
    pub fn lost(&mut self, ledger: &mut Ledger) {
        self.state = State::Down;
        self.out.clear();
        self.input.clear();
        self.held.clear();
        self.requests.clear();
        if let Some(session) = self.session.filter(|_| !self.is_lasting) {
            ledger.sessions[session].is_over = true;
            self.session = None;
        }
    }

    pub fn receive(&mut self, bytes: &[u8], ledger: &mut Ledger, rng: &mut Rng) {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while let Ok(Split::Frame { body, len }) = split_frame(&input[at..], 0) {
            let frame = &input[at..at + len];
            match decode(frame[0], &frame[body..], self.profile.version, Direction::ToClient) {
                Ok(packet) => self.handle(packet, ledger, rng),
                Err(error) => ledger.fail(format!("c{} got nonsense: {error}", self.number)),
            }
            at += len;
        }
        input.drain(..at);
        self.input = input;
    }

    fn handle(&mut self, packet: Packet, ledger: &mut Ledger, rng: &mut Rng) {
        match packet {
            Packet::ConnAck(connack) if self.state == State::Connecting => {
                if connack.reason == ReasonCode::Success {
                    self.let_in(connack.session_present, ledger);
                } else {
                    ledger.fail(format!("c{} was refused: {:?}", self.number, connack.reason));
                }
            }
            Packet::Publish(publish) => self.received(publish, ledger, rng),
            Packet::PubAck(ack) => self.acknowledged(ack, 1, ledger),
            Packet::PubRec(ack) => self.acknowledged(ack, 2, ledger),
            Packet::PubComp(ack) => {
                ledger.note(|| format!("c{} < PUBCOMP #{} {:?}", self.number, ack.packet_id, ack.reason));
                match self.inflight.iter().position(|it| it.packet_id == ack.packet_id && it.is_released) {
                    Some(at) => drop(self.inflight.remove(at)),
                    None => ledger.fail(format!("c{} got PUBCOMP {} for nothing", self.number, ack.packet_id)),
                }
            }
            Packet::PubRel(ack) => {
                let mut answer = success(ack.packet_id);
                if !self.received.remove(&ack.packet_id) {
                    answer.reason = ReasonCode::PacketIdentifierNotFound;
                }
                self.answer(&Packet::PubComp(answer), rng);
            }
            Packet::SubAck(ack) => self.answered(ack.packet_id, Some(ack.codes), ledger),
            Packet::UnsubAck(ack) => self.answered(ack.packet_id, None, ledger),
            Packet::PingResp => {}
            packet => ledger.fail(format!("c{} got {packet:?}", self.number)),
        }
    }

    /// CONNACK arrived: the session is the one from before, or a new one.
    fn let_in(&mut self, is_present: bool, ledger: &mut Ledger) {
        let number = self.number;
        ledger.next();
        ledger.note(|| format!("c{number} < CONNACK present {is_present}"));
        self.state = State::Up;
        if !self.is_lasting {
            ledger.older_link_is_over(number);
        }
        if is_present && (self.is_clean || !self.may_have_session) {
            ledger.fail(format!("c{number} wanted a new session and was given an old one"));
        }
        self.may_have_session = self.is_lasting;
        if let Some(session) = self.session {
            let it = &mut ledger.sessions[session];
            if is_present {
                self.resend(ledger);
                return;
            }
            it.is_over = true;
            if it.is_promised && !self.is_clean && !it.is_fragile && !it.is_vague {
                ledger.fail(format!("the session of c{number} is gone"));
            }
        }
        let is_fragile = self.is_5() && self.profile.expiry_s < 1000;
        let session = ledger.new_session(number, is_fragile);
        self.session = Some(session);
        self.wants_reset = false;
        self.inflight.clear();
        self.received.clear();
        self.last_qos1.clear();
    }

    /// Everything unacknowledged goes again, in its order. [MQTT-4.4.0-1]
    fn resend(&mut self, ledger: &mut Ledger) {
        for it in self.inflight.clone() {
            if it.is_released {
                ledger.note(|| format!("c{} > PUBREL #{} again", self.number, it.packet_id));
                self.send(&Packet::PubRel(success(it.packet_id)));
            } else {
                self.send_publish(it.message, it.packet_id, true, ledger);
            }
        }
    }

    /// PUBACK or PUBREC.
    fn acknowledged(&mut self, ack: Ack, qos: u8, ledger: &mut Ledger) {
        let Some(session) = self.session else { return };
        let wanted = |it: &Outgoing| it.packet_id == ack.packet_id && it.qos == qos;
        let Some(at) = self.inflight.iter().position(wanted) else {
            ledger.fail(format!("c{} got an acknowledgement of {} for nothing", self.number, ack.packet_id));
            return;
        };
        let (message, is_taken) = (self.inflight[at].message, !ack.reason.is_error());
        ledger.acknowledged(message, is_taken, session);
        ledger.note(|| format!("c{} < acknowledged {message} {:?}", self.number, ack.reason));
        if qos == 2 && is_taken {
            self.inflight[at].is_released = true;
            self.send(&Packet::PubRel(success(ack.packet_id)));
        } else {
            self.inflight.remove(at);
        }
    }

    fn answered(&mut self, packet_id: u16, codes: Option<&[u8]>, ledger: &mut Ledger) {
        let (Some(session), Some(asked)) = (self.session, self.requests.remove(&packet_id)) else {
            ledger.fail(format!("c{} got SUBACK or UNSUBACK {packet_id} for nothing", self.number));
            return;
        };
        ledger.note(|| format!("c{} < answered {packet_id} {codes:02x?}", self.number));
        for (at, (filter, moment)) in asked.into_iter().enumerate() {
            let is_granted = codes.is_none_or(|codes| codes.get(at).is_some_and(|code| *code < 0x80));
            ledger.answered(session, filter, moment, is_granted);
        }
    }

    fn received(&mut self, publish: Publish, ledger: &mut Ledger, rng: &mut Rng) {
        let (key, packet_id) = (id_of(publish.payload), publish.packet_id);
        let is_first = match publish.qos {
            QoS::AtMostOnce => true,
            QoS::AtLeastOnce => {
                let is_repeat = publish.dup && self.last_qos1.get(&packet_id) == Some(&key);
                self.last_qos1.insert(packet_id, key);
                !is_repeat
            }
            QoS::ExactlyOnce => self.received.insert(packet_id),
        };
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.answer(&Packet::PubAck(success(packet_id)), rng),
            QoS::ExactlyOnce => self.answer(&Packet::PubRec(success(packet_id)), rng),
        }
        let Some(session) = self.session.filter(|_| is_first) else { return };
        let (topic, payload, retain) = (publish.topic, publish.payload, publish.retain);
        ledger.delivered(session, Delivery { topic, payload, key, qos: publish.qos as u8, retain });
    }
}

fn options(qos: u8) -> SubscribeOptions {
    SubscribeOptions {
        qos: qos_of(qos),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}
