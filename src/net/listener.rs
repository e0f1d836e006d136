//! One listening socket: accepted from until it is closed. Owns what each error of accept means; the server knows none of them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};

use super::place::{Caller, Place};
use super::socket::{self, FileChange, SocketFile};
use super::{OpenError, Transport};
use crate::config::Protocol;
use crate::os::{Owner, Reserve};

/// Connections in a row that may fail before they are accepted. More is no accident: a sandbox that forbids accept fails the same
/// way, for ever.
const PASSED_OVER_MAX: u32 = 1000;

#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    place: Place,
    /// On all addresses of IPv6, and those of IPv4, too. None that the broker makes is.
    is_dual: bool,
    /// Of a Unix socket that the broker made.
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What `Listener::accept` found.
#[derive(Debug)]
pub enum Accept {
    /// A connection, ready to be registered, and its other end.
    Peer(Transport, Caller),
    /// All waiting connections are accepted.
    WouldBlock,
    /// The process or the system has nothing left to accept a connection with, and whether one waits is not known: the
    /// kernel looks for a descriptor first. `refuse` finds out.
    OutOfDescriptors,
    /// The socket itself is of no more use.
    Failed(io::Error),
}

/// What `Listener::refuse` found.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The longest waiting connection was closed.
    Peer(Caller),
    /// None waits any more.
    WouldBlock,
    /// Some may wait, and even the reserve did not help: try again a little later, for no event will come.
    Later,
}

impl Listener {
    /// Listens on exactly this address. With `is_shared` it may take the address over from a listener of this process that
    /// `share` was called on.
    pub(super) fn tcp(address: std::net::SocketAddr, is_shared: bool) -> Result<Listener, OpenError> {
        let (socket, bound) = socket::tcp(address, is_shared).map_err(|error| OpenError::bind(address, error))?;
        let socket = Socket::Tcp(TcpListener::from_std(socket.into()));
        Ok(Listener { socket, place: Place::Tcp(bound), is_dual: false, file: None })
    }

    /// Listens at this path.
    pub(super) fn unix(path: &Path, owner: Option<&str>, mode: Option<u32>) -> Result<Listener, OpenError> {
        let (socket, file) = socket::unix(path, owner, mode)?;
        let socket = Socket::Unix(UnixListener::from_std(socket.into()));
        Ok(Listener { socket, place: Place::Unix(path.to_path_buf()), is_dual: false, file: Some(file) })
    }

