//! The messages between shards.
//!
//! Two classes. Control mail is state: the sender keeps each request until it is answered, and at most one per channel
//! (or connection) is in flight, so its amount is bounded by the number of channels and connections. Event mail costs
//! credit: a shard may have [`limits::EVENT_MAIL_BYTES_MAX`] of it in flight to each other shard, and the receiver
//! returns the credit once it has handled the mail and holds no more than its memory bound.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::key::{ChannelKey, ConnectionRef, PendingId, UserKey};
use super::question::{Changed, FoundEvent, Question, ReplayCall, Reply, Report, Shortage, SocketVerdict, WantedEvent};
use crate::api::answer::Counts;
use crate::api::authorizer::Decision;
use crate::app::AppSerial;
use crate::channel::history::{Gap, Order, Part};
use crate::connection::ConnectionKey;
use crate::limits;
use crate::metrics::figures::Snapshot;
use crate::protocol::event_id::EventId;
use crate::protocol::webhook::SentEvent;
use crate::shard::permits::{Permits, Window};

/// A join in flight: its number on the joiner's shard, and the user id.
#[derive(Debug)]
pub(in crate::shard) struct Ticket {
    pub(in crate::shard) number: u32,
    pub(in crate::shard) user_id: Arc<str>,
}

/// A connection that wants to join a presence channel.
#[derive(Debug)]
pub(in crate::shard) struct Join {
    /// Its number on the joiner's shard.
    pub(in crate::shard) ticket: u32,
    pub(in crate::shard) user_id: Arc<str>,
    pub(in crate::shard) user_info: Option<Arc<str>>,
    pub(in crate::shard) members_max: u32,
    /// It wants ids of events.
    pub(in crate::shard) reader: Option<Box<Reader>>,
}

/// One event for one channel.
#[derive(Debug)]
pub(in crate::shard) struct PublishItem {
    pub(in crate::shard) channel: ChannelKey,
    pub(in crate::shard) frame: Bytes,
    pub(in crate::shard) exclude: Option<ConnectionRef>,
    /// Length of its `data` literal if it is to be cached: published over HTTP, to a cache channel (P-CACHE-1).
    pub(in crate::shard) cache: Option<u32>,
    /// Number of the item in its request.
    pub(in crate::shard) number: u32,
    /// The contents of a webhook about a client event, if the app wants it reported (P-HOOK-3).
    pub(in crate::shard) sent: Option<Box<SentEvent>>,
}

/// A subscriber that wants ids of events, and where it continues (R-HIST-7).
#[derive(Debug)]
pub(in crate::shard) struct Reader {
    pub(in crate::shard) connection: ConnectionKey,
    /// The number of its join on a presence channel; a connection may leave and join again meanwhile.
    pub(in crate::shard) ticket: u32,
    /// The position that it named, if it named one; a gap if that is not known.
    pub(in crate::shard) after: Option<Result<EventId, Gap>>,
    pub(in crate::shard) on_gap: OnGap,
}

/// What a reader wants if events may be missing (R-HIST-10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::shard) enum OnGap {
    /// The events that are kept.
    Tail,
    /// No subscription.
    Fail,
}

/// The answer to readers that join.
#[derive(Debug, Default)]
pub(in crate::shard) struct HistoryAnswer {
    /// The position of the channel; `None` without history.
    pub(in crate::shard) position: Option<u64>,
    /// Where those continue that named a position.
    pub(in crate::shard) resumed: Vec<Resumed>,
}

/// The answer to a reader that named a position.
#[derive(Debug)]
pub(in crate::shard) struct Resumed {
    pub(in crate::shard) connection: ConnectionKey,
    /// The number of its join.
    pub(in crate::shard) ticket: u32,
    /// The position that it named, if that is known.
    pub(in crate::shard) after: Option<EventId>,
    /// `None` without history.
    pub(in crate::shard) continued: Option<Continued>,
    /// It is no subscriber: events may be missing.
    pub(in crate::shard) refused: bool,
}

