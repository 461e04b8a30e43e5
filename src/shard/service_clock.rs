//! The clock by which peers are judged: the time in which this shard served them.
//!
//! A verdict about a peer (it stalls, it is silent, its request or message is not complete, it does not come back) may
//! count only time in which the shard could have received the peer's input. A shard is late when it loses the
//! processor, when its process is stopped, or when a turn was long. So the clock differs from the monotonic one in two
//! ways:
//!
//! - Between two turns it advances by at most `limits::SERVED_STEP_MS_MAX`. A punctual shard with connections turns
//!   twice as often, so it loses no time; a late one does not charge its delay to any peer.
//! - A deadline is judged only once everything that had reached the kernel by then was fed. The driver reports that
//!   with `Input::CaughtUp`, so bytes that wait in the kernel are read before their sender is judged.
//!
//! ```text
//! served_ms        ----------|---------------|-----------|-->   advances with each turn
//! pass_began_ms              +-- CaughtUp: a new pass over all sockets begins here
//! judged_ms        --+ CaughtUp: the pass that began here is complete, so deadlines up to here are judged
//! ```

use crate::limits::SERVED_STEP_MS_MAX;

/// Time that this shard served, in ms. It has no relation to the zero of any other clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceClock {
    served_ms: u64,
    pass_began_ms: u64,
    judged_ms: u64,
}

impl Default for ServiceClock {
    /// Begins at 1, so that 0 can mean "never".
    fn default() -> Self {
        Self { served_ms: 1, pass_began_ms: 1, judged_ms: 1 }
    }
}

impl ServiceClock {
    /// A turn began this long after the previous one.
    pub(super) fn advance(&mut self, elapsed_ms: u64) {
        self.served_ms += elapsed_ms.min(SERVED_STEP_MS_MAX);
    }

    /// Everything that the kernel held at the last call was fed: the input of peers up to that time is known.
    pub(super) fn handle_caught_up(&mut self) {
        self.judged_ms = self.pass_began_ms;
        self.pass_began_ms = self.served_ms;
    }

    /// The time of this turn: deadlines are set from here.
    pub(super) fn served_ms(&self) -> u64 {
        self.served_ms
    }

    /// Deadlines up to here may be judged.
    pub(super) fn judged_ms(&self) -> u64 {
        self.judged_ms
    }

    /// In how many ms this clock reaches a time, if the shard is punctual.
    pub(super) fn ms_until(&self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(self.served_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A late turn costs no peer more than one step, and nothing is judged before it was read.
    #[test]
    fn lateness_is_not_counted() {
        let mut clock = ServiceClock::default();
        clock.handle_caught_up();
        clock.advance(60_000);
        assert_eq!(clock.served_ms(), 1 + SERVED_STEP_MS_MAX);
        assert_eq!(clock.judged_ms(), 1);
        clock.handle_caught_up();
        assert_eq!(clock.judged_ms(), 1, "the pass that is complete began before the delay");
        clock.advance(10);
        clock.handle_caught_up();
        assert_eq!(clock.judged_ms(), 1 + SERVED_STEP_MS_MAX);
        assert_eq!(clock.ms_until(clock.served_ms() + 70), 70);
        assert_eq!(clock.ms_until(0), 0);
    }
}
