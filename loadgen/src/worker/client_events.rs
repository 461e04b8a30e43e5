//! Scheduled actions of a worker's connections: send client events, leave and join again, or ping.

use super::connections::{Connections, SendOutcome};
use super::shared::Shared;
use crate::clock::now_ns;
use crate::messages::{ChurnOrder, ClientEventOrder, Measure, PingOrder};
use crate::schedule::Schedule;
use crate::wire::event::CLIENT_EVENT;
use crate::wire::stamp::Stamp;

/// A schedule, and the connections that act on it in turn.
pub(crate) struct ClientEvents {
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
    Send,
    Change,
    Ping,
}

impl ClientEvents {
    /// Client events of this worker's senders.
    pub(crate) fn send(order: &ClientEventOrder, connections: &Connections) -> Self {
        let schedule = Schedule::new(order.start_ns, order.interval_ns, order.count);
        Self::new(
            Act::Send,
            schedule,
            connections.slots().into_iter().filter(|(number, _)| *number < order.senders).collect(),
        )
    }

    /// Changes of all members that do not watch.
    pub(crate) fn churn(order: &ChurnOrder, connections: &Connections, shared: &Shared) -> Self {
        let schedule = Schedule::new(order.start_ns, order.interval_ns, order.count);
        let watchers = shared.plan.watchers;
        Self::new(
            Act::Change,
            schedule,
            connections.slots().into_iter().filter(|(number, _)| *number >= watchers).collect(),
        )
    }

    /// Pings of all connections.
    pub(crate) fn ping(order: &PingOrder, connections: &Connections) -> Self {
        Self::new(Act::Ping, Schedule::new(order.start_ns, order.interval_ns, order.count), connections.slots())
    }

    fn new(act: Act, schedule: Schedule, actors: Vec<(u32, u32)>) -> Self {
        let first = match act {
            Act::Send | Act::Ping => 0,
            // They joined as member 0.
            Act::Change => 1,
        };
        Self { act, schedule, sequences: vec![first; actors.len()], actors, next: 0 }
    }

    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.schedule.next_ns()
    }

    /// Does what is due.
    pub(crate) fn run_schedule(&mut self, connections: &mut Connections, shared: &mut Shared) {
        let now = now_ns();
        for _ in 0..ACTS_PER_TURN {
            let Some(due_ns) = self.schedule.next_ns().filter(|due_ns| *due_ns <= now) else { return };
            self.schedule.advance();
            shared.recorder.record(Measure::Lag, due_ns, now);
            shared.counters.sent += 1;
            match self.act(due_ns, connections, shared) {
                SendOutcome::Sent => shared.counters.accepted += 1,
                SendOutcome::Gone => shared.counters.refused += 1,
            }
        }
    }

    fn act(&mut self, due_ns: u64, connections: &mut Connections, shared: &mut Shared) -> SendOutcome {
        if self.actors.is_empty() {
            return SendOutcome::Gone;
        }
        let turn = self.next;
        self.next = (turn + 1) % self.actors.len();
        let (key, sequence) = (self.actors[turn], self.sequences[turn]);
        let outcome = match self.act {
            Act::Send => send(key, sequence, due_ns, connections, shared),
            Act::Change => connections.change(key, sequence, due_ns, shared),
            Act::Ping => connections.ping(key, sequence == 0, due_ns, shared),
        };
        if outcome == SendOutcome::Sent {
            self.sequences[turn] += 1;
        }
        outcome
    }
}

/// Sends one client event. It has no answer, so it counts as accepted once sent.
fn send(
    key: (u32, u32),
    sequence: u32,
    intended_ns: u64,
    connections: &mut Connections,
    shared: &mut Shared,
) -> SendOutcome {
    let channel = shared.channel_of(key.0);
    let index = u32::try_from(channel).expect("below 2^24");
    let stamp = Stamp { run: shared.plan.run, publisher: key.0, sequence, intended_ns, channel: index };
    let name = &shared.plan.channels[channel];
    let mut text = format!("{{\"event\":\"{CLIENT_EVENT}\",\"channel\":\"{name}\",\"data\":\"").into_bytes();
    stamp.write(shared.plan.payload_bytes, &mut text);
    text.extend_from_slice(b"\"}");
    let outcome = connections.send_text(key, &text, shared);
    if outcome == SendOutcome::Sent {
        shared.counters.accepted_by_channel[channel] += 1;
    }
    outcome
}

/// Limits how long network events wait when the schedule is behind.
const ACTS_PER_TURN: u32 = 64;
