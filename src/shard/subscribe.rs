//! Subscribing and unsubscribing (P-SUB, P-FAIL, R-AUTHREQ rules), and a shard's list of its own subscribers.
//!
//! A connection is a subscriber, and is told so, only when the channel's owner has recorded it: from then on no event
//! is missed (P-SUB-5). Until then it waits in the channel's `waiting` list. At most one count per channel is under
//! way to the owner; what changes meanwhile is told with the next one.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::mail::{Body, ChannelKey, Full};
use super::{Output, Shard, ShardIndex};
use crate::app::{App, AppSerial};
use crate::auth::AuthFailure;
use crate::auth::subscription::{refusal_message, verify_private, verify_subscription};
use crate::channel::name::{ChannelKind, ChannelName, Modifiers, NameError, NameSource, SERVER_TO_USER, is_misleading};
use crate::channel::subscribers::Subscribers;
use crate::connection::{CHANNELS_INLINE, ConnectionKey, Phase};
use crate::limits;
use crate::metrics::figures::{SubscriptionError, Surface};
use crate::protocol::server_event;
use crate::wire::json::is_json_object;

/// A channel with local subscribers, or with connections that wait to become such.
pub(super) struct LocalChannel {
    pub(super) key: ChannelKey,
    pub(super) kind: ChannelKind,
    pub(super) owner: ShardIndex,
    pub(super) subscribers: Subscribers,
    /// Connections whose join is not yet recorded, in the order in which they asked.
    pub(super) waiting: VecDeque<Waiting>,
    /// The last count sent to the owner (not for presence channels, which join and leave one by one).
    reported: u32,
    /// How many of `waiting` the count under way covers; `None` when none is under way.
    covered: Option<usize>,
}

/// A connection whose join is not yet recorded.
pub(super) struct Waiting {
    pub(super) connection: ConnectionKey,
    /// Ticket of its join on a presence channel.
    pub(super) ticket: u32,
}

impl Full {
    /// The sentence for whoever is refused, with the figure and its setting.
    pub(super) fn reason(self, channel: &str) -> String {
        match self {
            Self::Members(most) => format!("Presence channel {channel} has its {most} members (max_presence_members)"),
            Self::Roster => {
                format!(
                    "The members of presence channel {channel} have {} bytes, and may not have more",
                    limits::ROSTER_BYTES_MAX
                )
            }
            Self::Channels(most) => format!("This app has its {most} occupied channels (max_channels)"),
        }
    }
}

/// A subscribe message, as received.
pub(super) struct Subscribe<'a> {
    pub(super) channel: Option<&'a str>,
    pub(super) auth: Option<&'a str>,
    pub(super) channel_data: Option<&'a str>,
}

impl Shard {
    /// `pusher:subscribe`, in the order of P-SUB-1: name, auth, register.
    pub(super) fn subscribe(&mut self, slot: u32, app: &Arc<App>, message: &Subscribe<'_>) {
        let Some(text) = message.channel else {
            self.send_error(slot, None, "Subscribe needs a channel: the name of the channel as a string");
            return;
        };
        let name = match ChannelName::parse(text, self.config.options.channel_names, NameSource::WebSocket) {
            Ok(name) => name,
            Err(error) => return self.refuse_name(slot, text, error),
        };
        let key = self.channel_key(app.serial, name.as_str());
        let known = self.find_channel(&key);
        if known.is_some_and(|index| self.is_subscribed(slot, index)) {
            let message = format!("Existing subscription to channel {text}");
            self.send_error(slot, None, &message);
            return;
        }
        let channels_max = app.settings.max_channels_per_connection;
        if self.subscription_count(slot) >= channels_max as usize {
            if !self.counts_invalid(slot) {
                return;
            }
            let reason =
                format!("A connection may subscribe {channels_max} channels at most (max_channels_per_connection)");
            self.refuse_subscription(slot, text, None, "LimitReached", &reason, 4100);
            return;
        }
        if name.kind() != ChannelKind::Public && !self.is_authorized(slot, app, &name, message) {
            return;
        }
        if name.kind() == ChannelKind::Presence {
            self.join_presence(slot, app, key, message.channel_data);
            return;
        }
        if is_misleading(text) {
            self.warn_of_name(&key);
        }
        let index = self.channel_index(&key, name.kind());
        self.add_subscription(slot, index);
        let connection = self.key(slot);
        self.channels[index as usize].waiting.push_back(Waiting { connection, ticket: 0 });
        self.report_count(index);
    }

