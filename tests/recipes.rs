//! The recipes of docs/recipes, run as written: each endpoint signs for its user alone, and pusher-js gets in with the
//! endpoint's answer, and with nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer, data_directory};
use crate::common::socket::Socket;
use crate::common::tools::{RunningScript, Script, node_project, python, say_skipped, sdk_sources};
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

fn own_file(name: &str) -> PathBuf {
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
    fs::copy(own_file("session.mjs"), project.join("session.mjs")).unwrap();
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
        fs::copy(own_file(name), place.path().join(name)).unwrap();
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
    fs::copy(own_file("session.php"), place.path().join("session.php")).unwrap();
    on_fresh_servers(ServerOptions::new, |server| {
        let (_endpoint, port) = php_serves(&place.path().join("auth.php"), &server, &[], &[]);
        lets_its_user_in(&server, port, "/pusher/auth");
    });
}

/// R-RECIPE-1, R-RECIPE-5, P-AUTH-7: `routes/channels.php` of the recipe and of another product's document decide, with a
/// stand-in for Laravel around them: an order is its owner's, a room's members see each other, everything else is refused.
#[test]
fn laravel_channels() {
    if !php_is_installed() {
        return;
    }
    let place = data_directory();
    let recipe = place.path().join("recipe.php");
    fs::write(&recipe, format!("<?php\n{}", self::recipe("laravel.md", "php"))).unwrap();
    let documented = sdk_sources().join("examples/channels.php");
    for (channels, own, others) in [
        (&recipe, ["private-order.42", "presence-room.1"], ["private-order.43", "presence-room.2"]),
        (&documented, ["private-order.42", "private-user.7"], ["private-order.43", "private-user.8"]),
    ] {
        on_fresh_servers(ServerOptions::new, |server| {
            let variables = [("CHANNELS", channels.to_str().unwrap())];
            let (_endpoint, port) = php_serves(&own_file("laravel.php"), &server, &[], &variables);
            let mut socket = Socket::open(&server, server.app());
            let ask = |socket: &Socket, channel: &str, user: &str| {
                let form = format!("socket_id={}&channel_name={channel}", socket.socket_id);
                post_with(port, "/broadcasting/auth", &form, &[("X-User", user)])
            };
            for (channel, other) in own.into_iter().zip(others) {
                let (status, body) = ask(&socket, channel, "7");
                assert_eq!(status, 200, "{channel}: {body}");
                opens_its_channel_alone(&mut socket, &serde_json::from_str(&body).unwrap(), channel, other);
                assert_eq!(ask(&socket, other, "7").0, 403, "{other}");
                assert!(channel.contains("room") || ask(&socket, channel, "8").0 == 403, "{channel} is user 7's");
            }
            assert_eq!(ask(&socket, own[0], "").0, 403, "nobody is signed in");
            assert_eq!(ask(&socket, "orders.42", "7").0, 403, "a public channel");
        });
    }
}

/// R-RECIPE-3, R-RECIPE-5, P-AUTH-7, R-PIT-1, R-PIT-5: the documented endpoint for PHP's package, with its login by PHP's own
/// sessions and a stand-in for the package's signature.
#[test]
fn documented_php_endpoint() {
    if !php_is_installed() {
        return;
    }
    let place = data_directory();
    fs::create_dir(place.path().join("vendor")).unwrap();
    fs::copy(own_file("autoload.php"), place.path().join("vendor/autoload.php")).unwrap();
    fs::copy(own_file("login.php"), place.path().join("login.php")).unwrap();
    fs::copy(sdk_sources().join("examples/php_auth.php"), place.path().join("auth.php")).unwrap();
    let sessions = format!("session.save_path={}", place.path().display());
    on_fresh_servers(ServerOptions::new, |server| {
        let (address, app) = (server.address, server.app());
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let variables = [
            ("RELAY_HOST", host.as_str()),
            ("RELAY_PORT", port.as_str()),
            ("RELAY_APP_ID", app.id.as_str()),
            ("RELAY_KEY", app.key.as_str()),
            ("RELAY_SECRET", app.secret.as_str()),
        ];
        let flags = ["-d", &sessions, "-t", place.path().to_str().unwrap()];
        let (_endpoint, port) = php_serves(Path::new(""), &server, &flags, &variables);
        let (_, session) = post_with(port, "/login.php", "", &[]);
        let cookie = format!("PHPSESSID={session}");
        let mut socket = Socket::open(&server, app);
        let ask = |socket: &Socket, channel: &str, headers: &[(&str, &str)]| {
            let form = format!("socket_id={}&channel_name={channel}", socket.socket_id);
            post_with(port, "/auth.php", &form, headers)
        };
        let (status, body) = ask(&socket, "private-user.7", &[("Cookie", &cookie)]);
        assert_eq!(status, 200, "{body}");
        opens_its_channel_alone(&mut socket, &serde_json::from_str(&body).unwrap(), "private-user.7", "private-user.8");
        assert_eq!(ask(&socket, "private-user.8", &[("Cookie", &cookie)]).0, 403);
        assert_eq!(ask(&socket, "private-user.7", &[]).0, 401);
    });
}

