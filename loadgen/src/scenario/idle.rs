//! `idle`: the memory that open, subscribed and idle connections need on the server. At the end one event is published to
//! all of them, to show that they are alive.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::load::Channels;
use super::{Common, LEAD_NS, Needs, Rhythm, WaveOfConnections};
use crate::abort::{self, Abort};
use crate::clock::{SECOND_NS, now_ns};
use crate::coordinator::Coordinator;
use crate::coordinator::preflight::Proof;
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::watchdog::{Pending, SERVER_SILENCE_MAX, Watchdog};
use crate::coordinator::window::Window;
use crate::messages::{Counters, Group, Measure, Order, PingOrder, Requests};
use crate::outcome::{Failure, Verdict};
use crate::process::{self, Memory};
use crate::report::Report;
use crate::wire::stamp::STAMP_BYTES;
use crate::wire::transport::Transport;

/// Memory of idle subscribed connections.
#[derive(Args, Clone, Debug, Serialize)]
#[command(after_help = EXAMPLES, mut_arg("channel", |arg| arg.required(false).default_value("loadgen-idle")))]
pub(crate) struct Idle {
    /// Connections to hold.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    connections: u64,
    #[command(flatten)]
    #[serde(flatten)]
    channels: Channels,
    /// Connections opened per second; 0 means as fast as the server answers.
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    connections_per_second: f64,
    /// Seconds to hold them before memory is read.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    hold_seconds: f64,
    /// Interval in seconds at which each connection sends a `pusher:ping` meanwhile, spread evenly; 0 means never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    ping_seconds: f64,
    /// Events published to all of them at the end, each verified everywhere.
    #[arg(long, value_name = "N", default_value_t = 1)]
    publish: u32,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl Idle {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        let needs = Needs {
            connections: self.connections,
            channels: self.channels.names()?,
            publishers: 1,
            pipeline: 16,
            events_in_flight_max: 0,
            payload_bytes: STAMP_BYTES,
            watchers: 0,
            proof: if self.publish > 0 { Proof::KeyAndSecret } else { self.channels.proof() },
            requests: Requests::Events,
            transports: vec![Transport::Ws],
            resume: None,
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        let memory_before = server.and_then(process::Watched::memory);
        let slab_before = process::kernel_slab_bytes();
        let window = Window::open(&coordinator, server);
        let wave = WaveOfConnections {
            label: "connect",
            group: Group::Subscribers,
            first: 0,
            count: self.connections,
            per_second: self.connections_per_second,
        };
        let joined = common.connect(&mut coordinator, &wave, report)?.counters.joined;
        let used = window.close(&coordinator);
        report.count("connections", joined);
        used.report_server(report, "join", joined);
        std::mem::swap(&mut report.times, &mut coordinator.times);

        let bar = Bar::new("hold", self.connections, Counts::Joins, &coordinator.totals());
        let hold = Duration::from_secs_f64(self.hold_seconds);
        self.ping(&mut coordinator, joined)?;
        coordinator.wait(hold, &bar, |totals| {
            if totals.counters.open[Group::Subscribers as usize] == 0 {
                abort::set(Abort::Server("the server closed every connection".into()));
            }
            false
        })?;
        if self.ping_seconds > 0.0 {
            let answered = |now: &Counters| now.schedules_running == 0 && now.pongs >= now.accepted;
            coordinator.wait(PONGS_WITHIN, &bar, |totals| answered(&totals.counters))?;
        }
        let held = coordinator.totals().counters;
        let open = held.subscribed[Group::Subscribers as usize];
        report.count("still-subscribed-after-hold", open);
        if open < joined {
            report.problem(Verdict::Failed, format!("the server closed {} idle connections", joined - open));
        }
        if self.ping_seconds > 0.0 {
            report.times.merge(&coordinator.times);
            coordinator.times.clear();
            report_pings(report, &held);
        }
        let memory_after = server.and_then(process::Watched::memory);
        if let Some((before, after)) = memory_before.zip(memory_after) {
            report_memory(report, before, after, joined);
        }
        if let Some((before, after)) = slab_before.zip(process::kernel_slab_bytes()).filter(|_| joined >= SLAB_FROM) {
            let per = (after as f64 - before as f64) / joined.max(1) as f64;
            report.figure("kernel-slab-per-connection-both-ends-bytes", per, "B");
        }
        self.publish_to_all(&mut coordinator, open, report)?;
        report.reasons = coordinator.totals().counters.reasons;
        Ok(())
    }

    /// Orders the pings while the connections are held.
    fn ping(&self, coordinator: &mut Coordinator, connections: u64) -> Result<(), Failure> {
        let workers = coordinator.workers() as u64;
        let start_ns = now_ns() + LEAD_NS;
        coordinator.order_all(|index| {
            let index = index as u64;
            let own = connections / workers + u64::from(index < connections % workers);
            let count = (self.hold_seconds / self.ping_seconds * own as f64) as u64;
            let interval_ns = self.ping_seconds * SECOND_NS as f64 / own.max(1) as f64;
            let start_ns = start_ns + (interval_ns * index as f64 / workers as f64) as u64;
            (self.ping_seconds > 0.0 && count > 0).then_some(Order::Ping(PingOrder { start_ns, interval_ns, count }))
        })
    }

    fn publish_to_all(&self, coordinator: &mut Coordinator, open: u64, report: &mut Report) -> Result<(), Failure> {
        if self.publish == 0 || open == 0 || abort::reason().is_some() {
            return Ok(());
        }
        let before = coordinator.totals().counters;
        // One event for each channel is one event for each connection.
        let events = u64::from(self.publish) * self.channels.count();
        let expected = u64::from(self.publish) * open;
        let rhythm =
            Rhythm { publishers: 1, events_per_second: 10.0, messages_per_tick: 1, seconds: events as f64 / 10.0 };
        let bar = Bar::new("publish", expected, Counts::Deliveries, &coordinator.totals());
        rhythm.begin(coordinator)?;
        let bound = Duration::from_secs_f64(rhythm.seconds + 30.0);
        let mut watchdog = Watchdog::new(SERVER_SILENCE_MAX);
        coordinator.wait(bound, &bar, |totals| {
            watchdog.watch(totals, Pending::Something);
            totals.counters.schedules_running == 0 && totals.counters.delivered - before.delivered >= expected
        })?;
        let after = coordinator.totals().counters;
        report.times.merge(&coordinator.times);
        report.deliveries(&before, &after, expected);
        if let Some(total) = report.times.total(Measure::Delivery) {
            let last = total.max() as f64 / 1e6;
            report.figure("last-delivery-ms", last, "ms");
        }
        if after.refused > before.refused {
            report.problem(Verdict::Failed, format!("{} publishes were refused", after.refused - before.refused));
        }
        Ok(())
    }
}

fn report_pings(report: &mut Report, held: &Counters) {
    report.count("pings", held.accepted);
    report.count("pongs", held.pongs);
    if held.pongs < held.accepted {
        report.shortfall(format!("{} pings were not answered", held.accepted - held.pongs));
    }
}

fn report_memory(report: &mut Report, before: Memory, after: Memory, connections: u64) {
    for (name, before, after) in [
        ("resident", before.resident, after.resident),
        ("anonymous", before.anonymous, after.anonymous),
        ("shared", before.shared, after.shared),
        ("private-dirty", before.private_dirty, after.private_dirty),
    ] {
        report.figure(&format!("server-{name}-before-bytes"), before as f64, "B");
        report.figure(&format!("server-{name}-bytes"), after as f64, "B");
        let per = (after as f64 - before as f64) / connections.max(1) as f64;
        report.figure(&format!("server-{name}-per-connection-bytes"), per, "B");
    }
}

/// Time to wait for the answers to the last pings.
const PONGS_WITHIN: Duration = Duration::from_secs(10);
/// With fewer connections, other processes decide how much the kernel's memory changes.
const SLAB_FROM: u64 = 1_000;
const EXAMPLES: &str = "\
Examples:
  relay-loadgen idle --connections 15000 --server-pid $(pidof relay)
  relay-loadgen idle --connections 1000000 --in-flight 16 --server-pid $(pidof relay)   # starts 51 workers
  relay-loadgen idle --connections 100000 --ping-seconds 30 --hold-seconds 120 --server-pid $(pidof relay)
  relay-loadgen idle --channel private-idle --connections-per-second 500";
