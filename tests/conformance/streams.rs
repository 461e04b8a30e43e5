//! Server-sent events and long polling over TCP (R-SSE, R-POLL rules).

use std::net::Shutdown;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::common::cli::{self, create_token, set_app};
use crate::common::http::HttpConnection;
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing, hmac_hex, unix_now};
use crate::common::socket::Socket;
use crate::common::stream::EventStream;
use crate::common::{eventually, eventually_within, http, unique};
use crate::stage::with_shards;

/// The path of a stream or poll that a page with the app's key may open, with further parameters.
fn by_key(app: &App, endpoint: &str, channels: &str, more: &str) -> String {
    format!("{}?channels={channels}&key={}{more}", app.relay_path(endpoint), app.key)
}

/// Headers with key and secret.
fn secret(app: &App) -> [(&str, &str); 2] {
    [("X-Relay-Key", &app.key), ("X-Relay-Secret", &app.secret)]
}

fn open(server: &TestServer, channels: &str, more: &str) -> EventStream {
    EventStream::open(server.address, &by_key(server.app(), "/sse", channels, more), &[])
}

fn open_after(server: &TestServer, channels: &str, last_event_id: &str) -> EventStream {
    let target = by_key(server.app(), "/sse", channels, "");
    EventStream::open(server.address, &target, &[("Last-Event-ID", last_event_id)])
}

/// A poll that is answered; returns its body.
#[track_caller]
fn poll(server: &TestServer, channels: &str, more: &str) -> Value {
    http::get(server.address, &by_key(server.app(), "/poll", channels, more)).expect(200).json()
}

/// The names of the channels and the data of the events in the answer to a poll.
fn polled(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let events = answer["events"].as_array().unwrap();
    events.iter().map(|event| (text(&event["channel"]), text(&event["data"]))).collect()
}

fn query(server: &TestServer, path: &str, parameters: &[(&str, &str)]) -> Value {
    let mut signing = Signing::new(server.app(), "GET", &server.app().path(path), b"");
    for (name, value) in parameters {
        signing.set(name, value);
    }
    http::get(server.address, &signing.target()).expect(200).json()
}

fn publish(server: &TestServer, channel: &str, data: &str) {
    server.publish(server.app(), channel, "e", data);
}

/// The app's connections, which are counted a moment after one of them has gone.
fn await_connections(server: &TestServer, count: u64) {
    eventually(&format!("{count} connections"), || {
        (query(server, "/connections", &[])["connections"] == count).then_some(())
    });
}

/// R-SSE-1, R-SSE-6, R-SSE-7, R-SSE-8, R-HIST-8: the head of a stream, its first event, and events with their ids in
/// order, of one and of several channels, under both bases; client events and events without history have no id.
#[test]
fn events_arrive_in_order() {
    with_shards(|server| {
        let app = server.app();
        let path = format!("{}?channels=a&key={}", app.path("/sse"), app.key);
        for target in [path, by_key(app, "/sse", "a", "")] {
            let mut stream = EventStream::open(server.address, &target, &[]);
            for (name, value) in [
                ("cache-control", Some("no-store")),
                ("x-accel-buffering", Some("no")),
                ("referrer-policy", Some("no-referrer")),
                ("x-content-type-options", Some("nosniff")),
                ("content-length", None),
                ("transfer-encoding", None),
                ("connection", Some("close")),
            ] {
                assert_eq!(stream.head.header(name), value, "{name}");
            }
            let before = query(server, "/channels/a", &[("info", "position")])["position"].clone();
            let connected = stream.expect_connected(&["a"], false);
            assert_eq!(stream.last_event_id.as_deref(), before.as_str(), "R-HIST-8");
            let socket_id = connected["socket_id"].as_str().unwrap();
            assert!(!socket_id.starts_with("0.") && socket_id.contains('.'), "{connected}");
            for data in ["1", "2", "3"] {
                publish(server, "a", data);
                let event = stream.expect_event("a", "e", data);
                assert_eq!(event.json()["id"].as_str(), event.id.as_deref(), "R-SSE-8");
                assert_eq!(
                    query(server, "/channels/a", &[("info", "position")])["position"].as_str(),
                    event.id.as_deref()
                );
            }
        }

        let mut stream = EventStream::open(
            server.address,
            &format!("{}?channels=a,b,private-c,no-history-d", app.relay_path("/sse")),
            &secret(app),
        );
        stream.expect_connected(&["a", "b", "private-c", "no-history-d"], false);
        let mut cursors = vec![stream.last_event_id.clone().unwrap()];
        for (channel, data) in [("a", "1"), ("b", "2"), ("private-c", "3"), ("a", "4")] {
            publish(server, channel, data);
            let event = stream.expect_event(channel, "e", data);
            assert!(event.json()["id"].as_str().unwrap().starts_with("evt_"), "{event:?}");
            cursors.push(event.id.expect("R-SSE-8: a cursor"));
        }
        assert!(cursors.iter().all(|cursor| cursor.starts_with("cur_")), "{cursors:?}");
        publish(server, "no-history-d", "5");
        let event = stream.expect_event("no-history-d", "e", "5");
        assert_eq!((&event.id, event.json().get("id")), (&None, None), "R-HIST-9");
        let mut sender = Socket::open(server, app);
        sender.subscribe("private-c");
        sender.send_json(&json!({"event": "client-x", "channel": "private-c", "data": {"y": 1}}));
        let event = stream.expect("client-x");
        assert_eq!(event.json(), json!({"event": "client-x", "channel": "private-c", "data": "{\"y\":1}"}));
        assert_eq!(event.id, None);

        // The subscriptions are real.
        assert_eq!(query(server, "/channels/a", &[("info", "subscription_count")])["occupied"], true);
        drop(stream);
        eventually("the channels are empty", || (query(server, "/channels/b", &[])["occupied"] == false).then_some(()));
    });
}

