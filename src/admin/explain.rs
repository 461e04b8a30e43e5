//! Why was this refused? Reads the question, and records that it was asked (R-EXPLAIN-7).

use serde_json::Value;

use super::access::Access;
use super::call::{Answer, Call};
use super::fault::Fault;
use crate::auth::explain::{Asked, Reader};
use crate::store::Role;
use crate::store::audit::AuditAction;

pub(super) fn explain(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let explainer = access.explainer.ok_or_else(|| Fault::unavailable("No server runs here."))?;
    let asked = Asked::from_json(Value::Object(call.body.all().clone()))
        .map_err(|error| Fault::bad_request(error.to_string()))?;
    if access.running.is_some() {
        explainer.take(&access.actor.id, access.now)?;
        let text = |name| call.body.text(name).unwrap_or_default();
        access.store.note(access.actor, AuditAction::RequestExplain, text("app_id"), text("refusal_id"))?;
    }
    let turn = explainer.turn()?;
    let reader = if access.role == Role::Admin { Reader::Admin } else { Reader::ReadOnly };
    Ok(Answer::ok(explainer.explain(&turn, &asked, access.now)?.to_json(reader)))
}
