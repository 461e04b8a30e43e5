//! Variables of other servers that Relay accepts as well, so that a container or unit that ran one of them starts Relay
//! with its environment unchanged. Relay's own configuration (a flag, `RELAY_*`, `relay.toml`) always takes precedence;
//! the variables that are used are reported in one line, by name and never by value.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::settings::{SERVER_SETTINGS, variable};
use crate::app::AppSettings;
use crate::app::settings::APP_SETTINGS;
use crate::limits;
use crate::metrics::exposition::is_prefix;
use crate::setting::{Setting, Takes, read_switch};

/// The result of reading a variable's text.
enum Read {
    /// The text for the setting.
    Value(String),
    /// The variable requests what Relay does anyway.
    Nothing,
    /// The variable requests a feature that Relay does not have.
    Without,
    /// The text is invalid.
    Wrong,
}

struct Alias {
    variable: &'static str,
    /// A setting of the server, one of an app after `app_`, or one of [`PARTS`].
    setting: &'static str,
    /// The values that the variable accepts, if they differ from those of the setting.
    takes: &'static str,
    /// Reads its text, given the values that the setting accepts.
    read: fn(&str, Takes) -> Read,
}

const fn alias(
    variable: &'static str,
    setting: &'static str,
    takes: &'static str,
    read: fn(&str, Takes) -> Read,
) -> Alias {
    Alias { variable, setting, takes, read }
}

/// Parts that only aliases name, with their names in the line at start. Parts of an address count only if the complete
/// address is not given. A setting of the app that the start creates is its name in the table of
/// [`crate::app::settings`] after `app_`.
const PARTS: [(&str, &str); 6] = [
    ("listen_host", "the address of listen"),
    ("listen_port", "the port of listen"),
    ("metrics_host", "the address of metrics_listen"),
    ("metrics_port", "the port of metrics_listen"),
    ("app_enabled", "whether a new app is enabled"),
    ("app_webhooks", "the webhooks of a new app"),
];

/// The setting of an app that a part names.
fn app_setting(part: &str) -> Option<&'static Setting<AppSettings>> {
    Setting::named(APP_SETTINGS, part.strip_prefix("app_")?)
}

/// The part that names a setting of an app.
pub(super) fn part_of_app(name: &str) -> String {
    format!("app_{name}")
}

/// True for a part that describes the app that the start creates.
pub(super) fn is_of_app(part: &str) -> bool {
    ["app_enabled", "app_webhooks"].contains(&part) || app_setting(part).is_some()
}

/// The values that the target of an alias accepts; nothing for a part.
fn accepted(target: &str) -> Takes {
    let server = Setting::named(SERVER_SETTINGS, target).map(|setting| setting.takes);
    server.or_else(|| Some(app_setting(target)?.takes)).unwrap_or(Takes::Form(""))
}

/// The three that define an app: they come from Relay's own names together, or from aliases together.
const APP: [&str; 3] = ["app_id", "app_key", "app_secret"];

/// Values that apply to an app of soketi unless it is configured otherwise, where Relay's own default differs: events
/// of 100 KB, no limit of client events, 2 KB of `user_info` (with space for the `user_id` beside it).
pub const SOKETI_APP: [(&str, &str); 3] =
    [("max_event_data_bytes", "102400"), ("max_client_events_per_second", "0"), ("max_channel_data_bytes", "3072")];

const HOST: &str = "an IP address or localhost";
const PORT: &str = "a port";
const PATH: &str = "a path such as /relay";
const RATE: &str = "a number, or -1 for no limit";
const EVENT_RATE: &str = "a number from 1 to 1000, or -1 for no limit";

