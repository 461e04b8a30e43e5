//! `relay doctor --public` behind nginx, HAProxy and Caddy from Debian's packages, as ordinary processes on free ports:
//! configured as docs/proxies.md says, and with one mistake at a time, which must be named with the hop and the line.

mod caddy;
mod certificates;
mod endpoint;
mod faults;
mod haproxy;
mod nginx;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::http::HttpConnection;
use crate::common::server::{Driver, RunningProcess, ServerOptions, TestServer, data_directory};
use crate::common::stream::EventStream;
use crate::common::{cli, eventually, tools};
use crate::tree;
use certificates::Certificate;

/// A proxy of Debian.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Proxy {
    Nginx,
    Haproxy,
    Caddy,
}

impl Proxy {
    /// The language of its block in docs/proxies.md, which is also the doctor's name of it.
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// Its name in reports.
    fn shown(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
        }
    }

    /// The configuration of docs/proxies.md with other addresses, and without TLS unless there is a certificate.
    fn documented(self, listen: SocketAddr, relay: SocketAddr, certificate: Option<&Certificate>) -> String {
        let page = tree::source("docs/proxies.md").text;
        let after = format!("```{}\n", self.name());
        let block = page.split(&after).nth(1).expect("a block").split("\n```").next().expect("its end").to_owned();
        let block = replaced(&block, "127.0.0.1:6001", &relay.to_string());
        let files = certificate.map(|certificate| (certificate.chain.display(), certificate.key.display()));
        match self {
            Self::Nginx => {
                let tls =
                    files.map(|(chain, key)| format!(" ssl;\n ssl_certificate {chain};\n ssl_certificate_key {key}"));
                replaced(&block, "listen 443 ssl", &format!("listen {listen}{}", tls.unwrap_or_default()))
            }
            Self::Haproxy => {
                let tls = certificate.map(|certificate| format!(" ssl crt {}", certificate.combined.display()));
                let bind = format!("bind {listen}{}", tls.unwrap_or_default());
                replaced(&block, "bind :443 ssl crt /etc/haproxy/site.pem", &bind)
            }
            Self::Caddy => {
                // Without `bind` it would listen on every address, where another test may have the port.
                let bind = format!("{{\n    bind {}", listen.ip());
                let site = match files {
                    Some((chain, key)) => format!("https://{listen} {bind}\n    tls {chain} {key}"),
                    None => format!("http://{listen} {bind}"),
                };
                replaced(&block, "ws.example.com {", &site)
            }
        }
    }

    /// A block within the rest that a process of a test needs.
    fn whole(self, block: &str, directory: &Path) -> String {
        let directory = directory.display();
        match self {
            Self::Nginx => {
                let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|name| format!("{name}_temp_path {directory}/{name};\n"))
                    .concat();
                format!(
                    "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log stderr;\n\
                     events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\n{temporary}{block}\n}}\n"
                )
            }
            Self::Haproxy => format!("global\n    maxconn 200\n\n{block}\n"),
            Self::Caddy => format!("{{\n    admin off\n    auto_https off\n}}\n\n{block}\n"),
        }
    }

    fn start(self, configuration: &str, directory: &Path) -> RunningProcess {
        static TOOLS: LazyLock<PathBuf> = LazyLock::new(|| tools::installed("proxies").expect("apt-get is here"));
        let file = directory.join(if self == Self::Caddy { "Caddyfile" } else { "configuration" });
        std::fs::write(&file, self.whole(configuration, directory)).unwrap();
        let (program, arguments): (&str, &[&str]) = match self {
            Self::Nginx => ("usr/sbin/nginx", &["-e", "stderr", "-p", ".", "-c"]),
            Self::Haproxy => ("usr/sbin/haproxy", &["-db", "-f"]),
            Self::Caddy => ("usr/bin/caddy", &["run", "--adapter", "caddyfile", "--config"]),
        };
        let mut command = cli::command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(TOOLS.join(program)).args(arguments).arg(&file);
        command.env("LD_LIBRARY_PATH", TOOLS.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)));
        command.env("HOME", directory).env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory);
        RunningProcess::spawn(command)
    }
}

/// The text with every occurrence of a part that must be there replaced.
#[track_caller]
fn replaced(text: &str, part: &str, by: &str) -> String {
    assert!(text.contains(part), "{part:?} is not in\n{text}");
    text.replace(part, by)
}

/// Relay behind a proxy.
struct Deployment {
    proxy: Proxy,
    server: TestServer,
    address: SocketAddr,
    running: RunningProcess,
    _directory: TempDir,
}

