//! The memory of a shard shared among its apps, and the memory that one socket may cause itself to use (P-STAT-9,
//! P-CLOSE-5).

use super::*;

/// Shards with two apps: `1`, whose events may be large, and `2`.
fn two_apps(shards: ShardIndex) -> Process {
    let mut process = Process::new(shards);
    let settings = AppSettings { max_event_data_bytes: 200 * 1024, client_events: true, ..AppSettings::default() };
    let keys = vec![AppKey::new("key-b", "secret-b")];
    let other = App { serial: AppSerial(2), id: "2".into(), keys, ..app_with(AppSettings::default()) };
    let directory = Arc::new(Directory::new(2, vec![app_with(settings), other], Vec::new()));
    for shard in 0..process.shards.len() {
        process.feed(shard, Input::Directory(directory.clone()));
    }
    process
}

fn open_other(process: &mut Process, shard: usize) -> ConnectionKey {
    let connection = process.accept(shard);
    process.receive(shard, connection, UPGRADE.replace("app-key", "key-b").as_bytes());
    assert!(process.take(shard, connection).contains("pusher:connection_established"));
    connection
}

fn publish_other(process: &mut Process, shard: usize, connection: ConnectionKey) -> String {
    let body = r#"{"name":"e","channel":"news","data":"1"}"#;
    let request = request("POST", "/apps/2/events", body);
    let request = request.replace("app-key", "key-b").replace("app-secret", "secret-b");
    process.receive(shard, connection, request.as_bytes());
    process.take(shard, connection)
}

