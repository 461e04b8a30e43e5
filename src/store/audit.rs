//! The audit log (R-ADMIN-4, threat T50): who changed what, when and from where. An entry is written in the transaction
//! of its change, so there is one if and only if the change was made.
//!
//! There are three parts, each with its own bound, beyond which its oldest entries are removed: changes of settings;
//! changes of credentials and roles, which no number of settings can push out; and the changes that apps make with
//! their own credentials, where the app with the most entries loses its oldest, so that no app pushes out another's.

use std::collections::BTreeMap;

use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::environment::{Table, Tables};
use super::error::{Fault, StoreError};
use super::{Store, meta, record};
use crate::app::actor::Actor;
use crate::label::{Label, labels};
use crate::limits;
use crate::metrics::refusal_log::printable;

labels! {
    /// The action of an entry.
    pub enum AuditAction {
        /// An app was created, with its first key pair.
        AppCreate => "app.create",
        /// The name, a setting or the state of an app was changed.
        AppChange => "app.change",
        /// An app was removed, with its keys, tokens and webhook endpoints.
        AppDelete => "app.delete",
        /// Apps were imported in one commit: one entry for all of them.
        AppsImport => "apps.import",
        /// A key pair was added.
        KeyCreate => "key.create",
        /// The secret of a key was replaced.
        KeyChange => "key.change",
        /// A key pair was removed.
        KeyRemove => "key.remove",
        /// A secret of an app other than a key's was replaced or removed.
        SecretChange => "secret.change",
        /// A secret was shown after its creation.
        SecretReveal => "secret.reveal",
        /// An app token was created.
        TokenCreate => "token.create",
        /// An app token was revoked.
        TokenRevoke => "token.revoke",
        /// An app token was replaced by a new one with the same name, scopes and expiry.
        TokenRotate => "token.rotate",
        /// A webhook endpoint was created.
        WebhookCreate => "webhook.create",
        /// A webhook endpoint was changed, enabled or disabled.
        WebhookChange => "webhook.change",
        /// A webhook endpoint was removed.
        WebhookRemove => "webhook.remove",
        /// An admin token was created.
        AdminTokenCreate => "admin_token.create",
        /// An admin token was revoked.
        AdminTokenRevoke => "admin_token.revoke",
        /// A user was created, with a password.
        UserCreate => "user.create",
        /// The password or role of a user was changed.
        UserChange => "user.change",
        /// A user was removed.
        UserRemove => "user.remove",
        /// Events were published by an operator.
        EventsPublish => "events.publish",
        /// Events of an app were replayed by an operator.
        EventsReplay => "events.replay",
        /// A refused request was explained to an operator.
        RequestExplain => "request.explain",
    }
}

/// The value that is recorded in place of a secret.
const SECRET: &str = "changed";

/// One entry. Its texts contain no control characters: they were escaped when they were written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Its number, ascending over all parts; part of the key and not of the record.
    #[serde(skip)]
    pub number: u64,
    /// When, unix ms.
    pub at_ms: u64,
    /// The kind of the actor's credential: the label of an [`ActorKind`](crate::app::actor::ActorKind).
    pub actor: String,
    /// The public name of the credential.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor_id: String,
    /// The actor's address, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The label of an [`AuditAction`].
    pub action: String,
    /// Id of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Id of the token, endpoint or user, or the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The fields that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<AuditChange>,
}

/// A field with its old and new value. A secret has no old value, and `changed` as its new one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuditChange {
    /// Its name.
    pub field: String,
    /// The value before, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value after, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// `name: "a" -> "b"`; a missing side is left out.
impl std::fmt::Display for AuditChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { field, from, to } = self;
        match (from, to) {
            (Some(from), Some(to)) => write!(f, "{field}: {from} -> {to}"),
            (Some(from), None) => write!(f, "{field}: {from} ->"),
            (None, Some(to)) => write!(f, "{field}: {to}"),
            (None, None) => write!(f, "{field}"),
        }
    }
}

/// An entry that a transaction will write.
#[derive(Debug)]
pub(super) struct Note {
    action: AuditAction,
    app: Option<String>,
    subject: Option<String>,
    changes: Vec<AuditChange>,
}

impl Note {
    pub(super) fn new(action: AuditAction) -> Self {
        Self { action, app: None, subject: None, changes: Vec::new() }
    }

