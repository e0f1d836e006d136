//! SIGHUP: the new configuration as a whole, or the old one as a whole.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use midge::codec::{QoS, Version};

use crate::client::{Client, hello};
use crate::folder::Folder;
use crate::program::{Midge, command_as, is_root, port};

const IN_FORCE: &str = "The new configuration is in force.";
const REFUSED: &str = "Error: the configuration stays what it was, because of what is wrong with the new one.";
const BASE: &str = "listener 0 127.0.0.1\nallow_anonymous true\n";

fn start(folder: &Folder, text: &str) -> (Midge, u16) {
    let midge = Midge::start(&["-c", &folder.write("m.conf", text)], None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    (midge, port)
}

/// Reloads with this file; the lines up to the one that says how it went.
fn reload(midge: &Midge, folder: &Folder, text: &str) -> Vec<String> {
    folder.write("m.conf", text);
    midge.signal("HUP");
    midge.line_with("Reloading config.");
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line| line == IN_FORCE || line == REFUSED) {
        lines.push(midge.line_with(""));
    }
    lines
}

fn is_refused_a_connection(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err()
}

#[test]
fn listeners_are_added_moved_and_removed_and_nobody_else_notices() {
    let folder = Folder::new("reload");
    let (midge, first) = start(&folder, BASE);
    let (mut s, mut p) =
        (Client::connect(first, Version::V5, "s", false), Client::connect(first, Version::V311, "p", false));
    s.subscribe("t", 1);
    let mut sent = 0;
    let mut publish = |p: &mut Client, s: &mut Client| {
        for _ in 0..20 {
            sent += 1;
            p.publish("t", sent.to_string().as_bytes(), QoS::AtMostOnce, 0);
        }
        for number in sent - 19..=sent {
            assert_eq!(s.next_payload(), number.to_string().as_bytes());
        }
    };
    publish(&mut p, &mut s);
    let two = format!("{BASE}listener 0 127.0.0.1\nmax_qos 0\n");
    let lines = reload(&midge, &folder, &two);
    let second = port(&lines, "ipv4").unwrap();
    assert_eq!(lines.last().unwrap(), IN_FORCE);
    publish(&mut p, &mut s);
    // The old one serves on, by its own settings.
    let (_, connack) = Client::greet(first, &hello(Version::V5, "x", None));
    assert!(!connack.contains("MaximumQoS"), "{connack}");
    let (mut other, connack) = Client::greet(second, &hello(Version::V5, "y", None));
    assert!(connack.contains("MaximumQoS(0)"), "{connack}");
    // Moved: the second is another one now.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let lines = reload(&midge, &folder, &format!("{BASE}listener {free} 127.0.0.1\n"));
    assert_eq!(lines.last().unwrap(), IN_FORCE, "{lines:#?}");
    assert_eq!(port(&lines, "ipv4"), Some(free));
    assert!(is_refused_a_connection(second));
    Client::connect(free, Version::V311, "z", false).ping();
    // Who came through the one that is gone stays.
    other.ping();
    let closing = format!("Closing the listen socket on 127.0.0.1 port {free}.");
    assert_eq!(reload(&midge, &folder, BASE), [closing.as_str(), IN_FORCE]);
    assert!(is_refused_a_connection(free));
    publish(&mut p, &mut s);
    other.ping();
    assert_eq!(midge.stop("TERM").0.code(), Some(0));
}

