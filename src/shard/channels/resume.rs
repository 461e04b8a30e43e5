//! Subscribers that continue from a position (R-HIST-7, R-HIST-10, R-HIST-12).
//!
//! The owner answers a join with the first part of the missed events, as of the moment at which it records the
//! subscriber. If that is all of them, the subscriber is live. Otherwise it is *catching up*: it gets no live event that
//! has an id, and asks for the next part whenever it has read what it was sent. Between the owner and this shard mail
//! stays in order, so the part that reaches the top is followed by exactly the events after it.
//!
//! ```text
//! waiting -- Recorded, Joined --> catching up -- Past, complete --> live
//!                      |            |     ^                          ^
//!                      |            +-----+ Past, more               |
//!                      +---------------------------------------------+
//! ```

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{Channels, SubscriptionRefusal, refuse, remove_from};
use crate::channel::history::{Gap, Part};
use crate::channel::subscribers::Subscribers;
use crate::connection::{ConnectionKey, Flags};
use crate::index::{ChannelIndex, Slot};
use crate::label::Label;
use crate::limits;
use crate::protocol::event_id::EventId;
use crate::protocol::server_event::{self, MissedEvents};
use crate::shard::connections::Connections;
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, Continued, JoinRefusal, OnGap, OwnerMessage, Reader, Resumed};

/// The subscribers that are catching up.
#[derive(Debug, Default)]
pub(super) struct CatchingUp(BTreeMap<(Slot, ChannelIndex), Progress>);

/// How far one of them is.
#[derive(Debug)]
struct Progress {
    /// The last event that it was sent, or the position from which it continues.
    after: u64,
    /// The owner has been asked for the next part.
    asked: bool,
}

impl CatchingUp {
    fn of(slot: Slot) -> RangeInclusive<(Slot, ChannelIndex)> {
        (slot, ChannelIndex(0))..=(slot, ChannelIndex(u32::MAX))
    }
}

/// The members of a subscribe that are about history, of a connection that opted in.
///
/// # Errors
/// Another `on_gap` than the two that exist.
pub(super) fn decode_reader(
    connection: ConnectionKey,
    last_event_id: Option<&str>,
    on_gap: Option<&str>,
) -> Result<Reader, SubscriptionRefusal> {
    let on_gap = match on_gap {
        None | Some("tail") => OnGap::Tail,
        Some("fail") => OnGap::Fail,
        Some(_) => return Err(SubscriptionRefusal::OnGap),
    };
    let after = last_event_id.map(|text| EventId::decode(text).ok_or(Gap::Unreadable));
    Ok(Reader { connection, ticket: 0, after, on_gap })
}

impl Channels {
    /// A new subscriber continues from a position: after its `succeeded` it is sent the gap, if there is one, and the
    /// missed events.
    pub(super) fn start_resume(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        (slot, index): (Slot, ChannelIndex),
        resumed: Resumed,
    ) {
        let Resumed { after, continued, .. } = resumed;
        context.metrics.counted.resumes += 1;
        let Some(Continued { start, gap, part }) = continued else {
            return self.send_gap(context, connections, (slot, index), after, None);
        };
        if let Some(gap) = gap {
            self.send_gap(context, connections, (slot, index), after, Some((start, gap)));
        }
        // Of many channels that resume at once only the first parts are sent at once.
        let is_behind = connections.unsent_bytes(slot) > limits::REPLY_BYTES_MAX && !part.events.is_empty();
        let part = if is_behind { Part { events: Vec::new(), complete: false } } else { part };
        self.continue_from(context, connections, (slot, index), start, &part);
        self.catch_up(context, connections, slot);
    }

    /// Sends a subscriber the first events after a position. If these are not all of them, it is catching up.
    pub(super) fn continue_from(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        (slot, index): (Slot, ChannelIndex),
        start: u64,
        part: &Part,
    ) {
        let last = self.send_part(context, connections, (slot, index), part).unwrap_or(start);
        if !part.complete {
            connections.set(slot, Flags::CATCHING_UP);
            self.channels[index].behind.get_or_insert_default().insert(slot);
            self.catching_up.0.insert((slot, index), Progress { after: last, asked: false });
        }
    }

