//! The thread that turns events into deliveries on disk. Only committed deliveries are sent, so every accepted one
//! survives a restart; deliveries that exceed the bounds are dropped, counted and logged.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::batch::{Batches, Made, Which};
use super::dispatcher::Message;
use super::{Count, Shared};
use crate::app::AppSerial;
use crate::driver::clock::Clock;
use crate::limits;
use crate::moment::Moment;
use crate::protocol::webhook::WebhookEvent;
use crate::store::queue::{Change, Delivery, Queue};

/// State owned by the thread.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    clock: Clock,
    queue: Queue,
    channels: Channels,
    batches: Batches,
    usage: Usage,
    /// Changes that are not committed yet; new deliveries among them are included in the usage.
    pending: Vec<Change>,
    /// How many of them are new deliveries.
    pending_new: usize,
    next_number: u64,
    committed_ms: u64,
    /// After a failed commit: when the next one is tried.
    again_ms: Option<u64>,
    told: Told,
}

/// The recorder's inputs and outputs.
pub(super) struct Channels {
    /// Events of the shards.
    pub(super) events: Receiver<WebhookEvent>,
    /// The results of the dispatcher. Bounded by the number of existing deliveries.
    pub(super) journal: Receiver<Change>,
    pub(super) dispatcher: Sender<Message>,
}

/// The logged losses, so that a flood of them produces only an occasional line.
#[derive(Default)]
struct Told {
    dropped: u64,
    at_ms: u64,
}

/// Losses are logged at most once in this time, in ms.
const TELL_MS: u64 = 10_000;

