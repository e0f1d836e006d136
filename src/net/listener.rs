//! Listening sockets: opened once at start, accepted from until the end. Owns the rules which addresses a listener
//! gets, what an unusable one means, and what each error of accept means. The server knows none of them.

use std::fmt;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use log::debug;
use mio::event::Source;
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};

use super::Transport;
use crate::config::{Host, ListenerConfig, Protocol};
use crate::os::{Holder, Reserve, port_holder};

/// Connections the kernel keeps until they are accepted: a site's devices that all come back after a power cut. The
/// kernel lowers it to net.core.somaxconn.
const BACKLOG: libc::c_int = 1024;

/// Connections in a row that may fail before they are accepted. More is no accident: a sandbox that forbids accept fails the same
/// way, for ever.
const PASSED_OVER_MAX: u32 = 1000;

/// How often another free port is tried when the one found for the first address is taken on the second.
const FREE_PORT_ATTEMPTS: u32 = 8;

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    config: usize,
    protocol: Protocol,
}

/// What `Listener::accept` found.
#[derive(Debug)]
pub enum Accept {
    /// A connection, ready to be registered, and its other end.
    Peer(Transport, SocketAddr),
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
    Peer(SocketAddr),
    /// None waits any more.
    WouldBlock,
    /// Some may wait, and even the reserve did not help: try again a little later, for no event will come.
    Later,
}

/// Why listening failed. Its text is the one line that the user reads.
#[derive(Debug)]
pub enum OpenError {
    /// The name of a listener could not be resolved.
    Lookup {
        host: String,
        error: io::Error,
    },
    /// Somebody else listens there.
    Busy {
        address: SocketAddr,
        holder: Option<Holder>,
    },
    Bind {
        address: SocketAddr,
        error: io::Error,
    },
}

/// Opens every socket of all listeners, or none.
pub fn open(configs: &[ListenerConfig]) -> Result<Vec<Listener>, OpenError> {
    let mut listeners = Vec::new();
    for (index, config) in configs.iter().enumerate() {
        let addresses = addresses(config)?;
        let mut sockets = bind_all(&addresses);
        for _ in 1..FREE_PORT_ATTEMPTS {
            match sockets {
                Err(OpenError::Busy { .. }) if config.port == 0 => sockets = bind_all(&addresses),
                _ => break,
            }
        }
        let protocol = config.protocol;
        listeners.extend(sockets?.into_iter().map(|(socket, address)| Listener {
            socket,
            address,
            config: index,
            protocol,
        }));
    }
    Ok(listeners)
}

/// The addresses of a listener, IPv4 first: a free port is then looked for where most programs have theirs.
fn addresses(config: &ListenerConfig) -> Result<Vec<SocketAddr>, OpenError> {
    let both = |v4: Ipv4Addr, v6: Ipv6Addr| vec![(v4, config.port).into(), (v6, config.port).into()];
    match &config.host {
        Host::All => Ok(both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)),
        Host::Loopback => Ok(both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)),
        Host::Unix(_) => Ok(Vec::new()),
        Host::Named(host) => match (host.as_str(), config.port).to_socket_addrs() {
            Ok(found) => {
                let (mut v4, v6): (Vec<SocketAddr>, Vec<_>) = found.partition(SocketAddr::is_ipv4);
                v4.extend(v6);
                Ok(v4)
            }
            Err(error) => Err(OpenError::Lookup { host: host.clone(), error }),
        },
    }
}

/// Binds all addresses of one listener; with port 0 the others get the port that the first one found. An address
/// this machine does not have (it may lack IPv6) is passed over if another one is there.
fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<(TcpListener, SocketAddr)>, OpenError> {
    let mut sockets = Vec::new();
    let mut absent = Vec::new();
    let mut free_port = None;
    for &asked in addresses {
        let mut address = asked;
        address.set_port(free_port.unwrap_or(asked.port()));
        match bind(address) {
            Ok((socket, bound)) => {
                free_port = Some(bound.port());
                sockets.push((socket, bound));
            }
            Err(error) if is_absent(&error) => absent.push((address, error)),
            Err(error) => return Err(OpenError::new(address, error)),
        }
    }
    if sockets.is_empty()
        && let Some((address, error)) = absent.pop()
    {
        return Err(OpenError::new(address, error));
    }
    for (address, _) in absent {
        debug!("Not listening on {}: this machine does not have it.", address.ip());
    }
    Ok(sockets)
}

