//! The retained messages, ordered by topic. A filter's matches are found one after another from a topic on, so whoever
//! sends them needs no more memory than the last topic sent, and the store may change meanwhile. Wildcards skip: the
//! search jumps over what cannot match instead of looking at it.
//!
//! Invariant: one message a topic, never an empty payload. [MQTT-3.3.1-11] (3.1.1) [MQTT-3.3.1-7] (5.0)

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::access::Source;
use super::message::Message;
use super::peak::Peak;
use crate::time::Millis;

/// A retained message, compared by its topic alone.
struct Entry(Message);

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.0.topic_bytes()
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.0.topic_bytes().cmp(other.0.topic_bytes())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

#[derive(Default)]
pub struct Retained {
    entries: BTreeSet<Entry>,
    /// Messages that expire, earliest first.
    expiring: BTreeSet<(Millis, Box<str>)>,
    /// Who published a message, by its topic, while that is wanted.
    sources: BTreeMap<Box<str>, Source>,
    bytes: usize,
    bytes_peak: Peak,
    /// Of those, the broker's own.
    own: Share,
}

/// Some of the messages.
#[derive(Clone, Copy, Default)]
struct Share {
    count: usize,
    bytes: usize,
}

/// Whether a topic is one of the broker's own. Clients may publish to one kind of topics there.
fn is_own(topic: &[u8]) -> bool {
    topic.strip_prefix(b"$SYS/").is_some_and(|rest| !rest.starts_with(b"broker/connection/"))
}

/// So many bytes of messages that are gone are not looked after.
const BYTES_FEW: usize = 16 << 10;

/// What stands at a topic compared with a filter.
enum Step {
    Match,
    /// Nothing before this can match.
    Seek(Vec<u8>),
    /// Nothing after this can match.
    End,
}

impl Retained {
    /// Stores `message` in place of the topic's earlier one. [MQTT-3.3.1-5]
    pub fn insert(&mut self, message: Message) {
        self.bytes += message.content_len();
        if is_own(message.topic_bytes()) {
            self.own.count += 1;
            self.own.bytes += message.content_len();
        }
        if !self.sources.is_empty() {
            self.sources.remove(message.topic());
        }
        let expires_at = message.expires_at();
        let topic = (expires_at != Millis::NEVER).then(|| Box::from(message.topic()));
        if let Some(older) = self.entries.replace(Entry(message)) {
            self.forget(&older.0);
        }
        self.bytes_peak.note(self.bytes);
        if let Some(topic) = topic {
            self.expiring.insert((expires_at, topic));
        }
    }

    /// Removes the topic's message; says whether there was one.
    pub fn remove(&mut self, topic: &str) -> bool {
        let Some(entry) = self.entries.take(topic.as_bytes()) else { return false };
        self.forget(&entry.0);
        if !self.sources.is_empty() {
            self.sources.remove(topic);
        }
        true
    }

    /// A message is not kept any more.
    fn forget(&mut self, message: &Message) {
        self.bytes -= message.content_len();
        if is_own(message.topic_bytes()) {
            self.own.count -= 1;
            self.own.bytes -= message.content_len();
        }
        if message.expires_at() != Millis::NEVER {
            self.expiring.remove(&(message.expires_at(), message.topic().into()));
        }
    }

    /// The message of a topic.
    pub fn find(&self, topic: &str) -> Option<&Message> {
        self.entries.get(topic.as_bytes()).map(|entry| &entry.0)
    }

    /// Who published the message of a topic, if that is known.
    pub fn source(&self, topic: &str) -> Option<&Source> {
        self.sources.get(topic)
    }

    /// Remembers that until the topic has another message, or none.
    pub fn set_source(&mut self, topic: &str, source: Source) {
        self.sources.insert(topic.into(), source);
    }

