//! Publishes to channels without subscribers (P-SUB-5, P-HTTP-17): no mail after the first, and none lost for later
//! subscribers.

use super::*;
use crate::limits::UNOCCUPIED_CHANNELS_MAX;

fn event(channel: &str) -> String {
    format!(r#"{{"name":"e","channel":"{channel}","data":"d"}}"#)
}

/// Shards whose app keeps no history: with one, the owner of a channel stores its events.
fn without_history(shards: ShardIndex) -> Process {
    Process::with_settings(shards, AppSettings { history_events: 0, client_events: true, ..AppSettings::default() })
}

/// The number of mails that one publish through shard 0 costs.
fn mails_of(process: &mut Process, caller: ConnectionKey, body: &str) -> usize {
    let before = process.mails;
    let answer = process.publish(0, caller, body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.mails - before
}

/// A channel that shard 0 does not own, named by its prefix: the first publish to it costs mail.
fn foreign_channel(process: &mut Process, caller: ConnectionKey, prefix: &str) -> String {
    let names = (0..100).map(|number| format!("{prefix}-{number}"));
    let mut foreign = names.filter(|name| mails_of(process, caller, &event(name)) > 0);
    foreign.next().expect("one of a hundred channels has another owner")
}

/// P-SUB-5: the second publish to a channel without subscribers costs no mail, whatever the caller; one that begins
/// after a subscription succeeded, on any shard, by count or as a member, is delivered; when all have left it costs no
/// mail again. Method: mails are counted.
#[test]
fn what_nobody_hears_costs_no_mail() {
    for prefix in ["news", "presence-news"] {
        for subscriber_at in 0..3 {
            let mut process = without_history(3);
            let caller = process.accept(0);
            let channel = foreign_channel(&mut process, caller, prefix);
            for _ in 0..3 {
                assert_eq!(mails_of(&mut process, caller, &event(&channel)), 0, "{channel}");
            }
            let before = process.shards[0].stats().events;
            let subscriber = process.open(subscriber_at);
            if prefix == "news" {
                process.subscribe(subscriber_at, subscriber, &channel);
            } else {
                join(&mut process, subscriber_at, subscriber, &channel);
            }
            assert!(mails_of(&mut process, caller, &event(&channel)) > 0);
            let got = process.take(subscriber_at, subscriber);
            assert_eq!(got.matches(r#"{"event":"e","#).count(), 1, "{channel}: {got}");
            assert_eq!(process.shards[0].stats().events, before, "counted by its owner");
            process.feed(subscriber_at, Input::Closed { connection: subscriber });
            process.pass_time(10_000);
            mails_of(&mut process, caller, &event(&channel));
            assert_eq!(mails_of(&mut process, caller, &event(&channel)), 0);
            assert_eq!(process.shards[0].stats().events, before + 1);
            process.finish();
        }
    }
}

/// Joins a presence channel with a signature created independently of the server's code.
fn join(process: &mut Process, shard: usize, connection: ConnectionKey, channel: &str) {
    use hmac::{Hmac, KeyInit, Mac};

    let socket_id = process.shards[shard].context.socket_id(connection);
    let data = r#"{"user_id":"1"}"#;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"app-secret").expect("any length");
    mac.update(format!("{socket_id}:{channel}:{data}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let message = serde_json::json!({
        "event": "pusher:subscribe",
        "data": {"channel": channel, "auth": format!("app-key:{signature}"), "channel_data": data},
    });
    process.say(shard, connection, &message.to_string());
    let answer = process.take(shard, connection);
    assert!(answer.contains("subscription_succeeded"), "{answer}");
}

/// Nothing is skipped where the outcome may differ: for cache channels, for requests that ask for counts, and for apps
/// whose requests may wait for permits.
#[test]
fn what_depends_on_the_owner_is_asked() {
    let mut process = without_history(2);
    let caller = process.accept(0);
    let cached = foreign_channel(&mut process, caller, "cache-news");
    assert!(mails_of(&mut process, caller, &event(&cached)) > 0);
    let counted = foreign_channel(&mut process, caller, "news");
    assert_eq!(mails_of(&mut process, caller, &event(&counted)), 0);
    let body = format!(r#"{{"name":"e","channel":"{counted}","data":"d","info":"subscription_count"}}"#);
    assert!(mails_of(&mut process, caller, &body) > 0);
    process.finish();

    let settings = AppSettings { requests_per_minute: 1_000_000, history_events: 0, ..AppSettings::default() };
    let mut process = Process::with_settings(2, settings);
    let caller = process.accept(0);
    for _ in 0..300 {
        mails_of(&mut process, caller, &event("a"));
        mails_of(&mut process, caller, &event("b"));
    }
    assert!(process.shards.iter().all(|shard| shard.owner.notified_count() + shard.requests.unoccupied() == 0));
    process.finish();
}

/// Many channels: an owner remembers a bounded number; beyond it the oldest are removed, at most once in a millisecond,
/// and a first subscriber is still recorded and receives later events.
#[test]
fn as_many_as_the_bound_are_remembered() {
    let mut process = without_history(2);
    let caller = process.accept(0);
    let names: Vec<String> = (0..UNOCCUPIED_CHANNELS_MAX * 5 / 2).map(|number| format!("c-{number}")).collect();
    for name in &names {
        mails_of(&mut process, caller, &event(name));
    }
    assert_eq!(process.shards[1].owner.notified_count(), UNOCCUPIED_CHANNELS_MAX);
    let is_foreign = |process: &Process, name: &str| {
        let hash = process.shards[0].context.keyed_hash(AppSerial(1), name);
        process.shards[0].context.owner_of_hash(hash) == 1
    };
    let last = names.iter().rev().find(|name| is_foreign(&process, name)).expect("half of them are foreign");
    assert!(mails_of(&mut process, caller, &event(last)) > 0, "no room in this millisecond");
    process.pass_time(1);
    mails_of(&mut process, caller, &event(last));
    mails_of(&mut process, caller, &event(last));
    assert_eq!(mails_of(&mut process, caller, &event(last)), 0, "the oldest made room");
    let subscriber = process.open(1);
    for name in [&names[0], &names[1], &names[2], last] {
        process.subscribe(1, subscriber, name);
        mails_of(&mut process, caller, &event(name));
        let got = process.take(1, subscriber);
        assert_eq!(got.matches(r#"{"event":"e","#).count(), 1, "{name}: {got}");
    }
    process.finish();
}
