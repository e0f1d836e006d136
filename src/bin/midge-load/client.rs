//! One connection of the load: its socket, what is still to be written, and what it has seen. Knows neither the others nor
//! the clock.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

use mio::net::TcpStream;

use crate::plan::{ClientPlan, Route};
use crate::sequence::Seen;
use crate::wire;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Down,
    /// The socket is on its way.
    Connecting,
    /// CONNECT is out, CONNACK is not in.
    Greeting,
    Subscribing,
    Up,
}

pub struct Client {
    pub plan: ClientPlan,
    pub state: State,
    pub socket: Option<TcpStream>,
    pub out: Vec<u8>,
    /// Bytes of `out` that are written.
    head: usize,
    /// The beginning of a packet.
    pub tail: Vec<u8>,
    pub is_writable: bool,
    /// Stands in the engine's list of those to write.
    pub is_dirty: bool,
    pub is_readable: bool,
    /// Feeds wait until there is less to write.
    pub is_full: bool,
    next_packet_id: u16,
    /// When the QoS 1 and 2 messages that are not yet acknowledged were to be sent, oldest first.
    pub unacknowledged: VecDeque<u64>,
    pub ping_sent: u64,
    /// Feeds of this client.
    pub feeds: Range<u32>,
    /// One for each stream of `plan.sees`.
    pub ledger: Vec<Seen>,
    pub received: u64,
    pub subacks_due: u32,
    pub connect_started: u64,
    pub attempts: u32,
    /// When the last retained message arrived that had not been seen before.
    pub last_retained_at: u64,
    pub subscribed_at: u64,
    pub last_read_at: u64,
    /// Bytes a slow reader may read at this time.
    pub allowance: usize,
    /// Only bytes are counted, this many to a message: behind the relay the packets of several publishers are mixed.
    pub counted_len: Option<usize>,
}

impl Client {
    pub fn new(plan: ClientPlan) -> Client {
        Client {
            ledger: vec![Seen::default(); plan.sees.len()],
            plan,
            state: State::Down,
            socket: None,
            out: Vec::new(),
            head: 0,
            tail: Vec::new(),
            is_writable: false,
            is_dirty: false,
            is_readable: false,
            is_full: false,
            next_packet_id: 0,
            unacknowledged: VecDeque::new(),
            ping_sent: 0,
            feeds: 0..0,
            received: 0,
            subacks_due: 0,
            connect_started: 0,
            attempts: 0,
            last_retained_at: 0,
            subscribed_at: 0,
            last_read_at: 0,
            allowance: usize::MAX,
            counted_len: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    pub fn unsent(&self) -> usize {
        self.out.len() - self.head
    }

    #[inline]
    pub fn packet_id(&mut self) -> u16 {
        self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
        self.next_packet_id
    }

    /// Puts the client's first words into its output.
    pub fn greet(&mut self, is_relay: bool) {
        self.state = State::Greeting;
        if !is_relay {
            let will = self.plan.will_topic.as_deref();
            wire::put_connect(&mut self.out, &self.plan.id, !self.plan.is_durable, self.plan.keep_alive_s, will);
            return;
        }
        let line = match self.plan.route {
            Route::None => return,
            Route::Publish(route) => format!("PUB {route}\n"),
            Route::Subscribe(route) => format!("SUB {route}\n"),
        };
        self.out.extend_from_slice(line.as_bytes());
    }

    /// Asks for all subscriptions, in as many packets as it takes.
    pub fn subscribe(&mut self) {
        self.state = State::Subscribing;
        let count = self.plan.filter_count();
        for first in (0..count).step_by(wire::FILTERS_PER_PACKET as usize) {
            let end = count.min(first + wire::FILTERS_PER_PACKET);
            let packet_id = self.packet_id();
            let filters = (first..end).map(|at| self.plan.filter(at));
            wire::put_subscribe(&mut self.out, packet_id, self.plan.qos, filters);
            self.subacks_due += 1;
        }
    }

    /// One write of everything there is; whether it all went out.
    pub fn write(&mut self) -> io::Result<bool> {
        let Some(socket) = &mut self.socket else { return Ok(true) };
        match socket.write(&self.out[self.head..]) {
            Ok(count) => self.head += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(error),
        }
        self.is_writable = self.head == self.out.len();
        if self.is_writable {
            self.out.clear();
            self.head = 0;
        }
        Ok(self.is_writable)
    }

    /// One read into `into`; nothing if there is nothing to read now.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(socket) = &mut self.socket else { return Ok(None) };
        match socket.read(into) {
            Ok(count) => {
                self.is_readable = count == into.len();
                Ok(Some(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Closes the socket and forgets what belongs to it. What was seen and what is unacknowledged stays.
    pub fn drop_socket(&mut self) -> Option<TcpStream> {
        self.state = State::Down;
        self.out = Vec::new();
        self.head = 0;
        self.tail = Vec::new();
        self.unacknowledged.clear();
        self.is_writable = false;
        self.is_readable = false;
        self.subacks_due = 0;
        self.socket.take()
    }
}
