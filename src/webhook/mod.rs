//! Outgoing webhooks: from the shards to disk, and from there to the endpoints (section 9 of the Pusher protocol,
//! section 6 of Relay's).
//!
//! ```text
//! shards --> intake --> recorder --> LMDB --> dispatcher --> workers --> endpoints
//!           (bounded)    ^  commits                |
//!                        +------ done, failed -----+
//! ```
//!
//! A shard puts its events in a bounded queue and never waits. The [recorder] builds bodies from them and commits them,
//! many at a time; the [dispatcher] sends committed deliveries. So a delivery is made at least once, also across a
//! restart, and the order of a channel is kept.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::app::{AppSerial, Directory};
use crate::driver::clock::Clock;
use crate::limits;
use crate::metrics::figures::WebhookFigures;
use crate::outgoing::client::{Client, TrustedRoots};
use crate::protocol::webhook::WebhookEvent;
use crate::store::StoreError;
use crate::store::queue::Queue;
use dispatcher::{Dispatcher, Message};
use recorder::{Channels, Recorder};

mod batch;
mod dispatcher;
mod recorder;
pub mod request;
mod schedule;

/// The settings of the operator.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Endpoints that receive requests at the same time, at least 1.
    pub threads: u16,
    /// Deliveries of one app that may wait.
    pub queue_max: u32,
    /// Delay after the first failure, in ms; the further ones are multiples of it (P-HOOK-7, R-HOOK-4).
    pub retry_ms: u64,
    /// Networks that every endpoint may be in, also over http (threat T19).
    pub allowed: Vec<IpNet>,
    /// Which certificates are trusted.
    pub roots: TrustedRoots,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            threads: limits::WEBHOOK_THREADS,
            queue_max: limits::WEBHOOK_DELIVERIES_PER_APP_MAX,
            retry_ms: limits::WEBHOOK_RETRY_MS,
            allowed: Vec::new(),
            roots: TrustedRoots::default(),
        }
    }
}

/// The running threads. Dropping it records the deliveries in flight and ends the threads.
pub struct Webhooks {
    handle: WebhookHandle,
    recorder: Option<JoinHandle<()>>,
    dispatcher: Option<JoinHandle<()>>,
}

/// Access to the threads for shards and the store writer. Clones share it.
#[derive(Clone)]
pub struct WebhookHandle {
    shared: Arc<Shared>,
    dispatcher: Sender<Message>,
}

/// State shared by the threads.
struct Shared {
    options: WebhookOptions,
    intake: Intake,
    directory: ArcSwap<Directory>,
    counts: Counts,
    stopping: AtomicBool,
    recorder: OnceLock<Thread>,
}

impl Webhooks {
    /// Resumes the deliveries in the queue and starts the threads.
    ///
    /// # Errors
    /// A queue that cannot be read, or a thread that cannot be started.
    pub fn start(
        queue: Queue,
        directory: Arc<Directory>,
        clock: Clock,
        options: WebhookOptions,
    ) -> Result<Self, WebhookError> {
        let found = queue.deliveries()?;
        let next_number = queue.next_number()?;
        if !found.is_empty() {
            tracing::info!(deliveries = found.len(), "sending webhooks that were pending at the last shutdown");
        }
        let client = Client::new(&options.allowed, &options.roots, request::KEPT);
        let (intake, events) = Intake::new();
        let shared = Arc::new(Shared {
            options,
            intake,
            directory: ArcSwap::new(directory),
            counts: Counts::default(),
            stopping: AtomicBool::new(false),
            recorder: OnceLock::new(),
        });
        let ((outbox, inbox), (journal, changes)) = (channel(), channel());
        let handle = WebhookHandle { shared: Arc::clone(&shared), dispatcher: outbox.clone() };
        let channels = Channels { events, journal: changes, dispatcher: outbox.clone() };
        let recorder = Recorder::new(Arc::clone(&shared), clock, queue.clone(), channels, (&found, next_number));
        let recorder = thread::Builder::new().name("webhook-record".into()).spawn(move || recorder.run())?;
        shared.recorder.set(recorder.thread().clone()).expect("it is set once");
        let mut webhooks = Self { handle, recorder: Some(recorder), dispatcher: None };
        let spawn = move || Dispatcher::new(shared, clock, queue, client, (outbox, inbox), journal, found).run();
        webhooks.dispatcher = Some(thread::Builder::new().name("webhook-send".into()).spawn(spawn)?);
        Ok(webhooks)
    }

    /// For shards and the store writer.
    pub fn handle(&self) -> WebhookHandle {
        self.handle.clone()
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        // The dispatcher first: the recorder writes its last results.
        let _ = self.handle.dispatcher.send(Message::Stop);
        join(self.dispatcher.take());
        self.handle.shared.stopping.store(true, Ordering::Release);
        self.handle.shared.wake_recorder();
        join(self.recorder.take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread of the webhooks ended by a panic");
    }
}

impl WebhookHandle {
    /// Accepts an event of a shard. Never blocks; an event that finds no space is dropped and counted.
    pub fn accept(&self, event: WebhookEvent) {
        if !self.shared.intake.push(event) {
            self.shared.counts.add(Count::Dropped, 1);
        }
        self.shared.wake_recorder();
    }

    /// Applies a new directory: endpoints that were removed or turned off are sent nothing more.
    pub fn handle_directory(&self, directory: Arc<Directory>) {
        self.shared.directory.store(directory);
        let _ = self.dispatcher.send(Message::Directory);
    }

