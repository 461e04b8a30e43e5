//! The frames pending for one connection under an asynchronous runtime, and the task that waits for them. One thread,
//! no lock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use bytes::Bytes;

/// Filled by every task that has a frame for the connection, emptied by its write task.
#[derive(Default)]
pub(crate) struct Outbox {
    frames: RefCell<VecDeque<Bytes>>,
    writer: Cell<Option<Waker>>,
    is_closed: Cell<bool>,
}

impl Outbox {
    pub(crate) fn push(&self, frame: Bytes) {
        self.frames.borrow_mut().push_back(frame);
        self.wake();
    }

    /// The write task ends.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// All pending bytes, joined; `None` once it is closed.
    pub(crate) async fn take(&self) -> Option<Bytes> {
        poll_fn(|context| {
            if self.is_closed.get() {
                return Poll::Ready(None);
            }
            if let Some(bytes) = take_joined(&mut self.frames.borrow_mut()) {
                return Poll::Ready(Some(bytes));
            }
            self.writer.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

/// The next bytes to send: a single frame without a copy, several as one copy of at most [`SEND_BYTES_MAX`].
pub(crate) fn take_joined(frames: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = frames.pop_front()?;
    let Some(second) = frames.front() else {
        // Frees its memory, which every connection would otherwise keep.
        *frames = VecDeque::new();
        return Some(first);
    };
    if first.len() + second.len() > SEND_BYTES_MAX {
        return Some(first);
    }
    let mut joined = Vec::with_capacity(frames.iter().map(Bytes::len).sum::<usize>().min(SEND_BYTES_MAX) + first.len());
    joined.extend_from_slice(&first);
    while let Some(next) = frames.front().filter(|next| joined.len() + next.len() <= SEND_BYTES_MAX) {
        joined.extend_from_slice(next);
        frames.pop_front();
    }
    Some(joined.into())
}

const SEND_BYTES_MAX: usize = 64 * 1024;
