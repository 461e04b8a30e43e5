//! More connections than the limit on open files: one process holds them in the tables of several rings.
//!
//! The clients are separate processes (this test again, as `client`), each below the same limit and with its own source
//! address in 127.0.0.0/8, as one address does not have enough ports.
//!
//! Also the probe's report when rings are forbidden.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relay::connection::ConnectionKey;
use relay::driver::clock::Clock;
use relay::driver::control::Control;
use relay::driver::host::NoHost;
use relay::driver::listener::{self, BoundListener};
use relay::driver::mailbox::Mailbox;
use relay::driver::{Core, ShardSetup, uring};
use relay::moment::Moment;
use relay::shard::{Flush, Input, Listener, Mail, Output};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Echoes, and keeps no state for an idle connection: the cost of a connection is the driver's.
#[derive(Default)]
struct Echo {
    owed: VecDeque<(ConnectionKey, Box<[u8]>)>,
    lent: HashMap<u32, Box<[u8]>>,
    closes: VecDeque<ConnectionKey>,
    open: Arc<AtomicU64>,
}

impl Core for Echo {
    fn handle_input(&mut self, _now: Moment, input: Input<'_>) {
        match input {
            Input::Accepted { refuse, .. } => {
                assert!(!refuse, "slots are plenty");
                self.open.fetch_add(1, Ordering::Relaxed);
            }
            Input::Received { connection, bytes } => self.owed.push_back((connection, (&*bytes).into())),
            Input::Sent { connection, bytes } => {
                let lent = self.lent.remove(&connection.slot).expect("a send is under way");
                assert_eq!(bytes, lent.len(), "tiny sends are whole");
            }
            Input::ReadEnded { connection } => self.closes.push_back(connection),
            Input::Closed { .. } => {
                self.open.fetch_sub(1, Ordering::Relaxed);
            }
            Input::Mail { .. } | Input::Directory(_) | Input::CaughtUp | Input::Timeout | Input::Drain => {}
        }
    }
    fn poll_output(&mut self) -> Option<Output> {
        self.closes.pop_front().map(|connection| Output::Close { connection, reset: false })
    }
    fn poll_flush(&mut self) -> Option<Flush<'_>> {
        let (connection, bytes) = self.owed.pop_front()?;
        assert!(self.lent.insert(connection.slot, bytes).is_none(), "clients wait for their echo");
        Some(Flush { connection, bytes: &self.lent[&connection.slot] })
    }
    fn lent(&self, connection: ConnectionKey) -> &[u8] {
        self.lent.get(&connection.slot).map_or(&[], |bytes| bytes)
    }
    fn poll_timeout(&self) -> Option<u64> {
        None
    }
    fn is_drained(&self) -> bool {
        true
    }
}

/// One client process.
struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Client {
    fn start(server: SocketAddr, source: Ipv4Addr, connections: u64) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("a test has a file"))
            .args(["--exact", "rings::client", "--ignored", "--nocapture"])
            .env("CLIENT_SERVER", server.to_string())
            .env("CLIENT_SOURCE", source.to_string())
            .env("CLIENT_CONNECTIONS", connections.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, input, output }
    }

    /// Waits until the process prints this.
    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert!(self.output.read_line(&mut line).expect("text") > 0, "the client ended before {word:?}");
        }
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.input, "{word}").expect("a pipe");
    }
}

