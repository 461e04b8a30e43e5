//! An HTTP connection: the request being received, and the order of the answers to earlier ones.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;

use crate::app::AppSerial;
use crate::wire::http::RequestDecoder;

/// An HTTP connection.
#[derive(Debug)]
pub struct Http {
    /// A partial request.
    pub decoder: RequestDecoder,
    /// The client's address: the peer's, or the one that a trusted proxy reported.
    pub client: IpAddr,
    /// The state of a possible proxy in front.
    pub proxy: Proxy,
    /// It was accepted on the metrics and health port.
    pub metrics: bool,
    /// It was accepted at capacity: WebSockets are refused with 4100 (P-CLOSE-2).
    pub refuse: bool,
    /// A complete request was received.
    pub made_request: bool,
    /// When the current request must be complete, in ms of the service clock; 0 between requests.
    pub deadline_ms: u64,
    /// When the shard's queue checks it next, not later than `deadline_ms`; 0 if the queue has no deadline for it.
    pub queued_deadline_ms: u64,
    /// Pending answers, oldest first, starting with the first that is not ready yet.
    pub answers: VecDeque<Answer>,
    /// Ticket of the first of `answers`.
    pub first_ticket: u32,
    /// Bytes that arrived while too many answers were pending, or a request waited; at most one read.
    pub held_back: Vec<u8>,
    /// A request waits for its app's permits: those behind it wait too.
    pub parked: bool,
    /// It has a poll: closed when the client ends its direction.
    pub polls: bool,
    /// The current request is refused by its head; its body is dropped as it arrives.
    pub refused: Option<Refused>,
    /// The app whose credential the last request had.
    pub caller: Option<AppSerial>,
    /// An upgrade waits until all answers before it are sent.
    pub upgrade_waits: bool,
    /// Ticket of a request whose answer may be large: those behind it wait.
    pub large_answer: Option<u32>,
    /// A list that is being sent, with the app that its bytes count for.
    pub unsent_list: Option<(AppSerial, usize)>,
    /// Bytes of the current request, for metrics.
    pub request_bytes: usize,
    /// The app of the current request, once it is known, for metrics.
    pub app: Option<AppSerial>,
}

/// The answer to a request whose head was refused, until its body has arrived.
#[derive(Debug)]
pub struct Refused {
    /// Head and body, encoded.
    pub answer: Bytes,
    /// Whether the answer says that the connection stays open.
    pub keep_alive: bool,
}

impl Http {
    /// Memory for incomplete input, in bytes.
    pub(super) fn input_bytes(&self) -> usize {
        let header = if let Proxy::Awaited(bytes) = &self.proxy { bytes.capacity() } else { 0 };
        self.decoder.held_bytes() + self.held_back.capacity() + header
    }

    /// True when every request so far has its answer queued.
    pub fn is_answered(&self) -> bool {
        self.answers.is_empty()
    }

    /// Reserves a place in the order of answers; returns its ticket.
    pub fn push_waiting(&mut self, keep_alive: bool, app: Option<AppSerial>) -> u32 {
        self.answers.push_back(Answer::Waiting { keep_alive, app });
        self.first_ticket.wrapping_add(self.answers.len() as u32 - 1)
    }

    /// The place of a request that is not answered yet.
    pub fn answer_mut(&mut self, ticket: u32) -> &mut Answer {
        let at = ticket.wrapping_sub(self.first_ticket) as usize;
        &mut self.answers[at]
    }

    /// Takes the oldest answer if it is ready.
    pub fn take_ready(&mut self) -> Option<Bytes> {
        let oldest = self.answers.pop_front_if(|answer| matches!(answer, Answer::Ready(_)))?;
        let Answer::Ready(answer) = oldest else { return None };
        self.first_ticket = self.first_ticket.wrapping_add(1);
        Some(answer)
    }
}

/// What may precede the first HTTP byte.
#[derive(Debug)]
pub enum Proxy {
    /// The peer is not a trusted proxy, or its header was read.
    Direct,
    /// The peer is a trusted proxy: a PROXY header may follow; contains the bytes so far.
    Awaited(Vec<u8>),
    /// The peer is a trusted proxy and its optional header was read: `X-Forwarded-For` is trusted.
    Trusted,
}

/// An answer to one request, in order.
#[derive(Debug)]
pub enum Answer {
    /// Other shards must accept first.
    Waiting {
        /// The connection may be used for further requests after it.
        keep_alive: bool,
        /// The app that the traffic is counted for.
        app: Option<AppSerial>,
    },
    /// It waits only for earlier answers.
    Ready(Bytes),
}
