//! Maps method and path to a route, under `/apps/{id}` and `/api/v1/apps/{id}`, with and without the configured prefix
//! (P-CONN-2, R-BASE-1).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::auth::AuthKind;
use super::script::Script;
use crate::app::Scope;
use crate::limits::ENDPOINT_PATH_BYTES_MAX;
use crate::protocol::dialect::Dialect;
use crate::wire::http::without_prefix;

/// The route that a method and path select.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route<'a> {
    /// `GET|HEAD|OPTIONS /`, `/up`, `/health`, `/healthz`, and `OPTIONS *`.
    Up,
    /// `GET|HEAD|OPTIONS /up/{appId}`.
    UpApp(&'a str),
    /// `GET|HEAD|OPTIONS /ready`, `/readyz`.
    Ready,
    /// `GET|HEAD|OPTIONS /accept-traffic`.
    AcceptTraffic,
    /// `GET|HEAD /relay.js`, `/relay-resume.js` (R-CLIENT-3).
    Script(Script),
    /// `GET /openapi.json`: the document of the app API (R-ADMIN-20).
    Document,
    /// A page that only the metrics port serves (threat T30).
    Operator(OperatorPage),
    /// `/app/{key}`, with or without an upgrade: a plain GET is answered 426.
    WebSocket {
        /// The app key, percent-decoded.
        key: Cow<'a, str>,
    },
    /// `/app/{key}/sse`, `/app/{key}/poll` and `/app/{key}/time`: the app is that of the key (R-SSE-11).
    StreamOfKey {
        /// The app key, percent-decoded.
        key: Cow<'a, str>,
        /// Which endpoint.
        endpoint: Endpoint<'a>,
    },
    /// A route of the HTTP API.
    Api {
        /// The format of errors.
        dialect: Dialect,
        /// The app id of the path.
        app_id: &'a str,
        /// Which endpoint.
        endpoint: Endpoint<'a>,
    },
    /// A route of the HTTP API without an app in its path: the app is that of `auth_key` (P-HTTP-10).
    ApiOfKey {
        /// Which endpoint.
        endpoint: Endpoint<'a>,
    },
    /// `POST /broadcasting/auth`, `/pusher/auth` and their `/user-auth`: the app is that of the query's `key`, if it has
    /// an authorizer (R-AUTHEP-7).
    AuthOfKey(AuthKind),
    /// A preflight of an endpoint that pages of other origins may call (R-AUTHEP-5), of the app with this id or, without
    /// one, of the query's `key`.
    Preflight(Option<&'a str>, Shared),
    /// A known path with an unsupported method: 405 with `Allow`.
    MethodNotAllowed(Dialect, &'static str),
    /// Fallback transports and statistics, which are answered 404 at once, with CORS (P-FALL-1); true for OPTIONS
    /// (204).
    Fallback {
        /// OPTIONS is answered 204.
        preflight: bool,
    },
    /// No such route: 404.
    NotFound(Dialect),
}

/// Endpoints that pages of other origins may call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shared {
    /// An auth endpoint.
    Auth(AuthKind),
    /// A stream or poll (R-SSE-6).
    Stream,
}

/// Pages of the metrics port; each accepts GET.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OperatorPage {
    /// `/metrics`.
    Metrics,
    /// `/stats`.
    Stats,
    /// `/usage`.
    Usage,
}

