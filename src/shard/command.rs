//! What an authenticated request asks of the shard, in full and owned, so that it can wait for its app's allowance.

use std::sync::Arc;

use smallvec::SmallVec;

use super::gather::Question;
use super::mail::PublishItem;
use super::request::{JSON, Response};
use super::{ChangeKind, Shard, ShardIndex};
use crate::api::answer::AnswerShape;
use crate::api::info::Info;
use crate::api::refusal::Refusal;
use crate::app::AppSerial;
use crate::connection::ConnectionKey;
use crate::limits::SMALL_ANSWER_CHANNELS_MAX;
use crate::protocol::dialect::Dialect;

/// A request that is understood and valid.
pub(super) enum Command {
    /// Publish all of it or nothing.
    Publish(Events, AnswerShape),
    /// Ask the one shard that knows.
    Ask(Question),
    /// List the channels of the app whose names begin so.
    List(AppSerial, Arc<str>, Info),
    /// Change what the store has of the app with this id.
    Change(Box<str>, ChangeKind),
    /// Tell what is known already: the body of the answer.
    Tell(Vec<u8>),
}

/// What a request publishes.
pub(super) struct Events {
    /// The app that it publishes to.
    pub(super) app: AppSerial,
    /// Those that somebody may hear.
    pub(super) by_owner: OwnerItems,
    /// How many others there are.
    pub(super) unheard: u32,
}

/// Events by the shard that owns their channels.
pub(super) type OwnerItems = SmallVec<[(ShardIndex, Vec<PublishItem>); 4]>;

/// Where the answer to a request goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) connection: ConnectionKey,
    /// Its place in the order of the connection's answers.
    pub(super) ticket: u32,
    pub(super) dialect: Dialect,
}

impl Command {
    /// Messages that it publishes: one per event and channel (R-LIM-3).
    pub(super) fn messages(&self) -> u32 {
        match self {
            Self::Publish(events, _) => {
                let heard: usize = events.by_owner.iter().map(|(_, items)| items.len()).sum();
                heard as u32 + events.unheard
            }
            Self::Ask(_) | Self::List(..) | Self::Change(..) | Self::Tell(_) => 0,
        }
    }

    /// Whether its answer may be long, so that requests behind it on its connection wait until it is sent: what one
    /// connection is owed stays bounded however many it pipelines (P-CLOSE-5).
    pub(super) fn has_large_answer(&self) -> bool {
        match self {
            Self::Publish(_, shape) => !shape.needs_no_counts() && self.messages() > SMALL_ANSWER_CHANNELS_MAX,
            Self::Ask(question) => question.has_large_answer(),
            Self::List(..) => true,
            // Answered at once, or short.
            Self::Tell(_) | Self::Change(..) => false,
        }
    }

    /// Hashes of the channels that it publishes to.
    pub(super) fn channel_hashes(&self) -> Vec<u64> {
        match self {
            Self::Publish(events, _) => {
                events.by_owner.iter().flat_map(|(_, items)| items.iter().map(|item| item.channel.hash)).collect()
            }
            Self::Ask(_) | Self::List(..) | Self::Change(..) | Self::Tell(_) => Vec::new(),
        }
    }
}

impl Shard {
    /// Does what a request asks.
    ///
    /// # Errors
    /// 503 when the server is overloaded; nothing was done then.
    pub(super) fn carry_out(&mut self, place: Place, command: Command) -> Result<(), Refusal> {
        match command {
            Command::Publish(events, shape) => self.publish(place, events, shape),
            Command::Ask(question) => {
                self.ask(place, question);
                Ok(())
            }
            Command::List(app, prefix, info) => self.ask_channels(place, app, prefix, info),
            Command::Change(app, what) => self.ask_change(place, app, what),
            Command::Tell(body) => {
                let response = Response { status: 200, content_type: JSON, extra: "", body: &body };
                self.finish_request(place.connection, place.ticket, &response);
                Ok(())
            }
        }
    }

    /// Answers a request that was refused after it had its place.
    pub(super) fn answer_place(&mut self, place: Place, refusal: &Refusal) {
        let (content_type, body) = place.dialect.error_body(refusal.status, &refusal.message);
        let extra = refusal.header_lines();
        let response = Response { status: refusal.status, content_type, extra: &extra, body: &body };
        self.finish_request(place.connection, place.ticket, &response);
    }
}
