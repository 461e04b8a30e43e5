//! The listener of the admin API: where it is, and what a peer can hold of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::server;
use crate::common::admin::{Admin, BASE};
use crate::common::http::{self, HttpConnection};
use crate::common::rig::drivers;
use crate::common::server::{RunningProcess, ServerOptions, TestServer, address_after, data_directory};
use crate::common::{PATIENCE, cli, eventually};

const PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];

/// Starts a server that must refuse; returns its standard error.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let data = data_directory();
    let mut command = cli::command("timeout");
    command.arg("10").arg(cli::binary()).args(["serve", "--data"]).arg(data.path()).args(PORTS).args(arguments);
    let output: Output = command.output().expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {text}", output.status);
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

/// R-ADMIN-10, T46: port 0 takes a free one, which the line at start and a file of mode 0600 name; `off` has neither,
/// and removes the file of an earlier start.
#[test]
fn the_address_is_printed_and_written() {
    let server = server();
    let address = server.admin.expect("the line at start names it");
    let file = server.data.join("admin.address");
    assert_eq!(std::fs::read_to_string(&file).expect("the file").trim(), address.to_string());
    assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    let server = server.restart(&["--admin-listen", "off"]);
    assert!(server.admin.is_none() && !file.exists());
    assert!(TcpStream::connect(address).is_err(), "nobody listens there");
}

/// R-ADMIN-10: if the default address is taken, one line of the log says so, and Relay serves without the admin API; if
/// it is free, it is used.
#[test]
fn the_default_address_may_be_taken() {
    // Whoever has it, this test or another program of the machine: it is taken.
    let holder = TcpListener::bind("127.0.0.1:6002");
    let data = data_directory();
    let mut command = cli::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(cli::binary()).args(["serve", "--data"]).arg(data.path());
    command.args(PORTS).env_remove("RELAY_ADMIN_LISTEN");
    let mut process = RunningProcess::spawn(command);
    let line = process.listening_line();
    assert!(!line.contains("admin API"), "{line}");
    http::get(address_after(&line, " listening on "), "/up").expect(200);
    let log = process.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("admin")).collect();
    assert!(lines.len() == 1 && lines[0].contains("127.0.0.1:6002") && lines[0].contains("in use"), "{log}");
    assert!(!data.path().join("admin.address").exists());
    drop(holder);
}

/// R-ADMIN-10, T46: a configured address that is taken refuses the start; so does one that others can reach, with the
/// ways out, and `admin_behind_proxy` without proxies.
#[test]
fn unsafe_addresses_are_refused() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("bound").to_string();
    let text = refused(&["--admin-listen", &taken]);
    assert!(text.contains(&taken) && text.contains("in use"), "{text}");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:6002"] {
        let text = refused(&["--admin-listen", address]);
        for part in ["--admin-listen", "127.0.0.1:6002", "admin_behind_proxy", "trusted_proxies", "admin_plain_http"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
    let text = refused(&["--admin-listen", "0.0.0.0:0", "--admin-behind-proxy", "true"]);
    assert!(text.contains("trusted_proxies"), "{text}");
    for bad in ["localhost", "6002", "on", "127.0.0.1:99999", ""] {
        assert!(refused(&["--admin-listen", bad]).contains("off; port 0"), "{bad}");
    }
    assert!(refused(&["--admin-listen", "off", "--admin-hosts", "http://a"]).contains("host names"), "a scheme");
}

/// R-ADMIN-10, T46: the named settings open other addresses, with a warning at start: `admin_plain_http` to all,
/// `admin_behind_proxy` to the proxies alone, whose word about the client's address is taken.
#[test]
fn named_settings_open_other_addresses() {
    let open = ["--admin-listen", "0.0.0.0:0"];
    let options = || ServerOptions::new(drivers()[0]);
    let server = TestServer::start_with(options().with(&open).with(&["--admin-plain-http", "true"]));
    let address = |server: &TestServer| SocketAddr::from(([127, 0, 0, 1], server.admin.expect("it listens").port()));
    assert!(server.log().contains("admin_plain_http"), "{}", server.log());
    Admin { address: address(&server), ..Admin::of(&server, &[]) }.get("/status");

    let proxy = ["--admin-behind-proxy", "true", "--trusted-proxies", "127.0.0.9", "--admin-hosts", "relay.example"];
    let server = TestServer::start_with(options().with(&open).with(&proxy));
    let admin = Admin { address: address(&server), ..Admin::of(&server, &[]) };
    admin.ask("GET", "/status", None).expect(403);
    let bearer = format!("Bearer {}", admin.token);
    let headers = [
        ("Host", "relay.example"),
        ("Authorization", bearer.as_str()),
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Proto", "https"),
        ("Origin", "https://relay.example"),
    ];
    let path = format!("{BASE}/apps/{}/disable", server.app().id);
    let ask = |method: &str, path: &str| {
        HttpConnection::open_from([127, 0, 0, 9].into(), admin.address)
            .ask(method, path, &headers, b"")
            .expect(200)
            .json()
    };
    ask("POST", &path);
    let audit = ask("GET", &format!("{BASE}/audit"));
    assert_eq!(audit["items"][0]["actor"]["address"], "203.0.113.7", "{audit}");
}

