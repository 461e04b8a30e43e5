//! Messages of WebSocket clients, dispatched to the part that handles them (section 3 of the Pusher protocol).

use super::Shard;
use super::channels::{ClientEvent, Subscribe};
use super::users::Signin;
use crate::app::AppSerial;
use crate::index::Slot;
use crate::protocol::client_message::{ClientMessage, decode_client_message};
use crate::protocol::heartbeat::is_heartbeat;

impl Shard {
    /// One complete text message of an open connection.
    pub(super) fn handle_text(&mut self, slot: Slot, text: &str) {
        let Ok(message) = decode_client_message(text) else {
            return self.handle_invalid(slot, text, "Invalid JSON");
        };
        let (context, connections) = (&mut self.context, &mut self.connections);
        let serial = AppSerial(connections.app(slot));
        match message {
            ClientMessage::Subscribe { channel, auth, channel_data, last_event_id, on_gap } => {
                let message = Subscribe {
                    channel: channel.as_deref(),
                    auth: auth.as_deref(),
                    channel_data: channel_data.as_deref(),
                    last_event_id: last_event_id.as_deref(),
                    on_gap: on_gap.as_deref(),
                };
                if let Some(app) = context.take_app(serial) {
                    self.channels.subscribe(context, connections, slot, &app, &message);
                    context.keep_app(app);
                }
            }
            ClientMessage::Unsubscribe { channel } => {
                self.channels.unsubscribe(context, connections, slot, serial, channel.as_deref());
            }
            ClientMessage::Signin { auth, user_data } => {
                let message = Signin { auth: auth.as_deref(), user_data: user_data.as_deref() };
                if let Some(app) = context.take_app(serial) {
                    self.users.sign_in(context, connections, slot, &app, &message);
                    context.keep_app(app);
                }
            }
            ClientMessage::Ping => connections.send_pong(context, slot),
            ClientMessage::Pong => {}
            ClientMessage::ClientEvent { event, channel, data, data_bytes } => {
                let message =
                    ClientEvent { event: &event, channel: channel.as_deref(), data_literal: &data, data_bytes };
                if let Some(app) = context.take_app(serial) {
                    self.channels.handle_client_event(context, connections, slot, &app, &message);
                    context.keep_app(app);
                }
            }
            ClientMessage::Unknown => self.handle_invalid(slot, text, "Unknown event"),
        }
    }

    /// P-IN-3 and P-IN-4: sends an error; the last one that a minute allows closes the connection.
    fn handle_invalid(&mut self, slot: Slot, text: &str, reason: &str) {
        let (context, connections) = (&mut self.context, &mut self.connections);
        if is_heartbeat(text) || connections.count_invalid(context, slot) {
            connections.send_error(context, slot, None, reason);
        }
    }
}