/// R-SSE-11: the routes of a key are those of its app, with the same credentials and CORS, and the clock is the server's.
#[test]
fn streams_open_by_key() {
    with_shards(|server| {
        let app = server.app();
        let path = |rest: &str| format!("/app/{}/{rest}", app.key);
        let public = |rest: &str| format!("{}?key={}", path(rest), app.key);
        let mut stream = EventStream::open(server.address, &format!("{}&channels=a", public("sse")), &[]);
        stream.expect_connected(&["a"], false);
        publish(server, "a", "1");
        stream.expect_event("a", "e", "1");
        let last = stream.last_event_id.clone().unwrap();
        publish(server, "a", "2");
        let target = format!("{}&channels=a&last_event_id={last}", public("poll"));
        let answer = http::get(server.address, &target).expect(200).json();
        assert_eq!(polled(&answer), [("a".to_owned(), "2".to_owned())]);
        for target in [public("time"), by_key(app, "/time", "", "")] {
            let mut connection = HttpConnection::open(server.address);
            let answer = connection.ask("GET", &target, &[("Origin", "http://a.example")], b"").expect(200);
            for (name, value) in [("access-control-allow-origin", "*"), ("cache-control", "no-store")] {
                assert_eq!(answer.header(name), Some(value), "{name}");
            }
            assert!(answer.json()["unix_time"].as_u64().unwrap().abs_diff(unix_now()) <= 2, "{answer:?}");
        }
        // The key in the path is no credential, and that of the query must be of the same app.
        for rest in ["sse", "poll", "time"] {
            http::get(server.address, &format!("{}?channels=a", path(rest))).expect(401);
            http::get(server.address, &format!("{}?channels=a&key=other", path(rest))).expect(401);
            http::get(server.address, &format!("/app/unknown/{rest}?channels=a&key={}", app.key)).expect(404);
            http::ask(server.address, "POST", &public(rest), &[], b"").expect(405);
        }
        http::get(server.address, &format!("{}&channels=private-a", public("sse"))).expect(401);
    });
}

