//! How links end: the reasons in one table, each with its reason code, the text scripts look for in the log, and a sentence
//! that explains; closing, taking leave of the session, and what becomes of that.

use std::borrow::Cow;
use std::fmt;

use super::input::CONNECT_PACKET_MAX;
use super::link::{LinkId, Paused, Peer, State};
use super::session::{after, whole_seconds};
use super::{Broker, NONE};
use crate::codec::{self, DecodeError, Direction, Disconnect, Packet, PropertiesBuf, Property, QoS, ReasonCode, Split};
use crate::config::Config;
use crate::logger::notice;
use crate::time::Millis;
use crate::wheel::TimerId;

/// How the other side ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// It closed the socket.
    Closed,
    /// The socket failed.
    Failed(String),
    /// What it sent is not what carries MQTT here; it was told so.
    Breach(String),
}

/// Why a link is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// Told to a 5.0 client; nothing if it hung up itself.
    pub code: Option<ReasonCode>,
    /// What log readers look for behind `disconnected`; the forms are Mosquitto 2.1's.
    ending: &'static str,
    /// The explanation, in the log and as reason string.
    pub detail: Cow<'static, str>,
    /// What a client that is not let in calls itself, as the log shows it; empty if that is not known.
    caller: String,
}

fn reason(code: ReasonCode, ending: &'static str, detail: impl Into<Cow<'static, str>>) -> CloseReason {
    CloseReason { code: Some(code), ..untold(ending, detail) }
}

/// One that the client is not told.
fn untold(ending: &'static str, detail: impl Into<Cow<'static, str>>) -> CloseReason {
    CloseReason { code: None, ending, detail: detail.into(), caller: String::new() }
}

const PROTOCOL_ERROR: &str = "protocol error";
/// What the system says follows.
const BAD_SOCKET: &str = "bad socket read/write";
/// This has a line of its own.
const TLS_ON_PLAIN_PORT: &str = "appears to be using TLS to connect to a non-TLS listener";
const FIRST_BYTE_OF_TLS: u8 = 0x16;

impl CloseReason {
    pub fn client_disconnected() -> CloseReason {
        untold("", "")
    }

    pub fn hung_up(hang_up: HangUp) -> CloseReason {
        match hang_up {
            HangUp::Closed => untold("connection closed by client", ""),
            HangUp::Failed(error) => untold(BAD_SOCKET, error),
            HangUp::Breach(what) => untold(PROTOCOL_ERROR, what),
        }
    }

    pub fn decode(error: DecodeError) -> CloseReason {
        let ending = match error.reason {
            ReasonCode::MalformedPacket => "malformed packet",
            ReasonCode::TopicAliasInvalid => "topic alias invalid",
            _ => PROTOCOL_ERROR,
        };
        reason(error.reason, ending, error.what)
    }

    /// A packet says that it is longer than it may be, by whatever rule that is.
    pub fn packet_too_large(config: &Config) -> CloseReason {
        let rule = match config.max_packet_size {
            0 => "half of memory_limit, since max_packet_size says nothing",
            _ => "max_packet_size",
        };
        let detail = format!("a packet is larger than {} bytes ({rule})", config.largest_packet());
        reason(ReasonCode::PacketTooLarge, "oversize packet", detail)
    }

    pub fn connect_too_large() -> CloseReason {
        let detail = format!("a packet is larger than {CONNECT_PACKET_MAX} bytes (more than a CONNECT may have)");
        reason(ReasonCode::PacketTooLarge, "oversize packet", detail)
    }

    pub fn out_of_memory(held: usize) -> CloseReason {
        let detail = format!(
            "the limit of memory is reached (memory_limit), and the {held} bytes held of an unfinished packet, or of packets \
             that wait, are the most of all"
        );
        reason(ReasonCode::QuotaExceeded, "out of memory", detail)
    }

    pub fn no_memory_for_alias(len: usize) -> CloseReason {
        let detail =
            format!("the limit of memory is reached (memory_limit), and a topic of {len} bytes is to get an alias");
        reason(ReasonCode::QuotaExceeded, "out of memory", detail)
    }

