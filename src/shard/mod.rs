//! The sans-IO core: everything that decides. A shard owns its connections and its share of the channels; it opens no
//! descriptor, reads no clock, draws no randomness.
//!
//! # Contract with a driver
//! Feed a whole batch of inputs with [`Shard::handle_input`], end it with [`Shard::end_batch`], then drain
//! [`Shard::poll_output`] and [`Shard::poll_flush`] until both give `None`, then sleep until [`Shard::poll_timeout`] or
//! the next event. That alone gives one send per connection and turn.
//!
//! - `end_batch` makes what the batch's changes have to send; the polls only take. An input that is fed while draining
//!   (`Sent`, `Closed`) begins a new batch: end it and drain again, until nothing comes. After that [`Shard::has_pending`]
//!   is false, and a driver asserts so.
//! - `CaughtUp` comes before `Timeout`, and both come behind the batch's other inputs. A driver that has more events or
//!   readable sockets than a turn may feed reports `CaughtUp` when it has served, in order, all of those that there were
//!   when it last did.
//! - The driver gives out slots. It feeds `Accepted` once per connection, and `Closed` once, as the last input for
//!   that key, when no operation on the connection is under way any more; only then may the slot be used again.
//! - `poll_flush` lends the bytes of one send. They stay valid and unmoved until `Sent` or `Closed` is fed for that
//!   connection; there is at most one send per connection at a time.
//! - `Sent { bytes: n }` may report less than was lent (a short send): the rest comes up in a later `poll_flush`.
//!   A send that would block is not reported until the socket took something.
//! - After [`Output::Close`] the driver ends the connection (operations cancelled, socket closed) and feeds `Closed`.
//!   After a reset or an end of stream seen by the driver it feeds `Closed` (reset, error) or `ReadEnded`
//!   (orderly end of the peer's direction; the shard then decides and answers with `Close`).
//! - Every number of mails may be in flight between shards; per pair of shards they arrive in the order sent, none
//!   lost, none doubled.

mod admission;
mod allowance;
mod authorization;
mod cache;
mod change;
mod client_event;
mod command;
mod count;
mod credit;
mod deliver;
mod fan_out;
mod figures;
mod gather;
mod handshake;
mod input;
mod lifecycle;
mod list_memory;
mod mail;
mod message;
mod opening;
mod options;
mod owner;
mod post;
mod presence;
mod publish;
mod quota;
mod receive;
mod refusals;
mod request;
mod roster;
mod scrape;
mod service_clock;
mod share;
mod subscribe;
mod sweep;
mod tally;
mod turns;
mod unheard;
mod user_owner;
mod users;
mod watch;
mod webhook;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::app::{App, AppSerial, Directory, TokenId};
use crate::auth::failures::AuthFailures;
use crate::connection::input::InputMemory;
use crate::connection::outbox::{FrameId, Frames};
use crate::connection::{Cold, ConnectionKey, Hot, NONE};
use crate::limits;
use crate::metrics::app_figures::AppTable;
pub use crate::metrics::figures::ShardStats;
use crate::metrics::refusal_log::LogLine;
use crate::moment::Moment;
use crate::protocol::socket_id::{SocketId, SocketIdCipher};
use crate::protocol::webhook::WebhookEvent;

use admission::Admissions;
use allowance::Allowances;
use cache::Caches;
pub use change::{Change, ChangeId, ChangeKind, Changed};
use credit::Credit;
use fan_out::FanOuts;
use figures::Figures;
use gather::{AskedPage, Gather};
use list_memory::ListMemory;
pub use mail::Mail;
use mail::{Anywhere, Body, ChannelKey};
use opening::OpenChannels;
pub use options::{METRICS_PREFIX, ShardOptions};
use owner::OwnedChannel;
use publish::PendingPublish;
use roster::Rosters;
use service_clock::ServiceClock;
use share::FullApps;
use subscribe::LocalChannel;
use sweep::{Deadlines, Drain};
use turns::Turns;
use unheard::Unheard;
use users::Users;
use webhook::Departures;

