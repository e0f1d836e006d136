//! The subscription index: which sessions want a topic. Filters without wildcards are found by one hash of the whole topic;
//! filters with wildcards live in a trie that is walked level by level, so a publish costs its depth and its matches,
//! whatever the number of subscriptions. It stores each distinct filter once and knows sessions by number only.
//!
//! Invariants: a filter exists while somebody subscribes to it; a trie node exists while a filter ends at or below it.
//! Matching visits a trie node at most once, and filters have at most `LEVELS_MAX` levels, so recursion is bounded.

use slab::Slab;

use super::hash::Seed;
use super::peak::Peak;
use super::table::Table;
use super::text::Text;
use crate::codec::QoS;
use crate::config::TOPIC_LEVELS_MAX;
use crate::topic::{ShareFilter, has_wildcard};

/// Levels of a filter: Mosquitto's limit of 200 separators.
pub const LEVELS_MAX: usize = TOPIC_LEVELS_MAX as usize;

/// Topics fetched at a time.
pub const FETCH_MAX: usize = 32;

/// The room of so many filters that are gone, some dozen kilobytes, is not looked after.
const FILTERS_FEW: usize = 128;

const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

/// A filter somebody subscribes to.
pub type FilterId = u32;

/// One `$share/NAME/FILTER`: its place among the shares, and above that a number that makes the id differ from that of
/// the one that had the place before.
pub type ShareId = u32;

/// Shares at a time: each takes a hundred bytes and more.
pub const SHARES_MAX: usize = 1 << SHARE_PLACE_BITS;

const SHARE_PLACE_BITS: u32 = 20;
/// An id has 31 bits.
const SHARE_GENERATIONS: u32 = 1 << (31 - SHARE_PLACE_BITS);

fn share_place(id: ShareId) -> usize {
    id as usize % SHARES_MAX
}

/// One session's subscription to a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    pub session: u32,
    /// 0 = none.
    pub subscription_id: u32,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
}

/// A session's record of one subscription: the filter, and the share it takes part in or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionKey {
    pub filter: FilterId,
    share: u32,
}

impl SubscriptionKey {
    /// The share of a shared subscription.
    pub fn share_id(&self) -> Option<ShareId> {
        (self.share != NONE).then_some(self.share)
    }

    /// Another one for each filter and share; that without a share is the first of its filter.
    pub fn number(&self) -> u64 {
        (u64::from(self.filter) << 32) | u64::from(self.share.wrapping_add(1))
    }

    pub fn of_number(number: u64) -> SubscriptionKey {
        SubscriptionKey { filter: (number >> 32) as FilterId, share: (number as u32).wrapping_sub(1) }
    }
}

/// The members of one `$share/NAME/FILTER`, and whose turn it is.
#[derive(Debug)]
pub struct Share {
    id: ShareId,
    name: Box<str>,
    filter: FilterId,
    /// The next share of the filter, or NONE.
    next: ShareId,
    pub members: Vec<Subscriber>,
    pub turn: usize,
}

#[derive(Default)]
enum Subscribers {
    #[default]
    Nobody,
    One(Subscriber),
    Many(Box<Crowd>),
}

/// Two and more subscribers, behind one pointer: most filters have one, and there may be a hundred thousand of those.
struct Crowd(Vec<Subscriber>);

impl Subscribers {
    fn as_slice(&self) -> &[Subscriber] {
        match self {
            Subscribers::Nobody => &[],
            Subscribers::One(subscriber) => std::slice::from_ref(subscriber),
            Subscribers::Many(crowd) => &crowd.0,
        }
    }

    /// Adds or replaces; true if the session was not there.
    fn put(&mut self, subscriber: Subscriber) -> bool {
        match self {
            Subscribers::Nobody => *self = Subscribers::One(subscriber),
            Subscribers::One(old) if old.session == subscriber.session => {
                *old = subscriber;
                return false;
            }
            Subscribers::One(old) => *self = Subscribers::Many(Box::new(Crowd(vec![*old, subscriber]))),
            Subscribers::Many(crowd) => match crowd.0.iter_mut().find(|old| old.session == subscriber.session) {
                Some(old) => {
                    *old = subscriber;
                    return false;
                }
                None => crowd.0.push(subscriber),
            },
        }
        true
    }

