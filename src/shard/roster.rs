//! Presence channels, the owner's side: who is there, and telling it (P-PRES rules). The joiner's side is `presence`.
//!
//! What changes in a roster within a turn is told together: those who were there get one piece of `member_added` and
//! `member_removed` frames, and then all who joined get one and the same `succeeded`, which has everybody. So a storm of
//! joins costs each subscriber one send per turn, and the roster is put together once, however many join on it.
//!
//! # Order
//! An event that the owner accepts after a change is told after it: whatever a channel has to tell goes out before the
//! event does. Those who wait for their `succeeded` are no subscribers yet and miss nothing (P-SUB-5).
//!
//! # Memory
//! The frame of a large roster is long, and a new one is made with every turn that somebody joins in. While too many
//! bytes of them wait to be sent, those who join wait too, at most `ROSTER_WAIT_MS_MAX`; then they share one frame.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::deliver::text_frame;
use super::mail::{Anywhere, Body, ChannelKey, Full, Ticket};
use super::{Shard, ShardIndex};
use crate::app::AppSerial;
use crate::channel::name::Modifiers;
use crate::channel::roster::{Joined, Left, Roster};
use crate::limits;
use crate::protocol::server_event;

/// What a presence channel has yet to tell.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Frames for those who are subscribed, in order, joined.
    changes: Vec<u8>,
    /// Those who wait for `succeeded`, in the order in which they asked.
    joiners: Vec<(ShardIndex, Ticket)>,
    /// When the first of them asked, in ms of the monotonic clock.
    since_ms: u64,
    /// The channel stands in [`Rosters::untold`].
    listed: bool,
    /// The channel stands in [`Rosters::held`].
    held: bool,
}

/// What a shard, as owner of presence channels, has to tell.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    /// Channels whose roster changed in this turn.
    untold: Vec<ChannelKey>,
    /// Channels whose joiners wait for memory, and when to try again.
    held: Vec<ChannelKey>,
    held_until_ms: u64,
    large: LargeRosters,
}

impl Rosters {
    /// When joiners that wait for memory are to be looked at.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (!self.held.is_empty()).then_some(self.held_until_ms)
    }
}

/// Frames of large rosters that somebody may still be sent. Thousands of channels may have joiners that wait for them, so
/// the frames are looked at once in a turn and not for each channel.
#[derive(Debug, Default)]
struct LargeRosters {
    frames: Vec<(AppSerial, Bytes)>,
    /// Bytes of these, as far as it is known, of all apps and by app.
    total: usize,
    by_app: BTreeMap<AppSerial, usize>,
}

impl LargeRosters {
    fn push(&mut self, app: AppSerial, frame: Bytes) {
        self.total += frame.len();
        *self.by_app.entry(app).or_default() += frame.len();
        self.frames.push((app, frame));
    }

    /// Forgets what was sent.
    fn forget_sent(&mut self) {
        if self.frames.is_empty() {
            return;
        }
        (self.total, self.by_app) = Default::default();
        for (app, frame) in std::mem::take(&mut self.frames) {
            if !frame.is_unique() {
                self.push(app, frame);
            }
        }
    }

    /// Whether an app has so many bytes unsent that those who join it wait: a multiple of what is free, so that large
    /// rosters of one app delay no joins of another (P-STAT-9).
    fn is_full(&self, app: AppSerial) -> bool {
        let own = self.by_app.get(&app).copied().unwrap_or(0);
        own > limits::ROSTER_BYTES_UNSENT_MAX.saturating_sub(self.total) * limits::APP_SHARE_OF_FREE
    }
}

impl Shard {
    /// A connection wants to join a presence channel (P-PRES-2).
    pub(super) fn own_join(
        &mut self,
        joiner: Anywhere,
        channel: ChannelKey,
        ticket: u32,
        user_id: Arc<str>,
        user_info: Option<Arc<str>>,
        members_max: u32,
    ) {
        let index = self.owned_index(&channel);
        let owned = &mut self.owned[index];
        let roster = owned.more().roster.get_or_insert_with(|| Roster::new(&self.config.boot_secret));
        let joined = roster.join(&user_id, user_info.as_ref(), members_max);
        if matches!(joined, Joined::Full | Joined::Large) {
            self.forget_if_unused(index);
            let full = if joined == Joined::Large { Full::Roster } else { Full::Members(members_max) };
            self.send(joiner.shard, Body::JoinRefused { channel, ticket, full });
            return;
        }
        owned.count_subscriber(joiner.shard);
        let count = owned.subscriber_count();
        self.note_occupancy(&channel, count - 1, count);
        if joined == Joined::First {
            self.note_member_added(&channel, &user_id);
        }
        let now_ms = self.now.monotonic_ms;
        let untold = self.untold(index);
        if untold.joiners.is_empty() {
            untold.since_ms = now_ms;
        }
        if joined == Joined::First {
            let added = text_frame(&mut self.scratch, |out| {
                server_event::encode_member_added(out, &channel.name, &user_id, user_info.as_deref());
            });
            self.untold(index).changes.extend_from_slice(&added);
        }
        let untold = self.untold(index);
        untold.joiners.push((joiner.shard, Ticket { number: ticket, user_id }));
        if untold.changes.len() > limits::ROSTER_CHANGES_BYTES_MAX {
            self.tell_changes(index);
        }
    }

