//! The values of a configuration that concern the server rather than one app.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use super::app::{self, is_empty, number, truth};
use super::entries::Entry;
use super::origin::Origin;
use super::table::Effect;
use super::verdict;
use crate::app::webhook::Batching;
use crate::config::SERVER_SETTINGS;
use crate::limits;
use crate::metrics::exposition::is_prefix;

/// The result for one value.
pub(super) enum Verdict {
    /// It became this setting.
    Taken(String),
    /// It became this setting, with another value.
    Changed(String),
    /// Relay behaves this way anyway.
    Same,
    /// It applies to all apps that do not set another.
    OfApps(verdict::Verdict),
    /// It has no counterpart. `at` may be a complete section, reported once.
    Not { at: String, effect: Effect, reason: &'static str },
    /// That server does not accept it there; this describes the accepted values.
    Wrong(&'static str),
}

/// The settings collected so far.
#[derive(Default)]
pub(super) struct Taken {
    host: Option<IpAddr>,
    port: Option<u16>,
    metrics_host: Option<IpAddr>,
    metrics_port: Option<u16>,
    others: Vec<(&'static str, Value)>,
    /// How many events one request to a webhook contains: those servers set it for all.
    pub(super) batching: Batching,
}

const PORT: &str = "a port";
const ADDRESS: &str = "an IP address";
const NUMBER: &str = "a number";
const TLS: &str = "Relay serves plain text: a proxy in front of it has to end TLS";
const RATES: &str = "Relay limits requests per app, not per address: see requests_per_minute";

impl Taken {
    /// The settings, for `relay.toml`.
    pub(super) fn settings(self) -> Vec<(&'static str, Value)> {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let mut settings = Vec::new();
        if self.host.is_some() || self.port.is_some() {
            let listen = SocketAddr::new(self.host.unwrap_or(any), self.port.unwrap_or(6001));
            settings.push(("listen", json!(listen.to_string())));
        }
        if self.metrics_host.is_some() || self.metrics_port.is_some() {
            let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let listen = SocketAddr::new(self.metrics_host.unwrap_or(loopback), self.metrics_port.unwrap_or(9601));
            settings.push(("metrics_listen", json!(listen.to_string())));
        }
        settings.extend(self.others);
        settings
    }

    /// Processes one value.
    pub(super) fn take(&mut self, origin: Origin, entry: &Entry) -> Verdict {
        let words: Vec<&str> = entry.path.iter().map(String::as_str).collect();
        match origin {
            Origin::Soketi | Origin::Sockudo => self.of_soketi(origin, &words, entry),
            Origin::Reverb => self.of_reverb(&words, entry),
            Origin::LaravelWebsockets => self.of_laravel_websockets(&words, entry),
        }
    }

    fn of_soketi(&mut self, origin: Origin, words: &[&str], entry: &Entry) -> Verdict {
        let value = &entry.value;
        match words {
            ["host"] => set("listen", &mut self.host, address(value), ADDRESS),
            ["port"] => set("listen", &mut self.port, port(value), PORT),
            ["metrics", "host"] => set("metrics_listen", &mut self.metrics_host, address(value), ADDRESS),
            ["metrics", "port"] => set("metrics_listen", &mut self.metrics_port, port(value), PORT),
            ["metrics", "enabled"] => Verdict::Same,
            ["metrics", "driver"] if value == "prometheus" => Verdict::Same,
            ["metrics", "prometheus", "prefix"] => match value.as_str() {
                Some(prefix) if is_prefix(prefix) => self.other("metrics_prefix", json!(prefix)),
                Some(_) | None => Verdict::Wrong("letters, digits and underscores that begin with no digit"),
            },
            ["pathPrefix"] => self.path(value),
            ["debug"] => match truth(value) {
                Some(true) => self.other("log", json!("info,relay=debug")),
                Some(false) => Verdict::Same,
                None => Verdict::Wrong("true or false"),
            },
            ["shutdownGracePeriod" | "userAuthenticationTimeout" | "activityTimeout"]
            | ["channelLimits", "cacheTtl"] => self.time(origin, words, value),
            ["channelLimits", "maxNameLength"] => of_apps("maxChannelNameLength", value),
            ["presence", "maxMembersPerChannel"] => of_apps("maxPresenceMembersPerChannel", value),
            ["presence", "maxMemberSizeInKb"] => of_apps("maxPresenceMemberSizeInKb", value),
            ["eventLimits", "maxChannelsAtOnce"] => of_apps("maxEventChannelsAtOnce", value),
            ["eventLimits", "maxNameLength"] => of_apps("maxEventNameLength", value),
            ["eventLimits", "maxPayloadInKb"] => of_apps("maxEventPayloadInKb", value),
            ["eventLimits", "maxBatchSize"] => of_apps("maxEventBatchSize", value),
            ["appManager", "driver"] if value == "array" || value == "memory" => Verdict::Same,
            ["appManager", "driver"] => {
                not(entry, "the apps are in a database: export them as a JSON list of apps and migrate that file")
            }
            ["appManager", "array", "apps"] if is_empty(value) => Verdict::Same,
            ["adapter", "driver"] if value == "local" => Verdict::Same,
            ["adapter", "driver"] => {
                not(entry, "Relay is one process with one thread per core; there is no cluster yet")
            }
            ["ssl", ..] if is_empty(value) || truth(value) == Some(false) => Verdict::Same,
            ["ssl", "enabled"] => loosens(section(entry, words, TLS)),
            ["ssl", "certPath" | "keyPath"] if origin == Origin::Soketi => loosens(section(entry, words, TLS)),
            ["ssl", ..] => section(entry, words, TLS),
            ["webhooks", ..] if is_empty(value) => Verdict::Same,
            ["webhooks", "batching", rest @ ..] => self.batching(rest, entry),
            ["webhooks", ..] => section(entry, words, "Relay bounds and repeats deliveries by itself"),
            ["cors", ..] => section(entry, words, "who may connect is an app's setting allowed_origins"),
            ["queue", ..] => section(entry, words, "Relay queues by itself and needs no other service"),
            ["rateLimiter", "enabled"] if truth(value) == Some(true) => loosens(section(entry, words, RATES)),
            ["rateLimiter", ..] => section(entry, words, RATES),
            ["websocketMaxPayloadKb"] => not(entry, "a message is bounded by max_event_data_bytes of the app"),
            [
                "database" | "databasePooling" | "cache" | "cluster" | "instance" | "httpApi" | "mode" | "adapter"
                | "appManager" | "metrics" | "cleanup" | "logging" | "unixSocket",
                ..,
            ] => section(entry, words, "Relay needs no such thing, or decides it by itself"),
            _ => section(entry, words, "Relay has no counterpart"),
        }
    }

    /// Times of soketi, and those that Sockudo gives in another unit.
    fn time(&mut self, origin: Origin, words: &[&str], value: &Value) -> Verdict {
        let number = number(value);
        match words {
            ["shutdownGracePeriod"] => {
                // soketi counts milliseconds, Sockudo seconds.
                let unit_ms = if origin == Origin::Sockudo { 1_000 } else { 1 };
                self.number("drain_ms", number.and_then(|time| time.checked_mul(unit_ms)))
            }
            ["userAuthenticationTimeout"] => {
                let unit = if origin == Origin::Sockudo { 1 } else { 1_000 };
                let seconds = number.map(|time| time.max(0).saturating_add(unit - 1) / unit);
                self.number("authorization_timeout", seconds)
            }
            ["activityTimeout"] => self.number("activity_timeout", number),
            _ => self.number("cache_ttl", number),
        }
    }

    fn of_reverb(&mut self, words: &[&str], entry: &Entry) -> Verdict {
        let value = &entry.value;
        match words {
            ["default" | "enabled"] | ["apps", "provider"] => Verdict::Same,
            ["servers", _, "host"] => set("listen", &mut self.host, address(value), ADDRESS),
            ["servers", _, "port"] => set("listen", &mut self.port, port(value), PORT),
            ["servers", _, "path"] => self.path(value),
            ["servers", _, "hostname"] if is_empty(value) => Verdict::Same,
            ["servers", _, "hostname"] => not(entry, "Relay answers to every name; a proxy may choose by name"),
            ["servers", _, "options", ..] if is_empty(value) => Verdict::Same,
            ["servers", _, "options", "tls", "localCert"] => loosens(not(entry, TLS)),
            ["servers", _, "options", ..] => not(entry, TLS),
            ["servers", _, "maxRequestSize"] => match number(value) {
                Some(there) if there > limits::EVENT_DATA_BYTES_MAX as i64 => {
                    let text = there.min(app::most("max_event_data_bytes")).to_string();
                    Verdict::OfApps(verdict::Verdict::Set("max_event_data_bytes", text))
                }
                Some(_) => Verdict::Same,
                None => Verdict::Wrong(NUMBER),
            },
            ["servers", _, "scaling", "enabled"] if truth(value) == Some(true) => {
                not(entry, "Relay is one process with one thread per core; there is no cluster yet")
            }
            ["servers", _, "scaling", ..] => Verdict::Same,
            ["servers", _, _, ..] => not(entry, "it is Laravel's own, or Relay decides it by itself"),
            _ => section(entry, words, "Relay has no counterpart"),
        }
    }

    fn of_laravel_websockets(&mut self, words: &[&str], entry: &Entry) -> Verdict {
        let value = &entry.value;
        match words {
            ["dashboard", "port"] => set("listen", &mut self.port, port(value), PORT),
            ["allowedOrigins"] if is_empty(value) => Verdict::Same,
            ["allowedOrigins"] => {
                let origins = Entry { path: vec!["allowedOrigins".into()], ..entry.clone() };
                Verdict::OfApps(app::field(Origin::LaravelWebsockets, &origins))
            }
            ["maxRequestSizeInKb"] => of_apps("maxEventPayloadInKb", value),
            ["ssl", ..] if is_empty(value) => Verdict::Same,
            ["ssl", "localCert"] => loosens(section(entry, words, TLS)),
            ["ssl", ..] => section(entry, words, TLS),
            ["statistics" | "dashboard" | "path" | "middleware", ..] => {
                section(entry, words, "it is a page of the package, which Laravel serves")
            }
            _ => section(entry, words, "it is the package's own and has no counterpart"),
        }
    }

    fn other(&mut self, name: &'static str, value: Value) -> Verdict {
        let taken = Verdict::Taken(format!("{name} = {value}"));
        self.others.push((name, value));
        taken
    }

    /// A number out of the range of the setting becomes the nearest accepted one.
    fn number(&mut self, name: &'static str, value: Option<i64>) -> Verdict {
        let (least, most) = app::range(SERVER_SETTINGS, name);
        match value {
            Some(number) if (least..=most).contains(&number) => self.other(name, json!(number)),
            Some(number) => {
                let number = number.clamp(least, most);
                self.others.push((name, json!(number)));
                Verdict::Changed(format!("{name} = {number}: Relay takes {least} to {most}"))
            }
            None => Verdict::Wrong(NUMBER),
        }
    }

    fn batching(&mut self, words: &[&str], entry: &Entry) -> Verdict {
        match (words, &entry.value) {
            (["enabled"], value) => match truth(value) {
                Some(true) => {
                    self.batching = Batching::Batched;
                    Verdict::Taken("batch of each webhook".into())
                }
                Some(false) => Verdict::Same,
                None => Verdict::Wrong("true or false"),
            },
            (["duration"], value) if number(value) == Some(limits::WEBHOOK_BATCH_MS as i64) => Verdict::Same,
            (["duration"], _) => not(entry, "a batch has what comes within 50 ms"),
            _ => not(entry, "Relay has no counterpart"),
        }
    }

    /// Relay's prefix begins with a slash and does not end with one.
    fn path(&mut self, value: &Value) -> Verdict {
        match value.as_str().map(|path| path.trim_matches('/')) {
            Some("") => Verdict::Same,
            Some(path) => self.other("path_prefix", json!(format!("/{path}"))),
            None if value.is_null() => Verdict::Same,
            None => Verdict::Wrong("a path"),
        }
    }
}

fn set<T>(name: &str, place: &mut Option<T>, value: Option<T>, takes: &'static str) -> Verdict {
    if value.is_none() {
        return Verdict::Wrong(takes);
    }
    *place = value;
    Verdict::Taken(name.into())
}

fn address(value: &Value) -> Option<IpAddr> {
    match value.as_str()? {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse().ok(),
    }
}

fn port(value: &Value) -> Option<u16> {
    number(value).and_then(|port| u16::try_from(port).ok())
}

fn of_apps(name: &str, value: &Value) -> Verdict {
    app::limit(name, value).map_or(Verdict::Wrong(NUMBER), Verdict::OfApps)
}

fn not(entry: &Entry, reason: &'static str) -> Verdict {
    Verdict::Not { at: entry.at.clone(), effect: Effect::Same, reason }
}

/// A complete section at once: its first word, as the file spells it.
fn section(entry: &Entry, words: &[&str], reason: &'static str) -> Verdict {
    let first = entry.at.split('.').next().unwrap_or_default();
    let at = if words.len() == 1 { first.into() } else { format!("{first}.*") };
    Verdict::Not { at, effect: Effect::Same, reason }
}

/// The same, where something that was refused is accepted from now on.
fn loosens(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Not { at, reason, effect: _ } => Verdict::Not { at, reason, effect: Effect::Loosens },
        other @ (Verdict::Taken(_) | Verdict::Changed(_) | Verdict::Same | Verdict::OfApps(_) | Verdict::Wrong(_)) => {
            other
        }
    }
}
