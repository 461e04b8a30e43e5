//! `relay serve`: configuration, store, the apps that must exist, then the server.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::dev::{self, DevApp, dev_banner};
use super::flags::{All, Flags};
use super::{CommandError, configured, logging, note, print};
use crate::app::actor::Actor;
use crate::config::{ConfigError, ConfiguredApp, Mode, ServeConfig, Settings};
use crate::driver::failure;
use crate::limits::LOG_FLUSH_MS;
use crate::server::{self, Listening, ServeError};
use crate::store::{NewApp, Store, StoreError};

/// Flags. What is not given is looked up in `RELAY_*` (as `RELAY_LISTEN`), then relay.toml, then has its default.
#[derive(Args, Debug)]
pub(super) struct ServeArguments {
    /// For development: 127.0.0.1:6001, data in ./.relay, app 1 / app-key / app-secret.
    #[arg(long)]
    dev: bool,
    /// Read this relay.toml [default: RELAY_CONFIG, ./relay.toml, /etc/relay/relay.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags<All>,
}

impl ServeArguments {
    fn settings(&self) -> Result<Settings, ConfigError> {
        Settings::gather(self.flags.given(), self.config.clone(), std::env::vars_os())
    }

    fn mode(&self) -> Mode {
        if self.dev { Mode::Dev } else { Mode::Production }
    }
}

/// Checks everything that can be checked without touching data or network.
pub(super) fn check_config(arguments: &ServeArguments) -> Result<(), CommandError> {
    let settings = arguments.settings()?;
    let config = ServeConfig::new(&settings, arguments.mode())?;
    let app = configured_app(&settings, &config)?;
    logging::filter(&settings)?;
    for warning in &settings.warnings {
        note(&format!("warning: {warning}"));
    }
    if let Some(aliases) = &settings.aliases {
        note(&format!("note: {aliases}"));
    }
    let mut text = String::new();
    let file = settings.file.as_ref().map_or_else(|| "none".into(), |file| file.display().to_string());
    let app = app.map_or_else(|| "none".into(), |app| format!("{} with key {}", app.id, app.key));
    writeln!(text, "ok: listen {}, health {}", config.server.listen, config.server.metrics_listen)
        .expect("a string takes text");
    writeln!(text, "    data {}, {} shards, file {file}", config.server.data.display(), config.server.shards)
        .expect("a string takes text");
    writeln!(text, "    app from the configuration: {app}").expect("a string takes text");
    print(&text)
}

/// Serves until drained.
pub(super) fn serve(arguments: &ServeArguments) -> Result<(), CommandError> {
    // Before anything is written to it: a start that fails must end even if nobody reads standard error.
    logging::open().map_err(|error| ServeError::start("start a thread", error))?;
    let settings = arguments.settings()?;
    let config = ServeConfig::new(&settings, arguments.mode())?;
    let configured = configured_app(&settings, &config)?;
    logging::start(logging::filter(&settings)?).map_err(|error| ServeError::start("start a thread", error))?;
    failure::end_process_on_panic();
    if let Some(file) = &settings.file {
        tracing::info!(file = %file.display(), "read the config file");
    }
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(aliases) = &settings.aliases {
        tracing::info!("{aliases}");
    }
    let prepared = server::prepare(&config)?;
    let store = Store::open_to_serve(&config.server.data)?;
    if let Some(app) = &configured {
        configured::ensure(&store, app, &config.webhooks.allowed)?;
    }
    let dev = match arguments.mode() {
        Mode::Dev => Some(dev::prepare(&store)?),
        Mode::Production => {
            create_first(&store)?;
            None
        }
    };
    refuse_known_secrets(&store, config.server.listen)?;
    let (printed, is_printed) = mpsc::channel();
    server::run(&config, prepared, store, |listening| announce(listening, dev.as_ref(), printed))?;
    // Even a server that ends at once has printed its line, if anybody reads it.
    let _ = is_printed.recv_timeout(Duration::from_millis(LOG_FLUSH_MS));
    Ok(())
}

