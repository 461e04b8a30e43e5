//! `relay migrate --from SERVER FILE`: imports the apps of another server's configuration into the store with their
//! ids, keys and secrets, so that clients need only a new host; prints the settings that belong in `relay.toml`, and a
//! table that lists for each value the result and the reason. Webhooks are imported too. A second run changes nothing.
//! A migration that would allow more than the old server did requires `--accept-loss`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{CommandError, StoreArguments, actor};
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{Batching, CountName, NewWebhook};
use crate::config::ConfigError;
use crate::label::Label;
use crate::limits;
use crate::store::record::AppRecord;
use crate::store::{Batch, Missing, Store, StoreError, setting};
use origin::Origin;
use plan::{Plan, PlannedApp};
use table::Row;
use verdict::Outcome;
use webhooks::JudgedWebhook;

mod app;
mod entries;
#[cfg(fuzzing)]
pub mod fuzzing;
mod options;
mod origin;
mod plan;
mod table;
mod verdict;
mod webhooks;

#[derive(Args, Debug)]
pub(super) struct MigrateArguments {
    /// Server that FILE configures.
    #[arg(long, value_name = "SERVER")]
    from: Origin,
    /// Configuration file: JSON, for sockudo also TOML.
    file: PathBuf,
    /// Show the changes without making them.
    #[arg(long)]
    dry_run: bool,
    /// Migrate even if this permits more than the old server did, or loses some of its security.
    #[arg(long)]
    accept_loss: bool,
    /// Allow webhooks of FILE at private addresses, and over http.
    #[arg(long)]
    allow_private: bool,
    #[command(flatten)]
    store: StoreArguments,
}

pub(super) fn run(arguments: &MigrateArguments) -> Result<(), CommandError> {
    let file = arguments.file.display().to_string();
    let refused = |text: String| CommandError::Config(ConfigError(format!("{file}: {text}")));
    let text = read(&arguments.file).map_err(refused)?;
    let entries = entries::parse(&text, &arguments.file).map_err(refused)?;
    let mut plan = Plan::new(arguments.from, entries).map_err(refused)?;
    let allowed = allowed(arguments, &plan)?;
    let loosened = if arguments.accept_loss { 0 } else { plan.loosened() };
    let applies = !arguments.dry_run && loosened == 0;
    let missing = if applies { Missing::Create } else { Missing::Refuse };
    let store = match arguments.store.open(missing) {
        Ok(store) => Some(store),
        Err(CommandError::Store(StoreError::Missing { .. } | StoreError::Empty { .. })) if !applies => None,
        Err(error) => return Err(error),
    };
    let existing = store.as_ref().map_or_else(|| Ok(Vec::new()), Store::apps)?;
    let judged = judge(arguments, &mut plan, &existing, &allowed).map_err(refused)?;
    if let Some(store) = store.filter(|_| applies) {
        let mut apps = plan.apps.iter().zip(&judged);
        store.import(&actor(), &arguments.from.name(), |batch| {
            apps.try_for_each(|(app, judged)| apply(batch, app, judged, &allowed))
        })?;
    }
    let json = report_json(arguments, &plan, &judged, applies);
    arguments.store.answer(&json, &report_text(&plan, &judged, applies))?;
    if loosened == 0 { Ok(()) } else { Err(CommandError::Loss(loosened)) }
}

/// The endpoints for a JSON list of soketi's webhooks, and the losses with their locations, which begin with `at`.
pub(super) fn webhooks_of(at: &str, list: &str, allowed: &[IpNet]) -> (Vec<NewWebhook>, Vec<(String, String)>) {
    let (judged, table) = webhooks::of_list(at, list, allowed);
    let losses = table.into_iter().filter(Row::is_loss).map(|row| (row.at, row.reason)).collect();
    (judged.into_iter().map(|judged| judged.new).collect(), losses)
}

/// Networks in which every webhook may be. They are not read for a file without webhooks.
fn allowed(arguments: &MigrateArguments, plan: &Plan) -> Result<Vec<IpNet>, CommandError> {
    if plan.apps.iter().all(|app| app.webhooks.is_empty()) {
        return Ok(Vec::new());
    }
    Ok(arguments.store.webhook_options()?.allowed)
}

/// Reads the complete file, up to a limit: it is a configuration and not an archive.
fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = String::new();
    let bound = limits::MIGRATION_FILE_BYTES_MAX;
    std::fs::File::open(path).map_err(failed)?.take(bound + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > bound { Err(format!("is longer than {bound} bytes")) } else { Ok(text) }
}

/// The outcome for an app and for its webhooks.
struct Judged {
    outcome: Outcome,
    /// Whether the app is enabled after the migration.
    enabled: bool,
    webhooks: Vec<JudgedWebhook>,
}

