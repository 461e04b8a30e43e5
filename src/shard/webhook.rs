//! What a channel's owner tells the app's webhook endpoints (P-HOOK rules). The owner orders all that happens on a
//! channel, so what it puts out is in order; an app whose endpoints do not want a kind of event costs one look at a
//! set of bits.
//!
//! That a channel was vacated or a member removed is told three seconds later, and not at all if somebody comes back
//! meanwhile; then nobody is told of the return either (P-HOOK-8). The wire is not delayed.
//!
//! ```text
//!          left                         due
//! there ---------> departure waits ------------> told "left"
//!   ^                    |
//!   +--------------------+  came back: nothing is told
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::mail::ChannelKey;
use super::{Output, Shard};
use crate::app::AppSerial;
use crate::app::webhook::WebhookKind;
use crate::limits;
use crate::protocol::webhook::{Happened, SentEvent, WebhookEvent};

/// Departures that are not sent yet.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// By number: in the order in which they happened, which is that of their deadlines.
    waiting: BTreeMap<u64, Departure>,
    /// How many there were so far.
    numbered: u64,
    /// Numbers of those of each app that has any: apps share the bound (P-STAT-9).
    by_app: BTreeMap<AppSerial, BTreeSet<u64>>,
    /// Numbers by hash.
    by_hash: HashTable<u64>,
}

/// A channel that nobody is on any more, or a user who left a presence channel.
#[derive(Debug)]
struct Departure {
    due_ms: u64,
    hash: u64,
    channel: ChannelKey,
    user_id: Option<Arc<str>>,
}

impl Departures {
    /// When the first is to be sent, in ms of the service clock.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(_, departure)| departure.due_ms)
    }

    /// Adds one. Where its app has all of its share waiting, the oldest of that app is given back, to be sent early.
    fn push(&mut self, departure: Departure) -> Option<Departure> {
        let app = departure.channel.app;
        let number = self.numbered;
        self.numbered += 1;
        let waiting = &self.waiting;
        self.by_hash.insert_unique(departure.hash, number, |number| waiting[number].hash);
        self.waiting.insert(number, departure);
        let own = self.by_app.entry(app).or_default();
        own.insert(number);
        let free = limits::WEBHOOK_DEPARTURES_MAX.saturating_sub(self.waiting.len());
        let oldest = if own.len() > limits::APP_SHARE_OF_FREE * free { own.first().copied() } else { None };
        oldest.map(|number| self.take(number))
    }

    /// Takes one out: somebody came back. True when there was one.
    fn cancel(&mut self, hash: u64, channel: &ChannelKey, user_id: Option<&str>) -> bool {
        let is = |number: &u64| {
            let departure = &self.waiting[number];
            departure.channel.is(channel) && departure.user_id.as_deref() == user_id && departure.hash == hash
        };
        let Some(number) = self.by_hash.find(hash, is).copied() else { return false };
        self.take(number);
        true
    }

    /// Takes the oldest.
    fn pop(&mut self) -> Option<Departure> {
        let (number, _) = self.waiting.first_key_value()?;
        Some(self.take(*number))
    }

    fn take(&mut self, number: u64) -> Departure {
        let departure = self.waiting.remove(&number).expect("it waits");
        let entry = self.by_hash.find_entry(departure.hash, |at| *at == number);
        entry.expect("what waits is found by hash").remove();
        let app = departure.channel.app;
        let own = self.by_app.get_mut(&app).expect("what waits is one of its app");
        own.remove(&number);
        if own.is_empty() {
            self.by_app.remove(&app);
        }
        departure
    }
}

impl Shard {
    /// True when an endpoint of the channel's app is to be told of this.
    pub(super) fn is_told(&self, channel: &ChannelKey, kind: WebhookKind) -> bool {
        self.directory.app(channel.app).is_some_and(|app| app.wants(kind))
    }

    /// As owner: the number of subscribers went from `before` to `count`.
    pub(super) fn note_occupancy(&mut self, channel: &ChannelKey, before: u32, count: u32) {
        if (before == 0) == (count == 0) || !self.tells_either(channel, OCCUPANCY) {
            return;
        }
        if count == 0 {
            self.depart(channel, None);
        } else if !self.came_back(channel, None) {
            self.tell(channel, Happened::ChannelOccupied { subscription_count: count });
        }
    }

