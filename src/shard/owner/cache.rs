//! Cache channels (P-CACHE rules): the last event published over HTTP, stored with the channel's owner.
//!
//! The owner answers a join together with the event that it holds at that moment. It also orders the channel's events,
//! so every event after the answer is newer than the cached one: between the cached frame and the live ones no event is
//! lost and none arrives twice.
//!
//! The events of an app share a budget of bytes, of which each shard manages an equal part. Beyond it the oldest are
//! removed first; the newest stays, even when it alone is larger, so that a channel in use is never without its event.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Owner;
use crate::app::AppSerial;
use crate::channel::cache::CachedEvent;
use crate::channel::name::Modifiers;
use crate::index::OwnedIndex;
use crate::limits;
use crate::shard::context::Context;
use crate::shard::mail::ChannelKey;

/// The cached events of this shard as owner.
#[derive(Debug, Default)]
pub(super) struct Caches {
    apps: BTreeMap<AppSerial, AppCache>,
    /// Counts the events cached so far.
    age: u64,
    /// When to check for expired events; not later than the first of them, apart from the interval.
    due_ms: Option<u64>,
}

/// The cached events of one app.
#[derive(Debug, Default)]
struct AppCache {
    /// Index of the owned channel by age: the oldest first, which is also the first to expire.
    by_age: BTreeMap<u64, OwnedIndex>,
    bytes: usize,
}

/// Expired events are removed at most this often; until then they are not shown.
const EXPIRE_INTERVAL_MS: u64 = 1_000;

impl Caches {
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    pub(super) fn events(&self) -> usize {
        self.apps.values().map(|app| app.by_age.len()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.apps.values().map(|app| app.bytes).sum()
    }
}

impl Owner {
    /// An event was published over HTTP to a cache channel, with or without subscribers.
    pub(super) fn cache(&mut self, context: &mut Context, channel: &ChannelKey, frame: Bytes, data_bytes: u32) {
        let budget = context.directory.app(channel.app).map_or(0, |app| app.settings.max_cache_bytes as usize);
        if budget == 0 {
            // The previously cached event would be older than the one just published.
            if let Some(index) = self.find(channel) {
                self.drop_cached(index);
                self.forget_if_unused(context, index);
            }
            return;
        }
        let index = self.find_or_insert(channel);
        self.drop_cached(index);
        self.caches.age += 1;
        let ttl_ms = context.config.options.cache_ttl.as_millis() as u64;
        let (age, expires_ms) = (self.caches.age, context.now.monotonic_ms + ttl_ms);
        let cached = CachedEvent::new(frame, data_bytes, expires_ms, age);
        let app = self.caches.apps.entry(channel.app).or_default();
        app.bytes += cost(channel, &cached);
        app.by_age.insert(age, index);
        self.channels[index].cold_or_default().cached = Some(cached);
        self.caches.due_ms.get_or_insert(expires_ms);
        self.evict(context, channel.app, budget.div_ceil(usize::from(context.config.shards)));
    }

    /// The frame that a joiner gets after its `succeeded`. `None` is a miss on a cache channel.
    pub(super) fn cached_frame(&self, context: &Context, channel: &ChannelKey) -> Option<Bytes> {
        self.cached(channel)?.frame(context.now.monotonic_ms).cloned()
    }

    /// The cached event of a channel; it may have expired.
    pub(in crate::shard) fn cached(&self, channel: &ChannelKey) -> Option<&CachedEvent> {
        if !Modifiers::of(&channel.name).cache {
            return None;
        }
        self.channels[self.find(channel)?].cached()
    }

    /// Removes expired events.
    pub(in crate::shard) fn expire_cached(&mut self, context: &mut Context) {
        let now_ms = context.now.monotonic_ms;
        if self.caches.due_ms.is_none_or(|due_ms| now_ms < due_ms) {
            return;
        }
        let apps: Vec<AppSerial> = self.caches.apps.keys().copied().collect();
        let mut next = None;
        for app in apps {
            while let Some((index, expires_ms)) = self.oldest_cached(app) {
                if now_ms < expires_ms {
                    next = Some(next.map_or(expires_ms, |next: u64| next.min(expires_ms)));
                    break;
                }
                self.drop_cached(index);
                self.forget_if_unused(context, index);
            }
        }
        self.caches.due_ms = next.map(|next| next.max(now_ms + EXPIRE_INTERVAL_MS));
    }

    /// Removes the cached events of apps that are deleted from the store.
    pub(super) fn forget_cached_of_deleted_apps(&mut self, context: &mut Context) {
        let apps = self.caches.apps.keys().copied();
        let deleted: Vec<AppSerial> = apps.filter(|app| context.directory.app(*app).is_none()).collect();
        for app in deleted {
            while let Some((index, _)) = self.oldest_cached(app) {
                self.drop_cached(index);
                self.forget_if_unused(context, index);
            }
        }
    }

    fn evict(&mut self, context: &mut Context, app: AppSerial, bytes_max: usize) {
        let is_over = |cache: &AppCache| cache.bytes > bytes_max && cache.by_age.len() > 1;
        while self.caches.apps.get(&app).is_some_and(is_over) {
            let (index, _) = self.oldest_cached(app).expect("more than one is cached");
            self.drop_cached(index);
            self.forget_if_unused(context, index);
        }
    }

    /// Index of the channel with the oldest event of an app, and when that event expires.
    fn oldest_cached(&self, app: AppSerial) -> Option<(OwnedIndex, u64)> {
        let (_, &index) = self.caches.apps.get(&app)?.by_age.first_key_value()?;
        let cached = self.channels[index].cached().expect("what is listed by age is cached");
        Some((index, cached.expires_ms()))
    }

    /// Removes the event of a channel. The channel's state stays, even if it is no longer needed.
    fn drop_cached(&mut self, index: OwnedIndex) {
        let owned = &mut self.channels[index];
        let Some(cached) = owned.take_cached() else { return };
        let key = owned.key();
        let app = self.caches.apps.get_mut(&key.app).expect("the app of what is cached is known");
        app.bytes -= cost(key, &cached);
        app.by_age.remove(&cached.age());
        if app.by_age.is_empty() {
            self.caches.apps.remove(&key.app);
        }
    }
}

/// The cost of an event in its app's budget, in bytes.
fn cost(channel: &ChannelKey, cached: &CachedEvent) -> usize {
    cached.frame_bytes() + channel.name.len() + limits::CACHED_EVENT_BYTES
}
