//! One connection: its key, its phases, and the two parts of its state.
//!
//! The hot line is one cache line per slot and is all that fan-out touches. The cold part is boxed and exists only
//! while a connection needs it: during HTTP, with a partial frame, on presence channels, signed in, beyond three
//! channels.

pub mod encoding;
pub mod http;
pub mod input;
pub mod outbox;
pub mod share;
pub mod table;

use std::net::IpAddr;
use std::sync::Arc;

use crate::index::{ChannelIndex, Slot, UserIndex};
use crate::limits::INVALID_MESSAGES_TENTHS;
use crate::wire::websocket::Decoder;
use http::Http;
use input::HeldInput;
use outbox::Outbox;

/// Names one connection of one shard. A completion for an old generation is ignored.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionKey {
    /// Index into the tables of the shard and of its driver.
    pub slot: u32,
    /// Counts the uses of the slot, from 1; wraps past `u32::MAX` to 1.
    pub generation: u32,
}

impl ConnectionKey {
    /// Its slot as an index.
    pub const fn slot(self) -> Slot {
        Slot(self.slot)
    }
}

/// No index: the end of every `u32` handle's range.
pub const NONE: u32 = u32::MAX;

/// The phase of a connection.
///
/// ```text
/// Free -> Http -> Admitting -> Open -> Closing -> Ended -> Free
///           |          |         |        ^
///           |          +---------+--------+   refusal, error, drain, peer's Close
///           +-> Lingering -> Ended            answered for the last time, waits for the peer's FIN
/// ```
/// `Ended` means that the driver was asked to close and has not yet reported `Closed`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Phase {
    /// The slot is not in use.
    Free,
    /// Reads HTTP requests.
    Http,
    /// The upgrade was answered; the app's owner is asked whether there is capacity (P-CLOSE-2).
    Admitting,
    /// A WebSocket after `connection_established`.
    Open,
    /// Our Close frame is queued or sent; only the peer's Close is still read.
    Closing,
    /// The last HTTP answer is queued or sent; input is discarded until the peer's FIN (P-HTTP-16).
    Lingering,
    /// The driver is closing it.
    Ended,
}

bitflags::bitflags! {
    /// Boolean state of a connection, one bit each.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct Flags: u16 {
        /// It is in the queue of connections to send answers to.
        const ANSWER_QUEUED = 1;
        /// The driver was asked not to read from it.
        const PAUSED = 1 << 1;
        /// A WebSocket ping was sent and nothing was received since (P-LIVE-4).
        const AWAITING_PONG = 1 << 2;
        /// It counts towards its app's connections.
        const COUNTED = 1 << 3;
        /// The peer's Close frame was received.
        const PEER_CLOSED = 1 << 4;
        /// The peer's direction ended (FIN).
        const READ_ENDED = 1 << 5;
        /// The kernel held a send at the sweep's last visit, and has accepted nothing since (P-CLOSE-5).
        const STALLED = 1 << 6;
        /// The connection ends with the answer that is queued last.
        const LAST_ANSWER = 1 << 7;
        /// The kernel held a send at two visits of the sweep, and accepted nothing in between.
        const STALLED_LONG = 1 << 8;
        /// It has subscriptions that are catching up with the history (R-HIST-12).
        const CATCHING_UP = 1 << 9;
        /// It was closed as a slow reader: reset it at the deadline.
        const RESET = 1 << 10;
        /// Our Close frame is queued: no frame may follow it (RFC 6455 section 5.5.1).
        const CLOSE_QUEUED = 1 << 11;
        /// It has yet to sign in or join a protected channel, and does not count towards its app's connections
        /// (P-AUTHZ-1).
        const UNAUTHORIZED = 1 << 12;
        /// The shard's queue has a deadline for a message of it (threat T8).
        const MESSAGE_AWAITED = 1 << 13;
        /// It is in the queue of connections to send events to.
        const EVENT_QUEUED = 1 << 14;
        /// It is in the queue of a large channel.
        const BULK_QUEUED = 1 << 15;
    }
}

impl Flags {
    /// Sets the flag; true when it was clear before.
    pub fn raise(&mut self, flag: Self) -> bool {
        let was_clear = !self.contains(flag);
        self.insert(flag);
        was_clear
    }
}

const _: () = {
    let flags = <Flags as bitflags::Flags>::FLAGS.len();
    assert!(Flags::all().bits().count_ones() as usize == flags, "each flag has a bit of its own");
};

/// Channels in the hot line; further ones are in the cold part.
pub const CHANNELS_INLINE: usize = 3;

