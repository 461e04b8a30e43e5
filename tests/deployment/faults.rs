//! Faults that no configuration of the three proxies makes, with small hops of the tests' own.

use std::io::{Read, Write};
use std::thread;

use super::*;

/// A hop that forwards bytes to Relay, and of a WebSocket's answers this many bytes behind the head; then it holds back.
fn holding_back(relay: SocketAddr, forwarded: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(relay).expect("Relay accepts");
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            thread::spawn(move || forward(server, client, forwarded));
        }
    });
    address
}

fn forward(mut server: TcpStream, mut client: TcpStream, forwarded: usize) {
    let (mut bytes, mut sent, mut part) = (Vec::new(), 0, [0; 4096]);
    while let Ok(read @ 1..) = server.read(&mut part) {
        bytes.extend_from_slice(&part[..read]);
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        let end = match head {
            Some(head) if bytes.starts_with(b"HTTP/1.1 101") => bytes.len().min(head + forwarded),
            _ => bytes.len(),
        };
        let _ = client.write_all(&bytes[sent..end]);
        sent = end;
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
}

/// R-DIAG-2: a hop that answers the upgrade and holds the frames back, at once or after the first one.
#[test]
fn frames_that_are_held_back() {
    let server = TestServer::start_with(ServerOptions::new(Driver::Epoll).shards(1));
    let key = &server.app().key;
    let examine = |forwarded: usize| {
        let address = holding_back(server.address, forwarded);
        Report::of(&["--public", &format!("http://{address}"), "--key", key])
    };
    let report = examine(0);
    report.expect("websocket", "problem", None, &["101, and then no frame", "nginx: proxy_buffering off;"]);
    // The first frame is shorter than this; the answer to the ping does not fit any more.
    let report = examine(130);
    report.expect("websocket", "ok", None, &["established"]);
    report.expect("ping", "problem", None, &["nothing arrived in time"]);
}

/// R-DIAG-2: WebSockets and the API lead to two servers: each works, and no event arrives.
#[test]
fn two_servers_behind_one_name() {
    let other = TestServer::start_with(ServerOptions::new(Driver::Epoll).shards(1));
    let path = format!("location /api/ {{\n proxy_pass http://{};\n }}\n location / {{", other.address);
    let split = Deployment::changed(Proxy::Nginx, &[("location / {", &path)]);
    let (app, data) = (split.server.app(), other.data.to_str().unwrap());
    cli::run_json(&[
        "app",
        "create",
        "--id",
        &app.id,
        "--key",
        &app.key,
        "--secret",
        &app.secret,
        "--data",
        data,
        "--json",
    ]);
    eventually("the other server knows the app", || {
        let answer = crate::common::http::get(other.address, &format!("/up/{}", app.id));
        (answer.status == 200).then_some(())
    });
    let report = split.examine(&[]);
    report.expect("websocket", "ok", None, &[]);
    report.expect("api", "ok", None, &[]);
    report.expect("event", "problem", None, &["published with 200, and not received", "same Relay"]);
}
