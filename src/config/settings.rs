//! The settings of the server, each defined once (see [`crate::setting`]).
//!
//! A new setting is one entry of the table below: it is then a field of [`ServerSettings`], a flag, a variable and a
//! key of `relay.toml`, `check-config` checks it, and `docs/configuration.md` lists it (see `documentation`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::Value;

use crate::app::Secret;
use crate::channel::name::NameRules;
use crate::label::{Label, labels};
use crate::limits;
use crate::metrics::exposition::is_prefix;
use crate::outgoing::client::TrustedRoots;
use crate::setting::{self, Definition, form, number, optional_number, settings, switch};
use crate::shard::METRICS_PREFIX;

settings! {
    /// The settings of the server.
    #[derive(Clone, Debug)]
    pub struct ServerSettings, SERVER_SETTINGS;

    /// Address and port for WebSockets and the HTTP API.
    /// Port 0 takes a free one. With `--dev` only a loopback address is accepted.
    listen: SocketAddr = SocketAddr::new(ANY, LISTEN_PORT),
        address("an address and port such as 127.0.0.1:6001, 0.0.0.0:6001 or [::]:6001").flag("ADDR:PORT").dev("127.0.0.1:6001");

    /// Address and port for health and metrics.
    /// Port 0 takes a free one. If the port is taken, the start fails; with `--dev` Relay logs a warning and serves
    /// without it. See [metrics.md](metrics.md).
    metrics_listen: SocketAddr = SocketAddr::new(LOOPBACK, METRICS_PORT),
        address("an address and port such as 127.0.0.1:9601; port 0 takes a free one").flag("ADDR:PORT");

    /// Prefix of the names of metrics.
    /// `soketi_` keeps dashboards made for soketi working.
    metrics_prefix: String = METRICS_PREFIX.to_owned(),
        text("letters, digits and underscores that begin with no digit, such as relay_ or soketi_", metrics_prefix).flag("PREFIX");

    /// Address and port for the admin API, or `off`.
    /// Port 0 takes a free one. If the default is taken, Relay logs a line and serves without the admin API; a taken
    /// address that is set fails the start. An address that is not loopback needs `admin_behind_proxy` or
    /// `admin_plain_http`. See [admin.md](admin.md).
    admin_listen: AdminListen = AdminListen::At(SocketAddr::new(LOOPBACK, ADMIN_PORT)),
        form("an address and port such as 127.0.0.1:6002, or off; port 0 takes a free one", read_admin_listen, |listen| listen.text().into())
            .flag("ADDR:PORT").rules("R-ADMIN-10");

    /// Names besides those of this machine by which clients reach the admin API.
    /// Without port and joined by commas, in the file also a list: those of a proxy in front, or of a container.
    admin_hosts: Vec<String> = Vec::new(),
        form("host names without a port, joined by commas, such as relay.example.com", read_hosts, |hosts| hosts.as_slice().into())
            .default_is("none").flag("HOST,HOST").rules("R-ADMIN-12, T45");

    /// The admin API is behind a proxy of `trusted_proxies` that ends TLS.
    /// Then `admin_listen` may be any address, and only those proxies are served.
    admin_behind_proxy: bool = false, switch().flag("true|false").rules("R-ADMIN-10, T46");

    /// The admin API may listen on any address without TLS.
    /// For containers whose port is mapped to a loopback address: everybody on the way reads the admin token.
    admin_plain_http: bool = false, switch().flag("true|false").rules("R-ADMIN-10, T46");

    /// Data directory.
    data: PathBuf = DATA_DEFAULT.into(),
        form("a directory", |text| Some(text.into()), |path: &PathBuf| path.display().to_string().into()).flag("DIR").dev(DATA_DEV_DEFAULT);

    /// Number of shards, one thread each.
    shards: u16 = shards_default(), number("a number", 1, limits::SHARDS_MAX as u64).default_is("one per core").flag("N");

    /// Driver.
    /// `auto` is io_uring where the kernel allows it, else epoll.
    io: IoChoice = IoChoice::Auto, setting::word(IoChoice::LABELS, read_io, |io| io.label().into()).flag("DRIVER");

    /// Send without copying what has at least this many bytes, while the kernel can; io_uring only.
    /// See [tuning.md](tuning.md).
    send_zc: Option<u32> = None, optional_number("bytes", 1, limits::SEND_BYTES_MAX as u32).default_is("never").flag("MIN_BYTES");

    /// Proxies whose X-Forwarded-For, Forwarded and PROXY protocol headers are trusted.
    /// In the file also a list. `X-Forwarded-For` in every form, else `Forwarded`, `X-Forwarded-Proto` and the PROXY
    /// protocol, versions 1 and 2, are trusted from these alone.
    trusted_proxies: Vec<IpNet> = Vec::new(), networks().default_is("none").flag("CIDR,CIDR");

    /// Path under which all routes answer too, such as /relay.
    path_prefix: String = String::new(),
        text("nothing, or a path such as /relay without a slash at its end", path_prefix).default_is("none").flag("PATH").rules("P-CONN-2");

    /// Seconds of silence after which clients ping.
    /// The default keeps silent clients alive behind [proxies](proxies.md) that cut after 55 s; without one, `120` costs a
    /// third of the pings and [less than half of the time](benchmarks.md#cpu-of-idle-connections).
    activity_timeout: u32 = limits::ACTIVITY_TIMEOUT_S,
        number("seconds", 1, limits::ACTIVITY_TIMEOUT_SETTING_S_MAX as u64).flag("SECONDS").rules("P-LIVE-3");

    /// Seconds for which an idle HTTP connection is kept.
    /// Set it longer than the [proxy](proxies.md) in front keeps it.
    http_keep_alive: u32 = limits::HTTP_KEEP_ALIVE_S,
        number("seconds", limits::HTTP_KEEP_ALIVE_SETTING_S_MIN as u64, limits::HTTP_KEEP_ALIVE_SETTING_S_MAX as u64).flag("SECONDS").rules("P-HTTP-20");

    /// Refuse clients that do not name a supported protocol version.
    strict_protocol: bool = false, switch().flag("true|false").rules("P-CONN-3, P-CONN-5");

    /// Which channel names are valid.
    channel_names: NameRules = NameRules::Default, word().flag("RULES").rules("P-CHAN-2");

    /// Seconds for which the last event of a cache channel is kept.
    cache_ttl: u32 = limits::CACHE_TTL_S,
        number("seconds", 1, limits::CACHE_TTL_SETTING_S_MAX as u64).flag("SECONDS").rules("P-CACHE-1");

    /// Bytes of the events that one shard keeps in the history of all apps.
    /// Names and bookkeeping count. A full shard drops the oldest events of the app with most; see [history.md](history.md).
    history_bytes_per_shard: u64 = limits::HISTORY_SHARD_BYTES,
        number("bytes", 0, limits::HISTORY_SHARD_BYTES_SETTING_MAX).flag("BYTES").rules("R-HIST-1, T28");

    /// Failed credentials of one address in a minute before 429.
    /// Valid credentials always pass.
    auth_failures_per_minute: u32 = limits::AUTH_FAILURES_PER_MINUTE,
        number("a number", 1, limits::AUTH_FAILURES_PER_MINUTE_SETTING_MAX as u64).flag("N").rules("T6");

    /// Seconds in which a connection must sign in or join a protected channel, where its app requires it.
    /// Protected channels are private and presence channels; the app requires it with `authorized_connections`.
    authorization_timeout: u32 = limits::AUTHORIZATION_TIMEOUT_S,
        number("seconds", 1, 3_600).flag("SECONDS").rules("P-AUTHZ-1");

    /// Answer 400 for info attributes that do not apply, instead of leaving them out.
    strict_pusher_info: bool = false, switch().flag("true|false").rules("P-HTTP-11");

    /// Time over which connections are closed at shutdown.
    drain_ms: u64 = limits::DRAIN_MS, number("milliseconds", 0, 600_000).flag("MS").dev("0").rules("P-CLOSE-1");

    /// Maximum number of connections of the process.
    /// See [tuning.md](tuning.md).
    max_connections: Option<u32> = None,
        optional_number("a number", 1, 10_000_000).default_is("what descriptors and memory allow").flag("N");

    /// Networks where webhook endpoints may be besides public addresses, also over http.
    /// In the file also a list. See [webhooks.md](webhooks.md).
    webhook_allow: Vec<IpNet> = Vec::new(), networks().default_is("none").flag("CIDR,CIDR");

    /// File of certificates (PEM) that webhook endpoints are checked against, instead of Mozilla's roots.
    webhook_ca: TrustedRoots = TrustedRoots::default(),
        form("a readable file of certificates in PEM", roots, |_| Value::Null).default_is("none").flag("FILE");

    /// Maximum number of concurrent webhook requests.
    webhook_threads: u16 = limits::WEBHOOK_THREADS, number("a number", 1, 256).flag("N");

    /// Maximum number of webhook requests of one app that wait.
    webhook_queue: u32 = limits::WEBHOOK_DELIVERIES_PER_APP_MAX,
        number("a number", 1, limits::WEBHOOK_DELIVERIES_MAX as u64).flag("N");

    /// Milliseconds before a failed webhook is tried again; they grow with each failure.
    /// The further waits are 2, 4 ... 60 times that (P-HOOK-7), in Relay's format 10, 60 and 300 times (R-HOOK-4).
    webhook_retry_ms: u64 = limits::WEBHOOK_RETRY_MS, number("milliseconds", 10, 60_000).flag("MS");

    /// Seconds after which a shard that has stopped ends the process.
    /// See [reliability.md](reliability.md).
    watchdog: u32 = limits::WATCHDOG_S,
        number("seconds", 0, limits::WATCHDOG_SETTING_S_MAX as u64).zero("never").flag("SECONDS").rules("R-PROC-3");

    /// Level or directives of logs.
    log: String = "info".to_owned(),
        text("a level such as info, or directives such as info,relay=debug", |text| Some(text.into())).flag("FILTER").flag_alias("log-level");

    /// Id of the app that the start makes, see [below](#apps-at-the-start).
    /// Not a flag, since others on the machine may see command lines.
    app_id: Option<String> = None, optional_text("the id of an app");

    /// Key of this app.
    app_key: Option<String> = None, optional_text("the key of an app");

    /// Secret of this app.
    app_secret: Option<Secret> = None,
        form("the secret of an app", |text| Some(Some(Secret::new(text))), |_| Value::Null).default_is("none");
}

