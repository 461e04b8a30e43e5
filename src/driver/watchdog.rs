//! Ends the process when one of its shards has stopped turning (R-PROC-3): its clients would see a server that accepts
//! and never answers, and nothing else would notice.
//!
//! Every shard counts its turns ([`Beat`]). The watchdog checks the counts at intervals and wakes a shard that has made
//! no turn since the last check, so that a healthy shard turns, however idle it is. The time that counts against a
//! shard is time in which it could have turned and did not:
//!
//! | state of its thread | counts |
//! | --- | --- |
//! | waits in the kernel | the time |
//! | runs, or is about to | the processor time that it got |
//! | is stopped, or traced by a debugger | nothing |
//!
//! Nothing counts while the watchdog itself was not scheduled in time: then the whole process was stopped (SIGSTOP, a
//! debugger, a frozen control group) or short of processor time, and so were its shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::failure;
use super::mailbox::Mailbox;
use super::process::{MS_PER_TICK, processor_ticks};
use crate::shard::Mail;

/// The watchdog checks this many times within its limit.
const LOOKS_PER_LIMIT: u32 = 12;

/// Turns of one shard, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Beat {
    turns: AtomicU64,
    /// The shard's thread, while its loop runs; else 0.
    thread: AtomicI32,
}

impl Beat {
    /// Registers the calling thread as the one that runs the loop of this shard.
    pub(super) fn begin(&self) {
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    }

    /// Counts a turn. Only one thread calls it, so it needs no atomic addition.
    pub(super) fn turn(&self) {
        self.turns.store(self.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The loop has ended.
    pub(super) fn end(&self) {
        self.thread.store(0, Ordering::Release);
    }
}

/// Starts the watchdog over the shards of these mailboxes. It ends the process when one of them has not turned for
/// `limit`; the watchdog itself never ends.
///
/// # Errors
/// The thread cannot be started.
pub fn start(beats: Arc<[Beat]>, mailboxes: Arc<[Mailbox<Mail>]>, limit: Duration) -> io::Result<()> {
    let run = move || watch(&beats, &mailboxes, limit);
    thread::Builder::new().name("watchdog".into()).spawn(run).map(drop)
}

fn watch(beats: &[Beat], mailboxes: &[Mailbox<Mail>], limit: Duration) {
    let interval = limit / LOOKS_PER_LIMIT;
    let mut watched: Vec<Watched> = beats.iter().map(|_| Watched::default()).collect();
    let mut looked = Instant::now();
    loop {
        thread::sleep(interval);
        let now = Instant::now();
        let passed = now.duration_since(looked);
        looked = now;
        for (shard, ((watched, beat), mailbox)) in watched.iter_mut().zip(beats).zip(mailboxes).enumerate() {
            let thread = beat.thread.load(Ordering::Acquire);
            let turns = beat.turns.load(Ordering::Relaxed);
            if thread == 0 || watched.turns != turns {
                *watched = Watched { turns, ..Watched::default() };
                continue;
            }
            if let Some(activity) = read_activity(thread) {
                watched.note(activity, passed, interval);
            }
            if watched.stuck >= limit {
                failure::end_process(&format!(
                    "shard {shard} has made no progress for {} s and does not answer its clients (its thread {}); this is a \
                     bug in Relay, or a debugger stopped it: the process ends (see `watchdog` in the configuration)",
                    limit.as_secs(),
                    watched.state.map_or("is gone", State::label),
                ));
            }
            mailbox.wake();
        }
    }
}

/// The watchdog's state for one shard.
#[derive(Debug, Default)]
struct Watched {
    turns: u64,
    /// Time that counts against it since its last turn.
    stuck: Duration,
    state: Option<State>,
    /// Its processor time at the last check, once it was checked.
    processor_ms: Option<u64>,
}

/// The current state of a thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Waits,
    Runs,
    Stopped,
}

impl State {
    fn label(self) -> &'static str {
        match self {
            Self::Waits => "waits in the kernel",
            Self::Runs => "runs without a pause",
            Self::Stopped => "is stopped",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Activity {
    state: State,
    processor_ms: u64,
}

impl Watched {
    /// Records a check of a shard that has not turned since the last check, which was `passed` ago and should have been
    /// `interval` ago.
    fn note(&mut self, activity: Activity, passed: Duration, interval: Duration) {
        let before_ms = self.processor_ms.replace(activity.processor_ms);
        self.state = Some(activity.state);
        // The first check starts the count: it is not known when the turn happened within the last interval.
        let Some(before_ms) = before_ms else {
            return;
        };
        if passed > interval * 2 {
            return;
        }
        self.stuck += match activity.state {
            State::Waits => passed,
            State::Runs => passed.min(Duration::from_millis(activity.processor_ms.saturating_sub(before_ms))),
            State::Stopped => Duration::ZERO,
        };
    }
}

/// `None` when the thread has just ended.
fn read_activity(thread: i32) -> Option<Activity> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    Some(Activity { state: state(&stat)?, processor_ms: processor_ticks(&stat) * MS_PER_TICK })
}

/// The letter after the name of the thread, which may contain anything.
fn state(stat: &str) -> Option<State> {
    match stat.rsplit_once(')')?.1.trim_start().chars().next()? {
        'R' => Some(State::Runs),
        'T' | 't' => Some(State::Stopped),
        // S and D, and those that only some kernels have.
        _ => Some(State::Waits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Checks once a second and returns the time that counted in the end. A check: state, total processor ms, seconds
    /// since the previous check.
    fn stuck(looks: &[(State, u64, u64)]) -> Duration {
        let mut watched = Watched::default();
        for (state, processor_ms, passed_s) in looks {
            watched.note(Activity { state: *state, processor_ms: *processor_ms }, SECOND * *passed_s as u32, SECOND);
        }
        watched.stuck
    }

    /// R-PROC-3: a waiting thread is charged with the elapsed time, a running thread with the processor time that it
    /// got.
    #[test]
    fn waiting_and_running_count() {
        use State::{Runs, Waits};
        assert_eq!(stuck(&[(Waits, 5, 1)]), Duration::ZERO, "the first look");
        assert_eq!(stuck(&[(Waits, 5, 1), (Waits, 5, 1), (Waits, 5, 1)]), 2 * SECOND);
        assert_eq!(stuck(&[(Runs, 100, 1), (Runs, 1_100, 1), (Runs, 2_100, 1)]), 2 * SECOND);
        assert_eq!(stuck(&[(Runs, 100, 1), (Runs, 110, 1), (Runs, 120, 1)]), SECOND / 50, "starved");
    }

    /// R-PROC-3: nothing counts while a debugger stops the thread, or while the watchdog itself did not run in time.
    #[test]
    fn pauses_do_not_count() {
        use State::{Runs, Stopped, Waits};
        assert_eq!(stuck(&[(Stopped, 5, 1), (Stopped, 5, 1), (Stopped, 5, 1)]), Duration::ZERO);
        assert_eq!(stuck(&[(Waits, 5, 1), (Waits, 5, 3_600), (Runs, 5, 20)]), Duration::ZERO);
    }

    /// The state follows the name, which may contain parentheses.
    #[test]
    fn states_are_read() {
        assert_eq!(state("17 (shard-0) S 1 17"), Some(State::Waits));
        assert_eq!(state("17 (a) R (b)) t 1 17"), Some(State::Stopped));
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        assert_eq!(read_activity(own).map(|activity| activity.state), Some(State::Runs));
    }
}
