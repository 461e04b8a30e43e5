//! One app of another server, value by value.

use serde_json::Value;

use super::Origin;
use super::entries::Entry;
use super::plan::Verdict;
use crate::limits;
use crate::store::setting;

/// Where the list of apps stands, in the spelling of [`Entry::path`]; a file may also be the list alone.
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

/// What a value of an app comes to. The path of `entry` starts below the app.
pub(super) fn field(origin: Origin, entry: &Entry) -> Verdict {
    let words: Vec<&str> = entry.path.iter().map(String::as_str).collect();
    let value = &entry.value;
    match words.as_slice() {
        ["id" | "appId"] => plain(value).map_or(Verdict::Wrong("a text"), Verdict::Id),
        ["key" | "appKey"] => plain(value).map_or(Verdict::Wrong("a text"), Verdict::Key),
        ["secret" | "appSecret"] => plain(value).map_or(Verdict::Wrong("a text"), Verdict::Secret),
        ["name"] => plain(value).map_or(Verdict::Same, |name| Verdict::Set("name", name)),
        ["enabled"] => truth(value).map_or(SWITCH, Verdict::Enabled),
        ["maxConnections" | "capacity"] => connections(value),
        ["enableClientMessages"] => switch("client_events", value),
        ["acceptClientEventsFrom"] => client_events_from(value),
        ["enableUserAuthentication"] => switch("authorized_connections", value),
        ["enableWatchlistEvents"] => switch("watchlist", value),
        ["maxClientEventsPerSecond"] => client_events_per_second(value),
        ["maxBackendEventsPerSecond" | "maxReadRequestsPerSecond"] => unlimited_or(
            value,
            "Relay limits requests per minute, not events or reads per second: see requests_per_minute",
        ),
        ["allowedOrigins"] => origins(value),
        ["maxMessageSize"] => message_size(value),
        ["webhooks"] if is_empty(value) => Verdict::Same,
        ["webhooks"] => Verdict::Not("it is no list of webhooks".into()),
        ["pingInterval" | "activityTimeout"] => {
            Verdict::Not("one value holds for all apps in Relay: activity_timeout of relay.toml".into())
        }
        ["rateLimiting", "enabled"] if truth(value) == Some(false) => Verdict::Same,
        ["rateLimiting", ..] => Verdict::Not("Relay bounds client events per connection, and nothing else here".into()),
        ["options", ..] => Verdict::Not("where Laravel finds the server: set it in the .env of the application".into()),
        ["enableStatistics"] => Verdict::Same,
        [limit] => self::limit(limit, value).unwrap_or_else(|| unknown(origin)),
        _ => unknown(origin),
    }
}

/// The limits that stand with an app or, for all apps, elsewhere in the file.
pub(super) fn limit(name: &str, value: &Value) -> Option<Verdict> {
    let verdict = match name {
        "maxPresenceMembersPerChannel" => {
            number(value).map_or(NUMBER, |n| Verdict::Set("max_presence_members", n.to_string()))
        }
        "maxPresenceMemberSizeInKb" => member_size(value),
        "maxChannelNameLength" => fixed(value, limits::CHANNEL_NAME_BYTES_MAX),
        "maxEventChannelsAtOnce" => settable(value, "max_channels_per_event", limits::CHANNELS_PER_EVENT_MAX),
        "maxEventNameLength" => fixed(value, limits::EVENT_NAME_BYTES_MAX),
        "maxEventBatchSize" => settable(value, "max_batch_events", limits::BATCH_EVENTS_MAX),
        "maxEventPayloadInKb" => bytes(value).map_or(NUMBER, |n| Verdict::Set("max_event_data_bytes", n.to_string())),
        _ => return None,
    };
    Some(verdict)
}

const NUMBER: Verdict = Verdict::Wrong("a number");
const SWITCH: Verdict = Verdict::Wrong("true or false");

fn unknown(origin: Origin) -> Verdict {
    Verdict::Not(format!("Relay knows of no such key of an app of {}", origin.name()))
}

/// Text, or a number that stands for its digits.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A number, also as text: those servers take both.
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
        Value::String(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" | "" => Some(false),
            _ => None,
        },
        Value::Null => Some(false),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Kilobytes of 1024 bytes, with a fraction perhaps.
