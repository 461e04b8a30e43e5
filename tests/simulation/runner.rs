//! Runs seeds on all cores, prints one that fails, and shows that the checks can fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::coverage::{Coverage, Happening};
use crate::fault::{Fault, FaultKind};
use crate::random::Random;
use crate::scheduler::run;
use crate::trace::Trace;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 2_000;

/// Happenings that must occur somewhere in an ordinary test run.
const EXPECTED: [Happening; 61] = [
    Happening::Joined,
    Happening::ChannelFull,
    Happening::Delivered,
    Happening::ResumedDelivery,
    Happening::HistoryGap,
    Happening::BadPosition,
    Happening::StreamOpened,
    Happening::StreamResumed,
    Happening::StreamGap,
    Happening::StreamDelivered,
    Happening::StreamComment,
    Happening::PolledEvents,
    Happening::PollGap,
    Happening::PollTimeout,
    Happening::ReaderCut,
    Happening::Replayed,
    Happening::ReplayMissed,
    Happening::ClientEventPassed,
    Happening::ClientEventRefused,
    Happening::SignedIn,
    Happening::WatchedChange,
    Happening::UserEnded,
    Happening::NotAuthorized,
    Happening::AuthorizedKept,
    Happening::OlderKept,
    Happening::UnauthorizedReleased,
    Happening::AuthorizedOverQuota,
    Happening::SlowClosed,
    Happening::GapClosed,
    Happening::Reset,
    Happening::Paused,
    Happening::ReadWhilePaused,
    Happening::ShutWrite,
    Happening::ShortSend,
    Happening::Mail,
    Happening::WebhookTold,
    Happening::VacatedTold,
    Happening::MemberRemovedTold,
    Happening::CountTold,
    Happening::Drained,
    Happening::Late,
    Happening::Closed(1000),
    Happening::Closed(1002),
    Happening::Closed(1003),
    Happening::Closed(1007),
    Happening::Closed(1009),
    Happening::Closed(4001),
    Happening::Closed(4003),
    Happening::Closed(4004),
    Happening::Closed(4009),
    Happening::Closed(4100),
    Happening::Closed(4200),
    Happening::Answered(200),
    Happening::Answered(400),
    Happening::Answered(401),
    Happening::Answered(403),
    Happening::Answered(404),
    Happening::Answered(408),
    Happening::Answered(413),
    Happening::Answered(429),
    Happening::Answered(503),
];

/// A number in the environment.
fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// The message of a panic.
fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// Goal: every seed agrees with the model, and nothing is left at the end. Method: as many threads as cores take seeds
/// from one counter; the first failures stop them and are reported with the command that repeats them.
#[test]
fn every_seed_holds() {
    if let Some(seed) = variable("RELAY_SIM_SEED") {
        run(Random::new(seed), Fault::none(), Trace::new(variable("RELAY_SIM_TRACE").is_some()));
        return;
    }
    let first = variable("RELAY_SIM_FIRST").unwrap_or(0);
    let end = first + variable("RELAY_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    let coverage = Mutex::new(Coverage::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match catch_unwind(|| run(Random::new(seed), Fault::none(), Trace::new(false))) {
                        Ok((_, seen)) => coverage.lock().expect("no thread panics here").add(&seen),
                        Err(panic) => {
                            eprintln!("seed {seed} failed: {}", message_of(&*panic));
                            stop.store(variable("RELAY_SIM_ALL").is_none(), Ordering::Relaxed);
                            failures.lock().expect("no thread panics here").push((seed, message_of(&*panic)));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panics here");
    for (seed, message) in &failures {
        eprintln!(
            "seed {seed}: {message}\n  repeat: RELAY_SIM_SEED={seed} cargo test --test simulation every_seed_holds"
        );
    }
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
    let coverage = coverage.into_inner().expect("no thread panics here");
    println!("{coverage:?}");
    if end - first >= SEEDS {
        for happening in EXPECTED {
            assert!(coverage.count(happening) > 0, "{happening:?} has not happened once: the scenarios have lost it");
        }
    }
}

/// Goal: a seed repeats exactly, and so do choices made in advance, which lead to another run. Method: the digest of
/// every step and byte of two runs is the same.
#[test]
fn a_seed_repeats_exactly() {
    let chosen = |choices: &[u8]| run(Random::of_choices(choices), Fault::none(), Trace::new(false)).0;
    let choices: Vec<u8> = (0..2_000_u32).map(|index| (index * index / 7) as u8).collect();
    assert_eq!(chosen(&choices), chosen(&choices));
    assert_ne!(chosen(&choices), chosen(&choices[1..]));
    for seed in 0..8 {
        let first = run(Random::new(seed), Fault::none(), Trace::new(false));
        let second = run(Random::new(seed), Fault::none(), Trace::new(false));
        assert_eq!(first.0, second.0, "seed {seed} took two ways");
    }
}

/// How many of some seeds detect this fault of the driver.
fn caught(kind: FaultKind, seeds: u64) -> usize {
    (0..seeds)
        .filter(|seed| {
            catch_unwind(AssertUnwindSafe(|| {
                run(Random::new(*seed), Fault::new(kind, (*seed % 9) as usize), Trace::new(false))
            }))
            .is_err()
        })
        .count()
}

/// Goal: the checks can fail. Method: drivers that violate their contract, each in one place, are detected in many
/// seeds.
#[test]
fn a_broken_driver_is_caught() {
    for (kind, at_least) in [
        (FaultKind::DropMail, 40),
        (FaultKind::SwapMail, 48),
        (FaultKind::DoubleSend, 96),
        (FaultKind::LoseBytes, 80),
        (FaultKind::ForgetClosed, 112),
    ] {
        let caught = caught(kind, 128);
        assert!(caught >= at_least, "{kind:?} was caught in {caught} of 128 seeds");
    }
}
