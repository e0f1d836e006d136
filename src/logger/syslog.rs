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
    socket: UnixDatagram,
    path: Box<Path>,
    facility: u8,
}

impl Syslog {
    /// `facility` is 0 to 7 for local0 to local7, nothing for daemon.
    pub fn open(facility: Option<u8>) -> io::Result<Syslog> {
        Syslog::open_at(Path::new(PATH), facility)
    }

    fn open_at(path: &Path, facility: Option<u8>) -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        let facility = facility.map_or(DAEMON, |local| LOCAL0 + local.min(7));
        Ok(Syslog { socket, path: path.into(), facility })
    }

    /// Sends a line; a daemon that was started anew has another socket at the same place.
    pub fn write(&mut self, kind: Kind, seconds: u64, line: &str) {
        let mut datagram = String::with_capacity(line.len() + 64);
        // Writing to a String does not fail.
        let _ = write!(datagram, "<{}>", self.facility << 3 | kind.severity());
        append_local_time(seconds, c"%b %e %H:%M:%S", &mut datagram);
        let _ = write!(datagram, " midge[{}]: {line}", std::process::id());
        if let Err(error) = self.socket.send(datagram.as_bytes())
            && error.kind() != io::ErrorKind::WouldBlock
            && self.socket.connect(&self.path).is_ok()
        {
            let _ = self.socket.send(datagram.as_bytes());
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
        let mut syslog = Syslog::open_at(&path, Some(2)).unwrap();
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
        syslog.write(Kind::Error, 0, "lost");
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.write(Kind::Error, 0, "found");
        assert!(received(&daemon).ends_with("]: found"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_a_daemon_opening_fails() {
        assert!(Syslog::open_at(Path::new("/nowhere/log"), None).is_err());
    }
}
