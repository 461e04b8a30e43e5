//! Bounds of the history of channels and of readers that resume.

/// Events that a channel keeps by default (R-HIST-1).
pub const HISTORY_EVENTS: u32 = 100;
/// Largest value that an app may set for it.
pub const HISTORY_EVENTS_SETTING_MAX: u32 = 10_000;
/// How long events are kept by default, in s (R-HIST-1).
pub const HISTORY_S: u32 = 120;
/// Longest time that an app may set for it, in s.
pub const HISTORY_S_SETTING_MAX: u32 = 24 * 3_600;
/// Kept events of one app by default, in bytes; each shard manages an equal part (threat T28).
pub const HISTORY_BYTES: u32 = 16 * 1024 * 1024;
/// Kept events of one shard by default, in bytes.
pub const HISTORY_SHARD_BYTES: u64 = 64 * 1024 * 1024;
/// Largest value that an operator may set for it.
pub const HISTORY_SHARD_BYTES_SETTING_MAX: u64 = 1024 * 1024 * 1024 * 1024;
/// The cost of a kept event in these bytes, beyond its frame.
pub const HISTORY_EVENT_BYTES: usize = 128;
/// The cost of a channel that is kept for its history in these bytes, beyond its name.
pub const HISTORY_RECORD_BYTES: usize = 256;
/// Expired events and records that a shard drops in one turn; the rest follows in the next millisecond.
pub const HISTORY_EXPIRED_PER_TURN: usize = 4 * 1024;
/// Events of one answer with a channel's history (R-HIST-5).
pub const HISTORY_ANSWER_EVENTS_MAX: usize = 100;
/// Bytes of such an answer after which no further event is added.
pub const HISTORY_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Events of one replay (R-REPLAY-1).
pub const REPLAY_EVENTS_MAX: usize = 100;
/// Body of a replay: that many ids, a channel and an app, with room for spaces and escapes.
pub const REPLAY_BODY_BYTES_MAX: usize = 16 * 1024;
/// Frames of past events that a shard shares among the readers of one turn.
pub const PAST_EVENTS_SHARED_MAX: usize = 4 * 1024;
/// Missed events that a resuming reader is sent at once; the rest follows as it reads (R-HIST-12).
pub const RESUME_PART_BYTES: usize = 64 * 1024;
