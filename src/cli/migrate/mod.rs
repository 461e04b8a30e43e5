//! `relay migrate --from SERVER FILE`: the apps of another server's configuration come into the store with their ids,
//! keys and secrets, so that clients need only a new host; what belongs into `relay.toml` is printed, and whatever
//! Relay does not take over is listed with its reason. A second run changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{CommandError, StoreArguments};
use crate::config::ConfigError;
use crate::limits;
use crate::store::record::AppRecord;
use crate::store::{Missing, Store, StoreError, Upserted, setting};
use plan::{Plan, PlannedApp};

mod app;
mod entries;
mod options;
mod plan;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Origin {
    /// JSON, as `soketi start --config` takes it.
    Soketi,
    /// JSON or TOML, as `sockudo --config` takes it.
    Sockudo,
    /// JSON of Laravel's `config('reverb')`, or of its list of apps.
    Reverb,
    /// JSON of Laravel's `config('websockets')`, or of its list of apps.
    LaravelWebsockets,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Soketi => "soketi",
            Self::Sockudo => "sockudo",
            Self::Reverb => "reverb",
            Self::LaravelWebsockets => "laravel-websockets",
        }
    }

    /// What an app may do there unless its configuration says otherwise, where Relay's own default would allow less.
    fn generous(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Soketi | Self::Sockudo => &[("max_event_data_bytes", "102400")],
            Self::Reverb => &[("client_events", "true")],
            Self::LaravelWebsockets => &[("max_event_data_bytes", "256000")],
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct MigrateArguments {
    /// Whose configuration FILE is.
    #[arg(long, value_name = "SERVER")]
    from: Origin,
    /// The configuration: JSON, for sockudo also TOML.
    file: PathBuf,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArguments,
}

/// What became, or would become, of an app.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Created,
    Changed,
    Same,
}

pub(super) fn run(arguments: &MigrateArguments) -> Result<(), CommandError> {
    let file = arguments.file.display().to_string();
    let refused = |text: String| CommandError::Config(ConfigError(format!("{file}: {text}")));
    let text = read(&arguments.file).map_err(refused)?;
    let entries = entries::parse(&text, &arguments.file).map_err(refused)?;
    let plan = Plan::new(arguments.from, entries).map_err(refused)?;
    let missing = if arguments.dry_run { Missing::Refuse } else { Missing::Create };
    let store = match arguments.store.open(missing) {
        Ok(store) => Some(store),
        Err(CommandError::Store(StoreError::Missing { .. } | StoreError::Empty { .. })) if arguments.dry_run => None,
        Err(error) => return Err(error),
    };
    let existing = store.as_ref().map_or_else(|| Ok(Vec::new()), Store::apps)?;
    let outcomes = judge(&plan, &existing).map_err(refused)?;
    if let Some(store) = store.filter(|_| !arguments.dry_run) {
        for (app, outcome) in plan.apps.iter().zip(&outcomes) {
            if *outcome != Outcome::Same {
                apply(&store, app)?;
            }
        }
    }
    let json = report_json(arguments, &plan, &outcomes);
    arguments.store.answer(&json, &report_text(arguments, &plan, &outcomes))
}

/// The whole file, up to a bound: it is a configuration and no archive.
fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = String::new();
    let bound = limits::MIGRATION_FILE_BYTES_MAX;
    std::fs::File::open(path).map_err(failed)?.take(bound + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > bound { Err(format!("is longer than {bound} bytes")) } else { Ok(text) }
}

