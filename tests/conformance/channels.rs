//! Channel types and names (section 5.1 of the Pusher protocol).

use serde_json::json;

use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::Socket;
use crate::stage::on_each_driver;

/// P-CHAN-1: only the anchored, lower-case prefixes `private-` and `presence-` need a signature.
#[test]
fn type_is_decided_by_the_anchored_prefix() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let public = [
            "Private-x",
            "xprivate-x",
            "private",
            "privatex",
            "presence",
            "Presence-x",
            "-private-x",
            "cachefoo",
            "x-cache-y",
        ];
        for channel in public {
            subscribe_unsigned(&mut socket, channel);
            socket.expect_data("pusher_internal:subscription_succeeded", channel, "{}");
        }
        for channel in [
            "private-x",
            "private-",
            "private-encrypted-x",
            "private-cache-x",
            "presence-x",
            "presence-cache-x",
            "presence-",
        ] {
            subscribe_unsigned(&mut socket, channel);
            expect_auth_refusal(&mut socket, channel);
        }
    });
}

/// R-CHAN-3: a modifier before `private-` makes the channel public.
#[test]
fn modifiers_before_the_prefix_make_no_private_channel() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        subscribe_unsigned(&mut socket, "no-history-private-x");
        socket.expect_data("pusher_internal:subscription_succeeded", "no-history-private-x", "{}");
        subscribe_unsigned(&mut socket, "private-no-history-x");
        expect_auth_refusal(&mut socket, "private-no-history-x");
    });
}

/// P-CHAN-2: names of 1, 199 and 200 bytes, of every allowed character, work for subscribing and publishing.
#[test]
fn allowed_names() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let (almost, full) = ("n".repeat(199), "n".repeat(200));
        let letters = "-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_=@,.;:#";
        for name in ["c", almost.as_str(), full.as_str(), letters, "a#b", "#server-to-user-1x"] {
            if name.starts_with('#') {
                continue;
            }
            socket.subscribe(name);
            server.publish(server.app(), name, "e", "x");
            socket.expect_data("e", name, "x");
        }
    });
}

/// P-CHAN-2, P-FAIL-5, P-STAT-1: a name outside the rules gets `pusher:error` and `InvalidChannel` 400 (too long: `LimitReached` 4009),
/// and 400 over HTTP; the socket stays.
#[test]
fn refused_names() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        let (long, long_private) = ("n".repeat(201), format!("private-{}", "n".repeat(193)));
        let illegal =
            ["", " ", "a b", "a/b", "a!b", "a+b", "a\u{e9}b", "a\nb", "a\0b", "\u{1f980}", "#x", "a%b", "a\"b", "a\\b"];
        for name in illegal.into_iter().chain([long.as_str(), long_private.as_str()]) {
            subscribe_unsigned(&mut socket, name);
            socket.expect_error(None);
            let frame = socket.expect_event("pusher:subscription_error");
            let (kind, status) = if name.len() > 200 { ("LimitReached", 4009) } else { ("InvalidChannel", 400) };
            assert_eq!((&frame["data"]["type"], &frame["data"]["status"]), (&json!(kind), &json!(status)), "{frame}");
            assert_eq!(frame["channel"], name);
            server.post_events(server.app(), &json!({"name": "e", "channel": name, "data": "x"})).expect(400);
        }
        socket.expect_quiet();
    });
}

/// P-FAIL-5: a channel that is not a string gets only the `pusher:error`.
#[test]
fn a_channel_that_is_no_string_gets_the_error_alone() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for data in [r#"{"auth":""}"#, r#"{"channel":null}"#, r#"{"channel":7}"#, r#"{"channel":["c"]}"#, "{}"] {
            socket.send(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#));
            socket.expect_error(None);
            socket.expect_quiet();
        }
    });
}

/// P-CHAN-2, P-SDK-25, P-USER-4: a leading `#` is only valid in `#server-to-user-<id>`, to which a socket that is not
/// signed in may not subscribe; publishing to it is accepted.
#[test]
fn server_to_user_channels_are_refused_to_others() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        subscribe_unsigned(&mut socket, "#server-to-user-7");
        assert_eq!(socket.expect_error(Some(4009)), "Invalid key in subscription auth data: ''");
        assert_eq!(socket.expect_event("pusher:subscription_error")["channel"], "#server-to-user-7");
        server.publish(server.app(), "#server-to-user-7", "e", "x");
        socket.expect_quiet();
    });
}

/// R-CHAN-5, P-CHAN-2: `strict` refuses `:` and `#` and 165 bytes on a socket; `permissive` accepts all but whitespace
/// and control characters.
#[test]
fn configured_name_rules() {
    let options = |rules: &'static str| move |driver| ServerOptions::new(driver).with(&["--channel-names", rules]);
    on_fresh_servers(options("strict"), |server| {
        let (full, long) = ("n".repeat(164), "n".repeat(165));
        names(&server, &["c", &full], &["a:b", "a#b", &long]);
        server.publish(server.app(), &"n".repeat(200), "e", "x");
    });
    on_fresh_servers(options("permissive"), |server| {
        names(&server, &["a/b!", "\u{e9}\u{1f980}", "a:b", "a:{b}"], &["a b", "a\tb", "a\u{7f}b", "a\u{a0}b"]);
        // P-CHAN-2, threat T1: the signature for such a name would be that of a shorter name with data.
        names(&server, &["private-{a}"], &["private-a:{}", "presence-a:{\"user_id\":1}"]);
        let body = json!({"name": "e", "channel": "private-a:{}", "data": "x"}).to_string();
        server.post_signed(server.app(), &server.app().path("/events"), body.as_bytes()).expect(400);
    });
}

fn names(server: &TestServer, allowed: &[&str], refused: &[&str]) {
    let mut socket = Socket::open(server, server.app());
    for name in allowed {
        socket.subscribe(name);
    }
    for name in refused {
        subscribe_unsigned(&mut socket, name);
        socket.expect_error(None);
        socket.expect_event("pusher:subscription_error");
    }
}

fn subscribe_unsigned(socket: &mut Socket, channel: &str) {
    socket.send_json(&json!({"event": "pusher:subscribe", "data": {"auth": "", "channel": channel}}));
}

fn expect_auth_refusal(socket: &mut Socket, channel: &str) {
    if !channel.starts_with("private-encrypted-") {
        socket.expect_event("auth_required");
    }
    socket.expect_error(Some(4009));
    let frame = socket.expect_event("pusher:subscription_error");
    assert_eq!(frame["channel"], channel);
}
