//! Webhook endpoints: list, create, switch, remove, test, and what failed. A secret is shown by the request that created
//! it alone.

use serde_json::{Value, json};

use super::access::{Access, Created, gone, number_cursor, page, page_by_age};
use super::apps::if_gone;
use super::call::{Answer, Call};
use super::fault::Fault;
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{Batching, CountName, NewWebhook, WebhookFormat};
use crate::label::Label;
use crate::rfc3339::rfc3339;
use crate::store::queue::FailedDelivery;
use crate::store::{StoreError, WebhookRecord};
use crate::webhook::request::SendError;

pub(super) fn list(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let webhooks = access.store.webhooks(call.app.as_deref())?;
    let encode = |(app, webhook): &(String, WebhookRecord)| encode(app, webhook);
    Ok(page_by_age(webhooks, call, |(_, webhook)| (webhook.created_at_ms, &webhook.id), encode))
}

pub(super) fn create(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let is_on = |name| call.body.is_on(name);
    let new = NewWebhook {
        url: call.body.text("url").unwrap_or_default().to_owned(),
        events: call.body.texts("events"),
        format: call.body.text("format").and_then(WebhookFormat::of_label).unwrap_or(WebhookFormat::Pusher),
        batching: if is_on("batch") { Batching::Batched } else { Batching::Single },
        reach: if is_on("allow_private") { Reach::Anywhere } else { Reach::Public },
        count_name: if is_on("count_changed") { CountName::Changed } else { CountName::Pusher },
    };
    let created = access.create(call, |batch| {
        let webhook = batch.add_webhook(call.app_id(), new, access.allowed)?;
        Ok((webhook.id.clone(), webhook))
    })?;
    match created {
        Created::Now(webhook) => {
            let mut json = encode(call.app_id(), &webhook);
            json["secret"] = json!(webhook.secret);
            Ok(Answer::created(json))
        }
        Created::Before(id) => {
            let webhooks = access.store.webhooks(Some(call.app_id())).map_err(|error| if_gone(error, &id))?;
            let (app, webhook) = webhooks.iter().find(|(_, webhook)| webhook.id == id).ok_or_else(|| gone(&id))?;
            Ok(Answer::ok(encode(app, webhook)))
        }
    }
}

pub(super) fn remove(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let (app, webhook) = access.store.remove_webhook(access.actor, call.app.as_deref(), call.item_id())?;
    Ok(Answer::ok(json!({ "id": webhook.id, "app": app, "removed": true })))
}

pub(super) fn switch(access: &Access<'_>, call: &Call, enabled: bool) -> Result<Answer, Fault> {
    let (app, webhook) = access.store.switch_webhook(access.actor, call.app.as_deref(), call.item_id(), enabled)?;
    Ok(Answer::ok(encode(&app, &webhook)))
}

/// An operator who sets an endpoint up sees at once whether it answers (R-ADMIN-23).
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
    let (status, reason) = match access.deliveries()?.test(app, endpoint, access.now.unix_ms)? {
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

/// Deliveries that were given up, the newest first (R-ADMIN-23).
pub(super) fn failed(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let before = number_cursor::<u64>(call)?;
    let only = call.app.as_deref().map(|id| access.store.app(id)).transpose()?.map(|app| app.serial);
    let apps = access.store.apps()?;
    let failed = access.deliveries()?.failed()?;
    let wanted = failed.into_iter().rev().filter(|(number, failed)| {
        before.is_none_or(|before| *number < before) && only.is_none_or(|only| failed.app == only)
    });
    let app_id = |serial: u32| apps.iter().find(|app| app.serial == serial).map(|app| &*app.id);
    let encode = |(_, failed): &(u64, FailedDelivery)| encode_failed(app_id(failed.app), failed);
    Ok(page(wanted, call.limit(), |(number, _)| number.to_string(), encode))
}

fn encode_failed(app: Option<&str>, failed: &FailedDelivery) -> Value {
    json!({
        "app": app,
        "webhook": failed.endpoint,
        "created_at": rfc3339(failed.created_at_ms),
        "failed_at": rfc3339(failed.failed_at_ms),
        "attempts": failed.attempts,
        "reason": failed.reason,
    })
}

fn encode(app: &str, webhook: &WebhookRecord) -> Value {
    json!({
        "id": webhook.id,
        "app": app,
        "url": webhook.url,
        "events": webhook.events,
        "format": webhook.format,
        "batch": webhook.batch,
        "count_changed": webhook.count_changed,
        "allow_private": webhook.allow_private,
        "enabled": webhook.enabled,
        "created_at": rfc3339(webhook.created_at_ms),
        "created_by": webhook.created_by.as_ref().map(ToString::to_string),
    })
}
