//! Batches: what changed since the last one, made into records; and snapshots, by which a new file takes the place of an old
//! one: everything there is, written in parts beside the changes of those turns. A part looks at the present state alone, so a
//! snapshot needs no memory but for where it stands.

use std::collections::HashMap;

use super::super::index::{Subscriber, SubscriptionKey};
use super::super::message::Message;
use super::super::session::{Delivery, Entry, Session, Via};
use super::super::will::Will;
use super::super::{Broker, Clients, Index, Retained};
use super::record::{EntryRecord, Record, SessionRecord, Stored, WillRecord};
use super::{Changed, Paid, Store, is_own_topic, subscription_record};
use crate::codec::QoS;
use crate::config::Persistence;
use crate::time::Millis;

/// Bytes of a snapshot in one batch: what a slow card writes in some milliseconds. A single larger message is not divided.
const PART_BYTES: usize = 64 << 10;

/// What a batch is to a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Changes alone.
    None,
    /// The first of a new file.
    Begin,
    Middle,
    /// With it, the new file holds everything.
    End,
    /// The first and the last in one.
    Whole,
}

/// A batch that is to be written, and told of with `Broker::durable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub position: u64,
    pub part: Part,
}

/// Where a snapshot stands.
pub struct Snapshot {
    has_begun: bool,
    step: Step,
}

enum Step {
    /// Retained messages behind this topic.
    Retained(Option<Box<str>>),
    /// The session at this place of the slab, from this of its things on.
    Session(usize, Inner),
}

#[derive(Clone, Copy)]
enum Inner {
    Attributes,
    /// Subscriptions from this place on.
    Subscriptions(usize),
    /// Entries behind this key.
    Entries(u64),
}

impl Snapshot {
    /// The list of subscriptions of a session is in another order: it is begun again.
    pub fn subscriptions_moved(&mut self, session: u32) {
        if let Step::Session(at, inner @ Inner::Subscriptions(_)) = &mut self.step
            && *at == session as usize
        {
            *inner = Inner::Subscriptions(0);
        }
    }
}

impl Broker {
    /// When a batch is to be made, if there is something to write.
    pub fn batch_due(&self) -> Option<Millis> {
        let due = self.clients.store.due;
        (due != Millis::NEVER).then_some(due)
    }

    /// What waits to be stored is due now, whatever it could have waited for. Gives the position to ask `is_saved` about.
    pub fn save_now(&mut self, now: Millis) -> u64 {
        self.clients.store.save_now(now);
        self.clients.store.position()
    }

    /// Whether everything up to a position is as safe as the store makes it; nothing if not, and storage fails.
    pub fn is_saved(&self, position: u64) -> Option<bool> {
        let store = &self.clients.store;
        let is_saved = position <= store.durable;
        (is_saved || !store.is_failing).then_some(is_saved)
    }

    /// Appends the records of a batch to `out`; nothing if nothing is to be written. The one before must be durable.
    /// `is_last`: nothing may wait for another batch.
    pub fn take_batch(&mut self, out: &mut Vec<u8>, is_last: bool, now: Millis) -> Option<Batch> {
        let Broker { clients, retained, index, .. } = self;
        let store = &mut clients.store;
        debug_assert!(store.durable + 1 == store.open && store.written.is_empty());
        store.due = Millis::NEVER;
        store.lazy_changes = 0;
        out.append(&mut store.records);
        store.records.shrink_to(super::RECORDS_MAX);
        for id in std::mem::take(&mut store.sessions) {
            Record::Session(clients.sessions[id as usize].as_record()).encode(out);
        }
        for topic in std::mem::take(&mut clients.store.topics) {
            match retained.find(&topic) {
                Some(message) => Record::Retained(message.as_stored()).encode(out),
                None => Record::Cleared { topic: &topic }.encode(out),
            }
        }
        clients.write_entries(index, out, is_last, now);
        clients.write_paid(index, out);
        for (number, message) in std::mem::take(&mut clients.store.routed) {
            Record::Routed { message: number }.encode(out);
            clients.store.unrefer(&message);
        }
        let part = clients.write_part(index, retained, out);
        let position = clients.store.open;
        clients.store.open += 1;
        if out.is_empty() && part == Part::None {
            self.durable(position, now);
            return None;
        }
        Some(Batch { position, part })
    }

