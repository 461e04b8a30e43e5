//! [`Queue`]: one io_uring with all the memory that its operations point into.
//!
//! It stays on the thread that created it (`!Send`), pushes operations and counts them until their last completion. The
//! bytes of a send belong to the core: the contract of [`crate::shard`] keeps them valid and unmoved until `Sent` or
//! `Closed` is fed, which the driver does only after the send's completion, and for a zero-copy send after its notice.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

use super::buffers::Buffers;
use super::memory::Memory;
use crate::driver::completion::Completion;
use crate::driver::uring::ring::{QueueSizes, QueueStep, Sends};

/// A ring and the memory that its operations point into.
pub(in crate::driver) struct Queue {
    ring: IoUring,
    pub(super) memory: Memory,
    completions: VecDeque<Completion>,
    /// Operations that found the submission queue full because the kernel took nothing for lack of memory.
    backlog: VecDeque<squeue::Entry>,
    in_flight: u32,
    slice: u32,
    overflows: u64,
    enters: u64,
    failure: Option<io::Error>,
    eventfd: Option<rustix::fd::OwnedFd>,
    /// U16: a ring belongs to the thread that created it.
    not_send: PhantomData<*const ()>,
}

/// U15: the operations that a ring may do once it is enabled. A bug that forges an entry cannot open files or spawn
/// anything.
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
const REGISTER_ENABLE_RINGS: u8 = 12;
const REGISTER_SYNC_CANCEL: u8 = 24;

