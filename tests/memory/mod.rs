//! One shard in memory, without sockets, driven by the fan-out bench and the allocation test.

use std::sync::Arc;

use relay::app::{App, AppKey, AppSerial, AppSettings, Directory};
use relay::connection::ConnectionKey;
use relay::metrics::figures::DriverFigures;
use relay::moment::Moment;
use relay::shard::{ChannelOrder, Input, Listener, Output, Shard, ShardConfig, ShardOptions};

/// A shard with subscribers of the channel `news` and one publisher on a kept HTTP connection; or one with members of a
/// presence channel.
pub(crate) struct Memory {
    shard: Shard,
    now: Moment,
    now_us: u64,
    publisher: ConnectionKey,
    request: Vec<u8>,
    /// Connections that join and leave, with the bytes of their joins.
    joiners: Vec<(ConnectionKey, Vec<u8>)>,
}

/// The sends and bytes of one publish.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Moved {
    /// Sends passed to the driver, including the answer to the publisher.
    pub(crate) sends: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

impl Memory {
    /// Opens and subscribes the connections; the publisher sends `data_bytes` of data per event.
    pub(crate) fn new(subscribers: u32, data_bytes: usize) -> Self {
        Self::with_settings(subscribers, data_bytes, AppSettings::default())
    }

    /// The same of an app with a history of so many events per channel; the history is full. Requests are signed.
    pub(crate) fn with_history(subscribers: u32, data_bytes: usize, history_events: u32) -> Self {
        let mut memory =
            Self::with_settings(subscribers, data_bytes, AppSettings { history_events, ..AppSettings::default() });
        memory.request = signed_request(&event_body(data_bytes), memory.now.unix_ms / 1_000);
        for _ in 0..history_events {
            memory.publish();
        }
        memory
    }

