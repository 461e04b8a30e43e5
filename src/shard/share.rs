//! Apps that use all of their share of a shard's memory (P-STAT-9): their publishes are refused on every shard, since a
//! publish that enters here may have to wait for readers there.
//!
//! The shard whose memory it is notices when an app becomes full, tells all shards, and looks every 100 ms whether the app
//! has recovered. So at most one mail per app, shard and interval is sent, and none while no app is full.

use std::collections::BTreeMap;

use super::mail::Body;
use super::{Shard, ShardIndex};
use crate::app::AppSerial;
use crate::limits;

/// Apps that are full on this shard, and on which shards each app is full.
#[derive(Debug, Default)]
pub(super) struct FullApps {
    here: Vec<AppSerial>,
    /// When those that are full here are looked at again.
    due_ms: u64,
    /// By app: shards that reported it, this one included.
    reported: BTreeMap<AppSerial, Vec<ShardIndex>>,
}

impl FullApps {
    /// When a full app is to be looked at, if there is one.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (!self.here.is_empty()).then_some(self.due_ms)
    }

    /// True when some shard holds as much for the app as it may.
    pub(super) fn contains(&self, app: AppSerial) -> bool {
        !self.reported.is_empty() && self.reported.contains_key(&app)
    }
}

impl Shard {
    /// An app uses all of its share here: every shard refuses its publishes from now on.
    #[cold]
    #[inline(never)]
    pub(super) fn note_full(&mut self, app: u32) {
        let app = AppSerial(app);
        if app == AppSerial(crate::connection::NONE) || self.full_shares.here.contains(&app) {
            return;
        }
        if self.full_shares.here.is_empty() {
            self.full_shares.due_ms = self.now.monotonic_ms + limits::FULL_APPS_INTERVAL_MS;
        }
        self.full_shares.here.push(app);
        self.report_full(app, true);
    }

    /// Looks which apps have recovered.
    pub(super) fn look_at_full_apps(&mut self) {
        if self.full_shares.due_ms().is_none_or(|due_ms| due_ms > self.now.monotonic_ms) {
            return;
        }
        self.full_shares.due_ms = self.now.monotonic_ms + limits::FULL_APPS_INTERVAL_MS;
        let shares = self.frames.shares();
        let recovered: Vec<AppSerial> =
            self.full_shares.here.extract_if(.., |app| shares.has_recovered(app.0)).collect();
        for app in recovered {
            self.report_full(app, false);
        }
    }

    fn report_full(&mut self, app: AppSerial, full: bool) {
        for to in 0..self.config.shards {
            self.send(to, Body::ShareFull { app, full });
        }
    }

    /// A shard says whether an app uses all of its share there.
    pub(super) fn handle_share_full(&mut self, from: ShardIndex, app: AppSerial, full: bool) {
        let reported = &mut self.full_shares.reported;
        let shards = reported.entry(app).or_default();
        shards.retain(|shard| *shard != from);
        if full {
            shards.push(from);
        } else if shards.is_empty() {
            reported.remove(&app);
        }
    }

    /// Whether the app may publish this many bytes now (P-STAT-8, P-STAT-9).
    pub(super) fn may_publish(&self, app: AppSerial, bytes: usize) -> bool {
        !self.full_shares.contains(app) && self.frames.shares().has_room(app.0, bytes)
    }
}
