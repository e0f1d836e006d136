//! Hashing for the tables of the core. Keyed with a seed from the shell, all of whose keys are secret, so that nobody who
//! chooses client ids or topics can choose collisions. foldhash: a topic of 25 bytes costs some dozens of instructions where
//! SipHash took 300, and it has a way of its own for processors without 64-bit multiplication.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

pub struct Seed {
    first: u64,
    others: SharedSeed,
}

impl Seed {
    pub fn new(seed: u64) -> Seed {
        Seed { first: seed, others: SharedSeed::from_u64(seed) }
    }

    /// The hash of a client id: 56 bits, long enough that no two clients ever share it, and a byte less for each message that
    /// is stored with it.
    pub fn hash_client(&self, client_id: &[u8]) -> u64 {
        self.hash64(0, client_id) >> 8
    }

    /// The hash of `level` below trie node `parent`, or of a whole filter.
    #[inline]
    pub fn hash(&self, parent: u32, level: &[u8]) -> u32 {
        self.hash64(parent, level) as u32
    }

    #[inline]
    fn hash64(&self, parent: u32, text: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.first ^ u64::from(parent).rotate_left(32), &self.others);
        hasher.write(text);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_that_differ_little_hash_differently_and_otherwise_under_another_seed() {
        let (one, other) = (Seed::new(1), Seed::new(2));
        let mut seen = HashSet::new();
        for number in 0..50_000 {
            for text in [format!("house/room-{number}/state"), format!("{number}")] {
                assert!(seen.insert(one.hash64(0, text.as_bytes())) && seen.insert(one.hash64(7, text.as_bytes())));
                assert_ne!(one.hash(0, text.as_bytes()), other.hash(0, text.as_bytes()));
            }
        }
        // The tables use the low bits.
        let low: HashSet<u64> = seen.iter().map(|hash| hash % 4096).collect();
        assert_eq!(low.len(), 4096);
        for seed in 0..100 {
            let seed = Seed::new(seed);
            let low: HashSet<u32> = (0..64).map(|number| seed.hash(0, format!("t/{number}").as_bytes()) % 64).collect();
            assert!(low.len() > 25, "{}", low.len());
        }
    }
}
