//! Checks of requests by their head: a caller that the head of a request does not authenticate gets no memory for its
//! body (threat T14).

use super::{Parts, Requests};
use crate::api::route::{Endpoint, Route, route};
use crate::auth::request::{Caller, Credential, Known};
use crate::connection::http::Refused;
use crate::index::Slot;
use crate::limits;
use crate::protocol::dialect::Dialect;
use crate::shard::connections::{After, encode_refusal, extra_request_ms};
use crate::wire::http::{Framing, HttpError, Request, RequestDecoder, RequestLimits};

/// What follows a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::shard) enum Judged {
    /// The body may follow.
    Awaited,
    /// The request was answered, as the last of the connection.
    Answered,
}

/// The handling of the body that follows a head.
enum BodyUse {
    /// It is kept as it arrives.
    Kept,
    /// It is dropped as it arrives.
    Dropped,
    /// It is not read: the request was answered.
    Unread,
}

impl Requests {
    /// Checks a request whose head is complete before its body: a body that is not needed is dropped as it arrives. The
    /// refusal follows when the request is complete, so that the connection can be kept open; a client that waits for
    /// `100 Continue` gets it at once. A body that its app does not allow is refused by its declared length.
    pub(in crate::shard) fn judge_head(
        &self,
        parts: &mut Parts<'_>,
        slot: Slot,
        decoder: &mut RequestDecoder,
        limits: &RequestLimits,
        expects_continue: bool,
    ) -> Judged {
        let Some(request) = decoder.take_head(limits) else { return Judged::Awaited };
        let body_bytes_max = self.body_bytes_max(parts, slot, &request);
        if matches!(request.framing, Framing::Length(length) if length > body_bytes_max) {
            parts.connections.answer_framing_error(parts.context, slot, HttpError::BodyTooLarge(body_bytes_max));
            return Judged::Answered;
        }
        let body = self.judge_request(parts, slot, &request, expects_continue);
        decoder.limit_body(body_bytes_max);
        match body {
            BodyUse::Kept => {
                let extra_ms = extra_request_ms(decoder);
                let http = parts.connections.http(slot);
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

    fn judge_request(
        &self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        expects_continue: bool,
    ) -> BodyUse {
        let route = route(request.method, request.path, &parts.context.config.options.path_prefix);
        let on_metrics_port = parts.connections.http(slot).metrics;
        if request.asks_for_websocket && !on_metrics_port {
            let key = if let Route::WebSocket { key } = &route { Some(&**key) } else { None };
            let after = parts.connections.handle_upgrade(parts.context, slot, key, request);
            assert!(after == After::Next, "an upgrade with a body is refused");
            return BodyUse::Unread;
        }
        let (of_key, auth);
        let (dialect, app_id, endpoint) = match &route {
            Route::Api { dialect, app_id, endpoint } if !on_metrics_port => (*dialect, Some(*app_id), endpoint),
            Route::ApiOfKey { endpoint } if !on_metrics_port => (Dialect::Pusher, None, endpoint),
            Route::AuthOfKey(kind) if !on_metrics_port => {
                of_key = self.app_of_key(parts, request, *kind);
                auth = Endpoint::Auth(*kind);
                match &of_key {
                    Some(id) => (Dialect::Relay, Some(&**id), &auth),
                    None => return BodyUse::Dropped,
                }
            }
            // No other route reads a body.
            Route::Up
            | Route::UpApp(_)
            | Route::Ready
            | Route::AcceptTraffic
            | Route::Document
            | Route::Script(_)
            | Route::Operator(_)
            | Route::WebSocket { .. }
            | Route::StreamOfKey { .. }
            | Route::Api { .. }
            | Route::ApiOfKey { .. }
            | Route::AuthOfKey(_)
            | Route::Preflight(..)
            | Route::MethodNotAllowed(..)
            | Route::Fallback { .. }
            | Route::NotFound(_) => return BodyUse::Dropped,
        };
        let (headers, origin) = match self.headers_of(parts, request, app_id, endpoint.shared()) {
            Ok(headers) => (headers, Ok(())),
            Err((headers, refusal)) => (headers, Err(refusal)),
        };
        let identified = origin.and_then(|()| self.identify(parts, slot, request, app_id, endpoint, Known::Head));
        let refusal = match identified {
            // A caller without a credential is a stranger, whose body counts as those of other strangers do.
            Ok(Caller { credential: Credential::Authorizer, .. }) => return BodyUse::Kept,
            Ok(caller) => {
                parts.connections.http(slot).caller = Some(caller.app);
                return BodyUse::Kept;
            }
            Err(refusal) if headers.is_empty() => refusal,
            Err(refusal) => refusal.with_headers(&headers),
        };
        let client = parts.connections.client_address(parts.context, slot, request);
        parts.context.note_request_refused(client, app_id.unwrap_or_default(), endpoint.scope(), refusal.status);
        let keep_alive = !expects_continue && parts.connections.keeps_alive(parts.context, request);
        let answer = encode_refusal(parts.context, request, dialect, &refusal, keep_alive);
        if expects_continue {
            parts.connections.answer_last(parts.context, slot, answer);
            return BodyUse::Unread;
        }
        parts.connections.http(slot).refused = Some(Refused { answer, keep_alive });
        BodyUse::Dropped
    }

    /// Maximum length of the body of a request: it follows the settings of its app (P-LIM-11).
    fn body_bytes_max(&self, parts: &mut Parts<'_>, slot: Slot, request: &Request<'_>) -> usize {
        let on_metrics_port = parts.connections.http(slot).metrics;
        let route = route(request.method, request.path, &parts.context.config.options.path_prefix);
        if let Route::AuthOfKey(_) = route {
            return limits::AUTH_BODY_BYTES_MAX;
        }
        let Route::Api { app_id, endpoint, .. } = route else { return limits::HTTP_BODY_BYTES_MAX };
        let app = Some(app_id).filter(|_| !on_metrics_port).and_then(|id| parts.context.directory.app_by_id(id));
        match (app, endpoint) {
            (None, _) => limits::HTTP_BODY_BYTES_MAX,
            (Some(app), Endpoint::Auth(_)) => Self::auth_body_bytes_max(request, &app.settings),
            (Some(app), _) => app.settings.body_bytes_max(),
        }
    }
}