fn bytes(value: &Value) -> Option<u64> {
    let kilobytes = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (0.0..=1e9).contains(&kilobytes).then_some((kilobytes * 1024.0) as u64)
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

fn has(name: &str) -> bool {
    setting::SETTINGS.iter().any(|(known, _)| *known == name)
}

fn switch(name: &'static str, value: &Value) -> Verdict {
    match truth(value) {
        Some(false) if !has(name) => Verdict::Same,
        Some(value) => Verdict::Set(name, value.to_string()),
        None => SWITCH,
    }
}

fn connections(value: &Value) -> Verdict {
    match (value, number(value)) {
        (Value::Null, _) => Verdict::Same,
        (_, Some(..0)) => Verdict::Set("max_connections", "0".into()),
        (_, Some(0)) => Verdict::Not(
            "it refuses everybody there, but is no quota here: `relay app disable` refuses everybody".into(),
        ),
        (_, Some(quota)) => Verdict::Set("max_connections", quota.to_string()),
        (_, None) => NUMBER,
    }
}

fn client_events_from(value: &Value) -> Verdict {
    match plain(value).as_deref() {
        Some("all" | "members") => Verdict::Set("client_events", "true".into()),
        Some("none") => Verdict::Set("client_events", "false".into()),
        Some(_) => Verdict::Wrong("all, members or none"),
        None => Verdict::Same,
    }
}

/// Where there is no limit, one below zero says so.
fn client_events_per_second(value: &Value) -> Verdict {
    let here = limits::CLIENT_EVENTS_PER_SECOND;
    match number(value) {
        Some(rate) if has("max_client_events_per_second") => {
            Verdict::Set("max_client_events_per_second", rate.max(0).to_string())
        }
        Some(rate) if rate == i64::from(here) => Verdict::Same,
        Some(_) => Verdict::Not(format!("Relay allows {here} a second per connection")),
        None => NUMBER,
    }
}

fn unlimited_or(value: &Value, reason: &str) -> Verdict {
    match number(value) {
        Some(..0) => Verdict::Same,
        Some(_) => Verdict::Not(reason.into()),
        None => NUMBER,
    }
}

/// A limit that Relay has for all apps.
fn fixed(value: &Value, here: usize) -> Verdict {
    match number(value) {
        Some(there) if usize::try_from(there) == Ok(here) => Verdict::Same,
        Some(_) => Verdict::Not(format!("it is {here} for all apps")),
        None => NUMBER,
    }
}

/// A limit that an app may set in Relay, or that is as it is.
fn settable(value: &Value, name: &'static str, here: usize) -> Verdict {
    match number(value) {
        Some(there) if usize::try_from(there) != Ok(here) && has(name) => Verdict::Set(name, there.to_string()),
        _ => fixed(value, here),
    }
}

/// The size of `user_info` alone: Relay's bound of the whole `channel_data` is never set lower for it.
fn member_size(value: &Value) -> Verdict {
    match bytes(value) {
        Some(there) if there <= limits::CHANNEL_DATA_BYTES_MAX as u64 => Verdict::Same,
        Some(there) if has("max_channel_data_bytes") => Verdict::Set("max_channel_data_bytes", there.to_string()),
        Some(_) => Verdict::Not(format!("it is {} bytes for all apps", limits::CHANNEL_DATA_BYTES_MAX)),
        None => NUMBER,
    }
}

/// Reverb's limit of a whole message; Relay's is of the event's data.
fn message_size(value: &Value) -> Verdict {
    match number(value) {
        Some(bytes) if bytes <= limits::EVENT_DATA_BYTES_MAX as i64 => Verdict::Same,
        Some(bytes) => Verdict::Set("max_event_data_bytes", bytes.to_string()),
        None => NUMBER,
    }
}

/// Hosts; what stands around them is cut off, since Relay compares hosts alone.
fn origins(value: &Value) -> Verdict {
    let Value::Array(values) = value else {
        return if is_empty(value) { Verdict::Same } else { Verdict::Wrong("a list of hosts") };
    };
    let Some(origins) = values.iter().map(Value::as_str).collect::<Option<Vec<_>>>() else {
        return Verdict::Wrong("a list of hosts");
    };
    if origins.is_empty() || origins.contains(&"*") {
        return Verdict::Same;
    }
    let host = |origin: &&str| {
        let rest = origin.split_once("://").map_or(*origin, |(_, rest)| rest);
        rest.split(['/', ':']).next().unwrap_or_default().to_owned()
    };
    Verdict::Set("allowed_origins", origins.iter().map(host).collect::<Vec<_>>().join(","))
}
