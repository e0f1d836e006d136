//! The rumqttc client (crates.io) against a broker on 127.0.0.1: MQTT 3.1.1 and 5.0.
//!
//! usage: interop-rumqttc PORT
//!
//! Prints `ok   rumqttc/VERSION CHECK` or `FAIL rumqttc/VERSION CHECK: reason` for each check. The exit code is not
//! zero if one failed.

mod checks;
mod peer;

use std::process::ExitCode;
use std::thread;

use checks::{CHECKS, Check, World};
use peer::Version;

fn main() -> ExitCode {
    let Some(port) = std::env::args().nth(1).and_then(|port| port.parse().ok()) else {
        eprintln!("usage: interop-rumqttc PORT");
        return ExitCode::from(2);
    };
    let runs = [Version::V311, Version::V5].into_iter().flat_map(|version| {
        let checks = CHECKS.iter().enumerate().filter(move |(_, check)| check.versions.contains(&version));
        checks.map(move |(number, check)| (check, World { version, port, number }))
    });
    let (slow, fast): (Vec<_>, Vec<_>) = runs.partition(|(check, _)| check.slow);
    let slow: Vec<_> = slow.into_iter().map(|(check, world)| thread::spawn(move || passes(check, &world))).collect();
    let mut failed = fast.iter().filter(|(check, world)| !passes(check, world)).count();
    failed += slow.into_iter().map(|run| run.join().unwrap_or(false)).filter(|passed| !passed).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(check: &Check, world: &World) -> bool {
    let version = match world.version {
        Version::V311 => "v311",
        Version::V5 => "v5",
    };
    match (check.run)(world) {
        Ok(()) => println!("ok   rumqttc/{version} {}", check.name),
        Err(reason) => {
            println!("FAIL rumqttc/{version} {}: {reason}", check.name);
            return false;
        }
    }
    true
}
