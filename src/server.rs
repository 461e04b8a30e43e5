//! Assembly: listeners, drivers, the store writer, signals.
//!
//! One thread per shard; the calling thread waits for events from them and from the operator. Shards end together: each
//! serves the others until the last one has drained (P-CLOSE-1). A panic of any thread ends the process
//! ([`driver::failure`]), and so does a shard that stopped turning ([`driver::watchdog`]).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::admin::{Explainer, Replayer};
use crate::app::{AppSerial, MessagesUsed, TokenId};
use crate::auth::explain::RefusalId;
use crate::authorizer::Authorizers;
use crate::config::{AdminPort, IoChoice, MetricsPort, ServeConfig};
use crate::driver::capacity::{self, Capacity};
use crate::driver::clock::Clock;
use crate::driver::control::Control;
use crate::driver::host::Host;
use crate::driver::listener::{self, BindError, Bound, BoundListener};
use crate::driver::mailbox::Mailbox;
use crate::driver::refusals::Refusals;
use crate::driver::{self, DriverKind, ShardSetup, log_writer, uring, watchdog};
use crate::label::Label;
use crate::limits::{DRAIN_OVERTIME_MS, LOG_FLUSH_MS, MAILBOX_SLOTS};
use crate::metrics::figures::{AuthorizerFigures, Identity, WebhookFigures};
use crate::metrics::refusal_log::LogLine;
use crate::moment::Moment;
use crate::protocol::webhook::WebhookEvent;
use crate::shard::{
    Authorize, Change, ChannelOrder, Listener, Mail, ReplayOutcome, Shard, ShardConfig, ShardIndex, ShardOptions,
};
use crate::store::queue::Queue;
use crate::store::writer::StoreWriter;
use crate::store::{Missing, Store, StoreError};
use crate::webhook::{WebhookError, WebhookHandle, Webhooks};

use answers::{authorizers, store_writer};
use signals::SignalThread;

mod admin;
mod answers;
mod signals;

/// A port that another socket holds is retried for this long.
const BIND_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const BIND_AGAIN_AFTER: Duration = Duration::from_millis(25);

/// The running server: the ports that were really bound and the driver that was chosen.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Public port: WebSockets and the HTTP API.
    pub public: SocketAddr,
    /// Health port; `None` if it was taken and is optional.
    pub metrics: Option<SocketAddr>,
    /// Admin API; `None` if it is off, or was taken and is optional.
    pub admin: Option<SocketAddr>,
    /// `io_uring` or `epoll`.
    pub driver: &'static str,
    /// Why this driver, one sentence.
    pub driver_reason: String,
    /// Shards that run.
    pub shards: u16,
}

impl Listening {
    fn identity(&self, clock: Clock) -> Identity {
        let (driver, driver_reason) = (self.driver, self.driver_reason.clone());
        Identity { driver, driver_reason, port: self.public.port(), started_unix_ms: clock.read().unix_ms }
    }
}

/// Why serving could not start or had to end; each message is one line with cause and fix.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port is not available.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// `--io uring` although io_uring cannot be used.
    #[error("--io uring was requested but cannot be used: {0}")]
    Uring(String),
    /// The first snapshot of apps could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Webhooks could not start.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    /// Too few descriptors for any connection.
    #[error(
        "{limit} descriptors are too few for {shards} shards; raise the limit (ulimit -n, LimitNOFILE=) or run fewer shards"
    )]
    Descriptors {
        /// The limit.
        limit: u64,
        /// The shards.
        shards: u16,
    },
    /// A thread, an eventfd or randomness is not available.
    #[error("cannot {doing}: {cause}")]
    Start {
        /// The operation that failed.
        doing: &'static str,
        /// The error of the system.
        cause: String,
    },
    /// A running loop failed.
    #[error("shard {shard} ended: {cause}")]
    Shard {
        /// The shard.
        shard: ShardIndex,
        /// The error of the system.
        cause: String,
    },
}

/// System resources that a start needs, acquired before anything is written or reported: most starts that fail, fail
/// here.
pub struct Prepared {
    kind: DriverKind,
    driver_reason: String,
    capacity: Capacity,
    public: Bound,
    metrics: Result<Bound, BindError>,
    admin: Option<Result<Bound, BindError>>,
}

