//! `subscription_count` (P-COUNT-1, P-OUT-8): the subscribers of a channel are told how many they are.
//!
//! The owner tells, behind its answer to a join, so that a new subscriber gets the count after `succeeded` and the
//! cached event (P-SUB-1). Joins and leaves of one shard that are recorded together are told together. Large channels
//! are told at most once per interval; the last count is always told.

use smallvec::SmallVec;

use super::deliver::text_frame;
use super::mail::{Body, ChannelKey};
use super::{Shard, ShardIndex};
use crate::limits;
use crate::protocol::server_event;
use crate::protocol::webhook::Happened;

/// What the subscribers of a channel were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Until then a large channel is not told again, in ms of the monotonic clock; an entry of the queue stands for it.
    rests_until_ms: u64,
    /// They do not know of the last change yet.
    owed: bool,
    /// Webhooks do not know of it yet either.
    webhook_owed: bool,
}

/// Why a count is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CountCause {
    /// It is another one.
    Changed,
    /// It is the same, and somebody does not know it.
    Asked,
}

impl Shard {
    /// As owner: the number of subscribers of a public or private channel changed, or a new one wants to know it.
    /// Webhooks are told of changes alone, and also of the last one to zero (P-HOOK-5).
    pub(super) fn tell_count(&mut self, channel: &ChannelKey, cause: CountCause) {
        if !self.directory.app(channel.app).is_some_and(|app| app.settings.subscription_count) {
            return;
        }
        let Some(index) = self.find_owned(channel).filter(|&index| self.owned[index].subscriber_count() > 0) else {
            if cause == CountCause::Changed {
                self.tell(channel, Happened::SubscriptionCount(0));
            }
            return;
        };
        let now_ms = self.now.monotonic_ms;
        let owned = &mut self.owned[index];
        let is_large = owned.subscriber_count() > limits::COUNT_AT_ONCE_MAX;
        let told = owned.more().told.get_or_insert_default();
        told.webhook_owed |= cause == CountCause::Changed;
        if is_large && told.rests_until_ms > now_ms {
            told.owed = true;
        } else {
            self.send_count(index);
        }
    }

    /// Tells the channels whose rest is over and whose count changed meanwhile.
    pub(super) fn tell_counts_due(&mut self) {
        let now_ms = self.now.monotonic_ms;
        while let Some((_, channel)) = self.counts_due.pop_front_if(|(at_ms, _)| *at_ms <= now_ms) {
            let Some(index) = self.find_owned(&channel) else { continue };
            // A channel that went and came again owes for itself alone.
            if self.owned[index].told().is_some_and(|told| told.owed && told.rests_until_ms <= now_ms) {
                self.tell_count(&channel, CountCause::Asked);
            }
        }
    }

    /// Sends the count to all subscribers. Where there is no credit it is owed until the rest is over: a count that
    /// comes late is no gap, since it replaces those before it.
    fn send_count(&mut self, index: usize) {
        let (channel, count) = (self.owned[index].key().clone(), self.owned[index].subscriber_count());
        let frame = text_frame(&mut self.scratch, |out| {
            server_event::encode_subscription_count(out, &channel.name, count);
        });
        let (app, mut owed) = (channel.app.0, false);
        let shards: SmallVec<[ShardIndex; 8]> = self.owned[index].recipients().collect();
        for to in shards {
            let cost = (frame.len() + limits::MAIL_COST_BYTES) as u32;
            let body =
                Body::Deliver { channel: channel.clone(), frame: frame.clone(), exclude: None, accepted_us: 0, cost };
            owed |= self.send_paid(to, app, body).is_err();
        }
        let now_ms = self.now.monotonic_ms;
        let told = self.owned[index].more().told.get_or_insert_default();
        told.owed = owed;
        let webhook_owed = std::mem::take(&mut told.webhook_owed);
        if (owed || count > limits::COUNT_AT_ONCE_MAX) && told.rests_until_ms <= now_ms {
            told.rests_until_ms = now_ms + limits::COUNT_INTERVAL_MS;
            self.counts_due.push_back((told.rests_until_ms, channel.clone()));
        }
        if webhook_owed {
            self.tell(&channel, Happened::SubscriptionCount(count));
        }
    }
}
