//! Deadlines of a connection: setting, renewing and handling them when they expire.

use super::Connections;
use crate::connection::{Flags, Phase};
use crate::index::Slot;
use crate::limits;
use crate::shard::context::Context;
use crate::shard::deadlines::{Deadline, DeadlineKind};
use crate::wire::http::RequestDecoder;

/// The state of a deadline at its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// Its connection is gone, or in a phase that it does not apply to.
    Stale,
    /// The awaited input arrived.
    Met,
    /// A later request or message is awaited now, until this time.
    Renewed(u64),
    /// The awaited input has not arrived.
    Due,
}

impl Standing {
    /// The state of a deadline at `at_ms` if input is awaited until `awaited_ms`; 0 means none.
    fn of(at_ms: u64, awaited_ms: u64) -> Self {
        match awaited_ms {
            0 => Self::Met,
            later if later > at_ms => Self::Renewed(later),
            _ => Self::Due,
        }
    }
}

/// A deadline that was not met.
pub(in crate::shard) struct Due {
    pub(in crate::shard) kind: DeadlineKind,
    pub(in crate::shard) slot: Slot,
}

impl Connections {
    /// Sets a deadline this far in the future; returns its time on the service clock.
    pub(in crate::shard) fn await_deadline(
        &mut self,
        context: &mut Context,
        kind: DeadlineKind,
        slot: Slot,
        within_ms: u64,
    ) -> u64 {
        let at_ms = context.clock.served_ms() + within_ms;
        self.queue_deadline(context, kind, slot, at_ms);
        at_ms
    }

    fn queue_deadline(&mut self, context: &mut Context, kind: DeadlineKind, slot: Slot, at_ms: u64) {
        if kind == DeadlineKind::Request {
            self.http(slot).queued_deadline_ms = at_ms;
        }
        let deadline = Deadline { at_ms, kind, connection: self.key(slot) };
        context.deadlines.push(deadline, |deadline| self.standing(deadline) == Standing::Stale);
    }

    /// Takes the next deadline that was not met. Until the shard has caught up it cannot tell whether a peer was in
    /// time.
    pub(in crate::shard) fn take_due(&mut self, context: &mut Context) -> Option<Due> {
        if context.metrics.stats.connections == 0 {
            context.deadlines.clear();
        }
        while let Some(deadline) = context.deadlines.peek().filter(|at| at.at_ms <= context.clock.served_ms()) {
            let standing = self.standing(&deadline);
            if standing == Standing::Due && deadline.at_ms > context.clock.judged_ms() {
                return None;
            }
            context.deadlines.pop();
            let Deadline { kind, connection, .. } = deadline;
            let slot = connection.slot();
            match standing {
                Standing::Stale => {}
                Standing::Renewed(at_ms) => self.queue_deadline(context, kind, slot, at_ms),
                Standing::Met => self.note_unqueued(kind, slot),
                Standing::Due => {
                    self.note_unqueued(kind, slot);
                    return Some(Due { kind, slot });
                }
            }
        }
        None
    }

    fn standing(&self, deadline: &Deadline) -> Standing {
        let Deadline { at_ms, kind, connection } = *deadline;
        if !self.is_live(connection) {
            return Standing::Stale;
        }
        let (line, cold) = (&self.table.hot[connection.slot()], self.cold(connection.slot()));
        match (kind, line.phase) {
            (DeadlineKind::Request, Phase::Http) => {
                match cold.and_then(|cold| cold.http.as_ref()) {
                    // An earlier deadline of a later request replaced it.
                    Some(http) if http.queued_deadline_ms != at_ms => Standing::Stale,
                    http => Standing::of(at_ms, http.map_or(0, |http| http.deadline_ms)),
                }
            }
            (DeadlineKind::Message, Phase::Open | Phase::Closing) => {
                Standing::of(at_ms, cold.map_or(0, |cold| cold.message_deadline_ms))
            }
            (DeadlineKind::Linger, Phase::Lingering)
            | (DeadlineKind::CloseAnswer, Phase::Closing)
            | (DeadlineKind::SlowReset, Phase::Open | Phase::Closing | Phase::Lingering) => Standing::Due,
            (DeadlineKind::Authorization, Phase::Open) if line.flags.contains(Flags::UNAUTHORIZED) => Standing::Due,
            (DeadlineKind::AtCapacity, Phase::Http) if self.is_silent(connection) => Standing::Due,
            // The connection is in a phase that the deadline does not apply to.
            (
                DeadlineKind::Request
                | DeadlineKind::Message
                | DeadlineKind::Linger
                | DeadlineKind::CloseAnswer
                | DeadlineKind::SlowReset
                | DeadlineKind::Authorization
                | DeadlineKind::AtCapacity,
                _,
            ) => Standing::Stale,
        }
    }

