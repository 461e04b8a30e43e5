//! `relay doctor --public URL`: tries a deployment from the outside, as browsers and backends use it, and names the hop
//! that stands in the way and the line of its configuration to change (R-DIAG-2, R-DIAG-3).
//!
//! Each check makes its own requests, in an order in which a failure explains those that could not be run. Nothing on the
//! server is changed; with the app's secret one event goes to a channel that nobody else has.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{Finding, State, count, lines_of};
use crate::cli::{CommandError, print};
use crate::config::Settings;
use crate::label::Label;
use access::Access;
use connection::{ConnectError, Connector, TlsError};
use hop::{Hop, Hops};
use http::{Answer, AskError};
use lines::{Fault, fix};
use target::Target;

mod access;
mod api;
mod body;
mod connection;
mod cors;
mod endpoint;
mod hop;
mod http;
mod idle;
mod lines;
mod path;
mod reach;
mod signature;
mod target;
mod upgrade;
mod websocket;

/// Flags of the checks from the outside.
#[derive(Args, Debug)]
pub(super) struct PublicArguments {
    /// Check this deployment from the outside instead of this host, such as `https://ws.example.com`.
    #[arg(long, value_name = "URL", conflicts_with = "pid")]
    pub(super) public: Option<String>,
    /// Check your auth endpoint too, such as `https://example.com/broadcasting/auth`.
    #[arg(long, value_name = "URL", requires = "public")]
    auth: Option<String>,
    /// Act for this app of the store [default: the app of the configuration, such as PUSHER_APP_ID].
    #[arg(long, value_name = "ID", requires = "public")]
    app: Option<String>,
    /// Connect with this app key, where the secret is not known.
    #[arg(long, value_name = "KEY", requires = "public")]
    key: Option<String>,
    /// The proxy in front, where it hides its name: nginx, haproxy, caddy, traefik or cloudflare.
    #[arg(long, value_name = "NAME", requires = "public")]
    proxy: Option<String>,
    /// Trust the certificates of this PEM file instead of Mozilla's.
    #[arg(long, value_name = "FILE", requires = "public")]
    ca: Option<PathBuf>,
    /// Keep a WebSocket silent for this time, to see whether a hop closes it.
    #[arg(long, value_name = "SECONDS", requires = "public", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle: Option<u64>,
    /// Origin of the page that connects [default: that of --auth].
    #[arg(long, value_name = "ORIGIN", requires = "public")]
    origin: Option<String>,
    /// Channel for which a signature is requested.
    #[arg(long, value_name = "NAME", requires = "auth", default_value = "private-relay-doctor")]
    channel: String,
    /// Header for the auth endpoint, such as `Cookie: session=...`; `@FILE` reads headers from a file, one a line.
    #[arg(long, value_name = "HEADER", requires = "auth")]
    auth_header: Vec<String>,
}

/// The state of an examination.
#[derive(Debug)]
struct Examination {
    target: Target,
    connector: Connector,
    access: Access,
    hops: Hops,
    /// Of the page that connects.
    origin: Option<String>,
    idle: Option<Duration>,
    findings: Vec<Finding>,
    /// Checks that were not run, with the reason.
    skipped: Vec<(&'static str, String)>,
}

/// Examines and shows. Fails when there is a problem, so that scripts notice it.
pub(super) fn run(arguments: &PublicArguments, settings: &Settings, as_json: bool) -> Result<(), CommandError> {
    let url = arguments.public.as_deref().unwrap_or_default();
    let usage = |flag: &str, value: &str, error: String| CommandError::Usage(format!("{flag} {value}: {error}"));
    let target = Target::parse(url).map_err(|error| usage("--public", url, error))?;
    let endpoint = arguments.auth.as_deref().map(|auth| {
        endpoint::Endpoint::new(auth, &arguments.channel, &arguments.auth_header)
            .map_err(|(flag, error)| usage(flag, if flag == "--auth" { auth } else { "" }, error))
    });
    let endpoint = endpoint.transpose()?;
    let origin = arguments.origin.as_deref().map(|origin| {
        Target::parse(origin).map(|origin| origin.origin()).map_err(|error| usage("--origin", origin, error))
    });
    let mut examination = Examination {
        connector: connector(arguments)?,
        access: Access::find(settings, arguments.app.as_deref(), arguments.key.as_deref())?,
        hops: Hops::new(given_hop(arguments)?),
        origin: origin.transpose()?.or_else(|| endpoint.as_ref().map(endpoint::Endpoint::origin)),
        idle: arguments.idle.map(Duration::from_secs),
        findings: Vec::new(),
        skipped: Vec::new(),
        target,
    };
    examination.run(endpoint.as_ref());
    if as_json {
        print(&format!("{:#}\n", examination.json(endpoint.as_ref())))?;
    } else {
        print(&examination.text())?;
    }
    match count(&examination.findings, State::Problem) {
        0 => Ok(()),
        problems => Err(CommandError::Unreachable(problems)),
    }
}

fn connector(arguments: &PublicArguments) -> Result<Connector, CommandError> {
    let usage = |path: &PathBuf, error: String| CommandError::Usage(format!("--ca {}: {error}", path.display()));
    let roots = arguments.ca.as_ref().map(|path| fs::read(path).map_err(|error| usage(path, error.to_string())));
    let roots = roots.transpose()?;
    Connector::new(roots.as_deref()).map_err(|error| usage(arguments.ca.as_ref().unwrap_or(&PathBuf::new()), error))
}

fn given_hop(arguments: &PublicArguments) -> Result<Option<Hop>, CommandError> {
    let Some(name) = &arguments.proxy else { return Ok(None) };
    let hop = Hop::of_label(&name.to_ascii_lowercase());
    let error = || CommandError::Usage(format!("--proxy takes {}, not {name:?}", Hop::LABELS.join(", ")));
    hop.map(Some).ok_or_else(error)
}

impl Examination {
    /// All checks, in the order in which they are shown.
    fn run(&mut self, endpoint: Option<&endpoint::Endpoint>) {
        let mut client = None;
        if self.check_address() && self.check_tls() && self.check_relay() {
            self.check_host_port();
            self.check_plain();
            client = self.check_websocket();
            if self.check_api() {
                self.check_arrival();
                self.check_path();
                self.check_event(client.as_mut());
            }
            self.check_body();
            if let Some(client) = &client {
                self.check_idle(client.activity_timeout_s);
            }
        }
        if let Some(endpoint) = endpoint {
            self.check_endpoint(endpoint, client.as_mut());
        }
    }

    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(Finding::ok(check, found));
    }