/// R-SSE-12: `after` is where one channel continues: empty from now, and anything else is a gap. Streams and polls return
/// the position of each channel on request.
#[test]
fn channels_continue_where_they_say() {
    with_shards(|server| {
        let app = server.app();
        let position = |channel: &str| {
            let answer = query(server, &format!("/channels/{channel}"), &[("info", "position")]);
            answer["position"].as_str().unwrap().to_owned()
        };
        let (a, b) = (position("a"), position("b"));
        for channel in ["a", "b", "c"] {
            publish(server, channel, "1");
        }
        let b_after_one = position("b");
        publish(server, "b", "2");
        // A cursor of a and b only; c is new and starts from now, although it has an event already.
        let asked = format!("&positions=true&after[a]={a}&after[b]={b_after_one}&after[c]=");
        let mut stream = open(server, "a,b,c", &asked);
        let connected = stream.expect_connected(&["a", "b", "c"], true);
        let positions = json!({"a": a, "b": b_after_one, "c": position("c")});
        assert_eq!(connected["positions"], positions);
        let mut got: Vec<Value> = (0..2).map(|_| stream.expect("e").json()).collect();
        got.sort_by_key(|event| event["channel"].as_str().unwrap().to_owned());
        let got: Vec<_> = got.iter().map(|event| (event["channel"].clone(), event["data"].clone())).collect();
        assert_eq!(got, [(json!("a"), json!("1")), (json!("b"), json!("2"))]);
        publish(server, "c", "2");
        stream.expect_event("c", "e", "2");

        let answer = poll(server, "a,b,c", &asked);
        let mut events = polled(&answer);
        events.sort();
        assert_eq!(events, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(answer["positions"], json!({"a": position("a"), "b": position("b"), "c": position("c")}));
        assert_eq!(poll(server, "a", &format!("&after[a]={a}")).get("positions"), None);

        // It wins over the header and over the query, for its channel alone.
        let target = by_key(app, "/sse", "a,b", &format!("&after[a]={}&last_event_id=x", position("a")));
        let mut stream = EventStream::open(server.address, &target, &[("Last-Event-ID", "y")]);
        stream.expect_connected(&["a", "b"], false);
        let gap = stream.expect("gap").json();
        assert_eq!(gap["channels"][0]["channel"], "b");
        assert_eq!(
            (gap["channels"].as_array().unwrap().len(), &gap["channels"][0]["reason"]),
            (1, &json!("unreadable"))
        );
        let mut stream = open(server, "a,b", &format!("&after[a]=x&after[b]={b}"));
        stream.expect_connected(&["a", "b"], false);
        assert_eq!(stream.expect("gap").json()["channels"][0]["channel"], "a");
        for endpoint in ["/sse", "/poll"] {
            let answer = http::get(server.address, &by_key(app, endpoint, "a", "&after[b]=")).expect(400);
            assert_eq!(answer.json()["message"], "after[b] is for a channel that is not in channels.");
        }
    });
}

/// R-HIST-3, R-HIST-7, R-SSE-1, H5, H11: a client that comes back gets exactly what it missed, in order and once; from
/// the header, or from the query, of which the header wins; a cursor works more than once.
#[test]
fn missed_events_follow() {
    with_shards(|server| {
        for channels in ["a", "a,b,c"] {
            let names: Vec<&str> = channels.split(',').collect();
            let mut stream = open(server, channels, "");
            stream.expect_connected(&names, false);
            let mut number = 0;
            let mut send = |count: usize| {
                let sent: Vec<(&str, String)> =
                    (0..count).map(|at| (names[at % names.len()], format!("{channels} {}", number + at))).collect();
                for (channel, data) in &sent {
                    publish(server, channel, data);
                }
                number += count;
                sent
            };
            // Between channels the order is not promised; on each channel it is.
            let of = |events: &[(&str, String)], name: &str| -> Vec<String> {
                events.iter().filter(|(channel, _)| *channel == name).map(|(_, data)| data.clone()).collect()
            };
            let read = |stream: &mut EventStream, count: usize| -> Vec<(&str, String)> {
                let events = (0..count).map(|_| stream.expect("e").json());
                let name = |event: &Value| *names.iter().find(|name| event["channel"] == **name).unwrap();
                events.map(|event| (name(&event), event["data"].as_str().unwrap().to_owned())).collect()
            };
            for round in 0..4 {
                let sent = send(6);
                let got = read(&mut stream, 6);
                assert!(names.iter().all(|name| of(&got, name) == of(&sent, name)), "{got:?}");
                let last = stream.last_event_id.clone().unwrap();
                stream.connection().stream().shutdown(Shutdown::Both).unwrap();
                let missed = send(9);
                for _ in 0..2 {
                    stream = if round % 2 == 0 {
                        open_after(server, channels, &last)
                    } else {
                        open(server, channels, &format!("&last_event_id={last}"))
                    };
                    stream.expect_connected(&names, true);
                    assert_eq!(stream.last_event_id.as_ref(), Some(&last));
                    let got = read(&mut stream, 9);
                    assert!(names.iter().all(|name| of(&got, name) == of(&missed, name)), "{got:?}");
                }
                let newest = stream.last_event_id.clone().unwrap();
                let target = by_key(server.app(), "/sse", channels, &format!("&last_event_id={last}"));
                stream = EventStream::open(server.address, &target, &[("Last-Event-ID", &newest)]);
                stream.expect_connected(&names, true);
            }
            // A poll continues where a stream ended, and the reverse.
            let last = stream.last_event_id.clone().unwrap();
            let missed = send(3);
            let answer = poll(server, channels, &format!("&last_event_id={last}"));
            let got: Vec<String> = polled(&answer).into_iter().map(|(_, data)| data).collect();
            assert!(missed.iter().all(|(_, data)| got.contains(data)) && got.len() == 3, "{answer}");
            let last = answer["last_event_id"].as_str().unwrap();
            open_after(server, channels, last).expect_connected(&names, true);
        }
    });
}

/// R-HIST-4, R-SSE-9, R-POLL-1, threat T57: whatever a client sends as its position, it is never refused; a position
/// that cannot be honored is a gap with its reason, before anything newer, and the stream goes on.
#[test]
fn bad_positions_are_gaps() {
    with_shards(|server| {
        let app = server.app();
        for channel in ["a", "b"] {
            for data in ["1", "2"] {
                publish(server, channel, data);
            }
        }
        let position = |app: &App, path: &str| -> String {
            let mut signing = Signing::new(app, "GET", &app.path(path), b"");
            signing.set("info", "position");
            let answer = http::get(server.address, &signing.target()).expect(200).json();
            answer["position"].as_str().unwrap().to_owned()
        };
        let other = server.named_app("other");
        let own = position(app, "/channels/a");
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(&text[4..]).unwrap();
        let with = |prefix: &str, bytes: &[u8]| format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
        let changed = |at: usize, by: u8| {
            let mut bytes = bytes(&own);
            bytes[at] ^= by;
            with("evt_", &bytes)
        };
        let mut several = open(server, "a,b", "");
        several.expect_connected(&["a", "b"], false);
        let cursor = several.last_event_id.clone().unwrap();
        let mut elsewhere = open(server, "x,y", "");
        elsewhere.expect_connected(&["x", "y"], false);
        let foreign = elsewhere.last_event_id.clone().unwrap();
        let mut of_other = EventStream::open(server.address, &by_key(other, "/sse", "a,b", ""), &[]);
        of_other.expect_connected(&["a", "b"], false);
        let others = of_other.last_event_id.clone().unwrap();
        let mut forged = bytes(&cursor);
        forged[1] ^= 1;

        let long = "x".repeat(1_300);
        for (text, reason) in [
            ("0", "unreadable"),
            (&own[..20], "unreadable"),
            (&long, "unreadable"),
            ("\u{e9}\u{301}", "unreadable"),
            (&changed(0, 1), "epoch"),
            (&changed(17, 0x40), "ahead"),
            (&changed(9, 1), "unreadable"),
            (&position(other, "/channels/a"), "epoch"),
            (&cursor[..cursor.len() - 2], "unreadable"),
            (&with("cur_", &forged), "epoch"),
            (&foreign, "unreadable"),
            (&others, "epoch"),
        ] {
            for channels in ["a", "a,b"] {
                let names: Vec<&str> = channels.split(',').collect();
                let mut stream = open_after(server, channels, text);
                stream.expect_connected(&names, false);
                let gap = stream.expect("gap");
                let gaps = gap.json()["channels"].clone();
                let found = gaps.as_array().unwrap().iter().find(|gap| gap["channel"] == "a").unwrap();
                // An id alone says nothing about a channel of another group.
                let is_alone = channels == "a,b" && !text.starts_with("cur_");
                let is_reason = found["reason"] == reason || (is_alone && found["reason"] == "unreadable");
                assert!(is_reason, "{text} on {channels}: {gaps}");
                assert!(found["resumes_at"].is_string() && gap.id.is_some(), "{gap:?}");
                for _ in &names {
                    for data in ["1", "2"] {
                        assert_eq!(stream.expect("e").json()["data"], data, "the tail follows");
                    }
                }
                // The client does not receive the gap again.
                let last = stream.last_event_id.clone().unwrap();
                open_after(server, channels, &last).expect_connected(&names, true);
                let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
                let answer = poll(server, channels, &format!("&last_event_id={encoded}"));
                let found = answer["gaps"].as_array().unwrap().iter().find(|gap| gap["channel"] == "a").unwrap();
                assert!(found["reason"] == reason || is_alone, "{text}: {answer}");
                assert_eq!(answer["events"].as_array().unwrap().len(), 2 * names.len(), "{answer}");
                let last = answer["last_event_id"].as_str().unwrap();
                open_after(server, channels, last).expect_connected(&names, true);
            }
        }

        // Two parameters, and one that is not UTF-8.
        for more in [format!("&last_event_id={own}&last_event_id={own}"), "&last_event_id=%ff".to_owned()] {
            let mut stream = open(server, "a", &more);
            stream.expect_connected(&["a"], false);
            assert_eq!(stream.expect("gap").json()["channels"][0]["reason"], "unreadable");
        }
    });
}

/// R-HIST-4: another start of the server is another epoch, for cursors of several channels and for positions of one.
#[test]
fn a_restart_is_another_epoch() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).shards(2),
        |server| {
            let channels = ["a", "a,b"];
            let positions = channels.map(|channels| {
                let mut stream = open(&server, channels, "");
                stream.expect("connected");
                stream.last_event_id.clone().unwrap()
            });
            let server = server.restart(&[]);
            publish(&server, "a", "new");
            for (channels, last) in channels.into_iter().zip(&positions) {
                let mut stream = open_after(&server, channels, last);
                stream.expect("connected");
                let answer = poll(&server, channels, &format!("&last_event_id={last}"));
                for gaps in [&stream.expect("gap").json()["channels"], &answer["gaps"]] {
                    let reasons: Vec<&Value> = gaps.as_array().unwrap().iter().map(|gap| &gap["reason"]).collect();
                    assert_eq!(reasons, vec!["epoch"; channels.split(',').count()], "{gaps}");
                }
                assert_eq!(stream.expect("e").json()["data"], "new");
                assert_eq!(polled(&answer), [("a".to_owned(), "new".to_owned())]);
            }
        },
    );
}

