//! Apps and token hashes in one LMDB file: the truth. Shards see it as [`crate::app::Directory`].
