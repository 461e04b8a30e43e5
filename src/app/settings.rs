//! Settings that an operator may change per app, with the defaults of the protocol.
//!
//! A new setting is one entry of the table below (see [`crate::setting`]): `app set` and `app show` then support it,
//! the server receives its value with the app, and `docs/cli.md` lists it.
//!
//! The struct is also the stored form: a JSON object with these names in this order. A name never changes meaning and a
//! new field has a default, so that records of other versions can be read.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::origin::is_origin_pattern;
use super::outgoing_url::{Reach, check_outgoing_url};
use crate::limits::{self, body_bytes_max, message_bytes_max, outbox_bytes_max};
use crate::setting::{Definition, Setting, form, nearest, number, settings, switch};

settings! {
    /// What an operator may change per app. In a record, a missing field has its default.
    #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
    #[serde(default)]
    pub struct AppSettings, APP_SETTINGS;

    /// Clients may send client- events.
    client_events: bool = false, switch().rules("P-CEV-1");

    /// Plain sockets are refused.
    tls_only: bool = false, switch().rules("P-CLOSE-4");

    /// WebSocket connections at once.
    max_connections: u32 = 0, limit("no quota").rules("P-CLOSE-2");

    /// Clients over the quota reconnect by themselves (4100 instead of 4004).
    connection_limit_soft: bool = false, switch().rules("P-CLOSE-2");

    /// Longest decoded data of one event.
    max_event_data_bytes: u32 = limits::EVENT_DATA_BYTES_MAX as u32,
        number("bytes", 1, limits::EVENT_DATA_BYTES_SETTING_MAX as u64).rules("P-LIM-3");

    /// Users in one presence channel.
    max_presence_members: u32 = limits::PRESENCE_MEMBERS_MAX as u32,
        number(NUMBER, 1, limits::PRESENCE_MEMBERS_SETTING_MAX as u64).rules("P-LIM-7");

    /// Subscribers of public and private channels receive the number of subscribers.
    subscription_count: bool = false, switch().rules("P-COUNT-1");

    /// Total size of the events of cache channels, with frames and bookkeeping.
    /// Each shard manages an equal part. Beyond it the oldest are dropped first, but never the newest.
    max_cache_bytes: u32 = limits::CACHE_BYTES_MAX as u32,
        number("bytes", 0, u32::MAX as u64).zero("no cache").rules("P-CACHE-1, T28");

    /// Events that each channel keeps in its history.
    /// A client that reconnects gets what it missed, or learns that something is missing. See [history.md](history.md).
    history_events: u32 = limits::HISTORY_EVENTS,
        number(NUMBER, 0, limits::HISTORY_EVENTS_SETTING_MAX as u64).zero("no history").rules("R-HIST-1");

    /// Seconds for which they are kept.
    /// A change begins all histories of the app from the start: older positions are gaps.
    history_seconds: u32 = limits::HISTORY_S,
        number("seconds", 1, limits::HISTORY_S_SETTING_MAX as u64).rules("R-HIST-1");

    /// Total size of the events that the channels keep, with names and bookkeeping.
    /// Each shard manages an equal part. Beyond it the oldest are dropped first.
    history_bytes: u32 = limits::HISTORY_BYTES,
        number("bytes", 0, u32::MAX as u64).rules("R-HIST-1, T28");

    /// Client events per second of one connection, also at once.
    max_client_events_per_second: u32 = limits::CLIENT_EVENTS_PER_SECOND,
        number(NUMBER, 0, limits::CLIENT_EVENTS_PER_SECOND_SETTING_MAX as u64).zero("no limit").rules("P-LIM-9");

    /// Longest channel_data of a presence subscription.
    max_channel_data_bytes: u32 = limits::CHANNEL_DATA_BYTES_MAX as u32,
        number("bytes", 1, limits::CHANNEL_DATA_BYTES_SETTING_MAX as u64).rules("P-LIM-7");

    /// Seconds of silence after which clients of the app ping.
    activity_timeout: u32 = 0,
        number("seconds", 0, limits::ACTIVITY_TIMEOUT_SETTING_S_MAX as u64).zero("the server's setting").rules("P-LIVE-3");

    /// Malformed or unknown messages in a minute after which a connection is closed with 4009.
    max_invalid_messages: u8 = limits::INVALID_MESSAGES_MAX, number(NUMBER, 1, u8::MAX as u64).rules("P-IN-3");

    /// Channels that one connection may subscribe.
    max_channels_per_connection: u32 = limits::CHANNELS_PER_CONNECTION_MAX as u32,
        number(NUMBER, 1, limits::CHANNELS_PER_CONNECTION_SETTING_MAX as u64).rules("P-LIM-12");

    /// Channels of one event published over HTTP.
    max_channels_per_event: u32 = limits::CHANNELS_PER_EVENT_MAX as u32,
        number(NUMBER, 1, limits::CHANNELS_PER_EVENT_SETTING_MAX as u64).rules("P-LIM-4");

    /// Events of one batch.
    max_batch_events: u32 = limits::BATCH_EVENTS_MAX as u32,
        number(NUMBER, 1, limits::BATCH_EVENTS_SETTING_MAX as u64).rules("P-LIM-5");

    /// Channels with subscribers at once.
    #[serde(rename = "channels_max")]
    max_channels: u32 = 0, limit(NO_LIMIT).former("channels_max").rules("R-LIM-5");

    /// Messages published over HTTP per day of UTC, one per event and channel.
    messages_per_day: u32 = 0, limit(NO_LIMIT).rules("R-LIM-3");

    /// Requests to the HTTP API per minute, however they authenticate.
    requests_per_minute: u32 = 0, limit(NO_LIMIT).rules("R-LIM-4");

    /// Requests with a signature per minute.
    signed_requests_per_minute: u32 = 0, limit(NO_LIMIT).rules("R-LIM-4");

    /// Requests with key and secret headers per minute.
    key_requests_per_minute: u32 = 0, limit(NO_LIMIT).rules("R-LIM-4");

    /// Requests with a token per minute.
    token_requests_per_minute: u32 = 0, limit(NO_LIMIT).rules("R-LIM-4");

    /// Signed-in users receive which users of their watchlist are online.
    watchlist: bool = false, switch().rules("P-WATCH-1");

    /// Connections must sign in or join a protected channel in time.
    /// A connection that neither signs in nor joins a private or presence channel within `authorization_timeout` is closed;
    /// until then it does not count to `max_connections`.
    authorized_connections: bool = false, switch().rules("P-AUTHZ-1");

    /// Hosts whose pages may connect.
    /// `example.com` with any port, `example.com:8080` with this one, `*.example.com` any host below it; `null` and
    /// `file://` pages without a host (sandboxed frames; Electron, Cordova). A client without `Origin` (no browser) may
    /// connect, which `missing` only says; `!missing` keeps it out.
    allowed_origins: Vec<Box<str>> = Vec::new(),
        form(
            "hosts joined by commas, such as example.com, example.com:8080 or *.example.com; empty allows all",
            origins,
            |hosts| hosts.iter().map(|host| &**host).collect(),
        )
        .default_is("empty")
        .rules("P-CONN-8, T21");

    /// Pages of `allowed_origins` that are loaded over http may use cookies at the auth endpoint.
    insecure_origins: bool = false, switch().rules("R-AUTHEP-5, T40");

    /// Backend that decides who may subscribe to protected channels.
    /// Relay asks it with the cookies and CSRF headers of a client that calls the auth endpoint without a credential, and
    /// signs if it answers 200 with a JSON object.
    authorizer_url: Box<str> = "".into(), url("an https:// URL; empty is no authorizer").rules("R-AUTHEP-3, T38");

    /// Backend that decides who a client may sign in as.
    user_authorizer_url: Box<str> = "".into(),
        url("an https:// URL; empty is no authorizer").rules("R-AUTHEP-9, T38");

    /// The authorizers may have private addresses, also over http.
    authorizer_allow_private: bool = false, switch().rules("R-AUTHEP-3, T38");

    /// Names of the cookies that the authorizers receive.
    authorizer_cookies: Vec<Box<str>> = Vec::new(),
        form(
            "cookie names joined by commas; empty is all but those of Relay's dashboard",
            cookies,
            |names| names.iter().map(|name| &**name).collect(),
        )
        .default_is("empty")
        .rules("R-AUTHEP-3, T37");

    /// Requests at once to the authorizers of the app.
    max_authorizer_requests: u16 = limits::AUTHORIZER_REQUESTS,
        number(NUMBER, 1, limits::AUTHORIZER_REQUESTS_SETTING_MAX as u64).rules("R-AUTHEP-11, T39");
}

