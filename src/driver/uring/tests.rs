//! The loop against real sockets, with a core that checks the driver's side of the contract.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::*;
use crate::driver::clock::Clock;
use crate::driver::control::Control;
use crate::driver::host::NoHost;
use crate::driver::listener::{self, BoundListener};
use crate::driver::mailbox::Mailbox;
use crate::moment::Moment;
use crate::shard::{Flush, Listener, Output};

mod tiny;
mod zero_copy;

/// How the core reacts to bytes that arrive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    /// Sends it back, pauses reading while it has much pending, closes after the peer's end once all is sent.
    Echo,
    /// At the first bytes: sends this many, then FIN, and continues reading to the peer's end.
    Blast(usize),
    /// At the first bytes: sends this many and closes at once when the socket took them.
    BlastAndClose(usize),
    /// At the first bytes: sends this many; at further bytes closes, even if some are still borrowed.
    BlastOrClose(usize),
    /// At the first bytes: resets.
    Reset,
}

const OWED_BYTES_MAX: usize = 128 * 1024;

#[derive(Debug, Default)]
struct Peer {
    generation: u32,
    owed: VecDeque<u8>,
    lent: Box<[u8]>,
    started: bool,
    ended: bool,
    paused: bool,
    closing: bool,
}

/// A core that keeps its side of the contract and asserts that the driver does too.
#[derive(Debug)]
struct TestCore {
    manner: Manner,
    peers: HashMap<u32, Peer>,
    generations: HashMap<u32, u32>,
    outputs: VecDeque<Output>,
    dirty: VecDeque<u32>,
    accepted: u64,
    refused: u64,
    closed: u64,
    sends: u64,
    drain: bool,
}

impl TestCore {
    fn new(manner: Manner) -> Self {
        Self {
            manner,
            peers: HashMap::new(),
            generations: HashMap::new(),
            outputs: VecDeque::new(),
            dirty: VecDeque::new(),
            accepted: 0,
            refused: 0,
            closed: 0,
            sends: 0,
            drain: false,
        }
    }

    /// The live peer of a key; any other key is a bug in the driver.
    fn peer(&mut self, connection: ConnectionKey) -> &mut Peer {
        let peer = self.peers.get_mut(&connection.slot).expect("inputs are for live connections");
        assert_eq!(peer.generation, connection.generation, "inputs are for the present use");
        peer
    }

    fn owe(&mut self, connection: ConnectionKey, bytes: &[u8]) {
        let peer = self.peer(connection);
        peer.owed.extend(bytes);
        if peer.lent.is_empty() {
            self.dirty.push_back(connection.slot);
        }
    }

    fn received(&mut self, connection: ConnectionKey, bytes: &[u8]) {
        let manner = self.manner;
        let peer = self.peer(connection);
        let first = !std::mem::replace(&mut peer.started, true);
        match manner {
            Manner::Echo => {
                self.owe(connection, bytes);
                let peer = self.peer(connection);
                if peer.owed.len() > OWED_BYTES_MAX && !std::mem::replace(&mut peer.paused, true) {
                    self.outputs.push_back(Output::Pause { connection });
                }
            }
            Manner::Blast(count) if first => {
                self.owe(connection, &noise(count));
                self.outputs.push_back(Output::ShutdownWrite { connection });
            }
            Manner::BlastAndClose(count) | Manner::BlastOrClose(count) if first => self.owe(connection, &noise(count)),
            Manner::BlastOrClose(_) => self.close(connection),
            Manner::Reset if first => {
                self.peer(connection).closing = true;
                self.outputs.push_back(Output::Close { connection, reset: true });
            }
            Manner::Blast(_) | Manner::BlastAndClose(_) | Manner::Reset => {}
        }
    }

    fn sent(&mut self, connection: ConnectionKey, bytes: usize) {
        let manner = self.manner;
        let peer = self.peer(connection);
        assert!(bytes >= 1 && bytes <= peer.lent.len(), "a send takes some of what is lent");
        let lent = std::mem::take(&mut peer.lent);
        for byte in lent[bytes..].iter().rev() {
            peer.owed.push_front(*byte);
        }
        if !peer.owed.is_empty() {
            self.dirty.push_back(connection.slot);
        } else if peer.ended || matches!(manner, Manner::BlastAndClose(_)) {
            self.close(connection);
            return;
        }
        let peer = self.peer(connection);
        if peer.paused && peer.owed.len() < OWED_BYTES_MAX / 2 {
            peer.paused = false;
            self.outputs.push_back(Output::Resume { connection });
        }
    }

