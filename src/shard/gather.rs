//! Questions over HTTP about channels, users and connections (P-HTTP-3 to P-HTTP-5, P-HTTP-8, P-HTTP-9).
//!
//! What a question is about belongs to one shard, which answers it whole; only the list of all channels is gathered
//! from every shard. A shard tells its channels in pages, and looks at no more than one page's worth of places in a
//! millisecond, however many ask: the next page is asked for when the one before has come, and between two turns
//! everything else goes on.
//!
//! What must hold: a channel that is occupied from the beginning to the end of a gathering is listed once.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::quality::FixedState;

use super::mail::{Body, ChannelKey, PendingId};
use super::request::{JSON, Response};
use super::{Shard, ShardIndex};
use crate::api::answer::Counts;
use crate::api::channel::{ChannelInfo, encode_channel, encode_channel_stats};
use crate::api::channel_users::{UserFields, encode_channel_users};
use crate::api::channels::{ChannelList, ChannelsQuery};
use crate::api::connections::encode_connections;
use crate::api::refusal::Refusal;
use crate::app::AppSerial;
use crate::connection::{ConnectionKey, Phase};
use crate::limits;
use crate::metrics::figures::Overload;
use crate::protocol::dialect::Dialect;
use crate::wire::http::Request;

/// A request that awaits what other shards know.
pub(super) struct Gather {
    nonce: u32,
    connection: ConnectionKey,
    ticket: u32,
    dialect: Dialect,
    /// For the list of all channels.
    listing: Option<Box<Listing>>,
}

/// A list of channels under construction.
struct Listing {
    app: AppSerial,
    prefix: Arc<str>,
    list: ChannelList,
    /// Shards that have more to tell.
    awaited: usize,
    /// Hashes of the channels that came in several pages: one that went and came again meanwhile may stand in two.
    /// The hashes are keyed already, so the set needs no secret of its own.
    seen: HashSet<u64, FixedState>,
}

/// What a shard is asked.
#[derive(Debug)]
pub(super) enum Question {
    /// The next page of the channels of an app whose names begin with `prefix`, from this index of the owner's table.
    Channels { app: AppSerial, prefix: Arc<str>, from: u32 },
    /// One channel.
    Channel { channel: ChannelKey, info: ChannelInfo },
    /// One channel, in the deprecated shape.
    Stats { channel: ChannelKey },
    /// The users of a presence channel.
    Users { channel: ChannelKey, fields: UserFields },
    /// The connections of an app.
    Connections { app: AppSerial },
}

/// What it tells.
#[derive(Debug)]
pub(super) enum Reply {
    /// The whole body of the answer.
    Whole(Vec<u8>),
    /// Some channels, and where the next page begins if there is one.
    Page { channels: Vec<Listed>, next: Option<u32> },
}

/// One channel of a page.
#[derive(Debug)]
pub(super) struct Listed {
    name: Arc<str>,
    hash: u64,
    counts: Counts,
}

/// A page that a shard has yet to make.
pub(super) struct AskedPage {
    from: ShardIndex,
    request: PendingId,
    app: AppSerial,
    prefix: Arc<str>,
    index: u32,
}

impl Shard {
    /// Asks the one shard that knows.
    pub(super) fn ask(&mut self, slot: u32, request: &Request<'_>, dialect: Dialect, question: Question) {
        let knows = match &question {
            Question::Channels { app, .. } | Question::Connections { app } => self.counter_of(*app),
            Question::Channel { channel, .. } | Question::Stats { channel } | Question::Users { channel, .. } => {
                self.owner_of(channel)
            }
        };
        let request = self.start_gather(slot, request, dialect, None);
        self.send(knows, Body::Ask { request, question });
    }

    /// Asks every shard for its channels of an app.
    ///
    /// # Errors
    /// 503 when the shard is out of memory.
    pub(super) fn ask_channels(
        &mut self,
        slot: u32,
        request: &Request<'_>,
        dialect: Dialect,
        app: AppSerial,
        query: &ChannelsQuery<'_>,
    ) -> Result<(), Refusal> {
        if self.is_out_of_memory() {
            self.count_overload(Overload::Memory);
            return Err(overloaded());
        }
        let prefix: Arc<str> = (&*query.prefix).into();
        let listing = Listing {
            app,
            prefix: prefix.clone(),
            list: ChannelList::new(query.info),
            awaited: usize::from(self.config.shards),
            seen: HashSet::default(),
        };
        let request = self.start_gather(slot, request, dialect, Some(Box::new(listing)));
        for to in 0..self.config.shards {
            let question = Question::Channels { app, prefix: prefix.clone(), from: 0 };
            self.send(to, Body::Ask { request, question });
        }
        Ok(())
    }

    fn start_gather(
        &mut self,
        slot: u32,
        request: &Request<'_>,
        dialect: Dialect,
        listing: Option<Box<Listing>>,
    ) -> PendingId {
        self.pending_nonce = self.pending_nonce.wrapping_add(1);
        let nonce = self.pending_nonce;
        let (connection, ticket) = (self.key(slot), self.take_ticket(slot, request));
        self.gathered_bytes += listing.as_ref().map_or(0, |listing| listing.bytes());
        let index = self.gathers.insert(Gather { nonce, connection, ticket, dialect, listing });
        PendingId { index: index as u32, nonce }
    }

