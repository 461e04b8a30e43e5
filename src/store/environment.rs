//! LMDB: opened once, its tables made once, every access one transaction. A commit is on disk when it returns
//! (fsync, no write map), so what was acknowledged survives `kill -9` and power loss.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};

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
}

const NAMES: [&str; 6] = ["apps", "app_ids", "keys", "tokens", "token_hashes", "meta"];

impl Tables {
    fn new([apps, app_ids, keys, tokens, token_hashes, meta]: [Table; 6]) -> Self {
        Self { apps, app_ids, keys, tokens, token_hashes, meta }
    }
}

/// The LMDB environment of one data directory.
pub(super) struct Environment {
    directory: PathBuf,
    map_bytes: usize,
    /// `None` only while it is being opened anew.
    opened: RwLock<Option<(Env<WithoutTls>, Tables)>>,
}

impl Environment {
    pub(super) fn open(directory: &Path, missing: Missing, map_bytes: usize) -> Result<Self, StoreError> {
        files::prepare(directory, missing)?;
        let opened = open(directory, map_bytes)?;
        files::hand_to_owner(directory)?;
        let (directory, opened) = (directory.to_path_buf(), RwLock::new(Some(opened)));
        Ok(Self { directory, map_bytes, opened })
    }

    /// The data file, for messages.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join(DATA_FILE)
    }

    /// Reads one consistent state.
    pub(super) fn read<T>(
        &self,
        body: impl FnOnce(&RoTxn<'_, WithoutTls>, &Tables) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.reopen_if_failed()?;
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let (env, tables) = opened.as_ref().ok_or_else(|| self.closed())?;
        let transaction = env.read_txn().map_err(|error| self.error(error.into()))?;
        body(&transaction, tables).map_err(|fault| self.error(fault))
    }

    /// Changes the store: all of it or, on any error, nothing.
    pub(super) fn write<T>(
        &self,
        body: impl FnOnce(&mut RwTxn<'_>, &Tables) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.reopen_if_failed()?;
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let (env, tables) = opened.as_ref().ok_or_else(|| self.closed())?;
        let mut transaction = env.write_txn().map_err(|error| self.error(error.into()))?;
        let value = body(&mut transaction, tables).map_err(|fault| self.error(fault))?;
        transaction.commit().map_err(|error| self.error(error.into()))?;
        Ok(value)
    }

    /// After a failed write of its meta page LMDB refuses everything in this process. The disk may be well again:
    /// opening anew finds out, so that a passing fault does not last until the next restart.
    fn reopen_if_failed(&self) -> Result<(), StoreError> {
        let refuses = |opened: &Option<(Env<WithoutTls>, Tables)>| match opened {
            None => true,
            Some((env, _)) => matches!(env.read_txn(), Err(heed::Error::Mdb(MdbError::Panic))),
        };
        if !refuses(&self.opened.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if refuses(&opened) {
            *opened = None;
            *opened = Some(open(&self.directory, self.map_bytes)?);
        }
        Ok(())
    }

    fn closed(&self) -> StoreError {
        Fault::Record("it could not be opened again".into()).at(&self.file())
    }

    fn error(&self, fault: Fault) -> StoreError {
        fault.at(&self.file())
    }
}

fn open(directory: &Path, map_bytes: usize) -> Result<(Env<WithoutTls>, Tables), StoreError> {
    let file = directory.join(DATA_FILE);
    let failed = |error: heed::Error| Fault::from(error).at(&file);
    verify::verify(&file)?;
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_readers(limits::STORE_READERS_MAX).max_dbs(NAMES.len() as u32);
    // SAFETY: the map of the data file stays valid as long as nobody changes the file but LMDB itself. The file is
    // 0600 in a directory that no other user can write (`files::prepare`), its pages are there and of the right form
    // (`verify`), and Relay's processes change it through LMDB only, with its locks on: no flag such as NO_LOCK,
    // NO_SYNC or WRITEMAP is set.
    #[allow(unsafe_code)]
    let env = unsafe { options.open(directory) }.map_err(failed)?;
    env.clear_stale_readers().map_err(failed)?;
    let tables = match existing_tables(&env).map_err(failed)? {
        Some(tables) => tables,
        None => create_tables(&env).map_err(failed)?,
    };
    Ok((env, tables))
}

/// The tables if all exist: opening a store costs no write.
fn existing_tables(env: &Env<WithoutTls>) -> Result<Option<Tables>, heed::Error> {
    let transaction = env.read_txn()?;
    let opened = env.open_databases_and_commit(transaction, |opener, transaction| {
        let mut tables = Vec::with_capacity(NAMES.len());
        for name in NAMES {
            match opener.open_database::<Bytes, Bytes>(transaction, Some(name))? {
                Some(table) => tables.push(table),
                None => return Ok(CommitOrAbort::Abort(())),
            }
        }
        let tables: [_; 6] = tables.try_into().expect("one table per name");
        Ok::<_, heed::Error>(CommitOrAbort::Commit(tables))
    })?;
    Ok(opened.commit().map(Tables::new))
}

fn create_tables(env: &Env<WithoutTls>) -> Result<Tables, heed::Error> {
    let transaction = env.write_txn()?;
    let created = env.create_databases_and_commit(transaction, |opener, transaction| {
        let mut tables = Vec::with_capacity(NAMES.len());
        for name in NAMES {
            tables.push(opener.create_database::<Bytes, Bytes>(transaction, Some(name))?);
        }
        let tables: [_; 6] = tables.try_into().expect("one table per name");
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    Ok(Tables::new(created.commit().expect("never aborted above")))
}
