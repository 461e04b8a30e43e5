//! `tenants`: one app floods a server in every way that a tenant can, and another app must not be affected. Each way is a
//! pair of rounds with the same load of the second app: alone, and while the first app floods.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::round::Audience;
use super::rounds::median;
use super::{Common, LEAD_NS, Needs, Rhythm, WaveOfConnections, begin_wave};
use crate::abort;
use crate::clock::{SECOND_NS, now_ns};
use crate::coordinator::Coordinator;
use crate::coordinator::preflight::Proof;
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::window::Used;
use crate::messages::{
    ChurnOrder, Counters, Group, Measure, Order, Replies, Requests, Stay, SubscribeOrder, SubscribePlan,
};
use crate::outcome::{Failure, Verdict};
use crate::recorder::histogram;
use crate::report::Report;
use crate::report::histogram::milliseconds;
use crate::wire::stamp::STAMP_BYTES;
use crate::wire::target::Target;
use crate::wire::transport::Transport;

/// One app that floods the server, and another that must not be affected.
#[derive(Args, Clone, Debug, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tenants {
    /// Id of the flooding app; --app-id, --key and --secret are those of the other app.
    #[arg(long, value_name = "ID", default_value = "2", help_heading = "Target")]
    flood_app_id: String,
    /// Key of the flooding app.
    #[arg(long, value_name = "KEY", default_value = "flood-key", help_heading = "Target")]
    flood_key: String,
    /// Secret of the flooding app.
    #[arg(
        long,
        value_name = "SECRET",
        env = "RELAY_LOADGEN_FLOOD_SECRET",
        default_value = "flood-secret",
        hide_env_values = true,
        help_heading = "Target"
    )]
    #[serde(skip)]
    flood_secret: String,
    /// Kinds of flood, one after the other.
    #[arg(long, value_name = "WAYS", value_delimiter = ',', default_values_t = Way::ALL)]
    flood: Vec<Way>,
    /// Publishes, queries and subscriptions of the flood per second; 0 means as fast as the server answers.
    #[arg(long, value_name = "N", default_value_t = 2_000.0)]
    flood_per_second: f64,
    /// Keep-alive connections that publish or query in the flood.
    #[arg(long, value_name = "N", default_value_t = 4)]
    flood_publishers: u32,
    /// Connections of the flood: stalled readers, members that leave and join, subscribers, occupied channels.
    #[arg(long, value_name = "N", default_value_t = 100)]
    flood_connections: u64,
    /// Bytes of the data of large events.
    #[arg(long, value_name = "BYTES", default_value_t = 10_000)]
    flood_payload_bytes: usize,
    /// Subscribers of the measured app.
    #[arg(long, value_name = "N", default_value_t = 100)]
    subscribers: u64,
    /// Events per second of the measured app.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    events_per_second: f64,
    /// Seconds of each round.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    duration_seconds: f64,
    /// Pairs of rounds for each kind of flood; ratios are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

/// The kinds of flood.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// Subscribers that stop reading while large events are published.
    SlowReaders,
    /// Small events.
    Publish,
    /// Large events.
    BigBodies,
    /// Members of a presence channel leave and join again.
    Presence,
    /// Subscriptions and their ends.
    Subscribe,
    /// Lists of channels over HTTP.
    Queries,
    /// Connections that are opened and reset.
    Connections,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::SlowReaders,
        Self::Publish,
        Self::BigBodies,
        Self::Presence,
        Self::Subscribe,
        Self::Queries,
        Self::Connections,
    ];
}

impl std::fmt::Display for Way {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::SlowReaders => "slow-readers",
            Self::Publish => "publish",
            Self::BigBodies => "big-bodies",
            Self::Presence => "presence",
            Self::Subscribe => "subscribe",
            Self::Queries => "queries",
            Self::Connections => "connections",
        })
    }
}

/// The results of the pairs of rounds of one kind of flood.
#[derive(Default)]
struct Pairs {
    alone_ms: Vec<f64>,
    flooded_ms: Vec<f64>,
    /// Operations of the flood per second, and how many were refused.
    flood_per_second: Vec<f64>,
    flood_refused: u64,
    /// Failures of the measured app during the flood: events refused or lost, subscribers closed.
    errors: u64,
}

