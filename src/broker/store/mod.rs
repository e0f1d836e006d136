//! What must survive a restart, as seen by the core: changes are noted here in the turn they happen and leave as batches, each
//! written at once or not at all. Batches are numbered; what waits for storage waits for such a number, its position.
//!
//! Most things are noted as *changed* and written with the state they have when the batch is made: a retained value that
//! changes ten times is written once, and a message that is delivered and acknowledged before its batch is made is never
//! written. What nobody waits for (a retained QoS 0 message, the end of a delivery) waits for company.
//!
//! ```text
//! record      bytes of the records
//! batch       what changed, made into records; the snapshot that replaces an old file, in parts
//! hold        packets that wait for their position, and QoS 2 messages that wait to be routed
//! replay      records back into sessions, subscriptions and messages
//! ```
//!
//! Invariants: while a session is stored (`Session::number`), each of its entries of QoS 1 or 2 is recorded or changed;
//! the messages of recorded entries, and of those that wait to be routed, stand in `messages` and nobody else's do.

mod batch;
mod hold;
mod record;
mod replay;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::NONE;
use super::clients::Clients;
use super::index::{Subscriber, SubscriptionKey};
use super::link::LinkId;
use super::message::Message;
use super::session::{Entry, Inflight, Queued, Session};
use crate::codec::QoS;
use crate::config::{Autosave, Persistence};
use crate::time::Millis;

use self::batch::Snapshot;
use self::hold::Gated;
use self::record::{Record, SubscriptionRecord};

pub use self::batch::EntryState;
pub use self::batch::{Batch, Part};
pub use self::hold::{Held, Wait};
pub use self::replay::Replay;

/// How long a message that a connected client was sent may wait for its acknowledgement before it is written: longer than a
/// round trip over Wi-Fi takes. Its publisher waits as long.
const GRACE: Millis = Millis(20);
/// How long changes wait that nobody waits for.
const LAZY: Millis = Millis(5000);
/// How long the coming and going of a client may wait: many do so every minute, and it is nothing but a time.
const LAZIER: Millis = Millis(60_000);
/// A session that would end so soon is stored at once when its client is back.
const SOON: Millis = Millis(120_000);
/// How long they wait where they are to be written with others only, or when the broker ends.
const LAZIEST: Millis = Millis(365 * 86_400_000);
/// Changes that nobody waits for are written once there are so many bytes of them.
const RECORDS_MAX: usize = 32 << 10;

pub struct Store {
    mode: Persistence,
    /// What is said of changes nobody waits for.
    pub autosave: Option<Autosave>,
    /// How many of them there were since the last batch.
    lazy_changes: u32,
    /// Storage fails at the moment: nothing new can be promised.
    pub is_failing: bool,
    /// The number of the batch that changes go into.
    open: u64,
    /// The last batch that is as safe as the mode wants it.
    durable: u64,
    /// When the open batch is to be made.
    due: Millis,
    /// Changes that are recorded as they happen, in that order.
    records: Vec<u8>,
    /// Sessions whose attributes changed.
    sessions: BTreeSet<u32>,
    /// Topics whose retained message changed.
    topics: BTreeSet<Box<str>>,
    /// Entries that are new or changed, by key.
    entries: BTreeMap<u64, Changed>,
    /// Publishes whose acknowledgement waits for their entries to be settled or safe.
    publishes: HashMap<u32, Pending>,
    /// Of the batch that is under way: the publishes of the entries in it, one for each.
    written: Vec<u32>,
    /// Messages of recorded entries, by their address.
    messages: HashMap<usize, Recorded>,
    /// Subscriptions that were sent all the retained messages they were owed.
    paid: Vec<Paid>,
    /// Messages that were routed since the last batch, with their numbers.
    routed: Vec<(u64, Message)>,
    /// QoS 2 messages that are not routed before they are safe, oldest first.
    gated: VecDeque<Gated>,
    /// Sessions with messages that are not sent before they are safe.
    unsent: Vec<u32>,
    /// Links with packets that wait.
    holding: Vec<LinkId>,
    snapshot: Option<Snapshot>,
    /// Which file messages are recorded in: a snapshot begins a new one.
    file: u32,
    /// The batch in which the last stored session ended.
    ended: u64,
    last_session: u32,
    last_key: u64,
    last_message: u64,
    last_publish: u32,
    /// The publish that is being routed, and the entries made for it.
    publish: (u32, u32),
    /// Entries made now replace recorded ones, and must be in the same batch as the end of those.
    pub is_handing_on: bool,
    pub stats: StoreStats,
    session_count: usize,
    entry_count: usize,
    message_bytes: u64,
}

