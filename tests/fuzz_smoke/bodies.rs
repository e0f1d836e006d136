//! What the fuzz targets do with their bytes. No libFuzzer here: the same code runs on made-up input in `cargo test`.

use std::io::IoSlice;
use std::path::Path;
use std::rc::Rc;

use midge::access::acl;
use midge::broker::{Broker, Deletion, HangUp, Inspection, LinkId, Peer};
use midge::buffer::OutBuf;
use midge::codec::{self, Direction, QoS, Split, Version};
use midge::config::{Config, Loaded, QueuePolicy, Rules};
use midge::control::Line;
use midge::time::Millis;
use midge::topic;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Bytes to take decisions from; zeros once they are used up.
pub struct Source<'a>(pub &'a [u8]);

impl<'a> Source<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn below(&mut self, limit: usize) -> usize {
        self.byte() as usize % limit
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Whatever decodes must encode, and decode to the same packet; nothing panics or claims bytes that are not there.
pub fn decoder(data: &[u8]) {
    let mut source = Source(data);
    let (version, choice) = (VERSIONS[source.below(3)], source.byte());
    let direction = if choice & 1 == 0 { Direction::ToServer } else { Direction::ToClient };
    let bytes = source.0;
    let Ok(Split::Frame { body, len }) = codec::split_frame(bytes, 0) else { return };
    assert!(body <= len && len <= bytes.len());
    let Ok(mut packet) = codec::decode(bytes[0], &bytes[body..len], version, direction) else { return };
    if let codec::Packet::Publish(publish) = &mut packet
        && publish.qos == QoS::AtMostOnce
    {
        // Read, because old clients send it; never written. [MQTT-3.3.1-2]
        publish.dup = false;
    }
    let mut again = Vec::new();
    packet.encode(version, &mut again);
    let Ok(Split::Frame { body, len }) = codec::split_frame(&again, 0) else { panic!("{packet:?} has no frame") };
    assert_eq!(len, again.len());
    assert_eq!(codec::decode(again[0], &again[body..len], version, direction), Ok(packet));
}

/// Matching by the index and the retained store, against the plain definition.
pub fn topics(data: &[u8]) {
    let mut source = Source(data);
    let mut world = World::new(Config::default());
    let subscriber = world.connect("s", Version::V311);
    let publisher = world.connect("p", Version::V311);
    let mut filters: Vec<String> = Vec::new();
    for _ in 0..1 + source.below(12) {
        let filter = text(&mut source, &["a", "b", "", "+", "#", "$x", "é", "+a"]);
        if topic::is_valid_filter(&filter) && !filter.starts_with("$share/") && !filters.contains(&filter) {
            world.send(subscriber, &subscribe(&filter));
            filters.push(filter);
        }
    }
    for _ in 0..1 + source.below(12) {
        let name = text(&mut source, &["a", "b", "", "$x", "é", "ab", "-"]);
        if !topic::is_valid_name(&name) || name.starts_with("$SYS") {
            continue;
        }
        world.heard(subscriber);
        world.send(publisher, &publish(&name, true));
        let count = world.heard(subscriber).len();
        let expected = filters.iter().filter(|filter| topic::matches(filter, &name)).count();
        assert_eq!(count, expected, "{name} among {filters:?}");
        // The retained message, found by each filter alone.
        for filter in &filters {
            let late = world.connect("late", Version::V311);
            world.send(late, &subscribe(filter));
            let names = world.heard(late);
            let found = names.iter().any(|packet| packet_topic(packet) == Some(name.as_str()));
            assert_eq!(found, topic::matches(filter, &name), "{name} by {filter}");
            assert!(names.iter().filter_map(|packet| packet_topic(packet)).all(|name| topic::matches(filter, name)));
            world.hang_up(late);
        }
    }
}

