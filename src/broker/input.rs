//! Input: whole packets are taken from it and handled, one after the other, until the link is paused or closed or its turn is over.

use std::rc::Rc;

use super::close::CloseReason;
use super::index::{self, FilterId};
use super::link::{LinkId, State};
use super::{Broker, NONE, TURN_BYTES_MAX};
use crate::buffer::{InBuf, LARGE_LEN};
use crate::codec::{self, DecodeError, Direction, Packet, ReasonCode, Split};
use crate::time::Millis;

/// A CONNECT larger than this is refused: three fields of 64 kB are possible, but nobody who may not be let in gets
/// more memory than Mosquitto 2.1 allows.
pub(super) const CONNECT_PACKET_MAX: u32 = 100_000;
/// Packets of one link in one turn: more than one read has of messages, and a part of what it has of the smallest packets.
const PACKETS_PER_TURN: u32 = 8192;
pub(super) const FIRST_BYTE_OF_CONNECT: u8 = 0x10;

impl Broker {
    /// Handles what the link's own buffer holds.
    pub(super) fn process_input(&mut self, id: LinkId, now: Millis) {
        let mut input = std::mem::take(&mut self.clients.links[id as usize].input);
        if input.len() >= LARGE_LEN {
            self.process_large(id, &mut input, now);
        }
        let used = self.process(id, input.bytes(), now);
        input.consume(used, &mut self.clients.pool);
        self.clients.links[id as usize].input = input;
    }

    /// Handles a large packet at the beginning of the input, if there is one and it is whole. Its message may keep it as it is: to copy
    /// megabytes would hold up everybody.
    fn process_large(&mut self, id: LinkId, input: &mut InBuf, now: Millis) {
        let Ok(Split::Frame { len, .. }) = codec::split_frame(input.bytes(), 0) else { return };
        if len < LARGE_LEN {
            return;
        }
        let packet = Rc::new(input.take_packet(len));
        self.large_packet = Some(packet.clone());
        let used = self.process(id, &packet, now);
        self.large_packet = None;
        // Nobody holds what was not handled.
        if used == 0
            && let Ok(packet) = Rc::try_unwrap(packet)
        {
            input.put_back(packet);
        }
    }

    /// Handles the whole packets in `bytes` until the link is paused or closed; says how many bytes are done with.
    pub(super) fn process(&mut self, id: LinkId, bytes: &[u8], now: Millis) -> usize {
        let (mut at, mut ahead, mut packets) = (0, Ahead::default(), 0);
        while at < bytes.len() {
            if self.index.is_large() {
                if at >= ahead.end {
                    ahead = self.look_ahead(bytes, at);
                }
                self.guess = ahead.guess(bytes[at]);
            }
            let link = &self.clients.links[id as usize];
            if link.state == State::Closing {
                return bytes.len();
            }
            if link.is_paused() {
                break;
            }
            let is_rated = link.is_rated() && codec::is_publish(bytes[at]);
            if is_rated && self.clients.slow_down(id, now) {
                break;
            }
            match self.process_one(id, &bytes[at..], now) {
                Ok(0) => break,
                Ok(used) => {
                    at += used;
                    if is_rated {
                        self.clients.note_published(id, used, now);
                    }
                }
                Err(reason) => self.close(id, reason, now),
            }
            let link = self.clients.pause_if_output_is_full(id);
            if link.is_unanswerable && link.state != State::Closing {
                let reason = CloseReason::unanswerable(link.packet_size_max);
                self.close(id, reason, now);
            }
            packets += 1;
            if self.clients.turn_bytes > TURN_BYTES_MAX || packets == PACKETS_PER_TURN {
                self.let_go_on(id);
                break;
            }
        }
        match self.clients.links[id as usize].state {
            State::Closing => bytes.len(),
            _ => at,
        }
    }

    /// Fetches what the PUBLISH packets from `at` on will want of a large index.
    fn look_ahead(&self, bytes: &[u8], mut at: usize) -> Ahead {
        let (mut topics, mut count) = ([&[][..]; index::FETCH_MAX], 0);
        while count < topics.len()
            && let Ok(Split::Frame { body, len }) = codec::split_frame(&bytes[at..], 0)
        {
            if codec::is_publish(bytes[at]) {
                topics[count] = codec::publish_topic(&bytes[at + body..at + len]);
                count += 1;
            }
            at += len;
        }
        // One alone has nobody to wait with.
        let guesses = if count > 1 { self.index.fetch(&topics[..count]) } else { [NONE; index::FETCH_MAX] };
        Ahead { end: at, guesses, next: 0 }
    }

