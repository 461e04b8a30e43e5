//! A few shards in one thread with an orderly network: complete requests in, complete answers out. Disorder is tested
//! in `tests/simulation`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::app::AppSerial;
use crate::limits;
use crate::protocol::webhook::WebhookEvent;

mod authorizer;
mod cache;
mod capacity;
mod channel_limit;
mod count;
mod fairness;
mod history;
mod input;
mod invalid;
mod lateness;
mod order;
mod presence;
mod queries;
mod raised;
mod rate_limits;
mod replay;
mod share;
mod streams;
mod unoccupied;
mod users;
mod webhook;
use crate::app::webhook::Webhooks;
use crate::app::{App, AppKey, AppSettings};

/// Shards, their mail, and what each connection has received.
pub(super) struct Process {
    pub(super) shards: Vec<Shard>,
    pub(super) now: Moment,
    received: BTreeMap<(usize, u32), Vec<u8>>,
    closed: Vec<(usize, u32, bool)>,
    /// Connections whose sockets accept nothing, by shard and slot.
    pub(super) stopped: BTreeSet<(usize, u32)>,
    /// The webhook events that were output.
    pub(super) told: Vec<WebhookEvent>,
    /// The requested changes of the store.
    pub(super) changes: Vec<Change>,
    pub(super) authorizes: Vec<Authorize>,
    /// The answers to calls of the admin API.
    pub(super) replayed: Vec<(u64, ReplayOutcome)>,
    slots: u32,
    /// Mails between shards so far.
    pub(super) mails: usize,
    /// Misleading names that were reported.
    pub(super) misleading: Vec<String>,
    /// The last message count.
    pub(super) messages_counted: Option<(AppSerial, u64, u32)>,
}

pub(super) fn directory(settings: AppSettings) -> Arc<Directory> {
    directory_with(settings, Webhooks::default())
}

pub(super) fn directory_with(settings: AppSettings, webhooks: Webhooks) -> Arc<Directory> {
    Arc::new(Directory::new(1, vec![App { webhooks, ..app_with(settings) }], Vec::new()))
}

/// The one app.
pub(super) fn app_with(settings: AppSettings) -> App {
    App {
        serial: AppSerial(1),
        id: "1".into(),
        name: "test".into(),
        enabled: true,
        keys: vec![AppKey::new("app-key", "app-secret")],
        encryption_master_key: None,
        settings,
        webhooks: Webhooks::default(),
    }
}

impl Process {
    pub(super) fn new(shards: ShardIndex) -> Self {
        Self::with_settings(shards, AppSettings { client_events: true, ..AppSettings::default() })
    }

    /// Creates shards whose one app has other settings.
    pub(super) fn with_settings(shards: ShardIndex, settings: AppSettings) -> Self {
        let directory = directory(settings);
        let options = ShardOptions::default();
        let config = |index| ShardConfig {
            index,
            shards,
            slots: 128 * 1024,
            refusal_slots: 0,
            boot_secret: [7; 16],
            order: super::ChannelOrder { epoch: 7, key: [7; 16] },
            directory: directory.clone(),
            options: options.clone(),
        };
        Self {
            shards: (0..shards).map(|index| Shard::new(config(index))).collect(),
            now: Moment { monotonic_ms: 1_000, unix_ms: 1_800_000_000_000 },
            received: BTreeMap::new(),
            closed: Vec::new(),
            stopped: BTreeSet::new(),
            told: Vec::new(),
            changes: Vec::new(),
            authorizes: Vec::new(),
            replayed: Vec::new(),
            slots: 0,
            mails: 0,
            misleading: Vec::new(),
            messages_counted: None,
        }
    }

