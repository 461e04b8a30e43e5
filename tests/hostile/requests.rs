//! HTTP that confuses servers and the proxies before them (threats T14, T24, T25; rules P-LIM-11, P-HTTP-16).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::unharmed::{socket_target, unharmed_by};
use crate::common::PATIENCE;
use crate::common::http::{self, HttpConnection};
use crate::common::server::TestServer;
use crate::common::socket::Socket;

const MIB: u64 = 1 << 20;

/// Sends a request and returns the status of each answer until the server ends the connection.
fn statuses(server: &TestServer, request: &[u8]) -> Vec<u16> {
    let mut connection = HttpConnection::open(server.address);
    let _ = connection.write(request);
    let mut statuses = Vec::new();
    loop {
        match connection.try_read() {
            Ok(response) => statuses.push(response.status),
            Err(error) => {
                let open = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                assert!(!open, "the connection stays open after {:?}", String::from_utf8_lossy(request));
                return statuses;
            }
        }
    }
}

/// Threat T25, P-HTTP-16: requests that two parties may read differently get one 4xx or 5xx and the end of the
/// connection; the request smuggled behind them is never answered.
#[test]
fn smuggling_is_refused() {
    unharmed_by(32 * MIB, |server| {
        let smuggled = "GET /up HTTP/1.1\r\nHost: h\r\n\r\n";
        let length = smuggled.len();
        let chunked = |body: &str| format!("{body}{smuggled}");
        let head = |headers: &str, body: &str| format!("POST /up HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}");
        let refused = [
            head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &chunked("0\r\n\r\n")),
            head("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &chunked("0\r\n\r\n")),
            head(&format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), smuggled),
            head(&format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"), smuggled),
            head(&format!("Content-Length: {length}, 0\r\n"), smuggled),
            head(&format!("Content-Length: +{length}\r\n"), smuggled),
            head("Content-Length: -1\r\n", smuggled),
            head("Content-Length: 0x10\r\n", smuggled),
            head("Content-Length: 1 0\r\n", smuggled),
            head("Content-Length: \r\n", smuggled),
            head("Content-Length: 99999999999999999999999\r\n", smuggled),
            head("Content-Length : 0\r\n", smuggled),
            head(" Content-Length: 0\r\n", smuggled),
            head("X: y\r\n Content-Length: 0\r\n", smuggled),
            head("X: y\r\n\tfolded\r\n", smuggled),
            head("Transfer-Encoding: xchunked\r\n", &chunked("0\r\n\r\n")),
            head("Transfer-Encoding: chunked, identity\r\n", &chunked("0\r\n\r\n")),
            head("Transfer-Encoding: identity\r\n", smuggled),
            head("Transfer-Encoding: gzip, chunked\r\n", &chunked("0\r\n\r\n")),
            head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", &chunked("0\r\n\r\n")),
            head("Transfer-Encoding: \"chunked\"\r\n", &chunked("0\r\n\r\n")),
            head("Transfer-Encoding : chunked\r\n", &chunked("0\r\n\r\n")),
            head("Transfer-Encoding:\x0bchunked\r\n", &chunked("0\r\n\r\n")),
            head("Transfer-Encoding: chunked\r\n", &chunked("0x0\r\n\r\n")),
            head("Transfer-Encoding: chunked\r\n", &chunked("-1\r\n\r\n")),
            head("Transfer-Encoding: chunked\r\n", &chunked("+0\r\n\r\n")),
            head("Transfer-Encoding: chunked\r\n", &chunked("\r\n\r\n")),
            head("Transfer-Encoding: chunked\r\n", &chunked("fffffffffffffffff\r\n")),
            head("Transfer-Encoding: chunked\r\n", &chunked("1\r\nab\r\n0\r\n\r\n")),
            head("Transfer-Encoding: chunked\r\n", &chunked("1\na\n0\n\n")),
            head("Transfer-Encoding: chunked\r\n", &chunked("0;ext\n\r\n")),
            format!("POST /up HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.1\nHost: h\n\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\nHost: h\nX: y\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\nHost: h\r\n\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\nHost: h\rX: y\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\nHost: h\0\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\nHo st: h\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\nno colon\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\n: empty\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{smuggled}"),
            format!("GET  /up HTTP/1.1\r\nHost: h\r\n\r\n{smuggled}"),
            format!("GET /up  HTTP/1.1\r\nHost: h\r\n\r\n{smuggled}"),
            format!("GET /u p HTTP/1.1\r\nHost: h\r\n\r\n{smuggled}"),
            format!("GET /up\t HTTP/1.1\r\nHost: h\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/2.0\r\nHost: h\r\n\r\n{smuggled}"),
            format!("GET /up HTTP/1.2\r\nHost: h\r\n\r\n{smuggled}"),
            format!("GET /up http/1.1\r\nHost: h\r\n\r\n{smuggled}"),
            format!("GET /up\r\nHost: h\r\n\r\n{smuggled}"),
            format!("G\x01T /up HTTP/1.1\r\nHost: h\r\n\r\n{smuggled}"),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03".to_owned(),
        ];
        for request in &refused {
            let found = statuses(server, request.as_bytes());
            let one_refusal = matches!(found[..], [400..=599]);
            assert!(one_refusal, "{found:?} to {request:?}");
        }
    });
}

