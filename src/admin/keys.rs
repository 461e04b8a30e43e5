//! Key pairs of an app: add one, remove one, remove all but the newest (threat T43).

use serde_json::json;

use super::access::Access;
use super::app_json::{Secrets, encode_key, summary};
use super::call::{Answer, Call};
use super::fault::{Fault, encode_created};
use super::routes::CREATED;
use crate::store::{KeyItems, RemovedKeys};

pub(super) fn add(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let (app, pair) = access.change(call, |batch| batch.rotate_app(call.app_id()))?;
    let mut json = encode_key(&pair, Secrets::Shown);
    json["id"] = json!(app.id);
    Ok(Answer::created(json).revision(app.revision))
}

pub(super) fn remove_old(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let items = items(call);
    let removed = access.change(call, |batch| batch.remove_old_keys(call.app_id(), items))?;
    Ok(answer(&removed, items))
}

pub(super) fn remove(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let items = items(call);
    let removed = access.change(call, |batch| batch.remove_key(call.app_id(), call.item_id(), items))?;
    Ok(answer(&removed, items))
}

/// The caller's choice about what the keys created; without one, keys that created something stay.
fn items(call: &Call) -> KeyItems {
    match call.parameter(CREATED) {
        Some("revoke") => KeyItems::Revoke,
        Some("keep") => KeyItems::Keep,
        Some(_) | None => KeyItems::Refuse,
    }
}

fn answer(removed: &RemovedKeys, items: KeyItems) -> Answer {
    let mut json = summary(&removed.app);
    json["removed"] = json!(removed.removed);
    json["created"] = removed.created.iter().map(encode_created).collect();
    json["revoked"] = json!(items == KeyItems::Revoke);
    Answer::ok(json).revision(removed.app.revision)
}
