//! Zero-copy sends over loopback, where the kernel copies all of them.

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::*;
use crate::limits::ZERO_COPY_TRIAL_SENDS;

fn shape() -> Shape {
    let mut shape = Shape::default();
    shape.options.zero_copy_bytes_min = Some(1_000);
    shape
}

/// A client that requests the data that the server has for it and reads none of it: the window closes, so that the
/// kernel holds bytes that it has not copied, and their notice is pending.
fn stopped_client(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    set_socket_recv_buffer_size(&stream, 4_096).expect("an option");
    stream.write_all(b"go").expect("sent");
    wait_until("the server sent into the closed window", || unread_bytes(&stream) > 0);
    stream
}

fn unread_bytes(stream: &TcpStream) -> u64 {
    rustix::io::ioctl_fionread(stream).expect("a socket")
}

fn wait_until(what: &str, reached: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if reached() {
            return;
        }
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("waited for: {what}");
}

/// U12: on loopback zero-copy ends by itself after the sends of its trial, and every byte arrives, once and in order.
/// Method: 3 MB to each of 8 slow readers, with small sends in between.
#[test]
fn loopback_ends_it_and_loses_nothing() {
    let count = 3_000_000;
    let server = Server::start(Manner::Blast(count), shape());
    let mut streams: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(b"go").expect("sent");
    }
    for stream in &mut streams {
        assert!(read_slowly(stream) == noise(count), "bytes were lost, doubled or moved");
    }
    drop(streams);
    let (core, figures) = server.stop();
    assert!(core.sends > 8 * u64::from(ZERO_COPY_TRIAL_SENDS), "{} sends", core.sends);
    assert_eq!(figures.zero_copy_sends, u64::from(ZERO_COPY_TRIAL_SENDS));
    assert_eq!(figures.zero_copy_copies, figures.zero_copy_sends, "loopback copies all");
}

/// Sends below the bound are plain sends.
#[test]
fn small_sends_are_plain() {
    let server = Server::start(Manner::Echo, shape());
    let mut stream = server.connect();
    for size in [1, 500, 999] {
        echo(&mut stream, &noise(size));
    }
    drop(stream);
    let (_, figures) = server.stop();
    assert_eq!(figures.zero_copy_sends, 0);
}

/// U12: a peer that stops reading and disconnects by reset while a notice is pending leaves nothing behind. Method: 20
/// such peers; the loop checks its accounts each turn, and the core checks that each connection ends once.
#[test]
fn stopped_clients_that_reset_leave_nothing() {
    let server = Server::start(Manner::Blast(3_000_000), shape());
    for _ in 0..20 {
        reset(stopped_client(&server));
    }
    let (core, figures) = server.stop();
    assert_eq!(core.accepted, 20);
    assert_eq!(figures.zero_copy_sends, u64::from(ZERO_COPY_TRIAL_SENDS));
}

/// U12: a connection that the core closes while a notice is pending keeps its slot and its bytes until the kernel has
/// released them, and the peer gets the bytes that were sent. Method: a client that has read nothing makes the core
/// close; then one client reads to the end, one resets.
#[test]
fn closed_connections_outlive_their_sockets() {
    for reads in [true, false] {
        let server = Server::start(Manner::BlastOrClose(3_000_000), shape());
        let mut stream = stopped_client(&server);
        stream.write_all(b"close").expect("sent");
        let mut other = server.connect();
        other.write_all(b"x").expect("sent");
        let mut first = [0; 64];
        other.read_exact(&mut first).expect("the server goes on meanwhile");
        if reads {
            let bytes = read_slowly(&mut stream);
            assert!(bytes.len() >= 4_096 && bytes == noise(3_000_000)[..bytes.len()], "{} bytes", bytes.len());
            drop(stream);
        } else {
            reset(stream);
        }
        reset(other);
        let (core, figures) = server.stop();
        assert_eq!(core.accepted, 2);
        assert!(figures.zero_copy_orphans > 0, "{figures:?}");
    }
}

/// U1, U12: a loop that stops while a peer delays a notice resets that peer instead of freeing memory that the kernel
/// reads.
#[test]
fn stop_does_not_wait_for_stopped_clients() {
    let server = Server::start(Manner::Blast(3_000_000), shape());
    let stream = stopped_client(&server);
    let (_, figures) = server.stop();
    assert!(figures.zero_copy_sends > 0, "{figures:?}");
    drop(stream);
}

/// A send that the kernel refuses before it began ends zero-copy, and its bytes are sent by a plain send. Method: the
/// refusal is simulated for a send that is in flight only in the driver's records.
#[test]
fn refused_send_is_sent_again() {
    let (setup, address, _control) = setup(&shape());
    let mut core = TestCore::new(Manner::Echo);
    let mut driver = Driver::new(setup, &mut core, shape().options).expect("a ring");
    let mut stream = TcpStream::connect(address).expect("listening");
    stream.write_all(b"x").expect("sent");
    while driver.core.sends == 0 {
        driver.turn().expect("the ring works");
    }
    let connection = driver.slots.current(0).expect("the first connection");
    // The echo of one byte was a plain send; wait for it, then lend bytes in the driver's records only.
    while driver.connections[0].is_under_way(Operation::Send) {
        driver.turn().expect("the ring works");
    }
    driver.core.owe(connection, &noise(2_000));
    assert_eq!(driver.core.poll_flush().map(|flush| flush.bytes.len()), Some(2_000));
    driver.connections[0].begin(Operation::Send);
    driver.zero_copy.start(0);
    let token = token::of_connection(Operation::Send, connection);
    driver.complete(0, Completion::new(token, -libc::ENOMEM, 0));
    assert!(!driver.zero_copy.takes(2_000), "off");
    while driver.connections[0].is_under_way(Operation::Send) {
        driver.turn().expect("the ring works");
    }
    let mut answer = vec![0; 2_001];
    stream.read_exact(&mut answer).expect("both sends");
    assert!(answer[1..] == noise(2_000));
    driver.end_all().expect("the ring works");
}

/// The probe finds that zero-copy sends work in the environment where the tests run.
#[test]
fn probe_gets_a_notice() {
    probe_zero_copy().expect("the kernel of the test machine has zero-copy sends");
}
