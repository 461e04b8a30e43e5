//! 100,000 apps in one store (R-PROC-6): imported, listed, served, changed.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::rig::drivers;
use crate::common::server::{ServerOptions, TestServer, data_directory};
use crate::common::sign::App;
use crate::common::socket::Socket;
use crate::common::{cli, eventually_within, http};

/// Apps of this test; `RELAY_APPS=100000` for the number in the rule.
const APPS: usize = 10_000;
/// For that many apps on a busy machine with a debug build, an order of magnitude above the actual time.
const IMPORT_LIMIT: Duration = Duration::from_secs(60);

/// R-PROC-6: a file of apps is imported with one commit, in a time that grows with their number and not with its
/// square; the second run finds all of them. A server starts with them, serves the last one, and applies a change
/// within 2 s. Prints the figures.
#[test]
fn many_apps_are_imported_and_served() {
    let count: usize = std::env::var("RELAY_APPS").map_or(APPS, |count| count.parse().expect("a number"));
    let place = data_directory();
    let file = |count: usize| {
        let apps = (0..count).map(|number| {
            json!({
                "id": (1_000_000 + number).to_string(), "key": format!("key-{number:016}"),
                "secret": format!("secret-{number:033}"), "maxConnections": 500, "enableClientMessages": true,
            })
        });
        let path = place.path().join(format!("{count}.json"));
        fs::write(&path, json!({"appManager.array.apps": apps.collect::<Vec<_>>()}).to_string()).unwrap();
        path
    };
    let import = |count: usize, data: &str| {
        let file = file(count);
        let began = Instant::now();
        let report = cli::run_json(&["migrate", "--from", "soketi", file.to_str().unwrap(), "--data", data, "--json"]);
        let took = began.elapsed();
        assert_eq!(report["apps"].as_array().unwrap().len(), count);
        (report, took)
    };
    let outcomes = |report: &serde_json::Value, outcome: &str| {
        report["apps"].as_array().unwrap().iter().filter(|app| app["outcome"] == outcome).count()
    };
    let (data, tenth) = (place.path().join("data"), place.path().join("tenth"));
    let path = data.to_str().unwrap();
    let (_, took_tenth) = import(count / 10, tenth.to_str().unwrap());
    let (report, took) = import(count, path);
    assert_eq!(outcomes(&report, "created"), count);
    assert!(took < IMPORT_LIMIT.max(IMPORT_LIMIT * (count / APPS) as u32 / 2), "{took:?} for {count} apps");
    // Ten times as many would take a hundred times as long if it were quadratic.
    let ratio = took.as_secs_f64() / took_tenth.as_secs_f64();
    assert!(ratio < 40.0, "{took_tenth:?} for a tenth, {took:?} for all");
    let (report, again) = import(count, path);
    assert_eq!(outcomes(&report, "same"), count);

    let began = Instant::now();
    let list = cli::run_json(&["app", "list", "--json", "--data", path]);
    let listed = began.elapsed();
    assert_eq!(list.as_array().unwrap().len(), count);

    let began = Instant::now();
    let options = ServerOptions { apps: Vec::new(), data: Some(data.clone()), ..ServerOptions::new(drivers()[0]) };
    let server = TestServer::start_with(options);
    let started = began.elapsed();
    let resident = server.resident_bytes();
    let number = count - 1;
    let (key, secret) = (format!("key-{number:016}"), format!("secret-{number:033}"));
    let app = App { id: (1_000_000 + number).to_string(), key, secret };
    let mut socket = Socket::open(&server, &app);
    socket.subscribe("a");
    server.publish(&app, "a", "e", "d");
    socket.expect_data("e", "a", "d");

    let mut slowest = Duration::ZERO;
    for enabled in [false, true, false, true] {
        cli::run_json(&["app", if enabled { "enable" } else { "disable" }, &app.id, "--json", "--data", path]);
        let began = Instant::now();
        let wanted = if enabled { 200 } else { 403 };
        eventually_within("the change takes effect", Duration::from_secs(30), || {
            let target = app.sign("GET", &app.path("/channels"), b"");
            (http::get(server.address, &target).status == wanted).then_some(())
        });
        slowest = slowest.max(began.elapsed());
    }
    println!(
        "{count} apps: imported in {took:.2?} (a tenth in {took_tenth:.2?}, once more in {again:.2?}), listed in {listed:.2?}, \
         started in {started:.2?} with {} MiB resident ({} after changes), a change in effect after {slowest:.2?} at most; \
         data file {} MiB",
        resident >> 20,
        server.resident_bytes() >> 20,
        fs::metadata(data.join("data.mdb")).unwrap().len() >> 20,
    );
    assert!(slowest < Duration::from_secs(2) || cfg!(debug_assertions), "{slowest:?}");
}
