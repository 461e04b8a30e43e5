//! The shards under test and their driver: the third one, beside io_uring and epoll. It keeps to the contract of
//! `relay::shard` and uses every freedom that the contract leaves: reads split anywhere, short and late sends, late
//! closes, mail delayed per pair of shards, timeouts fed early. What the shards may not do is asserted here.

use std::collections::VecDeque;
use std::sync::Arc;

use relay::app::Directory;
use relay::connection::ConnectionKey;
use relay::limits::SEND_BYTES_MAX;
use relay::moment::Moment;
use relay::shard::{Input, Listener, Mail, Output, Shard, ShardConfig, ShardIndex, ShardOptions, ShardStats};

use crate::fault::{Fault, FaultKind};
use crate::network::{End, Wire};
use crate::random::Random;
use crate::trace::Trace;

/// How sends complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SendStyle {
    /// At once and reported at once, as a non-blocking send.
    Immediate,
    /// Under way for a while, as an operation on a ring.
    Deferred,
    /// Now this, now that.
    Mixed,
}

/// How large a turn is and how it reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// A few inputs, reads cut small.
    Chaos,
    /// All there is, so that the run comes to rest.
    Settle,
}

/// What the system is made of.
#[derive(Clone, Debug)]
pub(crate) struct SystemOptions {
    /// How many shards.
    pub(crate) shards: ShardIndex,
    /// Slots of one shard, those kept back included.
    pub(crate) slots: u32,
    /// Slots kept back for refusals.
    pub(crate) slots_kept_back: usize,
    /// What the operator set.
    pub(crate) options: ShardOptions,
    /// How sends complete.
    pub(crate) send_style: SendStyle,
    /// Largest read of the driver, in bytes.
    pub(crate) read_bytes_max: usize,
}

/// A send that was lent and is not reported yet.
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
    /// A read was under way when `Pause` came: it may still complete once.
    straggler: bool,
    read_ended: bool,
    sending: Option<Sending>,
    /// What is left of a short send: the next send must begin with it while no frame was dropped.
    remainder: Vec<u8>,
    finishing: bool,
    /// `Close` was asked for, with this `reset`.
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
}

/// Mail from one shard to another, in order; a held lane delivers nothing for now.
#[derive(Default)]
struct Lane {
    mails: VecDeque<Mail>,
    held: bool,
}

