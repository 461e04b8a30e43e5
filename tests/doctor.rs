//! `relay doctor` as operators and scripts use it, on this machine: fields, exit codes, and the correctness of its
//! findings on ports, directories, limits and seccomp profiles. Also the files of `tuning/`, checked by the programs
//! that read them.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const RELAY: &str = env!("CARGO_BIN_EXE_relay");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An empty data directory with the right mode.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// `relay doctor --json` after further arguments, on free ports.
    fn doctor(&self, before: &[&str], arguments: &[&str]) -> Output {
        let data = self.data();
        let data = data.to_str().expect("text");
        let line = [before, &[RELAY, "doctor", "--json", "--data", data], arguments].concat();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("RELAY_LISTEN", "127.0.0.1:0").env("RELAY_METRICS_LISTEN", "127.0.0.1:0");
        command.current_dir(self.directory.path()).stdin(Stdio::null()).output().expect("runs")
    }
}

#[track_caller]
fn report(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    let problems = report["problems"].as_u64().expect("a number");
    assert_eq!(output.status.code(), Some(i32::from(problems > 0)), "{told}\n{report:#}");
    report
}

#[track_caller]
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check} in {report:#}"))
}

#[track_caller]
fn assert_found(report: &Value, check: &str, state: &str, parts: &[&str]) {
    let finding = finding(report, check);
    assert_eq!(finding["state"], state, "{finding:#}");
    let text = finding.to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in {finding:#}");
}

/// Every field that machines read is there, with its type; counts and exit code agree with the findings.
#[test]
fn json_has_all_fields() {
    let place = Place::new();
    let report = report(&place.doctor(&[], &["--max-connections", "1000"]));
    assert_eq!((&report["connections"], &report["connections_assumed"]), (&1000.into(), &false.into()));
    assert!(report["shards"].as_u64().is_some_and(|shards| shards > 0), "{report:#}");
    assert_eq!((&report["listen"], &report["relay"]), (&"127.0.0.1:0".into(), &env!("CARGO_PKG_VERSION").into()));
    let findings = report["findings"].as_array().expect("findings");
    let mut counts = [0_u64; 3];
    for finding in findings {
        let state = ["ok", "advice", "problem"].iter().position(|name| finding["state"] == *name);
        counts[state.unwrap_or_else(|| panic!("{finding:#}"))] += 1;
        assert!(finding["check"].is_string() && finding["found"].is_string(), "{finding:#}");
        let well = finding["state"] == "ok";
        assert!(finding["cost"].is_null() == well && finding["fix"].is_null() == well, "{finding:#}");
    }
    assert_eq!(counts.map(Value::from), ["ok", "advice", "problems"].map(|name| report[name].clone()));
    for check in ["io_uring", "descriptors", "locked_memory", "memory", "data", "listen", "tcp_memory", "clock"] {
        finding(&report, check);
    }
}

/// It changes nothing: a missing directory stays missing, a present one stays empty.
#[test]
fn nothing_is_changed() {
    let place = Place::new();
    let found = report(&place.doctor(&[], &[]));
    assert_found(&found, "data", "ok", &["the server makes it"]);
    assert!(!place.data().exists());
    std::fs::DirBuilder::new().mode(0o700).create(place.data()).expect("made");
    assert_found(&report(&place.doctor(&[], &[])), "data", "ok", &["the server makes it"]);
    assert_eq!(std::fs::read_dir(place.data()).expect("readable").count(), 0);
}

/// Threat T23: a directory or store that the server would refuse is a problem, with the command that fixes it.
#[test]
fn open_modes_are_a_problem() {
    let place = Place::new();
    let data = place.data();
    let made = Command::new(RELAY).args(["app", "create", "--data"]).arg(&data).output().expect("runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_found(&report(&place.doctor(&[], &[])), "data", "ok", &["are right"]);
    let open = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("ours");
    open(&data.join("data.mdb"), 0o644);
    assert_found(&report(&place.doctor(&[], &[])), "data", "problem", &["chmod 600", "data.mdb"]);
    open(&data.join("data.mdb"), 0o600);
    open(&data, 0o777);
    assert_found(&report(&place.doctor(&[], &[])), "data", "problem", &["chmod 700"]);
}

/// A held port is a problem that names the holder, unless it is the process that was asked about; without `--json` the
/// report is text, and standard error says why the exit code is 1.
#[test]
fn a_held_port_is_found() {
    let place = Place::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("bound").to_string();
    let us = std::process::id().to_string();
    let found = report(&place.doctor(&[], &["--listen", &address]));
    assert_found(&found, "listen", "problem", &[&address, &format!("pid {us} ")]);
    let found = report(&place.doctor(&[], &["--listen", &address, "--pid", &us]));
    assert_found(&found, "listen", "ok", &[&address]);

    let mut command = Command::new(RELAY);
    command.args(["doctor", "--listen", &address, "--data"]).arg(place.data()).env_clear();
    let output = command.env("RELAY_METRICS_LISTEN", "127.0.0.1:0").output().expect("runs");
    let (text, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("problem  listen") && told.starts_with("relay: ") && told.contains("of the findings"),
        "{text}\n{told}"
    );
    drop(holder);
    assert_found(&report(&place.doctor(&[], &["--listen", &address])), "listen", "ok", &["is free"]);
}

/// The checked limits are those of the process, and `--pid` selects another.
#[test]
fn limits_are_those_of_the_process() {
    let place = Place::new();
    let low = ["sh", "-c", "ulimit -n 100; exec \"$@\"", "sh"];
    assert_found(&report(&place.doctor(&low, &[])), "descriptors", "problem", &["100 hard", "LimitNOFILE="]);
    let us = std::process::id().to_string();
    let found = report(&place.doctor(&low, &["--pid", &us]));
    assert!(!finding(&found, "descriptors")["found"].as_str().expect("text").contains("100 hard"), "{found:#}");
}

/// U14: under a profile like Docker's own, io_uring is advice that names seccomp and the profile; under the profile of
/// `tuning/` it works, so that profile allows everything that the server needs.
#[test]
fn the_profile_brings_io_uring_back() {
    let place = Place::new();
    let path = |name: &str| root().join(name).to_str().expect("text").to_owned();
    if finding(&report(&place.doctor(&[], &[])), "io_uring")["state"] != "ok" {
        let reason = "io_uring does not work on this machine at all";
        let _ = writeln!(std::io::stderr(), "skipped: the_profile_brings_io_uring_back: {reason}");
        return;
    }
    let forbidden = report(&place.doctor(&["python3", &path("tests/common/forbid_io_uring.py")], &[]));
    assert_found(&forbidden, "io_uring", "advice", &["seccomp", "tuning/seccomp.json"]);
    let runner = path("tests/common/under_profile.py");
    let profile = path("tuning/seccomp.json");
    let allowed = report(&place.doctor(&["python3", &runner, &profile], &[]));
    assert_found(&allowed, "io_uring", "ok", &["a test connection worked"]);

    // The same profile without its io_uring entry: the filter is really in effect.
    let mut less: Value = serde_json::from_str(&std::fs::read_to_string(&profile).expect("there")).expect("JSON");
    less["syscalls"].as_array_mut().expect("entries").remove(0);
    let written = place.directory.path().join("less.json");
    std::fs::write(&written, less.to_string()).expect("written");
    let found = report(&place.doctor(&["python3", &runner, written.to_str().expect("text")], &[]));
    assert_found(&found, "io_uring", "advice", &["seccomp"]);
}

/// The profile uses only fields that all runtimes can read, denies by default with an error, and allows no dangerous
/// call.
#[test]
fn the_profile_is_narrow() {
    let text = std::fs::read_to_string(root().join("tuning/seccomp.json")).expect("there");
    let profile: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&profile["defaultAction"], &profile["defaultErrnoRet"]), (&"SCMP_ACT_ERRNO".into(), &1.into()));
    let allowed: Vec<&str> = profile["syscalls"]
        .as_array()
        .expect("entries")
        .iter()
        .filter(|entry| entry["action"] == "SCMP_ACT_ALLOW")
        .flat_map(|entry| entry["names"].as_array().expect("names").iter().filter_map(Value::as_str))
        .collect();
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register", "execve", "clone", "epoll_pwait2"] {
        assert!(allowed.contains(&call), "{call}");
    }
    for call in
        ["mount", "ptrace", "bpf", "keyctl", "add_key", "unshare", "setns", "init_module", "kexec_load", "clone3"]
    {
        assert!(!allowed.contains(&call), "{call}");
    }
}

/// systemd itself reports nothing about the unit, once its binary exists.
#[test]
fn systemd_takes_the_unit() {
    let place = Place::new();
    let unit = std::fs::read_to_string(root().join("tuning/relay.service")).expect("there");
    assert!(unit.contains("/usr/bin/relay"), "{unit}");
    let file = place.directory.path().join("relay.service");
    std::fs::write(&file, unit.replace("/usr/bin/relay", RELAY)).expect("written");
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output();
    let output = verify.expect("systemd-analyze is installed (Debian: apt-get install systemd)");
    let told = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = told.lines().filter(|line| line.contains("relay.service")).collect();
    assert!(output.status.success() && ours.is_empty(), "{told}");
}

/// A usage error is one line and exit code 2, as everywhere.
#[test]
fn mistakes_are_told() {
    let place = Place::new();
    for (arguments, part) in [
        (["--max-connections", "many"], "--max-connections"),
        (["--listen", "nowhere"], "--listen"),
        (["--pid", "4294967295"], "--pid"),
    ] {
        let output = place.doctor(&[], &arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && output.stdout.is_empty(), "{arguments:?}: {told}");
        assert!(told.trim_end().lines().count() == 1 && told.contains(part), "{told}");
    }
}
