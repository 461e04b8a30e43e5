//! Questions over HTTP: gathered from all shards in pages, answered once, bounded.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

const LIST: &str = "/apps/1/channels";

fn names(listed: &Value) -> BTreeSet<String> {
    listed["channels"].as_object().expect("P-SDK-17: an object").keys().cloned().collect()
}

/// Subscribes new connections, `CHANNELS_PER_CONNECTION_MAX` channels each, distributed over the shards in turn.
fn occupy(process: &mut Process, channels: &[String]) -> Vec<(usize, ConnectionKey)> {
    let shards = process.shards.len();
    let chunks = channels.chunks(limits::CHANNELS_PER_CONNECTION_MAX).enumerate();
    chunks
        .map(|(at, chunk)| {
            let (shard, connection) = (at % shards, process.open(at % shards));
            chunk.iter().for_each(|channel| process.subscribe(shard, connection, channel));
            (shard, connection)
        })
        .collect()
}

/// P-HTTP-3, P-SDK-17: with any number of shards, requested through any of them, every occupied channel is listed once
/// and an empty list is an object.
#[test]
fn lists_gather_from_all_shards() {
    for shards in [1, 2, 5] {
        let mut process = Process::new(shards);
        let caller = process.accept(usize::from(shards) - 1);
        let at = usize::from(shards) - 1;
        assert_eq!(
            process.ask(at, caller, "GET", LIST, "").split_once("\r\n\r\n").map(|(_, body)| body),
            Some(r#"{"channels":{}}"#)
        );
        let channels: Vec<String> = (0..40).map(|number| format!("room-{}-{number}", number % 4)).collect();
        let subscribers = occupy(&mut process, &channels);
        let listed = json_of(&process.ask(at, caller, "GET", LIST, ""), 200);
        assert_eq!(names(&listed), channels.iter().cloned().collect());
        let path = format!("{LIST}?filter_by_prefix=room-1&info=subscription_count,user_count");
        let listed = json_of(&process.ask(at, caller, "GET", &path, ""), 200);
        assert_eq!(listed["channels"]["room-1-1"], json!({"subscription_count": 1}));
        assert_eq!(names(&listed).len(), 10);
        for (shard, connection) in subscribers {
            process.feed(shard, Input::Closed { connection });
        }
        assert_eq!(json_of(&process.ask(at, caller, "GET", LIST, ""), 200), json!({"channels": {}}));
        process.finish();
    }
}

/// P-HTTP-3: a list longer than a page arrives page by page, with other input between two of them; a channel that is
/// vacated and reoccupied meanwhile is in it once, and one that stays is never missed.
#[test]
fn pages_leave_room_and_double_nothing() {
    let mut process = Process::new(1);
    let channels: Vec<String> = (0..2 * limits::LIST_PAGE_CHANNELS + 100).map(|number| format!("c-{number}")).collect();
    let subscribers = occupy(&mut process, &channels);
    let (mover, caller) = (process.open(0), process.accept(0));
    // Freed first, so that the mover's channel is in the first page and, when it is reoccupied, in the last one.
    let (_, first) = subscribers[0];
    process.say(0, first, r#"{"event":"pusher:unsubscribe","data":{"channel":"c-0"}}"#);
    process.subscribe(0, mover, "mover");
    let now = process.now;
    process.shards[0]
        .handle_input(now, Input::Received { connection: caller, bytes: &mut request("GET", LIST, "").into_bytes() });
    process.shards[0].handle_input(now, Input::Timeout);
    assert_eq!(process.shards[0].requests.asked_pages(), 1, "the second page waits for its turn");
    for text in [
        r#"{"event":"pusher:unsubscribe","data":{"channel":"mover"}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"filler"}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"mover"}}"#,
    ] {
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        process.shards[0].handle_input(now, Input::Received { connection: mover, bytes: &mut frame });
    }
    (0..3).for_each(|_| process.pass_time(1));
    let answer = process.take(0, caller);
    let listed = names(&json_of(&answer, 200));
    assert_eq!(answer.matches(r#""mover":{}"#).count(), 1);
    assert!(channels[1..].iter().all(|channel| listed.contains(channel)));
    process.finish();
}

/// P-STAT-8: lists that would hold too much together are refused with 503 and `Retry-After`; those within the bound are
/// answered, and their memory is released.
#[test]
fn lists_are_bounded() {
    let mut process = Process::new(1);
    let channels: Vec<String> = (0..5_000).map(|number| format!("{number}-{}", "n".repeat(190))).collect();
    occupy(&mut process, &channels);
    // One connection has one list at a time.
    let callers: Vec<ConnectionKey> = (0..90).map(|_| process.accept(0)).collect();
    let (now, asked) = (process.now, request("GET", LIST, "").into_bytes());
    for caller in &callers {
        let input = Input::Received { connection: *caller, bytes: &mut asked.clone() };
        process.shards[0].handle_input(now, input);
    }
    while process.shards[0].requests.pending_queries() > 0 {
        process.pass_time(1);
    }
    let answers: String = callers.iter().map(|caller| process.take(0, *caller)).collect();
    let (whole, refused) = (answers.matches("HTTP/1.1 200 ").count(), answers.matches("HTTP/1.1 503 ").count());
    assert_eq!(whole + refused, 90);
    assert!(whole > 30 && refused > 10, "{whole} whole, {refused} refused");
    assert_eq!(answers.matches("Retry-After: 1\r\n").count(), refused);
    process.finish();
}

/// P-HTTP-16: a caller that is gone before its list is complete costs no further page.
#[test]
fn nobody_waits_for_a_list() {
    let mut process = Process::new(1);
    let channels: Vec<String> = (0..limits::LIST_PAGE_CHANNELS + 10).map(|number| format!("c-{number}")).collect();
    occupy(&mut process, &channels);
    let caller = process.accept(0);
    let now = process.now;
    process.shards[0]
        .handle_input(now, Input::Received { connection: caller, bytes: &mut request("GET", LIST, "").into_bytes() });
    process.shards[0].handle_input(now, Input::Closed { connection: caller });
    process.shards[0].handle_input(now, Input::Timeout);
    assert!((process.shards[0].requests.asked_pages() == 0) && (process.shards[0].requests.pending_queries() == 0));
    process.finish();
}

/// P-HTTP-4, P-HTTP-5, P-HTTP-8, P-HTTP-9: one channel, its users and the app's connections, requested through any
/// shard; pipelined with a list, the answers keep the order of the requests (P-HTTP-16).
#[test]
fn one_owner_answers() {
    for shards in [1, 2, 5] {
        let mut process = Process::new(shards);
        let subscribers: Vec<ConnectionKey> = (0..usize::from(shards)).map(|shard| process.open(shard)).collect();
        for (shard, connection) in subscribers.iter().enumerate() {
            process.subscribe(shard, *connection, "news");
        }
        let count = u32::from(shards);
        for shard in 0..usize::from(shards) {
            let caller = process.accept(shard);
            let mut ask = |path: &str| json_of(&process.ask(shard, caller, "GET", &format!("/apps/1{path}"), ""), 200);
            assert_eq!(
                ask("/channels/news?info=subscription_count"),
                json!({"occupied": true, "subscription_count": count})
            );
            assert_eq!(ask("/channels/nobody"), json!({"occupied": false}));
            assert_eq!(
                ask("/channels/news/stats"),
                json!({"occupied": true, "user_count": 0, "connection_count": count})
            );
            assert_eq!(ask("/channels/presence-x/users"), json!({"users": []}));
            assert_eq!(ask("/connections"), json!({"connections": count}));
            let mut pipelined = String::new();
            for path in ["/apps/1/channels", "/apps/1/connections", "/apps/1/channels/news", "/up"] {
                pipelined.push_str(&request("GET", path, ""));
            }
            process.receive(shard, caller, pipelined.as_bytes());
            let answers = process.take(shard, caller);
            let order = [r#"{"channels":{"news":{}}}"#, r#"{"connections":"#, r#"{"occupied":true}"#, "OK\n"];
            let places: Vec<usize> = order.iter().map(|part| answers.find(part).expect(part)).collect();
            assert!(places.is_sorted(), "{answers}");
        }
        process.finish();
    }
}
