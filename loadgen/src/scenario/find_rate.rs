//! The highest rate that a server holds: a short search in open loop.
//!
//! A rate is held if in one of two short rounds everything arrives and 99 of 100 deliveries are done before the next ones are
//! due. A server beyond its rate falls behind, and then either joins events or grows its queues: both make deliveries
//! later than that. The search doubles (or halves) the rate until it finds an edge, and then narrows it down.

use super::Rhythm;
use super::round::Audience;
use crate::cut;
use crate::fleet::Fleet;
use crate::histogram::milliseconds;
use crate::messages::Measure;
use crate::outcome::Failure;
use crate::quantity::number;
use crate::report::Report;

/// Searches from the rhythm's rate on; gives events per second, or `None` if the run was cut short.
///
/// # Errors
/// If not even one event per second is held.
pub(crate) fn search(
    fleet: &mut Fleet,
    audience: Audience,
    rhythm: Rhythm,
    report: &mut Report,
) -> Result<Option<f64>, Failure> {
    let mut busiest: f64 = 0.0;
    let mut is_held_once = |rate: f64| -> Result<bool, Failure> {
        let probe = Rhythm { events_per_second: rate, seconds: PROBE_SECONDS, ..rhythm };
        fleet.times.clear();
        let used = audience.round(fleet, probe, &format!("try {}/s", number(rate.round())), None)?;
        let p99 = fleet.times.total(Measure::Delivery).map_or(f64::INFINITY, |total| milliseconds(total, 99.0));
        let delivered = used.after.delivered - used.before.delivered;
        let is_held = delivered >= audience.expected(&used.before, &used.after)
            && used.after.refused == used.before.refused
            && p99 < probe.interval_ns() / 1e6 / f64::from(rhythm.publishers);
        if is_held {
            busiest = busiest.max(used.generator_busy);
        }
        Ok(is_held)
    };
    // One second of something else on the machine must not decide the search.
    let mut holds = |rate: f64| Ok(is_held_once(rate)? || is_held_once(rate)?);
    let Some(rate) = edge(rhythm.events_per_second, || cut::reason().is_some(), &mut holds)? else { return Ok(None) };
    fleet.times.clear();
    if cut::reason().is_some() {
        return Ok(None);
    }
    report.figure("highest-rate-events-per-second", rate, "/s");
    if busiest > BUSY_MAX {
        let percent = busiest * 100.0;
        let text = format!("at the highest rate a worker used {percent:.0} % of a core: it is the generator's as well");
        report.notes.push(text);
    }
    Ok(Some(rate))
}

/// The highest rate that holds, within [`NARROW_STEPS`] halvings of the last doubling.
fn edge(
    first: f64,
    is_cut: impl Fn() -> bool,
    holds: &mut impl FnMut(f64) -> Result<bool, Failure>,
) -> Result<Option<f64>, Failure> {
    let mut held = None;
    let mut failed = None;
    let mut rate = first;
    for _ in 0..DOUBLINGS_MAX {
        if is_cut() {
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
        return Err(Failure::Run(format!("no rate down to {} events per second is held", number(rate * 2.0))));
    };
    let Some(mut high) = failed else { return Ok(Some(low)) };
    for _ in 0..NARROW_STEPS {
        if is_cut() {
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

    /// Goal: the edge is found from below and from above to within 7 %, and a server that holds nothing is an error.
    #[test]
    fn the_edge_is_found() {
        for (first, limit) in [(100.0, 730.0), (100.0, 13.0), (1.0, 1.5), (100.0, 100.0)] {
            let rate = edge(first, || false, &mut |rate| Ok(rate <= limit)).expect("it holds some").expect("not cut");
            assert!(rate <= limit && rate > limit * 0.93, "{rate} of {limit}");
        }
        assert!(edge(100.0, || false, &mut |_| Ok(false)).is_err());
        assert!(edge(100.0, || true, &mut |_| Ok(true)).expect("no error").is_none());
    }
}
