//! The pure core: all protocol state, and nothing of the system. Bytes, time and a seed come in as arguments; output
//! is appended to buffers the shell writes out. A link is one live connection; a session is one client id and outlives
//! links; nobody here asks who opened a link.
//!
//! ```text
//! denial -> callers                                                  who may not even connect
//! receive -> input -> connect / publish / subscribe / acknowledge / close     one file a packet direction
//!            publish -> latest, index, retained -> deliver -> outgoing -> link.output    or session queue
//! wrote   -> flow -> deliver (what waited)                           pausing, stalls, what may go on
//! receive -> rate                                                    publishers that are too fast
//! take_login, login -> connect                                       passwords, checked elsewhere
//! tick    -> wheel -> timers                                         keep-alive, expiry, wills, retransmission
//! reconfigure, set_rules                                             limits and listeners' rules while it runs
//! inspect, order                                                     what midge ctl shows, and what it does
//! ```
//!
//! Invariants, swept by `check_invariants`: a session and its link name each other; a link is freed in `reap` alone; every
//! subscription stands both in its session and in the index; a paused link stands in exactly one waiting list.
//!
//! What must survive a restart lives in `Session`, `Retained` and the index; whoever changes it tells `store`.

mod access;
mod acknowledge;
mod alias;
mod callers;
mod check;
mod client_id;
mod clients;
mod close;
mod connect;
mod deliver;
mod flow;
mod hash;
mod index;
mod input;
mod inspect;
mod latest;
mod link;
mod login;
mod memory;
mod message;
mod mount;
mod order;
mod outgoing;
mod owed;
mod peak;
mod publish;
mod rate;
mod reconfigure;
mod retained;
mod rivals;
mod session;
mod share;
mod stats;
mod store;
mod subscribe;
mod subscriptions;
mod sys;
mod table;
mod text;
mod timers;
mod tree;
mod will;

use std::rc::Rc;

use crate::buffer::OutBuf;
use crate::config::{Config, Rules};
use crate::time::Millis;

use self::callers::Callers;
use self::clients::Clients;
use self::close::CloseReason;
use self::hash::Seed;
use self::index::{FilterId, Index};
use self::latest::Latest;
use self::link::{Link, State};
use self::login::Login;
use self::memory::Level;
use self::retained::Retained;
use self::rivals::Rivals;
use self::sys::Sys;

pub use self::callers::Denial;
pub use self::close::HangUp;
pub use self::inspect::Inspection;
pub use self::link::{LinkId, Peer};
pub use self::login::LoginId;
pub use self::order::Deletion;
pub use self::stats::Stats;
pub use self::store::{Batch, Part, Replay, StoreStats};

/// No link, session or share.
const NONE: u32 = u32::MAX;

/// Bytes of an unfinished packet that count as a sign of life: what the slowest modem takes a second for, as in Mosquitto.
const UNFINISHED_BYTES: usize = 1024;

/// Bytes put into outputs in one turn, after which the rest of the input waits for the next: one read of small messages to a
/// thousand subscribers would otherwise take half a second and 40 MB before the first write.
const TURN_BYTES_MAX: usize = 4 << 20;
/// Input that was held, of links that may go on, which is handled in one turn: as much as one read brings, or that of one link.
const HELD_PER_TURN: usize = 64 << 10;

/// The broker's state and everything that may happen to it.
pub struct Broker {
    clients: Clients,
    index: Index,
    retained: Retained,
    /// Armed for the first retained message that expires.
    retained_timer: crate::wheel::TimerId,
    sys: Sys,
    login: Login,
    callers: Callers,
    rivals: Rivals,
    /// The packet that is being handled, if it is large.
    large_packet: Option<Rc<Vec<u8>>>,
    latest: Latest,
    /// What a look ahead said of the topic that is being published, or NONE.
    guess: FilterId,
    /// Links whose input may go on.
    resumed: Vec<LinkId>,
    /// Numbers for made-up client ids.
    random: u64,
    started_at: Millis,
    /// Bytes of log lines that were written.
    log_bytes: u64,
    /// Bytes received and sent when memory was last looked through.
    moved_at_trim: u64,
}

