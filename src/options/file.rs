//! The configuration file in Mosquitto's format: lines, sections, included directories. It is read to the end, whatever is found,
//! so that everything can be said at once; the lines and what became of them are kept for those who ask.
//!
//! The rules of the format are Mosquitto's: blanks and nothing else separate; a comment is a line whose first character is `#`; a
//! value that is a text goes to the end of the line. What differs: what a line says that is not understood is always said, with
//! the file and the line.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::draft::Draft;
use super::foreign::{Foreign, Plan};
use super::nearest;
use super::table::{Occurs, Row, Scope};

/// Larger files are refused. The longest that are generated have some kilobytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Files that one directory may bring.
const INCLUDED_FILES_MAX: usize = 1000;
/// Longer lines are refused: keyword, blank, and the longest string of MQTT.
const LINE_BYTES_MAX: usize = 66_000;
/// Bytes of all files together.
const BYTES_MAX: usize = 4 << 20;
/// Faults after which the rest is not read, for those who do not want to know all of them: each is a line in the log.
const FAULTS_MAX: usize = 20;

/// Where files come from.
pub trait Files {
    /// The content of a file, or an error if there are more than `bytes_max` of it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// The names in a directory.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
}

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: Rc<Path>,
    line: usize,
    /// The line that included the file.
    included: Option<Rc<Place>>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)?;
        match &self.included {
            Some(by) => write!(f, ", included at {by}"),
            None => Ok(()),
        }
    }
}

/// One line and what became of it.
pub struct Line {
    pub place: Place,
    pub text: String,
    pub verdict: Verdict,
}

pub enum Verdict {
    /// A comment, or nothing.
    Nothing,
    Done(&'static Row),
    /// Accepted, with this remark.
    Remarked(String),
    /// Wrong, for this reason.
    Refused(String),
}

/// Reads a file and what it includes into the draft. The lines that say something, in the order in which they count; with their
/// texts, and whatever is wrong with them, if `explains`.
///
/// # Errors
/// When the file itself cannot be read.
pub fn read(path: &Path, files: &dyn Files, draft: &mut Draft, explains: bool) -> io::Result<Vec<Line>> {
    let content = files.read(path, FILE_BYTES_MAX)?;
    let mut reader = Reader {
        files,
        draft,
        explains,
        lines: Vec::new(),
        faults: 0,
        bytes: 0,
        seen: HashMap::new(),
        has_security: false,
        has_told_of_default: false,
    };
    reader.file(path, &content, None);
    Ok(reader.lines)
}

struct Reader<'a> {
    files: &'a dyn Files,
    draft: &'a mut Draft,
    explains: bool,
    lines: Vec<Line>,
    faults: usize,
    bytes: usize,
    /// How often each option stood so far, of each listener if it is about one.
    seen: HashMap<(&'static str, Option<usize>), usize>,
    /// An option of scope security was read.
    has_security: bool,
    /// The reader of the file knows that it opens a listener that no line is about.
    has_told_of_default: bool,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, content: &[u8], included: Option<Rc<Place>>) {
        let file: Rc<Path> = path.into();
        self.bytes += content.len();
        for (number, raw) in content.split(|byte| *byte == b'\n').enumerate() {
            let place = Place { file: file.clone(), line: number + 1, included: included.clone() };
            if self.bytes > BYTES_MAX {
                let text = format!("the files have more than {BYTES_MAX} bytes together.");
                self.note(place, raw, Verdict::Refused(text));
                return;
            }
            if self.faults > FAULTS_MAX && !self.explains {
                return;
            }
            let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
            let remarks = self.draft.remarks.len();
            let verdict = match self.line(raw, &place) {
                _ if self.faults == FAULTS_MAX && !self.explains => {
                    Verdict::Refused("there is so much wrong that the rest is not read.".to_string())
                }
                Ok(None) => Verdict::Nothing,
                Ok(Some(row)) => Verdict::Done(row),
                Err(text) => Verdict::Refused(text),
            };
            let mut remarks = self.draft.remarks.split_off(remarks);
            let verdict = match (verdict, remarks.pop()) {
                (Verdict::Refused(text), _) => Verdict::Refused(text),
                (_, Some(remark)) => Verdict::Remarked(remark),
                (verdict, None) => verdict,
            };
            self.note(place, raw, verdict);
        }
    }

    fn note(&mut self, place: Place, raw: &[u8], verdict: Verdict) {
        if matches!(verdict, Verdict::Nothing) {
            return;
        }
        self.faults += usize::from(matches!(verdict, Verdict::Refused(_)));
        let shown = if self.explains { &raw[..raw.len().min(200)] } else { &[] };
        self.lines.push(Line { place, text: String::from_utf8_lossy(shown).into_owned(), verdict });
    }

