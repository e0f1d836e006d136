//! The load program against the real broker and against its own relay: that every kind of scenario runs to its end and counts
//! right. No figure depends on how fast anything is.

use std::process::{Command, Output, Stdio};

use crate::program::{Midge, port};

const LOAD: &str = env!("CARGO_BIN_EXE_midge-load");
const SHORT: [&str; 7] = ["--quiet", "--duration", "0.3", "--warmup", "0.1", "--json", "-"];

fn run(arguments: &[&str]) -> Output {
    Command::new(LOAD).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The reports of some scenarios with a broker of their own, one JSON object each.
fn reports(scenarios: &[&str]) -> Vec<String> {
    let midge = Midge::start(&["-p", "0", "--connection-messages", "false"], None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    load(&["--addr", &format!("127.0.0.1:{port}"), "--pid", &midge.pid().to_string()], scenarios)
}

fn load(target: &[&str], scenarios: &[&str]) -> Vec<String> {
    let output = run(&[target, &SHORT, scenarios].concat());
    let lines = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<String> = lines.lines().filter(|line| line.starts_with("{\"id\"")).map(String::from).collect();
    assert!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(reports.len(), scenarios.len(), "{lines}");
    for (report, scenario) in reports.iter().zip(scenarios) {
        assert!(report.starts_with(&format!("{{\"id\":\"{scenario}\",")), "{scenario}: {report}");
        assert!(report.contains("\"outcome\":\"pass\""), "{report}");
    }
    reports
}

/// The number behind a name that stands once in the report.
fn number(report: &str, name: &str) -> f64 {
    let (_, rest) = report.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {report}"));
    rest.split([',', '}']).next().unwrap().parse().unwrap_or_else(|_| panic!("{name} of {report}"))
}

fn assert_complete(report: &str) {
    for name in ["lost", "lost_qos0", "duplicated", "misordered", "foreign", "hang_ups", "failed_connects", "stalls"] {
        assert_eq!(number(report, name), 0.0, "{name} of {report}");
    }
}

#[test]
fn traffic_of_every_shape_and_qos_arrives_whole() {
    for report in reports(&[
        "pairs-q0-s20",
        "pairs-q1-s20",
        "pairs-q2-s20",
        "fanin-100-1-q0-s10",
        "fanout-1-1000-q1-s50",
        "fanout-1-20-fast",
        "paced-50-q2-s10",
        "fanin-200-1-x50-s10",
        "subs-1k-s20",
        "fanout-5-1000-5-250K-s100",
        "sharedsub-50K-500-50K-50K-s500",
    ]) {
        assert_complete(&report);
        assert!(number(&report, "delivered") > 0.0 && number(&report, "cpu_s") > 0.0, "{report}");
        assert!(number(&report, "p50") <= number(&report, "max"), "{report}");
    }
}

#[test]
fn a_span_ends_with_the_deliveries_asked_for() {
    let midge = Midge::start(&["-p", "0", "--connection-messages", "false"], None);
    let address = format!("127.0.0.1:{}", port(&midge.start_lines(), "ipv4").unwrap());
    let report = &load(&["--addr", &address, "--messages", "500"], &["pairs-q1-s50"])[0];
    let delivered = number(report, "delivered");
    // The turn in which it is reached is counted to its end.
    assert!((500.0..1000.0).contains(&delivered) && number(report, "span_s") < 0.3, "{report}");
    assert!(report.contains("\"cpu_us_per_delivered\":null"), "nobody said whose: {report}");
}

#[test]
fn populations_are_counted_and_their_memory_divided() {
    let found = reports(&[
        "idle-0",
        "idle-1000-s10",
        "conn-15k-ping-s150",
        "sub-10k-s10",
        "retained-10k-s10",
        "queued-10k-s10",
    ]);
    found.iter().for_each(|report| assert_complete(report));
    assert!(number(&found[2], "pings_per_s") > 0.0);
    assert_eq!(number(&found[3], "delivered_in_all"), 1000.0);
    assert_eq!(number(&found[4], "retained_received"), 1000.0);
    assert_eq!(number(&found[5], "delivered_in_all"), 1000.0);
}

#[test]
fn a_house_starts_and_a_storm_passes() {
    let found = reports(&["ha-start-s100", "z2m-s10", "reconnect-storm-100-s10"]);
    for reader in ["slow", "1", "2", "3"] {
        assert_eq!(number(&found[0], &format!("retained_received_{reader}")), 100.0);
    }
    assert!(number(&found[2], "storms") >= 1.0);
    for report in &found {
        assert_eq!((number(report, "lost"), number(report, "hang_ups")), (0.0, 0.0), "{report}");
    }
}

#[test]
fn the_relay_copies_everything_and_is_asked_for_nothing_else() {
    let arguments = ["--serve-relay", "127.0.0.1:0"];
    let relay = Command::new(LOAD).args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let relay = Midge::follow(relay);
    let address = format!("127.0.0.1:{}", port(&[relay.line()], "ipv4").unwrap());
    let target = ["--relay", "--addr", &address];
    for report in load(&target, &["pairs-q0-s20", "fanin-100-1-q0-s10", "fanout-1-1000-q0-s50"]) {
        assert_complete(&report);
        assert!(number(&report, "delivered") > 0.0, "{report}");
    }
    let output = run(&[&target[..], &SHORT, &["pairs-q1"]].concat());
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"outcome\":\"unavailable\""));
}

#[test]
fn what_cannot_be_run_is_told_in_a_line() {
    let output = run(&["--bogus"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "Error: Unknown option --bogus. See --help.\n");
    let output = run(&["--quiet", "power-cut-1000"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("scripts/powercut does that"), "{text}");
    let output = run(&["--quiet", "--pid", "999999999", "pairs-q0"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "Error: There is no process 999999999.\n");
}
