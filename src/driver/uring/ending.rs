//! The end of a connection: cancel, wait for every operation, close, and only then notify the core (U3, U13).
//!
//! A cancellation and its target report their ends in any order and with any result (0, `ENOENT`, `EALREADY`); all that
//! counts is that both have reported. Cancellation uses the operation's token, which the kernel looks up by hash:
//! cancelling by descriptor would walk all polls of the ring for every connection that ends.

use super::Driver;
use super::table::Flag;
use super::token::{self, Operation};
use crate::connection::ConnectionKey;
use crate::driver::Core;
use crate::shard::Input;

impl<C: Core> Driver<'_, C> {
    /// Ends a connection; with `reset` the peer gets RST and the data that the socket holds is dropped.
    pub(super) fn end(&mut self, connection: ConnectionKey, reset: bool) {
        if !self.slots.is_current(connection) {
            return;
        }
        let entry = &mut self.connections[connection.slot as usize];
        if entry.has(Flag::Closing) {
            return;
        }
        entry.set(Flag::Closing);
        entry.take(Flag::Waiting);
        let queue = &mut self.rings[usize::from(entry.ring)].queue;
        if reset {
            entry.set(Flag::Reset);
            // Before 6.7 the kernel does not support this and closes in order instead.
            entry.begin(Operation::Linger);
            queue.linger_none(entry.file, token::of_connection(Operation::Linger, connection));
        }
        let cancels = [(Operation::Poll, Operation::CancelPoll), (Operation::Send, Operation::CancelSend)];
        for (operation, cancel) in cancels {
            if entry.is_under_way(operation) {
                entry.begin(cancel);
                let target = token::of_connection(operation, connection);
                queue.cancel(target, token::of_connection(cancel, connection));
            }
        }
        self.close_when_quiet(connection);
    }

    /// Closes the socket of a connection that is ending once it has no operation in flight. Closing with unread bytes
    /// would send RST and drop the data that the socket still holds for the peer, so unread bytes are discarded first;
    /// the two operations run in this order, as neither ever waits.
    pub(super) fn close_when_quiet(&mut self, connection: ConnectionKey) {
        let entry = &mut self.connections[connection.slot as usize];
        if !entry.is_quiet() {
            return;
        }
        let ring = &mut self.rings[usize::from(entry.ring)];
        if !entry.has(Flag::Reset) && !entry.has(Flag::ReadEnded) {
            entry.begin(Operation::Receive);
            ring.receives += 1;
            ring.queue.discard(entry.file, token::of_connection(Operation::Receive, connection));
        }
        entry.begin(Operation::Close);
        ring.queue.close(entry.file, token::of_connection(Operation::Close, connection));
    }

    /// The socket is closed and its descriptor free. The connection is over, unless the kernel still reads the bytes of
    /// a zero-copy send: it delivers them even after the close, for as long as the peer acknowledges any (U12).
    pub(super) fn closed(&mut self, connection: ConnectionKey) {
        let entry = &mut self.connections[connection.slot as usize];
        assert!(entry.is_quiet(), "the close is the last operation");
        self.rings[usize::from(entry.ring)].files_used -= 1;
        if entry.has(Flag::AwaitsNotice) {
            entry.set(Flag::SocketClosed);
            self.zero_copy.orphan();
        } else {
            self.over(connection);
        }
    }

    /// Nothing of a connection is left: its slot is free.
    pub(super) fn over(&mut self, connection: ConnectionKey) {
        self.slots.release(connection);
        self.core.handle_input(self.turn.now(), Input::Closed { connection });
    }

    /// FIN is wanted after all borrowed bytes.
    pub(super) fn want_fin(&mut self, connection: ConnectionKey) {
        if self.slots.is_current(connection) {
            self.connections[connection.slot as usize].set(Flag::FinWanted);
            self.fin_due.push(connection.slot);
        }
    }

    /// Sends FIN where the core, drained, has no more borrowed bytes.
    pub(super) fn send_due_fins(&mut self) {
        for slot in std::mem::take(&mut self.fin_due) {
            let Some(connection) = self.slots.current(slot) else {
                continue;
            };
            let entry = &mut self.connections[slot as usize];
            let due = entry.has(Flag::FinWanted) && !entry.has(Flag::Closing) && !entry.has(Flag::FinSent);
            if due && !entry.is_under_way(Operation::Send) && !entry.has(Flag::AwaitsNotice) {
                entry.set(Flag::FinSent);
                entry.begin(Operation::Shutdown);
                let token = token::of_connection(Operation::Shutdown, connection);
                self.rings[usize::from(entry.ring)].queue.shutdown_write(entry.file, token);
            }
        }
    }

    /// Ends everything when the loop stops: no operation is left in flight.
    pub(super) fn end_all(&mut self) -> std::io::Result<()> {
        self.cancel_accepts();
        self.rings[0].queue.cancel(token::of_ring(Operation::Mail, 0), token::of_ring(Operation::Cancel, 0));
        for number in 1..self.rings.len() {
            let number = u16::try_from(number).expect("rings are few");
            let target = token::of_ring(Operation::Wake, number);
            self.rings[0].queue.cancel(target, token::of_ring(Operation::Cancel, 0));
        }
        self.end_connections(Stragglers::Wait);
        for round in 0..END_ROUNDS {
            self.feed_completions(usize::MAX);
            if !self.zero_copy.is_quiet() {
                let patient = round < END_ROUNDS / 2;
                self.end_connections(if patient { Stragglers::Wait } else { Stragglers::Reset });
            }
            while self.core.poll_output().is_some() {}
            if self.rings.iter().all(|ring| ring.queue.in_flight() == 0) {
                break;
            }
            for ring in &mut self.rings {
                if ring.queue.in_flight() > 0 {
                    ring.queue.wait(Some(END_ROUND_MS));
                }
            }
        }
        let in_flight: u32 = self.rings.iter().map(|ring| ring.queue.in_flight()).sum();
        if in_flight > 0 || self.slots.in_use() > 0 {
            let slots = self.slots.in_use();
            tracing::error!(in_flight, slots, "operations did not end when the io_uring loop stopped");
        }
        self.check_accounts();
        self.rings.iter_mut().find_map(|ring| ring.queue.take_failure()).map_or(Ok(()), Err)
    }

    /// Ends all connections that are not already ending.
    fn end_connections(&mut self, stragglers: Stragglers) {
        for slot in 0..self.slots.high_water() {
            let Some(connection) = self.slots.current(slot) else {
                continue;
            };
            let straggles = self.connections[slot as usize].has(Flag::AwaitsNotice);
            match stragglers {
                Stragglers::Wait if straggles => {}
                Stragglers::Wait | Stragglers::Reset => self.end(connection, straggles),
            }
        }
    }

    fn cancel_accepts(&mut self) {
        self.accepting.close();
        for ring in &mut self.rings {
            for seat in ring.seats_in_flight() {
                let target = token::of_ring(Operation::Accept, seat);
                ring.queue.cancel(target, token::of_ring(Operation::Cancel, seat));
            }
        }
    }
}

/// How to treat connections whose zero-copy send has not given its notice when the loop stops. Closed in order they
/// would keep the bytes for as long as the peer lets them; a reset drops the bytes at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stragglers {
    Wait,
    Reset,
}

/// How often and how long the end waits for operations that do not end, at most 2 s.
const END_ROUNDS: usize = 200;
const END_ROUND_MS: u64 = 10;