    /// R-CHAN-3: names a public channel that does not look it, unless it did so of late.
    fn warn_of_name(&mut self, channel: &ChannelKey) {
        if self.now.monotonic_ms < self.misleading_due_ms || self.misleading_told.contains(&channel.hash) {
            return;
        }
        self.misleading_due_ms = self.now.monotonic_ms + limits::MISLEADING_NAMES_INTERVAL_MS;
        if self.misleading_told.len() == limits::MISLEADING_NAMES_MAX {
            self.misleading_told.pop_front();
        }
        self.misleading_told.push_back(channel.hash);
        self.outputs.push_back(Output::MisleadingName { app: channel.app, channel: channel.name.clone() });
    }

    /// `pusher:unsubscribe`: no answer, ignored when not subscribed (P-SUB-3).
    pub(super) fn unsubscribe(&mut self, slot: u32, app: AppSerial, channel: Option<&str>) {
        let Some(text) = channel else { return };
        self.catch_up(slot);
        let Some(index) = self.find_channel_named(app, text) else { return };
        if self.remove_subscription(slot, index) {
            self.leave(slot, index);
        }
    }

    /// Ends a subscription that was taken off the connection's list.
    pub(super) fn leave(&mut self, slot: u32, index: u32) {
        let connection = self.key(slot);
        let channel = &mut self.channels[index as usize];
        let was_subscribed = channel.subscribers.remove(slot);
        if was_subscribed {
            self.stats.subscriptions -= 1;
        } else {
            let at = channel.waiting.iter().position(|waiting| waiting.connection == connection);
            let at = at.expect("a connection on a channel is subscribed or waits");
            channel.waiting.remove(at);
            if let Some(covered) = &mut channel.covered {
                *covered -= usize::from(at < *covered);
            }
        }
        if channel.kind == ChannelKind::Presence {
            self.leave_presence(slot, index, was_subscribed);
            self.forget_channel_if_unused(index);
        } else {
            self.report_count(index);
        }
    }

    /// The owner recorded the count: those who waited for it are subscribers now (P-SUB-5).
    pub(super) fn handle_recorded(&mut self, channel: &ChannelKey, cached: Option<Bytes>) {
        let index = self.find_channel(channel).expect("a channel stays while a count is under way");
        let entry = &mut self.channels[index as usize];
        let covered = entry.covered.take().expect("one answer per count");
        let joined: Vec<Waiting> = entry.waiting.drain(..covered).collect();
        if !joined.is_empty() {
            let (name, authorizes) = (entry.key.name.clone(), entry.kind != ChannelKind::Public);
            let frame = super::deliver::text_frame(&mut self.scratch, |out| {
                server_event::encode_subscription_succeeded(out, &name);
            });
            let app = channel.app.0;
            let frame = self.frames.hold(frame, app);
            let after = self.frame_after_join(&name, cached).map(|frame| self.frames.hold(frame, app));
            // All are subscribers before the first is told: to tell one may close it, and then the others must count.
            for Waiting { connection, .. } in &joined {
                self.channels[index as usize].subscribers.insert(connection.slot);
                self.fan_outs.pass_over(index, connection.slot);
                self.stats.subscriptions += 1;
            }
            for Waiting { connection, .. } in joined {
                self.queue_shared(connection.slot, frame);
                if let Some(after) = after {
                    self.queue_shared(connection.slot, after);
                }
                if authorizes {
                    self.authorize_connection(connection.slot);
                }
            }
            self.frames.release(frame);
            if let Some(after) = after {
                self.frames.release(after);
            }
        }
        // A queue at its bound may have ended the last subscription, and the channel with it.
        if self.find_channel(channel) == Some(index) {
            self.report_count(index);
        }
    }

