//! A small world around the core: a broker, a clock that only tests move, and clients at the other ends of perfect
//! sockets. `World::turn` does what the server's loop does, in its order, until nothing is left to do, and sweeps the core's
//! invariants. Clients speak through `tell` and are heard through `heard`, in the words of `script`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::Path;
use std::rc::Rc;
use std::sync::Once;

use midge::access::acl;
use midge::access::passwords::{self, Allowed, Check};
use midge::broker::{Batch, Broker, HangUp, Inspection, LinkId, LoginId, Part, Peer, Replay};
use midge::buffer::OutBuf;
use midge::codec::{self, Direction, Packet, QoS, Split, Version};
use midge::config::{Config, Loaded, Persistence, Rules};
use midge::logger::Kind;
use midge::time::Millis;

use crate::explained::{Told, fault};
use crate::hello::{Hello, v311};
use crate::script::{self, Detail};

/// One read of the server's loop.
const READ_LEN: usize = 64 << 10;

/// The tests are built twice: as `broker_stored`, every world has a store, which must change nothing else.
pub const IS_STORED: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"broker_stored");

/// Number of a client in its world.
pub type Client = usize;

pub struct World {
    pub broker: Broker,
    pub now: Millis,
    pub disk: Disk,
    /// Of those who dial without others being named.
    pub rules: Rc<Rules>,
    /// Where clients dial from.
    pub host: [u8; 4],
    /// Passwords are not checked before `World::check_passwords`.
    pub is_login_slow: bool,
    /// The one that is being checked.
    taken: Option<(LoginId, Check)>,
    ends: Vec<End>,
}

/// Where the broker's batches go.
#[derive(Default)]
pub struct Disk {
    /// Those that are safe.
    pub batches: Vec<(Vec<u8>, Part)>,
    /// Handed over and not safe yet.
    under_way: Option<(Batch, Vec<u8>)>,
    /// Batches are not made safe unless `World::sync` says so, and made only when they are due.
    pub is_slow: bool,
}

impl Disk {
    /// Bytes of all batches that are safe.
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(|(bytes, _)| bytes.len()).sum()
    }
}

/// The client's end of a connection.
struct End {
    /// Nothing once the broker closed the connection.
    link: Option<LinkId>,
    version: Version,
    /// What its CONNECT says of explanations; nothing before it came.
    told: Told,
    /// Sent, but not read by the broker yet.
    sent: VecDeque<u8>,
    /// Bytes the client takes in a turn.
    takes: usize,
    /// Bytes it still takes in this turn.
    room: usize,
    /// Writing to its socket fails.
    is_broken: bool,
    /// Acknowledges at once.
    acknowledges: bool,
    received: Vec<u8>,
    /// Whole packets that nobody looked at yet.
    inbox: VecDeque<Vec<u8>>,
    is_end_told: bool,
    /// The most output the broker ever held for it.
    output_max: usize,
    next_packet_id: u16,
}

