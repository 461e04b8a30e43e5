//! Many changes in one transaction: all of them or none, with one commit. Each commit waits for the disk and makes a
//! running server read the complete store, so committing each change separately would cost both once per app.

use std::path::{Path, PathBuf};

use heed::RwTxn;
use ipnet::IpNet;

use super::environment::Tables;
use super::error::{Fault, StoreError};
use super::record::AppRecord;
use super::webhooks::check_webhook;
use super::{Store, Upserted, apps, raise_version, webhooks};
use crate::app::AppSettings;
use crate::app::webhook::NewWebhook;

/// A transaction in progress.
pub struct Batch<'a, 't> {
    transaction: &'a mut RwTxn<'t>,
    tables: &'a Tables,
    file: PathBuf,
    changed: bool,
}

impl Store {
    /// Applies the changes of `body` with one commit. After an error, none of them has been applied.
    pub fn change_all<V>(
        &self,
        body: impl FnOnce(&mut Batch<'_, '_>) -> Result<V, StoreError>,
    ) -> Result<V, StoreError> {
        self.environment().write(|transaction, tables| {
            let mut batch = Batch { transaction, tables, file: self.file(), changed: false };
            let value = body(&mut batch)?;
            let changed = batch.changed;
            if changed {
                raise_version(transaction, tables)?;
            }
            Ok(value)
        })
    }
}

impl Batch<'_, '_> {
    /// As [`Store::upsert_app`].
    pub fn upsert_app(
        &mut self,
        id: &str,
        key: &str,
        secret: &str,
        settings: AppSettings,
    ) -> Result<Upserted, StoreError> {
        let done = apps::upsert(self.transaction, self.tables, (id, key, secret), settings);
        let done = at(&self.file, done)?;
        self.changed |= done != Upserted::Same;
        Ok(done)
    }

    /// As [`Store::change_app`].
    pub fn change_app(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut AppRecord) -> Result<(), StoreError>,
    ) -> Result<AppRecord, StoreError> {
        let (app, changed) = at(&self.file, apps::change(self.transaction, self.tables, id, change))?;
        self.changed |= changed;
        Ok(app)
    }

    /// As [`Store::upsert_webhook`].
    pub fn upsert_webhook(&mut self, app: &str, new: NewWebhook, allowed: &[IpNet]) -> Result<Upserted, StoreError> {
        check_webhook(&new, allowed)?;
        let done = at(&self.file, webhooks::upsert(self.transaction, self.tables, app, new))?;
        self.changed |= done != Upserted::Same;
        Ok(done)
    }
}

fn at<V>(file: &Path, result: Result<V, Fault>) -> Result<V, StoreError> {
    result.map_err(|fault| fault.at(file))
}
