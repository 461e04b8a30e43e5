//! The sending process of `floor`, with as little code as possible between the kernel and the clients. It answers
//! handshakes one by one; then it only sends the same bytes to every socket on a schedule.

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{SendFlags, sockopt};
use rustix::thread::{ClockId, CpuSet, sched_setaffinity};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use crate::clock::{SECOND_NS, now_ns, thread_cpu_ns};
use crate::process;
use crate::schedule::Schedule;
use crate::sys::SendRing;
use crate::wire::event::EVENT;
use crate::wire::stamp::Stamp;

/// First line to the sender.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Setup {
    pub(crate) core: Option<usize>,
    pub(crate) connections: u64,
    pub(crate) channel: String,
    pub(crate) payload_bytes: usize,
}

/// Every further line.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Go {
    pub(crate) mode: Mode,
    pub(crate) run: u32,
    pub(crate) start_ns: u64,
    /// 0 means without a pause until `end_ns`.
    pub(crate) interval_ns: f64,
    pub(crate) end_ns: u64,
    pub(crate) ticks: u64,
    pub(crate) messages_per_tick: u32,
}

/// How to send.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// One send(2) for each socket.
    Send,
    /// SENDs on an io_uring, 128 in one system call.
    Uring,
}

/// A report of the sender.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SenderReport {
    Listening { port: u16 },
    Sent(Cost),
    Failed { message: String },
}

/// The cost of a round.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Cost {
    /// CPU of the sending thread, user and kernel mode together.
    pub(crate) cpu_ns: u64,
    pub(crate) user_ns: u64,
    pub(crate) system_ns: u64,
    pub(crate) sends: u64,
    pub(crate) failed: u64,
    /// Events in those sends.
    pub(crate) deliveries: u64,
}

impl Cost {
    /// CPU of one send.
    pub(crate) fn per_send_ns(self) -> f64 {
        self.cpu_ns as f64 / self.sends.max(1) as f64
    }

    /// CPU of one event at one subscriber.
    pub(crate) fn per_delivery_ns(self) -> f64 {
        self.cpu_ns as f64 / self.deliveries.max(1) as f64
    }
}

/// Runs the sender until its coordinator ends.
pub(crate) fn run() -> io::Result<()> {
    process::end_with_parent();
    let result = serve();
    if let Err(error) = &result {
        write_report(&SenderReport::Failed { message: error.to_string() })?;
    }
    result
}

fn serve() -> io::Result<()> {
    let mut lines = io::stdin().lock().lines();
    let Some(line) = lines.next() else { return Ok(()) };
    let setup: Setup = serde_json::from_str(&line?)?;
    if let Some(core) = setup.core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)
            .map_err(|error| io::Error::other(format!("cannot run on core {core}: {error}")))?;
    }
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // If the coordinator is killed meanwhile, this process must not wait forever.
    sockopt::set_socket_timeout(&listener, sockopt::Timeout::Recv, Some(TIMEOUT))?;
    write_report(&SenderReport::Listening { port: listener.local_addr()?.port() })?;
    let mut sockets = Vec::new();
    for _ in 0..setup.connections {
        let (stream, _) = listener.accept()?;
        sockets.push(welcome(stream, &setup.channel)?);
    }
    let mut sender = Sender { sockets, setup, sequence: 0, ring: None };
    for line in lines {
        let go: Go = serde_json::from_str(&line?)?;
        match sender.round(&go) {
            Ok(cost) => write_report(&SenderReport::Sent(cost))?,
            Err(error) => write_report(&SenderReport::Failed { message: error.to_string() })?,
        }
    }
    Ok(())
}

/// Upgrade, greeting and confirmed subscription, with nothing checked.
fn welcome(mut stream: TcpStream, channel: &str) -> io::Result<OwnedFd> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 2048];
    let mut length = 0;
    while !buffer[..length].ends_with(b"\r\n\r\n") {
        let read = read_some(&mut stream, &mut buffer[length..])?;
        if read == 0 {
            return Err(io::Error::other("a client disconnected during its handshake"));
        }
        length += read;
    }
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_vec();
    frame(
        r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#,
        &mut answer,
    );
    stream.write_all(&answer)?;
    if read_some(&mut stream, &mut buffer)? == 0 {
        return Err(io::Error::other("a client disconnected during its subscription"));
    }
    answer.clear();
    let text =
        format!("{{\"event\":\"pusher_internal:subscription_succeeded\",\"channel\":\"{channel}\",\"data\":\"{{}}\"}}");
    frame(&text, &mut answer);
    stream.write_all(&answer)?;
    Ok(stream.into())
}

