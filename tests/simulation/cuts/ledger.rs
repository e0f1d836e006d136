//! What clients know: what they sent, what was acknowledged, what they got. Everything is seen from the client's end of the
//! wire, where a promise counts from the moment it arrives. Moments are numbered; a thing that was not acknowledged may have
//! happened at any moment since it was sent, or never.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ledger::{matches, payload};

pub type Moment = u64;
pub const NEVER: Moment = u64::MAX;

#[derive(Clone)]
pub struct Message {
    pub publisher: usize,
    pub topic: &'static str,
    pub qos: u8,
    pub retain: bool,
    /// 0: it clears what is retained, and nothing tells it apart.
    pub len: usize,
    pub expires: bool,
    pub is_will: bool,
    pub sent: Moment,
    /// How often it was sent.
    pub count: u32,
    /// PUBACK or PUBREC said that the broker has it.
    pub acked: Moment,
    /// The broker cannot handle it any more after this, unless it is sent again.
    pub over: Moment,
}

/// A SUBSCRIBE or UNSUBSCRIBE for one filter.
#[derive(Clone, Copy)]
pub struct Change {
    pub asked: Moment,
    pub answered: Moment,
    /// The QoS; nothing for the end.
    pub qos: Option<u8>,
    /// The broker said no.
    pub is_refused: bool,
}

/// What a session got of a message.
#[derive(Clone, Copy, Default)]
pub struct Got {
    pub live: u32,
    /// Of them, by QoS.
    by_qos: [u32; 3],
    pub retained: u32,
}

/// A session, as far as its client can know, from CONNACK to its end.
#[derive(Clone)]
pub struct Session {
    pub client: usize,
    /// Nobody knows which session of the client this is, or what is left of it: it only must not make things up.
    pub is_vague: bool,
    /// It may expire.
    pub is_fragile: bool,
    /// An acknowledgement promised that it is stored.
    pub is_promised: bool,
    pub is_over: bool,
    pub filters: BTreeMap<&'static str, Vec<Change>>,
    pub got: HashMap<u32, Got>,
    /// The latest message of each way: publisher, topic, QoS as published and as delivered.
    latest: HashMap<(usize, &'static str, u8, u8), u32>,
    /// Retained values by topic, as they came last.
    pub values: HashMap<&'static str, u32>,
}

/// A PUBLISH as a client got it for the first time.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub key: Option<u32>,
    pub qos: u8,
    pub retain: bool,
}

#[derive(Clone)]
pub struct Ledger {
    pub messages: Vec<Message>,
    pub sessions: Vec<Session>,
    pub topics: Vec<&'static str>,
    pub moment: Moment,
    pub now_ms: u64,
    pub last_cut: Moment,
    /// Queues are bounded, so that messages may be dropped.
    pub has_limits: bool,
    /// Whose messages may be refused because the disk fails, and the refusal be lost.
    pub refused: Vec<usize>,
    /// Whose sessions may expire and be made anew without their knowing: what they repeat is no repeat then.
    pub fragile: Vec<usize>,
    /// A 5.0 publisher is told when a queue was full, and may repeat what others were sent.
    pub rejects: bool,
    pub failures: Vec<String>,
    pub trace: Option<Vec<String>>,
}

impl Ledger {
    pub fn new(topics: Vec<&'static str>, has_limits: bool, trace: bool) -> Ledger {
        Ledger {
            messages: Vec::new(),
            sessions: Vec::new(),
            topics,
            moment: 1,
            now_ms: 0,
            last_cut: 0,
            has_limits,
            refused: Vec::new(),
            fragile: Vec::new(),
            rejects: false,
            failures: Vec::new(),
            trace: trace.then(Vec::new),
        }
    }

