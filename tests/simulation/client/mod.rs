//! The clients of a run: their own codecs, what they sent, and what they are owed for it.

pub(crate) mod caller;
pub(crate) mod frames;
pub(crate) mod responses;
pub(crate) mod sign;
pub(crate) mod socket;
