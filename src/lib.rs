//! Relay: a realtime relay that implements the Pusher Channels protocol.
//!
//! The modules are listed in floor order: a module imports only from the lines above its own floor (`tests/tidy.rs`
//! checks this). Everything up to `shard` is pure: bytes and messages in, outputs back, with no descriptor, clock,
//! thread, lock or randomness. From `driver` on, effects happen and nothing is decided.

// `clippy.toml` lists the functions that a pure floor must not call; the floors with effects allow them below.
#![deny(clippy::disallowed_methods)]
// A function fits one screen (`clippy.toml`).
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

// Floor 0: every bound, time as an argument and as text, closed sets of reasons, how a setting is defined, indices.
pub mod index;
pub mod label;
pub mod limits;
pub mod moment;
pub mod rfc3339;
pub mod setting;

// Floor 1: apps and their credentials, the bytes on the wire, and the description of an HTTP API.
pub mod app;
pub mod openapi;
pub mod wire;

// Floor 2: text to typed messages and back.
pub mod protocol;

// Floor 3: verdicts, one channel, one connection.
pub mod auth;
pub mod channel;
pub mod connection;

// Floor 4: an HTTP request becomes a command or a refusal; metrics for operators.
pub mod api;
pub mod metrics;

// Floor 5: the sans-IO core.
pub mod shard;

// Floor 6: effects.
#[allow(clippy::disallowed_methods, reason = "effects live here")]
pub mod driver;
#[allow(clippy::disallowed_methods, reason = "effects live here")]
pub mod store;

// Floor 7: requests to servers of customers.
#[allow(clippy::disallowed_methods, reason = "effects live here")]
pub mod outgoing;

// Floor 8: the senders of these requests.
#[allow(clippy::disallowed_methods, reason = "effects live here")]
pub mod authorizer;
#[allow(clippy::disallowed_methods, reason = "effects live here")]
pub mod webhook;

// Floor 9: the admin API.
#[allow(clippy::disallowed_methods, reason = "effects live here")]
pub mod admin;

// Floor 10: the settings of operators.
#[allow(clippy::disallowed_methods, reason = "the environment is read here")]
pub mod config;

// Floor 11: assembly.
#[allow(clippy::disallowed_methods, reason = "effects live here")]
pub mod server;

// Floor 12: the command line.
#[allow(clippy::disallowed_methods, reason = "effects live here")]
pub mod cli;
