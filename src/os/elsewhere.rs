//! A question that is answered in a process of its own: what answering it loads and allocates ends with that process.

use std::io::{self, Read, Write};

/// What `answer` says, in a new process. To be called while there is one thread.
///
/// # Errors
/// When the system has no process or no pipe to spare, or the process ended without an answer.
pub fn ask_elsewhere(answer: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = io::pipe()?;
    // SAFETY: with one thread, the new process is as good as the old one.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            let code = if writer.write_all(&answer()).is_ok() { 0 } else { 1 };
            // SAFETY: it ends the process at once, and leaves everything that is shared to the parent.
            unsafe { libc::_exit(code) }
        }
        child => {
            drop(writer);
            let mut said = Vec::new();
            let read = reader.read_to_end(&mut said);
            let mut status = 0;
            // SAFETY: the kernel writes one number, which is ours.
            while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            read?;
            if status == 0 { Ok(said) } else { Err(io::Error::other("the process that was asked came to nothing")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The answers allocate nothing, for the tests have many threads.

    #[test]
    fn what_is_said_comes_back_and_what_is_done_does_not() {
        let mut is_done = false;
        let said = ask_elsewhere(|| {
            is_done = true;
            Vec::new()
        });
        assert_eq!(said.unwrap(), []);
        assert!(!is_done);
    }

    #[test]
    fn a_process_without_an_answer_is_an_error() {
        // SAFETY: it ends the process.
        let said = ask_elsewhere(|| unsafe { libc::_exit(3) });
        assert_eq!(said.unwrap_err().to_string(), "the process that was asked came to nothing");
    }
}
