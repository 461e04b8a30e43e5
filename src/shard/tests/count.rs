//! `subscription_count`: which connections are sent which count, and how often.

use super::*;

fn with_counts(shards: ShardIndex) -> Process {
    Process::with_settings(shards, AppSettings { subscription_count: true, ..AppSettings::default() })
}

fn frame(count: usize) -> String {
    format!(
        r#"{{"event":"pusher_internal:subscription_count","channel":"c","data":"{{\"subscription_count\":{count}}}"}}"#
    )
}

/// The counts that a connection was sent since the last call.
fn counts(process: &mut Process, shard: usize, connection: ConnectionKey) -> Vec<usize> {
    let got = process.take(shard, connection);
    let parts = got.split(r#"{\"subscription_count\":"#).skip(1);
    parts.map(|part| part.split('}').next().and_then(|count| count.parse().ok()).expect("a count")).collect()
}

fn leave(process: &mut Process, shard: usize, connection: ConnectionKey) {
    process.say(shard, connection, r#"{"event":"pusher:unsubscribe","data":{"channel":"c"}}"#);
}

/// P-COUNT-1, P-OUT-8, P-SUB-1: each join and leave is reported to all subscribers on all shards, to the new one after
/// its `succeeded`, until one is left.
#[test]
fn every_change_is_told_to_all() {
    for shards in [1, 2, 5] {
        let mut process = with_counts(shards);
        let sockets: Vec<(usize, ConnectionKey)> =
            (0..20).map(|at| at % usize::from(shards)).map(|shard| (shard, process.open(shard))).collect();
        for (at, (shard, connection)) in sockets.iter().enumerate() {
            process.say(*shard, *connection, r#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#);
            let got = process.take(*shard, *connection);
            let succeeded = got.find("subscription_succeeded").expect("succeeded");
            assert!(got.find(&frame(at + 1)).expect("the count") > succeeded, "{got}");
            for (shard, connection) in &sockets[..at] {
                assert_eq!(counts(&mut process, *shard, *connection), [at + 1]);
            }
        }
        for (at, (shard, connection)) in sockets.iter().enumerate() {
            if at % 2 == 0 {
                leave(&mut process, *shard, *connection);
                assert_eq!(process.take(*shard, *connection), "");
            } else {
                process.feed(*shard, Input::Closed { connection: *connection });
            }
            for (shard, connection) in &sockets[at + 1..] {
                assert_eq!(counts(&mut process, *shard, *connection), [19 - at]);
            }
        }
        process.finish();
    }
}

/// P-COUNT-1: no counts are sent without the setting; changes of the setting take effect.
#[test]
fn only_where_it_is_wanted() {
    let mut process = Process::new(2);
    let (first, second) = (process.open(0), process.open(1));
    process.subscribe(0, first, "c");
    process.subscribe(1, second, "c");
    assert_eq!(process.take(0, first), "");
    let on = directory(AppSettings { subscription_count: true, ..AppSettings::default() });
    (0..2).for_each(|shard| process.feed(shard, Input::Directory(on.clone())));
    leave(&mut process, 1, second);
    assert_eq!(counts(&mut process, 0, first), [1]);
    process.finish();
}

/// P-COUNT-1: with 100 subscribers every change is sent; above that the first one, then one each 5 s while it changes,
/// and finally the last; back at 100 every change again.
#[test]
fn large_channels_are_told_every_five_seconds() {
    for shards in [1, 3] {
        let mut process = with_counts(shards);
        let watcher = process.open(0);
        process.subscribe(0, watcher, "c");
        let join = |process: &mut Process, number: usize| {
            let shard = number % usize::from(shards);
            let connection = process.open(shard);
            process.subscribe(shard, connection, "c");
            (shard, connection)
        };
        let mut others: Vec<_> = (1..100).map(|number| join(&mut process, number)).collect();
        assert_eq!(counts(&mut process, 0, watcher), (2..=100).collect::<Vec<_>>());
        others.extend((100..110).map(|number| join(&mut process, number)));
        assert_eq!(counts(&mut process, 0, watcher), [101], "the rest must wait");
        process.pass_time(limits::COUNT_INTERVAL_MS - 1);
        assert!(counts(&mut process, 0, watcher).is_empty());
        process.pass_time(1);
        assert_eq!(counts(&mut process, 0, watcher), [110]);
        process.pass_time(10 * limits::COUNT_INTERVAL_MS);
        assert!(counts(&mut process, 0, watcher).is_empty(), "nothing changed");
        let (shard, connection) = others.pop().expect("many");
        leave(&mut process, shard, connection);
        assert_eq!(counts(&mut process, 0, watcher), [109], "it was quiet long enough");
        // One leaves and one joins: the number is the same, but the new one does not have it yet.
        let (shard, connection) = others.pop().expect("many");
        leave(&mut process, shard, connection);
        let (shard, connection) = join(&mut process, 110);
        process.pass_time(limits::COUNT_INTERVAL_MS);
        assert_eq!(counts(&mut process, shard, connection), [109]);
        assert_eq!(counts(&mut process, 0, watcher), [109]);
        others.push((shard, connection));
        process.pass_time(limits::COUNT_INTERVAL_MS);
        for _ in 0..10 {
            let (shard, connection) = others.pop().expect("many");
            leave(&mut process, shard, connection);
        }
        assert_eq!(counts(&mut process, 0, watcher), [108, 100, 99], "from 100 downwards each change is told");
        process.pass_time(limits::COUNT_INTERVAL_MS);
        assert!(counts(&mut process, 0, watcher).is_empty());
        process.finish();
    }
}

/// P-COUNT-1: where there is no credit for a shard, its subscribers are not closed as for a lost event: they are sent
/// the current count when there is credit again.
#[test]
fn a_count_without_credit_comes_later() {
    let mut process = with_counts(2);
    let channel = process.shards[0].context.channel_key(AppSerial(1), "c");
    let owner = usize::from(process.shards[0].context.owner_of(&channel));
    let (near, far) = (owner, 1 - owner);
    let waiting = process.open(far);
    process.subscribe(far, waiting, "c");
    let mut credit = None;
    process.shards[near].context.mail.swap_credit(far as ShardIndex, &mut credit);
    let own: Vec<ConnectionKey> = (0..3).map(|_| process.open(near)).collect();
    own.iter().for_each(|connection| process.subscribe(near, *connection, "c"));
    assert_eq!(counts(&mut process, near, own[0]), [3, 4]);
    assert_eq!(process.take(far, waiting), "");
    process.shards[near].context.mail.swap_credit(far as ShardIndex, &mut credit);
    process.pass_time(limits::COUNT_INTERVAL_MS);
    assert_eq!(counts(&mut process, far, waiting), [4]);
    process.finish();
}

/// P-COUNT-1: a channel that is removed during its interval, and created again, is sent its count afresh.
#[test]
fn a_channel_that_ends_owes_nothing() {
    let mut process = with_counts(1);
    let crowd: Vec<ConnectionKey> = (0..103).map(|_| process.open(0)).collect();
    crowd.iter().for_each(|connection| process.subscribe(0, *connection, "c"));
    for connection in crowd {
        process.feed(0, Input::Closed { connection });
    }
    let late = process.open(0);
    process.say(0, late, r#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#);
    assert_eq!(counts(&mut process, 0, late), [1]);
    process.pass_time(limits::COUNT_INTERVAL_MS);
    assert!(counts(&mut process, 0, late).is_empty());
    process.finish();
}
