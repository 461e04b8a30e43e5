//! Tokens managed over HTTP (R-TOKEN-10), and what survives a leaked key (R-ADMIN-6).

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::cli::{self, create_token};
use crate::common::receiver::Receiver;
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::App;
use crate::common::{eventually_within, http, unique};

/// The promise for changes.
const SOON: Duration = Duration::from_secs(2);

/// A request with the key and secret of the app.
fn with_key(server: &TestServer, app: &App, method: &str, path: &str, body: &str) -> http::Response {
    let headers = [("X-Relay-Key", &*app.key), ("X-Relay-Secret", &*app.secret)];
    http::ask(server.address, method, path, &headers, body.as_bytes())
}

/// A signed request.
fn signed(server: &TestServer, app: &App, method: &str, path: &str, body: &str) -> http::Response {
    http::ask(server.address, method, &app.sign(method, path, body.as_bytes()), &[], body.as_bytes())
}

/// A request with a token.
fn with_token(server: &TestServer, token: &str, method: &str, path: &str, body: &str) -> http::Response {
    http::ask(server.address, method, path, &[("Authorization", &format!("Bearer {token}"))], body.as_bytes())
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("`{name}` in {json}"))
}

const EVENT: &str = r#"{"name":"e","channel":"c","data":"d"}"#;

/// R-TOKEN-10, R-TOKEN-2, R-TOKEN-3, R-TOKEN-5, R-TOKEN-6, R-ADMIN-5: a team creates, uses, lists and revokes tokens with
/// its key, under both bases and both ways to prove it; the token is shown once; a list has its times; the answers are
/// the same with 1 and 3 shards. Another app's token is not found.
#[test]
fn tokens_over_http() {
    for shards in [1, 3] {
        on_fresh_servers_at_once(
            |driver| ServerOptions::new(driver).app("other", &[]).shards(shards),
            |server| {
                let (app, other) = (server.app(), server.named_app("other"));
                for (path, ask) in [
                    (app.path("/tokens"), with_key as fn(&TestServer, &App, &str, &str, &str) -> http::Response),
                    (app.relay_path("/tokens"), signed),
                ] {
                    let before = ask(&server, app, "GET", &path, "").expect(200).json();
                    let before = before["tokens"].as_array().expect("a list").len();
                    let body =
                        json!({"name": "ci", "scopes": ["events:publish"], "expires_at": "2099-01-31T00:00:00Z"});
                    let made = ask(&server, app, "POST", &path, &body.to_string()).expect(201).json();
                    let (id, token) = (text(&made, "id"), text(&made, "token"));
                    assert!(id.starts_with("tok_") && token.starts_with("rly_") && token.len() == 44, "{made}");
                    assert_eq!((&made["name"], &made["scopes"]), (&body["name"], &body["scopes"]));
                    assert_eq!(
                        (&made["expires_at"], text(&made, "created_by")),
                        (&body["expires_at"], &*format!("app_key {}", app.key))
                    );

                    eventually_within("it is known", SOON, || {
                        (with_token(&server, token, "POST", &app.path("/events"), EVENT).status == 200).then_some(())
                    });
                    with_token(&server, token, "GET", &app.path("/channels"), "").expect(403);
                    // The first use is written at once, further ones with the next commit.
                    let is_used = |token: &Value| before > 0 || token["last_used_at"].is_string();
                    let listed = eventually_within("its use is written", SOON, || {
                        let list = ask(&server, app, "GET", &path, "").expect(200).json();
                        let mut tokens = list["tokens"].as_array().expect("a list").iter();
                        tokens.find(|token| token["id"] == id).filter(|token| is_used(token)).cloned()
                    });
                    assert!(listed.get("token").is_none() && !listed.to_string().contains(&token[4..]), "{listed}");
                    assert_eq!((&listed["created_by"], &listed["revoked_at"]), (&made["created_by"], &Value::Null));

                    let one = format!("{path}/{id}");
                    let foreign = other.path(&format!("/tokens/{id}"));
                    with_key(&server, other, "DELETE", &foreign, "").expect(404);
                    assert!(ask(&server, app, "DELETE", &one, "").expect(204).body.is_empty());
                    eventually_within("it is revoked", SOON, || {
                        (with_token(&server, token, "POST", &app.path("/events"), EVENT).status == 401).then_some(())
                    });
                    ask(&server, app, "DELETE", &one, "").expect(204);
                    ask(&server, app, "DELETE", &format!("{path}/tok_gone"), "").expect(404);
                    let list = ask(&server, app, "GET", &path, "").expect(200).json();
                    assert_eq!(list["tokens"].as_array().expect("a list").len(), before + 1);
                    assert!(list["tokens"][before]["revoked_at"].is_string(), "{list}");
                    assert!(!server.log().contains(&token[4..]), "R-AUTH-7: the log shows no token");
                }
                assert_eq!(
                    with_key(&server, other, "GET", &other.path("/tokens"), "").expect(200).json(),
                    json!({"tokens": []})
                );
            },
        );
    }
}