    pub fn fail(&mut self, what: String) {
        self.note(|| format!("FAILURE {what}"));
        self.failures.push(format!("at {} ms, moment {}: {what}", self.now_ms, self.moment));
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} ms {:>6}  {}", self.now_ms, self.moment, what()));
        }
    }

    pub fn next(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    pub fn describe(&self, id: u32) -> String {
        let it = &self.messages[id as usize];
        let is = |is: bool, text: &'static str| if is { text } else { "" };
        format!(
            "message {id} of c{} ({}, QoS {}, {} bytes{}{}{}, sent {} times from {}, acknowledged {}, over {})",
            it.publisher,
            it.topic,
            it.qos,
            it.len,
            is(it.retain, ", retain"),
            is(it.expires, ", expires"),
            is(it.is_will, ", will"),
            it.count,
            it.sent,
            it.acked as i64,
            it.over as i64
        )
    }

    pub fn sent(&mut self, id: u32) {
        let moment = self.next();
        let message = &mut self.messages[id as usize];
        message.sent = message.sent.min(moment);
        message.count += 1;
        message.over = NEVER;
    }

    /// PUBACK or PUBREC arrived. A refusal says nothing of what became of it when it was sent before.
    pub fn acknowledged(&mut self, id: u32, is_taken: bool, session: usize) {
        let moment = self.next();
        let message = &mut self.messages[id as usize];
        if is_taken {
            message.over = moment;
            // In a session whose packet ids came back it may have been taken for a repeat.
            if message.qos < 2 || !self.sessions[session].is_vague {
                message.acked = message.acked.min(moment);
            }
            // PUBACK may have had nothing to wait for; a QoS 2 packet id is stored with the session.
            self.sessions[session].is_promised |= message.qos == 2;
        }
    }

    /// What a client without a stored session sent before this connection is handled or lost.
    pub fn older_link_is_over(&mut self, client: usize) {
        let moment = self.moment;
        let its = self.messages.iter_mut().filter(|it| it.publisher == client && !it.is_will && it.over == NEVER);
        its.for_each(|it| it.over = moment);
    }

    /// The power is gone, and with it what was not acknowledged; but QoS 2 messages of stored sessions may have been accepted.
    pub fn cut(&mut self, is_durable: impl Fn(usize) -> bool) {
        let moment = self.next();
        self.last_cut = moment;
        for it in self.messages.iter_mut().filter(|it| it.over == NEVER && !it.is_will) {
            if it.qos < 2 || !is_durable(it.publisher) {
                it.over = moment;
            }
        }
    }

    /// Nothing that was retained was promised to last.
    pub fn forget_values(&mut self) {
        self.messages.iter_mut().filter(|it| it.retain).for_each(|it| (it.acked, it.over) = (NEVER, NEVER));
    }

    pub fn new_session(&mut self, client: usize, is_fragile: bool) -> usize {
        self.sessions.push(Session {
            client,
            is_vague: false,
            is_fragile,
            is_promised: false,
            is_over: false,
            filters: BTreeMap::new(),
            got: HashMap::new(),
            latest: HashMap::new(),
            values: HashMap::new(),
        });
        self.sessions.len() - 1
    }

    pub fn asked(&mut self, session: usize, filter: &'static str, qos: Option<u8>) {
        let asked = self.next();
        let change = Change { asked, answered: NEVER, qos, is_refused: false };
        self.sessions[session].filters.entry(filter).or_default().push(change);
    }

    /// SUBACK or UNSUBACK for what was asked at that moment.
    pub fn answered(&mut self, session: usize, filter: &'static str, asked: Moment, is_granted: bool) {
        let moment = self.next();
        let session = &mut self.sessions[session];
        let change =
            session.filters.get_mut(filter).and_then(|changes| changes.iter_mut().find(|it| it.asked == asked));
        if let Some(change) = change {
            change.answered = if is_granted { moment } else { NEVER };
            change.is_refused = !is_granted;
            session.is_promised |= is_granted;
        }
    }

    /// The QoS a filter may have been subscribed with at some time in the span; nothing stands for not at all.
    pub fn possible(&self, session: usize, filter: &str, from: Moment, to: Moment) -> Vec<Option<u8>> {
        let Some(changes) = self.sessions[session].filters.get(filter) else { return vec![None] };
        let changes = || changes.iter().filter(|change| !change.is_refused);
        let base = changes().rposition_answered(from);
        let mut possible = vec![base.and_then(|base| base.qos)];
        let since = base.map_or(0, |base| base.asked);
        possible.extend(changes().filter(|it| it.asked > since && it.asked <= to).map(|it| it.qos));
        possible
    }

    /// A client got a message.
    pub fn delivered(&mut self, session: usize, delivery: Delivery) {
        let moment = self.next();
        let name = self.sessions[session].client;
        let Some(topic) = self.topics.iter().copied().find(|topic| *topic == delivery.topic) else {
            self.fail(format!("c{name} got a message on {}, where nobody publishes", delivery.topic));
            return;
        };
        self.note(|| {
            let retain = if delivery.retain { " retained" } else { "" };
            format!("c{name} < PUBLISH {topic} {:?} QoS {}{retain}", delivery.key, delivery.qos)
        });
        let Some(id) = delivery.key else {
            let is_known = self.messages.iter().any(|it| it.topic == topic && it.len == 0 && it.sent != NEVER);
            if !delivery.payload.is_empty() || delivery.retain || !is_known {
                self.fail(format!("c{name} got {} bytes nobody sent on {topic}", delivery.payload.len()));
            }
            return;
        };
        let is_same = |it: &Message| it.topic == topic && payload(id, it.len) == delivery.payload && it.sent != NEVER;
        if !self.messages.get(id as usize).is_some_and(is_same) {
            self.fail(format!(
                "c{name} got message {id} on {topic} with {} bytes, which nobody sent",
                delivery.payload.len()
            ));
            return;
        }
        if delivery.retain {
            self.check_value(session, id, moment)
        } else {
            self.check_subscription(session, id, delivery.qos)
        }
        self.count(session, id, delivery);
    }

    /// It matches what may be subscribed, with a QoS it may have.
    fn check_subscription(&mut self, session: usize, id: u32, qos: u8) {
        if self.sessions[session].is_vague {
            return;
        }
        let message = &self.messages[id as usize];
        let to = if message.is_will { self.moment } else { message.over.min(self.moment) };
        let mut granted = Vec::new();
        for filter in self.sessions[session].filters.keys().filter(|filter| matches(filter, message.topic)) {
            granted.extend(self.possible(session, filter, message.sent, to).into_iter().flatten());
        }
        if !granted.iter().any(|granted| *granted.min(&message.qos) == qos) {
            let (client, text) = (self.sessions[session].client, self.describe(id));
            self.fail(format!("c{client} got {text} with QoS {qos}, but its subscriptions may have been {granted:?}"));
        }
    }

    fn check_value(&mut self, session: usize, id: u32, _moment: Moment) {
        let topic = self.messages[id as usize].topic;
        let client = self.sessions[session].client;
        if !self.messages[id as usize].retain {
            self.fail(format!("c{client} got {} as retained", self.describe(id)));
        }
        if self.sessions[session].is_vague {
            return;
        }
        let matching = self.sessions[session].filters.iter().filter(|(filter, _)| matches(filter, topic));
        let asked = matching.flat_map(|(_, changes)| changes).filter(|change| change.qos.is_some()).map(|it| it.asked);
        match asked.min() {
            None => self.fail(format!("c{client} got {} and never asked", self.describe(id))),
            Some(asked) => {
                if let Some(newer) = self.replaced_by(topic, self.messages[id as usize].over, asked) {
                    let (old, new) = (self.describe(id), self.describe(newer));
                    self.fail(format!("c{client} asked at {asked} and got the retained {old}, which {new} replaced"));
                }
            }
        }
        self.sessions[session].values.insert(topic, id);
    }

    /// What certainly replaced, before `at`, a retained value that was not set after `over`.
    pub fn replaced_by(&self, topic: &str, over: Moment, at: Moment) -> Option<u32> {
        let is_newer = |it: &Message| it.retain && it.topic == topic && it.acked <= at && it.sent > over;
        self.messages.iter().position(is_newer).map(|at| at as u32)
    }

    /// Why there is certainly a retained value at `at`; nothing if there may be none.
    pub fn must_have_value(&self, topic: &str, at: Moment) -> Option<u32> {
        let mut first = self.replaced_by(topic, 0, at)?;
        let ends = |it: &&Message| it.retain && it.topic == topic && (it.len == 0 || it.expires) && it.sent != NEVER;
        for clear in self.messages.iter().filter(ends) {
            first = self.replaced_by(topic, clear.over, at)?;
        }
        Some(first)
    }

    fn count(&mut self, session: usize, id: u32, delivery: Delivery) {
        let message = &self.messages[id as usize];
        let (publisher, topic, published, sent_count, is_will) =
            (message.publisher, message.topic, message.qos, message.count, message.is_will);
        let it = &mut self.sessions[session];
        let got = it.got.entry(id).or_default();
        let is_first = got.live == 0;
        if delivery.retain {
            got.retained += 1;
            return;
        }
        got.live += 1;
        let times = &mut got.by_qos[delivery.qos as usize];
        *times += 1;
        let times = *times;
        let (client, is_vague) = (it.client, it.is_vague);
        if is_will || is_vague {
            return;
        }
        let may_be_new = self.rejects || self.fragile.contains(&publisher);
        let wrong = match (published, delivery.qos) {
            // Routed once more after a power cut it may find another subscription, of QoS 1.
            (0, 0) => times > 1,
            (2, 0) | (2, 2) => times > 1 && (sent_count == 1 || !may_be_new),
            (1, 0) => times > sent_count,
            _ => false,
        };
        if wrong {
            let text = self.describe(id);
            self.fail(format!("c{client} got {text} {times} times with QoS {}", delivery.qos));
        }
        if is_first {
            let latest = self.sessions[session].latest.entry((publisher, topic, published, delivery.qos)).or_insert(id);
            let before = std::mem::replace(latest, id.max(*latest));
            if before > id && self.must_come_in_order(session, id, before, delivery.qos) {
                let (one, other) = (self.describe(id), self.describe(before));
                self.fail(format!("c{client} got {one} for the first time after {other}"));
            }
        }
    }

    /// Two messages of one way. One that was sent again may have been handled before when nobody wanted it, or refused; but not if the session wanted it all the time, with a QoS that cannot be lost.
    fn must_come_in_order(&self, session: usize, one: u32, other: u32, qos: u8) -> bool {
        let message = &self.messages[one as usize];
        if self.has_limits || message.expires {
            // What gave way to others may come back if the power is cut before that is stored.
            return false;
        }
        if message.count == 1 && self.messages[other as usize].count == 1 {
            return true;
        }
        let is_unsure = |clients: &[usize]| clients.contains(&message.publisher);
        if qos == 0 || is_unsure(&self.refused) || is_unsure(&self.fragile) {
            return false;
        }
        let mut filters = self.sessions[session].filters.keys().filter(|filter| matches(filter, message.topic));
        filters.any(|filter| {
            let mut possible = self.possible(session, filter, message.sent, self.moment).into_iter();
            possible.all(|granted| granted.is_some_and(|granted| granted.min(message.qos) == qos))
        })
    }

    /// A new client that subscribed to everything was sent all that is retained.
    pub fn inspected(&mut self, session: usize) {
        let it = &self.sessions[session];
        let Some(asked) = it.filters.get("#").and_then(|changes| changes.first()).map(|change| change.asked) else {
            return;
        };
        let missing = self.topics.iter().filter(|topic| !it.values.contains_key(*topic));
        let missing: HashSet<u32> = missing.filter_map(|topic| self.must_have_value(topic, asked)).collect();
        for id in missing {
            self.fail(format!("nothing is retained where there was {}", self.describe(id)));
        }
    }

    /// Everything is quiet and everybody connected: what was acknowledged must have arrived.
    pub fn judge(&mut self) {
        let mut lost = Vec::new();
        for (number, session) in self.sessions.iter().enumerate() {
            if session.is_over || session.is_vague || session.is_fragile || self.has_limits {
                continue;
            }
            for (id, message) in self.messages.iter().enumerate() {
                let is_due = message.acked != NEVER && message.len > 0 && !message.expires && !message.is_will;
                let has_come = session.got.get(&(id as u32)).is_some_and(|got| got.live > 0);
                if is_due && !has_come && self.is_owed(number, message) {
                    lost.push(format!("c{} did not get {}", session.client, self.describe(id as u32)));
                }
            }
            for topic in &self.topics {
                if let Some(id) = self.owed_value(number, topic)
                    && !session.values.contains_key(topic)
                {
                    lost.push(format!("c{} was not sent what is retained: {}", session.client, self.describe(id)));
                }
            }
        }
        lost.into_iter().for_each(|lost| self.fail(lost));
    }

    /// Whether the session was subscribed for certain, with a QoS that cannot be lost, all the time in which the message
    /// was handled.
    fn is_owed(&self, session: usize, message: &Message) -> bool {
        let filters = self.sessions[session].filters.keys().filter(|filter| matches(filter, message.topic));
        let is_certain = |filter: &&'static str| {
            let mut possible = self.possible(session, filter, message.sent, message.acked).into_iter();
            possible.all(|qos| qos.is_some_and(|qos| qos.min(message.qos) > 0))
        };
        message.qos > 0 && filters.into_iter().any(is_certain)
    }

    /// What is retained and owed to the session, which asked for it when there certainly was something. Not if that may be
    /// lost, since it may have been replaced by something of QoS 0 that nothing certainly replaced.
    fn owed_value(&self, session: usize, topic: &str) -> Option<u32> {
        let filters = self.sessions[session].filters.iter().filter(|(filter, _)| matches(filter, topic));
        for (_, changes) in filters {
            let mut changes = changes.iter().filter(|change| !change.is_refused);
            let (asked, is_certain) = match (changes.next(), changes.next()) {
                (Some(only), None) => (only.asked, only.answered != NEVER && only.qos.is_some_and(|qos| qos > 0)),
                _ => continue,
            };
            let is_replaced = |it: &Message| self.replaced_by(topic, it.over, asked).is_some();
            let lasts =
                |it: &Message| it.topic != topic || !it.retain || it.qos > 0 || it.sent == NEVER || is_replaced(it);
            let ends = |it: &Message| it.topic == topic && it.retain && (it.len == 0 || it.expires) && it.over >= asked;
            if is_certain && self.messages.iter().all(lasts) && !self.messages.iter().any(ends) {
                return self.must_have_value(topic, asked);
            }
        }
        None
    }
}

trait Answered {
    fn rposition_answered(self, at: Moment) -> Option<Change>;
}

impl<'a, I: Iterator<Item = &'a Change>> Answered for I {
    /// The last of the changes that was certainly made before `at`.
    fn rposition_answered(self, at: Moment) -> Option<Change> {
        self.filter(|change| change.answered < at).last().copied()
    }
}
