//! What a worker's connections do of themselves by the clock: send client events, leave and join again, or ping.

use crate::clock::now_ns;
use crate::crowd::{Crowd, Spoke};
use crate::ledger::CLIENT_EVENT;
use crate::messages::{ChurnOrder, Measure, PingOrder, SayOrder};
use crate::schedule::Schedule;
use crate::stamp::Stamp;
use crate::worker::Shared;

/// Connections that act in turn.
pub(crate) struct Speech {
    act: Act,
    schedule: Schedule,
    /// Number and slot of each.
    actors: Vec<(u32, u32)>,
    /// Next sequence of each.
    sequences: Vec<u32>,
    next: usize,
}

#[derive(Clone, Copy)]
enum Act {
    Say,
    Change,
    Ping,
}

impl Speech {
    /// Client events by those of the order that are this worker's.
    pub(crate) fn say(order: &SayOrder, crowd: &Crowd) -> Self {
        let schedule = Schedule::new(order.start_ns, order.interval_ns, order.count);
        Self::new(
            Act::Say,
            schedule,
            crowd.slots().into_iter().filter(|(number, _)| *number < order.speakers).collect(),
        )
    }

    /// Changes by all that do not watch.
    pub(crate) fn churn(order: &ChurnOrder, crowd: &Crowd, shared: &Shared) -> Self {
        let schedule = Schedule::new(order.start_ns, order.interval_ns, order.count);
        let watchers = shared.plan.watchers;
        Self::new(Act::Change, schedule, crowd.slots().into_iter().filter(|(number, _)| *number >= watchers).collect())
    }

    /// Pings by all.
    pub(crate) fn ping(order: &PingOrder, crowd: &Crowd) -> Self {
        Self::new(Act::Ping, Schedule::new(order.start_ns, order.interval_ns, order.count), crowd.slots())
    }

    fn new(act: Act, schedule: Schedule, actors: Vec<(u32, u32)>) -> Self {
        let first = match act {
            Act::Say | Act::Ping => 0,
            // 0 was the member that they joined as.
            Act::Change => 1,
        };
        Self { act, schedule, sequences: vec![first; actors.len()], actors, next: 0 }
    }

    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.schedule.next_ns()
    }

    /// Does what is due.
    pub(crate) fn run_schedule(&mut self, crowd: &mut Crowd, shared: &mut Shared) {
        let now = now_ns();
        for _ in 0..ACTS_PER_TURN {
            let Some(due_ns) = self.schedule.next_ns().filter(|due_ns| *due_ns <= now) else { return };
            self.schedule.advance();
            shared.recorder.record(Measure::Lag, due_ns, now);
            shared.counters.sent += 1;
            match self.act(due_ns, crowd, shared) {
                Spoke::Sent => shared.counters.accepted += 1,
                Spoke::Gone => shared.counters.refused += 1,
            }
        }
    }

    fn act(&mut self, due_ns: u64, crowd: &mut Crowd, shared: &mut Shared) -> Spoke {
        if self.actors.is_empty() {
            return Spoke::Gone;
        }
        let turn = self.next;
        self.next = (turn + 1) % self.actors.len();
        let (key, sequence) = (self.actors[turn], self.sequences[turn]);
        let spoke = match self.act {
            Act::Say => say(key, sequence, due_ns, crowd, shared),
            Act::Change => crowd.change(key, sequence, due_ns, shared),
            Act::Ping => crowd.ping(key, sequence == 0, due_ns, shared),
        };
        if spoke == Spoke::Sent {
            self.sequences[turn] += 1;
        }
        spoke
    }
}

/// One client event. Nobody answers it, so what was sent counts as accepted.
fn say(key: (u32, u32), sequence: u32, intended_ns: u64, crowd: &mut Crowd, shared: &mut Shared) -> Spoke {
    let channel = shared.channel_of(key.0);
    let index = u32::try_from(channel).expect("below 2^24");
    let stamp = Stamp { run: shared.plan.run, publisher: key.0, sequence, intended_ns, channel: index };
    let name = &shared.plan.channels[channel];
    let mut text = format!("{{\"event\":\"{CLIENT_EVENT}\",\"channel\":\"{name}\",\"data\":\"").into_bytes();
    stamp.write(shared.plan.payload_bytes, &mut text);
    text.extend_from_slice(b"\"}");
    let spoke = crowd.speak(key, &text, shared);
    if spoke == Spoke::Sent {
        shared.counters.accepted_by_channel[channel] += 1;
    }
    spoke
}

/// Bounds how long events of the network wait when the schedule is behind.
const ACTS_PER_TURN: u32 = 64;
