//! What the last message's topic matched: a client often publishes to one topic again and again, and what it sends comes in bursts.

use super::index::{FilterId, Index};

/// Bytes of a topic that is remembered: those of a house are no longer, and copying one costs less than looking it up.
const TOPIC_LEN_MAX: usize = 256;

/// The last topic and the filters that match it.
#[derive(Default)]
pub struct Latest {
    /// Empty, which no topic is, if there is none.
    topic: Vec<u8>,
    /// `Index::changes` when the topic was looked up.
    changes: u64,
    matches: Vec<FilterId>,
}

impl Latest {
    /// Whether it is the last topic that was routed; a valid name, then.
    #[inline]
    pub fn is(&self, topic: &str) -> bool {
        !topic.is_empty() && self.topic == topic.as_bytes()
    }

    /// The filters that match a valid topic. `guess` is what `Index::fetch` said of it, or NONE.
    #[inline]
    pub fn matches(&mut self, index: &Index, topic: &str, guess: FilterId) -> &[FilterId] {
        if !self.is(topic) || self.changes != index.changes() {
            self.look_up(index, topic, guess);
        }
        &self.matches
    }

    fn look_up(&mut self, index: &Index, topic: &str, guess: FilterId) {
        self.changes = index.changes();
        self.topic.clear();
        if topic.len() <= TOPIC_LEN_MAX {
            self.topic.extend_from_slice(topic.as_bytes());
        }
        self.matches.clear();
        index.matches_into(topic, guess, &mut self.matches);
    }
}
