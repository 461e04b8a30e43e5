//! The history of channels: positions, ids, resumes and gaps (R-HIST rules, H1 to H12 of their design).

use serde_json::{Value, json};

use super::*;
use crate::channel::history::Order;
use crate::protocol::event_id::EventId;

/// A connection that wants ids.
fn open_with_ids(process: &mut Process, shard: usize) -> ConnectionKey {
    let connection = process.accept(shard);
    let upgrade = UPGRADE.replace("?protocol=7", "?protocol=7&event_ids=true");
    process.receive(shard, connection, upgrade.as_bytes());
    assert!(process.take(shard, connection).contains("pusher:connection_established"));
    connection
}

/// The text frames that a connection was sent, without their headers.
fn texts(process: &mut Process, shard: usize, connection: ConnectionKey) -> Vec<String> {
    let bytes = process.received.remove(&(shard, connection.slot)).unwrap_or_default();
    let (mut rest, mut texts) = (&bytes[..], Vec::new());
    while let [0x81, length, ..] = rest {
        let (header, length) = match length {
            127 => (10, u64::from_be_bytes(rest[2..10].try_into().expect("8 bytes")) as usize),
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            length => (2, usize::from(*length)),
        };
        texts.push(String::from_utf8(rest[header..header + length].to_vec()).expect("text"));
        rest = &rest[header + length..];
    }
    assert!(rest.is_empty(), "only whole text frames: {:?}", String::from_utf8_lossy(rest));
    texts
}

fn frames(process: &mut Process, shard: usize, connection: ConnectionKey) -> Vec<Value> {
    let texts = texts(process, shard, connection);
    texts.iter().map(|text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))).collect()
}

fn publish(process: &mut Process, channel: &str, data: &str) {
    let caller = process.accept(0);
    let answer = process.publish(0, caller, &json!({"name": "e", "channel": channel, "data": data}).to_string());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.feed(0, Input::Closed { connection: caller });
}

fn get(process: &mut Process, path: &str) -> Value {
    let caller = process.accept(0);
    let answer = process.ask(0, caller, "GET", &format!("/apps/1{path}"), "");
    process.feed(0, Input::Closed { connection: caller });
    json_of(&answer, 200)
}

