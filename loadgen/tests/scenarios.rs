//! The scenarios with their fields and reports, against a real Relay.

mod common;

use common::{Ended, Relay, Run};

#[track_caller]
fn assert_done(ended: &Ended) {
    // On a busy machine a run may be called invalid; all that it counts is right all the same.
    assert!(matches!(ended.code, Some(0 | 3)), "{:#} {}", ended.report, ended.error);
}

/// R-LOAD-1, R-LOAD-2: fan-out takes its fields as flags, publishes over HTTP, and the rate is that of all publishers.
/// Method: a subscriber that is no part of the run sees server events, and as many as were due.
#[test]
fn fan_out_publishes_over_http() {
    let relay = Relay::start();
    let mut subscriber = relay.subscribe("a-channel");
    let fields = ["--subscribers", "10", "--publishers", "5", "--events-per-second", "100", "--duration-seconds", "1"];
    let run = ["fan-out", "--url", &relay.url(), "--channel", "a-channel", "--warmup-seconds", "0", "--json"];
    let ended = Run::start(&[&run[..], &fields[..]].concat()).finish();
    assert_done(&ended);
    assert_eq!(ended.figure("published"), 100.0);
    assert_eq!(ended.figure("delivered"), 1_000.0);
    assert_eq!(subscriber.wait(100)["event"], "load");
}

/// R-LOAD-1, R-LOAD-2: in many-to-many, clients that are connected send client events on a private channel that all
/// subscribe; each gets those of the others.
#[test]
fn many_to_many_sends_client_events() {
    let relay = Relay::start();
    let mut subscriber = relay.subscribe("private-crowd");
    let fields = ["--subscribers", "10", "--publishers", "5", "--events-per-second", "40", "--duration-seconds", "1"];
    let run = ["many-to-many", "--url", &relay.url(), "--channel", "private-crowd", "--workers", "2", "--json"];
    let ended = Run::start(&[&run[..], &fields[..]].concat()).finish();
    assert_done(&ended);
    assert_eq!(ended.figure("published"), 40.0);
    assert_eq!(ended.figure("delivered"), 360.0, "the sender does not get its own");
    assert_eq!(subscriber.wait(40)["event"], "client-load");
}

/// P-LIVE-2: idle connections ping as often as they are asked to, and every ping is answered.
#[test]
fn idle_connections_ping() {
    let relay = Relay::start();
    let fields = ["--connections", "10", "--ping-seconds", "0.5", "--hold-seconds", "3", "--workers", "2", "--json"];
    let ended = Run::start(&[&["idle", "--url", &relay.url()][..], &fields[..]].concat()).finish();
    assert_done(&ended);
    assert_eq!(ended.figure("pings"), 60.0);
    assert_eq!(ended.figure("pongs"), 60.0);
    assert_eq!(ended.report["times-ms"]["pong"]["count"], 60, "each was timed");
}

/// R-LOAD-1, R-LOAD-3: a storm takes its fields as flags, is bounded by no cap of 10,000 connections, and reports the
/// success rate, joins per second and the server's memory for each connection.
#[test]
fn a_storm_connects_more_than_ten_thousand() {
    let relay = Relay::start();
    let fields = ["--target-connections", "10001", "--ramp-seconds", "0", "--hold-seconds", "0.1"];
    let run = ["connection-storm", "--url", &relay.url(), "--server-pid", &relay.pid(), "--json"];
    let ended = Run::start(&[&run[..], &fields[..]].concat()).finish();
    assert_done(&ended);
    assert_eq!(ended.figure("joined"), 10_001.0);
    assert_eq!(ended.figure("connection-success-rate-percent"), 100.0);
    assert!(ended.figure("joins-per-second") > 0.0);
    assert!(ended.figure("server-resident-per-connection-bytes") > 0.0);
    assert_eq!(ended.report["times-ms"]["join"]["count"], 10_001);
}

/// R-LOAD-3: a server that drains closes with a code, and connections that ended are counted by it.
#[test]
fn ends_are_counted_by_code() {
    let relay = Relay::start();
    let fields = ["--target-connections", "30", "--ramp-seconds", "0", "--hold-seconds", "600"];
    let storm = ["connection-storm", "--url", &relay.url(), "--json"];
    let mut run = Run::start(&[&storm[..], &fields[..]].concat());
    run.until("its connections", || relay.connections().0 >= 30);
    relay.signal("TERM");
    let ended = run.finish();
    assert_eq!(ended.code, Some(1), "{}", ended.error);
    let reasons = ended.report["reasons"].as_object().expect("an object");
    let closed = reasons.iter().filter(|(reason, _)| reason.starts_with("closed by the server with 4"));
    assert_eq!(closed.filter_map(|(_, count)| count.as_u64()).sum::<u64>(), 30, "{:#}", ended.report);
    assert!(ended.cut_short().contains("the server closed every connection"), "{}", ended.cut_short());
}

