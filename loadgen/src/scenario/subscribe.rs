//! `subscribe`: open connections subscribe to private channels, one after another, and each reply is checked. With
//! `--echo` the same bytes are sent to a server that echoes them, which is the minimum work for any server.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Common, LEAD_NS, Needs, WaveOfConnections};
use crate::abort::{self, Abort};
use crate::clock::{SECOND_NS, now_ns};
use crate::coordinator::Coordinator;
use crate::coordinator::preflight::Proof;
use crate::coordinator::progress::{Bar, Counts};
use crate::coordinator::totals::Totals;
use crate::coordinator::watchdog::{SERVER_SILENCE_MAX, Watchdog};
use crate::coordinator::window::{Used, Window};
use crate::messages::{Group, Measure, Order, Replies, Requests, Stay, SubscribeOrder, SubscribePlan};
use crate::outcome::{Failure, Verdict};
use crate::process::Watched;
use crate::report::Report;
use crate::wire::transport::Transport;

/// Subscriptions to private channels on open connections.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Subscribe {
    /// Connections that subscribe.
    #[arg(long, value_name = "N", default_value_t = 100)]
    connections: u64,
    /// Subscriptions per second of all connections together; 0 means a closed loop: as fast as the server answers.
    #[arg(long, value_name = "N", default_value_t = 1_000.0)]
    subscribes_per_second: f64,
    /// Maximum number of unanswered subscriptions per connection.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pipeline: u32,
    /// Subscriptions that are due at the same moment.
    #[arg(long, value_name = "N", default_value_t = 1)]
    messages_per_tick: u32,
    /// Seconds of subscriptions.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration_seconds: f64,
    /// Private channel; a number is appended to the name.
    #[arg(long, value_name = "NAME", default_value = "private-loadgen")]
    channel: String,
    /// Number of channels: subscription n of connection i is to number (i + n) mod N.
    #[arg(long, value_name = "N", default_value_t = 100)]
    channels: u32,
    /// Stay subscribed: each connection subscribes to each channel once, and the run ends when all have. Otherwise an
    /// answered subscription is ended in the same send as the next one of its connection.
    #[arg(long)]
    stay: bool,
    /// Expect an echo of every message instead of the protocol's reply.
    #[arg(long)]
    echo: bool,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl Subscribe {
    /// Runs it.
    pub(crate) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let common = &self.common;
        let server = common.server()?;
        self.check()?;
        let needs = Needs {
            connections: self.connections,
            channels: vec![LOBBY.to_owned()],
            publishers: 0,
            pipeline: 1,
            events_in_flight_max: 0,
            payload_bytes: crate::wire::stamp::STAMP_BYTES,
            watchers: 0,
            proof: Proof::KeyAndSecret,
            requests: Requests::Events,
            transports: vec![Transport::Ws],
            resume: None,
        };
        let mut coordinator = common.start(&needs, common.target()?)?;
        let plan = SubscribePlan {
            channel: self.channel.clone(),
            channels: self.channels,
            replies: if self.echo { Replies::Echoes } else { Replies::Pusher },
            stay: if self.stay { Stay::Stays } else { Stay::Leaves },
        };
        coordinator.order_all(|_| Some(Order::PrepareSubscribe(plan.clone())))?;
        let wave = WaveOfConnections {
            label: "connect",
            group: Group::Subscribers,
            first: 0,
            count: self.connections,
            per_second: 0.0,
        };
        common.connect(&mut coordinator, &wave, report)?;
        if !self.stay {
            self.round(&mut coordinator, self.duration_seconds.min(0.5), "warm up", None)?;
        }
        coordinator.times.clear();
        let used = self.round(&mut coordinator, self.duration_seconds, "subscribe", server)?;
        report.times = std::mem::take(&mut coordinator.times);
        self.summarize(&used, report);
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        let usage = |text: String| Err(Failure::Usage(text));
        if !self.channel.starts_with("private-") {
            return usage("--channel must begin with private-".into());
        }
        if self.channels == 0 || self.connections == 0 || self.pipeline == 0 || self.messages_per_tick == 0 {
            let text = "--channels, --connections, --pipeline and --messages-per-tick must be at least 1";
            return usage(text.into());
        }
        if !self.stay && self.pipeline > 1 && self.channels < 4 * self.pipeline {
            return usage(format!("--pipeline {0} needs --channels {1} or --stay", self.pipeline, 4 * self.pipeline));
        }
        let all = self.subscribes_per_second * self.duration_seconds;
        let room = self.connections as f64 * f64::from(self.channels);
        if self.stay && all > room {
            return usage(format!(
                "--stay: {all:.0} subscriptions need as many pairs of connection and channel, but there are only {room:.0}"
            ));
        }
        Ok(())
    }

    /// Subscribes for a while and waits for the last replies.
    fn round(
        &self,
        coordinator: &mut Coordinator,
        seconds: f64,
        label: &str,
        server: Option<Watched>,
    ) -> Result<Used, Failure> {
        let window = Window::open(coordinator, server);
        let length = (self.subscribes_per_second * seconds) as u64;
        let bar = Bar::new(label, length, Counts::Answers, window.before());
        self.order(coordinator, seconds)?;
        let before = window.before().counters.clone();
        let mut watchdog = Watchdog::new(SERVER_SILENCE_MAX);
        let is_over = |totals: &Totals| {
            let now = &totals.counters;
            if now.open[Group::Subscribers as usize] == 0 {
                abort::set(Abort::Server("the server closed every connection".into()));
            }
            let answered = now.accepted + now.refused;
            watchdog.watch(totals, (now.sent - before.sent > answered - before.accepted - before.refused).into());
            now.schedules_running == 0
        };
        coordinator.wait(Duration::from_secs_f64(seconds + DRAIN_SECONDS), &bar, is_over)?;
        Ok(window.close(coordinator))
    }

    /// Orders each worker to make its share of the subscriptions.
    fn order(&self, coordinator: &mut Coordinator, seconds: f64) -> Result<(), Failure> {
        // Connection i belongs to worker i modulo the number of workers: some workers may have none.
        let workers = (coordinator.workers() as u64).min(self.connections);
        let start_ns = now_ns() + LEAD_NS;
        let ticks_per_second = self.subscribes_per_second / f64::from(self.messages_per_tick);
        let interval_ns =
            if ticks_per_second > 0.0 { SECOND_NS as f64 * workers as f64 / ticks_per_second } else { 0.0 };
        let ticks = ((ticks_per_second * seconds) as u64).max(1);
        coordinator.order_all(|_| Some(Order::MeasureFrom { at_ns: now_ns() }))?;
        coordinator.order_all(|index| {
            let index = index as u64;
            (index < workers).then(|| {
                Order::Subscribe(SubscribeOrder {
                    start_ns: start_ns + (interval_ns * index as f64 / workers as f64) as u64,
                    interval_ns,
                    ticks: ticks / workers + u64::from(index < ticks % workers),
                    per_tick: self.messages_per_tick,
                    end_ns: start_ns + (seconds * SECOND_NS as f64) as u64,
                    pipeline: self.pipeline,
                })
            })
        })
    }

    fn summarize(&self, used: &Used, report: &mut Report) {
        let (before, after) = (&used.before, &used.after);
        report.reasons.clone_from(&after.reasons);
        let (sent, answered) = (after.sent - before.sent, after.accepted - before.accepted);
        let (refused, wrong) = (after.refused - before.refused, after.damaged - before.damaged);
        let missing = sent.saturating_sub(answered + refused);
        report.count("subscribed", answered);
        report.count("refused", refused);
        report.count("wrong-replies", wrong);
        report.count("unanswered", missing);
        for (count, what) in [
            (refused, "subscriptions were refused or lost with their connection"),
            (wrong, "replies did not match their subscription"),
        ] {
            if count > 0 {
                report.problem(Verdict::Failed, format!("{count} {what}"));
            }
        }
        if missing > 0 {
            report.shortfall(format!("{missing} subscriptions were not answered"));
        }
        report.figure("subscribes-per-second", answered as f64 / used.seconds, "/s");
        used.report_server(report, "subscribe", answered);
        if self.subscribes_per_second <= 0.0 {
            report
                .notes
                .push("closed loop: latencies do not include the time that subscriptions waited to be sent".into());
        }
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Answer, report);
        report.times = times;
    }
}

/// Public channel whose subscription shows that a connection is ready.
const LOBBY: &str = "loadgen-lobby";
/// Time to wait for replies after the last subscription was sent.
const DRAIN_SECONDS: f64 = 10.0;