impl Resumed {
    /// A cached event is sent only after a gap, and only if the history lacks it (R-HIST-13).
    pub(in crate::shard) fn needs_cached(&self) -> bool {
        let complete = |continued: &Continued| continued.gap.is_none() || !continued.part.events.is_empty();
        !self.continued.as_ref().is_some_and(complete)
    }
}

/// Where a reader continues.
#[derive(Debug)]
pub(in crate::shard) struct Continued {
    /// Events after this position are complete.
    pub(in crate::shard) start: u64,
    /// Earlier ones may be missing.
    pub(in crate::shard) gap: Option<Gap>,
    /// The first events after it.
    pub(in crate::shard) part: Part,
}

/// A channel of a poll.
#[derive(Debug)]
pub(in crate::shard) struct PolledChannel {
    /// Its number in the poll.
    pub(in crate::shard) number: usize,
    pub(in crate::shard) channel: ChannelKey,
    /// The position that the client named, if it named one; a gap if that is not known.
    pub(in crate::shard) after: Option<Result<EventId, Gap>>,
}

/// What a channel has for a poll.
#[derive(Debug)]
pub(in crate::shard) struct PolledPart {
    /// Its number in the poll.
    pub(in crate::shard) number: usize,
    /// The position that the client named, if that is known.
    pub(in crate::shard) after: Option<EventId>,
    /// Where it continues; `None` without history.
    pub(in crate::shard) position: Option<u64>,
    /// `None` without history.
    pub(in crate::shard) continued: Option<Continued>,
}

impl PolledPart {
    /// Whether a poll is answered because of it.
    pub(in crate::shard) fn is_new(&self) -> bool {
        self.continued.as_ref().is_none_or(|found| found.gap.is_some() || !found.part.events.is_empty())
    }
}

/// Why joins are refused, with the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::shard) enum JoinRefusal {
    /// The presence channel has its maximum of members (P-LIM-7).
    Members(u32),
    /// The text of its members has its maximum length (P-LIM-7).
    Roster,
    /// The app has its maximum of occupied channels (R-LIM-5).
    Channels(u32),
    /// Events after the reader's position may be missing, and it does not want to continue then (R-HIST-10).
    Gap,
}

/// A message to a shard, by the part that handles it.
#[derive(Debug)]
pub(in crate::shard) enum ShardMessage {
    /// To the owner of a channel.
    Owner(OwnerMessage),
    /// To a shard with subscribers of a channel.
    Channel(ChannelMessage),
    /// To a shard with connections of an app.
    Connection(ConnectionMessage),
    /// About a user.
    User(UserMessage),
    /// About limits of an app.
    Quota(QuotaMessage),
    /// About requests over HTTP.
    Http(HttpMessage),
    /// About metrics.
    Metrics(MetricsMessage),
    /// Returned credit for event mail.
    Credit { bytes: usize },
}

