//! Fan-out within a shard: one frame into the outboxes of a channel's local subscribers.
//!
//! To queue an event to a million subscribers takes tens of milliseconds, in which nobody else would be served (U17). So
//! an event of a large channel is queued to a part of its subscribers in each turn. Nobody can tell the difference:
//!
//! - Whoever is to get something else meanwhile is first given what it has not got yet (`catch_up`): what a connection
//!   gets comes in the order in which it was accepted. So it is before a connection unsubscribes or is closed.
//! - Whoever subscribes meanwhile does not get it.

use std::collections::VecDeque;

use bytes::Bytes;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::Shard;
use super::deliver::Queue;
use super::mail::{Anywhere, ChannelKey};
use crate::app::AppSerial;
use crate::connection::outbox::{FrameId, Frames};
use crate::connection::{ConnectionKey, Flags, Hot, Phase};
use crate::limits;

/// Fan-outs that are queued to a part of their subscribers.
#[derive(Default)]
pub(super) struct FanOuts {
    /// In the order in which they were accepted.
    unfinished: VecDeque<FanOut>,
    /// Their channels, each once, in the order of their turns.
    turns: VecDeque<u32>,
    /// The number of the next one.
    next: u64,
}

/// One event to the subscribers of one channel.
struct FanOut {
    /// Later ones have greater numbers.
    number: u64,
    /// The index of the channel.
    channel: u32,
    app: AppSerial,
    event: Event,
    /// Slots below this are done with.
    next_slot: u32,
    /// Of the others, those that have it already, and those that subscribed since.
    done_with: RoaringBitmap,
}

/// What is queued to each subscriber.
#[derive(Clone, Copy)]
struct Event {
    frame: FrameId,
    frame_bytes: usize,
    exclude: Option<ConnectionKey>,
}

impl FanOuts {
    pub(super) fn is_empty(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Somebody subscribes: earlier events are not for it.
    pub(super) fn pass_over(&mut self, channel: u32, slot: u32) {
        for fan_out in self.unfinished.iter_mut().filter(|fan_out| fan_out.channel == channel) {
            fan_out.done_with.insert(slot);
        }
    }

    /// Where a fan-out stands in the queue, unless it is finished.
    fn position(&self, number: u64) -> Option<usize> {
        self.unfinished.binary_search_by_key(&number, |fan_out| fan_out.number).ok()
    }

    /// Where the oldest of a channel stands in the queue.
    fn oldest_of(&self, channel: u32) -> Option<usize> {
        self.unfinished.iter().position(|fan_out| fan_out.channel == channel)
    }
}

/// Those of a shard's tables that a fan-out changes.
struct Outboxes<'a> {
    hot: &'a mut [Hot],
    frames: &'a mut Frames,
    /// Unsent bytes beyond which a connection of the app is closed.
    bytes_max: usize,
}

impl Outboxes<'_> {
    /// Queues an event to one subscriber.
    // As a call of its own it cost each delivery 30 instructions more.
    #[inline(always)]
    fn push(&mut self, slot: u32, event: &Event, queue: &mut Queue<'_>, outcome: &mut Outcome) {
        let line = &mut self.hot[slot as usize];
        if event.exclude.is_some_and(|exclude| exclude.slot == slot && exclude.generation == line.generation) {
            return;
        }
        if self.frames.is_over_bound(&line.outbox, self.bytes_max) {
            outcome.too_slow.push(slot);
            return;
        }
        self.frames.push(&mut line.outbox, event.frame, event.frame_bytes);
        outcome.queued += 1;
        if !line.outbox.is_lent() {
            queue.push(slot, &mut line.flags);
        }
    }
}

/// What was done for one event.
#[derive(Default)]
struct Outcome {
    queued: u32,
    /// Subscribers that are behind by more than they may be.
    too_slow: SmallVec<[u32; 8]>,
}

