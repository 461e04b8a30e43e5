//! Apps in the store: creating, reading, changing and removing them, and rotating their keys.

use heed::{RoTxn, RwTxn};

use super::environment::Tables;
use super::error::{Fault, StoreError};
use super::lookup::app_by_id;
use super::record::{self, AppRecord, KeyRecord, check_id, check_key, check_name, check_secret};
use super::{META_NEXT_SERIAL, Store, all_apps, all_tokens, meta, raise_version, random, unix_ms};
use crate::app::AppSettings;
use crate::limits;

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

    /// The app with this id.
    pub fn app(&self, id: &str) -> Result<AppRecord, StoreError> {
        self.environment().read(|transaction, tables| app_by_id(transaction, tables, id))
    }

    /// Creates an app with one key pair.
    pub fn create_app(&self, new: NewApp) -> Result<AppRecord, StoreError> {
        self.environment().write(|transaction, tables| {
            let app = insert(transaction, tables, new)?;
            raise_version(transaction, tables)?;
            Ok(app)
        })
    }

    /// Creates an app only if the store has none: used at the first start.
    pub fn create_first_app(&self, new: NewApp) -> Result<Option<AppRecord>, StoreError> {
        self.environment().write(|transaction, tables| {
            if !tables.apps.is_empty(transaction)? {
                return Ok(None);
            }
            let app = insert(transaction, tables, new)?;
            raise_version(transaction, tables)?;
            Ok(Some(app))
        })
    }

    /// Ensures that the app `id` exists and has this key pair. An existing app keeps its settings, its other keys and
    /// its enabled state; `settings` apply to a new one only.
    pub fn upsert_app(&self, id: &str, key: &str, secret: &str, settings: AppSettings) -> Result<Upserted, StoreError> {
        let wished = |app: &AppRecord| app.keys.iter().any(|pair| pair.key == key && pair.secret == secret);
        if self.app(id).is_ok_and(|app| wished(&app)) {
            return Ok(Upserted::Same);
        }
        self.change_all(|batch| batch.upsert_app(id, key, secret, settings))
    }

    /// Changes the name, the settings or `enabled` of an app. Its id, serial, keys and webhooks stay as they are.
    pub fn change_app(
        &self,
        id: &str,
        change: impl FnOnce(&mut AppRecord) -> Result<(), StoreError>,
    ) -> Result<AppRecord, StoreError> {
        self.change_all(|batch| batch.change_app(id, change))
    }

    /// Adds a new random key pair to an app; the old ones remain valid until they are removed.
    pub fn rotate_app(&self, id: &str) -> Result<(AppRecord, KeyRecord), StoreError> {
        self.environment().write(|transaction, tables| {
            let mut app = app_by_id(transaction, tables, id)?;
            let key = unused(transaction, tables.keys, random::app_key)?;
            add_key(transaction, tables, &mut app, key, random::app_secret())?;
            put(transaction, tables, &app)?;
            raise_version(transaction, tables)?;
            let pair = app.keys.last().cloned().ok_or_else(|| no_keys(&app))?;
            Ok((app, pair))
        })
    }

    /// Removes all key pairs of an app but the newest; returns the removed keys.
    pub fn remove_old_keys(&self, id: &str) -> Result<(AppRecord, Vec<String>), StoreError> {
        self.environment().write(|transaction, tables| {
            let mut app = app_by_id(transaction, tables, id)?;
            let newest = app.keys.pop().ok_or_else(|| no_keys(&app))?;
            let removed: Vec<String> = app.keys.drain(..).map(|pair| pair.key).collect();
            app.keys.push(newest);
            if !removed.is_empty() {
                for key in &removed {
                    tables.keys.delete(transaction, key.as_bytes())?;
                }
                put(transaction, tables, &app)?;
                raise_version(transaction, tables)?;
            }
            Ok((app, removed))
        })
    }

    /// Removes one key pair of an app; the last one cannot be removed.
    pub fn remove_key(&self, id: &str, key: &str) -> Result<AppRecord, StoreError> {
        self.environment().write(|transaction, tables| {
            let mut app = app_by_id(transaction, tables, id)?;
            if !app.keys.iter().any(|pair| pair.key == key) {
                return Err(StoreError::UnknownKey { app: id.into(), key: key.into() }.into());
            }
            if app.keys.len() == 1 {
                return Err(StoreError::LastKey(key.into()).into());
            }
            app.keys.retain(|pair| pair.key != key);
            tables.keys.delete(transaction, key.as_bytes())?;
            put(transaction, tables, &app)?;
            raise_version(transaction, tables)?;
            Ok(app)
        })
    }

    /// Removes an app with its keys and tokens. Its serial is never reused.
    pub fn delete_app(&self, id: &str) -> Result<AppRecord, StoreError> {
        self.environment().write(|transaction, tables| {
            let app = app_by_id(transaction, tables, id)?;
            for token in all_tokens(transaction, tables)?.iter().filter(|token| token.app == app.serial) {
                super::tokens::remove(transaction, tables, token)?;
            }
            for pair in &app.keys {
                tables.keys.delete(transaction, pair.key.as_bytes())?;
            }
            tables.app_ids.delete(transaction, app.id.as_bytes())?;
            tables.apps.delete(transaction, &app.serial.to_be_bytes())?;
            super::messages::remove(transaction, tables, app.serial)?;
            raise_version(transaction, tables)?;
            Ok(app)
        })
    }
}

