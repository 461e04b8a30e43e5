//! U17: who is sent something first. An event of a small channel and an answer do not wait for a large fan-out, and large
//! fan-outs take turns.

use super::*;

/// Opens connections that subscribe all of these channels.
fn subscribers(process: &mut Process, count: usize, channels: &[&str]) -> Vec<ConnectionKey> {
    let opened: Vec<ConnectionKey> = (0..count).map(|_| process.open(0)).collect();
    for connection in &opened {
        for channel in channels {
            process.subscribe(0, *connection, channel);
        }
    }
    opened
}

fn publish(process: &mut Process, publisher: ConnectionKey, channel: &str) {
    let mut request =
        publish_request(&format!(r#"{{"name":"e","channel":"{channel}","data":"of {channel}"}}"#)).into_bytes();
    let input = Input::Received { connection: publisher, bytes: &mut request };
    process.shards[0].handle_input(process.now, input);
}

/// The sends of one turn, in order.
fn turn(process: &mut Process) -> Vec<(ConnectionKey, String)> {
    let (shard, now) = (&mut process.shards[0], process.now);
    shard.handle_input(now, Input::Timeout);
    shard.end_batch();
    while shard.poll_output().is_some() {}
    let mut sends = Vec::new();
    while let Some(flush) = shard.poll_flush() {
        let (connection, bytes) = (flush.connection, flush.bytes.len());
        sends.push((connection, String::from_utf8_lossy(flush.bytes).into_owned()));
        shard.handle_input(now, Input::Sent { connection, bytes });
    }
    assert!(!shard.has_pending(), "sends of a later turn are not pending now");
    sends
}

const LARGE: usize = limits::SMALL_FAN_OUT_MAX as usize + 1;

/// Goal: during a large fan-out, what a small channel and a ping bring leaves in the very next turn, to its last
/// subscribers too, behind the event that they wait for (order per connection). Method: the last of the large channel's
/// subscribers are also on a small channel; one pings.
#[test]
fn small_channels_and_pings_do_not_wait() {
    let mut process = Process::new(1);
    let crowd = subscribers(&mut process, 2 * LARGE, &["large"]);
    let both = subscribers(&mut process, 3, &["large", "small"]);
    let small = subscribers(&mut process, 3, &["small"]);
    let publisher = process.accept(0);
    publish(&mut process, publisher, "large");
    let first = turn(&mut process);
    assert_eq!(first.len(), limits::SENDS_PER_TURN as usize);
    publish(&mut process, publisher, "small");
    let pinging = *crowd.last().expect("there are some");
    let mut ping = client_frame(r#"{"event":"pusher:ping"}"#);
    process.shards[0].handle_input(process.now, Input::Received { connection: pinging, bytes: &mut ping });
    let second = turn(&mut process);
    let sent_to = |connection: &ConnectionKey| second.iter().find(|(to, _)| to == connection).map(|(_, text)| text);
    for connection in &small {
        assert!(sent_to(connection).is_some_and(|text| text.contains("of small")));
    }
    for connection in &both {
        let text = sent_to(connection).expect("it did not wait");
        let (large, small) = (text.find("of large").expect("both"), text.find("of small").expect("both"));
        assert!(large < small, "{text}");
    }
    let text = sent_to(&pinging).expect("it did not wait");
    assert!(text.find("of large").expect("both") < text.find("pusher:pong").expect("both"), "{text}");
    let mut sends = first.len() + second.len();
    while sends < crowd.len() + both.len() + small.len() + 2 {
        let more = turn(&mut process);
        assert!(!more.is_empty() && more.iter().all(|(_, text)| text.matches("of large").count() == 1));
        sends += more.len();
    }
    assert!(turn(&mut process).is_empty(), "everybody got it once");
    process.finish();
}

/// Goal: two large channels share every turn, whichever was first. Method: events of both, one turn later.
#[test]
fn large_channels_take_turns() {
    let mut process = Process::new(1);
    subscribers(&mut process, 2 * LARGE, &["first"]);
    subscribers(&mut process, LARGE, &["second"]);
    let publisher = process.accept(0);
    publish(&mut process, publisher, "first");
    turn(&mut process);
    publish(&mut process, publisher, "second");
    let sends = turn(&mut process);
    for channel in ["of first", "of second"] {
        let share = sends.iter().filter(|(_, text)| text.contains(channel)).count();
        assert!(share >= sends.len() / 3, "{channel} has {share} of {}", sends.len());
    }
    process.finish();
}

/// Goal: a large fan-out goes on while small channels and answers fill every turn, and memory for it stays bounded.
#[test]
fn a_large_fan_out_is_not_starved() {
    let mut process = Process::new(1);
    let crowd = subscribers(&mut process, LARGE, &["large"]);
    let small = subscribers(&mut process, limits::SENDS_PER_TURN as usize, &["small"]);
    let publisher = process.accept(0);
    let (mut large, mut turns) = (0, 0);
    publish(&mut process, publisher, "large");
    while large < crowd.len() {
        publish(&mut process, publisher, "small");
        for connection in &small {
            let mut ping = client_frame(r#"{"event":"pusher:ping"}"#);
            process.shards[0].handle_input(process.now, Input::Received { connection: *connection, bytes: &mut ping });
        }
        let share = turn(&mut process).iter().filter(|(_, text)| text.contains("of large")).count();
        assert!(share > 0, "turn {turns}");
        large += share;
        turns += 1;
    }
    assert!(turns <= LARGE / (limits::SENDS_PER_TURN as usize / 8) + 1, "{turns}");
    for _ in 0..50 {
        publish(&mut process, publisher, "large");
        publish(&mut process, publisher, "small");
        turn(&mut process);
    }
    let slots = crowd.len() + small.len();
    assert!(process.shards[0].dirty.capacity() <= 6 * slots, "{}", process.shards[0].dirty.capacity());
    process.finish();
}
