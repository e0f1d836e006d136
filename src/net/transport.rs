//! One connection's byte stream as the server sees it: MQTT bytes in and out. TCP and Unix sockets pass them through. What changes them
//! on the way keeps what it needs for that in a box; nobody above knows. Every link has one of these: 16 bytes.
//! Never blocks: `WouldBlock` says that the socket's next edge has to be waited for.
//!
//! A transport may have something to write by itself: then `has_output` is true, and the server writes when the socket
//! takes something, though the broker has nothing to say.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use super::websocket::{Ending, Fault, WebSocket};
use crate::config::Protocol;

/// One write of a busy link: less would cost writes, more would only lie in the kernel.
const UNSENT_MAX: libc::c_int = 128 << 10;

/// Slices of one write of a WebSocket: as many as the broker ever offers, and what goes in front of them.
const SLICES_MAX: usize = 33;

#[derive(Debug)]
pub struct Transport {
    /// Or a Unix socket, which differs in nothing that is asked of it.
    stream: TcpStream,
    websocket: Option<Box<WebSocket>>,
    pub edges: Edges,
}

// mio's sockets know more of themselves where assertions are on.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Option<Transport>>() <= 8 + size_of::<usize>());

/// What the socket's edges said last, for the server's loop, which is told each thing once. Two bytes, because every link has it.
#[derive(Debug)]
pub struct Edges {
    marks: u8,
    /// How often the length of its reads is halved, because what it brings takes long.
    pub halvings: u8,
}

/// A mark of `Edges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Readable = 1,
    /// The peer will send no more, so reading goes on to the end.
    Ended = 2,
    Writable = 4,
    /// Stands in a list of links to read.
    Queued = 8,
    /// Its last read brought much: others are read before it.
    Greedy = 16,
}

impl Edges {
    #[inline]
    pub fn has(&self, edge: Edge) -> bool {
        self.marks & edge as u8 != 0
    }

    #[inline]
    pub fn set(&mut self, edge: Edge, is_set: bool) {
        self.marks = if is_set { self.marks | edge as u8 } else { self.marks & !(edge as u8) };
    }

    /// Sets a mark if `is_seen`, and else leaves it as it is.
    #[inline]
    pub fn note(&mut self, edge: Edge, is_seen: bool) {
        if is_seen {
            self.set(edge, true);
        }
    }
}

/// What a read found: `count` MQTT bytes, which may be none, and how the socket was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub count: usize,
    pub left: Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// There was as much as there was room for, so there may be more.
    Full,
    /// There was less: the next edge tells of more.
    Empty,
    /// The peer will send nothing more.
    Ended,
    /// The peer broke a rule of the transport; what it says from now on means nothing.
    Broken(Fault),
}

impl Transport {
    /// Takes over a connected socket.
    pub fn tcp(stream: TcpStream, protocol: Protocol) -> Transport {
        prepare(&stream);
        Transport::new(stream, protocol)
    }

    /// Lets the system gather small packets (Nagle's algorithm), which it does not do otherwise.
    pub fn delay_small_packets(&self) {
        // A Unix socket has nothing of the kind.
        let _ = self.stream.set_nodelay(false);
    }

    /// As `tcp`. Once connected, the system tells no difference: what is asked of it here is the same for every stream.
    pub fn unix(stream: UnixStream, protocol: Protocol) -> Transport {
        Transport::new(OwnedFd::from(stream).into(), protocol)
    }

    fn new(stream: TcpStream, protocol: Protocol) -> Transport {
        let websocket = match protocol {
            Protocol::Mqtt => None,
            Protocol::WebSockets => Some(Box::default()),
        };
        let edges = Edges { marks: Edge::Writable as u8, halvings: 0 };
        Transport { stream, websocket, edges }
    }

