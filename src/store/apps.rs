//! Apps in the store: creating, reading, changing and removing them. Their keys are in [`super::keys`].

use std::ops::Bound;

use super::audit::{AuditAction, Note};
use super::batch::Batch;
use super::error::{Fault, StoreError};
use super::lookup::{app_by_id, find_by_serial, unused};
use super::record::{self, AppRecord, check_id, check_name, check_secret};
use super::{META_NEXT_SERIAL, Store, all_apps, keys, meta, random, token_index};
use crate::app::AppSettings;
use crate::app::actor::Actor;
use crate::app::settings::APP_SETTINGS;

/// An app to create; a field that is `None` gets a random value.
#[derive(Clone, Default)]
pub struct NewApp {
    /// Its public id.
    pub id: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// Its secret.
    pub secret: Option<String>,
    /// A display name.
    pub name: String,
    /// Its settings.
    pub settings: AppSettings,
}

/// The outcome of [`Store::upsert_app`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Upserted {
    /// The app is new.
    Created,
    /// The secret differed or the key was missing.
    Changed,
    /// The app already matched; nothing was written.
    Same,
}

impl Store {
    /// All apps, oldest first.
    pub fn apps(&self) -> Result<Vec<AppRecord>, StoreError> {
        self.environment().read(|transaction, tables| all_apps(transaction, tables))
    }

    /// The apps after the one with this serial, oldest first, at most `limit`.
    pub fn apps_after(&self, serial: Option<u32>, limit: usize) -> Result<Vec<AppRecord>, StoreError> {
        self.environment().read(|transaction, tables| {
            let serial = serial.map(u32::to_be_bytes);
            let start = serial.as_ref().map_or(Bound::Unbounded, |serial| Bound::Excluded(&serial[..]));
            let mut apps = Vec::new();
            for entry in tables.apps.range(transaction, &(start, Bound::Unbounded))?.take(limit) {
                apps.push(record::decode("an app", entry?.1)?);
            }
            Ok(apps)
        })
    }

    /// Number of apps.
    pub fn app_count(&self) -> Result<u64, StoreError> {
        self.environment().read(|transaction, tables| Ok(tables.apps.len(transaction)?))
    }

    /// The app with this id.
    pub fn app(&self, id: &str) -> Result<AppRecord, StoreError> {
        self.environment().read(|transaction, tables| app_by_id(transaction, tables, id))
    }

    /// The app with this serial, unless it was deleted.
    pub fn app_of_serial(&self, serial: u32) -> Result<Option<AppRecord>, StoreError> {
        self.environment().read(|transaction, tables| find_by_serial(transaction, tables, serial))
    }

    /// As [`Batch::create_app`].
    pub fn create_app(&self, actor: &Actor, new: NewApp) -> Result<AppRecord, StoreError> {
        self.change_all(actor, |batch| batch.create_app(new))
    }

    /// Creates an app only if the store has none: used at the first start.
    pub fn create_first_app(&self, actor: &Actor, new: NewApp) -> Result<Option<AppRecord>, StoreError> {
        self.change_all(actor, |batch| {
            let is_empty = batch.tables.apps.is_empty(batch.transaction).map_err(Fault::from);
            if batch.at(is_empty)? { batch.create_app(new).map(Some) } else { Ok(None) }
        })
    }

    /// As [`Batch::upsert_app`]; nothing is written if the app matches.
    pub fn upsert_app(
        &self,
        actor: &Actor,
        id: &str,
        key: &str,
        secret: &str,
        settings: AppSettings,
    ) -> Result<Upserted, StoreError> {
        let wished = |app: &AppRecord| app.keys.iter().any(|pair| pair.key == key && pair.secret == secret);
        if self.app(id).is_ok_and(|app| wished(&app)) {
            return Ok(Upserted::Same);
        }
        self.change_all(actor, |batch| batch.upsert_app(id, key, secret, settings))
    }

    /// As [`Batch::change_app`].
    pub fn change_app(
        &self,
        actor: &Actor,
        id: &str,
        change: impl FnOnce(&mut AppRecord) -> Result<(), StoreError>,
    ) -> Result<AppRecord, StoreError> {
        self.change_all(actor, |batch| batch.change_app(id, change))
    }

    /// As [`Batch::delete_app`].
    pub fn delete_app(&self, actor: &Actor, id: &str) -> Result<AppRecord, StoreError> {
        self.change_all(actor, |batch| batch.delete_app(id))
    }
}

impl Batch<'_, '_> {
    /// The app with this id, as this batch has left it.
    pub fn app(&self, id: &str) -> Result<AppRecord, StoreError> {
        self.at(app_by_id(self.transaction, self.tables, id))
    }

    /// Creates an app with one key pair.
    pub fn create_app(&mut self, new: NewApp) -> Result<AppRecord, StoreError> {
        let created = insert(self, new);
        self.at(created)
    }

    /// Ensures that the app `id` exists and has this key pair. An existing app keeps its settings, its other keys and
    /// its enabled state; `settings` apply to a new one only.
    pub fn upsert_app(
        &mut self,
        id: &str,
        key: &str,
        secret: &str,
        settings: AppSettings,
    ) -> Result<Upserted, StoreError> {
        let done = upsert(self, (id, key, secret), settings);
        self.at(done)
    }

