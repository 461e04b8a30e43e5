//! Asks the authorizers of apps, off the shards (R-AUTHEP-3, R-AUTHEP-11).
//!
//! A shard hands a question over and never waits. Worker threads, started on first use and ended when idle, send one
//! request at a time each, as [`queue`] decides; another thread ends questions whose deadline passes while they wait.
//! A server whose apps have no authorizer has none of these threads. Shards bound the questions that wait.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::api::authorizer::{AuthorizerCall, Decision, MARKER, NotGranted, decode_answer, encode_form};
use crate::app::{App, AppSerial, Directory};
use crate::channel::name::NameRules;
use crate::driver::clock::Clock;
use crate::driver::failure;
use crate::driver::priority::yield_to_shards;
use crate::limits;
use crate::metrics::figures::AuthorizerFigures;
use crate::outgoing::client::{Client, Kept, NoAnswer, Post};
use crate::shard::{AnswerId, Authorize};
use queue::Queue;

mod queue;

/// Receives the decisions about each subject of a question.
pub type OnDecided = Box<dyn Fn(AnswerId, Vec<Decision>) + Send + Sync>;

/// Access to the threads, for shards and the store writer. Clones share them.
#[derive(Clone)]
pub struct Authorizers {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    clock: Clock,
    names: NameRules,
    directory: ArcSwap<Directory>,
    on_decided: OnDecided,
    state: Mutex<State>,
    /// A question can be asked.
    work: Condvar,
    /// The earliest deadline may have changed.
    deadlines: Condvar,
    counts: Counts,
}

#[derive(Default)]
struct State {
    queue: Queue<Question>,
    workers: usize,
    idle: usize,
    has_timer: bool,
    logged: HashMap<AppSerial, Logged>,
}

/// Failures of an app's authorizer in the log.
struct Logged {
    at_ms: u64,
    suppressed: u32,
}

#[derive(Default)]
struct Counts {
    granted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    busy: AtomicU64,
}

/// A question about one subject of a call.
struct Question {
    open: Arc<OpenCall>,
    subject: usize,
}

/// A call some of whose subjects are not decided yet.
struct OpenCall {
    id: AnswerId,
    call: Arc<AuthorizerCall>,
    decisions: Mutex<Vec<Option<Decision>>>,
}

/// As many requests as may be in flight reuse connections. Servers of backends close idle connections after 5 s or more,
/// and a request on one that is being closed would fail.
pub const KEPT: Kept = Kept {
    per_host: limits::AUTHORIZER_REQUESTS as usize,
    in_all: limits::AUTHORIZER_REQUESTS_ALL_MAX,
    idle: Duration::from_secs(3),
};

/// A worker without a question ends after this.
const IDLE: Duration = Duration::from_secs(30);

