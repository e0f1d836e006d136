//! One connection's byte stream as the server sees it: MQTT bytes in and out. TCP passes them through. A transport
//! that changes them on the way (TLS, WebSocket) is another variant and keeps its own buffers; nobody above knows.
//! Never blocks: `WouldBlock` says that the socket's next edge has to be waited for.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// One write of a busy link: less would cost writes, more would only lie in the kernel.
const UNSENT_MAX: libc::c_int = 128 << 10;

#[derive(Debug)]
pub enum Transport {
    Tcp(TcpStream),
}

impl Transport {
    /// Takes over a connected socket. Small packets go out at once: the server already gathers what it has to say in
    /// one write, so Nagle's algorithm could only delay it.
    pub fn tcp(stream: TcpStream) -> Transport {
        // Fails only on a connection that is already dead, which the first read will tell.
        let _ = stream.set_nodelay(true);
        let transport = Transport::Tcp(stream);
        transport.limit_unsent();
        transport
    }

    /// Keeps the kernel from taking more than `UNSENT_MAX` bytes that the peer has no room for. What a slow reader takes is
    /// then seen as it happens, not once in some megabytes; and memory for it is the broker's to limit.
    fn limit_unsent(&self) {
        let Transport::Tcp(stream) = self;
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

    /// Reads what has arrived; 0 = the peer will send nothing more.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Tcp(stream) => stream.read(into),
        }
    }

    /// Writes as much as the socket takes, which may end anywhere in the slices.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Tcp(stream) => stream.write_vectored(slices),
        }
    }

    /// Says that nothing more will be written; what was written is still delivered.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Transport::Tcp(stream) => stream,
        }
    }
}

impl Source for Transport {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    /// Reads on when the socket says so, until the peer has ended.
    fn read_to_end(transport: &mut Transport) -> Vec<u8> {
        let mut poll = Poll::new().unwrap();
        poll.registry().register(transport, Token(0), Interest::READABLE | Interest::WRITABLE).unwrap();
        let mut events = Events::with_capacity(4);
        let (mut all, mut part) = (Vec::new(), [0; 3]);
        loop {
            match transport.read(&mut part) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => poll.poll(&mut events, None).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn bytes_pass_both_ways_and_end_one_way_at_a_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut transport = Transport::tcp(TcpStream::from_std(socket));

        assert_eq!(transport.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let count = transport.write_vectored(&[IoSlice::new(b"20 "), IoSlice::new(b"02")]).unwrap();
        assert_eq!(count, 5);
        transport.shutdown_write().unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"20 02");

        client.write_all(b"C0 00").unwrap();
        drop(client);
        assert_eq!(read_to_end(&mut transport), b"C0 00");
    }
}
