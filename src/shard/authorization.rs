//! Authorized connections (P-AUTHZ-1): where the app demands it, a connection must sign in or join a private or presence
//! channel in time. Until then it does not count to the app's quota; with that it asks for its place.

use super::Shard;
use super::mail::Body;
use super::sweep::Deadline;
use crate::app::AppSerial;
use crate::channel::name::ChannelKind;
use crate::connection::{Flags, Phase};
use crate::protocol::close::CloseReason;

impl Shard {
    /// Opens a connection that has to authorize itself: nobody is asked whether there is room for it yet.
    pub(super) fn open_unauthorized(&mut self, slot: u32) {
        self.hot[slot as usize].flags.insert(Flags::UNAUTHORIZED);
        let within_ms = u64::from(self.config.options.authorization_timeout_s) * 1_000;
        self.await_deadline(Deadline::Authorization, slot, within_ms);
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

    /// Whether the client has done its part, and the connection waits for shards that have yet to record it.
    pub(super) fn is_being_authorized(&self, slot: u32) -> bool {
        let (line, cold) = (&self.hot[slot as usize], self.cold(slot));
        let signs_in = cold.and_then(|cold| cold.signed_in.as_ref()).is_some_and(|signed_in| !signed_in.recorded);
        let more = cold.map_or(&[][..], |cold| &cold.more_channels);
        let joins = line.inline_channels().iter().chain(more).any(|index| {
            let channel = &self.channels[*index as usize];
            channel.kind != ChannelKind::Public && !channel.subscribers.contains(slot)
        });
        signs_in || joins
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
