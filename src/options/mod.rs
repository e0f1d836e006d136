//! The options: one table (`table`) holds every option once, and everything else reads it. The configuration file and the command
//! line are its two readers; the help, the man pages, the README's table and the shell's completion are printed from it. Nothing here
//! touches the system: files come from whoever calls.

#[cfg(test)]
mod docs;
mod draft;
mod explain;
mod file;
mod foreign;
mod nearest;
mod print;
mod table;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use getopts::{Fail, Options};

use crate::VERSION;
use crate::config::{Config, ListenerConfig, LogConfig};

use draft::{Draft, Question};
use file::{Line, Verdict};
use foreign::{FOREIGN, Foreign, Plan};
use table::{Occurs, Row};
use value::Value;

pub use file::{FILE_BYTES_MAX, Files};
pub use print::{flag_usage, help, push_help};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Run(Settings),
    /// Check the rest, too, and end; or say all that is wrong so far.
    TestConfig(Result<Settings, UsageError>),
    /// Print this and end well.
    Help(String),
    /// Print this and end well.
    Version(String),
    /// Print this and end, well if nothing in it is refused.
    Explanation {
        text: String,
        is_accepted: bool,
    },
}

/// Everything the program is told from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub core: Config,
    /// The ceiling over all memory in bytes, 0 = none; nothing if it depends on the machine.
    pub memory_limit: Option<u64>,
    /// Where to keep what must survive, if anything is kept.
    pub store: Option<Store>,
    /// Never empty.
    pub listeners: Vec<ListenerConfig>,
    /// No listener was configured: this machine alone is served, and needs no login.
    pub local_only: bool,
    pub log: LogConfig,
    pub startup: Startup,
    /// The Unix socket where `midge ctl` finds the broker. None unless it is asked for: nothing listens that nobody wanted.
    pub control_socket: Option<PathBuf>,
    pub config_file: Option<PathBuf>,
    /// Lines for the log, once there is one: what was asked for and will not be done.
    pub warnings: Vec<String>,
}

/// Where what must survive is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub location: PathBuf,
    pub file: Option<String>,
}

impl Store {
    /// The directory: a file that is named stands for one beside Mosquitto's own file of that name, if there is one.
    pub fn path(&self) -> PathBuf {
        match &self.file {
            Some(name) => self.location.join(format!("{name}.midge")),
            None => self.location.clone(),
        }
    }
}

/// What counts once, when the program starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    pub daemon: bool,
    /// Whom to become when started by root; nothing for mosquitto.
    pub user: Option<String>,
    pub pid_file: Option<PathBuf>,
}

/// What is wrong with the command line or the configuration file, one line for the user each. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(Vec<String>);

impl UsageError {
    /// All that is wrong.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl From<String> for UsageError {
    fn from(line: String) -> UsageError {
        UsageError(vec![line])
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[0])?;
        match self.0.len() - 1 {
            0 => Ok(()),
            more => write!(f, " There is more that is wrong, {more} in all: --test-config shows it."),
        }
    }
}

/// Reads the arguments that follow the program's name, and the file that they name.
///
/// # Errors
/// When anything in them is wrong: then nothing of them counts.
pub fn parse(arguments: impl Iterator<Item = OsString>, files: &dyn Files) -> Result<Parsed, UsageError> {
    answer(&texts(arguments)?, files)
}

/// Apart from `parse`, which there is one of for each kind of iterator.
fn answer(arguments: &[String], files: &dyn Files) -> Result<Parsed, UsageError> {
    let given = Given::of(arguments)?;
    // A first look: whether there is a file, which is read before the flags that win over it.
    let asked = given.apply(Draft::default())?;
    match asked.question {
        Some(Question::Help) => return Ok(Parsed::Help(help())),
        Some(Question::Version) => return Ok(Parsed::Version(format!("midge version {VERSION}\n"))),
        Some(Question::Explain(path)) => return explanation(&path, files),
        Some(Question::TestConfig) | None => {}
    }
    let settings = settings(asked.config_file.as_deref(), &given, files);
    match asked.question {
        Some(Question::TestConfig) => Ok(Parsed::TestConfig(settings)),
        _ => settings.map(Parsed::Run),
    }
}

