//! Publishing to simulated subscribers in memory: authentication, decoding, encoding, fan-out and flush, without sockets.

#![allow(missing_docs)]

#[path = "../tests/memory/mod.rs"]
#[allow(dead_code, reason = "other benches use more of it")]
mod memory;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memory::Memory;

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for subscribers in [1, 1_000, 100_000] {
        let mut memory = Memory::new(subscribers, 128);
        group.throughput(Throughput::Elements(u64::from(subscribers)));
        group.bench_function(BenchmarkId::new("subscribers", subscribers), |bencher| {
            bencher.iter(|| assert_eq!(memory.publish().sends, subscribers as usize + 1));
        });
    }
    group.finish();
}

/// A signed publish without a history, and with a full one, to nobody and to one subscriber.
fn history(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history");
    for subscribers in [0, 1] {
        for events in [0, 100] {
            let mut memory = Memory::with_history(subscribers, 128, events);
            group.bench_function(BenchmarkId::new(format!("{events}-events"), subscribers), |bencher| {
                bencher.iter(|| assert_eq!(memory.publish().sends, subscribers as usize + 1));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, publish, history);
criterion_main!(benches);
