//! The HTTP API through all hops: that it is reached, that a signature holds, how requests arrive, and that an event that
//! is published reaches a WebSocket.

use std::time::Instant;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::hop::relay_says;
use super::http::{Answer, Ask, AskError};
use super::lines::Fault;
use super::upgrade::{Client, FRAME_TIME, how};
use super::websocket::Arrived;
use super::{Examination, Finding, State};

const COST: &str = "backends cannot publish";

/// What a request without the app's secret cannot show.
const NO_SECRET: &str =
    "needs the app's secret: --app ID on the host, or PUSHER_APP_ID, PUSHER_APP_KEY, PUSHER_APP_SECRET";

impl Examination {
    /// A request of a backend. True if a signature is accepted, so that further checks can sign.
    pub(super) fn check_api(&mut self) -> bool {
        let path = self.api_path("/channels");
        let answer = match self.ask_signed("GET", &path, &path, &[], b"") {
            Ok(answer) => answer,
            Err(error) => {
                self.no_answer("api", &path, &error, COST);
                return false;
            }
        };
        self.hops.note(&answer);
        let Some(text) = relay_says(&answer) else {
            if answer.status == 200 && answer.json().is_some_and(|json| json["channels"].is_object()) {
                self.ok("api", format!("a signed GET {path} is answered"));
                return true;
            }
            self.refused_by_hop("api", &path, &answer, COST);
            return false;
        };
        match (answer.status, self.access.pair().is_some()) {
            (401 | 404, false) => {
                self.ok("api", format!("Relay answers {} to an unsigned GET {path}", answer.status));
                for check in ["arrival", "path", "event"] {
                    self.skip(check, NO_SECRET);
                }
            }
            (401, true) if self.is_stripped(&path) => return true,
            (status, _) => self.report_api(status, &path, &text),
        }
        false
    }

    /// A signed request that Relay refused.
    fn report_api(&mut self, status: u16, path: &str, text: &str) {
        let fix = match status {
            401 if text.contains("Timestamp") => "synchronize the clocks of this machine and of the server",
            401 if text.contains("auth_key") => "compare the key with `relay app show ID` on the deployment's host",
            401 => {
                "compare the secret with `relay app show ID --secrets`; if it is right, a hop changes the path, the \
                 query or the body"
            }
            404 if text.contains("app") => "compare the id with `relay app list` on the deployment's host",
            404 => "path_prefix in relay.toml, if a proxy adds a prefix",
            403 => "relay app enable ID, or raise messages_per_day",
            _ => "docs/troubleshooting.md has the statuses",
        };
        let found = format!("Relay answers {status} to a signed GET {path}: {}", text.trim_end());
        self.add(Finding { hop: Some("relay"), ..Finding::of(State::Problem, "api", found, COST, fix) });
    }

