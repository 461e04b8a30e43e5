//! Reading over HTTP: channels, users, connections, and the deprecated routes (section 7 of the Pusher protocol).

use serde_json::{Value, json};

use crate::common::cli::create_token;
use crate::common::http::{self, HttpConnection, Response};
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing};
use crate::common::socket::Socket;
use crate::common::{eventually, unique};
use crate::stage::{on_each_driver, with_shards};

/// A signed GET below the app, with further parameters.
fn ask(server: &TestServer, app: &App, path: &str, parameters: &[(&str, &str)]) -> Response {
    let mut signing = Signing::new(app, "GET", &app.path(path), b"");
    for (name, value) in parameters {
        signing.set(name, value);
    }
    http::get(server.address, &signing.target())
}

fn read(server: &TestServer, path: &str, parameters: &[(&str, &str)]) -> Value {
    ask(server, server.app(), path, parameters).expect(200).json()
}

/// P-HTTP-3, P-SDK-17, R-READ-1: occupied channels of this app alone, on any shard; by prefix; with counts where they
/// apply; an object even when there is none.
#[test]
fn occupied_channels_are_listed() {
    with_shards(|server| {
        assert_eq!(ask(server, server.app(), "/channels", &[]).expect(200).text(), r#"{"channels":{}}"#);
        let mut sockets: Vec<Socket> = (0..6).map(|_| Socket::open(server, server.app())).collect();
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.subscribe("all");
            socket.subscribe(&format!("private-own-{index}"));
            socket.join("presence-room", &json!({"user_id": index / 2}).to_string());
        }
        let listed = read(server, "/channels", &[]);
        assert_eq!(listed["channels"].as_object().unwrap().len(), 8);
        assert_eq!(listed["channels"]["all"], json!({}));
        let own = read(server, "/channels", &[("filter_by_prefix", "private-own-")]);
        assert_eq!(own["channels"].as_object().unwrap().len(), 6);
        let counts = json!({"channels": {"presence-room": {"user_count": 3, "subscription_count": 6}}});
        let both = [("filter_by_prefix", "presence-"), ("info", "user_count,subscription_count")];
        assert_eq!(read(server, "/channels", &both), counts);
        assert_eq!(read(server, "/channels", &[("filter_by_prefix", "x")]), json!({"channels": {}}));
        sockets.into_iter().for_each(Socket::leave);
        eventually("all channels are vacated", || {
            (read(server, "/channels", &[]) == json!({"channels": {}})).then_some(())
        });
    });
}

/// P-HTTP-4, P-HTTP-8, P-HTTP-11: one channel, occupied or not, and its deprecated stats.
#[test]
fn one_channel() {
    with_shards(|server| {
        let empty = json!({"occupied": false});
        assert_eq!(read(server, "/channels/nobody", &[]), empty);
        assert_eq!(read(server, "/channels/nobody", &[("info", "user_count")]), empty);
        let mut sockets: Vec<Socket> = (0..4).map(|_| Socket::open(server, server.app())).collect();
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.subscribe("open");
            socket.join("presence-p", &json!({"user_id": index.min(2)}).to_string());
        }
        let info = [("info", "user_count,subscription_count,nonsense")];
        assert_eq!(read(server, "/channels/open", &info), json!({"occupied": true, "subscription_count": 4}));
        let presence = json!({"occupied": true, "user_count": 3, "subscription_count": 4});
        assert_eq!(read(server, "/channels/presence-p", &info), presence);
        assert_eq!(read(server, "/channels/presence-p", &[]), json!({"occupied": true}));
        let stats = json!({"occupied": true, "user_count": 3, "connection_count": 4});
        assert_eq!(read(server, "/channels/presence-p/stats", &[]), stats);
        ask(server, server.app(), "/channels/no%20name", &[]).expect(400);
    });
}