    fn close(&mut self, connection: ConnectionKey) {
        if !std::mem::replace(&mut self.peer(connection).closing, true) {
            self.outputs.push_back(Output::Close { connection, reset: false });
        }
    }
}

impl Core for TestCore {
    fn handle_input(&mut self, _now: Moment, input: Input<'_>) {
        match input {
            Input::Accepted { connection, peer: address, refuse, .. } => {
                assert!(address.ip().is_loopback() && address.port() != 0);
                let last = self.generations.insert(connection.slot, connection.generation);
                assert_ne!(last, Some(connection.generation), "the generation is new for the slot");
                let generation = connection.generation;
                let before = self.peers.insert(connection.slot, Peer { generation, ..Peer::default() });
                assert!(before.is_none(), "a slot is used again only after its end");
                self.accepted += 1;
                self.refused += u64::from(refuse);
            }
            Input::Received { connection, bytes } => {
                assert!(!bytes.is_empty());
                self.received(connection, bytes);
            }
            Input::Sent { connection, bytes } => self.sent(connection, bytes),
            Input::ReadEnded { connection } => {
                let peer = self.peer(connection);
                assert!(!std::mem::replace(&mut peer.ended, true), "the end comes once");
                if peer.owed.is_empty() && peer.lent.is_empty() {
                    self.close(connection);
                }
            }
            Input::Closed { connection } => {
                self.peer(connection);
                self.peers.remove(&connection.slot);
                self.closed += 1;
            }
            Input::Drain => self.drain = true,
            Input::Mail { .. } | Input::Directory(_) | Input::CaughtUp | Input::Timeout => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_flush(&mut self) -> Option<Flush<'_>> {
        loop {
            let slot = self.dirty.pop_front()?;
            let Some(peer) = self.peers.get_mut(&slot) else {
                continue;
            };
            if peer.owed.is_empty() || !peer.lent.is_empty() || peer.closing {
                continue;
            }
            let count = peer.owed.len().min(crate::limits::SEND_BYTES_MAX);
            peer.lent = peer.owed.drain(..count).collect();
            let connection = ConnectionKey { slot, generation: peer.generation };
            self.sends += 1;
            return Some(Flush { connection, bytes: &self.peers[&slot].lent });
        }
    }

    fn lent(&self, connection: ConnectionKey) -> &[u8] {
        self.peers.get(&connection.slot).map_or(&[], |peer| &peer.lent)
    }

    fn poll_timeout(&self) -> Option<u64> {
        None
    }

    fn is_drained(&self) -> bool {
        self.drain && self.peers.is_empty()
    }
}

/// Bytes without a pattern that a lost or duplicated piece would match.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// A loop on its own thread.
struct Server {
    address: SocketAddr,
    control: Arc<Control>,
    listener: OwnedFd,
    thread: Option<JoinHandle<(TestCore, Figures)>>,
}

struct Shape {
    options: Options,
    slots: u32,
    refusal_slots: u32,
    send_buffer_bytes: usize,
}

impl Default for Shape {
    fn default() -> Self {
        let options = Options { buffers: 64, ..Options::default() };
        Self { options, slots: 4096, refusal_slots: 16, send_buffer_bytes: 128 * 1024 }
    }
}

fn setup(shape: &Shape) -> (ShardSetup, SocketAddr, Arc<Control>) {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = listener::bind_with(loopback, 1, shape.send_buffer_bytes).expect("a free port");
    let mailbox = Mailbox::new(16).expect("an eventfd");
    let mailboxes: Arc<[Mailbox<_>]> = Arc::from([mailbox]);
    let control = Arc::new(Control::new(Arc::clone(&mailboxes)));
    let socket = bound.sockets.into_iter().next().expect("one socket");
    let setup = ShardSetup {
        index: 0,
        listeners: vec![BoundListener { kind: Listener::Public, socket }],
        mailboxes,
        control: Arc::clone(&control),
        clock: Clock::start(),
        slots: shape.slots,
        refusal_slots: shape.refusal_slots,
        zero_copy_bytes_min: None,
        host: Box::new(NoHost),
    };
    (setup, bound.address, control)
}

impl Server {
    fn start(manner: Manner, shape: Shape) -> Self {
        let (setup, address, control) = setup(&shape);
        let listener = setup.listeners[0].socket.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || {
            let mut core = TestCore::new(manner);
            let figures = run_with(setup, &mut core, shape.options).expect("the loop runs");
            (core, figures)
        });
        Self { address, control, listener, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
        stream
    }