/// Goal: 25,000 connections, each served, in a process that may open 20,000 files. Where the limit is lower, a quarter
/// more than the limit. Then all end, and the slots are free again.
#[test]
fn one_process_holds_more_connections_than_files() {
    let limit = getrlimit(Resource::Nofile);
    let files = limit.current.unwrap_or(FILES_MAX).min(FILES_MAX);
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), ..limit }).expect("lower is allowed");
    let connections = files + files / 4;
    let clients = connections.div_ceil(files - files / 4);

    let bound = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).expect("a free port");
    let mailboxes: Arc<[Mailbox<Mail>]> = Arc::from([Mailbox::new(1).expect("an eventfd")]);
    let control = Arc::new(Control::new(Arc::clone(&mailboxes)));
    let open = Arc::new(AtomicU64::new(0));
    let sockets = bound.sockets.into_iter();
    let setup = ShardSetup {
        index: 0,
        listeners: sockets.map(|socket| BoundListener { kind: Listener::Public, socket }).collect(),
        mailboxes,
        control: Arc::clone(&control),
        clock: Clock::start(),
        slots: u32::try_from(connections + 64).expect("small"),
        refusal_slots: 16,
        zero_copy_bytes_min: None,
        host: Box::new(NoHost),
    };
    let mut core = Echo { open: Arc::clone(&open), ..Echo::default() };
    let server = std::thread::spawn(move || {
        uring::run_with(setup, &mut core, uring::Options::default()).expect("the loop runs")
    });
    let mut warm = connect(Ipv4Addr::LOCALHOST, bound.address);
    exchange(&mut warm, 0);
    let resident_before = resident_bytes();

    // Every run uses other addresses, so that none waits for ports that the last one used.
    let run = 1 + u8::try_from(std::process::id() % 250).expect("below 250");
    let mut processes: Vec<Client> = (0..clients)
        .map(|number| {
            let source = Ipv4Addr::new(127, 0, run, 1 + u8::try_from(number).expect("few"));
            let share = connections / clients + u64::from(number < connections % clients);
            Client::start(bound.address, source, share)
        })
        .collect();
    processes.iter_mut().for_each(|client| client.expect("connected"));
    assert_eq!(open.load(Ordering::Relaxed), connections + 1);
    let resident = resident_bytes().saturating_sub(resident_before);
    processes.iter_mut().for_each(|client| client.tell("exchange"));
    processes.iter_mut().for_each(|client| client.expect("exchanged"));
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("proc").count();
    assert!(descriptors < 64, "{descriptors} descriptors of the process itself");
    for mut client in processes {
        drop(client.input);
        assert!(client.process.wait().expect("a child").success());
    }
    exchange(&mut warm, 1);
    drop(warm);
    control.stop();
    let figures = server.join().expect("the loop kept its invariants");
    assert!(figures.rings >= 2, "{figures:?}");
    println!(
        "{connections} connections with a limit of {files} files on {} rings; {} bytes of user memory each; {figures:?}",
        figures.rings,
        resident / connections
    );
}

/// Not a separate test: the client process.
#[test]
#[ignore = "started by another test as its child"]
fn client() {
    let Ok(server) = std::env::var("CLIENT_SERVER") else {
        return;
    };
    let server: SocketAddr = server.parse().expect("an address");
    let source: Ipv4Addr = std::env::var("CLIENT_SOURCE").expect("set").parse().expect("an address");
    let connections: u64 = std::env::var("CLIENT_CONNECTIONS").expect("set").parse().expect("a number");
    let mut streams: Vec<TcpStream> = Vec::new();
    for number in 0..connections {
        let mut stream = connect(source, server);
        exchange(&mut stream, number);
        streams.push(stream);
    }
    println!("connected");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a pipe");
    for (number, stream) in (0..).zip(&mut streams) {
        stream.write_all(&u64::to_be_bytes(number)).expect("open");
    }
    for (number, stream) in (0_u64..).zip(&mut streams) {
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).expect("echoed");
        assert_eq!(answer, number.to_be_bytes());
    }
    println!("exchanged");
    std::io::stdin().read_line(&mut line).expect("a pipe");
}

/// U14: under a filter that answers EPERM, as those of Docker and containerd do, the probe reports cause and remedy in
/// one line. The filter is applied to a separate process.
#[test]
fn forbidden_io_uring_is_named() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/forbid_io_uring.py");
    let probe = Command::new("python3")
        .arg(script)
        .arg(std::env::current_exe().expect("a test has a file"))
        .args(["--exact", "rings::probe", "--ignored", "--nocapture"])
        .output()
        .expect("python3 starts");
    let said = String::from_utf8_lossy(&probe.stdout);
    let line = said.lines().find(|line| line.contains("probe: ")).unwrap_or_else(|| panic!("{probe:?}"));
    for part in ["seccomp", "EPERM", "io_uring_setup", "--io epoll"] {
        assert!(line.contains(part), "{part:?} is missing in {line:?}");
    }
}

/// Not a separate test: the process whose io_uring is forbidden.
#[test]
#[ignore = "started by another test as its child"]
fn probe() {
    println!("probe: {:?}", uring::probe());
}

fn connect(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor");
    rustix::net::bind(&socket, &SocketAddr::from((source, 0))).expect("a port");
    rustix::net::connect(&socket, &server).expect("listening");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("socket");
    // Ends by RST, which leaves no port in TIME_WAIT.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("socket");
    stream
}

fn exchange(stream: &mut TcpStream, number: u64) {
    stream.write_all(&number.to_be_bytes()).expect("open");
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).expect("echoed");
    assert_eq!(answer, number.to_be_bytes());
}

/// Anonymous memory of this process that is in RAM.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a field of proc");
    let kibibytes: u64 = line.split_whitespace().nth(1).expect("a figure").parse().expect("a number");
    kibibytes * 1024
}

const FILES_MAX: u64 = 20_000;