/// R-ADMIN-22: a head, a body and silence have a few seconds each, then the connection ends; other requests pass.
#[test]
fn slow_peers_are_cut_off() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let start = Instant::now();
    let (host, bearer) = (admin.address.to_string(), admin.token.clone());
    let head = format!("POST {BASE}/apps HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bearer}\r\n");
    let slow = [
        String::new(),
        head[..20].to_owned(),
        head.clone(),
        format!("{head}Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"),
    ];
    let mut peers: Vec<TcpStream> = slow
        .iter()
        .map(|text| {
            let mut peer = TcpStream::connect(admin.address).expect("accepted");
            peer.write_all(text.as_bytes()).expect("sent");
            peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            peer
        })
        .collect();
    admin.get("/status");
    let mut answers = peers.iter_mut().map(|peer| {
        let mut answer = String::new();
        let _ = peer.read_to_string(&mut answer);
        answer
    });
    let answers: Vec<String> = answers.by_ref().collect();
    assert!(answers[3].starts_with("HTTP/1.1 408"), "{answers:?}");
    assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
}

/// R-ADMIN-22: 64 connections are served at once; further ones wait and are served when one of them ends.
#[test]
fn connections_are_bounded() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let mut held: Vec<HttpConnection> = (0..64).map(|_| HttpConnection::open(admin.address)).collect();
    let (host, bearer) = (admin.address.to_string(), format!("Bearer {}", admin.token));
    let headers = [("Host", host.as_str()), ("Authorization", bearer.as_str())];
    let path = format!("{BASE}/status");
    for connection in &mut held {
        connection.ask("GET", &path, &headers, b"").expect(200);
    }
    let mut waiting = HttpConnection::open(admin.address);
    waiting.send("GET", &path, &headers, b"");
    waiting.stream().set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    assert!(waiting.try_read().is_err(), "it waits");
    http::get(server.address, "/up").expect(200);
    drop(held);
    let mut next = HttpConnection::open(admin.address);
    next.ask("GET", &path, &headers, b"").expect(200);
}

/// R-ADMIN-13, R-ADMIN-22: bodies and heads at their bounds and one beyond.
#[test]
fn sizes_are_bounded() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let body = |length: usize| format!("{{\"name\":\"x\"{}}}", " ".repeat(length - 12));
    admin.ask_with("POST", "/apps", &[], body(64 * 1024).as_bytes()).expect(201);
    let answer = admin.ask_with("POST", "/apps", &[], body(64 * 1024 + 1).as_bytes()).expect(413).json();
    assert_eq!(answer["error"], "too_large");
    let header = |length: usize| admin.ask_with("GET", "/status", &[("X-Filler", &"x".repeat(length))], b"").status;
    assert_eq!((header(15_000), header(20_000)), (200, 431));
    let many: Vec<(String, &str)> = (0..70).map(|number| (format!("X-{number}"), "x")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(admin.ask_with("GET", "/status", &many, b"").status, 431);
}

/// R-ADMIN-22, R-PROC-1: a flood on the admin listener does not delay the public port, and ends without a trace.
#[test]
fn a_flood_harms_nobody() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let stop = AtomicBool::new(false);
    let stopped = || stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let flooding: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    while !stopped() {
                        let status = admin.ask("POST", "/apps", Some(&json!({}))).status;
                        assert!(matches!(status, 201 | 503), "{status}");
                    }
                })
            })
            .collect();
        for _ in 0..50 {
            let start = Instant::now();
            server.publish(server.app(), "c", "e", "d");
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        flooding.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
    eventually("the admin API answers", || (admin.ask("GET", "/status", None).status == 200).then_some(()));
    server.assert_alive();
}
