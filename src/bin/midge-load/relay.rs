//! A blind relay: the same sockets and the same bytes as with a broker, and nobody who looks at them. What is read from a
//! publisher's socket is written to the sockets of its route's subscribers. What it costs is what the kernel takes for moving
//! the bytes, and every broker can be measured against it.
//!
//! A connection begins with a line, `PUB route` or `SUB route`, and is answered with `OK`. From then on the bytes of publishers
//! are copied: from the one read buffer straight to the subscribers, or, where a route has several publishers, gathered and
//! written once a turn.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const READ_LEN: usize = 256 << 10;
const EVENTS_PER_TURN: usize = 1024;
/// Routes that may be named: more than a machine has sockets for.
const ROUTES_MAX: usize = 1 << 20;
/// The longest first line, with some room.
const LINE_MAX: usize = 32;

#[derive(Clone, Copy)]
enum Role {
    /// Has not said yet.
    Unknown,
    Publisher(usize),
    Subscriber(usize),
}

struct Peer {
    socket: TcpStream,
    role: Role,
    line: Vec<u8>,
    /// What the socket did not take yet.
    out: Vec<u8>,
    is_writable: bool,
    is_dirty: bool,
}

#[derive(Default)]
struct RouteEnds {
    publishers: u32,
    subscribers: Vec<usize>,
}

struct Relay {
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    routes: Vec<RouteEnds>,
    dirty: Vec<usize>,
    scratch: Vec<u8>,
}

/// Serves until it is killed.
pub fn run(address: SocketAddr) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    // In the broker's words, so that who waits for one can wait for the other.
    let _ = writeln!(io::stderr(), "Opening ipv4 listen socket on port {}.", listener.local_addr()?.port());
    let mut relay = Relay {
        poll,
        listener,
        peers: Vec::new(),
        free: Vec::new(),
        routes: Vec::new(),
        dirty: Vec::new(),
        scratch: vec![0; READ_LEN],
    };
    let mut events = Events::with_capacity(EVENTS_PER_TURN);
    loop {
        match relay.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => relay.accept(),
                Token(id) => relay.note(id, event.is_writable()),
            }
        }
        relay.write_dirty();
    }
}

impl Relay {
    fn accept(&mut self) {
        while let Ok((mut socket, _)) = self.listener.accept() {
            let id = self.free.pop().unwrap_or(self.peers.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            if socket.set_nodelay(true).is_err() || self.poll.registry().register(&mut socket, Token(id), both).is_err()
            {
                self.free.push(id);
                continue;
            }
            if id == self.peers.len() {
                self.peers.push(None);
            }
            let (line, out) = (Vec::new(), Vec::new());
            self.peers[id] = Some(Peer { socket, role: Role::Unknown, line, out, is_writable: true, is_dirty: false });
        }
    }

    fn note(&mut self, id: usize, is_writable: bool) {
        let Some(Some(peer)) = self.peers.get_mut(id) else { return };
        if is_writable {
            peer.is_writable = true;
            if !peer.out.is_empty() {
                self.mark_dirty(id);
            }
        }
        self.read(id);
    }

    fn read(&mut self, id: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(Some(peer)) = self.peers.get_mut(id) {
            let count = match peer.socket.read(&mut scratch) {
                Ok(0) => {
                    self.drop_peer(id);
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.drop_peer(id);
                    break;
                }
            };
            match peer.role {
                Role::Unknown => self.introduce(id, &scratch[..count]),
                Role::Publisher(route) => self.copy(route, &scratch[..count]),
                Role::Subscriber(_) => {}
            }
            if count < scratch.len() {
                break;
            }
        }
        self.scratch = scratch;
    }

    /// The first line says what the peer is. Nothing may follow it before the answer.
    fn introduce(&mut self, id: usize, bytes: &[u8]) {
        let Some(Some(peer)) = self.peers.get_mut(id) else { return };
        peer.line.extend_from_slice(bytes);
        let is_whole = peer.line.ends_with(b"\n");
        if !is_whole && peer.line.len() <= LINE_MAX {
            return;
        }
        let line = String::from_utf8_lossy(&peer.line).into_owned();
        let role = line.trim_end().split_once(' ').and_then(|(role, route)| Some((role, route.parse::<usize>().ok()?)));
        let Some((role, route)) = role.filter(|(_, route)| *route < ROUTES_MAX) else { return self.drop_peer(id) };
        if self.routes.len() <= route {
            self.routes.resize_with(route + 1, RouteEnds::default);
        }
        match role {
            "PUB" => {
                peer.role = Role::Publisher(route);
                self.routes[route].publishers += 1;
            }
            "SUB" => {
                peer.role = Role::Subscriber(route);
                self.routes[route].subscribers.push(id);
            }
            _ => return self.drop_peer(id),
        }
        peer.out.extend_from_slice(b"OK\n");
        self.mark_dirty(id);
    }

    fn copy(&mut self, route: usize, bytes: &[u8]) {
        let ends = std::mem::take(&mut self.routes[route]);
        for &id in &ends.subscribers {
            let Some(Some(peer)) = self.peers.get_mut(id) else { continue };
            if ends.publishers > 1 || !peer.out.is_empty() || !peer.is_writable {
                peer.out.extend_from_slice(bytes);
                self.mark_dirty(id);
                continue;
            }
            let written = peer.socket.write(bytes).unwrap_or(0);
            if written < bytes.len() {
                peer.is_writable = false;
                peer.out.extend_from_slice(&bytes[written..]);
            }
        }
        self.routes[route] = ends;
    }

    fn mark_dirty(&mut self, id: usize) {
        if let Some(Some(peer)) = self.peers.get_mut(id)
            && !peer.is_dirty
        {
            peer.is_dirty = true;
            self.dirty.push(id);
        }
    }

    fn write_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(Some(peer)) = self.peers.get_mut(id) else { continue };
            peer.is_dirty = false;
            if peer.is_writable && !peer.out.is_empty() {
                let written = peer.socket.write(&peer.out).unwrap_or(0);
                peer.is_writable = written == peer.out.len();
                peer.out.drain(..written);
            }
        }
        self.dirty = dirty;
    }

    fn drop_peer(&mut self, id: usize) {
        let Some(peer) = self.peers.get_mut(id).and_then(Option::take) else { return };
        match peer.role {
            Role::Unknown => {}
            Role::Publisher(route) => self.routes[route].publishers -= 1,
            Role::Subscriber(route) => self.routes[route].subscribers.retain(|&other| other != id),
        }
        self.free.push(id);
    }
}