impl Tenants {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let flooder = Target::new(&common.url, &self.flood_app_id, &self.flood_key, &self.flood_secret)?;
        self.validate()?;
        let needs = Needs {
            connections: self.subscribers,
            channels: vec!["loadgen-tenants".to_owned()],
            pipeline: 16,
            ..needs(1)
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        common.connect(&mut coordinator, &wave(Group::Subscribers, 0, self.subscribers), report)?;
        let warm_up = Rhythm { seconds: self.duration_seconds.min(1.0), ..self.rhythm() };
        self.audience().round(&mut coordinator, warm_up, "warm up", None)?;
        coordinator.times.clear();
        let (mut worst, mut errors, mut alone) = (0.0_f64, 0, histogram());
        for way in &self.flood {
            let mut pairs = Pairs::default();
            for _ in 0..self.rounds.max(1) {
                self.pair(*way, &flooder, &mut coordinator, &mut pairs, &mut alone, report)?;
                if abort::reason().is_some() {
                    return Ok(());
                }
            }
            worst = worst.max(pairs.report(*way, report));
            errors += pairs.errors;
        }
        report.figure("worst-p99-ratio", worst, "");
        report.count("errors", errors);
        report.beside.push(("alone".to_owned(), alone));
        report.reasons = coordinator.totals().counters.reasons;
        Ok(())
    }

    fn validate(&self) -> Result<(), Failure> {
        if self.subscribers == 0 || self.events_per_second <= 0.0 || self.duration_seconds <= 0.0 {
            let text = "--subscribers, --events-per-second and --duration-seconds must be above 0";
            return Err(Failure::Usage(text.into()));
        }
        if self.flood.is_empty() || self.flood_connections == 0 || self.flood_publishers == 0 {
            return Err(Failure::Usage(
                "--flood needs at least one kind, --flood-connections and --flood-publishers must be at least 1".into(),
            ));
        }
        if self.flood_app_id == self.common.app_id {
            return Err(Failure::Usage("--flood-app-id and --app-id must differ".into()));
        }
        Ok(())
    }

    fn rhythm(&self) -> Rhythm {
        let seconds = self.duration_seconds;
        Rhythm { publishers: 1, events_per_second: self.events_per_second, messages_per_tick: 1, seconds }
    }

    fn audience(&self) -> Audience {
        Audience { subscribers: self.subscribers, channels: 1, excluded: 0 }
    }

    /// One round alone and one during the flood.
    fn pair(
        &self,
        way: Way,
        flooder: &Target,
        coordinator: &mut Coordinator,
        pairs: &mut Pairs,
        alone: &mut hdrhistogram::Histogram<u64>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        self.audience().round(coordinator, self.rhythm(), &format!("{way}: alone"), None)?;
        if let Some(times) = coordinator.times.total(Measure::Delivery) {
            pairs.alone_ms.push(milliseconds(times, 99.0));
            // All histograms have the same bounds.
            let _ = alone.add(times);
        }
        coordinator.times.clear();
        let mut flood = self.connect_flood(way, flooder, report)?;
        let before = flood.totals().counters;
        self.begin_flood(way, &mut flood)?;
        // The flood has begun when the round does.
        let bar = Bar::new("flood", 0, Counts::Answers, &flood.totals());
        flood.wait(FLOOD_LEAD, &bar, |_| false)?;
        drop(bar);
        let begun_ns = now_ns();
        let used =
            self.audience().round(coordinator, self.rhythm(), &format!("{way}: flooded"), self.common.server()?)?;
        flood.wait(Duration::from_millis(300), &Bar::hidden(), |_| true)?;
        let seconds = (now_ns() - begun_ns + FLOOD_LEAD.as_nanos() as u64) as f64 / SECOND_NS as f64;
        let after = flood.totals().counters;
        pairs.flood_per_second.push(done(&before, &after) as f64 / seconds);
        pairs.flood_refused += after.refused - before.refused;
        pairs.errors += self.errors(&used);
        if let Some(times) = coordinator.times.total(Measure::Delivery) {
            pairs.flooded_ms.push(milliseconds(times, 99.0));
        }
        let times = std::mem::take(&mut coordinator.times);
        used.report_generator(&times, Measure::Delivery, report);
        report.times.merge(&times);
        Ok(())
    }

