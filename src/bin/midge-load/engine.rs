//! The loop of the load: one poll, then everything that is ready or due, then one write a client. It carries out a plan and
//! counts; what is measured when is for `run` to say.
//!
//! A message costs a copy of its template and a look at its stamp; a turn costs one read and one write for each client that has
//! something. Times are nanoseconds since the engine was made.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::client::{Client, State};
use crate::feed::Feed;
use crate::histogram::Histogram;
use crate::os::{self, Timer};
use crate::plan::{Plan, Route, StreamPlan, What};
use crate::sequence::Seen;
use crate::watch::Watch;
use crate::wire::{self, Template};

const TIMER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 1024;
const READ_LEN: usize = 256 << 10;
/// Reads of one client in one turn.
const READS_PER_TURN: u32 = 4;
/// Connections on their way at a time: brokers listen with a backlog of a hundred.
const CONNECTING_MAX: u32 = 100;
/// Clients that connect from one address.
const CLIENTS_PER_ADDRESS: u32 = 25_000;
/// What a client that was cut off or refused waits before it tries again; the last one for ever.
const RETRY_NS: [u64; 4] = [0, 1_000_000_000, 2_000_000_000, 4_000_000_000];
/// How often a slow reader reads.
const SLOW_READ_NS: u64 = 20_000_000;
pub const SECOND_NS: u64 = 1_000_000_000;

/// Where the load goes.
#[derive(Clone, Copy)]
pub struct Target {
    pub address: SocketAddr,
    /// Sockets are copied to sockets there, and nobody speaks MQTT.
    pub is_relay: bool,
}

pub struct Stream {
    pub template: Template,
    pub plan: StreamPlan,
    pub feed: u32,
    pub published: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    Feed(u32),
    Connect(u32),
    Arrival,
    SlowRead(u32),
}

/// What happened since the start.
#[derive(Clone, Default)]
pub struct Tally {
    pub published: u64,
    pub delivered: u64,
    pub acknowledged: u64,
    pub pings: u64,
    pub duplicated: u64,
    pub misordered: u64,
    /// Deliveries that published messages should lead to, and those that came or are known not to come.
    pub expected: u64,
    pub settled: u64,
    /// Messages that are none of ours.
    pub foreign: u64,
    /// Connections that the other side closed or refused.
    pub hang_ups: u64,
    pub failed_connects: u64,
    /// Times nothing came any more of what was on its way.
    pub stalls: u64,
}

pub struct Engine {
    poll: Poll,
    events: Option<Events>,
    timer: Timer,
    timer_at: u64,
    pub target: Target,
    started: Instant,
    pub now: u64,
    pub clients: Vec<Client>,
    pub streams: Vec<Stream>,
    pub feeds: Vec<Feed>,
    pub(crate) alarms: BinaryHeap<Reverse<(u64, Alarm)>>,
    pub(crate) ready: Vec<u32>,
    dirty: Vec<u32>,
    unread: Vec<u32>,
    scratch: Vec<u8>,
    waiting: VecDeque<u32>,
    connecting: u32,
    arrival_interval_ns: u64,
    /// Whose turn it is where messages can only be counted.
    pub(crate) counted_feed: u32,
    /// Clients that are to come up and are not.
    pub coming: u32,
    pub tally: Tally,
    pub unacknowledged: u64,
    pub last_progress: u64,
    pub is_recording: bool,
    pub latency: Histogram,
    pub acknowledgements: Histogram,
    pub connects: Histogram,
    pub pings: Histogram,
    /// The first thing that went wrong.
    pub complaint: Option<String>,
    pub watch: Watch,
    second_at: u64,
}

