//! JSON that breaks parsers (threat T10, rules P-IN-3 and P-STAT-1).

use super::unharmed::unharmed_by;
use crate::common::socket::Socket;

const MIB: u64 = 1 << 20;

/// A text, and whether a client frame with it is malformed (otherwise it is a ping, whatever its other members).
fn texts() -> Vec<(String, bool)> {
    let ping = |member: &str| format!(r#"{{"event":"pusher:ping",{member}}}"#);
    vec![
        ("[".repeat(9 * 1024), true),
        ("[".repeat(24_000), true),
        (r#"{"a":"#.repeat(4_000), true),
        (format!("{}{}", "[".repeat(12_000), "]".repeat(12_000)), true),
        (ping(&format!(r#""x":{}1{}"#, "[".repeat(10_000), "]".repeat(10_000))), false),
        (ping(&format!(r#""x":{}1{}"#, "[".repeat(20), "]".repeat(20))), false),
        (ping(&format!(r#""x":"{}""#, "[".repeat(10_000))), false),
        (ping(&format!(r#""x":"\"{}""#, "[{".repeat(5_000))), false),
        (ping(r#""x":1e400"#), false),
        (ping(r#""x":-1E-999999999999"#), false),
        (ping(&format!(r#""x":{}"#, "9".repeat(20_000))), false),
        (ping(&format!(r#""x":0.{}"#, "0".repeat(20_000))), false),
        (ping(r#""x":"\ud800""#), false),
        (ping(r#""data":"\udc00\ud800""#), false),
        (ping(r#""x":"\uD83E\uDD80""#), false),
        (ping(r#""x":"\u12""#), true),
        (ping(r#""x":"\x41""#), true),
        (ping("\"x\":\"\t\""), true),
        (ping(r#""event":"pusher:ping""#), true),
        (ping(r#""e\u0076ent":"pusher:ping""#), true),
        (ping(r#""x":tru"#), true),
        (ping(r#""x":-"#), true),
        (ping(r#""x":.5"#), true),
        (ping(r#""x":+1"#), true),
        (ping(r#""x":0x10"#), true),
        ("\u{feff}{\"event\":\"pusher:ping\"}".to_owned(), false),
        ("\u{feff}\u{feff}{\"event\":\"pusher:ping\"}".to_owned(), true),
        ("{\"event\":\"pusher:ping\"}\u{0}".to_owned(), true),
        (format!("{{\"event\":\"pusher:ping\"{}}}", ",\"x\":1".repeat(3_000)), false),
    ]
}

/// P-IN-1, P-IN-3, threat T10: each bomb on a socket gets an answer, and the socket stays open. A duplicate member that
/// has no effect may be accepted or refused; the process must survive.
#[test]
fn bombs_on_a_socket() {
    unharmed_by(32 * MIB, |server| {
        let mut socket = Socket::open(server, server.app());
        for (text, malformed) in texts() {
            socket.send(&text);
            let answer = socket.next_json();
            let shown: String = text.chars().take(80).collect();
            let doubled = shown.matches("\"x\":1,").count() > 1;
            if malformed {
                assert_eq!(answer["data"]["message"], "Invalid JSON", "to {shown}");
            } else if !doubled {
                assert_eq!(answer["event"], "pusher:pong", "to {shown}: {answer}");
            }
        }
        socket.expect_quiet();
    });
}

/// P-IN-3, threat T10: a duplicate `channel` never subscribes to one channel by the signature of another.
#[test]
fn doubled_members_do_not_confuse() {
    unharmed_by(24 * MIB, |server| {
        let mut socket = Socket::open(server, server.app());
        let auth = socket.app.sign_private(&socket.socket_id, "private-mine");
        for data in [
            format!(r#"{{"auth":"{auth}","channel":"private-mine","channel":"private-yours"}}"#),
            format!(r#"{{"auth":"{auth}","channel":"private-yours","channel":"private-mine"}}"#),
            format!(r#"{{"auth":"{auth}","channel":"private-mine","chann\u0065l":"private-yours"}}"#),
        ] {
            socket.send(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#));
            socket.expect_error(None);
        }
        socket.expect_quiet();
        server.publish(server.app(), "private-yours", "e", "not for us");
        socket.expect_quiet();
    });
}

/// P-STAT-1, P-STAT-5, P-LIM-11, threat T10: bombs in request bodies are 400 (413 beyond 1 MiB), also a million `[`.
#[test]
fn bombs_in_bodies() {
    unharmed_by(48 * MIB, |server| {
        let app = server.app();
        let event = |member: &str| format!(r#"{{"name":"e","channel":"c","data":"x",{member}}}"#);
        let deep = "[".repeat(1_000_000);
        for (body, status) in [
            (deep.clone(), 400),
            (r#"{"a":"#.repeat(100_000), 400),
            (format!("{}{}", "[".repeat(500_000), "]".repeat(500_000)), 400),
            (event(&format!("\"x\":{}", &deep[..1_000])), 400),
            (event(&format!(r#""x":{}{}"#, "[".repeat(9 * 1024), "]".repeat(9 * 1024))), 200),
            (format!(r#"{{"name":"e","channel":"c","data":{}{}}}"#, "[".repeat(9 * 1024), "]".repeat(9 * 1024)), 413),
            (event(r#""x":1e400"#), 200),
            (event(&format!(r#""x":{}"#, "9".repeat(100_000))), 200),
            (r#"{"name":"e","channel":"c","data":"\ud800"}"#.to_owned(), 200),
            (r#"{"name":"\udc00","channel":"c","data":"x"}"#.to_owned(), 200),
            (event(r#""name":"f""#), 400),
            (event(r#""channel":"d""#), 400),
            (event(r#""d\u0061ta":"y""#), 400),
            (format!("{}{}", event("\"x\":1"), "}"), 400),
        ] {
            for path in [app.path("/events"), app.path("/batch_events")] {
                let answer = server.post_signed(app, &path, body.as_bytes());
                let wanted = if path.ends_with("/batch_events") { 400 } else { status };
                let shown: String = body.chars().take(80).collect();
                assert_eq!(answer.status, wanted, "{path}: {shown}");
            }
        }
        server.post_signed(app, &app.path("/events"), "[".repeat(1 << 20).as_bytes()).expect(400);
    });
}
