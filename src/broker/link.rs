//! One live connection: its state, its unfinished input, its unwritten output, and what waits for it. It dies with its
//! socket; what must outlive it is in the session. Nothing here knows who opened the connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use super::NONE;
use super::alias::Aliases;
use super::rate::Bucket;
use super::store::Held;
use crate::buffer::{InBuf, OutBuf, Pool};
use crate::codec::{PACKET_SIZE_MAX, QoS, Version};
use crate::config::Rules;
use crate::time::Millis;
use crate::wheel::TimerId;

/// Number of a link in the slab, and the token of its socket.
pub type LinkId = u32;

/// Who is at the other end, for log lines and reason strings. Every link has one, so it is as small as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    V4(Ipv4Addr, u16),
    V6(Ipv6Addr, u16),
    /// A process of this machine, through a Unix socket.
    Unix {
        pid: u32,
        uid: u32,
    },
    Unknown,
}

/// An IPv4 address that came in as IPv6 counts as what it is.
impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Peer::V4(ip, address.port()),
            IpAddr::V6(ip) => Peer::V6(ip, address.port()),
        }
    }
}

impl Peer {
    /// The address without the port, as it is shown.
    pub fn ip(self) -> impl fmt::Display {
        Ip(self)
    }

    /// The same as a number, for log lines that are about it.
    pub fn number(self) -> u128 {
        match self {
            Peer::V4(ip, _) => ip.to_ipv6_mapped().to_bits(),
            Peer::V6(ip, _) => ip.to_bits(),
            // No address has so few bits, but ::.
            Peer::Unix { uid, .. } => u128::from(uid) + 1,
            Peer::Unknown => 0,
        }
    }
}

struct Ip(Peer);

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Peer::V4(ip, _) => ip.fmt(f),
            Peer::V6(ip, _) => ip.fmt(f),
            // Processes come and go; their user is what they have in common.
            Peer::Unix { uid, .. } => write!(f, "uid {uid}"),
            Peer::Unknown => Peer::Unknown.fmt(f),
        }
    }
}

/// Mosquitto's form: `192.0.2.7:50123`, `2001:db8::1:50123`. Without an address `pid 4711 uid 1000`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Peer::V4(ip, port) => write!(f, "{ip}:{port}"),
            Peer::V6(ip, port) => write!(f, "{ip}:{port}"),
            Peer::Unix { pid, uid } => write!(f, "pid {pid} uid {uid}"),
            Peer::Unknown => f.write_str("unknown"),
        }
    }
}

/// What most links never need: one that does has it in an allocation of its own, from then on.
pub struct Rare {
    /// Nothing until somebody had to wait for it.
    pub awaited: Option<Awaited>,
    /// Nothing while clients may publish as fast as they like.
    pub rate: Option<Bucket>,
    /// Nothing until either side used one, or might.
    pub aliases: Option<Box<Aliases>>,
    /// The link this one waits for, or NONE.
    pub waits_for: LinkId,
    /// The next link that waits for the same one.
    pub next_waiter: LinkId,
}

impl Default for Rare {
    fn default() -> Rare {
        Rare { awaited: None, rate: None, aliases: None, waits_for: NONE, next_waiter: NONE }
    }
}

/// What is kept of a link for which others wait or waited.
pub struct Awaited {
    /// The links that wait for this one, chained by `next_waiter`.
    pub first_waiter: LinkId,
    pub stall_timer: TimerId,
    /// When the client last made progress.
    pub last_progress: Millis,
    /// Bytes it took since.
    pub taken: usize,
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
    /// It published more than another link's client can take.
    ForSubscriber,
    /// It sends, but does not read what it is answered.
    ForOwnOutput,
    /// Its CONNACK waits until an older session of its client is gone for good; nothing may be sent before.
    ForStore,
    /// Its password is being looked at.
    ForLogin,
    /// It published more than it may in the time.
    ForRate,
}

/// What an answer takes that waits.
const HELD_LEN: usize = 64;

