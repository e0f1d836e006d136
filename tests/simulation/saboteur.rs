//! Planted bugs: a saboteur between the broker and its clients alters what the broker writes, as a broken broker would. The
//! model has to notice every kind.

use std::collections::{HashMap, HashSet};

use midge::codec::{
    Direction, Packet, PropertiesBuf, Property, Publish, QoS, ReasonCode, Split, Version, decode, split_frame,
};

use super::ledger::{Key, id_of};
use super::model::Model;
use super::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// None: what the model then finds is its own fault.
    Nothing,
    /// A QoS 1 message never reaches a subscriber.
    DropQoS1,
    DropQoS2,
    /// A QoS 2 message comes again under another packet id.
    DoubleQoS2,
    DoubleQoS0,
    /// Two messages of one publisher change places.
    Swap,
    DropWill,
    /// A retained message that was replaced comes instead of the present one.
    StaleRetained,
    ClearRetain,
    SetRetain,
    /// DUP on what was never sent.
    SetDup,
    ClearDup,
    WrongTopic,
    WrongPayload,
    WrongSessionPresent,
    LowerGrantedQoS,
    StripSubscriptionId,
    WrongQoS,
    /// A message comes again on the same link, at once.
    RepeatAtOnce,
    /// A message comes under the packet id of another one.
    WrongPacketId,
    /// An acknowledgement of the client's message never comes.
    DropAcknowledgement,
    WrongExpiry,
    /// A publisher is told that nobody gets its message, or that somebody does.
    WrongRecipients,
}

pub const BUGS: [Bug; 22] = [
    Bug::DropQoS1,
    Bug::DropQoS2,
    Bug::DoubleQoS2,
    Bug::DoubleQoS0,
    Bug::Swap,
    Bug::DropWill,
    Bug::StaleRetained,
    Bug::ClearRetain,
    Bug::SetRetain,
    Bug::SetDup,
    Bug::ClearDup,
    Bug::WrongTopic,
    Bug::WrongPayload,
    Bug::WrongSessionPresent,
    Bug::LowerGrantedQoS,
    Bug::StripSubscriptionId,
    Bug::WrongQoS,
    Bug::RepeatAtOnce,
    Bug::WrongPacketId,
    Bug::DropAcknowledgement,
    Bug::WrongExpiry,
    Bug::WrongRecipients,
];

pub struct Saboteur {
    bug: Bug,
    rng: Rng,
    /// How often it struck.
    pub strikes: usize,
    /// What is withheld for good: client and message.
    dropped: HashSet<(usize, Key)>,
    /// A packet that waits for its successor, by connection.
    held: HashMap<usize, Vec<u8>>,
    /// The first retained payload seen of each topic.
    retained: HashMap<String, Vec<u8>>,
}

impl Saboteur {
    pub fn new(bug: Bug, seed: u64) -> Saboteur {
        Saboteur {
            bug,
            rng: Rng::new(seed),
            strikes: 0,
            dropped: HashSet::new(),
            held: HashMap::new(),
            retained: HashMap::new(),
        }
    }

    /// Appends to `out` what becomes of a packet the broker wrote.
    pub fn alter(&mut self, conn: usize, frame: &[u8], model: &Model, out: &mut Vec<u8>) {
        let Some(client) = model.links[conn].client else {
            out.extend_from_slice(frame);
            return;
        };
        let version = model.links[conn].version;
        let Ok(Split::Frame { body, .. }) = split_frame(frame, 0) else { return };
        match decode(frame[0], &frame[body..], version, Direction::ToClient) {
            Ok(Packet::Publish(publish)) => self.alter_publish(conn, client, frame, publish, model, out),
            Ok(Packet::ConnAck(mut connack)) if self.bug == Bug::WrongSessionPresent && version != Version::V31 => {
                connack.session_present = !connack.session_present;
                self.strikes += 1;
                Packet::ConnAck(connack).encode(version, out);
            }
            Ok(Packet::SubAck(mut suback)) if self.bug == Bug::LowerGrantedQoS && suback.codes[0] > 0 => {
                let mut codes = suback.codes.to_vec();
                codes[0] = 0;
                suback.codes = &codes;
                self.strikes += 1;
                Packet::SubAck(suback).encode(version, out);
            }
            Ok(Packet::PubAck(_)) if self.bug == Bug::DropAcknowledgement && self.rng.chance(30) => self.strikes += 1,
            Ok(Packet::PubAck(mut ack)) if self.bug == Bug::WrongRecipients && version == Version::V5 => {
                ack.reason = match ack.reason {
                    ReasonCode::NoMatchingSubscribers => ReasonCode::Success,
                    ReasonCode::Success => ReasonCode::NoMatchingSubscribers,
                    other => other,
                };
                self.strikes += 1;
                Packet::PubAck(ack).encode(version, out);
            }
            _ => out.extend_from_slice(frame),
        }
    }

    /// What waited for a successor in vain.
    pub fn release(&mut self, conn: usize) -> Vec<u8> {
        self.held.remove(&conn).unwrap_or_default()
    }

