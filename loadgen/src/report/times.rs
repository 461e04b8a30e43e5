//! The times of a whole run: every measure's histogram over all workers, and a line of them for each second.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

use crate::messages::{Interval, Measure};
use crate::recorder::histogram;

/// All times, merged as they arrive.
#[derive(Default)]
pub(crate) struct Times {
    totals: BTreeMap<Measure, Histogram<u64>>,
    /// By measure and second of the monotonic clock.
    seconds: BTreeMap<(Measure, u64), Histogram<u64>>,
}

impl Times {
    /// Adds the times of a worker. Unreadable ones are ignored: workers are the same program.
    pub(crate) fn add(&mut self, interval: &Interval) {
        let Ok(bytes) = hex::decode(&interval.histogram) else { return };
        let Ok(part) = Deserializer::new().deserialize::<u64, _>(&mut bytes.as_slice()) else { return };
        let total = self.totals.entry(interval.measure).or_insert_with(histogram);
        // All workers use the same bounds.
        let _ = total.add(&part);
        if self.seconds.len() < SECONDS_MAX || self.seconds.contains_key(&(interval.measure, interval.second)) {
            let second = self.seconds.entry((interval.measure, interval.second)).or_insert_with(smaller_histogram);
            let _ = second.add(&part);
        }
    }

    /// Removes all times, before the measured part of a run.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds all times of another run.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (measure, histogram_of) in &other.totals {
            let _ = self.totals.entry(*measure).or_insert_with(histogram).add(histogram_of);
        }
        for (key, histogram_of) in &other.seconds {
            let _ = self.seconds.entry(*key).or_insert_with(smaller_histogram).add(histogram_of);
        }
    }

    /// The histogram of a measure, if anything was measured.
    pub(crate) fn total(&self, measure: Measure) -> Option<&Histogram<u64>> {
        self.totals.get(&measure).filter(|histogram| !histogram.is_empty())
    }

    /// The histograms of a measure by second.
    pub(crate) fn by_second(&self, measure: Measure) -> impl Iterator<Item = (u64, &Histogram<u64>)> {
        self.seconds
            .iter()
            .filter(move |((of, _), _)| *of == measure)
            .map(|((_, second), histogram)| (*second, histogram))
    }
}

/// Two digits are enough for a line of a chart, and need a tenth of the memory.
fn smaller_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 600 * crate::clock::SECOND_NS, 2).expect("the bounds are constants")
}

/// Two hours of one measure.
const SECONDS_MAX: usize = 7_200;
