//! U17: the order of sends. An event of a small channel and an answer do not wait for a large fan-out, and large
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
        while shard.poll_output().is_some() {}
    }
    assert!(!shard.has_pending(), "sends of a later turn are not pending now");
    sends
}

const LARGE: usize = limits::SMALL_FAN_OUT_MAX as usize + 1;

/// Goal: during a large fan-out, messages caused by a small channel and by a ping are sent in the very next turn, to
/// its last subscribers too, after the event that they wait for (order per connection). Method: the last of the large
/// channel's subscribers are also on a small channel; one pings.
#[test]
fn small_channels_and_pings_do_not_wait() {
    let mut process = Process::new(1);
    let crowd = subscribers(&mut process, 2 * LARGE, &["large"]);
    let both = subscribers(&mut process, 3, &["large", "small"]);
    let small = subscribers(&mut process, 3, &["small"]);
    let publisher = process.accept(0);
    publish(&mut process, publisher, "large");
    let first = turn(&mut process);
    assert_eq!(first.len(), limits::LARGE_SENDS_PER_TURN as usize + 1, "a part of the large channel, and the answer");
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

/// Subscribers of a channel whose events are queued in three parts.
const IN_PARTS: usize = 2 * limits::FAN_OUT_STEP as usize + 100;

/// Goal: no turn works for all subscribers of a very large channel, and no client can observe this: each gets every
/// event once, in order, including those that arrive meanwhile, before later messages on other channels, before its
/// pong and before Close; a connection that unsubscribes meanwhile gets the event, one that subscribes meanwhile does
/// not. Method: three events, and meanwhile one of each kind among the last subscribers.
#[test]
fn a_very_large_channel_is_given_events_in_parts() {
    let mut process = Process::new(1);
    let crowd = subscribers(&mut process, IN_PARTS, &["large"]);
    let both = subscribers(&mut process, 1, &["large", "small"])[0];
    let [leaves, pings, breaks, comes_back] = crowd[IN_PARTS - 4..] else { unreachable!("four of many") };
    let idle = process.open(0);
    let publisher = process.accept(0);
    for event in ["large", "large"] {
        publish(&mut process, publisher, event);
    }
    let deliveries = |process: &Process| process.shards[0].stats().deliveries;
    let before = deliveries(&process);
    let mut sends = turn(&mut process);
    assert_eq!(deliveries(&process) - before, u64::from(limits::FAN_OUT_STEP), "one part in a turn");
    assert!(process.shards[0].poll_timeout().is_some_and(|at| at <= process.now.monotonic_ms), "the rest is due");
    for (connection, message) in [
        (idle, r#"{"event":"pusher:subscribe","data":{"channel":"large"}}"#),
        (leaves, r#"{"event":"pusher:unsubscribe","data":{"channel":"large"}}"#),
        (comes_back, r#"{"event":"pusher:unsubscribe","data":{"channel":"large"}}"#),
        (comes_back, r#"{"event":"pusher:subscribe","data":{"channel":"large"}}"#),
        (pings, r#"{"event":"pusher:ping"}"#),
    ] {
        let input = Input::Received { connection, bytes: &mut client_frame(message) };
        process.shards[0].handle_input(process.now, input);
    }
    let mut unmasked = [0x81, 0x02, b'{', b'}'];
    process.shards[0].handle_input(process.now, Input::Received { connection: breaks, bytes: &mut unmasked });
    publish(&mut process, publisher, "small");
    publish(&mut process, publisher, "large");
    loop {
        let more = turn(&mut process);
        if more.is_empty() && !process.shards[0].connections.has_fan_outs() {
            break;
        }
        sends.extend(more);
    }
    let mut texts: BTreeMap<u32, String> = BTreeMap::new();
    for (to, text) in &sends {
        texts.entry(to.slot).or_default().push_str(text);
    }
    let events = |to: ConnectionKey| texts[&to.slot].matches("of large").count();
    for connection in &crowd[..IN_PARTS - 4] {
        assert_eq!(events(*connection), 3);
    }
    assert_eq!([leaves, pings, breaks, comes_back, both].map(events), [2, 3, 2, 3, 3]);
    assert_eq!(events(idle), 1, "what was published before is not for it");
    let nth = |to: ConnectionKey, n: usize| texts[&to.slot].match_indices("of large").nth(n).map(|(at, _)| at);
    let place = |to: ConnectionKey, of: &str| texts[&to.slot].rfind(of);
    assert!(nth(pings, 1) < place(pings, "pusher:pong") && place(pings, "pusher:pong") < nth(pings, 2));
    assert!(nth(both, 1) < place(both, "of small") && place(both, "of small") < nth(both, 2));
    assert!(!texts[&breaks.slot].ends_with("of large\"}"), "Close is last");
    assert!(nth(comes_back, 1) < place(comes_back, "subscription_succeeded"));
    process.finish();
}

/// Goal: an event whose last write is measured was delivered to somebody. Method: of two events of a channel whose events
/// are queued in parts, the subscribers of the second one leave before their part.
#[test]
fn an_event_that_nobody_received_has_no_last_write() {
    let mut process = Process::new(1);
    process.shards[0].context.config.options.fan_out_step = 1;
    let crowd = subscribers(&mut process, 3, &["large"]);
    let publisher = process.accept(0);
    process.shards[0].handle_turn_begin(1_000);
    publish(&mut process, publisher, "large");
    while process.shards[0].connections.has_fan_outs() {
        turn(&mut process);
    }
    turn(&mut process);
    publish(&mut process, publisher, "large");
    for connection in crowd {
        process.shards[0].handle_input(process.now, Input::Closed { connection });
    }
    while process.shards[0].connections.has_fan_outs() {
        turn(&mut process);
    }
    process.shards[0].handle_turn_end(2_000, &DriverFigures::default());
    let snapshot = process.shards[0].snapshot();
    let written = snapshot.figures.publish_to_last_write.count();
    assert_eq!((written, snapshot.stats.deliveries, snapshot.stats.events), (1, 3, 2));
    process.finish();
}

/// Goal: the number of fan-outs in progress is bounded, and at the bound nothing is lost. Method: one more than that in
/// one turn.
#[test]
fn at_the_bound_the_oldest_fan_out_is_finished() {
    let mut process = Process::new(1);
    let crowd = subscribers(&mut process, limits::FAN_OUT_STEP as usize + 1, &["large"]);
    let publisher = process.accept(0);
    let before = process.shards[0].stats().deliveries;
    for _ in 0..limits::FAN_OUTS_UNFINISHED_MAX {
        publish(&mut process, publisher, "large");
    }
    assert_eq!(process.shards[0].stats().deliveries, before);
    publish(&mut process, publisher, "large");
    assert_eq!(process.shards[0].stats().deliveries - before, crowd.len() as u64, "the oldest");
    while !turn(&mut process).is_empty() || process.shards[0].connections.has_fan_outs() {}
    let all = (limits::FAN_OUTS_UNFINISHED_MAX + 1) * crowd.len();
    assert_eq!(process.shards[0].stats().deliveries - before, all as u64);
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

/// Goal: a large fan-out continues while small channels and answers fill every turn, and memory for it stays bounded.
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
    assert!(
        process.shards[0].connections.send_queue_capacity() <= 6 * slots,
        "{}",
        process.shards[0].connections.send_queue_capacity()
    );
    process.finish();
}
