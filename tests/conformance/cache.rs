//! Cache channels over TCP (section 5.7 of the Pusher protocol).

use serde_json::{Value, json};

use crate::common::cli::set_app;
use crate::common::http;
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::Signing;
use crate::common::socket::Socket;
use crate::common::{eventually, unique};
use crate::stage::{on_each_driver, with_shards};

/// The member `cache` of the channel's answer.
fn cached(server: &TestServer, channel: &str) -> Value {
    let mut signing = Signing::new(server.app(), "GET", &server.app().path(&format!("/channels/{channel}")), b"");
    signing.set("info", "cache");
    http::get(server.address, &signing.target()).expect(200).json()["cache"].clone()
}

/// The frame after `succeeded`, as text.
fn join(server: &TestServer, channel: &str) -> (Socket, String) {
    let mut socket = Socket::open(server, server.app());
    if channel.starts_with("presence-") {
        socket.join(channel, &json!({"user_id": unique("user")}).to_string());
    } else {
        socket.subscribe(channel);
    }
    let text = socket.next_text();
    (socket, text)
}

/// P-CACHE-1, P-CACHE-2, P-OUT-7, P-SUB-1, P-SDK-7, R-CHAN-2: on every kind of cache channel first a miss, then the
/// last event, with the same text as live, also after every subscriber left, whichever shard the joiner is on.
#[test]
fn the_last_event_is_sent_again() {
    with_shards(|server| {
        for channel in [
            "cache-a",
            "private-cache-a",
            "private-encrypted-cache-a",
            "presence-cache-a",
            "private-no-history-cache-a",
            "cache-no-history-a",
        ] {
            let (mut live, miss) = join(server, channel);
            let expected = json!({"event": "pusher:cache_miss", "channel": channel, "data": "{}"});
            assert_eq!(serde_json::from_str::<Value>(&miss).unwrap(), expected);
            assert_eq!(cached(server, channel), Value::Null);
            for data in ["first", r#"{"second":"\u00e9"}"#] {
                server.publish(server.app(), channel, "my-event", data);
                let text = live.next_text();
                for _ in 0..4 {
                    let (joined, again) = join(server, channel);
                    assert_eq!(again, text);
                    joined.leave();
                    if channel.starts_with("presence-") {
                        live.expect_event("pusher_internal:member_added");
                        live.expect_event("pusher_internal:member_removed");
                    }
                }
                assert_eq!(cached(server, channel)["data"], data);
            }
            let ttl = cached(server, channel)["ttl"].as_u64().unwrap();
            assert!((1_790..=1_800).contains(&ttl), "P-LIM-10: {ttl}");
            let text = join(server, channel).1;
            live.leave();
            eventually("nobody is there", || {
                let path = server.app().path(&format!("/channels/{channel}"));
                let answer = http::get(server.address, &server.app().sign("GET", &path, b"")).expect(200).json();
                (answer["occupied"] == false).then_some(())
            });
            assert_eq!(join(server, channel).1, text, "it survives zero subscribers");
        }
    });
}

/// P-CHAN-1, R-CHAN-3: channels with other names are not cache channels; nothing follows their `succeeded`.
#[test]
fn other_channels_cache_nothing() {
    on_each_driver(|server| {
        for channel in ["x-cache-y", "cachefoo", "private-x-cache-y", "no-history-private-cache-x"] {
            let name = unique(channel);
            server.publish(server.app(), &name, "e", "x");
            let mut socket = Socket::open(server, server.app());
            socket.subscribe(&name);
            socket.expect_quiet();
            assert_eq!(cached(server, &name), Value::Null, "P-HTTP-11: no member at all");
        }
    });
}

/// P-CACHE-1: client events are not cached; an event that excludes a socket is.
#[test]
fn exclusion_does_not_matter_and_client_events_do_not_count() {
    on_each_driver(|server| {
        let channel = unique("private-cache-x");
        let (mut first, _) = join(server, &channel);
        first.send_json(&json!({"event": "client-a", "channel": channel, "data": {}}));
        first.expect_quiet();
        assert_eq!(cached(server, &channel), Value::Null);
        let body = json!({"name": "e", "channel": channel, "data": "x", "socket_id": first.socket_id});
        server.post_events(server.app(), &body).expect(200);
        first.expect_quiet();
        let (_, text) = join(server, &channel);
        let expected = json!({"event": "e", "channel": channel, "data": "x"});
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    });
}

/// P-CACHE-2, P-SUB-5: while events are published as fast as possible, every subscriber gets the cached event n and
/// then exactly the events that follow it.
#[test]
fn no_event_between_cache_and_stream_is_lost_or_doubled() {
    with_shards(|server| {
        let app = server.app();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=300 {
                    server.publish(app, "cache-flow", "e", &number.to_string());
                }
            });
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let mut socket = Socket::open(server, app);
                        socket.subscribe("cache-flow");
                        let mut frame = socket.next_json();
                        if frame["event"] == "pusher:cache_miss" {
                            frame = socket.next_json();
                            assert_eq!(frame["data"], "1");
                        }
                        let first: u32 = frame["data"].as_str().unwrap().parse().unwrap();
                        for number in first + 1..=300.min(first + 20) {
                            assert_eq!(socket.next_json()["data"], number.to_string());
                        }
                    }
                });
            }
        });
    });
}

/// P-CACHE-1, P-LIM-10: with `cache_ttl` of one second a cached event is a miss again after that time.
#[test]
fn events_end() {
    on_fresh_servers_at_once(
        |driver| ServerOptions::new(driver).with(&["--cache-ttl", "1"]),
        |server| {
            server.publish(server.app(), "cache-short", "e", "x");
            assert_eq!(cached(&server, "cache-short"), json!({"data": "x", "ttl": 1}));
            eventually("its time is over", || cached(&server, "cache-short").is_null().then_some(()));
            assert!(join(&server, "cache-short").1.contains("pusher:cache_miss"));
        },
    );
}

/// Threat T28, P-CACHE-1: with a budget of some events the oldest are misses and the newest are kept; a budget of 0
/// takes effect within 2 s.
#[test]
fn the_budget_of_an_app() {
    let options =
        |driver| ServerOptions { apps: vec![("main", vec!["max_cache_bytes=20000"])], ..ServerOptions::new(driver) };
    on_fresh_servers(options, |server| {
        for number in 0..100 {
            server.publish(server.app(), &format!("cache-{number}"), "e", &"x".repeat(1_000));
        }
        let kept: Vec<bool> = (0..100).map(|number| cached(&server, &format!("cache-{number}")).is_object()).collect();
        let count = kept.iter().filter(|kept| **kept).count();
        assert!((10..=15).contains(&count), "{count} kept");
        assert!(!kept[..50].contains(&true) && kept[99]);
        set_app(&server.data, server.app(), &["max_cache_bytes=0"]);
        eventually("nothing is cached", || {
            server.publish(server.app(), "cache-99", "e", "x");
            cached(&server, "cache-99").is_null().then_some(())
        });
    });
}
