//! Fan-out within a shard: one frame into the outboxes of a channel's local subscribers.
//!
//! Queueing an event to a million subscribers takes tens of milliseconds, in which nobody else would be served (U17).
//! So an event of a large channel is queued to a part of its subscribers in each turn. Clients cannot observe a
//! difference:
//!
//! - A connection that is about to be sent something else is first given the events that it has yet to receive
//!   (`catch_up`), so it gets everything in the order in which it was accepted. The same happens before it unsubscribes
//!   or is closed.
//! - A connection that subscribes later does not get the event: a fan-out keeps the subscribers of the time of
//!   acceptance.

use std::collections::VecDeque;

use bytes::Bytes;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::Connections;
use super::send_queue::Queue;
use super::streams::Streams;
use crate::app::AppSerial;
use crate::channel::subscribers::Subscribers;
use crate::connection::encoding::Encoding;
use crate::connection::outbox::{FrameId, FrameKind, Frames};
use crate::connection::table::BySlot;
use crate::connection::{ConnectionKey, Flags, Hot, Phase};
use crate::index::{ChannelIndex, Slot};
use crate::limits;
use crate::protocol::event_id::EventId;
use crate::protocol::{server_event, server_sent};
use crate::shard::context::Context;
use crate::shard::options::ChannelOrder;
use crate::wire::websocket::{self, Opcode};

/// Fan-outs that have subscribers left.
#[derive(Default)]
pub(super) struct FanOuts {
    /// In the order in which they were accepted.
    unfinished: VecDeque<FanOut>,
    /// Their channels, each once, in the order of their turns.
    turns: VecDeque<ChannelIndex>,
    /// The number of the next one.
    next: u64,
}

/// One event to the subscribers of one channel.
struct FanOut {
    /// Later ones have greater numbers.
    number: u64,
    channel: ChannelIndex,
    event: Event,
    /// When its owner accepted it, in µs; 0 once its frame has this time, which it gets with the first delivery.
    accepted_us: u64,
    /// Subscribers of the channel when the event was accepted, for the choice of the send queue.
    subscribers: u32,
    /// Those of them that have yet to receive it.
    remaining: RoaringBitmap,
}

/// An event that is queued to each subscriber, in the encoding of its connection. The frame of an encoding is created
/// when the first subscriber needs it, and all share it. The event has a reference to each of them until its fan-out
/// ends, so that a frame lasts until then and as long as a reader has it unsent.
struct Event {
    /// The plain frame.
    frame: FrameId,
    frame_bytes: usize,
    /// Frames in the other encodings that were needed so far, with their lengths.
    others: [Option<(FrameId, usize)>; Encoding::OTHERS],
    /// Its group and sequence, if it is a stored event.
    position: Option<(u8, u64)>,
    /// Its id, once it was needed.
    id: Option<EventId>,
    app: AppSerial,
    channel: ChannelIndex,
    exclude: Option<ConnectionKey>,
}

impl Event {
    /// Its frame in an encoding other than the plain one, and the length of it; `None` if it has none in it.
    #[inline(never)]
    fn in_encoding(
        &mut self,
        encoding: Encoding,
        frames: &mut Frames,
        order: &ChannelOrder,
    ) -> Option<(FrameId, usize)> {
        let place = encoding.place()?;
        if self.others[place].is_none() {
            let id = self.id(order);
            let bytes = encode_frame(frames.bytes(self.frame), encoding, id)?;
            let length = bytes.len();
            let frame = frames.hold(bytes, self.app.0, FrameKind::Event);
            frames.share_stamp(self.frame, frame);
            self.others[place] = Some((frame, length));
        }
        self.others[place]
    }

    /// Its id, if it is a stored event.
    fn id(&mut self, order: &ChannelOrder) -> Option<EventId> {
        let (group, sequence) = self.position?;
        Some(*self.id.get_or_insert_with(|| order.event_id(self.app, group, sequence)))
    }

    /// The line `id:` of a stream of several channels, if it is a stored event.
    #[inline(never)]
    fn cursor_line(&mut self, line: &Hot, streams: &mut Streams, order: &ChannelOrder) -> Option<Bytes> {
        let id = self.id(order)?;
        streams.advance(line, self.channel, id)
    }

    /// Records when the event was accepted, in µs: it is written when no send of any of its frames is left.
    fn stamp(&self, frames: &mut Frames, accepted_us: u64) {
        frames.stamp(self.frame, accepted_us);
        for (frame, _) in self.others.iter().flatten() {
            frames.share_stamp(self.frame, *frame);
        }
    }

