//! `fan-out`: publishers send events over signed HTTP to channels with many subscribers.

use clap::Args;
use serde::Serialize;

use super::floor::{FloorSide, Mode};
use super::load::Load;
use super::rounds::{Rounds, median};
use super::{Common, Needs, Rhythm, find_rate};
use crate::abort;
use crate::coordinator::Coordinator;
use crate::coordinator::preflight::Proof;
use crate::coordinator::window::Used;
use crate::messages::{Counters, Measure};
use crate::outcome::{Failure, Verdict};
use crate::process::Watched;
use crate::report::Report;
use crate::wire::transport::Transport;

/// Events published over HTTP, delivered to many subscribers.
#[derive(Args, Clone, Debug, Serialize)]
#[command(
    after_help = EXAMPLES,
    mut_arg("subscribers", |arg| arg.required(false).default_value("1000")),
    mut_arg("publishers", |arg| arg.required(false).default_value("1")),
    mut_arg("channel", |arg| arg.required(false).default_value("loadgen-fan-out")),
)]
pub(crate) struct FanOut {
    #[command(flatten)]
    #[serde(flatten)]
    load: Load,
    /// Events that are due at the same moment and are sent together, pipelined.
    #[arg(long, value_name = "N", default_value_t = 1)]
    messages_per_tick: u32,
    /// Maximum number of requests in flight per publisher.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pipeline: usize,
    /// Maximum number of events in flight to subscribers in a closed loop, which saturates the server without filling its
    /// queues; 0 means no limit.
    #[arg(long, value_name = "N", default_value_t = 64)]
    events_under_way: u64,
    /// Seconds of warm-up before the first round, not measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup_seconds: f64,
    /// How subscribers read: WebSockets, server-sent events, long polling; of several, each is used by an equal part.
    #[arg(long, value_name = "TRANSPORTS", value_delimiter = ',', default_value = "ws")]
    transport: Vec<Transport>,
    /// Number of rounds; figures are medians.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// After each round, repeat it with a bare send loop and with io_uring, to compare the server with the minimum cost on
    /// this kernel.
    #[arg(long)]
    floor: bool,
    /// Core of the floor's sender [default: the server's core if it is bound to one, else 0].
    #[arg(long, value_name = "CORE")]
    floor_core: Option<usize>,
    /// First search for the highest rate that the server sustains, starting at --events-per-second; rounds use a share of it.
    #[arg(long)]
    find_rate: bool,
    /// The share of the highest rate at which rounds run.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, requires = "find_rate")]
    rate_share: f64,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl FanOut {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        self.validate()?;
        let needs = Needs {
            pipeline: self.pipeline.max(self.messages_per_tick as usize),
            events_in_flight_max: self.events_under_way,
            transports: self.transport.clone(),
            ..self.load.needs()?
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        common.connect(&mut coordinator, &self.load.wave(), report)?;
        let mut floor = if self.floor { Some(self.start_floor(&needs, server)?) } else { None };
        self.warm_up(&mut coordinator, floor.as_mut())?;
        let mut rhythm = self.rhythm();
        if self.find_rate {
            let found = find_rate::search(&mut coordinator, self.load.audience(0), rhythm, report)?;
            rhythm.events_per_second = found.map_or(rhythm.events_per_second, |rate| rate * self.rate_share);
            report.figure("events-per-second", rhythm.events_per_second, "/s");
        }
        coordinator.times.clear();
        let begun = coordinator.totals().counters;
        let mut rounds = Rounds::default();
        let mut last = None;
        let mut result = Ok(());
        for _ in 0..self.rounds.max(1) {
            last = Some(self.round(rhythm, &mut coordinator, server, &mut rounds, report)?);
            result = floor.as_mut().map_or(Ok(()), |floor| floor_rounds(rhythm, floor, &mut rounds, report));
            if result.is_err() || abort::reason().is_some() {
                break;
            }
        }
        let used = last.expect("there is at least one round");
        self.summarize(rhythm, &begun, &used, &rounds, report);
        result
    }

    fn validate(&self) -> Result<(), Failure> {
        let load = &self.load;
        if load.publishers == 0 || self.messages_per_tick == 0 || load.subscribers == 0 {
            let text = "--subscribers, --publishers and --messages-per-tick must be at least 1";
            return Err(Failure::Usage(text.into()));
        }
        if self.find_rate && (load.events_per_second < 1.0 || !(0.0..=1.0).contains(&self.rate_share)) {
            let text = "--find-rate needs --events-per-second of at least 1 and --rate-share between 0 and 1";
            return Err(Failure::Usage(text.into()));
        }
        if self.transport.iter().any(|transport| *transport != Transport::Ws) {
            if self.floor {
                return Err(Failure::Usage("--floor sends frames of WebSockets: leave out --transport".into()));
            }
            if load.channels.channel.starts_with("presence-") {
                return Err(Failure::Usage("--transport: presence channels are read with WebSockets only".into()));
            }
        }
        Ok(())
    }

    fn rhythm(&self) -> Rhythm {
        Rhythm {
            publishers: self.load.publishers,
            events_per_second: self.load.events_per_second,
            messages_per_tick: self.messages_per_tick,
            seconds: self.load.duration_seconds,
        }
    }

    fn start_floor(&self, needs: &Needs, server: Option<Watched>) -> Result<FloorSide, Failure> {
        let core = self.floor_core.or_else(|| server.and_then(Watched::only_core)).unwrap_or(0);
        let needs = Needs {
            channels: vec![needs.channels[0].clone()],
            publishers: 1,
            proof: Proof::KeyOnly,
            transports: vec![Transport::Ws],
            ..*needs
        };
        FloorSide::start(&self.common, &needs, core)
    }

    fn warm_up(&self, coordinator: &mut Coordinator, floor: Option<&mut FloorSide>) -> Result<(), Failure> {
        if self.warmup_seconds <= 0.0 {
            return Ok(());
        }
        let rhythm = Rhythm { seconds: self.warmup_seconds, ..self.rhythm() };
        self.load.audience(0).round(coordinator, rhythm, "warm up", None)?;
        if let Some(floor) = floor {
            floor.round(rhythm, Mode::Send)?;
            // If io_uring is not available, the rounds report it.
            let _ = floor.round(rhythm, Mode::Uring);
            floor.coordinator.times.clear();
        }
        Ok(())
    }

    /// One round of the server.
    fn round(
        &self,
        rhythm: Rhythm,
        coordinator: &mut Coordinator,
        server: Option<Watched>,
        rounds: &mut Rounds,
        report: &mut Report,
    ) -> Result<Used, Failure> {
        let used = self.load.audience(0).round(coordinator, rhythm, "fan-out", server)?;
        report.reasons.clone_from(&used.after.reasons);
        rounds.add(&used, coordinator);
        report.times.merge(&std::mem::take(&mut coordinator.times));
        Ok(used)
    }

    /// Reports if server and floor did not do the same work, which makes their ratio meaningless.
    fn compare(&self, rhythm: Rhythm, used: &Used, rounds: &Rounds, report: &mut Report) {
        let interval_ms = Rhythm { publishers: 1, ..rhythm }.interval_ns() / 1e6;
        let slowest = rounds.send.p99_ms.iter().copied().fold(0.0, f64::max);
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
                "reads returned {joined:.2} times as many events as were due at once: the server was behind and joined \
                 events, which the floor does not do, so the ratio is too favourable"
            );
            report.problem(Verdict::Invalid, text);
        }
        let waited = used.server.map_or(0.0, |cpu| cpu.wait_ns as f64 / used.seconds / 1e9);
        if waited > WAITED_MAX {
            report
                .notes
                .push(format!("the server waited {:.0} % of the time for a core: the machine is busy", waited * 100.0));
        }
    }

    fn summarize(&self, rhythm: Rhythm, begun: &Counters, used: &Used, rounds: &Rounds, report: &mut Report) {
        let after = &used.after;
        self.load.audience(0).report(begun, after, report);
        used.report_server(report, "delivery-last-round", after.delivered - used.before.delivered);
        rounds.report(report);
        if self.floor {
            self.compare(rhythm, used, rounds, report);
        }
        if rhythm.events_per_second <= 0.0 {
            report.notes.push("closed loop: latencies do not include the time that events waited to be sent".into());
        }
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Delivery, report);
        report.times = times;
    }
}

