//! A round: publishing for a while over HTTP, and waiting until everything has arrived or nothing arrives any more.

use std::time::{Duration, Instant};

use super::Rhythm;
use crate::cut::{self, Cut};
use crate::fleet::{Fleet, Totals};
use crate::messages::{Counters, Group};
use crate::outcome::{Failure, Verdict};
use crate::process::Watched;
use crate::progress::{Bar, Counts};
use crate::report::Report;
use crate::silence::{SILENCE_MAX, Silence};
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

    /// Waits until all schedules are at their end and all that is expected has arrived, or time is up. Without a
    /// subscriber, or with a server that gives nothing of what it owes, the run is cut short.
    pub(crate) fn wait(self, fleet: &mut Fleet, before: &Counters, seconds: f64, bar: &Bar) -> Result<(), Failure> {
        let mut last = (0, Instant::now());
        let mut silence = Silence::new(SILENCE_MAX);
        let is_over = |totals: &Totals| {
            let now = &totals.counters;
            if now.delivered != last.0 {
                last = (now.delivered, Instant::now());
            }
            let has_arrived = now.delivered - before.delivered >= self.expected(before, now);
            if self.subscribers > 0 && now.open[Group::Crowd as usize] == 0 {
                cut::set(Cut::Server("the server ended every connection".into()));
            }
            let is_owed = !has_arrived || now.sent > now.accepted + now.refused;
            silence.watch(now.delivered + now.accepted, is_owed.into());
            now.schedules_running == 0 && (has_arrived || last.1.elapsed() > QUIET)
        };
        fleet.wait(Duration::from_secs_f64(seconds + DRAIN_SECONDS), bar, is_over)?;
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
const QUIET: Duration = Duration::from_secs(3);
/// How long events may be under way after the last was published.
const DRAIN_SECONDS: f64 = 10.0;