    /// As the shard that knows: answers, or keeps the page to be made for a turn of its own.
    pub(super) fn handle_question(&mut self, from: ShardIndex, request: PendingId, question: Question) {
        let mut body = Vec::new();
        match question {
            Question::Channels { app, prefix, from: index } => {
                self.asked_pages.push_back(AskedPage { from, request, app, prefix, index });
                return;
            }
            Question::Channel { channel, info } => {
                let cached = self.cached(&channel).and_then(|cached| cached.data(self.now.monotonic_ms));
                encode_channel(&mut body, info, self.counts_of(&channel), cached);
            }
            Question::Stats { channel } => encode_channel_stats(&mut body, self.counts_of(&channel)),
            Question::Users { channel, fields } => {
                let roster = self.roster_of(&channel);
                let members = roster.into_iter().flat_map(|roster| roster.members());
                let users = members.map(|member| (&*member.user_id, member.user_info.as_deref()));
                encode_channel_users(&mut body, fields, users);
            }
            Question::Connections { app } => {
                encode_connections(&mut body, self.app_connections.get(&app).copied().unwrap_or(0));
            }
        }
        self.send(from, Body::Reply { request, reply: Reply::Whole(body) });
    }

    /// Makes pages until as many places of the table were looked at as one page may have; the rest waits for the next
    /// millisecond, so that lists never take more than a part of the shard's time.
    pub(super) fn make_pages(&mut self) {
        if self.now.monotonic_ms < self.pages_due_ms {
            return;
        }
        let mut places = limits::LIST_PAGE_CHANNELS;
        while let Some(page) = self.asked_pages.pop_front() {
            places = places.saturating_sub(self.make_page(&page, places).max(PAGE_PLACES_MIN));
            if places == 0 {
                self.pages_due_ms = self.now.monotonic_ms + 1;
                return;
            }
        }
    }

    /// When the next page may be made, if one is asked for.
    pub(super) fn next_page_ms(&self) -> Option<u64> {
        (!self.asked_pages.is_empty()).then_some(self.pages_due_ms)
    }

    /// Makes one page from at most so many places; gives how many it looked at.
    fn make_page(&mut self, asked: &AskedPage, places_max: usize) -> usize {
        let start = asked.index as usize;
        let end = self.owned.capacity().min(start + places_max).max(start);
        let mut channels = Vec::new();
        for owned in (start..end).filter_map(|index| self.owned.get(index)) {
            let (key, counts) = (owned.key(), owned.counts());
            if key.app == asked.app && key.name.starts_with(&*asked.prefix) && counts.subscription_count > Some(0) {
                channels.push(Listed { name: key.name.clone(), hash: key.hash, counts });
            }
        }
        let next = (end < self.owned.capacity()).then_some(end as u32);
        self.send(asked.from, Body::Reply { request: asked.request, reply: Reply::Page { channels, next } });
        end - start
    }

    /// As the shard that asked. A reply to a gathering that has ended is late and dropped.
    pub(super) fn handle_reply(&mut self, from: ShardIndex, request: PendingId, reply: Reply) {
        let gather = self.gathers.get_mut(request.index as usize).filter(|gather| gather.nonce == request.nonce);
        let Some(gather) = gather else { return };
        let (channels, next) = match reply {
            Reply::Whole(body) => return self.finish_gather(request, &body),
            Reply::Page { channels, next } => (channels, next),
        };
        let connection = gather.connection;
        let listing = gather.listing.as_mut().expect("pages answer a listing");
        let before = listing.bytes();
        let in_pages = next.is_some() || !listing.seen.is_empty();
        for Listed { name, hash, counts } in channels {
            if !in_pages || listing.seen.insert(hash) {
                listing.list.push(&name, counts);
            }
        }
        let (app, prefix) = (listing.app, listing.prefix.clone());
        listing.awaited -= usize::from(next.is_none());
        let done = listing.awaited == 0;
        self.gathered_bytes += listing.bytes() - before;
        let wanted = self.is_live(connection) && self.hot[connection.slot as usize].phase == Phase::Http;
        if !wanted {
            self.take_gather(request);
        } else if self.gathered_bytes > limits::GATHERED_BYTES_MAX {
            self.count_overload(Overload::Gathering);
            self.refuse_gather(request, &overloaded());
        } else if let Some(next) = next {
            self.send(from, Body::Ask { request, question: Question::Channels { app, prefix, from: next } });
        } else if done {
            self.finish_gather(request, &[]);
        }
    }

    /// Answers 200 with the body, or with the list that was gathered.
    fn finish_gather(&mut self, request: PendingId, body: &[u8]) {
        let Gather { connection, ticket, listing, .. } = self.take_gather(request);
        let listed = listing.map(|listing| listing.list.finish());
        let body = listed.as_deref().unwrap_or(body);
        self.finish_request(connection, ticket, &Response { status: 200, content_type: JSON, extra: "", body });
    }

    fn refuse_gather(&mut self, request: PendingId, refusal: &Refusal) {
        let Gather { connection, ticket, dialect, .. } = self.take_gather(request);
        let (content_type, body) = dialect.error_body(refusal.status, &refusal.message);
        let extra = refusal.retry_after();
        let response = Response { status: refusal.status, content_type, extra: &extra, body: &body };
        self.finish_request(connection, ticket, &response);
    }

    fn take_gather(&mut self, request: PendingId) -> Gather {
        let gather = self.gathers.remove(request.index as usize);
        self.gathered_bytes -= gather.listing.as_ref().map_or(0, |listing| listing.bytes());
        gather
    }
}

impl Listing {
    /// What it holds, in bytes.
    fn bytes(&self) -> usize {
        self.list.bytes() + self.seen.len() * 2 * size_of::<u64>()
    }
}

/// What a page costs at least, in places.
const PAGE_PLACES_MIN: usize = 16;

fn overloaded() -> Refusal {
    Refusal::unavailable("The server is overloaded: try again, or list fewer channels with filter_by_prefix.", 1)
}
