//! Tokens of apps: list, create, rotate, revoke (R-TOKEN rules). A token is shown by the request that made it alone.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::access::{Access, Created, gone, page_by_age};
use super::apps::if_gone;
use super::call::{Answer, Call};
use super::fault::Fault;
use crate::rfc3339::{parse_rfc3339, rfc3339};
use crate::store::record::TokenRecord;
use crate::store::{CreatedToken, NewToken, StoreError, unix_ms};

pub(super) fn list(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let tokens = access.store.tokens(call.app.as_deref())?;
    let apps = if call.app.is_some() { HashMap::new() } else { app_ids(access)? };
    let app_of = |token: &TokenRecord| apps.get(&token.app).map_or_else(|| call.app_id().to_owned(), Clone::clone);
    let encode = |token: &TokenRecord| encode(token, &app_of(token));
    Ok(page_by_age(tokens, call, |token| (token.created_at_ms, &token.id), encode))
}

pub(super) fn create(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let new = NewToken {
        app: call.app_id().to_owned(),
        name: call.body.text("name").unwrap_or_default().to_owned(),
        scopes: call.body.texts("scopes"),
        expires_at_ms: expiry(call)?,
    };
    answer_created(access, call, |batch| batch.create_token(new))
}

pub(super) fn rotate(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    answer_created(access, call, |batch| batch.rotate_token(call.app.as_deref(), call.item_id()))
}

fn answer_created(
    access: &Access<'_>,
    call: &Call,
    create: impl FnOnce(&mut crate::store::Batch<'_, '_>) -> Result<CreatedToken, StoreError>,
) -> Result<Answer, Fault> {
    let created = access.create(call, |batch| {
        let created = create(batch)?;
        Ok((created.record.id.clone(), created))
    })?;
    match created {
        Created::Now(CreatedToken { record, token }) => {
            let app = app_id(access, call, &record)?;
            let mut json = encode(&record, &app);
            json["token"] = json!(token);
            Ok(Answer::created(json))
        }
        Created::Before(id) => {
            let tokens = access.store.tokens(call.app.as_deref()).map_err(|error| if_gone(error, &id))?;
            let token = tokens.iter().find(|token| token.id == id).ok_or_else(|| gone(&id))?;
            Ok(Answer::ok(encode(token, &app_id(access, call, token)?)))
        }
    }
}

pub(super) fn revoke(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let token = access.store.revoke_token(access.actor, call.app.as_deref(), call.item_id())?;
    Ok(Answer::ok(encode(&token, &app_id(access, call, &token)?)))
}

/// The time of expiry that a body names, which must be ahead.
pub(super) fn expiry(call: &Call) -> Result<Option<u64>, Fault> {
    let Some(text) = call.body.text("expires_at") else {
        return Ok(None);
    };
    let takes = "expires_at takes a time such as \"2027-01-31T00:00:00Z\"";
    let end = parse_rfc3339(text).ok_or_else(|| Fault::bad_request(format!("{takes}.")))?;
    if end <= unix_ms() {
        return Err(Fault::bad_request(format!("{takes} that is not past.")));
    }
    Ok(Some(end))
}

/// Id of the app of a token: that of the path, if it names one.
fn app_id(access: &Access<'_>, call: &Call, token: &TokenRecord) -> Result<String, StoreError> {
    match &call.app {
        Some(app) => Ok(app.clone()),
        None => Ok(access.store.app_of_serial(token.app)?.map(|app| app.id).unwrap_or_default()),
    }
}

/// Ids of apps by their serials.
fn app_ids(access: &Access<'_>) -> Result<HashMap<u32, String>, StoreError> {
    Ok(access.store.apps()?.into_iter().map(|app| (app.serial, app.id)).collect())
}

fn encode(token: &TokenRecord, app: &str) -> Value {
    json!({
        "id": token.id,
        "app": app,
        "name": token.name,
        "scopes": token.scopes,
        "created_at": rfc3339(token.created_at_ms),
        "created_by": token.created_by.as_ref().map(ToString::to_string),
        "expires_at": token.expires_at_ms.map(rfc3339),
        "last_used_at": token.last_used_at_ms.map(rfc3339),
        "revoked_at": token.revoked_at_ms.map(rfc3339),
    })
}
