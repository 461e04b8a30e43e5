//! `fan-out`: publishers send events over signed HTTP to channels with many subscribers.

use clap::Args;
use serde::Serialize;

use super::floor::{FloorSide, Mode};
use super::round::Audience;
use super::{Common, Needs, Rhythm, WaveOfConnections, channel_names};
use crate::messages::{Counters, Group, Measure};
use crate::outcome::{Failure, Verdict};
use crate::preflight::Proof;
use crate::process::Watched;
use crate::report::Report;
use crate::window::Used;

/// Events published over HTTP, delivered to many subscribers.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct FanOut {
    /// WebSocket connections that subscribe.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    subscribers: u64,
    /// Publishers, each with a keep-alive connection of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    publishers: u32,
    /// Events per second of all publishers together; 0 means a closed loop: as fast as they are answered.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    events_per_second: f64,
    /// Seconds of each round.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration_seconds: f64,
    /// Channel that all subscribe.
    #[arg(long, value_name = "NAME", default_value = "loadgen-fan-out")]
    channel: String,
    /// Channels: subscriber i subscribes number i mod N, events go to each in turn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    channels: usize,
    /// Bytes of each event's data.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    payload_bytes: usize,
    /// Events that are due at the same moment and are sent together, pipelined.
    #[arg(long, value_name = "N", default_value_t = 1)]
    messages_per_tick: u32,
    /// Requests that a publisher may have unanswered.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pipeline: usize,
    /// Events that a closed loop may have on their way to subscribers, so that it saturates the server and does not
    /// drown it; 0 means any number.
    #[arg(long, value_name = "N", default_value_t = 64)]
    events_under_way: u64,
    /// Seconds before the first round that are not counted.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup_seconds: f64,
    /// Rounds; figures are the medians.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// After each round, the same on a bare send loop and on io_uring: the least that this kernel can do.
    #[arg(long)]
    floor: bool,
    /// Core of the floor's sender [default: the server's, if it has one, else 0].
    #[arg(long, value_name = "CORE")]
    floor_core: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl FanOut {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        if self.publishers == 0 || self.messages_per_tick == 0 || self.subscribers == 0 {
            return Err(Failure::Usage(
                "--subscribers, --publishers and --messages-per-tick must be at least 1".into(),
            ));
        }
        let needs = Needs {
            connections: self.subscribers,
            channels: channel_names(&self.channel, self.channels)?,
            publishers: self.publishers,
            pipeline: self.pipeline.max(self.messages_per_tick as usize),
            under_way_max: self.events_under_way,
            payload_bytes: self.payload_bytes.max(crate::stamp::STAMP_BYTES),
            watchers: 0,
            proof: Proof::KeyAndSecret,
        };
        let mut fleet = common.start(&needs, common.target()?)?;
        let wave = WaveOfConnections {
            label: "connect",
            group: Group::Crowd,
            first: 0,
            count: self.subscribers,
            per_second: 0.0,
        };
        common.connect(&mut fleet, &wave, report)?;
        let mut floor = if self.floor { Some(self.start_floor(&needs, server)?) } else { None };
        if self.warmup_seconds > 0.0 {
            let rhythm = Rhythm { seconds: self.warmup_seconds, ..self.rhythm() };
            self.audience().round(&mut fleet, rhythm, "warm up", None)?;
            if let Some(floor) = &mut floor {
                floor.round(rhythm, Mode::Send)?;
                // Where io_uring is not to be had, the rounds say so.
                let _ = floor.round(rhythm, Mode::Uring);
            }
        }
        fleet.times.clear();
        let mut rounds = Rounds::default();
        let begun = fleet.totals().counters;
        let mut last = None;
        for _ in 0..self.rounds.max(1) {
            let used = self.audience().round(&mut fleet, self.rhythm(), "fan-out", server);
            let totals = fleet.totals();
            report.reasons.clone_from(&totals.counters.reasons);
            report.times.merge(&std::mem::take(&mut fleet.times));
            let used = used?;
            rounds.add(&used);
            if let Some(floor) = &mut floor {
                rounds.send_ns.push(floor.round(self.rhythm(), Mode::Send)?.per_delivery_ns());
                rounds.send_p99_ms.extend(floor.take_p99_ms());
                match floor.round(self.rhythm(), Mode::Uring) {
                    Ok(cost) => rounds.uring_ns.push(cost.per_delivery_ns()),
                    Err(error) => report.notes.push(format!("no io_uring floor: {error}")),
                }
                rounds.uring_p99_ms.extend(floor.take_p99_ms());
            }
            let gone = used.after.open[Group::Crowd as usize] == 0;
            last = Some(used);
            if gone {
                report.problem(Verdict::Failed, "the server ended every connection: the run was cut short");
                break;
            }
        }
        let used = last.expect("there is at least one round");
        self.summarize(&begun, &used, &rounds, report);
        Ok(())
    }

    fn rhythm(&self) -> Rhythm {
        Rhythm {
            publishers: self.publishers,
            events_per_second: self.events_per_second,
            messages_per_tick: self.messages_per_tick,
            seconds: self.duration_seconds,
        }
    }

    fn start_floor(&self, needs: &Needs, server: Option<Watched>) -> Result<FloorSide, Failure> {
        let core = self.floor_core.or_else(|| server.and_then(Watched::only_core)).unwrap_or(0);
        let needs = Needs { channels: vec![needs.channels[0].clone()], publishers: 1, proof: Proof::KeyOnly, ..*needs };
        FloorSide::start(&self.common, &needs, core)
    }

    fn audience(&self) -> Audience {
        Audience { subscribers: self.subscribers, channels: self.channels as u64, excluded: 0 }
    }

    /// Says when server and floor did not do the same work: then their ratio says nothing.
    fn compare(&self, used: &Used, rounds: &Rounds, report: &mut Report) {
        let interval_ms = self.rhythm().interval_ns() / 1e6;
        let slowest = rounds.send_p99_ms.iter().copied().fold(0.0, f64::max);
        if interval_ms > 0.0 && slowest > interval_ms {
            let text = format!(
                "the floor's sender fell behind its schedule (p99 {slowest:.1} ms, an event every {interval_ms:.1} ms): \
                 lower --events-per-second or free its core"
            );
            report.problem(Verdict::Invalid, text);
        }
        let joined = median(&rounds.per_read) / f64::from(self.messages_per_tick);
        if joined > JOINED_MAX {
            let text = format!(
                "{joined:.2} times as many events were read at once as were due at once: the server was behind and \
                 joined them, which the floor does not do, so the ratio flatters it"
            );
            report.problem(Verdict::Invalid, text);
        }
        let waited = used.server.map_or(0.0, |cpu| cpu.wait_ns as f64 / used.seconds / 1e9);
        if waited > WAITED_MAX {
            report
                .notes
                .push(format!("the server waited for a core {:.0} % of the time: the machine is busy", waited * 100.0));
        }
    }

    fn summarize(&self, begun: &Counters, used: &Used, rounds: &Rounds, report: &mut Report) {
        let after = &used.after;
        self.audience().report(begun, after, report);
        report.figure("deliveries-per-second", median(&rounds.per_second), "/s");
        used.report_server(report, "delivery-last-round", after.delivered - used.before.delivered);
        spread(report, "server-cpu-per-delivery", &rounds.server_ns, "ns");
        spread(report, "floor-send-cpu-per-delivery", &rounds.send_ns, "ns");
        spread(report, "floor-uring-cpu-per-delivery", &rounds.uring_ns, "ns");
        spread(report, "server-to-floor-send-ratio", &ratios(&rounds.server_ns, &rounds.send_ns), "");
        spread(report, "server-to-floor-uring-ratio", &ratios(&rounds.server_ns, &rounds.uring_ns), "");
        spread(report, "floor-send-p99", &rounds.send_p99_ms, "ms");
        spread(report, "floor-uring-p99", &rounds.uring_p99_ms, "ms");
        report.figure("deliveries-per-read", median(&rounds.per_read), "");
        if self.floor {
            self.compare(used, rounds, report);
        }
        if self.events_per_second <= 0.0 {
            report.notes.push("closed loop: latencies leave out the time that events waited to be sent".into());
        }
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Delivery, report);
        report.times = times;
    }
}

/// What each round measured.
#[derive(Default)]
struct Rounds {
    per_second: Vec<f64>,
    per_read: Vec<f64>,
    server_ns: Vec<f64>,
    send_ns: Vec<f64>,
    uring_ns: Vec<f64>,
    send_p99_ms: Vec<f64>,
    uring_p99_ms: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, used: &Used) {
        let delivered = (used.after.delivered - used.before.delivered) as f64;
        self.per_second.push(delivered / used.seconds);
        self.per_read.push(delivered / (used.after.reads - used.before.reads).max(1) as f64);
        if let Some(server) = used.server.filter(|_| delivered > 0.0) {
            self.server_ns.push(server.total_ns as f64 / delivered);
        }
    }
}

fn ratios(above: &[f64], below: &[f64]) -> Vec<f64> {
    above.iter().zip(below).map(|(above, below)| above / below).collect()
}

/// The middle of several values.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The median, and with several rounds the least and the most.
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

/// Events read at once, as a multiple of those that were due at once, above which server and floor are not alike.
const JOINED_MAX: f64 = 1.05;
/// Share of time that a server waits for a core, above which a reader should know.
const WAITED_MAX: f64 = 0.05;
