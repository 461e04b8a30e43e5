//! The admin API: apps, tokens, webhook endpoints, admin tokens and the audit log over HTTP (R-ADMIN rules).
//!
//! It has a listener and a thread of its own, with a runtime of one thread, and shares nothing with the public port but
//! the store: it reads and writes that, and the store writer passes changes on to the shards. So nothing that is sent
//! here delays a delivery.
//!
//! ```text
//! listener -> guard -> http -> call -> operations -> store
//!             Host      router          also run by the command line, on the store of a data directory
//! ```

mod access;
mod address;
mod admin_tokens;
mod app_json;
mod apps;
mod audit;
pub mod call;
mod client;
mod credential;
mod deliveries;
mod document;
mod explain;
mod explainer;
mod fault;
mod forms;
mod guard;
mod http;
mod keys;
mod listener;
mod operation;
mod operations;
mod replay;
mod replayer;
pub mod routes;
mod settings;
mod status;
mod tokens;
mod webhooks;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};

use crate::auth::failures::AuthFailures;
use crate::driver::clock::Clock;
use crate::driver::listener::Bound;
use crate::driver::priority::yield_to_shards;
use crate::limits;
use crate::store::Store;
use crate::store::writer::StoreWriter;
pub use access::{Access, Running};
pub use address::forget as forget_address;
pub use client::Proxies;
pub use deliveries::Deliveries;
pub use explainer::Explainer;
pub use fault::Fault;
pub use operation::{Operation, Permission};
pub use replayer::Replayer;

/// The configuration of the admin API.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// Names of the server besides those of this machine (threat T45).
    pub hosts: Vec<String>,
    /// Proxies in front of the listener.
    pub proxies: Proxies,
    /// Networks in which every webhook may be.
    pub webhook_allow: Vec<ipnet::IpNet>,
}

/// The running admin API. Dropping it ends its connections and its thread.
pub struct Admin {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Starts serving on a socket that is bound, and writes its address to the data directory.
    ///
    /// # Errors
    /// A thread, a descriptor or the file is not available.
    pub fn start(
        bound: Bound,
        data: &Path,
        options: AdminOptions,
        (running, explainer, replayer, deliveries): (Running, Arc<Explainer>, Arc<Replayer>, Deliveries),
        (store, store_writer): (Store, Arc<StoreWriter>),
        clock: Clock,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits::ADMIN_STORE_THREADS)
            .thread_name("admin-store")
            .on_thread_start(yield_to_shards)
            .build()?;
        let socket = bound.sockets.into_iter().next().expect("one socket was bound");
        let listener = {
            let _context = runtime.enter();
            TcpListener::from_std(socket.into())?
        };
        address::write(data, bound.address)?;
        let shared = Arc::new(http::Shared {
            store,
            store_writer,
            clock,
            hosts: options.hosts,
            proxies: options.proxies,
            failures: Mutex::new(AuthFailures::new(limits::ADMIN_FAILURES_PER_MINUTE)),
            in_flight: Arc::new(Semaphore::new(limits::ADMIN_REQUESTS_MAX)),
            running,
            explainer,
            replayer,
            deliveries,
            allowed: options.webhook_allow,
        });
        let (stop, stopped) = oneshot::channel();
        let run = move || serve(&runtime, listener, shared, stopped);
        let thread = thread::Builder::new().name("admin".into()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

fn serve(runtime: &Runtime, listener: TcpListener, shared: Arc<http::Shared>, stopped: oneshot::Receiver<()>) {
    yield_to_shards();
    runtime.spawn(listener::accept(listener, http::router(shared)));
    // The end of the sender is a request to stop, too.
    let _ = runtime.block_on(stopped);
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It returns nothing; the hook has printed a panic of it.
            let _ = thread.join();
        }
    }
}

/// The address of the admin API of the server that serves a data directory, for commands on the same machine: never
/// the default port, which another user of the machine may have taken (threat T46).
///
/// # Errors
/// The file cannot be read, or others could have written it.
pub fn served_address(data: &Path) -> io::Result<Option<SocketAddr>> {
    address::read(data)
}