    /// The owner did not record the count: those who waited for it are refused, and nobody else is here (P-FAIL-4).
    pub(super) fn handle_unrecorded(&mut self, channel: &ChannelKey, channels_max: u32) {
        let index = self.find_channel(channel).expect("a channel stays while a count is under way");
        let entry = &mut self.channels[index as usize];
        let covered = entry.covered.take().expect("one answer per count");
        entry.reported = 0;
        let refused: Vec<Waiting> = entry.waiting.drain(..covered).collect();
        let reason = Full::Channels(channels_max).reason(&channel.name);
        for Waiting { connection, .. } in &refused {
            self.remove_subscription(connection.slot, index);
        }
        for Waiting { connection, .. } in refused {
            self.refuse_subscription(connection.slot, &channel.name, None, "LimitReached", &reason, 4100);
        }
        if self.find_channel(channel) == Some(index) {
            self.report_count(index);
        }
    }

    /// What follows `succeeded` on a cache channel: the cached frame or `pusher:cache_miss` (P-CACHE-2).
    pub(super) fn frame_after_join(&mut self, channel: &str, cached: Option<Bytes>) -> Option<Bytes> {
        if !Modifiers::of(channel).cache {
            return None;
        }
        Some(cached.unwrap_or_else(|| {
            super::deliver::text_frame(&mut self.scratch, |out| server_event::encode_cache_miss(out, channel))
        }))
    }

    /// An event for this channel was lost on the way here: everybody who should have had it is closed with 4200.
    pub(super) fn handle_gap(&mut self, from: ShardIndex, channel: ChannelKey) {
        if let Some(index) = self.find_channel(&channel) {
            let entry = &self.channels[index as usize];
            let mut slots: Vec<u32> = entry.waiting.iter().map(|waiting| waiting.connection.slot).collect();
            entry.subscribers.for_each(|slot| slots.push(slot));
            self.stats.gap_closed += slots.len() as u64;
            for slot in slots {
                self.close_websocket(slot, &crate::protocol::close::CloseReason::EventsLost);
            }
        }
        self.send(from, Body::GapClosed { channel });
    }

    /// Tells the owner how many subscribers there are, unless it knows or is being told.
    fn report_count(&mut self, index: u32) {
        let entry = &mut self.channels[index as usize];
        if entry.covered.is_some() {
            return;
        }
        let count = entry.subscribers.count() + entry.waiting.len() as u32;
        if count == entry.reported && entry.waiting.is_empty() {
            self.forget_channel_if_unused(index);
            return;
        }
        entry.reported = count;
        entry.covered = Some(entry.waiting.len());
        let (owner, channel, joiners) = (entry.owner, entry.key.clone(), entry.waiting.len() as u32);
        self.send(owner, Body::Subscribers { channel, count, joiners });
    }

    pub(super) fn forget_channel_if_unused(&mut self, index: u32) {
        let entry = &self.channels[index as usize];
        if entry.subscribers.is_empty() && entry.waiting.is_empty() && entry.covered.is_none() && entry.reported == 0 {
            let hash = entry.key.hash;
            let entry = self.channels_by_name.find_entry(hash, |&at| at == index);
            entry.expect("every channel is found by its name").remove();
            self.drop_fan_outs(index);
            self.channels.remove(index as usize);
        }
    }

