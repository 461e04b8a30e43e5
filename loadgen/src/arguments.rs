//! The command line: selects the scenario, parses its options and writes its report.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::abort::Abort;
use crate::outcome::{Failure, Verdict};
use crate::report::Report;
use crate::report::{csv, hdr, html};
use crate::scenario::Common;
use crate::scenario::connection_storm::ConnectionStorm;
use crate::scenario::fan_out::FanOut;
use crate::scenario::floor::Floor;
use crate::scenario::http_echo::HttpEcho;
use crate::scenario::idle::Idle;
use crate::scenario::many_to_many::ManyToMany;
use crate::scenario::presence_churn::PresenceChurn;
use crate::scenario::publish::Publish;
use crate::scenario::reconnect_storm::ReconnectStorm;
use crate::scenario::resume::Resume;
use crate::scenario::slow_readers::SlowReaders;
use crate::scenario::subscribe::Subscribe;
use crate::scenario::tenants::Tenants;
use crate::scenario::{file, floor_sender};
use crate::{abort, environment, process, worker};

/// Load generator for Relay and every other server of the Pusher Channels protocol.
#[derive(Parser)]
#[command(name = "relay-loadgen", version, disable_help_subcommand = true, args_override_self = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    FanOut(Box<FanOut>),
    ManyToMany(Box<ManyToMany>),
    Publish(Box<Publish>),
    Subscribe(Box<Subscribe>),
    ConnectionStorm(Box<ConnectionStorm>),
    ReconnectStorm(Box<ReconnectStorm>),
    Resume(Box<Resume>),
    PresenceChurn(Box<PresenceChurn>),
    SlowReaders(Box<SlowReaders>),
    Tenants(Box<Tenants>),
    Idle(Box<Idle>),
    Floor(Box<Floor>),
    HttpEcho(HttpEcho),
    /// Run the scenario of a file (TOML); options after it override the file.
    Run {
        /// The file: `scenario = "fan-out"` and that scenario's options.
        file: PathBuf,
        /// Options of the scenario.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    #[command(hide = true)]
    Worker,
    #[command(hide = true)]
    FloorSender,
}

/// Runs the command of this process's arguments.
pub(crate) fn run() -> ExitCode {
    let mut command = Arguments::parse().command;
    if let Command::Run { file: path, options } = &command {
        match file::arguments(path) {
            Ok(arguments) => {
                let name = "relay-loadgen".to_owned();
                command = Arguments::parse_from([vec![name], arguments, options.clone()].concat()).command;
            }
            Err(error) => {
                note(&format!("relay-loadgen: {error}"));
                return ExitCode::from(2);
            }
        }
    }
    environment::raise_descriptors();
    if !matches!(command, Command::Worker | Command::FloorSender | Command::HttpEcho(_))
        && let Err(error) = abort::handle_signals()
    {
        note(&format!("relay-loadgen: cannot handle signals, so Ctrl-C ends this run without a report: {error}"));
    }
    let mut report = Report::default();
    macro_rules! scenario {
        ($name:literal, $scenario:ident) => {{
            report.begin($name, $scenario);
            (&$scenario.common, $scenario.run(&mut report))
        }};
    }
    let (common, result) = match &command {
        Command::Run { .. } => {
            note("relay-loadgen: a scenario file cannot name another");
            return ExitCode::from(2);
        }
        Command::Worker => return role(worker::run()),
        Command::FloorSender => return role(floor_sender::run()),
        Command::HttpEcho(echo) => return role(echo.run()),
        Command::FanOut(scenario) => scenario!("fan-out", scenario),
        Command::ManyToMany(scenario) => scenario!("many-to-many", scenario),
        Command::Publish(scenario) => scenario!("publish", scenario),
        Command::Subscribe(scenario) => scenario!("subscribe", scenario),
        Command::ConnectionStorm(scenario) => scenario!("connection-storm", scenario),
        Command::ReconnectStorm(scenario) => scenario!("reconnect-storm", scenario),
        Command::Resume(scenario) => scenario!("resume", scenario),
        Command::PresenceChurn(scenario) => scenario!("presence-churn", scenario),
        Command::SlowReaders(scenario) => scenario!("slow-readers", scenario),
        Command::Tenants(scenario) => scenario!("tenants", scenario),
        Command::Idle(scenario) => scenario!("idle", scenario),
        Command::Floor(scenario) => scenario!("floor", scenario),
    };
    finish(&mut report, common, result)
}

/// The exit code of a worker process. It has already reported an error to its coordinator.
fn role(result: std::io::Result<()>) -> ExitCode {
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the report, also of a run that was cut short.
fn finish(report: &mut Report, common: &Common, result: Result<(), Failure>) -> ExitCode {
    report.abort = abort::reason().cloned().map(|abort| with_process_state(abort, common));
    let failure = match result {
        Ok(()) => None,
        Err(Failure::Usage(text)) => {
            note(&format!("relay-loadgen: {text}"));
            return ExitCode::from(2);
        }
        Err(Failure::Run(text)) => {
            report.problem(Verdict::Failed, text.clone());
            Some(text)
        }
    };
    if let Some(thresholds) = common.fail_if.as_ref().filter(|_| failure.is_none() && report.abort.is_none()) {
        thresholds.check(report);
    }
    let files = [
        common.hdr.as_ref().map(|path| (path, hdr::write(path, &report.times))),
        common.csv.as_ref().map(|path| (path, csv::write(path, &report.times))),
        common.html.as_ref().map(|path| (path, html::write(path, report))),
        common.svg.as_ref().map(|path| (path, html::write_charts(path, report))),
    ];
    for (path, written) in files.into_iter().flatten() {
        if let Err(error) = written {
            report.problem(Verdict::Failed, format!("cannot write {}: {error}", path.display()));
        }
    }
    let text = if common.json { format!("{:#}\n", report.json()) } else { report.text() };
    // A closed pipe is not an error of the run.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if let Some(text) = report.abort.as_ref().map(|abort| format!("cut short: {}", abort.text())).or(failure) {
        note(&format!("relay-loadgen: {text}"));
    }
    report.verdict().exit_code()
}

/// Adds the state of the server's process to the reason.
fn with_process_state(abort: Abort, common: &Common) -> Abort {
    match (abort, common.server_pid) {
        (Abort::Server(text), Some(pid)) => match process::trouble(pid) {
            Some(trouble) => Abort::Server(format!("{text} (process {pid} {trouble})")),
            None => Abort::Server(text),
        },
        (abort @ (Abort::Server(_) | Abort::Generator(_) | Abort::Interrupted(_)), _) => abort,
    }
}

fn note(line: &str) {
    // If standard error is closed, the line is lost.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

const EXAMPLES: &str = "\
Examples:
  relay-loadgen fan-out --subscribers 1000 --events-per-second 200 --duration-seconds 30
  relay-loadgen fan-out --floor --rounds 5 --server-pid $(pidof relay)
  relay-loadgen idle --connections 15000 --server-pid $(pidof relay)
  relay-loadgen floor --subscribers 10000

Exit codes: 0 passed, 1 failed, 2 usage error, 3 the generator was the bottleneck, 4 interrupted (the report covers the
run until then), 99 a --fail-if condition failed.";
