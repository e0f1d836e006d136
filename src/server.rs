//! The loop: one poll, and the order of a turn. The only place that reads the clock or calls poll. It owns sockets and moves
//! bytes between them and the core, which owns everything else.
//!
//! A turn: wait; note what is ready; accept, within a budget; read each ready socket once; let paused links go on; write each
//! link with output once, or earlier if much gathers; let the core's timers fire, and write what they said; hand what must be
//! stored to the helper thread; free closed links. Sockets are registered once, edge-triggered, for
//! both directions: what is not read or written to the end is remembered here. With nothing left to do the next turn
//! waits for the core's next deadline, or for ever.
//!
//! Per message in a burst: one read and one write a socket and turn, whatever the number of messages.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::VERSION;
use crate::broker::{Broker, HangUp, LinkId, Peer};
use crate::buffer::OutBuf;
use crate::config::Rules;
use crate::keeper::{Keeper, KeeperError};
use crate::net::{Accept, Left, Listener, Refusal, Transport};
use crate::options::Settings;
use crate::os::{
    Reserve, Signal, Signals, allocated, give_back_memory, give_back_pages, memory_of_machine, raise_descriptor_limit,
};
use crate::time::Millis;

/// By default the broker takes no more than this part of the machine's memory: a gateway has other things to do.
const MEMORY_SHARE: u64 = 8;

const SIGNALS: Token = Token(usize::MAX - 1);
/// The helper thread of the store is done with something.
const STORE: Token = Token(usize::MAX - 2);
const FIRST_LISTENER: usize = usize::MAX / 2;

/// One read, and so what one link may bring in one turn.
const READ_LEN: usize = 64 << 10;
/// The buffer all sockets are read into is twice as large as one read, so that allocators map it by itself: its pages cost
/// nothing until they are touched.
const SCRATCH_LEN: usize = 2 * READ_LEN;
/// How often spare memory is looked through while there is any: once the traffic is over, twice.
const TRIM_INTERVAL: Millis = Millis(2000);
/// Output that gathers before it is written, though there is more to read: a write of so much costs no more per byte than
/// a larger one.
const GATHERED_MAX: usize = 64 << 10;
/// Connections accepted from one listener in one turn: a storm must not hold up those who are connected.
const ACCEPTS_PER_TURN: usize = 64;
const EVENTS_PER_TURN: usize = 256;
/// Full turns in a row after which timers are looked at all the same: 16,384 sockets.
const CROWDED_TURNS_MAX: u32 = 64;
/// How soon accepting is tried again when even the descriptor in reserve did not help.
const ACCEPT_RETRY: Millis = Millis(1000);
/// A refused connection is logged at most this often.
const REFUSAL_LOG_INTERVAL: Millis = Millis(10_000);

/// A listener that may have connections waiting.
struct Door {
    listener: Listener,
    /// Of its clients.
    rules: Rc<Rules>,
    has_waiting: bool,
    retry_at: Option<Millis>,
}

struct Server {
    poll: Poll,
    /// When it was `started_at`.
    started: Instant,
    started_at: Millis,
    now: Millis,
    broker: Broker,
    keeper: Option<Keeper>,
    doors: Vec<Door>,
    /// By link id.
    transports: Vec<Option<Transport>>,
    /// Links to read in this turn or the next.
    ready: Vec<LinkId>,
    /// Reused every turn.
    links: Vec<LinkId>,
    scratch: Vec<u8>,
    /// When memory is looked through for what was not needed of late.
    trim_at: Option<Millis>,
    crowded_turns: u32,
    reserve: Reserve,
    refused: u32,
    refusal_logged_at: Option<Millis>,
}

/// A broker that holds what is stored, if anything is, and what keeps it stored. Writes nothing.
///
/// # Errors
/// When the store cannot be read, or is not to be touched.
pub fn broker(settings: &Settings) -> Result<(Broker, Option<Keeper>), KeeperError> {
    let random = || RandomState::new().build_hasher().finish();
    let mut core = settings.core.clone();
    core.memory_limit =
        settings.memory_limit.unwrap_or_else(|| memory_of_machine().map_or(0, |bytes| bytes / MEMORY_SHARE));
    let mut broker = Broker::new(core, random());
    let Some(path) = &settings.store else { return Ok((broker, None)) };
    let keeper = Keeper::open(path, &mut broker, random())?;
    Ok((broker, Some(keeper)))
}

