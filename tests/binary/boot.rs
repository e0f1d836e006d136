//! Starting before the network does, and with sockets that somebody else opened.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::program::{Midge, port, words};

const ADDRESS: &str = "10.99.0.1";
/// So soon is an address served after it is there.
const SOON: Duration = Duration::from_secs(1);

/// The program in a network of its own that consists of a loopback interface; nothing if that cannot be had.
fn in_empty_network(arguments: &[&str]) -> Option<Midge> {
    let can = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !can("unshare -rn ip address && nsenter --version") {
        println!("skipped: there are no network namespaces here, or no unshare, nsenter and ip");
        return None;
    }
    // Without any interface that is up the kernel lets every address be bound.
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-rn", "sh", "-c", script])
        .args(words())
        .args(arguments)
        .args(["--user", "root"])
        .env_remove("RUST_LOG");
    Some(Midge::follow(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()))
}

/// Runs a command in the program's network.
fn inside(midge: &Midge, arguments: &[&str]) -> bool {
    let pid = midge.pid().to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-U", "-n", "--preserve-credentials"]).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

fn sleeps(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn an_address_is_served_as_soon_as_it_is_there() {
    let Some(midge) = in_empty_network(&["--listener", "1883 10.99.0.1", "--listener", "1884 10.99.0.2"]) else {
        return;
    };
    let lines = midge.start_lines();
    let told = lines.iter().filter(|line| line.contains(ADDRESS) && line.contains("no interface has it")).count();
    assert_eq!((told, port(&lines, "ipv4")), (1, None), "{lines:#?}");

    let since = Instant::now();
    assert!(inside(&midge, &["ip", "address", "add", "10.99.0.1/24", "dev", "lo"]));
    assert_eq!(midge.line_with("Opening"), "Opening ipv4 listen socket on port 1883.");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());

    // Waiting for the other one costs nothing.
    let mut before = sleeps(midge.pid());
    let is_asleep = (0..6).any(|_| {
        std::thread::sleep(Duration::from_millis(1000));
        let now = sleeps(midge.pid());
        std::mem::replace(&mut before, now) == now
    });
    assert!(is_asleep, "it wakes though nothing is due");
    // The address is there before its interface is up, and counts from then on.
    assert!(inside(&midge, &["ip", "link", "set", "lo", "down"]));
    assert!(inside(&midge, &["ip", "address", "add", "10.99.0.2/24", "dev", "lo"]));
    let since = Instant::now();
    assert!(inside(&midge, &["ip", "link", "set", "lo", "up"]));
    assert_eq!(midge.line_with("Opening"), "Opening ipv4 listen socket on port 1884.");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    let (status, _) = midge.stop("TERM");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_name_without_addresses_ends_no_start() {
    let Some(midge) = in_empty_network(&["--listener", "1883 box.invalid", "--listener", "1884"]) else { return };
    let lines = midge.start_lines();
    let told = "Warning: Cannot resolve the listener's host box.invalid: ";
    assert_eq!(lines.iter().filter(|line| line.starts_with(told)).count(), 1, "{lines:#?}");
    assert_eq!(port(&lines, "ipv4"), Some(1884));
    assert_eq!(midge.stop("TERM").0.code(), Some(0));
}

#[test]
fn a_socket_that_was_passed_on_is_served() {
    // By way of standard input, which alone outlives a change of programs.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    for (listener, is_used) in [(format!("{} 127.0.0.1", address.port()), true), ("0 127.0.0.1".to_string(), false)] {
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).args(words()).args(["--user", "root", "--listener", &listener]);
        command.env_remove("RUST_LOG").stdin(OwnedFd::from(socket.try_clone().unwrap()));
        let midge = Midge::follow(command.stderr(Stdio::piped()).spawn().unwrap());
        let lines = midge.start_lines();
        let unused = format!(
            "Warning: no listener is configured for the sockets that were passed on for 127.0.0.1 port {}.",
            address.port()
        );
        assert_eq!(lines.contains(&unused), !is_used, "{lines:#?}");
        assert_eq!(port(&lines, "ipv4") == Some(address.port()), is_used);
        TcpStream::connect(("127.0.0.1", port(&lines, "ipv4").unwrap())).unwrap();
    }
}

#[test]
fn descriptors_that_were_not_passed_on_are_left_to_whom_they_belong() {
    let folder = Folder::new("boot");
    // As if a socket were missing of those that were promised: the next number is the log's.
    let script = "LISTEN_PID=$$ LISTEN_FDS=6 exec \"$0\" \"$@\"";
    let dest = folder.dest("log");
    let mut command = Command::new("sh");
    command.args(["-c", script]).args(words()).args(["--user", "root", "--listener", "0 127.0.0.1"]);
    command.args(["--log-dest", &dest, "--log-dest", "stderr"]).env_remove("RUST_LOG").stdin(Stdio::null());
    let midge = Midge::follow(command.stderr(Stdio::piped()).spawn().unwrap());
    let lines = midge.start_lines();
    let told = "Warning: 6 descriptors of 3 to 8 were passed on as listening sockets, but are none.";
    assert_eq!(lines.iter().filter(|line| *line == told).count(), 1, "{lines:#?}");
    TcpStream::connect(("127.0.0.1", port(&lines, "ipv4").unwrap())).unwrap();
    midge.stop("TERM");
    assert!(folder.read("log").contains(" terminating"));
}
