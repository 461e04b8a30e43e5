//! Questions over HTTP about channels, users and connections (P-HTTP-3 to P-HTTP-5, P-HTTP-8, P-HTTP-9), and the end of
//! a user's connections (P-HTTP-6).
//!
//! What a question is about belongs to one shard, which answers it; only the list of all channels is gathered from every
//! shard. A shard tells its channels, and the users of one channel, in pages, and looks at no more than one page's worth of
//! places in a millisecond, however many ask: the next page is asked for when the one before has come, and between two
//! turns everything else goes on.
//!
//! What must hold: a channel that is occupied from the beginning to the end of a gathering is listed once, and so is a
//! user who is there all the time.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::quality::FixedState;
use smallvec::SmallVec;

use super::command::Place;
use super::mail::{Body, ChannelKey, PendingId, UserKey};
use super::request::{JSON, Response};
use super::{Shard, ShardIndex};
use crate::api::answer::Counts;
use crate::api::channel::{ChannelInfo, encode_channel, encode_channel_stats};
use crate::api::channel_users::{UserFields, UserList, encode_users};
use crate::api::channels::ChannelList;
use crate::api::connections::encode_connections;
use crate::api::info::Info;
use crate::api::refusal::Refusal;
use crate::app::AppSerial;
use crate::connection::{ConnectionKey, Phase};
use crate::limits;
use crate::metrics::figures::Overload;

/// A request that awaits what other shards know.
pub(super) struct Gather {
    nonce: u32,
    pub(super) place: Place,
    /// The app that asks.
    app: AppSerial,
    gathered: Gathered,
}

/// What has come so far.
pub(super) enum Gathered {
    /// The answer comes whole.
    Nothing,
    Channels(Box<Listing>),
    Users(UserList),
    /// Shards that have yet to end their connections of a user (P-USER-6).
    Ending(usize),
}

/// A list of channels under construction.
pub(super) struct Listing {
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
    /// The next page of the users of a presence channel.
    Users { channel: ChannelKey, fields: UserFields, pages: RosterPages },
    /// The connections of an app.
    Connections { app: AppSerial },
    /// The shards where a user is signed in.
    ShardsOf { user: UserKey },
    /// Not only a question: that the connections of a user here end (P-USER-6).
    EndUser { user: UserKey },
}

/// What it tells.
#[derive(Debug)]
pub(super) enum Reply {
    /// The whole body of the answer.
    Whole(Vec<u8>),
    /// Some channels, and where the next page begins if there is one.
    Page { channels: Vec<Listed>, next: Option<u32> },
    /// Some users as text, and the question for the next page if there is one.
    Users { users: Vec<u8>, next: Option<Box<Question>> },
    /// Where the user is signed in.
    Shards { user: UserKey, shards: SmallVec<[ShardIndex; 4]> },
    /// The connections of the user have ended.
    Ended,
}

/// The pages of a roster that are yet to be told.
#[derive(Clone, Copy, Debug)]
pub(super) enum RosterPages {
    All,
    /// From the first number to the second.
    Rest(u64, u64),
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
    /// About channels or users.
    question: Question,
}

impl Shard {
    /// Asks the one shard that knows.
    pub(super) fn ask(&mut self, place: Place, question: Question) {
        let knows = match &question {
            Question::Channels { app, .. } | Question::Connections { app } => self.counter_of(*app),
            Question::Channel { channel, .. } | Question::Stats { channel } | Question::Users { channel, .. } => {
                self.owner_of(channel)
            }
            Question::ShardsOf { user } | Question::EndUser { user } => self.owner_of_hash(user.hash),
        };
        let gathered = match &question {
            Question::Users { .. } => Gathered::Users(UserList::default()),
            Question::Channels { .. }
            | Question::Channel { .. }
            | Question::Stats { .. }
            | Question::Connections { .. }
            | Question::ShardsOf { .. }
            | Question::EndUser { .. } => Gathered::Nothing,
        };
        let request = self.start_gather(place, question.app(), gathered);
        self.send(knows, Body::Ask { request, question });
    }

    /// Asks every shard for its channels of an app.
    ///
    /// # Errors
    /// 503 when the app has no room for an answer in the memory of a shard.
    pub(super) fn ask_channels(
        &mut self,
        place: Place,
        app: AppSerial,
        prefix: Arc<str>,
        info: Info,
    ) -> Result<(), Refusal> {
        if !self.may_publish(app, 0) {
            self.count_overload(Overload::Memory);
            return Err(overloaded());
        }
        let listing = Listing {
            app,
            prefix: prefix.clone(),
            list: ChannelList::new(info),
            awaited: usize::from(self.config.shards),
            seen: HashSet::default(),
        };
        let request = self.start_gather(place, app, Gathered::Channels(Box::new(listing)));
        for to in 0..self.config.shards {
            let question = Question::Channels { app, prefix: prefix.clone(), from: 0 };
            self.send(to, Body::Ask { request, question });
        }
        Ok(())
    }

