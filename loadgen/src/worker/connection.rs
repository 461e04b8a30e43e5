//! The state of one client.
//!
//! ```text
//!            +--writable--> Upgrading --101--> Greeting --connection_established--> Subscribing --succeeded--> Ready
//! Connecting +--writable--> Upgrading --200-----------------------------------> Subscribing --connected--> Ready
//!            +--writable--> Polling --the first answer--> Ready
//! ```
//! The lines are WebSockets, server-sent events and long polls.
//!
//! A connection owns no buffer: all connections read into a shared one, and only incomplete frames are kept.

use std::os::fd::OwnedFd;

use super::shared::Shared;
use crate::messages::Group;

/// The progress of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Connecting,
    Upgrading,
    Greeting,
    Subscribing,
    /// The first poll is held, which is no handshake: it may take two seconds.
    Polling,
    Ready,
}

impl Phase {
    /// Whether a handshake is in flight.
    pub(crate) fn is_joining(self) -> bool {
        match self {
            Self::Connecting | Self::Upgrading | Self::Greeting | Self::Subscribing => true,
            Self::Polling | Self::Ready => false,
        }
    }
}

/// One client connection.
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) phase: Phase,
    pub(crate) group: Group,
    pub(crate) generation: u16,
    /// Its number in the run, unique over all workers.
    pub(crate) number: u32,
    /// When it, or its current subscription, was due. Once it pings: when the oldest unanswered ping was due, 0 if there is
    /// none.
    pub(crate) due_ns: u64,
    /// `None` while there is nothing to keep.
    pub(crate) kept: Option<Box<Kept>>,
}

/// State that few connections have at any time.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The beginning of an incomplete frame.
    pub(crate) incoming: Vec<u8>,
    /// Bytes that the socket did not accept yet.
    pub(crate) outgoing: Vec<u8>,
    /// Kept if the connection will subscribe again.
    pub(crate) socket_id: String,
    /// Where the next poll continues, unless a reader remembers it.
    pub(crate) cursor: String,
}

const _: () = assert!(size_of::<Connection>() == 32, "a connection costs the generator 32 bytes");

impl Connection {
    pub(crate) fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    /// When it counts as failed unless it is subscribed by then.
    pub(crate) fn expires_ns(&self, shared: &Shared) -> u64 {
        self.due_ns.max(shared.judged_from_ns) + shared.plan.join_timeout_ns
    }

    /// Frees the kept state if it is empty.
    pub(crate) fn tidy(&mut self) {
        let is_empty = |kept: &Kept| {
            let bytes = kept.incoming.len() + kept.outgoing.len();
            bytes + kept.socket_id.len() + kept.cursor.len() == 0
        };
        if self.kept.as_deref().is_some_and(is_empty) {
            self.kept = None;
        }
    }
}
