//! Which tokens an app has, so that listing them and counting them does not read those of all apps.
//!
//! An older Relay does not maintain the index. It raises the store's version without raising that of the index, and the
//! next write then builds the index anew; until then readers do without it.

use heed::{RoTxn, RwTxn};

use super::environment::Tables;
use super::error::Fault;
use super::record::{self, TokenRecord};
use super::{META_TOKEN_INDEX, META_VERSION, all_tokens, meta};

/// Builds the index if an older Relay has changed the store since.
pub(super) fn repair(transaction: &mut RwTxn<'_>, tables: &Tables) -> Result<(), Fault> {
    if is_current(transaction, tables)? {
        return Ok(());
    }
    tables.app_tokens.clear(transaction)?;
    for token in all_tokens(transaction, tables)? {
        add(transaction, tables, &token)?;
    }
    let version = meta(transaction, tables, META_VERSION)?;
    tables.meta.put(transaction, META_TOKEN_INDEX, &version.to_be_bytes())?;
    Ok(())
}

fn is_current(transaction: &RoTxn<'_>, tables: &Tables) -> Result<bool, Fault> {
    Ok(meta(transaction, tables, META_TOKEN_INDEX)? == meta(transaction, tables, META_VERSION)?)
}

/// The tokens of an app, oldest first.
pub(super) fn tokens_of(transaction: &RoTxn<'_>, tables: &Tables, app: u32) -> Result<Vec<TokenRecord>, Fault> {
    let mut tokens = Vec::new();
    if is_current(transaction, tables)? {
        for entry in tables.app_tokens.prefix_iter(transaction, &app.to_be_bytes())? {
            let (key, _) = entry?;
            let damaged = || Fault::Record("a token is listed but has no record".into());
            let bytes = tables.tokens.get(transaction, &key[SERIAL_BYTES..])?.ok_or_else(damaged)?;
            tokens.push(record::decode("a token", bytes)?);
        }
    } else {
        tokens = all_tokens(transaction, tables)?;
        tokens.retain(|token| token.app == app);
    }
    tokens.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
    Ok(tokens)
}

pub(super) fn add(transaction: &mut RwTxn<'_>, tables: &Tables, token: &TokenRecord) -> Result<(), Fault> {
    tables.app_tokens.put(transaction, &key(token), &[])?;
    Ok(())
}

pub(super) fn remove(transaction: &mut RwTxn<'_>, tables: &Tables, token: &TokenRecord) -> Result<(), Fault> {
    tables.app_tokens.delete(transaction, &key(token))?;
    Ok(())
}

const SERIAL_BYTES: usize = 4;

fn key(token: &TokenRecord) -> Vec<u8> {
    [&token.app.to_be_bytes()[..], token.id.as_bytes()].concat()
}