/// R-TOKEN-10, threat T43: a token never manages tokens, whatever its scopes: 403, nothing changes; without a credential,
/// with a wrong one or that of another app it is 401.
#[test]
fn tokens_do_not_manage_tokens() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("other", &[]),
        |server| {
            let (app, other) = (server.app(), server.named_app("other"));
            let every = "events:publish,events:batch,channels:read,presence:read,webhooks:manage,encryption:manage,\
                         schemas:manage,connections:read,analytics:read,channels:auth,channels:subscribe,connections:manage";
            let full = create_token(&server.data, app, &[]);
            let scoped = create_token(&server.data, app, &["--scopes", every]);
            for made in [&full, &scoped] {
                eventually_within("the token is known", SOON, || {
                    (with_token(&server, &made.token, "GET", &app.path("/channels"), "").status == 200).then_some(())
                });
                for base in [app.path("/tokens"), app.relay_path("/tokens")] {
                    for (method, path, body) in [
                        ("GET", base.clone(), ""),
                        ("POST", base.clone(), "{}"),
                        ("DELETE", format!("{base}/{}", scoped.id), ""),
                        ("DELETE", format!("{base}/tok_gone"), ""),
                    ] {
                        let refused = with_token(&server, &made.token, method, &path, body).expect(403);
                        assert!(refused.text().contains("key and secret"), "{}", refused.text());
                    }
                }
            }
            for (method, body) in [("GET", ""), ("POST", "{}")] {
                http::ask(server.address, method, &app.path("/tokens"), &[], body.as_bytes()).expect(401);
                let stranger = App { id: app.id.clone(), ..other.clone() };
                with_key(&server, &stranger, method, &app.path("/tokens"), body).expect(401);
                with_key(&server, app, method, "/apps/nope/tokens", body).expect(404);
            }
            let list = with_key(&server, app, "GET", &app.path("/tokens"), "").expect(200).json();
            let states: Vec<&Value> =
                list["tokens"].as_array().expect("a list").iter().map(|token| &token["revoked_at"]).collect();
            assert_eq!(states, [&Value::Null, &Value::Null]);
        },
    );
}

