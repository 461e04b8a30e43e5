//! A histogram as text and JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

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

/// One line of percentiles, and bars over buckets that double.
pub(crate) fn text(histogram: &Histogram<u64>) -> String {
    let mut text = String::from(" ");
    for (name, percentile) in PERCENTILES {
        text.push_str(&format!(" {name} {:.3}", milliseconds(histogram, percentile)));
    }
    text.push_str(&format!(" max {:.3}\n", histogram.max() as f64 / 1e6));
    let buckets = doubling(histogram);
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (upper_ns, count) in buckets {
        let width = usize::try_from(count.saturating_mul(BAR_WIDTH).div_ceil(most)).unwrap_or(0);
        let (upper, bar) = (upper_ns as f64 / 1e6, "#".repeat(width));
        let percent = 100.0 * count as f64 / histogram.len().max(1) as f64;
        text.push_str(&format!("  < {upper:>10.3} |{bar:<40}| {percent:>6.2} %  {count}\n"));
    }
    text
}

/// Counts below each power of two, from the first to the last that is not empty.
fn doubling(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let mut buckets: Vec<(u64, u64)> = Vec::new();
    for step in histogram.iter_recorded() {
        let upper = step.value_iterated_to().max(1_024).next_power_of_two();
        while let Some((last, _)) = buckets.last().filter(|(last, _)| *last < upper) {
            let next = last * 2;
            buckets.push((next, 0));
        }
        if buckets.is_empty() {
            buckets.push((upper, 0));
        }
        let (_, count) = buckets.last_mut().expect("one was pushed");
        *count += step.count_since_last_iteration();
    }
    buckets
}

const BAR_WIDTH: u64 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every value is in one bucket, and gaps are shown.
    #[test]
    fn buckets_double() {
        let mut histogram = crate::recorder::histogram();
        for value in [1_500, 1_600, 9_000] {
            histogram.record(value).expect("in bounds");
        }
        assert_eq!(doubling(&histogram), [(2_048, 2), (4_096, 0), (8_192, 0), (16_384, 1)]);
        assert!(text(&histogram).contains("####"));
    }
}
