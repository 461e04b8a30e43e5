//! `slow-readers`: some subscribers stop reading while large events are published. The others must not be affected, and
//! the server must limit what it buffers for the slow ones and close them.

use clap::Args;
use serde::Serialize;

use super::round::Audience;
use super::{Common, Needs, Rhythm, WaveOfConnections};
use crate::coordinator::preflight::Proof;
use crate::messages::{Group, Measure, Requests};
use crate::outcome::Failure;
use crate::process::Watched;
use crate::report::Report;
use crate::report::histogram::milliseconds;
use crate::wire::transport::Transport;

/// Some subscribers that never read, among others that do.
#[derive(Args, Clone, Debug, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SlowReaders {
    /// Subscribers that read.
    #[arg(long, value_name = "N", default_value_t = 500)]
    subscribers: u64,
    /// Subscribers that never read.
    #[arg(long, value_name = "N", default_value_t = 1)]
    stalled: u64,
    /// Events per second.
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    events_per_second: f64,
    /// Bytes of each event's data.
    #[arg(long, value_name = "BYTES", default_value_t = 10_000)]
    payload_bytes: usize,
    /// Seconds without the stalled subscribers, and again with them.
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    duration_seconds: f64,
    /// Channel that all subscribe to.
    #[arg(long, value_name = "NAME", default_value = "loadgen-slow")]
    channel: String,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl SlowReaders {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        if self.subscribers == 0 || self.events_per_second <= 0.0 {
            return Err(Failure::Usage("--subscribers and --events-per-second must be above 0".into()));
        }
        let needs = Needs {
            connections: self.subscribers + self.stalled,
            channels: vec![self.channel.clone()],
            publishers: 1,
            pipeline: 16,
            events_in_flight_max: 0,
            payload_bytes: self.payload_bytes.max(crate::wire::stamp::STAMP_BYTES),
            watchers: 0,
            proof: Proof::KeyAndSecret,
            requests: Requests::Events,
            transports: vec![Transport::Ws],
            resume: None,
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        let wave = |label, group, first, count| WaveOfConnections { label, group, first, count, per_second: 0.0 };
        common.connect(&mut coordinator, &wave("connect", Group::Subscribers, 0, self.subscribers), report)?;
        let rhythm = Rhythm {
            publishers: 1,
            events_per_second: self.events_per_second,
            messages_per_tick: 1,
            seconds: self.duration_seconds,
        };
        let audience = Audience { subscribers: self.subscribers, channels: 1, excluded: 0 };
        audience.round(
            &mut coordinator,
            Rhythm { seconds: self.duration_seconds.min(1.0), ..rhythm },
            "warm up",
            None,
        )?;
        coordinator.times.clear();
        let without = audience.round(&mut coordinator, rhythm, "without", server)?;
        let without_p99 = coordinator.times.total(Measure::Delivery).map_or(0.0, |total| milliseconds(total, 99.0));
        let memory_before = server.and_then(Watched::memory);
        common.connect(&mut coordinator, &wave("stall", Group::Stalled, self.subscribers, self.stalled), report)?;
        coordinator.times.clear();
        let with = audience.round(&mut coordinator, rhythm, "with", server)?;
        report.times = std::mem::take(&mut coordinator.times);
        report.reasons.clone_from(&with.after.reasons);
        report.count("stalled", self.stalled);
        audience.report(&without.before, &with.after, report);
        let with_p99 = report.times.total(Measure::Delivery).map_or(0.0, |total| milliseconds(total, 99.0));
        report.figure("without-p99-ms", without_p99, "ms");
        report.figure("with-p99-ms", with_p99, "ms");
        if without_p99 > 0.0 {
            report.figure("with-to-without-p99-ratio", with_p99 / without_p99, "");
        }
        let closed = with.after.lost[Group::Stalled as usize];
        report.count("stalled-closed", closed);
        if closed < self.stalled {
            let text = format!(
                "{} stalled readers are still connected: the run may have been too short",
                self.stalled - closed
            );
            report.notes.push(text);
        }
        if let Some((before, after)) = memory_before.zip(server.and_then(Watched::memory)) {
            report.figure("server-resident-before-bytes", before.resident as f64, "B");
            report.figure("server-resident-bytes", after.resident as f64, "B");
        }
        with.report_server(report, "delivery", with.after.delivered - with.before.delivered);
        let times = std::mem::take(&mut report.times);
        with.report_generator(&times, Measure::Delivery, report);
        report.times = times;
        Ok(())
    }
}

const EXAMPLES: &str = "\
Examples:
  relay-loadgen slow-readers --subscribers 5000 --stalled 1 --events-per-second 5 --duration-seconds 25
  relay-loadgen slow-readers --stalled 50 --server-pid $(pidof relay) --fail-if 'with-to-without-p99-ratio<1.5'";
