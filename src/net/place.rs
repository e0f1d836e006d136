//! Where a socket listens: an address and port, or a path.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// Whether a socket here keeps one from being bound there. All addresses contain each.
    pub fn conflicts(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Tcp(one), Place::Tcp(other)) => {
                one.port() == other.port()
                    && one.is_ipv4() == other.is_ipv4()
                    && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
            }
            (Place::Unix(one), Place::Unix(other)) => one == other,
            _ => false,
        }
    }
}

/// As in `is held by` and `accepting connections on`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => write!(f, "{} port {}", address.ip(), address.port()),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Who connected. What comes through a Unix socket has no address: it goes by its process and user, which the kernel vouches
/// for. Both are as the broker's own namespace sees them; a process of another one has number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Tcp(SocketAddr),
    Unix { pid: u32, uid: u32 },
}

/// Without the port, as in lines about those who are turned away.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Tcp(address) => IpAddr::fmt(&address.ip().to_canonical(), f),
            Caller::Unix { pid, uid } => write!(f, "pid {pid} uid {uid}"),
        }
    }
}
