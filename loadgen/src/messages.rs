//! Messages between the coordinator and its worker processes, one JSON value per line: orders on the worker's standard
//! input, reports on its standard output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wire::target::Target;

/// The first message to every worker.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    /// Distinguishes this run's events from others.
    pub(crate) run: u32,
    pub(crate) worker: u32,
    /// Connection `i` of the run subscribes channel `i mod channels.len()`.
    pub(crate) channels: Vec<String>,
    /// Publishers of all workers together; 0 when no order is checked.
    pub(crate) publishers: u32,
    /// Maximum number of requests in flight per publisher.
    pub(crate) pipeline: usize,
    /// Maximum number of events in flight to subscribers in a closed loop; 0 means no limit.
    pub(crate) events_in_flight_max: u64,
    /// Bytes of each event's `data`.
    pub(crate) payload_bytes: usize,
    /// Members with numbers below this watch a presence channel: the changes that they see are counted.
    pub(crate) watchers: u32,
    /// A connection that is not subscribed after this long has failed.
    pub(crate) join_timeout_ns: u64,
    /// The requests of publishers.
    pub(crate) requests: Requests,
}

/// The requests of a publisher.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Requests {
    /// Publish events.
    Events,
    /// List the app's channels.
    Channels,
    /// Have a subscription signed by the auth endpoint.
    Auth,
}

/// An order to a worker.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(crate) enum Order {
    Begin(Box<Plan>),
    Connect(ConnectOrder),
    Publish(PublishOrder),
    /// Send client events on connections of the first group.
    ClientEvents(ClientEventOrder),
    /// Presence members leave and join again.
    Churn(ChurnOrder),
    /// Connections of the first group send `pusher:ping` in turn.
    Ping(PingOrder),
    /// Connections that open from now on will subscribe.
    PrepareSubscribe(SubscribePlan),
    /// Subscribe to private channels.
    Subscribe(SubscribeOrder),
    /// Reset every connection of a group; they may reconnect.
    Drop {
        group: Group,
        back: Option<Back>,
    },
    /// End all schedules: the run is cut short.
    Halt,
    /// Record only times whose intended start is at or after this moment.
    MeasureFrom {
        at_ns: u64,
    },
}

/// Connections of one kind within a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    /// Subscribers, whose join time is [`Measure::Join`].
    Subscribers,
    /// Connections opened while something else happens: [`Measure::Arrival`].
    Arrivals,
    /// Connections that subscribe and never read again.
    Stalled,
}

/// Number of groups.
pub(crate) const GROUPS: usize = 3;

/// Open connections, spread evenly over time.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ConnectOrder {
    pub(crate) group: Group,
    /// Number of the first connection in the run; it determines the channel.
    pub(crate) first: u64,
    /// Difference between the numbers of this worker's connections.
    pub(crate) stride: u64,
    pub(crate) count: u64,
    pub(crate) start_ns: u64,
    /// Time between two of this worker's connections; 0 means as fast as the server answers.
    pub(crate) interval_ns: f64,
    /// Maximum number of handshakes in flight.
    pub(crate) in_flight_max: u64,
}

/// Publish over HTTP on a schedule.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PublishOrder {
    /// The publishers of this worker.
    pub(crate) publishers: Vec<u32>,
    /// First tick of publisher 0; publisher `p` is `p / publishers` of an interval later.
    pub(crate) start_ns: u64,
    /// Time between two ticks of one publisher; 0 means closed loop: the pipeline is kept full until `end_ns`.
    pub(crate) interval_ns: f64,
    pub(crate) end_ns: u64,
    /// Ticks of each publisher.
    pub(crate) ticks: u64,
    /// Events that are due at each tick.
    pub(crate) messages_per_tick: u32,
}

/// The schedule on which connections that were reset open again.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Back {
    /// Time between two of this worker's connections; 0 means as fast as the server answers.
    pub(crate) interval_ns: f64,
    pub(crate) in_flight_max: u64,
}

/// Client events on a schedule.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ClientEventOrder {
    /// The connections with numbers below this send in turn; each is also the publisher of that number.
    pub(crate) senders: u32,
    pub(crate) start_ns: u64,
    /// Time between two events of this worker.
    pub(crate) interval_ns: f64,
    pub(crate) count: u64,
}

/// Members that leave and join again as another member, in turn.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ChurnOrder {
    pub(crate) start_ns: u64,
    /// Time between two changes in this worker.
    pub(crate) interval_ns: f64,
    pub(crate) count: u64,
}