/// P-HTTP-5: users of a presence channel, with their info on request; without users an empty array; other types are
/// 400.
#[test]
fn users_of_a_channel() {
    with_shards(|server| {
        assert_eq!(read(server, "/channels/presence-u/users", &[]), json!({"users": []}));
        let mut sockets: Vec<Socket> = (0..4).map(|_| Socket::open(server, server.app())).collect();
        let data = [
            r#"{"user_id":7,"user_info":{"n":"A"}}"#,
            r#"{"user_id":"b"}"#,
            r#"{"user_id":"b"}"#,
            r#"{"user_id":"c"}"#,
        ];
        for (socket, data) in sockets.iter_mut().zip(data) {
            socket.join("presence-u", data);
        }
        let ids = json!({"users": [{"id": "7"}, {"id": "b"}, {"id": "c"}]});
        assert_eq!(read(server, "/channels/presence-u/users", &[]), ids);
        let with_info = read(server, "/channels/presence-u/users", &[("with_user_info", "1")]);
        assert_eq!(with_info["users"][0], json!({"id": "7", "user_info": {"n": "A"}}));
        assert_eq!(with_info["users"][1], json!({"id": "b", "user_info": null}));
        for channel in ["open", "private-u", "cache-presence-u"] {
            ask(server, server.app(), &format!("/channels/{channel}/users"), &[]).expect(400);
        }
    });
}