/// What the files of the store are like, and what they did to the flash since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes in the files.
    pub held_bytes: u64,
    /// Bytes of the batches that were to be written.
    pub batch_bytes: u64,
    /// Bytes the device was given for them.
    pub written_bytes: u64,
    pub syncs: u64,
    /// How often everything was written anew.
    pub snapshots: u64,
    /// What `written_bytes` come to in a year at the rate since start.
    pub yearly_bytes: u64,
}

impl StoreStats {
    /// Hundredths of a byte that were written for each byte that changed; 0 while nothing did.
    pub fn amplification_hundredths(&self) -> u64 {
        (self.written_bytes.saturating_mul(100) + self.batch_bytes / 2).checked_div(self.batch_bytes).unwrap_or(0)
    }
}

/// An entry that is new, or in another state than was recorded.
struct Changed {
    session: u32,
    /// A new one is not written before.
    due: Millis,
    publish: u32,
}

/// A publish whose acknowledgement waits.
struct Pending {
    /// Entries that are neither settled nor safe.
    entries: u32,
    link: LinkId,
}

/// A subscription that owes nothing more. It is recorded so with the last of the entries its messages were given, not before:
/// after a power cut between the two they would not come again.
struct Paid {
    /// The number of its session.
    number: u32,
    session: u32,
    key: SubscriptionKey,
    /// The entries go up to this key.
    last_key: u64,
}

struct Recorded {
    number: u64,
    references: u32,
    file: u32,
    len: u32,
}

impl Store {
    pub fn new(mode: Persistence, autosave: Option<Autosave>) -> Store {
        Store {
            mode,
            autosave,
            lazy_changes: 0,
            is_failing: false,
            open: 1,
            durable: 0,
            due: Millis::NEVER,
            records: Vec::new(),
            sessions: BTreeSet::new(),
            topics: BTreeSet::new(),
            entries: BTreeMap::new(),
            publishes: HashMap::new(),
            written: Vec::new(),
            messages: HashMap::new(),
            paid: Vec::new(),
            routed: Vec::new(),
            gated: VecDeque::new(),
            unsent: Vec::new(),
            holding: Vec::new(),
            snapshot: None,
            file: 0,
            ended: 0,
            last_session: 0,
            last_key: 0,
            last_message: 0,
            last_publish: 0,
            publish: (0, 0),
            is_handing_on: false,
            stats: StoreStats::default(),
            session_count: 0,
            entry_count: 0,
            message_bytes: 0,
        }
    }

    pub fn is_on(&self) -> bool {
        self.mode != Persistence::Off
    }

    /// Whether what is promised must be safe first.
    pub fn is_strict(&self) -> bool {
        self.mode == Persistence::Always
    }

    /// The last position that is as safe as the mode wants it.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The open batch is to be made at `at`.
    fn want(&mut self, at: Millis, now: Millis) {
        match self.mode {
            Persistence::Off => {}
            Persistence::Always | Persistence::Never => self.due = self.due.min(at),
            Persistence::Interval(seconds) => self.due = self.due.min(now + Millis::from_secs(seconds.into())),
        }
    }

    /// The same for a change that nobody waits for: when `after` is over, if nothing else is said of such changes.
    fn want_lazily(&mut self, after: Millis, now: Millis) {
        self.lazy_changes = self.lazy_changes.saturating_add(1);
        let at = match self.autosave {
            Some(Autosave::Changes(most)) if most > 0 && self.lazy_changes >= most => now,
            _ => now + self.laziness(after),
        };
        self.want(at, now);
    }

    fn laziness(&self, after: Millis) -> Millis {
        match self.autosave {
            None => after,
            Some(Autosave::Seconds(0) | Autosave::Changes(_)) => LAZIEST,
            Some(Autosave::Seconds(seconds)) => Millis::from_secs(seconds.into()),
        }
    }

    /// Everything noted so far is written in the next batch, which is made at once.
    pub fn save_now(&mut self, now: Millis) {
        if self.due != Millis::NEVER {
            self.due = self.due.min(now);
        }
    }

    /// Notes a change that is recorded as it is. Nobody waits for it unless they say so.
    fn record(&mut self, record: &Record, now: Millis) {
        if self.is_on() {
            record.encode(&mut self.records);
            match self.records.len() > RECORDS_MAX {
                true => self.want(now, now),
                false => self.want_lazily(LAZY, now),
            }
        }
    }