    /// Feeds one input and runs until nothing is pending.
    pub(super) fn feed(&mut self, shard: usize, input: Input<'_>) {
        self.shards[shard].handle_input(self.now, input);
        loop {
            let mut quiet = true;
            for from in 0..self.shards.len() {
                self.shards[from].end_batch();
                while let Some(output) = self.shards[from].poll_output() {
                    quiet = false;
                    match output {
                        Output::Mail { to, mail } => {
                            self.mails += 1;
                            let input = Input::Mail { from: from as ShardIndex, mail };
                            self.shards[usize::from(to)].handle_input(self.now, input);
                        }
                        Output::Close { connection, reset } => {
                            self.closed.push((from, connection.slot, reset));
                            self.shards[from].handle_input(self.now, Input::Closed { connection });
                        }
                        Output::ShutdownWrite { .. }
                        | Output::Pause { .. }
                        | Output::Resume { .. }
                        | Output::Log(_)
                        | Output::MeasureProcess
                        | Output::TokenUsed { .. } => {}
                        Output::Change(change) => self.changes.push(change),
                        Output::Authorize(authorize) => self.authorizes.push(authorize),
                        Output::Replayed { call, outcome } => self.replayed.push((call, outcome)),
                        Output::Webhook(event) => self.told.push(event),
                        Output::MisleadingName { channel, .. } => self.misleading.push(channel.to_string()),
                        Output::MessagesCounted { app, day, messages } => {
                            self.messages_counted = Some((app, day, messages));
                        }
                    }
                }
                while let Some(flush) = self.shards[from].poll_flush() {
                    quiet = false;
                    let (connection, bytes) = (flush.connection, flush.bytes.to_vec());
                    if self.stopped.contains(&(from, connection.slot)) {
                        continue;
                    }
                    self.received.entry((from, connection.slot)).or_default().extend_from_slice(&bytes);
                    let input = Input::Sent { connection, bytes: bytes.len() };
                    self.shards[from].handle_input(self.now, input);
                }
            }
            if quiet && !self.feed_due_timeouts() {
                assert!(self.shards.iter().all(|shard| !shard.has_pending()), "a drain leaves nothing");
                return;
            }
        }
    }

