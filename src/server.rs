//! Assembly: listeners, drivers, the keeper of the store, signals.

use std::net::SocketAddr;

use crate::config::ServeConfig;
use crate::store::Store;

/// What is served, once it is: the ports that were really bound and the driver that won.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Public port: WebSockets and the HTTP API.
    pub public: SocketAddr,
    /// Health port; `None` if it was taken and could be done without.
    pub metrics: Option<SocketAddr>,
    /// `io_uring` or `epoll`.
    pub driver: &'static str,
    /// Why this driver, one sentence.
    pub driver_reason: String,
    /// Shards that run.
    pub shards: u16,
}

/// Why serving could not start or had to end; each reads as one line with cause and fix.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A listener, thread or ring could not be made.
    #[error("{0}")]
    Start(String),
}

/// Serves until drained (P-CLOSE-1). `on_listening` is called once, when connections are accepted.
pub fn run(_config: &ServeConfig, _store: Store, _on_listening: impl FnOnce(&Listening)) -> Result<(), ServeError> {
    todo!()
}