impl World {
    /// With the default configuration.
    pub fn new() -> World {
        World::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> World {
        World::with_rules(change, |_| ())
    }

    /// With other rules for all clients.
    pub fn ruled(change: impl FnOnce(&mut Rules)) -> World {
        World::with_rules(|_| (), change)
    }

    pub fn with_rules(change: impl FnOnce(&mut Config), change_rules: impl FnOnce(&mut Rules)) -> World {
        capture_log();
        let mut config = Config::default();
        change(&mut config);
        let rules = rules(change_rules);
        if IS_STORED && config.persistence == Persistence::Off {
            config.persistence = Persistence::Always;
        }
        // Not 0, so that a time nobody set shows.
        let (now, disk) = (Millis(1_000_000), Disk::default());
        World {
            broker: Broker::new(config, 0x5EED),
            now,
            disk,
            rules,
            host: [192, 0, 2, 7],
            is_login_slow: false,
            taken: None,
            ends: Vec::new(),
        }
    }

    /// With a store that makes everything safe at once.
    pub fn stored() -> World {
        World::with(|config| config.persistence = Persistence::Always)
    }

    /// Writes and syncs what is due, or all there is.
    fn commit(&mut self) {
        while self.disk.under_way.is_none() {
            let is_due = self.broker.batch_due().is_some_and(|at| at <= self.now || !self.disk.is_slow);
            if !is_due {
                return;
            }
            let mut bytes = Vec::new();
            if let Some(batch) = self.broker.take_batch(&mut bytes, !self.disk.is_slow, self.now) {
                self.disk.under_way = Some((batch, bytes));
            }
            if !self.disk.is_slow {
                self.finish_sync();
            }
        }
    }

    fn finish_sync(&mut self) {
        if let Some((batch, bytes)) = self.disk.under_way.take() {
            if batch.part == Part::End {
                let begin = self.disk.batches.iter().rposition(|(_, part)| *part == Part::Begin);
                self.disk.batches.drain(..begin.unwrap_or(self.disk.batches.len()));
            }
            self.disk.batches.push((bytes, batch.part));
            self.broker.durable(batch.position, self.now);
        }
    }

    /// What is under way becomes safe; whether there was something.
    pub fn sync(&mut self) -> bool {
        let is_under_way = self.disk.under_way.is_some();
        self.finish_sync();
        self.turn();
        is_under_way
    }

    /// The power is cut: what was not safe is lost, and so are the connections. The broker starts again.
    pub fn cut_power(&mut self) {
        self.disk.under_way = None;
        self.taken = None;
        self.broker = self.replayed();
        self.ends.iter_mut().for_each(|end| {
            end.link = None;
            end.sent.clear();
        });
        self.turn();
    }

    /// A broker that started with what is safe.
    pub fn replayed(&self) -> Broker {
        let mut broker = Broker::new(self.broker.config().clone(), 0x5EED);
        let mut replay = Replay::default();
        for (bytes, part) in &self.disk.batches {
            replay.apply(&mut broker, bytes, *part).expect("its own records");
        }
        replay.finish(&mut broker, self.now);
        broker.check_invariants();
        broker
    }

    /// A connection on which nothing was said yet; what the broker says is read as `version`.
    pub fn dial(&mut self, version: Version) -> Client {
        self.dial_by(version, &self.rules.clone())
    }

    /// Through a listener with other rules than the world's.
    pub fn dial_by(&mut self, version: Version, rules: &Rc<Rules>) -> Client {
        self.dial_from(Peer::V4(self.host.into(), 40_000 + self.ends.len() as u16), version, rules)
    }

    fn dial_from(&mut self, peer: Peer, version: Version, rules: &Rc<Rules>) -> Client {
        let link = self.broker.open(peer, rules, self.now);
        self.ends.push(End {
            link: Some(link),
            version,
            told: Told::new(peer),
            sent: VecDeque::new(),
            takes: usize::MAX,
            room: usize::MAX,
            is_broken: false,
            acknowledges: false,
            received: Vec::new(),
            inbox: VecDeque::new(),
            is_end_told: false,
            output_max: 0,
            next_packet_id: 1,
        });
        self.ends.len() - 1
    }

    /// Who comes from `peer` knocks as at the server's door; by which option it is turned away, if it is.
    pub fn knock(&mut self, peer: Peer) -> Option<&'static str> {
        let Some(denial) = self.broker.denial(peer, self.now) else {
            self.dial_from(peer, Version::V311, &self.rules.clone());
            return None;
        };
        self.broker.turned_away(self.now);
        Some(denial.option)
    }

    /// Dials and sends CONNECT, however that is answered.
    pub fn connect(&mut self, hello: Hello) -> Client {
        self.connect_by(&self.rules.clone(), hello)
    }

    /// As `connect`, through a listener with other rules.
    pub fn connect_by(&mut self, rules: &Rc<Rules>, hello: Hello) -> Client {
        let client = self.dial_by(hello.version, rules);
        self.send(client, &hello.bytes());
        client
    }

    /// Connects and is let in; what follows CONNACK is left to be heard.
    pub fn join(&mut self, hello: Hello) -> Client {
        self.join_by(&self.rules.clone(), hello)
    }

    /// As `join`, through a listener with other rules.
    pub fn join_by(&mut self, rules: &Rc<Rules>, hello: Hello) -> Client {
        let client = self.connect_by(rules, hello);
        let answer = self.hear_one(client).unwrap_or_default();
        assert!(answer.starts_with("CONNACK 00"), "not let in: {answer}");
        client
    }

