//! Simulation: the shards of a process in one thread under a seeded scheduler, checked against a naive model.
//!
//! `RELAY_SIM_SEED=123 cargo test --test simulation` repeats one seed exactly, `RELAY_SIM_TRACE=1` prints its steps,
//! `RELAY_SIM_SEEDS=100000` runs more of them.
//!
//! - `system` drives the shards and uses every freedom of the driver's contract; `network` is TCP.
//! - `client` implements both protocols with its own codecs; `socket_steps` and `caller_steps` are what clients do,
//!   `socket_reads` and `caller_reads` check the answers; `users` is both for signins and watchlists,
//!   `history` for ids and resumes, `authorization` for connections that must authorize themselves, `webhooks` for the
//!   events that receivers must get.
//! - `reader_steps` and `reader_reads` are the same for clients of streams and polls, `readings` has their checks at rest;
//!   `replays` are events that callers publish again.
//! - `reference` is the model, `assertions` has the checks at rest, `scheduler` chooses the next step.
//! - `fault` violates the contract on purpose, to show that the checks detect it.

mod apps;
mod assertions;
mod authorization;
mod caller_reads;
mod caller_steps;
mod client;
mod coverage;
mod drain;
mod fault;
mod history;
mod network;
mod random;
mod reader_reads;
mod reader_steps;
mod readings;
mod reference;
mod regressions;
mod replays;
mod runner;
mod scheduler;
mod socket_reads;
mod socket_steps;
mod system;
mod trace;
mod users;
mod webhooks;
mod world;
