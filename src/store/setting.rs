//! The settings of an app by name, as `relay app set ID key=value` names them.

use super::error::StoreError;
use super::record::{AppRecord, check_name};
use crate::app::AppSettings;
use crate::auth::origin::is_origin_pattern;
use crate::limits;

/// Every setting and what it takes.
pub const SETTINGS: [(&str, &str); 25] = [
    ("name", "a name for people, at most 100 bytes"),
    ("client_events", "true or false: clients may send client- events"),
    ("tls_only", "true or false: plain sockets are refused"),
    ("max_connections", "WebSockets at once, 0 to 4294967295; 0 is no quota"),
    ("connection_limit_soft", "true or false: clients over the quota come back by themselves (4100 instead of 4004)"),
    ("max_event_data_bytes", "longest data of one event in bytes, 1 to 1048576"),
    ("max_presence_members", "users in one presence channel, 1 to 100000"),
    ("subscription_count", "true or false: subscribers are told how many they are"),
    (
        "max_cache_bytes",
        "what the events of cache channels may take together, in bytes, 0 to 4294967295; 0 caches nothing",
    ),
    ("max_client_events_per_second", "client events per second of one connection, 0 to 1000; 0 is no limit"),
    ("max_channel_data_bytes", "longest channel_data of a presence subscribe in bytes, 1 to 65536"),
    ("activity_timeout", "seconds of silence after which its clients ping, 1 to 3600; 0 is the server's setting"),
    ("max_invalid_messages", "malformed messages in a minute after which a connection is closed, 1 to 255"),
    ("max_channels_per_connection", "channels that one connection may subscribe, 1 to 10000"),
    ("max_channels_per_event", "channels of one event published over HTTP, 1 to 250"),
    ("max_batch_events", "events of one batch, 1 to 1000"),
    ("channels_max", "channels with subscribers at once, 0 to 4294967295; 0 is no limit"),
    ("messages_per_day", "messages published over HTTP per day of UTC, 0 to 4294967295; 0 is no limit"),
    ("requests_per_minute", "requests to the HTTP API per minute, 0 to 4294967295; 0 is no limit"),
    ("signed_requests_per_minute", "of these, those with a signature, 0 to 4294967295; 0 is no limit"),
    ("key_requests_per_minute", "of these, those with key and secret headers, 0 to 4294967295; 0 is no limit"),
    ("token_requests_per_minute", "of these, those with a token, 0 to 4294967295; 0 is no limit"),
    ("watchlist", "true or false: signed-in users are told who of their watchlist is there"),
    ("authorized_connections", "true or false: connections must sign in or join a protected channel in time"),
    (
        "allowed_origins",
        "hosts whose pages may connect, joined by commas, such as example.com, example.com:8080 or *.example.com; empty allows all",
    ),
];

