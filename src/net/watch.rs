//! Word from the kernel that an address or an interface came or went (rtnetlink). It exists only while a listener waits for one,
//! and costs nothing until something happens. What happened is not read: whoever waits looks again.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// # Errors
    /// When the system has no such socket, or forbids it.
    pub fn new() -> io::Result<Watch> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket takes no pointers.
        let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: sockaddr_nl is plain data for which all zeros is a valid value.
        let mut raw: libc::sockaddr_nl = unsafe { mem::zeroed() };
        raw.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        // An address of an interface that is down counts from the moment it is up.
        raw.nl_groups = (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
        let size = mem::size_of_val(&raw) as libc::socklen_t;
        // SAFETY: bind reads `size` bytes from `raw`, which is exactly that large.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Watch { socket })
    }

    /// Reads all that came; whether anything did. The kernel says so, too, if it had to leave something out.
    pub fn drain(&mut self) -> bool {
        let (mut has_news, mut scratch) = (false, [0u8; 512]);
        loop {
            // SAFETY: the kernel writes at most the length it is told into `scratch`; of longer messages the rest is dropped.
            let count = unsafe { libc::recv(self.socket.as_raw_fd(), scratch.as_mut_ptr().cast(), scratch.len(), 0) };
            match io::Error::last_os_error().raw_os_error() {
                _ if count > 0 => has_news = true,
                Some(libc::ENOBUFS) if count < 0 => has_news = true,
                Some(libc::EINTR) if count < 0 => {}
                _ => return has_news,
            }
        }
    }
}

impl Source for Watch {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_happens_on_its_own() {
        let Ok(mut watch) = Watch::new() else {
            println!("skipped: there is no rtnetlink here");
            return;
        };
        // What it finds depends on the machine; that it comes back does not.
        watch.drain();
    }
}
