//! A histogram as text and JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::report::quantity;

/// Percentiles that reports name, with the name that `--fail-if` knows.
pub(crate) const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Milliseconds at a percentile.
pub(crate) fn milliseconds(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1e6
}

/// Percentiles, extremes and mean in milliseconds.
pub(crate) fn json(histogram: &Histogram<u64>) -> Value {
    let mut object = json!({
        "count": histogram.len(),
        "min": histogram.min() as f64 / 1e6,
        "max": histogram.max() as f64 / 1e6,
        "mean": histogram.mean() / 1e6,
    });
    for (name, percentile) in PERCENTILES {
        object[name] = json!(milliseconds(histogram, percentile));
    }
    object
}

/// The median, the longest time and each percentile that at least one time exceeds, in nanoseconds: the p99.9 of a
/// hundred times would be the longest of them.
pub(crate) fn summary(histogram: &Histogram<u64>) -> Vec<(&'static str, u64)> {
    let is_exceeded = |percentile: f64| histogram.len() as f64 * (100.0 - percentile) >= 100.0 * 0.999_999;
    let percentiles = PERCENTILES.iter().filter(|(_, percentile)| *percentile == 50.0 || is_exceeded(*percentile));
    let least = (histogram.len() < BARS_FROM).then(|| ("min", histogram.min()));
    let percentiles = percentiles.map(|(name, percentile)| (*name, histogram.value_at_percentile(*percentile)));
    least.into_iter().chain(percentiles).chain([("max", histogram.max())]).collect()
}

/// One line of percentiles, and bars over buckets at 1, 2, 5, 10 and so on; no bars for a handful of times.
pub(crate) fn text(histogram: &Histogram<u64>) -> String {
    let parts: Vec<String> =
        summary(histogram).iter().map(|(name, value)| format!("{name} {}", quantity::time(*value as f64))).collect();
    let mut text = format!("  {}\n", parts.join("   "));
    if histogram.len() < BARS_FROM {
        return text;
    }
    let buckets = buckets(histogram);
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (upper_ns, count) in buckets {
        let width = usize::try_from(count.saturating_mul(BAR_WIDTH).div_ceil(most)).unwrap_or(0);
        let (upper, bar) = (quantity::time(upper_ns as f64), "#".repeat(width));
        let percent = 100.0 * count as f64 / histogram.len().max(1) as f64;
        text.push_str(&format!("  < {upper:>7} |{bar:<40}| {percent:>6.2} %  {}\n", quantity::number(count as f64)));
    }
    text
}

/// Counts below each bound, from the first to the last that is not empty.
fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let mut bounds = (3..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
    let mut buckets: Vec<(u64, u64)> = Vec::new();
    for step in histogram.iter_recorded() {
        let value = histogram.lowest_equivalent(step.value_iterated_to());
        while buckets.last().is_none_or(|(last, _)| *last <= value) {
            let next = bounds.next().expect("they have no end before a century");
            // Those before the first time are left out.
            if !buckets.is_empty() || next > value {
                buckets.push((next, 0));
            }
        }
        let (_, count) = buckets.last_mut().expect("one was pushed");
        *count += step.count_since_last_iteration();
    }
    buckets
}

const BAR_WIDTH: u64 = 40;
/// Fewer times are described by their minimum, median and maximum.
const BARS_FROM: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = crate::recorder::histogram();
        values.into_iter().for_each(|value| histogram.record(value).expect("in bounds"));
        histogram
    }

    /// Goal: every value is in one bucket, gaps are shown, and bounds are round.
    #[test]
    fn buckets_are_round() {
        let histogram = of([1_500, 1_600, 9_000]);
        assert_eq!(buckets(&histogram), [(2_000, 2), (5_000, 0), (10_000, 1)]);
        let many = text(&of((0..30).map(|_| 1_500)));
        assert!(many.contains("< 2 µs") || many.contains("<    2 µs"), "{many}");
        assert!(many.contains("####"), "{many}");
    }

    /// Goal: only percentiles are named that the number of times supports, and a handful has no bars.
    #[test]
    fn percentiles_need_times() {
        let names =
            |count: u64| summary(&of((0..count).map(|_| 1_500))).iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(1), ["min", "p50", "max"]);
        assert_eq!(names(99), ["p50", "p90", "p95", "max"]);
        assert_eq!(names(100), ["p50", "p90", "p95", "p99", "max"]);
        assert_eq!(names(1_000), ["p50", "p90", "p95", "p99", "p99.9", "max"]);
        assert_eq!(names(10_000).len(), 7);
        let few = text(&of([5_083_496_000]));
        assert!(few.contains("p50 5.08 s") && !few.contains('#'), "{few}");
    }
}
