//! The process ends when a part of it fails: a panic of any thread (R-PROC-2), a shard that is stuck (R-PROC-3).

use std::process::{Command, Stdio};
use std::time::Duration;

use relay::driver::{failure, log_writer};

use crate::common::rig::on_fresh_servers;
use crate::common::server::{Driver, ServerOptions, TestServer};
use crate::common::signal::signal_process;
use crate::common::socket::Socket;
use crate::common::{PATIENCE, cli};

/// The watchdog's limit in these tests.
const LIMIT_S: u64 = 2;

/// A shard without a processor of its own takes longer to be found stuck: processor time that it did not get does not
/// count.
const STUCK_WITHIN: Duration = Duration::from_secs(120);

fn watched(driver: Driver) -> ServerOptions {
    ServerOptions::new(driver).with(&["--watchdog", &LIMIT_S.to_string()])
}

/// R-PROC-2: a panic on any thread ends the process with 101 and a message that names thread and place, even when
/// nobody reads standard error; a contained one does not. The thread panics in a child of this test, under the hook
/// that `relay serve` installs.
#[test]
fn a_panic_of_any_thread_ends_the_process() {
    let own = std::env::current_exe().unwrap();
    let child = |stderr: Stdio| {
        let mut child = Command::new(&own);
        child.args(["--exact", "failure::a_thread_that_panics", "--ignored", "--nocapture"]);
        child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap()
    };
    let output = child(Stdio::piped()).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{told}");
    let contained = told.find("contained by purpose").unwrap_or_else(|| panic!("{told}"));
    let fatal =
        told.find("thread webhook-send panicked at tests/reliability/failure.rs").expect("the thread and place");
    assert!(contained < fatal && told.contains("by purpose too") && told.contains("bug in Relay"), "{told}");

    let mut unread = child(Stdio::from(super::log::full_pipe().1));
    assert_eq!(unread.wait().unwrap().code(), Some(101), "with a pipe that nobody reads");
}

#[test]
#[ignore = "started by another test as its child"]
fn a_thread_that_panics() {
    log_writer::start(|_, _| {}).unwrap();
    failure::end_process_on_panic();
    assert_eq!(failure::contain(|| 7), Some(7));
    assert_eq!(failure::contain(|| -> u8 { panic!("contained by purpose") }), None);
    let thread = std::thread::Builder::new().name("webhook-send".into());
    thread.spawn(|| panic!("by purpose too")).unwrap();
    loop {
        std::thread::park();
    }
}

/// R-PROC-2: a panic of the store's thread ends a real server. The test closes the descriptor that wakes its shard from
/// outside, so the thread that publishes a new directory gets an impossible error.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_panic_of_the_store_thread_ends_the_server() {
    let options = ServerOptions::new(Driver::Epoll).shards(1).with(&["--watchdog", "0"]);
    let mut server = TestServer::start_with(options);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().map(Result::unwrap);
    let is_eventfd =
        |path: &std::path::Path| std::fs::read_link(path).is_ok_and(|to| to.to_str() == Some("anon_inode:[eventfd]"));
    let eventfds: Vec<u64> = descriptors
        .filter(|entry| is_eventfd(&entry.path()))
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    assert!(!eventfds.is_empty());
    let held = super::tracer::Held::by_name(server.pid(), "shard-0");
    eventfds.iter().for_each(|descriptor| held.close_descriptor(*descriptor));
    drop(held);
    cli::set_app(&server.data, server.app(), &["name=other"]);
    assert_eq!(server.wait(PATIENCE).code(), Some(101), "{}", server.log());
    assert!(server.log().contains("thread relay-store panicked"), "{}", server.log());
}

/// R-PROC-3: a shard in an endless loop, and one that blocks in the kernel forever, end the process with 101 and a
/// message that names the shard. A debugger redirects the thread and releases it; nothing in the server helps.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_stuck_shard_ends_the_process() {
    use super::tracer::Held;
    type Stick = fn(Held);
    let ways: [(Stick, &str); 2] = [(Held::spin, "runs"), (Held::wait_for_ever, "waits in the kernel")];
    for (stick, told) in ways {
        on_fresh_servers(watched, |mut server| {
            stick(Held::by_name(server.pid(), "shard-1"));
            let status = server.wait(STUCK_WITHIN);
            let log = server.log();
            assert_eq!(status.code(), Some(101), "{log}");
            assert!(log.contains("shard 1 has made no progress for 2 s") && log.contains(told), "{log}");
        });
    }
}

/// R-PROC-3: an idle server, one that was stopped completely for longer than the limit, and one of which a debugger
/// held a shard for longer than the limit keep running and serving.
#[test]
#[cfg(target_arch = "x86_64")]
fn pauses_end_nothing() {
    on_fresh_servers(watched, |server| {
        // The test is about elapsed time: there is no event to wait for.
        let longer = Duration::from_secs(2 * LIMIT_S);
        let mut socket = Socket::open(&server, server.app());
        std::thread::sleep(longer);
        signal_process(server.pid(), "STOP");
        std::thread::sleep(longer);
        signal_process(server.pid(), "CONT");
        socket.subscribe("a");
        let held = super::tracer::Held::by_name(server.pid(), "shard-0");
        std::thread::sleep(longer);
        drop(held);
        server.publish(server.app(), "a", "e", "d");
        socket.expect_data("e", "a", "d");
    });
}
