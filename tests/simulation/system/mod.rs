//! The shards under test and their driver: the third one, beside io_uring and epoll. It keeps the contract of
//! `relay::shard` and uses every freedom that the contract allows: reads split anywhere, short and late sends, late
//! closes, mail delayed per pair of shards, timeouts fed early. It asserts that the shards keep their side of the
//! contract.

use std::collections::VecDeque;
use std::sync::Arc;

use relay::app::{AppSerial, Directory};
use relay::connection::ConnectionKey;
use relay::limits::SEND_BYTES_MAX;
use relay::metrics::figures::{DriverFigures, Snapshot};
use relay::moment::Moment;
use relay::shard::{
    ChannelOrder, Input, Listener, Mail, Output, Shard, ShardConfig, ShardIndex, ShardOptions, ShardStats,
};

use crate::coverage::{Coverage, Happening};
use crate::fault::Fault;
use crate::network::{End, Wire};
use crate::random::Random;
use crate::trace::Trace;

mod feed;
mod told;

use told::Told;
pub(crate) use told::{Departure, ToldEvent};

/// How sends complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SendStyle {
    /// At once and reported at once, as a non-blocking send.
    Immediate,
    /// In flight for a while, as an operation on a ring.
    Deferred,
    /// Either, at random.
    Mixed,
}

/// The size of a turn and of its reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// A few inputs, small reads.
    Chaos,
    /// All available inputs, so that the run comes to rest.
    Settle,
    /// One input at a time, mail last, so that readers keep up.
    Gentle,
}

/// The configuration of the system.
#[derive(Clone, Debug)]
pub(crate) struct SystemOptions {
    /// The number of shards.
    pub(crate) shards: ShardIndex,
    /// Slots of one shard, reserved ones included.
    pub(crate) slots: u32,
    /// Slots reserved for refusals.
    pub(crate) slots_kept_back: usize,
    /// The operator's settings.
    pub(crate) options: ShardOptions,
    /// How sends complete.
    pub(crate) send_style: SendStyle,
    /// Largest read of the driver, in bytes.
    pub(crate) read_bytes_max: usize,
}

/// A send whose bytes are borrowed and which is not reported yet.
#[derive(Debug)]
struct Sending {
    bytes: Vec<u8>,
    /// Taken by the kernel and not reported; 0 while nothing was.
    taken: usize,
}

/// The driver's side of one connection.
#[derive(Debug)]
struct Link {
    wire: usize,
    paused: bool,
    /// A read was in flight when `Pause` came: it may still complete once.
    straggler: bool,
    read_ended: bool,
    sending: Option<Sending>,
    /// The first byte of the rest of a short send: the next send must begin with it, since part of the frame was sent.
    remainder: Option<u8>,
    finishing: bool,
    /// `Close` was requested, with this `reset`.
    closing: Option<bool>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    link: Option<Link>,
}

/// One shard with its driver's tables.
struct Host {
    shard: Shard,
    slots: Vec<Slot>,
    free: Vec<u32>,
    backlog: VecDeque<(usize, Listener)>,
    directories: VecDeque<Arc<Directory>>,
    drain: Option<bool>,
    /// Inputs that the sockets had ready at the shard's last `CaughtUp` and that were not fed since.
    behind: Vec<Ready>,
    /// The number of `CaughtUp` inputs since time passed.
    caught_up: u32,
    /// When a connection last took one of the reserved slots, in ms.
    full_ms: Option<u64>,
    /// How often in a row it asked for another timeout immediately after one.
    at_once: u32,
}

/// A shard asks for an immediate turn while events are queued to only a part of their subscribers: at most this often,
/// where channels have 48 subscribers and 64 such events are in flight.
const AT_ONCE_MAX: u32 = 48 * 64;

/// Mail from one shard to another, in order; a held lane currently delivers nothing.
#[derive(Default)]
struct Lane {
    mails: VecDeque<Mail>,
    held: bool,
}

/// An input that can be fed to a shard now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ready {
    Accept,
    Read(u32),
    ReadEnd(u32),
    Sent(u32),
    Close(u32),
    Mail(usize),
    Timeout,
    Directory,
    Drain,
}