    /// Not told to the peer, which has not said what it speaks.
    pub fn first_packet_not_connect(first_byte: u8) -> CloseReason {
        match first_byte {
            FIRST_BYTE_OF_TLS => untold(TLS_ON_PLAIN_PORT, ""),
            _ => untold(PROTOCOL_ERROR, format!("First packet not CONNECT ({first_byte:02x})")),
        }
    }

    pub fn second_connect() -> CloseReason {
        reason(ReasonCode::ProtocolError, PROTOCOL_ERROR, "a second CONNECT came on one connection")
    }

    pub fn unexpected_auth() -> CloseReason {
        let detail = "AUTH came, but the CONNECT named no authentication method";
        reason(ReasonCode::ProtocolError, PROTOCOL_ERROR, detail)
    }

    pub fn wrong_direction() -> CloseReason {
        reason(ReasonCode::ProtocolError, PROTOCOL_ERROR, "only a server sends this type of packet")
    }

    pub fn connect_timeout() -> CloseReason {
        untold("exceeded timeout", "no complete CONNECT came within connect_timeout")
    }

    pub fn login_timeout() -> CloseReason {
        let detail = "others were logging in for all of connect_timeout; try again later";
        reason(ReasonCode::QuotaExceeded, "exceeded timeout", detail)
    }

    pub fn keep_alive() -> CloseReason {
        let detail = "nothing came for one and a half times the keep alive";
        reason(ReasonCode::KeepAliveTimeout, "exceeded timeout", detail)
    }

    pub fn taken_over(by: Peer) -> CloseReason {
        let detail = format!("two clients use this id: the other is at {by}");
        reason(ReasonCode::SessionTakenOver, "session taken over", detail)
    }

    pub fn kicked(detail: &'static str) -> CloseReason {
        reason(ReasonCode::AdministrativeAction, "administrative action", detail)
    }

    pub fn shutting_down() -> CloseReason {
        reason(ReasonCode::ServerShuttingDown, "server shutting down", "the broker is being stopped")
    }

    pub fn topic_name_invalid(topic: &str) -> CloseReason {
        let detail = match topic.is_empty() {
            true => "a PUBLISH has an empty topic and no alias".to_string(),
            false => format!("a PUBLISH has the topic '{}'; '+' and '#' are for filters", excerpt(topic)),
        };
        // An empty topic wants an alias, else it is a Protocol Error. [MQTT-4.7.3-1] (5.0)
        let code = if topic.is_empty() { ReasonCode::ProtocolError } else { ReasonCode::TopicNameInvalid };
        reason(code, PROTOCOL_ERROR, detail)
    }

    /// It is longer or deeper than it may be.
    pub fn topic_too_large(fault: String) -> CloseReason {
        reason(ReasonCode::TopicNameInvalid, PROTOCOL_ERROR, fault)
    }

    pub fn topic_filter_invalid(filter: &str) -> CloseReason {
        let detail = format!(
            "'{}' is no valid topic filter: '+' fills a level, '#' the last one, and $share/NAME/ needs a name and a filter",
            excerpt(filter)
        );
        reason(ReasonCode::TopicFilterInvalid, PROTOCOL_ERROR, detail)
    }

    pub fn topic_alias_invalid(alias: u16, maximum: u16) -> CloseReason {
        let detail = format!("topic alias {alias} is not between 1 and {maximum}, the Topic Alias Maximum of CONNACK");
        reason(ReasonCode::TopicAliasInvalid, "topic alias invalid", detail)
    }

    pub fn topic_alias_unknown(alias: u16) -> CloseReason {
        let detail = format!("topic alias {alias} was used before it was given a topic on this connection");
        reason(ReasonCode::ProtocolError, PROTOCOL_ERROR, detail)
    }

    pub fn qos_not_supported(maximum: QoS) -> CloseReason {
        let detail = format!("a PUBLISH has a higher QoS than {}, the Maximum QoS of this broker", maximum as u8);
        reason(ReasonCode::QoSNotSupported, DISALLOWED, detail)
    }

