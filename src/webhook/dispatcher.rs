//! The thread that assigns deliveries to workers according to the schedule, and the workers, each of which makes one
//! request at a time. Workers are started on first use, so a server without webhooks has none.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::request::{self, SendError};
use super::schedule::{Ended, Fate, Job, Next, Schedule, TakenUp};
use super::{Count, Shared};
use crate::app::webhook::{WebhookEndpoint, WebhookFormat};
use crate::app::{App, Directory};
use crate::driver::clock::Clock;
use crate::driver::failure;
use crate::driver::priority::yield_to_shards;
use crate::limits;
use crate::moment::Moment;
use crate::outgoing::client::Client;
use crate::store::queue::{Change, Delivery, FailedDelivery, Queue};

/// Messages to the dispatcher.
pub(super) enum Message {
    /// These are on disk.
    Recorded(Vec<Delivery>),
    /// Endpoints may have been removed.
    Directory,
    /// A worker has finished.
    Sent(Box<Sent>),
    /// Make no further requests.
    Stop,
}

/// How a request ended.
pub(super) struct Sent {
    worker: usize,
    job: Job,
    format: WebhookFormat,
    result: Result<u16, SendError>,
    took_ms: u64,
}

/// A worker's task.
struct Task {
    job: Job,
    app: Arc<App>,
    /// A copy, because the directory may change meanwhile.
    endpoint: WebhookEndpoint,
}

/// State owned by the thread.
pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    clock: Clock,
    queue: Queue,
    client: Arc<Client>,
    inbox: Receiver<Message>,
    /// For the workers' replies.
    outbox: Sender<Message>,
    journal: Sender<Change>,
    schedule: Schedule,
    workers: Vec<Sender<Task>>,
    idle: Vec<usize>,
    /// The logged state of endpoints that failed.
    failing: HashMap<Arc<str>, Failing>,
}

/// The logged state of an endpoint.
struct Failing {
    /// The log shows the endpoint as failing.
    is_told: bool,
    /// Since when, in ms of the monotonic clock.
    told_ms: u64,
}

/// An endpoint that alternates between failing and working is logged once in this time, in ms.
const TELL_MS: u64 = 60_000;

impl Dispatcher {
    /// Resumes the deliveries found at start.
    pub(super) fn new(
        shared: Arc<Shared>,
        clock: Clock,
        queue: Queue,
        client: Client,
        (outbox, inbox): (Sender<Message>, Receiver<Message>),
        journal: Sender<Change>,
        found: Vec<Delivery>,
    ) -> Self {
        let schedule = Schedule::new(usize::from(shared.options.threads), shared.options.retry_ms);
        let mut dispatcher = Self {
            shared,
            clock,
            queue,
            client: Arc::new(client),
            inbox,
            outbox,
            journal,
            schedule,
            workers: Vec::new(),
            idle: Vec::new(),
            failing: HashMap::new(),
        };
        dispatcher.add(found, TakenUp::FromDisk);
        dispatcher
    }

    pub(super) fn run(mut self) {
        loop {
            self.give();
            let mut next = self.receive();
            while let Some(message) = next {
                if matches!(message, Message::Stop) {
                    return self.stop();
                }
                self.handle(message);
                next = self.inbox.try_recv().ok();
            }
        }
    }

