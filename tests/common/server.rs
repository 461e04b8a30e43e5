//! A `relay serve` process of a test's own, on ports that the kernel picked, with a data directory that ends with it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli;
use super::http::{self, Response};
use super::sign::App;
use super::signal::signal_process;
use super::{PATIENCE, eventually};

/// The I/O driver that a server must use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Driver {
    /// `--io uring`.
    Uring,
    /// `--io epoll`.
    Epoll,
}

impl Driver {
    /// The value of `--io`.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }

    /// Its name in the line at start.
    pub fn word(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The options of a test's server.
pub struct ServerOptions {
    /// `--io`.
    pub driver: Driver,
    /// `--shards`.
    pub shards: u16,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Apps to create before the start: a name for the test, and `key=value` settings.
    pub apps: Vec<(&'static str, Vec<&'static str>)>,
    /// Webhook endpoints of `main` to create before the start: arguments of `webhook add`.
    pub webhooks: Vec<Vec<String>>,
    /// A store to serve instead of a fresh one.
    pub data: Option<PathBuf>,
    /// The build to run.
    pub binary: PathBuf,
}

impl ServerOptions {
    /// Two shards and one app, `main`, with client events on.
    pub fn new(driver: Driver) -> Self {
        Self {
            driver,
            shards: 2,
            arguments: Vec::new(),
            apps: vec![("main", vec!["client_events=true"])],
            webhooks: Vec::new(),
            data: None,
            binary: cli::binary().into(),
        }
    }

    /// Adds arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Adds a webhook endpoint of the app `main`.
    pub fn webhook(mut self, url: &str, arguments: &[&str]) -> Self {
        let arguments = ["--url", url].into_iter().chain(arguments.iter().copied());
        self.webhooks.push(arguments.map(str::to_owned).collect());
        self
    }

    /// With the admin API, on a free port.
    pub fn admin(self) -> Self {
        self.with(&["--admin-listen", "127.0.0.1:0"])
    }

    /// Sets the number of shards.
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = shards;
        self
    }

    /// Adds an app.
    pub fn app(mut self, name: &'static str, settings: &[&'static str]) -> Self {
        self.apps.push((name, settings.to_vec()));
        self
    }
}

/// A running server. It is killed when dropped, and also when the test process dies.
pub struct TestServer {
    /// The public port.
    pub address: SocketAddr,
    /// The health port.
    pub health: SocketAddr,
    /// The admin API, if the test asked for it.
    pub admin: Option<SocketAddr>,
    /// Its driver.
    pub driver: Driver,
    /// Its data directory.
    pub data: PathBuf,
    /// The webhook endpoints, as `webhook add` showed them.
    pub webhooks: Vec<Value>,
    apps: BTreeMap<&'static str, App>,
    process: RunningProcess,
    _directory: Option<TempDir>,
}

impl TestServer {
    /// A server with the default options.
    pub fn start(driver: Driver) -> Self {
        Self::start_with(ServerOptions::new(driver))
    }

    /// A server of another build.
    #[track_caller]
    pub fn start_binary(binary: &Path, options: ServerOptions) -> Self {
        Self::start_with(ServerOptions { binary: binary.to_owned(), ..options })
    }

