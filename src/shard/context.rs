//! Shared state for every part of a shard: the time, the configuration, the apps, and the shard's outputs.
//!
//! Parts take it as one argument. It refers to none of them, so nothing here can call upwards.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::deadlines::Deadlines;
use super::io::Output;
use super::mail::{ChannelKey, ConnectionRef, Mail, Mailer, QuotaMessage, ShardMessage, UserKey};
use super::metrics::Metrics;
use super::options::{ChannelOrder, ShardConfig};
use super::service_clock::ServiceClock;
use crate::app::{App, AppSerial, Directory};
use crate::connection::{ConnectionKey, NONE};
use crate::index::ShardIndex;
use crate::limits;
use crate::metrics::figures::Identity;
use crate::moment::Moment;
use crate::protocol::event_id::EventId;
use crate::protocol::socket_id::{SocketId, SocketIdCipher};
use crate::wire::websocket::{self, Opcode};

/// State that the parts of a shard share.
pub(super) struct Context {
    /// The time of this input.
    pub(super) now: Moment,
    /// The time by which peers are judged.
    pub(super) clock: ServiceClock,
    pub(super) config: ShardConfig,
    /// Apps and tokens from the store.
    pub(super) directory: Arc<Directory>,
    pub(super) metrics: Metrics,
    pub(super) mail: Mailer,
    pub(super) deadlines: Deadlines,
    /// Outputs that the driver has yet to take.
    pub(super) outputs: VecDeque<Output>,
    /// The process is ending: no connection is admitted or kept (P-CLOSE-1).
    pub(super) is_draining: bool,
    cipher: SocketIdCipher,
    /// The app of the last request or message.
    last_app: Option<Arc<App>>,
    /// Text that is being encoded.
    scratch: Vec<u8>,
}

impl Context {
    pub(super) fn new(config: ShardConfig) -> Self {
        Self {
            now: Moment::default(),
            clock: ServiceClock::default(),
            cipher: SocketIdCipher::new(config.boot_secret),
            directory: config.directory.clone(),
            metrics: Metrics::default(),
            mail: Mailer::new(config.shards),
            deadlines: Deadlines::default(),
            outputs: VecDeque::new(),
            is_draining: false,
            last_app: None,
            scratch: Vec::new(),
            config,
        }
    }

    /// Starts handling another input.
    pub(super) fn advance(&mut self, now: Moment) {
        if now.monotonic_ms != self.now.monotonic_ms {
            self.clock.advance(now.monotonic_ms.saturating_sub(self.now.monotonic_ms));
        }
        self.now = now;
    }

    /// The store has changed; returns the previous directory.
    pub(super) fn replace_directory(&mut self, directory: Arc<Directory>) -> Arc<Directory> {
        self.last_app = None;
        std::mem::replace(&mut self.directory, directory)
    }

    /// Tenths of a second of the service clock, of which 32 bits last 13 years.
    pub(super) fn tenths(&self) -> u32 {
        (self.clock.served_ms() / 100) as u32
    }

    /// Takes an app out for one request or message; return it with [`Context::keep_app`]. The reference count of an app
    /// is shared by all shards: changing it twice per request would make them wait for each other.
    pub(super) fn take_app(&mut self, app: AppSerial) -> Option<Arc<App>> {
        let app = self.directory.app(app)?;
        match self.last_app.take() {
            Some(last) if Arc::ptr_eq(&last, app) => Some(last),
            Some(_) | None => Some(Arc::clone(app)),
        }
    }

    /// Keeps an app for the next request or message.
    pub(super) fn keep_app(&mut self, app: Arc<App>) {
        self.last_app = Some(app);
    }

    /// The id of a connection of this shard (P-CONN-10).
    pub(super) fn socket_id(&self, connection: ConnectionKey) -> SocketId {
        let place = u64::from(self.config.index) << SLOT_BITS | u64::from(connection.slot);
        self.cipher.seal(place << 32 | u64::from(connection.generation))
    }

    /// The connection with this id, if the id can belong to one of this process.
    pub(super) fn connection_of(&self, id: SocketId) -> Option<ConnectionRef> {
        let plain = self.cipher.open(id)?;
        let place = plain >> 32;
        let shard = (place >> SLOT_BITS) as ShardIndex;
        let slot = (place & ((1 << SLOT_BITS) - 1)) as u32;
        let connection = ConnectionKey { slot, generation: plain as u32 };
        (shard < self.config.shards).then_some(ConnectionRef { shard, connection })
    }

    /// The key of a channel: its hash is keyed (threat T12) and the same on all shards.
    pub(super) fn channel_key(&self, app: AppSerial, name: &str) -> ChannelKey {
        ChannelKey { app, name: name.into(), hash: self.keyed_hash(app, name) }
    }

