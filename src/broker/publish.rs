//! PUBLISH from a client: checked, retained, routed, acknowledged. What a client may not do is said in the
//! acknowledgement where the version has a word for it; what breaks the protocol closes the link.

use std::rc::Rc;

use super::acknowledge::answer;
use super::clients::Clients;
use super::close::CloseReason;
use super::link::LinkId;
use super::message::{Message, MessageParts};
use super::{Broker, NONE};
use crate::codec::{Ack, Packet, Property, Publish, QoS, ReasonCode};
use crate::config::QueuePolicy;
use crate::time::Millis;
use crate::topic;

pub(super) const PAYLOAD_NOT_TEXT: &str = "the Payload Format Indicator says UTF-8, but the payload is not";

/// Open QoS 2 messages that are tolerated whatever Receive Maximum says.
const TOLERATED_OPEN: usize = 1000;

/// The properties of a PUBLISH that the broker itself acts on.
#[derive(Default)]
struct OwnProperties {
    alias: Option<u16>,
    expiry_s: Option<u32>,
    is_text: bool,
}

impl Broker {
    pub(super) fn publish(&mut self, id: LinkId, packet: Publish, now: Millis) -> Result<(), CloseReason> {
        self.clients.stats.publishes_received += 1;
        self.clients.stats.publish_bytes_received += packet.payload.len() as u64;
        let mut own = OwnProperties::default();
        let mut forwarded = Vec::new();
        let mut properties = packet.properties.as_bytes();
        if !properties.is_empty() {
            own = own_properties(&packet);
            if own.alias.is_some() || own.expiry_s.is_some() {
                packet.properties.forwarded_into(&mut forwarded);
                properties = &forwarded;
            }
        }
        let resolved: Rc<str>;
        let topic = match own.alias {
            None => packet.topic,
            Some(alias) => {
                resolved = self.resolve_alias(id, alias, packet.topic)?;
                &resolved
            }
        };
        self.check_publish(id, &packet, topic)?;
        let session = self.clients.links[id as usize].session;
        if packet.qos == QoS::ExactlyOnce && !self.is_first(id, packet.packet_id)? {
            // [MQTT-4.3.3-2] (3.1.1) [MQTT-4.3.3-10] (5.0)
            self.clients.send(id, &Packet::PubRec(answer(packet.packet_id, ReasonCode::Success)));
            return Ok(());
        }
        let client_id = self.clients.client_id(id);
        if let Some(refusal) = self.refusal(client_id, topic, packet.payload, own.is_text) {
            log::debug!("Denied PUBLISH from {} to '{topic}': {}.", self.clients.name(id), refusal.1);
            self.acknowledge(id, &packet, refusal.0, refusal.1);
            return Ok(());
        }
        let parts = MessageParts {
            qos: packet.qos,
            retain: packet.retain,
            expires_at: own.expiry_s.map_or(Millis::NEVER, |seconds| now + Millis::from_secs(seconds.into())),
            topic,
            properties,
            payload: packet.payload,
        };
        if packet.retain {
            self.retain(&parts, session);
        }
        let route = self.route(parts, session, now);
        let wait_for = route.wait_for;
        let reason = if route.is_refused && self.clients.config.queue_policy == QueuePolicy::Reject {
            ReasonCode::QuotaExceeded
        } else if !route.is_wanted {
            ReasonCode::NoMatchingSubscribers
        } else {
            ReasonCode::Success
        };
        self.acknowledge(
            id,
            &packet,
            reason,
            "the queue of a subscriber is full (max_queued_messages, max_queued_bytes)",
        );
        if wait_for != NONE {
            self.clients.pause(id, wait_for, now);
        }
        Ok(())
    }

    /// Stores or clears the retained message of a topic. [MQTT-3.3.1-5] [MQTT-3.3.1-10] (3.1.1) [MQTT-3.3.1-6] (5.0)
    /// `publisher` is a session, or NONE.
    pub(super) fn retain(&mut self, parts: &MessageParts, publisher: u32) {
        if parts.payload.is_empty() {
            self.retained.remove(parts.topic);
        } else {
            let Clients { sessions, scratch, seed, .. } = &mut self.clients;
            let publisher = sessions.get(publisher as usize).map(|session| seed.hash_client(&session.client_id));
            let message = match publisher {
                Some(publisher) => Message::of_publisher(parts, publisher, scratch),
                None => Message::new(parts, scratch),
            };
            self.retained.insert(message);
        }
        if parts.expires_at != Millis::NEVER {
            self.arm_retained();
        }
    }

