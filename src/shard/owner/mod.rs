//! The channels that this shard owns: it orders their events and records which shards have subscribers.

mod admission;
mod cache;
mod counts;
mod history;
mod polls;
mod roster;
mod unoccupied;
mod webhooks;

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::api::answer::Counts;
use crate::app::{AppSerial, Directory};
use crate::channel::cache::CachedEvent;
use crate::channel::history::{Histories, Order, RecordIndex};
use crate::channel::name::Modifiers;
use crate::channel::roster::Roster;
use crate::index::{OwnedIndex, ShardIndex};
use crate::limits;
use crate::shard::context::Context;
use crate::shard::keyed_slab::{Keyed, KeyedSlab};
use crate::shard::mail::{
    ChannelKey, ChannelMessage, ConnectionRef, HistoryAnswer, HttpMessage, OwnerMessage, PendingId, PublishItem,
    QuotaMessage, Reader,
};
use crate::shard::quota::Quota;
use admission::ChannelAdmission;
use cache::Caches;
use counts::{CountCause, CountReport};
pub(super) use history::{keeps_history, sequence_of};
use polls::HeldPolls;
use roster::{PendingRoster, Rosters};
use unoccupied::Unoccupied;
use webhooks::Debounce;

/// The channels that a shard owns.
pub(super) struct Owner {
    channels: KeyedSlab<OwnedIndex, OwnedChannel>,
    /// The last events of channels.
    histories: Histories,
    /// Events kept for cache channels.
    caches: Caches,
    /// Presence channels with changes to report.
    rosters: Rosters,
    /// Large channels whose count is not reported before a time, in the order of these times.
    counts_due: VecDeque<(u64, ChannelKey)>,
    /// Departures that webhooks report later, or not at all.
    debounce: Debounce,
    /// Channels that other shards consider unoccupied.
    unoccupied: Unoccupied,
    /// Polls that wait for an event.
    polls: HeldPolls,
}

/// State of a channel at its owner; exists while anyone is subscribed, an event is cached, or its history is known.
pub(super) struct OwnedChannel {
    key: ChannelKey,
    interests: SmallVec<[Interest; 2]>,
    /// Its history, if anything is known about it.
    record: Option<RecordIndex>,
    /// State that only some channels have.
    cold: Option<Box<ColdState>>,
}

/// State that public and private channels without modifiers do not need.
#[derive(Default)]
struct ColdState {
    /// The members, on presence channels.
    roster: Option<Roster>,
    /// Changes of its roster that are not reported yet.
    pending: Option<Box<PendingRoster>>,
    /// The last event, on cache channels.
    cached: Option<CachedEvent>,
    /// The last reported count, if the app wants it.
    count_report: Option<CountReport>,
    /// Until this time no other cache miss is reported to webhooks, in ms of the monotonic clock.
    miss_quiet_until_ms: u64,
    /// Whether it counts towards its app's limit of channels, if there is one.
    admission: ChannelAdmission,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// The HTTP API.
    Http,
    /// A WebSocket.
    Client,
}

/// A source of subscribers of a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    /// A shard of this process.
    Shard(ShardIndex),
}

/// The subscribers of one source.
struct Interest {
    source: Source,
    /// Subscribed connections there.
    count: u32,
    /// An event could not be sent there; nothing is sent until its subscribers are closed.
    gap: bool,
}

impl Owner {
    /// Without channels; the histories of all apps may have this many bytes.
    pub(super) fn new(history_bytes_max: usize) -> Self {
        Self {
            channels: KeyedSlab::default(),
            histories: Histories::new(history_bytes_max),
            caches: Caches::default(),
            rosters: Rosters::default(),
            counts_due: VecDeque::new(),
            debounce: Debounce::default(),
            unoccupied: Unoccupied::default(),
            polls: HeldPolls::default(),
        }
    }

