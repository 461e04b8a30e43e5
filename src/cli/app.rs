//! `relay app ...`: apps in the store.

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::columns::Columns;
use super::place::{Place, text, texts};
use super::remote::RemoteArguments;
use super::{CommandError, StoreArguments, note};
use crate::admin::Operation;
use crate::admin::call::Call;
use crate::admin::routes::CREATED;
use crate::app::AppSettings;
use crate::app::settings::APP_SETTINGS;
use crate::metrics::refusal_log::printable;
use crate::openapi::settings::value_of;
use crate::setting::Setting;
use crate::store::setting;

#[derive(Subcommand)]
pub(super) enum AppCommand {
    /// Create an app and print its key and secret.
    Create {
        /// Display name.
        #[arg(long, default_value = "")]
        name: String,
        /// Its id [default: 9 random digits]. SDKs that insist on digits need digits.
        #[arg(long)]
        id: Option<String>,
        /// Its key [default: 20 random hex digits].
        #[arg(long)]
        key: Option<String>,
        /// Its secret [default: 40 random characters]. Other users of this machine may see the command line.
        #[arg(long)]
        secret: Option<String>,
        /// Settings, as in `app set`.
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
        /// Permit authorizers at private addresses and over http (authorizer_allow_private=true).
        #[arg(long)]
        allow_private: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// List all apps; secrets are not shown.
    List {
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Show one app.
    Show {
        /// Its id.
        id: String,
        /// Also show the secrets of its keys.
        #[arg(long)]
        secrets: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Change settings of an app; if one is refused, none is changed.
    Set {
        /// Its id.
        id: String,
        /// Settings such as client_events=true; `relay app show ID` lists all.
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        /// Permit authorizers at private addresses and over http (authorizer_allow_private=true).
        #[arg(long)]
        allow_private: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Add a new key and secret; the old ones work until they are removed.
    Rotate {
        /// Its id.
        id: String,
        /// Remove all keys except the newest instead.
        #[arg(long)]
        remove_old: bool,
        #[command(flatten)]
        items: KeyItemsArguments,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Remove one key and its secret.
    RemoveKey {
        /// Id of the app.
        id: String,
        /// The key.
        key: String,
        #[command(flatten)]
        items: KeyItemsArguments,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Disable an app: close its connections and refuse its requests.
    Disable {
        /// Its id.
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Enable a disabled app.
    Enable {
        /// Its id.
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Remove an app with its keys and tokens.
    Delete {
        /// Its id.
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
}

/// What happens to the tokens and webhooks that a removed key created.
#[derive(Args, Debug)]
pub(super) struct KeyItemsArguments {
    /// Also revoke the tokens and remove the webhooks that were created with the removed keys.
    #[arg(long, conflicts_with = "keep_created")]
    revoke_created: bool,
    /// Keep the tokens and webhooks that were created with the removed keys.
    #[arg(long)]
    keep_created: bool,
}

impl KeyItemsArguments {
    /// The parameter `created` of the admin API.
    fn choice(&self) -> Option<&'static str> {
        match (self.revoke_created, self.keep_created) {
            (true, _) => Some("revoke"),
            (false, true) => Some("keep"),
            (false, false) => None,
        }
    }
}

pub(super) fn run(command: AppCommand, remote: &RemoteArguments) -> Result<(), CommandError> {
    match command {
        AppCommand::Create { name, id, key, secret, mut settings, allow_private, store } => {
            settings.extend(allow_private.then(|| ALLOW_PRIVATE.to_owned()));
            let new = [("name", Some(name)), ("id", id), ("key", key), ("secret", secret)];
            create(new, &settings, &Place::new(store, remote)?)
        }
        AppCommand::List { store } => {
            let place = Place::new(store, remote)?;
            let apps = place.list(&Call::new(Operation::ListApps), usize::MAX)?;
            place.answer(&json!(apps), &list_text(&apps))
        }
        AppCommand::Show { id, secrets, store } => {
            let place = Place::new(store, remote)?;
            let operation = if secrets { Operation::RevealApp } else { Operation::ShowApp };
            let app = place.call(&Call::new(operation).app(&id))?;
            place.answer(&app, &app_text(&app))
        }
        AppCommand::Set { id, mut settings, allow_private, store } => {
            settings.extend(allow_private.then(|| ALLOW_PRIVATE.to_owned()));
            set(&id, &settings, &Place::new(store, remote)?)
        }
        AppCommand::Rotate { id, remove_old: false, items, store } => {
            if items.choice().is_some() {
                let usage =
                    "--revoke-created and --keep-created are for --remove-old: this adds a key and removes none";
                return Err(CommandError::Usage(usage.into()));
            }
            let place = Place::new(store, remote)?;
            let pair = place.call(&Call::new(Operation::AddKey).app(&id))?;
            note("The old keys work on until `relay app rotate --remove-old` or `relay app remove-key`.");
            place.answer(&pair, &pair_text(&pair))
        }
        AppCommand::Rotate { id, remove_old: true, items, store } => {
            remove_keys(Call::new(Operation::RemoveOldKeys).app(&id), &items, &Place::new(store, remote)?)
        }
        AppCommand::RemoveKey { id, key, items, store } => {
            remove_keys(Call::new(Operation::RemoveKey).app(&id).item(&key), &items, &Place::new(store, remote)?)
        }
        AppCommand::Disable { id, store } => switch(Operation::DisableApp, &id, &Place::new(store, remote)?),
        AppCommand::Enable { id, store } => switch(Operation::EnableApp, &id, &Place::new(store, remote)?),
        AppCommand::Delete { id, store } => {
            let place = Place::new(store, remote)?;
            let deleted = place.call(&Call::new(Operation::DeleteApp).app(&id))?;
            place.answer(&deleted, &format!("app {id} is deleted\n"))
        }
    }
}

/// The setting of `--allow-private`.
const ALLOW_PRIVATE: &str = "authorizer_allow_private=true";

fn create(new: [(&'static str, Option<String>); 4], settings: &[String], place: &Place) -> Result<(), CommandError> {
    let given = new.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::String(value?))));
    let mut fields: Map<String, Value> = given.collect();
    let mut settings = values(settings)?;
    // A name may be given as a setting, too, as in `app set`.
    fields.extend(settings.remove("name").map(|name| ("name".to_owned(), name)));
    fields.insert("settings".into(), settings.into());
    let app = place.call_with(Call::new(Operation::CreateApp), fields)?;
    place.answer(&app, &pair_text(&app))
}

fn set(id: &str, settings: &[String], place: &Place) -> Result<(), CommandError> {
    let app = place.call_with(Call::new(Operation::ChangeSettings).app(id), values(settings)?)?;
    place.answer(&app, &app_text(&app))
}

fn switch(operation: Operation, id: &str, place: &Place) -> Result<(), CommandError> {
    let app = place.call(&Call::new(operation).app(id))?;
    place.answer(&app, &format!("app {id} is {}\n", state(&app)))
}

/// Shows the removed keys and what they created; also before the refusal that it causes (R-ADMIN-6).
fn remove_keys(call: Call, items: &KeyItemsArguments, place: &Place) -> Result<(), CommandError> {
    let call = items.choice().into_iter().fold(call, |call, choice| call.with(CREATED, choice));
    let id = call.app.clone().unwrap_or_default();
    let removed = place.call(&call).inspect_err(|error| {
        for item in error.created() {
            let (kind, id, at) = (text(&item, "kind"), text(&item, "id"), text(&item, "created_at"));
            let (name, created_by) = (printable(text(&item, "name")), printable(text(&item, "created_by")));
            note(&format!("{kind} {id}  created {at} by {created_by}  {name}"));
        }
    })?;
    let keys = texts(&removed["removed"]);
    let mut shown = match keys.as_slice() {
        [] => format!("app {id} has no old keys\n"),
        keys => format!("app {id}: removed {}\n", keys.join(" ")),
    };
    for item in removed["created"].as_array().into_iter().flatten() {
        let done = match (removed["revoked"] == true, text(item, "kind")) {
            (true, "token") => "revoked",
            (true, _) => "removed",
            (false, _) => "kept",
        };
        let (kind, id, name) = (text(item, "kind"), text(item, "id"), printable(text(item, "name")));
        writeln!(shown, "{done} {kind} {id}  {name}").expect("a string takes text");
    }
    place.answer(&removed, &shown)
}

/// The values of `KEY=VALUE` in JSON, each of the type that its setting takes. A text that is no such value stays a
/// text, which is then refused with what the setting takes.
fn values(settings: &[String]) -> Result<Map<String, Value>, CommandError> {
    let (mut values, defaults) = (Map::new(), AppSettings::default());
    for text in settings {
        let usage = || CommandError::Usage(format!("{text:?} is not KEY=VALUE: write for example client_events=true"));
        let (name, value) = text.split_once('=').ok_or_else(usage)?;
        let setting = Setting::named(APP_SETTINGS, name);
        if let Some(setting) = setting.filter(|setting| setting.name != name) {
            note(&format!("warning: {name} is now called {}; the old name still works", setting.name));
        }
        let read = |setting: &Setting<_>| value_of(setting.takes, &(setting.show)(&defaults), value);
        let value = setting.map_or_else(|| value.into(), read);
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}

fn list_text(apps: &[Value]) -> String {
    let mut table = Columns::new(["ID", "STATE", "KEY", "NAME"]);
    for app in apps {
        let key = texts(&app["keys"]).pop().unwrap_or_default();
        table.push([text(app, "id").to_owned(), state(app).to_owned(), key, printable(text(app, "name"))]);
    }
    table.to_string()
}

fn state(app: &Value) -> &'static str {
    if app["enabled"] == true { "enabled" } else { "disabled" }
}

fn pair_text(pair: &Value) -> String {
    format!("id      {}\nkey     {}\nsecret  {}\n", text(pair, "id"), text(pair, "key"), text(pair, "secret"))
}

fn app_text(app: &Value) -> String {
    let mut shown =
        format!("id       {}\nstate    {}\ncreated  {}\n", text(app, "id"), state(app), text(app, "created_at"));
    for pair in app["keys"].as_array().into_iter().flatten() {
        let secret = pair.get("secret").and_then(Value::as_str).unwrap_or("(secret: --secrets)");
        writeln!(shown, "key      {} {secret}", text(pair, "key")).expect("a string takes text");
    }
    let name = (setting::NAME, app["name"].clone(), setting::ABOUT_NAME.to_owned());
    let settings = APP_SETTINGS.iter().map(|setting| {
        let about = format!("{}: {}", setting.summary(), setting.takes);
        (setting.name, app["settings"][setting.name].clone(), about)
    });
    for (name, value, about) in std::iter::once(name).chain(settings) {
        writeln!(shown, "{name}={value}  # {about}").expect("a string takes text");
    }
    shown
}