/// What file and flags come to.
fn settings(path: Option<&Path>, given: &Given, files: &dyn Files) -> Result<Settings, UsageError> {
    let mut draft = Draft::default();
    if let Some(path) = path {
        let lines = file::read(path, files, &mut draft, false).map_err(|error| unreadable(path, &error))?;
        accept(&lines, &mut draft)?;
    }
    Ok(given.apply(draft)?.settle())
}

/// The remarks on the lines of a file, or what is wrong with them.
fn accept(lines: &[Line], draft: &mut Draft) -> Result<(), UsageError> {
    let refused = |line: &Line| match &line.verdict {
        Verdict::Refused(text) => Some(format!("{text} Error found at {}.", line.place)),
        _ => None,
    };
    let faults: Vec<String> = lines.iter().filter_map(refused).collect();
    if !faults.is_empty() {
        return Err(UsageError(faults));
    }
    for line in lines {
        if let Verdict::Remarked(text) = &line.verdict {
            draft.remark(format!("{text} ({})", line.place));
        }
    }
    Ok(())
}

fn explanation(path: &Path, files: &dyn Files) -> Result<Parsed, UsageError> {
    let mut draft = Draft::default();
    let lines = file::read(path, files, &mut draft, true).map_err(|error| unreadable(path, &error))?;
    let is_accepted = accept(&lines, &mut draft).is_ok();
    let text = explain::text(&lines, is_accepted.then(|| draft.settle()).as_ref());
    Ok(Parsed::Explanation { text, is_accepted })
}

fn unreadable(path: &Path, error: &std::io::Error) -> UsageError {
    UsageError::from(format!("The configuration file {} cannot be read: {error}.", path.display()))
}

