//! The admin API of the running server.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{ServeError, Shared};
use crate::admin::{self, Admin, AdminOptions, Deliveries, Explainer, Proxies, Running};
use crate::app::Directory;
use crate::config::ServeConfig;
use crate::driver::listener::Bound;
use crate::driver::refusals::Refusals;
use crate::store::Store;
use crate::store::queue::Queue;

/// What `explain` is answered with.
pub(super) fn explainer(config: &ServeConfig, directory: &Arc<Directory>, refusals: &Arc<Refusals>) -> Arc<Explainer> {
    Arc::new(Explainer::new(Arc::clone(directory), Arc::clone(refusals), &config.server.path_prefix))
}

/// Serves the admin API if its port was bound. The file with its address is never that of an earlier start.
pub(super) fn start(
    shared: &Shared,
    config: &ServeConfig,
    bound: Option<Bound>,
    (store, queue): (Store, Queue),
    public: SocketAddr,
) -> Result<Option<Admin>, ServeError> {
    let data = &config.server.data;
    admin::forget_address(data);
    let Some(bound) = bound else { return Ok(None) };
    warn_of_open_port(config, bound.address);
    let options = AdminOptions {
        hosts: config.server.admin_hosts.clone(),
        proxies: Proxies { trusted: config.server.trusted_proxies.clone(), only: config.server.admin_behind_proxy },
        webhook_allow: config.webhooks.allowed.clone(),
    };
    let running = Running {
        driver: shared.identity.driver,
        driver_reason: shared.identity.driver_reason.clone(),
        shards: config.server.shards,
        public,
        started_unix_ms: shared.identity.started_unix_ms,
    };
    let deliveries = Deliveries::new(Some(queue), &config.webhooks);
    let running = (running, Arc::clone(&shared.explainer), Arc::clone(&shared.replayer), deliveries);
    let started = Admin::start(bound, data, options, running, (store, Arc::clone(&shared.store_writer)), shared.clock);
    started.map(Some).map_err(|error| ServeError::start("start the admin API", error))
}

/// Settings that are less safe than the default are named at every start (threat T46).
fn warn_of_open_port(config: &ServeConfig, address: SocketAddr) {
    if address.ip().is_loopback() {
        return;
    }
    if config.server.admin_plain_http {
        tracing::warn!(%address, "admin_plain_http: admin tokens cross the network in plain text");
    } else {
        tracing::info!(%address, "admin_behind_proxy: the admin API serves the proxies of trusted_proxies only");
    }
}
