//! P-LIVE-6: input that clients sent while the server was late is read before their deadlines are checked, and time in
//! which the server did not run counts against no client. The server is stopped by signals, as on a starved or paused
//! machine.

use std::time::{Duration, Instant};

use crate::common::http::{HttpConnection, encode_request};
use crate::common::rig::on_fresh_servers_at_once;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::Socket;

/// Longer than every deadline of a peer except the pong's, which has its own test below.
const FREEZE: Duration = Duration::from_secs(20);
const SUBSCRIBERS: usize = 300;
const CROWD: usize = 4_000;

/// R24. Goal: after 20 s in which the server is stopped, no connection is closed, nothing is lost, and requests and
/// messages that were completed meanwhile are answered. Method: half a request and half a message wait before it; then
/// their second halves arrive, pings, and complete requests on new connections. Every subscriber gets the events before
/// and after it.
#[test]
fn a_freeze_judges_nobody() {
    let options = |driver| ServerOptions::new(driver).with(&["--activity-timeout", "26"]);
    on_fresh_servers_at_once(options, |server| {
        let app = server.app();
        let mut sockets: Vec<Socket> = (0..SUBSCRIBERS).map(|_| subscriber(&server, "frozen")).collect();
        let up = encode_request("GET", "/up", &[], b"");
        let (first, second) = up.split_at(20);
        let mut halves: Vec<HttpConnection> = (0..50).map(|_| HttpConnection::open(server.address)).collect();
        for half in &mut halves {
            half.write(first).unwrap();
        }
        let mut raw = subscriber(&server, "other").into_raw();
        let ping = br#"{"event":"pusher:ping"}"#;
        let frame: Vec<u8> = [0x81, 0x80 | ping.len() as u8, 0, 0, 0, 0].into_iter().chain(*ping).collect();
        raw.write(&frame[..9]).unwrap();
        server.publish(app, "frozen", "before", "1");
        for socket in &mut sockets {
            socket.expect_data("before", "frozen", "1");
        }
        server.signal("STOP");
        let stopped = Instant::now();
        for half in &mut halves {
            half.write(second).unwrap();
        }
        raw.write(&frame[9..]).unwrap();
        for socket in &mut sockets {
            socket.send(r#"{"event":"pusher:ping","data":{}}"#);
        }
        let mut late: Vec<HttpConnection> = (0..50).map(|_| HttpConnection::open(server.address)).collect();
        for connection in &mut late {
            connection.write(&up).unwrap();
        }
        std::thread::sleep(FREEZE.saturating_sub(stopped.elapsed()));
        server.signal("CONT");
        for connection in halves.iter_mut().chain(&mut late) {
            connection.read().expect(200);
        }
        assert_eq!(raw.read().unwrap().payload, br#"{"event":"pusher:pong","data":"{}"}"#);
        server.publish(app, "frozen", "after", "2");
        for socket in &mut sockets {
            assert_eq!(socket.next_json()["event"], "pusher:pong");
            socket.expect_data("after", "frozen", "2");
        }
        // If one of them were marked for a close, the close would come with one of the sweep's next turns.
        std::thread::sleep(Duration::from_secs(6));
        sockets.iter_mut().for_each(Socket::expect_quiet);
    });
}

/// P-CLOSE-5. Goal: a fan-out that takes longer than a stall may, because the server hardly runs, reaches every
/// subscriber and closes none. Method: 4,000 subscribers of one shard, which is more than a turn can serve; the process
/// is stopped as soon as the publish is answered, and runs for a fraction of a millisecond every 2 s.
#[test]
fn a_starved_fan_out_closes_nobody() {
    let options = |driver| ServerOptions::new(driver).shards(1);
    on_fresh_servers_at_once(options, |server| {
        let mut sockets: Vec<Socket> = (0..CROWD).map(|_| subscriber(&server, "starved")).collect();
        server.publish(server.app(), "starved", "e", "1");
        for _ in 0..10 {
            server.freeze(Duration::from_secs(2));
            std::thread::sleep(Duration::from_micros(300));
        }
        for socket in &mut sockets {
            socket.expect_data("e", "starved", "1");
            socket.expect_quiet();
        }
    });
}

/// Threat T14. Goal: each request has its own 5 s. Method: for 7 s a client sends requests, each of which overlaps two
/// writes and is complete within 50 ms; one that sends only half a request gets 408 meanwhile.
#[test]
fn each_pipelined_request_has_its_own_deadline() {
    on_fresh_servers_at_once(ServerOptions::new, |server| {
        let up = encode_request("GET", "/up", &[], b"");
        let (first, second) = up.split_at(10);
        let both = [second, first].concat();
        let mut connection = HttpConnection::open(server.address);
        let mut dangling = HttpConnection::open(server.address);
        connection.write(first).unwrap();
        dangling.write(first).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(7) {
            std::thread::sleep(Duration::from_millis(50));
            connection.write(&both).unwrap();
            connection.read().expect(200);
        }
        dangling.read().expect(408);
        connection.write(second).unwrap();
        connection.read().expect(200);
    });
}

fn subscriber(server: &TestServer, channel: &str) -> Socket {
    let mut socket = Socket::open(server, server.app());
    socket.subscribe(channel);
    socket.stream().set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    socket
}
