//! Apps, their keys and tokens, and the immutable snapshot of all of them that every shard holds.
//!
//! The store is authoritative, the [`Directory`] is the lookup: a store writer thread builds a new one after a change
//! and passes it to each shard. HMAC key states are derived once here, when a snapshot is built.

use std::fmt;
use std::sync::Arc;

use bitflags::bitflags;
use foldhash::quality::FixedState;
use hashbrown::HashMap;
use ring::hmac;

pub mod actor;
pub mod master_key;
pub mod origin;
pub mod outgoing_url;
pub mod settings;
pub mod webhook;

use crate::label::{Label, labels};
use master_key::MasterKey;
pub use settings::AppSettings;
use webhook::{WebhookKind, Webhooks};

/// Number of an app in its store: assigned once and never reused, even after the app was deleted.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AppSerial(pub u32);

/// A secret that prints as `[secret]` and is compared only in constant time (threats T2, T5, T27).
#[derive(Clone)]
pub struct Secret {
    text: Box<str>,
    /// The HMAC-SHA256 state keyed with the secret.
    hmac: hmac::Key,
    /// The secret's tag under its own state, which a candidate must reproduce.
    proof: hmac::Tag,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Secret {
    /// Wraps a secret and derives the values that are needed to compare it.
    pub fn new(secret: &str) -> Self {
        let hmac = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let proof = hmac::sign(&hmac, secret.as_bytes());
        Self { text: secret.into(), hmac, proof }
    }

    /// The secret itself, for signing and for the one time that it is shown.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The HMAC-SHA256 of bytes under it.
    pub fn sign(&self, bytes: &[u8]) -> hmac::Tag {
        hmac::sign(&self.hmac, bytes)
    }

    /// True when `tag` is the HMAC-SHA256 of bytes under it; compared in constant time.
    pub fn verifies(&self, bytes: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.hmac, bytes, tag).is_ok()
    }

    /// Compares in constant time.
    ///
    /// Two tags of 32 bytes are compared instead of the texts: the time depends on the candidate's length, which
    /// its sender knows, and neither on the secret's length nor on how much of it was guessed.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        hmac::verify(&self.hmac, candidate, self.proof.as_ref()).is_ok()
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
    pub hmac: hmac::Key,
}

impl AppKey {
    /// Derives the HMAC state.
    pub fn new(key: &str, secret: &str) -> Self {
        let secret = Secret::new(secret);
        let hmac = secret.hmac.clone();
        Self { key: key.into(), secret, hmac }
    }
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
    /// The key of its encrypted channels, if the app stores it (R-AUTHEP-6).
    pub encryption_master_key: Option<MasterKey>,
    /// Its settings.
    pub settings: AppSettings,
    /// Where its events are sent.
    pub webhooks: Webhooks,
}

impl App {
    /// The active key pair with this public key, and its index in `keys`.
    pub fn active_key(&self, key: &[u8]) -> Option<(usize, &AppKey)> {
        self.keys.iter().enumerate().find(|(_, pair)| pair.key.as_bytes() == key)
    }

    /// True when an endpoint wants events of this kind; a disabled app sends none.
    pub fn wants(&self, kind: WebhookKind) -> bool {
        self.enabled && self.webhooks.wanted().has(kind)
    }
}