fn texts(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, UsageError> {
    let texts: Result<_, _> = arguments.map(OsString::into_string).collect();
    texts.map_err(|raw| UsageError::from(format!("Argument {raw:?} is not UTF-8.")))
}

/// The flags with their values as text.
struct Given {
    /// In the order in which they stand: listeners keep it, and of an option that may stand once and stands twice the last one
    /// counts.
    options: Vec<(&'static Row, String)>,
    /// Of options that are passed over.
    remarks: Vec<String>,
}

impl Given {
    fn of(arguments: &[String]) -> Result<Given, UsageError> {
        let matches = flags().parse(arguments).map_err(fault)?;
        if let Some(stray) = matches.free.first() {
            return Err(UsageError::from(format!(
                "Unexpected argument '{stray}': every argument belongs to an option, and a value with a blank in it needs \
                 quotes. See --help."
            )));
        }
        let mut remarks = Vec::new();
        for it in named() {
            let flag = flag_of(it.name);
            if matches.opt_present(&flag) {
                let text = it.text(&format!("--{flag}"));
                if it.plan != Plan::Warn {
                    return Err(UsageError::from(text));
                }
                remarks.push(text);
            }
        }
        // Positions count arguments, so there is one place for each; combined switches share theirs.
        let mut places: Vec<Vec<(&Row, String)>> = arguments.iter().map(|_| Vec::new()).collect();
        for row in Row::flags() {
            let values: Vec<(usize, String)> = row
                .names()
                .flat_map(|name| match row.value {
                    Value::Switch(_) => {
                        matches.opt_positions(&name).into_iter().map(|at| (at, String::new())).collect()
                    }
                    _ => matches.opt_strs_pos(&name),
                })
                .collect();
            match row.occurs {
                Occurs::UpTo(most) if values.len() > most => {
                    return Err(UsageError::from(format!("--{} may stand at most {most} times.", row.flag())));
                }
                _ => values.into_iter().for_each(|(at, text)| places[at].push((row, text))),
            }
        }
        Ok(Given { options: places.into_iter().flatten().collect(), remarks })
    }

    /// Puts them on top of what the file says.
    fn apply(&self, mut draft: Draft) -> Result<Draft, UsageError> {
        draft.begin_flags();
        for (row, text) in &self.options {
            row.value.apply(&mut draft, text).map_err(|accepted| {
                UsageError::from(format!("Invalid value '{text}' for --{}: expected {accepted}.", row.flag()))
            })?;
        }
        self.remarks.iter().for_each(|remark| draft.remark(remark.clone()));
        Ok(draft)
    }
}

/// What is known and not done, by a name of its own.
fn named() -> impl Iterator<Item = &'static Foreign> {
    FOREIGN.iter().filter(|it| !it.name.ends_with('*'))
}

fn flag_of(name: &str) -> String {
    name.replace('_', "-")
}

/// The table as getopts wants it. Help texts stay out: getopts' own help is not used.
fn flags() -> Options {
    let mut flags = Options::new();
    for row in Row::flags() {
        let mut short = row.short.map_or(String::new(), String::from);
        for name in row.names() {
            match row.value {
                Value::Switch(_) => flags.optflagmulti(&short, &name, ""),
                _ => flags.optmulti(&short, &name, "", ""),
            };
            short.clear();
        }
    }
    for it in named() {
        flags.optmulti("", &flag_of(it.name), "", "");
    }
    flags
}

fn fault(fail: Fail) -> UsageError {
    UsageError::from(match fail {
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
    use crate::config::{Autosave, Domain, Host, LogDestination, LogTypes, Protocol, QueuePolicy, Rules};
    use std::io;

    /// Files by path.
    struct Made(Vec<(&'static str, &'static str)>);

    impl Files for Made {
        fn read(&self, path: &Path, _: usize) -> io::Result<Vec<u8>> {
            let found = self.0.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
            let paths = self.0.iter().map(|(name, _)| Path::new(name)).filter(|it| it.parent() == Some(path));
            let names: Vec<OsString> = paths.filter_map(Path::file_name).map(OsString::from).collect();
            if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names) }
        }
    }

    fn parse(line: &[&str]) -> Result<Parsed, String> {
        super::parse(line.iter().map(OsString::from), &Made(Vec::new())).map_err(|error| error.to_string())
    }

    /// What comes of a file, with flags.
    fn of_file(text: &'static str, flags: &[&str]) -> Result<Settings, String> {
        of_files(vec![("/m.conf", text)], flags)
    }

    fn of_files(files: Vec<(&'static str, &'static str)>, flags: &[&str]) -> Result<Settings, String> {
        let line = ["-c", "/m.conf"].iter().chain(flags).map(OsString::from);
        match super::parse(line, &Made(files)) {
            Ok(Parsed::Run(settings)) => Ok(settings),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.lines().join("\n")),
        }
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
    fn a_flag_before_the_first_listener_is_about_all() {
        use Protocol::{Mqtt, WebSockets};
        let settings =
            settings(&["--protocol", "websockets", "--listener", "1", "--listener", "2", "--protocol", "mqtt"]);
        assert_eq!(protocols(&settings), [(1, WebSockets), (2, Mqtt)]);
    }

    #[test]
    fn quiet_beats_verbose() {
        assert_eq!(settings(&["-v"]).log.types, LogTypes::ALL);
        assert_eq!(settings(&["-qv"]).log.types, LogTypes::NONE);
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
            (&["-x"], "Unknown option -x; the short ones are -p -v -q -c -d -h. See --help."),
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
        let error = super::parse([OsString::from_vec(vec![b'-', 0xff])].into_iter(), &Made(Vec::new())).unwrap_err();
        assert_eq!(error.to_string(), r#"Argument "-\xFF" is not UTF-8."#);
    }

    #[test]
    fn foreign_flags_say_why() {
        assert!(
            parse(&["--certfile", "x"]).unwrap_err().starts_with("--certfile is not in this version: there is no TLS")
        );
        assert!(parse(&["--plugin", "x"]).unwrap_err().starts_with("--plugin is not supported: "));
        assert!(settings(&["--http-dir", "x"]).warnings[0].starts_with("--http-dir is passed over: "));
    }

    #[test]
    fn the_default_file_of_debian() {
        let files = vec![
            (
                "/m.conf",
                "# Place your local configuration in /etc/mosquitto/conf.d/\n#\n\npid_file /run/mosquitto/mosquitto.pid\n\n\
                 persistence true\npersistence_location /var/lib/mosquitto/\n\n\
                 log_dest file /var/log/mosquitto/mosquitto.log\n\ninclude_dir /conf.d\n",
            ),
            ("/conf.d/README", "no configuration"),
            ("/conf.d/local.conf", "listener 1883\r\nallow_anonymous true\r\n"),
        ];
        let settings = of_files(files, &[]).unwrap();
        assert_eq!(settings.startup.pid_file, Some("/run/mosquitto/mosquitto.pid".into()));
        assert_eq!(settings.store.unwrap().path(), Path::new("/var/lib/mosquitto/"));
        assert_eq!(settings.log.destinations, [LogDestination::File("/var/log/mosquitto/mosquitto.log".into())]);
        assert_eq!(settings.listeners, [listener(1883, Host::All, true)]);
        assert!(!settings.local_only && settings.warnings.is_empty());
    }

    #[test]
    fn flags_win_over_the_file_and_add_listeners() {
        let text = "listener 1\nmax_qos 0\nallow_anonymous true\nlog_type debug\nlog_dest syslog\nsys_interval 5\n";
        let plain = of_file(text, &[]).unwrap();
        assert_eq!(plain.listeners[0].rules.max_qos, crate::codec::QoS::AtMostOnce);
        assert_eq!(plain.core.sys_interval_s, 5);
        let flags = [
            "--max-qos",
            "1",
            "--listener",
            "2",
            "--max-qos",
            "2",
            "--allow-anonymous",
            "false",
            "--log-type",
            "error",
        ];
        let both = of_file(text, &flags).unwrap();
        let seen: Vec<_> =
            both.listeners.iter().map(|it| (it.port, it.rules.max_qos as u8, it.rules.allow_anonymous)).collect();
        assert_eq!(seen, [(1, 1, false), (2, 2, false)]);
        assert_eq!(both.log.types, LogTypes { error: true, ..LogTypes::NONE });
        assert_eq!(both.log.destinations, [LogDestination::Syslog]);
    }

    #[test]
    fn options_before_the_first_listener_are_about_one_of_their_own() {
        let settings = of_file("max_connections 5\nlistener 1\nmax_connections 6\n", &["-p", "7"]).unwrap();
        let seen: Vec<_> = settings.listeners.iter().map(|it| (it.port, it.host.clone(), it.max_connections)).collect();
        assert_eq!(seen, [(1883, Host::All, 5), (1, Host::All, 6)]);
        let told =
            "no listener line stands before it: it opens one of its own, on port 1883 of all addresses. (/m.conf:1)";
        assert_eq!(settings.warnings, [told, "--port is ignored, because a listener is configured."]);
    }

    #[test]
    fn the_old_way_to_say_listener() {
        let settings = of_file("listener 1\nport 1884\nbind_address 127.0.0.1\nsocket_domain ipv4\n", &[]).unwrap();
        let seen: Vec<_> = settings.listeners.iter().map(|it| (it.port, it.domain)).collect();
        assert_eq!(seen, [(1884, None), (1, Some(Domain::Ipv4))]);
        assert_eq!(settings.listeners[0].host, Host::Named("127.0.0.1".to_string()));
        assert!(settings.warnings[0].ends_with("(/m.conf:2)"), "{:?}", settings.warnings);
    }

    #[test]
    fn security_belongs_to_listeners_if_they_say_so() {
        let text = "per_listener_settings true\nlistener 1\nallow_anonymous true\nlistener 2\nauto_id_prefix x\n";
        let settings = of_file(text, &[]).unwrap();
        let seen: Vec<_> =
            settings.listeners.iter().map(|it| (it.rules.allow_anonymous, it.rules.auto_id_prefix.as_str())).collect();
        assert_eq!(seen, [(true, "auto-"), (false, "x")]);
        let all = of_file("listener 1\nlistener 2\nallow_anonymous true\n", &[]).unwrap();
        assert!(all.listeners.iter().all(|it| it.rules.allow_anonymous));
        let own = "allow_anonymous true\nlistener 1\nlistener_allow_anonymous false\nlistener_auto_id_prefix y\n";
        let own = of_file(own, &[]).unwrap();
        assert!(!own.listeners[0].rules.allow_anonymous);
        assert_eq!(own.listeners[0].rules.auto_id_prefix, "y");
        for (text, expected) in [
            (
                "per_listener_settings true\nallow_anonymous true\n",
                "allow_anonymous needs a listener line before it, because per_listener_settings is true. Error found at \
                 /m.conf:2.",
            ),
            (
                "allow_anonymous true\nper_listener_settings true\n",
                "per_listener_settings must stand before the first option about security, such as allow_anonymous. Error \
                 found at /m.conf:2.",
            ),
        ] {
            assert_eq!(of_file(text, &[]).unwrap_err(), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        for (text, expected) in [
            (
                "\nlisener 1883\n",
                "Unknown configuration variable 'lisener'; the nearest is 'listener'. Error found at /m.conf:2.",
            ),
            (
                "allow_anonymous\ttrue",
                "Unknown configuration variable 'allow_anonymous\\ttrue'; a tab does not separate, only a blank does. Error \
                 found at /m.conf:1.",
            ),
            (
                " # indented",
                "Unknown configuration variable '#'; a comment begins in the first column. Error found at /m.conf:1.",
            ),
            (
                "\u{feff}port 1",
                "Unknown configuration variable '\\u{feff}port'; the file begins with a byte order mark, which must go. Error \
                 found at /m.conf:1.",
            ),
            (
                "listener",
                "listener needs a value: a port from 0 to 65535 and, if wanted, a blank and an address or host; or 0 and the path of a Unix socket. Error found at /m.conf:1.",
            ),
            (
                "sys_interval 10k",
                "Invalid value '10k' for sys_interval: expected a number from 1 to 65535, or 0 for no such topics. Error found at /m.conf:1.",
            ),
            (
                "allow_anonymous True",
                "Invalid value 'True' for allow_anonymous: expected true or false. Error found at /m.conf:1.",
            ),
            (
                "auto_id_prefix a\nauto_id_prefix b",
                "Duplicate auto_id_prefix: it may stand once. Error found at /m.conf:2.",
            ),
            (
                "mount_point a/\n",
                "mount_point needs a listener line before it, which it is about. Error found at /m.conf:1.",
            ),
            (
                "certfile /c.pem\n",
                "certfile is not in this version: there is no TLS yet, and a listener that asks for it must not be opened in plain text. Error found at /m.conf:1.",
            ),
            (
                "plugin_opt_file x\n",
                "plugin_opt_file is not supported: plugins are libraries of C, which are not loaded; password_file and acl_file may do instead. Error found at /m.conf:1.",
            ),
            ("include_dir /none\n", "/none cannot be read: entity not found. Error found at /m.conf:1."),
            (
                "log_dest file a\nlog_dest file b",
                "Invalid value 'file b' for log_dest: expected none, stdout, stderr, syslog, topic, or 'file PATH' once. Error found at /m.conf:2.",
            ),
        ] {
            assert_eq!(of_file(text, &[]).unwrap_err(), expected, "{text}");
        }
        let flag_only = of_file("verbose true", &[]).unwrap_err();
        assert!(flag_only.starts_with("Unknown configuration variable 'verbose'; the nearest is "), "{flag_only}");
        assert_eq!(of_file("x\ny\n", &[]).unwrap_err().lines().count(), 2);
        assert_eq!(
            of_files(Vec::new(), &[]).unwrap_err(),
            "The configuration file /m.conf cannot be read: entity not found."
        );
    }

    #[test]
    fn lines_are_read_as_mosquitto_reads_them() {
        let text = "  sys_interval   0x10   # why not\nallow_anonymous true # yes\nlistener 1\nauto_id_prefix a b # c/ \n   \n#\t\0\n";
        let settings = of_file(text, &[]).unwrap();
        assert_eq!(settings.core.sys_interval_s, 16);
        assert!(settings.listeners[0].rules.allow_anonymous);
        assert_eq!(settings.listeners[0].rules.auto_id_prefix, "a b # c/");
    }

    #[test]
    fn included_files_come_in_mosquittos_order_and_begin_without_a_section() {
        let files = vec![
            ("/m.conf", "listener 1\ninclude_dir /d\nmount_point m/\n"),
            ("/d/b.conf", "max_connections 3\n"),
            ("/d/a.conf", "auto_id_prefix a\n"),
            ("/d/A.conf", "listener 2\nmax_connections 2\n"),
            ("/d/.hidden.conf", "sys_interval 9\n"),
            ("/d/.conf", "x\n"),
            ("/d/x.txt", "x\n"),
        ];
        let settings = of_files(files, &[]).unwrap();
        let seen: Vec<_> =
            settings.listeners.iter().map(|it| (it.port, it.max_connections, it.rules.mount_point.as_str())).collect();
        assert_eq!(seen, [(1883, 3, ""), (1, 0, "m/"), (2, 2, "")]);
        assert_eq!(settings.core.sys_interval_s, 9);
        let nested = vec![("/m.conf", "\ninclude_dir /d\n"), ("/d/a.conf", "\n\ninclude_dir /d\n")];
        assert_eq!(
            of_files(nested, &[]).unwrap_err(),
            "include_dir must not stand in a file that is included. Error found at /d/a.conf:3, included at /m.conf:2."
        );
    }

    #[test]
    fn a_file_is_explained_line_by_line() {
        let explain = |text| {
            let line = ["--explain-config", "/m.conf"].iter().map(OsString::from);
            match super::parse(line, &Made(vec![("/m.conf", text)])) {
                Ok(Parsed::Explanation { text, is_accepted }) => (text, is_accepted),
                other => panic!("{other:?}"),
            }
        };
        let (text, is_accepted) = explain("# mine\nlistener 1883 ::1\nhttp_dir /www\n");
        assert!(is_accepted);
        assert!(text.contains("/m.conf:2: listener 1883 ::1\n    done: Listen on"), "{text}");
        assert!(text.contains("    unlike Mosquitto: "), "{text}");
        assert!(text.contains("/m.conf:3: http_dir /www\n    note: http_dir is passed over: "), "{text}");
        assert!(text.contains("Listening on port 1883 of ::1: clients without a user name are refused.\n"), "{text}");
        assert!(!text.contains("mine"), "{text}");
        let (text, is_accepted) = explain("connection up\n");
        assert!(!is_accepted);
        assert!(text.contains("    REFUSED: connection is not in this version: there are no bridges yet.\n"), "{text}");
        assert!(text.ends_with("midge does not start with this file.\n"), "{text}");
    }

    /// A line of each of Mosquitto's keywords does what is planned for it: nothing is passed over in silence.
    #[test]
    fn every_keyword_of_mosquitto_is_done_or_named_with_its_line() {
        let table = include_str!("../../tests/vectors/mosquitto-keywords.tsv");
        let (mut count, mut not_done) = (0, Vec::new());
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let [keyword, _, _, plan, ref test @ ..] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let keyword = keyword.replace('*', "key");
            let text = format!("listener 1\n{keyword} 1\n");
            let of_line = of_file(text.leak(), &[]);
            count += 1;
            match (plan, of_line) {
                ("do", _) => {
                    let (file, name) = test[0].split_once(':').unwrap_or_else(|| panic!("{line}"));
                    let path = format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"));
                    let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                    assert!(source.contains(&format!("fn {name}()")), "{path} has no test {name}");
                    if Row::of_keyword(&keyword).is_none() {
                        not_done.push(keyword);
                    }
                }
                ("warn", Ok(settings)) => {
                    let begin = format!("{keyword} is passed over: ");
                    let [warning] = &settings.warnings[..] else { panic!("{keyword}: {:?}", settings.warnings) };
                    assert!(warning.starts_with(&begin) && warning.ends_with(" (/m.conf:2)"), "{warning}");
                }
                ("later", Err(text)) => {
                    assert!(text.starts_with(&format!("{keyword} is not in this version: ")), "{text}");
                    assert!(text.ends_with(". Error found at /m.conf:2."), "{text}");
                }
                ("refuse", Err(text)) => {
                    assert!(text.starts_with(&format!("{keyword} is not supported: ")), "{text}");
                    assert!(text.ends_with(". Error found at /m.conf:2."), "{text}");
                }
                (_, other) => panic!("{keyword}: {other:?}"),
            }
        }
        assert_eq!(count, 141);
        assert_eq!(not_done, [""; 0]);
    }

    #[test]
    fn what_is_stored_where_and_when() {
        let text = "persistence true\npersistence_location /data\npersistence_file m.db\nautosave_interval 1800\n";
        let settings = of_file(text, &[]).unwrap();
        assert_eq!(settings.store.unwrap().path(), Path::new("/data/m.db.midge"));
        assert_eq!(settings.core.autosave, Some(Autosave::Seconds(1800)));
        assert_eq!(of_file("autosave_on_changes true\n", &[]).unwrap().core.autosave, Some(Autosave::Changes(1800)));
        let on_changes = of_file("autosave_interval 9\nautosave_on_changes true\n", &[]).unwrap();
        assert_eq!(on_changes.core.autosave, Some(Autosave::Changes(9)));
        assert_eq!(of_file("", &[]).unwrap().core.autosave, None);
    }

    #[test]
    fn a_file_that_is_no_configuration_is_given_up_soon() {
        let text: &'static str = "junk\n".repeat(5000).leak();
        let error = of_file(text, &[]).unwrap_err();
        assert_eq!(error.lines().count(), 21);
        assert!(
            error.ends_with("there is so much wrong that the rest is not read. Error found at /m.conf:21."),
            "{error}"
        );
        // Comments count, too.
        let large: &'static str = "#".repeat(1 << 20).leak();
        let files = vec![
            ("/m.conf", "include_dir /d\n"),
            ("/d/1.conf", large),
            ("/d/2.conf", large),
            ("/d/3.conf", large),
            ("/d/4.conf", large),
        ];
        assert!(of_files(files, &[]).unwrap_err().starts_with("the files have more than 4194304 bytes together. "));
    }

    #[test]
    fn a_port_is_a_listener_to_options_about_security() {
        let text =
            "port 1\nper_listener_settings true\nallow_anonymous true\nlistener 2\nper_listener_settings false\n";
        let settings = of_file(text, &[]).unwrap();
        let seen: Vec<_> = settings.listeners.iter().map(|it| (it.port, it.rules.allow_anonymous)).collect();
        assert_eq!(seen, [(1, true), (2, false)]);
    }
}
