//! Connecting: the URL, the first frame, refusals at the handshake (section 2 of the Pusher protocol).

use std::collections::HashSet;

use serde_json::json;
use tungstenite::Message;

use crate::common::eventually;
use crate::common::http;
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::App;
use crate::common::socket::{Arrival, QUERY, Socket};
use crate::common::wire::{FIN, PONG, RSV1, RawSocket, TEXT, frame};
use crate::stage::on_each_driver;

/// P-CONN-1, P-CONN-9, P-SDK-1, P-SDK-2, P-SDK-3, P-SDK-10, P-LIVE-3: the first message is `connection_established`,
/// byte for byte, with its data as a string and a timeout of 40 s.
#[test]
fn first_message_is_connection_established() {
    on_each_driver(|server| {
        let app = server.app();
        let mut socket = Socket::upgrade(server, app, &format!("/app/{}{QUERY}", app.key));
        let text = socket.next_text();
        let id = text.split("\\\"").nth(3).expect("a socket id in the string");
        let expected = format!(
            r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{id}\",\"activity_timeout\":40}}"}}"#
        );
        assert_eq!(text, expected);
        assert!(is_socket_id(id), "P-SDK-23: {id:?}");
    });
}

/// P-SDK-23, P-CONN-10: socket ids are two decimal integers, the first at least 1, all different, also over a restart.
#[test]
fn socket_ids_are_unique_over_a_restart() {
    on_fresh_servers(ServerOptions::new, |server| {
        let mut seen = HashSet::new();
        let collect = |server: &TestServer, seen: &mut HashSet<String>| {
            let app = server.app().clone();
            for _ in 0..100 {
                let id = Socket::open(server, &app).socket_id;
                assert!(is_socket_id(&id), "{id:?}");
                assert!(seen.insert(id.clone()), "{id} was given twice");
            }
        };
        collect(&server, &mut seen);
        let server = server.restart(&[]);
        collect(&server, &mut seen);
    });
}

/// P-CONN-2: with a path prefix, WebSockets and HTTP answer with and without it.
#[test]
fn path_prefix_is_optional_for_clients() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).with(&["--path-prefix", "/realtime"]),
        |server| {
            let app = server.app();
            for prefix in ["", "/realtime"] {
                let mut socket = Socket::upgrade(&server, app, &format!("{prefix}/app/{}{QUERY}", app.key));
                socket.established();
                socket.subscribe("c");
                let body = json!({"name": "e", "channel": "c", "data": prefix}).to_string();
                let path = format!("{prefix}{}", app.path("/events"));
                server.post_signed(app, &path, body.as_bytes()).expect(200);
                socket.expect_data("e", "c", prefix);
                // P-SIGN-5: the SDK may have signed the path without the prefix.
                let unprefixed = app.sign("POST", &app.path("/events"), body.as_bytes());
                let target = format!("{prefix}{unprefixed}");
                http::ask(server.address, "POST", &target, &[], body.as_bytes()).expect(200);
            }
        },
    );
}

/// P-CONN-3: protocols 4 to 7 and none at all are accepted; a value that is not an integer gets 4006, other integers
/// 4007.
#[test]
fn protocol_versions() {
    on_each_driver(|server| {
        let app = server.app();
        for accepted in ["?protocol=4", "?protocol=5", "?protocol=6", "?protocol=7", "", "?client=js"] {
            Socket::upgrade(server, app, &format!("/app/{}{accepted}", app.key)).established();
        }
        for (query, code) in [
            ("?protocol=abc", 4006),
            ("?protocol=7.0", 4006),
            ("?protocol=", 4006),
            ("?protocol=0", 4007),
            ("?protocol=3", 4007),
            ("?protocol=8", 4007),
            ("?protocol=4000000000", 4007),
        ] {
            let mut socket = Socket::upgrade(server, app, &format!("/app/{}{query}", app.key));
            socket.expect_fatal(code);
        }
    });
}

/// P-CONN-3, P-CONN-5: in `strict_protocol` a missing protocol gets 4008 and a malformed version 4006.
#[test]
fn strict_protocol_refuses_what_is_missing() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).with(&["--strict-protocol"]),
        |server| {
            let app = server.app();
            Socket::open(&server, app);
            for (query, code) in [("", 4008), ("?protocol=7&client=js&version=..", 4006)] {
                Socket::upgrade(&server, app, &format!("/app/{}{query}", app.key)).expect_fatal(code);
            }
        },
    );
}

/// P-CONN-4, P-CONN-5: the client's name and version, and unknown parameters, have no effect.
#[test]
fn client_version_and_unknown_parameters_are_ignored() {
    on_each_driver(|server| {
        let app = server.app();
        for query in [
            "?protocol=7&client=java-client&version=2.4.4",
            "?protocol=5&client=pusher-dotnet-client&version=not..a-version",
            "?client=%00%ff&flash=true&version=",
            "?a=b&c&=d&protocol=7&&",
        ] {
            Socket::upgrade(server, app, &format!("/app/{}{query}", app.key)).established();
        }
    });
}

