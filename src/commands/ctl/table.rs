//! Answers for people: columns under headings, text to the left and numbers to the right. Nothing that a client calls itself
//! reaches a terminal as a command.

use std::io::{self, Write};

use super::Listing;
use crate::control::Kind;

/// A column is no wider for the sake of one long text, which then pushes the rest of its line aside.
const COLUMN_MAX: usize = 48;

/// Headings that are shorter than the names.
const HEADINGS: [(&str, &str); 14] = [
    ("keep_alive", "KEEP"),
    ("subscriptions", "SUBS"),
    ("queue_bytes", "BYTES"),
    ("unwritten", "UNSENT"),
    ("in_flight", "FLIGHT"),
    ("received", "IN"),
    ("sent", "OUT"),
    ("received_per_s", "IN/S"),
    ("sent_per_s", "OUT/S"),
    ("dropped", "LOST"),
    ("also_used_by", "ALSO USED BY"),
    ("ends_in", "ENDS IN"),
    ("identifier", "SUB-ID"),
    ("expires_in", "EXPIRES"),
];

/// Writes it all; lines are cut at `width`, if there is one.
pub fn write(listing: &Listing, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    lines(listing, width).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// The heading, and a line for each row.
pub fn lines(listing: &Listing, width: Option<usize>) -> Vec<String> {
    let heads = listing.columns.iter().map(|(name, _)| heading(name)).collect();
    let rows = listing.rows.iter().map(|row| {
        let fields = listing.columns.iter().zip(row);
        fields.map(|((_, kind), field)| cell(*kind, field)).collect()
    });
    let all: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let mut widths = vec![0; listing.columns.len()];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count().min(COLUMN_MAX));
        }
    }
    let kinds = || listing.columns.iter().map(|(_, kind)| *kind);
    all.iter().map(|row| cut(line(row, kinds(), &widths), width)).collect()
}

fn line(row: &[String], kinds: impl Iterator<Item = Kind>, widths: &[usize]) -> String {
    let mut line = String::new();
    for (at, ((cell, kind), width)) in row.iter().zip(kinds).zip(widths).enumerate() {
        if at > 0 {
            line.push_str("  ");
        }
        let padding = width.saturating_sub(cell.chars().count());
        let (left, right) = if kind == Kind::Text { (0, padding) } else { (padding, 0) };
        line.extend(std::iter::repeat_n(' ', left));
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', right));
    }
    line.truncate(line.trim_end_matches(' ').len());
    line
}

/// As much of a line as a terminal has room for.
pub fn cut(mut line: String, width: Option<usize>) -> String {
    if let Some((end, _)) = width.and_then(|width| line.char_indices().nth(width)) {
        line.truncate(end);
    }
    line
}

fn heading(name: &str) -> String {
    let short = HEADINGS.iter().find(|(own, _)| *own == name).map(|(_, heading)| (*heading).to_string());
    short.unwrap_or_else(|| name.to_ascii_uppercase())
}

/// A field as it is shown; what is not known, or empty, is a dash.
pub fn cell(kind: Kind, field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    let number = || text.parse().ok();
    match kind {
        _ if text.is_empty() => "-".to_string(),
        Kind::Size => number().map(size).unwrap_or_else(|| shown(&text)),
        Kind::Span => number().map(span).unwrap_or_else(|| shown(&text)),
        Kind::Text | Kind::Count => shown(&text),
    }
}

/// A text without what a terminal would obey, or would not show.
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '\'' | '"' | '\\' => out.push(letter),
            _ => out.extend(letter.escape_debug()),
        }
    }
    out
}

/// Bytes: `999`, `1.2k`, `45k`, `3.4M`.
pub fn size(bytes: u64) -> String {
    let (mut unit, mut rest, mut names) = (1u64, bytes, "kMGT".chars());
    let mut name = None;
    while rest >= 1000 && (unit < 1 << 40) {
        (unit, rest, name) = (unit << 10, rest >> 10, names.next());
    }
    match name {
        None => bytes.to_string(),
        Some(name) if rest < 10 => format!("{}.{}{name}", rest, (bytes - rest * unit) * 10 / unit),
        Some(name) => format!("{rest}{name}"),
    }
}

/// Seconds: `45s`, `3m20s`, `3h12m`, `5d03h`.
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_short() {
        let sizes = [0, 999, 1000, 1023, 1024, 1536, 10_239, 10_240, 999 << 10, 1000 << 10, 1 << 30, u64::MAX];
        let shown = sizes.map(size);
        let expected = ["0", "999", "0.9k", "0.9k", "1.0k", "1.5k", "9.9k", "10k", "999k", "0.9M", "1.0G", "16777215T"];
        assert_eq!(shown, expected);
        let shown = [0, 59, 60, 3599, 3600, 86_399, 86_400, 1_000_000].map(span);
        assert_eq!(shown, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "11d13h"]);
    }

    #[test]
    fn columns_are_aligned_and_cut() {
        let columns = [("id", Kind::Text), ("queue", Kind::Count), ("queue_bytes", Kind::Size), ("user", Kind::Text)];
        let columns = columns.map(|(name, kind)| (name.to_string(), kind)).to_vec();
        let row = |fields: [&str; 4]| fields.map(|field| field.as_bytes().to_vec()).to_vec();
        let long = "x".repeat(60);
        let rows = vec![
            row(["thermometer", "7", "5000", "eve"]),
            row(["a\x1b[2J\u{202e}'", "1000", "", ""]),
            row([&long, "1", "2", "b"]),
        ];
        let listing = Listing { columns, rows };
        let pad = " ".repeat(37);
        let expected = [
            format!("ID{}  QUEUE  BYTES  USER", " ".repeat(46)),
            format!("thermometer{pad}      7   4.8k  eve"),
            format!("a\\u{{1b}}[2J\\u{{202e}}'{}   1000      -  -", " ".repeat(29)),
            format!("{long}      1      2  b"),
        ];
        assert_eq!(lines(&listing, None), expected);
        let cut = lines(&listing, Some(5));
        assert_eq!(cut, ["ID   ", "therm", "a\\u{1", "xxxxx"]);
    }
}
