//! Making listening sockets by hand: the standard library's own way has no place for what must be set before a socket is bound,
//! nor for what a Unix socket's file needs before somebody may connect.

use std::fs;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::OpenError;
use super::place::Place;
use crate::os::{Holder, Owner};

/// Connections the kernel keeps until they are accepted: a site's devices that all come back after a power cut. The
/// kernel lowers it to net.core.somaxconn.
const BACKLOG: libc::c_int = 1024;

/// A listening socket on exactly this address, and the address with its port filled in. With `is_shared` it may take an address
/// over from sockets of this process that allow that, too.
pub fn tcp(address: SocketAddr, is_shared: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = stream_socket(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })?;
    // A restarted broker must not wait until the connections of its predecessor are forgotten.
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, true)?;
    if is_shared {
        share(&socket, true)?;
    }
    if address.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, true)?;
    }
    bind_tcp(&socket, address)?;
    listen(&socket)?;
    let socket = std::net::TcpListener::from(socket);
    let bound = socket.local_addr()?;
    Ok((socket.into(), bound))
}

/// Whether other sockets of the same user may be bound to this one's address, if they allow it, too.
pub fn share(socket: &impl AsRawFd, is_shared: bool) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, is_shared)
}

/// The file of a Unix socket that this process made; removed with it, unless somebody put another one in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The path still leads to the socket.
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            // A directory that is not ours any more keeps it; the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listening Unix socket. Nobody can connect before its file has its owner and mode. What a dead broker left is replaced.
pub fn unix(path: &Path, owner: Option<&str>, mode: Option<u32>) -> Result<(OwnedFd, SocketFile), OpenError> {
    let failed = |error| OpenError::Unix { path: path.to_path_buf(), error };
    let address = unix_address(path).map_err(failed)?;
    let owner = owner.map(Owner::parse).transpose().map_err(failed)?;
    make_way(path, &address)?;
    let socket = stream_socket(libc::AF_UNIX).map_err(failed)?;
    let size = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: bind reads `size` bytes from `address`, which is exactly that large.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    let made = fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile { path: path.to_path_buf(), device: made.dev(), inode: made.ino() };
    settle(path, owner, mode).map_err(failed)?;
    listen(&socket).map_err(failed)?;
    Ok((socket, file))
}

/// Gives a socket's file its owner and mode.
pub fn settle(path: &Path, owner: Option<Owner>, mode: Option<u32>) -> io::Result<()> {
    if let Some(owner) = owner {
        chown(path, Some(owner.user), owner.group)
            .map_err(|error| io::Error::new(error.kind(), format!("it cannot be given to its owner: {error}")))?;
    }
    match mode {
        Some(mode) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Removes the socket's file that a dead broker left, if there is one, and nothing else.
fn make_way(path: &Path, address: &libc::sockaddr_un) -> Result<(), OpenError> {
    let failed = |error| OpenError::Unix { path: path.to_path_buf(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(OpenError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    let probe = stream_socket(libc::AF_UNIX).map_err(failed)?;
    let size = mem::size_of_val(address) as libc::socklen_t;
    // SAFETY: connect reads `size` bytes from `address`, which is exactly that large.
    let result = unsafe { libc::connect(probe.as_raw_fd(), (&raw const *address).cast(), size) };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if result == 0 => {}
        // Nobody has the socket open any more.
        Some(libc::ECONNREFUSED) => return fs::remove_file(path).map_err(failed),
        Some(libc::ENOENT) => return Ok(()),
        // Too many wait for whoever listens; or it is a socket of another kind, and alive.
        Some(libc::EAGAIN | libc::EPROTOTYPE) => {}
        _ => return Err(failed(error)),
    }
    let holder = peer(&probe).ok().filter(|(pid, _)| *pid != 0).and_then(|(pid, _)| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Holder { pid, name: name.trim_end().to_string() })
    });
    Err(OpenError::Busy { place: Place::Unix(path.to_path_buf()), holder })
}

/// Process and user at the other end of a Unix socket.
pub fn peer(socket: &impl AsRawFd) -> io::Result<(u32, u32)> {
    // SAFETY: ucred is plain data for which all zeros is a valid value.
    let mut who: libc::ucred = unsafe { mem::zeroed() };
    let mut size = mem::size_of_val(&who) as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into `who`, which is exactly that large.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut who).cast(), &mut size)
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok((who.pid.unsigned_abs(), who.uid)) }
}

/// The value of an option that is a number.
pub fn option(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into `value`, which is exactly that large.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &mut size) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A descriptor that this process was given at its start, made one of its own: children do not get it, and it never blocks.
/// Nothing if it is not open.
///
/// # Safety
/// Nobody else in this process owns the descriptor.
pub unsafe fn adopt(number: libc::c_int) -> Option<OwnedFd> {
    // SAFETY: fcntl on a number that is no descriptor fails, and nothing else.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return None;
    }
    // SAFETY: it is open, and the caller says that nobody owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: fcntl with these takes no pointers.
    unsafe {
        let flags = libc::fcntl(number, libc::F_GETFL);
        libc::fcntl(number, libc::F_SETFL, flags | libc::O_NONBLOCK);
    }
    Some(socket)
}

fn stream_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointers.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn listen(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: listen takes no pointers.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, is_on: bool) -> io::Result<()> {
    let value = libc::c_int::from(is_on);
    let size = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: setsockopt reads `size` bytes from `value`, which is exactly that large.
    if unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn unix_address(path: &Path) -> io::Result<libc::sockaddr_un> {
    // SAFETY: sockaddr_un is plain data for which all zeros is a valid value.
    let mut raw: libc::sockaddr_un = unsafe { mem::zeroed() };
    raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // The last byte ends the path.
    if bytes.is_empty() || bytes.len() >= raw.sun_path.len() || bytes.contains(&0) {
        let max = raw.sun_path.len() - 1;
        return Err(io::Error::other(format!("a socket's path has 1 to {max} bytes")));
    }
    for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(raw)
}

fn bind_tcp(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
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
