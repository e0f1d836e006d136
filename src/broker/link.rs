//! One live connection: its state, its unfinished input, its unwritten output, and what waits for it. It dies with its
//! socket; what must outlive it is in the session. Nothing here knows who opened the connection.

use std::fmt;
use std::net::SocketAddr;

use super::NONE;
use super::alias::Aliases;
use crate::buffer::{InBuf, OutBuf};
use crate::codec::{PACKET_SIZE_MAX, Version};
use crate::time::Millis;
use crate::wheel::TimerId;

/// Number of a link in the slab, and the token of its socket.
pub type LinkId = u32;

/// Who is at the other end, for log lines and reason strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Ip(SocketAddr),
    Unknown,
}

/// Mosquitto's form: `192.0.2.7:50123`, `2001:db8::1:50123`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Peer::Ip(address) => write!(f, "{}:{}", address.ip().to_canonical(), address.port()),
            Peer::Unknown => f.write_str("unknown"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing but CONNECT is accepted.
    AwaitingConnect,
    Connected,
    /// Output gets one more chance to be written; then the shell reaps the link.
    Closing,
}

/// Why a link's input is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paused {
    No,
    /// It published more than this link's client can take.
    ForSubscriber(LinkId),
    /// It sends, but does not read what it is answered.
    ForOwnOutput,
}

pub struct Link {
    pub state: State,
    pub version: Version,
    pub peer: Peer,
    pub allow_anonymous: bool,
    pub is_dirty: bool,
    /// Made no progress for the stall timeout while others waited: nobody waits for it until it does.
    pub is_stalled: bool,
    /// It was not listened to for a while, because it waits for others, or for itself: nobody waits for it until it makes
    /// progress, but that it made none is not its fault, and its queue may grow further.
    pub is_unheard: bool,
    /// A Mosquitto bridge: no echo of its own messages, retain flags kept.
    pub is_bridge: bool,
    /// Reason strings are wanted. [MQTT-3.1.2-29] (5.0)
    pub wants_problem_information: bool,
    /// A harmless breach of the protocol was logged.
    pub is_warned: bool,
    /// An answer was larger than the client's Maximum Packet Size.
    pub is_unanswerable: bool,
    /// The client will send no more; what it sent before waits with the link.
    pub is_hung_up: bool,
    /// Stands in the list of those that may go on.
    pub is_resumed: bool,
    pub session: u32,
    pub input: InBuf,
    pub output: OutBuf,
    pub paused: Paused,
    /// The links that wait for this one, chained by `next_waiter`.
    pub first_waiter: u32,
    pub next_waiter: u32,
    /// CONNECT timeout, then keep-alive.
    pub timer: TimerId,
    pub stall_timer: TimerId,
    pub last_received: Millis,
    /// When the client last made progress.
    pub last_progress: Millis,
    /// Bytes it took since.
    pub taken: usize,
    /// One and a half times Keep Alive, milliseconds; 0 = off. [MQTT-3.1.2-24] (3.1.1) [MQTT-3.1.2-22] (5.0)
    pub keep_alive_ms: u32,
    /// Largest packet the client takes. [MQTT-3.1.2-24] (5.0)
    pub packet_size_max: u32,
    /// QoS 1 and 2 messages that may be unacknowledged. [MQTT-3.3.4-9] (5.0)
    pub window: u16,
    /// Session Expiry Interval of CONNECT, which decides what DISCONNECT may change.
    pub connect_expiry_s: u32,
    pub aliases: Option<Box<Aliases>>,
}

impl Link {
    /// Past this, PUBLISH packets wait in the session's queue as shared messages instead of encoded bytes.
    pub const OUTPUT_HIGH: usize = 64 << 10;
    /// Past this, shared payloads not counted, the client must read its answers before it is listened to again: what one read
    /// of small packets can cause.
    pub const OUTPUT_MAX: usize = 256 << 10;
    /// Input held of a paused link while looking for acknowledgements in it.
    pub const READ_AHEAD_MAX: usize = 128 << 10;

    pub fn new(peer: Peer, allow_anonymous: bool, now: Millis) -> Link {
        Link {
            state: State::AwaitingConnect,
            version: Version::V311,
            peer,
            allow_anonymous,
            is_dirty: false,
            is_stalled: false,
            is_unheard: false,
            is_bridge: false,
            wants_problem_information: true,
            is_warned: false,
            is_unanswerable: false,
            is_hung_up: false,
            is_resumed: false,
            session: NONE,
            input: InBuf::default(),
            output: OutBuf::default(),
            paused: Paused::No,
            first_waiter: NONE,
            next_waiter: NONE,
            timer: TimerId::NONE,
            stall_timer: TimerId::NONE,
            last_received: now,
            last_progress: now,
            taken: 0,
            keep_alive_ms: 0,
            packet_size_max: PACKET_SIZE_MAX,
            window: u16::MAX,
            connect_expiry_s: 0,
            aliases: None,
        }
    }

    pub fn is_paused(&self) -> bool {
        self.paused != Paused::No
    }

    /// Whether a paused link's input is still searched for acknowledgements: not while enough is held of it, or while its client
    /// does not read what it is answered.
    pub fn reads_ahead(&self) -> bool {
        matches!(self.paused, Paused::ForSubscriber(_))
            && self.input.len() < Link::READ_AHEAD_MAX
            && self.output.own_len() <= Link::OUTPUT_MAX
    }

    /// Its acknowledgements cannot arrive, because its own input is full of messages for somebody else.
    pub fn is_deaf(&self) -> bool {
        matches!(self.paused, Paused::ForSubscriber(_)) && !self.reads_ahead()
    }
}
