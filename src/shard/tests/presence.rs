//! Presence channels as their owner reports them: together at the end of a turn, in order, within memory.

use serde_json::json;

use super::*;

const CHANNEL: &str = "presence-c";

fn with_members(shards: ShardIndex, members_max: u32) -> Process {
    Process::with_settings(shards, AppSettings { max_presence_members: members_max, ..AppSettings::default() })
}

/// The bytes of a subscribe message as a member.
fn join(process: &Process, shard: usize, connection: ConnectionKey, user_id: &str, info_bytes: usize) -> Vec<u8> {
    let id = process.shards[shard].context.socket_id(connection).to_text();
    let data = json!({"user_id": user_id, "user_info": "x".repeat(info_bytes)}).to_string();
    let key = process.shards[shard].context.directory.app_by_id("1").expect("the app").keys[0].hmac.clone();
    let signature = ring::hmac::sign(&key, format!("{id}:{CHANNEL}:{data}").as_bytes());
    let auth = format!("app-key:{}", const_hex::encode(signature));
    let data = json!({"channel": CHANNEL, "auth": auth, "channel_data": data});
    client_frame(&json!({"event": "pusher:subscribe", "data": data}).to_string())
}

/// The bytes of an unsubscribe message.
fn leave() -> Vec<u8> {
    client_frame(&json!({"event": "pusher:unsubscribe", "data": {"channel": CHANNEL}}).to_string())
}

impl Process {
    /// Feeds bytes and nothing else: the turn continues.
    fn begin(&mut self, shard: usize, connection: ConnectionKey, mut bytes: Vec<u8>) {
        self.shards[shard].handle_input(self.now, Input::Received { connection, bytes: &mut bytes });
    }

    /// Joins, and the turn ends.
    fn join(&mut self, shard: usize, connection: ConnectionKey, user_id: &str, info_bytes: usize) {
        let bytes = join(self, shard, connection, user_id, info_bytes);
        self.receive(shard, connection, &bytes);
    }
}

