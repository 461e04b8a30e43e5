//! Requests to an auth endpoint that the app's authorizer decides (R-AUTHEP-3, R-AUTHEP-8, R-AUTHEP-11).
//!
//! ```text
//! request --> socket open, within its rate? --> authorizer --> socket still open? --> answer
//!               (mail to its shard)         (output, then mail)   (mail to its shard)
//! ```
//!
//! The shard never waits: it keeps the request and serves others. Requests that wait are bounded in number and in
//! bytes, and one app may have a multiple of what is free (P-STAT-9).

use std::sync::Arc;

use hashbrown::HashMap;

use super::pending::Pending;
use super::response::ResponseSlot;
use super::socket_rates::SocketRates;
use super::{Parts, Requests};
use crate::api::auth::{answer_channel, answer_user, check_protected, finish_list, push_entry};
use crate::api::authorizer::{AuthorizerCall, Decision, Subject};
use crate::api::refusal::Refusal;
use crate::api::stream::StreamId;
use crate::app::AppSerial;
use crate::channel::name::ChannelKind;
use crate::connection::ConnectionKey;
use crate::index::ShardIndex;
use crate::limits;
use crate::metrics::figures::Overload;
use crate::protocol::socket_id::SocketId;
use crate::shard::connections::{JSON, Response};
use crate::shard::io::{Authorize, Output};
use crate::shard::mail::{AnswerId, ConnectionRef, HttpMessage, PendingId, SocketVerdict};

/// A parsed request.
pub(super) struct AuthorizerRequest {
    pub(super) app: AppSerial,
    pub(super) socket_id: SocketId,
    pub(super) entries: Vec<Entry>,
    /// The answer is a list, also for one channel.
    pub(super) is_list: bool,
    /// Headers of the caller for the authorizer.
    pub(super) forwarded: Vec<(&'static str, Box<str>)>,
    /// Header lines of the answer.
    pub(super) headers: Box<str>,
}

/// A subject, with its refusal if it is not to be asked about.
pub(super) struct Entry {
    pub(super) subject: Subject,
    pub(super) refusal: Option<Refusal>,
}

impl Entry {
    /// One that the authorizer is asked about.
    pub(super) fn asked(subject: Subject) -> Self {
        Self { subject, refusal: None }
    }

    /// A stream has no user and is no member (R-SSE-5).
    fn refuse_on_streams(&mut self) {
        let is_readable = match &self.subject {
            Subject::Channel(name) => ChannelKind::of(name) != ChannelKind::Presence,
            Subject::User => false,
        };
        if !is_readable {
            let text = "The socket_id is that of a stream, for which only private channels are signed.";
            self.refusal.get_or_insert_with(|| Refusal::forbidden(text));
        }
    }
}

/// Requests that wait for an authorizer.
#[derive(Default)]
pub(super) struct Authorizations {
    pending: Pending<PendingAuthorization>,
    /// Number of those of each app.
    of_apps: HashMap<AppSerial, usize, foldhash::quality::FixedState>,
    /// Memory of them, in bytes.
    bytes: usize,
    rates: SocketRates,
}

struct PendingAuthorization {
    reply_to: ResponseSlot,
    /// `None` for the id of a stream.
    socket: Option<ConnectionRef>,
    request: AuthorizerRequest,
    bytes: usize,
    /// The decisions, once the authorizer has answered.
    decisions: Option<Vec<Decision>>,
}

impl Requests {
    /// Starts a request.
    ///
    /// # Errors
    /// 403 for a socket that no shard can have, 503 when too many requests wait.
    pub(super) fn ask_authorizer(
        &mut self,
        parts: &mut Parts<'_>,
        reply_to: ResponseSlot,
        mut request: AuthorizerRequest,
    ) -> Result<(), Refusal> {
        let stream = StreamId::parse(&request.socket_id.to_text()).filter(|id| id.may_be_signed(parts.context.now));
        if stream.is_some() {
            request.entries.iter_mut().for_each(Entry::refuse_on_streams);
        }
        let with_headers = |refusal: Refusal| refusal.with_headers(&request.headers);
        let asked = request.entries.iter().filter(|entry| entry.refusal.is_none()).count();
        let socket = parts.context.connection_of(request.socket_id);
        if stream.is_none() && socket.is_none() {
            return Err(with_headers(not_open()));
        }
        let bytes = request.bytes();
        if !self.authorizations.has_room(request.app, bytes) {
            parts.context.metrics.count_overload(Overload::Authorizer);
            return Err(with_headers(busy(1)));
        }
        let app = request.app;
        let pending = PendingAuthorization { reply_to, socket, request, bytes, decisions: None };
        let id = self.authorizations.insert(app, pending);
        ask_socket(parts, id, socket, app, asked as u32);
        Ok(())
    }

