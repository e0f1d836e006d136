//! The ceiling over all memory, in the real process: clients that want to fill it many times over, and what it takes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use midge::codec::{Connect, Packet, Publish, QoS, ReasonCode, Version};

use crate::client::{Client, hello};
use crate::program::{Midge, is_emulated, port};

const LIMIT: u64 = 8_000_000;
/// What the program, its libraries and the allocator take besides, and what one turn may add.
const OTHERS: u64 = 8 << 20;

/// Bytes of `VmHWM`: the most the process ever had in memory.
fn peak_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn memory_has_a_ceiling_whatever_clients_send() {
    let limit = LIMIT.to_string();
    let midge = Midge::start(&["-p", "0", "--memory-limit", &limit, "--max-queued-messages", "0"], None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    for number in 0..50 {
        let id = format!("away-{number}");
        let hello = hello(Version::V311, &id, None);
        let (mut client, _) = Client::greet(port, &Connect { clean_start: false, session_expiry_s: u32::MAX, ..hello });
        client.subscribe(&format!("to/{number}"), 1);
    }
    let mut publisher = Client::connect(port, Version::V5, "publisher", false);
    // 50 queues of 4 MB each, and 20 MB of retained messages.
    let payload = vec![b'x'; 10_000];
    for number in 0..20_000u32 {
        let packet_id = (number % 60_000 + 1) as u16;
        publisher.publish(&format!("to/{}", number % 50), &payload, QoS::AtLeastOnce, packet_id);
        publisher.next(|packet| assert!(matches!(packet, Packet::PubAck(ack) if !ack.reason.is_error()))).unwrap();
    }
    let mut refused = 0;
    for number in 0..2000 {
        let topic = format!("kept/{number}");
        let packet = Publish { topic: &topic, retain: true, ..retained(&payload) };
        publisher.send(&Packet::Publish(packet));
        publisher.next(|packet| match packet {
            Packet::PubAck(ack) => refused += (ack.reason == ReasonCode::QuotaExceeded) as u32,
            other => panic!("{other:?}"),
        });
    }
    let peak = peak_of(midge.pid());
    // An emulator's own memory is not the broker's.
    assert!(peak < LIMIT + OTHERS || is_emulated(), "{peak} bytes");
    assert!(refused > 1000, "{refused} refused");
    // It serves whoever is there.
    let mut other = Client::connect(port, Version::V311, "publisher", false);
    other.subscribe("t", 0);
    other.publish("t", b"hello", QoS::AtMostOnce, 0);
    assert_eq!(other.next_payload(), b"hello");
    let (status, lines) = midge.stop("TERM");
    assert!(status.success());
    assert!(lines.iter().any(|line| line.contains("every queue counts as full")), "{lines:#?}");
}

fn retained(payload: &[u8]) -> Publish<'_> {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "",
        packet_id: 7,
        properties: midge::codec::Properties::EMPTY,
        payload,
    }
}

/// What the kernel counts for a process, in bytes.
#[derive(Debug, Default)]
struct Counted {
    /// Memory of its own: heap, stack, and what was written to of what files are mapped.
    anonymous: u64,
    /// Of that, what no file stands behind.
    heap: u64,
    /// All that is in its page table, but for what is of libraries.
    resident: u64,
    /// The code of the program, without libraries, and how much of that is in its page table.
    code: u64,
    resident_code: u64,
}

impl Counted {
    fn of(pid: u32) -> Counted {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let (mut counted, mut has_file, mut is_own, mut is_code) = (Counted::default(), false, false, false);
        for line in smaps.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if !words[0].ends_with(':') {
                has_file = words.get(5).is_some_and(|name| name.starts_with('/'));
                is_own = words.get(5).is_some_and(|name| Path::new(name) == program);
                is_code = is_own && words[1].contains('x');
                continue;
            }
            let bytes = || words[1].parse::<u64>().unwrap() * 1024;
            match words[0] {
                "Anonymous:" => {
                    counted.anonymous += bytes();
                    counted.heap += if has_file { 0 } else { bytes() };
                }
                "Rss:" => {
                    counted.resident += if is_own || !has_file { bytes() } else { 0 };
                    counted.resident_code += if is_code { bytes() } else { 0 };
                }
                "Size:" => counted.code += if is_code { bytes() } else { 0 },
                _ => {}
            }
        }
        counted
    }

    /// Once it is so; at once if the process is an emulator's, of which nothing can be said.
    fn when(pid: u32, is_so: impl Fn(&Counted) -> bool) -> Counted {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let counted = Counted::of(pid);
            if is_so(&counted) || is_emulated() {
                return counted;
            }
            assert!(Instant::now() < deadline, "{counted:?}");
            std::thread::yield_now();
        }
    }

    /// Once it waits for clients: nearly all of what it may run is not needed for that.
    fn when_it_waits(pid: u32) -> Counted {
        Counted::when(pid, |counted| counted.resident_code * 3 < counted.code)
    }
}

fn is_release() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("MIDGE_BINARY").is_some()
}

#[test]
fn a_broker_without_clients_has_given_back_what_its_start_took() {
    let midge = Midge::start(&["-p", "0"], None);
    port(&midge.start_lines(), "ipv4").unwrap();
    let Counted { anonymous, .. } = Counted::when(midge.pid(), |counted| counted.heap <= 100 << 10);
    // What is patched at the start is more, the less the program is optimised.
    assert!(anonymous <= 200 << 10 || !is_release() || is_emulated(), "{anonymous} bytes");
}

#[test]
fn a_broker_that_waits_has_let_go_of_its_code() {
    if is_emulated() {
        // The emulator's code is what the kernel counts.
        return;
    }
    let midge = Midge::start(&["-p", "0"], None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    let waiting = Counted::when_it_waits(midge.pid());
    assert!(waiting.resident <= 500 << 10 || !is_release(), "{waiting:?}");
    // It goes on where it was, and needs more of its code then; some seconds after the client has gone it lets go of that, too.
    let mut client = Client::connect(port, Version::V5, "c", false);
    client.subscribe("t", 0);
    client.publish("t", b"hello", QoS::AtMostOnce, 0);
    assert_eq!(client.next_payload(), b"hello");
    let serving = Counted::of(midge.pid()).resident_code;
    assert!(serving > waiting.resident_code, "{serving} bytes");
    drop(client);
    Counted::when(midge.pid(), |counted| counted.resident_code < serving);
    assert!(midge.stop("TERM").0.success());
}

#[test]
fn what_is_allocated_is_told_below_sys() {
    let midge = Midge::start(&["-p", "0", "--memory-limit", "50000000"], None);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    let mut client = Client::connect(port, Version::V311, "c", false);
    let mut value = |topic: &str| -> u64 {
        client.subscribe(topic, 0);
        String::from_utf8(client.next_payload()).unwrap().parse().unwrap()
    };
    let (current, maximum) = (value("$SYS/broker/heap/current"), value("$SYS/broker/heap/maximum"));
    assert!((10_000..10_000_000).contains(&current) && maximum >= current, "{current} {maximum}");
    assert_eq!(value("$SYS/broker/memory/limit"), 50_000_000);
}
