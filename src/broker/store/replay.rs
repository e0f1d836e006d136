//! Records back into state: batches are applied in the order they were written, to a broker that has no links yet. What refers
//! to something unknown is passed over: it was about something that ended, or whose beginning is lost.

use std::collections::{BTreeMap, HashMap};

use super::super::index::Subscriber;
use super::super::message::{Message, MessageParts};
use super::super::session::{Cursor, Delivery, Entry, Inflight, Queued, Session, Via, after};
use super::super::subscribe::is_too_deep;
use super::super::will::Will;
use super::super::{Broker, NONE};
use super::batch::Part;
use super::record::{EntryRecord, Record, SessionRecord, Stored, SubscriptionRecord, WillRecord};
use super::{Recorded, address};
use crate::codec::QoS;
use crate::time::Millis;
use crate::topic::{self, ShareFilter};

/// What is known while batches are applied.
#[derive(Default)]
pub struct Replay {
    /// Places in the slab, by the numbers in the records.
    sessions: BTreeMap<u32, u32>,
    messages: HashMap<u64, Restored>,
    /// By session number and key.
    entries: BTreeMap<u32, BTreeMap<u64, RestoredEntry>>,
    /// Messages that were not routed: who published them.
    accepted: BTreeMap<u64, u32>,
    /// While a snapshot is under way, entries may follow that refer to messages nobody refers to at the moment.
    is_in_snapshot: bool,
    last_message: u64,
    last_key: u64,
}

struct Restored {
    message: Message,
    references: u32,
}

struct RestoredEntry {
    /// 0 if PUBREL is all that is to be sent.
    message: u64,
    packet_id: u16,
    qos: QoS,
    retain: bool,
    subscription_id: u32,
    share: Option<Box<str>>,
}

/// A batch with records that make no sense: those before were applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBatch;

impl Replay {
    /// Applies a batch.
    ///
    /// # Errors
    /// When a record makes no sense; the rest of the batch is not looked at.
    pub fn apply(&mut self, broker: &mut Broker, mut batch: &[u8], part: Part) -> Result<(), BadBatch> {
        self.is_in_snapshot |= matches!(part, Part::Begin | Part::Middle | Part::Whole);
        let mut result = Ok(());
        while !batch.is_empty() {
            match Record::decode(&mut batch) {
                Some(record) => self.apply_record(broker, record),
                None => {
                    result = Err(BadBatch);
                    break;
                }
            }
        }
        if matches!(part, Part::End | Part::Whole) {
            self.is_in_snapshot = false;
            self.messages.retain(|_, restored| restored.references > 0);
        }
        result
    }

    fn apply_record(&mut self, broker: &mut Broker, record: Record) {
        match record {
            Record::Session(record) => self.session(broker, &record),
            Record::SessionEnd { session } => self.end_session(broker, session),
            Record::Subscription(record) => self.subscribe(broker, &record),
            Record::Unsubscription { session, filter } => self.unsubscribe(broker, session, filter),
            Record::Received { session, packet_id } => {
                if let Some(session) = self.session_mut(broker, session) {
                    session.received.insert(packet_id);
                }
            }
            Record::Released { session, packet_id } => {
                if let Some(session) = self.session_mut(broker, session) {
                    session.received.remove(packet_id);
                }
            }
            Record::Message { number, content } => {
                self.last_message = self.last_message.max(number);
                // 0 stands for no message.
                if number != 0 && topic::is_valid_name(content.topic) {
                    self.messages
                        .entry(number)
                        .or_insert_with(|| Restored { message: message(&content), references: 0 });
                }
            }
            Record::Entry(record) => self.entry(&record),
            Record::Done { session, key } => {
                self.last_key = self.last_key.max(key);
                let entry = self.entries.get_mut(&session).and_then(|entries| entries.remove(&key));
                entry.into_iter().for_each(|entry| self.unrefer(entry.message));
            }
            Record::Retained(content) => {
                if topic::is_valid_name(content.topic) && !content.payload.is_empty() {
                    let message = message(&content);
                    broker.retained.insert(message);
                }
            }
            Record::Cleared { topic } => {
                broker.retained.remove(topic);
            }
            Record::Accepted { session, message } => {
                if let Some(restored) = self.messages.get_mut(&message)
                    && self.accepted.insert(message, session).is_none()
                {
                    restored.references += 1;
                }
            }
            Record::Routed { message } => {
                if self.accepted.remove(&message).is_some() {
                    self.unrefer(message);
                }
            }
        }
    }