/// Endpoints of the HTTP API, with the channel or user in the path, percent-decoded and not yet checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint<'a> {
    /// `POST /events` (P-HTTP-1).
    Events,
    /// `POST /batch_events` (P-HTTP-2).
    BatchEvents,
    /// `POST /replay` (R-REPLAY-1).
    Replay,
    /// `GET /channels` (P-HTTP-3).
    Channels,
    /// `GET /channels/{c}` (P-HTTP-4).
    Channel(Cow<'a, str>),
    /// `GET /channels/{c}/users` (P-HTTP-5).
    ChannelUsers(Cow<'a, str>),
    /// `GET /channels/{c}/history` (R-HIST-5).
    ChannelHistory(Cow<'a, str>),
    /// `POST /channels/{c}/events` (P-HTTP-7).
    ChannelEvents(Cow<'a, str>),
    /// `GET /channels/{c}/stats` (P-HTTP-8).
    ChannelStats(Cow<'a, str>),
    /// `GET /connections` (P-HTTP-9).
    Connections,
    /// `POST /users/{uid}/terminate_connections` (P-HTTP-6, P-HTTP-10).
    TerminateConnections(Cow<'a, str>),
    /// `GET, POST /webhooks` (R-HOOK-8).
    Webhooks,
    /// `DELETE /webhooks/{id}` (R-HOOK-8).
    Webhook(Cow<'a, str>),
    /// `POST /webhooks/verify` (R-HOOK-7).
    VerifyWebhook,
    /// `GET, POST /tokens` (R-TOKEN-10).
    Tokens,
    /// `DELETE /tokens/{id}` (R-TOKEN-10).
    Token(Cow<'a, str>),
    /// `POST /auth`, `POST /user-auth` (R-AUTHEP-1, R-AUTHEP-9).
    Auth(AuthKind),
    /// `POST, DELETE /encryption-key` (R-AUTHEP-6).
    EncryptionKey,
    /// `GET /arrival` (R-DIAG-1).
    Arrival,
    /// `GET /sse` (R-SSE-1).
    Sse,
    /// `GET /poll` (R-POLL-1).
    Poll,
    /// `GET /time` (R-SSE-11).
    Time,
}

impl<'a> Endpoint<'a> {
    /// The path of every endpoint, for the OpenAPI document.
    pub(super) const PATHS: &'static [&'static str] = &[
        "/apps/{app}/events",
        "/apps/{app}/batch_events",
        "/apps/{app}/replay",
        "/apps/{app}/channels",
        "/apps/{app}/channels/{channel}",
        "/apps/{app}/channels/{channel}/users",
        "/apps/{app}/channels/{channel}/history",
        "/apps/{app}/channels/{channel}/events",
        "/apps/{app}/channels/{channel}/stats",
        "/apps/{app}/connections",
        "/apps/{app}/arrival",
        "/apps/{app}/users/{user}/terminate_connections",
        "/apps/{app}/webhooks",
        "/apps/{app}/webhooks/{webhook}",
        "/apps/{app}/webhooks/verify",
        "/apps/{app}/tokens",
        "/apps/{app}/tokens/{token}",
        "/apps/{app}/auth",
        "/apps/{app}/user-auth",
        "/apps/{app}/encryption-key",
        "/apps/{app}/sse",
        "/apps/{app}/poll",
        "/apps/{app}/time",
    ];

    /// The endpoint that the path after the app id names. Any segment may be percent-encoded (P-SIGN-5).
    pub(super) fn of_path(path: &'a str) -> Option<Self> {
        if path.len() > ENDPOINT_PATH_BYTES_MAX {
            return None;
        }
        let mut segments = path.split('/');
        let name = decode_segment(segments.next()?)?;
        let subject = segments.next().map(decode_segment);
        let part = segments.next().map(decode_segment);
        if segments.next().is_some() {
            return None;
        }
        match (&*name, subject, part) {
            ("events", None, None) => Some(Self::Events),
            ("batch_events", None, None) => Some(Self::BatchEvents),
            ("replay", None, None) => Some(Self::Replay),
            ("channels", None, None) => Some(Self::Channels),
            ("connections", None, None) => Some(Self::Connections),
            ("auth", None, None) => Some(Self::Auth(AuthKind::Channel)),
            ("user-auth", None, None) => Some(Self::Auth(AuthKind::User)),
            ("encryption-key", None, None) => Some(Self::EncryptionKey),
            ("arrival", None, None) => Some(Self::Arrival),
            ("sse", None, None) => Some(Self::Sse),
            ("poll", None, None) => Some(Self::Poll),
            ("time", None, None) => Some(Self::Time),
            ("webhooks", None, None) => Some(Self::Webhooks),
            ("webhooks", Some(id), None) => match id? {
                id if id == "verify" => Some(Self::VerifyWebhook),
                id if id.is_empty() => None,
                id => Some(Self::Webhook(id)),
            },
            ("tokens", None, None) => Some(Self::Tokens),
            ("tokens", Some(id), None) => id.filter(|id| !id.is_empty()).map(Self::Token),
            ("channels", Some(channel), part) => {
                let channel = channel.filter(|channel| !channel.is_empty())?;
                match part {
                    None => Some(Self::Channel(channel)),
                    Some(part) => match &*part? {
                        "users" => Some(Self::ChannelUsers(channel)),
                        "history" => Some(Self::ChannelHistory(channel)),
                        "events" => Some(Self::ChannelEvents(channel)),
                        "stats" => Some(Self::ChannelStats(channel)),
                        _ => None,
                    },
                }
            }
            ("users", Some(user_id), Some(part)) => {
                let user_id = user_id.filter(|user_id| !user_id.is_empty())?;
                (&*part? == "terminate_connections").then_some(Self::TerminateConnections(user_id))
            }
            _ => None,
        }
    }

    /// How pages of other origins may call it, if they may.
    pub fn shared(&self) -> Option<Shared> {
        if let Self::Auth(kind) = self {
            return Some(Shared::Auth(*kind));
        }
        matches!(self, Self::Sse | Self::Poll | Self::Time).then_some(Shared::Stream)
    }

    /// Its methods, in the format of `Allow`.
    pub fn methods(&self) -> &'static str {
        match self {
            Self::Events
            | Self::BatchEvents
            | Self::Replay
            | Self::ChannelEvents(_)
            | Self::TerminateConnections(_)
            | Self::VerifyWebhook
            | Self::Auth(_) => "POST",
            Self::EncryptionKey => "POST, DELETE",
            Self::Webhooks | Self::Tokens => "GET, POST",
            Self::Webhook(_) | Self::Token(_) => "DELETE",
            Self::Channels
            | Self::Channel(_)
            | Self::ChannelUsers(_)
            | Self::ChannelHistory(_)
            | Self::ChannelStats(_)
            | Self::Connections
            | Self::Arrival
            | Self::Sse
            | Self::Poll
            | Self::Time => "GET",
        }
    }

    /// True for one of its methods.
    pub fn takes(&self, method: &str) -> bool {
        let methods = self.methods();
        methods == method || methods.split(", ").any(|taken| taken == method)
    }

    /// The scope that a token needs for it (R-TOKEN-6); `None` if no token may use it.
    pub fn scope(&self) -> Option<Scope> {
        Some(match self {
            Self::Events | Self::ChannelEvents(_) | Self::Replay => Scope::EventsPublish,
            Self::BatchEvents => Scope::EventsBatch,
            Self::Channels | Self::Channel(_) | Self::ChannelHistory(_) | Self::ChannelStats(_) => Scope::ChannelsRead,
            Self::ChannelUsers(_) => Scope::PresenceRead,
            Self::Connections => Scope::ConnectionsRead,
            Self::TerminateConnections(_) => Scope::ConnectionsManage,
            Self::Webhooks | Self::Webhook(_) | Self::VerifyWebhook => Scope::WebhooksManage,
            Self::Auth(_) => Scope::ChannelsAuth,
            Self::Sse | Self::Poll | Self::Time => Scope::ChannelsSubscribe,
            Self::EncryptionKey => Scope::EncryptionManage,
            Self::Tokens | Self::Token(_) | Self::Arrival => return None,
        })
    }
}

impl Endpoint<'_> {
    /// A further scope that a token needs for it: a replay also reads (R-REPLAY-2).
    pub fn further_scope(&self) -> Option<Scope> {
        matches!(self, Self::Replay).then_some(Scope::ChannelsRead)
    }
}

/// Finds the route. `path` is the path as requested; `prefix` is the configured one or `""`.
///
/// A path is matched as it is first, so that configuring a prefix removes no route, and then without its prefix. A
/// trailing slash makes it another path, as in the hosted service.
pub fn route<'a>(method: &str, path: &'a str, prefix: &str) -> Route<'a> {
    match (route_unprefixed(method, path), without_prefix(path, prefix)) {
        (Route::NotFound(_), Some(rest)) => route_unprefixed(method, rest),
        (found, _) => found,
    }
}

fn route_unprefixed<'a>(method: &str, path: &'a str) -> Route<'a> {
    if let Some(rest) = path.strip_prefix("/app/") {
        return route_websocket(method, rest);
    }
    if let Some(rest) = path.strip_prefix("/apps/") {
        return route_api(method, rest, Dialect::Pusher);
    }
    if let Some(rest) = path.strip_prefix("/api/v1/apps/") {
        return route_api(method, rest, Dialect::Relay);
    }
    if path.starts_with("/users/") {
        return route_of_key(method, path);
    }
    if let Some(kind) = auth_of_key(path) {
        return match method {
            "POST" => Route::AuthOfKey(kind),
            "OPTIONS" => Route::Preflight(None, Shared::Auth(kind)),
            _ => Route::NotFound(Dialect::Relay),
        };
    }
    if path.starts_with("/pusher/app/") || path.starts_with("/timeline/") {
        return Route::Fallback { preflight: method == "OPTIONS" };
    }
    if let Some(script) = Script::of_path(path) {
        return match method {
            "GET" | "HEAD" => Route::Script(script),
            _ => Route::MethodNotAllowed(Dialect::Pusher, "GET, HEAD"),
        };
    }
    match path {
        // Only for `OPTIONS` (RFC 9110 section 7.1).
        "*" => Route::Up,
        "/" | "/up" | "/health" | "/healthz" => probe(method, Route::Up),
        "/ready" | "/readyz" => probe(method, Route::Ready),
        "/accept-traffic" => probe(method, Route::AcceptTraffic),
        "/openapi.json" => get_only(method, Route::Document),
        "/metrics" => get_only(method, Route::Operator(OperatorPage::Metrics)),
        "/stats" => get_only(method, Route::Operator(OperatorPage::Stats)),
        "/usage" => get_only(method, Route::Operator(OperatorPage::Usage)),
        _ => match path.strip_prefix("/up/") {
            Some(app_id) if is_one_segment(app_id) => probe(method, Route::UpApp(app_id)),
            Some(_) | None => Route::NotFound(dialect_of(path)),
        },
    }
}

