//! What the program does besides serving: `midge COMMAND ...`. Each command is a file of its own, with its own flags; here are
//! their names, and what is the same for all.

mod ctl;
mod passwd;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};

use getopts::{Fail, Matches, Options, ParsingStyle};

use crate::options::{flag_usage, push_help};
use crate::spelling::distance;
use crate::{EXIT_FAILURE, EXIT_USAGE};

/// A command by its name: what it does with the arguments behind that, and the exit code.
pub struct Command {
    pub name: &'static str,
    /// In the program's help.
    pub purpose: &'static str,
    /// Words that may stand behind it, and what may follow each, for completion; empty if it takes none but names of files and users.
    pub words: &'static [(&'static str, &'static str)],
    pub flags: &'static [Flag],
    /// They stand in front of everything else, so that what follows may begin with a dash.
    are_flags_first: bool,
    run: fn(&[String]) -> Result<(), Refusal>,
}

pub const COMMANDS: [Command; 2] = [ctl::COMMAND, passwd::COMMAND];

/// A flag of a command.
pub struct Flag {
    pub short: Option<char>,
    pub long: &'static str,
    /// What stands for its value; empty if it has none.
    pub placeholder: &'static str,
    pub help: &'static str,
}

impl Flag {
    /// `-p, --port PORT`
    pub fn usage(&self) -> String {
        flag_usage(self.short, self.long, self.placeholder)
    }

    fn short_name(&self) -> String {
        self.short.map_or(String::new(), String::from)
    }
}

/// Why a command ends without having done what it was asked for, in lines for standard error. Without any, nobody wants to know: whoever
/// read the output has seen enough.
struct Refusal {
    lines: Vec<String>,
    code: u8,
}

impl Refusal {
    fn usage(text: impl Into<String>) -> Refusal {
        Refusal { lines: vec![text.into()], code: EXIT_USAGE }
    }

    fn failure(text: impl Into<String>) -> Refusal {
        Refusal { lines: vec![text.into()], code: EXIT_FAILURE }
    }
}

impl From<io::Error> for Refusal {
    /// Of an error of standard output.
    fn from(error: io::Error) -> Refusal {
        match error.kind() {
            ErrorKind::BrokenPipe => Refusal { lines: Vec::new(), code: 0 },
            _ => Refusal::failure(format!("Standard output cannot be written: {error}.")),
        }
    }
}

/// All commands, as the last part of the program's help.
pub fn list() -> String {
    let mut out = "\nCommands, each with a --help of its own:\n".to_string();
    for command in &COMMANDS {
        push_help(&mut out, command.name, command.purpose);
    }
    out
}

/// Runs the command that the first argument names, as well as somebody can spell; gives the exit code, or nothing if it is no
/// command and the broker is to be started.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Option<u8> {
    let name = arguments.next()?.into_string().ok().filter(|name| !name.starts_with('-'))?;
    let nearest = nearest(&name, &mut COMMANDS.iter().map(|command| command.name));
    let command = COMMANDS.iter().find(|command| command.name == nearest)?;
    if name.len() > 2 * nearest.len() || distance(name.as_bytes(), nearest) * 2 > nearest.len() {
        return None;
    }
    let texts: Result<Vec<String>, OsString> = arguments.map(OsString::into_string).collect();
    let result = match texts {
        _ if name != nearest => {
            Err(Refusal::usage(format!("There is no command '{name}'; the nearest is {nearest}. See --help.")))
        }
        Ok(texts) => (command.run)(&texts),
        Err(raw) => Err(Refusal::usage(format!("Argument {raw:?} is not UTF-8."))),
    };
    Some(result.map_or_else(
        |refusal| {
            for line in &refusal.lines {
                // Not eprintln, which panics if standard error is closed.
                let _ = writeln!(io::stderr(), "Error: {line}");
            }
            refusal.code
        },
        |()| 0,
    ))
}

fn parse(command: &Command, arguments: &[String]) -> Result<Matches, Refusal> {
    let mut options = Options::new();
    if command.are_flags_first {
        options.parsing_style(ParsingStyle::StopAtFirstFree);
    }
    for flag in command.flags {
        match flag.placeholder {
            "" => options.optflagmulti(&flag.short_name(), flag.long, ""),
            _ => options.optopt(&flag.short_name(), flag.long, "", ""),
        };
    }
    options.parse(arguments).map_err(|fail| {
        let shown = |name: &str| match command.flags.iter().find(|flag| name == flag.long || name == flag.short_name())
        {
            Some(flag) => format!("--{}", flag.long),
            None => name.to_string(),
        };
        let text = match fail {
            Fail::UnrecognizedOption(name) if name.chars().count() == 1 => {
                let letters: String =
                    command.flags.iter().filter_map(|flag| flag.short).flat_map(|short| [' ', '-', short]).collect();
                format!("Unknown option -{name}; the short ones are{letters}")
            }
            Fail::UnrecognizedOption(name) => {
                let nearest = nearest(&name, &mut command.flags.iter().map(|flag| flag.long));
                format!("Unknown option --{name}; the nearest is --{nearest}")
            }
            Fail::ArgumentMissing(name) => format!("{} needs a value", shown(&name)),
            Fail::UnexpectedArgument(name) => format!("{} takes no value", shown(&name)),
            Fail::OptionDuplicated(name) | Fail::OptionMissing(name) => format!("{} may stand once", shown(&name)),
        };
        Refusal::usage(format!("{text}. See midge {} --help.", command.name))
    })
}

/// What `--help` prints of a command.
fn help(command: &Command, head: &str, foot: &str) -> String {
    let mut out = head.to_string();
    for flag in command.flags {
        push_help(&mut out, &flag.usage(), flag.help);
    }
    out + foot
}

/// The word that is most like the one that was written. There must be one at least.
fn nearest<'a>(written: &str, words: &mut dyn Iterator<Item = &'a str>) -> &'a str {
    // No word is longer.
    let written = written.char_indices().nth(64).map_or(written, |(end, _)| &written[..end]);
    words.min_by_key(|word| distance(written.as_bytes(), word)).unwrap_or_default()
}

/// On standard output. A reader that closed the pipe has seen enough.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
