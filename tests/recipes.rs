//! The recipes of docs/recipes, run as written: each endpoint signs for its user alone, and pusher-js gets in with the
//! endpoint's answer, and with nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer, data_directory};
use crate::common::socket::Socket;
use crate::common::tools::{RunningScript, Script, node_project, python, say_skipped};
use crate::common::{self, http};
use crate::tree;
use serde_json::{Value, json};

/// The blocks of a recipe in this language.
fn blocks(name: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(tree::root().join("docs/recipes").join(name)).unwrap();
    let after = format!("```{language}\n");
    text.split(&after).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned() + "\n").collect()
}

/// The first block of a recipe in this language.
fn recipe(name: &str, language: &str) -> String {
    blocks(name, language).into_iter().next().unwrap_or_else(|| panic!("a block of {language} in {name}"))
}

fn own(name: &str) -> PathBuf {
    tree::root().join("tests/recipes").join(name)
}

/// R-RECIPE-2, R-RECIPE-5, P-AUTH-7: Node.
#[test]
fn node() {
    on_fresh_servers(ServerOptions::new, |server| {
        let (mut endpoint, file) = node_endpoint(&server);
        let port: u16 = endpoint.line_after("port ").parse().unwrap();
        lets_its_user_in(&server, port, "/pusher/auth");
        let _ = fs::remove_file(file);
    });
}

/// The endpoint of the recipe for Node, and its file.
pub(crate) fn node_endpoint(server: &TestServer) -> (RunningScript, PathBuf) {
    let project = node_project();
    fs::copy(own("session.mjs"), project.join("session.mjs")).unwrap();
    let name = common::unique(&format!("recipe.{}", std::process::id())) + ".mjs";
    fs::write(project.join(&name), recipe("node.md", "js")).unwrap();
    (with_app(Script::node(&name), server).start(), project.join(name))
}

/// R-RECIPE-4, R-RECIPE-5, P-AUTH-7: Python.
#[test]
fn flask() {
    let place = data_directory();
    fs::write(place.path().join("app.py"), recipe("python.md", "python")).unwrap();
    for name in ["session.py", "serve.py"] {
        fs::copy(own(name), place.path().join(name)).unwrap();
    }
    on_fresh_servers(ServerOptions::new, |server| {
        let serve = Script::command(python().to_str().unwrap(), &[place.path().join("serve.py").to_str().unwrap()]);
        let mut endpoint: RunningScript = with_app(serve, &server).start();
        let port: u16 = endpoint.line_after("port ").parse().unwrap();
        lets_its_user_in(&server, port, "/pusher/auth");
    });
}

/// R-RECIPE-3, R-RECIPE-5, P-AUTH-7: PHP without a package, under PHP's own server.
#[test]
fn php() {
    if !php_is_installed() {
        return;
    }
    let place = data_directory();
    fs::write(place.path().join("auth.php"), recipe("php.md", "php")).unwrap();
    fs::copy(own("session.php"), place.path().join("session.php")).unwrap();
    on_fresh_servers(ServerOptions::new, |server| {
        let script = place.path().join("auth.php");
        let serve = Script::command("php", &["-S", "127.0.0.1:0", script.to_str().unwrap()]);
        let endpoint = with_app(serve, &server).start();
        // PHP prints its port on standard error.
        let port = common::eventually("PHP listens", || {
            let log = endpoint.log();
            let rest = log.split("http://127.0.0.1:").nth(1)?;
            rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<u16>().ok()
        });
        lets_its_user_in(&server, port, "/pusher/auth");
    });
}