/// What differs from the documented deployment.
#[derive(Default)]
struct Options<'a> {
    /// Parts of the configuration, and what stands there instead.
    changes: &'a [(&'a str, &'a str)],
    /// Further arguments of the server; a trusted proxy by default.
    server: Option<&'a [&'a str]>,
    /// Terminates TLS.
    certificate: Option<&'a Certificate>,
    /// Listens here.
    listen: Option<SocketAddr>,
    /// Settings of the app.
    app: &'a [&'static str],
}

impl Deployment {
    #[track_caller]
    fn start(proxy: Proxy, options: &Options<'_>) -> Self {
        let arguments = options.server.unwrap_or(&["--trusted-proxies", "127.0.0.1"]);
        let mut server = ServerOptions::new(Driver::Epoll).shards(1).with(arguments);
        server.apps = vec![("main", options.app.to_vec())];
        let server = TestServer::start_with(server);
        let address = options.listen.unwrap_or_else(|| free_address(0).expect("a free port"));
        let mut configuration = proxy.documented(address, server.address, options.certificate);
        for (part, by) in options.changes {
            configuration = replaced(&configuration, part, by);
        }
        let directory = data_directory();
        let running = proxy.start(&configuration, directory.path());
        eventually("the proxy listens", || match TcpStream::connect(address) {
            Ok(_) => Some(()),
            Err(_) => {
                let dead = !Path::new(&format!("/proc/{}/exe", running.pid())).exists();
                assert!(!dead, "{proxy:?} ended: {}\n{configuration}", running.log());
                None
            }
        });
        Self { proxy, server, address, running, _directory: directory }
    }

    /// Plain, with one or more parts of the configuration changed.
    #[track_caller]
    fn changed(proxy: Proxy, changes: &[(&str, &str)]) -> Self {
        Self::start(proxy, &Options { changes, ..Options::default() })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A report with the app's secret.
    #[track_caller]
    fn examine(&self, more: &[&str]) -> Report {
        self.examine_url(&self.url(), more)
    }

    #[track_caller]
    fn examine_url(&self, url: &str, more: &[&str]) -> Report {
        let data = self.server.data.to_str().expect("text");
        let app = &self.server.app().id;
        Report::of(&[&["--public", url, "--app", app, "--data", data, "--proxy", self.proxy.name()], more].concat())
    }
}

/// An address that nothing listens on, of this process alone. Port 0 picks a free one.
fn free_address(port: u16) -> Option<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 64 + process[2] % 128 + high, process[3].max(1), low.max(1));
    TcpListener::bind((host, port)).ok()?.local_addr().ok()
}

/// What the doctor said.
struct Report {
    json: Value,
    code: Option<i32>,
}