    /// As `join`, of a client that acknowledges whatever it gets.
    pub fn client_that_acknowledges(&mut self, hello: Hello) -> Client {
        let client = self.dial(hello.version);
        self.acknowledges(client);
        self.send(client, &hello.bytes());
        client
    }

    /// A plain 3.1.1 client.
    pub fn client(&mut self, client_id: &str) -> Client {
        self.join(v311(client_id))
    }

    /// Sends raw bytes.
    pub fn send(&mut self, client: Client, bytes: &[u8]) {
        self.post(client, bytes);
        self.turn();
    }

    /// Sends raw bytes, whatever version they turn out to be of: the answers are thrown away.
    pub fn send_unheard(&mut self, client: Client, bytes: &[u8]) {
        self.send(client, bytes);
        self.ends[client].inbox.clear();
    }

    /// Sends raw bytes that the broker does not get to see before the next turn.
    pub fn post(&mut self, client: Client, bytes: &[u8]) {
        self.ends[client].sent.extend(bytes);
    }

    /// Sends bytes in hex; `"text"` stands for itself.
    pub fn send_hex(&mut self, client: Client, hex: &str) {
        self.send(client, &unhex(hex));
    }

    /// Sends one packet: its first byte, and its body in hex.
    pub fn send_packet(&mut self, client: Client, first_byte: u8, body: &str) {
        self.send(client, &packet(first_byte, &unhex(body)));
    }

    /// Sends packets in the words of `script`.
    pub fn tell(&mut self, client: Client, script: &str) {
        let bytes = script::encode(script, self.ends[client].version);
        self.send(client, &bytes);
    }

    /// Subscribes (`a/+ 1 b 0 nl`) and is granted what it asked for; all but SUBACK is left to be heard.
    pub fn subscribe(&mut self, client: Client, filters: &str) {
        let id = self.next_packet_id(client);
        self.tell(client, &format!("SUBSCRIBE #{id} {filters}"));
        let answer = self.hear_answer(client, &format!("SUBACK #{id} "));
        let codes = answer.split_whitespace().skip(2);
        assert!(codes.into_iter().all(|code| matches!(code, "00" | "01" | "02")), "refused: {answer}");
    }

    /// Publishes (`q1 retain TOPIC PAYLOAD`) and goes through the acknowledgements of its QoS.
    pub fn publish(&mut self, client: Client, words: &str) {
        let id = self.next_packet_id(client);
        match words.split_whitespace().find(|word| matches!(*word, "q1" | "q2")) {
            None => self.tell(client, &format!("PUBLISH {words}")),
            Some("q1") => {
                self.tell(client, &format!("PUBLISH #{id} {words}"));
                self.hear_answer(client, &format!("PUBACK #{id}"));
            }
            Some(_) => {
                self.tell(client, &format!("PUBLISH #{id} {words}"));
                self.hear_answer(client, &format!("PUBREC #{id}"));
                self.tell(client, &format!("PUBREL #{id}"));
                self.hear_answer(client, &format!("PUBCOMP #{id}"));
            }
        }
    }

    /// Publishes without waiting for the answers, which are thrown away.
    pub fn publish_all(&mut self, client: Client, messages: &[&str]) {
        for words in messages {
            let id = self.next_packet_id(client);
            self.tell(client, &format!("PUBLISH #{id} {words}"));
        }
        self.ends[client].inbox.clear();
    }

    /// Takes the packet that begins with `text` out of what the client got.
    fn hear_answer(&mut self, client: Client, text: &str) -> String {
        let texts = self.ends[client].inbox.iter().map(|frame| self.text(client, frame));
        let found = texts.enumerate().find(|(_, answer)| answer.starts_with(text));
        let (at, answer) = found.unwrap_or_else(|| panic!("no {text}"));
        self.ends[client].inbox.remove(at);
        answer
    }

    /// Packet ids the client itself gives out.
    pub fn next_packet_id(&mut self, client: Client) -> u16 {
        let next = &mut self.ends[client].next_packet_id;
        std::mem::replace(next, next.checked_add(1).unwrap_or(1))
    }

    /// Everything the client got since it was last asked, `closed` at the end if the broker closed the connection.
    pub fn heard(&mut self, client: Client) -> String {
        let mut texts: Vec<String> = std::iter::from_fn(|| self.hear_one(client)).collect();
        let end = &mut self.ends[client];
        if end.link.is_none() && !std::mem::replace(&mut end.is_end_told, true) {
            texts.push("closed".to_string());
        }
        texts.join(", ")
    }

