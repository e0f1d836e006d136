//! The fuzz target of the control socket: what a broker reads from whoever connects there, and what `midge ctl` reads of the
//! answer.

use midge::control::{Line, Request, WORDS, fields};

use crate::bodies::Source;

/// Pieces of requests, so that some of them mean something.
const PIECES: [&str; 24] = [
    "\t",
    "\t",
    "\t",
    "\\t",
    "\\n",
    "\\\\",
    "\\x",
    "\n",
    "delete",
    "--payload",
    "#",
    "a/+",
    "a/#/b",
    "$share/g/a",
    "é",
    "\0",
    "none",
    "information",
    "debug",
    "subscribe",
    "all",
    "row",
    "ok",
    "columns\tid:text\tn:count",
];

/// Whatever arrives is a request, which is what it is when it is sent again, or is refused with a sentence.
pub fn control(data: &[u8]) {
    let mut source = Source(data);
    let mut line = Vec::new();
    if source.byte() % 4 != 0 {
        line.extend_from_slice(WORDS[usize::from(source.byte()) % WORDS.len()].as_bytes());
    }
    while !source.0.is_empty() {
        match source.byte() {
            255 => {
                let count = usize::from(source.byte() % 16);
                line.extend_from_slice(source.take(count));
            }
            at => line.extend_from_slice(PIECES[usize::from(at) % PIECES.len()].as_bytes()),
        }
    }
    match Request::parse(&line) {
        Ok(request) => {
            let sent = request.line();
            let (last, rest) = sent.split_last().expect("a line");
            assert!(*last == b'\n' && !rest.contains(&b'\n'));
            assert_eq!(Request::parse(rest), Ok(request));
        }
        Err(why) => assert!(why.ends_with('.') && !why.contains('\n') && why.len() < 500, "{why:?}"),
    }
    if let Some(Line::Row(row)) = Line::parse(&line) {
        assert_eq!(fields(&line).map(|mut all| all.split_off(1)), Some(row));
    }
}
