//! Times as a histogram with logarithmic buckets: 64 to each power of two, so that a percentile is off by less than 1.6 %
//! whatever its size, and recording is an index and an increment. Owns no clock.

/// Buckets to a power of two, as a power of two.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;

/// Nanoseconds, from 0 up to as many as there are.
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    pub fn new() -> Histogram {
        let all = (u64::BITS - FINE_BITS + 1) as usize * FINE;
        Histogram { buckets: vec![0; all], count: 0, sum: 0, max: 0 }
    }

    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(ns);
        self.max = self.max.max(ns);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The time that `share` (0 to 1) of the recorded ones do not exceed, as the upper end of its bucket.
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(index).min(self.max);
            }
        }
        self.max
    }
}

#[inline]
fn bucket(ns: u64) -> usize {
    if ns < FINE as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() - FINE_BITS;
    (shift as usize + 1) * FINE + ((ns >> shift) as usize & (FINE - 1))
}

/// The largest time that falls into the bucket.
fn upper_end(index: usize) -> u64 {
    if index < FINE {
        return index as u64;
    }
    let shift = (index / FINE - 1) as u32;
    let first = (FINE as u64 + (index % FINE) as u64) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_hold_what_they_say() {
        let mut last = 0;
        for ns in (0..100_000).chain([u64::MAX / 3, u64::MAX - 1, u64::MAX]) {
            let index = bucket(ns);
            assert!(index >= last, "{ns}");
            assert!(index - last <= 1 || ns > 100_000, "{ns}");
            assert!(upper_end(index) >= ns, "{ns}");
            assert!(index == 0 || upper_end(index - 1) < ns, "{ns}");
            assert!((upper_end(index) - ns) as f64 <= ns as f64 / 64.0, "{ns}");
            last = index;
        }
        assert_eq!(bucket(u64::MAX), Histogram::new().buckets.len() - 1);
    }

    #[test]
    fn percentiles_of_a_thousand_different_times() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|us| histogram.record(us * 1000));
        for (share, us) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let found = histogram.percentile(share) as f64 / 1000.0;
            assert!((us..us * 1.016).contains(&found), "{share}: {found}");
        }
        assert_eq!((histogram.max(), histogram.count()), (1_000_000, 1000));
        assert!((histogram.mean() - 500_500.0).abs() < 1e-6);
    }

    #[test]
    fn nothing_recorded_is_zero_everywhere() {
        let histogram = Histogram::new();
        assert_eq!((histogram.percentile(0.99), histogram.max(), histogram.mean()), (0, 0, 0.0));
    }

    #[test]
    fn a_percentile_is_never_larger_than_the_largest_time() {
        let mut histogram = Histogram::new();
        histogram.record(1_000_001);
        assert_eq!(histogram.percentile(0.5), 1_000_001);
    }
}