impl Queue {
    /// Creates a ring for the calling thread, enabled and restricted. It receives into these buffers.
    ///
    /// # Errors
    /// The kernel's error, with the step that failed.
    pub(in crate::driver) fn open(sizes: QueueSizes, buffers: &Buffers) -> Result<Self, (QueueStep, io::Error)> {
        let ring = set_up(sizes).map_err(|error| (QueueStep::Setup, error))?;
        let submitter = ring.submitter();
        submitter.register_files_sparse(sizes.files).map_err(|error| (QueueStep::Files, error))?;
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
        allowed.push(Restriction::sqe_flags_allowed(squeue::Flags::FIXED_FILE.bits()));
        submitter.register_restrictions(&mut allowed).map_err(|error| (QueueStep::Restrictions, error))?;
        submitter.register_enable_rings().map_err(|error| (QueueStep::Enable, error))?;
        Ok(Self {
            ring,
            memory: Memory::new(Some(buffers.memory()), sizes.accepts, sizes.wakes),
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

    /// Queues an operation; it counts as in flight from here to its last completion.
    pub(super) fn push(&mut self, entry: squeue::Entry, user_data: u64) {
        self.in_flight += 1;
        self.backlog.push_back(entry.user_data(user_data));
        if self.pending() >= self.slice {
            self.submit();
        }
        self.fill();
    }

    /// Moves waiting operations into the submission queue, as far as there is space.
    fn fill(&mut self) {
        let mut submissions = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: every pointer in an entry refers to `self.memory`, a constant, or bytes borrowed from the core
            // until after the completion; `drop` frees no memory of ours while an operation is in flight.
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

    /// Submits pushed operations without waiting, lets deferred work run and takes completions.
    pub(in crate::driver) fn submit(&mut self) {
        self.enter(0, None);
    }

    /// Takes completions until none is waiting or `limit` have been taken.
    pub(in crate::driver) fn gather(&mut self, limit: usize) {
        self.submit();
        // One enter runs 20 pieces of deferred work, or as many as are waited for (since 6.13). The flag may outlive
        // the work that it signals: it is set after the work was queued, possibly after the work was done.
        let mut taken = usize::MAX;
        while self.completions.len() < limit && self.completions.len() != taken && self.ring.submission().taskrun() {
            taken = self.completions.len();
            self.enter(GATHERED_AT_ONCE, Some(Timespec::new()));
        }
    }

    /// Submits pushed operations, waits for `want` completions or the timeout (`None`: forever), takes completions.
    /// A timeout or a signal is not a failure.
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
                // EBUSY: the completion queue overflowed and must be emptied before more is taken (U4), which happens
                // next. EAGAIN, ENOMEM: the kernel lacks memory for now; the operations that it did not take are still
                // queued.
                Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {}
                Err(errno) => self.failure = Some(io::Error::from_raw_os_error(errno)),
            }
        }
        self.reap();
        self.fill();
    }

    /// Submits pushed operations and sleeps until a completion or for that many ms.
    pub(in crate::driver) fn wait(&mut self, at_most_ms: Option<u64>) {
        self.enter(1, at_most_ms.map(|ms| Timespec::from(Duration::from_millis(ms))));
    }

    /// The error that broke the ring itself; nothing can continue after it.
    pub(in crate::driver) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    fn reap(&mut self) {
        for entry in self.ring.completion() {
            let completion = Completion::new(entry.user_data(), entry.result(), entry.flags());
            if !completion.has_more() {
                self.in_flight = self.in_flight.checked_sub(1).expect("an operation ends once");
            }
            self.completions.push_back(completion);
        }
    }

    /// Takes the oldest completion.
    pub(in crate::driver) fn pop(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// Whether completions were taken that have not been fed.
    pub(in crate::driver) fn has_taken(&self) -> bool {
        !self.completions.is_empty()
    }

    /// Releases memory that a burst of completions took.
    pub(in crate::driver) fn shrink(&mut self) {
        if self.completions.is_empty() && self.completions.capacity() > COMPLETIONS_KEPT {
            self.completions = VecDeque::new();
        }
    }

    /// Operations that have not reported their end.
    pub(in crate::driver) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How often the completion queue was found to have overflowed (U4).
    pub(in crate::driver) fn overflows(&self) -> u64 {
        self.overflows
    }

    /// How often the kernel was entered.
    pub(in crate::driver) fn enters(&self) -> u64 {
        self.enters
    }

    /// The eventfd that signals completions while [`Queue::announce`] is on.
    pub(in crate::driver) fn eventfd(&self) -> RawFd {
        self.eventfd.as_ref().expect("open until drop").as_raw_fd()
    }

    /// Switches the eventfd on before a sleep and off after it. Work that arrived before it was on has not been
    /// signalled: gather after switching it on.
    pub(in crate::driver) fn announce(&mut self, on: bool) {
        let completion = self.ring.completion();
        if on {
            completion.enable_eventfd();
            std::sync::atomic::fence(Ordering::SeqCst);
        } else {
            completion.disable_eventfd();
        }
    }
}

impl Queue {
    /// Cancels operations still in flight and waits for their end, 1 s at most.
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
            // A ring's descriptor may close before its last operation ends: leaking the memory is better than having it
            // written to.
            std::mem::forget(std::mem::replace(&mut self.memory, Memory::empty()));
        }
    }
}

/// Tries the newest way to run a ring for one thread first, then the older one (before 6.1).
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

const COMPLETIONS_KEPT: usize = 4096;
const GATHERED_AT_ONCE: u32 = 256;
const DROP_ENTERS: u32 = 100;

#[cfg(test)]
mod tests {
    use io_uring::types::Fd;

    use super::*;

    fn queue() -> Queue {
        let sizes = QueueSizes {
            submissions: 8,
            completions: 32,
            files: 4,
            accepts: 1,
            wakes: 1,
            slice: 8,
            sends: Sends::Copied,
        };
        Queue::open(sizes, &Buffers::new(1, 64)).expect("the kernel of the test machine has io_uring")
    }

    /// U15: a ring opens no files. Goal: an operation that is not on the list is refused, and the ring keeps working.
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

    /// U1: a ring that is dropped with an operation in flight ends it first.
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

    /// U16: a ring does not leave its thread. Method: the two implementations clash for a type that is `Send`, so the
    /// name would be ambiguous and this would not compile.
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
