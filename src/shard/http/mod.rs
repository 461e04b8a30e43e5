//! Requests over HTTP: authenticated, parsed, executed, answered. Answers are sent in the order of the requests
//! (`connections::answers`).

mod auth;
mod authorizer;
mod by_owner;
mod command;
mod head;
mod history;
mod pending;
mod permits;
mod poll;
mod publish;
mod query;
mod replay;
mod response;
mod scrape;
mod socket_rates;
mod store_change;
mod stream;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};

use foldhash::quality::FixedState;
use slab::Slab;

use crate::api::arrival::encode_arrival;
use crate::api::authorize::{authorize, refuse_pages_with_secret};
use crate::api::batch_events::decode_batch_events;
use crate::api::channel::decode_channel_query;
use crate::api::channel_events::decode_channel_event;
use crate::api::channel_history::decode_channel_history;
use crate::api::channel_users::decode_channel_users;
use crate::api::channels::decode_channels;
use crate::api::document::document;
use crate::api::encryption_key::decode_new_key;
use crate::api::events::{PublishRules, check_channel, decode_events};
use crate::api::refusal::Refusal;
use crate::api::replay::decode_replay;
use crate::api::route::{Endpoint, OperatorPage, Route, route};
use crate::api::script::{SCRIPT_TYPE, Script};
use crate::api::terminate::check_user_id;
use crate::api::tokens::decode_token;
use crate::api::webhooks::{decode_webhook, encode_webhooks, verify_webhook};
use crate::app::{App, TokenId};
use crate::auth::AuthFailure;
use crate::auth::request::{Accepted, Caller, Credential, Known, RequestRefusal, verify_request};
use crate::connection::http::Refused;
use crate::index::{ShardIndex, Slot};
use crate::metrics::figures::{ClientNames, Overload};
use crate::protocol::dialect::Dialect;
use crate::shard::channels::Channels;
use crate::shard::connections::{After, Connections, JSON, Response, TEXT};
use crate::shard::context::Context;
use crate::shard::io::ChangeKind;
use crate::shard::io::Output;
use crate::shard::mail::{HttpMessage, Question, RosterPages};
use crate::shard::owner::Owner;
use crate::shard::quota::Quota;
use crate::shard::turns::Turns;
use crate::shard::users::Users;
use crate::wire::http::Request;
use crate::wire::query::Query;
use authorizer::Authorizations;
use command::{Command, ReplayRequest};
use permits::Parked;
use poll::Polls;
use publish::PendingPublish;
use query::{AskedPage, PendingQuery};
use replay::PendingReplay;
use scrape::{Scrape, ScrapePage};
use store_change::change;

pub(super) use head::Judged;

/// Requests that wait for a result.
#[derive(Default)]
pub(super) struct Requests {
    /// Publishes that await other shards.
    publishes: Slab<PendingPublish>,
    /// Replays that await other shards.
    replays: Slab<PendingReplay>,
    /// Questions that await other shards, and changes that await the store.
    queries: Slab<PendingQuery>,
    /// Requests that await permits of their app.
    parked: Slab<Parked>,
    /// Pages that other shards, or this one, wait for, and when the next may be created.
    asked_pages: Turns<AskedPage>,
    pages_due_ms: u64,
    /// Requests that await authorizers.
    authorizations: Authorizations,
    /// Polls that are held.
    polls: Polls,
    /// Ids of the apps whose changes of the store are not answered yet, by the index of their query.
    changes_in_flight: BTreeMap<u32, Box<str>>,
    /// Pages of the metrics port that await other shards.
    scrapes: Slab<Scrape>,
    /// Names of clients that were reported so far: they are never removed.
    clients_reported: ClientNames,
    /// Channels of other shards that are unoccupied, as their owners reported and have not recalled.
    unoccupied: HashSet<u64, FixedState>,
    /// The OpenAPI document, once it was requested.
    document: OnceCell<Box<[u8]>>,
    /// Guards against the reuse of indices.
    nonce: u32,
    /// The token and minute last reported as used.
    token_reported: Option<(TokenId, u64)>,
}

