//! Drain of many connections at once (P-CLOSE-1), which no seed has: they are closed evenly over the grace period.

use std::net::SocketAddr;
use std::time::Duration;

use relay::connection::ConnectionKey;
use relay::moment::Moment;
use relay::shard::{ChannelOrder, Input, Listener, Output, Shard, ShardConfig, ShardOptions};

use crate::apps;
use crate::random::Random;

const CONNECTIONS: u32 = 400;
const DRAIN_MS: u64 = 10_000;

/// Drains outputs and sends; counts the connections that were sent a Close frame and answers each with an end of
/// stream.
fn turn(shard: &mut Shard, now: Moment) -> usize {
    let mut closes = 0;
    loop {
        let mut ended = Vec::new();
        shard.end_batch();
        while let Some(output) = shard.poll_output() {
            if let Output::Close { connection, .. } = output {
                ended.push(Input::Closed { connection });
            }
        }
        while let Some(flush) = shard.poll_flush() {
            let (connection, bytes) = (flush.connection, flush.bytes.len());
            let drained = flush.bytes.windows(4).any(|window| window == b"4200");
            closes += usize::from(drained);
            ended.push(Input::Sent { connection, bytes });
            if drained {
                ended.push(Input::ReadEnded { connection });
            }
        }
        if ended.is_empty() {
            return closes;
        }
        for input in ended {
            shard.handle_input(now, input);
        }
    }
}

/// Goal: 400 WebSockets are closed with 4200 evenly over ten seconds, none late, and the shard reports that it is
/// drained (P-CLOSE-1). Method: one shard, its timeouts fed when it asks for them, closes counted per second.
#[test]
fn many_connections_drain_evenly() {
    let options = ShardOptions { drain: Duration::from_millis(DRAIN_MS), ..ShardOptions::default() };
    let directory = apps::directory(1, &apps::apps(&mut Random::new(1), 10_240), &apps::tokens());
    let mut shard = Shard::new(ShardConfig {
        index: 0,
        shards: 1,
        // One of several apps leaves some slots to the others (P-CLOSE-2).
        slots: 2 * CONNECTIONS,
        refusal_slots: 0,
        boot_secret: [3; 16],
        order: ChannelOrder { epoch: 3, key: [3; 16] },
        directory,
        options,
    });
    let mut now = Moment { monotonic_ms: 5_000, unix_ms: 1_800_000_000_000 };
    for slot in 0..CONNECTIONS {
        let connection = ConnectionKey { slot, generation: 1 };
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        shard.handle_input(now, Input::Accepted { connection, peer, listener: Listener::Public, refuse: false });
        let mut upgrade = b"GET /app/key-0-0?protocol=7 HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            .to_vec();
        shard.handle_input(now, Input::Received { connection, bytes: &mut upgrade });
        turn(&mut shard, now);
    }
    assert_eq!(shard.stats().websockets, u64::from(CONNECTIONS));
    let started = now.monotonic_ms;
    let mut per_second = vec![0; DRAIN_MS as usize / 1_000 + 3];
    shard.handle_input(now, Input::Drain);
    loop {
        let second = ((now.monotonic_ms - started) / 1_000) as usize;
        per_second[second] += turn(&mut shard, now);
        if shard.is_drained() {
            break;
        }
        now.monotonic_ms =
            shard.poll_timeout().expect("a draining shard waits for something").max(now.monotonic_ms + 1);
        shard.handle_input(now, Input::CaughtUp);
        shard.handle_input(now, Input::Timeout);
    }
    assert_eq!(per_second.iter().sum::<usize>(), CONNECTIONS as usize);
    // The last hundred are few enough to be closed at once.
    let spread: Vec<usize> = per_second.iter().copied().take_while(|closes| *closes > 0).collect();
    let even = CONNECTIONS as usize / (DRAIN_MS as usize / 1_000);
    assert!(spread.len() >= 7, "closed within {} seconds: {per_second:?}", spread.len());
    for closes in &spread[..spread.len() - 1] {
        assert!((even / 2..=even * 2).contains(closes), "{per_second:?}");
    }
    assert_eq!(shard.stats().connections, 0);
}
