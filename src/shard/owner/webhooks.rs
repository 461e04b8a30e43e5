//! Events of channels for the webhook endpoints of their apps (P-HOOK rules). The owner orders everything that happens
//! on a channel, so its events are sent in order; an app whose endpoints do not want a kind of event costs one check of
//! a set of bits.
//!
//! Vacated channels and removed members are debounced: they are reported three seconds later, and not at all if a
//! client comes back meanwhile; then the return is not reported either (P-HOOK-8). The messages to clients are not
//! delayed.
//!
//! ```text
//!          left                         due
//! there ---------> departure waits ------------> reported "left"
//!   ^                    |
//!   +--------------------+  came back: nothing is reported
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::Owner;
use crate::app::AppSerial;
use crate::app::webhook::WebhookKind;
use crate::limits;
use crate::protocol::webhook::{Happened, SentEvent, WebhookEvent};
use crate::shard::context::Context;
use crate::shard::io::Output;
use crate::shard::mail::ChannelKey;

/// Departures that are not sent yet.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    /// By number: in the order in which they happened, which is that of their deadlines.
    waiting: BTreeMap<u64, Departure>,
    /// Number of departures so far.
    numbered: u64,
    /// Numbers of the departures of each app that has any: apps share the bound (P-STAT-9).
    by_app: BTreeMap<AppSerial, BTreeSet<u64>>,
    /// Numbers by hash.
    by_hash: HashTable<u64>,
}

/// A channel without subscribers, or a user who left a presence channel.
#[derive(Debug)]
struct Departure {
    due_ms: u64,
    hash: u64,
    channel: ChannelKey,
    user_id: Option<Arc<str>>,
}

impl Debounce {
    /// When the first departure is to be sent, in ms of the service clock.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(_, departure)| departure.due_ms)
    }

    /// Adds a departure. If its app already has its full share waiting, the oldest of that app is returned, to be sent
    /// early.
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

    /// Removes a departure: the user or a subscriber came back. True when there was one.
    fn cancel(&mut self, hash: u64, channel: &ChannelKey, user_id: Option<&str>) -> bool {
        let is = |number: &u64| {
            let departure = &self.waiting[number];
            departure.channel.is(channel) && departure.user_id.as_deref() == user_id && departure.hash == hash
        };
        let Some(number) = self.by_hash.find(hash, is).copied() else { return false };
        self.take(number);
        true
    }

    /// Takes the oldest departure.
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

impl Owner {
    /// True when an endpoint of the channel's app wants events of this kind.
    pub(super) fn is_wanted(&self, context: &Context, channel: &ChannelKey, kind: WebhookKind) -> bool {
        context.directory.app(channel.app).is_some_and(|app| app.wants(kind))
    }

    /// The number of subscribers went from `before` to `count`.
    pub(super) fn note_occupancy(&mut self, context: &mut Context, channel: &ChannelKey, before: u32, count: u32) {
        if (before == 0) == (count == 0) || !self.follows_either(context, channel, OCCUPANCY) {
            return;
        }
        if count == 0 {
            self.depart(context, channel, None);
        } else if !self.came_back(context, channel, None) {
            self.notify(context, channel, Happened::ChannelOccupied { subscription_count: count });
        }
    }

    /// A user's first connection joined.
    pub(super) fn note_member_added(&mut self, context: &mut Context, channel: &ChannelKey, user_id: &Arc<str>) {
        if self.follows_either(context, channel, MEMBERS) && !self.came_back(context, channel, Some(user_id)) {
            self.notify(context, channel, Happened::MemberAdded { user_id: user_id.clone() });
        }
    }

    /// A user's last connection left.
    pub(super) fn note_member_removed(&mut self, context: &mut Context, channel: &ChannelKey, user_id: &str) {
        if self.follows_either(context, channel, MEMBERS) {
            self.depart(context, channel, Some(user_id.into()));
        }
    }

