//! Relay together with customers' software: their SDKs, the recipes and examples of the documents, other servers'
//! configurations, the proxies in front.

// A test reads the clock, starts processes and may fail at any line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod client;
mod common;
#[path = "deployment/main.rs"]
mod deployment;
mod documented_examples;
#[path = "migration/main.rs"]
mod migration;
mod recipes;
mod sdk;
mod tree;
