//! Signals as something to read: the ones the broker obeys are blocked and arrive on a descriptor that the poll loop
//! watches like a socket, so no code ever runs inside a signal handler. SIGPIPE needs nothing here: Rust's start-up
//! code ignores it, and a write to a closed connection is an error like any other.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: an init system asks for an orderly stop.
    Terminate,
    /// SIGINT: somebody at a terminal does.
    Interrupt,
    /// SIGUSR1: somebody wants to know how the store is doing.
    User1,
    /// SIGHUP: an init system, or logrotate, asks for settings and files to be looked at again.
    HangUp,
    /// SIGRTMIN: logrotate asks for the log file to be opened again.
    Reopen,
}

/// The read end of the blocked signals. Never closed before the process ends: they stay blocked.
pub struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks the signals for the calling thread and opens the descriptor. Threads started later inherit the mask;
    /// one that was started before would still be killed by the signals, so call this first.
    pub fn new() -> io::Result<Signals> {
        // SAFETY: sigset_t is plain data for which all zeros is a valid value, and sigemptyset initialises it as the
        // platform wants before it is used. All pointers are to that local; the old mask is not asked for.
        let descriptor = unsafe {
            let mut mask: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut mask);
            libc::sigaddset(&mut mask, libc::SIGTERM);
            libc::sigaddset(&mut mask, libc::SIGINT);
            libc::sigaddset(&mut mask, libc::SIGUSR1);
            libc::sigaddset(&mut mask, libc::SIGHUP);
            libc::sigaddset(&mut mask, libc::SIGRTMIN());
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &mask, ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            libc::signalfd(-1, &mask, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and nobody else owns it.
        Ok(Signals { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// The next signal that arrived; `None` when all are read. Read until then: the descriptor is edge-triggered.
    pub fn read(&mut self) -> Option<Signal> {
        loop {
            // SAFETY: signalfd_siginfo is plain data for which all zeros is a valid value.
            let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
            let size = mem::size_of_val(&info);
            // SAFETY: the kernel writes at most `size` bytes into `info`, which is exactly that large.
            let count = unsafe { libc::read(self.descriptor.as_raw_fd(), (&raw mut info).cast(), size) };
            if count != size as libc::ssize_t {
                return None;
            }
            match info.ssi_signo as libc::c_int {
                libc::SIGTERM => return Some(Signal::Terminate),
                libc::SIGINT => return Some(Signal::Interrupt),
                libc::SIGUSR1 => return Some(Signal::User1),
                libc::SIGHUP => return Some(Signal::HangUp),
                number if number == libc::SIGRTMIN() => return Some(Signal::Reopen),
                _ => {}
            }
        }
    }
}

/// For `mio::unix::SourceFd`: readable when a signal waits.
impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `raise` sends to the calling thread, which has the signal blocked; the other test threads never see it.
    #[test]
    fn blocked_signals_are_read_once_and_kill_nobody() {
        let mut signals = Signals::new().unwrap();
        assert_eq!(signals.read(), None);
        for (number, signal) in [(libc::SIGTERM, Signal::Terminate), (libc::SIGINT, Signal::Interrupt)] {
            // SAFETY: raise has no preconditions.
            assert_eq!(unsafe { libc::raise(number) }, 0);
            assert_eq!(signals.read(), Some(signal));
            assert_eq!(signals.read(), None);
        }
    }
}
