//! `POST /events` and `POST /batch_events` (section 7 of the Pusher protocol).

use serde_json::{Value, json};

use crate::common::server::TestServer;
use crate::common::socket::Socket;
use crate::common::{http, unique};
use crate::stage::on_each_driver;

/// P-HTTP-1, P-OUT-5, P-SDK-7, P-SDK-8, P-SDK-15, P-HTTP-15: an event is answered 200 `{}` as JSON and arrives byte for byte.
#[test]
fn event_is_byte_exact() {
    on_each_driver(|server| {
        let channel = unique("exact");
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&channel);
        let body = format!(r#"{{"name":"my-event","data":"{{\"a\":\"b c\"}}","channels":["{channel}"]}}"#);
        let answer = server.post_signed(server.app(), &server.app().path("/events"), body.as_bytes()).expect(200);
        assert_eq!(answer.text(), "{}");
        assert!(answer.header("content-type").unwrap().starts_with("application/json"), "{:?}", answer.headers);
        let expected = format!(r#"{{"event":"my-event","channel":"{channel}","data":"{{\"a\":\"b c\"}}"}}"#);
        assert_eq!(socket.next_text(), expected);
    });
}

/// P-OUT-5, P-ENC-1: any text arrives as it was published: escapes, controls, lone quotes, emoji, ciphertext.
#[test]
fn any_text_arrives_unchanged() {
    on_each_driver(|server| {
        let channel = unique("text");
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&channel);
        let long = "ab\u{1f980}".repeat(1_700);
        for data in
            ["", "\"", "\\", "\u{0}\u{1}\u{1f}\u{7f}", "é\u{1f980}\u{2028}", "</script>", "{\"nonce\":\"A/+=\"}", &long]
        {
            server.publish(server.app(), &channel, "e", data);
            socket.expect_data("e", &channel, data);
        }
        // The escapes that serde_json would not choose.
        let body = format!(r#"{{"name":"e","channel":"{channel}","data":"\u0041\/\ud83e\udd80\u000A"}}"#);
        server.post_signed(server.app(), &server.app().path("/events"), body.as_bytes()).expect(200);
        socket.expect_data("e", &channel, "A/\u{1f980}\n");
    });
}

/// P-SDK-21, P-HTTP-1, R-PUB-1, R-BASE-1: `channel` or `channels`, unknown members, any order, under both bases.
#[test]
fn body_forms() {
    on_each_driver(|server| {
        let channel = unique("forms");
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&channel);
        let app = server.app();
        for path in [app.path("/events"), app.relay_path("/events")] {
            for body in [
                json!({"name": "e", "channel": channel, "data": "x"}),
                json!({"data": "x", "channels": [channel], "name": "e", "unknown": {"a": [1]}}),
                json!({"name": "e", "channels": [channel, channel], "data": "x", "socket_id": null, "info": null}),
            ] {
                server.post_signed(app, &path, body.to_string().as_bytes()).expect(200);
                socket.expect_data("e", &channel, "x");
            }
        }
        socket.expect_quiet();
    });
}

/// P-HTTP-12: an object or array as data is stored as its raw text; number, boolean, null or missing data is 400.
#[test]
fn data_forms() {
    on_each_driver(|server| {
        let channel = unique("data");
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&channel);
        let post = |data: &str| {
            let body = format!(r#"{{"name":"e","channel":"{channel}"{data}}}"#);
            server.post_signed(server.app(), &server.app().path("/events"), body.as_bytes())
        };
        for raw in [r#"{"b": 1,"a":[1.50,{}]}"#, "[ ]", r#"["\u00e9"]"#] {
            post(&format!(",\"data\":{raw}")).expect(200);
            socket.expect_data("e", &channel, raw);
        }
        for refused in [",\"data\":7", ",\"data\":true", ",\"data\":null", ""] {
            post(refused).expect(400);
        }
        socket.expect_quiet();
    });
}

