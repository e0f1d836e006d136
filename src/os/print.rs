//! Standard output for a person who asked a running broker something: whoever reads it, or does not, must not hold up the loop.

use std::io;
use std::time::{Duration, Instant};

/// What a pipe that is ready takes without blocking: POSIX's PIPE_BUF on Linux.
const CHUNK_LEN: usize = 4096;
/// A reader that takes nothing for so long in all gets no more.
const PATIENCE: Duration = Duration::from_millis(100);

/// Writes `bytes` to standard output as long as it takes them; says how many it took.
///
/// # Errors
/// When it is closed, or cannot be written.
pub fn print(bytes: &[u8]) -> io::Result<usize> {
    print_to(libc::STDOUT_FILENO, bytes)
}

fn print_to(descriptor: libc::c_int, bytes: &[u8]) -> io::Result<usize> {
    let (mut at, begin) = (0, Instant::now());
    while at < bytes.len() {
        if !is_ready(descriptor, PATIENCE.saturating_sub(begin.elapsed()))? {
            break;
        }
        let chunk = &bytes[at..bytes.len().min(at + CHUNK_LEN)];
        // SAFETY: the kernel reads `chunk`, which outlives the call; a descriptor that is closed is an error.
        let written = unsafe { libc::write(descriptor, chunk.as_ptr().cast(), chunk.len()) };
        match usize::try_from(written) {
            Ok(written) => at += written,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.kind() == io::ErrorKind::WouldBlock => break,
                error => return Err(error),
            },
        }
    }
    Ok(at)
}

/// Whether the descriptor can be written within `patience`.
fn is_ready(descriptor: libc::c_int, patience: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, which is ours for the call.
    let count = unsafe { libc::poll(&mut poll, 1, patience.as_millis() as libc::c_int) };
    match count {
        1 => Ok(true),
        0 => Ok(false),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_pipe_nobody_reads_takes_what_it_holds_and_no_more() {
        let (mut reader, writer) = io::pipe().unwrap();
        let text = vec![b'x'; 1 << 20];
        let count = print_to(writer.as_raw_fd(), &text).unwrap();
        assert!((CHUNK_LEN..text.len()).contains(&count), "{count}");
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), count);
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        assert_eq!(print_to(writer.as_raw_fd(), b"one").unwrap(), 3);
        drop(reader);
        assert_eq!(print_to(writer.as_raw_fd(), b"two").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
