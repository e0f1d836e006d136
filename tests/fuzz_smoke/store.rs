//! What the fuzz targets of the store do with their bytes: files of a journal, and records. Whatever is found at start, the
//! broker starts or says why not, serves, writes everything anew, and finds that again.

use std::cell::OnceCell;

use midge::broker::{Broker, Part, Replay};
use midge::codec::{QoS, Version};
use midge::config::{Config, Persistence};
use midge::journal::{Journal, Mode, Name, OpenError, Opened, Task, open};
use midge::time::Millis;

use super::bodies::{Source, World, publish_as, subscribe_as};
use super::sim_disk::SimDisk;

const KEY: u64 = 0x5EED_0000_1234_5678;
const CLIENTS: [(&str, Version); 3] = [("a", Version::V311), ("b", Version::V5), ("c", Version::V31)];

fn config() -> Config {
    Config {
        persistence: Persistence::Always,
        allow_duplicate_messages: false,
        sys_interval_s: 0,
        connection_messages: false,
        ..Config::default()
    }
}

/// Arbitrary files, or a real journal with some changes: opened, served from, compacted and opened again.
pub fn journal(data: &[u8]) {
    let mut source = Source(data);
    let mut disk = match source.byte() % 4 {
        0 => arbitrary_files(&mut source),
        1 => stored(false),
        _ => stored(true),
    };
    for _ in 0..source.byte() % 16 {
        change(&mut disk, &mut source);
    }
    let Ok((opened, broker)) = start(&disk, Millis(0)) else { return };
    let (now, is_damaged) = (Millis(opened.store_ms), opened.is_damaged);
    let mut journal = opened.journal;
    perform(&mut disk, &mut journal, |journal| journal.first_task());
    let mut world = World::around(broker, now);
    serve(&mut world);
    let broker = &mut world.broker;
    write_all(broker, now, |records, part| {
        perform(&mut disk, &mut journal, |journal| journal.commit(records, part.into(), now.0, 0));
    });
    assert!(!journal.has_damage(), "damage is left behind a complete snapshot");
    let (again, found) = start(&disk, now).unwrap_or_else(|error| panic!("after damage {is_damaged}: {error}"));
    // Old frames in a file that is used again may look like interrupted writes if newer files were lost.
    assert!(!again.is_damaged, "{:?} after {:?}", again.lines, opened.lines);
    assert_same(broker, &found);
}

/// Arbitrary records, in batches that may be parts of snapshots.
pub fn records(data: &[u8]) {
    let mut source = Source(data);
    let (mut broker, mut replay) = (Broker::new(config(), 7), Replay::default());
    while !source.0.is_empty() {
        let choice = source.byte();
        let mut batch = Vec::new();
        for _ in 0..choice % 32 {
            push_record(&mut source, &mut batch);
        }
        let part =
            [Part::None, Part::None, Part::Begin, Part::Middle, Part::End, Part::Whole][choice as usize / 32 % 6];
        // The rest of a batch that makes no sense is passed over.
        let _ = replay.apply(&mut broker, &batch, part);
    }
    let now = Millis(1000);
    replay.finish(&mut broker, now);
    broker.check_invariants();
    let mut world = World::around(broker, now);
    // What a client stored need not be well-formed here.
    world.is_lenient = true;
    serve(&mut world);
    let (mut found, mut replay) = (Broker::new(config(), 7), Replay::default());
    let broker = &mut world.broker;
    write_all(broker, now, |records, part| {
        replay.apply(&mut found, records, part).expect("the broker's own records");
    });
    replay.finish(&mut found, now);
    found.check_invariants();
    assert_same(broker, &found);
}

/// What is there before anybody connects.
fn start(disk: &SimDisk, now: Millis) -> Result<(Opened, Broker), OpenError> {
    let (mut broker, mut replay) = (Broker::new(config(), 7), Replay::default());
    let opened = open(disk, Mode::Always, KEY, &mut |frame| {
        let _ = replay.apply(&mut broker, frame.batch, frame.header.part.into());
    })?;
    broker.set_store_key(opened.journal.store_key());
    replay.finish(&mut broker, now.max(Millis(opened.store_ms)));
    broker.check_invariants();
    Ok((opened, broker))
}

/// Clients come for what is theirs, publish and subscribe, and go.
fn serve(world: &mut World) {
    for (client_id, version) in CLIENTS {
        let client = world.come_back(client_id, version);
        world.send(client, &subscribe_as(version, "#", 2, 1));
        let publish = publish_as(version, "t", QoS::ExactlyOnce, 9, true);
        world.send(client, &publish);
        flush(world);
        world.hang_up(client);
    }
    world.turn();
}

/// Everything is safe at once.
fn flush(world: &mut World) {
    for _ in 0..100 {
        if world.broker.batch_due().is_none() {
            return;
        }
        let mut records = Vec::new();
        if let Some(batch) = world.broker.take_batch(&mut records, true, world.now) {
            world.broker.durable(batch.position, world.now);
        }
        world.turn();
    }
    panic!("the store always has something to write");
}

