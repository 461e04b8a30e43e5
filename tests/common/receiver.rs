//! A webhook receiver: a small HTTP server on loopback that records the requests it receives and answers as the test
//! configures.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sign::{App, hmac_hex};
use super::{PATIENCE, eventually, eventually_within};

/// One request, read completely.
#[derive(Clone, Debug)]
pub struct Received {
    /// Header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The raw body.
    pub body: String,
    /// Its time of arrival.
    pub at: Instant,
    /// The status of its answer.
    pub status: u16,
}

impl Received {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(present, _)| present == name);
        found.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// The events of a body in Pusher's format.
    pub fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().expect("events is an array").clone()
    }

    /// P-SDK-24: fails unless the request is signed by this app and otherwise as SDKs demand.
    #[track_caller]
    pub fn check_pusher(&self, app: &App) {
        assert_eq!(self.header("content-type"), "application/json", "P-SDK-24");
        assert_eq!(self.header("x-pusher-key"), app.key);
        assert_eq!(self.header("x-pusher-signature"), hmac_hex(&app.secret, &self.body));
        assert!(self.json()["time_ms"].is_u64(), "P-SDK-24: {}", self.body);
    }
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// With 302 to this location.
    Redirect(String),
    /// Not at all; the connection stays open.
    Hang,
}

type Policy = dyn Fn(usize, &str) -> Reply + Send + Sync;

/// The running receiver; its thread ends with the process.
pub struct Receiver {
    /// Its address.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<Mutex<usize>>,
}

impl Receiver {
    /// Answers 200 to everything.
    pub fn start() -> Self {
        Self::with(|_, _| Reply::Status(200))
    }

    /// Answers as `policy` decides from the number of the request, starting at 0, and its body.
    pub fn with(policy: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (received, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (kept, counted, policy): (_, _, Arc<Policy>) =
            (Arc::clone(&received), Arc::clone(&connections), Arc::new(policy));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *counted.lock().expect("no holder panics") += 1;
                let (kept, policy) = (Arc::clone(&kept), Arc::clone(&policy));
                std::thread::spawn(move || serve(stream, &kept, &*policy));
            }
        });
        Self { address, received, connections }
    }

    /// Its URL over http.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The requests received so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no holder panics").clone()
    }

    /// The number of requests received so far.
    pub fn count(&self) -> usize {
        self.received.lock().expect("no holder panics").len()
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> usize {
        *self.connections.lock().expect("no holder panics")
    }

    /// Waits until `done` returns a value for the received requests.
    pub fn until<T>(&self, what: &str, done: impl Fn(&[Received]) -> Option<T>) -> T {
        self.until_within(what, PATIENCE, done)
    }

    /// Like [`Receiver::until`], with another limit.
    pub fn until_within<T>(&self, what: &str, limit: Duration, done: impl Fn(&[Received]) -> Option<T>) -> T {
        eventually_within(what, limit, || done(&self.received.lock().expect("no holder panics")))
    }

    /// Events in Pusher's format that were answered 2xx and whose channel is this one, in order.
    pub fn events_of(&self, channel: &str) -> Vec<Value> {
        let taken = self.received().into_iter().filter(|received| received.status < 300);
        taken.flat_map(|received| received.events()).filter(|event| event["channel"] == channel).collect()
    }

    /// Waits for this many events of a channel; returns their names.
    #[track_caller]
    pub fn await_names(&self, channel: &str, names: &[&str]) {
        eventually(&format!("{names:?} on {channel}"), || (self.events_of(channel).len() >= names.len()).then_some(()));
        let found: Vec<String> =
            self.events_of(channel).iter().map(|event| event["name"].as_str().expect("a name").to_owned()).collect();
        assert_eq!(found, names, "{channel}");
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Received>>, policy: &Policy) {
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    let mut reader = BufReader::new(stream);
    while let Some((headers, body)) = read_request(&mut reader) {
        let reply = {
            let mut kept = kept.lock().expect("no holder panics");
            let reply = policy(kept.len(), &body);
            let status = match &reply {
                Reply::Status(status) => *status,
                Reply::Redirect(_) => 302,
                Reply::Hang => 999,
            };
            kept.push(Received { headers, body, at: Instant::now(), status });
            reply
        };
        let answer = match reply {
            Reply::Status(status) => format!("HTTP/1.1 {status} Some\r\nContent-Length: 4\r\n\r\nsaid"),
            Reply::Redirect(to) => format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"),
            Reply::Hang => continue,
        };
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The header lines and the body of the next request; `None` at the end of the connection.
pub fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(Vec<(String, String)>, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    assert!(line.starts_with("POST "), "{line}");
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((headers, String::from_utf8(body).ok()?))
}
