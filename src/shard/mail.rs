//! What shards say to each other.
//!
//! Two classes. Control mail is state: each request is kept by its sender until it is answered, at most one per
//! channel (or connection) is under way, so its amount is bounded by what exists. Event mail costs credit: a shard may
//! have [`limits::EVENT_MAIL_BYTES_MAX`] of it under way to each other shard, and the receiver gives the credit back
//! once it has handled the mail and holds no more than its memory bound.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::ShardIndex;
use super::allowance::Shortage;
use super::change::Changed;
use super::gather::{Question, Reply};
use super::tally::{Permits, Window};
use super::users::Report;
use crate::api::answer::Counts;
use crate::app::AppSerial;
use crate::connection::ConnectionKey;
use crate::limits;
use crate::metrics::figures::Snapshot;
use crate::protocol::webhook::SentEvent;

/// One mail. Opaque to drivers.
#[derive(Debug)]
pub struct Mail(pub(super) Body);

#[cfg(test)]
impl Mail {
    /// Some mail, for tests of what brings it.
    pub(crate) fn any() -> Self {
        Self(Body::Credit { bytes: 1 })
    }
}

/// A channel of an app, with the hash that names its owner and finds it in every table.
#[derive(Clone, Debug)]
pub(super) struct ChannelKey {
    pub(super) app: AppSerial,
    pub(super) name: Arc<str>,
    pub(super) hash: u64,
}

/// A user of an app, with the hash that names its owner and finds it in every table.
#[derive(Clone, Debug)]
pub(super) struct UserKey {
    pub(super) app: AppSerial,
    pub(super) id: Arc<str>,
    pub(super) hash: u64,
}

/// A connection anywhere in the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Anywhere {
    pub(super) shard: ShardIndex,
    pub(super) connection: ConnectionKey,
}

/// Names one request that awaits other shards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PendingId {
    pub(super) index: u32,
    /// Guards against the reuse of `index`.
    pub(super) nonce: u32,
}

/// A join under way: its number on the joiner's shard, and as whom.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) number: u32,
    pub(super) user_id: Arc<str>,
}

/// One event for one channel.
#[derive(Debug)]
pub(super) struct PublishItem {
    pub(super) channel: ChannelKey,
    pub(super) frame: Bytes,
    pub(super) exclude: Option<Anywhere>,
    /// Length of its `data` literal if it is to be cached: published over HTTP, to a cache channel (P-CACHE-1).
    pub(super) cache: Option<u32>,
    /// Number of the item in its request.
    pub(super) number: u32,
    /// What webhooks are told of a client event, where the app wants it told (P-HOOK-3).
    pub(super) sent: Option<Box<SentEvent>>,
}

/// Why nobody may join, with the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Full {
    /// The presence channel has its users (P-LIM-7).
    Members(u32),
    /// The list of its members has its longest text (P-LIM-7).
    Roster,
    /// The app has its channels (R-LIM-5).
    Channels(u32),
}

