//! Time: deadlines, the sweep over idle connections (P-LIVE-4, P-CLOSE-5), and drain (P-CLOSE-1).
//!
//! No connection has a timer. A sweep visits all slots every five seconds; what must happen sooner is in one queue of
//! deadlines. All of it runs on the shard's service clock, so that no peer is judged for time in which the shard was late
//! (P-LIVE-6).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Shard;
use super::input::extra_request_ms;
use crate::app::AppSerial;
use crate::connection::{ConnectionKey, Flags, Phase};
use crate::limits;
use crate::protocol::close::CloseReason;
use crate::wire::websocket::{self, Opcode};

/// What a deadline is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Deadline {
    /// A request, or the upgrade, must be whole.
    Request,
    /// A message must be whole.
    Message,
    /// The peer must have ended its direction.
    Linger,
    /// The peer must have answered our Close.
    CloseAnswer,
    /// A slow reader is reset.
    SlowReset,
    /// The connection must be authorized (P-AUTHZ-1).
    Authorization,
    /// A connection that was accepted at capacity must have made a request (P-CLOSE-2).
    AtCapacity,
}

/// Time between two steps of the sweep.
const SWEEP_INTERVAL_MS: u64 = 100;
/// Steps in which the sweep visits every slot once.
const SWEEP_STEPS: usize = 50;
/// Time in which it does so, in tenths of a second.
const SWEEP_TENTHS: u32 = (SWEEP_INTERVAL_MS * SWEEP_STEPS as u64 / 100) as u32;
/// Below this many WebSockets, drain closes them all at once.
const DRAIN_AT_ONCE_MAX: u64 = 100;
/// How often a draining shard looks whether it is done.
const DRAIN_INTERVAL_MS: u64 = 20;

const _: () =
    assert!(SWEEP_INTERVAL_MS * SWEEP_STEPS as u64 * 2 == limits::STALL_MS, "a stall is seen at three visits");
const _: () = assert!(2 * SWEEP_INTERVAL_MS == limits::SERVED_STEP_MS_MAX, "a punctual shard loses no time");

/// The queue of deadlines and the state of the sweep. All times are of the service clock.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: BinaryHeap<Reverse<(u64, Deadline, ConnectionKey)>>,
    sweep_due_ms: u64,
    /// Which part of the slots the next step visits.
    sweep_step: usize,
}

impl Deadlines {
    /// Deadlines of a kind in the queue.
    #[cfg(test)]
    pub(super) fn count_of(&self, kind: Deadline) -> usize {
        self.queue.iter().filter(|Reverse((_, of, _))| *of == kind).count()
    }
}

/// What became of a deadline by its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// Its connection is gone, or has gone on to a phase that it does not concern.
    Stale,
    /// What was awaited came.
    Met,
    /// What is awaited now is a later request or message, until this time.
    Renewed(u64),
    /// What was awaited has not come.
    Due,
}

impl Standing {
    /// Of a deadline at `at_ms` where now something is awaited until `awaited_ms`; 0 is nothing.
    fn of(at_ms: u64, awaited_ms: u64) -> Self {
        match awaited_ms {
            0 => Self::Met,
            later if later > at_ms => Self::Renewed(later),
            _ => Self::Due,
        }
    }
}

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    started_ms: u64,
    /// Slots below it were visited.
    next: u32,
    /// Nothing is left to wait for.
    pub(super) done: bool,
}

impl Shard {
    pub(super) fn next_timeout(&self) -> Option<u64> {
        let deadline = self.deadlines.queue.peek().map(|Reverse((at, ..))| self.clock.ms_until(*at));
        let departure = self.departures.due_ms().map(|at| self.clock.ms_until(at));
        let sweep = self.deadlines.sweep_due_ms.saturating_sub(self.clock.judged_ms()).min(SWEEP_INTERVAL_MS);
        // What waits for the service clock needs turns that are close enough together to be counted in full.
        let tick = (self.stats.connections > 0 || departure.is_some()).then_some(sweep);
        let drain = self.drain.as_ref().filter(|drain| !drain.done).map(|_| DRAIN_INTERVAL_MS);
        let rest = (self.sends_left == 0 || !self.fan_outs.is_empty()).then_some(0);
        let now_ms = self.now.monotonic_ms;
        let room = self.admissions.room_due_ms.map(|at| self.clock.ms_until(at));
        let served =
            [deadline, departure, tick, drain, rest, room].map(|left_ms| left_ms.map(|left_ms| now_ms + left_ms));
        let count = self.counts_due.front().map(|(at, _)| *at);
        let lines = self.figures.log_brakes.due_ms();
        let full = self.full_shares.due_ms();
        let others = [count, lines, self.next_page_ms(), self.caches.due_ms(), self.rosters.due_ms(), full];
        served.into_iter().chain(others).flatten().min()
    }

