//! The judgement at the end: every delivery a client saw must have been owed to it, and everything owed must have come,
//! but for what a full queue or its expiry took legitimately.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use midge::broker::Stats;
use midge::codec::{RetainHandling, Version};

use super::ledger::*;
use super::matching::unmatched;
use super::model::Model;

/// States of a session that are looked at where many requests may have been lost.
const SETS_MAX: usize = 4000;

/// One form in which a delivery may come.
pub(super) struct Form {
    pub(super) key: Key,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) ids: Vec<u32>,
    pub(super) instance: usize,
    /// For retained messages: the value must have been there at some time from here on.
    pub(super) asked: Option<Moment>,
    /// Not before this: a later subscription's options.
    pub(super) since: Moment,
}

impl Form {
    fn is_like(&self, other: &Form) -> bool {
        (self.qos, self.retain, &self.ids) == (other.qos, other.retain, &other.ids)
    }
}

/// A delivery that is owed to a session, or may be.
struct Item {
    /// Sorted by key.
    forms: Vec<Form>,
    is_must: bool,
    /// May be lost if the loss was counted.
    may_be_dropped: bool,
    may_expire: bool,
}

impl Item {
    fn forms_of(&self, key: Key) -> &[Form] {
        let from = self.forms.partition_point(|form| form.key < key);
        let to = self.forms.partition_point(|form| form.key <= key);
        &self.forms[from..to]
    }
}

#[derive(Default)]
pub(super) struct Losses {
    pub(super) dropped: u64,
    pub(super) expired: u64,
    /// One of them, for the report.
    pub(super) example: String,
}

impl Model {
    /// What the client made of a first delivery.
    pub fn delivered(&mut self, session: usize, seen: Seen, bytes: &[u8], from: Option<String>) {
        let client = self.sessions[session].client;
        if self.has_hostile && !self.topics.contains(&seen.topic) {
            return;
        }
        match seen.key {
            None if !bytes.is_empty() => {
                self.fail(format!("client {client} got {} bytes nobody sent on {}", bytes.len(), seen.topic));
            }
            None => {}
            Some(id) => {
                let Some(message) = self.messages.get(id as usize) else {
                    self.fail(format!("client {client} got message {id}, which does not exist"));
                    return;
                };
                let sender = message.has_user_property && self.sessions[session].version == Version::V5;
                let sender = sender.then(|| self.names[message.publisher].clone());
                if message.topic != seen.topic {
                    self.fail(format!("client {client} got {} on topic {}", self.describe(id), seen.topic));
                } else if bytes != payload(id, message.len) {
                    self.fail(format!("client {client} got {} with another payload", self.describe(id)));
                } else if from != sender {
                    self.fail(format!("client {client} got {} with user property {from:?}", self.describe(id)));
                }
            }
        }
        self.sessions[session].seen.push(seen);
    }

