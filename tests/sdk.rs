//! The SDKs that customers use, unchanged but for host and port, against a real server with two shards: pusher-js and
//! laravel-echo as clients, the Pusher server SDKs for Node and Python. The scripts are in `tests/sdk`; the packages
//! are pinned there and installed below `target/` by the first test that needs them.

// A test reads the clock, starts processes and may fail at any line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod common;

use std::time::Duration;

use common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use common::server::{Driver, ServerOptions, TestServer};
use common::tools::{Script, node_project, python};
use serde_json::Value;

fn options(driver: Driver) -> ServerOptions {
    ServerOptions::new(driver).shards(2)
}

/// P-SDK-1 to P-SDK-16, P-AUTH-7, P-CEV-2, P-PRES-2: pusher-js subscribes to public, private and presence channels through a customer's auth
/// endpoint; the Node server SDK publishes by `trigger`, to many channels, by `triggerBatch`, without one socket, with
/// `info`; everyone gets every event once and in order.
#[test]
fn pusher_js_and_the_node_sdk() {
    on_fresh_servers(options, |server| Script::node("channels.mjs").app(&server, server.app()).run());
}

/// P-CFG-2, P-CFG-8, P-CFG-9, P-LIM-1: laravel-echo with the broadcasters `pusher` and `reverb`.
#[test]
fn laravel_echo() {
    on_fresh_servers(options, |server| Script::node("echo.mjs").app(&server, server.app()).run());
}

/// P-SUB-4, P-CLOSE-1: pusher-js comes back by itself after the server was killed and after it was drained, with all its
/// subscriptions.
#[test]
fn pusher_js_reconnects() {
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
        script.finish();
    });
}

/// P-SDK-15, P-SDK-18, P-SDK-19, P-HTTP-1, P-HTTP-2: the Python SDK publishes; six pusher-js clients get what it sent, once and in order, the excluded one all but
/// what it was excluded from.
#[test]
fn python_sdk() {
    on_fresh_servers(options, |server: TestServer| {
        let channels = ["news", "private-orders", "presence-room"];
        let interpreter = python();
        let mut collector = Script::node("collect.mjs").arguments(&channels).app(&server, server.app()).start();
        let subscribed = collector.line_after("subscribed ");
        let mut arguments = channels.to_vec();
        arguments.push(&subscribed);
        let publisher = Script::python(&interpreter, "publish.py").arguments(&arguments);
        let mut publisher = publisher.app(&server, server.app()).start();
        let wanted: Value = serde_json::from_str(&publisher.next_line()).unwrap();
        for client in 0..6 {
            let got: Value = serde_json::from_str(&collector.next_line()).unwrap();
            let mut wanted = wanted.clone();
            if client > 0 {
                for channel in channels {
                    wanted[channel].as_array_mut().unwrap().push(serde_json::json!(["others", {}]));
                }
            }
            assert_eq!(got, wanted, "client {client}");
        }
        collector.finish();
        publisher.end();
    });
}

/// P-USER-1 to P-USER-6, P-WATCH-1, P-SDK-25, P-AUTH-3, P-AUTH-4, P-HTTP-6, P-HTTP-10: pusher-js signs in, hears what the server SDKs send to its
/// user, joins presence channels as that user, is told who of its watchlist comes and goes, and stays away once the
/// Node SDK, or the Python SDK by its short path, has ended its user.
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

/// P-ENC-1 to P-ENC-3: what the Node SDK encrypts, pusher-js with encryption decrypts, live and from the cache; a client without the secret
/// sees the ciphertext alone.
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
