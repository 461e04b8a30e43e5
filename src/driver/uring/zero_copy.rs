//! Zero-copy sends: only when enabled, only for large sends, and only while the kernel does not copy the bytes after
//! all.
//!
//! A zero-copy send reports twice: first the number of bytes taken, like any send; then, once nothing in the kernel
//! reads the bytes any more, the notice (U12). The core may free or move borrowed bytes as soon as `Sent` or `Closed`
//! is fed, so neither is fed before the notice. A peer that reads slowly delays its notice until it has acknowledged
//! the bytes, and its next send waits for that; if the peer never does, the core closes it like any connection that
//! stalls (P-CLOSE-5).
//!
//! ```text
//!             16 judged, most in place          of the last 1,024, half or more copied
//!   trial  ------------------------------>  on  ---------------------------------------->  off
//!     |                                       a send refused for want of memory or means    ^
//!     +-------------------------------------------------------------------------------------+
//! ```
//! During the trial, at most its 16 sends are zero-copy. On loopback and veth the kernel always copies, so the trial
//! ends zero-copy there; it is not tried again before the next start.

use std::collections::HashMap;

use super::Driver;
use super::table::Flag;
use super::token::{self, Operation};
use crate::connection::ConnectionKey;
use crate::driver::Core;
use crate::driver::completion::{Completion, Usage};
use crate::limits::{ZERO_COPY_TRIAL_SENDS, ZERO_COPY_WINDOW_SENDS};

/// The loop's state for its zero-copy sends.
#[derive(Debug)]
pub(super) struct ZeroCopy {
    bytes_min: usize,
    standing: Standing,
    /// By slot, the sends that have not given their notice; with the number of bytes taken, once that is known.
    under_way: HashMap<u32, Option<i32>>,
    /// Judged since the last judgement.
    judged: u32,
    /// Number of these that were copied.
    copied: u32,
    /// Connections whose socket is closed and whose notice is pending.
    orphans: u32,
    /// Total number of orphans so far.
    pub(super) orphaned: u64,
    /// Total number of notices.
    pub(super) notices: u64,
    /// Number of these that report a copy.
    pub(super) copies: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// With the number of sends started so far.
    Trial(u32),
    On,
    Off,
}

impl ZeroCopy {
    pub(super) fn new(bytes_min: Option<u32>) -> Self {
        Self {
            bytes_min: bytes_min.map_or(usize::MAX, |bytes| bytes as usize),
            standing: if bytes_min.is_some() { Standing::Trial(0) } else { Standing::Off },
            under_way: HashMap::new(),
            judged: 0,
            copied: 0,
            orphans: 0,
            orphaned: 0,
            notices: 0,
            copies: 0,
        }
    }

    /// Whether a send of that length is to be zero-copy.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        let open = match self.standing {
            Standing::Trial(started) => started < ZERO_COPY_TRIAL_SENDS,
            Standing::On => true,
            Standing::Off => false,
        };
        open && bytes >= self.bytes_min
    }

    /// A send was started. At most one per slot: the bytes are borrowed until its notice.
    pub(super) fn start(&mut self, slot: u32) {
        if let Standing::Trial(started) = &mut self.standing {
            *started += 1;
        }
        let before = self.under_way.insert(slot, None);
        debug_assert!(before.is_none(), "one send per connection at a time");
    }

    /// Whether the send of this slot is zero-copy.
    pub(super) fn is_under_way(&self, slot: u32) -> bool {
        !self.under_way.is_empty() && self.under_way.contains_key(&slot)
    }

    /// Whether no notice is awaited.
    pub(super) fn is_quiet(&self) -> bool {
        self.under_way.is_empty()
    }

    /// A connection's socket was closed before its notice.
    pub(super) fn orphan(&mut self) {
        self.orphans += 1;
        self.orphaned += 1;
    }

    /// Number of connections that have no socket any more and wait for their notice.
    pub(super) fn orphans(&self) -> u32 {
        self.orphans
    }

    fn took(&mut self, slot: u32, result: i32) {
        self.under_way.insert(slot, Some(result));
    }

    /// The send of this slot is over; returns the number of bytes it took.
    fn end(&mut self, slot: u32) -> Option<i32> {
        self.under_way.remove(&slot).expect("a report belongs to a send in flight")
    }

    fn judge(&mut self, usage: Usage) {
        let copied = usage == Usage::Copied;
        self.notices += 1;
        self.copies += u64::from(copied);
        self.judged += 1;
        self.copied += u32::from(copied);
        let enough = match self.standing {
            Standing::Trial(_) => ZERO_COPY_TRIAL_SENDS,
            Standing::On => ZERO_COPY_WINDOW_SENDS,
            Standing::Off => return,
        };
        if self.judged < enough {
            return;
        }
        if self.copied * 2 >= self.judged {
            let (copied, sends) = (self.copied, self.judged);
            tracing::warn!(copied, sends, "zero-copy sends are off: the kernel copied the bytes anyway");
            self.standing = Standing::Off;
        } else {
            self.standing = Standing::On;
        }
        (self.judged, self.copied) = (0, 0);
    }

    fn give_up(&mut self, errno: i32) {
        if self.standing != Standing::Off {
            let error = std::io::Error::from_raw_os_error(errno);
            tracing::warn!(%error, "zero-copy sends are off: the kernel refused one");
            self.standing = Standing::Off;
        }
    }
}

