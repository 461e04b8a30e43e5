//! The plan for a configuration: apps, settings of the server, and for each value the result with the reason.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::entries::{self, Entry, app_at};
use super::origin::Origin;
use super::table::{Effect, Row};
use super::verdict::Verdict;
use super::webhooks::{self, Draft, PlannedWebhook};
use super::{app, options};
use crate::app::webhook::Batching;
use crate::store::record::{AppRecord, check_id, check_key, check_name, check_secret};
use crate::store::setting;

/// An app as the file describes it, completely checked.
pub(super) struct PlannedApp {
    /// Its location in the file.
    pub(super) at: String,
    pub(super) id: String,
    pub(super) key: String,
    pub(super) secret: String,
    /// Whether it is enabled, if the file says so.
    pub(super) enabled: Option<bool>,
    /// App settings that the file names, as text, in the order of their names.
    pub(super) settings: Vec<(&'static str, String)>,
    /// Settings that a new app gets in addition, since the other server allows them by default.
    pub(super) defaults: Vec<(&'static str, &'static str)>,
    /// Where the app's events are sent.
    pub(super) webhooks: Vec<PlannedWebhook>,
}

/// The complete file.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) apps: Vec<PlannedApp>,
    /// Settings of the server for `relay.toml`.
    pub(super) settings: Vec<(&'static str, Value)>,
    /// The result for each value.
    pub(super) table: Vec<Row>,
    /// How many events one request to a webhook of the file contains.
    batching: Batching,
}

impl Plan {
    /// Maps a file.
    ///
    /// # Errors
    /// One line that names the key.
    pub(super) fn new(origin: Origin, entries: Vec<Entry>) -> Result<Self, String> {
        let mut plan = Self::default();
        let mut apps: BTreeMap<usize, Vec<Entry>> = BTreeMap::new();
        let mut rest = Vec::new();
        for entry in entries {
            match app::position(&entry.path) {
                Some((index, depth)) => {
                    let path = entry.path[depth..].to_vec();
                    apps.entry(index).or_default().extend(entries::unfold(Entry { path, ..entry }));
                }
                None => rest.push(entry),
            }
        }
        let of_all = plan.take_options(origin, &rest)?;
        for (index, entries) in apps {
            plan.take_app(origin, index, &entries, &of_all)?;
        }
        if plan.apps.is_empty() {
            return Err(no_apps(&plan));
        }
        plan.check_unique()?;
        Ok(plan)
    }

    /// How many values would allow more than at the old server.
    pub(super) fn loosened(&self) -> usize {
        self.table.iter().filter(|row| row.effect == Effect::Loosens).count()
    }

    /// Processes the values that concern the server; returns those that apply to every app that does not set another.
    fn take_options(&mut self, origin: Origin, entries: &[Entry]) -> Result<BTreeMap<&'static str, String>, String> {
        let mut of_all = BTreeMap::new();
        // The row of each section, which has one row however many values it has.
        let mut sections: HashMap<String, usize> = HashMap::new();
        let mut taken = options::Taken::default();
        for entry in entries.iter().filter(|entry| !entry.is_unset()) {
            match taken.take(origin, entry) {
                options::Verdict::Taken(reason) => self.table.push(Row::taken(&entry.at, reason)),
                options::Verdict::Changed(reason) => self.table.push(Row::changed(&entry.at, Effect::Same, reason)),
                options::Verdict::Same => self.table.push(Row::taken(&entry.at, SAME)),
                options::Verdict::OfApps(verdict) => self.settle(entry, verdict, &mut of_all)?,
                options::Verdict::Not { at, effect, reason } => match sections.get(&at) {
                    Some(&row) => {
                        let row = &mut self.table[row];
                        if row.effect < effect {
                            (row.effect, row.reason) = (effect, reason.into());
                        }
                    }
                    None => {
                        sections.insert(at.clone(), self.table.len());
                        self.table.push(Row::dropped(&at, effect, reason));
                    }
                },
                options::Verdict::Wrong(takes) => return Err(wrong(entry, takes)),
            }
        }
        self.batching = taken.batching;
        self.settings = taken.settings();
        Ok(of_all)
    }

