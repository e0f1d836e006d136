//! Into the background, in a way that a script can rely on: the command it started ends when the broker serves, with success,
//! or when it does not, with the broker's own exit code and with what it had to say on standard error.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;

/// The exit code when the process in the background was killed before it served.
const EXIT_FAILURE: libc::c_int = 1;

/// The process in the background, whose parent still waits to hear how the start ends.
#[derive(Debug)]
pub struct Daemon {
    parent: PipeWriter,
}

/// Goes on in a new process, which leads a session of its own; the calling one waits for it and never returns. To be called
/// while there is one thread, and before files are locked: locks are not handed down. The directory stays the same.
///
/// # Errors
/// When the system has no process or no pipe to spare; the caller is still the only one then.
pub fn daemonize() -> io::Result<Daemon> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: with one thread, the new process is as good as the old one.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            // SAFETY: no preconditions. It fails only for the leader of a group, which a new process is not.
            unsafe { libc::setsid() };
            Ok(Daemon { parent: writer })
        }
        child => {
            drop(writer);
            let code = outcome(reader, child);
            // SAFETY: it ends the process at once, and leaves everything that is shared to the child.
            unsafe { libc::_exit(code) }
        }
    }
}

/// How the start of the child ends: a byte says that it serves, the end of the pipe that it never will.
fn outcome(mut child_says: PipeReader, child: libc::pid_t) -> libc::c_int {
    if child_says.read_exact(&mut [0]).is_ok() {
        return 0;
    }
    let mut status = 0;
    // SAFETY: the kernel writes one number, which is ours.
    while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return EXIT_FAILURE;
        }
    }
    // An end that is no failure before the broker served is one all the same.
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status).max(1) } else { EXIT_FAILURE }
}

impl Daemon {
    /// The broker serves: the standard streams now lead nowhere, and the command that was started ends well.
    ///
    /// # Errors
    /// When there is no /dev/null. The streams stay what they are then, and the command does not end well.
    pub fn is_serving(mut self) -> io::Result<()> {
        let nowhere = File::options().read(true).write(true).open("/dev/null")?;
        for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            // SAFETY: both are descriptors, and nobody owns the standard ones.
            if unsafe { libc::dup2(nowhere.as_raw_fd(), stream) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // A parent that was killed does not want to know.
        let _ = self.parent.write_all(&[0]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `daemonize` makes of the process that calls it, and what the process in the background says.
    fn run(background: impl FnOnce(Daemon, &mut PipeWriter) -> libc::c_int) -> (libc::c_int, String) {
        let (mut reader, mut writer) = io::pipe().unwrap();
        // SAFETY: the new processes allocate nothing, take no lock and end at once.
        match unsafe { libc::fork() } {
            0 => {
                drop(reader);
                let code = daemonize().map_or(99, |daemon| background(daemon, &mut writer));
                // SAFETY: it ends the process at once.
                unsafe { libc::_exit(code) }
            }
            command => {
                drop(writer);
                let (mut said, mut status) = (String::new(), 0);
                reader.read_to_string(&mut said).unwrap();
                // SAFETY: the kernel writes one number, which is ours.
                assert_eq!(unsafe { libc::waitpid(command, &mut status, 0) }, command);
                assert!(libc::WIFEXITED(status));
                (libc::WEXITSTATUS(status), said)
            }
        }
    }

    #[test]
    fn the_command_ends_well_when_the_broker_serves() {
        let (code, said) = run(|daemon, out| {
            // SAFETY: no preconditions.
            let leads_session = unsafe { libc::getsid(0) == libc::getpid() };
            let _ = out.write_all(if leads_session { b"leads " } else { b"follows " });
            let is_quiet = daemon.is_serving().is_ok() && ends_nowhere(libc::STDERR_FILENO);
            let _ = out.write_all(if is_quiet { b"quiet" } else { b"loud" });
            7
        });
        assert_eq!((code, said.as_str()), (0, "leads quiet"));
    }

    #[test]
    fn the_command_fails_as_the_broker_does() {
        assert_eq!(run(|_, _| 3).0, 3);
        assert_eq!(run(|_, _| 0).0, 1);
        // SAFETY: it ends the process.
        assert_eq!(run(|_, _| unsafe { libc::raise(libc::SIGKILL) }).0, 1);
    }

    /// Whether the descriptor is the system's null device.
    fn ends_nowhere(descriptor: libc::c_int) -> bool {
        // SAFETY: stat is plain data for which all zeros is a valid value, and the kernel writes one, which is ours.
        unsafe {
            let (mut own, mut null): (libc::stat, libc::stat) = std::mem::zeroed();
            libc::fstat(descriptor, &mut own) == 0
                && libc::stat(c"/dev/null".as_ptr(), &mut null) == 0
                && own.st_rdev == null.st_rdev
        }
    }
}
