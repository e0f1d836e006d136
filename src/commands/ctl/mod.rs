//! `midge ctl`: asks a running broker through its control socket, and shows what it answers, as a table for people or as JSON for
//! programs.

mod json;
mod rates;
mod table;
mod top;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use getopts::Matches;

use super::{Command, Flag, Refusal, help, parse, print};
use crate::control::{DEFAULT_PATH, Kind, Line, Request};
use crate::options::{self, Parsed};
use crate::os::{DiskFiles, terminal_size};

pub const COMMAND: Command = Command {
    name: "ctl",
    purpose: "Show what a running broker holds, and order it to do something.",
    words: &[
        ("clients", ""),
        ("sessions", ""),
        ("subscriptions", ""),
        ("retained", "delete"),
        ("kick", ""),
        ("session", "delete"),
        ("log", "none error warning notice information debug subscribe unsubscribe all"),
        ("stats", ""),
        ("reload", ""),
        (TOP, ""),
    ],
    flags: &[
        Flag {
            short: None,
            long: "socket",
            placeholder: "FILE",
            help: "The control socket. [/run/midge/control.sock]",
        },
        Flag {
            short: Some('c'),
            long: "config-file",
            placeholder: "FILE",
            help: "The broker's configuration file, which names it.",
        },
        Flag { short: None, long: "json", placeholder: "", help: "One JSON object a line." },
        Flag { short: None, long: "now", placeholder: "", help: "Clients without rates, at once." },
        Flag {
            short: None,
            long: "payload",
            placeholder: "",
            help: "Retained messages with the first 100 bytes of each.",
        },
        Flag { short: None, long: "interval", placeholder: "SECONDS", help: "How often top looks. [1]" },
        Flag { short: Some('h'), long: "help", placeholder: "", help: "Print this help and end." },
    ],
    are_flags_first: false,
    run,
};

const HEAD: &str = "\
Usage: midge ctl [OPTION]... COMMAND

Shows what a running broker holds, and orders it to do something. It must have
been started with --control-socket; its user and root may ask.

Commands:
  clients                   Who is connected, and how many messages a second
                            come and go: that takes a second, --now does not
                            wait for it.
  sessions                  All sessions, also of clients that are away.
  subscriptions [ID]        Of one client, or of all.
  retained [FILTER]         Retained messages; without a filter, those of all
                            topics that do not begin with $.
  retained delete FILTER    Delete those, without a word to subscribers.
  kick ID                   Disconnect a client; it may come back.
  session delete ID         Delete a session with all that waits in it.
  log LEVEL [TYPE]...       What is logged until the next reload: none, error,
                            warning, notice, information, debug or all; with
                            subscribe and unsubscribe added.
  stats                     The broker's counters, as below $SYS.
  reload                    As SIGHUP; says what was wrong, if anything.
  top                       Clients by their messages a second; ends with q.

Options:
";

/// The one command that is the client's own, and unknown to the broker.
const TOP: &str = "top";

/// Options that mean something to one command only.
const BELONGING: [(&str, &str); 3] = [("now", "clients"), ("payload", "retained"), ("interval", TOP)];

/// Between the two looks that a rate takes.
const RATE_SPAN: Duration = Duration::from_secs(1);
/// A broker that says nothing for so long does not turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often whoever waits for it is asked whether that was enough.
const GLANCE: Duration = Duration::from_millis(200);
/// Seconds between two looks of `top`, at most.
const INTERVAL_MAX: u64 = 3600;

/// A list as it was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listing {
    columns: Vec<(String, Kind)>,
    rows: Vec<Vec<Vec<u8>>>,
}

impl Listing {
    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(own, _)| own == name)
    }
}

fn run(arguments: &[String]) -> Result<(), Refusal> {
    let given = parse(&COMMAND, arguments)?;
    if given.opt_present("help") {
        print(&help(&COMMAND, HEAD, ""));
        return Ok(());
    }
    for (flag, word) in BELONGING {
        if given.opt_present(flag) && given.free.first().is_some_and(|given| given != word) {
            return Err(Refusal::usage(format!("--{flag} goes with '{word}' alone.")));
        }
    }
    let interval = interval(&given)?;
    let is_top = given.free.first().is_some_and(|word| word == TOP);
    let request = match is_top {
        true if given.opt_present("json") => {
            return Err(Refusal::usage("top is for people: --json goes with 'clients' and 'stats'."));
        }
        true if given.free.len() > 1 => {
            return Err(Refusal::usage(format!("'{}' is one word too many behind 'top'.", given.free[1])));
        }
        true => Request::Clients,
        false => Request::of_words(&given.free, given.opt_present("payload")).map_err(usage)?,
    };
    let path = socket(&given)?;
    match request {
        _ if is_top => top::run(&path, interval),
        Request::Clients => {
            let listing = clients(&path, !given.opt_present("now"))?;
            show(&listing, given.opt_present("json"))
        }
        _ => one(&path, &request, given.opt_present("json")),
    }
}

