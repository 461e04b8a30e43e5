//! `connection-storm`: many connections are opened within a short time, subscribed and then held.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::load::Channels;
use super::{Common, Needs, WaveOfConnections};
use crate::abort::{self, Abort};
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::window::Window;
use crate::messages::{Group, Measure, Requests};
use crate::outcome::{Failure, Verdict};
use crate::process::Watched;
use crate::report::Report;
use crate::wire::stamp::STAMP_BYTES;
use crate::wire::transport::Transport;

/// Many connections opened within a short time.
#[derive(Args, Clone, Debug, Serialize)]
#[command(after_help = EXAMPLES, mut_arg("channel", |arg| arg.required(false).default_value("loadgen-storm")))]
pub(crate) struct ConnectionStorm {
    /// Number of connections.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    target_connections: u64,
    /// Seconds over which they are opened, whether or not the server keeps up; 0 means as fast as the server answers.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    ramp_seconds: f64,
    /// Seconds to hold them.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    hold_seconds: f64,
    #[command(flatten)]
    #[serde(flatten)]
    channels: Channels,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl ConnectionStorm {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        let needs = Needs {
            connections: self.target_connections,
            channels: self.channels.names()?,
            publishers: 1,
            pipeline: 1,
            events_in_flight_max: 0,
            payload_bytes: STAMP_BYTES,
            watchers: 0,
            proof: self.channels.proof(),
            requests: Requests::Events,
            transports: vec![Transport::Ws],
            resume: None,
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        let window = Window::open(&coordinator, server);
        let per_second = if self.ramp_seconds > 0.0 { self.target_connections as f64 / self.ramp_seconds } else { 0.0 };
        let wave = WaveOfConnections {
            label: "storm",
            group: Group::Subscribers,
            first: 0,
            count: self.target_connections,
            per_second,
        };
        let connected = common.connect(&mut coordinator, &wave, report);
        let used = window.close(&coordinator);
        report.times.merge(&std::mem::take(&mut coordinator.times));
        let joined = used.after.joined;
        report.count("attempted", used.after.attempted);
        report.count("joined", joined);
        report.count("failed", used.after.failed);
        used.report_server(report, "join", joined);
        connected?;
        let bar = Bar::new("hold", self.target_connections, Counts::Joins, &coordinator.totals());
        let group = Group::Subscribers as usize;
        coordinator.wait(Duration::from_secs_f64(self.hold_seconds), &bar, |totals| {
            if totals.counters.open[group] == 0 {
                abort::set(Abort::Server("the server closed every connection".into()));
            }
            false
        })?;
        let held = coordinator.totals().counters;
        report.count("still-subscribed-after-hold", held.subscribed[group]);
        if held.lost[group] > 0 {
            report.problem(Verdict::Failed, format!("the server closed {} connections", held.lost[group]));
        }
        if let Some(memory) = server.and_then(Watched::memory) {
            report.figure("server-resident-bytes", memory.resident as f64, "B");
        }
        report.reasons = held.reasons;
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Join, report);
        report.times = times;
        Ok(())
    }
}

const EXAMPLES: &str = "\
Examples:
  relay-loadgen connection-storm --target-connections 15000 --ramp-seconds 5 --hold-seconds 10
  relay-loadgen connection-storm --channel presence-lobby --channels 100 --target-connections 5000
  relay-loadgen connection-storm --ramp-seconds 0 --fail-if 'join.p99<250ms'";
