//! The io_uring loop: one thread, one ring, and additional rings where the descriptor limit is low.
//!
//! # A turn
//! ```text
//! wait        submit what the last turn left, sleep until a completion, a wake or the core's timeout
//! begin       clock, signals, mail (see `turn`)
//! rounds      take completions, feed them, carry out effects, submit receives; again while receives are under way
//! finish      caught up?, timeout
//! flush       one send per connection that has unsent bytes, and effects, until the core has nothing pending
//! end         accept again, deliver mail
//! ```
//! A connection is parked on a multishot poll, which costs 288 bytes of kernel memory and reports edges. Bytes are then
//! received into a buffer of the loop, and receiving continues while the socket reports that it holds more, up to a
//! budget per turn. A receive never waits: it has ended when the submission returns.
//!
//! # Invariants (hazards U1 to U18 in `docs/reliability.md`)
//! - A slot is released and `Closed` fed only when every operation of the connection has reported its end (U1, U3,
//!   U13), and a zero-copy send its notice (U12).
//! - A completion identifies slot and generation; a stale one is counted and dropped (U2).
//! - At most one operation of each kind per connection (U10).
//! - A receive begins only with a free buffer, and its completion frees it, whatever the result (U6, U7).
//! - An accept is started only if a slot and a direct descriptor are free for it (U9).

use std::collections::VecDeque;
use std::io;

use self::ring::Ring;
use self::table::{Connection, Flag, NO_BUFFER};
use self::token::Operation;
use super::listener::BoundListener;
use super::pass::Fed;
use super::slots::Slots;
use super::sys::{Buffers, Completion, HeldBuffer};
use super::turn::{Effect, Next, Turn, Wait};
use super::{Core, ShardSetup};
use crate::connection::ConnectionKey;
use crate::shard::Input;

mod accept;
mod address;
mod ending;
mod probe;
mod receive;
pub(in crate::driver) mod ring;
mod table;
mod token;
mod zero_copy;

#[cfg(test)]
mod tests;

pub use self::probe::{probe, probe_rings, probe_zero_copy};
pub use self::ring::Options;

/// The loop's counts; all of these events except `enters` are rare.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Completions of an earlier use of their slot, dropped (U2).
    pub stale: u64,
    /// Times that a completion queue was found to have overflowed (U4).
    pub overflows: u64,
    /// Receives that found no buffer and were postponed (U6).
    pub starved: u64,
    /// Polls that ended by themselves and were rearmed (U11).
    pub polls_armed_again: u64,
    /// Times that accepting was paused because the kernel lacked a resource.
    pub accept_pauses: u64,
    /// Rings opened.
    pub rings: u64,
    /// Completed zero-copy sends (U12).
    pub zero_copy_sends: u64,
    /// Number of these that the kernel copied anyway.
    pub zero_copy_copies: u64,
    /// Connections whose socket was closed before the notice of their zero-copy send.
    pub zero_copy_orphans: u64,
    /// System calls to submit and wait.
    pub enters: u64,
    /// Turns.
    pub turns: u64,
}

/// Runs a shard on this thread until all shards have stopped.
///
/// # Errors
/// Fails when the ring cannot be created (see [`mod@probe`], which reports that beforehand) or breaks.
pub fn run(setup: ShardSetup, core: &mut impl Core) -> io::Result<()> {
    let options = Options { zero_copy_bytes_min: setup.zero_copy_bytes_min, ..Options::default() };
    let figures = run_with(setup, core, options)?;
    tracing::debug!(?figures, "the io_uring loop ended");
    Ok(())
}

/// Like [`run`], with other sizes, and returns the counts at the end: for tests and measurements.
///
/// # Errors
/// Like [`run`].
pub fn run_with(setup: ShardSetup, core: &mut impl Core, options: Options) -> io::Result<Figures> {
    let mut driver = Driver::new(setup, core, options)?;
    while driver.turn()? == Next::Turn {}
    driver.end_all()?;
    Ok(driver.figures())
}

