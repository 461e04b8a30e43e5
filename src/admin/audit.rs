//! The audit log (R-ADMIN-4): the newest entries first.

use serde_json::{Value, json};

use super::access::{Access, number_cursor, page};
use super::call::{Answer, Call};
use super::fault::Fault;
use crate::rfc3339::rfc3339;
use crate::store::audit::{AuditEntry, AuditQuery};

pub(super) fn list(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let query =
        AuditQuery { before: number_cursor(call)?, app: call.parameter("app"), limit: call.limit().saturating_add(1) };
    let entries = access.store.audit(query)?;
    Ok(page(&entries, call.limit(), |entry| entry.number.to_string(), |entry| encode(entry)))
}

fn encode(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.number.to_string(),
        "at": rfc3339(entry.at_ms),
        "actor": { "kind": entry.actor, "id": entry.actor_id, "address": entry.address },
        "action": entry.action,
        "app": entry.app,
        "subject": entry.subject,
        "changes": entry.changes,
    })
}