/// R-RECIPE-1, R-RECIPE-2, R-CLIENT-2, P-CFG-2: the snippets for browsers send the token of the moment with every request,
/// also after a reconnect, and never one of page load again. Port and endpoint are this test's.
#[test]
fn snippets_send_fresh_tokens() {
    let project = node_project();
    fs::copy(own_file("fresh_token.mjs"), project.join("fresh_token.mjs")).unwrap();
    let plain = blocks("node.md", "js").remove(1);
    let laravel = blocks("laravel.md", "js").remove(0);
    let replaced = |text: &str, part: &str, by: &str| {
        assert!(text.contains(part), "{part:?} is not in {text}");
        text.replace(part, by)
    };
    on_fresh_servers(ServerOptions::new, |server| {
        let plain = replaced(&plain, "6001", &server.address.port().to_string());
        let plain = replaced(&plain, "'/pusher/auth'", "endpoint");
        let plain = format!("import Pusher from 'pusher-js';\nglobalThis.client = {plain}");
        let laravel = replaced(&laravel, "'/broadcasting/auth'", "endpoint");
        let laravel =
            format!("import.meta.env = environment;\n{laravel}\nglobalThis.client = window.Echo.connector.pusher;\n");
        for (snippet, header, prefix) in [(plain, "Authorization", "Bearer "), (laravel, "X-CSRF-TOKEN", "")] {
            let name = common::unique(&format!("snippet.{}", std::process::id())) + ".mjs";
            fs::write(project.join(&name), snippet).unwrap();
            let arguments = [&format!("./{name}"), header, prefix];
            Script::node("fresh_token.mjs").arguments(&arguments).app(&server, server.app()).run();
            let _ = fs::remove_file(project.join(name));
        }
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
            for call in
                block.split_inclusive("})").filter(|call| call.contains("wsHost") && !call.contains("new Relay("))
            {
                snippets += 1;
                assert!(call.contains("enabledTransports: ['ws', 'wss']"), "{}: {call}", page.path);
            }
        }
    }
    assert!(snippets >= 4, "only {snippets} snippets were found");
}

/// R-PIT-1, R-PIT-2, R-PIT-3, R-PIT-4, R-PIT-5, R-PIT-6, R-PIT-8, R-PIT-9, R-PIT-10: a page for users states each
/// pitfall of what is built, in the words that a reader would search for; and `relay doctor` cites those that it finds.
#[test]
fn pitfalls_are_stated() {
    let pages = tree::sources("docs", &[".md"]);
    let doctor = tree::source("docs/doctor.md").text;
    for (rule, words, found_by_doctor) in [
        ("R-PIT-1", "empty or wrong body", true),
        ("R-PIT-2", "`socket_id:channel_name`", true),
        ("R-PIT-3", "Never sign in the browser", false),
        ("R-PIT-4", "POST with a form body", true),
        ("R-PIT-5", "authorizes every channel", true),
        ("R-PIT-6", "`no-history-private-x` is public", false),
        ("R-PIT-8", "not signed", false),
        ("R-PIT-9", "falls back to Pusher's own hosts", false),
        ("R-PIT-10", "never reconnects by itself", false),
    ] {
        let states = |text: &str| text.contains(words) && text.contains(&format!("({rule})"));
        let page = pages.iter().find(|page| !page.path.starts_with("docs/protocol/") && states(&page.text));
        assert!(page.is_some(), "no page for users says {words:?} and cites {rule}");
        assert_eq!(doctor.contains(&format!("({rule}")), found_by_doctor, "docs/doctor.md and {rule}");
    }
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
    opens_its_channel_alone(&mut socket, &serde_json::from_str(&body).unwrap(), "private-user.7", "private-user.8");
    for form in [format!("socket_id={}&channel_name=private-user.8", socket.socket_id), String::new()] {
        let refused = post(port, path, &form).0;
        assert!((400..500).contains(&refused), "{refused} for {form:?}");
    }
}

/// An endpoint's answer is valid for the channel that it was made for and no other.
fn opens_its_channel_alone(socket: &mut Socket, answer: &Value, channel: &str, other: &str) {
    for (channel, accepted) in [(other, false), (channel, true)] {
        let mut data = json!({"channel": channel, "auth": answer["auth"]});
        if let Some(channel_data) = answer.get("channel_data") {
            data["channel_data"] = channel_data.clone();
        }
        socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
        if accepted {
            assert_eq!(socket.expect_event("pusher_internal:subscription_succeeded")["channel"], channel);
        } else {
            assert!(socket.expect_error(Some(4009)).contains("Invalid signature"));
            socket.expect_event("pusher:subscription_error");
        }
    }
}

/// PHP's own server with a script for all paths, or with none for the files of a folder; returns its port.
fn php_serves(script: &Path, server: &TestServer, flags: &[&str], variables: &[(&str, &str)]) -> (RunningScript, u16) {
    let script = script.to_str().unwrap();
    let arguments = [flags, &["-S", "127.0.0.1:0", script][..if script.is_empty() { 2 } else { 3 }]].concat();
    let endpoint = with_app(Script::command("php", &arguments).variables(variables), server).start();
    // PHP prints its port on standard error.
    let port = common::eventually("PHP listens", || {
        let log = endpoint.log();
        let rest = log.split("http://127.0.0.1:").nth(1)?;
        rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<u16>().ok()
    });
    (endpoint, port)
}

/// A form of user 7.
fn post(port: u16, path: &str, form: &str) -> (u16, String) {
    post_with(port, path, form, &[("X-User", "7")])
}

/// A form. The answer ends with the connection: PHP's own server sends no length.
fn post_with(port: u16, path: &str, form: &str, more: &[(&str, &str)]) -> (u16, String) {
    let form_type = ("Content-Type", "application/x-www-form-urlencoded");
    let headers = [&[form_type, ("Connection", "close")], more].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    stream.write_all(&http::encode_request("POST", path, &headers, form.as_bytes())).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
