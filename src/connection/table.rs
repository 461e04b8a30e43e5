//! The table of a shard's connections: a hot line per slot, and the cold parts of those that have one.

use std::ops::{Index, IndexMut};

use slab::Slab;

use super::http::Http;
use super::{Cold, ConnectionKey, Hot, NONE, Phase};
use crate::index::Slot;

/// The state of all connections of a shard.
#[derive(Debug)]
pub struct Table {
    /// One line per slot that was ever used.
    pub hot: BySlot<Hot>,
    /// When each slot was last active, or pinged, in tenths of a second of the service clock.
    pub last_activity: BySlot<u32>,
    cold: Slab<Box<Cold>>,
}

impl Table {
    /// A table for connections in slots below `slots`. It takes the address space of all of them, of which each slot
    /// touches its own part: tables that grow by copying would leave their old allocations behind as resident memory.
    pub fn with_capacity(slots: usize) -> Self {
        Self {
            hot: BySlot(Vec::with_capacity(slots)),
            last_activity: BySlot(Vec::with_capacity(slots)),
            cold: Slab::new(),
        }
    }

    /// Ensures that the slot exists.
    pub fn reach(&mut self, slot: Slot) {
        if slot.at() >= self.hot.0.len() {
            self.hot.0.resize_with(slot.at() + 1, || Hot::FREE);
            self.last_activity.0.resize(slot.at() + 1, 0);
        }
    }

    /// All slots used so far are below this.
    pub fn slots(&self) -> u32 {
        self.hot.0.len() as u32
    }

    /// True when the key is that of the connection now in the slot.
    pub fn is_live(&self, connection: ConnectionKey) -> bool {
        let line = self.hot.0.get(connection.slot().at());
        line.is_some_and(|line| line.generation == connection.generation && line.phase != Phase::Free)
    }

    /// The key of the connection in a slot.
    pub fn key(&self, slot: Slot) -> ConnectionKey {
        ConnectionKey { slot: slot.0, generation: self.hot[slot].generation }
    }

    /// The cold part, if there is one.
    pub fn cold(&self, slot: Slot) -> Option<&Cold> {
        let index = self.hot[slot].cold;
        (index != NONE).then(|| &*self.cold[index as usize])
    }

    /// The cold part, if there is one.
    pub fn cold_mut(&mut self, slot: Slot) -> Option<&mut Cold> {
        let index = self.hot[slot].cold;
        (index != NONE).then(|| &mut *self.cold[index as usize])
    }

    /// The cold part, created if there is none.
    pub fn cold_or_default(&mut self, slot: Slot) -> &mut Cold {
        let line = &mut self.hot[slot];
        if line.cold == NONE {
            line.cold = self.cold.insert(Box::default()) as u32;
        }
        &mut self.cold[line.cold as usize]
    }

    /// Frees a cold part that holds nothing.
    pub fn drop_cold_if_empty(&mut self, slot: Slot) {
        let line = &mut self.hot[slot];
        if line.cold != NONE && self.cold[line.cold as usize].is_empty() {
            self.cold.remove(line.cold as usize);
            line.cold = NONE;
        }
    }

    /// The HTTP part of an HTTP connection.
    pub fn http(&mut self, slot: Slot) -> &mut Http {
        let cold = self.cold_mut(slot).expect("an HTTP connection has a cold part");
        cold.http.as_mut().expect("an HTTP connection has its HTTP part")
    }

    /// Marks the slot as free.
    pub fn free(&mut self, slot: Slot) {
        let line = &mut self.hot[slot];
        if line.cold != NONE {
            self.cold.remove(line.cold as usize);
        }
        *line = Hot::FREE;
    }

    /// Number of cold parts.
    pub fn cold_parts(&self) -> usize {
        self.cold.len()
    }
}

/// A column of the table: an entry per slot.
#[derive(Debug)]
pub struct BySlot<T>(Vec<T>);

impl<T> Index<Slot> for BySlot<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: Slot) -> &T {
        &self.0[slot.at()]
    }
}

impl<T> IndexMut<Slot> for BySlot<T> {
    #[inline]
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.0[slot.at()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key identifies one connection: not the previous one in its slot, nor the next. A cold part lives as long as it
    /// holds something.
    #[test]
    fn keys_and_cold_parts_end() {
        let mut table = Table::with_capacity(4);
        let (slot, key) = (Slot(2), |generation| ConnectionKey { slot: 2, generation });
        assert!(!table.is_live(key(1)), "a slot that was never used");
        table.reach(slot);
        table.hot[slot] = Hot { generation: 1, phase: Phase::Open, ..Hot::FREE };
        assert_eq!(
            (table.slots(), table.key(slot), table.is_live(key(1)), table.is_live(key(2))),
            (3, key(1), true, false)
        );
        table.cold_or_default(slot).held_back.push(1);
        table.drop_cold_if_empty(slot);
        assert_eq!((table.cold_parts(), table.cold(slot).is_some()), (1, true));
        table.cold_mut(slot).expect("it has one").held_back.clear();
        table.drop_cold_if_empty(slot);
        assert_eq!((table.cold_parts(), table.cold(slot).is_some()), (0, false));
        table.cold_or_default(slot).held_back.push(1);
        table.free(slot);
        assert_eq!((table.cold_parts(), table.is_live(key(1))), (0, false));
    }
}