/// Several links, arbitrary packets and bytes, short writes, hang-ups and jumps of the clock.
pub fn broker(data: &[u8]) {
    let mut source = Source(data);
    let choice = source.byte();
    let config = Config {
        max_inflight_messages: [1, 2, 20, 0][choice as usize & 3],
        max_queued_messages: [1, 5, 1000][choice as usize % 3],
        max_queued_bytes: [200, 4096, 0][choice as usize / 4 % 3],
        queue_policy: [QueuePolicy::DropOldest, QueuePolicy::DropNewest, QueuePolicy::Reject][choice as usize / 16 % 3],
        queue_qos0_messages: choice & 64 != 0,
        allow_duplicate_messages: choice & 128 != 0,
        stall_timeout_ms: 100,
        ..Config::default()
    };
    let mut world = World::new(config);
    while !source.0.is_empty() {
        match source.byte() % 20 {
            0 => drop(world.dial(VERSIONS[source.below(3)])),
            1 | 2 => drop(world.connect_with(&mut source)),
            3 => {
                let (link, count) = (world.pick(&mut source), source.below(200));
                let bytes = source.take(count).to_vec();
                world.receive(link, &bytes);
            }
            4 => {
                let link = world.pick(&mut source);
                world.hang_up_if_open(link, source.byte() & 1 == 0);
            }
            5 => {
                let ms = [1u64, 99, 100, 1000, 30_000, 90_000, 10_000_000_000][source.below(7)];
                world.now = Millis(world.now.0 + ms);
            }
            6 => {
                let link = world.pick(&mut source);
                let room = [0, 1, 7, 100, 5000, usize::MAX][source.below(6)];
                if let Some(end) = world.ends.get_mut(link) {
                    end.room = room;
                }
            }
            7..=9 => {
                let link = world.pick(&mut source);
                let topic = ["a", "a/b", "$x", "b"][source.below(4)];
                let (flags, id, len) = (source.byte(), source.byte(), source.below(4));
                let version = world.version(link);
                let payload = vec![b'x'; [0, 1, 300, 5000][len]];
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][flags as usize % 3];
                let packet_id = if qos == QoS::AtMostOnce { 0 } else { 1 + u16::from(id % 8) };
                let publish = codec::Publish {
                    dup: false,
                    qos,
                    retain: flags & 4 != 0,
                    topic,
                    packet_id,
                    properties: codec::Properties::EMPTY,
                    payload: &payload,
                };
                let mut bytes = Vec::new();
                codec::Packet::Publish(publish).encode(version, &mut bytes);
                world.receive(link, &bytes);
            }
            10 | 11 => {
                let link = world.pick(&mut source);
                let filter =
                    ["#", "a/+", "+", "$share/g/a/b", "$share/g/#", "$share/h/a", "a/b", "$SYS/#"][source.below(8)];
                let options = (source.byte() % 3) | (source.byte() & 0x3C);
                let bytes = subscribe_as(world.version(link), filter, options, 1 + u16::from(source.byte()));
                world.receive(link, &bytes);
            }
            12 | 13 => {
                let link = world.pick(&mut source);
                let kind = [0x40, 0x50, 0x62, 0x70][source.below(4)];
                world.receive(link, &[kind, 2, 0, 1 + source.byte() % 12]);
            }
            14 => {
                let link = world.pick(&mut source);
                world.receive(link, &[[0xC0, 0xE0][source.below(2)], 0]);
            }
            15 => {
                let mut config = world.broker.config().clone();
                config.max_inflight_messages = [1, 2, 20, 0][source.below(4)];
                config.max_inflight_bytes = [0, 1, 400][source.below(3)];
                config.max_queued_messages = [1, 5, 1000][source.below(3)];
                config.retry_interval_s = [0, 1, 20][source.below(3)];
                config.stall_timeout_ms = [1, 100, 1000][source.below(3)];
                config.sys_interval_s = [0, 1, 10][source.below(3)];
                config.persistent_client_expiration_s = [0, 1, 100][source.below(3)];
                config.memory_limit = [0, 1000][source.below(2)];
                world.broker.reconfigure(config, world.now);
            }
            16 => world.change_rules(&mut source),
            17 => world.administer(&mut source),
            _ => world.turn(),
        }
        world.broker.check_invariants();
    }
    world.ends.iter_mut().for_each(|end| end.room = usize::MAX);
    world.turn();
}