/// R-HIST-4: what the ring no longer has is a gap with its range; a client that lost the connection before it read
/// the gap receives it again.
#[test]
fn an_exceeded_ring_is_a_gap() {
    on_fresh_servers_at_once(
        |driver| ServerOptions::new(driver).app("short", &["history_events=3"]),
        |server| {
            let app = server.named_app("short");
            for channels in ["a", "a,b"] {
                let names: Vec<&str> = channels.split(',').collect();
                let target = by_key(app, "/sse", channels, "");
                let mut stream = EventStream::open(server.address, &target, &[]);
                stream.expect_connected(&names, false);
                let last = stream.last_event_id.clone().unwrap();
                drop(stream);
                for data in 0..5 {
                    server.publish(app, "a", "e", &data.to_string());
                }
                for _ in 0..2 {
                    let mut stream = EventStream::open(server.address, &target, &[("Last-Event-ID", &last)]);
                    let connected = stream.expect("connected");
                    assert_eq!((&connected.id, &connected.json()["resumed"]), (&None, &json!(false)));
                    let gaps = stream.expect("gap").json()["channels"].clone();
                    assert_eq!(gaps.as_array().unwrap().len(), 1, "{gaps}");
                    assert_eq!((&gaps[0]["channel"], &gaps[0]["reason"]), (&json!("a"), &json!("expired")));
                    if channels == "a" {
                        assert_eq!(gaps[0]["after"], last);
                    }
                    for data in ["2", "3", "4"] {
                        assert_eq!(stream.expect("e").json()["data"], data);
                    }
                }
            }
        },
    );
}

