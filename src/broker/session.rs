//! One client id: subscriptions, the messages on their way to it and the QoS 2 messages on their way from it. Sessions
//! outlive links. What must survive a restart is here.

use std::collections::VecDeque;
use std::rc::Rc;

use super::NONE;
use super::client_id::ClientId;
use super::index::{ShareId, Subscriber, SubscriptionKey};
use super::message::Message;
use super::store::EntryState;
use super::subscriptions::Subscriptions;
use super::will::Will;
use crate::codec::QoS;
use crate::config::Config;
use crate::config::Rules;
use crate::logger::notice;
use crate::time::Millis;
use crate::wheel::TimerId;

/// See `Session::since_s`.
pub const SINCE_UNKNOWN: u32 = u32::MAX;

pub struct Session {
    pub client_id: ClientId,
    /// What its client logged in as; nothing if without a name.
    pub username: Option<Box<Box<str>>>,
    /// Of the listener it is, or was last connected to; nothing since a restart.
    pub rules: Option<Rc<Rules>>,
    /// There is an access control file among `rules`.
    pub has_acl: bool,
    /// Its number in the store; 0 if it is not stored.
    pub number: u32,
    /// The live link, or NONE.
    pub link: u32,
    /// Seconds the session outlives its link; u32::MAX = for ever.
    pub expiry_s: u32,
    pub subscriptions: Subscriptions,
    pub received: Received,
    /// Messages towards the client; nothing while there never was one.
    pub delivery: Option<Box<Delivery>>,
    /// Where packet ids go on when there is a delivery again: one that was just used comes back as late as can be, because
    /// clients take a number they saw a moment ago for a repeat.
    next_packet_id: u16,
    /// Whole seconds since start when its link came or went, whichever was last; `SINCE_UNKNOWN` if that was before a restart.
    pub since_s: u32,
    pub will: Option<Box<Will>>,
    /// Without a link: when the session ends.
    pub expires_at: Millis,
    /// With a link: retransmission; without: will or expiry, whichever comes first.
    pub timer: TimerId,
}

impl Session {
    pub fn new(client_id: &str) -> Session {
        Session {
            client_id: client_id.into(),
            username: None,
            rules: None,
            has_acl: false,
            number: 0,
            link: NONE,
            expiry_s: 0,
            subscriptions: Subscriptions::default(),
            received: Received::default(),
            delivery: None,
            next_packet_id: 1,
            since_s: SINCE_UNKNOWN,
            will: None,
            expires_at: Millis::NEVER,
            timer: TimerId::NONE,
        }
    }

    /// When the will is due of a session without link.
    pub fn will_due_at(&self) -> Millis {
        self.will.as_deref().map_or(Millis::NEVER, |will| will.due_at)
    }

    /// Messages lost to a full queue.
    pub fn dropped(&self) -> u32 {
        self.delivery.as_deref().map_or(0, |delivery| delivery.dropped)
    }

    pub fn is_connected(&self) -> bool {
        self.link != NONE
    }

    pub fn delivery_mut(&mut self) -> &mut Delivery {
        let next_packet_id = self.next_packet_id;
        self.delivery.get_or_insert_with(|| Box::new(Delivery { next_packet_id, ..Delivery::default() }))
    }

    /// Notes a subscription that is in the index.
    pub fn note_subscription(&mut self, key: SubscriptionKey, is_new: bool, subscription_id: u32) {
        if is_new {
            self.subscriptions.push(key);
        }
        if let Some(share) = key.share_id()
            && (subscription_id != 0 || self.delivery.is_some())
        {
            self.delivery_mut().set_share_subscription_id(share, subscription_id);
        }
    }

    /// Losses have come to an end: says how many there were, of which the first was logged when it happened.
    pub fn log_drops(&mut self, until: &str) {
        let count = self.delivery.as_deref_mut().map_or(0, |delivery| std::mem::take(&mut delivery.dropped_in_a_row));
        if count > 0 {
            notice!(
                client = *self.client_id;
                "{count} outgoing messages were dropped for client {} {until}.", self.client_id
            );
        }
    }

