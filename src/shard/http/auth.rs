//! The auth endpoints: who may call them, and requests that a credential of the app decides (R-AUTHEP rules).

use super::authorizer::{AuthorizerRequest, Entry};
use super::command::Command;
use super::{Parts, Requests};
use crate::api::auth::{
    Asked, AuthKind, Judge, answer_channel, answer_user, check_protected, decode_auth, finish_list, push_entry,
};
use crate::api::authorizer::{MARKER, Subject, forwarded_headers};
use crate::api::cors::{Cookies, PRIVATE_ANSWER, STREAM_ANSWER, answer_headers, preflight_headers};
use crate::api::refusal::Refusal;
use crate::api::route::{Endpoint, Shared};
use crate::app::{App, AppKey, AppSettings};
use crate::auth::request::{Accepted, Caller, Credential, Known, has_credential};
use crate::channel::name::NameRules;
use crate::index::Slot;
use crate::limits;
use crate::protocol::dialect::Dialect;
use crate::shard::connections::{JSON, Response};
use crate::wire::http::Request;
use crate::wire::query::Query;

impl Requests {
    /// The caller of an endpoint: a credential, or at an auth endpoint the app's authorizer (R-AUTHEP-2).
    pub(super) fn identify(
        &self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        app_id: Option<&str>,
        endpoint: &Endpoint<'_>,
        known: Known,
    ) -> Result<Caller, Refusal> {
        if let (Endpoint::Auth(kind), Some(app_id)) = (endpoint, app_id) {
            if request.headers.first(MARKER).is_some() {
                return Err(Refusal::auth_loop());
            }
            let app = parts.context.directory.app_by_id(app_id).filter(|app| app.enabled);
            if let Some(app) = app.filter(|app| has_authorizer(app, *kind) && !has_credential(request)) {
                return Ok(Caller { app: app.serial, credential: Credential::Authorizer });
            }
        }
        let accepted = match endpoint.shared() {
            Some(Shared::Stream) => Accepted::OfQueryToo,
            Some(Shared::Auth(_)) | None => Accepted::Usual,
        };
        self.verify_caller(parts, slot, request, app_id, (known, accepted))
    }

    /// The header lines of an answer of an endpoint, none but where pages of other origins may call it.
    ///
    /// # Errors
    /// The lines of the refusal, and 403: the page may not use the app.
    pub(super) fn headers_of(
        &self,
        parts: &Parts<'_>,
        request: &Request<'_>,
        app_id: Option<&str>,
        shared: Option<Shared>,
    ) -> Result<String, (String, Refusal)> {
        let Some(shared) = shared else { return Ok(String::new()) };
        let app = app_id.and_then(|id| parts.context.directory.app_by_id(id));
        let Some(app) = app else { return Ok(PRIVATE_ANSWER.to_owned()) };
        let cookies = match shared {
            Shared::Auth(kind) if has_authorizer(app, kind) => Cookies::Used,
            Shared::Auth(_) | Shared::Stream => Cookies::Unused,
        };
        let origin = request.headers.only("Origin");
        let headers = origin.map_err(|_| Refusal::bad_request("The header Origin must be present once."));
        headers
            .and_then(|origin| answer_headers(&app.settings, origin, cookies))
            .map(|lines| if shared == Shared::Stream { lines + STREAM_ANSWER } else { lines })
            .map_err(|refusal| (PRIVATE_ANSWER.to_owned(), refusal))
    }

    /// The id of the app that the query's `key` names, if the app has an authorizer (R-AUTHEP-7).
    pub(super) fn app_of_key(&self, parts: &Parts<'_>, request: &Request<'_>, kind: AuthKind) -> Option<Box<str>> {
        let key = Query::new(request.query).value("key").ok().flatten()?;
        let app = parts.context.directory.app_by_key(&key)?;
        has_authorizer(app, kind).then(|| app.id.clone())
    }

    /// Serves a call of an auth endpoint whose path names no app (R-AUTHEP-7).
    pub(super) fn call_of_key(&mut self, parts: &mut Parts<'_>, slot: Slot, request: &Request<'_>, kind: AuthKind) {
        match self.app_of_key(parts, request, kind) {
            Some(id) => self.call(parts, slot, request, Dialect::Relay, Some(&id), Endpoint::Auth(kind)),
            None => self.answer_not_found(parts, slot, request, Dialect::Relay),
        }
    }

    /// Serves a call of a stream endpoint whose path names the app by its key (R-SSE-11).
    pub(super) fn call_stream_of_key(
        &mut self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        key: &str,
        endpoint: Endpoint<'_>,
    ) {
        let id = parts.context.directory.app_by_key(key).map(|app| app.id.clone());
        match id {
            Some(id) => self.call(parts, slot, request, Dialect::Relay, Some(&id), endpoint),
            None => self.answer_not_found(parts, slot, request, Dialect::Relay),
        }
    }