    /// As `heard`, with all properties.
    pub fn heard_in_full(&mut self, client: Client) -> String {
        let frames: Vec<Vec<u8>> = self.ends[client].inbox.drain(..).collect();
        let mut texts = frames.iter().map(|frame| self.full_text(client, frame)).collect::<Vec<_>>();
        if self.ends[client].link.is_none() {
            texts.push("closed".to_string());
        }
        texts.join(", ")
    }

    /// The next packet the client got.
    pub fn hear_one(&mut self, client: Client) -> Option<String> {
        let frame = self.ends[client].inbox.pop_front()?;
        Some(self.text(client, &frame))
    }

    /// The bytes of the packets the client got since it was last asked.
    pub fn heard_bytes(&mut self, client: Client) -> Vec<Vec<u8>> {
        self.ends[client].inbox.drain(..).collect()
    }

    fn text(&self, client: Client, frame: &[u8]) -> String {
        let version = self.ends[client].version;
        script::show(&decode(frame, version), version, Detail::Brief)
    }

    fn full_text(&self, client: Client, frame: &[u8]) -> String {
        let version = self.ends[client].version;
        script::show(&decode(frame, version), version, Detail::Full)
    }

    pub fn is_open(&self, client: Client) -> bool {
        self.ends[client].link.is_some()
    }

    pub fn link(&self, client: Client) -> LinkId {
        self.ends[client].link.expect("the connection is closed")
    }

    /// The client's socket is gone without a word.
    pub fn hang_up(&mut self, client: Client) {
        self.ends[client].sent.clear();
        let link = self.link(client);
        self.broker.hang_up(link, HangUp::Closed, self.now);
        self.turn();
    }

    /// What the client sent arrives with the end of its stream behind it, in one turn.
    pub fn deliver_and_hang_up(&mut self, client: Client) {
        let (link, bytes) = (self.link(client), self.ends[client].sent.drain(..).collect::<Vec<u8>>());
        self.ends[client].told.note(&bytes);
        self.broker.receive(link, &bytes, self.now);
        self.broker.hang_up(link, HangUp::Closed, self.now);
        self.turn();
    }

    /// From now on the client takes `bytes` a turn: 0 takes nothing.
    pub fn takes(&mut self, client: Client, bytes: usize) {
        self.ends[client].takes = bytes;
        self.ends[client].room = bytes;
    }

    /// From now on writing to the client's socket fails.
    pub fn breaks(&mut self, client: Client) {
        self.ends[client].is_broken = true;
    }

    /// From now on the client acknowledges what it gets.
    pub fn acknowledges(&mut self, client: Client) {
        self.ends[client].acknowledges = true;
    }

    /// Bytes the client sent that the broker did not take yet.
    pub fn unread(&self, client: Client) -> usize {
        self.ends[client].sent.len()
    }