    pub fn retain_not_supported() -> CloseReason {
        let detail = "a PUBLISH asks to be retained, which retain_available forbids";
        reason(ReasonCode::RetainNotSupported, DISALLOWED, detail)
    }

    pub fn unanswerable(maximum: u32) -> CloseReason {
        let detail = format!("the answer would be larger than {maximum} bytes, the client's Maximum Packet Size");
        reason(ReasonCode::PacketTooLarge, "oversize packet", detail)
    }

    pub fn no_room_for_connack(maximum: u32) -> CloseReason {
        CloseReason { code: None, ..CloseReason::unanswerable(maximum) }
    }

    pub fn receive_maximum_exceeded(open: usize, maximum: usize) -> CloseReason {
        let detail = format!("{open} QoS 2 messages are open, but the Receive Maximum of CONNACK is {maximum}");
        reason(ReasonCode::ReceiveMaximumExceeded, "receive maximum exceeded", detail)
    }

    pub fn expiry_after_none() -> CloseReason {
        let detail = "DISCONNECT sets a Session Expiry Interval, but CONNECT had none";
        reason(ReasonCode::ProtocolError, PROTOCOL_ERROR, detail)
    }

    /// What the client was let in for no longer holds; `refusal` is what its CONNECT would get now.
    pub fn no_longer_authorised(refusal: CloseReason) -> CloseReason {
        reason(ReasonCode::NotAuthorized, NOT_AUTHORISED, refusal.detail)
    }

    pub fn refused(code: ReasonCode, ending: &'static str, detail: impl Into<Cow<'static, str>>) -> CloseReason {
        reason(code, ending, detail)
    }

    /// For the log, of a client that is not let in. It may call itself anything: what tools look for in log lines, an address in
    /// brackets, cannot be among it.
    pub fn with_caller(self, client_id: &str) -> CloseReason {
        CloseReason { caller: excerpt(client_id).replace(['[', ']'], "?"), ..self }
    }
}

/// Ends a log line for a client that is not let in, as Mosquitto does.
pub(super) const NOT_AUTHORISED: &str = "not authorised";
const DISALLOWED: &str = "used disallowed feature (QoS too high, retain not supported, or bad AUTH method)";