/// Sets one setting from its text.
pub fn apply(app: &mut AppRecord, name: &str, value: &str) -> Result<(), StoreError> {
    let settings = &mut app.settings;
    match name {
        "name" => {
            check_name(value)?;
            app.name = value.into();
        }
        "client_events" => settings.client_events = switch(name, value)?,
        "tls_only" => settings.tls_only = switch(name, value)?,
        "max_connections" => settings.max_connections = number(name, value, 0, u32::MAX)?,
        "connection_limit_soft" => settings.connection_limit_soft = switch(name, value)?,
        "max_event_data_bytes" => {
            settings.max_event_data_bytes = number(name, value, 1, limits::EVENT_DATA_BYTES_SETTING_MAX as u32)?;
        }
        "max_presence_members" => {
            settings.max_presence_members = number(name, value, 1, limits::PRESENCE_MEMBERS_SETTING_MAX as u32)?;
        }
        "subscription_count" => settings.subscription_count = switch(name, value)?,
        "max_cache_bytes" => settings.max_cache_bytes = number(name, value, 0, u32::MAX)?,
        "max_client_events_per_second" => {
            settings.max_client_events_per_second =
                number(name, value, 0, limits::CLIENT_EVENTS_PER_SECOND_SETTING_MAX)?
        }
        "max_channel_data_bytes" => {
            settings.max_channel_data_bytes = number(name, value, 1, limits::CHANNEL_DATA_BYTES_SETTING_MAX as u32)?
        }
        "activity_timeout" => {
            settings.activity_timeout = number(name, value, 0, limits::ACTIVITY_TIMEOUT_SETTING_S_MAX)?
        }
        "max_invalid_messages" => settings.max_invalid_messages = number(name, value, 1, 255)? as u8,
        "max_channels_per_connection" => {
            settings.max_channels_per_connection =
                number(name, value, 1, limits::CHANNELS_PER_CONNECTION_SETTING_MAX as u32)?
        }
        "max_channels_per_event" => {
            settings.max_channels_per_event = number(name, value, 1, limits::CHANNELS_PER_EVENT_SETTING_MAX as u32)?
        }
        "max_batch_events" => {
            settings.max_batch_events = number(name, value, 1, limits::BATCH_EVENTS_SETTING_MAX as u32)?
        }
        "channels_max" => settings.channels_max = number(name, value, 0, u32::MAX)?,
        "messages_per_day" => settings.messages_per_day = number(name, value, 0, u32::MAX)?,
        "requests_per_minute" => settings.requests_per_minute = number(name, value, 0, u32::MAX)?,
        "signed_requests_per_minute" => settings.signed_requests_per_minute = number(name, value, 0, u32::MAX)?,
        "key_requests_per_minute" => settings.key_requests_per_minute = number(name, value, 0, u32::MAX)?,
        "token_requests_per_minute" => settings.token_requests_per_minute = number(name, value, 0, u32::MAX)?,
        "watchlist" => settings.watchlist = switch(name, value)?,
        "authorized_connections" => settings.authorized_connections = switch(name, value)?,
        "allowed_origins" => settings.allowed_origins = origins(value)?,
        _ => {
            let names = SETTINGS.map(|(name, _)| name);
            let nearest = crate::store::nearest(name, names);
            let text = format!("an app has no setting {name:?}{nearest}; settings are {}", names.join(", "));
            return Err(StoreError::Invalid(text));
        }
    }
    Ok(())
}

/// The settings by name with their values, in the order of [`SETTINGS`].
pub fn list(app: &AppRecord) -> [(&'static str, serde_json::Value); 25] {
    let AppSettings {
        client_events,
        tls_only,
        max_connections,
        connection_limit_soft,
        max_event_data_bytes,
        max_presence_members,
        subscription_count,
        max_cache_bytes,
        max_client_events_per_second,
        max_channel_data_bytes,
        activity_timeout,
        max_invalid_messages,
        max_channels_per_connection,
        max_channels_per_event,
        max_batch_events,
        channels_max,
        messages_per_day,
        requests_per_minute,
        signed_requests_per_minute,
        key_requests_per_minute,
        token_requests_per_minute,
        watchlist,
        authorized_connections,
        allowed_origins,
    } = &app.settings;
    [
        ("name", app.name.clone().into()),
        ("client_events", (*client_events).into()),
        ("tls_only", (*tls_only).into()),
        ("max_connections", (*max_connections).into()),
        ("connection_limit_soft", (*connection_limit_soft).into()),
        ("max_event_data_bytes", (*max_event_data_bytes).into()),
        ("max_presence_members", (*max_presence_members).into()),
        ("subscription_count", (*subscription_count).into()),
        ("max_cache_bytes", (*max_cache_bytes).into()),
        ("max_client_events_per_second", (*max_client_events_per_second).into()),
        ("max_channel_data_bytes", (*max_channel_data_bytes).into()),
        ("activity_timeout", (*activity_timeout).into()),
        ("max_invalid_messages", (*max_invalid_messages).into()),
        ("max_channels_per_connection", (*max_channels_per_connection).into()),
        ("max_channels_per_event", (*max_channels_per_event).into()),
        ("max_batch_events", (*max_batch_events).into()),
        ("channels_max", (*channels_max).into()),
        ("messages_per_day", (*messages_per_day).into()),
        ("requests_per_minute", (*requests_per_minute).into()),
        ("signed_requests_per_minute", (*signed_requests_per_minute).into()),
        ("key_requests_per_minute", (*key_requests_per_minute).into()),
        ("token_requests_per_minute", (*token_requests_per_minute).into()),
        ("watchlist", (*watchlist).into()),
        ("authorized_connections", (*authorized_connections).into()),
        ("allowed_origins", allowed_origins.iter().map(|host| &**host).collect()),
    ]
}

fn expected(name: &str, value: &str) -> StoreError {
    let takes = SETTINGS.iter().find(|(known, _)| *known == name).map_or("", |(_, takes)| *takes);
    StoreError::Invalid(format!("the setting {name} takes {takes}, not {value:?}"))
}

fn switch(name: &str, value: &str) -> Result<bool, StoreError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(expected(name, value)),
    }
}

