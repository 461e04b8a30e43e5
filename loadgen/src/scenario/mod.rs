//! The scenarios, one file each, and what they share: options, starting the coordinator and opening connections.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::abort::{self, Abort};
use crate::clock::{MILLISECOND_NS, SECOND_NS, now_ns};
use crate::coordinator::preflight::{self, Proof};
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::totals::Totals;
use crate::coordinator::watchdog::JoinWatchdog;
use crate::coordinator::{Coordinator, Waited};
use crate::environment;
use crate::messages::{ConnectOrder, Group, Order, Plan, PublishOrder, Requests, ResumePlan};
use crate::outcome::Failure;
use crate::process::Watched;
use crate::report::Report;
use crate::report::threshold::Thresholds;
use crate::wire::target::Target;
use crate::wire::transport::Transport;

pub(crate) mod connection_storm;
pub(crate) mod fan_out;
pub(crate) mod file;
mod find_rate;
pub(crate) mod floor;
pub(crate) mod floor_sender;
pub(crate) mod http_echo;
pub(crate) mod idle;
pub(crate) mod load;
pub(crate) mod many_to_many;
pub(crate) mod presence_churn;
pub(crate) mod publish;
pub(crate) mod reconnect_storm;
pub(crate) mod resume;
pub(crate) mod round;
pub(crate) mod rounds;
pub(crate) mod slow_readers;
pub(crate) mod subscribe;
pub(crate) mod tenants;

/// Options of every scenario.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Common {
    /// The server under load.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:6001", help_heading = "Target")]
    pub(crate) url: String,
    /// App id, for the HTTP API.
    #[arg(long, value_name = "ID", default_value = "1", help_heading = "Target")]
    pub(crate) app_id: String,
    /// App key.
    #[arg(long, value_name = "KEY", default_value = "app-key", help_heading = "Target")]
    pub(crate) key: String,
    /// App secret.
    #[arg(
        long,
        value_name = "SECRET",
        env = "RELAY_LOADGEN_SECRET",
        default_value = "app-secret",
        hide_env_values = true,
        help_heading = "Target"
    )]
    #[serde(skip)]
    pub(crate) secret: String,
    /// Process id of the server, to measure its CPU time and memory.
    #[arg(long, value_name = "PID", help_heading = "Target")]
    pub(crate) server_pid: Option<u32>,
    /// Worker processes, one thread each [default: half of the cores, or more if the limit of descriptors requires it].
    #[arg(long, value_name = "N", help_heading = "Generator")]
    pub(crate) workers: Option<usize>,
    /// Maximum number of handshakes in flight per worker.
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Generator")]
    pub(crate) in_flight: u64,
    /// Seconds after which a connection that is not subscribed counts as failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, help_heading = "Generator")]
    pub(crate) connect_timeout_seconds: f64,
    /// Print the report as JSON.
    #[arg(long, help_heading = "Report")]
    pub(crate) json: bool,
    /// Write all times as an HdrHistogram log (V2), one line per second and measure.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) hdr: Option<PathBuf>,
    /// Write percentiles for each second and measure as CSV.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) csv: Option<PathBuf>,
    /// Write a self-contained HTML report with charts.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) html: Option<PathBuf>,
    /// Write each chart to its own SVG file.
    #[arg(long, value_name = "FOLDER", help_heading = "Report")]
    pub(crate) svg: Option<PathBuf>,
    /// Exit with code 99 unless all of these hold, e.g. 'p99<50ms,loss=0'.
    #[arg(long, value_name = "CONDITIONS", help_heading = "Report")]
    pub(crate) fail_if: Option<Thresholds>,
}

/// The parameters of a scenario for the coordinator.
pub(crate) struct Needs {
    pub(crate) connections: u64,
    pub(crate) channels: Vec<String>,
    pub(crate) publishers: u32,
    pub(crate) pipeline: usize,
    /// See [`Plan::events_in_flight_max`].
    pub(crate) events_in_flight_max: u64,
    pub(crate) payload_bytes: usize,
    /// Members that only watch, in a presence channel.
    pub(crate) watchers: u32,
    pub(crate) proof: Proof,
    /// The requests of publishers.
    pub(crate) requests: Requests,
    pub(crate) transports: Vec<Transport>,
    pub(crate) resume: Option<ResumePlan>,
}

