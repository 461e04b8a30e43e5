//! Apps and token hashes in one LMDB file, the source of truth. Shards see it as [`crate::app::Directory`].
//!
//! Every change is made on behalf of an [`Actor`](crate::app::actor::Actor) and recorded in the audit log in the same
//! transaction ([`audit`]).
//!
//! Several processes may have the store open: one `relay serve` and any number of short commands. A change that the
//! shards must see raises the version in the same transaction; the serving process polls that number ([`writer`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use heed::{RoTxn, RwTxn};

use crate::app::Directory;
use crate::limits;
use environment::{Environment, Tables};
use error::Fault;
use files::ServeLock;
use record::{AppRecord, SCHEMA, TokenRecord};

mod admin_tokens;
mod apps;
pub mod audit;
mod batch;
mod created;
mod environment;
mod error;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod idempotency;
mod keys;
mod lookup;
mod master_key;
mod messages;
pub mod queue;
mod random;
pub mod record;
mod scope;
pub mod setting;
mod token_index;
mod tokens;
mod users;
mod verify;
mod webhook_record;
mod webhooks;
pub mod writer;

pub use crate::app::NewToken;
pub use admin_tokens::{AdminCaller, AdminTokenRecord, CreatedAdminToken, NewAdminToken, Role};
pub use apps::{NewApp, Upserted};
pub use batch::Batch;
pub use created::{CreatedWithKey, KeyItems};
pub use error::StoreError;
pub use files::Missing;
pub use idempotency::Idempotency;
pub use keys::RemovedKeys;
pub use tokens::CreatedToken;
pub use users::{NewPassword, UserRecord};
pub use webhook_record::WebhookRecord;
pub use webhooks::check_webhook;

/// Checks the owner and modes of a data directory and its files as opening does, without changing anything.
///
/// # Errors
/// The errors of opening; [`StoreError::Missing`] and [`StoreError::Empty`] where there is no store yet.
pub fn check_directory(directory: &Path) -> Result<(), StoreError> {
    files::prepare(directory, Missing::Refuse)
}

/// The open store. Clones share it; LMDB is open once per process and directory.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    environment: Environment,
    /// Declared after the environment, so that the store is closed before the next server may open it.
    _serving: Option<ServeLock>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.file().display())
    }
}

impl Store {
    /// Opens the store for a short command, while a server may be running on it.
    pub fn open(directory: &Path, missing: Missing) -> Result<Self, StoreError> {
        Self::open_bounded(directory, missing, limits::STORE_BYTES_MAX)
    }

    /// Opens the store to serve from it, creating it if it is missing. A second server is refused until all clones of
    /// this store are dropped or the process ends.
    pub fn open_to_serve(directory: &Path) -> Result<Self, StoreError> {
        files::prepare(directory, Missing::Create)?;
        files::check_queue(directory)?;
        // Create both files before the lock: a lock without them shows that they were lost.
        Environment::<Tables>::make(directory, limits::STORE_BYTES_MAX)?;
        queue::Queue::make(directory)?;
        let serving = ServeLock::take(directory)?;
        let environment = Environment::open(directory, Missing::Create, limits::STORE_BYTES_MAX)?;
        Self::checked(Inner { environment, _serving: Some(serving) })
    }

    /// Like [`Store::open`] with another bound than [`limits::STORE_BYTES_MAX`], to test a full store.
    #[doc(hidden)]
    pub fn open_bounded(directory: &Path, missing: Missing, bytes_max: usize) -> Result<Self, StoreError> {
        let environment = Environment::open(directory, missing, bytes_max)?;
        Self::checked(Inner { environment, _serving: None })
    }

    fn checked(inner: Inner) -> Result<Self, StoreError> {
        let store = Self { inner: Arc::new(inner) };
        let found = store.environment().read(|transaction, tables| meta(transaction, tables, META_SCHEMA))?;
        if found > u64::from(SCHEMA) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(StoreError::Newer { path: store.file(), found, known: SCHEMA });
        }
        Ok(store)
    }

    /// The data file, for messages.
    pub fn file(&self) -> PathBuf {
        self.environment().file()
    }

    /// Number of changes that shards had to see, 0 for a new store.
    pub fn version(&self) -> Result<u64, StoreError> {
        self.environment().read(|transaction, tables| meta(transaction, tables, META_VERSION))
    }

    /// A snapshot of all apps and tokens, for the shards.
    pub fn directory(&self) -> Result<Directory, StoreError> {
        self.environment().read(|transaction, tables| {
            let version = meta(transaction, tables, META_VERSION)?;
            let apps = all_apps(transaction, tables)?;
            let apps = apps.iter().map(AppRecord::to_app).collect::<Result<_, _>>()?;
            let tokens = all_tokens(transaction, tables)?;
            let tokens = tokens.iter().map(TokenRecord::to_token).collect::<Result<_, _>>()?;
            let used = messages::all(transaction, tables)?;
            Ok(Directory::new(version, apps, tokens).with_messages_used(used))
        })
    }

    fn environment(&self) -> &Environment {
        &self.inner.environment
    }
}

