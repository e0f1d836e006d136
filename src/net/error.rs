//! Why a listener does not listen. The text of each is what the user reads; which of them may pass is known here alone.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use log::Level;

use super::place::Place;
use crate::config::Domain;
use crate::os::{Holder, port_holder};

#[derive(Debug)]
pub enum OpenError {
    /// The name of a listener could not be resolved, or, without an error, not yet.
    Lookup {
        host: String,
        error: Option<io::Error>,
    },
    /// Somebody else listens there.
    Busy {
        place: Place,
        holder: Option<Holder>,
    },
    Bind {
        address: SocketAddr,
        error: io::Error,
    },
    Unix {
        path: PathBuf,
        error: io::Error,
    },
    /// What a Unix socket's file would replace is something else.
    NotASocket {
        path: PathBuf,
    },
    /// No interface can be called this.
    InterfaceName {
        interface: String,
    },
    NoInterface {
        interface: String,
    },
    /// The interface has no address that the listener could be bound to.
    InterfaceLacks {
        interface: String,
        host: Option<String>,
        domain: Option<Domain>,
    },
    /// The address is another interface's.
    Elsewhere {
        ip: IpAddr,
        owner: String,
        interface: String,
    },
    /// The host has no address of the one family that is served.
    Domain {
        host: String,
        domain: Domain,
    },
    /// The system does not say what addresses there are.
    Interfaces(io::Error),
}

impl OpenError {
    pub(super) fn bind(address: SocketAddr, error: io::Error) -> OpenError {
        match error.kind() {
            io::ErrorKind::AddrInUse => OpenError::Busy { place: Place::Tcp(address), holder: port_holder(address) },
            _ => OpenError::Bind { address, error },
        }
    }

    /// What is not there may come: at boot the network often is later than the broker.
    pub fn may_pass(&self) -> bool {
        match self {
            OpenError::Lookup { .. } | OpenError::NoInterface { .. } | OpenError::InterfaceLacks { .. } => true,
            OpenError::Bind { error, .. } => error.raw_os_error() == Some(libc::EADDRNOTAVAIL),
            _ => false,
        }
    }

    /// How much it matters to a listener that is served, or not, at other addresses.
    pub(super) fn weight(&self, is_served: bool) -> Level {
        match self {
            _ if is_served && self.is_absence() => Level::Debug,
            _ if self.may_pass() => Level::Warn,
            _ => Level::Error,
        }
    }

    /// The address, or its whole family, does not exist on this machine.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            OpenError::Bind { error, .. } => {
                matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
            }
            _ => false,
        }
    }
}

fn family(domain: Domain) -> &'static str {
    match domain {
        Domain::Ipv4 => "IPv4",
        Domain::Ipv6 => "IPv6",
    }
}

/// Begins with Mosquitto's text, which is the system's, so that what looks for it in logs keeps finding it.
impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Lookup { host, error: Some(error) } => {
                write!(f, "Cannot resolve the listener's host {host}: {error}.")
            }
            OpenError::Lookup { host, error: None } => {
                write!(f, "Cannot resolve the listener's host {host}: there is no answer so far.")
            }
            OpenError::Busy { place, holder } => {
                write!(f, "Address already in use: {place} is held by ")?;
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
            OpenError::Unix { path, error } => write!(f, "Cannot listen on {}: {error}.", path.display()),
            OpenError::NotASocket { path } => {
                write!(f, "Cannot listen on {}: a file that is no socket is there, and is left alone.", path.display())
            }
            OpenError::InterfaceName { interface } => write!(f, "No interface can be called '{interface}'."),
            OpenError::NoInterface { interface } => write!(f, "There is no interface {interface}."),
            OpenError::InterfaceLacks { interface, host: Some(host), .. } => {
                write!(f, "The interface {interface} does not have the address {host}.")
            }
            OpenError::InterfaceLacks { interface, domain: Some(domain), .. } => {
                write!(f, "The interface {interface} has no {} address.", family(*domain))
            }
            OpenError::InterfaceLacks { interface, .. } => write!(f, "The interface {interface} has no address."),
            OpenError::Elsewhere { ip, owner, interface } => {
                write!(f, "The listener's address {ip} is of the interface {owner}, not of {interface}.")
            }
            OpenError::Domain { host, domain } => {
                write!(f, "The listener's host {host} has no {} address.", family(*domain))
            }
            OpenError::Interfaces(error) => write!(f, "The addresses of this machine cannot be read: {error}."),
        }
    }
}
