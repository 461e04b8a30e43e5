//! The bare server on Relay's own drivers: a small core in the place of the shard.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use relay::connection::ConnectionKey;
use relay::driver::clock::Clock;
use relay::driver::control::Control;
use relay::driver::host::NoHost;
use relay::driver::listener::BoundListener;
use relay::driver::mailbox::Mailbox;
use relay::driver::{Core, DriverKind, ShardSetup};
use relay::moment::Moment;
use relay::shard::{Flush, Input, Listener, Mail, Output};

use crate::channels::{Channels, Subscription};
use crate::outbox::take_joined;
use crate::protocol::{Demand, Role, Session};

/// Serves until the process ends.
pub(crate) fn serve(kind: DriverKind, socket: OwnedFd, role: Role) -> io::Result<()> {
    let mailboxes: Arc<[Mailbox<Mail>]> = Arc::new([Mailbox::new(1)?]);
    let setup = ShardSetup {
        index: 0,
        listeners: vec![BoundListener { kind: Listener::Public, socket }],
        control: Arc::new(Control::new(Arc::clone(&mailboxes))),
        mailboxes,
        clock: Clock::start(),
        slots: SLOTS,
        refusal_slots: 0,
        zero_copy_bytes_min: None,
        host: Box::new(NoHost),
    };
    relay::driver::run(kind, setup, &mut Bare::new(role))
}

struct Bare {
    role: Role,
    /// By slot.
    connections: Vec<Option<Box<Connection>>>,
    accepted: u64,
    channels: Channels<u32>,
    /// Slots that have bytes pending and no send in flight, once each.
    dirty: VecDeque<u32>,
    outputs: VecDeque<Output>,
    replies: Vec<u8>,
    demands: Vec<Demand>,
}

struct Connection {
    key: ConnectionKey,
    session: Session,
    subscriptions: Vec<Subscription>,
    queue: VecDeque<Bytes>,
    /// Rest of the send in flight, or of the last one if it was short.
    lent: Bytes,
    state: State,
}

/// What the driver must do when the next bytes for a connection are queued.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Add it to the list of connections with bytes pending.
    Settled,
    /// Nothing: it is in the list.
    Dirty,
    /// Nothing: the end of its send puts it into the list.
    Sending,
}

impl Bare {
    fn new(role: Role) -> Self {
        Self {
            role,
            connections: Vec::new(),
            accepted: 0,
            channels: Channels::new(),
            dirty: VecDeque::new(),
            outputs: VecDeque::new(),
            replies: Vec::new(),
            demands: Vec::new(),
        }
    }

    fn accept(&mut self, key: ConnectionKey) {
        let slot = key.slot as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        self.accepted += 1;
        self.connections[slot] = Some(Box::new(Connection {
            key,
            session: Session::new(self.role, self.accepted),
            subscriptions: Vec::new(),
            queue: VecDeque::new(),
            lent: Bytes::new(),
            state: State::Settled,
        }));
    }

    fn open(&mut self, slot: u32) -> &mut Connection {
        self.connections[slot as usize].as_mut().expect("only open connections get input")
    }

    fn receive(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        let connection = self.connections[key.slot as usize].as_mut().expect("only open connections get input");
        let result = connection.session.receive(bytes, &mut self.replies, &mut self.demands);
        if !self.replies.is_empty() {
            let replies = Bytes::copy_from_slice(&self.replies);
            self.replies.clear();
            push(connection, replies, &mut self.dirty);
        }
        for demand in std::mem::take(&mut self.demands) {
            self.fulfil(key.slot, demand);
        }
        if result.is_err() {
            self.outputs.push_back(Output::Close { connection: key, reset: false });
        }
    }

    fn fulfil(&mut self, slot: u32, demand: Demand) {
        match demand {
            Demand::Join(channel) => {
                let subscription = self.channels.join(channel, slot);
                self.open(slot).subscriptions.push(subscription);
            }
            Demand::Leave(channel) => {
                let subscriptions = &mut self.open(slot).subscriptions;
                if let Some(at) = subscriptions.iter().position(|subscription| subscription.is_to(&channel)) {
                    let subscription = subscriptions.swap_remove(at);
                    self.channels.leave(&subscription);
                }
            }
            Demand::Publish { channel, frame } => {
                for slot in self.channels.subscribers(&channel) {
                    let subscriber = self.connections[*slot as usize].as_mut().expect("who leaves is taken out");
                    push(subscriber, frame.clone(), &mut self.dirty);
                }
            }
        }
    }

    fn sent(&mut self, key: ConnectionKey, bytes: usize) {
        let connection = self.open(key.slot);
        connection.lent.advance(bytes);
        connection.state = State::Settled;
        if !connection.lent.is_empty() || !connection.queue.is_empty() {
            connection.state = State::Dirty;
            self.dirty.push_back(key.slot);
        }
    }

    fn close(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections[key.slot as usize].take() {
            for subscription in &connection.subscriptions {
                self.channels.leave(subscription);
            }
        }
    }
}

fn push(connection: &mut Connection, frame: Bytes, dirty: &mut VecDeque<u32>) {
    connection.queue.push_back(frame);
    if connection.state == State::Settled {
        connection.state = State::Dirty;
        dirty.push_back(connection.key.slot);
    }
}

impl Core for Bare {
    fn handle_input(&mut self, _now: Moment, input: Input<'_>) {
        match input {
            Input::Accepted { connection, .. } => self.accept(connection),
            Input::Received { connection, bytes } => self.receive(connection, bytes),
            Input::Sent { connection, bytes } => self.sent(connection, bytes),
            Input::ReadEnded { connection } => self.outputs.push_back(Output::Close { connection, reset: false }),
            Input::Closed { connection } => self.close(connection),
            Input::CaughtUp | Input::Timeout | Input::Drain | Input::Mail { .. } | Input::Directory(_) => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_flush(&mut self) -> Option<Flush<'_>> {
        while let Some(slot) = self.dirty.pop_front() {
            // A slot in the list may have been closed since, and may now belong to another connection.
            let owes = |connection: &Connection| connection.state == State::Dirty;
            if !self.connections[slot as usize].as_deref().is_some_and(owes) {
                continue;
            }
            let connection = self.connections[slot as usize].as_mut().expect("just looked at");
            if connection.lent.is_empty() {
                connection.lent = take_joined(&mut connection.queue).expect("a dirty connection owes");
            }
            connection.state = State::Sending;
            return Some(Flush { connection: connection.key, bytes: &connection.lent });
        }
        None
    }

    fn lent(&self, connection: ConnectionKey) -> &[u8] {
        let open = self.connections[connection.slot as usize].as_deref();
        let sending = open.filter(|open| open.key == connection && open.state == State::Sending);
        sending.map_or(&[], |open| &open.lent)
    }

    fn poll_timeout(&self) -> Option<u64> {
        None
    }

    fn is_drained(&self) -> bool {
        false
    }
}

/// Maximum number of concurrent connections.
const SLOTS: u32 = 18_000;
