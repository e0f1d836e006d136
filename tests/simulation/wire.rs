//! What the broker writes, checked packet by packet at its edge: packet ids, DUP, the window, packet sizes, aliases, and
//! the answers that are due. What a message's subscribers must get in all is judged in `verdict`.

use midge::codec::{
    Ack, ConnAck, Direction, Packet, Property, Publish, ReasonCode, SubAck, Version, decode, split_frame,
};
use midge::codec::{QoS, Split};
use midge::config::QueuePolicy;

use super::ledger::*;
use super::model::{ANY_CODE, Model};

/// Whether a packet refuses nothing, or says why: clients here want to know. `broker/explained.rs` looks more closely.
fn is_explained(packet: &Packet) -> bool {
    let (code, properties) = match packet {
        Packet::ConnAck(it) => (it.reason as u8, it.properties),
        Packet::Disconnect(it) => (it.reason as u8, it.properties),
        Packet::PubAck(it) | Packet::PubRec(it) | Packet::PubRel(it) | Packet::PubComp(it) => {
            (it.reason as u8, it.properties)
        }
        Packet::SubAck(it) | Packet::UnsubAck(it) => {
            (it.codes.iter().copied().max().unwrap_or_default(), it.properties)
        }
        _ => return true,
    };
    let mut sentences = properties.iter().filter_map(|property| match property {
        Property::ReasonString(text) => Some(text.split_whitespace().count()),
        _ => None,
    });
    code < 0x80 || sentences.any(|words| words >= 4)
}

impl Model {
    /// Bytes the broker wrote on a connection, whole packets or not.
    pub fn wrote(&mut self, conn: usize, bytes: &[u8]) {
        if self.links[conn].client.is_none() {
            return;
        }
        let mut output = std::mem::take(&mut self.links[conn].output);
        output.extend_from_slice(bytes);
        let mut at = 0;
        while let Ok(Split::Frame { body, len }) = split_frame(&output[at..], 0) {
            let frame = &output[at..at + len];
            self.links[conn].written.push_back((self.moment, self.now_ms));
            if let Some(max) = self.links[conn].packet_size_max.filter(|&max| len > max as usize) {
                self.fail(format!("conn {conn}: a packet of {len} bytes, Maximum Packet Size {max}"));
            }
            match decode(frame[0], &frame[body..], self.links[conn].version, Direction::ToClient) {
                Ok(packet) => self.check_packet(conn, packet),
                Err(error) => self.fail(format!("conn {conn}: the broker wrote nonsense: {error}: {frame:02x?}")),
            }
            at += len;
        }
        output.drain(..at);
        self.links[conn].output = output;
    }

    fn check_packet(&mut self, conn: usize, packet: Packet) {
        let has_room = self.links[conn].packet_size_max.is_none();
        if has_room && self.links[conn].version == Version::V5 && !is_explained(&packet) {
            self.fail(format!("conn {conn}: something is refused without a sentence that says why: {packet:?}"));
        }
        match packet {
            Packet::ConnAck(connack) => self.check_connack(conn, connack),
            Packet::Publish(publish) => self.check_publish(conn, publish),
            Packet::PubAck(ack) => self.check_answer(conn, ack, 1),
            Packet::PubRec(ack) => self.check_answer(conn, ack, 2),
            Packet::PubRel(ack) => self.check_release(conn, ack),
            Packet::SubAck(suback) => self.check_codes(conn, suback, "SUBACK"),
            Packet::UnsubAck(unsuback) => self.check_codes(conn, unsuback, "UNSUBACK"),
            Packet::Disconnect(disconnect) => self.note(|| format!("conn {conn} < DISCONNECT {:?}", disconnect.reason)),
            _ => {}
        }
    }

    fn check_connack(&mut self, conn: usize, connack: ConnAck) {
        let (present, reason) = (connack.session_present, connack.reason);
        match self.links[conn].is_connack_due.take() {
            None => self.fail(format!("conn {conn}: CONNACK for nothing")),
            Some(_) if reason != ReasonCode::Success => {
                self.fail(format!("conn {conn}: a correct client was refused: {reason:?} {:?}", connack.properties));
            }
            Some(expected) if expected != present => {
                self.fail(format!("conn {conn}: Session Present is {present}, expected {expected}"));
            }
            Some(_) => {}
        }
    }