    /// Failures of the measured app in a round.
    fn errors(&self, used: &Used) -> u64 {
        let (before, after) = (&used.before, &used.after);
        let lost = after.lost[Group::Subscribers as usize] - before.lost[Group::Subscribers as usize];
        let missing = self.audience().expected(before, after).saturating_sub(after.delivered - before.delivered);
        let wrong = |counters: &Counters| {
            counters.duplicates + counters.disordered + counters.wrong_channel + counters.damaged + counters.refused
        };
        lost + missing + wrong(after) - wrong(before)
    }

    /// Starts the workers of a flood and opens its connections.
    fn connect_flood(&self, way: Way, flooder: &Target, report: &mut Report) -> Result<Coordinator, Failure> {
        let connections = self.flood_connections;
        let one = |name: &str| vec![name.to_owned()];
        let each = || (0..connections).map(|number| format!("loadgen-flood-{number}")).collect();
        let large = self.flood_payload_bytes.max(STAMP_BYTES);
        let publishers = self.flood_publishers;
        let (needs, group) = match way {
            Way::SlowReaders => {
                let needs = Needs { connections, channels: one("loadgen-flood"), payload_bytes: large, ..needs(1) };
                (needs, Some(Group::Stalled))
            }
            Way::Publish => (Needs { channels: one("loadgen-flood"), ..needs(publishers) }, None),
            Way::BigBodies => {
                (Needs { channels: one("loadgen-flood"), payload_bytes: large, ..needs(publishers) }, None)
            }
            Way::Presence => {
                // A server may allow a hundred members in a channel.
                let channels = (0..connections.div_ceil(50)).map(|number| format!("presence-loadgen-flood-{number}"));
                let members = u32::try_from(connections).unwrap_or(u32::MAX);
                (Needs { connections, channels: channels.collect(), ..needs(members) }, Some(Group::Subscribers))
            }
            Way::Subscribe => {
                (Needs { connections, channels: one("loadgen-flood"), ..needs(0) }, Some(Group::Subscribers))
            }
            Way::Queries => {
                let needs = Needs { connections, channels: each(), requests: Requests::Channels, ..needs(publishers) };
                (needs, Some(Group::Subscribers))
            }
            Way::Connections => (Needs { connections, channels: one("loadgen-flood"), ..needs(0) }, None),
        };
        let mut coordinator = self.common.start(&needs, flooder.clone())?;
        if way == Way::Subscribe {
            coordinator.order_all(|_| Some(Order::PrepareSubscribe(subscriptions())))?;
        }
        if let Some(group) = group {
            // A separate report, because these connections do not belong to the measured app.
            let mut aside = Report::default();
            let totals = self.common.connect(&mut coordinator, &wave(group, 0, connections), &mut aside)?;
            if totals.counters.joined < connections {
                let joined = totals.counters.joined;
                report
                    .notes
                    .push(format!("{way}: only {joined} of {connections} connections of the flood could be opened"));
            }
        }
        Ok(coordinator)
    }