const NUMBER: &str = "a number";
const NO_LIMIT: &str = "no limit";

/// A number without an upper bound of its own; 0 has this meaning.
const fn limit(zero: &'static str) -> Definition<u32> {
    number(NUMBER, 0, u32::MAX as u64).zero(zero)
}

/// Hosts, not URLs: `example.com`, `example.com:8080`, `*.example.com`.
fn origins(text: &str) -> Option<Vec<Box<str>>> {
    let hosts = text.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
    let hosts: Vec<Box<str>> = hosts.map(String::into_boxed_str).collect();
    (hosts.len() <= limits::ALLOWED_ORIGINS_MAX && hosts.iter().all(|host| is_origin_pattern(host))).then_some(hosts)
}

/// The text of a URL; [`AppSettings::check`] judges it with the settings that it depends on.
#[allow(clippy::borrowed_box, reason = "the value of such a setting is a box")]
const fn url(takes: &'static str) -> Definition<Box<str>> {
    form(takes, |text| Some(text.trim().into()), |text: &Box<str>| (&**text).into()).default_is("empty")
}

/// Names of cookies (RFC 6265 section 4.1.1).
fn cookies(text: &str) -> Option<Vec<Box<str>>> {
    let is_name = |name: &&str| {
        let byte = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
        name.len() <= 256 && name.bytes().all(byte)
    };
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let fits = names.len() <= limits::AUTHORIZER_COOKIES_MAX && names.iter().all(is_name);
    fits.then(|| names.into_iter().map(Box::from).collect())
}