    pub(super) fn app(self, id: &str) -> Self {
        Self { app: Some(printable(id)), ..self }
    }

    pub(super) fn subject(self, id: &str) -> Self {
        Self { subject: Some(printable(id)), ..self }
    }

    /// Records a field with the values before and after.
    pub(super) fn change(mut self, field: &str, from: Option<&str>, to: Option<&str>) -> Self {
        let (from, to) = (from.map(printable), to.map(printable));
        self.changes.push(AuditChange { field: printable(field), from, to });
        self
    }

    /// Records a field of something new. An empty value is left out.
    pub(super) fn with(self, field: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.change(field, None, Some(value)) }
    }

    /// Records that a secret changed, without a value.
    pub(super) fn secret(self, field: &str) -> Self {
        self.change(field, None, Some(SECRET))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn is_about_credentials(&self) -> bool {
        match self.action {
            AuditAction::AppChange
            | AuditAction::WebhookChange
            | AuditAction::EventsPublish
            | AuditAction::EventsReplay
            | AuditAction::RequestExplain => false,
            AuditAction::AppCreate
            | AuditAction::AppDelete
            | AuditAction::AppsImport
            | AuditAction::KeyCreate
            | AuditAction::KeyChange
            | AuditAction::KeyRemove
            | AuditAction::SecretChange
            | AuditAction::SecretReveal
            | AuditAction::TokenCreate
            | AuditAction::TokenRevoke
            | AuditAction::TokenRotate
            | AuditAction::WebhookCreate
            | AuditAction::WebhookRemove
            | AuditAction::AdminTokenCreate
            | AuditAction::AdminTokenRevoke
            | AuditAction::UserCreate
            | AuditAction::UserChange
            | AuditAction::UserRemove => true,
        }
    }
}

/// One entry for all notes of an import: how many there are of each action.
pub(super) fn summary(source: &str, notes: &[Note]) -> Vec<Note> {
    if notes.is_empty() {
        return Vec::new();
    }
    let mut counts: BTreeMap<AuditAction, usize> = BTreeMap::new();
    for note in notes {
        *counts.entry(note.action).or_default() += 1;
    }
    let start = Note::new(AuditAction::AppsImport).subject(source);
    vec![counts.into_iter().fold(start, |note, (action, count)| note.with(action.label(), &count.to_string()))]
}

/// Which entries to read.
#[derive(Clone, Copy, Debug)]
pub struct AuditQuery<'a> {
    /// Only entries with a lower number.
    pub before: Option<u64>,
    /// Only entries about this app.
    pub app: Option<&'a str>,
    /// At most this many.
    pub limit: usize,
}

impl Store {
    /// The newest entries of the audit log, the newest first.
    pub fn audit(&self, query: AuditQuery<'_>) -> Result<Vec<AuditEntry>, StoreError> {
        self.environment().read(|transaction, tables| {
            let mut entries = Vec::new();
            for part in parts(tables) {
                entries.extend(newest_of(transaction, part, query)?);
            }
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.number));
            entries.truncate(query.limit);
            Ok(entries)
        })
    }

    /// The number that the next entry gets.
    pub(super) fn audit_position(&self) -> Result<u64, StoreError> {
        self.environment().read(|transaction, tables| meta(transaction, tables, META_NEXT))
    }

    /// The oldest entries from this number on, at most `limit`, and the number after the newest entry.
    pub(super) fn audit_since(&self, number: u64, limit: usize) -> Result<(Vec<AuditEntry>, u64), StoreError> {
        self.environment().read(|transaction, tables| {
            let mut entries = Vec::new();
            for part in parts(tables) {
                let start = number.to_be_bytes();
                let range = (std::ops::Bound::Included(&start[..]), std::ops::Bound::Unbounded);
                for entry in part.range(transaction, &range)?.take(limit) {
                    let (key, value) = entry?;
                    entries.push(decode(key, value)?);
                }
            }
            entries.sort_by_key(|entry| entry.number);
            entries.truncate(limit);
            Ok((entries, meta(transaction, tables, META_NEXT)?))
        })
    }
}

const META_NEXT: &[u8] = b"audit_next";

fn parts(tables: &Tables) -> [Table; 3] {
    [tables.audit, tables.audit_credentials, tables.audit_apps]
}

