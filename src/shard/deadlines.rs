//! Deadlines of connections, in one queue: no connection has a timer. All times are of the shard's service clock
//! (P-LIVE-6).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::connection::ConnectionKey;

/// The kind of a deadline.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum DeadlineKind {
    /// A request, or the upgrade, must be complete.
    Request,
    /// A message must be complete.
    Message,
    /// The peer must have ended its direction.
    Linger,
    /// The peer must have answered our Close.
    CloseAnswer,
    /// A slow reader is reset.
    SlowReset,
    /// The connection must be authorized (P-AUTHZ-1).
    Authorization,
    /// A connection that was accepted at capacity must have made a request (P-CLOSE-2).
    AtCapacity,
}

/// One deadline.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Deadline {
    pub(super) at_ms: u64,
    pub(super) kind: DeadlineKind,
    pub(super) connection: ConnectionKey,
}

/// The queue, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: BinaryHeap<Reverse<Deadline>>,
}

impl Deadlines {
    /// Adds a deadline. Connections open, close and change faster than their deadlines pass: deadlines for which
    /// `is_stale` returns true are removed before the queue grows. So it holds at most twice as many as may still
    /// apply, and an idle connection has none.
    pub(super) fn push(&mut self, deadline: Deadline, is_stale: impl Fn(&Deadline) -> bool) {
        if self.queue.len() == self.queue.capacity() {
            self.queue.retain(|Reverse(deadline)| !is_stale(deadline));
        }
        self.queue.push(Reverse(deadline));
    }

    /// The earliest one.
    pub(super) fn peek(&self) -> Option<Deadline> {
        self.queue.peek().map(|Reverse(deadline)| *deadline)
    }

    /// Takes the earliest one out.
    pub(super) fn pop(&mut self) {
        self.queue.pop();
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Deadlines of a kind in the queue.
    #[cfg(test)]
    pub(super) fn count_of(&self, kind: DeadlineKind) -> usize {
        self.queue.iter().filter(|Reverse(deadline)| deadline.kind == kind).count()
    }
}
