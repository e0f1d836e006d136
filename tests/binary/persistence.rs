//! The store on a real disk: what starts, what is refused and left alone, what is there again, and what happens when it
//! cannot be written. What each crash does to the files is tested below `tests/journal` and by `scripts/powercut`.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use midge::codec::{Connect, Packet, Properties, Publish, QoS, Version};

use crate::client::{Client, hello};
use crate::folder;
use crate::program::{Midge, fail, port, words};

const FAILURE: i32 = 1;
const USAGE: i32 = 3;

/// A directory of this test alone, with room for a store.
struct Folder(folder::Folder);

impl Folder {
    fn new() -> Folder {
        Folder(folder::Folder::new("store"))
    }

    fn store(&self) -> String {
        self.0.path("store").to_str().unwrap().to_string()
    }

    /// All files of the store but the lock, with what is in them.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.store()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            if name != "midge.lock" {
                files.insert(name, fs::read(path).unwrap());
            }
        }
        files
    }

    /// The only journal there is.
    fn journal(&self) -> PathBuf {
        let names: Vec<String> = self.files().into_keys().filter(|name| name.ends_with("1.journal")).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        Path::new(&self.store()).join(&names[0])
    }
}

fn arguments<'a>(store: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["--listener", "0 127.0.0.1", "--allow-anonymous", "true"];
    arguments.extend(["--persistence", "true", "--persistence-location", store]);
    arguments.extend(more);
    arguments
}

/// Starts it with a store, and says what it said and on which port it listens.
fn start(store: &str, more: &[&str]) -> (Midge, Vec<String>, u16) {
    let midge = Midge::start(&arguments(store, more), None);
    let lines = midge.start_lines();
    let port = port(&lines, "ipv4").unwrap();
    (midge, lines, port)
}

/// The error it ends with when it is started with this store.
fn refusal(store: &str) -> String {
    let (code, lines) = fail(&arguments(store, &[]));
    assert_eq!(code, FAILURE, "{lines:#?}");
    lines.last().unwrap().strip_prefix("Error: persistence_location").expect("another error").to_string()
}

/// Publishes a retained message and waits for its PUBACK; its reason.
fn keep(client: &mut Client, topic: &str, payload: &[u8]) -> String {
    send_retained(client, topic, payload, QoS::AtLeastOnce);
    acknowledgement(client)
}

fn send_retained(client: &mut Client, topic: &str, payload: &[u8], qos: QoS) {
    let (dup, retain, properties) = (false, true, Properties::EMPTY);
    let packet_id = (qos != QoS::AtMostOnce) as u16;
    client.send(&Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }));
}

fn acknowledgement(client: &mut Client) -> String {
    client
        .next(|packet| match packet {
            Packet::PubAck(ack) => format!("{:?}", ack.reason),
            other => panic!("{other:?}"),
        })
        .expect("the broker closed the connection")
}

/// The retained message of a topic.
fn kept(port: u16, topic: &str) -> Vec<u8> {
    let mut client = Client::connect(port, Version::V5, "", false);
    client.subscribe(topic, 0);
    client.next_payload()
}

/// A store with the retained messages `t/0` and so on, each acknowledged by itself, of a broker that was killed.
fn store_of(folder: &Folder, count: u32) {
    let (midge, _, port) = start(&folder.store(), &[]);
    let mut client = Client::connect(port, Version::V5, "p", false);
    for index in 0..count {
        keep(&mut client, &format!("t/{index}"), format!("value {index}").as_bytes());
    }
    midge.stop("KILL");
}

#[test]
fn the_second_on_one_directory_is_told_who_has_it() {
    let folder = Folder::new();
    let (midge, _, port) = start(&folder.store(), &[]);
    keep(&mut Client::connect(port, Version::V5, "p", false), "t", b"x");
    let files = folder.files();
    let why = refusal(&folder.store());
    assert!(why.contains(&format!("is in use by the process with id {};", midge.pid())), "{why}");
    assert_eq!(folder.files(), files);
    // And may have it when the first is gone, however it went.
    midge.stop("KILL");
    start(&folder.store(), &[]);
}

#[test]
fn a_location_whose_parent_is_missing_is_told() {
    let folder = Folder::new();
    let why = refusal(&format!("{}/store", folder.store()));
    assert!(why.ends_with("store/store cannot be created: the directory it would be in does not exist."), "{why}");
    assert!(!Path::new(&folder.store()).exists());
}

#[test]
fn a_location_that_is_a_file_is_told() {
    let folder = Folder::new();
    fs::write(folder.store(), "x").unwrap();
    let why = refusal(&folder.store());
    assert!(why.ends_with("store is not a directory."), "{why}");
    assert_eq!(fs::read(folder.store()).unwrap(), b"x");
}

