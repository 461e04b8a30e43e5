//! Channels with subscribers on this shard: their subscribers, and the connections that wait until the channel's owner
//! has recorded them.
//!
//! A connection is a subscriber, and gets `subscription_succeeded`, only when the channel's owner has recorded it: from
//! then on it misses no event (P-SUB-5). Until then it waits in the channel's `waiting` list. At most one count per
//! channel is in flight to the owner; changes meanwhile are reported with the next one.

mod client_event;
mod presence;
mod refusal;
mod resume;
mod stream;
mod subscribe;

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;

use crate::app::AppSerial;
use crate::channel::history::Order;
use crate::channel::name::{ChannelKind, Modifiers};
use crate::channel::subscribers::Subscribers;
use crate::connection::ConnectionKey;
use crate::connection::encoding::Encoding;
use crate::index::{ChannelIndex, ShardIndex, Slot};
use crate::metrics::figures::SubscriptionError;
use crate::protocol::close::CloseReason;
use crate::protocol::server_event;
use crate::shard::connections::{Connections, Delivery};
use crate::shard::context::Context;
use crate::shard::keyed_slab::{Keyed, KeyedSlab};
use crate::shard::mail::{
    ChannelKey, ChannelMessage, ConnectionRef, HistoryAnswer, JoinRefusal, OwnerMessage, Reader, Resumed,
};
use crate::shard::options::ChannelOrder;
use crate::shard::refusals::RefusedProof;
use crate::wire::websocket;
use refusal::SubscriptionRefusal;
use resume::{CatchingUp, refuse_gap};
use subscribe::MisleadingNames;

pub(super) use client_event::ClientEvent;
pub(super) use subscribe::Subscribe;

/// Channels with local subscribers.
#[derive(Default)]
pub(super) struct Channels {
    channels: KeyedSlab<ChannelIndex, LocalChannel>,
    /// Running number of presence joins.
    join_ticket: u32,
    misleading_names: MisleadingNames,
    catching_up: CatchingUp,
}

/// A channel with local subscribers, or with connections that wait to become subscribers.
struct LocalChannel {
    key: ChannelKey,
    kind: ChannelKind,
    owner: ShardIndex,
    subscribers: Subscribers,
    /// Connections whose join is not yet recorded, in the order of their requests.
    waiting: VecDeque<Waiting>,
    /// The last count sent to the owner (not for presence channels, which join and leave one by one).
    reported: u32,
    /// How many of `waiting` the count in flight covers; `None` when none is in flight.
    covered: Option<usize>,
    /// The sequence of its last event; 0 if unknown.
    last: u64,
    /// Subscribers that are catching up.
    behind: Option<Box<Subscribers>>,
    /// Streams that the owner has recorded, and that are no subscribers until their other channels have recorded them.
    opening: Option<Box<Subscribers>>,
}

/// A connection whose join is not yet recorded.
struct Waiting {
    connection: ConnectionKey,
    /// Ticket of its join on a presence channel.
    ticket: u32,
    /// It wants ids of events; taken when its join is reported.
    reader: Option<Box<Reader>>,
}

impl LocalChannel {
    /// Events after this position are expected, unless it has subscribers that expect earlier ones.
    fn expect_from(&mut self, position: Option<u64>) {
        if self.subscribers.is_empty() && self.opening.is_none() {
            self.last = position.unwrap_or(0);
        }
    }

    /// Subscribers that the owner has recorded.
    fn recorded(&self) -> u32 {
        self.subscribers.count() + self.opening.as_ref().map_or(0, |opening| opening.count())
    }
}

/// Removes a slot from a set that is dropped when it is empty; false when it is not in it.
fn remove_from(set: &mut Option<Box<Subscribers>>, slot: Slot) -> bool {
    let Some(slots) = set else { return false };
    let was_there = slots.remove(slot);
    if slots.is_empty() {
        *set = None;
    }
    was_there
}

impl Keyed for LocalChannel {
    fn hash(&self) -> u64 {
        self.key.hash
    }
}