    /// Delivers mail and takes outputs, but sends nothing, for this many milliseconds.
    pub(super) fn pass_mail(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.monotonic_ms += 1;
            let now = self.now;
            for from in 0..self.shards.len() {
                self.shards[from].handle_input(now, Input::Timeout);
                while let Some(output) = self.shards[from].poll_output() {
                    if let Output::Mail { to, mail } = output {
                        self.shards[usize::from(to)].handle_input(now, Input::Mail { from: from as ShardIndex, mail });
                    }
                }
            }
        }
    }

    /// Lets time pass on both clocks, in turns like those of a punctual driver, and handles everything that becomes
    /// due.
    pub(super) fn pass_time(&mut self, ms: u64) {
        let mut left_ms = ms;
        while left_ms > 0 {
            let due = self.shards.iter().filter_map(Shard::poll_timeout).min();
            let step_ms = due.map_or(left_ms, |at| at.saturating_sub(self.now.monotonic_ms).clamp(1, left_ms));
            left_ms -= step_ms;
            self.pass_turn(step_ms);
        }
    }

    /// One turn of each shard this long after the last one, with nothing left to be read.
    pub(super) fn pass_turn(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.unix_ms += ms;
        for shard in 0..self.shards.len() {
            for input in [Input::CaughtUp, Input::CaughtUp, Input::Timeout] {
                self.feed(shard, input);
            }
        }
    }

    /// True when a timeout was due, and was fed.
    fn feed_due_timeouts(&mut self) -> bool {
        let now = self.now;
        let due = |shard: &Shard| shard.poll_timeout().is_some_and(|at| at <= now.monotonic_ms);
        let mut fed = false;
        for shard in self.shards.iter_mut().filter(|shard| due(shard)) {
            shard.handle_input(now, Input::CaughtUp);
            shard.handle_input(now, Input::Timeout);
            fed = true;
        }
        fed
    }

    pub(super) fn accept(&mut self, shard: usize) -> ConnectionKey {
        let connection = ConnectionKey { slot: self.slots, generation: 1 };
        self.slots += 1;
        let peer = "127.0.0.1:5000".parse().expect("an address");
        self.feed(shard, Input::Accepted { connection, peer, listener: Listener::Public, refuse: false });
        connection
    }

    pub(super) fn receive(&mut self, shard: usize, connection: ConnectionKey, bytes: &[u8]) {
        self.feed(shard, Input::Received { connection, bytes: &mut bytes.to_vec() });
    }

    /// The output since the last call, as text: frames and answers one after the other.
    pub(super) fn take(&mut self, shard: usize, connection: ConnectionKey) -> String {
        let bytes = self.received.remove(&(shard, connection.slot)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The socket accepts everything that was lent to it while it was stopped; returns the number of bytes.
    pub(super) fn take_lent(&mut self, shard: usize, connection: ConnectionKey) -> usize {
        let bytes = self.shards[shard].lent(connection).to_vec();
        self.received.entry((shard, connection.slot)).or_default().extend_from_slice(&bytes);
        bytes.len()
    }

    pub(super) fn open(&mut self, shard: usize) -> ConnectionKey {
        let connection = self.accept(shard);
        self.receive(shard, connection, UPGRADE.as_bytes());
        let opened = self.take(shard, connection);
        assert!(opened.starts_with("HTTP/1.1 101") && opened.contains("pusher:connection_established"), "{opened}");
        connection
    }

    pub(super) fn say(&mut self, shard: usize, connection: ConnectionKey, text: &str) {
        self.receive(shard, connection, &client_frame(text));
    }

    pub(super) fn subscribe(&mut self, shard: usize, connection: ConnectionKey, channel: &str) {
        self.say(shard, connection, &format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#));
        let answer = self.take(shard, connection);
        assert!(answer.contains("subscription_succeeded"), "{answer}");
    }

    /// A request of the API with the app's key and secret, and its answer.
    pub(super) fn ask(
        &mut self,
        shard: usize,
        connection: ConnectionKey,
        method: &str,
        path: &str,
        body: &str,
    ) -> String {
        self.receive(shard, connection, request(method, path, body).as_bytes());
        self.take(shard, connection)
    }

    pub(super) fn publish(&mut self, shard: usize, connection: ConnectionKey, body: &str) -> String {
        self.ask(shard, connection, "POST", "/apps/1/events", body)
    }

    /// Closes every connection and checks that nothing is left over.
    pub(super) fn finish(mut self) {
        let live: Vec<(usize, ConnectionKey)> = (0..self.shards.len())
            .flat_map(|shard| {
                let keys = self.shards[shard].connections.live().into_iter();
                keys.map(|key| (shard, key)).collect::<Vec<_>>()
            })
            .collect();
        for (shard, connection) in live {
            self.feed(shard, Input::Closed { connection });
        }
        // Cached events outlive their subscribers, but not their lifetime.
        self.pass_time(1_000 * u64::from(limits::CACHE_TTL_S));
        for shard in &self.shards {
            let stats = shard.stats();
            let left = [stats.connections, stats.websockets, stats.subscriptions, stats.channels, stats.owned_channels];
            assert_eq!((left, stats.cached_events, stats.cached_bytes), ([0; 5], 0, 0));
            assert_eq!((stats.users, stats.owned_users, stats.frames), (0, 0, 0));
            assert_eq!(shard.connections.leftovers(), (0, 0, 0, 0));
            assert_eq!((shard.requests.pending(), shard.requests.asked_pages()), (0, 0));
            assert_eq!((shard.connections.has_streams(), shard.owner.polls()), (false, 0));
            assert!(shard.quota.is_at_rest());
        }
    }
}

/// A handshake of the app's.
const UPGRADE: &str = "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n";

/// A client's text frame, masked with zeros.
pub(super) fn client_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// The bytes of such a request.
pub(super) fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\nX-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The JSON body of the single answer that arrived, which must have this status.
#[track_caller]
pub(super) fn json_of(answer: &str, status: u16) -> serde_json::Value {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer}"))
}

fn publish_request(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /apps/1/events HTTP/1.1\r\nHost: h\r\nX-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// P-SUB-5, P-HTTP-1: a publish through any shard reaches the subscribers of every shard once.
#[test]
fn publishes_reach_all_shards() {
    for shards in [1, 2, 5] {
        let mut process = Process::new(shards);
        let count = usize::from(shards);
        let subscribers: Vec<ConnectionKey> = (0..count).map(|shard| process.open(shard)).collect();
        for (shard, connection) in subscribers.iter().enumerate() {
            process.subscribe(shard, *connection, "news");
        }
        for shard in 0..count {
            let publisher = process.accept(shard);
            let answer = process.publish(shard, publisher, r#"{"name":"e","channel":"news","data":"{\"a\":1}"}"#);
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n{}"), "{answer}");
            for (at, connection) in subscribers.iter().enumerate() {
                let got = process.take(at, *connection);
                assert_eq!(got.matches(r#"{"event":"e","channel":"news","data":"{\"a\":1}"}"#).count(), 1, "{got}");
            }
        }
        process.finish();
    }
}

/// P-LIM-9: as many client events at once as the app allows per second, then one for each part of a second; none is
/// ever refused without a limit. The test advances the clock, past the end of the bucket's clock too.
#[test]
fn client_events_are_limited() {
    for (rate, interval_ms) in [(1, 1_000), (2, 500), (10, 100), (1_000, 1)] {
        for start_ms in [0, u64::from(u32::MAX) / 100 - 5, u64::from(u32::MAX)] {
            let settings =
                AppSettings { client_events: true, max_client_events_per_second: rate, ..Default::default() };
            let mut process = Process::with_settings(1, settings);
            process.now.monotonic_ms += start_ms;
            let connection = open_private(&mut process);
            let mut refused = || {
                process.say(0, connection, r#"{"event":"client-a","channel":"private-a","data":{}}"#);
                process.take(0, connection).contains("4301")
            };
            assert_eq!((0..=rate).position(|_| refused()), Some(rate as usize), "{rate} at once");
            process.now.monotonic_ms += interval_ms - 1;
            process.say(0, connection, r#"{"event":"client-a","channel":"private-a","data":{}}"#);
            assert!(process.take(0, connection).contains("4301"), "{rate} per second");
            process.now.monotonic_ms += 1;
            process.say(0, connection, r#"{"event":"client-a","channel":"private-a","data":{}}"#);
            assert_eq!(process.take(0, connection), "", "{rate} per second");
            process.finish();
        }
    }
    let settings = AppSettings { client_events: true, max_client_events_per_second: 0, ..Default::default() };
    let mut process = Process::with_settings(1, settings);
    let connection = open_private(&mut process);
    for _ in 0..5_000 {
        process.say(0, connection, r#"{"event":"client-a","channel":"private-a","data":{}}"#);
    }
    assert_eq!(process.take(0, connection), "");
    process.finish();
}

/// A WebSocket that is subscribed to `private-a`.
fn open_private(process: &mut Process) -> ConnectionKey {
    use ::hmac::{Hmac, KeyInit, Mac};
    let connection = process.open(0);
    let socket_id = process.shards[0].context.socket_id(connection).to_text();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"app-secret").expect("any length");
    mac.update(format!("{socket_id}:private-a").as_bytes());
    let auth = format!("app-key:{}", hex::encode(mac.finalize().into_bytes()));
    let data = format!(r#"{{"channel":"private-a","auth":"{auth}"}}"#);
    process.say(0, connection, &format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#));
    assert!(process.take(0, connection).contains("subscription_succeeded"));
    connection
}

/// R-CHAN-3: a public channel with a name that looks protected is reported once, and at most one name a second.
#[test]
fn misleading_names_are_told_once() {
    let mut process = Process::new(1);
    let connection = process.open(0);
    let join = |process: &mut Process, channel: &str| {
        process.subscribe(0, connection, channel);
        process.say(0, connection, &format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#));
    };
    for channel in ["no-history-private-a", "no-history-private-a", "no-history-b", "cache-presence-c"] {
        join(&mut process, channel);
    }
    assert_eq!(process.misleading, ["no-history-private-a"]);
    process.pass_time(1_000);
    for channel in ["no-history-private-a", "no-history-private-d", "no-history-private-e"] {
        join(&mut process, channel);
    }
    assert_eq!(process.misleading, ["no-history-private-a", "no-history-private-d"]);
    process.finish();
}

/// P-LIVE-3, P-LIVE-4: clients are sent their app's own `activity_timeout`, and the server's ping and Close 4201 follow
/// 5 and 35 s after it; another app has the server's.
#[test]
fn apps_have_their_own_activity_timeout() {
    for (own, timeout_s) in [(0, 40), (10, 10), (300, 300)] {
        let mut process = Process::with_settings(1, AppSettings { activity_timeout: own, ..AppSettings::default() });
        let connection = process.accept(0);
        process.receive(0, connection, UPGRADE.as_bytes());
        let told = format!(r#"\"activity_timeout\":{timeout_s}}}"#);
        assert!(process.take(0, connection).contains(&told));
        process.pass_time((timeout_s + 5) * 1_000 - 200);
        assert_eq!(process.take(0, connection), "");
        process.pass_time(5_200);
        assert_eq!(process.take(0, connection), "\u{fffd}\0", "a ping frame");
        process.pass_time(24_000);
        assert_eq!(process.take(0, connection), "");
        process.pass_time(11_000);
        assert!(process.take(0, connection).contains("4201"));
        process.finish();
    }
}

/// P-LIVE-4: with the default a silent client is sent bytes within 50 s.
#[test]
fn silent_clients_get_bytes_before_proxies_cut() {
    let mut process = Process::new(1);
    let connection = process.open(0);
    process.take(0, connection);
    process.pass_time(50_000);
    assert_eq!(process.take(0, connection), "\u{fffd}\0", "a ping frame");
    process.finish();
}

/// P-HTTP-20: an idle HTTP connection is kept for 75 s, longer than a balancer keeps it.
#[test]
fn idle_http_connections_outlast_balancers() {
    let mut process = Process::new(1);
    let connection = process.accept(0);
    process.receive(0, connection, b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
    process.pass_time(74_800);
    process.receive(0, connection, b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(process.take(0, connection).matches("200 OK").count(), 2);
    process.pass_time(74_800);
    assert!(process.closed.is_empty());
    process.pass_time(5_300);
    assert_eq!(process.closed.len(), 1);
}

/// P-CLOSE-5: a reader that accepts nothing is closed after ten seconds and not before, even when it is the only one.
#[test]
fn stalls_are_measured_in_time() {
    let mut process = Process::new(1);
    let connection = process.open(0);
    let started_ms = process.now.monotonic_ms;
    let now = process.now;
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    process.shards[0].handle_input(now, Input::Received { connection, bytes: &mut ping.clone() });
    assert_eq!(process.shards[0].poll_flush().map(|flush| flush.bytes.to_vec()), Some(vec![0x8a, 0]));
    while process.shards[0].stats().slow_closed == 0 {
        process.now.monotonic_ms += 100;
        process.shards[0].handle_input(process.now, Input::CaughtUp);
        process.shards[0].handle_input(process.now, Input::Timeout);
        assert!(process.now.monotonic_ms < started_ms + 60_000, "it is never closed");
    }
    let stalled_ms = process.now.monotonic_ms - started_ms;
    assert!((limits::STALL_MS..=limits::STALL_MS * 3 / 2 + 100).contains(&stalled_ms), "closed after {stalled_ms} ms");
}

/// U17, P-HTTP-14: a fan-out larger than a turn's sends lets input in between, and reaches every subscriber once; the
/// answer to the publish does not wait for it.
#[test]
fn large_fan_outs_take_several_turns() {
    let mut process = Process::new(1);
    let count = limits::SENDS_PER_TURN as usize * 2 + 100;
    let subscribers: Vec<ConnectionKey> = (0..count).map(|_| process.open(0)).collect();
    for connection in &subscribers {
        process.subscribe(0, *connection, "news");
    }
    let publisher = process.accept(0);
    let mut request = publish_request(r#"{"name":"e","channel":"news","data":"1"}"#).into_bytes();
    let (now, shard) = (process.now, &mut process.shards[0]);
    shard.handle_input(now, Input::Received { connection: publisher, bytes: &mut request });
    let mut turns = Vec::new();
    let mut answered_after = None;
    while turns.iter().sum::<usize>() <= count {
        let mut sends = 0;
        while let Some(flush) = shard.poll_flush() {
            let (connection, bytes) = (flush.connection, flush.bytes.len());
            if connection == publisher {
                answered_after = Some(turns.iter().sum::<usize>() + sends);
            }
            shard.handle_input(now, Input::Sent { connection, bytes });
            sends += 1;
        }
        turns.push(sends);
        assert_eq!(shard.poll_timeout().is_some_and(|at| at <= now.monotonic_ms), turns.len() < 3, "{turns:?}");
        shard.handle_input(now, Input::Timeout);
    }
    let full = limits::SENDS_PER_TURN as usize;
    assert_eq!(turns, [full, full, count + 1 - 2 * full], "all subscribers and the answer");
    assert_eq!(answered_after, Some(full - 1), "the answer leaves in the turn of the publish");
    process.finish();
}

/// U17: when events keep arriving faster than they are sent, each connection waiting to be sent to is recorded once,
/// however long that lasts.
#[test]
fn unfinished_fan_outs_keep_no_memory() {
    let mut process = Process::new(1);
    let count = limits::SENDS_PER_TURN as usize * 2;
    let subscribers: Vec<ConnectionKey> = (0..count).map(|_| process.open(0)).collect();
    for connection in &subscribers {
        process.subscribe(0, *connection, "news");
    }
    let publisher = process.accept(0);
    let request = publish_request(r#"{"name":"e","channel":"news","data":"1"}"#).into_bytes();
    let (now, shard) = (process.now, &mut process.shards[0]);
    let mut sent = 0;
    for _ in 0..100 {
        shard.handle_input(now, Input::Received { connection: publisher, bytes: &mut request.clone() });
        while let Some(flush) = shard.poll_flush() {
            let (connection, bytes) = (flush.connection, flush.bytes.len());
            shard.handle_input(now, Input::Sent { connection, bytes });
            sent += 1;
        }
        shard.handle_input(now, Input::Timeout);
    }
    assert_eq!(sent, 100 * limits::SENDS_PER_TURN as usize, "every turn has more to send than it may");
    assert!(
        shard.connections.send_queue_capacity() <= 4 * count,
        "{} for {count} subscribers",
        shard.connections.send_queue_capacity()
    );
    process.finish();
}
