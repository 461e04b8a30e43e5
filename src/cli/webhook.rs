//! `relay webhook ...`: the endpoints that receive the events of an app (P-HOOK rules, section 6 of the Relay
//! protocol).

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::columns::Columns;
use super::place::{Place, text, texts};
use super::remote::RemoteArguments;
use super::token::creator_text;
use super::{CommandError, StoreArguments, note, time};
use crate::admin::Operation;
use crate::admin::call::Call;
use crate::app::webhook::WebhookFormat;
use crate::label::Label;
use crate::metrics::refusal_log::printable;
use crate::outgoing::client::Client;
use crate::store::queue::{FailedDelivery, Queue};
use crate::store::{Missing, Store, StoreError, unix_ms};
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

pub(super) fn run(command: WebhookCommand, remote: &RemoteArguments) -> Result<(), CommandError> {
    match command {
        WebhookCommand::Add { app, url, events, format, batch, count_changed, allow_private, store } => {
            if WebhookFormat::of_label(&format).is_none() {
                return Err(CommandError::Usage(format!("--format takes pusher or relay, not {format:?}")));
            }
            let events: Vec<&str> = events.iter().map(|event| event.trim()).collect();
            let fields = [
                ("url", json!(url)),
                ("events", json!(events)),
                ("format", json!(format)),
                ("batch", json!(batch)),
                ("count_changed", json!(count_changed)),
                ("allow_private", json!(allow_private)),
            ];
            let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            add(&app, fields, &Place::new(store, remote)?)
        }
        WebhookCommand::List { app, store } => {
            let place = Place::new(store, remote)?;
            let call = match app {
                Some(app) => Call::new(Operation::ListAppWebhooks).app(&app),
                None => Call::new(Operation::ListWebhooks),
            };
            let webhooks = place.list(&call, usize::MAX)?;
            place.answer(&json!(webhooks), &list_text(&webhooks))
        }
        WebhookCommand::Remove { id, store } => {
            let place = Place::new(store, remote)?;
            let removed = place.call(&Call::new(Operation::RemoveWebhook).item(&id))?;
            place.answer(&removed, &format!("webhook {id} is removed\n"))
        }
        WebhookCommand::Disable { id, store } => switch(Operation::DisableWebhook, &id, &Place::new(store, remote)?),
        WebhookCommand::Enable { id, store } => switch(Operation::EnableWebhook, &id, &Place::new(store, remote)?),
        WebhookCommand::Test { id, store } => test(&id, Place::new(store, remote)?.local("webhook test")?),
        WebhookCommand::Failed { app, store } => {
            failed(app.as_deref(), Place::new(store, remote)?.local("webhook failed")?)
        }
    }
}

fn add(app: &str, fields: Map<String, Value>, place: &Place) -> Result<(), CommandError> {
    let webhook = place.call_with(Call::new(Operation::CreateWebhook).app(app), fields)?;
    note(match text(&webhook, "format") {
        "relay" => "This is the only time that the secret is shown; bodies are signed with it.",
        _ => "Bodies are signed with the app's secret; that of the endpoint is shown this once.",
    });
    place.answer(&webhook, &format!("id      {}\nsecret  {}\n", text(&webhook, "id"), text(&webhook, "secret")))
}

fn switch(operation: Operation, id: &str, place: &Place) -> Result<(), CommandError> {
    let webhook = place.call(&Call::new(operation).item(id))?;
    place.answer(&webhook, &format!("webhook {id} is {}\n", state(&webhook)))
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
    let options = store.webhook_options()?;
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

fn state(webhook: &Value) -> &'static str {
    if webhook["enabled"] == true { "enabled" } else { "disabled" }
}

fn list_text(webhooks: &[Value]) -> String {
    let mut table = Columns::new(["ID", "APP", "STATE", "FORMAT", "CREATED BY", "URL"]);
    for webhook in webhooks {
        let member = |name: &str| printable(text(webhook, name));
        let events = texts(&webhook["events"]).join(",");
        let events = if events.is_empty() { events } else { format!(" ({})", printable(&events)) };
        let (url, created_by) = (member("url") + &events, creator_text(webhook));
        table.push([member("id"), member("app"), state(webhook).into(), member("format"), created_by, url]);
    }
    table.to_string()
}
