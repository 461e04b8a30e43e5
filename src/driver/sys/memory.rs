//! Where the kernel writes while operations are in flight: addresses of accepted peers, words of eventfds, and a share
//! of the loop's receive buffers.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::rc::Rc;

use super::buffers::{BufferMemory, Buffers};

/// All memory that operations in flight point into. Leaked rather than freed if the kernel might still write to it.
pub(super) struct Memory {
    /// The buffers that this ring's receives fill.
    buffers: Option<Rc<BufferMemory>>,
    seats: Box<[UnsafeCell<Seat>]>,
    wakes: Box<[UnsafeCell<u64>]>,
}

/// Where the address of one accept is written.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Seat {
    address: [u8; ADDRESS_BYTES],
    length: libc::socklen_t,
}

/// `sizeof(struct sockaddr_in6)`.
pub(in crate::driver) const ADDRESS_BYTES: usize = 28;

impl Memory {
    /// Allocates memory for this many concurrent accepts and reads of eventfds.
    pub(super) fn new(buffers: Option<Rc<BufferMemory>>, accepts: u16, wakes: u16) -> Self {
        let seat = || UnsafeCell::new(Seat { address: [0; ADDRESS_BYTES], length: 0 });
        Self {
            buffers,
            seats: (0..accepts).map(|_| seat()).collect(),
            wakes: (0..wakes).map(|_| UnsafeCell::new(0)).collect(),
        }
    }

    /// Replaces memory that is leaked.
    pub(super) fn empty() -> Self {
        Self::new(None, 0, 0)
    }

    /// Whether this keeps those buffers alive.
    pub(super) fn shares(&self, buffers: &Buffers) -> bool {
        self.buffers.as_ref().is_some_and(|memory| Rc::ptr_eq(memory, &buffers.memory()))
    }

    /// Prepares a seat for the next accept; returns where the kernel writes the address and its length.
    pub(super) fn seat(&self, seat: u16) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        let place = self.seats[usize::from(seat)].get();
        // SAFETY: the driver has at most one accept in flight per seat, so nothing else refers to it now.
        unsafe { (*place).length = ADDRESS_BYTES as libc::socklen_t };
        // SAFETY: computing addresses of fields of a live allocation.
        let (address, length) = unsafe { (&raw mut (*place).address, &raw mut (*place).length) };
        (address.cast(), length)
    }

    /// The peer's `sockaddr_in` or `sockaddr_in6` that a completed accept wrote to its seat.
    pub(super) fn peer(&self, seat: u16) -> [u8; ADDRESS_BYTES] {
        // SAFETY: called for an accept that has completed, so the kernel no longer writes there; a copy is taken.
        let seat = unsafe { *self.seats[usize::from(seat)].get() };
        seat.address
    }

    /// The word that a read of an eventfd fills.
    pub(super) fn wake(&self, place: u16) -> *mut u64 {
        self.wakes[usize::from(place)].get()
    }
}