    /// From the next batch on everything goes into a new file, which a snapshot makes complete.
    pub fn begin_snapshot(&mut self, now: Millis) {
        let store = &mut self.clients.store;
        debug_assert!(store.snapshot.is_none());
        store.file = store.file.wrapping_add(1);
        store.snapshot = Some(Snapshot { has_begun: false, step: Step::Retained(None) });
        store.due = now;
    }

    pub fn is_making_snapshot(&self) -> bool {
        self.clients.store.snapshot.is_some()
    }

    /// Whether something is stored whose time will be up, so that the time is worth knowing.
    pub fn has_expiring(&self) -> bool {
        self.retained.next_expiry().is_some()
            || self.clients.sessions.iter().any(|(_, session)| session.is_stored() && session.expiry_s != u32::MAX)
    }

    /// About how many bytes everything takes that is to be stored.
    pub fn live_bytes(&self) -> u64 {
        self.clients.store.live_bytes(self.retained.len(), self.retained.bytes(), self.index.subscription_count())
    }

    /// Storage fails, or works again. While it fails, what would have to be stored is refused where the version has a word
    /// for it.
    pub fn store_failing(&mut self, is_failing: bool) {
        self.clients.store.is_failing = is_failing;
    }
}

impl Clients {
    /// Writes the entries that are due, and those before them in the same session, which would come back behind them if
    /// they were sent again by their publisher alone [MQTT-4.6.0-6]; the others may be settled yet without having been
    /// written.
    fn write_entries(&mut self, index: &mut Index, out: &mut Vec<u8>, is_last: bool, now: Millis) {
        let takes_all = is_last || matches!(self.store.mode, Persistence::Interval(_));
        let mut waiting = std::mem::take(&mut self.store.entries);
        let mut last_due: HashMap<u32, u64> = HashMap::new();
        if !takes_all {
            last_due.extend(waiting.iter().filter(|(_, it)| it.due <= now).map(|(&key, it)| (it.session, key)));
        }
        let mut left = std::collections::BTreeMap::new();
        while let Some((key, changed)) = waiting.pop_first() {
            let Clients { sessions, store, .. } = self;
            let session = &mut sessions[changed.session as usize];
            let number = session.number;
            let Some(delivery) = session.delivery.as_deref_mut() else { continue };
            let Some(view) = delivery.entry_mut(key) else { continue };
            let is_new = !view.entry.is_recorded();
            if is_new && !takes_all && last_due.get(&changed.session).is_none_or(|&last| last < key) {
                store.due = store.due.min(changed.due);
                left.insert(key, changed);
                continue;
            }
            view.entry.set_recorded();
            let message = view.message.cloned();
            let state = view.state;
            store.entry_count += is_new as usize;
            let Changed { publish, .. } = changed;
            if publish != 0 {
                store.written.push(publish);
            }
            store.write_entry(number, delivery, key, message.as_ref(), state, is_new, index, out);
        }
        self.store.entries = left;
    }

    /// Writes that subscriptions owe nothing more, of those whose entries are all written or settled.
    fn write_paid(&mut self, index: &mut Index, out: &mut Vec<u8>) {
        if self.store.paid.is_empty() {
            return;
        }
        // The first entry of each session that waits.
        let mut waiting: HashMap<u32, u64> = HashMap::new();
        for (&key, changed) in &self.store.entries {
            waiting.entry(changed.session).or_insert(key);
        }
        for paid in std::mem::take(&mut self.store.paid) {
            if waiting.get(&paid.session).is_some_and(|&first| first <= paid.last_key) {
                self.store.paid.push(paid);
                continue;
            }
            let session = self.sessions.get(paid.session as usize).filter(|session| session.number == paid.number);
            let Some(session) = session.filter(|session| !session.owes_for(paid.key)) else { continue };
            if let Some(subscriber) = index.subscriber(paid.key, paid.session).copied() {
                record_subscription(session.number, paid.key, &subscriber, false, index, out);
            }
        }
    }

