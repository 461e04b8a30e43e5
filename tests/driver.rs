//! Goal: both drivers keep their side of the contract in `relay::shard`. Method: real sockets and threads around a
//! small core that echoes, the same scenarios for each driver.
//!
//! The core checks the driver's side of the contract in `relay::shard` during the run: `Accepted` and `Closed` once per
//! key, nothing in between for a key that is not open, borrowed bytes neither lost nor duplicated. A violation panics
//! on the shard's thread and fails the test when that is joined.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::echo::{self, Options, Server, connect, connect_with_small_buffers};
use crate::mail;
use relay::driver::DriverKind;
use relay::label::Label;

/// Bytes whose every position is recognisable (a multiplicative hash of it), so that loss, duplication and disorder are
/// all detected.
fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

fn echo_once(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).expect("open");
    let mut answer = vec![0; bytes.len()];
    client.read_exact(&mut answer).expect("echoed");
    assert_eq!(answer, bytes);
}

/// Every one of 1,000 connections over two shards gets its own bytes back, three times.
fn echoes_on_a_thousand_connections(kind: DriverKind) {
    let server = Server::start(kind, Options { shards: 2, slots: 1_100, ..Options::default() });
    let mut clients: Vec<TcpStream> = (0..1_000).map(|_| connect(server.address)).collect();
    for round in 0..3 {
        for (number, client) in (0_u32..).zip(&mut clients) {
            client.write_all(&pattern(100, number * 3 + round)).expect("open");
        }
        for (number, client) in (0_u32..).zip(&mut clients) {
            let mut answer = [0; 100];
            client.read_exact(&mut answer).expect("echoed");
            assert_eq!(answer[..], pattern(100, number * 3 + round));
        }
    }
    assert_eq!(server.accepted(), 1_000);
    drop(clients);
    server.wait_for("all closed", |counts| counts.open == 0);
}

/// U10: 1 MiB comes back byte by byte through the smallest send buffer and a reader that reads 777 bytes at a time, so
/// that sends are short and block all the time.
fn short_sends_lose_nothing(kind: DriverKind) {
    let options = Options { send_buffer_bytes: 2_304, pause_above: Some(96 * 1024), ..Options::default() };
    let server = Server::start(kind, options);
    let bytes = pattern(1024 * 1024, 7);
    let mut reader = connect_with_small_buffers(server.address);
    let mut writer = reader.try_clone().expect("descriptor");
    std::thread::scope(|scope| {
        let sent = &bytes;
        scope.spawn(move || {
            writer.write_all(sent).expect("open");
            writer.shutdown(Shutdown::Write).expect("open");
        });
        let mut received = Vec::with_capacity(bytes.len());
        while Read::by_ref(&mut reader).take(777).read_to_end(&mut received).expect("open") > 0 {}
        assert!(received == bytes, "{} bytes of {}", received.len(), bytes.len());
    });
    let counts = server.counts();
    // A ring's send continues until all bytes are sent, so its sends are slow instead of short.
    assert!(counts.short_sends > 10 || kind == DriverKind::Uring, "{counts:?}");
    assert!(counts.pauses > 0 && counts.pauses == counts.resumes, "{counts:?}");
}

