//! The times of a run as a table for spreadsheets: one row for each second and measure, in milliseconds.

use std::io;
use std::path::Path;

use crate::messages::MEASURES;
use crate::report;
use crate::report::histogram::milliseconds;
use crate::report::times::Times;

/// Writes the table. Seconds count from the first of the run; a second in which nothing was measured has no row.
pub(crate) fn write(path: &Path, times: &Times) -> io::Result<()> {
    std::fs::write(path, table(times))
}

fn table(times: &Times) -> String {
    let first = MEASURES.iter().flat_map(|measure| times.by_second(*measure)).map(|(second, _)| second).min();
    let mut text = String::from("second,measure,count,min_ms,p50_ms,p95_ms,p99_ms,max_ms\n");
    for measure in MEASURES {
        for (second, histogram) in times.by_second(measure) {
            let percentile = |percentile| milliseconds(histogram, percentile);
            text.push_str(&format!(
                "{},{},{},{:.3},{:.3},{:.3},{:.3},{:.3}\n",
                second - first.unwrap_or(second),
                report::name(measure),
                histogram.len(),
                histogram.min() as f64 / 1e6,
                percentile(50.0),
                percentile(95.0),
                percentile(99.0),
                histogram.max() as f64 / 1e6,
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Measure;
    use crate::recorder::Recorder;

    #[test]
    fn a_table_has_a_row_for_each_second() {
        let mut recorder = Recorder::new();
        let mut times = Times::default();
        for second in [7, 9] {
            recorder.record(Measure::Join, 0, 2_000_000);
            recorder.take(second).iter().for_each(|interval| times.add(interval));
        }
        let table = table(&times);
        let rows: Vec<_> = table.lines().collect();
        assert_eq!(rows.len(), 3);
        assert!(rows[1].starts_with("0,join,1,") && rows[2].starts_with("2,join,1,"), "{table}");
        assert!(rows.iter().all(|row| row.split(',').count() == 8));
    }
}