labels! {
    /// One permission that a token may be limited to (R-TOKEN-6).
    pub enum Scope {
        /// `POST /events`.
        EventsPublish => "events:publish",
        /// `POST /batch_events`.
        EventsBatch => "events:batch",
        /// Channel list, info and history.
        ChannelsRead => "channels:read",
        /// Channel users.
        PresenceRead => "presence:read",
        /// Webhook endpoints.
        WebhooksManage => "webhooks:manage",
        /// Encryption keys.
        EncryptionManage => "encryption:manage",
        /// Schemas.
        SchemasManage => "schemas:manage",
        /// `GET /connections`.
        ConnectionsRead => "connections:read",
        /// Accepted; no routes yet.
        AnalyticsRead => "analytics:read",
        /// `POST /auth`.
        ChannelsAuth => "channels:auth",
        /// Protected channels on streams and polls.
        ChannelsSubscribe => "channels:subscribe",
        /// `terminate_connections`.
        ConnectionsManage => "connections:manage",
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A word that is not a scope.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown scope {name:?}; the scopes are {}", Scopes::EVERY)]
pub struct UnknownScope {
    /// The word.
    pub name: String,
}

bitflags! {
    /// The permissions of a token (R-TOKEN-6); no scope at all means everything.
    ///
    /// One bit per [`Scope`]. Bits that no scope has, from a newer version's store, allow nothing.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct Scopes: u16 {
        /// Every scope by name, which is not the same as no limit: routes without a scope of their own stay closed.
        const EVERY = (1 << Scope::ALL.len()) - 1;
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self::from_bits_retain(1 << scope.index())
    }
}

impl Scopes {
    /// No limit.
    pub const FULL: Self = Self::empty();

    /// Reads names separated by commas; `""` is full access.
    ///
    /// # Errors
    /// The first word that is not a scope. An empty word between commas is one too, so that a typing error never widens
    /// the permissions of a token.
    pub fn parse(names: &str) -> Result<Self, UnknownScope> {
        if names.trim().is_empty() {
            return Ok(Self::FULL);
        }
        names.split(',').map(str::trim).try_fold(Self::FULL, |scopes, name| {
            let scope = Scope::of_label(name).ok_or_else(|| UnknownScope { name: name.to_owned() })?;
            Ok(scopes.with(scope))
        })
    }

    /// These scopes and one more. Adding a scope to full access limits it to that scope.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        self | scope.into()
    }

    /// True when there is no limit.
    pub fn is_full(self) -> bool {
        self == Self::FULL
    }

    /// True when the scope is among these, or there is no limit.
    pub fn allows(self, scope: Scope) -> bool {
        self.is_full() || self.contains(scope.into())
    }

    /// The scopes named; none for full access.
    pub fn named(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.contains((*scope).into()))
    }
}

/// Names separated by `,`; empty for full access. [`Scopes::parse`] reads it back.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.named().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(scope.label())?;
        }
        Ok(())
    }
}

/// Public id of a token, `tok_...`; not the token.
pub type TokenId = Box<str>;

/// A token as the store keeps it: never the token itself (R-TOKEN-2).
#[derive(Clone, Debug)]
pub struct Token {
    /// Its public id.
    pub id: TokenId,
    /// SHA-256 of the complete token.
    pub hash: [u8; 32],
    /// The app it belongs to.
    pub app: AppSerial,
    /// Its permissions.
    pub scopes: Scopes,
    /// When it expires, unix ms.
    pub expires_at_ms: Option<u64>,
    /// Set when it was revoked.
    pub revoked: bool,
}

/// A token to create.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Id of its app.
    pub app: String,
    /// A display name.
    pub name: String,
    /// Scopes by name; none is full access (R-TOKEN-6).
    pub scopes: Vec<String>,
    /// When it expires, unix ms.
    pub expires_at_ms: Option<u64>,
}

impl Token {
    /// True when it is neither revoked nor expired (R-TOKEN-3); it expires with the millisecond `expires_at_ms`.
    pub fn is_valid(&self, unix_ms: u64) -> bool {
        !self.revoked && self.expires_at_ms.is_none_or(|end| unix_ms < end)
    }
}

/// All apps and tokens at one version of the store.
///
/// Operators choose its contents, so its maps need no secret seed: a peer can only look up, and every lookup of a
/// peer's choice is bounded by what the operators stored.
#[derive(Debug)]
pub struct Directory {
    version: u64,
    /// Ordered by serial.
    apps: Vec<Arc<App>>,
    /// By public id; the value is an index into `apps`.
    by_id: HashMap<Box<str>, usize, FixedState>,
    /// By active public key; the value is an index into `apps`.
    by_key: HashMap<Box<str>, usize, FixedState>,
    tokens: HashMap<[u8; 32], Token, FixedState>,
    /// Messages of a day, for apps that limit them, as they were last written.
    messages_used: HashMap<AppSerial, MessagesUsed, FixedState>,
}

/// Messages that an app published on one day (R-LIM-3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MessagesUsed {
    /// Number of the day since 1970, in UTC.
    pub day: u64,
    /// How many.
    pub messages: u32,
}