    pub fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        self.sources.values_mut()
    }

    /// Nobody wants to know any more.
    pub fn forget_sources(&mut self) {
        self.sources = BTreeMap::new();
    }

    /// The first message behind topic `after`, from the beginning if nothing.
    pub fn first_after(&self, after: Option<&str>) -> Option<&Message> {
        let bound = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_bytes()));
        self.entries.range::<[u8], _>((bound, Bound::Unbounded)).next().map(|entry| &entry.0)
    }

    /// Gives back what sets keep though nothing is in them.
    pub fn shrink(&mut self) {
        if self.entries.is_empty() {
            (self.entries, self.expiring) = Default::default();
        } else if self.expiring.is_empty() {
            self.expiring = BTreeSet::new();
        }
        self.bytes_peak.begin_anew(self.bytes);
    }

    /// Most of what there was since room was last given back is gone.
    pub fn has_shrunk(&self) -> bool {
        self.bytes_peak.is_past(self.bytes, BYTES_FEW)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Topics, properties and payloads kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of clients' messages, and their bytes: without the broker's own.
    pub fn of_clients(&self) -> (usize, usize) {
        (self.len() - self.own.count, self.bytes - self.own.bytes)
    }

    /// Removes what has expired. [MQTT-3.3.2-5] (5.0)
    pub fn expire(&mut self, now: Millis) {
        while let Some((at, topic)) = self.expiring.first() {
            if *at > now {
                return;
            }
            let topic = topic.clone();
            self.remove(&topic);
        }
    }

    /// When the next message expires.
    pub fn next_expiry(&self) -> Option<Millis> {
        self.expiring.first().map(|(at, _)| *at)
    }

    /// The first message that `filter` matches behind topic `after` (from the beginning if nothing).
    /// Looks at no more topics than `budget`, which it lowers.
    pub fn next_match(&self, filter: &[u8], after: Option<&str>, budget: &mut u32) -> Found<'_> {
        let mut from: Vec<u8>;
        let mut bound = match after {
            None => Bound::Unbounded,
            Some(after) => Bound::Excluded(after.as_bytes()),
        };
        loop {
            let Some(entry) = self.entries.range::<[u8], _>((bound, Bound::Unbounded)).next() else {
                return Found::Nothing;
            };
            *budget = budget.saturating_sub(1);
            match step(filter, entry.0.topic_bytes()) {
                Step::Match => return Found::Match(&entry.0),
                Step::End => return Found::Nothing,
                Step::Seek(_) if *budget == 0 => return Found::NotYet(entry.0.topic()),
                Step::Seek(target) => {
                    debug_assert!(&target[..] > entry.0.topic_bytes());
                    from = target;
                    bound = Bound::Included(&from[..]);
                }
            }
        }
    }
}