/// A read with a timeout is not restarted by the kernel after the process was stopped.
fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Appends an unmasked text frame.
fn frame(text: &str, out: &mut Vec<u8>) {
    out.push(0x81);
    match u8::try_from(text.len()) {
        Ok(length @ 0..=125) => out.push(length),
        _ => match u16::try_from(text.len()) {
            Ok(length) => {
                out.push(126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                out.push(127);
                out.extend_from_slice(&(text.len() as u64).to_be_bytes());
            }
        },
    }
    out.extend_from_slice(text.as_bytes());
}

struct Sender {
    sockets: Vec<OwnedFd>,
    setup: Setup,
    sequence: u32,
    ring: Option<SendRing>,
}

impl Sender {
    fn round(&mut self, go: &Go) -> io::Result<Cost> {
        if go.mode == Mode::Uring && self.ring.is_none() {
            self.ring = Some(SendRing::new(&self.sockets)?);
        }
        let is_closed_loop = go.interval_ns <= 0.0;
        let mut schedule = Schedule::new(go.start_ns, go.interval_ns, if is_closed_loop { u64::MAX } else { go.ticks });
        let mut cost = Cost::default();
        let mut bytes = Vec::new();
        sleep_until(go.start_ns);
        let before = process::thread_cpu("/proc/thread-self").unwrap_or_default();
        let begin = thread_cpu_ns();
        while let Some(due_ns) = schedule.next_ns() {
            if is_closed_loop && now_ns() >= go.end_ns {
                break;
            }
            schedule.advance();
            sleep_until(due_ns);
            let intended_ns = if is_closed_loop { now_ns() } else { due_ns };
            bytes.clear();
            for _ in 0..go.messages_per_tick {
                self.event(go.run, intended_ns, &mut bytes);
            }
            cost.failed += match self.ring.as_mut().filter(|_| go.mode == Mode::Uring) {
                Some(ring) => ring.send_to_all(&bytes)?,
                None => self.send_to_all(&bytes),
            };
            cost.sends += self.sockets.len() as u64;
        }
        cost.cpu_ns = thread_cpu_ns() - begin;
        let split = process::thread_cpu("/proc/thread-self").unwrap_or_default().since(before);
        (cost.user_ns, cost.system_ns) = (split.user_ns, split.system_ns);
        cost.deliveries = cost.sends * u64::from(go.messages_per_tick);
        Ok(cost)
    }

    /// The same frame that a server sends.
    fn event(&mut self, run: u32, intended_ns: u64, out: &mut Vec<u8>) {
        let stamp = Stamp { run, publisher: 0, sequence: self.sequence, intended_ns, channel: 0 };
        self.sequence = self.sequence.wrapping_add(1);
        let mut text =
            format!("{{\"event\":\"{EVENT}\",\"channel\":\"{}\",\"data\":\"", self.setup.channel).into_bytes();
        stamp.write(self.setup.payload_bytes, &mut text);
        text.extend_from_slice(b"\"}");
        frame(std::str::from_utf8(&text).unwrap_or_default(), out);
    }

    fn send_to_all(&self, bytes: &[u8]) -> u64 {
        let mut failed = 0;
        for socket in &self.sockets {
            let sent = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL);
            failed += u64::from(sent != Ok(bytes.len()));
        }
        failed
    }
}

fn sleep_until(moment_ns: u64) {
    while now_ns() < moment_ns {
        let until =
            Timespec { tv_sec: (moment_ns / SECOND_NS).cast_signed(), tv_nsec: (moment_ns % SECOND_NS).cast_signed() };
        // After an early wake by a signal, it sleeps again.
        let _ = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &until);
    }
}

fn write_report(report: &SenderReport) -> io::Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, report)?;
    output.write_all(b"\n")?;
    output.flush()
}

const TIMEOUT: Duration = Duration::from_secs(10);
