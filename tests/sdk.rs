//! The SDKs that customers use, unchanged except for host and port, against a real server with two shards. The observed
//! features of each are the table of docs/compatibility.md (`table`). The scripts are in `tests/sdk`; the packages are
//! pinned there and installed below `target/` by the first test that needs them.

mod configured;
mod servers;
mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::cli;
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{Driver, ServerOptions, TestServer};
use crate::common::socket::Socket;
use crate::common::tools::{RunningScript, Script, node_project, python};
use serde_json::{Value, json};
use table::assert_shown;

fn options(driver: Driver) -> ServerOptions {
    ServerOptions::new(driver).shards(2)
}

/// P-SDK-1 to P-SDK-16, P-AUTH-7, P-CEV-2, P-PRES-2: pusher-js subscribes to public, private and presence channels
/// through a customer's auth endpoint; the Node server SDK publishes by `trigger`, to many channels, by `triggerBatch`,
/// without one socket, with `info`; every subscriber gets every event once and in order.
#[test]
fn pusher_js_on_every_kind_of_channel() {
    on_fresh_servers(options, |server| {
        let shown = Script::node("channels.mjs").app(&server, server.app()).run_shown();
        assert_shown("pusher_js_on_every_kind_of_channel", &shown);
    });
}

/// P-CFG-2, P-CFG-8, P-CFG-9, P-LIM-1: laravel-echo with the broadcasters `pusher` and `reverb`.
#[test]
fn laravel_echo() {
    on_fresh_servers(options, |server| {
        let shown = Script::node("echo.mjs").app(&server, server.app()).run_shown();
        assert_shown("laravel_echo", &shown);
    });
}

/// P-ENC-1, P-ENC-2, P-CACHE-2, P-COUNT-1: pusher-js and laravel-echo decrypt data that the server SDK encrypted;
/// pusher-js gets cached events and counts.
#[test]
fn encrypted_cache_and_count() {
    let options = |driver| options(driver).app("counting", &["subscription_count=true"]);
    on_fresh_servers(options, |server| {
        let shown = Script::node("features.mjs").app(&server, server.named_app("counting")).run_shown();
        assert_shown("encrypted_cache_and_count", &shown);
    });
}

/// P-USER-1, P-USER-4, P-USER-6, P-WATCH-1, P-SDK-25: pusher-js and laravel-echo sign in; events to a user, its
/// watchlist, and its termination.
#[test]
fn signed_in_users() {
    let options = |driver| options(driver).app("watching", &["watchlist=true"]);
    on_fresh_servers(options, |server| {
        let shown = Script::node("signed_in.mjs").app(&server, server.named_app("watching")).run_shown();
        assert_shown("signed_in_users", &shown);
    });
}

/// P-SUB-4, P-CLOSE-1: pusher-js and laravel-echo reconnect by themselves after the server was killed and after it was
/// drained, with all their subscriptions.
#[test]
fn javascript_clients_reconnect() {
    on_fresh_servers_at_once(options, |server| {
        let mut script = Script::node("reconnect.mjs").app(&server, server.app()).start();
        let address = server.address.to_string();
        let same_port = ["--listen", address.as_str()];
        script.expect_line("ready");
        let mut server = server.restart(&same_port);
        script.expect_line("ready");
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(15)).code(), Some(0));
        let _server = server.restart(&same_port);
        assert_shown("javascript_clients_reconnect", &script.finish_shown());
    });
}

/// P-SUB-1, P-SUB-4, P-CEV-2, P-PRES-2: pysher, through a restart of the server.
#[test]
fn pysher_client() {
    restarted_once("pysher_client", || Script::python(&python(), "pysher_client.py"));
}

/// P-SUB-1, P-SUB-4, P-CEV-2, P-PRES-2, P-CACHE-2: asyncpusher, through a restart of the server.
#[test]
fn asyncpusher_client() {
    restarted_once("asyncpusher_client", || Script::python(&python(), "asyncpusher_client.py"));
}

/// Runs a client's script, and kills and restarts the server when it is ready for that.
fn restarted_once(test: &'static str, script: impl Fn() -> Script + Sync) {
    on_fresh_servers_at_once(options, |server| {
        let mut script: RunningScript = script().app(&server, server.app()).start();
        script.expect_line("ready");
        let address = server.address.to_string();
        let _server: TestServer = server.restart(&["--listen", &address]);
        assert_shown(test, &script.finish_shown());
    });
}

