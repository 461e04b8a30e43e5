//! State that tests inspect.

use bytes::Bytes;

use super::Connections;
use crate::connection::outbox::{FrameId, FrameKind};
use crate::connection::{ConnectionKey, Flags, Phase};
use crate::index::Slot;

impl Connections {
    /// Keys of the live connections.
    pub(in crate::shard) fn live(&self) -> Vec<ConnectionKey> {
        let slots = (0..self.slots()).map(Slot);
        slots.filter(|slot| self.table.hot[*slot].phase != Phase::Free).map(|slot| self.key(slot)).collect()
    }

    pub(in crate::shard) fn flags(&self, slot: Slot) -> Flags {
        self.table.hot[slot].flags
    }

    /// Cold parts, bytes of input and of lists, and connections that the driver has yet to close.
    pub(in crate::shard) fn leftovers(&self) -> (usize, usize, usize, u32) {
        (self.table.cold_parts(), self.input.bytes(), self.lists.bytes(), self.capacity.ending)
    }

    pub(in crate::shard) fn input_bytes(&self) -> usize {
        self.input.bytes()
    }

    pub(in crate::shard) fn list_bytes(&self) -> usize {
        self.lists.bytes()
    }

    pub(in crate::shard) fn frame_bytes(&self) -> usize {
        self.frames.shares().total()
    }

    pub(in crate::shard) fn send_queue_capacity(&self) -> usize {
        self.send_queue.capacity()
    }

    pub(in crate::shard) fn has_fan_outs(&self) -> bool {
        !self.fan_outs.is_empty()
    }

    /// Holds a frame of these bytes, to fill memory.
    pub(in crate::shard) fn fill(&mut self, bytes: Bytes, app: u32) -> FrameId {
        self.frames.hold(bytes, app, FrameKind::Control)
    }
}
