//! Apps, tokens and webhook endpoints over HTTP, from their creation to their end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server;
use crate::common::admin::Admin;
use crate::common::eventually_within;
use crate::common::http::{self, Response};
use crate::common::server::TestServer;
use crate::common::sign::App;
use crate::common::socket::Socket;

/// Changes reach the shards within this (R-ADMIN-18).
const EFFECT: Duration = Duration::from_secs(2);

fn publish(server: &TestServer, app: &App) -> Response {
    server.post_events(app, &json!({"name": "e", "channel": "c", "data": "d"}))
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}")).to_owned()
}

fn app_of(made: &Value) -> App {
    App { id: text(made, "id"), key: text(made, "key"), secret: text(made, "secret") }
}

/// R-ADMIN-1, R-ADMIN-18, P-SDK-22: an app that is created over HTTP is served within 2 s: its key publishes and
/// connects; it is disabled, enabled and deleted with the same delay, and its ids are strings.
#[test]
fn the_life_of_an_app() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let made = admin.create("/apps", &json!({"name": "Shop", "settings": {"client_events": true}}));
    assert_eq!((&made["name"], &made["settings"]["client_events"]), (&json!("Shop"), &json!(true)));
    let app = app_of(&made);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    assert!(digits(&app.id) && app.key.len() == 20 && app.secret.len() == 40, "{made}");
    eventually_within("the new app publishes", EFFECT, || (publish(&server, &app).status == 200).then_some(()));
    let mut socket = Socket::open(&server, &app);

    let path = format!("/apps/{}", app.id);
    let shown = admin.get(&path);
    assert!(!shown.to_string().contains(&app.secret), "{shown}");
    let revealed = admin.ask("POST", &format!("{path}/reveal"), None).expect(200).json();
    assert_eq!(revealed["keys"][0]["secret"], app.secret.as_str());

    assert_eq!(admin.ask("POST", &format!("{path}/disable"), None).expect(200).json()["enabled"], false);
    eventually_within("the app is disabled", EFFECT, || (publish(&server, &app).status == 403).then_some(()));
    socket.expect_fatal(4003);
    assert_eq!(admin.ask("POST", &format!("{path}/enable"), None).expect(200).json()["enabled"], true);
    eventually_within("the app is enabled", EFFECT, || (publish(&server, &app).status == 200).then_some(()));

    let deleted = admin.ask("DELETE", &path, None).expect(200).json();
    assert_eq!(deleted, json!({"id": app.id, "deleted": true}));
    eventually_within("the app is deleted", EFFECT, || (publish(&server, &app).status == 404).then_some(()));
    admin.ask("GET", &path, None).expect(404);
    let audit = admin.get(&format!("/audit?app={}", app.id));
    let actions: Vec<&str> =
        audit["items"].as_array().expect("a list").iter().map(|it| it["action"].as_str().expect("text")).collect();
    assert_eq!(actions, ["app.delete", "app.change", "app.change", "secret.reveal", "app.create"]);
    for entry in audit["items"].as_array().expect("a list") {
        assert_eq!(entry["actor"], json!({"kind": "admin_token", "id": admin.id, "address": "127.0.0.1"}));
    }
    assert!(!audit.to_string().contains(&app.secret));
}

/// R-ADMIN-1, R-ADMIN-6, T43: keys are rotated over HTTP: both pairs work, then the removed one does not. A key that has
/// created something is removed only with a choice about that.
#[test]
fn keys_are_rotated() {
    let server = server();
    let (admin, old) = (Admin::of(&server, &[]), server.app());
    let keys = format!("/apps/{}/keys", old.id);
    let pair = admin.create(&keys, &json!({}));
    let new = app_of(&pair);
    eventually_within("the new pair works", EFFECT, || (publish(&server, &new).status == 200).then_some(()));
    publish(&server, old).expect(200);
    // Created by the old key.
    let body = json!({"url": "https://example.com/hook"}).to_string();
    let webhook = server.post_signed(old, &old.path("/webhooks"), body.as_bytes()).expect(201).json();

    let key = format!("{keys}/{}", old.key);
    let refused = admin.ask("DELETE", &key, None).expect(409).json();
    assert_eq!(refused["created"][0]["id"], webhook["id"], "{refused}");
    publish(&server, old).expect(200);
    admin.ask("DELETE", &format!("{key}?created=maybe"), None).expect(400);
    let removed = admin.ask("DELETE", &format!("{key}?created=revoke"), None).expect(200).json();
    assert_eq!((&removed["removed"], &removed["revoked"]), (&json!([old.key]), &json!(true)));
    assert_eq!(removed["created"][0]["id"], webhook["id"]);
    eventually_within("the old pair ends", EFFECT, || (publish(&server, old).status == 401).then_some(()));
    assert_eq!(admin.get(&format!("/apps/{}/webhooks", old.id))["items"], json!([]));

    // The last key stays; all but the newest are removed at once.
    let only = admin.ask("DELETE", &format!("{keys}/{}", new.key), None).expect(409).json();
    assert!(text(&only, "message").contains("only key"), "{only}");
    let newest = app_of(&admin.create(&keys, &json!({})));
    let removed = admin.ask("DELETE", &format!("{keys}?created=keep"), None).expect(200).json();
    assert_eq!((&removed["removed"], &removed["keys"]), (&json!([new.key]), &json!([newest.key])));
    admin.ask("DELETE", &format!("{keys}/{}", new.key), None).expect(404);
}

