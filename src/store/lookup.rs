//! Finding an app by its id.

use heed::RoTxn;

use super::environment::Tables;
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
