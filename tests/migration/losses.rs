//! Nothing is lost or loosened silently: NULL, the column names of tables, Sockudo's `policy`, the table at the end,
//! and the cases that need `--accept-loss`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{migrate, report, show};
use crate::common::cli;
use crate::common::server::data_directory;

fn write(place: &Path, name: &str, text: &str) -> PathBuf {
    let path = place.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The row of a key in the table: result, effect and reason.
#[track_caller]
fn row<'a>(report: &'a Value, key: &str) -> [&'a str; 3] {
    let rows = report["table"].as_array().unwrap();
    let found = rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key} in {rows:#?}"));
    ["result", "effect", "reason"].map(|member| found[member].as_str().unwrap())
}

#[track_caller]
fn settings(id: &str, data: &Path, wanted: &[(&str, Value)]) {
    let app = show(id, data);
    for (name, value) in wanted {
        assert_eq!(&app["settings"][*name], value, "{name} of {id}");
    }
}

/// A table of soketi as MySQL and PostgreSQL export it: NULL is the default in each of its spellings, the rates have
/// soketi's column names, a JSON column is a text, a switch is 0, 1, "TRUE" or "f".
#[test]
fn a_table_of_soketi() {
    let place = data_directory();
    let data = place.path().join("data");
    let limits = [
        "max_connections",
        "enable_client_messages",
        "enabled",
        "max_backend_events_per_sec",
        "max_client_events_per_sec",
        "max_read_req_per_sec",
        "webhooks",
        "max_presence_members_per_channel",
        "max_presence_member_size_in_kb",
        "max_channel_name_length",
        "max_event_channels_at_once",
        "max_event_name_length",
        "max_event_payload_in_kb",
        "max_event_batch_size",
        "enable_user_authentication",
    ];
    let mut rows = vec![
        json!({
            "id": "4711", "key": "full", "secret": "s", "enabled": "TRUE", "enable_client_messages": "True",
            "max_connections": 200, "max_client_events_per_sec": 25, "max_backend_events_per_sec": -1,
            "max_read_req_per_sec": "-1", "max_presence_member_size_in_kb": 20, "enable_user_authentication": 1,
            "webhooks": "[{\"url\": \"https://example.com/h\", \"event_types\": [\"channel_occupied\"]}]",
        }),
        json!({ "id": "4712", "key": "off", "secret": "s", "enabled": "f", "enable_client_messages": 0 }),
    ];
    for (number, unset) in [Value::Null, json!("NULL"), json!("")].into_iter().enumerate() {
        let mut row = json!({ "id": number, "key": format!("k{number}"), "secret": "s" });
        limits.iter().for_each(|name| row[*name] = unset.clone());
        rows.push(row);
    }
    let file = write(place.path(), "apps.json", &json!(rows).to_string());
    let made = report("soketi", &file, &data, &[]);
    assert_eq!(made["apps"][0]["webhooks"][0]["url"], "https://example.com/h");
    settings(
        "4711",
        &data,
        &[
            ("client_events", json!(true)),
            ("max_connections", json!(200)),
            ("max_client_events_per_second", json!(25)),
            ("max_channel_data_bytes", json!(20 * 1024 + 1024)),
            ("authorized_connections", json!(true)),
        ],
    );
    assert_eq!((&show("4711", &data)["enabled"], &show("4712", &data)["enabled"]), (&json!(true), &json!(false)));
    for id in ["0", "1", "2"] {
        assert_eq!(show(id, &data)["enabled"], true, "NULL is soketi's default");
        settings(
            id,
            &data,
            &[
                ("client_events", json!(false)),
                ("max_connections", json!(0)),
                ("max_event_data_bytes", json!(102_400)),
                ("max_client_events_per_second", json!(0)),
                ("max_channel_data_bytes", json!(3_072)),
                ("max_presence_members", json!(100)),
            ],
        );
    }
    assert_eq!(made["not_taken"], json!([]));
}

