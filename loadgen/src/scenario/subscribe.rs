//! `subscribe`: connections that are open subscribe private channels, one after another, each reply checked. With
//! `--echo` the same bytes go to a server that echoes them: the least that any server must do for them.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Common, LEAD_NS, Needs, WaveOfConnections};
use crate::clock::{SECOND_NS, now_ns};
use crate::cut::{self, Cut};
use crate::fleet::{Fleet, Totals};
use crate::messages::{Group, Measure, Order, Replies, Requests, Stay, SubscribeOrder, SubscribePlan};
use crate::outcome::{Failure, Verdict};
use crate::preflight::Proof;
use crate::process::Watched;
use crate::progress::{Bar, Counts};
use crate::report::Report;
use crate::silence::{SILENCE_MAX, Silence};
use crate::window::{Used, Window};

/// Private subscriptions over connections that are open.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Subscribe {
    /// Connections that subscribe.
    #[arg(long, value_name = "N", default_value_t = 100)]
    connections: u64,
    /// Subscriptions per second of all together; 0 means a closed loop: as fast as they are answered.
    #[arg(long, value_name = "N", default_value_t = 1_000.0)]
    subscribes_per_second: f64,
    /// Subscriptions of one connection that may be unanswered.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pipeline: u32,
    /// Subscriptions that are due at the same moment.
    #[arg(long, value_name = "N", default_value_t = 1)]
    messages_per_tick: u32,
    /// Seconds to subscribe.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration_seconds: f64,
    /// Private channel; a number is put behind it.
    #[arg(long, value_name = "NAME", default_value = "private-loadgen")]
    channel: String,
    /// Channels: subscription n of connection i is to number (i + n) mod N.
    #[arg(long, value_name = "N", default_value_t = 100)]
    channels: u32,
    /// Stay subscribed: each connection subscribes each channel once, and the run is over when all have been. Without it
    /// a subscription that was answered is ended together with the next one of its connection, in the same send.
    #[arg(long)]
    stay: bool,
    /// The server echoes every message: expect that instead of the protocol's reply.
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
            under_way_max: 0,
            payload_bytes: crate::stamp::STAMP_BYTES,
            watchers: 0,
            proof: Proof::KeyAndSecret,
            requests: Requests::Events,
        };
        let mut fleet = common.start(&needs, common.target()?)?;
        let plan = SubscribePlan {
            channel: self.channel.clone(),
            channels: self.channels,
            replies: if self.echo { Replies::Echoes } else { Replies::Pusher },
            stay: if self.stay { Stay::Stays } else { Stay::Leaves },
        };
        fleet.order_all(|_| Some(Order::PrepareSubscribe(plan.clone())))?;
        let wave = WaveOfConnections {
            label: "connect",
            group: Group::Crowd,
            first: 0,
            count: self.connections,
            per_second: 0.0,
        };
        common.connect(&mut fleet, &wave, report)?;
        if !self.stay {
            self.round(&mut fleet, self.duration_seconds.min(0.5), "warm up", None)?;
        }
        fleet.times.clear();
        let used = self.round(&mut fleet, self.duration_seconds, "subscribe", server)?;
        report.times = std::mem::take(&mut fleet.times);
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
                "{all:.0} subscriptions that stay need as many pairs of a connection and a channel, and there are {room:.0}"
            ));
        }
        Ok(())
    }

    /// Lets all subscribe for a while, and waits for the last replies.
    fn round(&self, fleet: &mut Fleet, seconds: f64, label: &str, server: Option<Watched>) -> Result<Used, Failure> {
        let window = Window::open(fleet, server);
        let length = (self.subscribes_per_second * seconds) as u64;
        let bar = Bar::new(label, length, Counts::Answers, window.before());
        self.order(fleet, seconds)?;
        let before = window.before().counters.clone();
        let mut silence = Silence::new(SILENCE_MAX);
        let is_over = |totals: &Totals| {
            let now = &totals.counters;
            if now.open[Group::Crowd as usize] == 0 {
                cut::set(Cut::Server("the server ended every connection".into()));
            }
            let answered = now.accepted + now.refused;
            silence.watch(totals, (now.sent - before.sent > answered - before.accepted - before.refused).into());
            now.schedules_running == 0
        };
        fleet.wait(Duration::from_secs_f64(seconds + DRAIN_SECONDS), &bar, is_over)?;
        Ok(window.close(fleet))
    }

    /// Every worker plays its own connections, as many subscriptions as its share of them.
    fn order(&self, fleet: &mut Fleet, seconds: f64) -> Result<(), Failure> {
        // Connection i is worker i's, modulo: there may be workers without any.
        let workers = (fleet.workers() as u64).min(self.connections);
        let start_ns = now_ns() + LEAD_NS;
        let ticks_per_second = self.subscribes_per_second / f64::from(self.messages_per_tick);
        let interval_ns =
            if ticks_per_second > 0.0 { SECOND_NS as f64 * workers as f64 / ticks_per_second } else { 0.0 };
        let ticks = ((ticks_per_second * seconds) as u64).max(1);
        fleet.order_all(|_| Some(Order::MeasureFrom { at_ns: now_ns() }))?;
        fleet.order_all(|index| {
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
            (refused, "subscriptions were refused, or their connections ended"),
            (wrong, "replies were not what was asked for"),
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
            report.notes.push("closed loop: latencies leave out the time that subscriptions waited to be sent".into());
        }
        let times = std::mem::take(&mut report.times);
        used.report_generator(&times, Measure::Answer, report);
        report.times = times;
    }
}

/// Public channel by which a connection is known to be ready.
const LOBBY: &str = "loadgen-lobby";
/// How long replies may be under way after the last subscription was sent.
const DRAIN_SECONDS: f64 = 10.0;
