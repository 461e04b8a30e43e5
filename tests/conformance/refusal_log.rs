//! The log: one line per refusal, with its reason, never with a secret, and not more of them than a disk can hold.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::common::cli::{self, create_token};
use crate::common::exposition::Page;
use crate::common::rig::on_fresh_servers;
use crate::common::server::{RunningProcess, ServerOptions, TestServer, addresses, data_directory};
use crate::common::socket::Socket;
use crate::common::wire::{self, RawSocket};
use crate::common::{PATIENCE, eventually, http};

/// The lines about refusals so far, each one JSON object.
fn refusals(server: &TestServer) -> Vec<Value> {
    let log = server.log();
    let lines =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line| line["target"] == "relay::refused").collect()
}

/// Waits for the only line with this message and reason.
fn line(server: &TestServer, message: &str, reason: &str) -> Value {
    eventually(&format!("{message}: {reason}"), || {
        let mut lines = refusals(server);
        lines.retain(|line| line["message"] == message && line["reason"] == reason);
        assert!(lines.len() < 2, "one line per refusal: {lines:?}");
        lines.pop()
    })
}

fn subscribe(socket: &mut Socket, data: Value) {
    socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
    while socket.next_json()["event"] != "pusher:subscription_error" {}
}

/// R-AUTH-7, T27: each refusal is one line that names reason, app, code and peer: the address at the handshake and over
/// HTTP, the socket id of an open WebSocket.
#[test]
fn each_refusal_is_one_line() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("quota", &["max_connections=1"]).app("plain", &[]),
        |server| {
            let (app, quota) = (server.app(), server.named_app("quota"));
            Socket::upgrade(&server, app, "/app/0123456789abcdef0123").expect_fatal(4001);
            let refused = line(&server, "connection refused", "unknown_app");
            assert_eq!(
                (&refused["key"], &refused["code"], &refused["peer"]),
                (&json!("0123456..."), &json!(4001), &json!("127.0.0.1"))
            );

            let _kept = Socket::open(&server, quota);
            Socket::upgrade(&server, quota, &format!("/app/{}", quota.key)).expect_fatal(4004);
            let refused = line(&server, "connection refused", "over_quota");
            assert_eq!((&refused["app"], &refused["peer"]), (&json!(quota.id), &json!("127.0.0.1")));

            let mut socket = Socket::open(&server, app);
            subscribe(&mut socket, json!({"channel": "private-orders", "auth": "nobody:00"}));
            let refused = line(&server, "subscription refused", "AuthError");
            assert_eq!((&refused["channel"], &refused["code"]), (&json!("private-orders"), &json!(401)));
            assert_eq!((&refused["app"], &refused["socket_id"]), (&json!(app.id), &json!(socket.socket_id)));
            subscribe(&mut socket, json!({"channel": "a\nb\u{1b}[31m{\"x\":1}"}));
            let refused = line(&server, "subscription refused", "InvalidChannel");
            assert_eq!(refused["channel"], "a\\u{a}b\\u{1b}[31m{\"x\":1}");

            let mut plain = Socket::open(&server, server.named_app("plain"));
            plain.send_json(&json!({"event": "client-x", "channel": "private-orders", "data": ""}));
            plain.expect_event("pusher:error");
            assert_eq!(line(&server, "client event refused", "not_allowed")["channel"], "private-orders");

            let secret = [("X-Relay-Key", app.key.as_str()), ("X-Relay-Secret", "x")];
            let mut from = http::HttpConnection::open_from(Ipv4Addr::new(127, 9, 8, 7), server.address);
            from.ask("POST", &app.path("/events"), &secret, b"{}").expect(401);
            let refused = line(&server, "credential refused", "bad_secret");
            assert_eq!(
                (&refused["app"], &refused["peer"], &refused["code"]),
                (&json!(app.id), &json!("127.9.8.7"), &json!(401))
            );

            let token = create_token(&server.data, app, &["--scopes", "channels:read"]).token;
            let bearer = format!("Bearer {token}");
            eventually("the server knows the token", || {
                let answer =
                    http::ask(server.address, "GET", &app.path("/channels"), &[("Authorization", &bearer)], b"");
                (answer.status == 200).then_some(())
            });
            http::ask(server.address, "POST", &app.path("/events"), &[("Authorization", &bearer)], b"{}").expect(403);
            let refused = line(&server, "request refused", "forbidden");
            assert_eq!((&refused["scope"], &refused["app"]), (&json!("events:publish"), &json!(app.id)));
            server.post_events(app, &json!({"name": "e", "channel": "c", "data": "x".repeat(20_000)})).expect(413);
            line(&server, "request refused", "too_large");
        },
    );
}

