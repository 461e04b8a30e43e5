//! The store's records of apps and tokens, as JSON values: read once per change, never on a hot path. Fields may be
//! added with a default; any other change raises [`SCHEMA`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{Fault, StoreError};
use super::scope;
use super::webhook_record::{WebhookRecord, to_webhooks};
use crate::app::actor::Creator;
use crate::app::master_key::MasterKey;
use crate::app::{App, AppKey, AppSerial, AppSettings, Token};
use crate::limits;

/// Layout of the tables and records. A store with a higher one is refused.
pub(super) const SCHEMA: u32 = 1;

/// An app in the store.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AppRecord {
    /// Its number, never reused.
    pub serial: u32,
    /// Its public id.
    pub id: String,
    /// A display name.
    pub name: String,
    /// A disabled app refuses everything.
    pub enabled: bool,
    /// When it was created, unix ms.
    pub created_at_ms: u64,
    /// Active key pairs, oldest first; at least one.
    pub keys: Vec<KeyRecord>,
    /// The settings that an operator may change.
    #[serde(default)]
    pub settings: AppSettings,
    /// Its webhook endpoints.
    #[serde(default)]
    pub webhooks: Vec<WebhookRecord>,
    /// The master key of its encrypted channels in base64, if the app stores it (R-AUTHEP-6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_master_key: Option<Hidden>,
    /// The store's version with its last change: it differs after every change (threat T52). 0 if an older Relay made
    /// that change.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
}

/// A key pair. The secret is stored in plain text: signatures need it (R-AUTH-6).
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeyRecord {
    /// The public key, unique in the store.
    pub key: String,
    /// Its secret; `Debug` does not print it.
    pub secret: String,
    /// When it was created, unix ms.
    pub created_at_ms: u64,
}

/// Secret text; `Debug` does not print it.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRecord({}, [secret])", self.key)
    }
}

/// A token in the store; the token itself is not stored (R-TOKEN-2, R-TOKEN-5).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TokenRecord {
    /// Its public id, `tok_...`.
    pub id: String,
    /// SHA-256 of the complete token, in hex.
    pub hash: String,
    /// Serial of its app.
    pub app: u32,
    /// A display name.
    pub name: String,
    /// Scopes by name; none is full access (R-TOKEN-6).
    pub scopes: Vec<String>,
    /// When it was created, unix ms.
    pub created_at_ms: u64,
    /// When it expires, unix ms.
    pub expires_at_ms: Option<u64>,
    /// When it was last used successfully, unix ms; up to a minute behind (R-TOKEN-4).
    pub last_used_at_ms: Option<u64>,
    /// When it was revoked, unix ms.
    pub revoked_at_ms: Option<u64>,
    /// The credential that created it (R-ADMIN-5); unknown for a token of an older Relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Creator>,
}

impl AppRecord {
    /// An app that is in no store: settings are read into it before there is a real one.
    pub fn stand_in() -> Self {
        Self {
            serial: 0,
            id: String::new(),
            name: String::new(),
            enabled: true,
            created_at_ms: 0,
            keys: Vec::new(),
            settings: AppSettings::default(),
            webhooks: Vec::new(),
            encryption_master_key: None,
            revision: 0,
        }
    }

    /// Converts to the form that the shards use.
    pub(super) fn to_app(&self) -> Result<App, Fault> {
        Ok(App {
            serial: AppSerial(self.serial),
            id: self.id.as_str().into(),
            name: self.name.as_str().into(),
            enabled: self.enabled,
            keys: self.keys.iter().map(|pair| AppKey::new(&pair.key, &pair.secret)).collect(),
            encryption_master_key: self.master_key()?,
            settings: self.settings.clone(),
            webhooks: to_webhooks(&self.webhooks)?,
        })
    }
}

impl AppRecord {
    fn master_key(&self) -> Result<Option<MasterKey>, Fault> {
        let damaged = || Fault::Record(format!("app {} has a bad encryption master key", self.id));
        let text = self.encryption_master_key.as_ref();
        text.map(|Hidden(text)| MasterKey::from_base64(text).ok_or_else(damaged)).transpose()
    }
}

impl TokenRecord {
    /// True until it is revoked or expires (R-TOKEN-3).
    pub fn is_active(&self, unix_ms: u64) -> bool {
        self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|end| unix_ms < end)
    }

    /// Converts to the form that the shards use.
    pub(super) fn to_token(&self) -> Result<Token, Fault> {
        let damaged = |what: &str| Fault::Record(format!("token {} has a bad {what}", self.id));
        let mut hash = [0; 32];
        const_hex::decode_to_slice(&self.hash, &mut hash).map_err(|_| damaged("hash"))?;
        Ok(Token {
            id: self.id.as_str().into(),
            hash,
            app: AppSerial(self.app),
            scopes: scope::parse_all(&self.scopes).map_err(|_| damaged("scope"))?,
            expires_at_ms: self.expires_at_ms,
            revoked: self.revoked_at_ms.is_some(),
        })
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys and no failing serializers")
}