/// One shard's loop. The rings come first: they are dropped before the memory that their operations refer to.
struct Driver<'a, C> {
    rings: Vec<Ring>,
    buffers: Buffers,
    /// Connections whose receive is postponed until a buffer is free, the longest waiting first (U6).
    starved: VecDeque<u32>,
    listeners: Vec<BoundListener>,
    core: &'a mut C,
    turn: Turn,
    slots: Slots,
    /// By slot, as long as the highest slot ever used.
    connections: Vec<Connection>,
    options: Options,
    /// Receives postponed to the next turn: their connections have used up their budget.
    over_budget: Vec<u32>,
    /// Connections whose FIN may be due.
    fin_due: Vec<u32>,
    accepting: accept::Accepting,
    zero_copy: zero_copy::ZeroCopy,
    turn_number: u32,
    /// Receives fed in this turn.
    receives_fed: usize,
    figures: Figures,
}

impl<'a, C: Core> Driver<'a, C> {
    fn new(mut setup: ShardSetup, core: &'a mut C, options: Options) -> io::Result<Self> {
        let slots = setup.slots.min(token::SLOTS_MAX);
        let buffers = Buffers::new(options.buffers, options.buffer_bytes);
        let mut first = Ring::open_patiently(&options, &buffers, slots).map_err(|refusal| refusal.into_error())?;
        first.queue.announce(false);
        let turn = Turn::new(&mut setup);
        for listener in &setup.listeners {
            // A nonblocking listener would return EAGAIN where an accept is supposed to wait.
            let flags = rustix::fs::fcntl_getfl(&listener.socket)?;
            rustix::fs::fcntl_setfl(&listener.socket, flags - rustix::fs::OFlags::NONBLOCK)?;
        }
        first.queue.poll_descriptor(turn.outgoing().mailbox().wake_descriptor(), token::of_ring(Operation::Mail, 0));
        let mut driver = Self {
            rings: vec![first],
            buffers,
            starved: VecDeque::new(),
            accepting: accept::Accepting::new(setup.listeners.len()),
            listeners: setup.listeners,
            core,
            turn,
            slots: Slots::new(slots, setup.refusal_slots),
            connections: Vec::with_capacity(slots as usize),
            options,
            over_budget: Vec::new(),
            fin_due: Vec::new(),
            zero_copy: zero_copy::ZeroCopy::new(options.zero_copy_bytes_min),
            turn_number: 0,
            receives_fed: 0,
            figures: Figures::default(),
        };
        driver.arm_accepts();
        Ok(driver)
    }

    fn turn(&mut self) -> io::Result<Next> {
        self.wait();
        self.turn.begin(self.core);
        self.turn_number = self.turn_number.wrapping_add(1);
        self.release_over_budget();
        let mut left = self.options.completions_per_turn;
        self.receives_fed = 0;
        for _ in 0..ROUNDS_MAX {
            left = self.feed_completions(left);
            self.carry_out_effects();
            self.feed_starved();
            if left == 0 || self.rings.iter().all(|ring| ring.receives == 0) {
                break;
            }
        }
        self.turn.finish_inputs(self.core, self.fed(left));
        loop {
            self.core.end_batch();
            if !(self.flush() | self.carry_out_effects()) {
                break;
            }
        }
        self.send_due_fins();
        self.arm_accepts();
        self.tell_figures();
        let next = self.turn.end(self.core);
        self.check_accounts();
        match self.rings.iter_mut().find_map(|ring| ring.queue.take_failure()) {
            Some(failure) => Err(failure),
            None => Ok(next),
        }
    }

    /// The counts of this turn and the work still waiting, given the rest of its budget of completions.
    fn fed(&self, left: usize) -> Fed {
        let receives = self.rings.iter().map(|ring| ring.receives as usize).sum::<usize>() + self.starved.len();
        let held = self.rings.len() as u64 * u64::from(self.options.completions);
        Fed {
            events: self.options.completions_per_turn - left,
            exhausted: left > 0,
            reads: self.receives_fed,
            reads_waiting: receives + self.over_budget.len(),
            // The completion queues, and an edge, a receive and a send of each connection whose completions found them
            // full.
            events_max: held + 3 * u64::from(self.slots.in_use()),
        }
    }