/// T6, T27: a flood of one reason writes a bounded number of lines, and suppressed lines are counted; another reason is
/// still logged.
#[test]
fn floods_are_held_back() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let mut caller = http::HttpConnection::open(server.address);
        for number in 0..300 {
            let bearer = format!("Bearer rly_{number:040}");
            let answer = caller.ask("POST", &app.path("/events"), &[("Authorization", &bearer)], b"{}");
            assert!([401, 429].contains(&answer.status));
        }
        Socket::upgrade(&server, app, "/app/nobody").expect_fatal(4001);
        line(&server, "connection refused", "unknown_app");
        let lines = refusals(&server).iter().filter(|line| line["reason"] == "bad_token").count();
        // Twenty at once, and one for every three seconds that the flood lasted.
        assert!((20..=25).contains(&lines), "{lines}");
        let page = Page::read(http::get(server.health, "/metrics").expect(200).text());
        let suppressed = page.sum("relay_log_lines_suppressed_total", &[]);
        // The 401s and the 429s, each kind with its own rate limit.
        assert!(suppressed >= 300.0 - lines as f64 && suppressed < 600.0, "{suppressed}");
        assert_eq!(page.value("relay_auth_failures_total", &[("surface", "http"), ("reason", "bad_token")]), 300.0);
    });
}

/// R-AUTH-7, T27: secrets, tokens, signatures and bodies are in no line at the finest level, even when a client put
/// them in the wrong place: as key, app id, channel or query.
#[test]
fn no_line_holds_a_secret() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).with(&["--log", "trace"]),
        |server| {
            let app = server.app();
            let token = create_token(&server.data, app, &[]).token;
            let body = json!({"name": "e", "channel": "c", "data": "what-the-customer-says"}).to_string();
            let post = |target: &str, headers: &[(&str, &str)]| {
                http::ask(server.address, "POST", target, headers, body.as_bytes());
            };
            let signed = app.sign("POST", &app.path("/events"), body.as_bytes());
            let signature = signed.split("auth_signature=").nth(1).unwrap();
            let bearer = format!("Bearer {token}");
            Socket::upgrade(&server, app, &format!("/app/{}", app.secret)).expect_fatal(4001);
            Socket::upgrade(&server, app, &format!("/app/{token}?token={token}")).expect_fatal(4001);
            post(&format!("/apps/{}/events", app.secret), &[]);
            post(&format!("/apps/{token}/events"), &[("Authorization", &bearer)]);
            post(&signed.replace("c", "d"), &[]);
            post(&app.path("/events"), &[("X-Relay-Key", &app.secret), ("X-Relay-Secret", &token)]);
            post(&app.path("/events"), &[("X-Relay-Key", &app.key), ("X-Relay-Secret", &format!("{}x", app.secret))]);
            post(&app.path("/events"), &[("Authorization", &format!("{bearer}x"))]);
            let mut socket = Socket::open(&server, app);
            let auth = app.sign_private(&socket.socket_id, "private-other");
            subscribe(&mut socket, json!({"channel": "private-mine", "auth": auth}));
            subscribe(
                &mut socket,
                json!({"channel": "presence-p", "auth": auth, "channel_data": "{\"user_id\":\"what-the-customer-says\"}"}),
            );
            let digest = auth.split(':').nth(1).unwrap();
            eventually("the last refusal is written", || {
                let lines = refusals(&server);
                lines.iter().any(|line| line["channel"] == "presence-p").then_some(())
            });
            let log = server.log();
            for secret in [app.secret.as_str(), &token, &token[4..], signature, digest, "what-the-customer-says"] {
                // Not even half of the secret.
                let part = &secret[..secret.len() / 2];
                assert!(!log.contains(part), "{part} of {secret} stands in the log:\n{log}");
            }
        },
    );
}

/// On a terminal a line is text for people; input that a peer chose cannot break it there either.
#[test]
fn a_terminal_gets_text() {
    let directory = data_directory();
    let serve = format!(
        "exec setpriv --pdeathsig KILL -- {} serve --dev --data {} --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0",
        cli::binary(),
        directory.path().display()
    );
    let mut command = cli::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "script", "-qec", &serve, "/dev/null"]);
    let mut process = RunningProcess::spawn(command);
    let (public, _) = addresses(&process.listening_line());
    let mut socket = RawSocket::open(public, "/app/app-key");
    socket.read().unwrap();
    let message = json!({"event": "pusher:subscribe", "data": {"channel": "a\nFORGED\u{1b}[2J"}}).to_string();
    socket.write(&wire::frame(wire::FIN | wire::TEXT, message.as_bytes())).unwrap();
    let line = eventually("the refusal is written", || {
        let line = process.line(PATIENCE).expect("the log goes on");
        line.contains("subscription refused").then_some(line)
    });
    assert!(!line.starts_with('{') && line.contains("INFO") && line.contains("InvalidChannel"), "{line:?}");
    assert!(line.contains("\\u{a}FORGED") && line.contains("\\u{1b}[2J"), "{line:?}");
    assert!(!line.contains("\u{1b}[2J"), "{line:?}");
    process.kill();
}
