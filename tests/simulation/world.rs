//! One run: the system, the wires, the clients and the model, and the clients' checks of what they read.

use std::sync::Arc;
use std::time::Duration;

use relay::limits::SERVED_STEP_MS_MAX;
use relay::moment::Moment;
use relay::shard::ShardOptions;

use crate::apps::{self, AppFacts, TokenFacts};
use crate::authorization::FlagHistory;
use crate::client::caller::Caller;
use crate::client::reader::Reader;
use crate::client::socket::SocketClient;
use crate::coverage::Happening;
use crate::fault::Fault;
use crate::network::Wire;
use crate::random::Random;
use crate::reference::{Model, Tick};
use crate::system::{SendStyle, System, SystemOptions};
use crate::trace::Trace;
use crate::users::UserFacts;

/// Longest time for which no shard has a turn, in ms.
const LATE_MS_MAX: usize = 60_000;
/// Due work is done within this when time passes in small steps, in ms: peers are checked a few turns later.
pub(crate) const JUDGED_WITHIN_MS: u64 = 600;

/// The properties of a run, chosen by its seed.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Events are large, so that slow readers overflow.
    pub(crate) large_events: bool,
    /// Many events are published while mail is held back, so that shards run out of credit for each other.
    pub(crate) flood: bool,
    /// Answers are long and many, so that reading pauses.
    pub(crate) long_answers: bool,
    /// The first app has a quota of connections.
    pub(crate) quota: bool,
    /// Slots are few, so that connections are refused.
    pub(crate) few_slots: bool,
    /// The run ends with a drain.
    pub(crate) drains: bool,
    /// The store changes.
    pub(crate) store_changes: bool,
    /// Clients violate the protocol.
    pub(crate) bad_input: bool,
    /// The app whose connections must authorize themselves in some phases.
    pub(crate) authorization: Option<usize>,
    /// Phases of chaos, each followed by a rest.
    pub(crate) phases: usize,
    /// Steps of one phase.
    pub(crate) steps: usize,
    /// Concurrent WebSocket clients.
    pub(crate) sockets_max: usize,
    /// Clients of streams and polls.
    pub(crate) readers: usize,
}

impl Scenario {
    fn draw(random: &mut Random) -> Self {
        let flood = random.one_in(80);
        let large_events = flood || random.one_in(24);
        // A run that a fuzzer steers is short: seeds cover cases that need many bytes.
        let bulky = !random.is_steered();
        Self {
            large_events: large_events && bulky,
            flood: flood && bulky,
            long_answers: random.one_in(30),
            quota: random.one_in(6),
            few_slots: random.one_in(12),
            drains: random.one_in(6),
            store_changes: random.one_in(4),
            bad_input: random.one_in(2),
            phases: random.between(2, 4),
            steps: random.between(70, 270),
            sockets_max: random.between(2, 9),
            authorization: random.one_in(3).then(|| random.below(2)),
            readers: random.between(0, 3),
        }
    }
}

/// A run in progress.
pub(crate) struct World {
    /// Source of randomness.
    pub(crate) random: Random,
    /// The properties of the run.
    pub(crate) scenario: Scenario,
    /// Steps so far.
    pub(crate) tick: Tick,
    /// The shards.
    pub(crate) system: System,
    /// All connections.
    pub(crate) wires: Vec<Wire>,
    /// WebSocket clients.
    pub(crate) sockets: Vec<SocketClient>,
    /// HTTP clients.
    pub(crate) callers: Vec<Caller>,
    /// Clients of streams and polls.
    pub(crate) readers: Vec<Reader>,
    /// Wires whose clients have sent their last byte and ignore what they are sent.
    pub(crate) ignored: Vec<usize>,
    /// The model.
    pub(crate) model: Model,
    /// Facts about users.
    pub(crate) users: UserFacts,
    /// A connection must authorize itself within this where its app demands it, in ms.
    pub(crate) authorization_ms: u64,
    /// The history of that flag, by app.
    pub(crate) flags: Vec<FlagHistory>,
    /// Apps.
    pub(crate) apps: Vec<AppFacts>,
    /// Tokens.
    pub(crate) tokens: Vec<TokenFacts>,
    /// Version of the store.
    pub(crate) version: u64,
    /// When the store last changed.
    pub(crate) changed_at: Tick,
    /// Since when every shard has had that state.
    pub(crate) stable_since: Tick,
    /// Drain was requested.
    pub(crate) draining: bool,
    /// Time that passed in this phase, in ms.
    pub(crate) phase_ms: u64,
    /// How many more times the shards may be late: signatures are valid for some minutes only.
    pub(crate) lates_left: u32,
}

