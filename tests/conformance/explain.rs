//! Why was this refused? Over TCP: refused by the server, logged with an id, explained by the command line (R-EXPLAIN
//! rules, threats T53 and T55).

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::common::cli;
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing, hmac_hex, unix_now};
use crate::common::socket::Socket;
use crate::common::{eventually, http};

/// Runs `relay explain` on the store of the server, with this standard input.
fn run(server: &TestServer, arguments: &[&str], input: &[u8]) -> Output {
    let data = server.data.to_str().unwrap();
    let mut command: Command = cli::command(cli::binary());
    command.arg("explain").args(arguments).args(["--data", data]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(input).unwrap();
    process.wait_with_output().unwrap()
}

#[track_caller]
fn explain(server: &TestServer, arguments: &[&str], input: &[u8]) -> Value {
    let output = run(server, &[arguments, &["--json"]].concat(), input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The id in the only line with this message and reason.
pub(crate) fn refusal_id(server: &TestServer, message: &str, reason: &str) -> String {
    eventually(&format!("{message}: {reason}"), || {
        let log = server.log();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut lines = lines.filter(|line| line["message"] == message && line["reason"] == reason);
        let id = lines.next()?["refusal_id"].as_str().unwrap_or_else(|| panic!("an id in {log}")).to_owned();
        assert!(lines.next().is_none(), "one line: {log}");
        Some(id)
    })
}

fn assert_id(id: &str) {
    let digits = id.strip_prefix("ref_").unwrap_or_else(|| panic!("{id}"));
    assert!(digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
}

/// R-EXPLAIN-1, R-EXPLAIN-2, R-EXPLAIN-3, R-EXPLAIN-6: a subscription signed in the wrong order is refused with an id in
/// the log; explained from its fields, the mistake is named, with both texts, and after the fix it is accepted.
#[test]
fn a_refused_subscription_is_explained() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let mut socket = Socket::open(&server, app);
        let socket_id = socket.socket_id.clone();
        let reversed = format!("{}:{}", app.key, hmac_hex(&app.secret, &format!("private-orders:{socket_id}")));
        subscribe(&mut socket, json!({"channel": "private-orders", "auth": reversed}));
        assert_id(&refusal_id(&server, "subscription refused", "AuthError"));
        let fields = ["--socket-id", &socket_id, "--channel", "private-orders", "--auth"];
        let answer = explain(&server, &[&fields[..], &[&reversed]].concat(), b"");
        assert_eq!((&answer["verdict"], &answer["cause"]), (&json!("explained"), &json!("reversed_order")));
        assert_eq!(answer["expected_string_to_sign"], format!("{socket_id}:private-orders"));
        assert_eq!(answer["signed_string"], format!("private-orders:{socket_id}"));
        let right = app.sign_private(&socket_id, "private-orders");
        let answer = explain(&server, &[&fields[..], &[&right]].concat(), b"");
        assert_eq!((&answer["verdict"], &answer["cause"]), (&json!("accepted"), &json!("ok")));
        socket.send_json(&json!({"event": "pusher:subscribe", "data": {"channel": "private-orders", "auth": right}}));
        while socket.next_json()["event"] != "pusher_internal:subscription_succeeded" {}
        // For people, and without --json.
        let shown = run(&server, &[&fields[..], &[&reversed]].concat(), b"");
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("cause    reversed_order") && shown.contains("Sign the socket id first"), "{shown}");
        assert!(!shown.contains(&app.secret) && !shown.contains(right.split(':').nth(1).unwrap()), "{shown}");
    });
}

