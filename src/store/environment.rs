//! LMDB: opened once, its tables created once, one transaction per access. A commit is on disk when it returns (fsync,
//! no write map), so acknowledged changes survive `kill -9` and power loss.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use heed::types::Bytes;
use heed::{CommitOrAbort, CommitToken, Database, Env, EnvOpenOptions, MdbError, OnCommit, RoTxn, RwTxn, WithoutTls};

use super::error::{Fault, StoreError};
use super::files::{self, DATA_FILE, Missing};
use super::verify;
use crate::limits;

pub(super) type Table = Database<'static, Bytes, Bytes>;

/// The tables of the store.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    /// Serial (u32, big endian) -> `AppRecord` in JSON.
    pub(super) apps: Table,
    /// App id -> serial.
    pub(super) app_ids: Table,
    /// App key -> serial: keys are unique in the store.
    pub(super) keys: Table,
    /// Token id -> `TokenRecord` in JSON.
    pub(super) tokens: Table,
    /// SHA-256 of the token -> token id.
    pub(super) token_hashes: Table,
    /// Schema, version, next serial.
    pub(super) meta: Table,
    /// Serial of the app and token id -> nothing.
    pub(super) app_tokens: Table,
    /// Id -> `AdminTokenRecord` in JSON.
    pub(super) admin_tokens: Table,
    /// SHA-256 of the admin token -> its id.
    pub(super) admin_token_hashes: Table,
    /// Name -> `UserRecord` in JSON.
    pub(super) users: Table,
    /// Hash of credential, route and key -> time, hash of the body, id of the record.
    pub(super) idempotency: Table,
    /// Number (u64, big endian) -> `AuditEntry` in JSON: changes of settings.
    pub(super) audit: Table,
    /// The same: changes of credentials and roles.
    pub(super) audit_credentials: Table,
    /// The same: changes that apps made with their own credentials.
    pub(super) audit_apps: Table,
}

/// The tables of one data file.
pub(super) trait TableSet: Copy {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Builds the set from one table per name, in the order of the names.
    fn new(tables: &[Table]) -> Self;
}

impl TableSet for Tables {
    const NAMES: &'static [&'static str] = &[
        "apps",
        "app_ids",
        "keys",
        "tokens",
        "token_hashes",
        "meta",
        "app_tokens",
        "admin_tokens",
        "admin_token_hashes",
        "users",
        "idempotency",
        "audit",
        "audit_credentials",
        "audit_apps",
    ];

    fn new(tables: &[Table]) -> Self {
        let [
            apps,
            app_ids,
            keys,
            tokens,
            token_hashes,
            meta,
            app_tokens,
            admin_tokens,
            admin_token_hashes,
            users,
            idempotency,
            audit,
            audit_credentials,
            audit_apps,
        ] = tables.try_into().expect("there is one table per name");
        Self {
            apps,
            app_ids,
            keys,
            tokens,
            token_hashes,
            meta,
            app_tokens,
            admin_tokens,
            admin_token_hashes,
            users,
            idempotency,
            audit,
            audit_credentials,
            audit_apps,
        }
    }
}

/// Tables opened in a transaction; they are valid beyond it once it is committed.
struct Opened<D>(Vec<D>);

impl<D: OnCommit> OnCommit for Opened<D> {
    type Committed = Vec<D::Committed>;

    fn on_commit(self, token: &CommitToken) -> Self::Committed {
        self.0.into_iter().map(|table| table.on_commit(token)).collect()
    }
}

/// The LMDB environment of one data directory.
pub(super) struct Environment<T = Tables> {
    directory: PathBuf,
    map_bytes: usize,
    /// `None` only while it is being reopened.
    opened: RwLock<Option<(Env<WithoutTls>, T)>>,
}

impl<T: TableSet> Environment<T> {
    pub(super) fn open(directory: &Path, missing: Missing, map_bytes: usize) -> Result<Self, StoreError> {
        files::prepare(directory, missing)?;
        Self::make(directory, map_bytes)?;
        let opened = open(directory, map_bytes, New::No)?;
        files::hand_to_owner(directory)?;
        let (directory, opened) = (directory.to_path_buf(), RwLock::new(Some(opened)));
        Ok(Self { directory, map_bytes, opened })
    }

    /// Creates the data file if it is missing, and the directory. This is atomic, so a file of 0 bytes is never one
    /// that a killed start was creating (R-PROC-4).
    pub(super) fn make(directory: &Path, map_bytes: usize) -> Result<(), StoreError> {
        files::prepare(directory, Missing::Create)?;
        if files::has_data(directory) {
            return Ok(());
        }
        let part = files::make_part(directory)?;
        drop(open::<T>(&part, map_bytes, New::Yes)?);
        files::install(&part, directory)
    }

