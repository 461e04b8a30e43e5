//! Users (section 6 of the Pusher protocol): signin, the channel of a user, presence as a user, and how an app ends all
//! connections of one user.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::cli::create_token;
use crate::common::http::{self, Response};
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::App;
use crate::common::socket::Socket;
use crate::common::unique;
use crate::stage::on_each_driver;

/// P-USER-1, P-OUT-9, P-AUTH-4, P-SDK-10: a signed signin is answered with exactly the data sent, byte for byte,
/// without a channel.
#[test]
fn signin_is_echoed_exactly() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        socket.send_signin(r#"{"id":"u1"}"#);
        let expected = r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"u1\\\"}\"}"}"#;
        assert_eq!(socket.next_text(), expected);
        for user_data in [
            r#" { "user_info" : {"n":1.0,"\u00e9":"\"\\"} , "id" : "\u0075" , "x":[1e309]}"#,
            r#"{"id":"a@b.c,d;e:f#g=h_i-j","watchlist":["x","y"]}"#,
            &json!({"id": "u".repeat(128), "user_info": {"x": "i".repeat(10_000)}}).to_string(),
        ] {
            Socket::open(server, server.app()).sign_in(user_data);
        }
    });
}

/// P-USER-3, P-AUTH-4, P-AUTH-5, P-LIM-6: a signin that does not prove a user gets 4009 and a reason that P-FAIL-6
/// allows; the socket stays open, and a later signin succeeds.
#[test]
fn failed_signins_are_told() {
    on_each_driver(|server| {
        let (app, other) = (server.app(), server.named_app("other"));
        let mut socket = Socket::open(server, app);
        let good = r#"{"id":"u1"}"#;
        let (id, digest) = (socket.socket_id.clone(), app.sign_user(&socket.socket_id, good));
        let hex = digest.rsplit_once(':').unwrap().1.to_owned();
        let refusals = [
            (json!({"auth": other.sign_user(&id, good), "user_data": good}), "Invalid key in subscription auth data"),
            (json!({"auth": "", "user_data": good}), "Invalid key"),
            (json!({"auth": hex, "user_data": good}), "Invalid key"),
            (json!({"auth": app.sign_user("1.1", good), "user_data": good}), "Invalid signature"),
            (
                json!({"auth": digest.to_uppercase().replace(&app.key.to_uppercase(), &app.key), "user_data": good}),
                "Invalid signature",
            ),
            (json!({"auth": digest, "user_data": r#"{"id":"u2"}"#}), "Invalid signature"),
            (json!({"auth": app.sign_presence(&id, "user", good), "user_data": good}), "Invalid signature"),
            (json!({"auth": digest}), "auth and user_data"),
            (json!({"user_data": good}), "auth and user_data"),
            (json!({"auth": digest, "user_data": {"id": "u1"}}), "auth and user_data"),
            (json!({}), "auth and user_data"),
        ];
        for (data, reason) in refusals {
            socket.send_json(&json!({"event": "pusher:signin", "data": data}));
            let message = socket.expect_error(Some(4009));
            assert!(message.contains(reason), "{data}: {message}");
            // Input may be quoted; the expected value never is.
            assert!(data.to_string().contains(&hex) || !message.contains(&hex), "{data}: {message}");
        }
        for (user_data, reason) in [
            ("[]", "JSON object"),
            ("{}", "must have an id"),
            (r#"{"id":true}"#, "must have an id"),
            (r#"{"id":""}"#, "must have an id"),
            (r#"{"id":"a b"}"#, "the character ' '"),
            (r#"{"id":"anne+x"}"#, "the character '+'"),
            (&json!({"id": "u".repeat(129)}).to_string(), "1 to 128 bytes"),
            (r#"{"id":"u1","user_info":7}"#, "must be an object"),
            (&json!({"id": "u1", "user_info": {"x": "i".repeat(10_240)}}).to_string(), "10240 bytes"),
            (r#"{"id":"u1","watchlist":{}}"#, "array of user ids"),
        ] {
            socket.send_signin(user_data);
            let message = socket.expect_error(Some(4009));
            assert!(message.contains(reason), "{user_data}: {message}");
        }
        socket.expect_quiet();
        socket.sign_in(good);
    });
}

/// P-USER-1, P-SDK-9, P-USER-4, P-USER-6: an id that is a number (Laravel) becomes the string that JavaScript makes of
/// it: for the client, for its channel, for presence and for the application.
#[test]
fn numeric_ids_are_strings() {
    on_each_driver(|server| {
        let app = server.app();
        let channel = unique("presence-number");
        for (number, text) in [("4711", "4711"), ("8.0", "8"), ("12345678901234567890", "12345678901234567000")] {
            let mut socket = Socket::open(server, app);
            socket.send_signin(&format!(r#"{{"id":{number},"user_info":{{"id":9}}}}"#));
            let data: Value = serde_json::from_str(socket.next_json()["data"].as_str().unwrap()).unwrap();
            assert_eq!(data["user_data"], format!(r#"{{"id":"{text}","user_info":{{"id":9}}}}"#));
            socket.subscribe(&format!("#server-to-user-{text}"));
            server.publish(app, &format!("#server-to-user-{text}"), "e", "for you");
            socket.expect_data("e", &format!("#server-to-user-{text}"), "for you");
            let mut member = Socket::open(server, app);
            let roster = member.join(&channel, &format!(r#"{{"user_id":{number}}}"#));
            assert!(roster["hash"].as_object().unwrap().contains_key(text), "{roster}");
            server.post_signed(app, &app.path(&format!("/users/{text}/terminate_connections")), b"{}").expect(200);
            socket.expect_fatal(4009);
        }
    });
}

/// P-USER-2: the same user may sign in again, another may not, and the connection keeps its user.
#[test]
fn one_user_per_connection_for_life() {
    on_each_driver(|server| {
        let user = unique("user");
        let mut socket = Socket::open(server, server.app());
        socket.sign_in(&json!({"id": user}).to_string());
        socket.sign_in(&json!({"user_info": {"later": true}, "id": user}).to_string());
        socket.send_signin(r#"{"id":"somebody-else"}"#);
        assert!(socket.expect_error(Some(4009)).contains("another user"));
        socket.send_subscribe("#server-to-user-somebody-else");
        socket.expect_error(Some(4009));
        socket.expect_event("pusher:subscription_error");
        socket.subscribe(&format!("#server-to-user-{user}"));
    });
}

/// P-USER-2, P-USER-3: pipelined signins are all answered in their order, except those beyond eight that await the
/// user's owner.
#[test]
fn pipelined_signins_are_bounded() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for number in 0..200 {
            socket.send_signin(&json!({"id": "piper", "number": number}).to_string());
        }
        let mut last = None;
        for _ in 0..200 {
            let frame = socket.next_json();
            if frame["event"] == "pusher:error" {
                assert_eq!(frame["data"]["message"], "Too many signins are in flight on this connection");
                continue;
            }
            let data: serde_json::Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
            let user: serde_json::Value = serde_json::from_str(data["user_data"].as_str().unwrap()).unwrap();
            assert!(last < user["number"].as_u64(), "{frame} after {last:?}");
            last = user["number"].as_u64();
        }
        assert!(last.is_some());
        socket.expect_quiet();
    });
}

/// P-USER-4, P-SDK-25: `#server-to-user-<id>` accepts the connections of that user, with empty auth and with none, on
/// every shard; an event published to it reaches each of them and no other connection. Others are refused with the
/// error of P-FAIL-1 alone, without `auth_required`.
#[test]
fn the_channel_of_a_user() {
    on_each_driver(|server| {
        let user = unique("user");
        let channel = format!("#server-to-user-{user}");
        let mut tabs: Vec<Socket> = (0..8).map(|_| Socket::open(server, server.app())).collect();
        for (index, tab) in tabs.iter_mut().enumerate() {
            tab.sign_in(&json!({"id": user}).to_string());
            let data =
                if index % 2 == 0 { json!({"channel": channel}) } else { json!({"auth": "", "channel": channel}) };
            tab.send_json(&json!({"event": "pusher:subscribe", "data": data}));
            tab.expect_data("pusher_internal:subscription_succeeded", &channel, "{}");
        }
        let mut nobody = Socket::open(server, server.app());
        let mut neighbour = Socket::open(server, server.app());
        neighbour.sign_in(&json!({"id": format!("{user}0")}).to_string());
        let mut namesake = Socket::open(server, server.named_app("other"));
        namesake.sign_in(&json!({"id": user}).to_string());
        namesake.subscribe(&channel);
        for socket in [&mut nobody, &mut neighbour] {
            for auth in [json!(null), json!(""), json!(socket.app.sign_private(&socket.socket_id, &channel))] {
                let data = json!({"auth": auth, "channel": channel});
                socket.send_json(&json!({"event": "pusher:subscribe", "data": data}));
                let message = socket.expect_error(Some(4009));
                assert!(message.starts_with("Invalid "), "{message}");
                let frame = socket.expect_event("pusher:subscription_error");
                assert_eq!((&frame["channel"], &frame["data"]["status"]), (&json!(channel), &json!(401)));
            }
        }
        server.publish(server.app(), &channel, "greeting", "hello");
        for tab in &mut tabs {
            tab.expect_data("greeting", &channel, "hello");
            tab.expect_quiet();
        }
        for socket in [&mut nobody, &mut neighbour, &mut namesake] {
            socket.expect_quiet();
        }
        tabs[0].unsubscribe(&channel);
        tabs[0].subscribe(&channel);
    });
}

/// P-USER-5, P-AUTH-3: a signed-in connection joins a presence channel as that user, signed without `channel_data`;
/// explicit `channel_data` wins, and a connection that is not signed in needs it.
#[test]
fn presence_as_the_signed_in_user() {
    on_each_driver(|server| {
        let channel = unique("presence-signed-in");
        let join = |socket: &mut Socket, data: serde_json::Value| {
            let auth = socket.app.sign_private(&socket.socket_id, &channel);
            let mut subscribe = json!({"auth": auth, "channel": channel});
            if !data.is_null() {
                subscribe["channel_data"] = data;
            }
            socket.send_json(&json!({"event": "pusher:subscribe", "data": subscribe}));
        };
        let mut first = Socket::open(server, server.app());
        first.sign_in(r#"{"id":"alice","user_info":{"name":"A"},"watchlist":[]}"#);
        join(&mut first, json!(null));
        let succeeded = format!(
            r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{\"presence\":{{\"count\":1,\"ids\":[\"alice\"],\"hash\":{{\"alice\":{{\"name\":\"A\"}}}}}}}}"}}"#
        );
        assert_eq!(first.next_text(), succeeded);
        let mut second = Socket::open(server, server.app());
        second.sign_in(r#"{"id":"bob"}"#);
        let explicit = r#"{"user_id":"carol","user_info":{"name":"C"}}"#;
        assert_eq!(second.join(&channel, explicit)["hash"]["carol"]["name"], "C");
        first.expect_event("pusher_internal:member_added");
        second.unsubscribe(&channel);
        first.expect_event("pusher_internal:member_removed");
        // The signature of P-AUTH-3 does not cover `channel_data`.
        join(&mut second, json!(explicit));
        second.expect_error(Some(4009));
        second.expect_event("pusher:subscription_error");
        join(&mut second, json!(null));
        second.expect_event("pusher_internal:subscription_succeeded");
        let added = format!(
            r#"{{"event":"pusher_internal:member_added","channel":"{channel}","data":"{{\"user_id\":\"bob\"}}"}}"#
        );
        assert_eq!(first.next_text(), added);
        let mut nobody = Socket::open(server, server.app());
        join(&mut nobody, json!(null));
        nobody.expect_error(Some(4009));
        nobody.expect_event("pusher:subscription_error");
    });
}

/// P-USER-6, P-HTTP-6, threat T29: the end of a user reaches all its connections on all of 1, 2 and 5 shards within 100 ms, with `pusher:error`
/// and Close 4009; presence members of that id, other users, and the user of another app stay; the user may come back.
#[test]
fn terminating_a_user() {
    for shards in [1, 2, 5] {
        on_fresh_servers(
            |driver| ServerOptions::new(driver).shards(shards).app("other", &[]),
            |server| terminate_one(&server),
        );
    }
}

fn terminate_one(server: &TestServer) {
    let user_data = r#"{"id":"alice"}"#;
    let signed_in = |app: &App, user_data: &str| {
        let mut socket = Socket::open(server, app);
        socket.sign_in(user_data);
        socket
    };
    let mut member = Socket::open(server, server.app());
    member.join("presence-room", r#"{"user_id":"alice"}"#);
    let mut others = vec![
        signed_in(server.app(), r#"{"id":"alice2"}"#),
        signed_in(server.named_app("other"), user_data),
        Socket::open(server, server.app()),
        member,
    ];
    // The fastest of some rounds: a test must not depend on other load on the machine.
    let rounds = (0..4).map(|round| {
        let mut tabs: Vec<Socket> = (0..20).map(|_| signed_in(server.app(), user_data)).collect();
        // P-USER-5: a connection that is a member as the user ends with the user.
        let auth = tabs[0].app.sign_private(&tabs[0].socket_id, "presence-room");
        tabs[0].send_json(&json!({"event": "pusher:subscribe", "data": {"auth": auth, "channel": "presence-room"}}));
        assert!(tabs[0].next_text().contains(r#"\"count\":1"#));
        let start = Instant::now();
        let body: &[u8] = if round % 2 == 0 { b"{}" } else { b"" };
        assert_eq!(terminate(server, "/users/alice/terminate_connections", body).expect(200).text(), "{}");
        for tab in &mut tabs {
            assert_eq!(tab.expect_error(Some(4009)), "You got disconnected by the app");
            assert_eq!(tab.expect_close(4009), "You got disconnected by the app");
        }
        start.elapsed()
    });
    let fastest = rounds.min().expect("there were rounds");
    assert!(fastest < Duration::from_millis(100), "T29: {fastest:?} for 20 connections");
    for socket in &mut others {
        socket.expect_quiet();
    }
    signed_in(server.app(), user_data).expect_quiet();
}

fn terminate(server: &TestServer, path: &str, body: &[u8]) -> Response {
    server.post_signed(server.app(), &server.app().path(path), body)
}

/// P-HTTP-6, P-LIM-6, P-SDK-15, R-BASE-1: both bases, escaped ids, users without connections, and ids that no user may
/// have; GET is 405.
#[test]
fn terminate_over_http() {
    on_each_driver(|server| {
        let app = server.app();
        let mut socket = Socket::open(server, app);
        socket.sign_in(r#"{"id":"a@b,c"}"#);
        assert_eq!(terminate(server, "/users/nobody/terminate_connections", b"{}").expect(200).text(), "{}");
        terminate(server, &format!("/users/{}/terminate_connections", "u".repeat(128)), b"{}").expect(200);
        terminate(server, &format!("/users/{}/terminate_connections", "u".repeat(129)), b"{}").expect(400);
        terminate(server, "/users/a%0Ab/terminate_connections", b"{}").expect(400);
        terminate(server, "/users//terminate_connections", b"{}").expect(404);
        terminate(server, "/users/a", b"{}").expect(404);
        terminate(server, "/users/a/terminate_connections/x", b"{}").expect(404);
        let path = app.path("/users/a/terminate_connections");
        let answer = http::get(server.address, &app.sign("GET", &path, b"")).expect(405);
        assert_eq!(answer.header("allow"), Some("POST"));
        socket.expect_quiet();
        let answer =
            server.post_signed(app, &app.relay_path("/users/a%40b%2Cc/terminate_connections"), b"").expect(200);
        assert_eq!((answer.text(), answer.header("content-type")), ("{}", Some("application/json")));
        socket.expect_fatal(4009);
    });
}

/// P-HTTP-10: without `/apps/{id}` the app is that of `auth_key`, and the signature covers the short path; an unknown
/// key, another signature and none at all are 401.
#[test]
fn terminate_by_the_short_path() {
    on_each_driver(|server| {
        let (app, other) = (server.app(), server.named_app("other"));
        let user = unique("user");
        let path = format!("/users/{user}/terminate_connections");
        let mut socket = Socket::open(server, app);
        socket.sign_in(&json!({"id": user}).to_string());
        let unknown = App { key: "unknown".into(), ..app.clone() };
        let forged = App { secret: "forged".into(), ..app.clone() };
        for signer in [&unknown, &forged] {
            server.post_signed(signer, &path, b"{}").expect(401);
        }
        let elsewhere = app.sign("POST", &app.path(&path), b"{}").replace(&app.path(""), "");
        http::ask(server.address, "POST", &elsewhere, &[], b"{}").expect(401);
        http::ask(server.address, "POST", &path, &[], b"{}").expect(401);
        http::get(server.address, &app.sign("GET", &path, b"")).expect(405);
        assert_eq!(server.post_signed(other, &path, b"{}").expect(200).text(), "{}");
        socket.expect_quiet();
        assert_eq!(server.post_signed(app, &path, b"{}").expect(200).text(), "{}");
        socket.expect_fatal(4009);
    });
}

/// R-TOKEN-6, P-STAT-2, P-STAT-3: a token needs `connections:manage`; no credential is 401 and changes nothing.
#[test]
fn terminating_needs_its_scope() {
    on_each_driver(|server| {
        let app = server.app();
        let user = unique("user");
        let path = app.relay_path(&format!("/users/{user}/terminate_connections"));
        let ask = |headers: &[(&str, &str)]| http::ask(server.address, "POST", &path, headers, b"{}");
        let mut socket = Socket::open(server, app);
        socket.sign_in(&json!({"id": user}).to_string());
        ask(&[]).expect(401);
        let reader = create_token(&server.data, app, &["--scopes", "connections:read,channels:read"]);
        let manager = create_token(&server.data, app, &["--scopes", "connections:manage"]);
        let bearer = |token: &str| format!("Bearer {token}");
        crate::common::eventually("the tokens are known", || {
            (ask(&[("Authorization", &bearer(&reader.token))]).status == 403).then_some(())
        });
        socket.expect_quiet();
        crate::common::eventually("the manager is known", || {
            (ask(&[("Authorization", &bearer(&manager.token))]).status == 200).then_some(())
        });
        socket.expect_fatal(4009);
    });
}
