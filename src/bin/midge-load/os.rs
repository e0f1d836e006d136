//! What the load program asks of the system beyond the standard library: a timer finer than a poll's milliseconds, and
//! sockets with a source address, a small receive buffer, or an abrupt end. The only file of the program with `unsafe`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use mio::net::TcpStream;

/// A timer to poll for.
pub struct Timer {
    descriptor: OwnedFd,
}

impl Timer {
    pub fn new() -> io::Result<Timer> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers; the result is checked before it is owned.
        let descriptor = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Timer { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// Fires once, in so many nanoseconds; 0 is taken for 1, which means at once. Forgets what it was set to before.
    pub fn set(&self, ns: u64) -> io::Result<()> {
        let ns = ns.max(1);
        let at = libc::timespec { tv_sec: (ns / 1_000_000_000) as _, tv_nsec: (ns % 1_000_000_000) as _ };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: never, it_value: at };
        // SAFETY: the descriptor is open, `setting` outlives the call, and the old setting is not asked for.
        let result =
            unsafe { libc::timerfd_settime(self.descriptor.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// Begins to connect, from a certain address if one is given: there are some 28,000 ports to each.
pub fn connect(to: SocketAddr, source: Option<Ipv4Addr>, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
    let (SocketAddr::V4(to_v4), true) = (to, source.is_some() || receive_buffer.is_some()) else {
        return TcpStream::connect(to);
    };
    let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_INET, flags, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    if let Some(bytes) = receive_buffer {
        set_option(raw, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes as libc::c_int)?;
    }
    if let Some(source) = source {
        set_option(raw, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        let from = address(source, 0);
        // SAFETY: the descriptor is open, and the address is valid for the length that is passed.
        check(unsafe { libc::bind(raw, (&raw const from).cast(), size_of_val(&from) as libc::socklen_t) })?;
    }
    let there = address(*to_v4.ip(), to_v4.port());
    // SAFETY: as above.
    match check(unsafe { libc::connect(raw, (&raw const there).cast(), size_of_val(&there) as libc::socklen_t) }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(std::net::TcpStream::from(socket))),
    }
}

/// Closing this socket tells the peer nothing but that the connection is gone.
pub fn end_abruptly(socket: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

fn set_option<T>(socket: RawFd, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: the callers pass an open descriptor and a value of the option's type, whose length goes along.
    check(unsafe {
        libc::setsockopt(socket, level, name, (&raw const value).cast(), size_of::<T>() as libc::socklen_t)
    })
}

fn address(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