impl Shard {
    /// Queues one event to all local subscribers of its channel but `exclude`; to those of a large channel over several
    /// turns.
    ///
    /// Per subscriber: its hot line and one entry of a queue; no allocation, no atomic, no copy.
    pub(super) fn deliver(&mut self, channel: &ChannelKey, frame: Bytes, exclude: Option<Anywhere>, accepted_us: u64) {
        if !self.fan_outs.is_empty() {
            self.catch_up_small(channel);
        }
        let Some(index) = self.find_channel(channel) else { return };
        let exclude = exclude.filter(|exclude| exclude.shard == self.config.index).map(|exclude| exclude.connection);
        let frame_bytes = frame.len();
        let frame = self.frames.hold(frame, channel.app.0);
        let event = Event { frame, frame_bytes, exclude };
        if self.is_fanned_out_in_parts(index) {
            if accepted_us > 0 {
                self.frames.stamp(frame, accepted_us);
            }
            self.begin_fan_out(index, channel.app, event);
            return;
        }
        let bytes_max = self.outbox_bytes_max(channel.app.0);
        let subscribers = &self.channels[index as usize].subscribers;
        let mut outboxes = Outboxes { hot: &mut self.hot, frames: &mut self.frames, bytes_max };
        let mut queue = self.dirty.queue_of(index, subscribers.count());
        let mut outcome = Outcome::default();
        subscribers.for_each(|slot| outboxes.push(slot, &event, &mut queue, &mut outcome));
        self.dirty.count_bulk(index);
        self.count_deliveries(channel.app, frame, outcome.queued);
        if accepted_us > 0 && outcome.queued > 0 {
            self.frames.stamp(frame, accepted_us);
        }
        self.frames.release(frame);
        for slot in outcome.too_slow {
            self.close_slow(slot);
        }
    }

    /// An event of a large channel, and every event behind it on this channel.
    fn is_fanned_out_in_parts(&self, index: u32) -> bool {
        let subscribers = self.channels[index as usize].subscribers.count();
        subscribers > self.config.options.fan_out_step || self.fan_outs.turns.contains(&index)
    }

    fn begin_fan_out(&mut self, channel: u32, app: AppSerial, event: Event) {
        if self.fan_outs.unfinished.len() == limits::FAN_OUTS_UNFINISHED_MAX {
            self.advance(self.fan_outs.unfinished[0].number, u32::MAX);
        }
        if !self.fan_outs.turns.contains(&channel) {
            self.fan_outs.turns.push_back(channel);
        }
        let number = self.fan_outs.next;
        self.fan_outs.next += 1;
        let fan_out = FanOut { number, channel, app, event, next_slot: 0, done_with: RoaringBitmap::new() };
        self.fan_outs.unfinished.push_back(fan_out);
    }

    /// Queues the oldest event of the channel whose turn it is to the next of its subscribers.
    pub(super) fn continue_fan_outs(&mut self) {
        let Some(&channel) = self.fan_outs.turns.front() else { return };
        self.fan_outs.turns.rotate_left(1);
        let oldest = self.fan_outs.oldest_of(channel).expect("channels have turns while they have fan-outs");
        self.advance(self.fan_outs.unfinished[oldest].number, self.config.options.fan_out_step);
    }

