//! The configuration of the shards.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::api::info::InfoRules;
use crate::app::{AppSerial, Directory};
use crate::channel::name::NameRules;
use crate::index::ShardIndex;
use crate::limits;
use crate::metrics::figures::Identity;
use crate::protocol::event_id::EventId;

/// How the events of channels are ordered: the channels of an app are divided into 256 groups, each of which one shard
/// owns. Epoch and key belong together: with another key the numbers of a group are those of other channels.
#[derive(Clone, Copy)]
pub struct ChannelOrder {
    /// Random at each start; ids of other epochs say nothing about the events of this one (R-HIST-2).
    pub epoch: u64,
    /// The key of the hash of names. It is secret, so that nobody can choose names that collide (threat T12).
    pub key: [u8; 16],
}

impl ChannelOrder {
    /// The hash of a channel or user of an app. It finds them in every table and is the same on all shards.
    pub(super) fn hash(&self, app: AppSerial, name: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u32(app.0);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The group of the channel with this hash. Tables use the other bits.
    pub(super) fn group(hash: u64) -> u8 {
        (hash >> 32) as u8
    }

    /// The hash of a channel in cursors, which clients see: it shows nothing of the one in tables (threat T57).
    pub(super) fn cursor_hash(&self, hash: u64) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(b"cursor");
        hasher.write_u64(hash);
        hasher.finish() as u32
    }

    /// The shard that owns the group of the channel or user with this hash.
    pub(super) fn owner(hash: u64, shards: ShardIndex) -> ShardIndex {
        Self::owner_of_group(Self::group(hash), shards)
    }

    /// The shard that owns a group.
    pub(super) fn owner_of_group(group: u8, shards: ShardIndex) -> ShardIndex {
        ShardIndex::from(group) % shards
    }

    /// The id of an event of an app. Each app has an epoch of its own, so that ids of one are never valid in another.
    pub(super) fn event_id(&self, app: AppSerial, group: u8, sequence: u64) -> EventId {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(self.epoch);
        hasher.write_u32(app.0);
        EventId { epoch: hasher.finish(), group, sequence }
    }
}

const _: () = assert!(limits::SHARDS_MAX <= u8::MAX as usize + 1, "each shard owns a group");

/// The configuration of one shard.
#[derive(Clone)]
pub struct ShardConfig {
    /// This shard.
    pub index: ShardIndex,
    /// Number of shards; at least 1.
    pub shards: ShardIndex,
    /// Connections that it can hold: slots are below this.
    pub slots: u32,
    /// Of these, reserved for when all others are in use (P-CLOSE-2).
    pub refusal_slots: u32,
    /// Process-wide random secret: seals socket ids and seeds maps. The same for all shards of a process.
    pub boot_secret: [u8; 16],
    /// The order of events, the same for all shards of a process.
    pub order: ChannelOrder,
    /// The apps and tokens at start.
    pub directory: Arc<Directory>,
    /// The options of the operator.
    pub options: ShardOptions,
}

/// Options of the operator, the same on all shards.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Path prefix (P-CONN-2), `""` or `/x`.
    pub path_prefix: String,
    /// `activity_timeout` in seconds (P-LIVE-3).
    pub activity_timeout_s: u32,
    /// Idle HTTP connections are closed after this (P-HTTP-20).
    pub http_keep_alive: Duration,
    /// A request that uses an app's secret and comes from a page is refused: the secret of `--dev` is public (threat
    /// T77).
    pub refuse_pages_with_secret: bool,
    /// `strict_protocol` (P-CONN-3, P-CONN-5).
    pub strict_protocol: bool,
    /// `channel_names` (P-CHAN-2).
    pub channel_names: NameRules,
    /// Proxies whose `X-Forwarded-For`, `Forwarded` and PROXY protocol headers are trusted.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Drain takes this long (P-CLOSE-1).
    pub drain: Duration,
    /// `strict_pusher_info` (P-HTTP-11).
    pub info_rules: InfoRules,
    /// How long the event of a cache channel is kept (P-CACHE-1).
    pub cache_ttl: Duration,
    /// Bytes of the history of all apps on one shard (R-HIST-1).
    pub history_bytes: usize,
    /// Failed credentials of one address in a minute before 429 (threat T6).
    pub auth_failures_per_minute: u32,
    /// A connection must be authorized within this time if its app requires it (P-AUTHZ-1).
    pub authorization_timeout: Duration,
    /// The prefix of all metric names.
    pub metrics_prefix: String,
    /// The server's identity on the metrics page.
    pub identity: Identity,
    /// Subscribers to whom one turn queues an event of a large channel (U17); at least 1. Only tests need a value other
    /// than the default.
    pub fan_out_step: u32,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            path_prefix: String::new(),
            activity_timeout_s: limits::ACTIVITY_TIMEOUT_S,
            http_keep_alive: Duration::from_secs(limits::HTTP_KEEP_ALIVE_S.into()),
            refuse_pages_with_secret: false,
            strict_protocol: false,
            channel_names: NameRules::Default,
            trusted_proxies: Vec::new(),
            drain: Duration::from_millis(limits::DRAIN_MS),
            info_rules: InfoRules::Lenient,
            cache_ttl: Duration::from_secs(limits::CACHE_TTL_S.into()),
            history_bytes: limits::HISTORY_SHARD_BYTES as usize,
            auth_failures_per_minute: limits::AUTH_FAILURES_PER_MINUTE,
            authorization_timeout: Duration::from_secs(limits::AUTHORIZATION_TIMEOUT_S.into()),
            metrics_prefix: METRICS_PREFIX.to_owned(),
            identity: Identity::default(),
            fan_out_step: limits::FAN_OUT_STEP,
        }
    }
}

/// The prefix of metric names unless the operator sets another one.
pub const METRICS_PREFIX: &str = "relay_";
