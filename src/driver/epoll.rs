//! The epoll loop: readiness, edge-triggered, one set per shard.
//!
//! An edge reports a change, once. So its pending work is remembered until the kernel reports that there is no more
//! (EAGAIN or a short count): a connection whose budget ended with bytes left stays in the `ready` queue, a listener
//! stays `Ready`, and the loop does not wait while either is so.
//!
//! ```text
//! reading:  Drained --edge--> Queued --EAGAIN, short read--> Drained       Queued --budget--> Queued
//!           any --Pause--> Paused --Resume--> Queued                       Queued --FIN--> Ended
//! writing:  Open --short send--> Full --next flush--> Blocked --edge, all taken--> Open
//!           Open --EAGAIN--> Blocked (bytes are lent)        Full --edge--> Open
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, sockopt};

use self::token::Token;
use super::listener::{BoundListener, peer_address};
use super::log::RestLog;
use super::pass::Fed;
use super::slots::Slots;
use super::turn::{Effect, Next, Turn, Wait};
use super::{Core, ShardSetup};
use crate::connection::ConnectionKey;
use crate::limits::{ACCEPT_REST_MS, ACCEPTS_PER_TURN, EVENTS_PER_TURN, READ_BYTES_PER_TURN};
use crate::moment::Moment;
use crate::shard::{Flush, Input};

mod token;

/// Runs a shard on this thread until all shards have stopped.
///
/// # Errors
/// Only errors that make the loop impossible: the epoll set cannot be created or waited on.
pub fn run(mut setup: ShardSetup, core: &mut impl Core) -> io::Result<()> {
    let mut turn = Turn::new(&mut setup);
    let mut driver = Epoll::new(setup, turn.outgoing().mailbox().wake_descriptor())?;
    loop {
        let wait = driver.sleep(&turn, core);
        driver.wait(wait)?;
        turn.figures.waits += 1;
        turn.begin(core);
        let events = driver.handle_events(turn.now(), core);
        driver.accept_all(turn.now(), core);
        let reads = driver.read_ready(turn.now(), core);
        turn.finish_inputs(core, driver.fed(events, reads));
        driver.drain(&mut turn, core);
        turn.figures.slots = u64::from(driver.slots.capacity());
        turn.figures.slots_used = u64::from(driver.slots.in_use());
        turn.figures.accept_pauses = driver.accept_pauses;
        if turn.end(core) == Next::Stop {
            return Ok(());
        }
    }
}

/// The sockets of one shard.
struct Epoll {
    set: OwnedFd,
    slots: Slots,
    /// By slot.
    sockets: Vec<Socket>,
    listeners: Vec<Accepting>,
    /// Number of times that a listener had to pause.
    accept_pauses: u64,
    rests: RestLog,
    /// Connections in `Reading::Queued` or `PausedInQueue`, each once: a connection queued twice would read twice its
    /// share. Entries of connections that are gone are skipped.
    ready: VecDeque<ConnectionKey>,
    /// Connections to close or shut down once this turn's flushes are sent.
    endings: Vec<(ConnectionKey, Ending)>,
    events: Vec<Event>,
    read_buffer: Box<[u8]>,
}

/// One slot. Together with the slot's own entry in [`Slots`] this is the driver's total cost of an idle connection.
struct Socket {
    /// `None` while the slot is free.
    descriptor: Option<OwnedFd>,
    reading: Reading,
    writing: Writing,
    hangup: Hangup,
    fin: Fin,
}

const _: () = assert!(size_of::<Socket>() == 8);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reading {
    /// The kernel has nothing; an edge will follow.
    Drained,
    /// The kernel may have something.
    Queued,
    /// The core does not want to read; edges are ignored, since `Resume` always checks the socket.
    Paused,
    /// The same, and it is still in the queue from before.
    PausedInQueue,
    /// The peer's FIN was read.
    Ended,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Writing {
    /// The kernel may have space; no bytes are borrowed.
    Open,
    /// The kernel took less than offered; no bytes are borrowed, an edge will follow.
    Full,
    /// Bytes are borrowed that the kernel had no space for; an edge will follow.
    Blocked,
}

/// Whether the kernel reported the end of the peer's direction (RDHUP, HUP, ERR): then a short read is not the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hangup {
    No,
    Seen,
}