/// P-HTTP-13, P-LIM-2, P-STAT-1, P-SDK-16, P-STAT-7: a missing or malformed member is 400 with one line of text and
/// publishes nothing.
#[test]
fn refused_bodies() {
    on_each_driver(|server| {
        let channel = unique("refused");
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&channel);
        let valid = json!({"name": "e", "channel": channel, "data": "x"});
        let with = |member: &str, value: Value| {
            let mut body = valid.clone();
            body[member] = value;
            body.to_string()
        };
        let without = |member: &str| {
            let mut body = valid.clone();
            body.as_object_mut().unwrap().remove(member);
            body.to_string()
        };
        let bodies = [
            without("name"),
            without("channel"),
            with("channels", json!([channel])),
            with("name", json!(7)),
            with("name", json!("")),
            with("name", json!("pusher:x")),
            with("name", json!("pusher_internal:x")),
            with("name", json!("a\nb")),
            with("channel", json!(["c"])),
            with("channel", json!("a b")),
            with("socket_id", json!("nonsense")),
            with("socket_id", json!("1.2.3")),
            with("socket_id", json!(1.2)),
            json!({"name": "e", "channels": [], "data": "x"}).to_string(),
            json!({"name": "e", "channels": "c", "data": "x"}).to_string(),
            json!({"name": "e", "channels": [channel, 7], "data": "x"}).to_string(),
            json!({"name": "e", "channels": [channel, "a b"], "data": "x"}).to_string(),
            "nonsense".to_owned(),
            "[]".to_owned(),
            "\"x\"".to_owned(),
            format!("{valid}x"),
            "[".repeat(9 * 1024),
            format!(r#"{{"name":"e","name":"f","channel":"{channel}","data":"x"}}"#),
        ];
        for body in &bodies {
            let answer = server.post_signed(server.app(), &server.app().path("/events"), body.as_bytes());
            let shown: String = body.chars().take(100).collect();
            assert_eq!(answer.status, 400, "{shown}");
            let text = answer.text();
            assert!(text.len() > 1 && !text.contains('\n'), "{text:?} to {shown}");
        }
        let invalid_utf8 = format!(r#"{{"name":"e","channel":"{channel}","data":"?"}}"#).replace('?', "\u{fffd}");
        let mut bytes = invalid_utf8.into_bytes();
        let at = bytes.iter().position(|byte| *byte == 0xEF).unwrap();
        bytes.splice(at..at + 3, [0xFF]);
        server.post_signed(server.app(), &server.app().path("/events"), &bytes).expect(400);
        server.post_signed(server.app(), &server.app().path("/events"), b"").expect(400);
        socket.expect_quiet();
    });
}

/// P-HTTP-13: an unknown socket id is ignored, and names that start with `client-` may be published.
#[test]
fn unknown_socket_id_and_client_names_are_accepted() {
    on_each_driver(|server| {
        let channel = unique("lenient");
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&channel);
        for id in ["1.1", "18446744073709551615.18446744073709551615", "99999999999999999999999.1", "0.0"] {
            server
                .post_events(
                    server.app(),
                    &json!({"name": "client-e", "channel": channel, "data": "x", "socket_id": id}),
                )
                .expect(200);
            socket.expect_data("client-e", &channel, "x");
        }
    });
}

/// P-HTTP-1, P-HTTP-2: `socket_id` excludes that one connection, and only in its own app (threat T31).
#[test]
fn socket_id_is_excluded() {
    on_each_driver(|server| {
        let channel = unique("exclude");
        let mut sockets: Vec<Socket> = (0..6).map(|_| Socket::open(server, server.app())).collect();
        sockets.iter_mut().for_each(|socket| socket.subscribe(&channel));
        let mut foreign = Socket::open(server, server.named_app("other"));
        foreign.subscribe(&channel);
        for excluded in 0..sockets.len() {
            let id = sockets[excluded].socket_id.clone();
            let event = json!({"name": "e", "channel": channel, "data": "x", "socket_id": id});
            server.post_events(server.app(), &event).expect(200);
            let batch = json!({"batch": [event, {"name": "f", "channel": channel, "data": "y"}]});
            post_batch(server, &batch).expect(200);
            server.post_events(server.named_app("other"), &event).expect(200);
            foreign.expect_data("e", &channel, "x");
            for (index, socket) in sockets.iter_mut().enumerate() {
                if index != excluded {
                    socket.expect_data("e", &channel, "x");
                    socket.expect_data("e", &channel, "x");
                }
                socket.expect_data("f", &channel, "y");
            }
        }
    });
}

