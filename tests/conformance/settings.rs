//! `relay app set` under a running server: every limit and switch takes effect within 2 seconds on all shards, and on
//! existing connections where it concerns them; and the counts of the day survive a restart.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::cli;
use crate::common::http;
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing};
use crate::common::socket::{QUERY, Socket};
use crate::common::{eventually, eventually_within};

const OBEYED_WITHIN: Duration = Duration::from_secs(2);

/// The scene of a check: two sockets that were connected before the setting changed.
struct Scene<'a> {
    server: &'a TestServer,
    app: &'a App,
    first: Socket,
    second: Socket,
}

/// Changes one setting of an app in use and waits until it takes effect. A check is repeated, several times in a row so
/// that new connections reach all shards; it must leave the scene unchanged.
fn check(server: &TestServer, before: &[&str], setting: &str, obeyed: impl Fn(&mut Scene<'_>) -> bool) {
    let app = &cli::create_app(&server.data, before);
    eventually("all shards know the app", || {
        (0..16).all(|_| http::get(server.address, &format!("/up/{}", app.id)).status == 200).then_some(())
    });
    let (first, second) = (Socket::open(server, app), Socket::open(server, app));
    let mut scene = Scene { server, app, first, second };
    // The app arrives with one change and its settings with the next.
    eventually("what was set before is obeyed", || (0..4).all(|_| !obeyed(&mut scene)).then_some(()));
    cli::set_app(&server.data, app, &[setting]);
    eventually_within(setting, OBEYED_WITHIN, || (0..4).all(|_| obeyed(&mut scene)).then_some(()));
}

impl Scene<'_> {
    /// Publishes; true for this status and a body with this text.
    fn is_refused(&self, path: &str, body: &Value, status: u16, text: &str) -> bool {
        let answer = self.server.post_signed(self.app, &self.app.path(path), body.to_string().as_bytes());
        answer.status == status && answer.text().contains(text)
    }

    /// The code with which a new connection is refused.
    fn refusal_of_new(&self, headers: &[(&str, &str)]) -> Option<u64> {
        let target = format!("/app/{}{QUERY}", self.app.key);
        let frame = Socket::upgrade_with(self.server, self.app, &target, headers).0.next_json();
        frame["data"]["code"].as_u64()
    }
}

/// True when the subscribe is refused for a reason with this text. A refused one changes nothing.
fn join_is_refused(socket: &mut Socket, channel: &str, channel_data: Option<&str>, text: &str) -> bool {
    let data = socket.subscribe_data(channel, channel_data);
    socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
    loop {
        let frame = socket.next_json();
        match frame["event"].as_str() {
            _ if frame["channel"] != channel => {}
            Some("pusher_internal:subscription_succeeded") => return false,
            Some("pusher:subscription_error") => return frame["data"]["error"].as_str().unwrap().contains(text),
            _ => {}
        }
    }
}