/// R-SSE-1, R-SSE-5, R-POLL-1: a list of channels, a stream id or a time that is not valid is 400 that names it; so is a
/// poll of a channel without history.
#[test]
fn bad_parameters_are_named() {
    with_shards(|server| {
        let app = server.app();
        let names = |count: usize| (0..count).map(|at| format!("c{at}")).collect::<Vec<_>>().join(",");
        let expect = |target: &str, status: u16, words: &str| {
            let answer = http::get(server.address, target);
            let message = answer.clone().expect(status).json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains(words), "{target}: {message}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        };
        for endpoint in ["/sse", "/poll"] {
            for (channels, words) in [
                ("", "channels"),
                (",", "channels: \"\" is not a valid name"),
                ("a,,b", "channels: \"\""),
                ("a,b%20c", "\"b c\" is not a valid name"),
                (&names(101), "101 names"),
                (&"n".repeat(201), "longer than 200 bytes"),
                ("%ff", "channels must be percent-encoded UTF-8"),
            ] {
                expect(&by_key(app, endpoint, channels, ""), 400, words);
            }
            for id in ["1.2", "0.7", "0.", "0.1700000000", "0.170000000012345x", "0.17000000001234567890", "x"] {
                expect(&by_key(app, endpoint, "a", &format!("&socket_id={id}")), 400, "socket_id must be 0.");
            }
            expect(&by_key(app, endpoint, "a", "&socket_id=0.1700000000123456"), 401, "has expired");
            let ahead = format!("&socket_id=0.{}123456", unix_now() + 700);
            expect(&by_key(app, endpoint, "a", &ahead), 401, "ahead of the server's");
            expect(
                &by_key(app, endpoint, "a", "&auth[b]=x:y"),
                400,
                "auth[b] is for a channel that is not in channels",
            );
            expect(&format!("{}?key={}", app.relay_path(endpoint), app.key), 400, "channels is required");
        }
        for timeout in ["0", "56", "-1", "1.5", "x", ""] {
            expect(
                &by_key(app, "/poll", "a", &format!("&timeout={timeout}")),
                400,
                "timeout takes a number of seconds",
            );
        }
        expect(&by_key(app, "/poll", "a,no-history-b", ""), 400, "no-history-b has no history");

        // 100 channels, an escaped comma in a name, and one that is named twice.
        let many = names(100);
        let mut stream = open(server, &many, "");
        stream.expect_connected(&many.split(',').collect::<Vec<_>>(), false);
        assert!(stream.last_event_id.as_ref().unwrap().len() <= 1_200, "R-HIST-3");
        publish(server, "c99", "x");
        stream.expect_event("c99", "e", "x");
        let mut stream = open(server, "a%2Cb,c,c", "");
        stream.expect_connected(&["a,b", "c"], false);
        publish(server, "a,b", "x");
        stream.expect_event("a,b", "e", "x");
        let connection = HttpConnection::open(server.address).ask("POST", &by_key(app, "/sse", "a", ""), &[], b"");
        assert_eq!((connection.status, connection.header("allow")), (405, Some("GET")));
    });
}

/// R-SSE-2, R-SSE-3, R-SSE-5, R-TOKEN-6, threats T58 and T61: which credential opens which channel, on streams and
/// polls.
#[test]
fn credentials_open_channels() {
    with_shards(|server| {
        let (app, other) = (server.app(), server.named_app("other"));
        let subscribe = create_token(
            &server.data,
            app,
            &["--scopes", "channels:subscribe", "--expires-at", "2099-01-31T00:00:00Z"],
        );
        let lasting = create_token(&server.data, app, &["--scopes", "channels:subscribe"]);
        let full = create_token(&server.data, app, &["--expires-at", "2099-01-31T00:00:00Z"]);
        let wide = create_token(
            &server.data,
            app,
            &["--scopes", "channels:subscribe,events:publish", "--expires-at", "2099-01-31T00:00:00Z"],
        );
        let reader = create_token(&server.data, app, &["--scopes", "channels:read"]);
        let of_other = create_token(
            &server.data,
            other,
            &["--scopes", "channels:subscribe", "--expires-at", "2099-01-31T00:00:00Z"],
        );
        let bearer = |token: &str| format!("Bearer {token}");
        eventually("the tokens are known", || {
            let headers = [("Authorization", &*bearer(&of_other.token))];
            let answer =
                http::ask(server.address, "GET", &other.relay_path("/poll?channels=a&timeout=1"), &headers, b"");
            (answer.status == 200).then_some(())
        });
        let status = |target: &str, headers: &[(&str, &str)]| {
            let mut connection = HttpConnection::open(server.address);
            connection.send("GET", target, headers, b"");
            let head = connection.try_read_head().unwrap();
            head.status
        };
        let all = "a,private-a,private-encrypted-a,presence-a";
        for endpoint in ["/sse", "/poll"] {
            let path = |channels: &str, more: &str| {
                format!("{}?channels={channels}&timeout=1{more}", app.relay_path(endpoint))
            };
            // Header credentials.
            for (token, channels, expected) in [
                (&subscribe, all, 200),
                (&lasting, all, 200),
                (&full, all, 200),
                (&reader, "a", 403),
                (&of_other, "a", 401),
                (&subscribe, "a,%23server-to-user-x", 403),
            ] {
                let headers = [("Authorization", &*bearer(&token.token))];
                assert_eq!(status(&path(channels, ""), &headers), expected, "{channels} {}", token.id);
            }
            assert_eq!(status(&path(all, ""), &secret(app)), 200);
            assert_eq!(status(&path(all, ""), &secret(other)), 401);
            let mut signing = Signing::new(app, "GET", &app.relay_path(endpoint), b"");
            signing.set("channels", all).set("timeout", "1");
            assert_eq!(status(&signing.target(), &[]), 200);
            assert_eq!(status(&signing.target().replace("private-a", "private-b"), &[]), 401);
            // Of the query.
            for (token, expected) in [(&subscribe, 200), (&lasting, 401), (&full, 401), (&wide, 401), (&of_other, 401)]
            {
                assert_eq!(status(&path(all, &format!("&token={}", token.token)), &[]), expected, "{}", token.id);
            }
            let refused = http::get(server.address, &path("a", &format!("&token={}", full.token))).expect(401);
            assert!(refused.text().contains("channels:subscribe alone"), "{}", refused.text());
            assert_eq!(status(&path("a", ""), &[]), 401);
            assert_eq!(status(&path("a", "&key=nobody"), &[]), 401);
            assert_eq!(status(&path("a", &format!("&key={}", other.key)), &[]), 401);
            assert_eq!(status(&path("a", &format!("&key={}", app.key)), &[]), 200);
            assert_eq!(status(&path("private-a", &format!("&key={}", app.key)), &[]), 401);
            assert_eq!(status(&path("presence-a", &format!("&key={}", app.key)), &[]), 403);
            // A credential in a header is judged alone (R-AUTH-4).
            let headers = [("X-Relay-Key", &*app.key), ("X-Relay-Secret", "wrong")];
            assert_eq!(status(&path("a", &format!("&key={}", app.key)), &headers), 401);
            // Signatures over a stream id that the client chose.
            let id = format!("0.{}1234567", unix_now());
            let sign =
                |id: &str, channel: &str| format!("{}:{}", app.key, hmac_hex(&app.secret, &format!("{id}:{channel}")));
            let with = |id: &str, auth: &str| {
                path("a,private-a,private-encrypted-a", &format!("&key={}&socket_id={id}{auth}", app.key))
            };
            let both = format!(
                "&auth[private-a]={}&auth%5Bprivate-encrypted-a%5D={}",
                sign(&id, "private-a"),
                sign(&id, "private-encrypted-a")
            );
            assert_eq!(status(&with(&id, &both), &[]), 200);
            assert_eq!(status(&with(&id, &both.replace("private-encrypted-a%5D", "private-b%5D")), &[]), 400);
            assert_eq!(status(&with(&id, &format!("&auth[private-a]={}", sign(&id, "private-a"))), &[]), 401);
            let swapped = format!("&auth[private-a]={}", sign(&id, "private-b"));
            assert_eq!(status(&with(&id, &swapped), &[]), 401);
            let later = format!("0.{}7654321", unix_now());
            assert_eq!(status(&with(&later, &both), &[]), 401, "of another id");
            assert_eq!(status(&path("private-a", &format!("&key={}{swapped}", app.key)), &[]), 400, "no socket_id");
            // The URL of yesterday (threat T58).
            let old = format!("0.{}123456", unix_now() - 24 * 3_600 - 1);
            let auth = format!("&auth[private-a]={}", sign(&old, "private-a"));
            assert_eq!(status(&path("private-a", &format!("&key={}&socket_id={old}{auth}", app.key)), &[]), 401);
            // Two streams may use one id: EventSource connects again before the server knows that the first has ended.
            let first = HttpConnection::open(server.address);
            drop(first);
            if endpoint == "/sse" {
                let mut streams: Vec<EventStream> =
                    (0..2).map(|_| EventStream::open(server.address, &with(&id, &both), &[])).collect();
                for stream in &mut streams {
                    let connected = stream.expect_connected(&["a", "private-a", "private-encrypted-a"], false);
                    assert_eq!(connected["socket_id"], id);
                }
                publish(server, "private-a", "x");
                for stream in &mut streams {
                    stream.expect_event("private-a", "e", "x");
                }
            }
        }
    });
}

/// R-SSE-4, R-SSE-10: a stream of a presence channel is no member, sees no internal message, and counts as a
/// subscription; members come and go around it.
#[test]
fn streams_observe_presence() {
    with_shards(|server| {
        let app = server.app();
        let target = format!("{}?channels=presence-a", app.relay_path("/sse"));
        let mut stream = EventStream::open(server.address, &target, &secret(app));
        stream.expect_connected(&["presence-a"], false);
        let counts = || {
            let answer = query(server, "/channels/presence-a", &[("info", "user_count,subscription_count")]);
            (answer["occupied"] == true, answer["user_count"].as_u64(), answer["subscription_count"].as_u64())
        };
        assert_eq!(counts(), (true, Some(0), Some(1)));
        let mut member = Socket::open(server, app);
        let joined = member.join("presence-a", r#"{"user_id":"ada"}"#);
        assert_eq!(joined["ids"], json!(["ada"]));
        assert_eq!(counts(), (true, Some(1), Some(2)));
        publish(server, "presence-a", "1");
        stream.expect_event("presence-a", "e", "1");
        member.expect_data("e", "presence-a", "1");
        member.send_json(&json!({"event": "client-x", "channel": "presence-a", "data": "{}"}));
        let client = stream.expect("client-x");
        assert_eq!(client.json()["user_id"], "ada");
        member.leave();
        eventually("the member has left", || (counts() == (true, Some(0), Some(1))).then_some(()));
        let last = stream.last_event_id.clone().unwrap();
        drop(stream);
        eventually("the stream has ended", || (!counts().0).then_some(()));
        publish(server, "presence-a", "2");
        let headers = [("X-Relay-Key", &*app.key), ("X-Relay-Secret", &*app.secret), ("Last-Event-ID", &*last)];
        let mut stream = EventStream::open(server.address, &target, &headers);
        stream.expect_connected(&["presence-a"], true);
        stream.expect_event("presence-a", "e", "2");
    });
}

/// R-HIST-13: a new stream of a cache channel is sent the cached event, or that there is none; one that resumes is not.
#[test]
fn cached_events_follow() {
    with_shards(|server| {
        let mut stream = open(server, "cache-a", "");
        stream.expect_connected(&["cache-a"], false);
        stream.expect("pusher:cache_miss");
        publish(server, "cache-a", "1");
        stream.expect_event("cache-a", "e", "1");
        let last = stream.last_event_id.clone().unwrap();
        for channels in ["cache-a", "cache-a,b"] {
            let mut second = open(server, channels, "");
            second.expect_connected(&channels.split(',').collect::<Vec<_>>(), false);
            assert_eq!(second.expect_event("cache-a", "e", "1").id, None);
        }
        let mut resumed = open_after(server, "cache-a", &last);
        resumed.expect_connected(&["cache-a"], true);
        publish(server, "cache-a", "2");
        resumed.expect_event("cache-a", "e", "2");
    });
}

/// Threat T60: names and data of publishers never become lines; one event stays one event with the same fields.
#[test]
fn hostile_names_stay_data() {
    with_shards(|server| {
        let mut stream = open(server, "a", "");
        stream.expect_connected(&["a"], false);
        for name in [
            "error",
            "open",
            "connected",
            "gap",
            "message",
            "a\nb",
            "a\r\nid: forged",
            "a\rdata: forged",
            " x",
            "a:b",
            "\u{2028}",
            "\u{feff}",
            "<img src=x onerror=alert(1)>",
            "\u{1b}[31m",
        ] {
            let data = format!("{name}\n\nevent: connected\rdata: {{}}\n\n");
            let body = json!({"name": name, "channel": "a", "data": data});
            if server.post_events(server.app(), &body).status != 200 {
                continue; // Some names cannot be published.
            }
            let event = stream.next().expect("an event");
            assert_eq!((&event.json()["event"], &event.json()["data"]), (&json!(name), &json!(data)));
            let is_reserved = ["error", "open", "connected", "gap"].contains(&name) || name.contains(char::is_control);
            assert_eq!(event.name, if is_reserved { "message" } else { name });
        }
        publish(server, "a", "end");
        stream.expect_event("a", "e", "end");
    });
}

/// R-POLL-1, R-POLL-2: a poll is answered at the first event, at once if there is one, and at the timeout with a
/// position; without a position it starts from now; it is no subscription, and the next one loses nothing.
#[test]
fn polls_wait_for_events() {
    with_shards(|server| {
        for channels in ["a", "a,b,private-c"] {
            let path = format!("{}?channels={channels}", server.app().relay_path("/poll"));
            let headers = secret(server.app());
            let ask = |more: &str| {
                let answer = http::ask(server.address, "GET", &format!("{path}{more}"), &headers, b"").expect(200);
                assert_eq!(answer.header("cache-control"), Some("no-store"));
                assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
                answer.json()
            };
            publish(server, "a", "before");
            let begun = Instant::now();
            let empty = ask("&timeout=1");
            assert!(begun.elapsed() >= Duration::from_millis(900), "it was held");
            assert_eq!((&empty["events"], &empty["gaps"]), (&json!([]), &json!([])));
            let mut last = empty["last_event_id"].as_str().unwrap().to_owned();
            assert!(last.starts_with(if channels == "a" { "evt_" } else { "cur_" }), "{last}");
            for (at, channel) in channels.split(',').cycle().take(6).enumerate() {
                let mut connection = HttpConnection::open(server.address);
                connection.send("GET", &format!("{path}&last_event_id={last}"), &headers, b"");
                await_connections(server, 1);
                assert_eq!(query(server, &format!("/channels/{channel}"), &[])["occupied"], false, "R-POLL-2");
                publish(server, channel, &at.to_string());
                let answer = connection.read().expect(200).json();
                assert_eq!(polled(&answer), [(channel.to_owned(), at.to_string())]);
                last = answer["last_event_id"].as_str().unwrap().to_owned();
                await_connections(server, 0);
                // Between two polls.
                publish(server, channel, "between");
                let answer = connection.ask("GET", &format!("{path}&last_event_id={last}"), &headers, b"");
                let answer = answer.expect(200).json();
                assert_eq!(polled(&answer), [(channel.to_owned(), "between".to_owned())]);
                last = answer["last_event_id"].as_str().unwrap().to_owned();
            }
        }
    });
}

/// R-POLL-2: at most 100 events or 256 KiB in one answer; the next poll continues behind them, and a busy channel does
/// not keep a quiet one waiting for ever.
#[test]
fn polls_are_bounded() {
    on_fresh_servers_at_once(
        |driver| ServerOptions::new(driver).app("long", &["history_events=1000", "max_event_data_bytes=65536"]),
        |server| {
            let app = server.named_app("long");
            let ask = |channels: &str, last: &str| {
                let target = by_key(app, "/poll", channels, &format!("&timeout=1&last_event_id={last}"));
                http::get(server.address, &target).expect(200)
            };
            let start = |channels: &str| ask(channels, "").json()["last_event_id"].as_str().unwrap().to_owned();
            let (mut one, mut two) = (start("a"), start("a,b"));
            for number in 0..250 {
                server.publish(app, "a", "e", &number.to_string());
            }
            server.publish(app, "b", "e", "quiet");
            let mut all = Vec::new();
            for expected in [100, 100, 50] {
                let answer = ask("a", &one).json();
                one = answer["last_event_id"].as_str().unwrap().to_owned();
                let events = polled(&answer);
                assert_eq!(events.len(), expected);
                all.extend(events.into_iter().map(|(_, data)| data));
            }
            assert_eq!(all, (0..250).map(|number| number.to_string()).collect::<Vec<_>>());
            let first = ask("a,b", &two).json();
            assert!(polled(&first).contains(&("b".to_owned(), "quiet".to_owned())), "{first}");
            let mut all = Vec::new();
            let mut answer = first;
            while all.len() < 251 {
                all.extend(polled(&answer));
                two = answer["last_event_id"].as_str().unwrap().to_owned();
                if all.len() < 251 {
                    answer = ask("a,b", &two).json();
                }
            }
            assert_eq!(all.iter().filter(|(channel, _)| channel == "a").count(), 250);

            let large = "x".repeat(60_000);
            for _ in 0..8 {
                server.publish(app, "a", "e", &large);
            }
            let mut left = 8;
            while left > 0 {
                let answer = ask("a", &one);
                assert!(answer.body.len() < 256 * 1024 + 70_000, "{}", answer.body.len());
                let answer = answer.json();
                left -= polled(&answer).len();
                one = answer["last_event_id"].as_str().unwrap().to_owned();
            }
        },
    );
}

/// R-POLL-2, threat T64: a poll ends with the client's end of the connection, however it ends; requests behind a poll
/// wait for it, and a stream must be alone on its connection.
#[test]
fn polls_end_with_their_clients() {
    with_shards(|server| {
        let app = server.app();
        let target = by_key(app, "/poll", "a", "&timeout=55");
        let mut polls: Vec<HttpConnection> = (0..40)
            .map(|_| {
                let mut connection = HttpConnection::open(server.address);
                connection.send("GET", &target, &[], b"");
                connection
            })
            .collect();
        await_connections(server, 40);
        for connection in &polls[..20] {
            connection.stream().shutdown(Shutdown::Write).unwrap();
        }
        await_connections(server, 20);
        polls.drain(..20);
        polls.truncate(1);
        await_connections(server, 1);
        let mut connection = polls.pop().unwrap();
        connection.send("GET", "/up", &[], b"");
        publish(server, "a", "x");
        assert_eq!(polled(&connection.read().expect(200).json()), [("a".to_owned(), "x".to_owned())]);
        assert_eq!(connection.read().expect(200).text(), "OK\n");

        // A stream behind a request that waits.
        let stream = by_key(app, "/sse", "a", "");
        let mut connection = HttpConnection::open(server.address);
        connection.send("GET", "/up", &[], b"");
        connection.send("GET", &stream, &[], b"");
        assert_eq!(connection.read().expect(200).text(), "OK\n");
        let mut events = EventStream::read(connection);
        events.expect_connected(&["a"], false);
        // What a client sends on a stream is not read as requests.
        events.connection().stream().shutdown(Shutdown::Write).unwrap();
        events.expect_end();
        await_connections(server, 0);
    });
}

/// R-SSE-4, R-ERR-2, P-CLOSE-2: streams and polls count as connections of their app, with WebSockets; at the limit they
/// get 429, and a place that is free again can be used. Apps over TLS only, and origins that are not allowed, get 403.
#[test]
fn streams_count_as_connections() {
    on_fresh_servers_at_once(
        |driver| {
            ServerOptions::new(driver)
                .app("quota", &["max_connections=2"])
                .app("tls", &["tls_only=true"])
                .app("origin", &["allowed_origins=example.com"])
                .app("channels", &["max_channels=2"])
                .app("authorized", &["authorized_connections=true"])
        },
        |server| {
            let app = server.named_app("quota");
            let target = by_key(app, "/sse", "a", "");
            let socket = Socket::open(&server, app);
            let mut stream = EventStream::open(server.address, &target, &[]);
            stream.expect_connected(&["a"], false);
            for target in [&target, &by_key(app, "/poll", "a", "")] {
                let refused = http::get(server.address, target).expect(429);
                assert!(refused.text().contains("2 connections (max_connections)"), "{}", refused.text());
                assert!(refused.header("retry-after").is_some());
            }
            socket.leave();
            let mut again = eventually("a place is free", || {
                let mut connection = HttpConnection::open(server.address);
                connection.send("GET", &target, &[], b"");
                let head = connection.try_read_head().unwrap();
                (head.status == 200).then_some(connection)
            });
            assert_eq!(again.read_line().as_deref(), Some("retry: 3000"));

            let tls = by_key(server.named_app("tls"), "/sse", "a", "");
            assert!(http::get(server.address, &tls).expect(403).text().contains("tls_only"));
            let authorized = by_key(server.named_app("authorized"), "/sse", "a", "");
            assert!(http::get(server.address, &authorized).expect(403).text().contains("authorized_connections"));

            // The limit of channels, which only the owners know.
            let app = server.named_app("channels");
            let refused = http::get(server.address, &by_key(app, "/sse", "a,b,c", "")).expect(429);
            assert!(refused.text().contains("max_channels"), "{}", refused.text());
            eventually("its channels are free", || {
                let mut connection = HttpConnection::open(server.address);
                connection.send("GET", &by_key(app, "/sse", "d,e", ""), &[], b"");
                (connection.try_read_head().unwrap().status == 200).then_some(())
            });

            // R-SSE-6, R-AUTHEP-5.
            let app = server.named_app("origin");
            for endpoint in ["/sse", "/poll"] {
                let target = by_key(app, endpoint, "a", "&timeout=1");
                let mut connection = HttpConnection::open(server.address);
                connection.send("GET", &target, &[("Origin", "https://example.com")], b"");
                let head = connection.try_read_head().unwrap();
                let allowed = head.header("access-control-allow-origin");
                assert_eq!((head.status, allowed), (200, Some("https://example.com")));
                assert_eq!(head.header("access-control-allow-credentials"), None);
                let evil = [("Origin", "https://evil.test")];
                let refused = http::ask(server.address, "GET", &target, &evil, b"").expect(403);
                assert_eq!(refused.header("access-control-allow-origin"), None);
                let asks = [
                    ("Origin", "https://example.com"),
                    ("Access-Control-Request-Method", "GET"),
                    ("Access-Control-Request-Headers", "authorization,last-event-id"),
                ];
                let preflight = http::ask(server.address, "OPTIONS", &target, &asks, b"").expect(204);
                assert_eq!(preflight.header("access-control-allow-methods"), Some("GET"));
                assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization,last-event-id"));
            }
        },
    );
}

/// R-TOKEN-7, threat T57: a stream ends with its credential: an expired or revoked token, a key that was removed, an app
/// that was disabled; others stay open.
#[test]
fn streams_end_with_their_credential() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("other", &[]),
        |server| {
            let (app, other) = (server.app(), server.named_app("other"));
            let data = server.data.to_str().unwrap();
            let soon = unix_now() + 6;
            let expiring =
                create_token(&server.data, app, &["--scopes", "channels:subscribe", "--expires-in", "6s"]).token;
            let revoked = create_token(&server.data, app, &["--scopes", "channels:subscribe"]);
            let lasting = create_token(&server.data, app, &["--scopes", "channels:subscribe"]);
            let rotated = cli::run_json(&["app", "rotate", &app.id, "--data", data, "--json"]);
            let key = app.key.clone();
            assert!(!rotated.to_string().is_empty());
            let bearer = |token: &str| format!("Bearer {token}");
            let path = |app: &App| format!("{}?channels=private-a,b", app.relay_path("/sse"));
            let open = |app: &App, header: (&str, &str)| {
                let mut stream = eventually("the credential is known", || {
                    let mut connection = HttpConnection::open(server.address);
                    connection.send("GET", &path(app), &[header], b"");
                    let head = connection.try_read_head().unwrap();
                    (head.status == 200)
                        .then_some(())
                        .map(|()| EventStream::open(server.address, &path(app), &[header]))
                });
                stream.expect_connected(&["private-a", "b"], false);
                stream
            };
            let mut expiring_stream = open(app, ("Authorization", &bearer(&expiring)));
            let mut revoked_stream = open(app, ("Authorization", &bearer(&revoked.token)));
            let mut lasting_stream = open(app, ("Authorization", &bearer(&lasting.token)));
            let mut key_stream =
                EventStream::open(server.address, &format!("{}?channels=b&key={key}", app.relay_path("/sse")), &[]);
            key_stream.expect_connected(&["b"], false);
            let mut disabled_stream = EventStream::open(server.address, &path(other), &secret(other));
            disabled_stream.expect_connected(&["private-a", "b"], false);

            cli::run_json(&["token", "revoke", &revoked.id, "--data", data, "--json"]);
            cli::run_json(&["app", "remove-key", &app.id, &key, "--keep-created", "--data", data, "--json"]);
            cli::run_json(&["app", "disable", &other.id, "--data", data, "--json"]);
            disabled_stream.expect_end();
            revoked_stream.expect_end();
            key_stream.expect_end();
            expiring_stream.expect_end();
            assert!(unix_now() >= soon, "it did not end early");
            assert!(unix_now() < soon + 30, "R-TOKEN-7: within 60 s");
            let newest = rotated["key"].as_str().unwrap().to_owned();
            let app = App { key: newest, secret: rotated["secret"].as_str().unwrap().to_owned(), ..app.clone() };
            server.publish(&app, "b", "e", "x");
            lasting_stream.expect_event("b", "e", "x");
        },
    );
}