/// Chooses the driver, finds room for connections and binds the ports. Peers that connect from now on wait.
///
/// # Errors
/// A port, a driver or descriptors that are not available.
pub fn prepare(config: &ServeConfig) -> Result<Prepared, ServeError> {
    stay_off_huge_pages();
    let public = bind_patiently(config.server.listen, usize::from(config.server.shards))?;
    let metrics = match config.metrics_port {
        MetricsPort::Required => Ok(bind_patiently(config.server.metrics_listen, 1)?),
        MetricsPort::Optional => listener::bind(config.server.metrics_listen, 1),
    };
    let admin = match config.admin_port {
        AdminPort::Off => None,
        AdminPort::Required(address) => Some(Ok(bind_patiently(address, 1)?)),
        AdminPort::Optional(address) => Some(listener::bind(address, 1)),
    };
    let (kind, driver_reason) = choose_driver(config.server.io, config.server.shards)?;
    let capacity = capacity_of(kind, config)?;
    Ok(Prepared { kind, driver_reason, capacity, public, metrics, admin })
}

/// If the host enables huge pages for every process, tables and the allocator's arenas would become resident in steps
/// of 2 MiB; fan-out is no faster for it (decisions 0003 and 0008).
fn stay_off_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "the host decides about huge pages");
    }
}

/// Binds, retrying for a moment while the port is in use: the kernel releases the rings of an ended process after the
/// process was reaped, and sockets that listen in them listen that long. A restart must not fail because of it.
fn bind_patiently(address: SocketAddr, sockets: usize) -> Result<Bound, BindError> {
    let start = Instant::now();
    loop {
        match listener::bind(address, sockets) {
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse && start.elapsed() < BIND_WITHIN => {
                std::thread::sleep(BIND_AGAIN_AFTER);
            }
            bound => return bound,
        }
    }
}

/// Serves until drained (P-CLOSE-1). `on_listening` is called once, when connections are accepted and all loops run.
///
/// # Errors
/// Anything that prevents the start, before `on_listening` is called; or a loop that failed later.
pub fn run(
    config: &ServeConfig,
    prepared: Prepared,
    store: Store,
    on_listening: impl FnOnce(&Listening),
) -> Result<(), ServeError> {
    let (events, inbox) = mpsc::channel();
    let signals = SignalThread::start(events.clone())?;
    let Prepared { kind, driver_reason, capacity, mut public, metrics, admin } = prepared;
    let metrics = or_warn(metrics, "continuing without the metrics port");
    let admin = admin.and_then(|bound| or_warn(bound, "continuing without the admin API"));
    match (config.server.io, kind) {
        (IoChoice::Auto, DriverKind::Epoll) => tracing::warn!(reason = driver_reason, "chose epoll"),
        _ => tracing::info!(reason = driver_reason, "chose {}", kind.label()),
    }
    tracing::info!(connections_per_shard = capacity.slots, "room for connections");
    let listening = Listening {
        public: public.address,
        metrics: metrics.as_ref().map(|bound| bound.address),
        admin: admin.as_ref().map(|bound| bound.address),
        driver: kind.label(),
        driver_reason,
        shards: config.server.shards,
    };

    let mailboxes = mailboxes(config.server.shards)?;
    let started = events.clone();
    let report = Box::new(move || drop(started.send(Event::ShardStarted)));
    let control = Arc::new(Control::with_started(Arc::clone(&mailboxes), report));
    let (clock, directory) = (Clock::start(), Arc::new(store.directory()?));
    let queue = Queue::open(&config.server.data, Missing::Create)?;
    let webhooks = Webhooks::start(queue.clone(), Arc::clone(&directory), clock, config.webhooks.clone())?;
    let authorizers = authorizers(config, clock, Arc::clone(&directory), &mailboxes);
    let refusals: Arc<Refusals> = Arc::default();
    let explainer = admin::explainer(config, &directory, &refusals);
    let shared = Shared {
        kind,
        capacity,
        zero_copy_bytes_min: zero_copy_bytes_min(config, kind),
        boot_secret: random()?,
        order: ChannelOrder { epoch: u64::from_ne_bytes(random()?), key: random()? },
        directory,
        store_writer: Arc::new(store_writer(
            store.clone(),
            &control,
            &mailboxes,
            (webhooks.handle(), authorizers.clone(), Arc::clone(&explainer)),
            &config.webhooks,
        )?),
        webhooks: webhooks.handle(),
        authorizers,
        refusals,
        explainer,
        identity: listening.identity(clock),
        replayer: Arc::new(Replayer::new(Arc::clone(&mailboxes))),
        mailboxes,
        control: Arc::clone(&control),
        clock,
        events,
    };
    shared.start_watchdog(config.server.watchdog)?;
    let admin = admin::start(&shared, config, admin, (store, queue), listening.public)?;
    let threads = shared.spawn_all(config, &mut public.sockets, metrics);
    if threads.is_err() {
        control.stop();
    }
    // From here on only threads send events, so the inbox ends with them.
    drop(shared);
    let threads = threads?;
    let ended = attend(&inbox, &control, config, threads.len(), || on_listening(&listening));
    for thread in threads {
        thread.join().expect("a panic on it would have ended the process");
    }
    drop(admin);
    // The last events of the shards are recorded before the process ends.
    drop(webhooks);
    drop(signals);
    ended
}

