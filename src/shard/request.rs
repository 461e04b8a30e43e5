//! One HTTP request: routed, authenticated, carried out, answered. Answers leave in the order of the requests.

use std::borrow::Cow;
use std::net::IpAddr;

use super::command::Command;
use super::gather::{Question, RosterPages};
use super::mail::Body;
use super::scrape::ScrapePage;
use super::{ChangeKind, Output, Shard};
use crate::api::authorize::authorize;
use crate::api::batch_events::decode_batch_events;
use crate::api::channel::decode_channel_query;
use crate::api::channel_events::decode_channel_event;
use crate::api::channel_users::decode_channel_users;
use crate::api::channels::decode_channels;
use crate::api::events::{PublishRules, check_channel, decode_events};
use crate::api::refusal::Refusal;
use crate::api::route::{Endpoint, OperatorPage, Route, route};
use crate::api::terminate::check_user_id;
use crate::api::webhooks::{decode_webhook, encode_webhooks, verify_webhook};
use crate::app::{App, AppSerial};
use crate::auth::AuthFailure;
use crate::auth::request::{Caller, Credential, Known, RequestRefusal, verify_request};
use crate::connection::{Answer, ConnectionKey, Flags, Http, NONE, Phase, Proxy};
use crate::limits;
use crate::metrics::figures::Overload;
use crate::protocol::dialect::Dialect;
use crate::wire::forwarded::{Hop, forwarded_hops};
use crate::wire::http::{HttpError, Request, encode_response};
use crate::wire::query::Query;
use bytes::Bytes;

/// What follows a request on its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum After {
    /// Another request.
    Next,
    /// WebSocket frames.
    Upgraded,
    /// Nothing yet: this request is to be handled again once all those before it are answered.
    Waits,
}

/// A response before it is encoded.
pub(super) struct Response<'a> {
    pub(super) status: u16,
    pub(super) content_type: &'a str,
    pub(super) extra: &'a str,
    pub(super) body: &'a [u8],
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

impl Shard {
    pub(super) fn handle_request(&mut self, slot: u32, request: &Request<'_>) -> After {
        let http = self.http(slot);
        http.made_request = true;
        if let Some(answer) = http.refused.take() {
            let ticket = self.take_ticket(slot, request);
            self.finish_answer(self.key(slot), ticket, answer);
            return After::Next;
        }
        let route = route(request.method, request.path, &self.config.options.path_prefix);
        if request.asks_for_websocket && !self.http(slot).metrics {
            let key = if let Route::WebSocket { key } = &route { Some(&**key) } else { None };
            return self.handle_upgrade(slot, key, request);
        }
        match route {
            Route::Up => self.answer_health(slot, request, 200, "OK\n"),
            Route::UpApp(id) => {
                let up = self.directory.app_by_id(id).is_some_and(|app| app.enabled);
                let (status, body) = if up { (200, "OK\n") } else { (404, "No such app, or it is disabled") };
                self.answer_text(slot, request, status, body);
            }
            Route::Ready if self.drain.is_some() => {
                self.count_overload(Overload::Draining);
                self.answer_health(slot, request, 503, "Draining");
            }
            Route::Ready => self.answer_health(slot, request, 200, "OK\n"),
            Route::AcceptTraffic => self.start_scrape(slot, request, ScrapePage::AcceptTraffic),
            Route::Operator(page) if self.http(slot).metrics => {
                let page = match page {
                    OperatorPage::Metrics => ScrapePage::Metrics,
                    OperatorPage::Stats => ScrapePage::Stats,
                    OperatorPage::Usage => ScrapePage::Usage,
                };
                self.start_scrape(slot, request, page);
            }
            // Threat T30: the public port knows nothing of these.
            Route::Operator(_) => self.answer_not_found(slot, request, Dialect::Pusher),
            Route::Api { dialect, app_id, endpoint } if !self.http(slot).metrics => {
                self.call(slot, request, dialect, Some(app_id), endpoint);
            }
            Route::ApiOfKey { endpoint } if !self.http(slot).metrics => {
                self.call(slot, request, Dialect::Pusher, None, endpoint);
            }
            Route::WebSocket { .. } if !self.http(slot).metrics => {
                let body = b"This path is for WebSockets";
                let extra = "Upgrade: websocket\r\n";
                self.answer(slot, request, &Response { status: 426, content_type: TEXT, extra, body });
            }
            Route::Fallback { preflight } => {
                let status = if preflight { 204 } else { 404 };
                let body: &[u8] = if preflight { b"" } else { b"Only WebSockets are served" };
                self.answer(slot, request, &Response { status, content_type: TEXT, extra: FALLBACK_CORS, body });
            }
            Route::MethodNotAllowed(dialect, allow) => {
                let (content_type, body) = dialect.error_body(405, &format!("Use {allow}"));
                let extra = format!("Allow: {allow}\r\n");
                self.answer(slot, request, &Response { status: 405, content_type, extra: &extra, body: &body });
            }
            Route::NotFound(dialect) => self.answer_not_found(slot, request, dialect),
            Route::Api { dialect, .. } => self.answer_not_found(slot, request, dialect),
            Route::ApiOfKey { .. } | Route::WebSocket { .. } => self.answer_not_found(slot, request, Dialect::Pusher),
        }
        After::Next
    }

