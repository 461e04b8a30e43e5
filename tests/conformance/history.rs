//! History and resume over TCP (R-HIST rules).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::common::cli::{create_token, set_app};
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing};
use crate::common::socket::{QUERY, Socket};
use crate::common::{eventually, http, unique};
use crate::stage::{on_each_driver, with_shards};

/// A connection that wants ids.
fn open(server: &TestServer, app: &App) -> Socket {
    let mut socket = Socket::upgrade(server, app, &format!("/app/{}{QUERY}&event_ids=true", app.key));
    socket.established();
    socket
}

/// Sends a subscribe with further members.
fn send_subscribe(socket: &mut Socket, channel: &str, more: &Value) {
    let channel_data = channel.starts_with("presence-").then(|| json!({"user_id": unique("user")}).to_string());
    let mut data = socket.subscribe_data(channel, channel_data.as_deref());
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
}

/// Subscribes, with success; returns the position.
#[track_caller]
fn subscribe(socket: &mut Socket, channel: &str, more: &Value) -> String {
    send_subscribe(socket, channel, more);
    let frame = socket.expect_event("pusher_internal:subscription_succeeded");
    let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
    data["position"].as_str().unwrap_or_else(|| panic!("a position in {frame}")).to_owned()
}

/// The next frame, which must be an event with this data; returns its id.
#[track_caller]
fn expect_event(socket: &mut Socket, channel: &str, data: &str) -> String {
    let frame = socket.next_json();
    let id = frame["id"].as_str().unwrap_or_else(|| panic!("an id in {frame}")).to_owned();
    assert_eq!(frame, json!({"event": "e", "channel": channel, "data": data, "id": id}));
    id
}

/// The next frame, which must be a gap; returns its data.
#[track_caller]
fn expect_gap(socket: &mut Socket, channel: &str) -> Value {
    let frame = socket.expect_event("pusher:history_gap");
    assert_eq!(frame["channel"], channel);
    serde_json::from_str(frame["data"].as_str().unwrap()).unwrap()
}

fn get(server: &TestServer, path: &str, query: &[(&str, &str)]) -> http::Response {
    let mut signing = Signing::new(server.app(), "GET", &server.app().path(path), b"");
    for (name, value) in query {
        signing.set(name, value);
    }
    http::get(server.address, &signing.target())
}

