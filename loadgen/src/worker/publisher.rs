//! Publishers: each has a keep-alive connection, a schedule, and requests in flight up to the depth of the pipeline.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::poll::Token;
use super::shared::Shared;
use crate::clock::{MILLISECOND_NS, SECOND_NS, now_ns};
use crate::messages::{Group, Measure, PublishOrder, Requests};
use crate::schedule::Schedule;
use crate::wire::answer::{Answer, read_answer};
use crate::wire::event::EVENT;
use crate::wire::link::Link;
use crate::wire::stamp::Stamp;

/// A request to the auth endpoint.
const AUTH_BODY: &[u8] = br#"{"socket_id":"1234.5678","channel_name":"private-loadgen"}"#;

/// One publisher.
pub(crate) struct Publisher {
    id: u32,
    slot: u32,
    generation: u16,
    socket: Option<OwnedFd>,
    /// When to retry after the connection broke, and how often it broke in a row.
    retry_ns: Option<u64>,
    broken: u32,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    outstanding: VecDeque<Outstanding>,
    /// When the server last sent a byte.
    received_ns: u64,
    schedule: Schedule,
    messages_per_tick: u32,
    closed_loop: bool,
    /// Events sent in this round, and deliveries to this worker before it.
    round_sent: u64,
    round_delivered: u64,
    /// When a closed loop ends.
    end_ns: u64,
    /// Scheduled moments that have passed, and how many events of each are still to be sent.
    due: VecDeque<(u64, u32)>,
    /// Next sequence of each channel.
    sequences: Vec<u32>,
    next_channel: usize,
    /// With a chain of events for each channel: where each chain is. Otherwise empty.
    chains: Vec<Chain>,
}

/// The chain of a channel.
#[derive(Clone, Copy, Default)]
struct Chain {
    /// The hash up to the last event.
    hash: u64,
    /// Events since the last one that was accepted: nobody knows whether they were published.
    uncertain: u8,
    /// The last event has no answer yet. The next one waits for it, because it says whether this one was published.
    is_in_flight: bool,
}

struct Outstanding {
    intended_ns: u64,
    sent_ns: u64,
    channel: u32,
    sequence: u32,
}

impl Chain {
    /// The last event was accepted, or was refused or not answered.
    fn settle(&mut self, accepted: bool) {
        self.is_in_flight = false;
        self.uncertain = if accepted { 0 } else { self.uncertain.saturating_add(1) };
    }
}