impl Common {
    /// The server under load.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        Target::new(&self.url, &self.app_id, &self.key, &self.secret)
    }

    /// The server's process, if it is measured.
    pub(crate) fn server(&self) -> Result<Option<Watched>, Failure> {
        self.server_pid.map(Watched::new).transpose()
    }

    /// Checks the target and starts the workers.
    pub(crate) fn start(&self, needs: &Needs, target: Target) -> Result<Coordinator, Failure> {
        if needs.connections > u64::from(u32::MAX) {
            return Err(Failure::Usage(format!("{} connections: the limit is {}", needs.connections, u32::MAX)));
        }
        if needs.connections.saturating_mul(u64::from(needs.publishers)) > WINDOWS_MAX {
            let text = format!(
                "connections times publishers must be at most {WINDOWS_MAX}, because the order is checked for each pair"
            );
            return Err(Failure::Usage(text));
        }
        self.workers_for(needs.connections)?;
        preflight::check(&target, needs.proof)?;
        self.start_without_check(needs, target)
    }

    /// Starts the workers.
    pub(crate) fn start_without_check(&self, needs: &Needs, target: Target) -> Result<Coordinator, Failure> {
        let workers = self.workers_for(needs.connections)?;
        let plan = Plan {
            target,
            run: std::process::id() ^ (now_ns() >> 10) as u32,
            worker: 0,
            channels: needs.channels.clone(),
            publishers: needs.publishers,
            pipeline: needs.pipeline.max(1),
            events_in_flight_max: needs.events_in_flight_max,
            payload_bytes: needs.payload_bytes,
            watchers: needs.watchers,
            join_timeout_ns: (self.connect_timeout_seconds * SECOND_NS as f64) as u64,
            requests: needs.requests,
            connections: needs.connections,
            transports: needs.transports.clone(),
            resume: needs.resume,
        };
        Coordinator::start(&plan, workers)
    }

    /// The number of workers for this many connections.
    fn workers_for(&self, connections: u64) -> Result<usize, Failure> {
        let per_worker = environment::descriptors().saturating_sub(DESCRIPTORS_KEPT).max(1);
        let needed = usize::try_from(connections.div_ceil(per_worker).max(1)).unwrap_or(usize::MAX);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.workers.unwrap_or_else(|| needed.max(cores / 2).max(1));
        if workers < needed {
            return Err(Failure::Usage(format!(
                "{connections} connections need --workers {needed}: a process may have {} descriptors (`ulimit -n`)",
                environment::descriptors()
            )));
        }
        if workers > WORKERS_MAX {
            return Err(Failure::Usage(format!(
                "{workers} workers are needed, the limit is {WORKERS_MAX}: raise `ulimit -n`"
            )));
        }
        Ok(workers)
    }

    /// Opens the connections of a wave and waits until they are subscribed. An error only if none could be subscribed;
    /// otherwise missing ones are a problem in the report.
    pub(crate) fn connect(
        &self,
        coordinator: &mut Coordinator,
        wave: &WaveOfConnections,
        report: &mut Report,
    ) -> Result<Totals, Failure> {
        let server = self.server()?;
        let memory_before = server.and_then(Watched::memory);
        let begin_ns = now_ns();
        let before = coordinator.totals();
        let bar = Bar::new(wave.label, wave.count, Counts::Joins, &before);
        begin_wave(coordinator, wave, self.in_flight)?;
        let ramp = if wave.per_second > 0.0 { wave.count as f64 / wave.per_second } else { wave.count as f64 / 500.0 };
        let bound = Duration::from_secs_f64(self.connect_timeout_seconds + ramp + 5.0);
        let mut watchdog = JoinWatchdog::new(Duration::from_secs_f64(self.connect_timeout_seconds + 2.0));
        let done = |totals: &Totals| {
            let (now, then) = (&totals.counters, &before.counters);
            watchdog.watch(totals, then);
            now.joined + now.failed >= then.joined + then.failed + wave.count
        };
        let waited = coordinator.wait(bound, &bar, done)?;
        let totals = coordinator.totals();
        report.reasons.clone_from(&totals.counters.reasons);
        let joined = totals.counters.joined - before.counters.joined;
        if wave.group == Group::Subscribers {
            let seconds = (now_ns() - begin_ns) as f64 / SECOND_NS as f64;
            report.figure("connection-success-rate-percent", 100.0 * joined as f64 / wave.count.max(1) as f64, "%");
            report.figure("joins-per-second", joined as f64 / seconds, "/s");
            if let Some((before, after)) = memory_before.zip(server.and_then(Watched::memory)) {
                let per = (after.resident as f64 - before.resident as f64) / joined.max(1) as f64;
                report.figure("server-resident-per-connection-bytes", per, "B");
            }
        }
        if waited != Waited::Reached || joined < wave.count {
            report.shortfall(format!("only {joined} of {} connections were subscribed", wave.count));
        }
        if joined == 0 && !matches!(abort::reason(), Some(Abort::Interrupted(_) | Abort::Generator(_))) {
            let earlier = |reason: &String| before.counters.reasons.get(reason).copied().unwrap_or(0);
            let why = totals.counters.reasons.iter().max_by_key(|(reason, count)| **count - earlier(reason));
            let why = why.map_or("no answer", |(reason, _)| reason);
            return Err(Failure::Run(format!("no connection could be subscribed: {why}")));
        }
        Ok(totals)
    }
}

