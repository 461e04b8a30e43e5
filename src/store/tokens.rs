//! Tokens in the store: creating, listing and revoking them, and recording their use. Only the SHA-256 is kept
//! (R-TOKEN-2).

use heed::RwTxn;

use super::environment::Tables;
use super::error::{Fault, StoreError};
use super::lookup::app_by_id;
use super::record::{self, AppRecord, TokenRecord, check_name};
use super::{Store, all_tokens, raise_version, random, scope, unix_ms};
use crate::app::TokenId;
use crate::auth::token::token_hash;

/// A token to create.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Id of its app.
    pub app: String,
    /// A display name.
    pub name: String,
    /// Scopes by name; none is full access (R-TOKEN-6).
    pub scopes: Vec<String>,
    /// When it expires, unix ms.
    pub expires_at_ms: Option<u64>,
}

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
        self.environment().read(|transaction, tables| {
            let serial = app.map(|id| app_by_id(transaction, tables, id)).transpose()?.map(|app| app.serial);
            let mut tokens = all_tokens(transaction, tables)?;
            tokens.retain(|token| serial.is_none_or(|serial| token.app == serial));
            tokens.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
            Ok(tokens)
        })
    }

    /// Creates a token and returns it, once.
    pub fn create_token(&self, new: NewToken) -> Result<CreatedToken, StoreError> {
        self.environment().write(|transaction, tables| {
            let app = app_by_id(transaction, tables, &new.app)?;
            let created = insert(transaction, tables, &app, new)?;
            raise_version(transaction, tables)?;
            Ok(created)
        })
    }

    /// Creates a token and removes all others of its app that have its name: `serve --dev` creates one at each start,
    /// since the old one is no longer known to anyone.
    pub fn replace_token(&self, new: NewToken) -> Result<CreatedToken, StoreError> {
        self.environment().write(|transaction, tables| {
            let app = app_by_id(transaction, tables, &new.app)?;
            let tokens = all_tokens(transaction, tables)?;
            for token in tokens.iter().filter(|token| token.app == app.serial && token.name == new.name) {
                remove(transaction, tables, token)?;
            }
            let created = insert(transaction, tables, &app, new)?;
            raise_version(transaction, tables)?;
            Ok(created)
        })
    }

    /// Revokes a token permanently. A token that is already revoked does not change.
    pub fn revoke_token(&self, id: &str) -> Result<TokenRecord, StoreError> {
        self.environment().write(|transaction, tables| {
            let unknown = || StoreError::UnknownToken(id.into());
            let mut token = find(transaction, tables, id)?.ok_or_else(unknown)?;
            if token.revoked_at_ms.is_none() {
                token.revoked_at_ms = Some(unix_ms());
                put(transaction, tables, &token)?;
                raise_version(transaction, tables)?;
            }
            Ok(token)
        })
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

fn insert(transaction: &mut RwTxn<'_>, tables: &Tables, app: &AppRecord, new: NewToken) -> Result<CreatedToken, Fault> {
    check_name(&new.name)?;
    scope::parse_all(&new.scopes)?;
    let token = random::token();
    let hash = token_hash(&token);
    let record = TokenRecord {
        id: random::token_id(),
        hash: const_hex::encode(hash),
        app: app.serial,
        name: new.name,
        scopes: new.scopes,
        created_at_ms: unix_ms(),
        expires_at_ms: new.expires_at_ms,
        last_used_at_ms: None,
        revoked_at_ms: None,
    };
    tables.token_hashes.put(transaction, &hash, record.id.as_bytes())?;
    put(transaction, tables, &record)?;
    Ok(CreatedToken { record, token })
}

/// Removes a token with its hash.
pub(super) fn remove(transaction: &mut RwTxn<'_>, tables: &Tables, token: &TokenRecord) -> Result<(), Fault> {
    let hash =
        const_hex::decode(&token.hash).map_err(|_| Fault::Record(format!("token {} has a bad hash", token.id)))?;
    tables.token_hashes.delete(transaction, &hash)?;
    tables.tokens.delete(transaction, token.id.as_bytes())?;
    Ok(())
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