impl Publisher {
    /// A publisher without a schedule.
    pub(crate) fn new(id: u32, slot: u32, channels: usize) -> Self {
        Self {
            id,
            slot,
            generation: 0,
            socket: None,
            retry_ns: None,
            broken: 0,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            outstanding: VecDeque::new(),
            received_ns: 0,
            schedule: Schedule::new(0, 0.0, 0),
            messages_per_tick: 1,
            closed_loop: false,
            round_sent: 0,
            round_delivered: 0,
            end_ns: 0,
            due: VecDeque::new(),
            sequences: vec![0; channels],
            next_channel: id as usize % channels.max(1),
            chains: Vec::new(),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Starts a new schedule. The ticks of all publishers are spread over one interval.
    pub(crate) fn begin(&mut self, order: &PublishOrder, shared: &Shared) {
        let offset = order.interval_ns * f64::from(self.id) / f64::from(shared.plan.publishers.max(1));
        self.round_sent = 0;
        self.round_delivered = shared.counters.delivered;
        self.closed_loop = order.interval_ns <= 0.0;
        let ticks = if self.closed_loop { 1 } else { order.ticks };
        self.schedule = Schedule::new(order.start_ns + offset as u64, order.interval_ns, ticks);
        self.messages_per_tick = if self.closed_loop { u32::MAX } else { order.messages_per_tick };
        self.end_ns = order.end_ns;
        self.broken = 0;
        if shared.plan.resume.is_some() {
            self.chains.resize(self.sequences.len(), Chain::default());
        }
    }

    /// Sends no further request; answers to those in flight are still taken.
    pub(crate) fn halt(&mut self) {
        self.schedule.end();
        self.due.clear();
    }

    pub(crate) fn is_running(&self) -> bool {
        self.schedule.next_ns().is_some() || !self.due.is_empty() || !self.outstanding.is_empty()
    }

    /// Whether it must run in every turn, because it waits for deliveries instead of the clock.
    pub(crate) fn waits_for_deliveries(&self) -> bool {
        self.closed_loop && !self.due.is_empty()
    }

    /// In a closed loop: whether the limit of events in flight to subscribers is reached. Estimated from this worker alone,
    /// assuming that other workers publish and receive at the same rate.
    fn is_far_ahead(&self, shared: &Shared) -> bool {
        let subscribers = shared.counters.subscribed[Group::Subscribers as usize];
        if !self.closed_loop || shared.plan.events_in_flight_max == 0 || subscribers == 0 {
            return false;
        }
        let arrived =
            (shared.counters.delivered - self.round_delivered) * shared.plan.channels.len() as u64 / subscribers;
        let sent = self.round_sent * u64::from(shared.plan.publishers);
        sent >= arrived + shared.plan.events_in_flight_max
    }

    /// When a pending answer times out. As long as the server sends bytes, it does not.
    fn expires_ns(&self, shared: &Shared) -> Option<u64> {
        let begin = self.received_ns.max(shared.judged_from_ns);
        self.outstanding.front().map(|request| request.sent_ns.max(begin) + ANSWER_TIMEOUT_NS)
    }

    /// When there is something to do without an event.
    pub(crate) fn next_ns(&self, shared: &Shared) -> Option<u64> {
        let tick = self.schedule.next_ns();
        let timeout = self.expires_ns(shared);
        let retry = self.retry_ns.filter(|_| self.is_running());
        [tick, timeout, retry].into_iter().flatten().min()
    }

    /// Queues the events that are due and sends as many as the pipeline allows.
    pub(crate) fn run_schedule(&mut self, shared: &mut Shared) {
        let now = now_ns();
        if self.expires_ns(shared).is_some_and(|expires_ns| expires_ns <= now) {
            self.disconnect("publish: no answer within 10 s", shared);
        }
        while let Some(intended) = self.schedule.next_ns().filter(|intended| *intended <= now) {
            if !self.closed_loop {
                shared.recorder.record(Measure::Lag, intended, now);
            }
            self.schedule.advance();
            self.due.push_back((intended, self.messages_per_tick));
        }
        self.pump(shared);
    }

    fn pump(&mut self, shared: &mut Shared) {
        if self.due.is_empty() || self.retry_ns.is_some_and(|retry| retry > now_ns()) {
            return;
        }
        if self.socket.is_none() {
            self.connect(shared);
        }
        let now = now_ns();
        if self.closed_loop && now >= self.end_ns {
            self.due.clear();
        }
        while self.socket.is_some()
            && self.outstanding.len() < shared.plan.pipeline
            && !self.is_far_ahead(shared)
            && self.chains.get(self.next_channel).is_none_or(|chain| !chain.is_in_flight)
        {
            let Some((intended, count)) = self.due.front_mut() else { break };
            let intended_ns = if self.closed_loop { now } else { *intended };
            *count -= 1;
            if *count == 0 {
                self.due.pop_front();
            }
            self.request(intended_ns, now, shared);
        }
        self.flush(shared);
    }

    /// Appends one request.
    fn request(&mut self, intended_ns: u64, sent_ns: u64, shared: &mut Shared) {
        let (channel, sequence) = match shared.plan.requests {
            Requests::Events => self.append_event(intended_ns, shared),
            Requests::Channels => {
                shared.signer.request("GET", "/channels", "", b"", &mut self.outgoing);
                (0, 0)
            }
            Requests::Auth => {
                shared.signer.request("POST", "/auth", "", AUTH_BODY, &mut self.outgoing);
                (0, 0)
            }
        };
        self.outstanding.push_back(Outstanding { intended_ns, sent_ns, channel, sequence });
        shared.counters.sent += 1;
        self.round_sent += 1;
    }

    /// Appends an event for the next channel, and returns the channel and its sequence there.
    fn append_event(&mut self, intended_ns: u64, shared: &mut Shared) -> (u32, u32) {
        let channel = self.next_channel;
        let sequence = self.sequences[channel];
        self.sequences[channel] = sequence.wrapping_add(1);
        let index = u32::try_from(channel).expect("below 2^24");
        let stamp = Stamp { run: shared.plan.run, publisher: self.id, sequence, intended_ns, channel: index };
        let body = &mut shared.body;
        body.clear();
        body.extend_from_slice(b"{\"name\":\"");
        body.extend_from_slice(EVENT.as_bytes());
        body.extend_from_slice(b"\",\"channels\":[\"");
        body.extend_from_slice(shared.plan.channels[channel].as_bytes());
        body.extend_from_slice(b"\"],\"data\":\"");
        match self.chains.get_mut(channel) {
            None => {
                stamp.write(shared.plan.payload_bytes, body);
                self.next_channel = (channel + 1) % self.sequences.len();
            }
            Some(chain) => {
                (chain.hash, chain.is_in_flight) = (Link::hash(chain.hash, &stamp), true);
                Link { stamp, uncertain: chain.uncertain, chain: chain.hash }.write(shared.plan.payload_bytes, body);
                // A chain has one publisher.
                let next = channel + shared.plan.publishers as usize;
                self.next_channel = if next < self.sequences.len() { next } else { self.id as usize };
            }
        }
        body.extend_from_slice(b"\"}");
        shared.signer.request("POST", "/events", "", body, &mut self.outgoing);
        (index, sequence)
    }

    fn connect(&mut self, shared: &mut Shared) {
        let address = shared.plan.target.address;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        self.generation = self.generation.wrapping_add(1);
        let connected = rustix::net::socket_with(family, SocketType::STREAM, flags, None).and_then(|socket| {
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
            sockopt::set_tcp_nodelay(&socket, true)?;
            match rustix::net::connect(&socket, &address) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
                Err(error) => Err(error),
            }
        });
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let token = Token::Publisher(self.slot, self.generation);
        self.retry_ns = None;
        match connected {
            Ok(socket) => match shared.poll.add(&socket, token, edges) {
                Ok(()) => self.socket = Some(socket),
                Err(error) => self.disconnect(&format!("publish: {error}"), shared),
            },
            Err(error) => self.disconnect(&format!("publish: connect: {error}"), shared),
        }
    }

    fn flush(&mut self, shared: &mut Shared) {
        let Some(socket) = &self.socket else { return };
        let mut at = 0;
        while at < self.outgoing.len() {
            match rustix::net::send(socket, &self.outgoing[at..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(length) => at += length,
                // NOTCONN: the connection is still being established.
                Err(Errno::AGAIN | Errno::NOTCONN) => break,
                Err(error) => return self.disconnect(&format!("publish: {error}"), shared),
            }
        }
        self.outgoing.drain(..at);
    }

    /// Handles an epoll event of the connection.
    pub(crate) fn handle_event(&mut self, generation: u16, flags: EventFlags, shared: &mut Shared) {
        if generation != self.generation {
            return;
        }
        if flags.contains(EventFlags::OUT) {
            self.flush(shared);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            self.read(shared);
        }
        self.pump(shared);
    }

    fn read(&mut self, shared: &mut Shared) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(socket) = &self.socket else { return };
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return self.disconnect("publish: connection closed by the server", shared),
                Ok((_, length)) => {
                    self.received_ns = now_ns();
                    shared.counters.bytes_received += length as u64;
                    self.incoming.extend_from_slice(&buffer[..length]);
                    self.take_answers(shared);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => return self.disconnect(&format!("publish: {error}"), shared),
            }
        }
    }

