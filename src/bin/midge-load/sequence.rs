//! What one subscriber has seen of one stream, judged by the number each message carries: 0, 1, 2 ... Nothing is kept of a
//! message but a bit, and that for the newest 64 alone.

/// The numbers seen of one stream.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    /// The number that comes next if nothing goes wrong.
    next: u32,
    /// Numbers below `next` that were never seen.
    missing: u32,
    /// Bit n: the number `next - 1 - n` was seen.
    recent: u64,
}

/// What a number says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next one, after so many that were left out.
    InOrder { skipped: u32 },
    /// One that was left out comes after its successors.
    Late,
    /// Seen before.
    Duplicate,
}

impl Seen {
    /// A late number more than 64 behind the newest is taken for one that is missing if any is, else for a duplicate.
    #[inline]
    pub fn take(&mut self, number: u32) -> Verdict {
        if number >= self.next {
            let skipped = number - self.next;
            self.recent = self.recent.checked_shl(skipped + 1).unwrap_or(0) | 1;
            self.next = number + 1;
            self.missing += skipped;
            return Verdict::InOrder { skipped };
        }
        let back = self.next - 1 - number;
        let is_new = if back < u64::BITS { self.recent >> back & 1 == 0 } else { self.missing > 0 };
        if !is_new || self.missing == 0 {
            return Verdict::Duplicate;
        }
        if back < u64::BITS {
            self.recent |= 1 << back;
        }
        self.missing -= 1;
        Verdict::Late
    }

    /// Messages that did not arrive of `published` ones.
    pub fn lost(&self, published: u32) -> u32 {
        self.missing + published.saturating_sub(self.next)
    }

    /// From this number on the stream is watched; what was before is none of the subscriber's business.
    pub fn start_at(number: u32) -> Seen {
        Seen { next: number, missing: 0, recent: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(numbers: &[u32]) -> (Vec<Verdict>, Seen) {
        let mut seen = Seen::default();
        (numbers.iter().map(|&number| seen.take(number)).collect(), seen)
    }

    const NEXT: Verdict = Verdict::InOrder { skipped: 0 };

    #[test]
    fn what_comes_in_order_is_complete() {
        let (verdicts, seen) = verdicts(&[0, 1, 2, 3]);
        assert_eq!(verdicts, [NEXT; 4]);
        assert_eq!((seen.lost(4), seen.lost(6)), (0, 2));
    }

    #[test]
    fn gaps_are_lost_until_they_are_filled() {
        let (verdicts, seen) = verdicts(&[0, 3, 1]);
        assert_eq!(verdicts, [NEXT, Verdict::InOrder { skipped: 2 }, Verdict::Late]);
        assert_eq!(seen.lost(4), 1);
    }

    #[test]
    fn what_was_seen_is_a_duplicate() {
        let (verdicts, seen) = verdicts(&[0, 2, 2, 0, 1, 1]);
        let gap = Verdict::InOrder { skipped: 1 };
        assert_eq!(verdicts, [NEXT, gap, Verdict::Duplicate, Verdict::Duplicate, Verdict::Late, Verdict::Duplicate]);
        assert_eq!(seen.lost(3), 0);
    }

    #[test]
    fn far_behind_the_count_of_missing_ones_decides() {
        let (verdicts, seen) = verdicts(&[0, 200, 1, 0]);
        assert_eq!(verdicts[2..], [Verdict::Late, Verdict::Late]);
        assert_eq!(seen.lost(201), 197);
        let mut seen = Seen::default();
        (0..200).for_each(|number| assert_eq!(seen.take(number), NEXT));
        assert_eq!(seen.take(3), Verdict::Duplicate);
    }

    #[test]
    fn a_late_start_owes_nothing_from_before() {
        let mut seen = Seen::start_at(10);
        assert_eq!(seen.take(10), NEXT);
        assert_eq!(seen.lost(11), 0);
        assert_eq!(seen.take(9), Verdict::Duplicate);
    }
}