impl Broker {
    /// `seed` must be unpredictable to clients: it keys the hash tables.
    pub fn new(config: Config, seed: u64) -> Broker {
        let sys = Sys::new(Millis::from_secs(config.sys_interval_s.into()));
        Broker {
            clients: Clients::new(config, Seed::new(seed)),
            index: Index::new(Seed::new(seed)),
            retained: Retained::default(),
            retained_timer: crate::wheel::TimerId::NONE,
            sys,
            login: Login::new([0; 32]),
            callers: Callers::default(),
            rivals: Rivals::default(),
            large_packet: None,
            latest: Latest::default(),
            guess: NONE,
            resumed: Vec::new(),
            random: seed ^ 0x9E37_79B9_7F4A_7C15,
            started_at: Millis(0),
            log_bytes: 0,
            moved_at_trim: 0,
        }
    }

    /// What time it was when the broker started; 0 unless this is called.
    pub fn set_started(&mut self, at: Millis) {
        self.started_at = at;
        let interval = self.sys_interval();
        self.sys.set_started(at, interval);
    }

    /// The key under which publishers are known in the store.
    pub fn set_store_key(&mut self, key: u64) {
        self.clients.publisher_seed = Seed::new(key);
    }

    pub fn set_store_stats(&mut self, stats: StoreStats) {
        self.clients.store.stats = stats;
    }

    /// A connection was accepted from `peer`. `rules` are the listener's.
    pub fn open(&mut self, peer: Peer, rules: &Rc<Rules>, now: Millis) -> LinkId {
        self.note_time(now);
        self.clients.open(peer, rules, now)
    }

    /// A connection was accepted and closed again: `denial` says why, or there is another reason.
    pub fn turned_away(&mut self, now: Millis) {
        self.note_time(now);
        self.clients.stats.connections_accepted += 1;
        self.clients.stats.connections_refused += 1;
    }

    /// Bytes that arrived on `id`. Whole packets are handled; the rest is kept until more arrives.
    pub fn receive(&mut self, id: LinkId, bytes: &[u8], now: Millis) {
        self.note_time(now);
        let link = self.clients.link_mut(id);
        let (len_before, was_paused) = (link.input.len(), link.is_paused());
        self.clients.stats.bytes_received += bytes.len() as u64;
        if len_before == 0 && !was_paused {
            let used = self.process(id, bytes, now);
            let Clients { links, pool, .. } = &mut self.clients;
            if used < bytes.len() {
                links[id as usize].input.append(&bytes[used..], pool);
            }
        } else {
            let Clients { links, pool, .. } = &mut self.clients;
            links[id as usize].input.append(bytes, pool);
            if !was_paused {
                self.process_input(id, now);
            }
        }
        if self.clients.memory.level() >= Level::Overflow && !self.clients.links[id as usize].input.is_empty() {
            self.drop_largest_input(now);
        }
        let link = self.clients.link_mut(id);
        // Whole packets count as signs of life [MQTT-3.1.2-24] (3.1.1) [MQTT-3.1.2-22] (5.0), and so does each kilobyte of one that
        // takes long; not the byte now and then by which a client would never be found out.
        let (len, is_done) = (link.input.len(), link.input.len() < len_before + bytes.len());
        if is_done || was_paused || len / UNFINISHED_BYTES != len_before / UNFINISHED_BYTES {
            link.last_received = now;
        }
        if link.is_paused() {
            self.read_ahead(id, now);
        }
    }

    /// Whether the link's socket should be read: not while it waits for others and enough is buffered, nor once closed.
    pub fn wants_input(&self, id: LinkId) -> bool {
        let link = &self.clients.links[id as usize];
        match link.state {
            State::Closing => false,
            _ => !link.is_hung_up && if link.is_paused() { link.reads_ahead() } else { !link.is_resumed },
        }
    }

