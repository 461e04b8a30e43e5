//! Accepting: several one-shot accepts per listener, each with its own sockaddr, since a direct descriptor has no
//! `getpeername`.
//!
//! An accept is started only if a slot and a direct descriptor are free for it, so neither can be missing when it
//! completes (U9). When all rings are full another ring is opened; when all slots are in use accepting stops by itself
//! and resumes as connections end. When the kernel lacks a resource, accepting resumes after a pause (T15).

use rustix::fd::AsFd;

use super::ring::{Ring, Seat};
use super::table::Connection;
use super::token::{self, Operation};
use super::{Driver, Wait, address};
use crate::driver::log::RestLog;
use crate::driver::{Core, listener};
use crate::limits::ACCEPT_REST_MS;
use crate::moment::Moment;
use crate::shard::Input;

/// Whether connections are being accepted, and how many accepts are in flight.
#[derive(Debug)]
pub(super) struct Accepting {
    /// Accepts in flight, by listener.
    under_way: Vec<u16>,
    state: State,
    rests: RestLog,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    /// Until this time, in ms of the monotonic clock.
    Paused(u64),
    /// Permanently: the loop ends.
    Closed,
}

impl Accepting {
    pub(super) fn new(listeners: usize) -> Self {
        Self { under_way: vec![0; listeners], state: State::Open, rests: RestLog::default() }
    }

    /// Whether the loop is to continue.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Limits a sleep to the end of the pause.
    pub(super) fn limit(&self, wait: Wait, now: Moment) -> Wait {
        let State::Paused(until) = self.state else {
            return wait;
        };
        let left = until.saturating_sub(now.monotonic_ms).max(1);
        match wait {
            Wait::No => Wait::No,
            Wait::AtMost(ms) => Wait::AtMost(ms.min(left)),
            Wait::Forever => Wait::AtMost(left),
        }
    }

    fn total(&self) -> u32 {
        self.under_way.iter().map(|&count| u32::from(count)).sum()
    }
}

impl<C: Core> Driver<'_, C> {
    /// Starts accepts up to the configured number per listener, as far as slots and descriptors are free.
    pub(super) fn arm_accepts(&mut self) {
        match self.accepting.state {
            State::Closed => return,
            State::Paused(until) if until > self.turn.now().monotonic_ms => return,
            State::Paused(_) => self.accepting.state = State::Open,
            State::Open => {}
        }
        for listener in 0..self.listeners.len() {
            while self.accepting.under_way[listener] < self.options.accepts {
                let free = self.slots.capacity() - self.slots.in_use();
                if self.accepting.total() >= free {
                    return;
                }
                let Some(ring) = self.ring_with_room() else {
                    return;
                };
                self.start_accept(ring, listener);
            }
        }
    }

    fn start_accept(&mut self, ring: usize, listener: usize) {
        let number = u8::try_from(listener).expect("a shard has two listeners at most");
        let seat = self.rings[ring].take_seat(Seat::Listener(number));
        self.accepting.under_way[listener] += 1;
        let socket = self.listeners[listener].socket.as_fd();
        self.rings[ring].queue.accept(socket, seat, token::of_ring(Operation::Accept, seat));
    }

    /// The first ring with a free descriptor and a free seat; opens one if necessary.
    fn ring_with_room(&mut self) -> Option<usize> {
        if let Some(ring) = self.rings.iter().position(Ring::has_room) {
            return Some(ring);
        }
        let number = u16::try_from(self.rings.len()).expect("rings are few");
        let full = self.rings.iter().all(Ring::is_full);
        if number >= self.options.rings_max || !full {
            return None;
        }
        match Ring::open(&self.options, &self.buffers, self.slots.capacity()) {
            Ok(mut ring) => {
                let eventfd = ring.queue.eventfd();
                ring.queue.announce(false);
                self.rings.push(ring);
                self.rings[0].queue.read_eventfd(eventfd, number, token::of_ring(Operation::Wake, number));
                tracing::info!(rings = number + 1, connections = self.slots.in_use(), "opened a further ring");
                Some(usize::from(number))
            }
            Err(refusal) => {
                self.accepting.rests.note(self.turn.now(), "opening a further ring", &refusal);
                self.pause_accepting();
                None
            }
        }
    }

    /// An accept ended.
    pub(super) fn accepted(&mut self, ring: usize, seat: u32, result: i32) {
        let seat = u16::try_from(seat).expect("packed from a seat");
        let Seat::Listener(listener) = self.rings[ring].free_seat(seat) else {
            self.figures.stale += 1;
            return;
        };
        let listener = usize::from(listener);
        self.accepting.under_way[listener] -= 1;
        let Ok(file) = u32::try_from(result) else {
            return self.accept_failed(-result);
        };
        self.rings[ring].files_used += 1;
        let peer = address::parse_address(&self.rings[ring].queue.peer(seat)).expect("listeners are of TCP");
        let taken = self.slots.take().expect("no accept is started without a free slot");
        let connection = taken.connection();
        let entry = Connection::new(u8::try_from(ring).expect("rings are few"), file);
        match self.connections.get_mut(connection.slot as usize) {
            Some(place) => *place = entry,
            None => self.connections.push(entry),
        }
        self.arm_poll(connection);
        let input = Input::Accepted {
            connection,
            peer: listener::canonical(peer),
            listener: self.listeners[listener].kind,
            refuse: taken.is_to_refuse(),
        };
        self.core.handle_input(self.turn.now(), input);
        if !self.accepting.is_open() {
            self.end(connection, false);
        }
    }

    fn accept_failed(&mut self, errno: i32) {
        match errno {
            // The loop ends, or one peer disconnected while it waited to be accepted.
            libc::ECANCELED | libc::ECONNABORTED | libc::EINTR => {}
            _ => {
                if self.accepting.state == State::Open {
                    let error = std::io::Error::from_raw_os_error(errno);
                    self.accepting.rests.note(self.turn.now(), "accepting", &error);
                }
                self.pause_accepting();
            }
        }
    }

    fn pause_accepting(&mut self) {
        if self.accepting.is_open() {
            self.accepting.state = State::Paused(self.turn.now().monotonic_ms + ACCEPT_REST_MS);
            self.figures.accept_pauses += 1;
        }
    }
}