    /// The row whose option the line sets, if any; otherwise what is wrong with it.
    fn line(&mut self, raw: &[u8], place: &Place) -> Result<Option<&'static Row>, String> {
        if raw.first() == Some(&b'#') {
            return Ok(None);
        }
        if raw.len() > LINE_BYTES_MAX {
            return Err(format!("the line is longer than {LINE_BYTES_MAX} bytes."));
        }
        let text = std::str::from_utf8(raw).map_err(|_| "the line is not UTF-8.".to_string())?;
        if text.contains('\0') {
            return Err("the line contains a NUL character.".to_string());
        }
        let text = text.trim_matches(' ');
        if text.is_empty() {
            return Ok(None);
        }
        let (keyword, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim_matches([' ', '\t']);
        let Some(row) = Row::of_keyword(keyword) else { return self.foreign(keyword).map(|()| None) };
        if rest.is_empty() {
            return Err(format!("{keyword} needs a value: {}.", row.value.accepted()));
        }
        if row.name == "include_dir" {
            self.include(Path::new(rest), place)?;
            return Ok(Some(row));
        }
        self.check_place(row, keyword)?;
        let value = row.value.of_line(rest);
        let invalid = |accepted| format!("Invalid value '{}' for {keyword}: expected {accepted}.", shortened(value));
        row.value.apply(self.draft, value).map_err(invalid)?;
        if row.name == "port" {
            self.draft.remark(
                "port is the old way to say it: 'listener PORT' does the same, and options behind it are its own.",
            );
        }
        Ok(Some(row))
    }

    fn foreign(&mut self, keyword: &str) -> Result<(), String> {
        match Foreign::of_keyword(keyword) {
            Some(it) if it.plan == Plan::Warn => {
                self.draft.remark(it.text(keyword));
                Ok(())
            }
            Some(it) => Err(it.text(keyword)),
            None => {
                let shown = shortened(keyword);
                let hint = if keyword.contains('\t') {
                    "a tab does not separate, only a blank does".to_string()
                } else if keyword.contains('#') {
                    "a comment begins in the first column".to_string()
                } else if keyword.starts_with('\u{feff}') {
                    "the file begins with a byte order mark, which must go".to_string()
                } else {
                    format!("the nearest is '{}'", nearest::keyword(keyword))
                };
                Err(format!("Unknown configuration variable '{}'; {hint}.", shown.escape_debug()))
            }
        }
    }

    /// Whether the option may stand here, and again.
    fn check_place(&mut self, row: &'static Row, keyword: &str) -> Result<(), String> {
        let section = self.draft.section();
        if row.scope == Scope::Listener && section.is_none() && row.name != "listener" && !row.in_section {
            self.tell_of_default_listener();
        }
        if row.in_section && section.is_none() {
            return Err(format!("{keyword} needs a listener line before it, which it is about."));
        }
        if row.scope == Scope::Security {
            // Lines that say 'port' are about a listener, too.
            if self.draft.per_listener_settings && section.is_none() && !self.draft.has_default_listener() {
                return Err(format!(
                    "{keyword} needs a listener line before it, because per_listener_settings is true."
                ));
            }
            self.has_security = true;
        }
        if row.name == "per_listener_settings" && self.has_security && !self.draft.per_listener_settings {
            return Err(format!(
                "{keyword} must stand before the first option about security, such as allow_anonymous."
            ));
        }
        let is_own = row.scope == Scope::Listener || (row.scope == Scope::Security && self.draft.per_listener_settings);
        let count = self.seen.entry((row.name, section.filter(|_| is_own && row.name != "listener"))).or_default();
        *count += 1;
        match row.occurs {
            Occurs::Once if *count > 1 => Err(format!("Duplicate {keyword}: it may stand once.")),
            Occurs::UpTo(most) if *count > most => Err(format!("{keyword} may stand at most {most} times.")),
            _ => Ok(()),
        }
    }

    /// Says once that an option is about a listener that the file does not show.
    fn tell_of_default_listener(&mut self) {
        if !self.draft.has_default_listener() && !self.has_told_of_default {
            self.has_told_of_default = true;
            self.draft
                .remark("no listener line stands before it: it opens one of its own, on port 1883 of all addresses.");
        }
    }

    /// The `.conf` files of a directory, in Mosquitto's order, each beginning without an open section.
    fn include(&mut self, directory: &Path, place: &Place) -> Result<(), String> {
        if place.included.is_some() {
            return Err("include_dir must not stand in a file that is included.".to_string());
        }
        let failed = |path: &Path, error: io::Error| format!("{} cannot be read: {error}.", path.display());
        let names = self.files.list(directory).map_err(|error| failed(directory, error))?;
        let is_meant = |name: &OsString| {
            let name = name.as_encoded_bytes();
            name.len() > ".conf".len() && name.ends_with(b".conf")
        };
        let names: Result<Vec<String>, OsString> =
            names.into_iter().filter(is_meant).map(OsString::into_string).collect();
        let mut names = names.map_err(|name| format!("{}: the name {name:?} is not UTF-8.", directory.display()))?;
        if names.len() > INCLUDED_FILES_MAX {
            return Err(format!("{} has more than {INCLUDED_FILES_MAX} files.", directory.display()));
        }
        // On ties upper case comes first, as its bytes do.
        names.sort_by(|a, b| (a.to_ascii_lowercase(), a).cmp(&(b.to_ascii_lowercase(), b)));
        let section = self.draft.section();
        for name in names {
            let path: PathBuf = directory.join(name);
            let content = self.files.read(&path, FILE_BYTES_MAX).map_err(|error| failed(&path, error))?;
            self.draft.set_section(None);
            self.file(&path, &content, Some(Rc::new(place.clone())));
        }
        self.draft.set_section(section);
        Ok(())
    }
}

/// As much of a text of the user's as fits in a message.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}
