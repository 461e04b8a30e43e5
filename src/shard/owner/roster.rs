//! Presence channels, the owner's side: the roster, and reports of its changes (P-PRES rules). The joiner's side is in
//! `channels::presence`.
//!
//! Changes of a roster within a turn are sent together: the present subscribers get one piece of `member_added` and
//! `member_removed` frames, and then all joiners get the same `succeeded` with all members. So a burst of joins costs
//! each subscriber one send per turn, and the roster is encoded once, however many connections join.
//!
//! # Order
//! An event that the owner accepts after a change is sent after it: pending changes of a channel are sent before the
//! event. Connections that wait for their `succeeded` are not subscribers yet and miss nothing (P-SUB-5).
//!
//! # Memory
//! The frame of a large roster is long, and a new one is created in every turn in which somebody joins. While too many
//! bytes of them wait to be sent, joiners wait too, at most `ROSTER_WAIT_MS_MAX`; then they share one frame.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Owner;
use crate::app::AppSerial;
use crate::channel::name::Modifiers;
use crate::channel::roster::{Joined, Left, Roster};
use crate::index::{OwnedIndex, ShardIndex};
use crate::limits;
use crate::protocol::server_event;
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, ChannelMessage, HistoryAnswer, Join, JoinRefusal, Reader, Ticket};

/// Changes of a presence channel that are not reported yet.
#[derive(Debug, Default)]
pub(super) struct PendingRoster {
    /// Frames for the subscribers, in order, joined.
    changes: Vec<u8>,
    /// Connections that wait for `succeeded`, in the order of their requests.
    joiners: Vec<(ShardIndex, Ticket, Option<Box<Reader>>)>,
    /// When the first of them asked, in ms of the monotonic clock.
    since_ms: u64,
    /// The channel is in [`Rosters::pending`].
    listed: bool,
    /// The channel is in [`Rosters::held`].
    held: bool,
}

/// The joiners of one shard, and those of them that want ids.
type Joiners = (ShardIndex, Vec<Ticket>, Vec<Reader>);

/// Presence channels of a shard with changes to report.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    /// Channels whose roster changed in this turn.
    pending: Vec<ChannelKey>,
    /// Channels whose joiners wait for memory, and when to try again.
    held: Vec<ChannelKey>,
    held_until_ms: u64,
    large: LargeRosters,
}

impl Rosters {
    /// When joiners that wait for memory are due to be checked.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (!self.held.is_empty()).then_some(self.held_until_ms)
    }
}

/// Frames of large rosters that may still be waiting to be sent. Thousands of channels may have joiners that wait for
/// them, so the frames are checked once per turn and not once per channel.
#[derive(Debug, Default)]
struct LargeRosters {
    frames: Vec<(AppSerial, Bytes)>,
    /// Bytes of these, as of the last check, of all apps and by app.
    total: usize,
    by_app: BTreeMap<AppSerial, usize>,
}

impl LargeRosters {
    fn push(&mut self, app: AppSerial, frame: Bytes) {
        self.total += frame.len();
        *self.by_app.entry(app).or_default() += frame.len();
        self.frames.push((app, frame));
    }

    /// Drops frames that were sent.
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

    /// Whether an app has so many bytes unsent that its joiners wait: a multiple of the free bytes, so that large
    /// rosters of one app delay no joins of another (P-STAT-9).
    fn is_full(&self, app: AppSerial) -> bool {
        let own = self.by_app.get(&app).copied().unwrap_or(0);
        own > limits::ROSTER_BYTES_UNSENT_MAX.saturating_sub(self.total) * limits::APP_SHARE_OF_FREE
    }
}

