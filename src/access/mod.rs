//! Who may log in, and who may read and write which topic: Mosquitto's password file and access control file. Pure: bytes
//! in, answers out; no file, no clock, no randomness, and nothing of packets or sessions.
//!
//! Bounded by what is read: a file of at most [`FILE_BYTES_MAX`] bytes, [`passwords::USERS_MAX`] users and
//! [`acl::NODES_MAX`] levels. What grows with what clients ask is in [`gatekeeper`], bounded by [`gatekeeper::LOGINS_MAX`] and
//! [`gatekeeper::ADDRESSES_MAX`].

pub mod acl;
pub mod edit;
pub mod gatekeeper;
mod levels;
pub mod passwords;
mod spelling;

use std::fmt;

/// Bytes of a password or access control file. 8 MiB: a hundred thousand rules of eighty bytes; on the boxes this is for, a
/// longer one is not the file that was meant.
pub const FILE_BYTES_MAX: usize = 8 << 20;

/// Faults told of one file. Twenty lines fill a screen; a file of another kind has one for each line.
pub const FAULTS_MAX: usize = 20;

/// What is wrong with a line of a file: a sentence, never a password or a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: u32,
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// The first [`FAULTS_MAX`] faults, and how many more there were.
#[derive(Default)]
struct Faults {
    told: Vec<Fault>,
    untold: u32,
    untold_line: u32,
}

impl Faults {
    fn push(&mut self, line: u32, text: impl Into<String>) {
        if self.told.len() < FAULTS_MAX {
            self.told.push(Fault { line, text: text.into() });
        } else {
            self.untold += 1;
            self.untold_line = line;
        }
    }

    fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// In the order of the lines.
    fn finish(mut self) -> Vec<Fault> {
        self.told.sort_by_key(|fault| fault.line);
        if self.untold > 0 {
            let text = format!("the last of {} more lines like these", self.untold);
            self.told.push(Fault { line: self.untold_line, text });
        }
        self.told
    }
}

/// The lines of a file with their numbers, less comments. A `#` makes a comment in the very first column only.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let lines = bytes.split(|&byte| byte == b'\n').zip(1..);
    lines.map(|(line, number)| (number, line)).filter(|(_, line)| line.first() != Some(&b'#'))
}

/// Without white space, as C's `isspace` has it, at both ends.
fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let from = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let to = text.iter().rposition(|byte| !is_space(byte)).map_or(from, |last| last + 1);
    &text[from..to]
}

/// A name or filter for a sentence: in quotes, on one line, and not long.
fn quoted(text: &[u8]) -> String {
    const CHARS_MAX: usize = 60;
    let text = String::from_utf8_lossy(text);
    let mut out: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        out.push_str("...");
    }
    format!("\"{out}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_kind_has_twenty_faults_and_a_count() {
        let mut faults = Faults::default();
        for line in (1..=100).rev() {
            faults.push(line, "no");
        }
        let told = faults.finish();
        assert_eq!((told.len(), told[0].line, told[19].line), (21, 81, 100));
        assert_eq!(told[20].to_string(), "line 1: the last of 80 more lines like these");
    }

    #[test]
    fn what_is_quoted_is_short_and_on_one_line() {
        assert_eq!(quoted(b"a\n\"b"), r#""a\n\"b""#);
        assert_eq!(quoted(&[0xFF, b'x']), "\"\u{FFFD}x\"");
        assert_eq!(quoted("é".repeat(1000).as_bytes()).chars().count(), 65);
    }
}