impl<C: Core> Driver<'_, C> {
    /// A zero-copy send reported the bytes it took, or gave its notice, or was refused before it began.
    pub(super) fn zero_copy_reported(&mut self, connection: ConnectionKey, completion: Completion) {
        let entry = &mut self.connections[connection.slot as usize];
        if let Some(usage) = completion.notice() {
            self.zero_copy.judge(usage);
            let taken = self.zero_copy.end(connection.slot).expect("the notice comes last");
            entry.take(Flag::AwaitsNotice);
            match (entry.has(Flag::Closing), entry.has(Flag::SocketClosed)) {
                (false, _) => self.sent(connection, taken),
                (true, false) => self.close_when_quiet(connection),
                (true, true) => {
                    self.zero_copy.orphans -= 1;
                    self.over(connection);
                }
            }
            return;
        }
        entry.end(Operation::Send);
        if completion.has_more() {
            entry.set(Flag::AwaitsNotice);
            self.zero_copy.took(connection.slot, completion.result);
            if entry.has(Flag::Closing) {
                self.close_when_quiet(connection);
            }
            return;
        }
        self.zero_copy.end(connection.slot);
        match -completion.result {
            _ if entry.has(Flag::Closing) => self.close_when_quiet(connection),
            // The limit on locked memory or on socket options, or a socket without support for it: nothing was taken.
            errno @ (libc::ENOMEM | libc::ENOBUFS | libc::EINVAL | libc::EOPNOTSUPP) => {
                self.zero_copy.give_up(errno);
                self.send_again(connection);
            }
            _ => self.sent(connection, completion.result),
        }
    }

    /// Sends the borrowed bytes by a plain send.
    fn send_again(&mut self, connection: ConnectionKey) {
        let entry = &mut self.connections[connection.slot as usize];
        let bytes = self.core.lent(connection);
        assert!(!bytes.is_empty(), "borrowed bytes stay borrowed until Sent or Closed");
        entry.begin(Operation::Send);
        let token = token::of_connection(Operation::Send, connection);
        self.rings[usize::from(entry.ring)].queue.send(entry.file, bytes, token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(zero_copy: &mut ZeroCopy, usages: impl IntoIterator<Item = Usage>) {
        usages.into_iter().for_each(|usage| zero_copy.judge(usage));
    }

    /// The trial has a bound on sends, whatever their outcome; a window that is mostly copied ends zero-copy for good,
    /// one that is mostly not copied continues. Method: judgements made by hand, on both sides of each bound.
    #[test]
    fn copies_switch_it_off() {
        let mut on = ZeroCopy::new(Some(4_096));
        assert!(!on.takes(4_095) && on.takes(4_096));
        for slot in 0..ZERO_COPY_TRIAL_SENDS {
            assert!(on.takes(4_096));
            on.start(slot);
        }
        assert!(!on.takes(4_096), "the trial is judged first");
        judged(
            &mut on,
            (0..ZERO_COPY_TRIAL_SENDS)
                .map(|send| if send % 2 == 0 || send == 1 { Usage::InPlace } else { Usage::Copied }),
        );
        assert!(on.takes(4_096));
        let half = ZERO_COPY_WINDOW_SENDS / 2;
        judged(&mut on, (0..half + 1).map(|_| Usage::InPlace).chain((1..half).map(|_| Usage::Copied)));
        assert!(on.takes(4_096), "fewer than half were copied");
        judged(&mut on, (0..half).map(|_| Usage::InPlace).chain((0..half).map(|_| Usage::Copied)));
        assert!(!on.takes(65_536), "half were copied");
        judged(&mut on, (0..ZERO_COPY_WINDOW_SENDS).map(|_| Usage::InPlace));
        assert!(!on.takes(65_536), "for good");

        let mut trial = ZeroCopy::new(Some(1));
        judged(&mut trial, (0..ZERO_COPY_TRIAL_SENDS).map(|_| Usage::Copied));
        assert!(!trial.takes(65_536));
        assert!(!ZeroCopy::new(None).takes(usize::MAX - 1));
    }
}
