//! Questions over HTTP about channels, users and connections (P-HTTP-3 to P-HTTP-5, P-HTTP-8, P-HTTP-9), and closing a
//! user's connections (P-HTTP-6).
//!
//! The subject of a question belongs to one shard, which answers it; only the list of all channels is gathered from
//! every shard. A shard sends its channels, and the users of one channel, in pages, and reads at most one page's worth
//! of its table in a millisecond, however many requests there are: the next page is requested when the previous one has
//! arrived, and other input is served between two turns.
//!
//! Invariant: a channel that is occupied from the beginning to the end of a gathering is listed once, and so is a user
//! who is present all the time.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::quality::FixedState;

use super::history::{answer_history, position_of};
use super::response::ResponseSlot;
use super::{Parts, Requests};
use crate::api::channel::{encode_channel, encode_channel_stats};
use crate::api::channel_users::{UserFields, UserList, encode_users};
use crate::api::channels::ChannelList;
use crate::api::connections::encode_connections;
use crate::api::info::Info;
use crate::api::refusal::Refusal;
use crate::app::AppSerial;
use crate::index::ShardIndex;
use crate::limits;
use crate::metrics::figures::Overload;
use crate::shard::connections::{JSON, Response};
use crate::shard::mail::{ChannelKey, HttpMessage, Listed, PendingId, Question, Reply, RosterPages, UserKey};
use crate::shard::owner::Owner;

/// A request that waits for data of other shards.
pub(super) struct PendingQuery {
    nonce: u32,
    pub(super) reply_to: ResponseSlot,
    /// The requesting app.
    app: AppSerial,
    gathered: Gathered,
}

/// The answers so far.
pub(super) enum Gathered {
    /// The answer arrives complete.
    Nothing,
    Channels(Box<Listing>),
    Users(UserList),
    /// Shards that have yet to close their connections of a user (P-USER-6).
    Ending(usize),
}

/// A list of channels under construction.
pub(super) struct Listing {
    app: AppSerial,
    prefix: Arc<str>,
    list: ChannelList,
    /// Shards that have more pages.
    awaited: usize,
    /// Hashes of the channels that came in several pages: one that was vacated and reoccupied meanwhile may be in two.
    /// The hashes are keyed already, so the set needs no secret of its own.
    seen: HashSet<u64, FixedState>,
}

/// A page that a shard has yet to create.
pub(super) struct AskedPage {
    from: ShardIndex,
    request: PendingId,
    /// About channels or users.
    question: Question,
}

impl Requests {
    /// Asks the one shard that has the answer.
    pub(super) fn ask(&mut self, parts: &mut Parts<'_>, reply_to: ResponseSlot, question: Question) {
        let knows = match &question {
            Question::Channels { app, .. } | Question::Connections { app } => parts.context.counter_of(*app),
            Question::Channel { channel, .. }
            | Question::History { channel, .. }
            | Question::Stats { channel }
            | Question::Users { channel, .. } => parts.context.owner_of(channel),
            Question::ShardsOf { user } | Question::EndUser { user } => parts.context.owner_of_hash(user.hash),
        };
        let gathered = match &question {
            Question::Users { .. } => Gathered::Users(UserList::default()),
            Question::Channels { .. }
            | Question::Channel { .. }
            | Question::History { .. }
            | Question::Stats { .. }
            | Question::Connections { .. }
            | Question::ShardsOf { .. }
            | Question::EndUser { .. } => Gathered::Nothing,
        };
        let request = self.start_query(parts, reply_to, question.app(), gathered);
        parts.context.send(knows, HttpMessage::Ask { request, question });
    }