#[derive(Debug)]
pub(super) enum Body {
    /// To the owner: this shard now has `count` subscribers, of whom `joiners` wait for the answer. Answered `Recorded`.
    Subscribers { channel: ChannelKey, count: u32, joiners: u32 },
    /// To the subscribers' shard: the count is recorded; events follow from here on (P-SUB-5). On a cache channel with
    /// the last event before them (P-CACHE-2).
    Recorded { channel: ChannelKey, cached: Option<Bytes> },
    /// To the subscribers' shard, instead: the app has as many channels as it may have (R-LIM-5).
    Unrecorded { channel: ChannelKey, channels_max: u32 },
    /// To the owner: a connection wants to join a presence channel. Answered `Joined` or `JoinRefused`.
    Join {
        channel: ChannelKey,
        connection: ConnectionKey,
        ticket: u32,
        user_id: Arc<str>,
        user_info: Option<Arc<str>>,
        members_max: u32,
    },
    /// To the shard of some who joined: they are members, and told so by one frame for all (P-OUT-2). On a cache channel
    /// with the last event.
    Joined { channel: ChannelKey, joiners: Vec<Ticket>, succeeded: Bytes, cached: Option<Bytes> },
    /// To the joiner's shard: the channel is full, or the app has all its channels (P-LIM-7, R-LIM-5).
    JoinRefused { channel: ChannelKey, ticket: u32, full: Full },
    /// To the owner: one connection of a member left.
    Leave { channel: ChannelKey, user_id: Arc<str> },
    /// To the owners: events of one request (or a client event, without `request`). Costs credit.
    Publish { request: Option<PendingId>, counts: bool, items: Vec<PublishItem> },
    /// To the publisher's shard: all items are accepted and ordered (P-HTTP-17). Nobody hears the channels with these
    /// hashes, until `Heard` calls that back.
    Accepted { request: PendingId, counts: Vec<(u32, Counts)>, unheard: Vec<u64> },
    /// To a shard that knows it as unheard: the channel may be heard. At most one per channel is in flight. Answered `HeardNoted`.
    Heard { hash: u64 },
    /// To the owner.
    HeardNoted { hash: u64 },
    /// To the shard that knows: a question over HTTP. At most one per request is under way to each shard, and requests
    /// are bounded per connection. Answered `Reply`.
    Ask { request: PendingId, question: Question },
    /// To the shard that asked.
    Reply { request: PendingId, reply: Reply },
    /// To a shard with subscribers: one event. Costs credit.
    /// `accepted_us` is when its owner accepted it, on the clock of all loops; 0 where drivers tell no turns. `cost` is that of
    /// [`limits::mail_cost`], which follows settings that the receiver may know later.
    Deliver { channel: ChannelKey, frame: Bytes, exclude: Option<Anywhere>, accepted_us: u64, cost: u32 },
    /// To a shard with subscribers: an event could not be sent for want of credit; its subscribers of the channel are
    /// closed with 4200, so that the gap is seen. Answered `GapClosed`.
    Gap { channel: ChannelKey },
    /// To the owner: nobody is left who could miss the event.
    GapClosed { channel: ChannelKey },
    /// To the app's counter: a WebSocket of the app wants to open (P-CLOSE-2). Answered `Admitted`.
    Admit { app: AppSerial, connection: ConnectionKey, connections_max: u32 },
    /// To the connection's shard.
    Admitted { app: AppSerial, connection: ConnectionKey, admitted: bool },
    /// To the app's counter: an admitted connection is gone.
    Departed { app: AppSerial },
    /// To the app's counter: a request needs permits, and these channels open. At most one per connection is under way.
    /// Answered `Allowed` or `Denied`.
    Allow { request: PendingId, app: AppSerial, costs: Permits, channels: Vec<u64> },
    /// To the request's shard: permits of this window, and a lease of more.
    Allowed { request: PendingId, window: Window, lease: Permits },
    /// To the request's shard.
    Denied { request: PendingId, shortage: Shortage },
    /// To a shard that may hold a lease; at most one per app is under way. Answered `Return`.
    Recall { app: AppSerial },
    /// To the app's counter: unspent permits. Without `recalled` nobody awaits them.
    Return { app: AppSerial, window: Window, permits: Permits, recalled: bool },
    /// To the app's counter: a channel gets its first subscriber (R-LIM-5). Answered `ChannelOpened`.
    OpenChannel { channel: ChannelKey, channels_max: u32 },
    /// To the owner.
    ChannelOpened { channel: ChannelKey, admitted: bool, channels_max: u32 },
    /// To the app's counter: a channel was open before the app had a limit.
    ChannelOpen { app: AppSerial, hash: u64 },
    /// To the app's counter: a channel that it counts was vacated.
    CloseChannel { app: AppSerial, hash: u64 },
    /// To all shards: whether the app has as many channels as it may have.
    ChannelsFull { app: AppSerial, full: bool },
    /// To all shards: whether the app uses all of its share of the sender's memory (P-STAT-9).
    ShareFull { app: AppSerial, full: bool },
    /// To all other shards: a credential of this address failed (threat T6). Costs credit.
    Failed { client: IpAddr },
    /// To the owner of a user: who of this shard is signed in as the user or watches the user. At most one per user is
    /// under way from each shard. Answered `UserRecorded`.
    UserReport { user: UserKey, report: Report },
    /// To the reporting shard: the report is recorded (P-USER-6), and whether the user is there.
    UserRecorded { user: UserKey, online: bool },
    /// To a shard that watches the user: whether the user is there now. At most one per user is under way to each shard.
    /// Answered `UserTold`.
    UserState { user: UserKey, online: bool },
    /// To the owner of a user.
    UserTold { user: UserKey },
    /// From the store, as the shard's own: a change that it asked for has ended. Bounded per shard.
    Changed { request: PendingId, changed: Changed },
    /// Credit for event mail comes back.
    Credit { bytes: usize },
    /// To every shard: hand over your figures. Pages under construction are bounded. Answered `Measured`.
    Measure { request: PendingId },
    /// To the shard that asked.
    Measured { request: PendingId, snapshot: Box<Snapshot> },
}

impl Body {
    /// What the mail costs its sender in credit, in bytes; 0 for control mail. One mail never costs more than half of
    /// the credit, so that any mail can be sent once the others were handled.
    pub(super) fn cost(&self) -> usize {
        let frames: usize = match self {
            Self::Publish { items, .. } => publish_cost(items),
            Self::Deliver { cost, .. } => *cost as usize,
            Self::Failed { .. } => limits::MAIL_COST_BYTES,
            Self::Subscribers { .. }
            | Self::Recorded { .. }
            | Self::Join { .. }
            | Self::Joined { .. }
            | Self::JoinRefused { .. }
            | Self::Leave { .. }
            | Self::Accepted { .. }
            | Self::Heard { .. }
            | Self::HeardNoted { .. }
            | Self::Ask { .. }
            | Self::Reply { .. }
            | Self::Gap { .. }
            | Self::GapClosed { .. }
            | Self::Admit { .. }
            | Self::Admitted { .. }
            | Self::Departed { .. }
            | Self::Unrecorded { .. }
            | Self::Allow { .. }
            | Self::Allowed { .. }
            | Self::Denied { .. }
            | Self::Recall { .. }
            | Self::Return { .. }
            | Self::OpenChannel { .. }
            | Self::ChannelOpened { .. }
            | Self::ChannelOpen { .. }
            | Self::CloseChannel { .. }
            | Self::ChannelsFull { .. }
            | Self::ShareFull { .. }
            | Self::UserReport { .. }
            | Self::UserRecorded { .. }
            | Self::UserState { .. }
            | Self::UserTold { .. }
            | Self::Changed { .. }
            | Self::Credit { .. }
            | Self::Measure { .. }
            | Self::Measured { .. } => 0,
        };
        frames.min(limits::EVENT_MAIL_BYTES_MAX / 2)
    }
}

/// What one publish mail costs, in bytes, before the cap of [`Body::cost`].
pub(super) fn publish_cost(items: &[PublishItem]) -> usize {
    let sent = |item: &PublishItem| item.sent.as_ref().map_or(0, |sent| sent.bytes());
    items.iter().map(|item| item.frame.len() + sent(item) + limits::MAIL_COST_BYTES).sum()
}
