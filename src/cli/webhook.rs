//! `relay webhook ...`: the endpoints that receive the events of an app (P-HOOK rules, section 6 of the Relay
//! protocol).

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::columns::Columns;
use super::place::{Place, text, texts};
use super::remote::RemoteArguments;
use super::token::creator_text;
use super::{CommandError, StoreArguments, note};
use crate::admin::Operation;
use crate::admin::call::Call;
use crate::app::webhook::WebhookFormat;
use crate::label::Label;
use crate::metrics::refusal_log::printable;

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
        WebhookCommand::Test { id, store } => test(&id, &Place::new(store, remote)?),
        WebhookCommand::Failed { app, store } => failed(app.as_deref(), &Place::new(store, remote)?),
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

fn test(id: &str, place: &Place) -> Result<(), CommandError> {
    let tested = place.call(&Call::new(Operation::TestWebhook).item(id))?;
    if tested["delivered"] != true {
        let (url, reason) = (printable(text(&tested, "url")), printable(text(&tested, "reason")));
        return Err(CommandError::Webhook(format!("{id} at {url}: {reason}")));
    }
    place.answer(&tested, &format!("webhook {id} answered {}\n", tested["status"]))
}

/// The oldest first, so that the newest are where the terminal is.
fn failed(app: Option<&str>, place: &Place) -> Result<(), CommandError> {
    let mut call = Call::new(Operation::ListFailedDeliveries);
    if let Some(app) = app {
        call = call.app(app);
    }
    let mut failed = place.list(&call, usize::MAX)?;
    failed.reverse();
    let mut table = Columns::new(["FAILED", "APP", "WEBHOOK", "ATTEMPTS", "REASON"]);
    for failed in &failed {
        let member = |name: &str| printable(text(failed, name));
        let app = if failed["app"].is_null() { "deleted".into() } else { member("app") };
        table.push([member("failed_at"), app, member("webhook"), failed["attempts"].to_string(), member("reason")]);
    }
    place.answer(&json!(failed), &table.to_string())
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