fn position(process: &mut Process, channel: &str) -> String {
    let answer = get(process, &format!("/channels/{channel}?info=position"));
    answer["position"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Subscribes with further members, and returns everything that follows.
fn subscribe_with(process: &mut Process, shard: usize, connection: ConnectionKey, data: &Value) -> Vec<Value> {
    process.say(shard, connection, &json!({"event": "pusher:subscribe", "data": data}).to_string());
    frames(process, shard, connection)
}

/// Resumes on a new connection; returns the frames after `succeeded`.
fn resume(process: &mut Process, shard: usize, channel: &str, after: &str) -> Vec<Value> {
    let connection = open_with_ids(process, shard);
    let mut got = subscribe_with(process, shard, connection, &json!({"channel": channel, "last_event_id": after}));
    process.feed(shard, Input::Closed { connection });
    assert_eq!(got.remove(0)["event"], "pusher_internal:subscription_succeeded");
    got
}

fn data_of(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["data"].as_str().expect("data")).collect()
}

fn settings(history_events: u32) -> AppSettings {
    AppSettings { history_events, ..AppSettings::default() }
}

/// R-HIST-6, R-HIST-8, H1: a position before the first event, ids on events, and for a connection that did not ask the
/// bytes of Pusher, whichever shards they are on.
#[test]
fn ids_for_those_that_ask() {
    for shards in [1, 2, 5] {
        let mut process = Process::new(shards);
        let last = usize::from(shards) - 1;
        let (plain, with_ids) = (process.open(last), open_with_ids(&mut process, 0));
        process.say(
            last,
            plain,
            r#"{"event":"pusher:subscribe","data":{"channel":"c","last_event_id":"evt_x","on_gap":"fail"}}"#,
        );
        let succeeded = r#"{"event":"pusher_internal:subscription_succeeded","channel":"c","data":"{}"}"#;
        assert_eq!(texts(&mut process, last, plain), [succeeded]);
        let before = position(&mut process, "c");
        let got = subscribe_with(&mut process, 0, with_ids, &json!({"channel": "c"}));
        assert_eq!(
            got,
            [json!({
                "event": "pusher_internal:subscription_succeeded",
                "channel": "c",
                "data": json!({"position": before}).to_string(),
            })]
        );
        publish(&mut process, "c", "x");
        assert_eq!(texts(&mut process, last, plain), [r#"{"event":"e","channel":"c","data":"x"}"#]);
        let [event] = &texts(&mut process, 0, with_ids)[..] else { panic!("one event") };
        let id = position(&mut process, "c");
        assert_eq!(*event, format!(r#"{{"event":"e","channel":"c","data":"x","id":"{id}"}}"#));
        let (before, id) = (EventId::decode(&before).expect("an id"), EventId::decode(&id).expect("an id"));
        assert_eq!((before.epoch, before.group, before.sequence + 1), (id.epoch, id.group, id.sequence));
        process.finish();
    }
}

/// R-HIST-7, H3, H5: a reader that comes back gets exactly the later events in order, as often as it asks, also when
/// the channel had no subscribers meanwhile; at the top nothing.
#[test]
fn a_reader_gets_what_it_missed() {
    for shards in [1, 2, 5] {
        let mut process = Process::new(shards);
        let start = position(&mut process, "c");
        let mut ids = vec![start];
        for number in 0..5 {
            publish(&mut process, "c", &number.to_string());
            publish(&mut process, "other", "x");
            ids.push(resume(&mut process, 0, "c", &ids[number])[0]["id"].as_str().expect("an id").to_owned());
        }
        for shard in 0..usize::from(shards) {
            for (at, id) in ids.iter().enumerate() {
                let got = resume(&mut process, shard, "c", id);
                assert_eq!(data_of(&got), (at..5).map(|number| number.to_string()).collect::<Vec<_>>());
                assert!(got.iter().zip(&ids[at + 1..]).all(|(event, id)| event["id"] == **id));
            }
        }
        // R-HIST-14: its history neither occupies nor lists the channel.
        assert_eq!(get(&mut process, "/channels/c"), json!({"occupied": false}));
        assert_eq!(get(&mut process, "/channels"), json!({"channels": {}}));
        process.finish();
    }
}

/// R-HIST-4, R-HIST-10, H4, H6, H7, T57: whatever is wrong with a position, it is a gap, before the events that are
/// kept; with `on_gap` `fail` it is no subscription.
#[test]
fn gaps() {
    for shards in [1, 3] {
        let mut process = Process::with_settings(shards, settings(2));
        let start = position(&mut process, "c");
        for data in ["0", "1", "2"] {
            publish(&mut process, "c", data);
        }
        let top = EventId::decode(&position(&mut process, "c")).expect("an id");
        let floor = EventId { sequence: top.sequence - 2, ..top }.to_text();
        let ahead = EventId { sequence: top.sequence + 1, ..top }.to_text();
        let other_group = EventId { group: top.group.wrapping_add(1), ..top }.to_text();
        let other_epoch = EventId { epoch: top.epoch ^ 1, ..top }.to_text();
        let of_other_app = process.shards[0].context.config.order.event_id(AppSerial(2), top.group, 1).to_text();
        for (after, reason) in [
            (&*start, "expired"),
            (&*ahead, "ahead"),
            (&*EventId { sequence: u64::MAX, ..top }.to_text(), "ahead"),
            (&*other_epoch, "epoch"),
            (&*of_other_app, "epoch"),
            (&*other_group, "unreadable"),
            (&start[..20], "unreadable"),
            ("no id", "unreadable"),
            ("\r\n", "unreadable"),
        ] {
            let got = resume(&mut process, 0, "c", after);
            let readable = EventId::decode(after).map(EventId::to_text);
            let gap = json!({"after": readable, "resumes_at": floor, "reason": reason});
            assert_eq!((&got[0]["event"], &got[0]["channel"]), (&json!("pusher:history_gap"), &json!("c")));
            let data: Value = serde_json::from_str(got[0]["data"].as_str().expect("a string")).expect("JSON");
            assert_eq!(data, gap, "{after}");
            assert_eq!(data_of(&got[1..]), ["1", "2"], "{after}");
            // And none: no subscriber is left behind.
            let connection = open_with_ids(&mut process, 0);
            let data = json!({"channel": "c", "last_event_id": after, "on_gap": "fail"});
            let got = subscribe_with(&mut process, 0, connection, &data);
            assert_eq!(got.len(), 2, "{got:?}");
            assert_eq!((&got[0]["event"], &got[0]["data"]["code"]), (&json!("pusher:error"), &Value::Null));
            let refusal = &got[1]["data"];
            assert_eq!((&refusal["type"], &refusal["status"]), (&json!("HistoryGap"), &json!(410)), "{refusal}");
            assert_eq!(get(&mut process, "/channels/c"), json!({"occupied": false}));
            publish(&mut process, "d", "x");
            assert_eq!(frames(&mut process, 0, connection), [] as [Value; 0]);
            process.feed(0, Input::Closed { connection });
        }
        // A position that is good subscribes with `fail`, too; another word is refused.
        let connection = open_with_ids(&mut process, shards as usize - 1);
        let shard = shards as usize - 1;
        let data = json!({"channel": "c", "last_event_id": floor, "on_gap": "fail"});
        assert_eq!(subscribe_with(&mut process, shard, connection, &data).len(), 3);
        let data = json!({"channel": "d", "on_gap": "Fail"});
        let got = subscribe_with(&mut process, shard, connection, &data);
        assert!(got[0]["data"]["message"].as_str().is_some_and(|text| text.contains("on_gap must be")), "{got:?}");
        process.finish();
    }
}

/// R-HIST-9, R-CHAN-4, H2: no-history channels and apps without history have no positions and no ids; an id that a
/// client has anyway is a gap.
#[test]
fn channels_without_history() {
    for (events, channel) in [(100, "no-history-c"), (100, "cache-no-history-c"), (0, "c")] {
        let mut process = Process::with_settings(2, settings(events));
        let connection = open_with_ids(&mut process, 1);
        let got = subscribe_with(&mut process, 1, connection, &json!({"channel": channel}));
        assert_eq!(got[0]["data"], "{}");
        publish(&mut process, channel, "x");
        let event = frames(&mut process, 1, connection).pop().expect("an event");
        assert_eq!(event, json!({"event": "e", "channel": channel, "data": "x"}));
        let path = format!("/channels/{channel}?info=position");
        assert_eq!(get(&mut process, &path), json!({"occupied": true, "position": null}));
        let got = resume(&mut process, 0, channel, "evt_AQIDBAUGBwgA_wAAAAAAAAAB");
        assert_eq!(got[0]["event"], "pusher:history_gap");
        assert!(got[0]["data"].as_str().is_some_and(|data| data.contains(r#""resumes_at":null"#)), "{got:?}");
        assert!(process.shards.iter().all(|shard| shard.stats().history_events == 0));
        process.finish();
    }
}

/// R-HIST-9, H2: client events have neither ids nor a place in the history.
#[test]
fn client_events_are_not_stored() {
    let mut process = Process::new(2);
    let sender = open_private(&mut process);
    let before = position(&mut process, "private-a");
    process.say(0, sender, r#"{"event":"client-a","channel":"private-a","data":{}}"#);
    assert_eq!(position(&mut process, "private-a"), before);
    assert_eq!(get(&mut process, "/channels/private-a/history")["events"], json!([]));
    process.finish();
}

/// R-HIST-1, R-HIST-11: events end with their count and their time, to the millisecond; a position of a channel without
/// events is good as long as that.
#[test]
fn events_end() {
    let mut process = Process::with_settings(1, AppSettings { history_seconds: 10, ..settings(3) });
    let start = position(&mut process, "c");
    for data in ["0", "1", "2", "3"] {
        publish(&mut process, "c", data);
    }
    let history = |process: &mut Process| {
        let answer = get(process, "/channels/c/history");
        assert_eq!(answer["gap"], Value::Null);
        data_of(answer["events"].as_array().expect("events")).join("")
    };
    assert_eq!(history(&mut process), "123");
    process.pass_time(9_999);
    assert_eq!(history(&mut process), "123");
    // No timeout is fed here: what has expired is not shown, whether it was removed or not.
    process.now.monotonic_ms += 1;
    assert_eq!(history(&mut process), "");
    let top = position(&mut process, "c");
    assert_eq!(resume(&mut process, 0, "c", &top), [] as [Value; 0]);
    assert_eq!(resume(&mut process, 0, "c", &start)[0]["event"], "pusher:history_gap");
    process.pass_time(9_000);
    assert_eq!(resume(&mut process, 0, "c", &top), [] as [Value; 0], "quiet for less than the window");
    process.finish();
}

/// R-HIST-5: pages of a history, with a gap where there is one; the last position continues.
#[test]
fn histories_are_read_over_http() {
    for shards in [1, 3] {
        let mut process = Process::with_settings(shards, settings(5));
        let start = position(&mut process, "c");
        for data in ["0", "1", "2", "3", "4", "5"] {
            publish(&mut process, "c", data);
        }
        let answer = get(&mut process, &format!("/channels/c/history?limit=2&after={start}"));
        assert_eq!((&answer["gap"]["after"], &answer["gap"]["reason"]), (&json!(start), &json!("expired")));
        let mut read = Vec::new();
        let mut path = "/channels/c/history?limit=2".to_owned();
        loop {
            let answer = get(&mut process, &path);
            assert_eq!(answer["gap"], Value::Null, "{path}");
            let events = answer["events"].as_array().expect("events").clone();
            let next = answer["position"].as_str().expect("a position").to_owned();
            if events.is_empty() {
                assert_eq!(next, position(&mut process, "c"));
                break;
            }
            assert_eq!(events.last().expect("some")["id"], json!(next));
            read.extend(events);
            path = format!("/channels/c/history?limit=2&after={next}");
        }
        assert_eq!(data_of(&read), ["1", "2", "3", "4", "5"]);
        assert!(read.iter().all(|event| event["event"] == "e"));
        process.finish();
    }
}

/// R-HIST-13: a complete resume sends neither the cached event nor a miss; after a gap the cached event comes if the
/// history lacks it.
#[test]
fn cached_events_and_resumes() {
    let mut process = Process::with_settings(2, AppSettings { history_seconds: 10, ..settings(2) });
    let start = position(&mut process, "cache-c");
    assert_eq!(resume(&mut process, 0, "cache-c", &start), [] as [Value; 0], "no miss");
    for data in ["0", "1", "2"] {
        publish(&mut process, "cache-c", data);
    }
    let names = |frames: &[Value]| -> Vec<String> {
        frames
            .iter()
            .map(|frame| {
                format!(
                    "{}{}",
                    frame["event"],
                    frame["data"].as_str().map_or("", |data| if data.len() == 1 { data } else { "" })
                )
            })
            .collect()
    };
    let got = resume(&mut process, 1, "cache-c", &start);
    assert_eq!(names(&got), [r#""pusher:history_gap""#, r#""e"1"#, r#""e"2"#]);
    process.pass_time(11_000);
    let got = resume(&mut process, 1, "cache-c", &start);
    assert_eq!(names(&got), [r#""pusher:history_gap""#, r#""e"2"#]);
    assert_eq!(got[1].get("id"), None, "R-HIST-9: a cached event has no id");
    process.finish();
}

/// The subscribe of a presence channel, signed for a connection.
fn join_message(process: &Process, shard: usize, connection: ConnectionKey, user: &str, more: &Value) -> Value {
    let socket_id = process.shards[shard].context.socket_id(connection).to_text();
    let channel_data = json!({"user_id": user}).to_string();
    let key = process.shards[0].context.directory.app_by_id("1").expect("the app").keys[0].hmac.clone();
    let text = format!("{socket_id}:presence-c:{channel_data}");
    let auth = format!("app-key:{}", const_hex::encode(ring::hmac::sign(&key, text.as_bytes())));
    let mut data = json!({"channel": "presence-c", "auth": auth, "channel_data": channel_data});
    data.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    data
}

/// R-HIST-7: a connection that joins with a position, leaves and joins again without one, all in one turn, is sent no
/// past event: the answer to a join belongs to that join.
#[test]
fn each_join_has_its_own_answer() {
    let mut process = Process::new(2);
    let start = position(&mut process, "presence-c");
    publish(&mut process, "presence-c", "0");
    for shard in [0, 1] {
        let reader = open_with_ids(&mut process, shard);
        let frames_of = [
            json!({"event": "pusher:subscribe", "data": join_message(&process, shard, reader, "1", &json!({"last_event_id": start}))}),
            json!({"event": "pusher:unsubscribe", "data": {"channel": "presence-c"}}),
            json!({"event": "pusher:subscribe", "data": join_message(&process, shard, reader, "2", &json!({}))}),
        ];
        let bytes: Vec<u8> = frames_of.iter().flat_map(|frame| client_frame(&frame.to_string())).collect();
        process.receive(shard, reader, &bytes);
        let got = frames(&mut process, shard, reader);
        let names: Vec<&str> = got.iter().map(|frame| frame["event"].as_str().expect("a name")).collect();
        assert_eq!(names.iter().filter(|name| **name == "e").count(), 0, "{names:?}");
    }
    process.finish();
}

/// R-HIST-13, H2: on a presence channel the roster has the position, and a resume gets the missed events, not the missed
/// changes of members.
#[test]
fn presence_channels_resume() {
    let mut process = Process::new(2);
    let join = |process: &mut Process, shard: usize, user: &str, more: Value| {
        let connection = open_with_ids(process, shard);
        let data = join_message(process, shard, connection, user, &more);
        (connection, subscribe_with(process, shard, connection, &data))
    };
    let (first, got) = join(&mut process, 0, "1", json!({}));
    let data: Value = serde_json::from_str(got[0]["data"].as_str().expect("data")).expect("JSON");
    assert_eq!(data["presence"]["ids"], json!(["1"]));
    let start = data["position"].as_str().expect("a position").to_owned();
    publish(&mut process, "presence-c", "0");
    let (second, _) = join(&mut process, 1, "2", json!({}));
    publish(&mut process, "presence-c", "1");
    process.feed(1, Input::Closed { connection: second });
    let (again, got) = join(&mut process, 1, "3", json!({"last_event_id": start}));
    let data: Value = serde_json::from_str(got[0]["data"].as_str().expect("data")).expect("JSON");
    assert_eq!(data["presence"]["ids"], json!(["1", "3"]));
    assert_eq!(data_of(&got[1..]), ["0", "1"]);
    process.feed(1, Input::Closed { connection: again });
    frames(&mut process, 0, first);
    let (_, got) = join(&mut process, 1, "4", json!({"last_event_id": "old", "on_gap": "fail"}));
    assert_eq!(got[1]["data"]["type"], "HistoryGap");
    assert_eq!(frames(&mut process, 0, first), [] as [Value; 0], "nobody joined");
    process.finish();
}

/// R-HIST-12, H10, H12: a reader with a long tail gets it in parts as it reads, no live event with an id before its end,
/// every event once; events without ids are not held back.
#[test]
fn live_events_never_overtake() {
    for shards in [1, 2] {
        let mut process = Process::with_settings(
            shards,
            AppSettings { history_events: 1_000, client_events: true, ..AppSettings::default() },
        );
        let shard = usize::from(shards) - 1;
        let start = position(&mut process, "c");
        let data = |number: u32| format!("{number} {}", "x".repeat(5_000));
        for number in 0..100 {
            publish(&mut process, "c", &data(number));
        }
        let reader = open_with_ids(&mut process, shard);
        process.stopped.insert((shard, reader.slot));
        let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": "c", "last_event_id": start}});
        process.say(shard, reader, &subscribe.to_string());
        assert_eq!(process.shards[shard].channels.catching_up(), 1);
        let unsent = process.shards[shard].connections.unsent_bytes(reader.slot());
        assert!((60_000..80_000).contains(&unsent), "one part waits: {unsent}");
        let mut next = 100;
        while process.shards[shard].channels.catching_up() > 0 {
            publish(&mut process, "c", &data(next));
            next += 1;
            let bytes = process.take_lent(shard, reader);
            process.feed(shard, Input::Sent { connection: reader, bytes });
            assert!(process.shards[shard].connections.unsent_bytes(reader.slot()) < 200_000);
            assert!(next < 1_000, "it catches up");
        }
        publish(&mut process, "c", &data(next));
        process.stopped.clear();
        let bytes = process.take_lent(shard, reader);
        process.feed(shard, Input::Sent { connection: reader, bytes });
        let got = frames(&mut process, shard, reader);
        let numbers: Vec<u32> = data_of(&got[1..])
            .iter()
            .map(|data| data.split(' ').next().and_then(|number| number.parse().ok()).expect("a number"))
            .collect();
        assert_eq!(numbers, (0..=next).collect::<Vec<_>>());
        process.finish();
    }
}

/// R-HIST-12, H12: if the next event of a reader that is catching up is dropped, it gets a gap and what is still kept;
/// if it leaves or closes meanwhile, nothing is left over.
#[test]
fn a_floor_passes_a_reader() {
    for end in ["gap", "unsubscribe", "close"] {
        let mut process = Process::with_settings(2, AppSettings { history_events: 30, ..AppSettings::default() });
        let start = position(&mut process, "c");
        let data = |number: u32| format!("{number} {}", "x".repeat(5_000));
        for number in 0..30 {
            publish(&mut process, "c", &data(number));
        }
        let reader = open_with_ids(&mut process, 1);
        process.stopped.insert((1, reader.slot));
        let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": "c", "last_event_id": start}});
        process.say(1, reader, &subscribe.to_string());
        assert_eq!(process.shards[1].channels.catching_up(), 1);
        for number in 30..60 {
            publish(&mut process, "c", &data(number));
        }
        match end {
            "unsubscribe" => {
                process.say(1, reader, r#"{"event":"pusher:unsubscribe","data":{"channel":"c"}}"#);
            }
            "close" => process.feed(1, Input::Closed { connection: reader }),
            _ => {}
        }
        if end != "close" {
            while process.shards[1].connections.unsent_bytes(reader.slot()) > 0 {
                let bytes = process.take_lent(1, reader);
                process.feed(1, Input::Sent { connection: reader, bytes });
            }
        }
        assert_eq!(process.shards[1].channels.catching_up(), 0, "{end}");
        if end == "gap" {
            let got = frames(&mut process, 1, reader);
            let at = got.iter().position(|frame| frame["event"] == "pusher:history_gap").expect("a gap");
            let numbers = |frames: &[Value]| -> Vec<u32> {
                let number = |data: &&str| data.split(' ').next().and_then(|number| number.parse().ok());
                data_of(frames).iter().map(|data| number(data).expect("a number")).collect()
            };
            let (before, after) = (numbers(&got[1..at]), numbers(&got[at + 1..]));
            assert_eq!(before, (0..before.len() as u32).collect::<Vec<_>>());
            assert_eq!(after, (30..60).collect::<Vec<_>>());
        }
        process.stopped.clear();
        process.finish();
    }
}

/// R-HIST-12, T63: one connection that resumes many channels at once has no more unsent than a few parts, and gets all.
#[test]
fn many_channels_of_one_connection() {
    let mut process = Process::new(2);
    let channels: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let starts: Vec<String> = channels.iter().map(|channel| position(&mut process, channel)).collect();
    for channel in &channels {
        for number in 0..10 {
            publish(&mut process, channel, &format!("{number} {}", "x".repeat(5_000)));
        }
    }
    let reader = open_with_ids(&mut process, 1);
    process.stopped.insert((1, reader.slot));
    let subscribes: Vec<u8> = channels
        .iter()
        .zip(&starts)
        .flat_map(|(channel, start)| {
            let data = json!({"channel": channel, "last_event_id": start});
            client_frame(&json!({"event": "pusher:subscribe", "data": data}).to_string())
        })
        .collect();
    process.receive(1, reader, &subscribes);
    while process.shards[1].connections.unsent_bytes(reader.slot()) > 0 {
        let unsent = process.shards[1].connections.unsent_bytes(reader.slot());
        assert!(unsent < 200_000, "{unsent}");
        let bytes = process.take_lent(1, reader);
        process.feed(1, Input::Sent { connection: reader, bytes });
    }
    let got = frames(&mut process, 1, reader);
    for channel in &channels {
        let of_channel: Vec<&Value> = got.iter().filter(|frame| frame["channel"] == **channel).collect();
        assert_eq!(of_channel.len(), 11, "{channel}");
        assert!(
            (0..10).all(|at| of_channel[at + 1]["data"].as_str().is_some_and(|data| data.starts_with(&at.to_string())))
        );
    }
    process.stopped.clear();
    process.finish();
}

/// H9: readers that resume in one turn share the frames of their events.
#[test]
fn resuming_readers_share_frames() {
    let mut process = Process::new(1);
    let start = position(&mut process, "c");
    for _ in 0..50 {
        publish(&mut process, "c", "x");
    }
    let readers: Vec<ConnectionKey> = (0..100).map(|_| open_with_ids(&mut process, 0)).collect();
    process.stopped.extend(readers.iter().map(|reader| (0, reader.slot)));
    let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": "c", "last_event_id": start}});
    let frame = client_frame(&subscribe.to_string());
    let now = process.now;
    for reader in &readers {
        let input = Input::Received { connection: *reader, bytes: &mut frame.clone() };
        process.shards[0].handle_input(now, input);
    }
    let (frames_held, _) = process.shards[0].connections.frames_held();
    assert!(frames_held < 50 + 3 * 100, "{frames_held} frames and queues");
    process.stopped.clear();
    process.feed(0, Input::CaughtUp);
    for reader in &readers {
        assert_eq!(frames(&mut process, 0, *reader).len(), 51);
    }
    process.finish();
}

/// R-HIST-1, H6: history switched off and on again, or another time: positions from before are gaps. A deleted app
/// leaves nothing.
#[test]
fn changed_settings() {
    let mut process = Process::new(2);
    publish(&mut process, "c", "0");
    let old = position(&mut process, "c");
    let change = |process: &mut Process, settings: AppSettings| {
        for shard in 0..2 {
            process.feed(shard, Input::Directory(directory(settings.clone())));
        }
    };
    change(&mut process, settings(0));
    assert!(process.shards.iter().all(|shard| shard.stats().history_bytes == 0));
    publish(&mut process, "c", "1");
    change(&mut process, settings(100));
    publish(&mut process, "c", "2");
    let got = resume(&mut process, 0, "c", &old);
    assert_eq!((&got[0]["event"], data_of(&got[1..])), (&json!("pusher:history_gap"), vec!["2"]));
    let new = position(&mut process, "c");
    change(&mut process, AppSettings { history_seconds: 60, ..settings(50) });
    assert_eq!(resume(&mut process, 1, "c", &new)[0]["event"], "pusher:history_gap");
    // Another count keeps what fits.
    publish(&mut process, "c", "3");
    let new = position(&mut process, "c");
    publish(&mut process, "c", "4");
    change(&mut process, AppSettings { history_seconds: 60, ..settings(1) });
    assert_eq!(data_of(&resume(&mut process, 1, "c", &new)), ["4"]);
    for shard in 0..2 {
        process.feed(shard, Input::Directory(Arc::new(Directory::new(2, Vec::new(), Vec::new()))));
    }
    assert!(process.shards.iter().all(|shard| shard.stats().history_bytes == 0 && shard.stats().owned_channels == 0));
    process.finish();
}

/// R-HIST-15: an event that does not follow the last one closes the subscribers, instead of leaving them with a hole; a
/// connection that joins later expects later events.
#[test]
fn a_hole_closes_the_subscribers() {
    let mut process = Process::new(1);
    let reader = process.open(0);
    process.subscribe(0, reader, "c");
    publish(&mut process, "c", "0");
    let deliver = |process: &mut Process, sequence: u64, previous: u64| {
        let channel = process.shards[0].context.channel_key(AppSerial(1), "c");
        let frame = vec![0x81, 0x02, b'{', b'}'].into();
        let order = Some(Order { sequence: sequence.try_into().expect("at least 1"), previous });
        let message = mail::ChannelMessage::Deliver { channel, frame, order, exclude: None, accepted_us: 0, cost: 0 };
        process.feed(0, Input::Mail { from: 0, mail: Mail(message.into()) });
    };
    deliver(&mut process, 3, 1);
    assert!(process.take(0, reader).ends_with("{}"), "it follows");
    deliver(&mut process, 7, 6);
    assert!(process.take(0, reader).contains("4200"));
    process.feed(0, Input::Closed { connection: reader });
    let later = process.open(0);
    process.subscribe(0, later, "c");
    deliver(&mut process, 9, 8);
    assert!(process.take(0, later).ends_with("{}"));
    process.finish();
}

/// T28: a million channels with history cost no more than the budget of the app.
#[test]
fn a_million_channels_stay_within_the_budget() {
    let budget = 1_u32 << 20;
    let mut process = Process::with_settings(1, AppSettings { history_bytes: budget, ..AppSettings::default() });
    let caller = process.accept(0);
    for number in 0..10_000 {
        let channels: Vec<String> = (0..100).map(|at| format!("c-{number}-{at}")).collect();
        process.publish(0, caller, &json!({"name": "e", "channels": channels, "data": "x"}).to_string());
        let stats = process.shards[0].stats();
        assert!(stats.history_bytes <= u64::from(budget) && stats.owned_channels < 4_000, "{stats:?}");
    }
    process.finish();
}
