//! Streams of server-sent events as subscribers (R-SSE rules). All channels of a stream record it first; until then it is
//! sent no event. Then it is opened: it is sent its head, the gaps and the missed events, and is live.
//!
//! ```text
//! waiting -- Recorded, Observed --> opening -- all channels --> subscriber, maybe catching up
//! ```
//!
//! On a presence channel a stream observes: the owner counts it as a subscriber, but not as a member.

use bytes::Bytes;

use super::resume::missed_events;
use super::{Channels, Waiting, remove_from};
use crate::api::refusal::Refusal;
use crate::channel::history::Part;
use crate::channel::name::{ChannelKind, Modifiers};
use crate::connection::ConnectionKey;
use crate::index::{ChannelIndex, Slot};
use crate::protocol::server_event;
use crate::shard::connections::{AskedChannel, Connections};
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, Continued, HistoryAnswer, OnGap, OwnerMessage, Reader, Resumed};

impl Channels {
    /// A stream was admitted: it subscribes to its channels.
    pub(in crate::shard) fn start_stream(&mut self, context: &mut Context, connections: &mut Connections, slot: Slot) {
        let connection = connections.key(slot);
        let Some(opening) = connections.opening_mut(slot) else { return };
        let asked: Vec<AskedChannel> = opening.channels.iter().map(|channel| channel.asked.clone()).collect();
        for (at, AskedChannel { key, kind, after }) in asked.into_iter().enumerate() {
            let index = self.find_or_insert(context, &key, kind);
            connections.add_subscription(slot, index);
            if let Some(opening) = connections.opening_mut(slot) {
                opening.channels[at].index = Some(index);
            }
            let mut reader = Reader { connection, ticket: 0, after, on_gap: OnGap::Tail };
            if kind == ChannelKind::Presence {
                let ticket = self.next_ticket();
                reader.ticket = ticket;
                let entry = &mut self.channels[index];
                entry.waiting.push_back(Waiting { connection, ticket, reader: None });
                context.send(entry.owner, OwnerMessage::Observe { channel: key, reader });
            } else {
                let reader = Some(Box::new(reader));
                self.channels[index].waiting.push_back(Waiting { connection, ticket: 0, reader });
                self.report_count(context, index);
            }
        }
    }

    /// The owner of a presence channel has recorded a stream.
    pub(super) fn handle_observed(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        channel: &ChannelKey,
        (ticket, cached, answer): (u32, Option<Bytes>, HistoryAnswer),
    ) {
        let HistoryAnswer { position, resumed } = answer;
        let Some((index, waiting)) = self.take_waiting(channel, ticket) else {
            // It was closed meanwhile.
            let channel = channel.clone();
            return context.send(context.owner_of(&channel), OwnerMessage::Unobserve { channel });
        };
        self.channels[index].expect_from(position);
        let resumed = resumed.into_iter().next();
        self.note_recorded(context, connections, (waiting.connection, index), position, (resumed, cached));
    }

    /// A channel has recorded a stream at this position. After the last one the stream is opened.
    pub(super) fn note_recorded(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        (connection, index): (ConnectionKey, ChannelIndex),
        position: Option<u64>,
        (resumed, cached): (Option<Resumed>, Option<Bytes>),
    ) {
        let slot = connection.slot();
        let entry = &mut self.channels[index];
        entry.opening.get_or_insert_default().insert(slot);
        let seen = entry.last;
        let Some(opening) = connections.opening_mut(slot) else { return };
        let is_only_channel = opening.channels.len() == 1;
        let found = opening.channels.iter_mut().find(|channel| channel.index == Some(index));
        let channel = found.expect("a stream joins its own channels");
        channel.seen = seen;
        let key = &channel.asked.key;
        if Modifiers::of(&key.name).cache && resumed.as_ref().is_none_or(Resumed::needs_cached) {
            let name = &key.name;
            let miss = || context.text_frame(|out| server_event::encode_cache_miss(out, name));
            channel.cached = Some(cached.unwrap_or_else(miss));
        }
        match resumed {
            None => channel.start = position,
            Some(Resumed { after, continued: None, .. }) => {
                channel.gap = Some(missed_events(context, key, after, None));
            }
            Some(Resumed { after, continued: Some(Continued { start, gap, part }), .. }) => {
                channel.start = Some(start);
                channel.gap = gap.map(|gap| missed_events(context, key, after, Some((start, gap))));
                // Of several channels only one may send its missed events at once: they are all asked again.
                let missed =
                    if is_only_channel { part } else { Part { complete: part.events.is_empty(), ..Part::default() } };
                channel.missed = Some(missed);
            }
        }
        opening.awaited -= 1;
        if opening.awaited == 0 {
            self.open_stream(context, connections, slot);
        }
    }

    /// All channels have recorded a stream.
    fn open_stream(&mut self, context: &mut Context, connections: &mut Connections, slot: Slot) {
        let Some(opening) = connections.begin_stream(context, slot) else { return };
        for channel in &opening.channels {
            let index = channel.index.expect("every channel was asked");
            self.end_opening(index, slot);
            self.channels[index].subscribers.insert(slot);
            context.metrics.stats.subscriptions += 1;
        }
        for channel in opening.channels {
            let index = channel.index.expect("every channel was asked");
            if let Some(start) = channel.start {
                // Events since the channel recorded it were not delivered to it.
                let has_later = self.channels[index].last != channel.seen;
                let Part { events, complete } = channel.missed.unwrap_or(Part { events: Vec::new(), complete: true });
                let part = Part { events, complete: complete && !has_later };
                self.continue_from(context, connections, (slot, index), start, &part);
            }
            if let Some(cached) = channel.cached {
                connections.send_to_stream(context, slot, &cached);
            }
        }
        self.catch_up(context, connections, slot);
    }

    /// A stream is no longer opening on a channel; true if it was.
    pub(super) fn end_opening(&mut self, index: ChannelIndex, slot: Slot) -> bool {
        remove_from(&mut self.channels[index].opening, slot)
    }

    /// The app has its maximum of channels.
    pub(super) fn refuse_stream(context: &mut Context, connections: &mut Connections, slot: Slot, channels_max: u32) {
        connections.refuse_stream(context, slot, &Refusal::over_channels(channels_max));
    }
}