    /// Handles mail to the owner of a channel. A join may have to wait until the app's counter has admitted the
    /// channel, and until no shard considers it unoccupied.
    pub(super) fn handle(&mut self, context: &mut Context, quota: &Quota, from: ShardIndex, message: OwnerMessage) {
        if let OwnerMessage::Subscribers { channel, count: 1.., .. }
        | OwnerMessage::Join { channel, .. }
        | OwnerMessage::Observe { channel, .. } = &message
        {
            let hash = channel.hash;
            if self.must_recall(hash) {
                return self.hold_until_recalled(context, hash, from, message);
            }
            if self.must_open(context, channel) {
                let channel = channel.clone();
                return self.hold_join(context, &channel, from, message);
            }
        }
        match message {
            OwnerMessage::Subscribers { channel, count, joiners, readers } => {
                self.record_subscribers(context, from, channel, (count, joiners), readers);
            }
            OwnerMessage::ReadPast { channel, connection, after } => {
                let bytes_max = limits::RESUME_PART_BYTES;
                let continued = self.read_history(context, &channel, Ok(after), bytes_max, usize::MAX);
                context.send(from, ChannelMessage::Past { channel, connection, continued });
            }
            OwnerMessage::Join { channel, join } => self.join(context, from, channel, join),
            OwnerMessage::Poll { request, channels, events_max, bytes_max } => {
                self.poll(context, (from, request), channels, (events_max, bytes_max));
            }
            OwnerMessage::EndPoll { request } => self.end_poll(from, request),
            OwnerMessage::Observe { channel, reader } => self.observe(context, from, &channel, reader),
            OwnerMessage::Unobserve { channel } => self.unobserve(context, from, &channel),
            OwnerMessage::Leave { channel, user_id } => self.leave(context, from, &channel, &user_id),
            OwnerMessage::Publish { request, counts, items } => {
                self.publish(context, quota, from, request, counts, items);
            }
            OwnerMessage::GapClosed { channel } => self.handle_gap_closed(context, from, &channel),
            OwnerMessage::ChannelOpened { channel, admitted, channels_max } => {
                self.handle_channel_opened(context, quota, &channel, admitted, channels_max);
            }
            OwnerMessage::RecallNoted { hash } => self.handle_recall_noted(context, quota, hash),
        }
    }

    /// The store changed.
    pub(super) fn handle_directory(&mut self, context: &mut Context, before: &Directory) {
        self.forget_cached_of_deleted_apps(context);
        self.restart_changed_histories(context, before);
        self.count_channels_of_limited_apps(context, before);
    }

    /// When a cached event may have expired, on the monotonic clock.
    pub(super) fn cache_due_ms(&self) -> Option<u64> {
        self.caches.due_ms()
    }

    /// When joiners that wait for memory are due to be checked, on the monotonic clock.
    pub(super) fn joiners_due_ms(&self) -> Option<u64> {
        self.rosters.due_ms()
    }

    /// When the count of a large channel is due, on the monotonic clock.
    pub(super) fn counts_due_ms(&self) -> Option<u64> {
        self.counts_due.front().map(|(at_ms, _)| *at_ms)
    }

    /// When the first departure is to be reported, on the service clock.
    pub(super) fn departures_due_ms(&self) -> Option<u64> {
        self.debounce.due_ms()
    }

    /// Channels that this shard owns.
    pub(super) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Events cached, and their bytes.
    pub(super) fn cached_count(&self) -> (usize, usize) {
        (self.caches.events(), self.caches.bytes())
    }

    /// True when a channel of this shard has no subscriber, no cached event and no history.
    pub(super) fn is_unoccupied(&self, app: AppSerial, name: &str, hash: u64) -> bool {
        self.channels.find(hash, |owned| owned.key.names(app, name, hash)).is_none()
    }

    /// Number of entries of the table of channels.
    pub(super) fn table_len(&self) -> usize {
        self.channels.capacity()
    }