/// All shards of a process.
pub(crate) struct System {
    /// The time, on both clocks.
    pub(crate) now: Moment,
    /// Time in which no shard had a turn, in ms: it does not count against peers (P-LIVE-6).
    pub(crate) late_ms: u64,
    /// The steps so far, as a digest and, if wanted, as text.
    pub(crate) trace: Trace,
    /// Tokens reported as used.
    pub(crate) tokens_used: Vec<String>,
    /// Events sent to webhooks.
    pub(crate) told: Told,
    /// Happenings, by kind.
    pub(crate) coverage: Coverage,
    hosts: Vec<Host>,
    lanes: Vec<Lane>,
    options: SystemOptions,
    fault: Fault,
    read_buffer: Vec<u8>,
}

impl System {
    /// Makes the shards.
    pub(crate) fn new(
        options: SystemOptions,
        directory: &Arc<Directory>,
        boot_secret: [u8; 16],
        now: Moment,
        fault: Fault,
        trace: Trace,
    ) -> Self {
        let hosts = (0..options.shards)
            .map(|index| Host {
                shard: Shard::new(ShardConfig {
                    index,
                    shards: options.shards,
                    slots: options.slots,
                    refusal_slots: options.slots_kept_back as u32,
                    boot_secret,
                    order: ChannelOrder { epoch: 1, key: boot_secret },
                    directory: Arc::clone(directory),
                    options: options.options.clone(),
                }),
                slots: (0..options.slots).map(|_| Slot::default()).collect(),
                free: (0..options.slots).rev().collect(),
                backlog: VecDeque::new(),
                directories: VecDeque::new(),
                drain: None,
                behind: Vec::new(),
                caught_up: 0,
                full_ms: None,
                at_once: 0,
            })
            .collect();
        let lanes = (0..usize::from(options.shards).pow(2)).map(|_| Lane::default()).collect();
        Self {
            now,
            late_ms: 0,
            trace,
            tokens_used: Vec::new(),
            told: Told::default(),
            coverage: Coverage::default(),
            hosts,
            lanes,
            options,
            fault,
            read_buffer: Vec::new(),
        }
    }