pub struct Link {
    pub state: State,
    pub version: Version,
    pub peer: Peer,
    /// Its listener's, but for what cannot change while it is connected.
    pub rules: Rc<Rules>,
    /// What its client publishes and subscribes to stands below a mount point, that of `rules`.
    pub has_mount: bool,
    /// Highest QoS the client may publish with: what CONNACK told, or a higher one that holds since.
    pub max_qos: QoS,
    /// The client said how large `window` is.
    pub has_own_window: bool,
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
    /// A message of its was refused, and that was logged.
    pub is_refused: bool,
    /// An answer was larger than the client's Maximum Packet Size.
    pub is_unanswerable: bool,
    /// The client will send no more; what it sent before waits with the link.
    pub is_hung_up: bool,
    /// Stands in the list of those that may go on.
    pub is_resumed: bool,
    pub session: u32,
    pub input: InBuf,
    pub output: OutBuf,
    /// Packets in the output, about, once some of it was written: their part of what there was.
    pub unwritten_packets: u32,
    /// Packets that wait until what they promise is safe.
    pub held: Option<Box<Held>>,
    pub paused: Paused,
    /// CONNECT timeout, then keep-alive.
    pub timer: TimerId,
    pub last_received: Millis,
    /// Keep Alive, seconds; 0 = off.
    pub keep_alive_s: u16,
    /// Largest packet the client takes. [MQTT-3.1.2-24] (5.0)
    pub packet_size_max: u32,
    /// QoS 1 and 2 messages that may be unacknowledged. [MQTT-3.3.4-9] (5.0)
    pub window: u16,
    /// The Receive Maximum CONNACK told; 0 = none. [MQTT-3.3.4-7] (5.0)
    pub receive_maximum: u16,
    /// CONNECT had a Session Expiry Interval other than 0: DISCONNECT may change it.
    pub may_change_expiry: bool,
    /// Aliases that may be used towards the client. [MQTT-3.1.2-26] (5.0)
    pub topic_alias_max: u16,
    rare: Option<Box<Rare>>,
    /// PUBLISH packets from the client and to it, for whoever looks at how many there are per second: they begin anew at 2^32.
    pub publishes_received: u32,
    pub publishes_sent: u32,
}

impl Link {
    /// Past this, PUBLISH packets wait in the session's queue as shared messages instead of encoded bytes: what the server
    /// lets gather before it writes, and what one more read may add.
    pub const OUTPUT_HIGH: usize = 128 << 10;
    /// Past this, shared payloads not counted, the client must read its answers before it is listened to again: what one read
    /// of small packets can cause. Less while memory is short.
    pub const OUTPUT_MAX: usize = 256 << 10;
    /// Input held of a paused link while looking for acknowledgements in it.
    pub const READ_AHEAD_MAX: usize = 128 << 10;
    /// The same of one that is too fast, and so the client's own doing: enough for one that is so now and then, and with one read
    /// more less than is held of any other that waits.
    pub const READ_AHEAD_OF_FAST_MAX: usize = 16 << 10;

    pub fn new(peer: Peer, rules: &Rc<Rules>, now: Millis) -> Link {
        Link {
            state: State::AwaitingConnect,
            version: Version::V311,
            peer,
            rules: rules.clone(),
            has_mount: false,
            max_qos: QoS::ExactlyOnce,
            has_own_window: false,
            is_dirty: false,
            is_stalled: false,
            is_unheard: false,
            is_bridge: false,
            wants_problem_information: true,
            is_warned: false,
            is_refused: false,
            is_unanswerable: false,
            is_hung_up: false,
            is_resumed: false,
            session: NONE,
            input: InBuf::default(),
            output: OutBuf::default(),
            unwritten_packets: 0,
            held: None,
            paused: Paused::No,
            timer: TimerId::NONE,
            last_received: now,
            keep_alive_s: 0,
            packet_size_max: PACKET_SIZE_MAX,
            window: u16::MAX,
            receive_maximum: 0,
            may_change_expiry: false,
            topic_alias_max: 0,
            rare: None,
            publishes_received: 0,
            publishes_sent: 0,
        }
    }

    /// The socket took `count` bytes of the output.
    pub fn advance_output(&mut self, count: usize, pool: &mut Pool) {
        let before = self.output.len();
        self.output.advance(count, pool);
        let left = self.output.len();
        self.unwritten_packets = match left {
            0 => 0,
            _ => (u64::from(self.unwritten_packets) * left as u64).div_ceil(before as u64) as u32,
        };
    }