    /// Once everything is quiet.
    pub fn judge(&mut self, stats: &Stats) {
        let mut losses = Losses::default();
        let mut handled: HashMap<u32, usize> = HashMap::new();
        self.instances.iter().for_each(|instance| *handled.entry(instance.message).or_default() += 1);
        let mut instances: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, instance) in self.instances.iter().enumerate().filter(|(_, instance)| !instance.is_refused) {
            let topic = &self.messages[instance.message as usize].topic;
            instances.entry(topic.clone()).or_default().push(at);
        }
        for session in 0..self.sessions.len() {
            self.judge_session(session, &instances, &mut losses);
            self.judge_order(session, &handled);
        }
        self.judge_shares(&mut losses);
        self.judge_answers();
        if losses.dropped > stats.messages_dropped {
            let (lost, counted, example) = (losses.dropped, stats.messages_dropped, losses.example);
            self.fail(format!("{lost} messages lost, {counted} counted as dropped, for example: {example}"));
            return;
        }
        let counted = stats.messages_dropped + stats.messages_expired;
        if losses.dropped + losses.expired > counted {
            self.fail(format!("{} messages lost, {counted} counted", losses.dropped + losses.expired));
        }
    }

    pub(super) fn effective(&self, published: u8, granted: u8) -> u8 {
        if self.config.upgrade_outgoing_qos { granted } else { published.min(granted) }
    }

    /// Alive and connected to the end, so that everything must have come.
    pub(super) fn is_complete(&self, session: usize) -> bool {
        let session = &self.sessions[session];
        session.ended.is_none() && session.conn.is_some_and(|conn| self.links[conn].is_open)
    }

    pub(super) fn is_too_large(&self, session: usize, message: u32, qos: u8, ids: &[u32]) -> bool {
        let message = &self.messages[message as usize];
        let name = &self.names[message.publisher];
        let max = self.sessions[session].packet_size_max;
        max.is_some_and(|max| packet_len(message, qos, ids, name) > max as usize)
    }

    /// The identifiers of the session's shared subscriptions.
    fn share_ids(&self, session: usize) -> BTreeSet<u32> {
        let subscriptions = self.sessions[session].subscriptions.iter();
        subscriptions.filter(|it| it.share.is_some()).map(|it| it.id).collect()
    }

    fn judge_session(&mut self, session: usize, instances: &BTreeMap<String, Vec<usize>>, losses: &mut Losses) {
        let share_ids = self.share_ids(session);
        let mut by_topic: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        instances.keys().for_each(|topic| drop(by_topic.insert(topic, Vec::new())));
        for (at, seen) in self.sessions[session].seen.iter().enumerate() {
            if !matches!(seen.subscription_ids[..], [id] if share_ids.contains(&id)) {
                by_topic.entry(&seen.topic).or_default().push(at);
            }
        }
        let mut failures = Vec::new();
        for (topic, seen) in by_topic {
            let instances = instances.get(topic).map_or(&[][..], Vec::as_slice);
            let mut items = Vec::new();
            let matching: Vec<&Subscription> = (self.sessions[session].subscriptions.iter())
                .filter(|it| it.share.is_none() && matches(&it.filter, topic))
                .collect();
            if !matching.is_empty() {
                instances.iter().for_each(|&at| self.live_items(session, at, &matching, &mut items));
            }
            self.retained_items(session, topic, instances, &mut items);
            self.judge_topic(session, topic, &seen, &items, losses, &mut failures);
        }
        for failure in failures {
            self.fail(failure);
        }
    }

    /// What the session is owed of one publication.
    fn live_items(&self, session: usize, at: usize, matching: &[&Subscription], items: &mut Vec<Item>) {
        let instance = &self.instances[at];
        let message = &self.messages[instance.message as usize];
        let is_own = instance.session == Some(session);
        let matching: Vec<&Subscription> =
            (matching.iter().copied()).filter(|it| it.may_see(instance.span) && !(it.no_local && is_own)).collect();
        if matching.is_empty() {
            return;
        }
        // A will waits for nobody.
        let may_be_dropped = self.may_be_dropped(session, instance.span) || message.is_will;
        let form = |subscriptions: &[&Subscription]| {
            let granted = subscriptions.iter().map(|it| it.qos).max().unwrap_or(0);
            let mut ids: Vec<u32> = subscriptions.iter().map(|it| it.id).filter(|&id| id != 0).collect();
            ids.sort();
            let retain = message.retain && subscriptions.iter().any(|it| it.retain_as_published);
            let key = self.key(instance.message);
            Form { key, qos: self.effective(message.qos, granted), retain, ids, instance: at, asked: None, since: 0 }
        };
        let mut push = |forms: Vec<Form>, is_certain: bool| {
            let has_qos0 = forms.iter().any(|form| form.qos == 0);
            let is_large = |form: &Form| self.is_too_large(session, instance.message, form.qos, &form.ids);
            let is_must = is_certain
                && instance.is_sure
                && self.is_complete(session)
                && !forms.iter().any(is_large)
                && (!has_qos0 || self.has_same_link(session, instance.span.from));
            items.push(Item { forms, is_must, may_be_dropped, may_expire: message.expiry_s.is_some() });
        };
        if self.config.allow_duplicate_messages {
            for subscription in matching {
                push(vec![form(&[subscription])], subscription.must_see(instance.span));
            }
            return;
        }
        let mut forms: Vec<Form> = Vec::new();
        for set in self.possible_sets(session, instance.span, &matching) {
            let form = form(&set);
            if !set.is_empty() && !forms.iter().any(|other| other.is_like(&form)) {
                forms.push(form);
            }
        }
        if !forms.is_empty() {
            push(forms, matching.iter().any(|it| it.must_see(instance.span)));
        }
    }

    /// Which of the matching subscriptions may have been there together. A session's requests are handled in their order, so
    /// its state is that after one of them; but those that may be lost with their link count or do not count.
    fn possible_sets<'a>(
        &self,
        session: usize,
        span: Span,
        matching: &[&'a Subscription],
    ) -> Vec<Vec<&'a Subscription>> {
        if matching.iter().all(|it| it.must_see(span)) {
            return vec![matching.to_vec()];
        }
        // The states between the last change that came first for certain, and the last that may have come first.
        let (mut states, mut certain) = (BTreeSet::new(), 0);
        for it in &self.sessions[session].subscriptions {
            for change in [Some(it.on), it.off].into_iter().flatten() {
                if change.is_surely_before(span) && !it.is_vague {
                    certain = certain.max(change.from);
                } else if change.may_be_before(span) {
                    states.insert(change.from);
                }
            }
        }
        states.insert(certain);
        let (vague, clear): (Vec<_>, Vec<_>) = matching.iter().copied().partition(|it| it.is_vague);
        let mut by_filter: BTreeMap<&str, Vec<&Subscription>> = BTreeMap::new();
        vague.into_iter().for_each(|it| by_filter.entry(&it.full).or_default().push(it));
        let mut sets: Vec<Vec<&Subscription>> = Vec::new();
        for after in states.into_iter().filter(|&after| after >= certain) {
            let is_there = |it: &&&Subscription| it.on.from <= after && it.off.is_none_or(|off| off.from > after);
            // As if nothing was lost; then with at most one for each filter of those that may have been.
            sets.push(matching.iter().filter(is_there).copied().collect());
            let mut mixed: Vec<Vec<&Subscription>> = vec![clear.iter().filter(is_there).copied().collect()];
            for same in by_filter.values() {
                for at in 0..mixed.len() {
                    let base = mixed[at].clone();
                    let with = same.iter().map(|it| base.iter().copied().chain([*it]).collect());
                    mixed.extend(with.take(SETS_MAX.saturating_sub(mixed.len())).collect::<Vec<_>>());
                }
            }
            sets.extend(mixed);
        }
        sets
    }

    pub(super) fn may_be_dropped(&self, session: usize, span: Span) -> bool {
        // The oldest gives way whenever another one comes.
        self.sessions[session].has_gap(Span { from: span.from, to: UNKNOWN })
    }

    fn has_same_link(&self, session: usize, moment: Moment) -> bool {
        self.sessions[session].links.last().is_some_and(|(_, since)| *since < moment)
    }

    /// What each SUBSCRIBE is owed of the topic's retained message.
    fn retained_items(&self, session: usize, topic: &str, instances: &[usize], items: &mut Vec<Item>) {
        let values: Vec<usize> = (instances.iter().copied())
            .filter(|&at| self.messages[self.instances[at].message as usize].retain)
            .collect();
        let subscriptions = &self.sessions[session].subscriptions;
        for (number, asking) in subscriptions.iter().enumerate() {
            if asking.share.is_some() || !matches(&asking.filter, topic) || values.is_empty() {
                continue;
            }
            let mut earlier = subscriptions[..number].iter().filter(|it| it.full == asking.full);
            let is_new = earlier.clone().all(|it| it.off.is_some_and(|off| off.is_surely_before(asking.on)));
            let is_old = earlier.any(|it| {
                let is_clear = !it.is_vague && !asking.is_vague && it.on.to != UNKNOWN;
                is_clear && it.off.is_some_and(|off| off.from == asking.on.from)
            });
            match asking.retain_handling {
                RetainHandling::Send => {}
                RetainHandling::SendIfNew if !is_old => {}
                _ => continue,
            }
            let mut forms = Vec::new();
            for &at in &values {
                let message = self.instances[at].message;
                let it = &self.messages[message as usize];
                if it.len == 0 {
                    continue;
                }
                for with in subscriptions[number..].iter().filter(|it| it.full == asking.full) {
                    if with.no_local && it.publisher == self.sessions[session].client {
                        continue;
                    }
                    let qos = self.effective(it.qos, with.qos);
                    let ids = if with.id == 0 { Vec::new() } else { vec![with.id] };
                    let (key, asked) = (Some(message), Some(asking.on.from));
                    forms.push(Form { key, qos, retain: true, ids, instance: at, asked, since: with.on.from });
                }
            }
            let has_qos0 = forms.iter().any(|form| form.qos == 0);
            let is_large =
                |form: &Form| form.key.is_some_and(|message| self.is_too_large(session, message, form.qos, &form.ids));
            let is_must = asking.off.is_none()
                && asking.on.to != UNKNOWN
                && (is_new || asking.retain_handling == RetainHandling::Send)
                && self.is_complete(session)
                && self.has_value(session, asking, &values)
                && !forms.iter().any(is_large)
                && (!has_qos0 || self.has_same_link(session, asking.on.from));
            forms.sort_by_key(|form| form.key);
            items.push(Item { forms, is_must, may_be_dropped: false, may_expire: false });
        }
    }

    /// Whether the topic had a retained message from the subscription on, whatever happened.
    fn has_value(&self, session: usize, asking: &Subscription, values: &[usize]) -> bool {
        let client = self.sessions[session].client;
        values.iter().any(|&at| {
            let value = &self.instances[at];
            let endangers = |other: &usize| {
                let (it, message) = (&self.instances[*other], &self.messages[self.instances[*other].message as usize]);
                let ends = message.len == 0 || message.expiry_s.is_some();
                let is_own = asking.no_local && message.publisher == client;
                (ends || is_own) && !it.span.is_surely_before(value.span)
            };
            value.is_sure && value.span.is_surely_before(asking.on) && !values.iter().any(endangers)
        })
    }

    /// Whether the value may have been the retained one at some time from `asked` to `seen`.
    fn may_be_retained(&self, at: usize, asked: Moment, seen: Moment) -> bool {
        let value = &self.instances[at];
        let topic = &self.messages[value.message as usize].topic;
        let is_replaced = self.instances.iter().any(|other| {
            let message = &self.messages[other.message as usize];
            message.retain
                && !other.is_refused
                && message.topic == *topic
                && other.is_sure
                && value.span.is_surely_before(other.span)
                && other.span.to < asked
        });
        value.span.from <= seen && !is_replaced
    }

    /// Whether a delivery of the same message has this form, and came when it could.
    pub(super) fn fits(&self, session: usize, form: &Form, seen: &Seen) -> bool {
        let is_same = form.qos == seen.qos && form.retain == seen.retain && form.ids == seen.subscription_ids;
        if !is_same || seen.moment < form.since {
            return false;
        }
        let instance = &self.instances[form.instance];
        let is_there = match form.asked {
            None => instance.span.from <= seen.moment,
            Some(asked) => self.may_be_retained(form.instance, asked, seen.moment),
        };
        is_there && self.fits_expiry(session, instance, seen)
    }

    /// The lifetime that is left is told, and nothing is sent for the first time after it. [MQTT-3.3.2-5] [MQTT-3.3.2-6]
    fn fits_expiry(&self, session: usize, instance: &Instance, seen: &Seen) -> bool {
        let Some(expiry_s) = self.messages[instance.message as usize].expiry_s else { return seen.expiry_s.is_none() };
        let ends = |handled_ms: u64| handled_ms.saturating_add(u64::from(expiry_s) * 1000);
        if !seen.dup && seen.ms >= ends(instance.to_ms) {
            return false;
        }
        if self.sessions[session].version != Version::V5 {
            return seen.expiry_s.is_none();
        }
        let left_s = |handled_ms: u64| ends(handled_ms).saturating_sub(seen.ms).div_ceil(1000);
        seen.expiry_s.is_some_and(|told| (left_s(instance.from_ms)..=left_s(instance.to_ms)).contains(&u64::from(told)))
    }

    fn judge_topic(
        &self,
        session: usize,
        topic: &str,
        seen: &[usize],
        items: &[Item],
        losses: &mut Losses,
        failures: &mut Vec<String>,
    ) {
        let all = &self.sessions[session].seen;
        let mut by_key: HashMap<Key, Vec<usize>> = HashMap::new();
        for (number, item) in items.iter().enumerate() {
            for forms in item.forms.chunk_by(|one, other| one.key == other.key) {
                by_key.entry(forms[0].key).or_default().push(number);
            }
        }
        let mut items_of_seen = vec![Vec::new(); seen.len()];
        let mut seen_of_item = vec![Vec::new(); items.len()];
        for (number, &at) in seen.iter().enumerate() {
            for &item in by_key.get(&all[at].key).into_iter().flatten() {
                if items[item].forms_of(all[at].key).iter().any(|form| self.fits(session, form, &all[at])) {
                    items_of_seen[number].push(item);
                    seen_of_item[item].push(number);
                }
            }
        }
        let name = &self.names[self.sessions[session].client];
        let everything: Vec<usize> = (0..seen.len()).collect();
        if let Some(&number) = unmatched(&everything, &items_of_seen, items.len()).first() {
            let it = &all[seen[number]];
            let what = it.key.map_or("an empty message".to_string(), |id| self.describe(id));
            failures.push(format!("{name} (session {session}) was not owed {what} as {it:?}"));
        }
        let mut due: Vec<usize> = (0..items.len()).filter(|&item| items[item].is_must).collect();
        due.sort_by_key(|&item| (items[item].may_expire, items[item].may_be_dropped));
        for item in unmatched(&due, &seen_of_item, seen.len()) {
            let instance = &self.instances[items[item].forms[0].instance];
            let kind = if items[item].forms[0].asked.is_some() { "retained" } else { "live" };
            let (what, span) = (self.describe(instance.message), instance.span);
            let what = format!("{name} (session {session}) never got {what} on {topic}, {kind}, {span:?}");
            match (items[item].may_expire, items[item].may_be_dropped) {
                (true, _) => losses.expired += 1,
                (false, true) => (losses.dropped, losses.example) = (losses.dropped + 1, what),
                (false, false) => failures.push(what),
            }
        }
    }

    /// Messages of one publisher to one topic come in their order, for each QoS. [MQTT-4.6.0-5] [MQTT-4.6.0-6]
    fn judge_order(&mut self, session: usize, handled: &HashMap<u32, usize>) {
        let share_ids = self.share_ids(session);
        let mut last: HashMap<(usize, &str, u8), u32> = HashMap::new();
        let mut wrong = None;
        for seen in &self.sessions[session].seen {
            let Some(id) = seen.key else { continue };
            let message = &self.messages[id as usize];
            // What a member of a share leaves behind comes when it leaves.
            if matches!(seen.subscription_ids[..], [id] if share_ids.contains(&id)) {
                continue;
            }
            if seen.retain || message.is_will || handled.get(&id) != Some(&1) {
                continue;
            }
            let before = last.entry((message.publisher, &message.topic, seen.qos)).or_insert(id);
            if *before > id {
                wrong = Some((id, *before));
            }
            *before = id.max(*before);
        }
        if let Some((id, before)) = wrong {
            self.fail(format!("session {session} got {} after {}", self.describe(id), self.describe(before)));
        }
    }
}
