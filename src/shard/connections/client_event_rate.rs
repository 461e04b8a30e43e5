//! The rate of client events of a connection (P-LIM-9): a bucket, kept as one time in the hot line.

use super::Connections;
use crate::index::Slot;
use crate::limits;
use crate::shard::context::Context;

/// Ticks of a bucket's clock in a millisecond: fine enough that the highest rate is met within 1 %.
const TICKS_PER_MS: u32 = 100;

/// No bucket is ever further ahead than this, whatever the rate was: two seconds.
const AHEAD_MAX: u32 = 2_000 * TICKS_PER_MS;

const _: () = assert!(1_000 * TICKS_PER_MS / limits::CLIENT_EVENTS_PER_SECOND_SETTING_MAX >= 100);

impl Connections {
    /// A connection starts with a full bucket.
    pub(super) fn fill_client_events(&mut self, context: &Context, slot: Slot) {
        self.table.hot[slot].due_or_stream = ticks(context);
    }

    /// Takes one event from the connection's bucket: `rate` per second, as many at once (P-LIM-9).
    pub(in crate::shard) fn take_client_event(&mut self, context: &Context, slot: Slot, rate: u32) -> bool {
        let interval = (1_000 * TICKS_PER_MS).div_ceil(rate);
        let burst = interval * rate;
        let now = ticks(context);
        let due = &mut self.table.hot[slot].due_or_stream;
        // The bucket is empty when the next event is due more than a burst less one interval from now. A due time in
        // the past, also one that the clock has wrapped around, is a full bucket.
        let ahead = due.wrapping_sub(now);
        let ahead = if ahead > AHEAD_MAX { 0 } else { ahead };
        if ahead > burst.saturating_sub(interval) {
            return false;
        }
        *due = now.wrapping_add(ahead).wrapping_add(interval);
        true
    }
}

/// The bucket's clock. It wraps after 12 hours: a connection that was silent for exactly that long finds its bucket as
/// it left it, for a second.
fn ticks(context: &Context) -> u32 {
    (context.now.monotonic_ms as u32).wrapping_mul(TICKS_PER_MS)
}