    /// Asks every shard for its channels of an app.
    ///
    /// # Errors
    /// 503 when the app has no space for an answer in the memory of a shard.
    pub(super) fn ask_channels(
        &mut self,
        parts: &mut Parts<'_>,
        reply_to: ResponseSlot,
        app: AppSerial,
        prefix: Arc<str>,
        info: Info,
    ) -> Result<(), Refusal> {
        if !parts.connections.may_publish(app, 0) {
            parts.context.metrics.count_overload(Overload::Memory);
            return Err(overloaded());
        }
        let listing = Listing {
            app,
            prefix: prefix.clone(),
            list: ChannelList::new(info),
            awaited: usize::from(parts.context.config.shards),
            seen: HashSet::default(),
        };
        let request = self.start_query(parts, reply_to, app, Gathered::Channels(Box::new(listing)));
        for to in 0..parts.context.config.shards {
            let question = Question::Channels { app, prefix: prefix.clone(), from: 0 };
            parts.context.send(to, HttpMessage::Ask { request, question });
        }
        Ok(())
    }

    pub(super) fn start_query(
        &mut self,
        parts: &mut Parts<'_>,
        reply_to: ResponseSlot,
        app: AppSerial,
        gathered: Gathered,
    ) -> PendingId {
        let nonce = self.next_nonce();
        parts.connections.lists().change(app, 0, gathered.bytes());
        let index = self.queries.insert(PendingQuery { nonce, reply_to, app, gathered });
        PendingId { index: index as u32, nonce }
    }

    /// Handles a question on the shard that has the answer: answers, or queues the page for a later turn.
    pub(super) fn handle_question(
        &mut self,
        parts: &mut Parts<'_>,
        from: ShardIndex,
        request: PendingId,
        question: Question,
    ) {
        let mut body = Vec::new();
        match question {
            Question::Channels { .. } | Question::Users { .. } => {
                let app = question.app();
                self.asked_pages.push(app, AskedPage { from, request, question });
                return;
            }
            Question::Channel { channel, info } => {
                let position = if info.position { position_of(parts, &channel) } else { None };
                let cached = parts.owner.cached(&channel);
                let cached = cached.and_then(|cached| cached.data(parts.context.now.monotonic_ms));
                encode_channel(&mut body, info, parts.owner.counts_of(&channel), cached, position);
            }
            Question::History { channel, query } => answer_history(parts, &mut body, &channel, &query),
            Question::Stats { channel } => encode_channel_stats(&mut body, parts.owner.counts_of(&channel)),
            Question::ShardsOf { user } => {
                let shards = parts.users.shards_of(&user);
                return parts.context.send(from, HttpMessage::Reply { request, reply: Reply::Shards { user, shards } });
            }
            Question::EndUser { user } => {
                parts.users.end_user(parts.context, parts.connections, &user);
                return parts.context.send(from, HttpMessage::Reply { request, reply: Reply::Ended });
            }
            Question::Connections { app } => {
                encode_connections(&mut body, parts.quota.connections(app));
            }
        }
        parts.context.send(from, HttpMessage::Reply { request, reply: Reply::Whole(body) });
    }

    /// Creates pages until as many table entries were read as one page may have; the rest waits for the next
    /// millisecond, so that lists never take more than a part of the shard's time. Apps take turns.
    pub(in crate::shard) fn make_pages(&mut self, parts: &mut Parts<'_>) {
        if parts.context.now.monotonic_ms < self.pages_due_ms {
            return;
        }
        let mut places = limits::LIST_PAGE_CHANNELS;
        while let Some(page) = self.asked_pages.pop() {
            let AskedPage { from, request, question } = page;
            let (reply, looked_at) = match question {
                Question::Channels { app, prefix, from } => make_channels_page(parts.owner, app, &prefix, from, places),
                Question::Users { channel, fields, pages } => {
                    make_users_page(parts.owner, channel, fields, pages, places)
                }
                Question::Channel { .. }
                | Question::History { .. }
                | Question::Stats { .. }
                | Question::Connections { .. }
                | Question::ShardsOf { .. }
                | Question::EndUser { .. } => {
                    unreachable!("these are answered at once")
                }
            };
            parts.context.send(from, HttpMessage::Reply { request, reply });
            places = places.saturating_sub(looked_at.max(PAGE_PLACES_MIN));
            if places == 0 {
                self.pages_due_ms = parts.context.now.monotonic_ms + 1;
                return;
            }
        }
    }

