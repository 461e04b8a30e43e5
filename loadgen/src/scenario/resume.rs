//! `resume`: subscribers of several channels are reset at random and continue after their last event, while events are
//! published. Every subscriber checks the chain of each of its channels.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::load::Load;
use super::{Common, LEAD_NS, Needs, Rhythm};
use crate::abort;
use crate::clock::{SECOND_NS, now_ns};
use crate::coordinator::Coordinator;
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::totals::Totals;
use crate::coordinator::watchdog::{OnTime, SERVER_SILENCE_MAX, Watchdog};
use crate::coordinator::window::{Used, Window};
use crate::messages::{Counters, Group, Measure, Order, ResetOrder, ResumePlan};
use crate::outcome::{Failure, Verdict};
use crate::report::Report;
use crate::wire::link::LINK_BYTES;
use crate::wire::transport::Transport;

/// Connections that are reset at random and continue after their last event, without a loss.
#[derive(Args, Clone, Debug, Serialize)]
#[command(
    after_help = EXAMPLES,
    mut_arg("subscribers", |arg| arg.required(false).default_value("1000")),
    mut_arg("publishers", |arg| {
        arg.required(false).default_value("1").help("Publishers, each with its own keep-alive connection and channels")
    }),
    mut_arg("events_per_second", |arg| arg.default_value("200").help("Events per second of all publishers together")),
    mut_arg("duration_seconds", |arg| arg.default_value("60").help("Seconds of publishing and resets")),
    mut_arg("channel", |arg| arg.required(false).default_value("loadgen-resume").help(
            "Name of the channels, each followed by a number; subscriptions to `private-` names are signed",
        )),
    mut_arg("channels", |arg| arg.default_value("50").help("Number of channels")),
)]
pub(crate) struct Resume {
    #[command(flatten)]
    #[serde(flatten)]
    load: Load,
    /// Channels of each subscriber.
    #[arg(long, value_name = "N", default_value_t = 3)]
    channels_per_subscriber: u32,
    /// Connections reset per second, without a Close frame, over all subscribers.
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    resets_per_second: f64,
    /// The longest time for which a reset subscriber stays away; each time is random.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    away_seconds: f64,
    /// How subscribers read: WebSockets, server-sent events, long polling; of several, each is used by an equal part.
    #[arg(long, value_name = "TRANSPORTS", value_delimiter = ',', default_value = "ws")]
    transport: Vec<Transport>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl Resume {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        self.validate()?;
        let needs = Needs {
            pipeline: PIPELINE,
            payload_bytes: self.load.payload_bytes.max(LINK_BYTES),
            transports: self.transport.clone(),
            resume: Some(self.plan()),
            ..self.load.needs()?
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        common.connect(&mut coordinator, &self.load.wave(), report)?;
        let window = Window::open(&coordinator, server);
        let before = window.before().counters.clone();
        let deliveries = self.rhythm().events() * self.load.subscribers * u64::from(self.channels_each());
        let bar = Bar::new("resume", deliveries / self.load.channels.count(), Counts::Deliveries, window.before());
        self.begin_resets(&mut coordinator)?;
        self.rhythm().begin(&mut coordinator)?;
        self.wait(&mut coordinator, &before, &bar)?;
        if abort::reason().is_none() {
            let events = coordinator.totals().counters.published_by_channel;
            coordinator.order_all(|_| Some(Order::Conclude { events: events.clone() }))?;
            coordinator.wait(Duration::from_secs(10), &bar, |_| true)?;
        }
        let used = window.close(&coordinator);
        report.times = std::mem::take(&mut coordinator.times);
        report.reasons.clone_from(&used.after.reasons);
        self.summarize(&before, &used, report);
        Ok(())
    }

    fn validate(&self) -> Result<(), Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.into()));
        let load = &self.load;
        let (channels, each) = (load.channels.count(), u64::from(self.channels_per_subscriber));
        if load.subscribers == 0 || load.publishers == 0 || load.events_per_second <= 0.0 {
            return usage("--subscribers, --publishers and --events-per-second must be above 0");
        }
        if each == 0 || each > channels.min(CHANNELS_EACH_MAX) || channels > CHANNELS_MAX {
            return Err(Failure::Usage(format!(
                "--channels-per-subscriber must be from 1 to {CHANNELS_EACH_MAX} and at most --channels, and --channels at most \
                 {CHANNELS_MAX}"
            )));
        }
        if u64::from(load.publishers) > channels {
            return usage(
                "--publishers must be at most --channels: each channel has one publisher, which decides its order",
            );
        }
        if load.channels.channel.starts_with("presence-") {
            return usage("--channel: presence channels are not supported");
        }
        if !(0.0..=3_600.0).contains(&self.away_seconds) || !(0.0..=1e6).contains(&self.resets_per_second) {
            return usage("--away-seconds must be from 0 to 3600 and --resets-per-second from 0 to 1000000");
        }
        Ok(())
    }

    fn channels_each(&self) -> u32 {
        self.channels_per_subscriber
    }

    fn plan(&self) -> ResumePlan {
        ResumePlan {
            channels_each: self.channels_each(),
            away_ns_max: (self.away_seconds * SECOND_NS as f64) as u64,
            in_flight_max: self.common.in_flight.max(1),
        }
    }

    fn rhythm(&self) -> Rhythm {
        Rhythm {
            publishers: self.load.publishers,
            events_per_second: self.load.events_per_second,
            messages_per_tick: 1,
            seconds: self.load.duration_seconds,
        }
    }

    /// Orders each worker to reset its share of the connections.
    fn begin_resets(&self, coordinator: &mut Coordinator) -> Result<(), Failure> {
        // Only workers with connections can reset any: connection i belongs to worker i modulo the number of workers.
        let workers = (coordinator.workers() as u64).min(self.load.subscribers);
        let resets = (self.resets_per_second * self.load.duration_seconds) as u64;
        let interval_ns = SECOND_NS as f64 * workers as f64 / self.resets_per_second;
        let start_ns = now_ns() + LEAD_NS;
        coordinator.order_all(|index| {
            let index = index as u64;
            (resets > 0 && index < workers).then(|| {
                Order::Reset(ResetOrder {
                    start_ns: start_ns + (interval_ns * index as f64 / workers as f64) as u64,
                    interval_ns,
                    count: resets / workers + u64::from(index < resets % workers),
                })
            })
        })
    }

    /// Deliveries of all events that were published so far: each event of a channel to each of its subscribers.
    fn published(&self, counters: &Counters, subscribers: &[u64]) -> u64 {
        counters.published_by_channel.iter().zip(subscribers).map(|(events, count)| u64::from(*events) * count).sum()
    }

    /// The number of subscribers of each channel.
    fn subscribers_by_channel(&self) -> Vec<u64> {
        let count = self.load.channels.count();
        let (mut subscribers, plan) = (vec![0; usize::try_from(count).unwrap_or(0)], self.plan());
        for number in 0..u32::try_from(self.load.subscribers).unwrap_or(u32::MAX) {
            for channel in plan.channels_of(number, u32::try_from(count).unwrap_or(u32::MAX)) {
                subscribers[channel as usize] += 1;
            }
        }
        subscribers
    }

    /// Waits until all schedules have ended, all connections are back and everything has arrived, or nothing arrives any more.
    fn wait(&self, coordinator: &mut Coordinator, before: &Counters, bar: &Bar) -> Result<(), Failure> {
        let subscribers = self.subscribers_by_channel();
        let begin = Instant::now();
        let (mut clock, mut progress, mut quiet_ns) = (OnTime::default(), 0, 0);
        let mut watchdog = Watchdog::new(SERVER_SILENCE_MAX);
        let group = Group::Subscribers as usize;
        let is_over = |totals: &Totals| {
            let now = &totals.counters;
            let resume = &now.resume;
            let has_arrived = now.delivered + resume.left_out + resume.uncertain >= self.published(now, &subscribers);
            let is_back = now.subscribed[group] >= before.subscribed[group];
            watchdog.watch(totals, (!has_arrived || now.sent > now.accepted + now.refused).into());
            let passed_ns = clock.pass(totals);
            let counted = now.delivered + now.accepted + now.refused + resume.resumes + resume.resets;
            quiet_ns = if counted == progress { quiet_ns + passed_ns } else { 0 };
            progress = counted;
            if now.schedules_running > 0 {
                return begin.elapsed().as_secs_f64() > self.load.duration_seconds + self.away_seconds
                    && quiet_ns > DRAIN_NS;
            }
            (has_arrived && is_back) || quiet_ns > QUIET_NS
        };
        coordinator.wait(RUN_MAX, bar, is_over)?;
        Ok(())
    }

    fn summarize(&self, before: &Counters, used: &Used, report: &mut Report) {
        let (after, resume, group) = (&used.after, &used.after.resume, Group::Subscribers as usize);
        report.count("subscribers", self.load.subscribers);
        report.count("published", after.accepted);
        report.count("refused", after.refused);
        if after.refused > 0 {
            report.problem(Verdict::Failed, format!("{} events were refused or not answered", after.refused));
        }
        report.count("resets", resume.resets);
        report.count("resumes", resume.resumes);
        report.count("resumes-failed", resume.failed);
        report.count("ended-by-server", after.lost[group] - before.lost[group]);
        let away = before.subscribed[group].saturating_sub(after.subscribed[group]);
        if away > 0 {
            report.shortfall(format!("{away} connections were not subscribed again at the end"));
        }
        let published = self.published(after, &self.subscribers_by_channel());
        report.deliveries(before, after, published.saturating_sub(resume.left_out + resume.uncertain));
        report.count("missed-and-resumed", resume.missed_events);
        report.count("repeated-with-the-same-id", resume.repeated);
        report.count("gaps", resume.gaps.values().sum());
        for (reason, count) in &resume.gaps {
            report.count(&format!("gaps-{reason}"), *count);
        }
        report.count("left-out-by-gaps", resume.left_out);
        if resume.uncertain > 0 {
            let text = format!("{} deliveries of events that were not answered are missing", resume.uncertain);
            report.notes.push(text);
        }
        let delivered = after.delivered - before.delivered;
        report.figure("deliveries-per-second", delivered as f64 / used.seconds, "/s");
        used.report_server(report, "delivery", delivered);
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Delivery, report);
        report.times = times;
    }
}

/// Requests in flight per publisher, of different channels.
const PIPELINE: usize = 64;
/// Channels of one stream or poll.
const CHANNELS_EACH_MAX: u64 = 100;
/// Channel numbers in events have six hexadecimal digits.
const CHANNELS_MAX: u64 = 1 << 24;
/// When nothing has arrived for this long after the last publish and the last return, the rest is lost.
const QUIET_NS: u64 = 3 * SECOND_NS;
/// When nothing has happened for this long after the end of the run, schedules that have not ended are given up.
const DRAIN_NS: u64 = 10 * SECOND_NS;
/// Longest run.
const RUN_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
const EXAMPLES: &str = "\
Examples:
  relay-loadgen resume --duration-seconds 60 --resets-per-second 100
  relay-loadgen resume --transport sse --away-seconds 10 --fail-if 'gaps=0'
  relay-loadgen resume --transport ws,sse,poll --json";
