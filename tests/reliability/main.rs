//! Behaviour when something around the server fails: a log that nobody reads, a panic, a shard that is stuck, a disk
//! that loses power, a store that is damaged or large. Everything runs against the real program and the real store.

// A test reads the clock, starts processes and may fail at any line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

#[path = "../common/mod.rs"]
mod common;

mod disk;
mod failure;
mod log;
mod many_apps;
mod power_loss;
mod queue;
#[path = "../scoreboard.rs"]
mod scoreboard;
#[cfg(target_arch = "x86_64")]
mod tracer;
