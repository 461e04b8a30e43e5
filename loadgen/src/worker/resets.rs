//! Resets connections on a schedule, and opens them again when they return.

use std::io;

use super::connections::Connections;
use super::shared::Shared;
use crate::clock::now_ns;
use crate::messages::{Group, Measure};

/// Resets what is due, and opens what returns.
pub(crate) fn run_schedule(connections: &mut Connections, shared: &mut Shared) -> io::Result<()> {
    let now = now_ns();
    for _ in 0..ACTS_PER_TURN {
        let Some(readers) = &mut shared.readers else { return Ok(()) };
        if let Some(due_ns) = readers.take_reset(now) {
            let chosen = readers.choose();
            shared.recorder.record(Measure::Lag, due_ns, now);
            if let Some((number, slot)) = chosen {
                connections.reset(slot, shared);
                shared.counters.resume.resets += 1;
                shared.readers.iter_mut().for_each(|readers| readers.leave(number, now));
            }
            continue;
        }
        let Some((due_ns, number)) = readers.take_return(now, connections.joining()) else { return Ok(()) };
        connections.open(number, Group::Subscribers, due_ns, shared)?;
    }
    Ok(())
}

/// Limits how long network events wait when the schedule is behind.
const ACTS_PER_TURN: u32 = 64;
