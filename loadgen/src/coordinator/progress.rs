//! The progress bar of a run, with live rates. Shown only on a terminal.

use std::cell::Cell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::totals::Totals;
use crate::clock::{SECOND_NS, now_ns};
use crate::report::quantity::number;

/// A bar for one phase of a run.
pub(crate) struct Bar {
    bar: ProgressBar,
    counts: Counts,
    begin: u64,
    last: Cell<(u64, u64)>,
}

/// The count that a bar shows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counts {
    Joins,
    Deliveries,
    Answers,
    Changes,
}

impl Counts {
    fn of(self, totals: &Totals) -> u64 {
        match self {
            Self::Joins => totals.counters.joined,
            Self::Deliveries => totals.counters.delivered,
            Self::Answers => totals.counters.accepted,
            Self::Changes => totals.counters.changes,
        }
    }
}

impl Bar {
    /// A bar that is full when the count is `length` above that in `totals`.
    pub(crate) fn new(label: &str, length: u64, counts: Counts, totals: &Totals) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
        // The length of a closed loop is not known.
        let template = match length {
            0 => "{prefix:>12} {spinner} {human_pos} {msg} [{elapsed}]",
            _ => "{prefix:>12} [{bar:32}] {percent:>3} % of {human_len} {msg} [{elapsed}]",
        };
        let style = ProgressStyle::with_template(template).map(|style| style.progress_chars("=> "));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(label.to_owned());
        let begin = counts.of(totals);
        Self { bar, counts, begin, last: Cell::new((now_ns(), begin)) }
    }

    /// An invisible bar.
    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), counts: Counts::Joins, begin: 0, last: Cell::new((0, 0)) }
    }

    pub(crate) fn show(&self, totals: &Totals) {
        if self.bar.is_hidden() {
            return;
        }
        let (now, count) = (now_ns(), self.counts.of(totals));
        self.bar.set_position(count.saturating_sub(self.begin));
        let (then, before) = self.last.get();
        // Workers report five times a second; over a shorter time, the rate would vary with their reports.
        if now - then > SECOND_NS {
            let rate = count.saturating_sub(before) as f64 * SECOND_NS as f64 / (now - then) as f64;
            self.bar.set_message(format!("{}/s{}", number(rate.round()), troubles(totals)));
            self.last.set((now, count));
        }
    }
}

/// Counts of failures, if there are any.
fn troubles(totals: &Totals) -> String {
    let counters = &totals.counters;
    let ended: u64 = counters.lost.iter().sum();
    [("failed", counters.failed), ("ended", ended), ("refused", counters.refused)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!(" {} {name}", number(count as f64)))
        .collect()
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