/// R-TOKEN-10, R-TOKEN-9, R-ERR-1: bad members are named with 400 and create nothing, at the limit of an app creation is
/// 400 with the limit, and wrong methods are 405.
#[test]
fn bad_tokens_are_named() {
    on_fresh_servers_at_once(ServerOptions::new, |server| {
        let app = server.app();
        let path = app.relay_path("/tokens");
        for (body, part) in [
            (r#"{"name":7}"#, "name must be"),
            (r#"{"nme":"x"}"#, "nme"),
            (r#"{"scopes":["events:pubish"]}"#, "scopes[0]"),
            (r#"{"scopes":null}"#, "scopes must be"),
            (r#"{"expires_at":"tomorrow"}"#, "expires_at must be"),
            (r#"{"expires_at":"2020-01-01T00:00:00Z"}"#, "expires_at is in the past"),
            ("[]", "JSON object"),
            ("", "JSON object"),
        ] {
            let refused = with_key(&server, app, "POST", &path, body).expect(400).json();
            assert_eq!(refused["error"], "bad_request");
            assert!(text(&refused, "message").contains(part), "{body}: {refused}");
        }
        for (method, path) in [("PUT", path.clone()), ("DELETE", path.clone()), ("GET", format!("{path}/tok_1"))] {
            assert!(
                with_key(&server, app, method, &path, "{}").expect(405).header("allow").is_some(),
                "{method} {path}"
            );
        }
        for path in [format!("{path}/"), format!("{path}/a/b")] {
            with_key(&server, app, "DELETE", &path, "").expect(404);
        }
        let list = with_key(&server, app, "GET", &path, "").expect(200).json();
        assert_eq!(list, json!({"tokens": []}));
        fill(&server, app);
        let refused = with_key(&server, app, "POST", &path, "{}").expect(400).json();
        assert!(text(&refused, "message").contains("1000 active tokens"), "{refused}");
        let list = with_key(&server, app, "GET", &path, "").expect(200).json();
        assert_eq!(list["tokens"].as_array().expect("a list").len(), 1_000);
    });
}

/// Brings an app to its limit of tokens, with one commit.
fn fill(server: &TestServer, app: &App) {
    let store = relay::store::Store::open(server.data.as_ref(), relay::store::Missing::Refuse).expect("opens");
    let new =
        relay::store::NewToken { app: app.id.clone(), name: "n".repeat(100), scopes: Vec::new(), expires_at_ms: None };
    let fill = |batch: &mut relay::store::Batch<'_, '_>| {
        (0..1_000).try_for_each(|_| batch.create_token(new.clone()).map(drop))
    };
    store.change_all(&relay::app::actor::Actor::cli(0), fill).expect("up to the limit");
}

/// R-ADMIN-5, R-ADMIN-6, R-ADMIN-4, threat T43: somebody finds a key and creates 3 tokens and a webhook with it, and one
/// more webhook with one of these tokens. The owner rotates and removes the key with `--revoke-created`: within 2 s
/// nothing of it works, connections of the key aside, what the owner created works on, and list and audit log name each
/// item. Without a choice nothing changes.
#[test]
fn a_leaked_key_leaves_nothing_behind() {
    let receiver = Receiver::start();
    on_fresh_servers(
        |driver| ServerOptions::new(driver).shards(3).with(&["--webhook-allow", "127.0.0.1/32"]),
        |server| {
            let app = server.app();
            let data = server.data.to_str().expect("UTF-8");
            let own = create_token(&server.data, app, &[]);
            let post = |path: &str, body: Value| {
                with_key(&server, app, "POST", &app.path(path), &body.to_string()).expect(201).json()
            };
            let stolen: Vec<Value> =
                (0..3).map(|number| post("/tokens", json!({"name": format!("backup {number}")}))).collect();
            let token = text(&stolen[0], "token").to_owned();
            let hook = json!({"url": receiver.url(), "events": ["channel_occupied"]});
            let direct = post("/webhooks", hook.clone());
            let indirect = eventually_within("the token is known", SOON, || {
                let made = with_token(&server, &token, "POST", &app.path("/webhooks"), &hook.to_string());
                (made.status == 201).then(|| made.json())
            });
            let ids: Vec<String> =
                stolen.iter().chain([&direct, &indirect]).map(|item| text(item, "id").to_owned()).collect();

            let fresh = cli::run_json(&["app", "rotate", &app.id, "--data", data, "--json"]);
            let refused = cli::run(&["app", "remove-key", &app.id, &app.key, "--data", data]);
            let told = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(refused.status.code() == Some(1) && ids.iter().all(|id| told.contains(id)), "{told}");
            assert!(!told.contains(&own.id), "{told}");
            with_token(&server, &token, "POST", &app.path("/events"), EVENT).expect(200);

            let removed = ["app", "remove-key", &app.id, &app.key, "--revoke-created", "--data", data, "--json"];
            let removed = cli::run_json(&removed);
            assert_eq!(removed["created"].as_array().map(Vec::len), Some(5), "{removed}");
            eventually_within("nothing of it works", SOON, || {
                let refused = |token: &Value| {
                    with_token(&server, text(token, "token"), "POST", &app.path("/events"), EVENT).status == 401
                };
                let key = with_key(&server, app, "GET", &app.path("/tokens"), "").status;
                (key == 401 && stolen.iter().all(refused)).then_some(())
            });
            with_token(&server, &own.token, "POST", &app.path("/events"), EVENT).expect(200);
            let owner = App { key: text(&fresh, "key").into(), secret: text(&fresh, "secret").into(), ..app.clone() };
            let hooks = with_key(&server, &owner, "GET", &owner.path("/webhooks"), "").expect(200).json();
            assert_eq!(hooks, json!({"webhooks": []}));

            let log = cli::run_json(&["admin", "audit", "--data", data, "--json"]);
            let log = log.as_array().expect("a list");
            let by = |id: &str, action: &str| {
                let found = log.iter().find(|entry| entry["subject"] == id && entry["action"] == action);
                found.unwrap_or_else(|| panic!("{action} of {id} in {log:?}"))["actor"].clone()
            };
            let creator = json!({"kind": "app_key", "id": app.key, "address": "127.0.0.1"});
            assert_eq!((by(&ids[0], "token.create"), by(&ids[3], "webhook.create")), (creator.clone(), creator));
            assert_eq!(by(&ids[4], "webhook.create")["kind"], "app_token");
            for (id, action) in [
                (0, "token.revoke"),
                (1, "token.revoke"),
                (2, "token.revoke"),
                (3, "webhook.remove"),
                (4, "webhook.remove"),
            ] {
                assert_eq!(by(&ids[id], action)["kind"], "cli");
            }
            eventually_within("the server logs the entries", SOON, || {
                server.log().contains("audit: key.remove").then_some(())
            });
        },
    );
}

/// R-ADMIN-2, threat T42: an admin token is no credential of the app API: 401 on every route, alone and beside a valid
/// credential never a success of its own; together with one it is 400.
#[test]
fn admin_tokens_open_no_app() {
    on_fresh_servers_at_once(ServerOptions::new, |server| {
        let app = server.app();
        let data = server.data.to_str().expect("UTF-8");
        let made = cli::run_json(&["admin", "token", "create", "--data", data, "--json"]);
        let admin = text(&made, "token");
        let channel = unique("c");
        for base in [app.path(""), app.relay_path("")] {
            for (method, path) in [
                ("POST", "/events"),
                ("POST", "/batch_events"),
                ("GET", "/channels"),
                ("GET", &*format!("/channels/{channel}")),
                ("GET", "/connections"),
                ("GET", "/webhooks"),
                ("GET", "/tokens"),
                ("POST", "/tokens"),
                ("DELETE", "/tokens/tok_1"),
                ("POST", "/users/1/terminate_connections"),
            ] {
                let target = format!("{base}{path}");
                let refused = with_token(&server, admin, method, &target, "{}").expect(401);
                assert!(refused.text().contains("admin token"), "{}", refused.text());
                assert!(!refused.text().contains(&admin[8..]), "{}", refused.text());
            }
        }
        let bearer = format!("Bearer {admin}");
        let target = app.sign("GET", &app.path("/channels"), b"");
        http::ask(server.address, "GET", &target, &[("Authorization", &bearer)], b"").expect(400);
        let headers = [("Authorization", &*bearer), ("X-Relay-Key", &*app.key), ("X-Relay-Secret", &*app.secret)];
        http::ask(server.address, "GET", &app.path("/channels"), &headers, b"").expect(400);
        http::ask(server.address, "GET", &target, &[], b"").expect(200);
    });
}
