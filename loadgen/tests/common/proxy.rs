//! A proxy between the load generator and a server that makes one mistake with what a subscriber is sent, on every
//! transport. Publishes pass through it unchanged.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A mistake with the tenth message of a connection that contains an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    None,
    Drop,
    Double,
    /// It is sent after the eleventh.
    Swap,
}

/// The proxy, on a port of its own. It ends with the test's process.
pub(crate) struct Proxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let known = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, known) = (client.expect("a connection"), Arc::clone(&known));
                std::thread::spawn(move || pass(client, server, fault, &known));
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Connections whose first request begins with this.
    pub(crate) fn begun(&self, request: &str) -> usize {
        let requests = self.requests.lock().expect("no thread panics with it");
        requests.iter().filter(|known| known.starts_with(request)).count()
    }
}

/// Passes bytes in both directions until a side ends.
fn pass(mut client: TcpStream, address: SocketAddr, fault: Fault, requests: &Mutex<Vec<String>>) {
    let mut server = TcpStream::connect(address).expect("it listens");
    let mut buffer = vec![0; 64 * 1024];
    let Ok(length) = client.read(&mut buffer) else { return };
    let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let messages = Messages::of(&request);
    requests.lock().expect("no thread panics with it").push(request);
    if server.write_all(&buffer[..length]).is_err() {
        return;
    }
    let (mut from, mut to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        // A reset is an end, too.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut incoming, mut head_is_passed, mut events, mut held) = (Vec::new(), false, 0, Vec::new());
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        incoming.extend_from_slice(&buffer[..length]);
        while let Some(length) = messages.first(&incoming, head_is_passed) {
            head_is_passed = true;
            let mut message: Vec<u8> = incoming.drain(..length).collect();
            if message.windows(4).any(|window| window == b"lg1.") {
                events += 1;
                match (events, fault) {
                    (10, Fault::Drop | Fault::Double) => message = messages.changed(message, fault),
                    (10, Fault::Swap) => held = std::mem::take(&mut message),
                    (11, Fault::Swap) => message.append(&mut held),
                    (_, Fault::None | Fault::Drop | Fault::Double | Fault::Swap) => {}
                }
            }
            if client.write_all(&message).is_err() {
                return;
            }
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// What the server sends on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Messages {
    /// A head, then frames of a WebSocket.
    Frames,
    /// A head, then blocks of server-sent events.
    Blocks,
    /// Answers to polls, each with its head.
    Polls,
    /// Answers to other requests, which are not looked at.
    Other,
}

impl Messages {
    fn of(request: &str) -> Self {
        match request.split('?').next().unwrap_or_default() {
            path if path.starts_with("GET /app/") => Self::Frames,
            path if path.ends_with("/sse") => Self::Blocks,
            path if path.ends_with("/poll") => Self::Polls,
            _ => Self::Other,
        }
    }

    /// The length of the first message, if it is complete.
    fn first(self, bytes: &[u8], head_is_passed: bool) -> Option<usize> {
        match self {
            Self::Frames | Self::Blocks if !head_is_passed => end_of(bytes, b"\r\n\r\n"),
            Self::Blocks => end_of(bytes, b"\n\n"),
            Self::Frames => {
                let (header, length) = match *bytes.get(1)? {
                    126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
                    short => (2, usize::from(short)),
                };
                Some(header + length).filter(|length| bytes.len() >= *length)
            }
            Self::Polls => {
                let head = end_of(bytes, b"\r\n\r\n")?;
                let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
                let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                let length: usize = length.expect("a length").parse().expect("a number");
                Some(head + length).filter(|length| bytes.len() >= *length)
            }
            Self::Other => Some(bytes.len()).filter(|length| *length > 0),
        }
    }

    /// A message without its first event, or with it twice.
    fn changed(self, message: Vec<u8>, fault: Fault) -> Vec<u8> {
        match (self, fault) {
            (Self::Polls, _) => {
                let head = end_of(&message, b"\r\n\r\n").expect("a head");
                let mut body: Value = serde_json::from_slice(&message[head..]).expect("JSON");
                let events = body["events"].as_array_mut().expect("a list");
                match fault {
                    Fault::Drop => drop(events.remove(0)),
                    Fault::Double => events.insert(0, events[0].clone()),
                    Fault::None | Fault::Swap => unreachable!("not for polls"),
                }
                let body = body.to_string();
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
            }
            (_, Fault::Drop) => Vec::new(),
            (_, Fault::Double) => [&message[..], &message[..]].concat(),
            (_, Fault::None | Fault::Swap) => message,
        }
    }
}

/// The length up to the first occurrence of `end`, with it.
fn end_of(bytes: &[u8], end: &[u8]) -> Option<usize> {
    bytes.windows(end.len()).position(|window| window == end).map(|at| at + end.len())
}
