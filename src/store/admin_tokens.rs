//! Admin tokens: the credentials of the admin API (R-ADMIN-2, R-ADMIN-3). They are in tables of their own, so that no
//! look-up can take one for a token of an app (threat T42), and only their SHA-256 is kept.
//!
//! They are read from the store at each use and are no part of the snapshot for the shards: a new or revoked one takes
//! effect at once, also when another process made the change.

use heed::RoTxn;
use serde::{Deserialize, Serialize};

use super::audit::{AuditAction, Note};
use super::batch::Batch;
use super::environment::Tables;
use super::error::{Fault, StoreError};
use super::record::{self, check_name};
use super::{Store, random};
use crate::app::actor::{Actor, Creator};
use crate::auth::token::{is_admin_token, token_hash};
use crate::label::{Label, labels};
use crate::limits;

labels! {
    /// What an admin token or a user may do.
    pub enum Role {
        /// Everything that the admin API offers.
        Admin => "admin",
        /// Read, without secrets; change nothing.
        Viewer => "viewer",
    }
}

/// An admin token in the store; the token itself is not stored.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AdminTokenRecord {
    /// Its public id, `adm_...`.
    pub id: String,
    /// SHA-256 of the complete token, in hex.
    pub hash: String,
    /// A display name.
    pub name: String,
    /// The label of its [`Role`].
    pub role: String,
    /// When it was created, unix ms.
    pub created_at_ms: u64,
    /// When it expires, unix ms.
    pub expires_at_ms: Option<u64>,
    /// When it was last used successfully, unix ms; up to a minute behind.
    pub last_used_at_ms: Option<u64>,
    /// When it was revoked, unix ms.
    pub revoked_at_ms: Option<u64>,
    /// The credential that created it (R-ADMIN-5).
    pub created_by: Creator,
}

impl AdminTokenRecord {
    /// Its role; one that this Relay does not know allows no more than reading.
    pub fn role(&self) -> Role {
        Role::of_label(&self.role).unwrap_or(Role::Viewer)
    }

    /// True until it is revoked or expires.
    pub fn is_active(&self, unix_ms: u64) -> bool {
        self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|end| unix_ms < end)
    }
}

/// An admin token to create.
#[derive(Clone, Debug)]
pub struct NewAdminToken {
    /// A display name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// When it expires, unix ms.
    pub expires_at_ms: Option<u64>,
}

/// A created admin token: the only place where the token itself is available.
pub struct CreatedAdminToken {
    /// The stored record.
    pub record: AdminTokenRecord,
    /// The token, `rly_adm_...`.
    pub token: String,
}

/// The holder of a valid admin token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminCaller {
    /// Id of the token.
    pub id: String,
    /// Its display name.
    pub name: String,
    /// Its role.
    pub role: Role,
}

impl Store {
    /// All admin tokens, oldest first.
    pub fn admin_tokens(&self) -> Result<Vec<AdminTokenRecord>, StoreError> {
        self.environment().read(|transaction, tables| all(transaction, tables))
    }

    /// The holder of an admin token that is valid at `unix_ms`: `None` for a text of another form, which is not looked
    /// up (threat T42), and for an unknown, expired or revoked token. One read of the store.
    pub fn admin_caller(&self, token: &str, unix_ms: u64) -> Result<Option<AdminCaller>, StoreError> {
        if !is_admin_token(token) {
            return Ok(None);
        }
        let hash = token_hash(token);
        self.environment().read(|transaction, tables| {
            let Some(id) = tables.admin_token_hashes.get(transaction, &hash)? else {
                return Ok(None);
            };
            let bytes = tables.admin_tokens.get(transaction, id)?;
            let damaged = || Fault::Record("an admin token is listed but has no record".into());
            let token: AdminTokenRecord = record::decode("an admin token", bytes.ok_or_else(damaged)?)?;
            let role = token.role();
            Ok(token.is_active(unix_ms).then_some(AdminCaller { id: token.id, name: token.name, role }))
        })
    }

    /// Writes when an admin token was last used, at most once in [`limits::ADMIN_TOKEN_USE_WRITE_MS`].
    pub fn record_admin_token_use(&self, id: &str, unix_ms: u64) -> Result<(), StoreError> {
        let is_due = |token: &AdminTokenRecord| {
            token.last_used_at_ms.is_none_or(|last| last + limits::ADMIN_TOKEN_USE_WRITE_MS <= unix_ms)
        };
        let found = self.environment().read(|transaction, tables| find(transaction, tables, id))?;
        if !found.as_ref().is_some_and(is_due) {
            return Ok(());
        }
        self.environment().write(|transaction, tables| {
            if let Some(mut token) = find(transaction, tables, id)?.filter(is_due) {
                token.last_used_at_ms = Some(unix_ms);
                tables.admin_tokens.put(transaction, id.as_bytes(), &record::encode(&token))?;
            }
            Ok(())
        })
    }

    /// As [`Batch::create_admin_token`].
    pub fn create_admin_token(&self, actor: &Actor, new: NewAdminToken) -> Result<CreatedAdminToken, StoreError> {
        self.change_all(actor, |batch| batch.create_admin_token(new))
    }

    /// As [`Batch::replace_admin_token`].
    pub fn replace_admin_token(&self, actor: &Actor, new: NewAdminToken) -> Result<CreatedAdminToken, StoreError> {
        self.change_all(actor, |batch| batch.replace_admin_token(new))
    }