    pub(super) fn handle_timeouts(&mut self) {
        self.begin_sends();
        self.continue_fan_outs();
        self.handle_deadlines();
        let judged_ms = self.clock.judged_ms();
        let due_ms = self.deadlines.sweep_due_ms;
        if judged_ms >= due_ms {
            self.sweep();
            // A step that came late delays those after it: two visits of a slot are always five seconds apart.
            let on_time = judged_ms - due_ms < SWEEP_INTERVAL_MS;
            self.deadlines.sweep_due_ms = if on_time { due_ms } else { judged_ms } + SWEEP_INTERVAL_MS;
            self.return_all_credit();
        }
        if self.admissions.room_due_ms.is_some_and(|due_ms| due_ms <= judged_ms) {
            self.make_room();
        }
        self.make_pages();
        self.expire_cached();
        self.look_at_full_apps();
        self.tell_counts_due();
        self.tell_suppressed_lines();
        self.retry_joiners();
        self.tell_departures_due();
        self.continue_drain();
    }

    /// Has a deadline come this long from now; gives its time on the service clock.
    pub(super) fn await_deadline(&mut self, kind: Deadline, slot: u32, within_ms: u64) -> u64 {
        let at_ms = self.clock.served_ms() + within_ms;
        self.queue_deadline(kind, slot, at_ms);
        at_ms
    }

    fn queue_deadline(&mut self, kind: Deadline, slot: u32, at_ms: u64) {
        let connection = self.key(slot);
        if self.deadlines.queue.len() == self.deadlines.queue.capacity() {
            self.drop_stale_deadlines();
        }
        self.deadlines.queue.push(Reverse((at_ms, kind, connection)));
    }

    /// Connections come, go and go on faster than their deadlines: what became stale leaves before the queue grows. So it
    /// holds at most twice as many as there are that may come to pass, and an idle connection has none.
    fn drop_stale_deadlines(&mut self) {
        let mut queue = std::mem::take(&mut self.deadlines.queue);
        queue.retain(|Reverse((at_ms, kind, connection))| self.standing(*kind, *at_ms, *connection) != Standing::Stale);
        self.deadlines.queue = queue;
    }

    fn handle_deadlines(&mut self) {
        if self.stats.connections == 0 {
            self.deadlines.queue.clear();
        }
        while let Some(&Reverse((at_ms, kind, connection))) = self.deadlines.queue.peek() {
            if at_ms > self.clock.served_ms() {
                return;
            }
            let standing = self.standing(kind, at_ms, connection);
            // Until it is caught up the shard does not know whether the peer was in time.
            if standing == Standing::Due && at_ms > self.clock.judged_ms() {
                return;
            }
            self.deadlines.queue.pop();
            match standing {
                Standing::Stale => {}
                Standing::Renewed(at_ms) => self.queue_deadline(kind, connection.slot, at_ms),
                Standing::Met | Standing::Due => self.note_unqueued(kind, connection.slot),
            }
            if standing == Standing::Due {
                self.handle_deadline(kind, connection.slot);
            }
        }
    }

    fn standing(&self, kind: Deadline, at_ms: u64, connection: ConnectionKey) -> Standing {
        if !self.is_live(connection) {
            return Standing::Stale;
        }
        let (line, cold) = (&self.hot[connection.slot as usize], self.cold(connection.slot));
        match (kind, line.phase) {
            (Deadline::Request, Phase::Http) => {
                let http = cold.and_then(|cold| cold.http.as_ref());
                Standing::of(at_ms, http.map_or(0, |http| http.deadline_ms))
            }
            (Deadline::Message, Phase::Open | Phase::Closing) => {
                Standing::of(at_ms, cold.map_or(0, |cold| cold.message_deadline_ms))
            }
            (Deadline::Linger, Phase::Lingering)
            | (Deadline::CloseAnswer, Phase::Closing)
            | (Deadline::SlowReset, Phase::Open | Phase::Closing | Phase::Lingering) => Standing::Due,
            (Deadline::Authorization, Phase::Open) if line.flags.contains(Flags::UNAUTHORIZED) => Standing::Due,
            (Deadline::AtCapacity, Phase::Http) if self.is_silent(connection) => Standing::Due,
            // The connection has gone on to a phase that the deadline does not concern.
            (
                Deadline::Request
                | Deadline::Message
                | Deadline::Linger
                | Deadline::CloseAnswer
                | Deadline::SlowReset
                | Deadline::Authorization
                | Deadline::AtCapacity,
                _,
            ) => Standing::Stale,
        }
    }