fn text(source: &mut Source, levels: &[&str]) -> String {
    let count = 1 + source.below(5);
    (0..count).map(|_| levels[source.below(levels.len())]).collect::<Vec<_>>().join("/")
}

fn subscribe(filter: &str) -> Vec<u8> {
    subscribe_as(Version::V311, filter, 0, 1)
}

pub fn subscribe_as(version: Version, filter: &str, options: u8, packet_id: u16) -> Vec<u8> {
    let options = if version.has_properties() { options } else { options & 3 };
    let payload = [&(filter.len() as u16).to_be_bytes()[..], filter.as_bytes(), &[options]].concat();
    let subscribe = codec::Subscribe { packet_id, properties: codec::Properties::EMPTY, payload: &payload };
    let mut bytes = Vec::new();
    codec::Packet::Subscribe(subscribe).encode(version, &mut bytes);
    bytes
}

fn publish(topic: &str, retain: bool) -> Vec<u8> {
    let properties = codec::Properties::EMPTY;
    let (dup, qos, packet_id) = (false, QoS::AtMostOnce, 0);
    let publish = codec::Publish { dup, qos, retain, topic, packet_id, properties, payload: b"1" };
    let mut bytes = Vec::new();
    codec::Packet::Publish(publish).encode(Version::V311, &mut bytes);
    bytes
}

pub fn publish_as(version: Version, topic: &str, qos: QoS, packet_id: u16, retain: bool) -> Vec<u8> {
    let (dup, properties) = (false, codec::Properties::EMPTY);
    let publish = codec::Publish { dup, qos, retain, topic, packet_id, properties, payload: topic.as_bytes() };
    let mut bytes = Vec::new();
    codec::Packet::Publish(publish).encode(version, &mut bytes);
    bytes
}

/// The topic of an encoded 3.1.1 PUBLISH.
fn packet_topic(packet: &[u8]) -> Option<&str> {
    let len = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]) as usize;
    std::str::from_utf8(packet.get(4..4 + len)?).ok()
}

/// A broker with clients at the other ends of its links, driven as the server drives it.
pub struct World {
    pub broker: Broker,
    pub now: Millis,
    /// What the broker says need not be well-formed.
    pub is_lenient: bool,
    /// Of those who dial next.
    rules: Rc<Rules>,
    ends: Vec<End>,
}

struct End {
    link: Option<LinkId>,
    version: Version,
    /// Bytes the socket takes in a turn.
    room: usize,
    /// Bytes it still takes in this turn.
    left: usize,
    received: Vec<u8>,
}

impl World {
    fn new(config: Config) -> World {
        World::around(Broker::new(config, 7), Millis(1000))
    }

    pub fn around(broker: Broker, now: Millis) -> World {
        let rules = Rc::new(Rules { allow_anonymous: true, ..Rules::default() });
        World { broker, rules, now, is_lenient: false, ends: Vec::new() }
    }

    /// A client with a session that lasts.
    pub fn come_back(&mut self, client_id: &str, version: Version) -> usize {
        let at = self.dial(version);
        let mut properties = codec::PropertiesBuf::default();
        properties.push(codec::Property::SessionExpiryInterval(u32::MAX));
        let mut connect = hello(client_id, version);
        connect.clean_start = false;
        if version.has_properties() {
            connect.properties = properties.as_properties();
        }
        let mut bytes = Vec::new();
        codec::Packet::Connect(connect).encode(version, &mut bytes);
        self.send(at, &bytes);
        at
    }

    fn dial(&mut self, version: Version) -> usize {
        let link = self.broker.open(Peer::Unknown, &self.rules, self.now);
        self.ends.push(End { link: Some(link), version, room: usize::MAX, left: usize::MAX, received: Vec::new() });
        self.ends.len() - 1
    }

    fn connect(&mut self, client_id: &str, version: Version) -> usize {
        let at = self.dial(version);
        let mut bytes = Vec::new();
        codec::Packet::Connect(hello(client_id, version)).encode(version, &mut bytes);
        self.send(at, &bytes);
        self.heard(at);
        at
    }

