//! What the kernel is given pointers to, and the system calls that `rustix` lacks: all `unsafe` of the drivers.
//!
//! [`Queue`] is a ring of io_uring; its `operations` are the only way to push one, and point into its `memory` and into
//! the receive `buffers` of its loop. `socket` has the options of sockets. Whatever could make the kernel write
//! to memory that is gone stands in this folder, and nothing else does: what a completion means is [`super::uring`]'s.

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
