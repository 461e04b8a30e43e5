//! Mail between shards, and of a shard to itself: messages, and the credit that bounds those that contain events.

mod credit;
mod key;
mod message;
mod question;

use std::collections::VecDeque;

pub(super) use key::{ChannelKey, ConnectionRef, PendingId, UserKey};
pub(super) use message::{
    ChannelMessage, ConnectionMessage, Continued, HistoryAnswer, HttpMessage, Join, JoinRefusal, MetricsMessage, OnGap,
    OwnerMessage, PolledChannel, PolledPart, PublishItem, QuotaMessage, Reader, Resumed, ShardMessage, Ticket,
    UserMessage, publish_cost,
};
pub use question::{AnswerId, ChangeRefused, Changed, ReplayCall, ReplayOutcome};
pub(super) use question::{
    FoundEvent, Listed, Question, Reply, Report, RosterPages, Shortage, SocketVerdict, WantedEvent,
};

use crate::api::authorizer::Decision;
use crate::index::ShardIndex;
use crate::limits;

use credit::Credit;

/// One mail. Opaque to drivers.
#[derive(Debug)]
pub struct Mail(pub(super) ShardMessage);

impl Mail {
    /// The answer to a change, for the shard that asked; it arrives as if that shard had sent it.
    pub fn changed(id: AnswerId, changed: Changed) -> Self {
        Self(HttpMessage::Changed { request: id.request, changed }.into())
    }

    /// The decisions of an authorizer, one per subject; they arrive as if the shard that asked had sent them.
    pub fn authorized(id: AnswerId, decisions: Vec<Decision>) -> Self {
        Self(HttpMessage::Authorized { request: id.request, decisions }.into())
    }

    /// A call of the admin API, for any shard; it arrives as if that shard had sent it.
    pub fn replay(call: ReplayCall) -> Self {
        Self(HttpMessage::Replay(Box::new(call)).into())
    }
}

#[cfg(test)]
impl Mail {
    /// Some mail, for tests of the code that transports it.
    pub(crate) fn any() -> Self {
        Self(ShardMessage::Credit { bytes: 1 })
    }
}

/// Mail of a shard to itself, and its credit with the others.
pub(super) struct Mailer {
    /// Mail to itself, handled before an input is complete.
    own: VecDeque<ShardMessage>,
    /// Credit for event mail with each shard.
    credit: Vec<Credit>,
    /// Credit to return to each shard, in bytes.
    returnable: Vec<usize>,
}

/// Credit is returned in portions of at least this, so that only little of it is ever in flight.
const CREDIT_PORTION_BYTES: usize = limits::EVENT_MAIL_BYTES_MAX / 8;

impl Mailer {
    pub(super) fn new(shards: ShardIndex) -> Self {
        let shards = usize::from(shards);
        Self { own: VecDeque::new(), credit: (0..shards).map(|_| Credit::new()).collect(), returnable: vec![0; shards] }
    }

    pub(super) fn push_own(&mut self, message: ShardMessage) {
        self.own.push_back(message);
    }

    pub(super) fn pop_own(&mut self) -> Option<ShardMessage> {
        self.own.pop_front()
    }

    /// True when the shard has handled all mail to itself.
    pub(super) fn is_own_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// Whether an app has credit for mail of this cost.
    pub(super) fn covers(&self, to: ShardIndex, app: u32, cost: usize) -> bool {
        self.credit[usize::from(to)].covers(app, cost.min(limits::EVENT_MAIL_BYTES_MAX / 2))
    }

    /// Takes credit if it covers the cost.
    pub(super) fn pay(&mut self, to: ShardIndex, app: u32, cost: usize) -> bool {
        self.credit[usize::from(to)].pay(app, cost)
    }

    /// A shard has handled mail of this cost.
    pub(super) fn handle_credit(&mut self, from: ShardIndex, bytes: usize) {
        self.credit[usize::from(from)].give_back(bytes);
    }

    /// Mail of this cost was received; its credit has to be returned.
    pub(super) fn note_received(&mut self, from: ShardIndex, cost: usize) {
        self.returnable[usize::from(from)] += cost;
    }

    /// Takes the credit to return to a shard, once it is a portion.
    pub(super) fn take_returnable(&mut self, to: ShardIndex) -> Option<usize> {
        let returnable = &mut self.returnable[usize::from(to)];
        (*returnable >= CREDIT_PORTION_BYTES).then(|| std::mem::take(returnable))
    }

    /// Takes all credit with a shard; returns it when called again with the result.
    #[cfg(test)]
    pub(super) fn swap_credit(&mut self, to: ShardIndex, credit: &mut Option<Credit>) {
        let other = credit.take().unwrap_or_else(Credit::none);
        *credit = Some(std::mem::replace(&mut self.credit[usize::from(to)], other));
    }

    /// Credit to return to a shard, in bytes.
    #[cfg(test)]
    pub(super) fn returnable(&self, to: ShardIndex) -> usize {
        self.returnable[usize::from(to)]
    }
}