/// P-CONN-6, P-SDK-11: the first offered `pusher-channels-protocol-N` is echoed; other subprotocols are not.
#[test]
fn subprotocol_is_echoed() {
    on_each_driver(|server| {
        let app = server.app();
        let target = format!("/app/{}{QUERY}", app.key);
        for (offer, echoed) in [
            ("pusher-channels-protocol-7", Some("pusher-channels-protocol-7")),
            ("chat, pusher-channels-protocol-5, pusher-channels-protocol-7", Some("pusher-channels-protocol-5")),
        ] {
            let (mut socket, response) =
                Socket::upgrade_with(server, app, &target, &[("Sec-WebSocket-Protocol", offer)]);
            let header = response.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap());
            assert_eq!(header, echoed);
            socket.established();
        }
        // tungstenite refuses a response without one of the protocols that it offered, so the request is written by
        // hand.
        let request = upgrade_with(&target, "Sec-WebSocket-Protocol: chat\r\n");
        let mut connection = http::HttpConnection::open(server.address);
        connection.write(request.as_bytes()).unwrap();
        let response = connection.try_read_head().unwrap();
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, None));
    });
}

/// P-CONN-7: a binary message closes with 1003.
#[test]
fn binary_message_closes_with_1003() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        socket.send_message(Message::binary(vec![1, 2, 3]));
        loop {
            match socket.next() {
                Arrival::Text(text) => assert!(text.contains("pusher:error"), "{text}"),
                Arrival::Close(code, _) => break assert_eq!(code, 1003),
                other => panic!("Close 1003 was due, not {other:?}"),
            }
        }
    });
}

/// P-CONN-7: an offer of permessage-deflate is declined, and a frame with RSV1 closes with 1002 (threat T9).
#[test]
fn compression_is_declined() {
    on_each_driver(|server| {
        let target = format!("/app/{}{QUERY}", server.app().key);
        let request = upgrade_with(&target, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n");
        let mut connection = http::HttpConnection::open(server.address);
        connection.write(request.as_bytes()).unwrap();
        let response = connection.try_read_head().unwrap();
        assert_eq!((response.status, response.header("sec-websocket-extensions")), (101, None));
        let mut raw = RawSocket::established(server.address, &target);
        raw.write(&frame(FIN | RSV1 | TEXT, b"{}")).unwrap();
        assert_eq!(raw.expect_close(), 1002);
    });
}

/// P-CONN-8, P-SDK-1, P-SDK-4, P-SDK-5, P-SDK-13: refusals complete the upgrade, then send `pusher:error` with a numeric code, then Close
/// with the same code.
#[test]
fn handshake_refusals() {
    on_each_driver(|server| {
        let app = server.app();
        let mut unknown = Socket::upgrade(server, app, &format!("/app/nosuchkey{QUERY}"));
        let message = unknown.expect_fatal(4001);
        assert_eq!(message, "App key nosuchkey not in this cluster. Did you forget to specify the cluster?");
        for path in ["/", "/app", "/app/", "/apps", "/socket", &format!("/app/{}/more", app.key)] {
            Socket::upgrade(server, app, &format!("{path}{QUERY}")).expect_fatal(4005);
        }
        let tls = server.named_app("tls");
        Socket::upgrade(server, tls, &format!("/app/{}{QUERY}", tls.key)).expect_fatal(4000);
    });
}

/// P-CONN-8: an origin that the app does not allow gets 4009; the allowed one, and clients without one, connect.
#[test]
fn origins_are_checked_by_host() {
    on_each_driver(|server| {
        let app = server.named_app("origin");
        let target = format!("/app/{}{QUERY}", app.key);
        let connect = |origin: &str| Socket::upgrade_with(server, app, &target, &[("Origin", origin)]).0;
        for allowed in ["https://example.com", "http://example.com:8080"] {
            connect(allowed).established();
        }
        Socket::open(server, app);
        for refused in ["https://example.com.evil.test", "https://evil.test", "https://notexample.com", "null"] {
            connect(refused).expect_fatal(4009);
        }
        // An empty header is treated as missing.
        connect("").established();
    });
}

/// P-CONN-8: `allowed_origins` can include origins without a host, and refuses clients that send no origin.
#[test]
fn origins_without_a_host_have_words() {
    on_each_driver(|server| {
        let app = server.named_app("files");
        let target = format!("/app/{}{QUERY}", app.key);
        for allowed in ["null", "file://"] {
            Socket::upgrade_with(server, app, &target, &[("Origin", allowed)]).0.established();
        }
        Socket::upgrade_with(server, app, &target, &[("Origin", "https://example.com")]).0.expect_fatal(4009);
        Socket::upgrade(server, app, &target).expect_fatal(4009);
    });
}

/// P-CLOSE-2: beyond the app's quota a connection gets 4004, or 4100 when the app is set so; a connection that leaves
/// frees its place.
#[test]
fn connection_quota() {
    on_each_driver(|server| {
        for (name, limit, code) in [("quota", 2, 4004), ("soft", 1, 4100)] {
            let app = server.named_app(name);
            let mut present: Vec<Socket> = (0..limit).map(|_| Socket::open(server, app)).collect();
            for _ in 0..3 {
                Socket::upgrade(server, app, &format!("/app/{}{QUERY}", app.key)).expect_fatal(code);
            }
            present.pop().unwrap().leave();
            eventually("room for one more", || {
                let mut socket = Socket::upgrade(server, app, &format!("/app/{}{QUERY}", app.key));
                match socket.next() {
                    Arrival::Text(text) if text.contains("connection_established") => Some(()),
                    _ => None,
                }
            });
        }
    });
}

/// P-CLOSE-2: one of two apps can use at most nine tenths of the connections; the other still gets some, even while the
/// first one retries again and again.
#[test]
fn one_app_leaves_connections_to_others() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).shards(1).app("other", &[]).with(&["--max-connections", "100"]),
        |server| {
            let (app, other) = (server.app(), server.named_app("other"));
            let refused = |app: &App| {
                Socket::upgrade(&server, app, &format!("/app/{}{QUERY}", app.key)).expect_fatal(4100);
            };
            let mut present: Vec<Socket> = (0..90).map(|_| Socket::open(&server, app)).collect();
            for _ in 0..3 {
                refused(app);
                present.push(Socket::open(&server, other));
            }
        },
    );
}

