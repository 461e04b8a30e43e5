//! What the kernel is given pointers to, and the system calls that `rustix` lacks: all `unsafe` of the drivers.
//!
//! [`Queue`] is one io_uring with everything that its operations point into: sockaddrs of accepts, targets of eventfd
//! reads, receive buffers. It lives on the thread that made it (`!Send`), pushes operations that are typed so that a
//! pointer can only lead to memory that outlives them, and counts operations until their last completion. Bytes of a
//! send are the core's: the contract of [`crate::shard`] keeps them valid and unmoved until `Sent` or `Closed` is
//! fed, which the driver does only after the send's completion, and for a zero-copy send after its notice.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

pub(super) use super::completion::{Completion, HeldBuffer};
use super::uring::ring::{QueueSizes, QueueStep, Sends};

/// Sets `TCP_NOTSENT_LOWAT`: the kernel takes no more once this many bytes of a socket have not been sent yet.
///
/// # Errors
/// Whatever `setsockopt` says.
pub fn set_tcp_notsent_lowat(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<u32>()).expect("4 fits");
    // SAFETY: the kernel reads four bytes of `bytes`, which lives on this stack frame, during the call only; the
    // descriptor is borrowed, hence open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A ring and the memory that its operations point into.
pub(super) struct Queue {
    ring: IoUring,
    memory: Memory,
    completions: VecDeque<Completion>,
    /// Operations that found the submission queue full because the kernel took nothing for want of memory.
    backlog: VecDeque<squeue::Entry>,
    in_flight: u32,
    slice: u32,
    overflows: u64,
    enters: u64,
    failure: Option<io::Error>,
    eventfd: Option<rustix::fd::OwnedFd>,
    /// U16: a ring belongs to the thread that made it.
    not_send: PhantomData<*const ()>,
}

/// Everything that operations in flight point into. Leaked rather than freed if the kernel might still write to it.
struct Memory {
    buffers: BufferRing,
    seats: Box<[UnsafeCell<Seat>]>,
    wakes: Box<[UnsafeCell<u64>]>,
}

/// Where one accept's address is written.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Seat {
    address: [u8; ADDRESS_BYTES],
    length: libc::socklen_t,
}

/// `sizeof(struct sockaddr_in6)`.
pub(super) const ADDRESS_BYTES: usize = 28;
const BUFFER_GROUP: u16 = 0;
static LINGER_NONE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// U15: what a ring may do once it is enabled. A bug that forges an entry cannot open files or spawn anything.
const OPCODES: [u8; 9] = [
    opcode::Accept::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::PollAdd::CODE,
    opcode::Read::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::SetSockOpt::CODE,
    opcode::Shutdown::CODE,
];
/// `IORING_SEND_ZC_REPORT_USAGE` (kernel 6.2).
const SEND_ZC_REPORT_USAGE: u16 = 8;
const REGISTER_ENABLE_RINGS: u8 = 12;
const REGISTER_SYNC_CANCEL: u8 = 24;
const REGISTER_PBUF_STATUS: u8 = 26;