const ALIASES: [Alias; 39] = [
    alias("SOKETI_DEFAULT_APP_ID", "app_id", "", text),
    alias("SOKETI_DEFAULT_APP_KEY", "app_key", "", text),
    alias("SOKETI_DEFAULT_APP_SECRET", "app_secret", "", text),
    alias("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "app_client_events", "", switch),
    alias("SOKETI_DEFAULT_APP_MAX_CONNS", "app_max_connections", "a number from 1, or -1 for no quota", quota),
    alias("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", "app_authorized_connections", "", switch),
    alias("SOKETI_DEFAULT_APP_ENABLED", "app_enabled", "true or false", either),
    alias("SOKETI_DEFAULT_APP_WEBHOOKS", "app_webhooks", "a JSON list of webhooks", list),
    alias(
        "SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC",
        "app_max_client_events_per_second",
        EVENT_RATE,
        |text, takes| {
            if text == "-1" { Read::Value("0".into()) } else { within(text, takes) }
        },
    ),
    alias("SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC", "app_id", RATE, unlimited),
    alias("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", "app_id", RATE, unlimited),
    alias("SOKETI_EVENT_MAX_SIZE_IN_KB", "app_max_event_data_bytes", "kilobytes up to 1024", |text, takes| {
        kilobytes(text, 0, takes)
    }),
    alias("SOKETI_EVENT_MAX_CHANNELS_AT_ONCE", "app_max_channels_per_event", "", within),
    alias("SOKETI_EVENT_MAX_BATCH_SIZE", "app_max_batch_events", "", within),
    alias("SOKETI_EVENT_MAX_NAME_LENGTH", "app_max_batch_events", "a number", |text, _| {
        fixed(text, limits::EVENT_NAME_BYTES_MAX)
    }),
    alias("SOKETI_CHANNEL_LIMITS_MAX_NAME_LENGTH", "app_max_batch_events", "a number", |text, _| {
        fixed(text, limits::CHANNEL_NAME_BYTES_MAX)
    }),
    alias("SOKETI_PRESENCE_MAX_MEMBERS", "app_max_presence_members", "", within),
    // soketi limits user_info, Relay the complete channel_data.
    alias("SOKETI_PRESENCE_MAX_MEMBER_SIZE", "app_max_channel_data_bytes", "kilobytes up to 63", |text, takes| {
        kilobytes(text, 1_024, takes)
    }),
    alias("SOKETI_CHANNEL_CACHE_TTL", "cache_ttl", "", within),
    alias(
        "SOKETI_USER_AUTHENTICATION_TIMEOUT",
        "authorization_timeout",
        "milliseconds from 1 to 3600000",
        whole_seconds,
    ),
    alias("SOKETI_METRICS_PROMETHEUS_PREFIX", "metrics_prefix", "", |text, _| {
        if is_prefix(text) { Read::Value(text.into()) } else { Read::Wrong }
    }),
    alias("SOKETI_HOST", "listen_host", HOST, host),
    alias("SOKETI_PORT", "listen_port", PORT, port),
    alias("SOKETI_PATH_PREFIX", "path_prefix", PATH, path),
    alias("SOKETI_SHUTDOWN_GRACE_PERIOD", "drain_ms", "milliseconds", number),
    alias("SOKETI_DEBUG", "log", "true or false", debug),
    alias("SOKETI_METRICS_ENABLED", "metrics_listen", "true or false", |_, _| Read::Nothing),
    alias("SOKETI_METRICS_DRIVER", "metrics_listen", "prometheus", |_, _| Read::Nothing),
    alias("SOKETI_METRICS_HOST", "metrics_host", HOST, host),
    alias("SOKETI_METRICS_SERVER_PORT", "metrics_port", PORT, port),
    alias("PUSHER_APP_ID", "app_id", "", text),
    alias("PUSHER_APP_KEY", "app_key", "", text),
    alias("PUSHER_APP_SECRET", "app_secret", "", text),
    alias("REVERB_APP_ID", "app_id", "", text),
    alias("REVERB_APP_KEY", "app_key", "", text),
    alias("REVERB_APP_SECRET", "app_secret", "", text),
    alias("REVERB_SERVER_HOST", "listen_host", HOST, host),
    alias("REVERB_SERVER_PORT", "listen_port", PORT, port),
    alias("REVERB_SERVER_PATH", "path_prefix", PATH, path),
];

/// The variables of other servers that are set.
#[derive(Debug, Default)]
pub(super) struct Found {
    values: Vec<(&'static str, String)>,
    /// Variables of soketi without a counterpart in Relay. Those of Laravel are left alone: applications read them.
    strangers: Vec<String>,
}

/// The resolved aliases.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Setting, value, and the variable that is named for it in messages.
    pub(super) values: Vec<(&'static str, String, &'static str)>,
    /// Which were used.
    pub(super) note: Option<String>,
    /// Which were not.
    pub(super) warning: Option<String>,
    /// Why a server must not start with them. Commands on the store ignore it.
    pub(super) problem: Option<ConfigError>,
}

impl Found {
    /// Stores a variable if it is one of these. An empty one counts as not set.
    pub(super) fn see(&mut self, variable: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        match ALIASES.iter().find(|alias| alias.variable == variable) {
            Some(alias) => self.values.push((alias.variable, value.into())),
            None if variable.starts_with("SOKETI_") => self.strangers.push(variable.into()),
            None => {}
        }
    }

    /// Resolves them; `is_set` reports the settings that Relay's own names set.
    pub(super) fn resolve(mut self, is_set: impl Fn(&str) -> bool) -> Resolved {
        let mut resolved = Resolved::default();
        let own_app = APP.iter().any(|name| is_set(name));
        let mut taken: BTreeMap<&'static str, Vec<&'static str>> = BTreeMap::new();
        // The order of the table, so that messages do not depend on the order of the environment.
        for alias in &ALIASES {
            let Some((_, value)) = self.values.iter().find(|(variable, _)| *variable == alias.variable) else {
                continue;
            };
            let whole = whole_of(alias.setting);
            if is_set(whole) || (own_app && (APP.contains(&alias.setting) || whole == "app_id")) {
                continue;
            }
            let accepted = accepted(alias.setting);
            let value = match (alias.read)(value, accepted) {
                Read::Value(value) => value,
                Read::Nothing => continue,
                Read::Without => {
                    self.strangers.push(alias.variable.into());
                    continue;
                }
                Read::Wrong => {
                    let variable = alias.variable;
                    let takes = if alias.takes.is_empty() { accepted.to_string() } else { alias.takes.into() };
                    resolved.problem.get_or_insert(ConfigError(format!("{variable} takes {takes}, not {value:?}")));
                    continue;
                }
            };
            let others = taken.entry(alias.setting).or_default();
            others.push(alias.variable);
            match resolved.values.iter().find(|(setting, _, _)| *setting == alias.setting) {
                Some((_, first, earlier)) if *first != value => {
                    let text = format!(
                        "{earlier} and {} disagree: set {} to the one that is meant, or unset the other",
                        alias.variable,
                        variable(whole),
                    );
                    resolved.problem.get_or_insert(ConfigError(text));
                }
                Some(_) => {}
                None => resolved.values.push((alias.setting, value, alias.variable)),
            }
        }
        resolved.note = note(&taken);
        self.strangers.sort_unstable();
        resolved.warning = (!self.strangers.is_empty()).then(|| {
            let names = self.strangers.join(", ");
            format!("these variables of soketi have no counterpart and are ignored: {names}")
        });
        resolved
    }
}

/// The setting that makes a part unnecessary.
fn whole_of(setting: &'static str) -> &'static str {
    match setting {
        "listen_host" | "listen_port" => "listen",
        "metrics_host" | "metrics_port" => "metrics_listen",
        "app_enabled"
        | "app_webhooks"
        | "app_client_events"
        | "app_max_connections"
        | "app_authorized_connections"
        | "app_max_client_events_per_second" => "app_id",
        whole => whole,
    }
}

/// One line for all of them.
fn note(taken: &BTreeMap<&'static str, Vec<&'static str>>) -> Option<String> {
    let parts: Vec<String> = taken
        .iter()
        .map(|(setting, variables)| {
            let part = PARTS.iter().find(|(part, _)| part == setting).map(|(_, called)| (*called).to_owned());
            let of_app = || app_setting(setting).map(|setting| format!("{} of a new app", setting.name));
            let called = part.or_else(of_app).unwrap_or_else(|| (*setting).to_owned());
            format!("{} as {called}", variables.join(" and "))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("variables of other servers were taken: {}", parts.join(", ")))
}

fn text(text: &str, _: Takes) -> Read {
    Read::Value(text.into())
}

fn host(text: &str, _: Takes) -> Read {
    match text {
        "localhost" => Read::Value("127.0.0.1".into()),
        text if text.parse::<std::net::IpAddr>().is_ok() => Read::Value(text.into()),
        _ => Read::Wrong,
    }
}

fn port(text: &str, _: Takes) -> Read {
    match text.parse::<u16>() {
        Ok(port) => Read::Value(port.to_string()),
        // A service named "soketi" gives its containers SOKETI_PORT=tcp://10.0.0.1:6001.
        Err(_) if is_link(text) => Read::Nothing,
        Err(_) => Read::Wrong,
    }
}

/// The value of a service link's `..._PORT`.
pub(super) fn is_link(value: &str) -> bool {
    value.starts_with("tcp://") || value.starts_with("udp://")
}

fn number(text: &str, _: Takes) -> Read {
    if text.parse::<u32>().is_ok() { Read::Value(text.into()) } else { Read::Wrong }
}

/// Without a slash at its end; `/` alone is none.
fn path(text: &str, _: Takes) -> Read {
    match text.trim_matches('/') {
        "" => Read::Nothing,
        path => Read::Value(format!("/{path}")),
    }
}

/// A switch whose default is false.
fn switch(text: &str, _: Takes) -> Read {
    match read_switch(text) {
        Some(true) => Read::Value("true".into()),
        Some(false) => Read::Nothing,
        None => Read::Wrong,
    }
}

/// A switch of which both positions count.
fn either(text: &str, _: Takes) -> Read {
    read_switch(text).map_or(Read::Wrong, |value| Read::Value(value.to_string()))
}

/// A number that the setting accepts, except 0.
fn within(text: &str, takes: Takes) -> Read {
    let (_, most) = takes.range().expect("a setting of a number");
    match text.parse::<u64>() {
        Ok(number) if (1..=most).contains(&number) => Read::Value(number.to_string()),
        Ok(_) | Err(_) => Read::Wrong,
    }
}

/// A limit that Relay has for all apps.
fn fixed(text: &str, here: usize) -> Read {
    match text.parse::<usize>() {
        Ok(number) if number == here => Read::Nothing,
        Ok(_) => Read::Without,
        Err(_) => Read::Wrong,
    }
}

/// A limit that Relay does not have.
fn unlimited(text: &str, _: Takes) -> Read {
    match text.parse::<i64>() {
        Ok(..0) => Read::Nothing,
        Ok(_) => Read::Without,
        Err(_) => Read::Wrong,
    }
}

/// Kilobytes of 1024 bytes, with a fraction perhaps, as bytes; `more` are added.
fn kilobytes(text: &str, more: u64, takes: Takes) -> Read {
    match text.parse::<f64>() {
        Ok(kilobytes) if (0.0..=1e9).contains(&kilobytes) => {
            within(&((kilobytes * 1024.0) as u64 + more).to_string(), takes)
        }
        Ok(_) | Err(_) => Read::Wrong,
    }
}

/// Milliseconds as seconds, rounded up.
fn whole_seconds(text: &str, takes: Takes) -> Read {
    match text.parse::<u32>() {
        Ok(time_ms) => within(&time_ms.div_ceil(1_000).to_string(), takes),
        Err(_) => Read::Wrong,
    }
}

fn list(text: &str, _: Takes) -> Read {
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Ok(webhooks) if webhooks.is_empty() => Read::Nothing,
        Ok(_) => Read::Value(text.into()),
        Err(_) => Read::Wrong,
    }
}

/// Zero refuses everybody in soketi and means no quota here.
fn quota(text: &str, takes: Takes) -> Read {
    if text == "-1" { Read::Nothing } else { within(text, takes) }
}

fn debug(text: &str, takes: Takes) -> Read {
    match switch(text, takes) {
        Read::Value(_) => Read::Value("info,relay=debug".into()),
        other @ (Read::Nothing | Read::Without | Read::Wrong) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(pairs: &[(&str, &str)], set: &[&str]) -> Resolved {
        let mut found = Found::default();
        pairs.iter().for_each(|(variable, value)| found.see(variable, value));
        found.resolve(|name| set.contains(&name))
    }

    fn values(resolved: &Resolved) -> Vec<(&str, &str)> {
        resolved.values.iter().map(|(setting, value, _)| (*setting, value.as_str())).collect()
    }

    /// Every alias sets something that Relay has.
    #[test]
    fn aliases_lead_somewhere() {
        for alias in &ALIASES {
            let whole = SERVER_SETTINGS.iter().any(|setting| setting.name == alias.setting);
            let part = PARTS.iter().any(|(part, _)| *part == alias.setting) || app_setting(alias.setting).is_some();
            assert!(whole || part, "{}", alias.variable);
        }
    }

    /// The environment of soketi's container: each value is read, the note names variables and no value.
    #[test]
    fn a_soketi_environment_is_taken() {
        let pairs = [
            ("SOKETI_METRICS_ENABLED", "1"),
            ("SOKETI_METRICS_SERVER_PORT", "9700"),
            ("SOKETI_DEBUG", "1"),
            ("SOKETI_DEFAULT_APP_SECRET", "hunter2"),
            ("SOKETI_DEFAULT_APP_KEY", "k"),
            ("SOKETI_DEFAULT_APP_ID", "7"),
            ("SOKETI_PORT", "6002"),
            ("SOKETI_PATH_PREFIX", "/ws/"),
            ("SOKETI_DEFAULT_APP_MAX_CONNS", "-1"),
            ("SOKETI_DB_REDIS_HOST", "redis"),
            ("SOKETI_SSL_CERT", ""),
        ];
        let resolved = resolve(&pairs, &[]);
        assert!(resolved.problem.is_none(), "{:?}", resolved.problem);
        let wanted = [
            ("app_id", "7"),
            ("app_key", "k"),
            ("app_secret", "hunter2"),
            ("listen_port", "6002"),
            ("path_prefix", "/ws"),
            ("log", "info,relay=debug"),
            ("metrics_port", "9700"),
        ];
        assert_eq!(values(&resolved), wanted);
        let note = resolved.note.expect("some were taken");
        assert!(note.contains("SOKETI_DEFAULT_APP_SECRET as app_secret"), "{note}");
        assert!(note.contains("SOKETI_PORT as the port of listen"), "{note}");
        assert!(!note.contains("hunter2") && !note.contains("6002"), "{note}");
        let warning = resolved.warning.expect("one was not");
        assert!(warning.ends_with(": SOKETI_DB_REDIS_HOST"), "{warning}");
    }

    /// Two servers' variables for one setting: equal values are accepted, different ones are a problem reported without
    /// the values.
    #[test]
    fn aliases_must_agree() {
        let mut pairs = [("PUSHER_APP_KEY", "a"), ("REVERB_APP_KEY", "a")];
        let resolved = resolve(&pairs, &[]);
        assert_eq!(values(&resolved), [("app_key", "a")]);
        assert!(resolved.note.expect("taken").contains("PUSHER_APP_KEY and REVERB_APP_KEY as app_key"));
        pairs[1].1 = "hunter2";
        let problem = resolve(&pairs, &[]).problem.expect("they disagree").to_string();
        assert!(problem.contains("PUSHER_APP_KEY and REVERB_APP_KEY disagree: set RELAY_APP_KEY"), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }

    /// Relay's own configuration takes precedence: no conflict, no note; an app is taken completely or not at all.
    #[test]
    fn own_names_win() {
        let pairs = [("PUSHER_APP_ID", "1"), ("REVERB_APP_ID", "2"), ("SOKETI_PORT", "no port")];
        for set in [["app_id", "listen"], ["app_secret", "listen"]] {
            let resolved = resolve(&pairs, &set);
            assert!(resolved.problem.is_none() && resolved.values.is_empty() && resolved.note.is_none());
        }
    }

    /// Variables of soketi whose settings Relay has: its units, its value for no limit, `TRUE`. A limit that Relay does
    /// not have is reported, unless it means no limit.
    #[test]
    fn limits_of_soketi_are_taken() {
        let pairs = [
            ("SOKETI_DEFAULT_APP_ENABLED", "FALSE"),
            ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "TRUE"),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "-1"),
            ("SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC", "20"),
            ("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", "-1"),
            ("SOKETI_DEFAULT_APP_WEBHOOKS", "[]"),
            ("SOKETI_EVENT_MAX_SIZE_IN_KB", "50.5"),
            ("SOKETI_EVENT_MAX_CHANNELS_AT_ONCE", "20"),
            ("SOKETI_EVENT_MAX_BATCH_SIZE", "30"),
            ("SOKETI_EVENT_MAX_NAME_LENGTH", "200"),
            ("SOKETI_CHANNEL_LIMITS_MAX_NAME_LENGTH", "150"),
            ("SOKETI_PRESENCE_MAX_MEMBERS", "500"),
            ("SOKETI_PRESENCE_MAX_MEMBER_SIZE", "2"),
            ("SOKETI_CHANNEL_CACHE_TTL", "3600"),
            ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "30001"),
            ("SOKETI_METRICS_PROMETHEUS_PREFIX", "soketi_"),
        ];
        let resolved = resolve(&pairs, &[]);
        assert!(resolved.problem.is_none(), "{:?}", resolved.problem);
        let mut found = values(&resolved);
        found.sort_unstable();
        let wanted = [
            ("app_client_events", "true"),
            ("app_enabled", "false"),
            ("app_max_batch_events", "30"),
            ("app_max_channel_data_bytes", "3072"),
            ("app_max_channels_per_event", "20"),
            ("app_max_client_events_per_second", "0"),
            ("app_max_event_data_bytes", "51712"),
            ("app_max_presence_members", "500"),
            ("authorization_timeout", "31"),
            ("cache_ttl", "3600"),
            ("metrics_prefix", "soketi_"),
        ];
        assert_eq!(found, wanted);
        let warning = resolved.warning.expect("two have no counterpart");
        let named = ": SOKETI_CHANNEL_LIMITS_MAX_NAME_LENGTH, SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC";
        assert!(warning.ends_with(named), "{warning}");
    }

    /// Invalid text is reported with the accepted values; variables of service links are ignored.
    #[test]
    fn bad_values_are_problems() {
        for (variable, value) in [
            ("SOKETI_PORT", "65536"),
            ("REVERB_SERVER_HOST", "ws.example.com"),
            ("SOKETI_SHUTDOWN_GRACE_PERIOD", "3s"),
            ("SOKETI_DEBUG", "maybe"),
            ("SOKETI_DEFAULT_APP_ENABLED", "maybe"),
            ("SOKETI_DEFAULT_APP_MAX_CONNS", "0"),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "1001"),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "0"),
            ("SOKETI_DEFAULT_APP_WEBHOOKS", "https://example.com/"),
            ("SOKETI_EVENT_MAX_SIZE_IN_KB", "1025"),
            ("SOKETI_PRESENCE_MAX_MEMBER_SIZE", "64"),
            ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "3600001"),
            ("SOKETI_METRICS_PROMETHEUS_PREFIX", "7_"),
        ] {
            let problem = resolve(&[(variable, value)], &[]).problem.expect(variable).to_string();
            assert!(problem.starts_with(&format!("{variable} takes ")), "{problem}");
        }
        let link = resolve(&[("SOKETI_PORT", "tcp://10.0.0.1:6001")], &[]);
        assert!(link.problem.is_none() && link.values.is_empty());
    }
}