/// Threat T25: bytes after an upgrade request are frames, never a request; after a refused upgrade the bytes are not
/// read as a request either.
#[test]
fn upgrades_do_not_smuggle() {
    unharmed_by(24 * MIB, |server| {
        let smuggled = "GET /up HTTP/1.1\r\nHost: h\r\n\r\n";
        let good = crate::common::wire::upgrade_request(&socket_target(server));
        let mut connection = HttpConnection::open(server.address);
        connection.write(format!("{good}{smuggled}").as_bytes()).unwrap();
        assert_eq!(connection.try_read_head().unwrap().status, 101);
        let mut rest = Vec::new();
        let _ = connection.stream().try_clone().unwrap().read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "{:?}", String::from_utf8_lossy(&rest));
        for (from, to) in [
            ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: short"),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ] {
            let found = statuses(server, format!("{}{smuggled}", good.replace(from, to)).as_bytes());
            assert!(matches!(found[..], [400..=499]), "{found:?} to {to:?}");
        }
    });
}

/// Threat T24: no input of a client is in a response head or splits one.
#[test]
fn responses_cannot_be_split() {
    unharmed_by(24 * MIB, |server| {
        let app = server.app();
        for target in ["/apps/1%0d%0aX-Evil:%201/events", "/nothing%0d%0a%0d%0aevil", "/app/key%0d%0aX-Evil:%201"] {
            let answer = http::ask(server.address, "POST", target, &[("Origin", "https://evil\t.test")], b"{}");
            assert!((400..500).contains(&answer.status), "{}", answer.status);
            assert!(answer.header("x-evil").is_none(), "{:?}", answer.headers);
        }
        let request = crate::common::wire::upgrade_request(&format!("/app/{}", app.key)).replacen(
            "\r\n",
            "\r\nSec-WebSocket-Protocol: pusher-channels-protocol-7\tx, pusher-channels-protocol-\r\n",
            1,
        );
        let mut connection = HttpConnection::open(server.address);
        connection.write(request.as_bytes()).unwrap();
        let head = connection.try_read_head().unwrap();
        assert!(head.header("sec-websocket-protocol").is_none(), "{:?}", head.headers);
    });
}

/// Threat T22, P-STAT-4: path traversal is 404 and nothing else.
#[test]
fn wandering_paths_are_404() {
    unharmed_by(24 * MIB, |server| {
        for path in [
            "/..%2f..%2fetc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//etc/passwd",
            "/../../etc/passwd",
            "/%00",
            "/apps/../up%2f",
        ] {
            let answer = http::get(server.address, path);
            assert_eq!(answer.status, 404, "{path}");
        }
    });
}

/// P-LIM-11, P-STAT-5, threat T14: bodies beyond 1 MiB are refused before they are read, declared or chunked; the answer is readable though the
/// client is still sending.
#[test]
fn oversized_bodies_are_refused_early() {
    unharmed_by(32 * MIB, |server| {
        let path = server.app().path("/events");
        for length in ["1048577", "4294967296", "9223372036854775807"] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(statuses(server, head.as_bytes()), [413]);
        }
        let mut connection = HttpConnection::open(server.address);
        connection
            .write(format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes())
            .unwrap();
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        for _ in 0..64 {
            if connection.write(chunk.as_bytes()).is_err() {
                break;
            }
        }
        connection.read().expect(413);
        connection.expect_end();
    });
}

/// Threat T14: a handshake, a head or a body that drips in gets five seconds in all, not five per byte; so does silence
/// after accept. Honest clients can connect meanwhile.
#[test]
fn slow_requests_are_cut_off() {
    unharmed_by(32 * MIB, |server| {
        let path = server.app().path("/events");
        let starts = [
            String::new(),
            "GET /app/k HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nX-Drip: ".to_owned(),
            format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{{"),
            format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{{"),
        ];
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for (index, start) in starts.iter().enumerate() {
                for _ in 0..10 {
                    scope.spawn(move || drip(server, start, index > 0));
                }
            }
            while begun.elapsed() < Duration::from_secs(6) {
                let asked = Instant::now();
                Socket::open(server, server.app()).expect_quiet();
                http::get(server.address, "/up").expect(200);
                assert!(asked.elapsed() < Duration::from_secs(2), "honest clients wait {:?}", asked.elapsed());
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    });
}

/// Sends a byte every 300 ms until the server ends it, which must be after 5 s and before 9 s.
fn drip(server: &TestServer, start: &str, drips: bool) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    let begun = Instant::now();
    stream.write_all(start.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(begun.elapsed() < PATIENCE, "still open after {:?}", begun.elapsed());
                if drips && stream.write_all(b"x").is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    let lived = begun.elapsed().as_secs_f64();
    assert!((4.8..9.0).contains(&lived), "cut off after {lived} s");
}
