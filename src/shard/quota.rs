//! Connections per app across shards (P-CLOSE-2): one shard counts each app, the others ask it before a WebSocket opens.

use super::mail::Body;
use super::{Shard, ShardIndex};
use crate::app::AppSerial;
use crate::connection::ConnectionKey;

impl Shard {
    /// As counter: admits a connection unless the app is at its quota; 0 is no quota.
    pub(super) fn count_admission(
        &mut self,
        from: ShardIndex,
        app: AppSerial,
        connection: ConnectionKey,
        connections_max: u32,
    ) {
        let count = self.app_connections.entry(app).or_insert(0);
        let admitted = connections_max == 0 || *count < connections_max;
        if admitted {
            *count += 1;
        } else if *count == 0 {
            self.app_connections.remove(&app);
        }
        self.send(from, Body::Admitted { app, connection, admitted });
    }

    /// As counter: an admitted connection is gone.
    pub(super) fn count_departure(&mut self, app: AppSerial) {
        let count = self.app_connections.get_mut(&app).expect("only admitted connections depart");
        *count -= 1;
        if *count == 0 {
            self.app_connections.remove(&app);
        }
    }
}