    /// The position at which everything noted so far is safe, but for entries that wait for their acknowledgement.
    pub fn position(&self) -> u64 {
        let is_empty =
            self.records.is_empty() && self.sessions.is_empty() && self.topics.is_empty() && self.routed.is_empty();
        if is_empty { self.open - 1 } else { self.open }
    }

    /// For a packet that promises everything noted so far: the position it waits for, 0 if there is nothing to wait for.
    #[inline]
    pub fn promise(&mut self, now: Millis) -> u64 {
        if !self.is_strict() {
            return 0;
        }
        let position = self.position();
        if position <= self.durable {
            return 0;
        }
        if position == self.open {
            self.want(now, now);
        }
        position
    }

    /// For CONNACK of a client that is told it has a new session: the position at which the sessions that ended are gone for
    /// good, its older one perhaps among them; 0 if they are. Came that back, a packet id in use in it would make a new
    /// message look like a repeat.
    pub fn promise_ends(&mut self, now: Millis) -> u64 {
        if !self.is_strict() || self.ended <= self.durable {
            return 0;
        }
        if self.ended == self.open {
            self.want(now, now);
        }
        self.ended
    }

    /// Entries made from here on belong to one publish, until `end_publish`.
    pub fn begin_publish(&mut self) {
        if self.is_strict() {
            self.last_publish = self.last_publish.wrapping_add(1).max(1);
            self.publish = (self.last_publish, 0);
        }
    }

    /// The number its acknowledgement, to be sent on `link`, has to wait for; 0 if it has none to wait for.
    pub fn end_publish(&mut self, link: LinkId) -> u32 {
        let (publish, entries) = std::mem::take(&mut self.publish);
        if entries == 0 {
            return 0;
        }
        self.publishes.insert(publish, Pending { entries, link });
        publish
    }

    /// The retained message of `topic` is another one, or none, from now on.
    pub fn retained_changed(&mut self, topic: &str, now: Millis) {
        if !self.is_on() || is_own_topic(topic) {
            return;
        }
        if !self.topics.contains(topic) {
            self.topics.insert(topic.into());
        }
        self.want_lazily(LAZY, now);
    }

    /// A session of this number, or 0, subscribed.
    pub fn subscribed(&mut self, number: u32, filter: &str, subscriber: &Subscriber, owes_retained: bool, now: Millis) {
        if number != 0 {
            let record = subscription_record(number, filter, subscriber, owes_retained);
            self.record(&Record::Subscription(record), now);
        }
    }

    /// A subscription was sent all the retained messages it was owed, by a session of this number, or 0.
    pub fn paid(&mut self, number: u32, session: u32, key: SubscriptionKey, now: Millis) {
        if number != 0 && self.is_on() {
            self.paid.push(Paid { number, session, key, last_key: self.last_key });
            self.want_lazily(LAZY, now);
        }
    }

    /// `session` is the number of a stored session, or 0; so it is with the next two.
    pub fn unsubscribed(&mut self, session: u32, id: u32, filter: &str, now: Millis) {
        if session != 0 {
            if let Some(snapshot) = &mut self.snapshot {
                snapshot.subscriptions_moved(id);
            }
            self.record(&Record::Unsubscription { session, filter }, now);
        }
    }

    pub fn received(&mut self, session: u32, packet_id: u16, now: Millis) {
        if session != 0 {
            self.record(&Record::Received { session, packet_id }, now);
        }
    }

    pub fn released(&mut self, session: u32, packet_id: u16, now: Millis) {
        if session != 0 {
            self.record(&Record::Released { session, packet_id }, now);
        }
    }

    /// A new entry of a stored session.
    fn new_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    /// Notes that an entry is new, or changed.
    #[inline(never)]
    fn entry_changed(&mut self, entry: &Entry, session: u32, due: Millis, now: Millis) {
        let due = if self.is_handing_on { now } else { due };
        self.want(if entry.is_recorded() { due.max(now) } else { due }, now);
        let changed = match self.entries.get_mut(&entry.key()) {
            Some(changed) => {
                changed.due = changed.due.min(due);
                return;
            }
            None if entry.is_recorded() => Changed { session, due, publish: 0 },
            None => {
                self.publish.1 += (self.publish.0 != 0) as u32;
                Changed { session, due, publish: self.publish.0 }
            }
        };
        self.entries.insert(entry.key(), changed);
    }

