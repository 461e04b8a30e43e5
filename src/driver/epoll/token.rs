//! Identifies the source of an event of the set.

use rustix::event::epoll::EventData;

use crate::connection::ConnectionKey;

/// The source of an event, encoded as the kernel's event data: generations start at 1, so 0 marks sources other than
/// connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Token {
    Wake,
    Listener(u32),
    Connection(ConnectionKey),
}

impl Token {
    pub(super) fn encode(self) -> EventData {
        let (generation, slot) = match self {
            Self::Wake => (0, u32::MAX),
            Self::Listener(number) => (0, number),
            Self::Connection(connection) => (connection.generation, connection.slot),
        };
        EventData::new_u64(u64::from(generation) << 32 | u64::from(slot))
    }

    pub(super) fn decode(data: EventData) -> Self {
        let generation = u32::try_from(data.u64() >> 32).expect("32 bits");
        let slot = u32::try_from(data.u64() & u64::from(u32::MAX)).expect("32 bits");
        match (generation, slot) {
            (0, u32::MAX) => Self::Wake,
            (0, number) => Self::Listener(number),
            (generation, slot) => Self::Connection(ConnectionKey { slot, generation }),
        }
    }
}