impl Recorder {
    /// Starts with the deliveries found at start.
    pub(super) fn new(
        shared: Arc<Shared>,
        clock: Clock,
        queue: Queue,
        channels: Channels,
        (found, next_number): (&[Delivery], u64),
    ) -> Self {
        let mut usage = Usage::new(shared.options.queue_max);
        for delivery in found {
            usage.add(delivery);
        }
        Self {
            shared,
            clock,
            queue,
            channels,
            batches: Batches::default(),
            usage,
            pending: Vec::new(),
            pending_new: 0,
            next_number,
            committed_ms: 0,
            again_ms: None,
            told: Told::default(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            // Read first: events that arrived before the stop are recorded.
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            let now = self.clock.read();
            self.take_events(now);
            for made in self.batches.take(now, if stopping { Which::All } else { Which::Due }) {
                self.add(made, now);
            }
            self.take_journal();
            if self.is_commit_due(now) || stopping {
                self.commit(now);
            }
            self.tell_losses(now);
            if stopping {
                return;
            }
            self.sleep();
        }
    }

    fn take_events(&mut self, now: Moment) {
        let directory = self.shared.directory.load_full();
        for _ in 0..limits::WEBHOOK_INTAKE_EVENTS {
            let Ok(event) = self.channels.events.try_recv() else { return };
            self.shared.intake.forget(event.app, event.bytes());
            let Some(app) = directory.app(event.app) else { continue };
            for made in self.batches.add(app, &event, now) {
                self.add(made, now);
            }
        }
    }

    /// Turns a complete request into a delivery, if there is space.
    fn add(&mut self, made: Made, now: Moment) {
        let delivery = Delivery {
            number: self.next_number,
            app: made.app,
            endpoint: made.endpoint,
            queue: made.queue,
            created_ms: now.unix_ms,
            attempts: 0,
            next_at_ms: 0,
            body_bytes: u32::try_from(made.body.len()).expect("events are smaller than 4 GiB"),
        };
        if !self.usage.has_room(&delivery) {
            self.shared.counts.add(Count::Dropped, made.events as u64);
            return;
        }
        self.next_number += 1;
        self.usage.add(&delivery);
        self.pending.push(Change::Add(delivery, made.body));
        self.pending_new += 1;
    }

    fn take_journal(&mut self) {
        while let Ok(change) = self.channels.journal.try_recv() {
            if let Change::Done(delivery) | Change::Failed(delivery, _) = &change {
                self.usage.remove(delivery);
            }
            self.pending.push(change);
        }
        self.shared.counts.set_waiting(self.usage.deliveries);
    }

    /// New deliveries are committed at once, all that have arrived together; other changes wait briefly to be committed
    /// together.
    fn is_commit_due(&self, now: Moment) -> bool {
        self.commit_due_ms().is_some_and(|due_ms| due_ms <= now.monotonic_ms)
    }

    fn commit_due_ms(&self) -> Option<u64> {
        if self.pending.is_empty() {
            return None;
        }
        let rest_ms = if self.pending_new > 0 { 0 } else { limits::WEBHOOK_COMMIT_MS };
        Some(self.again_ms.unwrap_or(self.committed_ms + rest_ms))
    }

    fn commit(&mut self, now: Moment) {
        if self.pending.is_empty() {
            return;
        }
        if let Err(error) = self.queue.commit(&self.pending) {
            if self.again_ms.is_none() {
                tracing::error!(%error, "the queue of webhooks cannot be written; new events wait in memory within the limits");
            }
            self.again_ms = Some(now.monotonic_ms + limits::WEBHOOK_COMMIT_AGAIN_MS);
            return;
        }
        if self.again_ms.take().is_some() {
            tracing::info!("the queue of webhooks can be written again");
        }
        self.committed_ms = self.clock.read().monotonic_ms;
        self.pending_new = 0;
        let added = self.pending.drain(..).filter_map(|change| match change {
            Change::Add(delivery, _) => Some(delivery),
            Change::Again { .. } | Change::Done(_) | Change::Failed(..) => None,
        });
        let added: Vec<Delivery> = added.collect();
        if !added.is_empty() {
            // If the dispatcher has ended, the next start resumes them.
            let _ = self.channels.dispatcher.send(Message::Recorded(added));
        }
    }

    fn tell_losses(&mut self, now: Moment) {
        let dropped = self.shared.counts.get(Count::Dropped);
        if dropped > self.told.dropped && (self.told.at_ms == 0 || now.monotonic_ms - self.told.at_ms >= TELL_MS) {
            let more = dropped - self.told.dropped;
            tracing::warn!(dropped = more, total = dropped, "webhook events were dropped: the queue is full");
            self.told = Told { dropped, at_ms: now.monotonic_ms };
        }
    }

    /// Sleeps until there is something to do; every producer unparks the thread.
    fn sleep(&self) {
        let due_ms = [self.batches.due_ms(), self.commit_due_ms()].into_iter().flatten().min();
        match due_ms {
            None => std::thread::park(),
            Some(due_ms) => {
                let now_ms = self.clock.read().monotonic_ms;
                std::thread::park_timeout(Duration::from_millis(due_ms.saturating_sub(now_ms)));
            }
        }
    }
}

/// The waiting deliveries, compared with the bounds.
struct Usage {
    deliveries_per_app_max: u32,
    apps: HashMap<AppSerial, Waiting>,
    deliveries: u32,
    bytes: u64,
}

#[derive(Clone, Copy, Default)]
struct Waiting {
    deliveries: u32,
    bytes: u64,
}

impl Usage {
    fn new(deliveries_per_app_max: u32) -> Self {
        Self { deliveries_per_app_max, apps: HashMap::new(), deliveries: 0, bytes: 0 }
    }

    /// An app may use a multiple of the free space, but no more than its own bound. An eighth of the queue is reserved
    /// for apps that have little in it: however many others fill it, they still have space (P-STAT-9).
    fn has_room(&self, delivery: &Delivery) -> bool {
        let app = self.apps.get(&delivery.app).copied().unwrap_or_default();
        let (deliveries, bytes) = (self.deliveries + 1, self.bytes + cost(delivery));
        let (own_deliveries, own_bytes) = (app.deliveries + 1, app.bytes + cost(delivery));
        let is_little = own_deliveries <= LITTLE_DELIVERIES && own_bytes <= LITTLE_BYTES;
        let shared = (
            (limits::WEBHOOK_DELIVERIES_MAX / 8 * 7).saturating_sub(deliveries),
            (limits::WEBHOOK_BYTES_MAX / 8 * 7).saturating_sub(bytes),
        );
        own_deliveries <= self.deliveries_per_app_max
            && own_bytes <= limits::WEBHOOK_BYTES_PER_APP_MAX
            && deliveries <= limits::WEBHOOK_DELIVERIES_MAX
            && bytes <= limits::WEBHOOK_BYTES_MAX
            && (is_little || own_deliveries.div_ceil(SHARE) <= shared.0 && own_bytes.div_ceil(SHARE.into()) <= shared.1)
    }