/// Sockudo's present form groups limits, features, channels and webhooks below `policy`, and ignores other members
/// beside it. It gives the same app as the older flat form, also as the text of a column.
#[test]
fn a_policy_of_sockudo() {
    let place = data_directory();
    let limits = json!({ "max_connections": 500, "max_client_events_per_second": 7, "max_event_payload_in_kb": 50 });
    let features = json!({
        "enable_client_messages": true, "enable_user_authentication": true, "enable_watchlist_events": true,
    });
    let channels = json!({ "allowed_origins": ["shop.example.com"] });
    let webhooks = json!([{ "url": "https://example.com/h", "event_types": ["member_added"] }]);
    let policy = json!({ "limits": limits, "features": features, "channels": channels, "webhooks": webhooks });
    let app = |more: Value| {
        let mut app = json!({ "id": "11", "key": "k", "secret": "s", "enabled": true });
        let members = more.as_object().unwrap().clone();
        app.as_object_mut().unwrap().extend(members);
        json!({ "app_manager": { "driver": "memory", "array": { "apps": [app] } } })
    };
    let mut flat = json!({ "webhooks": webhooks });
    for group in [&limits, &features, &channels] {
        flat.as_object_mut().unwrap().extend(group.as_object().unwrap().clone());
    }
    let beside = json!({ "policy": policy, "max_connections": 5, "allowed_origins": ["old.example.com"] });
    for (name, more) in [
        ("flat", flat),
        ("policy", json!({ "policy": policy })),
        ("text", json!({ "policy": policy.to_string() })),
        ("beside", beside),
    ] {
        let data = place.path().join(name);
        let file = write(place.path(), "config.json", &app(more).to_string());
        let made = report("sockudo", &file, &data, &[]);
        assert_eq!(made["apps"][0]["webhooks"][0]["events"], json!(["member_added"]), "{name}");
        settings(
            "11",
            &data,
            &[
                ("client_events", json!(true)),
                ("max_connections", json!(500)),
                ("max_client_events_per_second", json!(7)),
                ("max_event_data_bytes", json!(51_200)),
                ("authorized_connections", json!(true)),
                ("watchlist", json!(true)),
                ("allowed_origins", json!(["shop.example.com"])),
            ],
        );
        if name == "beside" {
            let [result, effect, reason] = row(&made, "app_manager.array.apps.0.max_connections");
            assert_eq!([result, effect], ["dropped", "same"]);
            assert!(reason.contains("beside policy"), "{reason}");
        }
    }
}

/// Times and sizes that apply to the server or one app: soketi's milliseconds, Sockudo's seconds, Reverb's two times of
/// an app, the size of a member. A value outside Relay's range becomes the nearest one and is reported.
#[test]
fn times_and_sizes() {
    let place = data_directory();
    let data = place.path().join("data");
    let apps = json!([{ "id": "1", "key": "k", "secret": "s" }]);
    for (origin, time, seconds) in [("soketi", 45_500, 46), ("sockudo", 1_800, 1_800)] {
        let text = json!({ "userAuthenticationTimeout": time, "presence.maxMemberSizeInKb": 5, "apps": apps });
        let file = write(place.path(), "config.json", &text.to_string());
        let made = report(origin, &file, &data, &["--dry-run"]);
        assert_eq!(made["settings"], json!({ "authorization_timeout": seconds }), "{origin}");
        assert_eq!(made["apps"][0]["settings"]["max_channel_data_bytes"], "6144", "{origin}");
    }
    let far = json!({ "activity_timeout": 100_000, "channel_limits": { "cache_ttl": 0 }, "apps": apps });
    let made = report("sockudo", &write(place.path(), "config.json", &far.to_string()), &data, &["--dry-run"]);
    assert_eq!(made["settings"], json!({ "activity_timeout": 3_600, "cache_ttl": 1 }));
    assert_eq!(row(&made, "activity_timeout")[0], "changed");

    let reverb = json!([
        { "app_id": "1", "key": "a", "secret": "s", "ping_interval": 60, "activity_timeout": 30 },
        { "app_id": "2", "key": "b", "secret": "s", "ping_interval": 50 },
        { "app_id": "3", "key": "c", "secret": "s", "max_message_size": 5_000 },
    ]);
    let made = report("reverb", &write(place.path(), "apps.json", &reverb.to_string()), &data, &[]);
    settings("1", &data, &[("activity_timeout", json!(30)), ("max_presence_members", json!(100_000))]);
    settings("2", &data, &[("activity_timeout", json!(50))]);
    settings("3", &data, &[("max_event_data_bytes", json!(5_000))]);
    assert_eq!(row(&made, "0.ping_interval")[..2], ["changed", "same"]);
    assert_eq!(row(&made, "2.max_message_size")[..2], ["changed", "tightens"]);
}

