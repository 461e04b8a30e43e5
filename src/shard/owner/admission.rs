//! The owner's part in an app's limit of occupied channels (R-LIM-5): before the first subscriber of a channel is
//! recorded, the owner asks the app's counter.

use super::Owner;
use crate::app::{AppSerial, Directory};
use crate::index::{OwnedIndex, ShardIndex};
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, ChannelMessage, Join, JoinRefusal, OwnerMessage, QuotaMessage, Reader};
use crate::shard::quota::{Quota, channels_max};

/// Whether a channel counts towards its app's limit, at its owner.
///
/// ```text
/// Uncounted -- first subscriber --> Asked -- admitted --> Counted
///     ^                               |                      |
///     +---------- refused ------------+------ vacated -------+
/// ```
#[derive(Debug, Default)]
pub(super) enum ChannelAdmission {
    /// The channel is unoccupied, or the app has no such limit.
    #[default]
    Uncounted,
    /// The counter has been asked; these joins wait for its answer.
    Asked(Vec<(ShardIndex, OwnerMessage)>),
    /// It is among the app's open channels.
    Counted,
}

impl Owner {
    /// True when a join must wait until the app's counter has admitted the channel.
    pub(super) fn must_open(&self, context: &Context, channel: &ChannelKey) -> bool {
        if channels_max(context, channel.app) == 0 {
            return false;
        }
        self.find(channel).is_none_or(|index| self.channels[index].must_open())
    }

    /// Keeps a join until the counter has answered.
    pub(super) fn hold_join(
        &mut self,
        context: &mut Context,
        channel: &ChannelKey,
        from: ShardIndex,
        join: OwnerMessage,
    ) {
        let index = self.find_or_insert(channel);
        let admission = &mut self.channels[index].cold_or_default().admission;
        if let ChannelAdmission::Asked(held) = admission {
            held.push((from, join));
            return;
        }
        *admission = ChannelAdmission::Asked(vec![(from, join)]);
        let channels_max = channels_max(context, channel.app);
        context.send(
            context.counter_of(channel.app),
            QuotaMessage::OpenChannel { channel: channel.clone(), channels_max },
        );
    }

    /// The counter has answered.
    pub(super) fn handle_channel_opened(
        &mut self,
        context: &mut Context,
        quota: &Quota,
        channel: &ChannelKey,
        admitted: bool,
        channels_max: u32,
    ) {
        let index = self.find(channel).expect("a channel stays while its admission is awaited");
        let admission = &mut self.channels[index].cold_or_default().admission;
        let before = std::mem::replace(
            admission,
            if admitted { ChannelAdmission::Counted } else { ChannelAdmission::Uncounted },
        );
        let ChannelAdmission::Asked(held) = before else { return };
        for (from, join) in held {
            if admitted {
                self.handle(context, quota, from, join);
            } else {
                self.refuse_join(context, from, join, channels_max);
            }
        }
        if let Some(index) = self.find(channel) {
            self.forget_if_unused(context, index);
        }
    }

    /// The app has its maximum of channels: the shard of the joiner is notified.
    fn refuse_join(&self, context: &mut Context, from: ShardIndex, join: OwnerMessage, channels_max: u32) {
        if let OwnerMessage::Join { channel, join: Join { ticket, .. } } = join {
            let refusal = JoinRefusal::Channels(channels_max);
            context.send(from, ChannelMessage::JoinRefused { channel, ticket, refusal });
        } else if let OwnerMessage::Observe { channel, reader: Reader { ticket, .. } } = join {
            let refusal = JoinRefusal::Channels(channels_max);
            context.send(from, ChannelMessage::JoinRefused { channel, ticket, refusal });
        } else if let OwnerMessage::Subscribers { channel, .. } = join {
            context.send(from, ChannelMessage::Unrecorded { channel, channels_max });
        }
    }

    /// The store changed: channels of apps that have a limit now, and had none before, are reported to their counter.
    pub(super) fn count_channels_of_limited_apps(&mut self, context: &mut Context, before: &Directory) {
        let limited = |app: AppSerial| {
            let limit = |directory: &Directory| directory.app(app).map_or(0, |app| app.settings.max_channels);
            limit(before) == 0 && limit(&context.directory) > 0
        };
        if !context.directory.apps().any(|app| limited(app.serial)) {
            return;
        }
        let uncounted = self.channels.iter().filter(|(_, owned)| limited(owned.key().app) && owned.is_uncounted());
        let indices: Vec<OwnedIndex> = uncounted.map(|(index, _)| index).collect();
        for index in indices {
            let owned = &mut self.channels[index];
            owned.cold_or_default().admission = ChannelAdmission::Counted;
            let (app, hash) = (owned.key().app, owned.key().hash);
            context.send(context.counter_of(app), QuotaMessage::ChannelOpen { app, hash });
        }
    }
}
