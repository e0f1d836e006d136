//! Lines for syslog, as datagrams to the socket every syslog daemon has, in RFC 3164's form as the C library writes it. Not
//! the C library's own call: that waits while the daemon is stuck, says nothing when there is none, and keeps
//! its settings in globals. Here a daemon that does not keep up loses lines, and the broker no time.

use std::fmt::Write;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::kind::Kind;
use crate::os::append_local_time;

const PATH: &str = "/dev/log";
const DAEMON: u8 = 3;
const LOCAL0: u8 = 16;

pub struct Syslog {
    /// Nothing while there is no daemon.
    socket: Option<UnixDatagram>,
    path: Box<Path>,
    facility: u8,
    /// The second of the last attempt to reach a daemon that was not there.
    tried: u64,
}

impl Syslog {
    /// `facility` is 0 to 7 for local0 to local7, nothing for daemon.
    pub fn open(facility: Option<u8>) -> io::Result<Syslog> {
        let mut syslog = Syslog::unconnected(facility);
        syslog.connect()?;
        Ok(syslog)
    }

    /// A daemon that is not there; it is looked for again when there are lines, at most once a second.
    pub fn unconnected(facility: Option<u8>) -> Syslog {
        Syslog::unconnected_at(Path::new(PATH), facility)
    }

    fn unconnected_at(path: &Path, facility: Option<u8>) -> Syslog {
        let mut syslog = Syslog { socket: None, path: path.into(), facility: DAEMON, tried: 0 };
        syslog.set_facility(facility);
        syslog
    }

    pub fn set_facility(&mut self, facility: Option<u8>) {
        self.facility = facility.map_or(DAEMON, |local| LOCAL0 + local.min(7));
    }

    fn connect(&mut self) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Sends a line; a daemon that was started anew has another socket at the same place. False if there is none: one that does
    /// not keep up is there.
    pub fn write(&mut self, kind: Kind, seconds: u64, line: &str) -> bool {
        if self.socket.is_none() {
            // Not "later than": the clock may be set back.
            if self.tried == seconds {
                return false;
            }
            self.tried = seconds;
            if self.connect().is_err() {
                return false;
            }
        }
        let mut datagram = String::with_capacity(line.len() + 64);
        // Writing to a String does not fail.
        let _ = write!(datagram, "<{}>", self.facility << 3 | kind.severity());
        append_local_time(seconds, c"%b %e %H:%M:%S", &mut datagram);
        let _ = write!(datagram, " midge[{}]: {line}", std::process::id());
        match self.send(&datagram) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.socket = None;
                self.tried = seconds;
                self.connect().is_ok() && self.send(&datagram).is_ok()
            }
            _ => true,
        }
    }

    fn send(&self, datagram: &str) -> io::Result<usize> {
        match &self.socket {
            Some(socket) => socket.send(datagram.as_bytes()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reaches_the_daemon_also_when_it_was_started_anew() {
        let path = std::env::temp_dir().join(format!("midge-syslog-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::unconnected_at(&path, Some(2));
        let received = |daemon: &UnixDatagram| {
            let mut bytes = [0; 2000];
            let len = daemon.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..len].to_vec()).unwrap()
        };
        syslog.write(Kind::Notice, 1_600_000_000, "1600000000: New client connected");
        let line = received(&daemon);
        // local2 is 18, a notice is 5.
        assert!(line.starts_with("<149>Sep 1"), "{line}");
        let rest = format!(" midge[{}]: 1600000000: New client connected", std::process::id());
        assert_eq!(&line["<149>Sep 13 12:26:40".len()..], rest);
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        assert!(!syslog.write(Kind::Error, 7, "lost"));
        let daemon = UnixDatagram::bind(&path).unwrap();
        assert!(!syslog.write(Kind::Error, 7, "within the same second"));
        assert!(syslog.write(Kind::Error, 8, "found"));
        assert!(received(&daemon).ends_with("]: found"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_a_daemon_opening_fails() {
        let mut syslog = Syslog::unconnected_at(Path::new("/nowhere/log"), None);
        assert!(syslog.connect().is_err());
        assert!(!syslog.write(Kind::Error, 1, "lost"));
    }
}