/// Serves until a signal ends it.
///
/// # Errors
/// When the system has no poll, no signal descriptor, or poll itself fails.
pub fn run(
    settings: &Settings,
    listeners: Vec<Listener>,
    broker: Broker,
    mut keeper: Option<Keeper>,
) -> io::Result<()> {
    let mut signals = Signals::new()?;
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&signals.as_raw_fd()), SIGNALS, Interest::READABLE)?;
    match raise_descriptor_limit() {
        Ok(limit) => info!("Up to {limit} descriptors can be open."),
        Err(error) => warn!("Warning: the limit of open descriptors could not be raised: {error}."),
    }
    // A listener may open several doors.
    let rules: Vec<_> = settings.listeners.iter().map(|listener| Rc::new(listener.rules.clone())).collect();
    let mut doors = Vec::new();
    for (number, mut listener) in listeners.into_iter().enumerate() {
        poll.registry().register(&mut listener, Token(FIRST_LISTENER + number), Interest::READABLE)?;
        let rules = rules[listener.config()].clone();
        doors.push(Door { listener, rules, has_waiting: true, retry_at: None });
    }
    let now = keeper.as_ref().map_or(Millis(0), Keeper::started_at);
    if let Some(keeper) = &mut keeper {
        // After the signals, which its thread must not get.
        let waker = Waker::new(poll.registry(), STORE)?;
        keeper.start(move || {
            // It fails only if the loop is gone.
            let _ = waker.wake();
        })?;
    }
    let mut server = Server {
        poll,
        started: Instant::now(),
        started_at: now,
        now,
        broker,
        keeper,
        doors,
        transports: Vec::new(),
        ready: Vec::new(),
        links: Vec::new(),
        scratch: vec![0; SCRATCH_LEN],
        trim_at: None,
        crowded_turns: 0,
        reserve: Reserve::new(),
        refused: 0,
        refusal_logged_at: None,
    };
    info!("midge version {VERSION} running");
    server.serve(&mut signals)?;
    info!("midge version {VERSION} terminating");
    Ok(())
}