    pub(super) fn start_gather(&mut self, place: Place, app: AppSerial, gathered: Gathered) -> PendingId {
        self.pending_nonce = self.pending_nonce.wrapping_add(1);
        let nonce = self.pending_nonce;
        self.lists.change(app, 0, gathered.bytes());
        let index = self.gathers.insert(Gather { nonce, place, app, gathered });
        PendingId { index: index as u32, nonce }
    }

    /// As the shard that knows: answers, or keeps the page to be made for a turn of its own.
    pub(super) fn handle_question(&mut self, from: ShardIndex, request: PendingId, question: Question) {
        let mut body = Vec::new();
        match question {
            Question::Channels { .. } | Question::Users { .. } => {
                let app = question.app();
                self.asked_pages.push(app, AskedPage { from, request, question });
                return;
            }
            Question::Channel { channel, info } => {
                let cached = self.cached(&channel).and_then(|cached| cached.data(self.now.monotonic_ms));
                encode_channel(&mut body, info, self.counts_of(&channel), cached);
            }
            Question::Stats { channel } => encode_channel_stats(&mut body, self.counts_of(&channel)),
            Question::ShardsOf { user } => {
                let shards = self.shards_of_user(&user);
                return self.send(from, Body::Reply { request, reply: Reply::Shards { user, shards } });
            }
            Question::EndUser { user } => {
                self.end_user(&user);
                return self.send(from, Body::Reply { request, reply: Reply::Ended });
            }
            Question::Connections { app } => {
                encode_connections(&mut body, self.app_connections.get(&app).copied().unwrap_or(0));
            }
        }
        self.send(from, Body::Reply { request, reply: Reply::Whole(body) });
    }

