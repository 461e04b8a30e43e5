//! The messages that a client may send (section 3 of the Pusher protocol), and the answers to bad input.

use serde_json::json;
use tungstenite::Message;

use crate::common::socket::{Arrival, Socket};
use crate::common::unique;
use crate::stage::on_each_driver;

/// P-IN-1: member order is free and unknown members are ignored.
#[test]
fn member_order_is_free() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        socket.send(
            r#" {"x":[1,{"event":2}],"data":{"y":{},"channel":"c1","auth":""},"event":"pusher:subscribe","z":null} "#,
        );
        socket.expect_data("pusher_internal:subscription_succeeded", "c1", "{}");
        socket.send("{\"event\":\"pusher:subscribe\",\r\n\t\"data\":{\"channel\":\"c2\"}}");
        socket.expect_data("pusher_internal:subscription_succeeded", "c2", "{}");
        // Escapes are part of JSON: this is channel c3.
        socket.send(r#"{"event":"pusher:\u0073ubscribe","data":{"chann\u0065l":"\u00633"}}"#);
        socket.expect_data("pusher_internal:subscription_succeeded", "c3", "{}");
    });
}

/// P-IN-2: string `data` of a `pusher:` event that parses to an object counts as that object.
#[test]
fn data_may_be_a_string_that_holds_an_object() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        socket.send(r#"{"event":"pusher:subscribe","data":"{\"auth\":\"\",\"channel\":\"c\"}"}"#);
        socket.expect_data("pusher_internal:subscription_succeeded", "c", "{}");
        let auth = socket.app.sign_private(&socket.socket_id, "private-c");
        let inner = serde_json::json!({"auth": auth, "channel": "private-c"}).to_string();
        socket.send_json(&serde_json::json!({"event": "pusher:subscribe", "data": inner}));
        socket.expect_data("pusher_internal:subscription_succeeded", "private-c", "{}");
    });
}

/// P-IN-3, P-SDK-4, P-OUT-11, threat T10: malformed JSON, and JSON without a string `event`, get one error of code
/// null, byte for byte; the connection stays.
#[test]
fn malformed_messages_get_invalid_json() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let deep = "[".repeat(9 * 1024);
        for text in [
            "",
            " ",
            "{",
            "nonsense",
            "[]",
            "null",
            "42",
            "1e309",
            r#""pusher:ping""#,
            "{}",
            r#"{"event":null}"#,
            r#"{"event":7}"#,
            r#"{"event":{}}"#,
            r#"{"data":{}}"#,
            r#"{"event":"pusher:ping"} trailing"#,
            r#"{"event":"pusher:ping",}"#,
            r#"{'event':'pusher:ping'}"#,
            r#"{"event":"pusher:ping","data":{"a":NaN}}"#,
            r#"{"event":"pusher:ping","data":01}"#,
            "{\"event\":\"pusher:\nping\"}",
            r#"{"event":"pusher:ping","event":"pusher:ping"}"#,
            deep.as_str(),
        ] {
            socket.send(text);
            let answer = socket.next_text();
            let expected = r#"{"event":"pusher:error","data":{"code":null,"message":"Invalid JSON"}}"#;
            let shown: String = text.chars().take(60).collect();
            assert_eq!(answer, expected, "to {shown:?}");
        }
        socket.expect_quiet();
    });
}

