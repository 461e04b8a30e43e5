//! Channels with subscribers on this shard: their subscribers, and the connections that wait until the channel's owner
//! has recorded them.
//!
//! A connection is a subscriber, and gets `subscription_succeeded`, only when the channel's owner has recorded it: from
//! then on it misses no event (P-SUB-5). Until then it waits in the channel's `waiting` list. At most one count per
//! channel is in flight to the owner; changes meanwhile are reported with the next one.

mod client_event;
mod presence;
mod refusal;
mod subscribe;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::app::AppSerial;
use crate::channel::name::{ChannelKind, Modifiers};
use crate::channel::subscribers::Subscribers;
use crate::connection::ConnectionKey;
use crate::index::{ChannelIndex, ShardIndex, Slot};
use crate::metrics::figures::SubscriptionError;
use crate::protocol::close::CloseReason;
use crate::protocol::server_event;
use crate::shard::connections::{Connections, Delivery};
use crate::shard::context::Context;
use crate::shard::keyed_slab::{Keyed, KeyedSlab};
use crate::shard::mail::{ChannelKey, ChannelMessage, ConnectionRef, Full, OwnerMessage};
use crate::shard::refusals::RefusedProof;
use refusal::SubscriptionRefusal;
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
}

/// A connection whose join is not yet recorded.
struct Waiting {
    connection: ConnectionKey,
    /// Ticket of its join on a presence channel.
    ticket: u32,
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
            ChannelMessage::Recorded { channel, cached } => {
                self.handle_recorded(context, connections, &channel, cached)
            }
            ChannelMessage::Unrecorded { channel, channels_max } => {
                self.handle_unrecorded(context, connections, &channel, channels_max);
            }
            ChannelMessage::Joined { channel, joiners, succeeded, cached } => {
                self.handle_joined(context, connections, &channel, joiners, succeeded, cached);
            }
            ChannelMessage::JoinRefused { channel, ticket, full } => {
                self.handle_join_refused(context, connections, &channel, ticket, full);
            }
            ChannelMessage::Deliver { channel, frame, exclude, accepted_us, cost: _ } => {
                self.deliver(context, connections, &channel, frame, exclude, accepted_us);
            }
            ChannelMessage::Gap { channel } => self.handle_gap(context, connections, from, channel),
        }
    }

    /// Number of channels with subscribers here.
    pub(super) fn count(&self) -> usize {
        self.channels.len()
    }

    /// Delivers one event to the local subscribers of its channel except `exclude`.
    fn deliver(
        &self,
        context: &mut Context,
        connections: &mut Connections,
        channel: &ChannelKey,
        frame: Bytes,
        exclude: Option<ConnectionRef>,
        accepted_us: u64,
    ) {
        let Some(index) = self.find(channel) else { return };
        let exclude = exclude.filter(|exclude| exclude.shard == context.config.index).map(|exclude| exclude.connection);
        let (app, subscribers) = (channel.app, &self.channels[index].subscribers);
        let delivery = Delivery { channel: index, app, subscribers, frame, position: None, exclude, accepted_us };
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
        let channel = &mut self.channels[index];
        let was_subscribed = channel.subscribers.remove(slot);
        if was_subscribed {
            context.metrics.stats.subscriptions -= 1;
        } else {
            let at = channel.waiting.iter().position(|waiting| waiting.connection == connection);
            let at = at.expect("a connection on a channel is subscribed or waits");
            channel.waiting.remove(at);
            if let Some(covered) = &mut channel.covered {
                *covered -= usize::from(at < *covered);
            }
        }
        if channel.kind == ChannelKind::Presence {
            self.leave_presence(context, connections, slot, index, was_subscribed);
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
    ) {
        let index = self.find(channel).expect("a channel stays while a count is in flight");
        let entry = &mut self.channels[index];
        let covered = entry.covered.take().expect("one answer per count");
        let joined: Vec<Slot> = entry.waiting.drain(..covered).map(|waiting| waiting.connection.slot()).collect();
        if !joined.is_empty() {
            let (name, authorizes) = (entry.key.name.clone(), entry.kind != ChannelKind::Public);
            let succeeded = context.text_frame(|out| {
                server_event::encode_subscription_succeeded(out, &name);
            });
            for &slot in &joined {
                entry.subscribers.insert(slot);
            }
            context.metrics.stats.subscriptions += joined.len() as u64;
            let frames = Welcome { channel, succeeded, cached };
            send_welcome(context, connections, &joined, frames, authorizes);
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
        let refusal = SubscriptionRefusal::Full(Full::Channels(channels_max));
        for slot in refused {
            refuse(context, connections, slot, &channel.name, &refusal, None);
        }
        self.report_count(context, index);
    }

    /// An event for this channel was lost on the way here: all connections that should have received it are closed with
    /// 4200.
    fn handle_gap(&self, context: &mut Context, connections: &mut Connections, from: ShardIndex, channel: ChannelKey) {
        if let Some(index) = self.find(&channel) {
            let entry = &self.channels[index];
            let mut slots: Vec<Slot> = entry.waiting.iter().map(|waiting| waiting.connection.slot()).collect();
            entry.subscribers.for_each(|slot| slots.push(slot));
            context.metrics.stats.gap_closed += slots.len() as u64;
            for slot in slots {
                connections.close_websocket(context, slot, &CloseReason::EventsLost);
            }
        }
        context.send(from, OwnerMessage::GapClosed { channel });
    }

    /// Reports the number of subscribers to the owner, unless the owner has recorded it or another report is in flight.
    fn report_count(&mut self, context: &mut Context, index: ChannelIndex) {
        let entry = &mut self.channels[index];
        if entry.covered.is_some() {
            return;
        }
        let count = entry.subscribers.count() + entry.waiting.len() as u32;
        if count == entry.reported && entry.waiting.is_empty() {
            self.forget_if_unused(index);
            return;
        }
        entry.reported = count;
        entry.covered = Some(entry.waiting.len());
        let (owner, channel, joiners) = (entry.owner, entry.key.clone(), entry.waiting.len() as u32);
        context.send(owner, OwnerMessage::Subscribers { channel, count, joiners });
    }

    fn forget_if_unused(&mut self, index: ChannelIndex) {
        let entry = &self.channels[index];
        if entry.subscribers.is_empty() && entry.waiting.is_empty() && entry.covered.is_none() && entry.reported == 0 {
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
            })
        })
    }
}

/// The messages for new subscribers.
struct Welcome<'a> {
    channel: &'a ChannelKey,
    succeeded: Bytes,
    /// The cached event of a cache channel.
    cached: Option<Bytes>,
}

/// Sends `succeeded` to new subscribers of a channel, and on a cache channel the cached frame or `pusher:cache_miss`
/// after it (P-CACHE-2).
fn send_welcome(
    context: &mut Context,
    connections: &mut Connections,
    joined: &[Slot],
    frames: Welcome<'_>,
    authorizes: bool,
) {
    let Welcome { channel, succeeded, cached } = frames;
    let app = channel.app.0;
    let succeeded = connections.hold(succeeded, app);
    let after = Modifiers::of(&channel.name).cache.then(|| {
        let frame =
            cached.unwrap_or_else(|| context.text_frame(|out| server_event::encode_cache_miss(out, &channel.name)));
        connections.hold(frame, app)
    });
    for &slot in joined {
        connections.send_held(context, slot, succeeded);
        if let Some(after) = after {
            connections.send_held(context, slot, after);
        }
        if authorizes {
            connections.authorize_connection(context, slot);
        }
    }
    connections.release(succeeded);
    if let Some(after) = after {
        connections.release(after);
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