    /// Verifies the signature of a protected channel; a refusal is answered here (P-FAIL-1 to 3, R-AUTHREQ).
    fn is_authorized(&mut self, slot: u32, app: &App, name: &ChannelName<'_>, message: &Subscribe<'_>) -> bool {
        let channel = name.as_str();
        let socket_id = self.socket_id(self.key(slot));
        if name.kind() == ChannelKind::ServerToUser && self.is_own_channel(slot, name) {
            return true;
        }
        let auth = message.auth.or((name.kind() == ChannelKind::ServerToUser).then_some(""));
        let Some(auth) = auth else {
            if name.kind() != ChannelKind::PrivateEncrypted {
                self.send_text(slot, |out| server_event::encode_auth_required(out, channel, socket_id));
            }
            let reason = format!("Auth info required to subscribe to {channel}");
            self.note_auth_failure(Surface::Subscribe, AuthFailure::Missing);
            self.refuse_subscription(slot, channel, Some(4009), "AuthError", &reason, 401);
            return false;
        };
        let data_may_be_signed = matches!(name.kind(), ChannelKind::Private | ChannelKind::PrivateEncrypted);
        let channel_data = message.channel_data.filter(|data| match name.kind() {
            ChannelKind::Presence => true,
            ChannelKind::Private | ChannelKind::PrivateEncrypted => is_json_object(data),
            ChannelKind::Public | ChannelKind::ServerToUser => false,
        });
        let socket_id = socket_id.to_text();
        let verify = if data_may_be_signed { verify_private } else { verify_subscription };
        // A server-to-user channel is for the user signed in on this connection, whatever is signed (P-USER-4).
        let verdict = match verify(app, &socket_id, channel, channel_data, auth) {
            Ok(()) if name.kind() == ChannelKind::ServerToUser => {
                self.note_auth_failure(Surface::Subscribe, AuthFailure::WrongUser);
                Err(crate::auth::subscription::SubscriptionRefusal::InvalidSignature)
            }
            verdict => verdict.inspect_err(|refusal| self.note_auth_failure(Surface::Subscribe, refusal.failure())),
        };
        let Err(refusal) = verdict else { return true };
        let reason = refusal_message(&refusal, &socket_id, channel, channel_data, auth);
        self.refuse_subscription(slot, channel, Some(4009), "AuthError", &reason, 401);
        false
    }

    /// True for the channel of the user that is signed in on the connection (P-USER-4).
    fn is_own_channel(&self, slot: u32, name: &ChannelName<'_>) -> bool {
        let user_id = name.as_str().strip_prefix(SERVER_TO_USER);
        user_id.is_some() && user_id == self.user_of(slot).map(|(id, _)| id)
    }

    fn refuse_name(&mut self, slot: u32, channel: &str, error: NameError) {
        let quoted = crate::protocol::quote(channel);
        match error {
            NameError::TooLong(bytes_max) => {
                let reason = format!("Channel name {quoted} is longer than {bytes_max} bytes");
                self.refuse_subscription(slot, channel, None, "LimitReached", &reason, 4009);
            }
            NameError::Invalid => {
                let reason = format!("Channel name {quoted} is empty or has a character that is not allowed");
                self.refuse_subscription(slot, channel, None, "InvalidChannel", &reason, 400);
            }
        }
    }

    /// `pusher:error`, then `subscription_error`; the connection stays open (P-FAIL-2, P-FAIL-6).
    pub(super) fn refuse_subscription(
        &mut self,
        slot: u32,
        channel: &str,
        code: Option<u16>,
        kind: &'static str,
        reason: &str,
        status: u16,
    ) {
        self.figures.counted.subscription_errors.count(SubscriptionError::of(kind));
        self.note_subscription_refused(slot, channel, kind, status);
        self.send_error(slot, code, reason);
        self.send_text(slot, |out| server_event::encode_subscription_error(out, channel, kind, reason, status));
    }

    /// The key of a channel: its hash is keyed by the process's secret (threat T12) and the same on all shards.
    pub(super) fn channel_key(&self, app: AppSerial, name: &str) -> ChannelKey {
        ChannelKey { app, name: name.into(), hash: self.channel_hash(app, name) }
    }