    fn take_answers(&mut self, shared: &mut Shared) {
        let now = now_ns();
        let mut at = 0;
        loop {
            match read_answer(&self.incoming[at..]) {
                Answer::Partial => break,
                Answer::Invalid(reason) => return self.disconnect(&format!("publish: {reason}"), shared),
                Answer::Done { status, body, consumed } => {
                    let Some(request) = self.outstanding.pop_front() else {
                        return self.disconnect("publish: an answer without a request", shared);
                    };
                    if let Some(chain) = self.chains.get_mut(request.channel as usize) {
                        chain.settle((200..300).contains(&status));
                    }
                    if (200..300).contains(&status) {
                        shared.counters.accepted += 1;
                        shared.counters.accepted_by_channel[request.channel as usize] += 1;
                        shared.counters.published_by_channel[request.channel as usize] =
                            request.sequence.saturating_add(1);
                        shared.recorder.record(Measure::Answer, request.intended_ns, now);
                        self.broken = 0;
                    } else {
                        let body = String::from_utf8_lossy(&body[..body.len().min(80)]);
                        let text = format!("publish answered {status}: {}", body.trim());
                        shared.counters.refused += 1;
                        shared.reason(&text);
                    }
                    at += consumed;
                }
            }
        }
        self.incoming.drain(..at);
    }

    /// Closes the connection; unanswered requests count as refused. Retries a little later, at most [`BROKEN_MAX`] times.
    fn disconnect(&mut self, reason: &str, shared: &mut Shared) {
        self.socket = None;
        self.outgoing.clear();
        self.incoming.clear();
        shared.counters.refused += self.outstanding.len() as u64;
        for request in self.outstanding.drain(..) {
            self.chains.get_mut(request.channel as usize).into_iter().for_each(|chain| chain.settle(false));
        }
        shared.reason(reason);
        self.broken += 1;
        self.retry_ns = Some(now_ns() + RETRY_NS);
        if self.broken >= BROKEN_MAX {
            let queued: u64 = self.due.drain(..).map(|(_, count)| u64::from(count)).sum();
            let ahead = self.schedule.end() * u64::from(self.messages_per_tick);
            // The number of events of a closed loop is not known in advance.
            shared.counters.refused += if self.closed_loop { 0 } else { queued + ahead };
            self.retry_ns = None;
        }
    }
}

const ANSWER_TIMEOUT_NS: u64 = 10 * SECOND_NS;
const RETRY_NS: u64 = 100 * MILLISECOND_NS;
/// Connections that break in a row before a publisher gives up.
const BROKEN_MAX: u32 = 10;
