//! Reading: from an edge of the poll to the end of the data in the socket.
//!
//! The poll reports edges only, so reading stops only when a receive reports that the socket is empty. Once the peer's
//! end was seen, reading stops at that end: bytes and FIN may have been one edge. A paused connection remembers that
//! data arrived and continues reading when it is resumed.

use super::Driver;
use super::table::Flag;
use super::token::{self, Operation};
use crate::connection::ConnectionKey;
use crate::driver::Core;
use crate::driver::sys::{Completion, HeldBuffer};
use crate::shard::Input;

const READ_END: u32 = libc::POLLRDHUP.cast_unsigned() as u32;
const HANG_UP: u32 = libc::POLLHUP.cast_unsigned() as u32;
const ERROR: u32 = libc::POLLERR.cast_unsigned() as u32;

impl<C: Core> Driver<'_, C> {
    /// Parks a connection: from now on every edge of its socket is reported.
    pub(super) fn arm_poll(&mut self, connection: ConnectionKey) {
        let entry = &mut self.connections[connection.slot as usize];
        entry.begin(Operation::Poll);
        let token = token::of_connection(Operation::Poll, connection);
        self.rings[usize::from(entry.ring)].queue.poll(entry.file, token);
    }

    /// An edge, or the end of the poll.
    pub(super) fn polled(&mut self, connection: ConnectionKey, completion: Completion) {
        let Ok(events) = u32::try_from(completion.result) else {
            return self.poll_failed(connection, completion);
        };
        let entry = &mut self.connections[connection.slot as usize];
        if events & (READ_END | HANG_UP | ERROR) != 0 {
            entry.set(Flag::HangUp);
        }
        let deaf = entry.has(Flag::Paused) || entry.has(Flag::ReadEnded);
        if events & ERROR != 0 && deaf {
            // A reset: no receive would run to report it, and nothing can be sent any more.
            return self.end(connection, false);
        }
        if !completion.has_more() {
            self.figures.polls_armed_again += 1;
            self.arm_poll(connection);
        }
        self.want_receive(connection.slot);
    }

    /// The kernel ended a poll (U11), for lack of memory or because its queue overflowed.
    fn poll_failed(&mut self, connection: ConnectionKey, completion: Completion) {
        if completion.result == -libc::ECANCELED && !completion.has_more() {
            self.figures.polls_armed_again += 1;
            self.arm_poll(connection);
            self.want_receive(connection.slot);
        } else {
            self.end(connection, false);
        }
    }

    /// Receives as soon as allowed: now, when buffers are free, in the next turn, or when the connection is resumed.
    pub(super) fn want_receive(&mut self, slot: u32) {
        let entry = &mut self.connections[slot as usize];
        if entry.has(Flag::Paused) {
            entry.set(Flag::Readable);
            return;
        }
        let pointless = entry.has(Flag::ReadEnded) || entry.has(Flag::Closing);
        if pointless || entry.has(Flag::Waiting) || entry.is_under_way(Operation::Receive) {
            return;
        }
        let turn = self.turn_number as u16;
        if entry.turn != turn {
            entry.turn = turn;
            entry.received_bytes = 0;
        }
        if entry.received_bytes >= self.options.receive_bytes_per_turn {
            entry.set(Flag::Waiting);
            self.over_budget.push(slot);
            return;
        }
        if self.starved.is_empty() && self.start_receive(slot) {
            return;
        }
        self.connections[slot as usize].set(Flag::Waiting);
        self.starved.push_back(slot);
        self.figures.starved += 1;
    }

    /// Begins a receive if a buffer is free for it.
    fn start_receive(&mut self, slot: u32) -> bool {
        let connection = self.slots.current(slot).expect("a connection that is not closing has its slot");
        let entry = &mut self.connections[slot as usize];
        let ring = &mut self.rings[usize::from(entry.ring)];
        let token = token::of_connection(Operation::Receive, connection);
        let Some(buffer) = ring.queue.receive(entry.file, &mut self.buffers, token) else {
            return false;
        };
        entry.buffer = buffer;
        entry.begin(Operation::Receive);
        ring.receives += 1;
        true
    }

    /// A receive ended: bytes, the peer's end, nothing, or an error.
    pub(super) fn received(&mut self, connection: ConnectionKey, completion: Completion, buffer: Option<&HeldBuffer>) {
        let now = self.turn.now();
        let entry = &mut self.connections[connection.slot as usize];
        match (completion.result, buffer) {
            (1.., Some(buffer)) => {
                let length = completion.result.cast_unsigned();
                entry.received_bytes = entry.received_bytes.saturating_add(length);
                let more = completion.socket_holds_more() || entry.has(Flag::HangUp);
                let bytes = self.buffers.bytes(buffer, length as usize);
                self.core.handle_input(now, Input::Received { connection, bytes });
                if more {
                    self.want_receive(connection.slot);
                }
            }
            (0, _) => {
                entry.set(Flag::ReadEnded);
                self.core.handle_input(now, Input::ReadEnded { connection });
            }
            (result, _) if result == -libc::EAGAIN || result == -libc::EINTR => {
                entry.take(Flag::HangUp);
            }
            _ => self.end(connection, false),
        }
    }

    /// Serves connections that found no buffer, as many as there are free buffers now, the longest waiting first (U6).
    pub(super) fn feed_starved(&mut self) {
        while self.buffers.free() > 0 {
            let Some(slot) = self.starved.pop_front() else {
                break;
            };
            if self.connections[slot as usize].take(Flag::Waiting) {
                let started = self.start_receive(slot);
                debug_assert!(started, "a buffer is free");
            }
        }
    }

    /// Begins a turn: connections that had used up their budget get a new one.
    pub(super) fn release_over_budget(&mut self) {
        for slot in std::mem::take(&mut self.over_budget) {
            if self.connections[slot as usize].take(Flag::Waiting) {
                self.want_receive(slot);
            }
        }
    }

    /// Stops reading. A receive in flight still completes.
    pub(super) fn pause(&mut self, connection: ConnectionKey) {
        if self.slots.is_current(connection) {
            let entry = &mut self.connections[connection.slot as usize];
            entry.set(Flag::Paused);
            if entry.take(Flag::Waiting) {
                entry.set(Flag::Readable);
            }
        }
    }

    /// Reads again: an explicit receive, because the edge for the waiting data has passed.
    pub(super) fn resume(&mut self, connection: ConnectionKey) {
        if self.slots.is_current(connection) {
            let entry = &mut self.connections[connection.slot as usize];
            let paused = entry.take(Flag::Paused);
            if entry.take(Flag::Readable) && paused {
                self.want_receive(connection.slot);
            }
        }
    }
}
