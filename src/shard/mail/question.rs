//! The contents of questions between shards, and of their answers.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::key::{ChannelKey, PendingId, UserKey};
use crate::api::answer::Counts;
use crate::api::channel::ChannelInfo;
use crate::api::channel_history::HistoryQuery;
use crate::api::channel_users::UserFields;
use crate::api::refusal::Refusal;
use crate::api::replay::Replay;
use crate::app::AppSerial;
use crate::app::webhook::WebhookEndpoint;
use crate::index::ShardIndex;
use crate::shard::permits::Meter;

/// A question to one shard.
#[derive(Debug)]
pub(in crate::shard) enum Question {
    /// The next page of the channels of an app whose names begin with `prefix`, from this index of the owner's table.
    Channels { app: AppSerial, prefix: Arc<str>, from: u32 },
    /// One channel.
    Channel { channel: ChannelKey, info: ChannelInfo },
    /// Some events of the history of a channel.
    History { channel: ChannelKey, query: HistoryQuery },
    /// One channel, in the deprecated shape.
    Stats { channel: ChannelKey },
    /// The next page of the users of a presence channel.
    Users { channel: ChannelKey, fields: UserFields, pages: RosterPages },
    /// The connections of an app.
    Connections { app: AppSerial },
    /// The shards where a user is signed in.
    ShardsOf { user: UserKey },
    /// More than a question: close the connections of a user here (P-USER-6).
    EndUser { user: UserKey },
}

impl Question {
    /// The app of the question.
    pub(in crate::shard) fn app(&self) -> AppSerial {
        match self {
            Self::Channels { app, .. } | Self::Connections { app } => *app,
            Self::Channel { channel, .. }
            | Self::History { channel, .. }
            | Self::Stats { channel }
            | Self::Users { channel, .. } => channel.app,
            Self::ShardsOf { user } | Self::EndUser { user } => user.app,
        }
    }

    /// Whether the answer may be longer than the bytes that a connection may have unsent before its next request is
    /// begun.
    pub(in crate::shard) fn has_large_answer(&self) -> bool {
        match self {
            Self::Channels { .. } | Self::History { .. } | Self::Users { .. } => true,
            // A cached event may be as long as its app allows.
            Self::Channel { info, .. } => info.cache,
            Self::Stats { .. } | Self::Connections { .. } | Self::ShardsOf { .. } | Self::EndUser { .. } => false,
        }
    }
}

/// The answer to a question.
#[derive(Debug)]
pub(in crate::shard) enum Reply {
    /// The complete body of the answer.
    Whole(Vec<u8>),
    /// Some channels, and where the next page begins if there is one.
    Page { channels: Vec<Listed>, next: Option<u32> },
    /// Some users as text, and the question for the next page if there is one.
    Users { users: Vec<u8>, next: Option<Box<Question>> },
    /// Where the user is signed in.
    Shards { user: UserKey, shards: SmallVec<[ShardIndex; 4]> },
    /// The connections of the user are closed.
    Ended,
}

/// The pages of a roster that are still to be sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) enum RosterPages {
    All,
    /// From the first number to the second.
    Rest(u64, u64),
}

/// One channel of a page.
#[derive(Debug)]
pub(in crate::shard) struct Listed {
    pub(in crate::shard) name: Arc<str>,
    pub(in crate::shard) hash: u64,
    pub(in crate::shard) counts: Counts,
}

/// An event that a replay names (R-REPLAY-1).
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct WantedEvent {
    /// Its number in the request.
    pub(in crate::shard) number: u32,
    pub(in crate::shard) group: u8,
    pub(in crate::shard) sequence: u64,
}

/// Such an event, as it is kept.
#[derive(Debug)]
pub(in crate::shard) struct FoundEvent {
    /// Its number in the request.
    pub(in crate::shard) number: u32,
    /// The name of its channel.
    pub(in crate::shard) channel: Arc<str>,
    pub(in crate::shard) frame: Bytes,
}

/// Why the counter of an app refuses a request.
#[derive(Debug)]
pub(in crate::shard) enum Shortage {
    /// A limit per minute or day, and the seconds until the next one begins.
    Permits(Meter, u32),
    /// The app has its maximum of channels, and this request is for another one (R-LIM-5).
    Channels,
}

/// Whether a client's socket may have channels judged by an authorizer (R-AUTHEP-8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::shard) enum SocketVerdict {
    /// It is open on the app, and within its rate.
    Open,
    /// It is not.
    NotOpen,
    /// Its rate is used up for so many seconds.
    TooOften(u32),
}

/// Identifies a change, or a question to an authorizer, in its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AnswerId {
    /// The shard that asked.
    pub shard: ShardIndex,
    pub(in crate::shard) request: PendingId,
}

/// How a change of the store ended.
#[derive(Debug)]
pub enum Changed {
    /// The endpoint was created.
    Added(Box<WebhookEndpoint>),
    /// It was removed.
    Removed,
    /// Something was created: the body of the answer.
    Created(Vec<u8>),
    /// Nothing was changed: the body with the requested list.
    Listed(Vec<u8>),
    /// A master key was generated, in base64; whether it is stored (R-AUTHEP-6).
    MasterKey(Box<str>, bool),
    /// Nothing was changed.
    Refused(ChangeRefused),
}

/// Why the store was not changed.
#[derive(Debug)]
pub enum ChangeRefused {
    /// The change is not valid, for this reason.
    Invalid(String),
    /// The app has no such endpoint.
    UnknownWebhook,
    /// The app has no such token.
    UnknownToken,
    /// The app stores no master key.
    NoMasterKey,
    /// The app was deleted.
    UnknownApp,
    /// The store cannot be written.
    Unwritable,
}

/// A request of the admin API to publish kept events of an app again (R-REPLAY-1).
#[derive(Debug)]
pub struct ReplayCall {
    /// Identifies it in its answer.
    pub id: u64,
    /// Id of the app of the events.
    pub app: Box<str>,
    /// The request.
    pub replay: Replay,
}

/// How a replay of the admin API ended.
pub type ReplayOutcome = Result<Box<[u8]>, Box<Refusal>>;

/// What a shard reports to the owner of a user.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::shard) struct Report {
    /// Connections signed in as the user.
    pub(in crate::shard) connections: u32,
    /// A connection here watches the user.
    pub(in crate::shard) watches: bool,
}
