//! Refusals explained over HTTP, by their fields and by their id in the log (R-EXPLAIN-7).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::server;
use crate::common::admin::Admin;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing, hmac_hex, unix_now};
use crate::common::{cli, eventually, http};
use crate::explain::refusal_id;

#[track_caller]
fn explain(admin: &Admin, question: &Value) -> Value {
    admin.ask("POST", "/explain", Some(question)).expect(200).json()
}

/// The message of the lines of the log about them.
const REFUSED: &str = "credential refused";

fn reversed(app: &App) -> Value {
    let auth = format!("{}:{}", app.key, hmac_hex(&app.secret, "private-a:1.2"));
    json!({"app_id": app.id, "socket_id": "1.2", "channel": "private-a", "auth": auth})
}

/// R-EXPLAIN-1, R-EXPLAIN-3, R-EXPLAIN-7, T53: an admin gets the cause and both texts, a read-only admin what to change;
/// no answer has the right signature; the app need not be named if the key or the path does; each call is audited.
#[test]
fn a_question_is_answered() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let question = reversed(app);
    let answer = explain(&admin, &question);
    assert_eq!((&answer["verdict"], &answer["cause"]), (&json!("explained"), &json!("reversed_order")));
    assert_eq!(answer["expected_string_to_sign"], "1.2:private-a");
    assert_eq!(answer["signed_string"], "private-a:1.2");
    assert!(!answer.to_string().contains(&hmac_hex(&app.secret, "1.2:private-a")), "{answer}");
    let viewer = explain(&Admin::of(&server, &["--read-only"]), &question);
    let members: BTreeSet<&str> = viewer.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["verdict", "hint"]));
    let mut unnamed = question;
    unnamed.as_object_mut().expect("an object").remove("app_id");
    assert_eq!(explain(&admin, &unnamed), answer);
    // The body of an event may be longer than any other body of the admin API.
    let body = json!({"name": "e", "channel": "c", "data": "x".repeat(500_000)}).to_string();
    let path = app.sign("POST", &app.path("/events"), body.as_bytes());
    let request = json!({"method": "POST", "path": path, "body": body + "\n"});
    assert_eq!(explain(&admin, &request)["cause"], "body_newline");
    let audit = admin.get("/audit?limit=10");
    let notes = audit["items"].as_array().expect("a list").iter().filter(|entry| entry["action"] == "request.explain");
    let notes: Vec<&Value> = notes.collect();
    assert_eq!(notes.len(), 4, "{audit}");
    assert_eq!((&notes[3]["app"], &notes[3]["actor"]["id"]), (&json!(app.id), &json!(admin.id)));
}

/// R-EXPLAIN-6, R-EXPLAIN-7, T55: a refusal is explained by the id of its line in the log, only for its app; the command
/// line does the same with `--server`.
#[test]
fn a_refusal_of_the_log_is_explained() {
    let server = TestServer::start_with(ServerOptions::new(super::drivers()[0]).app("other", &[]).admin());
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let mut signing = Signing::new(app, "POST", &app.path("/events"), b"{}");
    signing.set("auth_timestamp", &((unix_now() + 900) * 1_000).to_string());
    http::ask(server.address, "POST", &signing.target(), &[], b"{}").expect(401);
    let id = refusal_id(&server, REFUSED, "stale_timestamp");
    let answer = explain(&admin, &json!({"app_id": app.id, "refusal_id": id}));
    assert_eq!(answer["cause"], "timestamp_in_ms");
    assert_eq!(explain(&admin, &json!({"refusal_id": id})), answer);
    let other = server.named_app("other");
    for (app, id) in [(other.id.as_str(), id.as_str()), (app.id.as_str(), &format!("ref_{}", "0".repeat(32)))] {
        admin.ask("POST", "/explain", Some(&json!({"app_id": app, "refusal_id": id}))).expect(404);
    }
    // Without a signature there is only the reason.
    http::ask(server.address, "POST", &app.path("/events"), &[], b"{}").expect(401);
    let answer = explain(&admin, &json!({"refusal_id": refusal_id(&server, REFUSED, "missing")}));
    assert_eq!(answer["cause"], "missing_credential");
    // An app that is gone leaves only the reason, too.
    admin.ask("DELETE", &format!("/apps/{}", app.id), None).expect(200);
    let answer = eventually("the app is gone", || {
        let answer = explain(&admin, &json!({"refusal_id": id}));
        (answer["cause"] != "timestamp_in_ms").then_some(answer)
    });
    assert_eq!((&answer["cause"], &answer["signed_string"]), (&json!("clock_skew"), &json!(null)));
}

