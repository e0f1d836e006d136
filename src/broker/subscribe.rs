//! SUBSCRIBE and UNSUBSCRIBE: the index, the session's own list, and the retained messages a new subscription is owed.

use std::borrow::Cow;

use super::Broker;
use super::close::{CloseReason, excerpt};
use super::index::{LEVELS_MAX, SHARES_MAX, Subscriber, SubscriptionKey};
use super::link::LinkId;
use super::memory::Level;
use super::mount::mounted_filter;
use super::session::Cursor;
use super::store::Wait;
use crate::codec::{Packet, Property, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions, Unsubscribe};
use crate::logger::{SUBSCRIBE, UNSUBSCRIBE, notice};
use crate::time::Millis;
use crate::topic::ShareFilter;

impl Broker {
    pub(super) fn subscribe(&mut self, id: LinkId, packet: Subscribe, now: Millis) -> Result<(), CloseReason> {
        for (filter, _) in packet.filters() {
            if ShareFilter::parse(filter).is_none() {
                // [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.8.2-2] (5.0)
                return Err(CloseReason::topic_filter_invalid(filter));
            }
        }
        let subscription_id = packet.properties.find(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        });
        let link = &self.clients.links[id as usize];
        let (version, session) = (link.version, link.session);
        let is_unstorable = self.clients.store.is_failing
            && self.clients.store.is_strict()
            && version.has_properties()
            && self.clients.sessions[session as usize].is_stored();
        let (mut codes, mut refusals) = (Vec::new(), Refusals::default());
        for (filter, options) in packet.filters() {
            // One after the other, each as if it had come alone. [MQTT-3.8.4-4] (3.1.1) [MQTT-3.8.4-5] (5.0)
            let granted = match is_unstorable {
                true => Err((ReasonCode::QuotaExceeded, STORE_FAILS.into())),
                false => self.subscribe_one(id, filter, options, subscription_id.unwrap_or(0), now),
            };
            let code = granted.unwrap_or_else(|refusal| refusals.note(filter, refusal));
            codes.push(version.suback_code(code));
        }
        self.note_refusals(id, &refusals);
        // The answer goes first: clients give up waiting for it long before a large retained set is through.
        let position = if is_unstorable { 0 } else { self.clients.promise(session, now) };
        let wait = Wait { position, publish: 0 };
        self.explain(id, worst(&codes), (&refusals.why, codes.len()), |clients, properties| {
            let ack = SubAck { packet_id: packet.packet_id, properties, codes: &codes };
            clients.send_after(id, &Packet::SubAck(ack), wait);
        });
        self.pump(session, now);
        Ok(())
    }

    fn subscribe_one(
        &mut self,
        id: LinkId,
        text: &str,
        options: SubscribeOptions,
        subscription_id: u32,
        now: Millis,
    ) -> Result<ReasonCode, Refusal> {
        let mounted = self.below_mount(id, text);
        let text = mounted.as_deref().unwrap_or(text);
        let Some(filter) = ShareFilter::parse(text) else {
            return Err((ReasonCode::TopicFilterInvalid, NOT_VALID_BELOW_MOUNT.into()));
        };
        let config = &self.clients.config;
        let fault = config.topic_fault("filter", filter.filter);
        if let Some(fault) = fault.or_else(|| config.topic_fault("name of the share", filter.share_name?)) {
            return Err((ReasonCode::TopicFilterInvalid, fault.into()));
        }
        if self.clients.memory.level() == Level::Full && self.index.find(filter).is_none() {
            return Err((ReasonCode::QuotaExceeded, NO_MEMORY.into()));
        }
        if self.has_no_room_for(filter) {
            let why = format!("there are {SHARES_MAX} shared subscriptions, and that is the most");
            return Err((ReasonCode::QuotaExceeded, why.into()));
        }
        if let Some(why) = self.has_too_many(id, filter) {
            return Err((ReasonCode::QuotaExceeded, why.into()));
        }
        let link = &self.clients.links[id as usize];
        let session = link.session;
        let qos = options.qos.min(link.rules.max_qos);
        let subscriber = Subscriber {
            session,
            subscription_id,
            qos,
            no_local: options.no_local || link.is_bridge,
            retain_as_published: options.retain_as_published || link.is_bridge,
        };
        if filter.filter.starts_with("$SYS/") {
            self.begin_sys(now);
        }
        let older = self.index.find(filter).and_then(|key| self.index.subscriber(key, session).copied());
        let (key, is_new) = self.index.subscribe(filter, subscriber);
        log::debug!(target: SUBSCRIBE, "{} {} {text}", self.clients.client_id(id), qos as u8);
        let number = self.clients.sessions[session as usize].number;
        let session = self.clients.session_mut(session);
        session.note_subscription(key, is_new, subscription_id);
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // [MQTT-3.3.1-6] (3.1.1) [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] (5.0); shares get none.
        let owes_retained = wants_retained && key.share_id().is_none() && self.retained.len() > 0;
        if owes_retained {
            let cursors = &mut session.delivery_mut().cursors;
            if !is_new {
                cursors.retain(|cursor| cursor.key != key);
            }
            cursors.push_back(Cursor { key, subscriber, after: None });
        } else if !is_new && let Some(delivery) = session.delivery.as_deref_mut() {
            let cursors = delivery.cursors.iter_mut().filter(|cursor| cursor.key == key);
            cursors.for_each(|cursor| cursor.subscriber = subscriber);
        }
        if owes_retained || older != Some(subscriber) {
            self.clients.store.subscribed(number, text, &subscriber, owes_retained, now);
        }
        Ok(match qos as u8 {
            0 => ReasonCode::Success,
            1 => ReasonCode::GrantedQoS1,
            _ => ReasonCode::GrantedQoS2,
        })
    }

    /// Counts what was refused. One line for a packet, which may have thousands of filters.
    fn note_refusals(&mut self, id: LinkId, refusals: &Refusals) {
        let Refusals { filter, why, count } = refusals;
        if *count == 0 {
            return;
        }
        self.clients.stats.subscriptions_refused += *count as u64;
        let more = if *count > 1 { format!(" Nor to {} more.", count - 1) } else { String::new() };
        notice!(
            client = self.clients.client_id(id);
            "Client {} may not subscribe to '{filter}': {why}.{more}", self.clients.name(id)
        );
    }

    /// Why a client may not have one more subscription; nothing if it may, or has this one.
    fn has_too_many(&self, id: LinkId, filter: ShareFilter) -> Option<String> {
        let (max, session) = (self.clients.config.max_subscriptions as usize, self.clients.links[id as usize].session);
        let count = self.clients.sessions[session as usize].subscriptions.len();
        if max == 0 || count < max {
            return None;
        }
        let is_replaced = self.index.find(filter).is_some_and(|key| self.index.subscriber(key, session).is_some());
        (!is_replaced).then(|| format!("the client has {count} subscriptions, and max_subscriptions is {max}"))
    }

    /// The filter as it stands in the index, if the client is below a mount point and the filter is valid.
    fn below_mount(&self, id: LinkId, filter: &str) -> Option<String> {
        let link = &self.clients.links[id as usize];
        let filter = if link.has_mount { ShareFilter::parse(filter)? } else { return None };
        Some(mounted_filter(&link.rules.mount_point, filter))
    }

    /// Whether there are as many shares as there may be, and this filter would add one.
    pub(super) fn has_no_room_for(&self, filter: ShareFilter) -> bool {
        filter.share_name.is_some() && self.index.share_count() == SHARES_MAX
    }

    pub(super) fn unsubscribe(&mut self, id: LinkId, packet: Unsubscribe, now: Millis) -> Result<(), CloseReason> {
        let mut codes = Vec::new();
        for filter in packet.filters() {
            codes.push(self.unsubscribe_one(id, filter, now) as u8);
        }
        let position = self.clients.promise(self.clients.links[id as usize].session, now);
        // Also if nothing was subscribed. [MQTT-3.10.4-5]
        self.explain(id, worst(&codes), (NO_FILTER, codes.len()), |clients, properties| {
            let ack = SubAck { packet_id: packet.packet_id, properties, codes: &codes };
            clients.send_after(id, &Packet::UnsubAck(ack), Wait { position, publish: 0 });
        });
        Ok(())
    }

    fn unsubscribe_one(&mut self, id: LinkId, text: &str, now: Millis) -> ReasonCode {
        let mounted = self.below_mount(id, text);
        let text = mounted.as_deref().unwrap_or(text);
        let Some(filter) = ShareFilter::parse(text) else { return ReasonCode::TopicFilterInvalid };
        log::debug!(target: UNSUBSCRIBE, "{} {text}", self.clients.client_id(id));
        let session_id = self.clients.links[id as usize].session;
        let Some(key) = self.index.find(filter) else { return ReasonCode::NoSubscriptionExisted };
        if !self.remove_subscription(session_id, key) {
            return ReasonCode::NoSubscriptionExisted;
        }
        let number = self.clients.sessions[session_id as usize].number;
        self.clients.store.unsubscribed(number, session_id, text, now);
        ReasonCode::Success
    }

    /// Removes a subscription; false if the session has none with this key.
    pub(super) fn remove_subscription(&mut self, session_id: u32, key: SubscriptionKey) -> bool {
        let session = self.clients.session_mut(session_id);
        if !session.subscriptions.remove(key) {
            return false;
        }
        if let Some(delivery) = session.delivery.as_deref_mut() {
            delivery.cursors.retain(|cursor| cursor.key != key);
        }
        self.index.unsubscribe(key, session_id);
        true
    }
}

