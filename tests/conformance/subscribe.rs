//! Subscribing, unsubscribing and refusals (sections 5.2 to 5.4 of the Pusher protocol, threat T1).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::http::HttpConnection;
use crate::common::server::TestServer;
use crate::common::sign::{App, hmac_hex};
use crate::common::socket::Socket;
use crate::common::unique;
use crate::stage::on_each_driver;

/// P-SUB-1, P-OUT-1, P-SDK-6, R-CHAN-1: success reads byte for byte as documented, on a public and on a private channel.
#[test]
fn success_is_byte_exact() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for channel in ["public", "private-x", "private-encrypted-x"] {
            socket.send_subscribe(channel);
            let expected =
                format!(r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{}}"}}"#);
            assert_eq!(socket.next_text(), expected);
        }
    });
}

/// P-SUB-2: a second subscribe gets an error of code null, and the subscription is kept.
#[test]
fn duplicate_subscribe_keeps_the_subscription() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for channel in [unique("duplicate"), unique("private-duplicate")] {
            socket.subscribe(&channel);
            socket.send_subscribe(&channel);
            assert_eq!(socket.expect_error(None), format!("Existing subscription to channel {channel}"));
            server.publish(server.app(), &channel, "e", "once");
            socket.expect_data("e", &channel, "once");
            socket.expect_quiet();
        }
    });
}

/// P-SUB-3: unsubscribe has no answer, also for a channel that was never subscribed; no event arrives after it, and the channel may be
/// subscribed again.
#[test]
fn unsubscribe_is_silent_and_ends_delivery() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let channel = unique("unsubscribe");
        socket.unsubscribe("never-subscribed");
        socket.expect_quiet();
        socket.subscribe(&channel);
        socket.unsubscribe(&channel);
        socket.unsubscribe(&channel);
        socket.expect_quiet();
        server.publish(server.app(), &channel, "e", "missed");
        socket.expect_quiet();
        socket.subscribe(&channel);
        server.publish(server.app(), &channel, "e", "got");
        socket.expect_data("e", &channel, "got");
    });
}

/// P-SUB-5: an event published after `succeeded` was received is never missed: 200 first subscribers of fresh channels,
/// spread over the shards by the kernel, each get the event published at that very moment.
#[test]
fn nothing_is_missed_after_succeeded() {
    on_each_driver(|server| {
        let mut sockets: Vec<Socket> = (0..8).map(|_| Socket::open(server, server.app())).collect();
        for round in 0..200 {
            let channel = unique("join");
            let count = sockets.len();
            let socket = &mut sockets[round % count];
            socket.subscribe(&channel);
            server.publish(server.app(), &channel, "e", "now");
            socket.expect_data("e", &channel, "now");
        }
    });
}

/// P-SUB-4: a burst of re-subscriptions is not rate limited: 300 subscribes at once all succeed, each once.
#[test]
fn bursts_of_subscribes_succeed() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let channels: Vec<String> = (0..300).map(|index| format!("private-burst-{index}")).collect();
        channels.iter().for_each(|channel| socket.send_subscribe(channel));
        expect_successes(&mut socket, &channels);
    });
}