    /// Gives back the memory of lists that are empty, and the whole delivery if it has nothing to remember.
    pub fn shrink(&mut self) {
        self.received.shrink();
        self.subscriptions.shrink();
        let Some(delivery) = self.delivery.as_deref_mut() else { return };
        if delivery.is_empty() {
            // Nothing waits under those of shares it has left.
            let has = |share| self.subscriptions.iter().any(|key| key.share_id() == Some(share));
            delivery.share_subscription_ids.retain(|&(share, _)| has(share));
        }
        if delivery.is_empty() && delivery.share_subscription_ids.is_empty() && delivery.dropped == 0 {
            self.next_packet_id = delivery.next_packet_id;
            self.delivery = None;
        } else {
            delivery.shrink();
        }
    }

    /// Retained messages are still owed to new subscriptions.
    pub fn owes_retained(&self) -> bool {
        self.delivery.as_deref().is_some_and(|delivery| !delivery.cursors.is_empty())
    }
}

/// For `Session::since_s`.
pub fn whole_seconds(now: Millis) -> u32 {
    u32::try_from(now.0 / 1000).unwrap_or(SINCE_UNKNOWN)
}

/// When an interval of the session's is over that begins now; `u32::MAX` seconds never are.
pub fn after(now: Millis, seconds: u32) -> Millis {
    if seconds == u32::MAX { Millis::NEVER } else { now + Millis::from_secs(seconds.into()) }
}

/// Packet ids of QoS 2 messages that were received and not yet released. Most sessions never have one, so the list is
/// behind a pointer. [MQTT-4.3.3-2]
#[derive(Default)]
pub struct Received(Option<Box<PacketIds>>);

/// Ascending.
#[derive(Default)]
struct PacketIds(Vec<u16>);

impl Received {
    pub fn as_slice(&self) -> &[u16] {
        self.0.as_deref().map_or(&[], |ids| &ids.0)
    }

    /// Remembers a packet id; false if it is a repeat. [MQTT-4.3.3-10] (5.0)
    pub fn insert(&mut self, packet_id: u16) -> bool {
        let ids = &mut self.0.get_or_insert_default().0;
        match ids.binary_search(&packet_id) {
            Ok(_) => false,
            Err(at) => {
                ids.insert(at, packet_id);
                true
            }
        }
    }