    fn write_part(&mut self, index: &mut Index, retained: &Retained, out: &mut Vec<u8>) -> Part {
        let Some(mut snapshot) = self.store.snapshot.take() else { return Part::None };
        let is_first = !snapshot.has_begun;
        if is_first {
            snapshot.has_begun = true;
            for at in 0..self.store.gated.len() {
                let Some((session, message)) = self.store.gated[at].accepted() else { continue };
                let message = message.clone();
                let number = self.store.refer(&message, out, false);
                let session = self.sessions.get(session as usize).map_or(0, |session| session.number);
                Record::Accepted { session, message: number }.encode(out);
            }
        }
        let end = out.len() + PART_BYTES;
        while out.len() < end {
            snapshot.step = match snapshot.step {
                Step::Retained(after) => match retained.first_after(after.as_deref()) {
                    Some(message) => {
                        if !is_own_topic(message.topic()) {
                            Record::Retained(message.as_stored()).encode(out);
                        }
                        Step::Retained(Some(message.topic().into()))
                    }
                    None => Step::Session(0, Inner::Attributes),
                },
                Step::Session(at, _) if at >= self.sessions.capacity() => {
                    return if is_first { Part::Whole } else { Part::End };
                }
                Step::Session(at, inner) => match self.write_session(at, inner, index, out) {
                    Some(inner) => Step::Session(at, inner),
                    None => Step::Session(at + 1, Inner::Attributes),
                },
            };
        }
        self.store.snapshot = Some(snapshot);
        self.store.due = Millis(0);
        if is_first { Part::Begin } else { Part::Middle }
    }

    /// Writes the next thing of a session; nothing if that was the last.
    fn write_session(&mut self, at: usize, inner: Inner, index: &mut Index, out: &mut Vec<u8>) -> Option<Inner> {
        let Clients { sessions, store, .. } = self;
        let session = sessions.get(at).filter(|session| session.is_stored())?;
        match inner {
            Inner::Attributes => {
                Record::Session(session.as_record()).encode(out);
                for &packet_id in session.received.as_slice() {
                    Record::Received { session: session.number, packet_id }.encode(out);
                }
                Some(Inner::Subscriptions(0))
            }
            Inner::Subscriptions(place) => match session.subscriptions.get(place) {
                Some(&key) => {
                    let subscriber = *index.subscriber(key, at as u32)?;
                    let is_paid = |paid: &Paid| paid.session == at as u32 && paid.key == key;
                    let owes_retained = session.owes_for(key) || store.paid.iter().any(is_paid);
                    record_subscription(session.number, key, &subscriber, owes_retained, index, out);
                    Some(Inner::Subscriptions(place + 1))
                }
                None => Some(Inner::Entries(0)),
            },
            Inner::Entries(after) => {
                let delivery = session.delivery.as_deref()?;
                let (key, message, state) = delivery.recorded_after(after)?;
                store.write_entry(session.number, delivery, key, message, state, false, index, out);
                Some(Inner::Entries(key))
            }
        }
    }
}

fn record_subscription(
    session: u32,
    key: SubscriptionKey,
    subscriber: &Subscriber,
    owes_retained: bool,
    index: &Index,
    out: &mut Vec<u8>,
) {
    let filter = index.full_filter(key);
    Record::Subscription(subscription_record(session, &filter, subscriber, owes_retained)).encode(out);
}