    /// The data file, for messages.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join(DATA_FILE)
    }

    /// Reads one consistent state.
    pub(super) fn read<V>(
        &self,
        body: impl FnOnce(&RoTxn<'_, WithoutTls>, &T) -> Result<V, Fault>,
    ) -> Result<V, StoreError> {
        self.reopen_if_failed()?;
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let (env, tables) = opened.as_ref().ok_or_else(|| self.closed())?;
        let transaction = env.read_txn().map_err(|error| self.error(error.into()))?;
        body(&transaction, tables).map_err(|fault| self.error(fault))
    }

    /// Changes the store: applies all of `body` or, on any error, nothing.
    pub(super) fn write<V>(&self, body: impl FnOnce(&mut RwTxn<'_>, &T) -> Result<V, Fault>) -> Result<V, StoreError> {
        self.reopen_if_failed()?;
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let (env, tables) = opened.as_ref().ok_or_else(|| self.closed())?;
        let mut transaction = env.write_txn().map_err(|error| self.error(error.into()))?;
        let value = body(&mut transaction, tables).map_err(|fault| self.error(fault))?;
        transaction.commit().map_err(|error| self.error(error.into()))?;
        Ok(value)
    }

    /// After a failed write of its meta page LMDB refuses every operation in this process. The disk may have recovered:
    /// reopening checks that, so that a transient fault does not last until the next restart.
    fn reopen_if_failed(&self) -> Result<(), StoreError> {
        let refuses = |opened: &Option<(Env<WithoutTls>, T)>| match opened {
            None => true,
            Some((env, _)) => matches!(env.read_txn(), Err(heed::Error::Mdb(MdbError::Panic))),
        };
        if !refuses(&self.opened.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if refuses(&opened) {
            *opened = None;
            *opened = Some(open(&self.directory, self.map_bytes, New::No)?);
        }
        Ok(())
    }

    fn closed(&self) -> StoreError {
        Fault::Record("the new file could not be opened".into()).at(&self.file())
    }

    fn error(&self, fault: Fault) -> StoreError {
        fault.at(&self.file())
    }
}

/// Whether a data file is being created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum New {
    Yes,
    No,
}

fn open<T: TableSet>(directory: &Path, map_bytes: usize, new: New) -> Result<(Env<WithoutTls>, T), StoreError> {
    let file = directory.join(DATA_FILE);
    let failed = |error: heed::Error| Fault::from(error).at(&file);
    verify::verify(&file)?;
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_readers(limits::STORE_READERS_MAX).max_dbs(T::NAMES.len() as u32);
    let opening = files::OpenLock::take(directory)?;
    // SAFETY: the map of the data file stays valid as long as only LMDB changes the file. The file is 0600 in a
    // directory that no other user can write (`files::prepare`), its pages exist and are well formed (`verify`), and
    // Relay's processes change it through LMDB only, with its locks on: no flag such as NO_LOCK, NO_SYNC or WRITEMAP is
    // set.
    #[allow(unsafe_code)]
    let env = unsafe { options.open(directory) }.map_err(failed)?;
    drop(opening);
    env.clear_stale_readers().map_err(failed)?;
    let (tables, found) = existing_tables(&env).map_err(failed)?;
    let tables = match tables {
        Some(tables) => tables,
        // An older Relay may have created fewer tables.
        None if new == New::Yes || found > 0 => create_tables(&env).map_err(failed)?,
        // The file is well formed but belongs to another program: with our tables in it, it would look like a store
        // without apps (R-PROC-4).
        None => {
            let detail = format!("it has none of the tables {}", T::NAMES.join(", "));
            return Err(StoreError::Corrupt { path: file, detail });
        }
    };
    Ok((env, tables))
}

/// Returns the tables if all exist, so that opening a store needs no write, and how many exist.
fn existing_tables<T: TableSet>(env: &Env<WithoutTls>) -> Result<(Option<T>, usize), heed::Error> {
    let transaction = env.read_txn()?;
    let mut found = 0;
    let opened = env.open_databases_and_commit(transaction, |opener, transaction| {
        let mut tables = Vec::with_capacity(T::NAMES.len());
        for name in T::NAMES {
            tables.extend(opener.open_database::<Bytes, Bytes>(transaction, Some(name))?);
        }
        found = tables.len();
        let all = found == T::NAMES.len();
        Ok::<_, heed::Error>(if all { CommitOrAbort::Commit(Opened(tables)) } else { CommitOrAbort::Abort(()) })
    })?;
    Ok((opened.commit().map(|tables| T::new(&tables)), found))
}

fn create_tables<T: TableSet>(env: &Env<WithoutTls>) -> Result<T, heed::Error> {
    let transaction = env.write_txn()?;
    let created = env.create_databases_and_commit(transaction, |opener, transaction| {
        let mut tables = Vec::with_capacity(T::NAMES.len());
        for name in T::NAMES {
            tables.push(opener.create_database::<Bytes, Bytes>(transaction, Some(name))?);
        }
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(Opened(tables)))
    })?;
    Ok(T::new(&created.commit().expect("never aborted above")))
}