/// Data directory unless it is set.
pub const DATA_DEFAULT: &str = "/var/lib/relay";
const DATA_DEV_DEFAULT: &str = "./.relay";
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The port of `listen` unless it is set.
pub(super) const LISTEN_PORT: u16 = 6001;
const METRICS_PORT: u16 = 9601;
const ADMIN_PORT: u16 = 6002;

/// Where the admin API listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AdminListen {
    /// Nowhere.
    Off,
    /// On this address.
    At(SocketAddr),
}

impl AdminListen {
    fn text(self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::At(address) => address.to_string(),
        }
    }
}

labels! {
    /// Which driver moves the bytes.
    #[derive(Default)]
    pub enum IoChoice {
        /// io_uring where the kernel allows it, else epoll; the start logs the choice.
        #[default]
        Auto => "auto",
        /// io_uring, or the start fails.
        Uring => "uring",
        /// epoll.
        Epoll => "epoll",
    }
}

/// Whether the server is for development.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// It is not.
    Production,
    /// `--dev`: loopback only, a known app, data in `./.relay`.
    Dev,
}

/// The variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("RELAY_{}", name.to_ascii_uppercase())
}

const fn word<T: Label>() -> Definition<T> {
    setting::word(T::LABELS, T::of_label, |value| value.label().into())
}

