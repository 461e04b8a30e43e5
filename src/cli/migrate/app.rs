//! One app of another server, value by value.

use serde_json::Value;

use super::entries::Entry;
use super::origin::Origin;
use super::table::{Effect, Row};
use super::verdict::Verdict;
use crate::app::origin::is_origin_pattern;
use crate::app::settings::APP_SETTINGS;
use crate::limits;
use crate::setting::Setting;

/// Where the list of apps is, in the spelling of [`Entry::path`]; a file may also be the list alone.
const LISTS: [&[&str]; 4] = [&["appManager", "array", "apps"], &["apps", "apps"], &["apps"], &[]];

/// The number of the app that a path leads into, and the length of the path down to the app.
pub(super) fn position(path: &[String]) -> Option<(usize, usize)> {
    LISTS.iter().find_map(|list| {
        let rest = path.strip_prefix_of(list)?;
        let index = rest.first()?.parse().ok()?;
        (rest.len() > 1).then_some((index, list.len() + 1))
    })
}

/// A path compared with words.
trait Words {
    fn strip_prefix_of(&self, words: &[&str]) -> Option<&[String]>;
}

impl Words for [String] {
    fn strip_prefix_of(&self, words: &[&str]) -> Option<&[String]> {
        let (start, rest) = self.split_at_checked(words.len())?;
        start.iter().zip(words).all(|(part, word)| part == word).then_some(rest)
    }
}

/// The entries of an app as if its limits, features and channels were members of the app itself: Sockudo groups them
/// below `policy`, and then ignores those beside it.
pub(super) fn without_policy(origin: Origin, entries: Vec<Entry>, table: &mut Vec<Row>) -> Vec<Entry> {
    let in_policy = |entry: &Entry| entry.path.first().is_some_and(|word| word == "policy");
    if origin != Origin::Sockudo || !entries.iter().any(in_policy) {
        return entries;
    }
    let own = ["id", "key", "secret", "enabled", "name"];
    let mut flat = Vec::with_capacity(entries.len());
    for mut entry in entries {
        if in_policy(&entry) {
            let group = entry.path.get(1).map(String::as_str);
            let depth = if matches!(group, Some("limits" | "features" | "channels")) { 2 } else { 1 };
            entry.path.drain(..depth.min(entry.path.len() - 1));
            flat.push(entry);
        } else if entry.path.first().is_some_and(|word| own.contains(&word.as_str())) {
            flat.push(entry);
        } else {
            table.push(Row::dropped(&entry.at, Effect::Same, "Sockudo ignores it beside policy"));
        }
    }
    flat
}

