//! How the apps of one shard share its memory for frames and joined buffers (P-STAT-9).
//!
//! No app has a fixed part. An app may hold a multiple of the free memory, as buffer memory is shared in switches: an
//! app alone gets most of the memory, several that flood get equal parts, and some always stays free for those that
//! hold little. An app that holds at most [`limits::APP_SEND_BYTES_MIN`] is never refused because of the others.
//!
//! The cost is one addition per frame or buffer created and one subtraction per frame or buffer freed.

use super::NONE;
use crate::limits;

/// How much of its share an app uses.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Use {
    /// Less than its share.
    Within,
    /// Everything that publishes may use: the app's further publishes are refused.
    Full,
    /// Everything: readers of the app that are behind are closed.
    Over,
}

/// Bytes held for each app of a shard.
#[derive(Debug, Default)]
pub struct Shares {
    total: usize,
    /// By serial; serials are small, since the store counts apps.
    apps: Vec<usize>,
    /// Connections without an app: callers of the HTTP API and handshakes. Together they share like one app.
    nobody: usize,
}

impl Shares {
    /// Counts bytes for an app, given by its serial or [`NONE`].
    pub fn add(&mut self, app: u32, bytes: usize) {
        self.total += bytes;
        *self.entry(app) += bytes;
    }

    /// Subtracts freed bytes that were counted with [`Shares::add`].
    pub fn remove(&mut self, app: u32, bytes: usize) {
        self.total -= bytes;
        *self.entry(app) -= bytes;
    }

    /// Bytes held for all apps.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes held for one app.
    pub fn of(&self, app: u32) -> usize {
        if app == NONE { self.nobody } else { self.apps.get(app as usize).copied().unwrap_or(0) }
    }

    /// How much of its share an app uses.
    #[inline]
    pub fn used(&self, app: u32) -> Use {
        let held = self.of(app);
        if held <= limits::APP_SEND_BYTES_MIN && self.total <= TOTAL_BYTES_MAX {
            return Use::Within;
        }
        let free = self.free();
        if self.total > TOTAL_BYTES_MAX || held > free * limits::APP_SHARE_OF_FREE {
            Use::Over
        } else if held > free * limits::APP_PUBLISH_SHARE_OF_FREE {
            Use::Full
        } else {
            Use::Within
        }
    }

    /// Whether a publish of this size may be accepted for the app. An app that holds little may use all free memory.
    pub fn has_room(&self, app: u32, bytes: usize) -> bool {
        let held = self.of(app);
        let wanted = held.saturating_add(bytes);
        if held <= limits::APP_SEND_BYTES_MIN {
            let small = wanted <= limits::APP_SEND_BYTES_MIN && self.total <= TOTAL_BYTES_MAX;
            return small || bytes <= self.free();
        }
        wanted <= self.free().saturating_sub(bytes) * limits::APP_PUBLISH_SHARE_OF_FREE
    }

    /// Whether an app that was full has released enough to publish again: half of the amount that makes it full.
    pub fn has_recovered(&self, app: u32) -> bool {
        let held = self.of(app);
        held <= limits::APP_SEND_BYTES_MIN || held <= self.free() * limits::APP_PUBLISH_SHARE_OF_FREE / 2
    }

    fn free(&self) -> usize {
        limits::SHARD_SEND_BYTES_MAX.saturating_sub(self.total)
    }

    fn entry(&mut self, app: u32) -> &mut usize {
        if app == NONE {
            return &mut self.nobody;
        }
        let at = app as usize;
        if at >= self.apps.len() {
            self.apps.resize(at + 1, 0);
        }
        &mut self.apps[at]
    }
}

/// Up to this total the minimum of every app is available.
const TOTAL_BYTES_MAX: usize = limits::SHARD_SEND_BYTES_MAX + limits::SHARD_SEND_BYTES_RESERVE;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Lets apps take a MiB each in turn until none may; returns how much each holds, in MiB.
    fn fill(shares: &mut Shares, apps: std::ops::Range<u32>) -> Vec<usize> {
        let mut taken = true;
        while taken {
            taken = false;
            for app in apps.clone() {
                if shares.used(app) == Use::Within && shares.has_room(app, MIB) {
                    shares.add(app, MIB);
                    taken = true;
                }
            }
        }
        apps.map(|app| shares.of(app) / MIB).collect()
    }

    /// P-STAT-9: an app alone may fill two thirds of the memory with published data, and its readers three quarters.
    #[test]
    fn an_app_alone_has_most_of_the_memory() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, 1..2), [170]);
        assert_eq!(shares.used(1), Use::Within);
        shares.add(1, MIB);
        assert_eq!(shares.used(1), Use::Full);
        shares.add(1, 22 * MIB);
        assert_eq!(shares.used(1), Use::Over);
        shares.remove(1, 193 * MIB);
        assert_eq!((shares.total(), shares.used(1)), (0, Use::Within));
    }

    /// P-STAT-9: apps that flood get equal parts, in whatever order they came; another one still has capacity.
    #[test]
    fn apps_that_flood_share_alike() {
        let mut shares = Shares::default();
        let held = fill(&mut shares, 1..5);
        assert!(held.iter().all(|one| one.abs_diff(held[0]) <= 1), "{held:?}");
        assert!(shares.has_room(9, 10 * MIB) && shares.used(9) == Use::Within);

        let mut shares = Shares::default();
        let first = fill(&mut shares, 1..2)[0];
        let second = fill(&mut shares, 2..3)[0];
        assert!(second >= 50, "the first holds {first} MiB, the second gets {second}");
        assert_ne!(shares.used(1), Use::Within, "the first has to give back what the second uses");
    }

    /// P-STAT-9: memory that one app holds beyond its share, for whatever reason, causes no refusal of an app that
    /// holds little.
    #[test]
    fn an_app_that_holds_little_is_never_refused() {
        let mut shares = Shares::default();
        shares.add(1, limits::SHARD_SEND_BYTES_MAX + 10 * MIB);
        assert_eq!(shares.used(1), Use::Over);
        assert_eq!(shares.used(2), Use::Within);
        assert!(shares.has_room(2, MIB) && !shares.has_room(1, 1));
        shares.add(2, MIB);
        assert!(!shares.has_room(2, 1));
        assert!(shares.has_room(3, MIB));
        shares.add(NONE, limits::SHARD_SEND_BYTES_RESERVE);
        assert!(
            !shares.has_room(3, 1) && shares.used(3) == Use::Over,
            "the memory of the shard is bounded all the same"
        );
    }

    /// P-STAT-9: callers of the HTTP API that do not read share as one app.
    #[test]
    fn connections_without_an_app_share_as_one() {
        let mut shares = Shares::default();
        shares.add(NONE, 200 * MIB);
        assert_eq!((shares.used(NONE), shares.used(1)), (Use::Over, Use::Within));
        assert!(shares.has_room(1, 50 * MIB));
    }

    /// An app that was full publishes again once half of that is released.
    #[test]
    fn recovery_is_not_at_the_edge() {
        let mut shares = Shares::default();
        shares.add(1, 180 * MIB);
        assert_eq!(shares.used(1), Use::Full);
        assert!(!shares.has_recovered(1));
        shares.remove(1, 20 * MIB);
        assert!(shares.used(1) == Use::Within && !shares.has_recovered(1));
        shares.remove(1, 40 * MIB);
        assert!(shares.has_recovered(1));
    }
}
