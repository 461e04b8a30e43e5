//! What a WebSocket client says, dispatched (section 3 of the Pusher protocol).

use std::sync::Arc;

use super::Shard;
use super::client_event::ClientEvent;
use super::subscribe::Subscribe;
use super::users::Signin;
use crate::app::{App, AppSerial};
use crate::limits;
use crate::protocol::client_message::{ClientMessage, decode_client_message};
use crate::protocol::close::CloseReason;
use crate::protocol::heartbeat::is_heartbeat;
use crate::protocol::server_event;

impl Shard {
    /// One whole text message of an open connection.
    pub(super) fn handle_text(&mut self, slot: u32, text: &str) {
        let Ok(message) = decode_client_message(text) else {
            return self.handle_invalid(slot, text, "Invalid JSON");
        };
        match message {
            ClientMessage::Subscribe { channel, auth, channel_data } => {
                let message = Subscribe {
                    channel: channel.as_deref(),
                    auth: auth.as_deref(),
                    channel_data: channel_data.as_deref(),
                };
                self.with_app(self.app_serial(slot), |shard, app| shard.subscribe(slot, app, &message));
            }
            ClientMessage::Unsubscribe { channel } => {
                self.unsubscribe(slot, self.app_serial(slot), channel.as_deref());
            }
            ClientMessage::Signin { auth, user_data } => {
                let message = Signin { auth: auth.as_deref(), user_data: user_data.as_deref() };
                self.with_app(self.app_serial(slot), |shard, app| shard.sign_in(slot, app, &message));
            }
            ClientMessage::Ping => self.queue_shared(slot, self.pong),
            ClientMessage::Pong => {}
            ClientMessage::ClientEvent { event, channel, data, data_bytes } => {
                let message =
                    ClientEvent { event: &event, channel: channel.as_deref(), data_literal: &data, data_bytes };
                self.with_app(self.app_serial(slot), |shard, app| shard.handle_client_event(slot, app, &message));
            }
            ClientMessage::Unknown => self.handle_invalid(slot, text, "Unknown event"),
        }
    }

    /// P-IN-3 and P-IN-4: an error, and with the last one that a minute allows the end.
    fn handle_invalid(&mut self, slot: u32, text: &str, reason: &str) {
        if is_heartbeat(text) || self.counts_invalid(slot) {
            self.send_error(slot, None, reason);
        }
    }

    /// Counts a message that was of no use. False when it was one too many for a minute and the connection is closed.
    pub(super) fn counts_invalid(&mut self, slot: u32) -> bool {
        let app = self.directory.app(self.app_serial(slot));
        let invalid_max = app.map_or(limits::INVALID_MESSAGES_MAX, |app| app.settings.max_invalid_messages);
        let now = self.tenths();
        let count = self.cold_mut(slot).invalid_messages.count(now);
        if count >= invalid_max {
            self.close_websocket(slot, &CloseReason::TooManyInvalidMessages(invalid_max));
        }
        count < invalid_max
    }

    /// P-OUT-11.
    pub(super) fn send_error(&mut self, slot: u32, code: Option<u16>, message: &str) {
        self.send_text(slot, |out| server_event::encode_error(out, code, message));
    }

    fn app_serial(&self, slot: u32) -> AppSerial {
        AppSerial(self.hot[slot as usize].app)
    }

    /// Acts with an app as the store has it now; `None` when it was deleted and its connections are about to go.
    ///
    /// The app of the last message or request stays in hand, because all shards share its count of handles: to change
    /// that count with each message would make them wait for each other.
    pub(super) fn with_app<T>(&mut self, app: AppSerial, act: impl FnOnce(&mut Self, &Arc<App>) -> T) -> Option<T> {
        let current = self.directory.app(app)?;
        let app = match self.app_in_hand.take() {
            Some(in_hand) if Arc::ptr_eq(&in_hand, current) => in_hand,
            Some(_) | None => Arc::clone(current),
        };
        let outcome = act(self, &app);
        self.app_in_hand = Some(app);
        Some(outcome)
    }
}
