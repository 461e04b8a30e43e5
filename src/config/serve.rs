//! The checked configuration of a server.

use std::net::SocketAddr;
use std::time::Duration;

use super::error::ConfigError;
use super::settings::{AdminListen, IoChoice, LISTEN_PORT, Mode, ServerSettings};
use super::source::Settings;
use crate::api::info::InfoRules;
use crate::limits;
use crate::metrics::figures::Identity;
use crate::shard::ShardOptions;
use crate::webhook::WebhookOptions;

/// What happens if the metrics port is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricsPort {
    /// The start fails.
    Required,
    /// Relay logs a warning and serves without it (`--dev`).
    Optional,
}

/// Where the admin API listens, and what happens if that address is taken (R-ADMIN-10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AdminPort {
    /// There is none.
    Off,
    /// The start fails.
    Required(SocketAddr),
    /// The default address: Relay logs a line and serves without the admin API.
    Optional(SocketAddr),
}

/// Everything that the assembly of the server needs.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Every setting.
    pub server: ServerSettings,
    /// The behaviour if the metrics port is taken.
    pub metrics_port: MetricsPort,
    /// The address of the admin API.
    pub admin_port: AdminPort,
    /// Settings of the shards.
    pub shard: ShardOptions,
    /// Settings of webhooks.
    pub webhooks: WebhookOptions,
}

impl ServeConfig {
    /// Checks all settings that concern the server.
    pub fn new(settings: &Settings, mode: Mode) -> Result<Self, ConfigError> {
        settings.check_aliases()?;
        let mut server = settings.read(mode, |_| true)?;
        take_parts(settings, &mut server)?;
        if mode == Mode::Dev && !server.listen.ip().is_loopback() {
            let part = if settings.text("listen").is_some() { "listen" } else { "listen_host" };
            let text = format!(
                "{} is {}, but --dev has a well-known secret and serves this machine only: use an address \
                 such as 127.0.0.1:{LISTEN_PORT}, or leave out --dev",
                settings.origin(part),
                server.listen,
            );
            return Err(ConfigError(text));
        }
        if server.send_zc.is_some() && server.io == IoChoice::Epoll {
            let text = format!(
                "{} asks for zero-copy sends, which epoll does not have: leave it out, or set {} to auto or uring",
                settings.origin("send_zc"),
                settings.origin("io")
            );
            return Err(ConfigError(text));
        }
        let metrics_port = match mode {
            Mode::Production => MetricsPort::Required,
            Mode::Dev => MetricsPort::Optional,
        };
        let admin_port = admin_port(settings, &server)?;
        let (shard, webhooks) = (shard_options(&server, mode), webhook_options(&server));
        Ok(Self { metrics_port, admin_port, shard, webhooks, server })
    }
}

/// The hosts and ports that variables of other servers name, if the complete address is not set.
fn take_parts(settings: &Settings, server: &mut ServerSettings) -> Result<(), ConfigError> {
    let whole = [
        (&mut server.listen, "listen", "listen_host", "listen_port"),
        (&mut server.metrics_listen, "metrics_listen", "metrics_host", "metrics_port"),
    ];
    for (address, name, host, port) in whole {
        if settings.text(name).is_some() {
            continue;
        }
        if let Some(host) = settings.parse(host, |text| text.parse().ok())? {
            address.set_ip(host);
        }
        if let Some(port) = settings.parse(port, |text| text.parse().ok())? {
            address.set_port(port);
        }
    }
    Ok(())
}

/// Refuses an address that others can reach unless the operator names how the token is protected on the way (threat
/// T46).
fn admin_port(settings: &Settings, server: &ServerSettings) -> Result<AdminPort, ConfigError> {
    if server.admin_behind_proxy && server.trusted_proxies.is_empty() {
        let origin = settings.origin("admin_behind_proxy");
        return Err(ConfigError(format!("{origin} needs the addresses of the proxies: set trusted_proxies")));
    }
    let AdminListen::At(address) = server.admin_listen else {
        return Ok(AdminPort::Off);
    };
    if !address.ip().is_loopback() && !server.admin_behind_proxy && !server.admin_plain_http {
        return Err(ConfigError(format!(
            "{} is {address}, which others can reach, and admin tokens would cross the network in plain text: use a \
             loopback address such as 127.0.0.1:6002, or set admin_behind_proxy with trusted_proxies if a proxy ends \
             TLS, or set admin_plain_http if the port is mapped to a loopback address only",
            settings.origin("admin_listen"),
        )));
    }
    let is_set = settings.text("admin_listen").is_some();
    Ok(if is_set { AdminPort::Required(address) } else { AdminPort::Optional(address) })
}

fn shard_options(server: &ServerSettings, mode: Mode) -> ShardOptions {
    ShardOptions {
        refuse_pages_with_secret: mode == Mode::Dev,
        path_prefix: server.path_prefix.clone(),
        activity_timeout_s: server.activity_timeout,
        http_keep_alive: Duration::from_secs(server.http_keep_alive.into()),
        strict_protocol: server.strict_protocol,
        channel_names: server.channel_names,
        trusted_proxies: server.trusted_proxies.clone(),
        drain: Duration::from_millis(server.drain_ms),
        cache_ttl: Duration::from_secs(server.cache_ttl.into()),
        history_bytes: usize::try_from(server.history_bytes_per_shard).unwrap_or(usize::MAX),
        auth_failures_per_minute: server.auth_failures_per_minute,
        authorization_timeout: Duration::from_secs(server.authorization_timeout.into()),
        info_rules: if server.strict_pusher_info { InfoRules::Strict } else { InfoRules::Lenient },
        metrics_prefix: server.metrics_prefix.clone(),
        identity: Identity::default(),
        fan_out_step: limits::FAN_OUT_STEP,
    }
}

fn webhook_options(server: &ServerSettings) -> WebhookOptions {
    WebhookOptions {
        threads: server.webhook_threads,
        queue_max: server.webhook_queue,
        retry_ms: server.webhook_retry_ms,
        allowed: server.webhook_allow.clone(),
        roots: server.webhook_ca.clone(),
    }
}

/// The settings of webhooks alone, for commands that contact endpoints themselves.
pub fn webhooks(settings: &Settings) -> Result<WebhookOptions, ConfigError> {
    Ok(webhook_options(&settings.read(Mode::Production, |name| name.starts_with("webhook_"))?))
}
