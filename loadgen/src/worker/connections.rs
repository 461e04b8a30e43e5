//! The connections of one worker: opened on a schedule or as fast as the server answers, and read when readable.

use std::collections::VecDeque;
use std::io;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

use super::connection::{Connection, Phase};
use super::poll::Token;
use super::receive::Receiver;
use super::shared::Shared;
use super::socket::{Ended, Mask, connect, flush, hint, send, send_frame, send_text_frames};
use super::subscriptions::Connected;
use crate::clock::now_ns;
use crate::messages::{Back, ConnectOrder, Group};
use crate::schedule::Schedule;
use crate::wire::frame;
use crate::wire::transport::Transport;

/// All connections of a worker.
pub(crate) struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<u32>,
    generation: u16,
    joining: VecDeque<(u32, u16)>,
    joining_count: u64,
    waves: Vec<Wave>,
    buffer: Vec<u8>,
    mask: Mask,
    /// Buffer for reads that complete a kept frame.
    scratch: Vec<u8>,
}

/// Connections that are still to be opened.
struct Wave {
    order: ConnectOrder,
    schedule: Schedule,
    /// The numbers of connections that open again; otherwise they follow from the order.
    numbers: Option<Vec<u32>>,
}

/// Whether a message could be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SendOutcome {
    Sent,
    Gone,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            generation: 0,
            joining: VecDeque::new(),
            joining_count: 0,
            waves: Vec::new(),
            buffer: vec![0; READ_BYTES],
            mask: Mask::new(),
            scratch: Vec::new(),
        }
    }

    /// Begins to open connections.
    pub(crate) fn begin(&mut self, order: ConnectOrder) {
        let schedule = Schedule::new(order.start_ns, order.interval_ns, order.count);
        self.waves.push(Wave { order, schedule, numbers: None });
    }

    /// Begins to open connections with these numbers again.
    pub(crate) fn begin_again(&mut self, group: Group, numbers: Vec<u32>, back: Back) {
        let count = numbers.len() as u64;
        let order = ConnectOrder {
            group,
            first: 0,
            stride: 0,
            count,
            start_ns: now_ns(),
            interval_ns: back.interval_ns,
            in_flight_max: back.in_flight_max,
        };
        let schedule = Schedule::new(order.start_ns, order.interval_ns, count);
        self.waves.push(Wave { order, schedule, numbers: Some(numbers) });
    }

    /// Stops opening connections.
    pub(crate) fn halt(&mut self) {
        self.waves.clear();
    }

    pub(crate) fn waves_running(&self) -> u64 {
        self.waves.len() as u64
    }

    /// When there is something to do without an event.
    pub(crate) fn next_ns(&self, shared: &Shared) -> Option<u64> {
        let open = self.waves.iter().filter(|wave| self.joining_count < wave.order.in_flight_max);
        let due = open.filter_map(|wave| wave.schedule.next_ns()).min();
        let front = self.joining.front().and_then(|key| self.alive(*key));
        let timeout = front.map(|connection| connection.expires_ns(shared));
        [due, timeout].into_iter().flatten().min()
    }

    /// Opens the connections that are due and ends those that take too long.
    pub(crate) fn run_schedule(&mut self, shared: &mut Shared) -> io::Result<()> {
        self.expire(shared);
        self.waves.retain(|wave| wave.schedule.next_ns().is_some());
        for wave in 0..self.waves.len() {
            for _ in 0..CONNECTS_PER_TURN {
                if !self.open_next(wave, shared)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Opens the next connection of a wave if it is due and there is room for it.
    fn open_next(&mut self, wave: usize, shared: &mut Shared) -> io::Result<bool> {
        let wave = &mut self.waves[wave];
        let now = now_ns();
        let Some(due_ns) = wave.schedule.next_ns().filter(|due_ns| *due_ns <= now) else { return Ok(false) };
        if self.joining_count >= wave.order.in_flight_max {
            return Ok(false);
        }
        let done = wave.schedule.done();
        let follows = u32::try_from(wave.order.first + done * wave.order.stride).unwrap_or(u32::MAX);
        let listed = wave.numbers.as_ref().and_then(|numbers| numbers.get(usize::try_from(done).ok()?)).copied();
        let group = wave.order.group;
        // Without a schedule, a connection is due when there is room for it.
        let due_ns = if wave.order.interval_ns > 0.0 { due_ns } else { now };
        wave.schedule.advance();
        self.open(listed.unwrap_or(follows), group, due_ns, shared)?;
        Ok(true)
    }

    fn expire(&mut self, shared: &mut Shared) {
        while let Some(&key) = self.joining.front() {
            match self.alive(key) {
                Some(connection) if !connection.phase.is_joining() => {}
                Some(connection) if connection.expires_ns(shared) > now_ns() => return,
                Some(_) => self.end(key.0, "timed out before it was subscribed", shared),
                None => {}
            }
            self.joining.pop_front();
        }
    }

    fn alive(&self, (slot, generation): (u32, u16)) -> Option<&Connection> {
        self.slots.get(slot as usize)?.as_ref().filter(|connection| connection.generation == generation)
    }

    /// Handshakes in flight.
    pub(crate) fn joining(&self) -> u64 {
        self.joining_count
    }

    /// Opens a connection with this number.
    pub(crate) fn open(&mut self, number: u32, group: Group, due_ns: u64, shared: &mut Shared) -> io::Result<()> {
        shared.counters.attempted += 1;
        let socket = match connect(shared.plan.target.address, number, group) {
            Ok(socket) => socket,
            // A limit of this machine, not of the server: the run cannot continue.
            Err(error) if hint(error).is_some() => {
                let hint = hint(error).unwrap_or_default();
                return Err(io::Error::other(format!("cannot open connection {number}: {error} ({hint})")));
            }
            Err(error) => {
                shared.count_failed(number, now_ns());
                shared.reason(&format!("connect: {error}"));
                return Ok(());
            }
        };
        self.generation = self.generation.wrapping_add(1);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer slots than descriptors")
        });
        shared.verifier.forget(slot as usize);
        if let Some(readers) = &mut shared.readers {
            readers.begin(number, slot);
        }
        let generation = self.generation;
        shared.poll.add(&socket, Token::Connection(slot, generation), EDGES)?;
        let phase = Phase::Connecting;
        self.slots[slot as usize] = Some(Connection { socket, phase, group, generation, number, due_ns, kept: None });
        shared.counters.open[group as usize] += 1;
        self.joining.push_back((slot, generation));
        self.joining_count += 1;
        Ok(())
    }

    /// Handles an epoll event of a connection.
    pub(crate) fn handle_event(&mut self, slot: u32, generation: u16, flags: EventFlags, shared: &mut Shared) {
        let Some(connection) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if connection.generation != generation {
            return;
        }
        let mut ended = None;
        if connection.phase == Phase::Connecting {
            match sockopt::socket_error(&connection.socket) {
                Ok(Ok(())) if flags.contains(EventFlags::OUT) => {
                    let is_poll = shared.plan.transport_of(connection.number) == Transport::Poll;
                    connection.phase = if is_poll { Phase::Polling } else { Phase::Upgrading };
                    self.joining_count -= u64::from(is_poll);
                    ended = send(connection, &shared.opening_request(connection.number));
                }
                Ok(Ok(())) => {}
                Ok(Err(error)) | Err(error) => ended = Some(format!("connect: {error}")),
            }
        } else if flags.contains(EventFlags::OUT) && connection.kept.is_some() {
            ended = flush(connection);
        }
        if ended.is_none() && flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            let stalled = connection.group == Group::Stalled && connection.phase == Phase::Ready;
            ended = if stalled { stalled_event(flags) } else { self.read(slot, flags, shared) };
        }
        if let Some(reason) = ended {
            self.end(slot, &reason, shared);
        }
    }

    fn read(&mut self, slot: u32, flags: EventFlags, shared: &mut Shared) -> Ended {
        let mut buffer = std::mem::take(&mut self.buffer);
        let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let mut ended = None;
        for _ in 0..READS_PER_EVENT {
            let Some(connection) = self.slots[slot as usize].as_ref() else { break };
            match rustix::net::recv(&connection.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => ended = Some("closed by the server without a close frame".to_owned()),
                Ok((_, length)) => {
                    shared.counters.bytes_received += length as u64;
                    shared.counters.reads += 1;
                    ended = self.take_bytes(slot, &buffer[..length], now_ns(), shared);
                    // Edges are reported once, but a short read has emptied the socket.
                    if ended.is_none() && length < buffer.len() && !hung_up {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => ended = Some(format!("ended: {error}")),
            }
            if ended.is_some() {
                break;
            }
        }
        self.buffer = buffer;
        ended
    }

    fn take_bytes(&mut self, slot: u32, bytes: &[u8], now: u64, shared: &mut Shared) -> Ended {
        let connection = self.slots[slot as usize].as_mut()?;
        let incoming = connection.kept.as_mut().map(|kept| std::mem::take(&mut kept.incoming)).unwrap_or_default();
        if incoming.is_empty() {
            return self.take_stream(slot, bytes, now, shared);
        }
        let mut whole = std::mem::take(&mut self.scratch);
        whole.clear();
        whole.extend_from_slice(&incoming);
        whole.extend_from_slice(bytes);
        let ended = self.take_stream(slot, &whole, now, shared);
        self.scratch = whole;
        ended
    }

    fn take_stream(&mut self, slot: u32, bytes: &[u8], now: u64, shared: &mut Shared) -> Ended {
        let connection = self.slots[slot as usize].as_mut()?;
        let was_joining = connection.phase.is_joining();
        let mask = &mut self.mask;
        let (taken, ended) = Receiver { connection, slot, now, mask, shared }.take(bytes);
        self.joining_count -= u64::from(was_joining && !connection.phase.is_joining());
        if ended.is_some() {
            return ended;
        }
        if taken < bytes.len() {
            connection.kept().incoming = bytes[taken..].to_vec();
        } else if connection.kept.is_some() {
            connection.tidy();
        }
        None
    }

    /// Number and slot of each subscribed connection of [`Group::Subscribers`], by number.
    pub(crate) fn slots(&self) -> Vec<(u32, u32)> {
        let subscribed = |(slot, connection): (usize, &Option<Connection>)| {
            let connection = connection
                .as_ref()
                .filter(|connection| connection.group == Group::Subscribers && connection.phase == Phase::Ready)?;
            Some((connection.number, u32::try_from(slot).ok()?))
        };
        let mut slots: Vec<_> = self.slots.iter().enumerate().filter_map(subscribed).collect();
        slots.sort_unstable();
        slots
    }

    /// The same connections with their `socket_id`, those that keep it.
    pub(crate) fn subscribed(&self) -> impl Iterator<Item = Connected<'_>> {
        self.slots().into_iter().filter_map(|(number, slot)| {
            let kept = self.slots[slot as usize].as_ref()?.kept.as_ref()?;
            Some(Connected { number, slot, socket_id: &kept.socket_id })
        })
    }

    /// Sends on the connection in this slot, if it still has this number and is subscribed.
    fn send_with(
        &mut self,
        (number, slot): (u32, u32),
        shared: &mut Shared,
        send: impl FnOnce(&mut Connection, &mut Mask) -> Ended,
    ) -> SendOutcome {
        let connection = self.slots.get_mut(slot as usize).and_then(Option::as_mut);
        let is_meant = |connection: &&mut Connection| connection.number == number && connection.phase == Phase::Ready;
        let Some(connection) = connection.filter(is_meant) else { return SendOutcome::Gone };
        match send(connection, &mut self.mask) {
            None => SendOutcome::Sent,
            Some(reason) => {
                self.end(slot, &reason, shared);
                SendOutcome::Gone
            }
        }
    }

    /// Sends a text message on the connection in this slot, if it still has this number and is subscribed.
    pub(crate) fn send_text(&mut self, key: (u32, u32), text: &[u8], shared: &mut Shared) -> SendOutcome {
        self.send_with(key, shared, |connection, mask| send_frame(connection, frame::TEXT, text, mask))
    }

    /// As [`Connections::send_text`], a ping; `first` if it is the connection's first one.
    pub(crate) fn ping(&mut self, key: (u32, u32), first: bool, due_ns: u64, shared: &mut Shared) -> SendOutcome {
        let outcome = self.send_text(key, PING, shared);
        if let Some(connection) = self.slots.get_mut(key.1 as usize).and_then(Option::as_mut)
            && outcome == SendOutcome::Sent
            && (first || connection.due_ns == 0)
        {
            connection.due_ns = due_ns;
        }
        outcome
    }

    /// As [`Connections::send_text`], several messages in one send.
    pub(crate) fn send_texts(&mut self, key: (u32, u32), texts: &[String], shared: &mut Shared) -> SendOutcome {
        self.send_with(key, shared, |connection, mask| send_text_frames(connection, texts, mask))
    }

    /// Makes a presence member leave and join again as another member.
    pub(crate) fn change(&mut self, key: (u32, u32), sequence: u32, due_ns: u64, shared: &mut Shared) -> SendOutcome {
        let (number, slot) = key;
        let connection = self.slots.get(slot as usize).and_then(Option::as_ref);
        let Some(kept) = connection.and_then(|connection| connection.kept.as_ref()) else { return SendOutcome::Gone };
        let subscribe = shared.subscribe_message(number, sequence, &kept.socket_id, due_ns);
        let channel = &shared.plan.channels[shared.channel_of(number)];
        let leave = format!("{{\"event\":\"pusher:unsubscribe\",\"data\":{{\"channel\":\"{channel}\"}}}}");
        for text in [leave, subscribe] {
            if self.send_text(key, text.as_bytes(), shared) == SendOutcome::Gone {
                return SendOutcome::Gone;
            }
        }
        let Some(connection) = self.slots[slot as usize].as_mut() else { return SendOutcome::Gone };
        connection.phase = Phase::Subscribing;
        connection.due_ns = due_ns;
        shared.counters.subscribed[connection.group as usize] -= 1;
        self.joining.push_back((slot, connection.generation));
        self.joining_count += 1;
        SendOutcome::Sent
    }

    /// Ends a connection and counts why.
    fn end(&mut self, slot: u32, reason: &str, shared: &mut Shared) {
        let Some(connection) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.forget(slot, &connection, shared);
        if connection.phase == Phase::Ready {
            shared.counters.lost[connection.group as usize] += 1;
            if let Some(readers) = &mut shared.readers {
                readers.end(connection.number, now_ns());
            }
        } else {
            shared.count_failed(connection.number, now_ns());
        }
        shared.reason(reason);
        shared.lose_subscriptions(slot);
    }

    /// A connection that was taken from its slot is counted no more.
    fn forget(&mut self, slot: u32, connection: &Connection, shared: &mut Shared) {
        let group = connection.group as usize;
        shared.counters.open[group] -= 1;
        shared.counters.subscribed[group] -= u64::from(connection.phase == Phase::Ready);
        self.joining_count -= u64::from(connection.phase.is_joining());
        self.free.push(slot);
    }

    /// Resets the connection in a slot, which does not count as lost.
    pub(crate) fn reset(&mut self, slot: u32, shared: &mut Shared) {
        if let Some(connection) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.forget(slot, &connection, shared);
        }
    }

    /// Resets every connection of a group; these do not count as lost. Returns their numbers.
    pub(crate) fn drop_group(&mut self, group: Group, shared: &mut Shared) -> Vec<u32> {
        let mut numbers = Vec::new();
        for slot in 0..self.slots.len() {
            let Some(connection) = self.slots[slot].take_if(|connection| connection.group == group) else { continue };
            self.forget(u32::try_from(slot).expect("it was a u32"), &connection, shared);
            numbers.push(connection.number);
        }
        numbers
    }
}

fn stalled_event(flags: EventFlags) -> Ended {
    flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR).then(|| "stalled reader was closed".into())
}

const EDGES: EventFlags = EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
const PING: &[u8] = br#"{"event":"pusher:ping","data":{}}"#;
const READ_BYTES: usize = 64 * 1024;
/// Limits how long one busy connection keeps the others waiting.
const READS_PER_EVENT: usize = 1024;
const CONNECTS_PER_TURN: u32 = 32;