/// P-HTTP-7: the deprecated publish: name and socket_id in the query, the raw body is the data, 202.
#[test]
fn deprecated_publish() {
    with_shards(|server| {
        let app = server.app();
        let (mut first, mut second) = (Socket::open(server, app), Socket::open(server, app));
        first.subscribe("old");
        second.subscribe("old");
        let publish = |parameters: &[(&str, &str)], body: &str| {
            let mut signing = Signing::new(app, "POST", &app.path("/channels/old/events"), body.as_bytes());
            for (name, value) in parameters {
                signing.set(name, value);
            }
            http::ask(server.address, "POST", &signing.target(), &[], body.as_bytes())
        };
        assert_eq!(publish(&[("name", "e")], r#"{"a":"é"}"#).expect(202).text(), "{}");
        first.expect_data("e", "old", r#"{"a":"é"}"#);
        second.expect_data("e", "old", r#"{"a":"é"}"#);
        publish(&[("name", "e"), ("socket_id", &first.socket_id)], "plain").expect(202);
        second.expect_data("e", "old", "plain");
        publish(&[], "no name").expect(400);
        publish(&[("name", "pusher:x")], "").expect(400);
        publish(&[("name", "e"), ("socket_id", "nonsense")], "").expect(400);
        publish(&[("name", "e")], &"d".repeat(10_241)).expect(413);
        first.expect_quiet();
        second.expect_quiet();
    });
}

/// P-HTTP-9, R-READ-2: the open connections of this app, on all shards, and of no other app.
#[test]
fn connections_of_the_app() {
    let options = |driver, shards| ServerOptions::new(driver).shards(shards).app("other", &[]);
    for shards in [1, 3] {
        on_fresh_servers(
            |driver| options(driver, shards),
            |server| {
                let await_count = |app: &App, count: usize| {
                    eventually("the count", || {
                        let answer = ask(&server, app, "/connections", &[]).expect(200).json();
                        (answer == json!({"connections": count})).then_some(())
                    });
                };
                let mut sockets: Vec<Socket> = (0..7).map(|_| Socket::open(&server, server.app())).collect();
                await_count(server.app(), 7);
                await_count(server.named_app("other"), 0);
                sockets.drain(..5).for_each(Socket::leave);
                await_count(server.app(), 2);
            },
        );
    }
}

/// R-BASE-1, R-TOKEN-6, R-ERR-1: both bases, all three ways to authenticate, and the scope that each query needs.
#[test]
fn bases_credentials_and_scopes() {
    on_each_driver(|server| {
        let app = server.app();
        let rows = [
            ("/channels", "channels:read"),
            ("/channels/c", "channels:read"),
            ("/channels/c/stats", "channels:read"),
            ("/channels/presence-c/users", "presence:read"),
            ("/connections", "connections:read"),
        ];
        let token_of = |scope| create_token(&server.data, app, &["--scopes", scope]).token;
        let tokens: Vec<(&str, String)> = ["channels:read", "presence:read", "connections:read", "events:publish"]
            .map(|scope| (scope, token_of(scope)))
            .into();
        let with_token = |path: &str, token: &str| {
            http::ask(server.address, "GET", path, &[("Authorization", &format!("Bearer {token}"))], b"")
        };
        for (rest, needed) in rows {
            for path in [app.path(rest), app.relay_path(rest)] {
                http::get(server.address, &app.sign("GET", &path, b"")).expect(200);
                http::get(server.address, &path).expect(401);
                let headers = [("X-Relay-Key", app.key.as_str()), ("X-Relay-Secret", app.secret.as_str())];
                http::ask(server.address, "GET", &path, &headers, b"").expect(200);
                http::ask(server.address, "POST", &path, &headers, b"").expect(405);
                for (scope, token) in &tokens {
                    let status = if *scope == needed { 200 } else { 403 };
                    eventually("the token is known", || (with_token(&path, token).status == status).then_some(()));
                }
            }
        }
        let refused = with_token(&app.relay_path("/channels"), &tokens[3].1).expect(403).json();
        assert_eq!(refused["error"], "forbidden");
    });
}

/// P-SDK-18, P-SDK-20: the digest that the Python SDK sends on GET is accepted, and arrays as the PHP SDK sends them.
#[test]
fn queries_as_sdks_send_them() {
    on_each_driver(|server| {
        let app = server.app();
        let channel = unique("presence-sdk");
        let mut socket = Socket::open(server, app);
        socket.join(&channel, r#"{"user_id":"1"}"#);
        let path = format!("/channels/{channel}");
        let python = [("body_md5", "d41d8cd98f00b204e9800998ecf8427e"), ("info", "user_count,subscription_count")];
        let counted = json!({"occupied": true, "user_count": 1, "subscription_count": 1});
        assert_eq!(read(server, &path, &python), counted);
        let signing = {
            let mut signing = Signing::new(app, "GET", &app.path(&path), b"");
            signing.set("info", "user_count,subscription_count");
            signing
        };
        let sent = signing
            .target()
            .replace("info=user_count,subscription_count", "info[0]=user_count&info[1]=subscription_count");
        assert_eq!(http::get(server.address, &sent).expect(200).json(), counted);
    });
}

/// P-HTTP-11: with `strict_pusher_info` an attribute that does not apply is 400 for queries; a publish is never refused
/// for it.
#[test]
fn strict_info() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).with(&["--strict-pusher-info"]),
        |server| {
            let (app, users) = (server.app(), [("info", "user_count")]);
            ask(&server, app, "/channels", &users).expect(400);
            ask(&server, app, "/channels/open", &users).expect(400);
            ask(&server, app, "/channels/presence-p", &users).expect(200);
            ask(&server, app, "/channels", &[("info", "user_count"), ("filter_by_prefix", "presence-")]).expect(200);
            ask(&server, app, "/channels", &[("info", "subscription_count")]).expect(200);
            let publish = |channel: &str| json!({"name": "e", "channel": channel, "data": "", "info": "user_count"});
            assert_eq!(server.post_events(app, &publish("open")).expect(200).json(), json!({"channels": {"open": {}}}));
            server.post_events(app, &publish("presence-p")).expect(200);
        },
    );
}

/// P-HTTP-16, P-HTTP-15: queries and publishes pipelined on one connection are answered in order.
#[test]
fn pipelined_queries_keep_their_order() {
    with_shards(|server| {
        let app = server.app();
        let mut socket = Socket::open(server, app);
        socket.subscribe("order");
        let mut connection = HttpConnection::open(server.address);
        for _ in 0..10 {
            for path in ["/channels", "/connections", "/channels/order", "/channels/none"] {
                connection.send("GET", &app.sign("GET", &app.path(path), b""), &[], b"");
            }
        }
        for _ in 0..10 {
            for expected in [
                json!({"channels": {"order": {}}}),
                json!({"connections": 1}),
                json!({"occupied": true}),
                json!({"occupied": false}),
            ] {
                assert_eq!(connection.read().expect(200).json(), expected);
            }
        }
    });
}