    /// Queues an event to `count` more of its subscribers.
    fn advance(&mut self, number: u64, count: u32) {
        let Some(at) = self.fan_outs.position(number) else { return };
        if at > 0 {
            let FanOut { channel, next_slot, .. } = self.fan_outs.unfinished[at];
            let slots: Vec<u32> = self.channels[channel as usize].subscribers.some_from(next_slot, count).collect();
            for slot in slots {
                self.catch_up_before(slot, number);
            }
        }
        // To be given earlier events may have closed the last subscriber.
        let Some(at) = self.fan_outs.position(number) else { return };
        let FanOut { channel, app, event, .. } = self.fan_outs.unfinished[at];
        let bytes_max = self.outbox_bytes_max(app.0);
        let fan_out = &mut self.fan_outs.unfinished[at];
        let subscribers = &self.channels[channel as usize].subscribers;
        let mut outboxes = Outboxes { hot: &mut self.hot, frames: &mut self.frames, bytes_max };
        let mut queue = self.dirty.queue_of(channel, subscribers.count());
        let mut outcome = Outcome::default();
        let mut passed = 0;
        for slot in subscribers.some_from(fan_out.next_slot, count) {
            passed += 1;
            fan_out.next_slot = slot + 1;
            if !fan_out.done_with.contains(slot) {
                outboxes.push(slot, &event, &mut queue, &mut outcome);
            }
        }
        self.dirty.count_bulk(channel);
        self.count_deliveries(app, event.frame, outcome.queued);
        if passed < count {
            self.end_fan_out(at);
        }
        for slot in outcome.too_slow {
            self.close_slow(slot);
        }
    }

    fn end_fan_out(&mut self, at: usize) {
        let FanOut { channel, event, .. } = self.fan_outs.unfinished.remove(at).expect("the caller found it");
        self.frames.release(event.frame);
        if self.fan_outs.oldest_of(channel).is_none() {
            self.fan_outs.turns.retain(|other| *other != channel);
        }
    }

    /// The channel has no subscribers any more.
    pub(super) fn drop_fan_outs(&mut self, channel: u32) {
        while let Some(at) = self.fan_outs.oldest_of(channel) {
            self.end_fan_out(at);
        }
    }

    /// Before the subscribers of a channel get an event at once, they get the earlier ones of others.
    #[cold]
    fn catch_up_small(&mut self, channel: &ChannelKey) {
        let Some(index) = self.find_channel(channel) else { return };
        if !self.is_fanned_out_in_parts(index) {
            let slots: Vec<u32> = self.channels[index as usize].subscribers.some_from(0, u32::MAX).collect();
            for slot in slots {
                self.catch_up(slot);
            }
        }
    }

    /// Queues to a connection what it has not got yet of unfinished fan-outs: something else follows.
    #[inline]
    pub(super) fn catch_up(&mut self, slot: u32) {
        if !self.fan_outs.is_empty() {
            self.catch_up_before(slot, u64::MAX);
        }
    }

    /// The same for fan-outs older than this one.
    #[cold]
    fn catch_up_before(&mut self, slot: u32, number: u64) {
        let line = &self.hot[slot as usize];
        if line.phase != Phase::Open || line.flags.contains(Flags::RESET) {
            return;
        }
        let app = AppSerial(line.app);
        let bytes_max = self.outbox_bytes_max(app.0);
        let mut outcome = Outcome::default();
        for at in 0..self.fan_outs.unfinished.len() {
            let fan_out = &mut self.fan_outs.unfinished[at];
            let subscribers = &self.channels[fan_out.channel as usize].subscribers;
            if fan_out.number >= number {
                break;
            }
            if slot < fan_out.next_slot || !subscribers.contains(slot) || !fan_out.done_with.insert(slot) {
                continue;
            }
            let (channel, event) = (fan_out.channel, fan_out.event);
            let mut outboxes = Outboxes { hot: &mut self.hot, frames: &mut self.frames, bytes_max };
            let mut queue = self.dirty.queue_of(channel, subscribers.count());
            let queued_before = outcome.queued;
            outboxes.push(slot, &event, &mut queue, &mut outcome);
            self.dirty.count_bulk(channel);
            self.count_deliveries(app, event.frame, outcome.queued - queued_before);
        }
        if !outcome.too_slow.is_empty() {
            self.close_slow(slot);
        }
    }

    fn count_deliveries(&mut self, app: AppSerial, frame: FrameId, queued: u32) {
        self.frames.retain(frame, queued);
        self.stats.deliveries += u64::from(queued);
        self.apps.of(app).messages_sent += u64::from(queued);
    }
}
