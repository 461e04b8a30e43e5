//! A round: publish for a while over HTTP, then wait until everything has arrived or nothing arrives any more.

use std::time::{Duration, Instant};

use super::Rhythm;
use crate::abort::{self, Abort};
use crate::clock::SECOND_NS;
use crate::coordinator::Coordinator;
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::totals::Totals;
use crate::coordinator::watchdog::{OnTime, SERVER_SILENCE_MAX, Watchdog};
use crate::coordinator::window::{Used, Window};
use crate::messages::{Counters, Group};
use crate::outcome::{Failure, Verdict};
use crate::process::Watched;
use crate::report::Report;

/// Subscribers spread evenly over channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience {
    pub(crate) subscribers: u64,
    pub(crate) channels: u64,
    /// Subscribers of a channel that do not get an event, such as the sender of a client event.
    pub(crate) excluded: u64,
}

impl Audience {
    /// Deliveries of the events accepted between two moments: each event of a channel to each of its subscribers.
    pub(crate) fn expected(self, before: &Counters, after: &Counters) -> u64 {
        let deliveries = |(channel, accepted): (usize, &u64)| {
            let events = accepted - before.accepted_by_channel.get(channel).copied().unwrap_or(0);
            let more = u64::from((channel as u64) < self.subscribers % self.channels);
            events * (self.subscribers / self.channels + more).saturating_sub(self.excluded)
        };
        after.accepted_by_channel.iter().enumerate().map(deliveries).sum()
    }

    /// One round of publishing.
    pub(crate) fn round(
        self,
        coordinator: &mut Coordinator,
        rhythm: Rhythm,
        label: &str,
        server: Option<Watched>,
    ) -> Result<Used, Failure> {
        let window = Window::open(coordinator, server);
        let before = window.before().counters.clone();
        let counts = if self.subscribers > 0 { Counts::Deliveries } else { Counts::Answers };
        let length = rhythm.events().saturating_mul(self.subscribers.max(1)) / self.channels;
        let bar = Bar::new(label, length, counts, window.before());
        rhythm.begin(coordinator)?;
        self.wait(coordinator, &before, rhythm.seconds, &bar)?;
        Ok(window.close(coordinator))
    }

    /// Waits until all schedules have ended and all expected events have arrived, or nothing arrives any more. Cuts the run
    /// short when no subscriber is left or the server sends nothing although something is pending, but not when it is slow.
    pub(crate) fn wait(
        self,
        coordinator: &mut Coordinator,
        before: &Counters,
        seconds: f64,
        bar: &Bar,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        let (mut clock, mut progress, mut quiet_ns) = (OnTime::default(), 0, 0);
        let mut watchdog = Watchdog::new(SERVER_SILENCE_MAX);
        let is_over = |totals: &Totals| {
            let now = &totals.counters;
            let has_arrived = now.delivered - before.delivered >= self.expected(before, now);
            if self.subscribers > 0 && now.open[Group::Subscribers as usize] == 0 {
                abort::set(Abort::Server("the server closed every connection".into()));
            }
            let is_pending = !has_arrived || now.sent > now.accepted + now.refused;
            watchdog.watch(totals, is_pending.into());
            let passed_ns = clock.pass(totals);
            let counted = now.delivered + now.accepted + now.refused;
            quiet_ns = if counted == progress { quiet_ns + passed_ns } else { 0 };
            progress = counted;
            if now.schedules_running > 0 {
                return begin.elapsed().as_secs_f64() > seconds && quiet_ns > DRAIN_NS;
            }
            has_arrived || quiet_ns > QUIET_NS
        };
        coordinator.wait(RUN_MAX, bar, is_over)?;
        Ok(())
    }

    /// Adds the counts of published and delivered events, and the problems.
    pub(crate) fn report(self, before: &Counters, after: &Counters, report: &mut Report) {
        if self.subscribers > 0 {
            report.count("subscribers", self.subscribers);
        }
        report.count("published", after.accepted - before.accepted);
        report.count("refused", after.refused - before.refused);
        if after.refused > before.refused {
            let text = format!("{} events were refused or not answered", after.refused - before.refused);
            report.problem(Verdict::Failed, text);
        }
        let lost = after.lost[Group::Subscribers as usize] - before.lost[Group::Subscribers as usize];
        if lost > 0 {
            report.problem(Verdict::Failed, format!("the server closed the connections of {lost} subscribers"));
        }
        if self.subscribers > 0 {
            report.deliveries(before, after, self.expected(before, after));
        }
    }
}

/// When nothing has arrived for this long after the last publish, the rest is lost.
const QUIET_NS: u64 = 3 * SECOND_NS;
/// When nothing has happened for this long after the end of the round, schedules that have not ended are given up.
const DRAIN_NS: u64 = 10 * SECOND_NS;
/// Longest round.
const RUN_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