    /// Reads what has arrived.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Read> {
        let room = into.len();
        let left = |count: usize| match count {
            0 => Left::Ended,
            _ if count == room => Left::Full,
            _ => Left::Empty,
        };
        let read = self.stream.read(into)?;
        let Some(websocket) = self.websocket.as_deref_mut() else {
            return Ok(Read { count: read, left: left(read) });
        };
        let (count, ending) = websocket.receive(&mut into[..read]);
        let left = match ending {
            None => left(read),
            Some(Ending::Closed) => Left::Ended,
            Some(Ending::Broken(fault)) => Left::Broken(fault),
        };
        Ok(Read { count, left })
    }

    /// Writes as much as the socket takes, which may end anywhere in the slices; less than all says that the socket is full.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self.websocket.as_deref_mut(), slices) {
            // The usual write, which the kernel has a shorter way for.
            (None, [slice]) => self.stream.write(slice),
            (None, _) => self.stream.write_vectored(slices),
            (Some(websocket), _) => write_framed(&mut self.stream, websocket, slices),
        }
    }

    /// There is something to write besides what the broker says. After `write_vectored` that, too, says that the socket is
    /// full.
    pub fn has_output(&self) -> bool {
        self.websocket.as_deref().is_some_and(WebSocket::has_output)
    }

    /// Says that nothing more will be written; what was written is still delivered.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if let Some(websocket) = self.websocket.as_deref_mut() {
            websocket.end();
            // A farewell that the socket has no room for is not waited for.
            let _ = write_framed(&mut self.stream, websocket, &[]);
        }
        self.stream.shutdown(Shutdown::Write)
    }
}