/// The inputs of all shard threads.
struct Shared {
    kind: DriverKind,
    capacity: Capacity,
    zero_copy_bytes_min: Option<u32>,
    boot_secret: [u8; 16],
    order: ChannelOrder,
    directory: Arc<crate::app::Directory>,
    store_writer: Arc<StoreWriter>,
    webhooks: WebhookHandle,
    authorizers: Authorizers,
    refusals: Arc<Refusals>,
    explainer: Arc<Explainer>,
    replayer: Arc<Replayer>,
    mailboxes: Arc<[Mailbox<Mail>]>,
    control: Arc<Control>,
    clock: Clock,
    identity: Identity,
    events: Sender<Event>,
}

/// The events that the server waits for.
enum Event {
    /// SIGTERM or SIGINT.
    Signal(i32),
    /// A loop runs.
    ShardStarted,
    /// A loop returned.
    ShardEnded(ShardIndex, std::io::Result<()>),
}

impl Shared {
    /// From here on a shard that stops turning for that long ends the process (R-PROC-3); 0 is never.
    fn start_watchdog(&self, limit_s: u32) -> Result<(), ServeError> {
        if limit_s == 0 {
            return Ok(());
        }
        let (beats, mailboxes) = (Arc::clone(self.control.beats()), Arc::clone(&self.mailboxes));
        watchdog::start(beats, mailboxes, Duration::from_secs(limit_s.into()))
            .map_err(|error| ServeError::start("start a thread", error))
    }

    /// Starts all shards, each with its share of the public port. Shard 0 serves health and metrics beside it.
    fn spawn_all(
        &self,
        config: &ServeConfig,
        public: &mut Vec<std::os::fd::OwnedFd>,
        metrics: Option<Bound>,
    ) -> Result<Vec<JoinHandle<()>>, ServeError> {
        let mut metrics = metrics.into_iter().flat_map(|bound| bound.sockets);
        let shards = (0..config.server.shards).zip(public.drain(..));
        let threads = shards.map(|(index, socket)| {
            let public = BoundListener { kind: Listener::Public, socket };
            let metrics = metrics.next().map(|socket| BoundListener { kind: Listener::Metrics, socket });
            self.spawn(config, index, std::iter::once(public).chain(metrics).collect())
        });
        threads.collect()
    }

