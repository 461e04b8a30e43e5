//! Drain (P-CLOSE-1): the process is about to end.

use super::Shard;
use crate::connection::Phase;
use crate::index::Slot;
use crate::limits;
use crate::protocol::close::CloseReason;

/// Below this many WebSockets, drain closes them all at once.
const DRAIN_AT_ONCE_MAX: u64 = 100;
/// How often a draining shard checks whether it is done.
pub(super) const DRAIN_INTERVAL_MS: u64 = 20;

/// A drain in progress.
#[derive(Debug)]
pub(super) struct Drain {
    started_ms: u64,
    /// Slots below it were visited.
    next: u32,
    /// Nothing is left to wait for.
    pub(super) done: bool,
}

impl Shard {
    /// Stops accepting WebSockets; closes the present ones evenly over the grace period, so that clients without jitter
    /// do not all reconnect at once.
    pub(super) fn start_drain(&mut self) {
        if self.drain.is_none() {
            self.drain = Some(Drain { started_ms: self.context.clock.served_ms(), next: 0, done: false });
            self.context.is_draining = true;
            self.owner.report_all_departures(&mut self.context);
            self.quota.return_leases(&mut self.context);
            let (requests, mut parts) = self.requests();
            requests.end_polls(&mut parts);
            self.handle_timeouts();
        }
    }

    pub(super) fn continue_drain(&mut self) {
        let Some(drain) = &self.drain else { return };
        if drain.done {
            return;
        }
        let elapsed_ms = self.context.clock.served_ms() - drain.started_ms;
        let slots = u64::from(self.connections.slots());
        let grace_ms = self.context.config.options.drain.as_millis() as u64;
        let stats = &self.context.metrics.stats;
        let few = stats.websockets + stats.streams <= DRAIN_AT_ONCE_MAX;
        let until = if few || elapsed_ms >= grace_ms { slots } else { slots * elapsed_ms / grace_ms.max(1) } as u32;
        for slot in (drain.next..until).map(Slot) {
            self.connections.close_websocket(&mut self.context, slot, &CloseReason::Draining);
        }
        let over = elapsed_ms >= grace_ms + limits::CLOSE_WITHIN_MS;
        let done = over || (u64::from(until) == slots && !(0..slots as u32).any(|slot| self.holds_drain(Slot(slot))));
        let drain = self.drain.as_mut().expect("a drain does not end by itself");
        drain.next = drain.next.max(until);
        drain.done = done;
    }

    /// True for a connection that drain waits for: all except idle HTTP ones.
    fn holds_drain(&self, slot: Slot) -> bool {
        match self.connections.phase(slot) {
            Phase::Free | Phase::Ended | Phase::Lingering => false,
            Phase::Http => {
                let http = self.connections.http_of(slot);
                self.connections.unsent_bytes(slot) > 0 || http.is_some_and(|http| !http.is_answered())
            }
            Phase::Admitting | Phase::Open | Phase::Closing => true,
        }
    }
}
