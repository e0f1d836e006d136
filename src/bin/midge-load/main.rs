//! midge-load: loads an MQTT broker with what gateways see and with what brokers are measured by, and reports what it costs
//! the broker. One thread and one poll loop, like the broker itself.
//!
//! ```text
//! main.rs       command line -> scenarios -> reports; exit code
//! options.rs    the command line
//! scenario.rs   the table of scenarios
//! plan.rs       a scenario as clients, streams and feeds
//! run.rs        a scenario from its first connection to its report; special.rs: those that need more
//! engine.rs     the loop; feed.rs: what is sent and received; client.rs: one connection
//! wire.rs       packets and the stamp in each payload; sequence.rs: what was lost, doubled or out of order
//! histogram.rs  times
//! process.rs    what /proc says of the broker; watch.rs: looks at it while the load runs
//! report.rs     figures as JSON and for people
//! relay.rs      the blind relay that a broker can be compared with
//! os.rs         timer and socket options; the only `unsafe`
//! ```

mod client;
mod engine;
mod feed;
mod histogram;
mod options;
mod os;
mod plan;
mod process;
mod relay;
mod report;
mod run;
mod scenario;
mod sequence;
mod special;
mod watch;
mod wire;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use engine::Target;
use midge::os::raise_descriptor_limit;
use midge::{EXIT_FAILURE, EXIT_USAGE, VERSION};
use options::{Order, Parsed};
use report::{Object, Outcome, Report};
use run::Settings;

fn main() -> ExitCode {
    let arguments: Result<Vec<String>, _> = env::args_os().skip(1).map(|argument| argument.into_string()).collect();
    let parsed = match arguments {
        Ok(arguments) => options::parse(&arguments),
        Err(raw) => Err(format!("Argument {raw:?} is not UTF-8.")),
    };
    match parsed {
        Ok(Parsed::Text(text)) => {
            // A reader that closed the pipe has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(order)) => load(order),
        Ok(Parsed::ServeRelay(address)) => {
            let _ = raise_descriptor_limit();
            match relay::run(address) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("{address}: {error}"), EXIT_FAILURE),
            }
        }
        Err(error) => fail(&error, EXIT_USAGE),
    }
}

fn fail(why: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "Error: {why}");
    ExitCode::from(code)
}

fn load(order: Order) -> ExitCode {
    if let Some(process) = order.process
        && process::Process::new(process).is_none()
    {
        return fail(&format!("There is no process {process}."), EXIT_FAILURE);
    }
    let settings = Settings {
        target: Target { address: order.address, is_relay: order.is_relay },
        process: order.process,
        duration_s: order.duration_s,
        warmup_s: order.warmup_s,
        messages: order.messages,
        is_full: order.is_full,
        is_quiet: order.is_quiet,
        descriptor_limit: raise_descriptor_limit().unwrap_or(u32::MAX),
    };
    let is_json_alone = order.json.as_deref() == Some("-");
    let mut reports = Vec::new();
    for chosen in &order.scenarios {
        let report = run::run(chosen, &settings).unwrap_or_else(|error| Report::failed(chosen, error));
        let lines = report.lines();
        let _ = match is_json_alone {
            true => io::stderr().write_all(lines.as_bytes()),
            false => io::stdout().write_all(lines.as_bytes()),
        };
        reports.push(report);
    }
    let json = json(&order, &reports);
    let written = match order.json.as_deref() {
        None => Ok(()),
        Some("-") => io::stdout().write_all(json.as_bytes()),
        Some(path) => fs::write(path, json),
    };
    if let Err(error) = written {
        return fail(&format!("The report could not be written: {error}"), EXIT_FAILURE);
    }
    match reports.iter().any(|report| report.outcome == Outcome::Fail) {
        true => ExitCode::from(EXIT_FAILURE),
        false => ExitCode::SUCCESS,
    }
}

fn json(order: &Order, reports: &[Report]) -> String {
    let reports: Vec<String> = reports.iter().map(Report::json).collect();
    let mut out = Object::new();
    out.text("program", "midge-load").text("version", VERSION).text("address", &order.address.to_string());
    out.text("target", if order.is_relay { "relay" } else { "broker" });
    out.object("scenarios", Some(format!("[\n{}\n]", reports.join(",\n"))));
    out.end() + "\n"
}