impl Engine {
    pub fn new(plan: Plan, target: Target, watch: Watch) -> io::Result<Engine> {
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let mut clients: Vec<Client> = plan.clients.into_iter().map(Client::new).collect();
        let streams = plan.streams.into_iter().map(Stream::new).collect();
        let mut engine = Engine {
            poll,
            events: Some(Events::with_capacity(EVENTS_PER_TURN)),
            timer,
            timer_at: 0,
            target,
            started: Instant::now(),
            now: 0,
            clients: Vec::new(),
            streams,
            feeds: Vec::new(),
            alarms: BinaryHeap::new(),
            ready: Vec::new(),
            dirty: Vec::new(),
            unread: Vec::new(),
            scratch: vec![0; READ_LEN],
            waiting: VecDeque::new(),
            connecting: 0,
            arrival_interval_ns: SECOND_NS.checked_div(plan.connects_per_s.into()).unwrap_or(0),
            counted_feed: 0,
            coming: 0,
            tally: Tally::default(),
            unacknowledged: 0,
            last_progress: 0,
            is_recording: false,
            latency: Histogram::new(),
            acknowledgements: Histogram::new(),
            connects: Histogram::new(),
            pings: Histogram::new(),
            complaint: None,
            watch,
            second_at: SECOND_NS,
        };
        for (at, feed) in plan.feeds.into_iter().enumerate() {
            let at = at as u32;
            let client = &mut clients[feed.client as usize];
            client.feeds = if client.feeds.is_empty() { at..at + 1 } else { client.feeds.start..at + 1 };
            if let What::Publish(streams) = &feed.what {
                streams.clone().for_each(|stream| engine.streams[stream as usize].feed = at);
            }
            engine.feeds.push(Feed::new(feed, &engine.streams));
        }
        engine.clients = clients;
        engine.count_bytes_where_packets_are_mixed();
        Ok(engine)
    }

    fn count_bytes_where_packets_are_mixed(&mut self) {
        let mixed = |route| {
            let publishes = |client: &&Client| client.plan.route == Route::Publish(route);
            self.clients.iter().filter(publishes).take(2).count() > 1
        };
        if self.target.is_relay
            && mixed(0)
            && let Some(stream) = self.streams.first()
        {
            let counted_len = Some(stream.template.packet_len());
            self.clients.iter_mut().for_each(|client| client.counted_len = counted_len);
        }
    }

    /// Time between two arrivals where the plan wants one.
    pub fn arrival_interval_ns(&self) -> u64 {
        self.arrival_interval_ns
    }

    pub fn clock(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Turns until `done` says so or the time has come; which of the two it was.
    pub fn drive(&mut self, until: u64, mut done: impl FnMut(&Engine) -> bool) -> io::Result<bool> {
        self.now = self.clock();
        loop {
            if done(self) {
                return Ok(true);
            }
            if self.now >= until {
                return Ok(false);
            }
            self.turn(until)?;
        }
    }

    pub fn drive_for(&mut self, ns: u64) -> io::Result<()> {
        self.drive(self.clock() + ns, |_| false).map(drop)
    }

    fn turn(&mut self, until: u64) -> io::Result<()> {
        let alarm = self.alarms.peek().map_or(until, |Reverse((at, _))| *at);
        let next = alarm.min(until).min(self.second_at);
        self.start_connects();
        let timeout = if self.ready.is_empty() && self.unread.is_empty() && self.dirty.is_empty() {
            self.set_timer(next)?;
            None
        } else {
            Some(Duration::ZERO)
        };
        let mut events = self.events.take().unwrap_or_else(|| Events::with_capacity(EVENTS_PER_TURN));
        match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => self.now = self.clock(),
        }
        let mut unread = std::mem::take(&mut self.unread);
        unread.drain(..).for_each(|id| self.read(id));
        for event in &events {
            if event.token() != TIMER {
                self.note(event);
            }
        }
        self.events = Some(events);
        self.fire();
        self.send_ready();
        self.write_dirty();
        if self.now >= self.second_at {
            self.second_at += SECOND_NS;
            self.write_off_if_stalled();
            self.watch.second(&self.tally);
        }
        Ok(())
    }

    fn set_timer(&mut self, at: u64) -> io::Result<()> {
        if at != self.timer_at || at <= self.now {
            self.timer_at = at;
            self.timer.set(at.saturating_sub(self.clock()))?;
        }
        Ok(())
    }

    fn note(&mut self, event: &mio::event::Event) {
        let id = event.token().0 as u32;
        let Some(client) = self.clients.get_mut(id as usize) else { return };
        if event.is_writable() {
            client.is_writable = true;
            if client.state == State::Connecting {
                self.greet(id);
            } else {
                let (has_output, feeds) = (client.unsent() > 0, client.feeds.clone());
                if has_output {
                    self.mark_dirty(id);
                }
                feeds.for_each(|feed| self.make_ready(feed));
            }
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.clients[id as usize].is_readable = true;
            self.read(id);
        }
    }

