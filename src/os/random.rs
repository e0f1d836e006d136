//! The system's randomness.

use std::fs::File;
use std::io::{self, Read};

/// Fills `bytes` with what nobody can guess.
///
/// # Errors
/// When the system has none to give.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the kernel writes at most the length of `rest` to where `rest` is.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => filled += count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // Linux before 3.17, as on old routers, has the device alone.
                error if error.raw_os_error() == Some(libc::ENOSYS) => {
                    return File::open("/dev/urandom")?.read_exact(rest);
                }
                error => return Err(error),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_others_each_time() {
        let mut last = [0; 1000];
        for _ in 0..3 {
            let mut next = [0; 1000];
            random(&mut next).unwrap();
            let equal = last.iter().zip(&next).filter(|(one, other)| one == other).count();
            // Four are to be expected, and fifty do not happen.
            assert!(equal < 50, "{equal}");
            last = next;
        }
        random(&mut []).unwrap();
    }
}
