//! Which rights files of this process never have.

use std::env;
use std::fmt;

/// `UMASK_SET` is not a mask.
#[derive(Debug, PartialEq, Eq)]
pub struct UmaskError(String);

impl fmt::Display for UmaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UMASK_SET: {:?} is not an octal number up to 777.", self.0)
    }
}

/// Sets what the environment's `UMASK_SET` says, if it says anything.
///
/// # Errors
/// When that is not an octal number of rights.
pub fn set_umask() -> Result<(), UmaskError> {
    let Some(text) = env::var_os("UMASK_SET") else { return Ok(()) };
    let mask = parse(&text.to_string_lossy())?;
    // SAFETY: it takes any number and cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) };
    Ok(())
}

fn parse(text: &str) -> Result<u16, UmaskError> {
    let error = || UmaskError(text.to_string());
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error());
    }
    u16::from_str_radix(text, 8).ok().filter(|&mask| mask <= 0o777).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_an_octal_number() {
        for (text, mask) in [("0", 0), ("022", 0o22), ("0077", 0o77), ("777", 0o777)] {
            assert_eq!(parse(text), Ok(mask));
        }
        for text in ["", "8", "1000", "-1", "+7", "0x7", "7 ", "rw"] {
            assert_eq!(parse(text), Err(UmaskError(text.to_string())));
        }
        assert_eq!(parse("9").unwrap_err().to_string(), "UMASK_SET: \"9\" is not an octal number up to 777.");
    }
}