impl Owner {
    /// A connection wants to join a presence channel (P-PRES-2).
    pub(super) fn join(&mut self, context: &mut Context, from: ShardIndex, channel: ChannelKey, join: Join) {
        let Join { ticket, user_id, user_info, members_max, reader } = join;
        if self.must_refuse(context, &channel, reader.as_deref()) {
            context.send(
                from,
                ChannelMessage::JoinRefused { channel: channel.clone(), ticket, refusal: JoinRefusal::Gap },
            );
            if let Some(index) = self.find(&channel) {
                self.forget_if_unused(context, index);
            }
            return;
        }
        let index = self.find_or_insert(&channel);
        let owned = &mut self.channels[index];
        let roster = owned.cold_or_default().roster.get_or_insert_with(|| Roster::new(&context.config.boot_secret));
        let joined = roster.join(&user_id, user_info.as_ref(), members_max);
        if matches!(joined, Joined::Full | Joined::Large) {
            self.forget_if_unused(context, index);
            let refusal = if joined == Joined::Large { JoinRefusal::Roster } else { JoinRefusal::Members(members_max) };
            context.send(from, ChannelMessage::JoinRefused { channel, ticket, refusal });
            return;
        }
        owned.count_subscriber(from);
        if reader.is_some() {
            self.open_history(context, index);
        }
        self.occupy(index);
        let owned = &mut self.channels[index];
        let count = owned.subscriber_count();
        self.note_occupancy(context, &channel, count - 1, count);
        if joined == Joined::First {
            self.note_member_added(context, &channel, &user_id);
        }
        let now_ms = context.now.monotonic_ms;
        let pending = self.pending(index);
        if pending.joiners.is_empty() {
            pending.since_ms = now_ms;
        }
        if joined == Joined::First {
            let added = context.text_frame(|out| {
                server_event::encode_member_added(out, &channel.name, &user_id, user_info.as_deref());
            });
            self.pending(index).changes.extend_from_slice(&added);
        }
        let pending = self.pending(index);
        pending.joiners.push((from, Ticket { number: ticket, user_id }, reader));
        if pending.changes.len() > limits::ROSTER_CHANGES_BYTES_MAX {
            self.report_changes(context, index);
        }
    }

    /// A stream reads a presence channel: it counts as a subscriber, and not as a member (R-SSE-4).
    pub(super) fn observe(&mut self, context: &mut Context, from: ShardIndex, channel: &ChannelKey, reader: Reader) {
        let (index, ticket) = (self.find_or_insert(channel), reader.ticket);
        self.channels[index].count_subscriber(from);
        self.open_history(context, index);
        self.occupy(index);
        let count = self.channels[index].subscriber_count();
        self.note_occupancy(context, channel, count - 1, count);
        let position = self.position(context, channel);
        let resumed = self.resume(context, channel, vec![reader]);
        let cached = self.cached_frame(context, channel);
        let answer = Box::new(HistoryAnswer { position, resumed });
        context.send(from, ChannelMessage::Observed { channel: channel.clone(), ticket, cached, answer });
    }

    /// A stream no longer reads a presence channel.
    pub(super) fn unobserve(&mut self, context: &mut Context, from: ShardIndex, channel: &ChannelKey) {
        let index = self.find(channel).expect("a channel with subscribers has state");
        self.channels[index].discount_subscriber(from);
        let count = self.channels[index].subscriber_count();
        self.note_occupancy(context, channel, count + 1, count);
        self.forget_if_unused(context, index);
    }

    /// One connection of a member left.
    pub(super) fn leave(&mut self, context: &mut Context, from: ShardIndex, channel: &ChannelKey, user_id: &str) {
        let index = self.find(channel).expect("a channel with members has state");
        let owned = &mut self.channels[index];
        owned.discount_subscriber(from);
        let count = owned.subscriber_count();
        let roster = owned.cold_or_default().roster.as_mut().expect("a channel with members has a roster");
        if roster.leave(user_id) == Left::Last {
            let removed = context.text_frame(|out| {
                server_event::encode_member_removed(out, &channel.name, user_id);
            });
            let pending = self.pending(index);
            pending.changes.extend_from_slice(&removed);
            if pending.changes.len() > limits::ROSTER_CHANGES_BYTES_MAX {
                self.report_changes(context, index);
            }
            self.note_member_removed(context, channel, user_id);
        }
        self.note_occupancy(context, channel, count + 1, count);
        self.forget_if_unused(context, index);
    }

    /// Sends the changes of this turn to subscribers, and the roster to joiners, memory permitting.
    pub(in crate::shard) fn report_rosters(&mut self, context: &mut Context) {
        self.rosters.large.forget_sent();
        for channel in std::mem::take(&mut self.rosters.pending) {
            let Some(index) = self.find(&channel) else { continue };
            if let Some(pending) = self.channels[index].pending_mut() {
                pending.listed = false;
            }
            self.report_changes(context, index);
            self.admit_joiners(context, index);
        }
    }

