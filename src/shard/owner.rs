//! What a channel's owner does: it orders events and knows which shards have subscribers. Who is there on presence
//! channels is told in `roster`.

use bytes::Bytes;
use smallvec::SmallVec;

use super::count::{CountCause, Told};
use super::mail::{Anywhere, Body, ChannelKey, PendingId, PublishItem};
use super::opening::Opening;
use super::roster::Untold;
use super::{Shard, ShardIndex};
use crate::api::answer::Counts;
use crate::app::AppSerial;
use crate::channel::cache::CachedEvent;
use crate::channel::name::Modifiers;
use crate::channel::roster::Roster;
use crate::limits;

/// State of a channel with its owner; exists while anyone is subscribed or an event is cached.
pub(super) struct OwnedChannel {
    key: ChannelKey,
    interests: SmallVec<[Interest; 2]>,
    /// What only some channels have.
    more: Option<Box<More>>,
}

/// State that public and private channels without modifiers do without.
#[derive(Default)]
pub(super) struct More {
    /// Who is there, on presence channels.
    pub(super) roster: Option<Roster>,
    /// What it has yet to tell of its roster.
    pub(super) untold: Option<Box<Untold>>,
    /// The last event, on cache channels.
    pub(super) cached: Option<CachedEvent>,
    /// How many they are, where the app wants it told.
    pub(super) told: Option<Told>,
    /// Until then a cache miss is not told to webhooks again, in ms of the monotonic clock.
    pub(super) miss_quiet_until_ms: u64,
    /// How it stands with its app's limit of channels, where there is one.
    pub(super) opening: Opening,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// The HTTP API.
    Http,
    /// A WebSocket.
    Client,
}

/// A shard with subscribers.
struct Interest {
    shard: ShardIndex,
    /// Subscribed connections there.
    count: u32,
    /// An event could not be sent there; nothing is until its subscribers are closed.
    gap: bool,
}

impl Shard {
    /// A shard's number of subscribers changed (public and private channels). `joiners` of them wait for the answer:
    /// they learn with it what is cached.
    pub(super) fn own_subscribers(&mut self, from: ShardIndex, channel: ChannelKey, count: u32, joiners: u32) {
        let (mut before, mut others) = (0, 0);
        if count > 0 {
            let index = self.owned_index(&channel);
            before = std::mem::replace(&mut self.owned[index].interest(from).count, count);
            others = self.owned[index].subscriber_count() - count;
        } else if let Some(index) = self.find_owned(&channel) {
            before = std::mem::take(&mut self.owned[index].interest(from).count);
            others = self.owned[index].subscriber_count();
            self.forget_if_unused(index);
        }
        let cached = if joiners > 0 { self.cached_frame(&channel) } else { None };
        let is_miss = joiners > 0 && cached.is_none() && Modifiers::of(&channel.name).cache;
        self.send(from, Body::Recorded { channel: channel.clone(), cached });
        self.note_occupancy(&channel, others + before, others + count);
        if is_miss {
            self.note_cache_miss(&channel);
        }
        if joiners > 0 || before != count {
            let cause = if before == count { CountCause::Asked } else { CountCause::Changed };
            self.tell_count(&channel, cause);
        }
    }

    /// Events of one request: ordered, sent on, and answered.
    pub(super) fn own_publish(
        &mut self,
        from: ShardIndex,
        request: Option<PendingId>,
        counts: bool,
        items: Vec<PublishItem>,
    ) {
        let (mut counted, mut unheard) = (Vec::new(), Vec::new());
        let source = if request.is_some() { Source::Http } else { Source::Client };
        for item in items {
            let (app, hash, cached) = (item.channel.app, item.channel.hash, item.cache.is_some());
            let heard = self.own_event(source, counts, item, &mut counted);
            if !heard && !cached && source == Source::Http && self.may_notify(from, app, hash) {
                unheard.push(hash);
            }
        }
        if let Some(request) = request {
            self.send(from, Body::Accepted { request, counts: counted, unheard });
        }
    }

