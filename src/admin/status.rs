//! The state of the running server.

use serde_json::json;

use super::access::Access;
use super::call::Answer;
use super::fault::Fault;
use crate::rfc3339::rfc3339;
use crate::store::unix_ms;

pub(super) fn show(access: &Access<'_>) -> Result<Answer, Fault> {
    let running = access.running.ok_or_else(|| Fault::unavailable("No server runs here."))?;
    Ok(Answer::ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": rfc3339(running.started_unix_ms),
        "uptime_s": unix_ms().saturating_sub(running.started_unix_ms) / 1_000,
        "driver": running.driver,
        "driver_reason": running.driver_reason,
        "shards": running.shards,
        "listen": running.public.to_string(),
        "apps": access.store.app_count()?,
        "store_version": access.store.version()?,
    })))
}
