//! `reconnect-storm`: all connections are reset at once while others are opened; with `--reconnect-seconds` they reconnect.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{Common, Needs, WaveOfConnections, begin_wave};
use crate::abort;
use crate::clock::SECOND_NS;
use crate::coordinator::Coordinator;
use crate::coordinator::preflight::{self, Proof};
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::totals::Totals;
use crate::coordinator::watchdog::JoinWatchdog;
use crate::coordinator::window::Window;
use crate::messages::{Back, Group, Measure, Order, Requests};
use crate::outcome::{Failure, Verdict};
use crate::report::Report;
use crate::report::histogram::milliseconds;
use crate::wire::stamp::STAMP_BYTES;
use crate::wire::target::Target;
use crate::wire::transport::Transport;

/// All connections are reset at once, while others are opened.
#[derive(Args, Clone, Debug, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReconnectStorm {
    /// Connections that are reset.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    connections: u64,
    /// Connections opened meanwhile, per second.
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    arrivals_per_second: f64,
    /// Seconds during which connections are opened; the reset is after a fifth of them.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    duration_seconds: f64,
    /// Seconds over which the reset connections reconnect; 0 means at once [default: they do not reconnect].
    #[arg(long, value_name = "SECONDS")]
    reconnect_seconds: Option<f64>,
    /// Channel that all subscribe to.
    #[arg(long, value_name = "NAME", default_value = "loadgen-reconnect")]
    channel: String,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl ReconnectStorm {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        if self.arrivals_per_second <= 0.0 || self.duration_seconds <= 0.0 {
            return Err(Failure::Usage("--arrivals-per-second and --duration-seconds must be above 0".into()));
        }
        let arrivals = ((self.arrivals_per_second * self.duration_seconds) as u64).max(1);
        let needs = Needs {
            connections: self.connections + arrivals,
            channels: vec![self.channel.clone()],
            publishers: 1,
            pipeline: 1,
            events_in_flight_max: 0,
            payload_bytes: STAMP_BYTES,
            watchers: 0,
            proof: Proof::KeyAndSecret,
            requests: Requests::Events,
            transports: vec![Transport::Ws],
            resume: None,
        };
        let target = common.target()?;
        let mut coordinator = common.start(&needs, target.clone())?;
        let wave =
            |label, group, first, count, per_second| WaveOfConnections { label, group, first, count, per_second };
        common.connect(&mut coordinator, &wave("connect", Group::Subscribers, 0, self.connections, 0.0), report)?;
        coordinator.times.clear();
        let window = Window::open(&coordinator, server);
        let before = window.before().counters.clone();
        let arriving = wave("storm", Group::Arrivals, self.connections, arrivals, self.arrivals_per_second);
        begin_wave(&mut coordinator, &arriving, common.in_flight)?;
        let bar = Bar::new("storm", arrivals, Counts::Joins, window.before());
        coordinator.wait(Duration::from_secs_f64(self.duration_seconds / 5.0), &bar, |_| false)?;
        self.reset(&mut coordinator)?;
        let counted = match abort::reason() {
            None => self.watch_counters(&mut coordinator, &bar, &target)?,
            Some(_) => Counted::Unknown("the run was cut short".into()),
        };
        let back = if self.reconnect_seconds.is_some() { self.connections } else { 0 };
        let mut watchdog = JoinWatchdog::new(Duration::from_secs_f64(common.connect_timeout_seconds + 2.0));
        let is_over = |totals: &Totals| {
            let (now, then) = (&totals.counters, &before);
            watchdog.watch(totals, then);
            now.joined + now.failed >= then.joined + then.failed + arrivals + back
        };
        let bound =
            self.duration_seconds + self.reconnect_seconds.unwrap_or(0.0) + common.connect_timeout_seconds + 5.0;
        coordinator.wait(Duration::from_secs_f64(bound), &bar, is_over)?;
        let used = window.close(&coordinator);
        report.times = std::mem::take(&mut coordinator.times);
        report.reasons.clone_from(&used.after.reasons);
        report.count("connections-reset", self.connections);
        let joined = used.after.joined - before.joined;
        report.count("joined-meanwhile", joined);
        report.count("failed-meanwhile", used.after.failed - before.failed);
        if joined < arrivals + back {
            report.shortfall(format!("only {joined} of {} connections were subscribed", arrivals + back));
        }
        if let Some(arrival) = report.times.total(Measure::Arrival) {
            let p99 = milliseconds(arrival, 99.0);
            report.figure("arrival-p99-ms", p99, "ms");
        }
        counted.report(report);
        used.report_server(report, "join", joined);
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Arrival, report);
        report.times = times;
        Ok(())
    }

    fn reset(&self, coordinator: &mut Coordinator) -> Result<(), Failure> {
        let workers = coordinator.workers() as f64;
        let back = self.reconnect_seconds.map(|seconds| Back {
            interval_ns: seconds * SECOND_NS as f64 * workers / self.connections.max(1) as f64,
            in_flight_max: self.common.in_flight.max(1),
        });
        coordinator.order_all(|_| Some(Order::Drop { group: Group::Subscribers, back }))
    }

    /// Measures how long after the reset the server's count of subscribers becomes correct.
    fn watch_counters(&self, coordinator: &mut Coordinator, bar: &Bar, target: &Target) -> Result<Counted, Failure> {
        let begin = Instant::now();
        loop {
            // Our count first: connections opened in between can only increase the server's count.
            coordinator.wait(Duration::from_millis(50), bar, |_| true)?;
            let open: u64 = coordinator.totals().counters.open.iter().sum();
            let counted = match subscribers(target, &self.channel) {
                Ok(counted) => counted,
                Err(why) => return Ok(Counted::Unknown(why)),
            };
            // Connections opened since our last report.
            let margin = self.arrivals_per_second as u64 + 1 + self.reconnect_seconds.map_or(0, |_| self.connections);
            if counted <= open + margin {
                return Ok(Counted::Right(begin.elapsed().as_secs_f64() * 1_000.0));
            }
            if begin.elapsed() > Duration::from_secs(10) {
                return Ok(Counted::Wrong(counted));
            }
        }
    }
}

enum Counted {
    /// After this many milliseconds.
    Right(f64),
    Wrong(u64),
    Unknown(String),
}

impl Counted {
    fn report(self, report: &mut Report) {
        match self {
            Self::Right(milliseconds) => report.figure("counters-right-after-ms", milliseconds, "ms"),
            Self::Wrong(count) => {
                let text = format!("10 s after the reset the server still counts {count} connections");
                report.problem(Verdict::Failed, text);
            }
            Self::Unknown(why) => report.notes.push(format!("the server's count of connections is unknown: {why}")),
        }
    }
}

/// The server's count of subscribers of a channel.
fn subscribers(target: &Target, channel: &str) -> Result<u64, String> {
    let path = format!("/channels/{channel}");
    let (status, body) =
        preflight::request(target, "GET", &path, "info=subscription_count", b"").map_err(|error| error.to_string())?;
    if status != 200 {
        return Err(format!("GET {path} answered {status}"));
    }
    let answer: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    answer["subscription_count"].as_u64().ok_or_else(|| "no subscription_count in the answer".into())
}

const EXAMPLES: &str = "\
Examples:
  relay-loadgen reconnect-storm --connections 15000 --arrivals-per-second 50
  relay-loadgen reconnect-storm --connections 15000 --reconnect-seconds 2 --duration-seconds 10";