/// To the owner of a channel.
#[derive(Debug)]
pub(in crate::shard) enum OwnerMessage {
    /// This shard now has `count` subscribers, of whom `joiners` wait for the answer; the `readers` of these want ids,
    /// in the same order. Answered with `Recorded`.
    Subscribers { channel: ChannelKey, count: u32, joiners: u32, readers: Vec<Reader> },
    /// A connection wants to join a presence channel. Answered with `Joined` or `JoinRefused`.
    Join { channel: ChannelKey, join: Join },
    /// A stream wants to read a presence channel, without being a member. Answered with `Observed` or `JoinRefused`.
    Observe { channel: ChannelKey, reader: Reader },
    /// A stream no longer reads a presence channel.
    Unobserve { channel: ChannelKey },
    /// One connection of a member left.
    Leave { channel: ChannelKey, user_id: Arc<str> },
    /// Events of one request (or a client event, without `request`). Costs credit.
    Publish { request: Option<PendingId>, counts: bool, items: Vec<PublishItem> },
    /// A reader that is catching up has read all up to this position. At most one per reader and channel is in flight.
    /// Answered with `Past`.
    ReadPast { channel: ChannelKey, connection: ConnectionKey, after: u64 },
    /// A poll asks what these channels have, each at most so many events and bytes. If they have nothing, it waits.
    /// Answered with `HttpMessage::Polled`, and when it has waited with another one.
    Poll { request: PendingId, channels: Vec<PolledChannel>, events_max: usize, bytes_max: usize },
    /// A poll is answered, or its client is gone.
    EndPoll { request: PendingId },
    /// The subscribers that could have missed an event are closed.
    GapClosed { channel: ChannelKey },
    /// The app's counter has answered `OpenChannel`.
    ChannelOpened { channel: ChannelKey, admitted: bool, channels_max: u32 },
    /// A shard no longer considers the channel with this hash unoccupied.
    RecallNoted { hash: u64 },
}

/// To a shard with subscribers of a channel.
#[derive(Debug)]
pub(in crate::shard) enum ChannelMessage {
    /// The count is recorded; events follow from here on (P-SUB-5). On a cache channel it includes the last event
    /// before them (P-CACHE-2).
    /// Readers among them get an answer about the history.
    Recorded { channel: ChannelKey, cached: Option<Bytes>, answer: Option<Box<HistoryAnswer>> },
    /// Instead: the app has its maximum of channels (R-LIM-5).
    Unrecorded { channel: ChannelKey, channels_max: u32 },
    /// These connections are members; one frame is sent to all of them (P-OUT-2). On a cache channel it includes the
    /// last event.
    Joined {
        channel: ChannelKey,
        joiners: Vec<Ticket>,
        succeeded: Bytes,
        cached: Option<Box<Bytes>>,
        answer: Option<Box<HistoryAnswer>>,
    },
    /// The stream is recorded; events follow from here on.
    Observed { channel: ChannelKey, ticket: u32, cached: Option<Bytes>, answer: Box<HistoryAnswer> },
    /// The channel is full, the app has its maximum of channels (P-LIM-7, R-LIM-5), or events may be missing.
    JoinRefused { channel: ChannelKey, ticket: u32, refusal: JoinRefusal },
    /// The next events for a reader that is catching up; `None` without history.
    Past { channel: ChannelKey, connection: ConnectionKey, continued: Option<Continued> },
    /// One event, with its number if it is stored. Costs credit. `accepted_us` is when its owner accepted it, on the clock of all loops; 0 where drivers
    /// report no turns. `cost` is that of [`limits::mail_cost`], which follows settings that the receiver may know
    /// later.
    Deliver {
        channel: ChannelKey,
        frame: Bytes,
        order: Option<Order>,
        exclude: Option<ConnectionRef>,
        accepted_us: u64,
        cost: u32,
    },
    /// An event could not be sent for lack of credit; the shard's subscribers of the channel are closed with 4200, so
    /// that clients notice the gap. Answered with `GapClosed`.
    Gap { channel: ChannelKey },
}

/// To a shard with connections of an app.
#[derive(Debug)]
pub(in crate::shard) enum ConnectionMessage {
    /// To the connection's shard, from the app's counter.
    Admitted { app: AppSerial, connection: ConnectionKey, admitted: bool },
    /// To all shards: whether the app uses all of its share of the sender's memory (P-STAT-9).
    ShareFull { app: AppSerial, full: bool },
}

/// About a user.
#[derive(Debug)]
pub(in crate::shard) enum UserMessage {
    /// To the owner of a user: how many connections of this shard are signed in as the user, and whether any watches
    /// the user. At most one per user is in flight from each shard. Answered with `Recorded`.
    Report { user: UserKey, report: Report },
    /// To the reporting shard: the report is recorded (P-USER-6), and whether the user is online.
    Recorded { user: UserKey, online: bool },
    /// To a shard that watches the user: whether the user is online now. At most one per user is in flight to each
    /// shard. Answered with `StateNoted`.
    State { user: UserKey, online: bool },
    /// To the owner of a user.
    StateNoted { user: UserKey },
}

