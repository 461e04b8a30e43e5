//! Authorized connections (P-AUTHZ-1): if the app requires it, a connection must sign in or join a private or presence
//! channel in time. Until then it does not count towards the app's quota; once authorized it requests admission.

use super::Connections;
use crate::app::AppSerial;
use crate::connection::{Flags, Phase};
use crate::index::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::context::Context;
use crate::shard::deadlines::DeadlineKind;
use crate::shard::mail::QuotaMessage;

impl Connections {
    /// Opens a connection that has to authorize itself. It does not count towards its app's quota yet.
    pub(in crate::shard) fn open_unauthorized(&mut self, context: &mut Context, slot: Slot) {
        self.table.hot[slot].flags.insert(Flags::UNAUTHORIZED);
        let within_ms = context.config.options.authorization_timeout.as_millis() as u64;
        self.await_deadline(context, DeadlineKind::Authorization, slot, within_ms);
        self.open_websocket(context, slot);
    }

    /// The connection has signed in or joined a protected channel: it counts from now on (P-CLOSE-2).
    pub(in crate::shard) fn authorize_connection(&mut self, context: &mut Context, slot: Slot) {
        let line = &mut self.table.hot[slot];
        if line.phase != Phase::Open || !line.flags.contains(Flags::UNAUTHORIZED) {
            return;
        }
        line.flags.remove(Flags::UNAUTHORIZED);
        let app = AppSerial(line.app);
        let connections_max = context.directory.app(app).map_or(0, |app| app.settings.max_connections);
        let connection = self.key(slot);
        context.send(context.counter_of(app), QuotaMessage::Admit { app, connection, connections_max });
    }

    /// The time has run out. If the app no longer requires authorization, the connection stays and counts.
    pub(in crate::shard) fn end_unauthorized(&mut self, context: &mut Context, slot: Slot) {
        if !self.table.hot[slot].flags.contains(Flags::UNAUTHORIZED) {
            return;
        }
        let app = context.directory.app(AppSerial(self.table.hot[slot].app));
        if app.is_some_and(|app| app.settings.authorized_connections) {
            self.close_websocket(context, slot, &CloseReason::NotAuthorized);
        } else {
            self.authorize_connection(context, slot);
        }
    }
}
