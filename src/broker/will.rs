//! The Will: kept with the session from CONNECT on, published once when the link ends in any way but a clean DISCONNECT.
//! [MQTT-3.1.2-8] [MQTT-3.1.2-10]

use super::close::excerpt;
use super::message::MessageParts;
use super::{Broker, NONE};
use crate::codec::{self, Property, QoS};
use crate::logger::notice;
use crate::time::Millis;

/// A will as it came with CONNECT.
pub struct Will {
    pub topic: Box<str>,
    pub payload: Box<[u8]>,
    /// Forwarded properties.
    pub properties: Box<[u8]>,
    pub qos: QoS,
    pub retain: bool,
    /// Seconds between the end of the link and the will. [MQTT-3.1.3-9] (5.0)
    pub delay_s: u32,
    /// When it is due, if it waits for that.
    pub due_at: Millis,
    /// Seconds from its publication until it expires.
    pub expiry_s: Option<u32>,
}

impl Will {
    /// `mount_point` stands in front of the topic.
    pub fn new(will: &codec::Will, mount_point: &str) -> Will {
        let mut properties = Vec::new();
        will.properties.forwarded_into(&mut properties);
        let (mut delay_s, mut expiry_s) = (0, None);
        for property in will.properties.iter() {
            match property {
                Property::WillDelayInterval(seconds) => delay_s = seconds,
                Property::MessageExpiryInterval(seconds) => expiry_s = Some(seconds),
                _ => {}
            }
        }
        Will {
            topic: [mount_point, will.topic].concat().into(),
            payload: will.payload.into(),
            properties: properties.into(),
            qos: will.qos,
            retain: will.retain,
            delay_s,
            due_at: Millis::NEVER,
            expiry_s,
        }
    }
}

impl Broker {
    /// Publishes the will of a session, if it has one, and forgets it.
    pub(super) fn publish_will(&mut self, id: u32, now: Millis) {
        let session = self.clients.session_mut(id);
        let Some(will) = session.will.take() else { return };
        self.clients.store_session(id, now);
        if let Some(denial) = self.clients.write_denial(id, &will.topic) {
            let session = &self.clients.sessions[id as usize];
            log::debug!("The will of {} for '{}' is not published: {denial}.", session.client_id, will.topic);
            return;
        }
        let parts = MessageParts {
            qos: will.qos,
            retain: will.retain,
            expires_at: will.expiry_s.map_or(Millis::NEVER, |seconds| now + Millis::from_secs(seconds.into())),
            topic: &will.topic,
            properties: &will.properties,
            payload: &will.payload,
            packet: None,
        };
        if self.clients.gate_will(id, &parts, now) {
            return;
        }
        if will.retain {
            // [MQTT-3.1.2-17] (3.1.1) [MQTT-3.1.2-15] (5.0)
            self.retain_for_absent(&parts, id, now);
        }
        // A will is one message, and its publisher is gone: nobody waits.
        self.route(parts, NONE, now);
    }

    /// Retains a message whose publisher is gone, the session `publisher`. If there is no room for it nobody is left to be told, and
    /// those who wait for the news get it all the same.
    pub(super) fn retain_for_absent(&mut self, parts: &MessageParts, publisher: u32, now: Millis) {
        let Some(why) = self.retained_refusal(parts) else { return self.retain(parts, publisher, now) };
        let client_id = self.clients.sessions.get(publisher as usize).map_or("", |session| &session.client_id);
        notice!(
            client = client_id;
            "A message of {client_id}, which is gone, for '{}' is sent and not retained: {why}.", excerpt(parts.topic)
        );
    }
}