impl Queue {
    /// Makes a ring for the calling thread, enabled and restricted.
    ///
    /// # Errors
    /// The kernel's, with the step that failed.
    pub(super) fn open(sizes: QueueSizes) -> Result<Self, (QueueStep, io::Error)> {
        let ring = set_up(sizes).map_err(|error| (QueueStep::Setup, error))?;
        let submitter = ring.submitter();
        submitter.register_files_sparse(sizes.files).map_err(|error| (QueueStep::Files, error))?;
        let buffers = BufferRing::new(sizes.buffers, sizes.buffer_bytes);
        // SAFETY: `buffers` owns the memory at this address and is dropped after the ring (`Queue::drop`).
        unsafe { submitter.register_buf_ring_with_flags(buffers.address(), sizes.buffers, BUFFER_GROUP, 0) }
            .map_err(|error| (QueueStep::Buffers, error))?;
        let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
            .map_err(|error| (QueueStep::Setup, error.into()))?;
        submitter.register_eventfd(eventfd.as_raw_fd()).map_err(|error| (QueueStep::Setup, error))?;
        let mut allowed = Vec::from(OPCODES.map(Restriction::sqe_op));
        match sizes.sends {
            Sends::Copied => {}
            Sends::ZeroCopyToo => allowed.push(Restriction::sqe_op(opcode::SendZc::CODE)),
        }
        allowed.push(Restriction::register_op(REGISTER_ENABLE_RINGS));
        allowed.push(Restriction::register_op(REGISTER_SYNC_CANCEL));
        allowed.push(Restriction::register_op(REGISTER_PBUF_STATUS));
        let flags = squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT;
        allowed.push(Restriction::sqe_flags_allowed(flags.bits()));
        submitter.register_restrictions(&mut allowed).map_err(|error| (QueueStep::Restrictions, error))?;
        submitter.register_enable_rings().map_err(|error| (QueueStep::Enable, error))?;
        let seat = || UnsafeCell::new(Seat { address: [0; ADDRESS_BYTES], length: 0 });
        Ok(Self {
            ring,
            memory: Memory {
                buffers,
                seats: (0..sizes.accepts).map(|_| seat()).collect(),
                wakes: (0..sizes.wakes).map(|_| UnsafeCell::new(0)).collect(),
            },
            completions: VecDeque::new(),
            backlog: VecDeque::new(),
            in_flight: 0,
            slice: sizes.slice.min(sizes.submissions),
            overflows: 0,
            enters: 0,
            failure: None,
            eventfd: Some(eventfd),
            not_send: PhantomData,
        })
    }

