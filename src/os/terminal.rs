//! The terminal of somebody who looks at the broker: its size, and single keys without waiting for the end of a line.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::{Signal, Signals};

/// Columns and lines, if it is a terminal.
pub fn terminal_size(terminal: &impl AsRawFd) -> Option<(usize, usize)> {
    // SAFETY: winsize is plain data for which all zeros is a valid value.
    let mut size: libc::winsize = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes a winsize into `size`, which is one.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    // A serial line does not know its size.
    (result == 0 && size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// What somebody at the terminal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressed {
    Nothing,
    Key(u8),
    /// A signal asks for the end.
    End,
}

/// Standard input as keys. Signals that would end the process are read, too, so that it can leave the terminal as it was; and
/// when it is dropped, that has the mode it had.
pub struct Keys {
    signals: Signals,
    /// Nothing if standard input is no terminal, or has ended.
    mode: Option<libc::termios>,
    is_open: bool,
}

impl Keys {
    /// # Errors
    /// When signals cannot be read.
    pub fn new() -> io::Result<Keys> {
        let signals = Signals::new()?;
        // SAFETY: termios is plain data for which all zeros is a valid value, and it is ours for both calls.
        let mode = unsafe {
            let mut mode: libc::termios = mem::zeroed();
            let is_terminal = libc::tcgetattr(libc::STDIN_FILENO, &mut mode) == 0;
            let mut raw = mode;
            raw.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
            (is_terminal && libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw) == 0).then_some(mode)
        };
        Ok(Keys { signals, mode, is_open: mode.is_some() })
    }

    /// The next key, or nothing if none comes for so long.
    pub fn wait(&mut self, patience: Duration) -> Pressed {
        let descriptors = [self.signals.as_raw_fd(), libc::STDIN_FILENO];
        let mut polls = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        let count = if self.is_open { 2 } else { 1 };
        // Rounded up, so that no time is left over.
        let ms = patience.as_micros().div_ceil(1000).min(i32::MAX as u128) as libc::c_int;
        // SAFETY: `count` of the pollfds, which are ours for the call.
        if unsafe { libc::poll(polls.as_mut_ptr(), count, ms) } <= 0 {
            return Pressed::Nothing;
        }
        if matches!(self.signals.read(), Some(Signal::Terminate | Signal::Interrupt | Signal::Hangup)) {
            return Pressed::End;
        }
        if polls[1].revents == 0 {
            return Pressed::Nothing;
        }
        let mut key = 0u8;
        // SAFETY: the kernel writes at most one byte into `key`.
        match unsafe { libc::read(libc::STDIN_FILENO, (&raw mut key).cast(), 1) } {
            1 => Pressed::Key(key),
            _ => {
                self.is_open = false;
                Pressed::Nothing
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(mode) = &self.mode {
            // SAFETY: it reads a termios, which is the one it gave.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, mode) };
        }
    }
}
