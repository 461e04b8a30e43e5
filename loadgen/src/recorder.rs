//! Histograms of one worker: times since the last report, per measure.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};

use crate::clock::SECOND_NS;
use crate::messages::{Interval, MEASURES, Measure};

/// An empty histogram with the bounds used everywhere: nanoseconds, half a microsecond to ten minutes, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 600 * SECOND_NS, 3).expect("the bounds are constants")
}

/// Records times and returns them in intervals.
pub(crate) struct Recorder {
    /// Times whose intended start is before this moment are not recorded.
    pub(crate) from_ns: u64,
    histograms: [Histogram<u64>; MEASURES.len()],
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { from_ns: 0, histograms: std::array::from_fn(|_| histogram()) }
    }

    /// Adds the time between two moments.
    pub(crate) fn record(&mut self, measure: Measure, intended_ns: u64, now_ns: u64) {
        if intended_ns >= self.from_ns {
            self.histograms[measure as usize].saturating_record(now_ns.saturating_sub(intended_ns).max(1));
        }
    }

    /// Takes the recorded times, as those of the second that ends now.
    pub(crate) fn take(&mut self, second: u64) -> Vec<Interval> {
        let mut intervals = Vec::new();
        for measure in MEASURES {
            let histogram = &mut self.histograms[measure as usize];
            if histogram.is_empty() {
                continue;
            }
            let mut bytes = Vec::new();
            V2Serializer::new().serialize(histogram, &mut bytes).expect("a vector takes all");
            histogram.reset();
            intervals.push(Interval { measure, second, histogram: hex::encode(bytes) });
        }
        intervals
    }
}