    fn session_mut<'a>(&self, broker: &'a mut Broker, number: u32) -> Option<&'a mut Session> {
        broker.clients.sessions.get_mut(*self.sessions.get(&number)? as usize)
    }

    fn session(&mut self, broker: &mut Broker, record: &SessionRecord) {
        let known = self.session_mut(broker, record.session).map(|session| *session.client_id == *record.client_id);
        if known == Some(false) {
            self.end_session(broker, record.session);
        }
        if known != Some(true) {
            if record.session == 0 || record.client_id.is_empty() {
                return;
            }
            if let Some(other) = broker.clients.find_session(record.client_id) {
                let number = broker.clients.sessions[other as usize].number;
                self.end_session(broker, number);
            }
            let id = broker.clients.add_session(record.client_id);
            broker.clients.sessions[id as usize].number = record.session;
            self.sessions.insert(record.session, id);
            broker.clients.store.last_session = broker.clients.store.last_session.max(record.session);
        }
        let expiry_s = broker.bounded_expiry(record.expiry_s);
        let Some(session) = self.session_mut(broker, record.session) else { return };
        session.expiry_s = expiry_s;
        session.expires_at = record.expires_at;
        session.will = record.will.as_ref().and_then(will).map(Box::new);
    }

    fn end_session(&mut self, broker: &mut Broker, number: u32) {
        for entry in self.entries.remove(&number).into_iter().flat_map(BTreeMap::into_values) {
            self.unrefer(entry.message);
        }
        let Some(id) = self.sessions.remove(&number) else { return };
        let session = broker.clients.remove_session(id);
        for &key in session.subscriptions.iter() {
            broker.index.unsubscribe(key, id);
        }
    }

    fn subscribe(&mut self, broker: &mut Broker, record: &SubscriptionRecord) {
        let Some(&id) = self.sessions.get(&record.session) else { return };
        let Some(filter) = ShareFilter::parse(record.filter) else { return };
        if is_too_deep(filter) || broker.has_no_room_for(filter) {
            return;
        }
        let SubscriptionRecord { subscription_id, qos, no_local, retain_as_published, .. } = *record;
        let subscriber = Subscriber { session: id, subscription_id, qos, no_local, retain_as_published };
        let (key, is_new) = broker.index.subscribe(filter, subscriber);
        let session = broker.clients.session_mut(id);
        session.note_subscription(key, is_new, subscription_id);
        if let Some(delivery) = session.delivery.as_deref_mut() {
            delivery.cursors.retain(|cursor| cursor.key != key);
        }
        if record.owes_retained {
            session.delivery_mut().cursors.push_back(Cursor { key, subscriber, after: None });
        }
    }

    fn unsubscribe(&mut self, broker: &mut Broker, session: u32, filter: &str) {
        let Some(&id) = self.sessions.get(&session) else { return };
        let Some(key) = ShareFilter::parse(filter).and_then(|filter| broker.index.find(filter)) else { return };
        broker.remove_subscription(id, key);
    }

    fn entry(&mut self, record: &EntryRecord) {
        self.last_key = self.last_key.max(record.key);
        let is_known = record.key != 0 && self.sessions.contains_key(&record.session);
        if !is_known || record.qos == QoS::AtMostOnce {
            return;
        }
        if record.message == 0 && (record.packet_id == 0 || record.qos != QoS::ExactlyOnce) {
            return;
        }
        if record.message != 0 {
            let Some(restored) = self.messages.get_mut(&record.message) else { return };
            restored.references += 1;
        }
        let entry = RestoredEntry {
            message: record.message,
            packet_id: record.packet_id,
            qos: record.qos,
            retain: record.retain,
            subscription_id: record.subscription_id,
            share: (!record.share.is_empty()).then(|| record.share.into()),
        };
        let older = self.entries.entry(record.session).or_default().insert(record.key, entry);
        older.into_iter().for_each(|older| self.unrefer(older.message));
    }

    fn unrefer(&mut self, number: u64) {
        let Some(restored) = self.messages.get_mut(&number) else { return };
        restored.references -= 1;
        if restored.references == 0 && !self.is_in_snapshot {
            self.messages.remove(&number);
        }
    }

    /// All batches were applied: the broker goes on from here. Links are gone, so wills and expiry take their course.
    pub fn finish(mut self, broker: &mut Broker, now: Millis) {
        self.messages.retain(|_, restored| restored.references > 0);
        let store = &mut broker.clients.store;
        (store.last_message, store.last_key) = (self.last_message, self.last_key);
        store.session_count = self.sessions.len();
        for (&number, restored) in &self.messages {
            let len = restored.message.len() as u32;
            let recorded = Recorded { number, references: restored.references, file: store.file, len };
            store.messages.insert(address(&restored.message), recorded);
            store.message_bytes += u64::from(len);
        }
        for (number, entries) in std::mem::take(&mut self.entries) {
            if let Some(&id) = self.sessions.get(&number) {
                self.restore_entries(broker, id, entries, now);
            }
        }
        broker.retained.expire(now);
        broker.arm_retained();
        if broker.index.has_sys_filters() {
            broker.begin_sys(now);
        }
        for &id in self.sessions.values() {
            let session = broker.clients.session_mut(id);
            let expires_at = after(now, session.expiry_s);
            session.expires_at = session.expires_at.min(expires_at);
            if let Some(will) = session.will.as_deref_mut() {
                will.due_at = will.due_at.min(after(now, will.delay_s));
            }
            broker.clients.arm_session(id);
        }
        // Those that were to end with their link.
        let ended = self.sessions.values().copied().filter(|&id| broker.clients.sessions[id as usize].expiry_s == 0);
        for id in ended.collect::<Vec<_>>() {
            broker.end_session(id, now);
        }
        for (number, publisher) in std::mem::take(&mut self.accepted) {
            let Some(restored) = self.messages.get(&number) else { continue };
            let publisher = self.sessions.get(&publisher).copied().unwrap_or(NONE);
            let publisher = if broker.clients.sessions.contains(publisher as usize) { publisher } else { NONE };
            broker.route_accepted(&restored.message, number, 0, publisher, NONE, now);
        }
    }

    fn restore_entries(&self, broker: &mut Broker, id: u32, entries: BTreeMap<u64, RestoredEntry>, now: Millis) {
        let random = broker.next_random() as u16;
        let Broker { clients, index, .. } = broker;
        let delivery = clients.sessions[id as usize].delivery_mut();
        let last_sent = entries.iter().rev().find(|(_, restored)| restored.packet_id != 0).map_or(0, |(&key, _)| key);
        let mut late = Vec::new();
        for (key, restored) in entries {
            let RestoredEntry { packet_id, qos, retain, subscription_id, .. } = restored;
            let message = self.messages.get(&restored.message).map(|restored| restored.message.clone());
            let share = restored.share.as_deref().and_then(ShareFilter::parse).and_then(|share| index.find(share));
            let via = share.and_then(|key| key.share_id()).map_or(Via::subscription(subscription_id), Via::share);
            let entry = Entry::new(key, true);
            if packet_id != 0 && delivery.takes_packet_id(packet_id) {
                let (sent_at, is_unsent, gate) = (Millis(0), false, 0);
                delivery.restore(Inflight { message, sent_at, entry, gate, via, packet_id, qos, retain, is_unsent });
                clients.store.entry_count += 1;
            } else if let Some(message) = message {
                let queued = Queued { message, entry, via, qos, retain };
                if key < last_sent {
                    late.push(queued)
                } else {
                    delivery.push(queued)
                }
                clients.store.entry_count += 1;
            }
        }
        delivery.next_packet_id = match delivery.inflight.back() {
            Some(last) => last.packet_id % u16::MAX + 1,
            None => random.max(1),
        };
        // What was sent before others, and of which that record is lost: it comes behind them, as if it were new.
        for mut queued in late {
            clients.entry_gone(id, &queued.entry, Some(&queued.message), now);
            queued.entry = clients.new_entry(id);
            clients.note_entry(id, &queued.entry, queued.qos, false, now);
            clients.sessions[id as usize].delivery_mut().push(queued);
        }
    }
}

impl Delivery {
    /// Whether an exchange with this packet id may follow those in flight: ids ascend, from the oldest on.
    fn takes_packet_id(&self, packet_id: u16) -> bool {
        let (Some(oldest), Some(last)) = (self.inflight.front(), self.inflight.back()) else { return true };
        let age = |id: u16| (u32::from(id) + 65_535 - u32::from(oldest.packet_id)) % 65_535;
        age(packet_id) > age(last.packet_id)
    }
}

fn message(content: &Stored) -> Message {
    let Stored { qos, retain, expires_at, topic, properties, payload, .. } = *content;
    let parts = MessageParts { qos, retain, expires_at, topic, properties, payload, packet: None };
    match content.publisher {
        Some(publisher) => Message::of_publisher(&parts, publisher),
        None => Message::new(&parts),
    }
}

fn will(record: &WillRecord) -> Option<Will> {
    topic::is_valid_name(record.topic).then(|| Will {
        topic: record.topic.into(),
        payload: record.payload.into(),
        properties: record.properties.into(),
        qos: record.qos,
        retain: record.retain,
        delay_s: record.delay_s,
        due_at: record.due_at,
        expiry_s: record.expiry_s,
    })
}
