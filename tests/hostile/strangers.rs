//! Strangers that use up shared resources: memory with unfinished requests, slots with silence (threats T14, T15).

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::unharmed::unharmed_by;
use crate::common::http::HttpConnection;
use crate::common::rig::on_fresh_servers;
use crate::common::server::ServerOptions;
use crate::common::socket::Socket;

/// Threat T14: 300 bodies of almost 1 MiB, which the sender may not publish and never completes, cost less than a tenth
/// of their length.
#[test]
fn unfinished_bodies_hold_no_memory() {
    unharmed_by(32 << 20, |server| {
        let body = vec![b'x'; (1 << 20) - 1];
        let held: Vec<TcpStream> = (0..300)
            .map(|_| {
                let mut stream = TcpStream::connect(server.address).unwrap();
                let head = "POST /apps/1/events HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n";
                // The server may have closed it already because it was slow.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                stream
            })
            .collect();
        assert!(server.resident_bytes() < 300 << 20);
        drop(held);
    });
}

/// P-CLOSE-2, threat T15: a server that is full of WebSockets, with hundreds of silent connections before and among
/// them, answers each request on a new connection soon; the bound is far above the actual time, and far below the
/// seconds for which silent connections were kept. The WebSockets stay open.
#[test]
fn silence_does_not_block_the_api() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).shards(1).with(&["--max-connections", "60"]),
        |server| {
            let app = server.app();
            let mut sockets: Vec<Socket> = (0..60).map(|_| Socket::open(&server, app)).collect();
            let mut silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(server.address).unwrap()).collect();
            let mut slowest = Duration::ZERO;
            for _ in 0..30 {
                silent.extend((0..20).map(|_| TcpStream::connect(server.address).unwrap()));
                let began = Instant::now();
                HttpConnection::open(server.address).ask("GET", "/up", &[], b"").expect(200);
                slowest = slowest.max(began.elapsed());
            }
            assert!(slowest < Duration::from_secs(2), "{slowest:?}");
            sockets.iter_mut().for_each(Socket::expect_quiet);
        },
    );
}

/// P-HTTP-16, threat T25: an upgrade pipelined behind publishes for channels of both shards is answered after them.
#[test]
fn pipelined_upgrades_come_after_publishes() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).shards(2),
        |server| {
            let app = server.app();
            for round in 0..40 {
                let mut connection = HttpConnection::open(server.address);
                let body = format!(r#"{{"name":"e","channels":["a{round}","b{round}","c{round}"],"data":"d"}}"#);
                let publish = format!(
                    "POST /apps/{}/events HTTP/1.1\r\nHost: h\r\nX-Relay-Key: {}\r\nX-Relay-Secret: {}\r\nContent-Length: {}\r\n\r\n{body}",
                    app.id,
                    app.key,
                    app.secret,
                    body.len()
                );
                let upgrade = format!(
                    "GET /app/{}?protocol=7 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                    app.key
                );
                connection.write(format!("{publish}{publish}{upgrade}").as_bytes()).unwrap();
                connection.read().expect(200);
                connection.read().expect(200);
                assert_eq!(connection.try_read_head().unwrap().status, 101, "round {round}");
            }
        },
    );
}