    fn with_settings(subscribers: u32, data_bytes: usize, settings: AppSettings) -> Self {
        let mut memory = Self::empty(subscribers + 1, data_bytes, settings);
        for slot in 0..subscribers {
            let text = r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"news"}}"#;
            memory.open(ConnectionKey { slot, generation: 1 });
            memory.say(ConnectionKey { slot, generation: 1 }, text);
        }
        memory.publisher = ConnectionKey { slot: subscribers, generation: 1 };
        memory.accept(memory.publisher);
        memory
    }

    /// Members of one presence channel, and joiners that are connected.
    pub(crate) fn presence(members: u32, joiners: u32) -> Self {
        let settings = AppSettings { max_presence_members: u32::MAX, ..AppSettings::default() };
        let mut memory = Self::empty(members + joiners, 0, settings);
        for slot in 0..members + joiners {
            let connection = ConnectionKey { slot, generation: 1 };
            let socket_id = memory.open(connection);
            let join = join_message(&socket_id, slot);
            if slot < members {
                memory.say(connection, &join);
            } else {
                memory.joiners.push((connection, client_frame(&join)));
            }
        }
        memory
    }

    /// All joiners join, this many in each turn, and leave in one turn.
    pub(crate) fn join_and_leave(&mut self, joins_per_turn: usize) {
        let joiners = std::mem::take(&mut self.joiners);
        for turn in joiners.chunks(joins_per_turn) {
            for (connection, join) in turn {
                self.receive(*connection, join);
            }
            assert!(self.drain().sends >= turn.len(), "every joiner was answered");
        }
        let leave = client_frame(r#"{"event":"pusher:unsubscribe","data":{"channel":"presence-bench"}}"#);
        for (connection, _) in &joiners {
            self.receive(*connection, &leave);
        }
        self.drain();
        self.joiners = joiners;
    }

    fn empty(slots: u32, data_bytes: usize, settings: AppSettings) -> Self {
        let app = App {
            serial: AppSerial(1),
            id: "1".into(),
            name: "memory".into(),
            enabled: true,
            keys: vec![AppKey::new("app-key", "app-secret")],
            encryption_master_key: None,
            settings,
            webhooks: Default::default(),
        };
        let shard = Shard::new(ShardConfig {
            index: 0,
            shards: 1,
            slots,
            refusal_slots: 0,
            boot_secret: [3; 16],
            order: ChannelOrder { epoch: 3, key: [3; 16] },
            directory: Arc::new(Directory::new(1, vec![app], Vec::new())),
            options: ShardOptions::default(),
        });
        let now = Moment { monotonic_ms: 1_000, unix_ms: 1_800_000_000_000 };
        let body = event_body(data_bytes);
        let request = format!(
            "POST /apps/1/events HTTP/1.1\r\nHost: h\r\nX-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let publisher = ConnectionKey { slot: 0, generation: 1 };
        Self { shard, now, now_us: 1_000_000, publisher, request: request.into_bytes(), joiners: Vec::new() }
    }

    /// Publishes one event and drains all pending sends.
    // A function of its own for callgrind, which can count what is below it.
    #[inline(never)]
    pub(crate) fn publish(&mut self) -> Moved {
        self.now_us += 100;
        self.shard.handle_turn_begin(self.now_us);
        let mut request = std::mem::take(&mut self.request);
        self.shard.handle_input(self.now, Input::Received { connection: self.publisher, bytes: &mut request });
        self.request = request;
        let moved = self.drain();
        self.shard.handle_turn_end(self.now_us + 50, &DriverFigures::default());
        moved
    }

    /// Drains all outputs and flushes; each send completes at once.
    fn drain(&mut self) -> Moved {
        let mut moved = Moved::default();
        loop {
            self.shard.end_batch();
            while let Some(output) = self.shard.poll_output() {
                assert!(!matches!(output, Output::Close { .. } | Output::Mail { .. }), "{output:?}");
            }
            let Some(flush) = self.shard.poll_flush() else {
                if self.shard.poll_timeout().is_some_and(|at| at <= self.now.monotonic_ms) {
                    self.shard.handle_input(self.now, Input::Timeout);
                    continue;
                }
                return moved;
            };
            let (connection, bytes) = (flush.connection, flush.bytes.len());
            moved.sends += 1;
            moved.bytes += bytes;
            self.shard.handle_input(self.now, Input::Sent { connection, bytes });
        }
    }

    fn accept(&mut self, connection: ConnectionKey) {
        let peer = "127.0.0.1:9".parse().expect("an address");
        let input = Input::Accepted { connection, peer, listener: Listener::Public, refuse: false };
        self.shard.handle_input(self.now, input);
    }

    /// A WebSocket; returns its socket id.
    fn open(&mut self, connection: ConnectionKey) -> String {
        self.accept(connection);
        let upgrade = b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                        Sec-WebSocket-Version: 13\r\n\r\n";
        self.receive(connection, upgrade);
        let flush = self.shard.poll_flush().expect("an answer to the upgrade");
        let said = String::from_utf8_lossy(flush.bytes).into_owned();
        let bytes = flush.bytes.len();
        self.shard.handle_input(self.now, Input::Sent { connection, bytes });
        self.drain();
        let (_, id) = said.split_once(r#"socket_id\":\""#).expect("established");
        id.split_once('\\').expect("the end of the id").0.to_owned()
    }

    fn say(&mut self, connection: ConnectionKey, text: &str) {
        self.receive(connection, &client_frame(text));
        assert!(self.drain().sends > 0, "every subscriber was answered");
    }

    fn receive(&mut self, connection: ConnectionKey, bytes: &[u8]) {
        self.shard.handle_input(self.now, Input::Received { connection, bytes: &mut bytes.to_vec() });
    }
}

fn event_body(data_bytes: usize) -> String {
    format!(r#"{{"name":"tick","channel":"news","data":"{}"}}"#, "x".repeat(data_bytes))
}

/// A publish with the signature of a Pusher SDK.
fn signed_request(body: &str, unix_s: u64) -> Vec<u8> {
    use md5::Digest;
    let body_md5 = hex::encode(md5::Md5::digest(body.as_bytes()));
    let query = format!("auth_key=app-key&auth_timestamp={unix_s}&auth_version=1.0&body_md5={body_md5}");
    let signature = hmac_hex(&format!("POST\n/apps/1/events\n{query}"));
    let target = format!("/apps/1/events?{query}&auth_signature={signature}");
    format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn hmac_hex(text: &str) -> String {
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"app-secret").expect("keys of any length are taken");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// A client's text frame, masked with zeros.
fn client_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(length).expect("a short message").to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A signed subscribe to the presence channel.
fn join_message(socket_id: &str, user: u32) -> String {
    let data = format!(r#"{{"user_id":"user-{user}","user_info":{{"name":"Somebody"}}}}"#);
    let auth = format!("app-key:{}", hmac_hex(&format!("{socket_id}:presence-bench:{data}")));
    let data = serde_json::Value::from(data);
    format!(
        r#"{{"event":"pusher:subscribe","data":{{"channel":"presence-bench","auth":"{auth}","channel_data":{data}}}}}"#
    )
}
