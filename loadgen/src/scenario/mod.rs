//! The scenarios, one file each, and what they share: options, the fleet's start, and the crowd that most begin with.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::clock::{MILLISECOND_NS, SECOND_NS, now_ns};
use crate::cut::{self, Cut};
use crate::environment;
use crate::fleet::{Fleet, Totals, Waited};
use crate::messages::{ConnectOrder, Group, Order, Plan, PublishOrder, Requests};
use crate::outcome::Failure;
use crate::preflight::{self, Proof};
use crate::process::Watched;
use crate::progress::{Bar, Counts};
use crate::report::Report;
use crate::silence::JoinSilence;
use crate::target::Target;
use crate::threshold::Thresholds;

pub(crate) mod connection_storm;
pub(crate) mod fan_out;
mod find_rate;
pub(crate) mod floor;
pub(crate) mod idle;
pub(crate) mod load;
pub(crate) mod many_to_many;
pub(crate) mod presence_churn;
pub(crate) mod publish;
pub(crate) mod reconnect_storm;
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
    /// Process of the server, for its CPU and memory.
    #[arg(long, value_name = "PID", help_heading = "Target")]
    pub(crate) server_pid: Option<u32>,
    /// Worker processes, one thread each [default: half of the cores, more where descriptors ask for it].
    #[arg(long, value_name = "N", help_heading = "Generator")]
    pub(crate) workers: Option<usize>,
    /// Handshakes under way at one time, in each worker.
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Generator")]
    pub(crate) in_flight: u64,
    /// Seconds after which a connection that is not subscribed has failed.
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
    /// Write each chart as an SVG file of its own.
    #[arg(long, value_name = "FOLDER", help_heading = "Report")]
    pub(crate) svg: Option<PathBuf>,
    /// End with code 99 unless all of these hold, e.g. 'p99<50ms,loss=0'.
    #[arg(long, value_name = "CONDITIONS", help_heading = "Report")]
    pub(crate) fail_if: Option<Thresholds>,
}

/// What a scenario asks of the fleet.
pub(crate) struct Needs {
    pub(crate) connections: u64,
    pub(crate) channels: Vec<String>,
    pub(crate) publishers: u32,
    pub(crate) pipeline: usize,
    /// See [`Plan::under_way_max`].
    pub(crate) under_way_max: u64,
    pub(crate) payload_bytes: usize,
    /// Members that only watch, in a presence channel.
    pub(crate) watchers: u32,
    pub(crate) proof: Proof,
    /// What publishers request.
    pub(crate) requests: Requests,
}

