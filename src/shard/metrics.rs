//! The metrics of a shard (see `crate::metrics`): plain integers, updated where the event happens.

use crate::app::{AppSerial, Directory};
use crate::auth::AuthFailure;
use crate::connection::NONE;
use crate::metrics::app_figures::AppTable;
use crate::metrics::figures::{DriverFigures, Overload, ShardFigures, ShardStats, Status, Surface};
use crate::metrics::refusal_log::LogBrakes;
use crate::wire::query::Query;

/// The counters of a shard. A record: every part counts its own events.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) stats: ShardStats,
    pub(super) counted: Box<ShardFigures>,
    /// By app.
    pub(super) app_counters: AppTable,
    /// Limits the log lines about refusals.
    pub(super) log_limit: LogBrakes,
    /// The driver's counters at the end of its last turn.
    pub(super) driver: DriverFigures,
    /// When the current turn began, in µs of the driver's clock; 0 where the driver reports no turns.
    pub(super) turn_us: u64,
}

impl Metrics {
    /// A WebSocket or stream is open.
    pub(super) fn count_opened(&mut self, app: AppSerial, is_stream: bool) {
        self.open(is_stream, 1);
        let counters = self.app_counters.of(app);
        counters.connected += 1;
        counters.connections += 1;
    }

    /// An open WebSocket or stream was closed.
    pub(super) fn count_ended(&mut self, app: u32, is_stream: bool) {
        self.open(is_stream, -1);
        if app != NONE {
            let counters = self.app_counters.of(AppSerial(app));
            counters.connected -= 1;
            counters.disconnections += 1;
        }
    }

    fn open(&mut self, is_stream: bool, by: i64) {
        let gauge = if is_stream { &mut self.stats.streams } else { &mut self.stats.websockets };
        *gauge = gauge.strict_add_signed(by);
    }

    /// A new WebSocket reports its library (P-CONN-4).
    pub(super) fn count_client(&mut self, query: Option<&str>) {
        let name = Query::new(query).first("client");
        self.counted.clients.count(name.as_deref().unwrap_or("unknown"), 1);
    }

    pub(super) fn count_response(&mut self, status: u16) {
        self.counted.responses.count(Status::of(status));
    }

    /// A request is answered with 503 for this cause (P-STAT-8).
    pub(super) fn count_overload(&mut self, cause: Overload) {
        self.counted.overloads.count(cause);
    }

    /// A signature or credential is refused.
    pub(super) fn count_auth_failure(&mut self, surface: Surface, failure: AuthFailure) {
        self.counted.auth_failed(surface, failure);
    }

    /// Forgets the counters of apps that are deleted from the store.
    pub(super) fn forget_deleted_apps(&mut self, directory: &Directory) {
        self.app_counters.retain(|app| directory.app(app).is_some());
    }
}
