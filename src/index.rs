//! Indices into the tables of a shard, each of its own type: a channel's index cannot be mistaken for a connection's.

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub u32);

        impl $name {
            /// Its position in a table.
            pub const fn at(self) -> usize {
                self.0 as usize
            }
        }

        impl From<usize> for $name {
            /// Tables have fewer than 2^32 entries.
            fn from(at: usize) -> Self {
                Self(at as u32)
            }
        }

        impl From<$name> for usize {
            fn from(index: $name) -> Self {
                index.at()
            }
        }
    };
}

index! {
    /// A connection's slot, in the tables of its shard and of its driver.
    Slot
}

index! {
    /// A channel in a shard's table of channels with local subscribers.
    ChannelIndex
}

index! {
    /// A channel in the table of its owner.
    OwnedIndex
}

index! {
    /// A user in a shard's table of users that are signed in or watched there.
    UserIndex
}

/// Index of a shard in its process, from 0.
pub type ShardIndex = u16;