/// Our FIN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fin {
    NotAsked,
    /// To be sent when no bytes are borrowed any more.
    Asked,
    Sent,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    /// FIN after the data that the kernel holds; the slot is kept.
    ShutdownWrite,
    /// FIN after the data that the kernel holds.
    Close,
    /// RST.
    Reset,
}

struct Accepting {
    listener: BoundListener,
    state: AcceptState,
}

impl Accepting {
    fn is_resting(&self) -> bool {
        matches!(self.state, AcceptState::Resting(_))
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AcceptState {
    /// The backlog is empty; an edge will follow.
    Waiting,
    /// The backlog may hold connections.
    Ready,
    /// The kernel lacked a descriptor or memory for a connection; try again at this time, in ms.
    Resting(u64),
    /// All slots are in use; try again when one is released.
    NoSlot,
}

impl Epoll {
    fn new(setup: ShardSetup, wake: BorrowedFd<'_>) -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        // Every write to the eventfd is an edge, so it is never read.
        epoll::add(&set, wake, Token::Wake.encode(), EventFlags::IN | EventFlags::ET)?;
        for (number, listener) in (0..).zip(&setup.listeners) {
            epoll::add(&set, &listener.socket, Token::Listener(number).encode(), EventFlags::IN | EventFlags::ET)?;
        }
        let listeners = setup.listeners.into_iter();
        Ok(Self {
            set,
            slots: Slots::new(setup.slots, setup.refusal_slots),
            sockets: Vec::with_capacity(setup.slots as usize),
            listeners: listeners.map(|listener| Accepting { listener, state: AcceptState::Waiting }).collect(),
            accept_pauses: 0,
            rests: RestLog::default(),
            ready: VecDeque::new(),
            endings: Vec::new(),
            events: Vec::with_capacity(EVENTS_PER_TURN),
            read_buffer: vec![0; READ_BYTES_PER_TURN].into_boxed_slice(),
        })
    }

    /// How long to wait: not at all while work that an edge announced is left.
    fn sleep(&self, turn: &Turn, core: &impl Core) -> Wait {
        let accepts = self.listeners.iter().any(|accepting| accepting.state == AcceptState::Ready);
        if accepts || !self.ready.is_empty() {
            return Wait::No;
        }
        let rests_until = self.listeners.iter().filter_map(|accepting| match accepting.state {
            AcceptState::Resting(until_ms) => Some(until_ms),
            AcceptState::Waiting | AcceptState::Ready | AcceptState::NoSlot => None,
        });
        let rest_ms = rests_until.min().map(|until_ms| until_ms.saturating_sub(turn.now().monotonic_ms).max(1));
        match (turn.sleep(core), rest_ms) {
            (wait, None) => wait,
            (Wait::No, Some(_)) => Wait::No,
            (Wait::Forever, Some(rest_ms)) => Wait::AtMost(rest_ms),
            (Wait::AtMost(ms), Some(rest_ms)) => Wait::AtMost(ms.min(rest_ms)),
        }
    }

    fn wait(&mut self, wait: Wait) -> io::Result<()> {
        let timeout = match wait {
            Wait::No => Some(Duration::ZERO),
            // A day is as good as any longer time, and is a valid timeout on every kernel.
            Wait::AtMost(ms) => Some(Duration::from_millis(ms.min(24 * 3_600_000))),
            Wait::Forever => None,
        };
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).expect("a day fits"));
        self.events.clear();
        match epoll::wait(&self.set, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Records the state that edges report and sends blocked bytes; returns the number of events.
    fn handle_events(&mut self, now: Moment, core: &mut impl Core) -> usize {
        let mut events = std::mem::take(&mut self.events);
        let count = events.len();
        for event in events.drain(..) {
            let flags = event.flags;
            match Token::decode(event.data) {
                Token::Wake => {}
                Token::Listener(number) => {
                    let state = &mut self.listeners[number as usize].state;
                    if *state == AcceptState::Waiting {
                        *state = AcceptState::Ready;
                    }
                }
                Token::Connection(connection) => self.handle_edge(now, core, connection, flags),
            }
        }
        self.events = events;
        count
    }

    /// The counts of this turn, and the work still waiting.
    fn fed(&self, events: usize, reads: usize) -> Fed {
        Fed {
            events,
            exhausted: events < self.events.capacity(),
            reads,
            reads_waiting: self.ready.len(),
            // Each descriptor is in the kernel's list of ready ones at most once.
            events_max: u64::from(self.slots.in_use()) + self.listeners.len() as u64 + 1,
        }
    }

    fn handle_edge(&mut self, now: Moment, core: &mut impl Core, connection: ConnectionKey, flags: EventFlags) {
        if !self.slots.is_current(connection) {
            return;
        }
        let socket = &mut self.sockets[connection.slot as usize];
        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            socket.hangup = Hangup::Seen;
        }
        match socket.reading {
            Reading::Drained if flags != EventFlags::OUT => {
                socket.reading = Reading::Queued;
                self.ready.push_back(connection);
            }
            // No one will read the error, and unread data before it is useless: nothing can be answered.
            Reading::Paused | Reading::PausedInQueue | Reading::Ended if flags.contains(EventFlags::ERR) => {
                self.end(now, core, connection, Ending::Close);
                return;
            }
            Reading::Drained | Reading::Queued | Reading::Paused | Reading::PausedInQueue | Reading::Ended => {}
        }
        if flags.contains(EventFlags::OUT) {
            self.handle_writable(now, core, connection);
        }
    }

    fn handle_writable(&mut self, now: Moment, core: &mut impl Core, connection: ConnectionKey) {
        let socket = &mut self.sockets[connection.slot as usize];
        match socket.writing {
            Writing::Open => {}
            Writing::Full => socket.writing = Writing::Open,
            Writing::Blocked => {
                let bytes = core.lent(connection);
                assert!(!bytes.is_empty(), "borrowed bytes stay borrowed until Sent or Closed");
                let sent = socket.send(bytes);
                self.handle_sent(now, core, connection, sent);
            }
        }
    }

    /// Accepts from every listener that may have a backlog, each up to its budget.
    fn accept_all(&mut self, now: Moment, core: &mut impl Core) {
        for number in 0..self.listeners.len() {
            let accepting = &mut self.listeners[number];
            if matches!(accepting.state, AcceptState::Resting(until_ms) if until_ms <= now.monotonic_ms) {
                accepting.state = AcceptState::Ready;
            }
            let mut accepts = 0;
            while self.listeners[number].state == AcceptState::Ready && accepts < ACCEPTS_PER_TURN {
                self.listeners[number].state = self.accept_one(now, core, number);
                accepts += 1;
            }
            self.accept_pauses += u64::from(accepts > 0 && self.listeners[number].is_resting());
        }
    }

    /// Accepts one connection and returns the new state of this listener.
    fn accept_one(&mut self, now: Moment, core: &mut impl Core, number: usize) -> AcceptState {
        if self.slots.is_full() {
            return AcceptState::NoSlot;
        }
        let listener = &self.listeners[number].listener;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (descriptor, peer) = match rustix::net::acceptfrom_with(&listener.socket, flags) {
            Ok((descriptor, Some(peer))) => (descriptor, peer),
            // The peer was gone before we looked: this connection is lost, the listener is not.
            Ok((_, None)) | Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {
                return AcceptState::Ready;
            }
            Err(Errno::AGAIN) => return AcceptState::Waiting,
            Err(error) => return self.rest(now, "accepting", error),
        };
        let Ok(peer) = peer_address(peer) else {
            return AcceptState::Ready;
        };
        let kind = listener.kind;
        let taken = self.slots.take().expect("not full");
        let connection = taken.connection();
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if let Err(error) = epoll::add(&self.set, &descriptor, Token::Connection(connection).encode(), interest) {
            self.slots.release(connection);
            return self.rest(now, "watching a connection", error);
        }
        let socket = Socket {
            descriptor: Some(descriptor),
            reading: Reading::Drained,
            writing: Writing::Open,
            hangup: Hangup::No,
            fin: Fin::NotAsked,
        };
        match self.sockets.get_mut(connection.slot as usize) {
            Some(free) => *free = socket,
            None => self.sockets.push(socket),
        }
        let refuse = taken.is_to_refuse();
        core.handle_input(now, Input::Accepted { connection, peer, listener: kind, refuse });
        AcceptState::Ready
    }

    /// Descriptors or memory ran out (EMFILE, ENFILE, ENOMEM, ENOBUFS, ENOSPC) or the kernel returned an unexpected
    /// error: pause instead of spinning. Meanwhile peers wait in the backlog.
    fn rest(&mut self, now: Moment, doing: &str, error: Errno) -> AcceptState {
        self.rests.note(now, doing, &error);
        AcceptState::Resting(now.monotonic_ms + ACCEPT_REST_MS)
    }

    /// Reads from the connections that were ready when the turn began, each up to its budget; returns the number of
    /// connections.
    fn read_ready(&mut self, now: Moment, core: &mut impl Core) -> usize {
        let count = self.ready.len().min(EVENTS_PER_TURN);
        for _ in 0..count {
            let connection = self.ready.pop_front().expect("counted");
            if self.slots.is_current(connection) {
                let socket = &mut self.sockets[connection.slot as usize];
                if socket.reading == Reading::PausedInQueue {
                    socket.reading = Reading::Paused;
                }
                self.read(now, core, connection);
            }
        }
        count
    }

    fn read(&mut self, now: Moment, core: &mut impl Core, connection: ConnectionKey) {
        let socket = &mut self.sockets[connection.slot as usize];
        let mut budget = READ_BYTES_PER_TURN;
        while socket.reading == Reading::Queued {
            let buffer = &mut self.read_buffer[..budget];
            match rustix::net::recv(socket.descriptor(), &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    socket.reading = Reading::Ended;
                    core.handle_input(now, Input::ReadEnded { connection });
                }
                Ok((count, _)) => {
                    core.handle_input(now, Input::Received { connection, bytes: &mut buffer[..count] });
                    if count == budget {
                        self.ready.push_back(connection);
                        return;
                    }
                    budget -= count;
                    if socket.hangup == Hangup::No {
                        // Less than requested: the kernel had no more, and the next byte or FIN is a new edge.
                        socket.reading = Reading::Drained;
                    }
                }
                Err(Errno::AGAIN) => socket.reading = Reading::Drained,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.end(now, core, connection, Ending::Close);
                    return;
                }
            }
        }
    }

    /// Sends and carries out the core's requests until there are no more.
    ///
    /// Flushes come first: they may contain the last bytes of a connection that is about to end.
    fn drain(&mut self, turn: &mut Turn, core: &mut impl Core) {
        loop {
            core.end_batch();
            let mut idle = true;
            while let Some(Flush { connection, bytes }) = core.poll_flush() {
                idle = false;
                assert!(self.slots.is_current(connection), "no flush after Closed");
                let socket = &mut self.sockets[connection.slot as usize];
                let sent = match socket.writing {
                    Writing::Open => socket.send(bytes),
                    Writing::Full => Sent::WouldBlock,
                    Writing::Blocked => panic!("one send per connection at a time"),
                };
                self.handle_sent(turn.now(), core, connection, sent);
            }
            while let Some(effect) = turn.poll_effect(core) {
                idle = false;
                self.handle_effect(effect);
            }
            for (connection, ending) in std::mem::take(&mut self.endings) {
                idle = false;
                self.handle_ending(turn.now(), core, connection, ending);
            }
            if idle {
                return;
            }
        }
    }

    fn handle_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Close { connection, reset } => {
                self.endings.push((connection, if reset { Ending::Reset } else { Ending::Close }));
            }
            Effect::ShutdownWrite(connection) => self.endings.push((connection, Ending::ShutdownWrite)),
            Effect::Pause(connection) => self.pause(connection),
            Effect::Resume(connection) => self.resume(connection),
        }
    }

    fn pause(&mut self, connection: ConnectionKey) {
        if !self.slots.is_current(connection) {
            return;
        }
        let reading = &mut self.sockets[connection.slot as usize].reading;
        *reading = match *reading {
            Reading::Drained | Reading::Paused => Reading::Paused,
            Reading::Queued | Reading::PausedInQueue => Reading::PausedInQueue,
            Reading::Ended => Reading::Ended,
        };
    }

    fn resume(&mut self, connection: ConnectionKey) {
        if !self.slots.is_current(connection) {
            return;
        }
        let reading = &mut self.sockets[connection.slot as usize].reading;
        *reading = match *reading {
            Reading::Drained | Reading::Paused => {
                self.ready.push_back(connection);
                Reading::Queued
            }
            Reading::Queued | Reading::PausedInQueue => Reading::Queued,
            Reading::Ended => Reading::Ended,
        };
    }

    fn handle_sent(&mut self, now: Moment, core: &mut impl Core, connection: ConnectionKey, sent: Sent) {
        let socket = &mut self.sockets[connection.slot as usize];
        match sent {
            Sent::All(bytes) => {
                socket.writing = Writing::Open;
                if socket.fin == Fin::Asked {
                    self.endings.push((connection, Ending::ShutdownWrite));
                }
                core.handle_input(now, Input::Sent { connection, bytes });
            }
            Sent::Short(bytes) => {
                socket.writing = Writing::Full;
                core.handle_input(now, Input::Sent { connection, bytes });
            }
            Sent::WouldBlock => socket.writing = Writing::Blocked,
            Sent::Gone => self.end(now, core, connection, Ending::Close),
        }
    }

    fn handle_ending(&mut self, now: Moment, core: &mut impl Core, connection: ConnectionKey, ending: Ending) {
        if !self.slots.is_current(connection) {
            return;
        }
        match ending {
            Ending::Close | Ending::Reset => self.end(now, core, connection, ending),
            Ending::ShutdownWrite => {
                let socket = &mut self.sockets[connection.slot as usize];
                match (socket.fin, socket.writing) {
                    (Fin::Sent, _) => {}
                    (Fin::NotAsked | Fin::Asked, Writing::Blocked) => socket.fin = Fin::Asked,
                    (Fin::NotAsked | Fin::Asked, Writing::Open | Writing::Full) => {
                        socket.fin = Fin::Sent;
                        // ENOTCONN: the peer reset it in between; the next read will detect that.
                        let _ = rustix::net::shutdown(socket.descriptor(), Shutdown::Write);
                    }
                }
            }
        }
    }

    /// Closes the socket, notifies the core, and releases the slot.
    fn end(&mut self, now: Moment, core: &mut impl Core, connection: ConnectionKey, ending: Ending) {
        let socket = &mut self.sockets[connection.slot as usize];
        let descriptor = socket.descriptor.take().expect("a current slot has a socket");
        match (ending, socket.reading) {
            // Fails only on a socket that has already been reset.
            (Ending::Reset, _) => drop(sockopt::set_socket_linger(&descriptor, Some(Duration::ZERO))),
            // Closing with unread bytes would send RST and lose unsent data.
            (Ending::Close | Ending::ShutdownWrite, Reading::Queued | Reading::Paused | Reading::PausedInQueue) => {
                discard_unread(&descriptor, &mut self.read_buffer);
            }
            (Ending::Close | Ending::ShutdownWrite, Reading::Drained | Reading::Ended) => {}
        }
        // Closing the only descriptor removes it from the epoll set.
        drop(descriptor);
        core.handle_input(now, Input::Closed { connection });
        self.slots.release(connection);
        for accepting in &mut self.listeners {
            if accepting.state == AcceptState::NoSlot {
                accepting.state = AcceptState::Ready;
            }
        }
    }
}

/// Discards what the peer has sent so far, within bounds.
fn discard_unread(descriptor: &OwnedFd, buffer: &mut [u8]) {
    for _ in 0..DISCARDS_MAX {
        match rustix::net::recv(descriptor, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((0, _)) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Reads of `READ_BYTES_PER_TURN` before a close: 1 MiB, more than a window that was not made to grow.
const DISCARDS_MAX: usize = 16;

/// Result of one send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sent {
    All(usize),
    /// At least 1 and less than offered.
    Short(usize),
    WouldBlock,
    /// Reset or timed out: the connection is no longer usable.
    Gone,
}

impl Socket {
    fn descriptor(&self) -> &OwnedFd {
        self.descriptor.as_ref().expect("a current slot has a socket")
    }

    fn send(&self, bytes: &[u8]) -> Sent {
        loop {
            return match rustix::net::send(self.descriptor(), bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) if count == bytes.len() => Sent::All(count),
                Ok(count) => Sent::Short(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Sent::WouldBlock,
                Err(_) => Sent::Gone,
            };
        }
    }
}
