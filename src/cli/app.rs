//! `relay app ...`: apps in the store.

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::columns::Columns;
use super::{CommandError, StoreArguments, actor, note, time, webhook};
use crate::app::settings::APP_SETTINGS;
use crate::metrics::refusal_log::printable;
use crate::setting::Setting;
use crate::store::record::{AppRecord, KeyRecord};
use crate::store::{CreatedWithKey, KeyItems, Missing, NewApp, RemovedKeys, StoreError, setting};

/// Shows secrets or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Secrets {
    Hidden,
    Shown,
}

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
    fn items(&self) -> KeyItems {
        match (self.revoke_created, self.keep_created) {
            (true, _) => KeyItems::Revoke,
            (false, true) => KeyItems::Keep,
            (false, false) => KeyItems::Refuse,
        }
    }
}

pub(super) fn run(command: AppCommand) -> Result<(), CommandError> {
    match command {
        AppCommand::Create { name, id, key, secret, mut settings, allow_private, store } => {
            settings.extend(allow_private.then(|| ALLOW_PRIVATE.to_owned()));
            create(NewApp { id, key, secret, name, ..NewApp::default() }, &settings, &store)
        }
        AppCommand::List { store } => {
            let apps = store.open(Missing::Refuse)?.apps()?;
            let json = apps.iter().map(summary_json).collect();
            store.answer(&json, &list_text(&apps))
        }
        AppCommand::Show { id, secrets, store } => {
            let app = store.open(Missing::Refuse)?.app(&id)?;
            let secrets = if secrets { Secrets::Shown } else { Secrets::Hidden };
            store.answer(&app_json(&app, secrets), &app_text(&app, secrets))
        }
        AppCommand::Set { id, mut settings, allow_private, store } => {
            settings.extend(allow_private.then(|| ALLOW_PRIVATE.to_owned()));
            set(&id, &settings, &store)
        }
        AppCommand::Rotate { id, remove_old: false, items, store } => {
            if items.items() != KeyItems::Refuse {
                let usage =
                    "--revoke-created and --keep-created are for --remove-old: this adds a key and removes none";
                return Err(CommandError::Usage(usage.into()));
            }
            let (_, pair) = store.open(Missing::Refuse)?.rotate_app(&actor(), &id)?;
            note("The old keys work on until `relay app rotate --remove-old` or `relay app remove-key`.");
            store.answer(&pair_json(&id, &pair), &pair_text(&id, &pair))
        }
        AppCommand::Rotate { id, remove_old: true, items, store } => {
            let removed = store.open(Missing::Refuse)?.remove_old_keys(&actor(), &id, items.items());
            answer_removed(&id, removed, items.items(), &store)
        }
        AppCommand::RemoveKey { id, key, items, store } => {
            let removed = store.open(Missing::Refuse)?.remove_key(&actor(), &id, &key, items.items());
            answer_removed(&id, removed, items.items(), &store)
        }
        AppCommand::Disable { id, store } => switch(&id, false, &store),
        AppCommand::Enable { id, store } => switch(&id, true, &store),
        AppCommand::Delete { id, store } => {
            let app = store.open(Missing::Refuse)?.delete_app(&actor(), &id)?;
            store.answer(&json!({ "id": app.id, "deleted": true }), &format!("app {id} is deleted\n"))
        }
    }
}

/// The setting of `--allow-private`.
const ALLOW_PRIVATE: &str = "authorizer_allow_private=true";

fn create(mut new: NewApp, settings: &[String], store: &StoreArguments) -> Result<(), CommandError> {
    // The settings are applied to a stand-in first, so that an invalid one creates no app.
    let mut blank = AppRecord { name: new.name.clone(), ..AppRecord::stand_in() };
    setting::apply_all(&mut blank, &pairs(settings)?, &webhook::options(store)?.allowed)?;
    (new.settings, new.name) = (blank.settings, blank.name);
    let app = store.open(Missing::Create)?.create_app(&actor(), new)?;
    let pair = &app.keys[0];
    let mut json = app_json(&app, Secrets::Hidden);
    json["key"] = json!(pair.key);
    json["secret"] = json!(pair.secret);
    store.answer(&json, &pair_text(&app.id, pair))
}

fn set(id: &str, settings: &[String], store: &StoreArguments) -> Result<(), CommandError> {
    let pairs = pairs(settings)?;
    let allowed = webhook::options(store)?.allowed;
    let app = store.open(Missing::Refuse)?.change_app(&actor(), id, |app| setting::apply_all(app, &pairs, &allowed))?;
    store.answer(&app_json(&app, Secrets::Hidden), &app_text(&app, Secrets::Hidden))
}

fn switch(id: &str, enabled: bool, store: &StoreArguments) -> Result<(), CommandError> {
    let app = store.open(Missing::Refuse)?.change_app(&actor(), id, |app| {
        app.enabled = enabled;
        Ok(())
    })?;
    let state = if enabled { "enabled" } else { "disabled" };
    store.answer(&summary_json(&app), &format!("app {id} is {state}\n"))
}