/// The result for a value of an app. The path of `entry` starts below the app.
pub(super) fn field(origin: Origin, entry: &Entry) -> Verdict {
    let words: Vec<&str> = entry.path.iter().map(String::as_str).collect();
    let value = &entry.value;
    match words.as_slice() {
        ["id" | "appId"] => credential(origin, value).map_or(TEXT, Verdict::Id),
        ["key" | "appKey"] => credential(origin, value).map_or(TEXT, Verdict::Key),
        ["secret" | "appSecret"] => credential(origin, value).map_or(TEXT, Verdict::Secret),
        ["name"] => plain(value).map_or(Verdict::Same, |name| Verdict::Set("name", name)),
        ["enabled"] => truth(value).map_or(SWITCH, Verdict::Enabled),
        ["maxConnections" | "capacity"] => connections(origin, value),
        ["enableClientMessages"] => switch("client_events", value),
        ["acceptClientEventsFrom"] => client_events_from(value),
        ["enableUserAuthentication"] => switch("authorized_connections", value),
        ["enableWatchlistEvents"] => switch("watchlist", value),
        ["maxClientEventsPerSecond" | "maxClientEventsPerSec"] => client_events_per_second(origin, value),
        [
            "maxBackendEventsPerSecond"
            | "maxBackendEventsPerSec"
            | "maxReadRequestsPerSecond"
            | "maxReadRequestsPerSec"
            | "maxReadReqPerSec",
        ] => unlimited_or(
            origin,
            value,
            "Relay limits requests per minute, not events or reads per second: see requests_per_minute",
        ),
        ["clientEventDecaySeconds" | "decaySeconds"] => match number(value) {
            Some(..=1) => Verdict::Same,
            Some(_) => Verdict::Dropped(Effect::Loosens, "Relay counts client events per second".into()),
            None => NUMBER,
        },
        ["allowedOrigins"] => origins(origin, value),
        ["maxMessageSize"] => message_size(value),
        ["webhooks"] if is_empty(value) => Verdict::Same,
        ["webhooks"] => dropped("it is no list of webhooks"),
        ["activityTimeout"] => seconds(value).map_or(NUMBER, |n| bounded("activity_timeout", n)),
        ["pingInterval"] => seconds(value).map_or(NUMBER, |n| {
            Verdict::Otherwise("activity_timeout", n.clamp(1, most("activity_timeout")).to_string())
        }),
        ["rateLimiting", "enabled"] if truth(value) == Some(false) => Verdict::Same,
        ["rateLimiting", "enabled"] => Verdict::Changed {
            name: "max_client_events_per_second",
            text: limits::CLIENT_EVENTS_PER_SECOND.to_string(),
            effect: Effect::Loosens,
            reason: "Relay limits client events of a connection, not all of its messages".into(),
        },
        ["messageRateLimit", "enabled"] if truth(value) == Some(true) => {
            let reason = "Relay limits client events of a connection, not all of its messages";
            Verdict::Dropped(Effect::Loosens, reason.into())
        }
        ["messageRateLimit", "enabled"] => Verdict::Same,
        ["messageRateLimit", ..] => dropped("see message_rate_limit.enabled"),
        ["terminateOnLimit"] if truth(value) == Some(false) => Verdict::Same,
        ["terminateOnLimit"] => dropped("Relay refuses a client event beyond the limit and keeps the connection"),
        ["rateLimiting", ..] => dropped("see rate_limiting.enabled"),
        ["options", ..] => dropped("where Laravel finds the server: set it in the .env of the application"),
        ["enableStatistics" | "enableStats" | "createdAt" | "updatedAt"] => Verdict::Same,
        ["channelNamespaces", _, flag, ..] if flag.starts_with("allow") && truth(value) == Some(false) => {
            let reason = "Relay knows no namespaces: clients may do this on all channels of the app";
            Verdict::Dropped(Effect::Loosens, reason.into())
        }
        ["channelNamespaces" | "channelDeltaCompression" | "idempotency" | "connectionRecovery" | "history", ..] => {
            dropped("Relay does not serve Sockudo's protocol V2")
        }
        [limit] => self::limit(limit, value).unwrap_or_else(|| unknown(origin, limit)),
        [name, ..] => unknown(origin, name),
        [] => Verdict::Same,
    }
}

/// The limits that are set in the app or, for all apps, elsewhere in the file.
pub(super) fn limit(name: &str, value: &Value) -> Option<Verdict> {
    let within = |name| number(value).map_or(NUMBER, |n| bounded(name, n));
    let verdict = match name {
        "maxPresenceMembersPerChannel" => within("max_presence_members"),
        "maxPresenceMemberSizeInKb" => member_size(value),
        "maxChannelNameLength" => fixed(value, limits::CHANNEL_NAME_BYTES_MAX),
        "maxEventChannelsAtOnce" => within("max_channels_per_event"),
        "maxEventNameLength" => fixed(value, limits::EVENT_NAME_BYTES_MAX),
        "maxEventBatchSize" => within("max_batch_events"),
        "maxEventPayloadInKb" => bytes(value).map_or(NUMBER, |n| bounded("max_event_data_bytes", n)),
        _ => return None,
    };
    Some(verdict)
}

const NUMBER: Verdict = Verdict::Wrong("a number");
const SWITCH: Verdict = Verdict::Wrong("true or false");

const TEXT: Verdict = Verdict::Wrong("a text, written out");

pub(super) fn dropped(reason: &str) -> Verdict {
    Verdict::Dropped(Effect::Same, reason.into())
}

/// An unknown key. One whose name says that it is a limit is treated as one.
fn unknown(origin: Origin, name: &str) -> Verdict {
    let effect = if name.starts_with("max") { Effect::Loosens } else { Effect::Same };
    Verdict::Dropped(effect, format!("Relay knows of no such key of an app of {}", origin.name()))
}

/// Sockudo reads `${VARIABLE}` from its environment, which is not available here.
fn credential(origin: Origin, value: &Value) -> Option<String> {
    plain(value).filter(|text| origin != Origin::Sockudo || !text.contains("${"))
}