/// R-LOAD-3: text and JSON both have deliveries and p50, p95 and p99; in JSON in milliseconds, in text in a readable unit.
#[test]
fn both_reports_have_the_main_figures() {
    let relay = Relay::start();
    let run = ["fan-out", "--url", &relay.url(), "--subscribers", "5", "--duration-seconds", "0.3"];
    let text = std::process::Command::new(common::LOADGEN).args(run).output().expect("it starts").stdout;
    let text = String::from_utf8(text).expect("text");
    for part in ["delivered", "connection-success-rate", "joins-per-second", " p50 ", " p95 ", " p99 "] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!([" µs ", " ms "].iter().any(|unit| text.contains(unit)), "a unit in {text}");
    let ended = Run::start(&[&run[..], &["--json"]].concat()).finish();
    assert_done(&ended);
    for percentile in ["p50", "p95", "p99"] {
        assert!(ended.report["times-ms"]["delivery"][percentile].as_f64() > Some(0.0), "{:#}", ended.report);
    }
    assert_eq!(ended.figure("delivered"), 150.0);
}

/// Goal: the highest rate is searched and the rounds run at half of it, with the floor beside them.
#[test]
fn rounds_run_at_half_the_highest_rate() {
    let relay = Relay::start();
    let core = common::allowed_core();
    let search = ["--find-rate", "--floor", "--floor-core", &core, "--rounds", "2", "--duration-seconds", "0.5"];
    let run = ["fan-out", "--url", &relay.url(), "--subscribers", "50", "--json", "--server-pid", &relay.pid()];
    let ended = Run::start(&[&run[..], &search[..]].concat()).finish();
    assert_done(&ended);
    let highest = ended.figure("highest-rate-events-per-second");
    assert_eq!(ended.figure("events-per-second"), highest / 2.0);
    let events = ended.figure("published") - highest / 2.0;
    assert!(events.abs() <= 4.0, "two rounds of half a second: {:#}", ended.report);
    let (least, most) = (ended.figure("p99-to-floor-send-ratio-min"), ended.figure("p99-to-floor-send-ratio-max"));
    assert!(least > 0.0 && least <= ended.figure("p99-to-floor-send-ratio") && most >= least);
}

/// Goal: an app that floods in every way and another one that gets everything meanwhile, each way with its figures; a
/// condition on the worst ratio is checked. Method: short rounds at low rates, since times mean nothing here.
#[test]
fn tenants_are_told_apart_by_way() {
    let relay = Relay::start();
    relay.create_app("2", "flood-key", "flood-secret");
    let fields =
        ["--rounds", "1", "--duration-seconds", "0.5", "--flood-per-second", "200", "--flood-connections", "20"];
    let run =
        ["tenants", "--url", &relay.url(), "--subscribers", "10", "--json", "--fail-if", "errors=0,worst-p99-ratio>0"];
    let ended = Run::start(&[&run[..], &fields[..]].concat()).finish();
    assert_done(&ended);
    assert_eq!(ended.figure("errors"), 0.0);
    let ways = ["slow-readers", "publish", "big-bodies", "presence", "subscribe", "queries", "connections"];
    for way in ways {
        assert!(ended.figure(&format!("{way}-alone-p99-ms")) > 0.0 && ended.figure(&format!("{way}-p99-ms")) > 0.0);
        assert!(ended.figure(&format!("{way}-p99-ratio")) > 0.0);
        assert!(ended.figure(&format!("{way}-flood-per-second")) > 0.0, "{way}: {:#}", ended.report);
        assert_eq!(ended.figure(&format!("{way}-flood-refused")), 0.0, "{way}: {:#}", ended.report);
    }
    let worst = ways.map(|way| ended.figure(&format!("{way}-p99-ratio"))).into_iter().fold(0.0, f64::max);
    assert_eq!(ended.figure("worst-p99-ratio"), worst);
}

/// Goal: what the flooding app is refused is its own matter: the other one has no error, and the run passes. Method: the app
/// that floods may make a few requests a minute.
#[test]
fn a_flood_beyond_its_limit_is_refused() {
    let relay = Relay::start();
    relay.create_app("2", "flood-key", "flood-secret");
    relay.command(&["app", "set", "2", "requests_per_minute=50"]);
    let fields = ["--rounds", "1", "--duration-seconds", "1", "--flood", "publish", "--flood-per-second", "200"];
    let run = ["tenants", "--url", &relay.url(), "--subscribers", "10", "--json"];
    let ended = common::eventually("the limit is known to the server", || {
        let ended = Run::start(&[&run[..], &fields[..]].concat()).finish();
        (ended.figure("publish-flood-refused") > 0.0).then_some(ended)
    });
    assert_done(&ended);
    assert_eq!(ended.figure("errors"), 0.0);
}
