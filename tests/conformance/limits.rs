//! Every limit of an app one below, at and one above its value, with 1, 2 and 5 shards (docs/limits.md lists them all
//! and names the tests of those that are not here). A refusal names the limit's value and the setting.

use std::time::Instant;

use serde_json::{Value, json};

use crate::common::cli::create_token;
use crate::common::http::{self, Response};
use crate::common::rig::{SharedServers, on_shared_servers};
use crate::common::server::{Driver, ServerOptions, TestServer};
use crate::common::sign::App;
use crate::common::socket::{Arrival, QUERY, Socket};
use crate::common::{eventually, unique};

static SHARED: [SharedServers; 3] = [
    SharedServers::new(|driver| options(driver, 1)),
    SharedServers::new(|driver| options(driver, 2)),
    SharedServers::new(|driver| options(driver, 5)),
];

fn with_shards(scenario: impl Fn(&TestServer)) {
    for shared in &SHARED {
        on_shared_servers(shared, &scenario);
    }
}

/// An app for each test, since a minute's or a day's limit stays used up.
fn options(driver: Driver, shards: u16) -> ServerOptions {
    ServerOptions::new(driver)
        .shards(shards)
        .app("rate", &["requests_per_minute=5"])
        .app("methods", &["signed_requests_per_minute=2", "key_requests_per_minute=3", "token_requests_per_minute=4"])
        .app("day", &["messages_per_day=6"])
        .app("open", &["max_channels=3"])
        .app("publish", &["max_channels_per_event=3", "max_batch_events=3"])
        .app("join", &["max_channels_per_connection=3", "max_channel_data_bytes=50", "max_presence_members=3"])
        .app("wide", &["max_channel_data_bytes=20000"])
        .app("clumsy", &["max_invalid_messages=3"])
        .app("eager", &["max_invalid_messages=3", "max_channels_per_connection=1"])
        .app("talk", &["client_events=true", "max_client_events_per_second=3"])
        .app("loud", &["client_events=true", "max_client_events_per_second=0"])
        .app("terse", &["max_event_data_bytes=100"])
        .app("soketi", &["max_event_data_bytes=102400"])
        .app("huge", &["max_event_data_bytes=1048576"])
        .app("many", &["max_batch_events=1000"])
        .app("quota", &["max_connections=3"])
        .app("soft", &["max_connections=3", "connection_limit_soft=true"])
}

/// One event on a connection of its own, so that requests reach all shards.
fn publish(server: &TestServer, app: &App, path: &str) -> Response {
    let body = json!({"name": "e", "channel": "c", "data": "d"}).to_string();
    server.post_signed(app, path, body.as_bytes())
}

/// The next two messages refuse a subscription as P-FAIL-4 defines, for a reason that names this setting.
#[track_caller]
fn expect_limit_reached(socket: &mut Socket, status: u16, setting: &str) {
    let reason = socket.expect_error(None);
    assert!(reason.contains(setting), "{setting} in {reason:?}");
    let data = socket.expect_event("pusher:subscription_error")["data"].clone();
    assert_eq!((&data["type"], &data["status"]), (&json!("LimitReached"), &json!(status)), "{data}");
    assert_eq!(data["error"], reason);
}

/// R-LIM-4, P-STAT-6, R-ERR-1: of 5 requests per minute the 4th and 5th pass and the 6th is 429 on both bases, with
/// `Retry-After`, `X-RateLimit-Limit` and `X-RateLimit-Remaining`; other apps are not affected.
#[test]
fn requests_per_minute() {
    with_shards(|server| {
        let app = server.named_app("rate");
        for path in [app.path("/events"), app.relay_path("/events")].iter().cycle().take(5) {
            publish(server, app, path).expect(200);
        }
        for (path, is_json) in [(app.path("/events"), false), (app.relay_path("/events"), true)] {
            let answer = publish(server, app, &path).expect(429);
            let seconds: u32 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
            assert_eq!(answer.header("x-ratelimit-limit"), Some("5"));
            assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
            let text =
                if is_json { answer.json()["message"].as_str().unwrap().to_owned() } else { answer.text().to_owned() };
            assert_eq!(text.trim_end(), "This app is at its limit of 5 requests per minute (requests_per_minute).");
            assert!(!is_json || answer.json()["error"] == "rate_limited");
        }
        http::ask(server.address, "GET", &app.sign("GET", &app.path("/channels"), b""), &[], b"").expect(429);
        publish(server, server.app(), &server.app().path("/events")).expect(200);
    });
}

