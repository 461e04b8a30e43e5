//! The bounds of buffered input (threat T14): at a bound some connection has to release memory.

use super::Connections;
use crate::app::AppSerial;
use crate::connection::http::Proxy;
use crate::connection::input::{Over, Payer};
use crate::connection::{Flags, NONE, Phase};
use crate::index::Slot;
use crate::limits;
use crate::metrics::figures::Overload;
use crate::protocol::close::CloseReason;
use crate::shard::context::Context;
use crate::wire::http::RequestDecoder;

impl Connections {
    /// Counts the connection's incomplete input, and its unread answers if it has not authenticated, and releases
    /// memory if a bound is exceeded.
    pub(in crate::shard) fn account_input(&mut self, context: &mut Context, slot: Slot) {
        let Some(cold) = self.cold(slot) else { return };
        let line = &self.table.hot[slot];
        let is_stranger = cold.http.as_ref().is_some_and(|http| http.caller.is_none() && !http.metrics);
        // Short answers, each in its own allocation, take about as much again.
        let unread = if is_stranger { 2 * line.outbox.unsent_bytes() } else { 0 };
        let bytes = cold.input_bytes() + unread;
        #[cfg(feature = "conformance")]
        let bytes = if self.is_echo(slot) { 0 } else { bytes };
        if bytes == 0 && cold.input.is_none() {
            return;
        }
        let (connection, payer) = (self.key(slot), self.payer(slot));
        let cold = self.table.cold_or_default(slot);
        self.input.update(&mut cold.input, connection, payer, bytes);
        if bytes == 0 {
            return self.drop_cold_if_empty(slot);
        }
        while let Some(over) = self.input.over(payer) {
            let slot = if let Over::Oldest(oldest) = over { oldest.slot() } else { slot };
            self.take_input_back(context, slot);
        }
    }

    /// Answers were sent.
    pub(in crate::shard) fn account_sent(&mut self, context: &mut Context, slot: Slot) {
        if self.cold(slot).is_some_and(|cold| cold.input.is_some()) {
            self.account_input(context, slot);
        }
    }

    /// The connection no longer holds any input.
    pub(in crate::shard) fn release_input(&mut self, slot: Slot) {
        if let Some(cold) = self.table.cold_mut(slot) {
            self.input.release(&mut cold.input);
        }
    }

    fn payer(&self, slot: Slot) -> Payer {
        let line = &self.table.hot[slot];
        match self.http_of(slot) {
            Some(http) => http.caller.map_or(Payer::Stranger, Payer::Caller),
            None if line.app == NONE => Payer::Stranger,
            None => Payer::Socket(AppSerial(line.app)),
        }
    }

    /// A bound is reached and the connection has to release its memory: a request is answered 503, a WebSocket closed
    /// with 4100, and a connection that does not read its answers is reset.
    fn take_input_back(&mut self, context: &mut Context, slot: Slot) {
        context.metrics.count_overload(Overload::Input);
        let is_read = self.table.hot[slot].outbox.unsent_bytes() == 0;
        match self.table.hot[slot].phase {
            Phase::Http if is_read && !self.table.hot[slot].flags.contains(Flags::LAST_ANSWER) => {
                let body = "The server holds as many incomplete requests as it can: try again";
                self.answer_last_text(context, slot, 503, "Retry-After: 1\r\n", body);
            }
            Phase::Open | Phase::Admitting => {
                self.close_websocket(context, slot, &CloseReason::OverCapacity);
                // The rest of the message could not be parsed, nor a Close behind it.
                self.table.hot[slot].flags.insert(Flags::LAST_ANSWER);
            }
            Phase::Http | Phase::Closing | Phase::Lingering => self.end(context, slot, true),
            Phase::Free | Phase::Ended => {}
        }
        if let Some(cold) = self.cold_mut(slot) {
            cold.decoder = Default::default();
            cold.held_back = Vec::new();
            cold.message_deadline_ms = 0;
            if let Some(http) = &mut cold.http {
                http.decoder = RequestDecoder::default();
                http.held_back = Vec::new();
                http.proxy = Proxy::Direct;
            }
        }
        self.release_input(slot);
        self.drop_cold_if_empty(slot);
        self.settle(context, slot);
    }

    /// Counts received bytes of a WebSocket.
    pub(in crate::shard) fn count_socket_received(&self, context: &mut Context, slot: Slot, bytes: usize) {
        if let Some(app) = self.app_serial(slot) {
            context.metrics.app_counters.of(app).socket_received_bytes += bytes as u64;
        }
    }

    /// Counts a received text message of a WebSocket.
    pub(in crate::shard) fn count_message_received(&self, context: &mut Context, slot: Slot) {
        if let Some(app) = self.app_serial(slot) {
            context.metrics.app_counters.of(app).messages_received += 1;
        }
    }

    /// Counts an invalid message. False when it exceeded the limit of a minute and the connection is closed.
    pub(in crate::shard) fn count_invalid(&mut self, context: &mut Context, slot: Slot) -> bool {
        let app = context.app(self.table.hot[slot].app);
        let invalid_max = app.map_or(limits::INVALID_MESSAGES_MAX, |app| app.settings.max_invalid_messages);
        let now = context.tenths();
        let count = self.cold_or_default(slot).invalid_messages.count(now);
        if count >= invalid_max {
            self.close_websocket(context, slot, &CloseReason::TooManyInvalidMessages(invalid_max));
        }
        count < invalid_max
    }
}
