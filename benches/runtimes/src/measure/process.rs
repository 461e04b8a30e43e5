//! The processes of a round: one server, pinned, and the load generator, pinned elsewhere.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::experiments::{Contender, Place, Program};

/// A running server; it is killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
    /// Removed at the end.
    data: Option<PathBuf>,
}

/// The load generator's findings.
pub(crate) struct Outcome {
    pub(crate) value: f64,
    pub(crate) verdict: String,
    pub(crate) problems: Vec<String>,
}

impl Server {
    /// Starts it and waits until it reports its address.
    pub(crate) fn start(program: &Program, place: Place) -> Result<Self, String> {
        let mut command = Command::new("taskset");
        command.args(["-c", place.server_cores()]);
        let mut data = None;
        match program {
            Program::Bare { on, role } => {
                let own = std::env::current_exe().map_err(|error| error.to_string())?;
                command.arg(own).args(["serve", "--on", on, "--role", role]);
            }
            Program::HttpEcho => {
                command.arg(relay_program("relay-loadgen", "RELAY_RUNTIMES_LOADGEN")?).arg("http-echo");
            }
            Program::Relay { io, shards } => {
                let folder = super::folder().join(format!("data-{}", std::process::id()));
                command.arg(relay_program("relay", "RELAY_RUNTIMES_RELAY")?);
                command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
                command.args(["--io", io, "--shards", shards, "--data"]).arg(&folder);
                data = Some(folder);
            }
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|error| format!("cannot start taskset: {error}"))?;
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Self { child, address: String::new(), data };
        for line in output.lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                server.address = rest.split(' ').next().unwrap_or_default().to_owned();
                return Ok(server);
            }
        }
        Err(format!("the server ended before it listened: {program:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            let _ = std::fs::remove_dir_all(data);
        }
    }
}

/// Runs the contender's scenario against the server.
pub(crate) fn load(server: Option<&Server>, contender: &Contender, place: Place) -> Result<Outcome, String> {
    let mut command = Command::new("taskset");
    command.args(["-c", place.generator_cores()]).arg(relay_program("relay-loadgen", "RELAY_RUNTIMES_LOADGEN")?);
    command.args(&contender.scenario).args(["--json", "--workers", "1"]);
    if let Some(server) = server {
        // `taskset` replaced itself with the server: the process is the same.
        command.args(["--url", &format!("ws://{}", server.address), "--server-pid", &server.child.id().to_string()]);
    }
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = spawned.and_then(Child::wait_with_output).map_err(|error| format!("relay-loadgen: {error}"))?;
    let mut said = String::new();
    let _ = output.stderr.as_slice().read_to_string(&mut said);
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{}: no report ({error}): {said}", contender.name))?;
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|problem| problem["text"].as_str().map(str::to_owned)).collect()
    };
    let verdict = report["verdict"].as_str().unwrap_or_default().to_owned();
    let problems = texts(&report["problems"]);
    let figure = report["figures"][contender.figure].as_f64();
    match figure {
        Some(value) if verdict != "failed" => Ok(Outcome { value, verdict, problems }),
        Some(_) | None => Err(format!("{}: {verdict}, no {}: {problems:?} {said}", contender.name, contender.figure)),
    }
}

/// A release binary of the workspace, or the one that the environment names.
fn relay_program(name: &str, variable: &str) -> Result<PathBuf, String> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release").join(name);
    let path = std::env::var_os(variable).map_or(built, PathBuf::from);
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is not there: `cargo build --release --workspace` in the repository, or {variable}",
        path.display()
    ))
}