    /// One connection of a member left.
    pub(super) fn own_leave(&mut self, from: ShardIndex, channel: &ChannelKey, user_id: &str) {
        let index = self.find_owned(channel).expect("a channel with members has state");
        let owned = &mut self.owned[index];
        owned.discount_subscriber(from);
        let count = owned.subscriber_count();
        let roster = owned.more().roster.as_mut().expect("a channel with members has a roster");
        if roster.leave(user_id) == Left::Last {
            let removed = text_frame(&mut self.scratch, |out| {
                server_event::encode_member_removed(out, &channel.name, user_id);
            });
            let untold = self.untold(index);
            untold.changes.extend_from_slice(&removed);
            if untold.changes.len() > limits::ROSTER_CHANGES_BYTES_MAX {
                self.tell_changes(index);
            }
            self.note_member_removed(channel, user_id);
        }
        self.note_occupancy(channel, count + 1, count);
        self.forget_if_unused(index);
    }

    /// Tells what changed since the last time; those who joined are told who is there, memory allowing.
    pub(super) fn tell_rosters(&mut self) {
        self.rosters.large.forget_sent();
        for channel in std::mem::take(&mut self.rosters.untold) {
            let Some(index) = self.find_owned(&channel) else { continue };
            if let Some(untold) = self.owned[index].untold_mut() {
                untold.listed = false;
            }
            self.tell_changes(index);
            self.admit_joiners(index);
        }
    }

    /// Whether [`Shard::tell_rosters`] has something to do.
    pub(super) fn has_rosters_to_tell(&self) -> bool {
        !self.rosters.untold.is_empty()
    }

    /// Looks again at the channels whose joiners wait for memory.
    pub(super) fn retry_joiners(&mut self) {
        if self.rosters.due_ms().is_some_and(|at| at <= self.now.monotonic_ms) {
            self.rosters.large.forget_sent();
            let held = std::mem::take(&mut self.rosters.held);
            let indices: Vec<usize> = held.iter().filter_map(|channel| self.find_owned(channel)).collect();
            for index in &indices {
                if let Some(untold) = self.owned[*index].untold_mut() {
                    untold.held = false;
                }
            }
            for index in indices {
                self.admit_joiners(index);
            }
        }
    }

    /// Sends the changes to those who are subscribed. Before every event of the channel, and with the turn's end.
    pub(super) fn tell_changes(&mut self, index: usize) {
        let Some(untold) = self.owned[index].untold_mut() else { return };
        let changes = std::mem::take(&mut untold.changes);
        if untold.joiners.is_empty() && !untold.listed {
            self.owned[index].more().untold = None;
        }
        if !changes.is_empty() {
            self.fan_out(index, changes.into(), None);
        }
    }

    /// Sends the roster to those who joined on it: one mail for each of their shards.
    fn admit_joiners(&mut self, index: usize) {
        let Some(untold) = self.owned[index].untold_mut().filter(|untold| !untold.joiners.is_empty()) else { return };
        let waited_ms = self.now.monotonic_ms - untold.since_ms;
        let was_held = untold.held;
        let channel = self.owned[index].key().clone();
        if waited_ms < limits::ROSTER_WAIT_MS_MAX && self.rosters.large.is_full(channel.app) {
            self.rosters.held_until_ms = self.now.monotonic_ms + RETRY_MS;
            if !was_held {
                self.owned[index].untold_mut().expect("it was found above").held = true;
                self.rosters.held.push(channel);
            }
            return;
        }
        let untold = self.owned[index].more().untold.take().expect("it was found above");
        let roster = self.owned[index].more().roster.as_mut().expect("who joined is on it");
        let succeeded = roster.succeeded(&channel.name);
        if succeeded.len() > LARGE_BYTES {
            self.rosters.large.push(channel.app, succeeded.clone());
        }
        let cached = self.cached_frame(&channel);
        if cached.is_none() && Modifiers::of(&channel.name).cache {
            self.note_cache_miss(&channel);
        }
        let mut by_shard: SmallVec<[(ShardIndex, Vec<Ticket>); 4]> = SmallVec::new();
        for (shard, ticket) in untold.joiners {
            match by_shard.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, tickets)) => tickets.push(ticket),
                None => by_shard.push((shard, vec![ticket])),
            }
        }
        for (shard, joiners) in by_shard {
            let (channel, succeeded, cached) = (channel.clone(), succeeded.clone(), cached.clone());
            self.send(shard, Body::Joined { channel, joiners, succeeded, cached });
        }
    }

    /// What the channel has to tell; the turn's end will find it.
    fn untold(&mut self, index: usize) -> &mut Untold {
        let owned = &mut self.owned[index];
        let channel = owned.key().clone();
        let untold = owned.more().untold.get_or_insert_default();
        if !std::mem::replace(&mut untold.listed, true) {
            self.rosters.untold.push(channel);
        }
        untold
    }
}

/// Rosters from this length count as large.
const LARGE_BYTES: usize = 64 * 1024;
/// How soon joiners that wait for memory are looked at again, in ms.
const RETRY_MS: u64 = 10;
