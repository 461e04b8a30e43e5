//! `publish`: signed HTTP requests, keep-alive and pipelined, to a channel without subscribers.

use clap::Args;
use serde::Serialize;

use super::round::Audience;
use super::{Common, Needs, Rhythm};
use crate::coordinator::preflight::Proof;
use crate::messages::{Measure, Requests};
use crate::outcome::Failure;
use crate::report::Report;
use crate::wire::transport::Transport;

/// Signed publishes over HTTP to a channel without subscribers.
#[derive(Args, Clone, Debug, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Publish {
    /// Keep-alive connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    publishers: u32,
    /// Requests per second of all connections together; 0 means a closed loop: as fast as the server answers.
    #[arg(long, value_name = "N", default_value_t = 1_000.0)]
    requests_per_second: f64,
    /// Maximum number of requests in flight per connection.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pipeline: usize,
    /// Requests that are due at the same moment.
    #[arg(long, value_name = "N", default_value_t = 1)]
    messages_per_tick: u32,
    /// Seconds to publish.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration_seconds: f64,
    /// Bytes of each event's data.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    payload_bytes: usize,
    /// Channel to publish to; it has no subscribers.
    #[arg(long, value_name = "NAME", default_value = "loadgen-publish")]
    channel: String,
    /// Ask the auth endpoint for signatures of a subscription instead of publishing.
    #[arg(long)]
    auth: bool,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl Publish {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        if self.publishers == 0 || self.messages_per_tick == 0 {
            return Err(Failure::Usage("--publishers and --messages-per-tick must be at least 1".into()));
        }
        let needs = Needs {
            connections: 0,
            channels: vec![self.channel.clone()],
            publishers: self.publishers,
            pipeline: self.pipeline,
            events_in_flight_max: 0,
            payload_bytes: self.payload_bytes.max(crate::wire::stamp::STAMP_BYTES),
            watchers: 0,
            proof: Proof::KeyAndSecret,
            requests: if self.auth { Requests::Auth } else { Requests::Events },
            transports: vec![Transport::Ws],
            resume: None,
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        let rhythm = Rhythm {
            publishers: self.publishers,
            events_per_second: self.requests_per_second,
            messages_per_tick: self.messages_per_tick,
            seconds: self.duration_seconds,
        };
        let audience = Audience { subscribers: 0, channels: 1, excluded: 0 };
        audience.round(
            &mut coordinator,
            Rhythm { seconds: self.duration_seconds.min(0.5), ..rhythm },
            "warm up",
            None,
        )?;
        coordinator.times.clear();
        let used = audience.round(&mut coordinator, rhythm, "publish", server)?;
        report.reasons.clone_from(&used.after.reasons);
        report.times = std::mem::take(&mut coordinator.times);
        audience.report(&used.before, &used.after, report);
        let answered = used.after.accepted - used.before.accepted;
        report.figure("requests-per-second", answered as f64 / used.seconds, "/s");
        used.report_server(report, "request", answered);
        if self.requests_per_second <= 0.0 {
            report.notes.push("closed loop: latencies do not include the time that requests waited to be sent".into());
        }
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Answer, report);
        report.times = times;
        Ok(())
    }
}

const EXAMPLES: &str = "\
Examples:
  relay-loadgen publish --requests-per-second 5000 --publishers 4
  relay-loadgen publish --requests-per-second 0 --server-pid $(pidof relay)      # closed loop: as fast as it answers";