/// P-STAT-9: readers of one app that stop cause no refused publish and no lost event of another app; the app itself is
/// refused on every shard and publishes again once its stopped readers are closed. Method: 100 readers that never read
/// a byte, each on its own channel, and events of 100 KiB to all of these until they are refused.
#[test]
fn stopped_readers_of_one_app_refuse_no_other_app() {
    for shards in [1, 2] {
        let mut process = two_apps(shards);
        let last = usize::from(shards) - 1;
        let reader = open_other(&mut process, last);
        process.subscribe(last, reader, "news");
        let channels: Vec<String> = (0..300).map(|number| format!("big-{number}")).collect();
        for channel in &channels {
            let connection = process.open(last);
            process.subscribe(last, connection, channel);
            process.stopped.insert((last, connection.slot));
        }
        let (publisher, other) = (process.accept(0), process.accept(0));
        let data = "x".repeat(100 * 1024);
        let mut refused = 0;
        for round in 0..12 {
            for channels in channels.chunks(100) {
                let body = serde_json::json!({"name": "e", "channels": channels, "data": data}).to_string();
                let answer = process.publish(0, publisher, &body);
                assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 503"), "{answer}");
                refused += usize::from(answer.starts_with("HTTP/1.1 503"));
                let answer = publish_other(&mut process, 0, other);
                assert!(answer.starts_with("HTTP/1.1 200"), "round {round}, after {refused} refusals: {answer}");
                assert!(process.take(last, reader).contains(r#""event":"e""#));
            }
            let held = process.shards[last].connections.frame_bytes();
            assert!(held <= limits::SHARD_SEND_BYTES_MAX, "{held} bytes");
        }
        assert!(refused > 0, "the readers did not fill the share of their app");
        for _ in 0..300 {
            process.pass_time(100);
        }
        assert_eq!(process.shards[last].stats().websockets, 1, "its stopped readers were closed");
        let answer = process.publish(0, publisher, r#"{"name":"e","channel":"big-0","data":"1"}"#);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        process.finish();
    }
}

/// P-STAT-9: an app that is over its share loses the readers that are behind, with the next event or reply to each, and
/// those that keep up stay. Method: the test fills the share directly.
#[test]
fn readers_that_are_behind_go_when_their_app_is_over_its_share() {
    let mut process = two_apps(1);
    let (stopped, healthy, other) = (process.open(0), process.open(0), open_other(&mut process, 0));
    for connection in [stopped, healthy] {
        process.subscribe(0, connection, "news");
    }
    process.subscribe(0, other, "news");
    process.stopped.insert((0, stopped.slot));
    let publisher = process.accept(0);
    let body = serde_json::json!({"name": "e", "channel": "news", "data": "x".repeat(150 * 1024)}).to_string();
    for _ in 0..3 {
        assert!(process.publish(0, publisher, &body).starts_with("HTTP/1.1 200"));
    }
    let filler = bytes::Bytes::from(vec![0; 200 << 20]);
    let filler = process.shards[0].connections.fill(filler, 1);
    // Each of the two may have half of the app's unsent bytes: more than any outbox may.
    let news = process.shards[0].context.channel_key(AppSerial(1), "news");
    let event = bytes::Bytes::from_static(b"\x81\x02{}");
    deliver(&mut process.shards[0], &news, event.clone());
    process.say(0, healthy, r#"{"event":"pusher:ping"}"#);
    assert_eq!(process.shards[0].stats().slow_closed, 0);
    for _ in 0..1_000 {
        process.open(0);
    }
    process.say(0, healthy, r#"{"event":"pusher:ping"}"#);
    assert!(process.take(0, healthy).ends_with(r#""event":"pusher:pong","data":"{}"}"#));
    deliver(&mut process.shards[0], &news, event);
    process.feed(0, Input::Timeout);
    assert_eq!(process.shards[0].stats().slow_closed, 1);
    assert!(process.take(0, healthy).ends_with("{}"));
    assert!(process.publish(0, publisher, &body).starts_with("HTTP/1.1 503"));
    assert!(publish_other(&mut process, 0, publisher).starts_with("HTTP/1.1 200"));
    process.shards[0].connections.release(filler);
    process.pass_time(limits::FULL_APPS_INTERVAL_MS);
    assert!(process.publish(0, publisher, &body).starts_with("HTTP/1.1 200"));
    assert!(process.take(0, other).contains(r#""event":"e""#));
    process.finish();
}

/// P-CLOSE-5: the output that a socket causes itself is bounded although it does not read: pongs, errors, refusals and
/// answers to subscriptions. Method: a single read contains many complete messages, and a second read the same; then
/// the socket reads, and gets every answer, once and in order.
#[test]
fn replies_to_a_socket_that_does_not_read_are_bounded() {
    let long = format!("private-{}", "a".repeat(150));
    let refused =
        format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{long}","auth":"app-key:{}"}}}}"#, "0".repeat(64));
    for message in [r#"{"event":"pusher:ping"}"#, &refused, r#"{"event":"client-x","channel":"c","data":1}"#] {
        let mut process = Process::new(1);
        let connection = process.open(0);
        process.stopped.insert((0, connection.slot));
        let count = 64 * 1024 / client_frame(message).len();
        let bytes = client_frame(message).repeat(count);
        process.receive(0, connection, &bytes);
        process.receive(0, connection, &bytes);
        let owed = process.shards[0].connections.unsent_bytes(connection.slot());
        assert!(owed <= limits::REPLY_BYTES_MAX + 2 * 1024, "{owed} bytes are owed for {message}");
        let held = process.shards[0].connections.frame_bytes();
        assert!(held <= 2 * limits::REPLY_BYTES_MAX + 8 * 1024, "{held} bytes are held for {message}");
        assert_eq!(process.shards[0].stats().slow_closed, 0);
        process.stopped.clear();
        let taken = process.take_lent(0, connection);
        process.feed(0, Input::Sent { connection, bytes: taken });
        let text = process.take(0, connection);
        let answers = text.matches(r#"{"event":"pusher:"#).count();
        let errors = text.matches(r#""event":"pusher:error""#).count();
        let each = if message == refused { 2 } else { 1 };
        assert!(answers >= 2 * count * each, "{answers} answers, {errors} of them errors, to 2 x {count} of {message}");
        process.finish();
    }
}

/// P-CLOSE-5: held-back input is read before the end of the peer's stream, and a Close in it is answered.
#[test]
fn what_is_held_back_is_read_before_the_end() {
    let mut process = Process::new(1);
    let (connection, listener) = (process.open(0), process.open(0));
    process.subscribe(0, listener, "news");
    process.stopped.insert((0, connection.slot));
    let mut bytes = client_frame(r#"{"event":"pusher:ping"}"#).repeat(2_000);
    bytes.extend_from_slice(&client_frame(r#"{"event":"pusher:subscribe","data":{"channel":"last"}}"#));
    process.receive(0, connection, &bytes);
    assert_eq!(process.shards[0].stats().channels, 1, "the last message waits");
    process.feed(0, Input::ReadEnded { connection });
    assert_eq!(process.closed.last(), Some(&(0, connection.slot, false)));
    process.finish();
}

/// P-STAT-9: lists of one app, however many are requested, do not delay those of another by more than a page. Method:
/// one app requests 200 lists of a table of several pages, then another requests one; pages are created one millisecond
/// after the other.
#[test]
fn lists_of_one_app_do_not_delay_those_of_another() {
    let mut process = two_apps(1);
    for _ in 0..8 {
        let connection = process.open(0);
        for channel in 0..1_000 {
            process.subscribe(0, connection, &format!("c-{}-{channel}", connection.slot));
        }
    }
    let flood: Vec<ConnectionKey> = (0..200).map(|_| process.accept(0)).collect();
    let now = process.now;
    for connection in &flood {
        let mut bytes = request("GET", "/apps/1/channels", "").into_bytes();
        process.shards[0].handle_input(now, Input::Received { connection: *connection, bytes: &mut bytes });
    }
    let other = process.accept(0);
    let list = request("GET", "/apps/2/channels", "").replace("app-key", "key-b").replace("app-secret", "secret-b");
    process.receive(0, other, list.as_bytes());
    let mut answered_after_ms = None;
    for ms in 1..10_000 {
        process.pass_time(1);
        if answered_after_ms.is_none() && process.take(0, other).starts_with("HTTP/1.1 200") {
            answered_after_ms = Some(ms);
        }
        if process.shards[0].requests.asked_pages() == 0 {
            break;
        }
    }
    let pages = process.shards[0].owner.table_len().div_ceil(limits::LIST_PAGE_CHANNELS);
    let after_ms = answered_after_ms.expect("it is answered");
    assert!(after_ms <= 2 * pages + 4, "after {after_ms} ms, of {pages} pages for each list");
    process.finish();
}

/// P-STAT-9: strangers who request `/accept-traffic` take no page of metrics from an operator, nor the answer from a
/// load balancer.
#[test]
fn strangers_do_not_fill_the_pages_of_figures() {
    let mut process = two_apps(1);
    let connections: Vec<ConnectionKey> = (0..3).map(|_| process.accept(0)).collect();
    let now = process.now;
    for connection in connections {
        let mut bytes = request("GET", "/accept-traffic", "").repeat(limits::SCRAPES_MAX).into_bytes();
        process.shards[0].handle_input(now, Input::Received { connection, bytes: &mut bytes });
        process.feed(0, Input::Timeout);
        assert!(!process.take(0, connection).contains("503"), "it is refused");
    }
    assert_eq!(process.shards[0].requests.scrapes(), 3 * limits::SCRAPES_MAX, "the driver has not measured yet");
    process.shards[0].handle_process_figures(&Default::default());
    assert_eq!(process.shards[0].requests.scrapes(), 0);
    process.finish();
}

/// P-CLOSE-5, RFC 6455 section 5.5.1: no frame follows Close, even if an answer of several frames reaches the hard
/// bound of the outbox with any of them. Method: an event fills the outbox of a reader that has stopped up to some
/// bytes below the bound.
#[test]
fn nothing_follows_close_when_an_answer_meets_the_hard_bound() {
    for spare in [1, 60, 150, 250, 400] {
        let mut process = Process::new(1);
        let connection = process.open(0);
        process.subscribe(0, connection, "news");
        process.stopped.insert((0, connection.slot));
        let length = limits::OUTBOX_BYTES_MAX - spare;
        let mut event = vec![0x81, 127];
        event.extend_from_slice(&(length as u64 - 10).to_be_bytes());
        event.resize(length, b'x');
        let news = process.shards[0].context.channel_key(AppSerial(1), "news");
        deliver(&mut process.shards[0], &news, event.into());
        process.feed(0, Input::Timeout);
        process.say(0, connection, r#"{"event":"pusher:subscribe","data":{"channel":"private-closed"}}"#);
        process.say(0, connection, r#"{"event":"pusher:ping"}"#);
        process.stopped.clear();
        let taken = process.take_lent(0, connection);
        process.feed(0, Input::Sent { connection, bytes: taken });
        let bytes = process.received.remove(&(0, connection.slot)).expect("it was sent something");
        let mut rest = &bytes[length..];
        let mut closed = false;
        while let [first, second, after @ ..] = rest {
            assert!(!closed, "a frame after Close, with {spare} bytes to spare");
            closed = *first == 0x88;
            let (payload, skipped) = match second {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), 2),
                short => (usize::from(*short), 0),
            };
            rest = &after[skipped + payload..];
        }
        assert_eq!(closed, process.shards[0].stats().slow_closed == 1);
        assert!(closed || spare > 200, "a reader that owes more than the bound is closed, with {spare} bytes to spare");
        process.finish();
    }
}

/// P-STAT-9: changes of the store that one app requests leave capacity for those of another.
#[test]
fn changes_of_one_app_refuse_no_other_app() {
    let mut process = two_apps(1);
    let add = request("POST", "/apps/1/webhooks", r#"{"url":"https://example.com/"}"#);
    let mut refused = 0;
    for _ in 0..limits::STORE_CHANGES_PER_SHARD_MAX {
        let connection = process.accept(0);
        process.receive(0, connection, add.as_bytes());
        refused += usize::from(process.take(0, connection).starts_with("HTTP/1.1 503"));
    }
    assert_eq!(refused, limits::STORE_CHANGES_PER_SHARD_MAX / 4);
    let add = add.replace("/apps/1/", "/apps/2/").replace("app-key", "key-b").replace("app-secret", "secret-b");
    let connection = process.accept(0);
    process.receive(0, connection, add.as_bytes());
    assert_eq!(process.take(0, connection), "", "it waits for the store");
    let changes = std::mem::take(&mut process.changes);
    assert_eq!(changes.len(), limits::STORE_CHANGES_PER_SHARD_MAX / 4 * 3 + 1);
    for change in changes {
        process.feed(0, Input::Mail { from: 0, mail: Mail::changed(change.id, Changed::Removed) });
    }
    assert!(process.take(0, connection).starts_with("HTTP/1.1 204"));
    process.finish();
}

/// P-STAT-8: a shard that holds more than its memory returns no credit for the mail that it handles, so that the others
/// stop sending, and returns all of it once there is memory. Method: a frame as large as the bound, then 2 MiB of
/// events from another shard to a subscriber that reads them.
#[test]
fn credit_is_kept_while_memory_is_short() {
    let mut process = two_apps(2);
    let owner =
        |name: &String| process.shards[0].context.owner_of(&process.shards[0].context.channel_key(AppSerial(1), name));
    let channel = (0..).map(|number| format!("c{number}")).find(|name| owner(name) == 1).expect("one of them");
    let (reader, publisher) = (process.open(1), process.accept(0));
    process.subscribe(1, reader, &channel);
    let held =
        process.shards[1].connections.fill(vec![0; limits::SHARD_SEND_BYTES_MAX + 1].into(), crate::connection::NONE);
    let body = serde_json::json!({"name": "e", "channel": channel, "data": "x".repeat(100 * 1024)}).to_string();
    for _ in 0..20 {
        assert!(process.publish(0, publisher, &body).starts_with("HTTP/1.1 200"));
        assert!(process.take(1, reader).contains(r#""event":"e""#));
    }
    let owed = process.shards[1].context.mail.returnable(0);
    assert!(owed >= 20 * 100 * 1024, "{owed}");
    process.pass_time(10_000);
    assert_eq!(process.shards[1].context.mail.returnable(0), owed);
    process.shards[1].connections.release(held);
    process.pass_time(10_000);
    assert_eq!(process.shards[1].context.mail.returnable(0), 0);
    process.finish();
}

/// Delivers one event to the subscribers of a channel on a shard.
fn deliver(shard: &mut Shard, channel: &mail::ChannelKey, frame: bytes::Bytes) {
    let channel = channel.clone();
    let message = mail::ChannelMessage::Deliver { channel, frame, order: None, exclude: None, accepted_us: 0, cost: 0 };
    shard.dispatch(0, message.into());
    shard.follow_up();
}
