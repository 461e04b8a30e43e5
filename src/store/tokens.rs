//! Tokens in the store: creating, listing and revoking them, and recording their use. Only the SHA-256 is kept
//! (R-TOKEN-2).

use heed::RwTxn;

use super::audit::{AuditAction, Note};
use super::batch::Batch;
use super::environment::Tables;
use super::error::{Fault, StoreError};
use super::lookup::{app_by_id, app_by_serial};
use super::record::{self, AppRecord, TokenRecord, check_name};
use super::{Store, all_tokens, random, scope, token_index};
use crate::app::actor::{Actor, ActorKind, Creator};
use crate::app::{NewToken, TokenId};
use crate::auth::token::token_hash;
use crate::limits;

/// A created token: the only place where the token itself is available.
pub struct CreatedToken {
    /// The stored record.
    pub record: TokenRecord,
    /// The token, `rly_...`.
    pub token: String,
}

impl Store {
    /// All tokens, or those of one app, oldest first.
    pub fn tokens(&self, app: Option<&str>) -> Result<Vec<TokenRecord>, StoreError> {
        self.environment().read(|transaction, tables| match app {
            Some(id) => {
                let app = app_by_id(transaction, tables, id)?;
                token_index::tokens_of(transaction, tables, app.serial)
            }
            None => {
                let mut tokens = all_tokens(transaction, tables)?;
                tokens.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
                Ok(tokens)
            }
        })
    }

    /// As [`Batch::create_token`].
    pub fn create_token(&self, actor: &Actor, new: NewToken) -> Result<CreatedToken, StoreError> {
        self.change_all(actor, |batch| batch.create_token(new))
    }

    /// As [`Batch::replace_token`].
    pub fn replace_token(&self, actor: &Actor, new: NewToken) -> Result<CreatedToken, StoreError> {
        self.change_all(actor, |batch| batch.replace_token(new))
    }

    /// As [`Batch::rotate_token`].
    pub fn rotate_token(&self, actor: &Actor, app: Option<&str>, id: &str) -> Result<CreatedToken, StoreError> {
        self.change_all(actor, |batch| batch.rotate_token(app, id))
    }

    /// As [`Batch::revoke_token`].
    pub fn revoke_token(&self, actor: &Actor, app: Option<&str>, id: &str) -> Result<TokenRecord, StoreError> {
        self.change_all(actor, |batch| batch.revoke_token(app, id))
    }

    /// Writes when tokens were last used, in one commit; a use older than the stored one is ignored. Tokens that no
    /// longer exist are skipped. The version does not change: no authorization decision depends on this.
    pub fn record_token_uses<'a>(&self, uses: impl IntoIterator<Item = (&'a TokenId, u64)>) -> Result<(), StoreError> {
        self.environment().write(|transaction, tables| {
            for (id, used_at_ms) in uses {
                let Some(mut token) = find(transaction, tables, id)? else {
                    continue;
                };
                if token.last_used_at_ms < Some(used_at_ms) {
                    token.last_used_at_ms = Some(used_at_ms);
                    put(transaction, tables, &token)?;
                }
            }
            Ok(())
        })
    }
}

impl Batch<'_, '_> {
    /// Creates a token and returns it, once. At [`limits::TOKENS_PER_APP_MAX`] the oldest record of a revoked or expired
    /// token makes room.
    ///
    /// # Errors
    /// [`StoreError::TooManyTokens`] when all of them are active.
    pub fn create_token(&mut self, new: NewToken) -> Result<CreatedToken, StoreError> {
        let app = self.app(&new.app)?;
        let created = insert(self, &app, new);
        let created = self.at(created)?;
        self.note(creation(&app, &created.record));
        Ok(created)
    }

    /// Creates a token and removes all others of its app that have its name: `serve --dev` creates one at each start,
    /// since the old one is no longer known to anyone.
    pub fn replace_token(&mut self, new: NewToken) -> Result<CreatedToken, StoreError> {
        let app = self.app(&new.app)?;
        let removed = remove_named(self, &app, &new.name);
        self.at(removed)?;
        self.create_token(new)
    }

    /// Replaces an active token, of this app if one is named, by a new one with the same name, scopes and expiry.
    pub fn rotate_token(&mut self, app: Option<&str>, id: &str) -> Result<CreatedToken, StoreError> {
        let rotated = rotate(self, app, id);
        self.at(rotated)
    }

    /// Revokes a token permanently, of this app if one is named. A token that is already revoked does not change.
    pub fn revoke_token(&mut self, app: Option<&str>, id: &str) -> Result<TokenRecord, StoreError> {
        let revoked = find_of(self, app, id).and_then(|(app, token)| revoke(self, &app.id, token));
        self.at(revoked)
    }

    /// The actor as it is recorded with what it creates.
    pub(super) fn creator(&self) -> Result<Creator, Fault> {
        let of_token = match self.actor.kind {
            ActorKind::AppToken => find(self.transaction, self.tables, &self.actor.id)?,
            ActorKind::Cli | ActorKind::AdminToken | ActorKind::AppKey | ActorKind::User | ActorKind::Server => None,
        };
        let creator = of_token.and_then(|token| token.created_by);
        Ok(Creator::new(self.actor, creator.as_ref().and_then(Creator::key)))
    }
}

fn creation(app: &AppRecord, token: &TokenRecord) -> Note {
    let expiry = token.expires_at_ms.map(|end| end.to_string()).unwrap_or_default();
    Note::new(AuditAction::TokenCreate)
        .app(&app.id)
        .subject(&token.id)
        .with("name", &token.name)
        .with("scopes", &token.scopes.join(","))
        .with("expires_at_ms", &expiry)
}

