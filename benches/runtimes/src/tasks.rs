//! The code that the two asynchronous runtimes share: the server's state, and one connection's part in it. Reading,
//! writing and spawning differ and are in each runtime's file.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use crate::channels::{Channels, Subscription};
use crate::outbox::Outbox;
use crate::protocol::{Demand, Ended, Role, Session};

/// A server; it belongs to one thread.
pub(crate) struct Server {
    role: Role,
    channels: RefCell<Channels<Rc<Outbox>>>,
    /// Shared by all reads, one at a time.
    scratch: RefCell<(Vec<u8>, Vec<Demand>)>,
    connections: std::cell::Cell<u64>,
}

/// One connection; leaves its channels when dropped.
pub(crate) struct Conversation {
    server: Rc<Server>,
    session: Session,
    outbox: Rc<Outbox>,
    subscriptions: Vec<Subscription>,
}

impl Server {
    pub(crate) fn new(role: Role) -> Rc<Self> {
        let scratch = RefCell::new((Vec::new(), Vec::new()));
        Rc::new(Self { role, channels: RefCell::new(Channels::new()), scratch, connections: 0.into() })
    }
}

impl Conversation {
    pub(crate) fn new(server: &Rc<Server>) -> Self {
        let number = server.connections.get();
        server.connections.set(number + 1);
        let session = Session::new(server.role, number);
        Self { server: Rc::clone(server), session, outbox: Rc::default(), subscriptions: Vec::new() }
    }

    pub(crate) fn outbox(&self) -> Rc<Outbox> {
        Rc::clone(&self.outbox)
    }

    /// Processes the bytes that were read.
    pub(crate) fn receive(&mut self, bytes: &mut [u8]) -> Result<(), Ended> {
        let mut scratch = self.server.scratch.borrow_mut();
        let (replies, demands) = &mut *scratch;
        replies.clear();
        let result = self.session.receive(bytes, replies, demands);
        let mut channels = self.server.channels.borrow_mut();
        for demand in demands.drain(..) {
            match demand {
                Demand::Join(channel) => {
                    self.subscriptions.push(channels.join(channel, Rc::clone(&self.outbox)));
                }
                Demand::Leave(channel) => {
                    if let Some(at) = self.subscriptions.iter().position(|subscription| subscription.is_to(&channel)) {
                        channels.leave(&self.subscriptions.swap_remove(at));
                    }
                }
                Demand::Publish { channel, frame } => {
                    for outbox in channels.subscribers(&channel) {
                        outbox.push(frame.clone());
                    }
                }
            }
        }
        if !replies.is_empty() {
            self.outbox.push(Bytes::copy_from_slice(replies));
        }
        result
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let mut channels = self.server.channels.borrow_mut();
        for subscription in &self.subscriptions {
            channels.leave(subscription);
        }
        self.outbox.close();
    }
}

/// Initial size of a connection's read buffer in bytes: enough for subscribers' messages.
pub(crate) const READ_BYTES: usize = 512;
/// The read buffer doubles while reads fill it, up to this.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Makes a read buffer ready for the next read.
pub(crate) fn prepare(buffer: &mut Vec<u8>) {
    let was_filled = buffer.len() == buffer.capacity();
    buffer.clear();
    if was_filled && buffer.capacity() < READ_BYTES_MAX {
        buffer.reserve_exact(2 * buffer.capacity());
    }
}
