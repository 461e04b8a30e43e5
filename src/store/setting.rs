//! The settings of an app by name, as `relay app set ID key=value` uses them: its `name`, and the table of
//! [`crate::app::settings`].

use ipnet::IpNet;

use super::error::StoreError;
use super::record::{AppRecord, check_name};
use crate::app::settings::APP_SETTINGS;

/// Sets one setting from its text.
pub fn apply(app: &mut AppRecord, name: &str, value: &str) -> Result<(), StoreError> {
    if name == NAME {
        check_name(value)?;
        app.name = value.into();
        return Ok(());
    }
    app.settings.set(name, value).map_err(|error| StoreError::Invalid(error.to_string()))
}

/// Sets several settings from their texts, and checks those that depend on each other. `allowed` are networks that
/// authorizers may be in, in addition to public addresses.
pub fn apply_all(app: &mut AppRecord, settings: &[(&str, &str)], allowed: &[IpNet]) -> Result<(), StoreError> {
    settings.iter().try_for_each(|(name, value)| apply(app, name, value))?;
    app.settings.check(allowed).map_err(StoreError::Invalid)
}

/// The settings by name with their values and descriptions, the name first.
pub fn list(app: &AppRecord) -> impl Iterator<Item = (&'static str, serde_json::Value, String)> {
    let name = (NAME, app.name.clone().into(), ABOUT_NAME.to_owned());
    let settings = APP_SETTINGS.iter().map(|setting| {
        let about = format!("{}: {}", setting.summary(), setting.takes);
        (setting.name, (setting.show)(&app.settings), about)
    });
    std::iter::once(name).chain(settings)
}

/// The setting that belongs to the app itself.
pub const NAME: &str = "name";
/// What it is, for people.
pub const ABOUT_NAME: &str = "a name for people, at most 100 bytes";

#[cfg(test)]
mod tests {
    use super::*;

    /// Every setting accepts a valid value and returns it.
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
            ("history_events", "10000", "10000"),
            ("history_seconds", "86400", "86400"),
            ("history_bytes", "4294967295", "4294967295"),
            ("max_client_events_per_second", "1000", "1000"),
            ("max_channel_data_bytes", "65536", "65536"),
            ("activity_timeout", "3600", "3600"),
            ("max_invalid_messages", "255", "255"),
            ("max_channels_per_connection", "10000", "10000"),
            ("max_channels_per_event", "250", "250"),
            ("max_batch_events", "1000", "1000"),
            ("max_channels", "4294967295", "4294967295"),
            ("messages_per_day", "4294967295", "4294967295"),
            ("requests_per_minute", "4294967295", "4294967295"),
            ("signed_requests_per_minute", "4294967295", "4294967295"),
            ("key_requests_per_minute", "4294967295", "4294967295"),
            ("token_requests_per_minute", "4294967295", "4294967295"),
            ("watchlist", "true", "true"),
            ("authorized_connections", "yes", "true"),
            ("allowed_origins", "Example.com, *.example.org", r#"["example.com","*.example.org"]"#),
            ("insecure_origins", "true", "true"),
            ("authorizer_url", "https://example.com/auth", r#""https://example.com/auth""#),
            ("user_authorizer_url", "https://example.com/user", r#""https://example.com/user""#),
            ("authorizer_allow_private", "true", "true"),
            ("authorizer_cookies", "laravel_session, XSRF-TOKEN", r#"["laravel_session","XSRF-TOKEN"]"#),
            ("max_authorizer_requests", "1000", "1000"),
        ];
        let mut app = AppRecord::stand_in();
        for (name, value, _) in good {
            apply(&mut app, name, value).expect(name);
        }
        let shown: Vec<(&str, String)> = list(&app).map(|(name, value, _)| (name, value.to_string())).collect();
        let expected: Vec<(&str, String)> = good.iter().map(|(name, _, shown)| (*name, (*shown).to_owned())).collect();
        assert_eq!(shown, expected);
    }

    /// `channels_max` was the name of `max_channels`: it is still accepted, also in stored records.
    #[test]
    fn former_names_count() {
        let mut app = AppRecord::stand_in();
        apply(&mut app, "channels_max", "7").expect("taken");
        assert_eq!(app.settings.max_channels, 7);
        let stored = serde_json::to_value(&app.settings).expect("JSON");
        assert_eq!((&stored["channels_max"], stored.get("max_channels")), (&7.into(), None));
    }

    /// R-AUTHEP-3, threat T38: the URL of an authorizer is checked together with the permission for private addresses,
    /// in whatever order both are given; the error names the flag that permits them.
    #[test]
    fn authorizer_urls_need_permission_for_private_addresses() {
        let set = |settings: &[(&str, &str)]| {
            let mut app = AppRecord::stand_in();
            apply_all(&mut app, settings, &[]).map_err(|error| error.to_string())
        };
        for name in ["authorizer_url", "user_authorizer_url"] {
            for url in ["http://10.0.0.7/auth", "https://127.0.0.1/", "http://backend.internal/"] {
                let error = set(&[(name, url)]).expect_err(url);
                assert!(error.contains("--allow-private"), "{error}");
                assert_eq!(set(&[(name, url), ("authorizer_allow_private", "true")]), Ok(()));
                assert_eq!(set(&[("authorizer_allow_private", "true"), (name, url)]), Ok(()));
            }
            for url in ["https://user:pass@example.com/", "ftp://example.com/", "example.com"] {
                assert!(set(&[(name, url), ("authorizer_allow_private", "true")]).is_err(), "{url}");
            }
            assert_eq!(set(&[(name, "https://example.com/auth")]), Ok(()));
        }
    }

    /// Values at and beyond the limit, and unknown names: the error describes the accepted values or suggests the
    /// nearest name.
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
            ("activity_timeout", "3601", "0 to 3600"),
            ("max_invalid_messages", "256", "1 to 255"),
            ("max_channels", "4294967296", "0 to 4294967295"),
            ("messages_per_day", "-1", "0 to 4294967295"),
            ("requests_per_minute", "many", "0 to 4294967295"),
            ("max_cache_bytes", "64MiB", "0 to 4294967295"),
            ("history_events", "10001", "0 to 10000"),
            ("history_seconds", "0", "1 to 86400"),
            ("max_connections", "-1", "0 to 4294967295"),
            ("client_events", "maybe", "true or false"),
            ("allowed_origins", "https://example.com/", "hosts"),
            ("allowed_origins", "a.*.com", "hosts"),
            ("authorizer_cookies", "a b", "cookie names"),
            ("max_authorizer_requests", "0", "1 to 1000"),
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
