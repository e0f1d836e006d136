//! The command line of the load program.

use std::fmt::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use getopts::{Fail, Matches, Options};

use crate::scenario::{self, Chosen, Family, SCENARIOS, Task};

pub struct Order {
    pub address: SocketAddr,
    pub process: Option<u32>,
    pub is_relay: bool,
    pub scenarios: Vec<Chosen>,
    pub duration_s: Option<f64>,
    pub warmup_s: Option<f64>,
    pub messages: u64,
    pub is_full: bool,
    pub is_quiet: bool,
    pub json: Option<String>,
}

pub enum Parsed {
    Run(Order),
    ServeRelay(SocketAddr),
    /// Print this and end well.
    Text(String),
}

const ADDRESS: &str = "127.0.0.1:1883";

const HELP: &str = "\
Usage: midge-load [OPTION]... [SCENARIO]...

Loads an MQTT broker and reports what a message costs it. Without a SCENARIO the
default ones are run, which takes some minutes; --list shows all. SCENARIO-s10 is
SCENARIO with a tenth of the clients.

Broker:
  -a, --addr HOST:PORT        Where it listens. [127.0.0.1:1883]
  -p, --pid PID               Its process, to report processor time, memory and
                              wake-ups of.
      --relay                 What listens there is the blind relay.
      --serve-relay HOST:PORT Be the blind relay: copy bytes from socket to
                              socket, as a measure of what the kernel takes.
                              Port 0 takes a free one. Ends when killed.

Load:
  -d, --duration SECONDS      Measured time of each scenario. [5]
      --warmup SECONDS        Time before that does not count. [1]
  -n, --messages N            End the measured time after so many deliveries.
                              [0 = when it is over]
      --scale FACTOR          So many times the clients. Scenarios that measure
                              the cost of a message are not scaled. [1]
      --full                  All times as the definitions say: up to an hour a
                              scenario, and a minute to warm up.

Report:
  -j, --json FILE             Write the figures to FILE; - is standard output.
  -q, --quiet                 No progress on standard error.
  -l, --list                  Print the scenarios and end.
  -h, --help                  Print this help and end.
      --version               Print the version and end.

The exit code is 0, 1 if a scenario failed or could not be run, or 3 for a wrong
command line.
";

fn flags() -> Options {
    let mut flags = Options::new();
    flags.optopt("a", "addr", "", "").optopt("p", "pid", "", "").optflag("", "relay", "");
    flags.optopt("", "serve-relay", "", "").optopt("d", "duration", "", "").optopt("", "warmup", "", "");
    flags.optopt("n", "messages", "", "").optopt("", "scale", "", "").optflag("", "full", "");
    flags.optopt("j", "json", "", "").optflag("q", "quiet", "").optflag("l", "list", "");
    flags.optflag("h", "help", "").optflag("", "version", "");
    flags
}

/// Reads the arguments that follow the program's name. The error is a line for the user.
pub fn parse(arguments: &[String]) -> Result<Parsed, String> {
    let matches = flags().parse(arguments).map_err(fault)?;
    if matches.opt_present("help") {
        return Ok(Parsed::Text(HELP.to_string()));
    }
    if matches.opt_present("version") {
        return Ok(Parsed::Text(format!("midge-load version {}\n", midge::VERSION)));
    }
    if matches.opt_present("list") {
        return Ok(Parsed::Text(list()));
    }
    if let Some(address) = matches.opt_str("serve-relay") {
        return Ok(Parsed::ServeRelay(socket_address("serve-relay", &address)?));
    }
    Ok(Parsed::Run(Order {
        address: socket_address("addr", matches.opt_str("addr").as_deref().unwrap_or(ADDRESS))?,
        process: number(&matches, "pid", "the number of a process", |&pid: &u32| pid > 0)?,
        is_relay: matches.opt_present("relay"),
        scenarios: chosen(&matches)?,
        duration_s: number(&matches, "duration", "seconds, more than 0", is_positive)?,
        warmup_s: number(&matches, "warmup", "seconds", |&seconds: &f64| (0.0..1e6).contains(&seconds))?,
        messages: number(&matches, "messages", "a number", |_| true)?.unwrap_or(0),
        is_full: matches.opt_present("full"),
        is_quiet: matches.opt_present("quiet"),
        json: matches.opt_str("json"),
    }))
}

fn chosen(matches: &Matches) -> Result<Vec<Chosen>, String> {
    let scale = number(matches, "scale", "a factor, more than 0", is_positive)?.unwrap_or(1.0);
    let named = matches
        .free
        .iter()
        .map(|id| scenario::find(id).ok_or_else(|| format!("There is no scenario '{id}'. --list shows all.")));
    let mut chosen: Vec<Chosen> = named.collect::<Result<_, _>>()?;
    if chosen.is_empty() {
        chosen = scenario::defaults();
    }
    let scaled = |chosen: Chosen| match chosen.scenario.family {
        Family::Cost => chosen,
        Family::Gateway | Family::Field => chosen.scaled(scale),
    };
    Ok(chosen.into_iter().map(scaled).collect())
}

