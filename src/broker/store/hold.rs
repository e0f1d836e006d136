//! What waits until the store has something: packets that promise it, on the links they are for, in the order they would have
//! been sent in [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4]; and QoS 2 messages of stored sessions, which reach nobody before
//! it is certain that they will not come again [MQTT-4.3.3-2].

use std::collections::VecDeque;

use super::super::link::{LinkId, Paused, State};
use super::super::message::{Message, MessageParts};
use super::super::publish::Answer;
use super::super::session::{Queued, WindowLimits};
use super::super::{Broker, Clients, NONE};
use super::LAZY;
use super::record::Record;
use crate::codec::{Packet, Publish, QoS};
use crate::time::Millis;

/// Packets of one link that wait, oldest first.
pub type Held = VecDeque<HeldPacket>;

pub struct HeldPacket {
    bytes: Box<[u8]>,
    /// The batch it waits for; 0 if none.
    position: u64,
    /// The publish it waits for; 0 if none.
    publish: u32,
}

/// A message that is received and not yet routed.
pub struct Gated {
    position: u64,
    /// The publisher's session, NONE once it ended.
    pub session: u32,
    link: LinkId,
    packet_id: u16,
    message: Message,
    /// Its number in the store, or 0: one that only waits because those before it do.
    number: u64,
}

/// What a packet waits for before it is sent.
#[derive(Clone, Copy, Default)]
pub struct Wait {
    pub position: u64,
    pub publish: u32,
}

impl Clients {
    /// Sends a packet that promises something once that is safe, and not before those that wait already.
    #[inline]
    pub fn send_after(&mut self, id: LinkId, packet: &Packet, wait: Wait) {
        let link = &mut self.links[id as usize];
        if link.held.is_none() && wait.position <= self.store.durable && wait.publish == 0 {
            self.send(id, packet);
        } else {
            self.hold(id, packet, wait);
        }
    }

    #[inline(never)]
    fn hold(&mut self, id: LinkId, packet: &Packet, wait: Wait) {
        let link = &mut self.links[id as usize];
        let mut bytes = Vec::new();
        packet.encode(link.version, &mut bytes);
        if bytes.len() > link.packet_size_max as usize {
            link.is_unanswerable = true;
            return;
        }
        if link.held.is_none() {
            self.store.holding.push(id);
        }
        let held = HeldPacket { bytes: bytes.into(), position: wait.position, publish: wait.publish };
        link.held.get_or_insert_default().push_back(held);
    }

    /// One entry of a publish is settled or safe.
    pub(super) fn settle(&mut self, publish: u32) {
        let Some(pending) = self.store.publishes.get_mut(&publish) else { return };
        pending.entries -= 1;
        if pending.entries > 0 {
            return;
        }
        let link = pending.link;
        self.store.publishes.remove(&publish);
        let Some(held) = self.links.get_mut(link as usize).and_then(|link| link.held.as_deref_mut()) else { return };
        if let Some(packet) = held.iter_mut().find(|packet| packet.publish == publish) {
            packet.publish = 0;
            self.release_held(link);
        }
    }

    /// Sends what waits no longer.
    fn release_held(&mut self, id: LinkId) {
        let super::super::Clients { links, pool, stats, store, .. } = self;
        let Some(link) = links.get_mut(id as usize).filter(|link| link.state == State::Connected) else { return };
        let Some(held) = link.held.as_deref_mut() else { return };
        let mut is_released = false;
        while held.front().is_some_and(|packet| packet.position <= store.durable && packet.publish == 0)
            && let Some(packet) = held.pop_front()
        {
            link.output.tail(pool).extend_from_slice(&packet.bytes);
            link.unwritten_packets += 1;
            stats.packets_sent += 1;
            is_released = true;
        }
        if held.is_empty() {
            link.held = None;
            store.holding.retain(|&holding| holding != id);
        }
        if is_released {
            self.mark_dirty(id);
        }
    }

    /// The link is closed: nobody waits for what it was to be sent.
    pub fn drop_held(&mut self, id: LinkId) {
        if self.links[id as usize].held.take().is_some() {
            self.store.holding.retain(|&holding| holding != id);
        }
        // Another link may get its number before these are answered.
        for gated in self.store.gated.iter_mut().filter(|gated| gated.link == id) {
            gated.link = NONE;
        }
    }