    fn add(&mut self, delivery: &Delivery) {
        let app = self.apps.entry(delivery.app).or_default();
        app.deliveries += 1;
        app.bytes += cost(delivery);
        self.deliveries += 1;
        self.bytes += cost(delivery);
    }

    fn remove(&mut self, delivery: &Delivery) {
        let app = self.apps.get_mut(&delivery.app).expect("what ends was added");
        app.deliveries -= 1;
        app.bytes -= cost(delivery);
        if app.deliveries == 0 {
            self.apps.remove(&delivery.app);
        }
        self.deliveries -= 1;
        self.bytes -= cost(delivery);
    }
}

const SHARE: u32 = limits::APP_SHARE_OF_FREE as u32;
/// Up to this number an app has little in the queue: a thousandth.
const LITTLE_DELIVERIES: u32 = limits::WEBHOOK_DELIVERIES_MAX / 1_000;
const LITTLE_BYTES: u64 = limits::WEBHOOK_BYTES_MAX / 1_000;

fn cost(delivery: &Delivery) -> u64 {
    u64::from(delivery.body_bytes) + limits::WEBHOOK_DELIVERY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(app: u32, body_bytes: u32) -> Delivery {
        Delivery {
            number: 1,
            app: AppSerial(app),
            endpoint: "wh_1".into(),
            queue: 1,
            created_ms: 1,
            attempts: 0,
            next_at_ms: 0,
            body_bytes,
        }
    }

    /// P-HOOK-6: waiting deliveries are bounded per app in number and in bytes, and for all apps together; completed
    /// ones free space.
    #[test]
    fn the_bounds_of_the_queue() {
        let mut usage = Usage::new(2);
        assert!(usage.has_room(&delivery(1, 10)));
        usage.add(&delivery(1, 10));
        usage.add(&delivery(1, 10));
        assert!(!usage.has_room(&delivery(1, 10)) && usage.has_room(&delivery(2, 10)));
        usage.remove(&delivery(1, 10));
        assert!(usage.has_room(&delivery(1, 10)));
        usage.remove(&delivery(1, 10));
        assert!(usage.apps.is_empty());
        assert_eq!((usage.deliveries, usage.bytes), (0, 0));

        let mut usage = Usage::new(u32::MAX);
        let mib = delivery(1, (1 << 20) - limits::WEBHOOK_DELIVERY_BYTES as u32);
        for _ in 0..limits::WEBHOOK_BYTES_PER_APP_MAX >> 20 {
            assert!(usage.has_room(&mib));
            usage.add(&mib);
        }
        assert!(!usage.has_room(&delivery(1, 0)) && usage.has_room(&delivery(2, 0)));
        for app in 2..=limits::WEBHOOK_BYTES_MAX / limits::WEBHOOK_BYTES_PER_APP_MAX {
            let mib = Delivery { app: AppSerial(app as u32), ..mib.clone() };
            (0..limits::WEBHOOK_BYTES_PER_APP_MAX >> 20).for_each(|_| usage.add(&mib));
        }
        assert!(!usage.has_room(&delivery(99, 0)), "all of them together");

        let mut usage = Usage::new(limits::WEBHOOK_DELIVERIES_PER_APP_MAX);
        let fill = |usage: &mut Usage, app| {
            (0..)
                .take_while(|_| {
                    let has_room = usage.has_room(&delivery(app, 0));
                    if has_room {
                        usage.add(&delivery(app, 0));
                    }
                    has_room
                })
                .count() as u32
        };
        assert_eq!(fill(&mut usage, 1), limits::WEBHOOK_DELIVERIES_PER_APP_MAX, "an app alone has its own bound");
        for app in 2..20 {
            fill(&mut usage, app);
        }
        assert!(fill(&mut usage, 20) > 0, "some is free for one more, however many fill the queue");

        let mut usage = Usage::new(u32::MAX);
        (0..limits::WEBHOOK_DELIVERIES_MAX).for_each(|number| usage.add(&delivery(number, 0)));
        assert!(!usage.has_room(&delivery(u32::MAX, 0)));
    }
}