    /// A CONNECT of one of a few clients, with what the input says.
    /// What somebody may order by way of midge ctl, or look at.
    fn administer(&mut self, source: &mut Source) {
        let id = ["a", "b", "c"][source.below(3)];
        let inspection = match source.below(8) {
            // Somebody who is not there is not an error of the broker's.
            0 => return drop(self.broker.kick(id, self.now)),
            1 => return drop(self.broker.delete_session(id, self.now)),
            2 => {
                let filter = ["#", "a/+", "$SYS/#", "a/b"][source.below(4)];
                let mut deletion = Deletion::new(filter);
                while !self.broker.delete_retained(&mut deletion, self.now) {}
                return;
            }
            3 => Inspection::clients(),
            4 => Inspection::sessions(),
            5 => Inspection::subscriptions(),
            6 => Inspection::subscriptions_of(id),
            _ => Inspection::retained("#", true),
        };
        let (mut inspection, mut out) = (inspection, Vec::new());
        while !self.broker.inspect(&mut inspection, &mut out, self.now) {}
        let is_of_an_answer = |line: &[u8]| matches!(Line::parse(line), Some(Line::Columns(_) | Line::Row(_)));
        assert!(out.ends_with(b"\n") && out[..out.len() - 1].split(|&byte| byte == b'\n').all(is_of_an_answer));
    }

    fn connect_with(&mut self, source: &mut Source) -> usize {
        let version = VERSIONS[source.below(3)];
        let (at, flags, client_id) = (self.dial(version), source.byte(), ["a", "b", "c"][source.below(3)]);
        let mut properties = codec::PropertiesBuf::default();
        properties.push(codec::Property::SessionExpiryInterval([0, 5, u32::MAX][flags as usize % 3]));
        properties.push(codec::Property::ReceiveMaximum(1 + u16::from(flags >> 6)));
        properties.push(codec::Property::TopicAliasMaximum(u16::from(flags & 3)));
        properties.push(codec::Property::MaximumPacketSize(if flags & 32 != 0 { 40 } else { 100_000 }));
        let mut connect = hello(client_id, version);
        if version.has_properties() {
            connect.properties = properties.as_properties();
        }
        connect.clean_start = flags & 4 != 0;
        connect.keep_alive_s = if flags & 8 != 0 { 60 } else { 0 };
        connect.will = (flags & 16 != 0).then_some(codec::Will {
            qos: QoS::AtLeastOnce,
            retain: flags & 1 != 0,
            topic: "a/b",
            payload: b"gone",
            properties: codec::Properties::EMPTY,
        });
        let mut bytes = Vec::new();
        codec::Packet::Connect(connect).encode(version, &mut bytes);
        self.receive(at, &bytes);
        at
    }

