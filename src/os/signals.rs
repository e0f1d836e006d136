//! Signals as something to read: the ones the broker obeys are blocked and arrive on a descriptor that the poll loop
//! watches like a socket, so no code ever runs inside a signal handler. SIGPIPE needs nothing here: Rust's start-up
//! code ignores it, and a write to a closed connection is an error like any other. SIGQUIT keeps its meaning, which is to end
//! the process at once with a core dump.

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
    /// SIGHUP: configuration is to be read again, and log files opened again.
    Hangup,
    /// SIGUSR1: somebody wants to know how the store is doing.
    User1,
    /// SIGUSR2: somebody wants to see who subscribes to what.
    User2,
    /// SIGRTMIN: the log file was moved away, and is to be opened again.
    Rotate,
}

impl Signal {
    /// All of them by number. The first real-time signal is known at run time only: the C library keeps some for itself.
    fn all() -> [(libc::c_int, Signal); 6] {
        [
            (libc::SIGTERM, Signal::Terminate),
            (libc::SIGINT, Signal::Interrupt),
            (libc::SIGHUP, Signal::Hangup),
            (libc::SIGUSR1, Signal::User1),
            (libc::SIGUSR2, Signal::User2),
            (libc::SIGRTMIN(), Signal::Rotate),
        ]
    }
}

/// The read end of the blocked signals. Where it is not given back they stay blocked until the process ends.
pub struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks the signals for the calling thread and opens the descriptor. Threads started later inherit the mask;
    /// one that was started before would still be killed by the signals, so call this first.
    pub fn new() -> io::Result<Signals> {
        #[cfg(target_env = "musl")]
        ignore_the_librarys_own()?;
        // SAFETY: sigset_t is plain data for which all zeros is a valid value, and sigemptyset initialises it as the
        // platform wants before it is used. All pointers are to that local; the old mask is not asked for.
        let descriptor = unsafe {
            let mut mask: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut mask);
            for (number, _) in Signal::all() {
                libc::sigaddset(&mut mask, number);
            }
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

    /// They do again what they did before to the calling thread, also those that arrived and were not read.
    pub fn give_back(self) {
        // SAFETY: as in `new`.
        unsafe {
            let mut mask: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut mask);
            for (number, _) in Signal::all() {
                libc::sigaddset(&mut mask, number);
            }
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &mask, ptr::null_mut());
        }
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
            let number = info.ssi_signo as libc::c_int;
            let signal = Signal::all().into_iter().find_map(|(own, signal)| (own == number).then_some(signal));
            if signal.is_some() {
                return signal;
            }
        }
    }
}

/// The first real-time signal is another number for each C library: a `kill` that was built with glibc says 34 where musl
/// starts at 35 and keeps 32 to 34 for itself. Whoever rotates logs with such a `kill` must not end the broker. musl refuses to
/// touch them, so it is the kernel that is asked; it is also what musl does with 34 after its own use.
#[cfg(target_env = "musl")]
fn ignore_the_librarys_own() -> io::Result<()> {
    // The kernel's struct begins with the handler and the flags, on MIPS with the flags and the handler. 1 is SIG_IGN, and as a
    // flag SA_NOCLDSTOP, which means nothing for these. The rest is a mask and, on some, a restorer that is not used.
    let mut action = [0usize; 16];
    action[..2].fill(1);
    let mask_bytes: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 16 } else { 8 };
    for number in 32..libc::SIGRTMIN() as libc::c_long {
        // SAFETY: the kernel reads its struct from `action`, which is larger on no architecture. The old one is not asked for.
        let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &raw const action, 0usize, mask_bytes) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What `run` starts inherits a mask that lets no signal through, so that each reaches the thread that reads them.
pub fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: sigset_t is plain data for which all zeros is a valid value, and the calls fill it before it is used. All pointers
    // are to these locals.
    let before = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        before
    };
    let result = run();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    result
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
        for (number, signal) in Signal::all() {
            // SAFETY: raise has no preconditions.
            assert_eq!(unsafe { libc::raise(number) }, 0);
            assert_eq!(signals.read(), Some(signal));
            assert_eq!(signals.read(), None);
        }
    }
}
