//! What the tests against a real server share: a Relay of the test's own, a run in the background, and a subscriber
//! that says when events flow.

#![allow(dead_code, reason = "each test crate uses its own part of this module")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

pub(crate) mod proxy;
#[path = "../../../tests/common/signal.rs"]
mod signal;
pub(crate) use signal::signal_process;

/// The load generator.
pub(crate) const LOADGEN: &str = env!("CARGO_BIN_EXE_relay-loadgen");

/// Longest wait for something that should come soon, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the condition gives something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "never came: {what}");
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(5)); // Between two looks at /proc, which has no event to wait for.
    }
}

/// The server beside the load generator, built first where it is missing: Cargo gives a test only its own programs.
fn relay() -> &'static Path {
    static RELAY: OnceLock<PathBuf> = OnceLock::new();
    RELAY.get_or_init(|| {
        let path = Path::new(LOADGEN).with_file_name("relay");
        if !path.is_file() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
            let build = ["build", "--locked", "--package", "relay", "--bin", "relay"];
            let status = Command::new(env!("CARGO")).args(build).args(profile).current_dir(folder).status();
            assert!(status.expect("cargo starts").success(), "relay could not be built");
        }
        path
    })
}

/// A folder that ends with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("relay-loadgen-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A `relay serve --dev` on a port that the kernel picked.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    child: Child,
    data: Folder,
}

impl Relay {
    pub(crate) fn start() -> Self {
        Self::start_with("auto", 1)
    }

    /// A server on this driver with so many shards.
    pub(crate) fn start_with(driver: &str, shards: usize) -> Self {
        let data = Folder::new();
        let mut child = Command::new(relay())
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--io", driver])
            .args(["--shards", &shards.to_string(), "--admin-listen", "off", "--data", &data.path("data")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("relay starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = lines.next().expect("a line at start").expect("text");
        let address = line.split(" listening on ").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.expect("it says where it listens").parse().expect("an address");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { address, child, data }
    }

    /// Runs a command of Relay's on the server's data.
    pub(crate) fn command(&self, arguments: &[&str]) {
        let status = Command::new(relay()).args(arguments).args(["--data", &self.data.path("data")]).output();
        let output = status.expect("relay starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a second app, and waits until the server knows it.
    pub(crate) fn create_app(&self, id: &str, key: &str, secret: &str) {
        self.command(&["app", "create", "--id", id, "--key", key, "--secret", secret]);
        eventually("the new app", || {
            let mut stream = TcpStream::connect(self.address).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).ok()?;
            write!(stream, "GET /up/{id} HTTP/1.1\r\nHost: relay\r\n\r\n").ok()?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).ok()?;
            answer.ends_with(b"200").then_some(())
        });
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal_process(self.child.id(), name);
    }

    /// A subscriber beside those of the run.
    pub(crate) fn subscribe(&self, channel: &str) -> Subscriber {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        // It ends by a reset, as all connections of a run do: its port would wait for a minute like one that they left.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
        let url = format!("{}/app/app-key?protocol=7", self.url());
        let (mut socket, _) = tungstenite::client(url, stream).expect("a handshake");
        let established = read(&mut socket);
        assert_eq!(established["event"], "pusher:connection_established");
        let data: Value = serde_json::from_str(established["data"].as_str().expect("text")).expect("JSON");
        let auth = sign(&format!("{}:{channel}", data["socket_id"].as_str().expect("an id")));
        let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth}});
        socket.send(Message::text(subscribe.to_string())).expect("it listens");
        assert_eq!(read(&mut socket)["event"], "pusher_internal:subscription_succeeded");
        Subscriber(socket)
    }

    /// Connections that are open, seen from the server; and those of it that wait for ports to be free again.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
        let port = format!(":{:04X}", self.address.port());
        let of = |state: &str, column: usize| {
            let is_ours = |line: &&str| {
                let fields: Vec<_> = line.split_ascii_whitespace().collect();
                fields.len() > 3 && fields[column].ends_with(&port) && fields[3] == state
            };
            table.lines().filter(is_ours).count()
        };
        (of("01", 1), of("06", 1) + of("06", 2))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `auth` of the app of `--dev`, by an independent signer.
fn sign(text: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(b"app-secret").expect("any length");
    hmac.update(text.as_bytes());
    format!("app-key:{}", hex::encode(hmac.finalize().into_bytes()))
}

fn read(socket: &mut WebSocket<TcpStream>) -> Value {
    let message = loop {
        match socket.read() {
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => break read.expect("an event comes"),
        }
    };
    serde_json::from_str(message.to_text().expect("text")).expect("JSON")
}

/// A subscriber that is no part of the run.
pub(crate) struct Subscriber(WebSocket<TcpStream>);

impl Subscriber {
    /// Waits for so many events; gives the last one.
    pub(crate) fn wait(&mut self, count: usize) -> Value {
        (0..count).map(|_| read(&mut self.0)).last().expect("more than none")
    }
}

/// A run of the load generator in the background. It is killed if the test fails.
pub(crate) struct Run {
    child: Child,
    children: Vec<u32>,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) error: String,
}

impl Run {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(Command::new(LOADGEN).args(arguments))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self { child: child.expect("the load generator starts"), children: Vec::new() }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal_process(self.child.id(), name);
    }

    /// Processes that it started, by the role that their command line names.
    pub(crate) fn children(&mut self, role: &str) -> Vec<u32> {
        let own = self.child.id().to_string();
        let processes = fs::read_dir("/proc").expect("Linux").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
        let is_child = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            parent == Some(&own) && String::from_utf8_lossy(&line).trim_end_matches('\0').ends_with(role)
        };
        let found: Vec<_> = pids.filter(is_child).collect();
        self.children.extend(&found);
        found
    }

    /// Waits for something to happen while it runs.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        eventually(what, || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                let mut error = String::new();
                let _ = self.child.stderr.take().expect("it is piped").read_to_string(&mut error);
                panic!("it ended before {what}: {status} {error}");
            }
            condition().then_some(())
        });
    }

    /// Waits for its end; all that it started must be gone by then.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Ended {
        let status = eventually("the end of the run", || self.child.try_wait().expect("a child"));
        let (mut output, mut error) = (String::new(), String::new());
        self.child.stdout.take().expect("it is piped").read_to_string(&mut output).expect("text");
        self.child.stderr.take().expect("it is piped").read_to_string(&mut error).expect("text");
        for pid in std::mem::take(&mut self.children) {
            eventually("the end of its processes", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        }
        let report = serde_json::from_str(&output).unwrap_or(Value::Null);
        Ended { code: status.code(), report, error }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(crate) fn figure(&self, name: &str) -> f64 {
        self.report["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {:#}", self.report))
    }

    pub(crate) fn cut_short(&self) -> &str {
        self.report["cut-short"].as_str().unwrap_or_else(|| panic!("not cut short: {:#} {}", self.report, self.error))
    }
}

/// A core that this process may use.
pub(crate) fn allowed_core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("Linux").trim();
    cores.split([',', '-']).next().expect("at least one core").to_owned()
}
