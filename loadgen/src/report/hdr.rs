//! The times of a run as an HdrHistogram interval log (V2): one line for each second and measure, tagged with it.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::messages::MEASURES;
use crate::report;
use crate::report::times::Times;

/// Writes the log; values are nanoseconds.
pub(crate) fn write(path: &Path, times: &Times) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("relay-loadgen; values are nanoseconds")
        .with_start_time(SystemTime::now())
        .with_max_value_divisor(1e6);
    let mut writer = builder.begin_log_with(&mut bytes, &mut serializer)?;
    let first = MEASURES.iter().flat_map(|measure| times.by_second(*measure)).map(|(second, _)| second).min();
    for measure in MEASURES {
        for (second, histogram) in times.by_second(measure) {
            let start = Duration::from_secs(second - first.unwrap_or(second));
            writer
                .write_histogram(histogram, start, Duration::from_secs(1), Tag::new(report::name(measure)))
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
    }
    std::fs::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Measure;
    use crate::recorder::Recorder;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    /// Goal: the log is one that others read. Method: hdrhistogram's own reader, which follows the Java tools.
    #[test]
    fn a_log_is_read_back() {
        let mut recorder = Recorder::new();
        let mut times = Times::default();
        for second in [5, 6] {
            recorder.record(Measure::Delivery, 0, 1_000_000 * second);
            recorder.take(second).iter().for_each(|interval| times.add(interval));
        }
        let path = std::env::temp_dir().join(format!("relay-loadgen-{}.hlog", std::process::id()));
        write(&path, &times).expect("the folder can be written");
        let bytes = std::fs::read(&path).expect("it was written");
        std::fs::remove_file(&path).expect("it is there");
        let entries = IntervalLogIterator::new(&bytes).map(|entry| entry.expect("a line"));
        let intervals = entries.filter_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval),
            LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
        });
        let starts: Vec<_> = intervals
            .map(|interval| (interval.start_timestamp().as_secs(), interval.tag().map(|tag| tag.as_str().to_owned())))
            .collect();
        assert_eq!(starts, [(0, Some("delivery".to_owned())), (1, Some("delivery".to_owned()))]);
    }
}