/// Creates the app or adds the key pair to it.
pub(super) fn upsert(
    transaction: &mut RwTxn<'_>,
    tables: &Tables,
    (id, key, secret): (&str, &str, &str),
    settings: AppSettings,
) -> Result<Upserted, Fault> {
    match app_by_id(transaction, tables, id) {
        Ok(mut app) => {
            match app.keys.iter_mut().find(|pair| pair.key == key) {
                Some(pair) if pair.secret == secret => return Ok(Upserted::Same),
                Some(pair) => {
                    check_secret(secret)?;
                    pair.secret = secret.into();
                }
                None => add_key(transaction, tables, &mut app, key.into(), secret.into())?,
            }
            put(transaction, tables, &app)?;
            Ok(Upserted::Changed)
        }
        Err(Fault::Store(StoreError::UnknownApp(_))) => {
            let (id, key, secret) = (Some(id.into()), Some(key.into()), Some(secret.into()));
            insert(transaction, tables, NewApp { id, key, secret, name: String::new(), settings })?;
            Ok(Upserted::Created)
        }
        Err(fault) => Err(fault),
    }
}

/// Changes an app; also returns whether anything changed.
pub(super) fn change(
    transaction: &mut RwTxn<'_>,
    tables: &Tables,
    id: &str,
    change: impl FnOnce(&mut AppRecord) -> Result<(), StoreError>,
) -> Result<(AppRecord, bool), Fault> {
    let before = app_by_id(transaction, tables, id)?;
    let mut app = before.clone();
    change(&mut app)?;
    (app.serial, app.id, app.keys) = (before.serial, before.id.clone(), before.keys.clone());
    app.webhooks.clone_from(&before.webhooks);
    let changed = app != before;
    if changed {
        put(transaction, tables, &app)?;
    }
    Ok((app, changed))
}

fn insert(transaction: &mut RwTxn<'_>, tables: &Tables, new: NewApp) -> Result<AppRecord, Fault> {
    let id = match new.id {
        Some(id) => id,
        None => unused(transaction, tables.app_ids, random::app_id)?,
    };
    let key = match new.key {
        Some(key) => key,
        None => unused(transaction, tables.keys, random::app_key)?,
    };
    let secret = new.secret.unwrap_or_else(random::app_secret);
    check_id(&id)?;
    check_name(&new.name)?;
    if tables.app_ids.get(transaction, id.as_bytes())?.is_some() {
        return Err(StoreError::AppExists(id).into());
    }
    let serial = meta(transaction, tables, META_NEXT_SERIAL)?.max(1);
    tables.meta.put(transaction, META_NEXT_SERIAL, &(serial + 1).to_be_bytes())?;
    let serial = u32::try_from(serial).map_err(|_| StoreError::Invalid("all serials are used up".into()))?;
    let mut app = AppRecord {
        serial,
        id,
        name: new.name,
        enabled: true,
        created_at_ms: unix_ms(),
        keys: Vec::new(),
        settings: new.settings,
        webhooks: Vec::new(),
        encryption_master_key: None,
    };
    add_key(transaction, tables, &mut app, key, secret)?;
    tables.app_ids.put(transaction, app.id.as_bytes(), &serial.to_be_bytes())?;
    put(transaction, tables, &app)?;
    Ok(app)
}

/// Adds a checked pair to the record and the key to the table that keeps keys unique.
fn add_key(
    transaction: &mut RwTxn<'_>,
    tables: &Tables,
    app: &mut AppRecord,
    key: String,
    secret: String,
) -> Result<(), Fault> {
    check_key(&key)?;
    check_secret(&secret)?;
    if tables.keys.get(transaction, key.as_bytes())?.is_some() {
        return Err(StoreError::KeyTaken(key).into());
    }
    if app.keys.len() >= limits::APP_KEYS_MAX {
        return Err(StoreError::TooManyKeys(app.id.clone()).into());
    }
    tables.keys.put(transaction, key.as_bytes(), &app.serial.to_be_bytes())?;
    app.keys.push(KeyRecord { key, secret, created_at_ms: unix_ms() });
    Ok(())
}

pub(super) fn put(transaction: &mut RwTxn<'_>, tables: &Tables, app: &AppRecord) -> Result<(), Fault> {
    tables.apps.put(transaction, &app.serial.to_be_bytes(), &record::encode(app))?;
    Ok(())
}

/// Draws until the value is not in the table.
fn unused(
    transaction: &RoTxn<'_>,
    table: super::environment::Table,
    draw: impl Fn() -> String,
) -> Result<String, Fault> {
    loop {
        let candidate = draw();
        if table.get(transaction, candidate.as_bytes())?.is_none() {
            return Ok(candidate);
        }
    }
}

fn no_keys(app: &AppRecord) -> Fault {
    Fault::Record(format!("app {} has no key", app.id))
}