    /// Accepts one connection into a free direct descriptor; the peer's address goes to `seat`.
    ///
    /// The listener must stay open until the completion; a closed one would fail with `EBADF`, not reach memory.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, seat: u16, user_data: u64) {
        let place = self.memory.seats[usize::from(seat)].get();
        // SAFETY: the driver has at most one accept in flight per seat, so nothing else refers to it now.
        unsafe { (*place).length = ADDRESS_BYTES as libc::socklen_t };
        // SAFETY: computing addresses of fields of a live allocation.
        let (address, length) = unsafe { (&raw mut (*place).address, &raw mut (*place).length) };
        let entry = opcode::Accept::new(Fd(listener.as_raw_fd()), address.cast(), length)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push(entry, user_data);
    }

    /// The peer's `sockaddr_in` or `sockaddr_in6` that a completed accept left in its seat.
    pub(super) fn peer(&self, seat: u16) -> [u8; ADDRESS_BYTES] {
        // SAFETY: called for an accept that has completed, so the kernel writes there no more; a copy is taken.
        let seat = unsafe { *self.memory.seats[usize::from(seat)].get() };
        seat.address
    }

    /// Reports readiness of a direct descriptor until cancelled, edge by edge.
    pub(super) fn poll(&mut self, file: u32, user_data: u64) {
        self.push(opcode::PollAdd::new(Fixed(file), POLL_EVENTS).multi(true).build(), user_data);
    }

    /// Reports readability of a descriptor until cancelled, edge by edge. It must stay open until then.
    pub(super) fn poll_descriptor(&mut self, descriptor: BorrowedFd<'_>, user_data: u64) {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), events).multi(true).build(), user_data);
    }

    /// Reads a blocking eventfd once it is not 0. `place` numbers the word it is read into, one read at a time.
    pub(super) fn read_eventfd(&mut self, eventfd: RawFd, place: u16, user_data: u64) {
        let word = self.memory.wakes[usize::from(place)].get();
        self.push(opcode::Read::new(Fd(eventfd), word.cast(), 8).build(), user_data);
    }

    /// Receives what is there into a buffer of the ring, never waiting.
    pub(super) fn receive(&mut self, file: u32, user_data: u64) {
        let entry = opcode::Recv::new(Fixed(file), std::ptr::null_mut(), 0)
            .flags(libc::MSG_DONTWAIT)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, user_data);
    }

    /// Throws away what is there, never waiting.
    pub(super) fn discard(&mut self, file: u32, user_data: u64) {
        // With MSG_TRUNC TCP counts the bytes off its queue and copies none, so there is no buffer to point to.
        let entry = opcode::Recv::new(Fixed(file), std::ptr::null_mut(), DISCARD_BYTES)
            .flags(libc::MSG_DONTWAIT | libc::MSG_TRUNC)
            .build();
        self.push(entry, user_data);
    }

    /// Sends all of `bytes`, waiting for room in the socket. The bytes must stay valid and unmoved until the
    /// completion: they are lent by the core until `Sent` or `Closed` is fed, and neither is fed before it.
    pub(super) fn send(&mut self, file: u32, bytes: &[u8], user_data: u64) {
        let length = u32::try_from(bytes.len()).expect("a send is at most SEND_BYTES_MAX");
        let entry = opcode::Send::new(Fixed(file), bytes.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry, user_data);
    }

    /// As [`Queue::send`], from where the bytes are. The first completion says what was taken; while it has more to come, the
    /// kernel still reads the bytes, until a second one, the notice, which also tells whether it copied them after all.
    pub(super) fn send_zero_copy(&mut self, file: u32, bytes: &[u8], user_data: u64) {
        let length = u32::try_from(bytes.len()).expect("a send is at most SEND_BYTES_MAX");
        let entry = opcode::SendZc::new(Fixed(file), bytes.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .zc_flags(SEND_ZC_REPORT_USAGE)
            .build();
        self.push(entry, user_data);
    }

    /// Sends FIN.
    pub(super) fn shutdown_write(&mut self, file: u32, user_data: u64) {
        self.push(opcode::Shutdown::new(Fixed(file), libc::SHUT_WR).build(), user_data);
    }

    /// Makes the close of this direct descriptor send RST and drop what is unsent (kernel 6.7).
    pub(super) fn linger_none(&mut self, file: u32, user_data: u64) {
        let level = libc::SOL_SOCKET.cast_unsigned();
        let name = libc::SO_LINGER.cast_unsigned();
        let size = size_of::<libc::linger>() as u32;
        let value = (&raw const LINGER_NONE).cast();
        self.push(opcode::SetSockOpt::new(Fixed(file), level, name, value, size).build(), user_data);
    }

    /// Cancels the operation that was pushed with `target`; both report their end, in any order (U3).
    pub(super) fn cancel(&mut self, target: u64, user_data: u64) {
        self.push(opcode::AsyncCancel2::new(CancelBuilder::user_data(target)).build(), user_data);
    }

    /// Closes a direct descriptor (U9: never a plain close).
    pub(super) fn close(&mut self, file: u32, user_data: u64) {
        self.push(opcode::Close::new(Fixed(file)).build(), user_data);
    }

    /// Queues an operation; it counts as in flight from here to its last completion.
    fn push(&mut self, entry: squeue::Entry, user_data: u64) {
        self.in_flight += 1;
        self.backlog.push_back(entry.user_data(user_data));
        if self.pending() >= self.slice {
            self.submit();
        }
        self.fill();
    }

    /// Moves what waits into the submission queue, as far as there is room.
    fn fill(&mut self) {
        let mut submissions = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: every pointer in an entry leads into `self.memory`, to a constant, or to bytes that the core
            // lends until after the completion; `drop` frees none of ours while an operation is in flight.
            if unsafe { submissions.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Operations in the submission queue.
    fn pending(&mut self) -> u32 {
        u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX)
    }

    /// Submits what is pushed, without waiting, lets deferred work run and takes completions.
    pub(super) fn submit(&mut self) {
        self.enter(0, None);
    }

    /// Takes completions until none waits or `limit` have been taken.
    pub(super) fn gather(&mut self, limit: usize) {
        self.submit();
        // One enter runs 20 pieces of deferred work, or as many as are waited for (since 6.13). The flag may outlive
        // the work that it tells of: it is set after the work was queued, maybe after that was done.
        let mut taken = usize::MAX;
        while self.completions.len() < limit && self.completions.len() != taken && self.ring.submission().taskrun() {
            taken = self.completions.len();
            self.enter(GATHERED_AT_ONCE, Some(Timespec::new()));
        }
    }

    /// Submits what is pushed, waits for `want` completions or the timeout (`None`: for ever), takes completions.
    /// A timeout or a signal is no failure.
    fn enter(&mut self, want: u32, timeout: Option<Timespec>) {
        self.fill();
        let pending = self.pending();
        let overflowed = self.ring.submission().cq_overflow();
        self.overflows += u64::from(overflowed);
        let attention = overflowed || self.ring.submission().taskrun();
        let mut flags = EnterFlags::EXT_ARG;
        if want > 0 || attention {
            flags |= EnterFlags::GETEVENTS;
        }
        if pending > 0 || want > 0 || attention {
            self.enters += 1;
            let arguments = timeout.as_ref().map_or(SubmitArgs::new(), |at| SubmitArgs::new().timespec(at));
            // SAFETY: the arguments live on this stack frame and are read during the call only.
            let result = unsafe { self.ring.submitter().enter(pending, want, flags.bits(), Some(&arguments)) };
            match result.map_err(|error| error.raw_os_error().unwrap_or(0)) {
                // EBUSY: the completion queue overflowed and must be emptied before more is taken (U4), which comes
                // next. EAGAIN, ENOMEM: the kernel lacks memory for now; what it did not take is still queued.
                Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {}
                Err(errno) => self.failure = Some(io::Error::from_raw_os_error(errno)),
            }
        }
        self.reap();
        self.fill();
    }

    /// Submits what is pushed and sleeps until a completion or for that many ms.
    pub(super) fn wait(&mut self, at_most_ms: Option<u64>) {
        self.enter(1, at_most_ms.map(|ms| Timespec::from(Duration::from_millis(ms))));
    }

    /// What broke the ring itself; nothing can go on after that.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    fn reap(&mut self) {
        for entry in self.ring.completion() {
            let completion = Completion::new(entry.user_data(), entry.result(), entry.flags());
            if !completion.has_more() {
                self.in_flight = self.in_flight.checked_sub(1).expect("an operation ends once");
            }
            if completion.has_buffer() {
                self.memory.buffers.held += 1;
            }
            self.completions.push_back(completion);
        }
    }

    /// Takes the oldest completion.
    pub(super) fn pop(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// Whether completions were taken that have not been fed.
    pub(super) fn has_taken(&self) -> bool {
        !self.completions.is_empty()
    }

    /// Lets go of memory that a burst of completions took.
    pub(super) fn shrink(&mut self) {
        if self.completions.is_empty() && self.completions.capacity() > COMPLETIONS_KEPT {
            self.completions = VecDeque::new();
        }
    }

    /// Operations that have not reported their end.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How often the completion queue was found to have overflowed (U4).
    pub(super) fn overflows(&self) -> u64 {
        self.overflows
    }

    /// How often the kernel was entered.
    pub(super) fn enters(&self) -> u64 {
        self.enters
    }

    /// The eventfd that tells of completions while [`Queue::announce`] is on.
    pub(super) fn eventfd(&self) -> RawFd {
        self.eventfd.as_ref().expect("open until drop").as_raw_fd()
    }

    /// Switches the eventfd on before a sleep and off after it. Work that came before it was on has not been told of:
    /// gather after switching it on.
    pub(super) fn announce(&mut self, on: bool) {
        let completion = self.ring.completion();
        if on {
            completion.enable_eventfd();
            std::sync::atomic::fence(Ordering::SeqCst);
        } else {
            completion.disable_eventfd();
        }
    }

    /// The bytes that a receive left in a buffer.
    pub(super) fn bytes(&mut self, buffer: &HeldBuffer, length: usize) -> &mut [u8] {
        let buffers = &mut self.memory.buffers;
        assert!(length <= buffers.buffer_bytes && buffer.id() < buffers.entries, "the kernel fills one buffer");
        // SAFETY: inside the allocation; the kernel gave the buffer up with the completion and gets it back by
        // `give_back`, which consumes the `HeldBuffer` that is borrowed here; `&mut self` excludes other borrows.
        unsafe { std::slice::from_raw_parts_mut(buffers.place(buffer.id()).as_ptr(), length) }
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn give_back(&mut self, buffer: HeldBuffer) {
        self.memory.buffers.held -= 1;
        self.memory.buffers.offer(buffer.id());
    }

    /// Buffers that the driver holds.
    pub(super) fn buffers_held(&self) -> u16 {
        self.memory.buffers.held
    }

    /// Buffers that the kernel holds, by its own count (U7); `None` where it does not tell (before 6.8).
    pub(super) fn buffers_free(&self) -> Option<u16> {
        let mut status = BufferStatus { group: u32::from(BUFFER_GROUP), head: 0, reserved: [0; 8] };
        // SAFETY: the kernel reads and writes `status`, which lives on this stack frame, during the call only.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.ring.as_raw_fd(),
                u32::from(REGISTER_PBUF_STATUS),
                &raw mut status,
                1_u32,
            )
        };
        let head = status.head as u16;
        (result == 0).then(|| self.memory.buffers.tail.wrapping_sub(head))
    }
}