    /// A shard asks whether a connection here is the open socket of a client of the app, and may have so many channels
    /// judged.
    pub(super) fn handle_socket_question(
        &mut self,
        parts: &mut Parts<'_>,
        from: ShardIndex,
        request: PendingId,
        (socket, app, channels): (ConnectionKey, AppSerial, u32),
    ) {
        let now_ms = parts.context.now.monotonic_ms;
        let verdict = if parts.connections.is_open_on(socket, app) {
            match self.authorizations.rates.take(socket, channels.into(), now_ms) {
                Ok(()) => SocketVerdict::Open,
                Err(seconds) => SocketVerdict::TooOften(seconds),
            }
        } else {
            SocketVerdict::NotOpen
        };
        parts.context.send(from, HttpMessage::SocketJudged { request, verdict });
    }

    /// The shard of the socket has answered.
    pub(super) fn handle_socket_judged(&mut self, parts: &mut Parts<'_>, id: PendingId, verdict: SocketVerdict) {
        let pending = self.authorizations.pending.get_mut(id).expect("a shard answers each question once");
        match (verdict, pending.decisions.is_some()) {
            (SocketVerdict::Open, true) => self.answer_decided(parts, id),
            (SocketVerdict::Open, false) => {
                let request = &mut pending.request;
                let asked = request.entries.iter().filter(|entry| entry.refusal.is_none());
                let subjects: Vec<Subject> = asked.map(|entry| entry.subject.clone()).collect();
                if subjects.is_empty() {
                    pending.decisions = Some(Vec::new());
                    return self.answer_decided(parts, id);
                }
                let call = AuthorizerCall {
                    app: request.app,
                    socket_id: request.socket_id,
                    subjects,
                    headers: std::mem::take(&mut request.forwarded),
                };
                let id = AnswerId { shard: parts.context.config.index, request: id };
                parts.context.outputs.push_back(Output::Authorize(Authorize { id, call: Arc::new(call) }));
            }
            (SocketVerdict::NotOpen, _) => self.refuse_authorization(parts, id, &not_open()),
            (SocketVerdict::TooOften(seconds), _) => {
                let text = "This socket has had too many channels judged: at most 10 a second, and 200 at once.";
                self.refuse_authorization(parts, id, &Refusal::too_many(text, seconds));
            }
        }
    }

    /// The authorizer has decided. The socket may have been closed meanwhile, and its id must not be signed then.
    pub(super) fn handle_authorized(&mut self, parts: &mut Parts<'_>, id: PendingId, decisions: Vec<Decision>) {
        let pending = self.authorizations.pending.get_mut(id).expect("an authorizer answers each request once");
        let (socket, app) = (pending.socket, pending.request.app);
        pending.decisions = Some(decisions);
        if parts.connections.is_awaiting_answers(pending.reply_to.connection) {
            ask_socket(parts, id, socket, app, 0);
        } else {
            self.authorizations.remove(id);
        }
    }

    fn answer_decided(&mut self, parts: &mut Parts<'_>, id: PendingId) {
        let PendingAuthorization { reply_to, request, decisions, .. } = self.authorizations.remove(id);
        let mut decisions = decisions.unwrap_or_default().into_iter();
        let mut answers = request.entries.iter().map(|entry| match &entry.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => sign_decided(parts, &request, &entry.subject, decisions.next().unwrap_or(Decision::Failed)),
        });
        if request.is_list {
            let mut body = String::new();
            for (entry, answer) in request.entries.iter().zip(answers) {
                push_entry(&mut body, entry.subject.channel(), &answer);
            }
            finish_list(&mut body);
            return answer(parts, reply_to, &request.headers, &body);
        }
        match answers.next().expect("a request is about something") {
            Ok(body) => answer(parts, reply_to, &request.headers, &body),
            Err(refusal) => {
                drop(answers);
                self.refuse(parts, reply_to, &refusal.with_headers(&request.headers));
            }
        }
    }

