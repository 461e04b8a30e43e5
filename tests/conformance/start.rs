//! Starting: the server's output, its refusals, and its choice of driver. And ending: drain.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::http::{self, HttpConnection};
use crate::common::rig::{drivers, on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{Driver, RunningProcess, ServerOptions, TestServer, addresses, data_directory};
use crate::common::sign::App;
use crate::common::socket::{Arrival, QUERY, Socket};
use crate::common::{PATIENCE, cli};

/// P-SDK-22, R-ADMIN-1: generated app ids are all digits, keys 20 hex digits.
#[test]
fn generated_ids_are_digits_and_keys_are_hex() {
    let directory = data_directory();
    for _ in 0..5 {
        let app = cli::create_app(directory.path(), &[]);
        assert!(!app.id.is_empty() && app.id.bytes().all(|byte| byte.is_ascii_digit()), "{}", app.id);
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(app.key.len() == 20 && app.key.bytes().all(lower_hex), "{}", app.key);
    }
}

/// The line at start: version, address, driver, shards, health. `auto` uses io_uring where the kernel allows it, and
/// the log states the chosen driver and the reason.
#[test]
fn one_line_says_where_it_listens() {
    for shards in [1, 2] {
        let mut server = serve(&["--shards", &shards.to_string()]);
        let line = server.process.listening_line();
        let (address, health) = addresses(&line);
        let plural = if shards == 1 { "" } else { "s" };
        let driver = drivers()[0].word();
        let version = env!("CARGO_PKG_VERSION");
        let expected =
            format!("relay {version} listening on {address} ({driver}, {shards} shard{plural}, health on {health})");
        assert_eq!(line, expected);
        assert!(server.process.log().contains(driver), "{}", server.process.log());
        http::get(address, "/up").expect(200);
        http::get(health, "/ready").expect(200);
    }
}

/// `serve --dev` prints one `curl` for each of the three ways to authenticate; each works as pasted into a shell, and its event
/// arrives. Client events are on.
#[test]
fn dev_curls_work_as_pasted() {
    let mut server = serve(&["--dev"]);
    let address = addresses(&server.process.listening_line()).0;
    let mut lines = Vec::new();
    while lines.iter().filter(|line: &&String| line.contains("curl -")).count() < 3 {
        lines.push(server.process.line(PATIENCE).unwrap_or_else(|| panic!("three curls in {lines:?}")));
    }
    let curls: Vec<&String> = lines.iter().filter(|line| line.contains("curl -")).collect();
    let text = lines.join("\n");
    for word in ["app-key", "wsHost", "enabledTransports", "X-Relay-Key", "Bearer rly_", "auth_signature"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    let app = App { id: "1".to_owned(), key: "app-key".to_owned(), secret: "app-secret".to_owned() };
    let dev = TestServer::adopt(address, app.clone());
    let channels: BTreeSet<String> = curls.iter().map(|curl| channel_of(curl)).collect();
    let (mut socket, mut other) = (Socket::open(&dev, &app), Socket::open(&dev, &app));
    channels.iter().for_each(|channel| socket.subscribe(channel));
    for curl in curls {
        let output = cli::command("sh").args(["-c", curl]).output().expect("a shell");
        assert!(output.status.success(), "{curl}\n{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed.contains("{}"), "{curl}\n{printed}");
        let frame = socket.next_json();
        assert_eq!(frame["channel"], channel_of(curl), "{frame}");
    }
    socket.subscribe("private-dev");
    other.subscribe("private-dev");
    other.send_json(&json!({"event": "client-x", "channel": "private-dev", "data": "d"}));
    socket.expect_data("client-x", "private-dev", "d");
}

/// `RELAY_APP_ID`, `RELAY_APP_KEY` and `RELAY_APP_SECRET` create one app; `RELAY_LISTEN` and the others set what flags
/// set.
#[test]
fn environment_makes_an_app_and_sets_flags() {
    let directory = data_directory();
    let mut command = cli::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(cli::binary()).arg("serve");
    for (name, value) in [
        ("RELAY_APP_ID", "42"),
        ("RELAY_APP_KEY", "env-key"),
        ("RELAY_APP_SECRET", "env-secret"),
        ("RELAY_LISTEN", "127.0.0.1:0"),
        ("RELAY_METRICS_LISTEN", "127.0.0.1:0"),
        ("RELAY_SHARDS", "1"),
        ("RELAY_IO", "epoll"),
        ("RELAY_DATA", directory.path().to_str().unwrap()),
    ] {
        command.env(name, value);
    }
    let mut process = RunningProcess::spawn(command);
    let line = process.listening_line();
    assert!(line.contains("(epoll, 1 shard"), "{line}");
    let app = App { id: "42".to_owned(), key: "env-key".to_owned(), secret: "env-secret".to_owned() };
    let server = TestServer::adopt(addresses(&line).0, app.clone());
    let mut socket = Socket::open(&server, &app);
    socket.subscribe("private-env");
    server.publish(&app, "private-env", "e", "x");
    socket.expect_data("e", "private-env", "x");
}

/// `relay.toml` sets what flags set, a flag wins over it; Relay refuses to start on an unknown key or a bad value, with
/// one line that names it and the nearest key.
#[test]
fn configuration_file() {
    let directory = data_directory();
    let file = directory.path().join("relay.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nshards = 1\nio = \"epoll\"\n").unwrap();
    let path = file.to_str().unwrap().to_owned();
    let mut server = serve_bare(&["--config", &path, "--metrics-listen", "127.0.0.1:0"]);
    let line = server.process.listening_line();
    assert!(line.contains("(epoll, 1 shard"), "{line}");
    let mut server = serve(&["--config", &path, "--shards", "2"]);
    let line = server.process.listening_line();
    assert!(line.contains("(epoll, 2 shards"), "{line}");
    for (text, words) in [
        ("lisen = \"127.0.0.1:0\"\n", vec!["lisen", "listen"]),
        ("shards = \"many\"\n", vec!["shards"]),
        ("shards = [\n", vec!["relay.toml"]),
    ] {
        std::fs::write(&file, text).unwrap();
        let line = refused(&["--config", &path]);
        words.iter().for_each(|word| assert!(line.contains(word), "{word:?} in {line:?}"));
    }
    refused(&["--config", "/no/such/relay.toml"]);
}

/// Relay refuses to start with bad flags, addresses, directories and ports: one line that names the cause, exit code
/// not 0, within a second or so.
#[test]
fn bad_starts_are_refused_in_one_line() {
    let line = refused(&["--lissen", "127.0.0.1:0"]);
    assert!(line.contains("--lissen") && line.contains("--listen"), "the nearest flag: {line:?}");
    for (flag, value) in [
        ("--listen", "nonsense"),
        ("--listen", "127.0.0.1:99999"),
        ("--shards", "0"),
        ("--shards", "x"),
        ("--io", "kqueue"),
        ("--trusted-proxies", "10.0.0.0/99"),
        ("--activity-timeout", "0"),
        ("--send-zc", "0"),
        ("--send-zc", "65537"),
    ] {
        let line = refused(&[flag, value]);
        assert!(line.contains(flag.trim_start_matches("--")) || line.contains(value), "{flag} {value}: {line:?}");
    }
    let line = refused(&["--io", "epoll", "--send-zc", "4096"]);
    assert!(line.contains("--send-zc") && line.contains("--io"), "{line:?}");
    let directory = data_directory();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let line = refused_with_data(&file, &[]);
    assert!(line.contains("file"), "{line:?}");
    let broken = directory.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    cli::create_app(&broken, &[]);
    for entry in std::fs::read_dir(&broken).unwrap().flatten() {
        std::fs::write(entry.path(), [0x5A; 8192]).unwrap();
    }
    refused_with_data(&broken, &[]);
    // An address that this machine does not have (TEST-NET-1).
    let line = refused(&["--listen", "192.0.2.1:6001"]);
    assert!(line.contains("192.0.2.1"), "{line:?}");
}

/// A second server on the same port is refused, and so is one on the same data directory; the first is not affected.
#[test]
fn second_server_is_refused() {
    on_fresh_servers_at_once(ServerOptions::new, |first| {
        let address = first.address.to_string();
        for shards in ["1", "2"] {
            let line = refused(&["--listen", &address, "--shards", shards, "--io", first.driver.flag()]);
            assert!(line.contains(&address), "{line:?}");
        }
        refused_with_data(&first.data, &["--io", first.driver.flag()]);
        Socket::open(&first, first.app()).expect_quiet();
    });
}

/// A port that another program holds is refused even where that program set SO_REUSEPORT.
#[test]
fn port_in_use_is_refused() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let line = refused(&["--listen", &address]);
    assert!(line.contains(&address), "{line:?}");
}

/// With io_uring forbidden by a seccomp filter, `auto` serves on epoll and logs why, and `--io uring` is refused with
/// one line of cause and fix (hazard U14).
#[test]
fn forbidden_io_uring_falls_back_to_epoll() {
    let directory = data_directory();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/forbid_io_uring.py");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data"];
    let forbidden = || {
        let mut command = cli::command("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "python3"]).arg(&script).arg(cli::binary()).args(arguments);
        command.arg(directory.path()).args(["--send-zc", "4096"]);
        command
    };
    let app = cli::create_app(directory.path(), &[]);
    let mut process = RunningProcess::spawn(forbidden());
    let line = process.listening_line();
    assert!(line.contains("(epoll, "), "{line}");
    assert!(process.log().contains("io_uring"), "the log says why not io_uring: {}", process.log());
    assert!(process.log().contains("--send-zc has no effect"), "{}", process.log());
    let server = TestServer::adopt(addresses(&line).0, app.clone());
    let mut socket = Socket::open(&server, &app);
    socket.subscribe("private-c");
    server.publish(&app, "private-c", "e", "x");
    socket.expect_data("e", "private-c", "x");
    process.kill();
    let output = forbidden().args(["--io", "uring"]).output().unwrap();
    let line = one_line(&output);
    assert!(line.contains("io_uring") && (line.contains("epoll") || line.contains("seccomp")), "{line:?}");
}

/// Hazard U12: zero-copy sends on loopback, where the kernel copies all of them, turn themselves off with one line in
/// the log, and every event arrives complete and in order.
#[test]
fn zero_copy_ends_itself_on_loopback() {
    let server = TestServer::start_with(ServerOptions::new(Driver::Uring).shards(1).with(&["--send-zc", "4096"]));
    let app = server.app();
    let mut socket = Socket::open(&server, app);
    socket.subscribe("c");
    for number in 0..40 {
        let data = format!("{number} {}", "x".repeat(9_000));
        server.publish(app, "c", "e", &data);
        socket.expect_data("e", "c", &data);
    }
    let log = crate::common::eventually("a line in the log", || {
        let log = server.log();
        log.contains("zero-copy sends are off").then_some(log)
    });
    assert_eq!(log.matches("zero-copy sends are off").count(), 1, "{log}");
    assert!(log.contains("\"copied\":16,\"sends\":16"), "{log}");
}

/// Memory use does not depend on the host's huge page settings: the server turns them off for itself.
#[test]
fn huge_pages_are_off() {
    on_fresh_servers(ServerOptions::new, |server| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        assert!(status.contains("THP_enabled:\t0"), "{status}");
    });
}

/// P-CLOSE-1, R-BASE-3: on SIGTERM and on SIGINT `/ready` turns 503 while requests are answered and publishes
/// delivered, new sockets get 4200, present ones get error and Close 4200 within the grace period, and the process ends
/// with 0.
#[test]
fn drain_closes_with_4200_and_exits_0() {
    for signal in ["TERM", "INT"] {
        on_fresh_servers_at_once(ServerOptions::new, |mut server| {
            let app = server.app().clone();
            // Many sockets, so that the drain takes its time and can be watched.
            let mut sockets: Vec<Socket> = (0..300).map(|_| Socket::open(&server, &app)).collect();
            let mut health = HttpConnection::open(server.health);
            health.ask("GET", "/ready", &[], b"").expect(200);
            let mut api = HttpConnection::open(server.address);
            api.ask("GET", "/up", &[], b"").expect(200);
            let start = Instant::now();
            server.signal(signal);
            crate::common::eventually("/ready turns 503", || {
                let status = health.ask("GET", "/ready", &[], b"").status;
                (status == 503).then_some(())
            });
            let body = json!({"name": "e", "channel": "c", "data": "x"}).to_string();
            let target = app.sign("POST", &app.path("/events"), body.as_bytes());
            api.ask("POST", &target, &[], body.as_bytes()).expect(200);
            let mut late = Socket::upgrade(&server, &app, &format!("/app/{}{QUERY}", app.key));
            late.expect_fatal(4200);
            for socket in &mut sockets {
                socket.stream().set_read_timeout(Some(Duration::from_secs(15))).unwrap();
                socket.expect_fatal(4200);
            }
            assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
            let status = server.wait(Duration::from_secs(10));
            assert_eq!(status.code(), Some(0));
        });
    }
}

/// P-CLOSE-1: a few connections are drained at once, and a second signal ends the process at once.
#[test]
fn small_drains_and_second_signals_are_quick() {
    on_fresh_servers(ServerOptions::new, |mut server| {
        let mut socket = Socket::open(&server, &server.app().clone());
        let start = Instant::now();
        server.signal("TERM");
        socket.expect_fatal(4200);
        assert_eq!(server.wait(PATIENCE).code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    });
    on_fresh_servers(ServerOptions::new, |mut server| {
        let app = server.app().clone();
        let _sockets: Vec<Socket> = (0..300).map(|_| Socket::open(&server, &app)).collect();
        let mut health = HttpConnection::open(server.health);
        server.signal("TERM");
        crate::common::eventually("the drain begins", || {
            (health.ask("GET", "/ready", &[], b"").status == 503).then_some(())
        });
        let start = Instant::now();
        server.signal("TERM");
        server.wait(Duration::from_secs(2));
        assert!(start.elapsed() < Duration::from_secs(2));
    });
}

/// P-CLOSE-5, threat T13: a subscriber that does not read is closed with 4100, and others lose no events. Hazard U12:
/// also where the kernel holds zero-copy sends to it.
#[test]
fn slow_reader_is_closed_and_harms_nobody() {
    on_fresh_servers(ServerOptions::new, |server| close_slow_reader(&server));
    if drivers().contains(&Driver::Uring) {
        let options = ServerOptions::new(Driver::Uring).with(&["--send-zc", "1000"]);
        close_slow_reader(&TestServer::start_with(options));
    }
}

fn close_slow_reader(server: &TestServer) {
    let app = server.app();
    let mut healthy = Socket::open(server, app);
    let stream = std::net::TcpStream::connect(server.address).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
    let (mut slow, _) = Socket::upgrade_on(stream, app, &format!("/app/{}{QUERY}", app.key), &[]);
    slow.established();
    let channels: Vec<String> = (0..100).map(|index| format!("slow-{index}")).collect();
    for channel in &channels {
        healthy.subscribe(channel);
        slow.subscribe(channel);
    }
    let before = server.resident_bytes();
    let data = "d".repeat(10_240);
    // Each publish queues 1 MiB for the slow reader; the kernel's buffers hold a little of the first.
    for round in 0..4 {
        server.post_events(app, &json!({"name": format!("e{round}"), "channels": channels, "data": data})).expect(200);
        for _ in &channels {
            let frame = healthy.next_json();
            assert_eq!(frame["event"], format!("e{round}"), "{}", frame["event"]);
        }
    }
    let mut told = false;
    loop {
        match slow.next() {
            Arrival::Text(text) if text.contains("pusher:error") => {
                assert!(text.contains("4100"), "{text}");
                told = true;
            }
            Arrival::Text(_) => assert!(!told, "nothing follows the error but Close"),
            Arrival::Close(code, _) => break assert_eq!(code, 4100),
            // Reset a second after the error was sent.
            Arrival::Ended(reason) => break assert!(!reason.contains("in time"), "{reason}"),
            other => panic!("unexpected: {other:?}"),
        }
    }
    healthy.expect_quiet();
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
}

fn channel_of(curl: &str) -> String {
    let rest = curl.split("\"channel\":\"").nth(1).unwrap_or_else(|| panic!("a channel in {curl}"));
    rest.split('"').next().expect("a part before the quote").to_owned()
}

/// A process with a data directory of the same lifetime.
struct Started {
    process: RunningProcess,
    _directory: tempfile::TempDir,
}

fn serve(arguments: &[&str]) -> Started {
    let ports = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    serve_bare(&[&ports[..], arguments].concat())
}

fn serve_bare(arguments: &[&str]) -> Started {
    let directory = data_directory();
    let fixed = ["serve", "--data", directory.path().to_str().unwrap()];
    let process = RunningProcess::relay(&[&fixed[..], arguments].concat());
    Started { process, _directory: directory }
}

/// Starts with these arguments on a fresh directory; returns the one line of the refusal.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let directory = data_directory();
    refused_with_data(directory.path(), arguments)
}

#[track_caller]
fn refused_with_data(data: &Path, arguments: &[&str]) -> String {
    let mut command = cli::command("timeout");
    command.arg("10").arg(cli::binary()).args(["serve", "--data"]).arg(data).args(arguments);
    for (flag, value) in [("--listen", "127.0.0.1:0"), ("--metrics-listen", "127.0.0.1:0")] {
        if !arguments.contains(&flag) {
            command.args([flag, value]);
        }
    }
    let start = Instant::now();
    let output = command.output().expect("the binary starts");
    assert_ne!(output.status.code(), Some(124), "it started: {}", String::from_utf8_lossy(&output.stdout));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    one_line(&output)
}

#[track_caller]
fn one_line(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.code().is_some_and(|code| code != 0 && code != 101),
        "{:?}\n{stdout}\n{stderr}",
        output.status
    );
    assert!(!stdout.contains(" listening on "), "{stdout}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "one line, not:\n{stderr}");
    stderr.trim_end().to_owned()
}
