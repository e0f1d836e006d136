//! Time as the core sees it: a value that is passed in, never a clock that is read.
//! Only `server` reads the clock, once per turn of the loop.

use std::ops::{Add, Sub};

/// Milliseconds on the monotonic clock since the broker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// No deadline reaches this.
    pub const NEVER: Millis = Millis(u64::MAX);

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Millis {
        Millis(secs.saturating_mul(1000))
    }

    /// The first multiple of `step` that is not before `self`: deadlines that may be a little late are rounded
    /// up so that many of them share one wake-up.
    pub const fn round_up(self, step: u64) -> Millis {
        Millis(self.0.saturating_add(step - 1) / step * step)
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }
}

/// The span from `rhs` to `self`; nothing if `rhs` is later.
impl Sub for Millis {
    type Output = Millis;
    fn sub(self, rhs: Millis) -> Millis {
        Millis(self.0.saturating_sub(rhs.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_never_goes_back() {
        for ms in [0, 1, 249, 250, 251, 12_345] {
            let rounded = Millis(ms).round_up(250);
            assert!(rounded >= Millis(ms) && rounded.0 < ms + 250 && rounded.0.is_multiple_of(250));
        }
    }

    #[test]
    fn spans_saturate() {
        assert_eq!(Millis(5) - Millis(9), Millis(0));
        assert_eq!(Millis::NEVER + Millis(1), Millis::NEVER);
    }
}
