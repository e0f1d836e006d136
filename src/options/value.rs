//! The kinds of values, how each is written, and how a written one gets into the draft. The rules are Mosquitto's.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::draft::Draft;
use crate::config::{Host, LogDestination, Persistence};

/// A kind of value and where it goes.
pub enum Value {
    /// No value: that the option is there says it all.
    Switch(fn(&mut Draft)),
    Bool(fn(&mut Draft, bool)),
    Number {
        unit: &'static str,
        min: u32,
        max: u32,
        zero: Zero,
        set: fn(&mut Draft, u32),
    },
    /// A number and a unit from a second to a year; 0 is what the word `never` sets.
    Span(fn(&mut Draft, u32)),
    /// One of these words; set by its place among them.
    Word {
        name: &'static str,
        words: &'static [&'static str],
        set: fn(&mut Draft, usize),
    },
    Text {
        name: &'static str,
        bytes_max: usize,
        set: fn(&mut Draft, &str),
    },
    /// Something with rules of its own.
    Other {
        name: &'static str,
        /// What may be written, to stand behind "expected".
        accepted: &'static str,
        /// Nothing if it is written wrongly.
        set: fn(&mut Draft, &str) -> Option<()>,
    },
}

/// What a number of 0 stands for.
pub enum Zero {
    /// Nothing else: it is a number like any other, and the range says whether it may be.
    Itself,
    /// This, whatever the range.
    Means(&'static str),
    /// This, and every negative number too.
    OrLessMeans(&'static str),
}

/// Seconds; a month is 30 days and a year 365.
const SPAN_UNITS: [(char, u32); 6] =
    [('s', 1), ('h', 3600), ('d', 86_400), ('w', 7 * 86_400), ('m', 30 * 86_400), ('y', 365 * 86_400)];

impl Value {
    /// Puts the value written as `text` into the draft; otherwise says what would have been accepted.
    pub fn apply(&self, draft: &mut Draft, text: &str) -> Result<(), String> {
        self.try_apply(draft, text).ok_or_else(|| self.accepted())
    }

    fn try_apply(&self, draft: &mut Draft, text: &str) -> Option<()> {
        match self {
            Value::Switch(set) => set(draft),
            Value::Bool(set) => set(draft, boolean(text)?),
            Value::Number { min, max, zero, set, .. } => set(draft, ranged(number(text)?, *min, *max, zero)?),
            Value::Span(set) => set(draft, span(text)?),
            Value::Word { words, set, .. } => set(draft, words.iter().position(|word| *word == text)?),
            Value::Text { bytes_max, set, .. } => {
                if text.is_empty() || text.len() > *bytes_max {
                    return None;
                }
                set(draft, text);
            }
            Value::Other { set, .. } => set(draft, text)?,
        }
        Some(())
    }

    /// What may be written, to stand behind "expected".
    pub fn accepted(&self) -> String {
        match self {
            Value::Switch(_) => "no value".to_string(),
            Value::Bool(_) => "true or false".to_string(),
            Value::Number { min, max, zero: Zero::Itself, .. } => format!("a number from {min} to {max}"),
            Value::Number { min, max, zero: Zero::Means(what), .. } => {
                format!("a number from {min} to {max}, or 0 for {what}")
            }
            Value::Number { min, max, zero: Zero::OrLessMeans(what), .. } => {
                format!("a number from {min} to {max}, or 0 or less for {what}")
            }
            Value::Span(_) => "never, or a number from 1 on and one of s h d w m y, such as 14d".to_string(),
            Value::Word { words, .. } => match words.split_last() {
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => String::new(),
            },
            Value::Text { bytes_max, .. } => format!("a text of 1 to {bytes_max} bytes"),
            Value::Other { accepted, .. } => accepted.to_string(),
        }
    }

    /// The part of the rest of a line in a file that is the value: of numbers and words the first word, so that something may
    /// stand behind it; of everything else all.
    pub fn of_line<'a>(&self, rest: &'a str) -> &'a str {
        match self {
            Value::Text { .. } | Value::Other { .. } => rest,
            _ => rest.split(' ').next().unwrap_or(rest),
        }
    }

