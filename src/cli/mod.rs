//! The command line. Standard output contains the requested result (with `--json` nothing but JSON), everything else
//! goes to standard error. Exit codes: 0 success, 1 failure, 2 usage error.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::admin::Fault;
use crate::app::actor::Actor;
use crate::config::{self, ConfigError, DATA_DEFAULT, Settings};
use crate::driver::log_writer;
use crate::limits::LOG_FLUSH_MS;
use crate::server::ServeError;
use crate::store::{Missing, Store, StoreError};
use crate::webhook::WebhookOptions;

mod admin;
mod app;
mod bench;
mod columns;
mod configured;
mod dev;
mod doctor;
mod explain;
mod flags;
mod logging;
#[cfg(not(fuzzing))]
mod migrate;
#[cfg(fuzzing)]
pub mod migrate;
mod password;
mod place;
mod remote;
mod serve;
mod time;
mod token;
mod webhook;

use remote::RemoteArguments;

pub use dev::{DevApp, dev_banner};

/// A self-hosted realtime relay that speaks the Pusher Channels protocol.
#[derive(Parser)]
#[command(name = "relay", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    remote: RemoteArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve WebSockets and the HTTP API.
    #[command(alias = "start")]
    Serve(serve::ServeArguments),
    /// Check flags, environment and relay.toml as `serve` would, and show the effective settings.
    CheckConfig(serve::ServeArguments),
    /// Check whether this host is configured for the server, or whether a deployment works from the outside, and suggest
    /// fixes.
    Doctor(doctor::DoctorArguments),
    /// Create, show and change apps, also while the server runs.
    #[command(subcommand)]
    App(app::AppCommand),
    /// Create, list, rotate and revoke app tokens, also while the server runs.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Manage admin tokens and passwords, and show the audit log, also while the server runs.
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Add, list, remove and test webhook endpoints, also while the server runs.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    Explain(explain::ExplainArguments),
    /// Import the apps of another server's configuration: soketi, Sockudo, Reverb, laravel-websockets.
    Migrate(migrate::MigrateArguments),
    /// Load a server and measure it: runs relay-loadgen.
    Bench(bench::BenchArguments),
    /// Print the version.
    Version,
}

/// Where the store is and how to answer; every command on the store takes these.
#[derive(Args, Clone, Debug)]
struct StoreArguments {
    /// Data directory [default: RELAY_DATA, or `data` of relay.toml, or /var/lib/relay].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Read this relay.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print only JSON on standard output.
    #[arg(long)]
    json: bool,
}

impl StoreArguments {
    fn open(&self, missing: Missing) -> Result<Store, CommandError> {
        if let Some(data) = &self.data {
            return Ok(Store::open(data, missing)?);
        }
        let settings = self.settings()?;
        let data = settings.text("data").unwrap_or(DATA_DEFAULT);
        Ok(Store::open(data.as_ref(), missing)?)
    }

    /// The URL of the admin API of the server that serves this data directory.
    fn served_url(&self) -> Result<Option<String>, CommandError> {
        let settings = self.settings()?;
        let data = self.data.as_deref().unwrap_or_else(|| settings.text("data").unwrap_or(DATA_DEFAULT).as_ref());
        // What cannot be read is as good as missing.
        Ok(crate::admin::served_address(data).ok().flatten().map(|address| format!("http://{address}")))
    }

    /// The settings from the file and the environment.
    fn settings(&self) -> Result<Settings, ConfigError> {
        Settings::gather(Vec::new(), self.config.clone(), std::env::vars_os())
    }

    /// The webhook settings of the configuration.
    fn webhook_options(&self) -> Result<WebhookOptions, CommandError> {
        Ok(config::webhooks(&self.settings()?)?)
    }

