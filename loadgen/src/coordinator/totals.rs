//! The sum of what all workers have counted.

use crate::messages::{Counters, GROUPS, ResumeCounters};

/// Totals over all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) counters: Counters,
    /// CPU time of each worker.
    pub(crate) cpu_ns: Vec<u64>,
    pub(crate) wait_ns: u64,
    /// Time of the oldest of the workers' latest reports, on the monotonic clock.
    pub(crate) as_of_ns: u64,
}

impl Counters {
    /// Adds the counters of another worker.
    pub(crate) fn add(&mut self, other: &Self) {
        for group in 0..GROUPS {
            self.open[group] += other.open[group];
            self.subscribed[group] += other.subscribed[group];
            self.lost[group] += other.lost[group];
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
        self.accepted_by_channel.resize(other.accepted_by_channel.len().max(self.accepted_by_channel.len()), 0);
        for (sum, more) in self.accepted_by_channel.iter_mut().zip(&other.accepted_by_channel) {
            *sum += more;
        }
        self.published_by_channel.resize(other.published_by_channel.len().max(self.published_by_channel.len()), 0);
        for (most, other) in self.published_by_channel.iter_mut().zip(&other.published_by_channel) {
            *most = (*most).max(*other);
        }
        self.resume.add(&other.resume);
        for (sum, more) in [
            (&mut self.attempted, other.attempted),
            (&mut self.joined, other.joined),
            (&mut self.failed, other.failed),
            (&mut self.delivered, other.delivered),
            (&mut self.bytes_received, other.bytes_received),
            (&mut self.reads, other.reads),
            (&mut self.duplicates, other.duplicates),
            (&mut self.disordered, other.disordered),
            (&mut self.wrong_channel, other.wrong_channel),
            (&mut self.damaged, other.damaged),
            (&mut self.foreign, other.foreign),
            (&mut self.sent, other.sent),
            (&mut self.accepted, other.accepted),
            (&mut self.refused, other.refused),
            (&mut self.schedules_running, other.schedules_running),
            (&mut self.changes, other.changes),
            (&mut self.removals, other.removals),
            (&mut self.pongs, other.pongs),
        ] {
            *sum += more;
        }
    }
}

impl ResumeCounters {
    fn add(&mut self, other: &Self) {
        for (reason, count) in &other.gaps {
            *self.gaps.entry(reason.clone()).or_default() += count;
        }
        for (sum, more) in [
            (&mut self.resets, other.resets),
            (&mut self.resumes, other.resumes),
            (&mut self.failed, other.failed),
            (&mut self.missed_events, other.missed_events),
            (&mut self.repeated, other.repeated),
            (&mut self.left_out, other.left_out),
            (&mut self.uncertain, other.uncertain),
        ] {
            *sum += more;
        }
    }
}
