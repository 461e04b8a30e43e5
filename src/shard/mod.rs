//! The sans-IO core: everything that decides. A shard owns its connections and its share of the channels; it opens no
//! descriptor, reads no clock, draws no randomness.
//!
//! # Contract with a driver
//! Feed a whole batch of inputs with [`Shard::handle_input`], then drain [`Shard::poll_output`] and
//! [`Shard::poll_flush`] until both give `None`, then sleep until [`Shard::poll_timeout`] or the next event.
//! That alone gives one send per connection and turn.
//!
//! - The driver gives out slots. It feeds `Accepted` once per connection, and `Closed` once, as the last input for
//!   that key, when no operation on the connection is under way any more; only then may the slot be used again.
//! - `poll_flush` lends the bytes of one send. They stay valid and unmoved until `Sent` or `Closed` is fed for that
//!   connection; there is at most one send per connection at a time.
//! - `Sent { bytes: n }` may report less than was lent (a short send): the rest comes up in a later `poll_flush`.
//!   A send that would block is not reported until the socket took something.
//! - After [`Output::Close`] the driver ends the connection (operations cancelled, socket closed) and feeds `Closed`.
//!   After a reset or an end of stream seen by the driver it feeds `Closed` (reset, error) or `ReadEnded`
//!   (orderly end of the peer's direction; the shard then decides and answers with `Close`).
//! - Every number of mails may be in flight between shards; per pair of shards they arrive in the order sent, none
//!   lost, none doubled.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::app::{Directory, TokenId};
use crate::channel::name::NameRules;
use crate::connection::ConnectionKey;
use crate::moment::Moment;

pub mod mail;

pub use mail::Mail;

/// Index of a shard in its process, from 0.
pub type ShardIndex = u16;

/// What a shard is told once, at its making.
#[derive(Clone)]
pub struct ShardConfig {
    /// This shard.
    pub index: ShardIndex,
    /// How many there are; at least 1.
    pub shards: ShardIndex,
    /// Connections that it can hold: slots are below this.
    pub slots: u32,
    /// Process-wide random secret: seals socket ids and seeds the maps. The same for all shards of a process.
    pub boot_secret: [u8; 16],
    /// The apps and tokens at start.
    pub directory: Arc<Directory>,
    /// What an operator may set.
    pub options: ShardOptions,
}

/// Options of the operator, alike on all shards.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Path prefix (P-CONN-2), `""` or `/x`.
    pub path_prefix: String,
    /// `activity_timeout` in seconds (P-LIVE-3).
    pub activity_timeout_s: u32,
    /// `strict_protocol` (P-CONN-3, P-CONN-5).
    pub strict_protocol: bool,
    /// `channel_names` (P-CHAN-2).
    pub channel_names: NameRules,
    /// Proxies whose `X-Forwarded-For` and PROXY protocol v2 are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Drain is spread over this (P-CLOSE-1), in ms.
    pub drain_ms: u64,
}

/// Which listener a connection came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listener {
    /// The public port: WebSockets and the HTTP API.
    Public,
    /// The metrics and health port: HTTP only, no apps.
    Metrics,
}

/// What a driver tells a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted into this slot.
    Accepted {
        /// Its key; the generation is new for the slot.
        connection: ConnectionKey,
        /// The peer's address.
        peer: SocketAddr,
        /// Where it came in.
        listener: Listener,
        /// The node is at capacity and the slot is one of those kept back: refuse with 4100 (P-CLOSE-2).
        refuse: bool,
    },
    /// Bytes arrived; they may be changed in place (unmasking).
    Received {
        /// From whom.
        connection: ConnectionKey,
        /// The bytes.
        bytes: &'a mut [u8],
    },
    /// The kernel took this many bytes of what `poll_flush` lent.
    Sent {
        /// Whose send.
        connection: ConnectionKey,
        /// At least 1.
        bytes: usize,
    },
    /// The peer ended its direction (FIN).
    ReadEnded {
        /// Whose.
        connection: ConnectionKey,
    },
    /// The connection is gone and no operation on it is under way.
    Closed {
        /// Whose.
        connection: ConnectionKey,
    },
    /// Mail from another shard.
    Mail {
        /// Its sender.
        from: ShardIndex,
        /// The mail.
        mail: Mail,
    },
    /// The store changed.
    Directory(Arc<Directory>),
    /// The time of `poll_timeout` has come (feeding it early does no harm).
    Timeout,
    /// The process shall end: drain (P-CLOSE-1).
    Drain,
}