/// Compares the plan with the store, before anything is written: a key belongs to one app.
fn judge(
    arguments: &MigrateArguments,
    plan: &mut Plan,
    existing: &[AppRecord],
    allowed: &[IpNet],
) -> Result<Vec<Judged>, String> {
    let by_id: HashMap<&str, &AppRecord> = existing.iter().map(|app| (app.id.as_str(), app)).collect();
    let pairs = existing.iter().flat_map(|app| app.keys.iter().map(move |pair| (pair.key.as_str(), app)));
    let by_key: HashMap<&str, &AppRecord> = pairs.collect();
    let reach = if arguments.allow_private { Reach::Anywhere } else { Reach::Public };
    let outcome = |app: &PlannedApp| {
        if let Some(holder) = by_key.get(app.key.as_str()).filter(|holder| holder.id != app.id) {
            return Err(format!(
                "{}.key: the key {} belongs to the app {} of the store: remove it there (`relay app remove-key`)",
                app.at, app.key, holder.id
            ));
        }
        let Some(&before) = by_id.get(app.id.as_str()) else {
            return Ok(Outcome::Created);
        };
        let has_pair = before.keys.iter().any(|pair| pair.key == app.key && pair.secret == app.secret);
        let mut after = before.clone();
        app.change(&mut after).map_err(|error| error.to_string())?;
        Ok(if has_pair && after == *before { Outcome::Same } else { Outcome::Changed })
    };
    let Plan { apps, table, .. } = plan;
    let judged = |app: &PlannedApp| {
        let outcome = outcome(app)?;
        let before = by_id.get(app.id.as_str()).copied();
        let by_default = arguments.from.enables_apps();
        let enabled = app.enabled.unwrap_or(before.map_or(by_default, |before| before.enabled));
        if before.is_none() && app.enabled.is_none() && !by_default {
            let reason = format!("disabled: {} enables no app without it", arguments.from.name());
            table.push(Row::taken(&format!("{}.enabled", app.at), reason));
        }
        Ok(Judged { outcome, enabled, webhooks: webhooks::judge(&app.webhooks, before, reach, allowed, table) })
    };
    apps.iter().map(judged).collect()
}

/// Creates the app or adds what it lacks. Everything else that it has is kept: other keys, other webhooks, settings
/// that the file does not name.
fn apply(batch: &mut Batch<'_, '_>, app: &PlannedApp, judged: &Judged, allowed: &[IpNet]) -> Result<(), StoreError> {
    if judged.outcome != Outcome::Same {
        let mut wished = AppRecord::stand_in();
        app.defaults.iter().try_for_each(|(name, value)| setting::apply(&mut wished, name, value))?;
        app.change(&mut wished)?;
        batch.upsert_app(&app.id, &app.key, &app.secret, wished.settings)?;
        batch.change_app(&app.id, |record| {
            if judged.outcome == Outcome::Created {
                record.enabled = judged.enabled;
            }
            app.change(record)
        })?;
    }
    for webhook in judged.webhooks.iter().filter(|webhook| webhook.outcome != Outcome::Same) {
        batch.upsert_webhook(&app.id, webhook.new.clone(), allowed)?;
    }
    Ok(())
}

impl PlannedApp {
    /// The properties that the app gets, by name.
    fn shown(&self, outcome: Outcome) -> BTreeMap<&'static str, &str> {
        let given = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        match outcome {
            Outcome::Created => given.chain(self.defaults.iter().copied()).collect(),
            Outcome::Changed | Outcome::Same => given.collect(),
        }
    }

    /// Applies name, switch and settings of the file to a record.
    fn change(&self, record: &mut AppRecord) -> Result<(), StoreError> {
        record.enabled = self.enabled.unwrap_or(record.enabled);
        self.settings.iter().try_for_each(|(name, value)| setting::apply(record, name, value))
    }
}

fn report_json(arguments: &MigrateArguments, plan: &Plan, judged: &[Judged], applied: bool) -> Value {
    let webhook = |JudgedWebhook { new, outcome }: &JudgedWebhook| {
        json!({
            "url": new.url,
            "events": new.events,
            "batch": new.batching == Batching::Batched,
            "count_changed": new.count_name == CountName::Changed,
            "allow_private": new.reach == Reach::Anywhere,
            "outcome": outcome.label(),
        })
    };
    let app = |(app, judged): (&PlannedApp, &Judged)| {
        json!({
            "id": app.id,
            "key": app.key,
            "at": app.at,
            "outcome": judged.outcome.label(),
            "enabled": judged.enabled,
            "settings": app.shown(judged.outcome),
            "webhooks": judged.webhooks.iter().map(webhook).collect::<Vec<_>>(),
        })
    };
    json!({
        "from": arguments.from.name(),
        "file": arguments.file.display().to_string(),
        "dry_run": arguments.dry_run,
        "applied": applied,
        "apps": plan.apps.iter().zip(judged).map(app).collect::<Vec<_>>(),
        "settings": plan.settings.iter().cloned().collect::<BTreeMap<_, _>>(),
        "not_taken": plan.table.iter().filter(|row| row.is_loss()).map(Row::to_json).collect::<Vec<_>>(),
        "table": plan.table.iter().map(Row::to_json).collect::<Vec<_>>(),
    })
}

fn report_text(plan: &Plan, judged: &[Judged], applied: bool) -> String {
    let mut text = String::new();
    let done = |outcome: Outcome| match outcome {
        Outcome::Created | Outcome::Changed if !applied => format!("would be {}", outcome.label()),
        Outcome::Created | Outcome::Changed => outcome.label().into(),
        Outcome::Same => "is there already".into(),
    };
    for (app, judged) in plan.apps.iter().zip(judged) {
        let PlannedApp { id, key, at, .. } = app;
        writeln!(text, "app {id} with key {key} ({at}) {}", done(judged.outcome)).expect("a string takes text");
        if !judged.enabled {
            writeln!(text, "    disabled, as it was").expect("a string takes text");
        }
        for (name, value) in app.shown(judged.outcome) {
            writeln!(text, "    {name}={value}").expect("a string takes text");
        }
        for JudgedWebhook { new, outcome } in &judged.webhooks {
            let (url, events, done) = (&new.url, new.events.join(","), done(*outcome));
            writeln!(text, "    webhook {url} ({events}) {done}").expect("a string takes text");
        }
    }
    if !plan.settings.is_empty() {
        text.push_str("\nFor relay.toml:\n\n");
        for (name, value) in &plan.settings {
            writeln!(text, "{name} = {value}").expect("a string takes text");
        }
    }
    if !plan.table.is_empty() {
        text.push_str("\nValues of the file:\n\n");
        text.push_str(&table::text(&plan.table));
    }
    text
}