    /// The channels in at most this many table entries from this one on, and where the next page begins, if there is
    /// one.
    pub(super) fn page(&self, from: u32, places_max: usize) -> (impl Iterator<Item = &OwnedChannel>, Option<u32>) {
        let start = from as usize;
        let end = self.channels.capacity().min(start + places_max).max(start);
        let owned = (start..end).filter_map(|at| self.channels.get(OwnedIndex::from(at)));
        (owned, (end < self.channels.capacity()).then_some(end as u32))
    }

    /// A shard's number of subscribers changed (public and private channels). `joiners` of them wait for the answer: it
    /// includes the cached event, and what `readers` missed.
    pub(in crate::shard) fn record_subscribers(
        &mut self,
        context: &mut Context,
        from: ShardIndex,
        channel: ChannelKey,
        (mut count, mut joiners): (u32, u32),
        readers: Vec<Reader>,
    ) {
        let wants_position = !readers.is_empty();
        let resumed = self.resume(context, &channel, readers);
        let refused = resumed.iter().filter(|resumed| resumed.refused).count() as u32;
        (count, joiners) = (count - refused, joiners - refused);
        let (mut before, mut others) = (0, 0);
        if count > 0 {
            let index = self.find_or_insert(&channel);
            before = std::mem::replace(&mut self.channels[index].interest(Source::Shard(from)).count, count);
            others = self.channels[index].subscriber_count() - count;
            if wants_position {
                self.open_history(context, index);
            }
            self.occupy(index);
        } else if let Some(index) = self.find(&channel) {
            before = std::mem::take(&mut self.channels[index].interest(Source::Shard(from)).count);
            others = self.channels[index].subscriber_count();
            self.forget_if_unused(context, index);
        }
        let position = if wants_position { self.position(context, &channel) } else { None };
        // Readers that continue without a gap need no cached event (R-HIST-13).
        let complete = resumed.iter().filter(|resumed| !resumed.refused && !resumed.needs_cached()).count() as u32;
        let cached = if joiners > complete { self.cached_frame(context, &channel) } else { None };
        let is_miss = joiners > complete && cached.is_none() && Modifiers::of(&channel.name).cache;
        let answer = wants_position.then(|| Box::new(HistoryAnswer { position, resumed }));
        context.send(from, ChannelMessage::Recorded { channel: channel.clone(), cached, answer });
        self.note_occupancy(context, &channel, others + before, others + count);
        if is_miss {
            self.note_cache_miss(context, &channel);
        }
        if joiners > 0 || before != count {
            let cause = if before == count { CountCause::Asked } else { CountCause::Changed };
            self.report_count(context, &channel, cause);
        }
    }

    /// Events of one request: ordered, forwarded, and answered.
    pub(in crate::shard) fn publish(
        &mut self,
        context: &mut Context,
        quota: &Quota,
        from: ShardIndex,
        request: Option<PendingId>,
        counts: bool,
        items: Vec<PublishItem>,
    ) {
        let (mut counted, mut unoccupied) = (Vec::new(), Vec::new());
        let origin = if request.is_some() { Origin::Http } else { Origin::Client };
        for item in items {
            let (app, hash, cached) = (item.channel.app, item.channel.hash, item.cache.is_some());
            let occupied = self.accept(context, origin, counts, item, &mut counted);
            if !occupied && !cached && origin == Origin::Http && self.may_notify(context, quota, from, app, hash) {
                unoccupied.push(hash);
            }
        }
        if let Some(request) = request {
            context.send(from, HttpMessage::Accepted { request, counts: counted, unoccupied });
        }
    }