    /// As owner: a user's first connection joined.
    pub(super) fn note_member_added(&mut self, channel: &ChannelKey, user_id: &Arc<str>) {
        if self.tells_either(channel, MEMBERS) && !self.came_back(channel, Some(user_id)) {
            self.tell(channel, Happened::MemberAdded { user_id: user_id.clone() });
        }
    }

    /// As owner: a user's last connection left.
    pub(super) fn note_member_removed(&mut self, channel: &ChannelKey, user_id: &str) {
        if self.tells_either(channel, MEMBERS) {
            self.depart(channel, Some(user_id.into()));
        }
    }

    /// As owner: somebody joined a cache channel that has no event. Told once for all who join within a second
    /// (P-CACHE-2).
    pub(super) fn note_cache_miss(&mut self, channel: &ChannelKey) {
        if !self.is_told(channel, WebhookKind::CacheMiss) {
            return;
        }
        let now_ms = self.now.monotonic_ms;
        let index = self.find_owned(channel).expect("a channel that is joined has state");
        let quiet_until_ms = &mut self.owned[index].more().miss_quiet_until_ms;
        if *quiet_until_ms <= now_ms {
            *quiet_until_ms = now_ms + limits::WEBHOOK_MISS_INTERVAL_MS;
            self.tell(channel, Happened::CacheMiss);
        }
    }

    /// As owner: a client event was ordered.
    pub(super) fn note_client_event(&mut self, channel: &ChannelKey, sent: Box<SentEvent>) {
        self.tell(channel, Happened::ClientEvent(sent));
    }

    /// Puts an event out, if it is wanted.
    pub(super) fn tell(&mut self, channel: &ChannelKey, what: Happened) {
        let event = WebhookEvent { app: channel.app, channel: channel.name.clone(), unix_ms: self.now.unix_ms, what };
        if self.is_told(channel, event.kind()) {
            self.outputs.push_back(Output::Webhook(event));
        }
    }

    /// Tells departures whose time is over.
    pub(super) fn tell_departures_due(&mut self) {
        while self.departures.due_ms().is_some_and(|due_ms| due_ms <= self.clock.judged_ms()) {
            self.tell_first_departure();
        }
    }

    /// Tells all departures: who was sent away by a drain cannot come back here.
    pub(super) fn tell_all_departures(&mut self) {
        while self.departures.due_ms().is_some() {
            self.tell_first_departure();
        }
    }

    fn tell_first_departure(&mut self) {
        if let Some(departure) = self.departures.pop() {
            self.tell_departure(departure);
        }
    }

    fn tell_departure(&mut self, departure: Departure) {
        let what = match departure.user_id {
            Some(user_id) => Happened::MemberRemoved { user_id },
            None => Happened::ChannelVacated,
        };
        self.tell(&departure.channel, what);
    }

    /// Somebody left for now; while draining, for good.
    fn depart(&mut self, channel: &ChannelKey, user_id: Option<Arc<str>>) {
        let hash = self.departure_hash(channel, user_id.as_deref());
        let due_ms = self.clock.served_ms() + limits::WEBHOOK_DEPARTURE_MS;
        let departure = Departure { due_ms, hash, channel: channel.clone(), user_id };
        let told_now = if self.drain.is_some() { Some(departure) } else { self.departures.push(departure) };
        if let Some(departure) = told_now {
            self.tell_departure(departure);
        }
    }

    /// Forgets a departure that was not told yet; false when there was none.
    fn came_back(&mut self, channel: &ChannelKey, user_id: Option<&str>) -> bool {
        let hash = self.departure_hash(channel, user_id);
        self.departures.cancel(hash, channel, user_id)
    }

    /// Channels have a hash under the process's secret; of users, whose ids peers choose, so is it made (threat T12).
    fn departure_hash(&self, channel: &ChannelKey, user_id: Option<&str>) -> u64 {
        let Some(user_id) = user_id else { return channel.hash };
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(&self.config.boot_secret);
        hasher.write_u64(channel.hash);
        hasher.write(user_id.as_bytes());
        hasher.finish()
    }

    /// Both sides are followed if either is wanted: a return is not told where the departure was not.
    fn tells_either(&self, channel: &ChannelKey, kinds: [WebhookKind; 2]) -> bool {
        let app = self.directory.app(channel.app);
        app.is_some_and(|app| kinds.into_iter().any(|kind| app.wants(kind)))
    }
}

const OCCUPANCY: [WebhookKind; 2] = [WebhookKind::ChannelOccupied, WebhookKind::ChannelVacated];
const MEMBERS: [WebhookKind; 2] = [WebhookKind::MemberAdded, WebhookKind::MemberRemoved];
