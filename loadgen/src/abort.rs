//! Why a run ends before its plan does: Ctrl-C or SIGTERM, a lost worker, a server that is gone or has stopped answering.
//!
//! A process executes one run, so the reason is a process-wide value; the first one wins. Everything measured until then
//! is still reported.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Why a run was cut short.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Abort {
    /// A signal with this name. The server is not to blame for missing deliveries.
    Interrupted(&'static str),
    /// A process of the generator itself has ended or hangs.
    Generator(String),
    /// The server is gone or has stopped answering.
    Server(String),
}

impl Abort {
    /// The sentence in the report.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Interrupted(signal) => format!("interrupted by {signal}"),
            Self::Generator(text) | Self::Server(text) => text.clone(),
        }
    }
}

/// Cuts the run short, unless it already is.
pub(crate) fn set(abort: Abort) {
    // The first reason is the cause of those that follow it.
    let _ = ABORT.set(abort);
}

/// Why the run is being cut short, if it is.
pub(crate) fn reason() -> Option<&'static Abort> {
    let signal = SIGNAL.get().map_or(0, |signal| signal.load(Ordering::Relaxed));
    let name = SIGNALS.iter().find(|(number, _)| usize::try_from(*number) == Ok(signal)).map(|(_, name)| *name);
    if let Some(name) = name {
        set(Abort::Interrupted(name));
    }
    ABORT.get()
}

/// From now on the first signal cuts the run short, and the second ends the process at once.
///
/// # Errors
/// If the handlers cannot be registered.
pub(crate) fn handle_signals() -> io::Result<()> {
    let signal = Arc::clone(SIGNAL.get_or_init(Arc::default));
    let again = Arc::new(AtomicBool::new(false));
    for (number, _) in SIGNALS {
        // In this order: the first signal finds `again` not yet set.
        flag::register_conditional_shutdown(number, EXIT_CODE_AT_ONCE, Arc::clone(&again))?;
        flag::register(number, Arc::clone(&again))?;
        flag::register_usize(number, Arc::clone(&signal), usize::try_from(number).unwrap_or(0))?;
    }
    Ok(())
}

static ABORT: OnceLock<Abort> = OnceLock::new();
static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
const SIGNALS: [(i32, &str); 3] = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM"), (SIGHUP, "SIGHUP")];
/// The exit code that shells use for a program ended by Ctrl-C: a second signal ends the run without a report.
const EXIT_CODE_AT_ONCE: i32 = 130;
