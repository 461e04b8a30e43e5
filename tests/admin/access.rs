//! Credentials and permissions: every route with every kind of credential.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::server;
use crate::common::admin::{Admin, BASE, create_token, fresh_source};
use crate::common::http::{self, HttpConnection, Response};
use crate::common::server::TestServer;
use crate::common::sign::App;
use crate::common::{cli, eventually};

/// A route of the OpenAPI document: method, path with plausible parameters, and permission.
struct Route {
    method: String,
    path: String,
    permission: String,
}

/// All routes, as the running server documents them.
fn routes(admin: &Admin, app: &App) -> Vec<Route> {
    let host = admin.address.to_string();
    let document = http::ask(admin.address, "GET", "/openapi.json", &[("Host", &host)], b"").expect(200).json();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let path = path.replace("{app}", &app.id).replace("{key}", "no-such-key");
            let path = path.replace("{token}", "tok_none").replace("{webhook}", "wh_none");
            let permission = operation["x-permission"].as_str().expect("a permission").to_owned();
            routes.push(Route { method: method.to_uppercase(), path, permission });
        }
    }
    assert!(routes.len() >= 30, "{} routes", routes.len());
    routes
}

/// A request from an address of its own, so that no failure before it counts against it.
fn ask(admin: &Admin, route: &Route, headers: &[(&str, &str)], query: &str) -> Response {
    let host = admin.address.to_string();
    let mut all = vec![("Host", host.as_str())];
    all.extend_from_slice(headers);
    let target = format!("{BASE}{}{query}", route.path);
    HttpConnection::open_from(fresh_source(), admin.address).ask(&route.method, &target, &all, b"")
}

fn revoked(server: &TestServer) -> String {
    let made = create_token(&server.data, &["--name", "revoked"]);
    let data = server.data.to_str().expect("text");
    cli::run_json(&["admin", "token", "revoke", made["id"].as_str().expect("id"), "--data", data, "--json"]);
    made["token"].as_str().expect("token").to_owned()
}

/// R-ADMIN-11, T42, T46: every wrong credential is 401 on every route of the admin API, also from loopback and for a
/// route that does not exist, with one text that reveals nothing; two kinds at once are 400.
#[test]
fn wrong_credentials_open_nothing() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let mut routes = routes(&admin, app);
    for path in ["/none", "/apps/none/none", "", "/"] {
        routes.push(Route { method: "GET".into(), path: path.into(), permission: "admin".into() });
    }
    let app_token = cli::create_token(&server.data, app, &[]).token;
    let expiring = create_token(&server.data, &["--expires", "1s"])["token"].as_str().expect("token").to_owned();
    let unknown = format!("rly_adm_{}", "x".repeat(40));
    let bearers =
        [app_token, expiring, revoked(&server), unknown, admin.token[..47].to_owned(), admin.token.clone() + "x"];
    eventually("the token has expired", || {
        let status = admin.with_token(&bearers[1]).ask("GET", "/status", None).status;
        (status == 401).then_some(())
    });
    let mut texts = BTreeSet::new();
    for route in &routes {
        let mut refused = |headers: &[(&str, &str)], query: &str| {
            let response = ask(&admin, route, headers, query);
            assert_eq!(response.status, 401, "{} {} {headers:?}", route.method, route.path);
            texts.insert(response.text().to_owned());
        };
        refused(&[], "");
        refused(&[("X-Relay-Key", &app.key), ("X-Relay-Secret", &app.secret)], "");
        let signed = app.sign(&route.method, &format!("{BASE}{}", route.path), b"");
        refused(&[], &signed[signed.find('?').expect("a query")..]);
        refused(&[("Authorization", &format!("Basic {}", admin.token))], "");
        refused(&[("Cookie", &format!("relay_session={}", admin.token))], "");
        for token in &bearers {
            refused(&[("Authorization", &format!("Bearer {token}"))], "");
        }
    }
    let texts: Vec<&String> = texts.iter().filter(|text| !text.is_empty()).collect();
    assert_eq!(texts.len(), 1, "one text for every cause: {texts:?}");
    assert!(texts[0].contains(r#""error":"unauthorized""#), "{}", texts[0]);

    let bearer = format!("Bearer {}", admin.token);
    for route in routes.iter().filter(|route| route.method == "GET") {
        let both = [("Authorization", bearer.as_str()), ("X-Relay-Key", app.key.as_str())];
        assert_eq!(ask(&admin, route, &both, "").status, 400, "{}", route.path);
        assert_eq!(ask(&admin, route, &both[..1], "?auth_key=x").status, 400, "{}", route.path);
    }
}

/// R-ADMIN-11, T42: an admin token is 401 on every route of the app API, on both bases; so are its halves.
#[test]
fn admin_tokens_open_no_app() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let bearer = format!("Bearer {}", admin.token);
    let document = http::get(server.address, "/openapi.json").expect(200).json();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys().filter(|method| !method.starts_with('x')) {
            for base in [format!("/apps/{}", app.id), format!("/api/v1/apps/{}", app.id)] {
                let Some(rest) = path.split("{app}").nth(1) else { continue };
                let rest = rest.replace(['{', '}'], "");
                let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
                let mut connection = HttpConnection::open_from(fresh_source(), server.address);
                let response = connection.ask(&method.to_uppercase(), &format!("{base}{rest}"), &headers, b"{}");
                assert_eq!(response.status, 401, "{method} {base}{rest}: {}", response.text());
                asked += 1;
            }
        }
    }
    assert!(asked >= 24, "{asked} routes");
}