/// R-EXPLAIN-1, R-EXPLAIN-5, R-EXPLAIN-6: a publish whose body was changed after signing is refused with an id in the
/// log, and explained from its URL and body and from a line of curl.
#[test]
fn a_refused_publish_is_explained() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let signed = r#"{"name": "e", "channel": "c", "data": "Zo\u00eb"}"#;
        let sent = r#"{"name":"e","channel":"c","data":"Zoë"}"#;
        let target = app.sign("POST", &app.path("/events"), signed.as_bytes());
        http::ask(server.address, "POST", &target, &[], sent.as_bytes()).expect(401);
        assert_id(&refusal_id(&server, "credential refused", "body_mismatch"));
        let url = format!("http://{}{target}", server.address);
        let answer = explain(&server, &["--method", "POST", "--url", &url, "--body-file", "-"], sent.as_bytes());
        assert_eq!(answer["cause"], "reformatted_body");
        assert!(answer["hint"].as_str().unwrap().contains("json.dumps"), "{answer}");
        let curl = format!("curl -sS '{url}' -H 'content-type: application/json' -d '{sent}'");
        for (line, input) in [(&*curl, ""), ("-", &*curl)] {
            assert_eq!(explain(&server, &["--curl", line], input.as_bytes())["cause"], "reformatted_body");
        }
        let valid = explain(&server, &["--method", "POST", "--url", &url, "--body", signed], b"");
        assert_eq!(valid["verdict"], "accepted");
        http::ask(server.address, "POST", &target, &[], signed.as_bytes()).expect(200);
    });
}

/// R-EXPLAIN-6: every line about a refusal has an id of its own, whatever was refused; lines that only count have none.
#[test]
fn every_refusal_has_an_id() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        Socket::upgrade(&server, app, "/app/nobody").expect_fatal(4001);
        let mut socket = Socket::open(&server, app);
        subscribe(&mut socket, json!({"channel": "a b"}));
        socket.send_json(&json!({"event": "pusher:signin", "data": {"auth": "x:y", "user_data": "{\"id\":\"1\"}"}}));
        socket.expect_event("pusher:error");
        socket.send_json(&json!({"event": "client-x", "channel": "private-c", "data": ""}));
        socket.expect_event("pusher:error");
        http::ask(server.address, "POST", &app.path("/events"), &[], b"{}").expect(401);
        http::ask(server.address, "POST", "/apps/999/events", &[], b"{}").expect(404);
        let lines = eventually("all are logged", || {
            let log = server.log();
            let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let lines: Vec<Value> = lines.filter(|line| line["target"] == "relay::refused").collect();
            (lines.len() == 6).then_some(lines)
        });
        let mut ids: Vec<&str> = lines.iter().map(|line| line["refusal_id"].as_str().unwrap()).collect();
        ids.iter().for_each(|id| assert_id(id));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 6, "{lines:?}");
    });
}

/// T55, T53: a publish and a subscription that are signed correctly, the publish for a time that is yet to come, leave
/// nothing behind that repeats them: no log line, at the finest level, and no answer has more than eight digits of the
/// signature.
#[test]
fn nothing_can_be_replayed_when_its_time_comes() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).with(&["--log", "trace"]),
        |server| {
            let app = server.app();
            let body = br#"{"name":"e","channel":"c","data":"pay"}"#;
            let mut signing = Signing::new(app, "POST", &app.path("/events"), body);
            signing.set("auth_timestamp", &(unix_now() + 700).to_string());
            let (target, signature) = (signing.target(), signing.signature());
            http::ask(server.address, "POST", &target, &[], body).expect(401);
            assert_id(&refusal_id(&server, "credential refused", "stale_timestamp"));
            let answer = explain(&server, &["--url", &target, "--body-file", "-"], body);
            assert_eq!(answer["cause"], "clock_skew");
            assert!(answer["hint"].as_str().unwrap().contains("s ahead of"), "{answer}");
            let told = server.log() + &answer.to_string();
            for at in 0..=64 - 9 {
                assert!(!told.contains(&signature[at..at + 9]), "a part of the signature: {told}");
            }
            assert!(!told.contains(&app.secret), "{told}");
        },
    );
}

