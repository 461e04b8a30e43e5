//! Method and path to a route, under `/apps/{id}` and `/api/v1/apps/{id}`, with and without the configured prefix (P-CONN-2, R-BASE-1).

use crate::protocol::dialect::Dialect;

/// What a method and path ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route<'a> {
    /// `GET|HEAD /`, `/up`, `/health`, `/healthz`.
    Up,
    /// `GET|HEAD /up/{appId}`.
    UpApp(&'a str),
    /// `GET|HEAD /ready`, `/readyz`.
    Ready,
    /// Upgrade or not, `/app/{key}`: a plain GET is answered 426.
    WebSocket {
        /// The app key, percent-decoded.
        key: std::borrow::Cow<'a, str>,
    },
    /// A route of the HTTP API.
    Api {
        /// How errors read.
        dialect: Dialect,
        /// The app id of the path.
        app_id: &'a str,
        /// Which endpoint.
        endpoint: Endpoint,
    },
    /// A known path with another method: 405 with `Allow`.
    MethodNotAllowed(Dialect, &'static str),
    /// Fallback transports and statistics that are answered 404 at once, with CORS (P-FALL-1); true for OPTIONS (204).
    Fallback {
        /// OPTIONS asks for 204.
        preflight: bool,
    },
    /// Nothing here: 404.
    NotFound(Dialect),
}

/// Endpoints of the HTTP API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// `POST /events` (P-HTTP-1).
    Events,
    /// `POST /batch_events` (P-HTTP-2).
    BatchEvents,
}

/// Finds the route. `path` is as requested; `prefix` is the configured one or `""`.
pub fn route<'a>(_method: &str, _path: &'a str, _prefix: &str) -> Route<'a> {
    todo!()
}
