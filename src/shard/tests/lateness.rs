//! P-LIVE-6: no peer is judged for time in which the shard was late, nor before its input was read.

use super::*;
use crate::connection::Flags;
use crate::shard::deadlines::DeadlineKind;

const LATE_MS: u64 = 3_600_000;

/// A request to the health route, in two halves.
const HALVES: [&[u8]; 2] = [b"GET /up HTTP/1.1\r\nHo", b"st: h\r\n\r\n"];

fn websocket_ping() -> Vec<u8> {
    vec![0x89, 0x80, 0, 0, 0, 0]
}

/// Feeds an input without the drain that a driver does after it.
fn feed_alone(process: &mut Process, input: Input<'_>) {
    process.shards[0].handle_input(process.now, input);
}

/// Lets a punctual driver's turns pass without a single send.
fn pass_turns_without_sends(process: &mut Process, ms: u64) {
    for _ in 0..ms / 100 {
        process.now.monotonic_ms += 100;
        for input in [Input::CaughtUp, Input::Timeout] {
            feed_alone(process, input);
        }
        process.shards[0].end_batch();
        while let Some(output) = process.shards[0].poll_output() {
            assert!(!matches!(output, Output::Close { .. }), "{output:?}");
        }
    }
}

/// P-CLOSE-5: bytes that wait for the shard itself, as in a fan-out that takes minutes, make no connection a slow
/// reader, and all of them arrive.
#[test]
fn unattempted_sends_are_no_stall() {
    let mut process = Process::new(1);
    let subscribers: Vec<ConnectionKey> = (0..50).map(|_| process.open(0)).collect();
    for connection in &subscribers {
        process.subscribe(0, *connection, "news");
    }
    let publisher = process.accept(0);
    let mut request = publish_request(r#"{"name":"e","channel":"news","data":"1"}"#).into_bytes();
    feed_alone(&mut process, Input::Received { connection: publisher, bytes: &mut request });
    pass_turns_without_sends(&mut process, 60_000);
    assert_eq!(process.shards[0].stats().slow_closed, 0);
    process.pass_turn(1);
    for connection in &subscribers {
        assert!(process.take(0, *connection).contains(r#""event":"e""#));
    }
    process.finish();
}

/// P-CLOSE-5: a send that the kernel holds counts from when it was lent; time before that does not.
#[test]
fn a_stall_begins_with_the_send() {
    let mut process = Process::new(1);
    let connection = process.open(0);
    feed_alone(&mut process, Input::Received { connection, bytes: &mut websocket_ping() });
    pass_turns_without_sends(&mut process, 60_000);
    assert!(process.shards[0].poll_flush().is_some(), "the pong is lent now");
    let lent_ms = process.now.monotonic_ms;
    while process.shards[0].stats().slow_closed == 0 {
        process.now.monotonic_ms += 100;
        feed_alone(&mut process, Input::CaughtUp);
        feed_alone(&mut process, Input::Timeout);
    }
    assert!(process.now.monotonic_ms - lent_ms >= limits::STALL_MS);
}

/// A turn that begins an hour late judges no peer: idle and pinged clients, half requests and messages, lingering and
/// closing connections, those that have yet to authorize themselves, departures that webhooks wait for. `Timeout` is
/// even fed before the input received meanwhile.
#[test]
fn a_late_turn_judges_nobody() {
    let mut process = Process::new(1);
    let (idle, half, message) = (process.open(0), process.accept(0), process.open(0));
    let silent = process.accept(0);
    process.receive(0, half, HALVES[0]);
    process.receive(0, message, &client_frame(r#"{"event":"pusher:ping"}"#)[..9]);
    let lent = process.open(0);
    feed_alone(&mut process, Input::Received { connection: lent, bytes: &mut websocket_ping() });
    assert!(process.shards[0].poll_flush().is_some());
    for _ in 0..10 {
        process.now.monotonic_ms += LATE_MS;
        for input in [Input::Timeout, Input::CaughtUp, Input::Timeout] {
            feed_alone(&mut process, input);
        }
    }
    assert_eq!(process.shards[0].stats().slow_closed, 0);
    feed_alone(&mut process, Input::Sent { connection: lent, bytes: 2 });
    process.receive(0, half, HALVES[1]);
    process.receive(0, message, &client_frame(r#"{"event":"pusher:ping"}"#)[9..]);
    process.receive(0, silent, &HALVES.concat());
    assert!(process.take(0, half).starts_with("HTTP/1.1 200"));
    assert!(process.take(0, silent).starts_with("HTTP/1.1 200"));
    assert!(process.take(0, message).contains("pusher:pong"));
    assert_eq!(process.take(0, idle), "");
    assert!(process.closed.is_empty(), "{:?}", process.closed);
    process.finish();
}

/// Time passes and deadlines with it, but while the driver is not caught up no peer is judged: input that the peer sent
/// in time may not have been read.
#[test]
fn nobody_is_judged_before_everything_was_read() {
    let mut process = Process::new(1);
    let half = process.accept(0);
    process.receive(0, half, HALVES[0]);
    for _ in 0..600 {
        process.now.monotonic_ms += 100;
        feed_alone(&mut process, Input::Timeout);
    }
    process.receive(0, half, HALVES[1]);
    assert!(process.take(0, half).starts_with("HTTP/1.1 200"));
    process.receive(0, half, HALVES[0]);
    process.pass_time(limits::REQUEST_WITHIN_MS - 1);
    assert_eq!(process.take(0, half), "");
    process.pass_time(1);
    assert!(process.take(0, half).starts_with("HTTP/1.1 408"), "a caught up shard judges in time");
    process.finish();
}

/// P-LIVE-4: the time for a pong begins when the ping can have reached the client, however late the shard sends it.
#[test]
fn a_pong_is_awaited_from_the_ping_on() {
    let mut process = Process::with_settings(1, AppSettings { activity_timeout: 30, ..AppSettings::default() });
    let connection = process.open(0);
    let flags = |process: &Process| process.shards[0].connections.flags(connection.slot());
    while !flags(&process).contains(Flags::AWAITING_PONG) {
        pass_turns_without_sends(&mut process, 100);
    }
    pass_turns_without_sends(&mut process, 5 * limits::PONG_WITHIN_MS);
    process.pass_turn(1);
    assert_eq!(process.take(0, connection), "\u{fffd}\0", "a ping frame");
    process.pass_time(limits::PONG_WITHIN_MS - 200);
    assert_eq!(process.take(0, connection), "");
    process.receive(0, connection, &[0x8a, 0x80, 0, 0, 0, 0]);
    process.pass_time(limits::PONG_WITHIN_MS);
    assert_eq!(process.take(0, connection), "");
    process.finish();
}

/// Threats T8 and T14: each request and message has its own time. A client that pipelines, each request and message in
/// two reads, is never late, however long that continues; control frames between two fragments do not renew a message's
/// time. The queue of deadlines has one entry for each connection throughout.
#[test]
fn each_request_and_message_has_its_own_time() {
    let mut process = Process::new(1);
    let (requests, messages, fragments) = (process.accept(0), process.open(0), process.open(0));
    let message = client_frame(r#"{"event":"pusher:ping"}"#);
    process.receive(0, requests, HALVES[0]);
    process.receive(0, messages, &message[..9]);
    // The first fragment of a text.
    process.receive(0, fragments, &[0x01, 0x81, 0, 0, 0, 0, b'{']);
    let (request, message) = ([HALVES[1], HALVES[0]].concat(), [&message[9..], &message[..9]].concat());
    let rounds = 2 * limits::MESSAGE_WITHIN_MS / 100;
    for round in 1..=rounds {
        process.pass_time(100);
        process.receive(0, requests, &request);
        process.receive(0, messages, &message);
        if round * 100 < limits::MESSAGE_WITHIN_MS {
            process.receive(0, fragments, &websocket_ping());
        }
        let queued = &process.shards[0].context.deadlines;
        assert!(queued.count_of(DeadlineKind::Request) <= 3 && queued.count_of(DeadlineKind::Message) <= 2);
    }
    assert_eq!(process.take(0, requests).matches("HTTP/1.1 200").count() as u64, rounds);
    assert_eq!(process.take(0, messages).matches("pusher:pong").count() as u64, rounds);
    assert!(process.take(0, fragments).contains("The message took too long"));
    process.finish();
}

/// Threat T14: a request has its own time even if the previous one had more, for its large body; the queue keeps no
/// deadline of a connection for longer than it applies.
#[test]
fn a_large_body_gives_no_time_to_the_request_behind_it() {
    let settings = AppSettings { max_event_data_bytes: 1 << 20, ..AppSettings::default() };
    let mut process = Process::with_settings(1, settings);
    let connection = process.accept(0);
    let body = r#"{"name":"e","channel":"c","data":"d"}"#;
    let large = format!(
        "POST /apps/1/events HTTP/1.1\r\nHost: h\r\nX-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    // The deadline of the first request has passed: the queue has none.
    process.receive(0, connection, &HALVES.concat());
    process.take(0, connection);
    process.pass_time(limits::REQUEST_WITHIN_MS);
    for _ in 0..100 {
        process.receive(0, connection, &large.as_bytes()[..large.len() - 1]);
        let awaited_ms = process.shards[0].connections.http(connection.slot()).deadline_ms;
        assert!(
            awaited_ms > process.now.monotonic_ms + limits::REQUEST_WITHIN_MS,
            "a body of unknown length has more time"
        );
        process.receive(0, connection, &large.as_bytes()[large.len() - 1..]);
        assert!(process.take(0, connection).starts_with("HTTP/1.1 200"));
        process.receive(0, connection, HALVES[0]);
        process.pass_time(100);
        process.receive(0, connection, HALVES[1]);
        assert!(process.take(0, connection).starts_with("HTTP/1.1 200"));
        assert!(process.shards[0].context.deadlines.count_of(DeadlineKind::Request) <= 4);
    }
    process.receive(0, connection, large.as_bytes());
    process.receive(0, connection, HALVES[0]);
    process.take(0, connection);
    process.pass_time(limits::REQUEST_WITHIN_MS - 1);
    assert_eq!(process.take(0, connection), "");
    process.pass_time(101);
    assert!(process.take(0, connection).starts_with("HTTP/1.1 408"));
    process.finish();
}

/// Connections that open and close faster than their deadlines leave a short queue, and so do those that stay and wait
/// for nothing: memory of idle connections.
#[test]
fn stale_deadlines_take_no_room() {
    let mut process = Process::new(1);
    let _stays = process.open(0);
    for generation in 1..5_000 {
        let connection = ConnectionKey { slot: 1, generation };
        let peer = "127.0.0.1:5000".parse().expect("an address");
        process.feed(0, Input::Accepted { connection, peer, listener: Listener::Public, refuse: false });
        process.feed(0, Input::Closed { connection });
        assert!(process.shards[0].context.deadlines.count_of(DeadlineKind::Request) <= 4);
    }
    process.slots = 2;
    for _ in 0..5_000 {
        process.open(0);
        assert!(process.shards[0].context.deadlines.count_of(DeadlineKind::Request) <= 4);
    }
    process.finish();
}

/// P-AUTHZ-1: a connection that has signed in or joined in time is not closed because another shard is late to record
/// it.
#[test]
fn authorization_does_not_wait_for_another_shard() {
    let settings = AppSettings { authorized_connections: true, ..AppSettings::default() };
    let mut process = Process::with_settings(2, settings);
    let (prompt, idle) = (process.open(0), process.open(0));
    let auth = |process: &Process, channel: &str| {
        use ::hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"app-secret").expect("any length");
        mac.update(format!("{}:{channel}", process.shards[0].context.socket_id(prompt).to_text()).as_bytes());
        hex::encode(mac.finalize().into_bytes())
    };
    let foreign = |name: &String| {
        let key = process.shards[0].context.channel_key(AppSerial(1), name);
        process.shards[0].context.owner_of(&key) == 1
    };
    let channel = (0..).map(|number| format!("private-{number}")).find(foreign).expect("one of them");
    let auth = auth(&process, &channel);
    let join = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"app-key:{auth}"}}}}"#);
    feed_alone(&mut process, Input::Received { connection: prompt, bytes: &mut client_frame(&join) });
    let mut mails = Vec::new();
    let mut closed = Vec::new();
    for _ in 0..2 * u64::from(limits::AUTHORIZATION_TIMEOUT_S) * 10 {
        process.now.monotonic_ms += 100;
        for input in [Input::CaughtUp, Input::Timeout] {
            feed_alone(&mut process, input);
        }
        let shard = &mut process.shards[0];
        while let Some(output) = shard.poll_output() {
            if let Output::Close { connection, .. } = &output {
                closed.push(*connection);
            }
            if let Output::Mail { mail, .. } = output {
                mails.push(mail);
            }
        }
        while let Some(flush) = shard.poll_flush() {
            let (connection, bytes) = (flush.connection, flush.bytes.len());
            shard.handle_input(process.now, Input::Sent { connection, bytes });
        }
    }
    assert_eq!(closed, [idle], "the one that has not done its part");
    for connection in closed {
        process.feed(0, Input::Closed { connection });
    }
    for mail in mails {
        process.feed(1, Input::Mail { from: 0, mail });
    }
    assert!(process.take(0, prompt).contains("subscription_succeeded"));
    process.finish();
}
