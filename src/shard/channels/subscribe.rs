//! Subscribing and unsubscribing (P-SUB, P-FAIL, R-AUTHREQ rules).

use std::collections::VecDeque;

use super::resume::decode_reader;
use super::{Channels, SubscriptionRefusal, Waiting, refuse};
use crate::app::{App, AppSerial};
use crate::auth::AuthFailure;
use crate::auth::subscription::{self, refusal_message, verify_private, verify_subscription};
use crate::channel::name::{ChannelKind, ChannelName, NameError, NameSource, SERVER_TO_USER, is_misleading};
use crate::connection::encoding::Encoding;
use crate::index::Slot;
use crate::limits;
use crate::metrics::figures::Surface;
use crate::protocol::server_event;
use crate::shard::connections::Connections;
use crate::shard::context::Context;
use crate::shard::io::Output;
use crate::shard::mail::ChannelKey;
use crate::shard::refusals::RefusedProof;
use crate::wire::json::is_json_object;

/// A subscribe message, as received.
pub(in crate::shard) struct Subscribe<'a> {
    pub(in crate::shard) channel: Option<&'a str>,
    pub(in crate::shard) auth: Option<&'a str>,
    pub(in crate::shard) channel_data: Option<&'a str>,
    pub(in crate::shard) last_event_id: Option<&'a str>,
    pub(in crate::shard) on_gap: Option<&'a str>,
}

/// Public channels whose names look as if they were protected, to be logged (R-CHAN-3).
#[derive(Default)]
pub(super) struct MisleadingNames {
    /// Hashes of the names that were reported last.
    reported: VecDeque<u64>,
    /// When the next may be reported.
    due_ms: u64,
}

impl MisleadingNames {
    /// Reports a name, unless it or another one was reported recently.
    fn report(&mut self, context: &mut Context, channel: &ChannelKey) {
        if context.now.monotonic_ms < self.due_ms || self.reported.contains(&channel.hash) {
            return;
        }
        self.due_ms = context.now.monotonic_ms + limits::MISLEADING_NAMES_INTERVAL_MS;
        if self.reported.len() == limits::MISLEADING_NAMES_MAX {
            self.reported.pop_front();
        }
        self.reported.push_back(channel.hash);
        context.outputs.push_back(Output::MisleadingName { app: channel.app, channel: channel.name.clone() });
    }
}

impl Channels {
    /// `pusher:subscribe`, in the order of P-SUB-1: name, auth, register.
    pub(in crate::shard) fn subscribe(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        app: &App,
        message: &Subscribe<'_>,
    ) {
        let Some(text) = message.channel else {
            connections.send_error(
                context,
                slot,
                None,
                "Subscribe needs a channel: the name of the channel as a string",
            );
            return;
        };
        let name = match ChannelName::parse(text, context.config.options.channel_names, NameSource::WebSocket) {
            Ok(name) => name,
            Err(error) => {
                let refusal = match error {
                    NameError::TooLong(bytes_max) => SubscriptionRefusal::NameTooLong(bytes_max),
                    NameError::Invalid => SubscriptionRefusal::InvalidName,
                };
                return refuse(context, connections, slot, text, &refusal, None);
            }
        };
        let key = context.channel_key(app.serial, name.as_str());
        let known = self.find(&key);
        if known.is_some_and(|index| connections.is_subscribed(slot, index)) {
            let message = format!("Existing subscription to channel {text}");
            connections.send_error(context, slot, None, &message);
            return;
        }
        let channels_max = app.settings.max_channels_per_connection;
        if connections.subscription_count(slot) >= channels_max as usize {
            if !connections.count_invalid(context, slot) {
                return;
            }
            refuse(context, connections, slot, text, &SubscriptionRefusal::TooManyChannels(channels_max), None);
            return;
        }
        if name.kind() != ChannelKind::Public && !is_authorized(context, connections, slot, app, &name, message) {
            return;
        }
        let reader = match connections.encoding(slot) {
            Encoding::Plain | Encoding::Stream | Encoding::StreamOfSeveral => Ok(None),
            Encoding::WithId => decode_reader(connections.key(slot), message.last_event_id, message.on_gap).map(Some),
        };
        let reader = match reader {
            Ok(reader) => reader,
            Err(refusal) => return refuse(context, connections, slot, text, &refusal, None),
        };
        if name.kind() == ChannelKind::Presence {
            self.join_presence(context, connections, slot, app, key, (message.channel_data, reader));
            return;
        }
        if is_misleading(text) {
            self.misleading_names.report(context, &key);
        }
        let index = self.find_or_insert(context, &key, name.kind());
        connections.add_subscription(slot, index);
        let connection = connections.key(slot);
        self.channels[index].waiting.push_back(Waiting { connection, ticket: 0, reader: reader.map(Box::new) });
        self.report_count(context, index);
    }

