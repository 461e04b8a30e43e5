//! Messages that apps with a quota published on one day (R-LIM-3), so that a restart does not reset the count. They are
//! in the meta table: one entry of 12 bytes per app.

use std::collections::BTreeMap;

use heed::{RoTxn, RwTxn};

use super::Store;
use super::environment::Tables;
use super::error::{Fault, StoreError};
use crate::app::{AppSerial, MessagesUsed};

const PREFIX: &[u8] = b"messages/";

impl Store {
    /// Writes how many messages apps have published, in one commit. Apps that no longer exist are skipped. The version
    /// does not change: a running server knows its own counts.
    pub fn record_messages_used(&self, used: &BTreeMap<AppSerial, MessagesUsed>) -> Result<(), StoreError> {
        self.environment().write(|transaction, tables| {
            for (app, MessagesUsed { day, messages }) in used {
                if tables.apps.get(transaction, &app.0.to_be_bytes())?.is_some() {
                    let value = [&day.to_be_bytes()[..], &messages.to_be_bytes()].concat();
                    tables.meta.put(transaction, &key(app.0), &value)?;
                }
            }
            Ok(())
        })
    }
}

/// All entries.
pub(super) fn all(transaction: &RoTxn<'_>, tables: &Tables) -> Result<Vec<(AppSerial, MessagesUsed)>, Fault> {
    let mut all = Vec::new();
    for entry in tables.meta.prefix_iter(transaction, PREFIX)? {
        let (key, value) = entry?;
        all.push(decode(key, value).ok_or_else(|| Fault::Record("the record of an app's messages is invalid".into()))?);
    }
    Ok(all)
}

/// Removes the entry of an app.
pub(super) fn remove(transaction: &mut RwTxn<'_>, tables: &Tables, serial: u32) -> Result<(), Fault> {
    tables.meta.delete(transaction, &key(serial))?;
    Ok(())
}

fn key(serial: u32) -> Vec<u8> {
    [PREFIX, &serial.to_be_bytes()].concat()
}

pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<(AppSerial, MessagesUsed)> {
    let serial = key.strip_prefix(PREFIX)?.try_into().ok()?;
    let (day, messages) = value.split_first_chunk()?;
    let used = MessagesUsed { day: u64::from_be_bytes(*day), messages: u32::from_be_bytes(messages.try_into().ok()?) };
    Some((AppSerial(u32::from_be_bytes(serial)), used))
}

#[cfg(test)]
mod tests {
    use super::super::{Missing, NewApp};
    use super::*;
    use crate::app::actor::Actor;

    /// R-LIM-3: counts are read back into the directory, replaced by newer ones, and removed with their app.
    #[test]
    fn figures_are_kept() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let app = store.create_app(&Actor::cli(0), NewApp::default()).expect("an app");
        let serial = AppSerial(app.serial);
        assert_eq!(store.directory().expect("reads").messages_used(serial), None);
        let version = store.version().expect("reads");
        for messages in [7, 9] {
            let used = MessagesUsed { day: 20_000, messages };
            let both = BTreeMap::from([(serial, used), (AppSerial(77), used)]);
            store.record_messages_used(&both).expect("written");
            let read = store.directory().expect("reads");
            assert_eq!((read.messages_used(serial), read.messages_used(AppSerial(77))), (Some(used), None));
        }
        assert_eq!(store.version().expect("reads"), version, "no verdict of a running server depends on it");
        store.delete_app(&Actor::cli(0), &app.id).expect("deleted");
        assert_eq!(store.directory().expect("reads").messages_used(serial), None);
    }
}
