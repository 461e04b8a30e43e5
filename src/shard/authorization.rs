//! Authorized connections (P-AUTHZ-1): where the app demands it, a connection must sign in or join a private or presence
//! channel in time. Until then it does not count to the app's quota; with that it asks for its place.

use super::Shard;
use super::mail::Body;
use super::sweep::Deadline;
use crate::app::AppSerial;
use crate::connection::{Flags, Phase};
use crate::protocol::close::CloseReason;

impl Shard {
    /// Opens a connection that has to authorize itself: nobody is asked whether there is room for it yet.
    pub(super) fn open_unauthorized(&mut self, slot: u32) {
        self.hot[slot as usize].flags.insert(Flags::UNAUTHORIZED);
        let within_ms = u64::from(self.config.options.authorization_timeout_s) * 1_000;
        let (at_ms, connection) = (self.now.monotonic_ms + within_ms, self.key(slot));
        self.deadlines.push(Deadline::Authorization, at_ms, connection);
        self.open_websocket(slot);
    }

    /// The connection has signed in or joined a protected channel: it counts from here on (P-CLOSE-2).
    pub(super) fn authorize_connection(&mut self, slot: u32) {
        let line = &mut self.hot[slot as usize];
        if line.phase != Phase::Open || !line.flags.contains(Flags::UNAUTHORIZED) {
            return;
        }
        line.flags.remove(Flags::UNAUTHORIZED);
        let app = AppSerial(line.app);
        let connections_max = self.directory.app(app).map_or(0, |app| app.settings.max_connections);
        let (counter, connection) = (self.counter_of(app), self.key(slot));
        self.send(counter, Body::Admit { app, connection, connections_max });
    }

    /// The time is over. An app that no longer demands it keeps the connection, and counts it.
    pub(super) fn end_unauthorized(&mut self, slot: u32) {
        if !self.hot[slot as usize].flags.contains(Flags::UNAUTHORIZED) {
            return;
        }
        let app = self.directory.app(AppSerial(self.hot[slot as usize].app));
        if app.is_some_and(|app| app.settings.authorized_connections) {
            self.close_websocket(slot, &CloseReason::NotAuthorized);
        } else {
            self.authorize_connection(slot);
        }
    }
}
