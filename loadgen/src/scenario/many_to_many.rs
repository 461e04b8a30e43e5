//! `many-to-many`: connected clients send client events on a private channel that all subscribe to.

use clap::Args;
use serde::Serialize;

use super::load::Load;
use super::{Common, LEAD_NS};
use crate::clock::{SECOND_NS, now_ns};
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::window::Window;
use crate::messages::{ClientEventOrder, Measure, Order};
use crate::outcome::Failure;
use crate::report::Report;

/// Client events among many clients.
#[derive(Args, Clone, Debug, Serialize)]
#[command(
    after_help = EXAMPLES,
    mut_arg("subscribers", |arg| arg.required(false).default_value("100").help("Clients that subscribe")),
    mut_arg("publishers", |arg| {
        arg.required(false).default_value("50").help("How many of them also send, in turn; servers allow each about 10 events per second")
    }),
    mut_arg("events_per_second", |arg| arg.help("Client events per second of all clients together")),
    mut_arg("duration_seconds", |arg| arg.help("Seconds to send client events")),
    mut_arg("channel", |arg| {
        arg.required(false).default_value("private-loadgen").help("Channel that all subscribe to: a private or presence one, which client events require")
    }),
    mut_arg("channels", |arg| arg.help("Number of channels: client i subscribes to number i mod N and sends there")),
)]
pub(crate) struct ManyToMany {
    #[command(flatten)]
    #[serde(flatten)]
    load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl ManyToMany {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let (common, load) = (&self.common, &self.load);
        let server = common.server()?;
        self.validate()?;
        let mut coordinator = common.start(&load.needs()?, common.target()?)?;
        common.connect(&mut coordinator, &load.wave(), report)?;
        coordinator.times.clear();
        let audience = load.audience(1);
        let window = Window::open(&coordinator, server);
        let events = (load.events_per_second * load.duration_seconds) as u64;
        let length = events * load.subscribers / load.channels.count();
        let bar = Bar::new("many-to-many", length, Counts::Deliveries, window.before());
        // Senders are spread over the workers by their numbers.
        let workers = (coordinator.workers() as u64).min(u64::from(load.publishers));
        let start_ns = now_ns() + LEAD_NS;
        let interval_ns = SECOND_NS as f64 * workers as f64 / load.events_per_second;
        coordinator.order_all(|index| {
            let index = index as u64;
            (index < workers).then(|| {
                Order::ClientEvents(ClientEventOrder {
                    senders: load.publishers,
                    start_ns: start_ns + (interval_ns * index as f64 / workers as f64) as u64,
                    interval_ns,
                    count: events / workers + u64::from(index < events % workers),
                })
            })
        })?;
        let before = window.before().counters.clone();
        audience.wait(&mut coordinator, &before, load.duration_seconds, &bar)?;
        let used = window.close(&coordinator);
        report.reasons.clone_from(&used.after.reasons);
        report.times = std::mem::take(&mut coordinator.times);
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
        if self.load.publishers == 0 || u64::from(self.load.publishers) > self.load.subscribers {
            return usage("--publishers must be between 1 and --subscribers, because clients that send also subscribe");
        }
        if self.load.events_per_second <= 0.0 {
            return usage(
                "--events-per-second must be above 0: client events have no answer, so there is no closed loop",
            );
        }
        if !self.load.channels.is_signed() {
            return usage(
                "--channel must begin with private- or presence-: other channels do not accept client events",
            );
        }
        Ok(())
    }
}

const EXAMPLES: &str = "\
Examples:
  relay-loadgen many-to-many --subscribers 500 --publishers 100 --events-per-second 500
  relay-loadgen many-to-many --channels 20 --channel private-room --json";
