//! Occupied channels per app across shards (R-LIM-5): the app's counter knows which channels are open, and a channel's
//! owner asks it before the first subscriber is recorded. Apps without the limit ask nobody.

use std::collections::HashSet;

use foldhash::quality::FixedState;

use super::mail::{Body, ChannelKey, Full};
use super::{Shard, ShardIndex};
use crate::app::{AppSerial, Directory};

/// How a channel stands with its app's limit, at its owner.
///
/// ```text
/// Uncounted -- first subscriber --> Asked -- admitted --> Counted
///     ^                               |                      |
///     +---------- refused ------------+------ vacated -------+
/// ```
#[derive(Debug, Default)]
pub(super) enum Opening {
    /// Nobody is there, or the app has no such limit.
    #[default]
    Uncounted,
    /// The counter is asked; these joins wait for its answer.
    Asked(Vec<(ShardIndex, Body)>),
    /// It is among the app's open channels.
    Counted,
}

/// The open channels of one app, at its counter.
#[derive(Debug, Default)]
pub(super) struct OpenChannels {
    /// By hash, which is keyed already: the set needs no secret of its own.
    hashes: HashSet<u64, FixedState>,
    /// All shards were told that there is no room for another.
    full: bool,
}

impl Shard {
    /// As owner: true when a join must wait until the app's counter has admitted the channel.
    pub(super) fn must_open(&self, channel: &ChannelKey) -> bool {
        if self.channels_max(channel.app) == 0 {
            return false;
        }
        self.find_owned(channel).is_none_or(|index| self.owned[index].must_open())
    }

    fn channels_max(&self, app: AppSerial) -> u32 {
        self.directory.app(app).map_or(0, |app| app.settings.max_channels)
    }

    /// As owner: keeps a join until the counter has answered.
    pub(super) fn hold_join(&mut self, channel: &ChannelKey, from: ShardIndex, join: Body) {
        let index = self.owned_index(channel);
        let opening = &mut self.owned[index].more().opening;
        if let Opening::Asked(held) = opening {
            held.push((from, join));
            return;
        }
        *opening = Opening::Asked(vec![(from, join)]);
        let channels_max = self.channels_max(channel.app);
        self.send(self.counter_of(channel.app), Body::OpenChannel { channel: channel.clone(), channels_max });
    }

    /// As owner: the counter has answered.
    pub(super) fn handle_channel_opened(&mut self, channel: &ChannelKey, admitted: bool, channels_max: u32) {
        let index = self.find_owned(channel).expect("a channel stays while its opening is under way");
        let opening = &mut self.owned[index].more().opening;
        let before = std::mem::replace(opening, if admitted { Opening::Counted } else { Opening::Uncounted });
        let Opening::Asked(held) = before else { return };
        for (from, join) in held {
            if admitted {
                self.dispatch(from, join);
            } else {
                self.refuse_join(from, join, channels_max);
            }
        }
        if let Some(index) = self.find_owned(channel) {
            self.forget_if_unused(index);
        }
    }

    /// Tells the shard of a joiner that the app has as many channels as it may have.
    fn refuse_join(&mut self, from: ShardIndex, join: Body, channels_max: u32) {
        if let Body::Join { channel, ticket, .. } = join {
            self.send(from, Body::JoinRefused { channel, ticket, full: Full::Channels(channels_max) });
        } else if let Body::Subscribers { channel, .. } = join {
            self.send(from, Body::Unrecorded { channel, channels_max });
        }
    }

    /// As counter: a channel wants to open; the limit is the one that its owner knows.
    pub(super) fn count_opening(&mut self, from: ShardIndex, channel: ChannelKey, channels_max: u32) {
        let hashes = &mut self.open_channels.entry(channel.app).or_default().hashes;
        let admitted = hashes.contains(&channel.hash) || hashes.len() < channels_max as usize;
        if admitted {
            hashes.insert(channel.hash);
        }
        self.tell_if_full(channel.app);
        self.send(from, Body::ChannelOpened { channel, admitted, channels_max });
    }

    /// As counter: a channel was open before the app had a limit.
    pub(super) fn count_open(&mut self, app: AppSerial, hash: u64) {
        self.open_channels.entry(app).or_default().hashes.insert(hash);
        self.tell_if_full(app);
    }

    /// As counter: a channel was vacated.
    pub(super) fn count_closing(&mut self, app: AppSerial, hash: u64) {
        if let Some(open) = self.open_channels.get_mut(&app) {
            open.hashes.remove(&hash);
            self.tell_if_full(app);
        }
    }

    /// As counter: tells all shards when there is no room for another channel any more, or room again.
    fn tell_if_full(&mut self, app: AppSerial) {
        let channels_max = self.channels_max(app) as usize;
        let Some(open) = self.open_channels.get_mut(&app) else { return };
        let full = channels_max > 0 && open.hashes.len() >= channels_max;
        let changed = std::mem::replace(&mut open.full, full) != full;
        if open.hashes.is_empty() {
            self.open_channels.remove(&app);
        }
        if changed {
            for to in 0..self.config.shards {
                self.send(to, Body::ChannelsFull { app, full });
            }
        }
    }

    /// Publishes of the app ask its counter from now on, or no longer.
    pub(super) fn handle_channels_full(&mut self, app: AppSerial, full: bool) {
        if full {
            self.full_apps.insert(app);
        } else {
            self.full_apps.remove(&app);
        }
    }

    /// As counter: true unless the app is at its limit and one of these channels would be another one.
    pub(super) fn channels_are_open(&self, app: AppSerial, channels: &[u64]) -> bool {
        let full = self.open_channels.get(&app).filter(|open| open.full);
        full.is_none_or(|open| channels.iter().all(|hash| open.hashes.contains(hash)))
    }

    /// The store changed: channels of apps that have a limit now, and had none before, are made known to their counter.
    pub(super) fn count_channels_of_limited_apps(&mut self, before: &Directory) {
        let limited = |app: AppSerial| {
            let limit = |directory: &Directory| directory.app(app).map_or(0, |app| app.settings.max_channels);
            limit(before) == 0 && limit(&self.directory) > 0
        };
        if !self.directory.apps().any(|app| limited(app.serial)) {
            return;
        }
        let uncounted = self.owned.iter().filter(|(_, owned)| limited(owned.key().app) && owned.is_uncounted());
        let indices: Vec<usize> = uncounted.map(|(index, _)| index).collect();
        for index in indices {
            let owned = &mut self.owned[index];
            owned.more().opening = Opening::Counted;
            let (app, hash) = (owned.key().app, owned.key().hash);
            self.send(self.counter_of(app), Body::ChannelOpen { app, hash });
        }
    }

    /// The store changed: what was full may have room, and the other way round.
    pub(super) fn tell_which_are_full(&mut self) {
        let apps: Vec<AppSerial> = self.open_channels.keys().copied().collect();
        for app in apps {
            self.tell_if_full(app);
        }
    }
}