/// P-OUT-2, P-PRES-2: all who join in one turn are sent one roster that includes them all, and nothing else; present
/// members are sent each join in order, and any leave among them.
#[test]
fn changes_of_one_turn_are_told_together() {
    for shards in [1, 2, 5] {
        let mut process = with_members(shards, 100);
        let at = |index: usize| index % usize::from(shards);
        let (watcher, leaver) = (process.open(0), process.open(0));
        process.join(0, watcher, "watcher", 0);
        process.join(0, leaver, "leaver", 0);
        process.take(0, watcher);
        process.take(0, leaver);
        // All through one shard, so that their mails arrive in the order of their requests.
        let last = at(usize::from(shards) - 1);
        let joiners: Vec<ConnectionKey> = (0..3).map(|_| process.open(last)).collect();
        process.begin(0, leaver, leave());
        for (index, joiner) in joiners.iter().enumerate() {
            let bytes = join(&process, last, *joiner, &format!("user-{index}"), 0);
            process.begin(last, *joiner, bytes);
        }
        process.feed(0, Input::Timeout);
        let told = process.take(0, watcher);
        let of = |text: &str| told.find(text).unwrap_or_else(|| panic!("{text} in {told}"));
        let order = ["user-0", "user-1", "user-2"].map(|user| of(&format!(r#"{{\"user_id\":\"{user}\""#)));
        assert!(order.is_sorted(), "{told}");
        assert_eq!((told.matches("member_added").count(), told.matches("member_removed").count()), (3, 1), "{told}");
        let rosters: Vec<String> = joiners.iter().map(|joiner| process.take(last, *joiner)).collect();
        for roster in &rosters {
            assert_eq!(roster, &rosters[0], "one frame for all");
            assert_eq!(roster.matches("subscription_succeeded").count(), 1, "{roster}");
            assert!(roster.contains(r#"\"count\":4"#) && !roster.contains("member_"), "{roster}");
        }
        assert_eq!(process.take(0, leaver), "");
        process.finish();
    }
}

/// P-SUB-5, P-PRES-2: an event accepted after a join is sent after it, and reaches those who were sent `succeeded`.
#[test]
fn events_come_after_the_changes_before_them() {
    let mut process = with_members(1, 100);
    let (watcher, joiner, publisher) = (process.open(0), process.open(0), process.accept(0));
    process.join(0, watcher, "watcher", 0);
    process.take(0, watcher);
    let bytes = join(&process, 0, joiner, "joiner", 0);
    process.begin(0, joiner, bytes);
    let publish = |data: &str| publish_request(&format!(r#"{{"name":"e","channel":"{CHANNEL}","data":"{data}"}}"#));
    process.receive(0, publisher, publish("first").as_bytes());
    let told = process.take(0, watcher);
    assert!(told.find("member_added").expect("a join") < told.find("first").expect("an event"), "{told}");
    let told = process.take(0, joiner);
    assert!(told.contains("subscription_succeeded") && !told.contains("first"), "{told}");
    process.receive(0, publisher, publish("second").as_bytes());
    for connection in [watcher, joiner] {
        assert_eq!(process.take(0, connection).matches("second").count(), 1);
    }
    process.finish();
}

/// P-CLOSE-5: a roster longer than the bound of an outbox makes no connection a slow reader; frames that accumulate
/// after it do.
#[test]
fn a_large_roster_is_no_slow_reader() {
    let mut process = with_members(1, 1_000);
    let members = limits::OUTBOX_BYTES_MAX / 10_000 + 2;
    for index in 0..members {
        let member = process.open(0);
        process.join(0, member, &format!("user-{index}"), 10_000);
    }
    let (joiner, publisher) = (process.open(0), process.accept(0));
    // It joins and reads nothing that it is sent.
    let bytes = join(&process, 0, joiner, "joiner", 0);
    process.begin(0, joiner, bytes);
    process.shards[0].end_batch();
    while process.shards[0].poll_output().is_some() {}
    let owed = |process: &Process| process.shards[0].connections.unsent_bytes(joiner.slot());
    assert!(owed(&process) > limits::OUTBOX_BYTES_MAX, "the roster is too small for this test");
    let event = publish_request(&format!(r#"{{"name":"e","channel":"{CHANNEL}","data":"{}"}}"#, "x".repeat(10_000)));
    let mut events = 0;
    while process.shards[0].stats().slow_closed == 0 {
        process.begin(0, publisher, event.clone().into_bytes());
        process.shards[0].end_batch();
        while process.shards[0].poll_output().is_some() {}
        events += 1;
        assert!(events < 1_000, "it is never closed");
    }
    let behind = limits::OUTBOX_BYTES_MAX / 10_000;
    assert!((behind..behind + 6).contains(&events), "closed after {events} events, not about {behind}");
}

/// Threat T18: while large rosters wait to be sent, joiners wait too and then share one; not for long.
#[test]
fn unsent_rosters_are_bounded() {
    let mut process = with_members(1, 1_000);
    for index in 0..100 {
        let member = process.open(0);
        process.join(0, member, &format!("user-{index}"), 10_000);
    }
    // Three quarters of the bytes are for one app.
    let rosters = limits::ROSTER_BYTES_UNSENT_MAX / 4 * 3 / 1_000_000 + 2;
    let joiners: Vec<ConnectionKey> = (0..rosters).map(|_| process.open(0)).collect();
    let waiting = |process: &Process| process.shards[0].channels.waiting();
    let mut held = 0;
    for (index, joiner) in joiners.iter().enumerate() {
        let bytes = join(&process, 0, *joiner, &format!("joiner-{index}"), 0);
        process.begin(0, *joiner, bytes);
        process.shards[0].end_batch();
        while process.shards[0].poll_output().is_some() {}
        held = waiting(&process);
    }
    assert!((1..8).contains(&held), "{held} of {rosters} wait");
    // Time passes and nothing is sent: they wait no longer than this.
    process.now.monotonic_ms += limits::ROSTER_WAIT_MS_MAX - 1;
    process.shards[0].handle_input(process.now, Input::Timeout);
    assert_eq!(waiting(&process), held);
    process.now.monotonic_ms += 10;
    process.shards[0].handle_input(process.now, Input::Timeout);
    assert_eq!(waiting(&process), 0);
    // With everything sent, the next one does not wait.
    process.feed(0, Input::Timeout);
    let joiner = process.open(0);
    process.join(0, joiner, "last", 0);
    assert!(process.take(0, joiner).contains("subscription_succeeded"));
    process.finish();
}

/// P-HTTP-5: a long list of users arrives in pages, with a turn's other work between them; a user who is present all
/// the time is listed once, whoever leaves and joins again meanwhile.
#[test]
fn long_lists_of_users_come_in_pages() {
    let mut process = with_members(1, 100_000);
    let count = 2 * limits::LIST_PAGE_CHANNELS + 100;
    let members: Vec<ConnectionKey> = (0..count).map(|_| process.open(0)).collect();
    for (index, member) in members.iter().enumerate() {
        let bytes = join(&process, 0, *member, &format!("user-{index}"), 0);
        process.begin(0, *member, bytes);
    }
    send_all(&mut process.shards[0], process.now);
    let caller = process.accept(0);
    let path = format!("/apps/1/channels/{CHANNEL}/users");
    process.begin(0, caller, request("GET", &path, "").into_bytes());
    process.shards[0].handle_input(process.now, Input::Timeout);
    assert_eq!(process.shards[0].requests.asked_pages(), 1, "the second page waits for its turn");
    // The first user leaves and joins again, after the listed part.
    process.begin(0, members[0], leave());
    let bytes = join(&process, 0, members[0], "user-0", 0);
    process.begin(0, members[0], bytes);
    let mut answer = Vec::new();
    while !answer.ends_with(b"]}") {
        process.now.monotonic_ms += 1;
        process.shards[0].handle_input(process.now, Input::Timeout);
        for (connection, bytes) in send_all(&mut process.shards[0], process.now) {
            if connection == caller {
                answer.extend_from_slice(&bytes);
            }
        }
        assert!(process.now.monotonic_ms < 2_000, "the list does not end");
    }
    let answer = json_of(&String::from_utf8(answer).expect("UTF-8"), 200);
    let users: Vec<&str> = answer["users"].as_array().expect("users").iter().filter_map(|u| u["id"].as_str()).collect();
    assert_eq!(users, (0..count).map(|index| format!("user-{index}")).collect::<Vec<_>>());
}

/// Sends everything pending; returns the data that does not begin with a frame.
fn send_all(shard: &mut Shard, now: Moment) -> Vec<(ConnectionKey, Vec<u8>)> {
    let mut sent = Vec::new();
    loop {
        shard.end_batch();
        while shard.poll_output().is_some() {}
        let Some(flush) = shard.poll_flush() else {
            if shard.poll_timeout().is_none_or(|at| at > now.monotonic_ms) {
                return sent;
            }
            shard.handle_input(now, Input::Timeout);
            continue;
        };
        let (connection, bytes) = (flush.connection, flush.bytes.len());
        if flush.bytes[0] != 0x81 {
            sent.push((connection, flush.bytes.to_vec()));
        }
        shard.handle_input(now, Input::Sent { connection, bytes });
    }
}
