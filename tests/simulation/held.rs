//! Acknowledgements that a client holds back for a while: once one is, those after it wait with it.

use std::collections::VecDeque;

use midge::codec::{Packet, Version};

use super::rng::Rng;

#[derive(Clone, Default)]
pub struct Held(VecDeque<Vec<u8>>);

impl Held {
    /// Puts an answer into `out`, or holds it back, `hold_percent` times of a hundred.
    pub fn answer(&mut self, packet: &Packet, version: Version, hold_percent: usize, rng: &mut Rng, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes);
        if !self.0.is_empty() || rng.chance(hold_percent) {
            self.0.push_back(bytes);
        } else {
            out.extend(bytes);
        }
    }

    /// Lets so many of them go.
    pub fn flush(&mut self, count: usize, out: &mut Vec<u8>) {
        for _ in 0..count {
            let Some(bytes) = self.0.pop_front() else { return };
            out.extend(bytes);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