    /// The queue has no deadline of this kind for the connection any more.
    fn note_unqueued(&mut self, kind: Deadline, slot: u32) {
        match kind {
            Deadline::Request => self.http(slot).deadline_queued = false,
            Deadline::Message => self.hot[slot as usize].flags.remove(Flags::MESSAGE_AWAITED),
            Deadline::Linger
            | Deadline::CloseAnswer
            | Deadline::SlowReset
            | Deadline::Authorization
            | Deadline::AtCapacity => {}
        }
    }

    /// The peer had its time, and everything that it sent was read. Where the shard itself is what the peer waits for, it
    /// gets its time once more (P-LIVE-6).
    fn handle_deadline(&mut self, kind: Deadline, slot: u32) {
        let line = &self.hot[slot as usize];
        let (paused, unsent) = (line.flags.contains(Flags::PAUSED), line.outbox.is_unattempted());
        match kind {
            Deadline::Request if paused => self.renew_request_deadline(slot),
            Deadline::Request => {
                if self.http(slot).decoder.is_idle() {
                    self.end(slot, false);
                } else {
                    self.answer_too_late(slot);
                }
            }
            Deadline::Message if paused => self.renew_message_deadline(slot),
            Deadline::Message => self.fail_websocket(slot, 1008, "The message took too long"),
            Deadline::CloseAnswer if unsent => {
                self.await_deadline(kind, slot, limits::CLOSE_WITHIN_MS);
            }
            Deadline::Linger | Deadline::CloseAnswer | Deadline::AtCapacity => self.end(slot, false),
            Deadline::SlowReset => self.end(slot, true),
            Deadline::Authorization if self.is_being_authorized(slot) => {
                self.await_deadline(kind, slot, SWEEP_INTERVAL_MS);
            }
            Deadline::Authorization => self.end_unauthorized(slot),
        }
    }

    /// The request that has begun must be whole within a total time (threat T14).
    pub(super) fn renew_request_deadline(&mut self, slot: u32) {
        let served_ms = self.clock.served_ms();
        let http = self.http(slot);
        let at_ms = served_ms + limits::REQUEST_WITHIN_MS + extra_request_ms(&http.decoder);
        http.deadline_ms = at_ms;
        if !std::mem::replace(&mut http.deadline_queued, true) {
            self.queue_deadline(Deadline::Request, slot, at_ms);
        }
    }

    /// The message that has begun must be whole within a total time (threat T8).
    pub(super) fn renew_message_deadline(&mut self, slot: u32) {
        let at_ms = self.clock.served_ms() + limits::MESSAGE_WITHIN_MS;
        self.cold_mut(slot).message_deadline_ms = at_ms;
        if self.hot[slot as usize].flags.raise(Flags::MESSAGE_AWAITED) {
            self.queue_deadline(Deadline::Message, slot, at_ms);
        }
    }

    /// Visits the next fiftieth of the slots, so that each is visited once in five seconds however few there are.
    fn sweep(&mut self) {
        let (slots, step) = (self.hot.len(), self.deadlines.sweep_step);
        self.deadlines.sweep_step = (step + 1) % SWEEP_STEPS;
        for slot in slots * step / SWEEP_STEPS..slots * (step + 1) / SWEEP_STEPS {
            self.visit(slot as u32);
        }
    }

    fn visit(&mut self, slot: u32) {
        let line = &mut self.hot[slot as usize];
        if line.phase == Phase::Free || line.phase == Phase::Ended {
            return;
        }
        // P-CLOSE-5: only while the kernel holds a send is it the reader that is slow. What waits in the outbox waits for
        // this shard.
        if line.outbox.is_lent() && !line.flags.raise(Flags::STALLED) && !line.flags.raise(Flags::STALLED_LONG) {
            self.close_slow(slot);
            return;
        }
        let idle_ms = self.idle_ms(slot);
        match self.hot[slot as usize].phase {
            Phase::Open => self.visit_open(slot, idle_ms),
            Phase::Http => {
                let answered = self.http(slot).is_answered() && self.hot[slot as usize].outbox.unsent_bytes() == 0;
                if !answered {
                    // The time between requests begins with the last byte of the answer.
                    self.heard[slot as usize] = self.tenths();
                } else if idle_ms >= u64::from(self.config.options.http_keep_alive_s) * 1_000 {
                    self.end(slot, false);
                }
            }
            Phase::Free | Phase::Admitting | Phase::Closing | Phase::Lingering | Phase::Ended => {}
        }
    }