    /// When the next page may be created, if one is requested.
    pub(in crate::shard) fn next_page_ms(&self) -> Option<u64> {
        (!self.asked_pages.is_empty()).then_some(self.pages_due_ms)
    }

    /// Handles a reply on the shard that asked. A reply to a gathering that has ended is late and dropped.
    pub(super) fn handle_reply(&mut self, parts: &mut Parts<'_>, from: ShardIndex, request: PendingId, reply: Reply) {
        let query = self.queries.get_mut(request.index as usize).filter(|query| query.nonce == request.nonce);
        let Some(query) = query else { return };
        let (connection, app, before) = (query.reply_to.connection, query.app, query.gathered.bytes());
        let next = match (reply, &mut query.gathered) {
            (Reply::Whole(body), _) => return self.finish_query(parts, request, &body),
            (Reply::Shards { user, shards }, _) => return self.end_user_on(parts, request, &user, &shards),
            (Reply::Ended, Gathered::Ending(shards)) => {
                *shards -= 1;
                if *shards == 0 {
                    self.finish_query(parts, request, EMPTY_OBJECT);
                }
                return;
            }
            (Reply::Page { channels, next }, Gathered::Channels(listing)) => listing.add(channels, next),
            (Reply::Users { users, next }, Gathered::Users(list)) => {
                list.push(&users);
                next.map_or(Next::Done, |question| Next::Ask(*question))
            }
            (Reply::Page { .. } | Reply::Users { .. } | Reply::Ended, _) => {
                unreachable!("replies belong to their query")
            }
        };
        parts.connections.lists().change(app, before, self.queries[request.index as usize].gathered.bytes());
        if !parts.connections.is_awaiting_answers(connection) {
            self.take_query(parts, request);
        } else if parts.connections.lists().is_over(app) {
            parts.context.metrics.count_overload(Overload::Gathering);
            self.refuse_query(parts, request, &overloaded());
        } else {
            match next {
                Next::Ask(question) => parts.context.send(from, HttpMessage::Ask { request, question }),
                Next::Wait => {}
                Next::Done => self.finish_query(parts, request, &[]),
            }
        }
    }

    /// The shards where the user is signed in are known: they close the connections, even if the caller is gone.
    fn end_user_on(&mut self, parts: &mut Parts<'_>, request: PendingId, user: &UserKey, shards: &[ShardIndex]) {
        self.queries[request.index as usize].gathered = Gathered::Ending(shards.len());
        for &to in shards {
            parts.context.send(to, HttpMessage::Ask { request, question: Question::EndUser { user: user.clone() } });
        }
        if shards.is_empty() {
            self.finish_query(parts, request, EMPTY_OBJECT);
        }
    }

    /// Answers 200 with the body, or with the list that was gathered.
    fn finish_query(&mut self, parts: &mut Parts<'_>, request: PendingId, body: &[u8]) {
        let PendingQuery { reply_to: ResponseSlot { connection, ticket, .. }, app, gathered, .. } =
            self.take_query(parts, request);
        let listed = match gathered {
            Gathered::Nothing | Gathered::Ending(_) => None,
            Gathered::Channels(listing) => Some(listing.list.finish()),
            Gathered::Users(list) => Some(list.finish()),
        };
        let body = listed.as_deref().unwrap_or(body);
        parts.connections.hold_unsent_list(connection, app, body.len());
        parts.connections.finish_request(
            parts.context,
            connection,
            ticket,
            &Response { status: 200, content_type: JSON, extra: "", body },
        );
    }

    /// Answers 200 with a list that the store has made, unless the lists of the app take too much memory.
    pub(super) fn answer_list(&mut self, parts: &mut Parts<'_>, request: PendingId, body: &[u8]) {
        if parts.connections.lists().is_over(self.queries[request.index as usize].app) {
            parts.context.metrics.count_overload(Overload::Gathering);
            self.refuse_query(parts, request, &overloaded());
        } else {
            self.finish_query(parts, request, body);
        }
    }

