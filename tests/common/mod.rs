//! The black box harness: a real `relay` process, clients that share no code with it, and an independent signer.
//!
//! Nothing here imports the library under test. WebSockets are `tungstenite`'s, signatures are computed with `hmac`,
//! `sha2` and `md-5`, and HTTP goes over a raw socket so that a test decides every byte of a request.

#![allow(dead_code, unreachable_pub)]

pub mod admin;
pub mod cli;
pub mod exposition;
pub mod http;
pub mod receiver;
pub mod rig;
pub mod server;
pub mod sign;
pub mod signal;
pub mod socket;
pub mod stream;
pub mod tools;
pub mod wire;

use std::time::{Duration, Instant};

/// How long a test waits for an event that must happen before it fails. It says nothing about speed: on a machine with
/// ten times its capacity of work, a script takes 10 s to start.
pub const PATIENCE: Duration = Duration::from_secs(50);

/// Polls until `done` returns a value, and fails with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, done: impl FnMut() -> Option<T>) -> T {
    eventually_within(what, PATIENCE, done)
}

/// Polls until `done` returns a value, and fails with `what` after `limit`.
pub fn eventually_within<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A name that no other test of this process uses.
pub fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
