//! Chooses the next step: chaos in phases, each followed by a rest at which everything is checked, and the end of a
//! run.

use relay::limits::{REQUEST_WITHIN_MS, SERVED_STEP_MS_MAX, SLOW_RESET_MS, STALL_MS};
use relay::shard::ShardStats;

use crate::client::caller::Caller;
use crate::client::socket::{Phase, StepKind};
use crate::coverage::{Coverage, Happening};
use crate::fault::Fault;
use crate::random::Random;
use crate::reference::{READERS, Session, Tick};
use crate::system::Pace;
use crate::trace::Trace;
use crate::world::World;

/// Time that one phase of chaos may take, in ms: less than any deadline of a client that stays active.
const PHASE_MS_MAX: u64 = 1_500;
/// A run that has not come to rest after this many rounds never will.
const ROUNDS_MAX: usize = 20_000;

/// Executes a run to its end. Panics where a check fails; returns the digest of all steps, and the kinds of happenings.
pub(crate) fn run(random: Random, fault: Fault, trace: Trace) -> (u64, Coverage) {
    let mut world = World::new(random, fault, trace);
    world.run();
    (world.system.trace.digest(), world.system.coverage)
}

impl World {
    fn run(&mut self) {
        let scenario = self.scenario.clone();
        self.system.trace.note(|| format!("{scenario:?}"));
        for _ in 0..self.random.between(1, scenario.sockets_max) {
            self.connect_socket();
        }
        for _ in 0..self.random.between(0, 2) {
            self.connect_caller();
        }
        for _ in 0..scenario.readers {
            self.add_reader();
        }
        for phase in 0..scenario.phases {
            if self.random.has_run_out() && phase > 0 {
                break;
            }
            self.phase_ms = 0;
            if scenario.drains && phase + 1 == scenario.phases {
                self.start_drain();
            }
            let flip = if self.random.one_in(2) { self.random.below(scenario.steps) } else { scenario.steps };
            for step in 0..scenario.steps {
                if self.random.has_run_out() {
                    break;
                }
                if step == flip {
                    self.flip_authorization();
                }
                if scenario.flood && step == scenario.steps / 2 {
                    self.flood();
                }
                self.step();
            }
            self.rest();
        }
        self.finish();
    }

    /// One step of chaos.
    fn step(&mut self) {
        self.tick += 1;
        match self.random.weighted(&[84, 48, 70, 8, 4, 1]) {
            0 => {
                let shard = self.random.below(self.system.shards());
                self.system.turn(shard, &mut self.wires, &mut self.random, Pace::Chaos);
            }
            1 => self.read_someone(),
            2 => self.act(),
            3 => {
                let ms = self.random.below(40) as u64;
                if self.phase_ms + ms <= PHASE_MS_MAX {
                    self.pass_time(ms);
                }
            }
            4 => self.system.toggle_lane(&mut self.random),
            _ => {
                if self.lates_left > 0 && self.phase_ms + SERVED_STEP_MS_MAX <= PHASE_MS_MAX {
                    self.be_late();
                }
            }
        }
        self.note_store();
    }

    /// Records when every shard has received the store's newest state.
    fn note_store(&mut self) {
        if self.stable_since == Tick::MAX && !self.system.directory_is_spreading() {
            self.stable_since = self.tick;
            self.note_flags_known();
        }
    }

    fn read_someone(&mut self) {
        let bytes_max = match self.random.below(4) {
            0 => 1,
            1 => self.random.between(1, 100),
            _ => usize::MAX,
        };
        let clients = self.sockets.len() + self.callers.len() + self.readers.len();
        if clients == 0 {
            return;
        }
        for _ in 0..4 {
            let number = self.random.below(clients);
            let read = match (number.checked_sub(self.sockets.len()), number.checked_sub(clients - self.readers.len()))
            {
                (None, _) => self.read_socket(number, bytes_max),
                (Some(caller), None) => self.read_caller(caller, bytes_max),
                (Some(_), Some(reader)) => self.read_reader(reader, bytes_max),
            };
            if read {
                return;
            }
        }
    }