fn insert(batch: &mut Batch<'_, '_>, app: &AppRecord, new: NewToken) -> Result<CreatedToken, Fault> {
    check_name(&new.name)?;
    scope::parse_all(&new.scopes)?;
    make_room(batch, app)?;
    let token = random::token();
    let hash = token_hash(&token);
    let record = TokenRecord {
        id: random::token_id(),
        hash: const_hex::encode(hash),
        app: app.serial,
        name: new.name,
        scopes: new.scopes,
        created_at_ms: batch.now_ms,
        expires_at_ms: new.expires_at_ms,
        last_used_at_ms: None,
        revoked_at_ms: None,
        created_by: Some(batch.creator()?),
    };
    batch.tables.token_hashes.put(batch.transaction, &hash, record.id.as_bytes())?;
    put(batch.transaction, batch.tables, &record)?;
    token_index::add(batch.transaction, batch.tables, &record)?;
    batch.mark_for_shards();
    Ok(CreatedToken { record, token })
}

fn make_room(batch: &mut Batch<'_, '_>, app: &AppRecord) -> Result<(), Fault> {
    let tokens = token_index::tokens_of(batch.transaction, batch.tables, app.serial)?;
    if tokens.len() < limits::TOKENS_PER_APP_MAX {
        return Ok(());
    }
    let ended = tokens.iter().find(|token| !token.is_active(batch.now_ms));
    let ended = ended.ok_or_else(|| StoreError::TooManyTokens(app.id.clone()))?;
    remove(batch, ended)
}

fn remove_named(batch: &mut Batch<'_, '_>, app: &AppRecord, name: &str) -> Result<(), Fault> {
    for token in token_index::tokens_of(batch.transaction, batch.tables, app.serial)? {
        if token.name == name {
            remove(batch, &token)?;
            if token.revoked_at_ms.is_none() {
                batch.note(Note::new(AuditAction::TokenRevoke).app(&app.id).subject(&token.id));
            }
        }
    }
    Ok(())
}

fn rotate(batch: &mut Batch<'_, '_>, app: Option<&str>, id: &str) -> Result<CreatedToken, Fault> {
    let (app, mut old) = find_of(batch, app, id)?;
    if !old.is_active(batch.now_ms) {
        return Err(StoreError::Invalid(format!("token {id} is revoked or expired: create a new one instead")).into());
    }
    old.revoked_at_ms = Some(batch.now_ms);
    put(batch.transaction, batch.tables, &old)?;
    let (name, scopes, expires_at_ms) = (old.name, old.scopes, old.expires_at_ms);
    let created = insert(batch, &app, NewToken { app: app.id.clone(), name, scopes, expires_at_ms })?;
    batch.note(Note::new(AuditAction::TokenRotate).app(&app.id).subject(id).with("new_id", &created.record.id));
    Ok(created)
}

/// Revokes a token unless it is revoked.
pub(super) fn revoke(batch: &mut Batch<'_, '_>, app: &str, mut token: TokenRecord) -> Result<TokenRecord, Fault> {
    if token.revoked_at_ms.is_none() {
        token.revoked_at_ms = Some(batch.now_ms);
        put(batch.transaction, batch.tables, &token)?;
        batch.mark_for_shards();
        batch.note(Note::new(AuditAction::TokenRevoke).app(app).subject(&token.id));
    }
    Ok(token)
}

/// Removes a token with its hash.
pub(super) fn remove(batch: &mut Batch<'_, '_>, token: &TokenRecord) -> Result<(), Fault> {
    let hash =
        const_hex::decode(&token.hash).map_err(|_| Fault::Record(format!("token {} has a bad hash", token.id)))?;
    batch.tables.token_hashes.delete(batch.transaction, &hash)?;
    batch.tables.tokens.delete(batch.transaction, token.id.as_bytes())?;
    token_index::remove(batch.transaction, batch.tables, token)?;
    batch.mark_for_shards();
    Ok(())
}

/// The token and its app, if it is the named one.
fn find_of(batch: &Batch<'_, '_>, app: Option<&str>, id: &str) -> Result<(AppRecord, TokenRecord), Fault> {
    let unknown = || StoreError::UnknownToken(id.into());
    let only = app.map(|id| app_by_id(batch.transaction, batch.tables, id)).transpose()?;
    let token = find(batch.transaction, batch.tables, id)?.ok_or_else(unknown)?;
    let app = match only {
        Some(app) if app.serial == token.app => app,
        Some(_) => return Err(unknown().into()),
        None => app_by_serial(batch.transaction, batch.tables, token.app)?,
    };
    Ok((app, token))
}

fn find(transaction: &RwTxn<'_>, tables: &Tables, id: &str) -> Result<Option<TokenRecord>, Fault> {
    // LMDB refuses keys that are empty or too long instead of not finding them.
    if !(1..=64).contains(&id.len()) {
        return Ok(None);
    }
    let bytes = tables.tokens.get(transaction, id.as_bytes())?;
    bytes.map(|bytes| record::decode("a token", bytes)).transpose()
}

fn put(transaction: &mut RwTxn<'_>, tables: &Tables, token: &TokenRecord) -> Result<(), Fault> {
    tables.tokens.put(transaction, token.id.as_bytes(), &record::encode(token))?;
    Ok(())
}