/// R-EXPLAIN-5, R-ADMIN-19: `relay explain` says the same on the store and with `--server`; a refusal of the log needs
/// the server.
#[test]
fn the_command_line_asks_the_server() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let run = |place: &[&str], arguments: &[&str]| {
        let mut command = cli::command(cli::binary());
        command.env("RELAY_ADMIN_TOKEN", &admin.token).arg("explain").args(arguments).args(place);
        let output = command.output().expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (text(output.stdout), text(output.stderr), output.status.code())
    };
    let (url, data) = (format!("http://{}", admin.address), server.data.to_str().expect("text"));
    let (local, remote) = (["--data", data], ["--server", &*url]);
    let question = reversed(app);
    let auth = question["auth"].as_str().expect("text");
    let fields = ["--socket-id", "1.2", "--channel", "private-a", "--auth", auth];
    for arguments in [&fields[..], &[&fields[..], &["--json"]].concat(), &["--socket-id", "1", "--auth", ""]] {
        let (here, there) = (run(&local, arguments), run(&remote, arguments));
        assert_eq!(here, there);
        assert!(here.0.contains("reversed_order") || here.2 == Some(2), "{here:?}");
    }
    http::ask(server.address, "POST", &app.path("/events"), &[], b"{}").expect(401);
    let id = refusal_id(&server, REFUSED, "missing");
    let (shown, _, code) = run(&remote, &["--refusal", &id]);
    assert!(code == Some(0) && shown.contains("cause    missing_credential"), "{shown}");
    let (_, told, code) = run(&local, &["--refusal", &id]);
    assert!(code == Some(2) && told.contains(&format!("add --server {url}")), "{told}");
}

/// R-EXPLAIN-1, R-EXPLAIN-7, T54: bad questions name the field; a credential has a minute's calls, and others are not
/// slowed down by it.
#[test]
fn bad_questions_and_too_many() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let question = reversed(app);
    let with = |name: &str, value: Value| {
        let mut question = question.clone();
        question[name] = value;
        question
    };
    for (question, status, part) in [
        (json!({}), 400, "socket_id, channel, auth"),
        (with("socket_id", json!("1")), 400, "socket_id must be"),
        (with("chanel", json!("a")), 400, "chanel"),
        (with("auth", json!(7)), 400, "auth takes a text"),
        (with("auth", json!("x".repeat(65_537))), 400, "auth takes a text of 0 to 65536 bytes"),
        (with("app_id", json!("none")), 404, "none"),
        (json!({"refusal_id": "ref_1"}), 400, "refusal_id must be"),
        (json!({"method": "POST", "path": "/x", "body": "x".repeat(1_048_577)}), 400, "body takes"),
        (json!({"method": "POST", "path": "/x", "body_base64": "?"}), 400, "body_base64 must be"),
        (json!({"method": "POST", "path": "/x", "body": "x".repeat(4 * 1_048_576)}), 413, "4194304 bytes"),
    ] {
        let response = admin.ask("POST", "/explain", Some(&question)).expect(status);
        assert!(response.text().contains(part), "{part}: {}", response.text());
    }
    let busy = Admin::of(&server, &["--name", "busy"]);
    let statuses: Vec<u16> = (0..80).map(|_| busy.ask("POST", "/explain", Some(&question)).status).collect();
    let allowed = statuses.iter().filter(|status| **status == 200).count();
    assert!((60..80).contains(&allowed), "{statuses:?}");
    let refused = busy.ask("POST", "/explain", Some(&question)).expect(429);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds == "1"), "{refused:?}");
    explain(&admin, &question);
}