    fn spawn(
        &self,
        config: &ServeConfig,
        index: ShardIndex,
        listeners: Vec<BoundListener>,
    ) -> Result<JoinHandle<()>, ServeError> {
        let setup = ShardSetup {
            index,
            listeners,
            mailboxes: Arc::clone(&self.mailboxes),
            control: Arc::clone(&self.control),
            clock: self.clock,
            slots: self.capacity.slots,
            refusal_slots: self.capacity.refusal_slots,
            zero_copy_bytes_min: self.zero_copy_bytes_min,
            host: Box::new(Process {
                store_writer: Arc::clone(&self.store_writer),
                webhooks: self.webhooks.clone(),
                authorizers: self.authorizers.clone(),
                refusals: Arc::clone(&self.refusals),
                replayer: Arc::clone(&self.replayer),
                clock: self.clock,
            }),
        };
        let shard = ShardConfig {
            index,
            shards: config.server.shards,
            slots: self.capacity.slots,
            refusal_slots: self.capacity.refusal_slots,
            boot_secret: self.boot_secret,
            order: self.order,
            directory: Arc::clone(&self.directory),
            options: ShardOptions { identity: self.identity.clone(), ..config.shard.clone() },
        };
        let kind = self.kind;
        let shards = config.server.shards;
        let events = self.events.clone();
        let run = move || {
            pin(index, shards);
            // Created here, so that its memory is near its core.
            let mut core = Shard::new(shard);
            let ended = driver::run(kind, setup, &mut core);
            // The server is notified of the end when all of this shard is gone, including its handle to the store
            // writer.
            drop(core);
            let _ = events.send(Event::ShardEnded(index, ended));
        };
        std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(run)
            .map_err(|error| ServeError::start("start a thread", error))
    }
}

/// This process around a shard.
struct Process {
    store_writer: Arc<StoreWriter>,
    webhooks: WebhookHandle,
    authorizers: Authorizers,
    refusals: Arc<Refusals>,
    replayer: Arc<Replayer>,
    clock: Clock,
}

impl Host for Process {
    fn token_used(&mut self, token: TokenId, at: Moment) {
        self.store_writer.token_used(token, at.unix_ms);
    }

    fn webhook(&mut self, event: WebhookEvent) {
        self.webhooks.accept(event);
    }

    fn change(&mut self, change: Change) {
        self.store_writer.change(change);
    }

    fn authorize(&mut self, authorize: Authorize) {
        self.authorizers.ask(authorize);
    }

    fn replayed(&mut self, call: u64, outcome: ReplayOutcome) {
        self.replayer.handle_answer(call, outcome);
    }

    fn messages_counted(&mut self, app: AppSerial, used: MessagesUsed) {
        self.store_writer.messages_counted(app, used);
    }

    fn refused(&mut self, line: &LogLine) -> Option<RefusalId> {
        self.refusals.keep(self.clock.read().monotonic_ms, line)
    }

    fn webhook_figures(&mut self) -> WebhookFigures {
        self.webhooks.figures()
    }

    fn authorizer_figures(&mut self) -> AuthorizerFigures {
        self.authorizers.figures()
    }
}

