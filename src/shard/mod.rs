//! The sans-IO core: it makes all decisions. A shard owns its connections and its share of the channels; it opens no
//! descriptor, reads no clock, and draws no randomness.
//!
//! # Contract with a driver
//! Feed a complete batch of inputs with [`Shard::handle_input`], end it with [`Shard::end_batch`], then drain
//! [`Shard::poll_output`] and [`Shard::poll_flush`] until both return `None`, then sleep until [`Shard::poll_timeout`]
//! or the next event. This alone results in one send per connection and turn.
//!
//! - `end_batch` creates everything that the batch's changes have to send; the polls only take it. An input that is fed
//!   while draining (`Sent`, `Closed`) begins a new batch: end it and drain again, until no more input arrives. After
//!   that [`Shard::has_pending`] is false, and a driver asserts this.
//! - `CaughtUp` comes before `Timeout`, and both come after the batch's other inputs. A driver that has more events or
//!   readable sockets than a turn may feed reports `CaughtUp` when it has served, in order, all of those that were
//!   there when it last did.
//! - The driver assigns slots. It feeds `Accepted` once per connection, and `Closed` once, as the last input for that
//!   key, when no operation on the connection is in flight any more; only then may the slot be used again.
//! - `poll_flush` lends the bytes of one send. They stay valid and unmoved until `Sent` or `Closed` is fed for that
//!   connection; there is at most one send per connection at a time.
//! - `Sent { bytes: n }` may report less than was lent (a short send): the rest is returned by a later `poll_flush`. A
//!   send that would block is not reported until the socket has accepted bytes.
//! - After [`Output::Close`] the driver ends the connection (operations cancelled, socket closed) and feeds `Closed`.
//!   After a reset or an end of stream seen by the driver it feeds `Closed` (reset, error) or `ReadEnded`
//!   (orderly end of the peer's direction; the shard then decides and answers with `Close`).
//! - Any number of mails may be in flight between shards; per pair of shards they arrive in the order sent, none lost,
//!   none duplicated.
//!
//! # Parts
//! Each part is a value with private fields; its methods take the parts below that they use. A part calls downwards
//! only (`tests/tidy.rs` checks this): `context` (with `metrics`, `mail`, `deadlines`) < `connections` < `quota` <
//! `channels` < `owner` < `users` < `http`. The files of `impl Shard` are routers: they decide which part handles each
//! message, and do nothing else.

mod channels;
mod client_message;
mod connections;
mod context;
mod deadlines;
mod drain;
mod http;
mod io;
mod keyed_slab;
mod mail;
mod metrics;
mod options;
mod owner;
mod permits;
mod quota;
mod receive;
mod refusals;
mod service_clock;
mod timers;
mod turns;
mod users;

use std::sync::Arc;

use crate::app::Directory;
use crate::connection::ConnectionKey;
pub use crate::index::ShardIndex;
use crate::index::Slot;
pub use crate::metrics::figures::ShardStats;
use crate::metrics::figures::{DriverFigures, ProcessFigures, Snapshot};
use crate::moment::Moment;
use channels::Channels;
use connections::Connections;
use context::Context;
use drain::Drain;
use http::{Parts, Requests};
pub use io::{Authorize, Change, ChangeKind, Flush, Input, Listener, Output};
pub use mail::{AnswerId, ChangeRefused, Changed, Mail, ReplayCall, ReplayOutcome};
use mail::{ConnectionMessage, MetricsMessage, ShardMessage};
pub use options::{ChannelOrder, METRICS_PREFIX, ShardConfig, ShardOptions};
use owner::Owner;
use quota::Quota;
use timers::Sweep;
use users::Users;

/// A shard.
pub struct Shard {
    context: Context,
    connections: Connections,
    quota: Quota,
    channels: Channels,
    owner: Owner,
    users: Users,
    requests: Requests,
    sweep: Sweep,
    drain: Option<Drain>,
}

impl Shard {
    /// Creates a shard without connections.
    pub fn new(config: ShardConfig) -> Self {
        let mut context = Context::new(config);
        Self {
            connections: Connections::new(&mut context),
            quota: Quota::new(context.config.options.auth_failures_per_minute),
            channels: Channels::default(),
            owner: Owner::new(context.config.options.history_bytes),
            users: Users::default(),
            requests: Requests::default(),
            sweep: Sweep::default(),
            drain: None,
            context,
        }
    }

