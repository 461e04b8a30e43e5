//! Webhooks of other servers: which become endpoints, which do not and why, and that a migrated one gets its events.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{reason, report};
use crate::common::cli;
use crate::common::receiver::Receiver;
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, data_directory};
use crate::common::sign::App;
use crate::common::socket::Socket;

/// A soketi file with one app that has these webhooks.
fn file(place: &Path, webhooks: &Value) -> PathBuf {
    let app = json!({ "id": "9", "key": "k", "secret": "old-secret", "webhooks": webhooks });
    let path = place.join("soketi.json");
    std::fs::write(&path, json!({ "appManager.array.apps": [app] }).to_string()).unwrap();
    path
}

fn list(data: &Path) -> Value {
    cli::run_json(&["webhook", "list", "--app", "9", "--json", "--data", data.to_str().unwrap()])
}

/// Each endpoint of a list: its URL, its events, and the outcome in the report.
fn told(webhooks: &Value, member: &str) -> Vec<(String, Value, String)> {
    let webhook = |webhook: &Value| {
        let text = |name: &str| webhook[name].as_str().unwrap_or_default().to_owned();
        (text("url"), webhook["events"].clone(), text(member))
    };
    webhooks.as_array().unwrap().iter().map(webhook).collect()
}

fn all(outcome: &str) -> Vec<(String, Value, String)> {
    [
        ("https://shop.example.com/hooks", json!(["channel_occupied", "channel_vacated", "member_added"])),
        ("https://count.example.com/", json!(["subscription_count"])),
    ]
    .map(|(url, events)| (url.to_owned(), events, outcome.to_owned()))
    .into()
}

/// P-HOOK-9, R-HOOK-6: webhooks become endpoints, one for each URL with the events of all webhooks with that URL; a
/// value that is not an event, not a URL or not supported by Relay is named with its reason and without its value; a
/// second run changes nothing.
#[test]
fn webhooks_come_along() {
    let place = data_directory();
    let data = place.path().join("data");
    let file = file(
        place.path(),
        &json!([
            { "url": "https://shop.example.com/hooks", "event_types": ["member_added", "channel_occupied"] },
            { "url": "https://shop.example.com/hooks", "eventTypes": ["channel_vacated", "channel_occupied"] },
            { "lambda_function": "hunter2", "lambda": { "region": "eu-west-1" }, "event_types": ["cache_miss"] },
            {
                "url": "https://count.example.com/",
                "event_types": ["subscription_count_changed", "channel_ocupied", "channel.vacated"],
                "headers": { "Authorization": "hunter2" },
                "filter": { "channel_name_starts_with": "hunter2" },
            },
            { "url": "https://user:hunter2@example.com/", "event_types": ["cache_miss"] },
            { "url": "https://none.example.com/", "event_types": [] },
            { "url": "https://unknown.example.com/", "event_types": ["channel_ocupied"] },
            { "event_types": ["cache_miss"] },
            { "url": "ftp://example.com/", "event_types": ["cache_miss"], "retries": 3 },
        ]),
    );
    let dry = report("soketi", &file, &data, &["--dry-run", "--accept-loss"]);
    assert!(!data.exists());
    let wet = report("soketi", &file, &data, &["--accept-loss"]);
    assert_eq!((&dry["apps"], &dry["not_taken"]), (&wet["apps"], &wet["not_taken"]));
    assert_eq!(told(&wet["apps"][0]["webhooks"], "outcome"), all("created"));
    let made = list(&data);
    assert_eq!(told(&made, "format"), all("pusher"));
    assert_eq!((&made[0]["count_changed"], &made[1]["count_changed"]), (&json!(false), &json!(true)));
    assert_eq!((&made[0]["batch"], &made[0]["allow_private"]), (&json!(false), &json!(false)));

    let at = |rest: &str| format!("appManager.array.apps.0.webhooks.{rest}");
    for (key, part) in [
        ("2.lambda_function", "URLs alone"),
        ("2.lambda.region", "URLs alone"),
        ("3.headers.Authorization", "no headers"),
        ("3.filter.channel_name_starts_with", "all channels"),
        ("3.event_types", "\"channel_ocupied\", \"channel.vacated\""),
        ("4.url", "without user"),
        ("5", "names no event"),
        ("6.event_types", "\"channel_ocupied\""),
        ("6", "names no event"),
        ("7", "no url"),
        ("8.url", "https://host"),
        ("8.retries", "no such key"),
    ] {
        assert!(reason(&wet, &at(key)).contains(part), "{key}: {}", reason(&wet, &at(key)));
    }
    assert!(!wet.to_string().contains("hunter2"), "{wet:#}");
    let noted = |entry: &&Value| entry["reason"].as_str().unwrap().contains("subscription_count=true");
    assert_eq!(wet["not_taken"].as_array().unwrap().iter().filter(noted).count(), 1);

    let again = report("soketi", &file, &data, &["--accept-loss"]);
    assert_eq!(told(&again["apps"][0]["webhooks"], "outcome"), all("same"));
    assert_eq!((list(&data), &again["not_taken"]), (made, &wet["not_taken"]));
}

