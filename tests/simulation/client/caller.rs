//! An HTTP client: pipelines requests and matches the answers to them in order.

use std::collections::VecDeque;

use super::responses::ResponseReader;
use crate::reference::{Group, Tick};
use crate::replays::Wanted;

/// The format of errors (R-ERR-1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ErrorStyle {
    /// Text and a newline.
    Text,
    /// JSON with `error` and `message`.
    Json,
    /// Not an API response: not checked.
    Any,
}

/// The contents of a 200.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    /// `{}` (P-HTTP-1, P-HTTP-2).
    Nothing,
    /// Counts of these channels, each with the values at rest: subscriptions and, on presence channels, users. `None`
    /// while the run moves.
    Counts(Vec<String>),
    /// All occupied channels of the app with their counts (P-HTTP-3).
    Listed,
    /// Which of these events were published again (R-REPLAY-1).
    Replayed(Vec<Wanted>),
    /// Some text, or the answer to a reader.
    Text,
}

/// A request whose answer is pending.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    /// The expected statuses.
    pub(crate) statuses: Vec<u16>,
    /// Statuses that are also accepted if the store changed around the request.
    pub(crate) statuses_in_flux: Vec<u16>,
    /// Events that it publishes.
    pub(crate) groups: Vec<Group>,
    /// When its first byte was sent.
    pub(crate) started: Tick,
    /// The app.
    pub(crate) app: usize,
    /// The answer has no body (HEAD).
    pub(crate) no_body: bool,
    /// The format of an error.
    pub(crate) error_style: ErrorStyle,
    /// The contents of a 200.
    pub(crate) told: Told,
    /// The server closes after the answer.
    pub(crate) last: bool,
    /// Counts must match the model's exactly.
    pub(crate) at_rest: bool,
    /// The user whose connections it ends.
    pub(crate) ends: Option<String>,
    /// The token that was used.
    pub(crate) token: Option<String>,
}

/// An HTTP client.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Its wire.
    pub(crate) wire: usize,
    /// Requests whose answers are pending, oldest first.
    pub(crate) owed: VecDeque<Owed>,
    /// Nothing more may be sent.
    pub(crate) ended: bool,
    /// The end of the stream was read, or the client tore the connection down.
    pub(crate) gone: bool,
    /// The server may end the connection with answers pending.
    pub(crate) may_vanish: bool,
    /// The client currently does not read.
    pub(crate) stalled: bool,
    /// Since when half a request has been in flight, on the monotonic clock in ms.
    pub(crate) dangling_since_ms: Option<u64>,
    /// Answers.
    pub(crate) responses: ResponseReader,
}

impl Caller {
    /// A client on a new connection.
    pub(crate) fn new(wire: usize) -> Self {
        Self {
            wire,
            owed: VecDeque::new(),
            ended: false,
            gone: false,
            may_vanish: false,
            stalled: false,
            dangling_since_ms: None,
            responses: ResponseReader::default(),
        }
    }

    /// True while requests may be sent.
    pub(crate) fn can_talk(&self) -> bool {
        !self.ended && !self.gone
    }
}
