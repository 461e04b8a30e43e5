//! Apps: list, create, show, switch, delete, and show with secrets.

use serde_json::{Value, json};

use super::access::{Access, Created, gone, number_cursor, page};
use super::app_json::{Secrets, encode, summary};
use super::call::{Answer, Call};
use super::fault::Fault;
use super::settings;
use crate::store::audit::AuditAction;
use crate::store::record::AppRecord;
use crate::store::{NewApp, StoreError};

pub(super) fn list(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let after = number_cursor::<u32>(call)?;
    let apps = access.store.apps_after(after, call.limit().saturating_add(1))?;
    Ok(page(&apps, call.limit(), |app| app.serial.to_string(), |app| summary(app)))
}

pub(super) fn create(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let text = |name| call.body.text(name).map(str::to_owned);
    // The settings are applied to a stand-in first, so that an invalid one creates no app.
    let mut wished = AppRecord::stand_in();
    settings::apply_all(access, &mut wished, &call.body.members("settings"))?;
    let new = NewApp {
        id: text("id"),
        key: text("key"),
        secret: text("secret"),
        name: text("name").unwrap_or_default(),
        settings: wished.settings,
    };
    let created = access.create(call, |batch| {
        let app = batch.create_app(new)?;
        Ok((app.id.clone(), app))
    })?;
    match created {
        Created::Now(app) => Ok(Answer::created(new_app(&app, Secrets::Shown)).revision(app.revision)),
        Created::Before(id) => {
            let app = access.store.app(&id).map_err(|error| if_gone(error, &id))?;
            Ok(Answer::ok(new_app(&app, Secrets::Hidden)).revision(app.revision))
        }
    }
}

/// What a repeat of a create answers if its record cannot be read.
pub(super) fn if_gone(error: StoreError, id: &str) -> Fault {
    let fault = Fault::from(error);
    if fault.status() == 404 { gone(id) } else { fault }
}

pub(super) fn show(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let app = access.store.app(call.app_id())?;
    Ok(Answer::ok(encode(&app, Secrets::Hidden)).revision(app.revision))
}

pub(super) fn reveal(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let app = access.store.app(call.app_id())?;
    // First, so that no secret is shown without an entry.
    access.store.note(access.actor, AuditAction::SecretReveal, &app.id, "")?;
    Ok(Answer::ok(encode(&app, Secrets::Shown)).revision(app.revision))
}

pub(super) fn switch(access: &Access<'_>, call: &Call, enabled: bool) -> Result<Answer, Fault> {
    let change = |app: &mut AppRecord| {
        app.enabled = enabled;
        Ok(())
    };
    let app = access.change(call, |batch| batch.change_app(call.app_id(), change))?;
    Ok(Answer::ok(summary(&app)).revision(app.revision))
}

pub(super) fn delete(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let app = access.change(call, |batch| batch.delete_app(call.app_id()))?;
    Ok(Answer::ok(json!({ "id": app.id, "deleted": true })))
}

fn new_app(app: &AppRecord, secrets: Secrets) -> Value {
    let mut json = encode(app, Secrets::Hidden);
    if let Some(pair) = app.keys.first() {
        json["key"] = json!(pair.key);
        if secrets == Secrets::Shown {
            json["secret"] = json!(pair.secret);
        }
    }
    json
}