/// The same round without a server, with each way of sending.
fn floor_rounds(
    rhythm: Rhythm,
    floor: &mut FloorSide,
    rounds: &mut Rounds,
    report: &mut Report,
) -> Result<(), Failure> {
    if let Some(cost) = floor.round(rhythm, Mode::Send)? {
        rounds.send.add(cost.per_delivery_ns(), &mut floor.coordinator);
    }
    match floor.round(rhythm, Mode::Uring) {
        Ok(Some(cost)) => rounds.uring.add(cost.per_delivery_ns(), &mut floor.coordinator),
        Ok(None) => {}
        Err(error) => report.notes.push(format!("no floor with io_uring: {error}")),
    }
    Ok(())
}

/// Events per read as a multiple of events due at once, above which server and floor are not comparable.
const JOINED_MAX: f64 = 1.05;
/// Share of time that the server waits for a core, above which the report has a note.
const WAITED_MAX: f64 = 0.05;
const EXAMPLES: &str = "\
Examples:
  relay-loadgen fan-out --subscribers 1000 --events-per-second 200 --duration-seconds 30
  relay-loadgen fan-out --url ws://10.0.0.5:6001 --app-id 1 --key app-key --secret app-secret
  relay-loadgen fan-out --events-per-second 400 --messages-per-tick 8       # eight events are due at once
  relay-loadgen fan-out --events-per-second 0                               # closed loop: saturate it
  relay-loadgen fan-out --transport sse --server-pid $(pidof relay)         # CPU per delivery of server-sent events
  relay-loadgen fan-out --find-rate --floor --rounds 5 --server-pid $(pidof relay)
  relay-loadgen fan-out --html report.html --fail-if 'p99<50ms,loss=0'";
