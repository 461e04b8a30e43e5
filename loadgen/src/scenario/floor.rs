//! `floor`: the minimum cost on this kernel. Sends the same bytes to each of N connected sockets with a bare send(2) loop
//! and with batched io_uring, without a server. The clients that receive and check are those that measure a server. The
//! sender is a separate process on one core, whose CPU time is measured.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Common, Needs, Rhythm, WaveOfConnections};
use crate::abort;
use crate::clock::{MILLISECOND_NS, SECOND_NS, now_ns};
use crate::coordinator::preflight::Proof;
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::{Coordinator, Waited, ended, own_command};
use crate::environment;
use crate::messages::{Group, Measure, Requests};
use crate::outcome::{Failure, Verdict};
use crate::report::Report;
use crate::report::histogram::milliseconds;
use crate::scenario::floor_sender::{Cost, Go, SenderReport, Setup};
use crate::wire::target::Target;
use crate::wire::transport::Transport;

pub(crate) use crate::scenario::floor_sender::Mode;

/// The kernel's cost of the same deliveries, without a server.
#[derive(Args, Clone, Debug, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Floor {
    /// Sockets that receive.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    subscribers: u64,
    /// Events per second; 0 means without a pause.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    events_per_second: f64,
    /// Seconds with each way of sending.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    duration_seconds: f64,
    /// Bytes of each event's data, as in fan-out.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    payload_bytes: usize,
    /// Events that are sent together.
    #[arg(long, value_name = "N", default_value_t = 1)]
    messages_per_tick: u32,
    /// Core of the sender.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    floor_core: usize,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl Floor {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        if self.subscribers == 0 || self.messages_per_tick == 0 {
            return Err(Failure::Usage("--subscribers and --messages-per-tick must be at least 1".into()));
        }
        let needs = Needs {
            connections: self.subscribers,
            channels: vec!["loadgen-fan-out".into()],
            publishers: 1,
            pipeline: 1,
            events_in_flight_max: 0,
            payload_bytes: self.payload_bytes.max(crate::wire::stamp::STAMP_BYTES),
            watchers: 0,
            proof: Proof::KeyOnly,
            requests: Requests::Events,
            transports: vec![Transport::Ws],
            resume: None,
        };
        let mut side = FloorSide::start(&self.common, &needs, self.floor_core)?;
        let rhythm = Rhythm {
            publishers: 1,
            events_per_second: self.events_per_second,
            messages_per_tick: self.messages_per_tick,
            seconds: self.duration_seconds,
        };
        side.round(Rhythm { seconds: self.duration_seconds.min(1.0), ..rhythm }, Mode::Send)?;
        side.coordinator.times.clear();
        let before = side.coordinator.totals().counters;
        let mut deliveries = 0;
        for (name, mode) in [("send", Mode::Send), ("uring", Mode::Uring)] {
            let cost = match side.round(rhythm, mode) {
                Err(error) if mode == Mode::Uring => {
                    report.notes.push(format!("no floor with io_uring: {error}"));
                    continue;
                }
                cost => cost?,
            };
            let Some(cost) = cost else { break };
            deliveries += cost.deliveries;
            report.count(&format!("floor-{name}-sends"), cost.sends);
            report.figure(&format!("floor-{name}-cpu-per-send-ns"), cost.per_send_ns(), "ns");
            report.figure(&format!("floor-{name}-cpu-per-delivery-ns"), cost.per_delivery_ns(), "ns");
            report.figure(&format!("floor-{name}-cpu-user-seconds"), cost.user_ns as f64 / 1e9, "s");
            report.figure(&format!("floor-{name}-cpu-system-seconds"), cost.system_ns as f64 / 1e9, "s");
            if cost.failed > 0 {
                report.problem(Verdict::Failed, format!("{} sends failed", cost.failed));
            }
            report.times.merge(&side.coordinator.times);
            if let Some(p99) = side.take_p99_ms() {
                report.figure(&format!("floor-{name}-p99-ms"), p99, "ms");
            }
        }
        report.deliveries(&before, &side.coordinator.totals().counters, deliveries);
        Ok(())
    }
}

/// The sender and its clients.
pub(crate) struct FloorSide {
    pub(crate) coordinator: Coordinator,
    sender: SenderProcess,
    run: u32,
}

struct SenderProcess {
    child: Child,
    orders: Option<ChildStdin>,
    reports: Receiver<SenderReport>,
}