    fn fire(&mut self) {
        while let Some(Reverse((at, alarm))) = self.alarms.peek().copied() {
            if at > self.now {
                return;
            }
            self.alarms.pop();
            match alarm {
                Alarm::Feed(feed) => self.make_ready(feed),
                Alarm::Connect(id) => self.waiting.push_back(id),
                Alarm::Arrival => {
                    if let Some(id) = self.waiting.pop_front() {
                        self.connect(id);
                        self.alarms.push(Reverse((at + self.arrival_interval_ns, Alarm::Arrival)));
                    }
                }
                Alarm::SlowRead(id) => self.slow_read(id, at),
            }
        }
    }

    // ---- Connections ------------------------------------------------------------------------------------------------

    /// Has these clients connect and subscribe, at the plan's rate.
    pub fn bring_up(&mut self, ids: Range<u32>) {
        self.coming += ids.len() as u32;
        self.waiting.extend(ids);
        if self.arrival_interval_ns > 0 {
            self.alarms.push(Reverse((self.clock(), Alarm::Arrival)));
        }
    }

    fn start_connects(&mut self) {
        while self.arrival_interval_ns == 0
            && self.connecting < CONNECTING_MAX
            && let Some(id) = self.waiting.pop_front()
        {
            self.connect(id);
        }
    }