    /// Drops the references to its frames.
    fn release(&self, frames: &mut Frames) {
        frames.release(self.frame);
        for (frame, _) in self.others.iter().flatten() {
            frames.release(*frame);
        }
    }
}

/// The frame of an event in another encoding, made of the plain one; `None` if it has none in it.
pub(super) fn encode_frame(plain: &[u8], encoding: Encoding, id: Option<EventId>) -> Option<Bytes> {
    let text = websocket::payload(plain);
    let mut encoded = Vec::new();
    match (encoding, id) {
        (Encoding::Plain, _) | (Encoding::WithId, None) => return None,
        (Encoding::WithId, Some(id)) => server_event::encode_with_id(&mut encoded, text, id),
        (Encoding::Stream, Some(id)) => {
            server_sent::encode_id_line(&mut encoded, |out| id.encode(out));
            server_sent::encode_event(&mut encoded, text, Some(id));
        }
        (Encoding::Stream | Encoding::StreamOfSeveral, _) => {
            if !server_sent::encode_event(&mut encoded, text, id) {
                return None;
            }
        }
    }
    if encoding.is_stream() {
        return Some(encoded.into());
    }
    let mut frame = Vec::new();
    websocket::encode_frame(&mut frame, Opcode::Text, &encoded);
    Some(frame.into())
}

impl FanOuts {
    pub(super) fn is_empty(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// A connection is closed: it is sent nothing more.
    pub(super) fn forget(&mut self, slot: Slot) {
        for fan_out in &mut self.unfinished {
            fan_out.remaining.remove(slot.0);
        }
    }

    /// The index of a fan-out in the queue, unless it is finished.
    fn position(&self, number: u64) -> Option<usize> {
        self.unfinished.binary_search_by_key(&number, |fan_out| fan_out.number).ok()
    }

    /// The index of the oldest fan-out of a channel in the queue.
    fn oldest_of(&self, channel: ChannelIndex) -> Option<usize> {
        self.unfinished.iter().position(|fan_out| fan_out.channel == channel)
    }
}

/// The tables that a fan-out changes.
struct Outboxes<'a> {
    hot: &'a mut BySlot<Hot>,
    frames: &'a mut Frames,
    order: &'a ChannelOrder,
    streams: &'a mut Streams,
    /// Unsent bytes beyond which a connection of the app is closed.
    bytes_max: usize,
}

impl Outboxes<'_> {
    /// Queues an event to one subscriber.
    // As a separate call it cost each delivery 30 more instructions.
    #[inline(always)]
    fn push(&mut self, slot: Slot, event: &mut Event, queue: &mut Queue<'_>, outcome: &mut Outcome) {
        let line = &mut self.hot[slot];
        if event.exclude.is_some_and(|exclude| exclude.slot() == slot && exclude.generation == line.generation) {
            return;
        }
        if self.frames.is_over_bound(&line.outbox, self.bytes_max) {
            outcome.too_slow.push(slot);
            return;
        }
        let (mut frame, mut frame_bytes) = (event.frame, event.frame_bytes);
        let encoding = line.outbox.encoding();
        if encoding != Encoding::Plain {
            match event.in_encoding(encoding, self.frames, self.order) {
                Some(other) => {
                    (frame, frame_bytes) = other;
                    self.frames.retain(frame, 1);
                    outcome.retained += 1;
                    if encoding == Encoding::StreamOfSeveral
                        && let Some(line_bytes) = event.cursor_line(line, self.streams, self.order)
                    {
                        let length = line_bytes.len();
                        let prefix = self.frames.hold(line_bytes, event.app.0, FrameKind::Control);
                        self.frames.push(&mut line.outbox, prefix, length);
                    }
                }
                // An event without an id for a WebSocket, and for a stream nothing.
                None if encoding.is_stream() => return,
                None => {}
            }
        }
        outcome.queued += 1;
        self.frames.push(&mut line.outbox, frame, frame_bytes);
        if !line.outbox.is_lent() {
            queue.push(slot, &mut line.flags);
        }
    }
}

/// The results for one event.
#[derive(Default)]
struct Outcome {
    queued: u32,
    /// Those of them in encodings that are not the plain one: they have their references already.
    retained: u32,
    /// Subscribers that are further behind than allowed.
    too_slow: SmallVec<[Slot; 8]>,
}