fn newest_of(transaction: &RoTxn<'_>, part: Table, query: AuditQuery<'_>) -> Result<Vec<AuditEntry>, Fault> {
    let end = query.before.unwrap_or(u64::MAX).to_be_bytes();
    let range = (std::ops::Bound::Unbounded, std::ops::Bound::Excluded(&end[..]));
    let mut entries = Vec::new();
    for entry in part.rev_range(transaction, &range)? {
        if entries.len() == query.limit {
            break;
        }
        let (key, value) = entry?;
        let entry = decode(key, value)?;
        if query.app.is_none_or(|app| entry.app.as_deref() == Some(app)) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn decode(key: &[u8], value: &[u8]) -> Result<AuditEntry, Fault> {
    let number = key.try_into().map_err(|_| Fault::Record("the number of an audit entry is not 8 bytes".into()))?;
    Ok(AuditEntry { number: u64::from_be_bytes(number), ..record::decode("an audit entry", value)? })
}

/// Writes the entries and removes the oldest beyond the bounds.
pub(super) fn write(
    transaction: &mut RwTxn<'_>,
    tables: &Tables,
    actor: &Actor,
    at_ms: u64,
    notes: Vec<Note>,
) -> Result<(), Fault> {
    let mut number = meta(transaction, tables, META_NEXT)?;
    for note in notes {
        let (part, most) = match (actor.is_of_app(), note.is_about_credentials()) {
            (true, _) => (tables.audit_apps, limits::AUDIT_APP_ENTRIES_MAX),
            (false, true) => (tables.audit_credentials, limits::AUDIT_CREDENTIAL_ENTRIES_MAX),
            (false, false) => (tables.audit, limits::AUDIT_ENTRIES_MAX),
        };
        let entry = AuditEntry {
            number,
            at_ms,
            actor: actor.kind.label().into(),
            actor_id: printable(&actor.id),
            address: actor.address.map(|address| address.to_string()),
            action: note.action.label().into(),
            app: note.app,
            subject: note.subject,
            changes: note.changes,
        };
        part.put(transaction, &number.to_be_bytes(), &record::encode(&entry))?;
        if part.len(transaction)? > most {
            let oldest =
                if actor.is_of_app() { oldest_of_largest(transaction, part)? } else { oldest(transaction, part)? };
            part.delete(transaction, &oldest)?;
        }
        number += 1;
        tables.meta.put(transaction, META_NEXT, &number.to_be_bytes())?;
    }
    Ok(())
}

fn oldest(transaction: &RoTxn<'_>, part: Table) -> Result<Vec<u8>, Fault> {
    Ok(part.first(transaction)?.map(|(key, _)| key.to_vec()).unwrap_or_default())
}

/// The oldest entry of the app with the most entries.
fn oldest_of_largest(transaction: &RoTxn<'_>, part: Table) -> Result<Vec<u8>, Fault> {
    let mut apps: BTreeMap<Option<String>, (usize, Vec<u8>)> = BTreeMap::new();
    for entry in part.iter(transaction)? {
        let (key, value) = entry?;
        let OfApp { app } = record::decode("an audit entry", value)?;
        apps.entry(app).or_insert_with(|| (0, key.to_vec())).0 += 1;
    }
    let largest = apps.into_values().max_by(|(a, first), (b, second)| a.cmp(b).then(second.cmp(first)));
    Ok(largest.map(|(_, oldest)| oldest).unwrap_or_default())
}

/// The part of an entry that decides whose it is.
#[derive(Deserialize)]
struct OfApp {
    #[serde(default)]
    app: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Missing;

    /// Goal (R-ADMIN-4): the server reads entries that other processes wrote, from all parts in the order of their
    /// numbers, at most so many at once, and learns how many there are.
    #[test]
    fn new_entries_are_read_in_order() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let start = store.audit_position().expect("reads");
        assert_eq!(store.audit_since(start, 10).expect("reads"), (Vec::new(), start));
        let actions = [AuditAction::SecretReveal, AuditAction::EventsPublish, AuditAction::SecretReveal];
        for action in actions {
            store.note(&Actor::cli(0), action, "1", "x").expect("noted");
        }
        let numbers = |limit| {
            let (entries, next) = store.audit_since(start + 1, limit).expect("reads");
            (entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), next)
        };
        assert_eq!(numbers(10), (vec![start + 1, start + 2], start + 3));
        assert_eq!(numbers(1), (vec![start + 1], start + 3));
    }
}
