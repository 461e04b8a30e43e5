//! Client events (P-CEV rules): from one subscriber to all others, through the channel's owner.

use super::Channels;
use crate::app::App;
use crate::app::webhook::WebhookKind;
use crate::channel::name::ChannelKind;
use crate::index::Slot;
use crate::limits;
use crate::protocol::server_event;
use crate::protocol::webhook::SentEvent;
use crate::shard::connections::Connections;
use crate::shard::context::Context;
use crate::shard::mail::{ConnectionRef, OwnerMessage, PublishItem};

/// A client event, as received.
pub(in crate::shard) struct ClientEvent<'a> {
    pub(in crate::shard) event: &'a str,
    pub(in crate::shard) channel: Option<&'a str>,
    pub(in crate::shard) data_literal: &'a str,
    pub(in crate::shard) data_bytes: usize,
}

impl Channels {
    /// Accepts or refuses a client event; a refusal is `pusher:error` without close, and the event is dropped
    /// (P-CEV-4).
    pub(in crate::shard) fn handle_client_event(
        &self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        app: &App,
        message: &ClientEvent<'_>,
    ) {
        if let Err((code, reason)) = self.publish_client_event(context, connections, slot, app, message) {
            connections.note_client_event_refused(context, slot, message.channel, code);
            connections.send_error(context, slot, code, &reason);
        }
    }

    fn publish_client_event(
        &self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        app: &App,
        message: &ClientEvent<'_>,
    ) -> Result<(), (Option<u16>, String)> {
        if !app.settings.client_events {
            return Err((None, FLAG_OFF.to_owned()));
        }
        let name = message.channel.ok_or_else(|| (None, "A client event needs a channel".to_owned()))?;
        let index = self.find_named(context, app.serial, name);
        let subscribed = index.filter(|&index| self.channels[index].subscribers.contains(slot));
        let Some(index) = subscribed else {
            let quoted = crate::protocol::quote(name);
            return Err((None, format!("Client events need a subscription to the channel {quoted}")));
        };
        let kind = self.channels[index].kind;
        match kind {
            ChannelKind::Private | ChannelKind::PrivateEncrypted | ChannelKind::Presence => {}
            ChannelKind::Public | ChannelKind::ServerToUser => {
                return Err((None, "Client events are for private and presence channels only".to_owned()));
            }
        }
        if message.event.len() > limits::EVENT_NAME_BYTES_MAX || message.event.chars().any(char::is_control) {
            let bytes_max = limits::EVENT_NAME_BYTES_MAX;
            let reason = format!("Event names have at most {bytes_max} bytes and no control characters");
            return Err((Some(4301), reason));
        }
        let data_bytes_max = app.settings.max_event_data_bytes;
        if message.data_bytes > data_bytes_max as usize {
            return Err((Some(4301), format!("Event data has at most {data_bytes_max} bytes (max_event_data_bytes)")));
        }
        let rate = app.settings.max_client_events_per_second;
        if rate > 0 && !connections.take_client_event(context, slot, rate) {
            let reason =
                format!("A connection may send {rate} client events per second (max_client_events_per_second)");
            return Err((Some(4301), reason));
        }
        if !connections.may_publish(app.serial, message.data_literal.len()) {
            return Err((None, OVERLOADED.to_owned()));
        }
        let user_id = if kind == ChannelKind::Presence { connections.member_id(slot, index) } else { None };
        let frame = context.text_frame(|out| {
            server_event::encode_channel_event(out, message.event, name, message.data_literal, user_id.as_deref());
        });
        let channel = &self.channels[index];
        let (owner, key) = (channel.owner, channel.key.clone());
        let exclude = Some(ConnectionRef { shard: context.config.index, connection: connections.key(slot) });
        let sent = app.wants(WebhookKind::ClientEvent).then(|| {
            Box::new(SentEvent {
                event: message.event.into(),
                data_literal: message.data_literal.into(),
                socket_id: context.socket_id(connections.key(slot)).to_text().into(),
                user_id,
            })
        });
        let item = PublishItem { channel: key, frame, exclude, cache: None, number: 0, sent };
        context
            .send_paid(owner, app.serial.0, OwnerMessage::Publish { request: None, counts: false, items: vec![item] })
            .map_err(|_| (None, OVERLOADED.to_owned()))
    }
}

const OVERLOADED: &str = "The server is overloaded, the event was not sent";
const FLAG_OFF: &str = "To send client events, you must enable this feature in the Settings page of your dashboard.";