    /// Creates the apps, starts the process and waits for its line.
    #[track_caller]
    pub fn start_with(options: ServerOptions) -> Self {
        let directory = options.data.is_none().then(data_directory);
        let data = match (&options.data, &directory) {
            (Some(path), _) => path.clone(),
            (None, Some(directory)) => directory.path().to_owned(),
            (None, None) => unreachable!("one of the two is there"),
        };
        let apps: BTreeMap<_, _> =
            options.apps.iter().map(|(name, settings)| (*name, cli::create_app(&data, settings))).collect();
        let webhooks = options.webhooks.iter().map(|arguments| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cli::add_webhook(&data, &apps["main"], &arguments)
        });
        let webhooks = webhooks.collect();
        Self::serve(options, data, (apps, webhooks), directory)
    }

    /// Stops this server as SIGKILL does and starts another on the same store.
    pub fn restart(self, arguments: &[&str]) -> Self {
        let Self { driver, data, apps, webhooks, mut process, _directory, .. } = self;
        process.kill();
        let options = ServerOptions { apps: Vec::new(), ..ServerOptions::new(driver) }.with(arguments);
        Self::serve(options, data, (apps, webhooks), _directory)
    }

    #[track_caller]
    fn serve(
        options: ServerOptions,
        data: PathBuf,
        (apps, webhooks): (BTreeMap<&'static str, App>, Vec<Value>),
        directory: Option<TempDir>,
    ) -> Self {
        let shards = options.shards.to_string();
        let mut arguments = vec!["serve", "--shards", &shards, "--io", options.driver.flag()];
        arguments.extend(["--data", data.to_str().expect("a UTF-8 path")]);
        for (flag, value) in [("--listen", "127.0.0.1:0"), ("--metrics-listen", "127.0.0.1:0")] {
            if !options.arguments.iter().any(|argument| argument == flag) {
                arguments.extend([flag, value]);
            }
        }
        arguments.extend(options.arguments.iter().map(String::as_str));
        let mut process = RunningProcess::of(&options.binary, &arguments);
        let line = process.listening_line();
        let told = format!("({}, {} shard", options.driver.word(), options.shards);
        assert!(line.contains(&told), "{told:?} in {line:?}");
        let (address, health) = addresses(&line);
        let admin = line.contains("admin API on ").then(|| address_after(&line, "admin API on "));
        Self { address, health, admin, driver: options.driver, data, webhooks, apps, process, _directory: directory }
    }

    /// A server that the test started in another way, with the same methods. It is not stopped when dropped.
    pub fn adopt(address: SocketAddr, app: App) -> Self {
        let process = RunningProcess::spawn(Command::new("true"));
        Self {
            address,
            health: address,
            admin: None,
            driver: Driver::Epoll,
            data: PathBuf::new(),
            webhooks: Vec::new(),
            apps: [("main", app)].into(),
            process,
            _directory: None,
        }
    }

    /// The app `main`.
    pub fn app(&self) -> &App {
        self.named_app("main")
    }

    /// An app by the name that the test gave it.
    pub fn named_app(&self, name: &str) -> &App {
        self.apps.get(name).unwrap_or_else(|| panic!("an app named {name}"))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS stands in status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") * 1024
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        signal_process(self.pid(), name);
    }

    /// Stops the process for a time, as a debugger or a starved machine does.
    pub fn freeze(&self, time: Duration) {
        self.signal("STOP");
        std::thread::sleep(time);
        self.signal("CONT");
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait(limit)
    }

    /// Fails when the process ended.
    #[track_caller]
    pub fn assert_alive(&self) {
        http::get(self.address, "/up").expect(200);
    }

    /// Its standard error so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A signed `POST /events`.
    #[track_caller]
    pub fn post_events(&self, app: &App, body: &Value) -> Response {
        self.post_signed(app, &app.path("/events"), body.to_string().as_bytes())
    }

    /// A signed POST with any body.
    #[track_caller]
    pub fn post_signed(&self, app: &App, path: &str, body: &[u8]) -> Response {
        let headers = [("Content-Type", "application/json")];
        http::ask(self.address, "POST", &app.sign("POST", path, body), &headers, body)
    }

    /// Publishes and expects 200 `{}`.
    #[track_caller]
    pub fn publish(&self, app: &App, channel: &str, name: &str, data: &str) {
        let answer = self.post_events(app, &json!({"name": name, "channels": [channel], "data": data})).expect(200);
        assert_eq!(answer.text(), "{}");
    }

    /// Waits until the app's counter of subscriptions of a channel has this value.
    pub fn await_subscriptions(&self, app: &App, channel: &str, count: u64) {
        eventually(&format!("{count} subscriptions of {channel}"), || {
            let body = json!({"name": "count", "channel": channel, "data": "", "info": "subscription_count"});
            let answer = self.post_events(app, &body).expect(200).json();
            (answer["channels"][channel]["subscription_count"] == count).then_some(())
        });
    }
}