    fn alter_publish(
        &mut self,
        conn: usize,
        client: usize,
        frame: &[u8],
        publish: Publish,
        model: &Model,
        out: &mut Vec<u8>,
    ) {
        let version = model.links[conn].version;
        let key = id_of(publish.payload);
        if self.dropped.contains(&(client, key)) {
            return;
        }
        if let Some(held) = self.held.remove(&conn) {
            if is_next(&held, publish, version, model) {
                self.strikes += 1;
                out.extend_from_slice(frame);
                out.extend_from_slice(&held);
                return;
            }
            out.extend_from_slice(&held);
        }
        let message = key.and_then(|id| model.messages.get(id as usize));
        let is_will = message.is_some_and(|message| message.is_will);
        let is_struck = self.rng.chance(30);
        let mut properties = PropertiesBuf::default();
        let mut altered = publish;
        let mut payload = publish.payload.to_vec();
        let is_first = !publish.dup;
        match (self.bug, publish.qos) {
            (Bug::DropQoS1, QoS::AtLeastOnce) | (Bug::DropQoS2, QoS::ExactlyOnce) if is_struck && is_first => {
                self.dropped.insert((client, key));
                self.strikes += 1;
                return;
            }
            (Bug::DropWill, _) if is_will => {
                self.strikes += 1;
                return;
            }
            (Bug::DoubleQoS2, QoS::ExactlyOnce) if is_struck && is_first => {
                altered.packet_id = publish.packet_id ^ 0x4000;
                self.strikes += 1;
                out.extend_from_slice(frame);
            }
            (Bug::DoubleQoS0, QoS::AtMostOnce) if is_struck => {
                self.strikes += 1;
                out.extend_from_slice(frame);
            }
            (Bug::Swap, _) if is_struck && is_first && !publish.retain => {
                self.held.insert(conn, frame.to_vec());
                return;
            }
            (Bug::StaleRetained, _) if publish.retain && !publish.topic.is_empty() => {
                let first = self.retained.entry(publish.topic.to_string()).or_insert_with(|| payload.clone());
                self.strikes += usize::from(*first != payload);
                payload = first.clone();
            }
            (Bug::ClearRetain, _) if publish.retain => {
                altered.retain = false;
                self.strikes += 1;
            }
            (Bug::SetRetain, _) if !publish.retain && is_struck => {
                altered.retain = true;
                self.strikes += 1;
            }
            (Bug::RepeatAtOnce, QoS::AtLeastOnce | QoS::ExactlyOnce) if is_first && is_struck => {
                altered.dup = true;
                self.strikes += 1;
                out.extend_from_slice(frame);
            }
            (Bug::WrongPacketId, QoS::AtLeastOnce | QoS::ExactlyOnce) if is_first && publish.packet_id > 1 => {
                altered.packet_id -= 1;
                self.strikes += 1;
            }
            (Bug::WrongExpiry, _) => {
                let changed = |property| match property {
                    Property::MessageExpiryInterval(seconds) => Property::MessageExpiryInterval(seconds + 5),
                    other => other,
                };
                let has_expiry = |property| matches!(property, Property::MessageExpiryInterval(_));
                self.strikes += usize::from(publish.properties.iter().any(has_expiry));
                publish.properties.iter().for_each(|property| properties.push(changed(property)));
                altered.properties = properties.as_properties();
            }
            (Bug::SetDup, QoS::AtLeastOnce | QoS::ExactlyOnce) if is_first && is_struck => {
                altered.dup = true;
                self.strikes += 1;
            }
            (Bug::ClearDup, _) if publish.dup => {
                altered.dup = false;
                self.strikes += 1;
            }
            (Bug::WrongTopic, _) if is_struck && !publish.topic.is_empty() => {
                altered.topic = "another/topic";
                self.strikes += 1;
            }
            (Bug::WrongPayload, _) if is_struck && payload.len() > 5 => {
                *payload.last_mut().unwrap() ^= 1;
                self.strikes += 1;
            }
            (Bug::StripSubscriptionId, _) if !publish.properties.is_empty() && is_struck => {
                altered.properties = Default::default();
                self.strikes += 1;
            }
            (Bug::WrongQoS, QoS::AtLeastOnce) if is_struck && is_first => {
                altered.qos = QoS::AtMostOnce;
                altered.packet_id = 0;
                self.strikes += 1;
            }
            _ => {
                out.extend_from_slice(frame);
                return;
            }
        }
        altered.payload = &payload;
        Packet::Publish(altered).encode(version, out);
    }
}

/// Whether `later` follows the packet `held` on the same way: same publisher, topic and QoS.
fn is_next(held: &[u8], later: Publish, version: Version, model: &Model) -> bool {
    let Ok(Split::Frame { body, .. }) = split_frame(held, 0) else { return false };
    let Ok(Packet::Publish(earlier)) = decode(held[0], &held[body..], version, Direction::ToClient) else {
        return false;
    };
    let ids = [id_of(earlier.payload), id_of(later.payload)];
    let [Some(one), Some(other)] = ids.map(|id| id.and_then(|id| model.messages.get(id as usize))) else {
        return false;
    };
    let is_same_way = one.publisher == other.publisher && one.topic == other.topic && earlier.qos == later.qos;
    is_same_way && ids[0] != ids[1] && !later.dup && !later.retain
}
