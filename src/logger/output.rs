//! Where lines go: each destination opened, and what becomes of lines when it fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::kind::Kind;
use super::syslog::Syslog;
use crate::config::{LogConfig, LogDestination};

pub enum Output {
    Stdout,
    Stderr,
    Syslog(Syslog),
    Topic,
    File(LogFile),
}

impl Output {
    /// Opens what a configuration names; the error says what could not be.
    pub fn open(destination: &LogDestination, config: &LogConfig) -> Result<Output, String> {
        Ok(match destination {
            LogDestination::Stdout => Output::Stdout,
            LogDestination::Stderr => Output::Stderr,
            LogDestination::Topic => Output::Topic,
            LogDestination::Syslog => match Syslog::open(config.facility) {
                Ok(syslog) => Output::Syslog(syslog),
                Err(error) => return Err(format!("syslog cannot be reached at /dev/log: {error}")),
            },
            LogDestination::File(path) => Output::File(LogFile::open(path).map_err(|error| unwritable(path, &error))?),
        })
    }

    /// Whether it is where this destination leads.
    pub fn is(&self, destination: &LogDestination) -> bool {
        match (self, destination) {
            (Output::Stdout, LogDestination::Stdout)
            | (Output::Stderr, LogDestination::Stderr)
            | (Output::Syslog(_), LogDestination::Syslog)
            | (Output::Topic, LogDestination::Topic) => true,
            (Output::File(file), LogDestination::File(path)) => file.is_at(path),
            _ => false,
        }
    }

    /// Writes a line, its end included; false if it is lost; of a file that is told on standard error once.
    pub fn write(&mut self, kind: Kind, seconds: u64, line: &str) -> bool {
        match self {
            Output::Stdout => {
                let _ = io::stdout().write_all(line.as_bytes());
            }
            Output::Stderr => {
                let _ = io::stderr().write_all(line.as_bytes());
            }
            Output::Syslog(syslog) => return syslog.write(kind, seconds, line.trim_end_matches('\n')),
            Output::Topic => {}
            Output::File(file) => return file.write(kind, line),
        }
        true
    }
}

/// A file that lines are appended to.
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    is_failing: bool,
    held: Option<Held>,
}

/// Bytes of lines kept for a file that is opened later: more than a start says.
const HELD_BYTES_MAX: usize = 64 << 10;

/// Lines for a file that must not be opened yet. Root opens none in a directory of the user it is about to become: a link
/// there could lead anywhere.
#[derive(Default)]
struct Held {
    lines: Vec<(Kind, String)>,
    bytes: usize,
}

impl Held {
    /// False if there is no room: what came first says most.
    fn push(&mut self, kind: Kind, line: &str) -> bool {
        let is_room = self.bytes + line.len() <= HELD_BYTES_MAX;
        if is_room {
            self.bytes += line.len();
            self.lines.push((kind, line.to_string()));
        }
        is_room
    }

    fn print(&self, is_wanted: impl Fn(Kind) -> bool) {
        for (_, line) in self.lines.iter().filter(|(kind, _)| is_wanted(*kind)) {
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        Ok(LogFile { path: path.to_path_buf(), file: Some(append(path)?), is_failing: false, held: None })
    }

    /// A file that could not be opened; it may be later.
    pub fn unopened(path: &Path) -> LogFile {
        LogFile { path: path.to_path_buf(), file: None, is_failing: true, held: None }
    }

    /// Opens the path again, which may be another file by now. What was open stays if that fails.
    pub fn reopen(&mut self) -> Result<(), String> {
        match append(&self.path) {
            Ok(file) => {
                (self.file, self.is_failing) = (Some(file), false);
                Ok(())
            }
            Err(error) => Err(unwritable(&self.path, &error)),
        }
    }

    /// A file that is not opened before `open_held`; its lines are kept until then.
    pub fn held(path: &Path) -> LogFile {
        LogFile { held: Some(Held::default()), ..LogFile::unopened(path) }
    }

    pub fn is_at(&self, path: &Path) -> bool {
        self.path == path
    }

    /// Opens a file that is held and writes what was kept. If it cannot be opened that is told on standard error, and so are the
    /// errors among the lines unless `is_shown` says that they are there.
    pub fn open_held(&mut self, is_shown: bool) {
        let Some(held) = self.held.take() else { return };
        match append(&self.path) {
            Ok(file) => {
                (self.file, self.is_failing) = (Some(file), false);
                for (kind, line) in &held.lines {
                    if !self.write(*kind, line) && !is_shown && *kind == Kind::Error {
                        let _ = io::stderr().write_all(line.as_bytes());
                    }
                }
            }
            Err(error) => {
                say(&unwritable(&self.path, &error));
                if !is_shown {
                    held.print(|kind| kind == Kind::Error);
                }
            }
        }
    }

    /// The program ends and the file was never opened: its lines, for standard error.
    pub fn give_up(&mut self, is_shown: bool) {
        if let Some(held) = self.held.take().filter(|_| !is_shown) {
            held.print(|_| true);
        }
    }

    fn write(&mut self, kind: Kind, line: &str) -> bool {
        if let Some(held) = &mut self.held {
            return held.push(kind, line);
        }
        let Some(file) = &mut self.file else { return false };
        let written = file.write_all(line.as_bytes());
        if let Err(error) = &written
            && !self.is_failing
        {
            say(&unwritable(&self.path, error));
        }
        self.is_failing = written.is_err();
        written.is_ok()
    }
}

/// Says what is wrong with a destination, on standard error.
pub fn say(what: &str) {
    // Not eprintln, which panics if standard error is closed.
    let _ = writeln!(io::stderr(), "Error: {what}.");
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("Unable to open log file {} for writing: {error}", path.display())
}

/// Others may not read who is connected.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_appended_to_and_opened_again_where_it_was() {
        let path = std::env::temp_dir().join(format!("midge-log-{}", std::process::id()));
        let moved = path.with_extension("1");
        fs::write(&path, "before\n").unwrap();
        let mut output = LogFile::open(&path).unwrap();
        assert!(output.write(Kind::Error, "one\n"));
        fs::rename(&path, &moved).unwrap();
        assert!(output.write(Kind::Error, "two\n"));
        output.reopen().unwrap();
        assert!(output.write(Kind::Error, "three\n"));
        assert_eq!(fs::read_to_string(&moved).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(path).unwrap();
        fs::remove_file(moved).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let config = LogConfig::default();
        let error = Output::open(&LogDestination::File("/nowhere/midge.log".into()), &config).err().unwrap();
        assert!(error.starts_with("Unable to open log file /nowhere/midge.log for writing: "), "{error}");
        let mut file = LogFile::unopened(Path::new("/nowhere/midge.log"));
        assert!(file.reopen().is_err());
        assert!(!file.write(Kind::Error, "lost"));
    }

    #[test]
    fn a_full_disk_is_told_by_each_line_that_is_lost() {
        let mut file = LogFile::open(Path::new("/dev/full")).unwrap();
        assert!(!file.write(Kind::Error, "lost\n") && file.is_failing);
        assert!(!file.write(Kind::Error, "lost\n"));
    }
}
