//! Runs that end before their plan does, against a real Relay: by a signal, by a worker or a server that dies or hangs.
//! Each ends soon, reports why, and includes the measurements until then.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Ended, LOADGEN, Relay, Run, allowed_core, eventually};

/// A fan-out that would last ten minutes, and a subscriber that saw its first events.
fn fan_out(relay: &Relay, more: &[&str]) -> Run {
    let mut subscriber = relay.subscribe("loadgen-fan-out");
    let url = relay.url();
    let options = ["--url", &url, "--subscribers", "20", "--events-per-second", "50", "--workers", "2", "--json"];
    let run =
        Run::start(&[&["fan-out", "--duration-seconds", "600", "--warmup-seconds", "0"], &options[..], more].concat());
    subscriber.wait(60);
    run
}

/// What was measured before the end is there.
#[track_caller]
fn assert_partial(ended: &Ended) {
    let delivered = ended.figure("delivered");
    assert!(delivered >= 100.0, "{:#}", ended.report);
    assert!(ended.report["times-ms"]["delivery"]["count"].as_f64() > Some(0.0), "{:#}", ended.report);
    assert!(ended.error.contains("cut short: "), "{}", ended.error);
}

/// Goal: Ctrl-C and SIGTERM give a partial report with a code of its own, nothing counted as lost, and leave nothing
/// behind: no process, no connection, no port that waits.
#[test]
fn a_signal_gives_a_partial_report() {
    for signal in ["INT", "TERM"] {
        let relay = Relay::start();
        let mut run = fan_out(&relay, &["--floor", "--floor-core", &allowed_core()]);
        assert_eq!(run.children("worker").len(), 4, "two for the server, two for the floor");
        assert_eq!(run.children("floor-sender").len(), 1);
        run.signal(signal);
        let ended = run.finish();
        assert_eq!(ended.code, Some(4), "{:#} {}", ended.report, ended.error);
        assert_eq!(ended.report["verdict"], "interrupted");
        assert_eq!(ended.cut_short(), format!("interrupted by SIG{signal}"));
        assert_partial(&ended);
        assert_eq!(ended.figure("loss"), 0.0, "{:#}", ended.report);
        assert_eq!(ended.report["times-ms"]["delivery"]["count"].as_f64(), Some(ended.figure("delivered")));
        eventually("the end of all connections", || (relay.connections() == (0, 0)).then_some(()));
    }
}

/// Goal: a signal while connections are still being opened is no failure of the server.
#[test]
fn a_signal_during_the_ramp_gives_a_partial_report() {
    let relay = Relay::start();
    let storm =
        ["connection-storm", "--target-connections", "60000", "--workers", "4", "--ramp-seconds", "600", "--json"];
    let mut run = Run::start(&[&storm[..], &["--url", &relay.url()]].concat());
    run.until("some connections", || relay.connections().0 > 50);
    run.signal("INT");
    let ended = run.finish();
    assert_eq!(ended.code, Some(4), "{:#} {}", ended.report, ended.error);
    assert!(ended.figure("joined") >= 50.0);
    assert!(ended.report["notes"].to_string().contains("of 60000 connections were subscribed"), "{:#}", ended.report);
    eventually("the end of all connections", || (relay.connections() == (0, 0)).then_some(()));
}

/// Goal: a second Ctrl-C ends everything at once, without a report. Method: the server is stopped, so that the run still
/// waits for what is in flight.
#[test]
fn a_second_signal_ends_it_at_once() {
    let relay = Relay::start();
    let mut run = fan_out(&relay, &[]);
    assert_eq!(run.children("worker").len(), 2);
    relay.signal("STOP");
    let first = Instant::now();
    run.signal("INT");
    // Two signals that are both still pending would be one.
    while first.elapsed().as_millis() < 50 {
        std::thread::yield_now();
    }
    run.signal("INT");
    let ended = run.finish();
    assert_eq!(ended.code, Some(130), "{}", ended.error);
    assert!(ended.report.is_null());
}

/// Goal: a worker that is killed, as by a kernel without memory, is named, and what it measured is not lost.
#[test]
fn a_worker_that_dies_is_named() {
    let relay = Relay::start();
    let mut run = fan_out(&relay, &[]);
    let workers = run.children("worker");
    common::signal_process(workers[0], "KILL");
    let ended = run.finish();
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    let why = ended.cut_short();
    assert!(why.starts_with("worker ") && why.contains("ended unexpectedly (killed by SIGKILL"), "{why}");
    assert_partial(&ended);
}