fn number(name: &str, value: &str, least: u32, most: u32) -> Result<u32, StoreError> {
    let number: u32 = value.parse().map_err(|_| expected(name, value))?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(expected(name, value)) }
}

/// Hosts, not URLs: `example.com`, `example.com:8080`, `*.example.com`.
fn origins(value: &str) -> Result<Vec<Box<str>>, StoreError> {
    let hosts = value.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
    let hosts: Vec<Box<str>> = hosts.map(String::into_boxed_str).collect();
    if hosts.len() <= limits::ALLOWED_ORIGINS_MAX && hosts.iter().all(|host| is_origin_pattern(host)) {
        return Ok(hosts);
    }
    Err(expected("allowed_origins", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every setting takes a good value and shows it again.
    #[test]
    fn good_values_are_taken() {
        let good = [
            ("name", "Shop", "\"Shop\""),
            ("client_events", "true", "true"),
            ("tls_only", "TRUE", "true"),
            ("max_connections", "5", "5"),
            ("connection_limit_soft", "yes", "true"),
            ("max_event_data_bytes", "1048576", "1048576"),
            ("max_presence_members", "100000", "100000"),
            ("subscription_count", "true", "true"),
            ("max_cache_bytes", "4294967295", "4294967295"),
            ("max_client_events_per_second", "1000", "1000"),
            ("max_channel_data_bytes", "65536", "65536"),
            ("activity_timeout", "3600", "3600"),
            ("max_invalid_messages", "255", "255"),
            ("max_channels_per_connection", "10000", "10000"),
            ("max_channels_per_event", "250", "250"),
            ("max_batch_events", "1000", "1000"),
            ("channels_max", "4294967295", "4294967295"),
            ("messages_per_day", "4294967295", "4294967295"),
            ("requests_per_minute", "4294967295", "4294967295"),
            ("signed_requests_per_minute", "4294967295", "4294967295"),
            ("key_requests_per_minute", "4294967295", "4294967295"),
            ("token_requests_per_minute", "4294967295", "4294967295"),
            ("watchlist", "true", "true"),
            ("authorized_connections", "yes", "true"),
            ("allowed_origins", "Example.com, *.example.org", r#"["example.com","*.example.org"]"#),
        ];
        let mut app = AppRecord::stand_in();
        for (name, value, _) in good {
            apply(&mut app, name, value).expect(name);
        }
        for ((name, shown), (expected_name, _, expected)) in list(&app).iter().zip(good) {
            assert_eq!((*name, shown.to_string().as_str()), (expected_name, expected));
        }
    }

    /// Values at and beyond the limit, and unknown names: the error names the expectation or the nearest name.
    #[test]
    fn bad_values_name_the_expectation() {
        let bad = [
            ("max_event_data_bytes", "1048577", "1 to 1048576"),
            ("max_event_data_bytes", "0", "1 to 1048576"),
            ("max_presence_members", "100001", "1 to 100000"),
            ("max_client_events_per_second", "1001", "to 1000"),
            ("max_channel_data_bytes", "65537", "to 65536"),
            ("max_channels_per_connection", "10001", "to 10000"),
            ("max_channels_per_event", "251", "to 250"),
            ("max_batch_events", "1001", "to 1000"),
            ("max_channel_data_bytes", "0", "1 to"),
            ("max_channels_per_connection", "0", "1 to"),
            ("max_channels_per_event", "0", "1 to"),
            ("max_batch_events", "0", "1 to"),
            ("activity_timeout", "3601", "1 to 3600"),
            ("max_invalid_messages", "256", "1 to 255"),
            ("channels_max", "4294967296", "0 to 4294967295"),
            ("messages_per_day", "-1", "0 to 4294967295"),
            ("requests_per_minute", "many", "0 to 4294967295"),
            ("max_cache_bytes", "64MiB", "0 to 4294967295"),
            ("max_connections", "-1", "0 to 4294967295"),
            ("client_events", "maybe", "true or false"),
            ("allowed_origins", "https://example.com/", "hosts"),
            ("allowed_origins", "a.*.com", "hosts"),
            ("name", "a\nb", "control"),
            ("client_event", "true", "client_events"),
        ];
        let before = AppRecord::stand_in();
        for (name, value, expectation) in bad {
            let mut app = before.clone();
            let error = apply(&mut app, name, value).expect_err(name).to_string();
            assert!(error.contains(expectation), "{error}");
            assert_eq!(app, before);
        }
    }
}
