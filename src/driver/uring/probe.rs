//! Whether io_uring works here: tested not by version, but by serving one connection under the live limits and seccomp
//! profile.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::fd::AsFd;

use super::address::parse_address;
use super::ring::{Options, Ring};
use crate::driver::sys::{Buffers, Completion};

/// Serves one connection over loopback on a ring like those of the shards: direct accept, poll, receive, send, FIN,
/// cancel, close. Takes a few milliseconds.
///
/// # Errors
/// One line with cause and fix: io_uring is forbidden, too old, or lacks memory or descriptors here.
pub fn probe() -> Result<(), String> {
    let mut buffers = Buffers::new(1, BUFFER_BYTES);
    let ring = Ring::open(&options(), &buffers, 4).map_err(|refusal| refusal.to_string())?;
    round_trip(ring, &mut buffers).map_err(|failure| format!("io_uring does not work here: {failure}"))
}

/// Sends a few bytes by a zero-copy send and waits for its notice.
///
/// # Errors
/// One line with cause and fix: the kernel does not support it, or lacks lockable memory.
pub fn probe_zero_copy() -> Result<(), String> {
    let options = Options { zero_copy_bytes_min: Some(1), ..options() };
    let ring = Ring::open(&options, &Buffers::new(1, BUFFER_BYTES), 4).map_err(|refusal| refusal.to_string())?;
    zero_copy_round_trip(ring).map_err(|failure| format!("zero-copy sends are not available ({failure})"))
}

/// A ring like those of the shards, but small.
fn options() -> Options {
    Options { submissions: 16, completions: 64, files_max: 4, accepts: 1, ..Options::default() }
}

/// Creates a ring for every shard, of the shards' own size and all at once, and releases them: if the limit on locked
/// memory is too low for them, this is reported before anything is served (U5).
///
/// # Errors
/// Like [`probe`].
pub fn probe_rings(shards: u16) -> Result<(), String> {
    let (options, buffers) = (Options::default(), Buffers::new(1, BUFFER_BYTES));
    let open = || Ring::open(&options, &buffers, super::token::SLOTS_MAX);
    let rings: Result<Vec<Ring>, _> = (0..shards).map(|_| open()).collect();
    rings.map(drop).map_err(|refusal| refusal.to_string())
}

/// The operations of the round trip, as user data.
#[derive(Clone, Copy, Debug)]
enum Step {
    Accept,
    Poll,
    Receive,
    Send,
    Linger,
    Shutdown,
    Cancel,
    Close,
}

/// Connects a client and returns it with the direct descriptor that it was accepted into.
fn connect(ring: &mut Ring) -> Result<(TcpStream, u32), String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(network)?;
    let client = TcpStream::connect(listener.local_addr().map_err(network)?).map_err(network)?;
    client.set_read_timeout(Some(std::time::Duration::from_secs(2))).map_err(network)?;
    ring.queue.accept(listener.as_fd(), 0, Step::Accept as u64);
    let file = finish(ring, Step::Accept)?.result;
    Ok((client, u32::try_from(file).expect("not negative")))
}

fn network(error: std::io::Error) -> String {
    format!("TCP over 127.0.0.1 failed: {error}")
}

fn zero_copy_round_trip(mut ring: Ring) -> Result<(), String> {
    let (mut client, file) = connect(&mut ring)?;
    ring.queue.send_zero_copy(file, PONG, Step::Send as u64);
    let sent = finish(&mut ring, Step::Send)?;
    let mut echo = [0; PONG.len()];
    client.read_exact(&mut echo).map_err(network)?;
    if echo != PONG || usize::try_from(sent.result) != Ok(PONG.len()) {
        return Err("a zero-copy send delivered other bytes".to_owned());
    }
    // Its result has the highest bit set if the bytes were copied, so only the presence of the notice is checked.
    if !sent.has_more() || complete(&mut ring, Step::Send)?.notice().is_none() {
        return Err("a zero-copy send returned no notification".to_owned());
    }
    ring.queue.close(file, Step::Close as u64);
    finish(&mut ring, Step::Close).map(drop)
}

fn round_trip(mut ring: Ring, buffers: &mut Buffers) -> Result<(), String> {
    let (mut client, file) = connect(&mut ring)?;
    let peer = parse_address(&ring.queue.peer(0));
    if peer != Some(client.local_addr().map_err(network)?) {
        return Err(format!("accept returned a wrong peer {peer:?}"));
    }
    ring.queue.poll(file, Step::Poll as u64);
    client.write_all(PING).map_err(network)?;
    if !finish(&mut ring, Step::Poll)?.has_more() {
        return Err("a multishot poll ended at once".to_owned());
    }
    let buffer = ring.queue.receive(file, buffers, Step::Receive as u64).expect("the only receive");
    let received = finish(&mut ring, Step::Receive)?;
    let buffer = buffers.take(buffer, received);
    let length = usize::try_from(received.result).expect("not negative");
    if buffers.bytes(&buffer, length) != PING {
        return Err("a receive returned other bytes".to_owned());
    }
    buffers.give_back(buffer);
    ring.queue.send(file, PONG, Step::Send as u64);
    let sent = finish(&mut ring, Step::Send)?.result;
    let mut echo = [0; PONG.len()];
    client.read_exact(&mut echo).map_err(network)?;
    if echo != PONG || usize::try_from(sent) != Ok(PONG.len()) {
        return Err("a send delivered other bytes".to_owned());
    }
    // Supported since 6.7; before that a connection that is to be reset is closed in order instead.
    ring.queue.linger_none(file, Step::Linger as u64);
    complete(&mut ring, Step::Linger)?;
    ring.queue.shutdown_write(file, Step::Shutdown as u64);
    finish(&mut ring, Step::Shutdown)?;
    ring.queue.cancel(Step::Poll as u64, Step::Cancel as u64);
    finish(&mut ring, Step::Cancel)?;
    ring.queue.close(file, Step::Close as u64);
    finish(&mut ring, Step::Close)?;
    for _ in 0..WAITS_MAX {
        if ring.queue.in_flight() == 0 {
            return Ok(());
        }
        ring.queue.wait(Some(WAIT_MS));
    }
    Err("a cancelled poll did not end".to_owned())
}

/// Waits for an operation to complete with success. The poll may report more in between.
fn finish(ring: &mut Ring, step: Step) -> Result<Completion, String> {
    let completion = complete(ring, step)?;
    if completion.result < 0 {
        let error = std::io::Error::from_raw_os_error(-completion.result);
        return Err(format!("step {step:?} failed: {error}; Linux 6.1 or newer is needed, or --io epoll"));
    }
    Ok(completion)
}

fn complete(ring: &mut Ring, step: Step) -> Result<Completion, String> {
    for _ in 0..WAITS_MAX {
        while let Some(completion) = ring.queue.pop() {
            if completion.user_data == step as u64 {
                return Ok(completion);
            }
        }
        ring.queue.wait(Some(WAIT_MS));
        if let Some(failure) = ring.queue.take_failure() {
            return Err(format!("step {step:?} broke the ring: {failure}"));
        }
    }
    Err(format!("step {step:?} did not complete"))
}

/// Buffer space for the data that the client sends.
const BUFFER_BYTES: u32 = 64;
const PING: &[u8] = b"ping";
const PONG: &[u8] = b"pong";
/// 2 s in total.
const WAITS_MAX: usize = 20;
const WAIT_MS: u64 = 100;
