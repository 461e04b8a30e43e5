//! Answers to HTTP requests of a connection: they are sent in the order of the requests, whenever each is ready.

use std::net::IpAddr;

use bytes::Bytes;

use super::Connections;
use crate::api::arrival::Arrival;
use crate::api::refusal::Refusal;
use crate::app::AppSerial;
use crate::connection::http::{Answer, Proxy};
use crate::connection::outbox::FrameKind;
use crate::connection::{ConnectionKey, Flags};
use crate::index::Slot;
use crate::limits;
use crate::protocol::dialect::Dialect;
use crate::shard::context::Context;
use crate::wire::forwarded::{Hop, client_address};
use crate::wire::http::{HttpError, Request, encode_response};

/// A response before it is encoded.
pub(in crate::shard) struct Response<'a> {
    pub(in crate::shard) status: u16,
    pub(in crate::shard) content_type: &'a str,
    pub(in crate::shard) extra: &'a str,
    pub(in crate::shard) body: &'a [u8],
}

pub(in crate::shard) const TEXT: &str = "text/plain; charset=utf-8";
pub(in crate::shard) const JSON: &str = "application/json";

impl Connections {
    /// Whether the next request has to wait: for an earlier one that waits itself, or whose answer may be large, for
    /// answers that are not ready, or until the client has read its answers (P-CLOSE-5).
    pub(in crate::shard) fn holds_requests_back(&mut self, slot: Slot) -> bool {
        let unsent_bytes = self.unsent_bytes(slot);
        let http = self.http(slot);
        http.parked
            || http.large_answer.is_some()
            || http.answers.len() >= limits::HTTP_PIPELINE_MAX
            || unsent_bytes > limits::HTTP_OUTBOX_BYTES_SOFT
            || (http.upgrade_waits && !(http.is_answered() && unsent_bytes == 0))
    }

    /// The address of the client: behind trusted proxies the nearest one of `X-Forwarded-For` or `Forwarded` that is
    /// not itself a trusted proxy (threat T26). `None` where a proxy hides it or writes an unreadable one: the client
    /// is then one of many behind that proxy, and its failures must not count against the others.
    pub(in crate::shard) fn client_address(
        &self,
        context: &mut Context,
        slot: Slot,
        request: &Request<'_>,
    ) -> Option<IpAddr> {
        let http = self.http_of(slot).expect("a request comes over HTTP");
        let proxy = http.client;
        if !matches!(http.proxy, Proxy::Trusted) {
            return Some(proxy);
        }
        match client_address(proxy, &request.headers, &context.config.options.trusted_proxies) {
            Ok(client) => Some(client),
            Err(Hop::Unreadable) => {
                context.note_unreadable_address(proxy);
                None
            }
            Err(Hop::Hidden | Hop::Address(_)) => None,
        }
    }

    /// How a request arrived (R-DIAG-1). The client's address is named only where a trusted proxy forwarded it: the
    /// address of a proxy is not for its callers.
    pub(in crate::shard) fn arrival(&self, context: &mut Context, slot: Slot, request: &Request<'_>) -> Arrival {
        let client = self.client_address(context, slot, request);
        let networks = &context.config.options.trusted_proxies;
        let trusted = |address: &IpAddr| networks.iter().any(|network| network.contains(address));
        let http = self.http_of(slot).expect("a request comes over HTTP");
        let peer_is_trusted = matches!(http.proxy, Proxy::Trusted);
        Arrival {
            peer: http.client,
            peer_is_trusted,
            client: client.filter(|client| peer_is_trusted && !trusted(client)),
            client_is_trusted: client.is_some_and(|client| trusted(&client)),
            secure: self.came_through_tls(slot, request),
        }
    }

    /// Connections are not kept open while draining, nor while connections that are not WebSockets hold their share of
    /// the slots.
    pub(in crate::shard) fn keeps_alive(&self, context: &Context, request: &Request<'_>) -> bool {
        request.keep_alive && !context.is_draining && !self.lacks_slots_for_http(context)
    }

    pub(in crate::shard) fn answer_text(
        &mut self,
        context: &mut Context,
        slot: Slot,
        request: &Request<'_>,
        status: u16,
        body: &str,
    ) {
        let response = Response { status, content_type: TEXT, extra: "", body: body.as_bytes() };
        self.answer(context, slot, request, &response);
    }

    pub(in crate::shard) fn answer_refusal(
        &mut self,
        context: &mut Context,
        slot: Slot,
        request: &Request<'_>,
        dialect: Dialect,
        refusal: &Refusal,
    ) {
        let keep_alive = self.keeps_alive(context, request);
        let answer = encode_refusal(context, request, dialect, refusal, keep_alive);
        let ticket = self.take_ticket(context, slot, request);
        self.finish_answer(context, self.key(slot), ticket, answer);
    }

