//! One ring of a shard: its queue, its direct descriptors, its seats for accepts, and how it is created.

use std::io;

use rustix::process::{Resource, getrlimit};

use crate::driver::sys::{Buffers, Queue};
use crate::limits::{EVENTS_PER_TURN, READ_BYTES_PER_TURN, SENDS_PER_TURN};

/// Sizes of a driver. The defaults are for production; tests use small values to reach the limits.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Submission queue entries of a ring, a power of two.
    pub submissions: u32,
    /// Completion queue entries, a power of two, at least 4 times as many. The kernel derives the size of its poll
    /// table from it.
    pub completions: u32,
    /// Maximum direct descriptors of one ring; the limit on open files may lower it. The kernel allocates 8 bytes for
    /// each at the start and allows 2^20.
    pub files_max: u32,
    /// Maximum rings of one shard.
    pub rings_max: u16,
    /// Receive buffers of a shard, shared by all its rings: the number of receives in flight at once. Receives beyond
    /// that follow with the next submission. Only buffers that are used take memory (decision 0011).
    pub buffers: u16,
    /// Bytes of a receive buffer.
    pub buffer_bytes: u32,
    /// Accepts in flight per listener.
    pub accepts: u16,
    /// Operations submitted at once: more gains nothing and delays the first.
    pub slice: u32,
    /// Bytes that one connection may deliver in one turn (U17).
    pub receive_bytes_per_turn: u32,
    /// Completions fed in one turn before sends are started (U17).
    pub completions_per_turn: usize,
    /// Sends of at least this many bytes are zero-copy while that pays off; `None`: no send is.
    pub zero_copy_bytes_min: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            submissions: 256,
            completions: 8192,
            files_max: 1 << 17,
            rings_max: 64,
            buffers: 32,
            buffer_bytes: 32 * 1024,
            accepts: 16,
            slice: 128,
            receive_bytes_per_turn: READ_BYTES_PER_TURN as u32,
            completions_per_turn: SENDS_PER_TURN as usize + EVENTS_PER_TURN,
            zero_copy_bytes_min: None,
        }
    }
}

/// Sizes of one ring.
#[derive(Clone, Copy, Debug)]
pub(in crate::driver) struct QueueSizes {
    /// Submission entries, a power of two; the completion queue is given separately.
    pub(in crate::driver) submissions: u32,
    /// Completion entries, a power of two, at least 4 times the submissions.
    pub(in crate::driver) completions: u32,
    /// Direct descriptors.
    pub(in crate::driver) files: u32,
    /// Accepts that may be in flight: each has a sockaddr of its own.
    pub(in crate::driver) accepts: u16,
    /// Eventfds that may be read at once.
    pub(in crate::driver) wakes: u16,
    /// Operations pushed before they are submitted.
    pub(in crate::driver) slice: u32,
    /// The sends that it may do.
    pub(in crate::driver) sends: Sends,
}

/// The sends that a ring may do (U15: operations that are not requested are not allowed).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::driver) enum Sends {
    Copied,
    ZeroCopyToo,
}

/// The step at which the creation of a ring failed: it determines the advice that goes with the error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::driver) enum QueueStep {
    Setup,
    Files,
    Restrictions,
    Enable,
}

/// A ring with the state that it needs in addition to the queue.
pub(super) struct Ring {
    pub(super) queue: Queue,
    /// Direct descriptors in its table.
    files: u32,
    /// Number of these held by connections.
    pub(super) files_used: u32,
    /// Receives in flight.
    pub(super) receives: u32,
    seats: Vec<Seat>,
    /// Seats taken.
    accepts: u32,
}

/// The place of one accept in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seat {
    Free,
    /// It accepts from the listener with this number.
    Listener(u8),
}