/// U17, R21: 200 clients that always have more to send are served equally through small socket buffers: no client gets
/// less than a quarter of another's share. Method: bytes echoed per client between two points in the middle of the run.
fn talkers_are_served_alike(kind: DriverKind) {
    const TALKERS: usize = 200;
    let options = Options { send_buffer_bytes: 4_608, pause_above: Some(32 * 1024), ..Options::default() };
    let server = Server::start(kind, options);
    let mut clients: Vec<TcpStream> = (0..TALKERS).map(|_| connect_with_small_buffers(server.address)).collect();
    for client in &clients {
        client.set_nonblocking(true).expect("socket");
    }
    // Twice the same, so that a piece of it is a slice wherever it begins.
    let bytes = pattern(1 << 16, 5).repeat(2);
    let (mut written, mut echoed) = ([0; TALKERS], [0; TALKERS]);
    let mut middle = None;
    let mut answer = [0; 16 * 1024];
    let started = Instant::now();
    while echoed.iter().sum::<usize>() < 16_000_000 {
        assert!(started.elapsed() < Duration::from_secs(120), "the server stands still at {echoed:?}");
        for (index, client) in clients.iter_mut().enumerate() {
            // Always more than fits into the server's buffers, and never so much that the client's are full.
            let room = 16 * 1024 - (written[index] - echoed[index]);
            let at = written[index] % (1 << 16);
            match client.write(&bytes[at..at + room]) {
                Ok(count) => written[index] += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            match client.read(&mut answer) {
                Ok(count) => {
                    let at = echoed[index] % (1 << 16);
                    assert!(count > 0 && answer[..count] == bytes[at..at + count], "client {index}");
                    echoed[index] += count;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        if middle.is_none() && echoed.iter().sum::<usize>() > 4_000_000 {
            middle = Some(echoed);
        }
    }
    let middle = middle.expect("it was passed");
    let gained = echoed.iter().zip(middle).map(|(now, before)| now - before);
    let (most, fewest) = (gained.clone().max().expect("some"), gained.min().expect("some"));
    println!("U17 on {}: {most} and {fewest} bytes", kind.label());
    assert!(most < 4 * fewest, "{most} bytes for one client, {fewest} for another");
}

/// A paused connection delivers only the bytes in flight; after `Resume` all waiting bytes arrive.
fn pause_holds_bytes_back(kind: DriverKind) {
    const PAUSE_ABOVE: usize = 128 * 1024;
    let server = Server::start(kind, Options { pause_above: Some(PAUSE_ABOVE), ..Options::default() });
    let client = connect(server.address);
    client.set_nonblocking(true).expect("socket");
    let bytes = pattern(64 * 1024 * 1024, 11);
    // Nothing is read back, so the core pauses, the kernel's buffers fill, and our writes come to a halt.
    let mut sent = 0;
    let mut halted_at = Instant::now();
    while halted_at.elapsed() < Duration::from_millis(300) {
        match (&client).write(&bytes[sent..]) {
            Ok(count) => {
                sent += count;
                halted_at = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        assert!(sent < bytes.len(), "64 MiB went into a paused connection");
    }
    let counts = server.counts();
    assert_eq!(counts.pauses, counts.resumes + 1, "it is paused now, maybe not for the first time");
    assert!(counts.queued_most <= PAUSE_ABOVE + 2 * 64 * 1024, "{counts:?}");
    client.set_nonblocking(false).expect("socket");
    let mut answer = vec![0; sent];
    (&client).read_exact(&mut answer).expect("echoed");
    assert!(answer == bytes[..sent]);
}

/// U13, R4 in small: 20 rounds of 200 connections that are all reset with bytes in flight leave no slot in use, and a
/// slot table of 256 with nothing reserved still serves.
fn reset_storms_free_all_slots(kind: DriverKind) {
    let server = Server::start(kind, Options { slots: 256, refusal_slots: 16, ..Options::default() });
    for round in 0..20 {
        let clients: Vec<TcpStream> = (0..200).map(|_| connect(server.address)).collect();
        for client in &clients {
            // Left unread or unsent on purpose: a reset must find something to interrupt.
            let _ = (&mut &*client).write(&pattern(20_000, round));
            rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO)).expect("socket");
        }
        server.wait_for("all accepted", |counts| counts.accepted == u64::from(round + 1) * 200);
        drop(clients);
        server.wait_for("all closed", |counts| counts.open == 0);
    }
    assert_eq!(server.counts().refused, 0);
    echo_once(&mut connect(server.address), b"still there");
}

/// P-CLOSE-2, T15: the last slots accept connections in order to refuse them; beyond them peers wait in the backlog,
/// and the first slot that becomes free serves the next.
fn full_table_refuses_then_recovers(kind: DriverKind) {
    let server = Server::start(kind, Options { slots: 20, refusal_slots: 4, ..Options::default() });
    let mut served: Vec<TcpStream> = (0..16).map(|_| connect(server.address)).collect();
    for client in &mut served {
        echo_once(client, b"in");
    }
    for _ in 0..8 {
        let mut answer = String::new();
        connect(server.address).read_to_string(&mut answer).expect("answered");
        assert_eq!(answer, "refused");
    }
    // Four peers that hold their refusal slots by not closing, and a fifth that gets none.
    let holders: Vec<TcpStream> = (0..4).map(|_| connect(server.address)).collect();
    for holder in &holders {
        let mut answer = [0; 7];
        (&mut &*holder).read_exact(&mut answer).expect("answered");
    }
    drop(served.drain(..8));
    server.wait_for("half closed", |counts| counts.open <= 12);
    let mut next = connect(server.address);
    echo_once(&mut next, b"served again");
}

/// The peer's FIN is reported after all its bytes, the core answers all of them, and the close comes last.
fn fin_comes_after_the_bytes(kind: DriverKind) {
    let server = Server::start(kind, Options::default());
    for length in [0, 1, 100_000, 300_000] {
        let mut client = connect(server.address);
        let bytes = pattern(length, 5);
        let mut writer = client.try_clone().expect("descriptor");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&bytes).expect("open");
                writer.shutdown(Shutdown::Write).expect("open");
            });
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("orderly end");
            assert!(answer == bytes, "{} of {length}", answer.len());
        });
    }
    server.wait_for("all closed", |counts| counts.open == 0);
}

