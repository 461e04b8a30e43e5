//! Relay: a realtime relay that speaks the Pusher Channels protocol.
//!
//! The modules stand in floor order: a module imports only from the lines above its own floor
//! (`tests/tidy.rs` holds this). Everything up to `shard` is pure: bytes and messages in, outputs back,
//! with no descriptor, clock, thread, lock or randomness. From `driver` on, effects happen and nothing is decided.

// Floor 0: every bound, and time as an argument.
pub mod limits;
pub mod moment;

// Floor 1: who may speak, and the bytes on the wire.
pub mod app;
pub mod wire;

// Floor 2: text to typed messages and back.
pub mod protocol;

// Floor 3: verdicts, one channel, one connection.
pub mod auth;
pub mod channel;
pub mod connection;

// Floor 4: an HTTP request becomes a command or a refusal.
pub mod api;

// Floor 5: the sans-IO core.
pub mod shard;

// Floor 6: effects.
pub mod driver;
pub mod store;

// Floors 7 and 8: assembly and the command line.
pub mod cli;
pub mod config;
pub mod server;