    /// A client or the operator acts.
    fn act(&mut self) {
        match self.random.weighted(&[60, 26, 8, 6, 2, 8]) {
            0 => {
                let talking = self.talking_sockets();
                if !talking.is_empty() {
                    let number = *self.random.pick(&talking);
                    self.step_socket(number);
                }
            }
            1 => {
                let talking = self.talking_callers();
                if !talking.is_empty() {
                    let number = *self.random.pick(&talking);
                    self.step_caller(number);
                }
            }
            2 if self.present_sockets().len() < self.scenario.sockets_max => self.connect_socket(),
            3 if self.talking_callers().len() < 3 => {
                self.connect_caller();
            }
            4 if self.scenario.store_changes => self.change_something(),
            5 if !self.readers.is_empty() => {
                let number = self.random.below(self.readers.len());
                self.step_reader(number);
            }
            _ => {}
        }
    }

    /// An app is disabled or enabled, a token revoked, or only the version changes.
    fn change_something(&mut self) {
        let app = self.random.below(self.apps.len());
        match self.random.below(8) {
            0..3 => {
                self.apps[app].enabled = !self.apps[app].enabled;
                for client in self.sockets.iter_mut().filter(|client| client.app == app) {
                    client.may_close.insert(4003);
                }
            }
            3..6 => self.tokens[0].revoked = true,
            6 => {
                self.apps[1].deleted = true;
                for client in self.sockets.iter_mut().filter(|client| client.app == 1) {
                    client.may_close.insert(4003);
                }
            }
            _ => {}
        }
        self.change_store();
    }

    fn start_drain(&mut self) {
        self.draining = true;
        self.system.coverage.note(Happening::Drained);
        self.system.drain_all();
        for client in &mut self.sockets {
            client.may_close.insert(4200);
        }
    }

    /// One shard receives nothing from the others while more is published than may be in flight to it: its subscribers
    /// are closed with 4200, so that they notice their gap, or the publishes get 503 (P-STAT-8).
    fn flood(&mut self) {
        let present = |session: &&Session| session.live && session.app == 0 && session.client < READERS;
        let listeners: Vec<(usize, String)> = self
            .model
            .sessions
            .iter()
            .filter(present)
            .map(|session| (self.wires[self.sockets[session.client].wire].shard, session.channel.clone()))
            .collect();
        if listeners.is_empty() {
            return;
        }
        let (deaf, channel) = self.random.pick(&listeners).clone();
        self.system.trace.note(|| format!("flood: shard {deaf} is deaf, {channel}"));
        self.system.hold_lanes_to(deaf);
        let wire = self.connect_to((deaf + 1) % self.system.shards());
        let caller = self.callers.len();
        self.callers.push(Caller::new(wire));
        // In portions, so that credit for the way to the owner comes back in time; all at once in some runs.
        let (requests, events) = *self.random.pick(&[(95, 10), (190, 5), (190, 5)]);
        let portion = if self.random.one_in(4) { requests } else { requests / 5 };
        for number in 1..=requests {
            self.tick += 1;
            self.publish_padded(caller, 0, &channel, events, 9_800);
            if number % portion == 0 {
                self.flow(Pace::Settle);
            }
        }
        self.system.release_lanes();
        self.flow(Pace::Gentle);
    }

    /// Runs everything that can happen without the clock.
    pub(crate) fn settle(&mut self) {
        self.system.release_lanes();
        self.flow(Pace::Settle);
        self.note_read_requests();
    }

    /// Runs everything that can happen without the clock and without delayed mail.
    fn flow(&mut self, pace: Pace) {
        for _ in 0..ROUNDS_MAX {
            self.tick += 1;
            let mut moved = false;
            for shard in 0..self.system.shards() {
                moved |= self.system.turn(shard, &mut self.wires, &mut self.random, pace);
            }
            for number in 0..self.sockets.len() {
                moved |= self.read_socket(number, usize::MAX);
            }
            for number in 0..self.callers.len() {
                moved |= self.read_caller(number, usize::MAX);
            }
            for number in 0..self.readers.len() {
                moved |= self.read_reader(number, usize::MAX);
            }
            moved |= self.read_ignored();
            if !moved {
                self.note_store();
                return;
            }
        }
        panic!("the run does not come to rest");
    }

