//! A round: publishing for a while over HTTP, and waiting until everything has arrived or nothing arrives any more.

use std::time::{Duration, Instant};

use super::Rhythm;
use crate::clock::SECOND_NS;
use crate::cut::{self, Cut};
use crate::fleet::{Fleet, Totals};
use crate::messages::{Counters, Group};
use crate::outcome::{Failure, Verdict};
use crate::process::Watched;
use crate::progress::{Bar, Counts};
use crate::report::Report;
use crate::silence::{OnTime, SILENCE_MAX, Silence};
use crate::window::{Used, Window};

/// Subscribers spread evenly over channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience {
    pub(crate) subscribers: u64,
    pub(crate) channels: u64,
    /// How many of a channel's subscribers do not get an event: the sender of a client event.
    pub(crate) excluded: u64,
}

impl Audience {
    /// Deliveries of what was accepted between two moments: each channel's events to each of its subscribers.
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
        fleet: &mut Fleet,
        rhythm: Rhythm,
        label: &str,
        server: Option<Watched>,
    ) -> Result<Used, Failure> {
        let window = Window::open(fleet, server);
        let before = window.before().counters.clone();
        let counts = if self.subscribers > 0 { Counts::Deliveries } else { Counts::Answers };
        let length = rhythm.events().saturating_mul(self.subscribers.max(1)) / self.channels;
        let bar = Bar::new(label, length, counts, window.before());
        rhythm.begin(fleet)?;
        self.wait(fleet, &before, rhythm.seconds, &bar)?;
        Ok(window.close(fleet))
    }

    /// Waits until all schedules are at their end and all that is expected has arrived, or nothing arrives any more. Without
    /// a subscriber, or with a server that sends nothing of what is pending, the run is cut short. A server that is slow and
    /// goes on is waited for.
    pub(crate) fn wait(self, fleet: &mut Fleet, before: &Counters, seconds: f64, bar: &Bar) -> Result<(), Failure> {
        let begin = Instant::now();
        let (mut clock, mut progress, mut quiet_ns) = (OnTime::default(), 0, 0);
        let mut silence = Silence::new(SILENCE_MAX);
        let is_over = |totals: &Totals| {
            let now = &totals.counters;
            let has_arrived = now.delivered - before.delivered >= self.expected(before, now);
            if self.subscribers > 0 && now.open[Group::Crowd as usize] == 0 {
                cut::set(Cut::Server("the server ended every connection".into()));
            }
            let is_owed = !has_arrived || now.sent > now.accepted + now.refused;
            silence.watch(totals, is_owed.into());
            let passed_ns = clock.pass(totals);
            let counted = now.delivered + now.accepted + now.refused;
            quiet_ns = if counted == progress { quiet_ns + passed_ns } else { 0 };
            progress = counted;
            if now.schedules_running > 0 {
                return begin.elapsed().as_secs_f64() > seconds && quiet_ns > DRAIN_NS;
            }
            has_arrived || quiet_ns > QUIET_NS
        };
        fleet.wait(RUN_MAX, bar, is_over)?;
        Ok(())
    }

    /// Adds what was published and what arrived, and what is wrong with it.
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
        let lost = after.lost[Group::Crowd as usize] - before.lost[Group::Crowd as usize];
        if lost > 0 {
            report.problem(Verdict::Failed, format!("the server ended {lost} subscribers"));
        }
        if self.subscribers > 0 {
            report.deliveries(before, after, self.expected(before, after));
        }
    }
}

/// When nothing has arrived for so long after the last was published, the rest is lost.
const QUIET_NS: u64 = 3 * SECOND_NS;
/// When nothing has happened for so long after the time of the round, schedules that are not at their end never will be.
const DRAIN_NS: u64 = 10 * SECOND_NS;
/// The longest round.
const RUN_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