const META_SCHEMA: &[u8] = b"schema";
const META_VERSION: &[u8] = b"version";
const META_NEXT_SERIAL: &[u8] = b"next_serial";
/// The version that the index of tokens belongs to.
const META_TOKEN_INDEX: &[u8] = b"token_index";

/// A number of the meta table; 0 if it was never written.
fn meta(transaction: &RoTxn<'_>, tables: &Tables, name: &[u8]) -> Result<u64, Fault> {
    let Some(bytes) = tables.meta.get(transaction, name)? else {
        return Ok(0);
    };
    let bytes = bytes.try_into().map_err(|_| Fault::Record("a number of the meta table is not 8 bytes".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Completes a change that shards must see, with a current index of tokens.
fn raise_version(transaction: &mut RwTxn<'_>, tables: &Tables) -> Result<(), Fault> {
    let version = meta(transaction, tables, META_VERSION)? + 1;
    tables.meta.put(transaction, META_VERSION, &version.to_be_bytes())?;
    tables.meta.put(transaction, META_TOKEN_INDEX, &version.to_be_bytes())?;
    tables.meta.put(transaction, META_SCHEMA, &u64::from(SCHEMA).to_be_bytes())?;
    Ok(())
}

fn all_apps(transaction: &RoTxn<'_>, tables: &Tables) -> Result<Vec<AppRecord>, Fault> {
    let mut apps = Vec::new();
    for entry in tables.apps.iter(transaction)? {
        apps.push(record::decode("an app", entry?.1)?);
    }
    Ok(apps)
}

fn all_tokens(transaction: &RoTxn<'_>, tables: &Tables) -> Result<Vec<TokenRecord>, Fault> {
    let mut tokens = Vec::new();
    for entry in tables.tokens.iter(transaction)? {
        tokens.push(record::decode("a token", entry?.1)?);
    }
    Ok(tokens)
}

/// Milliseconds since 1970, for records and commands.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::actor::Actor;

    /// A store that a newer Relay wrote is refused, with both numbers, instead of being misread.
    #[test]
    fn a_newer_schema_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let write = |schema: u64| {
            store.environment().write(|transaction, tables| {
                tables.meta.put(transaction, META_SCHEMA, &schema.to_be_bytes()).map_err(Fault::from)
            })
        };
        write(u64::from(SCHEMA) + 1).expect("written");
        drop(store);
        let error = Store::open(directory.path(), Missing::Refuse).expect_err("refused");
        assert!(matches!(error, StoreError::Newer { found, known: SCHEMA, .. } if found == SCHEMA + 1), "{error}");
    }

    /// R-AUTH-7: records do not print their secrets.
    #[test]
    fn records_hide_secrets() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let actor = Actor::cli(0);
        let app =
            store.create_app(&actor, NewApp { secret: Some("hunter2".into()), ..NewApp::default() }).expect("app");
        assert!(!format!("{app:?}").contains("hunter2"));
    }

    /// The tables that the first release created.
    #[derive(Clone, Copy)]
    struct OldTables;

    impl environment::TableSet for OldTables {
        const NAMES: &'static [&'static str] = &["apps", "app_ids", "keys", "tokens", "token_hashes", "meta"];

        fn new(_: &[environment::Table]) -> Self {
            Self
        }
    }

    /// Goal: a store of an older Relay opens, and a token that one adds later is found although it is not in the index of
    /// tokens. Method: a file with the old tables only; then a record in the old form, written as an older Relay does.
    #[test]
    fn stores_of_an_older_relay_open() {
        let directory = tempfile::tempdir().expect("directory");
        Environment::<OldTables>::make(directory.path(), limits::STORE_BYTES_MAX).expect("an old store");
        let store = Store::open(directory.path(), Missing::Refuse).expect("opens");
        let actor = Actor::cli(0);
        store.create_app(&actor, NewApp { id: Some("1".into()), ..NewApp::default() }).expect("app");
        let ids =
            || -> Vec<String> { store.tokens(Some("1")).expect("tokens").into_iter().map(|token| token.id).collect() };
        let old = |id: &str| {
            let record = format!(
                r#"{{"id":"{id}","hash":"{}","app":1,"name":"","scopes":[],"created_at_ms":1,"expires_at_ms":null,"last_used_at_ms":null,"revoked_at_ms":null}}"#,
                "00".repeat(32)
            );
            let written = store.environment().write(|transaction, tables| {
                tables.tokens.put(transaction, id.as_bytes(), record.as_bytes())?;
                let version = meta(transaction, tables, META_VERSION)? + 1;
                tables.meta.put(transaction, META_VERSION, &version.to_be_bytes()).map_err(Fault::from)
            });
            written.expect("written");
        };
        old("tok_old");
        assert_eq!(ids(), ["tok_old"]);
        let new = NewToken { app: "1".into(), name: String::new(), scopes: Vec::new(), expires_at_ms: None };
        let created = store.create_token(&actor, new).expect("token").record;
        assert_eq!(ids(), ["tok_old".to_owned(), created.id]);
        assert!(store.tokens(None).expect("tokens").iter().any(|token| token.created_by.is_none()));
        store.delete_app(&actor, "1").expect("deleted");
        assert!(store.tokens(None).expect("tokens").is_empty());
    }
}
