//! The way of a message to its subscribers: at once into the output of those who can take it, into the session's queue
//! for the others. QoS 0 to a client that keeps up allocates nothing.
//!
//! Per message and subscriber: one copy of the packet into the output; QoS > 0 one shared `Message` for all subscribers.
//! Never closes a link and never looks at the publisher's link.

use super::clients::Clients;
use super::index::Subscriber;
use super::memory::Level;
use super::message::{Message, MessageParts, Spares};
use super::outgoing::{Outgoing, SHARE_MIN};
use super::session::{Delivery, Inflight, Queued, Via, WindowLimits};
use super::{Broker, NONE};
use crate::codec::{Ack, Packet, Properties, PropertiesBuf, Property, QoS, ReasonCode};
use crate::config::QueuePolicy;
use crate::logger::notice;
use crate::time::Millis;

/// How many times the messages may be queued, within the same bytes, for a client whose acknowledgements the broker itself left
/// unread: more than one read-ahead buffer holds of them.
const UNHEARD_ALLOWANCE: u32 = 16;

/// How many times the messages may be queued for a client that reads when their publisher cannot wait: a will.
const UNPAUSABLE_ALLOWANCE: u32 = 2;

/// One message on its way to all its subscribers.
pub(super) struct Route<'a> {
    parts: MessageParts<'a>,
    publisher: u32,
    /// Made when the first subscriber needs it.
    message: Option<Message>,
    /// More than one subscriber gets it, so that its layouts are worth keeping.
    has_others: bool,
    routed: Routed,
}

/// What became of a message.
#[derive(Clone, Copy)]
pub(super) struct Routed {
    /// Somebody subscribes to its topic.
    pub is_wanted: bool,
    /// A full queue turned it away.
    pub is_refused: bool,
    /// The publisher must wait until this link's client has taken some of what waits for it.
    pub wait_for: u32,
}

impl<'a> Route<'a> {
    pub fn new(parts: MessageParts<'a>, publisher: u32) -> Route<'a> {
        let routed = Routed { is_wanted: false, is_refused: false, wait_for: NONE };
        Route { parts, publisher, message: None, has_others: false, routed }
    }

    pub fn qos(&self) -> QoS {
        self.parts.qos
    }

    pub fn topic(&self) -> &'a str {
        self.parts.topic
    }

    pub fn payload_len(&self) -> usize {
        self.parts.payload.len()
    }

    fn message(&mut self, spares: &mut Spares) -> Message {
        self.message.get_or_insert_with(|| Message::from_spares(&self.parts, spares)).clone()
    }
}

impl Broker {
    /// Hands a message to everybody who subscribed to its topic.
    pub(super) fn route(&mut self, parts: MessageParts, publisher: u32, now: Millis) -> Routed {
        let mut route = Route::new(parts, publisher);
        let Broker { clients, index, latest, guess, .. } = self;
        let matches = latest.matches(index, parts.topic, std::mem::replace(guess, NONE));
        route.has_others = match *matches {
            [] => false,
            [filter] => index.subscribers(filter).len() > 1 || index.has_shares(filter),
            _ => true,
        };
        if route.has_others {
            clients.layouts.forget();
        }
        if clients.config.allow_duplicate_messages || matches.len() < 2 {
            for &filter in matches {
                for subscriber in index.subscribers(filter) {
                    clients.deliver(&mut route, subscriber, Via::subscription(subscriber.subscription_id), now);
                }
            }
        } else {
            let all = matches.iter().flat_map(|&filter| index.subscribers(filter)).copied().collect();
            clients.deliver_once(&mut route, all, now);
        }
        for &filter in matches {
            if index.has_shares(filter) {
                index.for_each_share(filter, |id, share| clients.deliver_to_share(&mut route, id, share, now));
            }
        }
        route.routed
    }
}

