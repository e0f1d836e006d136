//! Links and sessions with what serves them: timers, spare buffers, counters. Separate from the index and the retained
//! store, so that both can be read while messages are handed to clients.

use std::rc::Rc;

use slab::Slab;

use super::NONE;
use super::hash::Seed;
use super::link::{Link, LinkId, Paused, Peer, State};
use super::memory::Memory;
use super::message::Spares;
use super::outgoing::Layouts;
use super::peak::Peak;
use super::session::Session;
use super::stats::Stats;
use super::store::Store;
use super::table::Table;
use super::timers;
use crate::buffer::Pool;
use crate::codec::{Packet, PropertiesBuf};
use crate::config::{Config, Rules};
use crate::time::Millis;
use crate::wheel::Wheel;

/// The room of so many links that are gone, some kilobytes, is not looked after.
const LINKS_FEW: usize = 32;
/// Nor are so many bytes that waited for sessions that ended.
const ABANDONED_BYTES_FEW: u64 = 16 << 10;

pub struct Clients {
    pub config: Config,
    pub seed: Seed,
    /// Names publishers to the store, and so is the same after a restart.
    pub publisher_seed: Seed,
    pub links: Slab<Link>,
    pub sessions: Slab<Session>,
    session_by_client_id: Table,
    links_peak: Peak,
    /// Bytes that waited for sessions that ended since memory was last given back.
    abandoned_bytes: u64,
    /// Sessions with a link.
    pub connected_count: usize,
    /// The most sessions there ever were.
    pub sessions_max: usize,
    pub wheel: Wheel,
    pub pool: Pool,
    pub stats: Stats,
    pub memory: Memory,
    pub store: Store,
    /// There is or was a session with an access control file.
    pub has_acl: bool,
    /// Links with output nobody was told of yet.
    pub dirty: Vec<LinkId>,
    /// Links to be closed by the shell.
    pub closing: Vec<LinkId>,
    /// Bytes put into outputs since they were last written.
    pub turn_bytes: usize,
    /// Scratch space of the message path.
    pub layouts: Layouts,
    pub hop_properties: PropertiesBuf,
    pub spares: Spares,
}

impl Clients {
    pub fn new(config: Config, seed: Seed) -> Clients {
        let (store, memory) = (Store::new(config.persistence, config.autosave), Memory::new(config.memory_limit));
        Clients {
            publisher_seed: Seed::new(0),
            config,
            seed,
            links: Slab::new(),
            sessions: Slab::new(),
            session_by_client_id: Table::default(),
            links_peak: Peak::default(),
            abandoned_bytes: 0,
            connected_count: 0,
            sessions_max: 0,
            wheel: Wheel::default(),
            pool: Pool::default(),
            stats: Stats::default(),
            memory,
            store,
            has_acl: false,
            dirty: Vec::new(),
            closing: Vec::new(),
            turn_bytes: 0,
            layouts: Layouts::default(),
            hop_properties: PropertiesBuf::default(),
            spares: Spares::default(),
        }
    }

    pub fn open(&mut self, peer: Peer, rules: &Rc<Rules>, now: Millis) -> LinkId {
        let id = self.links.insert(Link::new(peer, rules, now)) as LinkId;
        self.links_peak.note(self.links.len());
        self.stats.connections_accepted += 1;
        let deadline = now + Millis::from_secs(self.config.connect_timeout_s.into());
        self.links[id as usize].timer = self.wheel.arm(timers::round(deadline), timers::link(id));
        id
    }