/// R-SSE-10, P-CLOSE-5: a reader that stalls is cut off, and may resume; others are not disturbed, and the memory that
/// it held is free.
#[test]
fn stalled_readers_are_cut_off() {
    on_fresh_servers_at_once(
        |driver| ServerOptions::new(driver).app("long", &["history_events=2000", "max_event_data_bytes=65536"]),
        |server| {
            let app = server.named_app("long");
            let target = by_key(app, "/sse", "a", "");
            let mut stalled = EventStream::open(server.address, &target, &[]);
            stalled.expect_connected(&["a"], false);
            let mut reading = EventStream::open(server.address, &target, &[]);
            reading.expect_connected(&["a"], false);
            let large = "x".repeat(60_000);
            for number in 0..400 {
                server.publish(app, "a", "e", &format!("{number} {large}"));
                assert!(reading.expect("e").data.contains(&format!("\"{number} ")));
            }
            let mut count = 0;
            while stalled.next().is_some() {
                count += 1;
            }
            assert!(count < 400, "it was cut off");
            server.assert_alive();
            eventually("its memory is free", || {
                let mut signing = Signing::new(app, "GET", &app.path("/connections"), b"");
                signing.set("x", "1");
                (http::get(server.address, &signing.target()).expect(200).json()["connections"] == 1).then_some(())
            });
        },
    );
}