    /// Waits briefly for requests in flight: a request whose result does not arrive is repeated after the next start.
    fn stop(mut self) {
        let deadline_ms = self.clock.read().monotonic_ms + limits::WEBHOOK_STOP_MS;
        while self.idle.len() < self.workers.len() {
            let rest_ms = deadline_ms.saturating_sub(self.clock.read().monotonic_ms);
            match self.inbox.recv_timeout(Duration::from_millis(rest_ms)) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn receive(&self) -> Option<Message> {
        let due_ms = self.schedule.due_ms().filter(|_| self.has_worker());
        match due_ms {
            // The dispatcher itself holds a sender, so the channel does not disconnect.
            None => self.inbox.recv().ok(),
            Some(due_ms) => {
                let wait_ms = due_ms.saturating_sub(self.clock.read().monotonic_ms);
                self.inbox.recv_timeout(Duration::from_millis(wait_ms)).ok()
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Recorded(deliveries) => self.add(deliveries, TakenUp::New),
            Message::Directory => self.drop_unwanted(),
            Message::Sent(sent) => self.finish(*sent),
            Message::Stop => {}
        }
    }

    fn add(&mut self, deliveries: Vec<Delivery>, taken_up: TakenUp) {
        let (directory, now) = (self.shared.directory.load_full(), self.clock.read());
        for delivery in deliveries {
            match find(&directory, &delivery) {
                Some((_, endpoint)) => self.schedule.add(delivery, endpoint.format, now, taken_up),
                None => self.note(Change::Done(delivery)),
            }
        }
    }

    /// Drops deliveries for endpoints that were removed or turned off.
    fn drop_unwanted(&mut self) {
        let directory = self.shared.directory.load_full();
        let is_wanted = |app, id: &str| {
            let app = directory.app(app).filter(|app| app.enabled);
            app.and_then(|app| app.webhooks.endpoint(id)).is_some_and(|endpoint| endpoint.enabled)
        };
        for delivery in self.schedule.take_unwanted(is_wanted) {
            self.failing.remove(&delivery.endpoint);
            self.note(Change::Done(delivery));
        }
    }

    /// Assigns deliveries to workers as long as there are both.
    fn give(&mut self) {
        while self.has_worker() {
            let now = self.clock.read();
            match self.schedule.take(now) {
                None => return,
                Some(Next::Expired(delivery)) => {
                    self.give_up(delivery, now, "its retry time ended while earlier deliveries failed");
                }
                Some(Next::Send(job)) => self.start(job, now),
            }
        }
    }

    fn start(&mut self, job: Job, now: Moment) {
        let directory = self.shared.directory.load_full();
        let Some((app, endpoint)) = find(&directory, &job.delivery) else {
            let fate = self.schedule.finish(&job, Ended::Done, 0, WebhookFormat::Pusher, now);
            return self.note_fate(fate, now, "");
        };
        let task = Task { app: Arc::clone(app), endpoint: endpoint.clone(), job };
        let worker = match self.idle.pop() {
            Some(worker) => Ok(worker),
            None => self.spawn(),
        };
        match worker {
            Ok(worker) => self.workers[worker].send(task).expect("a worker ends with the dispatcher"),
            Err(error) => {
                let Task { job, endpoint, .. } = task;
                let fate = self.schedule.finish(&job, Ended::Failed, 0, endpoint.format, now);
                self.note_fate(fate, now, &format!("no thread could be started: {error}"));
            }
        }
    }

    fn has_worker(&self) -> bool {
        !self.idle.is_empty() || self.workers.len() < usize::from(self.shared.options.threads)
    }

    fn spawn(&mut self) -> io::Result<usize> {
        let (sender, tasks) = channel();
        let worker = Worker {
            number: self.workers.len(),
            queue: self.queue.clone(),
            client: Arc::clone(&self.client),
            clock: self.clock,
            done: self.outbox.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("webhook-{}", worker.number));
        thread.spawn(move || {
            yield_to_shards();
            worker.run(&tasks);
        })?;
        self.workers.push(sender);
        Ok(self.workers.len() - 1)
    }

    fn finish(&mut self, sent: Sent) {
        let Sent { worker, job, format, result, took_ms } = sent;
        self.idle.push(worker);
        let now = self.clock.read();
        let ended = if result.is_ok() { Ended::Done } else { Ended::Failed };
        self.shared.counts.add(if result.is_ok() { Count::Delivered } else { Count::Refused }, 1);
        let reason = result.err().map(|error| error.to_string()).unwrap_or_default();
        self.tell_change(&job.delivery.endpoint, ended, &reason, now);
        let fate = self.schedule.finish(&job, ended, took_ms, format, now);
        self.note_fate(fate, now, &reason);
    }

    /// Logs when an endpoint begins to fail and when it has recovered, with a rate limit.
    fn tell_change(&mut self, endpoint: &Arc<str>, ended: Ended, reason: &str, now: Moment) {
        match (ended, self.failing.get_mut(endpoint)) {
            (Ended::Done, Some(failing)) if failing.is_told => {
                failing.is_told = false;
                tracing::info!(%endpoint, "the webhook endpoint works again");
            }
            (Ended::Failed, Some(failing)) if failing.is_told || now.monotonic_ms - failing.told_ms < TELL_MS => {}
            (Ended::Failed, _) => {
                let failing = Failing { is_told: true, told_ms: now.monotonic_ms };
                self.failing.insert(endpoint.clone(), failing);
                tracing::warn!(%endpoint, reason, "the webhook endpoint fails; deliveries are retried");
            }
            (Ended::Done, _) => {}
        }
    }

    fn note_fate(&self, fate: Fate, now: Moment, reason: &str) {
        match fate {
            Fate::Done(delivery) => self.note(Change::Done(delivery)),
            Fate::Again(Delivery { number, attempts, next_at_ms, .. }) => {
                self.note(Change::Again { number, attempts, next_at_ms });
            }
            Fate::GivenUp(delivery) => self.give_up(delivery, now, reason),
            Fate::Gone => {}
        }
    }

    fn give_up(&self, delivery: Delivery, now: Moment, reason: &str) {
        self.shared.counts.add(Count::GivenUp, 1);
        let failed = FailedDelivery {
            app: delivery.app.0,
            endpoint: delivery.endpoint.to_string(),
            created_at_ms: delivery.created_ms,
            failed_at_ms: now.unix_ms,
            attempts: delivery.attempts,
            reason: reason.to_owned(),
        };
        self.note(Change::Failed(delivery, failed));
    }

    fn note(&self, change: Change) {
        // The recorder outlives the dispatcher.
        let _ = self.journal.send(change);
        self.shared.wake_recorder();
    }
}

/// The endpoint of a delivery, if it still exists and is enabled.
fn find<'a>(directory: &'a Directory, delivery: &Delivery) -> Option<(&'a Arc<App>, &'a WebhookEndpoint)> {
    let app = directory.app(delivery.app).filter(|app| app.enabled)?;
    let endpoint = app.webhooks.endpoint(&delivery.endpoint).filter(|endpoint| endpoint.enabled)?;
    Some((app, endpoint))
}

/// A thread that makes requests.
struct Worker {
    number: usize,
    queue: Queue,
    client: Arc<Client>,
    clock: Clock,
    done: Sender<Message>,
}

impl Worker {
    fn run(self, tasks: &Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
            let begun = self.clock.read();
            // The answer comes from an untrusted peer and the code that reads it is a dependency: a panic costs only
            // this request.
            let result = failure::contain(|| self.send(&task, begun));
            let result = result.unwrap_or_else(|| Err(SendError::NoAnswer("the answer could not be read".into())));
            let took_ms = self.clock.read().monotonic_ms - begun.monotonic_ms;
            let sent = Sent { worker: self.number, format: task.endpoint.format, job: task.job, result, took_ms };
            if self.done.send(Message::Sent(Box::new(sent))).is_err() {
                return;
            }
        }
    }

    fn send(&self, task: &Task, now: Moment) -> Result<u16, SendError> {
        let body = self.queue.body(task.job.delivery.number);
        let body = body.map_err(|error| SendError::NoAnswer(error.to_string()))?;
        let body = body.ok_or_else(|| SendError::NoAnswer("its body is missing in the queue".into()))?;
        request::send(&self.client, &task.app, &task.endpoint, &body, now.unix_s())
    }
}
