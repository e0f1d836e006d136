//! When memory is looked through for what the traffic left behind. Once the traffic is over that takes two looks, and then there are
//! no more. Where traffic ends only to begin again, in a house where something reports every few seconds, the looks become rare:
//! what is given back would have to be fetched again each time. Knows neither memory nor traffic.

use crate::time::Millis;

const INTERVAL_MIN: Millis = Millis(2000);
const INTERVAL_MAX: Millis = Millis(64_000);
/// Traffic that begins within so many intervals after the last ended is the same.
const INTERVALS_BETWEEN: u64 = 4;

pub struct Trims {
    next: Option<Millis>,
    interval: Millis,
    /// When memory was given back last.
    given_back_at: Option<Millis>,
}

impl Default for Trims {
    fn default() -> Trims {
        Trims { next: None, interval: INTERVAL_MIN, given_back_at: None }
    }
}

impl Trims {
    /// When the next look is due; nothing if there is nothing to look for.
    #[inline]
    pub fn next(&self) -> Option<Millis> {
        self.next
    }

    /// There is something to look for, for the first time since there was nothing.
    pub fn begin(&mut self, now: Millis) {
        if let Some(at) = self.given_back_at {
            let is_same = (now - at).0 < INTERVALS_BETWEEN * self.interval.0;
            let interval = if is_same { self.interval.0 * 2 } else { self.interval.0 / 2 };
            self.interval = Millis(interval.clamp(INTERVAL_MIN.0, INTERVAL_MAX.0));
        }
        self.next = Some(now + self.interval);
    }

    /// A look was taken. `gave_back` says that memory went back to the system, and `is_over` that nothing is left to look for.
    pub fn looked(&mut self, gave_back: bool, is_over: bool, now: Millis) {
        if gave_back {
            self.given_back_at = Some(now);
        }
        self.next = (!is_over).then(|| now + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often memory is given back in an hour in which something comes every so many milliseconds.
    fn given_back_in_an_hour(period: u64) -> u32 {
        let (mut trims, mut count, mut is_used) = (Trims::default(), 0, false);
        for ms in (0..3_600_000).step_by(100) {
            let now = Millis(ms);
            if ms % period == 0 {
                is_used = true;
                if trims.next().is_none() {
                    trims.begin(now);
                }
            }
            if trims.next().is_some_and(|at| at <= now) {
                let is_quiet = !std::mem::take(&mut is_used);
                trims.looked(is_quiet, is_quiet, now);
                count += is_quiet as u32;
            }
        }
        count
    }

    #[test]
    fn memory_is_given_back_two_looks_after_the_traffic() {
        let mut trims = Trims::default();
        assert_eq!(trims.next(), None);
        for start in [0, 60_000, 120_000].map(Millis) {
            trims.begin(start);
            trims.looked(false, false, Millis(start.0 + 2000));
            assert_eq!(trims.next(), Some(Millis(start.0 + 4000)));
            trims.looked(true, true, Millis(start.0 + 4000));
            assert_eq!(trims.next(), None);
        }
    }

    #[test]
    fn what_reports_every_few_seconds_is_left_its_memory() {
        for period in [100, 1000, 3000, 5000, 10_000] {
            let count = given_back_in_an_hour(period);
            assert!(count <= 5, "{count} times with something every {period} ms");
        }
        for period in [20_000, 60_000, 300_000] {
            assert_eq!(given_back_in_an_hour(period), (3_600_000 / period) as u32, "every {period} ms");
        }
    }
}
