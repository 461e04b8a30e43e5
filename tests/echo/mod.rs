//! A core that echoes, the server around it, and its clients.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use relay::connection::ConnectionKey;
use relay::driver::clock::Clock;
use relay::driver::control::Control;
use relay::driver::host::NoHost;
use relay::driver::listener::{self, BoundListener};
use relay::driver::mailbox::Mailbox;
use relay::driver::{Core, DriverKind, ShardSetup};
use relay::label::Label;
use relay::limits::SEND_BYTES_MAX;
use relay::moment::Moment;
use relay::shard::{Flush, Input, Listener, Mail, Output, ShardIndex};

/// The configuration of a server.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) shards: ShardIndex,
    pub(crate) slots: u32,
    pub(crate) refusal_slots: u32,
    pub(crate) send_buffer_bytes: usize,
    /// Pause a connection that has more bytes than this pending, resume it when it has none.
    pub(crate) pause_above: Option<usize>,
    /// Ask for a timeout this often.
    pub(crate) ticks_ms: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 1,
            slots: 512,
            refusal_slots: 8,
            send_buffer_bytes: 128 * 1024,
            pause_above: None,
            ticks_ms: None,
        }
    }
}

/// Counts over all cores of a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) open: u64,
    pub(crate) refused: u64,
    pub(crate) received_bytes: u64,
    pub(crate) short_sends: u64,
    pub(crate) pauses: u64,
    pub(crate) resumes: u64,
    pub(crate) queued_most: usize,
    pub(crate) ticks: u64,
    pub(crate) drains: u64,
}

#[derive(Default)]
pub(crate) struct Shared {
    counts: Mutex<Counts>,
    changed: Condvar,
}

/// A running server; stopped and joined when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) control: Arc<Control>,
    shared: Arc<Shared>,
    loops: Vec<Loop>,
}

/// The thread of a loop.
struct Loop {
    thread: JoinHandle<()>,
    /// Disconnected when the loop has returned.
    ended: Receiver<()>,
}

impl Loop {
    /// Waits until the loop has returned; an error if it has not within 20 s, as after a lost wake, or has panicked.
    fn join(self) -> Result<(), &'static str> {
        match self.ended.recv_timeout(Duration::from_secs(20)) {
            Err(RecvTimeoutError::Timeout) => Err("a loop did not return within 20 s"),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                self.thread.join().map_err(|_| "a core found a breach of contract")
            }
        }
    }
}

impl Server {
    /// Shards of echo cores.
    pub(crate) fn start(kind: DriverKind, options: Options) -> Self {
        let shared = Arc::new(Shared::default());
        let counts = Arc::clone(&shared);
        Self::start_cores(kind, options, shared, move |_| Echo::new(options, Arc::clone(&counts)))
    }

    /// Shards of any cores, created on their threads; mailboxes hold four mails.
    pub(crate) fn start_cores<C: Core>(
        kind: DriverKind,
        options: Options,
        shared: Arc<Shared>,
        make: impl Fn(ShardIndex) -> C + Clone + Send + 'static,
    ) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound =
            listener::bind_with(loopback, usize::from(options.shards), options.send_buffer_bytes).expect("a free port");
        let mailboxes: Arc<[Mailbox<Mail>]> = (0..options.shards).map(|_| Mailbox::new(4).expect("eventfd")).collect();
        let control = Arc::new(Control::new(Arc::clone(&mailboxes)));
        let clock = Clock::start();
        let loops = (0..).zip(bound.sockets).map(|(index, socket)| {
            let setup = ShardSetup {
                index,
                listeners: vec![BoundListener { kind: Listener::Public, socket }],
                mailboxes: Arc::clone(&mailboxes),
                control: Arc::clone(&control),
                clock,
                slots: options.slots,
                refusal_slots: options.refusal_slots,
                zero_copy_bytes_min: None,
                host: Box::new(NoHost),
            };
            let make = make.clone();
            let (ends, ended) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                let _ends: Sender<()> = ends;
                let mut core = make(index);
                relay::driver::run(kind, setup, &mut core).expect("the loop runs");
            });
            Loop { thread, ended }
        });
        let loops = loops.collect();
        Self { address: bound.address, control, shared, loops }
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.shared.counts.lock().expect("no core panicked")
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.counts().accepted
    }

    /// Waits until the counts satisfy the condition; panics after 20 s.
    pub(crate) fn wait_for(&self, what: &str, reached: impl Fn(&Counts) -> bool) {
        let counts = self.shared.counts.lock().expect("no core panicked");
        let (counts, wait) = self
            .shared
            .changed
            .wait_timeout_while(counts, Duration::from_secs(20), |counts| !reached(counts))
            .expect("no core panicked");
        assert!(!wait.timed_out(), "waited for: {what}; {counts:?}");
    }

    /// Waits until all loops have returned by themselves.
    pub(crate) fn join(mut self) {
        for each in self.loops.drain(..) {
            each.join().expect("no breach of contract, no lost wake");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control.stop();
        for each in self.loops.drain(..) {
            let ended = each.join();
            assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
        }
    }
}

