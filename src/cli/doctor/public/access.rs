//! The app that the doctor acts for: its key opens WebSockets, its secret signs requests. The secret comes from the
//! store, the environment or relay.toml, never from the command line, and goes nowhere.

use std::path::Path;

use md5::{Digest, Md5};
use ring::hmac;

use crate::app::AppKey;
use crate::cli::CommandError;
use crate::config::{ConfiguredApp, DATA_DEFAULT, Settings};
use crate::store::{Missing, Store, StoreError, unix_ms};

/// What is known of the app.
#[derive(Debug, Default)]
pub(super) struct Access {
    pub(super) id: Option<String>,
    /// The key that clients connect with.
    pub(super) key: Option<String>,
    /// Active pairs, the oldest first; empty if only the key is known.
    pub(super) pairs: Vec<AppKey>,
}

impl Access {
    /// The app named on the command line, else the app of the configuration, else nothing.
    ///
    /// # Errors
    /// The store's, when it has to be read.
    pub(super) fn find(settings: &Settings, id: Option<&str>, key: Option<&str>) -> Result<Self, CommandError> {
        let configured = ConfiguredApp::new(settings)?.filter(|app| id.is_none_or(|id| id == app.id));
        let mut access = match (configured, id) {
            (Some(app), _) => {
                let pair = AppKey::new(&app.key, app.secret.expose());
                Self { id: Some(app.id), key: Some(app.key), pairs: vec![pair] }
            }
            (None, Some(id)) => Self::of_store(settings.text("data").unwrap_or(DATA_DEFAULT).as_ref(), id)?,
            (None, None) => Self::default(),
        };
        if let Some(key) = key {
            // A pair of another key would sign for another client than the one that connects.
            access.pairs.retain(|pair| &*pair.key == key);
            access.key = Some(key.to_owned());
        }
        Ok(access)
    }

    fn of_store(data: &Path, id: &str) -> Result<Self, CommandError> {
        let directory = Store::open(data, Missing::Refuse)?.directory()?;
        let app = directory.app_by_id(id).ok_or_else(|| StoreError::UnknownApp(id.to_owned()))?;
        let key = app.keys.first().map(|pair| pair.key.to_string());
        let pairs = app.keys.iter().map(|pair| AppKey::new(&pair.key, pair.secret.expose())).collect();
        Ok(Self { id: Some(id.to_owned()), key, pairs })
    }

    /// The pair that signs, if its secret is known.
    pub(super) fn pair(&self) -> Option<&AppKey> {
        self.pairs.first()
    }

    /// Path and signed query of a request (P-SIGN-2). `signed_path` is the path that the signature covers.
    pub(super) fn sign(&self, method: &str, path: &str, signed_path: &str, body: &[u8]) -> Option<String> {
        let pair = self.pair()?;
        let mut query = format!("auth_key={}&auth_timestamp={}&auth_version=1.0", pair.key, unix_ms() / 1000);
        if !body.is_empty() {
            query.push_str(&format!("&body_md5={}", const_hex::encode(Md5::digest(body))));
        }
        let text = format!("{method}\n{signed_path}\n{query}");
        let signature = const_hex::encode(hmac::sign(&pair.hmac, text.as_bytes()));
        Some(format!("{path}?{query}&auth_signature={signature}"))
    }
}