/// Index of a shard in its process, from 0.
pub type ShardIndex = u16;

/// What a shard is told once, at its making.
#[derive(Clone)]
pub struct ShardConfig {
    /// This shard.
    pub index: ShardIndex,
    /// How many there are; at least 1.
    pub shards: ShardIndex,
    /// Connections that it can hold: slots are below this.
    pub slots: u32,
    /// Of these, kept back for when all others are in use (P-CLOSE-2).
    pub refusal_slots: u32,
    /// Process-wide random secret: seals socket ids and seeds the maps. The same for all shards of a process.
    pub boot_secret: [u8; 16],
    /// The apps and tokens at start.
    pub directory: Arc<Directory>,
    /// What an operator may set.
    pub options: ShardOptions,
}

/// Which listener a connection came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listener {
    /// The public port: WebSockets and the HTTP API.
    Public,
    /// The metrics and health port: HTTP only, no apps.
    Metrics,
}

/// What a driver tells a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted into this slot.
    Accepted {
        /// Its key; the generation is new for the slot.
        connection: ConnectionKey,
        /// The peer's address.
        peer: SocketAddr,
        /// Where it came in.
        listener: Listener,
        /// The node is at capacity and the slot is one of those kept back: refuse with 4100 (P-CLOSE-2).
        refuse: bool,
    },
    /// Bytes arrived; they may be changed in place (unmasking).
    Received {
        /// From whom.
        connection: ConnectionKey,
        /// The bytes.
        bytes: &'a mut [u8],
    },
    /// The kernel took this many bytes of what `poll_flush` lent.
    Sent {
        /// Whose send.
        connection: ConnectionKey,
        /// At least 1.
        bytes: usize,
    },
    /// The peer ended its direction (FIN).
    ReadEnded {
        /// Whose.
        connection: ConnectionKey,
    },
    /// The connection is gone and no operation on it is under way.
    Closed {
        /// Whose.
        connection: ConnectionKey,
    },
    /// Mail from another shard.
    Mail {
        /// Its sender.
        from: ShardIndex,
        /// The mail.
        mail: Mail,
    },
    /// The store changed.
    Directory(Arc<Directory>),
    /// Everything was fed that the kernel held for this shard when `CaughtUp` was last fed: connections, bytes, ends, and
    /// room for sends. Deadlines of peers up to that time can be judged now (P-LIVE-6).
    CaughtUp,
    /// The time of `poll_timeout` has come (feeding it early does no harm).
    Timeout,
    /// The process shall end: drain (P-CLOSE-1).
    Drain,
}

/// What a shard asks of its driver.
#[derive(Debug)]
pub enum Output {
    /// End the connection, then feed `Closed`. Unsent bytes of the socket are still delivered unless `reset`.
    Close {
        /// Which.
        connection: ConnectionKey,
        /// Send RST: the peer is not reading anyway.
        reset: bool,
    },
    /// Send FIN once all lent bytes are taken, and go on reading (lingering close, P-HTTP-16).
    ShutdownWrite {
        /// Which.
        connection: ConnectionKey,
    },
    /// Stop reading from it: it is owed too much already.
    Pause {
        /// Which.
        connection: ConnectionKey,
    },
    /// Read from it again; bytes may already be waiting.
    Resume {
        /// Which.
        connection: ConnectionKey,
    },
    /// Deliver to another shard.
    Mail {
        /// To whom; never the sender itself.
        to: ShardIndex,
        /// The mail.
        mail: Mail,
    },
    /// A token was used with success (R-TOKEN-4); the store writes it at most once a minute.
    TokenUsed {
        /// Which.
        token: TokenId,
        /// When.
        at: Moment,
    },
    /// Change the store; the answer comes as [`Mail::changed`] from the shard to itself.
    Change(Change),
    /// Something that an endpoint of the app wants to be told (P-HOOK rules). The events of one channel come in order,
    /// all from the shard that owns it.
    Webhook(WebhookEvent),
    /// Somebody subscribed a public channel whose name reads as if it were protected (R-CHAN-3): to be logged. At most
    /// once a second, and once for each of the last names.
    MisleadingName {
        /// Whose channel.
        app: AppSerial,
        /// Its name; no control character stands in it.
        channel: Arc<str>,
    },
    /// Messages of an app were counted (R-LIM-3); the store keeps the newest figure, so that a restart goes on with it.
    MessagesCounted {
        /// Which.
        app: AppSerial,
        /// Number of the day since 1970, in UTC.
        day: u64,
        /// All of that day so far.
        messages: u32,
    },
    /// Write a line about a refusal to the log.
    Log(Box<LogLine>),
    /// Measure the process and tell [`Shard::handle_process_figures`]: somebody asks for it.
    MeasureProcess,
}