impl Queue {
    /// Cancels what is still in flight and waits for its end, 1 s at most.
    fn end_operations(&mut self) {
        if self.in_flight > 0 {
            let patience = Timespec::from(Duration::from_millis(200));
            let _ = self.ring.submitter().register_sync_cancel(Some(patience), CancelBuilder::any());
        }
        for _ in 0..DROP_ENTERS {
            if self.in_flight == 0 {
                return;
            }
            self.wait(Some(10));
        }
    }
}

impl Drop for Queue {
    /// The loop has ended all operations, unless it panicked.
    fn drop(&mut self) {
        self.end_operations();
        if self.in_flight > 0 {
            // A ring's descriptor may close before its last operation ends: rather leak than be written to.
            let empty = Memory { buffers: BufferRing::new(1, 1), seats: Box::new([]), wakes: Box::new([]) };
            std::mem::forget(std::mem::replace(&mut self.memory, empty));
        }
    }
}

/// The newest way to run a ring for one thread first, then the older one (before 6.1).
fn set_up(sizes: QueueSizes) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(sizes.completions).setup_clamp().setup_submit_all().setup_r_disabled().dontfork();
    let mut deferred = builder.clone();
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    match deferred.build(sizes.submissions) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            builder.setup_coop_taskrun().setup_taskrun_flag();
            builder.build(sizes.submissions)
        }
        result => result,
    }
}

