//! Notices that a server which owes something gives nothing any more: it is stopped, hangs, or is gone without a reset.

use std::time::Duration;

use crate::clock::SECOND_NS;
use crate::cut::{self, Cut};
use crate::fleet::Totals;
use crate::messages::{Counters, Group};

/// How long a server has given nothing although it owed something. A single byte is progress. Time counts only while every
/// worker looks at its sockets: what waits in a socket, because the generator was stopped or had no core, is no silence.
pub(crate) struct Silence {
    bound: Duration,
    progress: u64,
    /// Silence so far, in ns; `None` while nothing is owed.
    silent_ns: Option<u64>,
    clock: OnTime,
}

impl Silence {
    /// Begins to watch; silence longer than `bound` is too long.
    pub(crate) fn new(bound: Duration) -> Self {
        Self { bound, progress: u64::MAX, silent_ns: None, clock: OnTime::default() }
    }

    /// Takes what has come so far and whether more is owed. Silence that lasts too long cuts the run short.
    pub(crate) fn watch(&mut self, totals: &Totals, owed: Owed) {
        let passed_ns = self.clock.pass(totals);
        if self.lasts(totals.counters.bytes_received, owed, passed_ns) {
            let seconds = self.bound.as_secs();
            cut::set(Cut::Server(format!("the server has given no answer for {seconds} s")));
        }
    }

    fn lasts(&mut self, progress: u64, owed: Owed, passed_ns: u64) -> bool {
        if progress != self.progress || owed == Owed::Nothing {
            self.progress = progress;
            self.silent_ns = None;
        }
        match (owed, self.silent_ns) {
            (Owed::Nothing, _) => false,
            (Owed::Something, None) => {
                self.silent_ns = Some(0);
                false
            }
            (Owed::Something, Some(silent_ns)) => {
                self.silent_ns = Some(silent_ns + passed_ns);
                u128::from(silent_ns + passed_ns) > self.bound.as_nanos()
            }
        }
    }
}

/// Time in which the generator was on time, as its workers report it.
#[derive(Default)]
pub(crate) struct OnTime {
    as_of_ns: u64,
    wait_ns: u64,
}

impl OnTime {
    /// Time since the last call in which every worker looked at its sockets, in ns. Of a worker that was stopped nothing
    /// counts, and of one that waited for a core only the rest.
    pub(crate) fn pass(&mut self, totals: &Totals) -> u64 {
        let first = self.as_of_ns == 0;
        let passed_ns = totals.as_of_ns.saturating_sub(self.as_of_ns).min(STEP_NS_MAX);
        let workers = totals.cpu_ns.len().max(1) as u64;
        let waited_ns = totals.wait_ns.saturating_sub(self.wait_ns) / workers;
        self.as_of_ns = self.as_of_ns.max(totals.as_of_ns);
        self.wait_ns = totals.wait_ns;
        if first { 0 } else { passed_ns.saturating_sub(waited_ns) }
    }
}

/// Notices that a server which is being connected to is gone or silent.
pub(crate) struct JoinSilence {
    silence: Silence,
    joined: u64,
    /// Connections begun when the last one was subscribed.
    attempted: u64,
}

impl JoinSilence {
    /// Begins to watch; `bound` is longer than a connection may take.
    pub(crate) fn new(bound: Duration) -> Self {
        Self { silence: Silence::new(bound), joined: 0, attempted: 0 }
    }

    /// Takes what is counted now and what was before.
    pub(crate) fn watch(&mut self, totals: &Totals, then: &Counters) {
        let now = &totals.counters;
        if now.joined != self.joined {
            (self.joined, self.attempted) = (now.joined, now.attempted);
        }
        let is_owed = now.attempted > self.attempted || now.attempted > now.joined + now.failed;
        self.silence.watch(totals, is_owed.into());
        let crowd = Group::Crowd as usize;
        if now.open[crowd] == 0 && now.lost[crowd] > then.lost[crowd] {
            cut::set(Cut::Server("the server ended every connection".into()));
        }
    }
}

/// Whether the server has something to give.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owed {
    Nothing,
    Something,
}

impl From<bool> for Owed {
    fn from(is_owed: bool) -> Self {
        if is_owed { Self::Something } else { Self::Nothing }
    }
}

/// Silence of a server that is too long while events or answers are due.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Workers report five times a second: what lies further apart was not watched.
const STEP_NS_MAX: u64 = SECOND_NS;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only a server that has something pending and sends nothing is silent, counted from then on; a single byte
    /// is an answer.
    #[test]
    fn silence_is_counted_while_something_is_owed() {
        let mut silence = Silence::new(Duration::from_secs(10));
        assert!(!silence.lasts(0, Owed::Nothing, SECOND_NS));
        assert!(!silence.lasts(0, Owed::Something, 60 * SECOND_NS), "it owes something only now");
        assert!(!silence.lasts(0, Owed::Something, 10 * SECOND_NS));
        assert!(!silence.lasts(1, Owed::Something, 5 * SECOND_NS), "something came");
        assert!(!silence.lasts(1, Owed::Something, 10 * SECOND_NS));
        assert!(silence.lasts(1, Owed::Something, 1));
    }

    /// Goal: no time counts in which the generator did not look. Method: a worker that is stopped for a minute reports once
    /// as soon as it goes on, before it has read anything; another has no core half of the time.
    #[test]
    fn time_without_the_generator_is_no_silence() {
        let mut clock = OnTime::default();
        let mut totals = Totals { cpu_ns: vec![0, 0], ..Totals::default() };
        let mut at = |as_of_ns, wait_ns| {
            (totals.as_of_ns, totals.wait_ns) = (as_of_ns, wait_ns);
            clock.pass(&totals)
        };
        let step = SECOND_NS / 5;
        assert_eq!(at(100 * SECOND_NS, 0), 0, "the first report is where it begins");
        assert_eq!(at(100 * SECOND_NS + step, 0), step);
        assert_eq!(at(100 * SECOND_NS + step, 0), 0, "one of them has not reported");
        assert_eq!(at(160 * SECOND_NS, 0), SECOND_NS, "a minute in which nobody looked");
        assert_eq!(at(160 * SECOND_NS + step, step), step / 2);
    }
}