/// P-AUTH-1, threat T1: a private channel opens by a signature over its name, or over its name and the `channel_data`
/// sent with it, as server libraries sign for any channel; data that was changed, or is not an object, opens nothing.
#[test]
fn private_channels_may_sign_channel_data() {
    on_each_driver(|server| {
        let app = server.app();
        let data = r#"{"user_id":"7","user_info":{"name":"A"}}"#;
        for kind in ["private-signed", "private-encrypted-signed", "private-cache-signed"] {
            let channel = unique(kind);
            let subscribe = |data: Value, signed: Option<&str>| {
                let mut socket = Socket::open(server, app);
                let auth = match signed {
                    Some(signed) => app.sign_presence(&socket.socket_id, &channel, signed),
                    None => app.sign_private(&socket.socket_id, &channel),
                };
                let data = json!({"channel": channel, "auth": auth, "channel_data": data});
                socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
                let answer = socket.next_json();
                if answer["event"] == "pusher_internal:subscription_succeeded" {
                    return None;
                }
                assert_eq!(answer["event"], "pusher:error");
                socket.expect_event("pusher:subscription_error");
                Some(answer["data"]["message"].as_str().unwrap().to_owned())
            };
            assert_eq!(subscribe(json!(data), Some(data)), None);
            assert_eq!(subscribe(json!(data), None), None);
            assert_eq!(subscribe(Value::Null, None), None);
            assert_eq!(subscribe(json!(""), None), None);
            let changed = subscribe(json!(data.replace('7', "8")), Some(data)).expect("refused");
            assert!(changed.contains(r#":{"user_id":"8","#), "{changed}");
            for text in ["b", "", "[1]", "7", "{b"] {
                let refused = subscribe(json!(text), Some(text)).expect("refused");
                assert!(refused.contains("digest of ") && refused.contains(&format!(":{channel}, but")), "{refused}");
            }
            assert!(subscribe(Value::Null, Some(data)).is_some());
        }
        let mut socket = Socket::open(server, app);
        let auth = app.sign_private(&socket.socket_id, "private-a:b");
        let data = json!({"channel": "private-a", "auth": auth, "channel_data": "b"});
        socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
        socket.expect_error(Some(4009));
        socket.expect_event("pusher:subscription_error");
    });
}

/// R-AUTHREQ-1, P-FAIL-2, P-FAIL-3, P-FAIL-6: without auth (absent, null, empty) the answer for a protected channel is
/// `auth_required`, the error and `subscription_error`, byte for byte; then R-AUTHREQ-2: a second subscribe with auth
/// succeeds.
#[test]
fn missing_auth_is_answered_in_order() {
    on_each_driver(|server| {
        for auth in ["", r#""auth":null,"#, r#""auth":"","#] {
            let mut socket = Socket::open(server, server.app());
            let id = socket.socket_id.clone();
            socket.send(&format!(r#"{{"event":"pusher:subscribe","data":{{{auth}"channel":"private-x"}}}}"#));
            let required = format!(
                r#"{{"event":"auth_required","channel":"private-x","data":"{{\"channel\":\"private-x\",\"socket_id\":\"{id}\"}}"}}"#
            );
            assert_eq!(socket.next_text(), required);
            let sentence = "Auth info required to subscribe to private-x";
            let error = format!(r#"{{"event":"pusher:error","data":{{"code":4009,"message":"{sentence}"}}}}"#);
            assert_eq!(socket.next_text(), error);
            let failed = format!(
                r#"{{"event":"pusher:subscription_error","channel":"private-x","data":{{"type":"AuthError","error":"{sentence}","status":401}}}}"#
            );
            assert_eq!(socket.next_text(), failed);
            server.publish(server.app(), "private-x", "e", "missed");
            socket.expect_quiet();
            socket.subscribe("private-x");
        }
    });
}

/// R-AUTHREQ-3: on `private-encrypted-` the `auth_required` frame is omitted; a presence channel has it.
#[test]
fn auth_required_is_left_out_on_encrypted_channels() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        socket.send(r#"{"event":"pusher:subscribe","data":{"channel":"private-encrypted-x"}}"#);
        assert_eq!(socket.expect_error(Some(4009)), "Auth info required to subscribe to private-encrypted-x");
        socket.expect_event("pusher:subscription_error");
        socket.send(r#"{"event":"pusher:subscribe","data":{"channel":"presence-x"}}"#);
        socket.expect_event("auth_required");
        socket.expect_error(Some(4009));
        socket.expect_event("pusher:subscription_error");
        socket.expect_quiet();
    });
}

/// P-FAIL-1, P-FAIL-2, P-FAIL-6, P-FAIL-7, R-AUTHREQ-2: wrong auth gets an error with the string to sign and the
/// signature received, never the right one; the socket stays open and may try again.
#[test]
fn wrong_auth_is_told_without_the_digest() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let (id, key) = (socket.socket_id.clone(), socket.app.key.clone());
        let wrong = "0".repeat(64);
        socket.send_json(&subscribe("private-x", &format!("{key}:{wrong}")));
        let message = socket.expect_error(Some(4009));
        let expected = format!("Invalid signature: Expected HMAC SHA256 hex digest of {id}:private-x, but got {wrong}");
        assert_eq!(message, expected);
        let frame = socket.expect_event("pusher:subscription_error");
        let data = json!({"type": "AuthError", "error": expected, "status": 401});
        assert_eq!(frame, json!({"event": "pusher:subscription_error", "channel": "private-x", "data": data}));
        let auth = format!("otherkey:{wrong}");
        socket.send_json(&subscribe("private-x", &auth));
        assert_eq!(socket.expect_error(Some(4009)), format!("Invalid key in subscription auth data: '{auth}'"));
        socket.expect_event("pusher:subscription_error");
        socket.expect_quiet();
        socket.subscribe("private-x");
    });
}

/// P-FAIL-1: quoted input is cut to 200 bytes, at a character.
#[test]
fn quoted_auth_is_cut() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for auth in ["x".repeat(5_000), "\u{1f980}".repeat(500), format!("{}:{}", socket.app.key, "\u{e9}".repeat(700))]
        {
            socket.send_json(&subscribe("private-x", &auth));
            let message = socket.expect_error(Some(4009));
            assert!(message.len() < 400, "{} bytes: {message}", message.len());
            socket.expect_event("pusher:subscription_error");
        }
    });
}

