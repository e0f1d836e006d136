//! The options: one table (`table`) holds every option once, and everything else reads it. The command line is one
//! reader; the help and the README's table are printed from it. Nothing here touches the system.

mod draft;
mod nearest;
mod print;
mod table;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use getopts::{Fail, Options};

use crate::VERSION;
use crate::config::{Config, ListenerConfig, LogConfig};

use draft::{Draft, Question};
use table::{OPTIONS, Occurs, Row};
use value::Value;

pub use print::{help, markdown_table};

/// What the command line asks for: made once.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Run(Settings),
    /// Print this and end well.
    Help(String),
    /// Print this and end well.
    Version(String),
}

/// Everything the program is told from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub core: Config,
    /// The ceiling over all memory in bytes, 0 = none; nothing if it depends on the machine.
    pub memory_limit: Option<u64>,
    /// Where to keep what must survive, if anything is kept.
    pub store: Option<PathBuf>,
    /// Never empty.
    pub listeners: Vec<ListenerConfig>,
    /// No listener was configured: this machine alone is served, and needs no login.
    pub local_only: bool,
    pub log: LogConfig,
    /// Lines for the log, once there is one: what was asked for and will not be done.
    pub warnings: Vec<String>,
}

/// What is wrong with the command line, as one line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the arguments that follow the program's name.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Parsed, UsageError> {
    let mut draft = Draft::default();
    for (row, text) in given(&texts(arguments)?)? {
        row.value.apply(&mut draft, &text).map_err(|accepted| {
            UsageError(format!("Invalid value '{text}' for --{}: expected {accepted}.", row.flag()))
        })?;
    }
    Ok(match draft.question {
        Some(Question::Help) => Parsed::Help(help()),
        Some(Question::Version) => Parsed::Version(format!("midge version {VERSION}\n")),
        None => Parsed::Run(draft.settle()),
    })
}

