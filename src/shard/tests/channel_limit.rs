//! Occupied channels per app (R-LIM-5): exact with any number of shards.

use super::*;

fn limited(channels_max: u32) -> AppSettings {
    AppSettings { max_channels: channels_max, ..AppSettings::default() }
}

fn say_subscribe(process: &mut Process, shard: usize, connection: ConnectionKey, channel: &str) -> String {
    process.say(shard, connection, &format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#));
    process.take(shard, connection)
}

fn unsubscribe(process: &mut Process, shard: usize, connection: ConnectionKey, channel: &str) {
    process.say(shard, connection, &format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#));
}

fn publish(process: &mut Process, shard: usize, caller: ConnectionKey, channels: &str) -> String {
    process.publish(shard, caller, &format!(r#"{{"name":"e","channels":{channels},"data":"d"}}"#))
}

/// R-LIM-5, P-FAIL-4: one channel less than the limit, the limit, one more: refused as LimitReached, and the socket
/// stays open. A vacated channel frees capacity; further subscribers of an open one are never refused.
#[test]
fn channels_end_at_the_limit() {
    for shards in [1, 2, 5] {
        let mut process = Process::with_settings(shards, limited(3));
        let at = usize::from(shards) - 1;
        let (first, second) = (process.open(0), process.open(at));
        for channel in ["a", "b", "c"] {
            process.subscribe(0, first, channel);
        }
        let refusal = say_subscribe(&mut process, at, second, "d");
        for text in [
            r#"{"event":"pusher:error","data":{"code":null,"message":"This app is at its limit of 3 occupied channels (max_channels)"}}"#,
            r#""channel":"d","data":{"type":"LimitReached""#,
            r#""status":4100"#,
        ] {
            assert!(refusal.contains(text), "{text} in {refusal}");
        }
        process.subscribe(at, second, "c");
        unsubscribe(&mut process, 0, first, "c");
        assert!(say_subscribe(&mut process, 0, first, "d").contains("LimitReached"), "the other is still on c");
        unsubscribe(&mut process, at, second, "c");
        process.subscribe(0, first, "d");
        process.feed(0, Input::Closed { connection: first });
        for channel in ["e", "f", "g"] {
            process.subscribe(at, second, channel);
        }
        assert!(say_subscribe(&mut process, at, second, "h").contains("LimitReached"));
        process.finish();
    }
}

/// R-LIM-5: at the limit, publishing to an open channel works and to another one is answered with 429, all or nothing;
/// below it everything works. An event in a cache channel opens no channel.
#[test]
fn publishes_at_the_limit() {
    for shards in [1, 2, 5] {
        let mut process = Process::with_settings(shards, limited(2));
        let at = usize::from(shards) - 1;
        let (caller, subscriber) = (process.accept(at), process.open(0));
        process.subscribe(0, subscriber, "a");
        assert!(publish(&mut process, at, caller, r#"["a","cache-x"]"#).starts_with("HTTP/1.1 200 "));
        process.subscribe(0, subscriber, "b");
        process.take(0, subscriber);
        assert!(publish(&mut process, at, caller, r#"["a","b"]"#).starts_with("HTTP/1.1 200 "));
        process.take(0, subscriber);
        let refusal = publish(&mut process, at, caller, r#"["a","x","b"]"#);
        assert!(refusal.starts_with("HTTP/1.1 429 ") && refusal.contains("Retry-After: "), "{refusal}");
        assert!(refusal.contains("2 occupied channels (max_channels)"), "{refusal}");
        assert_eq!(process.take(0, subscriber), "", "P-HTTP-14: nothing was published");
        unsubscribe(&mut process, 0, subscriber, "b");
        assert!(publish(&mut process, at, caller, r#"["a","x"]"#).starts_with("HTTP/1.1 200 "));
        process.finish();
    }
}

/// R-LIM-5: channels that were open before the limit was set count and stay; removing a limit lifts it for everyone.
#[test]
fn a_limit_set_later_counts_what_is_open() {
    for shards in [1, 2, 5] {
        let mut process = Process::with_settings(shards, limited(0));
        let subscriber = process.open(0);
        for channel in ["a", "b", "c"] {
            process.subscribe(0, subscriber, channel);
        }
        let set = |process: &mut Process, channels_max| {
            for shard in 0..usize::from(shards) {
                process.feed(shard, Input::Directory(directory(limited(channels_max))));
            }
        };
        set(&mut process, 2);
        assert!(say_subscribe(&mut process, 0, subscriber, "d").contains("LimitReached"));
        unsubscribe(&mut process, 0, subscriber, "a");
        assert!(say_subscribe(&mut process, 0, subscriber, "d").contains("LimitReached"));
        unsubscribe(&mut process, 0, subscriber, "b");
        process.subscribe(0, subscriber, "d");
        set(&mut process, 3);
        process.subscribe(0, subscriber, "e");
        assert!(say_subscribe(&mut process, 0, subscriber, "f").contains("LimitReached"));
        set(&mut process, 0);
        process.subscribe(0, subscriber, "f");
        set(&mut process, 4);
        assert!(say_subscribe(&mut process, 0, subscriber, "g").contains("LimitReached"));
        process.finish();
    }
}