    /// Whether a PUBLISH is to wait before it is routed: a QoS 2 message of a stored session until it is safe, and others
    /// of the client that would overtake it in the store of retained messages, or one of their own topic and QoS
    /// [MQTT-4.6.0-6].
    #[inline]
    pub fn is_gate_for(&self, session: u32, qos: QoS, retain: bool, topic: &str) -> bool {
        if !self.store.is_strict() {
            return false;
        }
        qos == QoS::ExactlyOnce && self.sessions[session as usize].is_stored()
            || !self.store.gated.is_empty() && self.would_overtake(session, qos, retain, topic)
    }

    #[inline(never)]
    fn would_overtake(&self, session: u32, qos: QoS, retain: bool, topic: &str) -> bool {
        let is_same = |message: &Message| message.qos() == qos && message.topic() == topic;
        let mut own = self.store.gated.iter().filter(|gated| gated.session == session);
        own.any(|gated| retain || is_same(&gated.message))
    }

    /// Accepts a PUBLISH that is routed later.
    #[inline(never)]
    pub fn accept_at_gate(&mut self, link: LinkId, packet: &Publish, parts: &MessageParts, now: Millis) {
        let session = self.links[link as usize].session;
        let is_recorded = packet.qos == QoS::ExactlyOnce && self.sessions[session as usize].is_stored();
        self.gate_message(session, link, packet.packet_id, parts, is_recorded, now);
    }

    /// Lets a will wait behind what its client published, if that waits; says whether it does.
    pub fn gate_will(&mut self, session: u32, parts: &MessageParts, now: Millis) -> bool {
        let must_wait = self.is_gate_for(session, QoS::AtMostOnce, true, parts.topic);
        if must_wait {
            let is_recorded = self.sessions[session as usize].is_stored();
            self.gate_message(session, NONE, 0, parts, is_recorded, now);
        }
        must_wait
    }

    fn gate_message(
        &mut self,
        session: u32,
        link: LinkId,
        packet_id: u16,
        parts: &MessageParts,
        is_recorded: bool,
        now: Millis,
    ) {
        let publisher = self.publisher_seed.hash_client(self.sessions[session as usize].client_id.as_bytes());
        let message = Message::of_publisher(parts, publisher);
        let mut number = 0;
        if is_recorded {
            let mut records = std::mem::take(&mut self.store.records);
            number = self.store.refer(&message, &mut records, true);
            self.store.records = records;
            let session = self.sessions[session as usize].number;
            self.store.record(&Record::Accepted { session, message: number }, now);
        }
        self.store.want(now, now);
        let position = self.store.open;
        self.store.gated.push_back(Gated { position, session, link, packet_id, message, number });
    }
}

impl Clients {
    /// A QoS 2 message came again on `link`. Whether it waits to be routed: it is answered when it is, on that link.
    pub fn is_at_gate(&mut self, session: u32, packet_id: u16, link: LinkId) -> bool {
        let is_it = |gated: &&mut Gated| gated.session == session && gated.packet_id == packet_id && gated.number != 0;
        let gated = self.store.gated.iter_mut().find(is_it);
        gated.map(|gated| gated.link = link).is_some()
    }

    /// Whether a message may be given its packet id, to be sent when that is safe.
    pub fn can_prepare(&self, session: u32, qos: QoS, payload_len: usize) -> bool {
        let session = &self.sessions[session as usize];
        if qos < QoS::ExactlyOnce || !session.is_stored() || !self.store.is_strict() {
            return false;
        }
        let Some(link) = self.links.get(session.link as usize) else { return false };
        session.delivery.as_deref().is_some_and(|delivery| {
            delivery.queue.is_empty()
                && delivery.has_window(link.window, WindowLimits::of(&self.config), || payload_len)
        })
    }