/// P-IN-6, P-CEV-3: text that was cut inside a character and data of any depth reach the subscribers, through a client
/// event and over HTTP, and do not count as malformed: the connection stays open after more of them than the number of
/// bad messages it may send.
#[test]
fn opaque_text_is_delivered() {
    on_each_driver(|server| {
        let channel = unique("private-opaque");
        let app = server.named_app("quick");
        let (mut sender, mut other) = (Socket::open(server, app), Socket::open(server, app));
        sender.subscribe(&channel);
        other.subscribe(&channel);
        let deep = format!("{}1{}", r#"{"a":["#.repeat(1_000), "]}".repeat(1_000));
        let cases = [
            (r#""abc\ud83d""#.to_owned(), "abc\u{fffd}".to_owned()),
            (r#""\udf38""#.to_owned(), "\u{fffd}".to_owned()),
            (r#""abc\ud83d\ude00""#.to_owned(), "abc\u{1f600}".to_owned()),
            ("\"abc\u{fffd}\"".to_owned(), "abc\u{fffd}".to_owned()),
            (r#"{"t":"abc\ud83d"}"#.to_owned(), r#"{"t":"abc\ud83d"}"#.to_owned()),
            (deep.clone(), deep),
        ];
        for (data, text) in cases.iter().cycle().take(120) {
            sender.send(&format!(r#"{{"event":"client-x","channel":"{channel}","data":{data}}}"#));
            let frame = other.next_json();
            assert_eq!((&frame["event"], &frame["data"]), (&json!("client-x"), &json!(text)), "{frame}");
        }
        for (data, text) in cases {
            let body = format!(r#"{{"name":"e","channel":"{channel}","data":{data}}}"#);
            server.post_signed(app, &app.path("/events"), body.as_bytes()).expect(200);
            other.expect_data("e", &channel, &text);
            sender.expect_data("e", &channel, &text);
            let body = format!(r#"{{"batch":[{body}]}}"#);
            server.post_signed(app, &app.path("/batch_events"), body.as_bytes()).expect(200);
            other.expect_data("e", &channel, &text);
            sender.expect_data("e", &channel, &text);
        }
        sender.expect_quiet();
        // Data that no subscriber reads is not counted either.
        sender.send(&format!(r#"{{"event":"pusher:ping","x":{}{}}}"#, "[".repeat(1_000), "]".repeat(1_000)));
        assert_eq!(sender.next_json()["event"], "pusher:pong");
    });
}

/// P-IN-4, P-LIM-2: any other event gets an error of code null and no close, the names of the server's own events
/// included.
#[test]
fn unknown_events_get_an_error() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for event in
            ["hello", "", "pusher:nonsense", "pusher_internal:subscription_succeeded", "pusher:error", "Client-x"]
        {
            socket.send_json(&serde_json::json!({"event": event, "channel": "c", "data": {}}));
            socket.expect_error(None);
        }
        socket.expect_quiet();
    });
}

/// P-IN-3, P-IN-4: the 100th malformed or unknown message closes with 4009, not the 99th.
#[test]
fn hundredth_bad_message_closes_with_4009() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for index in 1..100 {
            socket.send(if index % 2 == 0 { "{" } else { r#"{"event":"nonsense"}"# });
            socket.expect_error(None);
        }
        socket.expect_quiet();
        socket.send("{");
        loop {
            match socket.next() {
                Arrival::Text(text) => assert!(text.contains("pusher:error"), "{text}"),
                Arrival::Close(code, _) => break assert_eq!(code, 4009),
                other => panic!("Close 4009 was due, not {other:?}"),
            }
        }
    });
}

/// P-IN-7: heartbeats in text are answered and do not count, however many there are.
#[test]
fn heartbeats_in_text_do_not_close() {
    on_each_driver(|server| {
        for text in ["ping", r#"{"type":"ping"}"#, r#"{"event":"ping"}"#] {
            let mut socket = Socket::open(server, server.app());
            for _ in 0..300 {
                socket.send(text);
                socket.expect_error(None);
            }
            socket.expect_quiet();
        }
    });
}

/// P-IN-5, threat T7: messages of 65,535 and of 65,536 bytes are accepted, one of 65,537 closes with 1009; in one frame
/// or in fragments.
#[test]
fn message_size_limit() {
    on_each_driver(|server| {
        let ping_of = |bytes: usize| {
            let frame = r#"{"event":"pusher:ping","pad":""}"#;
            frame.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - frame.len())))
        };
        for bytes in [65_535, 65_536] {
            let mut socket = Socket::open(server, server.app());
            socket.send(&ping_of(bytes));
            assert_eq!(socket.next_text(), r#"{"event":"pusher:pong","data":"{}"}"#);
            send_in_two(&mut socket, &ping_of(bytes));
            assert_eq!(socket.next_text(), r#"{"event":"pusher:pong","data":"{}"}"#);
        }
        let mut whole = Socket::open(server, server.app());
        let _ = whole.try_send(&ping_of(65_537));
        expect_too_big(&mut whole);
        let mut parts = Socket::open(server, server.app());
        send_in_two(&mut parts, &ping_of(65_537));
        expect_too_big(&mut parts);
    });
}

fn send_in_two(socket: &mut Socket, text: &str) {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};
    let (first, second) = text.as_bytes().split_at(20_000);
    let first = Frame::message(first.to_vec(), OpCode::Data(Data::Text), false);
    let second = Frame::message(second.to_vec(), OpCode::Data(Data::Continue), true);
    socket.send_message(Message::Frame(first));
    socket.send_message(Message::Frame(second));
}

fn expect_too_big(socket: &mut Socket) {
    loop {
        match socket.next() {
            Arrival::Text(text) => assert!(text.contains("pusher:error"), "{text}"),
            Arrival::Close(code, _) => break assert_eq!(code, 1009),
            other => panic!("Close 1009 was due, not {other:?}"),
        }
    }
}
