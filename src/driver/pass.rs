//! When a driver is caught up: it has fed everything that the kernel held when it was last caught up.
//!
//! A turn feeds a bounded number of events and reads a bounded number of sockets, so one turn may not be enough. Both
//! events and reads are served in arrival order, so a pass counts them: first as many events as there can have been
//! when it began, then as many reads as were waiting when those were fed. A peer that keeps sending queues behind the
//! others each time and cannot keep a pass from ending.

/// Progress of the current pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    stage: Stage,
    /// Events or reads left until the stage is over.
    left: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Events that the kernel held when the pass began may not have been taken yet.
    Events,
    /// All events are taken; the sockets that they named wait to be read.
    Reads,
}

/// The counts of one turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fed {
    /// Events taken from the kernel.
    pub(super) events: usize,
    /// The kernel had no further event.
    pub(super) exhausted: bool,
    /// Sockets read from, each until it was empty or its budget was used.
    pub(super) reads: usize,
    /// Sockets that wait to be read.
    pub(super) reads_waiting: usize,
    /// Events that the kernel can hold now, at most.
    pub(super) events_max: u64,
}

impl Pass {
    /// A pass that begins before the first turn.
    pub(super) fn new() -> Self {
        Self { stage: Stage::Events, left: u64::MAX }
    }

    /// Records the counts of a turn. Returns true when they complete the pass; then the next one begins.
    pub(super) fn is_complete_with(&mut self, fed: Fed) -> bool {
        let fed_now = match self.stage {
            Stage::Events => fed.events,
            Stage::Reads => fed.reads,
        };
        self.left = self.left.saturating_sub(fed_now as u64);
        if self.stage == Stage::Events && (fed.exhausted || self.left == 0) {
            *self = Self { stage: Stage::Reads, left: fed.reads_waiting as u64 };
        }
        let complete = self.stage == Stage::Reads && (self.left == 0 || fed.reads_waiting == 0);
        if complete {
            *self = Self { stage: Stage::Events, left: fed.events_max };
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Fed = Fed { events: 0, exhausted: true, reads: 0, reads_waiting: 0, events_max: 10 };

    /// A turn that feeds everything completes a pass by itself.
    #[test]
    fn a_quiet_turn_is_a_pass() {
        let mut pass = Pass::new();
        for _ in 0..3 {
            assert!(pass.is_complete_with(QUIET));
            assert!(pass.is_complete_with(Fed { events: 7, reads: 7, ..QUIET }));
        }
    }

    /// A pass waits for the sockets that were readable when its events were taken, and not for those that came later.
    #[test]
    fn a_pass_ends_while_sockets_stay_readable() {
        let mut pass = Pass::new();
        let busy = Fed { events: 3, exhausted: true, reads: 2, reads_waiting: 5, events_max: 10 };
        assert!(!pass.is_complete_with(busy));
        assert!(!pass.is_complete_with(busy), "2 of 5 were read");
        assert!(!pass.is_complete_with(busy));
        assert!(pass.is_complete_with(busy));
        assert!(!pass.is_complete_with(busy), "the next pass");
    }

    /// A pass does not wait for a kernel that always has another event either.
    #[test]
    fn a_pass_ends_while_events_keep_coming() {
        let mut pass = Pass::new();
        assert!(pass.is_complete_with(QUIET));
        let flooded = Fed { events: 4, exhausted: false, reads: 4, reads_waiting: 0, events_max: 10 };
        assert!(!pass.is_complete_with(flooded));
        assert!(!pass.is_complete_with(flooded));
        assert!(pass.is_complete_with(flooded), "more events than the kernel could hold when the pass began");
    }
}