    /// One event: ordered and sent on. Says whether anybody hears its channel.
    pub(super) fn own_event(
        &mut self,
        source: Source,
        counts: bool,
        item: PublishItem,
        counted: &mut Vec<(u32, Counts)>,
    ) -> bool {
        self.count_events(item.channel.app, source, 1);
        if counts {
            counted.push((item.number, self.counts_of(&item.channel)));
        }
        if let Some(data_bytes) = item.cache {
            self.own_cache(&item.channel, item.frame.clone(), data_bytes);
        }
        let found = self.find_owned(&item.channel);
        if let Some(index) = found {
            self.tell_changes(index);
            self.fan_out(index, item.frame, item.exclude);
        }
        if let Some(sent) = item.sent {
            self.note_client_event(&item.channel, sent);
        }
        found.is_some()
    }

    /// Counts events that were accepted.
    pub(super) fn count_events(&mut self, app: AppSerial, source: Source, events: u32) {
        self.stats.events += u64::from(events);
        let figures = self.apps.of(app);
        match source {
            Source::Http => figures.events += u64::from(events),
            Source::Client => figures.client_events += u64::from(events),
        }
    }

    /// Sends one event to every shard with subscribers. A shard without credit has its subscribers of this channel
    /// closed instead, so that nobody misses an event without seeing it.
    pub(super) fn fan_out(&mut self, index: usize, frame: Bytes, exclude: Option<Anywhere>) {
        let bytes_max = self.outbox_bytes_of_settings(self.owned[index].key.app.0);
        let cost = limits::mail_cost(frame.len(), bytes_max) as u32;
        for at in 0..self.owned[index].interests.len() {
            let owned = &self.owned[index];
            let interest = &owned.interests[at];
            if interest.count == 0 || interest.gap {
                continue;
            }
            let (to, channel) = (interest.shard, owned.key.clone());
            let accepted_us = self.figures.turn_us;
            let app = channel.app.0;
            let body = Body::Deliver { channel, frame: frame.clone(), exclude, accepted_us, cost };
            if self.send_paid(to, app, body).is_err() {
                let owned = &mut self.owned[index];
                owned.interests[at].gap = true;
                self.figures.counted.gaps += 1;
                let channel = owned.key.clone();
                self.send(to, Body::Gap { channel });
            }
        }
    }

    /// The subscribers that a gap concerned are closed: events flow again.
    pub(super) fn own_gap_closed(&mut self, from: ShardIndex, channel: &ChannelKey) {
        if let Some(index) = self.find_owned(channel) {
            self.owned[index].interest(from).gap = false;
            self.forget_if_unused(index);
        }
    }

    /// Counts of a channel; zero when nobody is there.
    pub(super) fn counts_of(&self, channel: &ChannelKey) -> Counts {
        let index = self.find_owned(channel);
        index.map_or(Counts { user_count: Some(0), subscription_count: Some(0) }, |index| self.owned[index].counts())
    }

    /// The roster of a presence channel that somebody is in.
    pub(super) fn roster_of(&mut self, channel: &ChannelKey) -> Option<&mut Roster> {
        let index = self.find_owned(channel)?;
        self.owned[index].more.as_mut()?.roster.as_mut()
    }

    pub(super) fn find_owned(&self, channel: &ChannelKey) -> Option<usize> {
        let found = self.owned_by_name.find(channel.hash, |&at| self.owned[at as usize].key.is(channel));
        found.map(|&at| at as usize)
    }

    /// The channel's state, made when there is none.
    pub(super) fn owned_index(&mut self, channel: &ChannelKey) -> usize {
        if let Some(index) = self.find_owned(channel) {
            return index;
        }
        let index = self.owned.insert(OwnedChannel { key: channel.clone(), interests: SmallVec::new(), more: None });
        let owned = &self.owned;
        self.owned_by_name.insert_unique(channel.hash, index as u32, |&at| owned[at as usize].key.hash);
        index
    }

