//! The terminal of whoever works with a command: what must not be read over the shoulder, single keys without waiting for the end of
//! a line, and its size.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::time::Duration;

use super::{Signal, Signals};

/// What Ctrl-C sends, as everywhere.
const CTRL_C: u8 = 3;

/// A line without its end. From a terminal it is asked for with `prompt`, and is not shown; from elsewhere it is just read, no
/// byte further. Nothing if there is none, or if somebody at a terminal gives up with Ctrl-C, or a signal asks for the end.
///
/// # Errors
/// When it cannot be read, or has more bytes than `bytes_max`.
pub fn read_secret(input: BorrowedFd<'_>, prompt: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    if !input.is_terminal() {
        return read_line(input, bytes_max, None);
    }
    // They would end the process, and leave a terminal behind that shows nothing.
    let mut signals = Signals::new()?;
    let silence = Mode::change(input.as_raw_fd(), libc::TCSAFLUSH, |mode| {
        // Ctrl-C ends the line.
        mode.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ISIG);
        mode.c_lflag |= libc::ICANON;
        mode.c_cc[libc::VEOL] = CTRL_C;
    })?;
    // On standard error, so that standard output is what it would be without.
    let _ = write!(io::stderr(), "{prompt}");
    let line = read_line(input, bytes_max, Some(&mut signals));
    // The end of the line was not shown either.
    let _ = writeln!(io::stderr());
    drop(silence);
    signals.give_back();
    Ok(line?.filter(|line| !line.contains(&CTRL_C)))
}

/// With signals it comes from a terminal.
fn read_line(
    input: BorrowedFd<'_>,
    bytes_max: usize,
    mut signals: Option<&mut Signals>,
) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: the descriptor stays open for the call, and is not closed, because the file is never dropped.
    let input = ManuallyDrop::new(unsafe { File::from_raw_fd(input.as_raw_fd()) });
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        if let Some(signals) = &mut signals {
            poll(&mut [readable(signals.as_raw_fd()), readable(input.as_raw_fd())], -1);
            if is_end(signals) {
                return Ok(None);
            }
        }
        match (&*input).read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
        }
        // A CR may follow the last byte.
        if line.len() > bytes_max + 1 || signals.is_some() && byte[0] == CTRL_C {
            break;
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    if line.len() > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(Some(line))
}

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Waits until one of them is ready, or so many milliseconds, -1 for any; says whether one is.
fn poll(polls: &mut [libc::pollfd], ms: libc::c_int) -> bool {
    // SAFETY: the kernel reads and writes so many pollfds, which are ours for the call.
    unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, ms) > 0 }
}

/// Whether a signal asks for the end.
fn is_end(signals: &mut Signals) -> bool {
    matches!(signals.read(), Some(Signal::Terminate | Signal::Interrupt | Signal::Hangup))
}

/// A terminal in another mode, until this is dropped.
struct Mode {
    terminal: RawFd,
    /// With what is typed already (TCSANOW), or without (TCSAFLUSH).
    when: libc::c_int,
    before: libc::termios,
}