/// P-CFG-4, P-CFG-6, P-SDK-15, P-SDK-19: PHP publishes and queries with the variables of Laravel's `.env`, with values
/// that are signed raw and sent percent-encoded; a status other than 200 is an error there.
#[test]
fn php_publishes() {
    if !php_is_installed() {
        return;
    }
    let place = data_directory();
    let script = place.path().join("publish.php");
    fs::write(&script, blocks("php.md", "php").remove(1)).unwrap();
    on_fresh_servers(ServerOptions::new, |server| {
        let mut user = Socket::open(&server, server.app());
        user.subscribe("private-user.7");
        user.subscribe("orders");
        let publish = || with_laravel_environment(Script::command("php", &[script.to_str().unwrap()]), &server);
        let mut published = publish().start();
        assert_eq!(published.next_line(), r#"{"private-user.7":{"subscription_count":1}}"#);
        // The order between channels is not defined.
        let events = [(); 2].map(|()| user.expect_event("order-shipped"));
        let channels: BTreeSet<_> = events.iter().map(|event| event["channel"].as_str().unwrap()).collect();
        assert_eq!(channels, BTreeSet::from(["private-user.7", "orders"]));
        for event in &events {
            assert_eq!(event["data"], r#"{"order":42,"note":"Gr\u00fc\u00dfe"}"#);
        }
        let forger = publish().variables(&[("PUSHER_APP_SECRET", "another")]).start();
        common::eventually("PHP is told", || {
            forger.log().contains("Relay answered 401: Invalid signature").then_some(())
        });
    });
}

/// P-FALL-2: every snippet for clients in the documentation sets `enabledTransports`.
#[test]
fn client_snippets_name_their_transports() {
    let mut snippets = 0;
    // The protocols quote the options as a table.
    let pages = tree::sources("docs", &[".md"]).into_iter().filter(|page| !page.path.starts_with("docs/protocol/"));
    for page in pages.chain([tree::source("README.md")]) {
        for block in page.text.split("```").skip(1).step_by(2) {
            // `wsHost` marks a snippet as one for Relay; a guide also shows the old configuration.
            for call in block.split_inclusive("})").filter(|call| call.contains("wsHost")) {
                snippets += 1;
                assert!(call.contains("enabledTransports: ['ws', 'wss']"), "{}: {call}", page.path);
            }
        }
    }
    assert!(snippets >= 4, "only {snippets} snippets were found");
}

/// `tests/run` installs it; under a plain `cargo test` the skipped test is reported.
fn php_is_installed() -> bool {
    let installed = std::process::Command::new("php").arg("--version").output().is_ok();
    if !installed {
        say_skipped("php is not installed; the recipes for PHP were not run (Debian: apt-get install php-cli)");
    }
    installed
}

/// The variables of the `.env` in the recipe for Laravel, those for server and app with the values of this one.
fn with_laravel_environment(script: Script, server: &TestServer) -> Script {
    let file = blocks("laravel.md", "ini").remove(0);
    let lines: Vec<(&str, &str)> = file.lines().filter_map(|line| line.split_once('=')).collect();
    let read = ["APP_ID", "APP_KEY", "APP_SECRET", "HOST", "PORT", "SCHEME"].map(|name| format!("PUSHER_{name}"));
    for name in &read {
        assert!(lines.iter().any(|(variable, _)| variable == name), "{name} is not in the .env of laravel.md");
    }
    with_app(script.variables(&lines), server)
}

/// The recipes read the variables of Laravel's `.env` too.
fn with_app(script: Script, server: &TestServer) -> Script {
    let app = server.app();
    let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
    script.variables(&[
        ("PUSHER_APP_ID", &app.id),
        ("PUSHER_APP_KEY", &app.key),
        ("PUSHER_APP_SECRET", &app.secret),
        ("PUSHER_HOST", &host),
        ("PUSHER_PORT", &port),
        ("PUSHER_SCHEME", "http"),
        ("PORT", "0"),
    ])
}

/// pusher-js gets in through the endpoint; the endpoint's answer is valid for the channel that it was made for and no
/// other.
fn lets_its_user_in(server: &TestServer, port: u16, path: &str) {
    let url = format!("http://127.0.0.1:{port}{path}");
    Script::node("user_client.mjs").arguments(&[&url, "presence-lobby"]).app(server, server.app()).run();

    let mut socket = Socket::open(server, server.app());
    let form = format!("socket_id={}&channel_name=private-user.7", socket.socket_id);
    let (status, body) = post(port, path, &form);
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    for (channel, accepted) in [("private-user.8", false), ("private-user.7", true)] {
        let data = json!({"channel": channel, "auth": answer["auth"]});
        socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
        if accepted {
            assert_eq!(socket.expect_event("pusher_internal:subscription_succeeded")["channel"], channel);
        } else {
            assert!(socket.expect_error(Some(4009)).contains("Invalid signature"));
            socket.expect_event("pusher:subscription_error");
        }
    }
    for form in [format!("socket_id={}&channel_name=private-user.8", socket.socket_id), String::new()] {
        let refused = post(port, path, &form).0;
        assert!((400..500).contains(&refused), "{refused} for {form:?}");
    }
}

/// A form of user 7. The answer ends with the connection: PHP's own server sends no length.
fn post(port: u16, path: &str, form: &str) -> (u16, String) {
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-User", "7"), ("Connection", "close")];
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    stream.write_all(&http::encode_request("POST", path, &headers, form.as_bytes())).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
