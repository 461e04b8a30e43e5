//! Delivery under a seeded scheduler: the real [`Batches`] and [`Schedule`] turn events into bodies, bodies into
//! deliveries and deliveries into requests, while the test advances the clock. Endpoints answer, refuse, hang, recover,
//! are turned off and on, and the process restarts in the middle. A naive model records the events that each endpoint
//! wants and those that it read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::receiver::{Behaviour, Random, Receiver, decode, endpoint};
use crate::app::webhook::Webhooks;
use crate::app::{App, AppSerial};
use crate::limits;
use crate::moment::Moment;
use crate::protocol::webhook::{Happened, WebhookEvent};
use crate::store::queue::Delivery;
use crate::webhook::batch::{Batches, Made, Which};
use crate::webhook::schedule::{Ended, Fate, Job, Next, Schedule, TakenUp};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 400;
/// Events of one run happen within this, in ms.
const EVENTS_MS: u64 = 60_000;
/// A retry of an endpoint that answers quickly is not later than this, in ms.
const RETRY_LATE_MS: u64 = 3_000;
/// If more endpoints hang than there are threads, all of them are classified as slow by this time, in ms: those of one
/// app are detected one after the other.
const CROWD_KNOWN_MS: u64 = 42_000;
/// Steps of the clock after which a run that has not ended never will.
const STEPS_MAX: usize = 100_000;

/// A delivery on the simulated disk.
struct Row {
    delivery: Delivery,
    body: Vec<u8>,
    /// Ends of its failed requests, on the monotonic clock.
    failures: Vec<u64>,
    /// Start of its full time, on the monotonic clock: a restart resets it for deliveries that were never tried.
    since_ms: u64,
}

/// A request in flight.
struct Request {
    job: Job,
    begun_ms: u64,
    ends_ms: u64,
    ended: Ended,
}

/// Events of all runs, to detect a change that stops one of them from happening.
#[derive(Debug, Default)]
struct Seen {
    delivered: u64,
    batched: u64,
    retried: u64,
    given_up: u64,
    expired: u64,
    gone: u64,
    taken_up: u64,
}

struct Run<'a> {
    random: Random,
    /// More endpoints may hang than there are threads; then none is turned off, and the process does not restart.
    crowd: bool,
    /// No endpoint is turned off, and the process does not restart.
    steady: bool,
    now: Moment,
    threads: usize,
    receivers: BTreeMap<Arc<str>, Receiver>,
    apps: Vec<App>,
    batches: Batches,
    schedule: Schedule,
    disk: BTreeMap<u64, Row>,
    requests: Vec<Request>,
    next_delivery: u64,
    next_event: u64,
    /// When each event happened.
    events_ms: Vec<u64>,
    seen: &'a mut Seen,
}

impl<'a> Run<'a> {
    fn new(seed: u64, seen: &'a mut Seen) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let crowd = random.one_in(4);
        // All endpoints of one app hang, and they are more than the threads; those of other apps do not.
        let hostile = !crowd && random.one_in(5);
        let steady = crowd || hostile || random.one_in(2);
        let threads = match (crowd, hostile) {
            (true, _) => 2 + random.below(2),
            (_, true) => 4 + random.below(5),
            (false, false) => 1 + random.below(8),
        };
        let mut may_hang = match (crowd, hostile, steady) {
            (true, ..) => 3,
            (_, true, _) => 0,
            (false, false, true) => (threads - 1) / 2,
            // One that is turned off and on again may hold two threads.
            (false, false, false) => (threads - 1) / 4,
        };
        let mut receivers = BTreeMap::new();
        for number in 0..3 + random.below(3) {
            let behaviour = match random.below(6) {
                0..3 if may_hang > 0 && (crowd || random.one_in(2)) => {
                    may_hang -= 1;
                    Behaviour::Hangs
                }
                0 => Behaviour::Flaky,
                1 => Behaviour::RefusesUntil(u64::MAX),
                2 => Behaviour::RefusesUntil(random.below(400_000)),
                _ => Behaviour::Good,
            };
            let id: Arc<str> = format!("wh_{number}").into();
            let apps = if hostile { 2 } else { 3 };
            let receiver = Receiver::new(number as u32 % apps + 1, endpoint(&id, &mut random), behaviour);
            receivers.insert(id, receiver);
        }
        for number in 10..if hostile { 19 } else { 10 } {
            let id: Arc<str> = format!("wh_{number}").into();
            receivers.insert(id.clone(), Receiver::new(3, endpoint(&id, &mut random), Behaviour::Hangs));
        }
        let mut run = Self {
            random,
            crowd,
            steady,
            now: Moment { monotonic_ms: 1_000, unix_ms: 1_700_000_000_000 },
            threads: threads as usize,
            receivers,
            apps: Vec::new(),
            batches: Batches::default(),
            schedule: Schedule::new(threads as usize, limits::WEBHOOK_RETRY_MS),
            disk: BTreeMap::new(),
            requests: Vec::new(),
            next_delivery: 1,
            next_event: 0,
            events_ms: Vec::new(),
            seen,
        };
        run.read_store();
        run
    }

