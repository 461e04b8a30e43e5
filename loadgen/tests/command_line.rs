//! The program as people run it: against a server made for the test, against none, and with wrong arguments.
//!
//! The server is an independent one (tungstenite, serde_json) that can be told to misbehave, so that what the load
//! generator counts is shown to be counted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_relay-loadgen")).args(arguments).output().expect("the program starts")
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// How the test's server treats events.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    Honest,
    Loses,
    Doubles,
    Swaps,
    Misroutes,
    Damages,
    Refuses,
    Dies,
}

type Subscribers = Arc<Mutex<Vec<WebSocket<TcpStream>>>>;

/// A server of the Pusher protocol for the length of a test.
fn serve(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    let subscribers = Subscribers::default();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let subscribers = Arc::clone(&subscribers);
            std::thread::spawn(move || converse(stream, behaviour, &subscribers));
        }
    });
    address
}

fn converse(stream: TcpStream, behaviour: Behaviour, subscribers: &Subscribers) {
    stream.set_nodelay(true).expect("a socket");
    let mut first = [0; 4];
    stream.peek(&mut first).expect("a request");
    if &first == b"POST" {
        answer_publishes(stream, behaviour, subscribers);
        return;
    }
    let mut socket = tungstenite::accept(stream).expect("a WebSocket handshake");
    let data = json!({"socket_id": "1.2", "activity_timeout": 120}).to_string();
    let established = json!({"event": "pusher:connection_established", "data": data}).to_string();
    socket.send(Message::text(established)).expect("it listens");
    // The preflight connection leaves here.
    let Ok(message) = socket.read() else { return };
    let subscribe: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
    assert_eq!(subscribe["event"], "pusher:subscribe");
    let channel = &subscribe["data"]["channel"];
    let succeeded = json!({"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}"});
    let mut all = subscribers.lock().expect("no test thread panics here");
    socket.send(Message::text(succeeded.to_string())).expect("it listens");
    all.push(socket);
}

fn answer_publishes(mut stream: TcpStream, behaviour: Behaviour, subscribers: &Subscribers) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut events = 0;
    while let Some(body) = read_request(&mut reader) {
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let is_probe = body["name"] == "probe";
        let status = if behaviour == Behaviour::Refuses && !is_probe { "503 Service Unavailable" } else { "200 OK" };
        if !is_probe && behaviour != Behaviour::Refuses {
            deliver(&body, events, behaviour, subscribers);
            events += 1;
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().expect("a number");
        }
        if line == "\r\n" {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            return Some(body);
        }
    }
}

/// Sends an event to all subscribers, and something is wrong with the tenth, for the first subscriber.
fn deliver(body: &Value, number: usize, behaviour: Behaviour, subscribers: &Subscribers) {
    let mut all = subscribers.lock().expect("no test thread panics here");
    if behaviour == Behaviour::Dies && number == 10 {
        all.clear();
    }
    for (index, socket) in all.iter_mut().enumerate() {
        let data = body["data"].as_str().expect("a string").to_owned();
        let mut event = json!({"event": body["name"], "channel": body["channels"][0], "data": data});
        let mut copies = 1;
        if index == 0 && number == 10 {
            match behaviour {
                Behaviour::Loses => copies = 0,
                Behaviour::Doubles => copies = 2,
                Behaviour::Misroutes => event["channel"] = json!("another"),
                Behaviour::Damages => event["data"] = json!(data.replace("quick", "quack")),
                // Its sequence is raised by one, and that of the next is lowered.
                Behaviour::Swaps => event["data"] = json!(swap(&data, "0000000a", "0000000b")),
                Behaviour::Honest | Behaviour::Refuses | Behaviour::Dies => {}
            }
        }
        if index == 0 && number == 11 && behaviour == Behaviour::Swaps {
            event["data"] = json!(swap(&data, "0000000b", "0000000a"));
        }
        for _ in 0..copies {
            // A subscriber that left is the load generator's end of the run.
            let _ = socket.send(Message::text(event.to_string()));
        }
    }
}

fn swap(data: &str, from: &str, to: &str) -> String {
    assert!(data.contains(from), "the payload contains the sequence");
    data.replacen(from, to, 1)
}

/// Runs `fan-out` against a server that behaves so: exit code and report.
fn fan_out(behaviour: Behaviour) -> (i32, Value) {
    let url = format!("ws://{}", serve(behaviour));
    let output = run(&[
        "fan-out",
        "--url",
        &url,
        "--subscribers",
        "4",
        "--events-per-second",
        "100",
        "--duration-seconds",
        "0.5",
        "--warmup-seconds",
        "0",
        "--workers",
        "2",
        "--json",
    ]);
    let report = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    (output.status.code().expect("it ended by itself"), report)
}

/// Goal: an honest server passes, with every delivery counted. On a busy machine the run may be called invalid.
#[test]
fn an_honest_server_passes() {
    let (code, report) = fan_out(Behaviour::Honest);
    assert!([0, 3].contains(&code), "{report:#}");
    assert_eq!(report["figures"]["published"], 50.0);
    assert_eq!(report["figures"]["delivered"], 200.0);
    assert_eq!(report["times-ms"]["delivery"]["count"], 200);
}