    /// What a number of 0 stands for, if for something else.
    pub fn zero_means(&self) -> Option<&'static str> {
        match self {
            Value::Number { zero: Zero::Means(what) | Zero::OrLessMeans(what), .. } => Some(what),
            _ => None,
        }
    }

    /// What stands for the value in the help; empty if there is none.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Value::Switch(_) => "",
            Value::Bool(_) => "BOOL",
            Value::Number { unit, .. } => unit,
            Value::Span(_) => "SPAN",
            Value::Word { name, .. } | Value::Text { name, .. } | Value::Other { name, .. } => name,
        }
    }
}

/// always, never, or interval SECONDS
pub fn sync(text: &str) -> Option<Persistence> {
    match text.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        ["always"] => Some(Persistence::Always),
        ["never"] => Some(Persistence::Never),
        ["interval", seconds] => {
            seconds.parse().ok().filter(|seconds| (1..=3600).contains(seconds)).map(Persistence::Interval)
        }
        _ => None,
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Decimal, hexadecimal behind 0x, octal behind 0; nothing may follow.
fn number(text: &str) -> Option<i64> {
    let (digits, sign) = match text.strip_prefix('-') {
        Some(digits) => (digits, -1),
        None => (text, 1),
    };
    let (digits, radix) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (digits, 10),
    };
    // from_str_radix would take another sign.
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    Some(sign * i64::from_str_radix(digits, radix).ok()?)
}

fn ranged(number: i64, min: u32, max: u32, zero: &Zero) -> Option<u32> {
    let replaced = match zero {
        Zero::Itself => false,
        Zero::Means(_) => number == 0,
        Zero::OrLessMeans(_) => number <= 0,
    };
    if replaced {
        return Some(0);
    }
    u32::try_from(number).ok().filter(|number| (min..=max).contains(number))
}

fn span(text: &str) -> Option<u32> {
    if text == "never" {
        return Some(0);
    }
    let unit = text.chars().last()?;
    let (_, seconds) = SPAN_UNITS.into_iter().find(|(letter, _)| *letter == unit)?;
    let count: u32 = text[..text.len() - 1].parse().ok()?;
    if count == 0 { None } else { count.checked_mul(seconds) }
}

/// PORT [ADDRESS|HOST], or 0 and the path of a Unix socket
///
/// What stands behind a `#` is no part of it, as in Mosquitto.
pub fn listener(text: &str) -> Option<(u16, Host)> {
    let text = text.split(" #").next().unwrap_or(text);
    let (first, rest) = text.trim_matches(' ').split_once(' ').unwrap_or((text.trim_matches(' '), ""));
    let port = ranged(number(first)?, 0, 65_535, &Zero::Itself)?;
    let host = match rest.trim_matches(' ') {
        "" => Host::All,
        path if path.starts_with('/') && port == 0 => Host::Unix(path.into()),
        host if host.starts_with('/') || host.contains(' ') || !may_be_host(host) => return None,
        host => Host::Named(host.to_string()),
    };
    Some((u16::try_from(port).ok()?, host))
}

/// Whether it is an address, or no attempt at one: names have letters and no colons.
pub fn may_be_host(host: &str) -> bool {
    let is_like_v4 = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match host.contains(':') {
        // An interface may stand behind it.
        true => host.split_once('%').map_or(host, |(address, _)| address).parse::<Ipv6Addr>().is_ok(),
        false if is_like_v4 => host.parse::<Ipv4Addr>().is_ok(),
        false => host.chars().all(|it| it.is_alphanumeric() || matches!(it, '-' | '_' | '.')),
    }
}

/// Numbers of protocol levels with commas or blanks between: whether 3, 4 and 5 are among them.
pub fn versions(text: &str) -> Option<[bool; 3]> {
    let mut versions = [false; 3];
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let at = ["3", "4", "5"].iter().position(|version| *version == word)?;
        versions[at] = true;
    }
    versions.contains(&true).then_some(versions)
}

/// Permissions of a file, written as digits of octal.
pub fn mode(text: &str) -> Option<u32> {
    let is_octal = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777)
}

