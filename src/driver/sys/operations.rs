//! The operations of a ring, typed so that a pointer in one can only refer to memory that outlives it: the queue's own
//! [`super::memory`], the loop's receive buffers, a constant, or bytes borrowed from the core.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::opcode;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};

use super::buffers::Buffers;
use super::memory::ADDRESS_BYTES;
use super::queue::Queue;

impl Queue {
    /// Accepts one connection into a free direct descriptor; the peer's address goes to `seat`.
    ///
    /// The listener must stay open until the completion; a closed one would fail with `EBADF`, not reach memory.
    pub(in crate::driver) fn accept(&mut self, listener: BorrowedFd<'_>, seat: u16, user_data: u64) {
        let (address, length) = self.memory.seat(seat);
        let entry = opcode::Accept::new(Fd(listener.as_raw_fd()), address, length)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push(entry, user_data);
    }

    /// The peer's `sockaddr_in` or `sockaddr_in6` that a completed accept wrote to its seat.
    pub(in crate::driver) fn peer(&self, seat: u16) -> [u8; ADDRESS_BYTES] {
        self.memory.peer(seat)
    }

    /// Reports readiness of a direct descriptor until cancelled, edge-triggered.
    pub(in crate::driver) fn poll(&mut self, file: u32, user_data: u64) {
        self.push(opcode::PollAdd::new(Fixed(file), POLL_EVENTS).multi(true).build(), user_data);
    }

    /// Reports readability of a descriptor until cancelled, edge-triggered. The descriptor must stay open until then.
    pub(in crate::driver) fn poll_descriptor(&mut self, descriptor: BorrowedFd<'_>, user_data: u64) {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), events).multi(true).build(), user_data);
    }

    /// Reads a blocking eventfd once it is not 0. `place` is the number of the word it is read into, one read at a
    /// time.
    pub(in crate::driver) fn read_eventfd(&mut self, eventfd: RawFd, place: u16, user_data: u64) {
        let word = self.memory.wake(place);
        self.push(opcode::Read::new(Fd(eventfd), word.cast(), 8).build(), user_data);
    }

    /// Receives the available bytes into a free buffer of the loop, never waiting. Returns the buffer's number, by
    /// which it is taken back after the completion; returns `None`, and pushes nothing, when no buffer is free.
    pub(in crate::driver) fn receive(&mut self, file: u32, buffers: &mut Buffers, user_data: u64) -> Option<u16> {
        assert!(self.memory.shares(buffers), "a ring keeps the buffers of its own loop alive");
        let (number, place, bytes) = buffers.lend(user_data)?;
        let entry = opcode::Recv::new(Fixed(file), place.as_ptr(), bytes).flags(libc::MSG_DONTWAIT).build();
        self.push(entry, user_data);
        Some(number)
    }

    /// Discards the available bytes, never waiting.
    pub(in crate::driver) fn discard(&mut self, file: u32, user_data: u64) {
        // With MSG_TRUNC, TCP removes the bytes from its queue without copying them, so there is no buffer to point to.
        let entry = opcode::Recv::new(Fixed(file), std::ptr::null_mut(), DISCARD_BYTES)
            .flags(libc::MSG_DONTWAIT | libc::MSG_TRUNC)
            .build();
        self.push(entry, user_data);
    }

    /// Sends all of `bytes`, waiting for space in the socket. The bytes must stay valid and unmoved until the
    /// completion: they are borrowed from the core until `Sent` or `Closed` is fed, and neither is fed before it.
    pub(in crate::driver) fn send(&mut self, file: u32, bytes: &[u8], user_data: u64) {
        let length = u32::try_from(bytes.len()).expect("a send is at most SEND_BYTES_MAX");
        let entry = opcode::Send::new(Fixed(file), bytes.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry, user_data);
    }

    /// Like [`Queue::send`], but directly from where the bytes are. The first completion reports how many bytes were
    /// taken. While more completions are to come, the kernel still reads the bytes, until the second one, the notice,
    /// which also reports whether the kernel copied them after all.
    pub(in crate::driver) fn send_zero_copy(&mut self, file: u32, bytes: &[u8], user_data: u64) {
        let length = u32::try_from(bytes.len()).expect("a send is at most SEND_BYTES_MAX");
        let entry = opcode::SendZc::new(Fixed(file), bytes.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .zc_flags(SEND_ZC_REPORT_USAGE)
            .build();
        self.push(entry, user_data);
    }

    /// Sends FIN.
    pub(in crate::driver) fn shutdown_write(&mut self, file: u32, user_data: u64) {
        self.push(opcode::Shutdown::new(Fixed(file), libc::SHUT_WR).build(), user_data);
    }

    /// Makes the close of this direct descriptor send RST and drop unsent data (kernel 6.7).
    pub(in crate::driver) fn linger_none(&mut self, file: u32, user_data: u64) {
        let level = libc::SOL_SOCKET.cast_unsigned();
        let name = libc::SO_LINGER.cast_unsigned();
        let size = size_of::<libc::linger>() as u32;
        let value = (&raw const LINGER_NONE).cast();
        self.push(opcode::SetSockOpt::new(Fixed(file), level, name, value, size).build(), user_data);
    }

    /// Cancels the operation that was pushed with `target`; both report their end, in any order (U3).
    pub(in crate::driver) fn cancel(&mut self, target: u64, user_data: u64) {
        self.push(opcode::AsyncCancel2::new(CancelBuilder::user_data(target)).build(), user_data);
    }

    /// Closes a direct descriptor (U9: never a plain close).
    pub(in crate::driver) fn close(&mut self, file: u32, user_data: u64) {
        self.push(opcode::Close::new(Fixed(file)).build(), user_data);
    }
}

static LINGER_NONE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// `IORING_SEND_ZC_REPORT_USAGE` (kernel 6.2).
const SEND_ZC_REPORT_USAGE: u16 = 8;
/// More than a receive buffer of the kernel can hold.
const DISCARD_BYTES: u32 = 1 << 30;
/// Readable bytes or the peer's end; errors and hang-ups are always reported.
const POLL_EVENTS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