/// The core.
struct Echo {
    options: Options,
    shared: Arc<Shared>,
    connections: HashMap<u32, Connection>,
    generations: HashMap<u32, u32>,
    outputs: VecDeque<Output>,
    dirty: VecDeque<ConnectionKey>,
    tick_at_ms: Option<u64>,
    draining: bool,
    /// The connection that `!hold` paused until `!release`.
    held: Option<ConnectionKey>,
}

struct Connection {
    key: ConnectionKey,
    queue: VecDeque<Box<[u8]>>,
    queued_bytes: usize,
    /// How many bytes of the front of the queue were sent.
    offset: usize,
    lent: usize,
    paused: bool,
    /// The requested close, shutdown or reset, performed once the queue is empty.
    ending: Option<Output>,
    silent: bool,
}

impl Echo {
    fn new(options: Options, shared: Arc<Shared>) -> Self {
        Self {
            options,
            shared,
            connections: HashMap::new(),
            generations: HashMap::new(),
            outputs: VecDeque::new(),
            dirty: VecDeque::new(),
            tick_at_ms: None,
            draining: false,
            held: None,
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.shared.counts.lock().expect("no core panicked"));
        self.shared.changed.notify_all();
    }

    fn open(&mut self, key: ConnectionKey) -> &mut Connection {
        let connection = self.connections.get_mut(&key.slot).expect("only open connections get input");
        assert_eq!(connection.key, key, "input for an old generation");
        connection
    }

    fn accept(&mut self, key: ConnectionKey, refuse: bool) {
        assert!(key.slot < self.options.slots);
        assert_ne!(self.generations.insert(key.slot, key.generation), Some(key.generation), "a new generation");
        let connection = Connection {
            key,
            queue: VecDeque::new(),
            queued_bytes: 0,
            offset: 0,
            lent: 0,
            paused: false,
            ending: None,
            silent: refuse,
        };
        assert!(self.connections.insert(key.slot, connection).is_none(), "the slot was free");
        if refuse {
            // Refused connections stay until the peer closes them, half closed, so that tests can hold slots.
            self.answer(key, b"refused", Some(Output::ShutdownWrite { connection: key }));
        }
        self.count(|counts| {
            counts.accepted += 1;
            counts.open += 1;
            counts.refused += u64::from(refuse);
        });
    }

    fn answer(&mut self, key: ConnectionKey, bytes: &[u8], ending: Option<Output>) {
        let pause_above = self.options.pause_above.unwrap_or(usize::MAX);
        let connection = self.open(key);
        for piece in bytes.chunks(SEND_BYTES_MAX) {
            connection.queue.push_back(piece.into());
        }
        connection.queued_bytes += bytes.len();
        if ending.is_some() {
            connection.ending = ending;
            connection.silent = true;
        }
        let queued = connection.queued_bytes;
        let pauses = queued > pause_above && !connection.paused;
        if pauses {
            connection.paused = true;
            self.outputs.push_back(Output::Pause { connection: key });
        }
        self.count(|counts| {
            counts.pauses += u64::from(pauses);
            counts.queued_most = counts.queued_most.max(queued);
        });
        self.dirty.push_back(key);
    }

    fn receive(&mut self, key: ConnectionKey, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        let silent = self.open(key).silent;
        match bytes {
            _ if silent => {}
            b"!close" => self.answer(key, b"bye", Some(Output::Close { connection: key, reset: false })),
            b"!hold" => {
                self.held = Some(key);
                self.outputs.push_back(Output::Pause { connection: key });
                self.answer(key, b"go", None);
            }
            b"!release" => {
                let held = self.held.take().expect("a connection is held");
                self.answer(held, b"bye", Some(Output::Close { connection: held, reset: false }));
            }
            b"!reset" => self.answer(key, b"", Some(Output::Close { connection: key, reset: true })),
            b"!shutdown" => self.answer(key, &long_answer(), Some(Output::ShutdownWrite { connection: key })),
            _ => self.answer(key, bytes, None),
        }
        self.count(|counts| counts.received_bytes += bytes.len() as u64);
    }

    fn sent(&mut self, key: ConnectionKey, bytes: usize) {
        let connection = self.open(key);
        assert!((1..=connection.lent).contains(&bytes), "{bytes} sent of {} lent", connection.lent);
        let short = bytes < connection.lent;
        connection.lent = 0;
        connection.offset += bytes;
        connection.queued_bytes -= bytes;
        if connection.offset == connection.queue[0].len() {
            connection.queue.pop_front();
            connection.offset = 0;
        }
        let resumes = connection.paused && connection.queue.is_empty();
        if resumes {
            connection.paused = false;
            self.outputs.push_back(Output::Resume { connection: key });
        }
        self.dirty.push_back(key);
        self.count(|counts| {
            counts.short_sends += u64::from(short);
            counts.resumes += u64::from(resumes);
        });
    }
}