/// A child process whose output is kept.
pub struct RunningProcess {
    child: Child,
    lines: Mutex<mpsc::Receiver<String>>,
    log: Arc<Mutex<String>>,
    seen: Vec<String>,
}

impl RunningProcess {
    /// `relay` with these arguments.
    pub fn relay(arguments: &[&str]) -> Self {
        Self::of(Path::new(&cli::binary()), arguments)
    }

    /// A build of `relay` with these arguments.
    pub fn of(binary: &Path, arguments: &[&str]) -> Self {
        let mut command = cli::command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary).args(arguments);
        Self::spawn(command)
    }

    /// Any command; it should be one that dies with this process.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (answer, spawned) = mpsc::channel();
        SPAWNER.send((command, answer)).expect("the spawner lives as long as the process");
        let mut child = spawned.recv().expect("the spawner answers").expect("the command starts");
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let log = Arc::new(Mutex::new(String::new()));
        let (mut stderr, kept) = (child.stderr.take().expect("stderr is piped"), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match stderr.read(&mut buffer) {
                    Ok(count @ 1..) => {
                        kept.lock().expect("no holder panics").push_str(&String::from_utf8_lossy(&buffer[..count]));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => break,
                }
            }
        });
        Self { child, lines: Mutex::new(lines), log, seen: Vec::new() }
    }

    /// The next line of standard output, if one comes in time.
    pub fn line(&mut self, limit: Duration) -> Option<String> {
        let line = self.lines.get_mut().expect("no holder panics").recv_timeout(limit).ok()?;
        self.seen.push(line.clone());
        Some(line)
    }

    /// The line with the server's address.
    #[track_caller]
    pub fn listening_line(&mut self) -> String {
        loop {
            match self.line(PATIENCE) {
                Some(line) if line.contains(" listening on ") => return line,
                Some(_) => {}
                None => {
                    self.kill();
                    std::thread::sleep(std::time::Duration::from_millis(100)); // For the reader of standard error.
                    panic!("no line says where it listens; stdout {:?}; stderr:\n{}", self.seen, self.log())
                }
            }
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no holder panics").clone()
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(start.elapsed() < limit, "the process did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the log of process {} ends:\n{}", self.child.id(), tail(&self.log(), 4000));
        }
    }
}

/// Address and health address from the line at start.
pub fn addresses(line: &str) -> (SocketAddr, SocketAddr) {
    (address_after(line, " listening on "), address_after(line, "health on "))
}

/// The address after these words of the line at start.
pub fn address_after(line: &str, words: &str) -> SocketAddr {
    let rest = line.split(words).nth(1).unwrap_or_else(|| panic!("{words:?} in {line:?}"));
    let end = rest.find([' ', ',', ')']).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("an address after {words:?} in {line:?}"))
}

/// A fresh data directory inside `target/`, removed when dropped; directories of dead test processes are removed first.
pub fn data_directory() -> TempDir {
    static SWEEP: LazyLock<()> = LazyLock::new(|| sweep(Path::new(env!("CARGO_TARGET_TMPDIR"))));
    LazyLock::force(&SWEEP);
    let prefix = format!("relay-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made")
}

fn sweep(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("relay-").and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn tail(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

type Spawn = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Children are spawned by one thread that never ends: the kernel's parent-death signal, which `setpriv` asks for,
/// is sent when the spawning *thread* ends.
static SPAWNER: LazyLock<mpsc::Sender<Spawn>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Spawn>();
    std::thread::spawn(move || {
        for (mut command, answer) in receiver {
            let _ = answer.send(command.spawn());
        }
    });
    sender
});