    fn remove(&mut self, session: u32) {
        match self {
            Subscribers::One(old) if old.session == session => *self = Subscribers::Nobody,
            Subscribers::Many(crowd) => {
                crowd.0.retain(|old| old.session != session);
                if crowd.0.capacity() > 4 * crowd.0.len() {
                    crowd.0.shrink_to(2 * crowd.0.len());
                }
                if let [last] = crowd.0[..] {
                    *self = Subscribers::One(last);
                }
            }
            _ => {}
        }
    }
}

struct Filter {
    /// Most filters of a house are no longer than this, and the whole entry takes 64 bytes.
    text: Text<38>,
    subscribers: Subscribers,
    /// The first share of this filter, or NONE; they are chained.
    first_share: ShareId,
    /// Where the filter ends in the trie; NONE for filters without wildcards.
    node: u32,
}

struct Node {
    parent: u32,
    level: Text<22>,
    /// The child for `+`.
    plus: u32,
    /// The filter that ends with `#` below this node.
    number_sign: u32,
    /// The filter that ends here.
    filter: u32,
    /// Children, `plus` included.
    children: u32,
}

impl Node {
    fn new(parent: u32, level: &str) -> Node {
        Node { parent, level: Text::new(level.as_bytes()), plus: NONE, number_sign: NONE, filter: NONE, children: 0 }
    }

    fn is_unused(&self) -> bool {
        self.children == 0 && self.filter == NONE && self.number_sign == NONE
    }
}

pub struct Index {
    seed: Seed,
    filters: Slab<Filter>,
    exact: Table,
    nodes: Slab<Node>,
    children: Table,
    shares: Slab<Share>,
    share_of: Table,
    share_generation: u32,
    subscription_count: usize,
    /// Of those, the ones that are not shared.
    plain_count: usize,
    /// Filters below `$SYS`.
    sys_filter_count: usize,
    filters_peak: Peak,
    changes: u64,
}

