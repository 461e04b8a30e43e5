//! Key pairs of apps: adding and removing them.
//!
//! A key may have created tokens and webhook endpoints over the API, which outlive it: a key that leaked is not removed
//! before its owner decides about them (threat T43, R-ADMIN-6).

use super::audit::{AuditAction, Note};
use super::batch::Batch;
use super::created::{CreatedWithKey, KeyItems};
use super::error::{Fault, StoreError};
use super::lookup::{app_by_id, unused};
use super::record::{AppRecord, KeyRecord, TokenRecord, check_key, check_secret};
use super::webhook_record::WebhookRecord;
use super::{Store, random, token_index, tokens};
use crate::app::actor::{Actor, Creator};
use crate::limits;

/// Keys that were removed.
#[derive(Clone, Debug)]
pub struct RemovedKeys {
    /// The app, without them.
    pub app: AppRecord,
    /// The keys.
    pub removed: Vec<String>,
    /// The active tokens and endpoints that they had created: revoked and removed, or kept.
    pub created: Vec<CreatedWithKey>,
}

impl Store {
    /// As [`Batch::rotate_app`].
    pub fn rotate_app(&self, actor: &Actor, id: &str) -> Result<(AppRecord, KeyRecord), StoreError> {
        self.change_all(actor, |batch| batch.rotate_app(id))
    }

    /// As [`Batch::remove_old_keys`].
    pub fn remove_old_keys(&self, actor: &Actor, id: &str, items: KeyItems) -> Result<RemovedKeys, StoreError> {
        self.change_all(actor, |batch| batch.remove_old_keys(id, items))
    }

    /// As [`Batch::remove_key`].
    pub fn remove_key(&self, actor: &Actor, id: &str, key: &str, items: KeyItems) -> Result<RemovedKeys, StoreError> {
        self.change_all(actor, |batch| batch.remove_key(id, key, items))
    }

    /// The active tokens and endpoints that these keys of an app created (threat T43).
    pub fn created_with_keys(&self, id: &str, keys: &[String]) -> Result<Vec<CreatedWithKey>, StoreError> {
        let now_ms = super::unix_ms();
        self.environment().read(|transaction, tables| {
            let app = app_by_id(transaction, tables, id)?;
            let tokens = token_index::tokens_of(transaction, tables, app.serial)?;
            Ok(items_of(&app, &tokens, keys, now_ms).listed())
        })
    }
}

impl Batch<'_, '_> {
    /// Adds a new random key pair to an app; the old ones remain valid until they are removed.
    pub fn rotate_app(&mut self, id: &str) -> Result<(AppRecord, KeyRecord), StoreError> {
        let rotated = rotate(self, id);
        self.at(rotated)
    }

    /// Removes all key pairs of an app but the newest.
    ///
    /// # Errors
    /// [`StoreError::KeyCreated`] if they created something and `items` is [`KeyItems::Refuse`].
    pub fn remove_old_keys(&mut self, id: &str, items: KeyItems) -> Result<RemovedKeys, StoreError> {
        let app = self.app(id)?;
        let old = app.keys.iter().rev().skip(1).rev().map(|pair| pair.key.clone()).collect();
        let removed = remove(self, app, old, items);
        self.at(removed)
    }

    /// Removes one key pair of an app; the last one cannot be removed.
    ///
    /// # Errors
    /// [`StoreError::KeyCreated`] if it created something and `items` is [`KeyItems::Refuse`].
    pub fn remove_key(&mut self, id: &str, key: &str, items: KeyItems) -> Result<RemovedKeys, StoreError> {
        let app = self.app(id)?;
        if !app.keys.iter().any(|pair| pair.key == key) {
            return Err(StoreError::UnknownKey { app: id.into(), key: key.into() });
        }
        if app.keys.len() == 1 {
            return Err(StoreError::LastKey(key.into()));
        }
        let removed = remove(self, app, vec![key.to_owned()], items);
        self.at(removed)
    }
}

fn rotate(batch: &mut Batch<'_, '_>, id: &str) -> Result<(AppRecord, KeyRecord), Fault> {
    let mut app = app_by_id(batch.transaction, batch.tables, id)?;
    let key = unused(batch.transaction, batch.tables.keys, random::app_key)?;
    add(batch, &mut app, key, random::app_secret())?;
    batch.put_app(&mut app)?;
    let pair = app.keys.last().cloned().ok_or_else(|| Fault::Record(format!("app {} has no key", app.id)))?;
    batch.note(Note::new(AuditAction::KeyCreate).app(id).subject(&pair.key));
    Ok((app, pair))
}

