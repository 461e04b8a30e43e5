//! `relay doctor`: checks whether this host supports the configuration of `relay serve`, and what each shortcoming
//! costs; with `--public`, whether a deployment works from the outside (`public`).
//!
//! Nothing is changed: facts are read (`host`), judged by pure functions (`process`, `network`, `machine`) and shown.
//! The settings that it recommends are listed with their reasons in `tuning/` and in docs/tuning.md; a test checks that
//! a host with those settings passes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::flags::{Flags, Selection};
use super::{CommandError, note, print};
use crate::config::{IoChoice, Mode, ServeConfig, ServerSettings, Settings};
use crate::driver::capacity::Capacity;
use crate::label::{Label, labels};
use host::Host;

mod host;
mod machine;
mod network;
mod process;
mod public;

#[cfg(test)]
mod tests;

/// What is not given is looked up as `relay serve` would: `RELAY_*`, then relay.toml, then the default.
#[derive(Args, Debug)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    flags: Flags<Judged>,
    /// Check against the limits of this running process: a service has other limits than a shell.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Read this relay.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print only JSON on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    public: public::PublicArguments,
}

/// The settings that the findings depend on.
#[derive(Clone, Debug)]
struct Judged;

impl Selection for Judged {
    fn has(name: &str) -> bool {
        ["data", "listen", "max_connections"].contains(&name)
    }
}

labels! {
    /// How well one property of the host fits.
    enum State {
        /// Nothing to do.
        Ok => "ok",
        /// Relay serves, but with less than it could.
        Advice => "advice",
        /// Relay does not start, or cannot hold the connections that were stated.
        Problem => "problem",
    }
}

/// One property that was checked.
#[derive(Clone, Debug)]
struct Finding {
    check: &'static str,
    state: State,
    /// The current state.
    found: String,
    /// The cost of the current state; empty when it is good.
    cost: String,
    /// The line that fixes it; empty when it is good.
    fix: String,
    /// Who is to change, where that is known: `relay`, or a proxy in front of it.
    hop: Option<&'static str>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), cost: String::new(), fix: String::new(), hop: None }
    }

    fn of(
        state: State,
        check: &'static str,
        found: impl Into<String>,
        cost: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, state, found: found.into(), cost: cost.into(), fix: fix.into(), hop: None }
    }

    fn json(&self) -> Value {
        let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        json!({
            "check": self.check,
            "state": self.state.label(),
            "found": self.found,
            "cost": text(&self.cost),
            "fix": text(&self.fix),
            "hop": self.hop,
        })
    }
}

/// Where the number of connections comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expected {
    /// `max_connections` was set as flag, variable or in the file: a host that cannot hold them has a problem.
    Stated(u32),
    /// It was not set: a host that cannot hold them gets advice.
    Assumed(u32),
}

impl Expected {
    fn connections(self) -> u32 {
        match self {
            Self::Stated(connections) | Self::Assumed(connections) => connections,
        }
    }

    /// The state of a check that finds too little for them.
    fn shortfall(self) -> State {
        match self {
            Self::Stated(_) => State::Problem,
            Self::Assumed(_) => State::Advice,
        }
    }
}

/// The requirements that the host is judged by.
#[derive(Clone, Debug)]
struct Plan {
    expected: Expected,
    shards: u16,
    listen: SocketAddr,
    metrics_listen: SocketAddr,
    data: PathBuf,
    io: IoChoice,
}

impl Plan {
    fn new(config: &ServeConfig, memory_bytes: u64) -> Self {
        let carried = Capacity::from_memory(memory_bytes, config.server.shards).slots * u32::from(config.server.shards);
        let expected = match config.server.max_connections {
            Some(connections) => Expected::Stated(connections),
            None => Expected::Assumed(CONNECTIONS_ASSUMED.min(carried)),
        };
        let ServerSettings { shards, listen, metrics_listen, ref data, io, .. } = config.server;
        Self { expected, shards, listen, metrics_listen, data: data.clone(), io }
    }
}