    pub(super) fn forget_if_unused(&mut self, index: usize) {
        let owned = &mut self.owned[index];
        owned.interests.retain(|interest| interest.count > 0 || interest.gap);
        if !owned.interests.is_empty() {
            return;
        }
        let mut counted = false;
        if let Some(more) = &mut owned.more {
            if let Opening::Asked(_) = more.opening {
                return;
            }
            (more.roster, more.untold, more.told, more.miss_quiet_until_ms) = (None, None, None, 0);
            counted = matches!(std::mem::take(&mut more.opening), Opening::Counted);
        }
        let (app, hash, unused) = (owned.key.app, owned.key.hash, owned.cached().is_none());
        if counted {
            self.send(self.counter_of(app), Body::CloseChannel { app, hash });
        }
        if unused {
            let entry = self.owned_by_name.find_entry(hash, |&at| at as usize == index);
            entry.expect("every owned channel is found by its name").remove();
            self.owned.remove(index);
        }
    }
}

impl OwnedChannel {
    fn interest(&mut self, shard: ShardIndex) -> &mut Interest {
        let at = self.interests.iter().position(|interest| interest.shard == shard).unwrap_or_else(|| {
            self.interests.push(Interest { shard, count: 0, gap: false });
            self.interests.len() - 1
        });
        &mut self.interests[at]
    }

    /// One subscriber more on that shard.
    pub(super) fn count_subscriber(&mut self, shard: ShardIndex) {
        self.interest(shard).count += 1;
    }

    /// One subscriber less on that shard.
    pub(super) fn discount_subscriber(&mut self, shard: ShardIndex) {
        self.interest(shard).count -= 1;
    }

    pub(super) fn subscriber_count(&self) -> u32 {
        self.interests.iter().map(|interest| interest.count).sum()
    }

    /// The shards with subscribers who miss nothing so far.
    pub(super) fn recipients(&self) -> impl Iterator<Item = ShardIndex> {
        self.interests.iter().filter(|interest| interest.count > 0 && !interest.gap).map(|interest| interest.shard)
    }

    /// What only some channels have, made when there is none.
    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// True when a first subscriber must wait for the counter of the app's channels.
    pub(super) fn must_open(&self) -> bool {
        match self.more.as_ref().map(|more| &more.opening) {
            None | Some(Opening::Uncounted) => self.subscriber_count() == 0,
            Some(Opening::Asked(_)) => true,
            Some(Opening::Counted) => false,
        }
    }

    /// True when it is occupied and the counter of the app's channels does not know of it.
    pub(super) fn is_uncounted(&self) -> bool {
        let uncounted = self.more.as_ref().is_none_or(|more| matches!(more.opening, Opening::Uncounted));
        uncounted && self.subscriber_count() > 0
    }

    fn roster(&self) -> Option<&Roster> {
        self.more.as_ref()?.roster.as_ref()
    }

    pub(super) fn cached(&self) -> Option<&CachedEvent> {
        self.more.as_ref()?.cached.as_ref()
    }

    pub(super) fn untold_mut(&mut self) -> Option<&mut Untold> {
        self.more.as_mut()?.untold.as_deref_mut()
    }

    pub(super) fn told(&self) -> Option<&Told> {
        self.more.as_ref()?.told.as_ref()
    }

    pub(super) fn take_cached(&mut self) -> Option<CachedEvent> {
        self.more.as_mut()?.cached.take()
    }

    pub(super) fn key(&self) -> &ChannelKey {
        &self.key
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            subscription_count: Some(self.subscriber_count()),
            user_count: Some(self.roster().map_or(0, Roster::count)),
        }
    }
}

impl ChannelKey {
    /// True when both name the same channel.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.names(other.app, &other.name, other.hash)
    }

    /// True when it is the key of this channel.
    pub(super) fn names(&self, app: AppSerial, name: &str, hash: u64) -> bool {
        self.hash == hash && self.app == app && *self.name == *name
    }
}