    /// An endpoint of the API: who calls, may it, what does it ask, and do it.
    fn call(
        &mut self,
        slot: u32,
        request: &Request<'_>,
        dialect: Dialect,
        app_id: Option<&str>,
        endpoint: Endpoint<'_>,
    ) {
        let scope = endpoint.scope();
        // Before the signature: it may be that of the body before its compression.
        let verified =
            check_body_coding(request).and_then(|()| self.verify_caller(slot, request, app_id, Known::Whole));
        let done = verified.and_then(|caller| {
            self.http(slot).caller = Some(caller.app);
            self.count_call(slot, caller.app);
            let started = self.with_app(caller.app, |shard, app| {
                let outcome = authorize(&caller, &endpoint).and_then(|()| {
                    shard.report_token_use(&caller);
                    shard.understand(app, request, endpoint)
                });
                shard.start_request(slot, request, dialect, app, &caller, outcome)
            });
            started.expect("it was verified by this directory")
        });
        if let Err(refusal) = done {
            let client = self.client_address(slot, request);
            self.note_request_refused(client, app_id.unwrap_or_default(), scope, refusal.status);
            self.answer_refusal(slot, request, dialect, &refusal);
        }
    }

    /// Who calls; a path that names no app means that of `auth_key` (P-HTTP-10). What does not prove itself is counted.
    pub(super) fn verify_caller(
        &mut self,
        slot: u32,
        request: &Request<'_>,
        app_id: Option<&str>,
        known: Known,
    ) -> Result<Caller, Refusal> {
        let prefix = &self.config.options.path_prefix;
        let (app_id, verified) = match app_id {
            Some(id) => (id.into(), verify_request(&self.directory, id, request, known, prefix, self.now)),
            None => {
                let key = Query::new(request.query).value("auth_key")?;
                match key.and_then(|key| self.directory.app_by_key(&key)) {
                    Some(app) => {
                        let id = app.id.clone();
                        let verified = verify_request(&self.directory, &id, request, known, prefix, self.now);
                        (Cow::Owned(id.into_string()), verified)
                    }
                    None => {
                        let text = "This path names no app: sign the query with an active key, whose app is meant.";
                        (Cow::Borrowed(""), Err(RequestRefusal::Unauthorized(AuthFailure::UnknownKey, text.to_owned())))
                    }
                }
            }
        };
        verified.map_err(|refusal| {
            self.http(slot).caller = None;
            self.count_failure(slot, request, &app_id, refusal)
        })
    }