/// R-ADMIN-14, T51: a read-only token may use the routes with the permission `read` and no other: 403, and nothing is
/// changed. A full token may use all of them.
#[test]
fn read_only_tokens_change_nothing() {
    let server = server();
    let (admin, viewer) = (Admin::of(&server, &[]), Admin::of(&server, &["--read-only"]));
    let app = server.app();
    let state =
        || (admin.get("/apps"), admin.get(&format!("/apps/{}", app.id)), admin.get("/admin-tokens")["items"].clone());
    let without_use = |mut state: (Value, Value, Value)| {
        for token in state.2.as_array_mut().expect("a list") {
            token["last_used_at"] = Value::Null;
        }
        state
    };
    let before = without_use(state());
    for route in routes(&admin, app) {
        let response = viewer.ask(&route.method, &route.path, None);
        match route.permission.as_str() {
            // `explain` needs a question.
            "read" => assert_eq!(response.status, if route.method == "GET" { 200 } else { 400 }, "{}", route.path),
            _ => {
                assert_eq!(response.status, 403, "{} {}", route.method, route.path);
                assert_eq!(response.json()["error"], "forbidden");
            }
        }
    }
    assert_eq!(without_use(state()), before, "nothing was changed");
    for route in routes(&admin, app).iter().filter(|route| route.method == "GET") {
        admin.ask("GET", &route.path, None).expect(200);
    }
}

/// R-ADMIN-13: GET and HEAD change nothing, whatever they carry; HEAD has no body; other methods are 405 with `Allow`.
#[test]
fn reading_changes_nothing() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let before = admin.get("/audit");
    for route in routes(&admin, app) {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "TRACE"] {
            let (host, bearer) = (admin.address.to_string(), format!("Bearer {}", admin.token));
            let headers = [("Host", host.as_str()), ("Authorization", &bearer), ("Connection", "close")];
            let mut connection = HttpConnection::open(admin.address);
            connection.send(method, &format!("{BASE}{}", route.path), &headers, b"");
            let response = connection.try_read_head().expect("a response");
            let allowed = response.status == 200 || response.status == 405;
            assert!(allowed, "{method} {}: {}", route.path, response.status);
            if response.status == 405 {
                let allow = response.header("allow").expect("Allow");
                assert!(allow.contains(&route.method), "{method} {}: {allow}", route.path);
            }
            if method == "HEAD" {
                connection.expect_end();
            }
        }
    }
    assert_eq!(admin.get("/audit"), before);
}

/// R-ADMIN-11, T6: ten failures of an address in a minute are 401, then 429 with `Retry-After`; a valid token passes
/// from the same address, and another address is not affected.
#[test]
fn guessing_is_braked() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let source = fresh_source();
    let ask = |source, token: &str| {
        let (host, bearer) = (admin.address.to_string(), format!("Bearer {token}"));
        let headers = [("Host", host.as_str()), ("Authorization", &bearer)];
        HttpConnection::open_from(source, admin.address).ask("GET", &format!("{BASE}/status"), &headers, b"")
    };
    let wrong = format!("rly_adm_{}", "w".repeat(40));
    for attempt in 0..10 {
        assert_eq!(ask(source, &wrong).status, 401, "attempt {attempt}");
    }
    for _ in 0..20 {
        let response = ask(source, &wrong).expect(429);
        assert_eq!((response.header("retry-after"), &response.json()["error"]), (Some("60"), &json!("rate_limited")));
        ask(source, &admin.token).expect(200);
    }
    ask(fresh_source(), &wrong).expect(401);
}

/// R-ADMIN-3, R-ADMIN-11: a token that another process creates works at once, and one that it revokes ends at once.
#[test]
fn tokens_begin_and_end_at_once() {
    let server = server();
    for _ in 0..5 {
        let admin = Admin::of(&server, &[]);
        admin.get("/status");
        let data = server.data.to_str().expect("text");
        cli::run_json(&["admin", "token", "revoke", &admin.id, "--data", data, "--json"]);
        admin.ask("GET", "/status", None).expect(401);
    }
}
