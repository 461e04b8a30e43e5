//! Decides which delivery is made when: pure, with time as an argument.
//!
//! Deliveries are in **queues**, one per channel and endpoint (one per endpoint for batches). A queue is processed in
//! order, so the order of a channel is kept (P-HOOK-6); a failed delivery is delayed, and its queue with it, while the
//! others continue. An endpoint has at most one request in flight.
//!
//! Apps take turns, and so do the endpoints of an app (see [`mod@line`]). An endpoint whose last request was slow is in
//! a separate class, which never has more than half of the threads; one that was never sent anything is in another,
//! since it may turn out to be slow. However many of an app's endpoints hang, they delay no other app (P-HOOK-10).
//!
//! ```text
//!          add            take              finish: delivered, given up
//! queue  --------> ready --------> under way ----------------------------> next of the queue, or gone
//!                   ^                 | finish: failed
//!                   +---- resting <---+
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use crate::app::AppSerial;
use crate::app::webhook::WebhookFormat;
use crate::limits;
use crate::moment::Moment;
use crate::store::queue::Delivery;
use line::{Lines, Pace};

mod line;

/// All deliveries that wait or are in flight.
pub(super) struct Schedule {
    endpoints: HashMap<Arc<str>, Endpoint>,
    /// Endpoints with something to send and nothing in flight.
    lines: Lines,
    /// Queues in their delay, by its end in ms of the monotonic clock.
    resting: BinaryHeap<Reverse<(u64, Arc<str>, u64)>>,
    /// Delay after the first failure, in ms.
    retry_ms: u64,
}

struct Endpoint {
    app: AppSerial,
    queues: HashMap<u64, ChannelQueue>,
    /// Queues whose first delivery may be made.
    ready: VecDeque<u64>,
    stands: Stands,
    pace: Pace,
}

#[derive(Default)]
struct ChannelQueue {
    deliveries: VecDeque<Waiting>,
    rests_until_ms: Option<u64>,
}

struct Waiting {
    delivery: Delivery,
    /// After this time it is no longer sent, in ms of the monotonic clock.
    expires_ms: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stands {
    /// Nothing to send.
    Idle,
    /// In the line of its pace.
    InLine,
    /// A request is in flight.
    UnderWay,
}

/// A delivery to make now.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pace: Pace,
}

/// The next action.
#[derive(Debug)]
pub(super) enum Next {
    /// Make it, then [`Schedule::finish`].
    Send(Job),
    /// It expired before its turn.
    Expired(Delivery),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// 2xx, or the delivery is no longer wanted.
    Done,
    /// Anything else.
    Failed,
}

/// The outcome for a delivery after a request.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It is complete.
    Done(Delivery),
    /// It failed and is retried at `next_at_ms`, which it contains.
    Again(Delivery),
    /// It failed for the last time.
    GivenUp(Delivery),
    /// Its endpoint was removed meanwhile.
    Gone,
}

impl Schedule {
    /// Creates an empty schedule for this many threads.
    pub(super) fn new(threads: usize, retry_ms: u64) -> Self {
        Self { endpoints: HashMap::new(), lines: Lines::new(threads), resting: BinaryHeap::new(), retry_ms }
    }

    /// Adds a delivery behind those of its queue. One that was never tried and comes from an earlier run of the process
    /// (`taken_up`) gets its full time.
    pub(super) fn add(&mut self, delivery: Delivery, format: WebhookFormat, now: Moment, taken_up: TakenUp) {
        let window_ms = window_ms(format);
        let age_ms = match taken_up {
            TakenUp::FromDisk if delivery.attempts == 0 => 0,
            TakenUp::FromDisk | TakenUp::New => now.unix_ms.saturating_sub(delivery.created_ms),
        };
        let expires_ms = now.monotonic_ms + window_ms.saturating_sub(age_ms);
        let (id, queue_id) = (delivery.endpoint.clone(), delivery.queue);
        let rest_ms = delivery.next_at_ms.saturating_sub(now.unix_ms).min(window_ms);
        let endpoint = self.endpoints.entry(id.clone()).or_insert_with(|| Endpoint::new(delivery.app));
        let queue = endpoint.queues.entry(queue_id).or_default();
        queue.deliveries.push_back(Waiting { delivery, expires_ms });
        if queue.deliveries.len() > 1 {
            return;
        }
        if rest_ms > 0 {
            let until_ms = now.monotonic_ms + rest_ms;
            queue.rests_until_ms = Some(until_ms);
            self.resting.push(Reverse((until_ms, id, queue_id)));
        } else {
            endpoint.ready.push_back(queue_id);
            self.line_up(&id);
        }
    }

    /// Takes the next action; `None` when there is none now.
    pub(super) fn take(&mut self, now: Moment) -> Option<Next> {
        self.end_rests(now);
        let id = self.lines.pop()?;
        let endpoint = self.endpoints.get_mut(&id).expect("every endpoint in line is known");
        let queue_id = endpoint.ready.pop_front().expect("every endpoint in line has a ready queue");
        let queue = endpoint.queues.get_mut(&queue_id).expect("a ready queue is known");
        let first = queue.deliveries.front().expect("a ready queue has a delivery");
        if first.expires_ms <= now.monotonic_ms {
            let expired = queue.deliveries.pop_front().expect("it has one").delivery;
            endpoint.stands = Stands::Idle;
            endpoint.go_on(queue_id);
            self.line_up(&id);
            return Some(Next::Expired(expired));
        }
        let (delivery, pace) = (first.delivery.clone(), endpoint.pace);
        endpoint.stands = Stands::UnderWay;
        self.lines.begin(delivery.app, pace);
        Some(Next::Send(Job { delivery, pace }))
    }

