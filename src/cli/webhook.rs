//! `relay webhook ...`: the endpoints that receive the events of an app (P-HOOK rules, section 6 of the Relay
//! protocol).

use clap::Subcommand;
use serde_json::{Value, json};

use super::columns::Columns;
use super::token::creator_text;
use super::{CommandError, StoreArguments, actor, note, time};
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{Batching, CountName, NewWebhook, WebhookFormat};
use crate::config;
use crate::label::Label;
use crate::outgoing::client::Client;
use crate::store::queue::{FailedDelivery, Queue};
use crate::store::{Missing, Store, StoreError, WebhookRecord, unix_ms};
use crate::webhook::WebhookOptions;
use crate::webhook::request;

#[derive(Debug, Subcommand)]
pub(super) enum WebhookCommand {
    /// Add an endpoint and print its secret, which is shown only once.
    Add {
        /// Id of the app whose events are sent.
        #[arg(long, value_name = "ID")]
        app: String,
        /// URL of the endpoint, such as `https://host:443/path`.
        #[arg(long, value_name = "URL")]
        url: String,
        /// Events to send, such as channel_occupied,channel_vacated [default: all].
        #[arg(long, value_delimiter = ',', value_name = "EVENTS")]
        events: Vec<String>,
        /// Format of bodies and signatures: pusher or relay.
        #[arg(long, default_value = "pusher")]
        format: String,
        /// Send up to 100 events in one request instead of one.
        #[arg(long)]
        batch: bool,
        /// Send subscription_count as subscription_count_changed.
        #[arg(long)]
        count_changed: bool,
        /// Allow a private address, and http.
        #[arg(long)]
        allow_private: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// List endpoints; secrets are not shown.
    List {
        /// Only those of this app.
        #[arg(long, value_name = "ID")]
        app: Option<String>,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Remove an endpoint and drop its pending requests.
    Remove {
        /// Its id, wh_...
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Stop sending to an endpoint and drop its pending requests.
    Disable {
        /// Its id, wh_...
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Enable a disabled endpoint.
    Enable {
        /// Its id, wh_...
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Send one signed event named "test" to an endpoint directly and show its response.
    Test {
        /// Its id, wh_...
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// List the most recent failed deliveries.
    Failed {
        /// Only those of this app.
        #[arg(long, value_name = "ID")]
        app: Option<String>,
        #[command(flatten)]
        store: StoreArguments,
    },
}

pub(super) fn run(command: WebhookCommand) -> Result<(), CommandError> {
    match command {
        WebhookCommand::Add { app, url, events, format, batch, count_changed, allow_private, store } => {
            let new = NewWebhook {
                url,
                events: events.iter().map(|event| event.trim().to_owned()).collect(),
                format: WebhookFormat::of_label(&format)
                    .ok_or_else(|| CommandError::Usage(format!("--format takes pusher or relay, not {format:?}")))?,
                batching: if batch { Batching::Batched } else { Batching::Single },
                reach: if allow_private { Reach::Anywhere } else { Reach::Public },
                count_name: if count_changed { CountName::Changed } else { CountName::Pusher },
            };
            add(&app, new, &store)
        }
        WebhookCommand::List { app, store } => {
            let webhooks = store.open(Missing::Refuse)?.webhooks(app.as_deref())?;
            let json = webhooks.iter().map(|(app, webhook)| webhook_json(app, webhook)).collect();
            store.answer(&json, &list_text(&webhooks))
        }
        WebhookCommand::Remove { id, store } => {
            let (app, _) = store.open(Missing::Refuse)?.remove_webhook(&actor(), None, &id)?;
            store.answer(&json!({"id": id, "app": app, "removed": true}), &format!("webhook {id} is removed\n"))
        }
        WebhookCommand::Disable { id, store } => switch(&id, false, &store),
        WebhookCommand::Enable { id, store } => switch(&id, true, &store),
        WebhookCommand::Test { id, store } => test(&id, &store),
        WebhookCommand::Failed { app, store } => failed(app.as_deref(), &store),
    }
}

fn add(app: &str, new: NewWebhook, store: &StoreArguments) -> Result<(), CommandError> {
    let webhook = store.open(Missing::Refuse)?.add_webhook(&actor(), app, new, &options(store)?.allowed)?;
    let mut json = webhook_json(app, &webhook);
    json["secret"] = json!(webhook.secret);
    note(match webhook.format.as_str() {
        "relay" => "This is the only time that the secret is shown; bodies are signed with it.",
        _ => "Bodies are signed with the app's secret; that of the endpoint is shown this once.",
    });
    store.answer(&json, &format!("id      {}\nsecret  {}\n", webhook.id, webhook.secret))
}

/// The webhook settings of the configuration.
pub(super) fn options(store: &StoreArguments) -> Result<WebhookOptions, CommandError> {
    Ok(config::webhooks(&store.settings()?)?)
}

fn switch(id: &str, enabled: bool, store: &StoreArguments) -> Result<(), CommandError> {
    let (app, webhook) = store.open(Missing::Refuse)?.switch_webhook(&actor(), None, id, enabled)?;
    let state = if enabled { "enabled" } else { "disabled" };
    store.answer(&webhook_json(&app, &webhook), &format!("webhook {id} is {state}\n"))
}

/// One request past the queue: an operator who sets an endpoint up sees at once whether it answers.
fn test(id: &str, store: &StoreArguments) -> Result<(), CommandError> {
    let directory = store.open(Missing::Refuse)?.directory()?;
    let found = directory.apps().find_map(|app| Some((app, app.webhooks.endpoint(id)?)));
    let (app, endpoint) = found.ok_or_else(|| StoreError::UnknownWebhook(id.to_owned()))?;
    let now_ms = unix_ms();
    let body = match endpoint.format {
        WebhookFormat::Pusher => {
            format!(r#"{{"time_ms":{now_ms},"events":[{{"name":"test","channel":"relay-test"}}]}}"#)
        }
        WebhookFormat::Relay => {
            let now_s = now_ms / 1_000;
            format!(r#"{{"event":"test","data":{{"channel":"relay-test"}},"timestamp":{now_s}}}"#)
        }
    };
    let options = options(store)?;
    let client = Client::new(&options.allowed, &options.roots, request::KEPT);
    let sent = request::send(&client, app, endpoint, body.as_bytes(), now_ms / 1_000);
    let status = sent.map_err(|error| CommandError::Webhook(format!("{id} at {}: {error}", endpoint.url)))?;
    store.answer(&json!({"id": id, "status": status}), &format!("webhook {id} answered {status}\n"))
}

fn failed(app: Option<&str>, store: &StoreArguments) -> Result<(), CommandError> {
    let opened = store.open(Missing::Refuse)?;
    let apps = opened.apps()?;
    let only = app.map(|id| opened.app(id)).transpose()?.map(|app| app.serial);
    let app_id = |serial: u32| {
        apps.iter().find(|app| app.serial == serial).map_or_else(|| "deleted".to_owned(), |app| app.id.clone())
    };
    let failed = match queue(&opened) {
        Ok(queue) => queue.failed()?,
        // No server has run on this directory yet.
        Err(StoreError::Missing { .. } | StoreError::Empty { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let failed: Vec<FailedDelivery> =
        failed.into_iter().filter(|failed| only.is_none_or(|only| failed.app == only)).collect();
    let json = failed.iter().map(|failed| {
        json!({
            "app": app_id(failed.app),
            "webhook": failed.endpoint,
            "created_at": time::rfc3339(failed.created_at_ms),
            "failed_at": time::rfc3339(failed.failed_at_ms),
            "attempts": failed.attempts,
            "reason": failed.reason,
        })
    });
    let mut table = Columns::new(["FAILED", "APP", "WEBHOOK", "ATTEMPTS", "REASON"]);
    for failed in &failed {
        let (at, app) = (time::rfc3339(failed.failed_at_ms), app_id(failed.app));
        table.push([at, app, failed.endpoint.to_string(), failed.attempts.to_string(), failed.reason.to_string()]);
    }
    store.answer(&json.collect(), &table.to_string())
}

fn queue(store: &Store) -> Result<Queue, StoreError> {
    let file = store.file();
    Queue::open(file.parent().unwrap_or(&file), Missing::Refuse)
}

fn webhook_json(app: &str, webhook: &WebhookRecord) -> Value {
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
        "created_at": time::rfc3339(webhook.created_at_ms),
        "created_by": webhook.created_by.as_ref().map(ToString::to_string),
    })
}

fn list_text(webhooks: &[(String, WebhookRecord)]) -> String {
    let mut table = Columns::new(["ID", "APP", "STATE", "FORMAT", "CREATED BY", "URL"]);
    for (app, webhook) in webhooks {
        let state = if webhook.enabled { "enabled" } else { "disabled" };
        let events = if webhook.events.is_empty() { String::new() } else { format!(" ({})", webhook.events.join(",")) };
        let WebhookRecord { id, format, url, .. } = webhook;
        let created_by = creator_text(webhook.created_by.as_ref());
        table.push([id.clone(), app.clone(), state.into(), format.clone(), created_by, format!("{url}{events}")]);
    }
    table.to_string()
}