    pub(super) fn refuse_query(&mut self, parts: &mut Parts<'_>, request: PendingId, refusal: &Refusal) {
        let PendingQuery { reply_to, .. } = self.take_query(parts, request);
        self.refuse(parts, reply_to, refusal);
    }

    pub(super) fn take_query(&mut self, parts: &mut Parts<'_>, request: PendingId) -> PendingQuery {
        let query = self.queries.remove(request.index as usize);
        parts.connections.lists().change(query.app, query.gathered.bytes(), 0);
        query
    }
}

/// The next step of a gathering.
enum Next {
    /// With a question to the shard that has replied.
    Ask(Question),
    /// Other shards have more pages.
    Wait,
    /// Nothing: the gathering is complete.
    Done,
}

impl Gathered {
    /// Memory, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Nothing | Self::Ending(_) => 0,
            Self::Channels(listing) => listing.bytes(),
            Self::Users(list) => list.bytes(),
        }
    }
}

impl Listing {
    /// Adds a shard's page.
    fn add(&mut self, channels: Vec<Listed>, next: Option<u32>) -> Next {
        let in_pages = next.is_some() || !self.seen.is_empty();
        for Listed { name, hash, counts } in channels {
            if !in_pages || self.seen.insert(hash) {
                self.list.push(&name, counts);
            }
        }
        match next {
            Some(from) => Next::Ask(Question::Channels { app: self.app, prefix: self.prefix.clone(), from }),
            None => {
                self.awaited -= 1;
                if self.awaited == 0 { Next::Done } else { Next::Wait }
            }
        }
    }

    /// Memory, in bytes.
    fn bytes(&self) -> usize {
        self.list.bytes() + self.seen.len() * 2 * size_of::<u64>()
    }
}

/// The answer to a request that returns nothing.
const EMPTY_OBJECT: &[u8] = b"{}";

/// Minimum cost of a page, in table entries.
const PAGE_PLACES_MIN: usize = 16;

/// Creates one page from at most this many table entries; returns how many it read.
fn make_channels_page(owner: &Owner, app: AppSerial, prefix: &str, from: u32, places_max: usize) -> (Reply, usize) {
    let (page, next) = owner.page(from, places_max);
    let mut channels = Vec::new();
    for owned in page {
        let (key, counts) = (owned.key(), owned.counts());
        if key.app == app && key.name.starts_with(prefix) && counts.subscription_count > Some(0) {
            channels.push(Listed { name: key.name.clone(), hash: key.hash, counts });
        }
    }
    (Reply::Page { channels, next }, places_max.min(owner.table_len().saturating_sub(from as usize)))
}

/// Creates one page of about this many users; returns their number.
fn make_users_page(
    owner: &mut Owner,
    channel: ChannelKey,
    fields: UserFields,
    pages: RosterPages,
    users_max: usize,
) -> (Reply, usize) {
    let mut users = Vec::new();
    let Some(roster) = owner.roster_of(&channel) else { return (Reply::Users { users, next: None }, 0) };
    let (mut from, end) = match pages {
        RosterPages::Rest(from, end) => (from, end),
        RosterPages::All if roster.count() as usize <= users_max => (0, u64::MAX),
        RosterPages::All => (0, roster.seal()),
    };
    let mut count = 0;
    while let Some((number, members)) = roster.page(from).filter(|(number, _)| *number <= end) {
        if count >= users_max {
            let pages = RosterPages::Rest(number, end);
            let next = Box::new(Question::Users { channel, fields, pages });
            return (Reply::Users { users, next: Some(next) }, count);
        }
        let of_page = members.iter().map(|member| (&*member.user_id, member.user_info.as_deref()));
        encode_users(&mut users, fields, of_page);
        count += members.len();
        from = number + 1;
    }
    (Reply::Users { users, next: None }, count)
}

fn overloaded() -> Refusal {
    Refusal::unavailable("The server is overloaded: try again, or list fewer channels with filter_by_prefix.", 1)
}