/// Lists of origins keep their meaning: hosts, ports where the old server compared them, words; a list of which nothing
/// is left would allow everybody, and needs the operator's confirmation.
#[test]
fn origins_never_open_in_silence() {
    let place = data_directory();
    let data = place.path().join("data");
    let run = |origin: &str, origins: Value| {
        let apps = json!([{ "id": "1", "key": "k", "secret": "s", "allowed_origins": origins }]);
        let file = write(place.path(), "apps.json", &apps.to_string());
        report(origin, &file, &data, &["--dry-run", "--accept-loss"])
    };
    for (origin, origins, wanted, found) in [
        ("sockudo", json!(["https://a.test:8443", "b.test"]), json!("a.test:8443,b.test"), ["changed", "same"]),
        ("sockudo", json!(["http://[::1]:3000"]), json!("[::1]:3000"), ["changed", "same"]),
        ("sockudo", json!("[\"a.test\", \"null\", \"file://\"]"), json!("a.test,null,file://"), ["taken", "same"]),
        ("sockudo", json!("a.test, b.test"), json!("a.test,b.test"), ["taken", "same"]),
        ("sockudo", json!(["a.test", "shop*test"]), json!("a.test"), ["changed", "tightens"]),
        ("sockudo", json!(["shop*test"]), Value::Null, ["dropped", "loosens"]),
        ("sockudo", json!(["*.a.test"]), json!("*.a.test"), ["changed", "tightens"]),
        ("sockudo", json!(["*.a.test", "a.test"]), json!("*.a.test,a.test"), ["taken", "same"]),
        ("sockudo", json!(["any"]), Value::Null, ["taken", "same"]),
        ("sockudo", json!([]), Value::Null, ["taken", "same"]),
        ("reverb", json!([]), Value::Null, ["dropped", "loosens"]),
        ("reverb", json!(["a.test:8443"]), json!("a.test"), ["changed", "same"]),
        ("laravel-websockets", json!(["a.test"]), json!("a.test"), ["taken", "same"]),
    ] {
        let made = run(origin, origins.clone());
        assert_eq!(made["apps"][0]["settings"]["allowed_origins"], wanted, "{origin} {origins}");
        assert_eq!(row(&made, "0.allowed_origins")[..2], found, "{origin} {origins}");
    }
}

/// A setting that would allow more than on the old server changes nothing and fails, in a dry run too, until the
/// operator accepts it. A setting that allows less is only shown.
#[test]
fn losses_need_the_operators_word() {
    let place = data_directory();
    let data = place.path().join("data");
    let apps = |app: Value| {
        let mut whole = json!({ "id": "1", "key": "k", "secret": "s" });
        whole.as_object_mut().unwrap().extend(app.as_object().unwrap().clone());
        json!({ "apps": [whole] })
    };
    let with = |key: &str, value: Value| {
        let mut file = apps(json!({}));
        file[key] = value;
        file
    };
    for (origin, text, key) in [
        ("soketi", apps(json!({ "maxBackendEventsPerSecond": 5 })), "apps.0.maxBackendEventsPerSecond"),
        ("soketi", apps(json!({ "max_read_req_per_sec": "5" })), "apps.0.max_read_req_per_sec"),
        ("soketi", apps(json!({ "maxConnections": 0 })), "apps.0.maxConnections"),
        ("soketi", apps(json!({ "maxClientEventsPerSecond": 0 })), "apps.0.maxClientEventsPerSecond"),
        ("soketi", apps(json!({ "maxChannelNameLength": 100 })), "apps.0.maxChannelNameLength"),
        ("soketi", apps(json!({ "maxOfSomething": 100 })), "apps.0.maxOfSomething"),
        ("soketi", with("ssl", json!({ "certPath": "/c.pem" })), "ssl.*"),
        ("sockudo", with("ssl", json!({ "redirect_http": true, "enabled": true })), "ssl.*"),
        ("sockudo", with("rate_limiter", json!({ "driver": "redis", "enabled": true })), "rate_limiter.*"),
        (
            "sockudo",
            apps(json!({ "channel_namespaces": [{ "name": "n", "allow_publish_for_client": false }] })),
            "apps.0.channel_namespaces.0.allow_publish_for_client",
        ),
        ("sockudo", apps(json!({ "decay_seconds": 10 })), "apps.0.decay_seconds"),
        (
            "sockudo",
            apps(json!({ "policy": { "limits": { "message_rate_limit": { "enabled": true, "max_attempts": 60 } } } })),
            "apps.0.policy.limits.message_rate_limit.enabled",
        ),
        ("reverb", apps(json!({ "rate_limiting": { "enabled": true } })), "apps.0.rate_limiting.enabled"),
        ("laravel-websockets", with("ssl", json!({ "local_cert": "/c.pem" })), "ssl.*"),
    ] {
        let file = write(place.path(), "config.json", &text.to_string());
        for more in [&["--dry-run"][..], &[]] {
            let output = migrate(origin, &file, &data, &[more, &["--json"]].concat());
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{text}: {error}");
            assert!(error.contains("--accept-loss") && error.starts_with("relay: 1 "), "{error}");
            let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(row(&shown, key)[1], "loosens", "{text}");
            assert_eq!(shown["applied"], false);
            assert!(!data.exists(), "nothing was made");
        }
        let accepted = place.path().join("accepted");
        report(origin, &file, &accepted, &["--accept-loss"]);
        assert_eq!(show("1", &accepted)["id"], "1");
        std::fs::remove_dir_all(&accepted).unwrap();
    }
    for (text, key) in [
        (apps(json!({ "maxChannelNameLength": 300 })), "apps.0.maxChannelNameLength"),
        (apps(json!({ "maxClientEventsPerSecond": 5_000 })), "apps.0.maxClientEventsPerSecond"),
    ] {
        let file = write(place.path(), "config.json", &text.to_string());
        assert_eq!(row(&report("soketi", &file, &data, &["--dry-run"]), key)[1], "tightens", "{text}");
    }
}