/// A segment of a path, percent-decoded; `None` when an escape is invalid or the result is not UTF-8.
fn decode_segment(segment: &str) -> Option<Cow<'_, str>> {
    let is_escape = |after: &str| {
        after.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let whole = segment.split('%').skip(1).all(is_escape);
    whole.then(|| percent_decode_str(segment).decode_utf8().ok()).flatten()
}

fn route_websocket<'a>(method: &str, key: &'a str) -> Route<'a> {
    if let Some((key, path)) = key.split_once('/') {
        return route_stream_of_key(method, key, path);
    }
    if !is_one_segment(key) {
        return Route::NotFound(Dialect::Pusher);
    }
    // HEAD is not GET here: nothing but GET ever upgrades (RFC 6455 section 4.2.1).
    if method != "GET" {
        return Route::MethodNotAllowed(Dialect::Pusher, "GET");
    }
    match Some(key).filter(|key| key.len() <= ENDPOINT_PATH_BYTES_MAX).and_then(decode_segment) {
        Some(key) => Route::WebSocket { key },
        None => Route::NotFound(Dialect::Pusher),
    }
}

/// The routes of R-SSE-11.
fn route_stream_of_key<'a>(method: &str, key: &'a str, path: &'a str) -> Route<'a> {
    let key = Some(key).filter(|key| (1..=ENDPOINT_PATH_BYTES_MAX).contains(&key.len())).and_then(decode_segment);
    let endpoint = Endpoint::of_path(path).filter(|endpoint| endpoint.shared() == Some(Shared::Stream));
    match (key, endpoint) {
        (Some(key), Some(endpoint)) if endpoint.takes(method) => Route::StreamOfKey { key, endpoint },
        (Some(_), Some(endpoint)) => Route::MethodNotAllowed(Dialect::Relay, endpoint.methods()),
        _ => Route::NotFound(Dialect::Pusher),
    }
}

