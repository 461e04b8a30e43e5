//! Liveness (section 2.1 of the Pusher protocol).

use std::time::{Duration, Instant};

use crate::common::rig::on_fresh_servers_at_once;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::{Arrival, Socket};
use crate::stage::on_each_driver;

/// P-LIVE-2: `pusher:ping` in any of its spellings gets one `pusher:pong`, byte for byte.
#[test]
fn pusher_ping_gets_pusher_pong() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        for ping in [
            r#"{"event":"pusher:ping","data":{}}"#,
            r#"{"event":"pusher:ping"}"#,
            r#"{"event":"pusher:ping","data":"{}"}"#,
            r#"{"event":"pusher:ping","data":null}"#,
            r#"{"data":{},"event":"pusher:ping"}"#,
        ] {
            socket.send(ping);
            assert_eq!(socket.next_text(), r#"{"event":"pusher:pong","data":"{}"}"#, "to {ping}");
        }
    });
}

/// P-LIVE-5: `pusher:pong` has no answer.
#[test]
fn pusher_pong_has_no_answer() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        socket.send(r#"{"event":"pusher:pong","data":{}}"#);
        socket.send(r#"{"event":"pusher:pong"}"#);
        socket.expect_quiet();
    });
}

/// P-LIVE-1, P-LIVE-3, P-LIVE-4: with an `activity_timeout` of 1 s, a socket that was silent for 6 s gets a WebSocket
/// ping; silent 30 s more it gets error and Close 4201. One that answers pings, and one that sends messages, stay open.
/// Both drivers wait at the same time. Upper bounds allow for the clock hand that sweeps all slots in 5 s, and for a
/// machine that is short of processor time, since time in which the server did not run does not count (P-LIVE-6).
#[test]
fn silent_sockets_are_pinged_then_closed() {
    let options = |driver| ServerOptions::new(driver).with(&["--activity-timeout", "1"]);
    on_fresh_servers_at_once(options, |server| {
        std::thread::scope(|scope| {
            scope.spawn(|| silence(&server));
            scope.spawn(|| answers(&server));
            scope.spawn(|| speaks(&server));
        });
    });
}

fn silence(server: &TestServer) {
    let mut socket = open(server);
    let start = Instant::now();
    // Reading through `into_raw` answers no ping: tungstenite would.
    let mut raw = socket.into_raw();
    let ping = raw.read().unwrap();
    let pinged = start.elapsed();
    assert_eq!(ping.first, 0x89, "a WebSocket ping was due: {ping:?}");
    assert!((5.5..40.0).contains(&pinged.as_secs_f64()), "pinged after {pinged:?}");
    let error = String::from_utf8(raw.read().unwrap().payload).unwrap();
    assert!(error.contains("\"pusher:error\"") && error.contains("4201"), "{error}");
    let told = start.elapsed() - pinged;
    assert!((29.5..90.0).contains(&told.as_secs_f64()), "closed {told:?} after the ping");
    assert_eq!(raw.expect_close(), 4201);
    socket = open(server);
    socket.expect_quiet();
}

fn answers(server: &TestServer) {
    let mut socket = open(server);
    let start = Instant::now();
    // tungstenite answers a ping when it next reads; two pings mean that the answer to the first counted as activity.
    for _ in 0..2 {
        assert!(matches!(socket.next(), Arrival::Ping(_)), "a ping was due");
    }
    assert!(start.elapsed() > Duration::from_secs(11));
    socket.expect_quiet();
}

fn speaks(server: &TestServer) {
    let mut socket = open(server);
    for _ in 0..12 {
        std::thread::sleep(Duration::from_secs(2));
        // Nothing but the answer: a ping from the server would arrive before it.
        socket.expect_quiet();
    }
}

fn open(server: &TestServer) -> Socket {
    let app = server.app();
    let mut socket = Socket::upgrade(server, app, &format!("/app/{}?protocol=7", app.key));
    assert_eq!(socket.established()["activity_timeout"], 1, "P-LIVE-3");
    socket.stream().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}
