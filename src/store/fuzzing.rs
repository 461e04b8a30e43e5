//! The private readers of the store, for the fuzz targets (`fuzz/`). Compiled only for them.

use std::path::Path;

use super::record::{self, AppRecord, TokenRecord};
use super::{StoreError, messages, queue, verify};
use crate::app::{App, MessagesUsed, Token};

/// An app's record and the form that the shards receive.
///
/// # Errors
/// The store's error for a record that cannot be read.
pub fn read_app(bytes: &[u8]) -> Result<(AppRecord, App), String> {
    let record: AppRecord = record::decode("an app", bytes).map_err(|fault| format!("{fault:?}"))?;
    let app = record.to_app().map_err(|fault| format!("{fault:?}"))?;
    Ok((record, app))
}

/// A token's record and the form that the shards receive.
///
/// # Errors
/// The store's error for a record that cannot be read.
pub fn read_token(bytes: &[u8]) -> Result<(TokenRecord, Token), String> {
    let record: TokenRecord = record::decode("a token", bytes).map_err(|fault| format!("{fault:?}"))?;
    let token = record.to_token().map_err(|fault| format!("{fault:?}"))?;
    Ok((record, token))
}

/// The bytes of a record.
pub fn write_app(record: &AppRecord) -> Vec<u8> {
    record::encode(record)
}

/// The bytes of a record.
pub fn write_token(record: &TokenRecord) -> Vec<u8> {
    record::encode(record)
}

/// A webhook delivery and its body.
///
/// # Errors
/// The store's error for a delivery that cannot be read.
pub fn read_delivery(key: &[u8], value: &[u8]) -> Result<(queue::Delivery, Vec<u8>), String> {
    let (delivery, body) = queue::decode(key, value).map_err(|fault| format!("{fault:?}"))?;
    Ok((delivery, body.to_vec()))
}

/// The bytes of a delivery.
pub fn write_delivery(delivery: &queue::Delivery, body: &[u8]) -> Vec<u8> {
    queue::encode(delivery, body)
}

/// The messages of an app and day: its serial and its usage.
pub fn read_messages(key: &[u8], value: &[u8]) -> Option<(u32, MessagesUsed)> {
    messages::decode(key, value).map(|(app, used)| (app.0, used))
}

/// Checks a data file as opening does before LMDB maps it.
///
/// # Errors
/// The fault in the file.
pub fn verify_file(path: &Path) -> Result<(), StoreError> {
    verify::verify(path)
}