impl Index {
    pub fn new(seed: Seed) -> Index {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(NONE, ""));
        Index {
            seed,
            filters: Slab::new(),
            exact: Table::default(),
            nodes,
            children: Table::default(),
            shares: Slab::new(),
            share_of: Table::default(),
            share_generation: 0,
            subscription_count: 0,
            plain_count: 0,
            sys_filter_count: 0,
            filters_peak: Peak::default(),
            changes: 0,
        }
    }

    /// How often a filter came or went: until it is another number, a topic matches the same filters.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Subscriptions of all sessions, shared ones included.
    pub fn subscription_count(&self) -> usize {
        self.subscription_count
    }

    /// Subscriptions of all sessions, shared ones not included.
    pub fn plain_count(&self) -> usize {
        self.plain_count
    }

    /// Whether anybody subscribes below `$SYS`.
    pub fn has_sys_filters(&self) -> bool {
        self.sys_filter_count > 0
    }

    /// All filters somebody subscribes to, in no order.
    pub fn filters(&self) -> impl Iterator<Item = (FilterId, &[u8])> {
        self.filters.iter().map(|(id, filter)| (id as FilterId, filter.text.as_bytes()))
    }

    pub fn filter_count(&self) -> usize {
        self.filters.len()
    }

    /// The shares of a filter: their names and members.
    fn shares(&self, filter: FilterId) -> impl Iterator<Item = &Share> {
        let mut id = self.filters[filter as usize].first_share;
        std::iter::from_fn(move || {
            let share = (id != NONE).then(|| &self.shares[share_place(id)])?;
            id = share.next;
            Some(share)
        })
    }

    /// Where a filter is listed that has number `from` or, if nobody subscribes to that, the next one that somebody subscribes
    /// to; nothing if there is none. Looks at no more than `budget` numbers, which it lowers; then at which to go on.
    pub fn next_filter(&self, from: usize, budget: &mut usize) -> Result<Option<FilterId>, usize> {
        for number in from..self.filters.capacity() {
            if *budget == 0 {
                return Err(number);
            }
            *budget -= 1;
            if self.filters.contains(number) {
                return Ok(Some(number as FilterId));
            }
        }
        Ok(None)
    }

    /// Everybody who subscribes to a filter, with the share if through one.
    pub fn members(&self, filter: FilterId) -> impl Iterator<Item = (Option<ShareId>, &Subscriber)> {
        let plain = self.subscribers(filter).iter().map(|subscriber| (None, subscriber));
        let shared = self.shares(filter).flat_map(|share| share.members.iter().map(|it| (Some(share.id), it)));
        plain.chain(shared)
    }

    /// The name of a share, if somebody is a member.
    pub fn share_name(&self, id: ShareId) -> Option<&str> {
        self.shares.get(share_place(id)).filter(|share| share.id == id).map(|share| &*share.name)
    }

    pub fn filter_text(&self, filter: FilterId) -> &[u8] {
        self.filters[filter as usize].text.as_bytes()
    }

    /// The filter of a subscription as it was asked for.
    pub fn full_filter(&self, key: SubscriptionKey) -> String {
        match key.share_id().and_then(|share| self.share_filter(share)) {
            Some(full) => full,
            None => String::from_utf8_lossy(self.filter_text(key.filter)).into_owned(),
        }
    }

    /// `$share/NAME/FILTER`, if somebody is a member.
    pub fn share_filter(&self, id: ShareId) -> Option<String> {
        let share = self.shares.get(share_place(id)).filter(|share| share.id == id)?;
        Some(format!("$share/{}/{}", share.name, String::from_utf8_lossy(self.filter_text(share.filter))))
    }

    /// Adds the subscription, or replaces the one the session has for the same filter; says whether it is new.
    /// [MQTT-3.8.4-3]
    pub fn subscribe(&mut self, filter: ShareFilter, subscriber: Subscriber) -> (SubscriptionKey, bool) {
        let id = self.find_filter(filter.filter).unwrap_or_else(|| self.add_filter(filter.filter));
        let Some(name) = filter.share_name else {
            let is_new = self.filters[id as usize].subscribers.put(subscriber);
            self.subscription_count += is_new as usize;
            self.plain_count += is_new as usize;
            return (SubscriptionKey { filter: id, share: NONE }, is_new);
        };
        let share = self.find_share(id, name).unwrap_or_else(|| self.add_share(id, name));
        let members = &mut self.shares[share_place(share)].members;
        let is_new = match members.iter_mut().find(|member| member.session == subscriber.session) {
            Some(member) => {
                *member = subscriber;
                false
            }
            None => {
                members.push(subscriber);
                true
            }
        };
        self.subscription_count += is_new as usize;
        (SubscriptionKey { filter: id, share }, is_new)
    }

    /// The key of a subscription with this filter, if anybody has one. Filters compare byte for byte. [MQTT-3.10.4-1]
    pub fn find(&self, filter: ShareFilter) -> Option<SubscriptionKey> {
        let id = self.find_filter(filter.filter)?;
        let share = match filter.share_name {
            None => NONE,
            Some(name) => self.find_share(id, name)?,
        };
        Some(SubscriptionKey { filter: id, share })
    }

    /// Removes a subscription the session has.
    pub fn unsubscribe(&mut self, key: SubscriptionKey, session: u32) {
        self.subscription_count -= 1;
        if key.share == NONE {
            self.plain_count -= 1;
            self.filters[key.filter as usize].subscribers.remove(session);
        } else {
            let share = &mut self.shares[share_place(key.share)];
            share.members.retain(|member| member.session != session);
            if share.members.is_empty() {
                self.remove_share(key.share);
            }
        }
        let filter = &self.filters[key.filter as usize];
        if filter.subscribers.as_slice().is_empty() && filter.first_share == NONE {
            self.remove_filter(key.filter);
        }
    }

    /// Appends the filters that match `topic`, each once. `guess` is what `fetch` said of the topic, or NONE.
    /// [MQTT-4.7.2-1]
    pub fn matches_into(&self, topic: &str, guess: FilterId, matches: &mut Vec<FilterId>) {
        match self.filters.get(guess as usize) {
            Some(filter) if filter.node == NONE && filter.text.as_bytes() == topic.as_bytes() => matches.push(guess),
            _ => matches.extend(self.find_exact(topic)),
        }
        let root = &self.nodes[ROOT as usize];
        if root.children > 0 || root.number_sign != NONE {
            let (level, rest) = split_level(topic);
            if topic.starts_with('$') {
                if let Some(child) = self.find_child(ROOT, level) {
                    self.walk(child, rest, matches);
                }
            } else {
                self.walk(ROOT, Some(topic), matches);
            }
        }
    }

    /// Whether looking a topic up means waiting for memory: about what the caches of a small processor hold is exceeded.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.exact.len() > 8192
    }

    /// Fetches what `matches_into` will want of these topics, and says which filters without wildcards they probably match.
    /// Taken one by one, each lookup waits for memory twice; taken together, they wait at the same time.
    pub fn fetch(&self, topics: &[&[u8]]) -> [FilterId; FETCH_MAX] {
        if self.exact.len() == 0 {
            return [NONE; FETCH_MAX];
        }
        // One step for all before the next: a processor goes on past some waits, but not past the work between them.
        let (mut hashes, mut guesses, mut seen) = ([0; FETCH_MAX], [NONE; FETCH_MAX], 0);
        let hashes = &mut hashes[..topics.len()];
        hashes.iter_mut().zip(topics).for_each(|(hash, topic)| *hash = self.seed.hash(NONE, topic));
        hashes.iter().for_each(|&hash| seen ^= self.exact.peek(hash));
        for (guess, &hash) in guesses.iter_mut().zip(hashes.iter()) {
            *guess = self.exact.find(hash, |_| true).unwrap_or(NONE);
        }
        for filter in guesses.iter().filter_map(|&guess| self.filters.get(guess as usize)) {
            // Its beginning and its end: most filters lie in two lines of the cache.
            seen ^= filter.node ^ u32::from(matches!(filter.subscribers, Subscribers::Nobody));
        }
        // Reading is all that was wanted of these.
        std::hint::black_box(seen);
        guesses
    }

    pub fn subscribers(&self, filter: FilterId) -> &[Subscriber] {
        self.filters[filter as usize].subscribers.as_slice()
    }

    pub fn has_shares(&self, filter: FilterId) -> bool {
        self.filters[filter as usize].first_share != NONE
    }

    /// Calls `choose` with each share of `filter`.
    pub fn for_each_share(&mut self, filter: FilterId, mut choose: impl FnMut(ShareId, &mut Share)) {
        let mut id = self.filters[filter as usize].first_share;
        while id != NONE {
            let share = &mut self.shares[share_place(id)];
            let next = share.next;
            choose(id, share);
            id = next;
        }
    }

    /// A share somebody is a member of.
    pub fn share_mut(&mut self, share: ShareId) -> Option<&mut Share> {
        self.shares.get_mut(share_place(share)).filter(|it| it.id == share)
    }

    pub fn share_count(&self) -> usize {
        self.shares.len()
    }

    /// Gives back room that subscriptions of the past left behind.
    pub fn shrink(&mut self) {
        self.filters.shrink_to_fit();
        self.nodes.shrink_to_fit();
        self.shares.shrink_to_fit();
        self.exact.shrink();
        self.children.shrink();
        self.share_of.shrink();
        self.filters_peak.begin_anew(self.filters.len());
    }

    /// Most of the filters there were since room was last given back are gone.
    pub fn has_shrunk(&self) -> bool {
        self.filters_peak.is_past(self.filters.len(), FILTERS_FEW)
    }

    pub fn subscriber(&self, key: SubscriptionKey, session: u32) -> Option<&Subscriber> {
        let all = match key.share_id() {
            Some(share) => &self.shares.get(share_place(share)).filter(|it| it.id == share)?.members[..],
            None => self.filters.get(key.filter as usize)?.subscribers.as_slice(),
        };
        all.iter().find(|subscriber| subscriber.session == session)
    }

    fn walk(&self, node: u32, rest: Option<&str>, matches: &mut Vec<FilterId>) {
        let here = &self.nodes[node as usize];
        if here.number_sign != NONE {
            matches.push(here.number_sign);
        }
        let Some(rest) = rest else {
            if here.filter != NONE {
                matches.push(here.filter);
            }
            return;
        };
        if here.children == 0 {
            return;
        }
        let (level, below) = split_level(rest);
        if here.plus != NONE {
            self.walk(here.plus, below, matches);
        }
        if here.children > (here.plus != NONE) as u32
            && let Some(child) = self.find_child(node, level)
        {
            self.walk(child, below, matches);
        }
    }

    fn find_exact(&self, text: &str) -> Option<FilterId> {
        if self.exact.len() == 0 {
            return None;
        }
        self.exact.find(self.seed.hash(NONE, text.as_bytes()), |id| self.filter_text(id) == text.as_bytes())
    }

    fn find_child(&self, parent: u32, level: &str) -> Option<u32> {
        self.children.find(self.seed.hash(parent, level.as_bytes()), |id| {
            let node = &self.nodes[id as usize];
            node.parent == parent && node.level.as_bytes() == level.as_bytes()
        })
    }

    fn find_filter(&self, text: &str) -> Option<FilterId> {
        if !has_wildcard(text) {
            return self.find_exact(text);
        }
        let mut node = ROOT;
        for level in text.split('/') {
            let here = &self.nodes[node as usize];
            node = match level {
                "#" => return (here.number_sign != NONE).then_some(here.number_sign),
                "+" if here.plus == NONE => return None,
                "+" => here.plus,
                _ => self.find_child(node, level)?,
            };
        }
        let filter = self.nodes[node as usize].filter;
        (filter != NONE).then_some(filter)
    }

    fn add_filter(&mut self, text: &str) -> FilterId {
        self.changes += 1;
        let filter = Filter {
            text: Text::new(text.as_bytes()),
            subscribers: Subscribers::Nobody,
            first_share: NONE,
            node: NONE,
        };
        let id = self.filters.insert(filter) as FilterId;
        self.filters_peak.note(self.filters.len());
        self.sys_filter_count += text.starts_with("$SYS/") as usize;
        if !has_wildcard(text) {
            self.exact.insert(self.seed.hash(NONE, text.as_bytes()), id);
            return id;
        }
        let mut node = ROOT;
        for level in text.split('/') {
            node = match level {
                "#" => {
                    self.nodes[node as usize].number_sign = id;
                    self.filters[id as usize].node = node;
                    return id;
                }
                "+" if self.nodes[node as usize].plus != NONE => self.nodes[node as usize].plus,
                "+" => {
                    let child = self.add_node(node, level);
                    self.nodes[node as usize].plus = child;
                    child
                }
                _ => match self.find_child(node, level) {
                    Some(child) => child,
                    None => {
                        let child = self.add_node(node, level);
                        self.children.insert(self.seed.hash(node, level.as_bytes()), child);
                        child
                    }
                },
            };
        }
        self.nodes[node as usize].filter = id;
        self.filters[id as usize].node = node;
        id
    }

    fn add_node(&mut self, parent: u32, level: &str) -> u32 {
        self.nodes[parent as usize].children += 1;
        self.nodes.insert(Node::new(parent, level)) as u32
    }

    fn remove_filter(&mut self, id: FilterId) {
        self.changes += 1;
        let filter = self.filters.remove(id as usize);
        self.sys_filter_count -= filter.text.as_bytes().starts_with(b"$SYS/") as usize;
        if filter.node == NONE {
            self.exact.remove(self.seed.hash(NONE, filter.text.as_bytes()), id);
            return;
        }
        let node = &mut self.nodes[filter.node as usize];
        if node.filter == id {
            node.filter = NONE;
        } else {
            node.number_sign = NONE;
        }
        let mut node = filter.node;
        while node != ROOT && self.nodes[node as usize].is_unused() {
            let Node { parent, level, .. } = self.nodes.remove(node as usize);
            let above = &mut self.nodes[parent as usize];
            above.children -= 1;
            if above.plus == node {
                above.plus = NONE;
            } else {
                self.children.remove(self.seed.hash(parent, level.as_bytes()), node);
            }
            node = parent;
        }
    }

    fn find_share(&self, filter: FilterId, name: &str) -> Option<u32> {
        let place = self.share_of.find(self.seed.hash(filter, name.as_bytes()), |place| {
            let share = &self.shares[place as usize];
            share.filter == filter && *share.name == *name
        })?;
        Some(self.shares[place as usize].id)
    }

    fn add_share(&mut self, filter: FilterId, name: &str) -> ShareId {
        let place = self.shares.vacant_key();
        debug_assert!(place < SHARES_MAX);
        self.share_generation = (self.share_generation + 1) % SHARE_GENERATIONS;
        let id = place as ShareId | self.share_generation << SHARE_PLACE_BITS;
        let next = std::mem::replace(&mut self.filters[filter as usize].first_share, id);
        self.shares.insert(Share { id, name: name.into(), filter, next, members: Vec::new(), turn: 0 });
        self.share_of.insert(self.seed.hash(filter, name.as_bytes()), place as u32);
        id
    }

    fn remove_share(&mut self, id: ShareId) {
        let share = self.shares.remove(share_place(id));
        self.share_of.remove(self.seed.hash(share.filter, share.name.as_bytes()), share_place(id) as u32);
        let mut at = self.filters[share.filter as usize].first_share;
        if at == id {
            self.filters[share.filter as usize].first_share = share.next;
            return;
        }
        while at != NONE {
            let before = &mut self.shares[share_place(at)];
            if before.next == id {
                before.next = share.next;
                return;
            }
            at = before.next;
        }
    }
}