    /// Forgets a packet id; false if it is unknown.
    pub fn remove(&mut self, packet_id: u16) -> bool {
        let Some(ids) = self.0.as_deref_mut() else { return false };
        match ids.0.binary_search(&packet_id) {
            Ok(at) => {
                ids.0.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// Gives back the memory of a list that is empty.
    pub fn shrink(&mut self) {
        if self.as_slice().is_empty() {
            self.0 = None;
        }
    }
}

/// By which subscription a message comes: its Subscription Identifier, or the share it was chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via(u32);

impl Via {
    /// Subscription Identifiers have 28 bits, and there are never 2^31 shares.
    const SHARED: u32 = 1 << 31;

    pub fn subscription(subscription_id: u32) -> Via {
        Via(subscription_id)
    }

    pub fn share(share: ShareId) -> Via {
        Via(share | Via::SHARED)
    }

    pub fn share_id(self) -> Option<ShareId> {
        (self.0 & Via::SHARED != 0).then_some(self.0 & !Via::SHARED)
    }
}

/// What the store knows of a message towards one client: a key, and whether it was recorded. The keys of a client's messages
/// ascend in the order of their sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    pub fn new(key: u64, is_recorded: bool) -> Entry {
        Entry(key << 1 | is_recorded as u64)
    }

    /// 0 if the session is not stored.
    #[inline]
    pub fn key(self) -> u64 {
        self.0 >> 1
    }

    /// It was written, or is about to be: its end is to be written, too.
    #[inline]
    pub fn is_recorded(self) -> bool {
        self.0 & 1 != 0
    }

    pub fn set_recorded(&mut self) {
        self.0 |= 1;
    }
}

/// A message that waits for room in the output or in the window.
pub struct Queued {
    pub message: Message,
    pub entry: Entry,
    pub via: Via,
    pub qos: QoS,
    pub retain: bool,
}

/// A QoS 1 or 2 message that was given a packet id.
pub struct Inflight {
    /// Nothing once PUBREC came: PUBREL is all that is sent from then on. [MQTT-4.3.3-6] (5.0)
    pub message: Option<Message>,
    pub sent_at: Millis,
    pub entry: Entry,
    /// The position in the store at which what is to be sent may be sent; 0 = at once.
    pub gate: u64,
    pub via: Via,
    pub packet_id: u16,
    pub qos: QoS,
    pub retain: bool,
    /// It was never sent: it has its packet id, and waits for its gate.
    pub is_unsent: bool,
}

impl Queued {
    pub fn state(&self) -> EntryState {
        EntryState { packet_id: 0, qos: self.qos, retain: self.retain, via: self.via }
    }
}

impl Inflight {
    pub fn state(&self) -> EntryState {
        EntryState { packet_id: self.packet_id, qos: self.qos, retain: self.retain, via: self.via }
    }
}

/// Retained messages still owed to a new subscription: they are looked up one by one as there is room.
pub struct Cursor {
    pub key: SubscriptionKey,
    pub subscriber: Subscriber,
    /// The last topic looked at.
    pub after: Option<Box<str>>,
}

/// Messages towards one client. In-flight messages stand in the order of their first sending; packet ids are given out in
/// turn and the oldest one open is never passed, so the ids of `inflight` ascend from the front (modulo 65535).
pub struct Delivery {
    pub inflight: VecDeque<Inflight>,
    /// How many of `inflight` were sent on the present link; the rest is sent again first.
    pub sent: usize,
    pub queue: VecDeque<Queued>,
    /// Contents of the queued messages; a message that is queued often counts often, so 32 bits are not enough.
    pub queue_bytes: u64,
    /// QoS 0 messages in `queue`.
    pub queue_qos0: usize,
    /// No queued message expires before this.
    pub queue_expires_at: Millis,
    /// Contents of the messages in `inflight`.
    pub inflight_bytes: u64,
    pub cursors: VecDeque<Cursor>,
    pub next_packet_id: u16,
    /// Subscription Identifiers of shared subscriptions that have or had one: messages may still wait under them.
    pub share_subscription_ids: Vec<(ShareId, u32)>,
    /// Messages lost to a full queue.
    pub dropped: u32,
    /// Those lost since the queue was last empty: the first one was logged, and the sum will be.
    pub dropped_in_a_row: u32,
    /// How often the retransmission interval was doubled.
    pub backoff: u8,
}

/// How much may be unacknowledged.
#[derive(Clone, Copy)]
pub struct WindowLimits {
    /// Topics, properties and payloads.
    pub content_bytes: u64,
    /// Payloads alone; 0 = no limit.
    pub payload_bytes: u32,
}

impl WindowLimits {
    /// In bytes, as much as may be queued, and less if that is asked for.
    #[inline(always)]
    pub fn of(config: &Config) -> WindowLimits {
        let content_bytes = match config.max_queued_bytes {
            0 => u64::MAX,
            max => max.into(),
        };
        WindowLimits { content_bytes, payload_bytes: config.max_inflight_bytes }
    }
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery {
            inflight: VecDeque::new(),
            sent: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            queue_qos0: 0,
            queue_expires_at: Millis::NEVER,
            inflight_bytes: 0,
            cursors: VecDeque::new(),
            next_packet_id: 1,
            share_subscription_ids: Vec::new(),
            dropped: 0,
            dropped_in_a_row: 0,
            backoff: 0,
        }
    }
}

