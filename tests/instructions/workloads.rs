//! Fixed workloads through the core, for counting instructions: `scripts/instructions` runs them under callgrind, which counts
//! the same for the same program and input whatever else the machine does. What is counted is `measured_input` and `measured_output` alone: decode, route,
//! encode, acknowledge, and what a turn of the loop asks of the core; no socket and no system call.

use std::hint::black_box;
use std::io::IoSlice;
use std::rc::Rc;

use midge::broker::{Broker, LinkId, Peer};
use midge::buffer::OutBuf;
use midge::codec::{
    self, Ack, Connect, Direction, Packet, Properties, PropertiesBuf, Property, Publish, QoS, ReasonCode,
    RetainHandling, Split, Subscribe, SubscribeOptions, Version,
};
use midge::config::{Config, Rules};
use midge::time::Millis;

const NOW: Millis = Millis(1000);

/// Everybody is let in.
fn rules() -> Rc<Rules> {
    Rc::new(Rules { allow_anonymous: true, ..Rules::default() })
}

/// What is published, and who gets it.
struct Workload {
    name: &'static str,
    version: Version,
    qos: QoS,
    /// Each message is on the next of them. The last one of a client need not be looked up again.
    topics: &'static [&'static str],
    /// Clients that subscribe to the topics.
    subscribers: usize,
    /// Other subscriptions in the index.
    others: usize,
    payload_len: usize,
    retain: bool,
    bursts: usize,
    /// Messages that arrive with one read.
    burst_len: usize,
}

const PLAIN: Workload = Workload {
    name: "",
    version: Version::V311,
    qos: QoS::AtMostOnce,
    topics: &["house/kitchen/temperature"],
    subscribers: 1,
    others: 0,
    payload_len: 64,
    retain: false,
    bursts: 50,
    burst_len: 32,
};

/// One message in each turn of the loop, as in a house where nobody is in a hurry.
const SINGLE: Workload =
    Workload { topics: &["house/kitchen/temperature", "house/attic/temperature"], bursts: 500, burst_len: 1, ..PLAIN };

const AMONG_10K: Workload =
    Workload { topics: &["house/kitchen/temperature", "house/attic/temperature"], others: 10_000, ..PLAIN };

const WORKLOADS: [Workload; 16] = [
    Workload { name: "qos0-1-1", ..PLAIN },
    Workload { name: "qos1-1-1", qos: QoS::AtLeastOnce, ..PLAIN },
    Workload { name: "qos2-1-1", qos: QoS::ExactlyOnce, ..PLAIN },
    Workload { name: "qos0-1-50", subscribers: 50, bursts: 10, ..PLAIN },
    Workload { name: "qos1-1-50", subscribers: 50, bursts: 10, qos: QoS::AtLeastOnce, ..PLAIN },
    Workload { name: "qos2-1-50", subscribers: 50, bursts: 10, qos: QoS::ExactlyOnce, ..PLAIN },
    Workload { name: "qos0-1-1-single", ..SINGLE },
    Workload { name: "qos1-1-1-single", qos: QoS::AtLeastOnce, ..SINGLE },
    Workload { name: "qos0-1-1-among-10k", ..AMONG_10K },
    Workload { name: "qos1-1-1-among-10k", qos: QoS::AtLeastOnce, ..AMONG_10K },
    Workload { name: "qos2-1-1-among-10k", qos: QoS::ExactlyOnce, ..AMONG_10K },
    Workload { name: "qos0-1-1-v5", version: Version::V5, ..PLAIN },
    Workload {
        name: "qos1-1-50-v5",
        version: Version::V5,
        subscribers: 50,
        bursts: 10,
        qos: QoS::AtLeastOnce,
        ..PLAIN
    },
    Workload { name: "qos0-1-0", subscribers: 0, ..PLAIN },
    Workload { name: "qos1-1-1-retained", qos: QoS::AtLeastOnce, retain: true, ..PLAIN },
    Workload { name: "qos0-1-50-16k", subscribers: 50, payload_len: 16 << 10, bursts: 4, ..PLAIN },
];

struct Core {
    broker: Broker,
    version: Version,
    links: Vec<LinkId>,
    publisher: LinkId,
    /// Bytes for the broker, by link.
    replies: Vec<(LinkId, Vec<u8>)>,
    delivered: usize,
}

impl Core {
    fn new(workload: &Workload) -> Core {
        let broker = Broker::new(Config::default(), 7);
        let (version, links, replies) = (workload.version, Vec::new(), Vec::new());
        let mut core = Core { broker, version, links, publisher: 0, replies, delivered: 0 };
        core.publisher = core.join("publisher");
        for number in 0..workload.subscribers {
            let link = core.join(&format!("subscriber-{number}"));
            // Plain filters and wildcards in turn.
            match number % 2 {
                0 => workload.topics.iter().for_each(|topic| core.subscribe(link, topic)),
                _ => core.subscribe(link, "house/+/temperature"),
            }
        }
        for number in 0..workload.others {
            if number % 50 == 0 {
                core.join(&format!("other-{number}"));
            }
            let link = core.broker.link_count() as LinkId - 1;
            let (room, thing) = (number / 3 % 97, number / 300);
            let filter = match number % 3 {
                0 => format!("house/room-{room}/thing-{thing}/state"),
                1 => format!("house/+/thing-{number}/#"),
                _ => format!("yard/room-{room}/+/thing-{thing}"),
            };
            core.subscribe(link, &filter);
        }
        core.answer(false);
        core
    }