/// Compares the plan with the store, before anything is written: a key belongs to one app.
fn judge(plan: &Plan, existing: &[AppRecord]) -> Result<Vec<Outcome>, String> {
    let outcome = |app: &PlannedApp| {
        let holder = existing.iter().find(|other| other.keys.iter().any(|pair| pair.key == app.key));
        if let Some(holder) = holder.filter(|holder| holder.id != app.id) {
            return Err(format!(
                "{}.key: the key {} belongs to the app {} of the store: remove it there (`relay app remove-key`)",
                app.at, app.key, holder.id
            ));
        }
        let Some(before) = existing.iter().find(|other| other.id == app.id) else {
            return Ok(Outcome::Created);
        };
        let has_pair = before.keys.iter().any(|pair| pair.key == app.key && pair.secret == app.secret);
        let mut after = before.clone();
        app.change(&mut after).map_err(|error| error.to_string())?;
        Ok(if has_pair && after == *before { Outcome::Same } else { Outcome::Changed })
    };
    plan.apps.iter().map(outcome).collect()
}

/// Makes the app or gives it what it lacks. What it has besides stays: other keys, settings that the file does not name.
fn apply(store: &Store, app: &PlannedApp) -> Result<(), StoreError> {
    let mut wished = AppRecord::stand_in();
    app.defaults.iter().try_for_each(|(name, value)| setting::apply(&mut wished, name, value))?;
    app.change(&mut wished)?;
    let done = store.upsert_app(&app.id, &app.key, &app.secret, wished.settings)?;
    debug_assert!(matches!(done, Upserted::Created | Upserted::Changed | Upserted::Same));
    store.change_app(&app.id, |record| app.change(record)).map(drop)
}

impl PlannedApp {
    /// What the app gets, by name.
    fn shown(&self, outcome: Outcome) -> BTreeMap<&'static str, &str> {
        let given = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        match outcome {
            Outcome::Created => given.chain(self.defaults.iter().copied()).collect(),
            Outcome::Changed | Outcome::Same => given.collect(),
        }
    }

    /// Brings name, switch and settings of the file into a record.
    fn change(&self, record: &mut AppRecord) -> Result<(), StoreError> {
        record.enabled = self.enabled;
        self.settings.iter().try_for_each(|(name, value)| setting::apply(record, name, value))
    }
}

fn report_json(arguments: &MigrateArguments, plan: &Plan, outcomes: &[Outcome]) -> Value {
    let app = |(app, outcome): (&PlannedApp, &Outcome)| {
        json!({
            "id": app.id,
            "key": app.key,
            "at": app.at,
            "outcome": word(*outcome),
            "enabled": app.enabled,
            "settings": app.shown(*outcome),
        })
    };
    json!({
        "from": arguments.from.name(),
        "file": arguments.file.display().to_string(),
        "dry_run": arguments.dry_run,
        "apps": plan.apps.iter().zip(outcomes).map(app).collect::<Vec<_>>(),
        "settings": plan.settings.iter().cloned().collect::<BTreeMap<_, _>>(),
        "not_taken": plan.not_taken.iter().map(|(key, reason)| json!({ "key": key, "reason": reason })).collect::<Vec<_>>(),
    })
}

fn report_text(arguments: &MigrateArguments, plan: &Plan, outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let would = if arguments.dry_run { "would be " } else { "" };
    for (app, outcome) in plan.apps.iter().zip(outcomes) {
        let PlannedApp { id, key, at, .. } = app;
        let done = match outcome {
            Outcome::Created | Outcome::Changed => format!("{would}{}", word(*outcome)),
            Outcome::Same => "is there already".into(),
        };
        writeln!(text, "app {id} with key {key} ({at}) {done}").expect("a string takes text");
        if !app.enabled {
            writeln!(text, "    disabled, as it was").expect("a string takes text");
        }
        for (name, value) in app.shown(*outcome) {
            writeln!(text, "    {name}={value}").expect("a string takes text");
        }
    }
    if !plan.settings.is_empty() {
        text.push_str("\nFor relay.toml:\n\n");
        for (name, value) in &plan.settings {
            writeln!(text, "{name} = {value}").expect("a string takes text");
        }
    }
    if !plan.not_taken.is_empty() {
        text.push_str("\nNot taken over:\n\n");
        for (key, reason) in &plan.not_taken {
            writeln!(text, "{key}: {reason}").expect("a string takes text");
        }
    }
    text
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Changed => "changed",
        Outcome::Same => "same",
    }
}
