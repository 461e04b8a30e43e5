//! Logs: standard error, as text on a terminal and as JSON lines otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, Settings};

/// The filter that the setting `log` asks for.
pub(super) fn filter(settings: &Settings) -> Result<EnvFilter, ConfigError> {
    let directives = settings.text("log").unwrap_or("info");
    EnvFilter::try_new(directives).map_err(|error| {
        let origin = settings.origin("log");
        ConfigError(format!("{origin} takes a level such as info, or directives such as info,relay=debug: {error}"))
    })
}

/// Starts logging for this process.
pub(super) fn start(filter: EnvFilter) {
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second start, in tests of one process, leaves the first in place.
    let _ = if io::stderr().is_terminal() {
        tracing::subscriber::set_global_default(base.with_target(false).finish())
    } else {
        tracing::subscriber::set_global_default(base.with_ansi(false).json().flatten_event(true).finish())
    };
}