    /// The broker is told another configuration.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = self.broker.config().clone();
        change(&mut config);
        self.broker.reconfigure(config, self.now);
        self.turn();
    }

    /// The listener of the client has other rules.
    pub fn set_rules(&mut self, client: Client, rules: &Rc<Rules>) {
        let link = self.link(client);
        self.broker.set_rules(link, rules, self.now);
        self.turn();
    }

    /// The rows of a list of the broker's without their first word, tabs as `|`, asked for slice by slice.
    pub fn rows(&mut self, mut inspection: Inspection) -> Vec<String> {
        let mut out = Vec::new();
        while !self.broker.inspect(&mut inspection, &mut out, self.now) {}
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("columns\t"), "{text}");
        text.lines().skip(1).map(|line| line.strip_prefix("row\t").expect("a row").replace('\t', "|")).collect()
    }

    /// Whether output waits for the client, or the client's answers for the broker.
    pub fn pending(&self, client: Client) -> bool {
        !self.broker.output(self.link(client)).is_empty() || self.unread(client) > 0
    }

    /// The most output the broker ever held for the client.
    pub fn output_max(&self, client: Client) -> usize {
        self.ends[client].output_max
    }

    /// Lets time pass, turn by turn at the broker's deadlines.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now + Millis(ms);
        let mut turns = 0;
        while let Some(deadline) = self.next_deadline()
            && deadline <= end
        {
            self.now = self.now.max(deadline);
            self.turn();
            turns += 1;
            assert!(turns < 1_000_000, "the broker's deadlines do not pass");
        }
        self.now = end;
        self.turn();
    }

    fn next_deadline(&self) -> Option<Millis> {
        let batch_due = self.broker.batch_due().filter(|_| self.disk.under_way.is_none());
        self.broker.next_deadline().into_iter().chain(batch_due).min()
    }

    pub fn advance_s(&mut self, seconds: u64) {
        self.advance(seconds * 1000);
    }

    /// Lets time pass in steps of `ms` while the publisher has something for the broker, or the broker something for the subscriber.
    pub fn advance_while_busy(&mut self, ms: u64, publisher: Client, subscriber: Client) {
        let mut steps = 0;
        while self.unread(publisher) > 0 || self.pending(subscriber) {
            self.advance(ms);
            steps += 1;
            assert!(steps < 100_000, "what waits does not go on");
        }
    }

    /// What the server's loop does with what is ready, until nothing is left to do.
    pub fn turn(&mut self) {
        for end in &mut self.ends {
            end.room = end.takes;
            if let Some(link) = end.link {
                self.broker.mark_unwritten(link);
            }
        }
        let mut rounds = 0;
        loop {
            let has_read = self.read();
            self.log_in();
            self.broker.tick(self.now);
            let mut readable = Vec::new();
            self.broker.resume(&mut readable, self.now);
            self.broker.check_invariants();
            let has_written = self.write();
            self.reap();
            rounds += 1;
            assert!(rounds < 1_000_000, "the broker always has work");
            if !has_read && readable.is_empty() && !self.broker.has_work() {
                self.commit();
                if !self.broker.has_work() && !has_written {
                    break;
                }
            }
        }
        self.broker.check_invariants();
    }

    /// The helper thread of the server: one check at a time.
    fn log_in(&mut self) {
        while self.taken.is_none() {
            self.taken = self.broker.take_login(self.now);
            if self.taken.is_none() || self.is_login_slow {
                return;
            }
            self.finish_check();
        }
    }

    fn finish_check(&mut self) {
        if let Some((id, check)) = self.taken.take() {
            self.broker.login(id, check.run(), self.now);
        }
    }

    /// The check that is under way is done; whether there was one.
    pub fn check_password(&mut self) -> bool {
        let is_under_way = self.taken.is_some();
        self.finish_check();
        self.turn();
        is_under_way
    }

    /// One read of each socket that has something and may be read.
    fn read(&mut self) -> bool {
        let mut has_read = false;
        for end in &mut self.ends {
            let Some(link) = end.link else { continue };
            if end.sent.is_empty() || !self.broker.wants_input(link) {
                continue;
            }
            let count = end.sent.len().min(READ_LEN);
            let bytes: Vec<u8> = end.sent.drain(..count).collect();
            end.told.note(&bytes);
            self.broker.receive(link, &bytes, self.now);
            has_read = true;
        }
        has_read
    }

    /// One write of each link with output; whether there was any.
    fn write(&mut self) -> bool {
        let mut dirty = Vec::new();
        self.broker.take_dirty(&mut dirty);
        let has_written = !dirty.is_empty();
        for link in dirty {
            let end = self.ends.iter_mut().find(|end| end.link == Some(link)).expect("output for nobody");
            if end.is_broken {
                self.broker.hang_up(link, HangUp::Failed("Connection reset by peer".into()), self.now);
                continue;
            }
            let output = self.broker.output(link);
            end.output_max = end.output_max.max(output.len());
            let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
            let count = output.slices(&mut slices);
            let mut taken = 0;
            for slice in &slices[..count] {
                let part = slice.len().min(end.room);
                end.received.extend_from_slice(&slice[..part]);
                end.room -= part;
                taken += part;
            }
            end.sort(self.broker.config().connection_messages);
            self.broker.wrote(link, taken, self.now);
            if end.room > 0 {
                self.broker.mark_unwritten(link);
            }
        }
        has_written
    }

    fn reap(&mut self) {
        let mut closing = Vec::new();
        self.broker.take_closing(&mut closing);
        for link in closing {
            self.broker.reap(link);
            let end = self.ends.iter_mut().find(|end| end.link == Some(link)).expect("nobody has this link");
            end.link = None;
            end.sent.clear();
        }
    }
}