    /// Whether [`Self::report_rosters`] has something to do.
    pub(in crate::shard) fn has_pending_rosters(&self) -> bool {
        !self.rosters.pending.is_empty()
    }

    /// Checks the channels whose joiners wait for memory again.
    pub(in crate::shard) fn retry_joiners(&mut self, context: &mut Context) {
        if self.rosters.due_ms().is_some_and(|at| at <= context.now.monotonic_ms) {
            self.rosters.large.forget_sent();
            let held = std::mem::take(&mut self.rosters.held);
            let indices: Vec<OwnedIndex> = held.iter().filter_map(|channel| self.find(channel)).collect();
            for index in &indices {
                if let Some(pending) = self.channels[*index].pending_mut() {
                    pending.held = false;
                }
            }
            for index in indices {
                self.admit_joiners(context, index);
            }
        }
    }

    /// Sends the changes to subscribers. Called before every event of the channel, and at the end of the turn.
    pub(super) fn report_changes(&mut self, context: &mut Context, index: OwnedIndex) {
        let Some(pending) = self.channels[index].pending_mut() else { return };
        let changes = std::mem::take(&mut pending.changes);
        if pending.joiners.is_empty() && !pending.listed {
            self.channels[index].cold_or_default().pending = None;
        }
        if !changes.is_empty() {
            self.fan_out(context, index, changes.into(), None, None);
        }
    }

    /// Sends the roster to joiners: one mail for each of their shards.
    fn admit_joiners(&mut self, context: &mut Context, index: OwnedIndex) {
        let Some(pending) = self.channels[index].pending_mut().filter(|pending| !pending.joiners.is_empty()) else {
            return;
        };
        let waited_ms = context.now.monotonic_ms - pending.since_ms;
        let was_held = pending.held;
        let channel = self.channels[index].key().clone();
        if waited_ms < limits::ROSTER_WAIT_MS_MAX && self.rosters.large.is_full(channel.app) {
            self.rosters.held_until_ms = context.now.monotonic_ms + RETRY_MS;
            if !was_held {
                self.channels[index].pending_mut().expect("it was found above").held = true;
                self.rosters.held.push(channel);
            }
            return;
        }
        let pending = self.channels[index].cold_or_default().pending.take().expect("it was found above");
        let roster = self.channels[index].cold_or_default().roster.as_mut().expect("who joined is on it");
        let succeeded = roster.succeeded(&channel.name);
        if succeeded.len() > LARGE_BYTES {
            self.rosters.large.push(channel.app, succeeded.clone());
        }
        let cached = self.cached_frame(context, &channel);
        if cached.is_none() && Modifiers::of(&channel.name).cache {
            self.note_cache_miss(context, &channel);
        }
        let mut by_shard: SmallVec<[Joiners; 4]> = SmallVec::new();
        for (shard, ticket, reader) in pending.joiners {
            let reader = reader.map(|reader| *reader);
            match by_shard.iter_mut().find(|(known, ..)| *known == shard) {
                Some((_, tickets, readers)) => {
                    tickets.push(ticket);
                    readers.extend(reader);
                }
                None => by_shard.push((shard, vec![ticket], reader.into_iter().collect())),
            }
        }
        for (shard, joiners, readers) in by_shard {
            let answer = (!readers.is_empty()).then(|| {
                let position = self.position(context, &channel);
                // Who is on the roster already is not refused: a gap since it asked is reported.
                let resumed = self.resume(context, &channel, readers);
                Box::new(HistoryAnswer { position, resumed })
            });
            let (channel, succeeded, cached) = (channel.clone(), succeeded.clone(), cached.clone().map(Box::new));
            context.send(shard, ChannelMessage::Joined { channel, joiners, succeeded, cached, answer });
        }
    }

    /// The pending changes of the channel; the end of the turn sends them.
    fn pending(&mut self, index: OwnedIndex) -> &mut PendingRoster {
        let owned = &mut self.channels[index];
        let channel = owned.key().clone();
        let pending = owned.cold_or_default().pending.get_or_insert_default();
        if !std::mem::replace(&mut pending.listed, true) {
            self.rosters.pending.push(channel);
        }
        pending
    }
}

/// Rosters of at least this length count as large.
const LARGE_BYTES: usize = 64 * 1024;
/// How soon joiners that wait for memory are checked again, in ms.
const RETRY_MS: u64 = 10;
