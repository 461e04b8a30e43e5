//! The settings of an app by name, as `relay app set ID key=value` names them.

use super::error::StoreError;
use super::record::{AppRecord, SettingsRecord, check_name};
use crate::limits;

/// Every setting and what it takes.
pub const SETTINGS: [(&str, &str); 12] = [
    ("name", "a name for people, at most 100 bytes"),
    ("client_events", "true or false: clients may send client- events"),
    ("tls_only", "true or false: plain sockets are refused"),
    ("max_connections", "WebSockets at once, 0 to 4294967295; 0 is no quota"),
    ("connection_limit_soft", "true or false: clients over the quota come back by themselves (4100 instead of 4004)"),
    ("max_event_data_bytes", "longest data of one event in bytes, 1 to 1048576"),
    ("max_presence_members", "users in one presence channel, 1 to 10000"),
    ("subscription_count", "true or false: subscribers are told how many they are"),
    (
        "max_cache_bytes",
        "what the events of cache channels may take together, in bytes, 0 to 4294967295; 0 caches nothing",
    ),
    ("watchlist", "true or false: signed-in users are told who of their watchlist is there"),
    ("authorized_connections", "true or false: connections must sign in or join a protected channel in time"),
    ("allowed_origins", "hosts whose pages may connect, joined by commas; empty allows all"),
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
pub fn list(app: &AppRecord) -> [(&'static str, serde_json::Value); 12] {
    let SettingsRecord {
        client_events,
        tls_only,
        max_connections,
        connection_limit_soft,
        max_event_data_bytes,
        max_presence_members,
        subscription_count,
        max_cache_bytes,
        watchlist,
        authorized_connections,
        allowed_origins,
    } = app.settings.clone();
    [
        ("name", app.name.clone().into()),
        ("client_events", client_events.into()),
        ("tls_only", tls_only.into()),
        ("max_connections", max_connections.into()),
        ("connection_limit_soft", connection_limit_soft.into()),
        ("max_event_data_bytes", max_event_data_bytes.into()),
        ("max_presence_members", max_presence_members.into()),
        ("subscription_count", subscription_count.into()),
        ("max_cache_bytes", max_cache_bytes.into()),
        ("watchlist", watchlist.into()),
        ("authorized_connections", authorized_connections.into()),
        ("allowed_origins", allowed_origins.into()),
    ]
}

fn expected(name: &str, value: &str) -> StoreError {
    let takes = SETTINGS.iter().find(|(known, _)| *known == name).map_or("", |(_, takes)| *takes);
    StoreError::Invalid(format!("the setting {name} takes {takes}, not {value:?}"))
}

fn switch(name: &str, value: &str) -> Result<bool, StoreError> {
    match value {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(expected(name, value)),
    }
}

fn number(name: &str, value: &str, least: u32, most: u32) -> Result<u32, StoreError> {
    let number: u32 = value.parse().map_err(|_| expected(name, value))?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(expected(name, value)) }
}

/// Hosts, not URLs: `example.com`, `*.example.com`. What stands before `://` and after the host is refused, so that
/// nobody believes a port or path is compared.
fn origins(value: &str) -> Result<Vec<String>, StoreError> {
    let hosts: Vec<String> =
        value.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect();
    let plain = |host: &String| {
        host.len() <= 253 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*:[]".contains(&byte))
    };
    if hosts.len() <= limits::ALLOWED_ORIGINS_MAX && hosts.iter().all(plain) {
        return Ok(hosts);
    }
    Err(expected("allowed_origins", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppRecord {
        AppRecord {
            serial: 1,
            id: "1".into(),
            name: String::new(),
            enabled: true,
            created_at_ms: 0,
            keys: Vec::new(),
            settings: SettingsRecord::default(),
        }
    }

    /// Every setting takes a good value and shows it again.
    #[test]
    fn good_values_are_taken() {
        let good = [
            ("name", "Shop", "\"Shop\""),
            ("client_events", "true", "true"),
            ("tls_only", "on", "true"),
            ("max_connections", "5", "5"),
            ("connection_limit_soft", "yes", "true"),
            ("max_event_data_bytes", "1048576", "1048576"),
            ("max_presence_members", "10000", "10000"),
            ("subscription_count", "true", "true"),
            ("max_cache_bytes", "4294967295", "4294967295"),
            ("watchlist", "true", "true"),
            ("authorized_connections", "yes", "true"),
            ("allowed_origins", "Example.com, *.example.org", r#"["example.com","*.example.org"]"#),
        ];
        let mut app = app();
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
            ("max_presence_members", "10001", "1 to 10000"),
            ("max_cache_bytes", "64MiB", "0 to 4294967295"),
            ("max_connections", "-1", "0 to 4294967295"),
            ("client_events", "maybe", "true or false"),
            ("allowed_origins", "https://example.com/", "hosts"),
            ("name", "a\nb", "control"),
            ("client_event", "true", "client_events"),
        ];
        let before = app();
        for (name, value, expectation) in bad {
            let mut app = before.clone();
            let error = apply(&mut app, name, value).expect_err(name).to_string();
            assert!(error.contains(expectation), "{error}");
            assert_eq!(app, before);
        }
    }
}