impl Core for Echo {
    fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        match input {
            Input::Accepted { connection, peer, listener, refuse } => {
                assert!(peer.ip().is_loopback() && listener == Listener::Public);
                self.accept(connection, refuse);
            }
            Input::Received { connection, bytes } => self.receive(connection, bytes),
            Input::Sent { connection, bytes } => self.sent(connection, bytes),
            Input::ReadEnded { connection } => {
                let silent = self.open(connection).silent;
                if silent && self.open(connection).ending.is_none() {
                    self.outputs.push_back(Output::Close { connection, reset: false });
                } else {
                    self.answer(connection, b"", Some(Output::Close { connection, reset: false }));
                }
            }
            Input::Closed { connection } => {
                self.open(connection);
                self.connections.remove(&connection.slot);
                self.count(|counts| counts.open -= 1);
            }
            Input::CaughtUp => return,
            Input::Timeout => {
                assert!(self.tick_at_ms.is_none_or(|at| at <= now.monotonic_ms), "early");
                self.count(|counts| counts.ticks += 1);
            }
            Input::Drain => {
                self.draining = true;
                self.count(|counts| counts.drains += 1);
            }
            Input::Mail { .. } | Input::Directory(_) => panic!("nobody sends these here"),
        }
        self.tick_at_ms = match (self.options.ticks_ms, self.tick_at_ms) {
            (Some(_), Some(at)) if at > now.monotonic_ms => Some(at),
            (Some(ticks_ms), _) => Some(now.monotonic_ms + ticks_ms),
            (None, _) => None,
        };
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_flush(&mut self) -> Option<Flush<'_>> {
        while let Some(key) = self.dirty.pop_front() {
            let Some(connection) = self.connections.get_mut(&key.slot).filter(|connection| connection.key == key)
            else {
                continue;
            };
            if connection.lent > 0 {
                continue;
            }
            match connection.queue.front() {
                Some(front) => {
                    connection.lent = front.len() - connection.offset;
                    let connection = &self.connections[&key.slot];
                    return Some(Flush { connection: key, bytes: &connection.queue[0][connection.offset..] });
                }
                None => self.outputs.extend(connection.ending.take()),
            }
        }
        None
    }

    fn lent(&self, connection: ConnectionKey) -> &[u8] {
        let connection = &self.connections[&connection.slot];
        &connection.queue[0][connection.offset..][..connection.lent]
    }

    fn poll_timeout(&self) -> Option<u64> {
        self.options.ticks_ms.map(|_| self.tick_at_ms.unwrap_or(0))
    }

    fn is_drained(&self) -> bool {
        self.draining && self.connections.is_empty()
    }
}

/// The answer to `!shutdown`.
pub(crate) fn long_answer() -> Vec<u8> {
    (0..200_000_u32).map(|number| number.to_be_bytes()[3]).collect()
}

/// A client whose reads fail after 20 s instead of hanging a broken test.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("listening");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("socket");
    client.set_nodelay(true).expect("socket");
    client
}

/// A client whose receive buffer is as small as the kernel allows.
pub(crate) fn connect_with_small_buffers(address: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("descriptor");
    sockopt::set_socket_recv_buffer_size(&socket, 2_304).expect("socket");
    connect(&socket, &address).expect("listening");
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("socket");
    client
}

/// A server in a separate process, with a limit on descriptors.
pub(crate) struct Child {
    pub(crate) address: SocketAddr,
    process: std::process::Child,
}

impl Child {
    pub(crate) fn start(kind: DriverKind, descriptors: u64) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("a test has a file"))
            .args(["--exact", "driver::child_server", "--ignored", "--nocapture"])
            .env("CHILD_DRIVER", kind.label())
            .env("CHILD_DESCRIPTORS", descriptors.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let mut lines = output.lines().map(|line| line.expect("text"));
        let address = lines
            .find_map(|line| Some(line.split_once("listening on ")?.1.trim().parse().expect("an address")))
            .expect("the child says where it listens");
        Self { address, process }
    }

    /// The child's side: serves until its standard input ends.
    pub(crate) fn serve() {
        let Ok(descriptors) = std::env::var("CHILD_DESCRIPTORS") else {
            return;
        };
        let kind = match std::env::var("CHILD_DRIVER").as_deref() {
            Ok("epoll") => DriverKind::Epoll,
            Ok("io_uring") => DriverKind::Uring,
            other => panic!("no such driver: {other:?}"),
        };
        let limit = Some(descriptors.parse().expect("a number"));
        let limit = rustix::process::Rlimit { current: limit, maximum: limit };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("lower is allowed");
        let server = Server::start(kind, Options::default());
        println!("listening on {}", server.address);
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("a pipe");
    }

    /// Processor time that the child has used, in ms.
    pub(crate) fn cpu_ms(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("alive");
        let after_name = stat.rsplit_once(") ").expect("format of proc").1;
        let ticks = after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
        // USER_HZ is 100 on Linux.
        ticks.sum::<u64>() * 10
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Closes its standard input first, so that it ends by itself; kill is only for a child that does not.
        drop(self.process.stdin.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