    /// Current metrics.
    pub fn figures(&self) -> WebhookFigures {
        let count = |count| self.shared.counts.get(count);
        WebhookFigures {
            waiting: self.shared.counts.waiting.load(Ordering::Relaxed),
            delivered: count(Count::Delivered),
            refused: count(Count::Refused),
            given_up: count(Count::GivenUp),
            dropped: count(Count::Dropped),
        }
    }
}

impl Shared {
    /// Costs a system call only if the recorder sleeps.
    fn wake_recorder(&self) {
        if let Some(thread) = self.recorder.get() {
            thread.unpark();
        }
    }
}

/// The queue between the shards and the recorder: bounded in events and in bytes, and no larger than its contents. Apps
/// share it as they share a shard's memory (P-STAT-9): an app may use a multiple of the free space.
struct Intake {
    events: Sender<WebhookEvent>,
    all: Waiting,
    /// By serial modulo [`INTAKE_PARTS`]: apps of one part share like one app. No lock, since shards must not wait.
    parts: Box<[Waiting]>,
}

/// Events that wait to be recorded.
#[derive(Default)]
struct Waiting {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Adds an event; returns the amount that waits now.
    fn add(&self, bytes: usize) -> (usize, usize) {
        (self.events.fetch_add(1, Ordering::Relaxed) + 1, self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes)
    }

    fn remove(&self, bytes: usize) {
        self.events.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

const INTAKE_PARTS: usize = 1_024;

impl Intake {
    fn new() -> (Self, Receiver<WebhookEvent>) {
        let (events, inbox) = channel();
        let parts = (0..INTAKE_PARTS).map(|_| Waiting::default()).collect();
        (Self { events, all: Waiting::default(), parts }, inbox)
    }

    /// Returns false when there is no space for the app.
    fn push(&self, event: WebhookEvent) -> bool {
        let (app, bytes) = (event.app, event.bytes());
        let (all_events, all_bytes) = self.all.add(bytes);
        let (own_events, own_bytes) = self.part(app).add(bytes);
        let fits = |own: usize, all: usize, max: usize| {
            all <= max && own <= (max - all).saturating_mul(limits::APP_SHARE_OF_FREE)
        };
        let has_room = fits(own_events, all_events, limits::WEBHOOK_INTAKE_EVENTS)
            && fits(own_bytes, all_bytes, limits::WEBHOOK_INTAKE_BYTES);
        if !has_room || self.events.send(event).is_err() {
            self.forget(app, bytes);
            return false;
        }
        true
    }

    /// Subtracts an event that was taken out.
    fn forget(&self, app: AppSerial, bytes: usize) {
        self.all.remove(bytes);
        self.part(app).remove(bytes);
    }

    fn part(&self, app: AppSerial) -> &Waiting {
        &self.parts[app.0 as usize % INTAKE_PARTS]
    }
}

/// The metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Count {
    Delivered,
    Refused,
    GivenUp,
    Dropped,
}

#[derive(Default)]
struct Counts {
    counts: [AtomicU64; 4],
    waiting: AtomicU64,
}

impl Counts {
    fn add(&self, count: Count, more: u64) {
        self.counts[count as usize].fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self, count: Count) -> u64 {
        self.counts[count as usize].load(Ordering::Relaxed)
    }

    fn set_waiting(&self, waiting: u32) {
        self.waiting.store(u64::from(waiting), Ordering::Relaxed);
    }
}

/// Why webhooks could not start.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The queue cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread could not be started.
    #[error("cannot start a thread for webhooks: {0}")]
    Thread(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    mod receiver;
    mod simulation;

    use super::*;
    use crate::protocol::webhook::Happened;

    fn event(app: u32, channel_bytes: usize) -> WebhookEvent {
        let channel = "x".repeat(channel_bytes).into();
        WebhookEvent { app: AppSerial(app), channel, unix_ms: 1, what: Happened::ChannelVacated }
    }

    /// P-HOOK-6, P-STAT-9: the queue from the shards is bounded in events and in bytes, three quarters of it for one
    /// app; another app still has space then, and taking events out frees space.
    #[test]
    fn the_intake_is_bounded_and_shared() {
        let (intake, inbox) = Intake::new();
        let own = (0..).take_while(|_| intake.push(event(1, 1))).count();
        assert_eq!(own, limits::WEBHOOK_INTAKE_EVENTS / 4 * 3);
        let other = (0..).take_while(|_| intake.push(event(2, 1))).count();
        assert!(other >= limits::WEBHOOK_INTAKE_EVENTS / 8, "{other}");
        assert!(intake.push(event(3, 1)) && !intake.push(event(1, 1)));
        let taken = inbox.try_iter().inspect(|event| intake.forget(event.app, event.bytes())).count();
        assert_eq!(taken, own + other + 1);
        assert!(intake.push(event(1, 1)));

        let (intake, inbox) = Intake::new();
        let third = limits::WEBHOOK_INTAKE_BYTES / 3 - event(1, 0).bytes();
        assert!(intake.push(event(1, third)) && intake.push(event(1, third)) && !intake.push(event(1, third)));
        assert!(intake.push(event(2, 1)));
        assert_eq!(inbox.try_iter().inspect(|event| intake.forget(event.app, event.bytes())).count(), 3);
        let left = [&intake.all.events, &intake.all.bytes].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(left, [0, 0]);
    }
}