    /// Time passes in hops; the run comes to rest at each.
    fn jump(&mut self, ms: u64, hop_ms_max: usize) {
        let end = self.system.now.monotonic_ms + ms;
        while self.system.now.monotonic_ms < end {
            let hop = self.random.between(hop_ms_max * 3 / 4, hop_ms_max) as u64;
            let left = end - self.system.now.monotonic_ms;
            self.pass_time(hop.min(left));
            self.settle();
        }
    }

    /// The run comes to rest: slow readers are handled or continue reading, time may pass, and everything is checked.
    fn rest(&mut self) {
        self.settle();
        if self.random.one_in(6) && !self.random.is_steered() {
            self.outlast_stalled();
        }
        for client in &mut self.sockets {
            client.stalled = false;
        }
        for caller in &mut self.callers {
            caller.stalled = false;
        }
        for reader in &mut self.readers {
            reader.stalled = false;
        }
        if !self.random.one_in(4) {
            self.ask_for_idle_readers();
        }
        self.settle();
        // Work that a directory or a close leaves to a timer is done within this.
        self.jump(3_500, 200);
        self.check_rest();
        self.ask_counts();
        self.check_rest();
        self.check_quota();
        // Minutes of quiet would be most of a run that a fuzzer steers.
        let long = if self.random.is_steered() { usize::MAX } else { self.random.below(48) };
        if long <= 2 {
            // Idle connections are closed in this time, perhaps while a next request is in flight.
            for caller in &mut self.callers {
                caller.may_vanish = true;
            }
            for reader in &mut self.readers {
                reader.may_end |= !reader.is_open();
            }
        }
        match long {
            0 => self.outlast_vanished(),
            1..=2 => self.jump(70_000, 200),
            3..=6 if !self.scenario.few_slots => self.step_wall_clock(),
            _ => {}
        }
    }

    /// Slow readers with bytes pending are closed within the stall bound and the reset that follows (P-CLOSE-5).
    fn outlast_stalled(&mut self) {
        let stalled: Vec<usize> = self
            .sockets
            .iter()
            .filter(|client| client.stalled && client.phase == Phase::Open)
            .map(|client| client.wire)
            .collect();
        let owed: Vec<usize> = stalled.into_iter().filter(|wire| self.system.is_sending_to(*wire)).collect();
        // A stall is detected at the sweep's next visit and closed two visits later, each visit a step late at most.
        self.jump(STALL_MS + STALL_MS / 2 + SLOW_RESET_MS + 1_500, 100);
        for wire in owed {
            assert!(!self.system.holds(wire), "wire {wire} is owed bytes, reads nothing and is still open (P-CLOSE-5)");
        }
    }

    /// Clients that vanish silently are detected (P-LIVE-4); the others answer pings and stay open.
    fn outlast_vanished(&mut self) {
        let talking = self.talking_sockets();
        let vanished: Vec<usize> = talking.into_iter().filter(|_| self.random.one_in(3)).collect();
        for number in &vanished {
            self.sockets[*number].vanished = true;
            self.forget_socket(*number);
        }
        // 190 s, and once more the 35 s for the pong when an event was in flight to the client at the visit.
        self.jump(230_000, 100);
        for number in vanished {
            let wire = self.sockets[number].wire;
            assert!(!self.system.holds(wire), "client {number} vanished 230 s ago and is still held (P-LIVE-4)");
        }
    }

    /// The wall clock steps; elapsed times must not depend on it.
    fn step_wall_clock(&mut self) {
        let step = self.random.between(0, 2_000_000_000) as u64;
        let now = &mut self.system.now;
        now.unix_ms = if self.random.one_in(2) { now.unix_ms + step } else { now.unix_ms - step };
    }