    /// Submits everything and sleeps, unless work is waiting.
    fn wait(&mut self) {
        let mut wait = self.turn.sleep(self.core);
        for further in self.rings.iter_mut().skip(1) {
            further.queue.announce(true);
            further.queue.gather(usize::MAX);
        }
        let taken = self.rings.iter().any(|ring| ring.queue.has_taken());
        if taken || !self.starved.is_empty() || !self.over_budget.is_empty() {
            wait = Wait::No;
        }
        match self.accepting.limit(wait, self.turn.now()) {
            Wait::No => self.rings[0].queue.submit(),
            Wait::AtMost(ms) => self.rings[0].queue.wait(Some(ms)),
            Wait::Forever => self.rings[0].queue.wait(None),
        }
        for further in self.rings.iter_mut().skip(1) {
            further.queue.announce(false);
        }
    }

    /// Feeds the completions of all rings, at most `left`; returns how much of `left` remains.
    fn feed_completions(&mut self, mut left: usize) -> usize {
        for ring in 0..self.rings.len() {
            self.rings[ring].queue.gather(left);
            while left > 0 {
                let Some(completion) = self.rings[ring].queue.pop() else {
                    break;
                };
                self.complete(ring, completion);
                left -= 1;
            }
            self.rings[ring].queue.shrink();
        }
        left
    }

    fn complete(&mut self, ring: usize, completion: Completion) {
        let Some((operation, connection)) = token::unpack(completion.user_data) else {
            self.figures.stale += 1;
            return;
        };
        match operation {
            Operation::Accept => return self.accepted(ring, connection.slot, completion.result),
            Operation::Cancel => return,
            Operation::Mail => return self.mail_poll_completed(completion),
            Operation::Wake => return self.read_wake(connection.slot),
            Operation::Receive => {
                self.rings[ring].receives -= 1;
                self.receives_fed += 1;
                return self.receive_completed(connection, completion);
            }
            Operation::Poll
            | Operation::Send
            | Operation::Shutdown
            | Operation::Linger
            | Operation::CancelPoll
            | Operation::CancelSend
            | Operation::Close => {}
        }
        if self.slots.is_current(connection) {
            self.connection_completed(operation, connection, completion, None);
        } else {
            self.figures.stale += 1;
        }
    }

    /// A receive has a buffer, unless it discarded bytes; the buffer is free again as soon as the core has read it.
    fn receive_completed(&mut self, connection: ConnectionKey, completion: Completion) {
        debug_assert!(self.slots.is_current(connection), "a slot is not given back while it receives");
        let number = std::mem::replace(&mut self.connections[connection.slot as usize].buffer, NO_BUFFER);
        let buffer = (number != NO_BUFFER).then(|| self.buffers.take(number, completion));
        self.connection_completed(Operation::Receive, connection, completion, buffer.as_ref());
        if let Some(buffer) = buffer {
            self.buffers.give_back(buffer);
        }
    }

    fn connection_completed(
        &mut self,
        operation: Operation,
        connection: ConnectionKey,
        completion: Completion,
        buffer: Option<&HeldBuffer>,
    ) {
        if operation == Operation::Send && self.zero_copy.is_under_way(connection.slot) {
            return self.zero_copy_reported(connection, completion);
        }
        let entry = &mut self.connections[connection.slot as usize];
        if !completion.has_more() {
            entry.end(operation);
        }
        if operation == Operation::Close {
            return self.closed(connection);
        }
        if entry.has(Flag::Closing) {
            return self.close_when_quiet(connection);
        }
        match operation {
            Operation::Poll => self.polled(connection, completion),
            Operation::Receive => self.received(connection, completion, buffer),
            Operation::Send => self.sent(connection, completion.result),
            // A FIN that cannot be sent: the peer is gone, and the poll reports that.
            Operation::Shutdown => {}
            Operation::Linger | Operation::CancelPoll | Operation::CancelSend => {
                unreachable!("only a closing connection has {operation:?} in flight")
            }
            Operation::Close | Operation::Accept | Operation::Cancel | Operation::Mail | Operation::Wake => {
                unreachable!("{operation:?} was dealt with before")
            }
        }
    }

    /// Carries out all effects that the core requests now; returns whether there were any.
    fn carry_out_effects(&mut self) -> bool {
        let mut any = false;
        while let Some(effect) = self.turn.poll_effect(self.core) {
            any = true;
            match effect {
                Effect::Close { connection, reset } => self.end(connection, reset),
                Effect::ShutdownWrite(connection) => self.want_fin(connection),
                Effect::Pause(connection) => self.pause(connection),
                Effect::Resume(connection) => self.resume(connection),
            }
        }
        any
    }

