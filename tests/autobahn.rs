//! Autobahn|Testsuite against the server's own codec and drivers: RFC 6455 as tested by an independent suite
//! (P-CONN-7).
//!
//! The feature `conformance` gives the server an echo endpoint with raised limits. The suite itself needs Python 2.7;
//! `tests/install` installs it once below `target/`, from PyPI alone. Without Python 2.7 the test reports that it was
//! skipped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::common::rig::drivers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::tools::{installed, run, say_skipped, target_directory};
use crate::common::{cli, server};
use serde_json::{Value, json};

/// Groups 1 to 7, 9 and 10; there is no 8, and 12 and 13 are about compression, which is declined.
const CASES: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];
/// The number of these cases.
const CASES_COUNT: usize = 301;
/// Cases that may be answered less strictly than the suite wants, with the reason. There are none.
const NON_STRICT: [&str; 0] = [];

/// P-CONN-7, P-SDK-12: every case passes on io_uring and on epoll, with a clean close.
#[test]
fn autobahn_cases_pass() {
    let suite = match installed("autobahn") {
        Ok(suite) => suite,
        Err(reason) => return say_skipped(&format!("Autobahn|Testsuite was not run: {reason}")),
    };
    let binary = conformance_binary();
    let servers: Vec<TestServer> =
        drivers().iter().map(|&driver| TestServer::start_binary(&binary, ServerOptions::new(driver))).collect();
    let agents: Vec<Value> = servers
        .iter()
        .map(|server| {
            let url = format!("ws://{}/conformance/echo", server.address);
            json!({"agent": server.driver.word(), "url": url, "options": {"version": 18}})
        })
        .collect();
    let folder = server::data_directory();
    let reports = folder.path().join("reports");
    let specification =
        json!({"outdir": reports, "servers": agents, "cases": CASES, "exclude-cases": [], "exclude-agent-cases": {}});
    let path = folder.path().join("specification.json");
    std::fs::write(&path, specification.to_string()).unwrap();
    run(cli::command(suite.join("env/bin/wstest"))
        .args(["-m", "fuzzingclient", "-s"])
        .arg(&path)
        .current_dir(folder.path()));
    let index = std::fs::read_to_string(reports.join("index.json")).expect("the suite writes its index");
    let index: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&index).unwrap();
    for server in &servers {
        judge(server.driver.word(), &index[server.driver.word()]);
        server.assert_alive();
    }
}

fn judge(agent: &str, cases: &BTreeMap<String, Value>) {
    assert_eq!(cases.len(), CASES_COUNT, "{agent}: cases that were run");
    let (mut good, mut informational, mut non_strict) = (0, 0, 0);
    let mut bad = Vec::new();
    for (case, result) in cases {
        let (behavior, close) = (result["behavior"].as_str().unwrap(), result["behaviorClose"].as_str().unwrap());
        match behavior {
            "OK" => good += 1,
            "INFORMATIONAL" => informational += 1,
            "NON-STRICT" => {
                non_strict += 1;
                if !NON_STRICT.contains(&case.as_str()) {
                    bad.push(format!("{case}: {behavior}"));
                }
            }
            _ => bad.push(format!("{case}: {behavior}")),
        }
        if !matches!(close, "OK" | "INFORMATIONAL") {
            bad.push(format!("{case}: close {close}"));
        }
    }
    println!("{agent}: {good} OK, {informational} INFORMATIONAL, {non_strict} NON-STRICT, {} not allowed", bad.len());
    assert!(bad.is_empty(), "{agent}: {bad:#?}");
}

/// The server with the echo endpoint, built in the tests' directory, with their dependencies.
fn conformance_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RELAY_CONFORMANCE_BINARY") {
        return path.into();
    }
    let target = target_directory();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--locked", "--example", "conformance"]);
    cargo.args(["--features", "conformance", "--target-dir"]).arg(&target);
    run(&mut cargo);
    target.join("debug/examples/conformance")
}