    /// PUBACK or PUBREC.
    fn check_answer(&mut self, conn: usize, ack: Ack, qos: u8) {
        let due = &mut self.links[conn].acks_due;
        let Some(at) = due.iter().position(|&(packet_id, _)| packet_id == ack.packet_id) else {
            self.fail(format!("conn {conn}: an acknowledgement for packet id {}, which is not due", ack.packet_id));
            return;
        };
        let (_, instance) = due.remove(at);
        self.settle_through(conn, ack.packet_id, |effect| matches!(effect, Effect::Publish(_)));
        let (message, is_refused) = (self.instances[instance].message, self.instances[instance].is_refused);
        if self.messages[message as usize].qos != qos {
            self.fail(format!("conn {conn}: the wrong acknowledgement for {}", self.describe(message)));
        }
        let reason = ack.reason;
        let is_quota = reason == ReasonCode::QuotaExceeded && self.config.queue_policy == QueuePolicy::Reject;
        if self.links[conn].version == Version::V5 && reason.is_error() != is_refused && !is_quota {
            self.fail(format!("conn {conn}: {reason:?} for {}", self.describe(message)));
        }
        if self.links[conn].version == Version::V5 && !reason.is_error() {
            let has_recipients = reason != ReasonCode::NoMatchingSubscribers;
            // A repeated QoS 2 message is answered with success, whatever became of it.
            self.instances[instance].has_recipients.get_or_insert(has_recipients);
        }
        if reason.is_error()
            && let Some(session) = self.links[conn].session
        {
            self.sessions[session].received.remove(&ack.packet_id);
        }
        self.note(|| format!("conn {conn} < acknowledged {} ({reason:?})", ack.packet_id));
    }

    fn check_codes(&mut self, conn: usize, suback: SubAck, what: &str) {
        self.settle_through(conn, suback.packet_id, |effect| {
            matches!(effect, Effect::Subscribe(..) | Effect::Unsubscribe(..))
        });
        let Some(expected) = self.links[conn].codes_due.remove(&suback.packet_id) else {
            self.fail(format!("conn {conn}: {what} for packet id {}, which is not due", suback.packet_id));
            return;
        };
        if what == "UNSUBACK" && self.links[conn].version != Version::V5 {
            return;
        }
        let is_same = expected.len() == suback.codes.len()
            && expected.iter().zip(suback.codes).all(|(one, other)| one == other || *one == ANY_CODE);
        if !is_same {
            self.fail(format!("conn {conn}: {what} codes {:02x?}, expected {expected:02x?}", suback.codes));
        }
    }