impl Ring {
    /// Creates a ring for a shard with that many slots. It belongs to the calling thread.
    pub(super) fn open(options: &Options, buffers: &Buffers, slots: u32) -> Result<Self, Refusal> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let files = options.files_max.min(slots).min(u32::try_from(limit).unwrap_or(u32::MAX)).max(1);
        let seats = 2 * options.accepts;
        let sizes = QueueSizes {
            submissions: options.submissions,
            completions: options.completions,
            files,
            accepts: seats,
            wakes: options.rings_max,
            slice: options.slice,
            sends: if options.zero_copy_bytes_min.is_some() { Sends::ZeroCopyToo } else { Sends::Copied },
        };
        let queue = Queue::open(sizes, buffers).map_err(|(step, error)| Refusal { step, error })?;
        let seats = vec![Seat::Free; usize::from(seats)];
        Ok(Self { queue, files, files_used: 0, receives: 0, seats, accepts: 0 })
    }

    /// Like [`Ring::open`]; if memory is short, waits a while for that of the probe's rings, which the kernel releases
    /// a little after they are closed.
    pub(super) fn open_patiently(options: &Options, buffers: &Buffers, slots: u32) -> Result<Self, Refusal> {
        for _ in 0..MEMORY_TRIES {
            match Self::open(options, buffers, slots) {
                Err(refusal) if refusal.error.kind() == io::ErrorKind::OutOfMemory => {
                    std::thread::sleep(std::time::Duration::from_millis(MEMORY_TRY_MS));
                }
                opened => return opened,
            }
        }
        Self::open(options, buffers, slots)
    }

    /// Whether all direct descriptors are held by connections or reserved by accepts.
    pub(super) fn is_full(&self) -> bool {
        self.files_used + self.accepts >= self.files
    }

    /// Whether one more accept can be started here.
    pub(super) fn has_room(&self) -> bool {
        !self.is_full() && (self.accepts as usize) < self.seats.len()
    }

    pub(super) fn take_seat(&mut self, seat: Seat) -> u16 {
        let free = self.seats.iter().position(|seat| *seat == Seat::Free).expect("the ring has room");
        self.seats[free] = seat;
        self.accepts += 1;
        u16::try_from(free).expect("seats are numbered by u16")
    }

    /// Releases a seat; returns `Free` if it was not taken.
    pub(super) fn free_seat(&mut self, seat: u16) -> Seat {
        let Some(place) = self.seats.get_mut(usize::from(seat)) else {
            return Seat::Free;
        };
        let was = std::mem::replace(place, Seat::Free);
        self.accepts -= u32::from(was != Seat::Free);
        was
    }

    /// The seats that are taken.
    pub(super) fn seats_in_flight(&self) -> Vec<u16> {
        let taken = self.seats.iter().zip(0_u16..).filter(|(seat, _)| **seat != Seat::Free);
        taken.map(|(_, number)| number).collect()
    }
}

/// Why a ring cannot be created, in one line: cause and fix (U5, U14).
#[derive(Debug, thiserror::Error)]
#[error("io_uring is not available: {}", self.explain())]
pub(super) struct Refusal {
    step: QueueStep,
    error: io::Error,
}

impl Refusal {
    pub(super) fn into_error(self) -> io::Error {
        let kind = self.error.kind();
        io::Error::new(kind, self.to_string())
    }

    fn explain(&self) -> String {
        let error = &self.error;
        match (error.raw_os_error(), self.step) {
            (Some(libc::ENOSYS), _) => {
                "this kernel does not support it (ENOSYS); Linux 6.1 or newer is needed, or --io epoll".to_owned()
            }
            (Some(libc::EPERM | libc::EACCES), _) => match io_uring_disabled() {
                Some(value @ 1..) => format!(
                    "kernel.io_uring_disabled is {value}; set it to 0 (sysctl kernel.io_uring_disabled=0), or use --io epoll"
                ),
                _ => "a seccomp profile blocks it (EPERM), as those of Docker and containerd do; allow \
                      io_uring_setup, io_uring_enter and io_uring_register, or use --io epoll"
                    .to_owned(),
            },
            (Some(libc::ENOMEM), step) => format!(
                "no memory at step {step:?} (ENOMEM); the limit on locked memory is {} (ulimit -l), and the cgroup may have \
                 its own: raise them, or use --io epoll",
                memory_locked_max()
            ),
            (Some(libc::EMFILE | libc::ENFILE), step) => {
                format!("too few descriptors at step {step:?} ({error}); raise the limit on open files (ulimit -n)")
            }
            (Some(libc::EINVAL), step) => format!(
                "this kernel is too old for step {step:?} (EINVAL); Linux 6.1 or newer is needed, or --io epoll"
            ),
            _ => format!("step {:?} failed: {error}", self.step),
        }
    }
}

/// `kernel.io_uring_disabled`: 0 allowed, 1 only for a group, 2 forbidden; `None` where it does not exist.
fn io_uring_disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn memory_locked_max() -> String {
    match getrlimit(Resource::Memlock).current {
        Some(bytes) => format!("{} KiB", bytes / 1024),
        None => "unlimited".to_owned(),
    }
}

/// How often and after what delay ring creation is retried when memory is short, 2 s in total.
const MEMORY_TRIES: u32 = 100;
const MEMORY_TRY_MS: u64 = 20;