    /// Takes over a socket that somebody else made, and who keeps its file; nothing if it does not listen for connections.
    pub(super) fn inherited(socket: OwnedFd) -> Option<Listener> {
        let is = |option, value| socket::option(&socket, libc::SOL_SOCKET, option).is_ok_and(|found| found == value);
        if !is(libc::SO_ACCEPTCONN, 1) || !is(libc::SO_TYPE, libc::SOCK_STREAM) {
            return None;
        }
        match socket::option(&socket, libc::SOL_SOCKET, libc::SO_DOMAIN).ok()? {
            libc::AF_INET | libc::AF_INET6 => {
                let is_v6_only = socket::option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).is_ok_and(|is| is != 0);
                let socket = std::net::TcpListener::from(socket);
                let address = socket.local_addr().ok()?;
                Some(Listener {
                    socket: Socket::Tcp(TcpListener::from_std(socket)),
                    place: Place::Tcp(address),
                    is_dual: address.is_ipv6() && address.ip().is_unspecified() && !is_v6_only,
                    file: None,
                })
            }
            libc::AF_UNIX => {
                let socket = std::os::unix::net::UnixListener::from(socket);
                let path = socket.local_addr().ok()?.as_pathname()?.to_path_buf();
                let socket = Socket::Unix(UnixListener::from_std(socket));
                Some(Listener { socket, place: Place::Unix(path), is_dual: false, file: None })
            }
            _ => None,
        }
    }

    /// Where it is bound; a port is never 0.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whoever connects to this place comes here.
    pub(super) fn serves(&self, place: &Place) -> bool {
        match (&self.place, place) {
            (Place::Tcp(own), Place::Tcp(asked)) if self.is_dual => {
                own.port() == asked.port() && asked.ip().is_unspecified()
            }
            _ => self.place == *place && self.file.as_ref().is_none_or(SocketFile::is_there),
        }
    }

    /// Whether others of this process may be bound to its address.
    pub(super) fn share(&self, is_shared: bool) -> io::Result<()> {
        socket::share(self, is_shared)
    }

    /// Makes the socket another user's, so that `share` means those that this user makes. Never fails: what was passed on may
    /// not allow it.
    pub(super) fn give_to(&self, uid: u32, gid: u32) {
        socket::give_to(self, uid, gid);
    }

    /// Changes the file of a Unix socket; nothing if somebody else keeps it.
    pub(super) fn change_file(&self, owner: Option<Owner>, mode: Option<u32>) -> io::Result<Option<FileChange>> {
        self.file.as_ref().map(|file| file.change(owner, mode)).transpose()
    }

    /// Takes the next waiting connection. Errors that concern that connection alone are passed over.
    pub fn accept(&self, protocol: Protocol) -> Accept {
        for _ in 0..PASSED_OVER_MAX {
            let error = match self.accept_any(protocol) {
                Ok((transport, caller)) => return Accept::Peer(transport, caller),
                Err(error) => error,
            };
            match error.raw_os_error().unwrap_or(0) {
                libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => return Accept::OutOfDescriptors,
                code if is_transient(code) => {}
                _ if error.kind() == io::ErrorKind::WouldBlock => return Accept::WouldBlock,
                _ => return Accept::Failed(error),
            }
        }
        Accept::Failed(io::Error::other("one connection after the other fails before it is accepted"))
    }

    fn accept_any(&self, protocol: Protocol) -> io::Result<(Transport, Caller)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                Ok((Transport::tcp(stream, protocol), Caller::Tcp(address)))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                // Who cannot be told is served all the same.
                let (pid, uid) = socket::peer(&stream).unwrap_or((0, u32::MAX));
                Ok((Transport::unix(stream, protocol), Caller::Unix { pid, uid }))
            }
        }
    }

    /// Closes the next waiting connection at once, with the descriptor that `reserve` keeps back.
    pub fn refuse(&self, reserve: &mut Reserve) -> Refusal {
        reserve.release();
        let refusal = match self.accept(Protocol::Mqtt) {
            Accept::Peer(transport, caller) => {
                drop(transport);
                Refusal::Peer(caller)
            }
            Accept::WouldBlock => Refusal::WouldBlock,
            Accept::OutOfDescriptors | Accept::Failed(_) => Refusal::Later,
        };
        reserve.refill();
        refusal
    }
}