/// The document matches the table. `RELAY_UPDATE=1` writes it.
#[test]
fn the_document_is_current() {
    let command = "cargo test --test compatibility the_document";
    crate::tree::assert_current("docs/compatibility.md", &table::document(), command);
}

/// P-USER-1 to P-USER-6, P-WATCH-1, P-SDK-25, P-AUTH-3, P-AUTH-4, P-HTTP-6, P-HTTP-10: pusher-js signs in, receives the
/// events that the server SDKs send to its user, joins presence channels as that user, is notified when users of its
/// watchlist come and go, and stays away once the Node SDK, or the Python SDK by its short path, has terminated its
/// user.
#[test]
fn users() {
    on_fresh_servers(
        |driver| ServerOptions { apps: vec![("main", vec!["watchlist=true"])], ..options(driver) },
        |server: TestServer| {
            let interpreter = python();
            let mut clients = Script::node("users.mjs").app(&server, server.app()).start();
            let user = clients.line_after("ready ");
            Script::python(&interpreter, "users.py").arguments(&[&user]).app(&server, server.app()).run();
            clients.finish();
        },
    );
}

/// P-ENC-1 to P-ENC-3: pusher-js with encryption decrypts events that the Node SDK encrypts, live and from the cache; a
/// client without the secret sees only the ciphertext.
#[test]
fn encrypted_channels() {
    on_fresh_servers(options, |server| Script::node("encrypted.mjs").app(&server, server.app()).run());
}

/// The folder that the scripts run in holds the pinned versions and no others.
#[test]
fn packages_are_the_pinned_ones() {
    let directory = node_project();
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(directory.join("package.json")).unwrap()).unwrap();
    for (name, version) in manifest["dependencies"].as_object().unwrap() {
        let installed =
            std::fs::read_to_string(directory.join("node_modules").join(name).join("package.json")).unwrap();
        let installed: Value = serde_json::from_str(&installed).unwrap();
        assert_eq!(&installed["version"], version, "{name}");
    }
}

/// P-SDK-24, P-HOOK-1 to P-HOOK-3, R-HOOK-1: the webhook helpers of the Node and the Python SDK accept Relay's
/// requests, and reject them with one byte more; events come in the order in which they happened.
#[test]
fn webhook_helpers_of_the_sdks() {
    on_fresh_servers_at_once(options, |server| {
        let interpreter = python();
        let node = |package, name| Script::node("webhooks.mjs").arguments(&[package, name]);
        let scripts = [
            node("pusher", "pusher (Node)"),
            node("pusher-http-edge", "pusher-http-edge"),
            Script::python(&interpreter, "webhooks.py"),
        ];
        let mut receivers = scripts.map(|script| script.app(&server, server.app()).start());
        for receiver in &mut receivers {
            let url = format!("http://127.0.0.1:{}/", receiver.line_after("port "));
            cli::add_webhook(&server.data, server.app(), &["--url", &url, "--allow-private"]);
        }
        let server = server.restart(&[]);
        let mut socket = Socket::open(&server, server.app());
        socket.join("presence-sdk", r#"{"user_id":"zoë"}"#);
        let event = json!({"event": "client-é", "channel": "presence-sdk", "data": {"text": "\"🦀\""}});
        socket.send_json(&event);
        let socket_id = socket.socket_id.clone();
        socket.leave();
        let channel = "presence-sdk";
        let expected = [
            json!({"name": "channel_occupied", "channel": channel}),
            json!({"name": "member_added", "channel": channel, "user_id": "zoë"}),
            json!({"name": "client_event", "channel": channel, "event": "client-é", "data": r#"{"text":"\"🦀\""}"#,
                   "socket_id": socket_id, "user_id": "zoë"}),
            json!({"name": "member_removed", "channel": channel, "user_id": "zoë"}),
            json!({"name": "channel_vacated", "channel": channel}),
        ];
        let mut shown = BTreeSet::new();
        for mut receiver in receivers {
            for event in &expected {
                assert_eq!(&serde_json::from_str::<Value>(&receiver.next_line()).unwrap(), event);
            }
            shown.append(&mut receiver.take_shown());
        }
        assert_shown("webhook_helpers_of_the_sdks", &shown);
    });
}
