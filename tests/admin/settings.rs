//! Changes of settings, and changes that race.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::server;
use crate::common::admin::Admin;
use crate::common::eventually_within;
use crate::common::socket::Socket;

/// R-ADMIN-16, R-ADMIN-18: named settings are merged into the others; a bad value changes nothing; the shards see the
/// change within 2 s.
#[test]
fn settings_are_merged() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let (path, settings) = (format!("/apps/{}", app.id), format!("/apps/{}/settings", app.id));
    let before = admin.get(&path);
    let changed =
        admin.ask("PATCH", &settings, Some(&json!({"max_connections": 1, "name": "Shop"}))).expect(200).json();
    let mut expected = before;
    (expected["settings"]["max_connections"], expected["name"]) = (json!(1), json!("Shop"));
    assert_eq!((&changed, &admin.get(&path)), (&expected, &expected));
    let refused = json!({"max_connections": 7, "max_presence_members": 0, "name": "x"});
    let answer = admin.ask("PATCH", &settings, Some(&refused)).expect(400).json();
    assert!(answer["message"].as_str().expect("text").contains("max_presence_members takes"), "{answer}");
    assert_eq!(admin.get(&path), expected, "nothing of it was changed");
    let _first = eventually_within("the quota counts", Duration::from_secs(2), || {
        let first = Socket::open(&server, app);
        let mut second = Socket::upgrade(&server, app, &format!("/app/{}?protocol=7", app.key));
        let over = second.next_json()["event"] == "pusher:error";
        over.then_some(first)
    });
    // What GET shows can be sent back as it is.
    admin.ask("PATCH", &settings, Some(&expected["settings"])).expect(200);
    assert_eq!(admin.get(&path), expected);
}

/// R-ADMIN-16, T52: a change with the `ETag` of the app passes once; with an old one it is 412 and changes nothing. So
/// do rotations, switches and deletions.
#[test]
fn stale_changes_are_refused() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let path = format!("/apps/{}", app.id);
    let etag = || admin.ask("GET", &path, None).expect(200).header("etag").expect("an ETag").to_owned();
    let old = etag();
    assert_eq!(etag(), old, "reading is no change");
    let change = |tag: &str, value: u32| {
        let body = json!({"max_connections": value}).to_string();
        admin.ask_with("PATCH", &format!("{path}/settings"), &[("If-Match", tag)], body.as_bytes())
    };
    let new = change(&old, 5).expect(200).header("etag").expect("an ETag").to_owned();
    assert_ne!(new, old);
    let answer = change(&old, 6).expect(412).json();
    assert_eq!(answer["error"], "conflict");
    for (method, rest) in
        [("POST", "/disable"), ("POST", "/enable"), ("POST", "/keys"), ("DELETE", "/keys"), ("DELETE", "")]
    {
        admin.ask_with(method, &format!("{path}{rest}"), &[("If-Match", &old)], b"").expect(412);
    }
    assert_eq!((admin.get(&path)["settings"]["max_connections"].clone(), etag()), (json!(5), new));
    change("*", 7).expect(200);
    for bad in ["5", "W/\"5\"", "\"x\"", ""] {
        change(bad, 8).expect(400);
    }
    assert_eq!(admin.get(&path)["settings"]["max_connections"], 7);
}

/// T52: 100 changes of settings and rotations at the same time: each is done completely or refused, no field returns to
/// an old value, and the last key stays. Method: each client counts a setting of its own up, and checks after each of
/// its changes that the setting has its last value.
#[test]
fn racing_changes_are_whole() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let path = format!("/apps/{}", app.id);
    let names = ["max_connections", "messages_per_day", "requests_per_minute", "signed_requests_per_minute"];
    let (stale, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (admin, path) = (&admin, &path);
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(move || {
                for value in 1..=15 {
                    let body = Map::from_iter([(name.to_owned(), json!(value))]);
                    let changed =
                        admin.ask("PATCH", &format!("{path}/settings"), Some(&body.into())).expect(200).json();
                    assert_eq!(changed["settings"][name], value, "{name}");
                    assert_eq!(admin.get(path)["settings"][name], value, "{name} returned to an old value");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for value in 0..10 {
                    let shown = admin.ask("GET", path, None).expect(200);
                    let etag = shown.header("etag").expect("an ETag").to_owned();
                    let body = json!({"token_requests_per_minute": value + 1}).to_string();
                    let path = format!("{path}/settings");
                    match admin.ask_with("PATCH", &path, &[("If-Match", &etag)], body.as_bytes()).status {
                        200 => done.fetch_add(1, Ordering::Relaxed),
                        412 => stale.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            });
            scope.spawn(|| {
                for _ in 0..10 {
                    match admin.ask("POST", &format!("{path}/keys"), None).status {
                        201 | 409 => {}
                        other => panic!("{other}"),
                    }
                    admin.ask("DELETE", &format!("{path}/keys"), None).expect(200);
                }
            });
        }
    });
    assert_eq!(stale.into_inner() + done.into_inner(), 20);
    let last = admin.get(path);
    assert!(names.iter().all(|name| last["settings"][name] == 15), "{last}");
    let keys: BTreeSet<String> =
        last["keys"].as_array().expect("keys").iter().map(|key| key["key"].to_string()).collect();
    assert!((1..=8).contains(&keys.len()), "{keys:?}");
    let audit = admin.get(&format!("/audit?limit=1000&app={}", app.id));
    let entries = audit["items"].as_array().expect("a list");
    let changes = |name: &str| {
        let all = entries.iter().rev().flat_map(|entry| entry["changes"].as_array().into_iter().flatten());
        all.filter(|change| change["field"] == name).cloned().collect::<Vec<Value>>()
    };
    for name in names {
        let values: Vec<String> =
            changes(name).iter().map(|change| change["to"].as_str().expect("text").to_owned()).collect();
        assert_eq!(values, (1..=15).map(|value| value.to_string()).collect::<Vec<_>>(), "{name}");
    }
}
