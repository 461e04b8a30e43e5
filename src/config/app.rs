//! The app of the configuration, which the start creates.

use super::alias::SOKETI_APP;
use super::error::ConfigError;
use super::source::Settings;
use crate::app::Secret;
use crate::store::record::{check_id, check_key, check_secret};

/// The app of `RELAY_APP_ID`, `RELAY_APP_KEY` and `RELAY_APP_SECRET`, or of another server's variables.
#[derive(Clone, Debug)]
pub struct ConfiguredApp {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: String,
    /// Its secret.
    pub secret: Secret,
    /// Whether it is enabled when it is new.
    pub enabled: bool,
    /// App settings by name, for when it is new: those that were set, then defaults of another server.
    pub settings: Vec<(&'static str, String)>,
    /// How many of the settings were set explicitly.
    pub explicit: usize,
    /// Webhooks, for when it is new: the variable, and its JSON list.
    pub webhooks: Option<(String, String)>,
}

impl ConfiguredApp {
    /// The app of the settings, if they name one. One or two of the three are an error.
    pub fn new(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        settings.check_aliases()?;
        let names = ["app_id", "app_key", "app_secret"];
        let [Some(id), Some(key), Some(secret)] = names.map(|name| settings.text(name)) else {
            let missing: Vec<_> = names.into_iter().filter(|name| settings.text(name).is_none()).collect();
            let Some(given) = names.into_iter().find(|name| settings.text(name).is_some()) else {
                return Ok(None);
            };
            let text = format!(
                "{} is set but {} not: an app needs RELAY_APP_ID, RELAY_APP_KEY and RELAY_APP_SECRET, all three or none",
                settings.origin(given),
                missing.join(" and ") + if missing.len() == 1 { " is" } else { " are" },
            );
            return Err(ConfigError(text));
        };
        let checks = [("app_id", check_id(id)), ("app_key", check_key(key)), ("app_secret", check_secret(secret))];
        for (name, check) in checks {
            check.map_err(|error| ConfigError(format!("{}: {error}", settings.origin(name))))?;
        }
        let given = |part: &str| settings.text(part);
        let named = settings.of_new_app().map(|(name, text)| (name, text.to_owned()));
        let mut app_settings: Vec<(&'static str, String)> = named.collect();
        let explicit = app_settings.len();
        // An app of another server keeps the limits that it had there.
        if settings.origin("app_id").starts_with("SOKETI_") {
            let missing =
                SOKETI_APP.into_iter().filter(|(name, _)| app_settings.iter().all(|(known, _)| known != name));
            let missing: Vec<_> = missing.map(|(name, value)| (name, value.to_owned())).collect();
            app_settings.extend(missing);
        }
        Ok(Some(Self {
            id: id.into(),
            key: key.into(),
            secret: Secret::new(secret),
            enabled: given("app_enabled") != Some("false"),
            settings: app_settings,
            explicit,
            webhooks: given("app_webhooks").map(|text| (settings.origin("app_webhooks"), text.to_owned())),
        }))
    }
}
