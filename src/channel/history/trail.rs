//! The numbers of one group of an app: its sequence, and when it had which one.

use smallvec::SmallVec;

use super::index::Index;
use super::{STEPS, Window};

/// A group of channels of an app.
#[derive(Debug)]
pub(super) struct Group {
    /// The number of its last event.
    pub(super) sequence: u64,
    /// Events up to this one may have been dropped before their time, together with the records of their channels.
    evicted: u64,
    /// When events began to be numbered above these sequences, at most one entry per step of the window, the oldest
    /// first. Entries from before the time of records are removed.
    trail: SmallVec<[(u64, u64); STEPS as usize + 2]>,
    /// Its events by their numbers.
    pub(super) index: Index,
}

impl Group {
    /// A group whose numbers begin after this one.
    pub(super) fn new(base: u64) -> Self {
        Self { sequence: base, evicted: base, trail: SmallVec::new(), index: Index::default() }
    }

    /// Numbers the next event.
    pub(super) fn next(&mut self, now_ms: u64, window: &Window) -> u64 {
        let is_due = self.trail.last().is_none_or(|(at_ms, _)| at_ms + window.step_ms() <= now_ms);
        if is_due {
            self.trail.retain(|(at_ms, _)| *at_ms + window.record_ms() > now_ms);
            if self.trail.len() < self.trail.inline_size() {
                self.trail.push((now_ms, self.sequence));
            }
        }
        self.sequence += 1;
        self.sequence
    }

    /// Events of channels without a record have at most this sequence.
    pub(super) fn floor(&self, now_ms: u64, window: &Window) -> u64 {
        let kept = self.trail.iter().find(|(at_ms, _)| *at_ms + window.record_ms() > now_ms);
        kept.map_or(self.sequence, |(_, sequence)| *sequence).max(self.evicted)
    }

    /// A record with this floor was dropped before its time.
    pub(super) fn note_evicted(&mut self, floor: u64) {
        self.evicted = self.evicted.max(floor);
    }
}