/// One send: bytes lent until `Sent` or `Closed` is fed for the connection.
#[derive(Debug)]
pub struct Flush<'a> {
    /// To whom.
    pub connection: ConnectionKey,
    /// At most `limits::SEND_BYTES_MAX` bytes, at least 1.
    pub bytes: &'a [u8],
}

/// A shard.
pub struct Shard {
    config: ShardConfig,
    now: Moment,
    /// The time by which peers are judged.
    clock: ServiceClock,
    directory: Arc<Directory>,
    /// The app of the last request or client message.
    app_in_hand: Option<Arc<App>>,
    cipher: SocketIdCipher,
    stats: ShardStats,
    figures: Box<Figures>,
    /// Figures by app.
    apps: AppTable,

    /// One line per slot that was ever used.
    hot: Vec<Hot>,
    /// When each slot was last heard of, or pinged, in tenths of a second of the service clock.
    heard: Vec<u32>,
    cold: Slab<Box<Cold>>,
    /// What connections hold of input that is not whole yet.
    input: InputMemory,
    frames: Frames,
    /// Who is to be sent something.
    dirty: deliver::Dirty,
    fan_outs: FanOuts,
    /// Sends that this turn may still start.
    sends_left: u32,
    /// The answer to every `pusher:ping`, encoded once.
    pong: FrameId,

    /// Channels with local subscribers, and their index by name.
    channels: Slab<LocalChannel>,
    channels_by_name: HashTable<u32>,
    /// Channels whose owner this shard is, and their index by name.
    owned: Slab<OwnedChannel>,
    owned_by_name: HashTable<u32>,
    /// Events kept for cache channels that this shard owns.
    caches: Caches,
    /// What presence channels that this shard owns have yet to tell.
    rosters: Rosters,
    /// Large channels that are not told their count before a time, in the order of these times.
    counts_due: VecDeque<(u64, ChannelKey)>,
    /// Who is signed in, and who watches whom.
    users: Users,
    /// What webhooks are told later, or not at all.
    departures: Departures,
    /// Publish requests that await other shards.
    pending: Slab<PendingPublish>,
    /// Questions that await other shards, and the bytes of lists that are gathered for them or not sent yet.
    gathers: Slab<Gather>,
    lists: ListMemory,
    /// Pages that other shards, or this one, await, and when the next may be made.
    asked_pages: Turns<AskedPage>,
    pages_due_ms: u64,
    /// Ids of the apps whose changes of the store are not answered yet, by the index of their question.
    changes_in_flight: BTreeMap<u32, Box<str>>,
    pending_nonce: u32,
    /// Hashes of the misleading names that were told of last, and when the next may be.
    misleading_told: VecDeque<u64>,
    misleading_due_ms: u64,
    /// Running number of presence joins.
    join_ticket: u32,
    /// WebSockets per app, for the apps whose counter this shard is.
    app_connections: BTreeMap<AppSerial, u32>,
    /// Requests per minute and messages per day, of apps that limit them.
    allowances: Allowances,
    /// Open channels of apps that limit them, for the apps whose counter this shard is.
    open_channels: BTreeMap<AppSerial, OpenChannels>,
    /// Apps that have as many channels as they may have, as their counters told.
    full_apps: BTreeSet<AppSerial>,
    /// Apps that use all of their share of some shard's memory.
    full_shares: FullApps,