/// Why a setting was not changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("an app has no setting {name:?}{nearest}; settings are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// `, did you mean "x"?` or nothing.
        nearest: String,
        /// All names.
        known: String,
    },
    /// The setting does not accept this value.
    #[error("the setting {name} takes {takes}, not {value:?}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What it accepts.
        takes: String,
        /// The value.
        value: String,
    },
}

impl AppSettings {
    /// Changes the setting of this name to the value that a text represents; former names are accepted.
    ///
    /// # Errors
    /// [`SettingError`]; nothing is changed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let Some(setting) = Setting::named(APP_SETTINGS, name) else {
            // `name` is the app's own and is set as these are.
            let known: Vec<&str> =
                ["name"].into_iter().chain(APP_SETTINGS.iter().map(|setting| setting.name)).collect();
            let nearest = nearest(name, known.iter().copied());
            return Err(SettingError::Unknown { name: name.into(), nearest, known: known.join(", ") });
        };
        let refuse =
            || SettingError::Value { name: setting.name, takes: setting.takes.to_string(), value: value.into() };
        (setting.set)(self, value).ok_or_else(refuse)
    }

    /// Checks the settings that depend on each other: whether the authorizers may have their URLs (threat T38). `allowed`
    /// are networks that they may be in, in addition to public addresses.
    ///
    /// # Errors
    /// The sentence for the operator.
    pub fn check(&self, allowed: &[IpNet]) -> Result<(), String> {
        let reach = self.authorizer_reach();
        let urls = [&self.authorizer_url, &self.user_authorizer_url];
        urls.into_iter()
            .filter(|url| !url.is_empty())
            .try_for_each(|url| check_outgoing_url("authorizer", url, reach, allowed))
    }

    /// The addresses that the authorizers may have.
    pub fn authorizer_reach(&self) -> Reach {
        if self.authorizer_allow_private { Reach::Anywhere } else { Reach::Public }
    }

    /// Longest inbound WebSocket message (P-IN-5).
    pub fn message_bytes_max(&self) -> usize {
        message_bytes_max(self.max_event_data_bytes, self.max_channel_data_bytes)
    }

    /// Unsent bytes beyond which a connection is closed (P-CLOSE-5).
    pub fn outbox_bytes_max(&self) -> usize {
        outbox_bytes_max(self.max_event_data_bytes, self.max_channels_per_event, self.max_batch_events)
    }

    /// Longest body of a request (P-LIM-11).
    pub fn body_bytes_max(&self) -> usize {
        body_bytes_max(self.max_event_data_bytes, self.max_channels_per_event, self.max_batch_events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-CEV-1, P-LIM-3, P-LIM-4, P-LIM-5, P-LIM-7, P-LIM-9, P-LIM-12, P-CLOSE-2, P-WATCH-1, P-AUTHZ-1, R-LIM-3 to R-LIM-6: the settings of an app that nobody configured.
    #[test]
    fn default_settings_are_those_of_the_protocol() {
        let settings = AppSettings::default();
        assert!(!settings.client_events && !settings.tls_only && !settings.connection_limit_soft);
        assert!(!settings.watchlist && !settings.authorized_connections);
        assert_eq!(settings.max_connections, 0);
        assert_eq!(settings.max_event_data_bytes, 10_240);
        assert_eq!(settings.max_presence_members, 100);
        assert_eq!(settings.max_channel_data_bytes, 10_240);
        assert_eq!(settings.max_client_events_per_second, 10);
        assert_eq!(settings.max_channels_per_connection, 1_000);
        assert_eq!((settings.max_channels_per_event, settings.max_batch_events), (100, 10));
        assert_eq!((settings.max_channels, settings.messages_per_day, settings.requests_per_minute), (0, 0, 0));
        assert!(settings.allowed_origins.is_empty());
    }
}
