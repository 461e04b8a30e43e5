//! Client events (section 5.6 of the Pusher protocol, threat T17).

use serde_json::json;

use crate::common::socket::Socket;
use crate::common::unique;
use crate::stage::on_each_driver;

/// P-CEV-1, P-CEV-2, P-CEV-3, P-OUT-6, P-SDK-8: a client event reaches every other subscriber byte for byte and never its sender; string
/// data as it is, other JSON as its raw text, absent data as `{}`.
#[test]
fn delivered_to_all_others_byte_exact() {
    on_each_driver(|server| {
        let channel = unique("private-client");
        let mut sender = Socket::open(server, server.app());
        let mut others: Vec<Socket> = (0..5).map(|_| Socket::open(server, server.app())).collect();
        sender.subscribe(&channel);
        others.iter_mut().for_each(|socket| socket.subscribe(&channel));
        for (sent, got) in [
            (r#","data":"plain \u00e9 \"quoted\" \/ \n""#, r#""plain é \"quoted\" / \n""#),
            (r#","data":{"b":1, "a":[true,null,1.50]}"#, r#""{\"b\":1, \"a\":[true,null,1.50]}""#),
            (r#","data":[1, 2]"#, r#""[1, 2]""#),
            (r#","data":7"#, r#""7""#),
            (r#","data":null"#, r#""null""#),
            ("", r#""{}""#),
        ] {
            sender.send(&format!(r#"{{"event":"client-x","channel":"{channel}"{sent}}}"#));
            let expected = format!(r#"{{"event":"client-x","channel":"{channel}","data":{got}}}"#);
            for other in &mut others {
                let text = other.next_text();
                // JSON has several spellings of one string; the envelope must be identical, the data must be equal.
                assert_eq!(parsed(&text), parsed(&expected), "{text}");
                let envelope = format!(r#"{{"event":"client-x","channel":"{channel}","data":""#);
                assert!(text.starts_with(&envelope), "{text}");
            }
        }
        sender.expect_quiet();
    });
}

/// P-OUT-6, threat T17: on a presence channel the frame ends with the sender's own `user_id`; a `user_id` that the
/// sender claims is dropped, and frames of a private channel have none.
#[test]
fn user_id_is_the_servers_word() {
    on_each_driver(|server| {
        let (private, presence) = (unique("private-user"), unique("presence-user"));
        let (mut sender, mut other) = (Socket::open(server, server.app()), Socket::open(server, server.app()));
        sender.subscribe(&private);
        other.subscribe(&private);
        other.join(&presence, r#"{"user_id":"other"}"#);
        sender.join(&presence, r#"{"user_id":17}"#);
        other.expect_event("pusher_internal:member_added");
        for channel in [&private, &presence] {
            sender.send(&format!(
                r#"{{"event":"client-x","channel":"{channel}","data":"d","user_id":"spoofed","socket_id":"1.1"}}"#
            ));
        }
        // The order between channels is not defined.
        let mut got = [other.next_text(), other.next_text()];
        got.sort_by_key(|text| !text.contains(&private));
        assert_eq!(got[0], format!(r#"{{"event":"client-x","channel":"{private}","data":"d"}}"#));
        assert_eq!(got[1], format!(r#"{{"event":"client-x","channel":"{presence}","data":"d","user_id":"17"}}"#));
    });
}

/// P-CEV-1, P-CEV-4: refused with an error of code null and no close: flag off, public channel, not subscribed, no channel.
#[test]
fn refusals_drop_the_event() {
    on_each_driver(|server| {
        let plain = server.named_app("plain");
        let mut off = Socket::open(server, plain);
        off.subscribe("private-x");
        off.send(r#"{"event":"client-x","channel":"private-x","data":"d"}"#);
        let hosted = "To send client events, you must enable this feature in the Settings page of your dashboard.";
        assert_eq!(off.expect_error(None), hosted);
        off.expect_quiet();

        let (public, private) = (unique("public"), unique("private-refused"));
        let (mut sender, mut other) = (Socket::open(server, server.app()), Socket::open(server, server.app()));
        sender.subscribe(&public);
        other.subscribe(&public);
        other.subscribe(&private);
        for channel in [json!(public), json!(private), json!("private-nobody"), json!(null), json!(7), json!("")] {
            sender.send_json(&json!({"event": "client-x", "channel": channel, "data": "d"}));
            sender.expect_error(None);
        }
        sender.send(r#"{"event":"client-x","data":"d"}"#);
        sender.expect_error(None);
        other.expect_quiet();
    });
}

/// P-CEV-1: encrypted channels pass client events on as opaque data.
#[test]
fn encrypted_channels_pass_client_events() {
    on_each_driver(|server| {
        let channel = unique("private-encrypted-client");
        let (mut sender, mut other) = (Socket::open(server, server.app()), Socket::open(server, server.app()));
        sender.subscribe(&channel);
        other.subscribe(&channel);
        let data = r#"{"nonce":"AAAA","ciphertext":"BBBB"}"#;
        sender.send_json(&json!({"event": "client-x", "channel": channel, "data": data}));
        other.expect_data("client-x", &channel, data);
    });
}

/// P-LIM-1, P-LIM-3, P-LIM-9, P-CEV-4: names of 199 and 200 bytes and data of 10,239 and 10,240 bytes pass; one byte
/// more gets 4301 and is dropped.
#[test]
fn size_limits() {
    on_each_driver(|server| {
        let channel = unique("private-client-size");
        let (mut sender, mut other) = (Socket::open(server, server.app()), Socket::open(server, server.app()));
        sender.subscribe(&channel);
        other.subscribe(&channel);
        let name = |bytes: usize| format!("client-{}", "n".repeat(bytes - 7));
        let cases = [
            (name(199), "d".to_owned(), true),
            (name(200), "d".to_owned(), true),
            (name(201), "d".to_owned(), false),
            (name(20), "d".repeat(10_239), true),
            (name(20), "d".repeat(10_240), true),
            (name(20), "d".repeat(10_241), false),
            // 10,240 bytes once decoded, 20,480 on the wire.
            (name(20), "\"".repeat(10_240), true),
            (name(20), "\"".repeat(10_241), false),
        ];
        for (event, data, passes) in &cases {
            sender.send_json(&json!({"event": event, "channel": channel, "data": data}));
            if *passes {
                other.expect_data(event, &channel, data);
            } else {
                sender.expect_error(Some(4301));
                other.expect_quiet();
            }
        }
    });
}

/// P-LIM-9, P-CEV-4, threat T17: of a flood of 200 events at once 10 pass (plus those that one more second allows),
/// each further one gets 4301; after a second ten more pass. The other connection has its own rate limit.
#[test]
fn rate_limit() {
    on_each_driver(|server| {
        let channel = unique("private-client-rate");
        let (mut sender, mut other) = (Socket::open(server, server.app()), Socket::open(server, server.app()));
        sender.subscribe(&channel);
        other.subscribe(&channel);
        let message = |index: usize| json!({"event": "client-flood", "channel": channel, "data": index.to_string()});
        let start = std::time::Instant::now();
        (0..200).for_each(|index| sender.send_json(&message(index)));
        sender.send(r#"{"event":"pusher:ping"}"#);
        let mut refused = 0;
        loop {
            let frame = sender.next_json();
            if frame["event"] == "pusher:pong" {
                break;
            }
            assert_eq!((&frame["event"], &frame["data"]["code"]), (&json!("pusher:error"), &json!(4301)), "{frame}");
            refused += 1;
        }
        let earned = start.elapsed().as_secs_f64() * 10.0;
        let passed = 200 - refused;
        assert!(passed >= 10 && f64::from(passed) <= 11.0 + earned, "{passed} passed, {earned} earned");
        let other_message = json!({"event": "client-other", "channel": channel, "data": "x"});
        other.send_json(&other_message);
        sender.expect_data("client-other", &channel, "x");
        for _ in 0..passed {
            other.expect_event("client-flood");
        }
        other.expect_quiet();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        (0..10).for_each(|index| sender.send_json(&message(index)));
        sender.expect_quiet();
        for index in 0..10 {
            other.expect_data("client-flood", &channel, &index.to_string());
        }
    });
}

/// P-CEV-2: client events of one sender arrive in order, and all subscribers see them in the same order relative to
/// published events.
#[test]
fn order_is_one_for_all() {
    on_each_driver(|server| {
        let channel = unique("private-client-order");
        let mut sender = Socket::open(server, server.app());
        let mut others: Vec<Socket> = (0..6).map(|_| Socket::open(server, server.app())).collect();
        sender.subscribe(&channel);
        others.iter_mut().for_each(|socket| socket.subscribe(&channel));
        for index in 0..9 {
            sender.send_json(&json!({"event": "client-x", "channel": channel, "data": format!("client {index}")}));
            server.publish(server.app(), &channel, "e", &format!("published {index}"));
        }
        let seen: Vec<Vec<String>> = others
            .iter_mut()
            .map(|socket| (0..18).map(|_| socket.next_json()["data"].as_str().unwrap().to_owned()).collect())
            .collect();
        for each in &seen {
            assert_eq!(each, &seen[0]);
        }
        let of = |kind: &str| seen[0].iter().filter(|data| data.starts_with(kind)).cloned().collect::<Vec<_>>();
        assert_eq!(of("client"), (0..9).map(|index| format!("client {index}")).collect::<Vec<_>>());
        assert_eq!(of("published"), (0..9).map(|index| format!("published {index}")).collect::<Vec<_>>());
    });
}

fn parsed(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}
