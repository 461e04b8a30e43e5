//! The CPU time that one hostile request or message costs a shard, compared with the cheapest refusal (threats T6, T12,
//! T16).
//!
//! Method: a shard in memory, without sockets. Each input alternates with the plain refusal, in many rounds, and the
//! median of the quotients is checked: only the time of this thread counts, and both halves of a quotient are measured
//! within the same few hundred microseconds, so that a busy machine changes little. The cost of an input at its bound
//! is also compared with that of half of it: linear cost doubles, quadratic cost quadruples.

// A test reads the clock and may fail at any line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use relay::app::{App, AppKey, AppSerial, AppSettings, Directory};
use relay::connection::ConnectionKey;
use relay::moment::Moment;
use relay::shard::{ChannelOrder, Input, Listener, Output, Shard, ShardConfig, ShardOptions};

const NOW: Moment = Moment { monotonic_ms: 1_000, unix_ms: 1_800_000_000_000 };
const ROUNDS: usize = 31;
/// The end of a handshake's head.
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n";

/// A shard with a driver that takes its output and performs every close that it requests.
struct Server {
    shard: Shard,
    now: Moment,
    generation: u32,
    /// Connections whose sockets accept no bytes, by slot.
    stopped: BTreeSet<u32>,
    sent: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        let app = App {
            serial: AppSerial(1),
            id: "1".into(),
            name: "cost".into(),
            enabled: true,
            keys: vec![AppKey::new("app-key", "app-secret")],
            encryption_master_key: None,
            settings: AppSettings {
                watchlist: true,
                client_events: true,
                max_invalid_messages: 0,
                allowed_origins: (0..100).map(|number| format!("{number}.example.com").into()).collect(),
                ..AppSettings::default()
            },
            webhooks: Default::default(),
        };
        let options = ShardOptions {
            path_prefix: "/pre".to_owned(),
            trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network"), "10.0.0.0/8".parse().expect("a network")],
            ..ShardOptions::default()
        };
        let shard = Shard::new(ShardConfig {
            index: 0,
            shards: 1,
            slots: 1_024,
            refusal_slots: 0,
            boot_secret: [3; 16],
            order: ChannelOrder { epoch: 3, key: [3; 16] },
            directory: Arc::new(Directory::new(1, vec![app], Vec::new())),
            options,
        });
        Self { shard, now: NOW, generation: 0, stopped: BTreeSet::new(), sent: Vec::new() }
    }

    fn accept(&mut self) -> ConnectionKey {
        self.accept_into(0)
    }

    fn accept_into(&mut self, slot: u32) -> ConnectionKey {
        self.generation += 1;
        let connection = ConnectionKey { slot, generation: self.generation };
        let peer = "127.0.0.1:9".parse().expect("an address");
        let input = Input::Accepted { connection, peer, listener: Listener::Public, refuse: false };
        self.shard.handle_input(self.now, input);
        connection
    }

    fn receive(&mut self, connection: ConnectionKey, bytes: &[u8]) {
        self.shard.handle_input(self.now, Input::Received { connection, bytes: &mut bytes.to_vec() });
        self.drain();
    }

    fn end(&mut self, connection: ConnectionKey) {
        self.shard.handle_input(self.now, Input::Closed { connection });
        self.drain();
    }

    /// Opens a WebSocket; also returns its socket id.
    fn open(&mut self, slot: u32) -> (ConnectionKey, String) {
        let connection = self.accept_into(slot);
        self.receive(connection, &request("/app/app-key?protocol=7", UPGRADE));
        let opened = self.take();
        let (_, id) = opened.split_once(r#"socket_id\":\""#).expect("established");
        (connection, id.split_once('\\').expect("the end of the id").0.to_owned())
    }

    fn drain(&mut self) {
        loop {
            self.shard.end_batch();
            while let Some(output) = self.shard.poll_output() {
                if let Output::Close { connection, .. } = output {
                    self.shard.handle_input(self.now, Input::Closed { connection });
                }
            }
            let Some(flush) = self.shard.poll_flush() else {
                if self.shard.poll_timeout().is_some_and(|at| at <= self.now.monotonic_ms) {
                    self.shard.handle_input(self.now, Input::Timeout);
                    continue;
                }
                return;
            };
            let (connection, bytes) = (flush.connection, flush.bytes.len());
            if self.stopped.contains(&connection.slot) {
                continue;
            }
            self.sent.extend_from_slice(flush.bytes);
            self.shard.handle_input(self.now, Input::Sent { connection, bytes });
        }
    }

    fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.sent)).into_owned()
    }
}

