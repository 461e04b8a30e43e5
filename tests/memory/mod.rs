//! One shard in memory, without sockets: what the fan-out bench and the allocation test drive.

use std::sync::Arc;

use relay::app::{App, AppKey, AppSerial, AppSettings, Directory};
use relay::connection::ConnectionKey;
use relay::metrics::figures::DriverFigures;
use relay::moment::Moment;
use relay::shard::{Input, Listener, Output, Shard, ShardConfig, ShardOptions};

/// A shard with subscribers of the channel `news` and one publisher on a kept HTTP connection.
pub(crate) struct Memory {
    shard: Shard,
    now: Moment,
    now_us: u64,
    publisher: ConnectionKey,
    request: Vec<u8>,
}

/// What one publish moved.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Moved {
    /// Sends handed to the driver, the answer to the publisher among them.
    pub(crate) sends: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

impl Memory {
    /// Opens and subscribes the connections; the publisher sends `data_bytes` of data per event.
    pub(crate) fn new(subscribers: u32, data_bytes: usize) -> Self {
        let app = App {
            serial: AppSerial(1),
            id: "1".into(),
            name: "memory".into(),
            enabled: true,
            keys: vec![AppKey::new("app-key", "app-secret")],
            settings: AppSettings::default(),
        };
        let shard = Shard::new(ShardConfig {
            index: 0,
            shards: 1,
            slots: subscribers + 1,
            boot_secret: [3; 16],
            directory: Arc::new(Directory::new(1, vec![app], Vec::new())),
            options: ShardOptions::default(),
        });
        let now = Moment { monotonic_ms: 1_000, unix_ms: 1_800_000_000_000 };
        let body = format!(r#"{{"name":"tick","channel":"news","data":"{}"}}"#, "x".repeat(data_bytes));
        let request = format!(
            "POST /apps/1/events HTTP/1.1\r\nHost: h\r\nX-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let publisher = ConnectionKey { slot: subscribers, generation: 1 };
        let mut memory = Self { shard, now, now_us: 1_000_000, publisher, request: request.into_bytes() };
        for slot in 0..subscribers {
            memory.subscribe(ConnectionKey { slot, generation: 1 });
        }
        memory.accept(publisher);
        memory
    }

    /// Publishes one event and takes everything that is to be sent.
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

    /// Takes all outputs and flushes; each send is done at once.
    fn drain(&mut self) -> Moved {
        let mut moved = Moved::default();
        loop {
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

    fn subscribe(&mut self, connection: ConnectionKey) {
        self.accept(connection);
        let upgrade = b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                        Sec-WebSocket-Version: 13\r\n\r\n";
        self.shard.handle_input(self.now, Input::Received { connection, bytes: &mut upgrade.to_vec() });
        let text = br#"{"event":"pusher:subscribe","data":{"auth":"","channel":"news"}}"#;
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text);
        self.shard.handle_input(self.now, Input::Received { connection, bytes: &mut frame });
        let moved = self.drain();
        assert!(moved.sends > 0, "every subscriber was answered");
    }
}
