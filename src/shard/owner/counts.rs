//! `subscription_count` (P-COUNT-1, P-OUT-8): the subscribers of a channel are sent their number.
//!
//! The owner sends it, after its answer to a join, so that a new subscriber gets the count after `succeeded` and the
//! cached event (P-SUB-1). Joins and leaves of one shard that are recorded together are counted together. Large
//! channels get it at most once per interval; the last count is always sent.

use smallvec::SmallVec;

use super::{Owner, Source};
use crate::index::OwnedIndex;
use crate::limits;
use crate::protocol::server_event;
use crate::protocol::webhook::Happened;
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, ChannelMessage};

/// The state of the count of a channel.
#[derive(Debug, Default)]
pub(super) struct CountReport {
    /// Until this time a large channel gets no other count, in ms of the monotonic clock; it has an entry in the queue
    /// of due counts.
    rests_until_ms: u64,
    /// The last change is not sent yet.
    pending: bool,
    /// It is not reported to webhooks yet either.
    webhook_pending: bool,
}

/// Why a count is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CountCause {
    /// It has changed.
    Changed,
    /// It is the same, but a new subscriber does not have it yet.
    Asked,
}

impl Owner {
    /// The number of subscribers of a public or private channel changed, or a new one needs it. Webhooks report changes
    /// only, including the last one to zero (P-HOOK-5).
    pub(super) fn report_count(&mut self, context: &mut Context, channel: &ChannelKey, cause: CountCause) {
        if !context.directory.app(channel.app).is_some_and(|app| app.settings.subscription_count) {
            return;
        }
        let Some(index) = self.find(channel).filter(|&index| self.channels[index].subscriber_count() > 0) else {
            if cause == CountCause::Changed {
                self.notify(context, channel, Happened::SubscriptionCount(0));
            }
            return;
        };
        let now_ms = context.now.monotonic_ms;
        let owned = &mut self.channels[index];
        let is_large = owned.subscriber_count() > limits::COUNT_AT_ONCE_MAX;
        let report = owned.cold_or_default().count_report.get_or_insert_default();
        report.webhook_pending |= cause == CountCause::Changed;
        if is_large && report.rests_until_ms > now_ms {
            report.pending = true;
        } else {
            self.send_count(context, index);
        }
    }

    /// Reports the count to channels whose interval has ended and whose count changed meanwhile.
    pub(in crate::shard) fn report_counts_due(&mut self, context: &mut Context) {
        let now_ms = context.now.monotonic_ms;
        while let Some((_, channel)) = self.counts_due.pop_front_if(|(at_ms, _)| *at_ms <= now_ms) {
            let Some(index) = self.find(&channel) else { continue };
            // A channel that was removed and created again has its own time.
            if self.channels[index]
                .count_report()
                .is_some_and(|report| report.pending && report.rests_until_ms <= now_ms)
            {
                self.report_count(context, &channel, CountCause::Asked);
            }
        }
    }

    /// Sends the count to all subscribers. Where there is no credit it is sent at the end of the interval: a late count
    /// is not a gap, since it replaces those before it.
    fn send_count(&mut self, context: &mut Context, index: OwnedIndex) {
        let (channel, count) = (self.channels[index].key().clone(), self.channels[index].subscriber_count());
        let frame = context.text_frame(|out| {
            server_event::encode_subscription_count(out, &channel.name, count);
        });
        let (app, mut pending) = (channel.app.0, false);
        let recipients: SmallVec<[Source; 8]> = self.channels[index].recipients().collect();
        let cost = (frame.len() + limits::MAIL_COST_BYTES) as u32;
        for Source::Shard(to) in recipients {
            let event = ChannelMessage::Deliver {
                channel: channel.clone(),
                frame: frame.clone(),
                order: None,
                exclude: None,
                accepted_us: 0,
                cost,
            };
            pending |= context.send_paid(to, app, event).is_err();
        }
        let now_ms = context.now.monotonic_ms;
        let report = self.channels[index].cold_or_default().count_report.get_or_insert_default();
        report.pending = pending;
        let webhook_pending = std::mem::take(&mut report.webhook_pending);
        if (pending || count > limits::COUNT_AT_ONCE_MAX) && report.rests_until_ms <= now_ms {
            report.rests_until_ms = now_ms + limits::COUNT_INTERVAL_MS;
            self.counts_due.push_back((report.rests_until_ms, channel.clone()));
        }
        if webhook_pending {
            self.notify(context, &channel, Happened::SubscriptionCount(count));
        }
    }
}