    /// Prints the answer in the requested form.
    fn answer(&self, json: &serde_json::Value, text: &str) -> Result<(), CommandError> {
        if self.json { print(&format!("{json:#}\n")) } else { print(text) }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The load generator is not there.
    #[error("{}", bench::explain(.program, .error))]
    Bench { program: PathBuf, error: io::Error },
    /// A usage error.
    #[error("{0}")]
    Usage(String),
    /// An operation on the store was refused.
    #[error("{0}")]
    Refused(Fault),
    /// A remote server refused an operation, or was not reached.
    #[error("{message}")]
    Remote {
        /// Its status; 0 without an answer.
        status: u16,
        /// The cause.
        message: String,
        /// What removed keys had created (R-ADMIN-6).
        created: Vec<serde_json::Value>,
    },
    /// `relay doctor` found problems, which it has shown.
    #[error("fix {0} of the findings before this host can serve as configured")]
    Unfit(usize),
    /// `relay doctor --public` found problems, which it has shown.
    #[error("fix {0} of the findings before clients and backends can use this deployment as configured")]
    Unreachable(usize),
    /// A migration would allow more than the old server did.
    #[error(
        "{0} values of the file would allow more here than before (\"loosens\" in the table), so nothing was changed: \
         replace what protected you, then run this again with --accept-loss"
    )]
    Loss(usize),
    /// An endpoint did not accept the test event.
    #[error("webhook {0}")]
    Webhook(String),
    #[error("cannot read the password: {0}")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl CommandError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) | Self::Store(StoreError::Invalid(_)) => ExitCode::from(2),
            Self::Refused(fault) if fault.status() == 400 => ExitCode::from(2),
            Self::Remote { status: 400, .. } => ExitCode::from(2),
            Self::Store(_)
            | Self::Refused(_)
            | Self::Remote { .. }
            | Self::Serve(_)
            | Self::Unfit(_)
            | Self::Unreachable(_)
            | Self::Loss(_)
            | Self::Bench { .. }
            | Self::Webhook(_)
            | Self::Input(_)
            | Self::Output(_) => ExitCode::from(1),
        }
    }

    /// What removed keys had created, if that is why they were not removed.
    fn created(&self) -> Vec<serde_json::Value> {
        match self {
            Self::Refused(fault) => fault.created(),
            Self::Remote { created, .. } => created.clone(),
            Self::Config(_)
            | Self::Store(_)
            | Self::Serve(_)
            | Self::Bench { .. }
            | Self::Usage(_)
            | Self::Unfit(_)
            | Self::Unreachable(_)
            | Self::Loss(_)
            | Self::Webhook(_)
            | Self::Input(_)
            | Self::Output(_) => Vec::new(),
        }
    }
}

/// The user who runs this command, for the audit log.
fn actor() -> Actor {
    Actor::cli(rustix::process::getuid().as_raw())
}

const REMOTE_COMMANDS: &str =
    "--server, --admin-token-file and --admin-token are for the commands app, token, webhook, admin and explain";

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    run_with(std::env::args_os())
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            return refuse(&error);
        }
    };
    let remote = &arguments.remote;
    let done = match arguments.command {
        Command::App(command) => app::run(command, remote),
        Command::Token(command) => token::run(command, remote),
        Command::Webhook(command) => webhook::run(command, remote),
        Command::Admin(command) => admin::run(command, remote),
        Command::Explain(arguments) => explain::run(arguments, remote),
        _ if remote.is_given() => Err(CommandError::Usage(REMOTE_COMMANDS.to_owned())),
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::CheckConfig(arguments) => serve::check_config(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Version => print(concat!("relay ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("relay: {error}"));
            error.exit_code()
        }
    };
    log_writer::flush(Duration::from_millis(LOG_FLUSH_MS));
    code
}

/// Help and version go to standard output as they are; a mistake is one line on standard error.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || error.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
        // A closed pipe is not ours to report.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    note(&format!("relay: {}", one_line(&error.render().to_string())));
    ExitCode::from(2)
}

/// The error and its fix, from clap's several paragraphs.
fn one_line(text: &str) -> String {
    let wrong: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let mut line = wrong.join(" ").trim_start_matches("error: ").to_owned();
    for tip in text.lines().filter_map(|line| line.trim_start().strip_prefix("tip: ")) {
        line.push_str("; ");
        line.push_str(tip);
    }
    line
}

/// Writes the requested result to standard output.
fn print(text: &str) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a line for people to standard error. A server does not wait for its reader (R-PROC-1).
fn note(line: &str) {
    log_writer::write(&format!("{line}\n"));
}