/// P-CLOSE-3: a close reason is cut to 123 bytes at a character boundary, whatever the client requested.
#[test]
fn close_reasons_are_cut_at_a_character() {
    on_each_driver(|server| {
        for pad in 0..4 {
            let key = format!("{}{}", "a".repeat(pad), "%F0%9F%A6%80".repeat(60));
            let mut socket = Socket::upgrade(server, server.app(), &format!("/app/{key}{QUERY}"));
            socket.expect_error(Some(4001));
            // tungstenite fails on a reason that is not UTF-8, `Socket::next` on one above 123 bytes.
            let reason = socket.expect_close(4001);
            assert!(reason.len() >= 120, "{reason:?}");
        }
    });
}

/// P-CLOSE-4, P-STAT-3, P-CONN-8: an app disabled while connected gets 4003 on all its sockets within 2 s, then at the
/// handshake and 403 over HTTP; once enabled again it is served.
#[test]
fn disabled_app_is_closed_with_4003() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("other", &[]),
        |server| {
            let (app, other) = (server.app(), server.named_app("other"));
            let mut bystander = Socket::open(&server, other);
            let mut sockets: Vec<Socket> = (0..10).map(|_| Socket::open(&server, app)).collect();
            switch(&server, app, "disable");
            for socket in &mut sockets {
                socket.expect_fatal(4003);
            }
            Socket::upgrade(&server, app, &format!("/app/{}{QUERY}", app.key)).expect_fatal(4003);
            server.post_events(app, &json!({"name": "e", "channel": "c", "data": "x"})).expect(403);
            bystander.expect_quiet();
            switch(&server, app, "enable");
            eventually("the app serves again", || {
                let mut socket = Socket::upgrade(&server, app, &format!("/app/{}{QUERY}", app.key));
                matches!(socket.next(), Arrival::Text(text) if text.contains("established")).then_some(())
            });
        },
    );
}

/// P-SDK-12: a WebSocket ping gets a pong with the same payload at once, also between the fragments of a message.
#[test]
fn ping_frames_get_pongs() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for payload in [vec![], vec![0x5A; 125]] {
            socket.send_message(Message::Ping(payload.clone().into()));
            assert_eq!(socket.next(), Arrival::Pong(payload));
        }
        let mut raw = RawSocket::established(server.address, &format!("/app/{}{QUERY}", server.app().key));
        let text = br#"{"event":"pusher:ping","data":{}}"#;
        raw.write(&frame(TEXT, &text[..10])).unwrap();
        raw.write(&frame(FIN | 0x9, b"between")).unwrap();
        raw.write(&frame(FIN, &text[10..])).unwrap();
        let pong = raw.read().unwrap();
        assert_eq!((pong.first, pong.payload.as_slice()), (FIN | PONG, b"between".as_slice()));
        assert_eq!(raw.read().unwrap().payload, br#"{"event":"pusher:pong","data":"{}"}"#);
    });
}

fn switch(server: &TestServer, app: &App, verb: &str) {
    let data = server.data.to_str().unwrap();
    let output = crate::common::cli::run(&["app", verb, &app.id, "--data", data]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn upgrade_with(target: &str, header: &str) -> String {
    let plain = crate::common::wire::upgrade_request(target);
    plain.replacen("\r\n", &format!("\r\n{header}"), 1)
}

fn is_socket_id(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(first, second)| digits(first) && digits(second) && first != "0")
}