#[test]
fn a_location_that_cannot_be_written_is_told() {
    // The one such directory that there is for root as well.
    let why = refusal("/proc");
    assert!(why.contains("/proc cannot be written: midge.lock in it: "), "{why}");
}

#[test]
fn a_foreign_file_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    store_of(&folder, 1);
    fs::write(folder.journal(), "somebody's diary\n".repeat(100)).unwrap();
    let files = folder.files();
    let why = refusal(&folder.store());
    assert!(why.contains("midge-00000001.journal is not a journal of this program"), "{why}");
    assert_eq!(folder.files(), files);
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    store_of(&folder, 1);
    let mut bytes = fs::read(folder.journal()).unwrap();
    bytes[14..16].copy_from_slice(&9_u16.to_le_bytes());
    // CRC-32 of the first sector with zeros in its place.
    bytes[20..24].fill(0);
    let checksum = bytes[..512].iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    bytes[20..24].copy_from_slice(&(!checksum).to_le_bytes());
    fs::write(folder.journal(), bytes).unwrap();
    let files = folder.files();
    let why = refusal(&folder.store());
    assert!(why.contains("midge-00000001.journal has format version 9, this program knows versions up to "), "{why}");
    assert_eq!(folder.files(), files);
}

#[test]
fn a_start_that_fails_leaves_the_store_as_it_is() {
    let folder = Folder::new();
    store_of(&folder, 3);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("{} 127.0.0.1", holder.local_addr().unwrap().port());
    let files = folder.files();
    let (code, lines) = fail(&arguments(&folder.store(), &["--listener", &busy]));
    assert_eq!(code, FAILURE);
    assert!(lines.last().unwrap().starts_with("Error: Address already in use"), "{lines:#?}");
    assert_eq!(folder.files(), files);
    let (_midge, _, port) = start(&folder.store(), &[]);
    assert_eq!(kept(port, "t/2"), b"value 2");
}

#[test]
fn a_damaged_middle_is_set_aside_and_the_rest_is_there() {
    let folder = Folder::new();
    store_of(&folder, 8);
    let mut bytes = fs::read(folder.journal()).unwrap();
    let at = bytes.windows(7).position(|window| window == b"value 3").unwrap();
    bytes[at] ^= 1;
    fs::write(folder.journal(), &bytes).unwrap();
    let (midge, lines, port) = start(&folder.store(), &[]);
    let told = lines.iter().find(|line| line.contains("is damaged")).expect("nobody said so");
    assert!(told.starts_with("midge-00000001.journal is damaged: ") && told.contains(".damaged"), "{told}");
    for index in [0, 2, 4, 7] {
        assert_eq!(kept(port, &format!("t/{index}")), format!("value {index}").as_bytes());
    }
    // The new file is begun with the first and whole before the last.
    let mut client = Client::connect(port, Version::V5, "p", false);
    for payload in [b"1", b"2", b"3"] {
        keep(&mut client, "new", payload);
    }
    midge.stop("KILL");
    assert_eq!(folder.files()["midge-00000001.journal.damaged"], bytes);
    let (_midge, lines, port) = start(&folder.store(), &[]);
    assert!(!lines.iter().any(|line| line.contains("damaged")), "{lines:#?}");
    assert_eq!(kept(port, "t/7"), b"value 7");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let folder = Folder::new();
    let (midge, _, port) = start(&folder.store(), &[]);
    let connect = Connect { clean_start: false, session_expiry_s: u32::MAX, ..hello(Version::V311, "s", None) };
    let (mut subscriber, connack) = Client::greet(port, &connect);
    assert!(connack.contains("session_present: false"), "{connack}");
    subscriber.subscribe("queued", 1);
    drop(subscriber);
    let mut client = Client::connect(port, Version::V311, "p", false);
    keep(&mut client, "kept", b"retained");
    client.publish("queued", b"for later", QoS::AtLeastOnce, 2);
    acknowledgement(&mut client);
    midge.stop("KILL");
    let (_midge, lines, port) = start(&folder.store(), &[]);
    let told = format!("Store in {}: 1 retained messages and 1 sessions with 1 subscriptions.", folder.store());
    assert!(lines.contains(&told), "{lines:#?}");
    assert_eq!(kept(port, "kept"), b"retained");
    let (mut subscriber, connack) = Client::greet(port, &connect);
    assert!(connack.contains("session_present: true"), "{connack}");
    assert_eq!(subscriber.next_payload(), b"for later");
}

#[test]
fn an_orderly_stop_stores_what_nobody_waited_for() {
    for sync in ["always", "interval 3600", "never"] {
        let folder = Folder::new();
        let (midge, _, port) = start(&folder.store(), &["--persistence-sync", sync]);
        let mut client = Client::connect(port, Version::V311, "p", false);
        send_retained(&mut client, "t", b"lazy", QoS::AtMostOnce);
        client.ping();
        assert_eq!(midge.stop("TERM").0.code(), Some(0));
        let (_midge, _, port) = start(&folder.store(), &[]);
        assert_eq!(kept(port, "t"), b"lazy", "{sync}");
    }
}

