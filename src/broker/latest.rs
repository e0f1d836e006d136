//! What the last message's topic matched: a client often publishes to one topic again and again, and what it sends comes in bursts.

use std::rc::Rc;

use super::index::{FilterId, Index};

/// Bytes of a topic that is remembered: those of a house are no longer, and copying one costs less than looking it up.
const TOPIC_LEN_MAX: usize = 256;

/// The last topic and the filters that match it.
#[derive(Default)]
pub struct Latest {
    /// Empty, which no topic is, if there is none.
    topic: Rc<String>,
    /// `Index::changes` when the topic was looked up.
    changes: u64,
    matches: Vec<FilterId>,
}

impl Latest {
    /// Whether it is the last topic that was routed; a valid name, then.
    #[inline]
    pub fn is(&self, topic: &str) -> bool {
        // It may be the one of `topic_of`.
        let is_same = std::ptr::eq(topic, self.topic.as_str());
        !topic.is_empty() && (is_same || topic == self.topic.as_str())
    }

    /// The last topic, if the bytes are its.
    #[inline]
    pub fn topic_of(&self, bytes: &[u8]) -> Option<Rc<String>> {
        (!bytes.is_empty() && bytes == self.topic.as_bytes()).then(|| self.topic.clone())
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
        if !self.is(topic) {
            // The packet in hand holds it only if it came from below a mount point, and its whole topic is another.
            let latest = Rc::make_mut(&mut self.topic);
            latest.clear();
            if topic.len() <= TOPIC_LEN_MAX {
                latest.push_str(topic);
            }
        }
        self.matches.clear();
        index.matches_into(topic, guess, &mut self.matches);
    }
}
