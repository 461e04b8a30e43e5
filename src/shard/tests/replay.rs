//! Publishing kept events again (R-REPLAY rules): for requests over HTTP, whose connections may end meanwhile, and for
//! the admin API.

use serde_json::{Value, json};

use super::streams::Network;
use super::*;
use crate::api::replay::Replay;
use crate::protocol::event_id::EventId;

const IDS: [&str; 2] = ["1", "2"];

/// Two apps with the same settings.
fn two_apps(shards: ShardIndex, settings: &AppSettings) -> Process {
    let mut process = Process::new(shards);
    let app = |serial: u32| App {
        serial: AppSerial(serial),
        id: serial.to_string().into(),
        keys: vec![AppKey::new(if serial == 1 { "app-key" } else { "key-2" }, "app-secret")],
        ..app_with(settings.clone())
    };
    let directory = Arc::new(Directory::new(2, vec![app(1), app(2)], Vec::new()));
    for shard in 0..usize::from(shards) {
        process.feed(shard, Input::Directory(Arc::clone(&directory)));
    }
    process
}

fn post(process: &mut Process, path: &str, body: &Value) -> String {
    let caller = process.accept(0);
    let answer = process.ask(0, caller, "POST", path, &body.to_string());
    process.feed(0, Input::Closed { connection: caller });
    answer
}

/// The texts and ids of the events that a channel of an app keeps.
fn history(process: &mut Process, app: usize, channel: &str) -> Vec<(String, String)> {
    let caller = process.accept(0);
    let request = request("GET", &format!("/apps/{}/channels/{channel}/history", IDS[app]), "");
    let request = if app == 0 { request } else { request.replace("app-key", "key-2") };
    process.receive(0, caller, request.as_bytes());
    let answer = json_of(&process.take(0, caller), 200);
    process.feed(0, Input::Closed { connection: caller });
    let text = |event: &Value, name: &str| event[name].as_str().expect("text").to_owned();
    let events = answer["events"].as_array().expect("a list");
    events.iter().map(|event| (text(event, "data"), text(event, "id"))).collect()
}

fn data(process: &mut Process, app: usize, channel: &str) -> Vec<String> {
    history(process, app, channel).into_iter().map(|(data, _)| data).collect()
}

/// Publishes an event of the first app; returns its id.
fn publish(process: &mut Process, channel: &str, data: &str) -> String {
    let answer = post(process, "/apps/1/events", &json!({"name": "e", "channel": channel, "data": data}));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    history(process, 0, channel).pop().expect("it is kept").1
}

/// A call of the admin API, and the status and body of its answer.
fn call(process: &mut Process, shard: usize, app: &str, body: &Value) -> (u16, Value) {
    let texts = body["event_ids"].as_array().expect("a list").iter().map(|id| id.as_str().expect("text"));
    let text = |name: &str| body[name].as_str().map(Into::into);
    let replay = Replay {
        events: texts.map(|text| (text.into(), EventId::decode(text))).collect(),
        target_channel: text("target_channel"),
        target_app_id: text("target_app_id"),
        declassify: body["declassify"] == true,
    };
    let id = process.mails as u64;
    let mail = Mail::replay(ReplayCall { id, app: app.into(), replay });
    process.feed(shard, Input::Mail { from: shard as ShardIndex, mail });
    let [(answered, outcome)] = &process.replayed.drain(..).collect::<Vec<_>>()[..] else { panic!("one answer") };
    assert_eq!(*answered, id);
    match outcome {
        Ok(body) => (200, serde_json::from_slice(body).expect("JSON")),
        Err(refusal) => (refusal.status, json!(refusal.message)),
    }
}

/// R-REPLAY-1, R-REPLAY-2, R-REPLAY-3: the admin API publishes events of one app to the same and to another one, from any
/// shard; it declassifies on request only.
#[test]
fn operators_replay_to_any_app() {
    for shards in [1, 2, 5] {
        let mut process = two_apps(shards, &AppSettings::default());
        let ids: Vec<String> = (0..10).map(|n| publish(&mut process, &format!("c{n}"), &n.to_string())).collect();
        let secret = publish(&mut process, "private-a", "secret");
        let sealed = publish(&mut process, "private-encrypted-a", "sealed");
        for shard in 0..usize::from(shards) {
            let done = |missing: &[&String]| (200, json!({"replayed": 10 - missing.len(), "missing": missing}));
            let target = format!("target{shard}");
            let body = json!({"event_ids": ids, "target_app_id": "2", "target_channel": target});
            assert_eq!(call(&mut process, shard, "1", &body), done(&[]));
            let numbers: Vec<String> = (0..10).map(|n: u32| n.to_string()).collect();
            assert_eq!(data(&mut process, 1, &target), numbers);
            assert!(history(&mut process, 0, &target).is_empty());
            assert_eq!(call(&mut process, shard, "1", &json!({"event_ids": ids, "target_app_id": "1"})), done(&[]));
            assert_eq!(data(&mut process, 0, "c7").len(), shard + 2);
            // Ids belong to their app.
            let all: Vec<&String> = ids.iter().collect();
            assert_eq!(call(&mut process, shard, "2", &json!({"event_ids": ids, "target_app_id": "1"})), done(&all));
        }
        let mut ask = |target: &str, channel: &str, id: &str, declassify: bool| {
            let body = json!({
                "event_ids": [id], "target_app_id": target, "target_channel": channel, "declassify": declassify,
            });
            call(&mut process, 0, "1", &body).0
        };
        assert_eq!((ask("2", "public", &secret, false), ask("2", "public", &secret, true)), (403, 200));
        assert_eq!((ask("2", "public", &sealed, true), ask("2", "private-encrypted-a", &sealed, false)), (400, 200));
        assert_eq!((ask("3", "a", &secret, true), ask("2", "a b", &secret, true)), (404, 400));
        assert_eq!(data(&mut process, 1, "public"), ["secret"]);
        let unknown = call(&mut process, 0, "9", &json!({"event_ids": [secret]}));
        assert_eq!(unknown, (404, json!("There is no app 9.")));
        process.finish();
    }
}