/// R-TOKEN-2, R-TOKEN-5, R-ADMIN-1: tokens are created, listed without their text, rotated and revoked over HTTP.
#[test]
fn the_life_of_a_token() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let tokens = format!("/apps/{}/tokens", app.id);
    let body = json!({"name": "ci", "scopes": ["events:publish"], "expires_at": "2100-01-31T00:00:00Z"});
    let made = admin.create(&tokens, &body);
    assert_eq!((&made["app"], &made["scopes"]), (&json!(app.id), &json!(["events:publish"])));
    let publish = |token: &str| {
        let (bearer, body) = (format!("Bearer {token}"), br#"{"name":"e","channel":"c","data":""}"#);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        http::ask(server.address, "POST", &app.path("/events"), &headers, body).status
    };
    let token = text(&made, "token");
    eventually_within("the token publishes", EFFECT, || (publish(&token) == 200).then_some(()));

    let rotated = admin.ask("POST", &format!("{tokens}/{}/rotate", text(&made, "id")), None).expect(201).json();
    let next = text(&rotated, "token");
    assert_eq!((&rotated["name"], &rotated["expires_at"]), (&made["name"], &made["expires_at"]));
    eventually_within("the old token ends", EFFECT, || (publish(&token) == 401).then_some(()));
    eventually_within("the new token publishes", EFFECT, || (publish(&next) == 200).then_some(()));

    let revoked = admin.ask("DELETE", &format!("{tokens}/{}", text(&rotated, "id")), None).expect(200).json();
    assert!(revoked["revoked_at"].is_string());
    eventually_within("the token is revoked", EFFECT, || (publish(&next) == 401).then_some(()));
    let listed = admin.get(&tokens);
    assert_eq!(listed["items"].as_array().expect("a list").len(), 2);
    assert!(!listed.to_string().contains(&token) && !listed.to_string().contains(&next));
    assert_eq!(admin.get("/tokens")["items"], listed["items"]);

    // A token of another app is not there under this one.
    let other = admin.create("/apps", &json!({}));
    admin.ask("DELETE", &format!("/apps/{}/tokens/{}", text(&other, "id"), text(&made, "id")), None).expect(404);
    admin.ask("DELETE", "/tokens/tok_none", None).expect(404);
}

/// R-ADMIN-1, T19: webhook endpoints are created, switched and removed over HTTP; private addresses need a field that
/// app credentials cannot set.
#[test]
fn the_life_of_a_webhook() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let webhooks = format!("/apps/{}/webhooks", app.id);
    let private = json!({"url": "http://10.1.2.3/hook"});
    let refused = admin.ask("POST", &webhooks, Some(&private)).expect(400).json();
    assert!(text(&refused, "message").contains("public address"), "{refused}");
    let made = admin
        .create(&webhooks, &json!({"url": "http://10.1.2.3/hook", "allow_private": true, "events": ["member_added"]}));
    assert!(text(&made, "secret").starts_with("whs_") && made["allow_private"] == true);
    let id = text(&made, "id");
    assert!(!admin.get(&webhooks).to_string().contains(&text(&made, "secret")));
    for (path, enabled) in [("disable", false), ("enable", true)] {
        let changed = admin.ask("POST", &format!("{webhooks}/{id}/{path}"), None).expect(200).json();
        assert_eq!(changed["enabled"], enabled);
        admin.ask("POST", &format!("/webhooks/{id}/{path}"), None).expect(200);
    }
    let removed = admin.ask("DELETE", &format!("{webhooks}/{id}"), None).expect(200).json();
    assert_eq!(removed, json!({"id": id, "app": app.id, "removed": true}));
    admin.ask("DELETE", &format!("/webhooks/{id}"), None).expect(404);
}