#[test]
fn whatever_is_wrong_with_the_new_configuration_the_old_one_stays_whole() {
    let folder = Folder::new("reload-wrong");
    let (midge, port) = start(&folder, BASE);
    let mut client = Client::connect(port, Version::V5, "c", false);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = holder.local_addr().unwrap().port();
    // Each also says something that would be seen if it were taken over.
    let change = "max_keepalive 7\nmax_inflight_messages 3\n";
    for (wrong, why) in [
        ("lisener 1883\n".to_string(), "the nearest is 'listener'. Error found at "),
        ("allow_anonymous perhaps\n".to_string(), "expected true or false. Error found at "),
        ("listener 0 127.0.0.2\ncafile /ca.pem\n".to_string(), "cafile is not in this version"),
        ("include_dir {}/none\n".to_string(), "/none cannot be read: "),
        ("log_dest file {}/none/log\n".to_string(), "Unable to open log file"),
        (format!("listener {busy} 127.0.0.1\n"), "Address already in use: 127.0.0.1 port "),
    ] {
        let lines = reload(&midge, &folder, &format!("{change}{BASE}{wrong}"));
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains(why), "{lines:#?}");
        assert_eq!(lines[1], REFUSED);
        client.ping();
        let (_, connack) = Client::greet(port, &hello(Version::V5, "d", None));
        assert!(connack.contains("ReceiveMaximum(20)") && !connack.contains("ServerKeepAlive"), "{connack}");
    }
    // And when it is right it is all there.
    let listener = BASE.split_once('\n').unwrap().0;
    let lines = reload(&midge, &folder, &format!("{change}{listener}\nallow_anonymous true\n"));
    assert_eq!(lines, [IN_FORCE]);
    let (_, connack) = Client::greet(port, &hello(Version::V5, "d", None));
    assert!(connack.contains("ReceiveMaximum(3)") && connack.contains("ServerKeepAlive(7)"), "{connack}");
    client.ping();
}

#[test]
fn who_may_no_longer_be_here_is_disconnected_with_the_reason() {
    let folder = Folder::new("reload-rules");
    let (midge, port) = start(&folder, BASE);
    let mut client = Client::connect(port, Version::V5, "c", false);
    client.ping();
    folder.write("m.conf", "listener 0 127.0.0.1\nallow_anonymous false\n");
    midge.signal("HUP");
    let line = midge.line_with("disconnected");
    assert!(line.starts_with("Client c [127.0.0.1:") && line.contains("disconnected: not authorised."), "{line}");
    let farewell = client.next(|packet| format!("{packet:?}")).unwrap();
    assert!(farewell.starts_with("Disconnect") && farewell.contains("NotAuthorized"), "{farewell}");
}

#[test]
fn what_counts_from_the_next_start_on_is_said_to() {
    let folder = Folder::new("reload-start");
    let (midge, _) = start(&folder, BASE);
    let lines = reload(&midge, &folder, &format!("{BASE}persistence true\npersistence_location {{}}/store\n"));
    assert!(lines[0].starts_with("Warning: ") && lines[0].contains("from the next start on"), "{lines:#?}");
    assert_eq!(lines[1], IN_FORCE);
    assert!(!folder.path("store").exists());
}

/// Somebody who is not root, with or without a name.
const NOBODY: u32 = 65_534;

#[test]
fn who_waits_at_a_listener_that_moves_is_served() {
    let folder = Folder::new("reload-waiting");
    let (midge, first) = start(&folder, BASE);
    midge.signal("STOP");
    let clients = ["a", "b", "c"].map(|id| {
        Client::send_hello(TcpStream::connect(("127.0.0.1", first)).unwrap(), &hello(Version::V311, id, None))
    });
    folder.write("m.conf", "listener 0 127.0.0.2\nallow_anonymous true\n");
    midge.signal("HUP");
    midge.signal("CONT");
    for mut client in clients {
        let connack = client.next(|packet| format!("{packet:?}")).expect("it was turned away");
        assert!(connack.contains("reason: Success"), "{connack}");
        client.ping();
    }
    midge.line_with(IN_FORCE);
    assert!(is_refused_a_connection(first));
}

#[test]
fn clients_of_a_listener_that_is_gone_may_be_let_in_no_longer() {
    let folder = Folder::new("reload-gone");
    let (midge, port) = start(&folder, BASE);
    let mut client = Client::connect(port, Version::V5, "c", false);
    assert_eq!(reload(&midge, &folder, "listener 0 127.0.0.2\nallow_anonymous true\n").last().unwrap(), IN_FORCE);
    client.ping();
    folder.write("m.conf", "listener 0 127.0.0.2\nallow_anonymous false\n");
    midge.signal("HUP");
    let farewell = client.next(|packet| format!("{packet:?}")).unwrap();
    assert!(farewell.starts_with("Disconnect") && farewell.contains("NotAuthorized"), "{farewell}");
}

