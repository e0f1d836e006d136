//! Where the log goes, what its lines look like, and what a flood of them costs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use midge::codec::{QoS, Version};

use crate::client::Client;
use crate::program::{Midge, port, run, without_time};

/// A directory that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("midge-logs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// As a destination.
    fn dest(&self, name: &str) -> String {
        format!("file {}", self.path(name).display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(more: &[&str]) -> (Midge, u16) {
    let arguments = [&["--listener", "0 127.0.0.1", "--allow-anonymous", "true"][..], more].concat();
    let midge = Midge::start(&arguments, None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    (midge, port)
}

#[test]
fn a_file_gets_the_lines_and_is_opened_again_when_it_was_moved() {
    let folder = Folder::new("file");
    let (midge, port) = open(&["--log-dest", "stderr", "--log-dest", &folder.dest("log")]);
    assert_eq!(fs::metadata(folder.path("log")).unwrap().permissions().mode() & 0o777, 0o600);
    for (number, signal) in ["HUP", "RTMIN"].into_iter().enumerate() {
        fs::rename(folder.path("log"), folder.path("old")).unwrap();
        Client::connect(port, Version::V311, &format!("before-{number}"), false).ping();
        midge.signal(signal);
        // The signal is handled in the turn that follows, and it is there again.
        while !folder.path("log").exists() {
            Client::connect(port, Version::V311, "meanwhile", false).ping();
        }
        Client::connect(port, Version::V311, &format!("after-{number}"), false).ping();
        assert!(folder.read("old").contains(&format!(" as before-{number} (")));
        assert!(folder.read("log").contains(&format!(" as after-{number} (")));
    }
    assert_eq!(midge.stop("TERM").0.code(), Some(0));
    assert!(folder.read("log").ends_with(" terminating\n"));
}

#[test]
fn a_file_that_cannot_be_written_is_told_once_and_the_broker_goes_on() {
    let midge = Midge::start(&["-p", "0", "--log-dest", "stderr", "--log-dest", "file /nowhere/midge.log"], None);
    let line = midge.line();
    assert!(line.starts_with("Error: Unable to open log file /nowhere/midge.log for writing: "), "{line}");
    midge.start_lines();
    midge.signal("HUP");
    let again = without_time(&midge.line()).to_string();
    assert!(again.starts_with("Error: Unable to open log file /nowhere/midge.log for writing: "), "{again}");
    let (status, rest) = midge.stop("TERM");
    assert_eq!((status.code(), rest.len()), (Some(0), 1), "{rest:?}");
}

#[test]
fn without_its_file_errors_go_to_standard_error_and_nothing_else_does() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let output = run(&["-p", &port, "--log-dest", "file /nowhere/midge.log"], None);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().map(without_time).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].starts_with("Error: Unable to open log file") && lines[1].starts_with("Error: Address already"));
}

#[test]
fn a_failed_start_is_told_where_errors_go_and_nowhere_else() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let folder = Folder::new("failure");
    let output = run(&["-p", &port, "--log-dest", &folder.dest("log")], None);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
    assert!(folder.read("log").lines().last().unwrap().contains("Error: Address already in use"));
    // Nobody can subscribe to a broker that does not run.
    for dest in ["none", "topic"] {
        let output = run(&["-p", &port, "--log-dest", dest], None);
        assert!(output.stderr.starts_with(b"Error: Address already in use"), "{output:?}");
    }
}

#[test]
fn standard_output_gets_the_lines_if_asked() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let output = run(&["-p", &port, "--log-dest", "stdout"], None);
    assert!(output.stderr.is_empty());
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
}

#[test]
fn times_are_written_as_asked() {
    let first = |more: &[&str]| Midge::start(&[&["-p", "0"][..], more].concat(), None).line();
    let text = format!("midge version {} starting", env!("CARGO_PKG_VERSION"));
    assert_eq!(without_time(&first(&[])), text);
    assert_eq!(first(&["--log-timestamp", "false"]), text);
    assert_eq!(first(&["--log-timestamp-format", "[%%]"]), format!("[%]: {text}"));
    let line = first(&["--log-timestamp-format", "%Y-%m-%dT%H:%M:%S"]);
    assert_eq!((line.find("T"), line.find(": midge")), (Some(10), Some(19)), "{line}");
}

