//! At capacity (P-CLOSE-2, threat T15): which connections are closed to free space, so that the reserved slots serve
//! complete requests.
//!
//! Connections that send nothing are free for those who open them, so one that has not made a complete request yet is
//! worth less than the next one. When most of the reserved slots are in use, connections are closed in this order, the
//! oldest of each kind first: those without a complete request so far, after a short time in which it may arrive; those
//! that are refused; those that are idle; those that do not read their answers. A request that is being executed is
//! never cut off. None of this happens below capacity, and all of it uses the service clock (P-LIVE-6).
//!
//! Before that point, neither one app of several nor unauthenticated clients can use up the slots: each may hold a
//! multiple of the free ones.

use std::collections::VecDeque;

use super::Connections;
use crate::app::AppSerial;
use crate::connection::{ConnectionKey, Phase};
use crate::index::Slot;
use crate::limits;
use crate::shard::context::Context;
use crate::shard::deadlines::DeadlineKind;

/// Why a connection on a reserved slot is of less use than a new one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dispensable {
    /// Everything was sent, and it waits for the peer to close.
    Refused,
    /// All its requests are answered.
    Idle,
    /// It has not read its answers, although it had a second to do so.
    Unread,
}

/// Connections that may be closed to free space.
#[derive(Default)]
pub(super) struct Capacity {
    /// When they were accepted, the oldest first; includes at least those without a complete request so far.
    silent: VecDeque<(u64, ConnectionKey)>,
    /// Those that took one of the reserved slots, the oldest first, and some that have ended.
    at_capacity: VecDeque<(u64, ConnectionKey)>,
    /// Connections that the driver was asked to close and has not closed yet.
    pub(super) ending: u32,
    /// When to check for free slots again, while there are too few.
    room_due_ms: Option<u64>,
}

impl Connections {
    /// When to check for free slots again, while there are too few, on the service clock.
    pub(in crate::shard) fn room_due_ms(&self) -> Option<u64> {
        self.capacity.room_due_ms
    }

    /// A connection was accepted; `at_capacity` if only reserved slots are left.
    pub(super) fn admit(&mut self, context: &mut Context, connection: ConnectionKey, at_capacity: bool) {
        let (served_ms, judged_ms) = (context.clock.served_ms(), context.clock.judged_ms());
        while let Some(&(_, front)) = self.capacity.silent.front()
            && !self.is_silent(front)
        {
            self.capacity.silent.pop_front();
        }
        self.capacity.silent.push_back((served_ms, connection));
        if at_capacity {
            self.await_deadline(context, DeadlineKind::AtCapacity, connection.slot(), limits::SILENT_AT_CAPACITY_MS);
            self.remember_at_capacity(context, connection);
        }
        // Connections that were accepted before there were too many.
        if (at_capacity || self.lacks_slots_for_http(context))
            && let Some(accepted_by_ms) = judged_ms.checked_sub(limits::SILENT_AT_CAPACITY_MS)
        {
            while self.end_silent_since(context, accepted_by_ms) {}
        }
        if at_capacity {
            self.make_room(context);
        }
    }

    /// Whether an app that shares the server with others holds as many connections here as it may while so few slots
    /// are free.
    pub(in crate::shard) fn lacks_slots_for_app(&self, context: &Context, app: AppSerial) -> bool {
        context.directory.apps().len() > 1
            && context.metrics.app_counters.connected(app) > self.slots_of_one_app(context)
    }

    /// Whether connections that are not WebSockets hold as many slots as one app may. The reserved slots are theirs.
    pub(in crate::shard) fn lacks_slots_for_http(&self, context: &Context) -> bool {
        let stats = &context.metrics.stats;
        let others = stats.connections - stats.websockets - stats.streams;
        let always = context.config.refusal_slots.max(limits::HTTP_SLOTS_MIN);
        others > self.slots_of_one_app(context).max(u64::from(always))
    }

    /// How many connections of this shard one app may hold now: a multiple of the free slots, so that some slots stay
    /// free for others whatever one app does (P-CLOSE-2).
    fn slots_of_one_app(&self, context: &Context) -> u64 {
        let ordinary = u64::from(context.config.slots.saturating_sub(context.config.refusal_slots));
        u64::from(limits::APP_SLOTS_OF_FREE) * ordinary.saturating_sub(context.metrics.stats.connections)
    }