impl Delivery {
    /// The Subscription Identifier a message is sent with; 0 = none.
    pub fn subscription_id(&self, via: Via) -> u32 {
        match via.share_id() {
            None => via.0,
            Some(share) => self.share_subscription_ids.iter().find(|(own, _)| *own == share).map_or(0, |(_, id)| *id),
        }
    }

    /// Sets the Subscription Identifier of a shared subscription; 0 = none.
    pub fn set_share_subscription_id(&mut self, share: ShareId, subscription_id: u32) {
        self.share_subscription_ids.retain(|(own, _)| *own != share);
        if subscription_id != 0 {
            self.share_subscription_ids.push((share, subscription_id));
        }
    }

    /// A packet id that no open exchange uses, or nothing if the oldest one stands in the way. [MQTT-2.3.1-4] (3.1.1)
    /// [MQTT-2.2.1-4] (5.0)
    pub fn next_packet_id(&mut self) -> Option<u16> {
        let id = self.next_packet_id;
        if self.inflight.front().is_some_and(|oldest| oldest.packet_id == id) {
            return None;
        }
        self.next_packet_id = if id == u16::MAX { 1 } else { id + 1 };
        Some(id)
    }

    /// Where the exchange with this packet id stands.
    pub fn position(&self, packet_id: u16) -> Option<usize> {
        let oldest = self.inflight.front()?.packet_id;
        if packet_id == oldest {
            return Some(0);
        }
        let age = |id: u16| (u32::from(id) + 65_535 - u32::from(oldest)) % 65_535;
        self.inflight.binary_search_by_key(&age(packet_id), |entry| age(entry.packet_id)).ok()
    }

    /// Ends the exchange at `position`; says what is to be forgotten of it.
    pub fn complete(&mut self, position: usize) -> (Entry, Option<Message>) {
        if position < self.sent {
            self.sent -= 1;
        }
        self.backoff = 0;
        let Some(ended) = self.inflight.remove(position) else { return (Entry::default(), None) };
        self.inflight_bytes -= ended.message.as_ref().map_or(0, Message::content_len) as u64;
        (ended.entry, ended.message)
    }

    /// Adds an exchange that begins on the present link.
    #[inline]
    pub fn begin(&mut self, entry: Inflight) {
        self.restore(entry);
        self.sent += 1;
    }

    /// Adds an exchange that begins, or goes on, later.
    #[inline(always)]
    pub fn restore(&mut self, entry: Inflight) {
        self.inflight_bytes += entry.message.as_ref().map_or(0, Message::content_len) as u64;
        self.inflight.push_back(entry);
    }

    /// The message at `position` will not be sent again. [MQTT-4.3.3-6] (5.0)
    pub fn release_message(&mut self, position: usize) -> Option<Message> {
        let message = self.inflight.get_mut(position).and_then(|entry| entry.message.take())?;
        self.inflight_bytes -= message.content_len() as u64;
        Some(message)
    }

    /// Takes the exchanges for which `is_taken` holds out of the in-flight list, of a session without link.
    pub fn take_inflight(&mut self, mut is_taken: impl FnMut(&Inflight) -> bool) {
        debug_assert_eq!(self.sent, 0);
        self.inflight.retain(|entry| !is_taken(entry));
        let messages = self.inflight.iter().filter_map(|entry| entry.message.as_ref());
        self.inflight_bytes = messages.map(|message| message.content_len() as u64).sum();
    }

    /// Whether the window has room for a message with a payload of this length: fewer messages than `window`, and fewer bytes
    /// than the limits say unless it is empty. The length is asked for only where payloads have a limit of their own.
    #[inline(always)]
    pub fn has_window(&self, window: u16, limits: WindowLimits, payload_len: impl FnOnce() -> usize) -> bool {
        self.inflight.len() < window as usize
            && (self.inflight_bytes < limits.content_bytes || self.inflight.is_empty())
            && (limits.payload_bytes == 0 || payload_len() as u64 <= self.payload_room(limits.payload_bytes))
    }

