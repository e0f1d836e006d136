//! Serving on real sockets: what the loop does that the core cannot show.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use midge::codec::{Packet, QoS, Version};

use crate::client::Client;
use crate::program::{Midge, port, words};

const OPEN: [&str; 6] = ["--listener", "0 127.0.0.1", "--allow-anonymous", "true", "--connection-messages", "false"];

fn start(more: &[&str]) -> (Midge, u16) {
    let midge = Midge::start(&[&OPEN[..], more].concat(), None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    (midge, port)
}

/// How often the process went to sleep of its own accord so far: each turn of an idle loop counts one.
fn sleeps(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

/// Processor time used so far, clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn versions_talk_to_each_other_at_every_qos() {
    // TCP: MQTT-7.1.1-1 (3.1.1) MQTT-4.2.0-1 (5.0)
    let (_midge, port) = start(&[]);
    let versions = [Version::V31, Version::V311, Version::V5];
    for (at, version) in versions.into_iter().enumerate() {
        let mut subscriber = Client::connect(port, version, "subscriber", false);
        subscriber.subscribe("t/#", 2);
        let mut publisher = Client::connect(port, versions[(at + 1) % 3], "publisher", false);
        for (qos, id) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 7), (QoS::ExactlyOnce, 8)] {
            publisher.publish("t/x", &[qos as u8], qos, id);
            assert_eq!(subscriber.next_payload(), [qos as u8]);
        }
    }
}

#[test]
fn an_idle_broker_with_1000_clients_sleeps() {
    let (midge, port) = start(&[]);
    let clients: Vec<Client> =
        (0..1000).map(|number| Client::connect(port, Version::V311, &format!("c{number}"), false)).collect();
    // Some seconds after the traffic it looks twice for memory to give back. Then nothing is due.
    let mut before = sleeps(midge.pid());
    let is_asleep = (0..6).any(|_| {
        thread::sleep(Duration::from_millis(2500));
        let now = sleeps(midge.pid());
        std::mem::replace(&mut before, now) == now
    });
    assert!(is_asleep, "it wakes though nothing is due");
    drop(clients);
}

#[test]
fn a_reader_that_never_reads_holds_nobody_up_for_long() {
    let (_midge, port) = start(&["--stall-timeout", "200"]);
    let mut deaf = Client::connect(port, Version::V311, "deaf", false);
    deaf.subscribe("flood", 0);
    let mut reader = Client::connect(port, Version::V311, "reader", false);
    reader.subscribe("flood", 0);
    let flood = thread::spawn(move || {
        let mut publisher = Client::connect(port, Version::V311, "publisher", false);
        let payload = [b'x'; 8000];
        for number in 0..3000u32 {
            publisher.publish("flood", &[&number.to_be_bytes()[..], &payload].concat(), QoS::AtMostOnce, 0);
        }
        publisher.ping();
    });
    for number in 0..3000u32 {
        assert_eq!(reader.next_payload()[..4], number.to_be_bytes());
    }
    flood.join().unwrap();
    // The one who did not read is still there, and gets the beginning.
    assert_eq!(deaf.next_payload()[..4], 0u32.to_be_bytes());
}

#[test]
fn a_slow_reader_slows_the_publisher_down_and_loses_nothing() {
    let (_midge, port) = start(&[]);
    let mut reader = Client::connect(port, Version::V5, "reader", false);
    reader.subscribe("flood", 0);
    let flood = thread::spawn(move || {
        let mut publisher = Client::connect(port, Version::V311, "publisher", false);
        for number in 0..4000u32 {
            let payload = [&number.to_be_bytes()[..], &[b'x'; 8000]].concat();
            publisher.publish("flood", &payload, QoS::AtMostOnce, 0);
        }
    });
    for number in 0..4000u32 {
        assert_eq!(reader.next_payload()[..4], number.to_be_bytes());
        if number % 400 == 0 {
            thread::sleep(Duration::from_millis(30));
        }
    }
    flood.join().unwrap();
}

#[test]
fn a_megabyte_passes_in_both_versions() {
    let (_midge, port) = start(&[]);
    for version in [Version::V311, Version::V5] {
        let mut subscriber = Client::connect(port, version, "subscriber", false);
        subscriber.subscribe("big", 1);
        let mut publisher = Client::connect(port, version, "publisher", false);
        let payload: Vec<u8> = (0..1_000_000u32).map(|number| (number * 7) as u8).collect();
        publisher.publish("big", &payload, QoS::AtLeastOnce, 1);
        assert!(subscriber.next_payload() == payload);
    }
}

#[test]
fn without_descriptors_new_clients_are_turned_away_and_nothing_spins() {
    let child = Command::new("sh")
        .args(["-c", "ulimit -n 24; exec \"$0\" \"$@\""])
        .args(words())
        .args(["--user", "root"])
        .args(OPEN)
        .stderr(std::process::Stdio::piped())
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let midge = Midge::follow(child);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    let mut inside = Client::connect(port, Version::V311, "inside", false);
    let idle: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let mut closed = 0;
    for mut socket in &idle {
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        closed += matches!(socket.read(&mut [0]), Ok(0) | Err(_)) as u32;
    }
    assert!(closed > 30, "{closed}");
    let before = ticks(midge.pid());
    thread::sleep(Duration::from_millis(500));
    assert!(ticks(midge.pid()) - before < 10, "it spins");
    inside.ping();
    drop(idle);
    inside.ping();
}

#[test]
fn a_stop_publishes_wills_and_tells_5_0_clients_why() {
    let (midge, port) = start(&[]);
    let mut modern = Client::connect(port, Version::V5, "modern", false);
    modern.subscribe("gone/+", 0);
    let mut old = Client::connect(port, Version::V311, "old", true);
    old.ping();
    let (status, _) = midge.stop("TERM");
    assert_eq!(status.code(), Some(0));
    assert_eq!(modern.next_payload(), b"gone");
    let told = modern.next(|packet| match packet {
        Packet::Disconnect(disconnect) => disconnect.reason as u8,
        other => panic!("{other:?}"),
    });
    assert_eq!(told, Some(0x8B));
    assert_eq!(modern.next(|packet| format!("{packet:?}")), None);
    assert_eq!(old.next(|packet| format!("{packet:?}")), None);
}

#[test]
fn a_refusal_reaches_the_client_though_it_has_sent_more() {
    let midge = Midge::start(&["--listener", "0 127.0.0.1"], None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02id".to_vec();
        bytes.extend([0xC0, 0].repeat(200));
        socket.write_all(&bytes).unwrap();
        let mut answer = [0; 4];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 5]);
    }
}