    /// A client joined a cache channel that has no event. Reported once for all clients that join within a second
    /// (P-CACHE-2).
    pub(super) fn note_cache_miss(&mut self, context: &mut Context, channel: &ChannelKey) {
        if !self.is_wanted(context, channel, WebhookKind::CacheMiss) {
            return;
        }
        let now_ms = context.now.monotonic_ms;
        let index = self.find(channel).expect("a channel that is joined has state");
        let quiet_until_ms = &mut self.channels[index].cold_or_default().miss_quiet_until_ms;
        if *quiet_until_ms <= now_ms {
            *quiet_until_ms = now_ms + limits::WEBHOOK_MISS_INTERVAL_MS;
            self.notify(context, channel, Happened::CacheMiss);
        }
    }

    /// A client event was ordered.
    pub(super) fn note_client_event(&self, context: &mut Context, channel: &ChannelKey, sent: Box<SentEvent>) {
        self.notify(context, channel, Happened::ClientEvent(sent));
    }

    /// Outputs an event, if it is wanted.
    pub(super) fn notify(&self, context: &mut Context, channel: &ChannelKey, what: Happened) {
        let event =
            WebhookEvent { app: channel.app, channel: channel.name.clone(), unix_ms: context.now.unix_ms, what };
        if self.is_wanted(context, channel, event.kind()) {
            context.outputs.push_back(Output::Webhook(event));
        }
    }

    /// Reports departures that are due.
    pub(in crate::shard) fn report_due_departures(&mut self, context: &mut Context) {
        while self.debounce.due_ms().is_some_and(|due_ms| due_ms <= context.clock.judged_ms()) {
            self.report_first_departure(context);
        }
    }

    /// Reports all departures: clients that were disconnected by a drain cannot come back here.
    pub(in crate::shard) fn report_all_departures(&mut self, context: &mut Context) {
        while self.debounce.due_ms().is_some() {
            self.report_first_departure(context);
        }
    }

    fn report_first_departure(&mut self, context: &mut Context) {
        if let Some(departure) = self.debounce.pop() {
            self.report_departure(context, departure);
        }
    }

    fn report_departure(&self, context: &mut Context, departure: Departure) {
        let what = match departure.user_id {
            Some(user_id) => Happened::MemberRemoved { user_id },
            None => Happened::ChannelVacated,
        };
        self.notify(context, &departure.channel, what);
    }

    /// Records a departure that may be temporary; while draining, it is final.
    fn depart(&mut self, context: &mut Context, channel: &ChannelKey, user_id: Option<Arc<str>>) {
        let hash = self.departure_hash(context, channel, user_id.as_deref());
        let due_ms = context.clock.served_ms() + limits::WEBHOOK_DEPARTURE_MS;
        let departure = Departure { due_ms, hash, channel: channel.clone(), user_id };
        let told_now = if context.is_draining { Some(departure) } else { self.debounce.push(departure) };
        if let Some(departure) = told_now {
            self.report_departure(context, departure);
        }
    }

    /// Removes a departure that was not reported yet; false when there was none.
    fn came_back(&mut self, context: &Context, channel: &ChannelKey, user_id: Option<&str>) -> bool {
        let hash = self.departure_hash(context, channel, user_id);
        self.debounce.cancel(hash, channel, user_id)
    }

    /// Channels have a hash keyed with the process's secret; the hash for users, whose ids peers choose, is keyed the
    /// same way (threat T12).
    fn departure_hash(&self, context: &Context, channel: &ChannelKey, user_id: Option<&str>) -> u64 {
        let Some(user_id) = user_id else { return channel.hash };
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(&context.config.boot_secret);
        hasher.write_u64(channel.hash);
        hasher.write(user_id.as_bytes());
        hasher.finish()
    }

    /// Both directions are tracked if either is wanted: a return is not reported if the departure was not.
    fn follows_either(&self, context: &Context, channel: &ChannelKey, kinds: [WebhookKind; 2]) -> bool {
        let app = context.directory.app(channel.app);
        app.is_some_and(|app| kinds.into_iter().any(|kind| app.wants(kind)))
    }
}

const OCCUPANCY: [WebhookKind; 2] = [WebhookKind::ChannelOccupied, WebhookKind::ChannelVacated];
const MEMBERS: [WebhookKind; 2] = [WebhookKind::MemberAdded, WebhookKind::MemberRemoved];
