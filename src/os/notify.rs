//! What a service manager is told, in systemd's protocol: a datagram of lines to the socket that NOTIFY_SOCKET names. Without
//! that variable nothing is sent, and nothing of it can fail the broker.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process;

use crate::time::Millis;

/// The service manager's end, and how often it wants to hear from the broker.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<OwnedFd>,
    watchdog: Option<Millis>,
}

impl Notify {
    /// As the environment says.
    ///
    /// # Errors
    /// When there is a socket that cannot be reached. The broker runs all the same.
    pub fn from_env() -> io::Result<Notify> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        match variable("NOTIFY_SOCKET") {
            None => Ok(Notify::default()),
            Some(path) => {
                let text = |name| variable(name).and_then(|value| value.into_string().ok());
                Notify::open(&path, text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref())
            }
        }
    }

    fn open(path: &OsStr, watchdog_usec: Option<&str>, watchdog_pid: Option<&str>) -> io::Result<Notify> {
        // Set for a parent of this process, it means nothing here.
        let is_ours = watchdog_pid.is_none_or(|pid| pid.parse() == Ok(process::id()));
        let watchdog = watchdog_usec.filter(|_| is_ours).and_then(|usec| usec.parse().ok()).and_then(interval);
        Ok(Notify { socket: Some(connect(path.as_bytes())?), watchdog })
    }

    /// `watchdog` is to be called so often: half the time after which the service manager takes the broker for dead.
    pub fn watchdog_interval(&self) -> Option<Millis> {
        self.watchdog
    }

    /// The broker serves, or does so again after `reloading`.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Configuration is being read again; `ready` is to follow. The time is the monotonic clock's, as systemd wants it.
    pub fn reloading(&self) {
        if self.socket.is_some() {
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec()));
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for a person, as `systemctl status` shows it.
    pub fn status(&self, text: &str) {
        if self.socket.is_some() {
            self.send(&format!("STATUS={}", text.replace(|character: char| character.is_control(), "?")));
        }
    }

    /// The loop turns.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// A service manager that does not listen is not waited for.
    fn send(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: the kernel reads `text`, which outlives the call, and the descriptor is open.
        let sent = unsafe { libc::send(socket.as_raw_fd(), text.as_ptr().cast(), text.len(), flags) };
        if sent < 0 {
            log::debug!("The service manager was not told {text:?}: {}.", io::Error::last_os_error());
        }
    }
}

/// Half of it, so that one turn may be late. An interval too short to keep is none.
fn interval(usec: u64) -> Option<Millis> {
    let half = usec / 2 / 1000;
    (half > 0).then_some(Millis(half))
}

/// A datagram socket to a path, or to an abstract name that is written with `@` in front.
fn connect(path: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: sockaddr_un is plain data for which all zeros is a valid value.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // One byte stays zero: it ends a path.
    if !matches!(path.first(), Some(b'/' | b'@')) || path.len() >= address.sun_path.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "NOTIFY_SOCKET is neither a path nor an abstract name",
        ));
    }
    for (own, byte) in address.sun_path.iter_mut().zip(path) {
        *own = *byte as libc::c_char;
    }
    let is_abstract = path[0] == b'@';
    if is_abstract {
        address.sun_path[0] = 0;
    }
    // The length is the name's where zeros count.
    let begin = mem::offset_of!(libc::sockaddr_un, sun_path);
    let len = begin + path.len() + !is_abstract as usize;
    // SAFETY: numbers only.
    let descriptor = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: the address is as long as said, and outlives the call.
    if unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len as libc::socklen_t) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

fn monotonic_usec() -> u64 {
    // SAFETY: timespec is plain data for which all zeros is a valid value, and the kernel writes one, which is ours.
    let time = unsafe {
        let mut time: libc::timespec = mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        time
    };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn told(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let len = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_service_manager_is_told_what_becomes_of_the_broker() {
        let path = env::temp_dir().join(format!("midge-notify-{}", process::id()));
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::open(path.as_os_str(), Some("30000000"), Some(&process::id().to_string())).unwrap();
        assert_eq!(notify.watchdog_interval(), Some(Millis(15_000)));
        notify.ready();
        assert_eq!(told(&manager), "READY=1");
        notify.status("two\nlines");
        assert_eq!(told(&manager), "STATUS=two?lines");
        let before = monotonic_usec();
        notify.reloading();
        let text = told(&manager);
        let usec: u64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=monotonic_usec()).contains(&usec), "{text}");
        notify.watchdog();
        notify.stopping();
        assert_eq!((told(&manager), told(&manager)), ("WATCHDOG=1".to_string(), "STOPPING=1".to_string()));
        drop(manager);
        // Nobody listens any more, which is not the broker's business.
        notify.stopping();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_abstract_name_is_reached() {
        let name = format!("midge-notify-{}", process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notify = Notify::open(OsStr::new(&format!("@{name}")), None, None).unwrap();
        notify.ready();
        assert_eq!((told(&manager).as_str(), notify.watchdog_interval()), ("READY=1", None));
    }

    #[test]
    fn a_watchdog_of_another_process_or_without_sense_is_none() {
        let path = env::temp_dir().join(format!("midge-watchdog-{}", process::id()));
        let _ = std::fs::remove_file(&path);
        let _manager = UnixDatagram::bind(&path).unwrap();
        for (usec, pid, expected) in [
            ("10000000", None, Some(Millis(5000))),
            ("10000000", Some("1"), None),
            ("10000000", Some("?"), None),
            ("1999", None, None),
            ("0", None, None),
            ("soon", None, None),
        ] {
            let notify = Notify::open(path.as_os_str(), Some(usec), pid).unwrap();
            assert_eq!(notify.watchdog_interval(), expected, "{usec} {pid:?}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_socket_that_is_none_is_an_error_and_no_socket_is_silence() {
        for path in ["relative", "/nonexistent/socket", &format!("/{}", "x".repeat(200))] {
            assert!(Notify::open(OsStr::new(path), None, None).is_err(), "{path}");
        }
        let silent = Notify::default();
        silent.ready();
        silent.reloading();
        assert_eq!(silent.watchdog_interval(), None);
    }
}