    /// Stops the loop. Nothing may be left: every connection was closed, none was touched late.
    fn stop(mut self) -> (TestCore, Figures) {
        self.control.stop();
        let thread = self.thread.take().expect("stopped once");
        let (core, figures) = thread.join().expect("the loop kept its invariants");
        assert!(core.peers.is_empty(), "{} connections never reported their end", core.peers.len());
        assert_eq!(core.accepted, core.closed);
        assert_eq!(figures.stale, 0, "no completion is late while operations are waited for");
        (core, figures)
    }
}

fn echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the server reads");
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).expect("the server answers");
    assert!(answer == bytes, "the echo differs");
}

/// All clients send before any of them reads.
fn echo_at_once(clients: &mut [TcpStream], bytes: &[u8]) {
    for client in &mut *clients {
        client.write_all(bytes).expect("the server reads");
    }
    for client in clients {
        let mut answer = vec![0; bytes.len()];
        client.read_exact(&mut answer).expect("the server answers");
        assert!(answer == bytes, "the echo differs");
    }
}

/// Reads to the end, in pieces of odd sizes.
fn read_slowly(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    while Read::by_ref(stream).take(7_001).read_to_end(&mut all).expect("the server sends") > 0 {}
    all
}

fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option");
}

/// Goal: the complete path works. Method: 64 clients exchange messages from one byte to many buffers.
#[test]
fn echoes_byte_for_byte() {
    let server = Server::start(Manner::Echo, Shape::default());
    let mut clients: Vec<TcpStream> = (0..64).map(|_| server.connect()).collect();
    for (round, size) in [1, 100, 2_048, 2_049, 40_000].into_iter().enumerate() {
        for client in &mut clients {
            echo(client, &noise(size + round));
        }
    }
    drop(clients);
    let (core, _) = server.stop();
    assert_eq!(core.accepted, 64);
}

/// U6: a pool far smaller than the number of its talkers serves all of them and does not spin. Method: 4 buffers, 200
/// clients that all send before any of them reads.
#[test]
fn few_buffers_serve_many_talkers() {
    let mut shape = Shape::default();
    shape.options.buffers = 4;
    shape.options.buffer_bytes = 2_048;
    let server = Server::start(Manner::Echo, shape);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    let bytes = noise(30_000);
    echo_at_once(&mut clients, &bytes);
    drop(clients);
    let (_, figures) = server.stop();
    // 200 x 30,000 bytes are about 3,000 receives; a spin would enter the kernel many times for each.
    assert!(figures.enters < 20_000, "{figures:?}");
}

/// U1, U3, U7, U9, U13: resets at any point leave no operation, buffer, descriptor or slot behind. Method: 3,000
/// connections that are reset before, while and after they are answered; the loop checks its accounts each turn.
#[test]
fn reset_storm_leaves_nothing() {
    let mut shape = Shape::default();
    shape.options.files_max = 600;
    let server = Server::start(Manner::Echo, shape);
    let bytes = noise(100_000);
    for round in 0..3_000_usize {
        let mut stream = server.connect();
        match round % 4 {
            0 => {}
            1 => stream.write_all(&bytes[..1]).expect("sent"),
            2 => stream.write_all(&bytes[..5_000]).expect("sent"),
            _ => {
                stream.set_nonblocking(true).expect("an option");
                let _ = stream.write(&bytes);
            }
        }
        reset(stream);
    }
    let mut last = server.connect();
    echo(&mut last, &bytes[..10]);
    drop(last);
    let (core, _) = server.stop();
    assert_eq!(core.accepted, 3_001);
}

/// U10: short sends and a slow reader. Goal: every byte once, in order. Method: 3 MB through the smallest socket
/// buffers, read in odd-sized pieces, then FIN.
#[test]
fn slow_reader_gets_every_byte() {
    let count = 3_000_000;
    let shape = Shape { send_buffer_bytes: 2_304, ..Shape::default() };
    let server = Server::start(Manner::Blast(count), shape);
    let mut stream = server.connect();
    stream.write_all(b"go").expect("sent");
    assert!(read_slowly(&mut stream) == noise(count), "bytes were lost, doubled or moved");
    // Half open: the server still reads after its FIN.
    stream.write_all(b"still read").expect("sent");
    drop(stream);
    let (core, _) = server.stop();
    assert!(core.sends >= (count / crate::limits::SEND_BYTES_MAX) as u64);
}

