//! Time: one table of everything that a shard has to do at a certain time. A new timer is one entry.
//!
//! No connection has a timer. A sweep visits all slots every five seconds; anything that must happen sooner is in one
//! queue of deadlines. Peers are judged on the shard's service clock, so never for time in which the shard was late
//! (P-LIVE-6).

use super::Shard;
use super::drain::DRAIN_INTERVAL_MS;
use crate::limits;

/// When something is due.
#[derive(Clone, Copy)]
enum Due {
    /// On the monotonic clock, in ms.
    At(u64),
    /// On the service clock, in ms.
    Served(u64),
    /// This many ms from now.
    In(u64),
}

/// Work that a shard has to do at a certain time.
struct Timer {
    /// When, if at all.
    due: fn(&Shard) -> Option<Due>,
    /// Performs the work, if it is due.
    fire: fn(&mut Shard),
}

/// All timers, in the order in which they fire.
const TIMERS: &[Timer] = &[
    // Sends and fan-outs beyond the limit of the last turn.
    Timer {
        due: |shard| shard.connections.has_more_turns().then_some(Due::In(0)),
        fire: |shard| {
            shard.connections.begin_sends();
            shard.connections.continue_fan_outs(&mut shard.context);
        },
    },
    // Deadlines of connections.
    Timer {
        due: |shard| shard.context.deadlines.peek().map(|deadline| Due::Served(deadline.at_ms)),
        fire: Shard::handle_deadlines,
    },
    // The sweep over connections; credit for other shards that was held while there was no memory.
    Timer { due: Shard::sweep_due, fire: Shard::sweep },
    // Slots for new connections at capacity.
    Timer {
        due: |shard| shard.connections.room_due_ms().map(Due::Served),
        fire: |shard| shard.connections.make_room_if_due(&mut shard.context),
    },
    // Pages of lists.
    Timer {
        due: |shard| shard.requests.next_page_ms().map(Due::At),
        fire: |shard| {
            let (requests, mut parts) = shard.requests();
            requests.make_pages(&mut parts);
        },
    },
    // Polls whose time is over.
    Timer {
        due: |shard| shard.requests.polls_due_ms().map(Due::At),
        fire: |shard| {
            let (requests, mut parts) = shard.requests();
            requests.end_due_polls(&mut parts);
        },
    },
    // Cached events that expire.
    Timer {
        due: |shard| shard.owner.cache_due_ms().map(Due::At),
        fire: |shard| shard.owner.expire_cached(&mut shard.context),
    },
    // Events of histories that expire.
    Timer {
        due: |shard| shard.owner.history_due_ms().map(Due::At),
        fire: |shard| shard.owner.expire_history(&mut shard.context),
    },
    // Apps that use all of their share of memory.
    Timer {
        due: |shard| shard.connections.full_apps_due_ms().map(Due::At),
        fire: |shard| shard.connections.look_at_full_apps(&mut shard.context),
    },
    // Counts of large channels.
    Timer {
        due: |shard| shard.owner.counts_due_ms().map(Due::At),
        fire: |shard| shard.owner.report_counts_due(&mut shard.context),
    },
    // Suppressed log lines.
    Timer {
        due: |shard| shard.context.metrics.log_limit.due_ms().map(Due::At),
        fire: |shard| shard.context.report_suppressed_lines(),
    },
    // Joiners of presence channels that wait for memory.
    Timer {
        due: |shard| shard.owner.joiners_due_ms().map(Due::At),
        fire: |shard| shard.owner.retry_joiners(&mut shard.context),
    },
    // Departures that webhooks report.
    Timer {
        due: |shard| shard.owner.departures_due_ms().map(Due::Served),
        fire: |shard| shard.owner.report_due_departures(&mut shard.context),
    },
    // The end of the process.
    Timer {
        due: |shard| shard.drain.as_ref().filter(|drain| !drain.done).map(|_| Due::In(DRAIN_INTERVAL_MS)),
        fire: Shard::continue_drain,
    },
];

/// Time between two steps of the sweep.
const SWEEP_INTERVAL_MS: u64 = 100;
/// Steps in which the sweep visits every slot once.
const SWEEP_STEPS: usize = 50;

const _: () = assert!(SWEEP_INTERVAL_MS * SWEEP_STEPS as u64 == limits::SWEEP_MS);
const _: () = assert!(limits::SWEEP_MS * 2 == limits::STALL_MS, "a stall is seen at three visits");
const _: () = assert!(2 * SWEEP_INTERVAL_MS == limits::SERVED_STEP_MS_MAX, "a punctual shard loses no time");

/// The state of the sweep.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// On the service clock.
    due_ms: u64,
    /// Which part of the slots the next step visits.
    step: usize,
}

impl Shard {
    pub(super) fn next_timeout(&self) -> Option<u64> {
        let now_ms = self.context.now.monotonic_ms;
        let at = |due| match due {
            Due::At(at_ms) => at_ms,
            Due::Served(at_ms) => now_ms + self.context.clock.ms_until(at_ms),
            Due::In(in_ms) => now_ms + in_ms,
        };
        TIMERS.iter().filter_map(|timer| (timer.due)(self).map(at)).min()
    }

    pub(super) fn handle_timeouts(&mut self) {
        for timer in TIMERS {
            (timer.fire)(self);
        }
    }

    fn handle_deadlines(&mut self) {
        while let Some(due) = self.connections.take_due(&mut self.context) {
            if self.is_being_authorized(&due) {
                self.connections.await_deadline(&mut self.context, due.kind, due.slot, SWEEP_INTERVAL_MS);
            } else {
                self.connections.end_overdue(&mut self.context, &due);
            }
        }
    }

    /// The sweep is due in steps; work that waits for the service clock needs turns that are close enough together to
    /// be counted in full.
    fn sweep_due(&self) -> Option<Due> {
        let is_awaited = self.context.metrics.stats.connections > 0 || self.owner.departures_due_ms().is_some();
        let left_ms = self.sweep.due_ms.saturating_sub(self.context.clock.judged_ms());
        is_awaited.then_some(Due::In(left_ms.min(SWEEP_INTERVAL_MS)))
    }

    fn sweep(&mut self) {
        let (judged_ms, due_ms, step) = (self.context.clock.judged_ms(), self.sweep.due_ms, self.sweep.step);
        if judged_ms < due_ms {
            return;
        }
        self.sweep.step = (step + 1) % SWEEP_STEPS;
        self.connections.sweep(&mut self.context, step, SWEEP_STEPS);
        // A late step delays those after it: two visits of a slot are always five seconds apart.
        let on_time = judged_ms - due_ms < SWEEP_INTERVAL_MS;
        self.sweep.due_ms = if on_time { due_ms } else { judged_ms } + SWEEP_INTERVAL_MS;
        for to in 0..self.context.config.shards {
            self.return_credit(to);
        }
    }
}