/// Smallest and largest number that a setting of a table accepts.
pub(super) fn range<S>(table: &'static [Setting<S>], name: &str) -> (i64, i64) {
    let setting = Setting::named(table, name);
    let (least, most) = setting.and_then(|setting| setting.takes.range()).expect("a setting of a number");
    let number = |bound| i64::try_from(bound).expect("no setting accepts more");
    (number(least), number(most))
}

/// The largest number that a setting of apps accepts.
pub(super) fn most(name: &str) -> i64 {
    range(APP_SETTINGS, name).1
}

/// A setting of a number; one out of its range becomes the nearest accepted one, but never 0, which often means no
/// limit.
fn bounded(name: &'static str, number: i64) -> Verdict {
    let (least, most) = (1, most(name));
    if number > most {
        let reason = format!("Relay allows {most} at most");
        return Verdict::Changed { name, text: most.to_string(), effect: Effect::Tightens, reason };
    }
    if number < least {
        let reason = format!("Relay allows {least} at least");
        return Verdict::Changed { name, text: least.to_string(), effect: Effect::Loosens, reason };
    }
    Verdict::Set(name, number.to_string())
}

/// The same for a setting whose meaning differs from that of the value, for this reason.
fn noted(name: &'static str, number: i64, effect: Effect, reason: &str) -> Verdict {
    if !(1..=most(name)).contains(&number) {
        return bounded(name, number);
    }
    Verdict::Changed { name, text: number.to_string(), effect, reason: reason.into() }
}

/// Text, or a number as the text of its digits.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A number, also as text: those servers accept both.
pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A switch, also as 0 and 1 and as text.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(_) => number(value).map(|number| number != 0),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "on" | "yes" => Some(true),
            "false" | "0" | "f" | "off" | "no" => Some(false),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whole seconds, also written with a fraction of zero.
fn seconds(value: &Value) -> Option<i64> {
    number(value).or_else(|| value.as_f64().filter(|seconds| (0.0..1e9).contains(seconds)).map(|s| s.ceil() as i64))
}

