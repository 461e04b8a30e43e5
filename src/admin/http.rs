//! From a request to its answer: the checks that come before the path, the router, and the call of an operation on a
//! thread that may wait for the disk.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, get, on};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::access::{Access, Running};
use super::call::{self, Answer, Call, Repeat};
use super::client::{Client, Proxies};
use super::credential::Presented;
use super::deliveries::Deliveries;
use super::explainer::Explainer;
use super::fault::Fault;
use super::guard::{check_content_type, check_host, check_origin, only};
use super::listener::Peer;
use super::replayer::Replayer;
use super::routes::{BASE, IDEMPOTENCY_KEY, Method, ROUTES, Route};
use crate::app::actor::{Actor, ActorKind};
use crate::auth::failures::AuthFailures;
use crate::driver::clock::Clock;
use crate::limits;
use crate::protocol::dialect::Dialect;
use crate::store::writer::StoreWriter;
use crate::store::{AdminCaller, Store};

/// What all requests share.
pub(super) struct Shared {
    pub(super) store: Store,
    /// Notified of changes, so that it sends them to the shards at once.
    pub(super) store_writer: Arc<StoreWriter>,
    pub(super) clock: Clock,
    pub(super) hosts: Vec<String>,
    pub(super) proxies: Proxies,
    pub(super) failures: Mutex<AuthFailures>,
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) running: Running,
    pub(super) explainer: Arc<Explainer>,
    pub(super) replayer: Arc<Replayer>,
    pub(super) deliveries: Deliveries,
    /// Networks in which every webhook may be.
    pub(super) allowed: Vec<ipnet::IpNet>,
}

/// The caller of a request that passed the checks.
#[derive(Clone)]
struct Caller {
    admin: AdminCaller,
    address: Option<IpAddr>,
}

/// The router: every path of the table, and the document.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new().route("/openapi.json", get(document));
    for route in ROUTES {
        for path in route.paths {
            let handler = move |State(shared): State<Arc<Shared>>, parameters: RawPathParams, request: Request| async move {
                perform(shared, route, &parameters, request).await.unwrap_or_else(|fault| refuse(&fault))
            };
            router = router.route(&format!("{BASE}{path}"), on(filter(route.method), handler));
        }
    }
    let not_found = || async { refuse(&Fault::not_found("Nothing is served at this path.")) };
    router.fallback(not_found).layer(from_fn_with_state(Arc::clone(&shared), guard)).with_state(shared)
}

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

