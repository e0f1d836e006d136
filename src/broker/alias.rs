//! Topic aliases of one 5.0 connection, both ways. They die with the link. [MQTT-3.3.2-7] (5.0)

use std::rc::Rc;

use super::table::Table;

/// Seen-before marks for topics that have no alias: a topic gets one the second time it comes.
const SEEN_SLOTS: usize = 64;

pub struct Aliases {
    /// The client's: topic number `n` stands at `n - 1`; empty = unknown.
    incoming: Vec<Rc<str>>,
    /// Ours: the topic with alias `n` stands at `n - 1`.
    outgoing: Vec<Box<[u8]>>,
    outgoing_by_topic: Table,
    seen: [u32; SEEN_SLOTS],
}

/// What is wrong with an incoming alias.
#[derive(Debug, PartialEq, Eq)]
pub enum AliasError {
    /// Above the maximum told in CONNACK. [MQTT-3.2.2-17] (5.0)
    TooHigh,
    /// An empty topic with an alias that stands for nothing yet.
    Unknown,
}

/// How to write the topic of an outgoing PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// With its name alone.
    Plain,
    /// With its name, and this alias from now on.
    Introduce(u16),
    /// With the alias instead of the name.
    Use(u16),
}

impl Default for Aliases {
    fn default() -> Aliases {
        Aliases {
            incoming: Vec::new(),
            outgoing: Vec::new(),
            outgoing_by_topic: Table::default(),
            seen: [0; SEEN_SLOTS],
        }
    }
}

impl Aliases {
    /// Remembers the alias of an incoming PUBLISH with a valid topic. `maximum` is the Topic Alias Maximum of CONNACK.
    pub fn set(&mut self, alias: u16, topic: &str, maximum: u16) -> Result<(), AliasError> {
        if alias == 0 || alias > maximum {
            return Err(AliasError::TooHigh);
        }
        let at = alias as usize - 1;
        if self.incoming.len() <= at {
            self.incoming.resize_with(at + 1, || Rc::from(""));
        }
        if *self.incoming[at] != *topic {
            self.incoming[at] = topic.into();
        }
        Ok(())
    }

    /// The topic of an incoming PUBLISH without one.
    pub fn resolve(&self, alias: u16, maximum: u16) -> Result<Rc<str>, AliasError> {
        if alias == 0 || alias > maximum {
            return Err(AliasError::TooHigh);
        }
        match self.incoming.get(alias as usize - 1) {
            Some(topic) if !topic.is_empty() => Ok(topic.clone()),
            _ => Err(AliasError::Unknown),
        }
    }

    /// Aliases go to topics that repeat, first come, first served. `hash` is the topic's; `maximum` is the Topic Alias Maximum
    /// of CONNECT, or our own limit. [MQTT-3.1.2-26] [MQTT-3.1.2-27] (5.0)
    pub fn outgoing(&mut self, topic: &[u8], hash: u32, maximum: u16) -> Outgoing {
        let known = &self.outgoing;
        if let Some(alias) = self.outgoing_by_topic.find(hash, |alias| *known[alias as usize - 1] == *topic) {
            return Outgoing::Use(alias as u16);
        }
        let seen = &mut self.seen[hash as usize % SEEN_SLOTS];
        if self.outgoing.len() == maximum as usize || std::mem::replace(seen, hash) != hash {
            return Outgoing::Plain;
        }
        self.outgoing.push(topic.into());
        let alias = self.outgoing.len() as u16;
        self.outgoing_by_topic.insert(hash, u32::from(alias));
        Outgoing::Introduce(alias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_go_to_topics_that_repeat_and_no_further_than_the_maximum() {
        let mut aliases = Aliases::default();
        let mut outgoing = |topic: &str| aliases.outgoing(topic.as_bytes(), u32::from(topic.as_bytes()[0]), 2);
        assert_eq!(outgoing("a"), Outgoing::Plain);
        assert_eq!(outgoing("a"), Outgoing::Introduce(1));
        assert_eq!(outgoing("a"), Outgoing::Use(1));
        assert_eq!(outgoing("b"), Outgoing::Plain);
        assert_eq!(outgoing("b"), Outgoing::Introduce(2));
        assert_eq!(outgoing("b"), Outgoing::Use(2));
        assert!((0..5).all(|_| outgoing("c") == Outgoing::Plain));
        // The same hash does not make it the same topic.
        assert_eq!((outgoing("ax"), outgoing("a")), (Outgoing::Plain, Outgoing::Use(1)));
        let mut none = Aliases::default();
        assert!((0..5).all(|_| none.outgoing(b"a", 1, 0) == Outgoing::Plain));
    }

    #[test]
    fn incoming_aliases_are_bounded_and_may_be_moved() {
        let mut aliases = Aliases::default();
        assert_eq!(aliases.resolve(1, 2), Err(AliasError::Unknown));
        assert_eq!(aliases.set(2, "x", 2), Ok(()));
        assert_eq!(aliases.resolve(2, 2), Ok("x".into()));
        assert_eq!(aliases.set(2, "y", 2), Ok(()));
        assert_eq!(aliases.resolve(2, 2), Ok("y".into()));
        assert_eq!(aliases.resolve(1, 2), Err(AliasError::Unknown));
        assert_eq!(aliases.set(3, "z", 2), Err(AliasError::TooHigh));
        assert_eq!(aliases.resolve(3, 2), Err(AliasError::TooHigh));
        assert_eq!(aliases.set(0, "z", 2), Err(AliasError::TooHigh));
        assert_eq!(aliases.resolve(0, 2), Err(AliasError::TooHigh));
    }
}
