//! The admin API over TCP against a real process (R-ADMIN-10 to R-ADMIN-22).

mod access;
mod apps;
mod commands;
mod deliveries;
mod dev;
mod documented;
mod explain;
mod hosts;
mod listener;
mod repeats;
mod replay;
mod schemathesis;
mod settings;

use crate::common::rig::drivers;
use crate::common::server::{ServerOptions, TestServer};

/// A server with the admin API. Which driver the shards have makes no difference to it.
fn server() -> TestServer {
    TestServer::start_with(ServerOptions::new(drivers()[0]).admin())
}