#[test]
fn usr1_tells_what_the_flash_bears() {
    let folder = Folder::new();
    let (midge, _, port) = start(&folder.store(), &[]);
    keep(&mut Client::connect(port, Version::V311, "p", false), "t", b"x");
    midge.signal("USR1");
    let line = midge.line_with("since start");
    assert!(
        line.starts_with("Store: ") && line.contains(" bytes written (") && line.ends_with(" MB a year."),
        "{line}"
    );
}

#[test]
fn weaker_modes_are_named_for_what_they_risk() {
    let folder = Folder::new();
    for (sync, expected) in [
        ("interval 7", "Warning: persistence_sync is 'interval 7': "),
        ("never", "Warning: persistence_sync is 'never': "),
        ("always", ""),
    ] {
        let (midge, lines, _) = start(&folder.store(), &["--persistence-sync", sync]);
        let warnings: Vec<&String> = lines.iter().filter(|line| line.starts_with("Warning")).collect();
        assert_eq!(warnings.len(), !expected.is_empty() as usize, "{warnings:#?}");
        assert!(warnings.iter().all(|line| line.starts_with(expected) && line.contains(" lost")), "{warnings:#?}");
        midge.stop("TERM");
    }
}

#[test]
fn a_bad_sync_mode_is_told_with_what_is_accepted() {
    for value in ["", "sometimes", "interval", "interval 0", "interval 3601", "interval 5 s", "always 1"] {
        let (code, lines) = fail(&["--persistence-sync", value]);
        assert_eq!((code, lines.len()), (USAGE, 1), "{lines:#?}");
        let expected = "expected always, never, or interval and a number of seconds from 1 to 3600.";
        assert!(lines[0].contains(" for --persistence-sync: ") && lines[0].ends_with(expected), "{lines:#?}");
    }
}

/// Starts it with files of at most so many bytes; the limit is lifted by `lift_limit`.
fn start_with_limit(store: &str, kilobytes: u32) -> (Midge, u16) {
    // In units of 512 bytes, for what it starts; and with a write beyond the limit failing instead of killing.
    let script = format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", 2 * kilobytes);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).args(words()).args(["--user", "root"]).args(arguments(store, &[]));
    let child = command.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let midge = Midge::follow(child);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    (midge, port)
}

fn lift_limit(midge: &Midge) {
    let none = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads one struct; the old limit is not asked for.
    let result =
        unsafe { libc::prlimit(midge.pid() as libc::pid_t, libc::RLIMIT_FSIZE, &raw const none, std::ptr::null_mut()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_full_disk_is_told_and_got_over() {
    let folder = Folder::new();
    let (midge, port) = start_with_limit(&folder.store(), 32);
    let mut first = Client::connect(port, Version::V5, "first", false);
    let mut v5 = Client::connect(port, Version::V5, "v5", false);
    let mut v311 = Client::connect(port, Version::V311, "v311", false);
    assert_eq!(keep(&mut v5, "before", b"x"), "NoMatchingSubscribers");
    // More than there is room for: not acknowledged.
    send_retained(&mut first, "large", &[b'x'; 64 << 10], QoS::AtLeastOnce);
    let line = midge.line_with("the store cannot be written");
    assert!(line.starts_with("Error: ") && line.contains("Serving goes on"), "{line}");
    first.ping();
    // What would have to be stored now is refused, or not answered; everything else goes on.
    assert_eq!(keep(&mut v5, "meanwhile", b"x"), "QuotaExceeded");
    send_retained(&mut v311, "meanwhile", b"x", QoS::AtLeastOnce);
    v311.ping();
    v5.subscribe("live", 0);
    v311.publish("live", b"still", QoS::AtMostOnce, 0);
    assert_eq!(v5.next_payload(), b"still");
    lift_limit(&midge);
    let line = midge.line_with("'meanwhile' is refused");
    assert!(line.contains("could not be stored"), "{line}");
    // The next line of all about it: it was said once that it fails.
    assert_eq!(midge.line_with("tore").as_str(), "The store works again.");
    assert_eq!(acknowledgement(&mut first), "NoMatchingSubscribers");
    assert_eq!(keep(&mut v5, "after", b"x"), "NoMatchingSubscribers");
    let (_, rest) = midge.stop("KILL");
    assert!(!rest.iter().any(|line| line.contains("tore")), "{rest:#?}");
    let (_midge, _, port) = start(&folder.store(), &[]);
    for topic in ["before", "after"] {
        assert_eq!(kept(port, topic), b"x");
    }
    assert_eq!(kept(port, "large").len(), 64 << 10);
}
