//! Webhooks: the events that the owner reports, their order, and the events that it does not report.

use super::*;
use crate::app::Secret;
use crate::app::actor::{Actor, ActorKind};
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{Batching, CountName, WebhookEndpoint, WebhookFormat, WebhookKind, WebhookKinds, Webhooks};
use crate::label::Label;
use crate::protocol::webhook::Happened;

fn webhooks(kinds: WebhookKinds) -> Webhooks {
    Webhooks::new(vec![WebhookEndpoint {
        id: "wh_1".into(),
        url: "https://example.com/".into(),
        secret: Secret::new("s"),
        kinds,
        format: WebhookFormat::Pusher,
        batching: Batching::Single,
        reach: Reach::Public,
        count_name: CountName::Pusher,
        enabled: true,
    }])
}

fn with(shards: ShardIndex, kinds: WebhookKinds) -> Process {
    let mut process = Process::new(shards);
    let settings = AppSettings { client_events: true, subscription_count: true, ..AppSettings::default() };
    let directory = directory_with(settings, webhooks(kinds));
    (0..usize::from(shards)).for_each(|shard| process.feed(shard, Input::Directory(directory.clone())));
    process
}

/// The events since the last call, as `kind channel more`.
fn told(process: &mut Process) -> Vec<String> {
    let events = std::mem::take(&mut process.told);
    let text = events.iter().map(|event| {
        let more = match &event.what {
            Happened::ChannelOccupied { subscription_count } => subscription_count.to_string(),
            Happened::MemberAdded { user_id } | Happened::MemberRemoved { user_id } => user_id.to_string(),
            Happened::ClientEvent(sent) => format!("{} {}", sent.event, sent.data_literal),
            Happened::SubscriptionCount(count) => count.to_string(),
            Happened::ChannelVacated | Happened::CacheMiss => String::new(),
        };
        format!("{} {} {more}", event.kind().label(), event.channel).trim_end().to_owned()
    });
    text.collect()
}