fn texts(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, UsageError> {
    let texts: Result<_, _> = arguments.map(OsString::into_string).collect();
    texts.map_err(|raw| UsageError(format!("Argument {raw:?} is not UTF-8.")))
}

/// The options with their values as text, in the order in which they stand: listeners keep it, and of an option that
/// may stand once and stands twice the last one counts.
fn given(arguments: &[String]) -> Result<Vec<(&'static Row, String)>, UsageError> {
    let matches = flags().parse(arguments).map_err(fault)?;
    if let Some(stray) = matches.free.first() {
        return Err(UsageError(format!(
            "Unexpected argument '{stray}': every argument belongs to an option, and a value with a blank in it needs \
             quotes. See --help."
        )));
    }
    // Positions count arguments, so there is one place for each; combined switches share theirs.
    let mut places: Vec<Vec<(&Row, String)>> = arguments.iter().map(|_| Vec::new()).collect();
    for row in OPTIONS {
        let values = match row.value {
            Value::Switch(_) => matches.opt_positions(&row.flag()).into_iter().map(|at| (at, String::new())).collect(),
            _ => matches.opt_strs_pos(&row.flag()),
        };
        match row.occurs {
            Occurs::UpTo(most) if values.len() > most => {
                return Err(UsageError(format!("--{} may stand at most {most} times.", row.flag())));
            }
            _ => values.into_iter().for_each(|(at, text)| places[at].push((row, text))),
        }
    }
    Ok(places.into_iter().flatten().collect())
}

/// The table as getopts wants it. Help texts stay out: getopts' own help is not used.
fn flags() -> Options {
    let mut flags = Options::new();
    for row in OPTIONS {
        let short = row.short.map_or(String::new(), String::from);
        match row.value {
            Value::Switch(_) => flags.optflagmulti(&short, &row.flag(), ""),
            _ => flags.optmulti(&short, &row.flag(), "", ""),
        };
    }
    flags
}

fn fault(fail: Fail) -> UsageError {
    UsageError(match fail {
        Fail::UnrecognizedOption(name) => format!("Unknown option {}. See --help.", nearest::unknown(&name)),
        Fail::ArgumentMissing(name) => match Row::of_flag(&name) {
            Some(row) => format!("--{} needs a value: {}.", row.flag(), row.value.accepted()),
            None => format!("--{name} needs a value."),
        },
        Fail::UnexpectedArgument(name) => format!("--{name} takes no value."),
        Fail::OptionMissing(name) | Fail::OptionDuplicated(name) => format!("--{name} must stand exactly once."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, LogDestination, LogTypes, Protocol, QueuePolicy, Rules};

    fn parse(line: &[&str]) -> Result<Parsed, String> {
        super::parse(line.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    fn settings(line: &[&str]) -> Settings {
        match parse(line) {
            Ok(Parsed::Run(settings)) => settings,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn listener(port: u16, host: Host, allow_anonymous: bool) -> ListenerConfig {
        ListenerConfig { rules: Rules { allow_anonymous, ..Rules::default() }, ..ListenerConfig::new(port, host) }
    }

    #[test]
    fn nothing_given_is_local_only_without_login() {
        let settings = settings(&[]);
        assert!(settings.local_only);
        assert_eq!(settings.core, Config::default());
        assert_eq!(settings.listeners, [listener(1883, Host::Loopback, true)]);
        assert_eq!(settings.log, LogConfig::default());
        assert!(settings.warnings.is_empty());
    }

    #[test]
    fn ports_are_for_this_machine_and_may_stand_ten_times() {
        let two = settings(&["-p", "1884", "--port=0"]);
        assert!(two.local_only);
        assert_eq!(two.listeners, [listener(1884, Host::Loopback, true), listener(0, Host::Loopback, true)]);
        assert_eq!(settings(&["-p1884"; 10]).listeners.len(), 10);
        assert_eq!(parse(&["-p1884"; 11]).unwrap_err(), "--port may stand at most 10 times.");
    }

    #[test]
    fn listeners_end_local_only_mode_and_switch_off_ports() {
        let settings = settings(&["-p", "1884", "--listener", "1883", "--listener", " 0  fe80::1%eth0 "]);
        assert!(!settings.local_only);
        let named = Host::Named("fe80::1%eth0".to_string());
        assert_eq!(settings.listeners, [listener(1883, Host::All, false), listener(0, named, false)]);
        assert_eq!(settings.warnings, ["--port is ignored, because a listener is configured."]);
    }

    #[test]
    fn anonymous_is_what_was_said_last() {
        assert!(settings(&["--listener", "1", "--allow-anonymous", "true"]).listeners[0].rules.allow_anonymous);
        assert!(!settings(&["--allow-anonymous", "1", "--allow-anonymous", "0"]).listeners[0].rules.allow_anonymous);
    }

    fn protocols(settings: &Settings) -> Vec<(u16, Protocol)> {
        settings.listeners.iter().map(|listener| (listener.port, listener.protocol)).collect()
    }

    #[test]
    fn a_protocol_belongs_to_the_listener_before_it() {
        use Protocol::{Mqtt, WebSockets};
        for (line, expected) in [
            ("--listener 1 --listener 2 --protocol websockets", &[(1, Mqtt), (2, WebSockets)][..]),
            ("--listener 1 --protocol=websockets --listener 2", &[(1, WebSockets), (2, Mqtt)]),
            ("--listener 1 --protocol websockets -v --protocol mqtt", &[(1, Mqtt)]),
            (
                "--listener 1 --protocol websockets --listener 2 --protocol websockets",
                &[(1, WebSockets), (2, WebSockets)],
            ),
            ("--protocol websockets", &[(1883, WebSockets)]),
            ("--protocol websockets -p 1 -p 2", &[(1, WebSockets), (2, WebSockets)]),
        ] {
            let settings = settings(&line.split(' ').collect::<Vec<_>>());
            assert_eq!(protocols(&settings), expected, "{line}");
            assert!(settings.warnings.is_empty(), "{line}");
        }
    }

    #[test]
    fn a_protocol_before_the_first_listener_is_told_to_be_ignored() {
        let settings = settings(&["--protocol", "websockets", "--listener", "1"]);
        assert_eq!(protocols(&settings), [(1, Protocol::Mqtt)]);
        assert_eq!(settings.warnings.len(), 1);
        assert!(settings.warnings[0].starts_with("--protocol before the first --listener is ignored"));
    }

    #[test]
    fn quiet_beats_verbose() {
        assert_eq!(settings(&["-v", "--log-type", "error"]).log.types, LogTypes::ALL);
        assert_eq!(settings(&["-qv"]).log.types, LogTypes::NONE);
    }

    #[test]
    fn log_destinations_and_types_add_up_until_none() {
        let settings =
            settings(&["--log-dest", "stdout", "--log-dest", "none", "--log-dest", "file /var/log/midge.log"]);
        assert_eq!(settings.log.destinations, [LogDestination::File("/var/log/midge.log".into())]);
        let types = |line: &[&str]| super::tests::settings(line).log.types;
        let error = LogTypes { error: true, ..LogTypes::NONE };
        assert_eq!(types(&["--log-type", "error"]), error);
        assert_eq!(types(&["--log-type", "all", "--log-type", "none", "--log-type", "error"]), error);
        assert_eq!(types(&["--log-type", "none"]), LogTypes::NONE);
    }

    #[test]
    fn values_reach_the_configuration() {
        let line = ["--max-queued-bytes", "-1", "--queue-policy=reject", "--persistent-client-expiration", "2h"];
        let core = settings(&line).core;
        assert_eq!(core.max_queued_bytes, 0);
        assert_eq!(core.queue_policy, QueuePolicy::Reject);
        assert_eq!(core.persistent_client_expiration_s, 7200);
    }

    #[test]
    fn faults_name_the_option_and_what_is_accepted() {
        for (line, expected) in [
            (&["--max-qos", "3"][..], "Invalid value '3' for --max-qos: expected 0, 1 or 2."),
            (&["--protocol", "http_api"], "Invalid value 'http_api' for --protocol: expected mqtt or websockets."),
            (&["--max-qos"], "--max-qos needs a value: 0, 1 or 2."),
            (&["-p"], "--port needs a value: a number from 0 to 65535."),
            (&["--quiet=1"], "--quiet takes no value."),
            (&["--lisener", "1"], "Unknown option --lisener; the nearest is --listener. See --help."),
            (&["-x"], "Unknown option -x; the short ones are -p -v -q -h. See --help."),
            (
                &["--listener", "1883", "192.0.2.1"],
                "Unexpected argument '192.0.2.1': every argument belongs to an option, and a value with a blank in it \
                 needs quotes. See --help.",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err(), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let error = super::parse([OsString::from_vec(vec![b'-', 0xff])].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), r#"Argument "-\xFF" is not UTF-8."#);
    }
}
