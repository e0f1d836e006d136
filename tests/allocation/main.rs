//! What the core allocates, counted: nothing for QoS 0 on its way to clients that keep up, nothing for what a peer only
//! claims to send, and nothing that stays once all clients are gone.

mod after_load;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;
use std::rc::Rc;

use midge::broker::{Broker, LinkId, Peer};
use midge::buffer::OutBuf;
use midge::codec::{
    Connect, Packet, Properties, PropertiesBuf, Property, Publish, QoS, RetainHandling, Subscribe, SubscribeOptions,
    Version,
};
use midge::config::{Config, Rules};
use midge::time::Millis;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
    /// Allocations and bytes that are not freed yet.
    static LIVE: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

fn note_live(count: i64, bytes: i64) {
    let _ = LIVE.try_with(|live| live.set((live.get().0 + count, live.get().1 + bytes)));
}

fn note(bytes: usize) {
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    let _ = BYTES.try_with(|total| total.set(total.get() + bytes as u64));
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        note_live(1, layout.size() as i64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note_live(-1, -(layout.size() as i64));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(new_size);
        note_live(0, new_size as i64 - layout.size() as i64);
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Allocations and bytes of `work` on this thread.
fn count(work: impl FnOnce()) -> (u64, u64) {
    let before = (COUNT.get(), BYTES.get());
    work();
    (COUNT.get() - before.0, BYTES.get() - before.1)
}

const NOW: Millis = Millis(1000);

/// Everybody is let in.
fn rules() -> Rc<Rules> {
    Rc::new(Rules { allow_anonymous: true, ..Rules::default() })
}

fn encoded(packet: Packet, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

/// A broker and what a turn of the server's loop needs, all of it used again.
struct Core {
    broker: Broker,
    rules: Rc<Rules>,
    links: Vec<LinkId>,
    written: usize,
}

impl Core {
    fn new() -> Core {
        Core { broker: Broker::new(Config::default(), 7), rules: rules(), links: Vec::new(), written: 0 }
    }

    fn join(&mut self, client_id: &str, version: Version, properties: &[Property]) -> LinkId {
        let mut buf = PropertiesBuf::default();
        properties.iter().for_each(|&property| buf.push(property));
        let connect = Connect {
            version,
            bridge: false,
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 60,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: buf.as_properties(),
        };
        let link = self.broker.open(Peer::Unknown, &self.rules, NOW);
        self.receive(link, &encoded(Packet::Connect(connect), version));
        link
    }

    fn subscribe(&mut self, link: LinkId, version: Version, filter: &str) {
        let (no_local, retain_as_published, retain_handling) = (false, false, RetainHandling::Send);
        let options = SubscribeOptions { qos: QoS::AtMostOnce, no_local, retain_as_published, retain_handling };
        let mut payload = Vec::new();
        Subscribe::push_filter(&mut payload, filter, options);
        let subscribe = Subscribe { packet_id: 1, properties: Properties::EMPTY, payload: &payload };
        self.receive(link, &encoded(Packet::Subscribe(subscribe), version));
    }

    /// A turn: bytes in, all output out.
    fn receive(&mut self, link: LinkId, bytes: &[u8]) {
        self.broker.receive(link, bytes, NOW);
        self.broker.tick(NOW);
        self.broker.resume(&mut self.links, NOW);
        self.links.clear();
        while self.broker.has_work() {
            self.broker.take_dirty(&mut self.links);
            while let Some(link) = self.links.pop() {
                let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
                let count = self.broker.output(link).slices(&mut slices);
                let len = slices[..count].iter().map(|slice| slice.len()).sum();
                self.written += len;
                self.broker.wrote(link, len, NOW);
                self.broker.mark_unwritten(link);
            }
        }
    }
}

fn publish(version: Version, topic: &str, payload: &[u8]) -> Vec<u8> {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: 0,
        properties: Properties::EMPTY,
        payload,
    };
    encoded(Packet::Publish(publish), version)
}

/// Counts 1000 bursts of 10 messages to `subscribers` after some that warm the core up.
fn steady_state(version: Version, subscribers: usize, properties: &[Property]) {
    let mut core = Core::new();
    let publisher = core.join("publisher", version, &[]);
    for number in 0..subscribers {
        let link = core.join(&format!("subscriber-{number}"), version, properties);
        core.subscribe(link, version, if number % 2 == 0 { "house/+/temperature" } else { "house/attic/#" });
    }
    let burst = publish(version, "house/attic/temperature", b"21.5").repeat(10);
    (0..20).for_each(|_| core.receive(publisher, &burst));
    let before = core.written;
    let (allocations, bytes) = count(|| (0..1000).for_each(|_| core.receive(publisher, &burst)));
    let sent = core.broker.stats().publishes_sent;
    assert_eq!(sent, 1020 * 10 * subscribers as u64);
    assert!(core.written - before > 10_000 * subscribers * 6);
    assert_eq!((allocations, bytes), (0, 0), "{version:?}, {subscribers} subscribers");
}

#[test]
fn an_allocation_is_counted() {
    assert_eq!(count(|| drop(std::hint::black_box(vec![0u8; 100]))), (1, 100));
}

#[test]
fn qos_0_to_one_subscriber_allocates_nothing() {
    for version in [Version::V31, Version::V311, Version::V5] {
        steady_state(version, 1, &[]);
    }
}

#[test]
fn qos_0_to_20_subscribers_allocates_nothing() {
    for version in [Version::V31, Version::V311, Version::V5] {
        steady_state(version, 20, &[]);
    }
}

#[test]
fn qos_0_with_topic_aliases_allocates_nothing() {
    steady_state(Version::V5, 20, &[Property::TopicAliasMaximum(10)]);
}

#[test]
fn a_publish_in_pieces_allocates_nothing() {
    let mut core = Core::new();
    let publisher = core.join("publisher", Version::V311, &[]);
    let subscriber = core.join("subscriber", Version::V5, &[]);
    core.subscribe(subscriber, Version::V5, "#");
    let bytes = publish(Version::V311, "house/attic/temperature", &[b'x'; 1000]);
    let step = |core: &mut Core| bytes.chunks(300).for_each(|piece| core.receive(publisher, piece));
    (0..20).for_each(|_| step(&mut core));
    assert_eq!(count(|| (0..1000).for_each(|_| step(&mut core))), (0, 0));
}

#[test]
fn pings_allocate_nothing() {
    let mut core = Core::new();
    let client = core.join("client", Version::V311, &[]);
    (0..20).for_each(|_| core.receive(client, &[0xC0, 0]));
    assert_eq!(count(|| (0..1000).for_each(|_| core.receive(client, &[0xC0, 0]))), (0, 0));
}

/// With the 20 bytes that the server's loop keeps of one, it is what a silent client costs the process.
#[test]
fn an_idle_connection_takes_272_bytes_and_no_allocation_of_its_own() {
    // What grows by doubling is full.
    const COUNT: i64 = 1 << 14;
    let mut core = Core::new();
    let before = LIVE.get();
    for number in 0..COUNT {
        core.join(&format!("sensor-{number:013}"), Version::V311, &[]);
    }
    let after = LIVE.get();
    let (allocations, bytes) = (after.0 - before.0, (after.1 - before.1) / COUNT);
    assert!(allocations < 50 && bytes <= 272, "{allocations} allocations, {bytes} bytes a connection");
}

#[test]
fn a_claimed_length_of_256_mb_allocates_nothing_of_it() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut core = Core::new();
        let client = core.join("client", version, &[]);
        let (_, bytes) = count(|| core.receive(client, &[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b't']));
        assert!(bytes < 1000, "{bytes}");
        // It grows with what comes, at most by doubling.
        let (_, bytes) = count(|| (0..16).for_each(|_| core.receive(client, &[b'x'; 1000])));
        assert!(bytes < 100_000, "{bytes}");
    }
}

#[test]
fn a_string_that_claims_64_kb_allocates_nothing_of_it() {
    let mut core = Core::new();
    let link = core.broker.open(Peer::Unknown, &rules(), NOW);
    // A CONNECT of 5.0 whose client id is said to have 65535 bytes.
    let bytes = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x00\xff\xffabc";
    let (_, allocated) = count(|| core.broker.receive(link, bytes, NOW));
    assert!(allocated < 4000, "{allocated}");
}