fn route_api<'a>(method: &str, rest: &'a str, dialect: Dialect) -> Route<'a> {
    let found = rest
        .split_once('/')
        .filter(|(app_id, _)| !app_id.is_empty())
        .and_then(|(app_id, path)| Some((app_id, Endpoint::of_path(path)?)));
    match found {
        // A JSON body says why a client is refused, under both bases (R-AUTHEP-4).
        Some((app_id, endpoint @ Endpoint::Auth(_))) if endpoint.takes(method) => {
            Route::Api { dialect: Dialect::Relay, app_id, endpoint }
        }
        Some((app_id, endpoint)) if endpoint.takes(method) => Route::Api { dialect, app_id, endpoint },
        Some((app_id, endpoint))
            if method == "OPTIONS"
                && let Some(shared) = endpoint.shared() =>
        {
            Route::Preflight(Some(app_id), shared)
        }
        Some((_, endpoint)) => Route::MethodNotAllowed(dialect, endpoint.methods()),
        None => Route::NotFound(dialect),
    }
}

/// The paths at which clients expect an auth endpoint without further configuration.
fn auth_of_key(path: &str) -> Option<AuthKind> {
    match path {
        "/broadcasting/auth" | "/pusher/auth" => Some(AuthKind::Channel),
        "/broadcasting/user-auth" | "/pusher/user-auth" => Some(AuthKind::User),
        _ => None,
    }
}