    /// One more recorded entry refers to the message. Says its number, recording it first if the present file has it not.
    fn refer(&mut self, message: &Message, out: &mut Vec<u8>, is_new_reference: bool) -> u64 {
        let len = message.len() as u32;
        let recorded = self.messages.entry(address(message)).or_insert_with(|| {
            self.last_message += 1;
            self.message_bytes += u64::from(len);
            Recorded { number: self.last_message, references: 0, file: NONE, len }
        });
        recorded.references += is_new_reference as u32;
        if recorded.file != self.file {
            recorded.file = self.file;
            Record::Message { number: recorded.number, content: message.as_stored() }.encode(out);
        }
        recorded.number
    }

    /// One recorded entry less refers to the message.
    fn unrefer(&mut self, message: &Message) {
        let Some(recorded) = self.messages.get_mut(&address(message)) else { return };
        recorded.references -= 1;
        if recorded.references == 0 {
            self.message_bytes -= u64::from(recorded.len);
            self.messages.remove(&address(message));
        }
    }

    /// About how many bytes a file takes that holds what is stored now, without `retained` messages of `retained_bytes`
    /// and so many `subscriptions`, which others count.
    fn live_bytes(&self, retained: usize, retained_bytes: usize, subscriptions: usize) -> u64 {
        let others = 48 * self.session_count + 32 * subscriptions + 16 * self.entry_count + 16 * self.messages.len();
        (others + 8 * retained + retained_bytes) as u64 + self.message_bytes
    }

    /// Whether the entry of this session is new or changed.
    pub fn has_changed(&self, key: u64, session: u32) -> bool {
        self.entries.get(&key).is_some_and(|changed| changed.session == session)
    }

    /// Panics if the messages that recorded entries refer to, the number of changed entries, or the links that hold
    /// packets are others than noted here.
    pub fn check(&self, mut recorded: HashMap<usize, u32>, changed: usize, holding: HashSet<LinkId>) {
        assert_eq!(changed, self.entries.len(), "entries are noted that are gone");
        let gated = self.gated.iter().filter_map(|gated| gated.accepted().map(|(_, message)| message));
        for message in gated.chain(self.routed.iter().map(|(_, message)| message)) {
            *recorded.entry(address(message)).or_default() += 1;
        }
        let noted = self.messages.iter().map(|(&address, recorded)| (address, recorded.references)).collect();
        assert_eq!(recorded, noted, "references to stored messages");
        assert_eq!(holding.len(), self.holding.len());
        assert!(self.holding.iter().all(|link| holding.contains(link)), "links that hold packets");
        let mut entries: HashMap<u32, u32> = HashMap::new();
        let changed = self.entries.values().map(|changed| changed.publish).filter(|&publish| publish != 0);
        changed.chain(self.written.iter().copied()).for_each(|publish| *entries.entry(publish).or_default() += 1);
        let noted = self.publishes.iter().map(|(&publish, pending)| (publish, pending.entries)).collect();
        assert_eq!(entries, noted, "entries that publishes wait for");
    }

    pub fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.written.shrink_to_fit();
        self.messages.shrink_to_fit();
        self.publishes.shrink_to_fit();
        self.gated.shrink_to_fit();
        self.unsent.shrink_to_fit();
        self.holding.shrink_to_fit();
    }
}

fn subscription_record<'a>(
    session: u32,
    filter: &'a str,
    subscriber: &Subscriber,
    owes_retained: bool,
) -> SubscriptionRecord<'a> {
    let Subscriber { subscription_id, qos, no_local, retain_as_published, .. } = *subscriber;
    SubscriptionRecord { session, filter, subscription_id, qos, no_local, retain_as_published, owes_retained }
}

/// The broker's own topics are made anew, not stored.
fn is_own_topic(topic: &str) -> bool {
    topic.starts_with("$SYS/")
}

/// Names a message as long as somebody holds it.
fn address(message: &Message) -> usize {
    message.address()
}

impl Clients {
    /// A session is to have a link again. What the store says of its end must not outlive that for long.
    pub fn session_comes_back(&mut self, id: u32, now: Millis) {
        let session = &self.sessions[id as usize];
        let left = session.expires_at - now;
        if session.is_stored() && (left < SOON || left.0 < u64::from(session.expiry_s) * 1000 / 8) {
            self.store.want(now, now);
        }
    }