/// The messages that a socket gets up to the answer to a ping.
fn told(socket: &mut Socket) -> Vec<Value> {
    socket.send(r#"{"event":"pusher:ping","data":{}}"#);
    let frames = std::iter::repeat_with(|| socket.next_json());
    frames.take_while(|frame| frame["event"] != "pusher:pong").collect()
}

/// True when one of two client events at once is refused with this text.
fn client_event_is_refused(scene: &mut Scene<'_>, text: &str) -> bool {
    join_is_refused(&mut scene.first, "private-talk", None, "");
    let message = json!({"event": "client-x", "channel": "private-talk", "data": "d"});
    (0..2).for_each(|_| scene.first.send_json(&message));
    scene.first.unsubscribe("private-talk");
    told(&mut scene.first).iter().any(|frame| frame["data"]["message"].as_str().is_some_and(|told| told.contains(text)))
}

fn event(data: &str) -> Value {
    json!({"name": "e", "channel": "c", "data": data})
}

/// P-CLOSE-2, P-CLOSE-4, P-CONN-8, R-LIM-1, threat T21: settings that concern new connections; existing ones stay open.
#[test]
fn settings_of_connections() {
    on_fresh_servers_at_once(ServerOptions::new, |server| {
        check(&server, &[], "tls_only=true", |scene| scene.refusal_of_new(&[]) == Some(4000));
        check(&server, &[], "max_connections=2", |scene| scene.refusal_of_new(&[]) == Some(4004));
        check(&server, &["max_connections=2"], "connection_limit_soft=true", |scene| {
            scene.refusal_of_new(&[]) == Some(4100)
        });
        check(&server, &[], "allowed_origins=*.example.com", |scene| {
            assert_eq!(scene.refusal_of_new(&[("Origin", "https://www.example.com")]), None);
            assert_eq!(scene.refusal_of_new(&[]), None, "clients outside browsers send none");
            assert!(told(&mut scene.first).is_empty(), "who is there stays");
            scene.refusal_of_new(&[("Origin", "https://example.com")]) == Some(4009)
        });
    });
}

/// P-CEV-1, P-LIM-7, P-LIM-9, P-LIM-12, P-COUNT-1, R-LIM-5: settings that concern connected clients.
#[test]
fn settings_of_clients() {
    on_fresh_servers_at_once(ServerOptions::new, |server| {
        let talking = ["client_events=true"];
        check(&server, &talking, "client_events=false", |scene| client_event_is_refused(scene, "enable this feature"));
        check(&server, &talking, "max_client_events_per_second=1", |scene| {
            client_event_is_refused(scene, "may send 1 client events per second")
        });
        check(&server, &[], "max_presence_members=1", |scene| {
            // The other may not have left yet after the previous attempt.
            let joined = !join_is_refused(&mut scene.first, "presence-a", Some(r#"{"user_id":"1"}"#), "");
            let second = Some(r#"{"user_id":"2"}"#);
            let refused = joined && join_is_refused(&mut scene.second, "presence-a", second, "limit of 1 members");
            scene.first.unsubscribe("presence-a");
            scene.second.unsubscribe("presence-a");
            refused
        });
        check(&server, &[], "max_channel_data_bytes=20", |scene| {
            let data = Some(r#"{"user_id":"1234567890"}"#);
            let refused = join_is_refused(&mut scene.first, "presence-a", data, "20 bytes (max_channel_data_bytes)");
            scene.first.unsubscribe("presence-a");
            refused
        });
        check(&server, &[], "max_channels_per_connection=1", |scene| {
            assert!(!join_is_refused(&mut scene.first, "a", None, ""));
            let refused = join_is_refused(&mut scene.first, "b", None, "at most 1 channels");
            for channel in ["a", "b"] {
                scene.first.unsubscribe(channel);
            }
            refused
        });
        check(&server, &[], "max_channels=1", |scene| {
            let joined = !join_is_refused(&mut scene.first, "a", None, "");
            let refused = joined && join_is_refused(&mut scene.second, "b", None, "1 occupied channels (max_channels)");
            scene.first.unsubscribe("a");
            scene.second.unsubscribe("b");
            refused
        });
        check(&server, &[], "subscription_count=true", |scene| {
            assert!(!join_is_refused(&mut scene.first, "a", None, ""));
            server.publish(scene.app, "a", "marker", "");
            let is_count = |frame: &Value| frame["event"] == "pusher_internal:subscription_count";
            let mut frames = std::iter::repeat_with(|| scene.first.next_json());
            let counted = frames.by_ref().take_while(|frame| frame["event"] != "marker").any(|frame| is_count(&frame));
            if counted {
                frames.find(|frame| frame["event"] == "marker");
            }
            scene.first.unsubscribe("a");
            counted
        });
    });
}

/// P-IN-3: a lowered limit counts messages that a client sent before.
#[test]
fn bad_messages_of_before_count() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let mut socket = Socket::open(&server, app);
        for _ in 0..5 {
            socket.send("{");
            socket.expect_error(None);
        }
        cli::set_app(&server.data, app, &["max_invalid_messages=4"]);
        eventually_within("the smaller limit is obeyed", OBEYED_WITHIN, || {
            let mut other = Socket::open(&server, app);
            (0..3).for_each(|_| other.send("{"));
            (0..3).for_each(|_| drop(other.expect_error(None)));
            other.send("{");
            other.next_text().contains("4009").then_some(())
        });
        socket.send("{");
        socket.expect_fatal(4009);
    });
}

/// P-LIM-3, P-LIM-4, P-LIM-5, P-CACHE-1, R-LIM-3, R-LIM-4: settings that concern publishing.
#[test]
fn settings_of_publishing() {
    on_fresh_servers_at_once(ServerOptions::new, |server| {
        check(&server, &[], "max_event_data_bytes=3", |scene| {
            scene.is_refused("/events", &event("four"), 413, "(3 bytes)")
        });
        check(&server, &[], "max_channels_per_event=1", |scene| {
            let body = json!({"name": "e", "channels": ["a", "b"], "data": ""});
            scene.is_refused("/events", &body, 400, "1 channels (max_channels_per_event)")
        });
        check(&server, &[], "max_batch_events=1", |scene| {
            let body = json!({"batch": [event(""), event("")]});
            scene.is_refused("/batch_events", &body, 400, "1 events (max_batch_events)")
        });
        check(&server, &[], "max_cache_bytes=0", |scene| {
            server.publish(scene.app, "cache-a", "e", "kept");
            let mut signing = Signing::new(scene.app, "GET", &scene.app.path("/channels/cache-a"), b"");
            let target = signing.set("info", "cache").target();
            http::get(server.address, &target).expect(200).json()["cache"].is_null()
        });
        check(&server, &[], "messages_per_day=1", |scene| {
            scene.is_refused("/events", &event(""), 403, "1 messages per day (messages_per_day)")
        });
        for setting in ["requests_per_minute", "signed_requests_per_minute"] {
            check(&server, &[], &format!("{setting}=1"), |scene| {
                scene.is_refused("/events", &event(""), 429, &format!("({setting})"))
            });
        }
        check(&server, &["requests_per_minute=1"], "requests_per_minute=100000", |scene| {
            (0..3).all(|_| !scene.is_refused("/events", &event(""), 429, ""))
        });
    });
}

/// R-LIM-3: the messages of the day are on disk after an orderly end, and the next start continues from them.
#[test]
fn messages_of_the_day_survive_a_restart() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("day", &["messages_per_day=4"]).with(&["--drain-ms", "0"]),
        |mut server| {
            (0..3).for_each(|_| server.publish(server.named_app("day"), "c", "e", ""));
            server.signal("TERM");
            assert!(server.wait(Duration::from_secs(10)).success());
            let server = server.restart(&[]);
            let app = server.named_app("day");
            server.publish(app, "c", "e", "");
            server.post_events(app, &event("")).expect(403);
        },
    );
}