/// Waits for signals and shards until all shards have ended.
fn attend(
    inbox: &Receiver<Event>,
    control: &Control,
    config: &ServeConfig,
    shards: usize,
    on_listening: impl FnOnce(),
) -> Result<(), ServeError> {
    let mut on_listening = Some(on_listening);
    let (mut starting, mut running) = (shards, shards);
    let mut deadline: Option<Instant> = None;
    let mut failure = Ok(());
    while running > 0 {
        match receive(inbox, deadline) {
            Ok(Event::ShardStarted) => {
                starting -= 1;
                if starting == 0 {
                    on_listening.take().expect("each shard starts once")();
                }
            }
            Ok(Event::Signal(signal)) if deadline.is_some() => {
                tracing::warn!("a second signal: exiting at once");
                log_writer::flush(Duration::from_millis(LOG_FLUSH_MS));
                #[allow(clippy::disallowed_methods, reason = "the second signal requests an immediate exit")]
                std::process::exit(128 + signal);
            }
            Ok(Event::Signal(_)) => {
                let drain = config.shard.drain;
                tracing::info!("draining for at most {drain:?}; a second signal exits at once");
                deadline = Some(Instant::now() + drain + Duration::from_millis(DRAIN_OVERTIME_MS));
                control.drain();
            }
            Ok(Event::ShardEnded(shard, ended)) => {
                running -= 1;
                if let Err(error) = ended {
                    failure = Err(ServeError::Shard { shard, cause: error.to_string() });
                    control.stop();
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the drain took too long: stopping");
                deadline = Some(Instant::now() + Duration::from_secs(3_600));
                control.stop();
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    failure
}

fn receive(inbox: &Receiver<Event>, deadline: Option<Instant>) -> Result<Event, RecvTimeoutError> {
    match deadline {
        Some(deadline) => inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

/// The bound port, or `None` with a line in the log: only an optional port arrives here unbound.
fn or_warn(bound: Result<Bound, BindError>, consequence: &'static str) -> Option<Bound> {
    bound.inspect_err(|error| tracing::warn!(%error, "{consequence}")).ok()
}

/// The driver and why, one sentence.
fn choose_driver(choice: IoChoice, shards: u16) -> Result<(DriverKind, String), ServeError> {
    let probe = || uring::probe().and_then(|()| uring::probe_rings(shards));
    match choice {
        IoChoice::Epoll => Ok((DriverKind::Epoll, "--io epoll was requested".to_owned())),
        IoChoice::Uring => match probe() {
            Ok(()) => Ok((DriverKind::Uring, "--io uring was requested and a test connection worked".to_owned())),
            Err(cause) => Err(ServeError::Uring(cause)),
        },
        IoChoice::Auto => match probe() {
            Ok(()) => Ok((DriverKind::Uring, "a test connection over io_uring worked".to_owned())),
            Err(cause) => Ok((DriverKind::Epoll, format!("io_uring cannot be used here: {cause}"))),
        },
    }
}

/// The bound of `--send-zc` if it can be supported; otherwise the log says why not (hazard U12).
fn zero_copy_bytes_min(config: &ServeConfig, kind: DriverKind) -> Option<u32> {
    let bytes_min = config.server.send_zc?;
    let refused = match kind {
        DriverKind::Epoll => Err("it needs io_uring, and the driver is epoll".to_owned()),
        DriverKind::Uring => uring::probe_zero_copy(),
    };
    match refused {
        Ok(()) => {
            tracing::info!(bytes_min, "zero-copy sends are on trial");
            Some(bytes_min)
        }
        Err(reason) => {
            tracing::warn!(reason, "--send-zc has no effect");
            None
        }
    }
}

fn capacity_of(kind: DriverKind, config: &ServeConfig) -> Result<Capacity, ServeError> {
    let limit = capacity::raise_descriptor_limit();
    let by_descriptors = Capacity::from_descriptors(limit, config.server.shards)
        .ok_or(ServeError::Descriptors { limit, shards: config.server.shards })?;
    let by_memory = Capacity::from_memory(capacity::usable_memory_bytes(), config.server.shards);
    let possible = match kind {
        DriverKind::Uring => by_memory,
        DriverKind::Epoll if by_memory.slots < by_descriptors.slots => by_memory,
        DriverKind::Epoll => by_descriptors,
    };
    Ok(config
        .server
        .max_connections
        .map_or(possible, |connections| possible.limited(connections, config.server.shards)))
}

fn mailboxes(shards: u16) -> Result<Arc<[Mailbox<Mail>]>, ServeError> {
    let mailboxes = (0..shards).map(|_| Mailbox::new(MAILBOX_SLOTS)).collect::<Result<Vec<_>, _>>();
    mailboxes.map(Arc::from).map_err(|error| ServeError::start("make an eventfd", error))
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], ServeError> {
    let mut random = [0; BYTES];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| ServeError::start("read random bytes", "the system returned none"))?;
    Ok(random)
}

impl ServeError {
    /// A system resource that a start needs is not available.
    pub fn start(doing: &'static str, cause: impl ToString) -> Self {
        Self::Start { doing, cause: cause.to_string() }
    }
}

/// Pins the calling thread to one of the processors that the process may use, round robin. With fewer shards than
/// processors the kernel places them better than Relay could: two servers of one shard each would share a processor.
fn pin(index: ShardIndex, shards: u16) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect();
    if processors.is_empty() || usize::from(shards) < processors.len() {
        return;
    }
    let mut one = CpuSet::new();
    one.set(processors[usize::from(index) % processors.len()]);
    if let Err(error) = sched_setaffinity(None, &one) {
        tracing::debug!(%error, "shard {index} is not pinned");
    }
}
