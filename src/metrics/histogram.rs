//! Durations in buckets of about equal width on a logarithmic scale: three per decade, from 10 µs to 10 s.

/// Upper bounds of the buckets, in µs; longer durations fall into one more.
pub const BOUNDS_US: [u64; 19] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// How often each duration was observed. Plain integers: each shard has its own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Histogram {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl Histogram {
    /// Records one duration.
    pub fn observe(&mut self, us: u64) {
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.counts[bucket] += 1;
        self.sum_us += us;
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all durations, in µs.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Each bound in µs with the number of times up to it; the number without bound is [`Histogram::count`].
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        BOUNDS_US.iter().zip(&self.counts).scan(0, |total, (bound, count)| {
            *total += count;
            Some((*bound, *total))
        })
    }

    /// An upper bound of the duration that this many per mille of all stayed below, in µs: the bound of its bucket, and
    /// for the last bucket `u64::MAX`; 0 when there are none.
    pub fn quantile_us(&self, per_mille: u64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        let rank = (count * per_mille).div_ceil(1_000).max(1);
        self.cumulative().find(|(_, total)| *total >= rank).map_or(u64::MAX, |(bound, _)| bound)
    }

    /// Adds the durations of another shard.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum_us += other.sum_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A duration falls into the first bucket whose bound it does not exceed, the longest into the one without bound.
    #[test]
    fn times_fall_into_their_bucket() {
        let mut histogram = Histogram::default();
        for us in [0, 10, 11, 25, 1_000, 10_000_000, 10_000_001] {
            histogram.observe(us);
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(&cumulative[..3], [(10, 2), (25, 4), (50, 4)]);
        assert_eq!(cumulative.last(), Some(&(10_000_000, 6)));
        assert_eq!((histogram.count(), histogram.sum_us()), (7, 20_001_047));
        assert!(BOUNDS_US.is_sorted_by(|a, b| a < b));
    }

    /// Quantiles are the bound of the bucket that holds the rank; shards add up.
    #[test]
    fn quantiles_name_a_bound() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_us(500), 0);
        (0..99).for_each(|_| histogram.observe(90));
        let mut other = Histogram::default();
        other.observe(20_000_000);
        histogram.add(&other);
        assert_eq!(histogram.quantile_us(500), 100);
        assert_eq!(histogram.quantile_us(990), 100);
        assert_eq!(histogram.quantile_us(1_000), u64::MAX);
        assert_eq!(histogram.sum_us(), 99 * 90 + 20_000_000);
    }
}
