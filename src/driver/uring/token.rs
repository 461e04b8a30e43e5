//! Identifies the operation of a completion: which one, on which connection, in which use of the slot (U2).
//!
//! ```text
//! user_data:  63..56 operation | 55..32 slot, seat or ring | 31..0 generation
//! ```

use crate::connection::ConnectionKey;

/// All operations that are ever in flight. The first eight concern a connection and are the numbers of its bits in
/// [`Connection::operations`](super::table::Connection).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Operation {
    Poll = 0,
    Receive = 1,
    Send = 2,
    Shutdown = 3,
    Linger = 4,
    CancelPoll = 5,
    CancelSend = 6,
    Close = 7,
    /// The number is the accept's seat.
    Accept = 8,
    /// Cancels an accept, a poll or a read that does not belong to a connection, when the loop ends.
    Cancel = 9,
    /// Readiness of the mailbox's eventfd.
    Mail = 10,
    /// The eventfd of the additional ring with this number.
    Wake = 11,
}

impl Operation {
    /// The operation's bit among a connection's operations.
    pub(super) const fn bit(self) -> u8 {
        debug_assert!((self as u8) < 8, "an operation of a connection");
        1 << self as u8
    }

    fn of(number: u8) -> Option<Self> {
        ALL.get(usize::from(number)).copied()
    }
}

const ALL: [Operation; 12] = [
    Operation::Poll,
    Operation::Receive,
    Operation::Send,
    Operation::Shutdown,
    Operation::Linger,
    Operation::CancelPoll,
    Operation::CancelSend,
    Operation::Close,
    Operation::Accept,
    Operation::Cancel,
    Operation::Mail,
    Operation::Wake,
];

/// Number of slots that a token can identify.
pub(super) const SLOTS_MAX: u32 = 1 << 24;

/// Packs a connection's operation.
pub(super) fn of_connection(operation: Operation, connection: ConnectionKey) -> u64 {
    debug_assert!(connection.slot < SLOTS_MAX);
    (operation as u64) << 56 | u64::from(connection.slot) << 32 | u64::from(connection.generation)
}

/// Packs an operation of the ring itself.
pub(super) fn of_ring(operation: Operation, number: u16) -> u64 {
    (operation as u64) << 56 | u64::from(number) << 32
}

/// Unpacks; for operations of the ring itself the slot is the number. `None` for values that were never packed.
pub(super) fn unpack(user_data: u64) -> Option<(Operation, ConnectionKey)> {
    let operation = Operation::of((user_data >> 56) as u8)?;
    let slot = (user_data >> 32) as u32 & (SLOTS_MAX - 1);
    Some((operation, ConnectionKey { slot, generation: user_data as u32 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packed values are unpacked, at both ends of every field; unknown operations are detected.
    #[test]
    fn tokens_survive() {
        for (number, operation) in ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
            for slot in [0, 1, SLOTS_MAX - 1] {
                for generation in [1, u32::MAX] {
                    let connection = ConnectionKey { slot, generation };
                    assert_eq!(unpack(of_connection(operation, connection)), Some((operation, connection)));
                }
            }
        }
        assert_eq!(unpack(u64::MAX), None);
        let (operation, key) = unpack(of_ring(Operation::Accept, 65_535)).expect("packed");
        assert_eq!((operation, key.slot), (Operation::Accept, 65_535));
    }
}
