//! Autobahn|Testsuite against the server's own codec and drivers: RFC 6455 as judged by somebody else (P-CONN-7).
//!
//! The feature `conformance` gives the server an echo endpoint with raised limits. The suite itself needs Python 2.7;
//! it is installed once below `target/autobahn`, from PyPI alone. Where there is no Python 2.7 the test says that it
//! was skipped.

// A test reads the clock, starts processes and may fail at any line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::rig::drivers;
use common::server::{ServerOptions, TestServer};
use common::tools::{installed, run, say_skipped, target_directory};
use common::{cli, server};
use serde_json::{Value, json};

/// Groups 1 to 7, 9 and 10; there is no 8, and 12 and 13 are about compression, which is declined.
const CASES: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];
/// How many cases that is.
const CASES_COUNT: usize = 301;
/// Cases that may answer less strictly than the suite likes.
const NON_STRICT_MAX: usize = 2;

/// P-CONN-7, P-SDK-12: every case passes on io_uring and on epoll, with a clean close.
#[test]
fn autobahn_cases_pass() {
    let Some(python) = python_2_7() else {
        say_skipped("no Python 2.7, so Autobahn|Testsuite was not run (looked in PATH and in ~/.pyenv/versions)");
        return;
    };
    let suite = install(&python);
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
    let (mut good, mut informational) = (0, 0);
    let (mut bad, mut non_strict) = (Vec::new(), Vec::new());
    for (case, result) in cases {
        let (behavior, close) = (result["behavior"].as_str().unwrap(), result["behaviorClose"].as_str().unwrap());
        match behavior {
            "OK" => good += 1,
            "INFORMATIONAL" => informational += 1,
            "NON-STRICT" => non_strict.push(case),
            _ => bad.push(format!("{case}: {behavior}")),
        }
        if !matches!(close, "OK" | "INFORMATIONAL") {
            bad.push(format!("{case}: close {close}"));
        }
    }
    println!(
        "{agent}: {good} OK, {informational} INFORMATIONAL, {} NON-STRICT, {} FAILED",
        non_strict.len(),
        bad.len()
    );
    assert!(bad.is_empty(), "{agent}: {bad:#?}");
    assert!(non_strict.len() <= NON_STRICT_MAX, "{agent}: not strict in {non_strict:?}");
}

/// An interpreter, by `RELAY_PYTHON27`, PATH or pyenv.
fn python_2_7() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = std::env::var_os("RELAY_PYTHON27").into_iter().map(PathBuf::from).collect();
    candidates.push("python2.7".into());
    let versions = std::env::home_dir().unwrap_or_default().join(".pyenv/versions");
    for entry in std::fs::read_dir(versions).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("2.7") {
            candidates.push(entry.path().join("bin/python2.7"));
        }
    }
    let works = |python: &PathBuf| {
        let output = Command::new(python).args(["-m", "pip", "--version"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    candidates.into_iter().find(works)
}

/// A virtual environment with the suite. The versions are the last ones that work together on Python 2.7.
fn install(python: &Path) -> PathBuf {
    let steps: [&[&str]; 4] = [
        &[
            "setuptools==44.0.0",
            "incremental==16.10.1",
            "zope.interface==4.6.0",
            "pyOpenSSL==19.1.0",
            "cryptography==3.3.2",
            "six==1.16.0",
            "txaio==2.1.0",
        ],
        &["--no-build-isolation", "Twisted==19.10.0"],
        &[
            "--no-build-isolation",
            "jinja2==2.11.3",
            "markupsafe==1.1.1",
            "Werkzeug==1.0.1",
            "klein==17.10.0",
            "service_identity==18.1.0",
            "unittest2==1.1.0",
            "autobahn[twisted,accelerate]==0.10.9",
        ],
        &["--no-deps", "--no-build-isolation", "autobahntestsuite==25.10.1"],
    ];
    let inputs: Vec<&str> = steps.concat();
    installed("autobahn", &inputs, |directory| {
        let bootstrap = directory.join("bootstrap");
        let mut pip = Command::new(python);
        run(pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&bootstrap).arg("virtualenv==20.15.1"));
        let environment = directory.join("env");
        let _ = std::fs::remove_dir_all(&environment);
        run(Command::new(python).env("PYTHONPATH", &bootstrap).args(["-m", "virtualenv", "--quiet"]).arg(&environment));
        for step in steps {
            run(Command::new(environment.join("bin/pip")).args(["install", "--quiet"]).args(step));
        }
    })
}

/// The server with the echo endpoint, built where the tests are, with their dependencies.
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