/// Something that a shard can be told now.
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
    /// What happened, as a digest and, if wanted, as text.
    pub(crate) trace: Trace,
    /// Tokens reported as used.
    pub(crate) tokens_used: Vec<String>,
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
                    boot_secret,
                    directory: Arc::clone(directory),
                    options: options.options.clone(),
                }),
                slots: (0..options.slots).map(|_| Slot::default()).collect(),
                free: (0..options.slots).rev().collect(),
                backlog: VecDeque::new(),
                directories: VecDeque::new(),
                drain: None,
            })
            .collect();
        let lanes = (0..usize::from(options.shards).pow(2)).map(|_| Lane::default()).collect();
        Self { now, trace, tokens_used: Vec::new(), hosts, lanes, options, fault, read_buffer: Vec::new() }
    }

    /// How many shards.
    pub(crate) fn shards(&self) -> usize {
        self.hosts.len()
    }

    /// A client's connection arrives at this shard's listener.
    pub(crate) fn connect(&mut self, shard: usize, wire: usize, listener: Listener) {
        self.hosts[shard].backlog.push_back((wire, listener));
    }

    /// The store changed; each shard learns of it when its turn comes.
    pub(crate) fn publish_directory(&mut self, directory: &Arc<Directory>) {
        for host in &mut self.hosts {
            host.directories.push_back(Arc::clone(directory));
        }
    }

    /// True while a shard has not learnt of the newest directory.
    pub(crate) fn directory_is_spreading(&self) -> bool {
        self.hosts.iter().any(|host| !host.directories.is_empty())
    }

    /// The process shall end.
    pub(crate) fn drain_all(&mut self) {
        for host in &mut self.hosts {
            host.drain = Some(false);
        }
    }

    /// True once every shard says that it is drained.
    pub(crate) fn is_drained(&self) -> bool {
        self.hosts.iter().all(|host| host.shard.is_drained())
    }

    /// Delays or releases the mail of one pair of shards.
    pub(crate) fn toggle_lane(&mut self, random: &mut Random) {
        let lane = random.below(self.lanes.len());
        self.lanes[lane].held = !self.lanes[lane].held;
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

    /// Figures of each shard.
    pub(crate) fn stats(&self) -> Vec<ShardStats> {
        self.hosts.iter().map(|host| host.shard.stats()).collect()
    }

    /// True when no connection, mail or send is under way anywhere.
    pub(crate) fn assert_empty(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let open = host.slots.iter().filter(|slot| slot.link.is_some()).count();
            assert_eq!(open, 0, "shard {index} has not closed {open} connections whose clients are gone");
            assert!(host.backlog.is_empty(), "shard {index} left connections in its backlog");
        }
        assert!(self.lanes.iter().all(|lane| lane.mails.is_empty()), "mail is left over");
    }

    /// True when a send to this wire is under way.
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
        };
        let mut closed = Vec::new();
        let mut timeout_fed = false;
        let mut fed = 0;
        while fed < inputs_max {
            let ready = self.ready(index, wires);
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
        self.drain(index, wires, random, &mut closed);
        if timeout_fed && fed == 1 {
            let timeout = self.hosts[index].shard.poll_timeout();
            assert!(
                timeout.is_none_or(|at| at > self.now.monotonic_ms),
                "shard {index} still asks for {timeout:?} after a timeout at {}: its driver would spin",
                self.now.monotonic_ms
            );
        }
        true
    }

    fn input(&mut self, index: usize, input: Input<'_>) {
        self.hosts[index].shard.handle_input(self.now, input);
    }

    /// Everything that this shard can be told now.
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

    fn feed(
        &mut self,
        index: usize,
        ready: Ready,
        wires: &mut [Wire],
        random: &mut Random,
        pace: Pace,
        closed: &mut Vec<ConnectionKey>,
    ) {
        match ready {
            Ready::Accept => self.feed_accept(index, wires),
            Ready::Read(slot) => self.feed_read(index, slot, wires, random, pace),
            Ready::ReadEnd(slot) => {
                self.link(index, slot).read_ended = true;
                let connection = self.key(index, slot);
                self.trace.note(|| format!("shard {index}: {connection:?} read ended"));
                self.input(index, Input::ReadEnded { connection });
            }
            Ready::Sent(slot) => {
                if self.link(index, slot).sending.as_ref().is_some_and(|sending| sending.taken == 0) {
                    self.take(index, slot, wires, random, pace);
                    if self.options.send_style != SendStyle::Immediate && random.one_in(3) {
                        return;
                    }
                }
                self.feed_sent(index, slot, wires);
            }
            Ready::Close(slot) => self.feed_closed(index, slot, wires, random, closed),
            Ready::Mail(from) => self.feed_mail(index, from),
            Ready::Timeout => {
                self.trace.note(|| format!("shard {index}: timeout"));
                self.input(index, Input::Timeout);
            }
            Ready::Directory => {
                let directory = self.hosts[index].directories.pop_front().expect("it was ready");
                self.trace.note(|| format!("shard {index}: directory"));
                self.input(index, Input::Directory(directory));
            }
            Ready::Drain => {
                self.hosts[index].drain = Some(true);
                self.trace.note(|| format!("shard {index}: drain"));
                self.input(index, Input::Drain);
            }
        }
    }

    fn key(&self, index: usize, slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: self.hosts[index].slots[slot as usize].generation }
    }

    fn link(&mut self, index: usize, slot: u32) -> &mut Link {
        self.hosts[index].slots[slot as usize].link.as_mut().expect("the slot is in use")
    }

    fn feed_accept(&mut self, index: usize, wires: &[Wire]) {
        let kept_back = self.options.slots_kept_back;
        let host = &mut self.hosts[index];
        let (wire, listener) = host.backlog.pop_front().expect("it was ready");
        let number = host.free.pop().expect("it was ready");
        let refuse = host.free.len() < kept_back;
        let slot = &mut host.slots[number as usize];
        slot.generation += 1;
        slot.link = Some(Link {
            wire,
            paused: false,
            straggler: false,
            read_ended: false,
            sending: None,
            remainder: Vec::new(),
            finishing: false,
            closing: None,
        });
        let connection = self.key(index, number);
        self.trace.mix(u64::from(number));
        self.trace.note(|| format!("shard {index}: accepted wire {wire} as {connection:?}, refuse {refuse}"));
        self.input(index, Input::Accepted { connection, peer: wires[wire].peer, listener, refuse });
    }

    fn feed_read(&mut self, index: usize, slot: u32, wires: &mut [Wire], random: &mut Random, pace: Pace) {
        let bytes_max = match pace {
            Pace::Chaos => match random.below(6) {
                0 => 1,
                1 => random.between(2, 16),
                2 => random.between(17, 512),
                _ => self.options.read_bytes_max,
            },
            Pace::Settle => random.between(self.options.read_bytes_max / 2, self.options.read_bytes_max),
        };
        let link = self.link(index, slot);
        link.straggler = false;
        let wire = link.wire;
        let mut bytes = wires[wire].server_read(bytes_max);
        if self.fault.strikes(FaultKind::LoseBytes) && bytes.len() > 1 {
            bytes.pop();
        }
        self.feed_received(index, slot, &bytes);
    }

    fn feed_received(&mut self, index: usize, slot: u32, bytes: &[u8]) {
        let connection = self.key(index, slot);
        self.trace.mix(bytes.len() as u64);
        self.trace.note(|| format!("shard {index}: {connection:?} received {} {}", bytes.len(), bytes.escape_ascii()));
        let mut buffer = std::mem::take(&mut self.read_buffer);
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.input(index, Input::Received { connection, bytes: &mut buffer });
        self.read_buffer = buffer;
    }

    /// The kernel takes some of a send that is under way.
    fn take(&mut self, index: usize, slot: u32, wires: &mut [Wire], random: &mut Random, pace: Pace) {
        let doubled = self.fault.strikes(FaultKind::DoubleSend);
        let link = self.link(index, slot);
        let wire = &mut wires[link.wire];
        let sending = link.sending.as_mut().expect("a send is under way");
        let room = wire.server_space().min(sending.bytes.len());
        sending.taken = match pace {
            Pace::Chaos if random.one_in(4) => random.between(1, room),
            Pace::Chaos | Pace::Settle => room,
        };
        wire.server_write(&sending.bytes[..sending.taken]);
        if doubled {
            wire.server_write(&sending.bytes[..sending.taken]);
        }
    }

    fn feed_sent(&mut self, index: usize, slot: u32, wires: &mut [Wire]) {
        let connection = self.key(index, slot);
        let link = self.link(index, slot);
        let sending = link.sending.take().expect("a send is under way");
        link.remainder = sending.bytes[sending.taken..].to_vec();
        let bytes = sending.taken;
        self.trace.mix(bytes as u64);
        self.trace.note(|| format!("shard {index}: {connection:?} sent {bytes} of {}", sending.bytes.len()));
        self.input(index, Input::Sent { connection, bytes });
        let link = self.link(index, slot);
        if link.finishing && link.remainder.is_empty() {
            let wire = link.wire;
            wires[wire].server_finish();
        }
    }

    fn feed_closed(
        &mut self,
        index: usize,
        slot: u32,
        wires: &mut [Wire],
        random: &mut Random,
        closed: &mut Vec<ConnectionKey>,
    ) {
        let connection = self.key(index, slot);
        let link = self.link(index, slot);
        let wire = link.wire;
        let closing = link.closing;
        let may_read = !link.read_ended && !link.paused && wires[wire].server_readable() > 0;
        let taken = link.sending.as_ref().map_or(0, |sending| sending.taken);
        let under_way = link.sending.is_some() && taken == 0 && wires[wire].server_space() > 0;
        // Operations that had completed when `Close` was drained still report, or are thrown away, as chance wants.
        if may_read && random.one_in(4) {
            let bytes = wires[wire].server_read(random.between(1, 64));
            self.feed_received(index, slot, &bytes);
        }
        if taken > 0 && random.one_in(2) {
            self.feed_sent(index, slot, wires);
        } else if under_way && closing == Some(false) && random.one_in(2) {
            self.take(index, slot, wires, random, Pace::Chaos);
        }
        let lose_unread = random.one_in(2);
        if wires[wire].server_sees() != End::Reset {
            wires[wire].server_close(closing == Some(true), lose_unread);
        }
        let host = &mut self.hosts[index];
        host.slots[slot as usize].link = None;
        host.free.push(slot);
        closed.push(connection);
        self.trace.mix(u64::from(slot));
        self.trace.note(|| format!("shard {index}: {connection:?} closed"));
        if !self.fault.strikes(FaultKind::ForgetClosed) {
            self.input(index, Input::Closed { connection });
        }
    }

    fn feed_mail(&mut self, index: usize, from: usize) {
        let lane = &mut self.lanes[from * self.hosts.len() + index];
        if lane.mails.len() > 1 && self.fault.strikes(FaultKind::SwapMail) {
            lane.mails.swap(0, 1);
        }
        let mail = lane.mails.pop_front().expect("it was ready");
        self.trace.mix(from as u64);
        if self.fault.strikes(FaultKind::DropMail) {
            return;
        }
        self.trace.note(|| format!("shard {index}: mail from {from} {mail:?}"));
        self.input(index, Input::Mail { from: from as ShardIndex, mail });
    }

    /// Drains outputs and sends until both give `None`.
    fn drain(&mut self, index: usize, wires: &mut [Wire], random: &mut Random, closed: &mut Vec<ConnectionKey>) {
        for _ in 0..100_000 {
            let mut moved = false;
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
                return;
            }
        }
        panic!("shard {index} never stops asking");
    }

    /// Takes the next send of a shard and gives its slot.
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
        assert!(!link.finishing || !link.remainder.is_empty(), "a new send after ShutdownWrite for {connection:?}");
        let begun = link.remainder.len().min(flush.bytes.len()).min(1);
        assert_eq!(
            flush.bytes[..begun],
            link.remainder[..begun],
            "a short send of {connection:?} does not go on where it ended"
        );
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
                if let Some(link) = self.live(index, connection, closed) {
                    assert!(link.closing.is_none(), "Close twice for {connection:?}");
                    link.closing = Some(reset);
                }
            }
            Output::ShutdownWrite { connection } => {
                if let Some(link) = self.live(index, connection, closed) {
                    assert!(!link.finishing, "ShutdownWrite twice for {connection:?}");
                    link.finishing = true;
                    let wire = link.wire;
                    assert!(link.sending.is_some() || link.remainder.is_empty(), "ShutdownWrite over a short send");
                    if link.sending.is_none() {
                        wires[wire].server_finish();
                    }
                }
            }
            Output::Pause { connection } => {
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
                self.lanes[index * shards + usize::from(to)].mails.push_back(mail);
                self.trace.mix(u64::from(to));
            }
            Output::TokenUsed { token, at } => {
                assert_eq!(at, self.now, "a token is used when the request is handled");
                self.tokens_used.push(token.to_string());
            }
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

/// What can be told about one connection now.
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
