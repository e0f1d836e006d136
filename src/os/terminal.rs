//! What somebody types who must not be read over the shoulder.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

/// What Ctrl-C sends, as everywhere.
const CTRL_C: u8 = 3;

/// A line without its end. From a terminal it is asked for with `prompt`, and is not shown; from elsewhere it is just read, no byte
/// further. Nothing if there is none, or if somebody at a terminal gives up with Ctrl-C.
///
/// # Errors
/// When it cannot be read, or has more bytes than `bytes_max`.
pub fn read_secret(input: BorrowedFd<'_>, prompt: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    if !input.is_terminal() {
        return read_line(input, bytes_max);
    }
    let _silence = Silence::begin(input)?;
    // On standard error, so that standard output is what it would be without.
    let _ = write!(io::stderr(), "{prompt}");
    let line = read_line(input, bytes_max);
    // The end of the line was not shown either.
    let _ = writeln!(io::stderr());
    Ok(line?.filter(|line| !line.contains(&CTRL_C)))
}

fn read_line(input: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: the descriptor stays open for the call, and is not closed, because the file is never dropped.
    let input = ManuallyDrop::new(unsafe { File::from_raw_fd(input.as_raw_fd()) });
    let (is_terminal, mut line, mut byte) = (input.is_terminal(), Vec::new(), [0]);
    loop {
        match (&*input).read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
        }
        // A CR may follow the last byte.
        if line.len() > bytes_max + 1 || is_terminal && byte[0] == CTRL_C {
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

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Silence<'a> {
    terminal: BorrowedFd<'a>,
    before: libc::termios,
}

impl Silence<'_> {
    fn begin(terminal: BorrowedFd<'_>) -> io::Result<Silence<'_>> {
        // SAFETY: termios is plain data for which all zeros is a valid value.
        let mut before: libc::termios = unsafe { mem::zeroed() };
        // SAFETY: the descriptor is open, and the kernel fills in ours.
        if unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut silent = before;
        // Ctrl-C is to end the line instead of the process, which would leave a terminal behind that shows nothing.
        silent.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ISIG);
        silent.c_lflag |= libc::ICANON;
        silent.c_cc[libc::VEOL] = CTRL_C;
        let silence = Silence { terminal, before };
        silence.set(&silent)?;
        Ok(silence)
    }

    fn set(&self, settings: &libc::termios) -> io::Result<()> {
        // SAFETY: the descriptor is open, and the kernel reads one termios, which is ours.
        match unsafe { libc::tcsetattr(self.terminal.as_raw_fd(), libc::TCSAFLUSH, settings) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // It worked with the other settings.
        let _ = self.set(&self.before);
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