    /// Makes pages until as many places of the table were looked at as one page may have; the rest waits for the next
    /// millisecond, so that lists never take more than a part of the shard's time. Apps take turns.
    pub(super) fn make_pages(&mut self) {
        if self.now.monotonic_ms < self.pages_due_ms {
            return;
        }
        let mut places = limits::LIST_PAGE_CHANNELS;
        while let Some(page) = self.asked_pages.pop() {
            let AskedPage { from, request, question } = page;
            let (reply, looked_at) = match question {
                Question::Channels { app, prefix, from } => self.make_channels_page(app, &prefix, from, places),
                Question::Users { channel, fields, pages } => self.make_users_page(channel, fields, pages, places),
                Question::Channel { .. }
                | Question::Stats { .. }
                | Question::Connections { .. }
                | Question::ShardsOf { .. }
                | Question::EndUser { .. } => {
                    unreachable!("these are answered at once")
                }
            };
            self.send(from, Body::Reply { request, reply });
            places = places.saturating_sub(looked_at.max(PAGE_PLACES_MIN));
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

    /// Makes one page from at most so many places of the table; gives how many it looked at.
    fn make_channels_page(&self, app: AppSerial, prefix: &str, from: u32, places_max: usize) -> (Reply, usize) {
        let start = from as usize;
        let end = self.owned.capacity().min(start + places_max).max(start);
        let mut channels = Vec::new();
        for owned in (start..end).filter_map(|index| self.owned.get(index)) {
            let (key, counts) = (owned.key(), owned.counts());
            if key.app == app && key.name.starts_with(prefix) && counts.subscription_count > Some(0) {
                channels.push(Listed { name: key.name.clone(), hash: key.hash, counts });
            }
        }
        let next = (end < self.owned.capacity()).then_some(end as u32);
        (Reply::Page { channels, next }, end - start)
    }

    /// Makes one page of about so many users; gives how many they are.
    fn make_users_page(
        &mut self,
        channel: ChannelKey,
        fields: UserFields,
        pages: RosterPages,
        users_max: usize,
    ) -> (Reply, usize) {
        let mut users = Vec::new();
        let Some(roster) = self.roster_of(&channel) else { return (Reply::Users { users, next: None }, 0) };
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

    /// As the shard that asked. A reply to a gathering that has ended is late and dropped.
    pub(super) fn handle_reply(&mut self, from: ShardIndex, request: PendingId, reply: Reply) {
        let gather = self.gathers.get_mut(request.index as usize).filter(|gather| gather.nonce == request.nonce);
        let Some(gather) = gather else { return };
        let (connection, app, before) = (gather.place.connection, gather.app, gather.gathered.bytes());
        let next = match (reply, &mut gather.gathered) {
            (Reply::Whole(body), _) => return self.finish_gather(request, &body),
            (Reply::Shards { user, shards }, _) => return self.end_user_on(request, &user, &shards),
            (Reply::Ended, Gathered::Ending(shards)) => {
                *shards -= 1;
                if *shards == 0 {
                    self.finish_gather(request, EMPTY_OBJECT);
                }
                return;
            }
            (Reply::Page { channels, next }, Gathered::Channels(listing)) => listing.add(channels, next),
            (Reply::Users { users, next }, Gathered::Users(list)) => {
                list.push(&users);
                next.map_or(Next::Done, |question| Next::Ask(*question))
            }
            (Reply::Page { .. } | Reply::Users { .. } | Reply::Ended, _) => {
                unreachable!("replies answer what asked for them")
            }
        };
        self.lists.change(app, before, self.gathers[request.index as usize].gathered.bytes());
        if !self.is_awaited(connection) {
            self.take_gather(request);
        } else if self.lists.is_over(app) {
            self.count_overload(Overload::Gathering);
            self.refuse_gather(request, &overloaded());
        } else {
            match next {
                Next::Ask(question) => self.send(from, Body::Ask { request, question }),
                Next::Wait => {}
                Next::Done => self.finish_gather(request, &[]),
            }
        }
    }

    /// As the shard that asked where a user is: has the connections there ended, whoever still awaits the answer.
    fn end_user_on(&mut self, request: PendingId, user: &UserKey, shards: &[ShardIndex]) {
        self.gathers[request.index as usize].gathered = Gathered::Ending(shards.len());
        for &to in shards {
            self.send(to, Body::Ask { request, question: Question::EndUser { user: user.clone() } });
        }
        if shards.is_empty() {
            self.finish_gather(request, EMPTY_OBJECT);
        }
    }

    /// Answers 200 with the body, or with the list that was gathered.
    fn finish_gather(&mut self, request: PendingId, body: &[u8]) {
        let Gather { place: Place { connection, ticket, .. }, app, gathered, .. } = self.take_gather(request);
        let listed = match gathered {
            Gathered::Nothing | Gathered::Ending(_) => None,
            Gathered::Channels(listing) => Some(listing.list.finish()),
            Gathered::Users(list) => Some(list.finish()),
        };
        let body = listed.as_deref().unwrap_or(body);
        self.hold_unsent(connection, app, body.len());
        self.finish_request(connection, ticket, &Response { status: 200, content_type: JSON, extra: "", body });
    }

    pub(super) fn refuse_gather(&mut self, request: PendingId, refusal: &Refusal) {
        let Gather { place, .. } = self.take_gather(request);
        self.answer_place(place, refusal);
    }

    pub(super) fn take_gather(&mut self, request: PendingId) -> Gather {
        let gather = self.gathers.remove(request.index as usize);
        self.lists.change(gather.app, gather.gathered.bytes(), 0);
        gather
    }

    /// A list is about to be queued: until all of it is sent it counts as held. One connection has one of them at most,
    /// since requests behind it wait.
    fn hold_unsent(&mut self, connection: ConnectionKey, app: AppSerial, bytes: usize) {
        if bytes <= limits::HTTP_OUTBOX_BYTES_SOFT || !self.is_awaited(connection) {
            return;
        }
        self.release_unsent(connection.slot);
        self.lists.change(app, 0, bytes);
        self.http(connection.slot).unsent_list = Some((app, bytes));
    }

    /// What a connection was to be sent has left, or never will.
    pub(super) fn release_unsent(&mut self, slot: u32) {
        let http = self.cold_of(slot).and_then(|cold| cold.http.as_mut());
        if let Some((app, bytes)) = http.and_then(|http| http.unsent_list.take()) {
            self.lists.change(app, bytes, 0);
        }
    }

    /// Whether somebody still waits for an answer there.
    fn is_awaited(&self, connection: ConnectionKey) -> bool {
        self.is_live(connection) && self.hot[connection.slot as usize].phase == Phase::Http
    }
}

impl Question {
    /// Whether the answer may be longer than what a connection may have unsent before its next request is begun.
    pub(super) fn has_large_answer(&self) -> bool {
        match self {
            Self::Channels { .. } | Self::Users { .. } => true,
            // A cached event may be as long as its app allows.
            Self::Channel { info, .. } => info.cache,
            Self::Stats { .. } | Self::Connections { .. } | Self::ShardsOf { .. } | Self::EndUser { .. } => false,
        }
    }
}

impl Question {
    /// Whose app it is about.
    fn app(&self) -> AppSerial {
        match self {
            Self::Channels { app, .. } | Self::Connections { app } => *app,
            Self::Channel { channel, .. } | Self::Stats { channel } | Self::Users { channel, .. } => channel.app,
            Self::ShardsOf { user } | Self::EndUser { user } => user.app,
        }
    }
}

/// How a gathering goes on.
enum Next {
    /// With a question to the shard that has replied.
    Ask(Question),
    /// Other shards have more to tell.
    Wait,
    /// Not at all.
    Done,
}

impl Gathered {
    /// What it holds, in bytes.
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

    /// What it holds, in bytes.
    fn bytes(&self) -> usize {
        self.list.bytes() + self.seen.len() * 2 * size_of::<u64>()
    }
}

/// What is told of a thing that was done.
const EMPTY_OBJECT: &[u8] = b"{}";

/// What a page costs at least, in places.
const PAGE_PLACES_MIN: usize = 16;

fn overloaded() -> Refusal {
    Refusal::unavailable("The server is overloaded: try again, or list fewer channels with filter_by_prefix.", 1)
}
