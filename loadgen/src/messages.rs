//! Messages between the coordinator and its worker processes, one JSON value per line: orders on the worker's standard
//! input, reports on its standard output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wire::target::Target;
use crate::wire::transport::Transport;

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
    /// All connections of the run.
    pub(crate) connections: u64,
    /// How connections read events; each of several is used by an equal part of them.
    pub(crate) transports: Vec<Transport>,
    /// Set if connections continue after their last event.
    pub(crate) resume: Option<ResumePlan>,
}

/// Connections that are reset and open again with the id of their last event.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct ResumePlan {
    /// Channels of each connection.
    pub(crate) channels_each: u32,
    /// The longest time for which a connection that was reset stays away.
    pub(crate) away_ns_max: u64,
    /// Maximum number of handshakes in flight of connections that return.
    pub(crate) in_flight_max: u64,
}

impl Plan {
    /// How the connection with this number reads events.
    pub(crate) fn transport_of(&self, number: u32) -> Transport {
        let count = self.transports.len() as u64;
        let at = u64::from(number) * count / self.connections.max(1);
        let at = usize::try_from(at.min(count.saturating_sub(1))).unwrap_or(0);
        self.transports.get(at).copied().unwrap_or(Transport::Ws)
    }
}

impl ResumePlan {
    /// The channels of the connection with this number, of `channels` in all; each once, and all channels equally often.
    pub(crate) fn channels_of(self, number: u32, channels: u32) -> impl Iterator<Item = u32> {
        let distance = channels / self.channels_each.max(1);
        (0..self.channels_each).map(move |at| (number % channels + at * distance) % channels)
    }
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
    /// Reset connections at random; they open again.
    Reset(ResetOrder),
    /// Everything was published: so many events of each channel. What is missing behind a gap is counted.
    Conclude {
        events: Vec<u32>,
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

/// Resets on a schedule, each of a connection of this worker that is chosen at random.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ResetOrder {
    pub(crate) start_ns: u64,
    /// Time between two resets of this worker.
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
    /// From the intended start of a connection that names its last event to its confirmed subscriptions.
    Resume,
    /// From the intended send time of a request to its answer.
    Answer,
    /// From the intended send time of a `pusher:ping` to its answer; the oldest if several are unanswered.
    Pong,
    /// From the intended send time to the moment when the generator handled it.
    Lag,
}

/// All measures, in the order of their indices.
pub(crate) const MEASURES: [Measure; 7] =
    [Measure::Delivery, Measure::Join, Measure::Arrival, Measure::Resume, Measure::Answer, Measure::Pong, Measure::Lag];

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
    /// Events of each channel that were published in order: one more than the last accepted sequence.
    pub(crate) published_by_channel: Vec<u32>,
    pub(crate) resume: ResumeCounters,
}

/// What a worker has counted of connections that continue after their last event.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct ResumeCounters {
    /// Connections that were reset, and connections that continued.
    pub(crate) resets: u64,
    pub(crate) resumes: u64,
    /// Connections that should have continued, and ended before they did.
    pub(crate) failed: u64,
    /// Events that were published before their connection continued.
    pub(crate) missed_events: u64,
    /// Events that came again with the id that they had before, where the protocol permits that.
    pub(crate) repeated: u64,
    /// Gaps that the server reported, by reason.
    pub(crate) gaps: BTreeMap<String, u64>,
    /// Events that these gaps left out.
    pub(crate) left_out: u64,
    /// Events that did not arrive and of which no publisher knows whether they were published.
    pub(crate) uncertain: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// R-LOAD-4: each connection has different channels, and each channel equally many connections.
    #[test]
    fn channels_are_shared_evenly() {
        for (channels, channels_each, connections, expected) in
            [(50, 3, 1_000, 60), (9, 3, 30, 10), (7, 7, 3, 3), (1, 1, 4, 4)]
        {
            let plan = ResumePlan { channels_each, away_ns_max: 0, in_flight_max: 1 };
            let mut counts = vec![0; channels as usize];
            for number in 0..connections {
                let own: Vec<u32> = plan.channels_of(number, channels).collect();
                assert!((1..own.len()).all(|at| !own[..at].contains(&own[at])), "{own:?}");
                own.iter().for_each(|channel| counts[*channel as usize] += 1);
            }
            let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
            assert!(
                least <= Some(expected) && most >= Some(expected) && most <= least.map(|least| least + 1),
                "{counts:?}"
            );
        }
    }
}