/// Goal: a worker that hangs does not make the run hang. Method: one is stopped.
#[test]
fn a_worker_that_hangs_is_named() {
    let relay = Relay::start();
    let mut run = fan_out(&relay, &[]);
    let workers = run.children("worker");
    common::signal_process(workers[1], "STOP");
    let ended = run.finish();
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    assert!(ended.cut_short().contains("has not reported for 10 s: it hangs"), "{}", ended.cut_short());
    assert_partial(&ended);
}

/// Goal: a floor sender that dies ends the run, with the server's rounds reported.
#[test]
fn a_floor_sender_that_dies_is_named() {
    let relay = Relay::start();
    let mut subscriber = relay.subscribe("loadgen-fan-out");
    let options = ["--subscribers", "5", "--events-per-second", "100", "--rounds", "400", "--workers", "1", "--json"];
    let floor =
        ["fan-out", "--url", &relay.url(), "--floor", "--floor-core", &allowed_core(), "--duration-seconds", "0.5"];
    let mut run = Run::start(&[&floor[..], &options[..]].concat());
    // The warm up and at least one round.
    subscriber.wait(170);
    let sender = run.children("floor-sender")[0];
    common::signal_process(sender, "KILL");
    let ended = run.finish();
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    assert!(ended.error.contains("the floor's sender ended unexpectedly (killed by SIGKILL"), "{}", ended.error);
    assert!(ended.figure("delivered") >= 250.0);
}

/// Goal: a server that is killed in mid-run ends the run at once, with what was measured and what is seen of it.
#[test]
fn a_server_that_is_killed_ends_the_run() {
    let relay = Relay::start();
    let run = fan_out(&relay, &["--server-pid", &relay.pid()]);
    let begin = Instant::now();
    relay.signal("KILL");
    let ended = run.finish();
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    let why = ended.cut_short();
    assert!(why.contains("the server closed every connection (process ") && why.contains("has ended)"), "{why}");
    assert_partial(&ended);
    assert!(begin.elapsed().as_secs() < 15);
}

/// Goal: a server that freezes ends the run after ten seconds of silence.
#[test]
fn a_server_that_freezes_ends_the_run() {
    let relay = Relay::start();
    let run = fan_out(&relay, &["--server-pid", &relay.pid()]);
    relay.signal("STOP");
    let ended = run.finish();
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    let why = ended.cut_short();
    assert!(why.contains("has sent nothing for 10 s") && why.contains("is stopped)"), "{why}");
    assert_partial(&ended);
}

/// Goal: a generator that was stopped itself, longer than any bound of its own, blames neither the server nor its workers, and
/// measures on. Method: all of its processes are stopped and continued; then events still flow.
#[test]
fn a_generator_that_was_stopped_blames_nobody() {
    let relay = Relay::start();
    let mut run = fan_out(&relay, &[]);
    let workers = run.children("worker");
    run.signal("STOP");
    workers.iter().for_each(|worker| common::signal_process(*worker, "STOP"));
    // Longer than a server or a worker may be silent; while all are stopped there is nothing to wait for.
    std::thread::sleep(Duration::from_secs(12));
    workers.iter().for_each(|worker| common::signal_process(*worker, "CONT"));
    run.signal("CONT");
    relay.subscribe("loadgen-fan-out").wait(300);
    run.signal("TERM");
    let ended = run.finish();
    assert_eq!(ended.code, Some(4), "{:#} {}", ended.report, ended.error);
    assert_eq!(ended.cut_short(), "interrupted by SIGTERM");
    assert_eq!(ended.figure("refused") + ended.figure("loss"), 0.0, "{:#}", ended.report);
    assert_partial(&ended);
}

/// Goal: the same while connections are being opened, at whatever pace.
#[test]
fn a_server_that_freezes_ends_a_storm() {
    let relay = Relay::start();
    let storm =
        ["connection-storm", "--target-connections", "60000", "--workers", "4", "--ramp-seconds", "600", "--json"];
    let mut run = Run::start(&[&storm[..], &["--connect-timeout-seconds", "1", "--url", &relay.url()]].concat());
    run.until("some connections", || relay.connections().0 > 50);
    relay.signal("STOP");
    let ended = run.finish();
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    assert!(ended.cut_short().contains("has sent nothing for 3 s"), "{}", ended.cut_short());
    assert!(ended.figure("joined") >= 50.0 && ended.figure("failed") > 0.0);
}