/// R-ADMIN-2: admin tokens are created, listed and revoked over HTTP; a read-only one is what it says.
#[test]
fn the_life_of_an_admin_token() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let made = admin.create("/admin-tokens", &json!({"name": "ci", "read_only": true}));
    let viewer = admin.with_token(&text(&made, "token"));
    assert_eq!(made["role"], "viewer");
    viewer.get("/apps");
    viewer.ask("POST", "/apps", Some(&json!({}))).expect(403);
    let listed = admin.get("/admin-tokens");
    assert_eq!(listed["items"].as_array().expect("a list").len(), 2);
    assert!(!listed.to_string().contains(&viewer.token) && !listed.to_string().contains(&admin.token));
    admin.ask("DELETE", &format!("/admin-tokens/{}", text(&made, "id")), None).expect(200);
    viewer.ask("GET", "/apps", None).expect(401);
}

/// R-ADMIN-13: every field at its limit is accepted; one beyond, another type, an unknown and a doubled field are 400
/// with its name, and nothing is created.
#[test]
fn fields_have_limits() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let (tokens, webhooks) = (format!("/apps/{}/tokens", app.id), format!("/apps/{}/webhooks", app.id));
    let settings = format!("/apps/{}/settings", app.id);
    let x = |count: usize| "x".repeat(count);
    let url = |count: usize| format!("https://example.com/{}", x(count - 20));
    let good = [
        ("/apps", json!({"name": x(100), "id": x(64), "key": x(128), "secret": x(256)})),
        ("/apps", json!({"name": "\u{e9}".repeat(50), "settings": {"max_connections": u32::MAX}})),
        (&tokens, json!({"name": x(100), "scopes": [], "expires_at": null})),
        (&tokens, json!({"expires_at": "9999-12-31T23:59:59Z"})),
        (&webhooks, json!({"url": url(2048), "events": [], "batch": true, "count_changed": true})),
        ("/admin-tokens", json!({"name": x(100), "read_only": false, "expires_at": "2100-01-01T00:00:00+01:00"})),
    ];
    for (path, body) in good {
        admin.create(path, &body);
    }
    let before = (admin.get("/apps"), admin.get("/tokens"), admin.get("/webhooks"), admin.get("/admin-tokens"));
    let bad = [
        ("/apps", json!({"name": x(101)}), "name takes"),
        ("/apps", json!({"name": "\u{e9}".repeat(51)}), "name takes"),
        ("/apps", json!({"name": "a\nb"}), "name"),
        ("/apps", json!({"name": 7}), "name takes"),
        ("/apps", json!({"id": x(65)}), "id"),
        ("/apps", json!({"id": ""}), "id"),
        ("/apps", json!({"id": "a/b"}), "id"),
        ("/apps", json!({"id": 7}), "id takes"),
        ("/apps", json!({"key": x(129)}), "key"),
        ("/apps", json!({"key": "a:b"}), "key"),
        ("/apps", json!({"secret": x(257)}), "secret"),
        ("/apps", json!({"secret": "two words"}), "secret"),
        ("/apps", json!({"settings": []}), "settings takes"),
        ("/apps", json!({"settings": {"max_connections": 4_294_967_296_u64}}), "max_connections"),
        ("/apps", json!({"settings": {"max_connections": "5"}}), "max_connections"),
        ("/apps", json!({"settings": {"max_conections": 5}}), "max_connections"),
        ("/apps", json!({"nmae": "x"}), "did you mean \"name\"?"),
        (&tokens, json!({"name": x(101)}), "name takes"),
        (&tokens, json!({"scopes": ["events:publsh"]}), "did you mean \"events:publish\"?"),
        (&tokens, json!({"scopes": "events:publish"}), "scopes takes"),
        (&tokens, json!({"expires_at": "tomorrow"}), "expires_at takes"),
        (&tokens, json!({"expires_at": "2020-01-01T00:00:00Z"}), "past"),
        (&tokens, json!({"expires_at": 7}), "expires_at takes"),
        (&webhooks, json!({}), "\"url\" is missing"),
        (&webhooks, json!({"url": url(2049)}), "url takes"),
        (&webhooks, json!({"url": "ftp://example.com"}), "https://"),
        (&webhooks, json!({"url": url(30), "events": ["member_aded"]}), "member_added"),
        (&webhooks, json!({"url": url(30), "format": "xml"}), "format takes one of pusher, relay"),
        (&webhooks, json!({"url": url(30), "batch": "yes"}), "batch takes true or false"),
        ("/admin-tokens", json!({"read_only": 1}), "read_only takes"),
        ("/admin-tokens", json!({"role": "admin"}), "role"),
    ];
    for (path, body, part) in &bad {
        let answer = admin.ask("POST", path, Some(body)).expect(400).json();
        assert!(text(&answer, "message").contains(part), "{body}: {answer}");
    }
    for (method, path, body, part) in [
        ("PATCH", settings.as_str(), "{}", "no setting"),
        ("PATCH", &settings, r#"{"max_connections":1,"max_connections":2}"#, "occurs twice"),
        ("PATCH", &settings, r#"{"name":"x","client_events":"maybe"}"#, "client_events takes"),
        ("POST", "/apps", r#"{"name":"a","name":"b"}"#, "\"name\" occurs twice"),
        ("POST", "/apps", "[]", "a JSON object"),
        ("POST", "/apps", "{", "not valid JSON"),
        ("POST", "/apps", "", "empty"),
        ("POST", "/apps", "\u{feff}{}", "not valid JSON"),
    ] {
        let answer = admin.ask_with(method, path, &[("Content-Type", "application/json")], body.as_bytes());
        let answer = answer.expect(400).json();
        assert!(text(&answer, "message").contains(part), "{body}: {answer}");
    }
    let path = format!("/apps/{}/disable", app.id);
    let answer = admin.ask("POST", &path, Some(&json!({"now": true}))).expect(400).json();
    assert!(text(&answer, "message").contains("no fields"), "{answer}");
    let after = (admin.get("/apps"), admin.get("/tokens"), admin.get("/webhooks"), admin.get("/admin-tokens"));
    for (before, mut after) in [(before.0, after.0), (before.1, after.1), (before.2, after.2), (before.3, after.3)] {
        let uses = before["items"].as_array().expect("a list").iter().map(|item| item.get("last_used_at").cloned());
        for (item, used) in after["items"].as_array_mut().expect("a list").iter_mut().zip(uses) {
            if let Some(used) = used {
                item["last_used_at"] = used;
            }
        }
        assert_eq!(after, before, "nothing was changed");
    }
}

/// R-ADMIN-15: pages cover a list exactly once and in order, also while it grows; `next` is null at the end.
#[test]
fn lists_have_pages() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let tokens = format!("/apps/{}/tokens", app.id);
    for number in 0..7 {
        admin.create("/apps", &json!({"name": number.to_string()}));
        admin.create(&tokens, &json!({"name": number.to_string()}));
        admin.create("/admin-tokens", &json!({"name": number.to_string()}));
        admin.create(&format!("/apps/{}/webhooks", app.id), &json!({"url": format!("https://example.com/{number}")}));
    }
    let lists =
        ["/apps", "/tokens", &tokens, "/webhooks", "/admin-tokens", "/audit", &format!("/audit?app={}", app.id)];
    for list in lists {
        let ids = |page: &Value| -> Vec<String> {
            page["items"].as_array().expect("a list").iter().map(|item| text(item, "id")).collect()
        };
        let joint = if list.contains('?') { '&' } else { '?' };
        let whole = admin.get(&format!("{list}{joint}limit=1000"));
        assert!(whole["next"].is_null() && ids(&whole).len() >= 7, "{list}");
        for limit in [1, 3, 1000] {
            let (mut found, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = admin.get(&format!("{list}{joint}limit={limit}{cursor}"));
                found.extend(ids(&page));
                assert!(ids(&page).len() <= limit);
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(found, ids(&whole), "{list} by {limit}");
        }
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "lmit=1", "cursor="] {
            let answer = admin.ask("GET", &format!("{list}{joint}{bad}"), None).expect(400).json();
            assert!(
                text(&answer, "message").contains("limit") || text(&answer, "message").contains("cursor"),
                "{answer}"
            );
        }
    }
    for list in ["/apps?cursor=x", "/audit?cursor=-1", "/apps?cursor=1.5"] {
        admin.ask("GET", list, None).expect(400);
    }
}

/// R-ADMIN-13: the state of the server; nothing of it is invented.
#[test]
fn status_is_that_of_the_server() {
    let start = Instant::now();
    let server = server();
    let admin = Admin::of(&server, &[]);
    let status = admin.get("/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["shards"], &status["driver"]), (&json!(2), &json!(server.driver.word())));
    assert_eq!((&status["listen"], &status["apps"]), (&json!(server.address.to_string()), &json!(1)));
    assert!(status["uptime_s"].as_u64().expect("seconds") <= start.elapsed().as_secs() + 1, "{status}");
    admin.create("/apps", &json!({}));
    let after = admin.get("/status");
    assert_eq!(after["apps"], 2);
    assert!(after["store_version"].as_u64() > status["store_version"].as_u64());
}
