//! The driver's state for each connection: 16 bytes in addition to the 8 of its slot.

use super::token::Operation;

/// One connection. Unused while its slot is free.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    /// Its direct descriptor in the table of its ring.
    pub(super) file: u32,
    /// Bytes received in turn `turn`, for fairness.
    pub(super) received_bytes: u32,
    /// The turn that `received_bytes` counts, as far as 16 bits distinguish turns: a connection that was silent for
    /// exactly 65,536 of them may find part of its budget used up, and has its full budget in the next turn.
    pub(super) turn: u16,
    /// The number of the buffer that its receive fills.
    pub(super) buffer: u16,
    /// The ring that holds its descriptor.
    pub(super) ring: u8,
    /// One bit per operation in flight.
    operations: u8,
    flags: u16,
}

const _: () = assert!(size_of::<Connection>() == 16);

/// In place of a buffer's number while a connection does not receive.
pub(super) const NO_BUFFER: u16 = u16::MAX;

/// State of a connection to remember between completions.
///
/// ```text
///                 error, Output::Close               all operations ended            CLOSE done
///  open  ------------------------------>  Closing  ----------------------> closing  ----------> slot free
///  (poll armed)  linger if reset, cancel poll               discard unread, close      feed Closed
///                and send
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub(super) enum Flag {
    /// The core does not want to read for now.
    Paused = 1,
    /// While paused, bytes or the peer's end arrived.
    Readable = 1 << 1,
    /// The peer's end was seen: receive until it arrives, whatever the socket reports about more data.
    HangUp = 1 << 2,
    /// The end of the peer's direction was fed.
    ReadEnded = 1 << 3,
    /// FIN is to follow the borrowed bytes.
    FinWanted = 1 << 4,
    /// FIN was sent.
    FinSent = 1 << 5,
    /// It is in a list of connections whose receive is postponed.
    Waiting = 1 << 6,
    /// Closing: nothing new is started.
    Closing = 1 << 7,
    /// It is to end with RST.
    Reset = 1 << 8,
    /// The kernel took a zero-copy send and still reads its bytes (U12).
    AwaitsNotice = 1 << 9,
    /// The connection is closing and its socket is closed: it is over when its notice arrives.
    SocketClosed = 1 << 10,
}

impl Connection {
    /// The state right after accept.
    pub(super) fn new(ring: u8, file: u32) -> Self {
        Self { file, ring, buffer: NO_BUFFER, ..Self::default() }
    }
    pub(super) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u16 != 0
    }
    pub(super) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u16;
    }
    /// Clears the flag and returns whether it was set.
    pub(super) fn take(&mut self, flag: Flag) -> bool {
        let was = self.has(flag);
        self.flags &= !(flag as u16);
        was
    }
    pub(super) fn is_under_way(&self, operation: Operation) -> bool {
        self.operations & operation.bit() != 0
    }
    /// Records that an operation was pushed. There is at most one of each kind (U10).
    pub(super) fn begin(&mut self, operation: Operation) {
        debug_assert!(!self.is_under_way(operation), "{operation:?} is already in flight");
        self.operations |= operation.bit();
    }
    /// Records that an operation reported its end.
    pub(super) fn end(&mut self, operation: Operation) {
        self.operations &= !operation.bit();
    }
    /// Whether no operation is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.operations == 0
    }
}
