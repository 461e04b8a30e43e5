//! Logs: standard error, as text on a terminal and as JSON lines otherwise, through a writer thread (R-PROC-1).

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{ConfigError, Settings};
use crate::driver::log_writer::{self, LogWriter};

/// The filter that the setting `log` defines.
pub(super) fn filter(settings: &Settings) -> Result<EnvFilter, ConfigError> {
    let directives = settings.text("log").unwrap_or("info");
    EnvFilter::try_new(directives).map_err(|error| {
        let origin = settings.origin("log");
        ConfigError(format!("{origin} takes a level such as info, or directives such as info,relay=debug: {error}"))
    })
}

/// From here on nothing waits for the reader of standard error.
///
/// # Errors
/// No thread.
pub(super) fn open() -> io::Result<LogWriter> {
    log_writer::start(report)
}

/// Starts logging for this process.
///
/// # Errors
/// No thread.
pub(super) fn start(filter: EnvFilter) -> io::Result<()> {
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines(open()?));
    // A second start, in tests of one process, leaves the first in place.
    let _ = if io::stderr().is_terminal() {
        tracing::subscriber::set_global_default(base.with_target(false).finish())
    } else {
        tracing::subscriber::set_global_default(base.with_ansi(false).json().flatten_event(true).finish())
    };
    Ok(())
}

fn report(dropped: u64, total: u64) {
    tracing::warn!(dropped, total, "log lines were dropped: standard error was not read in time");
}

/// Passes complete lines to the writer thread: the subscriber writes each event with one call.
struct Lines(LogWriter);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a LogWriter);

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
