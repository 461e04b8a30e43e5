//! The loops that do effects and decide nothing: io_uring and epoll, of equal standing.
//!
//! Each shard runs on its own thread with one [`Core`] (the shard, or a small one in tests). A driver owns sockets and
//! slots; everything else that a turn consists of is alike for both and stands in [`turn`]: mail in and out,
//! signals, timeouts, and when to sleep.

use std::io;
use std::sync::Arc;

use crate::connection::ConnectionKey;
use crate::label::labels;
use crate::metrics::figures::{DriverFigures, ProcessFigures};
use crate::moment::Moment;
use crate::shard::{Flush, Input, Mail, Output, Shard, ShardIndex};

pub mod capacity;
pub mod clock;
mod completion;
pub mod control;
pub mod epoll;
pub mod failure;
pub mod host;
pub mod listener;
pub mod log;
pub mod log_writer;
pub mod mailbox;
pub mod outgoing;
mod pass;
pub mod process;
pub mod slots;
pub mod sys;
pub mod turn;
pub mod uring;
pub mod watchdog;

/// What a driver drives. [`Shard`] is the real one; its module states the contract.
pub trait Core {
    /// Gives the core an input.
    fn handle_input(&mut self, now: Moment, input: Input<'_>);
    /// Ends a batch of inputs: makes what they have to send.
    fn end_batch(&mut self) {}
    /// Takes an output.
    fn poll_output(&mut self) -> Option<Output>;
    /// Takes the next connection that owes bytes and has no send under way.
    fn poll_flush(&mut self) -> Option<Flush<'_>>;
    /// The bytes that are lent for this connection's send under way: what `poll_flush` gave and neither `Sent` nor
    /// `Closed` has ended. Empty when there is no such send. A driver that could not send at once asks for them again.
    fn lent(&self, connection: ConnectionKey) -> &[u8];
    /// When `Timeout` must be fed, on the monotonic clock, in ms.
    fn poll_timeout(&self) -> Option<u64>;
    /// Whether something waits to be made or taken: false after a drain.
    fn has_pending(&self) -> bool {
        false
    }
    /// True once `Drain` was fed and nothing is left to wait for.
    fn is_drained(&self) -> bool;
    /// A turn begins, at this time in µs of [`clock::Clock`]. For figures alone.
    fn handle_turn_begin(&mut self, _at_us: u64) {}
    /// A turn has ended, with everything that was sent in it fed; what the loop counted so far. For figures alone.
    fn handle_turn_end(&mut self, _at_us: u64, _figures: &DriverFigures) {}
    /// The process was measured, as [`Output::MeasureProcess`] asked.
    fn handle_process_figures(&mut self, _figures: &ProcessFigures) {}
}

impl Core for Shard {
    fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        Shard::handle_input(self, now, input);
    }
    fn end_batch(&mut self) {
        Shard::end_batch(self);
    }
    fn has_pending(&self) -> bool {
        Shard::has_pending(self)
    }
    fn poll_output(&mut self) -> Option<Output> {
        Shard::poll_output(self)
    }
    fn poll_flush(&mut self) -> Option<Flush<'_>> {
        Shard::poll_flush(self)
    }
    fn lent(&self, connection: ConnectionKey) -> &[u8] {
        Shard::lent(self, connection)
    }
    fn poll_timeout(&self) -> Option<u64> {
        Shard::poll_timeout(self)
    }
    fn is_drained(&self) -> bool {
        Shard::is_drained(self)
    }
    fn handle_turn_begin(&mut self, at_us: u64) {
        Shard::handle_turn_begin(self, at_us);
    }
    fn handle_turn_end(&mut self, at_us: u64, figures: &DriverFigures) {
        Shard::handle_turn_end(self, at_us, figures);
    }
    fn handle_process_figures(&mut self, figures: &ProcessFigures) {
        Shard::handle_process_figures(self, figures);
    }
}

labels! {
    /// Which loop runs the shards; all shards of a process alike.
    pub enum DriverKind {
        /// Completions: `io_uring`.
        Uring => "io_uring",
        /// Readiness: `epoll`, edge-triggered.
        Epoll => "epoll",
    }
}

/// Runs a shard on this thread until all shards of the process have stopped.
///
/// # Errors
/// What makes the loop impossible; a driver that the kernel refuses is found by its probe before.
pub fn run(kind: DriverKind, setup: ShardSetup, core: &mut impl Core) -> io::Result<()> {
    match kind {
        DriverKind::Uring => uring::run(setup, core),
        DriverKind::Epoll => epoll::run(setup, core),
    }
}

/// What the thread of one shard is given.
pub struct ShardSetup {
    /// The shard.
    pub index: ShardIndex,
    /// What it accepts from: one public listener, and on shard 0 the metrics listener.
    pub listeners: Vec<listener::BoundListener>,
    /// The mailboxes of all shards, by index; its own is among them.
    pub mailboxes: Arc<[mailbox::Mailbox<Mail>]>,
    /// What the server tells all shards.
    pub control: Arc<control::Control>,
    /// One clock for the process, so that moments of shards compare.
    pub clock: clock::Clock,
    /// Connections at once, those kept back for refusals included.
    pub slots: u32,
    /// Of these, how many are kept back to refuse with 4100 (P-CLOSE-2).
    pub refusal_slots: u32,
    /// Sends of at least this many bytes are zero-copy where io_uring runs and it pays (`--send-zc`).
    pub zero_copy_bytes_min: Option<u32>,
    /// Carries out the effects that concern the rest of the process.
    pub host: Box<dyn host::Host>,
}