    fn refuse_authorization(&mut self, parts: &mut Parts<'_>, id: PendingId, refusal: &Refusal) {
        let PendingAuthorization { reply_to, request, .. } = self.authorizations.remove(id);
        self.refuse(parts, reply_to, &refusal.clone().with_headers(&request.headers));
    }
}

impl Authorizations {
    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Memory of them, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn has_room(&self, app: AppSerial, bytes: usize) -> bool {
        let own = self.of_apps.get(&app).copied().unwrap_or(0);
        let free = limits::AUTHORIZER_CALLS_PER_SHARD_MAX.saturating_sub(self.pending.len());
        own < free * limits::APP_SHARE_OF_FREE && self.bytes + bytes <= limits::AUTHORIZER_BYTES_PER_SHARD_MAX
    }

    fn insert(&mut self, app: AppSerial, pending: PendingAuthorization) -> PendingId {
        self.bytes += pending.bytes;
        *self.of_apps.entry(app).or_default() += 1;
        self.pending.insert(pending)
    }

    fn remove(&mut self, id: PendingId) -> PendingAuthorization {
        let pending = self.pending.remove(id).expect("each request ends once");
        self.bytes -= pending.bytes;
        let app = pending.request.app;
        let own = self.of_apps.get_mut(&app).expect("it was counted");
        *own -= 1;
        if *own == 0 {
            self.of_apps.remove(&app);
        }
        pending
    }
}

impl AuthorizerRequest {
    /// Memory while it waits, in bytes, with that of the request to the authorizer.
    fn bytes(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| size_of::<Entry>() + 2 * entry.subject.bytes()).sum();
        let forwarded: usize =
            self.forwarded.iter().map(|(_, value)| size_of::<(&str, Box<str>)>() + value.len()).sum();
        size_of::<PendingAuthorization>() + entries + forwarded + self.headers.len()
    }
}

fn ask_socket(parts: &mut Parts<'_>, request: PendingId, socket: Option<ConnectionRef>, app: AppSerial, channels: u32) {
    let Some(ConnectionRef { shard, connection }) = socket else {
        // The time in the id of a stream was checked.
        let verdict = SocketVerdict::Open;
        return parts.context.send(parts.context.config.index, HttpMessage::SocketJudged { request, verdict });
    };
    parts.context.send(shard, HttpMessage::JudgeSocket { request, socket: connection, app, channels });
}

/// The answer to one subject, with the app as it is now.
fn sign_decided(
    parts: &Parts<'_>,
    request: &AuthorizerRequest,
    subject: &Subject,
    decision: Decision,
) -> Result<String, Refusal> {
    let data = match decision {
        Decision::Granted(data) => data,
        Decision::Refused => return Err(Refusal::forbidden("The authorizer of this app refuses this.")),
        // One text for every cause: the caller learns nothing about the network of the backend (threat T38).
        Decision::Failed => return Err(Refusal::bad_gateway("The authorizer of this app gave no valid answer.")),
        Decision::Busy(seconds) => return Err(busy(seconds)),
    };
    let app = parts.context.directory.app(request.app).filter(|app| app.enabled);
    let app = app.ok_or_else(|| Refusal::forbidden("This app is disabled."))?;
    let pair = app.keys.first().ok_or_else(|| Refusal::forbidden("This app has no active key."))?;
    let names = parts.context.config.options.channel_names;
    match subject {
        Subject::User => answer_user(app, pair, request.socket_id, names, data.as_deref().unwrap_or_default()),
        Subject::Channel(name) => {
            answer_channel(app, pair, request.socket_id, check_protected(name, names)?, data.as_deref())
        }
    }
}

fn answer(parts: &mut Parts<'_>, reply_to: ResponseSlot, headers: &str, body: &str) {
    let response = Response { status: 200, content_type: JSON, extra: headers, body: body.as_bytes() };
    parts.connections.finish_request(parts.context, reply_to.connection, reply_to.ticket, &response);
}

fn not_open() -> Refusal {
    Refusal::forbidden("The field socket_id must be the id of a socket that is open on this app.")
}

fn busy(retry_after_s: u32) -> Refusal {
    Refusal::unavailable("The authorizer of this app has too many requests: try again.", retry_after_s)
}
