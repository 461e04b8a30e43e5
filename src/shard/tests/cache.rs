//! Cache channels: what a joiner is sent, and how long events are kept.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::*;

const MISS: &str = r#"{"event":"pusher:cache_miss","channel":"cache-c","data":"{}"}"#;

fn event(channel: &str, data: &str) -> String {
    json!({"name": "e", "channel": channel, "data": data}).to_string()
}

fn published(process: &mut Process, channel: &str, data: &str) {
    let caller = process.accept(0);
    let answer = process.publish(0, caller, &event(channel, data));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.feed(0, Input::Closed { connection: caller });
}

/// The frames that a new subscriber is sent after `succeeded`, frame headers included.
fn joined(process: &mut Process, shard: usize, channel: &str) -> String {
    let connection = process.open(shard);
    process.say(shard, connection, &format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#));
    let got = process.take(shard, connection);
    process.feed(shard, Input::Closed { connection });
    let end = r#""data":"{}"}"#;
    let (before, after) = got.split_once(end).expect("succeeded");
    assert!(before.contains("subscription_succeeded"), "{got}");
    after.to_owned()
}

fn cached(process: &mut Process, channel: &str) -> Value {
    let caller = process.accept(0);
    let answer = process.ask(0, caller, "GET", &format!("/apps/1/channels/{channel}?info=cache"), "");
    process.feed(0, Input::Closed { connection: caller });
    json_of(&answer, 200)
}

/// P-CACHE-1, P-CACHE-2, P-OUT-7, R-CHAN-2: a miss before the first event; then, through every shard, the exact bytes
/// of the live frame, also after all subscribers left and after an event that excluded a socket.
#[test]
fn joiners_get_the_live_frame_again() {
    for shards in [1, 2, 5] {
        let mut process = Process::new(shards);
        let live = process.open(0);
        process.say(0, live, r#"{"event":"pusher:subscribe","data":{"channel":"cache-c"}}"#);
        assert!(process.take(0, live).ends_with(MISS));
        for data in ["first", r#"{"n":2}"#] {
            published(&mut process, "cache-c", data);
            let frame = process.take(0, live);
            for shard in 0..usize::from(shards) {
                assert_eq!(joined(&mut process, shard, "cache-c"), frame);
            }
        }
        let frame = joined(&mut process, 0, "cache-c");
        process.feed(0, Input::Closed { connection: live });
        assert_eq!(joined(&mut process, 0, "cache-c"), frame, "it survives its subscribers");
        assert_eq!(
            cached(&mut process, "cache-c"),
            json!({"occupied": false, "cache": {"data": r#"{"n":2}"#, "ttl": 1_800}})
        );
        published(&mut process, "x-cache-y", "none");
        assert_eq!(joined(&mut process, 0, "x-cache-y"), "");
        process.finish();
    }
}

/// P-CACHE-1: client events and the server's own are not cached.
#[test]
fn only_http_events_are_cached() {
    let mut process = Process::new(2);
    let (shard, sender) = (1, process.open(1));
    let id = process.shards[shard].context.socket_id(sender).to_text();
    let key = process.shards[shard].context.directory.app_by_id("1").expect("the app").keys[0].hmac.clone();
    let auth = |text: &str| format!("app-key:{}", const_hex::encode(ring::hmac::sign(&key, text.as_bytes())));
    let subscribe = |channel: &str, data: Option<&str>| {
        let text = [&*id, channel].into_iter().chain(data).collect::<Vec<_>>().join(":");
        json!({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth(&text), "channel_data": data}})
            .to_string()
    };
    process.say(shard, sender, &subscribe("private-cache-c", None));
    process.say(shard, sender, r#"{"event":"client-x","channel":"private-cache-c","data":{}}"#);
    process.say(shard, sender, &subscribe("presence-cache-c", Some(r#"{"user_id":"1"}"#)));
    let got = process.take(shard, sender);
    assert_eq!(got.matches("pusher:cache_miss").count(), 2, "{got}");
    let roster = got.find(r#"\"count\":1"#).expect("the roster");
    assert!(got.rfind("cache_miss").expect("a miss") > roster, "P-SUB-1: succeeded comes first");
    for channel in ["private-cache-c", "presence-cache-c"] {
        assert_eq!(cached(&mut process, channel), json!({"occupied": true, "cache": null}));
    }
    process.finish();
}

/// P-CACHE-1, P-LIM-10: an event is kept 1,800 s from its publish, to the millisecond; the next one restarts the time.
#[test]
fn events_last_for_their_time() {
    let mut process = Process::new(2);
    let ttl_ms = 1_000 * u64::from(limits::CACHE_TTL_S);
    published(&mut process, "cache-c", "old");
    process.pass_time(ttl_ms - 1);
    assert_eq!(cached(&mut process, "cache-c")["cache"], json!({"data": "old", "ttl": 1}));
    published(&mut process, "cache-c", "new");
    process.pass_time(ttl_ms - 1);
    assert!(joined(&mut process, 1, "cache-c").ends_with(r#""data":"new"}"#));
    // No timeout is fed here: an expired event is not shown, whether it was removed or not.
    process.now.monotonic_ms += 1;
    assert!(joined(&mut process, 1, "cache-c").ends_with(MISS));
    assert_eq!(cached(&mut process, "cache-c"), json!({"occupied": false, "cache": null}));
    process.pass_time(1_000);
    assert!(process.shards.iter().all(|shard| shard.stats().cached_events == 0 && shard.stats().owned_channels == 0));
    process.finish();
}

/// Threat T28, P-CACHE-1: the events of an app never cost more than its budget; the oldest are removed first, by their
/// last publish; one that is larger than the complete budget is still kept alone; an app without budget caches nothing.
#[test]
fn the_budget_holds() {
    const BUDGET: u32 = 20_000;
    let settings = |max_cache_bytes| AppSettings { max_cache_bytes, ..AppSettings::default() };
    let mut process = Process::with_settings(1, settings(BUDGET));
    for number in 0..200 {
        published(&mut process, &format!("cache-{number}"), &"d".repeat(100));
        published(&mut process, "cache-always", "again");
        assert!(process.shards[0].stats().cached_bytes <= u64::from(BUDGET));
    }
    let kept = process.shards[0].stats().cached_events;
    assert!((20..60).contains(&kept), "{kept} are kept");
    let is_kept = |process: &mut Process, channel: &str| cached(process, channel)["cache"].is_object();
    assert!(is_kept(&mut process, "cache-always") && is_kept(&mut process, "cache-199"));
    let oldest = 200 - (kept - 1);
    assert!(is_kept(&mut process, &format!("cache-{oldest}")));
    assert!(!is_kept(&mut process, &format!("cache-{}", oldest - 1)));
    published(&mut process, "cache-huge", &"d".repeat(10_240));
    published(&mut process, "cache-huge-2", &"d".repeat(10_240));
    assert!(!is_kept(&mut process, "cache-huge") && is_kept(&mut process, "cache-huge-2"));
    process.feed(0, Input::Directory(directory(settings(0))));
    published(&mut process, "cache-huge-2", "newer");
    assert!(!is_kept(&mut process, "cache-huge-2"), "an older event than the last one must not be shown");
    process.feed(0, Input::Directory(directory(settings(1))));
    published(&mut process, "cache-large", &"d".repeat(1_000));
    assert!(is_kept(&mut process, "cache-large"), "the newest stays");
    process.feed(0, Input::Directory(Arc::new(Directory::new(9, Vec::new(), Vec::new()))));
    assert_eq!(process.shards[0].stats().cached_events, 0, "nothing is kept for an app that is gone");
    process.finish();
}

/// A network that delivers mail in any order between pairs of shards, in order within a pair.
struct Network {
    process: Process,
    lanes: Vec<VecDeque<Mail>>,
    random: u64,
}

impl Network {
    fn draw(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }

    fn collect(&mut self, from: usize) {
        let shards = self.process.shards.len();
        self.process.shards[from].end_batch();
        while let Some(output) = self.process.shards[from].poll_output() {
            if let Output::Mail { to, mail } = output {
                self.lanes[from * shards + usize::from(to)].push_back(mail);
            }
        }
    }

    fn feed(&mut self, shard: usize, connection: ConnectionKey, bytes: &[u8]) {
        let input = Input::Received { connection, bytes: &mut bytes.to_vec() };
        self.process.shards[shard].handle_input(self.process.now, input);
        self.collect(shard);
    }

    /// Delivers the next mail of one lane, if any lane has some.
    fn deliver(&mut self) -> bool {
        let full: Vec<usize> = (0..self.lanes.len()).filter(|lane| !self.lanes[*lane].is_empty()).collect();
        if full.is_empty() {
            return false;
        }
        let lane = full[self.draw(full.len())];
        let mail = self.lanes[lane].pop_front().expect("it holds some");
        let (from, to) = (lane / self.process.shards.len(), lane % self.process.shards.len());
        let input = Input::Mail { from: from as ShardIndex, mail };
        self.process.shards[to].handle_input(self.process.now, input);
        self.collect(to);
        true
    }
}

/// P-CACHE-2, P-SUB-5: whatever the order in which mail arrives while events are published: after `succeeded` and the
/// cached event n (or the miss) come exactly the events n+1, n+2 ... to the last. 200 seeds; a failure names its seed.
#[test]
fn nothing_is_lost_or_doubled_between_cache_and_stream() {
    let mut hits = 0;
    for seed in 0..200 {
        let mut process = Process::new(3);
        let publisher = process.accept(0);
        let sockets: Vec<(usize, ConnectionKey)> = (0..6).map(|at| (at % 3, process.open(at % 3))).collect();
        let mut network = Network { process, lanes: (0..9).map(|_| VecDeque::new()).collect(), random: seed };
        let (mut event_number, mut subscribed) = (0, 0);
        while event_number < 20 || subscribed < sockets.len() {
            match network.draw(4) {
                0 if event_number < 20 => {
                    event_number += 1;
                    let body = event("cache-c", &event_number.to_string());
                    network.feed(0, publisher, request("POST", "/apps/1/events", &body).as_bytes());
                }
                1 if subscribed < sockets.len() => {
                    let (shard, connection) = sockets[subscribed];
                    subscribed += 1;
                    let text = r#"{"event":"pusher:subscribe","data":{"channel":"cache-c"}}"#;
                    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
                    frame.extend_from_slice(text.as_bytes());
                    network.feed(shard, connection, &frame);
                }
                _ => drop(network.deliver()),
            }
        }
        while network.deliver() {}
        let mut process = network.process;
        process.feed(0, Input::Timeout);
        for (shard, connection) in sockets {
            let got = process.take(shard, connection);
            let behind = got.split_once(r#""data":"{}"}"#).expect("succeeded").1;
            let missed = behind.contains("pusher:cache_miss");
            let numbers = behind.split(r#""event":"e","channel":"cache-c","data":""#).skip(1);
            let numbers: Vec<u32> = numbers
                .map(|rest| rest.split('"').next().and_then(|data| data.parse().ok()).expect("a number"))
                .collect();
            let first = if missed {
                1
            } else {
                *numbers.first().unwrap_or_else(|| panic!("seed {seed}: neither event nor miss"))
            };
            assert_eq!(numbers, (first..=20).collect::<Vec<_>>(), "seed {seed}, missed {missed}");
            hits += u32::from(!missed);
        }
        process.finish();
    }
    assert!((100..1_190).contains(&hits), "both ways are taken: {hits} of 1200 hit");
}