/// About limits of an app. The counter is the shard that counts an app.
#[derive(Debug)]
pub(in crate::shard) enum QuotaMessage {
    /// To the counter: a WebSocket of the app wants to open (P-CLOSE-2). Answered with `ConnectionMessage::Admitted`.
    Admit { app: AppSerial, connection: ConnectionKey, connections_max: u32 },
    /// To the counter: an admitted connection is gone.
    Departed { app: AppSerial },
    /// To the counter: a request needs permits, and these channels open. At most one per connection is in flight.
    /// Answered with `HttpMessage::Allowed` or `Denied`.
    Allow { request: PendingId, app: AppSerial, costs: Permits, channels: Vec<u64> },
    /// To a shard that may hold a lease; at most one per app is in flight. Answered with `Return`.
    Recall { app: AppSerial },
    /// To the counter: unspent permits. Without `recalled` nothing waits for them.
    Return { app: AppSerial, window: Window, permits: Permits, recalled: bool },
    /// To the counter: a channel gets its first subscriber (R-LIM-5). Answered with `OwnerMessage::ChannelOpened`.
    OpenChannel { channel: ChannelKey, channels_max: u32 },
    /// To the counter: a channel was open before the app had a limit.
    ChannelOpen { app: AppSerial, hash: u64 },
    /// To the counter: a channel that it counts was vacated.
    CloseChannel { app: AppSerial, hash: u64 },
    /// To all shards: whether the app has its maximum of channels.
    ChannelsFull { app: AppSerial, full: bool },
    /// To all other shards: a credential of this address failed (threat T6). Costs credit.
    AuthFailed { client: IpAddr },
}

/// About requests over HTTP.
#[derive(Debug)]
pub(in crate::shard) enum HttpMessage {
    /// To the shard that can answer: a question. At most one per request is in flight to each shard, and requests are
    /// bounded per connection. Answered with `Reply`.
    Ask { request: PendingId, question: Question },
    /// To the shard that asked.
    Reply { request: PendingId, reply: Reply },
    /// From the store, as if sent by the shard itself: a change that it requested has ended. Bounded per shard.
    Changed { request: PendingId, changed: Changed },
    /// To the shard of a socket: is it open on the app, and may it have so many channels judged? Bounded by the requests
    /// that wait for authorizers. Answered with `SocketJudged`.
    JudgeSocket { request: PendingId, socket: ConnectionKey, app: AppSerial, channels: u32 },
    /// To the shard that asked.
    SocketJudged { request: PendingId, verdict: SocketVerdict },
    /// From an authorizer, as if sent by the shard itself: its decisions about each subject of a request.
    Authorized { request: PendingId, decisions: Vec<Decision> },
    /// To the owner of these events of an app. At most one per request is in flight to each shard, and a connection has
    /// one such request. Answered with `FoundEvents`.
    FindEvents { request: PendingId, app: AppSerial, events: Vec<WantedEvent> },
    /// To the shard that asked: those that are kept.
    FoundEvents { request: PendingId, events: Vec<FoundEvent> },
    /// From the admin API, as if sent by the shard itself. Bounded by its requests in flight.
    Replay(Box<ReplayCall>),
    /// To the publisher's shard: all items are accepted and ordered (P-HTTP-17). The channels with these hashes are
    /// unoccupied, until `Recall`.
    Accepted { request: PendingId, counts: Vec<(u32, Counts)>, unoccupied: Vec<u64> },
    /// To the request's shard: what the channels of a poll have; not `is_first` if it has waited.
    Polled { request: PendingId, found: Vec<PolledPart>, is_first: bool },
    /// To a shard that considers a channel unoccupied: it may have subscribers from now on. At most one per channel is
    /// in flight. Answered with `OwnerMessage::RecallNoted`.
    Recall { hash: u64 },
    /// To the request's shard: permits of this window, and a lease of more.
    Allowed { request: PendingId, window: Window, lease: Permits },
    /// To the request's shard.
    Denied { request: PendingId, shortage: Shortage },
}