/// R-LIM-4: each way to authenticate has its own limit: one less, the limit, one more.
#[test]
fn requests_per_minute_by_method() {
    with_shards(|server| {
        let app = server.named_app("methods");
        let bearer = format!("Bearer {}", create_token(&server.data, app, &[]).token);
        let path = app.path("/events");
        let body = json!({"name": "e", "channel": "c", "data": "d"}).to_string();
        let token = || http::ask(server.address, "POST", &path, &[("Authorization", &bearer)], body.as_bytes());
        // All shards know the token within 2 s; until then it is 401, which does not count.
        let mut passed = 0;
        eventually("all requests with the token are used up", || match token().status {
            200 => {
                passed += 1;
                None
            }
            401 => None,
            status => {
                assert_eq!((status, passed), (429, 4));
                Some(())
            }
        });
        assert!(token().expect(429).text().contains("4 requests with a token per minute (token_requests_per_minute)"));
        let pair = [("X-Relay-Key", app.key.as_str()), ("X-Relay-Secret", app.secret.as_str())];
        let keyed = || http::ask(server.address, "POST", &path, &pair, body.as_bytes());
        let signed = || publish(server, app, &path);
        (0..3).for_each(|_| drop(keyed().expect(200)));
        assert!(keyed().expect(429).text().contains("(key_requests_per_minute)"));
        (0..2).for_each(|_| drop(signed().expect(200)));
        let refusal = signed().expect(429);
        assert_eq!(refusal.header("x-ratelimit-limit"), Some("2"));
        assert!(refusal.text().contains("(signed_requests_per_minute)"));
    });
}

/// R-LIM-3, P-STAT-3: of 6 messages a day, the 5th and the 6th are published and a 7th is not: 403 under `/apps`, 429
/// until midnight of UTC under `/api/v1`. An event on two channels is two messages; an event that does not fit
/// completely is not published at all.
#[test]
fn messages_per_day() {
    with_shards(|server| {
        let app = server.named_app("day");
        let mut socket = Socket::open(server, app);
        socket.subscribe("a");
        let two = json!({"name": "e", "channels": ["a", "b"], "data": "d"});
        (0..2).for_each(|_| drop(server.post_events(app, &two).expect(200)));
        publish(server, app, &app.path("/events")).expect(200);
        server.post_events(app, &two).expect(403);
        publish(server, app, &app.relay_path("/events")).expect(200);
        let refusal = publish(server, app, &app.path("/events")).expect(403);
        let told = "This request exceeds the limit of 6 messages per day (messages_per_day).";
        assert!(refusal.text().starts_with(told) && refusal.header("retry-after").is_none(), "{}", refusal.text());
        let refusal = publish(server, app, &app.relay_path("/events")).expect(429);
        let seconds: u64 = refusal.header("retry-after").expect("Retry-After").parse().unwrap();
        let left = 86_400 - crate::common::sign::unix_now() % 86_400;
        assert!(seconds.abs_diff(left) <= 5, "{seconds} to go, not {left}");
        (0..2).for_each(|_| drop(socket.expect_event("e")));
        socket.expect_quiet();
        http::ask(server.address, "GET", &app.sign("GET", &app.path("/channels"), b""), &[], b"").expect(200);
    });
}

