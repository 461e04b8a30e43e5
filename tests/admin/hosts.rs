//! Which requests reach the admin API at all: `Host`, `Origin`, types of bodies, headers of responses.

use serde_json::json;

use super::server;
use crate::common::admin::{Admin, BASE};
use crate::common::http::{HttpConnection, Response};
use crate::common::rig::drivers;
use crate::common::server::{ServerOptions, TestServer};

/// Sends a head as it is; `{host}` is the address of the listener and `{token}` the token.
fn raw(admin: &Admin, head: &str) -> Response {
    let text = head.replace("{host}", &admin.address.to_string()).replace("{token}", &admin.token);
    let mut connection = HttpConnection::open(admin.address);
    connection.write(text.replace('\n', "\r\n").as_bytes()).expect("sent");
    connection.read()
}

/// R-ADMIN-12, T45: a `Host` that is not one of this machine, missing, doubled or contradicted by an absolute target is
/// 421, before the path, the credential and the document are looked at.
#[test]
fn foreign_hosts_are_refused() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let bearer = "Authorization: Bearer {token}\n";
    for path in [format!("{BASE}/status"), "/openapi.json".into(), "/none".into(), format!("{BASE}/none")] {
        for line in [
            "Host: evil.test:6002\n",
            "Host: evil.test\n",
            "",
            "Host:\n",
            "Host: {host}\nHost: {host}\n",
            "Host: {host}\nhost: evil.test\n",
            "Host: localhost.evil.test\n",
            "Host: 127.0.0.1.evil.test\n",
            "Host: evil.test, {host}\n",
            "Host: {host}@evil.test\n",
            "Host: 0.0.0.0:6002\n",
        ] {
            let response = raw(&admin, &format!("GET {path} HTTP/1.1\n{line}{bearer}\n"));
            assert_eq!(response.status, 421, "{path} {line:?}: {}", response.text());
        }
        let absolute = format!("GET http://{{host}}{path} HTTP/1.1\nHost: {{host}}\n{bearer}\n");
        assert_eq!(raw(&admin, &absolute).status, 421, "{path}");
    }
    for host in ["{host}", "localhost", "LOCALHOST:1", "[::1]:6002", "127.0.0.1:65535"] {
        let response = raw(&admin, &format!("GET {BASE}/status HTTP/1.1\nHost: {host}\n{bearer}\n"));
        assert_eq!(response.status, 200, "{host}: {}", response.text());
    }
}

/// R-ADMIN-12, T45: names of `admin_hosts` are accepted with any port, and nothing that contains them.
#[test]
fn configured_hosts_are_accepted() {
    let options = ServerOptions::new(drivers()[0]).admin().with(&["--admin-hosts", "Relay.example,[2001:db8::1]"]);
    let server = TestServer::start_with(options);
    let admin = Admin::of(&server, &[]);
    for (host, status) in [
        ("relay.example", 200),
        ("RELAY.EXAMPLE:8443", 200),
        ("[2001:db8::1]:1", 200),
        ("localhost", 200),
        ("relay.example.evil.test", 421),
        ("x.relay.example", 421),
        ("2001:db8::1", 421),
    ] {
        let head = format!("GET {BASE}/status HTTP/1.1\nHost: {host}\nAuthorization: Bearer {{token}}\n\n");
        assert_eq!(raw(&admin, &head).status, status, "{host}");
    }
}

/// R-ADMIN-12, T47: a request from a page of another origin, also of another port of the same host, is 403 and changes
/// nothing; the page of the listener itself is not refused. No response has a CORS header.
#[test]
fn foreign_pages_are_refused() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let own = format!("http://{}", admin.address);
    for origin in ["null", "https://evil.test", "http://127.0.0.1:1", "http://localhost", &format!("{own}.evil.test")] {
        for method in ["GET", "POST", "OPTIONS"] {
            let body = if method == "POST" { &b"{}"[..] } else { b"" };
            let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
            let response = admin.ask_with(method, "/apps", &headers, body);
            assert_eq!(response.status, 403, "{method} from {origin}");
            let has_cors = response.headers.iter().any(|(name, _)| name.starts_with("access-control-"));
            assert!(!has_cors, "{:?}", response.headers);
        }
    }
    assert_eq!(admin.get("/apps")["items"].as_array().expect("a list").len(), 1, "nothing was created");
    admin.ask_with("POST", "/apps", &[("Origin", &own)], b"{}").expect(201);
}

/// R-ADMIN-13, T47: what a form or a simple script can send is not JSON: 415, nothing changed. A change without a body
/// needs no type, but never has another one.
#[test]
fn bodies_are_json() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let path = format!("/apps/{}/disable", server.app().id);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        admin.ask_with("POST", "/apps", &[("Content-Type", kind)], b"{}").expect(415);
        admin.ask_with("POST", &path, &[("Content-Type", kind)], b"").expect(415);
    }
    let coded = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    admin.ask_with("POST", "/apps", &coded, b"{}").expect(415);
    let page = admin.get("/apps");
    let apps = page["items"].as_array().expect("a list");
    assert_eq!((apps.len(), &apps[0]["enabled"]), (1, &json!(true)), "nothing was changed");
    admin.ask_with("POST", "/apps", &[("Content-Type", "application/json; charset=utf-8")], b"{}").expect(201);
    admin.ask("POST", &path, None).expect(200);
}

/// R-ADMIN-12: the headers of every response, errors included.
#[test]
fn responses_have_their_headers() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let heads = [
        (format!("GET {BASE}/status HTTP/1.1\nHost: {{host}}\nAuthorization: Bearer {{token}}\n\n"), 200),
        (format!("GET {BASE}/none HTTP/1.1\nHost: {{host}}\nAuthorization: Bearer {{token}}\n\n"), 404),
        (format!("PUT {BASE}/status HTTP/1.1\nHost: {{host}}\nAuthorization: Bearer {{token}}\n\n"), 405),
        (format!("GET {BASE}/status HTTP/1.1\nHost: {{host}}\n\n"), 401),
        ("GET /openapi.json HTTP/1.1\nHost: {host}\n\n".into(), 200),
        ("GET / HTTP/1.1\nHost: {host}\n\n".into(), 404),
        ("GET / HTTP/1.1\nHost: evil.test\n\n".into(), 421),
    ];
    for (head, status) in heads {
        let response = raw(&admin, &head).expect(status);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cache-control", "no-store"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(response.header(name), Some(value), "{head}");
        }
        assert!(response.header("server").is_none());
        if status >= 400 {
            let body = response.json();
            assert!(body["error"].is_string() && body["message"].is_string(), "{body}");
        }
    }
}
