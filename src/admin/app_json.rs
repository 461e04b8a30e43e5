//! An app in the answers of the admin API.

use serde_json::{Map, Value, json};

use crate::app::settings::APP_SETTINGS;
use crate::rfc3339::rfc3339;
use crate::store::record::{AppRecord, KeyRecord};

/// Whether secrets are part of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Secrets {
    Hidden,
    Shown,
}

pub(super) fn summary(app: &AppRecord) -> Value {
    json!({
        "id": app.id,
        "name": app.name,
        "enabled": app.enabled,
        "keys": app.keys.iter().map(|pair| &pair.key).collect::<Vec<_>>(),
        "created_at": rfc3339(app.created_at_ms),
    })
}

pub(super) fn encode(app: &AppRecord, secrets: Secrets) -> Value {
    let mut json = summary(app);
    json["keys"] = app.keys.iter().map(|pair| encode_key(pair, secrets)).collect();
    let settings = APP_SETTINGS.iter().map(|setting| (setting.name.to_owned(), (setting.show)(&app.settings)));
    json["settings"] = settings.collect::<Map<_, _>>().into();
    json
}

pub(super) fn encode_key(pair: &KeyRecord, secrets: Secrets) -> Value {
    let mut json = json!({ "key": pair.key, "created_at": rfc3339(pair.created_at_ms) });
    if secrets == Secrets::Shown {
        json["secret"] = json!(pair.secret);
    }
    json
}
