//! Webhook deliveries: the last ones that failed, and a test of an endpoint (R-ADMIN-23).

use std::sync::Mutex;

use serde_json::{Value, json};

use super::access::{Access, bad_cursor, page};
use super::call::{Answer, Call};
use super::fault::Fault;
use crate::outgoing::client::Client;
use crate::rfc3339::rfc3339;
use crate::store::StoreError;
use crate::store::queue::{FailedDelivery, Queue};
use crate::webhook::WebhookOptions;
use crate::webhook::request::{self, SendError};

/// The queue that lists failed deliveries, and the way to endpoints.
pub struct Deliveries {
    /// Missing where no server has run yet.
    queue: Option<Queue>,
    /// Held by the only call that tests an endpoint.
    client: Mutex<Client>,
}

impl Deliveries {
    /// With the queue of a data directory, and a client that reaches what webhooks may reach.
    pub fn new(queue: Option<Queue>, options: &WebhookOptions) -> Self {
        Self { queue, client: Mutex::new(Client::new(&options.allowed, &options.roots, request::KEPT)) }
    }
}

/// The newest first.
pub(super) fn failed(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let before = call.cursor().map(|text| text.parse::<u64>().map_err(|_| bad_cursor())).transpose()?;
    let only = call.app.as_deref().map(|id| access.store.app(id)).transpose()?.map(|app| app.serial);
    let apps = access.store.apps()?;
    let queue = access.deliveries()?.queue.as_ref();
    let failed = queue.map(Queue::failed).transpose()?.unwrap_or_default();
    let wanted = failed.into_iter().rev().filter(|(number, failed)| {
        before.is_none_or(|before| *number < before) && only.is_none_or(|only| failed.app == only)
    });
    let app_id = |serial: u32| apps.iter().find(|app| app.serial == serial).map(|app| &*app.id);
    Ok(page(wanted, call.limit(), |(number, _)| number.to_string(), |(_, failed)| encode(app_id(failed.app), failed)))
}

fn encode(app: Option<&str>, failed: &FailedDelivery) -> Value {
    json!({
        "app": app,
        "webhook": failed.endpoint,
        "created_at": rfc3339(failed.created_at_ms),
        "failed_at": rfc3339(failed.failed_at_ms),
        "attempts": failed.attempts,
        "reason": failed.reason,
    })
}

/// One request past the queue: an operator who sets an endpoint up sees at once whether it answers.
pub(super) fn test(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let directory = access.store.directory()?;
    let id = call.item_id();
    let found = match call.app.as_deref() {
        Some(app) => {
            let app = directory.app_by_id(app).ok_or_else(|| StoreError::UnknownApp(app.to_owned()))?;
            app.webhooks.endpoint(id).map(|endpoint| (app, endpoint))
        }
        None => directory.apps().find_map(|app| Some((app, app.webhooks.endpoint(id)?))),
    };
    let (app, endpoint) = found.ok_or_else(|| StoreError::UnknownWebhook(id.to_owned()))?;
    // A request may take seconds, and there are few threads for all operations.
    let client = access.deliveries()?.client.try_lock();
    let client = client.map_err(|_| Fault::unavailable("Another endpoint is being tested; try again."))?;
    let (status, reason) = match request::send_test(&client, app, endpoint, access.now.unix_ms) {
        Ok(status) => (Some(status), None),
        Err(error @ SendError::Status(status, _)) => (Some(status), Some(error.to_string())),
        Err(error @ SendError::NoAnswer(_)) => (None, Some(error.to_string())),
    };
    Ok(Answer::ok(json!({
        "id": id,
        "app": app.id,
        "url": endpoint.url,
        "delivered": reason.is_none(),
        "status": status,
        "reason": reason,
    })))
}