    unheard: Unheard,
    /// Credit for event mail with each shard.
    credit: Vec<Credit>,
    /// Credit to give back to each shard, in bytes.
    credit_owed: Vec<usize>,
    /// Mail to itself, handled before an input is done.
    own_mail: VecDeque<Body>,
    outputs: VecDeque<Output>,

    deadlines: Deadlines,
    admissions: Admissions,
    drain: Option<Drain>,
    failures: AuthFailures,
    /// The token and minute last reported as used.
    token_reported: Option<(TokenId, u64)>,
    /// Text under encoding.
    scratch: Vec<u8>,
}

impl Shard {
    /// A shard without connections.
    pub fn new(config: ShardConfig) -> Self {
        let shards = usize::from(config.shards);
        let mut frames = Frames::default();
        let mut scratch = Vec::new();
        let pong = frames.hold(deliver::text_frame(&mut scratch, crate::protocol::server_event::encode_pong), NONE);
        Self {
            cipher: SocketIdCipher::new(config.boot_secret),
            directory: config.directory.clone(),
            app_in_hand: None,
            now: Moment::default(),
            clock: ServiceClock::default(),
            stats: ShardStats::default(),
            figures: Box::default(),
            apps: AppTable::default(),
            // Address space, of which each slot touches its own part: tables that grew by copying would leave their old
            // places behind as resident memory.
            hot: Vec::with_capacity(config.slots as usize),
            heard: Vec::with_capacity(config.slots as usize),
            cold: Slab::new(),
            input: InputMemory::default(),
            frames,
            dirty: deliver::Dirty::new(),
            fan_outs: FanOuts::default(),
            sends_left: limits::SENDS_PER_TURN,
            pong,
            channels: Slab::new(),
            channels_by_name: HashTable::new(),
            owned: Slab::new(),
            owned_by_name: HashTable::new(),
            caches: Caches::default(),
            rosters: Rosters::default(),
            counts_due: VecDeque::new(),
            users: Users::default(),
            departures: Departures::default(),
            pending: Slab::new(),
            gathers: Slab::new(),
            lists: ListMemory::default(),
            asked_pages: Turns::default(),
            pages_due_ms: 0,
            changes_in_flight: BTreeMap::new(),
            pending_nonce: 0,
            misleading_told: VecDeque::new(),
            misleading_due_ms: 0,
            join_ticket: 0,
            app_connections: BTreeMap::new(),
            allowances: Allowances::default(),
            open_channels: BTreeMap::new(),
            full_apps: BTreeSet::new(),
            full_shares: FullApps::default(),
            unheard: Unheard::default(),
            credit: (0..shards).map(|_| Credit::new()).collect(),
            credit_owed: vec![0; shards],
            own_mail: VecDeque::new(),
            outputs: VecDeque::new(),
            deadlines: Deadlines::default(),
            admissions: Admissions::default(),
            drain: None,
            failures: AuthFailures::new(config.options.auth_failures_per_minute),
            token_reported: None,
            scratch,
            config,
        }
    }

