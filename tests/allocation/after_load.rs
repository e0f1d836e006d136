//! What is left once all clients are gone and the memory was looked through, as the server does: as many allocations and bytes
//! as in a broker that never had a client.

use midge::codec::{Ack, Direction, ReasonCode, Split, decode, split_frame};

use super::*;

/// The server's interval.
const TRIM_INTERVAL: Millis = Millis(2000);
/// Looks through the memory until there is nothing more to give back: one finds out that traffic is over, one acts on it, and
/// what went through the buffers meanwhile may take a third.
const TRIMS_MAX: u32 = 4;

/// A broker with clients that answer what they are sent.
struct World {
    broker: Broker,
    now: Millis,
    /// By link id.
    versions: Vec<Version>,
    received: u64,
}

impl World {
    fn new() -> World {
        World { broker: Broker::new(Config::default(), 7), now: NOW, versions: Vec::new(), received: 0 }
    }

    fn connect(&mut self, client_id: &str, version: Version, expiry_s: u32) -> LinkId {
        let mut properties = PropertiesBuf::default();
        if expiry_s > 0 {
            properties.push(Property::SessionExpiryInterval(expiry_s));
        }
        properties.push(Property::TopicAliasMaximum(10));
        let connect = Connect {
            version,
            bridge: false,
            clean_start: true,
            session_expiry_s: expiry_s,
            keep_alive_s: 600,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: if version == Version::V5 { properties.as_properties() } else { Properties::EMPTY },
        };
        let link = self.broker.open(Peer::Unknown, &rules(), self.now);
        let at = link as usize;
        if self.versions.len() <= at {
            self.versions.resize(at + 1, version);
        }
        self.versions[at] = version;
        self.send(link, &encoded(Packet::Connect(connect), version));
        link
    }

    fn subscribe(&mut self, link: LinkId, filter: &str, qos: QoS) {
        let (no_local, retain_as_published, retain_handling) = (false, false, RetainHandling::Send);
        let options = SubscribeOptions { qos, no_local, retain_as_published, retain_handling };
        let mut payload = Vec::new();
        Subscribe::push_filter(&mut payload, filter, options);
        let subscribe = Subscribe { packet_id: 1, properties: Properties::EMPTY, payload: &payload };
        self.send(link, &encoded(Packet::Subscribe(subscribe), self.versions[link as usize]));
    }

    fn publish(&mut self, link: LinkId, topic: &str, qos: QoS, retain: bool, payload: &[u8]) {
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { 7 };
        let properties = Properties::EMPTY;
        let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload };
        self.send(link, &encoded(Packet::Publish(publish), self.versions[link as usize]));
    }

    fn leave(&mut self, link: LinkId) {
        self.send(link, &[0xE0, 0]);
    }

    fn send(&mut self, link: LinkId, bytes: &[u8]) {
        self.broker.receive(link, bytes, self.now);
        self.turns();
    }

    /// All output is written, and answered.
    fn turns(&mut self) {
        self.broker.tick(self.now);
        let (mut links, mut readable) = (Vec::new(), Vec::new());
        while self.broker.has_work() {
            self.broker.resume(&mut readable, self.now);
            self.broker.take_dirty(&mut links);
            for link in links.drain(..) {
                let output = self.take_output(link);
                let answer = self.answer(link, &output);
                if !answer.is_empty() {
                    self.broker.receive(link, &answer, self.now);
                }
            }
            self.broker.take_closing(&mut links);
            links.drain(..).for_each(|link| self.broker.reap(link));
        }
    }

    fn take_output(&mut self, link: LinkId) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
        let count = self.broker.output(link).slices(&mut slices);
        let bytes = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
        self.broker.wrote(link, bytes.len(), self.now);
        self.broker.mark_unwritten(link);
        bytes
    }

    fn answer(&mut self, link: LinkId, mut output: &[u8]) -> Vec<u8> {
        let (version, mut answer) = (self.versions[link as usize], Vec::new());
        let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
        while let Ok(Split::Frame { body, len }) = split_frame(output, u32::MAX) {
            let packet = decode(output[0], &output[body..len], version, Direction::ToClient).unwrap();
            output = &output[len..];
            self.received += matches!(packet, Packet::Publish(_)) as u64;
            match packet {
                Packet::Publish(publish) if publish.qos == QoS::AtLeastOnce => Packet::PubAck(ack(publish.packet_id)),
                Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => Packet::PubRec(ack(publish.packet_id)),
                Packet::PubRec(received) => Packet::PubRel(ack(received.packet_id)),
                Packet::PubRel(released) => Packet::PubComp(ack(released.packet_id)),
                _ => continue,
            }
            .encode(version, &mut answer);
        }
        answer
    }

    /// What the server does when nothing happens any more.
    fn settle(&mut self) {
        for _ in 0..TRIMS_MAX {
            if !self.broker.has_spare_memory() {
                return;
            }
            self.now = self.now + TRIM_INTERVAL;
            self.turns();
            self.broker.trim();
        }
        panic!("an idle broker does not come to rest");
    }
}