/// Pause and resume, U10: a peer that writes without reading is read only up to the pending limit, and loses nothing.
/// Method: 8 MB written by one thread, echoed, read by another that starts late and reads in small pieces.
#[test]
fn paused_connections_lose_nothing() {
    let server = Server::start(Manner::Echo, Shape::default());
    let bytes = noise(8_000_000);
    let mut stream = server.connect();
    let mut writer = stream.try_clone().expect("a descriptor");
    let copy = bytes.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).expect("the server reads on");
        writer.shutdown(std::net::Shutdown::Write).expect("connected");
    });
    let answer = read_slowly(&mut stream);
    writing.join().expect("written");
    assert!(answer == bytes, "{} of {} bytes, or other ones", answer.len(), bytes.len());
    server.stop();
}

/// A close delivers the data that the socket accepted. Method: the core closes as soon as the last send was accepted.
#[test]
fn close_delivers_what_was_sent() {
    let server = Server::start(Manner::BlastAndClose(90_000), Shape::default());
    for _ in 0..20 {
        let mut stream = server.connect();
        stream.write_all(b"x").expect("sent");
        assert!(read_slowly(&mut stream) == noise(90_000));
    }
    server.stop();
}

/// A reset sends RST, through a direct descriptor, which `setsockopt` cannot reach.
#[test]
fn reset_reaches_the_peer() {
    let server = Server::start(Manner::Reset, Shape::default());
    for _ in 0..20 {
        let mut stream = server.connect();
        stream.write_all(b"x").expect("sent");
        let error = stream.read_exact(&mut [0; 8]).expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    server.stop();
}

/// P-CLOSE-2, U9: the last slots are marked; beyond them connections wait and are served as others end.
#[test]
fn full_table_refuses_then_waits() {
    let shape = Shape { slots: 8, refusal_slots: 2, ..Shape::default() };
    let server = Server::start(Manner::Echo, shape);
    let mut clients: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        echo(client, b"in");
    }
    let mut waiting: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    for stream in &mut waiting {
        stream.write_all(b"later").expect("the backlog takes it");
    }
    drop(clients);
    for stream in &mut waiting {
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("served in the end");
    }
    drop(waiting);
    let (core, _) = server.stop();
    assert_eq!(core.accepted, 16);
    assert!(core.refused >= 2, "{} refused", core.refused);
}

/// Additional rings: a table of 8 descriptors holds 100 connections on 13 rings, twice in a row.
#[test]
fn further_rings_hold_what_one_cannot() {
    let mut shape = Shape::default();
    shape.options = Options { files_max: 8, buffers: 8, completions: 256, submissions: 64, ..shape.options };
    let server = Server::start(Manner::Echo, shape);
    for _ in 0..2 {
        let mut clients: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
        for size in [5, 20_000] {
            for client in &mut clients {
                echo(client, &noise(size));
            }
        }
    }
    let (core, figures) = server.stop();
    assert_eq!(core.accepted, 200);
    assert!((13..=26).contains(&figures.rings), "{figures:?}");
}

/// U4: a completion queue that is far too small overflows and loses nothing. Method: 8 entries, 400 clients that send
/// at once.
#[test]
fn overflow_loses_nothing() {
    let mut shape = Shape::default();
    shape.options.submissions = 4;
    shape.options.completions = 8;
    let server = Server::start(Manner::Echo, shape);
    let mut clients: Vec<TcpStream> = (0..400).map(|_| server.connect()).collect();
    for _ in 0..5 {
        let bytes = noise(6_000);
        echo_at_once(&mut clients, &bytes);
    }
    drop(clients);
    let (_, figures) = server.stop();
    assert!(figures.overflows > 0 && figures.polls_armed_again > 0, "{figures:?}");
}