impl Common {
    /// The server under load.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        Target::new(&self.url, &self.app_id, &self.key, &self.secret)
    }

    /// The server's process, if it is to be watched.
    pub(crate) fn server(&self) -> Result<Option<Watched>, Failure> {
        self.server_pid.map(Watched::new).transpose()
    }

    /// Checks the target and starts the workers.
    pub(crate) fn start(&self, needs: &Needs, target: Target) -> Result<Fleet, Failure> {
        if needs.connections > u64::from(u32::MAX) {
            return Err(Failure::Usage(format!("{} connections are too many", needs.connections)));
        }
        if needs.connections.saturating_mul(u64::from(needs.publishers)) > WINDOWS_MAX {
            let text = format!("connections times publishers is above {WINDOWS_MAX}: order could not be checked");
            return Err(Failure::Usage(text));
        }
        self.workers_for(needs.connections)?;
        preflight::check(&target, needs.proof)?;
        self.start_without_check(needs, target)
    }

    /// Starts the workers.
    pub(crate) fn start_without_check(&self, needs: &Needs, target: Target) -> Result<Fleet, Failure> {
        let workers = self.workers_for(needs.connections)?;
        let plan = Plan {
            target,
            run: std::process::id() ^ (now_ns() >> 10) as u32,
            worker: 0,
            channels: needs.channels.clone(),
            publishers: needs.publishers,
            pipeline: needs.pipeline.max(1),
            under_way_max: needs.under_way_max,
            payload_bytes: needs.payload_bytes,
            watchers: needs.watchers,
            join_timeout_ns: (self.connect_timeout_seconds * SECOND_NS as f64) as u64,
            requests: needs.requests,
        };
        Fleet::start(&plan, workers)
    }

    /// How many workers can hold so many connections.
    fn workers_for(&self, connections: u64) -> Result<usize, Failure> {
        let per_worker = environment::descriptors().saturating_sub(DESCRIPTORS_KEPT).max(1);
        let needed = usize::try_from(connections.div_ceil(per_worker).max(1)).unwrap_or(usize::MAX);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.workers.unwrap_or_else(|| needed.max(cores / 2).max(1));
        if workers < needed {
            return Err(Failure::Usage(format!(
                "{connections} connections need --workers {needed} where a process may hold {} descriptors (`ulimit -n`)",
                environment::descriptors()
            )));
        }
        if workers > WORKERS_MAX {
            return Err(Failure::Usage(format!("{workers} workers are more than {WORKERS_MAX}: raise `ulimit -n`")));
        }
        Ok(workers)
    }

    /// Opens `count` connections of the group, numbered from `first`, `per_second` or as fast as they are answered, and
    /// waits for them. Fails only if none came; those that failed are a problem of the report.
    pub(crate) fn connect(
        &self,
        fleet: &mut Fleet,
        wave: &WaveOfConnections,
        report: &mut Report,
    ) -> Result<Totals, Failure> {
        let server = self.server()?;
        let memory_before = server.and_then(Watched::memory);
        let begin_ns = now_ns();
        let before = fleet.totals();
        let bar = Bar::new(wave.label, wave.count, Counts::Joins, &before);
        begin_wave(fleet, wave, self.in_flight)?;
        let ramp = if wave.per_second > 0.0 { wave.count as f64 / wave.per_second } else { wave.count as f64 / 500.0 };
        let bound = Duration::from_secs_f64(self.connect_timeout_seconds + ramp + 5.0);
        let mut silence = JoinSilence::new(Duration::from_secs_f64(self.connect_timeout_seconds + 2.0));
        let done = |totals: &Totals| {
            let (now, then) = (&totals.counters, &before.counters);
            silence.watch(totals, then);
            now.joined + now.failed >= then.joined + then.failed + wave.count
        };
        let waited = fleet.wait(bound, &bar, done)?;
        let totals = fleet.totals();
        report.reasons.clone_from(&totals.counters.reasons);
        let joined = totals.counters.joined - before.counters.joined;
        if wave.group == Group::Crowd {
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
        if joined == 0 && !matches!(cut::reason(), Some(Cut::Interrupted(_) | Cut::Generator(_))) {
            let earlier = |reason: &String| before.counters.reasons.get(reason).copied().unwrap_or(0);
            let why = totals.counters.reasons.iter().max_by_key(|(reason, count)| **count - earlier(reason));
            let why = why.map_or("no answer", |(reason, _)| reason);
            return Err(Failure::Run(format!("not one connection was subscribed: {why}")));
        }
        Ok(totals)
    }
}

/// Connections to open at one time.
pub(crate) struct WaveOfConnections {
    pub(crate) label: &'static str,
    pub(crate) group: Group,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// 0 means as fast as they are answered.
    pub(crate) per_second: f64,
}

/// Orders the workers to open connections, each its share, without waiting.
pub(crate) fn begin_wave(fleet: &mut Fleet, wave: &WaveOfConnections, in_flight: u64) -> Result<(), Failure> {
    let workers = fleet.workers() as u64;
    let start_ns = now_ns() + 10 * MILLISECOND_NS;
    fleet.order_all(|index| {
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

/// Publishing by the clock, for all publishers.
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

    /// Events of all publishers together; 0 for a closed loop, of which nobody knows it.
    pub(crate) fn events(self) -> u64 {
        if self.events_per_second <= 0.0 {
            return 0;
        }
        self.ticks() * u64::from(self.messages_per_tick) * u64::from(self.publishers)
    }

    /// Orders the workers to publish: publisher `p` is played by worker `p mod workers`. Begins a moment from now.
    pub(crate) fn begin(self, fleet: &mut Fleet) -> Result<u64, Failure> {
        let workers = u32::try_from(fleet.workers()).unwrap_or(1);
        let start_ns = now_ns() + LEAD_NS;
        fleet.order_all(|_| Some(Order::MeasureFrom { at_ns: now_ns() }))?;
        fleet.order_all(|index| {
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
/// For standard streams, epoll, timer, publishers and what the server's library may open.
const DESCRIPTORS_KEPT: u64 = 64;
/// 16 bytes for each.
const WINDOWS_MAX: u64 = 100_000_000;
const WORKERS_MAX: usize = 512;
