//! A hashed timer wheel in seven levels of 64 slots, the lowest of one millisecond each. It owns deadlines and hands
//! back who armed them; it knows neither connections nor MQTT, and it reads no clock.
//!
//! `arm` and `cancel` are O(1). A deadline lives on the level of the highest six-bit digit in which it differs from
//! the present, so all deadlines of a lower level come before all of a higher one, and the first occupied slot holds
//! the earliest: `next_deadline` looks at seven words, not at timers. Nothing fires early; between two deadlines
//! nothing needs to be done, so the loop may sleep from one to the next.
//!
//! Cost: 5.4 kB for the slots, 24 bytes an armed timer.

use std::num::NonZeroU8;

use slab::Slab;

use crate::time::Millis;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 64^7 ms are 139 years: longer than the longest interval of MQTT, 2^32 seconds.
const LEVELS: usize = 7;
const NONE: u32 = u32::MAX;
/// The slot number of timers whose time has come.
const DUE: u16 = u16::MAX;

/// An armed timer. Ids are used again once the timer fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(u32);

impl Default for TimerId {
    fn default() -> TimerId {
        TimerId::NONE
    }
}

impl TimerId {
    /// No timer: saves the space of an `Option` in places that exist ten thousand times.
    pub const NONE: TimerId = TimerId(NONE);
}

/// Who armed a timer: the wheel only carries it. Kinds go up to 254.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: u8,
    pub id: u32,
}

struct Entry {
    deadline: u64,
    owner_id: u32,
    next: u32,
    previous: u32,
    slot: u16,
    /// One more than the kind: that it is never 0 lets the slab do without a mark of its own, eight bytes a timer.
    owner_kind: NonZeroU8,
}

pub struct Wheel {
    now: u64,
    entries: Slab<Entry>,
    heads: Box<[u32; LEVELS * SLOTS]>,
    /// No timer of the slot is due before this. A cancelled timer may leave it too early, never too late.
    earliest: Box<[u64; LEVELS * SLOTS]>,
    occupied: [u64; LEVELS],
    due: u32,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel {
            now: 0,
            entries: Slab::new(),
            heads: Box::new([NONE; LEVELS * SLOTS]),
            earliest: Box::new([u64::MAX; LEVELS * SLOTS]),
            occupied: [0; LEVELS],
            due: NONE,
        }
    }
}

impl Wheel {
    /// Fires at `deadline` or as soon after as `advance` is called; a deadline that has passed is due at once.
    pub fn arm(&mut self, deadline: Millis, owner: Owner) -> TimerId {
        let entry = Entry {
            deadline: deadline.0,
            owner_id: owner.id,
            owner_kind: NonZeroU8::MIN.saturating_add(owner.kind),
            next: NONE,
            previous: NONE,
            slot: DUE,
        };
        let key = self.entries.insert(entry) as u32;
        self.link(key);
        TimerId(key)
    }

    /// Forgets a timer that has not been handed out by `pop_due`; `TimerId::NONE` is ignored.
    pub fn cancel(&mut self, timer: TimerId) {
        if timer != TimerId::NONE {
            self.unlink(timer.0);
            self.entries.remove(timer.0 as usize);
        }
    }

    /// Gives back room that timers of the past left behind.
    pub fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// When something may be due, at the latest; nothing if no timer is armed.
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.due != NONE {
            return Some(Millis(self.now));
        }
        let level = (0..LEVELS).find(|&level| self.occupied[level] != 0)?;
        let after = (digit(self.now, level) + 1) % SLOTS;
        let distance = self.occupied[level].rotate_right(after as u32).trailing_zeros() as usize;
        Some(Millis(self.earliest[level * SLOTS + (after + distance) % SLOTS]))
    }

    /// Moves the present to `now` (never back) and makes due what is due; `pop_due` hands it out.
    pub fn advance(&mut self, now: Millis) {
        let before = self.now;
        if now.0 <= before {
            return;
        }
        self.now = now.0;
        for level in 0..LEVELS {
            let shift = SLOT_BITS * level as u32;
            let passed = (now.0 >> shift) - (before >> shift);
            if passed == 0 {
                break;
            }
            let entered = match passed {
                64.. => u64::MAX,
                _ => ((1u64 << passed) - 1).rotate_left(digit(before, level) as u32 + 1),
            };
            let mut slots = self.occupied[level] & entered;
            self.occupied[level] &= !entered;
            while slots != 0 {
                self.empty_slot(level * SLOTS + slots.trailing_zeros() as usize);
                slots &= slots - 1;
            }
        }
    }

    /// One timer whose time has come; it is no longer armed.
    pub fn pop_due(&mut self) -> Option<Owner> {
        let key = self.due;
        if key == NONE {
            return None;
        }
        self.unlink(key);
        let entry = self.entries.remove(key as usize);
        Some(Owner { kind: entry.owner_kind.get() - 1, id: entry.owner_id })
    }

    /// Armed timers.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Places every timer of a slot anew, by what is left until its deadline.
    fn empty_slot(&mut self, slot: usize) {
        let mut key = std::mem::replace(&mut self.heads[slot], NONE);
        self.earliest[slot] = u64::MAX;
        while key != NONE {
            let next = self.entries[key as usize].next;
            self.link(key);
            key = next;
        }
    }

    fn link(&mut self, key: u32) {
        let deadline = self.entries[key as usize].deadline;
        let (slot, head) = if deadline <= self.now {
            (DUE, &mut self.due)
        } else {
            let (level, index) = place(deadline, self.now);
            let slot = level * SLOTS + index;
            self.occupied[level] |= 1 << index;
            self.earliest[slot] = self.earliest[slot].min(deadline);
            (slot as u16, &mut self.heads[slot])
        };
        let next = std::mem::replace(head, key);
        let entry = &mut self.entries[key as usize];
        entry.slot = slot;
        entry.next = next;
        entry.previous = NONE;
        if next != NONE {
            self.entries[next as usize].previous = key;
        }
    }

    fn unlink(&mut self, key: u32) {
        let Entry { next, previous, slot, .. } = self.entries[key as usize];
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else if slot == DUE {
            self.due = next;
        } else {
            self.heads[slot as usize] = next;
            if next == NONE {
                self.occupied[slot as usize / SLOTS] &= !(1 << (slot as usize % SLOTS));
                self.earliest[slot as usize] = u64::MAX;
            }
        }
    }
}

