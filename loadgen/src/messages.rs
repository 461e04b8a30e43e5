//! What the coordinator and its worker processes say to each other: one JSON value per line, orders down the worker's
//! standard input, reports up its standard output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::target::Target;

/// What every worker must know before anything else.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    /// Tells this run's events from others.
    pub(crate) run: u32,
    pub(crate) worker: u32,
    /// Connection `i` of the run subscribes channel `i mod channels.len()`.
    pub(crate) channels: Vec<String>,
    /// Publishers of all workers together; 0 when no order is checked.
    pub(crate) publishers: u32,
    /// Requests that a publisher may have unanswered.
    pub(crate) pipeline: usize,
    /// Events that a closed loop may have on their way to subscribers; 0 means any number.
    pub(crate) under_way_max: u64,
    /// Bytes of each event's `data`.
    pub(crate) payload_bytes: usize,
    /// Members with numbers below this watch a presence channel: what they see is counted.
    pub(crate) watchers: u32,
    /// A connection that is not subscribed after this long has failed.
    pub(crate) join_timeout_ns: u64,
    /// What publishers request.
    pub(crate) requests: Requests,
}

/// What a publisher requests.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Requests {
    /// It publishes events.
    Events,
    /// It lists the app's channels.
    Channels,
}

/// What a worker is to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(crate) enum Order {
    Begin(Box<Plan>),
    Connect(ConnectOrder),
    Publish(PublishOrder),
    /// Client events by connections of the first group.
    Say(SayOrder),
    /// Presence members leave and join again.
    Churn(ChurnOrder),
    /// Connections of the first group send `pusher:ping` in turn.
    Ping(PingOrder),
    /// Connections that open from now on will subscribe.
    PrepareSubscribe(SubscribePlan),
    /// Connections subscribe private channels.
    Subscribe(SubscribeOrder),
    /// Reset every connection of a group; they may come back.
    Drop {
        group: Group,
        back: Option<Back>,
    },
    /// Begin nothing new, whatever the orders so far say: the run is cut short.
    Halt,
    /// Count latencies only of what is intended from this moment on.
    MeasureFrom {
        at_ns: u64,
    },
}

/// Connections of one kind within a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    /// Subscribers, whose join time is [`Measure::Join`].
    Crowd,
    /// Those that arrive while something else happens: [`Measure::Arrival`].
    Arrivals,
    /// They subscribe and never read again.
    Stalled,
}

/// All groups, in the order of their indices.
pub(crate) const GROUPS: usize = 3;

/// Open connections, spread evenly over time.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ConnectOrder {
    pub(crate) group: Group,
    /// Number of the first one in the whole run; the channel follows from it.
    pub(crate) first: u64,
    /// Distance between the numbers of this worker's connections.
    pub(crate) stride: u64,
    pub(crate) count: u64,
    pub(crate) start_ns: u64,
    /// Time between two of this worker's connections; 0 means as fast as they are answered.
    pub(crate) interval_ns: f64,
    /// Handshakes under way at one time.
    pub(crate) in_flight_max: u64,
}

/// Publish over HTTP by the clock.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PublishOrder {
    /// The publishers that this worker plays.
    pub(crate) publishers: Vec<u32>,
    /// First tick of publisher 0; publisher `p` ticks `p / publishers` of an interval later.
    pub(crate) start_ns: u64,
    /// Time between two ticks of one publisher; 0 means closed loop: the pipeline is kept full until `end_ns`.
    pub(crate) interval_ns: f64,
    pub(crate) end_ns: u64,
    /// Ticks of each publisher.
    pub(crate) ticks: u64,
    /// Events that are due at each tick.
    pub(crate) messages_per_tick: u32,
}

/// When connections that were reset open again.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Back {
    /// Time between two of this worker's; 0 means as fast as they are answered.
    pub(crate) interval_ns: f64,
    pub(crate) in_flight_max: u64,
}

/// Client events by the clock.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SayOrder {
    /// The connections with numbers below this speak in turn; each is also the publisher of that number.
    pub(crate) speakers: u32,
    pub(crate) start_ns: u64,
    /// Time between two events of this worker.
    pub(crate) interval_ns: f64,
    pub(crate) count: u64,
}

/// Members that leave and join again as somebody else, in turn.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ChurnOrder {
    pub(crate) start_ns: u64,
    /// Time between two changes in this worker.
    pub(crate) interval_ns: f64,
    pub(crate) count: u64,
}