/// Requests that the Python SDK sends without `/apps/{id}` in front.
fn route_of_key<'a>(method: &str, path: &'a str) -> Route<'a> {
    match Endpoint::of_path(path.trim_start_matches('/')) {
        Some(endpoint) if endpoint.takes(method) => Route::ApiOfKey { endpoint },
        Some(endpoint) => Route::MethodNotAllowed(Dialect::Pusher, endpoint.methods()),
        None => Route::NotFound(Dialect::Pusher),
    }
}

/// Health is reported for every method that probes use: HAProxy's `option httpchk` sends OPTIONS by default.
fn probe<'a>(method: &str, route: Route<'a>) -> Route<'a> {
    match method {
        "GET" | "HEAD" | "OPTIONS" => route,
        _ => Route::MethodNotAllowed(Dialect::Pusher, "GET, HEAD, OPTIONS"),
    }
}

/// Pages that must be gathered first are served for GET only.
fn get_only<'a>(method: &str, route: Route<'a>) -> Route<'a> {
    if method == "GET" { route } else { Route::MethodNotAllowed(Dialect::Pusher, "GET") }
}

/// The error format for an unknown path: requests below `/api/` get JSON.
fn dialect_of(path: &str) -> Dialect {
    if path == "/api" || path.starts_with("/api/") { Dialect::Relay } else { Dialect::Pusher }
}

