//! Memory that the kernel is given pointers to, and the system calls that `rustix` lacks: all `unsafe` code of the
//! drivers.
//!
//! [`Queue`] is an io_uring ring; its `operations` are the only way to push one, and point into its `memory` and into
//! the receive `buffers` of its loop. `socket` has the socket options. This directory contains all code that could make
//! the kernel write to freed memory, and nothing else: interpreting completions is the job of [`super::uring`].

mod buffers;
mod memory;
mod operations;
mod queue;
mod socket;

pub(super) use super::completion::Completion;
pub(super) use buffers::{Buffers, HeldBuffer};
pub(super) use memory::ADDRESS_BYTES;
pub(super) use queue::Queue;
pub use socket::set_tcp_notsent_lowat;