    fn connect(&mut self, id: u32) {
        let group = id / CLIENTS_PER_ADDRESS;
        let source = match self.target.address {
            SocketAddr::V4(to) if to.ip().is_loopback() && group > 0 => {
                Some(Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + group))
            }
            _ => None,
        };
        let started = self.clock();
        let client = &mut self.clients[id as usize];
        let receive_buffer = client.plan.slow.map(|slow| slow.receive_buffer);
        let opened = os::connect(self.target.address, source, receive_buffer).and_then(|mut socket| {
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(id as usize), both)?;
            socket.set_nodelay(true)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                if client.attempts == 0 {
                    client.connect_started = started;
                }
                client.socket = Some(socket);
                client.state = State::Connecting;
                self.connecting += 1;
            }
            Err(error) => self.retry(id, &error.to_string()),
        }
    }

    fn greet(&mut self, id: u32) {
        let client = &mut self.clients[id as usize];
        let Some(socket) = &client.socket else { return };
        let error = socket.take_error().ok().flatten().or_else(|| socket.peer_addr().err());
        match error {
            None => {
                client.greet(self.target.is_relay);
                self.mark_dirty(id);
            }
            Some(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Some(error) => self.lose(id, &error.to_string()),
        }
    }

    /// The broker has accepted the client.
    pub(crate) fn greeted(&mut self, id: u32, session_present: bool) {
        self.connecting = self.connecting.saturating_sub(1);
        let client = &mut self.clients[id as usize];
        client.attempts = 0;
        self.connects.record(self.now.saturating_sub(client.connect_started));
        if client.plan.filter_count() == 0 || session_present || self.target.is_relay {
            self.up(id);
        } else {
            client.subscribe();
            self.mark_dirty(id);
        }
    }

    pub(crate) fn up(&mut self, id: u32) {
        let client = &mut self.clients[id as usize];
        client.state = State::Up;
        if client.subscribed_at == 0 {
            // What was published before is not missing, unless it is retained.
            let first = client.plan.sees.start as usize;
            for (seen, stream) in client.ledger.iter_mut().zip(&self.streams[first..]) {
                if !stream.plan.retain {
                    *seen = Seen::start_at(stream.published);
                }
            }
        }
        client.subscribed_at = self.now;
        if let Some(slow) = client.plan.slow {
            client.allowance = 0;
            self.alarms.push(Reverse((self.now + slow.starts_after_ms * 1_000_000, Alarm::SlowRead(id))));
        }
        self.coming = self.coming.saturating_sub(1);
        self.clients[id as usize].feeds.clone().for_each(|feed| self.make_ready(feed));
    }

    /// The other side or the system has ended the connection.
    pub(crate) fn lose(&mut self, id: u32, why: &str) {
        let state = self.clients[id as usize].state;
        if state == State::Down {
            return;
        }
        self.close(id);
        if state == State::Up {
            self.tally.hang_ups += 1;
            self.complain(format!("client {} lost its connection: {why}", self.clients[id as usize].plan.id));
        } else {
            self.retry(id, why);
        }
    }

    fn retry(&mut self, id: u32, why: &str) {
        self.tally.failed_connects += 1;
        self.complain(format!("client {} could not connect: {why}", self.clients[id as usize].plan.id));
        let client = &mut self.clients[id as usize];
        client.attempts += 1;
        let wait = RETRY_NS[(client.attempts as usize).min(RETRY_NS.len() - 1)];
        self.alarms.push(Reverse((self.now + wait, Alarm::Connect(id))));
    }

    /// Keeps the first complaint.
    pub(crate) fn complain(&mut self, what: String) {
        self.complaint.get_or_insert(what);
    }

    fn close(&mut self, id: u32) -> Option<mio::net::TcpStream> {
        let client = &mut self.clients[id as usize];
        if matches!(client.state, State::Connecting | State::Greeting) {
            self.connecting = self.connecting.saturating_sub(1);
        }
        self.unacknowledged -= client.unacknowledged.len() as u64;
        client.drop_socket()
    }

    /// The client says goodbye.
    pub fn leave(&mut self, id: u32) {
        let client = &mut self.clients[id as usize];
        if client.is_up() && !self.target.is_relay {
            client.out.extend_from_slice(&wire::DISCONNECT);
            // What cannot be written now is left unsaid.
            let _ = client.write();
        }
        self.close(id);
    }

    /// The connection is gone without a word, as if a cable had been pulled and put back.
    pub fn cut(&mut self, id: u32) {
        if let Some(socket) = self.close(id) {
            let _ = os::end_abruptly(&socket);
        }
    }

    // ---- Reading and writing ----------------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn mark_dirty(&mut self, id: u32) {
        let client = &mut self.clients[id as usize];
        if !client.is_dirty {
            client.is_dirty = true;
            self.dirty.push(id);
        }
    }

    fn write_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let client = &mut self.clients[id as usize];
            client.is_dirty = false;
            if !client.is_writable || client.unsent() == 0 {
                continue;
            }
            match client.write() {
                Ok(true) if std::mem::take(&mut client.is_full) => {
                    client.feeds.clone().for_each(|feed| self.make_ready(feed));
                }
                Ok(_) => {}
                Err(error) => self.lose(id, &error.to_string()),
            }
        }
        self.dirty = dirty;
    }

    fn read(&mut self, id: u32) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..READS_PER_TURN {
            if !self.read_once(id, &mut scratch) {
                break;
            }
        }
        self.scratch = scratch;
        let client = &self.clients[id as usize];
        if client.is_readable && client.allowance == usize::MAX && client.socket.is_some() {
            self.unread.push(id);
        }
    }

    /// One read; whether to go on.
    fn read_once(&mut self, id: u32, scratch: &mut Vec<u8>) -> bool {
        let client = &mut self.clients[id as usize];
        let held = client.tail.len();
        let room = READ_LEN.min(client.allowance);
        if room == 0 {
            return false;
        }
        if scratch.len() < held + room {
            scratch.resize(held + room, 0);
        }
        scratch[..held].copy_from_slice(&client.tail);
        let count = match client.read(&mut scratch[held..held + room]) {
            Ok(Some(count)) if count > 0 => count,
            Ok(None) => return false,
            Ok(Some(_)) => {
                self.lose(id, "closed by the other side");
                return false;
            }
            Err(error) => {
                self.lose(id, &error.to_string());
                return false;
            }
        };
        if client.allowance != usize::MAX {
            client.allowance -= count;
        }
        client.last_read_at = self.now;
        client.tail.clear();
        let used = self.take(id, &scratch[..held + count]);
        let client = &mut self.clients[id as usize];
        client.tail.extend_from_slice(&scratch[used..held + count]);
        client.is_readable
    }

    fn slow_read(&mut self, id: u32, at: u64) {
        let client = &mut self.clients[id as usize];
        let (Some(slow), true) = (client.plan.slow, client.is_up()) else { return };
        client.allowance += (u64::from(slow.bytes_per_s) * SLOW_READ_NS / SECOND_NS) as usize;
        self.alarms.push(Reverse((at + SLOW_READ_NS, Alarm::SlowRead(id))));
        if client.is_readable {
            self.read(id);
        }
    }
}

impl Stream {
    fn new(plan: StreamPlan) -> Stream {
        let payload_len = plan.payload_len as usize;
        let template = Template::new(&plan.topic, plan.qos, plan.retain, payload_len);
        Stream { template, plan, feed: 0, published: 0 }
    }
}
