//! Whether Relay is reached at all: the name, the port, TLS, and who answers.

use std::io;
use std::time::Instant;

use super::connection::{ConnectError, Connector, TlsError};
use super::hop::relay_says;
use super::http::{Ask, AskError};
use super::lines::{Fault, fix};
use super::target::Target;
use super::{Examination, Finding, State, describe};

/// The cost of a deployment that does not answer.
const NOBODY: &str = "no client and no backend gets in";

impl Examination {
    /// The name has addresses, and each of them accepts.
    pub(super) fn check_address(&mut self) -> bool {
        let check = "address";
        let started = Instant::now();
        let addresses = match Connector::resolve(&self.target) {
            Ok(addresses) => addresses,
            Err(error) => {
                let found = describe(&AskError::Connect(error));
                let fix = format!("add a DNS record for {}, or correct --public", self.target.host);
                self.add(Finding::of(State::Problem, check, found, NOBODY, fix));
                return false;
            }
        };
        let (mut accepting, mut refusing) = (Vec::new(), Vec::new());
        for address in addresses {
            match Connector::dial(address) {
                Ok(_) => accepting.push(address.to_string()),
                // This machine has no IPv6, or the other way round: nothing that the deployment could change.
                Err(ConnectError::Unreachable(_, error)) if is_own_lack(&error) => {}
                Err(error) => refusing.push(describe(&AskError::Connect(error))),
            }
        }
        let listen = format!("start what listens on port {}, or open the port in the firewall", self.target.port);
        match (accepting.is_empty(), refusing.is_empty()) {
            (true, _) => {
                let found = if refusing.is_empty() {
                    "no address of the name can be reached from this machine".to_owned()
                } else {
                    refusing.join("; ")
                };
                self.add(Finding::of(State::Problem, check, found, NOBODY, listen));
                false
            }
            (false, true) => {
                let ms = started.elapsed().as_millis();
                self.ok(check, format!("{} accepts connections ({ms} ms)", accepting.join(", ")));
                true
            }
            (false, false) => {
                let found = format!("{} accepts, but {}", accepting.join(", "), refusing.join("; "));
                let cost = "clients that try this address first wait, or fail";
                let fix = format!("{listen}; or remove this address from the DNS record");
                self.add(Finding::of(State::Advice, check, found, cost, fix));
                true
            }
        }
    }

    /// The certificate is one that browsers accept.
    pub(super) fn check_tls(&mut self) -> bool {
        if !self.target.tls {
            return true;
        }
        match self.connector.connect(&self.target) {
            Ok(connection) => {
                let version = connection.tls_version.unwrap_or_default();
                self.ok("tls", format!("{version}, the certificate is valid for {}", self.target.host));
                true
            }
            Err(ConnectError::Tls(error)) => {
                self.report_tls("tls", &self.target.clone(), &error);
                false
            }
            Err(error) => {
                let found = describe(&AskError::Connect(error));
                self.add(Finding::of(State::Problem, "tls", found, NOBODY, "run it again: it answered before"));
                false
            }
        }
    }