    /// The apps with the current state of their endpoints.
    fn read_store(&mut self) {
        let endpoints = |app| self.receivers.values().filter(move |receiver| receiver.app == app);
        let app = |serial| App {
            serial: AppSerial(serial),
            id: serial.to_string().into(),
            name: "".into(),
            enabled: true,
            keys: Vec::new(),
            encryption_master_key: None,
            settings: Default::default(),
            webhooks: Webhooks::new(endpoints(serial).map(|receiver| receiver.endpoint.clone()).collect()),
        };
        self.apps = (1..=3).map(app).collect();
    }

    /// Runs to the end: all events, and then until nothing is waiting.
    fn run(mut self) {
        let end_ms = self.now.monotonic_ms + EVENTS_MS;
        let (mut event_ms, mut restart_ms) = (self.now.monotonic_ms, u64::MAX);
        let mut switch_ms = u64::MAX;
        if !self.steady && self.random.one_in(2) {
            restart_ms = self.now.monotonic_ms + self.random.below(EVENTS_MS * 2);
        }
        if !self.steady && self.random.one_in(2) {
            switch_ms = self.now.monotonic_ms + self.random.below(EVENTS_MS);
        }
        for _ in 0..STEPS_MAX {
            if self.now.monotonic_ms >= restart_ms {
                self.restart();
                restart_ms = u64::MAX;
            }
            if self.now.monotonic_ms >= switch_ms {
                self.switch();
                switch_ms = if switch_ms < end_ms { switch_ms + 5_000 } else { u64::MAX };
            }
            if self.now.monotonic_ms >= event_ms {
                for _ in 0..if self.random.one_in(10) { 5 } else { 1 } {
                    self.happen();
                }
                event_ms += 50 + self.random.below(350);
                event_ms = if event_ms < end_ms { event_ms } else { u64::MAX };
            }
            self.work();
            let ends = self.requests.iter().map(|request| request.ends_ms).min();
            let free = self.requests.len() < self.threads;
            let dues = [self.batches.due_ms(), ends, self.schedule.due_ms().filter(|_| free)];
            let dues = dues.into_iter().flatten().chain([event_ms, restart_ms, switch_ms]);
            let next_ms = dues.min().expect("three of them");
            if next_ms == u64::MAX {
                return self.check_end();
            }
            let passed = next_ms.saturating_sub(self.now.monotonic_ms);
            self.now = Moment { monotonic_ms: self.now.monotonic_ms + passed, unix_ms: self.now.unix_ms + passed };
        }
        panic!("the run does not come to its end");
    }

    /// Creates an event of a random app.
    fn happen(&mut self) {
        let app = 1 + self.random.below(3) as u32;
        let channel = ["a", "b", "private-c"][self.random.below(3) as usize];
        let number = self.next_event;
        let what = if self.random.one_in(2) {
            Happened::SubscriptionCount(number as u32)
        } else {
            Happened::MemberAdded { user_id: number.to_string().into() }
        };
        self.next_event += 1;
        self.events_ms.push(self.now.monotonic_ms);
        let event = WebhookEvent { app: AppSerial(app), channel: channel.into(), unix_ms: self.now.unix_ms, what };
        let wants = |receiver: &&mut Receiver| {
            let endpoint = &receiver.endpoint;
            receiver.app == app && endpoint.enabled && endpoint.kinds.has(event.kind())
        };
        for receiver in self.receivers.values_mut().filter(wants) {
            receiver.wanted.entry(channel.to_owned()).or_default().push(number);
        }
        for made in self.batches.add(&self.apps[app as usize - 1], &event, self.now) {
            self.record(made);
        }
    }