fn split_level(topic: &str) -> (&str, Option<&str>) {
    match topic.bytes().position(|byte| byte == b'/') {
        Some(at) => (&topic[..at], Some(&topic[at + 1..])),
        None => (topic, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic;

    fn subscriber(session: u32) -> Subscriber {
        Subscriber { session, subscription_id: 0, qos: QoS::AtMostOnce, no_local: false, retain_as_published: false }
    }

    fn matched(index: &Index, topic: &str) -> Vec<String> {
        let mut ids = Vec::new();
        index.matches_into(topic, NONE, &mut ids);
        let mut texts: Vec<String> =
            ids.iter().map(|&id| String::from_utf8(index.filter_text(id).to_vec()).unwrap()).collect();
        texts.sort();
        // A guess, right or wrong, changes nothing.
        let guess = index.fetch(&[topic.as_bytes()])[0];
        for guess in [guess, 0, 1, 2, 3, 1000] {
            let mut again = Vec::new();
            index.matches_into(topic, guess, &mut again);
            assert_eq!(again, ids, "{topic} {guess}");
        }
        texts
    }

    /// Every filter and topic of up to four levels over a small alphabet, against the plain definition, while
    /// subscriptions come and go.
    #[test]
    fn agrees_with_the_plain_definition() {
        let mut index = Index::new(Seed::new(1));
        let mut random = 7u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let mut held: Vec<(SubscriptionKey, String, u32)> = Vec::new();
        for step in 0..6000 {
            if next(3) == 0 && !held.is_empty() {
                let (key, _, session) = held.swap_remove(next(held.len()));
                index.unsubscribe(key, session);
            } else {
                let levels: Vec<&str> =
                    (0..1 + next(4)).map(|_| ["a", "b", "", "+", "$x", "+", "ab"][next(7)]).collect();
                let mut text = levels.join("/");
                match next(4) {
                    0 => text = if text.is_empty() { "#".into() } else { format!("{text}/#") },
                    _ if text.is_empty() => continue,
                    _ => {}
                }
                let session = next(5) as u32;
                let (key, is_new) = index.subscribe(ShareFilter::parse(&text).unwrap(), subscriber(session));
                assert_eq!(is_new, !held.iter().any(|(old, _, other)| (*old, *other) == (key, session)));
                assert_eq!(index.find(ShareFilter::parse(&text).unwrap()), Some(key));
                if is_new {
                    held.push((key, text, session));
                }
            }
            assert_eq!(index.subscription_count(), held.len());
            if step % 10 == 0 {
                let levels: Vec<&str> = (0..1 + next(4)).map(|_| ["a", "b", "", "$x", "ab"][next(5)]).collect();
                let topic = levels.join("/");
                let mut expected: Vec<String> = held
                    .iter()
                    .filter(|(_, text, _)| topic::matches(text, &topic))
                    .map(|held| held.1.clone())
                    .collect();
                expected.sort();
                expected.dedup();
                assert_eq!(matched(&index, &topic), expected, "{topic}");
            }
        }
        for (key, _, session) in held.drain(..) {
            index.unsubscribe(key, session);
        }
        assert_eq!((index.filters.len(), index.nodes.len(), index.children.len(), index.exact.len()), (0, 1, 0, 0));
    }

    #[test]
    fn shares_of_one_filter_are_separate_from_each_other_and_from_plain_subscribers() {
        let mut index = Index::new(Seed::new(2));
        let parse = |text| ShareFilter::parse(text).unwrap();
        let (plain, _) = index.subscribe(parse("a/+"), subscriber(1));
        let (one, _) = index.subscribe(parse("$share/g/a/+"), subscriber(1));
        let (two, _) = index.subscribe(parse("$share/h/a/+"), subscriber(1));
        let (again, is_new) = index.subscribe(parse("$share/g/a/+"), subscriber(2));
        assert!(is_new && again == one && one != two && plain.filter == one.filter);
        assert_eq!((index.share_count(), index.subscription_count()), (2, 4));
        let mut sizes = Vec::new();
        index.for_each_share(plain.filter, |_, share| sizes.push(share.members.len()));
        assert_eq!((index.subscribers(plain.filter).len(), sizes), (1, vec![1, 2]));
        index.unsubscribe(plain, 1);
        index.unsubscribe(one, 1);
        index.unsubscribe(two, 1);
        assert_eq!(matched(&index, "a/b"), ["a/+"]);
        assert_eq!(index.find(parse("$share/h/a/+")), None);
        index.unsubscribe(one, 2);
        assert_eq!((matched(&index, "a/b").len(), index.share_of.len(), index.filters.len()), (0, 0, 0));
    }

    #[test]
    fn a_share_in_the_place_of_another_has_an_id_of_its_own() {
        let mut index = Index::new(Seed::new(3));
        let mut ids: Vec<ShareId> = Vec::new();
        for _ in 0..5000 {
            let (key, _) = index.subscribe(ShareFilter::parse("$share/g/a").unwrap(), subscriber(1));
            let id = key.share_id().unwrap();
            assert!(id >> 31 == 0 && index.share_mut(id).is_some() && index.subscriber(key, 1).is_some());
            index.unsubscribe(key, 1);
            assert!(index.share_mut(id).is_none() && index.subscriber(key, 1).is_none());
            ids.push(id);
        }
        // Messages that wait under an old id find another share there only after two thousand came and went.
        let mut last: Vec<ShareId> = ids[..2048].to_vec();
        last.sort();
        last.dedup();
        assert_eq!((last.len(), ids[2048]), (2048, ids[0]));
    }
}