/// One event for the local subscribers of a channel.
pub(in crate::shard) struct Delivery<'a> {
    pub(in crate::shard) channel: ChannelIndex,
    pub(in crate::shard) app: AppSerial,
    pub(in crate::shard) subscribers: &'a Subscribers,
    /// Those of them that do not get it.
    pub(in crate::shard) except: Option<&'a Subscribers>,
    pub(in crate::shard) frame: Bytes,
    /// Its group and sequence, if it is a stored event.
    pub(in crate::shard) position: Option<(u8, u64)>,
    pub(in crate::shard) exclude: Option<ConnectionKey>,
    /// When its owner accepted it, in µs; 0 where drivers report no turns.
    pub(in crate::shard) accepted_us: u64,
}

impl Connections {
    /// Queues one event to all local subscribers of its channel except `exclude`; to those of a large channel over
    /// several turns.
    ///
    /// Per subscriber: its hot line and one entry of a queue; no allocation, no atomic, no copy.
    pub(in crate::shard) fn fan_out(&mut self, context: &mut Context, delivery: Delivery<'_>) {
        let Delivery { channel, app, subscribers, except, frame, position, exclude, accepted_us } = delivery;
        let count = subscribers.count();
        let in_parts = count > context.config.options.fan_out_step || self.fan_outs.turns.contains(&channel);
        let behind = !in_parts && !self.fan_outs.is_empty();
        if behind {
            self.catch_up_all(context, subscribers);
        }
        let frame_bytes = frame.len();
        let frame = self.frames.hold(frame, app.0, FrameKind::Event);
        let mut event =
            Event { frame, frame_bytes, others: Default::default(), position, id: None, app, channel, exclude };
        if in_parts {
            return self.begin_fan_out(context, channel, event, accepted_us, (subscribers, except));
        }
        let bytes_max = self.outbox_bytes_max(context, app.0);
        let order = &context.config.order;
        let streams = &mut self.streams;
        let mut outboxes = Outboxes { hot: &mut self.table.hot, frames: &mut self.frames, order, streams, bytes_max };
        let mut queue = self.send_queue.queue_of(channel, count);
        let mut outcome = Outcome::default();
        if behind || except.is_some() {
            // Earlier events may have closed some of them.
            let open = |outboxes: &Outboxes<'_>, slot: Slot| outboxes.hot[slot].phase == Phase::Open;
            subscribers.for_each(|slot| {
                if open(&outboxes, slot) && !except.is_some_and(|except| except.contains(slot)) {
                    outboxes.push(slot, &mut event, &mut queue, &mut outcome);
                }
            });
        } else {
            subscribers.for_each(|slot| outboxes.push(slot, &mut event, &mut queue, &mut outcome));
        }
        self.send_queue.count_bulk(channel);
        self.count_deliveries(context, app, frame, &outcome);
        if accepted_us > 0 && outcome.queued > 0 {
            event.stamp(&mut self.frames, accepted_us);
        }
        event.release(&mut self.frames);
        for slot in outcome.too_slow {
            self.close_slow(context, slot);
        }
    }

    fn begin_fan_out(
        &mut self,
        context: &mut Context,
        channel: ChannelIndex,
        event: Event,
        accepted_us: u64,
        (subscribers, except): (&Subscribers, Option<&Subscribers>),
    ) {
        if self.fan_outs.unfinished.len() == limits::FAN_OUTS_UNFINISHED_MAX {
            self.advance(context, self.fan_outs.unfinished[0].number, u32::MAX);
        }
        if !self.fan_outs.turns.contains(&channel) {
            self.fan_outs.turns.push_back(channel);
        }
        let number = self.fan_outs.next;
        self.fan_outs.next += 1;
        let (count, mut remaining) = (subscribers.count(), subscribers.to_bitmap());
        if let Some(except) = except {
            remaining -= except.to_bitmap();
        }
        // Finishing the oldest fan-out may have closed some of them.
        for slot in &self.retired {
            remaining.remove(slot.0);
        }
        let fan_out = FanOut { number, channel, event, accepted_us, subscribers: count, remaining };
        self.fan_outs.unfinished.push_back(fan_out);
    }

    /// Queues the oldest event of the channel whose turn it is to the next of its subscribers.
    pub(in crate::shard) fn continue_fan_outs(&mut self, context: &mut Context) {
        let Some(&channel) = self.fan_outs.turns.front() else { return };
        self.fan_outs.turns.rotate_left(1);
        let oldest = self.fan_outs.oldest_of(channel).expect("channels have turns while they have fan-outs");
        self.advance(context, self.fan_outs.unfinished[oldest].number, context.config.options.fan_out_step);
    }

