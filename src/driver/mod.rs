//! The event loops, io_uring and epoll, with equal support for both. They carry out effects and make no decisions.
//!
//! Each shard runs on its own thread with one [`Core`] (the shard, or a small one in tests). A driver owns sockets and
//! slots. Everything else in a turn is common to both drivers and lives in [`turn`]: mail in and out, signals,
//! timeouts, and when to sleep.

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
pub mod priority;
pub mod process;
pub mod refusals;
pub mod slots;
pub mod sys;
pub mod turn;
pub mod uring;
pub mod watchdog;

/// The state machine that a driver runs. [`Shard`] is the real one; its module documents the contract.
pub trait Core {
    /// Feeds the core an input.
    fn handle_input(&mut self, now: Moment, input: Input<'_>);
    /// Ends a batch of inputs: builds the bytes that the core has to send.
    fn end_batch(&mut self) {}
    /// Takes an output.
    fn poll_output(&mut self) -> Option<Output>;
    /// Takes the next connection that has pending bytes and no send in flight.
    fn poll_flush(&mut self) -> Option<Flush<'_>>;
    /// The bytes borrowed for this connection's send in flight: those that `poll_flush` returned and that neither
    /// `Sent` nor `Closed` has ended. Empty when there is no such send. A driver that could not send at once calls this
    /// to get them again.
    fn lent(&self, connection: ConnectionKey) -> &[u8];
    /// When `Timeout` must be fed, on the monotonic clock, in ms.
    fn poll_timeout(&self) -> Option<u64>;
    /// Whether work or output is pending: false after a drain.
    fn has_pending(&self) -> bool {
        false
    }
    /// True once `Drain` was fed and nothing is left to wait for.
    fn is_drained(&self) -> bool;
    /// A turn begins, at this time in µs of [`clock::Clock`]. Used for metrics only.
    fn handle_turn_begin(&mut self, _at_us: u64) {}
    /// A turn has ended and everything sent in it was fed; passes the loop's counts so far. Used for metrics only.
    fn handle_turn_end(&mut self, _at_us: u64, _figures: &DriverFigures) {}
    /// The process metrics requested by [`Output::MeasureProcess`].
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
    /// Which loop runs the shards; the same for all shards of a process.
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
/// An error that makes the loop impossible. A driver that the kernel refuses is detected earlier, by its probe.
pub fn run(kind: DriverKind, setup: ShardSetup, core: &mut impl Core) -> io::Result<()> {
    match kind {
        DriverKind::Uring => uring::run(setup, core),
        DriverKind::Epoll => epoll::run(setup, core),
    }
}

/// The setup of one shard's thread.
pub struct ShardSetup {
    /// The shard.
    pub index: ShardIndex,
    /// The listeners it accepts from: one public listener, and on shard 0 the metrics listener.
    pub listeners: Vec<listener::BoundListener>,
    /// The mailboxes of all shards, by index, including its own.
    pub mailboxes: Arc<[mailbox::Mailbox<Mail>]>,
    /// Signals from the server to all shards.
    pub control: Arc<control::Control>,
    /// One clock for the process, so that moments of different shards are comparable.
    pub clock: clock::Clock,
    /// Maximum concurrent connections, including the slots reserved for refusals.
    pub slots: u32,
    /// How many of these are reserved for refusing connections with 4100 (P-CLOSE-2).
    pub refusal_slots: u32,
    /// Sends of at least this many bytes are zero-copy where io_uring runs and zero-copy pays off (`--send-zc`).
    pub zero_copy_bytes_min: Option<u32>,
    /// Carries out the effects that concern the rest of the process.
    pub host: Box<dyn host::Host>,
}