fn is_one_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn api<'a>(dialect: Dialect, app_id: &'a str, endpoint: Endpoint<'a>) -> Route<'a> {
        Route::Api { dialect, app_id, endpoint }
    }

    fn websocket(key: &str) -> Route<'_> {
        Route::WebSocket { key: key.into() }
    }

    /// R-BASE-1, P-HTTP-1, P-HTTP-2, P-CONN-2: both endpoints under both bases, with and without the prefix, including
    /// a prefix that looks like the beginning of a route.
    #[test]
    fn both_bases_with_and_without_the_prefix() {
        let rows = [
            ("/apps/3/events", Dialect::Pusher, Endpoint::Events),
            ("/apps/3/batch_events", Dialect::Pusher, Endpoint::BatchEvents),
            ("/api/v1/apps/3/events", Dialect::Relay, Endpoint::Events),
            ("/api/v1/apps/3/batch_events", Dialect::Relay, Endpoint::BatchEvents),
        ];
        for prefix in ["", "/pre", "/deep/pre", "/app", "/apps", "/api"] {
            for before in ["", prefix] {
                for (rest, dialect, endpoint) in rows.clone() {
                    let path = format!("{before}{rest}");
                    let found = route("POST", &path, prefix);
                    assert_eq!(found, api(dialect, "3", endpoint), "{path} with {prefix:?}");
                }
                let path = format!("{before}/app/some-key");
                assert_eq!(route("GET", &path, prefix), websocket("some-key"));
            }
        }
        // P-HTTP-10: the Python SDK omits the app, also after a prefix.
        let endpoint = Endpoint::TerminateConnections("7".into());
        for path in ["/users/7/terminate_connections", "/pre/users/7/terminate_connections"] {
            assert_eq!(route("POST", path, "/pre"), Route::ApiOfKey { endpoint: endpoint.clone() });
            assert_eq!(route("GET", path, "/pre"), Route::MethodNotAllowed(Dialect::Pusher, "POST"));
        }
        for path in ["/users/7", "/users/7/terminate", "/users//terminate_connections", "/users/"] {
            assert_eq!(route("POST", path, ""), Route::NotFound(Dialect::Pusher), "{path}");
        }
        assert_eq!(route("GET", "/pre/up", "/pre"), Route::Up);
        assert_eq!(route("POST", "/prefix/apps/3/events", "/pre"), Route::NotFound(Dialect::Pusher));
        assert_eq!(route("POST", "/pre/pre/apps/3/events", "/pre"), Route::NotFound(Dialect::Pusher));
        assert_eq!(route("POST", "/pre/apps/3/events", ""), Route::NotFound(Dialect::Pusher));
    }

    /// R-BASE-1, P-HTTP-3 to P-HTTP-9: the queries and the termination of a user's connections, each with its method,
    /// its scope (R-TOKEN-6) and the channel of its path.
    #[test]
    fn queries_name_their_channel() {
        let rows = [
            ("channels", Endpoint::Channels, "GET", Scope::ChannelsRead),
            ("channels/presence-a", Endpoint::Channel("presence-a".into()), "GET", Scope::ChannelsRead),
            ("channels/users", Endpoint::Channel("users".into()), "GET", Scope::ChannelsRead),
            ("channels/a%20b/users", Endpoint::ChannelUsers("a b".into()), "GET", Scope::PresenceRead),
            ("channels/a%2Fb/%75sers", Endpoint::ChannelUsers("a/b".into()), "GET", Scope::PresenceRead),
            ("channels/a/events", Endpoint::ChannelEvents("a".into()), "POST", Scope::EventsPublish),
            (
                "channels/%23server-to-user-1/stats",
                Endpoint::ChannelStats("#server-to-user-1".into()),
                "GET",
                Scope::ChannelsRead,
            ),
            ("connections", Endpoint::Connections, "GET", Scope::ConnectionsRead),
            (
                "users/a%2Fb/terminate_connections",
                Endpoint::TerminateConnections("a/b".into()),
                "POST",
                Scope::ConnectionsManage,
            ),
        ];
        for (rest, endpoint, method, scope) in rows {
            for (base, dialect) in [("/apps/3", Dialect::Pusher), ("/api/v1/apps/3", Dialect::Relay)] {
                let path = format!("{base}/{rest}");
                assert_eq!(endpoint.scope(), Some(scope), "{path}");
                assert_eq!(route(method, &path, ""), api(dialect, "3", endpoint.clone()), "{path}");
                let other = if method == "GET" { "POST" } else { "GET" };
                assert_eq!(route(other, &path, ""), Route::MethodNotAllowed(dialect, method), "{path}");
            }
        }
        // R-DIAG-1: with key and secret only.
        assert_eq!(Endpoint::Arrival.scope(), None);
        assert_eq!(route("GET", "/apps/3/arrival", ""), api(Dialect::Pusher, "3", Endpoint::Arrival));
        for rest in [
            "channels/",
            "channels//users",
            "channels/a/",
            "channels/a/members",
            "channels/a/users/",
            "channels/%ff",
            "connections/1",
            "users",
        ] {
            assert_eq!(route("GET", &format!("/apps/3/{rest}"), ""), Route::NotFound(Dialect::Pusher), "{rest}");
        }
    }

    /// R-SSE-11: streams, polls and the clock below a WebSocket's path, and nothing else there.
    #[test]
    fn streams_of_a_key() {
        for (rest, endpoint) in [("sse", Endpoint::Sse), ("poll", Endpoint::Poll), ("time", Endpoint::Time)] {
            for (path, key) in [("/app/some-key/", "some-key"), ("/pre/app/a%20b/", "a b")] {
                let path = format!("{path}{rest}");
                let found = Route::StreamOfKey { key: key.into(), endpoint: endpoint.clone() };
                assert_eq!(route("GET", &path, "/pre"), found, "{path}");
                assert_eq!(route("POST", &path, "/pre"), Route::MethodNotAllowed(Dialect::Relay, "GET"), "{path}");
            }
        }
        let long = format!("/app/{}/sse", "k".repeat(ENDPOINT_PATH_BYTES_MAX + 1));
        for path in ["/app//sse", "/app/a/sse/", "/app/a/events", "/app/a/auth", "/app/%ff/sse", "/app/a/b/sse", &long]
        {
            assert_eq!(route("GET", path, ""), Route::NotFound(Dialect::Pusher), "{path}");
        }
    }

    /// R-HOOK-7, R-HOOK-8, R-BASE-1: the endpoints of webhooks, with their methods and one scope.
    #[test]
    fn webhook_endpoints() {
        for (base, dialect) in [("/apps/3", Dialect::Pusher), ("/api/v1/apps/3", Dialect::Relay)] {
            for (method, rest, endpoint) in [
                ("GET", "webhooks", Endpoint::Webhooks),
                ("POST", "webhooks", Endpoint::Webhooks),
                ("DELETE", "webhooks/wh_1", Endpoint::Webhook("wh_1".into())),
                ("POST", "webhooks/verify", Endpoint::VerifyWebhook),
            ] {
                assert_eq!(endpoint.scope(), Some(Scope::WebhooksManage));
                assert_eq!(
                    route(method, &format!("{base}/{rest}"), ""),
                    api(dialect, "3", endpoint),
                    "{method} {rest}"
                );
            }
            for (method, rest, allow) in [
                ("PUT", "webhooks", "GET, POST"),
                ("GET", "webhooks/wh_1", "DELETE"),
                ("DELETE", "webhooks/verify", "POST"),
            ] {
                assert_eq!(route(method, &format!("{base}/{rest}"), ""), Route::MethodNotAllowed(dialect, allow));
            }
            for rest in ["webhooks/", "webhooks/wh_1/x"] {
                assert_eq!(route("DELETE", &format!("{base}/{rest}"), ""), Route::NotFound(dialect));
            }
        }
    }

    /// R-BASE-3: health and readiness for GET and HEAD; the answer to other methods lists the accepted ones.
    #[test]
    fn health_paths() {
        for method in ["GET", "HEAD"] {
            for path in ["/", "/up", "/health", "/healthz"] {
                assert_eq!(route(method, path, ""), Route::Up, "{path}");
            }
            for path in ["/ready", "/readyz"] {
                assert_eq!(route(method, path, ""), Route::Ready, "{path}");
            }
            assert_eq!(route(method, "/up/17", ""), Route::UpApp("17"));
        }
        for path in ["/", "/up", "/ready", "/up/17"] {
            assert_eq!(route("OPTIONS", path, ""), route("GET", path, ""), "{path}");
            assert_eq!(
                route("POST", path, ""),
                Route::MethodNotAllowed(Dialect::Pusher, "GET, HEAD, OPTIONS"),
                "{path}"
            );
        }
        for path in ["/up/", "/up/1/2", "/upper", "/ready/", "", "//", "/healthzz"] {
            assert_eq!(route("GET", path, ""), Route::NotFound(Dialect::Pusher), "{path}");
        }
    }

    /// P-CONN-1, P-CONN-8: the WebSocket path has one segment, percent-decoded, and accepts only GET.
    #[test]
    fn websocket_path() {
        assert_eq!(route("GET", "/app/app-key", ""), websocket("app-key"));
        assert_eq!(route("GET", "/app/a%20b%C3%A9", ""), websocket("a b\u{e9}"));
        assert_eq!(route("GET", "/app/a%2Fb", ""), websocket("a/b"));
        for path in
            ["/app", "/app/", "/app/a/b", "/app/a/", "/app/%ff", "/app/%4", "/app/%", "/app/%zz", "/app/%\u{e9}"]
        {
            assert_eq!(route("GET", path, ""), Route::NotFound(Dialect::Pusher), "{path}");
        }
        for method in ["POST", "HEAD", "get", "OPTIONS"] {
            assert_eq!(route(method, "/app/k", ""), Route::MethodNotAllowed(Dialect::Pusher, "GET"), "{method}");
        }
    }

    /// P-STAT-4, R-ERR-1: an unknown path is 404 in the dialect of its base; a trailing slash makes it another path.
    #[test]
    fn unknown_paths_answer_in_their_dialect() {
        for rest in
            ["", "/", "/3", "/3/", "//events", "/3/events/", "/3/event", "/3/Events", "/3/x/events", "/3//events"]
        {
            let (pusher, relay) = (format!("/apps{rest}"), format!("/api/v1/apps{rest}"));
            assert_eq!(route("POST", &pusher, ""), Route::NotFound(Dialect::Pusher), "{pusher}");
            assert_eq!(route("POST", &relay, ""), Route::NotFound(Dialect::Relay), "{relay}");
        }
        for path in ["/api", "/api/", "/api/v1", "/api/v2/apps/3/events"] {
            assert_eq!(route("POST", path, ""), Route::NotFound(Dialect::Relay), "{path}");
        }
        assert_eq!(route("POST", "/apiary", ""), Route::NotFound(Dialect::Pusher));
        assert_eq!(route("POST", "/pre/api/v1/apps/3/none", "/pre"), Route::NotFound(Dialect::Relay));
    }

    /// For a known path with an unsupported method the answer names the supported one, in the dialect of its base.
    #[test]
    fn other_methods_are_told_the_right_one() {
        for method in ["GET", "HEAD", "PUT", "OPTIONS", "post", ""] {
            let pusher = Route::MethodNotAllowed(Dialect::Pusher, "POST");
            assert_eq!(route(method, "/apps/3/events", ""), pusher, "{method}");
            let relay = Route::MethodNotAllowed(Dialect::Relay, "POST");
            assert_eq!(route(method, "/api/v1/apps/3/batch_events", ""), relay, "{method}");
        }
    }

    /// R-AUTHEP-1, R-AUTHEP-5, R-AUTHEP-7, R-AUTHEP-9: the auth endpoints with JSON errors under both bases, their
    /// preflights, and the paths that clients use by default.
    #[test]
    fn auth_endpoints() {
        for (segment, kind) in [("auth", AuthKind::Channel), ("user-auth", AuthKind::User)] {
            for base in ["/apps/3", "/api/v1/apps/3", "/pre/apps/3"] {
                let path = format!("{base}/{segment}");
                let endpoint = Endpoint::Auth(kind);
                assert_eq!(endpoint.scope(), Some(Scope::ChannelsAuth));
                assert_eq!(route("POST", &path, "/pre"), api(Dialect::Relay, "3", endpoint));
                assert_eq!(route("OPTIONS", &path, "/pre"), Route::Preflight(Some("3"), Shared::Auth(kind)));
                assert!(matches!(route("GET", &path, "/pre"), Route::MethodNotAllowed(_, "POST")));
            }
            for base in ["/broadcasting", "/pusher", "/pre/pusher"] {
                let path = format!("{base}/{segment}");
                assert_eq!(route("POST", &path, "/pre"), Route::AuthOfKey(kind));
                assert_eq!(route("OPTIONS", &path, "/pre"), Route::Preflight(None, Shared::Auth(kind)));
                assert_eq!(route("GET", &path, "/pre"), Route::NotFound(Dialect::Relay), "threat T41");
            }
        }
        for method in ["POST", "DELETE"] {
            let endpoint = Endpoint::EncryptionKey;
            assert_eq!(endpoint.scope(), Some(Scope::EncryptionManage));
            assert_eq!(route(method, "/apps/3/encryption-key", ""), api(Dialect::Pusher, "3", endpoint));
        }
    }

    /// Threat T4, P-SIGN-5: percent-encoding in a known segment does not hide it.
    #[test]
    fn encoded_segments_are_found() {
        assert_eq!(route("POST", "/apps/3/%65vents", ""), api(Dialect::Pusher, "3", Endpoint::Events));
        assert_eq!(route("POST", "/apps/3/batch%5Fevents", ""), api(Dialect::Pusher, "3", Endpoint::BatchEvents));
        assert_eq!(route("POST", "/apps/3/%2565vents", ""), Route::NotFound(Dialect::Pusher));
        assert_eq!(route("POST", "/apps/3%2Fevents", ""), Route::NotFound(Dialect::Pusher));
    }

    /// P-FALL-1: fallback transports and statistics are recognized, with and without the prefix.
    #[test]
    fn fallback_transports() {
        for path in ["/pusher/app/k/1/x/xhr_streaming", "/timeline/v2/jsonp", "/pre/pusher/app/", "/pre/timeline/x"] {
            for (method, preflight) in [("OPTIONS", true), ("POST", false), ("GET", false)] {
                assert_eq!(route(method, path, "/pre"), Route::Fallback { preflight }, "{method} {path}");
            }
        }
        for path in ["/pusher/app", "/timeline", "/pusher/x", "/timelines/x"] {
            assert_eq!(route("GET", path, ""), Route::NotFound(Dialect::Pusher), "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Threat T22: no path makes routing panic, and only `/apps/{id}/...` ever reaches the API.
        #[test]
        fn any_path_gets_a_route(path in "(/(app|apps|api|v1|pre|3|events|\\.\\.|%2e%2e|%00|\u{e9})?){0,6}") {
            if let Route::Api { app_id, .. } = route("POST", &path, "/pre") {
                prop_assert!(!app_id.is_empty() && !app_id.contains('/'));
                prop_assert!(path.contains("apps/"));
            }
        }
    }
}