    /// Ends a request that took `took_ms`.
    pub(super) fn finish(&mut self, job: &Job, ended: Ended, took_ms: u64, format: WebhookFormat, now: Moment) -> Fate {
        self.lines.end(job.delivery.app, job.pace);
        let (id, queue_id) = (&job.delivery.endpoint, job.delivery.queue);
        let Some(endpoint) = self.endpoints.get_mut(id).filter(|endpoint| endpoint.makes(job)) else {
            return Fate::Gone;
        };
        endpoint.stands = Stands::Idle;
        endpoint.pace = if took_ms >= limits::WEBHOOK_SLOW_MS { Pace::Slow } else { Pace::Quick };
        let queue = endpoint.queues.get_mut(&queue_id).expect("a queue stays while its first delivery is in flight");
        let first = queue.deliveries.front_mut().expect("the delivery in flight is the first");
        let rest_ms = match ended {
            Ended::Done => None,
            Ended::Failed => {
                first.delivery.attempts = first.delivery.attempts.saturating_add(1);
                let rest_ms = rest_ms(format, first.delivery.attempts, self.retry_ms);
                rest_ms.filter(|rest_ms| now.monotonic_ms + rest_ms <= first.expires_ms)
            }
        };
        let fate = if let Some(rest_ms) = rest_ms {
            first.delivery.next_at_ms = now.unix_ms + rest_ms;
            let until_ms = now.monotonic_ms + rest_ms;
            let again = first.delivery.clone();
            queue.rests_until_ms = Some(until_ms);
            self.resting.push(Reverse((until_ms, id.clone(), queue_id)));
            Fate::Again(again)
        } else {
            let over = queue.deliveries.pop_front().expect("the delivery in flight is the first").delivery;
            endpoint.go_on(queue_id);
            if ended == Ended::Done { Fate::Done(over) } else { Fate::GivenUp(over) }
        };
        self.line_up(&job.delivery.endpoint);
        fate
    }

    /// When something becomes ready without further calls, in ms of the monotonic clock.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.resting.peek().map(|Reverse((until_ms, ..))| *until_ms)
    }

    /// Removes and returns all deliveries of the endpoints for which `keep` is false, those in flight included.
    pub(super) fn take_unwanted(&mut self, keep: impl Fn(AppSerial, &str) -> bool) -> Vec<Delivery> {
        let unwanted = self.endpoints.extract_if(|id, endpoint| !keep(endpoint.app, id));
        let queues = unwanted.flat_map(|(_, endpoint)| endpoint.queues.into_values());
        let deliveries: Vec<Delivery> =
            queues.flat_map(|queue| queue.deliveries.into_iter().map(|waiting| waiting.delivery)).collect();
        let known = &self.endpoints;
        self.lines.retain(|id| known.contains_key(id));
        self.resting.retain(|Reverse((_, id, _))| known.contains_key(id));
        deliveries
    }

    fn end_rests(&mut self, now: Moment) {
        while self.due_ms().is_some_and(|until_ms| until_ms <= now.monotonic_ms) {
            let Some(Reverse((until_ms, id, queue_id))) = self.resting.pop() else { return };
            let Some(endpoint) = self.endpoints.get_mut(&id) else { continue };
            let queue = endpoint.queues.get_mut(&queue_id).filter(|queue| queue.rests_until_ms == Some(until_ms));
            if let Some(queue) = queue {
                queue.rests_until_ms = None;
                endpoint.ready.push_back(queue_id);
                self.line_up(&id);
            }
        }
    }

    /// Puts an endpoint at the end of its line, if it has something to send and is not in it yet.
    fn line_up(&mut self, id: &Arc<str>) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if endpoint.stands == Stands::Idle && !endpoint.ready.is_empty() {
            endpoint.stands = Stands::InLine;
            self.lines.push(endpoint.app, id.clone(), endpoint.pace);
        }
    }
}

/// Where a delivery comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TakenUp {
    /// It was just created.
    New,
    /// It was on disk when the process started.
    FromDisk,
}

impl Endpoint {
    fn new(app: AppSerial) -> Self {
        Self { app, queues: HashMap::new(), ready: VecDeque::new(), stands: Stands::Idle, pace: Pace::New }
    }

    /// False when the endpoint was removed, and perhaps added again, since the job was taken.
    fn makes(&self, job: &Job) -> bool {
        let first = self.queues.get(&job.delivery.queue).and_then(|queue| queue.deliveries.front());
        first.is_some_and(|first| first.delivery.number == job.delivery.number)
    }

    /// The first of a queue is complete: the next may be made, or the queue is removed.
    fn go_on(&mut self, queue_id: u64) {
        if self.queues.get(&queue_id).is_some_and(|queue| queue.deliveries.is_empty()) {
            self.queues.remove(&queue_id);
        } else {
            self.ready.push_back(queue_id);
        }
    }
}

/// The delay after this many failures, in ms; `None` when it was the last try (P-HOOK-7, R-HOOK-4).
fn rest_ms(format: WebhookFormat, failures: u8, retry_ms: u64) -> Option<u64> {
    match format {
        WebhookFormat::Pusher => Some(retry_ms * (1_u64 << (failures.clamp(1, 7) - 1)).min(60)),
        WebhookFormat::Relay => {
            let rests: [u64; 3] = [10, 60, 300];
            rests.get(usize::from(failures) - 1).map(|rest| rest * retry_ms)
        }
    }
}

/// How long a delivery may wait.
fn window_ms(format: WebhookFormat) -> u64 {
    match format {
        WebhookFormat::Pusher => limits::WEBHOOK_PUSHER_WINDOW_MS,
        WebhookFormat::Relay => limits::WEBHOOK_RELAY_WINDOW_MS,
    }
}

#[cfg(test)]
mod tests;