impl World {
    /// A run from its source of randomness.
    pub(crate) fn new(mut random: Random, fault: Fault, trace: Trace) -> Self {
        let scenario = Scenario::draw(&mut random);
        // Where larger events are allowed, each uses less of the credit between shards.
        let data_bytes_max = if scenario.large_events && !scenario.flood { 300_000 } else { 10_240 };
        let mut apps = apps::apps(&mut random, data_bytes_max);
        if scenario.quota {
            apps[0].connections_max = random.between(1, 4) as u32;
            apps[0].soft_quota = random.one_in(2);
        }
        if let Some(app) = scenario.authorization {
            apps[app].authorized_connections = !random.one_in(4);
        }
        let authorization_timeout_s = *random.pick(&[2, 5, 20]);
        let flags = apps.iter().map(|app| FlagHistory::new(app.authorized_connections)).collect();
        let tokens = apps::tokens();
        let directory = apps::directory(1, &apps, &tokens);
        let options = SystemOptions {
            shards: *random.pick(&[1, 2, 3, 5]),
            slots: if scenario.few_slots { 6 } else { 48 },
            slots_kept_back: if scenario.few_slots { 2 } else { 0 },
            options: ShardOptions {
                trusted_proxies: vec!["127.2.0.0/16".parse().expect("a network")],
                drain: Duration::from_millis(*random.pick(&[0, 1_000, 10_000])),
                authorization_timeout: Duration::from_secs(authorization_timeout_s),
                // A flood has many requests, some of them with wrong credentials.
                auth_failures_per_minute: if scenario.flood {
                    10_000
                } else {
                    ShardOptions::default().auth_failures_per_minute
                },
                fan_out_step: *random.pick(&[1, 2, 5, ShardOptions::default().fan_out_step]),
                ..ShardOptions::default()
            },
            send_style: *random.pick(&[SendStyle::Immediate, SendStyle::Deferred, SendStyle::Mixed]),
            read_bytes_max: if scenario.flood {
                1 << 20
            } else if scenario.large_events || scenario.long_answers {
                16_384
            } else {
                *random.pick(&[64, 2_048, 16_384])
            },
        };
        let now = Moment {
            monotonic_ms: random.between(0, 100_000) as u64,
            unix_ms: 1_800_000_000_000 + random.below(1_000_000) as u64,
        };
        let mut boot_secret = [0; 16];
        boot_secret.copy_from_slice(&random.bytes(16));
        let system = System::new(options, &directory, boot_secret, now, fault, trace);
        Self {
            random,
            scenario,
            tick: 1,
            system,
            wires: Vec::new(),
            sockets: Vec::new(),
            callers: Vec::new(),
            readers: Vec::new(),
            ignored: Vec::new(),
            model: Model::default(),
            users: UserFacts::default(),
            authorization_ms: authorization_timeout_s * 1_000,
            flags,
            apps,
            tokens,
            version: 1,
            changed_at: 0,
            stable_since: 0,
            draining: false,
            phase_ms: 0,
            lates_left: 3,
        }
    }

    /// True when the events of this run may exceed the limit of events in flight between shards.
    pub(crate) fn may_overload(&self) -> bool {
        self.scenario.flood || self.scenario.large_events || self.scenario.long_answers
    }

    /// Time passes, on both clocks alike.
    pub(crate) fn pass_time(&mut self, ms: u64) {
        self.system.now.monotonic_ms += ms;
        self.system.now.unix_ms += ms;
        self.phase_ms += ms;
        self.system.wake_all(&mut self.wires, &mut self.random);
    }

    /// No shard has a turn for longer than most limits: the process is stopped, or its turns are long. Clients acted
    /// before, and none of that time counts against them (P-LIVE-6).
    pub(crate) fn be_late(&mut self) {
        let ms = self.random.between(1_000, LATE_MS_MAX) as u64;
        self.system.trace.note(|| format!("all shards are late by {ms} ms"));
        self.system.coverage.note(Happening::Late);
        self.system.late_ms += ms - SERVED_STEP_MS_MAX;
        self.lates_left -= 1;
        self.system.now.monotonic_ms += ms;
        self.system.now.unix_ms += ms;
        self.phase_ms += SERVED_STEP_MS_MAX;
        self.system.wake_all(&mut self.wires, &mut self.random);
    }

    /// The store changed.
    pub(crate) fn change_store(&mut self) {
        self.version += 1;
        self.changed_at = self.tick;
        self.stable_since = Tick::MAX;
        let directory = apps::directory(self.version, &self.apps, &self.tokens);
        self.system.publish_directory(&Arc::clone(&directory));
    }

    /// True when the store has not changed, anywhere, since this tick.
    pub(crate) fn store_is_stable_since(&self, started: Tick) -> bool {
        self.changed_at < started && self.stable_since <= started && !self.system.directory_is_spreading()
    }
}
