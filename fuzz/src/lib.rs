//! Properties that must hold for every input: one function per fuzz target, each called with the bytes of one input.
//!
//! A target compares the code under test with an independent reader (the `reference` parts here share no code with it),
//! feeds the same input in other pieces, or writes what was read and reads it again. "It does not crash" alone does not
//! make a target.
//!
//! `fuzz/run` builds and runs them.

pub mod input;
pub mod json;
pub mod targets {
    //! The targets, by name.

    pub mod client_message;
    pub mod credentials;
    pub mod data_file;
    pub mod explain;
    pub mod http;
    pub mod migration;
    pub mod names;
    pub mod proxy_header;
    pub mod publish_body;
    pub mod shard;
    pub mod signature;
    pub mod store_record;
    pub mod stream;
    pub mod webhook_url;
    pub mod websocket;
}

// The simulation of the tests, whose scheduler takes its choices from an input.
#[path = "../../tests/simulation/apps.rs"]
mod apps;
#[path = "../../tests/simulation/assertions.rs"]
mod assertions;
#[path = "../../tests/simulation/authorization.rs"]
mod authorization;
#[path = "../../tests/simulation/caller_reads.rs"]
mod caller_reads;
#[path = "../../tests/simulation/caller_steps.rs"]
mod caller_steps;
#[path = "../../tests/simulation/client/mod.rs"]
mod client;
#[path = "../../tests/simulation/coverage.rs"]
#[allow(dead_code, reason = "the tests of the simulation use the rest")]
mod coverage;
#[path = "../../tests/simulation/fault.rs"]
#[allow(dead_code, reason = "the tests of the simulation use the rest")]
mod fault;
#[path = "../../tests/simulation/history.rs"]
mod history;
#[path = "../../tests/simulation/network.rs"]
mod network;
#[path = "../../tests/simulation/random.rs"]
mod random;
#[path = "../../tests/simulation/reader_reads.rs"]
mod reader_reads;
#[path = "../../tests/simulation/reader_steps.rs"]
mod reader_steps;
#[path = "../../tests/simulation/readings.rs"]
mod readings;
#[path = "../../tests/simulation/reference.rs"]
mod reference;
#[path = "../../tests/simulation/replays.rs"]
mod replays;
#[path = "../../tests/simulation/scheduler.rs"]
mod scheduler;
#[path = "../../tests/simulation/socket_reads.rs"]
mod socket_reads;
#[path = "../../tests/simulation/socket_steps.rs"]
mod socket_steps;
#[path = "../../tests/simulation/system/mod.rs"]
mod system;
#[path = "../../tests/simulation/trace.rs"]
mod trace;
#[path = "../../tests/simulation/users.rs"]
mod users;
#[path = "../../tests/simulation/webhooks.rs"]
mod webhooks;
#[path = "../../tests/simulation/world.rs"]
mod world;