    /// Feeds an input to the core.
    pub fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        self.context.advance(now);
        match input {
            Input::Accepted { connection, peer, listener, refuse } => {
                self.connections.handle_accepted(&mut self.context, connection, peer, listener, refuse);
            }
            Input::Received { connection, bytes } => self.handle_received(connection, bytes),
            Input::Sent { connection, bytes } => {
                if !self.connections.handle_sent(&mut self.context, connection, bytes) {
                    return;
                }
            }
            Input::ReadEnded { connection } => self.handle_read_ended(connection),
            Input::Closed { connection } => self.handle_closed(connection),
            Input::Mail { from, mail } => self.handle_mail(from, mail.0),
            Input::Directory(directory) => self.handle_directory(directory),
            Input::CaughtUp => self.context.clock.handle_caught_up(),
            Input::Timeout => self.handle_timeouts(),
            Input::Drain => self.start_drain(),
        }
        self.follow_up();
    }

    /// Ends the batch of inputs: everything that its changes have to send is created now. Presence channels report
    /// their members and watchlists their users once per batch, however many changed.
    pub fn end_batch(&mut self) {
        // Notifying a watcher may close it, and with it disconnect a user that others watch.
        while self.owner.has_pending_rosters() || self.users.has_changes() {
            self.owner.report_rosters(&mut self.context);
            self.follow_up();
            self.users.notify_watchers(&mut self.context, &mut self.connections);
            self.follow_up();
        }
        self.connections.release_past_events();
    }

    /// Whether something is waiting to be created or taken. Never after a drain, except for sends beyond
    /// `limits::SENDS_PER_TURN` and the rest of large fan-outs, for which `poll_timeout` is due.
    pub fn has_pending(&self) -> bool {
        let unmade = self.owner.has_pending_rosters() || self.users.has_changes() || !self.context.mail.is_own_empty();
        let taken = self.context.outputs.is_empty() && !self.connections.has_sends();
        unmade || self.connections.has_followups() || !taken
    }

    /// Whether a request waits for answers, a stream or poll is held, or an app's connections or channels are counted.
    /// Never when all clients are gone, which the simulation asserts.
    pub fn has_waiting(&self) -> bool {
        self.requests.pending() > 0
            || self.connections.has_streams()
            || self.owner.polls() > 0
            || !self.quota.is_at_rest()
    }

    /// Takes an output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.context.outputs.pop_front()
    }

    /// Takes the next connection that has unsent bytes and no send in flight. After `limits::SENDS_PER_TURN` of them it
    /// returns `None`, and `poll_timeout` is due at once: the rest follows in the next turn, after all other input.
    pub fn poll_flush(&mut self) -> Option<Flush<'_>> {
        self.connections.poll_flush()
    }

    /// The bytes of this connection's send in flight: those that `poll_flush` lent and that neither `Sent` nor `Closed`
    /// has ended yet; empty when there is none. A driver whose socket would block calls this again when the socket is
    /// writable.
    pub fn lent(&self, connection: ConnectionKey) -> &[u8] {
        self.connections.lent(connection)
    }

    /// When `Timeout` must be fed, on the monotonic clock, in ms; `None` when nothing is awaited.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.next_timeout()
    }

    /// True once `Drain` was fed and every WebSocket is gone or its grace period is over.
    pub fn is_drained(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.done)
    }

    /// This shard's index.
    pub fn index(&self) -> ShardIndex {
        self.context.config.index
    }

    /// Gauges and counters.
    pub fn stats(&self) -> ShardStats {
        let (users, owned_users) = self.users.counts();
        let (cached_events, cached_bytes) = self.owner.cached_count();
        let (history_events, history_bytes) = self.owner.history_count();
        let (frames, send_bytes) = self.connections.frames_held();
        ShardStats {
            channels: self.channels.count() as u64,
            owned_channels: self.owner.channel_count() as u64,
            users: users as u64,
            owned_users: owned_users as u64,
            cached_events: cached_events as u64,
            cached_bytes: cached_bytes as u64,
            history_events: history_events as u64,
            history_bytes: history_bytes as u64,
            frames,
            send_bytes,
            ..self.context.metrics.stats
        }
    }

    /// A turn of the driver's loop begins: used for metrics only. Times are of one clock for all shards.
    pub fn handle_turn_begin(&mut self, at_us: u64) {
        self.context.metrics.turn_us = at_us;
    }

    /// A turn has ended, and everything that the kernel accepted in it was fed as `Sent`.
    pub fn handle_turn_end(&mut self, at_us: u64, driver: &DriverFigures) {
        let metrics = &mut self.context.metrics;
        metrics.driver = *driver;
        metrics.counted.turns.observe(at_us.saturating_sub(metrics.turn_us));
        for accepted_us in self.connections.take_written() {
            metrics.counted.publish_to_last_write.observe(at_us.saturating_sub(accepted_us));
        }
    }

    /// A copy of all metrics of the shard.
    pub fn snapshot(&mut self) -> Snapshot {
        let stats = self.stats();
        let metrics = &mut self.context.metrics;
        metrics.counted.sent_bytes = metrics.app_counters.sent_bytes();
        Snapshot {
            shard: self.context.config.index,
            stats,
            figures: (*metrics.counted).clone(),
            apps: metrics.app_counters.snapshot(),
            driver: metrics.driver,
        }
    }

    /// The driver has measured the process; every request that waits for the result receives it now.
    pub fn handle_process_figures(&mut self, process: &ProcessFigures) {
        let (requests, mut parts) = self.requests();
        requests.handle_process_figures(&mut parts, process);
        self.follow_up();
    }

    /// The driver has closed the connection; the slot is free from now on.
    fn handle_closed(&mut self, connection: ConnectionKey) {
        if self.connections.is_live(connection) {
            self.connections.retire(&mut self.context, connection.slot());
            self.leave_retired();
            self.connections.free(&mut self.context, connection.slot());
        }
    }

    fn handle_directory(&mut self, directory: Arc<Directory>) {
        let context = &mut self.context;
        let before = context.replace_directory(directory);
        self.owner.handle_directory(context, &before);
        self.quota.handle_directory(context);
        context.metrics.forget_deleted_apps(&context.directory);
        self.connections.close_disabled_apps(context, &before);
    }

    fn handle_mail(&mut self, from: ShardIndex, message: ShardMessage) {
        self.context.mail.note_received(from, message.cost());
        self.dispatch(from, message);
        self.return_credit(from);
    }

    /// Returns credit once it amounts to a portion and the shard has memory for more.
    fn return_credit(&mut self, to: ShardIndex) {
        if !self.connections.is_out_of_memory()
            && let Some(bytes) = self.context.mail.take_returnable(to)
        {
            self.context.send(to, ShardMessage::Credit { bytes });
        }
    }

    /// Dispatches a message to the part that handles it.
    fn dispatch(&mut self, from: ShardIndex, message: ShardMessage) {
        let context = &mut self.context;
        match message {
            ShardMessage::Owner(message) => self.owner.handle(context, &self.quota, from, message),
            ShardMessage::Channel(message) => self.channels.handle(context, &mut self.connections, from, message),
            ShardMessage::Connection(ConnectionMessage::Admitted { app, connection, admitted }) => {
                // Streams and polls ask while they speak HTTP.
                if self.connections.is_awaiting_answers(connection) {
                    let (requests, mut parts) = self.requests();
                    requests.handle_place(&mut parts, app, connection, admitted);
                } else {
                    self.connections.handle_admitted(context, app, connection, admitted);
                }
            }
            ShardMessage::Connection(ConnectionMessage::ShareFull { app, full }) => {
                self.connections.handle_share_full(from, app, full);
            }
            ShardMessage::User(message) => self.users.handle(context, &mut self.connections, from, message),
            ShardMessage::Quota(message) => self.quota.handle(context, from, message),
            ShardMessage::Http(message) => {
                let (requests, mut parts) = self.requests();
                requests.handle(&mut parts, from, message);
            }
            ShardMessage::Metrics(MetricsMessage::Measure { request }) => {
                let snapshot = Box::new(self.snapshot());
                self.context.send(from, MetricsMessage::Measured { request, snapshot });
            }
            ShardMessage::Metrics(MetricsMessage::Measured { request, snapshot }) => {
                let (requests, mut parts) = self.requests();
                requests.handle_measured(&mut parts, request, *snapshot);
            }
            ShardMessage::Credit { bytes } => context.mail.handle_credit(from, bytes),
        }
    }

    /// Handles everything that the last step has caused: closed connections leave, mail to this shard itself is
    /// handled, and connections that waited are read again.
    fn follow_up(&mut self) {
        self.handle_own_mail();
        while let Some(connection) = self.connections.take_unsettled() {
            self.settle(connection);
            self.handle_own_mail();
        }
    }

    /// Handles mail to this shard itself, in the order sent.
    fn handle_own_mail(&mut self) {
        self.leave_retired();
        while let Some(message) = self.context.mail.pop_own() {
            self.dispatch(self.context.config.index, message);
            self.leave_retired();
        }
    }

    /// Removes closed connections from their channels and from their users.
    #[inline]
    fn leave_retired(&mut self) {
        while let Some(slot) = self.connections.take_retired() {
            self.leave(slot);
        }
    }

    #[cold]
    fn leave(&mut self, slot: Slot) {
        self.channels.leave_all(&mut self.context, &mut self.connections, slot);
        self.users.sign_out(&mut self.context, &mut self.connections, slot);
        let (requests, mut parts) = self.requests();
        requests.leave_poll(&mut parts, slot);
    }

    /// The requests, and the parts that they use.
    fn requests(&mut self) -> (&mut Requests, Parts<'_>) {
        let Self { context, connections, quota, channels, owner, users, requests, .. } = self;
        (requests, Parts { context, connections, quota, channels, owner, users })
    }
}

#[cfg(test)]
mod tests;
