//! The thread between the running shards and the store: it writes `last_used_at` and notices changes.

use std::io;
use std::sync::Arc;

use crate::app::{Directory, TokenId};
use crate::store::Store;

/// Handle of the thread. Dropping it writes what is owed and ends the thread.
pub struct Keeper {}

impl Keeper {
    /// Starts the thread. `on_change` is called from it with each new snapshot, at most 250 ms after another
    /// process or this one changed an app or a token; the snapshot of the start is [`Store::directory`].
    pub fn spawn(
        _store: Store,
        _on_change: Box<dyn Fn(Arc<Directory>) + Send>,
    ) -> io::Result<Keeper> {
        todo!()
    }

    /// Notes that a token was used (R-TOKEN-4), at `unix_ms`. Never blocks, takes no lock, makes no system call
    /// unless thousands of uses are waiting.
    pub fn token_used(&self, _token: TokenId, _unix_ms: u64) {
        todo!()
    }
}