/// T15, U11: a listener that fails pauses, does not spin, and accepts again once it can. Method: the listening socket
/// is shut down while the loop uses it, which makes every accept fail, and set to listen again.
#[test]
fn failing_listener_pauses_and_recovers() {
    let server = Server::start(Manner::Echo, Shape::default());
    echo(&mut server.connect(), b"before");
    rustix::net::shutdown(&server.listener, rustix::net::Shutdown::Read).expect("it listened");
    std::thread::sleep(Duration::from_millis(350));
    rustix::net::listen(&server.listener, 64).expect("it listens again");
    // The kernel chose the port, so it may choose another now.
    let address = rustix::net::getsockname(&server.listener).expect("it listens");
    let address = SocketAddr::try_from(address).expect("an internet address");
    let mut stream = TcpStream::connect(address).expect("it listens");
    echo(&mut stream, b"after");
    drop(stream);
    let (_, figures) = server.stop();
    assert!((1..200).contains(&figures.accept_pauses), "{figures:?}");
    assert!(figures.turns < 200, "{figures:?}");
}

/// Without work there are no turns. Method: count the turns of 500 ms with 50 idle connections.
#[test]
fn idle_loop_sleeps() {
    let server = Server::start(Manner::Echo, Shape::default());
    let mut clients: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        echo(client, b"hello");
    }
    std::thread::sleep(Duration::from_millis(500));
    let (_, figures) = server.stop();
    assert!(figures.turns < 50 * 8, "{figures:?}");
    assert!(figures.enters < 50 * 10, "{figures:?}");
    drop(clients);
}

/// U2: a completion of an earlier use of a slot, of a free slot, or of nothing is counted and changes nothing.
#[test]
fn stale_completions_are_dropped() {
    let (setup, address, _control) = setup(&Shape::default());
    let mut core = TestCore::new(Manner::Echo);
    let mut driver = Driver::new(setup, &mut core, Shape::default().options).expect("a ring");
    let mut stream = TcpStream::connect(address).expect("listening");
    stream.write_all(b"x").expect("sent");
    while driver.core.sends == 0 {
        driver.turn().expect("the ring works");
    }
    let live = driver.slots.current(0).expect("the first connection");
    let old = ConnectionKey { generation: live.generation.wrapping_sub(1), ..live };
    let free = ConnectionKey { slot: 77, generation: 1 };
    let mut expected = 0;
    for connection in [old, free] {
        for operation in [Operation::Poll, Operation::Send, Operation::Close, Operation::CancelPoll] {
            for result in [0, 5, -libc::ECONNRESET] {
                let token = token::of_connection(operation, connection);
                driver.complete(0, Completion::new(token, result, 0));
                expected += 1;
            }
        }
    }
    driver.complete(0, Completion::new(u64::MAX, 0, 0));
    driver.complete(0, Completion::new(token::of_ring(Operation::Accept, 31), 3, 0));
    assert_eq!(driver.figures.stale, expected + 2);
    assert!(driver.slots.is_current(live) && driver.core.peers.len() == 1);
    driver.end_all().expect("the ring works");
    assert!(driver.core.peers.is_empty());
    assert_eq!(driver.rings[0].queue.in_flight(), 0);
}

/// U11: the kernel may end the poll of the mailbox at any completion; the poll is then rearmed, so that no wake is
/// lost.
#[test]
fn an_ended_poll_of_the_mailbox_is_armed_again() {
    let (setup, _address, _control) = setup(&Shape::default());
    let mut core = TestCore::new(Manner::Echo);
    let mut driver = Driver::new(setup, &mut core, Shape::default().options).expect("a ring");
    let before = (driver.figures.polls_armed_again, driver.rings[0].queue.in_flight());
    let mail = token::of_ring(Operation::Mail, 0);
    driver.complete(0, Completion::new(mail, 1, MORE));
    assert_eq!((driver.figures.polls_armed_again, driver.rings[0].queue.in_flight()), before, "it goes on");
    driver.complete(0, Completion::new(mail, 1, 0));
    assert_eq!((driver.figures.polls_armed_again, driver.rings[0].queue.in_flight()), (before.0 + 1, before.1 + 1));
    driver.end_all().expect("the ring works");
    // The first poll has ended only according to this test, and both polls have the same token: one is cancelled.
    assert_eq!(driver.rings[0].queue.in_flight(), 1);
}

/// Flag of a completion whose operation continues (`IORING_CQE_F_MORE`).
const MORE: u32 = 1 << 1;

/// The probe passes in the environment where the tests run.
#[test]
fn probe_serves_a_connection() {
    probe().expect("the kernel of the test machine has io_uring");
}