    pub(super) fn channel_hash(&self, app: AppSerial, name: &str) -> u64 {
        use std::hash::Hasher;
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(&self.config.boot_secret);
        hasher.write_u32(app.0);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    pub(super) fn find_channel(&self, key: &ChannelKey) -> Option<u32> {
        self.channels_by_name.find(key.hash, |&at| self.channels[at as usize].key.is(key)).copied()
    }

    /// As [`Shard::find_channel`], by a name that may be anything.
    pub(super) fn find_channel_named(&self, app: AppSerial, name: &str) -> Option<u32> {
        let is = |&at: &u32| {
            let key = &self.channels[at as usize].key;
            key.app == app && &*key.name == name
        };
        self.channels_by_name.find(self.channel_hash(app, name), is).copied()
    }

    pub(super) fn channel_index(&mut self, key: &ChannelKey, kind: ChannelKind) -> u32 {
        if let Some(index) = self.find_channel(key) {
            return index;
        }
        let index = self.channels.insert(LocalChannel {
            key: key.clone(),
            kind,
            owner: self.owner_of(key),
            subscribers: Subscribers::default(),
            waiting: VecDeque::new(),
            reported: 0,
            covered: None,
        }) as u32;
        let channels = &self.channels;
        self.channels_by_name.insert_unique(key.hash, index, |&at| channels[at as usize].key.hash);
        index
    }

    /// True when the connection is subscribed or waits to be.
    pub(super) fn is_subscribed(&self, slot: u32, index: u32) -> bool {
        let line = &self.hot[slot as usize];
        line.inline_channels().contains(&index)
            || self.cold(slot).is_some_and(|cold| cold.more_channels.contains(&index))
    }

    fn subscription_count(&self, slot: u32) -> usize {
        let more = self.cold(slot).map_or(0, |cold| cold.more_channels.len());
        usize::from(self.hot[slot as usize].channels_inline) + more
    }

    pub(super) fn add_subscription(&mut self, slot: u32, index: u32) {
        debug_assert_eq!(self.hot[slot as usize].phase, Phase::Open);
        let line = &mut self.hot[slot as usize];
        let used = usize::from(line.channels_inline);
        if used < CHANNELS_INLINE {
            line.channels[used] = index;
            line.channels_inline += 1;
        } else {
            self.cold_mut(slot).more_channels.push(index);
        }
    }

    pub(super) fn remove_subscription(&mut self, slot: u32, index: u32) -> bool {
        let line = &mut self.hot[slot as usize];
        let used = usize::from(line.channels_inline);
        if let Some(at) = line.inline_channels().iter().position(|&channel| channel == index) {
            line.channels[at] = line.channels[used - 1];
            line.channels_inline -= 1;
            return true;
        }
        let Some(cold) = self.cold_of(slot) else { return false };
        let Some(at) = cold.more_channels.iter().position(|&channel| channel == index) else { return false };
        cold.more_channels.swap_remove(at);
        self.drop_cold_if_empty(slot);
        true
    }

    /// Ends all subscriptions of a connection. Its channels and its memberships are brought into one order first, so that
    /// each is found at the end of its list, and thousands of them cost no search through the others (threat T16).
    pub(super) fn leave_all(&mut self, slot: u32) {
        if let Some(cold) = self.cold_of(slot).filter(|cold| cold.members.len() > CHANNELS_INLINE) {
            cold.more_channels.sort_unstable();
            cold.members.sort_unstable_by_key(|(channel, _)| *channel);
        }
        loop {
            let line = &mut self.hot[slot as usize];
            let index = if line.channels_inline > 0 {
                line.channels_inline -= 1;
                line.channels[usize::from(line.channels_inline)]
            } else {
                match self.cold_of(slot).and_then(|cold| cold.more_channels.pop()) {
                    Some(index) => index,
                    None => return,
                }
            };
            self.leave(slot, index);
        }
    }
}
