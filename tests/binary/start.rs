//! Starting: what listens, what is said about it, and how a start fails.

use std::net::{TcpListener, TcpStream};

use crate::program::{Midge, fail, port, run};

const FAILURE: i32 = 1;

#[test]
fn without_listener_this_machine_is_served_and_told_how_to_open_up() {
    let midge = Midge::start(&["-p", "0"], None);
    let lines = midge.start_lines();
    assert_eq!(lines[0], format!("midge version {} starting", env!("CARGO_PKG_VERSION")));
    let local_only: Vec<&String> =
        lines.iter().filter(|line| line.starts_with("Starting in local only mode")).collect();
    assert_eq!(local_only.len(), 1, "{lines:#?}");
    assert!(local_only[0].contains("--listener 1883") && local_only[0].contains("--allow-anonymous true"));
    assert!(!lines.iter().any(|line| line.contains("refused")), "{lines:#?}");

    let chosen = port(&lines, "ipv4").unwrap();
    TcpStream::connect(("127.0.0.1", chosen)).unwrap();
    if TcpListener::bind("[::1]:0").is_ok() {
        assert_eq!(port(&lines, "ipv6"), Some(chosen));
        TcpStream::connect(("::1", chosen)).unwrap();
    }
    // 127.0.0.1 alone, not all of the machine's addresses.
    assert!(TcpStream::connect(("127.0.0.2", chosen)).is_err());
}

#[test]
fn a_listener_nobody_can_log_in_to_is_told() {
    let midge = Midge::start(&["--listener", "0"], None);
    let lines = midge.start_lines();
    assert!(lines.iter().any(|line| line.starts_with("Every client will be refused")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("local only")), "{lines:#?}");
    // All addresses.
    TcpStream::connect(("127.0.0.2", port(&lines, "ipv4").unwrap())).unwrap();
}

#[test]
fn an_open_listener_needs_no_words() {
    let midge = Midge::start(&["--listener", "0 127.0.0.1", "--allow-anonymous", "true"], None);
    let lines = midge.start_lines();
    assert!(!lines.iter().any(|line| line.contains("refused") || line.contains("local only")), "{lines:#?}");
    assert_eq!(port(&lines, "ipv6"), None);
}

#[test]
fn ports_beside_a_listener_are_ignored_with_a_warning() {
    let midge = Midge::start(&["-p", "1883", "--listener", "0 127.0.0.1"], None);
    let lines = midge.start_lines();
    assert!(lines.contains(&"Warning: --port is ignored, because a listener is configured.".to_string()), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("Opening")).count(), 1);
}

#[test]
fn a_busy_port_is_told_with_the_process_that_holds_it() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let (code, lines) = fail(&["-p", &port.to_string()]);
    assert_eq!((code, lines.len()), (FAILURE, 2), "{lines:#?}");
    let begin = format!("Error: Address already in use: 127.0.0.1 port {port} is held by ");
    assert!(
        lines[1].starts_with(&begin) && lines[1].ends_with(&format!(" (pid {}).", std::process::id())),
        "{lines:#?}"
    );
}

#[test]
fn an_address_that_is_not_there_is_told_once_and_the_others_are_served() {
    let midge = Midge::start(&["--listener", "1883 203.0.113.1", "--listener", "0 127.0.0.1"], None);
    let lines = midge.start_lines();
    let expected = "Warning: Cannot assign requested address: 203.0.113.1 port 1883 (no interface has it). The listener on \
                    port 1883 waits until that has changed.";
    assert_eq!(lines.iter().filter(|line| *line == expected).count(), 1, "{lines:#?}");
    TcpStream::connect(("127.0.0.1", port(&lines, "ipv4").unwrap())).unwrap();
    let (status, rest) = midge.stop("TERM");
    assert_eq!(status.code(), Some(0));
    assert!(!rest.iter().any(|line| line.contains("203.0.113.1")), "{rest:#?}");
}

#[test]
fn quiet_leaves_only_the_reason_of_a_failure() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let output = run(&["-q", "-p", &port], None);
    assert_eq!(output.status.code(), Some(FAILURE));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("Error: Address already in use") && stderr.lines().count() == 1, "{stderr}");
    // The same through the environment.
    let output = run(&["-p", &port], Some("off"));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), stderr);
}

#[test]
fn rust_log_beats_the_flags() {
    let midge = Midge::start(&["-q", "-p", "0"], Some("info"));
    midge.start_lines();
    let midge = Midge::start(&["-v", "-p", "0"], Some("midge::server=info"));
    let lines = midge.start_lines();
    assert_eq!(port(&lines, "ipv4"), None, "not a line of the loop: {lines:#?}");
}

#[test]
fn an_empty_rust_log_says_nothing() {
    Midge::start(&["-p", "0"], Some("")).start_lines();
}