fn leave(process: &mut Process, shard: usize, connection: ConnectionKey, channel: &str) {
    process.say(shard, connection, &format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#));
}

fn hmac_hex(text: &str) -> String {
    use ::hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"app-secret").expect("a key");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn join(process: &mut Process, shard: usize, connection: ConnectionKey, channel: &str, user: &str) {
    let socket_id = process.shards[shard].context.socket_id(connection);
    let channel_data = format!(r#"{{"user_id":"{user}"}}"#);
    let auth = format!("app-key:{}", hmac_hex(&format!("{socket_id}:{channel}:{channel_data}")));
    let data = serde_json::json!({"channel": channel, "auth": auth, "channel_data": channel_data});
    process.say(shard, connection, &serde_json::json!({"event": "pusher:subscribe", "data": data}).to_string());
    let answer = process.take(shard, connection);
    assert!(answer.contains("subscription_succeeded"), "{answer}");
}

/// P-HOOK-1, P-HOOK-8: the first subscriber of all shards occupies, the last vacates after three seconds to the
/// millisecond; if a subscriber comes back before, neither is reported, if later, both are.
#[test]
fn channels_are_occupied_and_vacated() {
    let kinds = WebhookKinds::empty().with(WebhookKind::ChannelOccupied).with(WebhookKind::ChannelVacated);
    for shards in [1, 3] {
        let mut process = with(shards, kinds);
        let sockets: Vec<(usize, ConnectionKey)> =
            (0..usize::from(shards)).map(|shard| (shard, process.open(shard))).collect();
        for (shard, connection) in &sockets {
            process.subscribe(*shard, *connection, "c");
        }
        assert_eq!(told(&mut process), ["channel_occupied c 1"]);
        for (shard, connection) in &sockets {
            leave(&mut process, *shard, *connection, "c");
        }
        process.pass_time(2_999);
        assert_eq!(told(&mut process), [""; 0]);
        let (shard, connection) = sockets[0];
        process.subscribe(shard, connection, "c");
        process.pass_time(10_000);
        assert_eq!(told(&mut process), [""; 0], "a return suppresses both sides");
        leave(&mut process, shard, connection, "c");
        process.pass_time(2_999);
        assert_eq!(told(&mut process), [""; 0]);
        process.pass_time(1);
        assert_eq!(told(&mut process), ["channel_vacated c"]);
        process.subscribe(shard, connection, "c");
        assert_eq!(told(&mut process), ["channel_occupied c 1"]);
        process.finish();
    }
}

/// P-HOOK-2, P-HOOK-8, P-PRES-2: users, not connections; clients are notified at once, the webhook after three seconds;
/// a removal comes before its channel is vacated.
#[test]
fn members_are_added_and_removed() {
    let kinds = WebhookKind::ALL[..4].iter().fold(WebhookKinds::empty(), |kinds, kind| kinds.with(*kind));
    let mut process = with(2, kinds);
    let (first, second, third) = (process.open(0), process.open(1), process.open(1));
    join(&mut process, 0, first, "presence-p", "ann");
    join(&mut process, 1, second, "presence-p", "bob");
    join(&mut process, 1, third, "presence-p", "bob");
    let expected = ["channel_occupied presence-p 1", "member_added presence-p ann", "member_added presence-p bob"];
    assert_eq!(told(&mut process), expected);
    leave(&mut process, 1, second, "presence-p");
    process.pass_time(5_000);
    assert_eq!(told(&mut process), [""; 0], "bob has another connection");
    process.take(0, first);
    leave(&mut process, 1, third, "presence-p");
    assert!(process.take(0, first).contains("member_removed"), "the wire is not delayed");
    process.pass_time(1_000);
    join(&mut process, 1, third, "presence-p", "bob");
    process.pass_time(5_000);
    assert_eq!(told(&mut process), [""; 0], "bob came back");
    process.feed(1, Input::Closed { connection: third });
    process.pass_time(1_000);
    process.feed(0, Input::Closed { connection: first });
    process.pass_time(2_000);
    assert_eq!(told(&mut process), ["member_removed presence-p bob"]);
    process.pass_time(1_000);
    assert_eq!(told(&mut process), ["member_removed presence-p ann", "channel_vacated presence-p"]);
    process.finish();
}

/// P-HOOK-4, P-CACHE-2: all joins of a cache channel without an event within a second are one miss.
#[test]
fn simultaneous_misses_are_one() {
    let mut process = with(3, WebhookKinds::empty().with(WebhookKind::CacheMiss));
    let sockets: Vec<(usize, ConnectionKey)> = (0..6).map(|at| (at % 3, process.open(at % 3))).collect();
    for (shard, connection) in &sockets[..4] {
        process.subscribe(*shard, *connection, "cache-c");
    }
    process.subscribe(0, sockets[0].1, "plain");
    assert_eq!(told(&mut process), ["cache_miss cache-c"]);
    process.pass_time(999);
    process.subscribe(sockets[4].0, sockets[4].1, "cache-c");
    assert_eq!(told(&mut process), [""; 0]);
    process.pass_time(1);
    process.subscribe(sockets[5].0, sockets[5].1, "cache-c");
    assert_eq!(told(&mut process), ["cache_miss cache-c"]);
    let publisher = process.accept(0);
    process.publish(0, publisher, r#"{"name":"e","channel":"cache-d","data":"1"}"#);
    process.subscribe(sockets[0].0, sockets[0].1, "cache-d");
    assert_eq!(told(&mut process), [""; 0], "no miss");
    process.finish();
}

/// P-HOOK-3, P-HOOK-5, P-COUNT-1: client events with the content that others receive, counts as they change, the last
/// one zero.
#[test]
fn client_events_and_counts() {
    let kinds = WebhookKinds::empty().with(WebhookKind::ClientEvent).with(WebhookKind::SubscriptionCount);
    let mut process = with(2, kinds);
    let (first, second) = (process.open(0), process.open(1));
    join(&mut process, 0, first, "presence-p", "ann");
    process.say(0, first, r#"{"event":"client-a","channel":"presence-p","data":{"b":[1, 2]}}"#);
    assert_eq!(told(&mut process), [r#"client_event presence-p client-a "{\"b\":[1, 2]}""#]);
    process.subscribe(0, first, "c");
    process.subscribe(1, second, "c");
    leave(&mut process, 0, first, "c");
    leave(&mut process, 1, second, "c");
    let counts =
        ["subscription_count c 1", "subscription_count c 2", "subscription_count c 1", "subscription_count c 0"];
    assert_eq!(told(&mut process), counts);
    process.finish();
}

/// P-HOOK-9: unwanted events are never output and leave no state; a change of the directory takes effect, also for
/// events that already wait.
#[test]
fn nobody_is_told_what_nobody_wants() {
    let mut process = with(1, WebhookKinds::empty().with(WebhookKind::ChannelVacated));
    let connection = process.open(0);
    process.subscribe(0, connection, "cache-c");
    leave(&mut process, 0, connection, "cache-c");
    assert_eq!(process.shards[0].owner.departures_due_ms(), Some(process.shards[0].context.clock.served_ms() + 3_000));
    let none = directory_with(AppSettings::default(), Webhooks::default());
    process.feed(0, Input::Directory(none));
    process.pass_time(3_000);
    process.subscribe(0, connection, "cache-c");
    leave(&mut process, 0, connection, "cache-c");
    assert_eq!(told(&mut process), [""; 0]);
    assert_eq!(process.shards[0].owner.departures_due_ms(), None);
    process.finish();
}

/// P-HOOK-8, P-STAT-9: an app has three quarters of the bound while it is alone; beyond that its oldest departures are
/// sent early, none is lost. Cancelled departures do not count.
#[test]
fn departures_are_bounded() {
    let mut process = with(1, WebhookKinds::empty().with(WebhookKind::ChannelVacated));
    let connection = process.open(0);
    let bound = limits::WEBHOOK_DEPARTURES_MAX / 4 * 3;
    process.subscribe(0, connection, "back");
    for _ in 0..bound {
        leave(&mut process, 0, connection, "back");
        process.subscribe(0, connection, "back");
    }
    for number in 0..bound + 3 {
        process.subscribe(0, connection, &format!("c{number}"));
        leave(&mut process, 0, connection, &format!("c{number}"));
    }
    assert_eq!(told(&mut process), ["channel_vacated c0", "channel_vacated c1", "channel_vacated c2"]);
    process.pass_time(3_000);
    assert_eq!(told(&mut process).len(), bound);
    process.finish();
}

/// P-HOOK-8, P-STAT-9: an app whose channels come and go by the thousand has its own departures sent early, and those
/// of another app wait their 3 s, so that a return is still not sent.
#[test]
fn departures_of_one_app_hasten_no_other_app() {
    let kinds = WebhookKinds::empty().with(WebhookKind::ChannelVacated).with(WebhookKind::ChannelOccupied);
    let mut process = Process::new(1);
    let keys = vec![AppKey::new("key-b", "secret-b")];
    let flooding = App { webhooks: webhooks(kinds), ..app_with(AppSettings::default()) };
    let webhooks = webhooks(kinds);
    let other = App { serial: AppSerial(2), id: "2".into(), keys, webhooks, ..app_with(AppSettings::default()) };
    process.feed(0, Input::Directory(Arc::new(Directory::new(2, vec![flooding, other], Vec::new()))));
    let (flood, quiet) = (process.open(0), process.accept(0));
    process.receive(0, quiet, UPGRADE.replace("app-key", "key-b").as_bytes());
    process.subscribe(0, quiet, "quiet");
    leave(&mut process, 0, quiet, "quiet");
    told(&mut process);
    for number in 0..limits::WEBHOOK_DEPARTURES_MAX {
        process.subscribe(0, flood, &format!("c{number}"));
        leave(&mut process, 0, flood, &format!("c{number}"));
    }
    let early = told(&mut process);
    assert!(early.contains(&"channel_vacated c0".to_owned()));
    assert!(!early.contains(&"channel_vacated quiet".to_owned()));
    process.subscribe(0, quiet, "quiet");
    assert_eq!(told(&mut process), [""; 0], "a return suppresses both sides");
    process.finish();
}

/// P-HOOK-8, P-CLOSE-1: a drain disconnects every client permanently: nothing waits any more.
#[test]
fn a_drain_tells_at_once() {
    let mut process = with(2, WebhookKinds::all());
    let (first, second) = (process.open(0), process.open(1));
    process.subscribe(0, first, "a");
    process.subscribe(1, second, "b");
    leave(&mut process, 0, first, "a");
    told(&mut process);
    (0..2).for_each(|shard| process.feed(shard, Input::Drain));
    let mut left = told(&mut process);
    left.retain(|event| event.starts_with("channel_vacated"));
    left.sort();
    assert_eq!(left, ["channel_vacated a", "channel_vacated b"]);
}

/// R-HOOK-8: a change of the store is answered when it has ended, in the order of the requests, even if the client is
/// gone; beyond the bound 503, and capacity again afterwards.
#[test]
fn changes_are_bounded_and_answered() {
    let mut process = Process::new(2);
    let add = request("POST", "/apps/1/webhooks", r#"{"url":"https://example.com/"}"#);
    // Three quarters are for one app.
    let bound = limits::STORE_CHANGES_PER_SHARD_MAX / 4 * 3;
    let connections: Vec<ConnectionKey> = (0..bound).map(|_| process.accept(1)).collect();
    for connection in &connections {
        process.receive(1, *connection, add.as_bytes());
        assert_eq!(process.take(1, *connection), "");
    }
    let further = process.accept(1);
    let answer = process.ask(1, further, "DELETE", "/apps/1/webhooks/wh_9", "");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"), "{answer}");
    let elsewhere = process.accept(0);
    assert_eq!(process.ask(0, elsewhere, "DELETE", "/apps/1/webhooks/wh_9", ""), "", "another shard has its own bound");

    process.feed(1, Input::Closed { connection: connections[1] });
    let changes = std::mem::take(&mut process.changes);
    assert_eq!(changes.len(), bound + 1);
    let endpoint = webhooks(WebhookKinds::all()).endpoints()[0].clone();
    for (number, change) in changes.iter().enumerate() {
        assert_eq!(&*change.app, "1");
        let changed = match (&change.what, number) {
            (ChangeKind::AddWebhook(_), 0) => Changed::Refused(ChangeRefused::Invalid("no".to_owned())),
            (ChangeKind::AddWebhook(new), _) => {
                assert_eq!(new.url, "https://example.com/");
                Changed::Added(Box::new(endpoint.clone()))
            }
            (
                ChangeKind::NewMasterKey(_)
                | ChangeKind::RemoveMasterKey
                | ChangeKind::AddToken(_)
                | ChangeKind::RevokeToken(_)
                | ChangeKind::ListTokens,
                _,
            ) => panic!("nobody asked for {change:?}"),
            (ChangeKind::RemoveWebhook(id), _) => {
                assert_eq!(&**id, "wh_9");
                Changed::Removed
            }
        };
        let from = change.id.shard;
        process.feed(usize::from(from), Input::Mail { from, mail: Mail::changed(change.id, changed) });
    }
    let refused = process.take(1, connections[0]);
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.ends_with("\r\n\r\nno"), "{refused}");
    let made = json_of(&process.take(1, connections[2]), 201);
    assert_eq!((made["id"].as_str(), made["secret"].as_str()), (Some("wh_1"), Some("s")));
    assert!(process.take(0, elsewhere).starts_with("HTTP/1.1 204 "));
    let refused = process.ask(1, further, "POST", "/apps/1/webhooks", "{}");
    assert!(refused.starts_with("HTTP/1.1 400 "), "there is room, but no url: {refused}");
    process.finish();
}

/// R-TOKEN-10, R-ADMIN-4: requests about tokens are changes on behalf of the caller with its address, also with a token
/// for webhooks; a list is long, so the request behind it waits until it is sent (P-CLOSE-5).
#[test]
fn changes_name_their_actor() {
    let mut process = Process::new(1);
    let caller = process.accept(0);
    let lists = request("GET", "/apps/1/tokens", "").repeat(3);
    process.receive(0, caller, lists.as_bytes());
    let body = format!("{{\"tokens\":[\"{}\"]}}", "n".repeat(200_000));
    for sent in 0..3 {
        let changes = std::mem::take(&mut process.changes);
        let [change] = &changes[..] else { panic!("list {sent}: {changes:?}") };
        assert!(matches!(change.what, ChangeKind::ListTokens), "{change:?}");
        let Actor { kind, id, address } = &change.actor;
        assert_eq!((*kind, &**id, address.is_some()), (ActorKind::AppKey, "app-key", true));
        assert_eq!(process.take(0, caller), "", "nothing is answered yet");
        process.feed(0, Input::Mail { from: 0, mail: Mail::changed(change.id, Changed::Listed(body.clone().into())) });
        process.pass_time(1);
        let answer = process.take(0, caller);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&body), "{}", &answer[..200]);
    }
    process.receive(0, caller, request("POST", "/apps/1/tokens", r#"{"name":"ci"}"#).as_bytes());
    process.receive(0, caller, request("DELETE", "/apps/1/tokens/tok_1", "").as_bytes());
    let changes = std::mem::take(&mut process.changes);
    let [add, revoke] = &changes[..] else { panic!("{changes:?}") };
    assert!(matches!(&add.what, ChangeKind::AddToken(new) if new.name == "ci" && new.app == "1"), "{add:?}");
    assert!(matches!(&revoke.what, ChangeKind::RevokeToken(id) if **id == *"tok_1"), "{revoke:?}");
    let refused = Changed::Refused(ChangeRefused::UnknownToken);
    process.feed(0, Input::Mail { from: 0, mail: Mail::changed(revoke.id, refused) });
    let created = Changed::Created(br#"{"id":"tok_2"}"#.to_vec());
    process.feed(0, Input::Mail { from: 0, mail: Mail::changed(add.id, created) });
    let answers = process.take(0, caller);
    let (first, second) = answers.split_once(r#"{"id":"tok_2"}"#).expect("the first answer");
    assert!(first.starts_with("HTTP/1.1 201 ") && first.contains("Cache-Control: no-store"), "{answers}");
    assert!(second.starts_with("HTTP/1.1 404 ") && second.contains("no such token"), "{answers}");
    process.finish();
}