    /// The client sent something that waits in its socket for its turn to be read: it is not silent. To be said before `tick`.
    pub fn waits_unread(&mut self, id: LinkId, now: Millis) {
        self.clients.link_mut(id).last_received = now;
    }

    /// What is to be written on `id`.
    pub fn output(&self, id: LinkId) -> &OutBuf {
        &self.clients.links[id as usize].output
    }

    /// The socket took `count` bytes of the output.
    pub fn wrote(&mut self, id: LinkId, count: usize, now: Millis) {
        self.note_time(now);
        let Clients { links, pool, stats, .. } = &mut self.clients;
        let link = &mut links[id as usize];
        let was_full = link.output.own_len() > Link::OUTPUT_MAX / 2;
        link.advance_output(count, pool);
        stats.bytes_sent += count as u64;
        if count > 0 && link.state != State::Closing {
            let is_read_again = was_full && link.output.own_len() <= Link::OUTPUT_MAX / 2 && link.reads_ahead();
            if is_read_again {
                self.let_go_on(id);
            }
            self.took(id, count, now);
        }
    }

    /// The socket can take output again, or was not given all of it: the link is dirty if it has any.
    pub fn mark_unwritten(&mut self, id: LinkId) {
        if !self.clients.links[id as usize].output.is_empty() {
            self.clients.mark_dirty(id);
        }
    }

    /// The link has its turn to be written, though there may be no output of the core's: its transport has some.
    pub fn mark_dirty(&mut self, id: LinkId) {
        self.clients.mark_dirty(id);
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Millis) {
        self.note_time(now);
        self.clients.wheel.advance(now);
        while let Some(owner) = self.clients.wheel.pop_due() {
            self.fire(owner, now);
        }
    }

