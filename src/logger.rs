//! Log lines on standard error, in Mosquitto's form: `EPOCHSECONDS: text`. Owns what a line may hold: names that
//! peers made up end up in it, so one record is one line of bounded length, whatever they wrote.

use std::env;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use log::LevelFilter;

/// Bytes of a line without its end, as in Mosquitto. A client id alone may have 65535.
const LINE_BYTES_MAX: usize = 1000;

/// Starts logging at `level`; the environment's RUST_LOG, if it says anything, replaces `level`.
pub fn start(level: LevelFilter) {
    let mut builder = env_logger::Builder::new();
    match env::var("RUST_LOG") {
        Ok(filters) if !filters.is_empty() => builder.parse_filters(&filters),
        _ => builder.filter_level(level),
    };
    builder.format(|out, record| {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut line = Line { out: &mut *out, left: LINE_BYTES_MAX };
        write!(line, "{seconds}: {}", record.args())?;
        out.write_all(b"\n")
    });
    builder.init();
}

/// Passes on what fits in one line; control characters, an end of line above all, become question marks.
struct Line<W> {
    out: W,
    left: usize,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let kept = &bytes[..bytes.len().min(self.left)];
        self.left -= kept.len();
        for (index, part) in kept.split(u8::is_ascii_control).enumerate() {
            if index > 0 {
                self.out.write_all(b"?")?;
            }
            self.out.write_all(part)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let mut out = Vec::new();
        write!(Line { out: &mut out, left: LINE_BYTES_MAX }, "{text}").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_client_id_cannot_forge_a_line() {
        assert_eq!(line("id\n0: New client connected\r\x1b[2J\x7f"), "id?0: New client connected??[2J?");
        assert_eq!(line("\n"), "?");
        assert_eq!(line("höhe"), "höhe");
    }

    #[test]
    fn a_line_is_bounded() {
        assert_eq!(line(&"x".repeat(70_000)).len(), LINE_BYTES_MAX);
        assert_eq!(line(&"x".repeat(LINE_BYTES_MAX)).len(), LINE_BYTES_MAX);
    }
}