    /// The number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.hosts.len()
    }

    /// A client's connection arrives at this shard's listener.
    pub(crate) fn connect(&mut self, shard: usize, wire: usize, listener: Listener) {
        self.hosts[shard].backlog.push_back((wire, listener));
    }

    /// The store changed; each shard receives the change when its turn comes.
    pub(crate) fn publish_directory(&mut self, directory: &Arc<Directory>) {
        self.told.note_directory(directory, (1..=2).map(AppSerial));
        for host in &mut self.hosts {
            host.directories.push_back(Arc::clone(directory));
        }
    }

    /// True while a shard has not received the newest directory.
    pub(crate) fn directory_is_spreading(&self) -> bool {
        self.hosts.iter().any(|host| !host.directories.is_empty())
    }

    /// The process must end.
    pub(crate) fn drain_all(&mut self) {
        for host in &mut self.hosts {
            host.drain = Some(false);
        }
    }

    /// True once every shard reports that it is drained.
    pub(crate) fn is_drained(&self) -> bool {
        self.hosts.iter().all(|host| host.shard.is_drained())
    }

    /// Delays or releases the mail of one pair of shards.
    pub(crate) fn toggle_lane(&mut self, random: &mut Random) {
        let lane = random.below(self.lanes.len());
        self.lanes[lane].held = !self.lanes[lane].held;
    }

    /// Delays all mail to one shard.
    pub(crate) fn hold_lanes_to(&mut self, shard: usize) {
        let shards = self.shards();
        for from in 0..shards {
            self.lanes[from * shards + shard].held = true;
        }
    }

    /// Releases all delayed mail.
    pub(crate) fn release_lanes(&mut self) {
        for lane in &mut self.lanes {
            lane.held = false;
        }
    }

    /// The earliest time at which a shard wants a timeout, on the monotonic clock in ms.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.hosts.iter().filter_map(|host| host.shard.poll_timeout()).min()
    }

    /// The time on the monotonic clock, without the time in which no shard had a turn, in ms.
    pub(crate) fn served_ms(&self) -> u64 {
        self.now.monotonic_ms - self.late_ms
    }

    /// Time has passed: each shard has a turn, in which only its timeout is fed. The inputs waiting in its sockets are
    /// not, so it may not be caught up.
    pub(crate) fn wake_all(&mut self, wires: &mut [Wire], random: &mut Random) {
        for index in 0..self.hosts.len() {
            self.trace.note(|| format!("shard {index}: wakes"));
            self.hosts[index].caught_up = 0;
            self.input(index, Input::Timeout);
            self.catch_up(index, wires);
            self.drain(index, wires, random, &[]);
        }
    }

    /// Statistics of each shard.
    pub(crate) fn stats(&self) -> Vec<ShardStats> {
        self.hosts.iter().map(|host| host.shard.stats()).collect()
    }

    /// All counts of each shard.
    pub(crate) fn snapshots(&mut self) -> Vec<Snapshot> {
        self.hosts.iter_mut().map(|host| host.shard.snapshot()).collect()
    }

    /// True when no connection, mail or send is in flight anywhere.
    pub(crate) fn assert_empty(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let open = host.slots.iter().filter(|slot| slot.link.is_some()).count();
            assert_eq!(open, 0, "shard {index} has not closed {open} connections whose clients are gone");
            assert!(host.backlog.is_empty(), "shard {index} left connections in its backlog");
            assert!(
                !host.shard.has_waiting(),
                "shard {index} keeps requests, polls or counts of clients that are gone"
            );
        }
        assert!(self.lanes.iter().all(|lane| lane.mails.is_empty()), "mail is left over");
    }

    /// True when a send to this wire is in flight.
    pub(crate) fn is_sending_to(&self, wire: usize) -> bool {
        let mut links = self.hosts.iter().flat_map(|host| host.slots.iter().filter_map(|slot| slot.link.as_ref()));
        links.any(|link| link.wire == wire && link.sending.is_some())
    }

    /// True while the driver holds this wire, accepted and not closed.
    pub(crate) fn holds(&self, wire: usize) -> bool {
        let mut links = self.hosts.iter().flat_map(|host| host.slots.iter().filter_map(|slot| slot.link.as_ref()));
        links.any(|link| link.wire == wire)
    }

    /// Runs one turn of a shard: a batch of inputs, then all outputs and sends. False when nothing was due.
    pub(crate) fn turn(&mut self, index: usize, wires: &mut [Wire], random: &mut Random, pace: Pace) -> bool {
        let inputs_max = match pace {
            Pace::Chaos => random.between(1, 6),
            Pace::Settle => random.between(4, 64),
            Pace::Gentle => 1,
        };
        let at_us = (self.now.monotonic_ms + 1) * 1_000;
        self.hosts[index].shard.handle_turn_begin(at_us);
        let mut closed = Vec::new();
        let mut timeout_fed = false;
        let mut fed = 0;
        while fed < inputs_max {
            let mut ready = self.ready(index, wires);
            if pace == Pace::Gentle && ready.iter().any(|ready| !matches!(ready, Ready::Mail(_))) {
                ready.retain(|ready| !matches!(ready, Ready::Mail(_)));
            }
            if ready.is_empty() {
                break;
            }
            let chosen = *random.pick(&ready);
            timeout_fed = chosen == Ready::Timeout;
            self.feed(index, chosen, wires, random, pace, &mut closed);
            fed += 1;
        }
        if pace == Pace::Chaos && random.one_in(64) {
            self.trace.note(|| format!("shard {index}: timeout, early"));
            self.input(index, Input::Timeout);
            fed += 1;
        }
        if fed == 0 {
            return false;
        }
        let settled = self.hosts[index].caught_up > 1;
        self.catch_up(index, wires);
        self.drain(index, wires, random, &closed);
        self.hosts[index].shard.handle_turn_end(at_us + 10, &DriverFigures::default());
        if timeout_fed && fed == 1 && settled {
            let host = &mut self.hosts[index];
            let timeout = host.shard.poll_timeout();
            let at_once = timeout.is_some_and(|at| at <= self.now.monotonic_ms);
            host.at_once = if at_once { host.at_once + 1 } else { 0 };
            assert!(
                host.at_once < AT_ONCE_MAX,
                "shard {index} still asks for {timeout:?} after a timeout at {}: its driver would spin",
                self.now.monotonic_ms
            );
        }
        true
    }

    /// Feeds `CaughtUp` to a shard when every input that its sockets had ready at the last `CaughtUp` was fed.
    fn catch_up(&mut self, index: usize, wires: &[Wire]) {
        let of_sockets =
            |ready: &Ready| matches!(ready, Ready::Read(_) | Ready::ReadEnd(_) | Ready::Sent(_) | Ready::Close(_));
        let ready: Vec<Ready> = self.ready(index, wires).into_iter().filter(of_sockets).collect();
        let host = &mut self.hosts[index];
        host.behind.retain(|known| ready.contains(known));
        if host.behind.is_empty() {
            host.behind = ready;
            host.caught_up += 1;
            self.trace.note(|| format!("shard {index}: caught up"));
            self.input(index, Input::CaughtUp);
        }
    }

    fn input(&mut self, index: usize, input: Input<'_>) {
        self.hosts[index].shard.handle_input(self.now, input);
    }

    /// All inputs that can be fed to this shard now.
    fn ready(&self, index: usize, wires: &[Wire]) -> Vec<Ready> {
        let host = &self.hosts[index];
        let mut ready = Vec::new();
        if !host.backlog.is_empty() && !host.free.is_empty() {
            ready.push(Ready::Accept);
        }
        for (number, slot) in host.slots.iter().enumerate() {
            let Some(link) = &slot.link else { continue };
            link_ready(link, &wires[link.wire], number as u32, &mut ready);
        }
        let shards = self.hosts.len();
        for from in 0..shards {
            let lane = &self.lanes[from * shards + index];
            if !lane.held && !lane.mails.is_empty() {
                ready.push(Ready::Mail(from));
            }
        }
        if host.shard.poll_timeout().is_some_and(|at| at <= self.now.monotonic_ms) {
            ready.push(Ready::Timeout);
        }
        if !host.directories.is_empty() {
            ready.push(Ready::Directory);
        }
        if host.drain == Some(false) {
            ready.push(Ready::Drain);
        }
        ready
    }

    /// Drains outputs and sends until both give `None`.
    fn drain(&mut self, index: usize, wires: &mut [Wire], random: &mut Random, closed: &[ConnectionKey]) {
        for _ in 0..100_000 {
            let mut moved = false;
            self.hosts[index].shard.end_batch();
            while let Some(output) = self.hosts[index].shard.poll_output() {
                moved = true;
                self.handle_output(index, output, wires, closed);
            }
            while let Some(slot) = self.lend(index) {
                moved = true;
                let at_once = match self.options.send_style {
                    SendStyle::Immediate => true,
                    SendStyle::Deferred => false,
                    SendStyle::Mixed => random.one_in(2),
                };
                let wire = self.link(index, slot).wire;
                if at_once && wires[wire].server_space() > 0 && wires[wire].server_sees() != End::Reset {
                    self.take(index, slot, wires, random, Pace::Chaos);
                    self.feed_sent(index, slot, wires);
                }
            }
            if !moved {
                assert!(!self.hosts[index].shard.has_pending(), "shard {index} has something pending after a drain");
                return;
            }
        }
        panic!("shard {index} never stops asking");
    }

    /// Takes the next send of a shard and returns its slot.
    fn lend(&mut self, index: usize) -> Option<u32> {
        let host = &mut self.hosts[index];
        let flush = host.shard.poll_flush()?;
        let connection = flush.connection;
        let slot = host.slots.get_mut(connection.slot as usize).expect("sends name a slot that exists");
        assert_eq!(slot.generation, connection.generation, "a send for a connection that is gone");
        let link = slot.link.as_mut().expect("a send for a connection that is gone");
        assert!(link.closing.is_none(), "a send after Close for {connection:?}");
        assert!(link.sending.is_none(), "two sends at once for {connection:?}");
        assert!((1..=SEND_BYTES_MAX).contains(&flush.bytes.len()), "a send of {} bytes", flush.bytes.len());
        assert!(!link.finishing || link.remainder.is_some(), "a new send after ShutdownWrite for {connection:?}");
        let goes_on = link.remainder.is_none_or(|first| first == flush.bytes[0]);
        assert!(goes_on, "a short send of {connection:?} does not go on where it ended");
        link.sending = Some(Sending { bytes: flush.bytes.to_vec(), taken: 0 });
        let bytes = flush.bytes.len();
        self.trace.mix(bytes as u64);
        self.trace.note(|| format!("shard {index}: {connection:?} lends {bytes}"));
        Some(connection.slot)
    }

    fn handle_output(&mut self, index: usize, output: Output, wires: &mut [Wire], closed: &[ConnectionKey]) {
        self.trace.note(|| format!("shard {index}: output {output:?}"));
        match output {
            Output::Close { connection, reset } => {
                if reset {
                    self.coverage.note(Happening::Reset);
                }
                if let Some(link) = self.live(index, connection, closed) {
                    assert!(link.closing.is_none(), "Close twice for {connection:?}");
                    link.closing = Some(reset);
                }
            }
            Output::ShutdownWrite { connection } => {
                self.coverage.note(Happening::ShutWrite);
                if let Some(link) = self.live(index, connection, closed) {
                    assert!(!link.finishing, "ShutdownWrite twice for {connection:?}");
                    link.finishing = true;
                    let wire = link.wire;
                    assert!(link.sending.is_some() || link.remainder.is_none(), "ShutdownWrite over a short send");
                    if link.sending.is_none() {
                        wires[wire].server_finish();
                    }
                }
            }
            Output::Pause { connection } => {
                self.coverage.note(Happening::Paused);
                if let Some(link) = self.live(index, connection, closed) {
                    link.straggler = !link.paused;
                    link.paused = true;
                }
            }
            Output::Resume { connection } => {
                if let Some(link) = self.live(index, connection, closed) {
                    link.paused = false;
                }
            }
            Output::Mail { to, mail } => {
                let shards = self.hosts.len();
                assert_ne!(usize::from(to), index, "mail to itself");
                self.coverage.note(Happening::Mail);
                self.lanes[index * shards + usize::from(to)].mails.push_back(mail);
                self.trace.mix(u64::from(to));
            }
            Output::Log(line) => {
                let texts = [&line.app, &line.channel, &line.key, &line.socket_id].into_iter().flatten();
                for text in texts {
                    assert!(!text.contains(char::is_control), "a peer breaks a line of the log (T27): {line:?}");
                }
                let kept = format!("{:?}", line.kept.map(|kept| (kept.signature, kept.key)));
                let run = kept.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max();
                assert!(run < Some(32), "more of a signature is kept than 8 digits (T55): {kept}");
            }
            Output::MeasureProcess => panic!("nobody asks for figures here"),
            Output::TokenUsed { token, at } => {
                assert_eq!(at, self.now, "a token is used when the request is handled");
                self.tokens_used.push(token.to_string());
            }
            Output::Authorize(authorize) => panic!("nobody asked for {authorize:?}"),
            Output::Change(change) => panic!("nobody asked for {change:?}"),
            Output::Replayed { call, outcome } => panic!("nobody made call {call}: {outcome:?}"),
            Output::Webhook(event) => {
                self.coverage.note(Happening::WebhookTold);
                let draining = self.hosts.iter().any(|host| host.drain.is_some());
                let served_ms = self.served_ms();
                self.told.note(&event, self.now, served_ms, draining);
            }
            // For the store and the log, which the simulation does not have.
            Output::MessagesCounted { .. } | Output::MisleadingName { .. } => {}
        }
    }

    /// The link that an output names; `None` when it was closed in this very turn.
    fn live(&mut self, index: usize, connection: ConnectionKey, closed: &[ConnectionKey]) -> Option<&mut Link> {
        if closed.contains(&connection) {
            return None;
        }
        let slot = &mut self.hosts[index].slots[connection.slot as usize];
        assert_eq!(slot.generation, connection.generation, "an output for a connection that is gone");
        let link = slot.link.as_mut().expect("an output for a connection that is gone");
        Some(link)
    }
}

/// The inputs that can be fed about one connection now.
fn link_ready(link: &Link, wire: &Wire, slot: u32, ready: &mut Vec<Ready>) {
    let torn = wire.server_sees() == End::Reset;
    if link.closing.is_some() {
        ready.push(Ready::Close(slot));
        return;
    }
    let may_read = !link.read_ended && (!link.paused || link.straggler);
    if may_read && wire.server_readable() > 0 {
        ready.push(Ready::Read(slot));
    }
    if torn {
        ready.push(Ready::Close(slot));
        return;
    }
    if !link.read_ended && !link.paused && wire.server_readable() == 0 && wire.server_sees() == End::Finished {
        ready.push(Ready::ReadEnd(slot));
    }
    if let Some(sending) = &link.sending
        && (sending.taken > 0 || wire.server_space() > 0)
    {
        ready.push(Ready::Sent(slot));
    }
}