    /// Starts the flood, which lasts longer than a round.
    fn begin_flood(&self, way: Way, coordinator: &mut Coordinator) -> Result<(), Failure> {
        let seconds = self.duration_seconds + FLOOD_LEAD.as_secs_f64() + 2.0;
        let workers = coordinator.workers() as u64;
        let interval_ns = |per_second: f64| {
            if per_second > 0.0 { SECOND_NS as f64 * workers as f64 / per_second } else { 0.0 }
        };
        let start_ns = now_ns() + LEAD_NS;
        let rhythm =
            |publishers, events_per_second| Rhythm { publishers, events_per_second, messages_per_tick: 1, seconds };
        match way {
            Way::SlowReaders => rhythm(1, SLOW_EVENTS_PER_SECOND).begin(coordinator).map(drop),
            Way::Publish | Way::Queries => {
                rhythm(self.flood_publishers, self.flood_per_second).begin(coordinator).map(drop)
            }
            // Fewer events, because each is large.
            Way::BigBodies => rhythm(self.flood_publishers, self.flood_per_second / 4.0).begin(coordinator).map(drop),
            Way::Presence => {
                let per_second = if self.flood_per_second > 0.0 { self.flood_per_second / 10.0 } else { 500.0 };
                let interval_ns = interval_ns(per_second);
                let count = (per_second * seconds / workers as f64) as u64;
                coordinator.order_all(|_| Some(Order::Churn(ChurnOrder { start_ns, interval_ns, count })))
            }
            Way::Subscribe => {
                let interval_ns = interval_ns(self.flood_per_second);
                let ticks = ((self.flood_per_second * seconds) as u64 / workers).max(1);
                let end_ns = start_ns + (seconds * SECOND_NS as f64) as u64;
                coordinator.order_all(|_| {
                    let order = SubscribeOrder { start_ns, interval_ns, ticks, per_tick: 1, end_ns, pipeline: 8 };
                    Some(Order::Subscribe(order))
                })
            }
            Way::Connections => {
                let per_second = if self.flood_per_second > 0.0 { self.flood_per_second / 10.0 } else { 500.0 };
                let count = (per_second * seconds) as u64;
                let wave = WaveOfConnections { label: "flood", group: Group::Arrivals, first: 0, count, per_second };
                begin_wave(coordinator, &wave, self.common.in_flight)
            }
        }
    }
}

impl Pairs {
    /// Adds the figures of a kind of flood and returns its ratio.
    fn report(&self, way: Way, report: &mut Report) -> f64 {
        let ratios: Vec<f64> =
            self.flooded_ms.iter().zip(&self.alone_ms).map(|(flooded, alone)| flooded / alone).collect();
        let ratio = median(&ratios);
        report.figure(&format!("{way}-alone-p99-ms"), median(&self.alone_ms), "ms");
        report.figure(&format!("{way}-p99-ms"), median(&self.flooded_ms), "ms");
        report.figure(&format!("{way}-p99-ratio"), ratio, "");
        report.count(&format!("{way}-errors"), self.errors);
        report.figure(&format!("{way}-flood-per-second"), median(&self.flood_per_second), "/s");
        report.count(&format!("{way}-flood-refused"), self.flood_refused);
        if self.errors > 0 {
            let text = format!(
                "{way}: the other app had {} failures: events refused or lost, or subscribers closed",
                self.errors
            );
            report.problem(Verdict::Failed, text);
        }
        if self.flood_per_second.iter().all(|per_second| *per_second <= 0.0) {
            report.problem(Verdict::Failed, format!("{way}: no operation of the flood was accepted"));
        }
        ratio
    }
}

/// Operations of a flood between two moments, refused or not.
fn done(before: &Counters, after: &Counters) -> u64 {
    let all = |counters: &Counters| {
        counters.accepted.max(counters.changes) + counters.refused + counters.joined + counters.failed
    };
    all(after) - all(before)
}

fn needs(publishers: u32) -> Needs {
    Needs {
        connections: 0,
        channels: Vec::new(),
        publishers,
        pipeline: 64,
        events_in_flight_max: 0,
        payload_bytes: 128,
        watchers: 0,
        proof: Proof::KeyAndSecret,
        requests: Requests::Events,
        transports: vec![Transport::Ws],
        resume: None,
    }
}

fn wave(group: Group, first: u64, count: u64) -> WaveOfConnections {
    WaveOfConnections { label: "connect", group, first, count, per_second: 0.0 }
}

fn subscriptions() -> SubscribePlan {
    let channel = "private-loadgen-flood".to_owned();
    SubscribePlan { channel, channels: 64, replies: Replies::Pusher, stay: Stay::Leaves }
}

/// Time from the start of a flood to the round.
const FLOOD_LEAD: Duration = Duration::from_millis(500);
/// Rate of large events to stalled readers: a hundred of them are a megabyte per reader.
const SLOW_EVENTS_PER_SECOND: f64 = 100.0;

const EXAMPLES: &str = "\
The server needs a second app:
  relay app create --id 2 --key flood-key --secret flood-secret

Examples:
  relay-loadgen tenants --fail-if 'worst-p99-ratio<=1.3,errors=0'
  relay-loadgen tenants --flood publish,queries --flood-per-second 0     # as fast as it is answered
  relay-loadgen tenants --flood slow-readers --flood-connections 2000 --json";
