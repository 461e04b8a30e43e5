//! Streams and polls (R-SSE, R-POLL rules): in time, and in every order of mail between shards.

use std::collections::VecDeque;

use base64::Engine as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::cursor::Cursor;
use crate::protocol::event_id::EventId;

/// A request for a stream or poll of these channels, with the app's key and secret.
fn ask_for(endpoint: &str, channels: &str, last_event_id: Option<&str>) -> String {
    let last = last_event_id.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
    format!(
        "GET /apps/1/{endpoint}?channels={channels} HTTP/1.1\r\nHost: h\r\nX-Relay-Key: app-key\r\n\
         X-Relay-Secret: app-secret\r\n{last}\r\n"
    )
}

/// What a stream or poll is sent at once; its connection is closed then.
fn ask_once(process: &mut Process, endpoint: &str, channels: &str, last_event_id: Option<&str>) -> String {
    let connection = process.accept(0);
    process.receive(0, connection, ask_for(endpoint, channels, last_event_id).as_bytes());
    let answer = process.take(0, connection);
    process.feed(0, Input::Closed { connection });
    answer
}

/// R-SSE-10, threat T14: each stream is sent a comment within 15 to 25 s of the last one, not all at once; nothing else
/// ends an idle stream.
#[test]
fn comments_come_in_time() {
    let mut process = Process::new(2);
    let streams: Vec<ConnectionKey> = (0..64)
        .map(|_| {
            let connection = process.accept(0);
            process.receive(0, connection, ask_for("sse", "a", None).as_bytes());
            assert!(process.take(0, connection).contains("event: connected"));
            connection
        })
        .collect();
    let mut last_ms = vec![process.now.monotonic_ms; streams.len()];
    let mut at_once = BTreeMap::new();
    for _ in 0..1_000 {
        process.pass_time(100);
        for (stream, last_ms) in streams.iter().zip(&mut last_ms) {
            let text = process.take(0, *stream);
            let since_ms = process.now.monotonic_ms - *last_ms;
            match &*text {
                "" => assert!(since_ms < 25_100, "{since_ms}"),
                ":\n\n" => {
                    assert!((15_000..=25_100).contains(&since_ms), "{since_ms}");
                    *last_ms = process.now.monotonic_ms;
                    *at_once.entry(process.now.monotonic_ms).or_insert(0) += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(at_once.values().all(|count| *count < streams.len() / 2), "{at_once:?}");
    process.finish();
}

/// R-TOKEN-7, R-SSE-5, threat T58: a stream with an id of its own ends 24 h after the time in it.
#[test]
fn a_stream_id_ends_its_stream() {
    let mut process = Process::new(1);
    let unix_s = process.now.unix_ms / 1_000;
    let connection = process.accept(0);
    let path = format!("sse?channels=a&key=app-key&socket_id=0.{}123456", unix_s - 24 * 3_600 + 30);
    process.receive(0, connection, format!("GET /apps/1/{path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    assert!(process.take(0, connection).contains("event: connected"));
    process.pass_time(29_000);
    assert!(process.closed.is_empty());
    process.pass_time(10_000);
    assert_eq!(process.closed.len(), 1);
    process.finish();
}

/// R-HIST-10: a gap names the position of an id of another epoch, but no position of a cursor of another epoch: its
/// entries cannot be assigned to channels, even if one has the hash of a channel.
#[test]
fn positions_of_other_epochs_are_not_invented() {
    let mut process = Process::new(2);
    let order = process.shards[0].context.config.order;
    let hash = order.cursor_hash(process.shards[0].context.channel_key(AppSerial(1), "a").hash);
    let mut cursor = b"cur_".to_vec();
    // 8 bits of width, and one entry.
    let bytes = [&[8][..], &99_u64.to_be_bytes(), &hash.to_be_bytes(), &[5]].concat();
    cursor.extend_from_slice(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).as_bytes());
    let cursor = String::from_utf8(cursor).expect("ASCII");
    let own = json_of(&ask_once(&mut process, "poll", "a", Some(&cursor)), 200)["last_event_id"].clone();
    let own = EventId::decode(own.as_str().expect("text")).expect("a position");
    let id = EventId { epoch: 99, sequence: 5, ..own }.to_text();
    for (channels, last, known) in [("a", &cursor, None), ("a,b,c", &cursor, None), ("a", &id, Some(&id))] {
        let answer = json_of(&ask_once(&mut process, "poll", channels, Some(last)), 200);
        let stream = ask_once(&mut process, "sse", channels, Some(last));
        let (_, gap) = stream.split_once("event: gap\ndata: ").expect("a gap");
        let gap: Value = serde_json::from_str(gap.lines().next().expect("a line")).expect("JSON");
        assert_eq!(answer["gaps"], gap["channels"]);
        let gaps = gap["channels"].as_array().expect("a list");
        assert_eq!(gaps.len(), channels.split(',').count());
        for gap in gaps {
            assert_eq!((&gap["reason"], &gap["after"]), (&json!("epoch"), &json!(known)), "{gap}");
        }
    }
    process.finish();
}

/// R-POLL-2: a held poll is one entry at its owners, which is gone when it is answered, times out, or its client is.
#[test]
fn polls_leave_nothing_behind() {
    for shards in [1, 3] {
        let mut process = Process::new(shards);
        let held = |process: &Process| process.shards.iter().map(|shard| shard.owner.polls()).sum::<usize>();
        let poll = |process: &mut Process| {
            let connection = process.accept(0);
            process.receive(0, connection, ask_for("poll", "a,b,c,d,e,f", None).as_bytes());
            assert_eq!(process.take(0, connection), "");
            connection
        };
        let first = poll(&mut process);
        let owners = held(&process);
        assert!((1..=usize::from(shards)).contains(&owners));
        poll(&mut process);
        assert_eq!(held(&process), 2 * owners);
        process.feed(0, Input::Closed { connection: first });
        assert_eq!(held(&process), owners);
        let publisher = process.accept(0);
        assert!(process.publish(0, publisher, r#"{"name":"e","channel":"d","data":"1"}"#).contains("200 OK"));
        assert_eq!(held(&process), 0);
        let last = poll(&mut process);
        process.pass_time(25_100);
        assert_eq!(json_of(&process.take(0, last), 200)["events"], json!([]));
        assert_eq!(held(&process), 0);
        process.finish();
    }
}

/// Shards whose mail arrives in any order that a real process permits: between two shards in the order sent.
pub(super) struct Network {
    pub(super) shards: Vec<Shard>,
    mail: BTreeMap<(usize, usize), VecDeque<Mail>>,
    pub(super) now: Moment,
    pub(super) received: BTreeMap<(usize, u32), Vec<u8>>,
    slots: u32,
}

impl Network {
    pub(super) fn new(shards: ShardIndex, settings: AppSettings) -> Self {
        let process = Process::with_settings(shards, settings);
        Self { shards: process.shards, mail: BTreeMap::new(), now: process.now, received: BTreeMap::new(), slots: 0 }
    }

    pub(super) fn feed(&mut self, shard: usize, input: Input<'_>) {
        self.shards[shard].handle_input(self.now, input);
        self.shards[shard].end_batch();
        loop {
            let mut quiet = true;
            while let Some(output) = self.shards[shard].poll_output() {
                quiet = false;
                match output {
                    Output::Mail { to, mail } => self.mail.entry((shard, usize::from(to))).or_default().push_back(mail),
                    Output::Close { connection, .. } => {
                        self.shards[shard].handle_input(self.now, Input::Closed { connection });
                    }
                    Output::ShutdownWrite { .. }
                    | Output::Pause { .. }
                    | Output::Resume { .. }
                    | Output::TokenUsed { .. }
                    | Output::Change(_)
                    | Output::Authorize(_)
                    | Output::Webhook(_)
                    | Output::MisleadingName { .. }
                    | Output::MessagesCounted { .. }
                    | Output::Replayed { .. }
                    | Output::Log(_)
                    | Output::MeasureProcess => {}
                }
            }
            while let Some(flush) = self.shards[shard].poll_flush() {
                quiet = false;
                let (connection, bytes) = (flush.connection, flush.bytes.to_vec());
                self.received.entry((shard, connection.slot)).or_default().extend_from_slice(&bytes);
                self.shards[shard].handle_input(self.now, Input::Sent { connection, bytes: bytes.len() });
            }
            self.shards[shard].end_batch();
            if quiet {
                return;
            }
        }
    }

    /// Shards that queue an event to so many subscribers of a channel per turn.
    fn with_fan_out_step(shards: ShardIndex, fan_out_step: u32) -> Self {
        let mut network = Self::new(shards, AppSettings::default());
        for shard in &mut network.shards {
            let config = shard.context.config.clone();
            let options = ShardOptions { fan_out_step, ..config.options.clone() };
            *shard = Shard::new(ShardConfig { options, ..config });
        }
        network
    }

    /// Delivers one mail, chosen by `choice`; false when there is none.
    pub(super) fn deliver(&mut self, choice: usize) -> bool {
        let pairs: Vec<(usize, usize)> =
            self.mail.iter().filter(|(_, queue)| !queue.is_empty()).map(|(pair, _)| *pair).collect();
        let Some(&(from, to)) = pairs.get(choice % pairs.len().max(1)) else { return false };
        self.deliver_between(from, to)
    }

    /// Delivers one mail from a shard to another; false when there is none.
    pub(super) fn deliver_between(&mut self, from: usize, to: usize) -> bool {
        let Some(mail) = self.mail.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return false };
        self.feed(to, Input::Mail { from: from as ShardIndex, mail });
        true
    }

    /// A request, and its answer after all mail was delivered and, where it takes longer, some seconds have passed.
    pub(super) fn ask_until_quiet(&mut self, shard: usize, text: &str) -> String {
        let connection = self.request(shard, text);
        while self.deliver(0) {}
        if !self.received.contains_key(&(shard, connection.slot)) {
            self.now.monotonic_ms += 2_000;
            self.feed(shard, Input::Timeout);
        }
        let answer = self.received.remove(&(shard, connection.slot)).unwrap_or_default();
        self.feed(shard, Input::Closed { connection });
        while self.deliver(0) {}
        String::from_utf8(answer).expect("text")
    }

    pub(super) fn request(&mut self, shard: usize, text: &str) -> ConnectionKey {
        let connection = ConnectionKey { slot: self.slots, generation: 1 };
        self.slots += 1;
        let peer = "127.0.0.1:5000".parse().expect("an address");
        self.feed(shard, Input::Accepted { connection, peer, listener: Listener::Public, refuse: false });
        self.feed(shard, Input::Received { connection, bytes: &mut text.as_bytes().to_vec() });
        connection
    }
}

/// R-POLL-2, P-CLOSE-2: a poll whose counter or owners answer only after its time is over is answered 200 then, with an
/// event if they have one, and every place is given back; one over the quota is refused; one whose client is gone is
/// forgotten.
#[test]
fn polls_wait_for_slow_owners() {
    // Owners that have answered before the time of the poll is over: none but the counter, or all but one.
    for (delivered, limit, has_event, is_gone) in (0..6)
        .flat_map(|delivered| [(delivered, 0, false, false), (delivered, 1, true, false), (delivered, 1, true, true)])
    {
        // App 1 is counted by shard 1.
        let settings = AppSettings { max_connections: limit, ..AppSettings::default() };
        let mut network = Network::new(3, settings);
        let named = "a,b,c,d,e,f,g,h";
        let first = json_of(&network.ask_until_quiet(0, &ask_for("poll", &format!("{named}&timeout=1"), None)), 200);
        let last = first["last_event_id"].as_str().expect("a cursor");
        if has_event {
            let answer = network.ask_until_quiet(0, &publish_request(r#"{"name":"e","channel":"d","data":"1"}"#));
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let connection = network.request(0, &ask_for("poll", &format!("{named}&timeout=1"), Some(last)));
        for _ in 0..delivered {
            network.deliver(0);
        }
        let mut answer = network.received.remove(&(0, connection.slot));
        assert!(answer.is_none(), "an owner has yet to answer");
        network.now.monotonic_ms += 1_001;
        network.feed(0, Input::Timeout);
        assert!(!network.received.contains_key(&(0, connection.slot)));
        assert!(network.shards[0].poll_timeout().is_none_or(|at| at > network.now.monotonic_ms), "no timer remains");
        if is_gone {
            network.feed(0, Input::Closed { connection });
        }
        while network.deliver(0) {
            answer = answer.or_else(|| network.received.remove(&(0, connection.slot)));
        }
        if is_gone {
            assert!(answer.is_none());
        } else {
            let answer = json_of(&String::from_utf8(answer.expect("an answer")).expect("text"), 200);
            assert_eq!(answer["events"].as_array().map(Vec::len), Some(usize::from(has_event)), "{answer}");
            assert_eq!(answer["gaps"], json!([]));
            assert!(has_event || answer["last_event_id"] == first["last_event_id"]);
            network.feed(0, Input::Closed { connection });
        }
        while network.deliver(0) {}
        assert!(network.shards.iter().all(|shard| shard.quota.is_at_rest() && shard.owner.polls() == 0));
        assert!(network.shards.iter().all(|shard| shard.requests.pending() == 0));
    }
}

/// R-SSE-4, R-POLL-2, threat T64: a stream or poll whose client has ended its direction ends, whatever it waits for then:
/// permits, the app's counter, or the owners of its channels; and so does one that waited behind another request.
#[test]
fn half_closed_clients_leave_nothing() {
    let publish = publish_request(r#"{"name":"e","channel":"c","data":"1"}"#);
    for (endpoint, first) in [("sse", ""), ("poll", ""), ("sse", &publish), ("poll", &publish)] {
        for (delivered, requests_per_minute) in (0..8).flat_map(|delivered| [(delivered, 0), (delivered, 100)]) {
            let settings = AppSettings { requests_per_minute, ..AppSettings::default() };
            // App 1 is counted by shard 1.
            let mut network = Network::new(3, settings);
            let connection = network.request(0, &format!("{first}{}", ask_for(endpoint, "a,b,c,d,e,f", None)));
            for _ in 0..delivered {
                network.deliver(0);
            }
            network.feed(0, Input::ReadEnded { connection });
            while network.deliver(0) {}
            let state = |shard: &Shard| (shard.stats().connections, shard.stats().streams, shard.has_waiting());
            let left: Vec<_> = network.shards.iter().map(state).collect();
            assert_eq!(left, [(0, 0, false); 3], "{endpoint} after {delivered} mails, {requests_per_minute}");
        }
    }
}

/// R-TOKEN-7, R-SSE-3, threat T58: a stream whose credential ends while it waits for permits, the app's counter or the
/// owners of its channels does not outlive it, whether its app is deleted, disabled, or has other keys.
#[test]
fn streams_do_not_begin_after_their_credential_ended() {
    for now in [None, Some((false, "app-key")), Some((true, "another-key"))] {
        for (delivered, requests_per_minute) in (0..8).flat_map(|delivered| [(delivered, 0), (delivered, 100)]) {
            let settings = AppSettings { requests_per_minute, ..AppSettings::default() };
            // App 1 is counted by shard 1.
            let mut network = Network::new(3, settings);
            let connection = network.request(0, &ask_for("sse", "a,b,c,d,e,f", None));
            for _ in 0..delivered {
                network.deliver(0);
            }
            let app = now.map(|(enabled, key)| App {
                keys: vec![AppKey::new(key, "app-secret")],
                enabled,
                ..app_with(AppSettings::default())
            });
            let directory = Arc::new(Directory::new(2, app.into_iter().collect(), Vec::new()));
            for shard in [1, 2, 0] {
                network.feed(shard, Input::Directory(Arc::clone(&directory)));
            }
            while network.deliver(0) {}
            // A sweep visits open streams.
            for _ in 0..60 {
                network.now.monotonic_ms += 100;
                for input in [Input::CaughtUp, Input::CaughtUp, Input::Timeout] {
                    network.feed(0, input);
                }
            }
            while network.deliver(0) {}
            let left = network.shards[0].stats();
            assert_eq!((left.streams, left.subscriptions), (0, 0), "{delivered} mails, {requests_per_minute}, {now:?}");
            network.feed(0, Input::Closed { connection });
            while network.deliver(0) {}
            assert!(
                network.shards.iter().all(|shard| !shard.has_waiting()),
                "{delivered} mails, {requests_per_minute}"
            );
        }
    }
}

/// R-HIST-3: the cursors of a stream never include an event that was not sent before, nor forget one that was, also if
/// missed events of one channel arrive while an event of another one is queued to its subscribers in parts.
#[test]
fn cursors_are_in_the_order_of_events() {
    let mut network = Network::with_fan_out_step(2, 1);
    let context = &network.shards[0].context;
    let owned_by = |owner: ShardIndex| {
        let mut names = (0..).map(|number| format!("c{number}"));
        names.find(|name| context.owner_of(&context.channel_key(AppSerial(1), name)) == owner).expect("one of them")
    };
    let (near, far) = (owned_by(0), owned_by(1));
    let hash = |name: &str| context.config.order.cursor_hash(context.channel_key(AppSerial(1), name).hash);
    let hashes = [&near, &far].map(|name| hash(name));
    let publish = |channel: &str| publish_request(&json!({"name": "e", "channel": channel, "data": "1"}).to_string());
    let both = format!("{near},{far}");
    let start = json_of(&network.ask_until_quiet(0, &ask_for("poll", &format!("{both}&timeout=1"), None)), 200);
    assert!(network.ask_until_quiet(0, &publish(&far)).starts_with("HTTP/1.1 200"));
    // Three streams are more than one turn queues an event to.
    for _ in 0..2 {
        network.request(0, &ask_for("sse", &near, None));
    }
    while network.deliver(0) {}
    let stream = network.request(0, &ask_for("sse", &both, start["last_event_id"].as_str()));
    let is_open =
        |network: &Network| network.shards[0].stats().streams == 3 && network.received.contains_key(&(0, stream.slot));
    while !is_open(&network) {
        assert!(network.deliver(0), "the stream opens");
    }
    // The missed event of the one channel is on its way.
    assert!(network.deliver_between(0, 1));
    network.request(0, &publish(&near));
    while network.deliver(0) {}
    for _ in 0..10 {
        network.now.monotonic_ms += 1;
        network.feed(0, Input::Timeout);
    }
    let text = String::from_utf8(network.received.remove(&(0, stream.slot)).expect("events")).expect("text");
    let (mut sent, mut events) = ([0, 0], 0);
    for block in text.split_terminator("\n\n").filter(|block| block.contains("id: cur_")) {
        let cursor =
            block.lines().find_map(|line| line.strip_prefix("id: ")).and_then(Cursor::decode).expect("a cursor");
        let positions = hashes.map(|hash| cursor.position(hash).expect("an entry"));
        if block.contains("event: connected") {
            sent = positions;
            continue;
        }
        let at = usize::from(block.contains(&format!(r#""channel":"{far}""#)));
        sent[at] += 1;
        events += 1;
        assert_eq!(positions, sent, "{text}");
    }
    assert_eq!(events, 2, "{text}");
}

/// A client that reads channels over streams or polls, and connects again from where it was.
struct Client {
    shard: usize,
    channels: &'static [&'static str],
    polls: bool,
    connection: Option<ConnectionKey>,
    last_event_id: Option<String>,
    /// What it has seen of each channel, after it was connected first.
    seen: BTreeMap<String, Vec<u64>>,
}

impl Client {
    fn connect(&mut self, network: &mut Network) {
        let endpoint = if self.polls { "poll" } else { "sse" };
        let last = self.last_event_id.as_deref();
        let request = ask_for(endpoint, &self.channels.join(","), last);
        self.connection = Some(network.request(self.shard, &request));
    }

    /// Reads what has arrived: whole events only, as a browser does.
    fn read(&mut self, network: &mut Network) {
        let Some(connection) = self.connection else { return };
        let bytes = network.received.remove(&(self.shard, connection.slot)).unwrap_or_default();
        let text = String::from_utf8(bytes).expect("text");
        if self.polls {
            let Some((head, body)) = text.split_once("\r\n\r\n") else { return };
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let answer: Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(answer["gaps"], json!([]), "{answer}");
            for event in answer["events"].as_array().expect("events") {
                self.note(event);
            }
            self.last_event_id = answer["last_event_id"].as_str().map(str::to_owned);
            network.feed(self.shard, Input::Closed { connection });
            return self.connect(network);
        }
        let text = text.split_once("retry: 3000\n\n").map_or(&*text, |(_, events)| events);
        for event in text.split_terminator("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            match field("event") {
                Some("connected") => {}
                Some("e") => self.note(&serde_json::from_str(field("data").expect("data")).expect("JSON")),
                _ => panic!("{event}"),
            }
            self.last_event_id = field("id").map(str::to_owned).or(self.last_event_id.take());
        }
    }

    fn note(&mut self, event: &Value) {
        let channel = event["channel"].as_str().expect("a channel").to_owned();
        let number = event["data"].as_str().and_then(|data| data.parse().ok()).expect("a number");
        self.seen.entry(channel).or_default().push(number);
    }
}

const CHANNELS: [&[&str]; 4] = [&["a"], &["a", "b"], &["b", "c", "presence-d", "e"], &["presence-d"]];

/// Publishes, connects, cuts and reads in the order of these steps, while mail is delivered in any order.
fn run(steps: &[(u8, u16)], shards: ShardIndex) {
    let mut network = Network::new(shards, AppSettings { history_events: 10_000, ..AppSettings::default() });
    let mut published: BTreeMap<&str, u64> = BTreeMap::new();
    let mut clients: Vec<Client> = (0..10)
        .map(|at| Client {
            shard: at % usize::from(shards),
            channels: CHANNELS[at % CHANNELS.len()],
            polls: at >= 7,
            connection: None,
            last_event_id: None,
            seen: BTreeMap::new(),
        })
        .collect();
    for (at, (step, choice)) in steps.iter().enumerate() {
        let choice = usize::from(*choice);
        let client = &mut clients[choice % 10];
        match step % 10 {
            0..=1 => {
                let channel = ["a", "b", "c", "presence-d", "e"][choice % 5];
                let number = published.entry(channel).or_default();
                *number += 1;
                let data = if choice % 64 == 0 { format!("{number:0>9000}") } else { number.to_string() };
                let body = json!({"name": "e", "channel": channel, "data": data}).to_string();
                // Through one shard each, so that the numbers of a channel are in order.
                network.request(choice % 5 % usize::from(shards), &publish_request(&body));
            }
            2 => match client.connection {
                None => client.connect(&mut network),
                // Cut off, with or without what was on the way.
                Some(_) => {
                    if choice % 20 < 10 {
                        client.read(&mut network);
                    }
                    if let Some(connection) = client.connection.take() {
                        network.feed(client.shard, Input::Closed { connection });
                    }
                }
            },
            3 => client.read(&mut network),
            _ => {
                network.deliver(choice);
            }
        }
        network.now.monotonic_ms += u64::from(at % 100 == 99);
    }
    // At the end everybody is connected, and everything arrives.
    for client in &mut clients {
        client.read(&mut network);
        if client.connection.is_none() {
            client.connect(&mut network);
        }
    }
    for _ in 0..3 {
        while network.deliver(7) {}
        for client in &mut clients {
            client.read(&mut network);
        }
    }
    for client in &clients {
        for (channel, seen) in &client.seen {
            // From the first event that it saw: each once, in order, up to the last one.
            let first = seen[0];
            let expected: Vec<u64> = (first..=published[&**channel]).collect();
            assert_eq!(seen, &expected, "{channel} of {:?}, polls: {}", client.channels, client.polls);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// R-HIST-12, R-SSE-7, R-POLL-2, H12: whatever the order of mail, however often clients are cut off, and wherever
    /// they connect again: nothing is lost, doubled or out of order.
    #[test]
    fn nothing_is_lost_in_any_order(
        steps in prop::collection::vec(any::<(u8, u16)>(), 100..1_000),
        shards in 1_u16..=4,
    ) {
        run(&steps, shards);
    }
}