    fn check_publish(&mut self, conn: usize, publish: Publish) {
        let Some(topic) = self.topic_of(conn, &publish) else { return };
        let key = id_of(publish.payload);
        let (qos, packet_id) = (publish.qos as u8, publish.packet_id);
        self.note(|| {
            let flags =
                [(publish.dup, " dup"), (publish.retain, " retain")].map(|(set, name)| if set { name } else { "" });
            let [dup, retain] = flags;
            format!("conn {conn} < PUBLISH {topic} message {key:?} QoS {qos} id {packet_id}{dup}{retain}")
        });
        if publish.qos == QoS::AtMostOnce {
            if publish.dup {
                self.fail(format!("conn {conn}: DUP with QoS 0"));
            }
            return;
        }
        let Some(session) = self.links[conn].session else {
            self.fail(format!("conn {conn}: PUBLISH before CONNECT"));
            return;
        };
        let is_same = |exchange: &Exchange| (exchange.key, exchange.qos, exchange.retain) == (key, qos, publish.retain);
        let (exchange, link) = (self.sessions[session].exchanges.get(&packet_id), &self.links[conn]);
        let retry_ms = u64::from(self.config.retry_interval_s) * 1000;
        let wrong = match (publish.dup, exchange) {
            (false, None) => None,
            (false, Some(exchange)) if exchange.stage == Stage::Done => None,
            (false, Some(_)) => Some("packet id is in use"),
            (true, None) => Some("DUP on a packet id that is not open"),
            (true, Some(exchange)) if !is_same(exchange) => Some("DUP on what is not the same message"),
            (true, Some(exchange)) if exchange.stage != Stage::Sent && !exchange.is_unsure => {
                Some("sent again though it was acknowledged")
            }
            (true, Some(exchange)) if exchange.conn == conn && link.version == Version::V5 => {
                Some("sent again on a live 5.0 link")
            }
            (true, Some(exchange)) if exchange.conn == conn && retry_ms == 0 => Some("sent again, but retry is off"),
            (true, Some(exchange)) if exchange.conn == conn && exchange.sent_ms + retry_ms > self.now_ms => {
                Some("sent again too soon")
            }
            (true, Some(_)) => None,
        };
        if let Some(wrong) = wrong {
            self.fail(format!("conn {conn}: PUBLISH {key:?} with packet id {packet_id}: {wrong}"));
        }
        let exchange = Exchange {
            key,
            qos,
            retain: publish.retain,
            stage: Stage::Sent,
            conn,
            sent_ms: self.now_ms,
            releases_due: 0,
            is_unsure: false,
        };
        self.sessions[session].exchanges.insert(packet_id, exchange);
        self.check_window(conn, session);
    }

    fn check_window(&mut self, conn: usize, session: usize) {
        let window = self.links[conn].window;
        let exchanges = &self.sessions[session].exchanges;
        if exchanges.len() <= window {
            return;
        }
        let is_open = |exchange: &&Exchange| exchange.conn == conn && exchange.stage != Stage::Done;
        let open = exchanges.values().filter(is_open).count();
        if open > window {
            self.fail(format!("conn {conn}: {open} messages unacknowledged, allowed {window}"));
        }
    }

    fn check_release(&mut self, conn: usize, ack: Ack) {
        let (packet_id, retry_s, now_ms) = (ack.packet_id, self.config.retry_interval_s, self.now_ms);
        self.note(|| format!("conn {conn} < PUBREL {packet_id}"));
        let version = self.links[conn].version;
        let Some(session) = self.links[conn].session else { return };
        let Some(exchange) = self.sessions[session].exchanges.get_mut(&packet_id) else { return };
        let wrong = if exchange.releases_due > 0 {
            exchange.releases_due -= 1;
            None
        } else if exchange.is_unsure || exchange.conn != conn {
            None
        } else if exchange.stage != Stage::Received {
            Some("nothing to release")
        } else if version == Version::V5 {
            Some("sent again on a live 5.0 link")
        } else if retry_s == 0 || exchange.sent_ms + u64::from(retry_s) * 1000 > now_ms {
            Some("sent again too soon")
        } else {
            None
        };
        (exchange.conn, exchange.sent_ms) = (conn, now_ms);
        if let Some(wrong) = wrong {
            self.fail(format!("conn {conn}: PUBREL {packet_id}: {wrong}"));
        }
    }

    /// The topic, with the broker's aliases resolved.
    fn topic_of(&mut self, conn: usize, publish: &Publish) -> Option<String> {
        let alias = publish.properties.find(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        let maximum = self.links[conn].alias_maximum;
        let Some(alias) = alias else {
            if publish.topic.is_empty() {
                self.fail(format!("conn {conn}: a PUBLISH without topic and alias"));
            }
            return Some(publish.topic.to_string());
        };
        if alias == 0 || alias > maximum {
            self.fail(format!("conn {conn}: topic alias {alias}, allowed {maximum}"));
        }
        if !publish.topic.is_empty() {
            self.links[conn].aliases_out.insert(alias, publish.topic.to_string());
        }
        let topic = self.links[conn].aliases_out.get(&alias).cloned();
        if topic.is_none() {
            self.fail(format!("conn {conn}: topic alias {alias} stands for nothing"));
        }
        topic
    }
}
