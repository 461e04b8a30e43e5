//! `many-to-many`: connected clients send client events on a private channel that all subscribe.

use clap::Args;
use serde::Serialize;

use super::round::Audience;
use super::{Common, LEAD_NS, Needs, WaveOfConnections, channel_names};
use crate::clock::{SECOND_NS, now_ns};
use crate::messages::{Group, Measure, Order, SayOrder};
use crate::outcome::Failure;
use crate::preflight::Proof;
use crate::progress::{Bar, Counts};
use crate::report::Report;
use crate::window::Window;

/// Client events among many clients.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct ManyToMany {
    /// Clients that subscribe.
    #[arg(long, value_name = "N", default_value_t = 100)]
    subscribers: u64,
    /// How many of them also send, in turn. Servers allow each some 10 events a second.
    #[arg(long, value_name = "N", default_value_t = 50)]
    publishers: u32,
    /// Client events per second of all together.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    events_per_second: f64,
    /// Seconds to send.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration_seconds: f64,
    /// Channel that all subscribe: private, or no client event passes.
    #[arg(long, value_name = "NAME", default_value = "private-loadgen")]
    channel: String,
    /// Channels: client i subscribes number i mod N and sends there.
    #[arg(long, value_name = "N", default_value_t = 1)]
    channels: usize,
    /// Bytes of each event's data.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    payload_bytes: usize,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl ManyToMany {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        self.validate()?;
        let needs = Needs {
            connections: self.subscribers,
            channels: channel_names(&self.channel, self.channels)?,
            publishers: self.publishers,
            pipeline: 1,
            under_way_max: 0,
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
        fleet.times.clear();
        let audience = Audience { subscribers: self.subscribers, channels: self.channels as u64, excluded: 1 };
        let window = Window::open(&fleet, server);
        let events = (self.events_per_second * self.duration_seconds) as u64;
        let length = events * self.subscribers / self.channels as u64;
        let bar = Bar::new("many-to-many", length, Counts::Deliveries, window.before());
        // Speakers are spread over the workers as their numbers are.
        let workers = (fleet.workers() as u64).min(u64::from(self.publishers));
        let start_ns = now_ns() + LEAD_NS;
        let interval_ns = SECOND_NS as f64 * workers as f64 / self.events_per_second;
        fleet.order_all(|index| {
            let index = index as u64;
            (index < workers).then(|| {
                Order::Say(SayOrder {
                    speakers: self.publishers,
                    start_ns: start_ns + (interval_ns * index as f64 / workers as f64) as u64,
                    interval_ns,
                    count: events / workers + u64::from(index < events % workers),
                })
            })
        })?;
        let before = window.before().counters.clone();
        audience.wait(&mut fleet, &before, self.duration_seconds, &bar)?;
        let used = window.close(&fleet);
        report.reasons.clone_from(&used.after.reasons);
        report.times = std::mem::take(&mut fleet.times);
        audience.report(&used.before, &used.after, report);
        let delivered = used.after.delivered - used.before.delivered;
        report.figure("deliveries-per-second", delivered as f64 / used.seconds, "/s");
        used.report_server(report, "delivery", delivered);
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Delivery, report);
        report.times = times;
        Ok(())
    }

    fn validate(&self) -> Result<(), Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        if self.publishers == 0 || u64::from(self.publishers) > self.subscribers {
            return usage("--publishers must be from 1 to --subscribers: those who send also subscribe");
        }
        if self.events_per_second <= 0.0 {
            return usage("--events-per-second must be above 0: client events have no answer that could set the pace");
        }
        if !self.channel.starts_with("private-") && !self.channel.starts_with("presence-") {
            return usage("--channel must begin with private- (or presence-): no other takes client events");
        }
        Ok(())
    }
}