    /// What an authenticated request asks, whole and valid.
    fn understand(&mut self, app: &App, request: &Request<'_>, endpoint: Endpoint<'_>) -> Result<Command, Refusal> {
        let query = Query::new(request.query);
        let (names, info) = (self.config.options.channel_names, self.config.options.info_rules);
        let rules = PublishRules { settings: &app.settings, names };
        match endpoint {
            Endpoint::Events => self.prepare_publish(app, &decode_events(request.body, &rules)?),
            Endpoint::BatchEvents => self.prepare_publish(app, &decode_batch_events(request.body, &rules)?),
            Endpoint::ChannelEvents(channel) => {
                self.prepare_publish(app, &decode_channel_event(channel, query, request.body, &rules)?)
            }
            Endpoint::Channels => {
                let channels = decode_channels(query, info)?;
                Ok(Command::List(app.serial, (&*channels.prefix).into(), channels.info))
            }
            Endpoint::Channel(name) => {
                let info = decode_channel_query(&name, query, names, info)?;
                let channel = self.channel_key(app.serial, &name);
                Ok(Command::Ask(Question::Channel { channel, info }))
            }
            Endpoint::ChannelStats(name) => {
                check_channel(&name, names)?;
                let channel = self.channel_key(app.serial, &name);
                Ok(Command::Ask(Question::Stats { channel }))
            }
            Endpoint::ChannelUsers(name) => {
                let fields = decode_channel_users(&name, query, names)?;
                let channel = self.channel_key(app.serial, &name);
                Ok(Command::Ask(Question::Users { channel, fields, pages: RosterPages::All }))
            }
            Endpoint::TerminateConnections(user_id) => {
                check_user_id(&user_id)?;
                let user = self.user_key(app.serial, &user_id);
                Ok(Command::Ask(Question::ShardsOf { user }))
            }
            Endpoint::Connections => Ok(Command::Ask(Question::Connections { app: app.serial })),
            Endpoint::Webhooks if request.method == "POST" => {
                let what = ChangeKind::AddWebhook(decode_webhook(request.body)?);
                Ok(Command::Change(app.id.clone(), what))
            }
            Endpoint::Webhooks => Ok(Command::Tell(encode_webhooks(app))),
            Endpoint::Webhook(id) => Ok(Command::Change(app.id.clone(), ChangeKind::RemoveWebhook(id.into()))),
            Endpoint::VerifyWebhook => Ok(Command::Tell(verify_webhook(app, request.body)?)),
        }
    }

    /// Failed credentials count to the caller's address; above the bound 401 becomes 429 (threat T6).
    fn count_failure(&mut self, slot: u32, request: &Request<'_>, app_id: &str, refusal: RequestRefusal) -> Refusal {
        if let Some(app) = self.directory.app_by_id(app_id) {
            let serial = app.serial;
            self.count_call(slot, serial);
        }
        if let RequestRefusal::Unauthorized(failure, _) = &refusal {
            let client = self.client_address(slot, request);
            self.note_credential_refused(client, app_id, *failure);
            let Some(client) = client else { return refusal.into() };
            if self.failures.count(self.now, client) {
                return Refusal::too_many_failures();
            }
            // The others count it too. Without credit they do not hear of it: the brake is no reason to fill memory.
            let own = self.config.index;
            for to in (0..self.config.shards).filter(|to| *to != own) {
                let _ = self.send_paid(to, NONE, Body::Failed { client });
            }
        }
        refusal.into()
    }

    /// The address of the client: behind trusted proxies the nearest one of `X-Forwarded-For` or `Forwarded` that is none
    /// of them (threat T26). `None` where a proxy hides it or writes what cannot be read: one client among many behind that
    /// proxy, whose failures must not count against the others.
    pub(super) fn client_address(&mut self, slot: u32, request: &Request<'_>) -> Option<IpAddr> {
        let http = self.cold(slot).and_then(|cold| cold.http.as_ref()).expect("a request comes over HTTP");
        let trusted =
            |address: &IpAddr| self.config.options.trusted_proxies.iter().any(|network| network.contains(address));
        let proxy = http.client;
        if !matches!(http.proxy, Proxy::Trusted) || !trusted(&proxy) {
            return Some(proxy);
        }
        let mut client = proxy;
        for hop in forwarded_hops(&request.headers) {
            match hop {
                Hop::Address(address) => client = address,
                Hop::Hidden => return None,
                Hop::Unreadable => {
                    self.note_unreadable_address(proxy);
                    return None;
                }
            }
            if !trusted(&client) {
                break;
            }
        }
        Some(client)
    }

    /// R-TOKEN-4, at most once a minute for the token used last.
    fn report_token_use(&mut self, caller: &Caller) {
        let Credential::Token(token, _) = &caller.credential else { return };
        let minute = self.now.unix_ms / 60_000;
        if self.token_reported.as_ref().is_some_and(|(last, at)| last == token && *at == minute) {
            return;
        }
        self.token_reported = Some((token.clone(), minute));
        self.outputs.push_back(Output::TokenUsed { token: token.clone(), at: self.now });
    }