impl Clients {
    /// Hands the message of `route` to one subscriber.
    pub(super) fn deliver(&mut self, route: &mut Route, subscriber: &Subscriber, via: Via, now: Millis) {
        // [MQTT-3.8.3-3] (5.0)
        if subscriber.no_local && subscriber.session == route.publisher {
            return;
        }
        route.routed.is_wanted = true;
        if !self.may_read(subscriber.session, route.parts.topic.as_bytes()) {
            return;
        }
        let qos = self.config.effective_qos(route.parts.qos, subscriber.qos);
        // [MQTT-3.3.1-9] (3.1.1) [MQTT-3.3.1-12] [MQTT-3.3.1-13] (5.0)
        let retain = subscriber.retain_as_published && route.parts.retain;
        let session = subscriber.session;
        let link = self.sessions[session as usize].link;
        let payload_len = route.payload_len();
        if !self.can_send(session, qos, payload_len) && !self.can_prepare(session, qos, payload_len) {
            self.enqueue(route, session, via, qos, retain, now);
            return;
        }
        if qos == QoS::AtMostOnce && route.parts.payload.len() < SHARE_MIN {
            let content = route.parts.content();
            let subscription_id = subscriber.subscription_id;
            let (dup, packet_id, is_shared) = (false, 0, route.has_others);
            let outgoing = Outgoing { content, message: None, dup, qos, retain, packet_id, subscription_id, is_shared };
            self.write_publish(link, &outgoing, now);
            return;
        }
        let message = route.message(&mut self.spares);
        let entry = self.new_entry(session);
        self.transmit(session, Queued { message, entry, via, qos, retain }, Some(route), now);
    }

    /// One copy a client, however many of its filters match: at the highest QoS, with every subscription identifier.
    /// [MQTT-3.3.5-1] (3.1.1) [MQTT-3.3.4-2] [MQTT-3.3.4-4] (5.0)
    fn deliver_once(&mut self, route: &mut Route, mut all: Vec<Subscriber>, now: Millis) {
        all.retain(|subscriber| !(subscriber.no_local && subscriber.session == route.publisher));
        all.sort_by_key(|subscriber| subscriber.session);
        for group in all.chunk_by(|one, other| one.session == other.session) {
            let mut merged = group[0];
            merged.qos = group.iter().map(|subscriber| subscriber.qos).max().unwrap_or(merged.qos);
            merged.retain_as_published = group.iter().any(|subscriber| subscriber.retain_as_published);
            let ids: Vec<u32> = group.iter().map(|one| one.subscription_id).filter(|&id| id != 0).collect();
            if ids.len() < 2 {
                merged.subscription_id = ids.first().copied().unwrap_or(0);
                self.deliver(route, &merged, Via::subscription(merged.subscription_id), now);
                continue;
            }
            // Rare: the identifiers become part of a message of the client's own.
            let mut properties = PropertiesBuf::default();
            ids.iter().for_each(|&id| properties.push(Property::SubscriptionIdentifier(id)));
            let properties = [properties.as_properties().as_bytes(), route.parts.properties].concat();
            merged.subscription_id = 0;
            let mut own = Route::new(MessageParts { properties: &properties, ..route.parts }, route.publisher);
            self.deliver(&mut own, &merged, Via::subscription(0), now);
            route.routed.is_wanted |= own.routed.is_wanted;
            route.routed.is_refused |= own.routed.is_refused;
            if own.routed.wait_for != NONE {
                route.routed.wait_for = own.routed.wait_for;
            }
        }
    }

    /// Whether a message with a payload of this length may go into the client's output right now without overtaking others.
    #[inline]
    pub(super) fn can_send(&self, session: u32, qos: QoS, payload_len: usize) -> bool {
        let session = &self.sessions[session as usize];
        let Some(link) = self.links.get(session.link as usize) else { return false };
        if link.output.len() >= self.memory.output_high {
            return false;
        }
        match session.delivery.as_deref() {
            None => true,
            Some(delivery) if qos == QoS::AtMostOnce => delivery.queue_qos0 == 0,
            Some(delivery) => {
                delivery.queue.is_empty()
                    && delivery.sent == delivery.inflight.len()
                    && delivery.has_window(link.window, WindowLimits::of(&self.config), || payload_len)
            }
        }
    }

