//! Completions of a ring's operations, copied out of the ring.

use io_uring::cqueue;

/// One completion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Completion {
    /// The user data that the operation was pushed with.
    pub(super) user_data: u64,
    /// The result, or a negative errno.
    pub(super) result: i32,
    flags: u32,
}

/// How a zero-copy send ended, once the kernel no longer reads its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Usage {
    /// The bytes were sent from where they are.
    InPlace,
    /// They were copied after all, which costs more than a plain send.
    Copied,
}

impl Completion {
    /// As the kernel wrote it.
    pub(super) fn new(user_data: u64, result: i32, flags: u32) -> Self {
        Self { user_data, result, flags }
    }
    /// Further completions of the same operation follow.
    pub(super) fn has_more(&self) -> bool {
        cqueue::more(self.flags)
    }
    /// The socket held more bytes when this was received.
    pub(super) fn socket_holds_more(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }
    /// For the notice of a zero-copy send, its last completion: how its bytes were sent (U12).
    pub(super) fn notice(&self) -> Option<Usage> {
        cqueue::notif(self.flags).then_some(match self.result.cast_unsigned() & ZERO_COPY_COPIED {
            0 => Usage::InPlace,
            _ => Usage::Copied,
        })
    }
}

/// `IORING_NOTIF_USAGE_ZC_COPIED`.
const ZERO_COPY_COPIED: u32 = 1 << 31;
