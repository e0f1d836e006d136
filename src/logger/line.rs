//! What a line may hold: names that peers made up end up in it, so one record is one line of bounded length, whatever they wrote.

use std::ffi::CStr;
use std::fmt::{self, Write};

use crate::os::append_local_time;

/// Bytes of a line without its end, as in Mosquitto. A client id alone may have 65535.
pub const LINE_BYTES_MAX: usize = 1000;

/// Appends to a text what fits in one line; control characters, an end of line above all, become question marks.
pub struct Line<'a>(pub &'a mut String);

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.0.len() + letter.len_utf8() > LINE_BYTES_MAX {
                // Nothing that follows is written either, though it may be shorter; and writing it costs nothing more.
                return Err(fmt::Error);
            }
            self.0.push(if letter.is_control() { '?' } else { letter });
        }
        Ok(())
    }
}

/// At most so many bytes of a text, and whole characters.
pub fn beginning(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// How lines begin.
pub enum Timestamp {
    None,
    /// Decimal seconds since 1970.
    Seconds,
    /// As of strftime, in local time.
    Local(Box<CStr>),
}

impl Timestamp {
    /// Appends the time and what stands between it and the text.
    pub fn append(&self, seconds: u64, line: &mut String) {
        let mut line = Line(line);
        // What does not fit is left out.
        let _ = match self {
            Timestamp::None => Ok(()),
            Timestamp::Seconds => write!(line, "{seconds}: "),
            Timestamp::Local(format) => {
                let mut time = String::new();
                if !append_local_time(seconds, format, &mut time) {
                    time.push_str("Time error");
                }
                write!(line, "{time}: ")
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let mut out = String::new();
        let _ = Line(&mut out).write_fmt(format_args!("{text}{}", '.'));
        out
    }

    #[test]
    fn a_client_id_cannot_forge_a_line() {
        assert_eq!(line("id\n0: New client connected\r\x1b[2J\x7f"), "id?0: New client connected??[2J?.");
        assert_eq!(line("\n"), "?.");
        assert_eq!(line("\u{9b}2J höhe"), "?2J höhe.");
    }

    #[test]
    fn a_line_is_bounded_and_ends_with_a_whole_character() {
        assert_eq!(line(&"x".repeat(70_000)).len(), LINE_BYTES_MAX);
        assert_eq!(line(&"x".repeat(LINE_BYTES_MAX)).len(), LINE_BYTES_MAX);
        assert_eq!(line(&format!("x{}", "ö".repeat(600))).len(), LINE_BYTES_MAX - 1);
        assert_eq!(beginning("höhe", 2), "h");
    }

    #[test]
    fn times_are_seconds_or_as_asked_or_none() {
        let begin = |timestamp: Timestamp| {
            let mut line = String::new();
            timestamp.append(1_600_000_000, &mut line);
            line
        };
        assert_eq!(begin(Timestamp::None), "");
        assert_eq!(begin(Timestamp::Seconds), "1600000000: ");
        assert_eq!(begin(Timestamp::Local(c"%Y\t".into())), "2020?: ");
        assert_eq!(begin(Timestamp::Local(c"".into())), "Time error: ");
    }
}
