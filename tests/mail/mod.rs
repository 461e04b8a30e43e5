//! Real shards behind the driver under test, with publishers over HTTP and subscribers over `tungstenite`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use relay::app::{App, AppKey, AppSerial, AppSettings, Directory};
use relay::driver::DriverKind;
use relay::shard::{ChannelOrder, Shard, ShardConfig, ShardIndex, ShardOptions};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::echo::{Options, Server, Shared, connect};

const SHARDS: ShardIndex = 3;
const SUBSCRIBERS: usize = 9;
const PUBLISHERS: usize = 3;
const CHANNELS: usize = 8;
const EVENTS: usize = 100;

/// Three publishers send 100 events each to all of eight channels at once; nine sockets subscribe all channels.
pub(crate) fn exchange(kind: DriverKind) {
    let server = start(kind);
    let channels: Vec<String> = (0..CHANNELS).map(|number| format!("channel-{number}")).collect();
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| subscribe(server.address, &channels)).collect();
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (address, channels) = (server.address, &channels);
            scope.spawn(move || publish(address, publisher, channels));
        }
        for socket in &mut subscribers {
            scope.spawn(move || receive(socket));
        }
    });
}

fn start(kind: DriverKind) -> Server {
    let app = App {
        serial: AppSerial(1),
        id: "1".into(),
        name: "test".into(),
        enabled: true,
        keys: vec![AppKey::new("app-key", "app-secret")],
        encryption_master_key: None,
        settings: AppSettings::default(),
        webhooks: Default::default(),
    };
    let directory = Arc::new(Directory::new(1, vec![app], Vec::new()));
    let options = Options { shards: SHARDS, ..Options::default() };
    let make = move |index| {
        Shard::new(ShardConfig {
            index,
            shards: SHARDS,
            slots: options.slots,
            refusal_slots: 0,
            boot_secret: [7; 16],
            order: ChannelOrder { epoch: 7, key: [7; 16] },
            directory: Arc::clone(&directory),
            options: ShardOptions { drain: Duration::ZERO, ..ShardOptions::default() },
        })
    };
    Server::start_cores(kind, options, Arc::new(Shared::default()), make)
}

fn next(socket: &mut WebSocket<TcpStream>) -> Value {
    let message = loop {
        match socket.read() {
            // A read with a time limit is not restarted automatically when the process was stopped meanwhile.
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => break read.expect("a message"),
        }
    };
    serde_json::from_str(message.to_text().expect("text")).expect("JSON")
}

fn subscribe(address: SocketAddr, channels: &[String]) -> WebSocket<TcpStream> {
    let url = format!("ws://{address}/app/app-key?protocol=7");
    let (mut socket, _) = tungstenite::client(url, connect(address)).expect("upgraded");
    assert_eq!(next(&mut socket)["event"], "pusher:connection_established");
    for channel in channels {
        let message = json!({"event": "pusher:subscribe", "data": {"channel": channel}});
        socket.send(Message::text(message.to_string())).expect("open");
        assert_eq!(next(&mut socket)["event"], "pusher_internal:subscription_succeeded");
    }
    socket
}

/// Every event once per channel, and those of one publisher in its order.
fn receive(socket: &mut WebSocket<TcpStream>) {
    let mut due: HashMap<(String, String), usize> = HashMap::new();
    for _ in 0..PUBLISHERS * CHANNELS * EVENTS {
        let event = next(socket);
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name} in {event}")).to_owned();
        let due = due.entry((text("channel"), text("event"))).or_default();
        assert_eq!(text("data"), due.to_string(), "{event}");
        *due += 1;
    }
}

fn publish(address: SocketAddr, publisher: usize, channels: &[String]) {
    let mut stream = BufReader::new(connect(address));
    for number in 0..EVENTS {
        let event = json!({"name": format!("from-{publisher}"), "channels": channels, "data": number.to_string()});
        let body = event.to_string();
        let head = format!(
            "POST /apps/1/events HTTP/1.1\r\nHost: relay\r\nX-Relay-Key: app-key\r\nX-Relay-Secret: app-secret\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.get_mut().write_all((head + &body).as_bytes()).expect("open");
        assert_eq!(answer(&mut stream), "{}");
    }
}

/// The body of one answer, which must be a 200.
fn answer(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a header");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body");
    String::from_utf8(body).expect("UTF-8")
}
