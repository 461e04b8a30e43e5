//! Moving to Relay from another server: `relay migrate` over sample configurations, the variables of other servers, and
//! old credentials on a real server afterwards.

mod environment;
mod losses;
mod webhooks;

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::cli;
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, data_directory};
use crate::common::sign::App;
use crate::common::socket::Socket;
use serde_json::{Value, json};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migration").join(name)
}

fn migrate(origin: &str, file: &Path, data: &Path, more: &[&str]) -> Output {
    let arguments = ["migrate", "--from", origin, file.to_str().unwrap(), "--data", data.to_str().unwrap()];
    cli::run(&[&arguments, more].concat())
}

#[track_caller]
fn report(origin: &str, file: &Path, data: &Path, more: &[&str]) -> Value {
    let output = migrate(origin, file, data, &[more, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn show(id: &str, data: &Path) -> Value {
    cli::run_json(&["app", "show", id, "--secrets", "--json", "--data", data.to_str().unwrap()])
}

/// Why a key was not imported, by key.
fn reason<'a>(report: &'a Value, key: &str) -> &'a str {
    let entries = report["not_taken"].as_array().unwrap();
    let found = entries.iter().find(|entry| entry["key"] == key);
    found.unwrap_or_else(|| panic!("{key} in {entries:?}"))["reason"].as_str().unwrap()
}

/// A soketi file: a dry run reports what the run then does; apps arrive with ids, keys, secrets and limits, the rest of
/// the file becomes settings or is listed with its reason, and a second run changes nothing.
#[test]
fn a_soketi_file() {
    let place = data_directory();
    let (data, file) = (place.path().join("data"), sample("soketi.json"));
    let mut dry = report("soketi", &file, &data, &["--dry-run", "--accept-loss"]);
    assert!(!data.exists(), "a dry run makes nothing");
    let wet = report("soketi", &file, &data, &["--accept-loss"]);
    assert_eq!((dry["dry_run"].take(), wet["dry_run"].clone()), (json!(true), json!(false)));
    assert_eq!(
        (&dry["apps"], &dry["settings"], &dry["not_taken"]),
        (&wet["apps"], &wet["settings"], &wet["not_taken"])
    );

    let shop = show("4711", &data);
    assert_eq!(shop["keys"][0]["key"], "shop-key");
    assert_eq!(shop["keys"][0]["secret"], "shop-secret-of-its-own");
    assert_eq!(shop["enabled"], true);
    for (name, value) in [
        ("max_connections", json!(5000)),
        ("client_events", json!(true)),
        ("max_presence_members", json!(250)),
        ("max_event_data_bytes", json!(12_800)),
    ] {
        assert_eq!(shop["settings"][name], value, "{name}");
    }
    let office = show("4712", &data);
    assert_eq!((&office["enabled"], &office["settings"]["max_connections"]), (&json!(false), &json!(0)));
    assert_eq!(office["settings"]["max_event_data_bytes"], 51_200, "eventLimits hold for apps without their own");

    let wanted = json!({
        "listen": "0.0.0.0:6002", "metrics_listen": "127.0.0.1:9700", "path_prefix": "/ws", "drain_ms": 5000,
        "log": "info,relay=debug", "metrics_prefix": "soketi_",
    });
    assert_eq!(wet["settings"], wanted);
    for (key, part) in [
        ("appManager.array.apps.0.maxReadRequestsPerSecond", "per minute"),
        ("appManager.array.apps.1.colour", "no such key"),
        ("eventLimits.maxNameLength", "200"),
        ("adapter.driver", "cluster"),
        ("ssl.*", "TLS"),
        ("database.*", "needs no"),
    ] {
        assert!(reason(&wet, key).contains(part), "{key}: {}", reason(&wet, key));
    }
    assert!(!wet.to_string().contains("hunter2"), "no value of a key that is not taken is shown");
    let taken = ["maxEventBatchSize", "maxClientEventsPerSecond", "passphrase", "maxMemberSizeInKb", "webhooks"];
    for entry in wet["not_taken"].as_array().unwrap() {
        assert!(!taken.iter().any(|key| entry["key"].as_str().unwrap().ends_with(key)), "{entry}");
    }

    let again = report("soketi", &file, &data, &["--accept-loss"]);
    assert!(again["apps"].as_array().unwrap().iter().all(|app| app["outcome"] == "same"), "{again}");
}

/// The reported `relay.toml` is valid, and it has the meaning of the old file.
#[test]
fn the_settings_are_a_relay_toml() {
    let place = data_directory();
    let output = migrate("soketi", &sample("soketi.json"), &place.path().join("data"), &["--dry-run"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let settings = text.split("For relay.toml:\n\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let file = place.path().join("relay.toml");
    std::fs::write(&file, settings).unwrap();
    let checked = cli::run(&["check-config", "--config", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(told.contains("listen 0.0.0.0:6002, health 127.0.0.1:9700"), "{told}");
}

/// The formats of the other servers, as their own tools write them.
#[test]
fn other_servers() {
    let place = data_directory();
    let data = place.path().join("data");
    let board = report("sockudo", &sample("sockudo.toml"), &data, &["--accept-loss"]);
    let wanted = json!({ "listen": "127.0.0.1:6003", "activity_timeout": 60, "drain_ms": 4000, "cache_ttl": 3600 });
    assert_eq!(board["settings"], wanted);
    let app = show("77", &data);
    assert_eq!(app["settings"]["allowed_origins"], json!(["board.example.com", "*.example.org"]));
    assert_eq!(app["settings"]["max_event_data_bytes"], 102_400, "what Sockudo allows by default");
    assert!(reason(&board, "rate_limiter.*").contains("per address"));

    let laravel = report("reverb", &sample("reverb.json"), &data, &[]);
    assert_eq!(laravel["settings"], json!({ "listen": "0.0.0.0:8080" }));
    let app = show("256980", &data);
    assert_eq!(
        (&app["keys"][0]["secret"], &app["settings"]["client_events"]),
        (&json!("laravel-secret-of-its-own"), &json!(true))
    );
    assert!(reason(&laravel, "apps.apps.0.options.host").contains(".env"));
    assert!(reason(&laravel, "servers.reverb.hostname").contains("every name"));

    let old = report("laravel-websockets", &sample("laravel-websockets.json"), &data, &[]);
    let app = show("12345", &data);
    assert_eq!((&app["name"], &app["settings"]["client_events"]), (&json!("Laravel"), &json!(true)));
    assert_eq!(app["settings"]["max_event_data_bytes"], 20_480);
    assert!(reason(&old, "statistics.*").contains("Laravel"));

    let list = place.path().join("apps.json");
    std::fs::write(&list, r#"[{"id": "9", "key": "bare", "secret": "bare-secret"}]"#).unwrap();
    let bare = report("soketi", &list, &data, &[]);
    assert_eq!(bare["apps"][0]["outcome"], "created");
}

/// A file with a changed limit changes that limit of the app and nothing that the file does not name: settings made
/// here, further keys.
#[test]
fn a_later_file_changes_what_it_names() {
    let place = data_directory();
    let (data, file) = (place.path().join("data"), place.path().join("apps.json"));
    let directory = data.to_str().unwrap();
    let write = |quota: u32, secret: &str| {
        let apps = json!([{ "id": "9", "key": "k", "secret": secret, "maxConnections": quota }]);
        std::fs::write(&file, apps.to_string()).unwrap();
    };
    write(5, "first-secret");
    report("soketi", &file, &data, &[]);
    assert_eq!(show("9", &data)["settings"]["max_event_data_bytes"], 102_400, "what soketi allows by default");
    let own = ["max_presence_members=7", "max_event_data_bytes=7000"];
    cli::run_json(&[&["app", "set", "9"], &own[..], &["--data", directory, "--json"]].concat());
    cli::run_json(&["app", "rotate", "9", "--data", directory, "--json"]);
    write(6, "second-secret");
    assert_eq!(report("soketi", &file, &data, &["--dry-run"])["apps"][0]["outcome"], "changed");
    assert_eq!(report("soketi", &file, &data, &[])["apps"][0]["outcome"], "changed");
    let app = show("9", &data);
    assert_eq!(app["settings"]["max_connections"], 6);
    assert_eq!(app["settings"]["max_presence_members"], 7);
    assert_eq!(app["settings"]["max_event_data_bytes"], 7000);
    assert_eq!((&app["keys"][0]["secret"], app["keys"].as_array().unwrap().len()), (&json!("second-secret"), 2));
}

/// Errors name the file and the key, exit with 2, repeat no secret, and create nothing.
#[test]
fn errors_name_file_and_key() {
    let place = data_directory();
    let (data, file) = (place.path().join("data"), place.path().join("bad.json"));
    let app = |more: &str| format!(r#"{{"appManager": {{"array": {{"apps": [{{"id": "1", "key": "k", {more}}}]}}}}}}"#);
    let cases = [
        ("{\"port\": 6001,}".to_owned(), vec!["bad.json: ", "not JSON", "line 1"]),
        (app(r#""secret": "hunter2 hunter2""#), vec!["bad.json: appManager.array.apps.0.secret: ", "ASCII"]),
        (app(r#""name": "x""#), vec!["appManager.array.apps.0: ", "no secret"]),
        (
            app(r#""secret": "s", "maxConnections": "many""#),
            vec!["appManager.array.apps.0.maxConnections takes a number"],
        ),
        (app(r#""secret": "s", "enabled": "perhaps""#), vec!["apps.0.enabled takes true or false"]),
        (
            r#"{"port": 65536, "apps": [{"id": 1, "key": "k", "secret": "s"}]}"#.into(),
            vec!["bad.json: port takes a port"],
        ),
        (
            r#"[{"id": 1, "key": "k", "secret": "s"}, {"id": 2, "key": "k", "secret": "s"}]"#.into(),
            vec!["bad.json: 1.key: ", "the key of 0"],
        ),
        ("{\"port\": 6001}".into(), vec!["bad.json: there is no app in this file"]),
        (r#"{"appManager": {"driver": "mysql"}}"#.into(), vec!["appManager.driver", "export"]),
    ];
    for (text, parts) in cases {
        std::fs::write(&file, &text).unwrap();
        let output = migrate("soketi", &file, &data, &[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}: {told}");
        assert!(output.stdout.is_empty() && told.lines().count() == 1, "{told}");
        parts.iter().for_each(|part| assert!(told.contains(part), "{part:?} in {told:?}"));
        assert!(!told.contains("hunter2"), "{told}");
    }
    let output = migrate("soketi", &place.path().join("none.json"), &data, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.json: cannot be read"));
    assert!(!data.exists(), "nothing was made");

    report("soketi", &sample("soketi.json"), &data, &["--accept-loss"]);
    std::fs::write(&file, r#"[{"id": "other", "key": "shop-key", "secret": "s"}]"#).unwrap();
    let output = migrate("soketi", &file, &data, &[]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("0.key") && told.contains("belongs to the app 4711"), "{told}");
}

/// P-AUTH-1, P-SIGN-1: clients and publishers of the old server work on a migrated store with their old credentials,
/// even on a server that was running during the migration.
#[test]
fn old_credentials_work() {
    on_fresh_servers(ServerOptions::new, |server| {
        report("soketi", &sample("soketi.json"), &server.data, &["--accept-loss"]);
        let app = App { id: "4711".into(), key: "shop-key".into(), secret: "shop-secret-of-its-own".into() };
        crate::common::eventually("the server knows the app", || {
            (server.post_events(&app, &json!({"name": "e", "channel": "c", "data": ""})).status == 200).then_some(())
        });
        let mut socket = Socket::open(&server, &app);
        socket.subscribe("private-orders");
        server.publish(&app, "private-orders", "e", "x");
        socket.expect_data("e", "private-orders", "x");
    });
}

/// The first block of a guide in this language.
fn sample_of(guide: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migration").join(guide);
    let text = std::fs::read_to_string(path).unwrap();
    let block = text.split(&format!("```{language}\n")).nth(1).unwrap_or_else(|| panic!("{language} in {guide}"));
    block.split("```").next().unwrap().to_owned()
}

/// The command converts the "before" of each guide into its "after".
#[test]
fn the_guides_are_right() {
    let place = data_directory();
    let data = place.path().join("data");
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let soketi = report("soketi", &file("soketi.json", &sample_of("soketi.md", "json")), &data, &["--dry-run"]);
    let settings = &soketi["apps"][0]["settings"];
    assert_eq!((&settings["max_connections"], &settings["client_events"]), (&json!("5000"), &json!("true")));
    assert_eq!(soketi["not_taken"], json!([]));
    let lines = |report: &Value| {
        let settings = report["settings"].as_object().unwrap();
        settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect::<String>()
    };
    assert_eq!(lines(&soketi), sample_of("soketi.md", "toml"));

    let config = sample_of("sockudo.md", "toml");
    let sockudo = report("sockudo", &file("sockudo.toml", &config), &data, &["--dry-run"]);
    let settings = &sockudo["apps"][0]["settings"];
    for (name, value) in [
        ("max_connections", "1000"),
        ("client_events", "true"),
        ("max_client_events_per_second", "20"),
        ("allowed_origins", "board.example.com"),
    ] {
        assert_eq!(settings[name], value, "{name}");
    }
    assert_eq!(sockudo["settings"], json!({ "listen": "0.0.0.0:6001", "activity_timeout": 120 }));
    assert_eq!(sockudo["not_taken"], json!([]));
}
