//! Answers for programs: one object a line (JSON Lines), so that a list of any length can be read as it comes. What is not known
//! is null; spans are seconds, sizes bytes. Bytes that are no UTF-8, which only payloads have, become U+FFFD.

use std::io::{self, Write};

use crate::control::Kind;

pub fn write_row(columns: &[(String, Kind)], row: &[Vec<u8>], out: &mut dyn Write) -> io::Result<()> {
    for (at, ((name, kind), field)) in columns.iter().zip(row).enumerate() {
        out.write_all(if at == 0 { b"{" } else { b"," })?;
        write_text(name, out)?;
        out.write_all(b":")?;
        match kind {
            Kind::Text => write_text(&String::from_utf8_lossy(field), out)?,
            _ if field.is_empty() => out.write_all(b"null")?,
            _ => out.write_all(field)?,
        }
    }
    out.write_all(b"}\n")
}

/// What was done.
pub fn write_sentence(sentence: &str, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"{\"ok\":")?;
    write_text(sentence, out)?;
    out.write_all(b"}\n")
}

fn write_text(text: &str, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"\"")?;
    let mut from = 0;
    for (at, letter) in text.char_indices() {
        // Some readers take more than line feeds for the end of a line, and terminals more than escape for a command.
        let is_plain = !letter.is_control() && !matches!(letter, '"' | '\\' | '\u{2028}' | '\u{2029}');
        if is_plain {
            continue;
        }
        out.write_all(&text.as_bytes()[from..at])?;
        match letter {
            '"' => out.write_all(b"\\\"")?,
            '\\' => out.write_all(b"\\\\")?,
            '\n' => out.write_all(b"\\n")?,
            '\t' => out.write_all(b"\\t")?,
            _ => write!(out, "\\u{:04x}", letter as u32)?,
        }
        from = at + letter.len_utf8();
    }
    out.write_all(&text.as_bytes()[from..])?;
    out.write_all(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_objects() {
        let columns = [("id", Kind::Text), ("since", Kind::Span), ("rate", Kind::Count), ("away", Kind::Span)];
        let columns = columns.map(|(name, kind)| (name.to_string(), kind));
        let row = [&b"a\"\\\t\n\x1b\x7f\xc3\xa4\xff\xc2\x9b\xe2\x80\xa8"[..], b"12", b"0.3", b""].map(<[u8]>::to_vec);
        let mut out = Vec::new();
        write_row(&columns, &row, &mut out).unwrap();
        let expected = "{\"id\":\"a\\\"\\\\\\t\\n\\u001b\\u007f\u{e4}\u{fffd}\\u009b\\u2028\",\"since\":12,\"rate\":0.3,\"away\":null}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        write_sentence("It's \"done\".", &mut out).unwrap();
        assert_eq!(out, b"{\"ok\":\"It's \\\"done\\\".\"}\n");
    }
}