    /// Other rules, for those who dial next and for one who is there.
    fn change_rules(&mut self, source: &mut Source) {
        let flags = source.byte();
        self.rules = Rc::new(Rules {
            allow_anonymous: flags & 3 != 3,
            use_username_as_clientid: flags & 12 == 12,
            accept_protocol_versions: [flags & 16 == 0, true, flags & 32 == 0],
            mount_point: ["", "a/", "a", "$x/"][source.below(4)].to_string(),
            max_qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][source.below(3)],
            max_topic_alias_broker: [0, 1, 10][source.below(3)],
            acl: (flags & 64 != 0).then(|| {
                let (acl, _) = acl::parse(b"topic a/#\ntopic deny a/b\npattern read %c/#\n").expect("it has no faults");
                Loaded::new(Path::new("acl"), acl)
            }),
            ..Rules::default()
        });
        let at = self.pick(source);
        if let Some(link) = self.ends.get(at).and_then(|end| end.link) {
            self.broker.set_rules(link, &self.rules, self.now);
        }
    }

    fn pick(&self, source: &mut Source) -> usize {
        source.below(self.ends.len().max(1))
    }

    fn version(&self, at: usize) -> Version {
        self.ends.get(at).map_or(Version::V311, |end| end.version)
    }

    fn receive(&mut self, at: usize, bytes: &[u8]) {
        if let Some(link) = self.ends.get(at).and_then(|end| end.link)
            && self.broker.wants_input(link)
            && !bytes.is_empty()
        {
            self.broker.receive(link, bytes, self.now);
        }
    }

    pub fn send(&mut self, at: usize, bytes: &[u8]) {
        self.receive(at, bytes);
        self.turn();
    }

    pub fn hang_up(&mut self, at: usize) {
        self.hang_up_if_open(at, true);
        self.turn();
    }

    fn hang_up_if_open(&mut self, at: usize, is_orderly: bool) {
        if let Some(link) = self.ends.get(at).and_then(|end| end.link) {
            let how = if is_orderly { HangUp::Closed } else { HangUp::Failed("reset".into()) };
            self.broker.hang_up(link, how, self.now);
        }
    }

    /// What the server's loop does, until nothing is left to do but to wait.
    pub fn turn(&mut self) {
        for end in &mut self.ends {
            end.left = end.room;
            end.link.into_iter().for_each(|link| self.broker.mark_unwritten(link));
        }
        for _ in 0..10_000 {
            let mut readable = Vec::new();
            self.broker.resume(&mut readable, self.now);
            let mut dirty = Vec::new();
            self.broker.take_dirty(&mut dirty);
            dirty.into_iter().for_each(|link| self.write(link));
            self.broker.tick(self.now);
            self.broker.check_invariants();
            let mut closing = Vec::new();
            self.broker.take_closing(&mut closing);
            for link in closing {
                self.broker.reap(link);
                self.ends.iter_mut().filter(|end| end.link == Some(link)).for_each(|end| end.link = None);
            }
            // Twice: the second time nothing was needed since the first.
            self.broker.trim();
            self.broker.trim();
            if !self.broker.has_work() {
                return;
            }
        }
        panic!("the broker always has work");
    }

    fn write(&mut self, link: LinkId) {
        let Some(end) = self.ends.iter_mut().find(|end| end.link == Some(link)) else { panic!("output for nobody") };
        let output = self.broker.output(link);
        assert!(output.own_len() < 1 << 20, "{} bytes of output", output.own_len());
        let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
        let count = output.slices(&mut slices);
        let mut bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(end.left);
        end.left -= bytes.len();
        self.broker.wrote(link, bytes.len(), self.now);
        if !bytes.is_empty() {
            self.broker.mark_unwritten(link);
        }
        end.received.extend(bytes);
        // What the broker says is well-formed, whatever it was told.
        let mut at = 0;
        if self.is_lenient {
            end.received.clear();
        }
        while let Split::Frame { body, len } = codec::split_frame(&end.received[at..], 0).expect("the broker's framing")
        {
            let frame = &end.received[at..at + len];
            let packet = codec::decode(frame[0], &frame[body..], end.version, Direction::ToClient);
            assert!(packet.is_ok() || frame[0] == 0x20, "{packet:?} to {:?}: {frame:02x?}", end.version);
            at += len;
        }
        if end.version != Version::V311 {
            end.received.drain(..at);
        }
    }

    /// The PUBLISH packets a 3.1.1 client got since it was last asked.
    fn heard(&mut self, at: usize) -> Vec<Vec<u8>> {
        let received = std::mem::take(&mut self.ends[at].received);
        let (mut at, mut packets) = (0, Vec::new());
        while let Ok(Split::Frame { len, .. }) = codec::split_frame(&received[at..], 0) {
            if received[at] >> 4 == 3 {
                packets.push(received[at..at + len].to_vec());
            }
            at += len;
        }
        packets
    }
}

fn hello(client_id: &str, version: Version) -> codec::Connect<'_> {
    codec::Connect {
        version,
        bridge: false,
        clean_start: true,
        session_expiry_s: 0,
        keep_alive_s: 0,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: codec::Properties::EMPTY,
    }
}
