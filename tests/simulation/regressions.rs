//! Errors that the simulation once found, each as a small separate scenario: a change of the scheduler changes the
//! effect of a seed, so seeds alone are no lasting record.

use std::net::SocketAddr;
use std::time::Duration;

use relay::connection::ConnectionKey;
use relay::moment::Moment;
use relay::shard::{ChannelOrder, Input, Listener, Output, Shard, ShardConfig, ShardIndex, ShardOptions};
use serde_json::json;

use crate::apps;
use crate::client::frames::{FrameReader, TEXT, encode};
use crate::client::responses::ResponseReader;
use crate::random::Random;

/// Shards driven by hand, and the bytes they sent to the one connection.
struct Bench {
    shards: Vec<Shard>,
    now: Moment,
    /// Whether sends complete at once.
    reading: bool,
    lent: Option<Vec<u8>>,
    sent: Vec<u8>,
    mail: Vec<(ShardIndex, ShardIndex, relay::shard::Mail)>,
    paused: bool,
}

const CONNECTION: ConnectionKey = ConnectionKey { slot: 0, generation: 1 };

impl Bench {
    /// Shards of which the first has one connection.
    fn new(shards: ShardIndex) -> Self {
        let directory = apps::directory(1, &apps::apps(&mut Random::new(1), 10_240), &apps::tokens());
        let options = ShardOptions { drain: Duration::ZERO, ..ShardOptions::default() };
        let config = |index| ShardConfig {
            index,
            shards,
            slots: 8,
            refusal_slots: 0,
            boot_secret: [7; 16],
            order: ChannelOrder { epoch: 7, key: [7; 16] },
            directory: directory.clone(),
            options: options.clone(),
        };
        let shards = (0..shards).map(|index| Shard::new(config(index))).collect();
        let now = Moment { monotonic_ms: 1_000, unix_ms: 1_800_000_000_000 };
        let mut bench =
            Self { shards, now, reading: true, lent: None, sent: Vec::new(), mail: Vec::new(), paused: false };
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        bench.input(0, Input::Accepted { connection: CONNECTION, peer, listener: Listener::Public, refuse: false });
        bench
    }

    fn input(&mut self, shard: usize, input: Input<'_>) {
        self.shards[shard].handle_input(self.now, input);
        self.drain(shard);
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.input(0, Input::Received { connection: CONNECTION, bytes: &mut bytes.to_vec() });
    }

    /// Drains outputs and sends of a shard, completing the sends while the peer reads.
    fn drain(&mut self, shard: usize) {
        loop {
            let mut moved = false;
            self.shards[shard].end_batch();
            while let Some(output) = self.shards[shard].poll_output() {
                moved = true;
                match output {
                    Output::Mail { to, mail } => self.mail.push((shard as ShardIndex, to, mail)),
                    Output::Pause { .. } => self.paused = true,
                    Output::Resume { .. } => self.paused = false,
                    Output::Close { .. }
                    | Output::ShutdownWrite { .. }
                    | Output::TokenUsed { .. }
                    | Output::Change(_)
                    | Output::Authorize(_)
                    | Output::Replayed { .. }
                    | Output::Webhook(_)
                    | Output::MessagesCounted { .. }
                    | Output::MisleadingName { .. } => {}
                    Output::Log(_) | Output::MeasureProcess => {}
                }
            }
            while let Some(flush) = self.shards[shard].poll_flush() {
                moved = true;
                self.lent = Some(flush.bytes.to_vec());
            }
            if self.reading
                && let Some(lent) = self.lent.take()
            {
                moved = true;
                self.sent.extend_from_slice(&lent);
                self.shards[shard].handle_input(self.now, Input::Sent { connection: CONNECTION, bytes: lent.len() });
            }
            if !moved {
                assert!(!self.shards[shard].has_pending(), "a drain leaves nothing");
                return;
            }
        }
    }