/// Threat T19, P-HOOK-9: endpoints at private addresses and over http need the operator's confirmation, once.
#[test]
fn private_addresses_need_the_operators_word() {
    let place = data_directory();
    let data = place.path().join("data");
    let events = json!(["channel_occupied"]);
    let file = file(
        place.path(),
        &json!([
            { "url": "https://10.0.0.5:8000/hooks", "event_types": events },
            { "url": "http://backend/hooks", "event_types": events },
        ]),
    );
    let refused = report("soketi", &file, &data, &[]);
    assert_eq!((&refused["apps"][0]["webhooks"], list(&data)), (&json!([]), json!([])));
    for key in ["0.url", "1.url"] {
        let reason = reason(&refused, &format!("appManager.array.apps.0.webhooks.{key}"));
        assert!(reason.contains("--allow-private") && reason.contains("webhook_allow"), "{reason}");
    }

    let config = place.path().join("relay.toml");
    std::fs::write(&config, "webhook_allow = \"10.0.0.0/8\"\n").unwrap();
    let allowed = report("soketi", &file, &data, &["--dry-run", "--config", config.to_str().unwrap()]);
    assert_eq!(allowed["apps"][0]["webhooks"].as_array().unwrap().len(), 2, "as `relay webhook add` has it");

    let given = report("soketi", &file, &data, &["--allow-private"]);
    let made = list(&data);
    assert!(made.as_array().unwrap().iter().all(|webhook| webhook["allow_private"] == true), "{made}");
    assert_eq!((made.as_array().unwrap().len(), &given["not_taken"]), (2, &json!([])));
    let again = report("soketi", &file, &data, &[]);
    assert_eq!((list(&data), &again["not_taken"]), (made, &json!([])));
}

/// P-HOOK-6: batches are chosen for all webhooks of a file. A later file changes an endpoint's events and keeps the
/// endpoint; a list in a text, as a database has it, is read as a list; beyond the bound of an app none is created.
#[test]
fn later_files_change_what_is_told() {
    let place = data_directory();
    let (data, path) = (place.path().join("data"), place.path().join("apps.json"));
    let write = |webhooks: &Value, batching: Value| {
        let app = json!({ "id": "9", "key": "k", "secret": "s", "webhooks": webhooks });
        let text = json!({ "apps": [app], "webhooks": { "batching": batching } });
        std::fs::write(&path, text.to_string()).unwrap();
    };
    let hook = |events: &[&str]| json!([{ "url": "https://a.example.com/", "event_types": events }]);
    write(&json!(hook(&["member_added"]).to_string()), json!({ "enabled": false, "duration": 50 }));
    let first = report("sockudo", &path, &data, &[]);
    assert_eq!(
        (first["apps"][0]["webhooks"][0]["outcome"].as_str(), &first["not_taken"]),
        (Some("created"), &json!([]))
    );
    let before = list(&data);

    write(&hook(&["member_removed"]), json!({ "enabled": true, "duration": 80 }));
    let later = report("sockudo", &path, &data, &[]);
    assert_eq!(
        (&later["apps"][0]["outcome"], &later["apps"][0]["webhooks"][0]["outcome"]),
        (&json!("same"), &json!("changed"))
    );
    assert!(reason(&later, "webhooks.batching.duration").contains("50 ms"));
    let after = list(&data);
    assert_eq!((&after[0]["id"], &after[0]["batch"]), (&before[0]["id"], &json!(true)));
    assert_eq!((&after[0]["events"], after.as_array().unwrap().len()), (&json!(["member_removed"]), 1));

    write(&json!("[]"), json!({}));
    assert_eq!(report("sockudo", &path, &data, &[])["not_taken"], json!([]));
    assert_eq!(list(&data), after, "what a file does not name stays");

    let many =
        (0..20).map(|number| json!({ "url": format!("https://{number}.example.com/"), "events": ["cache_miss"] }));
    write(&many.collect(), json!({}));
    let full = report("sockudo", &path, &data, &["--dry-run"]);
    assert_eq!(full["apps"][0]["webhooks"].as_array().unwrap().len(), 19);
    assert!(reason(&full, "apps.0.webhooks.19").contains("20"), "{full}");
    let wet = report("sockudo", &path, &data, &[]);
    assert_eq!((&wet["not_taken"], list(&data).as_array().unwrap().len()), (&full["not_taken"], 20));
}

/// P-HOOK-1, P-SDK-24: a receiver of the old server gets events from a running Relay, in the same form, signed with the
/// same secret.
#[test]
fn a_migrated_webhook_is_told() {
    on_fresh_servers(ServerOptions::new, |server| {
        let receiver = Receiver::start();
        let place = data_directory();
        let webhooks = json!([{ "url": receiver.url(), "event_types": ["channel_occupied"] }]);
        report("soketi", &file(place.path(), &webhooks), &server.data, &["--allow-private"]);
        let app = App { id: "9".into(), key: "k".into(), secret: "old-secret".into() };
        crate::common::eventually("the server knows the app", || {
            (server.post_events(&app, &json!({"name": "e", "channel": "c", "data": ""})).status == 200).then_some(())
        });
        let mut socket = Socket::open(&server, &app);
        socket.subscribe("room");
        receiver.await_names("room", &["channel_occupied"]);
        receiver.received()[0].check_pusher(&app);
    });
}