    fn join(&mut self, client_id: &str) -> LinkId {
        let mut properties = PropertiesBuf::default();
        if self.version.has_properties() {
            properties.push(Property::ReceiveMaximum(100));
            properties.push(Property::TopicAliasMaximum(10));
        }
        let connect = Connect {
            version: self.version,
            bridge: false,
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 60,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        let link = self.broker.open(Peer::Unknown, &rules(), NOW);
        self.turn(link, &encoded(&Packet::Connect(connect), self.version), false);
        link
    }

    fn subscribe(&mut self, link: LinkId, filter: &str) {
        let (no_local, retain_as_published, retain_handling) = (false, false, RetainHandling::Send);
        let options = SubscribeOptions { qos: QoS::ExactlyOnce, no_local, retain_as_published, retain_handling };
        let mut payload = Vec::new();
        Subscribe::push_filter(&mut payload, filter, options);
        let subscribe = Subscribe { packet_id: 1, properties: Properties::EMPTY, payload: &payload };
        self.turn(link, &encoded(&Packet::Subscribe(subscribe), self.version), false);
    }

    /// A turn of the server's loop, whose writes take everything. What was written is put down for `answer`.
    fn turn(&mut self, link: LinkId, bytes: &[u8], is_counted: bool) {
        match is_counted {
            true => measured_input(self, link, bytes),
            false => self.take_input(link, bytes),
        }
        let mut dirty = std::mem::take(&mut self.links);
        for link in dirty.drain(..) {
            let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
            let count = self.broker.output(link).slices(&mut slices);
            let written: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            match is_counted {
                true => measured_output(self, link),
                false => self.give_output(link),
            }
            self.replies.push((link, written));
        }
        self.links = dirty;
    }

    #[inline(always)]
    fn take_input(&mut self, link: LinkId, bytes: &[u8]) {
        self.broker.receive(link, bytes, NOW);
        if self.broker.has_resumed() {
            self.broker.resume(&mut self.links, NOW);
            self.links.clear();
        }
        self.broker.take_dirty(&mut self.links);
    }

    #[inline(always)]
    fn give_output(&mut self, link: LinkId) {
        let output = self.broker.output(link);
        let len = match output.piece() {
            Some(piece) => piece.len(),
            None => {
                let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
                let count = output.slices(&mut slices);
                slices[..count].iter().map(|slice| slice.len()).sum()
            }
        };
        self.broker.wrote(link, black_box(len), NOW);
        self.broker.mark_unwritten(link);
        self.broker.tick(NOW);
    }

    /// The clients' answers to all they were sent, until nobody says anything any more.
    fn answer(&mut self, is_counted: bool) {
        while !self.replies.is_empty() {
            let said = std::mem::take(&mut self.replies);
            for (link, bytes) in said {
                let (answers, delivered) = answers(&bytes, self.version);
                self.delivered += delivered;
                if !answers.is_empty() {
                    self.turn(link, &answers, is_counted);
                }
            }
            while self.broker.has_work() {
                self.turn(self.publisher, &[], is_counted);
            }
        }
    }
}

/// What is counted of a turn: all the core does with input,
#[inline(never)]
fn measured_input(core: &mut Core, link: LinkId, bytes: &[u8]) {
    core.take_input(black_box(link), black_box(bytes));
}

/// and with output.
#[inline(never)]
fn measured_output(core: &mut Core, link: LinkId) {
    core.give_output(black_box(link));
}

/// What a client answers to these packets, and how many of them are messages.
fn answers(bytes: &[u8], version: Version) -> (Vec<u8>, usize) {
    let (mut answers, mut delivered, mut at) = (Vec::new(), 0, 0);
    while let Ok(Split::Frame { body, len }) = codec::split_frame(&bytes[at..], 0) {
        let frame = &bytes[at..at + len];
        let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
        match codec::decode(frame[0], &frame[body..], version, Direction::ToClient).expect("a packet") {
            Packet::Publish(publish) => {
                delivered += 1;
                match publish.qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => Packet::PubAck(ack(publish.packet_id)).encode(version, &mut answers),
                    QoS::ExactlyOnce => Packet::PubRec(ack(publish.packet_id)).encode(version, &mut answers),
                }
            }
            Packet::PubRec(it) => Packet::PubRel(ack(it.packet_id)).encode(version, &mut answers),
            Packet::PubRel(it) => Packet::PubComp(ack(it.packet_id)).encode(version, &mut answers),
            _ => {}
        }
        at += len;
    }
    (answers, delivered)
}

fn encoded(packet: &Packet, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

/// The packets of one read, the first of them being the `from`th of all.
fn burst(workload: &Workload, from: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload = vec![b'x'; workload.payload_len];
    for number in 0..workload.burst_len {
        let packet_id = if workload.qos == QoS::AtMostOnce { 0 } else { 1 + number as u16 };
        let publish = Publish {
            dup: false,
            qos: workload.qos,
            retain: workload.retain,
            topic: workload.topics[(from + number) % workload.topics.len()],
            packet_id,
            properties: Properties::EMPTY,
            payload: &payload,
        };
        Packet::Publish(publish).encode(workload.version, &mut bytes);
    }
    bytes
}

fn run(workload: &Workload) {
    let mut core = Core::new(workload);
    let published = workload.bursts * workload.burst_len;
    for from in (0..published).step_by(workload.burst_len) {
        core.turn(core.publisher, &burst(workload, from), true);
        core.answer(true);
    }
    assert_eq!(core.delivered, published * workload.subscribers, "{}: messages were lost", workload.name);
    println!("{} {}", workload.name, published * workload.subscribers.max(1));
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for workload in &WORKLOADS {
        if wanted.is_empty() || wanted.iter().any(|name| name == workload.name) {
            run(workload);
        }
    }
}
