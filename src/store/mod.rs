//! Apps and token hashes in one LMDB file: the truth. Shards see it as [`crate::app::Directory`].

use std::sync::Arc;

pub mod keeper;

/// The open store. Clones share it; LMDB is open once per process and directory.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
}

impl Store {
    /// The snapshot that shards are given at start.
    pub fn directory(&self) -> Result<crate::app::Directory, StoreError> {
        todo!()
    }
}

/// Why the store could not do what was asked; each reads as one line with cause and fix.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {}
