//! Connections per app across shards (P-CLOSE-2): the counter is asked before a WebSocket opens.

use super::Quota;
use crate::app::AppSerial;
use crate::connection::ConnectionKey;
use crate::index::ShardIndex;
use crate::shard::context::Context;
use crate::shard::mail::ConnectionMessage;

impl Quota {
    /// Admits a connection unless the app is at its quota; 0 means no quota.
    pub(super) fn count_admission(
        &mut self,
        context: &mut Context,
        from: ShardIndex,
        app: AppSerial,
        connection: ConnectionKey,
        connections_max: u32,
    ) {
        let count = self.connections.entry(app).or_insert(0);
        let admitted = connections_max == 0 || *count < connections_max;
        if admitted {
            *count += 1;
        } else if *count == 0 {
            self.connections.remove(&app);
        }
        context.send(from, ConnectionMessage::Admitted { app, connection, admitted });
    }

    /// An admitted connection is gone.
    pub(super) fn count_departure(&mut self, app: AppSerial) {
        let count = self.connections.get_mut(&app).expect("only admitted connections depart");
        *count -= 1;
        if *count == 0 {
            self.connections.remove(&app);
        }
    }

    /// Connections of an app.
    pub(in crate::shard) fn connections(&self, app: AppSerial) -> u32 {
        self.connections.get(&app).copied().unwrap_or(0)
    }
}