impl Channels {
    /// Handles mail to a shard with subscribers.
    pub(super) fn handle(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        from: ShardIndex,
        message: ChannelMessage,
    ) {
        match message {
            ChannelMessage::Recorded { channel, cached, answer } => {
                self.handle_recorded(context, connections, &channel, cached, answer);
            }
            ChannelMessage::Unrecorded { channel, channels_max } => {
                self.handle_unrecorded(context, connections, &channel, channels_max);
            }
            ChannelMessage::Joined { channel, joiners, succeeded, cached, answer } => {
                let HistoryAnswer { position, resumed } = answer.map(|answer| *answer).unwrap_or_default();
                let cached = cached.map(|cached| *cached);
                let frames = Welcome { succeeded, cached, position, resumed };
                self.handle_joined(context, connections, &channel, joiners, frames);
            }
            ChannelMessage::Observed { channel, ticket, cached, answer } => {
                self.handle_observed(context, connections, &channel, (ticket, cached, *answer));
            }
            ChannelMessage::Past { channel, connection, continued } => {
                self.handle_past(context, connections, &channel, connection, continued);
            }
            ChannelMessage::JoinRefused { channel, ticket, refusal } => {
                self.handle_join_refused(context, connections, &channel, ticket, refusal);
            }
            ChannelMessage::Deliver { channel, frame, order, exclude, accepted_us, cost: _ } => {
                self.deliver(context, connections, &channel, (frame, order), exclude, accepted_us);
            }
            ChannelMessage::Gap { channel } => self.handle_gap(context, connections, from, channel),
        }
    }

    /// Number of channels with subscribers here.
    pub(super) fn count(&self) -> usize {
        self.channels.len()
    }

    /// Delivers one event to the local subscribers of its channel except `exclude`. If an event before it is missing,
    /// which mail in order rules out, they are closed instead (R-HIST-15).
    fn deliver(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        channel: &ChannelKey,
        (frame, order): (Bytes, Option<Order>),
        exclude: Option<ConnectionRef>,
        accepted_us: u64,
    ) {
        let Some(index) = self.find(channel) else { return };
        let position = order.map(|order| (ChannelOrder::group(channel.hash), order.sequence.get()));
        if let Some(Order { sequence, previous }) = order {
            let entry = &mut self.channels[index];
            let last = std::mem::replace(&mut entry.last, sequence.get());
            // Events before those that wait were ordered are not theirs.
            if last > 0 && previous > last && !entry.subscribers.is_empty() {
                return self.close_all(context, connections, index);
            }
        }
        let exclude = exclude.filter(|exclude| exclude.shard == context.config.index).map(|exclude| exclude.connection);
        let except = if position.is_some() { self.behind(index) } else { None };
        let (app, subscribers) = (channel.app, &self.channels[index].subscribers);
        let delivery = Delivery { channel: index, app, subscribers, except, frame, position, exclude, accepted_us };
        connections.fan_out(context, delivery);
    }

    /// Ends all subscriptions of a connection.
    pub(super) fn leave_all(&mut self, context: &mut Context, connections: &mut Connections, slot: Slot) {
        connections.sort_subscriptions(slot);
        while let Some(index) = connections.pop_subscription(slot) {
            self.leave(context, connections, slot, index);
        }
        connections.drop_cold_if_empty(slot);
    }

    /// Ends a subscription that was removed from the connection's list.
    fn leave(&mut self, context: &mut Context, connections: &mut Connections, slot: Slot, index: ChannelIndex) {
        let connection = connections.key(slot);
        self.end_catching_up(connections, slot, index);
        let was_opening = self.end_opening(index, slot);
        let channel = &mut self.channels[index];
        let was_subscribed = channel.subscribers.remove(slot);
        if was_subscribed {
            context.metrics.stats.subscriptions -= 1;
        } else if !was_opening {
            let at = channel.waiting.iter().position(|waiting| waiting.connection == connection);
            let at = at.expect("a connection on a channel is subscribed or waits");
            channel.waiting.remove(at);
            if let Some(covered) = &mut channel.covered {
                *covered -= usize::from(at < *covered);
            }
        }
        if channel.kind == ChannelKind::Presence {
            self.leave_presence(context, connections, slot, index, was_subscribed || was_opening);
            self.forget_if_unused(index);
        } else {
            self.report_count(context, index);
        }
    }