/// The address, or its whole family, does not exist on this machine.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// A listening socket on exactly this address, and the address with its port filled in. The standard library's own
/// way has no place for IPV6_V6ONLY, which must be set before the socket is bound.
fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket takes no pointers.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // A restarted broker must not wait until the connections of its predecessor are forgotten.
    switch_on(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    if address.is_ipv6() {
        switch_on(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    bind_socket(&socket, address)?;
    // SAFETY: listen takes no pointers.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = std::net::TcpListener::from(socket);
    let bound = socket.local_addr()?;
    Ok((TcpListener::from_std(socket), bound))
}

fn switch_on(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = mem::size_of_val(&on) as libc::socklen_t;
    // SAFETY: setsockopt reads `size` bytes from `on`, which is exactly that large.
    if unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn bind_socket(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let result = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: sockaddr_in is plain data for which all zeros is a valid value.
            let mut raw: libc::sockaddr_in = unsafe { mem::zeroed() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            let size = mem::size_of_val(&raw) as libc::socklen_t;
            // SAFETY: bind reads `size` bytes from `raw`, which is exactly that large.
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size) }
        }
        SocketAddr::V6(v6) => {
            // SAFETY: sockaddr_in6 is plain data for which all zeros is a valid value.
            let mut raw: libc::sockaddr_in6 = unsafe { mem::zeroed() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_flowinfo = v6.flowinfo();
            raw.sin6_scope_id = v6.scope_id();
            let size = mem::size_of_val(&raw) as libc::socklen_t;
            // SAFETY: as above.
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size) }
        }
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Listener {
    /// The address it is bound to; the port is never 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which of the configurations given to `open` it serves.
    pub fn config(&self) -> usize {
        self.config
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Takes the next waiting connection. Errors that concern that connection alone are passed over.
    pub fn accept(&self) -> Accept {
        for _ in 0..PASSED_OVER_MAX {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    let transport = match self.protocol {
                        Protocol::Mqtt => Transport::tcp(stream),
                        Protocol::WebSockets => Transport::websocket(stream),
                    };
                    return Accept::Peer(transport, peer);
                }
                Err(error) => match error.raw_os_error().unwrap_or(0) {
                    libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => return Accept::OutOfDescriptors,
                    code if is_transient(code) => {}
                    _ if error.kind() == io::ErrorKind::WouldBlock => return Accept::WouldBlock,
                    _ => return Accept::Failed(error),
                },
            }
        }
        Accept::Failed(io::Error::other("one connection after the other fails before it is accepted"))
    }

    /// Closes the next waiting connection at once, with the descriptor that `reserve` keeps back.
    pub fn refuse(&self, reserve: &mut Reserve) -> Refusal {
        reserve.release();
        let refusal = match self.accept() {
            Accept::Peer(transport, peer) => {
                drop(transport);
                Refusal::Peer(peer)
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

impl Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.socket.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.socket.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }
}

impl OpenError {
    fn new(address: SocketAddr, error: io::Error) -> OpenError {
        match error.kind() {
            io::ErrorKind::AddrInUse => OpenError::Busy { address, holder: port_holder(address) },
            _ => OpenError::Bind { address, error },
        }
    }
}

/// Begins with Mosquitto's text, which is the system's, so that what looks for it in logs keeps finding it.
impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Lookup { host, error } => write!(f, "Cannot resolve the listener's host {host}: {error}."),
            OpenError::Busy { address, holder } => {
                write!(f, "Address already in use: {} port {} is held by ", address.ip(), address.port())?;
                match holder {
                    Some(holder) if holder.pid == std::process::id() => f.write_str("another listener of this broker."),
                    Some(holder) => write!(f, "{} (pid {}).", holder.name, holder.pid),
                    None => f.write_str("a process that only root may see."),
                }
            }
            OpenError::Bind { address, error } => {
                let (text, advice) = match error.kind() {
                    io::ErrorKind::AddrNotAvailable => ("Cannot assign requested address", "no interface has it"),
                    io::ErrorKind::PermissionDenied => ("Permission denied", "ports below 1024 are root's"),
                    _ => return write!(f, "Cannot listen on {} port {}: {error}.", address.ip(), address.port()),
                };
                write!(f, "{text}: {} port {} ({advice}).", address.ip(), address.port())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::fs::File;
    use std::io::Read;
    use std::net::TcpStream;
    use std::process::Command;

    fn config(port: u16, host: Host) -> ListenerConfig {
        ListenerConfig::new(port, host)
    }

    fn named(port: u16, host: &str) -> ListenerConfig {
        config(port, Host::Named(host.to_string()))
    }

    fn has_ipv6() -> bool {
        std::net::TcpListener::bind("[::1]:0").is_ok()
    }

    #[test]
    fn both_families_share_a_free_port() {
        for host in [Host::Loopback, Host::All] {
            let listeners = open(&[config(0, host.clone()), config(0, host)]).unwrap();
            let per_config = if has_ipv6() { 2 } else { 1 };
            assert_eq!(listeners.len(), 2 * per_config);
            for (index, listener) in listeners.iter().enumerate() {
                let first = &listeners[listener.config() * per_config];
                assert_eq!(listener.config(), index / per_config);
                assert_eq!(listener.address().port(), first.address().port());
                assert_eq!(listener.address().is_ipv4(), index % per_config == 0);
            }
            assert_ne!(listeners[0].address().port(), listeners[per_config].address().port());
        }
    }

    #[test]
    fn an_absent_address_is_passed_over_if_another_is_there() {
        // An address for documentation: no machine has it.
        let [absent, present] = ["203.0.113.1:0", "127.0.0.1:0"].map(|text| text.parse().unwrap());
        assert_eq!(bind_all(&[absent, present]).unwrap().len(), 1);
        assert!(matches!(bind_all(&[absent]), Err(OpenError::Bind { .. })));
        assert!(is_absent(&io::Error::from_raw_os_error(libc::EAFNOSUPPORT)));
        assert_eq!(
            open(&[named(1883, "203.0.113.1")]).unwrap_err().to_string(),
            "Cannot assign requested address: 203.0.113.1 port 1883 (no interface has it)."
        );
    }

    #[test]
    fn a_busy_port_is_told_with_its_holder() {
        let first = open(&[named(0, "127.0.0.1")]).unwrap();
        let port = first[0].address().port();
        let error = open(&[named(port, "127.0.0.1")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Address already in use: 127.0.0.1 port {port} is held by another listener of this broker.")
        );
        let holder = Some(Holder { pid: 1, name: "init".to_string() });
        let busy = OpenError::Busy { address: first[0].address(), holder };
        assert!(busy.to_string().ends_with("is held by init (pid 1)."));
    }

    #[test]
    fn connections_are_accepted_until_none_waits() {
        let listener = open(&[named(0, "127.0.0.1")]).unwrap().remove(0);
        assert!(matches!(listener.accept(), Accept::WouldBlock));
        let clients = [(); 2].map(|()| TcpStream::connect(listener.address()).unwrap());
        for client in clients {
            let Accept::Peer(_, peer) = listener.accept() else { panic!("nobody came") };
            assert_eq!(peer, client.local_addr().unwrap());
        }
        assert!(matches!(listener.accept(), Accept::WouldBlock));
    }

    #[test]
    fn a_restart_does_not_wait_for_old_connections() {
        let listener = open(&[named(0, "127.0.0.1")]).unwrap().remove(0);
        let address = listener.address();
        let client = TcpStream::connect(address).unwrap();
        // The side that closes first is the one whose port the kernel keeps for a while.
        drop(listener.accept());
        drop((listener, client));
        open(&[named(address.port(), "127.0.0.1")]).unwrap();
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
        let listener = open(&[named(0, "127.0.0.1")]).unwrap().remove(0);
        let mut reserve = Reserve::new();
        let mut clients = [(); 2].map(|()| TcpStream::connect(listener.address()).unwrap());
        let few = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: setrlimit reads one rlimit, and `few` outlives the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &few) }, 0);
        let mut all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();

        assert!(matches!(listener.accept(), Accept::OutOfDescriptors));
        for client in &mut clients {
            assert_eq!(listener.refuse(&mut reserve), Refusal::Peer(client.local_addr().unwrap()));
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(listener.refuse(&mut reserve), Refusal::WouldBlock);
        assert!(File::open("/dev/null").is_err(), "the reserve is held again");
        all.pop();
        assert!(matches!(listener.accept(), Accept::WouldBlock));
    }
}