/// A server without any app is useless: the first start creates one and shows it, once.
fn create_first(store: &Store) -> Result<(), StoreError> {
    let name = "first app".into();
    let Some(app) = store.create_first_app(&Actor::server(), NewApp { name, ..NewApp::default() })? else {
        return Ok(());
    };
    let pair = &app.keys[0];
    // Straight to standard error, not through the log: secrets never appear in log records (R-AUTH-7).
    note(&format!(
        "There was no app yet, so one was made; its secret is shown this once (later: relay app show {} --secrets).\n\
         RELAY_APP_ID={}\nRELAY_APP_KEY={}\nRELAY_APP_SECRET={}",
        app.id, app.id, pair.key, pair.secret
    ));
    Ok(())
}

/// Secrets that appear in documents: Relay's own, and those of other servers' examples.
const KNOWN_SECRETS: [&str; 4] = [dev::SECRET, "demo-secret", "secret", "7ad3773142a6692b25b8"];

fn is_known(secret: &str, listen: SocketAddr) -> bool {
    !listen.ip().is_loopback() && KNOWN_SECRETS.contains(&secret)
}

/// The app of the configuration; one with a well-known secret is refused before anything is stored.
fn configured_app(settings: &Settings, config: &ServeConfig) -> Result<Option<ConfiguredApp>, ConfigError> {
    let app = ConfiguredApp::new(settings)?;
    if app.as_ref().is_some_and(|app| is_known(app.secret.expose(), config.server.listen)) {
        return Err(ConfigError(format!(
            "{} is a well-known secret and {} can be reached by others: set a secret of your own, or listen on 127.0.0.1",
            settings.origin("app_secret"),
            config.server.listen
        )));
    }
    Ok(app)
}

fn refuse_known_secrets(store: &Store, listen: SocketAddr) -> Result<(), CommandError> {
    for app in store.apps()?.iter().filter(|app| app.enabled) {
        if let Some(pair) = app.keys.iter().find(|pair| is_known(&pair.secret, listen)) {
            let text = format!(
                "the secret of app {id}, key {key}, is a well-known one and {listen} can be reached by others: \
                 give it a new pair (`relay app rotate {id}`, then `relay app remove-key {id} {key}`), \
                 or listen on 127.0.0.1",
                id = app.id,
                key = pair.key,
            );
            return Err(CommandError::Config(ConfigError(text)));
        }
    }
    Ok(())
}

/// Prints the one line of standard output, and with `--dev` the next steps. A separate thread writes it: if nobody
/// reads standard output, only that thread waits (R-PROC-1).
fn announce(listening: &Listening, dev: Option<&DevApp>, printed: mpsc::Sender<()>) {
    let mut text = line(listening) + "\n";
    if let Some(app) = dev {
        text += &dev_banner(listening.public, listening.admin, app);
    }
    let write = move || {
        if let Err(error) = print(&text) {
            tracing::warn!(%error, "nobody reads standard output");
        }
        let _ = printed.send(());
    };
    if let Err(error) = thread::Builder::new().name("announce".into()).spawn(write) {
        tracing::warn!(%error, "no thread to write the line to standard output");
    }
    tracing::info!(
        public = %listening.public,
        driver = listening.driver,
        reason = listening.driver_reason,
        shards = listening.shards,
        "listening"
    );
}

fn line(listening: &Listening) -> String {
    let Listening { public, metrics, admin, driver, shards, .. } = listening;
    let health = metrics.map_or_else(|| "no health port".into(), |address| format!("health on {address}"));
    let admin = admin.map_or_else(String::new, |address| format!(", admin API on {address}"));
    let shards = if *shards == 1 { "1 shard".into() } else { format!("{shards} shards") };
    format!("relay {} listening on {public} ({driver}, {shards}, {health}{admin})", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::DriverKind;
    use crate::label::Label;

    /// The line that scripts wait for contains the ports that were bound and the driver that was chosen.
    #[test]
    fn the_line_names_ports_and_driver() {
        let mut listening = Listening {
            public: "127.0.0.1:6001".parse().expect("address"),
            metrics: Some("127.0.0.1:9601".parse().expect("address")),
            admin: Some("127.0.0.1:6002".parse().expect("address")),
            driver: DriverKind::Uring.label(),
            driver_reason: String::new(),
            shards: 2,
        };
        assert_eq!(
            line(&listening),
            "relay 0.1.0 listening on 127.0.0.1:6001 (io_uring, 2 shards, health on 127.0.0.1:9601, admin API on 127.0.0.1:6002)"
        );
        (listening.metrics, listening.admin, listening.shards) = (None, None, 1);
        assert!(line(&listening).ends_with("(io_uring, 1 shard, no health port)"));
    }
}