/// CPU time of this thread, in ns.
fn thread_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU time of one of these requests, in ns: each on a connection of its own, as a stranger would send it.
fn request_ns(server: &mut Server, request: &[u8], count: u32) -> f64 {
    let began = thread_ns();
    for _ in 0..count {
        let connection = server.accept();
        server.receive(connection, request);
        server.shard.handle_input(NOW, Input::Closed { connection });
        server.sent.clear();
    }
    (thread_ns() - began) as f64 / f64::from(count)
}

/// The cost of one request, as a multiple of another's.
fn quotient(server: &mut Server, request: &[u8], other: &[u8]) -> f64 {
    let rounds = (0..ROUNDS).map(|_| request_ns(server, request, 8) / request_ns(server, other, 32));
    median(rounds.collect())
}

fn request(target: &str, lines: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n").into_bytes()
}

fn signed(more: &str) -> String {
    let query =
        format!("auth_key=app-key&auth_timestamp=1800000000&auth_version=1.0&auth_signature={}", "0".repeat(64));
    format!("/pre/api/v1/apps/1/channels?{query}&{}", &more[..more.len().min(7_900)])
}

fn repeated(count: usize, pair: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut text, index| {
        let _ = write!(text, "{}&", pair(index));
        text
    })
}

/// Requests that are refused, at their bounds: name, status, request.
fn refusals() -> Vec<(&'static str, u16, Vec<u8>)> {
    let ambiguous =
        |count: usize, filler: usize| repeated(count, |index| format!("%41{index}[]=%41+{}", "x".repeat(filler)));
    let headers =
        |name: &str, value: &str| repeated(60, |_| String::new()).replace('&', &format!("{name}: {value}\r\n"));
    vec![
        ("no credential", 401, request("/apps/1/channels", "")),
        ("wrong token", 401, request("/apps/1/channels", &format!("Authorization: Bearer rly_{}\r\n", "a".repeat(40)))),
        ("wrong secret", 401, request("/apps/1/channels", "X-Relay-Key: app-key\r\nX-Relay-Secret: x\r\n")),
        ("all 18 candidates", 401, request(&signed(&ambiguous(16, 13)), "")),
        ("one array of 16", 401, request(&signed(&repeated(16, |_| "%41%41%41%41%41[]=+".to_owned())), "")),
        ("240 arrays", 401, request(&signed(&ambiguous(240, 18)), "")),
        ("one array of 250", 401, request(&signed(&repeated(250, |_| "%41%41%41%41%41[]=+".to_owned())), "")),
        (
            "250 parameters, reversed",
            401,
            request(&signed(&repeated(250, |index| format!("p{:03}={}", 999 - index, "x".repeat(20)))), ""),
        ),
        (
            "long names alike",
            401,
            request(&signed(&repeated(60, |index| format!("{}{:02}=+", "%41".repeat(40), 99 - index))), ""),
        ),
        ("one long value", 401, request(&signed(&format!("a={}", "%41".repeat(2_600))), "")),
        (
            "8 KiB without a signature",
            401,
            request(
                &format!("/apps/1/channels?{}", repeated(252, |index| format!("%41uth{index}=%41+{}", "x".repeat(17)))),
                "",
            ),
        ),
        ("60 headers", 404, request("/nothing", &headers("X-Some", "value"))),
        ("60 cookies", 404, request("/nothing", &headers("Cookie", &"a=b; ".repeat(40)))),
        ("Connection of 8,000 tokens", 404, request("/nothing", &format!("Connection: {}\r\n", "a,".repeat(7_900)))),
        (
            "X-Forwarded-For of 1,700 proxies",
            401,
            request("/apps/1/channels", &format!("X-Forwarded-For: {}\r\n", "10.0.0.1,".repeat(1_700))),
        ),
        (
            "Forwarded of 450 proxies",
            401,
            request("/apps/1/channels", &format!("Forwarded: {}\r\n", "for=10.1,".repeat(450))),
        ),
        ("16 KiB path", 404, request(&format!("/{}", "a/".repeat(7_900)), "")),
        ("path of escapes", 401, request(&format!("/apps/1/channels/{}", "%41".repeat(670)), "")),
        ("longer path of escapes", 404, request(&format!("/apps/1/channels/{}", "%41".repeat(2_600)), "")),
        ("query to be decoded, at its bound", 401, request(&signed(&"%41%41%41%41%41=+++&".repeat(60)), "")),
        ("query of too many to be decoded", 401, request(&signed(&"%41=+&".repeat(240)), "")),
        (
            "long names alike, at its bound",
            401,
            request(&signed(&repeated(14, |index| format!("{}{:02}=+", "%41".repeat(40), 99 - index))), ""),
        ),
        (
            "upgrade with 8 KiB of subprotocols",
            101,
            request("/app/unknown?protocol=7", &format!("{UPGRADE}Sec-WebSocket-Protocol: {}\r\n", "a,".repeat(4_000))),
        ),
        (
            "upgrade with a foreign origin",
            101,
            request(
                "/app/app-key?protocol=7",
                &format!("{UPGRADE}Origin: https://{}.example.com\r\n", "a.".repeat(4_000)),
            ),
        ),
        ("upgrade with 8 KiB of parameters", 101, request(&format!("/app/unknown?{}", "a=b&".repeat(2_000)), UPGRADE)),
    ]
}