/// Connections to open together.
pub(crate) struct WaveOfConnections {
    pub(crate) label: &'static str,
    pub(crate) group: Group,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// 0 means as fast as the server answers.
    pub(crate) per_second: f64,
}

/// Orders each worker to open its share of the connections, without waiting.
pub(crate) fn begin_wave(
    coordinator: &mut Coordinator,
    wave: &WaveOfConnections,
    in_flight: u64,
) -> Result<(), Failure> {
    let workers = coordinator.workers() as u64;
    let start_ns = now_ns() + 10 * MILLISECOND_NS;
    coordinator.order_all(|index| {
        let index = index as u64;
        let count = wave.count / workers + u64::from(index < wave.count % workers);
        let interval_ns = if wave.per_second > 0.0 { SECOND_NS as f64 * workers as f64 / wave.per_second } else { 0.0 };
        (count > 0).then(|| {
            Order::Connect(ConnectOrder {
                group: wave.group,
                first: wave.first + index,
                stride: workers,
                count,
                start_ns: start_ns + (interval_ns * index as f64 / workers as f64) as u64,
                interval_ns,
                in_flight_max: in_flight.max(1),
            })
        })
    })
}

/// The schedule of all publishers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    pub(crate) publishers: u32,
    /// Of all publishers together; 0 means a closed loop.
    pub(crate) events_per_second: f64,
    pub(crate) messages_per_tick: u32,
    pub(crate) seconds: f64,
}

impl Rhythm {
    /// Time between two ticks of one publisher.
    pub(crate) fn interval_ns(self) -> f64 {
        if self.events_per_second <= 0.0 {
            return 0.0;
        }
        f64::from(self.publishers) * f64::from(self.messages_per_tick) * SECOND_NS as f64 / self.events_per_second
    }

    /// Ticks of one publisher.
    pub(crate) fn ticks(self) -> u64 {
        if self.events_per_second <= 0.0 {
            return 1;
        }
        ((self.seconds * SECOND_NS as f64 / self.interval_ns()) as u64).max(1)
    }

    /// Events of all publishers together; 0 for a closed loop, for which the number is not known.
    pub(crate) fn events(self) -> u64 {
        if self.events_per_second <= 0.0 {
            return 0;
        }
        self.ticks() * u64::from(self.messages_per_tick) * u64::from(self.publishers)
    }

    /// Orders the workers to publish, beginning shortly after now. Publisher `p` belongs to worker `p mod workers`.
    pub(crate) fn begin(self, coordinator: &mut Coordinator) -> Result<u64, Failure> {
        let workers = u32::try_from(coordinator.workers()).unwrap_or(1);
        let start_ns = now_ns() + LEAD_NS;
        coordinator.order_all(|_| Some(Order::MeasureFrom { at_ns: now_ns() }))?;
        coordinator.order_all(|index| {
            let index = u32::try_from(index).unwrap_or(0);
            let publishers: Vec<u32> = (0..self.publishers).filter(|publisher| publisher % workers == index).collect();
            (!publishers.is_empty()).then(|| {
                Order::Publish(PublishOrder {
                    publishers,
                    start_ns,
                    interval_ns: self.interval_ns(),
                    end_ns: start_ns + (self.seconds * SECOND_NS as f64) as u64,
                    ticks: self.ticks(),
                    messages_per_tick: self.messages_per_tick,
                })
            })
        })?;
        Ok(start_ns)
    }
}

pub(crate) const LEAD_NS: u64 = 50 * MILLISECOND_NS;
/// Descriptors for standard streams, epoll, timer and publishers.
const DESCRIPTORS_KEPT: u64 = 64;
/// 16 bytes for each.
const WINDOWS_MAX: u64 = 100_000_000;
const WORKERS_MAX: usize = 512;