/// Threat T1, P-AUTH-1, P-AUTH-5: each of the 256 one-bit changes of a valid signature is refused, and so is every other spelling; none
/// of them subscribes.
#[test]
fn forged_signatures_are_refused() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let (app, id) = (socket.app.clone(), socket.socket_id.clone());
        let channel = unique("private-forged");
        let valid = hmac_hex(&app.secret, &format!("{id}:{channel}"));
        let mut digests = Vec::new();
        for bit in 0..256 {
            let mut bytes = hex::decode(&valid).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            digests.push(hex::encode(bytes));
        }
        digests.extend([
            valid[..63].to_owned(),
            valid[..62].to_owned(),
            String::new(),
            format!("{valid}0"),
            format!("{valid}00"),
        ]);
        digests.extend([valid.to_uppercase(), format!(" {valid}"), format!("0x{valid}"), format!("{}g", &valid[..63])]);
        digests.push(hmac_hex(&app.secret, &format!("{id}:{channel}x")));
        digests.push(hmac_hex(&app.secret, &format!("1.1:{channel}")));
        digests.push(hmac_hex(&app.secret, &format!("{channel}:{id}")));
        digests.push(hmac_hex("", &format!("{id}:{channel}")));
        for digest in &digests {
            refused(&mut socket, &subscribe(&channel, &format!("{}:{digest}", app.key)));
        }
        for auth in
            [valid.clone(), format!(":{valid}"), format!("{}x:{valid}", app.key), format!("{}:{valid}:", app.key)]
        {
            refused(&mut socket, &subscribe(&channel, &auth));
        }
        server.publish(&app, &channel, "e", "missed");
        socket.expect_quiet();
        socket.send_json(&subscribe(&channel, &format!("{}:{valid}", app.key)));
        socket.expect_data("pusher_internal:subscription_succeeded", &channel, "{}");
    });
}

/// Threats T1 and T3, P-AUTH-5: signatures by another app's key and secret are not accepted here, not even with this
/// app's key before the digest.
#[test]
fn signatures_of_another_app_are_refused() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let (app, other, id) = (server.app(), server.named_app("other"), socket.socket_id.clone());
        refused(&mut socket, &subscribe("private-x", &other.sign_private(&id, "private-x")));
        let mixed = format!("{}:{}", app.key, hmac_hex(&other.secret, &format!("{id}:private-x")));
        refused(&mut socket, &subscribe("private-x", &mixed));
        let mixed = format!("{}:{}", other.key, hmac_hex(&app.secret, &format!("{id}:private-x")));
        refused(&mut socket, &subscribe("private-x", &mixed));
        socket.expect_quiet();
    });
}

/// Threat T1, P-AUTH-2: presence data is signed as the exact string; altered, re-spelled or missing data is refused.
#[test]
fn altered_presence_data_is_refused() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let (channel, id) = (unique("presence-altered"), socket.socket_id.clone());
        let signed = r#"{"user_id":"1","user_info":{"name":"A"}}"#;
        let auth = socket.app.sign_presence(&id, &channel, signed);
        for sent in
            [r#"{"user_id":"2","user_info":{"name":"A"}}"#, r#"{"user_id": "1","user_info":{"name":"A"}}"#, "{}", ""]
        {
            let data = json!({"auth": auth, "channel_data": sent, "channel": channel});
            refused(&mut socket, &json!({"event": "pusher:subscribe", "data": data}));
        }
        let private = socket.app.sign_private(&id, &channel);
        let data = json!({"auth": private, "channel_data": signed, "channel": channel});
        refused(&mut socket, &json!({"event": "pusher:subscribe", "data": data}));
        let roster = socket.join(&channel, signed);
        assert_eq!(roster["count"], 1);
    });
}