/// Threats T6 and T12: no request of a stranger costs more than ten plain refusals, whatever it contains.
#[test]
fn no_refusal_costs_more_than_ten_plain_ones() {
    let mut server = Server::new();
    let plain = request(&signed("a=b"), "");
    let mut report = String::new();
    for (name, status, bytes) in refusals() {
        let connection = server.accept();
        server.receive(connection, &bytes);
        server.shard.handle_input(NOW, Input::Closed { connection });
        let answer = server.take();
        let braked = status == 401 && answer.starts_with("HTTP/1.1 429 ");
        assert!(braked || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        let quotient = quotient(&mut server, &bytes, &plain);
        let _ = writeln!(report, "{quotient:8.2} {:6} B  {name}", bytes.len());
    }
    let ns = request_ns(&mut server, &plain, 1_000);
    println!("a plain refusal costs {ns:.0} ns; as multiples of it:\n{report}");
    let worst =
        report.lines().filter_map(|line| line.split_whitespace().next()?.parse::<f64>().ok()).fold(0.0, f64::max);
    assert!(worst <= 10.0, "{report}");
}

/// Inputs whose length an outsider chooses, as a function of it: name, the length at the bound, and the parts to send,
/// on a connection that is HTTP or a WebSocket.
type Growing = (&'static str, usize, Speaks, fn(usize) -> Vec<Vec<u8>>);

#[derive(Clone, Copy, Eq, PartialEq)]
enum Speaks {
    Http,
    WebSocket,
}

fn publish(body: &str) -> Vec<u8> {
    let credential = "X-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n";
    let length = body.len();
    format!("POST /apps/1/events HTTP/1.1\r\nHost: h\r\n{credential}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn say(text: &str) -> Vec<Vec<u8>> {
    vec![frame(0x81, text.as_bytes())]
}

fn growing() -> Vec<Growing> {
    use Speaks::{Http, WebSocket};
    vec![
        ("one channel named again and again", 100_000, Http, |count| {
            let channels = vec![r#""same""#; count].join(",");
            vec![publish(&format!(r#"{{"name":"e","data":"d","channels":[{channels}]}}"#))]
        }),
        ("a list of attributes", 80_000, Http, |count| {
            let list = "user_count,".repeat(count);
            vec![publish(&format!(r#"{{"name":"e","data":"d","channel":"c","info":"{list}"}}"#))]
        }),
        ("unknown members", 100_000, Http, |count| {
            let members: String = (0..count).map(|index| format!(r#""{index}":0,"#)).collect();
            vec![publish(&format!(r#"{{{members}"name":"e","data":"d","channel":"c"}}"#))]
        }),
        ("a body of escapes", 150_000, Http, |count| {
            vec![publish(&format!(r#"{{"name":"e","data":"{}","channel":"c"}}"#, r"\u0041".repeat(count)))]
        }),
        ("a batch of empty events", 300_000, Http, |count| {
            let body = format!(r#"{{"batch":[{}0]}}"#, "{},".repeat(count));
            vec![publish(&body)]
        }),
        ("a body in chunks of one byte", 40_000, Http, |count| {
            let head = "POST /apps/1/events HTTP/1.1\r\nHost: h\r\nX-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            vec![head.into(), "1\r\n \r\n".repeat(count).into_bytes(), b"0\r\n\r\n".to_vec()]
        }),
        ("a head byte by byte", 8_000, Http, |count| {
            let head = format!("GET /up HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(count));
            head.bytes().map(|byte| vec![byte]).collect()
        }),
        ("requests in one read", 1_200, Http, |count| vec![b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n".repeat(count)]),
        ("nested arrays", 600, WebSocket, |count| {
            say(&format!(
                r#"{{"event":"x","data":[{}0]}}"#,
                format!("{}{},", "[".repeat(12), "]".repeat(12)).repeat(count)
            ))
        }),
        ("a message of fragments", 400, WebSocket, |count| {
            let mut parts = frame(0x01, br#"{"event":"pusher:ping","data":""#);
            for _ in 0..count {
                parts.extend(frame(0x00, &[b'x'; 40]));
            }
            parts.extend(frame(0x80, br#""}"#));
            vec![parts]
        }),
        ("a message byte by byte", 8_000, WebSocket, |count| {
            let message =
                frame(0x81, format!(r#"{{"event":"pusher:ping","data":"{}"}}"#, "x".repeat(count)).as_bytes());
            message.into_iter().map(|byte| vec![byte]).collect()
        }),
        ("subscriptions, refused and kept", 900, WebSocket, |count| {
            let subscribe = |index| format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"c-{index}"}}}}"#);
            (0..count).flat_map(|index| say(&subscribe(index))).collect()
        }),
        ("the same channel, in and out", 900, WebSocket, |count| {
            let say_of = |event| say(&format!(r#"{{"event":"pusher:{event}","data":{{"channel":"c"}}}}"#));
            (0..count).flat_map(|_| [say_of("subscribe"), say_of("unsubscribe")].concat()).collect()
        }),
    ]
}

/// CPU time of one such input on a fresh connection, its end included, in ns.
fn growing_ns(server: &mut Server, speaks: Speaks, parts: &[Vec<u8>]) -> f64 {
    let began = thread_ns();
    let connection = server.accept();
    if speaks == Speaks::WebSocket {
        server.receive(connection, &request("/app/app-key?protocol=7", UPGRADE));
    }
    for part in parts {
        server.receive(connection, part);
    }
    server.shard.handle_input(NOW, Input::Closed { connection });
    server.drain();
    server.sent.clear();
    (thread_ns() - began) as f64
}

/// Threats T10, T12 and T16: twice as much of anything costs about twice as much, so that no bound hides a nested loop.
#[test]
fn costs_grow_with_the_input() {
    let mut server = Server::new();
    let mut report = String::new();
    for (name, bound, speaks, parts) in growing() {
        let (half, whole) = (parts(bound / 2), parts(bound));
        let mut whole_ns = Vec::new();
        let rounds = (0..ROUNDS).map(|_| {
            let ns = growing_ns(&mut server, speaks, &whole);
            whole_ns.push(ns);
            ns / growing_ns(&mut server, speaks, &half)
        });
        let quotient = median(rounds.collect());
        let bytes: usize = whole.iter().map(Vec::len).sum();
        let _ = writeln!(report, "{quotient:6.2} {:10.1} us {bytes:8} B  {name}", median(whole_ns) / 1_000.0);
    }
    println!("cost of the whole as a multiple of its half:\n{report}");
    let worst =
        report.lines().filter_map(|line| line.split_whitespace().next()?.parse::<f64>().ok()).fold(0.0, f64::max);
    assert!(worst < 3.0, "{report}");
}

/// `auth` for a text to be signed.
fn auth(text: &str) -> String {
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"app-secret").expect("keys of any length are taken");
    mac.update(text.as_bytes());
    format!("app-key:{}", hex::encode(mac.finalize().into_bytes()))
}

/// A message with a member that contains JSON as a string.
fn message(event: &str, members: &[(&str, &str)]) -> Vec<u8> {
    let data: serde_json::Map<_, _> = members.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    say(&serde_json::json!({"event": event, "data": data}).to_string()).concat()
}

/// A join of a presence channel.
fn join(socket_id: &str, channel: &str, channel_data: &str) -> Vec<u8> {
    let auth = auth(&format!("{socket_id}:{channel}:{channel_data}"));
    message("pusher:subscribe", &[("channel", channel), ("auth", &auth), ("channel_data", channel_data)])
}

/// CPU time in ns of the end of a connection that is a member of this many presence channels.
fn end_of_member_ns(server: &mut Server, count: usize) -> f64 {
    let (connection, socket_id) = server.open(0);
    for index in 0..count {
        server.receive(connection, &join(&socket_id, &format!("presence-{index}"), r#"{"user_id":"u"}"#));
    }
    assert_eq!(server.take().matches("subscription_succeeded").count(), count);
    let began = thread_ns();
    server.end(connection);
    (thread_ns() - began) as f64
}

/// Threat T16: the cost of a connection's end is proportional to the channels it joined, each channel the same.
#[test]
fn leaving_all_costs_what_was_joined() {
    let mut server = Server::new();
    let rounds = (0..5).map(|_| end_of_member_ns(&mut server, 1_000) / end_of_member_ns(&mut server, 500));
    let quotient = median(rounds.collect());
    assert!(quotient < 3.0, "{quotient}");
}

/// Messages that must be signed for the socket that sends them: a name, the length at the bound, and a function that
/// makes them from the socket id and a length. The rest is like [`Growing`].
type Signed = (&'static str, usize, fn(&str, usize) -> Vec<Vec<u8>>);

fn signed_messages() -> Vec<Signed> {
    fn signin(socket_id: &str, user_data: &str) -> Vec<Vec<u8>> {
        let auth = auth(&format!("{socket_id}::user::{user_data}"));
        vec![message("pusher:signin", &[("auth", &auth), ("user_data", user_data)])]
    }
    fn watchlist(count: usize) -> String {
        let users: Vec<String> = (0..count).map(|index| format!("w{index:03}")).collect();
        serde_json::json!({"id": "user", "watchlist": users}).to_string()
    }
    vec![
        ("a signin that watches others", 100, |socket_id, count| signin(socket_id, &watchlist(count))),
        ("a signin with a longer watchlist", 2_400, |socket_id, count| signin(socket_id, &watchlist(count))),
        ("the same with a wrong signature", 2_400, |socket_id, count| {
            signin(&format!("{socket_id}0"), &watchlist(count))
        }),
        ("joins with 8 KiB of channel_data", 100, |socket_id, count| {
            let data = format!(r#"{{"user_id":"u","user_info":"{}"}}"#, "x".repeat(8_150));
            (0..count).map(|index| join(socket_id, &format!("presence-{index}"), &data)).collect()
        }),
        ("the same with wrong signatures", 100, |socket_id, count| {
            let data = format!(r#"{{"user_id":"u","user_info":"{}"}}"#, "x".repeat(8_150));
            (0..count).map(|index| join(&format!("{socket_id}0"), &format!("presence-{index}"), &data)).collect()
        }),
        ("channel_data of so many bytes", 10_000, |socket_id, count| {
            let data = format!(r#"{{"user_id":"u","user_info":"{}"}}"#, r"\u0041".repeat(count / 6));
            vec![join(socket_id, "presence-one", &data)]
        }),
    ]
}

/// CPU time in ns of such messages on a fresh connection, its end included, and how many of them were accepted.
fn signed_ns(server: &mut Server, count: usize, messages: fn(&str, usize) -> Vec<Vec<u8>>) -> (f64, usize) {
    let (connection, socket_id) = server.open(0);
    let messages = messages(&socket_id, count);
    let began = thread_ns();
    for message in &messages {
        server.receive(connection, message);
    }
    server.end(connection);
    let ns = (thread_ns() - began) as f64;
    let answers = server.take();
    (ns, answers.matches("signin_success").count() + answers.matches("subscription_succeeded").count())
}

/// Threats T16 and T18: signins and joins cost in proportion to the length of their messages, accepted or not, and no
/// more with each.
#[test]
fn signed_messages_cost_their_length() {
    let mut server = Server::new();
    let mut report = String::new();
    for (name, bound, messages) in signed_messages() {
        let mut whole_ns = Vec::new();
        let rounds = (0..ROUNDS).map(|_| {
            let (ns, accepted) = signed_ns(&mut server, bound, messages);
            assert_eq!(accepted > 0, !name.contains("wrong"), "{name}");
            whole_ns.push(ns);
            ns / signed_ns(&mut server, bound / 2, messages).0
        });
        let quotient = median(rounds.collect());
        let _ = writeln!(report, "{quotient:6.2} {:10.1} us  {name}", median(whole_ns) / 1_000.0);
    }
    println!("cost of the whole as a multiple of its half:\n{report}");
    let worst =
        report.lines().filter_map(|line| line.split_whitespace().next()?.parse::<f64>().ok()).fold(0.0, f64::max);
    assert!(worst < 3.0, "{report}");
}

/// Slots of the connections below that read nothing, and of those that join.
const UNREAD_SLOTS: u32 = 100;
const JOINING_SLOTS: u32 = 200;

/// CPU time in ns of joins of this many presence channels while their app has the maximum bytes of rosters unsent, so
/// that all of them wait and are checked again and again.
fn waiting_joins_ns(count: usize) -> f64 {
    let mut server = Server::new();
    let members: Vec<(ConnectionKey, String)> = (1..=95).map(|slot| server.open(slot)).collect();
    for (index, (connection, socket_id)) in members.iter().enumerate() {
        let data = format!(r#"{{"user_id":"u{index}","user_info":"{}"}}"#, "x".repeat(9_000));
        server.receive(*connection, &join(socket_id, "presence-large", &data));
    }
    // Each of these has a roster of its own, since another member joins and leaves before it.
    for number in 0..64 {
        let (reader, socket_id) = server.open(UNREAD_SLOTS + number);
        server.stopped.insert(reader.slot);
        server.receive(reader, &join(&socket_id, "presence-large", r#"{"user_id":"u0"}"#));
        let (other, socket_id) = server.open(0);
        server.receive(other, &join(&socket_id, "presence-large", r#"{"user_id":"x"}"#));
        server.end(other);
    }
    let joiners: Vec<(ConnectionKey, String)> =
        (0..count.div_ceil(1_000) as u32).map(|number| server.open(JOINING_SLOTS + number)).collect();
    let joins: Vec<(ConnectionKey, Vec<u8>)> = (0..count)
        .map(|index| {
            let (connection, socket_id) = &joiners[index / 1_000];
            (*connection, join(socket_id, &format!("presence-{index}"), r#"{"user_id":"u"}"#))
        })
        .collect();
    server.take();
    let began = thread_ns();
    for (connection, join) in &joins {
        server.receive(*connection, join);
    }
    assert_eq!(server.take().matches("subscription_succeeded").count(), 0, "all of them wait");
    for _ in 0..10 {
        server.now.monotonic_ms += 10;
        server.shard.handle_input(server.now, Input::Timeout);
        server.drain();
    }
    (thread_ns() - began) as f64
}

/// Threat T18: channels whose joiners wait for memory cost the same each, however many there are.
#[test]
fn joins_that_wait_for_memory_cost_the_same_each() {
    let rounds = (0..5).map(|_| waiting_joins_ns(10_000) / waiting_joins_ns(5_000));
    let quotient = median(rounds.collect());
    println!("10,000 joins that wait cost {quotient:.2} times 5,000");
    assert!(quotient < 3.0, "{quotient}");
}
