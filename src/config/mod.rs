//! What `relay serve` was told, after flags, `RELAY_*` environment, `relay.toml`, variables of other servers and
//! defaults were weighed (in this order). Everything here is checked: nobody downstream parses a setting again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::api::info::InfoRules;
use crate::app::Secret;
use crate::channel::name::NameRules;
use crate::limits;
use crate::metrics::exposition::is_prefix;
use crate::metrics::figures::Identity;
use crate::shard::{METRICS_PREFIX, ShardOptions};
use crate::store::record::{check_id, check_key, check_secret};
use crate::webhook::WebhookOptions;
use crate::webhook::client::TrustedRoots;

mod alias;
mod environment;
mod file;
mod setting;

pub use alias::SOKETI_APP;
pub use setting::{ConfigError, SETTINGS, Setting, Settings, Source};

/// Which driver moves the bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IoChoice {
    /// io_uring where the kernel allows it, else epoll; the choice is told at start.
    #[default]
    Auto,
    /// io_uring, or the start fails.
    Uring,
    /// epoll.
    Epoll,
}

/// What becomes of a metrics port that is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricsPort {
    /// The start fails.
    Required,
    /// A warning, and the server goes on without it (`--dev`).
    Optional,
}

/// Whether the server is for trying things out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// For real.
    Production,
    /// `--dev`: loopback only, a known app, data in `./.relay`.
    Dev,
}

/// All that the server assembly needs to know.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Public port: WebSockets and the HTTP API. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Health and metrics port. Port 0 takes a free one.
    pub metrics_listen: SocketAddr,
    /// What to do if the metrics port is taken.
    pub metrics_port: MetricsPort,
    /// Data directory.
    pub data: PathBuf,
    /// Shards, 1 to [`limits::SHARDS_MAX`]; one thread each.
    pub shards: u16,
    /// Driver.
    pub io: IoChoice,
    /// Sends of at least this many bytes are zero-copy where io_uring runs and the kernel does not copy all the same.
    pub send_zc: Option<u32>,
    /// Connections of the whole process at once; `None`: what descriptors and memory allow.
    pub connections_max: Option<u32>,
    /// Options that every shard gets.
    pub shard: ShardOptions,
    /// Webhooks.
    pub webhooks: WebhookOptions,
    /// A shard that does not turn for this many seconds ends the process; 0 is never (R-PROC-3).
    pub watchdog_s: u32,
}

/// The app of `RELAY_APP_ID`, `RELAY_APP_KEY` and `RELAY_APP_SECRET`, or of another server's variables.
#[derive(Clone, Debug)]
pub struct ConfiguredApp {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: String,
    /// Its secret.
    pub secret: Secret,
    /// Whether it is enabled when it is new.
    pub enabled: bool,
    /// App settings by name for the case that it is new: those that were named, then defaults of another server.
    pub settings: Vec<(&'static str, String)>,
    /// How many of the settings were named.
    pub explicit: usize,
    /// Webhooks for the case that it is new: the variable, and its JSON list.
    pub webhooks: Option<(String, String)>,
}

/// Where data is when nobody says otherwise.
pub const DATA_DEFAULT: &str = "/var/lib/relay";
/// Where data is with `--dev` when nobody says otherwise.
pub const DATA_DEV_DEFAULT: &str = "./.relay";

const LISTEN_PORT: u16 = 6001;
const METRICS_PORT: u16 = 9601;

impl ServeConfig {
    /// Checks all settings that concern the server.
    pub fn new(settings: &Settings, mode: Mode) -> Result<Self, ConfigError> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (address, data, drain_ms, metrics_port) = match mode {
            Mode::Production => {
                let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                (any, DATA_DEFAULT, limits::DRAIN_MS, MetricsPort::Required)
            }
            Mode::Dev => (loopback, DATA_DEV_DEFAULT, 0, MetricsPort::Optional),
        };
        settings.check_aliases()?;
        let listen = match settings.parse("listen", address_and_port)? {
            Some(listen) => listen,
            None => of_parts(settings, ("listen_host", address), ("listen_port", LISTEN_PORT))?,
        };
        if mode == Mode::Dev && !listen.ip().is_loopback() {
            let text = format!(
                "{} is {listen}, but --dev has a well-known secret and serves this machine only: use an address \
                 such as 127.0.0.1:{LISTEN_PORT}, or leave out --dev",
                listen_origin(settings)
            );
            return Err(ConfigError(text));
        }
        let metrics_listen = match settings.parse("metrics_listen", address_and_port)? {
            Some(listen) => listen,
            None => of_parts(settings, ("metrics_host", loopback), ("metrics_port", METRICS_PORT))?,
        };
        let io = settings.parse("io", io)?.unwrap_or_default();
        let send_zc = settings.parse("send_zc", |text| within(text, 1, limits::SEND_BYTES_MAX as u32))?;
        if send_zc.is_some() && io == IoChoice::Epoll {
            let text = format!(
                "{} asks for zero-copy sends, which epoll does not have: leave it out, or set {} to auto or uring",
                settings.origin("send_zc"),
                settings.origin("io")
            );
            return Err(ConfigError(text));
        }
        Ok(Self {
            listen,
            metrics_listen,
            metrics_port,
            data: settings.text("data").map_or_else(|| data.into(), PathBuf::from),
            shards: settings.parse("shards", shards)?.unwrap_or_else(shards_default),
            io,
            send_zc,
            connections_max: settings.parse("max_connections", |text| within(text, 1, 10_000_000))?,
            shard: shard_options(settings, drain_ms)?,
            webhooks: webhooks(settings)?,
            watchdog_s: settings
                .parse("watchdog", |text| within(text, 0, limits::WATCHDOG_SETTING_S_MAX))?
                .unwrap_or(limits::WATCHDOG_S),
        })
    }
}