    /// Bytes the payloads of more messages may have while those in flight are unacknowledged. It looks at all of these, which
    /// only those pay for who want the limit.
    #[inline(never)]
    fn payload_room(&self, max: u32) -> u64 {
        let messages = self.inflight.iter().filter_map(|entry| entry.message.as_ref());
        match messages.map(|message| message.payload().len() as u64).sum() {
            0 => u64::MAX,
            used => u64::from(max).saturating_sub(used),
        }
    }

    pub fn push(&mut self, queued: Queued) {
        self.count(&queued);
        self.queue.push_back(queued);
    }

    /// Puts back what `pop` gave.
    pub fn push_front(&mut self, queued: Queued) {
        self.count(&queued);
        self.queue.push_front(queued);
    }

    fn count(&mut self, queued: &Queued) {
        self.queue_bytes += queued.message.content_len() as u64;
        self.queue_qos0 += (queued.qos == QoS::AtMostOnce) as usize;
        self.queue_expires_at = self.queue_expires_at.min(queued.message.expires_at());
    }

    pub fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queue_bytes -= queued.message.content_len() as u64;
        self.queue_qos0 -= (queued.qos == QoS::AtMostOnce) as usize;
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        Some(queued)
    }

    /// Drops queued messages for which `keep` is false; says how many.
    pub fn retain_queued(&mut self, mut keep: impl FnMut(&Queued) -> bool) -> usize {
        let before = self.queue.len();
        let (mut bytes, mut qos0, mut expires_at) = (0, 0, Millis::NEVER);
        self.queue.retain(|queued| {
            let kept = keep(queued);
            if kept {
                bytes += queued.message.content_len() as u64;
                qos0 += (queued.qos == QoS::AtMostOnce) as usize;
                expires_at = expires_at.min(queued.message.expires_at());
            }
            kept
        });
        (self.queue_bytes, self.queue_qos0, self.queue_expires_at) = (bytes, qos0, expires_at);
        before - self.queue.len()
    }

    /// Takes the queued messages out for which `is_taken` holds.
    pub fn take_queued(&mut self, mut is_taken: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let mut taken = Vec::new();
        for queued in std::mem::take(&mut self.queue) {
            if is_taken(&queued) {
                taken.push(queued);
            } else {
                self.queue.push_back(queued);
            }
        }
        self.retain_queued(|_| true);
        taken
    }

    /// Gives back the memory of lists that are empty.
    pub fn shrink(&mut self) {
        self.inflight.shrink_to_fit();
        self.queue.shrink_to_fit();
    }

    /// Something is to be sent as soon as there is room, or to be said once nothing is.
    #[inline]
    pub fn has_more(&self) -> bool {
        !self.queue.is_empty()
            || self.sent < self.inflight.len()
            || !self.cursors.is_empty()
            || self.dropped_in_a_row > 0
    }

    pub fn is_empty(&self) -> bool {
        self.inflight.is_empty() && self.queue.is_empty() && self.cursors.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::Seed;
    use super::super::index::Index;
    use super::super::message::MessageParts;
    use super::*;
    use crate::topic::ShareFilter;

    /// Every idle connection has one, and so has every client that is away.
    #[test]
    fn a_session_stays_small() {
        assert!(size_of::<Session>() <= 112, "{}", size_of::<Session>());
    }

    fn inflight(packet_id: u16) -> Inflight {
        let via = Via::subscription(0);
        Inflight {
            message: None,
            sent_at: Millis(0),
            entry: Entry::default(),
            gate: 0,
            via,
            packet_id,
            qos: QoS::AtLeastOnce,
            retain: false,
            is_unsent: false,
        }
    }

    #[test]
    fn mqtt_2_3_1_4_packet_ids_are_never_zero_and_never_in_use() {
        let mut delivery = Delivery { next_packet_id: 65_000, ..Delivery::default() };
        let mut open = std::collections::VecDeque::new();
        for step in 0..200_000u32 {
            let id = delivery.next_packet_id().unwrap();
            assert!(id != 0 && !open.contains(&id));
            delivery.inflight.push_back(inflight(id));
            open.push_back(id);
            if open.len() > 20 {
                let at = (step.wrapping_mul(2_654_435_761) >> 16) as usize % 20;
                let id = open.remove(at).unwrap();
                assert_eq!(delivery.position(id), Some(at));
                delivery.complete(at);
                assert_eq!(delivery.position(id), None);
            }
        }
    }

    #[test]
    fn the_oldest_open_exchange_holds_up_ids_instead_of_being_passed() {
        let mut delivery = Delivery::default();
        let first = delivery.next_packet_id().unwrap();
        delivery.inflight.push_back(inflight(first));
        for _ in 0..65_534 {
            let id = delivery.next_packet_id().unwrap();
            delivery.inflight.push_back(inflight(id));
            let at = delivery.position(id).unwrap();
            delivery.complete(at);
        }
        assert_eq!(delivery.next_packet_id(), None);
        delivery.complete(0);
        assert_eq!(delivery.next_packet_id(), Some(1));
    }

    fn queued() -> Queued {
        let (qos, expires_at) = (QoS::AtMostOnce, Millis::NEVER);
        let parts =
            MessageParts { qos, retain: false, expires_at, topic: "t", properties: &[], payload: b"x", packet: None };
        let message = Message::new(&parts);
        Queued { message, entry: Entry::default(), via: Via::subscription(0), qos, retain: false }
    }

    #[test]
    fn a_delivery_is_empty_without_messages_in_flight_queued_and_owed() {
        assert!(Delivery::default().is_empty());
        let mut in_flight = Delivery::default();
        in_flight.begin(inflight(1));
        let mut waiting = Delivery::default();
        waiting.push(queued());
        let subscription = ShareFilter { share_name: None, filter: "t" };
        let (qos, no_local, retain_as_published) = (QoS::AtMostOnce, false, false);
        let subscriber = Subscriber { session: 0, subscription_id: 0, qos, no_local, retain_as_published };
        let (key, _) = Index::new(Seed::new(1)).subscribe(subscription, subscriber);
        let mut owing = Delivery::default();
        owing.cursors.push_back(Cursor { key, subscriber, after: None });
        assert!(!in_flight.is_empty() && !waiting.is_empty() && !owing.is_empty());
    }

    #[test]
    fn lists_that_are_empty_give_their_memory_back() {
        for (capacity, is_kept) in [(64, true), (65, false)] {
            let mut delivery = Delivery { queue: VecDeque::with_capacity(capacity), ..Delivery::default() };
            delivery.push(queued());
            delivery.push(queued());
            assert!(delivery.pop().is_some() && delivery.queue.capacity() == capacity);
            assert!(delivery.pop().is_some() && delivery.pop().is_none());
            assert_eq!(delivery.queue.capacity() == capacity, is_kept);
        }
        let (inflight, queue) = (VecDeque::with_capacity(9), VecDeque::with_capacity(9));
        let mut delivery = Delivery { inflight, queue, ..Delivery::default() };
        delivery.shrink();
        assert_eq!((delivery.inflight.capacity(), delivery.queue.capacity()), (0, 0));
    }

    #[test]
    fn qos_2_packet_ids_are_remembered_until_released() {
        let mut received = Received::default();
        assert!(!received.remove(1));
        for id in [7, 3, 65_535, 1] {
            assert!(received.insert(id) && !received.insert(id));
        }
        received.shrink();
        assert_eq!(received.as_slice(), [1, 3, 7, 65_535]);
        assert!(received.remove(3) && !received.remove(3) && received.insert(3));
        assert!([7, 65_535, 1, 3].into_iter().all(|id| received.remove(id)));
        received.shrink();
        assert!(received.0.is_none());
    }
}