/// What a subscription is refused with, and why.
type Refusal = (ReasonCode, Cow<'static, str>);

/// The filters of one SUBSCRIBE that are refused: the first, why it is, and how many there are.
#[derive(Default)]
struct Refusals {
    filter: String,
    why: Cow<'static, str>,
    count: usize,
}

impl Refusals {
    fn note(&mut self, filter: &str, (code, why): Refusal) -> ReasonCode {
        if self.count == 0 {
            (self.filter, self.why) = (excerpt(filter), why);
        }
        self.count += 1;
        code
    }
}

const STORE_FAILS: &str =
    "subscriptions could not be stored: the storage of the broker is full or fails; try again later";
const NOT_VALID_BELOW_MOUNT: &str = "the filter is not valid with the listener's mount_point in front of it";
const NO_MEMORY: &str = "the broker has no memory for more subscriptions (memory_limit)";
const NO_FILTER: &str =
    "a topic filter is not valid: '+' fills a level, '#' the last one, and $share/NAME/ needs a name and a filter";

/// Whether a filter has more levels than the index takes, whatever the configuration says.
pub(super) fn is_too_deep(filter: ShareFilter) -> bool {
    filter.filter.split('/').count() > LEVELS_MAX
}

/// The error among the codes of an acknowledgement, if there is one.
fn worst(codes: &[u8]) -> ReasonCode {
    codes.iter().max().and_then(|&code| ReasonCode::from_u8(code)).unwrap_or(ReasonCode::Success)
}
