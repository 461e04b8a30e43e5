//! The history of the channels of this shard (R-HIST rules): which events are stored, and where readers continue. The
//! events are in [`crate::channel::history`].

use bytes::Bytes;

use super::{OwnedChannel, Owner};
use crate::app::{App, AppSerial, Directory};
use crate::channel::history::{Gap, Order, Part, Place, Window};
use crate::channel::name::Modifiers;
use crate::index::OwnedIndex;
use crate::limits;
use crate::protocol::event_id::EventId;
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, Continued, FoundEvent, OnGap, Reader, Resumed, WantedEvent};
use crate::shard::options::ChannelOrder;

/// Whether the events of a channel with these modifiers are kept.
pub(in crate::shard) fn keeps_history(app: &App, modifiers: Modifiers) -> bool {
    app.settings.history_events > 0 && !modifiers.no_history
}

impl Owner {
    /// Stores an event that was published over HTTP, if its channel has a history; it has a number then.
    pub(super) fn store(&mut self, context: &mut Context, channel: &ChannelKey, frame: &Bytes) -> Option<Order> {
        let window = window_of(context, channel)?;
        let index = self.find_or_insert(channel);
        let (place, record) = (self.channels[index].place(index), self.channels[index].record);
        let now_ms = context.now.monotonic_ms;
        let (record, order) = self.histories.push(place, record, &window, frame.clone(), now_ms);
        self.channels[index].record = Some(record);
        self.forget_ended_records(context);
        if !self.polls.is_empty() {
            self.wake_polls(context, channel, order.sequence.get(), frame);
        }
        Some(order)
    }

    /// The position of a channel, also of an unknown one; `None` without history (R-HIST-8).
    pub(in crate::shard) fn position(&mut self, context: &Context, channel: &ChannelKey) -> Option<u64> {
        window_of(context, channel)?;
        let group = ChannelOrder::group(channel.hash);
        Some(self.histories.position(channel.app, group, context.now.monotonic_ms))
    }

    /// The events of a channel after a position, or `None` without history. A position that cannot be honored is a gap,
    /// and reading starts with the oldest event (R-HIST-4).
    pub(in crate::shard) fn read_history(
        &mut self,
        context: &mut Context,
        channel: &ChannelKey,
        after: Result<u64, Gap>,
        bytes_max: usize,
        events_max: usize,
    ) -> Option<Continued> {
        let window = window_of(context, channel)?;
        let record = |owner: &Self| owner.find(channel).and_then(|index| owner.channels[index].record);
        let place = (channel.app, ChannelOrder::group(channel.hash));
        let now_ms = context.now.monotonic_ms;
        let (start, gap) = self.histories.resume(place, record(self), &window, after, now_ms);
        self.forget_ended_records(context);
        let part = record(self).map(|record| self.histories.read(record, start, bytes_max, events_max));
        let part = part.unwrap_or(Part { events: Vec::new(), complete: true });
        Some(Continued { start, gap, part })
    }

    /// A kept event of an app that a replay names.
    pub(in crate::shard) fn find_event(
        &self,
        context: &Context,
        app: AppSerial,
        event: &WantedEvent,
    ) -> Option<FoundEvent> {
        let window = context.directory.app(app).and_then(|app| window(app, context.config.shards))?;
        let WantedEvent { number, group, sequence } = *event;
        let now_ms = context.now.monotonic_ms;
        let (index, frame) = self.histories.find((app, group), sequence, &window, now_ms)?;
        Some(FoundEvent { number, channel: self.channels[index].key.name.clone(), frame: frame.clone() })
    }

    /// Where readers continue that named a position; a reader that accepts no gap is refused at one (R-HIST-10).
    pub(super) fn resume(&mut self, context: &mut Context, channel: &ChannelKey, readers: Vec<Reader>) -> Vec<Resumed> {
        let resumed = readers.into_iter().filter_map(|Reader { connection, ticket, after, on_gap }| {
            let after = after?;
            let position = after.and_then(|id| sequence_of(context, channel, id));
            let bytes_max = limits::RESUME_PART_BYTES;
            let continued = self.read_history(context, channel, position, bytes_max, usize::MAX);
            let has_gap = continued.as_ref().is_none_or(|continued| continued.gap.is_some());
            Some(Resumed {
                connection,
                ticket,
                after: after.ok(),
                continued,
                refused: has_gap && on_gap == OnGap::Fail,
            })
        });
        resumed.collect()
    }