/// About metrics.
#[derive(Debug)]
pub(in crate::shard) enum MetricsMessage {
    /// To every shard: send a copy of your metrics. Pages under construction are bounded. Answered with `Measured`.
    Measure { request: PendingId },
    /// To the shard that asked.
    Measured { request: PendingId, snapshot: Box<Snapshot> },
}

impl ShardMessage {
    /// The sender's cost in credit, in bytes; 0 for control mail. One mail never costs more than half of the credit, so
    /// that any mail can be sent once the others were handled.
    pub(in crate::shard) fn cost(&self) -> usize {
        let bytes = match self {
            Self::Owner(OwnerMessage::Publish { items, .. }) => publish_cost(items),
            Self::Channel(ChannelMessage::Deliver { cost, .. }) => *cost as usize,
            Self::Quota(QuotaMessage::AuthFailed { .. }) => limits::MAIL_COST_BYTES,
            Self::Owner(
                OwnerMessage::Subscribers { .. }
                | OwnerMessage::Join { .. }
                | OwnerMessage::Leave { .. }
                | OwnerMessage::Observe { .. }
                | OwnerMessage::Unobserve { .. }
                | OwnerMessage::Poll { .. }
                | OwnerMessage::EndPoll { .. }
                | OwnerMessage::GapClosed { .. }
                | OwnerMessage::ReadPast { .. }
                | OwnerMessage::ChannelOpened { .. }
                | OwnerMessage::RecallNoted { .. },
            )
            | Self::Channel(
                ChannelMessage::Recorded { .. }
                | ChannelMessage::Unrecorded { .. }
                | ChannelMessage::Joined { .. }
                | ChannelMessage::Observed { .. }
                | ChannelMessage::JoinRefused { .. }
                | ChannelMessage::Past { .. }
                | ChannelMessage::Gap { .. },
            )
            | Self::Quota(
                QuotaMessage::Admit { .. }
                | QuotaMessage::Departed { .. }
                | QuotaMessage::Allow { .. }
                | QuotaMessage::Recall { .. }
                | QuotaMessage::Return { .. }
                | QuotaMessage::OpenChannel { .. }
                | QuotaMessage::ChannelOpen { .. }
                | QuotaMessage::CloseChannel { .. }
                | QuotaMessage::ChannelsFull { .. },
            )
            | Self::Connection(_)
            | Self::User(_)
            | Self::Http(_)
            | Self::Metrics(_)
            | Self::Credit { .. } => 0,
        };
        bytes.min(limits::EVENT_MAIL_BYTES_MAX / 2)
    }
}

/// The cost of one publish mail, in bytes, before the cap of [`ShardMessage::cost`].
pub(in crate::shard) fn publish_cost(items: &[PublishItem]) -> usize {
    let sent = |item: &PublishItem| item.sent.as_ref().map_or(0, |sent| sent.bytes());
    items.iter().map(|item| item.frame.len() + sent(item) + limits::MAIL_COST_BYTES).sum()
}

/// Lets a part's message be sent without wrapping.
macro_rules! from_part {
    ($($part:ident($message:ident)),*) => {
        $(impl From<$message> for ShardMessage {
            fn from(message: $message) -> Self {
                Self::$part(message)
            }
        })*
    };
}

from_part!(
    Owner(OwnerMessage),
    Channel(ChannelMessage),
    Connection(ConnectionMessage),
    User(UserMessage),
    Quota(QuotaMessage),
    Http(HttpMessage),
    Metrics(MetricsMessage)
);