impl FloorSide {
    /// Starts the sender on its core and connects the clients.
    pub(crate) fn start(common: &Common, needs: &Needs, core: usize) -> Result<Self, Failure> {
        let descriptors = environment::descriptors();
        if needs.connections + 64 > descriptors {
            let text = format!(
                "the floor's sender is one process, which may have only {descriptors} descriptors (`ulimit -n`)"
            );
            return Err(Failure::Usage(text));
        }
        let setup = Setup {
            core: Some(core),
            connections: needs.connections,
            channel: needs.channels[0].clone(),
            payload_bytes: needs.payload_bytes,
        };
        let mut sender = SenderProcess::start()?;
        sender.order(&setup)?;
        let port = match sender.receive(Duration::from_secs(5))? {
            SenderReport::Listening { port } => port,
            SenderReport::Failed { message } => return Err(Failure::Run(format!("the floor's sender: {message}"))),
            SenderReport::Sent(_) => return Err(Failure::Run("the floor's sender sent an unexpected report".into())),
        };
        let target = Target::new(&format!("ws://127.0.0.1:{port}"), "1", "floor", "floor")?;
        let mut coordinator = common.start_without_check(needs, target)?;
        let wave = WaveOfConnections {
            label: "floor",
            group: Group::Subscribers,
            first: 0,
            count: needs.connections,
            per_second: 0.0,
        };
        let mut report = Report::default();
        common.connect(&mut coordinator, &wave, &mut report)?;
        if report.verdict() != Verdict::Passed && abort::reason().is_none() {
            return Err(Failure::Run("not all clients of the floor could connect".into()));
        }
        let run = coordinator.run;
        Ok(Self { coordinator, sender, run })
    }

    /// Sends for a while and waits until everything has arrived; `None` if the run is cut short meanwhile.
    pub(crate) fn round(&mut self, rhythm: Rhythm, mode: Mode) -> Result<Option<Cost>, Failure> {
        let start_ns = now_ns() + 50 * MILLISECOND_NS;
        let before = self.coordinator.totals();
        let whole = Rhythm { publishers: 1, ..rhythm };
        self.sender.order(&Go {
            mode,
            run: self.run,
            start_ns,
            interval_ns: whole.interval_ns(),
            end_ns: start_ns + (rhythm.seconds * SECOND_NS as f64) as u64,
            ticks: whole.ticks(),
            messages_per_tick: rhythm.messages_per_tick,
        })?;
        // Waiting on the coordinator also takes the clients' reports.
        let length = whole.events() * self.coordinator.totals().counters.subscribed[Group::Subscribers as usize];
        let bar = Bar::new("floor", length, Counts::Deliveries, &before);
        let mut report = None;
        let sender = &mut self.sender;
        let waited = self.coordinator.wait(Duration::from_secs_f64(rhythm.seconds + 10.0), &bar, |_| {
            report = report.take().or_else(|| sender.try_receive());
            report.is_some()
        })?;
        let cost = match (report, waited) {
            (Some(report), _) => cost(report?)?,
            (None, Waited::Aborted) => return Ok(None),
            (None, Waited::Reached | Waited::TimedOut) => {
                return Err(Failure::Run("the floor's sender is 10 s late".into()));
            }
        };
        let wanted = before.counters.delivered + cost.deliveries;
        match self.coordinator.wait(Duration::from_secs(5), &bar, |totals| totals.counters.delivered >= wanted)? {
            Waited::Reached | Waited::TimedOut => Ok(Some(cost)),
            Waited::Aborted => Ok(None),
        }
    }

    /// Returns the p99 of the latest round and clears its times.
    pub(crate) fn take_p99_ms(&mut self) -> Option<f64> {
        let p99 = self.coordinator.times.total(Measure::Delivery).map(|total| milliseconds(total, 99.0));
        self.coordinator.times.clear();
        p99
    }
}

impl SenderProcess {
    fn start() -> Result<Self, Failure> {
        let mut child = own_command("floor-sender")?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::Run(format!("cannot start the floor's sender: {error}")))?;
        let output = child.stdout.take().expect("it is piped");
        let orders = child.stdin.take();
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Some(report) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, orders, reports })
    }

    fn order(&mut self, order: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(order).map_err(|error| Failure::Run(error.to_string()))?;
        line.push(b'\n');
        let written = self.orders.as_mut().map(|pipe| pipe.write_all(&line));
        match written {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(self.gone()),
        }
    }

    fn receive(&mut self, bound: Duration) -> Result<SenderReport, Failure> {
        match self.reports.recv_timeout(bound) {
            Ok(report) => Ok(report),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Run("the floor's sender does not answer".into())),
            Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
        }
    }

    /// The next report, if there is one.
    fn try_receive(&mut self) -> Option<Result<SenderReport, Failure>> {
        match self.reports.try_recv() {
            Ok(report) => Some(Ok(report)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(self.gone())),
        }
    }

    fn gone(&mut self) -> Failure {
        Failure::Run(format!("the floor's sender ended unexpectedly{}", ended(&mut self.child)))
    }
}

fn cost(report: SenderReport) -> Result<Cost, Failure> {
    match report {
        SenderReport::Sent(cost) => Ok(cost),
        SenderReport::Failed { message } => Err(Failure::Run(format!("the floor's sender: {message}"))),
        SenderReport::Listening { .. } => Err(Failure::Run("the floor's sender sent an unexpected report".into())),
    }
}

impl Drop for SenderProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const EXAMPLES: &str = "\
Examples:
  relay-loadgen floor --subscribers 10000 --events-per-second 5
  relay-loadgen floor --events-per-second 400 --messages-per-tick 8 --floor-core 1";
