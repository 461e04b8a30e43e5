//! `presence-churn`: members of presence channels leave and join again as other members, while watchers check the
//! announcements.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::load::Channels;
use super::{Common, LEAD_NS, Needs, WaveOfConnections};
use crate::abort::{self, Abort};
use crate::clock::{SECOND_NS, now_ns};
use crate::coordinator::preflight::Proof;
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::totals::Totals;
use crate::coordinator::watchdog::{SERVER_SILENCE_MAX, Watchdog};
use crate::coordinator::window::Window;
use crate::messages::{ChurnOrder, Group, Measure, Order, Requests};
use crate::outcome::Failure;
use crate::report::Report;
use crate::wire::stamp::STAMP_BYTES;
use crate::wire::transport::Transport;

/// Members that leave and join presence channels.
#[derive(Args, Clone, Debug, Serialize)]
#[command(
    after_help = EXAMPLES,
    mut_arg("channel", |arg| arg.required(false).default_value("presence-loadgen").help("Presence channel")),
    mut_arg("channels", |arg| {
        arg.help("Number of channels: member i is in number i mod N. Servers allow about 100 members in each")
    }),
)]
pub(crate) struct PresenceChurn {
    /// Members that leave and join again, over all channels.
    #[arg(long, value_name = "N", default_value_t = 50)]
    members: u64,
    /// Members that stay and must receive every change of their channel, over all channels.
    #[arg(long, value_name = "N", default_value_t = 10)]
    watchers: u32,
    /// Changes per second, each one leave and one join.
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    changes_per_second: f64,
    /// Seconds of changes.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration_seconds: f64,
    #[command(flatten)]
    #[serde(flatten)]
    channels: Channels,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl PresenceChurn {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        let connections = u64::from(self.watchers) + self.members;
        self.validate()?;
        let needs = Needs {
            connections,
            channels: self.channels.names()?,
            publishers: u32::try_from(connections).unwrap_or(u32::MAX),
            pipeline: 1,
            events_in_flight_max: 0,
            payload_bytes: STAMP_BYTES,
            watchers: self.watchers,
            proof: Proof::KeyAndSecret,
            requests: Requests::Events,
            transports: vec![Transport::Ws],
            resume: None,
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        let group = Group::Subscribers;
        let wave = WaveOfConnections { label: "connect", group, first: 0, count: connections, per_second: 0.0 };
        common.connect(&mut coordinator, &wave, report)?;
        // Announcements of the last members may still be in flight.
        let bar = Bar::new("settle", 0, Counts::Joins, &coordinator.totals());
        coordinator.wait(Duration::from_millis(600), &bar, |_| false)?;
        drop(bar);
        coordinator.times.clear();
        let window = Window::open(&coordinator, server);
        let before = window.before().counters.clone();
        let changes = ((self.changes_per_second * self.duration_seconds) as u64).max(1);
        let bar = Bar::new("churn", changes, Counts::Changes, window.before());
        self.order(&mut coordinator, changes)?;
        let seen = u64::from(self.watchers) / self.channels.count();
        let mut watchdog = Watchdog::new(SERVER_SILENCE_MAX);
        let is_over = |totals: &Totals| {
            let now = &totals.counters;
            let changed = now.changes - before.changes;
            if now.open[Group::Subscribers as usize] == 0 {
                abort::set(Abort::Server("the server closed every connection".into()));
            }
            let is_pending = now.sent - before.sent > changed || now.delivered - before.delivered < changed * seen;
            watchdog.watch(totals, is_pending.into());
            now.schedules_running == 0
                && changed >= changes
                && now.delivered - before.delivered >= changed * seen
                && now.removals - before.removals >= changed * seen
        };
        coordinator.wait(Duration::from_secs_f64(self.duration_seconds + 10.0), &bar, is_over)?;
        let used = window.close(&coordinator);
        report.reasons.clone_from(&used.after.reasons);
        report.times = std::mem::take(&mut coordinator.times);
        let changed = used.after.changes - before.changes;
        report.count("changes", changed);
        report.figure("changes-per-second", changed as f64 / used.seconds, "/s");
        if changed < changes {
            report.shortfall(format!("only {changed} of {changes} changes were confirmed"));
        }
        report.deliveries(&before, &used.after, changed * seen);
        let removals = used.after.removals - before.removals;
        report.count("removals-seen", removals);
        if removals != changed * seen {
            report.shortfall(format!("watchers received {removals} removals of members instead of {}", changed * seen));
        }
        used.report_server(report, "change", changed);
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Join, report);
        report.times = times;
        Ok(())
    }

    fn validate(&self) -> Result<(), Failure> {
        if !self.channels.channel.starts_with("presence-") || self.changes_per_second <= 0.0 || self.members == 0 {
            let text = "--channel must begin with presence-, --members and --changes-per-second must be above 0";
            return Err(Failure::Usage(text.into()));
        }
        if u64::from(self.watchers) % self.channels.count() != 0 {
            return Err(Failure::Usage("--watchers must be a multiple of --channels".into()));
        }
        Ok(())
    }

    /// Orders each worker to change its share of the members.
    fn order(&self, coordinator: &mut crate::coordinator::Coordinator, changes: u64) -> Result<(), Failure> {
        // Only workers with members can change any: connection i belongs to worker i modulo the number of workers.
        let workers = (coordinator.workers() as u64).min(self.members);
        let first = u64::from(self.watchers);
        let start_ns = now_ns() + LEAD_NS;
        let interval_ns = SECOND_NS as f64 * workers as f64 / self.changes_per_second;
        let all = coordinator.workers() as u64;
        coordinator.order_all(|index| {
            let turn = (index as u64 + all - first % all) % all;
            (turn < workers).then(|| {
                Order::Churn(ChurnOrder {
                    start_ns: start_ns + (interval_ns * turn as f64 / workers as f64) as u64,
                    interval_ns,
                    count: changes / workers + u64::from(turn < changes % workers),
                })
            })
        })
    }
}

const EXAMPLES: &str = "\
Examples:
  relay-loadgen presence-churn --members 80 --watchers 20 --changes-per-second 100
  relay-loadgen presence-churn --channels 10 --members 800 --watchers 50 --changes-per-second 500";
