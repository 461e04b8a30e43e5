//! `relay doctor --auth`: the endpoint of docs/recipes/node.md, which is right, and small servers that make one mistake
//! of customers' applications each.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::thread;

use super::*;
use crate::common::sign::{App, hmac_hex};
use crate::common::tools::RunningScript;

/// One request to an endpoint.
struct Asked {
    method: String,
    /// Lines of the head, in lower case.
    head: String,
    form: String,
}

impl Asked {
    /// A value of the form, with its escapes of `.` and `-` decoded.
    fn value(&self, name: &str) -> String {
        let found = self.form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().replace("%2E", ".").replace("%2D", "-")
    }
}

/// Serves answers on a port of its own as long as the test process lives.
fn serve(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
                let lower = head.to_ascii_lowercase();
                let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                let mut form = vec![0; length.unwrap_or(0)];
                let _ = reader.read_exact(&mut form);
                let method = head.split(' ').next().unwrap_or_default().to_owned();
                let asked = Asked { method, head: lower, form: String::from_utf8_lossy(&form).into_owned() };
                let _ = reader.get_mut().write_all(answer(&asked).as_bytes());
            });
        }
    });
    format!("http://{address}/broadcasting/auth")
}

fn reply(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// The authorization of `key` for a text signed with `secret`.
fn signed(key: &str, secret: &str, text: &str) -> String {
    reply(200, "Content-Type: application/json\r\n", &format!(r#"{{"auth":"{key}:{}"}}"#, hmac_hex(secret, text)))
}

/// An endpoint that knows its user by `X-User: 7` and answers 403 to others.
fn for_user(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> String {
    serve(move |asked| if asked.head.contains("x-user: 7") { answer(asked) } else { reply(403, "", "no") })
}

const USER: [&str; 4] = ["--auth-header", "X-User: 7", "--channel", "private-user.7"];

fn relay() -> (TestServer, App) {
    let server = TestServer::start_with(ServerOptions::new(Driver::Epoll).shards(1));
    let app = server.app().clone();
    (server, app)
}

#[track_caller]
fn examine(server: &TestServer, url: &str, more: &[&str]) -> Report {
    let public = format!("http://{}", server.address);
    let (app, data) = (&server.app().id, server.data.to_str().unwrap());
    Report::of(&[&["--public", &public, "--app", app, "--data", data, "--auth", url], more].concat())
}

/// R-DIAG-3, R-RECIPE-2: the recipe for Node: a stranger is refused, the user's signature opens the channel, also on a
/// presence channel; a channel that is not the user's is named.
#[test]
fn the_recipe_is_well() {
    let (server, app) = relay();
    let (mut recipe, name) = crate::recipes::node_endpoint(&server);
    let port = recipe.line_after("port ");
    let url = format!("http://127.0.0.1:{port}/pusher/auth");
    let report = examine(&server, &url, &USER);
    report.expect_well(&["auth_login", "auth_answer", "auth_signature", "auth_cors"]);
    report.expect("auth_login", "ok", None, &["401"]);
    report.expect("auth_signature", "ok", None, &["Relay accepts it: subscribed to private-user.7"]);
    examine(&server, &url, &["--auth-header", "X-User: 7", "--channel", "presence-lobby"])
        .expect_well(&["auth_signature"]);

    // Without a user's headers the login is all that can be judged; without the secret Relay's verdict is enough.
    let report = examine(&server, &url, &[]);
    report.expect_well(&["auth_login"]);
    assert!(report.json["skipped"].to_string().contains("--auth-header"), "{:#}", report.json);
    let public = format!("http://{}", server.address);
    let report = Report::of(&[&["--public", &public, "--key", &app.key, "--auth", &url], &USER[..]].concat());
    report.expect_well(&["auth_signature"]);

    let other = ["--auth-header", "X-User: 7", "--channel", "private-user.8"];
    examine(&server, &url, &other).expect("auth_answer", "problem", None, &["403", "routes/channels.php"]);
    let not_found = url.replace("/pusher/auth", "/broadcasting/auth");
    examine(&server, &not_found, &USER).expect("auth_answer", "problem", None, &["404", "install:broadcasting"]);
    drop::<RunningScript>(recipe);
    let _ = std::fs::remove_file(name);
}

/// R-DIAG-3, R-PIT-5: an endpoint that signs for everybody.
#[test]
fn signing_for_strangers_is_a_problem() {
    let (server, app) = relay();
    let url = serve(move |asked| {
        signed(&app.key, &app.secret, &format!("{}:{}", asked.value("socket_id"), asked.value("channel_name")))
    });
    let report = examine(&server, &url, &[]);
    report.expect("auth_login", "problem", None, &["without a login", "R-PIT-5"]);
    report.expect("auth_signature", "ok", None, &[]);
    report.expect_only(&["auth_login"]);
}

/// R-DIAG-3, R-PIT-2: signatures over the wrong text, or with the wrong secret: Relay refuses them, and the mistake is
/// named where the secret is known.
#[test]
fn wrong_signatures_are_explained() {
    type Sign = fn(&App, &str, &str) -> String;
    let (server, app) = relay();
    let cases: [(Sign, &str); 5] = [
        (|app, id, channel| signed(&app.key, &app.secret, &format!("{channel}:{id}")), "reversed order"),
        (|app, _, channel| signed(&app.key, &app.secret, channel), "missing part"),
        (
            |app, id, channel| signed(&app.key, &format!("\"{}\"", app.secret), &format!("{id}:{channel}")),
            "quoted secret",
        ),
        (|app, id, channel| signed(&app.key, "another", &format!("{id}:{channel}")), "no known mistake"),
        (|app, id, channel| signed("0123456789abcdef0123", &app.secret, &format!("{id}:{channel}")), "unknown key"),
    ];
    for (sign, part) in cases {
        let app = app.clone();
        let url = for_user(move |asked| sign(&app, &asked.value("socket_id"), &asked.value("channel_name")));
        let report = examine(&server, &url, &USER);
        report.expect("auth_signature", "problem", None, &[part]);
        report.expect_only(&["auth_signature"]);
        assert!(!report.json.to_string().contains(&server.app().secret), "{:#}", report.json);
    }
    // Without the secret: Relay's own words.
    let key = app.key.clone();
    let url = for_user(move |asked| signed(&app.key, "another", &asked.value("socket_id")));
    let public = format!("http://{}", server.address);
    let report = Report::of(&[&["--public", &public, "--key", &key, "--auth", &url], &USER[..]].concat());
    report.expect("auth_signature", "problem", None, &["Relay refuses it: Invalid signature"]);
}

/// R-DIAG-3, R-PIT-1: answers that are no signature, as frameworks make them.
#[test]
fn answers_without_a_signature() {
    let (server, _) = relay();
    let html = "<!DOCTYPE html><html><title>Sign in</title></html>";
    let login = "Location: https://app.test/login\r\n";
    let cases = [
        (reply(200, "", ""), "200 with an empty body", "BROADCAST_CONNECTION"),
        (reply(200, "Content-Type: text/html\r\n", html), "a web page instead of JSON", "login page"),
        (reply(419, "Content-Type: text/html\r\n", html), "CSRF", "headersProvider"),
        (reply(302, login, ""), "302 redirects to https://app.test/login", "401 without a session"),
        (reply(404, "", ""), "404", "install:broadcasting"),
        (reply(500, "", ""), "500", "log"),
        (reply(200, "", r#"{"data":{"auth":"a:b"}}"#), "inside of `data`", "top level"),
    ];
    for (answer, part, fix) in cases {
        let url = serve(move |_| answer.clone());
        let report = examine(&server, &url, &[]);
        report.expect("auth_answer", "problem", None, &[part, fix]);
        report.expect_only(&["auth_answer"]);
    }
}

/// R-DIAG-3, R-PIT-4: the preflight and the answer for a page of another origin.
#[test]
fn pages_of_other_origins() {
    const ORIGIN: &str = "https://app.test";
    let (server, app) = relay();
    let endpoint = |preflight: &'static str, post: &'static str| {
        let app = app.clone();
        serve(move |asked| {
            if asked.method == "OPTIONS" {
                return reply(204, preflight, "");
            }
            let text = format!("{}:{}", asked.value("socket_id"), asked.value("channel_name"));
            let body = format!(r#"{{"auth":"{}:{}"}}"#, app.key, hmac_hex(&app.secret, &text));
            if asked.head.contains("x-user: 7") { reply(200, post, &body) } else { reply(403, post, "") }
        })
    };
    let allow = "Access-Control-Allow-Origin: https://app.test\r\n";
    let full = "Access-Control-Allow-Origin: https://app.test\r\nAccess-Control-Allow-Headers: X-User\r\n\
                Access-Control-Allow-Credentials: true\r\n";
    let without_credentials = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: x-user\r\n";
    let other = "Access-Control-Allow-Origin: https://other.test\r\nAccess-Control-Allow-Headers: x-user\r\n";
    let more = [&USER[..], &["--origin", ORIGIN]].concat();
    let judge = |preflight, post| examine(&server, &endpoint(preflight, post), &more);
    judge(full, allow).expect_well(&["auth_cors", "auth_signature"]);
    judge(without_credentials, allow).expect("auth_cors", "advice", None, &["no cookies", "Allow-Credentials: true"]);
    judge("", allow).expect("auth_cors", "problem", None, &["preflight: no Access-Control-Allow-Origin", ORIGIN]);
    judge(other, allow).expect(
        "auth_cors",
        "problem",
        None,
        &["preflight: Access-Control-Allow-Origin is https://other"],
    );
    judge(allow, allow).expect("auth_cors", "problem", None, &["Access-Control-Allow-Headers lacks x-user"]);
    judge(full, "").expect("auth_cors", "problem", None, &["POST: no Access-Control-Allow-Origin"]);
    // An endpoint without any CORS, as applications are by default.
    let none = for_user(|asked| reply(if asked.method == "OPTIONS" { 405 } else { 200 }, "", "{}"));
    examine(&server, &none, &more).expect("auth_cors", "problem", None, &["OPTIONS is answered 403"]);
}

/// R-DIAG-3, P-CONN-8: the page's origin is one that the app allows, or the refusal names the setting.
#[test]
fn origins_that_the_app_refuses() {
    let options = ServerOptions::new(Driver::Epoll).shards(1).app("closed", &["allowed_origins=app.test"]);
    let server = TestServer::start_with(options);
    let public = format!("http://{}", server.address);
    let key = &server.named_app("closed").key;
    let examine = |origin: &str| Report::of(&["--public", &public, "--key", key, "--origin", origin]);
    examine("https://app.test").expect("websocket", "ok", None, &["established"]);
    examine("https://evil.test").expect("websocket", "problem", Some("relay"), &["4009", "allowed_origins"]);
}

/// R-DIAG-3: an endpoint that is not there, and one with a certificate that browsers refuse.
#[test]
fn endpoints_that_cannot_be_reached() {
    let (server, _) = relay();
    let nowhere = free_address(0).expect("a free port");
    let report = examine(&server, &format!("http://{nowhere}/auth"), &USER);
    report.expect("auth_endpoint", "problem", None, &["refused", "start the application"]);
    let Some(certificate) = Certificate::new(certificates::Kind::SelfSigned) else { return };
    let listen = Some(certificate.address);
    let options = Options { certificate: Some(&certificate), listen, ..Options::default() };
    let secure = Deployment::start(Proxy::Nginx, &options);
    let report = examine(&server, &format!("https://{}/auth", secure.address), &USER);
    report.expect("auth_endpoint", "problem", None, &["self-signed"]);
}
