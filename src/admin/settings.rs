//! Changes of an app's settings: a merge of the named ones (R-ADMIN-16). All of them are accepted, or none is changed.

use serde_json::{Map, Value};

use super::access::Access;
use super::app_json::{Secrets, encode};
use super::call::{Answer, Call};
use super::fault::Fault;
use super::forms::ALLOW_PRIVATE;
use crate::app::AppSettings;
use crate::app::settings::APP_SETTINGS;
use crate::openapi::settings::text_of;
use crate::setting::{Setting, Takes};
use crate::store::record::AppRecord;
use crate::store::{StoreError, setting};

pub(super) fn change(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let fields = call.body.all();
    if fields.is_empty() {
        return Err(Fault::bad_request("The body names no setting; GET shows all."));
    }
    let apply = |app: &mut AppRecord| apply_all(access, app, fields);
    let app = access.change(call, |batch| batch.change_app(call.app_id(), apply))?;
    Ok(Answer::ok(encode(&app, Secrets::Hidden)).revision(app.revision))
}

/// Applies settings from their JSON values; an app's name is one of them.
pub(super) fn apply_all(
    access: &Access<'_>,
    app: &mut AppRecord,
    fields: &Map<String, Value>,
) -> Result<(), StoreError> {
    let defaults = AppSettings::default();
    let texts = fields.iter().map(|(name, value)| {
        let name = if name == ALLOW_PRIVATE { AUTHORIZER_ALLOW_PRIVATE } else { name };
        let (takes, default) = match Setting::named(APP_SETTINGS, name) {
            Some(setting) => (setting.takes, (setting.show)(&defaults)),
            None if name == setting::NAME => (Takes::Form(setting::ABOUT_NAME), "".into()),
            // Refused by its name, whatever its value is.
            None => return Ok((name, String::new())),
        };
        let refuse = || StoreError::Invalid(format!("{name} takes {takes}, not {value}"));
        Ok((name, text_of(takes, &default, value).ok_or_else(refuse)?))
    });
    let texts = texts.collect::<Result<Vec<_>, StoreError>>()?;
    let pairs: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    setting::apply_all(app, &pairs, access.allowed)
}

const AUTHORIZER_ALLOW_PRIVATE: &str = "authorizer_allow_private";
