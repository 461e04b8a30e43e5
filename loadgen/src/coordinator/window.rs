//! The measured part of a run: CPU time and totals at its start and end, and whether the generator kept up.

use super::Coordinator;
use super::totals::Totals;
use crate::clock::now_ns;
use crate::messages::{Counters, Measure};
use crate::outcome::Verdict;
use crate::process::{CpuTime, Watched};
use crate::report::Report;
use crate::report::histogram::milliseconds;
use crate::report::quantity::time;
use crate::report::times::Times;

/// The state at the start.
pub(crate) struct Window {
    begin_ns: u64,
    before: Totals,
    server: Option<Watched>,
    server_before: Option<CpuTime>,
}

/// The changes between start and end.
pub(crate) struct Used {
    pub(crate) before: Counters,
    pub(crate) after: Counters,
    pub(crate) seconds: f64,
    /// Share of a core that the busiest worker used, 0 to 1.
    pub(crate) generator_busy: f64,
    /// Time that workers were ready to run and had no core, as a share of the window.
    pub(crate) generator_waited: f64,
    /// `None` without `--server-pid`, or when the server is gone.
    pub(crate) server: Option<CpuTime>,
}

impl Window {
    /// Starts the measurement.
    pub(crate) fn open(coordinator: &Coordinator, server: Option<Watched>) -> Self {
        Self { begin_ns: now_ns(), before: coordinator.totals(), server, server_before: server.and_then(Watched::cpu) }
    }

    pub(crate) fn before(&self) -> &Totals {
        &self.before
    }

    /// Ends the measurement.
    pub(crate) fn close(self, coordinator: &Coordinator) -> Used {
        let server = self.server.and_then(Watched::cpu).zip(self.server_before).map(|(now, then)| now.since(then));
        let after = coordinator.totals();
        let elapsed = (now_ns() - self.begin_ns).max(1) as f64;
        let busiest = after.cpu_ns.iter().zip(&self.before.cpu_ns).map(|(now, then)| now.saturating_sub(*then)).max();
        Used {
            seconds: elapsed / 1e9,
            generator_busy: busiest.unwrap_or(0) as f64 / elapsed,
            generator_waited: after.wait_ns.saturating_sub(self.before.wait_ns) as f64 / elapsed,
            server,
            before: self.before.counters,
            after: after.counters,
        }
    }
}

impl Used {
    /// Adds the server's CPU time, in total and divided by `count`.
    pub(crate) fn report_server(&self, report: &mut Report, per: &str, count: u64) {
        let Some(cpu) = self.server else { return };
        report.figure("server-cpu-user-seconds", cpu.user_ns as f64 / 1e9, "s");
        report.figure("server-cpu-system-seconds", cpu.system_ns as f64 / 1e9, "s");
        report.figure("server-cpu-percent", cpu.total_ns as f64 / self.seconds / 1e7, "%");
        report.figure("server-waited-for-a-core-percent", cpu.wait_ns as f64 / self.seconds / 1e7, "%");
        if count > 0 {
            report.figure(&format!("server-cpu-per-{per}-ns"), cpu.total_ns as f64 / count as f64, "ns");
        }
    }

    /// Adds how busy the generator was, and a problem if it was the bottleneck: then times and rates do not describe the
    /// server.
    pub(crate) fn report_generator(&self, times: &Times, of: Measure, report: &mut Report) {
        report.figure("generator-cpu-percent", self.generator_busy * 100.0, "%");
        report.figure("generator-waited-for-a-core-percent", self.generator_waited * 100.0, "%");
        if self.generator_busy >= BUSY_MAX {
            let text = format!(
                "a worker used {:.0} % of a core: the generator was the bottleneck",
                self.generator_busy * 100.0
            );
            report.problem(Verdict::Invalid, text);
        }
        let Some(lag) = times.total(Measure::Lag).map(|lag| milliseconds(lag, 99.0)) else { return };
        report.figure("generator-lag-p99-ms", lag, "ms");
        let measured = times.total(of).map_or(0.0, |total| milliseconds(total, 99.0));
        if lag > LAG_MAX_MS && lag > measured * LAG_SHARE_MAX {
            report.problem(
                Verdict::Invalid,
                format!("the generator was {} late (p99) on its own schedule: it was the bottleneck", time(lag * 1e6)),
            );
        }
    }
}

/// Above this share of a core, a worker cannot keep its schedule.
const BUSY_MAX: f64 = 0.95;
/// A lag below this, or below this share of the measured time, is ignored.
const LAG_MAX_MS: f64 = 1.0;
const LAG_SHARE_MAX: f64 = 0.25;
