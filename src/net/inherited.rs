//! Sockets that systemd opened and passes on (`sd_listen_fds`): descriptors from 3 on, as many as LISTEN_FDS says, for the
//! process that LISTEN_PID names.

use std::env;
use std::process;

use super::Listener;
use super::socket::adopt;

const FIRST_DESCRIPTOR: u32 = 3;
/// Far more than a gateway has networks.
const COUNT_MAX: u32 = 1024;

/// What was passed on.
#[derive(Debug, Default)]
pub struct Inherited {
    pub listeners: Vec<Listener>,
    /// Lines for a log that is not there yet.
    pub warnings: Vec<String>,
}

/// What was passed on to this process and listens. Whatever else has these descriptors is left alone. To be called once, before
/// there are threads and before anything is opened.
pub fn inherited() -> Inherited {
    let text = |name| env::var(name).ok();
    let count = count(text("LISTEN_PID").as_deref(), text("LISTEN_FDS").as_deref(), process::id());
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        // SAFETY: there is no other thread yet that could read the environment meanwhile.
        unsafe { env::remove_var(name) };
    }
    let mut inherited = Inherited::default();
    let mut others = Vec::new();
    for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + count {
        // SAFETY: nothing was opened yet, and these descriptors were passed on for this.
        match unsafe { adopt(number as libc::c_int) }.and_then(Listener::inherited) {
            Some(listener) => inherited.listeners.push(listener),
            None => others.push(number),
        }
    }
    if let (Some(first), Some(last)) = (others.first(), others.last()) {
        inherited.warnings.push(match others.len() {
            1 => format!("Descriptor {first} was passed on as a listening socket, but is none."),
            count => {
                format!("{count} descriptors of {first} to {last} were passed on as listening sockets, but are none.")
            }
        });
    }
    inherited
}

fn count(pid: Option<&str>, count: Option<&str>, own_pid: u32) -> u32 {
    let is_for_us = pid.and_then(|pid| pid.parse().ok()) == Some(own_pid);
    let count = count.and_then(|count| count.parse().ok()).unwrap_or(0);
    if is_for_us { count.min(COUNT_MAX) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Place;
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_the_process_that_is_named_is_meant() {
        assert_eq!(count(Some("7"), Some("2"), 7), 2);
        assert_eq!(count(Some("8"), Some("2"), 7), 0);
        assert_eq!(count(None, Some("2"), 7), 0);
        assert_eq!(count(Some("7"), None, 7), 0);
        assert_eq!(count(Some("7"), Some("-1"), 7), 0);
        assert_eq!(count(Some("7"), Some("4000000000"), 7), COUNT_MAX);
    }

    #[test]
    fn a_socket_says_where_it_listens() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::inherited(socket.into()).unwrap();
        assert_eq!(*listener.place(), Place::Tcp(address));
        assert!(!listener.serves(&Place::Tcp(([0, 0, 0, 0], address.port()).into())));
    }

    #[test]
    fn a_socket_of_both_families_serves_both() {
        // As Rust's library makes it on Linux, and systemd if nothing else is said.
        let Ok(socket) = TcpListener::bind("[::]:0") else { return };
        let port = socket.local_addr().unwrap().port();
        let listener = Listener::inherited(socket.into()).unwrap();
        assert!(listener.serves(&Place::Tcp(([0, 0, 0, 0], port).into())));
        assert!(!listener.serves(&Place::Tcp(([0, 0, 0, 0], port ^ 1).into())));
        assert!(!listener.serves(&Place::Tcp(([127, 0, 0, 1], port).into())));
    }

    #[test]
    fn what_does_not_listen_is_not_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(Listener::inherited(stream.into()).is_none());
        assert!(Listener::inherited(std::fs::File::open("/dev/null").unwrap().into()).is_none());
    }

    #[test]
    fn what_does_not_listen_is_left_open() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let (_reader, writer) = std::io::pipe().unwrap();
        for number in [file.as_raw_fd(), writer.as_raw_fd(), 1_000_000] {
            // SAFETY: nothing is adopted, or the test fails.
            assert!(unsafe { adopt(number) }.is_none());
        }
        file.metadata().unwrap();
        assert_eq!((&writer).write(b"x").unwrap(), 1);
    }
}