    /// One event: ordered and forwarded. True when its channel is occupied, or has a history or an event cached.
    pub(in crate::shard) fn accept(
        &mut self,
        context: &mut Context,
        origin: Origin,
        counts: bool,
        item: PublishItem,
        counted: &mut Vec<(u32, Counts)>,
    ) -> bool {
        self.count_events(context, item.channel.app, origin, 1);
        if counts {
            counted.push((item.number, self.counts_of(&item.channel)));
        }
        let order = if origin == Origin::Http { self.store(context, &item.channel, &item.frame) } else { None };
        if let Some(data_bytes) = item.cache {
            self.cache(context, &item.channel, item.frame.clone(), data_bytes);
        }
        let found = self.find(&item.channel);
        if let Some(index) = found {
            self.report_changes(context, index);
            self.fan_out(context, index, item.frame, order, item.exclude);
        }
        if let Some(sent) = item.sent {
            self.note_client_event(context, &item.channel, sent);
        }
        found.is_some() || order.is_some()
    }

    /// Counts events that were accepted.
    pub(in crate::shard) fn count_events(&self, context: &mut Context, app: AppSerial, origin: Origin, events: u32) {
        context.metrics.stats.events += u64::from(events);
        let counters = context.metrics.app_counters.of(app);
        match origin {
            Origin::Http => counters.events += u64::from(events),
            Origin::Client => counters.client_events += u64::from(events),
        }
    }

    /// Sends one event to every shard with subscribers. If a shard has no credit, its subscribers of this channel are
    /// closed instead, so that no client misses an event without noticing.
    pub(in crate::shard) fn fan_out(
        &mut self,
        context: &mut Context,
        index: OwnedIndex,
        frame: Bytes,
        order: Option<Order>,
        exclude: Option<ConnectionRef>,
    ) {
        let bytes_max = context.outbox_bytes_of_settings(self.channels[index].key.app.0);
        let cost = limits::mail_cost(frame.len(), bytes_max) as u32;
        for at in 0..self.channels[index].interests.len() {
            let owned = &self.channels[index];
            let interest = &owned.interests[at];
            if interest.count == 0 || interest.gap {
                continue;
            }
            let (Source::Shard(to), channel) = (interest.source, owned.key.clone());
            let accepted_us = context.metrics.turn_us;
            let app = channel.app.0;
            let event = ChannelMessage::Deliver { channel, frame: frame.clone(), order, exclude, accepted_us, cost };
            if context.send_paid(to, app, event).is_err() {
                let owned = &mut self.channels[index];
                owned.interests[at].gap = true;
                context.metrics.counted.gaps += 1;
                let channel = owned.key.clone();
                context.send(to, ChannelMessage::Gap { channel });
            }
        }
    }

    /// The subscribers affected by a gap are closed: events are sent again.
    pub(in crate::shard) fn handle_gap_closed(
        &mut self,
        context: &mut Context,
        from: ShardIndex,
        channel: &ChannelKey,
    ) {
        if let Some(index) = self.find(channel) {
            self.channels[index].interest(Source::Shard(from)).gap = false;
            self.forget_if_unused(context, index);
        }
    }

    /// Counts of a channel; zero when it has no subscribers.
    pub(in crate::shard) fn counts_of(&self, channel: &ChannelKey) -> Counts {
        let index = self.find(channel);
        index.map_or(Counts { user_count: Some(0), subscription_count: Some(0) }, |index| self.channels[index].counts())
    }

    /// The roster of a presence channel that has members.
    pub(in crate::shard) fn roster_of(&mut self, channel: &ChannelKey) -> Option<&mut Roster> {
        let index = self.find(channel)?;
        self.channels[index].cold.as_mut()?.roster.as_mut()
    }

    fn find(&self, channel: &ChannelKey) -> Option<OwnedIndex> {
        self.channels.find(channel.hash, |owned| owned.key.is(channel))
    }

    /// The channel's state, created if there is none.
    fn find_or_insert(&mut self, channel: &ChannelKey) -> OwnedIndex {
        self.find(channel).unwrap_or_else(|| {
            let (key, interests) = (channel.clone(), SmallVec::new());
            self.channels.insert(OwnedChannel { key, interests, record: None, cold: None })
        })
    }

