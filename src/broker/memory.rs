//! The ceiling over all memory: what is given up, in which order, as it comes nearer. How much is in use is told from outside;
//! here is what follows. Memory grows only by what clients send, and each step stops one way in which it does:
//!
//! ```text
//! from 75 %    publishers wait for every subscriber that cannot take their message at once, and outputs are kept short
//! from 85 %    no QoS 0 message is queued, and those that are go
//! from 95 %    every queue counts as full: its policy decides; retained messages of new topics are refused; who holds the most in an
//!              unfinished packet is disconnected, if that is a sixteenth of the limit
//! from 100 %   new sessions and new subscriptions are refused, and unfinished packets from 16 kB on go
//! ```
//!
//! What is left is what a connection may hold whatever the level: some 16 kB of input, or 1 kB from a tenth beyond the limit
//! on, and some 32 kB of output. How many there may be is for `global_max_connections` to say, and for the limit of descriptors.

use super::Broker;
use super::close::CloseReason;
use super::link::{Link, LinkId};
use super::peak::Peak;
use crate::codec::QoS;
use crate::time::Millis;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Plenty,
    /// Publishers are slowed down.
    Slow,
    /// QoS 0 is not queued.
    NoQos0,
    /// Queues overflow.
    Overflow,
    /// Nothing new is let in.
    Full,
}

/// Percent of the limit at which each level begins.
const BEGINNINGS: [(Level, u64); 4] =
    [(Level::Full, 100), (Level::Overflow, 95), (Level::NoQos0, 85), (Level::Slow, SLOW_PERCENT)];
const SLOW_PERCENT: u64 = 75;
/// So many bytes that were freed are left to the allocator, which has use for them.
const FREED_FEW: usize = 256 << 10;
/// A level ends so many percent below its beginning, so that it does not come and go.
const SLACK: u64 = 5;
/// Output of one link at which messages wait in its queue while memory is short: what a slow link takes in a second.
const SHORT_OUTPUT: usize = 16 << 10;

/// Unfinished packets shorter than this are left alone, whatever the level: clients on slow lines would otherwise go before what
/// fills memory does.
const INPUT_LARGE: usize = 16 << 10;
/// Unless a thousand of those are what fills it: then it is more than a tenth beyond the limit, and only these are left alone.
const INPUT_SMALL: usize = 1 << 10;

pub struct Memory {
    /// Bytes; 0 = no limit.
    limit: u64,
    /// Below so many bytes in use there is plenty if there was.
    slow_from: usize,
    level: Level,
    /// Bytes in use when they were last told, and the most that were ever told.
    used: usize,
    used_max: usize,
    /// The most since memory was last given back.
    peak: Peak,
    /// The worst level that was logged since there was plenty.
    logged: Level,
    /// Output of one link at which messages wait in its queue.
    pub output_high: usize,
    /// Answers to one client that does not read them at which it is not listened to any more.
    pub answers_max: usize,
}

/// So many percent of a limit.
fn part(limit: u64, percent: u64) -> u64 {
    limit / 100 * percent
}

/// Where memory begins to be short, or the whole address space if that is less.
fn slow_from(limit: u64) -> usize {
    usize::try_from(part(limit, SLOW_PERCENT)).unwrap_or(usize::MAX)
}

impl Memory {
    pub fn new(limit: u64) -> Memory {
        Memory {
            limit,
            slow_from: slow_from(limit),
            level: Level::Plenty,
            used: 0,
            used_max: 0,
            peak: Peak::default(),
            logged: Level::Plenty,
            output_high: Link::OUTPUT_HIGH,
            answers_max: Link::OUTPUT_MAX,
        }
    }

    /// Bytes; 0 = no limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn used(&self) -> usize {
        self.used
    }

    pub fn used_max(&self) -> usize {
        self.used_max
    }

    /// Most of what was in use since memory was last given back is not any more, whatever it was.
    #[inline]
    pub fn has_shrunk(&self) -> bool {
        self.peak.is_past(self.used, FREED_FEW)
    }

    /// Memory is given back.
    pub fn begin_anew(&mut self) {
        self.peak.begin_anew(self.used);
    }

    #[inline]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The level follows when it is next told what is in use; without a limit there is none.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
        self.slow_from = slow_from(limit);
        if limit == 0 {
            *self = Memory::new(0);
        }
    }

    /// The level for so many bytes in use.
    fn level_at(&self, used: u64) -> Level {
        let reached = |slack: u64| {
            let begins = |percent: u64| used >= part(self.limit, percent - slack);
            BEGINNINGS.iter().find(|(_, percent)| begins(*percent)).map_or(Level::Plenty, |(level, _)| *level)
        };
        // Up at the beginning, down below it.
        reached(0).max(self.level.min(reached(SLACK)))
    }
}

