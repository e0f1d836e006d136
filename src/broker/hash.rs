//! Hashing for the tables of the core. Keyed with a seed from the shell, so that nobody who chooses client ids or topics
//! can choose collisions.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// SipHash-1-3, keyed by what it is fed first.
#[derive(Clone, Copy, Default)]
pub struct Seed(pub u64);

impl BuildHasher for Seed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl Seed {
    /// The hash of a client id, long enough that no two clients ever share it.
    pub fn hash_client(&self, client_id: &str) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write(client_id.as_bytes());
        hasher.finish()
    }

    /// The hash of `level` below trie node `parent`, or of a whole filter.
    pub fn hash(&self, parent: u32, level: &str) -> u32 {
        let mut hasher = self.build_hasher();
        hasher.write_u32(parent);
        hasher.write(level.as_bytes());
        hasher.finish() as u32
    }
}