    /// What is rarely needed, if it was.
    #[inline]
    pub fn rare(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    /// What is rarely needed, from now on.
    pub fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The first of those that wait for this link, or NONE.
    #[inline]
    pub fn first_waiter(&self) -> LinkId {
        self.awaited().map_or(NONE, |awaited| awaited.first_waiter)
    }

    #[inline]
    pub fn awaited(&self) -> Option<&Awaited> {
        self.rare()?.awaited.as_ref()
    }

    /// What is kept of it if others wait or waited for it.
    #[inline]
    pub fn if_awaited(&mut self) -> Option<&mut Awaited> {
        self.rare.as_deref_mut()?.awaited.as_mut()
    }

    pub fn awaited_mut(&mut self) -> &mut Awaited {
        let last_progress = self.last_received;
        let first = Awaited { first_waiter: NONE, stall_timer: TimerId::NONE, last_progress, taken: 0 };
        self.rare_mut().awaited.get_or_insert(first)
    }

    /// The next of those that wait for the same link as this one, or NONE.
    pub fn next_waiter(&self) -> LinkId {
        self.rare().map_or(NONE, |rare| rare.next_waiter)
    }

    /// Ends its pause, whatever for; says which link it waited for, and who waits for that behind it. NONE if none.
    pub fn end_wait(&mut self) -> (LinkId, LinkId) {
        self.paused = Paused::No;
        let Some(rare) = self.rare.as_deref_mut() else { return (NONE, NONE) };
        (std::mem::replace(&mut rare.waits_for, NONE), std::mem::replace(&mut rare.next_waiter, NONE))
    }

    /// Its client may not publish as fast as it likes.
    #[inline]
    pub fn is_rated(&self) -> bool {
        self.rare().is_some_and(|rare| rare.rate.is_some())
    }

    pub fn rate(&self) -> Option<&Bucket> {
        self.rare()?.rate.as_ref()
    }

    #[inline]
    pub fn rate_mut(&mut self) -> Option<&mut Bucket> {
        self.rare.as_deref_mut()?.rate.as_mut()
    }

    pub fn set_rate(&mut self, rate: Option<Bucket>) {
        match rate {
            None if self.rare.is_none() => {}
            rate => self.rare_mut().rate = rate,
        }
    }

    /// Forgets what is rarely needed; gives the timers that were armed for it.
    pub fn take_rare(&mut self) -> [TimerId; 2] {
        let Some(rare) = self.rare.take() else { return [TimerId::NONE; 2] };
        let stall_timer = rare.awaited.map_or(TimerId::NONE, |awaited| awaited.stall_timer);
        [stall_timer, rare.rate.map_or(TimerId::NONE, |bucket| bucket.timer)]
    }

    pub fn aliases_mut(&mut self) -> &mut Aliases {
        self.rare_mut().aliases.get_or_insert_default()
    }

    /// Bytes of answers that are due to the client, about: what was not written, and what may not be written yet.
    pub fn answers_len(&self) -> usize {
        self.output.own_len() + self.held.as_deref().map_or(0, |held| held.len() * HELD_LEN)
    }

    pub fn is_paused(&self) -> bool {
        self.paused != Paused::No
    }

    /// Its PUBLISH packets wait, and nothing else of it need.
    pub fn may_be_overtaken(&self) -> bool {
        matches!(self.paused, Paused::ForSubscriber | Paused::ForRate)
    }

    /// Whether a paused link's input is still searched for acknowledgements: not while enough is held of it, or while its client
    /// does not read what it is answered.
    pub fn reads_ahead(&self) -> bool {
        let max = match self.paused {
            Paused::ForSubscriber => Link::READ_AHEAD_MAX,
            Paused::ForRate => Link::READ_AHEAD_OF_FAST_MAX,
            Paused::No | Paused::ForOwnOutput | Paused::ForStore | Paused::ForLogin => return false,
        };
        self.input.len() < max && self.output.own_len() <= Link::OUTPUT_MAX
    }

    /// The client may be silent for one and a half times its Keep Alive. [MQTT-3.1.2-24] (3.1.1) [MQTT-3.1.2-22] (5.0)
    pub fn patience(&self) -> Millis {
        Millis(u64::from(self.keep_alive_s) * 1500)
    }

    /// Its acknowledgements cannot arrive, because its own input is full of messages for somebody else.
    pub fn is_deaf(&self) -> bool {
        self.may_be_overtaken() && !self.reads_ahead()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every idle connection has one.
    #[test]
    fn a_link_stays_small() {
        assert!(size_of::<Link>() <= 120, "{}", size_of::<Link>());
    }
}