pub(super) fn decode<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::Record(format!("{what} is invalid: {error}")))
}

fn invalid(text: String) -> Result<(), StoreError> {
    Err(StoreError::Invalid(text))
}

/// App ids appear in URL paths.
pub fn check_id(id: &str) -> Result<(), StoreError> {
    let max = limits::APP_ID_BYTES_MAX;
    let fits = (1..=max).contains(&id.len());
    if fits && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Ok(());
    }
    invalid(format!("the app id {id:?} must be 1 to {max} of A-Z a-z 0-9 - _ . (all digits suits every SDK)"))
}

/// Keys appear in URL paths and before the colon of `auth` strings.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    let max = limits::APP_KEY_BYTES_MAX;
    let fits = (1..=max).contains(&key.len());
    if fits && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)) {
        return Ok(());
    }
    invalid(format!("the app key {key:?} must be 1 to {max} of A-Z a-z 0-9 - _ . ~"))
}

/// Secrets are sent in a header; the message does not repeat them.
pub fn check_secret(secret: &str) -> Result<(), StoreError> {
    let max = limits::APP_SECRET_BYTES_MAX;
    if (1..=max).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    invalid(format!("the app secret must be 1 to {max} visible ASCII characters without spaces"))
}

/// Names are for display; control characters would forge log lines (threat T27).
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let max = limits::NAME_BYTES_MAX;
    if name.len() <= max && !name.chars().any(char::is_control) {
        return Ok(());
    }
    invalid(format!("the name must be at most {max} bytes without control characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An app as the store contains it, with no field at its default.
    const STORED: &str = concat!(
        r#"{"serial":7,"id":"4711","name":"Shop","enabled":false,"created_at_ms":1763000000000,"#,
        r#""keys":[{"key":"shop-key","secret":"shop-secret","created_at_ms":1763000000001}],"settings":{"#,
        r#""client_events":true,"tls_only":true,"max_connections":1,"connection_limit_soft":true,"#,
        r#""max_event_data_bytes":2,"max_presence_members":3,"subscription_count":true,"max_cache_bytes":4,"#,
        r#""history_events":20,"history_seconds":21,"history_bytes":22,"#,
        r#""max_client_events_per_second":5,"max_channel_data_bytes":6,"activity_timeout":7,"#,
        r#""max_invalid_messages":8,"max_channels_per_connection":9,"max_channels_per_event":11,"#,
        r#""max_batch_events":12,"channels_max":13,"messages_per_day":14,"requests_per_minute":15,"#,
        r#""signed_requests_per_minute":16,"key_requests_per_minute":17,"token_requests_per_minute":18,"#,
        r#""watchlist":true,"authorized_connections":true,"allowed_origins":["example.com","*.example.org"],"#,
        r#""insecure_origins":true,"authorizer_url":"https://a.test/x","user_authorizer_url":"https://a.test/y","#,
        r#""authorizer_allow_private":true,"authorizer_cookies":["session"],"max_authorizer_requests":19},"#,
        r#""webhooks":[],"encryption_master_key":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}"#,
    );

    fn written_again(stored: &str) -> String {
        let app: AppRecord = decode("app", stored.as_bytes()).expect("a record");
        String::from_utf8(encode(&app)).expect("JSON is text")
    }

    /// A record in the current format is written back byte for byte after reading: an older server can still read
    /// records written by a newer one, and reading changes no record.
    #[test]
    fn a_record_is_written_as_it_was_read() {
        assert_eq!(written_again(STORED), STORED);
    }

    /// Missing settings get their defaults, also in a record from before there were any settings, and unknown ones are
    /// ignored: records of a later version are readable here.
    #[test]
    fn missing_settings_are_defaults() {
        let start = STORED.split(r#","settings""#).next().expect("a split has a first part");
        let app = |rest: &str| decode::<AppRecord>("app", format!("{start}{rest}}}").as_bytes()).expect("a record");
        assert_eq!(app("").settings, AppRecord::stand_in().settings);
        let some = app(r#","settings":{"max_connections":9,"of_a_later_version":[1]}"#).settings;
        let mut expected = AppRecord::stand_in().settings;
        expected.max_connections = 9;
        assert_eq!(some, expected);
    }
}
