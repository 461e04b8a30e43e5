//! External tools that a test installs once under `target/` and finds again in the next run.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use super::cli;
use super::server::{RunningProcess, TestServer};
use super::sign::App;

/// The build directory that holds the caches.
pub fn target_directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp stands in target").to_owned()
}

/// The folder with the SDK scripts.
pub fn sdk_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// The folder below `target/` in which `tests/install` puts this tool, once installed. An error states why it is not
/// available on this machine.
pub fn installed(name: &str) -> Result<PathBuf, String> {
    let folder = target_directory().join("tools").join(name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/install");
    let output = Command::new(&script).arg(name).arg(&folder).output().expect("bash is here");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Ok(folder),
        Some(NOT_HERE) => Err(stderr.lines().last().unwrap_or_default().to_owned()),
        _ => panic!("tests/install {name} gave {}\n{stdout}\n{stderr}", output.status),
    }
}

/// The exit code of `tests/install` where this machine lacks a prerequisite.
const NOT_HERE: i32 = 77;

/// Runs a command to its end, which must succeed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} gave {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// `node_modules` by `npm ci` from the pinned lock file. Returns the folder to run scripts in: it contains copies of
/// them.
pub fn node_project() -> PathBuf {
    static NODE: LazyLock<PathBuf> = LazyLock::new(|| installed("node").expect("npm is here"));
    let (sources, directory) = (sdk_sources(), NODE.clone());
    copy_scripts(&sources, &directory);
    copy_scripts(&sources.join("examples"), &directory);
    directory
}

/// Node searches for packages from the script's directory, so scripts run as copies beside `node_modules`. A copy is
/// created by rename: another test process may be about to read it.
fn copy_scripts(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder of scripts").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".mjs") {
            let part = to.join(format!("{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
            fs::copy(entry.path(), &part).expect("a script is copied");
            fs::rename(&part, to.join(name)).expect("the copy takes its name");
        }
    }
}

/// A virtual environment with the pinned Python packages; returns its interpreter.
pub fn python() -> PathBuf {
    static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| installed("python").expect("Python 3 is here"));
    PYTHON.join("env/bin/python")
}

/// A script of `tests/sdk`, before its start.
pub struct Script {
    command: Command,
}

impl Script {
    /// A Node script, run beside the pinned packages.
    pub fn node(name: &str) -> Self {
        let directory = node_project();
        let mut command = mortal("node");
        command.arg("--require").arg(sdk_sources().join("globals.cjs"));
        command.arg(directory.join(name)).current_dir(directory);
        Self { command }
    }

    /// A Python script, run by this interpreter.
    pub fn python(interpreter: &Path, name: &str) -> Self {
        let mut command = mortal(interpreter.to_str().expect("a UTF-8 path"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(sdk_sources().join(name));
        Self { command }
    }

    /// Any program.
    pub fn command(program: &str, arguments: &[&str]) -> Self {
        let mut command = mortal(program);
        command.env("PYTHONDONTWRITEBYTECODE", "1").args(arguments);
        Self { command }
    }

    /// Sets variables.
    pub fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.command.envs(variables.iter().copied());
        self
    }

    /// Adds arguments.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets the variables for the server and the app.
    pub fn app(mut self, server: &TestServer, app: &App) -> Self {
        self.command
            .env("RELAY_HOST", server.address.ip().to_string())
            .env("RELAY_PORT", server.address.port().to_string())
            .env("RELAY_APP_ID", &app.id)
            .env("RELAY_KEY", &app.key)
            .env("RELAY_SECRET", &app.secret);
        self
    }

    /// Starts it.
    pub fn start(self) -> RunningScript {
        RunningScript { process: RunningProcess::spawn(self.command), shown: BTreeSet::new() }
    }

    /// Runs it to its end, which must succeed.
    #[track_caller]
    pub fn run(self) {
        self.start().finish();
    }

    /// Runs it to its end, which must succeed; returns the features that it reported.
    #[track_caller]
    pub fn run_shown(self) -> BTreeSet<String> {
        self.start().finish_shown()
    }
}

/// A running script.
pub struct RunningScript {
    process: RunningProcess,
    /// `SDK: FEATURE` of its lines `shown SDK: FEATURE`.
    shown: BTreeSet<String>,
}

impl RunningScript {
    /// The next line that it prints. Lines that report a feature are recorded and skipped.
    #[track_caller]
    pub fn next_line(&mut self) -> String {
        loop {
            let Some(line) = self.process.line(SCRIPT_PATIENCE) else {
                panic!("a line was due from the script, which says:\n{}", self.process.log());
            };
            match line.strip_prefix("shown ") {
                Some(feature) => drop(self.shown.insert(feature.to_owned())),
                None => return line,
            }
        }
    }

    /// The next line, which must be this one.
    #[track_caller]
    pub fn expect_line(&mut self, wanted: &str) {
        let line = self.next_line();
        assert_eq!(line, wanted, "{}", self.process.log());
    }

    /// The rest of the next line, which must begin with `start`.
    #[track_caller]
    pub fn line_after(&mut self, start: &str) -> String {
        let line = self.next_line();
        line.strip_prefix(start).unwrap_or_else(|| panic!("{start:?}, not {line:?}\n{}", self.process.log())).to_owned()
    }

    /// Waits for its `ok` and its end.
    #[track_caller]
    pub fn finish(self) {
        self.finish_shown();
    }

    /// Waits for its `ok` and its end; returns the features that it reported.
    #[track_caller]
    pub fn finish_shown(mut self) -> BTreeSet<String> {
        self.expect_line("ok");
        let shown = self.take_shown();
        self.end();
        shown
    }

    /// The features that it reported so far.
    pub fn take_shown(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.shown)
    }

    /// Its standard error so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits for its end, which must be successful.
    #[track_caller]
    pub fn end(mut self) {
        let status = self.process.wait(SCRIPT_PATIENCE);
        assert!(status.success(), "{status}\n{}", self.process.log());
    }
}

const SCRIPT_PATIENCE: Duration = Duration::from_secs(60);

/// A command that ends with this process.
fn mortal(program: &str) -> Command {
    let mut command = cli::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Prometheus' own checker: the one installed on this machine, or else the one in Debian's package, unpacked below
/// `target/` without installing it.
pub fn promtool() -> PathBuf {
    static PROMTOOL: LazyLock<PathBuf> = LazyLock::new(|| {
        if Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return "promtool".into();
        }
        installed("promtool").expect("promtool is on PATH or in Debian's package").join("usr/bin/promtool")
    });
    PROMTOOL.clone()
}

/// Reports that a test could not be run: on standard error itself, which the test harness does not capture. `tests/run`
/// counts the test as not run, and lists it at the end.
pub fn say_skipped(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}
