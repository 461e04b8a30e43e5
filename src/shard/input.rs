//! Requests by their head, and the bounds of buffered input (threat T14): who cannot prove itself by the head of a
//! request gets no memory for its body, and at a bound somebody has to give memory back.

use super::Shard;
use super::request::{After, TEXT};
use crate::api::route::{Route, route};
use crate::app::AppSerial;
use crate::auth::request::Known;
use crate::connection::input::{Over, Payer};
use crate::connection::{Flags, NONE, Phase, Proxy};
use crate::limits;
use crate::metrics::figures::Overload;
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::wire::http::{Framing, HttpError, Request, RequestDecoder, RequestLimits, encode_response};

/// What a head said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Judged {
    /// Its body may come.
    Awaited,
    /// It was answered, as the last of the connection.
    Answered,
}

/// What becomes of the body that follows a head.
enum BodyUse {
    /// It is kept as it arrives.
    Kept,
    /// It is dropped as it arrives.
    Dropped,
    /// Nobody reads it: the request was answered.
    Unread,
}

impl Shard {
    /// Judges a request whose head has become whole before its body: where the body is of no use it is dropped as it
    /// arrives. The refusal follows when the request is whole, so that the connection can be kept; a client that waits for
    /// `100 Continue` gets it at once. A body that its app does not allow is refused by its declared length.
    pub(super) fn judge_head(
        &mut self,
        slot: u32,
        decoder: &mut RequestDecoder,
        limits: &RequestLimits,
        expects_continue: bool,
    ) -> Judged {
        let Some(request) = decoder.take_head(limits) else { return Judged::Awaited };
        let body_bytes_max = self.body_bytes_max(slot, &request);
        if matches!(request.framing, Framing::Length(length) if length > body_bytes_max) {
            self.answer_framing_error(slot, HttpError::BodyTooLarge(body_bytes_max));
            return Judged::Answered;
        }
        let body = self.judge_request(slot, &request, expects_continue);
        decoder.limit_body(body_bytes_max);
        match body {
            BodyUse::Kept => {
                let extra_ms = extra_request_ms(decoder);
                let http = self.http(slot);
                if http.deadline_ms > 0 {
                    http.deadline_ms += extra_ms;
                }
                Judged::Awaited
            }
            BodyUse::Dropped => {
                decoder.discard_body();
                Judged::Awaited
            }
            BodyUse::Unread => Judged::Answered,
        }
    }

    fn judge_request(&mut self, slot: u32, request: &Request<'_>, expects_continue: bool) -> BodyUse {
        let route = route(request.method, request.path, &self.config.options.path_prefix);
        let on_metrics_port = self.http(slot).metrics;
        if request.asks_for_websocket && !on_metrics_port {
            let key = if let Route::WebSocket { key } = &route { Some(&**key) } else { None };
            let after = self.handle_upgrade(slot, key, request);
            assert!(after == After::Next, "an upgrade with a body is refused");
            return BodyUse::Unread;
        }
        let (dialect, app_id, scope) = match &route {
            Route::Api { dialect, app_id, endpoint } if !on_metrics_port => (*dialect, Some(*app_id), endpoint.scope()),
            Route::ApiOfKey { endpoint } if !on_metrics_port => (Dialect::Pusher, None, endpoint.scope()),
            // No other route reads a body.
            Route::Up
            | Route::UpApp(_)
            | Route::Ready
            | Route::AcceptTraffic
            | Route::Operator(_)
            | Route::WebSocket { .. }
            | Route::Api { .. }
            | Route::ApiOfKey { .. }
            | Route::MethodNotAllowed(..)
            | Route::Fallback { .. }
            | Route::NotFound(_) => return BodyUse::Dropped,
        };
        let refusal = match self.verify_caller(slot, request, app_id, Known::Head) {
            Ok(caller) => {
                self.http(slot).caller = Some(caller.app);
                return BodyUse::Kept;
            }
            Err(refusal) => refusal,
        };
        let client = self.client_address(slot, request);
        self.note_request_refused(client, app_id.unwrap_or_default(), scope, refusal.status);
        let keep_alive = !expects_continue && self.keeps_alive(request);
        let answer = self.encode_refusal(request, dialect, &refusal, keep_alive);
        if expects_continue {
            self.answer_last(slot, answer);
            return BodyUse::Unread;
        }
        self.http(slot).refused = Some(answer);
        BodyUse::Dropped
    }

