//! One connection: its key, its phases, what it owes.

/// Names one connection of one shard. A completion for an old generation is ignored.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionKey {
    /// Index into the tables of the shard and of its driver.
    pub slot: u32,
    /// Counts the uses of the slot, from 1; wraps past `u32::MAX` to 1.
    pub generation: u32,
}