/// What an operator may set of the shards; `drain_ms` is the mode's default.
fn shard_options(settings: &Settings, drain_ms: u64) -> Result<ShardOptions, ConfigError> {
    Ok(ShardOptions {
        path_prefix: settings.parse("path_prefix", path_prefix)?.unwrap_or_default(),
        activity_timeout_s: settings
            .parse("activity_timeout", |text| within(text, 1, limits::ACTIVITY_TIMEOUT_SETTING_S_MAX))?
            .unwrap_or(limits::ACTIVITY_TIMEOUT_S),
        http_keep_alive_s: settings
            .parse("http_keep_alive", |text| {
                within(text, limits::HTTP_KEEP_ALIVE_SETTING_S_MIN, limits::HTTP_KEEP_ALIVE_SETTING_S_MAX)
            })?
            .unwrap_or(limits::HTTP_KEEP_ALIVE_S),
        strict_protocol: settings.parse("strict_protocol", switch)?.unwrap_or(false),
        channel_names: settings.parse("channel_names", channel_names)?.unwrap_or_default(),
        trusted_proxies: settings.parse("trusted_proxies", networks)?.unwrap_or_default(),
        drain_ms: settings.parse("drain_ms", |text| within(text, 0, 600_000))?.unwrap_or(drain_ms),
        cache_ttl_s: settings
            .parse("cache_ttl", |text| within(text, 1, limits::CACHE_TTL_SETTING_S_MAX))?
            .unwrap_or(limits::CACHE_TTL_S),
        auth_failures_per_minute: settings
            .parse("auth_failures_per_minute", |text| within(text, 1, limits::AUTH_FAILURES_PER_MINUTE_SETTING_MAX))?
            .unwrap_or(limits::AUTH_FAILURES_PER_MINUTE),
        authorization_timeout_s: settings
            .parse("authorization_timeout", |text| within(text, 1, 3_600))?
            .unwrap_or(limits::AUTHORIZATION_TIMEOUT_S),
        info_rules: settings.parse("strict_pusher_info", info_rules)?.unwrap_or_default(),
        metrics_prefix: settings
            .parse("metrics_prefix", |text| is_prefix(text).then(|| text.to_owned()))?
            .unwrap_or_else(|| METRICS_PREFIX.to_owned()),
        identity: Identity::default(),
        fan_out_step: limits::FAN_OUT_STEP,
    })
}

/// The settings of webhooks, for the server and for commands that speak to endpoints themselves.
pub fn webhooks(settings: &Settings) -> Result<WebhookOptions, ConfigError> {
    let default = WebhookOptions::default();
    Ok(WebhookOptions {
        threads: settings.parse("webhook_threads", |text| within(text, 1, 256))?.unwrap_or(default.threads),
        queue_max: settings
            .parse("webhook_queue", |text| within(text, 1, limits::WEBHOOK_DELIVERIES_MAX))?
            .unwrap_or(default.queue_max),
        retry_ms: settings.parse("webhook_retry_ms", |text| within(text, 10, 60_000))?.unwrap_or(default.retry_ms),
        allowed: settings.parse("webhook_allow", networks)?.unwrap_or_default(),
        roots: settings.parse("webhook_ca", roots)?.unwrap_or_default(),
    })
}

/// The certificates of a PEM file.
fn roots(path: &str) -> Option<TrustedRoots> {
    TrustedRoots::from_pem(&std::fs::read(path).ok()?)
}