/// The state of an entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryState {
    pub packet_id: u16,
    pub qos: QoS,
    pub retain: bool,
    pub via: Via,
}

/// An entry where it is.
pub struct EntryView<'a> {
    pub entry: &'a mut Entry,
    pub message: Option<&'a Message>,
    pub state: EntryState,
}

impl Store {
    #[allow(clippy::too_many_arguments)]
    fn write_entry(
        &mut self,
        session: u32,
        delivery: &Delivery,
        key: u64,
        message: Option<&Message>,
        state: EntryState,
        is_new: bool,
        index: &mut Index,
        out: &mut Vec<u8>,
    ) {
        let number = message.map_or(0, |message| self.refer(message, out, is_new));
        let share = state.via.share_id().and_then(|share| index.share_filter(share)).unwrap_or_default();
        Record::Entry(EntryRecord {
            session,
            key,
            message: number,
            packet_id: state.packet_id,
            qos: state.qos,
            retain: state.retain,
            subscription_id: delivery.subscription_id(state.via),
            share: &share,
        })
        .encode(out);
    }
}

impl Delivery {
    /// The entry with this key.
    fn entry_mut(&mut self, key: u64) -> Option<EntryView<'_>> {
        if let Ok(at) = self.inflight.binary_search_by_key(&key, |inflight| inflight.entry.key()) {
            let inflight = &mut self.inflight[at];
            let state = inflight.state();
            return Some(EntryView { entry: &mut inflight.entry, message: inflight.message.as_ref(), state });
        }
        let at = self.queue.binary_search_by_key(&key, |queued| queued.entry.key()).ok()?;
        let queued = &mut self.queue[at];
        let state = queued.state();
        Some(EntryView { entry: &mut queued.entry, message: Some(&queued.message), state })
    }

    /// The first recorded entry behind this key, looked for in flight and then in the queue.
    fn recorded_after(&self, key: u64) -> Option<(u64, Option<&Message>, EntryState)> {
        let from = self.inflight.partition_point(|inflight| inflight.entry.key() <= key);
        let found = self.inflight.range(from..).find(|inflight| inflight.entry.is_recorded());
        let in_flight = found.map(|it| (it.entry.key(), it.message.as_ref(), it.state()));
        let from = self.queue.partition_point(|queued| queued.entry.key() <= key);
        let found = self.queue.range(from..).find(|queued| queued.entry.is_recorded());
        let queued = found.map(|it| (it.entry.key(), Some(&it.message), it.state()));
        match (in_flight, queued) {
            (Some(one), Some(other)) => Some(if one.0 < other.0 { one } else { other }),
            (one, other) => one.or(other),
        }
    }
}

impl Session {
    /// Whether the subscription is still owed retained messages.
    fn owes_for(&self, key: SubscriptionKey) -> bool {
        self.delivery.as_deref().is_some_and(|delivery| delivery.cursors.iter().any(|cursor| cursor.key == key))
    }

    pub(super) fn as_record(&self) -> SessionRecord<'_> {
        SessionRecord {
            session: self.number,
            client_id: &self.client_id,
            expiry_s: self.expiry_s,
            expires_at: self.expires_at,
            // After a restart nobody knows who it was judged as.
            will: self.will_that_may_be().map(Will::as_record),
        }
    }
}

impl Will {
    fn as_record(&self) -> WillRecord<'_> {
        WillRecord {
            qos: self.qos,
            retain: self.retain,
            delay_s: self.delay_s,
            due_at: self.due_at,
            expiry_s: self.expiry_s,
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
        }
    }
}

impl Message {
    pub(super) fn as_stored(&self) -> Stored<'_> {
        let parts = self.parts();
        Stored {
            qos: parts.qos,
            retain: parts.retain,
            expires_at: parts.expires_at,
            publisher: self.publisher(),
            topic: parts.topic,
            properties: parts.properties,
            payload: parts.payload,
        }
    }
}
