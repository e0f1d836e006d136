//! The program: flags -> settings -> logger -> listeners -> the server's loop, and the exit code.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use log::{Level, error, info, log_enabled, warn};
use midge::config::Protocol;
use midge::options::{self, Parsed, Settings};
use midge::os::Counting;
use midge::{VERSION, logger, net, server};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Something the broker needs is not to be had, now or any more.
const EXIT_FAILURE: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 3;

fn main() -> ExitCode {
    match options::parse(env::args_os().skip(1)) {
        Ok(Parsed::Run(settings)) => run(settings),
        Ok(Parsed::Help(text) | Parsed::Version(text)) => {
            // A reader that closed the pipe has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string(), EXIT_USAGE),
    }
}

fn run(settings: Settings) -> ExitCode {
    logger::start(&settings.log);
    info!("midge version {VERSION} starting");
    for warning in &settings.warnings {
        warn!("Warning: {warning}");
    }
    let listeners = match net::open(&settings.listeners) {
        Ok(listeners) => listeners,
        Err(error) => return fail(&error.to_string(), EXIT_FAILURE),
    };
    for listener in &listeners {
        let address = listener.address();
        let kind = match listener.protocol() {
            Protocol::WebSockets => "websockets",
            Protocol::Mqtt if address.is_ipv4() => "ipv4",
            Protocol::Mqtt => "ipv6",
        };
        info!("Opening {kind} listen socket on port {}.", address.port());
    }
    if settings.local_only {
        info!(
            "Starting in local only mode: connections are accepted from this machine only. To open it up, use \
             --listener 1883 and --allow-anonymous true, which lets in everybody who reaches the port."
        );
    }
    if settings.listeners.iter().any(|listener| !listener.rules.allow_anonymous) {
        warn!(
            "Every client will be refused, because nothing is configured that a client could log in with. To let \
             everybody in without login, add --allow-anonymous true."
        );
    }
    let (broker, keeper) = match server::broker(&settings) {
        Ok(both) => both,
        Err(error) => return fail(&error.to_string(), EXIT_FAILURE),
    };
    match server::run(&settings, listeners, broker, keeper) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), EXIT_FAILURE),
    }
}

/// Says why the program ends: in the log, or plainly on standard error if there is none or it is silenced.
fn fail(why: &str, code: u8) -> ExitCode {
    if log_enabled!(Level::Error) {
        error!("Error: {why}");
        logger::finish();
    } else {
        // Not eprintln, which panics if standard error is closed.
        let _ = writeln!(io::stderr(), "Error: {why}");
    }
    ExitCode::from(code)
}
