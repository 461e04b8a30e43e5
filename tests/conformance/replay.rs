//! Publishing kept events again over TCP (R-REPLAY rules).

use serde_json::{Value, json};

use crate::common::cli::{create_token, set_app};
use crate::common::http::{self, HttpConnection, Response};
use crate::common::server::TestServer;
use crate::common::sign::{App, Signing};
use crate::common::socket::{QUERY, Socket};
use crate::common::{eventually, unique};
use crate::stage::with_shards;

fn replay(server: &TestServer, body: &Value) -> Response {
    server.post_signed(server.app(), &server.app().path("/replay"), body.to_string().as_bytes())
}

/// Replays, with success; returns how many events, and the missing ones.
#[track_caller]
fn replayed(server: &TestServer, body: &Value) -> (u64, Value) {
    let answer = replay(server, body).expect(200).json();
    assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
    (answer["replayed"].as_u64().unwrap(), answer["missing"].clone())
}

#[track_caller]
fn refused(server: &TestServer, body: &Value, status: u16, part: &str) {
    let answer = replay(server, body).expect(status);
    assert!(answer.text().contains(part), "{body}: {}", answer.text());
}

/// The events of a channel that are kept.
fn history(server: &TestServer, app: &App, channel: &str) -> Vec<Value> {
    let path = app.path(&format!("/channels/{}/history", channel.replace('#', "%23")));
    let answer = http::get(server.address, &Signing::new(app, "GET", &path, b"").target()).expect(200).json();
    answer["events"].as_array().unwrap().clone()
}

/// Publishes an event; returns its id.
#[track_caller]
fn publish(server: &TestServer, app: &App, channel: &str, data: &str) -> String {
    server.publish(app, channel, "e", data);
    let last = history(server, app, channel).pop().unwrap();
    assert_eq!(last["data"], data);
    last["id"].as_str().unwrap().to_owned()
}

/// A connection that wants ids.
fn open_with_ids(server: &TestServer) -> Socket {
    let app = server.app();
    let mut socket = Socket::upgrade(server, app, &format!("/app/{}{QUERY}&event_ids=true", app.key));
    socket.established();
    socket
}

fn subscribe(socket: &mut Socket, channel: &str) {
    if channel.starts_with("presence-") {
        socket.join(channel, &json!({"user_id": unique("user")}).to_string());
    } else {
        socket.send_subscribe(channel);
        socket.expect_event("pusher_internal:subscription_succeeded");
    }
}