fn read_io(text: &str) -> Option<IoChoice> {
    IoChoice::of_label(if text == "io_uring" { "uring" } else { text })
}

const fn address(takes: &'static str) -> Definition<SocketAddr> {
    form(takes, read_address, |address| address.to_string().into())
}

/// `localhost:6001` is the IPv4 address: names are not looked up.
fn read_address(text: &str) -> Option<SocketAddr> {
    text.replacen("localhost:", "127.0.0.1:", 1).parse().ok()
}

fn read_admin_listen(text: &str) -> Option<AdminListen> {
    if text == "off" { Some(AdminListen::Off) } else { read_address(text).map(AdminListen::At) }
}

/// Names and addresses as `Host` has them, without ports: an IPv6 address is in brackets.
fn read_hosts(text: &str) -> Option<Vec<String>> {
    let is_name = |host: &str| {
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match in_brackets {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => {
                host.len() <= 253 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            }
        }
    };
    let hosts = text.split(',').map(str::trim).filter(|host| !host.is_empty());
    let hosts = hosts.map(|host| is_name(host).then(|| host.to_ascii_lowercase())).collect::<Option<Vec<_>>>()?;
    (hosts.len() <= limits::ADMIN_HOSTS_MAX).then_some(hosts)
}

const fn text(takes: &'static str, read: fn(&str) -> Option<String>) -> Definition<String> {
    form(takes, read, |text| text.as_str().into())
}

const fn optional_text(takes: &'static str) -> Definition<Option<String>> {
    form(takes, |text| Some(Some(text.to_owned())), |text| text.as_deref().into()).default_is("none")
}

const fn networks() -> Definition<Vec<IpNet>> {
    form("addresses or networks joined by commas, such as 10.0.0.0/8,192.168.1.7", read_networks, |networks| {
        networks.iter().map(ToString::to_string).collect()
    })
}

fn read_networks(text: &str) -> Option<Vec<IpNet>> {
    let parse =
        |part: &str| part.parse().ok().or_else(|| part.parse().ok().map(|address: IpAddr| IpNet::from(address)));
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse).collect()
}

fn shards_default() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores.min(limits::SHARDS_MAX)).expect("SHARDS_MAX fits")
}

fn metrics_prefix(text: &str) -> Option<String> {
    is_prefix(text).then(|| text.to_owned())
}

/// `""` or `/x` or `/x/y`, never ending in `/` (P-CONN-2).
fn path_prefix(text: &str) -> Option<String> {
    let segment = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
    };
    let valid = text.strip_prefix('/').is_some_and(|rest| rest.len() < 200 && rest.split('/').all(segment));
    (text.is_empty() || valid).then(|| text.into())
}

/// The certificates of a PEM file.
fn roots(path: &str) -> Option<TrustedRoots> {
    TrustedRoots::from_pem(&std::fs::read(path).ok()?)
}
