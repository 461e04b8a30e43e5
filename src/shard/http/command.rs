//! An authenticated request, parsed and owned, so that it can wait for permits of its app.

use std::sync::Arc;

use smallvec::SmallVec;

use super::authorizer::AuthorizerRequest;
use super::poll::PollCommand;
use super::response::ResponseSlot;
use super::stream::StreamCommand;
use super::{Parts, Requests};
use crate::api::answer::AnswerShape;
use crate::api::info::Info;
use crate::api::refusal::Refusal;
use crate::app::AppSerial;
use crate::app::actor::Actor;
use crate::index::ShardIndex;
use crate::limits::SMALL_ANSWER_CHANNELS_MAX;
use crate::shard::connections::{JSON, Response};
use crate::shard::io::ChangeKind;
use crate::shard::mail::{PublishItem, Question};

/// A parsed and valid request.
pub(super) enum Command {
    /// Publish all of it or none.
    Publish(Events, AnswerShape),
    /// Ask the one shard that has the answer.
    Ask(Question),
    /// List the channels of the app whose names have this prefix.
    List(AppSerial, Arc<str>, Info),
    /// Change the store's data of the app with this id, on behalf of the caller.
    Change(Box<str>, Actor, ChangeKind),
    /// Answer with this body.
    Answer(Vec<u8>),
    /// Answer an auth endpoint with this body and these header lines.
    Signed(Vec<u8>, Box<str>),
    /// Ask the app's authorizer.
    AskAuthorizer(Box<AuthorizerRequest>),
    /// Open a stream.
    Stream(Box<StreamCommand>),
    /// Hold a poll.
    Poll(Box<PollCommand>),
}

/// The events that a request publishes.
pub(super) struct Events {
    /// The app that it publishes to.
    pub(super) app: AppSerial,
    /// Events of channels that may be occupied.
    pub(super) by_owner: OwnerItems,
    /// The number of the others.
    pub(super) unoccupied: u32,
}

/// Events by the shard that owns their channels.
pub(super) type OwnerItems = SmallVec<[(ShardIndex, Vec<PublishItem>); 4]>;

impl Command {
    /// Messages that it publishes: one per event and channel (R-LIM-3).
    pub(super) fn messages(&self) -> u32 {
        match self {
            Self::Publish(events, _) => {
                let occupied: usize = events.by_owner.iter().map(|(_, items)| items.len()).sum();
                occupied as u32 + events.unoccupied
            }
            Self::Ask(_)
            | Self::List(..)
            | Self::Change(..)
            | Self::Answer(_)
            | Self::Signed(..)
            | Self::AskAuthorizer(_)
            | Self::Stream(_)
            | Self::Poll(_) => 0,
        }
    }

    /// Whether its answer may be long, so that requests behind it on its connection wait until it is sent: the unsent
    /// bytes of one connection stay bounded however many requests it pipelines (P-CLOSE-5).
    pub(super) fn has_large_answer(&self) -> bool {
        match self {
            Self::Publish(_, shape) => !shape.needs_no_counts() && self.messages() > SMALL_ANSWER_CHANNELS_MAX,
            Self::Ask(question) => question.has_large_answer(),
            // What follows a stream is not HTTP.
            Self::List(..) | Self::Stream(_) | Self::Poll(_) => true,
            // Answered at once, or short.
            Self::Answer(_) | Self::Signed(..) | Self::AskAuthorizer(_) => false,
            Self::Change(_, _, what) => what.has_large_answer(),
        }
    }

    /// Header lines that its answer has, also if it is refused.
    pub(super) fn answer_headers(&self) -> &str {
        match self {
            Self::Signed(_, headers) => headers,
            Self::AskAuthorizer(request) => &request.headers,
            Self::Stream(command) => &command.headers,
            Self::Poll(command) => &command.headers,
            Self::Publish(..) | Self::Ask(_) | Self::List(..) | Self::Change(..) | Self::Answer(_) => "",
        }
    }

    /// Hashes of the channels that it publishes to.
    pub(super) fn channel_hashes(&self) -> Vec<u64> {
        match self {
            Self::Publish(events, _) => {
                events.by_owner.iter().flat_map(|(_, items)| items.iter().map(|item| item.channel.hash)).collect()
            }
            Self::Ask(_)
            | Self::List(..)
            | Self::Change(..)
            | Self::Answer(_)
            | Self::Signed(..)
            | Self::AskAuthorizer(_)
            | Self::Stream(_)
            | Self::Poll(_) => Vec::new(),
        }
    }
}

impl Requests {
    /// Executes a request.
    ///
    /// # Errors
    /// 503 when the server is overloaded; nothing was done then.
    pub(super) fn execute(
        &mut self,
        parts: &mut Parts<'_>,
        reply_to: ResponseSlot,
        command: Command,
    ) -> Result<(), Refusal> {
        match command {
            Command::Publish(events, shape) => self.publish(parts, reply_to, events, shape),
            Command::Ask(question) => {
                self.ask(parts, reply_to, question);
                Ok(())
            }
            Command::List(app, prefix, info) => self.ask_channels(parts, reply_to, app, prefix, info),
            Command::Change(app, actor, what) => self.ask_change(parts, reply_to, app, actor, what),
            Command::Answer(body) => {
                let response = Response { status: 200, content_type: JSON, extra: "", body: &body };
                parts.connections.finish_request(parts.context, reply_to.connection, reply_to.ticket, &response);
                Ok(())
            }
            Command::Signed(body, headers) => {
                let response = Response { status: 200, content_type: JSON, extra: &headers, body: &body };
                parts.connections.finish_request(parts.context, reply_to.connection, reply_to.ticket, &response);
                Ok(())
            }
            Command::AskAuthorizer(request) => self.ask_authorizer(parts, reply_to, *request),
            Command::Stream(command) => {
                let headers = command.headers.clone();
                self.start_stream(parts, reply_to, *command).map_err(|refusal| refusal.with_headers(&headers))
            }
            Command::Poll(command) => {
                let headers = command.headers.clone();
                self.start_poll(parts, reply_to, *command).map_err(|refusal| refusal.with_headers(&headers))
            }
        }
    }

    /// Refuses a request that already has its `reply_to`.
    pub(super) fn refuse(&self, parts: &mut Parts<'_>, reply_to: ResponseSlot, refusal: &Refusal) {
        let (content_type, body) = reply_to.dialect.error_body(refusal.status, &refusal.message);
        let extra = refusal.header_lines();
        let response = Response { status: refusal.status, content_type, extra: &extra, body: &body };
        parts.connections.finish_request(parts.context, reply_to.connection, reply_to.ticket, &response);
    }
}
