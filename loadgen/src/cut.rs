//! Why a run ends before its plan does: Ctrl-C or SIGTERM, a worker that is gone, a server that is gone or silent.
//!
//! There is one run in a process, so there is one place for it; the first reason stands. What was measured until then
//! is reported all the same.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// What cut a run short.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Cut {
    /// A signal with this name. The server is not to blame for what is missing.
    Interrupted(&'static str),
    /// A part of the generator itself is gone or hangs.
    Generator(String),
    /// The server is gone or silent.
    Server(String),
}

impl Cut {
    /// The sentence that the report has.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Interrupted(signal) => format!("interrupted by {signal}"),
            Self::Generator(text) | Self::Server(text) => text.clone(),
        }
    }
}

/// Cuts the run short, unless it already is.
pub(crate) fn set(cut: Cut) {
    // The first reason is the cause of those that follow it.
    let _ = CUT.set(cut);
}

/// Why the run is cut short, if it is.
pub(crate) fn reason() -> Option<&'static Cut> {
    let signal = SIGNAL.get().map_or(0, |signal| signal.load(Ordering::Relaxed));
    let name = SIGNALS.iter().find(|(number, _)| usize::try_from(*number) == Ok(signal)).map(|(_, name)| *name);
    if let Some(name) = name {
        set(Cut::Interrupted(name));
    }
    CUT.get()
}

/// From now on the first signal cuts the run short, and the second ends the process at once.
///
/// # Errors
/// If the kernel takes no handlers.
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

static CUT: OnceLock<Cut> = OnceLock::new();
static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
const SIGNALS: [(i32, &str); 3] = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM"), (SIGHUP, "SIGHUP")];
/// As a shell says it of a program that a second Ctrl-C ended: there is no report.
const EXIT_CODE_AT_ONCE: i32 = 130;