    /// All checks at rest.
    fn check_rest(&mut self) {
        self.check_users();
        self.check_authorization();
        self.check_webhooks();
        let (sockets, readers) = (&self.sockets, &self.readers);
        self.model.check_at_rest(|client| match client.checked_sub(READERS) {
            Some(reader) => !readers[reader].stalled,
            None => !sockets[client].stalled && !sockets[client].vanished,
        });
        self.check_readers();
        for (number, client) in self.sockets.iter().enumerate() {
            // One that waits for a free slot is not closed yet.
            if let Some(code) = client.must_close.filter(|_| !client.may_vanish && client.phase != Phase::Gone)
                && self.system.holds(client.wire)
            {
                assert_eq!(client.close_read, Some(code), "client {number} must have been closed");
            }
            if !client.can_talk() {
                continue;
            }
            assert_eq!(client.pongs, client.operations.len() as u64, "client {number} waits for an answer");
            assert!(client.complaints.is_empty(), "nothing called for {:?} to client {number}", client.complaints);
            assert!(client.must_close.is_none(), "client {number} must have been closed with {:?}", client.must_close);
            for (channel, steps) in &client.channels {
                let waits = matches!(steps.last().map(|step| &step.kind), Some(StepKind::Joining { .. }));
                assert!(!waits, "client {number} waits for its subscription to {channel}");
            }
            assert!(client.pings.is_empty(), "client {number} waits for {} pongs", client.pings.len());
            let app = &self.apps[client.app];
            assert!(app.enabled && !app.deleted, "client {number} of a disabled app is still open (P-CLOSE-4)");
        }
        let present = |caller: &&Caller| !caller.gone && !caller.may_vanish && self.system.holds(caller.wire);
        for caller in self.callers.iter().filter(present) {
            assert!(caller.owed.is_empty(), "a caller waits for {:?}", caller.owed);
            assert!(!caller.ended, "a caller asked for the end of its connection");
        }
        let now = self.system.served_ms();
        for caller in &self.callers {
            let overdue = caller.dangling_since_ms.is_some_and(|since| since + REQUEST_WITHIN_MS + 2_000 < now);
            assert!(!overdue || !self.system.holds(caller.wire), "half a request is waited for too long (threat T14)");
        }
        self.check_stats();
    }

    /// Closures whose reasons the shards distinguish and clients do not.
    fn note_closures(&mut self) {
        for stats in self.system.stats() {
            for _ in 0..stats.slow_closed {
                self.system.coverage.note(Happening::SlowClosed);
            }
            for _ in 0..stats.gap_closed {
                self.system.coverage.note(Happening::GapClosed);
            }
        }
    }

    /// The shards' counts equal the model's.
    fn check_stats(&self) {
        let stats = self.system.stats();
        let sum = |figure: fn(&ShardStats) -> u64| stats.iter().map(figure).sum::<u64>();
        let waiting = self
            .sockets
            .iter()
            .any(|client| client.phase == Phase::Greeting || client.broken && client.phase != Phase::Gone);
        if !waiting {
            let open =
                self.sockets.iter().filter(|client| client.phase == Phase::Open && client.close_read.is_none()).count();
            assert_eq!(sum(|stats| stats.websockets), open as u64, "open WebSockets: {stats:?}");
        }
        let live = self.model.sessions.iter().filter(|session| session.live);
        assert_eq!(sum(|stats| stats.subscriptions), live.clone().count() as u64, "subscriptions: {stats:?}");
        let mut channels: Vec<(usize, &str)> = live.map(|session| (session.app, session.channel.as_str())).collect();
        channels.sort_unstable();
        channels.dedup();
        // Channels with a history are known for some time after their last subscriber.
        assert!(sum(|stats| stats.owned_channels) >= channels.len() as u64, "owned channels: {stats:?}");
        assert_eq!(sum(|stats| stats.frames), 0, "frames are held while nobody is owed any: {stats:?}");
        assert_eq!(sum(|stats| stats.send_bytes), 0, "bytes are held while nobody is owed any: {stats:?}");
    }