/// What is wrong with the words, in the words of whoever does not know `top`.
fn usage(why: String) -> Refusal {
    Refusal::usage(match why.strip_suffix("stats, reload.") {
        Some(front) => format!("{front}stats, reload, {TOP}. See midge ctl --help."),
        None => why,
    })
}

fn interval(given: &Matches) -> Result<Duration, Refusal> {
    let Some(text) = given.opt_str("interval") else { return Ok(RATE_SPAN) };
    match text.parse() {
        Ok(seconds @ 1..=INTERVAL_MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(Refusal::usage(format!(
            "Invalid value '{text}' for --interval: expected a number of seconds from 1 to {INTERVAL_MAX}."
        ))),
    }
}

/// Where the broker is to be found.
fn socket(given: &Matches) -> Result<PathBuf, Refusal> {
    if let Some(path) = given.opt_str("socket") {
        return Ok(path.into());
    }
    let Some(file) = given.opt_str("config-file") else { return Ok(DEFAULT_PATH.into()) };
    let arguments = ["-c", &file].map(OsString::from);
    match options::parse(arguments.into_iter(), &DiskFiles) {
        Ok(Parsed::Run(settings)) => settings
            .control_socket
            .ok_or_else(|| Refusal::failure(format!("{file} has no line with control_socket: the broker makes none."))),
        Ok(_) => Err(Refusal::failure(format!("{file} is no configuration file."))),
        Err(error) => Err(Refusal::usage(error.to_string())),
    }
}

/// Any other request: rows are shown as they come where that can be.
fn one(path: &Path, request: &Request, is_json: bool) -> Result<(), Refusal> {
    let mut out = io::BufWriter::new(io::stdout());
    let mut listing = Listing::default();
    let said = ask(path, request, &mut || false, &mut |line| {
        match line {
            Line::Columns(columns) => listing.columns = columns,
            Line::Row(row) if is_json => json::write_row(&listing.columns, &row, &mut out)?,
            Line::Row(row) => listing.rows.push(row),
            Line::Ok(_) | Line::Error(_) => {}
        }
        Ok(())
    })?;
    for sentence in &said {
        match is_json {
            true => json::write_sentence(sentence, &mut out)?,
            false => writeln!(out, "{}", table::shown(sentence))?,
        }
    }
    if !is_json && !listing.columns.is_empty() {
        table::write(&listing, width(), &mut out)?;
    }
    out.flush()?;
    Ok(())
}

fn show(listing: &Listing, is_json: bool) -> Result<(), Refusal> {
    let mut out = io::BufWriter::new(io::stdout());
    if is_json {
        listing.rows.iter().try_for_each(|row| json::write_row(&listing.columns, row, &mut out))?;
    } else {
        table::write(listing, width(), &mut out)?;
    }
    out.flush()?;
    Ok(())
}

/// Of the terminal, if there is one.
fn width() -> Option<usize> {
    terminal_size(&io::stdout()).map(|(width, _)| width)
}

/// The clients, with rates if they are wanted: the difference of two looks.
fn clients(path: &Path, has_rates: bool) -> Result<Listing, Refusal> {
    let (before, begun) = (list(path, &Request::Clients, &mut || false)?, Instant::now());
    if !has_rates {
        return Ok(before);
    }
    std::thread::sleep(RATE_SPAN);
    let now = list(path, &Request::Clients, &mut || false)?;
    Ok(rates::with_rates(now, Some((&before, begun.elapsed()))))
}

/// All of a list at once.
fn list(path: &Path, request: &Request, has_enough: &mut dyn FnMut() -> bool) -> Result<Listing, Refusal> {
    let mut listing = Listing::default();
    ask(path, request, has_enough, &mut |line| {
        match line {
            Line::Columns(columns) => listing.columns = columns,
            Line::Row(row) => listing.rows.push(row),
            Line::Ok(_) | Line::Error(_) => {}
        }
        Ok(())
    })?;
    Ok(listing)
}

/// A broker's answer, as long as anybody wants it.
struct Answer<'a> {
    stream: UnixStream,
    has_enough: &'a mut dyn FnMut() -> bool,
}

impl Read for Answer<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            match self.stream.read(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && (self.has_enough)() => {
                    return Err(ErrorKind::BrokenPipe.into());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {}
                result => return result,
            }
        }
    }
}

