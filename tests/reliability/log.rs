//! Standard error and standard output that nobody reads (R-PROC-1).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::common::rig::drivers;
use crate::common::server::{RunningProcess, addresses, data_directory};
use crate::common::signal::signal_process;
use crate::common::{PATIENCE, cli, http};

/// A full pipe, its reading end first.
pub(crate) fn full_pipe() -> (File, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[b'-'; 512]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader.into(), writer)
}

/// Ends with this test.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(arguments: &[&str], data: &std::path::Path, stdout: Stdio, stderr: Stdio) -> Mortal {
    let mut command = cli::command(cli::binary());
    command.args(["serve", "--dev", "--metrics-listen", "127.0.0.1:0", "--shards", "2", "--data"]).arg(data);
    Mortal(command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap())
}

fn wait(child: &mut Child, limit: Duration) -> i32 {
    let begin = std::time::Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code().unwrap_or_else(|| panic!("{status}")),
            None => assert!(begin.elapsed() < limit, "it did not end within {limit:?}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The address of a server that prints nothing: that of this process's listening socket that answers.
fn address_of(pid: u32) -> std::net::SocketAddr {
    crate::common::eventually("the server listens", || {
        let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .ok()?
            .flatten()
            .filter_map(|entry| {
                std::fs::read_link(entry.path())
                    .ok()?
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')
                    .map(str::to_owned)
            })
            .collect();
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
        let ports = table.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens =
                fields.get(3) == Some(&"0A") && inodes.iter().any(|inode| fields.get(9) == Some(&inode.as_str()));
            listens.then(|| u16::from_str_radix(fields[1].split(':').nth(1)?, 16).ok()).flatten()
        });
        ports
            .map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], port)))
            .find(|address| std::net::TcpStream::connect(address).is_ok() && answers(*address))
    })
}

/// The public port: the one with an HTTP API.
fn answers(address: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 12];
    let asked = stream.write_all(b"GET /apps/1/channels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"HTTP/1.1 401"
}

/// R-PROC-1: refused requests of every kind, hundreds of them, while nobody reads standard error: each is answered, and
/// SIGTERM ends the process with 0. The pipe contains complete lines.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    for driver in drivers() {
        let (mut reader, writer) = full_pipe();
        let data = data_directory();
        let arguments = ["--listen", "127.0.0.1:0", "--io", driver.flag(), "--auth-failures-per-minute", "10000"];
        let mut server = serve(&arguments, data.path(), Stdio::null(), Stdio::from(writer));
        let address = address_of(server.0.id());
        for round in 0..100 {
            for (path, headers) in [
                ("/apps/1/events", "X-Relay-Key: nobody\r\nX-Relay-Secret: x\r\n"),
                ("/apps/1/batch_events", "Authorization: Bearer rly_x\r\n"),
                ("/apps/nobody/channels", ""),
                ("/apps/1/channels", "X-Relay-Key: app-key\r\nX-Relay-Secret: x\r\n"),
            ] {
                let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = [0; 9];
                stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{path}, round {round}: {error}"));
            }
        }
        http::get(address, "/up").expect(200);
        signal_process(server.0.id(), "TERM");
        assert_eq!(wait(&mut server.0, PATIENCE), 0, "{driver:?}");
        let mut text = String::new();
        drop(server);
        reader.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("---"), "{text}");
    }
}

/// R-PROC-1: the last lines before the end are written when they are read: the end of the drain, and the reason why a
/// start failed.
#[test]
fn the_last_lines_are_written() {
    let data = data_directory();
    let path = data.path().to_str().unwrap();
    let mut arguments =
        vec!["serve", "--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data", path];
    let mut process = RunningProcess::relay(&arguments);
    let address = addresses(&process.listening_line()).0;
    signal_process(process.pid(), "TERM");
    assert!(process.wait(PATIENCE).success());
    crate::common::eventually("the line about the drain", || {
        process.log().contains("draining for at most").then_some(())
    });

    let held = std::net::TcpListener::bind(address).unwrap();
    let taken = held.local_addr().unwrap().to_string();
    arguments[3] = &taken;
    let output = cli::run(&arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.lines().last().is_some_and(|line| line.starts_with("relay: ") && line.contains(&taken)), "{told}");
}

/// R-PROC-1: a failed start ends even when nobody reads the reason, and so does one with a mistake in its flags.
#[test]
fn a_failing_start_ends_unread() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    for (listen, code) in [(taken.as_str(), 1), ("nowhere", 2)] {
        let data = data_directory();
        let (_reader, writer) = full_pipe();
        let mut server = serve(&["--listen", listen], data.path(), Stdio::null(), Stdio::from(writer));
        assert_eq!(wait(&mut server.0, PATIENCE), code, "{listen}");
    }
}

/// R-PROC-1: nobody reads the line and the banner of `serve --dev`: it serves and ends as requested.
#[test]
fn a_banner_that_nobody_reads_stops_nothing() {
    let data = data_directory();
    let (_reader, writer) = full_pipe();
    let mut server = serve(&["--listen", "127.0.0.1:0"], data.path(), Stdio::from(writer), Stdio::null());
    let address = address_of(server.0.id());
    http::get(address, "/up").expect(200);
    signal_process(server.0.id(), "TERM");
    assert_eq!(wait(&mut server.0, PATIENCE), 0);
}

/// `relay --version` and other commands write as any program does.
#[test]
fn commands_write_directly() {
    let output = Command::new(cli::binary()).args(["app", "show", "nobody", "--data", "/nowhere"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("relay: "), "{output:?}");
}
