//! What `relay serve` was told, after flags, `RELAY_*` environment, `relay.toml` and defaults were weighed
//! (in this order). Everything here is checked: nobody downstream parses a setting again.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::shard::ShardOptions;

/// Which driver moves the bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IoChoice {
    /// io_uring where the kernel allows it, else epoll; the choice is told at start.
    #[default]
    Auto,
    /// io_uring, or the start fails.
    Uring,
    /// epoll.
    Epoll,
}

/// What becomes of a metrics port that is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricsPort {
    /// The start fails.
    Required,
    /// A warning, and the server goes on without it (`--dev`).
    Optional,
}

/// All that the server assembly needs to know.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Public port: WebSockets and the HTTP API. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Health and metrics port. Port 0 takes a free one.
    pub metrics_listen: SocketAddr,
    /// What to do if the metrics port is taken.
    pub metrics_port: MetricsPort,
    /// Data directory.
    pub data: PathBuf,
    /// Shards, 1 to [`crate::limits::SHARDS_MAX`]; one thread each.
    pub shards: u16,
    /// Driver.
    pub io: IoChoice,
    /// Connections of the whole process at once; `None`: what descriptors and memory allow.
    pub connections_max: Option<u32>,
    /// Options that every shard gets.
    pub shard: ShardOptions,
}
