//! Apps that use all of their share of a shard's memory (P-STAT-9): their publishes are refused on every shard, since a
//! publish received here may have to wait for readers there.
//!
//! The shard whose memory is used notices when an app becomes full, notifies all shards, and checks every 100 ms
//! whether the app has recovered. So at most one mail per app, shard and interval is sent, and none while no app is
//! full.

use std::collections::BTreeMap;

use super::Connections;
use crate::app::AppSerial;
use crate::index::ShardIndex;
use crate::limits;
use crate::shard::context::Context;
use crate::shard::mail::ConnectionMessage;

/// Apps that are full on this shard, and on which shards each app is full.
#[derive(Debug, Default)]
pub(super) struct FullApps {
    here: Vec<AppSerial>,
    /// When the apps that are full here are checked again.
    due_ms: u64,
    /// By app: shards that reported it, this one included.
    reported: BTreeMap<AppSerial, Vec<ShardIndex>>,
}

impl FullApps {
    /// When a full app is due to be checked, if there is one.
    fn due_ms(&self) -> Option<u64> {
        (!self.here.is_empty()).then_some(self.due_ms)
    }

    /// True when some shard holds as much for the app as it may.
    fn contains(&self, app: AppSerial) -> bool {
        !self.reported.is_empty() && self.reported.contains_key(&app)
    }
}

impl Connections {
    /// When apps that use all of their share are due to be checked.
    pub(in crate::shard) fn full_apps_due_ms(&self) -> Option<u64> {
        self.full_apps.due_ms()
    }

    /// An app uses all of its share here: every shard refuses its publishes from now on.
    #[cold]
    #[inline(never)]
    pub(super) fn note_full(&mut self, context: &mut Context, app: u32) {
        let app = AppSerial(app);
        if app == AppSerial(crate::connection::NONE) || self.full_apps.here.contains(&app) {
            return;
        }
        if self.full_apps.here.is_empty() {
            self.full_apps.due_ms = context.now.monotonic_ms + limits::FULL_APPS_INTERVAL_MS;
        }
        self.full_apps.here.push(app);
        self.report_full(context, app, true);
    }

    /// Checks which apps have recovered.
    pub(in crate::shard) fn look_at_full_apps(&mut self, context: &mut Context) {
        if self.full_apps.due_ms().is_none_or(|due_ms| due_ms > context.now.monotonic_ms) {
            return;
        }
        self.full_apps.due_ms = context.now.monotonic_ms + limits::FULL_APPS_INTERVAL_MS;
        let shares = self.frames.shares();
        let recovered: Vec<AppSerial> = self.full_apps.here.extract_if(.., |app| shares.has_recovered(app.0)).collect();
        for app in recovered {
            self.report_full(context, app, false);
        }
    }

    fn report_full(&self, context: &mut Context, app: AppSerial, full: bool) {
        for to in 0..context.config.shards {
            context.send(to, ConnectionMessage::ShareFull { app, full });
        }
    }

    /// A shard reports whether an app uses all of its share there.
    pub(in crate::shard) fn handle_share_full(&mut self, from: ShardIndex, app: AppSerial, full: bool) {
        let reported = &mut self.full_apps.reported;
        let shards = reported.entry(app).or_default();
        shards.retain(|shard| *shard != from);
        if full {
            shards.push(from);
        } else if shards.is_empty() {
            reported.remove(&app);
        }
    }

    /// Whether the app may publish this many bytes now (P-STAT-8, P-STAT-9).
    pub(in crate::shard) fn may_publish(&self, app: AppSerial, bytes: usize) -> bool {
        !self.full_apps.contains(app) && self.frames.shares().has_room(app.0, bytes)
    }
}