    /// Answers a request now.
    pub(in crate::shard) fn answer(
        &mut self,
        context: &mut Context,
        slot: Slot,
        request: &Request<'_>,
        response: &Response<'_>,
    ) {
        let answer = encode_answer(context, request, response, self.keeps_alive(context, request));
        let ticket = self.take_ticket(context, slot, request);
        self.finish_answer(context, self.key(slot), ticket, answer);
    }

    /// Reserves a place in the order of the connection's answers. A request that does not keep the connection open is
    /// its last.
    pub(in crate::shard) fn take_ticket(&mut self, context: &Context, slot: Slot, request: &Request<'_>) -> u32 {
        let keep_alive = self.keeps_alive(context, request);
        self.take_ticket_of(slot, keep_alive)
    }

    /// Reserves the place of an answer that is already encoded: it says whether the connection stays open.
    pub(in crate::shard) fn take_ticket_of(&mut self, slot: Slot, keep_alive: bool) -> u32 {
        if !keep_alive {
            self.table.hot[slot].flags.insert(Flags::LAST_ANSWER);
        }
        let http = self.http(slot);
        http.request_bytes = 0;
        let app = http.app.take();
        http.push_waiting(keep_alive, app)
    }

    /// Fills the place of an answer in the order, and sends the answers that are ready.
    pub(in crate::shard) fn finish_answer(
        &mut self,
        context: &mut Context,
        connection: ConnectionKey,
        ticket: u32,
        answer: Bytes,
    ) {
        if !self.is_awaiting_answers(connection) {
            return;
        }
        let slot = connection.slot();
        let http = self.http(slot);
        let place = http.answer_mut(ticket);
        if let Answer::Waiting { app: Some(app), .. } = place {
            context.metrics.app_counters.of(*app).http_sent_bytes += answer.len() as u64;
        }
        *place = Answer::Ready(answer);
        if http.large_answer == Some(ticket) {
            http.large_answer = None;
        }
        while let Some(answer) = self.http(slot).take_ready() {
            self.send(context, slot, answer, FrameKind::Control);
        }
    }

    /// Sends the answer to a request, whether or not it had to wait.
    pub(in crate::shard) fn finish_request(
        &mut self,
        context: &mut Context,
        connection: ConnectionKey,
        ticket: u32,
        response: &Response<'_>,
    ) {
        self.finish_encoded(context, connection, ticket, response, 0);
    }

    /// Like [`Connections::finish_request`], without the body that its head declares.
    pub(in crate::shard) fn finish_head_request(
        &mut self,
        context: &mut Context,
        connection: ConnectionKey,
        ticket: u32,
        response: &Response<'_>,
    ) {
        self.finish_encoded(context, connection, ticket, response, response.body.len());
    }

    fn finish_encoded(
        &mut self,
        context: &mut Context,
        connection: ConnectionKey,
        ticket: u32,
        response: &Response<'_>,
        cut_bytes: usize,
    ) {
        if !self.is_awaiting_answers(connection) {
            return;
        }
        let place = self.http(connection.slot()).answer_mut(ticket);
        let keep_alive = matches!(place, Answer::Waiting { keep_alive: true, .. });
        context.metrics.count_response(response.status);
        let mut answer = encode(response, keep_alive);
        answer.truncate(answer.len() - cut_bytes);
        self.finish_answer(context, connection, ticket, answer);
        self.account_input(context, connection.slot());
        self.follow_up(connection);
    }

    /// Answers a request that could not be read, and closes the connection (P-HTTP-16).
    pub(in crate::shard) fn answer_framing_error(&mut self, context: &mut Context, slot: Slot, error: HttpError) {
        self.answer_last_text(context, slot, error.status(), "", &error.message());
    }

    /// Answers a request that was not complete in time (threat T14).
    pub(in crate::shard) fn answer_too_late(&mut self, context: &mut Context, slot: Slot) {
        let body = format!("A request must be complete within {} ms", limits::REQUEST_WITHIN_MS);
        self.answer_last_text(context, slot, 408, "", &body);
        self.account_input(context, slot);
        self.settle(context, slot);
    }

    /// Queues a last answer (see [`Connections::answer_last`]) of text with these additional header lines.
    pub(super) fn answer_last_text(&mut self, context: &mut Context, slot: Slot, status: u16, extra: &str, body: &str) {
        context.metrics.count_response(status);
        let answer = encode(&Response { status, content_type: TEXT, extra, body: body.as_bytes() }, false);
        self.answer_last(context, slot, answer);
    }