/// R-REPLAY-1, R-BASE-1: the events of several channels are published again in the order of the ids, under both bases and
/// with each credential, as new events with new ids; to a connection without ids their bytes are those of the first
/// time. They are in the history then. An id may occur twice.
#[test]
fn kept_events_are_published_again() {
    with_shards(|server| {
        let app = server.app();
        let (private, presence) = (unique("private-"), unique("presence-"));
        let first = publish(server, app, &private, "say \"é\"\\\u{1}");
        let second = publish(server, app, &presence, "{\"a\":1}");
        let third = publish(server, app, &private, "");
        let mut plain = Socket::open(server, app);
        let mut with_ids = open_with_ids(server);
        for channel in [&private, &presence] {
            subscribe(&mut plain, channel);
            subscribe(&mut with_ids, channel);
        }
        plain.expect_event("pusher_internal:member_added");
        let body = json!({"event_ids": [third, first, first]}).to_string();
        let token = format!("Bearer {}", create_token(&server.data, app, &[]).token);
        eventually("the token is known", || {
            let path = app.path("/channels");
            (http::ask(server.address, "GET", &path, &[("Authorization", &token)], b"").status == 200).then_some(())
        });
        let callers: [(&str, &[(&str, &str)]); 3] = [
            (&app.sign("POST", &app.relay_path("/replay"), body.as_bytes()), &[]),
            (&app.path("/replay"), &[("X-Relay-Key", &app.key), ("X-Relay-Secret", &app.secret)]),
            (&app.relay_path("/replay"), &[("Authorization", &token)]),
        ];
        for (target, headers) in callers {
            let answer = http::ask(server.address, "POST", target, headers, body.as_bytes()).expect(200);
            assert_eq!(answer.text(), r#"{"replayed":3,"missing":[]}"#);
            for data in ["", "say \"é\"\\\u{1}", "say \"é\"\\\u{1}"] {
                let event = json!({"event": "e", "channel": private, "data": data});
                assert_eq!(plain.next_json(), event);
                let mut frame = with_ids.next_json();
                let id = frame.as_object_mut().unwrap().remove("id").unwrap();
                assert_eq!(frame, event);
                assert!(id != json!(first) && id != json!(third), "{id}");
            }
        }
        assert_eq!(replayed(server, &json!({"event_ids": [second]})), (1, json!([])));
        plain.expect_data("e", &presence, "{\"a\":1}");
        let kept = history(server, app, &private);
        let data: Vec<&str> = kept.iter().map(|event| event["data"].as_str().unwrap()).collect();
        let said = "say \"é\"\\\u{1}";
        assert_eq!(data, [said, "", "", said, said, "", said, said, "", said, said]);
        // What was replayed can be replayed.
        let last = kept.last().unwrap()["id"].clone();
        assert_eq!(replayed(server, &json!({"event_ids": [last]})), (1, json!([])));
        plain.expect_data("e", &private, said);
        plain.expect_quiet();
    });
}

/// R-REPLAY-1, T57: an id that is not kept is missing, in the order of the request: of another app, dropped, of the
/// future, of another epoch or a group that does not exist, of a position, of a `no-history-` channel.
#[test]
fn other_ids_are_missing() {
    with_shards(|server| {
        let (app, other) = (server.app(), server.named_app("other"));
        let (channel, foreign) = (unique("a"), publish(server, other, "a", "secret"));
        let kept = publish(server, app, &channel, "kept");
        set_app(&server.data, app, &["history_events=1"]);
        eventually("the setting is known", || {
            let old = publish(server, app, &channel, "dropped");
            publish(server, app, &channel, "kept");
            (replayed(server, &json!({"event_ids": [old]})).0 == 0).then_some(())
        });
        let newest = publish(server, app, &channel, "newest");
        let forged = |text: &str| format!("evt_{text}");
        let missing = [
            foreign,
            kept,
            forged("AAAAAAAAAAAAAAAAAAAAAAAA"),
            forged(&"_".repeat(24)),
            format!("{}-_-_", &newest[..24]),
        ];
        let mut ids: Vec<&str> = missing.iter().map(String::as_str).collect();
        ids.insert(2, &newest);
        assert_eq!(replayed(server, &json!({"event_ids": ids})), (1, json!(missing)));
        assert_eq!(replayed(server, &json!({"event_ids": missing})), (0, json!(missing)));
        let no_history = unique("no-history-");
        let after = replayed(server, &json!({"event_ids": [newest], "target_channel": no_history}));
        assert_eq!(after.0, 0, "the replay before it has dropped it");
    });
}

/// R-REPLAY-1, P-HTTP-17: with a target all events are on that channel in the order of the ids, whichever shards own their
/// channels; a later request on the connection is ordered after them.
#[test]
fn the_order_of_the_ids_is_kept() {
    with_shards(|server| {
        let app = server.app();
        let target = unique("target");
        let ids: Vec<String> =
            (0..100).map(|n| publish(server, app, &format!("source-{}", n % 37), &n.to_string())).collect();
        let order: Vec<usize> = (0..100).map(|n| n * 61 % 100).collect();
        let ids: Vec<&str> = order.iter().map(|n| ids[*n].as_str()).collect();
        let mut socket = Socket::open(server, app);
        socket.subscribe(&target);
        let body = json!({"event_ids": ids, "target_channel": target}).to_string();
        let next = json!({"name": "e", "channel": target, "data": "next"}).to_string();
        let mut connection = HttpConnection::open(server.address);
        for (path, body) in [("/replay", &body), ("/events", &next)] {
            let target = app.sign("POST", &app.path(path), body.as_bytes());
            connection.send("POST", &target, &[], body.as_bytes());
        }
        assert_eq!(connection.read().expect(200).text(), r#"{"replayed":100,"missing":[]}"#);
        assert_eq!(connection.read().expect(200).text(), "{}");
        for n in order {
            socket.expect_data("e", &target, &n.to_string());
        }
        socket.expect_data("e", &target, "next");
        socket.expect_quiet();
    });
}

/// The channels of each type, the strongest first.
const TYPES: [(&str, u8); 4] = [("presence-x", 1), ("private-x", 1), ("#server-to-user-x", 1), ("public-x", 0)];

/// R-REPLAY-2, R-TOKEN-6, T62: every pair of types of channels with every credential: a weaker target needs key and secret
/// or a signature, and `declassify`; a token needs both scopes. A refused replay publishes nothing, not even those of its
/// events that might pass.
#[test]
fn nothing_becomes_readable_by_others() {
    with_shards(|server| {
        let app = server.app();
        let token = |scopes: &str| {
            let made = create_token(&server.data, app, &["--scopes", scopes]).token;
            format!("Bearer {made}")
        };
        let tokens = ["events:publish", "channels:read", "events:publish,channels:read"].map(token);
        let full = format!("Bearer {}", create_token(&server.data, app, &[]).token);
        let ask = |headers: &[(&str, &str)], body: &Value| {
            let path = app.relay_path("/replay");
            http::ask(server.address, "POST", &path, headers, body.to_string().as_bytes())
        };
        eventually("the newest token is known", || {
            (ask(&[("Authorization", &full)], &json!({})).status == 400).then_some(())
        });
        let ids = TYPES.map(|(channel, strength)| (publish(server, app, channel, "x"), channel, strength));
        let public = &ids[3].0;
        for (id, source, strength) in &ids {
            for (target, target_strength) in TYPES {
                for declassify in [false, true] {
                    let body = json!({"event_ids": [public, id], "target_channel": target, "declassify": declassify});
                    let is_weaker = target_strength < *strength;
                    let what = format!("{source} to {target}: {body}");
                    let before = history(server, app, target).len();
                    let key = [("X-Relay-Key", &*app.key), ("X-Relay-Secret", &*app.secret)];
                    let mut passed = 0;
                    let mut expect = |answer: Response, allowed: bool| {
                        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{what}: {}", answer.text());
                        passed += usize::from(allowed);
                        if !allowed && is_weaker && !answer.text().contains("scope") {
                            assert!(answer.text().contains("event_ids[1]"), "{}", answer.text());
                        }
                    };
                    expect(replay(server, &body), !is_weaker || declassify);
                    expect(ask(&key, &body), !is_weaker || declassify);
                    expect(ask(&[("Authorization", &full)], &body), !is_weaker);
                    expect(ask(&[("Authorization", &tokens[0])], &body), false);
                    expect(ask(&[("Authorization", &tokens[1])], &body), false);
                    expect(ask(&[("Authorization", &tokens[2])], &body), !is_weaker);
                    let after = history(server, app, target).len();
                    assert!(after == (before + 2 * passed).min(100), "{what}: {before} {after}");
                }
            }
        }
        let refusal = ask(&[("Authorization", &tokens[0])], &json!({"event_ids": [public]})).expect(403).json();
        assert_eq!(refusal["message"], "This token lacks the scope channels:read.");
    });
}

/// R-REPLAY-3: events of an encrypted channel reach only a channel of their name, and others no encrypted channel,
/// whoever asks.
#[test]
fn encrypted_events_keep_their_channel() {
    with_shards(|server| {
        let app = server.app();
        let (encrypted, data) = (unique("private-encrypted-"), r#"{"nonce":"bg==","ciphertext":"Yw=="}"#);
        let (sealed, open) = (publish(server, app, &encrypted, data), publish(server, app, "private-a", "x"));
        let mut socket = Socket::open(server, app);
        socket.subscribe(&encrypted);
        for same in [json!({"event_ids": [sealed]}), json!({"event_ids": [sealed], "target_channel": encrypted})] {
            assert_eq!(replayed(server, &same), (1, json!([])));
            socket.expect_data("e", &encrypted, data);
        }
        for target in ["private-encrypted-other", "private-a", "presence-a", "public"] {
            for declassify in [true, false] {
                let body = json!({"event_ids": [sealed], "target_channel": target, "declassify": declassify});
                refused(server, &body, 400, "event_ids[0]: The event is encrypted for its own channel");
            }
        }
        let body = json!({"event_ids": [sealed, open], "target_channel": encrypted, "declassify": true});
        refused(server, &body, 400, "event_ids[1]: The event is not encrypted");
        socket.expect_quiet();
    });
}

/// R-REPLAY-1: an error names the field and what it takes; nothing is published.
#[test]
fn mistakes_name_the_field() {
    with_shards(|server| {
        let app = server.app();
        let (channel, other) = (unique("c"), &server.named_app("other").id);
        let id = publish(server, app, &channel, "x");
        let with = |name: &str, value: Value| {
            let mut body = json!({"event_ids": [id]});
            body[name] = value;
            body
        };
        for (body, status, part) in [
            (json!([]), 400, "must be a JSON object"),
            (json!({}), 400, "\"event_ids\" is missing"),
            (with("event_ids", json!(id)), 400, "event_ids takes a list of at most 100"),
            (with("event_ids", json!([])), 400, "event_ids is empty"),
            (with("event_ids", json!(vec![&id; 101])), 400, "event_ids takes a list of at most 100"),
            (with("event_ids", json!([id, 7])), 400, "event_ids[1] takes the id of an event"),
            (with("event_ids", json!([id, id, "evt_x"])), 400, "event_ids[2] takes the id of an event: evt_"),
            (with("event_ids", json!([format!("{id}=")])), 400, "event_ids[0] takes"),
            (with("target_channel", json!("a b")), 400, "target_channel: The channel name \"a b\" is invalid"),
            (with("target_channel", json!("")), 400, "target_channel takes a text of 1 to 200 bytes"),
            (with("target_channel", json!(["a"])), 400, "target_channel takes"),
            (with("declassify", json!("yes")), 400, "declassify takes true or false"),
            (with("target_app_id", json!(7)), 400, "target_app_id takes"),
            (with("target_app_id", json!(other)), 403, "target_app_id names another app"),
            (with("target_app_id", json!("none")), 403, "target_app_id names another app"),
            (with("target_chanel", json!("a")), 400, "There is no field \"target_chanel\""),
            (with("target_channel", json!("a".repeat(20_000))), 413, "at most 16384 bytes"),
        ] {
            refused(server, &body, status, part);
        }
        assert_eq!(history(server, app, &channel).len(), 1);
        // The own app, and null for whatever may be left out.
        let body = json!({"event_ids": [id], "target_channel": null, "target_app_id": app.id});
        assert_eq!(replayed(server, &body), (1, json!([])));
        let path = app.relay_path("/replay");
        http::get(server.address, &app.sign("GET", &path, b"")).expect(405);
        http::ask(server.address, "POST", &path, &[], b"{}").expect(401);
    });
}

/// R-REPLAY-1, R-LIM-2, R-LIM-3, R-LIM-5: a replay has the limits of a publish: length of data, messages of the day,
/// channels. Missing events cost nothing.
#[test]
fn the_limits_of_publishing_hold() {
    with_shards(|server| {
        let app = server.app();
        let (channel, path) = (unique("c"), app.relay_path("/replay"));
        let (short, long) = (publish(server, app, &channel, "short"), publish(server, app, &channel, &"é".repeat(20)));
        set_app(&server.data, app, &["max_event_data_bytes=39"]);
        let refusal = eventually("the setting is known", || {
            let answer = replay(server, &json!({"event_ids": [short, long]}));
            (answer.status == 413).then(|| answer.text().to_owned())
        });
        assert!(refusal.starts_with("event_ids[1]: The data content") && refusal.contains("39"), "{refusal}");
        let used = history(server, app, &channel).len();
        set_app(&server.data, app, &["max_event_data_bytes=40", "messages_per_day=4"]);
        let forged = "evt_AAAAAAAAAAAAAAAAAAAAAAAA";
        let body = json!({"event_ids": [short, forged, long]}).to_string();
        let ask = || server.post_signed(app, &path, body.as_bytes());
        let mut passed = 0;
        let refusal = eventually("the messages of the day are used up", || {
            let answer = ask();
            passed += usize::from(answer.status == 200);
            (answer.status == 429).then_some(answer)
        });
        assert!(refusal.text().contains("messages_per_day") && refusal.header("retry-after").is_some());
        assert!(passed >= 2, "missing events cost nothing: {passed}");
        assert_eq!(history(server, app, &channel).len(), (used + 2 * passed).min(100));
    });
}