    /// When all are gone: every WebSocket that was counted in was counted out, every event belongs to some app, and no
    /// time was recorded for more events than were queued.
    fn check_figures(&mut self) {
        let a_deleted_app_is_forgotten = self.apps.iter().any(|app| app.deleted);
        for shard in self.system.snapshots() {
            let (mut events, mut sent_bytes) = (0, 0);
            for (serial, app) in &shard.apps {
                assert_eq!(app.connected, 0, "{serial:?}: {app:?}");
                assert_eq!(app.connections, app.disconnections, "{serial:?}: {app:?}");
                events += app.events + app.client_events;
                sent_bytes += app.socket_sent_bytes;
            }
            assert!(events == shard.stats.events || a_deleted_app_is_forgotten, "{events} of {:?}", shard.stats);
            assert!(sent_bytes <= shard.figures.sent_bytes, "{sent_bytes} of {:?}", shard.figures);
            assert!(shard.figures.publish_to_last_write.count() <= shard.stats.deliveries, "{:?}", shard.figures);
        }
    }

    /// Publishes and requests the counts of its channel, then of all channels, while nothing else moves (P-HTTP-3,
    /// P-HTTP-11).
    fn ask_counts(&mut self) {
        self.tick += 1;
        let caller = self.connect_caller();
        for app in 0..self.apps.len() {
            if !self.callers[caller].can_talk() {
                break;
            }
            let channel = self.random.pick(&self.apps[app].channels).clone();
            // With few slots the request may wait for one, and the run continue meanwhile.
            self.publish_to(caller, app, vec![channel], !self.scenario.few_slots);
            if self.callers[caller].can_talk() {
                self.list_channels(caller, app, !self.scenario.few_slots);
            }
        }
        self.settle();
        assert!(
            self.callers[caller].owed.is_empty() || self.callers[caller].gone || self.scenario.few_slots,
            "the counts were not told"
        );
        self.wires[self.callers[caller].wire].client_finish();
        self.callers[caller].ended = true;
        self.callers[caller].may_vanish = true;
        self.settle();
    }

    /// All clients go; nothing may be left over.
    fn finish(&mut self) {
        if self.draining {
            self.jump(12_500, 200);
            assert!(self.system.is_drained(), "the grace period is over and the process is not drained (P-CLOSE-1)");
            let open =
                self.sockets.iter().filter(|client| client.phase == Phase::Open && client.close_read.is_none()).count();
            assert_eq!(open, 0, "WebSockets outlast the drain (P-CLOSE-1)");
        }
        for number in self.present_sockets() {
            self.leave(number);
        }
        for number in 0..self.callers.len() {
            if !self.callers[number].gone {
                self.wires[self.callers[number].wire].client_reset(false);
                self.forget_caller(number);
            }
        }
        if self.scenario.store_changes && !self.readers.is_empty() {
            // A sweep visits every stream.
            self.jump(6_000, 200);
            self.check_credentials();
        }
        for number in 0..self.readers.len() {
            self.cut_reader(number);
        }
        self.settle();
        self.jump(5_000, 200);
        self.check_rest();
        // Histories outlive their subscribers, but not their time.
        self.jump(45_000, 1_000);
        self.system.assert_empty();
        for (shard, stats) in self.system.stats().iter().enumerate() {
            let expected = ShardStats {
                events: stats.events,
                deliveries: stats.deliveries,
                slow_closed: stats.slow_closed,
                gap_closed: stats.gap_closed,
                ..ShardStats::default()
            };
            assert_eq!(*stats, expected, "shard {shard} has something left over");
        }
        self.check_figures();
        self.note_closures();
        let waits = self.system.next_timeout();
        self.system.trace.note(|| format!("at the end the next timeout is {waits:?}"));
    }
}
