//! Detects a server that has events or answers pending and sends nothing: it is stopped, hangs, or is gone without a reset.

use std::time::Duration;

use super::totals::Totals;
use crate::abort::{self, Abort};
use crate::clock::SECOND_NS;
use crate::messages::{Counters, Group};

/// How long a server has sent nothing although something was pending. A single byte is progress. Time counts only while every
/// worker reads its sockets: bytes may be waiting in a socket because the generator was stopped or had no core.
pub(crate) struct Watchdog {
    bound: Duration,
    progress: u64,
    /// How long nothing has come, in ns; `None` while nothing is pending.
    silent_ns: Option<u64>,
    clock: OnTime,
}

impl Watchdog {
    /// A watchdog that fires after the server has been silent for `bound`.
    pub(crate) fn new(bound: Duration) -> Self {
        Self { bound, progress: u64::MAX, silent_ns: None, clock: OnTime::default() }
    }

    /// Takes the totals and whether something is pending. A silence longer than the bound cuts the run short.
    pub(crate) fn watch(&mut self, totals: &Totals, pending: Pending) {
        let passed_ns = self.clock.pass(totals);
        if self.expires(totals.counters.bytes_received, pending, passed_ns) {
            let seconds = self.bound.as_secs();
            abort::set(Abort::Server(format!(
                "the server has sent nothing for {seconds} s while answers or events were pending"
            )));
        }
    }

    fn expires(&mut self, progress: u64, pending: Pending, passed_ns: u64) -> bool {
        if progress != self.progress || pending == Pending::Nothing {
            self.progress = progress;
            self.silent_ns = None;
        }
        match (pending, self.silent_ns) {
            (Pending::Nothing, _) => false,
            (Pending::Something, None) => {
                self.silent_ns = Some(0);
                false
            }
            (Pending::Something, Some(silent_ns)) => {
                self.silent_ns = Some(silent_ns + passed_ns);
                u128::from(silent_ns + passed_ns) > self.bound.as_nanos()
            }
        }
    }
}

/// Time during which the generator kept up, as its workers report it.
#[derive(Default)]
pub(crate) struct OnTime {
    as_of_ns: u64,
    wait_ns: u64,
}

impl OnTime {
    /// Time since the last call during which every worker read its sockets, in ns. Time in which a worker was stopped or
    /// waited for a core does not count.
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

/// Detects a server that goes away or stops answering while connections are being opened.
pub(crate) struct JoinWatchdog {
    watchdog: Watchdog,
    joined: u64,
    /// Connections begun when the last one was subscribed.
    attempted: u64,
}

impl JoinWatchdog {
    /// `bound` is longer than a connection may take.
    pub(crate) fn new(bound: Duration) -> Self {
        Self { watchdog: Watchdog::new(bound), joined: 0, attempted: 0 }
    }

    /// Takes the totals now and the counters before.
    pub(crate) fn watch(&mut self, totals: &Totals, then: &Counters) {
        let now = &totals.counters;
        if now.joined != self.joined {
            (self.joined, self.attempted) = (now.joined, now.attempted);
        }
        let is_pending = now.attempted > self.attempted || now.attempted > now.joined + now.failed;
        self.watchdog.watch(totals, is_pending.into());
        let group = Group::Subscribers as usize;
        if now.open[group] == 0 && now.lost[group] > then.lost[group] {
            abort::set(Abort::Server("the server closed every connection".into()));
        }
    }
}

/// Whether the server still has to send something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pending {
    Nothing,
    Something,
}

impl From<bool> for Pending {
    fn from(is_pending: bool) -> Self {
        if is_pending { Self::Something } else { Self::Nothing }
    }
}

/// The longest silence of a server while events or answers are pending.
pub(crate) const SERVER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Workers report five times a second: a longer step was not observed.
const STEP_NS_MAX: u64 = SECOND_NS;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only a server that has something pending and sends nothing is silent, counted from then on; a single byte
    /// is an answer.
    #[test]
    fn silence_is_counted_while_something_is_pending() {
        let mut watchdog = Watchdog::new(Duration::from_secs(10));
        assert!(!watchdog.expires(0, Pending::Nothing, SECOND_NS));
        assert!(!watchdog.expires(0, Pending::Something, 60 * SECOND_NS), "only now is something pending");
        assert!(!watchdog.expires(0, Pending::Something, 10 * SECOND_NS));
        assert!(!watchdog.expires(1, Pending::Something, 5 * SECOND_NS), "a byte came");
        assert!(!watchdog.expires(1, Pending::Something, 10 * SECOND_NS));
        assert!(watchdog.expires(1, Pending::Something, 1));
    }

    /// Goal: time in which the generator did not read does not count. Method: a worker that is stopped for a minute reports
    /// once as soon as it continues, before it has read anything; another has no core half of the time.
    #[test]
    fn time_without_the_generator_is_no_silence() {
        let mut clock = OnTime::default();
        let mut totals = Totals { cpu_ns: vec![0, 0], ..Totals::default() };
        let mut at = |as_of_ns, wait_ns| {
            (totals.as_of_ns, totals.wait_ns) = (as_of_ns, wait_ns);
            clock.pass(&totals)
        };
        let step = SECOND_NS / 5;
        assert_eq!(at(100 * SECOND_NS, 0), 0, "the first report is the start");
        assert_eq!(at(100 * SECOND_NS + step, 0), step);
        assert_eq!(at(100 * SECOND_NS + step, 0), 0, "one of them has not reported");
        assert_eq!(at(160 * SECOND_NS, 0), SECOND_NS, "a minute in which no worker read");
        assert_eq!(at(160 * SECOND_NS + step, step), step / 2);
    }
}