    /// When `tick` has to be called again; never if nothing.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.clients.wheel.next_deadline()
    }

    /// Lets links go on that were paused or had more to do than one turn allows. The caller reads the sockets of those
    /// listed in `readable` again, whose readiness it may have passed over.
    pub fn resume(&mut self, readable: &mut Vec<LinkId>, now: Millis) {
        self.note_time(now);
        let mut budget = HELD_PER_TURN;
        let mut resumed = std::mem::take(&mut self.resumed);
        for id in resumed.drain(..) {
            let link = &mut self.clients.links[id as usize];
            link.is_resumed = false;
            if link.state == State::Closing {
                continue;
            }
            if !link.is_paused() && self.clients.turn_bytes <= TURN_BYTES_MAX && budget > 0 {
                budget = budget.saturating_sub(link.input.len());
                self.go_on(id, now);
            } else if !link.is_paused() {
                self.let_go_on(id);
            }
            // Of a link that is still paused, acknowledgements may have been left in the socket.
            readable.push(id);
        }
        if self.resumed.is_empty() {
            self.resumed = resumed;
        }
    }

    /// Whether there is anything to `resume`.
    #[inline]
    pub fn has_resumed(&self) -> bool {
        !self.resumed.is_empty()
    }

    /// Handles the input a link holds, and looks for more retained messages it is owed.
    fn go_on(&mut self, id: LinkId, now: Millis) {
        let link = &mut self.clients.links[id as usize];
        // What it sent while it was not listened to may still be in its socket: keep-alive begins anew.
        link.last_received = now;
        if !link.input.is_empty() {
            self.process_input(id, now);
        }
        let link = &self.clients.links[id as usize];
        if link.is_paused() {
            self.read_ahead(id, now);
        } else if link.is_hung_up && !link.is_resumed {
            self.close(id, CloseReason::hung_up(HangUp::Closed), now);
        }
        let link = &self.clients.links[id as usize];
        if link.session != NONE && self.clients.sessions[link.session as usize].owes_retained() {
            self.pump(link.session, now);
        }
    }

    /// Bytes put into outputs since `take_dirty`.
    pub fn gathered(&self) -> usize {
        self.clients.turn_bytes
    }

    /// Whether there is anything for `take_dirty`.
    #[inline]
    pub fn has_dirty(&self) -> bool {
        !self.clients.dirty.is_empty() || self.clients.turn_bytes > 0
    }

    /// Moves the links with unwritten output, each once, into `dirty`.
    pub fn take_dirty(&mut self, dirty: &mut Vec<LinkId>) {
        let Clients { links, dirty: own, .. } = &mut self.clients;
        for id in own.drain(..) {
            links[id as usize].is_dirty = false;
            dirty.push(id);
        }
        self.clients.turn_bytes = 0;
    }

    /// Whether there is anything for `take_closing`.
    #[inline]
    pub fn has_closing(&self) -> bool {
        !self.clients.closing.is_empty()
    }

    /// Moves the links that are to be closed once their output had its chance into `closing`; each is given back with `reap`.
    pub fn take_closing(&mut self, closing: &mut Vec<LinkId>) {
        closing.append(&mut self.clients.closing);
    }

    /// Frees a link from `take_closing`.
    pub fn reap(&mut self, id: LinkId) {
        if self.clients.links[id as usize].is_resumed {
            // It was let go on and failed in the same turn.
            self.resumed.retain(|&resumed| resumed != id);
        }
        self.clients.reap(id);
    }

    /// Buffers are held for traffic to come, or room for what is gone.
    pub fn has_spare_memory(&self) -> bool {
        !self.clients.pool.is_empty() || self.has_shrunk()
    }

    /// Gives up spare buffers that were not needed since the last time. When nobody said anything since then, or those were most of
    /// many, or most links or most of something else are gone, it has become quieter, and what the traffic left behind goes, too: empty
    /// queues, and room for more links and subscriptions than there are. Nothing that is in use goes, whatever the traffic.
    /// Says whether it went so far.
    pub fn trim(&mut self) -> bool {
        let moved = self.clients.stats.bytes_received.wrapping_add(self.clients.stats.bytes_sent);
        let is_silent = std::mem::replace(&mut self.moved_at_trim, moved) == moved;
        let has_freed_most = self.clients.pool.trim();
        self.clients.spares = Default::default();
        if !is_silent && !has_freed_most && !self.has_shrunk() {
            return false;
        }
        self.clients.shrink();
        self.index.shrink();
        self.retained.shrink();
        self.sys.shrink();
        self.login.shrink();
        self.callers.shrink();
        self.rivals.shrink();
        self.latest = Latest::default();
        self.resumed.shrink_to_fit();
        true
    }

    fn has_shrunk(&self) -> bool {
        self.clients.has_shrunk() || self.index.has_shrunk() || self.retained.has_shrunk()
    }

    /// Something is left to do in this turn: output to write, links to resume or to close, a login to look at.
    pub fn has_work(&self) -> bool {
        !self.clients.dirty.is_empty()
            || !self.resumed.is_empty()
            || !self.clients.closing.is_empty()
            || self.login.has_work()
    }

    pub fn stats(&self) -> &Stats {
        &self.clients.stats
    }

    pub fn config(&self) -> &Config {
        &self.clients.config
    }

    /// Live connections, with and without CONNECT.
    pub fn link_count(&self) -> usize {
        self.clients.links.len()
    }

    /// Sessions, connected and stored.
    pub fn session_count(&self) -> usize {
        self.clients.sessions.len()
    }

    /// Subscriptions of all sessions.
    pub fn subscription_count(&self) -> usize {
        self.index.subscription_count()
    }

    /// Retained messages.
    pub fn retained_count(&self) -> usize {
        self.retained.len()
    }

    /// Bytes of the retained messages: topics, properties and payloads.
    pub fn retained_bytes(&self) -> usize {
        self.retained.bytes()
    }
}