/// P-LIM-4, P-HTTP-1: 99 and 100 channels are accepted, a duplicate counting once, 101 are 400 and nothing is
/// published.
#[test]
fn channels_per_event_limit() {
    on_each_driver(|server| {
        let prefix = unique("wide");
        let names: Vec<String> = (0..101).map(|index| format!("{prefix}-{index}")).collect();
        let mut socket = Socket::open(server, server.app());
        names.iter().for_each(|name| socket.subscribe(name));
        let mut doubled = names[..100].to_vec();
        doubled.push(names[0].clone());
        for (channels, status) in [(&names[..99], 200), (&names[..100], 200), (&doubled[..], 200), (&names[..], 400)] {
            server.post_events(server.app(), &json!({"name": "e", "channels": channels, "data": "x"})).expect(status);
            if status == 200 {
                let count = channels.len().min(100);
                let mut got: Vec<String> =
                    (0..count).map(|_| socket.next_json()["channel"].as_str().unwrap().to_owned()).collect();
                got.sort();
                let mut wanted = channels[..count].to_vec();
                wanted.sort();
                assert_eq!(got, wanted);
            }
            socket.expect_quiet();
        }
    });
}

/// P-LIM-1: event names of 1, 199 and 200 bytes, of any characters except control characters, arrive; 201 bytes are
/// 400.
#[test]
fn event_name_limit() {
    on_each_driver(|server| {
        let channel = unique("names");
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&channel);
        let (almost, full) = ("n".repeat(199), "é".repeat(100));
        for name in ["e", "App\\Events\\Foo", ".App.Events", "with space", "é\u{1f980}\"", &almost, &full] {
            server.publish(server.app(), &channel, name, "x");
            socket.expect_data(name, &channel, "x");
        }
        for name in
            ["n".repeat(201), "a\u{0}b".to_owned(), "a\u{1f}".to_owned(), "a\u{7f}".to_owned(), "a\u{85}".to_owned()]
        {
            server.post_events(server.app(), &json!({"name": name, "channel": channel, "data": "x"})).expect(400);
        }
        socket.expect_quiet();
    });
}

/// P-LIM-3, P-STAT-5, P-STAT-7, R-LIM-2: data of 10,239 and 10,240 decoded bytes arrives, 10,241 is 413 with the documented text and nothing is
/// published; an app may set its own limit.
#[test]
fn data_limit() {
    on_each_driver(|server| {
        for (app, limit) in [(server.app(), 10_240), (server.named_app("small"), 20)] {
            let channel = unique("size");
            let mut socket = Socket::open(server, app);
            socket.subscribe(&channel);
            for data in ["d".repeat(limit - 1), "d".repeat(limit), "\u{1}".repeat(limit), "é".repeat(limit / 2)] {
                server.publish(app, &channel, "e", &data);
                socket.expect_data("e", &channel, &data);
            }
            for data in ["d".repeat(limit + 1), "é".repeat(limit / 2 + 1)] {
                let body = json!({"name": "e", "channels": [channel, "another"], "data": data});
                let answer = server.post_events(app, &body).expect(413);
                let text = format!("The data content of this event exceeds the allowed maximum ({limit} bytes).");
                assert_eq!(answer.text(), text);
            }
            let raw = json!({"name": "e", "channel": channel, "data": ["d".repeat(limit)]});
            server.post_events(app, &raw).expect(413);
            socket.expect_quiet();
        }
    });
}

/// P-HTTP-1, P-HTTP-11, P-SDK-21: `info` in one comma list: one entry per unique channel; `user_count` on presence channels only; unknown names are
/// ignored.
#[test]
fn info_of_events() {
    on_each_driver(|server| {
        let (public, presence) = (unique("info"), unique("presence-info"));
        let mut sockets: Vec<Socket> = (0..3).map(|_| Socket::open(server, server.app())).collect();
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.subscribe(&public);
            socket.join(&presence, &json!({"user_id": (index / 2).to_string()}).to_string());
        }
        let post = |info: &str| {
            let channels = [public.as_str(), presence.as_str(), "nobody-here", public.as_str()];
            let body = json!({"name": "e", "channels": channels, "data": "x", "info": info});
            server.post_events(server.app(), &body).expect(200).json()
        };
        assert_eq!(
            post("user_count,subscription_count,nonsense"),
            json!({"channels": {
                public.clone(): {"subscription_count": 3},
                presence.clone(): {"user_count": 2, "subscription_count": 3},
                "nobody-here": {"subscription_count": 0},
            }})
        );
        assert_eq!(
            post("user_count"),
            json!({"channels": {public.clone(): {}, presence.clone(): {"user_count": 2}, "nobody-here": {}}})
        );
    });
}