/// `none`, a destination, or `file PATH`. Behind one word a comment may stand, as in Mosquitto.
pub fn log_destination(text: &str) -> Option<Option<LogDestination>> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = if word != "file" && rest.trim_start_matches(' ').starts_with('#') { "" } else { rest };
    Some(match (word, rest) {
        ("none", "") => None,
        ("stdout", "") => Some(LogDestination::Stdout),
        ("stderr", "") => Some(LogDestination::Stderr),
        ("syslog", "") => Some(LogDestination::Syslog),
        ("topic", "") => Some(LogDestination::Topic),
        ("file", path) if !path.trim_matches(' ').is_empty() => {
            Some(LogDestination::File(path.trim_matches(' ').into()))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_c() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1883", Some(1883)),
            ("-1", Some(-1)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("08", None),
            ("10k", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("+1", None),
            ("0x", None),
            ("0x-1", None),
            (" 1", None),
            ("é", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn zero_and_less() {
        let no_limit = Zero::OrLessMeans("no limit");
        assert_eq!(ranged(-7, 20, 100, &no_limit), Some(0));
        assert_eq!(ranged(0, 20, 100, &no_limit), Some(0));
        assert_eq!(ranged(19, 20, 100, &no_limit), None);
        assert_eq!(ranged(20, 20, 100, &no_limit), Some(20));
        assert_eq!(ranged(101, 20, 100, &no_limit), None);
        assert_eq!(ranged(1 << 32 | 20, 20, 100, &no_limit), None);
        assert_eq!(ranged(-1, 0, 100, &Zero::Means("off")), None);
        assert_eq!(ranged(0, 20, 100, &Zero::Means("off")), Some(0));
        assert_eq!(ranged(0, 20, 100, &Zero::Itself), None);
    }

    #[test]
    fn spans() {
        for (text, expected) in [
            ("14d", Some(14 * 86_400)),
            ("1s", Some(1)),
            ("2h", Some(7200)),
            ("1w", Some(604_800)),
            ("1m", Some(2_592_000)),
            ("1y", Some(31_536_000)),
            ("never", Some(0)),
            ("0d", None),
            ("-1d", None),
            ("14", None),
            ("d", None),
            ("", None),
            ("1D", None),
            ("1é", None),
            ("137y", None),
        ] {
            assert_eq!(span(text), expected, "{text}");
        }
    }

    #[test]
    fn listeners() {
        let named = |name: &str| Host::Named(name.to_string());
        for (text, expected) in [
            ("1883", Some((1883, Host::All))),
            ("0 ::1", Some((0, named("::1")))),
            ("1883 box.local", Some((1883, named("box.local")))),
            ("", None),
            ("65536", None),
            ("-1", None),
            ("0 /run/midge.sock", Some((0, Host::Unix("/run/midge.sock".into())))),
            ("0  /run/with blank", Some((0, Host::Unix("/run/with blank".into())))),
            ("1883 /run/midge.sock", None),
            ("192.0.2.1:1883", None),
            ("1883 a b", None),
            ("1883 999.1.1.1", None),
            ("1883 10.0.0", None),
            ("1883 ::g", None),
            ("1883 # mqtt", Some((1883, Host::All))),
            ("1883 #mqtt", Some((1883, Host::All))),
            ("1883 ::1 # mqtt", Some((1883, named("::1")))),
            ("0 run/midge.sock", None),
            ("1883 box,local", None),
            ("1883 192.0.2.1:1883", None),
            ("1883 fe80::1%eth0", Some((1883, named("fe80::1%eth0")))),
        ] {
            assert_eq!(listener(text), expected, "{text}");
        }
    }

    #[test]
    fn protocol_versions() {
        assert_eq!(versions("3, 5"), Some([true, false, true]));
        assert_eq!(versions("4"), Some([false, true, false]));
        assert_eq!(["", ",", "9", "3 6", "311"].map(versions), [None; 5]);
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(["660", "0600", "0"].map(mode), [0o660, 0o600, 0].map(Some));
        assert_eq!(["", "+600", "680", "1777", "rw"].map(mode), [None; 5]);
    }

    #[test]
    fn log_destinations() {
        assert_eq!(log_destination("none"), Some(None));
        assert_eq!(log_destination("file /var/log/a b"), Some(Some(LogDestination::File("/var/log/a b".into()))));
        assert_eq!(log_destination("stderr # console"), Some(Some(LogDestination::Stderr)));
        assert_eq!(["file", "stderr x", "journal", "Stderr"].map(log_destination), [const { None }; 4]);
    }

    #[test]
    fn booleans_are_lower_case() {
        assert_eq!(["true", "1", "false", "0"].map(boolean), [true, true, false, false].map(Some));
        assert_eq!(["True", "yes", "on", ""].map(boolean), [None; 4]);
    }
}
