//! The server SDKs: each publishes, queries, signs and is refused; pusher-js clients and a `tungstenite` WebSocket
//! check the results.

use serde_json::{Value, json};

use super::options;
use super::table::assert_shown;
use crate::common::rig::on_fresh_servers;
use crate::common::socket::Socket;
use crate::common::tools::{Script, python};

/// P-SDK-15, P-SDK-19, P-HTTP-1 to P-HTTP-5, P-ENC-1: the SDK for Node.
#[test]
fn node_server_sdk() {
    server_sdk("node_server_sdk", || Script::node("server_sdk.mjs").arguments(&["pusher", "pusher (Node)"]));
}

/// P-SDK-15, P-SDK-19, P-HTTP-1 to P-HTTP-5, P-ENC-1: the SDK for edge runtimes, whose requests are made by `fetch`.
#[test]
fn edge_server_sdk() {
    let names = ["pusher-http-edge", "pusher-http-edge"];
    server_sdk("edge_server_sdk", || Script::node("server_sdk.mjs").arguments(&names));
}

/// P-SDK-15, P-SDK-18, P-SDK-19, P-HTTP-1 to P-HTTP-5, P-ENC-1: the SDK for Python.
#[test]
fn python_server_sdk() {
    let interpreter = python();
    server_sdk("python_server_sdk", || Script::python(&interpreter, "server_sdk.py"));
}

const USER_CHANNEL: &str = "#server-to-user-signed";

const CHANNELS: [&str; 4] = ["news", "private-orders", "presence-room", "private-encrypted-vault"];

/// P-AUTH-1, P-AUTH-2: six pusher-js clients get the events that the SDK publishes, once and in order, the excluded one
/// all but those it was excluded from; the SDK's signatures are valid for an independent socket.
fn server_sdk(test: &'static str, script: impl Fn() -> Script) {
    on_fresh_servers(options, |server| {
        let mut collector = Script::node("collect.mjs").arguments(&CHANNELS).app(&server, server.app()).start();
        let excluded = collector.line_after("subscribed ");
        let mut socket = Socket::open(&server, server.app());
        let sdk = script().arguments(&CHANNELS).arguments(&[&excluded, &socket.socket_id]);
        let mut sdk = sdk.app(&server, server.app()).start();

        let signed: Value = serde_json::from_str(&sdk.next_line()).unwrap();
        for (channel, answer) in signed.as_object().unwrap() {
            if channel == "user" {
                // P-AUTH-4, P-USER-4: the socket signs in, and subscribes to its user's channel.
                socket.send_json(&json!({"event": "pusher:signin", "data": answer}));
                socket.expect_event("pusher:signin_success");
                socket.send_json(&json!({"event": "pusher:subscribe", "data": {"channel": USER_CHANNEL, "auth": ""}}));
                assert_eq!(socket.expect_event("pusher_internal:subscription_succeeded")["channel"], USER_CHANNEL);
                continue;
            }
            let mut data = answer.clone();
            data["channel"] = json!(channel);
            socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
            let told = socket.expect_event("pusher_internal:subscription_succeeded");
            assert_eq!(told["channel"], json!(channel));
        }
        socket.subscribe("ready");

        let wanted: Value = serde_json::from_str(&sdk.next_line()).unwrap();
        for client in 0..6 {
            let got: Value = serde_json::from_str(&collector.next_line()).unwrap();
            let mut wanted = wanted.clone();
            if client > 0 {
                for channel in &CHANNELS[..3] {
                    // The event without the excluded socket comes after the batch.
                    let events = wanted[channel].as_array_mut().unwrap();
                    let batch = events.iter().position(|event| event[0] == "batch").unwrap();
                    events.insert(batch + 1, json!(["others", {}]));
                }
            }
            assert_eq!(got, wanted, "client {client}");
        }
        collector.finish();
        // P-SDK-25, P-USER-6: the event sent to the user, then the termination.
        let mail = socket.expect_event("mail");
        let data: Value = serde_json::from_str(mail["data"].as_str().unwrap()).unwrap();
        assert_eq!((&mail["channel"], data), (&json!(USER_CHANNEL), json!({"unread": 3})));
        socket.expect_fatal(4009);
        assert_shown(test, &sdk.finish_shown());
    });
}