/// What a search found.
pub enum Found<'a> {
    Match(&'a Message),
    /// Nothing more matches.
    Nothing,
    /// Nothing yet: the search goes on behind this topic.
    NotYet(&'a str),
}

/// Compares level by level; on a mismatch says where the next possible match is.
fn step(filter: &[u8], topic: &[u8]) -> Step {
    if topic.first() == Some(&b'$') && matches!(filter.first(), Some(b'+' | b'#')) {
        // [MQTT-4.7.2-1]; '%' follows '$', and nothing that begins with '$' is left then.
        return Step::Seek(vec![b'$' + 1]);
    }
    let mut at = 0;
    let mut has_plus = false;
    let mut levels = filter.split(|&byte| byte == b'/');
    let mut wanted = levels.next();
    loop {
        let level_is_open = wanted == Some(b"+");
        let end = topic[at..].iter().position(|&byte| byte == b'/').map_or(topic.len(), |length| at + length);
        match wanted {
            Some(b"#") => return Step::Match,
            Some(b"+") => has_plus = true,
            Some(level) if level == &topic[at..end] => {}
            Some(level) => return mismatch(&topic[..at], level, topic, has_plus),
            None => return mismatch(&topic[..at], &[], topic, has_plus),
        }
        wanted = levels.next();
        if end == topic.len() {
            return match wanted {
                None | Some(b"#") => Step::Match,
                // 'a-b' stands between 'a' and 'a/', and '+' may match it.
                Some(_) if level_is_open => Step::Seek([topic, b"\0"].concat()),
                Some(_) => Step::Seek([topic, b"/"].concat()),
            };
        }
        at = end + 1;
        if wanted.is_none() {
            return past(&topic[..at], has_plus);
        }
    }
}

/// The topic begins with `prefix`, as the filter wants it, but does not go on with `level`.
fn mismatch(prefix: &[u8], level: &[u8], topic: &[u8], has_plus: bool) -> Step {
    let mut target = [prefix, level].concat();
    if &target[..] > topic {
        return Step::Seek(target);
    }
    target.push(b'/');
    if &target[..] > topic {
        return Step::Seek(target);
    }
    if prefix.is_empty() {
        return Step::End;
    }
    past(prefix, has_plus)
}

/// Nothing more can match below `prefix`, which ends with '/'. '0' follows '/'.
fn past(prefix: &[u8], has_plus: bool) -> Step {
    if !has_plus {
        return Step::End;
    }
    let mut target = prefix.to_vec();
    target.pop();
    target.push(b'/' + 1);
    Step::Seek(target)
}

#[cfg(test)]
mod tests {
    use super::super::message::MessageParts;
    use super::*;
    use crate::codec::QoS;
    use crate::topic;

    fn message(topic: &str, expires_at: Millis) -> Message {
        let parts = MessageParts {
            qos: QoS::AtMostOnce,
            retain: true,
            expires_at,
            topic,
            properties: &[],
            payload: b"1",
            packet: None,
        };
        Message::new(&parts)
    }

    fn store(topics: &[&str]) -> Retained {
        let mut retained = Retained::default();
        topics.iter().for_each(|topic| retained.insert(message(topic, Millis::NEVER)));
        retained
    }

    fn all_matches(retained: &Retained, filter: &str) -> Vec<String> {
        let (mut found, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let mut budget = 3;
            match retained.next_match(filter.as_bytes(), after.as_deref(), &mut budget) {
                Found::Nothing => return found,
                Found::NotYet(topic) => after = Some(topic.to_string()),
                Found::Match(message) => {
                    after = Some(message.topic().to_string());
                    found.push(message.topic().to_string());
                }
            }
        }
    }

    #[test]
    fn finds_all_matches_in_order_and_nothing_else() {
        let mut topics: Vec<String> = Vec::new();
        let words = ["", "a", "b", "a-b", "a.c", "ab", "$SYS", "0", "~", "ä"];
        for one in words {
            topics.push(one.to_string());
            for two in words {
                topics.push(format!("{one}/{two}"));
                for three in ["", "a", "x-", "$"] {
                    topics.push(format!("{one}/{two}/{three}"));
                }
            }
        }
        topics.retain(|topic| topic::is_valid_name(topic));
        topics.sort();
        topics.dedup();
        let retained = store(&topics.iter().map(String::as_str).collect::<Vec<_>>());
        let levels = ["", "a", "a-b", "+", "$SYS", "ab", "zz"];
        let mut filters: Vec<String> = vec!["#".into()];
        for one in levels {
            filters.extend([one.to_string(), format!("{one}/#")]);
            for two in levels {
                filters.extend([format!("{one}/{two}"), format!("{one}/{two}/#"), format!("{one}/{two}/+")]);
                filters.extend(["a", "x-", ""].map(|three| format!("{one}/{two}/{three}")));
            }
        }
        for filter in filters.iter().filter(|filter| topic::is_valid_filter(filter)) {
            let expected: Vec<String> = topics.iter().filter(|topic| topic::matches(filter, topic)).cloned().collect();
            assert_eq!(all_matches(&retained, filter), expected, "{filter}");
        }
    }

    #[test]
    fn a_search_looks_at_no_more_topics_than_it_may() {
        let retained = store(&["a", "b", "c", "d", "e/x", "f"]);
        let mut budget = 3;
        let Found::NotYet(topic) = retained.next_match(b"+/x", None, &mut budget) else { panic!() };
        assert_eq!((topic, budget), ("c", 0));
        budget = 3;
        let Found::Match(message) = retained.next_match(b"+/x", Some("c"), &mut budget) else { panic!() };
        assert_eq!((message.topic(), budget), ("e/x", 1));
        // The last one it may look at may match.
        budget = 2;
        assert!(matches!(retained.next_match(b"+/x", Some("c"), &mut budget), Found::Match(..)) && budget == 0);
    }

    #[test]
    fn a_search_skips_what_cannot_match() {
        let mut topics: Vec<String> = (0..1000).map(|number| format!("b/{number}")).collect();
        topics.extend(["a/x", "c/x", "$SYS/1", "$SYS/2"].map(String::from));
        let retained = store(&topics.iter().map(String::as_str).collect::<Vec<_>>());
        for (filter, after, found, looked_at) in [
            ("+/x", Some("a/x"), Some("c/x"), 2),
            ("c/+", None, Some("c/x"), 2),
            ("b", None, None, 2),
            ("a/x", Some("a/x"), None, 1),
            ("#", None, Some("a/x"), 2),
        ] {
            let mut budget = 2000;
            let topic = match retained.next_match(filter.as_bytes(), after, &mut budget) {
                Found::Match(message) => Some(message.topic()),
                _ => None,
            };
            assert_eq!((topic, 2000 - budget), (found, looked_at), "{filter}");
        }
    }

    #[test]
    fn the_search_goes_on_where_it_was_though_the_store_changes() {
        let mut retained = store(&["a/1", "a/2", "a/3"]);
        let Found::Match(first) = retained.next_match(b"a/+", None, &mut 9) else { panic!() };
        let first = first.topic().to_string();
        retained.remove("a/1");
        retained.remove("a/2");
        retained.insert(message("a/25", Millis::NEVER));
        let Found::Match(next) = retained.next_match(b"a/+", Some(&first), &mut 9) else { panic!() };
        assert_eq!(next.topic(), "a/25");
    }

    #[test]
    fn the_brokers_own_messages_are_not_among_those_of_clients() {
        let mut retained = store(&["a", "$SYS/broker/version", "$SYS/broker/connection/c/state", "$SYSTEM"]);
        retained.insert(message("$SYS/broker/version", Millis::NEVER));
        assert_eq!((retained.len(), retained.of_clients()), (4, (3, 2 + 31 + 8)));
        assert!(retained.remove("$SYS/broker/version") && retained.remove("a"));
        assert_eq!((retained.len(), retained.of_clients()), (2, (2, 31 + 8)));
    }

    #[test]
    fn messages_expire_in_time_and_are_counted() {
        let mut retained = store(&["a"]);
        retained.insert(message("b", Millis(50)));
        retained.insert(message("b", Millis(70)));
        retained.insert(message("c", Millis(60)));
        assert_eq!((retained.len(), retained.next_expiry(), retained.bytes()), (3, Some(Millis(60)), 6));
        retained.expire(Millis(60));
        assert_eq!(all_matches(&retained, "#"), ["a", "b"]);
        retained.expire(Millis(70));
        assert_eq!((retained.len(), retained.next_expiry(), retained.bytes()), (1, None, 2));
        assert!(retained.remove("a") && !retained.remove("a") && retained.len() == 0);
    }
}