/// What a shard asks of its driver.
#[derive(Debug)]
pub enum Output {
    /// End the connection, then feed `Closed`. Unsent bytes of the socket are still delivered unless `reset`.
    Close {
        /// Which.
        connection: ConnectionKey,
        /// Send RST: the peer is not reading anyway.
        reset: bool,
    },
    /// Send FIN once all lent bytes are taken, and go on reading (lingering close, P-HTTP-16).
    ShutdownWrite {
        /// Which.
        connection: ConnectionKey,
    },
    /// Stop reading from it: it is owed too much already.
    Pause {
        /// Which.
        connection: ConnectionKey,
    },
    /// Read from it again; bytes may already be waiting.
    Resume {
        /// Which.
        connection: ConnectionKey,
    },
    /// Deliver to another shard.
    Mail {
        /// To whom; never the sender itself.
        to: ShardIndex,
        /// The mail.
        mail: Mail,
    },
    /// A token was used with success (R-TOKEN-4); the store writes it at most once a minute.
    TokenUsed {
        /// Which.
        token: TokenId,
        /// When.
        at: Moment,
    },
}

/// One send: bytes lent until `Sent` or `Closed` is fed for the connection.
#[derive(Debug)]
pub struct Flush<'a> {
    /// To whom.
    pub connection: ConnectionKey,
    /// At most `limits::SEND_BYTES_MAX` bytes, at least 1.
    pub bytes: &'a [u8],
}

/// Figures of one shard, for health, tests and metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ShardStats {
    /// Connections accepted and not yet closed.
    pub connections: u64,
    /// Of these, established WebSockets.
    pub websockets: u64,
    /// Local subscriptions.
    pub subscriptions: u64,
    /// Channels with local subscribers.
    pub channels: u64,
    /// Channels that this shard owns state for.
    pub owned_channels: u64,
    /// Events accepted as owner.
    pub events: u64,
    /// Frames queued to connections.
    pub deliveries: u64,
    /// Connections closed as slow readers (P-CLOSE-5).
    pub slow_closed: u64,
    /// Connections closed because events for them were lost between shards (4200).
    pub gap_closed: u64,
    /// Frames held for sending.
    pub frames: u64,
    /// Bytes of frames and joined buffers held for sending.
    pub send_bytes: u64,
}

/// A shard.
pub struct Shard {
    config: ShardConfig,
}

impl Shard {
    /// A shard without connections.
    pub fn new(config: ShardConfig) -> Self {
        Self { config }
    }
    /// Gives the core an input.
    pub fn handle_input(&mut self, _now: Moment, _input: Input<'_>) {
        todo!()
    }
    /// Takes an output.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }
    /// Takes the next connection that owes bytes and has no send under way.
    pub fn poll_flush(&mut self) -> Option<Flush<'_>> {
        todo!()
    }
    /// The bytes of this connection's send under way: what `poll_flush` lent and neither `Sent` nor `Closed` has ended
    /// yet; empty when there is none. A driver whose socket would block asks for them again when it is writable.
    pub fn lent(&self, _connection: ConnectionKey) -> &[u8] {
        todo!()
    }
    /// When `Timeout` must be fed, on the monotonic clock, in ms; `None` when nothing is awaited.
    pub fn poll_timeout(&self) -> Option<u64> {
        todo!()
    }
    /// True once `Drain` was fed and every WebSocket is gone or its grace is over.
    pub fn is_drained(&self) -> bool {
        todo!()
    }
    /// Figures.
    pub fn stats(&self) -> ShardStats {
        todo!()
    }
    /// This shard's index.
    pub fn index(&self) -> ShardIndex {
        self.config.index
    }
}
