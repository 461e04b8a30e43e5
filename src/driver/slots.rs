//! Which connection slots of a shard are free, and how often each has been used.
//!
//! A slot is taken at accept and released when its connection has reported its end. The slot released last is taken
//! first, so that the slots in use stay few and warm. Slots are first touched when first taken: an unused table costs
//! address space only. Eight bytes per slot.

use crate::connection::ConnectionKey;

/// The slots of one shard.
#[derive(Debug)]
pub struct Slots {
    /// Entries of all slots that were ever taken; the length is the high-water mark.
    entries: Vec<Entry>,
    first_free: u32,
    in_use: u32,
    capacity: u32,
    refusal: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The generation of the current or most recent use.
    generation: u32,
    /// The next free slot, `NONE` at the end of the list, `TAKEN` while in use.
    next_free: u32,
}

/// A slot was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// An ordinary slot.
    Ordinary(ConnectionKey),
    /// A reserved slot: the node is full, and the connection is accepted only to be refused (P-CLOSE-2).
    ToRefuse(ConnectionKey),
}

impl Taken {
    /// The key of the new connection.
    pub fn connection(self) -> ConnectionKey {
        match self {
            Self::Ordinary(connection) | Self::ToRefuse(connection) => connection,
        }
    }
    /// Whether the connection is to be refused.
    pub fn is_to_refuse(self) -> bool {
        match self {
            Self::Ordinary(_) => false,
            Self::ToRefuse(_) => true,
        }
    }
}

impl Slots {
    /// `capacity` slots, of which `refusal` are reserved. Allocates address space and touches nothing.
    pub fn new(capacity: u32, refusal: u32) -> Self {
        assert!(capacity <= CAPACITY_MAX, "slot numbers above are reserved");
        Self { entries: Vec::with_capacity(capacity as usize), first_free: NONE, in_use: 0, capacity, refusal }
    }

    /// Takes a slot and gives it a new generation; returns `None` when all slots are in use.
    pub fn take(&mut self) -> Option<Taken> {
        let slot = self.first_free;
        let connection = if let Some(entry) = self.entries.get_mut(slot as usize) {
            self.first_free = entry.next_free;
            entry.next_free = TAKEN;
            entry.generation = entry.generation.checked_add(1).unwrap_or(1);
            ConnectionKey { slot, generation: entry.generation }
        } else {
            let slot = u32::try_from(self.entries.len()).expect("bounded by CAPACITY_MAX");
            if slot == self.capacity {
                return None;
            }
            self.entries.push(Entry { generation: 1, next_free: TAKEN });
            ConnectionKey { slot, generation: 1 }
        };
        self.in_use += 1;
        if self.in_use > self.capacity.saturating_sub(self.refusal) {
            Some(Taken::ToRefuse(connection))
        } else {
            Some(Taken::Ordinary(connection))
        }
    }

    /// Releases a slot. The key must be current: a double release is a bug in Relay.
    pub fn release(&mut self, connection: ConnectionKey) {
        assert!(self.is_current(connection), "a slot is released once, by the key that took it");
        let entry = &mut self.entries[connection.slot as usize];
        entry.next_free = self.first_free;
        self.first_free = connection.slot;
        self.in_use -= 1;
    }

    /// Whether the key refers to a connection that currently holds its slot; the key of a late completion does not.
    pub fn is_current(&self, connection: ConnectionKey) -> bool {
        self.entries
            .get(connection.slot as usize)
            .is_some_and(|entry| entry.next_free == TAKEN && entry.generation == connection.generation)
    }

    /// The current key of a slot, `None` while it is free.
    pub fn current(&self, slot: u32) -> Option<ConnectionKey> {
        let entry = self.entries.get(slot as usize).filter(|entry| entry.next_free == TAKEN)?;
        Some(ConnectionKey { slot, generation: entry.generation })
    }

    /// Whether no slot is free.
    pub fn is_full(&self) -> bool {
        self.in_use == self.capacity
    }

    /// Slots in use.
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// All slots, including the reserved ones.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// One more than the highest slot ever taken: the length that parallel tables need.
    pub fn high_water(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("bounded by CAPACITY_MAX")
    }
}

const NONE: u32 = u32::MAX;
const TAKEN: u32 = u32::MAX - 1;
/// Maximum number of slots in one table.
pub const CAPACITY_MAX: u32 = 1 << 30;
const _: () = assert!(size_of::<Entry>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    /// P-CLOSE-2: the reserved slots are marked, in whatever order slots are released; a full table returns none.
    #[test]
    fn the_last_slots_are_to_refuse() {
        let mut slots = Slots::new(4, 2);
        let taken: Vec<Taken> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken.iter().map(|t| t.is_to_refuse()).collect::<Vec<_>>(), [false, false, true, true]);
        slots.release(taken[0].connection());
        assert_eq!(slots.take(), Some(Taken::ToRefuse(ConnectionKey { slot: 0, generation: 2 })));
        slots.release(taken[1].connection());
        slots.release(taken[2].connection());
        slots.release(taken[3].connection());
        assert_eq!(slots.take(), Some(Taken::Ordinary(ConnectionKey { slot: 3, generation: 2 })));
        assert_eq!(slots.in_use(), 2);
    }

    /// An old key is not current once its slot was released, nor when the slot is in use again.
    #[test]
    fn generations_tell_uses_apart() {
        let mut slots = Slots::new(1, 0);
        let first = slots.take().expect("free").connection();
        slots.release(first);
        assert!(!slots.is_current(first));
        let second = slots.take().expect("free").connection();
        assert!(!slots.is_current(first) && slots.is_current(second));
        assert_eq!(slots.current(0), Some(second));
        assert_eq!(slots.current(1), None);
    }

    /// The generation wraps past its maximum to 1, as the contract of `ConnectionKey` says.
    #[test]
    fn generation_wraps_to_one() {
        let mut slots = Slots::new(1, 0);
        let key = slots.take().expect("free").connection();
        slots.release(key);
        slots.entries[0].generation = u32::MAX;
        assert_eq!(slots.take().expect("free").connection(), ConnectionKey { slot: 0, generation: 1 });
    }

    /// Releasing a slot twice is a broken invariant; it does not make the slot free twice.
    #[test]
    #[should_panic(expected = "released once")]
    fn double_release_panics() {
        let mut slots = Slots::new(2, 0);
        let key = slots.take().expect("free").connection();
        slots.release(key);
        slots.release(key);
    }
}
