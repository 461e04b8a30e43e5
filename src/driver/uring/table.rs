//! What the driver knows about each connection: 16 bytes beside the 8 of its slot.

use super::token::Operation;

/// One connection. Dead weight while its slot is free.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    /// Its direct descriptor in the table of its ring.
    pub(super) file: u32,
    /// Bytes received in turn `turn`, for fairness.
    pub(super) received_bytes: u32,
    /// The turn that `received_bytes` counts, as far as 16 bits tell turns apart: a connection that was silent for
    /// exactly 65,536 of them may find a part of its budget used up, and has it whole in the next turn.
    pub(super) turn: u16,
    /// The number of the buffer that its receive fills.
    pub(super) buffer: u16,
    /// The ring that holds its descriptor.
    pub(super) ring: u8,
    /// A bit per operation under way.
    operations: u8,
    flags: u16,
}

const _: () = assert!(size_of::<Connection>() == 16);

/// In place of a buffer's number while a connection does not receive.
pub(super) const NO_BUFFER: u16 = u16::MAX;

/// What is to be remembered about a connection between completions.
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
    /// While paused, bytes or the end came.
    Readable = 1 << 1,
    /// The peer's end was seen: receive until it comes up, whatever the socket says about more.
    HangUp = 1 << 2,
    /// The end of the peer's direction was fed.
    ReadEnded = 1 << 3,
    /// FIN is to follow what is lent.
    FinWanted = 1 << 4,
    /// FIN was sent.
    FinSent = 1 << 5,
    /// It stands in a list of those whose receive is put off.
    Waiting = 1 << 6,
    /// On its way out: nothing new is started.
    Closing = 1 << 7,
    /// It is to end by RST.
    Reset = 1 << 8,
    /// The kernel took a zero-copy send and still reads its bytes (U12).
    AwaitsNotice = 1 << 9,
    /// On its way out, its socket is closed: it is over with its notice.
    SocketClosed = 1 << 10,
}

impl Connection {
    /// Fresh from accept.
    pub(super) fn new(ring: u8, file: u32) -> Self {
        Self { file, ring, buffer: NO_BUFFER, ..Self::default() }
    }
    pub(super) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u16 != 0
    }
    pub(super) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u16;
    }
    /// Clears it and says whether it was set.
    pub(super) fn take(&mut self, flag: Flag) -> bool {
        let was = self.has(flag);
        self.flags &= !(flag as u16);
        was
    }
    pub(super) fn is_under_way(&self, operation: Operation) -> bool {
        self.operations & operation.bit() != 0
    }
    /// Notes that an operation was pushed. There is at most one of each kind (U10).
    pub(super) fn begin(&mut self, operation: Operation) {
        debug_assert!(!self.is_under_way(operation), "{operation:?} is already in flight");
        self.operations |= operation.bit();
    }
    /// Notes that it reported its end.
    pub(super) fn end(&mut self, operation: Operation) {
        self.operations &= !operation.bit();
    }
    /// Whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.operations == 0
    }
}
