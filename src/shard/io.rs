//! The inputs and outputs of a shard.

use std::net::SocketAddr;
use std::sync::Arc;

use super::mail::{AnswerId, Mail, ReplayOutcome};
use crate::api::authorizer::AuthorizerCall;
use crate::app::actor::Actor;
use crate::app::webhook::NewWebhook;
use crate::app::{AppSerial, Directory, NewToken, TokenId};
use crate::connection::ConnectionKey;
use crate::index::ShardIndex;
use crate::metrics::refusal_log::LogLine;
use crate::moment::Moment;
use crate::protocol::webhook::WebhookEvent;

/// Which listener a connection came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listener {
    /// The public port: WebSockets and the HTTP API.
    Public,
    /// The metrics and health port: HTTP only, no apps.
    Metrics,
}

/// An input of a shard, from its driver.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted into this slot.
    Accepted {
        /// Its key; the generation is new for the slot.
        connection: ConnectionKey,
        /// The peer's address.
        peer: SocketAddr,
        /// The listener that accepted it.
        listener: Listener,
        /// The node is at capacity and the slot is one of the reserved ones: refuse with 4100 (P-CLOSE-2).
        refuse: bool,
    },
    /// Bytes arrived; they may be changed in place (unmasking).
    Received {
        /// The sender.
        connection: ConnectionKey,
        /// The bytes.
        bytes: &'a mut [u8],
    },
    /// The kernel accepted this many bytes of those that `poll_flush` lent.
    Sent {
        /// The connection of the send.
        connection: ConnectionKey,
        /// At least 1.
        bytes: usize,
    },
    /// The peer ended its direction (FIN).
    ReadEnded {
        /// The connection.
        connection: ConnectionKey,
    },
    /// The connection is gone and no operation on it is in flight.
    Closed {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Mail from another shard.
    Mail {
        /// Its sender.
        from: ShardIndex,
        /// The mail.
        mail: Mail,
    },
    /// The store changed.
    Directory(Arc<Directory>),
    /// Everything was fed that the kernel held for this shard when `CaughtUp` was last fed: connections, bytes, ends,
    /// and space for sends. Deadlines of peers up to that time can be judged now (P-LIVE-6).
    CaughtUp,
    /// The time of `poll_timeout` has been reached (feeding it early does no harm).
    Timeout,
    /// The process will end: drain (P-CLOSE-1).
    Drain,
}

/// A request of a shard to its driver.
#[derive(Debug)]
pub enum Output {
    /// End the connection, then feed `Closed`. Unsent bytes of the socket are still delivered unless `reset`.
    Close {
        /// The connection.
        connection: ConnectionKey,
        /// Send RST: the peer is not reading anyway.
        reset: bool,
    },
    /// Send FIN once all lent bytes are accepted, and continue to read (lingering close, P-HTTP-16).
    ShutdownWrite {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Stop reading from it: it has too much unsent already.
    Pause {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Read from it again; bytes may already be waiting.
    Resume {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Deliver to another shard.
    Mail {
        /// The recipient; never the sender itself.
        to: ShardIndex,
        /// The mail.
        mail: Mail,
    },
    /// A token was used successfully (R-TOKEN-4); the store writes it at most once a minute.
    TokenUsed {
        /// The token.
        token: TokenId,
        /// The time of use.
        at: Moment,
    },
    /// Change the store; the answer comes as [`Mail::changed`] from the shard to itself.
    Change(Change),
    /// Ask the authorizer of an app; the answer comes as [`Mail::authorized`] from the shard to itself.
    Authorize(Authorize),
    /// A replay of the admin API has ended.
    Replayed {
        /// The number of the call.
        call: u64,
        /// The body of the answer, or why nothing was published.
        outcome: ReplayOutcome,
    },
    /// An event for the webhook endpoints of the app (P-HOOK rules). The events of one channel come in order,
    /// all from the shard that owns it.
    Webhook(WebhookEvent),
    /// A client subscribed to a public channel whose name looks as if it were protected (R-CHAN-3): to be logged. At
    /// most once a second, and once for each of the last names.
    MisleadingName {
        /// The app of the channel.
        app: AppSerial,
        /// Its name, without control characters.
        channel: Arc<str>,
    },
    /// Messages of an app were counted (R-LIM-3); the store keeps the newest count, so that a restart continues with
    /// it.
    MessagesCounted {
        /// The app.
        app: AppSerial,
        /// Number of the day since 1970, in UTC.
        day: u64,
        /// All of that day so far.
        messages: u32,
    },
    /// Write a line about a refusal to the log.
    Log(Box<LogLine>),
    /// Measure the process and report it to [`super::Shard::handle_process_figures`]: a request needs it.
    MeasureProcess,
}

/// One send: bytes lent until `Sent` or `Closed` is fed for the connection.
#[derive(Debug)]
pub struct Flush<'a> {
    /// The connection.
    pub connection: ConnectionKey,
    /// At most `limits::SEND_BYTES_MAX` bytes, at least 1.
    pub bytes: &'a [u8],
}

/// A change of the store that a caller of the API requested, as an output.
#[derive(Debug)]
pub struct Change {
    /// Identifies it in its answer.
    pub id: AnswerId,
    /// The caller.
    pub actor: Actor,
    /// Id of the caller's app.
    pub app: Box<str>,
    /// The change.
    pub what: ChangeKind,
}

/// A question to the authorizer of an app, as an output.
#[derive(Debug)]
pub struct Authorize {
    /// Identifies it in its answer.
    pub id: AnswerId,
    /// The question.
    pub call: Arc<AuthorizerCall>,
}

/// The kinds of changes.
#[derive(Debug)]
pub enum ChangeKind {
    /// Create an endpoint.
    AddWebhook(NewWebhook),
    /// Remove the app's endpoint with this id.
    RemoveWebhook(Box<str>),
    /// Generate a master key for encrypted channels, and store it if true (R-AUTHEP-6).
    NewMasterKey(bool),
    /// Remove the stored one.
    RemoveMasterKey,
    /// Create a token.
    AddToken(NewToken),
    /// Revoke the app's token with this id.
    RevokeToken(Box<str>),
    /// No change: list the app's tokens, whose names and times only the store has.
    ListTokens,
}

impl ChangeKind {
    /// Whether the answer may be longer than the bytes that a connection may have unsent before its next request is
    /// begun.
    pub(in crate::shard) fn has_large_answer(&self) -> bool {
        match self {
            Self::ListTokens => true,
            Self::AddWebhook(_)
            | Self::RemoveWebhook(_)
            | Self::NewMasterKey(_)
            | Self::RemoveMasterKey
            | Self::AddToken(_)
            | Self::RevokeToken(_) => false,
        }
    }
}
