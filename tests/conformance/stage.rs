//! The two servers that these tests share, and the apps on them.

use crate::common::rig::{SharedServers, on_fresh_servers_at_once, on_shared_servers};
use crate::common::server::{Driver, ServerOptions, TestServer};

/// Runs a scenario on the shared io_uring server and on the shared epoll server, two shards each.
///
/// Apps: `main` (client events on), `other` (another tenant, likewise), `plain` (all defaults), `quota` (two
/// connections), `soft` (one, refused with 4100), `tls` (TLS only), `origin` (pages of example.com only), `watch`
/// (watchlists), `files` (pages without a host, no client without an origin), `small` (20 bytes of data, three
/// members), `quick` (client events without a rate).
pub(crate) fn on_each_driver(scenario: impl Fn(&'static TestServer)) {
    on_shared_servers(&SHARED, scenario);
}

/// Runs a scenario on fresh servers with 1 and with 3 shards on both drivers, with the apps `main` (client events on) and
/// `other` (another tenant, all defaults).
pub(crate) fn with_shards(scenario: impl Fn(&TestServer) + Sync) {
    for shards in [1, 3] {
        let options = |driver| ServerOptions::new(driver).app("other", &[]).shards(shards);
        on_fresh_servers_at_once(options, |server| scenario(&server));
    }
}

static SHARED: SharedServers = SharedServers::new(options);

fn options(driver: Driver) -> ServerOptions {
    ServerOptions::new(driver)
        .app("other", &["client_events=true"])
        .app("plain", &[])
        .app("quota", &["max_connections=2"])
        .app("soft", &["max_connections=1", "connection_limit_soft=true"])
        .app("tls", &["tls_only=true"])
        .app("origin", &["allowed_origins=example.com"])
        .app("files", &["allowed_origins=null,file://,!missing"])
        .app("watch", &["watchlist=true"])
        .app("small", &["max_event_data_bytes=20", "max_presence_members=3"])
        .app("quick", &["client_events=true", "max_client_events_per_second=0"])
}
