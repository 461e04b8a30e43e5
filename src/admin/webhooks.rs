//! Webhook endpoints: list, create, switch, remove. A secret is shown by the request that created it alone.

use serde_json::{Value, json};

use super::access::{Access, Created, gone, page_by_age};
use super::apps::if_gone;
use super::call::{Answer, Call};
use super::fault::Fault;
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{Batching, CountName, NewWebhook, WebhookFormat};
use crate::label::Label;
use crate::rfc3339::rfc3339;
use crate::store::WebhookRecord;

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
