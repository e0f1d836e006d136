//! The time of day where the machine stands, as text.

use std::ffi::CStr;
use std::mem;

/// What a formatted time may take.
const TEXT_MAX: usize = 256;

/// Appends the moment, in seconds since 1970, as strftime's `format` says, in local time; false, and nothing appended, if that
/// comes to nothing or to more than 256 bytes. strftime is the system's own: it alone knows all that a Mosquitto
/// configuration may ask for, and the machine's time zone.
pub fn append_local_time(seconds: u64, format: &CStr, text: &mut String) -> bool {
    // Where times have 32 bits, those after 2038 stand still.
    #[allow(deprecated, clippy::useless_conversion)]
    let time: libc::time_t = seconds.try_into().unwrap_or(libc::time_t::MAX);
    let mut bytes = [0u8; TEXT_MAX];
    // SAFETY: tm is plain data for which all zeros is a valid value. localtime_r writes one tm, ours, or returns null, and is
    // asked by one thread at a time or not, as it likes; nobody changes TZ. strftime reads that tm and a string that ends
    // with NUL, and writes at most as many bytes as it is told.
    let len = unsafe {
        let mut parts: libc::tm = mem::zeroed();
        if libc::localtime_r(&time, &mut parts).is_null() {
            return false;
        }
        libc::strftime(bytes.as_mut_ptr().cast(), TEXT_MAX, format.as_ptr(), &parts)
    };
    text.push_str(&String::from_utf8_lossy(&bytes[..len.min(TEXT_MAX)]));
    len > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_asked() {
        let mut text = String::from("at ");
        // Noon in London is the same day almost everywhere, and the same year everywhere.
        assert!(append_local_time(1_600_000_000, c"%Y", &mut text));
        assert_eq!(text, "at 2020");
        assert!(append_local_time(0, c"100%%", &mut text));
        assert_eq!(text, "at 2020100%");
    }

    #[test]
    fn nothing_and_too_much_are_told() {
        let mut text = String::new();
        assert!(!append_local_time(0, c"", &mut text));
        let long = std::ffi::CString::new("%Y-".repeat(100)).unwrap();
        assert!(!append_local_time(0, &long, &mut text));
        assert_eq!(text, "");
    }
}