    /// Queues an event to `count` more of its subscribers.
    fn advance(&mut self, context: &mut Context, number: u64, count: u32) {
        let Some(at) = self.fan_outs.position(number) else { return };
        if at > 0 {
            let slots: Vec<u32> = self.fan_outs.unfinished[at].remaining.iter().take(count as usize).collect();
            for slot in slots {
                self.catch_up_before(context, Slot(slot), number);
            }
        }
        let Some(at) = self.fan_outs.position(number) else { return };
        let bytes_max = self.outbox_bytes_max(context, self.fan_outs.unfinished[at].event.app.0);
        let FanOut { channel, event, subscribers, remaining, .. } = &mut self.fan_outs.unfinished[at];
        let channel = *channel;
        let order = &context.config.order;
        let streams = &mut self.streams;
        let mut outboxes = Outboxes { hot: &mut self.table.hot, frames: &mut self.frames, order, streams, bytes_max };
        let mut queue = self.send_queue.queue_of(channel, *subscribers);
        let mut outcome = Outcome::default();
        for slot in remaining.iter().take(count as usize) {
            outboxes.push(Slot(slot), event, &mut queue, &mut outcome);
        }
        remaining.remove_smallest(u64::from(count));
        let is_finished = remaining.is_empty();
        self.send_queue.count_bulk(channel);
        self.count_part(context, at, &outcome);
        if is_finished {
            self.end_fan_out(at);
        }
        for slot in outcome.too_slow {
            self.close_slow(context, slot);
        }
    }

    fn end_fan_out(&mut self, at: usize) {
        let FanOut { channel, event, .. } = self.fan_outs.unfinished.remove(at).expect("the caller found it");
        event.release(&mut self.frames);
        if self.fan_outs.oldest_of(channel).is_none() {
            self.fan_outs.turns.retain(|other| *other != channel);
        }
    }

    /// Before the subscribers of a channel get an event at once, they get the earlier ones of other channels.
    #[cold]
    fn catch_up_all(&mut self, context: &mut Context, subscribers: &Subscribers) {
        subscribers.for_each(|slot| self.catch_up(context, slot));
    }

    /// Queues to a connection the events of unfinished fan-outs that it has yet to receive: something else follows.
    #[inline]
    pub(in crate::shard) fn catch_up(&mut self, context: &mut Context, slot: Slot) {
        if !self.fan_outs.is_empty() {
            self.catch_up_before(context, slot, u64::MAX);
        }
    }

    /// The same, limited to fan-outs older than this one.
    #[cold]
    fn catch_up_before(&mut self, context: &mut Context, slot: Slot, number: u64) {
        let line = &self.table.hot[slot];
        if line.phase != Phase::Open || line.flags.contains(Flags::RESET) {
            return;
        }
        let app = AppSerial(line.app);
        let bytes_max = self.outbox_bytes_max(context, app.0);
        let mut too_slow = false;
        for at in 0..self.fan_outs.unfinished.len() {
            let fan_out = &mut self.fan_outs.unfinished[at];
            if fan_out.number >= number {
                break;
            }
            if !fan_out.remaining.remove(slot.0) {
                continue;
            }
            let channel = fan_out.channel;
            let order = &context.config.order;
            let streams = &mut self.streams;
            let mut outboxes =
                Outboxes { hot: &mut self.table.hot, frames: &mut self.frames, order, streams, bytes_max };
            let mut queue = self.send_queue.queue_of(channel, fan_out.subscribers);
            let mut outcome = Outcome::default();
            outboxes.push(slot, &mut fan_out.event, &mut queue, &mut outcome);
            self.send_queue.count_bulk(channel);
            self.count_part(context, at, &outcome);
            too_slow |= !outcome.too_slow.is_empty();
        }
        if too_slow {
            self.close_slow(context, slot);
        }
    }

    /// Counts the deliveries of one part. An event that nobody received, since all subscribers left before their part, was
    /// never written.
    fn count_part(&mut self, context: &mut Context, at: usize, outcome: &Outcome) {
        let fan_out = &mut self.fan_outs.unfinished[at];
        let (app, frame) = (fan_out.event.app, fan_out.event.frame);
        let accepted_us = if outcome.queued > 0 { std::mem::take(&mut fan_out.accepted_us) } else { 0 };
        if accepted_us > 0 {
            fan_out.event.stamp(&mut self.frames, accepted_us);
        }
        self.count_deliveries(context, app, frame, outcome);
    }

    fn count_deliveries(&mut self, context: &mut Context, app: AppSerial, frame: FrameId, outcome: &Outcome) {
        let queued = outcome.queued;
        self.frames.retain(frame, queued - outcome.retained);
        context.metrics.stats.deliveries += u64::from(queued);
        context.metrics.app_counters.of(app).messages_sent += u64::from(queued);
    }
}
