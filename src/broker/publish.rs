//! PUBLISH from a client: checked, retained, routed, acknowledged. What a client may not do is said in the
//! acknowledgement where the version has a word for it; what breaks the protocol closes the link.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use super::acknowledge::answer;
use super::clients::Clients;
use super::close::{CloseReason, excerpt};
use super::deliver::Routed;
use super::link::LinkId;
use super::memory::Level;
use super::message::{Message, MessageParts};
use super::mount;
use super::store::Wait;
use super::{Broker, NONE};
use crate::codec::{Ack, Packet, Property, Publish, QoS, ReasonCode};
use crate::config::QueuePolicy;
use crate::logger::notice;
use crate::time::Millis;
use crate::topic;

pub(super) const PAYLOAD_NOT_TEXT: &str = "the Payload Format Indicator says UTF-8, but the payload is not";

/// Open QoS 2 messages that are tolerated whatever Receive Maximum says.
const TOLERATED_OPEN: usize = 1000;

/// Bytes of a topic that gets no alias while memory is full: a client may have some, of 64 kB each.
const ALIAS_LARGE: usize = 1024;

/// The properties of a PUBLISH that the broker itself acts on.
#[derive(Default)]
struct OwnProperties {
    alias: Option<u16>,
    expiry_s: Option<u32>,
    is_text: bool,
}

const QUEUE_FULL: &str = "the queue of a subscriber is full (max_queued_messages, max_queued_bytes)";
const NO_MEMORY: &str = "the broker has no memory for more retained messages (memory_limit)";
const STORE_FAILS: &str =
    "the message could not be stored: the storage of the broker is full or fails; try again later";

/// Why a message is not forwarded.
type Refusal = Box<(ReasonCode, Cow<'static, str>)>;

#[cold]
fn refused(code: ReasonCode, why: &'static str) -> Option<Refusal> {
    Some(Box::new((code, why.into())))
}

/// How a PUBLISH is answered, and when.
pub(super) struct Answer<'a> {
    qos: QoS,
    packet_id: u16,
    reason: ReasonCode,
    why: &'a str,
    wait: Wait,
    /// The publisher must wait until this link's client has taken some of what waits for it.
    pub wait_for: LinkId,
}

impl Broker {
    pub(super) fn publish(&mut self, id: LinkId, packet: &Publish, now: Millis) -> Result<(), CloseReason> {
        self.clients.stats.publishes_received += 1;
        self.clients.stats.publish_bytes_received += packet.payload.len() as u64;
        let mut own = OwnProperties::default();
        let mut forwarded = Vec::new();
        let mut properties = packet.properties.as_bytes();
        if !properties.is_empty() {
            own = own_properties(packet);
            if own.alias.is_some() || own.expiry_s.is_some() {
                packet.properties.forwarded_into(&mut forwarded);
                properties = &forwarded;
            }
        }
        let link = &mut self.clients.links[id as usize];
        link.publishes_received = link.publishes_received.wrapping_add(1);
        let (session, max_qos) = (link.session, link.max_qos);
        let resolved: Rc<str>;
        let topic = if own.alias.is_none() && !link.has_mount {
            packet.topic
        } else {
            resolved = self.resolve_topic(id, own.alias, packet.topic)?;
            &resolved
        };
        self.check_publish(id, packet, topic, max_qos)?;
        if log::max_level() >= log::LevelFilter::Debug {
            self.log_publish(id, packet, topic);
        }
        if let Some(fault) = self.clients.config.topic_fault("topic", topic) {
            return self.refuse_topic(id, packet, topic, fault, now);
        }
        if packet.qos == QoS::ExactlyOnce && !self.is_first(id, packet.packet_id, now)? {
            // [MQTT-4.3.3-2] (3.1.1) [MQTT-4.3.3-10] (5.0)
            if !self.clients.is_at_gate(session, packet.packet_id, id) {
                let pubrec = Packet::PubRec(answer(packet.packet_id, ReasonCode::Success));
                let position = self.clients.promise(session, now);
                self.clients.send_after(id, &pubrec, Wait { position, publish: 0 });
            }
            return Ok(());
        }
        // Not for a small payload behind long properties: it would hold all of them.
        let whole = self.large_packet.clone().filter(|whole| packet.payload.len() * 2 > whole.len());
        let parts = MessageParts {
            qos: packet.qos,
            retain: packet.retain,
            expires_at: own.expiry_s.map_or(Millis::NEVER, |seconds| now + Millis::from_secs(seconds.into())),
            topic,
            properties,
            payload: packet.payload,
            packet: whole.as_ref(),
        };
        if let Some(refusal) = self.refusal(id, session, &parts, own.is_text) {
            self.refuse_publish(id, packet, topic, &refusal, now);
            return Ok(());
        }
        let is_gated = self.clients.is_gate_for(session, packet.qos, packet.retain, topic);
        if packet.qos == QoS::AtMostOnce && !packet.retain && !is_gated {
            // Nothing of it is promised: most messages go this way.
            let wait_for = self.route(parts, session, now).wait_for;
            if wait_for != NONE {
                self.clients.pause(id, wait_for, now);
            }
            return Ok(());
        }
        if is_gated {
            self.clients.accept_at_gate(id, packet, &parts, now);
            return Ok(());
        }
        let answer = self.distribute(&parts, packet.packet_id, session, id, now);
        if packet.qos > QoS::AtMostOnce {
            self.answer_publish(id, &answer, now);
        }
        if answer.wait_for != NONE {
            self.clients.pause(id, answer.wait_for, now);
        }
        Ok(())
    }

