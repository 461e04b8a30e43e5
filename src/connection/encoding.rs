//! The encodings in which connections are sent the same event.

/// How a connection is sent events. A hot line has three bits for it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Encoding {
    /// A text frame, as Pusher sends it.
    #[default]
    Plain = 0,
    /// The same with the id of the event (R-HIST-6). An event without an id has the plain frame.
    WithId = 1,
    /// A server-sent event of a stream of one channel: its line `id:` is the same for all of these (R-SSE-8).
    Stream = 2,
    /// A server-sent event without a line `id:`: each stream of several channels has its own.
    StreamOfSeveral = 3,
}

impl Encoding {
    /// Encodings besides the plain one.
    pub const OTHERS: usize = 3;

    /// Its place among the encodings besides the plain one, from 0; `None` for that one.
    #[inline]
    pub const fn place(self) -> Option<usize> {
        (self as usize).checked_sub(1)
    }

    /// Whether the connection is a stream of server-sent events, and no WebSocket.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::StreamOfSeveral)
    }
}

const _: () = assert!(Encoding::OTHERS < 8, "three bits name an encoding");