    pub fn link_mut(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id as usize]
    }

    pub fn session_mut(&mut self, id: u32) -> &mut Session {
        &mut self.sessions[id as usize]
    }

    /// Gives back the memory of what is empty or was left behind.
    pub fn shrink(&mut self) {
        self.sessions.iter_mut().for_each(|(_, session)| session.shrink());
        self.links.shrink_to_fit();
        self.links_peak.begin_anew(self.links.len());
        self.abandoned_bytes = 0;
        self.memory.begin_anew();
        self.sessions.shrink_to_fit();
        self.session_by_client_id.shrink();
        self.wheel.shrink();
        self.dirty.shrink_to_fit();
        self.closing.shrink_to_fit();
        self.store.shrink();
        (self.layouts, self.hop_properties) = Default::default();
    }

    /// Most of the links there were since memory was last given back are gone, or most of the memory, or much that waited for
    /// sessions.
    pub fn has_shrunk(&self) -> bool {
        self.links_peak.is_past(self.links.len(), LINKS_FEW)
            || self.memory.has_shrunk()
            || self.abandoned_bytes > ABANDONED_BYTES_FEW
    }

    /// Frees a link whose close is done.
    pub fn reap(&mut self, id: LinkId) {
        let mut link = self.links.remove(id as usize);
        debug_assert!(link.session == NONE && link.first_waiter() == NONE && link.held.is_none());
        if link.is_dirty {
            self.dirty.retain(|&dirty| dirty != id);
        }
        let unwritten = link.output.len();
        link.output.advance(unwritten, &mut self.pool);
    }

    pub fn mark_dirty(&mut self, id: LinkId) {
        let link = &mut self.links[id as usize];
        if !link.is_dirty {
            link.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Appends a packet other than PUBLISH to the link's output. One that is larger than the client takes is not sent, and
    /// the link is marked to be closed: the client cannot be answered. [MQTT-3.1.2-24] (5.0)
    pub fn send(&mut self, id: LinkId, packet: &Packet) {
        let link = &mut self.links[id as usize];
        let tail = link.output.tail(&mut self.pool);
        let before = tail.len();
        packet.encode(link.version, tail);
        if tail.len() - before > link.packet_size_max as usize {
            tail.truncate(before);
            link.output.advance(0, &mut self.pool);
            link.is_unanswerable = true;
            return;
        }
        link.unwritten_packets += 1;
        self.stats.packets_sent += 1;
        self.mark_dirty(id);
    }

    /// A client that sends without reading what it is answered is not listened to until it reads. Gives its link.
    pub fn pause_if_output_is_full(&mut self, id: LinkId) -> &Link {
        let link = &mut self.links[id as usize];
        if link.answers_len() > self.memory.answers_max && !link.is_paused() && link.state != State::Closing {
            link.paused = Paused::ForOwnOutput;
            self.stats.pauses += 1;
        }
        link
    }

    pub fn find_session(&self, client_id: &str) -> Option<u32> {
        let hash = self.seed.hash(0, client_id.as_bytes());
        self.session_by_client_id
            .find(hash, |id| self.sessions[id as usize].client_id.as_bytes() == client_id.as_bytes())
    }

    pub fn add_session(&mut self, client_id: &str) -> u32 {
        let id = self.sessions.insert(Session::new(client_id)) as u32;
        self.session_by_client_id.insert(self.seed.hash(0, client_id.as_bytes()), id);
        self.sessions_max = self.sessions_max.max(self.sessions.len());
        id
    }

    pub fn remove_session(&mut self, id: u32) -> Session {
        let session = self.sessions.remove(id as usize);
        self.abandoned_bytes += session.delivery.as_deref().map_or(0, |delivery| delivery.queue_bytes);
        self.session_by_client_id.remove(self.seed.hash(0, session.client_id.as_bytes()), id);
        session
    }

    /// Mosquitto's form in log lines: `ID [IP:PORT]`; before CONNECT the address stands for the id.
    pub fn name(&self, id: LinkId) -> String {
        let link = &self.links[id as usize];
        match self.sessions.get(link.session as usize) {
            Some(session) => format!("{} [{}]", session.client_id, link.peer),
            None => format!("{} [{}]", link.peer.ip(), link.peer),
        }
    }

    pub fn client_id(&self, id: LinkId) -> &str {
        let session = self.links[id as usize].session;
        self.sessions.get(session as usize).map_or("", |session| &session.client_id)
    }
}