/// Writes what is there and then, as a snapshot, everything.
fn write_all(broker: &mut Broker, now: Millis, mut write: impl FnMut(&[u8], Part)) {
    broker.begin_snapshot(now);
    for _ in 0..10_000 {
        let mut records = Vec::new();
        if let Some(batch) = broker.take_batch(&mut records, true, now) {
            write(&records, batch.part);
            broker.durable(batch.position, now);
        }
        broker.check_invariants();
        if !broker.is_making_snapshot() && broker.batch_due().is_none() {
            return;
        }
    }
    panic!("a snapshot without end");
}

fn assert_same(one: &Broker, other: &Broker) {
    let counts = |it: &Broker| (it.session_count(), it.subscription_count(), it.retained_count(), it.live_bytes());
    assert_eq!(counts(one), counts(other), "sessions, subscriptions, retained messages, bytes");
}

fn perform(disk: &mut SimDisk, journal: &mut Journal, make: impl FnOnce(&mut Journal) -> Task) {
    let task = make(journal);
    let done = disk.run(task).expect("nobody cuts the power");
    journal.finish(done).expect("no step of a task fails on a sound disk");
}

fn arbitrary_files(source: &mut Source) -> SimDisk {
    let mut disk = SimDisk::new();
    for _ in 0..1 + source.byte() % 3 {
        let name = match source.byte() % 4 {
            0 => Name::Spare,
            generation => Name::Generation(generation.into()),
        };
        let len = usize::from(source.byte()) * 4;
        let mut content = source.take(len).to_vec();
        if source.byte() & 1 == 0 {
            content.splice(0..0, *b"midge journal\n");
        }
        disk.put(&name.to_string(), content);
    }
    disk
}

/// A journal as a broker left it: with all kinds of records, of one generation or in the middle of a snapshot.
fn stored(has_snapshot: bool) -> SimDisk {
    thread_local! {
        static DISKS: [OnceCell<SimDisk>; 2] = const { [OnceCell::new(), OnceCell::new()] };
    }
    DISKS.with(|disks| disks[usize::from(has_snapshot)].get_or_init(|| make_journal(has_snapshot)).clone())
}

fn make_journal(has_snapshot: bool) -> SimDisk {
    let mut disk = SimDisk::new();
    let (opened, broker) = start(&disk, Millis(0)).expect("an empty directory");
    let mut journal = opened.journal;
    perform(&mut disk, &mut journal, |journal| journal.first_task());
    let mut world = World::around(broker, Millis(1000));
    let commit = |world: &mut World, disk: &mut SimDisk, journal: &mut Journal| {
        let mut records = Vec::new();
        if let Some(batch) = world.broker.take_batch(&mut records, true, world.now) {
            perform(disk, journal, |journal| journal.commit(&records, batch.part.into(), 1000, 0));
            world.broker.durable(batch.position, world.now);
        }
        world.turn();
    };
    for (client_id, version) in CLIENTS {
        let client = world.come_back(client_id, version);
        world.send(client, &subscribe_as(version, "#", 2, 1));
        world.send(client, &subscribe_as(version, "a/+", 1, 2));
        commit(&mut world, &mut disk, &mut journal);
        for (number, qos) in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce].into_iter().enumerate() {
            let topic = ["a/b", "c", "d/e"][number];
            world.send(client, &publish_as(version, topic, qos, 5 + number as u16, number != 0));
            commit(&mut world, &mut disk, &mut journal);
        }
        world.hang_up(client);
    }
    if has_snapshot {
        world.broker.begin_snapshot(world.now);
        let large = vec![b'x'; 70_000];
        let late = world.come_back("late", Version::V311);
        world.send(late, &publish_with(Version::V311, "zz", &large));
        commit(&mut world, &mut disk, &mut journal);
        world.send(late, &publish_as(Version::V311, "a/b", QoS::AtLeastOnce, 3, true));
        commit(&mut world, &mut disk, &mut journal);
    }
    disk
}

fn publish_with(version: Version, topic: &str, payload: &[u8]) -> Vec<u8> {
    use midge::codec::{Packet, Properties, Publish};
    let (dup, qos, retain, packet_id) = (false, QoS::AtLeastOnce, true, 1);
    let publish = Publish { dup, qos, retain, topic, packet_id, properties: Properties::EMPTY, payload };
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(version, &mut bytes);
    bytes
}