    /// Whether a reader that accepts no gap has one.
    pub(super) fn must_refuse(&mut self, context: &mut Context, channel: &ChannelKey, reader: Option<&Reader>) -> bool {
        let Some(Reader { after: Some(after), on_gap: OnGap::Fail, .. }) = reader else { return false };
        let position = after.and_then(|id| sequence_of(context, channel, id));
        self.read_history(context, channel, position, 0, 0).is_none_or(|continued| continued.gap.is_some())
    }

    /// A channel has subscribers that know a position: its record shows later which events they missed (R-HIST-11).
    pub(super) fn open_history(&mut self, context: &Context, index: OwnedIndex) {
        let owned = &self.channels[index];
        if owned.record.is_none()
            && let Some(window) = window_of(context, &owned.key)
        {
            let record = self.histories.open(owned.place(index), &window, context.now.monotonic_ms);
            self.channels[index].record = Some(record);
        }
    }

    /// The channel has subscribers.
    pub(super) fn occupy(&mut self, index: OwnedIndex) {
        if let Some(record) = self.channels[index].record {
            self.histories.occupy(record);
        }
    }

    /// The channel has no subscribers, but a history.
    pub(super) fn vacate(&mut self, context: &mut Context, index: OwnedIndex) {
        let (Some(record), Some(window)) = (self.channels[index].record, window_of(context, &self.channels[index].key))
        else {
            return;
        };
        self.histories.vacate(record, &window, context.now.monotonic_ms);
        self.forget_ended_records(context);
    }

    /// When events may have expired, on the monotonic clock.
    pub(in crate::shard) fn history_due_ms(&self) -> Option<u64> {
        self.histories.due_ms()
    }

    /// Drops events that have expired.
    pub(in crate::shard) fn expire_history(&mut self, context: &mut Context) {
        let shards = context.config.shards;
        let directory = &context.directory;
        let window = |app| directory.app(app).and_then(|app| window(app, shards));
        self.histories.expire(context.now.monotonic_ms, window);
        self.forget_ended_records(context);
    }

    /// The store changed. Where history ended or its time is another one, older positions are gaps.
    pub(super) fn restart_changed_histories(&mut self, context: &mut Context, before: &Directory) {
        let shards = context.config.shards;
        let age_of = |directory: &Directory, app: AppSerial| {
            directory.app(app).and_then(|app| window(app, shards)).map(|window| window.age_ms)
        };
        let now = std::sync::Arc::clone(&context.directory);
        let apps: Vec<AppSerial> =
            self.histories.apps().filter(|app| age_of(before, *app) != age_of(&now, *app)).collect();
        for app in apps {
            self.histories.restart(app);
            self.forget_ended_records(context);
            if now.app(app).is_none() {
                self.histories.remove_app(app);
            }
            self.end_polls_of(context, app);
        }
    }

    /// Events kept, and their bytes.
    pub(in crate::shard) fn history_count(&self) -> (usize, usize) {
        (self.histories.events(), self.histories.bytes())
    }

    /// Channels whose records ended are known only if something else needs them.
    fn forget_ended_records(&mut self, context: &mut Context) {
        while let Some(index) = self.histories.take_forgotten() {
            self.channels[index].record = None;
            self.forget_if_unused(context, index);
        }
    }
}

impl OwnedChannel {
    fn place(&self, index: OwnedIndex) -> Place {
        Place {
            app: self.key.app,
            group: ChannelOrder::group(self.key.hash),
            channel: index,
            name_bytes: self.key.name.len(),
            is_occupied: self.subscriber_count() > 0,
        }
    }
}

/// The sequence of an id that a client named on a channel (R-HIST-4).
pub(in crate::shard) fn sequence_of(context: &Context, channel: &ChannelKey, id: EventId) -> Result<u64, Gap> {
    let own = context.config.order.event_id(channel.app, ChannelOrder::group(channel.hash), id.sequence);
    if id.epoch != own.epoch {
        return Err(Gap::Epoch);
    }
    if id.group == own.group { Ok(id.sequence) } else { Err(Gap::Unreadable) }
}

/// The limits of the history of a channel on its shard; `None` without history.
fn window_of(context: &Context, channel: &ChannelKey) -> Option<Window> {
    let app = context.directory.app(channel.app)?;
    if keeps_history(app, Modifiers::of(&channel.name)) { window(app, context.config.shards) } else { None }
}

/// The limits of the history of an app on one shard.
fn window(app: &App, shards: u16) -> Option<Window> {
    let settings = &app.settings;
    (settings.history_events > 0).then(|| Window {
        events: settings.history_events,
        age_ms: u64::from(settings.history_seconds) * 1_000,
        bytes: (settings.history_bytes as usize).div_ceil(usize::from(shards)),
    })
}