/// More than most installations need, and as many as a small machine supports.
const CONNECTIONS_ASSUMED: u32 = 100_000;

/// Reads, judges, shows. Fails when there is a problem, so that scripts notice it.
pub(super) fn run(arguments: &DoctorArguments) -> Result<(), CommandError> {
    let settings = Settings::gather(arguments.flags.given(), arguments.config.clone(), std::env::vars_os())?;
    for warning in &settings.warnings {
        note(&format!("warning: {warning}"));
    }
    if arguments.public.public.is_some() {
        return public::run(&arguments.public, &settings, arguments.json);
    }
    let config = ServeConfig::new(&settings, Mode::Production)?;
    let host = Host::read(&config, arguments.pid).map_err(CommandError::Usage)?;
    let plan = Plan::new(&config, host.memory_bytes());
    let findings = judge(&host, &plan);
    if arguments.json {
        print(&format!("{:#}\n", report_json(&plan, &findings)))?;
    } else {
        print(&report_text(&plan, &findings))?;
    }
    match count(&findings, State::Problem) {
        0 => Ok(()),
        problems => Err(CommandError::Unfit(problems)),
    }
}

/// All checks, in the order in which they are shown.
fn judge(host: &Host, plan: &Plan) -> Vec<Finding> {
    vec![
        process::io_uring(host, plan),
        process::locked_memory(host, plan),
        process::descriptors(host, plan),
        process::open_files(host, plan),
        machine::memory(host, plan),
        machine::data(host, plan),
        network::port("listen", &host.listen, plan.listen),
        network::port("metrics_listen", &host.metrics_listen, plan.metrics_listen),
        network::local_ports(host, plan),
        network::reserved_ports(host, plan),
        network::accept_queue(host),
        network::syn_queue(host),
        network::tcp_memory(host, plan),
        network::send_buffers(host),
        network::receive_buffers(host),
        network::idle_window(host),
        network::connection_tracking(host, plan),
        machine::huge_pages(host),
        machine::governor(host),
        machine::clock(host),
    ]
}

fn count(findings: &[Finding], state: State) -> usize {
    findings.iter().filter(|finding| finding.state == state).count()
}

fn report_json(plan: &Plan, findings: &[Finding]) -> Value {
    let assumed = matches!(plan.expected, Expected::Assumed(_));
    json!({
        "relay": env!("CARGO_PKG_VERSION"),
        "connections": plan.expected.connections(),
        "connections_assumed": assumed,
        "shards": plan.shards,
        "listen": plan.listen.to_string(),
        "data": plan.data.display().to_string(),
        "ok": count(findings, State::Ok),
        "advice": count(findings, State::Advice),
        "problems": count(findings, State::Problem),
        "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
    })
}

fn report_text(plan: &Plan, findings: &[Finding]) -> String {
    let source = match plan.expected {
        Expected::Stated(_) => "",
        Expected::Assumed(_) => " (assumed; set with --max-connections N)",
    };
    let mut text =
        format!("Judged for {} connections{source}, shards: {}\n\n", plan.expected.connections(), plan.shards);
    text.push_str(&lines_of(findings));
    let [ok, advice, problems] = [State::Ok, State::Advice, State::Problem].map(|state| count(findings, state));
    writeln!(text, "\n{ok} ok, {advice} advice, {problems} problems").expect("a string takes text");
    text
}

/// The findings as text, one paragraph each.
fn lines_of(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { check, state, found, cost, fix, .. } in findings {
        writeln!(text, "{:<8} {check:<20} {found}", state.label()).expect("a string takes text");
        for (label, line) in [("cost", cost), ("fix", fix)] {
            if !line.is_empty() {
                writeln!(text, "{:<8} {label:>20} {line}", "").expect("a string takes text");
            }
        }
    }
    text
}
