//! Memory for incomplete input: who gets it, and the behaviour at its bounds (threat T14).

use super::*;
use crate::metrics::figures::Overload;

/// The head of a publish with these header lines that declares a body of this length.
fn head(target: &str, lines: &str, body_bytes: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {body_bytes}\r\n\r\n")
}

const GOOD: &str = "X-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n";
const SIGNED_WRONGLY: &str = "/apps/1/events?auth_key=app-key&auth_timestamp=1800000000&auth_version=1.0&\
                              body_md5=00000000000000000000000000000000&auth_signature=";

/// Heads that are refused whatever their body is, or whose body is not read: target, header lines, status.
fn refused_heads() -> Vec<(String, &'static str, u16)> {
    vec![
        ("/apps/1/events".into(), "", 401),
        ("/apps/1/events".into(), "X-Relay-Key: app-key\r\nX-Relay-Secret: wrong\r\n", 401),
        ("/apps/1/events".into(), "Authorization: Bearer rly_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 401),
        (format!("{SIGNED_WRONGLY}{}", "0".repeat(64)), "", 401),
        ("/api/v1/apps/1/events".into(), "", 401),
        ("/apps/17/events".into(), GOOD, 404),
        ("/nothing".into(), GOOD, 404),
        ("/up".into(), GOOD, 405),
        ("/timeline/v2/jsonp".into(), "", 404),
    ]
}

/// Threat T14: a request that is refused by its head gets no memory for its body, however it is delimited; it is
/// answered when it is complete, as if it had arrived at once, and the connection continues.
#[test]
fn bodies_of_strangers_are_not_kept() {
    const BODY_BYTES: usize = 1_000_000;
    for (target, lines, status) in refused_heads() {
        for chunked in [false, true] {
            let mut process = Process::new(1);
            let connection = process.accept(0);
            let (head, end) = if chunked {
                let coding = format!("Transfer-Encoding: chunked\r\n{lines}");
                let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\n{coding}\r\n{BODY_BYTES:x}\r\n");
                (head, "x\r\n0\r\n\r\n")
            } else {
                (head(&target, lines, BODY_BYTES), "x")
            };
            process.receive(0, connection, head.as_bytes());
            let mut missing = BODY_BYTES - 1;
            while missing > 0 {
                let part = vec![b'x'; missing.min(50_000)];
                process.receive(0, connection, &part);
                missing -= part.len();
                assert!(
                    process.shards[0].connections.input_bytes() <= 2 * head.len(),
                    "{target}: {}",
                    process.shards[0].connections.input_bytes()
                );
            }
            assert_eq!(process.take(0, connection), "", "{target}: not before it is whole");
            process.receive(0, connection, format!("{end}GET /up HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
            let answers = process.take(0, connection);
            assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answers}");
            assert!(answers.ends_with("OK\n"), "{target}: {answers}");
            let whole = process.accept(0);
            let head = head.replace(&BODY_BYTES.to_string(), "1").replace("f4240\r\n", "1\r\n");
            process.receive(0, whole, format!("{head}{end}").as_bytes());
            let answer = process.take(0, whole);
            assert!(answers.starts_with(&answer) && !answer.is_empty(), "{target}: {answers} and {answer}");
            process.finish();
        }
    }
}

/// Threats T6 and T14: a head counts as a failed credential once, whether its body ever arrives or not; beyond the
/// bound it is answered 429, and a valid credential of the same address still gets memory for its body.
#[test]
fn failures_count_with_the_head() {
    let mut process = Process::new(1);
    let mut refuse = |body: &str| {
        let connection = process.accept(0);
        process.receive(0, connection, head("/apps/1/events", "", 10).as_bytes());
        process.receive(0, connection, body.as_bytes());
        process.take(0, connection)
    };
    for _ in 0..limits::AUTH_FAILURES_PER_MINUTE / 2 {
        assert_eq!(refuse("unfinishe"), "");
        assert!(refuse("0123456789").starts_with("HTTP/1.1 401 "));
    }
    assert!(refuse("0123456789").starts_with("HTTP/1.1 429 "));
    let caller = process.accept(0);
    let body = r#"{"name":"e","channel":"c","data":"d"}"#;
    process.receive(0, caller, head("/apps/1/events", GOOD, body.len()).as_bytes());
    process.receive(0, caller, &body.as_bytes()[..20]);
    assert!(process.shards[0].connections.input_bytes() >= body[..20].len());
    process.receive(0, caller, &body.as_bytes()[20..]);
    assert!(process.take(0, caller).starts_with("HTTP/1.1 200 "));
    process.finish();
}

/// Threat T14: a client that asks before it sends its body is notified at once that its credential is invalid, and is
/// asked for the body if it is valid.
#[test]
fn refused_bodies_are_not_asked_for() {
    let mut process = Process::new(1);
    let (stranger, caller) = (process.accept(0), process.accept(0));
    process.receive(0, stranger, head("/apps/1/events", "Expect: 100-continue\r\n", 10).as_bytes());
    let answer = process.take(0, stranger);
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("Connection: close"), "{answer}");
    let lines = format!("{GOOD}Expect: 100-continue\r\n");
    process.receive(0, caller, head("/apps/1/events", &lines, 10).as_bytes());
    assert_eq!(process.take(0, caller), "HTTP/1.1 100 Continue\r\n\r\n");
    process.finish();
}

/// P-CLOSE-1: a request whose head was refused before the drain is answered as its answer says: the connection stays open
/// for the next request, which is its last.
#[test]
fn a_drain_keeps_the_promise_of_a_refused_head() {
    let mut process = Process::new(1);
    let caller = process.accept(0);
    process.receive(0, caller, head("/apps/1/events", "", 10).as_bytes());
    process.feed(0, Input::Drain);
    process.receive(0, caller, b"0123456789");
    let answer = process.take(0, caller);
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("Connection: keep-alive"), "{answer}");
    process.receive(0, caller, b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = process.take(0, caller);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("Connection: close"), "{answer}");
    process.finish();
}