    /// Answers a preflight (R-AUTHEP-5), of the app of the path or else of the query's `key`.
    pub(super) fn answer_preflight(
        &self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        app_id: Option<&str>,
        shared: Shared,
    ) {
        let of_key = match shared {
            Shared::Auth(kind) if app_id.is_none() => self.app_of_key(parts, request, kind),
            Shared::Auth(_) | Shared::Stream => None,
        };
        let Some(app_id) = app_id.or(of_key.as_deref()) else {
            return self.answer_not_found(parts, slot, request, Dialect::Relay);
        };
        let (lines, refusal) = match self.headers_of(parts, request, Some(app_id), Some(shared)) {
            Ok(lines) => (lines, None),
            Err((lines, refusal)) => (lines, Some(refusal)),
        };
        if let Some(refusal) = refusal {
            let refusal = refusal.with_headers(&lines);
            return parts.connections.answer_refusal(parts.context, slot, request, Dialect::Relay, &refusal);
        }
        let extra = lines + &preflight_headers(shared, request.headers.first("Access-Control-Request-Headers"));
        let response = Response { status: 204, content_type: JSON, extra: &extra, body: b"" };
        parts.connections.answer(parts.context, slot, request, &response);
    }

    /// Parses a request to an auth endpoint. One with a credential is decided here.
    pub(super) fn prepare_auth(
        &self,
        parts: &Parts<'_>,
        app: &App,
        caller: &Caller,
        request: &Request<'_>,
        kind: AuthKind,
        headers: &str,
    ) -> Result<Command, Refusal> {
        let judge = match caller.credential {
            Credential::Authorizer => Judge::Authorizer,
            Credential::Signature(_)
            | Credential::KeyAndSecret(_)
            | Credential::Token(..)
            | Credential::PublicKey(_) => Judge::Credential,
        };
        let names = parts.context.config.options.channel_names;
        let asked = decode_auth(request, kind, judge)?;
        let headers: Box<str> = headers.into();
        if judge == Judge::Credential {
            let pair = pair_of(app, &caller.credential)?;
            let body = answer_asked(app, pair, names, asked.socket_id, &asked.asked)?;
            return Ok(Command::Signed(body.into_bytes(), headers));
        }
        let (entries, is_list) = match asked.asked {
            Asked::User(_) => (vec![Entry::asked(Subject::User)], false),
            Asked::Channel(name, _) => {
                check_protected(&name, names)?;
                (vec![Entry::asked(Subject::Channel((*name).into()))], false)
            }
            Asked::Channels(list) => {
                let entry = |name: &str| Entry {
                    subject: Subject::Channel(name.into()),
                    refusal: check_protected(name, names).err(),
                };
                (list.iter().map(|name| entry(name)).collect(), true)
            }
        };
        Ok(Command::AskAuthorizer(Box::new(AuthorizerRequest {
            app: app.serial,
            socket_id: asked.socket_id,
            entries,
            is_list,
            forwarded: forwarded_headers(&request.headers, &app.settings),
            headers,
        })))
    }

    /// Longest body of a request to an auth endpoint: without a credential it is a list of channels.
    pub(super) fn auth_body_bytes_max(request: &Request<'_>, settings: &AppSettings) -> usize {
        if has_credential(request) { settings.body_bytes_max() } else { limits::AUTH_BODY_BYTES_MAX }
    }
}

fn has_authorizer(app: &App, kind: AuthKind) -> bool {
    let url = match kind {
        AuthKind::Channel => &app.settings.authorizer_url,
        AuthKind::User => &app.settings.user_authorizer_url,
    };
    !url.is_empty()
}

/// The caller's key pair, or else the app's oldest (R-AUTHEP-1).
fn pair_of<'a>(app: &'a App, credential: &Credential) -> Result<&'a AppKey, Refusal> {
    let index = match credential {
        Credential::Signature(index) | Credential::KeyAndSecret(index) => *index,
        Credential::Token(..) | Credential::Authorizer | Credential::PublicKey(_) => 0,
    };
    app.keys.get(index).ok_or_else(|| Refusal::forbidden("This app has no active key."))
}

/// The body of the answer to a request with a credential.
fn answer_asked(
    app: &App,
    pair: &AppKey,
    names: NameRules,
    socket_id: crate::protocol::socket_id::SocketId,
    asked: &Asked<'_>,
) -> Result<String, Refusal> {
    match asked {
        Asked::Channel(name, data) => {
            answer_channel(app, pair, socket_id, check_protected(name, names)?, data.as_deref())
        }
        Asked::User(data) => answer_user(app, pair, socket_id, names, data.as_deref().unwrap_or_default()),
        Asked::Channels(list) => {
            let mut body = String::new();
            for name in list {
                let answer = check_protected(name, names)
                    .and_then(|channel| answer_channel(app, pair, socket_id, channel, None));
                push_entry(&mut body, name, &answer);
            }
            finish_list(&mut body);
            Ok(body)
        }
    }
}