    /// Keeps the message of `route` for a client that cannot take it now.
    fn enqueue(&mut self, route: &mut Route, session_id: u32, via: Via, qos: QoS, retain: bool, now: Millis) {
        let link = self.sessions[session_id as usize].link;
        if link == NONE && qos == QoS::AtMostOnce && !self.config.queue_qos0_messages {
            return;
        }
        let level = self.memory.level();
        if qos == QoS::AtMostOnce && level >= Level::NoQos0 {
            self.count_drop(session_id, route.parts.topic);
            return;
        }
        let message = route.message(&mut self.spares);
        // A client that reads is waited for and loses nothing; limits are for those nobody waits for, and for messages whose
        // publisher cannot wait.
        let live = self.links.get(link as usize).filter(|link| !link.is_stalled);
        let is_unheard = live.is_some_and(|link| link.is_unheard || link.is_deaf());
        let is_live = live.is_some() && !is_unheard;
        let has_room = match (is_live, route.publisher) {
            (true, NONE) => !self.is_full(session_id, message.content_len(), UNPAUSABLE_ALLOWANCE),
            (true, _) => true,
            (false, _) if is_unheard => self.make_room(session_id, message.content_len(), UNHEARD_ALLOWANCE, now),
            (false, _) => self.make_room(session_id, message.content_len(), 1, now),
        };
        if !has_room {
            route.routed.is_refused = true;
            self.count_drop(session_id, route.parts.topic);
            return;
        }
        let entry = self.new_entry(session_id);
        self.note_entry(session_id, &entry, qos, false, now);
        let config = &self.config;
        let delivery = self.sessions[session_id as usize].delivery_mut();
        delivery.push(Queued { message, entry, via, qos, retain });
        if is_live && (level >= Level::Slow || is_high(delivery, config.max_queued_messages, config.max_queued_bytes)) {
            route.routed.wait_for = link;
        }
    }

    /// Whether a message of this size is too much for the client's queue, with `allowance` times the messages allowed.
    fn is_full(&self, session_id: u32, len: usize, allowance: u32) -> bool {
        if self.memory.level() >= Level::Overflow {
            return true;
        }
        let messages_max = self.config.max_queued_messages.saturating_mul(allowance);
        let bytes_max = u64::from(self.config.max_queued_bytes);
        self.sessions[session_id as usize].delivery.as_deref().is_some_and(|delivery| {
            messages_max != 0 && delivery.queue.len() >= messages_max as usize
                || bytes_max != 0 && !delivery.queue.is_empty() && delivery.queue_bytes + len as u64 > bytes_max
        })
    }

    /// Makes room in a full queue as the policy says; false if the new message must go.
    fn make_room(&mut self, session_id: u32, len: usize, allowance: u32, now: Millis) -> bool {
        if !self.is_full(session_id, len, allowance) {
            return true;
        }
        let delivery = self.sessions[session_id as usize].delivery_mut();
        if delivery.queue_expires_at <= now {
            let expired = delivery.take_queued(|queued| queued.message.expires_at() <= now);
            self.stats.messages_expired += expired.len() as u64;
            for queued in expired {
                self.entry_gone(session_id, &queued.entry, Some(&queued.message), now);
            }
        }
        // While memory is short, one goes for one that comes.
        let is_short = self.memory.level() >= Level::Overflow;
        while self.is_full(session_id, len, allowance) {
            if self.config.queue_policy != QueuePolicy::DropOldest {
                return false;
            }
            let Some(oldest) = self.sessions[session_id as usize].delivery_mut().pop() else { return !is_short };
            self.count_drop(session_id, oldest.message.topic());
            self.entry_gone(session_id, &oldest.entry, Some(&oldest.message), now);
            if is_short && oldest.message.content_len() >= len {
                return true;
            }
        }
        true
    }

    pub(super) fn count_drop(&mut self, session: u32, topic: &str) {
        self.stats.messages_dropped += 1;
        let session = &mut self.sessions[session as usize];
        let delivery = session.delivery_mut();
        delivery.dropped = delivery.dropped.saturating_add(1);
        delivery.dropped_in_a_row = delivery.dropped_in_a_row.saturating_add(1);
        if delivery.dropped_in_a_row == 1 {
            notice!(
                client = *session.client_id;
                "Outgoing messages are being dropped for client {}. Its queue is full; the first was for topic '{topic}'.",
                session.client_id
            );
        }
    }

