//! An authenticated request, parsed and owned, so that it can wait for permits of its app.

use std::net::IpAddr;
use std::sync::Arc;

use super::authorizer::AuthorizerRequest;
use super::by_owner::ByOwner;
use super::poll::PollCommand;
use super::response::{ReplyTo, ResponseSlot};
use super::stream::StreamCommand;
use super::{Parts, Requests};
use crate::api::answer::AnswerShape;
use crate::api::info::Info;
use crate::api::refusal::Refusal;
use crate::api::replay::{Declassify, Replay};
use crate::app::AppSerial;
use crate::app::actor::Actor;
use crate::limits::SMALL_ANSWER_CHANNELS_MAX;
use crate::shard::connections::{JSON, Response};
use crate::shard::io::ChangeKind;
use crate::shard::mail::{PublishItem, Question};
use crate::shard::permits::{NONE, Permits, Window};

/// A parsed and valid request.
pub(super) enum Command {
    /// Publish all of it or none.
    Publish(Events, AnswerShape),
    /// Publish kept events again.
    Replay(Box<ReplayRequest>),
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

/// Permits that a request has spent, each with its window.
pub(super) type Counted = Vec<(Window, Permits)>;

/// A replay whose caller is known.
pub(super) struct ReplayRequest {
    /// The app of the events.
    pub(super) source: AppSerial,
    /// The app to publish to.
    pub(super) target: AppSerial,
    pub(super) replay: Replay,
    pub(super) declassify: Declassify,
    /// The address of the caller, for the log.
    pub(super) client: Option<IpAddr>,
    /// The permits of the request itself, which are returned if it is not executed.
    pub(super) counted: Counted,
}

/// The events that a request publishes.
pub(super) struct Events {
    /// The app that it publishes to.
    pub(super) app: AppSerial,
    /// Events of channels that may be occupied.
    pub(super) by_owner: ByOwner<PublishItem>,
    /// The number of the others.
    pub(super) unoccupied: u32,
}

impl Command {
    /// Messages that it publishes: one per event and channel (R-LIM-3).
    pub(super) fn messages(&self) -> u32 {
        match self {
            Self::Publish(events, _) => {
                let occupied: usize = events.by_owner.iter().map(|(_, items)| items.len()).sum();
                occupied as u32 + events.unoccupied
            }
            // They are counted once they are found.
            Self::Replay(_)
            | Self::Ask(_)
            | Self::List(..)
            | Self::Change(..)
            | Self::Answer(_)
            | Self::Signed(..)
            | Self::AskAuthorizer(_)
            | Self::Stream(_)
            | Self::Poll(_) => 0,
        }
    }

    /// The permits that it has spent, if it may still be refused later.
    pub(super) fn note_counted(&mut self, window: Window, permits: Permits) {
        if let Self::Replay(request) = self
            && permits != NONE
        {
            request.counted.push((window, permits));
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
            Self::Replay(_) | Self::Answer(_) | Self::Signed(..) | Self::AskAuthorizer(_) => false,
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
            Self::Publish(..)
            | Self::Replay(_)
            | Self::Ask(_)
            | Self::List(..)
            | Self::Change(..)
            | Self::Answer(_) => "",
        }
    }

    /// Hashes of the channels that it publishes to.
    pub(super) fn channel_hashes(&self) -> Vec<u64> {
        match self {
            Self::Publish(events, _) => {
                events.by_owner.iter().flat_map(|(_, items)| items.iter().map(|item| item.channel.hash)).collect()
            }
            Self::Replay(_)
            | Self::Ask(_)
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
        reply_to: ReplyTo,
        command: Command,
    ) -> Result<(), Refusal> {
        match command {
            Command::Publish(events, shape) => self.publish(parts, reply_to, events, shape),
            Command::Replay(request) => {
                self.start_replay(parts, reply_to, *request);
                Ok(())
            }
            Command::Ask(question) => {
                self.ask(parts, reply_to.slot(), question);
                Ok(())
            }
            Command::List(app, prefix, info) => self.ask_channels(parts, reply_to.slot(), app, prefix, info),
            Command::Change(app, actor, what) => self.ask_change(parts, reply_to.slot(), app, actor, what),
            Command::Answer(body) => {
                reply_to.answer(parts, &Response { status: 200, content_type: JSON, extra: "", body: &body });
                Ok(())
            }
            Command::Signed(body, headers) => {
                reply_to.answer(parts, &Response { status: 200, content_type: JSON, extra: &headers, body: &body });
                Ok(())
            }
            Command::AskAuthorizer(request) => self.ask_authorizer(parts, reply_to.slot(), *request),
            Command::Stream(command) => {
                let headers = command.headers.clone();
                self.start_stream(parts, reply_to.slot(), *command).map_err(|refusal| refusal.with_headers(&headers))
            }
            Command::Poll(command) => {
                let headers = command.headers.clone();
                self.start_poll(parts, reply_to.slot(), *command).map_err(|refusal| refusal.with_headers(&headers))
            }
        }
    }

    /// Refuses a request that already has its `reply_to`.
    pub(super) fn refuse(&self, parts: &mut Parts<'_>, reply_to: ResponseSlot, refusal: &Refusal) {
        ReplyTo::Connection(reply_to).refuse(parts, refusal);
    }
}