/// P-HTTP-16: `ShutdownWrite` ends our direction after the bytes before it, and reading continues.
fn shutdown_write_goes_on_reading(kind: DriverKind) {
    let server = Server::start(kind, Options { send_buffer_bytes: 4_096, ..Options::default() });
    let mut client = connect_with_small_buffers(server.address);
    // The kernel cannot accept 200,000 bytes of answer at once, so the FIN has to wait for them.
    client.write_all(b"!shutdown").expect("open");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("orderly end");
    assert!(answer == echo::long_answer(), "{} bytes", answer.len());
    let before = server.counts().received_bytes;
    client.write_all(&pattern(50_000, 3)).expect("still read");
    server.wait_for("read on", |counts| counts.received_bytes == before + 50_000);
    drop(client);
    server.wait_for("closed", |counts| counts.open == 0);
}

/// `Close` without `reset` still delivers the bytes that the kernel holds.
fn close_delivers_what_the_kernel_holds(kind: DriverKind) {
    let server = Server::start(kind, Options::default());
    let mut client = connect(server.address);
    client.write_all(b"!close").expect("open");
    server.wait_for("closed", |counts| counts.accepted == 1 && counts.open == 0);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("orderly end");
    assert_eq!(answer, b"bye");
}

/// The same with bytes that came while the connection was paused and were never read: a close over them would reset it.
fn close_over_unread_bytes_is_orderly(kind: DriverKind) {
    let server = Server::start(kind, Options::default());
    let mut client = connect(server.address);
    client.write_all(b"!hold").expect("open");
    let mut answer = [0; 2];
    client.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"go");
    client.write_all(&pattern(100_000, 9)).expect("open");
    connect(server.address).write_all(b"!release").expect("open");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("orderly end");
    assert_eq!(answer, b"bye");
}

/// `Close` with `reset` is an RST at the peer.
fn reset_is_a_reset(kind: DriverKind) {
    let server = Server::start(kind, Options::default());
    let mut client = connect(server.address);
    client.write_all(b"!reset").expect("open");
    let error = client.read_exact(&mut [0; 8]).expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    server.wait_for("closed", |counts| counts.open == 0);
}