    /// As [`Batch::revoke_admin_token`].
    pub fn revoke_admin_token(&self, actor: &Actor, id: &str) -> Result<AdminTokenRecord, StoreError> {
        self.change_all(actor, |batch| batch.revoke_admin_token(id))
    }
}

impl Batch<'_, '_> {
    /// Creates an admin token and returns it, once. At [`limits::ADMIN_TOKENS_MAX`] the oldest record of a revoked or
    /// expired one makes room.
    ///
    /// # Errors
    /// [`StoreError::TooManyAdminTokens`] when all of them are active.
    pub fn create_admin_token(&mut self, new: NewAdminToken) -> Result<CreatedAdminToken, StoreError> {
        let created = insert(self, new);
        self.at(created)
    }

    /// Creates an admin token and removes all others with its name, as [`Batch::replace_token`] does for an app.
    pub fn replace_admin_token(&mut self, new: NewAdminToken) -> Result<CreatedAdminToken, StoreError> {
        let others = self.at(all(self.transaction, self.tables))?;
        for other in others.iter().filter(|other| other.name == new.name) {
            let removed = remove(self, other);
            self.at(removed)?;
            if other.revoked_at_ms.is_none() {
                self.note(Note::new(AuditAction::AdminTokenRevoke).subject(&other.id));
            }
        }
        self.create_admin_token(new)
    }

    /// Revokes an admin token permanently. One that is already revoked does not change.
    pub fn revoke_admin_token(&mut self, id: &str) -> Result<AdminTokenRecord, StoreError> {
        let revoked = revoke(self, id);
        self.at(revoked)
    }
}

fn insert(batch: &mut Batch<'_, '_>, new: NewAdminToken) -> Result<CreatedAdminToken, Fault> {
    check_name(&new.name)?;
    make_room(batch)?;
    let token = random::admin_token();
    let hash = token_hash(&token);
    let record = AdminTokenRecord {
        id: random::admin_token_id(),
        hash: const_hex::encode(hash),
        name: new.name,
        role: new.role.label().into(),
        created_at_ms: batch.now_ms,
        expires_at_ms: new.expires_at_ms,
        last_used_at_ms: None,
        revoked_at_ms: None,
        created_by: batch.creator()?,
    };
    batch.tables.admin_token_hashes.put(batch.transaction, &hash, record.id.as_bytes())?;
    batch.tables.admin_tokens.put(batch.transaction, record.id.as_bytes(), &record::encode(&record))?;
    let expiry = record.expires_at_ms.map(|end| end.to_string()).unwrap_or_default();
    let note = Note::new(AuditAction::AdminTokenCreate).subject(&record.id).with("name", &record.name);
    batch.note(note.with("role", &record.role).with("expires_at_ms", &expiry));
    Ok(CreatedAdminToken { record, token })
}

fn make_room(batch: &mut Batch<'_, '_>) -> Result<(), Fault> {
    if batch.tables.admin_tokens.len(batch.transaction)? < limits::ADMIN_TOKENS_MAX as u64 {
        return Ok(());
    }
    let tokens = all(batch.transaction, batch.tables)?;
    let ended = tokens.iter().find(|token| !token.is_active(batch.now_ms)).ok_or(StoreError::TooManyAdminTokens)?;
    remove(batch, ended)
}

fn remove(batch: &mut Batch<'_, '_>, token: &AdminTokenRecord) -> Result<(), Fault> {
    let damaged = |_| Fault::Record(format!("admin token {} has a bad hash", token.id));
    let hash = const_hex::decode(&token.hash).map_err(damaged)?;
    batch.tables.admin_token_hashes.delete(batch.transaction, &hash)?;
    batch.tables.admin_tokens.delete(batch.transaction, token.id.as_bytes())?;
    Ok(())
}

fn revoke(batch: &mut Batch<'_, '_>, id: &str) -> Result<AdminTokenRecord, Fault> {
    let unknown = || StoreError::UnknownAdminToken(id.into());
    let mut token = find(batch.transaction, batch.tables, id)?.ok_or_else(unknown)?;
    if token.revoked_at_ms.is_none() {
        token.revoked_at_ms = Some(batch.now_ms);
        batch.tables.admin_tokens.put(batch.transaction, id.as_bytes(), &record::encode(&token))?;
        batch.note(Note::new(AuditAction::AdminTokenRevoke).subject(id));
    }
    Ok(token)
}

fn find(transaction: &RoTxn<'_>, tables: &Tables, id: &str) -> Result<Option<AdminTokenRecord>, Fault> {
    // LMDB refuses keys that are empty or too long instead of not finding them.
    if !(1..=64).contains(&id.len()) {
        return Ok(None);
    }
    let bytes = tables.admin_tokens.get(transaction, id.as_bytes())?;
    bytes.map(|bytes| record::decode("an admin token", bytes)).transpose()
}

fn all(transaction: &RoTxn<'_>, tables: &Tables) -> Result<Vec<AdminTokenRecord>, Fault> {
    let mut tokens: Vec<AdminTokenRecord> = Vec::new();
    for entry in tables.admin_tokens.iter(transaction)? {
        tokens.push(record::decode("an admin token", entry?.1)?);
    }
    tokens.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
    Ok(tokens)
}
