//! The clients of a run: their own codecs, the messages they sent, and the answers they have pending.

pub(crate) mod caller;
pub(crate) mod event_stream;
pub(crate) mod frames;
pub(crate) mod positions;
pub(crate) mod reader;
pub(crate) mod responses;
pub(crate) mod sign;
pub(crate) mod socket;
