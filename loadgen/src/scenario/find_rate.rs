//! Searches for the highest rate that a server sustains, in an open loop.
//!
//! A rate is sustained if in one of two short rounds everything arrives and 99 of 100 deliveries happen before the next
//! event is due. A server above its rate falls behind and either joins events or grows its queues; both make deliveries
//! later than that. The search doubles (or halves) the rate until it finds an edge, and then narrows it down.

use super::Rhythm;
use super::round::Audience;
use crate::abort;
use crate::coordinator::Coordinator;
use crate::messages::Measure;
use crate::outcome::Failure;
use crate::report::Report;
use crate::report::histogram::milliseconds;
use crate::report::quantity::number;

/// Searches from the rhythm's rate on. Returns events per second, or `None` if the run was cut short.
///
/// # Errors
/// If not even one event per second is sustained.
pub(crate) fn search(
    coordinator: &mut Coordinator,
    audience: Audience,
    rhythm: Rhythm,
    report: &mut Report,
) -> Result<Option<f64>, Failure> {
    let mut busiest: f64 = 0.0;
    let mut is_held_once = |rate: f64| -> Result<bool, Failure> {
        let probe = Rhythm { events_per_second: rate, seconds: PROBE_SECONDS, ..rhythm };
        coordinator.times.clear();
        let used = audience.round(coordinator, probe, &format!("try {}/s", number(rate.round())), None)?;
        let p99 = coordinator.times.total(Measure::Delivery).map_or(f64::INFINITY, |total| milliseconds(total, 99.0));
        let delivered = used.after.delivered - used.before.delivered;
        let is_held = delivered >= audience.expected(&used.before, &used.after)
            && used.after.refused == used.before.refused
            && p99 < probe.interval_ns() / 1e6 / f64::from(rhythm.publishers);
        if is_held {
            busiest = busiest.max(used.generator_busy);
        }
        Ok(is_held)
    };
    // One second of other load on the machine must not decide the search.
    let mut holds = |rate: f64| Ok(is_held_once(rate)? || is_held_once(rate)?);
    let Some(rate) = edge(rhythm.events_per_second, || abort::reason().is_some(), &mut holds)? else { return Ok(None) };
    coordinator.times.clear();
    if abort::reason().is_some() {
        return Ok(None);
    }
    report.figure("highest-rate-events-per-second", rate, "/s");
    if busiest > BUSY_MAX {
        let percent = busiest * 100.0;
        let text =
            format!("at the highest rate a worker used {percent:.0} % of a core: the generator may have limited it");
        report.notes.push(text);
    }
    Ok(Some(rate))
}

/// The highest sustained rate, within [`NARROW_STEPS`] halvings of the last doubling.
fn edge(
    first: f64,
    is_aborted: impl Fn() -> bool,
    holds: &mut impl FnMut(f64) -> Result<bool, Failure>,
) -> Result<Option<f64>, Failure> {
    let mut held = None;
    let mut failed = None;
    let mut rate = first;
    for _ in 0..DOUBLINGS_MAX {
        if is_aborted() {
            return Ok(None);
        }
        if holds(rate)? {
            held = Some(rate);
            rate *= 2.0;
        } else {
            failed = Some(rate);
            rate /= 2.0;
        }
        if (held.is_some() && failed.is_some()) || rate < 1.0 {
            break;
        }
    }
    let Some(mut low) = held else {
        return Err(Failure::Run(format!(
            "the server sustains no rate down to {} events per second",
            number(rate * 2.0)
        )));
    };
    let Some(mut high) = failed else { return Ok(Some(low)) };
    for _ in 0..NARROW_STEPS {
        if is_aborted() {
            return Ok(None);
        }
        let middle = f64::midpoint(low, high);
        if holds(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Some(low))
}

const PROBE_SECONDS: f64 = 1.0;
const DOUBLINGS_MAX: usize = 16;
const NARROW_STEPS: usize = 4;
const BUSY_MAX: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the edge is found from below and from above to within 7 %, and a server that sustains no rate is an error.
    #[test]
    fn the_edge_is_found() {
        for (first, limit) in [(100.0, 730.0), (100.0, 13.0), (1.0, 1.5), (100.0, 100.0)] {
            let rate =
                edge(first, || false, &mut |rate| Ok(rate <= limit)).expect("it sustains some").expect("not aborted");
            assert!(rate <= limit && rate > limit * 0.93, "{rate} of {limit}");
        }
        assert!(edge(100.0, || false, &mut |_| Ok(false)).is_err());
        assert!(edge(100.0, || true, &mut |_| Ok(true)).expect("no error").is_none());
    }
}
