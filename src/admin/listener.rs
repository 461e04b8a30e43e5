//! The connections of the admin API: hyper on a runtime of one thread, with a bound on everything that a peer can hold
//! (R-ADMIN-22). A peer gets a connection for a minute, a few seconds for each head and body, and nothing in between.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tower_service::Service;

use crate::limits;

/// The peer of a connection, attached to each of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Accepts and serves connections until the runtime ends. Beyond [`limits::ADMIN_CONNECTIONS_MAX`] they wait in the
/// kernel.
pub(super) async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(serve(stream, peer, router.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin API cannot accept a connection");
                sleep(Duration::from_millis(limits::ACCEPT_REST_MS)).await;
            }
        }
    }
}

/// Serves one connection. Its errors are the peer's: a head that is malformed, too long or late.
async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, place: OwnedSemaphorePermit) {
    let service = service_fn(move |request: hyper::Request<Incoming>| answer(router.clone(), Peer(peer.ip()), request));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    // It also ends connections that are idle.
    server.header_read_timeout(Duration::from_millis(limits::ADMIN_READ_MS));
    server.max_buf_size(limits::ADMIN_HEAD_BYTES_MAX).max_headers(limits::ADMIN_HEADERS_MAX);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    if timeout(Duration::from_millis(limits::ADMIN_CONNECTION_MS), connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(Duration::from_millis(limits::ADMIN_LAST_ANSWER_MS), connection).await;
    }
    drop(place);
}

async fn answer(mut router: Router, peer: Peer, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
    let mut request: Request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    router.call(request).await
}