/// P-HTTP-2, R-PUB-2: a batch publishes its events in order and answers `{}`; with `info` anywhere, one entry per event, by index.
#[test]
fn batch_events() {
    on_each_driver(|server| {
        let (first, second) = (unique("batch"), unique("presence-batch"));
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&first);
        socket.join(&second, r#"{"user_id":"1"}"#);
        let event = |channel: &str, data: &str| json!({"name": "e", "channel": channel, "data": data});
        let batch = json!({"batch": (0..10).map(|index| event(&first, &index.to_string())).collect::<Vec<_>>()});
        assert_eq!(post_batch(server, &batch).expect(200).text(), "{}");
        (0..10).for_each(|index| socket.expect_data("e", &first, &index.to_string()));
        let mut with_info = event(&second, "a");
        with_info["info"] = json!("user_count,subscription_count");
        let batch = json!({"batch": [event(&first, "b"), with_info, event(&first, "c")]});
        let answer = post_batch(server, &batch).expect(200).json();
        assert_eq!(answer, json!({"batch": [{}, {"user_count": 1, "subscription_count": 1}, {}]}));
        // The order between channels is not defined.
        let mut got: Vec<String> = (0..3).map(|_| socket.next_json()["data"].as_str().unwrap().to_owned()).collect();
        got.sort();
        assert_eq!(got, ["a", "b", "c"]);
    });
}

/// P-LIM-5, P-HTTP-14, P-STAT-1: 9 and 10 events are accepted, 11 are 400; a batch with one bad event publishes none.
#[test]
fn batch_is_all_or_nothing() {
    on_each_driver(|server| {
        let channel = unique("whole");
        let mut socket = Socket::open(server, server.app());
        socket.subscribe(&channel);
        let event = json!({"name": "e", "channel": channel, "data": "x"});
        for (count, status) in [(1, 200), (9, 200), (10, 200), (11, 400)] {
            post_batch(server, &json!({"batch": vec![&event; count]})).expect(status);
            if status == 200 {
                (0..count).for_each(|_| socket.expect_data("e", &channel, "x"));
            }
        }
        for (bad, status) in [
            (json!({"name": "pusher:e", "channel": channel, "data": "x"}), 400),
            (json!({"name": "e", "channel": "a b", "data": "x"}), 400),
            (json!({"name": "e", "data": "x"}), 400),
            (json!({"name": "e", "channel": channel}), 400),
            (json!({"name": "e", "channel": channel, "data": "d".repeat(10_241)}), 413),
            (json!(7), 400),
        ] {
            post_batch(server, &json!({"batch": [event, bad, event]})).expect(status);
        }
        for body in [json!({}), json!({"batch": {}}), json!({"batch": "x"}), json!([event])] {
            post_batch(server, &body).expect(400);
        }
        socket.expect_quiet();
    });
}

/// P-HTTP-17, P-HTTP-14, R-PUB-6: publishes are ordered when each is sent after the previous one's answer, even over
/// connections that land on different shards; so are pipelined ones.
#[test]
fn order_follows_answers() {
    on_each_driver(|server| {
        let channel = unique("order");
        let mut sockets: Vec<Socket> = (0..6).map(|_| Socket::open(server, server.app())).collect();
        sockets.iter_mut().for_each(|socket| socket.subscribe(&channel));
        for index in 0..200 {
            server.publish(server.app(), &channel, "e", &index.to_string());
        }
        let mut pipeline = http::HttpConnection::open(server.address);
        let mut requests = Vec::new();
        for index in 200..300 {
            let body = json!({"name": "e", "channel": channel, "data": index.to_string()}).to_string();
            let target = server.app().sign("POST", &server.app().path("/events"), body.as_bytes());
            requests.extend(http::encode_request("POST", &target, &[], body.as_bytes()));
        }
        pipeline.write(&requests).unwrap();
        (200..300).for_each(|_| drop(pipeline.read().expect(200)));
        for socket in &mut sockets {
            (0..300).for_each(|index| socket.expect_data("e", &channel, &index.to_string()));
            socket.expect_quiet();
        }
    });
}

fn post_batch(server: &TestServer, body: &Value) -> http::Response {
    server.post_signed(server.app(), &server.app().path("/batch_events"), body.to_string().as_bytes())
}