/// Threat T14: incomplete heads of strangers stay below their bound together: the oldest are answered 503 and closed,
/// and fast clients are served meanwhile.
#[test]
fn heads_of_strangers_are_bounded() {
    let mut process = Process::new(1);
    let part = format!("GET /up HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(15_000));
    let count = 2 * limits::STRANGER_BYTES_MAX / part.len();
    let mut first = None;
    for number in 0..count {
        let connection = process.accept(0);
        process.receive(0, connection, part.as_bytes());
        first.get_or_insert(connection);
        assert!(process.shards[0].connections.input_bytes() <= limits::STRANGER_BYTES_MAX);
        if number % 100 == 0 {
            let quick = process.accept(0);
            process.receive(0, quick, b"GET /up HTTP/1.1\r\n");
            process.receive(0, quick, b"Host: h\r\n\r\n");
            assert!(process.take(0, quick).ends_with("OK\n"));
        }
    }
    let answer = process.take(0, first.expect("there is one"));
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
    assert!(process.shards[0].context.metrics.counted.overloads.of(Overload::Input) > 0);
    process.finish();
}

/// Threat T14: incomplete messages of the WebSockets of one app stay below its bound, and of all apps below theirs: the
/// oldest are closed with 4100, and a complete message is handled as before.
#[test]
fn messages_of_sockets_are_bounded() {
    let mut process = Process::new(1);
    let mut part = vec![0x81, 0x80 | 126];
    part.extend_from_slice(&24_000_u16.to_be_bytes());
    part.extend_from_slice(&[0; 4]);
    part.extend_from_slice(&[b'x'; 23_990]);
    let count = 2 * limits::SOCKET_INPUT_BYTES_PER_APP_MAX / 24_000;
    let healthy = process.open(0);
    let mut first = None;
    for number in 0..count {
        let connection = process.open(0);
        process.receive(0, connection, &part);
        first.get_or_insert(connection);
        assert!(process.shards[0].connections.input_bytes() <= limits::SOCKET_INPUT_BYTES_PER_APP_MAX);
        if number % 100 == 0 {
            process.say(0, healthy, r#"{"event":"pusher:ping"}"#);
            assert!(process.take(0, healthy).contains("pusher:pong"));
        }
    }
    let closed = process.take(0, first.expect("there is one"));
    assert!(closed.contains("4100"), "{closed}");
    process.finish();
}

/// Threat T14: bodies with a valid credential are bounded per app: the request that is one too many is answered 503,
/// those before it are completed.
#[test]
fn bodies_of_callers_are_bounded() {
    let mut process = Process::new(1);
    let body = format!(r#"{{"name":"e","channel":"c","data":"d","x":"{}"}}"#, "x".repeat(1_000_000));
    let count = limits::CALLER_INPUT_BYTES_PER_APP_MAX / body.len() + 4;
    let callers: Vec<ConnectionKey> = (0..count).map(|_| process.accept(0)).collect();
    let (begin, end) = body.split_at(body.len() - 1);
    for caller in &callers {
        process.receive(0, *caller, head("/apps/1/events", GOOD, body.len()).as_bytes());
        process.receive(0, *caller, begin.as_bytes());
        assert!(process.shards[0].connections.input_bytes() <= limits::CALLER_INPUT_BYTES_PER_APP_MAX);
    }
    let mut refused = 0;
    for caller in &callers {
        process.receive(0, *caller, end.as_bytes());
        let answer = process.take(0, *caller);
        refused += usize::from(answer.starts_with("HTTP/1.1 503 "));
        assert!(answer.starts_with("HTTP/1.1 503 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!((1..10).contains(&refused), "{refused} of {count}");
    process.finish();
}

/// Threat T14, P-LIM-11: each further MiB of a body gives its request a second more, once the head has a valid
/// credential; a stranger gets 5 s whatever it declares, whether the head arrives complete or in parts, and a chunked
/// body as much as the app's longest.
#[test]
fn large_bodies_have_time_to_arrive() {
    const MIB: usize = 1 << 20;
    let settings = AppSettings { max_event_data_bytes: MIB as u32, ..AppSettings::default() };
    for (head, within_ms) in [
        (head("/apps/1/batch_events", GOOD, MIB), 5_000),
        (head("/apps/1/batch_events", GOOD, MIB + 1), 6_000),
        (head("/apps/1/batch_events", GOOD, 10 * MIB), 14_000),
        (head("/apps/1/batch_events", GOOD, 24 * MIB), 28_000),
        (head("/apps/1/batch_events", "", 10 * MIB), 5_000),
        (format!("POST /apps/1/events HTTP/1.1\r\nHost: h\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n"), 28_000),
    ] {
        for split in [1, head.len() / 2, head.len() - 1, head.len()] {
            let mut process = Process::with_settings(1, settings.clone());
            let connection = process.accept(0);
            process.receive(0, connection, &head.as_bytes()[..split]);
            process.receive(0, connection, &head.as_bytes()[split..]);
            process.receive(0, connection, b"1");
            process.pass_time(within_ms - 1);
            assert_eq!(process.take(0, connection), "", "{head} in {within_ms} ms");
            process.pass_time(101);
            let answer = process.take(0, connection);
            assert!(answer.starts_with("HTTP/1.1 408"), "{head} in {within_ms} ms: {answer}");
        }
    }
}

/// P-CLOSE-5, P-STAT-8: a caller that reads nothing has pending at most one list and a bounded rest, however many it
/// requests, on one shard and on several; once it reads, all answers arrive, in order.
#[test]
fn unread_lists_are_bounded() {
    for shards in [1, 2] {
        let mut process = Process::new(shards);
        let channels: Vec<String> = (0..1_000).map(|number| format!("{number}-{}", "n".repeat(190))).collect();
        let subscriber = process.open(0);
        for channel in &channels {
            process.subscribe(0, subscriber, channel);
        }
        let caller = process.accept(0);
        let pipelined = request("GET", "/apps/1/channels", "").repeat(64);
        let now = process.now;
        process.shards[0].handle_input(now, Input::Received { connection: caller, bytes: &mut pipelined.into_bytes() });
        process.pass_mail(20);
        let owed = process.shards[0].connections.unsent_bytes(caller.slot());
        assert!((150_000..300_000).contains(&owed), "{owed}");
        assert!(
            process.shards[0].connections.list_bytes() <= 300_000,
            "{}",
            process.shards[0].connections.list_bytes()
        );
        process.pass_time(1);
        for _ in 0..200 {
            process.pass_time(1);
        }
        let answers = process.take(0, caller);
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 64);
        process.finish();
    }
}

/// P-CLOSE-5: the same for short answers that are created at once.
#[test]
fn unread_answers_are_bounded() {
    let mut process = Process::new(1);
    let caller = process.accept(0);
    let now = process.now;
    for _ in 0..10 {
        let mut pipelined = b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_800);
        process.shards[0].handle_input(now, Input::Received { connection: caller, bytes: &mut pipelined });
    }
    let owed = process.shards[0].connections.unsent_bytes(caller.slot());
    assert!(owed <= limits::HTTP_OUTBOX_BYTES_SOFT + 1_000, "{owed}");
    process.pass_time(1);
    assert_eq!(process.take(0, caller).matches("HTTP/1.1 404 ").count(), 18_000);
    process.finish();
}

/// Threat T14: answers that strangers do not read stay below the bound of strangers together: the oldest are reset, and
/// clients that read are served meanwhile. Sent bytes no longer count.
#[test]
fn unread_answers_of_strangers_are_bounded_together() {
    let mut process = Process::new(1);
    let now = process.now;
    let pipelined = b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n".repeat(120);
    let count = 3 * limits::STRANGER_BYTES_MAX / limits::HTTP_OUTBOX_BYTES_SOFT;
    let mut reset = Vec::new();
    let mut first = None;
    for number in 0..count {
        let connection = process.accept(0);
        process.stopped.insert((0, connection.slot));
        first.get_or_insert(connection);
        let input = Input::Received { connection, bytes: &mut pipelined.clone() };
        process.shards[0].handle_input(now, input);
        let unsent = process.shards[0].connections.unsent_bytes(connection.slot());
        assert!((16 * 1024..=limits::HTTP_OUTBOX_BYTES_SOFT).contains(&unsent), "{unsent}");
        assert!(process.shards[0].connections.input_bytes() <= limits::STRANGER_BYTES_MAX);
        if number % 50 == 0 {
            let quick = process.accept(0);
            process.receive(0, quick, b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
            assert!(process.take(0, quick).ends_with("OK\n"));
        }
        reset.extend(std::mem::take(&mut process.closed));
        // A joined buffer and the frames in it are held for a moment; everything else is the connections' unsent bytes.
        assert!(process.shards[0].connections.frame_bytes() <= limits::STRANGER_BYTES_MAX * 5 / 4);
    }
    let first = first.expect("there is one");
    assert_eq!(reset.first(), Some(&(0, first.slot, true)));
    assert!(reset.len() >= count / 4, "{}", reset.len());
    process.finish();
}