    /// Handles the first packet of `bytes`; says how long it was, 0 if it is not whole.
    fn process_one(&mut self, id: LinkId, bytes: &[u8], now: Millis) -> Result<usize, CloseReason> {
        let link = &self.clients.links[id as usize];
        let (version, is_connected) = (link.version, link.state == State::Connected);
        let packet_size_max = if is_connected { self.clients.config.largest_packet() } else { CONNECT_PACKET_MAX };
        if !is_connected && bytes[0] != FIRST_BYTE_OF_CONNECT {
            return Err(CloseReason::first_packet_not_connect(bytes[0]));
        }
        if is_connected && let Some(ack) = codec::short_ack(bytes) {
            // At once: there are as many of them as of messages, and more.
            self.clients.stats.packets_received += 1;
            self.handle(id, &ack, now)?;
            return Ok(codec::SHORT_ACK_LEN);
        }
        let split = codec::split_frame(bytes, packet_size_max);
        let (body, len) = match split.map_err(|error| self.cannot_split(error, is_connected))? {
            Split::NeedMore => return Ok(0),
            Split::Frame { body, len } => (body, len),
        };
        self.clients.stats.packets_received += 1;
        let body = &bytes[body..len];
        if !is_connected {
            self.connect(id, body, now);
            return Ok(len);
        }
        let topic = match codec::is_publish(bytes[0]) {
            true => self.latest.topic_of(codec::publish_topic(body)),
            false => None,
        };
        // Where it is decoded to it is handled: to move it would take longer than much of what is done with it.
        match &codec::decode_about(bytes[0], body, version, Direction::ToServer, topic.as_deref().map(String::as_str)) {
            Ok(packet) => self.handle(id, packet, now)?,
            // Whatever else is wrong with it: what CONNACK would say is not for DISCONNECT.
            Err(_) if bytes[0] == FIRST_BYTE_OF_CONNECT => return Err(CloseReason::second_connect()),
            Err(error) => return Err(CloseReason::decode(*error)),
        }
        Ok(len)
    }

    #[cold]
    fn cannot_split(&self, error: DecodeError, is_connected: bool) -> CloseReason {
        match error.reason {
            ReasonCode::PacketTooLarge if is_connected => CloseReason::packet_too_large(&self.clients.config),
            ReasonCode::PacketTooLarge => CloseReason::connect_too_large(),
            _ => CloseReason::decode(error),
        }
    }

    fn handle(&mut self, id: LinkId, packet: &Packet, now: Millis) -> Result<(), CloseReason> {
        match *packet {
            Packet::Publish(ref publish) => self.publish(id, publish, now)?,
            Packet::PubAck(ack) => self.puback(id, ack, now),
            Packet::PubRec(ack) => self.pubrec(id, ack, now),
            Packet::PubRel(ack) => self.pubrel(id, ack, now),
            Packet::PubComp(ack) => self.pubcomp(id, ack, now),
            Packet::Subscribe(subscribe) => self.subscribe(id, subscribe, now)?,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(id, unsubscribe, now)?,
            Packet::PingReq => self.clients.send(id, &Packet::PingResp),
            Packet::Disconnect(disconnect) => self.disconnect(id, disconnect, now)?,
            Packet::Auth(_) => return Err(CloseReason::unexpected_auth()),
            Packet::Connect(_) => return Err(CloseReason::second_connect()),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(CloseReason::wrong_direction());
            }
        }
        Ok(())
    }

    /// While a link waits for a slow subscriber, or was too fast, its PUBLISH packets wait with it, but its acknowledgements and
    /// pings do not: two clients that publish to each other would otherwise wait for each other for ever. The order between
    /// an acknowledgement and a PUBLISH of the same client means nothing.
    pub(super) fn read_ahead(&mut self, id: LinkId, now: Millis) {
        if !self.clients.links[id as usize].may_be_overtaken() {
            return;
        }
        let mut input = std::mem::take(&mut self.clients.links[id as usize].input);
        let (mut at, mut taken) = (input.looked_at(), Vec::new());
        while let Ok(Split::Frame { body, len }) =
            codec::split_frame(&input.bytes()[at..], self.clients.config.largest_packet())
        {
            let frame = &input.bytes()[at..at + len];
            let version = self.clients.links[id as usize].version;
            if may_overtake(frame[0])
                && let Ok(packet) = codec::decode(frame[0], &frame[body..], version, Direction::ToServer)
            {
                self.clients.stats.packets_received += 1;
                // Acknowledgements and pings never close a link.
                let _ = self.handle(id, &packet, now);
                taken.push(at..at + len);
            }
            at += len;
        }
        input.cut(at, &taken, &mut self.clients.pool);
        let link = &mut self.clients.links[id as usize];
        link.input = input;
        if link.is_deaf() && link.first_waiter() != NONE {
            link.is_unheard = true;
            self.release_waiters(id);
        }
    }
}

/// What a look ahead in the input found.
#[derive(Default)]
struct Ahead {
    /// Packets behind this were not looked at.
    end: usize,
    /// For each PUBLISH in turn.
    guesses: [FilterId; index::FETCH_MAX],
    next: usize,
}

impl Ahead {
    /// The guess for the packet that begins with `first_byte`, if it is a PUBLISH.
    fn guess(&mut self, first_byte: u8) -> FilterId {
        if !codec::is_publish(first_byte) {
            return NONE;
        }
        self.next += 1;
        self.guesses.get(self.next - 1).copied().unwrap_or(NONE)
    }
}

/// PUBACK, PUBREC, PUBCOMP and PINGREQ.
fn may_overtake(first_byte: u8) -> bool {
    matches!(first_byte, 0x40 | 0x50 | 0x70 | 0xC0)
}
