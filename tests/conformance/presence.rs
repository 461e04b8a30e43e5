//! Presence channels (section 5.5 of the Pusher protocol).

use serde_json::{Value, json};

use crate::common::http;
use crate::common::server::TestServer;
use crate::common::sign::{App, Signing};
use crate::common::socket::Socket;
use crate::common::unique;
use crate::stage::on_each_driver;

/// P-OUT-2, P-OUT-3, P-OUT-4, P-PRES-2, P-PRES-4, P-SDK-8: roster, joins and leaves read byte for byte as documented.
#[test]
fn frames_are_byte_exact() {
    on_each_driver(|server| {
        let channel = unique("presence-exact");
        let (mut first, mut second) = pair(server, server.app());
        first.send_join(&channel, r#"{"user_id":"1","user_info":{"name":"A"}}"#);
        let alone = format!(
            r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{\"presence\":{{\"count\":1,\"ids\":[\"1\"],\"hash\":{{\"1\":{{\"name\":\"A\"}}}}}}}}"}}"#
        );
        assert_eq!(first.next_text(), alone);
        second.send_join(&channel, r#"{"user_id":"2"}"#);
        let both = format!(
            r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{\"presence\":{{\"count\":2,\"ids\":[\"1\",\"2\"],\"hash\":{{\"1\":{{\"name\":\"A\"}},\"2\":null}}}}}}"}}"#
        );
        assert_eq!(second.next_text(), both);
        let added = format!(
            r#"{{"event":"pusher_internal:member_added","channel":"{channel}","data":"{{\"user_id\":\"2\"}}"}}"#
        );
        assert_eq!(first.next_text(), added);
        first.unsubscribe(&channel);
        let removed = format!(
            r#"{{"event":"pusher_internal:member_removed","channel":"{channel}","data":"{{\"user_id\":\"1\"}}"}}"#
        );
        assert_eq!(second.next_text(), removed);
        first.send_join(&channel, r#"{"user_id":"1","user_info":{"name":"A"}}"#);
        first.expect_event("pusher_internal:subscription_succeeded");
        let again = format!(
            r#"{{"event":"pusher_internal:member_added","channel":"{channel}","data":"{{\"user_id\":\"1\",\"user_info\":{{\"name\":\"A\"}}}}"}}"#
        );
        assert_eq!(second.next_text(), again);
    });
}

/// P-PRES-3, P-PRES-2, P-USER-5: a second tab with another `user_info` changes nothing, for present members, for
/// itself, for later members and over HTTP, whether the info came from the channel's authorization or from a signin,
/// and also when the first tab leaves before the second.
#[test]
fn the_first_user_info_stays() {
    on_each_driver(|server| {
        let app = server.app();
        for signed_in in [false, true] {
            let channel = unique("presence-tabs");
            let user = unique("tabs");
            let join = |info: &str| {
                let mut socket = Socket::open(server, app);
                if !signed_in {
                    let roster =
                        socket.join(&channel, &json!({"user_id": user, "user_info": {"tab": info}}).to_string());
                    return (socket, roster);
                }
                socket.sign_in(&json!({"id": user, "user_info": {"tab": info}}).to_string());
                let auth = app.sign_private(&socket.socket_id, &channel);
                let subscribe = json!({"channel": channel, "auth": auth});
                socket.send_json(&json!({"event": "pusher:subscribe", "data": subscribe}));
                let roster = data(&socket.expect_event("pusher_internal:subscription_succeeded"))["presence"].clone();
                (socket, roster)
            };
            let mut watcher = Socket::open(server, app);
            watcher.join(&channel, r#"{"user_id":"watcher"}"#);
            let (first, roster) = join("first");
            assert_eq!(roster["hash"][&user], json!({"tab": "first"}));
            let added = data(&watcher.expect_event("pusher_internal:member_added"));
            assert_eq!(added, json!({"user_id": user, "user_info": {"tab": "first"}}));

            let (second, roster) = join("second");
            assert_eq!((&roster["count"], &roster["hash"][&user]), (&json!(2), &json!({"tab": "first"})));
            first.leave();
            let (third, roster) = join("third");
            assert_eq!(roster["hash"][&user], json!({"tab": "first"}));
            let path = app.path(&format!("/channels/{channel}/users"));
            let target = Signing::new(app, "GET", &path, b"").set("with_user_info", "1").target();
            let users = http::get(server.address, &target).expect(200).json();
            assert!(
                users["users"].as_array().unwrap().contains(&json!({"id": user, "user_info": {"tab": "first"}})),
                "{users}"
            );
            watcher.expect_quiet();

            second.leave();
            third.leave();
            watcher.expect_event("pusher_internal:member_removed");
            let (_fourth, roster) = join("fourth");
            assert_eq!(roster["hash"][&user], json!({"tab": "fourth"}));
            let added = data(&watcher.expect_event("pusher_internal:member_added"));
            assert_eq!(added["user_info"], json!({"tab": "fourth"}));
        }
    });
}

/// P-SDK-9, P-PRES-1: a numeric `user_id` becomes a string everywhere: ids `["669"]`, hash `{"669":null}`.
#[test]
fn numeric_user_ids_become_strings() {
    on_each_driver(|server| {
        let channel = unique("presence-numeric");
        let (mut first, mut second) = pair(server, server.app());
        let roster = first.join(&channel, r#"{"user_id":669}"#);
        assert_eq!(roster, json!({"count": 1, "ids": ["669"], "hash": {"669": null}}));
        second.join(&channel, r#"{"user_id":"670","user_info":null}"#);
        assert_eq!(data(&first.expect_event("pusher_internal:member_added"))["user_id"], "670");
        // P-PRES-1: 669 and "669" are one user.
        let mut third = Socket::open(server, server.app());
        assert_eq!(third.join(&channel, r#"{"user_id":"669"}"#)["count"], 2);
        first.expect_quiet();
    });
}

/// P-PRES-2, P-PRES-3, P-PRES-5: many connections of one user are one member: joined by the first, left by the last, its first
/// `user_info` kept until then.
#[test]
fn many_connections_of_one_user_are_one_member() {
    on_each_driver(|server| {
        let channel = unique("presence-tabs");
        let mut watcher = Socket::open(server, server.app());
        watcher.join(&channel, r#"{"user_id":"watcher"}"#);
        let mut tabs: Vec<Socket> = (0..6).map(|_| Socket::open(server, server.app())).collect();
        for (index, tab) in tabs.iter_mut().enumerate() {
            let roster = tab.join(&channel, &format!(r#"{{"user_id":"u","user_info":{{"tab":{index}}}}}"#));
            assert_eq!((&roster["count"], &roster["hash"]["u"]["tab"]), (&json!(2), &json!(0)), "{roster}");
            if index == 0 {
                assert_eq!(data(&watcher.expect_event("pusher_internal:member_added"))["user_info"]["tab"], 0);
            }
            watcher.expect_quiet();
        }
        let body = json!({"name": "e", "channel": channel, "data": "x", "info": "user_count,subscription_count"});
        let answer = server.post_events(server.app(), &body).expect(200).json();
        assert_eq!(answer["channels"][&channel], json!({"user_count": 2, "subscription_count": 7}));
        watcher.expect_data("e", &channel, "x");
        let last = tabs.pop().unwrap();
        for (index, mut tab) in tabs.into_iter().enumerate() {
            tab.expect_event("e");
            if index % 2 == 0 { tab.leave() } else { tab.unsubscribe(&channel) }
        }
        // The test gets the count by publishing, so the watcher gets `count` events and nothing else.
        server.await_subscriptions(server.app(), &channel, 2);
        expect_counts_alone(&mut watcher);
        last.leave();
        assert_eq!(data(&watcher.expect_event("pusher_internal:member_removed"))["user_id"], "u");
        // P-PRES-3: after the last leave the next join brings its own `user_info`.
        let mut tab = Socket::open(server, server.app());
        tab.join(&channel, r#"{"user_id":"u","user_info":{"tab":9}}"#);
        assert_eq!(data(&watcher.expect_event("pusher_internal:member_added"))["user_info"]["tab"], 9);
    });
}

/// P-PRES-2: closing the connection, by Close frame or by reset of the socket, removes the member.
#[test]
fn closing_the_connection_removes_the_member() {
    on_each_driver(|server| {
        let channel = unique("presence-close");
        let mut watcher = Socket::open(server, server.app());
        watcher.join(&channel, r#"{"user_id":"watcher"}"#);
        for user in ["polite", "abrupt"] {
            let mut member = Socket::open(server, server.app());
            member.join(&channel, &json!({"user_id": user}).to_string());
            assert_eq!(data(&watcher.expect_event("pusher_internal:member_added"))["user_id"], user);
            if user == "polite" {
                member.leave()
            } else {
                drop(member)
            }
            assert_eq!(data(&watcher.expect_event("pusher_internal:member_removed"))["user_id"], user);
        }
    });
}

/// P-PRES-1, P-FAIL-1, P-FAIL-2: signed `channel_data` that is not an object with a string or number `user_id` is
/// refused with a reason.
#[test]
fn bad_channel_data_is_refused() {
    on_each_driver(|server| {
        let channel = unique("presence-bad");
        let mut socket = Socket::open(server, server.app());
        for text in [
            "[]",
            "7",
            "\"x\"",
            "{",
            "{}",
            r#"{"user_id":null}"#,
            r#"{"user_id":{}}"#,
            r#"{"user_id":true}"#,
            r#"{"user_info":{}}"#,
            "nonsense",
        ] {
            socket.send_join(&channel, text);
            socket.expect_error(Some(4009));
            let frame = socket.expect_event("pusher:subscription_error");
            assert_eq!(
                (&frame["data"]["type"], &frame["data"]["status"]),
                (&json!("AuthError"), &json!(401)),
                "{text}"
            );
        }
        socket.expect_quiet();
        let auth = socket.app.sign_private(&socket.socket_id, &channel);
        socket.send_json(&json!({"event": "pusher:subscribe", "data": {"auth": auth, "channel": channel}}));
        socket.expect_error(Some(4009));
        socket.expect_event("pusher:subscription_error");
    });
}

/// P-LIM-6, P-LIM-7, P-FAIL-4: user ids of 127 and 128 bytes and `channel_data` of 10,239 and 10,240 bytes join; one byte more gets `LimitReached`
/// 4301.
#[test]
fn size_limits() {
    on_each_driver(|server| {
        let channel = unique("presence-size");
        let id_of = |bytes: usize| json!({"user_id": "u".repeat(bytes)}).to_string();
        let data_of = |bytes: usize| {
            let empty = r#"{"user_id":"1","user_info":""}"#;
            empty.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - empty.len())))
        };
        let mut socket = Socket::open(server, server.app());
        for text in [id_of(127), id_of(128), data_of(10_239), data_of(10_240)] {
            socket.join(&channel, &text);
            socket.unsubscribe(&channel);
        }
        for text in [id_of(129), data_of(10_241)] {
            expect_limit(&mut socket, &channel, &text, 4301);
        }
        for id in ["", "a\nb", "\u{0}"] {
            socket.send_join(&channel, &json!({"user_id": id}).to_string());
            socket.next_json();
            socket.expect_event("pusher:subscription_error");
        }
        socket.expect_quiet();
    });
}

/// P-LIM-7, P-FAIL-4, R-LIM-6, threat T18: the 100th user joins, the 101st is refused with `LimitReached` 4100, another
/// connection of a present user still joins; an app may set its own limit.
#[test]
fn member_limit() {
    on_each_driver(|server| {
        for (app, limit) in [(server.app(), 100), (server.named_app("small"), 3)] {
            let channel = unique("presence-full");
            let mut members: Vec<Socket> = (0..limit)
                .map(|user| {
                    let mut socket = Socket::open(server, app);
                    assert_eq!(socket.join(&channel, &json!({"user_id": user}).to_string())["count"], user + 1);
                    socket
                })
                .collect();
            let mut late = Socket::open(server, app);
            expect_limit(&mut late, &channel, r#"{"user_id":"late"}"#, 4100);
            let mut tab = Socket::open(server, app);
            assert_eq!(tab.join(&channel, r#"{"user_id":"0"}"#)["count"], limit);
            members.pop().unwrap().leave();
            crate::common::eventually("the seat is free", || {
                late.send_join(&channel, r#"{"user_id":"late"}"#);
                let first = late.next_json();
                if first["event"] == "pusher:error" {
                    late.expect_event("pusher:subscription_error");
                    return None;
                }
                assert_eq!(first["event"], "pusher_internal:subscription_succeeded");
                Some(())
            });
        }
    });
}

/// P-LIM-7: a roster of 100 users with 4 KiB of `user_info` each arrives complete, in one frame.
#[test]
fn large_rosters_arrive_whole() {
    on_each_driver(|server| {
        let channel = unique("presence-large");
        let info = "i".repeat(4096);
        let mut members = Vec::new();
        for user in 0..100 {
            let mut socket = Socket::open(server, server.app());
            let roster = socket.join(&channel, &json!({"user_id": user, "user_info": info}).to_string());
            if user == 99 {
                let hash = roster["hash"].as_object().unwrap();
                assert_eq!(hash.len(), 100);
                assert!(hash.values().all(|value| value == &json!(info)));
                let ids: Vec<&str> = roster["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
                assert!(ids.iter().all(|id| hash.contains_key(*id)), "P-SDK-9");
            }
            members.push(socket);
        }
    });
}

fn expect_counts_alone(socket: &mut Socket) {
    socket.send(r#"{"event":"pusher:ping","data":{}}"#);
    loop {
        let frame = socket.next_json();
        match frame["event"].as_str() {
            Some("count") => {}
            event => return assert_eq!(event, Some("pusher:pong"), "{frame}"),
        }
    }
}

fn pair(server: &TestServer, app: &App) -> (Socket, Socket) {
    (Socket::open(server, app), Socket::open(server, app))
}

fn data(frame: &Value) -> Value {
    serde_json::from_str(frame["data"].as_str().expect("data is a string")).expect("data holds JSON")
}

fn expect_limit(socket: &mut Socket, channel: &str, channel_data: &str, status: u16) {
    socket.send_join(channel, channel_data);
    socket.expect_error(None);
    let frame = socket.expect_event("pusher:subscription_error");
    assert_eq!((&frame["data"]["type"], &frame["data"]["status"]), (&json!("LimitReached"), &json!(status)), "{frame}");
}