    /// A connection that is catching up has read what it was sent: asks for the next part of one of its channels.
    pub(in crate::shard) fn catch_up(&mut self, context: &mut Context, connections: &Connections, slot: Slot) {
        if connections.unsent_bytes(slot) > limits::REPLY_BYTES_MAX {
            return;
        }
        let mut progress = self.catching_up.0.range_mut(CatchingUp::of(slot));
        if let Some(((_, index), progress)) = progress.find(|(_, progress)| !progress.asked) {
            progress.asked = true;
            let entry = &self.channels[*index];
            let (channel, connection, after) = (entry.key.clone(), connections.key(slot), progress.after);
            context.send(entry.owner, OwnerMessage::ReadPast { channel, connection, after });
        }
    }

    /// The next part of the missed events.
    pub(super) fn handle_past(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        channel: &ChannelKey,
        connection: ConnectionKey,
        continued: Option<Continued>,
    ) {
        let slot = connection.slot();
        let Some(index) = self.find(channel).filter(|_| connections.is_live(connection)) else { return };
        let Some(progress) = self.catching_up.0.get_mut(&(slot, index)).filter(|progress| progress.asked) else {
            return; // It has unsubscribed, or was closed.
        };
        progress.asked = false;
        let known = context.event_id(channel, progress.after);
        let Some(Continued { start, gap, part }) = continued else {
            self.send_gap(context, connections, (slot, index), Some(known), None);
            return self.end_catching_up(connections, slot, index);
        };
        if let Some(gap) = gap {
            self.send_gap(context, connections, (slot, index), Some(known), Some((start, gap)));
        }
        let last = self.send_part(context, connections, (slot, index), &part).unwrap_or(start);
        if part.complete {
            self.end_catching_up(connections, slot, index);
        } else if let Some(progress) = self.catching_up.0.get_mut(&(slot, index)) {
            progress.after = last;
        }
        self.catch_up(context, connections, slot);
    }

    /// The subscriber has all missed events, or is none any more.
    pub(super) fn end_catching_up(&mut self, connections: &mut Connections, slot: Slot, index: ChannelIndex) {
        if !connections.has(slot, Flags::CATCHING_UP) || self.catching_up.0.remove(&(slot, index)).is_none() {
            return;
        }
        remove_from(&mut self.channels[index].behind, slot);
        if self.catching_up.0.range(CatchingUp::of(slot)).next().is_none() {
            connections.clear(slot, Flags::CATCHING_UP);
        }
    }

    /// Tells a subscriber that events may be missing; without history events resume nowhere.
    fn send_gap(
        &self,
        context: &mut Context,
        connections: &mut Connections,
        (slot, index): (Slot, ChannelIndex),
        after: Option<EventId>,
        gap: Option<(u64, Gap)>,
    ) {
        context.metrics.counted.resume_gaps += 1;
        let channel = &self.channels[index].key;
        let missed = missed_events(context, channel, after, gap);
        if connections.is_stream(slot) {
            return connections.send_stream_gap(context, slot, (channel, index), &missed);
        }
        connections.send_text(context, slot, |out| server_event::encode_history_gap(out, &channel.name, &missed));
    }

    /// Sends past events, with their ids; returns the sequence of the last.
    fn send_part(
        &self,
        context: &mut Context,
        connections: &mut Connections,
        (slot, index): (Slot, ChannelIndex),
        part: &Part,
    ) -> Option<u64> {
        for (sequence, frame) in &part.events {
            let id = context.event_id(&self.channels[index].key, *sequence);
            connections.send_past_event(context, (slot, index), frame, id);
        }
        part.events.last().map(|(sequence, _)| *sequence)
    }

    /// Subscribers of a channel that are not live yet.
    pub(super) fn behind(&self, index: ChannelIndex) -> Option<&Subscribers> {
        self.channels[index].behind.as_deref()
    }

    /// Subscribers that are catching up.
    #[cfg(test)]
    pub(in crate::shard) fn catching_up(&self) -> usize {
        self.catching_up.0.len()
    }
}

/// Refuses a subscriber that does not want to continue after a gap (R-HIST-10).
pub(super) fn refuse_gap(context: &mut Context, connections: &mut Connections, slot: Slot, channel: &ChannelKey) {
    context.metrics.counted.resume_gaps += 1;
    refuse(context, connections, slot, &channel.name, &SubscriptionRefusal::Join(JoinRefusal::Gap), None);
}

/// The gap that a reader is sent.
pub(super) fn missed_events(
    context: &Context,
    channel: &ChannelKey,
    after: Option<EventId>,
    gap: Option<(u64, Gap)>,
) -> MissedEvents {
    MissedEvents {
        after,
        resumes_at: gap.map(|(start, _)| context.event_id(channel, start)),
        reason: gap.map_or(Gap::Expired, |(_, gap)| gap).label(),
    }
}
