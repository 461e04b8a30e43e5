//! `subscribe` as people run it: against Relay itself, on both drivers and with several shards, and against servers that
//! answer wrongly.
//!
//! Relay is the binary beside the load generator's, as it is built for tests of the workspace; without it the tests that
//! need it say so and end.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tungstenite::Message;

/// A Relay of this test's own.
struct Relay {
    child: Child,
    address: String,
    data: PathBuf,
}

impl Relay {
    fn start(io: &str, shards: &str) -> Self {
        let program = std::env::var_os("RELAY_TEST_BINARY").map_or_else(beside, PathBuf::from);
        assert!(program.exists(), "{} is not there: `cargo build --bin relay` makes it", program.display());
        let data = std::env::temp_dir().join(format!("relay-loadgen-subscribe-{}-{io}-{shards}", std::process::id()));
        let mut child = Command::new(program)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .args(["--admin-listen", "off", "--io", io, "--shards", shards, "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut relay = Self { child, address: String::new(), data };
        let line = lines.map_while(Result::ok).find(|line| line.contains("listening on")).expect("it says where");
        let (_, rest) = line.split_once("listening on ").expect("just found");
        relay.address = rest.split(' ').next().expect("an address").to_owned();
        relay
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn beside() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_relay-loadgen")).with_file_name("relay")
}

/// Runs the scenario for half a second: exit code and report.
fn subscribe(address: &str, options: &[&str]) -> (i32, Value) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_relay-loadgen"))
        .args(["subscribe", "--url", &format!("ws://{address}"), "--connections", "6", "--duration-seconds", "0.5"])
        .args(["--subscribes-per-second", "200", "--workers", "2", "--json"])
        .args(options)
        .output()
        .expect("the program starts");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    assert!(!report.is_null(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("it ended by itself"), report)
}

/// Goal: every subscription is verified, answered and counted, whether it stays or leaves, one at a time or pipelined,
/// by the clock or as fast as it is answered. On a busy machine the run may be called invalid.
#[test]
fn relay_answers_every_subscription() {
    for (io, shards) in [("uring", "1"), ("epoll", "2")] {
        let relay = Relay::start(io, shards);
        for options in [&["--channels", "3"][..], &["--stay", "--channels", "20", "--pipeline", "4"]] {
            let (code, report) = subscribe(&relay.address, options);
            assert!([0, 3].contains(&code), "{report:#}");
            assert_eq!(report["figures"]["subscribed"], 100.0, "{report:#}");
            assert_eq!(report["times-ms"]["answer"]["count"], 100);
        }
        let (code, report) = subscribe(&relay.address, &["--subscribes-per-second", "0", "--pipeline", "8"]);
        assert!([0, 3].contains(&code), "{report:#}");
        assert!(report["figures"]["subscribed"].as_f64() > Some(100.0), "{report:#}");
        // All pairs of six connections and five channels, and then it is over.
        let all = ["--subscribes-per-second", "0", "--stay", "--channels", "5"];
        let (code, report) = subscribe(&relay.address, &all);
        assert!([0, 3].contains(&code), "{report:#}");
        assert_eq!(report["figures"]["subscribed"], 30.0, "{report:#}");
    }
}

/// Goal: a wrong secret is reported before anything is subscribed.
#[test]
fn a_wrong_secret_is_named() {
    let relay = Relay::start("epoll", "1");
    let (code, report) = subscribe(&relay.address, &["--secret", "wrong"]);
    assert_eq!(code, 1);
    assert!(report["problems"].to_string().contains("check --secret"), "{report:#}");
}

/// How the test's server answers a subscription.
#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Echoes,
    /// The tenth of a connection with an error.
    Refuses,
    /// The tenth for another channel.
    Confuses,
    /// The tenth by closing the connection.
    Leaves,
}

/// An independent server for the length of a test.
fn serve(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            std::thread::spawn(move || converse(stream, behaviour));
        }
    });
    address
}

fn converse(stream: TcpStream, behaviour: Behaviour) {
    use std::io::Write;
    stream.set_nodelay(true).expect("a socket");
    let mut first = [0; 4];
    stream.peek(&mut first).expect("a request");
    if &first == b"POST" {
        // The preflight's one request.
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").expect("it listens");
        return;
    }
    let mut socket = tungstenite::accept(stream).expect("a WebSocket handshake");
    let data = json!({"socket_id": "1.2"}).to_string();
    let established = json!({"event": "pusher:connection_established", "data": data}).to_string();
    socket.send(Message::text(established)).expect("it listens");
    let mut subscriptions = 0;
    while let Ok(Message::Text(text)) = socket.read() {
        let message: Value = serde_json::from_str(text.as_str()).expect("JSON");
        let is_subscribe = message["event"] == "pusher:subscribe";
        subscriptions += u32::from(is_subscribe);
        let mut reply = json!({
            "event": "pusher_internal:subscription_succeeded", "channel": message["data"]["channel"], "data": "{}"
        });
        match behaviour {
            Behaviour::Echoes => {}
            Behaviour::Leaves if subscriptions == 10 => return,
            Behaviour::Refuses if subscriptions == 10 => {
                reply = json!({"event": "pusher:error", "data": {"code": 4009, "message": "no"}});
            }
            Behaviour::Confuses if subscriptions == 10 => reply["channel"] = json!("private-another"),
            Behaviour::Refuses | Behaviour::Confuses | Behaviour::Leaves => {}
        }
        // An echo is the same text; a reply goes to a subscription alone.
        let reply = if behaviour == Behaviour::Echoes { text.to_string() } else { reply.to_string() };
        if (is_subscribe || behaviour == Behaviour::Echoes) && socket.send(Message::text(reply)).is_err() {
            return;
        }
    }
}

/// Goal: the same messages against a server that echoes them pass, and fail where it should answer.
#[test]
fn an_echo_is_expected_where_asked_for() {
    let address = serve(Behaviour::Echoes).to_string();
    for options in [&["--echo"][..], &["--echo", "--stay", "--channels", "30"]] {
        let (code, report) = subscribe(&address, options);
        assert!([0, 3].contains(&code), "{report:#}");
        assert_eq!(report["figures"]["subscribed"], 100.0, "{report:#}");
    }
    let (code, report) = subscribe(&address, &["--connect-timeout-seconds", "0.3"]);
    assert_eq!(code, 1, "{report:#}");
}

/// Goal: refusals, wrong replies and connections that end are counted under their names and fail the run. Method: one
/// connection, of whose hundred subscriptions the tenth is treated badly.
#[test]
fn misbehaviour_is_counted() {
    std::thread::scope(|scope| {
        for (behaviour, figure) in
            [(Behaviour::Refuses, "refused"), (Behaviour::Confuses, "wrong-replies"), (Behaviour::Leaves, "refused")]
        {
            scope.spawn(move || {
                // The first of the ten is by which the connection is known to be ready.
                let options = ["--connections", "1", "--workers", "1", "--stay", "--channels", "100"];
                let (code, report) = subscribe(&serve(behaviour).to_string(), &options);
                assert_eq!(code, 1, "{report:#}");
                assert_eq!(report["figures"][figure], 1.0, "{report:#}");
            });
        }
    });
}