impl Mode {
    fn change(terminal: RawFd, when: libc::c_int, how: impl FnOnce(&mut libc::termios)) -> io::Result<Mode> {
        // SAFETY: termios is plain data for which all zeros is a valid value.
        let mut before: libc::termios = unsafe { mem::zeroed() };
        // SAFETY: the kernel fills in one termios, which is ours; a number that is no terminal's is an error.
        if unsafe { libc::tcgetattr(terminal, &mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let (mode, mut changed) = (Mode { terminal, when, before }, before);
        how(&mut changed);
        mode.set(&changed)?;
        Ok(mode)
    }

    fn set(&self, settings: &libc::termios) -> io::Result<()> {
        // SAFETY: the kernel reads one termios, which is ours; a number that is no terminal's is an error.
        match unsafe { libc::tcsetattr(self.terminal, self.when, settings) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        // It worked with the other settings.
        let _ = self.set(&self.before);
    }
}

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
    /// Nothing if standard input is no terminal.
    _mode: Option<Mode>,
    /// It is one, and has not ended.
    is_open: bool,
}

impl Keys {
    /// # Errors
    /// When signals cannot be read.
    pub fn new() -> io::Result<Keys> {
        let signals = Signals::new()?;
        let mode = Mode::change(libc::STDIN_FILENO, libc::TCSANOW, |mode| {
            mode.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
        });
        let mode = mode.ok();
        Ok(Keys { signals, is_open: mode.is_some(), _mode: mode })
    }

    /// The next key, or nothing if none comes for so long.
    pub fn wait(&mut self, patience: Duration) -> Pressed {
        let mut polls = [self.signals.as_raw_fd(), libc::STDIN_FILENO].map(readable);
        let count = if self.is_open { 2 } else { 1 };
        // Rounded up, so that no time is left over.
        let ms = patience.as_micros().div_ceil(1000).min(i32::MAX as u128) as libc::c_int;
        if !poll(&mut polls[..count], ms) {
            return Pressed::Nothing;
        }
        if is_end(&mut self.signals) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};
    use std::{ptr, thread};

    /// Both ends of a terminal: what somebody types on it and sees, and what a program has.
    fn terminal() -> (File, OwnedFd) {
        let (mut outer, mut inner) = (0, 0);
        // SAFETY: the two numbers are ours; names and settings are not asked for.
        let result =
            unsafe { libc::openpty(&mut outer, &mut inner, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptors were just opened and nobody else owns them.
        unsafe { (File::from_raw_fd(outer), OwnedFd::from_raw_fd(inner)) }
    }

    fn settings(terminal: &OwnedFd) -> libc::termios {
        // SAFETY: plain data, which the kernel fills in.
        unsafe {
            let mut settings = mem::zeroed();
            assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut settings), 0);
            settings
        }
    }

    /// What is read when somebody types this once nothing is shown, and what they see of it.
    fn typed(text: &str) -> (Option<String>, String) {
        let (mut outer, inner) = terminal();
        let before = settings(&inner);
        let line = thread::scope(|scope| {
            let reader = scope.spawn(|| read_secret(inner.as_fd(), "", 20).unwrap());
            while settings(&inner).c_lflag & libc::ECHO != 0 {
                thread::yield_now();
            }
            outer.write_all(text.as_bytes()).unwrap();
            reader.join().unwrap()
        });
        let after = settings(&inner);
        assert_eq!((after.c_lflag, after.c_cc), (before.c_lflag, before.c_cc));
        // What comes now is all there is to see.
        File::from(inner).write_all(b"!").unwrap();
        let mut seen = [0; 100];
        let count = outer.read(&mut seen).unwrap();
        (line.map(|line| String::from_utf8(line).unwrap()), String::from_utf8_lossy(&seen[..count]).into_owned())
    }

    #[test]
    fn what_is_typed_is_read_and_not_shown() {
        assert_eq!(typed("secret\n"), (Some("secret".to_string()), "!".to_string()));
        assert_eq!(typed("\n"), (Some(String::new()), "!".to_string()));
        assert_eq!(typed("secres\x7ft\n"), (Some("secret".to_string()), "!".to_string()), "with a correction");
    }

    #[test]
    fn ctrl_c_and_ctrl_d_give_up() {
        assert_eq!(typed("secr\x03"), (None, "!".to_string()));
        assert_eq!(typed("\x04"), (None, "!".to_string()));
    }

    #[test]
    fn from_a_pipe_one_line_is_read_and_the_rest_is_left() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"one \x03 two\r\n\nthree").unwrap();
        drop(writer);
        let next = || read_secret(reader.as_fd(), "not shown", 9).unwrap();
        assert_eq!([next(), next(), next()], [Some(b"one \x03 two".to_vec()), Some(vec![]), Some(b"three".to_vec())]);
        assert_eq!(next(), None);
    }

    #[test]
    fn a_line_that_does_not_end_is_given_up() {
        let zeros = File::open("/dev/zero").unwrap();
        let error = read_secret(zeros.as_fd(), "", 9).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 9 bytes");
    }
}