    fn deliver_mail(&mut self) {
        while !self.mail.is_empty() {
            let (from, to, mail) = self.mail.remove(0);
            self.input(usize::from(to), Input::Mail { from, mail });
        }
    }

    fn upgrade(&mut self) {
        self.receive(
            b"GET /app/key-0-0?protocol=7 HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        );
        self.deliver_mail();
        let end = self.sent.windows(4).position(|window| window == b"\r\n\r\n").expect("the upgrade is answered");
        self.sent.drain(..end + 4);
    }
}

/// P-CLOSE-5: the output that a client causes is bounded, and a client that reads later misses no answer. Method: a
/// client that reads nothing sends, in one read, messages whose answers exceed the hard bound, three frames each; then
/// it reads.
#[test]
fn answers_that_are_not_read_delay_further_messages() {
    const MESSAGES: usize = 4_000;
    for first in 0..3 {
        let mut bench = Bench::new(1);
        bench.upgrade();
        bench.reading = false;
        let mut input = Vec::new();
        for _ in 0..first {
            input.extend(encode(TEXT, br#"{"event":"pusher:ping"}"#, [1, 2, 3, 4]));
        }
        let message = json!({"event": "pusher:subscribe", "data": {"channel": "private-closed"}}).to_string();
        for _ in 0..MESSAGES {
            input.extend(encode(TEXT, message.as_bytes(), [1, 2, 3, 4]));
        }
        bench.receive(&input);
        assert!(bench.paused, "it owes more than it may bring on itself");
        bench.reading = true;
        bench.drain(0);
        let mut reader = FrameReader::default();
        reader.push(&bench.sent);
        let frames: Vec<_> = std::iter::from_fn(|| reader.next()).collect();
        assert!(frames.iter().all(|frame| frame.opcode == TEXT));
        // Before them come only the frames that greeted the client.
        let answers =
            frames.iter().skip_while(|frame| frame.payload.starts_with(br#"{"event":"pusher:connection"#)).count();
        assert_eq!(answers, first + 3 * MESSAGES);
    }
}

/// Goal: requests are answered in the order sent, even when a read in flight completes after `Pause` while earlier
/// requests are held back. Method: a client that reads nothing asks for long answers, so that all requests behind the
/// first are held back (P-CLOSE-5); late reads bring further ones.
#[test]
fn a_late_read_does_not_overtake_requests_that_were_held_back() {
    let mut bench = Bench::new(2);
    bench.reading = false;
    let channels: Vec<String> = (0..90).map(|channel| format!("{channel:n>190}")).collect();
    let body = json!({"name": "e", "data": "d", "channels": channels, "info": "subscription_count"}).to_string();
    let publish = format!(
        "POST /apps/1/events HTTP/1.1\r\nHost: relay\r\nX-Relay-Key: key-0-0\r\nX-Relay-Secret: secret-0-0\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    bench.receive(publish.as_bytes());
    assert!(!bench.paused, "nothing is held back yet");
    for _ in 0..relay::limits::HTTP_PIPELINE_MAX + 5 {
        bench.receive(publish.as_bytes());
    }
    bench.receive(format!("{publish}GET /nothing HTTP/1.1\r\nHost: relay\r\n\r\n").as_bytes());
    assert!(bench.paused, "the answer is awaited");
    bench.deliver_mail();
    assert!(bench.paused, "the answers are long and nobody reads them");
    bench.receive(b"GET /up HTTP/1.1\r\nHost: relay\r\n\r\n");
    bench.reading = true;
    bench.drain(0);
    // One of the answers at a time: each allows the next request to be handled.
    bench.deliver_mail();
    let mut responses = ResponseReader::default();
    responses.push(&bench.sent);
    let statuses: Vec<u16> = std::iter::from_fn(|| responses.next(false)).map(|response| response.status).collect();
    let mut expected = vec![200; relay::limits::HTTP_PIPELINE_MAX + 7];
    expected.extend([404, 200]);
    assert_eq!(statuses, expected);
    assert!(!bench.paused);
}