    pub(super) fn answer_text(&mut self, slot: u32, request: &Request<'_>, status: u16, body: &str) {
        self.answer(slot, request, &Response { status, content_type: TEXT, extra: "", body: body.as_bytes() });
    }

    fn answer_not_found(&mut self, slot: u32, request: &Request<'_>, dialect: Dialect) {
        let (content_type, body) = dialect.error_body(404, "Nothing is served at this path");
        self.answer(slot, request, &Response { status: 404, content_type, extra: "", body: &body });
    }

    fn answer_refusal(&mut self, slot: u32, request: &Request<'_>, dialect: Dialect, refusal: &Refusal) {
        let answer = self.encode_refusal(request, dialect, refusal, self.keeps_alive(request));
        let ticket = self.take_ticket(slot, request);
        self.finish_answer(self.key(slot), ticket, answer);
    }

    pub(super) fn encode_refusal(
        &mut self,
        request: &Request<'_>,
        dialect: Dialect,
        refusal: &Refusal,
        keep_alive: bool,
    ) -> Bytes {
        let (content_type, body) = dialect.error_body(refusal.status, &refusal.message);
        let extra = refusal.header_lines();
        let response = Response { status: refusal.status, content_type, extra: &extra, body: &body };
        self.encode_answer(request, &response, keep_alive)
    }

    /// Answers a request now.
    pub(super) fn answer(&mut self, slot: u32, request: &Request<'_>, response: &Response<'_>) {
        let answer = self.encode_answer(request, response, self.keeps_alive(request));
        let ticket = self.take_ticket(slot, request);
        self.finish_answer(self.key(slot), ticket, answer);
    }

    fn encode_answer(&mut self, request: &Request<'_>, response: &Response<'_>, keep_alive: bool) -> Bytes {
        self.count_response(response.status);
        let mut answer = encode(response, keep_alive);
        if request.method == "HEAD" {
            answer.truncate(answer.len() - response.body.len());
        }
        answer
    }

    /// A place in the order of the connection's answers. A request that does not keep the connection is its last.
    pub(super) fn take_ticket(&mut self, slot: u32, request: &Request<'_>) -> u32 {
        let keep_alive = self.keeps_alive(request);
        if !keep_alive {
            self.hot[slot as usize].flags.insert(Flags::LAST_ANSWER);
        }
        let http = self.http(slot);
        http.request_bytes = 0;
        let app = http.app.take();
        http.push_waiting(keep_alive, app)
    }

    /// Fills the place of an answer in the order, and sends what is ready.
    pub(super) fn finish_answer(&mut self, connection: ConnectionKey, ticket: u32, answer: Bytes) {
        let slot = connection.slot;
        if !self.is_live(connection) || self.hot[slot as usize].phase != Phase::Http {
            return;
        }
        let http = self.http(slot);
        let at = ticket.wrapping_sub(http.first_ticket) as usize;
        if let Answer::Waiting { app: Some(app), .. } = http.answers[at] {
            self.apps.of(app).http_sent_bytes += answer.len() as u64;
        }
        let http = self.http(slot);
        http.answers[at] = Answer::Ready(answer);
        if http.large_answer == Some(ticket) {
            http.large_answer = None;
        }
        while let Some(answer) = self.http(slot).take_ready() {
            self.queue(slot, answer);
        }
    }

    /// The answer to a request that other shards have done or told their part of.
    pub(super) fn finish_request(&mut self, connection: ConnectionKey, ticket: u32, response: &Response<'_>) {
        if !self.is_live(connection) || self.hot[connection.slot as usize].phase != Phase::Http {
            return;
        }
        self.finish_encoded(connection, ticket, response, 0);
    }

    /// As [`Shard::finish_request`], without the body that its head declares.
    pub(super) fn finish_head_request(&mut self, connection: ConnectionKey, ticket: u32, response: &Response<'_>) {
        if !self.is_live(connection) || self.hot[connection.slot as usize].phase != Phase::Http {
            return;
        }
        self.finish_encoded(connection, ticket, response, response.body.len());
    }