impl ConfiguredApp {
    /// The app of the settings, if they name one. One or two of the three are a mistake.
    pub fn new(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        settings.check_aliases()?;
        let names = ["app_id", "app_key", "app_secret"];
        let [Some(id), Some(key), Some(secret)] = names.map(|name| settings.text(name)) else {
            let missing: Vec<_> = names.into_iter().filter(|name| settings.text(name).is_none()).collect();
            let Some(given) = names.into_iter().find(|name| settings.text(name).is_some()) else {
                return Ok(None);
            };
            let text = format!(
                "{} is set but {} not: an app needs RELAY_APP_ID, RELAY_APP_KEY and RELAY_APP_SECRET, all three or none",
                settings.origin(given),
                missing.join(" and ") + if missing.len() == 1 { " is" } else { " are" },
            );
            return Err(ConfigError(text));
        };
        let checks = [("app_id", check_id(id)), ("app_key", check_key(key)), ("app_secret", check_secret(secret))];
        for (name, check) in checks {
            check.map_err(|error| ConfigError(format!("{}: {error}", settings.origin(name))))?;
        }
        let given = |part: &str| settings.text(part);
        let named = alias::APP_SETTINGS.into_iter().filter_map(|(part, name)| Some((name, given(part)?.to_owned())));
        let mut app_settings: Vec<(&'static str, String)> = named.collect();
        let explicit = app_settings.len();
        // The app of another server has the limits that it had there.
        if settings.origin("app_id").starts_with("SOKETI_") {
            let missing =
                SOKETI_APP.into_iter().filter(|(name, _)| app_settings.iter().all(|(known, _)| known != name));
            let missing: Vec<_> = missing.map(|(name, value)| (name, value.to_owned())).collect();
            app_settings.extend(missing);
        }
        Ok(Some(Self {
            id: id.into(),
            key: key.into(),
            secret: Secret::new(secret),
            enabled: given("app_enabled") != Some("false"),
            settings: app_settings,
            explicit,
            webhooks: given("app_webhooks").map(|text| (settings.origin("app_webhooks"), text.to_owned())),
        }))
    }
}

/// An address whose host and port variables of other servers may name.
fn of_parts(
    settings: &Settings,
    (host, default_host): (&'static str, IpAddr),
    (port, default_port): (&'static str, u16),
) -> Result<SocketAddr, ConfigError> {
    let host = settings.parse(host, |text| text.parse().ok())?.unwrap_or(default_host);
    let port = settings.parse(port, |text| text.parse().ok())?.unwrap_or(default_port);
    Ok(SocketAddr::new(host, port))
}

/// Who named the address to listen on.
fn listen_origin(settings: &Settings) -> String {
    let part = if settings.text("listen").is_some() { "listen" } else { "listen_host" };
    settings.origin(part)
}

fn shards_default() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores.min(limits::SHARDS_MAX)).expect("SHARDS_MAX fits")
}

/// `localhost:6001` is taken for the IPv4 address: a name is not looked up.
fn address_and_port(text: &str) -> Option<SocketAddr> {
    text.replacen("localhost:", "127.0.0.1:", 1).parse().ok()
}

fn within<T: std::str::FromStr + PartialOrd>(text: &str, least: T, most: T) -> Option<T> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

fn shards(text: &str) -> Option<u16> {
    within(text, 1, limits::SHARDS_MAX as u16)
}

fn io(text: &str) -> Option<IoChoice> {
    match text {
        "auto" => Some(IoChoice::Auto),
        "uring" | "io_uring" => Some(IoChoice::Uring),
        "epoll" => Some(IoChoice::Epoll),
        _ => None,
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// `strict_pusher_info` (P-HTTP-11).
fn info_rules(text: &str) -> Option<InfoRules> {
    switch(text).map(|strict| if strict { InfoRules::Strict } else { InfoRules::Lenient })
}

fn channel_names(text: &str) -> Option<NameRules> {
    match text {
        "default" => Some(NameRules::Default),
        "strict" => Some(NameRules::Strict),
        "permissive" => Some(NameRules::Permissive),
        _ => None,
    }
}

/// `""` or `/x` or `/x/y`, never ending in `/` (P-CONN-2).
fn path_prefix(text: &str) -> Option<String> {
    let segment = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
    };
    let valid = text.strip_prefix('/').is_some_and(|rest| rest.len() < 200 && rest.split('/').all(segment));
    (text.is_empty() || valid).then(|| text.into())
}

/// Addresses or networks, joined by commas.
fn networks(text: &str) -> Option<Vec<IpNet>> {
    let parse =
        |part: &str| part.parse().ok().or_else(|| part.parse().ok().map(|address: IpAddr| IpNet::from(address)));
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse).collect()
}
