//! Making listening sockets by hand: the standard library's own way has no place for what must be set before a socket is bound,
//! nor for what a Unix socket's file needs before somebody may connect.

use std::ffi::CString;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::OpenError;
use super::place::Place;
use crate::os::{Holder, Owner};

/// Connections the kernel keeps until they are accepted: a site's devices that all come back after a power cut. The
/// kernel lowers it to net.core.somaxconn.
const BACKLOG: libc::c_int = 1024;
/// What `socket_mode` may say.
const MODE_MASK: u32 = 0o7777;

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

/// Makes a socket another user's, as far as the system allows it. `share` looks at that.
pub fn give_to(socket: &impl AsRawFd, user: u32, group: u32) {
    // SAFETY: numbers only.
    let _ = unsafe { libc::fchown(socket.as_raw_fd(), user, group) };
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

    /// Gives it another owner and mode; dropped without `keep`, the change is taken back.
    ///
    /// # Errors
    /// When the system does not allow all of it: then nothing is changed.
    pub fn change(&self, owner: Option<Owner>, mode: Option<u32>) -> io::Result<FileChange> {
        let (file, found) = open_file(&self.path)?;
        if (found.dev(), found.ino()) != (self.device, self.inode) {
            return Err(io::Error::other("another file is in its place"));
        }
        let change =
            FileChange { file, user: found.uid(), group: found.gid(), mode: found.mode() & MODE_MASK, is_kept: false };
        settle(&change.file, &found, owner, mode)?;
        Ok(change)
    }
}

/// A socket's file that was changed, as long as that may have to be taken back.
#[derive(Debug)]
pub struct FileChange {
    file: File,
    user: libc::uid_t,
    group: libc::gid_t,
    mode: u32,
    is_kept: bool,
}

impl FileChange {
    /// It stays changed.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for FileChange {
    fn drop(&mut self) {
        if !self.is_kept
            && let Ok(now) = self.file.metadata()
        {
            let owner = Owner { user: self.user, group: Some(self.group) };
            // Who was allowed to change it is allowed this.
            let _ = settle(&self.file, &now, Some(owner), Some(self.mode));
        }
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
    // The file is made with the rights of the socket, less those that umask takes: it never has others.
    if let Some(mode) = mode
        // SAFETY: numbers only.
        && unsafe { libc::fchmod(socket.as_raw_fd(), mode as libc::mode_t) } != 0
    {
        return Err(failed(io::Error::last_os_error()));
    }
    let size = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: it takes any number and cannot fail. Whatever another thread may make meanwhile says itself who may read it.
    let umask = mode.map(|_| unsafe { libc::umask(0) });
    // SAFETY: bind reads `size` bytes from `address`, which is exactly that large.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    let error = io::Error::last_os_error();
    if let Some(umask) = umask {
        // SAFETY: as above.
        unsafe { libc::umask(umask) };
    }
    if result != 0 {
        return Err(failed(error));
    }
    let (made, found) = open_file(path).map_err(failed)?;
    let file = SocketFile { path: path.to_path_buf(), device: found.dev(), inode: found.ino() };
    // SAFETY: no preconditions; it cannot fail.
    let own = unsafe { libc::geteuid() };
    // Whoever may write in the directory may have put something else there meanwhile.
    let is_own = found.file_type().is_socket() && found.uid() == own && found.nlink() == 1;
    if (owner.is_some() || mode.is_some()) && !is_own {
        return Err(failed(io::Error::other("another file is in its place")));
    }
    settle(&made, &found, owner, mode).map_err(failed)?;
    listen(&socket).map_err(failed)?;
    Ok((socket, file))
}

/// The file itself at this path, opened for nothing but to be looked at and changed: no link leads elsewhere from here on.
fn open_file(path: &Path) -> io::Result<(File, Metadata)> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // Not with OpenOptions: where the C library is musl, it takes O_PATH for a part of the access mode, and drops it.
    // SAFETY: the name ends with a zero, and outlives the call.
    let descriptor = unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and nobody else owns it.
    let file = unsafe { File::from_raw_fd(descriptor) };
    let found = file.metadata()?;
    Ok((file, found))
}

/// Gives a socket's file its owner and mode, as far as it does not have them.
fn settle(file: &File, found: &Metadata, owner: Option<Owner>, mode: Option<u32>) -> io::Result<()> {
    let explained = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    if let Some(owner) = owner
        && (owner.user != found.uid() || owner.group.is_some_and(|group| group != found.gid()))
    {
        // All bits set changes nothing.
        let group = owner.group.unwrap_or(libc::gid_t::MAX);
        // SAFETY: the path is empty and ends with a zero; the rest are numbers.
        let result = unsafe { libc::fchownat(file.as_raw_fd(), c"".as_ptr(), owner.user, group, libc::AT_EMPTY_PATH) };
        if result != 0 {
            return Err(explained("it cannot be given to its owner", io::Error::last_os_error()));
        }
    }
    if let Some(mode) = mode
        && mode != found.mode() & MODE_MASK
    {
        // There is no older call that changes the mode of what is open in this way.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|error| explained("its mode cannot be changed", error))?;
    }
    Ok(())
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
/// Nothing if it is not open, or does not listen: then it is left as it is.
///
/// # Safety
/// Nobody else in this process owns the descriptor.
pub unsafe fn adopt(number: libc::c_int) -> Option<OwnedFd> {
    // Asking is no use of it: a number that is no descriptor fails, and nothing else.
    if !option(&number, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).is_ok_and(|listens| listens == 1) {
        return None;
    }
    // SAFETY: it is open, and the caller says that nobody owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: fcntl with this takes no pointers.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
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
