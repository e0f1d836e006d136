//! An open-addressing table of 32-bit ids, for keys that live elsewhere: the caller brings the hash and compares.
//! Eight bytes a slot, at most seven of eight slots used, linear probing, no tombstones.
//!
//! Invariant (Robin Hood): along a run of slots, how far entries are from home never falls by more than the entries' own
//! homes explain: who is farther from home has the earlier slot. So a search may end at the first slot whose entry is
//! nearer to its home than the one looked for would be, and looking for what is not there is as cheap as finding.

const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    id: u32,
}

#[derive(Default)]
pub struct Table {
    slots: Vec<Slot>,
    len: usize,
}

impl Table {
    /// The id with this hash for which `is_equal` holds.
    #[inline]
    pub fn find(&self, hash: u32, mut is_equal: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mask = self.slots.len() - 1;
        let (mut at, mut distance) = (hash as usize & mask, 0);
        loop {
            let slot = self.slots[at];
            if slot.id == EMPTY || at.wrapping_sub(slot.hash as usize) & mask < distance {
                return None;
            }
            if slot.hash == hash && is_equal(slot.id) {
                return Some(slot.id);
            }
            at = (at + 1) & mask;
            distance += 1;
        }
    }

    /// What stands where a search for `hash` begins, of a table that is not empty: for fetching that place.
    #[inline]
    pub fn peek(&self, hash: u32) -> u32 {
        self.slots[hash as usize & (self.slots.len() - 1)].id
    }

    /// Adds an id whose key is not in the table.
    pub fn insert(&mut self, hash: u32, id: u32) {
        if (self.len + 1) * 8 > self.slots.len() * 7 {
            self.resize((self.slots.len() * 2).max(8));
        }
        self.place(Slot { hash, id });
        self.len += 1;
    }

    /// Removes `id`, if it is there under `hash`.
    pub fn remove(&mut self, hash: u32, id: u32) {
        if self.len == 0 {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut hole = hash as usize & mask;
        while self.slots[hole].id != id {
            if self.slots[hole].id == EMPTY {
                return;
            }
            hole = (hole + 1) & mask;
        }
        // Those behind move up, as far as that brings them nearer to home.
        let mut next = (hole + 1) & mask;
        while self.slots[next].id != EMPTY && self.slots[next].hash as usize & mask != next {
            self.slots[hole] = self.slots[next];
            (hole, next) = (next, (next + 1) & mask);
        }
        self.slots[hole].id = EMPTY;
        self.len -= 1;
        if self.slots.len() > 64 && self.len * 8 < self.slots.len() {
            self.resize(self.slots.len() / 4);
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Gives back the slots that are not needed for what is in the table; all of them if nothing is.
    pub fn shrink(&mut self) {
        let mut size = if self.len == 0 { 0 } else { 8 };
        while self.len * 8 > size * 7 {
            size *= 2;
        }
        if size < self.slots.len() {
            self.resize(size);
        }
    }

    fn resize(&mut self, size: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot { hash: 0, id: EMPTY }; size]);
        old.into_iter().filter(|slot| slot.id != EMPTY).for_each(|slot| self.place(slot));
    }

    /// Puts `slot` where it belongs; whoever is nearer to home than it makes room.
    fn place(&mut self, mut slot: Slot) {
        let mask = self.slots.len() - 1;
        let (mut at, mut distance) = (slot.hash as usize & mask, 0);
        while self.slots[at].id != EMPTY {
            let other = at.wrapping_sub(self.slots[at].hash as usize) & mask;
            if other < distance {
                std::mem::swap(&mut self.slots[at], &mut slot);
                distance = other;
            }
            at = (at + 1) & mask;
            distance += 1;
        }
        self.slots[at] = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Few distinct hashes, so that runs are long and wrap around.
    #[test]
    fn finds_what_is_in_and_nothing_else() {
        let mut table = Table::default();
        let mut present = Vec::new();
        let mut random = 12345u32;
        for id in 0..20_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hash = (random >> 8) % 97 * 0x0100_0001;
            if random >> 30 == 0 && !present.is_empty() || present.len() > 300 {
                let (hash, id) = present.swap_remove(random as usize % present.len());
                table.remove(hash, id);
                assert_eq!(table.find(hash, |other| other == id), None);
            } else {
                table.insert(hash, id);
                present.push((hash, id));
            }
            assert_eq!(table.len(), present.len());
            if id % 50 == 0 {
                for &(hash, id) in &present {
                    assert_eq!(table.find(hash, |other| other == id), Some(id));
                }
            }
        }
        for (hash, id) in present.drain(..) {
            table.remove(hash, id);
        }
        assert!(table.len() == 0 && table.slots.len() <= 64);
    }

    #[test]
    fn seven_of_eight_slots_are_used_and_most_memory_is_given_back() {
        let mut table = Table::default();
        let mut sizes = Vec::new();
        for id in 0..225 {
            table.insert(id, id);
            sizes.push(table.slots.len());
        }
        for (count, size) in [(7, 8), (8, 16), (14, 16), (15, 32), (112, 128), (113, 256), (224, 256), (225, 512)] {
            assert_eq!(sizes[count - 1], size, "{count}");
        }
        for (left, size) in [(64, 512), (63, 128), (16, 128), (15, 32), (0, 32)] {
            (left..table.len() as u32).rev().for_each(|id| table.remove(id, id));
            assert_eq!((table.len(), table.slots.len()), (left as usize, size));
        }
        // Up to 64 slots are not worth it.
        (0..29).for_each(|id| table.insert(id, id));
        (0..29).for_each(|id| table.remove(id, id));
        assert_eq!((table.len(), table.slots.len()), (0, 64));
        // Unless somebody asks for it.
        for (count, size) in [(0, 0), (1, 8), (7, 8), (8, 16), (29, 64)] {
            (0..count).for_each(|id| table.insert(id, id));
            table.shrink();
            assert_eq!(table.slots.len(), size);
            (0..count).for_each(|id| assert_eq!(table.find(id, |_| true), Some(id)));
            (0..count).for_each(|id| table.remove(id, id));
        }
        assert_eq!((table.len(), table.find(1, |_| true)), (0, None));
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        let mut table = Table::default();
        table.remove(1, 1);
        table.insert(1, 1);
        table.remove(1, 2);
        table.remove(2, 1);
        assert_eq!((table.len(), table.find(1, |_| true)), (1, Some(1)));
    }
}