/// Writes slices in frames. One call of the system, unless a frame was begun before with less, or only control frames were
/// left.
fn write_framed(stream: &mut TcpStream, websocket: &mut WebSocket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let offered: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut taken = 0;
    loop {
        let (own, payload) = websocket.prepare(offered - taken);
        let mut parts = [IoSlice::new(&[]); SLICES_MAX];
        parts[0] = IoSlice::new(own);
        let count = 1 + cut(slices, taken, payload, &mut parts[1..]);
        let wanted: usize = parts[..count].iter().map(|part| part.len()).sum();
        if wanted == 0 {
            return Ok(if websocket.is_closed() { offered } else { taken });
        }
        match stream.write_vectored(&parts[..count]) {
            Ok(written) => {
                taken += websocket.wrote(written);
                if written < wanted {
                    return Ok(taken);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && taken > 0 => return Ok(taken),
            Err(error) => return Err(error),
        }
    }
}

/// The bytes of `slices` from `skip` on, at most `len`, as far as they have room in `out`; says how many places they take.
fn cut<'a>(slices: &'a [IoSlice<'_>], mut skip: usize, mut len: usize, out: &mut [IoSlice<'a>]) -> usize {
    let mut count = 0;
    for slice in slices {
        if len == 0 || count == out.len() {
            break;
        }
        if skip >= slice.len() {
            skip -= slice.len();
            continue;
        }
        let part = &slice[skip..slice.len().min(skip.saturating_add(len))];
        out[count] = IoSlice::new(part);
        (skip, len, count) = (0, len - part.len(), count + 1);
    }
    count
}

/// Small packets go out at once: the server already gathers what it has to say in one write, so Nagle's algorithm could only
/// delay it.
fn prepare(stream: &TcpStream) {
    // Fails only on a connection that is already dead, which the first read will tell.
    let _ = stream.set_nodelay(true);
    limit_unsent(stream);
}

/// Keeps the kernel from taking more than `UNSENT_MAX` bytes that the peer has no room for. What a slow reader takes is
/// then seen as it happens, not once in some megabytes; and memory for it is the broker's to limit.
fn limit_unsent(stream: &TcpStream) {
    let limit: libc::c_int = UNSENT_MAX;
    // SAFETY: the descriptor is open while `stream` lives, and the value is a c_int of the length that is passed. Failure
    // means a kernel without the option, where things work as before.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const limit).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

impl Source for Transport {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.stream.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.stream.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.stream.deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    #[test]
    fn marks_are_set_and_taken_back_one_by_one() {
        let mut edges = Edges { marks: 0, halvings: 0 };
        let all = [Edge::Readable, Edge::Ended, Edge::Writable, Edge::Queued, Edge::Greedy];
        all.iter().for_each(|&edge| edges.set(edge, true));
        for (at, &edge) in all.iter().enumerate() {
            edges.set(edge, false);
            assert!(all.iter().enumerate().all(|(number, &other)| edges.has(other) == (number > at)));
        }
    }

    /// Reads on when the socket says so, until the peer has ended.
    fn read_to_end(transport: &mut Transport) -> Vec<u8> {
        let mut poll = Poll::new().unwrap();
        poll.registry().register(transport, Token(0), Interest::READABLE | Interest::WRITABLE).unwrap();
        let mut events = Events::with_capacity(4);
        let (mut all, mut part) = (Vec::new(), [0; 3]);
        loop {
            match transport.read(&mut part) {
                Ok(Read { left: Left::Ended, .. }) => return all,
                Ok(Read { count, .. }) => all.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => poll.poll(&mut events, None).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A connection: the client's end, and the server's, which does not block.
    fn pair() -> (std::net::TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (client, TcpStream::from_std(socket))
    }

    fn exchange(mut client: impl io::Read + io::Write, mut transport: Transport) {
        assert_eq!(transport.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(transport.write_vectored(&[IoSlice::new(b"20 "), IoSlice::new(b"02")]).unwrap(), 5);
        transport.shutdown_write().unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"20 02");
        client.write_all(b"C0 00").unwrap();
        drop(client);
        assert_eq!(read_to_end(&mut transport), b"C0 00");
    }

    #[test]
    fn bytes_pass_both_ways_and_end_one_way_at_a_time() {
        let (client, socket) = pair();
        let transport = Transport::tcp(socket, Protocol::Mqtt);
        assert!(transport.stream.nodelay().unwrap());
        transport.delay_small_packets();
        assert!(!transport.stream.nodelay().unwrap());

        exchange(client, transport);
    }

    #[test]
    fn a_unix_socket_is_a_stream_like_any_other() {
        let (client, socket) = std::os::unix::net::UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let transport = Transport::unix(UnixStream::from_std(socket), Protocol::Mqtt);
        exchange(client, transport);
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

    /// An open WebSocket of which the client has seen nothing but the answer to its request.
    fn websocket_pair() -> (std::net::TcpStream, Transport) {
        let (mut client, socket) = pair();
        let mut transport = Transport::tcp(socket, Protocol::WebSockets);
        client.write_all(REQUEST).unwrap();
        let mut scratch = [0; 1000];
        while !transport.has_output() {
            let _ = transport.read(&mut scratch);
        }
        assert_eq!(transport.write_vectored(&[]).unwrap(), 0);
        assert!(!transport.has_output());
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let count = client.read(&mut scratch).unwrap();
            answer.extend_from_slice(&scratch[..count]);
        }
        (client, transport)
    }

    #[test]
    fn a_websocket_frames_what_is_written_and_takes_leave() {
        let (mut client, mut transport) = websocket_pair();
        assert_eq!(transport.write_vectored(&[IoSlice::new(b"20 "), IoSlice::new(b"02")]).unwrap(), 5);
        transport.shutdown_write().unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"\x82\x0520 02\x88\x02\x03\xE8");
        drop(client);
        assert_eq!(read_to_end(&mut transport), b"");
    }

    #[test]
    fn less_than_was_offered_to_a_websocket_says_that_the_socket_is_full() {
        let (mut client, mut transport) = websocket_pair();
        client.set_nonblocking(true).unwrap();
        let all: Vec<u8> = (0..20_000_000u32).map(|number| (number * 7) as u8).collect();
        // Far less than is offered each time: whatever the system's buffers grow to, they are full before the end.
        let (mut at, mut full, mut seen, mut part) = (0, 0, Vec::new(), vec![0; 64 << 10]);
        loop {
            // Always more slices than fit one write, and more of them while a frame is unfinished.
            let slices: Vec<IoSlice> = all[at..].chunks(50_000).take(40).map(IoSlice::new).collect();
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            match transport.write_vectored(&slices) {
                Ok(count) => {
                    at += count;
                    full += (count < offered) as u32;
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            match client.read(&mut part) {
                Ok(count) => seen.extend_from_slice(&part[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            if at == all.len() && !transport.has_output() {
                break;
            }
        }
        assert!(full > 10, "the socket was never full");
        drop(transport);
        client.set_nonblocking(false).unwrap();
        client.read_to_end(&mut seen).unwrap();
        let (mut payload, mut rest) = (Vec::new(), &seen[..]);
        // The last frame may be as short as what was left.
        while let [0x82, first, more @ ..] = rest {
            let (len, more) = match first {
                127 => (u64::from_be_bytes(more[..8].try_into().unwrap()) as usize, &more[8..]),
                126 => (usize::from(u16::from_be_bytes(more[..2].try_into().unwrap())), &more[2..]),
                &len => (usize::from(len), more),
            };
            payload.extend_from_slice(&more[..len]);
            rest = &more[len..];
        }
        assert!(rest.is_empty() && payload == all);
    }

    #[test]
    fn plain_connections_pay_one_pointer_for_the_others() {
        assert!(size_of::<Transport>() <= size_of::<TcpStream>() + 2 * size_of::<usize>());
    }
}