/// A provided buffer ring: its entries, then the buffers, in one allocation of whole pages.
struct BufferRing {
    memory: NonNull<u8>,
    layout: Layout,
    entries: u16,
    buffer_bytes: usize,
    tail: u16,
    held: u16,
}

#[repr(C)]
struct BufferEntry {
    address: u64,
    length: u32,
    id: u16,
    /// Of entry 0 this is the ring's tail.
    tail: AtomicU16,
}

#[repr(C)]
struct BufferStatus {
    group: u32,
    head: u32,
    reserved: [u32; 8],
}

const _: () = assert!(size_of::<BufferEntry>() == 16);
const _: () = assert!(size_of::<BufferStatus>() == 40);

impl BufferRing {
    fn new(entries: u16, buffer_bytes: u32) -> Self {
        assert!(entries.is_power_of_two(), "the kernel masks the tail");
        let buffer_bytes = buffer_bytes as usize;
        let bytes = Self::entries_bytes(entries) + usize::from(entries) * buffer_bytes;
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("bounded by the sizes' types");
        // SAFETY: the layout is not empty.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        let mut ring = Self { memory, layout, entries, buffer_bytes, tail: 0, held: 0 };
        for id in 0..entries {
            ring.offer(id);
        }
        ring
    }

    /// Space of the entries, padded so that the buffers begin at a page.
    fn entries_bytes(entries: u16) -> usize {
        (usize::from(entries) * size_of::<BufferEntry>()).next_multiple_of(PAGE_BYTES)
    }