/// The hot line of one slot: 64 bytes, one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Hot {
    /// Generation of the connection in the slot.
    pub generation: u32,
    /// Serial of its app, or `NONE` before the handshake.
    pub app: u32,
    /// Index of its cold part, or `NONE`.
    pub cold: u32,
    /// Of a WebSocket, the theoretical arrival time of its next client event, in hundredths of a ms of the monotonic
    /// clock, wrapping (P-LIM-9). Of a stream, its index in the table of streams, or `NONE` once it has ended.
    pub due_or_stream: u32,
    /// Its unsent frames.
    pub outbox: Outbox,
    /// Its first subscribed channels (indices of the shard's local channels).
    pub channels: [ChannelIndex; CHANNELS_INLINE],
    /// How many of `channels` are in use.
    pub channels_inline: u8,
    /// Its phase.
    pub phase: Phase,
    /// Boolean state.
    pub flags: Flags,
}

const _: () = assert!(size_of::<Hot>() == 64, "one cache line per connection");

impl Hot {
    /// An unused line.
    pub const FREE: Self = Self {
        generation: 0,
        app: NONE,
        cold: NONE,
        due_or_stream: 0,
        outbox: Outbox::EMPTY,
        channels: [ChannelIndex(NONE); CHANNELS_INLINE],
        channels_inline: 0,
        phase: Phase::Free,
        flags: Flags::empty(),
    };

    /// The channels in the hot line.
    pub fn inline_channels(&self) -> &[ChannelIndex] {
        &self.channels[..usize::from(self.channels_inline)]
    }
}

/// The cold part of a connection.
#[derive(Debug, Default)]
pub struct Cold {
    /// Present while it is an HTTP connection.
    pub http: Option<Box<Http>>,
    /// A partial frame or message.
    pub decoder: Decoder,
    /// Bytes that arrived while the connection was being admitted; at most one read.
    pub held_back: Vec<u8>,
    /// The memory counted for the buffers in here.
    pub input: Option<Box<HeldInput>>,
    /// The client's address, while the connection is being admitted: for the log, in case it is refused.
    pub client: Option<IpAddr>,
    /// When the message in `decoder` must be complete, in ms of the service clock; 0 when none is partial (threat T8).
    pub message_deadline_ms: u64,
    /// Malformed messages of the last minute in which there were any (P-IN-3).
    pub invalid_messages: InvalidMessages,
    /// Channels beyond those in the hot line.
    pub more_channels: Vec<ChannelIndex>,
    /// User id per presence channel that it has joined or is joining.
    pub members: Vec<(ChannelIndex, Arc<str>)>,
    /// The user signed in on it (P-USER-2).
    pub signed_in: Option<Box<SignedIn>>,
}

/// A count per minute: the minute begins with the first message that is counted (P-IN-3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct InvalidMessages {
    /// When the minute began, in tenths of a second of the service clock.
    since: u32,
    count: u8,
}

impl InvalidMessages {
    /// Counts one message. Returns the count of this minute.
    pub fn count(&mut self, now_tenths: u32) -> u8 {
        if self.count == 0 || now_tenths.wrapping_sub(self.since) >= INVALID_MESSAGES_TENTHS {
            *self = Self { since: now_tenths, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

/// The user of a connection, for its lifetime (P-USER-2).
#[derive(Debug)]
pub struct SignedIn {
    /// The shard's entry of the user.
    pub user: UserIndex,
    /// The id of the user.
    pub id: Arc<str>,
    /// `user_info` as raw JSON text, for presence channels (P-USER-5).
    pub user_info: Option<Box<str>>,
    /// The users that it watches (P-WATCH-1).
    pub watched: Box<[UserIndex]>,
    /// How many answers must arrive before the client is sent who of them is online: one for each of them, and one for
    /// the signin.
    pub awaited: u32,
    /// Signins that are not yet answered.
    pub signins_waiting: u8,
    /// The owner of the user has recorded it.
    pub recorded: bool,
}

impl Cold {
    /// Memory for incomplete input, in bytes.
    pub fn input_bytes(&self) -> usize {
        let http = self.http.as_deref().map_or(0, Http::input_bytes);
        http + self.decoder.held_bytes().unwrap_or(0) + self.held_back.capacity()
    }

    /// True when nothing is held and the cold part can be dropped.
    pub fn is_empty(&self) -> bool {
        self.http.is_none()
            && self.decoder.is_idle()
            && self.held_back.is_empty()
            && self.input.is_none()
            && self.client.is_none()
            && self.invalid_messages == InvalidMessages::default()
            && self.more_channels.is_empty()
            && self.members.is_empty()
            && self.signed_in.is_none()
    }
}
