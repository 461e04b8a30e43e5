//! Hostile input over the wire: the right answer, only the offender closed, everyone else served, memory flat.

// A test reads the clock, starts processes and may fail at any line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod floods;
mod frames;
mod json;
mod requests;
mod strangers;
mod unharmed;
