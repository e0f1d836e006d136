//! PUBACK, PUBREC, PUBREL and PUBCOMP from a client: the progress of QoS 1 and 2 exchanges, both ways. A packet id nobody
//! knows is answered where an answer is due and never closes the link.

use super::Broker;
use super::clients::Clients;
use super::link::LinkId;
use super::store::Wait;
use crate::codec::{Ack, Packet, Properties, PropertiesBuf, Property, QoS, ReasonCode};
use crate::time::Millis;

impl Broker {
    /// The client has a QoS 1 message. [MQTT-4.3.2-1] (3.1.1) [MQTT-4.3.2-3] (5.0)
    pub(super) fn puback(&mut self, id: LinkId, ack: Ack, now: Millis) {
        let session = self.clients.links[id as usize].session;
        let delivery = self.clients.sessions[session as usize].delivery_mut();
        let open = delivery.position(ack.packet_id).filter(|&at| delivery.inflight[at].qos == QoS::AtLeastOnce);
        match open {
            Some(at) => {
                // A refusal settles the message as well. [MQTT-4.4.0-2] [MQTT-4.8.2-6] (5.0)
                self.clients.complete(session, at, now);
                self.acknowledged(id, now);
            }
            None => log::debug!("{}: PUBACK for unknown packet id {}.", self.clients.name(id), ack.packet_id),
        }
    }

    /// The client has a QoS 2 message; PUBREL lets it go on. [MQTT-4.3.3-1] (3.1.1) [MQTT-4.3.3-4] (5.0)
    pub(super) fn pubrec(&mut self, id: LinkId, ack: Ack, now: Millis) {
        let session = self.clients.links[id as usize].session;
        let delivery = self.clients.sessions[session as usize].delivery_mut();
        let is_open = |at: &usize| delivery.inflight[*at].qos == QoS::ExactlyOnce && !delivery.inflight[*at].is_unsent;
        let open = delivery.position(ack.packet_id).filter(is_open);
        let (mut reason, mut position) = (ReasonCode::Success, 0);
        match open {
            Some(at) if ack.reason.is_error() => {
                self.clients.complete(session, at, now);
                self.acknowledged(id, now);
                return;
            }
            // From here on only PUBREL is sent again. [MQTT-4.3.3-6] (5.0)
            Some(at) => position = self.clients.release(session, at, now),
            None if ack.reason.is_error() => return,
            None => reason = ReasonCode::PacketIdentifierNotFound,
        }
        self.explain(id, reason, (NO_SUCH_PACKET_ID, 0), |clients, properties| {
            let pubrel = Packet::PubRel(Ack { packet_id: ack.packet_id, reason, properties });
            clients.send_after(id, &pubrel, Wait { position, publish: 0 });
        });
    }

    /// The client completes a QoS 2 message we received. [MQTT-4.3.3-2] (3.1.1) [MQTT-4.3.3-11] (5.0)
    pub(super) fn pubrel(&mut self, id: LinkId, ack: Ack, now: Millis) {
        let session = self.clients.links[id as usize].session;
        let (reason, position) = match self.clients.session_mut(session).received.remove(ack.packet_id) {
            true => (ReasonCode::Success, self.clients.released(session, ack.packet_id, now)),
            // It may have been released on an earlier link, and that not be safe yet.
            false => (ReasonCode::PacketIdentifierNotFound, self.clients.promise(session, now)),
        };
        self.explain(id, reason, (NO_SUCH_PACKET_ID, 0), |clients, properties| {
            let pubcomp = Packet::PubComp(Ack { packet_id: ack.packet_id, reason, properties });
            clients.send_after(id, &pubcomp, Wait { position, publish: 0 });
        });
    }

    /// The client is done with a QoS 2 message. [MQTT-4.3.3-1] (3.1.1) [MQTT-4.3.3-5] (5.0)
    pub(super) fn pubcomp(&mut self, id: LinkId, ack: Ack, now: Millis) {
        let session = self.clients.links[id as usize].session;
        let delivery = self.clients.sessions[session as usize].delivery_mut();
        let is_open =
            |at: &usize| delivery.inflight[*at].qos == QoS::ExactlyOnce && delivery.inflight[*at].message.is_none();
        match delivery.position(ack.packet_id).filter(is_open) {
            Some(at) => {
                self.clients.complete(session, at, now);
                self.acknowledged(id, now);
            }
            None => log::debug!("{}: PUBCOMP for unknown packet id {}.", self.clients.name(id), ack.packet_id),
        }
    }
}

impl Clients {
    /// Ends the exchange at place `at` of the session's.
    pub(super) fn complete(&mut self, session: u32, at: usize, now: Millis) {
        let (entry, message) = self.sessions[session as usize].delivery_mut().complete(at);
        self.entry_gone(session, &entry, message.as_ref(), now);
        if let Some(message) = message {
            self.spares.keep(message);
        }
    }

    /// The client has the message at place `at`; says which position PUBREL waits for: the client forgets the packet id then,
    /// and must not get the message again.
    fn release(&mut self, session: u32, at: usize, now: Millis) -> u64 {
        let delivery = self.sessions[session as usize].delivery_mut();
        delivery.inflight[at].sent_at = now;
        let Some(message) = delivery.release_message(at) else { return delivery.inflight[at].gate };
        let entry = delivery.inflight[at].entry;
        let gate = self.gate(&entry, QoS::ExactlyOnce);
        self.sessions[session as usize].delivery_mut().inflight[at].gate = gate;
        self.entry_released(session, &entry, Some(&message), now);
        self.spares.keep(message);
        gate
    }

    /// The client may use the packet id for another message: PUBCOMP says so, once that is safe. Says which position it
    /// waits for.
    fn released(&mut self, session: u32, packet_id: u16, now: Millis) -> u64 {
        let number = self.sessions[session as usize].number;
        self.store.released(number, packet_id, now);
        self.promise(session, now)
    }
}

impl Broker {
    /// Hands `send` a reason string if `reason` is an error, the client wants to know, and it takes packets so long. A
    /// sentence is short: only a client with a tiny Maximum Packet Size goes without. [MQTT-3.1.2-29] [MQTT-3.4.2-2] (5.0)
    pub(super) fn explain(
        &mut self,
        id: LinkId,
        reason: ReasonCode,
        (why, codes_len): (&str, usize),
        send: impl FnOnce(&mut Clients, Properties),
    ) {
        let link = &self.clients.links[id as usize];
        let is_told = reason.is_error()
            && link.wants_problem_information
            && link.version.has_properties()
            && why.len() + codes_len + REASON_STRING_ROOM <= link.packet_size_max as usize;
        let mut properties = PropertiesBuf::default();
        if is_told {
            properties.push(Property::ReasonString(why));
        }
        send(&mut self.clients, properties.as_properties());
    }
}

/// What an acknowledgement needs besides the text of its reason string and its codes.
const REASON_STRING_ROOM: usize = 24;

const NO_SUCH_PACKET_ID: &str = "no QoS 2 exchange with this packet id is open in this session";

/// An acknowledgement without properties.
pub(super) fn answer(packet_id: u16, reason: ReasonCode) -> Ack<'static> {
    Ack { packet_id, reason, properties: Properties::EMPTY }
}