/// Goal: each way to misbehave is counted under its name and fails the run. Method: one event in fifty is treated badly.
#[test]
fn misbehaviour_is_counted() {
    let cases = [
        (Behaviour::Loses, BTreeMap::from([("loss", 1.0)])),
        (Behaviour::Doubles, BTreeMap::from([("duplicates", 1.0)])),
        (Behaviour::Swaps, BTreeMap::from([("disordered", 1.0)])),
        (Behaviour::Misroutes, BTreeMap::from([("wrong-channel", 1.0), ("loss", 1.0)])),
        (Behaviour::Damages, BTreeMap::from([("damaged", 1.0), ("loss", 1.0)])),
        (Behaviour::Refuses, BTreeMap::from([("refused", 50.0)])),
    ];
    std::thread::scope(|scope| {
        for (behaviour, counts) in cases {
            scope.spawn(move || {
                let (code, report) = fan_out(behaviour);
                assert_eq!(code, 1, "{behaviour:?} {report:#}");
                for name in ["loss", "duplicates", "disordered", "wrong-channel", "damaged", "refused"] {
                    let expected = counts.get(name).copied().unwrap_or(0.0);
                    assert_eq!(report["figures"][name], expected, "{behaviour:?} {name}");
                }
            });
        }
    });
}

/// Goal: a server that ends every connection in the middle gives a partial report, soon.
#[test]
fn a_server_that_goes_away_ends_the_run() {
    let begin = Instant::now();
    let (code, report) = fan_out(Behaviour::Dies);
    assert_eq!(code, 1);
    assert_eq!(report["figures"]["delivered"], 40.0, "{report:#}");
    assert!(report["problems"].to_string().contains("the server closed every connection"), "{report:#}");
    assert!(begin.elapsed() < Duration::from_secs(20));
}

/// Goal: a dead and a silent server are each one clear sentence, and no hang.
#[test]
fn bad_servers_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let silent = format!("ws://{}", listener.local_addr().expect("it is bound"));
    let output = run(&["fan-out", "--url", &silent]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error_of(&output).contains("accepts connections but does not answer"), "{}", error_of(&output));
    drop(listener);
    let output = run(&["idle", "--url", &silent]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error_of(&output).contains("no server at"), "{}", error_of(&output));
}

/// Goal: usage errors end with code 2 and explain the fix, before anything is connected.
#[test]
fn wrong_arguments_are_refused() {
    let cases: &[(&[&str], &str)] = &[
        (&["idle", "--url", "wss://localhost"], "must begin with ws://"),
        (&["idle", "--connections", "10000000", "--workers", "1"], "need --workers"),
        (&["idle", "--server-pid", "4294967"], "no such process"),
        (&["many-to-many", "--channel", "public"], "must begin with private-"),
        (&["fan-out", "--fail-if", "p99"], "is not a condition"),
        (&["fan-out", "--floor", "--transport", "sse"], "--floor sends frames of WebSockets"),
        (&["fan-out", "--transport", "udp"], "possible values: ws, sse, poll"),
        (&["resume", "--channels", "2"], "--channels-per-subscriber must be"),
        (&["resume", "--channel", "presence-a"], "presence channels are not supported"),
        (&["resume", "--publishers", "51"], "each channel has one publisher"),
        (&["resume", "--events-per-second", "0"], "must be above 0"),
        (&["run", "/nonexistent.toml"], "cannot read /nonexistent.toml"),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(error_of(&output).contains(expected), "{arguments:?}: {}", error_of(&output));
    }
}

/// Goal: the floor delivers everything, and thresholds, log and page come from a scenario file that is overridden.
#[test]
fn the_floor_runs_from_a_file() {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("Linux").trim();
    let core = cores.split([',', '-']).next().expect("at least one core");
    let folder = std::env::temp_dir().join(format!("relay-loadgen-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let text = format!(
        "scenario = \"floor\"\nsubscribers = 8\nevents_per_second = 100\nduration_seconds = 9\nfloor_core = {core}\n\
         json = true\nfail_if = \"loss=0\"\nhdr = {:?}\nhtml = {:?}\ncsv = {:?}\nsvg = {:?}\n",
        path("a.hlog"),
        path("a.html"),
        path("a.csv"),
        path("charts")
    );
    std::fs::write(path("floor.toml"), text).expect("the folder is there");
    let output = run(&["run", &path("floor.toml"), "--duration-seconds", "0.5"]);
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    assert_eq!(report["figures"]["floor-send-sends"], 400.0);
    assert!(report["figures"]["floor-send-cpu-per-send-ns"].as_f64().expect("a number") > 0.0);
    assert!(report["figures"]["delivered"].as_f64() >= Some(400.0));
    assert!(std::fs::read_to_string(path("a.hlog")).expect("it was written").contains("Tag=delivery"));
    assert!(std::fs::read_to_string(path("a.html")).expect("it was written").contains("<svg"));
    assert!(std::fs::read_to_string(path("a.csv")).expect("it was written").contains(",delivery,"));
    assert!(std::fs::read_to_string(path("charts/floor-delivery-spectrum.svg")).expect("written").starts_with("<svg"));
    let output = run(&["run", &path("floor.toml"), "--duration-seconds", "0.2", "--fail-if", "p50<1ns"]);
    assert_eq!(output.status.code(), Some(99), "{}", error_of(&output));
    std::fs::remove_dir_all(&folder).expect("it is ours");
}