impl End {
    /// Takes whole packets out of what was received, and acknowledges them if it does that. Whatever is refused must be explained,
    /// to the client and in the log.
    fn sort(&mut self, is_end_logged: bool) {
        let mut at = 0;
        while let Split::Frame { len, .. } = codec::split_frame(&self.received[at..], 0).expect("the broker's framing")
        {
            let frame = self.received[at..at + len].to_vec();
            at += len;
            if let Some(fault) = fault(&frame, &self.told, is_end_logged, has_line) {
                panic!("{fault}: {frame:02x?}");
            }
            if self.acknowledges {
                let answer = match decode(&frame, self.version) {
                    Packet::Publish(publish) if publish.qos == QoS::AtLeastOnce => Some(("PUBACK", publish.packet_id)),
                    Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => Some(("PUBREC", publish.packet_id)),
                    Packet::PubRel(ack) => Some(("PUBCOMP", ack.packet_id)),
                    _ => None,
                };
                if let Some((kind, id)) = answer {
                    self.sent.extend(script::encode(&format!("{kind} #{id}"), self.version));
                }
            }
            self.inbox.push_back(frame);
        }
        self.received.drain(..at);
    }
}

/// The default rules, but that everybody is let in, and with a change.
pub fn rules(change: impl FnOnce(&mut Rules)) -> Rc<Rules> {
    let mut rules = Rules { allow_anonymous: true, ..Rules::default() };
    change(&mut rules);
    Rc::new(rules)
}

/// Users by a password file without faults, which is at `/passwd`.
pub fn users(file: &str) -> Option<Loaded<passwords::Passwords>> {
    let (passwords, faults) = passwords::parse(file.as_bytes(), &Allowed { plain_text: true, ..Allowed::default() });
    assert_eq!(faults, []);
    Some(Loaded::new(Path::new("/passwd"), passwords))
}

/// Rights by an access control file without faults, which is at `/acl`.
pub fn rights(file: &str) -> Option<Loaded<acl::Acl>> {
    let (acl, _) = acl::parse(file.as_bytes()).expect("a file without faults");
    Some(Loaded::new(Path::new("/acl"), acl))
}

/// A whole packet of the broker.
pub fn decode(frame: &[u8], version: Version) -> Packet<'_> {
    let Ok(Split::Frame { body, len }) = codec::split_frame(frame, 0) else { panic!("no whole packet") };
    assert_eq!(len, frame.len());
    codec::decode(frame[0], &frame[body..], version, Direction::ToClient)
        .unwrap_or_else(|error| panic!("the broker sent {frame:02x?}: {error}"))
}

/// A packet with the right Remaining Length.
pub fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (vec![first_byte], body.len());
    while rest >= 128 {
        bytes.push(rest as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    [&bytes, body].concat()
}

/// Bytes from hex; `"text"` stands for itself.
pub fn unhex(hex: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, part) in hex.split('"').enumerate() {
        match at % 2 {
            0 => bytes.extend(part.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap())),
            _ => bytes.extend_from_slice(part.as_bytes()),
        }
    }
    bytes
}

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let (kind, text) = (Kind::of(record.metadata()), record.args());
        LOG.with_borrow_mut(|lines| lines.push(format!("{kind:?}: {text}")));
    }

    fn flush(&self) {}
}

fn capture_log() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        log::set_logger(&Capture).expect("one logger");
        log::set_max_level(log::LevelFilter::Debug);
    });
    LOG.with_borrow_mut(Vec::clear);
}

/// Whether a line of this world's log has all these parts in it.
fn has_line(parts: &[&str]) -> bool {
    LOG.with_borrow(|lines| lines.iter().rev().any(|line| parts.iter().all(|part| line.contains(part))))
}

/// How many lines of this world's log contain `text`; each begins with its kind. Lines for debugging count only if asked for.
pub fn log_count(text: &str) -> usize {
    let is_wanted = |line: &&String| line.starts_with("Debug: ") == text.starts_with("Debug: ");
    LOG.with_borrow(|lines| lines.iter().filter(is_wanted).filter(|line| line.contains(text)).count())
}