/// R-LIM-5, P-FAIL-4: of 3 channels the 2nd and 3rd open and a 4th is LimitReached 4100, public, private and presence
/// alike; a publish to it is 429, all or nothing. A vacated channel frees its place.
#[test]
fn occupied_channels() {
    with_shards(|server| {
        let app = server.named_app("open");
        let (mut first, mut second) = (Socket::open(server, app), Socket::open(server, app));
        first.subscribe("a");
        let to = |channels: Value| server.post_events(app, &json!({"name": "e", "channels": channels, "data": "d"}));
        to(json!(["nobody", "a"])).expect(200);
        first.expect_event("e");
        second.subscribe("private-b");
        second.join("presence-c", r#"{"user_id":"1"}"#);
        first.join("presence-c", r#"{"user_id":"1"}"#);
        for channel in ["d", "private-d"] {
            first.send_subscribe(channel);
            expect_limit_reached(&mut first, 4100, "3 occupied channels (max_channels)");
        }
        first.send_join("presence-d", r#"{"user_id":"1"}"#);
        expect_limit_reached(&mut first, 4100, "3 occupied channels (max_channels)");
        let refusal = eventually("the publish is refused", || {
            let answer = to(json!(["d"]));
            (answer.status == 429).then_some(answer)
        });
        assert!(refusal.header("retry-after").is_some() && refusal.text().contains("(max_channels)"));
        to(json!(["a", "d", "private-b"])).expect(429);
        to(json!(["a", "presence-c"])).expect(200);
        first.expect_event("e");
        first.expect_event("e");
        second.expect_event("e");
        second.unsubscribe("private-b");
        second.expect_quiet();
        eventually("the channel is vacated", || {
            first.send_subscribe("d");
            let frame = first.next_json();
            if frame["event"] == "pusher:error" {
                first.expect_event("pusher:subscription_error");
                return None;
            }
            assert_eq!(frame["event"], "pusher_internal:subscription_succeeded");
            Some(())
        });
        to(json!(["d"])).expect(200);
        first.expect_event("e");
        second.leave();
        first.leave();
    });
}

/// P-LIM-4, P-LIM-5: an app's own limits of channels per event and events per batch: 2 and 3 pass, 4 are 400.
#[test]
fn channels_and_events_per_request() {
    with_shards(|server| {
        let app = server.named_app("publish");
        for count in [2, 3, 4] {
            let status = if count <= 3 { 200 } else { 400 };
            let channels: Vec<String> = (0..count).map(|index| format!("c{index}")).collect();
            let event = json!({"name": "e", "channels": channels, "data": "d"});
            let answer = server.post_events(app, &event).expect(status);
            assert!(count <= 3 || answer.text().contains("at most 3 channels (max_channels_per_event)"));
            let batch = json!({"batch": vec![json!({"name": "e", "channel": "c", "data": "d"}); count]});
            let answer =
                server.post_signed(app, &app.path("/batch_events"), batch.to_string().as_bytes()).expect(status);
            assert!(count <= 3 || answer.text() == "Batch too large: a batch has at most 3 events (max_batch_events).");
        }
    });
}

/// P-LIM-12, P-LIM-7, R-LIM-6, P-FAIL-4: an app's own limits of channels per connection, members and `channel_data`, each at one less, the limit and
/// one more.
#[test]
fn subscriptions() {
    with_shards(|server| {
        let app = server.named_app("join");
        let mut socket = Socket::open(server, app);
        (0..3).for_each(|_| socket.subscribe(&unique("joined")));
        socket.send_subscribe("one-more");
        expect_limit_reached(&mut socket, 4100, "at most 3 channels (max_channels_per_connection)");

        let data_of = |bytes: usize| {
            let empty = r#"{"user_id":"1","user_info":""}"#;
            empty.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - empty.len())))
        };
        let channel = unique("presence-data");
        let mut socket = Socket::open(server, app);
        for bytes in [49, 50] {
            socket.join(&channel, &data_of(bytes));
            socket.unsubscribe(&channel);
        }
        socket.send_join(&channel, &data_of(51));
        expect_limit_reached(&mut socket, 4301, "50 bytes (max_channel_data_bytes)");

        let channel = unique("presence-members");
        let mut members: Vec<Socket> = (0..3).map(|_| Socket::open(server, app)).collect();
        for (user, member) in members.iter_mut().enumerate() {
            member.join(&channel, &json!({"user_id": user}).to_string());
        }
        socket.send_join(&channel, r#"{"user_id":"3"}"#);
        expect_limit_reached(&mut socket, 4100, "3 members (max_presence_members)");
        socket.join(&channel, r#"{"user_id":"2"}"#);
    });
}

/// P-LIM-7, P-IN-5: `channel_data` of 20,000 bytes, escaped to twice that, joins where the app allows it: the message limit follows.
#[test]
fn raised_channel_data_fits_a_message() {
    with_shards(|server| {
        let mut socket = Socket::open(server, server.named_app("wide"));
        let start = r#"{"user_id":"1","user_info":["#;
        // Every other byte is a quotation mark, which the message escapes.
        let info = r#""","#.repeat(6_650);
        let text = format!("{start}{}]}}", info.trim_end_matches(','));
        let exact = format!("{text}{}", " ".repeat(20_000 - text.len()));
        assert!(json!(exact).to_string().len() > 30_000);
        for fits in [&exact[..19_999], &exact] {
            socket.join("presence-wide", fits);
            socket.unsubscribe("presence-wide");
        }
        socket.send_join("presence-wide", &format!("{exact} "));
        expect_limit_reached(&mut socket, 4301, "20000 bytes (max_channel_data_bytes)");
    });
}

/// P-IN-5, P-LIM-3, P-LIM-9: data at its limit passes however it is written, over a client event and over HTTP: plain, escaped
/// as by Python or PHP, and in control characters, the worst case.
#[test]
fn escaped_data_fits() {
    with_shards(|server| {
        let app = server.named_app("loud");
        let channel = unique("private-escaped");
        let (mut sender, mut other) = (Socket::open(server, app), Socket::open(server, app));
        sender.subscribe(&channel);
        other.subscribe(&channel);
        for text in [
            "a".repeat(10_240),
            "\"".repeat(10_240),
            "\n".repeat(10_240),
            "я".repeat(5_120),
            "س".repeat(5_120),
            "語".repeat(3_413),
            "😀".repeat(2_560),
            "\u{1}".repeat(10_240),
        ] {
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            for literal in [json!(text).to_string(), format!("\"{escaped}\"")] {
                // Escaped ASCII goes beyond the output of any encoder: it needs the entire bound.
                sender.send(&format!(r#"{{"event":"client-x","channel":"{channel}","data":{literal}}}"#));
                let frame = other.next_json();
                assert!(frame["data"] == text.as_str(), "{} bytes as {}", text.len(), literal.len());
                let body = format!(r#"{{"name":"e","channel":"{channel}","data":{literal}}}"#);
                server.post_signed(app, &app.path("/events"), body.as_bytes()).expect(200);
                other.expect_data("e", &channel, &text);
                sender.expect_data("e", &channel, &text);
            }
        }
    });
}

/// P-IN-5, P-LIM-7: `channel_data` at its limit fits where the limit of events is lower.
#[test]
fn lowered_events_leave_room_for_channel_data() {
    with_shards(|server| {
        let mut socket = Socket::open(server, server.named_app("terse"));
        let empty = r#"{"user_id":"1","user_info":""}"#;
        let data = empty.replace("\"\"", &format!("\"{}\"", "я".repeat((10_240 - empty.len()) / 2)));
        let roster = socket.join(&unique("presence-terse"), &data);
        assert_eq!(roster["count"], 1);
    });
}

/// P-LIM-11, P-LIM-3, P-LIM-5: body limits follow the settings of the app: a body within them is accepted however it is
/// written, and one beyond them is 413 by its declared length. Another app has the default limit.
#[test]
fn bodies_follow_the_settings() {
    with_shards(|server| {
        let (soketi, huge, many) = (server.named_app("soketi"), server.named_app("huge"), server.named_app("many"));
        let batch = |data: &str, count: usize| {
            let event = format!(r#"{{"name":"e","channel":"c","data":{data}}}"#);
            format!(r#"{{"batch":[{}]}}"#, vec![event; count].join(","))
        };
        let control = json!("\u{1}".repeat(102_400)).to_string();
        let quotes = json!("\"".repeat(1 << 20)).to_string();
        for (app, path, body) in [
            (soketi, "/batch_events", batch(&json!("x".repeat(102_400)).to_string(), 10)),
            (soketi, "/batch_events", batch(&control, 10)),
            (huge, "/events", format!(r#"{{"name":"e","channels":["c"],"data":{quotes}}}"#)),
            (huge, "/batch_events", batch(&quotes, 10)),
            (many, "/batch_events", batch(&json!("x".repeat(2_000)).to_string(), 1_000)),
        ] {
            let answer = server.post_signed(app, &app.path(path), body.as_bytes());
            assert_eq!(answer.status, 200, "{path} of {} bytes: {}", body.len(), answer.text());
        }
        for (app, bytes_max) in [(server.named_app("talk"), 1 << 20), (soketi, 6_179_040), (huge, 24 << 20)] {
            for (bytes, status) in [(bytes_max, 401), (bytes_max + 1, 413)] {
                let mut connection = http::HttpConnection::open(server.address);
                let path = app.path("/batch_events");
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {bytes}\r\n\r\n"
                );
                connection.write(head.as_bytes()).unwrap();
                let answer = connection.read().expect(status);
                assert!(status == 401 || answer.text().contains(&format!("({bytes_max} bytes)")), "{}", answer.text());
            }
        }
    });
}

/// P-IN-3: an app's own number of malformed messages: two get an error, the third closes with 4009.
#[test]
fn invalid_messages() {
    with_shards(|server| {
        let mut socket = Socket::open(server, server.named_app("clumsy"));
        for _ in 0..2 {
            socket.send("{");
            socket.expect_error(None);
        }
        socket.expect_quiet();
        socket.send("{");
        let told = socket.expect_fatal(4009);
        assert_eq!(told, "Too many invalid messages: 3 in a minute (max_invalid_messages)");
    });
}

/// P-IN-3, P-LIM-12: subscribes that are refused for the number of channels count with malformed messages.
#[test]
fn refused_subscribes_are_invalid_messages() {
    with_shards(|server| {
        let mut socket = Socket::open(server, server.named_app("eager"));
        socket.subscribe("only");
        socket.send("{");
        socket.expect_error(None);
        socket.send_subscribe("one-more");
        expect_limit_reached(&mut socket, 4100, "at most 1 channels (max_channels_per_connection)");
        socket.send_subscribe("one-more");
        assert!(socket.expect_fatal(4009).contains("3 in a minute"));
    });
}

/// P-LIM-9, P-CEV-4: of an app's own 3 client events per second, 2 and 3 at once pass and a 4th gets 4301; 0 means no
/// limit.
#[test]
fn client_events_per_second() {
    with_shards(|server| {
        let channel = unique("private-talk");
        let open = |name: &str| {
            let mut socket = Socket::open(server, server.named_app(name));
            socket.subscribe(&channel);
            socket
        };
        let message = json!({"event": "client-x", "channel": channel, "data": "d"});
        let mut listener = open("talk");
        for count in [2, 3, 4] {
            let mut sender = open("talk");
            let start = Instant::now();
            (0..count).for_each(|_| sender.send_json(&message));
            let quickly = |start: Instant| start.elapsed().as_millis() < 300;
            (0..count.min(3)).for_each(|_| drop(listener.expect_event("client-x")));
            if count <= 3 {
                sender.expect_quiet();
            } else if quickly(start) {
                let told = sender.expect_error(Some(4301));
                assert_eq!(told, "A connection may send 3 client events per second (max_client_events_per_second)");
                listener.expect_quiet();
            }
        }
        let (mut sender, mut listener) = (open("loud"), open("loud"));
        (0..200).for_each(|_| sender.send_json(&message));
        (0..200).for_each(|_| drop(listener.expect_event("client-x")));
        sender.expect_quiet();
    });
}

/// P-CLOSE-2, R-LIM-1: of 3 connections over all shards the 2nd and 3rd open and a 4th is closed, with the limit and
/// the setting in the message: 4004, or 4100 where the quota is soft.
#[test]
fn connections() {
    with_shards(|server| {
        for (name, code) in [("quota", 4004), ("soft", 4100)] {
            let app = server.named_app(name);
            let mut present: Vec<Socket> = (0..3).map(|_| Socket::open(server, app)).collect();
            let target = format!("/app/{}{QUERY}", app.key);
            let told = Socket::upgrade(server, app, &target).expect_fatal(code);
            assert_eq!(told, "This app is at its quota of 3 connections (max_connections)");
            present.pop().unwrap().leave();
            let last = eventually("room for one more", || {
                let mut socket = Socket::upgrade(server, app, &target);
                matches!(socket.next(), Arrival::Text(text) if text.contains("established")).then_some(socket)
            });
            Socket::upgrade(server, app, &target).expect_fatal(code);
            drop((last, present));
        }
    });
}
