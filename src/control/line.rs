//! Lines of fields: putting them together, and taking them apart.

use std::io::Write;

/// What a field of a row is, and so how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A whole number, or one with two decimal places.
    Count,
    /// Bytes.
    Size,
    /// A span of seconds.
    Span,
}

impl Kind {
    const ALL: [(Kind, &str); 4] =
        [(Kind::Text, "text"), (Kind::Count, "count"), (Kind::Size, "size"), (Kind::Span, "span")];

    fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// A column of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

impl Column {
    pub const fn new(name: &'static str, kind: Kind) -> Column {
        Column { name, kind }
    }
}

/// A line that is being written to the end of some bytes.
pub struct Row<'a>(&'a mut Vec<u8>);

impl<'a> Row<'a> {
    /// Begins a line with its first word.
    pub fn begin(word: &str, out: &'a mut Vec<u8>) -> Row<'a> {
        out.extend_from_slice(word.as_bytes());
        Row(out)
    }

    /// The line that names the columns of a list.
    pub fn columns(columns: &[Column], out: &mut Vec<u8>) {
        let mut row = Row::begin("columns", out);
        for column in columns {
            row.shown(format_args!("{}:{}", column.name, column.kind.name()));
        }
        row.end();
    }

    pub fn text(&mut self, text: &[u8]) {
        self.0.push(b'\t');
        escape(text, self.0);
    }

    /// What needs no escapes.
    pub fn shown(&mut self, text: std::fmt::Arguments) {
        self.0.push(b'\t');
        // Writing to a Vec does not fail.
        let _ = self.0.write_fmt(text);
    }

    pub fn number(&mut self, number: u64) {
        self.shown(format_args!("{number}"));
    }

    /// A number that may not be known.
    pub fn known(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.number(number),
            None => self.text(b""),
        }
    }

    pub fn end(self) {
        self.0.push(b'\n');
    }
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            _ => out.push(byte),
        }
    }
}

/// The fields of a line without its line feed; nothing if it has an escape that does not exist.
pub fn fields(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    line.split(|&byte| byte == b'\t').map(unescape).collect()
}

fn unescape(field: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        text.push(match byte {
            b'\\' => match bytes.next()? {
                b't' => b'\t',
                b'n' => b'\n',
                b'\\' => b'\\',
                _ => return None,
            },
            // The end of a line is no part of it.
            b'\n' => return None,
            _ => byte,
        });
    }
    Some(text)
}

/// A line of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Columns(Vec<(String, Kind)>),
    Row(Vec<Vec<u8>>),
    Ok(Vec<String>),
    Error(Vec<String>),
}

impl Line {
    /// Takes a line apart, without its line feed; nothing if it is none of an answer.
    pub fn parse(line: &[u8]) -> Option<Line> {
        let mut fields = fields(line)?;
        let word = fields.remove(0);
        let texts = |fields: Vec<Vec<u8>>| -> Vec<String> {
            fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect()
        };
        Some(match &word[..] {
            b"columns" => Line::Columns(texts(fields).iter().map(|text| column(text)).collect::<Option<_>>()?),
            b"row" => Line::Row(fields),
            b"ok" => Line::Ok(texts(fields)),
            b"error" => Line::Error(texts(fields)),
            _ => return None,
        })
    }
}

fn column(text: &str) -> Option<(String, Kind)> {
    let (name, kind) = text.rsplit_once(':')?;
    let (kind, _) = Kind::ALL.into_iter().find(|(_, word)| *word == kind)?;
    Some((name.to_string(), kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_any_bytes_come_back_as_they_went_in() {
        let all: Vec<u8> = (0..=255).collect();
        for text in [&b""[..], b"thermometer", b"a\tb\nc\\d", b"\\t", "ä ö".as_bytes(), &all] {
            let mut out = Vec::new();
            let mut row = Row::begin("row", &mut out);
            row.text(text);
            row.known(None);
            row.number(7);
            row.end();
            let line = out.strip_suffix(b"\n").unwrap();
            assert!(!line.contains(&b'\n'));
            let fields = vec![text.to_vec(), b"".to_vec(), b"7".to_vec()];
            assert_eq!(Line::parse(line), Some(Line::Row(fields)));
        }
    }

    #[test]
    fn columns_say_what_they_are() {
        let mut out = Vec::new();
        Row::columns(&[Column::new("id", Kind::Text), Column::new("since", Kind::Span)], &mut out);
        assert_eq!(out, b"columns\tid:text\tsince:span\n");
        let columns = vec![("id".to_string(), Kind::Text), ("since".to_string(), Kind::Span)];
        assert_eq!(Line::parse(&out[..out.len() - 1]), Some(Line::Columns(columns)));
    }

    #[test]
    fn what_is_no_line_of_an_answer_is_none() {
        for line in [&b""[..], b"rows\t1", b"row\t\\x", b"row\t\\", b"columns\tid", b"columns\tid:number", b"ok\na"] {
            assert_eq!(Line::parse(line), None, "{line:?}");
        }
        assert_eq!(Line::parse(b"ok"), Some(Line::Ok(vec![])));
        assert_eq!(Line::parse(b"error\tone\ttwo"), Some(Line::Error(vec!["one".into(), "two".into()])));
    }
}