/// Asks the broker; `each` is given the lines of a list. What is said at the end comes back. While nothing comes, `has_enough`
/// says whether to end without a word.
fn ask(
    path: &Path,
    request: &Request,
    has_enough: &mut dyn FnMut() -> bool,
    each: &mut dyn FnMut(Line) -> Result<(), Refusal>,
) -> Result<Vec<String>, Refusal> {
    let shown = path.display();
    let mut stream = UnixStream::connect(path).map_err(|error| unreachable(path, &error))?;
    let lost = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Refusal::failure(format!("The broker at {shown} does not answer: it is stopped, or far too busy."))
        }
        _ => Refusal::failure(format!("The broker at {shown} hung up: {error}.")),
    };
    stream.set_read_timeout(Some(GLANCE)).map_err(lost)?;
    stream.write_all(&request.line()).map_err(lost)?;
    let mut reader = BufReader::new(Answer { stream, has_enough });
    let (mut bytes, mut width) = (Vec::new(), 0);
    let strange = || Refusal::failure(format!("Whoever answers at {shown} is no broker of this version."));
    loop {
        bytes.clear();
        reader.read_until(b'\n', &mut bytes).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => error.into(),
            _ => lost(error),
        })?;
        let Some(line) = bytes.strip_suffix(b"\n") else {
            return Err(Refusal::failure(format!("The broker at {shown} hung up before its answer was complete.")));
        };
        let line = Line::parse(line).ok_or_else(strange)?;
        match &line {
            Line::Ok(said) => return Ok(said.clone()),
            Line::Error(why) => {
                // Names of clients are in it.
                let lines = why.iter().map(|line| table::shown(line)).collect();
                return Err(Refusal { lines, ..Refusal::failure("") });
            }
            Line::Columns(columns) => width = columns.len(),
            // Whoever looks at a row finds a field for each column.
            Line::Row(row) if row.len() != width || width == 0 => return Err(strange()),
            Line::Row(_) => {}
        }
        each(line)?;
    }
}

fn unreachable(path: &Path, error: &io::Error) -> Refusal {
    let path = path.display();
    Refusal::failure(match error.kind() {
        ErrorKind::NotFound => format!(
            "There is no control socket at {path}: start the broker with --control-socket {path}, or name its own with --socket."
        ),
        ErrorKind::ConnectionRefused => format!(
            "Nobody answers at {path}, a control socket of a broker that is gone: start it with --control-socket {path}."
        ),
        ErrorKind::PermissionDenied => {
            format!("The control socket {path} is for the user the broker runs as, and for root: ask as one of them.")
        }
        _ => format!("The control socket {path} cannot be reached: {error}."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EXIT_USAGE;
    use crate::control::{LOG_WORDS, WORDS};

    fn refused(line: &str) -> String {
        let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(String::from).collect();
        let refusal = run(&words).err().unwrap();
        assert_eq!(refusal.code, EXIT_USAGE);
        refusal.lines.concat()
    }

    #[test]
    fn wrong_words_are_told_the_nearest() {
        for (line, told) in [
            (
                "",
                "A command is missing; there are clients, sessions, subscriptions, retained, kick, session, log, stats, reload, top. See",
            ),
            ("stat", "There is no command 'stat'; the nearest is 'stats'."),
            ("clients --jsn", "Unknown option --jsn; the nearest is --json. See midge ctl --help."),
            ("top x", "'x' is one word too many behind 'top'."),
            ("top --interval 0", "Invalid value '0' for --interval: expected a number of seconds from 1 to 3600."),
            ("--socket", "--socket needs a value."),
            ("stats --now", "--now goes with 'clients' alone."),
            ("clients --interval 2", "--interval goes with 'top' alone."),
            ("top --json", "top is for people: --json goes with 'clients' and 'stats'."),
            ("stats --payload", "--payload goes with 'retained' alone."),
        ] {
            let why = refused(line);
            assert!(why.starts_with(told), "{line}: {why}");
        }
    }

    #[test]
    fn help_man_page_and_completion_name_every_word_and_flag() {
        let man = include_str!("../../../packaging/man/midge-ctl.8").replace('\\', "");
        let help = help(&COMMAND, HEAD, "");
        for word in
            WORDS.iter().chain(&LOG_WORDS).chain(&[TOP]).copied().chain(COMMAND.flags.iter().map(|flag| flag.long))
        {
            assert!(help.contains(word), "{word}");
            assert!(man.contains(word), "{word}");
        }
        let words: Vec<&str> = COMMAND.words.iter().map(|(word, _)| *word).collect();
        assert_eq!(words, [&WORDS[..], &[TOP]].concat());
        assert_eq!(COMMAND.words.iter().find(|(word, _)| *word == "log").unwrap().1, LOG_WORDS.join(" "));
    }

    #[test]
    fn the_help_fits_a_terminal() {
        for line in help(&COMMAND, HEAD, "").lines() {
            assert!(line.len() <= 80 && line.is_ascii() && line.trim_end() == line, "{line}");
        }
    }
}