    /// Gives the core an input.
    pub fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        if now.monotonic_ms != self.now.monotonic_ms {
            self.clock.advance(now.monotonic_ms.saturating_sub(self.now.monotonic_ms));
        }
        self.now = now;
        match input {
            Input::Accepted { connection, peer, listener, refuse } => {
                self.handle_accepted(connection, peer, listener, refuse);
            }
            Input::Received { connection, bytes } => self.handle_received(connection, bytes),
            Input::Sent { connection, bytes } => self.handle_sent(connection, bytes),
            Input::ReadEnded { connection } => self.handle_read_ended(connection),
            Input::Closed { connection } => self.handle_closed(connection),
            Input::Mail { from, mail } => self.handle_mail(from, mail.0),
            Input::Directory(directory) => self.handle_directory(directory),
            Input::CaughtUp => self.clock.handle_caught_up(),
            Input::Timeout => self.handle_timeouts(),
            Input::Drain => self.start_drain(),
        }
        self.handle_own_mail();
    }

    /// The batch of inputs is complete: everything that its changes have to send is made now. Presence channels report
    /// their members and watchlists their users once per batch, however many changed.
    pub fn end_batch(&mut self) {
        // To notify a watcher may close it, and with it end a user that others watch.
        while self.has_rosters_to_tell() || !self.users.changed.is_empty() {
            self.tell_rosters();
            self.handle_own_mail();
            self.tell_watchers();
            self.handle_own_mail();
        }
    }

    /// Whether something waits to be made or taken. Never after a drain, but for sends beyond `limits::SENDS_PER_TURN` and
    /// the rest of large fan-outs, for which `poll_timeout` is due.
    pub fn has_pending(&self) -> bool {
        let unmade = self.has_rosters_to_tell() || !self.users.changed.is_empty() || !self.own_mail.is_empty();
        unmade || !self.outputs.is_empty() || (self.sends_left > 0 && !self.dirty.is_empty())
    }

    /// Takes an output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes the next connection that owes bytes and has no send under way. After `limits::SENDS_PER_TURN` of them it
    /// gives `None`, and `poll_timeout` is due at once: the rest follows in the next turn, after everybody else's input.
    pub fn poll_flush(&mut self) -> Option<Flush<'_>> {
        let slot = self.next_to_flush()?;
        let line = &mut self.hot[slot as usize];
        let connection = ConnectionKey { slot, generation: line.generation };
        let bytes = self.frames.lend(&mut line.outbox, line.app).expect("only slots that owe bytes are next");
        Some(Flush { connection, bytes })
    }

    /// The bytes of this connection's send under way: what `poll_flush` lent and neither `Sent` nor `Closed` has ended
    /// yet; empty when there is none. A driver whose socket would block asks for them again when it is writable.
    pub fn lent(&self, connection: ConnectionKey) -> &[u8] {
        if !self.is_live(connection) {
            return &[];
        }
        self.frames.lent(&self.hot[connection.slot as usize].outbox)
    }

    /// When `Timeout` must be fed, on the monotonic clock, in ms; `None` when nothing is awaited.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.next_timeout()
    }

    /// True once `Drain` was fed and every WebSocket is gone or its grace is over.
    pub fn is_drained(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.done)
    }

    /// Figures.
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            channels: self.channels.len() as u64,
            owned_channels: self.owned.len() as u64,
            users: self.users.local.len() as u64,
            owned_users: self.users.owned.len() as u64,
            cached_events: self.caches.events() as u64,
            cached_bytes: self.caches.bytes() as u64,
            // The pong frame is always held, for nobody in particular.
            frames: self.frames.held() as u64 - 1,
            send_bytes: (self.frames.held_bytes() - self.frames.frame_bytes(self.pong)) as u64,
            ..self.stats
        }
    }

    /// This shard's index.
    pub fn index(&self) -> ShardIndex {
        self.config.index
    }

    /// The id of a connection of this shard (P-CONN-10).
    fn socket_id(&self, connection: ConnectionKey) -> SocketId {
        let place = u64::from(self.config.index) << SLOT_BITS | u64::from(connection.slot);
        self.cipher.seal(place << 32 | u64::from(connection.generation))
    }

    /// The connection that an id names, if it can name one at all.
    fn connection_of(&self, id: SocketId) -> Option<Anywhere> {
        let plain = self.cipher.open(id)?;
        let place = plain >> 32;
        let shard = (place >> SLOT_BITS) as ShardIndex;
        let slot = (place & ((1 << SLOT_BITS) - 1)) as u32;
        let connection = ConnectionKey { slot, generation: plain as u32 };
        (shard < self.config.shards).then_some(Anywhere { shard, connection })
    }
}

/// Bits of a socket id that name the slot; the shard has the 8 above them, the generation the 32 below.
const SLOT_BITS: u32 = 24;

const _: () = assert!(limits::SHARDS_MAX <= 1 << (32 - SLOT_BITS));

#[cfg(test)]
mod tests;