    /// Changes the name, the settings or `enabled` of an app: `change` sets the fields that it names in the app's newest
    /// record, so that no other field returns to an old value (threat T52). Id, serial, keys and webhooks stay as they
    /// are.
    pub fn change_app(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut AppRecord) -> Result<(), StoreError>,
    ) -> Result<AppRecord, StoreError> {
        let before = self.app(id)?;
        let mut app = before.clone();
        change(&mut app)?;
        (app.serial, app.id, app.keys) = (before.serial, before.id.clone(), before.keys.clone());
        (app.webhooks, app.revision) = (before.webhooks.clone(), before.revision);
        if app != before {
            let done = self.put_app(&mut app);
            self.at(done)?;
            let settings = differences(&before, &app);
            if !settings.is_empty() {
                self.note(settings);
            }
            if before.encryption_master_key != app.encryption_master_key {
                self.note(Note::new(AuditAction::SecretChange).app(id).secret("encryption_master_key"));
            }
        }
        Ok(app)
    }

    /// Removes an app with its keys and tokens. Its serial is never reused.
    pub fn delete_app(&mut self, id: &str) -> Result<AppRecord, StoreError> {
        let deleted = delete(self, id);
        self.at(deleted)
    }
}

/// The entry about the settings of an app: the fields with their values before and after.
fn differences(before: &AppRecord, after: &AppRecord) -> Note {
    let mut note = Note::new(AuditAction::AppChange).app(&after.id);
    if before.name != after.name {
        note = note.change("name", Some(&before.name), Some(&after.name));
    }
    if before.enabled != after.enabled {
        note = note.change("enabled", Some(&before.enabled.to_string()), Some(&after.enabled.to_string()));
    }
    for setting in APP_SETTINGS {
        let (old, new) = ((setting.show)(&before.settings), (setting.show)(&after.settings));
        if old != new {
            note = note.change(setting.name, Some(&old.to_string()), Some(&new.to_string()));
        }
    }
    note
}

fn upsert(
    batch: &mut Batch<'_, '_>,
    (id, key, secret): (&str, &str, &str),
    settings: AppSettings,
) -> Result<Upserted, Fault> {
    match app_by_id(batch.transaction, batch.tables, id) {
        Ok(mut app) => {
            match app.keys.iter_mut().find(|pair| pair.key == key) {
                Some(pair) if pair.secret == secret => return Ok(Upserted::Same),
                Some(pair) => {
                    check_secret(secret)?;
                    pair.secret = secret.into();
                    batch.note(Note::new(AuditAction::KeyChange).app(id).subject(key).secret("secret"));
                }
                None => {
                    keys::add(batch, &mut app, key.into(), secret.into())?;
                    batch.note(Note::new(AuditAction::KeyCreate).app(id).subject(key));
                }
            }
            batch.put_app(&mut app)?;
            Ok(Upserted::Changed)
        }
        Err(Fault::Store(StoreError::UnknownApp(_))) => {
            let (id, key, secret) = (Some(id.into()), Some(key.into()), Some(secret.into()));
            insert(batch, NewApp { id, key, secret, name: String::new(), settings })?;
            Ok(Upserted::Created)
        }
        Err(fault) => Err(fault),
    }
}

fn insert(batch: &mut Batch<'_, '_>, new: NewApp) -> Result<AppRecord, Fault> {
    let id = match new.id {
        Some(id) => id,
        None => unused(batch.transaction, batch.tables.app_ids, random::app_id)?,
    };
    let key = match new.key {
        Some(key) => key,
        None => unused(batch.transaction, batch.tables.keys, random::app_key)?,
    };
    let secret = new.secret.unwrap_or_else(random::app_secret);
    check_id(&id)?;
    check_name(&new.name)?;
    if batch.tables.app_ids.get(batch.transaction, id.as_bytes())?.is_some() {
        return Err(StoreError::AppExists(id).into());
    }
    let serial = meta(batch.transaction, batch.tables, META_NEXT_SERIAL)?.max(1);
    batch.tables.meta.put(batch.transaction, META_NEXT_SERIAL, &(serial + 1).to_be_bytes())?;
    let serial = u32::try_from(serial).map_err(|_| StoreError::Invalid("all serials are used up".into()))?;
    let mut app = AppRecord {
        serial,
        id,
        name: new.name,
        created_at_ms: batch.now_ms,
        settings: new.settings,
        ..AppRecord::stand_in()
    };
    batch.note(Note::new(AuditAction::AppCreate).app(&app.id).with("name", &app.name).with("key", &key));
    keys::add(batch, &mut app, key, secret)?;
    batch.tables.app_ids.put(batch.transaction, app.id.as_bytes(), &serial.to_be_bytes())?;
    batch.put_app(&mut app)?;
    Ok(app)
}

fn delete(batch: &mut Batch<'_, '_>, id: &str) -> Result<AppRecord, Fault> {
    let app = app_by_id(batch.transaction, batch.tables, id)?;
    let tokens = token_index::tokens_of(batch.transaction, batch.tables, app.serial)?;
    for token in &tokens {
        super::tokens::remove(batch, token)?;
    }
    for pair in &app.keys {
        batch.tables.keys.delete(batch.transaction, pair.key.as_bytes())?;
    }
    batch.tables.app_ids.delete(batch.transaction, app.id.as_bytes())?;
    batch.tables.apps.delete(batch.transaction, &app.serial.to_be_bytes())?;
    super::messages::remove(batch.transaction, batch.tables, app.serial)?;
    batch.mark_for_shards();
    let (tokens, webhooks) = (tokens.len().to_string(), app.webhooks.len().to_string());
    batch.note(Note::new(AuditAction::AppDelete).app(id).with("tokens", &tokens).with("webhooks", &webhooks));
    Ok(app)
}