/// Kilobytes of 1024 bytes, with a fraction perhaps.
fn bytes(value: &Value) -> Option<i64> {
    let kilobytes = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (0.0..=1e9).contains(&kilobytes).then_some((kilobytes * 1024.0) as i64)
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn switch(name: &'static str, value: &Value) -> Verdict {
    truth(value).map_or(SWITCH, |value| Verdict::Set(name, value.to_string()))
}

fn connections(origin: Origin, value: &Value) -> Verdict {
    match number(value) {
        Some(..0) => Verdict::Set("max_connections", "0".into()),
        Some(0) if origin == Origin::Sockudo => Verdict::Set("max_connections", "0".into()),
        Some(0) => Verdict::Dropped(
            Effect::Loosens,
            "it refuses everybody there, but is no quota here: `relay app disable` refuses everybody".into(),
        ),
        Some(quota) => bounded("max_connections", quota),
        None => NUMBER,
    }
}

fn client_events_from(value: &Value) -> Verdict {
    match plain(value).as_deref() {
        Some("all") => Verdict::Changed {
            name: "client_events",
            text: "true".into(),
            effect: Effect::Tightens,
            reason: "senders must be subscribers of a private or presence channel".into(),
        },
        Some("members") => Verdict::Set("client_events", "true".into()),
        Some("none") => Verdict::Set("client_events", "false".into()),
        Some(_) | None => Verdict::Wrong("all, members or none"),
    }
}

/// For no limit, soketi has a number below zero, Sockudo zero. Zero refuses all in soketi.
fn client_events_per_second(origin: Origin, value: &Value) -> Verdict {
    let name = "max_client_events_per_second";
    match number(value) {
        Some(..0) => Verdict::Set(name, "0".into()),
        Some(0) if origin == Origin::Sockudo => Verdict::Set(name, "0".into()),
        Some(rate) => bounded(name, rate),
        None => NUMBER,
    }
}

fn unlimited_or(origin: Origin, value: &Value, reason: &str) -> Verdict {
    match number(value) {
        Some(..0) => Verdict::Same,
        Some(0) if origin == Origin::Sockudo => Verdict::Same,
        Some(_) => Verdict::Dropped(Effect::Loosens, reason.into()),
        None => NUMBER,
    }
}

/// A limit that Relay has for all apps.
fn fixed(value: &Value, here: usize) -> Verdict {
    let here = here as i64;
    let effect = match number(value) {
        Some(there) if there == here => return Verdict::Same,
        Some(there) if there < here => Effect::Loosens,
        Some(_) => Effect::Tightens,
        None => return NUMBER,
    };
    Verdict::Dropped(effect, format!("it is {here} for all apps"))
}

/// Those servers limit `user_info`, Relay limits the complete `channel_data`: the rest of it gets [`AROUND_USER_INFO`].
fn member_size(value: &Value) -> Verdict {
    let name = "max_channel_data_bytes";
    let Some(there) = bytes(value) else {
        return NUMBER;
    };
    let reason = "it bounds the whole channel_data, so 1024 bytes are added for the user_id";
    noted(name, there + AROUND_USER_INFO, Effect::Same, reason)
}

/// A `user_id` of 128 bytes, each of them an escape of six, and the names of the members.
const AROUND_USER_INFO: i64 = 1_024;

/// Reverb's limit of a message from a client; Relay's is of the event's data, from any publisher.
fn message_size(value: &Value) -> Verdict {
    let name = "max_event_data_bytes";
    match number(value) {
        Some(there) if there < REVERB_REQUEST_BYTES => {
            let reason = "it also holds for events that are published over HTTP";
            noted(name, there, Effect::Tightens, reason)
        }
        Some(there) if there <= most(name) => Verdict::AtLeast(name, there),
        Some(there) => bounded(name, there),
        None => NUMBER,
    }
}

/// The size limit of a request to Reverb unless its configuration sets another.
const REVERB_REQUEST_BYTES: i64 = 10_000;

/// Hosts, with their ports if Sockudo compares them. A host in Relay's list matches every scheme and, if it names no
/// port, every port.
fn origins(origin: Origin, value: &Value) -> Verdict {
    let listed = match value {
        Value::Array(values) => values.iter().map(Value::as_str).collect::<Option<Vec<_>>>(),
        Value::String(text) => Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    };
    let Some(listed) = listed else {
        return Verdict::Wrong("a list of hosts");
    };
    if listed.is_empty() && origin == Origin::Reverb {
        let reason = "it refuses every page there, but allows all here: see allowed_origins";
        return Verdict::Dropped(Effect::Loosens, reason.into());
    }
    if listed.is_empty() || listed.iter().any(|entry| *entry == "*" || entry.eq_ignore_ascii_case("any")) {
        return Verdict::Same;
    }
    let hosts: Vec<&str> = listed.iter().map(|entry| host(origin, entry)).collect();
    let known = hosts.iter().copied().filter(|host| is_origin_pattern(host));
    let known: Vec<&str> = known.take(limits::ALLOWED_ORIGINS_MAX).collect();
    let name = "allowed_origins";
    let text = known.join(",");
    if known.is_empty() {
        return Verdict::Dropped(Effect::Loosens, "Relay compares whole hosts: none of these is one".into());
    }
    if known.len() < hosts.len() {
        let reason = format!(
            "{} more are no hosts, or beyond the {} that Relay compares",
            hosts.len() - known.len(),
            limits::ALLOWED_ORIGINS_MAX
        );
        return Verdict::Changed { name, text, effect: Effect::Tightens, reason };
    }
    let is_missing = |domain: &&str| !known.contains(domain);
    if let Some(domain) = known.iter().filter_map(|host| host.strip_prefix("*.")).find(is_missing)
        && origin == Origin::Sockudo
    {
        let reason =
            format!("*.{domain} is not {domain} itself, as it is for Sockudo: add it if pages come from there");
        return Verdict::Changed { name, text, effect: Effect::Tightens, reason };
    }
    if hosts != listed {
        let reason = "Relay compares hosts and ports, whatever the scheme".into();
        return Verdict::Changed { name, text, effect: Effect::Same, reason };
    }
    Verdict::Set(name, text)
}

/// The part of an origin that Relay compares.
fn host(origin: Origin, entry: &str) -> &str {
    if is_origin_pattern(entry) && !entry.contains(':') || entry.eq_ignore_ascii_case("file://") {
        return entry;
    }
    let rest = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if origin != Origin::Sockudo && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}