/// The checks of every request, and the headers of every response.
async fn guard(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let mut response = match shared.admit(&mut request) {
        Ok(()) => next.run(request).await,
        Err(fault) => refuse(&fault),
    };
    // The router's own answer has no body; it adds `Allow` after this.
    if response.status() == StatusCode::METHOD_NOT_ALLOWED && !response.headers().contains_key(CONTENT_TYPE) {
        response = refuse(&Fault::answer(405, format!("This path does not accept {method}; see the header Allow.")));
    }
    let headers = response.headers_mut();
    headers.extend(HEADERS.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Shared {
    /// Refuses a request that is for another server, from a foreign page, or without a valid credential.
    fn admit(&self, request: &mut Request) -> Result<(), Fault> {
        let host = check_host(request.uri(), request.headers(), &self.hosts)?;
        let peer = request.extensions().get::<Peer>().copied().expect("the listener attached it");
        let client = Client::of(peer.0, request.headers(), &self.proxies)?;
        check_origin(request.headers(), client.scheme, host)?;
        // Before the path is looked at: without a credential every path is alike.
        if request.uri().path().starts_with("/admin/") {
            let admin = self.authenticate(request, client.address)?;
            request.extensions_mut().insert(Caller { admin, address: client.address });
        }
        Ok(())
    }

    fn authenticate(&self, request: &Request, address: Option<IpAddr>) -> Result<AdminCaller, Fault> {
        let now = self.clock.read();
        let found = match Presented::read(request.uri(), request.headers())? {
            Presented::AdminToken(token) => self.store.admin_caller(token, now.unix_ms)?,
            Presented::Nothing => None,
        };
        found.ok_or_else(|| {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            // Clients whose proxy hides their addresses share no count, so that they cannot slow each other down.
            if address.is_some_and(|address| failures.count(now, address)) {
                return Fault::too_many_failures();
            }
            tracing::warn!(client = address.map(tracing::field::display), "refused a credential of the admin API");
            Fault::unauthorized()
        })
    }

    /// Runs an operation, on a thread that may wait for the disk.
    fn run(&self, call: &Call, caller: &Caller) -> Result<Answer, Fault> {
        let now = self.clock.read();
        if let Err(error) = self.store.record_admin_token_use(&caller.admin.id, now.unix_ms) {
            tracing::warn!(%error, "the last use of an admin token was not written");
        }
        let actor = Actor::new(ActorKind::AdminToken, &caller.admin.id, caller.address);
        let access = Access {
            store: &self.store,
            actor: &actor,
            role: caller.admin.role,
            now,
            allowed: &self.allowed,
            running: Some(&self.running),
            explainer: Some(&self.explainer),
            replayer: Some(&self.replayer),
            deliveries: Some(&self.deliveries),
        };
        let answer = access.run(call);
        if call.operation.route().method != Method::Get {
            self.store_writer.look();
        }
        answer
    }
}

/// Reads a request, checks the permission and runs the operation.
async fn perform(
    shared: Arc<Shared>,
    route: &'static Route,
    parameters: &RawPathParams,
    request: Request,
) -> Result<Response, Fault> {
    let caller = request.extensions().get::<Caller>().cloned().ok_or_else(Fault::unauthorized)?;
    if !route.operation.permission().allows(caller.admin.role) {
        return Err(Fault::forbidden("This credential is read-only."));
    }
    let Ok(place) = Arc::clone(&shared.in_flight).try_acquire_owned() else {
        return Err(Fault::unavailable("Too many requests are in flight; try again."));
    };
    let mut call = Call::new(route.operation);
    for (name, value) in parameters {
        let parameter = if name == "app" { &mut call.app } else { &mut call.item };
        *parameter = Some(value.to_owned());
    }
    let (head, body) = request.into_parts();
    call.query = call::read_query(route, head.uri.query().unwrap_or_default())?;
    if route.method != Method::Get {
        let body = read_body(body, route.body_bytes_max).await?;
        check_content_type(&head.headers, body.is_empty())?;
        call.read_body(&body)?;
        read_headers(route, &head.headers, &mut call, head.uri.path(), &body)?;
    }
    let answer = tokio::task::spawn_blocking(move || {
        let _place = place;
        shared.run(&call, &caller)
    });
    answer.await.expect("a panic on that thread would have ended the process").map(|answer| respond(&answer))
}

async fn read_body(body: Body, most: usize) -> Result<Vec<u8>, Fault> {
    let limited = Limited::new(body, most).collect();
    match timeout(Duration::from_millis(limits::ADMIN_READ_MS), limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Fault::answer(413, format!("The body is longer than {most} bytes.")))
        }
        Ok(Err(_)) => Err(Fault::bad_request("The body is incomplete or malformed.")),
        Err(_) => Err(Fault::answer(408, "The body took too long.")),
    }
}

fn read_headers(route: &Route, headers: &HeaderMap, call: &mut Call, path: &str, body: &[u8]) -> Result<(), Fault> {
    let once = |name: &HeaderName| {
        only(headers, name).map_err(|()| Fault::bad_request(format!("The header {name} must be present once.")))
    };
    for parameter in route.headers {
        let name = HeaderName::try_from(parameter.name).expect("the table has valid names");
        let Some(value) = once(&name)? else { continue };
        if name == IF_MATCH {
            call.if_match = call::read_if_match(value)?;
        } else if parameter.name == IDEMPOTENCY_KEY.name {
            call::check_idempotency_key(value)?;
            let route = format!("{} {path}", route.method.name());
            call.idempotency = Some(Repeat { key: value.to_owned(), route, body: body.to_vec() });
        }
    }
    Ok(())
}

async fn document() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| super::document::document().encode().into());
    json(StatusCode::OK, DOCUMENT.clone())
}

fn respond(answer: &Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).expect("the table of routes has valid statuses");
    let mut response = json(status, answer.body.to_string());
    if let Some(revision) = answer.revision {
        let value = HeaderValue::try_from(call::etag(revision)).expect("digits in quotes");
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// The answer to a request that was not carried out (R-ERR-1).
fn refuse(fault: &Fault) -> Response {
    let (_, mut body) = Dialect::Relay.error_body(fault.status(), &fault.message());
    let created = fault.created();
    if !created.is_empty() {
        // One more member of the object.
        body.pop();
        body.extend_from_slice(format!(",\"created\":{}}}", Value::from(created)).as_bytes());
    }
    let status = StatusCode::from_u16(fault.status()).expect("faults have valid statuses");
    let mut response = json(status, body);
    if let Some(seconds) = fault.retry_after_s() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Headers of every response: nothing that it contains is a document, a frame or a script for a page.
const HEADERS: [(&str, &str); 7] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
];