fn is_positive(number: &f64) -> bool {
    *number > 0.0 && *number < 1e6
}

fn number<T: FromStr>(
    matches: &Matches,
    name: &str,
    accepted: &str,
    is_right: impl Fn(&T) -> bool,
) -> Result<Option<T>, String> {
    let Some(text) = matches.opt_str(name) else { return Ok(None) };
    match text.parse().ok().filter(is_right) {
        Some(number) => Ok(Some(number)),
        None => Err(format!("Invalid value '{text}' for --{name}: expected {accepted}.")),
    }
}

fn socket_address(name: &str, text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("Invalid value '{text}' for --{name}: expected HOST:PORT.");
    let mut all: Vec<SocketAddr> = text.to_socket_addrs().map_err(|_| wrong())?.collect();
    // Only of IPv4 the program knows more than one source address.
    all.sort_by_key(SocketAddr::is_ipv6);
    all.first().copied().ok_or_else(wrong)
}

fn fault(fail: Fail) -> String {
    let dashed = |name: &str| if name.chars().count() == 1 { format!("-{name}") } else { format!("--{name}") };
    match fail {
        Fail::UnrecognizedOption(name) => format!("Unknown option {}. See --help.", dashed(&name)),
        Fail::ArgumentMissing(name) => format!("{} needs a value. See --help.", dashed(&name)),
        Fail::UnexpectedArgument(name) => format!("{} takes no value.", dashed(&name)),
        Fail::OptionMissing(name) | Fail::OptionDuplicated(name) => format!("{} may stand once.", dashed(&name)),
    }
}

/// One line a scenario, those that are run by default marked.
fn list() -> String {
    let mut out = String::new();
    for (family, title) in [
        (Family::Cost, "What a message costs:"),
        (Family::Gateway, "What a gateway sees:"),
        (Family::Field, "EMQ's Open MQTT Benchmark Suite:"),
    ] {
        let _ = writeln!(out, "{title}");
        for scenario in SCENARIOS.iter().filter(|scenario| scenario.family == family) {
            let mark = if scenario.is_default { '*' } else { ' ' };
            let lacking = match scenario.task {
                Task::Lacking(why) => format!(" ({why})"),
                _ => String::new(),
            };
            let _ = writeln!(out, "{mark} {:26} {}{lacking}", scenario.id, scenario.about);
        }
    }
    out.push_str("* is run when no scenario is named. With -s10 behind it a scenario has a tenth of the clients.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Parsed, String> {
        super::parse(&line.iter().map(|text| text.to_string()).collect::<Vec<_>>())
    }

    fn order(line: &[&str]) -> Order {
        match parse(line) {
            Ok(Parsed::Run(order)) => order,
            Ok(_) => panic!("{line:?}"),
            Err(error) => panic!("{line:?}: {error}"),
        }
    }

    #[test]
    fn nothing_given_is_a_default_run() {
        let order = order(&[]);
        assert_eq!(order.address, SocketAddr::from(([127, 0, 0, 1], 1883)));
        assert!(order.scenarios.len() > 20 && order.process.is_none() && !order.is_full);
    }

    #[test]
    fn scenarios_are_named_and_scaled() {
        let order = order(&["pairs-q0", "--scale", "0.1", "z2m", "-n", "100"]);
        let ids: Vec<&str> = order.scenarios.iter().map(|chosen| chosen.id.as_str()).collect();
        assert_eq!((ids, order.messages), (vec!["pairs-q0", "z2m-s10"], 100));
    }

    #[test]
    fn faults_are_one_line() {
        for (line, expected) in [
            (&["--bogus"][..], "Unknown option --bogus. See --help."),
            (&["-x"], "Unknown option -x. See --help."),
            (&["--addr"], "--addr needs a value. See --help."),
            (&["--relay=1"], "--relay takes no value."),
            (&["-d", "1", "-d", "2"], "--duration may stand once."),
            (&["--addr", "1883"], "Invalid value '1883' for --addr: expected HOST:PORT."),
            (&["--duration", "0"], "Invalid value '0' for --duration: expected seconds, more than 0."),
            (&["pears-q0"], "There is no scenario 'pears-q0'. --list shows all."),
        ] {
            assert_eq!(parse(line).err().as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_help_fits_a_terminal_and_names_everything() {
        assert!(HELP.lines().all(|line| line.len() <= 81 && line.is_ascii() && line.trim_end() == line));
        for name in ["addr", "pid", "relay", "serve-relay", "duration", "warmup", "messages", "scale", "full", "json"] {
            assert!(HELP.contains(&format!("--{name}")), "{name}");
        }
    }

    #[test]
    fn the_list_names_every_scenario() {
        let list = list();
        assert!(SCENARIOS.iter().all(|scenario| list.contains(&format!(" {} ", scenario.id))));
    }
}