#[test]
fn types_choose_the_lines() {
    let folder = Folder::new("types");
    let (midge, port) = open(&[
        "--log-dest",
        &folder.dest("log"),
        "--log-dest",
        "stderr",
        "--log-type",
        "subscribe",
        "--log-type",
        "unsubscribe",
        "--log-type",
        "information",
    ]);
    let mut client = Client::connect(port, Version::V311, "c", false);
    client.subscribe("house/#", 1);
    client.publish("house", b"x", QoS::AtMostOnce, 0);
    client.next_payload();
    midge.stop("TERM");
    let log = folder.read("log");
    assert!(log.lines().any(|line| without_time(line) == "c 1 house/#"), "{log}");
    assert!(!log.contains("New client connected"), "a notice: {log}");
}

#[test]
fn lines_are_published_to_those_who_subscribe_and_publishing_them_is_no_line() {
    let (midge, port) = open(&["--log-dest", "stderr", "--log-dest", "topic", "--log-type", "all"]);
    let mut reader = Client::connect(port, Version::V5, "reader", false);
    reader.subscribe("$SYS/broker/log/#", 2);
    let mut guest = Client::connect(port, Version::V311, "guest", false);
    guest.subscribe("house/#", 1);
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.ends_with("guest 1 house/#")) {
        let line = reader.next(|packet| match packet {
            midge::codec::Packet::Publish(publish) => {
                format!("{} {}", publish.topic, without_time(std::str::from_utf8(publish.payload).unwrap()))
            }
            other => panic!("{other:?}"),
        });
        seen.push(line.unwrap());
    }
    seen.retain(|line| !line.contains("reader"));
    assert!(seen[0].starts_with("$SYS/broker/log/N New connection from 127.0.0.1:"), "{seen:#?}");
    assert!(seen[1].starts_with("$SYS/broker/log/N New client connected from 127.0.0.1:"), "{seen:#?}");
    assert_eq!(seen[2..], ["$SYS/broker/log/M/subscribe guest 1 house/#"]);
    reader.ping();
    midge.stop("TERM");
}

/// The answer to a CONNECT of this client id.
fn refused(port: u16, client_id: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let rest = [b"\x00\x04MQTT\x04\x02\x00\x3c\x00", &[client_id.len() as u8][..], client_id.as_bytes()].concat();
    socket.write_all(&[&[0x10, rest.len() as u8][..], &rest].concat()).unwrap();
    let mut answer = Vec::new();
    // It may be reset when the broker closes first.
    let _ = socket.read_to_end(&mut answer);
    answer
}

#[test]
fn ten_thousand_refused_connects_are_at_most_20_kilobytes_of_log() {
    let folder = Folder::new("flood");
    let midge =
        Midge::start(&["--listener", "0 127.0.0.1", "--log-dest", "stderr", "--log-dest", &folder.dest("log")], None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    for number in 0..10_000 {
        let client_id = if number % 2 == 0 { "thermometer".to_string() } else { format!("device-{number}") };
        assert_eq!(refused(port, &client_id), [0x20, 2, 0, 5]);
    }
    assert_eq!(midge.stop("TERM").0.code(), Some(0));
    let log = folder.read("log");
    assert!(log.len() <= 20_000, "{} bytes", log.len());
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains("] disconnected: not authorised.")).collect();
    let in_full = refusals.iter().filter(|line| !line.contains("(repeated ")).count();
    assert!(in_full >= 5, "{log}");
    assert!(refusals.iter().all(|line| line.contains(": Client 127.0.0.1 [127.0.0.1:")), "{log}");
    // Nothing is lost but the repetition: every refusal is a line or counted.
    let counted: usize = log.lines().filter(|line| line.contains("disconnected")).map(repeated).sum();
    assert_eq!(counted, 10_000, "{log}");
}

fn repeated(line: &str) -> usize {
    let count = line.split_once("(repeated ").and_then(|(_, rest)| rest.split_once(' '));
    count.map_or(1, |(count, _)| count.parse().unwrap())
}