/// Pings of the protocol, in turn.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PingOrder {
    pub(crate) start_ns: u64,
    /// Time between two pings of this worker.
    pub(crate) interval_ns: f64,
    pub(crate) count: u64,
}

/// What connections subscribe, and how they are answered.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SubscribePlan {
    /// Channel `i` is this name with `-i` behind it.
    pub(crate) channel: String,
    pub(crate) channels: u32,
    pub(crate) replies: Replies,
    pub(crate) stay: Stay,
}

impl SubscribePlan {
    /// Name of a channel.
    pub(crate) fn channel(&self, index: u32) -> String {
        format!("{}-{index}", self.channel)
    }
}

/// How the server answers a subscription.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Replies {
    /// As the protocol says.
    Pusher,
    /// With the messages that it was sent.
    Echoes,
}

/// What follows a subscription.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stay {
    /// Nothing: each connection subscribes each channel once.
    Stays,
    /// Its end, in one send with the next subscription of the connection.
    Leaves,
}

/// Subscribe by the clock, or as fast as is answered.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SubscribeOrder {
    pub(crate) start_ns: u64,
    /// Time between two ticks of this worker; 0 means closed loop: all pipelines are kept full until `end_ns`.
    pub(crate) interval_ns: f64,
    pub(crate) ticks: u64,
    /// Subscriptions that are due at each tick.
    pub(crate) per_tick: u32,
    pub(crate) end_ns: u64,
    /// Subscriptions that a connection may have unanswered.
    pub(crate) pipeline: u32,
}

/// What is measured as a time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// From the intended send time of an event to its arrival at one subscriber.
    Delivery,
    /// From the intended start of a connection to its confirmed subscription.
    Join,
    /// The same of [`Group::Arrivals`].
    Arrival,
    /// From the intended send time of a request to its answer.
    Answer,
    /// From the intended send time of a `pusher:ping` to the answer; of several pings without an answer, the oldest.
    Pong,
    /// From the intended send time to the moment when the generator came to it.
    Lag,
}

/// All measures, in the order of their indices.
pub(crate) const MEASURES: [Measure; 6] =
    [Measure::Delivery, Measure::Join, Measure::Arrival, Measure::Answer, Measure::Pong, Measure::Lag];

/// Running totals of a worker since it began.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Counters {
    /// Connections that are open now and subscribed now, by group.
    pub(crate) open: [u64; GROUPS],
    pub(crate) subscribed: [u64; GROUPS],
    /// Connections begun, subscribed and failed before that, ever.
    pub(crate) attempted: u64,
    pub(crate) joined: u64,
    pub(crate) failed: u64,
    /// Subscribed connections that the server ended, by group.
    pub(crate) lost: [u64; GROUPS],
    /// Why connections failed or ended.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Events that arrived once, in the right channel.
    pub(crate) delivered: u64,
    pub(crate) bytes_received: u64,
    /// Reads that gave bytes.
    pub(crate) reads: u64,
    pub(crate) duplicates: u64,
    /// Events that came after a later one.
    pub(crate) disordered: u64,
    pub(crate) wrong_channel: u64,
    /// Frames that are not what was published.
    pub(crate) damaged: u64,
    /// Events of other runs on the same channel.
    pub(crate) foreign: u64,
    /// Requests or client events begun, accepted and refused or unanswered.
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    /// Accepted events by channel.
    pub(crate) accepted_by_channel: Vec<u64>,
    /// Schedules that are not at their end.
    pub(crate) schedules_running: u64,
    /// Members whose change was confirmed to themselves.
    pub(crate) changes: u64,
    /// Leaves that watchers saw.
    pub(crate) removals: u64,
    /// Answers to pings.
    pub(crate) pongs: u64,
}

/// What a worker says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub(crate) enum Report {
    /// Several times a second.
    Progress(Box<Progress>),
    /// It cannot go on.
    Broken { message: String },
}

/// A worker's state.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Progress {
    /// Orders taken so far: totals of an older state can be told from those after an order.
    pub(crate) orders: u64,
    pub(crate) at_ns: u64,
    pub(crate) counters: Counters,
    /// Times since the last progress.
    pub(crate) intervals: Vec<Interval>,
    /// CPU of this worker's only thread, and how long it waited for a core, since it began.
    pub(crate) cpu_ns: u64,
    pub(crate) wait_ns: u64,
}

/// Times of one measure during one second.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Interval {
    pub(crate) measure: Measure,
    /// Second of the monotonic clock.
    pub(crate) second: u64,
    /// HdrHistogram V2, deflated, in hexadecimal; values are nanoseconds.
    pub(crate) histogram: String,
}