#[test]
fn a_listener_is_widened_and_narrowed_by_a_broker_that_is_root_no_more() {
    if !is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    // The port that is free on one address may be taken on another.
    let is_done = (0..8).any(|_| {
        let folder = Folder::new("reload-root");
        let config = folder.write("m.conf", BASE);
        let midge = Midge::follow(command_as(NOBODY, &["-c", &config]).spawn().unwrap());
        let port = port(&midge.start_lines(), "ipv4").unwrap();
        let wide = format!("listener {port}\nsocket_domain ipv4\nallow_anonymous true\n");
        let lines = reload(&midge, &folder, &wide);
        if lines.last().unwrap() != IN_FORCE {
            let own = lines.iter().any(|line| line.contains("another listener of this broker"));
            assert!(!own && lines.iter().any(|line| line.contains("Address already in use")), "{lines:#?}");
            return false;
        }
        TcpStream::connect(("127.0.0.2", port)).unwrap();
        let narrow = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
        let lines = reload(&midge, &folder, &narrow);
        assert_eq!(lines.last().unwrap(), IN_FORCE, "{lines:#?}");
        assert!(TcpStream::connect(("127.0.0.2", port)).is_err());
        Client::connect(port, Version::V311, "c", false).ping();
        true
    });
    assert!(is_done, "no port is free on all addresses");
}

#[test]
fn a_unix_socket_that_cannot_be_given_away_is_a_reload_that_is_refused_whole() {
    if !is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    let folder = Folder::new("reload-owner");
    let socket = "listener 0 {}/socket\nsocket_mode 0600\n";
    let config = folder.write("m.conf", &format!("{BASE}{socket}"));
    let midge = Midge::follow(command_as(NOBODY, &["-c", &config]).spawn().unwrap());
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    let state = || {
        let found = fs::metadata(folder.path("socket")).unwrap();
        (found.uid(), found.gid(), found.permissions().mode() & 0o777)
    };
    // It is made by root, and the broker's.
    assert_eq!(state(), (NOBODY, NOBODY, 0o600));
    let lines =
        reload(&midge, &folder, &format!("max_keepalive 7\n{BASE}{socket}socket_owner root\nsocket_mode 0666\n"));
    assert!(lines[0].contains("it cannot be given to its owner: Operation not permitted"), "{lines:#?}");
    assert_eq!(lines[1], REFUSED);
    assert_eq!(state(), (NOBODY, NOBODY, 0o600));
    let (_, connack) = Client::greet(port, &hello(Version::V5, "d", None));
    assert!(!connack.contains("ServerKeepAlive"), "{connack}");
    let lines = reload(&midge, &folder, &format!("{BASE}listener 0 {{}}/socket\nsocket_mode 0666\n"));
    assert_eq!(lines.last().unwrap(), IN_FORCE, "{lines:#?}");
    assert_eq!(state(), (NOBODY, NOBODY, 0o666));
}

#[test]
fn a_port_that_can_be_had_by_root_alone_and_is_not_there_yet_is_told() {
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if !is_root() || first_free.trim().parse::<u16>().unwrap() <= 883 {
        println!("skipped: only root can become somebody else, and some port must need root");
        return;
    }
    let arguments = ["--listener", "883 203.0.113.1", "--listener", "0 127.0.0.1"];
    let midge = Midge::follow(command_as(NOBODY, &arguments).spawn().unwrap());
    let lines = midge.start_lines();
    let told = "The listener on port 883 waits for what is not there yet, and is below ";
    let line = lines.iter().find(|line| line.contains(told)).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(line.contains("which user 65534 may not bind"), "{line}");
}