fn position(server: &TestServer, channel: &str) -> String {
    let answer = get(server, &format!("/channels/{channel}"), &[("info", "position")]).expect(200).json();
    answer["position"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Ends a connection without a Close frame.
fn cut(socket: Socket) {
    drop(socket.into_raw());
}

/// R-HIST-6, R-HIST-8, R-HIST-9: ids and positions for a connection that asks for them, on every kind of channel;
/// beside it a connection that does not gets the bytes of Pusher, whatever its subscribe contains.
#[test]
fn ids_are_opt_in() {
    with_shards(|server| {
        for channel in ["a", "private-a", "private-encrypted-a", "presence-a", "cache-a"] {
            let mut plain = Socket::open(server, server.app());
            send_subscribe(&mut plain, channel, &json!({"last_event_id": "evt_x", "on_gap": "fail"}));
            let succeeded = plain.next_text();
            assert!(!succeeded.contains("position"), "{succeeded}");
            if channel == "cache-a" {
                plain.expect_event("pusher:cache_miss");
            }
            let before = position(server, channel);
            let mut socket = open(server, server.app());
            assert_eq!(subscribe(&mut socket, channel, &json!({})), before);
            if channel == "cache-a" {
                socket.expect_event("pusher:cache_miss");
            }
            if channel == "presence-a" {
                plain.expect_event("pusher_internal:member_added");
            }
            server.publish(server.app(), channel, "e", "x");
            let text = plain.next_text();
            assert_eq!(text, format!(r#"{{"event":"e","channel":"{channel}","data":"x"}}"#));
            let id = position(server, channel);
            let with_id = socket.next_text();
            assert_eq!(with_id, format!("{},\"id\":\"{id}\"}}", text.strip_suffix('}').unwrap()));
            assert!(id.starts_with("evt_") && id.len() == 28, "R-HIST-2: {id}");
            plain.expect_quiet();
            socket.expect_quiet();
        }
        // Client events have none.
        let mut sender = open(server, server.app());
        subscribe(&mut sender, "private-a", &json!({}));
        let mut socket = open(server, server.app());
        let before = subscribe(&mut socket, "private-a", &json!({}));
        sender.send_json(&json!({"event": "client-a", "channel": "private-a", "data": {}}));
        assert_eq!(socket.expect_event("client-a").get("id"), None);
        assert_eq!(position(server, "private-a"), before);
    });
}

/// R-HIST-7, R-HIST-13, R-HIST-14, P-SUB-1: after a lost connection the missed events follow `succeeded`, in order and
/// once, then live ones; on cache channels nothing else; without a subscriber meanwhile, too.
#[test]
fn missed_events_follow() {
    with_shards(|server| {
        for channel in ["b", "private-b", "private-encrypted-b", "presence-b", "cache-b"] {
            let mut socket = open(server, server.app());
            let mut last = subscribe(&mut socket, channel, &json!({}));
            if channel == "cache-b" {
                socket.expect_event("pusher:cache_miss");
            }
            for round in 0..3 {
                server.publish(server.app(), channel, "e", &format!("{round} live"));
                last = expect_event(&mut socket, channel, &format!("{round} live"));
                cut(socket);
                for number in 0..5 {
                    server.publish(server.app(), channel, "e", &format!("{round} {number}"));
                }
                let listed = get(server, "/channels", &[]).expect(200).json();
                eventually("the channel is empty", || {
                    let answer = get(server, &format!("/channels/{channel}"), &[]).expect(200).json();
                    (answer["occupied"] == false).then_some(())
                });
                assert!(listed["channels"].is_object());
                socket = open(server, server.app());
                subscribe(&mut socket, channel, &json!({"last_event_id": last, "on_gap": "fail"}));
                for number in 0..5 {
                    last = expect_event(&mut socket, channel, &format!("{round} {number}"));
                }
                socket.expect_quiet();
            }
            assert_eq!(last, position(server, channel));
        }
        eventually("R-HIST-14: a history does not list its channel, whose last subscriber is gone", || {
            let listed = get(server, "/channels", &[("filter_by_prefix", "cache-")]).expect(200).json();
            (listed == json!({"channels": {}})).then_some(())
        });
    });
}

/// R-HIST-4, R-HIST-10, R-HIST-11: a position that is too old, ahead, of another epoch, or no position at all is a gap,
/// before the events that are kept; with `on_gap` `fail` a refusal, after which the channel can be subscribed.
#[test]
fn gaps_are_reported() {
    let options = |driver| ServerOptions {
        apps: vec![("main", vec!["history_events=2"]), ("other", vec![])],
        ..ServerOptions::new(driver).shards(2)
    };
    on_fresh_servers(options, |server| {
        let start = position(&server, "c");
        for data in ["0", "1", "2"] {
            server.publish(server.app(), "c", "e", data);
        }
        let other = server.named_app("other");
        server.publish(other, "c", "e", "x");
        let mut socket = open(&server, other);
        let of_other = subscribe(&mut socket, "c", &json!({}));
        for (after, reason) in [
            (json!(start), "expired"),
            (json!(of_other), "epoch"),
            (json!("evt_AAAAAAAAAAAA_wAAAAAAAAAB"), "epoch"),
            (json!(&start[..27]), "unreadable"),
            (json!("17"), "unreadable"),
            (json!(17), "unreadable"),
            (json!({"id": start}), "unreadable"),
        ] {
            let mut socket = open(&server, server.app());
            subscribe(&mut socket, "c", &json!({"last_event_id": after}));
            let gap = expect_gap(&mut socket, "c");
            assert_eq!(gap["reason"], reason, "{after}");
            assert_eq!(gap["after"].is_string(), reason != "unreadable", "{gap}");
            for data in ["1", "2"] {
                expect_event(&mut socket, "c", data);
            }
            socket.expect_quiet();
            let mut socket = open(&server, server.app());
            send_subscribe(&mut socket, "c", &json!({"last_event_id": after, "on_gap": "fail"}));
            assert!(socket.expect_error(None).contains("last_event_id"));
            let refusal = socket.expect_event("pusher:subscription_error");
            assert_eq!((&refusal["data"]["type"], &refusal["data"]["status"]), (&json!("HistoryGap"), &json!(410)));
            subscribe(&mut socket, "c", &json!({"on_gap": "fail"}));
            socket.expect_quiet();
        }
        for on_gap in [json!("Fail"), json!(1), json!("tail ")] {
            let mut socket = open(&server, server.app());
            send_subscribe(&mut socket, "c", &json!({"on_gap": on_gap}));
            assert!(socket.expect_error(None).contains("on_gap must be tail or fail"));
            assert_eq!(socket.expect_event("pusher:subscription_error")["data"]["status"], 400);
        }
        // H6: another start of the server is another epoch.
        let last = position(&server, "c");
        let server = server.restart(&[]);
        server.publish(server.app(), "c", "e", "new");
        let mut socket = open(&server, server.app());
        subscribe(&mut socket, "c", &json!({"last_event_id": last}));
        assert_eq!(expect_gap(&mut socket, "c")["reason"], "epoch");
        expect_event(&mut socket, "c", "new");
        socket.expect_quiet();
    });
}

/// T57, R-HIST-14: a good id grants nothing: a wrong signature is refused as always.
#[test]
fn an_id_is_no_right() {
    on_each_driver(|server| {
        let channel = unique("private-c");
        server.publish(server.app(), &channel, "e", "secret");
        let mut socket = open(server, server.app());
        for auth in [json!("key:00"), Value::Null] {
            let data = json!({"channel": channel, "auth": auth, "last_event_id": "evt_"});
            socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
            if auth.is_null() {
                socket.expect_event("auth_required");
            }
            socket.expect_error(Some(4009));
            socket.expect_event("pusher:subscription_error");
        }
        socket.expect_quiet();
        // Another app's channel of this name is another channel.
        let mut socket = open(server, server.named_app("other"));
        subscribe(&mut socket, &channel, &json!({"last_event_id": position(server, &channel)}));
        assert_eq!(expect_gap(&mut socket, &channel)["reason"], "epoch");
        socket.expect_quiet();
    });
}

/// R-HIST-5, R-HIST-8: pages of a history; positions of unknown channels; what is refused, with the reason.
#[test]
fn histories_are_read() {
    with_shards(|server| {
        let start = position(server, "d");
        let unknown = get(server, "/channels/d", &[("info", "position,subscription_count")]).expect(200).json();
        assert_eq!(unknown, json!({"occupied": false, "position": start, "subscription_count": 0}));
        let path = "/channels/d/history";
        assert_eq!(get(server, path, &[]).expect(200).json(), json!({"events": [], "gap": null, "position": start}));
        for number in 0..120 {
            server.publish(server.app(), "d", "e", &format!("\"{number}\""));
        }
        let answer = get(server, path, &[("after", &start), ("limit", "3")]).expect(200).json();
        assert_eq!((&answer["gap"]["after"], &answer["gap"]["reason"]), (&json!(start), &json!("expired")));
        let (mut read, mut after) = (Vec::new(), String::new());
        loop {
            let answer = get(server, path, &[("after", &after), ("limit", "30")]).expect(200).json();
            assert_eq!(answer["gap"], Value::Null);
            let events = answer["events"].as_array().unwrap();
            read.extend(events.iter().map(|event| event["data"].as_str().unwrap().to_owned()));
            after = answer["position"].as_str().unwrap().to_owned();
            if events.is_empty() {
                break;
            }
            assert_eq!(
                (events[0]["event"].as_str(), events[events.len() - 1]["id"].as_str()),
                (Some("e"), Some(&*after))
            );
        }
        assert_eq!(read, (20..120).map(|number| format!("\"{number}\"")).collect::<Vec<_>>());
        for (path, query) in
            [(path, [("limit", "101")]), (path, [("limit", "0")]), ("/channels/no-history-d/history", [("limit", "1")])]
        {
            let refused = get(server, path, &query).expect(400);
            assert!(refused.text().contains("limit") || refused.text().contains("no-history-"), "{}", refused.text());
        }
        assert_eq!(get(server, path, &[("after", "17")]).expect(200).json()["gap"]["reason"], "unreadable");
        let token = |scopes: &str| create_token(&server.data, server.app(), &["--scopes", scopes]).token;
        let read = |token: &str| {
            let headers = [("Authorization", &*format!("Bearer {token}"))];
            http::ask(server.address, "GET", &server.app().relay_path(path), &headers, b"").status
        };
        let (good, bad) = (token("channels:read"), token("events:publish"));
        eventually("both tokens are known", || {
            let (good, bad) = (read(&good), read(&bad));
            assert_ne!(bad, 200);
            ((good, bad) == (200, 403)).then_some(())
        });
        http::get(server.address, &server.app().path(path)).expect(401);
    });
}

/// R-HIST-1, R-HIST-9, R-CHAN-4: no-history channels and apps without history have none; switching it on starts one.
#[test]
fn history_can_be_off() {
    let options =
        |driver| ServerOptions { apps: vec![("main", vec!["history_events=0"])], ..ServerOptions::new(driver) };
    on_fresh_servers_at_once(options, |server| {
        for channel in ["e", "no-history-e"] {
            let mut socket = open(&server, server.app());
            socket.subscribe(channel);
            server.publish(server.app(), channel, "e", "x");
            socket.expect_data("e", channel, "x");
            let answer = get(&server, &format!("/channels/{channel}"), &[("info", "position")]).expect(200).json();
            assert_eq!(answer["position"], Value::Null);
        }
        set_app(&server.data, server.app(), &["history_events=10"]);
        eventually("history is on", || {
            let answer = get(&server, "/channels/e", &[("info", "position")]).expect(200).json();
            answer["position"].is_string().then_some(())
        });
        let start = position(&server, "e");
        server.publish(server.app(), "e", "e", "y");
        let mut socket = open(&server, server.app());
        subscribe(&mut socket, "e", &json!({"last_event_id": start}));
        expect_event(&mut socket, "e", "y");
        socket.expect_quiet();
        let mut socket = open(&server, server.app());
        socket.subscribe("no-history-e");
    });
}

/// R-HIST-12: a reader with a tail of megabytes gets all of it in order, with live events only after it, though more than its
/// outbox holds is due; it is not closed as a slow reader.
#[test]
fn a_long_tail_arrives_in_order() {
    let options = |driver| ServerOptions {
        apps: vec![("main", vec!["history_events=2000"])],
        ..ServerOptions::new(driver).shards(2)
    };
    on_fresh_servers_at_once(options, |server| {
        let data = |number: u32| format!("{number} {}", "x".repeat(9_000));
        let start = position(&server, "f");
        for number in 0..500 {
            server.publish(server.app(), "f", "e", &data(number));
        }
        let mut socket = open(&server, server.app());
        send_subscribe(&mut socket, "f", &json!({"last_event_id": start}));
        eventually("it is a subscriber", || {
            let answer = get(&server, "/channels/f", &[]).expect(200).json();
            (answer["occupied"] == true).then_some(())
        });
        for number in 500..600 {
            server.publish(server.app(), "f", "e", &data(number));
        }
        socket.expect_event("pusher_internal:subscription_succeeded");
        for number in 0..600 {
            expect_event(&mut socket, "f", &data(number));
        }
        socket.expect_quiet();
    });
}

/// R-HIST-7, R-HIST-11, H5: nothing is lost and nothing comes twice. Method: events on several channels are published
/// without a pause, while readers lose their connections again and again and resume; each checks its own chains.
#[test]
fn readers_that_lose_their_connections_lose_nothing() {
    const CHANNELS: usize = 5;
    const EVENTS: u32 = 400;
    let options = |shards| {
        move |driver| ServerOptions {
            apps: vec![("main", vec!["history_events=1000"])],
            ..ServerOptions::new(driver).shards(shards)
        }
    };
    let scenario = |server: &TestServer| {
        let channels: Vec<String> = (0..CHANNELS).map(|number| format!("g{number}")).collect();
        let starts: BTreeMap<&str, String> =
            channels.iter().map(|channel| (&**channel, position(server, channel))).collect();
        let done = AtomicBool::new(false);
        let read = |seed: usize| {
            let mut last = starts.clone();
            let mut next: BTreeMap<&str, u32> = channels.iter().map(|channel| (&**channel, 0)).collect();
            let mut connections = 0_usize;
            while next.values().any(|next| *next < EVENTS) {
                connections += 1;
                let mut socket = open(server, server.app());
                for channel in &channels {
                    send_subscribe(&mut socket, channel, &json!({"last_event_id": last[&**channel], "on_gap": "fail"}));
                }
                // A different number of frames each time, until the publisher is done.
                let frames = (connections * 37 + seed * 11) % 97 + 1;
                for at in 0.. {
                    if next.values().all(|next| *next == EVENTS) || (at == frames && !done.load(Ordering::Relaxed)) {
                        break;
                    }
                    let frame = socket.next_json();
                    if frame["event"] == "pusher_internal:subscription_succeeded" {
                        continue;
                    }
                    assert_eq!(frame["event"], "e", "{frame}");
                    let channel = frame["channel"].as_str().unwrap();
                    let (channel, expected) = next.get_key_value(channel).map(|(name, next)| (*name, *next)).unwrap();
                    assert_eq!(frame["data"], expected.to_string(), "on {channel}");
                    next.insert(channel, expected + 1);
                    last.insert(channel, frame["id"].as_str().unwrap().to_owned());
                }
                cut(socket);
            }
            assert!(connections > 3, "{connections} connections");
        };
        thread::scope(|scope| {
            for seed in 0..6 {
                scope.spawn(move || read(seed));
            }
            for number in 0..EVENTS {
                let batch: Vec<Value> = channels
                    .iter()
                    .map(|channel| json!({"name": "e", "channel": channel, "data": number.to_string()}))
                    .collect();
                let body = json!({ "batch": batch }).to_string();
                server.post_signed(server.app(), &server.app().path("/batch_events"), body.as_bytes()).expect(200);
            }
            done.store(true, Ordering::Relaxed);
        });
    };
    for shards in [1, 3] {
        on_fresh_servers(options(shards), |server| scenario(&server));
    }
}