/// A load with all clients gone at its end leaves nothing, nor does it when it comes a second time.
fn leaves_nothing(load: fn(&mut World)) {
    let mut world = World::new();
    // It has room for a few trie nodes that it does not need yet.
    world.broker.trim();
    let before = LIVE.get();
    for round in 0..2 {
        load(&mut world);
        assert_eq!((world.broker.link_count(), world.broker.subscription_count()), (0, 0));
        world.versions = Vec::new();
        world.settle();
        assert_eq!(world.broker.session_count(), 0);
        let after = LIVE.get();
        assert_eq!((after.0 - before.0, after.1 - before.1), (0, 0), "allocations and bytes, round {round}");
    }
}

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

#[test]
fn connections_leave_nothing() {
    leaves_nothing(|world| {
        let links: Vec<LinkId> =
            (0..2000).map(|number| world.connect(&format!("client-{number}"), VERSIONS[number % 3], 0)).collect();
        world.settle();
        links.into_iter().for_each(|link| world.leave(link));
    });
}

#[test]
fn pairs_of_every_qos_leave_nothing() {
    leaves_nothing(|world| {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut pairs = Vec::new();
            for number in 0..60 {
                let version = VERSIONS[number % 3];
                let publisher = world.connect(&format!("publisher-{number}"), version, 0);
                let subscriber = world.connect(&format!("subscriber-{number}"), version, 0);
                let topic = format!("house/{number}/temperature/of/a/room/with/a/long/name");
                world.subscribe(subscriber, if number % 2 == 0 { &topic } else { "house/+/temperature/#" }, qos);
                pairs.push((publisher, subscriber, topic));
            }
            let before = world.received;
            for _ in 0..5 {
                pairs.iter().for_each(|(publisher, _, topic)| world.publish(*publisher, topic, qos, false, &[1; 3000]));
            }
            assert_eq!(world.received - before, 5 * (30 + 60 * 30));
            pairs.iter().for_each(|&(publisher, subscriber, _)| {
                world.leave(publisher);
                world.leave(subscriber);
            });
        }
    });
}

#[test]
fn subscriptions_of_few_who_were_silent_leave_nothing() {
    leaves_nothing(|world| {
        let links: Vec<LinkId> = (0..10).map(|number| world.connect(&format!("{number}"), Version::V5, 0)).collect();
        for number in 0..5000 {
            let link = links[number % links.len()];
            let forms = ["", "+/", "$share/group/+/"];
            world.subscribe(link, &format!("{}a/{number}/b", forms[number % 3]), QoS::AtLeastOnce);
        }
        // Their buffers are gone before they are.
        world.settle();
        links.into_iter().for_each(|link| world.leave(link));
    });
}

#[test]
fn retained_messages_that_are_cleared_or_expire_leave_nothing() {
    leaves_nothing(|world| {
        let publisher = world.connect("publisher", Version::V5, 0);
        let topics: Vec<String> = (0..3000).map(|number| format!("house/{number}/state")).collect();
        topics.iter().for_each(|topic| world.publish(publisher, topic, QoS::AtMostOnce, true, b"on"));
        world.settle();
        topics.iter().for_each(|topic| world.publish(publisher, topic, QoS::AtMostOnce, true, b""));
        let mut properties = PropertiesBuf::default();
        properties.push(Property::MessageExpiryInterval(60));
        for topic in &topics {
            let (dup, qos, retain, packet_id) = (false, QoS::AtMostOnce, true, 0);
            let properties = properties.as_properties();
            let publish = Publish { dup, qos, retain, topic, packet_id, properties, payload: b"on" };
            world.send(publisher, &encoded(Packet::Publish(publish), Version::V5));
        }
        assert_eq!(world.broker.retained_count(), topics.len());
        world.leave(publisher);
        world.settle();
        world.now = world.now + Millis(61_000);
        world.turns();
        assert_eq!(world.broker.retained_count(), 0);
        assert!(world.broker.has_spare_memory());
    });
}

#[test]
fn messages_queued_for_sessions_that_expire_leave_nothing() {
    leaves_nothing(|world| {
        for number in 0..20 {
            let away = world.connect(&format!("away-{number}"), Version::V5, 100);
            world.subscribe(away, "house/#", QoS::AtLeastOnce);
            world.leave(away);
        }
        let publisher = world.connect("publisher", Version::V311, 0);
        (0..1000).for_each(|_| world.publish(publisher, "house/door", QoS::AtLeastOnce, false, &[1; 64]));
        world.leave(publisher);
        world.settle();
        world.now = world.now + Millis(101_000);
        world.turns();
        assert_eq!(world.broker.session_count(), 0);
        assert!(world.broker.has_spare_memory());
    });
}

#[test]
fn the_brokers_own_topics_leave_nothing() {
    leaves_nothing(|world| {
        let reader = world.connect("reader", Version::V5, 0);
        world.subscribe(reader, "$SYS/#", QoS::AtMostOnce);
        for _ in 0..20 {
            world.now = world.now + Millis(10_000);
            world.turns();
        }
        world.leave(reader);
        // They end when the next values were due.
        world.now = world.now + Millis(10_000);
        world.turns();
        assert_eq!(world.broker.retained_count(), 0);
    });
}