    /// Gives packet ids to queued messages that may be sent when those are safe, as far as the window goes.
    pub fn prepare_queue(&mut self, session_id: u32, now: Millis) {
        let limits = WindowLimits::of(&self.config);
        loop {
            let session = &mut self.sessions[session_id as usize];
            let (Some(delivery), Some(link)) = (session.delivery.as_deref_mut(), self.links.get(session.link as usize))
            else {
                return;
            };
            let is_next = |first: &Queued| first.qos == QoS::ExactlyOnce && first.message.expires_at() > now;
            let Some(first) = delivery.queue.front().filter(|first| is_next(first)) else { return };
            if !delivery.has_window(link.window, limits, || first.message.payload().len()) {
                return;
            }
            let Some(queued) = delivery.pop() else { return };
            if !self.send_message(session_id, queued, now) {
                return;
            }
        }
    }

    /// The position that a packet waits for which promises something to the client of this session; 0 if none.
    pub fn promise(&mut self, session: u32, now: Millis) -> u64 {
        if self.sessions[session as usize].is_stored() { self.store.promise(now) } else { 0 }
    }
}

impl Gated {
    /// The publisher's session and the message, if they are stored.
    pub(super) fn accepted(&self) -> Option<(u32, &Message)> {
        (self.number != 0).then_some((self.session, &self.message))
    }
}

impl Broker {
    /// Batch `position`, and all before it, is as safe as it will be: what waited for it goes on.
    pub fn durable(&mut self, position: u64, now: Millis) {
        self.note_time(now);
        self.clients.store.durable = position;
        for publish in std::mem::take(&mut self.clients.store.written) {
            self.clients.settle(publish);
        }
        while self.clients.store.gated.front().is_some_and(|gated| gated.position <= position)
            && let Some(gated) = self.clients.store.gated.pop_front()
        {
            self.route_gated(gated, now);
        }
        for session in std::mem::take(&mut self.clients.store.unsent) {
            if self.clients.sessions.contains(session as usize) {
                self.pump(session, now);
            }
        }
        for link in self.clients.store.holding.clone() {
            self.clients.release_held(link);
            let Some(it) = self.clients.links.get_mut(link as usize) else { continue };
            if it.paused == Paused::ForStore && it.held.is_none() {
                it.paused = Paused::No;
                self.let_go_on(link);
            }
            self.send_more(link, now);
        }
    }

    fn route_gated(&mut self, gated: Gated, now: Millis) {
        let Gated { session, link, packet_id, message, number, .. } = gated;
        let is_there = |it: &Clients| {
            session != NONE
                && it.links.get(link as usize).is_some_and(|it| it.session == session && it.state == State::Connected)
        };
        let link = if is_there(&self.clients) { link } else { NONE };
        // There was room for it when it came; those before it may have taken that. If its link is gone it is sent all the same.
        let refusal = match link != NONE && message.retain() {
            true => self.retained_refusal(&message.parts()),
            false => None,
        };
        if let Some(why) = refusal {
            if number != 0 {
                self.clients.store.routed.push((number, message.clone()));
                self.clients.store.want_lazily(LAZY, now);
            }
            self.refuse_routed(link, packet_id, &message.parts(), &why, now);
            return;
        }
        let answer = match number {
            0 => self.distribute(&message.parts(), packet_id, session, link, now),
            _ => self.route_accepted(&message, number, packet_id, session, link, now),
        };
        if link != NONE && message.qos() > QoS::AtMostOnce {
            self.answer_publish(link, &answer, now);
        }
        if link != NONE && answer.wait_for != NONE && !self.clients.links[link as usize].is_paused() {
            self.clients.pause(link, answer.wait_for, now);
        }
    }

    /// Routes a message that is safe. What becomes of it is written in one batch with its having been routed.
    pub(super) fn route_accepted(
        &mut self,
        message: &Message,
        number: u64,
        packet_id: u16,
        publisher: u32,
        link: LinkId,
        now: Millis,
    ) -> Answer<'static> {
        self.clients.store.is_handing_on = true;
        let answer = self.distribute(&message.parts(), packet_id, publisher, link, now);
        self.clients.store.is_handing_on = false;
        self.clients.store.routed.push((number, message.clone()));
        self.clients.store.want_lazily(LAZY, now);
        answer
    }
}
