//! What a shard counts (see `metrics`): plain integers, written where the thing happens.

use std::sync::Arc;

use slab::Slab;

use super::Shard;
use super::scrape::Scrape;
use crate::app::AppSerial;
use crate::connection::NONE;
use crate::metrics::figures::{ClientNames, DriverFigures, Identity, Overload, ShardFigures, Snapshot, Status};
use crate::metrics::refusal_log::LogBrakes;
use crate::wire::query::Query;

/// Figures of a shard besides those of its apps.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) counted: ShardFigures,
    /// What the loop counted when its last turn ended.
    pub(super) driver: DriverFigures,
    /// When the present turn began, in µs of the driver's clock; 0 where the driver tells no turns.
    pub(super) turn_us: u64,
    pub(super) log_brakes: LogBrakes,
    /// Pages that are being gathered for, if this shard serves the metrics port.
    pub(super) scrapes: Slab<Scrape>,
    /// Names of clients that were told so far: they stay.
    pub(super) clients_told: ClientNames,
}

impl Shard {
    /// A turn of the driver's loop begins: for figures alone. Times are of one clock for all shards.
    pub fn handle_turn_begin(&mut self, at_us: u64) {
        self.figures.turn_us = at_us;
    }

    /// A turn has ended, and everything that the kernel took in it was fed as `Sent`.
    pub fn handle_turn_end(&mut self, at_us: u64, driver: &DriverFigures) {
        let figures = &mut *self.figures;
        figures.driver = *driver;
        figures.counted.turns.observe(at_us.saturating_sub(figures.turn_us));
        for accepted_us in self.frames.take_written() {
            figures.counted.publish_to_last_write.observe(at_us.saturating_sub(accepted_us));
        }
    }

    /// Everything that the shard has counted.
    pub fn snapshot(&mut self) -> Snapshot {
        self.figures.counted.sent_bytes = self.apps.sent_bytes();
        Snapshot {
            shard: self.config.index,
            stats: self.stats(),
            figures: self.figures.counted.clone(),
            apps: self.apps.snapshot(),
            driver: self.figures.driver,
        }
    }

    /// A WebSocket is open.
    pub(super) fn count_opened(&mut self, app: AppSerial) {
        self.stats.websockets += 1;
        let figures = self.apps.of(app);
        figures.connected += 1;
        figures.connections += 1;
    }

    /// A WebSocket that was open is not any more.
    pub(super) fn count_ended(&mut self, app: u32) {
        self.stats.websockets -= 1;
        if app != NONE {
            let figures = self.apps.of(AppSerial(app));
            figures.connected -= 1;
            figures.disconnections += 1;
        }
    }

    /// Bytes of a WebSocket came in.
    pub(super) fn count_socket_received(&mut self, slot: u32, bytes: usize) {
        let app = self.hot[slot as usize].app;
        if app != NONE {
            self.apps.of(AppSerial(app)).socket_received_bytes += bytes as u64;
        }
    }

    /// A text message of a WebSocket came in.
    pub(super) fn count_message_received(&mut self, slot: u32) {
        let app = self.hot[slot as usize].app;
        if app != NONE {
            self.apps.of(AppSerial(app)).messages_received += 1;
        }
    }

    /// The request at hand is one of this app.
    pub(super) fn count_call(&mut self, slot: u32, app: AppSerial) {
        let http = self.http(slot);
        http.app = Some(app);
        let bytes = std::mem::take(&mut http.request_bytes);
        let figures = self.apps.of(app);
        figures.http_calls += 1;
        figures.http_received_bytes += bytes as u64;
    }

    /// A new WebSocket says what it is (P-CONN-4).
    pub(super) fn count_client(&mut self, query: Option<&str>) {
        let name = Query::new(query).first("client");
        self.figures.counted.clients.count(name.as_deref().unwrap_or("unknown"), 1);
    }

    pub(super) fn count_response(&mut self, status: u16) {
        self.figures.counted.responses.count(Status::of(status));
    }

    /// Something is answered 503 for this cause (P-STAT-8).
    pub(super) fn count_overload(&mut self, cause: Overload) {
        self.figures.counted.overloads.count(cause);
    }

    /// The store has a new directory: figures of deleted apps go.
    pub(super) fn forget_figures_of_deleted_apps(&mut self) {
        let directory = Arc::clone(&self.directory);
        self.apps.retain(|app| directory.app(app).is_some());
    }

    /// What the server knows of itself.
    pub(super) fn identity(&self) -> &Identity {
        &self.config.options.identity
    }
}