/// A call of the API.
#[derive(Clone, Copy)]
struct Call<'a> {
    slot: Slot,
    request: &'a Request<'a>,
    dialect: Dialect,
}

/// The parts that requests use.
pub(super) struct Parts<'a> {
    pub(super) context: &'a mut Context,
    pub(super) connections: &'a mut Connections,
    pub(super) quota: &'a mut Quota,
    pub(super) channels: &'a mut Channels,
    pub(super) owner: &'a mut Owner,
    pub(super) users: &'a mut Users,
}

impl Requests {
    /// Handles mail about requests.
    pub(super) fn handle(&mut self, parts: &mut Parts<'_>, from: ShardIndex, message: HttpMessage) {
        match message {
            HttpMessage::Ask { request, question } => self.handle_question(parts, from, request, question),
            HttpMessage::Reply { request, reply } => self.handle_reply(parts, from, request, reply),
            HttpMessage::Changed { request, changed } => self.handle_changed(parts, request, changed),
            HttpMessage::JudgeSocket { request, socket, app, channels } => {
                self.handle_socket_question(parts, from, request, (socket, app, channels));
            }
            HttpMessage::SocketJudged { request, verdict } => self.handle_socket_judged(parts, request, verdict),
            HttpMessage::Authorized { request, decisions } => self.handle_authorized(parts, request, decisions),
            HttpMessage::FindEvents { request, app, events } => {
                self.handle_find_events(parts, from, request, app, &events);
            }
            HttpMessage::FoundEvents { request, events } => self.handle_found_events(parts, request, events),
            HttpMessage::Replay(call) => self.handle_replay_call(parts, *call),
            HttpMessage::Accepted { request, counts, unoccupied } => {
                self.handle_accepted(parts, request, counts, &unoccupied);
            }
            HttpMessage::Polled { request, found, is_first } => self.handle_polled(parts, request, found, is_first),
            HttpMessage::Recall { hash } => self.handle_recall(parts, from, hash),
            HttpMessage::Allowed { request, window, lease } => self.handle_allowed(parts, request, window, lease),
            HttpMessage::Denied { request, shortage } => self.handle_denied(parts, request, &shortage),
        }
    }