    /// As the recorder does: on disk, then to the schedule.
    fn record(&mut self, made: Made) {
        let delivery = Delivery {
            number: self.next_delivery,
            app: made.app,
            endpoint: made.endpoint,
            queue: made.queue,
            created_ms: self.now.unix_ms,
            attempts: 0,
            next_at_ms: 0,
            body_bytes: made.body.len() as u32,
        };
        self.next_delivery += 1;
        let receiver = self.receivers.get_mut(&delivery.endpoint).expect("an endpoint of the run");
        let format = receiver.endpoint.format;
        let events = decode(format, &made.body);
        assert_eq!(events.len(), made.events);
        assert_eq!(made.app, AppSerial(receiver.app), "an event of another app (P-HOOK-6)");
        self.seen.batched += u64::from(events.len() > 1);
        if !receiver.endpoint.enabled {
            receiver.excuse(&made.body);
            return;
        }
        let row =
            Row { delivery: delivery.clone(), body: made.body, failures: Vec::new(), since_ms: self.now.monotonic_ms };
        self.disk.insert(delivery.number, row);
        self.schedule.add(delivery, format, self.now, TakenUp::New);
    }

    /// Handles everything due now: batches, ends of requests, and requests for free threads.
    fn work(&mut self) {
        for made in self.batches.take(self.now, Which::Due) {
            self.record(made);
        }
        while let Some(at) = self.requests.iter().position(|request| request.ends_ms <= self.now.monotonic_ms) {
            let request = self.requests.swap_remove(at);
            self.finish(&request);
        }
        while self.requests.len() < self.threads {
            match self.schedule.take(self.now) {
                None => return,
                Some(Next::Send(job)) => self.start(job),
                Some(Next::Expired(delivery)) => {
                    let row = self.disk.remove(&delivery.number).expect("what waits is on disk");
                    let receiver = self.receivers.get_mut(&delivery.endpoint).expect("an endpoint of the run");
                    let over = row.since_ms + receiver.window_ms() <= self.now.monotonic_ms;
                    assert!(over, "{delivery:?} is over before its time (P-HOOK-7)");
                    assert_ne!(receiver.behaviour, Behaviour::Good, "{delivery:?} waited for others all its time");
                    receiver.excuse(&row.body);
                    self.seen.expired += 1;
                }
            }
        }
    }

    fn start(&mut self, job: Job) {
        let delivery = &job.delivery;
        let row = &self.disk[&delivery.number];
        let receiver = &self.receivers[&delivery.endpoint];
        let now_ms = self.now.monotonic_ms;
        assert!(receiver.endpoint.enabled, "{delivery:?} goes to an endpoint that is off");
        assert!(now_ms < row.since_ms + receiver.window_ms(), "{delivery:?} is made after its time (P-HOOK-7)");
        // A request whose delivery was dropped meanwhile does not count.
        let others = self.requests.iter().map(|request| &request.job.delivery);
        let twice = others.filter(|other| self.disk.contains_key(&other.number));
        let twice = twice.filter(|other| other.endpoint == delivery.endpoint).count();
        assert_eq!(twice, 0, "two requests to {} at once", delivery.endpoint);
        assert_eq!(usize::from(delivery.attempts), row.failures.len(), "{delivery:?}");
        if let Some(failed_ms) = row.failures.last() {
            let rest_ms = receiver.rest_ms(row.failures.len()).expect("there is a next try");
            let late = now_ms.checked_sub(failed_ms + rest_ms);
            let late = late.unwrap_or_else(|| panic!("{delivery:?} is tried again too soon (P-HOOK-7)"));
            let may_be_late = receiver.behaviour == Behaviour::Hangs || self.crowd && now_ms < CROWD_KNOWN_MS;
            assert!(may_be_late || late <= RETRY_LATE_MS, "{delivery:?} is tried again {late} ms late (P-HOOK-7)");
            self.seen.retried += 1;
        }
        let soon_ms = 1 + self.random.below(30);
        let (took_ms, ended) = match receiver.behaviour {
            Behaviour::Hangs => (limits::WEBHOOK_ANSWER_MS, Ended::Failed),
            Behaviour::RefusesUntil(until_ms) if now_ms < until_ms => (1, Ended::Failed),
            Behaviour::Flaky if self.random.one_in(3) => (soon_ms, Ended::Failed),
            Behaviour::Good | Behaviour::Flaky | Behaviour::RefusesUntil(_) => (soon_ms, Ended::Done),
        };
        self.requests.push(Request { job, begun_ms: now_ms, ends_ms: now_ms + took_ms, ended });
    }