    /// Removes the state of a channel without subscribers, unless it has a cached event or a history.
    pub(in crate::shard) fn forget_if_unused(&mut self, context: &mut Context, index: OwnedIndex) {
        let owned = &mut self.channels[index];
        owned.interests.retain(|interest| interest.count > 0 || interest.gap);
        if !owned.interests.is_empty() {
            return;
        }
        let mut counted = false;
        if let Some(cold) = &mut owned.cold {
            if let ChannelAdmission::Asked(_) = cold.admission {
                return;
            }
            (cold.roster, cold.pending, cold.count_report, cold.miss_quiet_until_ms) = (None, None, None, 0);
            counted = matches!(std::mem::take(&mut cold.admission), ChannelAdmission::Counted);
        }
        let has_history = owned.record.is_some();
        let (app, hash, unused) = (owned.key.app, owned.key.hash, owned.cached().is_none());
        if counted {
            context.send(context.counter_of(app), QuotaMessage::CloseChannel { app, hash });
        }
        if has_history {
            self.vacate(context, index);
        } else if unused {
            self.channels.remove(index);
        }
    }
}

impl OwnedChannel {
    fn interest(&mut self, source: Source) -> &mut Interest {
        let at = self.interests.iter().position(|interest| interest.source == source).unwrap_or_else(|| {
            self.interests.push(Interest { source, count: 0, gap: false });
            self.interests.len() - 1
        });
        &mut self.interests[at]
    }

    /// One more subscriber on that shard.
    fn count_subscriber(&mut self, shard: ShardIndex) {
        self.interest(Source::Shard(shard)).count += 1;
    }

    /// One subscriber fewer on that shard.
    fn discount_subscriber(&mut self, shard: ShardIndex) {
        self.interest(Source::Shard(shard)).count -= 1;
    }

    fn subscriber_count(&self) -> u32 {
        self.interests.iter().map(|interest| interest.count).sum()
    }

    /// The sources whose subscribers have missed nothing so far.
    fn recipients(&self) -> impl Iterator<Item = Source> {
        self.interests.iter().filter(|interest| interest.count > 0 && !interest.gap).map(|interest| interest.source)
    }

    /// The state that only some channels have, created if there is none.
    fn cold_or_default(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_default()
    }

    /// True when a first subscriber must wait for the counter of the app's channels.
    fn must_open(&self) -> bool {
        match self.cold.as_ref().map(|cold| &cold.admission) {
            None | Some(ChannelAdmission::Uncounted) => self.subscriber_count() == 0,
            Some(ChannelAdmission::Asked(_)) => true,
            Some(ChannelAdmission::Counted) => false,
        }
    }

    /// True when it is occupied and the counter of the app's channels has not recorded it.
    fn is_uncounted(&self) -> bool {
        let uncounted = self.cold.as_ref().is_none_or(|cold| matches!(cold.admission, ChannelAdmission::Uncounted));
        uncounted && self.subscriber_count() > 0
    }

    fn roster(&self) -> Option<&Roster> {
        self.cold.as_ref()?.roster.as_ref()
    }

    fn cached(&self) -> Option<&CachedEvent> {
        self.cold.as_ref()?.cached.as_ref()
    }

    fn pending_mut(&mut self) -> Option<&mut PendingRoster> {
        self.cold.as_mut()?.pending.as_deref_mut()
    }

    fn count_report(&self) -> Option<&CountReport> {
        self.cold.as_ref()?.count_report.as_ref()
    }

    fn take_cached(&mut self) -> Option<CachedEvent> {
        self.cold.as_mut()?.cached.take()
    }

    pub(in crate::shard) fn key(&self) -> &ChannelKey {
        &self.key
    }

    pub(in crate::shard) fn counts(&self) -> Counts {
        Counts {
            subscription_count: Some(self.subscriber_count()),
            user_count: Some(self.roster().map_or(0, Roster::count)),
        }
    }
}

impl Keyed for OwnedChannel {
    fn hash(&self) -> u64 {
        self.key.hash
    }
}