    /// Retains and routes a message. `publisher` is a session, or NONE; `id` is the link that will be answered, or NONE.
    pub(super) fn distribute(
        &mut self,
        parts: &MessageParts,
        packet_id: u16,
        publisher: u32,
        id: LinkId,
        now: Millis,
    ) -> Answer<'static> {
        let is_answered = parts.qos > QoS::AtMostOnce && id != NONE;
        if is_answered {
            self.clients.store.begin_publish();
        }
        match id {
            _ if !parts.retain => {}
            NONE => self.retain_for_absent(parts, publisher, now),
            _ => self.retain(parts, publisher, now),
        }
        let Routed { is_wanted, is_refused, wait_for } = self.route(*parts, publisher, now);
        let mut wait = Wait::default();
        if is_answered {
            wait.publish = self.clients.store.end_publish(id);
            if parts.retain {
                wait.position = self.clients.store.promise(now);
            }
        }
        let reason = if is_refused && self.clients.config.queue_policy == QueuePolicy::Reject {
            if is_answered {
                log::debug!("Client {} is told of '{}': {QUEUE_FULL}.", self.clients.name(id), parts.topic);
            }
            ReasonCode::QuotaExceeded
        } else if !is_wanted {
            ReasonCode::NoMatchingSubscribers
        } else {
            ReasonCode::Success
        };
        Answer { qos: parts.qos, packet_id, reason, why: QUEUE_FULL, wait, wait_for }
    }

    /// Why a message is not kept; nothing if it may be. One that takes no more room than the topic's last one always may.
    pub(super) fn retained_refusal(&self, parts: &MessageParts) -> Option<Cow<'static, str>> {
        let config = &self.clients.config;
        let (count_max, bytes_max) = (config.max_retained_messages as usize, config.max_retained_bytes as usize);
        let len = parts.topic.len() + parts.properties.len() + parts.payload.len();
        let (count, bytes) = self.retained.of_clients();
        let is_short = self.clients.memory.level() >= Level::Overflow;
        let has_many = count_max != 0 && count >= count_max;
        let has_much = bytes_max != 0 && bytes + len > bytes_max;
        if !(is_short || has_many || has_much) || parts.payload.is_empty() {
            return None;
        }
        let older = self.retained.find(parts.topic);
        let older_len = older.map_or(0, Message::content_len);
        if older.is_none() && is_short {
            Some(NO_MEMORY.into())
        } else if older.is_none() && has_many {
            Some(format!("{count} messages are retained, and max_retained_messages is {count_max}").into())
        } else if has_much && len > older_len && bytes - older_len + len > bytes_max {
            let sum = bytes - older_len + len;
            Some(format!("with it {sum} bytes would be retained, and max_retained_bytes is {bytes_max}").into())
        } else {
            None
        }
    }

    /// Whether a message cannot be accepted while storage fails: something of it would have to be stored, and its publisher
    /// can be told. 3.x has no word for it, and gets no answer until storage works again.
    #[cold]
    fn is_unstorable(&self, id: LinkId, parts: &MessageParts) -> bool {
        let link = &self.clients.links[id as usize];
        if !link.version.has_properties() || !self.clients.store.is_strict() {
            return false;
        }
        if parts.retain || parts.qos == QoS::ExactlyOnce && self.clients.sessions[link.session as usize].is_stored() {
            return true;
        }
        let mut matches = Vec::new();
        self.index.matches_into(parts.topic, NONE, &mut matches);
        let sessions = &self.clients.sessions;
        matches.iter().any(|&filter| {
            self.index.has_shares(filter)
                || self.index.subscribers(filter).iter().any(|it| sessions[it.session as usize].is_stored())
        })
    }

    #[cold]
    fn refuse_publish(&mut self, id: LinkId, packet: &Publish, topic: &str, refusal: &Refusal, now: Millis) {
        let (qos, packet_id, (reason, why)) = (packet.qos, packet.packet_id, &**refusal);
        log::debug!(
            "Denied PUBLISH from {} {}: {why}. It came from {}.",
            self.clients.client_id(id),
            Shown { packet, topic },
            self.clients.links[id as usize].peer
        );
        self.clients.stats.publishes_refused += 1;
        self.log_first_refusal(id, topic, why);
        if qos == QoS::AtMostOnce {
            return;
        }
        let position = if qos == QoS::ExactlyOnce && !self.clients.links[id as usize].version.has_properties() {
            self.clients.promise(self.clients.links[id as usize].session, now)
        } else {
            0
        };
        let wait = Wait { position, publish: 0 };
        self.answer_publish(id, &Answer { qos, packet_id, reason: *reason, why, wait, wait_for: NONE }, now);
    }

    /// Refuses a retained message that was accepted and waited for the store.
    #[cold]
    pub(super) fn refuse_routed(&mut self, id: LinkId, packet_id: u16, parts: &MessageParts, why: &str, now: Millis) {
        self.clients.stats.publishes_refused += 1;
        self.log_first_refusal(id, parts.topic, why);
        if parts.qos > QoS::AtMostOnce {
            let (qos, reason, wait) = (parts.qos, ReasonCode::QuotaExceeded, Wait::default());
            self.answer_publish(id, &Answer { qos, packet_id, reason, why, wait, wait_for: NONE }, now);
        }
    }

    /// Stores or clears the retained message of a topic. [MQTT-3.3.1-5] [MQTT-3.3.1-10] (3.1.1) [MQTT-3.3.1-6] (5.0)
    /// `publisher` is a session, or NONE.
    pub(super) fn retain(&mut self, parts: &MessageParts, publisher: u32, now: Millis) {
        if parts.payload.is_empty() {
            self.clear_retained(parts.topic, now);
        } else {
            let is_stored = self.clients.store.is_on();
            if is_stored && !self.retained.find(parts.topic).is_some_and(|message| message.says(parts)) {
                self.clients.store.retained_changed(parts.topic, now);
            }
            let Clients { sessions, publisher_seed: seed, .. } = &mut self.clients;
            let hash = sessions.get(publisher as usize).map(|session| seed.hash_client(session.client_id.as_bytes()));
            let message = match hash {
                Some(publisher) => Message::of_publisher(parts, publisher),
                None => Message::new(parts),
            };
            self.retained.insert(message);
            if self.clients.config.check_retain_source {
                self.note_source(parts.topic, publisher);
            }
        }
        if parts.expires_at != Millis::NEVER {
            self.arm_retained();
        }
    }

    /// Removes the retained message of a topic; says whether there was one.
    pub(super) fn clear_retained(&mut self, topic: &str, now: Millis) -> bool {
        let was_there = self.retained.remove(topic);
        if was_there {
            self.clients.store.retained_changed(topic, now);
        }
        was_there
    }

    /// The whole topic of a PUBLISH with an alias, or from below a mount point. It may be too long then.
    #[inline(never)]
    fn resolve_topic(&mut self, id: LinkId, alias: Option<u16>, topic: &str) -> Result<Rc<str>, CloseReason> {
        let topic = match alias {
            Some(alias) => self.resolve_alias(id, alias, topic)?,
            None if !topic::is_valid_name(topic) => return Err(CloseReason::topic_name_invalid(topic)),
            None => topic.into(),
        };
        let link = &self.clients.links[id as usize];
        Ok(if link.has_mount { [&*link.rules.mount_point, &*topic].concat().into() } else { topic })
    }

    /// The topic an alias stands for, after taking note of a new one. [MQTT-3.2.2-17] [MQTT-3.3.2-8] (5.0)
    fn resolve_alias(&mut self, id: LinkId, alias: u16, topic: &str) -> Result<Rc<str>, CloseReason> {
        let maximum = self.clients.links[id as usize].rules.max_topic_alias;
        if !topic.is_empty() && !topic::is_valid_name(topic) {
            return Err(CloseReason::topic_name_invalid(topic));
        }
        if maximum == 0 {
            return Err(CloseReason::topic_alias_invalid(alias, maximum));
        }
        if topic.len() > ALIAS_LARGE && self.clients.memory.level() == Level::Full {
            return Err(CloseReason::no_memory_for_alias(topic.len()));
        }
        let aliases = self.clients.link_mut(id).aliases_mut();
        let known = if topic.is_empty() { Ok(()) } else { aliases.set(alias, topic, maximum) };
        known.and_then(|()| aliases.resolve(alias, maximum)).map_err(|error| match error {
            super::alias::AliasError::TooHigh => CloseReason::topic_alias_invalid(alias, maximum),
            super::alias::AliasError::Unknown => CloseReason::topic_alias_unknown(alias),
        })
    }

    /// What closes the link.
    fn check_publish(&mut self, id: LinkId, packet: &Publish, topic: &str, max_qos: QoS) -> Result<(), CloseReason> {
        let is_valid = self.latest.is(topic) || topic::is_valid_name(topic);
        // One that is too long with its mount point is refused, and the link stays.
        if !is_valid && topic.len() <= mount::TOPIC_MAX {
            // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
            return Err(CloseReason::topic_name_invalid(topic));
        }
        if packet.qos > max_qos {
            // [MQTT-3.2.2-11] (5.0)
            return Err(CloseReason::qos_not_supported(max_qos));
        }
        if packet.retain && !self.clients.config.retain_available {
            // [MQTT-3.2.2-14] (5.0)
            return Err(CloseReason::retain_not_supported());
        }
        if packet.dup && packet.qos == QoS::AtMostOnce {
            self.warn_once(id, "sets DUP on QoS 0 messages, which means nothing");
        }
        Ok(())
    }

    /// Whether a QoS 2 message is new. A client that overshoots our Receive Maximum is tolerated and logged once, because
    /// several do (paho and esp-mqtt keep windows of their own, of 100 and more); one that goes far beyond is not. What
    /// is open costs two bytes each. [MQTT-3.3.4-7] (5.0)
    fn is_first(&mut self, id: LinkId, packet_id: u16, now: Millis) -> Result<bool, CloseReason> {
        let link = &self.clients.links[id as usize];
        let session = link.session;
        let is_first = self.clients.session_mut(session).received.insert(packet_id);
        if is_first {
            self.clients.store.received(self.clients.sessions[session as usize].number, packet_id, now);
        }
        let maximum = usize::from(self.clients.links[id as usize].receive_maximum);
        let open = self.clients.sessions[session as usize].received.as_slice().len();
        if maximum != 0 && open > maximum && self.clients.links[id as usize].version.has_receive_maximum() {
            if open > maximum.saturating_mul(10).max(TOLERATED_OPEN) {
                return Err(CloseReason::receive_maximum_exceeded(open, maximum));
            }
            self.warn_once(id, "has exceeded its receive-maximum quota; tolerated up to ten times as much");
        }
        Ok(is_first)
    }

    /// What is not forwarded, though the link stays.
    fn refusal(&self, id: LinkId, session: u32, parts: &MessageParts, is_text: bool) -> Option<Refusal> {
        let limit = self.clients.config.message_size_limit as usize;
        if limit != 0 && parts.payload.len() > limit {
            return refused(ReasonCode::ImplementationSpecificError, "the payload is larger than message_size_limit");
        }
        if let Some(denial) = self.clients.write_denial(session, parts.topic) {
            return Some(Box::new((ReasonCode::NotAuthorized, *denial)));
        }
        if is_text && std::str::from_utf8(parts.payload).is_err() {
            return refused(ReasonCode::PayloadFormatInvalid, PAYLOAD_NOT_TEXT);
        }
        if parts.retain
            && let Some(why) = self.retained_refusal(parts)
        {
            return Some(Box::new((ReasonCode::QuotaExceeded, why)));
        }
        if self.clients.store.is_failing && parts.qos > QoS::AtMostOnce && self.is_unstorable(id, parts) {
            return refused(ReasonCode::QuotaExceeded, STORE_FAILS);
        }
        None
    }

    /// A topic that is too long or too deep. Clients of 3.x cannot be told in an acknowledgement, and what they publish is not to
    /// vanish without a word: the link ends, as Mosquitto does it. Unless it is only too long with the mount point, of which the
    /// client knows nothing.
    #[cold]
    fn refuse_topic(
        &mut self,
        id: LinkId,
        packet: &Publish,
        topic: &str,
        fault: String,
        now: Millis,
    ) -> Result<(), CloseReason> {
        let is_told = self.clients.links[id as usize].version.has_properties();
        let refusal = match topic.len() > mount::TOPIC_MAX {
            true => (ReasonCode::TopicNameInvalid, mount::TOO_LONG.into()),
            false if is_told => (ReasonCode::TopicNameInvalid, fault.into()),
            false => return Err(CloseReason::topic_too_large(fault)),
        };
        self.refuse_publish(id, packet, topic, &Box::new(refusal), now);
        Ok(())
    }

    /// Answers a PUBLISH by its QoS. [MQTT-3.3.4-1]
    pub(super) fn answer_publish(&mut self, id: LinkId, answer: &Answer, now: Millis) {
        let Answer { qos, packet_id, reason, why, wait, .. } = *answer;
        // [MQTT-4.3.3-9] (5.0); 3.x has no refusal, and its PUBREL comes.
        let link = &self.clients.links[id as usize];
        if qos == QoS::ExactlyOnce && reason.is_error() && link.version.has_properties() {
            let session = link.session;
            self.clients.session_mut(session).received.remove(packet_id);
            self.clients.store.released(self.clients.sessions[session as usize].number, packet_id, now);
        }
        self.explain(id, reason, (why, 0), |clients, properties| {
            let ack = Ack { packet_id, reason, properties };
            match qos {
                QoS::ExactlyOnce => clients.send_after(id, &Packet::PubRec(ack), wait),
                _ => clients.send_after(id, &Packet::PubAck(ack), wait),
            }
        });
    }

    /// Not among what every message runs through.
    #[cold]
    fn log_publish(&self, id: LinkId, packet: &Publish, topic: &str) {
        log::debug!("Received PUBLISH from {} {}", self.clients.client_id(id), Shown { packet, topic });
    }

    /// A message is refused. Some clients do that all day long, and nothing tells a client of 3.x: the log shows the first one of
    /// each connection, and all of them to those who look for faults.
    fn log_first_refusal(&mut self, id: LinkId, topic: &str, why: &str) {
        let link = self.clients.link_mut(id);
        if !std::mem::replace(&mut link.is_refused, true) {
            notice!(
                client = self.clients.client_id(id);
                "A message of client {} to '{}' is refused: {why}. Further ones are logged for debugging.",
                self.clients.name(id),
                excerpt(topic)
            );
        }
    }

    /// Logs a harmless breach of the protocol, once a link.
    fn warn_once(&mut self, id: LinkId, what: &str) {
        let link = self.clients.link_mut(id);
        if !std::mem::replace(&mut link.is_warned, true) {
            let client_id = self.clients.client_id(id);
            log::warn!(client = client_id, what = what; "Client {} {what}.", self.clients.name(id));
        }
    }
}

/// A PUBLISH as Mosquitto shows it: `(d0, q1, r0, m5, 'house/light', ... (2 bytes))`.
struct Shown<'a> {
    packet: &'a Publish<'a>,
    topic: &'a str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Publish { dup, qos, retain, packet_id, payload, .. } = *self.packet;
        let (dup, qos, retain, topic, len) = (dup as u8, qos as u8, retain as u8, self.topic, payload.len());
        write!(f, "(d{dup}, q{qos}, r{retain}, m{packet_id}, '{topic}', ... ({len} bytes))")
    }
}

fn own_properties(packet: &Publish) -> OwnProperties {
    let mut own = OwnProperties::default();
    for property in packet.properties.iter() {
        match property {
            Property::TopicAlias(alias) => own.alias = Some(alias),
            Property::MessageExpiryInterval(seconds) => own.expiry_s = Some(seconds),
            Property::PayloadFormatIndicator(format) => own.is_text = format == 1,
            _ => {}
        }
    }
    own
}