/// The text ends with the table: every value of the file with its outcome, without the text of values that were not
/// imported.
#[test]
fn the_table_ends_the_report() {
    let place = data_directory();
    let text = json!({
        "port": 6002,
        "database": { "redis": { "password": "hunter2" } },
        "apps": [{
            "id": "1", "key": "k", "secret": "hunter2", "max_connections": 5, "max_channel_name_length": 300,
            "enabled": false, "colour": "hunter2",
        }],
    });
    let file = write(place.path(), "config.json", &text.to_string());
    let output = migrate("soketi", &file, &place.path().join("data"), &[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    let table = shown.split("Values of the file:\n\n").nth(1).unwrap_or_else(|| panic!("{shown}"));
    let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "KEY RESULT REASON",
        "port taken listen",
        "database.* dropped Relay needs no such thing, or decides it by itself",
        "apps.0.max_connections taken max_connections=5",
        "apps.0.max_channel_name_length dropped, tightens it is 200 for all apps",
        "apps.0.enabled taken disabled",
        "apps.0.colour dropped Relay knows of no such key of an app of soketi",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line:?} in {lines:#?}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// An app that was disabled here stays so unless the file enables it; one that the file disables becomes disabled.
#[test]
fn disabled_apps_stay_disabled() {
    let place = data_directory();
    let data = place.path().join("data");
    let run = |enabled: Value| {
        let text = json!([{ "id": "1", "key": "k", "secret": "s", "enabled": enabled }]);
        let made = report("soketi", &write(place.path(), "apps.json", &text.to_string()), &data, &[]);
        assert_eq!(made["apps"][0]["enabled"], show("1", &data)["enabled"]);
        made["apps"][0]["enabled"].as_bool().unwrap()
    };
    assert!(run(Value::Null));
    let disabled = cli::run(&["app", "disable", "1", "--data", data.to_str().unwrap()]);
    assert!(disabled.status.success());
    assert!(!run(Value::Null), "null says nothing");
    assert!(run(json!("TRUE")));
    assert!(!run(json!(0)));
}

/// A secret that Sockudo reads from its environment is refused, not imported as the text of the reference.
#[test]
fn references_are_no_secrets() {
    let place = data_directory();
    let text = json!([{ "id": "1", "key": "k", "secret": "${APP_SECRET:-hunter2}" }]);
    let file = write(place.path(), "apps.json", &text.to_string());
    let output = migrate("sockudo", &file, &place.path().join("data"), &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("0.secret takes a text, written out") && !error.contains("hunter2"), "{error}");
}

/// Sockudo does not enable an app whose configuration lacks the flag: such an app is created disabled, and the table
/// reports it. One that the operator has enabled here since stays enabled.
#[test]
fn apps_of_sockudo_are_disabled_by_default() {
    let place = data_directory();
    let data = place.path().join("data");
    let file = |app: Value| write(place.path(), "config.json", &json!({ "apps": [app] }).to_string());
    let silent = || file(json!({ "id": "1", "key": "k", "secret": "s" }));
    for more in [&["--dry-run"][..], &[]] {
        let made = report("sockudo", &silent(), &data, more);
        assert_eq!(made["apps"][0]["enabled"], false);
        let [result, _, reason] = row(&made, "apps.0.enabled");
        assert_eq!([result, reason], ["taken", "disabled: sockudo enables no app without it"]);
    }
    assert_eq!(show("1", &data)["enabled"], false);
    assert!(cli::run(&["app", "enable", "1", "--data", data.to_str().unwrap()]).status.success());
    assert_eq!(report("sockudo", &silent(), &data, &[])["apps"][0]["outcome"], "same");
    assert_eq!(show("1", &data)["enabled"], true);
    for (enabled, expected) in [(Value::Null, false), (json!(true), true), (json!(false), false)] {
        let other = file(json!({ "id": "2", "key": "k2", "secret": "s", "enabled": enabled }));
        report("sockudo", &other, &data, &[]);
        assert_eq!(show("2", &data)["enabled"], expected, "{enabled}");
    }
}