fn digit(time: u64, level: usize) -> usize {
    (time >> (SLOT_BITS * level as u32)) as usize % SLOTS
}

/// Level and slot of a deadline after `now`. One beyond the last level waits in its farthest slot and is placed anew
/// when that comes round.
fn place(deadline: u64, now: u64) -> (usize, usize) {
    let level = (63 - (deadline ^ now).leading_zeros()) / SLOT_BITS;
    match level as usize {
        level if level < LEVELS => (level, digit(deadline, level)),
        _ => (LEVELS - 1, (digit(now, LEVELS - 1) + SLOTS - 1) % SLOTS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: u32) -> Owner {
        Owner { kind: 1, id }
    }

    fn due(wheel: &mut Wheel) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop_due()).map(|owner| owner.id).collect()
    }

    #[test]
    fn fires_at_the_deadline_and_not_before() {
        for deadline in [1, 63, 64, 65, 4095, 4096, 90_000, 1 << 30, (1 << 42) + 5, u64::MAX - 1] {
            let mut wheel = Wheel::default();
            wheel.arm(Millis(deadline), owner(7));
            wheel.advance(Millis(deadline - 1));
            assert_eq!(wheel.pop_due(), None, "{deadline}");
            assert!(wheel.next_deadline().unwrap() <= Millis(deadline));
            wheel.advance(Millis(deadline));
            assert_eq!(wheel.pop_due(), Some(owner(7)), "{deadline}");
            assert!(wheel.is_empty() && wheel.next_deadline().is_none());
        }
    }

    #[test]
    fn sleeping_from_deadline_to_deadline_wakes_for_deadlines_only() {
        let mut wheel = Wheel::default();
        let deadlines = [90_000u64, 90_250, 5_000_000, 100_000_000];
        for (id, &deadline) in deadlines.iter().enumerate() {
            wheel.arm(Millis(deadline), owner(id as u32));
        }
        let mut woken = Vec::new();
        while let Some(next) = wheel.next_deadline() {
            wheel.advance(next);
            woken.push(next.0);
            assert_eq!(due(&mut wheel).len(), 1, "woken for nothing at {next:?}");
        }
        assert_eq!(woken, deadlines);
    }

    #[test]
    fn a_passed_deadline_is_due_at_once() {
        let mut wheel = Wheel::default();
        wheel.advance(Millis(1000));
        wheel.arm(Millis(10), owner(1));
        assert_eq!(wheel.next_deadline(), Some(Millis(1000)));
        assert_eq!(due(&mut wheel), [1]);
    }

    #[test]
    fn a_due_timer_can_still_be_cancelled() {
        let mut wheel = Wheel::default();
        let first = wheel.arm(Millis(5), owner(1));
        wheel.arm(Millis(5), owner(2));
        wheel.advance(Millis(5));
        wheel.cancel(first);
        wheel.cancel(TimerId::NONE);
        assert_eq!(due(&mut wheel), [2]);
    }

    /// Random arming, cancelling and jumping, against a plain list.
    #[test]
    fn agrees_with_a_plain_list() {
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for _ in 0..50 {
            let mut wheel = Wheel::default();
            let mut model: Vec<(u64, u32, TimerId)> = Vec::new();
            let (mut now, mut id) = (0u64, 0u32);
            for _ in 0..400 {
                match next() % 4 {
                    0 | 1 => {
                        let deadline = now + next() % (1 << (next() % 34));
                        model.push((deadline, id, wheel.arm(Millis(deadline), owner(id))));
                        id += 1;
                    }
                    2 if !model.is_empty() => {
                        let at = next() as usize % model.len();
                        wheel.cancel(model.swap_remove(at).2);
                    }
                    _ => {
                        let bound = wheel.next_deadline().map_or(u64::MAX, |deadline| deadline.0);
                        assert!(model.iter().all(|&(deadline, ..)| deadline.max(now) >= bound));
                        now += next() % (1 << (next() % 30));
                        wheel.advance(Millis(now));
                        let mut fired = due(&mut wheel);
                        let mut expected: Vec<u32> =
                            model.iter().filter(|timer| timer.0 <= now).map(|timer| timer.1).collect();
                        model.retain(|timer| timer.0 > now);
                        fired.sort_unstable();
                        expected.sort_unstable();
                        assert_eq!(fired, expected);
                    }
                }
                assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
