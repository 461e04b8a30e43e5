//! Limits of server-sent events and long polling.

/// Channels of one stream or poll (R-SSE-1).
pub const STREAM_CHANNELS_MAX: usize = 100;
/// A stream is sent a comment after this time, in tenths of a second of the sweep's clock, and at most as much later as
/// [`HEARTBEAT_JITTER_TENTHS`] and the interval of the sweep (R-SSE-10).
pub const HEARTBEAT_TENTHS: u32 = 150;
/// By how much the times of different streams differ.
pub const HEARTBEAT_JITTER_TENTHS: u32 = 50;
/// A stream id that the client chose is accepted this long before its second, in s (R-SSE-5).
pub const STREAM_ID_EARLY_S: u64 = 600;
/// And this long after it, in s; its stream ends then.
pub const STREAM_ID_LATE_S: u64 = 24 * 3_600;
/// How long a poll is held by default, in s (R-POLL-1).
pub const POLL_TIMEOUT_S: u32 = 25;
/// The longest that a poll may ask for, in s.
pub const POLL_TIMEOUT_MAX_S: u32 = 55;
/// Events of one answer to a poll (R-POLL-2).
pub const POLL_EVENTS_MAX: usize = 100;
/// Bytes of events after which no further channel's events are added to an answer.
pub const POLL_BYTES_MAX: usize = 256 * 1024;
