//! Admin tokens: list, create, revoke (R-ADMIN-2). A token is shown by the request that created it alone.

use serde_json::{Value, json};

use super::access::{Access, Created, gone, page_by_age};
use super::call::{Answer, Call};
use super::fault::Fault;
use super::tokens::expiry;
use crate::rfc3339::rfc3339;
use crate::store::{AdminTokenRecord, CreatedAdminToken, NewAdminToken, Role};

pub(super) fn list(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let tokens = access.store.admin_tokens()?;
    Ok(page_by_age(tokens, call, |token| (token.created_at_ms, &token.id), encode))
}

pub(super) fn create(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let new = NewAdminToken {
        name: call.body.text("name").unwrap_or_default().to_owned(),
        role: if call.body.is_on("read_only") { Role::Viewer } else { Role::Admin },
        expires_at_ms: expiry(call)?,
    };
    let created = access.create(call, |batch| {
        let created = batch.create_admin_token(new)?;
        Ok((created.record.id.clone(), created))
    })?;
    match created {
        Created::Now(CreatedAdminToken { record, token }) => {
            let mut json = encode(&record);
            json["token"] = json!(token);
            Ok(Answer::created(json))
        }
        Created::Before(id) => {
            let tokens = access.store.admin_tokens()?;
            let token = tokens.iter().find(|token| token.id == id).ok_or_else(|| gone(&id))?;
            Ok(Answer::ok(encode(token)))
        }
    }
}

pub(super) fn revoke(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let token = access.store.revoke_admin_token(access.actor, call.item_id())?;
    Ok(Answer::ok(encode(&token)))
}

fn encode(token: &AdminTokenRecord) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "created_at": rfc3339(token.created_at_ms),
        "created_by": token.created_by.to_string(),
        "expires_at": token.expires_at_ms.map(rfc3339),
        "last_used_at": token.last_used_at_ms.map(rfc3339),
        "revoked_at": token.revoked_at_ms.map(rfc3339),
    })
}