impl Directory {
    /// Builds the lookups. Keys are unique in the store, so are ids and serials.
    pub fn new(version: u64, mut apps: Vec<App>, tokens: Vec<Token>) -> Self {
        apps.sort_by_key(|app| app.serial);
        let apps: Vec<Arc<App>> = apps.into_iter().map(Arc::new).collect();
        let mut by_id = HashMap::with_capacity_and_hasher(apps.len(), FixedState::default());
        let mut by_key = HashMap::with_capacity_and_hasher(apps.len(), FixedState::default());
        for (index, app) in apps.iter().enumerate() {
            let id_before = by_id.insert(app.id.clone(), index);
            debug_assert!(id_before.is_none(), "two apps share an id");
            for pair in &app.keys {
                let key_before = by_key.insert(pair.key.clone(), index);
                debug_assert!(key_before.is_none(), "two key pairs share a public key");
            }
        }
        debug_assert!(apps.is_sorted_by(|a, b| a.serial < b.serial), "two apps share a serial");
        let tokens = tokens.into_iter().map(|token| (token.hash, token)).collect();
        Self { version, apps, by_id, by_key, tokens, messages_used: HashMap::default() }
    }

    /// Adds the counts of messages that apps have published recently.
    #[must_use]
    pub fn with_messages_used(mut self, used: impl IntoIterator<Item = (AppSerial, MessagesUsed)>) -> Self {
        self.messages_used = used.into_iter().collect();
        self
    }

    /// The messages that an app has published, as last written: a new counter continues from them.
    pub fn messages_used(&self, app: AppSerial) -> Option<MessagesUsed> {
        self.messages_used.get(&app).copied()
    }

    /// The version of the store that it shows.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The app with this number, disabled ones included.
    pub fn app(&self, serial: AppSerial) -> Option<&Arc<App>> {
        let index = self.apps.binary_search_by_key(&serial, |app| app.serial).ok()?;
        self.apps.get(index)
    }

    /// The app of `/apps/{id}`, disabled ones included.
    pub fn app_by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.apps.get(*self.by_id.get(id)?)
    }

    /// The app whose active key this is, disabled ones included.
    pub fn app_by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.apps.get(*self.by_key.get(key)?)
    }

    /// The token with this hash, expired and revoked ones included.
    pub fn token_by_hash(&self, hash: &[u8; 32]) -> Option<&Token> {
        self.tokens.get(hash)
    }

    /// The token with this hash, if it is one of the app and neither expired nor revoked (R-TOKEN-3).
    pub fn valid_token(&self, hash: &[u8; 32], app: AppSerial, unix_ms: u64) -> Option<&Token> {
        self.token_by_hash(hash).filter(|token| token.app == app && token.is_valid(unix_ms))
    }

    /// All apps in the order of their serials, disabled ones included.
    pub fn apps(&self) -> impl DoubleEndedIterator<Item = &Arc<App>> + ExactSizeIterator {
        self.apps.iter()
    }

    /// All tokens, expired and revoked ones included, in no order.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Token> {
        self.tokens.values()
    }
}

const _: () = assert!(Scope::ALL.len() <= u16::BITS as usize, "a scope is a bit of Scopes");

#[cfg(test)]
mod tests {
    use super::*;

    fn app(serial: u32, id: &str, keys: &[(&str, &str)]) -> App {
        App {
            serial: AppSerial(serial),
            id: id.into(),
            name: "".into(),
            enabled: true,
            keys: keys.iter().map(|(key, secret)| AppKey::new(key, secret)).collect(),
            encryption_master_key: None,
            settings: AppSettings::default(),
            webhooks: Default::default(),
        }
    }

    /// R-AUTH-1, threat T5: exactly the secret matches; every prefix, extension and changed byte is refused.
    #[test]
    fn secret_matches_only_itself() {
        for text in ["s", "7ad3773142a6692b25b8", &"x".repeat(64), &"y".repeat(200)] {
            let secret = Secret::new(text);
            assert!(secret.matches(text.as_bytes()));
            for length in 0..text.len() {
                assert!(!secret.matches(&text.as_bytes()[..length]), "prefix of {length}");
            }
            assert!(
                !secret.matches(format!("{text}\0").as_bytes()),
                "HMAC pads keys with zeros; texts must not match so"
            );
            assert!(!secret.matches(format!("{text}x").as_bytes()));
            for index in 0..text.len() {
                let mut changed = text.as_bytes().to_vec();
                changed[index] ^= 1;
                assert!(!secret.matches(&changed), "byte {index} changed");
            }
        }
    }

    /// Threat T27: neither a secret nor a key pair shows its secret in debug output.
    #[test]
    fn debug_output_shows_no_secret() {
        let pair = AppKey::new("public-part", "very-private-part");
        let shown = format!("{pair:?} {:?}", pair.secret);
        assert!(shown.contains("public-part") && shown.contains("[secret]"), "{shown}");
        assert!(!shown.contains("very-private-part"), "{shown}");
    }

