//! A long queue of webhooks survives `kill -9` and is delivered completely (P-HOOK-7).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::rig::drivers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::Socket;
use crate::common::{eventually_within, http};

/// Deliveries that wait when the server is killed; `RELAY_QUEUE=100000` for as many as an app may have.
const DELIVERIES: usize = 4_000;
const CHANNELS: usize = 20;
/// A bound of the test, not of the server: a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// P-HOOK-7, R-PROC-5: deliveries that wait for an endpoint that is down are all made after the server was killed and
/// restarted: each at least once, and on each channel in its order.
#[test]
fn a_long_queue_is_drained_after_a_kill() {
    let deliveries = std::env::var("RELAY_QUEUE").map_or(DELIVERIES, |count| count.parse().expect("a number"));
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    // The port stays ours, and a client that connects before the receiver runs waits in vain.
    let mut options = ServerOptions::new(drivers()[0])
        .webhook(&format!("http://{address}/"), &["--events", "client_event", "--allow-private"]);
    options.apps = vec![("main", vec!["client_events=true", "max_client_events_per_second=0"])];
    let server = TestServer::start_with(options.with(&["--webhook-retry-ms", "10"]));
    let mut socket = Socket::open(&server, server.app());
    (0..CHANNELS).for_each(|channel| socket.subscribe(&format!("private-{channel}")));
    let began = Instant::now();
    for number in 0..deliveries {
        let channel = format!("private-{}", number % CHANNELS);
        socket.send_json(&json!({"event": "client-e", "channel": channel, "data": {"number": number}}));
    }
    let waiting = || figure(server.health, "relay_webhook_queue");
    eventually_within("all deliveries are on disk", LIMIT, || (waiting() >= deliveries as f64).then_some(()));
    let filled = began.elapsed();
    assert_eq!(figure(server.health, "relay_webhook_events_dropped_total"), 0.0);

    let received = receive(place);
    let server = server.restart(&["--webhook-retry-ms", "10"]);
    let began = Instant::now();
    eventually_within("the queue is empty", LIMIT, || {
        (figure(server.health, "relay_webhook_queue") == 0.0).then_some(())
    });
    let drained = began.elapsed();

    let received = received.lock().unwrap();
    let mut by_channel: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    received.iter().for_each(|(channel, number)| by_channel.entry(channel).or_default().push(*number));
    assert_eq!(by_channel.len(), CHANNELS);
    let mut seen = 0;
    for (channel, numbers) in &mut by_channel {
        assert!(numbers.is_sorted(), "{channel}: {numbers:?}");
        numbers.dedup();
        seen += numbers.len();
    }
    assert_eq!(seen, deliveries, "each at least once");
    println!(
        "{deliveries} deliveries: on disk in {filled:.1?}, made after kill -9 in {drained:.1?}, {} twice",
        received.len() - seen
    );
}

fn figure(address: SocketAddr, name: &str) -> f64 {
    let page = http::get(address, "/metrics").expect(200);
    let line =
        page.text().lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}")).to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

type Deliveries = Arc<Mutex<Vec<(String, u64)>>>;

/// Answers 200 to every request and keeps channel and number of each event.
fn receive(listener: TcpListener) -> Deliveries {
    let received = Deliveries::default();
    let kept = Arc::clone(&received);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || answer_all(stream, &kept));
        }
    });
    received
}

/// `None` when the peer has gone.
fn answer_all(stream: TcpStream, kept: &Deliveries) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut bytes = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                bytes = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; bytes];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        for event in body["events"].as_array().unwrap() {
            let data: Value = serde_json::from_str(event["data"].as_str().unwrap()).unwrap();
            kept.lock()
                .unwrap()
                .push((event["channel"].as_str().unwrap().to_owned(), data["number"].as_u64().unwrap()));
        }
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}