    /// The owner recorded the count: connections that waited for it are subscribers now (P-SUB-5).
    fn handle_recorded(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        channel: &ChannelKey,
        cached: Option<Bytes>,
        answer: Option<Box<HistoryAnswer>>,
    ) {
        let HistoryAnswer { position, mut resumed } = answer.map(|answer| *answer).unwrap_or_default();
        let index = self.find(channel).expect("a channel stays while a count is in flight");
        let entry = &mut self.channels[index];
        let covered = entry.covered.take().expect("one answer per count");
        let unrecorded: HashSet<ConnectionKey> =
            resumed.iter().filter(|resumed| resumed.refused).map(|resumed| resumed.connection).collect();
        // The owner did not record these, whether they still wait or have left.
        entry.reported -= unrecorded.len() as u32;
        entry.expect_from(position);
        let (mut joined, mut streams, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for Waiting { connection, .. } in entry.waiting.drain(..covered) {
            let slot = connection.slot();
            if unrecorded.contains(&connection) {
                refused.push(slot);
            } else if connections.is_stream(slot) {
                streams.push(connection);
            } else {
                entry.subscribers.insert(slot);
                joined.push(slot);
            }
        }
        for connection in streams {
            let at = resumed.iter().position(|resumed| resumed.connection == connection);
            let resumed = at.map(|at| resumed.swap_remove(at));
            self.note_recorded(context, connections, (connection, index), position, (resumed, cached.clone()));
        }
        let entry = &mut self.channels[index];
        if !joined.is_empty() {
            let (name, authorizes) = (entry.key.name.clone(), entry.kind != ChannelKind::Public);
            let succeeded = context.text_frame(|out| {
                server_event::encode_subscription_succeeded(out, &name);
            });
            context.metrics.stats.subscriptions += joined.len() as u64;
            let frames = Welcome { succeeded, cached, position, resumed };
            self.send_welcome(context, connections, index, &joined, frames, authorizes);
        }
        for slot in refused {
            connections.remove_subscription(slot, index);
            refuse_gap(context, connections, slot, channel);
        }
        self.report_count(context, index);
    }

    /// The owner did not record the count: connections that waited for it are refused, and there are no other
    /// subscribers (P-FAIL-4).
    fn handle_unrecorded(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        channel: &ChannelKey,
        channels_max: u32,
    ) {
        let index = self.find(channel).expect("a channel stays while a count is in flight");
        let entry = &mut self.channels[index];
        let covered = entry.covered.take().expect("one answer per count");
        entry.reported = 0;
        let refused: Vec<Slot> = entry.waiting.drain(..covered).map(|waiting| waiting.connection.slot()).collect();
        for &slot in &refused {
            connections.remove_subscription(slot, index);
        }
        let refusal = SubscriptionRefusal::Join(JoinRefusal::Channels(channels_max));
        for slot in refused {
            if connections.is_stream(slot) {
                Self::refuse_stream(context, connections, slot, channels_max);
            } else {
                refuse(context, connections, slot, &channel.name, &refusal, None);
            }
        }
        self.report_count(context, index);
    }

    /// An event for this channel was lost on the way here: all connections that should have received it are closed with
    /// 4200.
    fn handle_gap(&self, context: &mut Context, connections: &mut Connections, from: ShardIndex, channel: ChannelKey) {
        if let Some(index) = self.find(&channel) {
            self.close_all(context, connections, index);
        }
        context.send(from, OwnerMessage::GapClosed { channel });
    }

    /// Closes all connections of a channel: they miss an event.
    fn close_all(&self, context: &mut Context, connections: &mut Connections, index: ChannelIndex) {
        let entry = &self.channels[index];
        let mut slots: Vec<Slot> = entry.waiting.iter().map(|waiting| waiting.connection.slot()).collect();
        entry.subscribers.for_each(|slot| slots.push(slot));
        if let Some(opening) = &entry.opening {
            opening.for_each(|slot| slots.push(slot));
        }
        context.metrics.stats.gap_closed += slots.len() as u64;
        for slot in slots {
            connections.close_websocket(context, slot, &CloseReason::EventsLost);
        }
    }

    /// Reports the number of subscribers to the owner, unless the owner has recorded it or another report is in flight.
    fn report_count(&mut self, context: &mut Context, index: ChannelIndex) {
        let entry = &mut self.channels[index];
        if entry.covered.is_some() {
            return;
        }
        let count = entry.recorded() + entry.waiting.len() as u32;
        if count == entry.reported && entry.waiting.is_empty() {
            self.forget_if_unused(index);
            return;
        }
        entry.reported = count;
        entry.covered = Some(entry.waiting.len());
        let (owner, channel, joiners) = (entry.owner, entry.key.clone(), entry.waiting.len() as u32);
        let readers = entry.waiting.iter_mut().filter_map(|waiting| waiting.reader.take()).map(|reader| *reader);
        let readers = readers.collect();
        context.send(owner, OwnerMessage::Subscribers { channel, count, joiners, readers });
    }

    fn forget_if_unused(&mut self, index: ChannelIndex) {
        let entry = &self.channels[index];
        if entry.recorded() == 0 && entry.waiting.is_empty() && entry.covered.is_none() && entry.reported == 0 {
            self.channels.remove(index);
        }
    }

    /// Whether a connection has asked to join a protected channel whose owner has yet to record it.
    pub(super) fn is_joining_protected(&self, connections: &Connections, slot: Slot) -> bool {
        connections.subscriptions(slot).any(|index| {
            let channel = &self.channels[index];
            channel.kind != ChannelKind::Public && !channel.subscribers.contains(slot)
        })
    }

    fn find(&self, key: &ChannelKey) -> Option<ChannelIndex> {
        self.channels.find(key.hash, |channel| channel.key.is(key))
    }

    /// Like [`Channels::find`], by an unvalidated name.
    fn find_named(&self, context: &Context, app: AppSerial, name: &str) -> Option<ChannelIndex> {
        let hash = context.keyed_hash(app, name);
        self.channels.find(hash, |channel| channel.key.names(app, name, hash))
    }

    fn find_or_insert(&mut self, context: &Context, key: &ChannelKey, kind: ChannelKind) -> ChannelIndex {
        self.find(key).unwrap_or_else(|| {
            self.channels.insert(LocalChannel {
                key: key.clone(),
                kind,
                owner: context.owner_of(key),
                subscribers: Subscribers::default(),
                waiting: VecDeque::new(),
                reported: 0,
                covered: None,
                last: 0,
                behind: None,
                opening: None,
            })
        })
    }
}

/// The messages for new subscribers.
struct Welcome {
    succeeded: Bytes,
    /// The cached event of a cache channel.
    cached: Option<Bytes>,
    /// The position of the channel, for those that want ids.
    position: Option<u64>,
    /// Where those continue that named a position.
    resumed: Vec<Resumed>,
}

impl Channels {
    /// Sends `succeeded` to new subscribers of a channel, and on a cache channel the cached frame or
    /// `pusher:cache_miss` after it (P-CACHE-2). Those that want ids get the position of the channel, and what they
    /// missed (R-HIST-6, R-HIST-7).
    fn send_welcome(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        index: ChannelIndex,
        joined: &[Slot],
        frames: Welcome,
        authorizes: bool,
    ) {
        let Welcome { succeeded, cached, position, resumed } = frames;
        let channel = self.channels[index].key.clone();
        let app = channel.app.0;
        let with_position = position.map(|position| {
            let position = context.event_id(&channel, position);
            let frame = context.text_frame(|out| {
                server_event::encode_with_position(out, websocket::payload(&succeeded), position);
            });
            connections.hold(frame, app)
        });
        let succeeded = connections.hold(succeeded, app);
        let after = Modifiers::of(&channel.name).cache.then(|| {
            let frame =
                cached.unwrap_or_else(|| context.text_frame(|out| server_event::encode_cache_miss(out, &channel.name)));
            connections.hold(frame, app)
        });
        let mut resumed: HashMap<ConnectionKey, Resumed> =
            resumed.into_iter().map(|resumed| (resumed.connection, resumed)).collect();
        for &slot in joined {
            let is_plain = connections.encoding(slot) == Encoding::Plain;
            connections.send_held(context, slot, with_position.filter(|_| !is_plain).unwrap_or(succeeded));
            let resumed = if is_plain { None } else { resumed.remove(&connections.key(slot)) };
            let after = after.filter(|_| resumed.as_ref().is_none_or(Resumed::needs_cached));
            if let Some(resumed) = resumed {
                self.start_resume(context, connections, (slot, index), resumed);
            }
            if let Some(after) = after {
                connections.send_held(context, slot, after);
            }
            if authorizes {
                connections.authorize_connection(context, slot);
            }
        }
        for frame in [Some(succeeded), with_position, after].into_iter().flatten() {
            connections.release(frame);
        }
    }
}

/// `pusher:error`, then `subscription_error`; the connection stays open (P-FAIL-2, P-FAIL-6).
fn refuse(
    context: &mut Context,
    connections: &mut Connections,
    slot: Slot,
    channel: &str,
    refusal: &SubscriptionRefusal,
    proof: Option<&RefusedProof<'_>>,
) {
    let (kind, reason, status) = (refusal.kind(), refusal.reason(channel), refusal.status());
    context.metrics.counted.subscription_errors.count(SubscriptionError::of(kind));
    connections.note_subscription_refused(context, slot, channel, (kind, status), proof);
    connections.send_error(context, slot, refusal.code(), &reason);
    connections.send_text(context, slot, |out| {
        server_event::encode_subscription_error(out, channel, kind, &reason, status);
    });
}

#[cfg(test)]
impl Channels {
    /// Connections whose join is not yet recorded.
    pub(in crate::shard) fn waiting(&self) -> usize {
        self.channels.iter().map(|(_, channel)| channel.waiting.len()).sum()
    }
}