    /// The queue no longer has a deadline of this kind for the connection.
    fn note_unqueued(&mut self, kind: DeadlineKind, slot: Slot) {
        match kind {
            DeadlineKind::Request => self.http(slot).queued_deadline_ms = 0,
            DeadlineKind::Message => self.table.hot[slot].flags.remove(Flags::MESSAGE_AWAITED),
            DeadlineKind::Linger
            | DeadlineKind::CloseAnswer
            | DeadlineKind::SlowReset
            | DeadlineKind::Authorization
            | DeadlineKind::AtCapacity => {}
        }
    }

    /// The peer had its time, and everything that it sent was read. If the peer waits for the shard itself, its time
    /// starts again (P-LIVE-6).
    pub(in crate::shard) fn end_overdue(&mut self, context: &mut Context, due: &Due) {
        let (kind, slot) = (due.kind, due.slot);
        let line = &self.table.hot[slot];
        let (paused, unsent) = (line.flags.contains(Flags::PAUSED), line.outbox.is_unattempted());
        match kind {
            DeadlineKind::Request if paused => self.renew_request_deadline(context, slot),
            DeadlineKind::Request => {
                if self.http(slot).decoder.is_idle() {
                    self.end(context, slot, false);
                } else {
                    self.answer_too_late(context, slot);
                }
            }
            DeadlineKind::Message if paused => self.renew_message_deadline(context, slot),
            DeadlineKind::Message => self.fail_websocket(context, slot, 1008, "The message took too long"),
            DeadlineKind::CloseAnswer if unsent => {
                self.await_deadline(context, kind, slot, limits::CLOSE_WITHIN_MS);
            }
            DeadlineKind::Linger | DeadlineKind::CloseAnswer | DeadlineKind::AtCapacity => {
                self.end(context, slot, false);
            }
            DeadlineKind::SlowReset => self.end(context, slot, true),
            DeadlineKind::Authorization => self.end_unauthorized(context, slot),
        }
    }

    /// The current request must be complete within a total time (threat T14).
    pub(in crate::shard) fn renew_request_deadline(&mut self, context: &mut Context, slot: Slot) {
        let served_ms = context.clock.served_ms();
        let http = self.http(slot);
        let at_ms = served_ms + limits::REQUEST_WITHIN_MS + extra_request_ms(&http.decoder);
        http.deadline_ms = at_ms;
        // A queued deadline comes first, unless it belongs to an earlier request with a large body.
        if http.queued_deadline_ms == 0 || at_ms < http.queued_deadline_ms {
            self.queue_deadline(context, DeadlineKind::Request, slot, at_ms);
        }
    }

    /// The current message must be complete within a total time (threat T8).
    pub(in crate::shard) fn renew_message_deadline(&mut self, context: &mut Context, slot: Slot) {
        let at_ms = context.clock.served_ms() + limits::MESSAGE_WITHIN_MS;
        self.cold_or_default(slot).message_deadline_ms = at_ms;
        if self.table.hot[slot].flags.raise(Flags::MESSAGE_AWAITED) {
            self.queue_deadline(context, DeadlineKind::Message, slot, at_ms);
        }
    }
}

/// Time that a large body of a caller with a valid credential adds to that of its request (threat T14).
pub(in crate::shard) fn extra_request_ms(decoder: &RequestDecoder) -> u64 {
    (decoder.body_bytes_awaited() as u64).div_ceil(1 << 20).saturating_sub(1) * limits::REQUEST_MS_PER_MIB
}
