//! Memory of lists that are being gathered or are not yet sent (P-STAT-8). Callers control how many of them there are
//! and whether they are read, so lists have a separate bound, and one app cannot use up all of it.

use std::collections::BTreeMap;

use crate::app::AppSerial;
use crate::limits;

/// Bytes of lists, by app.
#[derive(Debug, Default)]
pub(in crate::shard) struct ListMemory {
    bytes: usize,
    apps: BTreeMap<AppSerial, usize>,
}

impl ListMemory {
    /// Replaces the number of bytes that a list of this app holds.
    pub(in crate::shard) fn change(&mut self, app: AppSerial, before: usize, after: usize) {
        if before == after {
            return;
        }
        self.bytes = self.bytes - before + after;
        let of_app = self.apps.entry(app).or_default();
        *of_app = *of_app - before + after;
        if *of_app == 0 {
            self.apps.remove(&app);
        }
    }

    /// Whether a list of this app is one too many.
    pub(in crate::shard) fn is_over(&self, app: AppSerial) -> bool {
        let of_app = self.apps.get(&app).copied().unwrap_or(0);
        self.bytes > limits::GATHERED_BYTES_MAX || of_app > limits::GATHERED_BYTES_PER_APP_MAX
    }

    /// All bytes.
    #[cfg(test)]
    pub(in crate::shard) fn bytes(&self) -> usize {
        self.bytes
    }
}