/// R-SSE-10: an idle stream is sent comments.
#[test]
fn idle_streams_are_sent_comments() {
    on_fresh_servers_at_once(ServerOptions::new, |server| {
        let mut stream = open(&server, "a", "");
        stream.expect_connected(&["a"], false);
        let begun = Instant::now();
        // The comment is a line of its own; an event wakes the reader behind it.
        let address = server.address;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let metrics = || http::get(server.health, "/metrics").expect(200);
                eventually_within("26 s have passed", Duration::from_secs(40), || {
                    metrics();
                    (begun.elapsed() > Duration::from_secs(26)).then_some(())
                });
                publish(&server, "a", "x");
            });
            stream.expect_event("a", "e", "x");
        });
        assert_eq!(stream.comments, 1, "one within 15 to 25 s, {address}");
    });
}

/// P-CLOSE-1: a server that ends answers its polls and ends its streams, whose clients connect again.
#[test]
fn a_drain_ends_streams_and_polls() {
    on_fresh_servers(ServerOptions::new, |mut server| {
        let mut stream = open(&server, "a", "");
        stream.expect_connected(&["a"], false);
        let mut connection = HttpConnection::open(server.address);
        connection.send("GET", &by_key(server.app(), "/poll", "a", "&timeout=55"), &[], b"");
        await_connections(&server, 2);
        server.signal("TERM");
        assert_eq!(connection.read().expect(200).json()["events"], json!([]));
        stream.expect_end();
        assert!(server.wait(Duration::from_secs(20)).success());
    });
}

/// R-HIST-14: nothing is left of streams and polls that end while they are opened.
#[test]
fn half_opened_streams_leave_nothing() {
    with_shards(|server| {
        let app = server.app();
        let channels = (0..100).map(|at| format!("{}{at}", unique("c"))).collect::<Vec<_>>().join(",");
        for endpoint in ["/sse", "/poll"] {
            for _ in 0..30 {
                let mut connection = HttpConnection::open(server.address);
                connection.send("GET", &by_key(app, endpoint, &channels, ""), &[], b"");
                drop(connection);
            }
        }
        await_connections(server, 0);
        eventually("no channel is occupied", || {
            (query(server, "/channels", &[])["channels"] == json!({})).then_some(())
        });
        set_app(&server.data, app, &["history_events=0"]);
        eventually("polls need a history", || {
            let answer = http::get(server.address, &by_key(app, "/poll", "a", "&timeout=1"));
            (answer.status == 400).then_some(())
        });
    });
}
