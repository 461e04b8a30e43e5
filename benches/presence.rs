//! Joining a presence channel, in memory: the cost of a join compared with copying the bytes of the roster, and its
//! cost to present members when many join in one turn.

#![allow(missing_docs)]

#[path = "../tests/memory/mod.rs"]
#[allow(dead_code, reason = "other benches use more of it")]
mod memory;

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memory::Memory;
use relay::channel::roster::{Joined, Left, Roster};

/// One user joins a roster of the given size, gets the frame of all members, and leaves. For comparison: copying that
/// frame.
fn roster(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("roster-join");
    for members in [1_000, 10_000, 100_000] {
        let mut roster = Roster::new(&[3; 16]);
        let info: Arc<str> = r#"{"name":"Somebody"}"#.into();
        for user in 0..members {
            assert_eq!(roster.join(&format!("user-{user}").into(), Some(&info), u32::MAX), Joined::First);
        }
        let frame = roster.succeeded("presence-bench");
        let joiner: Arc<str> = "joiner".into();
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(BenchmarkId::new("join", members), |bencher| {
            bencher.iter(|| {
                assert_eq!(roster.join(&joiner, Some(&info), u32::MAX), Joined::First);
                std::hint::black_box(roster.succeeded("presence-bench"));
                assert_eq!(roster.leave(&joiner), Left::Last);
            });
        });
        group.bench_function(BenchmarkId::new("copy-of-the-frame", members), |bencher| {
            bencher.iter(|| std::hint::black_box(frame.to_vec()));
        });
    }
    group.finish();
}

/// 64 users join a channel of the given size, in one turn and in a turn each: the time of the entire shard, without
/// sends.
fn turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("presence-64-joins");
    group.sample_size(10);
    for members in [1_000, 10_000] {
        let mut memory = Memory::presence(members, 64);
        for (name, joins_per_turn) in [("one-turn", 64), ("a-turn-each", 1)] {
            group.bench_function(BenchmarkId::new(name, members), |bencher| {
                bencher.iter(|| memory.join_and_leave(joins_per_turn));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, roster, turn);
criterion_main!(benches);
