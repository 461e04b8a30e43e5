//! What people see while a run lasts: a bar with live rates, only on a terminal.

use std::cell::Cell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::{SECOND_NS, now_ns};
use crate::fleet::Totals;
use crate::quantity::number;

/// A bar for one phase of a run.
pub(crate) struct Bar {
    bar: ProgressBar,
    counts: Counts,
    begin: u64,
    last: Cell<(u64, u64)>,
}

/// What the bar counts.
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
    /// A bar up to `length` more than is counted in `totals`.
    pub(crate) fn new(label: &str, length: u64, counts: Counts, totals: &Totals) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
        // Of a closed loop nobody knows how much it will be.
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

    /// A bar for what takes no time worth watching.
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
        // Workers report five times a second, so that a shorter time would show their rhythm.
        if now - then > SECOND_NS {
            let rate = count.saturating_sub(before) as f64 * SECOND_NS as f64 / (now - then) as f64;
            self.bar.set_message(format!("{}/s{}", number(rate.round()), troubles(totals)));
            self.last.set((now, count));
        }
    }
}

/// What goes wrong, as soon as it does.
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