impl Broker {
    /// How many bytes the process has allocated. To be called before more input is handled.
    #[inline]
    pub fn set_memory_used(&mut self, used: usize) {
        let memory = &mut self.clients.memory;
        memory.used = used;
        memory.used_max = memory.used_max.max(used);
        memory.peak.note(used);
        if (used >= memory.slow_from || memory.level != Level::Plenty) && memory.limit != 0 {
            let level = memory.level_at(used as u64);
            if level != memory.level {
                self.change_level(level, used as u64);
            }
        }
    }

    #[cold]
    fn change_level(&mut self, level: Level, used: u64) {
        let memory = &mut self.clients.memory;
        memory.level = level;
        (memory.output_high, memory.answers_max) = match level {
            Level::Plenty => (Link::OUTPUT_HIGH, Link::OUTPUT_MAX),
            _ => (SHORT_OUTPUT, 2 * SHORT_OUTPUT),
        };
        let what = match level {
            Level::Plenty => "there is plenty again",
            Level::Slow => "publishers wait for slow subscribers",
            Level::NoQos0 => "QoS 0 messages are not queued any more",
            Level::Overflow => "every queue counts as full, and retained messages of new topics are refused",
            Level::Full => "new sessions and subscriptions are refused, and the largest unfinished packet is dropped",
        };
        if level > memory.logged {
            log::warn!(about = "memory"; "Memory: {} of {} kB are in use (memory_limit); {what}.", used >> 10, memory.limit >> 10);
            memory.logged = level;
        } else if level == Level::Plenty {
            log::info!(about = "memory"; "Memory: {} of {} kB are in use; {what}.", used >> 10, memory.limit >> 10);
            memory.logged = level;
        }
        if level >= Level::NoQos0 {
            self.drop_queued_qos0();
        }
    }

    /// Memory is short, and something has come that could not be handled yet, most likely of an unfinished packet: the client of
    /// which most is held is disconnected, if that is much at this level. What it sent was not acknowledged.
    #[cold]
    pub(super) fn drop_largest_input(&mut self, now: Millis) {
        let Memory { limit, used, level, .. } = self.clients.memory;
        let least = match level {
            _ if used as u64 > limit + limit / 10 => INPUT_SMALL,
            Level::Full => INPUT_LARGE,
            // It is what memory is short of: others are to be let in.
            _ => usize::try_from(limit / 16).unwrap_or(usize::MAX).max(INPUT_LARGE),
        };
        let inputs = self.clients.links.iter().map(|(id, link)| (link.input.len(), id as LinkId));
        if let Some((held, id)) = inputs.max().filter(|(held, _)| *held >= least) {
            self.close(id, CloseReason::out_of_memory(held), now);
        }
    }

    /// Drops the QoS 0 messages of all queues.
    fn drop_queued_qos0(&mut self) {
        let clients = &mut self.clients;
        let with_some = |(id, session): (usize, &super::session::Session)| {
            session.delivery.as_deref().is_some_and(|delivery| delivery.queue_qos0 > 0).then_some(id as u32)
        };
        for id in clients.sessions.iter().filter_map(with_some).collect::<Vec<_>>() {
            let dropped = clients.session_mut(id).delivery_mut().take_queued(|queued| queued.qos == QoS::AtMostOnce);
            for queued in &dropped {
                clients.count_drop(id, queued.message.topic());
            }
            clients.session_mut(id).delivery_mut().shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_at_their_share_of_the_limit_and_end_a_little_below() {
        let mut memory = Memory::new(1000);
        for (used, level) in [
            (0, Level::Plenty),
            (749, Level::Plenty),
            (750, Level::Slow),
            (849, Level::Slow),
            (850, Level::NoQos0),
            (950, Level::Overflow),
            (1000, Level::Full),
            (u64::MAX, Level::Full),
            (950, Level::Full),
            (949, Level::Overflow),
            (899, Level::NoQos0),
            (800, Level::NoQos0),
            (799, Level::Slow),
            (700, Level::Slow),
            (699, Level::Plenty),
        ] {
            memory.level = memory.level_at(used);
            assert_eq!(memory.level, level, "{used}");
        }
    }
}
