//! Apps, their keys and tokens, and the immutable snapshot of all of them that every shard holds.
//!
//! The store is the truth, the [`Directory`] is the lookup: a keeper thread builds a new one after a change and
//! hands it to each shard. HMAC key states are derived once here, when a snapshot is built.

use std::sync::Arc;

/// Number of an app in its store: given once, never used again, also after the app was deleted.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AppSerial(pub u32);

/// A secret that prints as `[secret]`.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: &str) -> Self {
        Self(secret.into())
    }
    /// The secret itself, for signing and for the one time that it is shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
    /// Compares in constant time.
    pub fn matches(&self, _candidate: &[u8]) -> bool {
        todo!()
    }
}

/// A key pair of an app. Several are active during rotation.
#[derive(Debug)]
pub struct AppKey {
    /// The public key, unique in the store.
    pub key: Box<str>,
    /// Its secret.
    pub secret: Secret,
    /// The HMAC-SHA256 state of the secret, derived once.
    pub hmac: ring::hmac::Key,
}

impl AppKey {
    /// Derives the HMAC state.
    pub fn new(_key: &str, _secret: &str) -> Self {
        todo!()
    }
}

/// What an operator may change per app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AppSettings {
    /// Client events are accepted (P-CEV-1).
    pub client_events: bool,
    /// Plain sockets are refused with 4000 (P-CLOSE-4).
    pub tls_only: bool,
    /// WebSocket connections at once; 0 is no quota (P-CLOSE-2).
    pub max_connections: u32,
    /// Over quota is 4100 instead of 4004 (P-CLOSE-2).
    pub connection_limit_soft: bool,
    /// Longest decoded event data in bytes (P-LIM-3).
    pub max_event_data_bytes: u32,
    /// Users in one presence channel (P-LIM-7).
    pub max_presence_members: u32,
    /// Hosts whose pages may connect; empty allows all (P-CONN-8, threat T21).
    pub allowed_origins: Vec<Box<str>>,
}

/// One app as a shard sees it.
#[derive(Debug)]
pub struct App {
    /// Its number in the store.
    pub serial: AppSerial,
    /// Its public id, as in `/apps/{id}`.
    pub id: Box<str>,
    /// A name for people.
    pub name: Box<str>,
    /// A disabled app refuses everything (4003, 403).
    pub enabled: bool,
    /// Active key pairs, oldest first.
    pub keys: Vec<AppKey>,
    /// Its settings.
    pub settings: AppSettings,
}

/// What a token may do (R-TOKEN-6); no scope at all means everything.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Scopes(pub u16);

/// Public id of a token, `tok_...`; not the token.
pub type TokenId = Box<str>;

/// A token as the store keeps it: never the token itself (R-TOKEN-2).
#[derive(Clone, Debug)]
pub struct Token {
    /// Its public id.
    pub id: TokenId,
    /// SHA-256 of the whole token.
    pub hash: [u8; 32],
    /// The app it belongs to.
    pub app: AppSerial,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends, unix ms.
    pub expires_at_ms: Option<u64>,
    /// Set when it was revoked.
    pub revoked: bool,
}

/// All apps and tokens at one version of the store.
#[derive(Debug)]
pub struct Directory {
    // B: private maps by serial, id, key and token hash.
    _todo: (),
}

impl Directory {
    /// Builds the lookups. Keys are unique in the store, so are ids and serials.
    pub fn new(_version: u64, _apps: Vec<App>, _tokens: Vec<Token>) -> Self {
        todo!()
    }
    /// The version of the store that it shows.
    pub fn version(&self) -> u64 {
        todo!()
    }
    /// The app with this number, disabled ones included.
    pub fn app(&self, _serial: AppSerial) -> Option<&Arc<App>> {
        todo!()
    }
    /// The app of `/apps/{id}`, disabled ones included.
    pub fn app_by_id(&self, _id: &str) -> Option<&Arc<App>> {
        todo!()
    }
    /// The app whose active key this is, disabled ones included.
    pub fn app_by_key(&self, _key: &str) -> Option<&Arc<App>> {
        todo!()
    }
    /// The token with this hash, expired and revoked ones included.
    pub fn token_by_hash(&self, _hash: &[u8; 32]) -> Option<&Token> {
        todo!()
    }
}