/// Shows the removed keys and what they created; also before the refusal that it causes (R-ADMIN-6).
fn answer_removed(
    id: &str,
    removed: Result<RemovedKeys, StoreError>,
    items: KeyItems,
    store: &StoreArguments,
) -> Result<(), CommandError> {
    if let Err(StoreError::KeyCreated { created, .. }) = &removed {
        for CreatedWithKey { kind, id, name, created_by, created_at_ms } in created {
            let (name, created_by) = (printable(name), printable(&created_by.to_string()));
            note(&format!("{kind} {id}  created {} by {created_by}  {name}", time::rfc3339(*created_at_ms)));
        }
    }
    let removed = removed?;
    let created = removed.created.iter().map(|item| {
        let CreatedWithKey { kind, id, name, created_by, created_at_ms } = item;
        let (created_by, created_at) = (created_by.to_string(), time::rfc3339(*created_at_ms));
        json!({ "kind": kind, "id": id, "name": name, "created_by": created_by, "created_at": created_at })
    });
    let mut json = summary_json(&removed.app);
    json["removed"] = json!(removed.removed);
    json["created"] = created.collect();
    json["revoked"] = json!(items == KeyItems::Revoke);
    let mut text = match removed.removed.as_slice() {
        [] => format!("app {id} has no old keys\n"),
        keys => format!("app {id}: removed {}\n", keys.join(" ")),
    };
    for CreatedWithKey { kind, id, name, .. } in &removed.created {
        let done = match (items, *kind) {
            (KeyItems::Revoke, "token") => "revoked",
            (KeyItems::Revoke, _) => "removed",
            (KeyItems::Keep | KeyItems::Refuse, _) => "kept",
        };
        writeln!(text, "{done} {kind} {id}  {}", printable(name)).expect("a string takes text");
    }
    store.answer(&json, &text)
}

fn pairs(settings: &[String]) -> Result<Vec<(&str, &str)>, CommandError> {
    let usage = |text: &'_ String| format!("{text:?} is not KEY=VALUE: write for example client_events=true");
    let pairs = settings.iter().map(|text| text.split_once('=').ok_or_else(|| CommandError::Usage(usage(text))));
    let pairs: Vec<(&str, &str)> = pairs.collect::<Result<_, _>>()?;
    for (name, _) in &pairs {
        if let Some(setting) = Setting::named(APP_SETTINGS, name).filter(|setting| setting.name != *name) {
            note(&format!("warning: {name} is now called {}; the old name still works", setting.name));
        }
    }
    Ok(pairs)
}

fn summary_json(app: &AppRecord) -> Value {
    json!({
        "id": app.id,
        "name": app.name,
        "enabled": app.enabled,
        "keys": app.keys.iter().map(|pair| &pair.key).collect::<Vec<_>>(),
        "created_at": time::rfc3339(app.created_at_ms),
    })
}

fn app_json(app: &AppRecord, secrets: Secrets) -> Value {
    let mut json = summary_json(app);
    json["keys"] = app.keys.iter().map(|pair| key_json(pair, secrets)).collect();
    let settings = APP_SETTINGS.iter().map(|setting| (setting.name.to_owned(), (setting.show)(&app.settings)));
    json["settings"] = settings.collect::<serde_json::Map<_, _>>().into();
    json
}

fn key_json(pair: &KeyRecord, secrets: Secrets) -> Value {
    let mut json = json!({ "key": pair.key, "created_at": time::rfc3339(pair.created_at_ms) });
    if secrets == Secrets::Shown {
        json["secret"] = json!(pair.secret);
    }
    json
}

fn pair_json(id: &str, pair: &KeyRecord) -> Value {
    let mut json = key_json(pair, Secrets::Shown);
    json["id"] = json!(id);
    json
}

fn pair_text(id: &str, pair: &KeyRecord) -> String {
    format!("id      {id}\nkey     {}\nsecret  {}\n", pair.key, pair.secret)
}

fn list_text(apps: &[AppRecord]) -> String {
    let mut table = Columns::new(["ID", "STATE", "KEY", "NAME"]);
    for app in apps {
        let state = if app.enabled { "enabled" } else { "disabled" };
        let key = app.keys.last().map(|pair| pair.key.clone()).unwrap_or_default();
        table.push([app.id.clone(), state.into(), key, app.name.clone()]);
    }
    table.to_string()
}

fn app_text(app: &AppRecord, secrets: Secrets) -> String {
    let mut text = format!(
        "id       {}\nstate    {}\ncreated  {}\n",
        app.id,
        if app.enabled { "enabled" } else { "disabled" },
        time::rfc3339(app.created_at_ms)
    );
    for pair in &app.keys {
        let secret = if secrets == Secrets::Shown { &pair.secret } else { "(secret: --secrets)" };
        writeln!(text, "key      {} {secret}", pair.key).expect("a string takes text");
    }
    for (name, value, about) in setting::list(app) {
        writeln!(text, "{name}={value}  # {about}").expect("a string takes text");
    }
    text
}