impl Report {
    /// `relay doctor` with these arguments.
    #[track_caller]
    fn of(arguments: &[&str]) -> Self {
        let output = cli::run(&[&["doctor", "--json"], arguments].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        let report = Self { json, code: output.status.code() };
        let problems = report.json["problems"].as_u64().expect("a number");
        assert_eq!(report.code, Some(i32::from(problems > 0)), "{told}\n{:#}", report.json);
        for finding in report.findings() {
            let well = finding["state"] == "ok";
            assert!(finding["cost"].is_null() == well && finding["fix"].is_null() == well, "{finding:#}");
        }
        report
    }

    fn findings(&self) -> &Vec<Value> {
        self.json["findings"].as_array().expect("findings")
    }

    /// Findings other than ok, by check.
    fn bad(&self) -> Vec<&str> {
        let bad = self.findings().iter().filter(|finding| finding["state"] != "ok");
        bad.map(|finding| finding["check"].as_str().expect("text")).collect()
    }

    /// Everything works, and these checks were among those that ran.
    #[track_caller]
    fn expect_well(&self, checks: &[&str]) {
        assert!(self.bad().is_empty() && self.code == Some(0), "{:#}", self.json);
        for check in checks {
            assert!(self.findings().iter().any(|finding| finding["check"] == *check), "{check}: {:#}", self.json);
        }
    }

    /// A finding with this state that has these parts.
    #[track_caller]
    fn expect(&self, check: &str, state: &str, hop: Option<&str>, parts: &[&str]) {
        let found: Vec<&Value> = self.findings().iter().filter(|finding| finding["check"] == check).collect();
        let [finding] = found[..] else { panic!("{} findings of {check} in {:#}", found.len(), self.json) };
        assert_eq!((&finding["state"], finding["hop"].as_str()), (&state.into(), hop), "{finding:#}");
        let text = ["found", "cost", "fix"].map(|part| finding[part].as_str().unwrap_or_default()).join(" ");
        for part in parts {
            assert!(text.contains(part), "{part:?} in {finding:#}");
        }
    }

    /// The idle time after which a hop closed, which was one second.
    #[track_caller]
    fn expect_closed_when_idle(&self, hop: Option<&str>, line: &str) {
        self.expect("idle", "problem", hop, &["closed after ", line]);
        let text = self.json.to_string();
        let seconds = text.split("closed after ").nth(1).and_then(|rest| rest.split(' ').next());
        let seconds: f64 = seconds.and_then(|seconds| seconds.parse().ok()).expect("a number of seconds");
        // The doctor reads late on a busy machine, but never early.
        assert!((0.9..19.0).contains(&seconds), "{text}");
    }

    /// Nothing but these findings is bad.
    #[track_caller]
    fn expect_only(&self, checks: &[&str]) {
        assert_eq!(self.bad(), checks, "{:#}", self.json);
    }
}

/// The checks of a deployment that works, with the app's secret.
const ALL: [&str; 12] = [
    "address",
    "relay",
    "websocket",
    "ping",
    "api",
    "host",
    "client_address",
    "headers",
    "path",
    "event",
    "body",
    "idle",
];

/// R-DIAG-2: a deployment as documented is well, over ws, and over wss with a certificate that is trusted; each report
/// names the hop.
fn documented_is_well(proxy: Proxy) {
    let plain = Deployment::changed(proxy, &[]);
    let report = plain.examine(&[]);
    report.expect_well(&ALL);
    let shown = report.json.to_string();
    assert!(shown.contains(&format!("through {}", proxy.shown())) || shown.contains("through nginx/"), "{shown}");

    let Some(certificate) = Certificate::new(certificates::Kind::Signed) else { return };
    let secure = Deployment::start(
        proxy,
        &Options {
            certificate: Some(&certificate),
            listen: Some(certificate.address),
            app: &["tls_only=true"],
            ..Options::default()
        },
    );
    let url = format!("https://{}", secure.address);
    let report = secure.examine_url(&url, &["--ca", certificate.ca.to_str().unwrap()]);
    report.expect_well(&[&ALL[..], &["tls", "forwarded_proto"]].concat());
    drop(secure);
}

/// R-SSE-6, R-SSE-7: through a proxy as documented, each event of a stream arrives while the next one is not sent yet, and
/// a stream continues where the last one ended. In HTTP/1.0, so that the proxy adds no coding of its own.
fn streams_pass(proxy: Proxy) {
    let deployment = Deployment::changed(proxy, &[]);
    let server = &deployment.server;
    let open = |last: &str| {
        let mut connection = HttpConnection::open(deployment.address);
        let (path, key) = (server.app().relay_path("/sse"), &server.app().key);
        let line = format!("GET {path}?channels=a,b&key={key} HTTP/1.0");
        let head = format!("{line}\r\nHost: {}\r\nLast-Event-ID: {last}\r\n\r\n", deployment.address);
        connection.write(head.as_bytes()).expect("the request goes out");
        EventStream::read(connection)
    };
    let mut stream = open("");
    stream.expect_connected(&["a", "b"], false);
    for number in 0..20 {
        server.publish(server.app(), "a", "e", &number.to_string());
        stream.expect_event("a", "e", &number.to_string());
    }
    let last = stream.last_event_id.clone().expect("a cursor");
    drop(stream);
    server.publish(server.app(), "b", "e", "missed");
    let mut stream = open(&last);
    stream.expect_connected(&["a", "b"], true);
    stream.expect_event("b", "e", "missed");
}

/// R-DIAG-2: certificates that browsers refuse, and the wrong scheme, are named before anything else is tried.
fn certificates_are_judged(proxy: Proxy) {
    for (kind, parts) in [
        (certificates::Kind::SelfSigned, &["self-signed"][..]),
        (certificates::Kind::Expired, &["expired"]),
        (certificates::Kind::OtherName, &["it is not for", "other.example"]),
    ] {
        let Some(certificate) = Certificate::new(kind) else { return };
        let listen = Some(certificate.address);
        let deployment =
            Deployment::start(proxy, &Options { certificate: Some(&certificate), listen, ..Options::default() });
        let url = format!("https://{}", deployment.address);
        let ca = certificate.ca.to_str().unwrap();
        // A self-signed certificate is tried as most users have it: without a CA of their own.
        let more: &[&str] = if kind == certificates::Kind::SelfSigned { &[] } else { &["--ca", ca] };
        let report = deployment.examine_url(&url, more);
        // Caddy has certificates by name and refuses the handshake for others.
        let refuses = proxy == Proxy::Caddy && kind == certificates::Kind::OtherName;
        let parts = if refuses { &["it has no certificate for that name"] } else { parts };
        report.expect("tls", "problem", Some(proxy.shown()), parts);
        report.expect_only(&["tls"]);
    }
    let plain = Deployment::changed(proxy, &[]);
    let report = plain.examine_url(&format!("https://{}", plain.address), &[]);
    report.expect("tls", "problem", Some(proxy.shown()), &["does not speak TLS", "http://"]);
}

/// R-DIAG-2: nothing listens; a name that does not exist.
#[test]
fn nothing_is_there() {
    let address = free_address(0).expect("a free port");
    let report = Report::of(&["--public", &format!("http://{address}")]);
    report.expect("address", "problem", None, &["refused", &format!("port {}", address.port())]);
    report.expect_only(&["address"]);
    let report = Report::of(&["--public", "https://relay.invalid"]);
    report.expect("address", "problem", None, &["cannot be resolved", "DNS record for relay.invalid"]);
}

/// R-DIAG-2: without a secret the checks that need one are listed as not run; a key alone connects; the secret comes from
/// the environment as well, and is in no output.
#[test]
fn credentials_come_from_anywhere_but_the_command_line() {
    let server = TestServer::start_with(ServerOptions::new(Driver::Epoll).shards(1));
    let url = format!("http://{}", server.address);
    let app = server.app();
    let report = Report::of(&["--public", &url]);
    report.expect("websocket", "ok", None, &["the upgrade works", "--key"]);
    report.expect("api", "ok", None, &["404 to an unsigned GET"]);
    report.expect_well(&["body"]);
    let skipped = report.json["skipped"].to_string();
    assert!(["arrival", "path", "event"].iter().all(|check| skipped.contains(check)), "{skipped}");

    let report = Report::of(&["--public", &url, "--key", &app.key]);
    report.expect("websocket", "ok", None, &["established"]);
    let report = Report::of(&["--public", &url, "--key", "nobody's"]);
    report.expect("websocket", "problem", Some("relay"), &["4001", "relay app list"]);

    let mut command = cli::command(cli::binary());
    command.args(["doctor", "--public", &url]).env("PUSHER_APP_ID", &app.id).env("PUSHER_APP_KEY", &app.key);
    let output = command.env("PUSHER_APP_SECRET", &app.secret).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(&format!("as app {}, with its secret", app.id)), "{text}");
    assert!(text.contains("ok       event") && !text.contains(&app.secret), "{text}");
    assert!(!server.log().contains(&app.secret));