    /// The endpoint answered, or never will.
    fn finish(&mut self, request: &Request) {
        let (delivery, now_ms) = (&request.job.delivery, self.now.monotonic_ms);
        let receiver = self.receivers.get_mut(&delivery.endpoint).expect("an endpoint of the run");
        let format = receiver.endpoint.format;
        if let Some(row) = self.disk.get(&delivery.number).filter(|_| request.ended == Ended::Done) {
            receiver.receive(&row.body, now_ms);
        }
        let fate = self.schedule.finish(&request.job, request.ended, now_ms - request.begun_ms, format, self.now);
        match (fate, request.ended) {
            (Fate::Done(done), Ended::Done) => {
                self.disk.remove(&done.number).expect("what is made is on disk");
                self.seen.delivered += 1;
            }
            (Fate::Again(again), Ended::Failed) => {
                let row = self.disk.get_mut(&again.number).expect("what is made is on disk");
                row.failures.push(now_ms);
                row.delivery = again;
            }
            (Fate::GivenUp(given_up), Ended::Failed) => {
                let mut row = self.disk.remove(&given_up.number).expect("what is made is on disk");
                row.failures.push(now_ms);
                let next = receiver.rest_ms(row.failures.len()).map(|rest_ms| now_ms + rest_ms);
                let over = next.is_none_or(|next_ms| next_ms > row.since_ms + receiver.window_ms());
                assert!(over, "{given_up:?} is given up before its time (P-HOOK-7): {:?}", row.failures);
                receiver.excuse(&row.body);
                self.seen.given_up += 1;
            }
            (Fate::Gone, _) => self.seen.gone += 1,
            (fate, ended) => panic!("{ended:?} makes {fate:?}"),
        }
    }

    /// An endpoint is turned off or on again.
    fn switch(&mut self) {
        let at = self.random.below(self.receivers.len() as u64) as usize;
        let off: Vec<Arc<str>> =
            self.receivers.iter().filter(|(_, it)| !it.endpoint.enabled).map(|(id, _)| id.clone()).collect();
        let id = off.first().or_else(|| self.receivers.keys().nth(at)).expect("there are endpoints").clone();
        let receiver = self.receivers.get_mut(&id).expect("an endpoint of the run");
        receiver.endpoint.enabled = !receiver.endpoint.enabled;
        self.read_store();
        let receivers = &self.receivers;
        for delivery in self.schedule.take_unwanted(|_, id| receivers[id].endpoint.enabled) {
            let row = self.disk.remove(&delivery.number).expect("what waits is on disk");
            let receiver = self.receivers.get_mut(&delivery.endpoint).expect("an endpoint of the run");
            receiver.excuse(&row.body);
        }
    }

    /// The process ends in order and starts again: requests in flight are repeated.
    fn restart(&mut self) {
        for made in self.batches.take(self.now, Which::All) {
            self.record(made);
        }
        for request in std::mem::take(&mut self.requests) {
            let delivery = &request.job.delivery;
            let receiver = self.receivers.get_mut(&delivery.endpoint).expect("an endpoint of the run");
            let Some(row) = self.disk.get(&delivery.number) else { continue };
            let events = decode(receiver.endpoint.format, &row.body);
            receiver.doubled.extend(events.iter().map(|(_, number)| *number));
            // The endpoint may have read it without the process learning of it.
            if request.ended == Ended::Done && self.random.one_in(2) {
                receiver.receive(&row.body, self.now.monotonic_ms);
            }
        }
        self.batches = Batches::default();
        self.schedule = Schedule::new(self.threads, limits::WEBHOOK_RETRY_MS);
        for row in self.disk.values_mut() {
            if row.failures.is_empty() {
                row.since_ms = self.now.monotonic_ms;
            }
            let format = self.receivers[&row.delivery.endpoint].endpoint.format;
            self.schedule.add(row.delivery.clone(), format, self.now, TakenUp::FromDisk);
            self.seen.taken_up += 1;
        }
    }

    /// Nothing is waiting any more: every endpoint received every event that it wanted, once, in order and in time.
    fn check_end(&self) {
        assert!(self.disk.is_empty(), "{} deliveries were forgotten", self.disk.len());
        // An endpoint that hangs is classified as slow after its first request.
        let soon_from_ms = if self.crowd { CROWD_KNOWN_MS } else { 0 };
        for (id, receiver) in &self.receivers {
            receiver.check(id, &self.events_ms, soon_from_ms);
        }
    }
}

/// P-HOOK-6, P-HOOK-7, P-HOOK-10, R-HOOK-4: no event is lost, duplicated or sent out of its channel's order, retries
/// keep to their times, nothing is given up early, and endpoints that refuse or hang delay no deliveries of others.
/// Method: random runs of batches and schedule with a simulated clock, against lists of the events that each endpoint
/// wanted and read.
#[test]
fn every_seed_holds() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let run = || Run::new(seed, &mut seen).run();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert!(result.is_ok(), "seed {seed} failed");
    }
    let Seen { delivered, batched, retried, given_up, expired, gone, taken_up } = seen;
    let rows = [delivered, batched, retried, given_up, expired, gone, taken_up];
    assert!(rows.iter().all(|times| *times > 0), "something has not happened once: {seen:?}");
}