    fn next_nonce(&mut self) -> u32 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }

    /// One request of a connection.
    pub(super) fn handle_request(&mut self, parts: &mut Parts<'_>, slot: Slot, request: &Request<'_>) -> After {
        let http = parts.connections.http(slot);
        http.made_request = true;
        if let Some(Refused { answer, keep_alive }) = http.refused.take() {
            let ticket = parts.connections.take_ticket_of(slot, keep_alive);
            parts.connections.finish_answer(parts.context, parts.connections.key(slot), ticket, answer);
            return After::Next;
        }
        let route = route(request.method, request.path, &parts.context.config.options.path_prefix);
        if request.asks_for_websocket && !parts.connections.http(slot).metrics {
            let key = if let Route::WebSocket { key } = &route { Some(&**key) } else { None };
            return parts.connections.handle_upgrade(parts.context, slot, key, request);
        }
        self.serve(parts, slot, request, route);
        After::Next
    }

    /// Serves a request that is not an upgrade.
    fn serve(&mut self, parts: &mut Parts<'_>, slot: Slot, request: &Request<'_>, route: Route<'_>) {
        match route {
            Route::Up => self.answer_health(parts, slot, request, 200, "OK\n"),
            Route::UpApp(id) => {
                let up = parts.context.directory.app_by_id(id).is_some_and(|app| app.enabled);
                let (status, body) = if up { (200, "OK\n") } else { (404, "No such app, or it is disabled") };
                parts.connections.answer_text(parts.context, slot, request, status, body);
            }
            Route::Ready if parts.context.is_draining => {
                parts.context.metrics.count_overload(Overload::Draining);
                self.answer_health(parts, slot, request, 503, "Draining");
            }
            Route::Ready => self.answer_health(parts, slot, request, 200, "OK\n"),
            Route::Script(script) if !parts.connections.http(slot).metrics => {
                self.answer_script(parts, slot, request, script);
            }
            Route::AcceptTraffic => self.start_scrape(parts, slot, request, ScrapePage::AcceptTraffic),
            Route::Operator(page) if parts.connections.http(slot).metrics => {
                let page = match page {
                    OperatorPage::Metrics => ScrapePage::Metrics,
                    OperatorPage::Stats => ScrapePage::Stats,
                    OperatorPage::Usage => ScrapePage::Usage,
                };
                self.start_scrape(parts, slot, request, page);
            }
            Route::Document if !parts.connections.http(slot).metrics => self.answer_document(parts, slot, request),
            // Threat T30: the public port does not serve these.
            Route::Operator(_) => self.answer_not_found(parts, slot, request, Dialect::Pusher),
            Route::Api { dialect, app_id, endpoint } if !parts.connections.http(slot).metrics => {
                self.call(parts, slot, request, dialect, Some(app_id), endpoint);
            }
            Route::ApiOfKey { endpoint } if !parts.connections.http(slot).metrics => {
                self.call(parts, slot, request, Dialect::Pusher, None, endpoint);
            }
            Route::StreamOfKey { key, endpoint } if !parts.connections.http(slot).metrics => {
                self.call_stream_of_key(parts, slot, request, &key, endpoint);
            }
            Route::AuthOfKey(kind) if !parts.connections.http(slot).metrics => {
                self.call_of_key(parts, slot, request, kind);
            }
            Route::Preflight(app_id, shared) if !parts.connections.http(slot).metrics => {
                self.answer_preflight(parts, slot, request, app_id, shared);
            }
            Route::WebSocket { .. } if !parts.connections.http(slot).metrics => {
                let (extra, body) = ("Upgrade: websocket\r\n", b"This path is for WebSockets");
                let response = Response { status: 426, content_type: TEXT, extra, body };
                parts.connections.answer(parts.context, slot, request, &response);
            }
            Route::Fallback { preflight } => {
                let status = if preflight { 204 } else { 404 };
                let body: &[u8] = if preflight { b"" } else { b"Only WebSockets are served" };
                parts.connections.answer(
                    parts.context,
                    slot,
                    request,
                    &Response { status, content_type: TEXT, extra: FALLBACK_CORS, body },
                );
            }
            Route::MethodNotAllowed(dialect, allow) => {
                self.answer_method_not_allowed(parts, slot, request, dialect, allow);
            }
            Route::NotFound(dialect) => self.answer_not_found(parts, slot, request, dialect),
            Route::Api { dialect, .. } => self.answer_not_found(parts, slot, request, dialect),
            Route::ApiOfKey { .. }
            | Route::WebSocket { .. }
            | Route::StreamOfKey { .. }
            | Route::AuthOfKey(_)
            | Route::Preflight(..)
            | Route::Document
            | Route::Script(_) => self.answer_not_found(parts, slot, request, Dialect::Pusher),
        }
    }

    /// A call of the API: authenticated, authorized, parsed and started.
    fn call(
        &mut self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        dialect: Dialect,
        app_id: Option<&str>,
        endpoint: Endpoint<'_>,
    ) {
        let scope = endpoint.scope();
        let (headers, origin) = match self.headers_of(parts, request, app_id, endpoint.shared()) {
            Ok(headers) => (headers, Ok(())),
            Err((headers, refusal)) => (headers, Err(refusal)),
        };
        // Before the signature: the signature may cover the body before compression.
        let verified = origin
            .and_then(|()| check_body_coding(request))
            .and_then(|()| self.identify(parts, slot, request, app_id, &endpoint, Known::Whole));
        let done = verified.and_then(|caller| {
            parts.connections.http(slot).caller = Some(caller.app);
            parts.connections.count_call(parts.context, slot, caller.app);
            let app = parts.context.take_app(caller.app).expect("it was verified by this directory");
            let outcome = authorize(&caller, &endpoint).and_then(|()| {
                self.report_token_use(parts, &caller);
                self.parse(parts, Call { slot, request, dialect }, &caller, &app, endpoint, &headers)
            });
            let started = self.start_request(parts, Call { slot, request, dialect }, &app, &caller, outcome);
            parts.context.keep_app(app);
            started
        });
        if let Err(refusal) = done {
            let refusal = if headers.is_empty() { refusal } else { refusal.with_headers(&headers) };
            let client = parts.connections.client_address(parts.context, slot, request);
            parts.context.note_request_refused(client, app_id.unwrap_or_default(), scope, refusal.status);
            parts.connections.answer_refusal(parts.context, slot, request, dialect, &refusal);
        }
    }

    /// Authenticates the caller; a path without an app refers to that of `auth_key` (P-HTTP-10). Failures are counted.
    pub(super) fn verify_caller(
        &self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        app_id: Option<&str>,
        (known, accepted): (Known, Accepted),
    ) -> Result<Caller, Refusal> {
        if parts.context.config.options.refuse_pages_with_secret {
            refuse_pages_with_secret(request)?;
        }
        let prefix = &parts.context.config.options.path_prefix;
        let (app_id, verified) = match app_id {
            Some(id) => {
                let (directory, now) = (&parts.context.directory, parts.context.now);
                (id.into(), verify_request(directory, id, request, known, prefix, now, accepted))
            }
            None => {
                let key = Query::new(request.query).value("auth_key")?;
                match key.and_then(|key| parts.context.directory.app_by_key(&key)) {
                    Some(app) => {
                        let id = app.id.clone();
                        let (directory, now) = (&parts.context.directory, parts.context.now);
                        let verified = verify_request(directory, &id, request, known, prefix, now, accepted);
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
            parts.connections.http(slot).caller = None;
            self.count_failure(parts, slot, request, &app_id, refusal)
        })
    }

    /// Parses an authenticated request.
    fn parse(
        &self,
        parts: &mut Parts<'_>,
        call: Call<'_>,
        caller: &Caller,
        app: &App,
        endpoint: Endpoint<'_>,
        headers: &str,
    ) -> Result<Command, Refusal> {
        let (request, query) = (call.request, Query::new(call.request.query));
        let (names, info) = (parts.context.config.options.channel_names, parts.context.config.options.info_rules);
        let rules = PublishRules { settings: &app.settings, names };
        match endpoint {
            Endpoint::Events => self.prepare_publish(parts, app, &decode_events(request.body, &rules)?),
            Endpoint::BatchEvents => self.prepare_publish(parts, app, &decode_batch_events(request.body, &rules)?),
            Endpoint::Replay => {
                let replay = decode_replay(&app.id, request.body, names)?;
                Ok(Command::Replay(Box::new(ReplayRequest::of_app(parts, call, caller, app, replay))))
            }
            Endpoint::ChannelEvents(channel) => {
                self.prepare_publish(parts, app, &decode_channel_event(channel, query, request.body, &rules)?)
            }
            Endpoint::Channels => {
                let channels = decode_channels(query, info)?;
                Ok(Command::List(app.serial, (&*channels.prefix).into(), channels.info))
            }
            Endpoint::Channel(name) => {
                let info = decode_channel_query(&name, query, names, info)?;
                let channel = parts.context.channel_key(app.serial, &name);
                Ok(Command::Ask(Question::Channel { channel, info }))
            }
            Endpoint::ChannelStats(name) => {
                check_channel(&name, names)?;
                let channel = parts.context.channel_key(app.serial, &name);
                Ok(Command::Ask(Question::Stats { channel }))
            }
            Endpoint::ChannelHistory(name) => {
                let query = decode_channel_history(&name, query, names)?;
                let channel = parts.context.channel_key(app.serial, &name);
                Ok(Command::Ask(Question::History { channel, query }))
            }
            Endpoint::ChannelUsers(name) => {
                let fields = decode_channel_users(&name, query, names)?;
                let channel = parts.context.channel_key(app.serial, &name);
                Ok(Command::Ask(Question::Users { channel, fields, pages: RosterPages::All }))
            }
            Endpoint::TerminateConnections(user_id) => {
                check_user_id(&user_id)?;
                let user = parts.context.user_key(app.serial, &user_id);
                Ok(Command::Ask(Question::ShardsOf { user }))
            }
            Endpoint::Connections => Ok(Command::Ask(Question::Connections { app: app.serial })),
            Endpoint::Webhooks if request.method == "POST" => {
                let what = ChangeKind::AddWebhook(decode_webhook(request.body)?);
                Ok(change(parts, call, caller, app, what))
            }
            Endpoint::Webhooks => Ok(Command::Answer(encode_webhooks(app))),
            Endpoint::Webhook(id) => Ok(change(parts, call, caller, app, ChangeKind::RemoveWebhook(id.into()))),
            Endpoint::Auth(kind) => self.prepare_auth(parts, app, caller, request, kind, headers),
            Endpoint::Sse => Ok(Command::Stream(Box::new(self.prepare_stream(parts, call, caller, app, headers)?))),
            Endpoint::Poll => Ok(Command::Poll(Box::new(self.prepare_poll(parts, call, caller, app, headers)?))),
            Endpoint::Time => Ok(Command::Signed(stream::encode_clock(parts, call, app)?, headers.into())),
            Endpoint::EncryptionKey if request.method == "POST" => {
                let what = ChangeKind::NewMasterKey(decode_new_key(request.body)?);
                Ok(change(parts, call, caller, app, what))
            }
            Endpoint::EncryptionKey => Ok(change(parts, call, caller, app, ChangeKind::RemoveMasterKey)),
            Endpoint::Tokens if request.method == "POST" => {
                let what = ChangeKind::AddToken(decode_token(&app.id, request.body, parts.context.now.unix_ms)?);
                Ok(change(parts, call, caller, app, what))
            }
            Endpoint::Tokens => Ok(change(parts, call, caller, app, ChangeKind::ListTokens)),
            Endpoint::Token(id) => Ok(change(parts, call, caller, app, ChangeKind::RevokeToken(id.into()))),
            Endpoint::VerifyWebhook => Ok(Command::Answer(verify_webhook(app, request.body)?)),
            Endpoint::Arrival => {
                let arrival = parts.connections.arrival(parts.context, call.slot, request);
                Ok(Command::Answer(encode_arrival(request, &arrival)))
            }
        }
    }

    /// Failed credentials count against the caller's address; above the bound 401 becomes 429 (threat T6).
    fn count_failure(
        &self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        app_id: &str,
        refusal: RequestRefusal,
    ) -> Refusal {
        if let Some(app) = parts.context.directory.app_by_id(app_id) {
            let serial = app.serial;
            parts.connections.count_call(parts.context, slot, serial);
        }
        if let RequestRefusal::Unauthorized(failure, _) = &refusal {
            let client = parts.connections.client_address(parts.context, slot, request);
            parts.context.note_credential_refused(client, app_id, request, *failure);
            let Some(client) = client else { return refusal.into() };
            if parts.quota.count_auth_failure(parts.context, client) {
                return Refusal::too_many_failures();
            }
        }
        refusal.into()
    }

    /// R-TOKEN-4, at most once a minute for the token used last.
    fn report_token_use(&mut self, parts: &mut Parts<'_>, caller: &Caller) {
        let Credential::Token(token, _) = &caller.credential else { return };
        let minute = parts.context.now.unix_ms / 60_000;
        if self.token_reported.as_ref().is_some_and(|(last, at)| last == token && *at == minute) {
            return;
        }
        self.token_reported = Some((token.clone(), minute));
        parts.context.outputs.push_back(Output::TokenUsed { token: token.clone(), at: parts.context.now });
    }

    /// R-CLIENT-3.
    fn answer_script(&self, parts: &mut Parts<'_>, slot: Slot, request: &Request<'_>, script: Script) {
        let status = if script.is_known(request.headers.first("if-none-match")) { 304 } else { 200 };
        let (extra, body) = (script.headers(), script.bytes());
        let response = Response { status, content_type: SCRIPT_TYPE, extra: &extra, body };
        parts.connections.answer(parts.context, slot, request, &response);
    }

    fn answer_method_not_allowed(
        &self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        dialect: Dialect,
        allow: &str,
    ) {
        let (content_type, body) = dialect.error_body(405, &format!("Use {allow}"));
        let extra = format!("Allow: {allow}\r\n");
        let response = Response { status: 405, content_type, extra: &extra, body: &body };
        parts.connections.answer(parts.context, slot, request, &response);
    }

    /// The description of the API (R-ADMIN-20): the same bytes for everybody.
    fn answer_document(&self, parts: &mut Parts<'_>, slot: Slot, request: &Request<'_>) {
        let prefix = &parts.context.config.options.path_prefix;
        let body = self.document.get_or_init(|| document(prefix).encode().into());
        let response = Response { status: 200, content_type: JSON, extra: "", body };
        parts.connections.answer(parts.context, slot, request, &response);
    }

    fn answer_not_found(&self, parts: &mut Parts<'_>, slot: Slot, request: &Request<'_>, dialect: Dialect) {
        let (content_type, body) = dialect.error_body(404, "Nothing is served at this path");
        parts.connections.answer(
            parts.context,
            slot,
            request,
            &Response { status: 404, content_type, extra: "", body: &body },
        );
    }
}

/// Bodies are read uncompressed: a compressed one would have to be inflated first, and its inflated length is unknown.
fn check_body_coding(request: &Request<'_>) -> Result<(), Refusal> {
    let coding = request.headers.first("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    match coding {
        Some(coding) if !coding.is_empty() && !request.body.is_empty() => Err(Refusal::encoded_body()),
        Some(_) | None => Ok(()),
    }
}

/// P-FALL-1.
const FALLBACK_CORS: &str = "Access-Control-Allow-Origin: *\r\n\
                             Access-Control-Allow-Methods: POST, GET\r\n\
                             Access-Control-Allow-Headers: Content-Type\r\n";

impl Requests {
    /// Requests that wait for a result.
    pub(in crate::shard) fn pending(&self) -> usize {
        self.publishes.len()
            + self.replays.len()
            + self.queries.len()
            + self.parked.len()
            + self.changes_in_flight.len()
            + self.authorizations.len()
            + self.polls.len()
    }
}

#[cfg(test)]
impl Requests {
    pub(in crate::shard) fn pending_queries(&self) -> usize {
        self.queries.len()
    }

    /// Memory of requests that wait for authorizers, in bytes.
    pub(in crate::shard) fn waiting_bytes(&self) -> usize {
        self.authorizations.bytes()
    }

    pub(in crate::shard) fn parked(&self) -> usize {
        self.parked.len()
    }

    pub(in crate::shard) fn asked_pages(&self) -> usize {
        self.asked_pages.len()
    }

    pub(in crate::shard) fn scrapes(&self) -> usize {
        self.scrapes.len()
    }

    /// Channels of other shards that this shard considers unoccupied.
    pub(in crate::shard) fn unoccupied(&self) -> usize {
        self.unoccupied.len()
    }
}