    /// Queues the last answer of a connection, after those that other requests still wait for. Input that has arrived
    /// or arrives after the request is not read.
    pub(in crate::shard) fn answer_last(&mut self, context: &mut Context, slot: Slot, answer: Bytes) {
        self.table.hot[slot].flags.insert(Flags::LAST_ANSWER);
        let http = self.http(slot);
        http.deadline_ms = 0;
        http.decoder = Default::default();
        http.held_back = Vec::new();
        let ticket = http.push_waiting(false, None);
        self.finish_answer(context, self.key(slot), ticket, answer);
    }

    /// Sends `100 Continue`, unless earlier answers are unsent: then the client continues after its own waiting time.
    pub(in crate::shard) fn answer_continue(&mut self, context: &mut Context, slot: Slot) {
        if self.http(slot).is_answered() {
            let text = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.send(context, slot, text, FrameKind::Control);
        }
    }

    /// Counts the current request for this app.
    pub(in crate::shard) fn count_call(&mut self, context: &mut Context, slot: Slot, app: AppSerial) {
        let http = self.http(slot);
        http.app = Some(app);
        let bytes = std::mem::take(&mut http.request_bytes);
        let counters = context.metrics.app_counters.of(app);
        counters.http_calls += 1;
        counters.http_received_bytes += bytes as u64;
    }

    /// Counts a list that is about to be queued as held until all of it is sent. One connection has at most one of
    /// them, since requests behind it wait.
    pub(in crate::shard) fn hold_unsent_list(&mut self, connection: ConnectionKey, app: AppSerial, bytes: usize) {
        if bytes <= limits::HTTP_OUTBOX_BYTES_SOFT || !self.is_awaiting_answers(connection) {
            return;
        }
        self.release_unsent_list(connection.slot());
        self.lists.change(app, 0, bytes);
        self.http(connection.slot()).unsent_list = Some((app, bytes));
    }

    /// Releases a list that was sent or will never be sent.
    pub(super) fn release_unsent_list(&mut self, slot: Slot) {
        let http = self.cold_mut(slot).and_then(|cold| cold.http.as_mut());
        if let Some((app, bytes)) = http.and_then(|http| http.unsent_list.take()) {
            self.lists.change(app, bytes, 0);
        }
    }
}

/// The answer to a request that is refused.
pub(in crate::shard) fn encode_refusal(
    context: &mut Context,
    request: &Request<'_>,
    dialect: Dialect,
    refusal: &Refusal,
    keep_alive: bool,
) -> Bytes {
    let (content_type, body) = dialect.error_body(refusal.status, &refusal.message);
    let extra = refusal.header_lines();
    let response = Response { status: refusal.status, content_type, extra: &extra, body: &body };
    encode_answer(context, request, &response, keep_alive)
}

/// The refusal of a stream, which ends its connection.
pub(super) fn encode_refusal_alone(dialect: Dialect, refusal: &Refusal) -> Bytes {
    let (content_type, body) = dialect.error_body(refusal.status, &refusal.message);
    encode(&Response { status: refusal.status, content_type, extra: &refusal.header_lines(), body: &body }, false)
}

fn encode_answer(context: &mut Context, request: &Request<'_>, response: &Response<'_>, keep_alive: bool) -> Bytes {
    context.metrics.count_response(response.status);
    let mut answer = encode(response, keep_alive);
    // Both state the length of the body that they leave out (RFC 9110 section 8.6).
    if request.method == "HEAD" || response.status == 304 {
        answer.truncate(answer.len() - response.body.len());
    }
    answer
}

fn encode(response: &Response<'_>, keep_alive: bool) -> Bytes {
    match response {
        // The answer to most publishes.
        Response { status: 200, content_type: JSON, extra: "", body: b"{}" } if keep_alive => {
            Bytes::from_static(EMPTY_OBJECT)
        }
        Response { status, content_type, extra, body } => {
            let mut answer = Vec::with_capacity(192 + body.len());
            encode_response(&mut answer, *status, content_type, extra, body, keep_alive);
            answer.into()
        }
    }
}

/// `{}` with status 200 on a connection that stays open, as [`encode_response`] writes it.
const EMPTY_OBJECT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
                              Connection: keep-alive\r\n\r\n{}";

#[cfg(test)]
mod tests {
    use super::*;

    /// P-HTTP-15, P-SDK-15: the prepared answer equals the encoded one.
    #[test]
    fn the_empty_object_is_encoded_as_any_other() {
        let mut made = Vec::new();
        encode_response(&mut made, 200, JSON, "", b"{}", true);
        assert_eq!(EMPTY_OBJECT, made);
        let response = Response { status: 200, content_type: JSON, extra: "", body: b"{}" };
        assert_eq!(encode(&response, true), made);
        assert!(encode(&response, false).windows(17).any(|part| part == b"Connection: close"));
    }
}
