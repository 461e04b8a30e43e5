//! Time: deadlines, the sweep over idle connections (P-LIVE-4, P-CLOSE-5), and drain (P-CLOSE-1).
//!
//! No connection has a timer. A sweep visits all slots every five seconds; what must happen sooner stands in one queue
//! per kind of deadline, each of a fixed length of time and so already in order.

use std::collections::VecDeque;

use super::Shard;
use crate::app::AppSerial;
use crate::connection::{ConnectionKey, Flags, Phase};
use crate::limits;
use crate::protocol::close::CloseReason;
use crate::wire::websocket::{self, Opcode};

/// What a deadline is for.
#[derive(Clone, Copy, Debug)]
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
}

const DEADLINES: [Deadline; 6] = [
    Deadline::Request,
    Deadline::Message,
    Deadline::Linger,
    Deadline::CloseAnswer,
    Deadline::SlowReset,
    Deadline::Authorization,
];

/// Time between two steps of the sweep.
const SWEEP_INTERVAL_MS: u64 = 100;
/// Steps in which the sweep visits every slot once.
const SWEEP_STEPS: usize = 50;
/// Below this many WebSockets, drain closes them all at once.
const DRAIN_AT_ONCE_MAX: u64 = 100;
/// How often a draining shard looks whether it is done.
const DRAIN_INTERVAL_MS: u64 = 20;

const _: () =
    assert!(SWEEP_INTERVAL_MS * SWEEP_STEPS as u64 * 2 == limits::STALL_MS, "a stall is seen at three visits");

/// Queues of deadlines and the state of the sweep.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queues: [VecDeque<(u64, ConnectionKey)>; DEADLINES.len()],
    sweep_due_ms: u64,
    /// Which part of the slots the next step visits.
    sweep_step: usize,
}

impl Deadlines {
    /// All deadlines of a kind lie equally far in the future, so each is the latest of its queue.
    pub(super) fn push(&mut self, kind: Deadline, at_ms: u64, connection: ConnectionKey) {
        self.queues[kind as usize].push_back((at_ms, connection));
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
        let deadline = self.deadlines.queues.iter().filter_map(|queue| queue.front().map(|(at, _)| *at)).min();
        let sweep = (self.stats.connections > 0).then_some(self.deadlines.sweep_due_ms);
        let drain = self.drain.as_ref().filter(|drain| !drain.done);
        let drain = drain.map(|_| self.now.monotonic_ms + DRAIN_INTERVAL_MS);
        let rest = (self.sends_left == 0).then_some(self.now.monotonic_ms);
        let count = self.counts_due.front().map(|(at, _)| *at);
        let lines = self.figures.log_brakes.due_ms();
        let own = [deadline, sweep, drain, rest, count, lines];
        let full = self.full_shares.due_ms();
        let parts = [self.next_page_ms(), self.caches.due_ms(), self.rosters.due_ms(), self.departures.due_ms(), full];
        let due = own.into_iter().chain(parts);
        due.flatten().min()
    }

    pub(super) fn handle_timeouts(&mut self) {
        self.sends_left = limits::SENDS_PER_TURN;
        let now = self.now.monotonic_ms;
        for kind in DEADLINES {
            while let Some(&(at, connection)) = self.deadlines.queues[kind as usize].front() {
                if at > now {
                    break;
                }
                self.deadlines.queues[kind as usize].pop_front();
                if self.is_live(connection) {
                    self.handle_deadline(kind, at, connection.slot);
                }
            }
        }
        if now >= self.deadlines.sweep_due_ms {
            // A turn that came late makes up for the steps that it missed, at most one round of all slots.
            let steps = 1 + (now - self.deadlines.sweep_due_ms) / SWEEP_INTERVAL_MS;
            for _ in 0..steps.min(SWEEP_STEPS as u64) {
                self.sweep();
            }
            self.deadlines.sweep_due_ms += steps * SWEEP_INTERVAL_MS;
            self.return_all_credit();
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

    fn handle_deadline(&mut self, kind: Deadline, at_ms: u64, slot: u32) {
        let line = &self.hot[slot as usize];
        match (kind, line.phase) {
            (Deadline::Request, Phase::Http) if self.http(slot).deadline_ms == at_ms => {
                if self.http(slot).decoder.is_idle() {
                    self.end(slot, false);
                } else {
                    self.answer_too_late(slot);
                }
            }
            (Deadline::Message, Phase::Open | Phase::Closing) => {
                if self.cold(slot).is_some_and(|cold| cold.message_deadline_ms == at_ms) {
                    self.fail_websocket(slot, 1008, "The message took too long");
                }
            }
            (Deadline::Linger, Phase::Lingering) | (Deadline::CloseAnswer, Phase::Closing) => self.end(slot, false),
            (Deadline::SlowReset, Phase::Open | Phase::Closing | Phase::Lingering) => self.end(slot, true),
            (Deadline::Authorization, Phase::Open) => self.end_unauthorized(slot),
            // The connection has gone on to a phase that the deadline does not concern.
            (
                Deadline::Request
                | Deadline::Message
                | Deadline::Linger
                | Deadline::CloseAnswer
                | Deadline::SlowReset
                | Deadline::Authorization,
                _,
            ) => {}
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
        if line.outbox.unsent_bytes() > 0 && !line.flags.raise(Flags::STALLED) && !line.flags.raise(Flags::STALLED_LONG)
        {
            self.close_slow(slot);
            return;
        }
        let idle_ms = u64::from(self.tenths().wrapping_sub(self.heard[slot as usize])) * 100;
        // Whoever spoke a moment ago is in time under any setting: no app is looked up for it.
        let app = AppSerial(self.hot[slot as usize].app);
        let in_time = idle_ms < limits::PING_AFTER_MS;
        let timeout_s = if in_time { limits::ACTIVITY_TIMEOUT_SETTING_S_MAX } else { self.activity_timeout_s(app) };
        let line = &mut self.hot[slot as usize];
        match line.phase {
            Phase::Open => {
                let ping_after_ms = u64::from(timeout_s) * 1_000 + limits::PING_AFTER_MS;
                if idle_ms >= ping_after_ms + limits::PONG_WITHIN_MS && line.flags.contains(Flags::AWAITING_PONG) {
                    self.close_websocket(slot, &CloseReason::PongTimeout);
                } else if idle_ms >= ping_after_ms && line.flags.raise(Flags::AWAITING_PONG) {
                    let mut ping = Vec::new();
                    websocket::encode_frame(&mut ping, Opcode::Ping, &[]);
                    self.queue(slot, ping.into());
                }
            }
            Phase::Http => {
                if idle_ms >= limits::HTTP_IDLE_MS && self.http(slot).is_answered() {
                    self.end(slot, false);
                }
            }
            Phase::Free | Phase::Admitting | Phase::Closing | Phase::Lingering | Phase::Ended => {}
        }
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
            self.drain = Some(Drain { started_ms: self.now.monotonic_ms, next: 0, done: false });
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
        let elapsed_ms = self.now.monotonic_ms - drain.started_ms;
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
