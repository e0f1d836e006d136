//! Where the log goes, what its lines look like, and what a flood of them costs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

use midge::codec::{QoS, Version};

use crate::client::Client;
use crate::folder::Folder;
use crate::program::{Midge, bare, port, run, without_time};

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
    midge.signal("RTMIN");
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

/// Whom root becomes.
const NOBODY: &str = "nobody";

/// A directory of `NOBODY` with the user's number; nothing if the tests are not run by root, or there is no such user.
fn folder_of_nobody(name: &str) -> Option<(Folder, u32)> {
    let folder = Folder::new(name);
    if fs::metadata(folder.path(".")).unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let user = users.lines().find(|line| line.split(':').next() == Some(NOBODY))?;
    let uid = user.split(':').nth(2)?.parse().ok()?;
    chown(folder.path("."), Some(uid), None).unwrap();
    Some((folder, uid))
}

fn as_nobody(arguments: &[&str]) -> Command {
    let mut command = bare();
    command.args(arguments).args(["--user", NOBODY]).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn root_opens_no_log_file_for_the_user_it_becomes() {
    let Some((folder, uid)) = folder_of_nobody("dropped") else { return };
    let (link, log) = (folder.dest("link"), folder.dest("log"));
    fs::write(folder.path("secret"), "secret").unwrap();
    fs::set_permissions(folder.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink(folder.path("secret"), folder.path("link")).unwrap();
    let midge = Midge::follow(as_nobody(&["-p", "0", "--log-dest", &link]).spawn().unwrap());
    let line = midge.line();
    assert!(line.starts_with("Error: Unable to open log file ") && line.contains("/link for writing: "), "{line}");
    midge.stop("TERM");
    let midge = Midge::follow(as_nobody(&["-p", "0", "--log-dest", &log]).spawn().unwrap());
    while !folder.path("log").exists() || !folder.read("log").contains(" running\n") {
        std::thread::yield_now();
    }
    assert_eq!(midge.stop("TERM").0.code(), Some(0));
    assert_eq!((folder.read("secret").as_str(), fs::metadata(folder.path("secret")).unwrap().uid()), ("secret", 0));
    // What was said before the file could be opened is in it.
    assert!(folder.read("log").lines().next().unwrap().ends_with(" starting"));
    assert_eq!(fs::metadata(folder.path("log")).unwrap().uid(), uid);
}

#[test]
fn a_start_that_fails_as_root_is_told_in_the_file_of_the_user_or_on_standard_error() {
    let Some((folder, uid)) = folder_of_nobody("dropped-failure") else { return };
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let log = folder.dest("log");
    let output = as_nobody(&["-p", &port, "--log-dest", &log]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0), "{output:?}");
    assert!(folder.read("log").contains("Error: Address already in use"));
    assert_eq!(fs::metadata(folder.path("log")).unwrap().uid(), uid);
    let output = as_nobody(&["-p", &port, "--log-dest", "file /nowhere/midge.log"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("Unable to open log file") && stderr.contains("Error: Address already in use"), "{stderr}");
    // A user that does not exist cannot be become: the file is not opened at all.
    let mut command = bare();
    command.args(["-p", "0", "--user", "no-such-user", "--log-dest", &folder.dest("unopened")]);
    let stderr = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(stderr.contains(" starting\n") && stderr.contains("no-such-user"), "{stderr}");
    assert!(!folder.path("unopened").exists());
}

#[test]
fn what_could_not_be_opened_at_the_start_refuses_no_reload() {
    let folder = Folder::new("reconfigure");
    let text = "listener 0 127.0.0.1\nlog_dest stderr\nlog_dest file /nowhere/old.log\n";
    let midge = Midge::start(&["-c", &folder.write("m.conf", text)], None);
    midge.line_with("Unable to open log file /nowhere/old.log");
    midge.start_lines();
    midge.signal("HUP");
    midge.line_with("The new configuration is in force.");
    folder.write("m.conf", &text.replace("old.log", "new.log"));
    midge.signal("HUP");
    midge.line_with("Unable to open log file /nowhere/new.log");
    midge.line_with("the configuration stays what it was");
    folder.write("m.conf", &text.replace("/nowhere/old.log", "{}/new.log"));
    midge.signal("HUP");
    midge.line_with("The new configuration is in force.");
    midge.stop("TERM");
    assert!(folder.read("new.log").ends_with(" terminating\n"));
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