    /// Whether the signature holds once the prefix is left out: then a hop removes it.
    fn is_stripped(&mut self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&self.target.prefix).filter(|_| !self.target.prefix.is_empty()) else {
            return false;
        };
        let rest = rest.to_owned();
        let answer = self.ask_signed("GET", path, &rest, &[], b"");
        let holds = answer.is_ok_and(|answer| answer.status == 200);
        if holds {
            let found = format!("Relay receives {rest} for {path}: signatures over the whole path do not hold");
            let cost = "SDKs that sign the path with its prefix get 401";
            self.fault(State::Advice, "api", Fault::Stripped, found, cost);
        }
        holds
    }

    /// How a request arrives at Relay (R-DIAG-1).
    pub(super) fn check_arrival(&mut self) {
        let path = self.api_path("/arrival");
        let sent = [
            ("Authorization", "Bearer relay-doctor"),
            ("X-Relay-Key", "relay-doctor"),
            ("X-Relay-Secret", "relay-doctor"),
            ("Content-Type", "application/json"),
            ("Origin", "https://relay-doctor.invalid"),
        ];
        let signed = path.strip_prefix(&self.target.prefix).unwrap_or(&path).to_owned();
        let mut answer = self.ask_signed("GET", &path, &path, &sent, b"");
        if answer.as_ref().is_ok_and(|answer| answer.status == 401) {
            answer = self.ask_signed("GET", &path, &signed, &sent, b"");
        }
        let arrival = match answer {
            Ok(answer) if answer.status == 200 => answer.json().unwrap_or_default(),
            Ok(answer) if answer.status == 404 => return self.skip("arrival", "this Relay is older than the doctor"),
            Ok(answer) => return self.refused_by_hop("arrival", &path, &answer, "headers cannot be compared"),
            Err(error) => return self.no_answer("arrival", &path, &error, "headers cannot be compared"),
        };
        self.judge_version(&arrival);
        self.judge_host(&arrival);
        self.judge_client(&arrival);
        self.judge_proto(&arrival);
        self.judge_headers(&arrival, &sent.map(|(name, _)| name));
    }

    fn judge_version(&mut self, arrival: &Value) {
        if arrival["version"] == "1.0" {
            let found = "the nearest hop speaks HTTP/1.0 to Relay";
            let cost = "every request needs a connection of its own, and WebSockets are refused";
            self.fault(State::Problem, "http_version", Fault::Http10, found, cost);
        }
    }

    fn judge_host(&mut self, arrival: &Value) {
        let host = arrival["host"].as_str().unwrap_or_default();
        if host == self.target.host_header() || host == self.target.host || host == self.target.host_with_port() {
            return self.ok("host", format!("arrives as {host}"));
        }
        let found = format!("arrives as {host:?}, not as {}", self.target.host_header());
        let cost = "logs and rules behind the hop do not show which host was asked";
        self.fault(State::Advice, "host", Fault::HostValue, found, cost);
    }

    /// Whether limits count for clients or for the proxy (threats T6, T26).
    fn judge_client(&mut self, arrival: &Value) {
        let check = "client_address";
        let cost = "every client has the proxy's address: failed credentials of one count against all";
        let (trusted, hops) = (arrival["peer_is_trusted"] == true, arrival["forwarded_hops"].as_u64().unwrap_or(0));
        let peer = arrival["peer"].as_str().unwrap_or_default();
        match (trusted, hops, arrival["client"].as_str()) {
            (true, _, Some(client)) => self.ok(check, format!("{client}, named by a trusted proxy")),
            (false, 0, _) if self.hops.names().is_empty() && self.hops.given.is_none() => {
                self.ok(check, "no proxy names it: this client reaches Relay directly, as far as can be seen");
            }
            (_, 0, _) => {
                let found = "no hop sends X-Forwarded-For, Forwarded or the PROXY protocol";
                self.fault(State::Advice, check, Fault::ForwardedFor, found, cost);
            }
            (false, ..) => {
                let found = format!("X-Forwarded-For arrives from a {peer} address that is not in trusted_proxies");
                let address = if peer == "loopback" { "127.0.0.1" } else { "ADDRESS OF THE PROXY" };
                let fix = format!("trusted_proxies = [\"{address}\"] in relay.toml");
                let finding = Finding::of(State::Advice, check, found, cost, fix);
                self.add(Finding { hop: Some("relay"), ..finding });
            }
            (true, _, None) if arrival["client_is_trusted"] == true => {
                self.ok(check, "a trusted proxy names it, and it is one of trusted_proxies itself: run this elsewhere");
            }
            (true, _, None) => {
                let found = "X-Forwarded-For hides the address, or cannot be read";
                self.fault(State::Advice, check, Fault::ForwardedFor, found, cost);
            }
        }
    }

    /// Whether Relay knows that the client used TLS.
    fn judge_proto(&mut self, arrival: &Value) {
        if !self.target.tls {
            return;
        }
        let proto = arrival["forwarded_proto"].as_str();
        match (arrival["secure"] == true, proto) {
            (true, _) => self.ok("forwarded_proto", "Relay knows that the client used TLS"),
            (false, Some("https" | "wss")) => {
                let found = "X-Forwarded-Proto arrives from an address that is not in trusted_proxies";
                let cost = "apps with tls_only refuse every client with 4000";
                let finding =
                    Finding::of(State::Advice, "forwarded_proto", found, cost, "trusted_proxies in relay.toml");
                self.add(Finding { hop: Some("relay"), ..finding });
            }
            (false, proto) => {
                let found = format!("X-Forwarded-Proto arrives as {}", proto.unwrap_or("nothing"));
                let cost = "apps with tls_only refuse every client with 4000";
                self.fault(State::Advice, "forwarded_proto", Fault::ForwardedProto, found, cost);
            }
        }
    }

    fn judge_headers(&mut self, arrival: &Value, sent: &[&str]) {
        let arrived: Vec<&str> =
            arrival["headers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let lost: Vec<&str> =
            sent.iter().filter(|name| !arrived.contains(&name.to_ascii_lowercase().as_str())).copied().collect();
        if lost.is_empty() {
            return self.ok("headers", format!("{} arrive", sent.join(", ")));
        }
        let found = format!("a hop drops {}", lost.join(", "));
        let cost = "requests that authenticate with these headers get 401";
        self.fault(State::Problem, "headers", Fault::Headers, found, cost);
    }

    /// An event from a backend to a browser.
    pub(super) fn check_event(&mut self, client: Option<&mut Client>) {
        let Some(Client { socket, .. }) = client else {
            return self.skip("event", "needs an open WebSocket");
        };
        let channel = format!("relay-doctor-{}", random_name());
        socket.send(&json!({"event": "pusher:subscribe", "data": {"channel": channel}}));
        let subscribed = socket.next_message(Instant::now() + FRAME_TIME);
        if !matches!(&subscribed, Arrived::Json(frame) if frame["event"] == "pusher_internal:subscription_succeeded") {
            let found = format!("a subscription is not answered: {}", how(&subscribed));
            return self.fault(State::Problem, "event", Fault::Silent, found, "clients receive nothing");
        }
        let started = Instant::now();
        if !self.publish(&channel) {
            return;
        }
        match socket.next_message(started + FRAME_TIME) {
            Arrived::Json(frame) if frame["event"] == "relay-doctor" => {
                self.ok("event", format!("a published event arrives after {} ms", started.elapsed().as_millis()));
            }
            arrived @ (Arrived::Json(_)
            | Arrived::Control
            | Arrived::Close(..)
            | Arrived::Ended(_)
            | Arrived::Nothing) => {
                let found = format!("published with 200, and not received: {}", how(&arrived));
                let cost = "clients receive nothing that this backend publishes";
                let fix = "send /app and /apps to the same Relay: two servers do not know each other's clients";
                self.add(Finding::of(State::Problem, "event", found, cost, fix));
            }
        }
    }

    /// Publishes one event; a failure is reported.
    fn publish(&mut self, channel: &str) -> bool {
        let body = json!({"name": "relay-doctor", "channels": [channel], "data": "{}"}).to_string();
        let path = self.api_path("/events");
        let answer = match self.ask_signed_either("POST", &path, body.as_bytes()) {
            Ok(answer) if answer.status == 200 && answer.json().is_some() => return true,
            Ok(answer) => answer,
            Err(error) => {
                self.no_answer("event", &path, &error, COST);
                return false;
            }
        };
        match relay_says(&answer) {
            Some(text) => {
                let found = format!("Relay answers {} to a publish: {}", answer.status, text.trim_end());
                let fix = "see docs/troubleshooting.md; if GET is accepted, a hop changes bodies";
                self.add(Finding { hop: Some("relay"), ..Finding::of(State::Problem, "event", found, COST, fix) });
            }
            None => self.refused_by_hop("event", &path, &answer, COST),
        }
        false
    }

    /// A route of the app, or of an app that cannot exist.
    pub(super) fn api_path(&self, route: &str) -> String {
        self.target.path(&format!("/api/v1/apps/{}{route}", self.access.id.as_deref().unwrap_or("0")))
    }

    /// A request, signed if the secret is known.
    pub(super) fn ask_signed(
        &self,
        method: &str,
        path: &str,
        signed_path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, AskError> {
        let path = self.access.sign(method, path, signed_path, body).unwrap_or_else(|| path.to_owned());
        self.connector.ask(&self.target, &Ask { method, path: &path, headers, body })
    }

    /// The same, signed without the prefix if a hop removes that.
    pub(super) fn ask_signed_either(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, AskError> {
        let json = [("Content-Type", "application/json")];
        let answer = self.ask_signed(method, path, path, &json, body)?;
        if answer.status != 401 || self.target.prefix.is_empty() {
            return Ok(answer);
        }
        let short = path.strip_prefix(&self.target.prefix).unwrap_or(path).to_owned();
        self.ask_signed(method, path, &short, &json, body)
    }
}

/// A name that nobody else uses.
pub(super) fn random_name() -> String {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    const_hex::encode(bytes)
}