    /// Names why a handshake of TLS failed.
    pub(super) fn report_tls(&mut self, check: &'static str, target: &Target, error: &TlsError) {
        let host = &target.host;
        let hop = self.hops.nearest();
        let certificate = || fix(Fault::Certificate, hop);
        let (found, fix) = match error {
            TlsError::Rustls(rustls::Error::InvalidCertificate(error)) => {
                (format!("the certificate is not accepted: {}", describe_certificate(error, host)), certificate())
            }
            TlsError::Rustls(rustls::Error::InvalidMessage(_)) => {
                let plain = format!(
                    "use http://{} or turn TLS on there (nginx: listen {} ssl)",
                    target.host_with_port(),
                    target.port
                );
                (format!("port {} does not speak TLS", target.port), plain)
            }
            TlsError::Rustls(rustls::Error::AlertReceived(alert)) => (
                format!("the server refuses the handshake for {host} ({alert:?}): it has no certificate for that name"),
                certificate(),
            ),
            TlsError::Rustls(error) => (error.to_string(), certificate()),
            TlsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                (format!("the connection ends during the handshake for {host}"), certificate())
            }
            TlsError::Io(error) => (format!("the handshake fails: {error}"), certificate()),
        };
        let hop = hop.map(super::Hop::name);
        let cost = "browsers and SDKs refuse the connection before a byte is sent";
        self.add(Finding { hop, ..Finding::of(State::Problem, check, found, cost, fix) });
    }

    /// Relay itself answers its health check.
    pub(super) fn check_relay(&mut self) -> bool {
        let check = "relay";
        let path = self.target.path("/up");
        let started = Instant::now();
        let answer = match self.connector.ask(&self.target, &Ask { method: "GET", path: &path, ..Ask::default() }) {
            Ok(answer) => answer,
            Err(error) => {
                self.no_answer(check, &path, &error, NOBODY);
                return false;
            }
        };
        self.hops.note(&answer);
        match relay_says(&answer) {
            Some(text) if answer.status == 200 && text == "OK\n" => {
                let hops = self.hops.names();
                let way = match (hops.is_empty(), self.hops.given) {
                    (false, _) => format!(" through {}", hops.join(", ")),
                    (true, Some(hop)) => format!(" through {}", hop.name()),
                    (true, None) => "; no hop shows its name (--proxy NAME names one)".to_owned(),
                };
                self.ok(check, format!("answers {path} in {} ms{way}", started.elapsed().as_millis()));
                true
            }
            Some(text) if answer.status == 404 && !self.target.prefix.is_empty() => {
                let found = format!("Relay does not serve {path}: {}", text.trim_end());
                let fix = format!("path_prefix = \"{}\" in relay.toml", self.target.prefix);
                self.add(Finding { hop: Some("relay"), ..Finding::of(State::Problem, check, found, NOBODY, fix) });
                false
            }
            // Clients and backends do not need it: whether their paths are forwarded is judged by those.
            None if matches!(answer.status, 200 | 401 | 403 | 404 | 405) => {
                let (_, name) = self.hops.author(&answer);
                let found = format!("{name} answers {path} with {} itself", answer.status);
                let cost = "monitors outside cannot ask for Relay's health";
                self.fault(State::Advice, check, Fault::NotForwarded, found, cost);
                true
            }
            Some(_) | None => {
                self.refused_by_hop(check, &path, &answer, NOBODY);
                false
            }
        }
    }

    /// Some mobile SDKs write the default port into `Host`; browsers do not.
    pub(super) fn check_host_port(&mut self) {
        let check = "host_port";
        if !self.target.has_default_port() {
            return;
        }
        let host = self.target.host_with_port();
        let headers = [("Host", host.as_str())];
        let path = self.target.path("/up");
        let ask = Ask { method: "GET", path: &path, headers: &headers, ..Ask::default() };
        let refused = match self.connector.ask(&self.target, &ask) {
            Ok(answer) if relay_says(&answer).is_some() => None,
            Ok(answer) => Some(format!("{} answers {} to it", self.hops.author(&answer).1, answer.status)),
            Err(error) => Some(describe(&error)),
        };
        match refused {
            None => self.ok(check, format!("`Host: {host}` is accepted as well")),
            Some(found) => {
                let found = format!("`Host: {host}` is refused: {found}");
                let cost = "SDKs that write the default port into Host, such as some on phones, do not connect";
                self.fault(State::Problem, check, Fault::HostPort, found, cost);
            }
        }
    }

    /// What the port for http does, where the deployment has TLS.
    pub(super) fn check_plain(&mut self) {
        if self.target.tls && self.target.has_default_port() {
            let plain = Target { tls: false, port: 80, ..self.target.clone() };
            let path = plain.path("/up");
            let answer = self.connector.ask(&plain, &Ask { method: "GET", path: &path, ..Ask::default() });
            match answer {
                Ok(answer) if relay_says(&answer).is_some() => {
                    let fix = "redirect http to https at the proxy, or: relay app set ID tls_only=true";
                    let found = format!("{plain} serves Relay without TLS");
                    let cost = "a client without forceTLS sends its data and signatures in the clear";
                    self.add(Finding::of(State::Advice, "plain", found, cost, fix));
                }
                Ok(answer) if (300..400).contains(&answer.status) => {
                    self.ok("plain", format!("{plain} redirects; WebSockets do not follow that, so clients need wss"));
                }
                Ok(answer) => self.ok("plain", format!("{plain} answers {}, not as Relay", answer.status)),
                Err(error) => self.ok("plain", format!("{plain} serves nothing ({})", describe(&error))),
            }
        }
    }
}

/// Errors of this machine's own network.
fn is_own_lack(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable)
}

/// The reason in words that lead to the fix.
fn describe_certificate(error: &rustls::CertificateError, host: &str) -> String {
    use rustls::CertificateError as Reason;
    #[allow(clippy::wildcard_enum_match_arm, reason = "the library names further causes")]
    match error {
        Reason::Expired | Reason::ExpiredContext { .. } => "it has expired".to_owned(),
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            "it is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        Reason::NotValidForName => format!("it is not for {host}"),
        Reason::NotValidForNameContext { presented, .. } => {
            format!("it is not for {host} but for {}", presented.join(", "))
        }
        Reason::UnknownIssuer => "its issuer is unknown: the server sends no intermediate certificate, or it is \
                                  self-signed (--ca FILE trusts one)"
            .to_owned(),
        Reason::Revoked => "it is revoked".to_owned(),
        error if format!("{error:?}").contains("CaUsedAsEndEntity") => {
            "it is self-signed (--ca FILE trusts one that is signed by a CA of your own)".to_owned()
        }
        error => error.to_string(),
    }
}