/// Something happens to one of the files.
fn change(disk: &mut SimDisk, source: &mut Source) {
    let names = disk.file_names();
    let Some(name) = names.get(source.byte() as usize % names.len().max(1)).cloned() else { return };
    let Some(content) = disk.content(&name) else { return };
    let mut content = content.to_vec();
    let number = |source: &mut Source| usize::from(source.byte()) << 8 | usize::from(source.byte());
    let (choice, at, len) = (source.byte(), number(source), number(source));
    let at = at.min(content.len());
    let end = (at + len).min(content.len());
    match choice % 10 {
        0 if at < content.len() => content[at] ^= 1 << (len % 8),
        1 => content[at..end].fill(0),
        2 => content.truncate(at),
        3 => content.resize(content.len() + len, 0),
        4 => content.splice(at..end, source.take(len % 64).to_vec()).for_each(drop),
        5 => {
            // A sector as it was elsewhere, or in another file.
            let sector = content[at / 512 * 512..(at / 512 * 512 + 512).min(content.len())].to_vec();
            let to = len / 512 * 512;
            content.resize(content.len().max(to + sector.len()), 0);
            content[to..to + sector.len()].copy_from_slice(&sector);
        }
        6 => disk.delete(&name),
        7 => disk.put(&Name::Generation(1 + len as u32 % 6).to_string(), content.clone()),
        // Never with frames of a generation that is still to come.
        8 => disk.put(&Name::Spare.to_string(), vec![0xA5; content.len()]),
        _ => content[at..end].reverse(),
    }
    if choice % 10 != 6 {
        disk.delete(&name);
        disk.put(&name, content);
    }
}

/// Mostly a record as the broker writes them, of few sessions, messages and entries, so that they meet.
fn push_record(source: &mut Source, out: &mut Vec<u8>) {
    let tag = source.byte();
    if tag > 240 {
        let len = usize::from(source.byte() % 16);
        out.extend_from_slice(source.take(len));
        return;
    }
    let tag = 1 + tag % 13;
    out.push(tag);
    let session = source.byte() % 4;
    match tag {
        1 => {
            out.push(session);
            let client_ids: [&[u8]; 4] = [b"a", b"b", b"c", b"dd"];
            push_bytes(client_ids[source.byte() as usize % 4], out);
            let expiry_s: [&[u8]; 4] = [&[0], &[5], &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &[100]];
            out.extend_from_slice(expiry_s[source.byte() as usize % 4]);
            out.extend_from_slice(&[source.byte() & 0x7F, source.byte() & 1]);
            if out.last() == Some(&1) {
                out.extend_from_slice(&[
                    (source.byte() % 3) | (source.byte() & 4),
                    source.byte() & 3,
                    source.byte() & 0x7F,
                ]);
                push_bytes(topic(source), out);
                push_bytes(b"", out);
                push_bytes(b"gone", out);
            }
        }
        2 => out.push(session),
        3 => {
            out.extend_from_slice(&[session, source.byte() % 3, (source.byte() % 3) | (source.byte() & 0x1C)]);
            push_bytes(filter(source), out);
        }
        4 => {
            out.push(session);
            push_bytes(filter(source), out);
        }
        5 | 6 => out.extend_from_slice(&[session, 1 + source.byte() % 6]),
        7 => {
            out.push(source.byte() % 6);
            push_content(source, out);
        }
        8 => {
            let (key, message) = (key(session, source), source.byte() % 6);
            out.extend_from_slice(&[session, key, message, source.byte() % 24]);
            out.extend_from_slice(&[(source.byte() % 3) | (source.byte() & 4), source.byte() % 3]);
            push_bytes(if source.byte().is_multiple_of(4) { b"$share/g/#" } else { b"" }, out);
        }
        9 => out.extend_from_slice(&[session, key(session, source)]),
        10 => push_content(source, out),
        11 => push_bytes(topic(source), out),
        12 => out.extend_from_slice(&[session, source.byte() % 6]),
        _ => out.push(source.byte() % 6),
    }
}

/// Keys are never given twice, to whichever session.
fn key(session: u8, source: &mut Source) -> u8 {
    session * 16 + source.byte() % 12
}

fn push_content(source: &mut Source, out: &mut Vec<u8>) {
    let flags = (source.byte() % 3) | (source.byte() & 0x3C);
    out.push(flags);
    if flags & 8 != 0 {
        out.extend_from_slice(&[0x80 | source.byte(), source.byte() & 0x7F]);
    }
    if flags & 0x20 != 0 {
        out.extend_from_slice(&[source.byte(), 0, 0, 0, 0, 0, 0]);
    }
    push_bytes(topic(source), out);
    if flags & 0x10 != 0 {
        let len = usize::from(source.byte() % 8);
        let properties = if source.byte().is_multiple_of(8) { source.take(len) } else { b"\x26\x00\x01k\x00\x01v" };
        push_bytes(properties, out);
    }
    let len = usize::from(source.byte() % 16);
    push_bytes(source.take(len), out);
}

fn topic(source: &mut Source) -> &'static [u8] {
    [&b"a"[..], b"a/b", b"t", b"$x/y", b"a/+", b""][source.byte() as usize % 6]
}

fn filter(source: &mut Source) -> &'static [u8] {
    [&b"#"[..], b"a/+", b"t", b"$share/g/#", b"$share/g/a/b", b"$SYS/#", b"a#", b""][source.byte() as usize % 8]
}

fn push_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}