/// R-REPLAY-1, R-LIM-3: the messages are those of the target app: beyond its limit nothing is published, on whichever
/// shard they are counted, and missing events cost none.
#[test]
fn messages_are_counted_when_they_are_found() {
    for shards in [1, 3] {
        let settings = AppSettings { messages_per_day: 8, ..AppSettings::default() };
        let mut process = two_apps(shards, &settings);
        let ids = [publish(&mut process, "a", "1"), publish(&mut process, "b", "2")];
        let forged = format!("evt_{}", "A".repeat(24));
        let wanted = [&ids[0], &forged, &ids[1], &forged];
        for round in 1..=4 {
            let body = json!({"event_ids": wanted, "target_app_id": "2", "target_channel": "t"});
            let (status, answer) = call(&mut process, 0, "1", &body);
            assert_eq!((status, answer), (200, json!({"replayed": 2, "missing": [forged, forged]})));
            assert_eq!(data(&mut process, 1, "t").len(), 2 * round);
        }
        let body = json!({"event_ids": wanted, "target_app_id": "2", "target_channel": "t"});
        let (status, text) = call(&mut process, 0, "1", &body);
        assert!(status == 429 && text.as_str().is_some_and(|text| text.contains("messages_per_day")), "{text}");
        assert_eq!(data(&mut process, 1, "t").len(), 8);
        // The app of the events has six left.
        let answer = post(&mut process, "/apps/1/replay", &json!({"event_ids": [ids[0], ids[1], ids[0]]}));
        assert!(answer.contains(r#"{"replayed":3,"missing":[]}"#), "{answer}");
        let answer = post(&mut process, "/apps/1/replay", &json!({"event_ids": vec![&ids[0]; 4]}));
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("messages_per_day"), "{answer}");
        assert_eq!((data(&mut process, 0, "a").len(), data(&mut process, 0, "b").len()), (3, 2));
        process.finish();
    }
}

/// R-REPLAY-1: requests behind a replay wait for it, whatever it waits for: owners, or permits; what a client has sent
/// before it was gone is published if the owners had answered, and nothing remains in either case.
#[test]
fn later_requests_wait_and_gone_clients_leave_nothing() {
    for (shards, messages_per_day) in [(1, 0), (4, 0), (4, 1_000)] {
        let settings = AppSettings { messages_per_day, ..AppSettings::default() };
        let mut process = two_apps(shards, &settings);
        let ids: Vec<String> = (0..8).map(|n| publish(&mut process, &format!("c{n}"), &n.to_string())).collect();
        let replay = json!({"event_ids": ids, "target_channel": "t"}).to_string();
        let next = json!({"name": "e", "channel": "t", "data": "next"}).to_string();
        let caller = process.accept(0);
        let both = request("POST", "/apps/1/replay", &replay) + &request("POST", "/apps/1/events", &next);
        process.receive(0, caller, both.as_bytes());
        let answers = process.take(0, caller);
        let first = answers.find(r#"{"replayed":8,"missing":[]}"#).expect("the answer to the replay");
        assert!(answers[first..].ends_with("\r\n\r\n{}"), "{answers}");
        process.feed(0, Input::Closed { connection: caller });
        let expected = ["0", "1", "2", "3", "4", "5", "6", "7", "next"];
        assert_eq!(data(&mut process, 0, "t"), expected);
        // The client is gone before the owners have answered: mail to other shards is delivered by `feed`.
        let caller = process.accept(0);
        let (now, mut bytes) = (process.now, request("POST", "/apps/1/replay", &replay).into_bytes());
        process.shards[0].handle_input(now, Input::Received { connection: caller, bytes: &mut bytes });
        process.feed(0, Input::Closed { connection: caller });
        let published = if shards == 1 { 8 } else { 0 };
        assert_eq!(data(&mut process, 0, "t").len(), 9 + published, "{shards} shards");
        process.finish();
    }
}

/// R-REPLAY-1: an app that is disabled or deleted between the call and the answers of owners gets no event.
#[test]
fn apps_may_end_meanwhile() {
    for end in [None, Some(false)] {
        let mut process = two_apps(3, &AppSettings::default());
        let ids: Vec<String> = (0..8).map(|n| publish(&mut process, &format!("c{n}"), &n.to_string())).collect();
        let events = ids.iter().map(|text| (text.as_str().into(), EventId::decode(text))).collect();
        let (target_channel, target_app_id) = (Some("t".into()), Some("2".into()));
        let replay = Replay { events, target_channel, target_app_id, declassify: false };
        let mail = Mail::replay(ReplayCall { id: 1, app: "1".into(), replay });
        let now = process.now;
        process.shards[0].handle_input(now, Input::Mail { from: 0, mail });
        let first = app_with(AppSettings::default());
        let second = end.map(|enabled| App {
            serial: AppSerial(2),
            id: "2".into(),
            keys: vec![AppKey::new("key-2", "app-secret")],
            enabled,
            ..app_with(AppSettings::default())
        });
        let apps: Vec<App> = [Some(first), second].into_iter().flatten().collect();
        let directory = Arc::new(Directory::new(3, apps, Vec::new()));
        for shard in 0..3 {
            process.feed(shard, Input::Directory(Arc::clone(&directory)));
        }
        let [(1, Err(refusal))] = &process.replayed[..] else { panic!("{:?}", process.replayed) };
        assert_eq!(refusal.status, if end.is_none() { 404 } else { 403 }, "{}", refusal.message);
        assert!(refusal.message.contains("deleted") || refusal.message.contains("App 2 is disabled"));
        process.finish();
    }
}

/// R-LIM-4: a replay that is refused after its events were found, because the server is overloaded or another limit is
/// reached, uses up no permit, and neither does one whose client is gone; one that is refused for what it asks does.
#[test]
fn refused_replays_give_their_permits_back() {
    const LIMIT: u32 = 60;
    for messages_per_day in [0, 500, 1_000_000] {
        let settings = AppSettings { requests_per_minute: LIMIT, messages_per_day, ..AppSettings::default() };
        // The app is counted by shard 1; the target is owned by shard 2, the events by shard 0 and one by shard 2.
        let mut network = Network::new(3, settings);
        let owned_by = |network: &Network, owner: ShardIndex| {
            let context = &network.shards[0].context;
            let mut names = (0..).map(|number| format!("c{number}"));
            names.find(|name| context.owner_of(&context.channel_key(AppSerial(1), name)) == owner).expect("one of them")
        };
        let (source, target) = (owned_by(&network, 0), owned_by(&network, 2));
        let mut counted = 0;
        let mut ids = Vec::new();
        for channel in [&source, &target] {
            let body = json!({"name": "e", "channel": channel, "data": "x".repeat(10_000)}).to_string();
            assert!(network.ask_until_quiet(0, &publish_request(&body)).starts_with("HTTP/1.1 200"));
            let history = request("GET", &format!("/apps/1/channels/{channel}/history"), "");
            let kept = json_of(&network.ask_until_quiet(0, &history), 200);
            ids.push(kept["events"][0]["id"].as_str().expect("an id").to_owned());
            counted += 2;
        }
        let replay = |ids: &[&String], target: &str| {
            request("POST", "/apps/1/replay", &json!({"event_ids": ids, "target_channel": target}).to_string())
        };
        // What is sent to shard 2 does not arrive, until there is no credit left or the day's messages are used up.
        let (mut sent, mut refused) = (Vec::new(), 0);
        while refused < 5 {
            let connection = network.request(0, &replay(&[&ids[0]; 100], &target));
            while network.deliver_between(0, 1) || network.deliver_between(1, 0) {}
            match network.received.remove(&(0, connection.slot)) {
                None => sent.push(connection),
                Some(answer) => {
                    let status = if messages_per_day == 500 { "403" } else { "503" };
                    let answer = String::from_utf8(answer).expect("text");
                    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
                    refused += 1;
                }
            }
        }
        assert!((2..LIMIT as usize - 10).contains(&sent.len()), "{} were sent", sent.len());
        counted += sent.len() as u32;
        while network.deliver(0) {}
        for connection in sent {
            let answer = network.received.remove(&(0, connection.slot)).expect("an answer");
            json_of(&String::from_utf8(answer).expect("text"), 200);
        }
        // A client that is gone before shard 2 answers.
        let gone = network.request(0, &replay(&[&ids[1]], &target));
        while network.deliver_between(0, 1) || network.deliver_between(1, 0) {}
        network.feed(0, Input::Closed { connection: gone });
        while network.deliver(0) {}
        let unreadable = network.ask_until_quiet(0, &replay(&[&ids[0]], "private-encrypted-a"));
        assert!(unreadable.starts_with("HTTP/1.1 400"), "{unreadable}");
        counted += 1;
        let query = request("GET", &format!("/apps/1/channels/{source}"), "");
        let refusal = loop {
            let answer = network.ask_until_quiet(0, &query);
            if !answer.starts_with("HTTP/1.1 200 ") {
                break answer;
            }
            counted += 1;
        };
        assert!(refusal.starts_with("HTTP/1.1 429 "), "{refusal}");
        assert_eq!(counted, LIMIT, "{messages_per_day}");
    }
}