/// What is shown of a peer's text.
pub(super) fn excerpt(text: &str) -> String {
    let mut shown: String = text.chars().take(60).filter(|letter| !letter.is_control()).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

const FIRST_BYTE_OF_DISCONNECT: u8 = 0xE0;

impl Broker {
    /// The other side is gone. What it sent before is handled first, if it waits for something that comes.
    pub fn hang_up(&mut self, id: LinkId, hang_up: HangUp, now: Millis) {
        self.note_time(now);
        let link = self.clients.link_mut(id);
        // Waiting for a subscriber, or for time to pass, has an end; waiting for a client that is gone to read its answers has none.
        let has_turn = link.is_resumed
            || matches!(link.paused, Paused::ForSubscriber | Paused::ForStore | Paused::ForLogin | Paused::ForRate);
        if hang_up == HangUp::Closed && has_turn && !link.input.is_empty() {
            link.is_hung_up = true;
            link.is_stalled = true;
            self.release_waiters(id);
            return;
        }
        self.close(id, CloseReason::hung_up(hang_up), now);
    }

    /// DISCONNECT from the client: without its will, unless it asks for that. [MQTT-3.14.4-3]
    pub(super) fn disconnect(&mut self, id: LinkId, packet: Disconnect, now: Millis) -> Result<(), CloseReason> {
        let expiry = packet.properties.find(|property| match property {
            Property::SessionExpiryInterval(seconds) => Some(seconds),
            _ => None,
        });
        let link = &self.clients.links[id as usize];
        let (session, may_change_expiry) = (link.session, link.may_change_expiry);
        if let Some(seconds) = expiry {
            if !may_change_expiry && seconds != 0 {
                return Err(CloseReason::expiry_after_none());
            }
            let bounded = self.bounded_expiry(seconds);
            self.clients.session_mut(session).expiry_s = bounded;
        }
        if packet.reason == ReasonCode::Success {
            self.clients.session_mut(session).will = None;
        }
        self.close(id, CloseReason::client_disconnected(), now);
        Ok(())
    }

    /// Ends all links, with their wills, and tells 5.0 clients why. The sessions stay.
    pub fn shut_down(&mut self, now: Millis) {
        let open: Vec<LinkId> = self.clients.links.iter().map(|(id, _)| id as LinkId).collect();
        // Wills first reach those who are still there.
        for &id in &open {
            let session = self.clients.links[id as usize].session;
            if session != NONE {
                self.publish_will(session, now);
            }
        }
        for id in open {
            self.close(id, CloseReason::shutting_down(), now);
        }
    }

    /// Marks the link closed, says why where the version can, and parts it from its session and from all who wait.
    pub(super) fn close(&mut self, id: LinkId, reason: CloseReason, now: Millis) {
        if self.clients.links[id as usize].state == State::Closing || self.take_leave(id, now) {
            return;
        }
        let was_connected = self.clients.links[id as usize].state == State::Connected;
        self.log_close(id, &reason);
        if let Some(code) = reason.code
            && was_connected
            && self.clients.links[id as usize].version.server_may_send_disconnect()
        {
            self.send_disconnect(id, code, &reason.detail);
        }
        self.release_waiters(id);
        if self.clients.links[id as usize].paused == Paused::ForLogin {
            self.login.forget(id);
        }
        self.clients.stop_waiting(id);
        let link = &mut self.clients.links[id as usize];
        link.state = State::Closing;
        link.paused = Paused::No;
        let session = std::mem::replace(&mut link.session, NONE);
        let [stall_timer, rate_timer] = link.take_rare();
        let timers = [std::mem::replace(&mut link.timer, TimerId::NONE), stall_timer, rate_timer];
        let unused = link.input.len();
        link.input.consume(unused, &mut self.clients.pool);
        self.clients.drop_held(id);
        timers.into_iter().for_each(|timer| self.clients.wheel.cancel(timer));
        self.clients.closing.push(id);
        if session != NONE {
            self.detach(session, now);
        }
    }

    /// A DISCONNECT that still waits in the input of a link counts, whatever ends the link; says whether there was one.
    /// [MQTT-3.14.4-3]
    fn take_leave(&mut self, id: LinkId, now: Millis) -> bool {
        let link = self.clients.link_mut(id);
        if link.session == NONE || link.input.is_empty() {
            return false;
        }
        let version = link.version;
        let mut input = std::mem::take(&mut link.input);
        let (mut at, mut has_left) = (0, false);
        while let Ok(Split::Frame { body, len }) = codec::split_frame(&input.bytes()[at..], 0) {
            let frame = &input.bytes()[at..at + len];
            if frame[0] == FIRST_BYTE_OF_DISCONNECT
                && let Ok(Packet::Disconnect(packet)) =
                    codec::decode(frame[0], &frame[body..], version, Direction::ToServer)
            {
                has_left = self.disconnect(id, packet, now).is_ok();
                break;
            }
            at += len;
        }
        let unused = input.len();
        input.consume(unused, &mut self.clients.pool);
        has_left
    }

    /// A server's DISCONNECT; the reason string only if it fits. [MQTT-3.14.2-3] (5.0)
    fn send_disconnect(&mut self, id: LinkId, reason: ReasonCode, detail: &str) {
        let mut properties = PropertiesBuf::default();
        let room = self.clients.links[id as usize].packet_size_max as usize;
        if !detail.is_empty() && detail.len() + 16 <= room {
            properties.push(Property::ReasonString(detail));
        }
        let disconnect = Disconnect { reason, properties: properties.as_properties() };
        self.clients.send(id, &Packet::Disconnect(disconnect));
    }

    /// The session goes on without its link, or ends with it.
    fn detach(&mut self, id: u32, now: Millis) {
        let keeps_qos0 = self.clients.config.queue_qos0_messages;
        self.clients.connected_count -= 1;
        let session = self.clients.session_mut(id);
        session.link = NONE;
        session.since_s = whole_seconds(now);
        session.received.shrink();
        let expiry_s = session.expiry_s;
        let delay_s = session.will.as_ref().map_or(0, |will| will.delay_s);
        if let Some(delivery) = session.delivery.as_deref_mut() {
            delivery.sent = 0;
            delivery.backoff = 0;
            if !keeps_qos0 {
                delivery.retain_queued(|queued| queued.qos > QoS::AtMostOnce);
            }
        }
        let session = self.clients.session_mut(id);
        if session.delivery.as_deref().is_some_and(|delivery| delivery.is_empty() && delivery.queue.capacity() > 0) {
            session.delivery_mut().shrink();
        }
        if expiry_s == 0 {
            self.end_session(id, now);
            return;
        }
        self.fail_over(id, false, now);
        let session = self.clients.session_mut(id);
        // [MQTT-3.1.2-8] (5.0): after the delay, or when the session ends, whichever is first.
        session.expires_at = after(now, expiry_s);
        if delay_s == 0 {
            self.publish_will(id, now);
        } else {
            if let Some(will) = session.will.as_deref_mut() {
                will.due_at = after(now, delay_s);
            }
        }
        self.clients.store_session(id, now);
        self.clients.arm_session(id);
    }

    /// A session without link: its will is due, or its end.
    pub(super) fn session_due(&mut self, id: u32, now: Millis) {
        let session = self.clients.session_mut(id);
        if session.expires_at <= now {
            notice!(client = *session.client_id; "Expiring client {} due to timeout.", session.client_id);
            self.clients.stats.sessions_expired += 1;
            self.end_session(id, now);
            return;
        }
        if session.will_due_at() <= now {
            self.publish_will(id, now);
        }
        self.clients.arm_session(id);
    }

    /// Ends a session without link: its will, its subscriptions, and what was queued for it.
    pub(super) fn end_session(&mut self, id: u32, now: Millis) {
        debug_assert!(!self.clients.sessions[id as usize].is_connected());
        self.publish_will(id, now);
        self.fail_over(id, true, now);
        let session = self.clients.session_mut(id);
        session.log_drops("before its session ended");
        self.clients.forget_session(id, now);
        let session = self.clients.session_mut(id);
        let timer = std::mem::replace(&mut session.timer, TimerId::NONE);
        for &key in std::mem::take(&mut session.subscriptions).iter() {
            self.index.unsubscribe(key, id);
        }
        self.clients.wheel.cancel(timer);
        self.clients.remove_session(id);
    }

    fn log_close(&self, id: LinkId, reason: &CloseReason) {
        let link = &self.clients.links[id as usize];
        let (peer, address, ending, detail) = (link.peer, link.peer.number(), reason.ending, &*reason.detail);
        let is_not_mqtt = link.state == State::AwaitingConnect && reason.code.is_none();
        match ending {
            PROTOCOL_ERROR if is_not_mqtt => log::info!(address = address; "Protocol error from {peer}: {detail}."),
            TLS_ON_PLAIN_PORT => notice!(address = address; "Client from {peer} {TLS_ON_PLAIN_PORT}."),
            _ if !self.clients.config.connection_messages => {}
            _ => {
                let (name, end) = (self.clients.name(id), End { ending, detail, caller: &reason.caller });
                match self.clients.sessions.get(link.session as usize) {
                    Some(session) => notice!(
                        client = *session.client_id, address = address, what = ending; "Client {name} disconnected{end}"
                    ),
                    None => notice!(address = address, what = ending; "Client {name} disconnected{end}"),
                }
            }
        }
    }
}

/// What stands behind `disconnected`: Mosquitto's words, and the explanation.
struct End<'a> {
    ending: &'static str,
    detail: &'a str,
    caller: &'a str,
}

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (self.ending, self.detail) {
            ("", _) => f.write_str("."),
            (ending, "") => write!(f, ": {ending}."),
            (BAD_SOCKET, error) => write!(f, ": {BAD_SOCKET}: {error}."),
            (ending, detail) => write!(f, ": {ending}. {}.", capitalised(detail)),
        }?;
        if self.caller.is_empty() { Ok(()) } else { write!(f, " It calls itself '{}'.", self.caller) }
    }
}

/// A sentence part as a sentence.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