/// Linux hands out errors of the waiting connection from accept, as accept(2) warns; the socket itself is well. EPERM
/// is a firewall's doing. Each such error takes a connection off the backlog.
fn is_transient(code: libc::c_int) -> bool {
    matches!(
        code,
        libc::ECONNABORTED
            | libc::EINTR
            | libc::EPROTO
            | libc::EPERM
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ETIMEDOUT
    )
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_raw_fd(),
            Socket::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(socket) => socket.register(registry, token, interests),
            Socket::Unix(socket) => socket.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(socket) => socket.reregister(registry, token, interests),
            Socket::Unix(socket) => socket.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(socket) => socket.deregister(registry),
            Socket::Unix(socket) => socket.deregister(registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::fs::{self, File};
    use std::io::Read;
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
    use std::path::PathBuf;
    use std::process::{self, Command};

    fn local() -> (Listener, SocketAddr) {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let Place::Tcp(address) = *listener.place() else { panic!("{listener:?}") };
        (listener, address)
    }

    /// A directory of this test's own, removed with all that is in it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = env::temp_dir().join(format!("midge-{name}-{}", process::id()));
            fs::create_dir(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn connections_are_accepted_until_none_waits() {
        let (listener, address) = local();
        assert!(matches!(listener.accept(Protocol::Mqtt), Accept::WouldBlock));
        let clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        for client in clients {
            let Accept::Peer(_, caller) = listener.accept(Protocol::Mqtt) else { panic!("nobody came") };
            assert_eq!(caller, Caller::Tcp(client.local_addr().unwrap()));
        }
        assert!(matches!(listener.accept(Protocol::Mqtt), Accept::WouldBlock));
    }

    #[test]
    fn a_restart_does_not_wait_for_old_connections() {
        let (listener, address) = local();
        let client = TcpStream::connect(address).unwrap();
        // The side that closes first is the one whose port the kernel keeps for a while.
        drop(listener.accept(Protocol::Mqtt));
        drop((listener, client));
        Listener::tcp(address, false).unwrap();
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_tells_who_comes() {
        let directory = Directory::new("unix");
        let path = directory.0.join("socket");
        let listener = Listener::unix(&path, None, Some(0o640)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        let _client = UnixStream::connect(&path).unwrap();
        let Accept::Peer(_, caller) = listener.accept(Protocol::Mqtt) else { panic!("nobody came") };
        // SAFETY: geteuid has no preconditions.
        let uid = unsafe { libc::geteuid() };
        assert_eq!(caller, Caller::Unix { pid: process::id(), uid });
        assert!(matches!(listener.accept(Protocol::Mqtt), Accept::WouldBlock));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_unix_socket_of_a_dead_broker_is_replaced_and_one_in_use_is_not() {
        let directory = Directory::new("stale");
        let path = directory.0.join("socket");
        let other = StdUnixListener::bind(&path).unwrap();
        let error = Listener::unix(&path, None, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Address already in use: {} is held by another listener of this broker.", path.display())
        );
        UnixStream::connect(&path).unwrap();
        drop(other);
        assert!(path.exists());
        let listener = Listener::unix(&path, None, None).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(listener.serves(&Place::Unix(path.clone())));
        // Somebody else's file by now.
        fs::remove_file(&path).unwrap();
        let _other = StdUnixListener::bind(&path).unwrap();
        assert!(!listener.serves(&Place::Unix(path.clone())));
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_took_the_place_of_a_socket_is_not_changed() {
        let directory = Directory::new("swapped");
        let (path, precious) = (directory.0.join("socket"), directory.0.join("precious"));
        let listener = Listener::unix(&path, None, Some(0o600)).unwrap();
        fs::write(&precious, "").unwrap();
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o640)).unwrap();
        fs::rename(&path, directory.0.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        let error = listener.change_file(None, Some(0o666)).unwrap_err();
        assert_eq!(error.to_string(), "another file is in its place");
        assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(Listener::unix(&path, None, Some(0o666)).is_err());
    }

    #[test]
    fn what_is_no_socket_is_never_removed() {
        let directory = Directory::new("file");
        let path = directory.0.join("file");
        fs::write(&path, "precious").unwrap();
        let link = directory.0.join("link");
        std::os::unix::fs::symlink(directory.0.join("nowhere"), &link).unwrap();
        for path in [&path, &link, &directory.0] {
            let error = Listener::unix(path, None, None).unwrap_err();
            assert!(matches!(error, OpenError::NotASocket { .. }), "{error}");
            assert!(fs::symlink_metadata(path).is_ok());
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let error = Listener::unix(&directory.0.join("none/socket"), None, None).unwrap_err();
        assert!(error.to_string().contains("No such file or directory"), "{error}");
        let error = Listener::unix(&directory.0.join("x".repeat(200)), None, None).unwrap_err();
        assert!(error.to_string().ends_with("a socket's path has 1 to 107 bytes."), "{error}");
    }

    #[test]
    fn an_owner_that_is_not_there_leaves_no_file() {
        let directory = Directory::new("owner");
        let path = directory.0.join("socket");
        let error = Listener::unix(&path, Some("nobody-here"), None).unwrap_err();
        assert!(error.to_string().ends_with("there is no user 'nobody-here' on this machine."), "{error}");
        assert!(!path.exists());
    }

    /// The limit of descriptors holds for a process, so this test runs once more in one of its own.
    #[test]
    fn without_descriptors_waiting_connections_are_refused() {
        const NAME: &str = "net::listener::tests::without_descriptors_waiting_connections_are_refused";
        const CHILD: &str = "MIDGE_TEST_FEW_DESCRIPTORS";
        if env::var_os(CHILD).is_none() {
            let output =
                Command::new(env::current_exe().unwrap()).args(["--exact", NAME]).env(CHILD, "1").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        let (listener, address) = local();
        let mut reserve = Reserve::new();
        let mut clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let few = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: setrlimit reads one rlimit, and `few` outlives the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &few) }, 0);
        let mut all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();

        assert!(matches!(listener.accept(Protocol::Mqtt), Accept::OutOfDescriptors));
        for client in &mut clients {
            assert_eq!(listener.refuse(&mut reserve), Refusal::Peer(Caller::Tcp(client.local_addr().unwrap())));
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(listener.refuse(&mut reserve), Refusal::WouldBlock);
        assert!(File::open("/dev/null").is_err(), "the reserve is held again");
        all.pop();
        assert!(matches!(listener.accept(Protocol::Mqtt), Accept::WouldBlock));
    }
}