    fn address(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    fn place(&self, id: u16) -> NonNull<u8> {
        debug_assert!(id < self.entries);
        let offset = Self::entries_bytes(self.entries) + usize::from(id) * self.buffer_bytes;
        // SAFETY: within the allocation, as `id` is below `entries`.
        unsafe { self.memory.add(offset) }
    }

    fn offer(&mut self, id: u16) {
        let place = usize::from(self.tail & (self.entries - 1));
        let entries = self.memory.cast::<BufferEntry>().as_ptr();
        let address = self.place(id).as_ptr() as u64;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `place` is below `entries`, so the writes stay in the allocation. The kernel reads an entry only
        // once the tail passed it; the entry at the tail is one that it has consumed. The tail itself is written
        // through an atomic and overlaps no other field that is written here.
        unsafe {
            let entry = entries.add(place);
            (&raw mut (*entry).address).write(address);
            (&raw mut (*entry).length).write(self.buffer_bytes as u32);
            (&raw mut (*entry).id).write(id);
            (*entries).tail.store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`; the ring that it was registered with is gone or idle.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

const PAGE_BYTES: usize = 4096;
const COMPLETIONS_KEPT: usize = 4096;
const GATHERED_AT_ONCE: u32 = 256;
/// More than a receive buffer of the kernel holds.
const DISCARD_BYTES: u32 = 1 << 30;
const DROP_ENTERS: u32 = 100;

/// Bytes to read or the peer's end; errors and hang-ups are always reported.
const POLL_EVENTS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        let sizes = QueueSizes {
            submissions: 8,
            completions: 32,
            files: 4,
            buffers: 4,
            buffer_bytes: 64,
            accepts: 1,
            wakes: 1,
            slice: 8,
            sends: Sends::Copied,
        };
        Queue::open(sizes).expect("the kernel of the test machine has io_uring")
    }

    /// U15: a ring opens no files. Goal: an operation that is not on the list is refused, and the ring goes on.
    #[test]
    fn other_operations_are_refused() {
        let mut queue = queue();
        let path = c"/dev/null";
        queue.push(opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build(), 7);
        queue.push(opcode::Nop::new().build(), 8);
        queue.cancel(99, 9);
        queue.send_zero_copy(0, b"not asked for", 10);
        queue.submit();
        let results: Vec<(u64, i32)> = std::iter::from_fn(|| queue.pop()).map(|c| (c.user_data, c.result)).collect();
        assert_eq!(results, [(7, -libc::EACCES), (8, -libc::EACCES), (9, -libc::ENOENT), (10, -libc::EACCES)]);
    }

    /// U1: a ring that is dropped with an operation under way ends it first.
    #[test]
    fn drop_ends_what_is_under_way() {
        let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd");
        let mut queue = queue();
        queue.read_eventfd(eventfd.as_raw_fd(), 0, 1);
        queue.submit();
        assert_eq!(queue.in_flight(), 1);
        queue.end_operations();
        assert_eq!(queue.in_flight(), 0);
        assert_eq!(queue.pop().map(|completion| completion.result), Some(-libc::ECANCELED));
    }

    /// U16: a ring does not leave its thread. Method: the two implementations clash for a type that is `Send`, so
    /// that the name would be ambiguous and this would not compile.
    #[test]
    fn ring_stays_on_its_thread() {
        trait Stays<Marker> {
            fn stays() -> bool {
                true
            }
        }
        impl<T> Stays<()> for T {}
        #[allow(dead_code, reason = "a marker")]
        struct MayLeave;
        impl<T: Send> Stays<MayLeave> for T {}
        assert!(<Queue as Stays<_>>::stays());
    }
}
