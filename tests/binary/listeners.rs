//! What a listener is told beside its port: a path, a family, an interface, a limit.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::time::Duration;

use crate::program::{Midge, command, fail, port};

const FAILURE: i32 = 1;
const CONNECT: &[u8] = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02id";
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// A path that nothing is at, neither before nor after the test.
struct Path(PathBuf);

impl Path {
    fn new(name: &str) -> Path {
        Path(env::temp_dir().join(format!("midge-{name}-{}.sock", process::id())))
    }

    fn listener(&self) -> String {
        format!("0 {}", self.0.display())
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether a client is let in.
fn is_served(mut socket: impl Read + Write) -> bool {
    let mut answer = [0; 4];
    socket.write_all(CONNECT).is_ok() && socket.read_exact(&mut answer).is_ok() && answer == CONNACK
}

fn tcp(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

#[test]
fn a_unix_socket_is_served_like_any_other_and_removed_at_the_end() {
    let path = Path::new("unix");
    let arguments = ["--listener", &path.listener(), "--socket-mode", "0600", "--allow-anonymous", "true"];
    let midge = Midge::start(&arguments, None);
    let lines = midge.start_lines();
    assert!(lines.contains(&format!("Opening unix listen socket on path {}.", path.0.display())), "{lines:#?}");
    assert_eq!(fs::metadata(&path.0).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(is_served(UnixStream::connect(&path.0).unwrap()));
    let line = midge.line_with("New connection from");
    assert!(line.starts_with(&format!("New connection from pid {} uid ", process::id())), "{line}");
    assert!(line.ends_with(&format!(" on {}.", path.0.display())), "{line}");
    assert_eq!(midge.stop("TERM").0.code(), Some(0));
    assert!(!path.0.exists());
}

#[test]
fn a_unix_socket_of_a_killed_broker_is_replaced() {
    let path = Path::new("killed");
    let arguments = ["--listener", &path.listener(), "--allow-anonymous", "true"];
    let midge = Midge::start(&arguments, None);
    midge.start_lines();
    // Two at a time cannot be.
    let (code, lines) = fail(&arguments);
    assert_eq!(code, FAILURE);
    let busy = format!("Error: Address already in use: {} is held by ", path.0.display());
    let last = lines.last().unwrap();
    assert!(last.starts_with(&busy) && last.ends_with(&format!(" (pid {}).", midge.pid())), "{lines:#?}");
    midge.stop("KILL");
    assert!(path.0.exists());
    let midge = Midge::start(&arguments, None);
    midge.start_lines();
    assert!(is_served(UnixStream::connect(&path.0).unwrap()));
}

#[test]
fn a_file_in_the_place_of_a_unix_socket_is_left_alone() {
    let path = Path::new("file");
    fs::write(&path.0, "precious").unwrap();
    let (code, lines) = fail(&["--listener", &path.listener()]);
    assert_eq!(code, FAILURE);
    assert!(lines.last().unwrap().contains("a file that is no socket is there"), "{lines:#?}");
    assert_eq!(fs::read(&path.0).unwrap(), b"precious");
    fs::remove_file(&path.0).unwrap();
    drop(UnixListener::bind(&path.0).unwrap());
    Midge::start(&["--listener", &path.listener()], None).start_lines();
}

#[test]
fn one_family_may_be_all_that_is_served() {
    let midge = Midge::start(&["--listener", "0", "--socket-domain", "ipv4"], None);
    let lines = midge.start_lines();
    assert!(port(&lines, "ipv4").is_some() && port(&lines, "ipv6").is_none(), "{lines:#?}");
    if TcpListener::bind("[::1]:0").is_ok() {
        let midge = Midge::start(&["--listener", "0", "--socket-domain", "ipv6"], None);
        let lines = midge.start_lines();
        assert!(port(&lines, "ipv6").is_some() && port(&lines, "ipv4").is_none(), "{lines:#?}");
        // Not even IPv4 addresses in the dress of IPv6. Somebody else may have the port for those: whoever is let in first by this one
        // came by way of IPv6.
        let port = port(&lines, "ipv6").unwrap();
        let _elsewhere = TcpStream::connect(("127.0.0.1", port));
        let _here = TcpStream::connect(("::1", port)).unwrap();
        let line = midge.line_with("New connection from ");
        assert!(line.contains(" from [::1]:") || line.contains(" from ::1:"), "{line}");
    }
    let (code, lines) = fail(&["--listener", "0 127.0.0.1", "--socket-domain", "ipv6"]);
    assert_eq!(code, FAILURE);
    assert_eq!(lines.last().unwrap(), "Error: The listener's host 127.0.0.1 has no IPv6 address.");
}

#[test]
fn an_interface_is_served_on_its_addresses_alone() {
    let arguments =
        ["--listener", "0", "--bind-interface", "lo", "--socket-domain", "ipv4", "--allow-anonymous", "true"];
    let midge = Midge::start(&arguments, None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    assert!(is_served(tcp(port)));
    assert!(TcpStream::connect(("127.0.0.2", port)).is_err());
    let (code, lines) = fail(&["--listener", "0", "--bind-interface", "no/name"]);
    assert_eq!(code, 3);
    let told = "Error: Invalid value 'no/name' for --bind-interface: expected the name of a network interface.";
    assert_eq!(lines.last().unwrap(), told);
    // One that may still come.
    let midge = Midge::start(&["--listener", "1883", "--bind-interface", "none-such0"], None);
    let lines = midge.start_lines();
    let told = "Warning: There is no interface none-such0. The listener on port 1883 waits until that has changed.";
    assert!(lines.iter().any(|line| line == told), "{lines:#?}");
}

#[test]
fn a_listener_takes_no_more_connections_than_it_may_have() {
    let arguments = ["--listener", "0 127.0.0.1", "--max-connections", "1", "--allow-anonymous", "true"];
    let midge = Midge::start(&arguments, None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    let mut inside = tcp(port);
    inside.write_all(CONNECT).unwrap();
    inside.read_exact(&mut [0; 4]).unwrap();
    assert!(!is_served(tcp(port)));
    let denied = "Client connection from 127.0.0.1 denied: max_connections exceeded. It came from 127.0.0.1:";
    assert!(midge.line_with("denied").starts_with(denied));
    // The end of the one makes room for another.
    inside.write_all(&[0xE0, 0]).unwrap();
    assert_eq!(inside.read(&mut [0]).unwrap(), 0);
    drop(inside);
    midge.line_with("disconnected");
    assert!(is_served(tcp(port)));
}

#[test]
fn an_address_is_turned_away_by_name_of_the_option() {
    for (option, more) in [
        ("max_connections_per_address", ["--max-connections-per-address", "1"]),
        ("max_connect_rate", ["--max-connect-rate", "1"]),
        ("global_max_connections", ["--global-max-connections", "1"]),
    ] {
        let arguments = ["--listener", "0 127.0.0.1", "--allow-anonymous", "true"];
        let midge = Midge::start(&[&arguments[..], &more].concat(), None);
        let port = port(&midge.start_lines(), "ipv4").unwrap();
        let mut inside = tcp(port);
        inside.write_all(CONNECT).unwrap();
        inside.read_exact(&mut [0; 4]).unwrap();
        assert!(!is_served(tcp(port)));
        let line = midge.line_with("denied");
        // In Mosquitto's words, where it has any.
        let what = if option == "global_max_connections" { "max_connections" } else { option };
        let begins = format!("Client connection from 127.0.0.1 denied: {what} exceeded. It came from 127.0.0.1:");
        assert!(line.starts_with(&begins) && line.ends_with(&format!(", and {option} is 1.")), "{line}");
    }
}

#[test]
fn the_mode_of_a_unix_socket_is_what_was_said_whatever_the_umask() {
    let path = Path::new("mode");
    for (umask, mode) in [("077", 0o666), ("000", 0o600)] {
        let mut command = command(&["--listener", &path.listener(), "--socket-mode", &format!("0{mode:o}")], None);
        let midge = Midge::follow(command.env("UMASK_SET", umask).stderr(Stdio::piped()).spawn().unwrap());
        midge.start_lines();
        assert_eq!(fs::metadata(&path.0).unwrap().permissions().mode() & 0o7777, mode);
        midge.stop("TERM");
    }
}
