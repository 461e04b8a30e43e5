//! Past events that readers are sent after a subscribe (R-HIST-7): readers of the same turn share the frames.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::quality::FixedState;

use super::Connections;
use super::fan_out::encode_frame;
use crate::connection::encoding::Encoding;
use crate::connection::outbox::{FrameId, FrameKind};
use crate::index::{ChannelIndex, Slot};
use crate::limits;
use crate::protocol::event_id::EventId;
use crate::shard::context::Context;

/// Frames of past events, by their ids, which no client chooses, and encodings; each has a reference of this list.
#[derive(Default)]
pub(super) struct PastEvents(HashMap<(EventId, Encoding), FrameId, FixedState>);

impl Connections {
    /// Queues a past event of a channel to one connection, with its id.
    pub(in crate::shard) fn send_past_event(
        &mut self,
        context: &mut Context,
        (slot, channel): (Slot, ChannelIndex),
        plain: &[u8],
        id: EventId,
    ) {
        if self.past_events.0.len() == limits::PAST_EVENTS_SHARED_MAX {
            self.release_past_events();
        }
        let (encoding, app) = (self.table.hot[slot].outbox.encoding(), self.table.hot[slot].app);
        if encoding == Encoding::StreamOfSeveral {
            self.send_cursor(context, slot, channel, id);
        }
        let frames = &mut self.frames;
        let frame = match self.past_events.0.entry((id, encoding)) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let Some(bytes) = encode_frame(plain, encoding, Some(id)) else { return };
                *entry.insert(frames.hold(bytes, app, FrameKind::Event))
            }
        };
        self.send_held(context, slot, frame);
    }

    /// The turn ends: its readers have their references.
    pub(in crate::shard) fn release_past_events(&mut self) {
        for (_, frame) in self.past_events.0.drain() {
            self.frames.release(frame);
        }
    }
}