impl Server {
    fn serve(&mut self, signals: &mut Signals) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now = self.clock();
            let mut is_signalled = false;
            for event in &events {
                match event.token() {
                    SIGNALS => is_signalled = true,
                    STORE => {}
                    Token(number) if number >= FIRST_LISTENER => {
                        if let Some(door) = self.doors.get_mut(number - FIRST_LISTENER) {
                            door.has_waiting = true;
                        }
                    }
                    Token(id) => self.note(id as LinkId, event),
                }
            }
            while is_signalled && let Some(signal) = signals.read() {
                match signal {
                    Signal::Terminate | Signal::Interrupt => {
                        self.stop();
                        return Ok(());
                    }
                    Signal::User1 => self.keeper.iter().for_each(|keeper| keeper.log_wear(self.now)),
                }
            }
            // What waited for the store may go with what this turn brings.
            self.turn_keeper();
            self.accept();
            self.read_ready();
            self.resume();
            self.write_dirty();
            // Last, so that nobody is found late or slow who was not offered the chance to be otherwise in this turn; and not
            // while there are more events than one turn takes, for a while: they may be signs of life.
            let is_crowded = events.iter().count() == EVENTS_PER_TURN;
            self.crowded_turns = if is_crowded { self.crowded_turns + 1 } else { 0 };
            if self.crowded_turns.is_multiple_of(CROWDED_TURNS_MAX) {
                self.broker.tick(self.now);
                self.write_dirty();
            }
            self.turn_keeper();
            self.free_closed();
            self.trim();
        }
    }

    /// Gives back memory that was not needed for a while; an idle broker that has none to give back does not wake up for it.
    fn trim(&mut self) {
        match self.trim_at {
            None if self.broker.has_spare_memory() => self.trim_at = Some(self.now + TRIM_INTERVAL),
            Some(at) if at <= self.now => {
                let is_quieter = self.broker.trim();
                self.trim_at = self.broker.has_spare_memory().then(|| self.now + TRIM_INTERVAL);
                if !is_quieter {
                    return;
                }
                while self.transports.last().is_some_and(Option::is_none) {
                    self.transports.pop();
                }
                self.transports.shrink_to_fit();
                self.ready.shrink_to_fit();
                self.links.shrink_to_fit();
                give_back_pages(&mut self.scratch);
                give_back_memory();
            }
            _ => {}
        }
    }

    fn clock(&self) -> Millis {
        self.started_at + Millis(self.started.elapsed().as_millis() as u64)
    }

    fn turn_keeper(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.turn(&mut self.broker, self.now);
        }
    }

    /// Nothing to wait for while something is left to do; else until the core's next deadline.
    fn timeout(&self) -> Option<Duration> {
        let has_waiting = self.doors.iter().any(|door| door.has_waiting && door.retry_at.is_none());
        if has_waiting || !self.ready.is_empty() || self.broker.has_work() {
            return Some(Duration::ZERO);
        }
        let retries = self.doors.iter().filter_map(|door| door.retry_at);
        let store = self.keeper.as_ref().and_then(|keeper| keeper.deadline(&self.broker));
        let deadline = retries.chain(self.broker.next_deadline()).chain(self.trim_at).chain(store).min()?;
        Some(Duration::from_millis((deadline - self.clock()).0))
    }

    /// Remembers what an event says of a connection.
    fn note(&mut self, id: LinkId, event: &mio::event::Event) {
        let Some(Some(transport)) = self.transports.get_mut(id as usize) else { return };
        transport.edges.is_ended |= event.is_read_closed() || event.is_error();
        if event.is_writable() && !transport.edges.is_writable {
            transport.edges.is_writable = true;
            self.broker.mark_unwritten(id);
            if transport.has_output() {
                self.broker.mark_dirty(id);
            }
        }
        if event.is_readable() || transport.edges.is_ended {
            transport.edges.is_readable = true;
            self.queue_read(id);
        }
    }

    /// Puts a link on the list of those to read.
    fn queue_read(&mut self, id: LinkId) {
        if let Some(Some(transport)) = self.transports.get_mut(id as usize)
            && transport.edges.is_readable
            && !transport.edges.is_queued
        {
            transport.edges.is_queued = true;
            self.ready.push(id);
        }
    }

    fn accept(&mut self) {
        for number in 0..self.doors.len() {
            let door = &mut self.doors[number];
            if door.retry_at.is_some_and(|at| at <= self.now) {
                door.retry_at = None;
            }
            if !door.has_waiting || door.retry_at.is_some() {
                continue;
            }
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.accept_one(number) {
                    break;
                }
            }
        }
    }

    /// Accepts the next connection of a listener; false if it is to be left alone for now.
    fn accept_one(&mut self, number: usize) -> bool {
        let door = &mut self.doors[number];
        match door.listener.accept() {
            Accept::Peer(transport, address) => {
                let max = self.broker.config().global_max_connections as usize;
                if max != 0 && self.broker.link_count() >= max {
                    info!("Client connection from {} denied: max_connections exceeded.", address.ip());
                    return true;
                }
                if self.broker.config().connection_messages {
                    let port = door.listener.address().port();
                    info!("New connection from {} on port {port}.", Peer::from(address));
                }
                let rules = door.rules.clone();
                self.open(transport, address.into(), &rules);
                true
            }
            Accept::WouldBlock => {
                door.has_waiting = false;
                false
            }
            Accept::OutOfDescriptors => match door.listener.refuse(&mut self.reserve) {
                Refusal::Peer(address) => {
                    self.log_refusal(&address.ip().to_string());
                    true
                }
                Refusal::WouldBlock => {
                    door.has_waiting = false;
                    false
                }
                Refusal::Later => {
                    door.retry_at = Some(self.now + ACCEPT_RETRY);
                    self.log_refusal("anybody");
                    false
                }
            },
            Accept::Failed(error) => {
                warn!("Error: accepting connections on port {} failed: {error}.", door.listener.address().port());
                door.retry_at = Some(self.now + ACCEPT_RETRY);
                false
            }
        }
    }

    fn open(&mut self, mut transport: Transport, peer: Peer, rules: &Rc<Rules>) {
        let id = self.broker.open(peer, rules, self.now);
        let at = id as usize;
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut transport, Token(at), both) {
            self.broker.hang_up(id, HangUp::Failed(error.to_string()), self.now);
        }
        if self.transports.len() <= at {
            self.transports.resize_with(at + 1, || None);
        }
        self.transports[at] = Some(transport);
    }

    /// No descriptor is left: whoever comes now is turned away at once instead of left waiting.
    fn log_refusal(&mut self, who: &str) {
        self.refused += 1;
        if self.refusal_logged_at.is_none_or(|at| at + REFUSAL_LOG_INTERVAL <= self.now) {
            self.refusal_logged_at = Some(self.now);
            let refused = std::mem::take(&mut self.refused);
            let open = self.broker.link_count();
            warn!(
                "Client connection from {who} denied: no descriptor is free ({open} connections; {refused} refused)."
            );
        }
    }

    /// Reads each ready link once; what is left in a socket is read in the next turn.
    fn read_ready(&mut self) {
        let mut ready = std::mem::replace(&mut self.ready, std::mem::take(&mut self.links));
        for id in ready.drain(..) {
            let Some(Some(transport)) = self.transports.get_mut(id as usize) else { continue };
            transport.edges.is_queued = false;
            // A link that must wait keeps its readiness until it is resumed.
            if self.broker.wants_input(id) && self.read(id) {
                self.queue_read(id);
            }
            // Many publishers of one subscriber would otherwise fill its output before it is offered anything.
            if self.broker.gathered() >= GATHERED_MAX {
                self.write_dirty();
            }
        }
        self.links = ready;
    }

    /// One read; whether there may be more.
    fn read(&mut self, id: LinkId) -> bool {
        let Some(Some(transport)) = self.transports.get_mut(id as usize) else { return false };
        let read = match transport.read(&mut self.scratch[..READ_LEN]) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) => {
                transport.edges.is_readable = false;
                if error.kind() != ErrorKind::WouldBlock {
                    self.broker.hang_up(id, HangUp::Failed(error.to_string()), self.now);
                }
                return false;
            }
        };
        transport.edges.is_readable = match read.left {
            Left::Full => true,
            // Unless the end is still to be read.
            Left::Empty => transport.edges.is_ended,
            Left::Ended | Left::Broken(_) => false,
        };
        if transport.has_output() {
            self.broker.mark_dirty(id);
        }
        if read.count > 0 {
            self.broker.set_memory_used(allocated());
            self.broker.receive(id, &self.scratch[..read.count], self.now);
        }
        match read.left {
            Left::Full | Left::Empty => return true,
            Left::Ended => self.broker.hang_up(id, HangUp::Closed, self.now),
            Left::Broken(fault) => self.broker.hang_up(id, HangUp::Breach(fault.to_string()), self.now),
        }
        false
    }

    /// Links that waited for others handle the input they hold, and are read again.
    fn resume(&mut self) {
        let mut readable = std::mem::take(&mut self.links);
        self.broker.resume(&mut readable, self.now);
        readable.drain(..).for_each(|id| self.queue_read(id));
        self.links = readable;
    }

    fn write_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.links);
        self.broker.take_dirty(&mut dirty);
        dirty.drain(..).for_each(|id| self.write(id));
        self.links = dirty;
    }

    /// One write, if the socket takes any.
    fn write(&mut self, id: LinkId) {
        let Some(Some(transport)) = self.transports.get_mut(id as usize) else { return };
        if !transport.edges.is_writable {
            return;
        }
        let output = self.broker.output(id);
        let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
        let count = output.slices(&mut slices);
        if count == 0 && !transport.has_output() {
            return;
        }
        let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        match transport.write_vectored(&slices[..count]) {
            Ok(written) => {
                transport.edges.is_writable = written == offered && !transport.has_output();
                self.broker.wrote(id, written, self.now);
                if transport.edges.is_writable {
                    self.broker.mark_unwritten(id);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.broker.mark_dirty(id),
            Err(error) if error.kind() == ErrorKind::WouldBlock => transport.edges.is_writable = false,
            Err(error) => self.broker.hang_up(id, HangUp::Failed(error.to_string()), self.now),
        }
    }

    /// The end of closed links: what they were told is on its way, and what they sent meanwhile is read, because a socket that
    /// is closed with unread input takes back what it sent last.
    fn free_closed(&mut self) {
        let mut closed = std::mem::take(&mut self.links);
        self.broker.take_closing(&mut closed);
        for id in closed.drain(..) {
            if let Some(mut transport) = self.transports[id as usize].take() {
                let _ = transport.shutdown_write();
                let _ = transport.read(&mut self.scratch[..READ_LEN]);
            }
            self.broker.reap(id);
        }
        self.links = closed;
    }

    /// An orderly end: wills, DISCONNECT for those who know it, and the sockets closed.
    fn stop(&mut self) {
        self.broker.shut_down(self.now);
        if let Some(keeper) = &mut self.keeper {
            keeper.finish(&mut self.broker, self.now);
        }
        self.write_dirty();
        self.free_closed();
    }
}