    /// Starts one send for every connection with pending bytes; returns whether there were any.
    fn flush(&mut self) -> bool {
        let mut any = false;
        while let Some(flush) = self.core.poll_flush() {
            any = true;
            let connection = flush.connection;
            debug_assert!(self.slots.is_current(connection), "the core sends to connections that it has");
            let entry = &mut self.connections[connection.slot as usize];
            if entry.has(Flag::Closing) {
                // The bytes stay borrowed and are taken back by `Closed`.
                continue;
            }
            entry.begin(Operation::Send);
            let token = token::of_connection(Operation::Send, connection);
            let queue = &mut self.rings[usize::from(entry.ring)].queue;
            if self.zero_copy.takes(flush.bytes.len()) {
                self.zero_copy.start(connection.slot);
                queue.send_zero_copy(entry.file, flush.bytes, token);
            } else {
                queue.send(entry.file, flush.bytes, token);
            }
        }
        any
    }

    fn sent(&mut self, connection: ConnectionKey, result: i32) {
        match usize::try_from(result) {
            Ok(bytes) if bytes > 0 => {
                self.core.handle_input(self.turn.now(), Input::Sent { connection, bytes });
                if self.connections[connection.slot as usize].has(Flag::FinWanted) {
                    self.fin_due.push(connection.slot);
                }
            }
            // Broken pipe, reset, timeout, or out of memory: nothing can follow missing bytes.
            _ => self.end(connection, false),
        }
    }

    fn mail_poll_completed(&mut self, completion: Completion) {
        if !completion.has_more() && self.accepting.is_open() {
            let wake = self.turn.outgoing().mailbox().wake_descriptor();
            self.rings[0].queue.poll_descriptor(wake, token::of_ring(Operation::Mail, 0));
            self.figures.polls_armed_again += 1;
        }
    }

    /// Starts another wait for the eventfd of an additional ring; its completions are taken by the current turn.
    fn read_wake(&mut self, number: u32) {
        if !self.accepting.is_open() {
            return;
        }
        let number = u16::try_from(number).expect("rings are few");
        let eventfd = self.rings[usize::from(number)].queue.eventfd();
        self.rings[0].queue.read_eventfd(eventfd, number, token::of_ring(Operation::Wake, number));
    }

    /// U7 and U9, checked each turn in debug builds.
    fn check_accounts(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let files: u32 = self.rings.iter().map(|ring| ring.files_used).sum();
        let open = self.slots.in_use() - self.zero_copy.orphans();
        assert_eq!(files, open, "a direct descriptor per slot in use");
        if self.rings.iter().all(|ring| ring.receives == 0) {
            assert_eq!(self.buffers.free(), usize::from(self.options.buffers), "a buffer leaked");
        }
    }

    /// Sets this driver's own counts next to the counts of every turn.
    fn tell_figures(&mut self) {
        let figures = self.figures();
        let Figures { stale, overflows, starved, accept_pauses, rings, enters, .. } = figures;
        let told = &mut self.turn.figures;
        (told.zero_copy_sends, told.zero_copy_copies) = (figures.zero_copy_sends, figures.zero_copy_copies);
        (told.completions_stale, told.ring_overflows, told.receives_starved) = (stale, overflows, starved);
        (told.accept_pauses, told.rings, told.waits) = (accept_pauses, rings, enters);
        told.slots = u64::from(self.slots.capacity());
        told.slots_used = u64::from(self.slots.in_use());
    }

    fn figures(&self) -> Figures {
        Figures {
            overflows: self.rings.iter().map(|ring| ring.queue.overflows()).sum(),
            enters: self.rings.iter().map(|ring| ring.queue.enters()).sum(),
            rings: self.rings.len() as u64,
            turns: u64::from(self.turn_number),
            zero_copy_sends: self.zero_copy.notices,
            zero_copy_copies: self.zero_copy.copies,
            zero_copy_orphans: self.zero_copy.orphaned,
            ..self.figures
        }
    }
}

/// Rounds of receives in one turn. A connection's budget runs out sooner; this is a bound in case the kernel completes
/// nothing.
const ROUNDS_MAX: usize = 128;
