//! The measurements of each round of a fan-out, of the server and of the floor, and their summary: medians, minima and
//! maxima, and ratios within each round.

use hdrhistogram::Histogram;

use crate::coordinator::Coordinator;
use crate::coordinator::window::Used;
use crate::messages::Measure;
use crate::report::Report;
use crate::report::histogram::milliseconds;

/// One value for each round, in the order of the rounds.
#[derive(Default)]
pub(crate) struct Rounds {
    pub(crate) per_second: Vec<f64>,
    pub(crate) per_read: Vec<f64>,
    server_ns: Vec<f64>,
    p99_ms: Vec<f64>,
    pub(crate) send: FloorRounds,
    pub(crate) uring: FloorRounds,
}

/// The same rounds with one way of sending and no server.
#[derive(Default)]
pub(crate) struct FloorRounds {
    pub(crate) cpu_ns: Vec<f64>,
    pub(crate) p99_ms: Vec<f64>,
    /// All its times.
    pub(crate) times: Option<Histogram<u64>>,
}

impl Rounds {
    /// Adds a round of the server, with the times that the coordinator holds.
    pub(crate) fn add(&mut self, used: &Used, coordinator: &Coordinator) {
        let delivered = (used.after.delivered - used.before.delivered) as f64;
        self.per_second.push(delivered / used.seconds);
        self.per_read.push(delivered / (used.after.reads - used.before.reads).max(1) as f64);
        self.p99_ms.extend(coordinator.times.total(Measure::Delivery).map(|total| milliseconds(total, 99.0)));
        if let Some(server) = used.server.filter(|_| delivered > 0.0) {
            self.server_ns.push(server.total_ns as f64 / delivered);
        }
    }

    /// Adds all of it to the report.
    pub(crate) fn report(&self, report: &mut Report) {
        report.figure("deliveries-per-second", median(&self.per_second), "/s");
        report.figure("deliveries-per-read", median(&self.per_read), "");
        spread(report, "delivery-p99", &self.p99_ms, "ms");
        spread(report, "server-cpu-per-delivery", &self.server_ns, "ns");
        for (name, floor) in [("send", &self.send), ("uring", &self.uring)] {
            spread(report, &format!("floor-{name}-cpu-per-delivery"), &floor.cpu_ns, "ns");
            spread(report, &format!("server-to-floor-{name}-ratio"), &ratios(&self.server_ns, &floor.cpu_ns), "");
            spread(report, &format!("floor-{name}-p99"), &floor.p99_ms, "ms");
            spread(report, &format!("p99-to-floor-{name}-ratio"), &ratios(&self.p99_ms, &floor.p99_ms), "");
            if let Some(times) = &floor.times {
                report.beside.push((format!("floor, {name}"), times.clone()));
            }
        }
    }
}

impl FloorRounds {
    /// Adds a round of the floor and takes its times.
    pub(crate) fn add(&mut self, cpu_per_delivery_ns: f64, coordinator: &mut Coordinator) {
        self.cpu_ns.push(cpu_per_delivery_ns);
        if let Some(total) = coordinator.times.total(Measure::Delivery) {
            self.p99_ms.push(milliseconds(total, 99.0));
            let sum = self.times.get_or_insert_with(crate::recorder::histogram);
            // All histograms have the same bounds.
            let _ = sum.add(total);
        }
        coordinator.times.clear();
    }
}

/// The ratio for each round that has both values.
fn ratios(above: &[f64], below: &[f64]) -> Vec<f64> {
    above.iter().zip(below).map(|(above, below)| above / below).collect()
}

/// The median of several values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Adds the median, and with several rounds the minimum and maximum.
fn spread(report: &mut Report, name: &str, values: &[f64], unit: &'static str) {
    if values.is_empty() {
        return;
    }
    let suffix = if unit.is_empty() { String::new() } else { format!("-{unit}") };
    report.figure(&format!("{name}{suffix}"), median(values), unit);
    if values.len() > 1 {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        report.figure(&format!("{name}-min{suffix}"), least, unit);
        report.figure(&format!("{name}-max{suffix}"), most, unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the reported ratios are the median, minimum and maximum of the ratios within rounds, not ratios of medians.
    #[test]
    fn ratios_are_of_the_same_round() {
        let rounds = Rounds {
            p99_ms: vec![4.0, 1.0, 9.0],
            send: FloorRounds { p99_ms: vec![1.0, 1.0, 3.0], ..FloorRounds::default() },
            ..Rounds::default()
        };
        let mut report = Report::default();
        rounds.report(&mut report);
        let value = |name: &str| report.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
        assert_eq!(value("p99-to-floor-send-ratio"), Some(3.0));
        assert_eq!(value("p99-to-floor-send-ratio-min"), Some(1.0));
        assert_eq!(value("p99-to-floor-send-ratio-max"), Some(4.0));
        assert_eq!(value("p99-to-floor-uring-ratio"), None, "there was no such floor");
    }
}