    fn finish_encoded(&mut self, connection: ConnectionKey, ticket: u32, response: &Response<'_>, cut_bytes: usize) {
        let http = self.http(connection.slot);
        let at = ticket.wrapping_sub(http.first_ticket) as usize;
        let keep_alive = matches!(http.answers[at], Answer::Waiting { keep_alive: true, .. });
        self.count_response(response.status);
        let mut answer = encode(response, keep_alive);
        answer.truncate(answer.len() - cut_bytes);
        self.finish_answer(connection, ticket, answer);
        self.account_input(connection.slot);
        self.resume_if_due(connection.slot);
        self.settle(connection.slot);
    }

    /// A request that could not be read: answered, and the connection closed (P-HTTP-16).
    pub(super) fn answer_framing_error(&mut self, slot: u32, error: HttpError) {
        let mut answer = Vec::new();
        self.count_response(error.status());
        encode_response(&mut answer, error.status(), TEXT, "", error.message().as_bytes(), false);
        self.answer_last(slot, answer);
    }

    /// A request that did not become whole in time (threat T14).
    pub(super) fn answer_too_late(&mut self, slot: u32) {
        let mut answer = Vec::new();
        let body = format!("A request must be whole within {} ms", limits::REQUEST_WITHIN_MS);
        self.count_response(408);
        encode_response(&mut answer, 408, TEXT, "", body.as_bytes(), false);
        self.answer_last(slot, answer);
        self.account_input(slot);
        self.settle(slot);
    }

    /// Queues the last answer of a connection, after those that other requests still wait for. Nothing that came or comes
    /// behind is read.
    pub(super) fn answer_last(&mut self, slot: u32, answer: impl Into<Bytes>) {
        self.hot[slot as usize].flags.insert(Flags::LAST_ANSWER);
        let http = self.http(slot);
        http.deadline_ms = 0;
        http.decoder = Default::default();
        http.held_back = Vec::new();
        let ticket = http.push_waiting(false, None);
        self.finish_answer(self.key(slot), ticket, answer.into());
    }

    /// `100 Continue`, unless earlier answers are owed: then the client goes on after its own waiting time.
    pub(super) fn answer_continue(&mut self, slot: u32) {
        if self.http(slot).is_answered() {
            self.queue(slot, Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
    }

    /// Connections are not kept while draining, nor while those that are no WebSocket hold their share of the slots.
    pub(super) fn keeps_alive(&self, request: &Request<'_>) -> bool {
        request.keep_alive && self.drain.is_none() && !self.lacks_slots_for_http()
    }
}

impl Http {
    /// Keeps a place in the order of answers; gives its ticket.
    fn push_waiting(&mut self, keep_alive: bool, app: Option<AppSerial>) -> u32 {
        self.answers.push_back(Answer::Waiting { keep_alive, app });
        self.first_ticket.wrapping_add(self.answers.len() as u32 - 1)
    }

    /// Takes the oldest answer if it is ready.
    fn take_ready(&mut self) -> Option<Bytes> {
        match self.answers.front()? {
            Answer::Waiting { .. } => None,
            Answer::Ready(answer) => {
                let answer = answer.clone();
                self.answers.pop_front();
                self.first_ticket = self.first_ticket.wrapping_add(1);
                Some(answer)
            }
        }
    }
}

/// Bodies are read as they come: what is compressed says nothing until it is inflated, and nobody knows to how much.
fn check_body_coding(request: &Request<'_>) -> Result<(), Refusal> {
    let coding = request.headers.first("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    match coding {
        Some(coding) if !coding.is_empty() && !request.body.is_empty() => Err(Refusal::encoded_body()),
        Some(_) | None => Ok(()),
    }
}

fn encode(response: &Response<'_>, keep_alive: bool) -> Bytes {
    match response {
        // What most publishes are answered.
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

/// `{}` with status 200 on a connection that is kept, as [`encode_response`] writes it.
const EMPTY_OBJECT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
                              Connection: keep-alive\r\n\r\n{}";

/// P-FALL-1.
const FALLBACK_CORS: &str = "Access-Control-Allow-Origin: *\r\n\
                             Access-Control-Allow-Methods: POST, GET\r\n\
                             Access-Control-Allow-Headers: Content-Type\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// P-HTTP-15, P-SDK-15: the answer that is kept ready is the one that would be made.
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