/// `pusher:ping` messages, on each connection in turn.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PingOrder {
    pub(crate) start_ns: u64,
    /// Time between two pings of this worker.
    pub(crate) interval_ns: f64,
    pub(crate) count: u64,
}

/// The channels that connections subscribe to, and how the server answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SubscribePlan {
    /// Channel `i` is this name followed by `-i`.
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
    /// With the reply of the protocol.
    Pusher,
    /// With an echo of each message.
    Echoes,
}

/// Whether connections stay subscribed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stay {
    /// Each connection subscribes to each channel once.
    Stays,
    /// Each subscription is ended in the same send as the next subscription of the connection.
    Leaves,
}

/// Subscribe on a schedule, or as fast as the server answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SubscribeOrder {
    pub(crate) start_ns: u64,
    /// Time between two ticks of this worker; 0 means closed loop: all pipelines are kept full until `end_ns`.
    pub(crate) interval_ns: f64,
    pub(crate) ticks: u64,
    /// Subscriptions that are due at each tick.
    pub(crate) per_tick: u32,
    pub(crate) end_ns: u64,
    /// Maximum number of unanswered subscriptions per connection.
    pub(crate) pipeline: u32,
}

/// A measured time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// From the intended send time of an event to its arrival at one subscriber.
    Delivery,
    /// From the intended start of a connection to its confirmed subscription.
    Join,
    /// The same for [`Group::Arrivals`].
    Arrival,
    /// From the intended send time of a request to its answer.
    Answer,
    /// From the intended send time of a `pusher:ping` to its answer; the oldest if several are unanswered.
    Pong,
    /// From the intended send time to the moment when the generator handled it.
    Lag,
}

/// All measures, in the order of their indices.
pub(crate) const MEASURES: [Measure; 6] =
    [Measure::Delivery, Measure::Join, Measure::Arrival, Measure::Answer, Measure::Pong, Measure::Lag];

/// Totals of a worker since its start.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Counters {
    /// Connections that are currently open and currently subscribed, by group.
    pub(crate) open: [u64; GROUPS],
    pub(crate) subscribed: [u64; GROUPS],
    /// Connections begun, subscribed, and failed before they were subscribed.
    pub(crate) attempted: u64,
    pub(crate) joined: u64,
    pub(crate) failed: u64,
    /// Subscribed connections that the server closed, by group.
    pub(crate) lost: [u64; GROUPS],
    /// Reasons why connections failed or ended, with counts.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Events that arrived once, in the right channel.
    pub(crate) delivered: u64,
    pub(crate) bytes_received: u64,
    /// Reads that returned bytes.
    pub(crate) reads: u64,
    pub(crate) duplicates: u64,
    /// Events that arrived after a later one.
    pub(crate) disordered: u64,
    pub(crate) wrong_channel: u64,
    /// Events that differ from the published ones.
    pub(crate) damaged: u64,
    /// Events of other runs on the same channel.
    pub(crate) foreign: u64,
    /// Requests or client events: sent; accepted; refused or unanswered.
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    /// Accepted events by channel.
    pub(crate) accepted_by_channel: Vec<u64>,
    /// Schedules that have not ended.
    pub(crate) schedules_running: u64,
    /// Changes of members that the server confirmed.
    pub(crate) changes: u64,
    /// Removals of members that watchers received.
    pub(crate) removals: u64,
    /// Answers to pings.
    pub(crate) pongs: u64,
}

/// A report of a worker.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub(crate) enum Report {
    /// Several times a second.
    Progress(Box<Progress>),
    /// The worker cannot continue.
    Broken { message: String },
}

/// A worker's state.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Progress {
    /// Orders taken so far, which shows whether the totals include the effect of an order.
    pub(crate) orders: u64,
    pub(crate) at_ns: u64,
    pub(crate) counters: Counters,
    /// Times since the last report.
    pub(crate) intervals: Vec<Interval>,
    /// CPU time of this worker's only thread, and how long it waited for a core, since its start.
    pub(crate) cpu_ns: u64,
    pub(crate) wait_ns: u64,
}

/// Times of one measure in one second.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Interval {
    pub(crate) measure: Measure,
    /// Second of the monotonic clock.
    pub(crate) second: u64,
    /// HdrHistogram V2, deflated, in hexadecimal; values are nanoseconds.
    pub(crate) histogram: String,
}
