//! Memory of lists that are gathered, or were and are not sent yet (P-STAT-8). Callers choose how many of them there are
//! and whether they read them, so they have a bound of their own, and one app cannot use up all of it.

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
    /// A list of this app holds so many bytes now instead of those before.
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