/// Adds a checked pair to the record and the key to the table that keeps keys unique.
pub(super) fn add(batch: &mut Batch<'_, '_>, app: &mut AppRecord, key: String, secret: String) -> Result<(), Fault> {
    check_key(&key)?;
    check_secret(&secret)?;
    if batch.tables.keys.get(batch.transaction, key.as_bytes())?.is_some() {
        return Err(StoreError::KeyTaken(key).into());
    }
    if app.keys.len() >= limits::APP_KEYS_MAX {
        return Err(StoreError::TooManyKeys(app.id.clone()).into());
    }
    batch.tables.keys.put(batch.transaction, key.as_bytes(), &app.serial.to_be_bytes())?;
    app.keys.push(KeyRecord { key, secret, created_at_ms: batch.now_ms });
    Ok(())
}

fn remove(
    batch: &mut Batch<'_, '_>,
    mut app: AppRecord,
    removed: Vec<String>,
    items: KeyItems,
) -> Result<RemovedKeys, Fault> {
    if removed.is_empty() {
        return Ok(RemovedKeys { app, removed, created: Vec::new() });
    }
    let all = token_index::tokens_of(batch.transaction, batch.tables, app.serial)?;
    let found = items_of(&app, &all, &removed, batch.now_ms);
    let created = found.listed();
    match items {
        KeyItems::Refuse if !created.is_empty() => {
            return Err(StoreError::KeyCreated { app: app.id, keys: removed, created }.into());
        }
        KeyItems::Revoke => {
            for token in found.tokens {
                tokens::revoke(batch, &app.id, token.clone())?;
            }
            let endpoints: Vec<String> = found.webhooks.iter().map(|webhook| webhook.id.clone()).collect();
            app.webhooks.retain(|webhook| !endpoints.contains(&webhook.id));
            for id in &endpoints {
                batch.note(Note::new(AuditAction::WebhookRemove).app(&app.id).subject(id));
            }
        }
        KeyItems::Refuse | KeyItems::Keep => {}
    }
    app.keys.retain(|pair| !removed.contains(&pair.key));
    for key in &removed {
        batch.tables.keys.delete(batch.transaction, key.as_bytes())?;
        batch.note(Note::new(AuditAction::KeyRemove).app(&app.id).subject(key));
    }
    batch.put_app(&mut app)?;
    Ok(RemovedKeys { app, removed, created })
}

/// The active tokens and the endpoints that keys created.
struct Items<'a> {
    tokens: Vec<&'a TokenRecord>,
    webhooks: Vec<&'a WebhookRecord>,
}

/// An endpoint may have been created with a token that the key had created. No token creates tokens.
fn items_of<'a>(app: &'a AppRecord, tokens: &'a [TokenRecord], keys: &[String], now_ms: u64) -> Items<'a> {
    let is_of_keys = |creator: &Option<Creator>| {
        let key = creator.as_ref().and_then(Creator::key);
        key.is_some_and(|key| keys.iter().any(|other| other == key))
    };
    let active = |token: &&TokenRecord| is_of_keys(&token.created_by) && token.is_active(now_ms);
    Items {
        tokens: tokens.iter().filter(active).collect(),
        webhooks: app.webhooks.iter().filter(|webhook| is_of_keys(&webhook.created_by)).collect(),
    }
}

impl Items<'_> {
    fn listed(&self) -> Vec<CreatedWithKey> {
        let tokens = self.tokens.iter().filter_map(|token| {
            let (id, name, created_by) = (token.id.clone(), token.name.clone(), token.created_by.clone()?);
            Some(CreatedWithKey { kind: "token", id, name, created_by, created_at_ms: token.created_at_ms })
        });
        let webhooks = self.webhooks.iter().filter_map(|webhook| {
            let (id, name, created_by) = (webhook.id.clone(), webhook.url.clone(), webhook.created_by.clone()?);
            Some(CreatedWithKey { kind: "webhook", id, name, created_by, created_at_ms: webhook.created_at_ms })
        });
        tokens.chain(webhooks).collect()
    }
}