    /// R-TOKEN-6: every name of the table parses to a bit of its own and reads back; no scope is full access.
    #[test]
    fn scopes_round_trip_and_limit() {
        let names = "events:publish,events:batch,channels:read,presence:read,webhooks:manage,encryption:manage,\
                     schemas:manage,connections:read,analytics:read,channels:auth,channels:subscribe,connections:manage";
        let every = Scopes::parse(names).expect("the names of the table");
        assert_eq!(every, Scopes::EVERY);
        assert_eq!(every.bits().count_ones(), 12);
        assert_eq!(every.to_string(), names);
        for scope in Scope::ALL.iter().copied() {
            let one = Scopes::parse(scope.label()).expect("a name of the table");
            assert!(Scope::ALL.iter().copied().all(|other| one.allows(other) == (other == scope)));
            assert!(Scopes::FULL.allows(scope));
            assert_eq!(one.to_string(), scope.to_string());
        }
        assert_eq!(Scopes::parse("").map(|scopes| scopes.to_string()), Ok(String::new()));
        assert_eq!(Scopes::parse(" events:batch , channels:auth "), Ok(Scopes::from_bits_retain(0b10_0000_0010)));
    }

    /// R-TOKEN-6: unknown words and stray commas are errors and unknown stored bits allow nothing, so that no mistake
    /// turns a limited token into one with full access.
    #[test]
    fn slips_never_widen_scopes() {
        for slip in
            [",", "events:publish,", ",events:publish", "Events:Publish", "events", "events:publish events:batch"]
        {
            assert!(Scopes::parse(slip).is_err(), "{slip:?}");
        }
        let message = Scopes::parse("events:pubish").expect_err("a typing error").to_string();
        assert!(message.contains("\"events:pubish\"") && message.contains("events:publish,"), "{message}");
        assert!(Scope::ALL.iter().copied().all(|scope| !Scopes::from_bits_retain(1 << 15).allows(scope)));
    }

    /// R-TOKEN-3: a token expires with the millisecond of its expiry, or at once when revoked.
    #[test]
    fn token_ends_by_expiry_or_revocation() {
        let token = Token {
            id: "tok_1".into(),
            hash: [0; 32],
            app: AppSerial(1),
            scopes: Scopes::FULL,
            expires_at_ms: Some(1_000),
            revoked: false,
        };
        assert!(token.is_valid(999) && !token.is_valid(1_000));
        assert!(Token { expires_at_ms: None, ..token.clone() }.is_valid(u64::MAX));
        assert!(!Token { revoked: true, ..token }.is_valid(0));
    }

    /// R-AUTH-5: every lookup finds its own app, by serial, id and each active key, and nothing else.
    #[test]
    fn directory_finds_each_app_by_its_own_names() {
        let apps = vec![app(7, "70", &[("k7", "a"), ("k7b", "b")]), app(3, "30", &[("k3", "c")]), app(4, "40", &[])];
        let token = Token {
            id: "tok_1".into(),
            hash: [9; 32],
            app: AppSerial(3),
            scopes: Scopes::FULL,
            expires_at_ms: None,
            revoked: true,
        };
        let directory = Directory::new(42, apps, vec![token]);
        assert_eq!(directory.version(), 42);
        assert_eq!(directory.apps().map(|app| app.serial.0).collect::<Vec<_>>(), [3, 4, 7]);
        for (serial, id) in [(7, "70"), (3, "30"), (4, "40")] {
            assert_eq!(directory.app(AppSerial(serial)).map(|app| &*app.id), Some(id));
            assert_eq!(directory.app_by_id(id).map(|app| app.serial.0), Some(serial));
        }
        for (key, serial) in [("k7", 7), ("k7b", 7), ("k3", 3)] {
            assert_eq!(directory.app_by_key(key).map(|app| app.serial.0), Some(serial));
        }
        assert!(directory.app(AppSerial(5)).is_none() && directory.app_by_id("k3").is_none());
        assert!(directory.app_by_key("30").is_none() && directory.app_by_id("").is_none());
        assert_eq!(directory.token_by_hash(&[9; 32]).map(|token| &*token.id), Some("tok_1"));
        assert!(directory.token_by_hash(&[8; 32]).is_none());
        assert_eq!(directory.tokens().len(), 1);
    }
}