    /// Handles `pusher:unsubscribe`: no answer, ignored when not subscribed (P-SUB-3).
    pub(in crate::shard) fn unsubscribe(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        app: AppSerial,
        channel: Option<&str>,
    ) {
        let Some(text) = channel else { return };
        connections.catch_up(context, slot);
        let Some(index) = self.find_named(context, app, text) else { return };
        if connections.remove_subscription(slot, index) {
            self.leave(context, connections, slot, index);
        }
    }
}

/// True for the channel of the user that is signed in on the connection (P-USER-4).
fn is_own_channel(connections: &Connections, slot: Slot, name: &ChannelName<'_>) -> bool {
    let user_id = name.as_str().strip_prefix(SERVER_TO_USER);
    user_id.is_some() && user_id == connections.signed_in(slot).map(|user| &*user.id)
}

/// Verifies the signature of a protected channel, and answers a refusal (P-FAIL-1 to 3, R-AUTHREQ).
fn is_authorized(
    context: &mut Context,
    connections: &mut Connections,
    slot: Slot,
    app: &App,
    name: &ChannelName<'_>,
    message: &Subscribe<'_>,
) -> bool {
    let channel = name.as_str();
    let socket_id = context.socket_id(connections.key(slot));
    if name.kind() == ChannelKind::ServerToUser && is_own_channel(connections, slot, name) {
        return true;
    }
    let auth = message.auth.or((name.kind() == ChannelKind::ServerToUser).then_some(""));
    let Some(auth) = auth else {
        if name.kind() != ChannelKind::PrivateEncrypted {
            connections.send_text(context, slot, |out| server_event::encode_auth_required(out, channel, socket_id));
        }
        let reason = format!("Auth info required to subscribe to {channel}");
        context.metrics.count_auth_failure(Surface::Subscribe, AuthFailure::Missing);
        let (socket_id, channel_data, failure) = (&socket_id.to_text(), message.channel_data, AuthFailure::Missing);
        let proof = RefusedProof { app, socket_id, channel: Some(channel), data: channel_data, auth: "", failure };
        refuse(context, connections, slot, channel, &SubscriptionRefusal::Unauthorized(reason), Some(&proof));
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
    // A server-to-user channel is for the user signed in on this connection, whatever the signature covers (P-USER-4).
    let (refusal, failure) = match verify(app, &socket_id, channel, channel_data, auth) {
        Ok(()) if name.kind() == ChannelKind::ServerToUser => {
            (subscription::SubscriptionRefusal::InvalidSignature, AuthFailure::WrongUser)
        }
        Ok(()) => return true,
        Err(refusal) => (refusal, refusal.failure()),
    };
    context.metrics.count_auth_failure(Surface::Subscribe, failure);
    let reason = refusal_message(&refusal, &socket_id, channel, channel_data, auth);
    let proof =
        RefusedProof { app, socket_id: &socket_id, channel: Some(channel), data: message.channel_data, auth, failure };
    refuse(context, connections, slot, channel, &SubscriptionRefusal::Unauthorized(reason), Some(&proof));
    false
}