    /// The topic an alias stands for, after taking note of a new one. [MQTT-3.2.2-17] [MQTT-3.3.2-8] (5.0)
    fn resolve_alias(&mut self, id: LinkId, alias: u16, topic: &str) -> Result<Rc<str>, CloseReason> {
        let maximum = self.clients.config.max_topic_alias;
        if !topic.is_empty() && !topic::is_valid_name(topic) {
            return Err(CloseReason::topic_name_invalid(topic));
        }
        if maximum == 0 {
            return Err(CloseReason::topic_alias_invalid(alias, maximum));
        }
        let aliases = self.clients.link_mut(id).aliases_mut();
        let known = if topic.is_empty() { Ok(()) } else { aliases.set(alias, topic, maximum) };
        known.and_then(|()| aliases.resolve(alias, maximum)).map_err(|error| match error {
            super::alias::AliasError::TooHigh => CloseReason::topic_alias_invalid(alias, maximum),
            super::alias::AliasError::Unknown => CloseReason::topic_alias_unknown(alias),
        })
    }

    /// What closes the link.
    fn check_publish(&mut self, id: LinkId, packet: &Publish, topic: &str) -> Result<(), CloseReason> {
        if !topic::is_valid_name(topic) {
            // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
            return Err(CloseReason::topic_name_invalid(topic));
        }
        if packet.qos > self.clients.config.max_qos {
            // [MQTT-3.2.2-11] (5.0)
            return Err(CloseReason::qos_not_supported(self.clients.config.max_qos));
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
    fn is_first(&mut self, id: LinkId, packet_id: u16) -> Result<bool, CloseReason> {
        let link = &self.clients.links[id as usize];
        let session = link.session;
        let is_first = self.clients.session_mut(session).received.insert(packet_id);
        let maximum = usize::from(self.clients.config.max_inflight_messages);
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
    fn refusal(
        &self,
        client_id: &str,
        topic: &str,
        payload: &[u8],
        is_text: bool,
    ) -> Option<(ReasonCode, &'static str)> {
        let limit = self.clients.config.message_size_limit as usize;
        if limit != 0 && payload.len() > limit {
            return Some((ReasonCode::ImplementationSpecificError, "the payload is larger than message_size_limit"));
        }
        if !self.may_publish(client_id, topic) {
            return Some((ReasonCode::NotAuthorized, "topics below $SYS belong to the broker"));
        }
        if is_text && std::str::from_utf8(payload).is_err() {
            return Some((ReasonCode::PayloadFormatInvalid, PAYLOAD_NOT_TEXT));
        }
        None
    }

    /// Answers a PUBLISH by its QoS. [MQTT-3.3.4-1]
    fn acknowledge(&mut self, id: LinkId, packet: &Publish, reason: ReasonCode, why: &'static str) {
        if packet.qos == QoS::AtMostOnce {
            return;
        }
        // [MQTT-4.3.3-9] (5.0); 3.x has no refusal, and its PUBREL comes.
        let link = &self.clients.links[id as usize];
        if packet.qos == QoS::ExactlyOnce && reason.is_error() && link.version.has_properties() {
            let session = link.session;
            self.clients.session_mut(session).received.remove(packet.packet_id);
        }
        self.explain(id, reason, (why, 0), |clients, properties| {
            let ack = Ack { packet_id: packet.packet_id, reason, properties };
            match packet.qos {
                QoS::ExactlyOnce => clients.send(id, &Packet::PubRec(ack)),
                _ => clients.send(id, &Packet::PubAck(ack)),
            }
        });
    }

    /// Logs a harmless breach of the protocol, once a link.
    fn warn_once(&mut self, id: LinkId, what: &str) {
        let link = self.clients.link_mut(id);
        if !std::mem::replace(&mut link.is_warned, true) {
            log::warn!("Client {} {what}.", self.clients.name(id));
        }
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
