//! Changes in one transaction: all of them or none, with one commit, and with their entries of the audit log. Each
//! commit waits for the disk and makes a running server read the complete store, so committing each change of an import
//! separately would cost both once per app.
//!
//! Every change of the store is a method of [`Batch`], in the file of its subject; a method of [`Store`] with the same
//! name makes that change alone.

use std::path::PathBuf;

use heed::RwTxn;

use super::audit::{self, AuditAction, Note};
use super::environment::Tables;
use super::error::{Fault, StoreError};
use super::record::{self, AppRecord};
use super::{META_VERSION, Store, meta, raise_version, token_index, unix_ms};
use crate::app::actor::Actor;

/// A transaction in progress, on behalf of an actor.
pub struct Batch<'a, 't> {
    pub(super) transaction: &'a mut RwTxn<'t>,
    pub(super) tables: &'a Tables,
    pub(super) actor: &'a Actor,
    pub(super) now_ms: u64,
    /// The store's version once this is committed: the revision of the apps that it changes.
    pub(super) revision: u64,
    file: PathBuf,
    is_for_shards: bool,
    notes: Vec<Note>,
}

impl Store {
    /// Applies the changes of `body` with one commit. After an error, none of them has been applied.
    pub fn change_all<V>(
        &self,
        actor: &Actor,
        body: impl FnOnce(&mut Batch<'_, '_>) -> Result<V, StoreError>,
    ) -> Result<V, StoreError> {
        self.commit(actor, body, |notes| notes)
    }

    /// Like [`Store::change_all`] with one entry in the audit log, which counts the changes. `source` is the origin of
    /// the apps.
    pub fn import<V>(
        &self,
        actor: &Actor,
        source: &str,
        body: impl FnOnce(&mut Batch<'_, '_>) -> Result<V, StoreError>,
    ) -> Result<V, StoreError> {
        self.commit(actor, body, |notes| audit::summary(source, &notes))
    }

    /// Writes an entry about an action of an operator that changes nothing in the store, such as showing a secret.
    pub fn note(&self, actor: &Actor, action: AuditAction, app: &str, subject: &str) -> Result<(), StoreError> {
        self.change_all(actor, |batch| {
            batch.note(Note::new(action).app(app).subject(subject));
            Ok(())
        })
    }

    /// The same with fields that describe the action; empty ones are left out.
    pub fn note_with(
        &self,
        actor: &Actor,
        action: AuditAction,
        app: &str,
        fields: &[(&str, &str)],
    ) -> Result<(), StoreError> {
        self.change_all(actor, |batch| {
            let note = Note::new(action).app(app);
            batch.note(fields.iter().fold(note, |note, (field, value)| note.with(field, value)));
            Ok(())
        })
    }

    fn commit<V>(
        &self,
        actor: &Actor,
        body: impl FnOnce(&mut Batch<'_, '_>) -> Result<V, StoreError>,
        entries: impl FnOnce(Vec<Note>) -> Vec<Note>,
    ) -> Result<V, StoreError> {
        self.environment().write(|transaction, tables| {
            token_index::repair(transaction, tables)?;
            let revision = meta(transaction, tables, META_VERSION)? + 1;
            let (file, now_ms) = (self.file(), unix_ms());
            let mut batch =
                Batch { transaction, tables, actor, now_ms, revision, file, is_for_shards: false, notes: Vec::new() };
            let value = body(&mut batch)?;
            let Batch { is_for_shards, notes, .. } = batch;
            if is_for_shards {
                raise_version(transaction, tables)?;
            }
            audit::write(transaction, tables, actor, now_ms, entries(notes))?;
            Ok(value)
        })
    }
}

impl Batch<'_, '_> {
    /// Refuses the rest of the batch unless the app still has this revision (threat T52). Other writers wait meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Stale`] with the app's revision.
    pub fn expect_revision(&mut self, id: &str, revision: u64) -> Result<(), StoreError> {
        let found = self.app(id)?.revision;
        if found == revision { Ok(()) } else { Err(StoreError::Stale { app: id.into(), found }) }
    }

    /// Adds an entry of the audit log.
    pub(super) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Writes a changed or new app, with its new revision.
    pub(super) fn put_app(&mut self, app: &mut AppRecord) -> Result<(), Fault> {
        app.revision = self.revision;
        self.tables.apps.put(self.transaction, &app.serial.to_be_bytes(), &record::encode(app))?;
        self.mark_for_shards();
        Ok(())
    }

    /// Records that shards must see this transaction.
    pub(super) fn mark_for_shards(&mut self) {
        self.is_for_shards = true;
    }

    /// The error as the caller sees it.
    pub(super) fn at<V>(&self, result: Result<V, Fault>) -> Result<V, StoreError> {
        result.map_err(|fault| fault.at(&self.file))
    }
}
