//! Ends a process that has hit a bug: one message, the last log lines, and exit code [`EXIT_CODE`].
//!
//! A server that has lost a thread looks healthy but is not: without its store writer no revocation takes effect, and
//! without its signal thread SIGTERM does nothing. So a panic of any thread ends the process (R-PROC-2), and so does a
//! shard that stopped turning ([`super::watchdog`]); a supervisor restarts it. The hook sees every panic of every
//! thread, including threads that are added later; code that must survive a panic runs inside [`contain`].

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::time::Duration;

use super::log_writer;
use crate::limits::LOG_FLUSH_MS;

/// Exit code of a process that ends because of its own bug; the same as for every Rust program whose main thread
/// panics.
pub const EXIT_CODE: i32 = 101;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// From this call on, a panic of any thread ends the process.
pub fn end_process_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let text = describe(info);
        if CONTAINED.get() {
            log_writer::write(&format!("relay: {text}\n"));
        } else {
            end_process(&format!("{text}\nThis is a bug in Relay; the process ends."));
        }
    }));
}

/// Runs code that may panic without harm to the rest of the process; returns `None` if it panicked.
pub fn contain<T>(body: impl FnOnce() -> T) -> Option<T> {
    CONTAINED.set(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    CONTAINED.set(false);
    result.ok()
}

/// Ends the process with a message, regardless of what its other threads are doing.
pub fn end_process(text: &str) -> ! {
    log_writer::write(&format!("relay: {text}\n"));
    log_writer::flush(Duration::from_millis(LOG_FLUSH_MS));
    #[allow(clippy::disallowed_methods, reason = "other threads may never return")]
    std::process::exit(EXIT_CODE)
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name").to_owned();
    let place = info.location().map_or_else(String::new, |location| format!(" at {location}"));
    let message = info.payload_as_str().unwrap_or("no message");
    let mut text = format!("thread {thread} panicked{place}: {message}");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        write!(text, "\n{trace}").expect("a string takes text");
    }
    text
}