    /// A session was tied to a link or parted from it: it is stored from now on if it is to outlive its link.
    pub fn store_session(&mut self, id: u32, now: Millis) {
        let session = &mut self.sessions[id as usize];
        if !self.store.is_on() || session.number == 0 && session.expiry_s == 0 {
            return;
        }
        if session.number == 0 {
            self.store.last_session += 1;
            self.store.session_count += 1;
            session.number = self.store.last_session;
            // At once: what belongs to it refers to it.
            self.store.record(&Record::Session(session.as_record()), now);
        } else if self.store.sessions.insert(id) {
            self.store.want_lazily(LAZIER, now);
        }
    }

    /// The session ended, with all its entries.
    pub fn forget_session(&mut self, id: u32, now: Millis) {
        let number = self.sessions[id as usize].number;
        if number == 0 {
            return;
        }
        self.store.sessions.remove(&id);
        self.store.session_count -= 1;
        for gated in self.store.gated.iter_mut().filter(|gated| gated.session == id) {
            gated.session = NONE;
        }
        let delivery = self.sessions[id as usize].delivery.take();
        if let Some(delivery) = &delivery {
            for Inflight { message, entry, .. } in &delivery.inflight {
                self.forget_entry(entry, message.as_ref());
            }
            for Queued { message, entry, .. } in &delivery.queue {
                self.forget_entry(entry, Some(message));
            }
        }
        self.sessions[id as usize].delivery = delivery;
        self.store.record(&Record::SessionEnd { session: number }, now);
        self.store.ended = self.store.open;
    }

    /// An entry for a message towards a session.
    #[inline]
    pub fn new_entry(&mut self, session: u32) -> Entry {
        match self.store.is_on() && self.sessions[session as usize].is_stored() {
            false => Entry::default(),
            true => Entry::new(self.store.new_key(), false),
        }
    }

    /// Notes that an entry is new or has changed. `is_sent`: its client is connected and may settle it at any moment.
    #[inline]
    pub fn note_entry(&mut self, session: u32, entry: &Entry, qos: QoS, is_sent: bool, now: Millis) {
        if entry.key() != 0 && qos > QoS::AtMostOnce {
            let delay = match (entry.is_recorded(), is_sent) {
                (true, true) => self.store.laziness(LAZY),
                (false, true) => GRACE,
                _ => Millis(0),
            };
            self.store.entry_changed(entry, session, now + delay, now);
        }
    }

    /// An entry is settled: acknowledged, expired or dropped.
    #[inline]
    pub fn entry_gone(&mut self, session: u32, entry: &Entry, message: Option<&Message>, now: Millis) {
        if entry.key() != 0 {
            self.stored_entry_gone(session, entry, message, now);
        }
    }

    #[inline(never)]
    fn stored_entry_gone(&mut self, session: u32, entry: &Entry, message: Option<&Message>, now: Millis) {
        if entry.is_recorded() {
            let session = self.sessions[session as usize].number;
            self.store.record(&Record::Done { session, key: entry.key() }, now);
        }
        self.forget_entry(entry, message);
    }

    fn forget_entry(&mut self, entry: &Entry, message: Option<&Message>) {
        if entry.is_recorded() {
            self.store.entry_count -= 1;
            message.into_iter().for_each(|message| self.store.unrefer(message));
        }
        if let Some(changed) = self.store.entries.remove(&entry.key()) {
            self.settle(changed.publish);
        }
    }

    /// PUBREC came: the message is not needed any more, PUBREL is.
    pub fn entry_released(&mut self, session: u32, entry: &Entry, message: Option<&Message>, now: Millis) {
        if entry.is_recorded() {
            message.into_iter().for_each(|message| self.store.unrefer(message));
        }
        self.note_entry(session, entry, QoS::ExactlyOnce, false, now);
    }

    /// The position from which on an entry of QoS 2 may be sent, or its PUBREL; 0 if at once.
    #[inline]
    pub fn gate(&self, entry: &Entry, qos: QoS) -> u64 {
        if entry.key() != 0 && qos == QoS::ExactlyOnce && self.store.is_strict() { self.store.open } else { 0 }
    }

    /// What the session may not be sent yet is sent when it is safe.
    pub fn await_store(&mut self, session: u32) {
        if !self.store.unsent.contains(&session) {
            self.store.unsent.push(session);
        }
    }
}

impl Session {
    /// Whether the store knows it.
    pub fn is_stored(&self) -> bool {
        self.number != 0
    }
}