/// Goal: no scenario hangs when its server is killed in the middle of it; each says so and gives a report.
#[test]
fn no_scenario_outlives_its_server() {
    let scenarios: [&[&str]; 7] = [
        &["many-to-many", "--duration-seconds", "600"],
        &["presence-churn", "--duration-seconds", "600"],
        &["connection-storm", "--target-connections", "100", "--ramp-seconds", "1", "--hold-seconds", "600"],
        &["reconnect-storm", "--connections", "100", "--duration-seconds", "100"],
        &["slow-readers", "--subscribers", "50", "--duration-seconds", "600"],
        &["idle", "--connections", "100", "--hold-seconds", "600"],
        &["publish", "--duration-seconds", "600"],
    ];
    std::thread::scope(|scope| {
        for scenario in scenarios {
            scope.spawn(move || {
                let relay = Relay::start();
                let mut run = Run::start(&[scenario, &["--json", "--workers", "1", "--url", &relay.url()]].concat());
                let wanted = if scenario[0] == "publish" { 1 } else { 50 };
                // The first connection is one that only looks whether there is a server.
                eventually("its worker", || (!run.children("worker").is_empty()).then_some(()));
                run.until("its connections", || relay.connections().0 >= wanted);
                relay.signal("KILL");
                let ended = run.finish();
                assert_eq!(ended.code, Some(1), "{scenario:?} {:#} {}", ended.report, ended.error);
                assert_eq!(ended.report["verdict"], "failed", "{scenario:?}");
                assert!(
                    ended.report["problems"].as_array().is_some_and(|problems| !problems.is_empty()),
                    "{scenario:?}"
                );
                assert!(ended.report["figures"].as_object().is_some_and(|figures| !figures.is_empty()), "{scenario:?}");
            });
        }
    });
}

/// Goal: a wrong key, secret or app is one error that names it.
#[test]
fn wrong_credentials_are_named() {
    let relay = Relay::start();
    for (option, wrong, expected) in [
        ("--key", "nobody", "refused the key: pusher error 4001"),
        ("--secret", "wrong", "refused a signed request with 401 (check --secret"),
        ("--app-id", "77", "(check --"),
    ] {
        let ended = Run::start(&["fan-out", "--url", &relay.url(), option, wrong, "--json"]).finish();
        assert_eq!(ended.code, Some(1), "{}", ended.error);
        assert!(ended.error.contains(expected), "{option}: {}", ended.error);
        assert_eq!(ended.report["verdict"], "failed");
    }
}

/// Goal: too few descriptors are reported before anything is connected, with the fix.
#[test]
fn too_few_descriptors_are_named() {
    let line = "ulimit -n 100 && exec \"$0\" idle --connections 1000 --workers 2";
    let ended = Run::of(Command::new("sh").args(["-c", line, LOADGEN])).finish();
    assert_eq!(ended.code, Some(2), "{}", ended.error);
    let expected = "1000 connections need --workers 28: a process may have 100 descriptors";
    assert!(ended.error.contains(expected), "{}", ended.error);
}

/// Goal: too few ports end the run with an error and a partial report. Method: a network namespace with 64 ports,
/// where a small server answers; where namespaces are forbidden, nothing can be shown, and the test says so.
#[test]
fn too_few_ports_are_named() {
    let relay = Path::new(LOADGEN).with_file_name("relay");
    drop(Relay::start()); // Builds it where it is missing.
    let folder = common::Folder::new();
    let script = "ip link set lo up || exit 77
        echo '40000 40063' > /proc/sys/net/ipv4/ip_local_port_range || exit 77
        \"$1\" serve --dev --data \"$2\" --listen 127.0.0.1:6001 --metrics-listen 127.0.0.1:9601 >/dev/null 2>&1 &
        server=$!
        for i in $(seq 200); do \"$0\" idle --connections 1 --hold-seconds 0 >/dev/null 2>&1 && break; sleep 0.05; done
        \"$0\" idle --connections 500 --in-flight 8 --workers 1 --json
        code=$?; kill -9 $server; exit $code";
    let arguments = ["--user", "--map-root-user", "--net", "sh", "-c", script, LOADGEN];
    let mut command = Command::new("unshare");
    command.args(arguments).arg(relay).arg(folder.path("data"));
    let ended = Run::of(&mut command).finish();
    if ended.error.contains("Operation not permitted") || ended.code == Some(77) {
        eprintln!("no network namespaces here: nothing was shown ({})", ended.error);
        return;
    }
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    assert!(ended.cut_short().contains("no free local port"), "{}", ended.cut_short());
    assert!(ended.figure("connections") >= 32.0, "{:#}", ended.report);
}