/// R-EXPLAIN-2, R-EXPLAIN-3: the secret of another app, swapped key and secret, and a request of an app that is not
/// named.
#[test]
fn apps_and_keys_are_told_apart() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("other", &[]),
        |server| {
            let (app, other) = (server.app(), server.named_app("other"));
            let explained = |key: &str, secret: &str| {
                let auth = format!("{key}:{}", hmac_hex(secret, "1.2:private-a"));
                let fields = ["--socket-id", "1.2", "--channel", "private-a", "--auth", &auth];
                let answer = explain(&server, &fields, b"");
                assert!(!answer.to_string().contains(&app.secret) && !answer.to_string().contains(&other.secret));
                answer
            };
            let answer = explained(&app.key, &other.secret);
            assert_eq!((&answer["cause"], &answer["other_app"]), (&json!("secret_of_other_app"), &json!(other.id)));
            assert_eq!(explained(&app.secret, &app.key)["cause"], "swapped_key_and_secret");
            let unknown = format!("nobody:{}", hmac_hex("x", "1.2:private-a"));
            let fields = ["--socket-id", "1.2", "--channel", "private-a", "--auth", &unknown];
            let refused = run(&server, &fields, b"");
            assert_eq!(refused.status.code(), Some(2));
            assert!(String::from_utf8_lossy(&refused.stderr).contains("--app ID"));
            let answer = explain(&server, &[&fields[..], &["--app", &app.id]].concat(), b"");
            assert_eq!(answer["cause"], "unknown_key");
        },
    );
}

fn subscribe(socket: &mut Socket, data: Value) {
    socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
    while socket.next_json()["event"] != "pusher:subscription_error" {}
}

/// R-EXPLAIN-5: questions that cannot be answered are usage errors of one line.
#[test]
fn bad_questions_are_usage_errors() {
    let server = TestServer::start(crate::common::server::Driver::Epoll);
    let app: &App = server.app();
    let path = app.path("/events");
    let rows: [(&[&str], &str); 8] = [
        (&[], "--socket-id"),
        (&["--socket-id", "1", "--channel", "a", "--auth", ""], "socket_id must be"),
        (&["--socket-id", "1.2", "--auth", ""], "channel is missing"),
        (&["--url", "relative"], "path must begin"),
        (&["--url", &path, "--header", "nothing"], "--header takes"),
        (&["--url", &path, "--body-file", "/nowhere/x"], "cannot read /nowhere/x"),
        (&["--curl", "curl -u a:b http://a/"], "does not know the option -u"),
        (&["--url", &path, "--app", "none"], "no app with id"),
    ];
    for (arguments, expected) in rows {
        let output = run(&server, arguments, b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(told.contains(expected) && told.trim_end().lines().count() == 1, "{arguments:?}: {told}");
    }
    let long = vec![b'x'; 1024 * 1024 + 1];
    let output = run(&server, &["--url", &path, "--body-file", "-"], &long);
    assert!(String::from_utf8_lossy(&output.stderr).contains("more than 1048576 bytes"));
}

/// R-EXPLAIN-4: a search among all forms of the longest data ends at its bound, and the answer says so; a longer field
/// is refused by its name.
#[test]
fn the_search_is_bounded() {
    let server = TestServer::start(crate::common::server::Driver::Epoll);
    let auth = format!("{}:{}", server.app().key, "0a".repeat(32));
    let data = |characters: usize| json!({"user_id": "7", "user_info": "é".repeat(characters)}).to_string();
    let ask = |data: &str, arguments: &[&str]| {
        let fields = ["--socket-id", "1.2", "--channel", "presence-a", "--auth", &auth, "--channel-data", data];
        run(&server, &[&fields[..], arguments].concat(), b"")
    };
    let answer = |characters: usize| -> Value {
        let output = ask(&data(characters), &["--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    assert_eq!(answer(20)["verdict"], "unexplained");
    let cut = answer(32_700);
    assert_eq!((&cut["verdict"], &cut["cause"]), (&json!("cut"), &json!("unknown")));
    assert!(cut["hint"].as_str().unwrap().contains("the search was cut"), "{}", cut["hint"]);
    let refused = ask(&data(32_800), &[]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("channel_data takes a text of 0 to 65536 bytes"), "{told}");
}