    /// Sends again what the link has not seen, then the queue, as far as output and window have room.
    pub(super) fn pump_queue(&mut self, session_id: u32, now: Millis) {
        let limits = WindowLimits::of(&self.config);
        loop {
            let session = &mut self.sessions[session_id as usize];
            let Some(delivery) = session.delivery.as_deref_mut() else { return };
            let Some(link) = self.links.get(session.link as usize) else { return };
            if link.output.len() >= self.memory.output_high {
                return;
            }
            if delivery.sent < delivery.inflight.len() {
                if delivery.sent >= link.window as usize {
                    return;
                }
                let at = delivery.sent;
                if delivery.inflight[at].gate > self.store.durable() {
                    self.await_store(session_id);
                    self.prepare_queue(session_id, now);
                    return;
                }
                delivery.sent += 1;
                self.send_again(session_id, at, now);
                continue;
            }
            let Some(first) = delivery.queue.front() else {
                session.log_drops("before it caught up");
                return;
            };
            if first.message.expires_at() <= now {
                // [MQTT-3.3.2-5] (5.0)
                if let Some(expired) = delivery.pop() {
                    self.entry_gone(session_id, &expired.entry, Some(&expired.message), now);
                }
                self.stats.messages_expired += 1;
                continue;
            }
            let payload_len = || first.message.payload().len();
            if first.qos > QoS::AtMostOnce && !delivery.has_window(link.window, limits, payload_len) {
                return;
            }
            let Some(queued) = delivery.pop() else { return };
            if !self.send_message(session_id, queued, now) {
                return;
            }
        }
    }

    /// Sends a message whose turn it is, if it may be; false if there is no packet id, and the message went back to the
    /// front of the queue.
    pub(super) fn send_message(&mut self, session_id: u32, queued: Queued, now: Millis) -> bool {
        if queued.qos > QoS::AtMostOnce {
            let delivery = self.sessions[session_id as usize].delivery_mut();
            if delivery.inflight.front().is_some_and(|oldest| oldest.packet_id == delivery.next_packet_id) {
                if !queued.entry.is_recorded() {
                    // A retained message is new here.
                    self.note_entry(session_id, &queued.entry, queued.qos, false, now);
                }
                self.sessions[session_id as usize].delivery_mut().push_front(queued);
                return false;
            }
        }
        self.transmit(session_id, queued, None, now);
        true
    }

    /// Writes a message into the client's output, with a packet id and an in-flight entry if its QoS wants one. `route` is
    /// how it came here if it did so just now.
    fn transmit(&mut self, session_id: u32, queued: Queued, route: Option<&Route>, now: Millis) {
        let Queued { message, entry, via, qos, retain } = queued;
        let gate = self.gate(&entry, qos);
        let session = &mut self.sessions[session_id as usize];
        let link = session.link;
        let delivery = session.delivery_mut();
        let subscription_id = delivery.subscription_id(via);
        let mut packet_id = 0;
        if qos > QoS::AtMostOnce {
            let Some(id) = delivery.next_packet_id() else {
                delivery.push(Queued { message, entry, via, qos, retain });
                self.note_entry(session_id, &entry, qos, false, now);
                return;
            };
            packet_id = id;
        }
        if gate != 0 {
            let (message, sent_at, is_unsent) = (Some(message), now, true);
            delivery.restore(Inflight { message, sent_at, entry, gate, via, packet_id, qos, retain, is_unsent });
            self.note_entry(session_id, &entry, qos, false, now);
            self.await_store(session_id);
            return;
        }
        let outgoing = Outgoing {
            content: route.map_or_else(|| message.content(), |route| route.parts.content()),
            message: Some(&message),
            dup: false,
            qos,
            retain,
            packet_id,
            subscription_id,
            is_shared: route.is_some_and(|route| route.has_others),
        };
        if !self.write_publish(link, &outgoing, now) {
            self.entry_gone(session_id, &entry, Some(&message), now);
        } else if qos > QoS::AtMostOnce {
            self.note_entry(session_id, &entry, qos, true, now);
            let (message, sent_at, is_unsent) = (Some(message), now, false);
            let begun = Inflight { message, sent_at, entry, gate, via, packet_id, qos, retain, is_unsent };
            self.sessions[session_id as usize].delivery_mut().begin(begun);
            self.arm_retry(session_id, now);
        }
    }