    /// Keeps the list of connections on reserved slots as short as there are such slots, up to a factor.
    fn remember_at_capacity(&mut self, context: &Context, connection: ConnectionKey) {
        let count_max = 4 * context.config.refusal_slots.max(1) as usize;
        if self.capacity.at_capacity.len() >= count_max {
            let mut known = std::mem::take(&mut self.capacity.at_capacity);
            known.retain(|(_, known)| self.is_live(*known) && self.table.hot[known.slot()].phase != Phase::Ended);
            // Others have found ordinary slots since, so that a slot can be freed among them.
            known.drain(..known.len().saturating_sub(count_max / 2));
            self.capacity.at_capacity = known;
        }
        self.capacity.at_capacity.push_back((context.clock.served_ms(), connection));
    }

    /// Frees slots again after a while in which there were none that may be freed.
    pub(in crate::shard) fn make_room_if_due(&mut self, context: &mut Context) {
        if self.capacity.room_due_ms.is_some_and(|due_ms| due_ms <= context.clock.judged_ms()) {
            self.make_room(context);
        }
    }

    /// Closes connections until half of the reserved slots are free, as far as there are some that may be closed.
    fn make_room(&mut self, context: &mut Context) {
        self.capacity.room_due_ms = None;
        if let Some(accepted_by_ms) = context.clock.judged_ms().checked_sub(limits::SILENT_GRACE_MS) {
            while self.lacks_room(context) && self.end_silent_since(context, accepted_by_ms) {}
        }
        for dispensable in [Dispensable::Refused, Dispensable::Idle, Dispensable::Unread] {
            for _ in 0..self.capacity.at_capacity.len() {
                if !self.lacks_room(context) {
                    return;
                }
                self.look_at_oldest(context, dispensable);
            }
            // Its time will be over soon, and it is closed before one that has made a request.
            if let Some((accepted_ms, _)) = self.capacity.silent.front() {
                self.capacity.room_due_ms = Some(accepted_ms + limits::SILENT_GRACE_MS);
                return;
            }
        }
        if self.lacks_room(context) {
            self.capacity.room_due_ms = Some(context.clock.served_ms() + limits::SILENT_GRACE_MS);
        }
    }

    /// Closes the oldest connection on a reserved slot if it is of less use than a new one, or moves it to the end of
    /// the list.
    fn look_at_oldest(&mut self, context: &mut Context, dispensable: Dispensable) {
        let Some((accepted_ms, connection)) = self.capacity.at_capacity.pop_front() else { return };
        let has_had_time = accepted_ms + limits::SILENT_AT_CAPACITY_MS <= context.clock.judged_ms();
        if !self.is_live(connection) || self.table.hot[connection.slot()].phase == Phase::Ended {
            return;
        }
        let may_end = dispensable != Dispensable::Unread || has_had_time;
        if may_end && self.is_dispensable(connection.slot(), dispensable) {
            let is_unread = self.table.hot[connection.slot()].outbox.unsent_bytes() > 0;
            self.end(context, connection.slot(), is_unread);
        } else {
            self.capacity.at_capacity.push_back((accepted_ms, connection));
        }
    }

    /// Closes the oldest connection without a complete request so far if it was accepted by then.
    fn end_silent_since(&mut self, context: &mut Context, accepted_by_ms: u64) -> bool {
        while let Some(&(accepted_ms, connection)) = self.capacity.silent.front()
            && (accepted_ms <= accepted_by_ms || !self.is_silent(connection))
        {
            self.capacity.silent.pop_front();
            if self.is_silent(connection) {
                self.end(context, connection.slot(), false);
                return true;
            }
        }
        false
    }

    fn is_dispensable(&self, slot: Slot, dispensable: Dispensable) -> bool {
        let line = &self.table.hot[slot];
        let is_sent = line.outbox.unsent_bytes() == 0;
        match line.phase {
            Phase::Http => {
                let http = self.http_of(slot);
                let is_answered = http.is_some_and(|http| http.made_request && http.is_answered());
                is_answered && dispensable == if is_sent { Dispensable::Idle } else { Dispensable::Unread }
            }
            Phase::Closing | Phase::Lingering => {
                dispensable == if is_sent { Dispensable::Refused } else { Dispensable::Unread }
            }
            Phase::Free | Phase::Admitting | Phase::Open | Phase::Ended => false,
        }
    }

    /// True while a connection has not made a complete request.
    pub(in crate::shard) fn is_silent(&self, connection: ConnectionKey) -> bool {
        self.is_live(connection)
            && self.table.hot[connection.slot()].phase == Phase::Http
            && self.http_of(connection.slot()).is_some_and(|http| !http.made_request)
    }

    /// Whether less than half of the reserved slots are free, or about to be.
    fn lacks_room(&self, context: &Context) -> bool {
        let in_use = (context.metrics.stats.connections as u32).saturating_sub(self.capacity.ending);
        context.config.slots.saturating_sub(in_use) < (context.config.refusal_slots / 2).max(1)
    }
}