/// A timeout is fed on time and never early on an otherwise idle loop; the driver feeds no directory that was not
/// published.
fn timeouts_are_fed(kind: DriverKind) {
    let server = Server::start(kind, Options { ticks_ms: Some(30), ..Options::default() });
    let started = Instant::now();
    server.wait_for("ten ticks", |counts| counts.ticks >= 10);
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(9 * 30 - 30), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

/// P-CLOSE-1: drain wakes sleeping shards; the loops serve until the last shard has drained, then return.
fn drain_ends_all_loops(kind: DriverKind) {
    let server = Server::start(kind, Options { shards: 3, ..Options::default() });
    let mut clients: Vec<TcpStream> = (0..32).map(|_| connect(server.address)).collect();
    for client in &mut clients {
        echo_once(client, b"before");
    }
    server.control.drain();
    server.wait_for("all told", |counts| counts.drains == 3);
    for client in &mut clients {
        echo_once(client, b"while draining");
    }
    drop(clients);
    server.join();
}

/// T15: without a free descriptor the listener rests instead of spinning, peers wait, and when descriptors become free
/// they are served. On io_uring connections are not in the process's table (`tests/rings.rs`). The server is a separate
/// process, as the limit is per process.
#[test]
fn epoll_survives_descriptor_exhaustion() {
    let child = echo::Child::start(DriverKind::Epoll, 64);
    let mut clients: Vec<TcpStream> = (0..120).map(|_| connect(child.address)).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("open or in the backlog");
    }
    // The first ones are served; the rest cannot be, and that costs no processor time.
    let mut served = 0;
    let mut answer = [0; 5];
    for client in &mut clients {
        client.set_read_timeout(Some(Duration::from_millis(500))).expect("socket");
        match client.read_exact(&mut answer) {
            Ok(()) => served += 1,
            Err(_) => break,
        }
    }
    assert!((20..64).contains(&served), "{served} served");
    let before = child.cpu_ms();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(600) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let used = child.cpu_ms() - before;
    assert!(used < 200, "{used} ms of processor time while resting");
    let late = clients.split_off(served);
    drop(clients);
    for mut client in late.into_iter().take(served) {
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("socket");
        client.read_exact(&mut answer).expect("served in the end");
    }
}

/// R-PUB-6: three real shards, whose mailboxes hold four mails: every subscriber gets every event of every publisher
/// once and in the order of its publisher, even when mails had to wait for space.
fn mail_through_small_mailboxes_keeps_its_order(kind: DriverKind) {
    mail::exchange(kind);
}

/// Where io_uring is forbidden, its half tests nothing and reports that.
fn uring_works() -> bool {
    let probed = relay::driver::uring::probe();
    if let Err(cause) = &probed {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "skipped: {test}: io_uring does not work here: {cause}");
    }
    probed.is_ok()
}

/// Runs a scenario on each driver.
macro_rules! scenarios {
    ($($scenario:ident),* $(,)?) => {
        mod epoll {
            $(#[test] fn $scenario() { super::$scenario(relay::driver::DriverKind::Epoll); })*
        }
        mod uring {
            $(#[test] fn $scenario() {
                if super::uring_works() {
                    super::$scenario(relay::driver::DriverKind::Uring);
                }
            })*
        }
    };
}

scenarios![
    echoes_on_a_thousand_connections,
    short_sends_lose_nothing,
    pause_holds_bytes_back,
    reset_storms_free_all_slots,
    full_table_refuses_then_recovers,
    fin_comes_after_the_bytes,
    shutdown_write_goes_on_reading,
    close_delivers_what_the_kernel_holds,
    close_over_unread_bytes_is_orderly,
    talkers_are_served_alike,
    reset_is_a_reset,
    timeouts_are_fed,
    drain_ends_all_loops,
    mail_through_small_mailboxes_keeps_its_order,
];

/// Not a separate test: the server process of `epoll_survives_descriptor_exhaustion`.
#[test]
#[ignore = "started by another test as its child"]
fn child_server() {
    echo::Child::serve();
}