    /// P-LIVE-4: silence is answered with a ping, and silence beyond that ping with Close 4201. The second time begins
    /// when the ping can have reached the client, so not while the shard still has bytes to send to it.
    fn visit_open(&mut self, slot: u32, idle_ms: u64) {
        let now = self.tenths();
        let line = &mut self.hot[slot as usize];
        if line.flags.contains(Flags::AWAITING_PONG) {
            if line.outbox.unsent_bytes() > 0 {
                // The last of it may leave just before the next visit.
                self.heard[slot as usize] = now + SWEEP_TENTHS;
            } else if idle_ms >= limits::PONG_WITHIN_MS {
                self.close_websocket(slot, &CloseReason::PongTimeout);
            }
            return;
        }
        // A client that spoke a moment ago is in time under any setting: its app is not looked up.
        if idle_ms < limits::PING_AFTER_MS {
            return;
        }
        let app = AppSerial(line.app);
        let timeout_ms = u64::from(self.activity_timeout_s(app)) * 1_000;
        if idle_ms >= timeout_ms + limits::PING_AFTER_MS {
            self.hot[slot as usize].flags.insert(Flags::AWAITING_PONG);
            self.heard[slot as usize] = now;
            let mut ping = Vec::new();
            websocket::encode_frame(&mut ping, Opcode::Ping, &[]);
            self.queue(slot, ping.into());
        }
    }

    /// How long a connection was silent, as far as that is known: up to where everything was read.
    fn idle_ms(&self, slot: u32) -> u64 {
        let heard_ms = u64::from(self.heard[slot as usize]) * 100;
        self.clock.judged_ms().saturating_sub(heard_ms)
    }

    /// `activity_timeout` of an app's clients, in s (P-LIVE-3).
    pub(super) fn activity_timeout_s(&self, app: AppSerial) -> u32 {
        let own = self.directory.app(app).map_or(0, |app| app.settings.activity_timeout);
        if own > 0 { own } else { self.config.options.activity_timeout_s }
    }

    /// P-CLOSE-1: no new WebSockets; the present ones are closed evenly over the grace period, so that clients without
    /// jitter do not all come back at once.
    pub(super) fn start_drain(&mut self) {
        if self.drain.is_none() {
            self.drain = Some(Drain { started_ms: self.clock.served_ms(), next: 0, done: false });
            self.tell_all_departures();
            self.return_leases();
            self.handle_timeouts();
        }
    }

    fn continue_drain(&mut self) {
        let Some(drain) = &self.drain else { return };
        if drain.done {
            return;
        }
        let elapsed_ms = self.clock.served_ms() - drain.started_ms;
        let (slots, grace_ms) = (self.hot.len() as u64, self.config.options.drain_ms);
        let few = self.stats.websockets <= DRAIN_AT_ONCE_MAX;
        let until = if few || elapsed_ms >= grace_ms { slots } else { slots * elapsed_ms / grace_ms.max(1) } as u32;
        for slot in drain.next..until {
            self.close_websocket(slot, &CloseReason::Draining);
        }
        let over = elapsed_ms >= grace_ms + limits::CLOSE_WITHIN_MS;
        let done = over || (until as u64 == slots && !(0..slots as u32).any(|slot| self.holds_drain(slot)));
        let drain = self.drain.as_mut().expect("a drain does not end by itself");
        drain.next = drain.next.max(until);
        drain.done = done;
    }

    /// True for a connection that drain waits for: all but idle HTTP ones.
    fn holds_drain(&self, slot: u32) -> bool {
        let line = &self.hot[slot as usize];
        match line.phase {
            Phase::Free | Phase::Ended => false,
            Phase::Http => {
                let http = self.cold(slot).and_then(|cold| cold.http.as_ref());
                line.outbox.unsent_bytes() > 0 || http.is_some_and(|http| !http.is_answered())
            }
            Phase::Lingering => false,
            Phase::Admitting | Phase::Open | Phase::Closing => true,
        }
    }
}