    fn take_app(
        &mut self,
        origin: Origin,
        index: usize,
        entries: &[Entry],
        of_all: &BTreeMap<&'static str, String>,
    ) -> Result<(), String> {
        let at = app_at(&entries[0]);
        let mut settings = of_all.clone();
        let (mut id, mut key, mut secret, mut enabled) = (None, None, None, None);
        let mut otherwise = Vec::new();
        let mut drafts: BTreeMap<usize, Draft> = BTreeMap::new();
        let entries = entries.iter().filter(|entry| !entry.is_unset());
        for entry in app::without_policy(origin, entries.cloned().collect(), &mut self.table) {
            let entry = &entry;
            if let Some((number, entry)) = webhooks::part(entry) {
                let verdict = webhooks::field(&entry, drafts.entry(number).or_default());
                self.settle(&entry, verdict, &mut settings)?;
                continue;
            }
            match app::field(origin, entry) {
                Verdict::Id(text) => id = Some((text, entry.clone())),
                Verdict::Key(text) => key = Some((text, entry.clone())),
                Verdict::Secret(text) => secret = Some((text, entry.clone())),
                Verdict::Enabled(value) => {
                    enabled = Some(value);
                    self.table.push(Row::taken(&entry.at, if value { "enabled" } else { "disabled" }));
                }
                Verdict::Otherwise(name, text) => otherwise.push((entry.clone(), name, text)),
                verdict @ (Verdict::Set(..)
                | Verdict::AtLeast(..)
                | Verdict::Changed { .. }
                | Verdict::Same
                | Verdict::Dropped(..)
                | Verdict::Wrong(_)) => self.settle(entry, verdict, &mut settings)?,
            }
        }
        for (entry, name, text) in otherwise {
            self.settle_otherwise(&entry, name, text, &mut settings)?;
        }
        let needs = |name: &str,
                     found: Option<(String, Entry)>,
                     check: fn(&str) -> Result<(), crate::store::StoreError>| {
            let (text, entry) = found.ok_or_else(|| format!("{at}: the app (number {index} from 0) has no {name}"))?;
            check(&text).map_err(|error| format!("{}: {error}", entry.at))?;
            Ok::<String, String>(text)
        };
        let id = needs("id", id, check_id)?;
        let key = needs("key", key, check_key)?;
        let secret = needs("secret", secret, check_secret)?;
        if let Some(name) = settings.get("name") {
            check_name(name).map_err(|error| format!("{at}.name: {error}"))?;
        }
        let webhooks = webhooks::settle(drafts.into_values(), self.batching, &mut self.table);
        let defaults = origin.defaults().iter().copied().filter(|(name, _)| !settings.contains_key(name)).collect();
        let settings = settings.into_iter().collect();
        self.apps.push(PlannedApp { at, id, key, secret, enabled, settings, defaults, webhooks });
        Ok(())
    }

    /// Records the result for a value; a setting's text is checked with the setting itself.
    fn settle(
        &mut self,
        entry: &Entry,
        verdict: Verdict,
        settings: &mut BTreeMap<&'static str, String>,
    ) -> Result<(), String> {
        let at = &entry.at;
        let row = match verdict {
            Verdict::Set(name, text) => set(at, name, text, settings),
            Verdict::AtLeast(name, number) => {
                let of_all = settings.get(name).and_then(|text| text.parse().ok()).unwrap_or(number);
                set(at, name, number.max(of_all).to_string(), settings)
            }
            Verdict::Changed { name, text, effect, reason } => {
                let reason = format!("{name}={text}: {reason}");
                settings.insert(name, text);
                Row::changed(at, effect, reason)
            }
            Verdict::Dropped(effect, reason) => Row::dropped(at, effect, reason),
            Verdict::Wrong(takes) => return Err(wrong(entry, takes)),
            Verdict::Same => Row::taken(at, SAME),
            Verdict::Otherwise(..) | Verdict::Id(_) | Verdict::Key(_) | Verdict::Secret(_) | Verdict::Enabled(_) => {
                return Ok(());
            }
        };
        self.table.push(row);
        Ok(())
    }

    /// Records a value whose setting another value may have set.
    fn settle_otherwise(
        &mut self,
        entry: &Entry,
        name: &'static str,
        text: String,
        settings: &mut BTreeMap<&'static str, String>,
    ) -> Result<(), String> {
        if let Some(named) = settings.get(name) {
            let reason = format!("Relay pings when {name}={named} and 5 seconds more have passed in silence");
            self.table.push(Row::changed(&entry.at, Effect::Same, reason));
            return Ok(());
        }
        self.settle(entry, Verdict::Set(name, text), settings)
    }

    /// Checks that ids and keys name one app each.
    fn check_unique(&self) -> Result<(), String> {
        let (mut ids, mut keys) = (HashMap::new(), HashMap::new());
        for app in &self.apps {
            let twice = [("id", ids.insert(&app.id, app)), ("key", keys.insert(&app.key, app))];
            if let Some((twice, other)) = twice.into_iter().find_map(|(twice, other)| Some((twice, other?))) {
                return Err(format!("{}.{twice}: it is the {twice} of {} too", app.at, other.at));
            }
        }
        Ok(())
    }
}

/// Why a value needs no change.
const SAME: &str = "Relay does so as well";

/// Records a setting if it accepts the text.
fn set(at: &str, name: &'static str, text: String, settings: &mut BTreeMap<&'static str, String>) -> Row {
    match setting::apply(&mut AppRecord::stand_in(), name, &text) {
        Ok(()) => {
            let row = Row::taken(at, format!("{name}={text}"));
            settings.insert(name, text);
            row
        }
        Err(error) => Row::dropped(at, Effect::Same, error.to_string()),
    }
}

fn wrong(entry: &Entry, takes: &str) -> String {
    format!("{} takes {takes}", entry.at)
}

/// Why there is no app to import, as far as the file shows.
fn no_apps(plan: &Plan) -> String {
    let is_driver = |at: &str| at.replace('_', "").eq_ignore_ascii_case("appManager.driver");
    let driver = plan.table.iter().find(|row| is_driver(&row.at));
    match driver {
        Some(Row { at, reason, .. }) => format!("there is no app in this file; {at}: {reason}"),
        None => "there is no app in this file".into(),
    }
}