    let other = server.data.join("other");
    let made = cli::create_app(&other, &[]);
    let data = other.to_str().unwrap();
    let report = Report::of(&["--public", &url, "--app", &made.id, "--data", data, "--key", &made.key]);
    report.expect("api", "problem", Some("relay"), &["404", "relay app list"]);
}

/// R-DIAG-2: a usage error is one line that names the flag; exit code 2.
#[test]
fn flags_are_checked() {
    for (arguments, part) in [
        (&["--public", "ws.example.com"][..], "--public"),
        (&["--public", "http://127.0.0.1", "--pid", "1"], "--pid"),
        (&["--auth", "https://app.test/auth"], "--public"),
        (&["--public", "http://127.0.0.1", "--proxy", "apache"], "--proxy takes nginx"),
        (&["--public", "http://127.0.0.1", "--ca", "/nowhere"], "--ca /nowhere"),
        (&["--public", "http://127.0.0.1", "--ca", "Cargo.toml"], "no certificate"),
        (&["--public", "http://127.0.0.1", "--idle", "0"], "--idle"),
        (&["--public", "http://127.0.0.1", "--origin", "app.test"], "--origin"),
        (&["--public", "http://127.0.0.1", "--auth", "http://127.0.0.1/auth", "--channel", "orders"], "--channel"),
        (&["--public", "http://127.0.0.1", "--app", "1", "--data", "/nowhere"], "/nowhere"),
    ] {
        let output = cli::run(&[&["doctor"], arguments].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)) && output.stdout.is_empty(), "{arguments:?}: {told}");
        assert!(told.trim_end().lines().count() == 1 && told.contains(part), "{part:?} in {told}");
    }
}