    fn skip(&mut self, check: &'static str, reason: impl Into<String>) {
        self.skipped.push((check, reason.into()));
    }

    /// Reports a fault of a hop, with its line.
    fn fault(
        &mut self,
        state: State,
        check: &'static str,
        fault: Fault,
        found: impl Into<String>,
        cost: impl Into<String>,
    ) {
        let hop = self.hops.nearest();
        self.add(Finding { hop: hop.map(Hop::name), ..Finding::of(state, check, found, cost, fix(fault, hop)) });
    }

    /// Reports an answer that a hop made instead of Relay.
    fn refused_by_hop(&mut self, check: &'static str, subject: &str, answer: &Answer, cost: &str) {
        self.hops.note(answer);
        let (hop, name) = self.hops.author(answer);
        let status = answer.status;
        let (fault, did) = match status {
            301 | 302 | 303 | 307 | 308 => {
                let location = answer.header("location").unwrap_or("nowhere");
                (Fault::Redirect, format!("redirects {subject} to {location} ({status})"))
            }
            400 if answer.text().contains("HTTPS port") => {
                (Fault::Redirect, format!("answers {subject} with 400: this port takes https"))
            }
            400 | 401 | 403 | 407 | 429 | 451 => (Fault::Blocked, format!("refuses {subject} with {status}")),
            413 => (Fault::Body, format!("refuses {subject} with 413")),
            502..=504 | 520..=530 => (Fault::Down, format!("answers {subject} with {status}: it does not reach Relay")),
            status if status >= 500 => (Fault::Down, format!("answers {subject} with {status}")),
            200 => (Fault::NotForwarded, format!("answers {subject} with {}", kind_of_body(answer))),
            _ => (Fault::NotForwarded, format!("answers {subject} with {status} itself")),
        };
        let finding = Finding::of(State::Problem, check, format!("{name} {did}"), cost, fix(fault, hop));
        self.add(Finding { hop: Some(hop.map_or("unknown", Hop::name)), ..finding });
    }

    /// Reports that there is no answer.
    fn no_answer(&mut self, check: &'static str, subject: &str, error: &AskError, cost: &str) {
        let found = format!("no answer to {subject}: {}", describe(error));
        self.fault(State::Problem, check, Fault::Down, found, cost);
    }

    fn json(&self, endpoint: Option<&endpoint::Endpoint>) -> Value {
        json!({
            "relay": env!("CARGO_PKG_VERSION"),
            "public": self.target.to_string(),
            "auth": endpoint.map(|endpoint| endpoint.url()),
            "app": self.access.id,
            "hops": self.hops.names(),
            "ok": count(&self.findings, State::Ok),
            "advice": count(&self.findings, State::Advice),
            "problems": count(&self.findings, State::Problem),
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "skipped": self.skipped.iter().map(|(check, reason)| json!({"check": check, "reason": reason}))
                .collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let app = match (&self.access.id, self.access.pair()) {
            (Some(id), Some(_)) => format!("app {id}, with its secret"),
            _ if self.access.key.is_some() => "an app key without its secret".to_owned(),
            _ => "no app: give --app ID, or PUSHER_APP_ID, PUSHER_APP_KEY and PUSHER_APP_SECRET".to_owned(),
        };
        let mut text = format!("Examined {} as {app}\n\n", self.target);
        text.push_str(&lines_of(&self.findings));
        for (check, reason) in &self.skipped {
            text.push_str(&format!("{:<8} {check:<20} {reason}\n", "not run"));
        }
        let [ok, advice, problems] =
            [State::Ok, State::Advice, State::Problem].map(|state| count(&self.findings, state));
        text.push_str(&format!("\n{ok} ok, {advice} advice, {problems} problems\n"));
        text
    }
}

/// Why there is no answer, as a phrase.
fn describe(error: &AskError) -> String {
    match error {
        AskError::Connect(ConnectError::Unresolved(reason)) => format!("the name cannot be resolved ({reason})"),
        AskError::Connect(ConnectError::Unreachable(address, error)) => format!("{address}: {error}"),
        AskError::Connect(ConnectError::Tls(TlsError::Rustls(error))) => format!("TLS: {error}"),
        AskError::Connect(ConnectError::Tls(TlsError::Io(error))) => format!("TLS: {error}"),
        AskError::Closed(how) => format!("the connection ended {how}"),
        AskError::TimedOut => "nothing within 10 s".to_owned(),
        AskError::NotHttp(what) => format!("the answer is not HTTP ({what})"),
    }
}

/// A body as a report calls it.
fn kind_of_body(answer: &Answer) -> &'static str {
    match answer {
        answer if answer.body.is_empty() => "an empty body",
        answer if answer.is_html() => "a web page",
        answer if answer.json().is_some() => "JSON of another application",
        _ => "text of another application",
    }
}
