//! Conformance over TCP: every rule of the protocol that the server implements, tested on a real process by a client
//! that shares no code with it, on io_uring and on epoll.

// A test reads the clock, starts processes and may fail at any line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

#[path = "../common/mod.rs"]
mod common;

#[path = "../admin/main.rs"]
mod admin;
mod auth_endpoint;
mod authorization;
mod authorizer;
#[path = "../autobahn.rs"]
mod autobahn;
mod cache;
mod channels;
mod client_events;
mod connection;
mod counts;
mod explain;
mod history;
#[path = "../hostile/main.rs"]
mod hostile;
mod http_rules;
mod latency;
mod lateness;
mod limits;
mod liveness;
mod messages;
mod metrics;
mod operator;
mod presence;
mod proxies;
mod publish;
mod queries;
mod refusal_log;
mod replay;
mod request_auth;
#[path = "../rfc6455/main.rs"]
mod rfc6455;
mod script;
mod settings;
mod shards;
mod stage;
mod start;
mod streams;
mod subscribe;
mod tokens;
mod users;
mod watchlist;
mod webhooks;