/// P-AUTH-5, P-AUTH-1: after a rotation both keys sign subscriptions, each with its own secret, within 2 s.
#[test]
fn rotated_keys_sign_both() {
    on_each_driver(|server| {
        let app = server.named_app("plain");
        let data = server.data.to_str().unwrap();
        let made = crate::common::cli::run_json(&["app", "rotate", &app.id, "--data", data, "--json"]);
        let newest = made["keys"].as_array().and_then(|keys| keys.last()).unwrap_or(&made);
        let member = |name: &str| newest[name].as_str().unwrap_or_else(|| panic!("`{name}` in {made}")).to_owned();
        let rotated = App { id: app.id.clone(), key: member("key"), secret: member("secret") };
        assert_ne!(rotated.key, app.key);
        crate::common::eventually("the new key signs requests", || {
            let answer = server.post_events(&rotated, &json!({"name": "e", "channel": "c", "data": "x"}));
            (answer.status == 200).then_some(())
        });
        for (connected, signer) in [(app, &rotated), (&rotated, app)] {
            let mut socket = Socket::open(server, connected);
            socket.app = signer.clone();
            socket.subscribe("private-rotated");
            server.publish(signer, "private-rotated", "e", "x");
            socket.expect_data("e", "private-rotated", "x");
        }
    });
}

/// P-LIM-12, P-FAIL-4: the 1,000th channel of a connection is subscribed, the 1,001st is refused with `LimitReached`
/// 4100; an unsubscribe frees a place.
#[test]
fn channels_per_connection_limit() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for batch in 0..10 {
            let channels: Vec<String> = (0..100).map(|index| format!("many-{batch}-{index}")).collect();
            channels.iter().for_each(|channel| socket.send_subscribe(channel));
            expect_successes(&mut socket, &channels);
        }
        socket.send_subscribe("one-more");
        socket.expect_error(None);
        let frame = socket.expect_event("pusher:subscription_error");
        assert_eq!(frame["data"]["type"], "LimitReached", "{frame}");
        assert_eq!(frame["data"]["status"], 4100, "{frame}");
        socket.unsubscribe("many-0-0");
        socket.subscribe("one-more");
    });
}

/// Each channel succeeds once; the order between channels is not defined.
#[track_caller]
fn expect_successes(socket: &mut Socket, channels: &[String]) {
    let mut wanted: BTreeSet<&str> = channels.iter().map(String::as_str).collect();
    while !wanted.is_empty() {
        let frame = socket.expect_event("pusher_internal:subscription_succeeded");
        assert!(wanted.remove(frame["channel"].as_str().expect("a channel")), "{frame}");
    }
}

fn subscribe(channel: &str, auth: &str) -> Value {
    json!({"event": "pusher:subscribe", "data": {"auth": auth, "channel": channel}})
}

#[track_caller]
fn refused(socket: &mut Socket, message: &Value) {
    socket.send_json(message);
    let first = socket.next_json();
    // An empty signature after the key may be treated as no auth at all.
    let error = if first["event"] == "auth_required" { socket.next_json() } else { first };
    assert_eq!((&error["event"], &error["data"]["code"]), (&json!("pusher:error"), &json!(4009)), "to {message}");
    let frame = socket.expect_event("pusher:subscription_error");
    assert_eq!((&frame["data"]["type"], &frame["data"]["status"]), (&json!("AuthError"), &json!(401)), "to {message}");
}

/// Threat T3: two apps with the same channel names and 10,000 events each: every subscriber gets all events of its own app, and none
/// of the other's.
#[test]
fn apps_do_not_hear_each_other() {
    on_each_driver(|server: &TestServer| {
        let (app, other) = (server.app(), server.named_app("other"));
        let (mut ours, mut theirs) = (Socket::open(server, app), Socket::open(server, other));
        for channel in ["shared", "private-shared"] {
            ours.subscribe(channel);
            theirs.subscribe(channel);
            let mut publisher = HttpConnection::open(server.address);
            for first in (0..5_000).step_by(10) {
                for (app, socket, whose) in [(app, &mut ours, "ours"), (other, &mut theirs, "theirs")] {
                    let data = |index: usize| format!("{whose} {index}");
                    let event = |index| json!({"name": "e", "channel": channel, "data": data(index)});
                    let batch: Vec<Value> = (first..first + 10).map(event).collect();
                    let (path, body) = (app.path("/batch_events"), json!({"batch": batch}).to_string());
                    publisher.ask("POST", &app.sign("POST", &path, body.as_bytes()), &[], body.as_bytes()).expect(200);
                    (first..first + 10).for_each(|index| socket.expect_data("e", channel, &data(index)));
                }
            }
        }
        ours.expect_quiet();
        theirs.expect_quiet();
    });
}
