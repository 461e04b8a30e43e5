//! `serve --dev`: what its banner prints works as pasted, and pages cannot use the secret that everybody knows.

use std::collections::BTreeSet;

use serde_json::json;

use crate::common::admin::Admin;
use crate::common::server::{RunningProcess, TestServer, address_after, data_directory};
use crate::common::sign::App;
use crate::common::{PATIENCE, cli, http};

/// A development server, its `curl` lines, and its data directory.
fn start() -> (RunningProcess, String, Vec<String>, tempfile::TempDir) {
    let data = data_directory();
    let arguments = [
        "serve",
        "--dev",
        "--data",
        data.path().to_str().expect("text"),
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let mut process = RunningProcess::relay(&arguments);
    let line = process.listening_line();
    let mut curls = Vec::new();
    while !curls.iter().any(|curl: &String| curl.contains("/admin/api/v1/")) {
        let line = process.line(PATIENCE).expect("the line of the admin API is the last one");
        if line.contains("curl ") {
            curls.push(line);
        }
    }
    (process, line, curls, data)
}

/// R-ADMIN-21: every `curl` line of the banner ends by itself with status 200; the one of the admin API has an admin
/// token, which is another one at the next start, when the old one is refused.
#[test]
fn every_curl_line_ends_with_200() {
    let mut tokens = BTreeSet::new();
    for _ in 0..2 {
        let (mut process, _, curls, _data) = start();
        assert_eq!(curls.len(), 4, "{curls:?}");
        for curl in &curls {
            // The pasted line with one more option, which prints the status after the body.
            let pasted = curl.replace("curl -sS ", "curl -sS -m 10 -w '\\n%{http_code}' ");
            assert_ne!(pasted, *curl);
            let output = cli::command("sh").args(["-c", &pasted]).output().expect("a shell");
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && printed.ends_with("\n200"), "{curl}\n{printed}");
        }
        let token = curls[3].split("Bearer ").nth(1).and_then(|rest| rest.split('\'').next()).expect("a token");
        assert!(token.starts_with("rly_adm_") && tokens.insert(token.to_owned()), "{token}");
        process.kill();
    }
}

/// R-ADMIN-21, T77: with `--dev`, a request that uses the secret and comes from a page is 403, by signature and by
/// headers, and publishes nothing; the same request from a program passes, and so does a page with a token.
#[test]
fn pages_cannot_use_the_known_secret() {
    let (_process, line, curls, _data) = start();
    let address = address_after(&line, " listening on ");
    let app = App { id: "1".into(), key: "app-key".into(), secret: "app-secret".into() };
    let server = TestServer::adopt(address, app.clone());
    let body = json!({"name": "e", "channel": "c", "data": "d"}).to_string();
    let token = curls[1].split("Bearer ").nth(1).and_then(|rest| rest.split('\'').next()).expect("a token");
    let (bearer, kind) = (format!("Bearer {token}"), ("Content-Type", "application/json"));
    for base in ["/apps/1", "/api/v1/apps/1"] {
        let path = format!("{base}/events");
        let signed = app.sign("POST", &path, body.as_bytes());
        let secret = [kind, ("X-Relay-Key", "app-key"), ("X-Relay-Secret", "app-secret")];
        let ask = |target: &str, headers: &[(&str, &str)], more: &[(&str, &str)]| {
            http::ask(address, "POST", target, &[headers, more].concat(), body.as_bytes()).status
        };
        for page in [("Origin", "https://evil.test"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
            assert_eq!(ask(&signed, &[kind], &[page]), 403, "{path} {page:?}");
            assert_eq!(ask(&path, &secret, &[page]), 403, "{path} {page:?}");
            assert_eq!(ask(&path, &secret[..2], &[page]), 403, "{path} {page:?}: half a pair");
            assert_eq!(ask(&path, &[kind, ("Authorization", &bearer)], &[page]), 200, "{path} {page:?}: a token");
        }
        assert_eq!((ask(&signed, &[kind], &[]), ask(&path, &secret, &[])), (200, 200), "{path}");
    }
    server.assert_alive();
}

/// T77: other servers have secrets that pages do not know: nothing changes for them.
#[test]
fn other_servers_accept_signed_requests_from_anywhere() {
    let server = super::server();
    let app = server.app();
    let body = json!({"name": "e", "channel": "c", "data": "d"}).to_string();
    let target = app.sign("POST", &app.path("/events"), body.as_bytes());
    let headers = [("Origin", "https://example.com"), ("Content-Type", "application/json")];
    http::ask(server.address, "POST", &target, &headers, body.as_bytes()).expect(200);
    Admin::of(&server, &[]).get("/status");
}
