//! Occupied channels per app across shards (R-LIM-5): the app's counter records which channels are open, and a
//! channel's owner asks it before the first subscriber is recorded. Apps without the limit need no such request.

use std::collections::HashSet;

use foldhash::quality::FixedState;

use super::Quota;
use crate::app::AppSerial;
use crate::index::ShardIndex;
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, OwnerMessage, QuotaMessage};

/// The open channels of one app, at its counter.
#[derive(Debug, Default)]
pub(super) struct OpenChannels {
    /// By hash, which is keyed already: the set needs no secret of its own.
    hashes: HashSet<u64, FixedState>,
    /// All shards have been notified that there is no space for another one.
    full: bool,
}

/// Limit of occupied channels of an app; 0 means no limit.
pub(in crate::shard) fn channels_max(context: &Context, app: AppSerial) -> u32 {
    context.directory.app(app).map_or(0, |app| app.settings.max_channels)
}

impl Quota {
    /// A channel wants to open; the limit is the one known to its owner.
    pub(super) fn count_opening(
        &mut self,
        context: &mut Context,
        from: ShardIndex,
        channel: ChannelKey,
        channels_max: u32,
    ) {
        let hashes = &mut self.open_channels.entry(channel.app).or_default().hashes;
        let admitted = hashes.contains(&channel.hash) || hashes.len() < channels_max as usize;
        if admitted {
            hashes.insert(channel.hash);
        }
        self.report_if_full(context, channel.app);
        context.send(from, OwnerMessage::ChannelOpened { channel, admitted, channels_max });
    }

    /// Counts a channel that was open before the app had a limit.
    pub(super) fn count_open(&mut self, context: &mut Context, app: AppSerial, hash: u64) {
        self.open_channels.entry(app).or_default().hashes.insert(hash);
        self.report_if_full(context, app);
    }

    /// Counts a vacated channel.
    pub(super) fn count_closing(&mut self, context: &mut Context, app: AppSerial, hash: u64) {
        if let Some(open) = self.open_channels.get_mut(&app) {
            open.hashes.remove(&hash);
            self.report_if_full(context, app);
        }
    }

    /// Notifies all shards when there is no longer space for another channel, or space again.
    fn report_if_full(&mut self, context: &mut Context, app: AppSerial) {
        let channels_max = channels_max(context, app) as usize;
        let Some(open) = self.open_channels.get_mut(&app) else { return };
        let full = channels_max > 0 && open.hashes.len() >= channels_max;
        let changed = std::mem::replace(&mut open.full, full) != full;
        if open.hashes.is_empty() {
            self.open_channels.remove(&app);
        }
        if changed {
            for to in 0..context.config.shards {
                context.send(to, QuotaMessage::ChannelsFull { app, full });
            }
        }
    }

    /// Publishes of the app ask its counter from now on, or no longer do.
    pub(super) fn handle_channels_full(&mut self, app: AppSerial, full: bool) {
        if full {
            self.full_apps.insert(app);
        } else {
            self.full_apps.remove(&app);
        }
    }

    /// True when publishes of the app have to ask its counter whether their channels are open.
    pub(in crate::shard) fn has_all_channels(&self, app: AppSerial) -> bool {
        self.full_apps.contains(&app)
    }

    /// True unless the app is at its limit and one of these channels would be an additional one.
    pub(super) fn channels_are_open(&self, app: AppSerial, channels: &[u64]) -> bool {
        let full = self.open_channels.get(&app).filter(|open| open.full);
        full.is_none_or(|open| channels.iter().all(|hash| open.hashes.contains(hash)))
    }

    /// The store changed: apps that were at their limit may have space, and vice versa.
    pub(super) fn report_which_are_full(&mut self, context: &mut Context) {
        let apps: Vec<AppSerial> = self.open_channels.keys().copied().collect();
        for app in apps {
            self.report_if_full(context, app);
        }
    }
}
