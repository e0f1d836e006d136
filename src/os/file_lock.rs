//! A lock on a file that names who holds it. The kernel drops it with the process, however that ends.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

/// Locks the whole of `file`, which must be open for writing, for this process. If another process has it, its id.
/// The lock goes when this process closes any descriptor of the file.
pub fn lock_file(file: &File) -> io::Result<Option<u32>> {
    loop {
        let mut lock = whole_file();
        // SAFETY: the descriptor is open for the call, and the kernel reads one flock, which is ours.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw mut lock) } == 0 {
            return Ok(None);
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES | libc::EINTR)) {
            return Err(error);
        }
        lock = whole_file();
        // SAFETY: as above; the kernel writes who holds the lock into the same flock.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Given up between the two calls: try again.
        if lock.l_type != libc::F_UNLCK as libc::c_short {
            return Ok(Some(lock.l_pid as u32));
        }
    }
}

fn whole_file() -> libc::flock {
    // SAFETY: flock is plain data for which all zeros is a valid value: the whole file.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That another process is refused is tested with two processes in tests/journal.
    #[test]
    fn a_free_file_is_locked_and_one_for_reading_is_an_error() {
        let path = std::env::temp_dir().join(format!("midge-lock-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        assert_eq!(lock_file(&file).unwrap(), None);
        drop(file);
        assert!(lock_file(&File::open(&path).unwrap()).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