    /// Longest body of a request: what the settings of its app lead to (P-LIM-11).
    fn body_bytes_max(&mut self, slot: u32, request: &Request<'_>) -> usize {
        let on_metrics_port = self.http(slot).metrics;
        let route = route(request.method, request.path, &self.config.options.path_prefix);
        let app_id = if let Route::Api { app_id, .. } = route { Some(app_id) } else { None };
        let app = app_id.filter(|_| !on_metrics_port).and_then(|app_id| self.directory.app_by_id(app_id));
        app.map_or(limits::HTTP_BODY_BYTES_MAX, |app| app.settings.body_bytes_max())
    }

    /// Counts what the connection holds of incomplete input, and of unread answers if it has not proved itself, and has
    /// memory given back where a bound is exceeded.
    pub(super) fn account_input(&mut self, slot: u32) {
        let Some(cold) = self.cold(slot) else { return };
        let line = &self.hot[slot as usize];
        let is_stranger = cold.http.as_ref().is_some_and(|http| http.caller.is_none() && !http.metrics);
        // Short answers, each in memory of its own, take about as much again.
        let unread = if is_stranger { 2 * line.outbox.unsent_bytes() } else { 0 };
        let bytes = if line.flags.contains(Flags::ECHO) { 0 } else { cold.input_bytes() + unread };
        if bytes == 0 && cold.input.is_none() {
            return;
        }
        let (connection, payer) = (self.key(slot), self.payer(slot));
        let cold = &mut self.cold[self.hot[slot as usize].cold as usize];
        self.input.update(&mut cold.input, connection, payer, bytes);
        if bytes == 0 {
            return self.drop_cold_if_empty(slot);
        }
        while let Some(over) = self.input.over(payer) {
            let slot = if let Over::Oldest(oldest) = over { oldest.slot } else { slot };
            self.take_input_back(slot);
        }
    }

    /// Answers were sent.
    pub(super) fn account_sent(&mut self, slot: u32) {
        if self.cold(slot).is_some_and(|cold| cold.input.is_some()) {
            self.account_input(slot);
        }
    }

    /// The connection holds no input any more.
    pub(super) fn release_input(&mut self, slot: u32) {
        let index = self.hot[slot as usize].cold;
        if index != NONE {
            self.input.release(&mut self.cold[index as usize].input);
        }
    }

    fn payer(&self, slot: u32) -> Payer {
        let line = &self.hot[slot as usize];
        match self.cold(slot).and_then(|cold| cold.http.as_ref()) {
            Some(http) => http.caller.map_or(Payer::Stranger, Payer::Caller),
            None if line.app == NONE => Payer::Stranger,
            None => Payer::Socket(AppSerial(line.app)),
        }
    }

    /// A bound is reached and the connection has to give back its memory: a request is answered 503, a WebSocket closed
    /// with 4100, and a connection that does not read its answers is reset.
    fn take_input_back(&mut self, slot: u32) {
        self.count_overload(Overload::Input);
        let is_read = self.hot[slot as usize].outbox.unsent_bytes() == 0;
        match self.hot[slot as usize].phase {
            Phase::Http if is_read && !self.hot[slot as usize].flags.contains(Flags::LAST_ANSWER) => {
                let mut answer = Vec::new();
                let body = b"The server holds as many incomplete requests as it can: try again";
                self.count_response(503);
                encode_response(&mut answer, 503, TEXT, "Retry-After: 1\r\n", body, false);
                self.answer_last(slot, answer);
            }
            Phase::Open | Phase::Admitting => {
                self.close_websocket(slot, &CloseReason::OverCapacity);
                // The rest of the message would not be understood, nor a Close behind it.
                self.hot[slot as usize].flags.insert(Flags::LAST_ANSWER);
            }
            Phase::Http | Phase::Closing | Phase::Lingering => self.end(slot, true),
            Phase::Free | Phase::Ended => {}
        }
        if let Some(cold) = self.cold_of(slot) {
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
        self.settle(slot);
    }
}

/// Time that a large body of a caller with a good credential adds to that of its request (threat T14).
pub(super) fn extra_request_ms(decoder: &RequestDecoder) -> u64 {
    (decoder.body_bytes_awaited() as u64).div_ceil(1 << 20).saturating_sub(1) * limits::REQUEST_MS_PER_MIB
}
