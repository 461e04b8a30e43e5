//! Finding an app by its id or serial, and a value that no record has.

use heed::RoTxn;

use super::environment::{Table, Tables};
use super::error::{Fault, StoreError};
use super::record::{self, AppRecord, check_id};

/// The app with this id, or [`StoreError::UnknownApp`].
pub(super) fn app_by_id(transaction: &RoTxn<'_>, tables: &Tables, id: &str) -> Result<AppRecord, Fault> {
    // LMDB refuses keys that are empty or too long instead of not finding them.
    let unknown = || Fault::Store(StoreError::UnknownApp(id.into()));
    check_id(id).map_err(|_| unknown())?;
    let serial = tables.app_ids.get(transaction, id.as_bytes())?.ok_or_else(unknown)?;
    let damaged = || Fault::Record(format!("app {id} is listed but has no record"));
    record::decode("an app", tables.apps.get(transaction, serial)?.ok_or_else(damaged)?)
}

/// The app with this serial, if there is one.
pub(super) fn find_by_serial(
    transaction: &RoTxn<'_>,
    tables: &Tables,
    serial: u32,
) -> Result<Option<AppRecord>, Fault> {
    let found = tables.apps.get(transaction, &serial.to_be_bytes())?;
    found.map(|bytes| record::decode("an app", bytes)).transpose()
}

/// The app with this serial, which a record of the store names.
pub(super) fn app_by_serial(transaction: &RoTxn<'_>, tables: &Tables, serial: u32) -> Result<AppRecord, Fault> {
    let damaged = || Fault::Record(format!("the app with serial {serial} has no record"));
    find_by_serial(transaction, tables, serial)?.ok_or_else(damaged)
}

/// Draws until the value is not in the table.
pub(super) fn unused(transaction: &RoTxn<'_>, table: Table, draw: impl Fn() -> String) -> Result<String, Fault> {
    loop {
        let candidate = draw();
        if table.get(transaction, candidate.as_bytes())?.is_none() {
            return Ok(candidate);
        }
    }
}