    /// Sends the in-flight message at `at` again: PUBLISH with DUP, or PUBREL. [MQTT-4.4.0-1] [MQTT-3.3.1-1]
    pub(super) fn send_again(&mut self, session_id: u32, at: usize, now: Millis) {
        let session = &mut self.sessions[session_id as usize];
        let link = session.link;
        let delivery = session.delivery_mut();
        let subscription_id = delivery.subscription_id(delivery.inflight[at].via);
        let entry = &mut delivery.inflight[at];
        entry.sent_at = now;
        let dup = !std::mem::take(&mut entry.is_unsent);
        let packet_id = entry.packet_id;
        let Some(message) = entry.message.clone() else {
            let ack = Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
            self.send(link, &Packet::PubRel(ack));
            self.arm_retry(session_id, now);
            return;
        };
        let (qos, retain) = (entry.qos, entry.retain);
        let (is_shared, content) = (false, message.content());
        let message = Some(&message);
        let outgoing = Outgoing { content, message, dup, qos, retain, packet_id, subscription_id, is_shared };
        if self.write_publish(link, &outgoing, now) {
            self.arm_retry(session_id, now);
        } else {
            self.complete(session_id, at, now);
        }
    }
}

/// The mark at which publishers begin to wait: half of what a client that nobody waits for may have queued.
fn is_high(delivery: &Delivery, messages_max: u32, bytes_max: u32) -> bool {
    delivery.queue.len() > high_messages(messages_max) || delivery.queue_bytes > high_bytes(bytes_max)
}

/// Whether those who wait for the client may go on: half of the high mark is left, or nothing while retained messages
/// wait for their turn, too.
pub(super) fn is_low(delivery: &Delivery, messages_max: u32, bytes_max: u32) -> bool {
    match delivery.cursors.is_empty() {
        true => {
            delivery.queue.len() <= high_messages(messages_max) / 2 && delivery.queue_bytes <= high_bytes(bytes_max) / 2
        }
        false => delivery.queue.is_empty(),
    }
}

fn high_messages(max: u32) -> usize {
    if max == 0 { 500 } else { max as usize / 2 }
}

fn high_bytes(max: u32) -> u64 {
    if max == 0 { 2 << 20 } else { u64::from(max) / 2 }
}

#[cfg(test)]
mod tests {
    use super::super::session::Entry;
    use super::*;

    /// A queue of `count` messages that take `bytes` each.
    fn queue(count: usize, bytes: usize) -> Delivery {
        let payload = &vec![0; bytes - 1][..];
        let (qos, expires_at) = (QoS::AtLeastOnce, Millis::NEVER);
        let parts = MessageParts { qos, retain: false, expires_at, topic: "t", properties: &[], payload, packet: None };
        let message = Message::new(&parts);
        let mut delivery = Delivery::default();
        for _ in 0..count {
            let (message, entry, via) = (message.clone(), Entry::default(), Via::subscription(0));
            delivery.push(Queued { message, entry, via, qos, retain: false });
        }
        delivery
    }

    #[test]
    fn publishers_wait_from_half_the_limits_on_until_a_quarter_is_left() {
        for (count, high, low) in [(25, false, true), (26, false, false), (50, false, false), (51, true, false)] {
            let few_bytes = queue(count, 1);
            assert_eq!((is_high(&few_bytes, 100, 1000), is_low(&few_bytes, 100, 1000)), (high, low), "{count}");
            let few_messages = queue(count, 10);
            assert_eq!((is_high(&few_messages, 1000, 1000), is_low(&few_messages, 1000, 1000)), (high, low), "{count}");
        }
    }

    #[test]
    fn without_limits_publishers_wait_as_by_default() {
        assert_eq!((high_messages(0), high_bytes(0)), (high_messages(1000), high_bytes(4 << 20)));
        assert_eq!((high_messages(0), high_bytes(0)), (500, 2_097_152));
    }
}