impl Authorizers {
    /// Prepares to ask; no thread is started before the first question.
    pub fn new(
        client: Client,
        clock: Clock,
        names: NameRules,
        directory: Arc<Directory>,
        on_decided: OnDecided,
    ) -> Self {
        let shared = Shared {
            client,
            clock,
            names,
            directory: ArcSwap::new(directory),
            on_decided,
            state: Mutex::default(),
            work: Condvar::new(),
            deadlines: Condvar::new(),
            counts: Counts::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Applies a new directory.
    pub fn handle_directory(&self, directory: Arc<Directory>) {
        self.shared.directory.store(directory);
    }

    /// Accepts a question of a shard. Never waits for an authorizer.
    pub fn ask(&self, Authorize { id, call }: Authorize) {
        let now_ms = self.shared.clock.read().monotonic_ms;
        let deadline_ms = now_ms + limits::AUTHORIZER_ANSWER_MS;
        let subjects = call.subjects.len();
        let app = call.app;
        let open = Arc::new(OpenCall { id, call, decisions: Mutex::new(vec![None; subjects]) });
        let mut ended = Vec::new();
        let mut state = self.shared.lock();
        for subject in 0..subjects {
            let question = Question { open: Arc::clone(&open), subject };
            if let Err((question, seconds)) = state.queue.add(app, question, deadline_ms, now_ms) {
                ended.push((question, Decision::Busy(seconds)));
            }
        }
        let started = self.shared.start_threads(&mut state);
        if let Err(error) = started
            && state.workers == 0
        {
            tracing::error!(%error, "cannot start a thread for authorizers");
            ended.extend(state.queue.take_expired(u64::MAX).into_iter().map(|question| (question, Decision::Failed)));
        }
        drop(state);
        self.shared.deadlines.notify_one();
        for (question, decision) in ended {
            self.shared.decide(&question, decision);
        }
    }

    /// Current metrics.
    pub fn figures(&self) -> AuthorizerFigures {
        let (waiting, in_flight) = self.shared.lock().queue.counts();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.shared.counts;
        AuthorizerFigures {
            waiting: waiting as u64,
            in_flight: in_flight as u64,
            granted: count(&counts.granted),
            refused: count(&counts.refused),
            failed: count(&counts.failed),
            busy: count(&counts.busy),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic on a thread ends the process")
    }

    /// Wakes or starts a worker if a question can be asked; that worker does the same.
    fn start_threads(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.queue.counts().0 > 0 && !state.has_timer {
            let shared = Arc::clone(self);
            thread::Builder::new().name("authorizer-time".into()).spawn(move || shared.run_timer())?;
            state.has_timer = true;
        }
        if !state.queue.can_take(&self.requests_max()) {
            return Ok(());
        }
        if state.idle > 0 {
            self.work.notify_one();
        } else if state.workers < limits::AUTHORIZER_REQUESTS_ALL_MAX {
            let shared = Arc::clone(self);
            thread::Builder::new().name("authorizer".into()).spawn(move || shared.run_worker())?;
            state.workers += 1;
        }
        Ok(())
    }

    /// The setting of an app.
    fn requests_max(&self) -> impl Fn(AppSerial) -> usize + use<> {
        let directory = self.directory.load_full();
        move |app| directory.app(app).map_or(1, |app| usize::from(app.settings.max_authorizer_requests))
    }

    fn run_worker(self: &Arc<Self>) {
        yield_to_shards();
        let mut state = self.lock();
        loop {
            if let Some((deadline_ms, question)) = state.queue.take(&self.requests_max()) {
                // Without another thread the questions wait for this one.
                let _ = self.start_threads(&mut state);
                drop(state);
                let (decision, is_valid) = self.answer(&question, deadline_ms);
                let now_ms = self.clock.read().monotonic_ms;
                state = self.lock();
                let ended = state.queue.finish(question.open.call.app, is_valid, now_ms);
                drop(state);
                self.decide(&question, decision);
                let seconds = (limits::AUTHORIZER_PAUSE_MS / 1_000) as u32;
                ended.iter().for_each(|question| self.decide(question, Decision::Busy(seconds)));
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (woken, waited) = self.work.wait_timeout(state, IDLE).expect("a panic on a thread ends the process");
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.queue.counts().0 == 0 {
                state.workers -= 1;
                return;
            }
        }
    }

    /// Ends questions whose deadline passes while they wait.
    fn run_timer(&self) {
        let mut state = self.lock();
        loop {
            let now_ms = self.clock.read().monotonic_ms;
            let expired = state.queue.take_expired(now_ms);
            if !expired.is_empty() {
                drop(state);
                expired.iter().for_each(|question| self.decide(question, Decision::Busy(1)));
                state = self.lock();
                continue;
            }
            state = match state.queue.next_deadline_ms() {
                None => self.deadlines.wait(state).expect("a panic on a thread ends the process"),
                Some(deadline_ms) => {
                    let wait = Duration::from_millis(deadline_ms - now_ms);
                    self.deadlines.wait_timeout(state, wait).expect("a panic on a thread ends the process").0
                }
            };
        }
    }

    /// Asks the authorizer; also returns whether its answer is valid.
    fn answer(&self, question: &Question, deadline_ms: u64) -> (Decision, bool) {
        let call = &question.open.call;
        let directory = self.directory.load_full();
        let Some(app) = directory.app(call.app).filter(|app| app.enabled) else { return (Decision::Refused, true) };
        // The answer comes from an untrusted peer and the code that reads it is a dependency: a panic costs only this
        // request.
        let asked = failure::contain(|| self.send(app, question, deadline_ms));
        match asked.unwrap_or_else(|| Err(NotGranted::Invalid("its answer could not be read".into()))) {
            Ok(data) => {
                self.note_success(app);
                (Decision::Granted(data), true)
            }
            Err(NotGranted::Refused) => {
                self.note_success(app);
                (Decision::Refused, true)
            }
            Err(NotGranted::Invalid(reason)) => {
                self.note_failure(app, &reason);
                (Decision::Failed, false)
            }
        }
    }

    fn send(&self, app: &App, question: &Question, deadline_ms: u64) -> Result<Option<Box<str>>, NotGranted> {
        let call = &question.open.call;
        let subject = &call.subjects[question.subject];
        let url = subject.url(&app.settings);
        if url.is_empty() {
            return Err(NotGranted::Refused);
        }
        let forwarded = call.headers.iter().map(|(name, value)| (*name, value.to_string()));
        let own = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
            ("X-Requested-With", "XMLHttpRequest"),
            (MARKER, "1"),
        ];
        let headers: Vec<_> = own.map(|(name, value)| (name, value.to_owned())).into_iter().chain(forwarded).collect();
        let within_ms = deadline_ms.saturating_sub(self.clock.read().monotonic_ms).max(1);
        let answer = self.client.post(&Post {
            url,
            reach: app.settings.authorizer_reach(),
            headers: &headers,
            body: encode_form(call.socket_id, subject).as_bytes(),
            within: Duration::from_millis(within_ms),
            answer_bytes_max: limits::AUTHORIZER_ANSWER_BYTES_MAX,
        });
        let answer = answer.map_err(|NoAnswer(reason)| NotGranted::Invalid(reason))?;
        if !answer.is_complete && answer.status == 200 {
            let max = limits::AUTHORIZER_ANSWER_BYTES_MAX;
            return Err(NotGranted::Invalid(format!(
                "its answer was not complete in time, or longer than {max} bytes"
            )));
        }
        let content_type = answer.content_type.as_deref();
        decode_answer(app, self.names, subject, answer.status, content_type, &answer.body)
    }

    /// Records a decision; with the last one the call is answered.
    fn decide(&self, question: &Question, decision: Decision) {
        let count = match decision {
            Decision::Granted(_) => &self.counts.granted,
            Decision::Refused => &self.counts.refused,
            Decision::Failed => &self.counts.failed,
            Decision::Busy(_) => &self.counts.busy,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut decisions = question.open.decisions.lock().expect("a panic on a thread ends the process");
        decisions[question.subject] = Some(decision);
        if decisions.iter().all(Option::is_some) {
            let decisions = std::mem::take(&mut *decisions).into_iter().flatten().collect();
            (self.on_decided)(question.open.id, decisions);
        }
    }

    /// One line per app and minute. The caller learns nothing of the reason.
    fn note_failure(&self, app: &App, reason: &str) {
        let now_ms = self.clock.read().monotonic_ms;
        let mut state = self.lock();
        let suppressed = match state.logged.get_mut(&app.serial) {
            Some(logged) if now_ms < logged.at_ms + limits::AUTHORIZER_LOG_MS => {
                logged.suppressed += 1;
                return;
            }
            Some(logged) => logged.suppressed,
            None => 0,
        };
        state.logged.insert(app.serial, Logged { at_ms: now_ms, suppressed: 0 });
        drop(state);
        tracing::warn!(app = %app.id, reason, suppressed, "the authorizer of this app gave no valid answer");
    }

    fn note_success(&self, app: &App) {
        let mut state = self.lock();
        if state.logged.remove(&app.serial).is_some() {
            drop(state);
            tracing::info!(app = %app.id, "the authorizer of this app answers again");
        }
    }
}
