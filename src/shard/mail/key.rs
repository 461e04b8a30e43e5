//! Identifiers used in mail: channels, users, connections, requests.

use std::sync::Arc;

use crate::app::AppSerial;
use crate::connection::ConnectionKey;
use crate::index::ShardIndex;

/// A channel of an app, with the hash that determines its owner and finds it in every table.
#[derive(Clone, Debug)]
pub(in crate::shard) struct ChannelKey {
    pub(in crate::shard) app: AppSerial,
    pub(in crate::shard) name: Arc<str>,
    pub(in crate::shard) hash: u64,
}

impl ChannelKey {
    /// True when both identify the same channel.
    pub(in crate::shard) fn is(&self, other: &Self) -> bool {
        self.names(other.app, &other.name, other.hash)
    }

    /// True when it is the key of this channel.
    pub(in crate::shard) fn names(&self, app: AppSerial, name: &str, hash: u64) -> bool {
        self.hash == hash && self.app == app && *self.name == *name
    }
}

/// A user of an app, with the hash that determines its owner and finds it in every table.
#[derive(Clone, Debug)]
pub(in crate::shard) struct UserKey {
    pub(in crate::shard) app: AppSerial,
    pub(in crate::shard) id: Arc<str>,
    pub(in crate::shard) hash: u64,
}

impl UserKey {
    /// True when both identify the same user.
    pub(in crate::shard) fn is(&self, other: &Self) -> bool {
        self.hash == other.hash && self.app == other.app && self.id == other.id
    }
}

/// A connection of any shard of the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::shard) struct ConnectionRef {
    pub(in crate::shard) shard: ShardIndex,
    pub(in crate::shard) connection: ConnectionKey,
}

/// Identifies one request that waits for other shards.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::shard) struct PendingId {
    pub(in crate::shard) index: u32,
    /// Guards against the reuse of `index`.
    pub(in crate::shard) nonce: u32,
}