    /// The key of a user, hashed like that of a channel.
    pub(super) fn user_key(&self, app: AppSerial, id: &str) -> UserKey {
        UserKey { app, id: id.into(), hash: self.keyed_hash(app, id) }
    }

    pub(super) fn keyed_hash(&self, app: AppSerial, name: &str) -> u64 {
        self.config.order.hash(app, name)
    }

    /// The id of an event of a channel, or its position.
    pub(super) fn event_id(&self, channel: &ChannelKey, sequence: u64) -> EventId {
        self.config.order.event_id(channel.app, ChannelOrder::group(channel.hash), sequence)
    }

    /// The shard that orders a channel's events.
    pub(super) fn owner_of(&self, channel: &ChannelKey) -> ShardIndex {
        self.owner_of_hash(channel.hash)
    }

    /// The shard that owns the channel or user with this hash.
    pub(super) fn owner_of_hash(&self, hash: u64) -> ShardIndex {
        ChannelOrder::owner(hash, self.config.shards)
    }

    /// The shard that owns the channels of a group.
    pub(super) fn owner_of_group(&self, group: u8) -> ShardIndex {
        ChannelOrder::owner_of_group(group, self.config.shards)
    }

    /// The shard that counts usage against an app's limits.
    pub(super) fn counter_of(&self, app: AppSerial) -> ShardIndex {
        (app.0 % u32::from(self.config.shards)) as ShardIndex
    }

    /// Tells the counter of an app that a connection that it admitted is gone.
    pub(super) fn send_departure(&mut self, app: AppSerial) {
        self.send(self.counter_of(app), QuotaMessage::Departed { app });
    }

    /// One text frame with the text that `encode` appends.
    pub(super) fn text_frame(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        self.scratch.clear();
        encode(&mut self.scratch);
        let mut frame = Vec::new();
        websocket::encode_frame(&mut frame, Opcode::Text, &self.scratch);
        Bytes::from(frame)
    }

    /// Sends control mail; mail to this shard itself is handled before the input is complete, in the order sent.
    pub(super) fn send(&mut self, to: ShardIndex, message: impl Into<ShardMessage>) {
        let message = message.into();
        debug_assert_eq!(message.cost(), 0, "event mail needs credit");
        self.send_unpaid(to, message);
    }

    /// Sends event mail if there is credit for it; returns it otherwise. It uses the part of the app with this serial,
    /// or of mail that belongs to no app (`NONE`).
    pub(super) fn send_paid(
        &mut self,
        to: ShardIndex,
        app: u32,
        message: impl Into<ShardMessage>,
    ) -> Result<(), ShardMessage> {
        let message = message.into();
        if to != self.config.index && !self.mail.pay(to, app, message.cost()) {
            return Err(message);
        }
        self.send_unpaid(to, message);
        Ok(())
    }

    /// True when mail of this cost may be sent for the app now.
    pub(super) fn can_pay(&self, app: AppSerial, to: ShardIndex, cost: usize) -> bool {
        to == self.config.index || self.mail.covers(to, app.0, cost)
    }

    fn send_unpaid(&mut self, to: ShardIndex, message: ShardMessage) {
        if to == self.config.index {
            self.mail.push_own(message);
        } else {
            self.outputs.push_back(Output::Mail { to, mail: Mail(message) });
        }
    }

    /// `activity_timeout` of an app's clients, in s (P-LIVE-3).
    pub(super) fn activity_timeout_s(&self, app: AppSerial) -> u32 {
        let own = self.directory.app(app).map_or(0, |app| app.settings.activity_timeout);
        if own > 0 { own } else { self.config.options.activity_timeout_s }
    }

    /// Unsent bytes that the settings of an app allow one of its connections (P-CLOSE-5), before the app's share is
    /// considered.
    pub(super) fn outbox_bytes_of_settings(&self, app: u32) -> usize {
        self.app(app).map_or(limits::OUTBOX_BYTES_MAX, |app| app.settings.outbox_bytes_max())
    }

    /// The app with this serial, unless it is deleted or the serial is `NONE`.
    pub(super) fn app(&self, app: u32) -> Option<&Arc<App>> {
        if app == NONE { None } else { self.directory.app(AppSerial(app)) }
    }

    /// What the server reports about itself.
    pub(super) fn identity(&self) -> &Identity {
        &self.config.options.identity
    }
}

/// Bits of a socket id that contain the slot; the shard is in the 8 above them, the generation in the 32 below.
const SLOT_BITS: u32 = 24;

const _: () = assert!(limits::SHARDS_MAX <= 1 << (32 - SLOT_BITS));
